/* Rows picked and added back by an integer index: shape rules and gradients; the kernels stand in cpu/structured.c. */
#include <string.h>

#include "autodiff/tape.h"

/* op over x, whose axis `at` lies between `outer` and `inner` elements and is `size` long on the side that is indexed.
 * The result has x's dtype. */
static node_id indexed(ad_context *c, int op, node_id x, node_id index, int at, int64_t size, const ad_shape *to)
{
    int64_t attrs[] = { at, 1, size, 1 };
    int32_t shape = ad__shape(c, to);
    if (shape < 0)
        return -1;
    for (int i = 0; i < at; i++)
        attrs[1] *= to->dim[i];
    for (int i = at + (op == OP_gather ? ad__shape_of(c, index)->shape.rank : 1); i < to->rank; i++)
        attrs[3] *= to->dim[i];
    return ad__append(c, op, c->tape->node[x].dtype, shape, (node_id[]){ x, index }, 2, attrs, 4, -1);
}

static bool operands(ad_context *c, ad_tensor *x, ad_tensor *index, node_id *in)
{
    in[0] = ad__node(c, x, "the operand that is indexed");
    in[1] = in[0] < 0 ? -1 : ad__node(c, index, "the index");
    if (in[1] < 0)
        return false;
    if (c->tape->node[in[1]].dtype == AD_INT64)
        return true;
    ad__fail(c, AD_ERROR_ARGUMENT, "make it with ad_from from int or int64_t data", "an index must be int64");
    return false;
}

static node_id gather(ad_context *c, node_id x, int at, node_id index)
{
    const ad_shape *s = &ad__shape_of(c, x)->shape, *k = &ad__shape_of(c, index)->shape;
    ad_shape to = { .rank = s->rank - 1 + k->rank };
    if (to.rank > AD_MAX_RANK) {
        ad__fail(c, AD_ERROR_SHAPE, NULL, "ad_gather: the result would have %d dimensions", to.rank);
        return -1;
    }
    memcpy(to.dim, s->dim, (size_t)at * sizeof *to.dim);
    memcpy(to.dim + at, k->dim, (size_t)k->rank * sizeof *to.dim);
    memcpy(to.dim + at + k->rank, s->dim + at + 1, (size_t)(s->rank - at - 1) * sizeof *to.dim);
    return indexed(c, OP_gather, x, index, at, s->dim[at], &to);
}

ad_tensor *(ad_gather)(ad_tensor *x, int axis, ad_tensor *index)
{
    ad_context *c = ad__open_context();
    node_id in[2];
    if (!c || !operands(c, x, index, in))
        return AD_NIL;
    int at = ad__axis(c, &ad__shape_of(c, in[0])->shape, axis, "ad_gather");
    return at < 0 ? AD_NIL : ad__handle(c, gather(c, in[0], at, in[1]));
}

static node_id scatter_add(ad_context *c, node_id x, int at, node_id index, int64_t size)
{
    const ad_shape *s = &ad__shape_of(c, x)->shape, *k = &ad__shape_of(c, index)->shape;
    if (size < 0) {
        ad__fail(c, AD_ERROR_SHAPE, NULL, "ad_scatter_add: the size %lld of axis %d is negative", (long long)size, at);
        return -1;
    }
    bool fits = s->rank >= at + k->rank;
    for (int i = 0; fits && i < k->rank; i++)
        fits = s->dim[at + i] == k->dim[i];
    if (!fits) {
        ad__fail(c, AD_ERROR_SHAPE, NULL, "ad_scatter_add: shape %s does not have the index's shape %s at axis %d",
                 ad__shape_text(c, s), ad__shape_text(c, k), at);
        return -1;
    }
    ad_shape to = { .rank = s->rank - k->rank + 1 };
    if (to.rank > AD_MAX_RANK) {
        ad__fail(c, AD_ERROR_SHAPE, NULL, "ad_scatter_add: the result would have %d dimensions", to.rank);
        return -1;
    }
    memcpy(to.dim, s->dim, (size_t)at * sizeof *to.dim);
    to.dim[at] = size;
    memcpy(to.dim + at + 1, s->dim + at + k->rank, (size_t)(s->rank - at - k->rank) * sizeof *to.dim);
    return indexed(c, OP_scatter_add, x, index, at, size, &to);
}

ad_tensor *(ad_scatter_add)(ad_tensor *x, int axis, ad_tensor *index, int64_t size)
{
    ad_context *c = ad__open_context();
    node_id in[2];
    if (!c || !operands(c, ad_cast_real(x), index, in))
        return AD_NIL;
    int rank = ad__shape_of(c, in[0])->shape.rank - ad__shape_of(c, in[1])->shape.rank + 1;
    int at = axis < 0 ? axis + rank : axis;
    if (at < 0 || at >= rank) {
        ad__fail(c, AD_ERROR_SHAPE, NULL, "ad_scatter_add: the result has no axis %d", axis);
        return AD_NIL;
    }
    return ad__handle(c, scatter_add(c, in[0], at, in[1], size));
}

void ad__gradient_gather(ad_context *c, node_id y, node_id g, const bool *want, node_id *d)
{
    const int64_t *a = ad__attrs(c->tape, y);
    if (want[0])
        d[0] = scatter_add(c, g, (int)a[0], ad__inputs(c->tape, y)[1], a[2]);
}
void ad__gradient_scatter_add(ad_context *c, node_id y, node_id g, const bool *want, node_id *d)
{
    const int64_t *a = ad__attrs(c->tape, y);
    if (want[0])
        d[0] = gather(c, g, (int)a[0], ad__inputs(c->tape, y)[1]);
}
