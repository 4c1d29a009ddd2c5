/* Contexts: memory, errors, the current pointer. Called by everything; assumes nothing. */
#include "autodiff/context.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "autodiff/backend.h"
#include "autodiff/owner.h"
#include "autodiff/plan/plan.h"
#include "autodiff/tape.h"

_Thread_local ad_context *ad__thread_context;
#define current ad__thread_context
static pthread_key_t exit_key; /* frees a thread's default context when the thread ends */
static pthread_once_t exit_once = PTHREAD_ONCE_INIT;

/* ---- memory ------------------------------------------------------------------------------------------------------ */

enum { HEADER = 16 }; /* each block remembers its size in front of it, at malloc's alignment */

static void *from_malloc(void *user, void *old, size_t size)
{
    (void)user;
    if (size)
        return realloc(old, size);
    free(old);
    return NULL;
}

void *ad__allocate(ad_context *c, void *old, size_t size)
{
    char *base = old ? (char *)old - HEADER : NULL;
    size_t old_size = 0;
    if (base)
        memcpy(&old_size, base, sizeof old_size);
    if (!size) {
        if (base)
            c->allocator.allocate(c->allocator.user, base, 0);
        c->counters.bytes -= old_size;
        return NULL;
    }
    c->counters.allocations++;
    char *grown = size > SIZE_MAX / 2 ? NULL : c->allocator.allocate(c->allocator.user, base, size + HEADER);
    if (!grown) {
        ad__fail(c, AD_ERROR_MEMORY, NULL, "out of memory: %zu bytes asked", size);
        return NULL;
    }
    memcpy(grown, &size, sizeof size);
    c->counters.bytes += size - old_size;
    return grown + HEADER;
}

void ad__release_block(const ad_allocator *a, void *block)
{
    a->allocate(a->user, (char *)block - HEADER, 0);
}

bool ad__reserve(ad_context *c, void *array, int64_t *capacity, int64_t need, size_t element)
{
    if (need <= *capacity)
        return true;
    int64_t grown = *capacity < 16 ? 16 : *capacity * 2;
    if (grown < need)
        grown = need;
    void *old, *data;
    memcpy(&old, array, sizeof old);
    if (!(data = ad__allocate(c, old, (size_t)grown * element)))
        return false;
    memcpy(array, &data, sizeof data);
    *capacity = grown;
    return true;
}

/* ---- errors ------------------------------------------------------------------------------------------------------ */

static bool is_control(char byte)
{
    return (unsigned char)byte < ' ' || byte == '\x7f';
}

/* Appends to c->error, never past its end. What could move a terminal's cursor becomes '?'. */
static void message(ad_context *c, size_t *used, const char *format, va_list args)
{
    int n = vsnprintf(c->error + *used, sizeof c->error - *used, format, args);
    size_t end = n > 0 ? *used + (size_t)n : *used;
    for (end = end < sizeof c->error ? end : sizeof c->error - 1; *used < end; ++*used)
        if (is_control(c->error[*used]) && c->error[*used] != '\n')
            c->error[*used] = '?';
}

static void __attribute__((format(printf, 3, 4))) append(ad_context *c, size_t *used, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    message(c, used, format, args);
    va_end(args);
}

static void fail(ad_context *c, ad_error_kind kind, const char *hint, const char *format, va_list args)
{
    /* The first one of a step tells; outside of steps the last one, of the call that has just failed, unless it fails
     * because the scope around it could not open. */
    if (c->error_kind && (c->tape || c->busy || kind == AD_ERROR_SCOPE))
        return;
    c->error_kind = kind;
    size_t used = 0;
    message(c, &used, format, args);
    if (hint)
        append(c, &used, "\n  hint: %s", hint);
    const char *lead = "\n  ";
    if (c->file) {
        append(c, &used, "%sat %s:%d", lead, c->file, c->line);
        lead = ", ";
    }
    for (const error_frame *f = c->frame; f; f = f->outer, lead = ", ") {
        append(c, &used, f->name ? "%sin %s \"%s\"" : "%sin %s", lead, f->kind, f->name);
    }
}

void ad__fail(ad_context *c, ad_error_kind kind, const char *hint, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fail(c, kind, hint, format, args);
    va_end(args);
}

void ad_fail(ad_error_kind kind, const char *hint, const char *format, ...)
{
    ad_context *c = ad__current();
    va_list args;
    va_start(args, format);
    if (c)
        fail(c, kind, hint, format, args);
    va_end(args);
}

const char *ad_error_kind_name(ad_error_kind kind)
{
    switch (kind) {
#define X(name, text)                                                                                                  \
    case AD_ERROR_##name:                                                                                              \
        return text;
        AD_ERROR_KINDS(X)
#undef X
    }
    return "unknown";
}

bool ad_ok(void)
{
    ad_context *c = ad__current();
    return c && ad__ok(c);
}
const char *ad_error(void)
{
    ad_context *c = ad__current();
    return !c ? "out of memory: no context" : ad__ok(c) ? "" : c->error;
}
ad_error_kind ad_error_code(void)
{
    ad_context *c = ad__current();
    return c ? c->error_kind : AD_ERROR_MEMORY;
}
void ad_error_clear(void)
{
    ad_context *c = ad__current();
    if (c)
        c->error_kind = AD_ERROR_NONE;
}
void ad_at(const char *file, int line)
{
    ad_context *c = ad__current();
    if (!c)
        return;
    c->file = file;
    c->line = line;
}

/* ---- contexts ---------------------------------------------------------------------------------------------------- */

static void at_thread_exit(void *context)
{
    ad_context *c = context;
    while (c->tape)
        ad__tape_close(c);
    c->busy = 0;
    ad_context_free(c);
}
static void make_exit_key(void)
{
    pthread_key_create(&exit_key, at_thread_exit);
}

/* What is left of a context at its end. */
static void free_arrays(ad_context *c)
{
    ad__names_free(c);
    for (int64_t i = 0; i * SHAPE_PAGE < c->n_shapes; i++)
        ad__allocate(c, c->shapes[i], 0);
    void *arrays[] = { c->shapes, c->shape_slots };
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        ad__allocate(c, arrays[i], 0);
    c->allocator.allocate(c->allocator.user, c, 0);
}

ad_context *ad_context_new(const ad_options *options)
{
    static const ad_options none;
    const ad_options *o = options ? options : &none;
    ad_allocator a = { from_malloc, NULL };
    if (o->allocator)
        a = *o->allocator;
    ad_context *c = a.allocate(a.user, NULL, sizeof *c);
    if (!c)
        return NULL;
    memset(c, 0, sizeof *c);
    c->allocator = a;
    c->precision = o->precision == AD_DOUBLE ? AD_DOUBLE : AD_FLOAT;
    c->threads = o->threads;
    c->max_nodes = o->max_nodes > 0 ? o->max_nodes : 1 << 24;
    c->max_plans = o->max_plans > 0 ? o->max_plans : 64;
    c->free_tensor = -1;
    c->free_name = -1;
    c->free_shape = -1;
    c->passes = ad__passes_wanted();
    memset(c->broadcast, 0xff, sizeof c->broadcast);
    if (ad__shape(c, &(ad_shape){ .rank = 0 }) != 0) { /* shape 0 is the scalar's: nothing works without it */
        free_arrays(c);
        return NULL;
    }
    if (!ad__backend_start(c, o->device)) { /* keeps its error: every call on this context tells it */
        c->backend = NULL;
    }
    return c;
}

void ad_context_free(ad_context *c)
{
    if (!c)
        c = current;
    if (!c)
        return;
    if (c != current && !ad__claim(c, "ad_context_free"))
        return;
    if (c->tape || c->busy) { /* someone up the stack still stands on it */
        ad__fail(c, AD_ERROR_ARGUMENT, "free it after the step or scope",
                 "ad_context_free inside a step, scope or callback");
        return;
    }
    ad__owned_end(c);
    if (c == current)
        current = NULL;
    pthread_once(&exit_once, make_exit_key);
    if (c == pthread_getspecific(exit_key))
        pthread_setspecific(exit_key, NULL);
    if (c->client_free)
        c->client_free(c, c->client);
    while (c->tape)
        ad__tape_close(c);
    while (c->spare) {
        tape *t = c->spare;
        c->spare = t->outer;
        ad__tape_free(c, t);
    }
    for (int64_t i = 0; i < c->n_plans; i++)
        ad__plan_free(c, c->plans[i]);
    ad__allocate(c, c->plans, 0);
    ad__single_use_free(c);
    ad__tensors_free(c);
    if (c->backend)
        c->backend->close(c->backend_state);
    free_arrays(c);
}

ad_context *ad__default_context(void)
{
    pthread_once(&exit_once, make_exit_key);
    current = ad_context_new(NULL);
    if (current)
        ad__claim(current, "the default context");
    pthread_setspecific(exit_key, current);
    return current;
}

ad_context *ad_context_use(ad_context *c)
{
    ad_context *previous = current;
    if (c == previous || (c && !ad__claim(c, "ad_context_use")))
        return previous;
    if (previous)
        ad__unclaim(previous);
    current = c;
    return previous;
}
ad_context *ad_context_current(void)
{
    return ad__current();
}
ad_precision ad_precision_of(ad_context *c)
{
    return c->precision;
}

ad_counters ad_count(void)
{
    ad_context *c = ad__current();
    if (!c)
        return (ad_counters){ 0 };
    ad_counters n = c->counters;
    n.plans = (uint64_t)c->n_plans;
    return n;
}

void ad_seed(uint64_t seed)
{
    ad_context *c = ad__current();
    if (c)
        ad__seed(c, seed);
}

const char *ad_describe(void)
{
    ad_context *c = ad__current();
    return c && c->backend ? c->backend->describe(c->backend_state) : "no backend";
}
int ad_set_threads(int threads)
{
    ad_context *c = ad__current();
    return c && c->backend ? c->backend->set_threads(c->backend_state, threads) : 0;
}
