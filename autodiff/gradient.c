/* The reverse sweep: walks the tape backwards and appends gradient nodes to the same tape, made of the same ops, so
 * that gradients have gradients. Called by ad_gradient and by clients' expansions. */
#include "autodiff/tape.h"

#include <string.h>

/* ---- the recorded forms that rules are written in ---------------------------------------------------------------- */

/* The node that this application of a rule has recorded for the same operation; -1: none. */
static inline node_id recorded(const tape *t, int op, int arity, node_id a, node_id b, node_id d)
{
    for (node_id i = t->rule; i < t->n; i++) {
        const int32_t *in = ad__inputs(t, i);
        if (t->node[i].op == op && in[0] == a && (arity < 2 || in[1] == b) && (arity < 3 || in[2] == d))
            return i;
    }
    return -1;
}
/* a, b, d: the operands, those beyond the arity the first one again; -1: none */
static inline node_id record(ad_context *c, int op, int arity, node_id a, node_id b, node_id d)
{
    node_id same = c->tape->rule >= 0 ? recorded(c->tape, op, arity, a, b, d) : -1;
    if (same >= 0)
        return same;
    node_id id = (a | b | d) < 0 ? -1 : ad__append_plain(c, c->tape, op, arity, a, b, d, a);
    return id < 0 ? ad__elementwise(c, op, (node_id[]){ a, b, d }) : id;
}
node_id ad__op1(ad_context *c, int op, node_id a)
{
    return record(c, op, 1, a, a, a);
}
node_id ad__op2(ad_context *c, int op, node_id a, node_id b)
{
    return record(c, op, 2, a, b, a);
}
node_id ad__op3(ad_context *c, int op, node_id a, node_id b, node_id d)
{
    return record(c, op, 3, a, b, d);
}

/* In a rule these names are operations; `context` is there. */
#define neg(p) ad__op1(context, OP_neg, p)
#define sign(p) ad__op1(context, OP_sign, p)
#define exp(p) ad__op1(context, OP_exp, p)
#define log(p) ad__op1(context, OP_log, p)
#define sqrt(p) ad__op1(context, OP_sqrt, p)
#define square(p) ad__op1(context, OP_square, p)
#define reciprocal(p) ad__op1(context, OP_reciprocal, p)
#define sin(p) ad__op1(context, OP_sin, p)
#define cos(p) ad__op1(context, OP_cos, p)
#define sigmoid(p) ad__op1(context, OP_sigmoid, p)
#define digamma(p) ad__op1(context, OP_digamma, p)
#define trigamma(p) ad__op1(context, OP_trigamma, p)
#define tetragamma(p) ad__op1(context, OP_tetragamma, p)
#define tanh(p) ad__op1(context, OP_tanh, p)
#define sech_squared(p) ad__op1(context, OP_sech_squared, p)
#define sigmoid_slope(p) ad__op1(context, OP_sigmoid_slope, p)
#define inside_unit(p) ad__op1(context, OP_inside_unit, p)
#define add(p, q) ad__op2(context, OP_add, p, q)
#define sub(p, q) ad__op2(context, OP_sub, p, q)
#define mul(p, q) ad__op2(context, OP_mul, p, q)
#define div(p, q) ad__op2(context, OP_div, p, q)
#define pow(p, q) ad__op2(context, OP_pow, p, q)
#define chain(p, q) ad__op2(context, OP_chain, p, q)
#define mul_zero(p, q) ad__op2(context, OP_mul_zero, p, q)
#define bernoulli_score(p, q) ad__op2(context, OP_bernoulli_score, p, q)
#define ne(p, q) ad__op2(context, OP_ne, p, q)
#define lt(p, q) ad__op2(context, OP_lt, p, q)
#define le(p, q) ad__op2(context, OP_le, p, q)
#define gt(p, q) ad__op2(context, OP_gt, p, q)
#define ge(p, q) ad__op2(context, OP_ge, p, q)
#define within(p, q, r) ad__op3(context, OP_within, p, q, r)
#define where(p, q, r) ad__op3(context, OP_where, p, q, r)
#define fma(p, q, r) ad__op3(context, OP_fma, p, q, r)
#define normal_score(p, q, r) ad__op3(context, OP_normal_score, p, q, r)
#define k(value) ad__constant(context, value)
#define select(mask, p) where(mask, p, k(0))
#define none (-1)
#define undefined (-2)

/* ---- elementwise rules, from the rows ---------------------------------------------------------------------------- */

#define RULE(name) static void rule_##name(ad_context *context, node_id y, node_id g, const bool *want, node_id *out)
#define OPERAND(i) ad__inputs(context->tape, y)[i]
#define AD_OP1(name, formula, gx, ...)                                                                                 \
    RULE(name)                                                                                                         \
    {                                                                                                                  \
        node_id x = OPERAND(0);                                                                                        \
        (void)context, (void)x, (void)y, (void)g;                                                                      \
        if (want[0])                                                                                                   \
            out[0] = gx;                                                                                               \
    }
#define AD_OP2(name, formula, ga, gb, ...)                                                                             \
    RULE(name)                                                                                                         \
    {                                                                                                                  \
        node_id a = OPERAND(0), b = OPERAND(1);                                                                        \
        (void)context, (void)a, (void)b, (void)y, (void)g;                                                             \
        if (want[0])                                                                                                   \
            out[0] = ga;                                                                                               \
        if (want[1])                                                                                                   \
            out[1] = gb;                                                                                               \
    }
#define AD_OP3(name, formula, ga, gb, gc, ...)                                                                         \
    RULE(name)                                                                                                         \
    {                                                                                                                  \
        node_id a = OPERAND(0), b = OPERAND(1), c = OPERAND(2);                                                        \
        (void)a, (void)b, (void)c, (void)y, (void)g;                                                                   \
        if (want[0])                                                                                                   \
            out[0] = ga;                                                                                               \
        if (want[1])                                                                                                   \
            out[1] = gb;                                                                                               \
        if (want[2])                                                                                                   \
            out[2] = gc;                                                                                               \
    }
#define AD_OP4(name, formula, ga, gb, gc, gd, ...)                                                                     \
    RULE(name)                                                                                                         \
    {                                                                                                                  \
        node_id a = OPERAND(0), b = OPERAND(1), c = OPERAND(2), d = OPERAND(3);                                        \
        (void)a, (void)b, (void)c, (void)d, (void)y, (void)g;                                                          \
        if (want[0])                                                                                                   \
            out[0] = ga;                                                                                               \
        if (want[1])                                                                                                   \
            out[1] = gb;                                                                                               \
        if (want[2])                                                                                                   \
            out[2] = gc;                                                                                               \
        if (want[3])                                                                                                   \
            out[3] = gd;                                                                                               \
    }
#include "autodiff/ops.def"

static gradient_rule *const rules[N_OPS] = {
#define AD_OP1(name, ...) [OP_##name] = rule_##name,
#define AD_OP2(name, ...) [OP_##name] = rule_##name,
#define AD_OP3(name, ...) [OP_##name] = rule_##name,
#define AD_OP4(name, ...) [OP_##name] = rule_##name,
#include "autodiff/ops.def"
#define AD_SOURCE(name, attrs)
#define AD_STRUCTURED(name, attrs) [OP_##name] = ad__gradient_##name,
#include "autodiff/structured.def"
};

/* ---- the sweep --------------------------------------------------------------------------------------------------- */

/* needs[i]: node i depends on one of x along ops that pass gradients on. */
static void mark_needs(const tape *t, node_id y, const node_id *x, int n, uint8_t *needs)
{
    for (int i = 0; i < n; i++)
        if (x[i] <= y)
            needs[x[i]] = 1;
    for (node_id i = 0; i <= y; i++) {
        if (needs[i] || !rules[t->node[i].op])
            continue;
        const int32_t *in = ad__inputs(t, i);
        for (int j = 0; j < t->node[i].n_inputs && !needs[i]; j++)
            needs[i] = needs[in[j]];
    }
}

/* Adds what arrives at input j of node i to the gradient already there. */
static bool arrive(ad_context *c, node_id i, int j, node_id d, node_id *gradient)
{
    if (d == undefined) {
        ad__fail(c, AD_ERROR_ARGUMENT, NULL, "ad_%s has no gradient", ad__op_name(c->tape->node[i].op));
        return false;
    }
    node_id x = ad__inputs(c->tape, i)[j];
    if (d >= 0 && c->tape->node[d].shape != c->tape->node[x].shape)
        d = ad__sum_to(c, d, c->tape->node[x].shape);
    if (d >= 0 && c->tape->node[d].shape != c->tape->node[x].shape) /* a rule gave a scalar: a constant everywhere */
        d = ad__expand_to(c, d, c->tape->node[x].shape);
    gradient[x] = gradient[x] < 0 ? d : ad__op2(c, OP_add, gradient[x], d);
    return ad__ok(c);
}

bool ad__gradient(ad_context *c, node_id y, const node_id *x, int n, node_id *out)
{
    if (!ad__ok(c) || y < 0)
        return false;
    int64_t count = y + 1;
    for (int i = 0; i < n; i++)
        if (x[i] >= count)
            count = x[i] + 1;
    node_id *gradient = ad__step_bytes(c, (size_t)count * (sizeof *gradient + 1));
    if (!gradient)
        return false;
    uint8_t *needs = (uint8_t *)(gradient + count);
    memset(gradient, 0xff, (size_t)count * sizeof *gradient);
    memset(needs, 0, (size_t)count);
    mark_needs(c->tape, y, x, n, needs);
    if (needs[y])
        gradient[y] = ad__expand_to(c, ad__constant(c, 1), c->tape->node[y].shape);
    enum { FEW = 8 };
    for (node_id i = y; i >= 0 && ad__ok(c); i--) {
        const node *nd = &c->tape->node[i];
        gradient_rule *rule = rules[nd->op];
        if (gradient[i] < 0 || !rule || !needs[i])
            continue;
        int32_t saved_site = c->tape->site, n_inputs = nd->n_inputs;
        bool few_want[FEW], *want = few_want;
        node_id few_d[FEW], *d = few_d;
        if (n_inputs > FEW) {
            want = ad__step_bytes(c, (size_t)n_inputs);
            d = ad__step_bytes(c, (size_t)n_inputs * sizeof *d);
            if (!want || !d)
                break;
        }
        c->tape->site = nd->site; /* a gradient belongs to the site of its node */
        for (int j = 0; j < n_inputs; j++) {
            want[j] = needs[ad__inputs(c->tape, i)[j]];
            d[j] = -1;
        }
        c->tape->rule = (node_id)c->tape->n;
        rule(c, i, gradient[i], want, d);
        c->tape->rule = -1;
        for (int j = 0; j < n_inputs && ad__ok(c); j++)
            if (want[j] && d[j] != -1)
                arrive(c, i, j, d[j], gradient);
        c->tape->site = saved_site;
    }
    for (int i = 0; i < n; i++)
        out[i] = ad__ok(c) ? gradient[x[i]] : -1;
    return ad__ok(c);
}

void(ad_gradient)(ad_tensor *y, ad_tensor *const *x, int n, ad_tensor **out)
{
    ad_context *c = ad__open_context();
    if (n > 0 && (!x || !out)) {
        ad_fail(AD_ERROR_ARGUMENT, NULL, "ad_gradient: %s is NULL", x ? "out" : "x");
        return;
    }
    for (int i = 0; i < n; i++)
        out[i] = AD_NIL;
    if (!c)
        return;
    node_id *in = ad__step_bytes(c, (size_t)n * 2 * sizeof *in), *d = in + n;
    node_id of = in ? ad__node(c, y, "ad_gradient's first argument") : -1;
    if (of < 0)
        return;
    for (int i = 0; i < n; i++)
        if ((in[i] = ad__node(c, x[i], "an argument of ad_gradient")) < 0)
            return;
    if (!ad__gradient(c, of, in, n, d))
        return;
    for (int i = 0; i < n; i++) {
        if (d[i] < 0)
            d[i] = ad__expand_to(c, ad__constant(c, 0), c->tape->node[in[i]].shape);
        out[i] = ad__handle(c, d[i]);
    }
}
