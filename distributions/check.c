/* Whether parameters and values are where their constraints want them: for all elements at once by dist_check, and one
 * by one for ppl, which looks at a program when it meets it first and passes over what its operations promise
 * anyway. */
#include "distributions/formula.h"

#include <string.h>

/* The number that a node is, perhaps broadcast, as the context's precision holds it. */
bool dist__number(const ad_context *c, node_id id, double *x)
{
    const tape *t = c->tape;
    while (t->node[id].op == OP_expand) id = ad__inputs(t, id)[0];
    if (t->node[id].op == OP_scalar) *x = t->scalar[t->node[id].bind];
    else if (t->node[id].op == OP_constant) memcpy(x, ad__attrs(t, id), sizeof *x);
    else return false;
    if (c->precision == AD_FLOAT) *x = (float)*x;
    return true;
}

dist_constraint dist__wanted(const dist_object *o, int i)
{
    if (i < o->of->n_parameters && o->of->constraint_of) return o->of->constraint_of(o, i);
    if (i < o->of->n_parameters) return o->of->parameter[i].constraint;
    if (o->of->accepted.kind != DIST_REAL) return o->of->accepted;
    return o->of->support_of ? o->of->support_of(o) : o->of->support;
}

/* ---- promises ---------------------------------------------------------------------------------------------------- */

enum { DEEPEST = 6 }; /* each step down may be two ways */

/* Whether the operations that make a node give nothing but values inside the constraint (up to rounding: an exp that
 * underflows is left to the loss, which is then not finite). */
static bool promised(const ad_context *c, node_id id, const dist_constraint *set, int depth)
{
    if (set->kind == DIST_REAL) return true;
    if (set->lower_tensor || set->upper_tensor || set->kind == DIST_SIMPLEX || depth > DEEPEST) return false;
    double x;
    if (dist__number(c, id, &x)) return dist_constraint_holds(set, x);
    const int32_t *in = ad__inputs(c->tape, id);
    if (set->kind > DIST_INTEGER_INTERVAL) return false; /* of what only parameters must be nothing is promised */
    bool zero = set->kind == DIST_NONNEGATIVE;
    bool positive = zero || set->kind == DIST_POSITIVE || set->kind == DIST_SOFTPLUS_POSITIVE;
    switch (c->tape->node[id].op) {
    case OP_expand:
    case OP_reshape:
    case OP_permute:
    case OP_slice:
    case OP_gather:
    case OP_stop_gradient: return promised(c, in[0], set, depth);
    case OP_exp:
    case OP_softplus: return positive;
    case OP_sigmoid: return positive || set->kind == DIST_UNIT_INTERVAL;
    case OP_abs:
    case OP_relu:
    case OP_square: return zero;
    case OP_sqrt: return positive && promised(c, in[0], set, depth + 1);
    case OP_max: return positive && (promised(c, in[0], set, depth + 1) || promised(c, in[1], set, depth + 1));
    case OP_clamp: return positive && promised(c, in[1], set, depth + 1);
    case OP_add:
    case OP_mul:
    case OP_div: return positive && promised(c, in[0], set, depth + 1) && promised(c, in[1], set, depth + 1);
    default: return false;
    }
}

/* ---- one by one -------------------------------------------------------------------------------------------------- */

/* off, 0 where the mask hides it; the mask lacks off's n rightmost dimensions. */
static T unless_hidden(T off, T mask, int n)
{
    if (!mask) return off;
    for (; n > 0; n--) mask = ad_unsqueeze(mask, -1);
    return (ad_where)(mask, off, k(0));
}

/* Dimensions of parameter i, or of the value, that belong to one member. */
static int own_dims(const dist_object *o, int i)
{
    bool as_drawn = i == o->of->n_parameters || o->of->parameter[i].event_dim == DIST_OWN_EVENT;
    return as_drawn ? o->event->rank : o->of->parameter[i].event_dim;
}
static T unless_masked(const dist_object *o, T off, T mask, int own)
{
    return unless_hidden(unless_hidden(off, o->mask, o->mask_event + own), mask, o->to_event + own);
}

T dist__outside(const dist_object *o, int i, T value, T mask)
{
    ad_context *c = ad__current();
    dist_constraint set = dist__wanted(o, i);
    T x = i == o->of->n_parameters ? value : o->parameter[i];
    node_id id = c ? ad__node(c, x, "a value") : -1;
    if (id < 0 || promised(c, id, &set, 0)) return NULL;
    T off = (ad_sub)(k(1), dist_constraint_check(&set, x));
    return unless_masked(o, off, mask, own_dims(o, i) - dist_constraint_event_dim(set.kind));
}

T dist__is_nan(const dist_object *o, int i, T value, T mask)
{
    T x = i == o->of->n_parameters ? value : o->parameter[i];
    return unless_masked(o, (ad_ne)(x, x), mask, own_dims(o, i));
}

T dist_check(distribution *d, T value)
{
    const dist_object *o = dist_object_of(d);
    if (!o) return AD_NIL;
    T all = k(1);
    for (int i = 0; i < o->of->n_parameters + (value != NULL); i++) {
        dist_constraint set = dist__wanted(o, i);
        T ok = dist_constraint_check(&set, i == o->of->n_parameters ? value : o->parameter[i]);
        all = (ad_min)(all, (ad_sub)(k(1), ad_reduce(AD_MAX, (ad_sub)(k(1), ok), NULL, 0, false)));
    }
    return all;
}
