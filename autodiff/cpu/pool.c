/* Fork and join by spinning first and sleeping later: jobs follow each other within microseconds while a plan runs, and
 * a program that does something else must not find a core busy. */
#include "autodiff/cpu/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

enum { SPINS = 4000, MOST_THREADS = 256, LINE = 64 };

typedef struct worker {
    cpu_pool *pool;
    int thread;
    pthread_t id;
} worker;

/* The chunks that a thread takes first: the same ones at every run of a plan, so that they are in its cache. */
typedef struct share {
    atomic_int_fast64_t next; /* first chunk that no one has taken */
    int64_t end;
    char pad[LINE - 2 * sizeof(int64_t)];
} share;

struct cpu_pool {
    ad_context *context;
    unsigned forks; /* of the process when its workers were born: a child has none of them */
    int wanted, threads, started; /* threads asked for, had; workers that run: at most threads - 1 */
    worker *worker;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    atomic_int sleeping;
    atomic_bool quit;

    chunk_fn *run;
    const void *job;
    int64_t chunks, piece;
    share *share; /* of each thread */
    /* each written by many: on lines of their own */
    char pad0[LINE];
    atomic_uint_fast64_t ticket; /* number of the current job */
    char pad1[LINE];
    atomic_int working; /* workers that have not left the current job */
    char pad2[LINE];
};

static inline void relax(void)
{
#if defined __x86_64__
    __builtin_ia32_pause();
#endif
}

/* A thread's own share first, then what is left of the others'. */
static void take_chunks(cpu_pool *p, int thread)
{
    int threads = p->started + 1;
    for (int i = 0; i < threads; i++) {
        share *s = &p->share[(thread + i) % threads];
        for (;;) {
            int64_t from = atomic_fetch_add_explicit(&s->next, p->piece, memory_order_relaxed);
            if (from >= s->end)
                break;
            p->run(p->job, from, from + p->piece < s->end ? from + p->piece : s->end, thread);
        }
    }
}

static uint64_t next_ticket(cpu_pool *p, uint64_t seen)
{
    for (int i = 0; i < SPINS; i++) {
        uint64_t now = atomic_load_explicit(&p->ticket, memory_order_acquire);
        if (now != seen)
            return now;
        relax();
    }
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->sleeping, 1);
    while (atomic_load(&p->ticket) == seen)
        pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->sleeping, 1);
    pthread_mutex_unlock(&p->lock);
    return atomic_load(&p->ticket);
}

/* Every worker takes part in every job, if only to find no chunk left: run returns when all have. */
static void *work(void *worker_)
{
    worker *w = worker_;
    cpu_pool *p = w->pool;
    for (uint64_t seen = 0;;) {
        seen = next_ticket(p, seen);
        if (atomic_load(&p->quit))
            return NULL;
        take_chunks(p, w->thread);
        atomic_fetch_sub_explicit(&p->working, 1, memory_order_release);
    }
}

/* ---- forks ------------------------------------------------------------------------------------------------------- */

static atomic_uint forks;
static void in_child(void)
{
    atomic_fetch_add(&forks, 1);
}
static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, in_child);
}

/* In a child the workers are gone, and with them whoever held the lock: the pool begins anew. */
static void survive_fork(cpu_pool *p)
{
    if (p->forks == atomic_load_explicit(&forks, memory_order_relaxed))
        return;
    p->forks = atomic_load(&forks);
    p->threads = p->wanted;
    p->started = 0;
    atomic_store(&p->sleeping, 0);
    atomic_store(&p->working, 0);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
}

static void publish(cpu_pool *p)
{
    atomic_fetch_add(&p->ticket, 1);
    if (!atomic_load(&p->sleeping))
        return;
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

cpu_pool *cpu_pool_new(ad_context *c, int threads)
{
    if (threads < 1)
        threads = 1;
    if (threads > MOST_THREADS)
        threads = MOST_THREADS;
    cpu_pool *p = ad__allocate(c, NULL, sizeof *p);
    worker *workers = p ? ad__allocate(c, NULL, (size_t)threads * sizeof *workers) : NULL;
    share *shares = workers ? ad__allocate(c, NULL, (size_t)threads * sizeof *shares) : NULL;
    if (!shares) {
        ad__allocate(c, workers, 0);
        ad__allocate(c, p, 0);
        return NULL;
    }
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    memset(p, 0, sizeof *p);
    p->context = c;
    p->forks = atomic_load(&forks);
    p->threads = p->wanted = threads;
    p->worker = workers;
    p->share = shares;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    return p;
}

/* Workers wait for the first parallel job to be born; where one cannot be had, the others do its share. */
static void start_workers(cpu_pool *p)
{
    int n = 0;
    for (int i = 1; i < p->threads; i++) {
        worker *w = &p->worker[n];
        *w = (worker){ .pool = p, .thread = n + 1 };
        if (!pthread_create(&w->id, NULL, work, w))
            n++;
    }
    p->started = n;
    p->threads = n + 1;
}

void cpu_pool_free(cpu_pool *p)
{
    if (!p)
        return;
    survive_fork(p);
    atomic_store(&p->quit, true);
    publish(p);
    for (int i = 0; i < p->started; i++)
        pthread_join(p->worker[i].id, NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
    ad__allocate(p->context, p->worker, 0);
    ad__allocate(p->context, p->share, 0);
    ad__allocate(p->context, p, 0);
}

int cpu_pool_threads(const cpu_pool *p)
{
    return p->threads;
}

void cpu_pool_run(cpu_pool *p, chunk_fn *run, const void *job, int64_t chunks)
{
    survive_fork(p);
    if (p->threads > p->started + 1)
        start_workers(p);
    if (p->started == 0 || chunks < 2) {
        run(job, 0, chunks, 0);
        return;
    }
    p->run = run;
    p->job = job;
    p->chunks = chunks;
    int threads = p->started + 1;
    p->piece = chunks / (8 * threads);
    if (p->piece < 1)
        p->piece = 1;
    for (int i = 0; i < threads; i++) {
        atomic_store_explicit(&p->share[i].next, chunks * i / threads, memory_order_relaxed);
        p->share[i].end = chunks * (i + 1) / threads;
    }
    atomic_store_explicit(&p->working, p->started, memory_order_relaxed);
    publish(p);
    take_chunks(p, 0);
    for (int i = 0; atomic_load_explicit(&p->working, memory_order_acquire); i++) {
        if (i < SPINS)
            relax();
        else
            sched_yield();
    }
}
