/* Operations that move elements without changing them: reshape, expand, permute, concat, slice, pad, cast. Each
 * section: shape rule and gradient rule; the kernels stand in cpu/structured.c. */
#include <string.h>

#include "autodiff/tape.h"

int ad__axis(ad_context *c, const ad_shape *s, int axis, const char *function)
{
    int i = axis < 0 ? axis + s->rank : axis;
    if (i >= 0 && i < s->rank)
        return i;
    ad__fail(c, AD_ERROR_SHAPE, NULL, "%s: shape %s has no axis %d", function, ad__shape_text(c, s), axis);
    return -1;
}

/* Product of the dimensions [from, to). */
static int64_t extent(const ad_shape *s, int from, int to)
{
    int64_t n = 1;
    for (int i = from; i < to; i++)
        n *= s->dim[i];
    return n;
}

/* ---- casts and the end of gradients ------------------------------------------------------------------------------ */

ad_tensor *(ad_cast_real)(ad_tensor *x)
{
    ad_context *c = ad__open_context();
    node_id id = c ? ad__node(c, x, "ad_cast_real's operand") : -1;
    if (id < 0)
        return AD_NIL;
    if (c->tape->node[id].dtype == AD_REAL)
        return x;
    return ad__handle(c, ad__append(c, OP_cast_real, AD_REAL, c->tape->node[id].shape, &id, 1, NULL, 0, -1));
}
void ad__gradient_cast_real(ad_context *c, node_id y, node_id g, const bool *want, node_id *d)
{
    (void)c, (void)y, (void)g, (void)want, (void)d;
}

ad_tensor *(ad_stop_gradient)(ad_tensor *x)
{
    ad_context *c = ad__open_context();
    node_id id = c ? ad__node(c, x, "ad_stop_gradient's operand") : -1;
    if (id < 0)
        return AD_NIL;
    const node *n = &c->tape->node[id];
    return ad__handle(c, ad__append(c, OP_stop_gradient, n->dtype, n->shape, &id, 1, NULL, 0, -1));
}

/* ---- reshape ----------------------------------------------------------------------------------------------------- */

node_id ad__reshape_to(ad_context *c, node_id x, int32_t shape)
{
    if (x < 0 || shape < 0)
        return -1;
    const node *n = &c->tape->node[x];
    if (n->shape == shape)
        return x;
    return ad__append(c, OP_reshape, n->dtype, shape, &x, 1, NULL, 0, -1);
}

ad_tensor *(ad_reshape)(ad_tensor *x, ad_shape shape)
{
    ad_context *c = ad__open_context();
    node_id id = c ? ad__node(c, x, "ad_reshape's operand") : -1;
    if (id < 0)
        return AD_NIL;
    const shape_info *old = ad__shape_of(c, id);
    int free_axis = -1;
    int64_t known = 1;
    ad_shape to = shape;
    for (int i = 0; i < to.rank; i++) {
        if (to.dim[i] == -1 && free_axis >= 0) {
            ad__fail(c, AD_ERROR_SHAPE, NULL, "ad_reshape: %s leaves two dimensions open; one may be -1",
                     ad__shape_text(c, &shape));
            return AD_NIL;
        }
        if (to.dim[i] == -1)
            free_axis = i;
        else if (__builtin_mul_overflow(known, to.dim[i], &known))
            known = INT64_MAX; /* whatever stands in the open place, the new shape is too large */
    }
    if (free_axis >= 0)
        to.dim[free_axis] = known > 0 ? old->size / known : 0;
    int32_t s = ad__shape(c, &to);
    if (s >= 0 && ad__shape_info(c, s)->size != ad__shape_of(c, id)->size) {
        ad__fail(c, AD_ERROR_SHAPE, NULL, "ad_reshape: %s has %lld elements, %s does not fit them",
                 ad__shape_text(c, &ad__shape_of(c, id)->shape), (long long)ad__shape_of(c, id)->size,
                 ad__shape_text(c, &shape));
        return AD_NIL;
    }
    return ad__handle(c, ad__reshape_to(c, id, s));
}
void ad__gradient_reshape(ad_context *c, node_id y, node_id g, const bool *want, node_id *d)
{
    (void)want;
    d[0] = ad__reshape_to(c, g, c->tape->node[ad__inputs(c->tape, y)[0]].shape);
}

ad_tensor *(ad_unsqueeze)(ad_tensor *x, int axis)
{
    ad_shape s = ad_shape_of(x);
    int at = axis < 0 ? axis + s.rank + 1 : axis;
    if (at < 0 || at > s.rank || s.rank == AD_MAX_RANK) {
        ad_fail(AD_ERROR_SHAPE, NULL, "ad_unsqueeze: a new axis %d does not fit rank %d", axis, s.rank);
        return AD_NIL;
    }
    memmove(s.dim + at + 1, s.dim + at, (size_t)(s.rank - at) * sizeof *s.dim);
    s.dim[at] = 1;
    s.rank++;
    return ad_reshape(x, s);
}

ad_tensor *(ad_squeeze)(ad_tensor *x, int axis)
{
    ad_context *c = ad__open_context();
    ad_shape s = ad_shape_of(x);
    int at = c ? ad__axis(c, &s, axis, "ad_squeeze") : -1;
    if (at < 0)
        return AD_NIL;
    if (s.dim[at] != 1) {
        ad__fail(c, AD_ERROR_SHAPE, NULL, "ad_squeeze: axis %d of %s has more than one element", axis,
                 ad__shape_text(c, &s));
        return AD_NIL;
    }
    memmove(s.dim + at, s.dim + at + 1, (size_t)(s.rank - at - 1) * sizeof *s.dim);
    s.rank--;
    return ad_reshape(x, s);
}

/* ---- expand ------------------------------------------------------------------------------------------------------ */

node_id ad__expand_to(ad_context *c, node_id x, int32_t shape)
{
    if (x < 0 || shape < 0)
        return -1;
    const node *n = &c->tape->node[x];
    if (n->shape == shape)
        return x;
    const ad_shape *from = &ad__shape_info(c, n->shape)->shape, *to = &ad__shape_info(c, shape)->shape;
    ad_shape joint;
    if (!ad__broadcast(from, to, &joint) || joint.rank != to->rank ||
        memcmp(joint.dim, to->dim, (size_t)to->rank * sizeof *to->dim)) {
        ad__fail(c, AD_ERROR_SHAPE, NULL, "ad_expand: shape %s does not broadcast to %s", ad__shape_text(c, from),
                 ad__shape_text(c, to));
        return -1;
    }
    return ad__append(c, OP_expand, n->dtype, shape, &x, 1, NULL, 0, -1);
}

ad_tensor *(ad_expand)(ad_tensor *x, ad_shape shape)
{
    ad_context *c = ad__open_context();
    node_id id = c ? ad__node(c, x, "ad_expand's operand") : -1;
    return id < 0 ? AD_NIL : ad__handle(c, ad__expand_to(c, id, ad__shape(c, &shape)));
}
void ad__gradient_expand(ad_context *c, node_id y, node_id g, const bool *want, node_id *d)
{
    (void)want;
    d[0] = ad__sum_to(c, g, c->tape->node[ad__inputs(c->tape, y)[0]].shape);
}

/* ---- permute ----------------------------------------------------------------------------------------------------- */

static node_id permute(ad_context *c, node_id x, const int64_t *axes)
{
    const shape_info *s = ad__shape_of(c, x);
    ad_shape to = { .rank = s->shape.rank };
    bool moved = false;
    for (int i = 0; i < to.rank; i++) {
        to.dim[i] = s->shape.dim[axes[i]];
        moved |= axes[i] != i;
    }
    int rank = to.rank;
    return moved ? ad__append(c, OP_permute, c->tape->node[x].dtype, ad__shape(c, &to), &x, 1, axes, rank, -1) : x;
}

ad_tensor *(ad_permute)(ad_tensor *x, const int *axes, int n_axes)
{
    ad_context *c = ad__open_context();
    node_id id = c ? ad__node(c, x, "ad_permute's operand") : -1;
    if (id < 0)
        return AD_NIL;
    const ad_shape *s = &ad__shape_of(c, id)->shape;
    int64_t order[AD_MAX_RANK];
    uint32_t seen = 0;
    bool fits = n_axes == s->rank;
    for (int i = 0; fits && i < n_axes; i++) {
        order[i] = axes[i] < 0 ? axes[i] + s->rank : axes[i];
        fits = order[i] >= 0 && order[i] < s->rank && !(seen & 1u << order[i]);
        if (fits)
            seen |= 1u << order[i];
    }
    if (!fits) {
        ad__fail(c, AD_ERROR_SHAPE, NULL, "ad_permute: the axes are not a permutation of those of %s",
                 ad__shape_text(c, s));
        return AD_NIL;
    }
    return ad__handle(c, permute(c, id, order));
}

ad_tensor *(ad_transpose)(ad_tensor *x, int axis_a, int axis_b)
{
    ad_context *c = ad__open_context();
    ad_shape s = ad_shape_of(x);
    int a = c ? ad__axis(c, &s, axis_a, "ad_transpose") : -1, b = a < 0 ? -1 : ad__axis(c, &s, axis_b, "ad_transpose");
    if (b < 0)
        return AD_NIL;
    int axes[AD_MAX_RANK];
    for (int i = 0; i < s.rank; i++)
        axes[i] = i == a ? b : i == b ? a : i;
    return ad_permute(x, axes, s.rank);
}
void ad__gradient_permute(ad_context *c, node_id y, node_id g, const bool *want, node_id *d)
{
    (void)want;
    const node *n = &c->tape->node[y];
    int64_t back[AD_MAX_RANK];
    for (int i = 0; i < n->n_attrs; i++)
        back[ad__attrs(c->tape, y)[i]] = i;
    d[0] = permute(c, g, back);
}

/* ---- slice and pad: each the other's gradient -------------------------------------------------------------------- */

/* `start` is structural when slot is -1. `size` is that of the long side. */
static node_id cut(ad_context *c, int op, node_id x, int axis, int64_t start, int32_t slot, int64_t length,
                   int64_t size)
{
    ad_shape s = ad__shape_of(c, x)->shape;
    int64_t attrs[] = { axis, extent(&s, 0, axis), size, extent(&s, axis + 1, s.rank), length, slot < 0 ? start : 0 };
    s.dim[axis] = op == OP_slice ? length : size;
    return ad__append(c, op, c->tape->node[x].dtype, ad__shape(c, &s), &x, 1, attrs, 6, slot);
}

ad_tensor *(ad_slice)(ad_tensor *x, int axis, int64_t start, int64_t length)
{
    ad_context *c = ad__open_context();
    node_id id = c ? ad__node(c, x, "ad_slice's operand") : -1;
    int at = id < 0 ? -1 : ad__axis(c, &ad__shape_of(c, id)->shape, axis, "ad_slice");
    if (at < 0)
        return AD_NIL;
    int64_t size = ad__shape_of(c, id)->shape.dim[at];
    if (start < 0 || length < 0 || start > size - length) {
        ad__fail(c, AD_ERROR_SHAPE, NULL, "ad_slice: %lld elements from %lld on are not within axis %d of shape %s",
                 (long long)length, (long long)start, axis, ad__shape_text(c, &ad__shape_of(c, id)->shape));
        return AD_NIL;
    }
    if (length == size)
        return x;
    int32_t slot = c->tape->expanding ? -1 : ad__bind_scalar(c, (double)start);
    return ad__handle(c, cut(c, OP_slice, id, at, start, slot, length, size));
}

ad_tensor *(ad_pad)(ad_tensor *x, int axis, int64_t start, int64_t size)
{
    ad_context *c = ad__open_context();
    node_id id = c ? ad__node(c, x, "ad_pad's operand") : -1;
    int at = id < 0 ? -1 : ad__axis(c, &ad__shape_of(c, id)->shape, axis, "ad_pad");
    if (at < 0)
        return AD_NIL;
    int64_t length = ad__shape_of(c, id)->shape.dim[at];
    if (start < 0 || size < length || start > size - length) {
        ad__fail(c, AD_ERROR_SHAPE, NULL, "ad_pad: %lld elements at %lld do not fit into %lld", (long long)length,
                 (long long)start, (long long)size);
        return AD_NIL;
    }
    int32_t slot = c->tape->expanding ? -1 : ad__bind_scalar(c, (double)start);
    return ad__handle(c, cut(c, OP_pad, id, at, start, slot, length, size));
}

static void reverse_cut(ad_context *c, int op, node_id y, node_id g, node_id *d)
{
    const int64_t *a = ad__attrs(c->tape, y);
    d[0] = cut(c, op, g, (int)a[0], a[5], c->tape->node[y].bind, a[4], a[2]);
}
void ad__gradient_slice(ad_context *c, node_id y, node_id g, const bool *want, node_id *d)
{
    (void)want;
    reverse_cut(c, OP_pad, y, g, d);
}
void ad__gradient_pad(ad_context *c, node_id y, node_id g, const bool *want, node_id *d)
{
    (void)want;
    reverse_cut(c, OP_slice, y, g, d);
}

/* ---- concat ------------------------------------------------------------------------------------------------------ */

ad_tensor *(ad_concat)(ad_tensor *const *parts, int n, int axis)
{
    ad_context *c = ad__open_context();
    if (!c)
        return AD_NIL;
    if (n < 1) {
        ad__fail(c, AD_ERROR_ARGUMENT, NULL, "ad_concat: no parts");
        return AD_NIL;
    }
    node_id *in = ad__step_bytes(c, (size_t)n * sizeof *in);
    if (!in)
        return AD_NIL;
    ad_shape s = { .rank = 0 };
    int at = 0;
    for (int i = 0; i < n; i++) {
        if ((in[i] = ad__node(c, parts[i], "a part of ad_concat")) < 0)
            return AD_NIL;
        const ad_shape *p = &ad__shape_of(c, in[i])->shape;
        if (i == 0) {
            s = *p;
            if ((at = ad__axis(c, p, axis, "ad_concat")) < 0)
                return AD_NIL;
            continue;
        }
        bool fits = p->rank == s.rank && c->tape->node[in[i]].dtype == c->tape->node[in[0]].dtype;
        for (int k = 0; fits && k < s.rank; k++)
            fits = k == at || p->dim[k] == s.dim[k];
        if (!fits) {
            ad__fail(c, AD_ERROR_SHAPE, NULL,
                     "ad_concat: part %d has shape %s, the first %s; they may differ in axis %d only", i,
                     ad__shape_text(c, p), ad__shape_text(c, &ad__shape_of(c, in[0])->shape), axis);
            return AD_NIL;
        }
        if (__builtin_add_overflow(s.dim[at], p->dim[at], &s.dim[at]))
            s.dim[at] = INT64_MAX; /* too many for any shape */
    }
    int64_t attrs[] = { at, extent(&s, 0, at), extent(&s, at + 1, s.rank) };
    return ad__handle(c, ad__append(c, OP_concat, c->tape->node[in[0]].dtype, ad__shape(c, &s), in, n, attrs, 3, -1));
}
void ad__gradient_concat(ad_context *c, node_id y, node_id g, const bool *want, node_id *d)
{
    int axis = (int)ad__attrs(c->tape, y)[0];
    int64_t start = 0, size = ad__shape_of(c, y)->shape.dim[axis];
    for (int i = 0; i < c->tape->node[y].n_inputs; i++) {
        int64_t length = ad__shape_of(c, ad__inputs(c->tape, y)[i])->shape.dim[axis];
        if (want[i])
            d[i] = cut(c, OP_slice, g, axis, start, -1, length, size);
        start += length;
    }
}

ad_tensor *(ad_stack)(ad_tensor *const *parts, int n, int axis)
{
    ad_context *c = ad__open_context();
    ad_tensor **raised = c && n > 0 ? ad__step_bytes(c, (size_t)n * sizeof *raised) : NULL;
    if (!raised)
        return ad_concat(parts, n, axis);
    for (int i = 0; i < n; i++)
        raised[i] = ad_unsqueeze(parts[i], axis);
    return ad_concat(raised, n, axis);
}
