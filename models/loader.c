/* Shuffled minibatches over bytes in memory. Called by programs between steps; writes into two persistent tensors, one of
 * the full and one of the last, smaller size, so that a plan finds its inputs where they were. */
#include "models/loader.h"

#include "autodiff/context.h"

struct loader {
    ad_context *context;
    const uint8_t *rows;
    int64_t count, width, batch_size;
    uint64_t seed, epoch;
    bool in_order;
    int64_t next, begun; /* first row of the next minibatch in order[], and of the last one */
    int64_t *order;
    void *staging; /* reals of a full minibatch, for tensors whose memory the host cannot reach */
    ad_tensor *full, *rest;
};

/* splitmix64 */
static uint64_t random_word(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15u;
    return ad__mix(*state);
}

/* Fisher and Yates from the identity, so that the order of an epoch does not depend on those before. Bounded numbers are
 * the high word of a product (Lemire 2019), whose bias below 2^-40 does not matter here. */
static void shuffle(loader *l)
{
    uint64_t state = ad__mix(l->seed + 0x632be59bd9b4e019u) ^ l->epoch;
    for (int64_t i = 0; i < l->count; i++) l->order[i] = i;
    for (int64_t i = l->in_order ? 0 : l->count - 1; i > 0; i--) {
        __extension__ typedef unsigned __int128 wide;
        int64_t j = (int64_t)((wide)random_word(&state) * (uint64_t)(i + 1) >> 64), swapped = l->order[i];
        l->order[i] = l->order[j];
        l->order[j] = swapped;
    }
}

static void *allocate(loader *l, int64_t n, size_t element)
{
    return ad__allocate(l->context, NULL, (size_t)n * element);
}

loader *loader_new(const uint8_t *rows, int64_t count, int64_t width, const loader_options *options)
{
    static const loader_options standard;
    const loader_options *o = options ? options : &standard;
    ad_context *c = ad__current();
    if (!c) return NULL;
    if (!rows || count < 1 || width < 1 || o->batch_size < 0 || width > ((int64_t)1 << 40) / count) {
        ad__fail(c, AD_ERROR_ARGUMENT, NULL, "loader_new: %lld rows of %lld bytes in minibatches of %lld", (long long)count,
                 (long long)width, (long long)o->batch_size);
        return NULL;
    }
    loader *l = ad__allocate(c, NULL, sizeof *l);
    if (!l) return NULL;
    *l = (loader){ .context = c, .rows = rows, .count = count, .width = width, .seed = o->seed, .in_order = o->in_order,
                   .batch_size = o->batch_size ? o->batch_size : 256, .full = AD_NIL, .rest = AD_NIL };
    if (l->batch_size > count) l->batch_size = count;
    int64_t rest = count % l->batch_size;
    l->order = allocate(l, count, sizeof *l->order);
    l->full = ad_from_data(NULL, AD_FROM_FLOAT, AD_SHAPE(l->batch_size, width));
    if (rest) l->rest = ad_from_data(NULL, AD_FROM_FLOAT, AD_SHAPE(rest, width));
    bool whole = l->order && !ad_is_nil(l->full) && (!rest || !ad_is_nil(l->rest));
    if (whole && !ad_host_data(l->full))
        whole = (l->staging = allocate(l, l->batch_size * width, ad__dtype_bytes(c, AD_REAL))) != NULL;
    if (whole) return l;
    loader_free(l);
    return NULL;
}

void loader_free(loader *l)
{
    if (!l) return;
    ad_free(l->full);
    ad_free(l->rest);
    ad__allocate(l->context, l->staging, 0);
    ad__allocate(l->context, l->order, 0);
    ad__allocate(l->context, l, 0);
}

/* n bytes -> n reals */
static void to_reals(const uint8_t *from, void *to, int64_t n, bool wide)
{
    float *f = to;
    double *d = to;
    if (wide)
        for (int64_t i = 0; i < n; i++) d[i] = (double)from[i] / 255.0;
    else
        for (int64_t i = 0; i < n; i++) f[i] = (float)from[i] / 255.0f;
}

bool loader_next(loader *l, ad_tensor **x)
{
    *x = AD_NIL;
    if (!l) return false;
    if (l->next == l->count) {
        l->next = 0;
        l->epoch++;
        return false;
    }
    if (l->next == 0) shuffle(l);
    int64_t left = l->count - l->next, n = left < l->batch_size ? left : l->batch_size;
    ad_tensor *batch = n == l->batch_size ? l->full : l->rest;
    bool wide = ad_precision_of(l->context) == AD_DOUBLE;
    size_t element = ad__dtype_bytes(l->context, AD_REAL);
    char *to = ad_host_data(batch);
    if (!to) to = l->staging;
    if (!to) return false;
    for (int64_t i = 0; i < n; i++)
        to_reals(l->rows + l->order[l->next + i] * l->width, to + (size_t)(i * l->width) * element, l->width, wide);
    if (to == l->staging && !ad_write_data(batch, to, wide ? AD_FROM_DOUBLE : AD_FROM_FLOAT, n * l->width)) return false;
    l->begun = l->next;
    l->next += n;
    *x = batch;
    return true;
}

int64_t loader_count(const loader *l) { return l ? l->count : 0; }
int64_t loader_batches(const loader *l) { return l ? (l->count + l->batch_size - 1) / l->batch_size : 0; }
int64_t loader_row(const loader *l, int64_t i)
{
    return l && i >= 0 && l->begun + i < l->next ? l->order[l->begun + i] : -1;
}
