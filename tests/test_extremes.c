/* Tensors without elements, sizes beyond all memory, the greatest rank, and sums of millions: of every operation. Judged
 * by values here, and by the sanitizers for what lies outside of memory or overflows. */
#include "tests/fixture.h"

#include "autodiff/tape.h"

#include <stdlib.h>

/* ---- nothing to compute ------------------------------------------------------------------------------------------ */

/* The sum of f(x), its gradient and that one's, for x of a shape without elements: 0, and no error. */
typedef ad_tensor *function(ad_tensor *x);
static void check_empty(const char *name, function *f, ad_shape shape, bool interpreted)
{
    ad_tensor *x = ad_from_data(NULL, AD_FROM_DOUBLE, shape);
    for (int again = 0; again < (interpreted ? 1 : 3); again++)
        ad_scope {
            ad_tensor *y = f(x), *g = AD_NIL, *h = AD_NIL;
            ck_assert_msg(ad_ok(), "%s: %s", name, ad_error());
            double value = ad_item(ad_sum(y));
            ad_gradient(ad_sum(ad_square(y)), &x, 1, &g);
            ad_gradient(ad_sum(ad_square(g)), &x, 1, &h);
            double nothing[1], slope = ad_item(ad_sum(g)), curvature = ad_item(ad_sum(h));
            ck_assert_msg(ad_ok() && isfinite(value) && slope == 0 && curvature == 0, "%s: %g %g %g %s", name, value, slope,
                          curvature, ad_error());
            ck_assert(ad_read(g, nothing, 0));
        }
    ad_free(x);
}

/* x (0, 3), (3, 0) or (2, 0, 3), as each function takes it */
#define F(name, expression)                                                                                            \
    static ad_tensor *name(ad_tensor *x) { return expression; }
static ad_tensor *index_of(int64_t n)
{
    return ad_random_index(9, n, 0);
}
F(empty_sum, ad_sum(x, 0))
F(empty_sum_inner, ad_sum(x, -1))
F(empty_mean, ad_sum(ad_mean(x, -1)))
F(empty_max, ad_max_over(x, -1))
F(empty_logsumexp, ad_logsumexp(x, -1))
F(empty_sum_to, ad_sum_to(x, AD_SHAPE(1, 3)))
F(empty_cumsum, ad_cumsum(x, 0, false))
F(empty_cumsum_back, ad_cumsum(x, -1, true))
F(empty_reshape, ad_reshape(x, AD_SHAPE(3, 0, 5)))
F(empty_transpose, ad_transpose(x, 0, 1))
F(empty_expand, ad_expand(ad_reshape(x, AD_SHAPE(0, 1, 3)), AD_SHAPE(0, 4, 3)))
F(empty_concat, ad_concat(((ad_tensor *[]){ x, ad_ones(2, 3), x }), 3, 0))
F(empty_stack, ad_stack(((ad_tensor *[]){ x, x }), 2, 1))
F(empty_slice, ad_slice(x, 1, 1, 2))
F(slice_of_nothing, ad_mul(x, ad_slice(ad_ones(4, 3), 0, 4, 0)))
F(empty_pad, ad_pad(x, 0, 2, 5))
F(empty_pad_inner, ad_pad(x, 1, 1, 6))
F(empty_gather, ad_gather(x, 1, ad_reshape(ad_from(((int[]){ 0, 2 }), AD_SHAPE(2)), AD_SHAPE(2))))
F(gather_nothing, ad_gather(ad_transpose(ad_concat(((ad_tensor *[]){ x, ad_ones(9, 3) }), 2, 0), 0, 1), 1, index_of(0)))
F(empty_scatter, ad_scatter_add(x, 0, index_of(0), 4))
F(empty_where, ad_where(ad_gt(x, 0), x, ad_neg(x)))
F(empty_dot, ad_matmul(ad_reshape(x, AD_SHAPE(0)), ad_reshape(x, AD_SHAPE(0))))
F(empty_rows, ad_matmul(x, ad_ones(3, 4)))
F(empty_columns, ad_matmul(ad_ones(4, 3), ad_reshape(x, AD_SHAPE(3, 0))))
F(empty_inner, ad_matmul(ad_reshape(x, AD_SHAPE(5, 0)), ad_reshape(x, AD_SHAPE(0, 7))))
F(empty_stack_of_products, ad_matmul(ad_reshape(x, AD_SHAPE(0, 64, 64)), ad_reshape(x, AD_SHAPE(0, 64, 64))))
F(empty_stack_of_vectors, ad_matmul(ad_reshape(x, AD_SHAPE(0, 4, 5)), ad_ones(5)))
F(empty_stack_inner, ad_matmul(ad_reshape(x, AD_SHAPE(3, 4, 0)), ad_reshape(x, AD_SHAPE(3, 0, 2))))
F(empty_stack_one, ad_matmul(ad_ones(4, 5), ad_reshape(x, AD_SHAPE(0, 5, 6))))
F(empty_linear, ad_linear(x, ad_ones(2, 3), ad_ones(2)))
F(empty_total, ad_weighted_total(((ad_tensor *[]){ x, ad_sum(x) }), ((double[]){ 2, 3 }), 2))
F(empty_draws, ad_mul(x, ad_random_normal(AD_SHAPE(0, 3), 0)))
F(empty_uniform, ad_mul(x, ad_random_uniform(AD_SHAPE(0, 3), 1)))
F(empty_stop, ad_mul(x, ad_stop_gradient(x)))
F(empty_bytes, ad_add(x, ad_cast_real(ad_from((uint8_t *)NULL, AD_SHAPE(0, 3)))))

static const struct {
    const char *name;
    function *f;
} empties[] = {
#define ROW(f) { #f, f },
    ROW(empty_sum) ROW(empty_sum_inner) ROW(empty_mean) ROW(empty_max) ROW(empty_logsumexp) ROW(empty_sum_to)
    ROW(empty_cumsum) ROW(empty_cumsum_back) ROW(empty_reshape) ROW(empty_transpose) ROW(empty_expand) ROW(empty_concat)
    ROW(empty_stack) ROW(empty_slice) ROW(slice_of_nothing) ROW(empty_pad) ROW(empty_pad_inner) ROW(empty_gather)
    ROW(gather_nothing) ROW(empty_scatter) ROW(empty_where) ROW(empty_dot) ROW(empty_rows) ROW(empty_columns)
    ROW(empty_inner) ROW(empty_stack_of_products) ROW(empty_stack_of_vectors) ROW(empty_stack_inner) ROW(empty_stack_one)
    ROW(empty_linear) ROW(empty_total) ROW(empty_draws) ROW(empty_uniform) ROW(empty_stop) ROW(empty_bytes)
#undef ROW
};

START_TEST(operations_on_nothing)
{
    for (int p = AD_FLOAT; p <= AD_DOUBLE; p++)
        for (int interpreted = 0; interpreted < 2; interpreted++) {
            begin_as((ad_precision)p);
            if (interpreted) ad_context_current()->in_vain = 1 << 20; /* nobody trusts that programs come again */
            for (size_t i = 0; i < sizeof empties / sizeof *empties; i++)
                check_empty(empties[i].name, empties[i].f, AD_SHAPE(0, 3), interpreted);
            end();
        }
}
END_TEST

/* ---- chains of operations on nothing ----------------------------------------------------------------------------- */

static uint64_t drawn;
static int64_t below(int64_t n)
{
    drawn = drawn * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)((drawn >> 33) % (uint64_t)n);
}
static int64_t a_size(void)
{
    return (const int64_t[]){ 0, 0, 1, 2, 3, 17, 70 }[below(7)];
}

/* An operation drawn anew, of x with at least one axis: its other operands have sizes that may be 0, too. */
static ad_tensor *any_operation(ad_tensor *x)
{
    ad_shape s = ad_shape_of(x), t = s;
    if (s.rank == 0) return ad_expand(ad_sigmoid(x), AD_SHAPE(a_size()));
    int axis = (int)below(s.rank), other = (int)below(s.rank);
    int64_t size = s.dim[axis], last = s.dim[s.rank - 1], n = a_size(), start = below(size + 1);
    bool wide = s.rank < 4, flag = below(2);
    switch (below(21)) {
    case 0: return ad_reduce(AD_SUM, x, &axis, 1, flag);
    case 1: return ad_reduce(AD_MEAN, x, NULL, 0, flag);
    case 2: return size ? ad_reduce(flag ? AD_MAX : AD_LOGSUMEXP, x, &axis, 1, below(2)) : x;
    case 3: t.dim[axis] = 1; return ad_sum_to(x, t);
    case 4: return ad_cumsum(x, axis, flag);
    case 5: return ad_size(x) ? ad_reshape(x, AD_SHAPE(-1)) : ad_reshape(x, flag ? AD_SHAPE(0, 7) : AD_SHAPE(3, 0, 2));
    case 6: return ad_transpose(x, axis, other);
    case 7: return wide ? ad_gather(ad_unsqueeze(x, axis), axis, ad_from_data(NULL, AD_FROM_INT64, AD_SHAPE(n))) : x;
    case 8: t.dim[axis] = n; return ad_concat(((ad_tensor *[]){ x, ad_full_shape(t, 1), x }), 3, axis);
    case 9: return wide ? ad_stack(((ad_tensor *[]){ x, ad_neg(x) }), 2, axis) : x;
    case 10: return ad_slice(x, axis, start, below(size - start + 1));
    case 11: return ad_pad(x, axis, n, n + size + below(2));
    case 12: return ad_scatter_add(x, axis, ad_from_data(NULL, AD_FROM_INT64, AD_SHAPE(size)), 1 + n);
    case 13: return ad_matmul(x, ad_full_shape(AD_SHAPE(last, n), 0.1));
    case 14: return s.rank > 1 ? ad_matmul_t(x, flag, x, !flag) : ad_matmul(x, x);
    case 15: return ad_relu(ad_linear(x, ad_full_shape(AD_SHAPE(n, last), 0.1), ad_full_shape(AD_SHAPE(n), 0.2)));
    case 16: return ad_mul(x, flag ? ad_random_normal(s, 0) : ad_random_uniform(s, 1));
    case 17: return ad_add(x, ad_weighted_total(((ad_tensor *[]){ x, ad_sum(x) }), ((double[]){ 0.1, 0.2 }), 2));
    case 18: t.dim[axis] = size == 1 ? n : size; return ad_expand(x, t);
    case 19: return ad_where(ad_gt(x, 0.3), x, ad_tanh(x));
    default: return ad_matmul(x, ad_full_shape(AD_SHAPE(last), 0.1));
    }
}

/* The sums of such a chain's result, of its gradient and of that one's; then a state without elements is assigned. */
static void run_chain(uint64_t seed, double *out)
{
    drawn = seed;
    ad_shape s = { .rank = 1 + (int)below(4) };
    for (int i = 0; i < s.rank; i++) s.dim[i] = a_size();
    ad_tensor *x = ad_state(s), *g = AD_NIL, *h = AD_NIL;
    ad_scope {
        ad_assign(x, ad_full_shape(s, 0.3));
        ck_assert(ad_commit());
    }
    ad_scope {
        ad_tensor *y = x;
        for (int64_t i = below(5); i >= 0 && ad_size(y) < 20000; i--) y = any_operation(y);
        ad_gradient(ad_sum(ad_square(y)), &x, 1, &g);
        ad_gradient(ad_sum(ad_square(g)), &x, 1, &h);
        out[0] = ad_item(ad_sum(y)), out[1] = ad_item(ad_sum(g)), out[2] = ad_item(ad_sum(h));
        ck_assert_msg(ad_ok(), "seed %llu: %s", (unsigned long long)seed, ad_error());
        ad_assign(x, ad_add(x, g));
        ad_commit(); /* or not, where it is not finite */
        ad_error_clear();
    }
    ad_free(x);
}

/* As planned, by two threads, and by the interpreter. */
START_TEST(chains_on_nothing)
{
    enum { CHAINS = 400, CONTEXTS = 3 };
    for (int p = AD_FLOAT; p <= AD_DOUBLE; p++) {
        ad_context *c[CONTEXTS];
        for (int k = 0; k < CONTEXTS; k++)
            c[k] = ad_context_new(&(ad_options){ .precision = (ad_precision)p, .threads = 1 + (k == 1) });
        for (uint64_t seed = 1; seed <= CHAINS; seed++) {
            double out[CONTEXTS][3];
            for (int k = 0; k < CONTEXTS; k++)
                for (int again = 0; again < 2; again++) {
                    ad_context_use(c[k]);
                    if (k == 2) c[k]->in_vain = 1 << 20;
                    run_chain(seed, out[k]);
                }
            for (int i = 0; i < 3 * CONTEXTS; i++) {
                double got = out[i / 3][i % 3], want = out[0][i % 3];
                ck_assert_msg(fabs(got - want) <= (p == AD_DOUBLE ? 1e-10 : 1e-3) * (1 + fabs(want)) || got == want ||
                                  (isnan(got) && isnan(want)),
                              "seed %llu, context %d: %.9g and %.9g", (unsigned long long)seed, i / 3, got, want);
            }
        }
        for (int k = 0; k < CONTEXTS; k++) {
            ad_context_use(c[k]);
            ad_context_free(NULL);
        }
    }
}
END_TEST

/* Every row of ops.def, on (0, 3) alone and broadcast from (1, 3), (0, 1) and numbers. */
START_TEST(rows_on_nothing)
{
    begin();
    ad_context *c = ad_context_current();
    for (int op = 0; op < N_ELEMENTWISE; op++) {
        if (op == OP_tetragamma) continue; /* without a gradient */
        ad_scope {
            ad_tensor *x = ad_zeros(0, 3), *in[] = { x, ad_ones(1, 3), ad_zeros(0, 1), ad_number(2) }, *g[2];
            node_id id[4];
            for (int i = 0; i < 4; i++) id[i] = ad__node(c, in[i], "an operand");
            ad_tensor *y = ad__handle(c, ad__elementwise(c, op, id));
            ad_gradient(ad_sum(y), in, 2, g);
            double slope[3];
            ck_assert_msg(ad_ok() && ad_size(y) == 0 && ad_item(ad_sum(y)) == 0 && ad_item(ad_sum(g[0])) == 0, "ad_%s: %s",
                          ad__op_name(op), ad_error());
            if (ad__arity(op) > 1) ck_assert(ad_read(g[1], slope, 3) && slope[0] == 0 && slope[2] == 0);
        }
    }
    end();
}
END_TEST

/* Where the inner dimension is 0 a product is made of zeros. */
START_TEST(products_of_nothing_are_zeros)
{
    for (int p = AD_FLOAT; p <= AD_DOUBLE; p++) {
        begin_as((ad_precision)p);
        ad_scope {
            double out[24];
            ck_assert(ad_read(ad_matmul(ad_zeros(3, 0), ad_zeros(0, 4)), out, 12));
            for (int i = 0; i < 12; i++) ck_assert(out[i] == 0);
            ck_assert(ad_read(ad_add(ad_relu(ad_matmul(ad_zeros(2, 3, 0), ad_zeros(2, 0, 4))), 1), out, 24));
            for (int i = 0; i < 24; i++) ck_assert(out[i] == 1);
            ck_assert(ad_read(ad_linear(ad_zeros(3, 0), ad_zeros(4, 0), ad_full_shape(AD_SHAPE(4), 5)), out, 12));
            for (int i = 0; i < 12; i++) ck_assert(out[i] == 5);
        }
        end();
    }
}
END_TEST

START_TEST(extremes_of_nothing_are_refused)
{
    begin();
    ad_scope {
        ad_max_over(ad_zeros(0));
        error_says("no elements");
    }
    ad_scope {
        ad_logsumexp(ad_zeros(3, 0), 1);
        error_says("no elements");
    }
    ad_scope {
        ck_assert(isnan(ad_item(ad_mean(ad_zeros(0)))));
        fine();
    }
    end();
}
END_TEST

/* A parameter and data without elements train beside others. */
static void empty_model(ad_tensor *x)
{
    ad_tensor *m = ppl_sample("m", dist_normal(0, 1)), *none = ppl_param("none", AD_SHAPE(0, 4));
    ppl_sample("y", dist_to_event(dist_normal(ad_add(ad_expand(m, AD_SHAPE(0)), ad_sum(none)), 1), 1), .obs = x);
}
static void empty_guide(ad_tensor *x)
{
    (void)x;
    ppl_sample("m", dist_normal(ppl_param("loc", AD_SCALAR, .init = ppl_constant(1)), 1));
}
START_TEST(models_of_nothing)
{
    begin();
    ad_tensor *x = ad_from_data(NULL, AD_FROM_DOUBLE, AD_SHAPE(0));
    svi *s = svi_new(empty_model, empty_guide, .args = PPL_ARGS(ad_tensor *), .optim = optim_adam(.lr = 0.1));
    for (int i = 0; i < 20; i++) {
        double loss = svi_step(s, x);
        ck_assert_msg(isfinite(loss), "%s", svi_error(s));
    }
    ck_assert(parameter("loc") < 1);
    ck_assert(isfinite(svi_run(s, 10, .args = PPL_VALUES(x))));
    svi_free(s);
    ad_free(x);
    end();
}
END_TEST

/* ---- sizes that no memory has ------------------------------------------------------------------------------------ */

#define REFUSED(expression)                                                                                            \
    ad_scope {                                                                                                         \
        ad_tensor *y = (expression);                                                                                   \
        if (ad_ok()) ad_item(ad_sum(y));                                                                               \
        ck_assert_msg(!ad_ok(), "%s was not refused", #expression);                                                    \
    }

START_TEST(sizes_beyond_memory)
{
    begin();
    const int64_t most = INT64_MAX, half = (int64_t)1 << 40;
    ad_tensor *v = ad_from(((double[]){ 1, 2, 3 }), AD_SHAPE(3)), *index = ad_from(((int[]){ 0, 1 }), AD_SHAPE(2));
    REFUSED(ad_zeros(most))
    REFUSED(ad_zeros(most, most))
    REFUSED(ad_zeros(0, most, most))
    REFUSED(ad_zeros(-1))
    REFUSED(ad_zeros(INT64_MIN))
    REFUSED(ad_expand(v, AD_SHAPE(half, half, 3)))
    REFUSED(ad_expand(v, AD_SHAPE(half, 3)))
    REFUSED(ad_add(ad_exp(ad_expand(v, AD_SHAPE(half, 3))), ad_exp(ad_expand(v, AD_SHAPE(2, half, 3)))))
    REFUSED(ad_reshape(v, AD_SHAPE(half, half, -1)))
    REFUSED(ad_reshape(v, AD_SHAPE(INT64_MIN, -1)))
    REFUSED(ad_reshape(v, AD_SHAPE(most, most, 3)))
    REFUSED(ad_slice(v, 0, most, most))
    REFUSED(ad_slice(v, 0, 1, most))
    REFUSED(ad_slice(v, 0, INT64_MIN, 1))
    REFUSED(ad_slice(v, 0, 1, INT64_MIN))
    REFUSED(ad_pad(v, 0, 1, INT64_MIN))
    REFUSED(ad_pad(v, 0, most, most))
    REFUSED(ad_pad(v, 0, 0, most))
    REFUSED(ad_gather(ad_expand(ad_constant(1), AD_SHAPE(half, 2)), 1, ad_expand(index, AD_SHAPE(half, 2))))
    REFUSED(ad_scatter_add(ad_ones(2), 0, index, most))
    REFUSED(ad_scatter_add(ad_ones(2), 0, index, -1))
    REFUSED(ad_arange(most))
    REFUSED(ad_arange(-1))
    REFUSED(ad_random_normal(AD_SHAPE(most), 0))
    REFUSED(ad_cast_real(ad_random_index(most, most, 0)))
    REFUSED(ad_matmul(ad_expand(ad_constant(1), AD_SHAPE(half, 1)), ad_expand(ad_constant(1), AD_SHAPE(1, half))))
    REFUSED(ad_concat(((ad_tensor *[]){ ad_expand(ad_constant(1), AD_SHAPE((int64_t)1 << 58)),
                                        ad_expand(ad_constant(1), AD_SHAPE((int64_t)1 << 58)) }), 2, 0))
    REFUSED(ad_cumsum(ad_expand(ad_constant(1), AD_SHAPE(half)), 0, false))
    ad_scope {
        ad_scatter_add(ad_ones(2), 0, index, -1);
        error_says("size -1 of axis 0 is negative");
    }
    ad_scope ck_assert(ad_item(ad_sum(ad_slice(v, 0, 1, 2))) == 5); /* and the next good step works */
    ad_free(v), ad_free(index);
    end();
}
END_TEST

/* ---- the greatest rank ------------------------------------------------------------------------------------------- */

START_TEST(greatest_rank)
{
    begin();
    ad_shape ones = { .rank = AD_MAX_RANK };
    for (int i = 0; i < AD_MAX_RANK; i++) ones.dim[i] = 1;
    ad_tensor *x = ad_from_data(NULL, AD_FROM_DOUBLE, ones), *zero = ad_from(((int[]){ 0 }), AD_SCALAR),
              *pair = ad_from(((int[]){ 0, 0 }), AD_SHAPE(1, 2));
    ad_scope {
        ad_tensor *y = ad_exp(ad_add(x, ad_sum(x, 0, 3)));
        ck_assert(ad_item(ad_sum(ad_matmul(y, y))) == 1);
        fine();
    }
    REFUSED(ad_unsqueeze(x, 0))
    REFUSED(ad_stack(((ad_tensor *[]){ x, x }), 2, 0))
    REFUSED(ad_gather(x, 0, pair))
    REFUSED(ad_scatter_add(x, 0, zero, 1))
    REFUSED(ad_expand(x, (ad_shape){ .rank = AD_MAX_RANK + 1 }))
    REFUSED(ad_full_shape((ad_shape){ .rank = -1 }, 0))
    ad_free(x), ad_free(zero), ad_free(pair);
    end();
}
END_TEST

/* ---- sums of millions -------------------------------------------------------------------------------------------- */

enum { MILLIONS = 1 << 24 };

/* A long vector of floats near 285 whose sum is known. */
static double fill(float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)(x[i] = 250 + 70 * (float)((uint64_t)i * 2654435761u % 1000) / 1000);
    return sum;
}
#define SUMS(expression, want, tolerance)                                                                              \
    ad_scope {                                                                                                         \
        double got_ = ad_item(expression);                                                                             \
        ck_assert_msg(fabs(got_ / (want)-1) <= (tolerance), "%s is %.9g, should be %.9g", #expression, got_, (double)(want)); \
    }
#define AT(x, i) ad_slice(ad_reshape(x, AD_SHAPE(-1)), 0, i, 1)

START_TEST(long_sums_keep_their_digits)
{
    const int64_t n = MILLIONS;
    float *x = malloc((size_t)n * sizeof *x);
    double want = fill(x, n), even = 0, first = 0, column = 0;
    for (int64_t i = 0; i < n; i += 2) even += (double)x[i];
    for (int64_t i = 0; i < n / 2; i++) first += (double)x[i];
    for (int64_t i = 0; i < n; i += 256) column += (double)x[i];
    for (int threads = 1; threads <= 2; threads++) {
        ad_context_use(ad_context_new(&(ad_options){ .threads = threads }));
        ad_tensor *t = ad_from(x, AD_SHAPE(n)), *pairs = ad_from(x, AD_SHAPE(n / 2, 2)), *ones = ad_state(AD_SHAPE(n));
        ad_scope {
            ad_assign(ones, ad_full_shape(AD_SHAPE(n), 1));
            ck_assert(ad_commit());
        }
        SUMS(ad_sum(t), want, 1e-6)
        SUMS(ad_mean(t), want / (double)n, 1e-6)
        SUMS(AT(ad_sum(pairs, 0), 0), even, 1e-6)
        SUMS(AT(ad_mean(pairs, 0), 1), (want - even) / (double)(n / 2), 1e-6)
        SUMS(AT(ad_sum(ad_reshape(t, AD_SHAPE(2, n / 2)), 1), 0), first, 1e-6)
        SUMS(AT(ad_sum(ad_reshape(t, AD_SHAPE(n / 256, 256)), 0), 0), column, 1e-6)
        SUMS(ad_sum_to(t, AD_SCALAR), want, 1e-6)
        SUMS(AT(ad_sum_to(pairs, AD_SHAPE(1, 2)), 0), even, 1e-6)
        SUMS(AT(ad_cumsum(t, 0, false), n - 1), want, 1e-6)
        SUMS(AT(ad_cumsum(t, 0, true), 0), want, 1e-6)
        SUMS(AT(ad_cumsum(pairs, 0, false), n - 2), even, 1e-6)
        SUMS(ad_matmul(t, ones), want, 1e-5)
        SUMS(AT(ad_matmul_t(pairs, true, ad_reshape(ad_slice(ones, 0, 0, n / 2), AD_SHAPE(n / 2, 1)), false), 0), even, 1e-5)
        SUMS(AT(ad_matmul(ad_reshape(t, AD_SHAPE(2, 1, n / 2)), ad_reshape(ones, AD_SHAPE(2, n / 2, 1))), 0), first, 1e-5)
        SUMS(AT(ad_scatter_add(ones, 0, ad_gather(ad_from(((int[]){ 1, 1 }), AD_SHAPE(2)), 0, ad_from((int *)NULL, AD_SHAPE(n))), 2), 1),
             n, 1e-7)
        ad_scope { /* the gradient of a number that is broadcast is such a sum */
            ad_tensor *b = ad_state(AD_SHAPE(2)), *g;
            ad_gradient(ad_sum(ad_mul(pairs, b)), &b, 1, &g);
            double slope[2];
            ck_assert(ad_read(g, slope, 2) && fabs(slope[0] / even - 1) < 1e-6);
            ad_free(b);
        }
        ad_free(t), ad_free(pairs), ad_free(ones);
        ad_context_free(NULL);
    }
    free(x);
}
END_TEST

/* Rows that many are added to and rows with few members, in one scatter: (2, members, 3) -> (2, rows, 3). */
START_TEST(rows_with_many_members)
{
    enum { MEMBERS = 40000, ROWS = 1000, INNER = 3 };
    float *x = malloc(2 * MEMBERS * INNER * sizeof *x);
    double *want = calloc(2 * ROWS * INNER, sizeof *want), *got = calloc(2 * ROWS * INNER, sizeof *got);
    int64_t *index = malloc(MEMBERS * sizeof *index);
    fill(x, 2 * MEMBERS * INNER);
    for (int64_t j = 0; j < MEMBERS; j++) index[j] = j % 3 == 0 ? 5 : j % 3 == 1 ? 999 : j * 7919 % ROWS;
    for (int64_t i = 0; i < 2 * MEMBERS * INNER; i++)
        want[(i / INNER / MEMBERS * ROWS + index[i / INNER % MEMBERS]) * INNER + i % INNER] += (double)x[i];
    begin_as(AD_FLOAT);
    ad_tensor *t = ad_from(x, AD_SHAPE(2, MEMBERS, INNER)), *at = ad_from(index, AD_SHAPE(MEMBERS));
    for (int again = 0; again < 2; again++)
        ad_scope {
            ck_assert_msg(ad_read(ad_scatter_add(t, 1, at, ROWS), got, 2 * ROWS * INNER), "%s", ad_error());
            for (int i = 0; i < 2 * ROWS * INNER; i++)
                ck_assert_msg(fabs(got[i] - want[i]) <= 1e-6 * want[i], "element %d: %.9g, not %.9g", i, got[i], want[i]);
        }
    ad_scope {
        ad_read(ad_scatter_add(t, 1, at, ROWS - 1), got, 2 * (ROWS - 1) * INNER);
        error_says("index 999 is outside [0, 999)");
    }
    ad_free(t), ad_free(at);
    end();
    free(x), free(want), free(got), free(index);
}
END_TEST

Suite *suite_extremes(void)
{
    Suite *s = suite_create("extremes");
    TCase *t = tcase_create("extremes");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, operations_on_nothing);
    tcase_add_test(t, chains_on_nothing);
    tcase_add_test(t, rows_on_nothing);
    tcase_add_test(t, products_of_nothing_are_zeros);
    tcase_add_test(t, extremes_of_nothing_are_refused);
    tcase_add_test(t, models_of_nothing);
    tcase_add_test(t, sizes_beyond_memory);
    tcase_add_test(t, greatest_rank);
    tcase_add_test(t, long_sums_keep_their_digits);
    tcase_add_test(t, rows_with_many_members);
    suite_add_tcase(s, t);
    return s;
}
