/* Shuffled minibatches over bytes in memory. Called by programs between steps; writes into two persistent tensors,
 * one of the full and one of the last, smaller size, so that a plan finds its inputs where they were. Where the host
 * reaches them, it gathers and converts; on a device a program does, held as ppl_density's is, over the rows that
 * were sent at first. */
#include "models/loader.h"

#include "autodiff/owner.h"
#include "autodiff/program.h"

/* A minibatch of one size, and, on a device, the program that fills it. */
typedef struct batch {
    ad_tensor *x;
    program *program; /* NULL: the host fills it */
    run_state *state;
    int32_t start; /* its number: the first row of the minibatch in the epoch's order; -1 where it is all of them */
} batch;

struct loader {
    owned own;
    const uint8_t *rows;
    int64_t count, width, batch_size;
    uint64_t seed, epoch;
    bool in_order;
    int64_t next, begun; /* first row of the next minibatch in order[], and of the last one */
    int64_t *order;
    ad_tensor *sent, *sent_order; /* on a device: rows and order[] */
    batch full, rest;
};

/* splitmix64 */
static uint64_t random_word(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15u;
    return ad__mix(*state);
}

/* Fisher and Yates from the identity, so that the order of an epoch does not depend on those before. Bounded numbers
 * are the high word of a product (Lemire 2019), whose bias below 2^-40 does not matter here. */
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

/* ---- on a device ------------------------------------------------------------------------------------------------- */

/* x = rows[order[start ... start + n)] / 255, as b's program */
static bool record(loader *l, batch *b)
{
    ad_context *c = l->own.context;
    if (!ad__tape_open(c, 0, 0)) return false;
    ad_tensor *order = ad_slice(l->sent_order, 0, 0, ad_dim(b->x, 0));
    ad_tensor *value = ad_div(ad_cast_real(ad_gather(l->sent, 0, order)), ad_constant(255));
    ad__program_store(c, b->x, value);
    b->start = ad__program_start_of(c, order);
    b->program = ad__program_hold(c);
    if (b->program)
        b->state = ad__run_state_new(b->program, &(run_request){ .final = true, .commit = true }, NULL, 0, false);
    return b->state != NULL;
}

static bool compute(loader *l, batch *b)
{
    bool done = l->next > 0 || (l->in_order && l->epoch > 0) || ad_write(l->sent_order, l->order, l->count);
    if (b->start >= 0) ad__run_state_number(b->state, b->start, (double)l->next);
    if (!done || !ad__run_state_begin(b->state)) return false;
    done = ad__run_state_run(b->state);
    return ad__run_state_report(b->state) && done;
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

/* The tensors and, where they are out of the host's reach, what fills them. */
static bool make_batches(loader *l, int64_t rest)
{
    l->full.x = ad_from_data(NULL, AD_FROM_FLOAT, AD_SHAPE(l->batch_size, l->width));
    if (rest) l->rest.x = ad_from_data(NULL, AD_FROM_FLOAT, AD_SHAPE(rest, l->width));
    if (ad_is_nil(l->full.x) || (rest && ad_is_nil(l->rest.x))) return false;
    if (ad_host_data(l->full.x)) return true;
    l->sent = ad_from(l->rows, AD_SHAPE(l->count, l->width));
    l->sent_order = ad_from_data(NULL, AD_FROM_INT64, AD_SHAPE(l->count));
    return !ad_is_nil(l->sent) && !ad_is_nil(l->sent_order) && record(l, &l->full) && (!rest || record(l, &l->rest));
}

/* What a loader holds, at its end or its context's. */
static void end(void *object)
{
    loader *l = object;
    batch *batches[] = { &l->full, &l->rest };
    for (int i = 0; i < 2; i++) {
        ad__run_state_free(batches[i]->state);
        ad__program_free(batches[i]->program);
        ad_free(batches[i]->x);
    }
    ad_free(l->sent);
    ad_free(l->sent_order);
    ad__allocate(l->own.context, l->order, 0);
    l->order = NULL;
}

loader *loader_new(const uint8_t *rows, int64_t count, int64_t width, const loader_options *options)
{
    static const loader_options standard;
    const loader_options *o = options ? options : &standard;
    ad_context *c = ad__current();
    if (!c) return NULL;
    if (!rows || count < 1 || width < 1 || o->batch_size < 0 || width > ((int64_t)1 << 40) / count) {
        ad__fail(c, AD_ERROR_ARGUMENT, NULL, "loader_new: %lld rows of %lld bytes in minibatches of %lld",
                 (long long)count, (long long)width, (long long)o->batch_size);
        return NULL;
    }
    loader *l = ad__owned_new(c, sizeof *l, end);
    if (!l) return NULL;
    l->rows = rows, l->count = count, l->width = width, l->seed = o->seed, l->in_order = o->in_order;
    l->batch_size = o->batch_size ? o->batch_size : 256;
    if (l->batch_size > count) l->batch_size = count;
    l->order = ad__allocate(c, NULL, (size_t)count * sizeof *l->order);
    if (l->order && make_batches(l, count % l->batch_size)) return l;
    loader_free(l);
    return NULL;
}

void loader_free(loader *l) { ad__owned_free(l, "loader_free"); }

/* ---- an epoch ---------------------------------------------------------------------------------------------------- */

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

/* The host's way: x (n, width) from the next n rows. */
static bool gather(const loader *l, ad_tensor *x, int64_t n)
{
    bool wide = ad_precision_of(l->own.context) == AD_DOUBLE;
    size_t element = ad__dtype_bytes(l->own.context, AD_REAL);
    char *to = ad_host_data(x);
    for (int64_t i = 0; to && i < n; i++)
        to_reals(l->rows + l->order[l->next + i] * l->width, to + (size_t)(i * l->width) * element, l->width, wide);
    return to != NULL;
}

/* The next minibatch; NULL at the epoch's end and after an error. */
static ad_tensor *take(loader *l)
{
    if (l->next == l->count) {
        l->next = 0;
        l->epoch++;
        return NULL;
    }
    if (l->next == 0) shuffle(l);
    int64_t left = l->count - l->next, n = left < l->batch_size ? left : l->batch_size;
    batch *b = n == l->batch_size ? &l->full : &l->rest;
    if (b->program ? !compute(l, b) : !gather(l, b->x, n)) return NULL;
    l->begun = l->next;
    l->next += n;
    return b->x;
}

bool loader_next(loader *l, ad_tensor **x)
{
    ad_use use;
    ad_tensor *batch = ad__use_begin(&use, l, "loader_next") ? take(l) : NULL;
    ad__use_end(&use);
    *x = batch ? batch : AD_NIL;
    return batch != NULL;
}

int64_t loader_count(const loader *l) { return l ? l->count : 0; }
int64_t loader_batches(const loader *l) { return l ? (l->count + l->batch_size - 1) / l->batch_size : 0; }
int64_t loader_row(const loader *l, int64_t i)
{
    return l && l->order && i >= 0 && l->begun + i < l->next ? l->order[l->begun + i] : -1;
}
