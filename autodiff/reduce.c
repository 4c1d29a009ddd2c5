/* Reductions and cumulative sums: shape rules and gradients; the kernels stand in cpu/structured.c. A reduction over
 * scattered axes is a sequence of reductions over neighbouring ones, each (outer, reduced, inner) -> (outer, inner). */
#include <math.h>

#include "autodiff/tape.h"

node_id ad__reduce_axes(ad_context *c, int op, node_id x, int first, int end, bool keep)
{
    if (x < 0)
        return -1;
    const ad_shape *s = &ad__shape_of(c, x)->shape;
    ad_shape to = { .rank = keep ? s->rank : s->rank - (end - first) };
    int64_t attrs[] = { 1, 1, 1, first, end };
    for (int i = 0, k = 0; i < s->rank; i++) {
        attrs[i < first ? 0 : i < end ? 1 : 2] *= s->dim[i];
        if (i < first || i >= end)
            to.dim[k++] = s->dim[i];
        else if (keep)
            to.dim[k++] = 1;
    }
    int32_t shape = ad__shape(c, &to);
    if (attrs[1] == 1)
        return ad__reshape_to(c, x, shape);
    return ad__append(c, op, AD_REAL, shape, &x, 1, attrs, 5, -1);
}

/* Reduces the axes whose bits are set, from the right, so that those still to come keep their places. */
static node_id reduce_mask(ad_context *c, int op, node_id x, uint32_t axes, bool keep)
{
    for (int end = AD_MAX_RANK; end > 0;) {
        if (!(axes & 1u << (end - 1))) {
            end--;
            continue;
        }
        int first = end;
        while (first > 0 && axes & 1u << (first - 1))
            first--;
        x = ad__reduce_axes(c, op, x, first, end, keep);
        end = first;
    }
    return x;
}

/* The shape of x with every axis of the mask 1: what a reduction that keeps its axes has. */
static node_id kept(ad_context *c, node_id reduced, const ad_shape *full, uint32_t axes)
{
    ad_shape s = *full;
    for (int i = 0; i < s.rank; i++)
        if (axes & 1u << i)
            s.dim[i] = 1;
    return ad__reshape_to(c, reduced, ad__shape(c, &s));
}

ad_tensor *(ad_reduce)(ad_reduction kind, ad_tensor *x, const int *axes, int n_axes, bool keep)
{
    ad_context *c = ad__open_context();
    node_id id = c ? ad__node(c, x, "the operand of a reduction") : -1;
    if (id < 0)
        return AD_NIL;
    if (c->tape->node[id].dtype != AD_REAL)
        id = ad__node(c, ad_cast_real(x), "the operand of a reduction");
    ad_shape s = ad__shape_of(c, id)->shape;
    uint32_t mask = n_axes ? 0 : (1u << s.rank) - 1;
    int64_t count = 1;
    for (int i = 0; i < n_axes; i++) {
        int a = ad__axis(c, &s, axes[i], "a reduction");
        if (a < 0)
            return AD_NIL;
        mask |= 1u << a;
    }
    for (int i = 0; i < s.rank; i++)
        if (mask & 1u << i)
            count *= s.dim[i];
    if (count == 0 && (kind == AD_MAX || kind == AD_LOGSUMEXP)) {
        ad__fail(c, AD_ERROR_SHAPE, NULL, "a maximum over no elements: shape %s", ad__shape_text(c, &s));
        return AD_NIL;
    }
    switch (kind) {
    case AD_SUM:
        return ad__handle(c, reduce_mask(c, OP_reduce_sum, id, mask, keep));
    case AD_MAX:
        return ad__handle(c, reduce_mask(c, OP_reduce_max, id, mask, keep));
    case AD_MEAN: {
        node_id sum = reduce_mask(c, OP_reduce_sum, id, mask, keep);
        return ad__handle(c, sum < 0 ? -1 : ad__op2(c, OP_mul, sum, ad__constant(c, 1.0 / (double)count)));
    }
    case AD_LOGSUMEXP: {
        /* m + log sum exp(x - m) with m the maximum, or 0 where that is infinite; no gradient through m. Nothing but -inf
         * sums to 0: the result is -inf, of slope 0, so that an impossible row does not poison the others. An operand of
         * +inf gives +inf, of slope 0. */
        node_id m = reduce_mask(c, OP_reduce_max, id, mask, true);
        if (m < 0)
            return AD_NIL;
        node_id stop = ad__append(c, OP_stop_gradient, AD_REAL, c->tape->node[m].shape, &m, 1, NULL, 0, -1);
        if (stop < 0)
            return AD_NIL;
        m = ad__op3(c, OP_where, ad__op1(c, OP_is_finite, stop), stop, ad__constant(c, 0));
        node_id sum = reduce_mask(c, OP_reduce_sum, ad__op1(c, OP_exp, ad__op2(c, OP_sub, id, m)), mask, keep);
        if (sum < 0)
            return AD_NIL;
        node_id log_sum = ad__op3(c, OP_where, sum, ad__op1(c, OP_log, sum), ad__constant(c, -INFINITY));
        return ad__handle(c, ad__op2(c, OP_add, log_sum, ad__reshape_to(c, m, c->tape->node[sum].shape)));
    }
    }
    ad__fail(c, AD_ERROR_ARGUMENT, NULL, "no reduction has number %d", (int)kind);
    return AD_NIL;
}

node_id ad__sum_to(ad_context *c, node_id x, int32_t shape)
{
    if (x < 0 || shape < 0 || c->tape->node[x].shape == shape)
        return x;
    const ad_shape from = ad__shape_of(c, x)->shape, *to = &ad__shape_info(c, shape)->shape;
    uint32_t axes = 0;
    int lead = from.rank - to->rank;
    for (int i = 0; i < from.rank; i++)
        if (i < lead || (to->dim[i - lead] == 1 && from.dim[i] != 1))
            axes |= 1u << i;
    return ad__reshape_to(c, reduce_mask(c, OP_reduce_sum, x, axes, false), shape);
}

ad_tensor *(ad_sum_to)(ad_tensor *x, ad_shape shape)
{
    ad_context *c = ad__open_context();
    node_id id = c ? ad__node(c, x, "ad_sum_to's operand") : -1;
    if (id < 0)
        return AD_NIL;
    const ad_shape *from = &ad__shape_of(c, id)->shape;
    ad_shape joint;
    int32_t s = ad__shape(c, &shape);
    if (!ad__broadcast(from, &shape, &joint) || ad__shape(c, &joint) != c->tape->node[id].shape) {
        ad__fail(c, AD_ERROR_SHAPE, NULL, "ad_sum_to: %s does not broadcast to %s", ad__shape_text(c, &shape),
                 ad__shape_text(c, from));
        return AD_NIL;
    }
    return ad__handle(c, ad__sum_to(c, id, s));
}

void ad__gradient_reduce_sum(ad_context *c, node_id y, node_id g, const bool *want, node_id *d)
{
    (void)want;
    const int64_t *a = ad__attrs(c->tape, y);
    uint32_t axes = ((1u << a[4]) - 1) & ~((1u << a[3]) - 1);
    node_id x = ad__inputs(c->tape, y)[0];
    ad_shape full = ad__shape_of(c, x)->shape;
    d[0] = ad__expand_to(c, kept(c, g, &full, axes), c->tape->node[x].shape);
}

/* Ties share the gradient equally, as torch.amax does. */
void ad__gradient_reduce_max(ad_context *c, node_id y, node_id g, const bool *want, node_id *d)
{
    (void)want;
    const int64_t *a = ad__attrs(c->tape, y);
    int first = (int)a[3], end = (int)a[4];
    uint32_t axes = ((1u << end) - 1) & ~((1u << first) - 1);
    node_id x = ad__inputs(c->tape, y)[0];
    ad_shape full = ad__shape_of(c, x)->shape;
    node_id hit = ad__op2(c, OP_eq, x, kept(c, y, &full, axes));
    node_id share =
        ad__op2(c, OP_div, kept(c, g, &full, axes), ad__reduce_axes(c, OP_reduce_sum, hit, first, end, true));
    d[0] = ad__op3(c, OP_where, hit, share, ad__constant(c, 0));
}

static node_id cumsum(ad_context *c, node_id x, const int64_t *attrs)
{
    return x < 0 ? -1 : ad__append(c, OP_cumsum, AD_REAL, c->tape->node[x].shape, &x, 1, attrs, 4, -1);
}

ad_tensor *(ad_cumsum)(ad_tensor *x, int axis, bool reverse)
{
    ad_context *c = ad__open_context();
    node_id id = c ? ad__node(c, ad_cast_real(x), "ad_cumsum's operand") : -1;
    int at = id < 0 ? -1 : ad__axis(c, &ad__shape_of(c, id)->shape, axis, "ad_cumsum");
    if (at < 0)
        return AD_NIL;
    const ad_shape *s = &ad__shape_of(c, id)->shape;
    int64_t attrs[] = { 1, s->dim[at], 1, reverse };
    for (int i = 0; i < s->rank; i++)
        if (i != at)
            attrs[i < at ? 0 : 2] *= s->dim[i];
    return ad__handle(c, cumsum(c, id, attrs));
}
void ad__gradient_cumsum(ad_context *c, node_id y, node_id g, const bool *want, node_id *d)
{
    (void)want;
    const int64_t *a = ad__attrs(c->tape, y);
    d[0] = cumsum(c, g, (int64_t[]){ a[0], a[1], a[2], !a[3] });
}
