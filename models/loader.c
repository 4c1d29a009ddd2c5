/* Shuffled minibatches over bytes in memory. Called by programs between steps; writes into two persistent tensors,
 * one of the full and one of the last, smaller size, so that a plan finds its inputs where they were. Where the host
 * reaches them, it gathers and converts; on a device a program does, held as ppl_density's is, over the rows that
 * were sent at first. */
#include "models/loader.h"

#include "autodiff/tape.h"

/* A minibatch of one size, and, on a device, the program that fills it. */
typedef struct batch {
    ad_tensor *x;
    tape *tape; /* NULL: the host fills it */
    tape_mark recorded;
    int32_t start; /* its number: the first row of the minibatch in the epoch's order; -1 where it is all of them */
} batch;

struct loader {
    ad_context *context;
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

/* Takes a batch's program off the stack of tapes, or puts it there. */
static void detach(ad_context *c, batch *b)
{
    c->tape = b->tape->outer;
    b->tape->outer = NULL;
}
static void attach(ad_context *c, batch *b)
{
    if (!c->tape) c->error_kind = AD_ERROR_NONE;
    b->tape->outer = c->tape;
    c->tape = b->tape;
}

/* x = rows[order[start ... start + n)] / 255, as b's program */
static bool record(loader *l, batch *b)
{
    ad_context *c = l->context;
    int64_t n = ad_dim(b->x, 0);
    if (!(b->tape = ad__tape_open(c, 0, 0))) return false;
    ad_tensor *order = ad_slice(l->sent_order, 0, 0, n);
    ad_tensor *value = ad_div(ad_cast_real(ad_gather(l->sent, 0, order)), ad_constant(255));
    node_id at = ad__node(c, order, "the order"), from = ad__node(c, value, "its rows");
    node_id to = ad__node(c, b->x, "a minibatch");
    if (ad__ok(c)) {
        b->start = c->tape->node[at].op == OP_slice ? c->tape->node[at].bind : -1;
        ad__append(c, OP_assign, AD_REAL, c->tape->node[to].shape, (node_id[]){ to, from }, 2, NULL, 0, -1);
    }
    b->recorded = ad__tape_mark(b->tape);
    for (int64_t i = 0; i < b->tape->n; i++) ad__shape_pin(c, b->tape->node[i].shape);
    detach(c, b);
    return ad__ok(c);
}

static bool compute(loader *l, batch *b)
{
    ad_context *c = l->context, *previous = ad_context_use(c);
    bool done = l->next > 0 || (l->in_order && l->epoch > 0) || ad_write(l->sent_order, l->order, l->count);
    attach(c, b);
    b->tape->segments = 0;
    if (b->start >= 0) b->tape->scalar[b->start] = (double)l->next;
    done = done && ad__run(c, &(run_request){ .final = true, .commit = true }, NULL);
    ad__tape_rewind(c, b->tape, &b->recorded);
    detach(c, b);
    ad_context_use(previous);
    return done;
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
    loader *l = ad__allocate(c, NULL, sizeof *l);
    if (!l) return NULL;
    *l = (loader){ .context = c, .rows = rows, .count = count, .width = width, .seed = o->seed, .in_order = o->in_order,
                   .batch_size = o->batch_size ? o->batch_size : 256 };
    if (l->batch_size > count) l->batch_size = count;
    l->order = ad__allocate(c, NULL, (size_t)count * sizeof *l->order);
    if (l->order && make_batches(l, count % l->batch_size)) return l;
    loader_free(l);
    return NULL;
}

void loader_free(loader *l)
{
    if (!l) return;
    ad_context *c = l->context, *previous = ad_context_use(c);
    batch *batches[] = { &l->full, &l->rest };
    for (int i = 0; i < 2; i++) {
        ad_free(batches[i]->x);
        if (batches[i]->tape) ad__tape_free(c, batches[i]->tape);
    }
    ad_free(l->sent);
    ad_free(l->sent_order);
    ad__allocate(c, l->order, 0);
    ad__allocate(c, l, 0);
    ad_context_use(previous);
}

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
    bool wide = ad_precision_of(l->context) == AD_DOUBLE;
    size_t element = ad__dtype_bytes(l->context, AD_REAL);
    char *to = ad_host_data(x);
    for (int64_t i = 0; to && i < n; i++)
        to_reals(l->rows + l->order[l->next + i] * l->width, to + (size_t)(i * l->width) * element, l->width, wide);
    return to != NULL;
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
    batch *b = n == l->batch_size ? &l->full : &l->rest;
    if (b->tape ? !compute(l, b) : !gather(l, b->x, n)) return false;
    l->begun = l->next;
    l->next += n;
    *x = b->x;
    return true;
}

int64_t loader_count(const loader *l) { return l ? l->count : 0; }
int64_t loader_batches(const loader *l) { return l ? (l->count + l->batch_size - 1) / l->batch_size : 0; }
int64_t loader_row(const loader *l, int64_t i)
{
    return l && i >= 0 && l->begun + i < l->next ? l->order[l->begun + i] : -1;
}
