/* Recording of elementwise operations and of values without operands; the table of ops. */
#include <string.h>

#include "autodiff/tape.h"

static const char *const names[N_OPS] = {
#define AD_OP1(name, ...) [OP_##name] = #name,
#define AD_OP2(name, ...) [OP_##name] = #name,
#define AD_OP3(name, ...) [OP_##name] = #name,
#define AD_OP4(name, ...) [OP_##name] = #name,
#include "autodiff/ops.def"
#define AD_STRUCTURED(name, ...) [OP_##name] = #name,
#include "autodiff/structured.def"
};
static const uint8_t arities[N_ELEMENTWISE] = {
#define AD_OP1(name, ...) [OP_##name] = 1,
#define AD_OP2(name, ...) [OP_##name] = 2,
#define AD_OP3(name, ...) [OP_##name] = 3,
#define AD_OP4(name, ...) [OP_##name] = 4,
#include "autodiff/ops.def"
};
const char *ad__op_name(int op)
{
    return op >= 0 && op < N_OPS ? names[op] : "?";
}
int ad__arity(int op)
{
    return arities[op];
}

/* ---- elementwise ------------------------------------------------------------------------------------------------- */

static node_id as_real(ad_context *c, node_id x)
{
    const node *n = &c->tape->node[x];
    return n->dtype == AD_REAL ? x : ad__append(c, OP_cast_real, AD_REAL, n->shape, &x, 1, NULL, 0, -1);
}

/* What two shapes broadcast to, remembered: models ask for the same few pairs at every step. */
static int32_t joint_shape(ad_context *c, int op, int32_t one, int32_t other)
{
    const ad_shape *a = &ad__shape_info(c, one)->shape, *b = &ad__shape_info(c, other)->shape;
    if (b->rank == 0)
        return one;
    if (a->rank == 0)
        return other;
    size_t at = ((size_t)one * 31 + (size_t)other) % (sizeof c->broadcast / sizeof *c->broadcast);
    if (c->broadcast[at].joint >= 0 && c->broadcast[at].a == one && c->broadcast[at].b == other)
        return c->broadcast[at].joint;
    ad_shape joint;
    if (!ad__broadcast(a, b, &joint)) {
        ad__fail(c, AD_ERROR_SHAPE, "sizes must agree from the right, or be 1",
                 "ad_%s: shapes %s and %s do not broadcast", names[op], ad__shape_text(c, a), ad__shape_text(c, b));
        return -1;
    }
    int32_t shape = ad__shape(c, &joint);
    c->broadcast[at].a = one;
    c->broadcast[at].b = other;
    c->broadcast[at].joint = shape;
    return shape;
}

/* The logit of a sigmoid is its operand: recorded so, since the way through probabilities rounds, costs four
 * transcendental functions with its gradient, and multiplies 0 by infinity where it saturates. The clamp of the
 * probability becomes the same clamp of the logit, log((1 - eps) / eps), and gradients are 0 beyond it as before. */
static node_id logit_of_sigmoid(ad_context *c, node_id probability)
{
    double limit = c->precision == AD_DOUBLE ? 36.04365338911715 : 15.942384719848633;
    node_id logit = ad__inputs(c->tape, probability)[0];
    return ad__op3(c, OP_clamp, logit, ad__constant(c, -limit), ad__constant(c, limit));
}

node_id ad__elementwise(ad_context *c, int op, const node_id *inputs)
{
    int arity = arities[op];
    if (op == OP_logit_clamped && inputs[0] >= 0 && c->tape->node[inputs[0]].op == OP_sigmoid)
        return logit_of_sigmoid(c, inputs[0]);
    node_id in[4] = { -1, -1, -1, -1 };
    for (int i = 0; i < arity; i++) {
        if (inputs[i] < 0)
            return -1;
        if ((in[i] = as_real(c, inputs[i])) < 0)
            return -1;
    }
    int32_t shape = c->tape->node[in[0]].shape;
    for (int i = 1; i < arity; i++) {
        int32_t other = c->tape->node[in[i]].shape;
        if (other == shape)
            continue;
        if ((shape = joint_shape(c, op, shape, other)) < 0)
            return -1;
    }
    return ad__append(c, op, AD_REAL, shape, in, arity, NULL, 0, -1);
}

typedef ad_tensor *T;

static __attribute__((noinline)) T record_slowly(ad_context *c, int op, int arity, T a, T b, T d, T e)
{
    static const char *const ordinal[] = { "first operand", "second operand", "third operand", "fourth operand" };
    const T operand[] = { a, b, d, e };
    if (!c || !ad__ok(c))
        return AD_NIL;
    node_id in[4] = { -1, -1, -1, -1 };
    for (int i = 0; i < arity; i++) {
        in[i] = ad__node(c, operand[i], ordinal[i]);
        if (in[i] < 0)
            return AD_NIL;
    }
    return ad__handle(c, ad__elementwise(c, op, in));
}

/* A call by the user: nearly always with values of this tape. Operands beyond the arity repeat the first one. */
static inline __attribute__((always_inline)) T record(int op, int arity, T a, T b, T d, T e)
{
    ad_context *c = ad__current();
    tape *t = c ? c->tape : NULL;
    if (!t)
        return record_slowly(c, op, arity, a, b, d, e);
    const uintptr_t own = (uintptr_t)handle_make(HANDLE_STEP, t->generation, 0), index = 0xfffffffe;
    bool foreign = (((uintptr_t)a ^ own) | ((uintptr_t)b ^ own) | ((uintptr_t)d ^ own) | ((uintptr_t)e ^ own)) & ~index;
    node_id id = foreign ? -1
                         : ad__append_plain(c, t, op, arity, handle_index(a), handle_index(b), handle_index(d),
                                            handle_index(e));
    return id < 0 ? record_slowly(c, op, arity, a, b, d, e) : handle_make(HANDLE_STEP, t->generation, id);
}

/* The public functions; parenthesised names, since in C the same names are masks. */
#define AD_OP1(name, ...)                                                                                              \
    T(ad_##name)(T x) { return record(OP_##name, 1, x, x, x, x); }
#define AD_OP2(name, ...)                                                                                              \
    T(ad_##name)(T a, T b) { return record(OP_##name, 2, a, b, a, a); }
#define AD_OP3(name, ...)                                                                                              \
    T(ad_##name)(T a, T b, T d) { return record(OP_##name, 3, a, b, d, a); }
#define AD_OP4(name, ...)                                                                                              \
    T(ad_##name)(T a, T b, T d, T e) { return record(OP_##name, 4, a, b, d, e); }
#include "autodiff/ops.def"

/* ---- sources ----------------------------------------------------------------------------------------------------- */

/* The context when a tape is open and all is well; else NULL, with the error. */
ad_context *ad__open_context(void)
{
    ad_context *c = ad__current();
    if (!c || !ad__ok(c))
        return NULL;
    if (c->tape)
        return c;
    ad__fail(c, AD_ERROR_SCOPE, "record inside svi_step's model, or in ad_scope { ... }", "no step or scope is open");
    return NULL;
}

/* The context's first shape. */
static int32_t scalar_shape(ad_context *c)
{
    return c->n_shapes ? 0 : ad__shape(c, &(ad_shape){ .rank = 0 });
}

node_id ad__constant(ad_context *c, double value)
{
    tape *t = c->tape;
    int64_t bits;
    memcpy(&bits, &value, sizeof bits);
    size_t at = ((uint64_t)bits * 0x9e3779b97f4a7c15u) >> 60;
    if (t->constant[at].node >= 0 && t->constant[at].bits == bits && ad__ok(c))
        return t->constant[at].node;
    t->constant[at].bits = bits;
    return t->constant[at].node = ad__append(c, OP_constant, AD_REAL, scalar_shape(c), NULL, 0, &bits, 1, -1);
}

int32_t ad__bind_scalar(ad_context *c, double value)
{
    tape *t = c->tape;
    if (!ad__reserve(c, &t->scalar, &t->cap_scalars, t->n_scalars + 1, sizeof *t->scalar))
        return -1;
    t->scalar[t->n_scalars] = value;
    return (int32_t)t->n_scalars++;
}

node_id ad__scalar_of_slot(ad_context *c, int32_t slot)
{
    return slot < 0 ? -1 : ad__append(c, OP_scalar, AD_REAL, scalar_shape(c), NULL, 0, NULL, 0, slot);
}

ad_tensor *ad_number(double value)
{
    ad_context *c = ad__open_context();
    if (!c)
        return AD_NIL;
    tape *t = c->tape;
    if (!t->expanding && t->n_scalars < t->cap_scalars && ad__room(c, t, 0, 0)) {
        t->scalar[t->n_scalars] = value;
        return ad__handle(c, ad__push(c, t, OP_scalar, AD_REAL, 0, 0, 0, (int32_t)t->n_scalars++));
    }
    return ad__handle(c,
                      c->tape->expanding ? ad__constant(c, value) : ad__scalar_of_slot(c, ad__bind_scalar(c, value)));
}

ad_tensor *ad_constant(double value)
{
    ad_context *c = ad__open_context();
    return c ? ad__handle(c, ad__constant(c, value)) : AD_NIL;
}

ad_tensor *(ad_full_shape)(ad_shape shape, double value)
{
    ad_context *c = ad__open_context();
    if (!c)
        return AD_NIL;
    node_id x = ad__constant(c, value);
    return x < 0 ? AD_NIL : ad__handle(c, ad__expand_to(c, x, ad__shape(c, &shape)));
}

ad_tensor *(ad_arange)(int64_t n)
{
    ad_context *c = ad__open_context();
    if (!c)
        return AD_NIL;
    return ad__handle(c, ad__append(c, OP_arange, AD_REAL, ad__shape(c, &AD_SHAPE(n)), NULL, 0, NULL, 0, -1));
}

/* The key of the current site's draws, or of an anonymous draw: its ordinal, mixed. */
static int64_t draw_key(ad_context *c, draw_source *s)
{
    tape *t = c->tape;
    if (t->site < 0)
        return (int64_t)(uint32_t)ad__mix((uint64_t) ++*(s ? &s->draws : &t->draws) + 0x5bd1e995u);
    uint32_t key = ad__name_hash(c, t->site);
    return t->lap ? (int64_t)(uint32_t)ad__mix((uint64_t)t->lap << 32 | key) : (int64_t)key;
}

static ad_tensor *draw(int op, int dtype, const ad_shape *shape, int ordinal, int64_t n)
{
    ad_context *c = ad__open_context();
    if (!c)
        return AD_NIL;
    if (ordinal < 0 || ordinal > 0xffff) {
        ad__fail(c, AD_ERROR_ARGUMENT, NULL, "draw %d is not in 0..65535", ordinal);
        return AD_NIL;
    }
    draw_source *s = ad__draw_source(c);
    int64_t attrs[] = { draw_key(c, s), ordinal, n, s ? (int64_t)s->key : 0, s ? s->run : 0 };
    return ad__handle(c, ad__append(c, op, dtype, ad__shape(c, shape), NULL, 0, attrs, s ? 5 : 3, -1));
}

ad_tensor *(ad_random_normal)(ad_shape shape, int ordinal)
{
    return draw(OP_random_normal, AD_REAL, &shape, ordinal, 0);
}
ad_tensor *(ad_random_uniform)(ad_shape shape, int ordinal)
{
    return draw(OP_random_uniform, AD_REAL, &shape, ordinal, 0);
}
ad_tensor *(ad_random_index)(int64_t n, int64_t k, int ordinal)
{
    ad_context *c = ad__current();
    if (c && (k < 0 || k > n)) {
        ad__fail(c, AD_ERROR_ARGUMENT, NULL, "cannot draw %lld of %lld indices without replacement", (long long)k,
                 (long long)n);
        return AD_NIL;
    }
    return draw(OP_random_index, AD_INT64, &AD_SHAPE(k), ordinal, n);
}
