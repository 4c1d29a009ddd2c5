/* Claims of contexts by threads, objects that hang on contexts, and the numbers that tell handles apart; see owner.h. */
#include "autodiff/owner.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- handles ----------------------------------------------------------------------------------------------------- */

/* Generations are given to contexts in blocks; of each block it is known whose it was last. */
enum { BLOCK_BITS = 10, BLOCKS = (HANDLE_GENERATION_MASK + 1u) >> BLOCK_BITS };
static atomic_uint next_block, next_context;
static atomic_uint owner_of_block[BLOCKS]; /* the context's number; untouched pages cost nothing */

uint32_t ad__generation_new(ad_context *c)
{
    if (c->next_generation == c->end_generation) {
        if (!c->number)
            c->number = 1 + atomic_fetch_add(&next_context, 1);
        uint32_t block = atomic_fetch_add(&next_block, 1) % BLOCKS;
        atomic_store_explicit(&owner_of_block[block], c->number, memory_order_relaxed);
        c->next_generation = block ? block << BLOCK_BITS : 1; /* 0 is nobody's */
        c->end_generation = (block + 1) << BLOCK_BITS;
    }
    return c->next_generation++;
}

bool ad__is_foreign(const ad_context *c, const void *handle)
{
    if (((uintptr_t)handle & 1) == 0 || handle_kind_of(handle) == HANDLE_NIL)
        return false;
    uint32_t owner =
        atomic_load_explicit(&owner_of_block[handle_generation(handle) >> BLOCK_BITS], memory_order_relaxed);
    return owner && owner != c->number;
}

void ad__fail_dead_handle(ad_context *c, const void *handle, const char *what, const char *hint, const char *stale)
{
    if (ad__is_foreign(c, handle))
        ad__fail(c, AD_ERROR_STALE, "make it in the context that uses it, or make that one current with ad_context_use",
                 "%s belongs to another context", what);
    else
        ad__fail(c, AD_ERROR_STALE, hint, "%s is stale: %s", what, stale);
}

/* ---- claims ------------------------------------------------------------------------------------------------------ */

static _Thread_local int thread_id;

static int this_thread(void)
{
    if (!thread_id)
        thread_id = (int)syscall(SYS_gettid);
    return thread_id;
}

/* The child of a fork has one thread, of another number. */
static void in_child(void)
{
    thread_id = 0;
}
static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, in_child);
}

static bool lives(int thread)
{
    return syscall(SYS_tgkill, (int)getpid(), thread, 0) == 0 || errno != ESRCH;
}

bool ad__claim(ad_context *c, const char *call)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    int me = this_thread(), owner = atomic_load_explicit(&c->claimed, memory_order_acquire);
    while (owner != me) {
        if (owner && lives(owner)) {
            ad_fail(AD_ERROR_ARGUMENT, "ad_context_use(NULL) in that thread hands the context over",
                    "%s: thread %d uses this context, and this is thread %d", call, owner, me);
            return false;
        }
        if (atomic_compare_exchange_strong(&c->claimed, &owner, me))
            break;
    }
    return true;
}

void ad__unclaim(ad_context *c)
{
    int me = this_thread();
    atomic_compare_exchange_strong(&c->claimed, &me, 0);
}

/* ---- objects ----------------------------------------------------------------------------------------------------- */

void *ad__owned_new(ad_context *c, size_t size, void (*release)(void *object))
{
    owned *o = ad__allocate(c, NULL, size);
    if (!o)
        return NULL;
    memset(o, 0, size);
    o->context = c;
    o->release = release;
    o->allocator = c->allocator;
    o->next = c->owned;
    o->link = &c->owned;
    if (o->next)
        o->next->link = &o->next;
    c->owned = o;
    return o;
}

static void unlink_object(owned *o)
{
    *o->link = o->next;
    if (o->next)
        o->next->link = o->link;
}

void ad__owned_free(void *object, const char *call)
{
    owned *o = object;
    if (!o)
        return;
    ad_use u;
    if (!o->context) { /* nothing but the shell is left */
        ad__release_block(&o->allocator, o);
        return;
    }
    if (o->busy) {
        ad_fail(AD_ERROR_ARGUMENT, "free it after the call that is at work on it", "%s inside a model, guide or callback",
                call);
        return;
    }
    ad_context *c = ad__use_begin(&u, o, call);
    if (!c)
        return;
    o->release(o);
    unlink_object(o);
    ad__use_end(&u);
    ad__allocate(c, o, 0);
}

void ad__owned_end(ad_context *c)
{
    while (c->owned) {
        owned *o = c->owned;
        o->release(o);
        unlink_object(o);
        o->context = NULL;
    }
}

ad_context *ad__use_begin(ad_use *u, void *object, const char *call)
{
    owned *o = object;
    *u = (ad_use){ .object = NULL };
    if (!o) {
        ad_fail(AD_ERROR_ARGUMENT, NULL, "%s: the object is NULL: making it failed", call);
        return NULL;
    }
    ad_context *c = o->context;
    if (!c) {
        ad_fail(AD_ERROR_STALE, NULL, "%s: the context that it was made in has ended", call);
        return NULL;
    }
    bool held = c == ad__thread_context;
    if (!held && !ad__claim(c, call))
        return NULL;
    *u = (ad_use){ .object = o, .context = c, .previous = ad__thread_context, .claimed = !held };
    ad__thread_context = c;
    o->busy++;
    c->busy++;
    return c;
}

void ad__use_end(ad_use *u)
{
    owned *o = u->object;
    if (!o)
        return;
    u->object = NULL;
    o->busy--;
    u->context->busy--;
    ad__thread_context = u->previous;
    if (u->claimed)
        ad__unclaim(u->context);
}
