/* Matrix products: shape rules and gradients; the kernels stand in cpu/product.c and cpu/gemm.c. */
#include <string.h>

#include "autodiff/tape.h"

/* One node: a and b are matrices or stacks of matrices with equal leading dimensions; a lone matrix serves every
 * member. */
static node_id product(ad_context *c, node_id a, bool ta, node_id b, bool tb)
{
    const ad_shape sa = ad__shape_of(c, a)->shape, sb = ad__shape_of(c, b)->shape;
    int64_t m = sa.dim[sa.rank - 1 - !ta], k = sa.dim[sa.rank - 1 - ta];
    int64_t k_b = sb.dim[sb.rank - 1 - !tb], n = sb.dim[sb.rank - 1 - tb];
    if (k != k_b) {
        ad__fail(c, AD_ERROR_SHAPE, NULL, "ad_matmul: %s%s times %s%s: inner sizes %lld and %lld differ",
                 ad__shape_text(c, &sa), ta ? " transposed" : "", ad__shape_text(c, &sb), tb ? " transposed" : "",
                 (long long)k, (long long)k_b);
        return -1;
    }
    ad_shape to = sa.rank > 2 ? sa : sb;
    int64_t members = 1;
    for (int i = 0; i < to.rank - 2; i++)
        members *= to.dim[i];
    to.dim[to.rank - 2] = m;
    to.dim[to.rank - 1] = n;
    int64_t attrs[] = { ta, tb, sa.rank > 2 ? members : 1, sb.rank > 2 ? members : 1, m, n, k };
    return ad__append(c, OP_matmul, AD_REAL, ad__shape(c, &to), (node_id[]){ a, b }, 2, attrs, 7, -1);
}

/* x with leading dimensions `lead` in place of its own. */
static node_id expand_lead(ad_context *c, node_id x, const ad_shape *lead)
{
    const ad_shape *s = &ad__shape_of(c, x)->shape;
    ad_shape to = *lead;
    to.dim[to.rank++] = s->dim[s->rank - 2];
    to.dim[to.rank++] = s->dim[s->rank - 1];
    return ad__expand_to(c, x, ad__shape(c, &to));
}

node_id ad__matmul(ad_context *c, node_id a, bool ta, node_id b, bool tb)
{
    if (a < 0 || b < 0)
        return -1;
    ad_shape sa = ad__shape_of(c, a)->shape, sb = ad__shape_of(c, b)->shape;
    if (sa.rank == 2 && sb.rank == 2)
        return product(c, a, ta, b, tb);
    if (sb.rank == 2 && !ta) { /* one product over all rows of the stack */
        int64_t k = sa.dim[sa.rank - 1], m = 1;
        for (int i = 0; i < sa.rank - 1; i++)
            m *= sa.dim[i];
        node_id flat = product(c, ad__reshape_to(c, a, ad__shape(c, &AD_SHAPE(m, k))), false, b, tb);
        if (flat < 0)
            return -1;
        sa.dim[sa.rank - 1] = ad__shape_of(c, flat)->shape.dim[1];
        return ad__reshape_to(c, flat, ad__shape(c, &sa));
    }
    ad_shape lead_a = sa, lead_b = sb, lead;
    lead_a.rank -= 2;
    lead_b.rank -= 2;
    if (!ad__broadcast(&lead_a, &lead_b, &lead)) {
        ad__fail(c, AD_ERROR_SHAPE, NULL, "ad_matmul: leading dimensions of %s and %s do not broadcast",
                 ad__shape_text(c, &sa), ad__shape_text(c, &sb));
        return -1;
    }
    if (sa.rank > 2)
        a = expand_lead(c, a, &lead);
    if (sb.rank > 2)
        b = expand_lead(c, b, &lead);
    return a < 0 || b < 0 ? -1 : product(c, a, ta, b, tb);
}

ad_tensor *(ad_matmul_t)(ad_tensor *a, bool ta, ad_tensor *b, bool tb)
{
    ad_context *c = ad__open_context();
    node_id x = c ? ad__node(c, ad_cast_real(a), "ad_matmul's first operand") : -1;
    node_id y = x < 0 ? -1 : ad__node(c, ad_cast_real(b), "ad_matmul's second operand");
    if (y < 0)
        return AD_NIL;
    ad_shape sa = ad__shape_of(c, x)->shape, sb = ad__shape_of(c, y)->shape;
    if (sa.rank == 0 || sb.rank == 0) {
        ad__fail(c, AD_ERROR_SHAPE, "multiply by a scalar with ad_mul", "ad_matmul: an operand is a scalar");
        return AD_NIL;
    }
    bool row = sa.rank == 1, column = sb.rank == 1;
    if (row)
        x = ad__reshape_to(c, x, ad__shape(c, &AD_SHAPE(1, sa.dim[0])));
    if (column)
        y = ad__reshape_to(c, y, ad__shape(c, &AD_SHAPE(sb.dim[0], 1)));
    node_id z = ad__matmul(c, x, ta && !row, y, tb && !column);
    if (z < 0 || !(row || column))
        return ad__handle(c, z);
    ad_shape s = ad__shape_of(c, z)->shape;
    if (column)
        s.rank--;
    if (row) {
        int at = s.rank - 1 - !column;
        memmove(s.dim + at, s.dim + at + 1, (size_t)(s.rank - at - 1) * sizeof *s.dim);
        s.rank--;
    }
    return ad__handle(c, ad__reshape_to(c, z, ad__shape(c, &s)));
}
ad_tensor *(ad_matmul)(ad_tensor *a, ad_tensor *b)
{
    return ad_matmul_t(a, false, b, false);
}

ad_tensor *(ad_linear)(ad_tensor *x, ad_tensor *weight, ad_tensor *bias)
{
    ad_tensor *y = ad_matmul_t(x, false, weight, true);
    return bias ? (ad_add)(y, bias) : y;
}

/* y = op(a) op(b):  d op(a) = g op(b)^T,  d op(b) = op(a)^T g, summed over members where the operand is a lone matrix.
 */
void ad__gradient_matmul(ad_context *c, node_id y, node_id g, const bool *want, node_id *d)
{
    bool ta = ad__attrs(c->tape, y)[0], tb = ad__attrs(c->tape, y)[1];
    node_id a = ad__inputs(c->tape, y)[0], b = ad__inputs(c->tape, y)[1];
    int32_t shape_a = c->tape->node[a].shape, shape_b = c->tape->node[b].shape;
    if (want[0])
        d[0] = ad__sum_to(c, ta ? ad__matmul(c, b, tb, g, true) : ad__matmul(c, g, false, b, !tb), shape_a);
    if (want[1])
        d[1] = ad__sum_to(c, tb ? ad__matmul(c, g, true, a, ta) : ad__matmul(c, a, !ta, g, false), shape_b);
}
