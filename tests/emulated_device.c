/* A device without a GPU: memory of the host's, the same sources compiled as C by the machine's compiler, blocks of
 * threads run one thread after the other, as coroutines where a kernel has barriers. Made into a backend of its own,
 * libtaper_emulated, with the CUDA backend's code around it; test_gpu.c compares it with the CPU, test_device.c looks
 * at what it noted. $TAPER_EMULATED_KEEP names a folder for the sources, $TAPER_EMULATED_CACHE one for what was made
 * of them, which lasts no longer than a run of the tests: it does not know when headers change.
 * $TAPER_FAIL_DEVICE_ALLOCATION is the number of the allocation, since the device was opened, that is refused. */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "gpu/gpu.h"
#include "gpu/hash.h"
#include "tests/emulated_device.h"

__attribute__((visibility("default"))) emulated_record emulated__record;

enum { STACK = 1 << 16 };

/* What takes CUDA's words' place in front of a source. */
static const char prelude[] = "struct geometry { int thread, threads, row, rows; long long block, blocks; } geometry;\n"
                              "void (*barrier)(void);\n"
                              "#define DEVICE static inline __attribute__((unused))\n"
                              "#define KERNEL(name) void name(word *bind, const word *step)\n"
                              "#define __shared__ static\n"
                              "#define __syncthreads() barrier()\n"
                              "#define THREAD geometry.thread\n"
                              "#define THREADS geometry.threads\n"
                              "#define BLOCK geometry.block\n"
                              "#define BLOCKS geometry.blocks\n"
                              "#define ROW geometry.row\n"
                              "#define ROWS geometry.rows\n";

typedef struct geometry {
    int thread, threads, row, rows;
    long long block, blocks;
} geometry;
typedef void kernel_fn(int64_t *bind, const int64_t *step);

typedef struct emulated {
    ad_context *context;
    int real_bits;
    char *stacks;
    int64_t fail_at; /* allocations until one is refused; 0: never */
} emulated;
typedef struct module module;
typedef struct kernel {
    struct kernel *next; /* of the module */
    module *module;
    kernel_fn *run;
    char name[32];
} kernel;
struct module {
    void *object;
    geometry *geometry;
    void (**barrier)(void);
    kernel *kernels;
};

/* ---- blocks of threads ------------------------------------------------------------------------------------------- */

/* Contexts make the coroutines; they are then switched by jumps, which ask nothing of the kernel. */
static struct {
    ucontext_t scheduler, thread[GPU_THREADS];
    jmp_buf scheduler_jump, thread_jump[GPU_THREADS];
    bool made[GPU_THREADS], ended[GPU_THREADS];
    int current, waiting;
    kernel_fn *run;
    int64_t *bind;
    const int64_t *step;
} running;

/* Leaves the current thread, or the scheduler for it, until somebody switches back. */
static void to_scheduler(void)
{
#ifdef __SANITIZE_ADDRESS__ /* it follows contexts, but not jumps between stacks */
    swapcontext(&running.thread[running.current], &running.scheduler);
#else
    if (!_setjmp(running.thread_jump[running.current]))
        _longjmp(running.scheduler_jump, 1);
#endif
}
static void to_thread(bool first)
{
#ifdef __SANITIZE_ADDRESS__
    (void)first;
    swapcontext(&running.scheduler, &running.thread[running.current]);
#else
    if (!_setjmp(running.scheduler_jump)) {
        if (first)
            setcontext(&running.thread[running.current]);
        _longjmp(running.thread_jump[running.current], 1);
    }
#endif
}

static void wait_for_others(void)
{
    running.waiting++;
    to_scheduler();
}
static void run_thread(void) /* block after block */
{
    for (;;) {
        running.run(running.bind, running.step);
        running.ended[running.current] = true;
        to_scheduler();
    }
}
static void resume(geometry *g, int thread)
{
    g->thread = running.current = thread;
    to_thread(false);
}
static void start_thread(emulated *e, geometry *g, int thread)
{
    ucontext_t *t = &running.thread[thread];
    bool first = !running.made[thread];
    g->thread = running.current = thread;
    running.ended[thread] = false;
    running.made[thread] = true;
    if (first) {
        getcontext(t);
        t->uc_stack.ss_sp = e->stacks + (size_t)thread * STACK;
        t->uc_stack.ss_size = STACK;
        makecontext(t, run_thread, 0);
    }
    to_thread(first);
}

/* One block; the first thread shows whether there are barriers. */
static void run_block(emulated *e, geometry *g)
{
    running.waiting = 0;
    start_thread(e, g, 0);
    bool barriers = running.waiting > 0;
    for (g->thread = 1; !barriers && g->thread < g->threads; g->thread++)
        running.run(running.bind, running.step);
    for (int t = 1; barriers && t < g->threads; t++)
        start_thread(e, g, t);
    for (bool any = barriers; any;) {
        any = false;
        for (int t = 0; t < g->threads; t++) {
            if (running.ended[t])
                continue;
            resume(g, t);
            any = true;
        }
    }
}

static void note_step(const emulated_step *step)
{
    emulated_record *r = &emulated__record;
    if (r->n_steps++ < EMULATED_MOST)
        r->step[r->n_steps - 1] = *step;
}

static bool launch(void *device, void *kernel_, gpu_grid grid, void *bind, const void *step)
{
    const kernel *k = kernel_;
    emulated_step noted = { .grid = grid, .bind = bind, .words = step };
    memcpy(noted.kernel, k->name, sizeof noted.kernel);
    note_step(&noted);
    geometry *g = k->module->geometry;
    *k->module->barrier = wait_for_others;
    running.run = k->run;
    running.bind = bind;
    running.step = step;
    *g = (geometry){ .threads = grid.threads, .blocks = grid.blocks, .rows = grid.rows };
    for (g->row = 0; g->row < grid.rows; g->row++)
        for (g->block = 0; g->block < grid.blocks; g->block++)
            run_block(device, g);
    return true;
}

/* ---- sources ----------------------------------------------------------------------------------------------------- */

/* TAPER_EMULATED_KEEP's copy of what was compiled, under the number of the real's bits and a running one. */
static void keep(const emulated *e, const char *source)
{
    static int count;
    const char *folder = getenv("TAPER_EMULATED_KEEP");
    char path[4096];
    snprintf(path, sizeof path, "%s/%d_%d_%ld.cu", folder ? folder : "", e->real_bits, count++, (long)getpid());
    FILE *f = folder ? fopen(path, "w") : NULL;
    if (!f)
        return;
    fputs(source, f);
    fclose(f);
}

static bool build(const emulated *e, const char *source, const char *folder, const char *object)
{
    char path[256], command[1024];
    snprintf(path, sizeof path, "%s/source.c", folder);
    FILE *f = fopen(path, "w");
    if (!f)
        return false;
    fprintf(f, "%s%s", prelude, source);
    if (fclose(f))
        return false;
    snprintf(command, sizeof command,
             "cc -std=gnu11 -O1 -shared -fPIC -ffp-contract=off -fno-math-errno -fno-trapping-math %s "
             "-DAD_REAL_BITS=%d -I'%s' "
             "-o '%s' '%s'",
             __builtin_cpu_supports("fma") ? "-mfma" : "", e->real_bits, TAPER_ROOT, object, path);
    bool built = system(command) == 0;
    remove(path);
    return built;
}

static void *compile(void *device, const char *source)
{
    const emulated *e = device;
    const char *cache = getenv("TAPER_EMULATED_CACHE");
    char folder[] = "/tmp/taper_emulated_XXXXXX", object[256], cached[256] = "";
    module *m = mkdtemp(folder) ? ad__allocate(e->context, NULL, sizeof *m) : NULL;
    if (!m)
        return NULL;
    *m = (module){ .object = NULL };
    emulated__record.compiled++;
    keep(e, source);
    uint64_t hash = gpu__hash(GPU_HASH, source, strlen(source));
    snprintf(object, sizeof object, "%s/object.so", folder);
    if (cache)
        snprintf(cached, sizeof cached, "%s/%d_%016llx.so", cache, e->real_bits, (unsigned long long)hash);
    if (cache && !access(cached, R_OK)) {
        m->object = dlopen(cached, RTLD_NOW | RTLD_LOCAL);
    } else if (build(e, source, folder, object)) {
        m->object = dlopen(cache && !rename(object, cached) ? cached : object, RTLD_NOW | RTLD_LOCAL);
        remove(object);
    }
    rmdir(folder);
    if (m->object) {
        m->geometry = dlsym(m->object, "geometry");
        m->barrier = dlsym(m->object, "barrier");
        return m;
    }
    ad__fail(e->context, AD_ERROR_DEVICE, NULL, "a source does not compile as C");
    ad__allocate(e->context, m, 0);
    return NULL;
}

static void *find_kernel(void *device, void *module_, const char *name)
{
    const emulated *e = device;
    module *m = module_;
    void *symbol = dlsym(m->object, name);
    kernel *k = symbol ? ad__allocate(e->context, NULL, sizeof *k) : NULL;
    if (!k) {
        if (!symbol)
            ad__fail(e->context, AD_ERROR_DEVICE, NULL, "no kernel %s", name);
        return NULL;
    }
    *k = (kernel){ .next = m->kernels, .module = m };
    snprintf(k->name, sizeof k->name, "%s", name);
    m->kernels = k;
    memcpy(&k->run, &symbol, sizeof symbol);
    return k;
}

static void unload(void *device, void *module_)
{
    ad_context *c = ((emulated *)device)->context;
    module *m = module_;
    for (kernel *k = m->kernels, *next; k; k = next) {
        next = k->next;
        ad__allocate(c, k, 0);
    }
    dlclose(m->object);
    ad__allocate(c, m, 0);
}

/* ---- the rest ---------------------------------------------------------------------------------------------------- */

/* Which allocation an address lies in, or -1. */
static int memory_of(const void *at)
{
    const emulated_record *r = &emulated__record;
    for (int i = 0; i < r->n_memory; i++)
        if ((const char *)at >= r->memory[i].at && (const char *)at < r->memory[i].at + r->memory[i].bytes)
            return i;
    return -1;
}

static void *memory_new(void *device, size_t bytes)
{
    emulated *e = device;
    emulated_record *r = &emulated__record;
    void *memory = NULL;
    size_t left = EMULATED_BYTES;
    for (int i = 0; i < r->n_memory; i++)
        left -= r->memory[i].bytes;
    bool refused = e->fail_at && !--e->fail_at;
    if (!refused && bytes <= left && r->n_memory < EMULATED_MEMORIES && !posix_memalign(&memory, 64, bytes)) {
        memset(memory, 0xa5, bytes); /* whoever reads what nobody wrote shall notice */
        r->memory[r->n_memory].at = memory;
        r->memory[r->n_memory++].bytes = bytes;
        return memory;
    }
    ad__fail(e->context, AD_ERROR_MEMORY, NULL, "out of device memory: %zu bytes asked", bytes);
    return NULL;
}
static void memory_free(void *device, void *memory)
{
    emulated_record *r = &emulated__record;
    int i = memory_of(memory);
    (void)device;
    if (i < 0)
        abort(); /* not the device's: a bug of the backend's */
    r->memory[i] = r->memory[--r->n_memory];
    free(memory);
}
static bool clear(void *device, void *memory, size_t bytes)
{
    (void)device;
    memset(memory, 0, bytes);
    return true;
}
static bool copy(void *device, void *to, const void *from, size_t bytes)
{
    emulated_record *r = &emulated__record;
    bool of_device = memory_of(from) >= 0, to_device = memory_of(to) >= 0;
    (void)device;
    memcpy(to, from, bytes);
    r->sent += to_device && !of_device ? (int64_t)bytes : 0;
    r->sends += to_device && !of_device;
    r->fetched += of_device && !to_device ? (int64_t)bytes : 0;
    r->fetches += of_device && !to_device;
    return true;
}
static bool wait_for_all(void *device)
{
    (void)device;
    emulated__record.waits++;
    return true;
}
static bool reaches(void *device, const void *memory)
{
    (void)device;
    return memory_of(memory) >= 0;
}
static void *record_new(void *device, size_t bytes)
{
    return ad__allocate(((emulated *)device)->context, NULL, bytes);
}
static void record_free(void *device, void *record)
{
    ad__allocate(((emulated *)device)->context, record, 0);
}
static int processors(void *device)
{
    (void)device;
    return EMULATED_PROCESSORS;
}

#define MULTIPLY(name, type)                                                                                           \
    static void name(const gpu_product *g, const type *a, const type *b, type *c)                                      \
    {                                                                                                                  \
        for (int64_t q = 0; q < g->members; q++)                                                                       \
            for (int64_t i = 0; i < g->m; i++)                                                                         \
                for (int64_t j = 0; j < g->n; j++) {                                                                   \
                    double sum = 0;                                                                                    \
                    for (int64_t l = 0; l < g->k; l++)                                                                 \
                        sum += (double)a[q * g->stride_a + (g->transpose_a ? l * g->m + i : i * g->k + l)] *           \
                               (double)b[q * g->stride_b + (g->transpose_b ? j * g->k + l : l * g->n + j)];            \
                    *c++ = (type)sum;                                                                                  \
                }                                                                                                      \
    }
MULTIPLY(multiply_floats, float)
MULTIPLY(multiply_doubles, double)

static bool multiply(void *device, const gpu_product *g, const void *a, const void *b, void *c)
{
    note_step(&(emulated_step){ .product = *g, .operand = { c, a, b } });
    if (((emulated *)device)->real_bits == 64)
        multiply_doubles(g, a, b, c);
    else
        multiply_floats(g, a, b, c);
    return true;
}

static const char *describe(void *device)
{
    (void)device;
    return "emulated";
}

static void close_device(void *device)
{
    emulated *e = device;
    free(e->stacks);
    memset(running.made, 0, sizeof running.made); /* they stood on its stacks */
    ad__allocate(e->context, e, 0);
}

static void *open_device(ad_context *c, int ordinal, int real_bits)
{
    (void)ordinal;
    emulated *e = ad__allocate(c, NULL, sizeof *e);
    if (!e)
        return NULL;
    const char *fail_at = getenv("TAPER_FAIL_DEVICE_ALLOCATION");
    *e = (emulated){ .context = c,
                     .real_bits = real_bits,
                     .stacks = malloc((size_t)GPU_THREADS * STACK),
                     .fail_at = fail_at ? atoll(fail_at) : 0 };
    if (e->stacks)
        return e;
    close_device(e);
    return NULL;
}

const char gpu__device_name[] = "emulated";
const gpu_device gpu__device = {
    .open = open_device,
    .close = close_device,
    .describe = describe,
    .processors = processors,
    .memory_new = memory_new,
    .memory_free = memory_free,
    .clear = clear,
    .copy = copy,
    .wait = wait_for_all,
    .reaches = reaches,
    .record_new = record_new,
    .record_free = record_free,
    .compile = compile,
    .unload = unload,
    .kernel = find_kernel,
    .launch = launch,
    .multiply = multiply,
};
