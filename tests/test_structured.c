/* Products, reductions, cumulative sums and totals: values against naive loops, gradients against central differences.
 * What only moves elements is in test_moves.c. */
#include <stdio.h>

#include "tests/numeric.h"

static ad_context *context;
static uint64_t state;

static void open_double(void)
{
    context = numeric_context(AD_DOUBLE, 2);
    state = 7;
}
static void close_context(void) { ad_context_free(context); }

/* ---- products ------------------------------------------------------------------------------------------------------ */

typedef struct product {
    ad_shape a, b;
    bool ta, tb;
} product;

static ad_tensor *multiply(ad_tensor *const *x, const void *what)
{
    const product *p = what;
    return ad_matmul_t(x[0], p->ta, x[1], p->tb);
}

/* A matrix or stack of them as (lead..., M, K): a vector is a row on the left, a column on the right. */
static ad_shape as_matrices(ad_shape s, bool left)
{
    if (s.rank > 1) return s;
    return left ? AD_SHAPE(1, s.dim[0]) : AD_SHAPE(s.dim[0], 1);
}

/* One triple loop for each member -> the shape of the result. */
static ad_shape naive_product(const product *p, const double *x, const double *y, double *out)
{
    ad_shape a = as_matrices(p->a, true), b = as_matrices(p->b, false);
    bool ta = p->ta && p->a.rank > 1, tb = p->tb && p->b.rank > 1;
    int rank = a.rank > b.rank ? a.rank : b.rank;
    ad_shape lead = { .rank = rank - 2 }, la = a, lb = b, to;
    la.rank -= 2;
    lb.rank -= 2;
    for (int i = 1; i <= lead.rank; i++) {
        int64_t u = i <= la.rank ? la.dim[la.rank - i] : 1, v = i <= lb.rank ? lb.dim[lb.rank - i] : 1;
        lead.dim[lead.rank - i] = u == 1 ? v : u;
    }
    int64_t ra = a.dim[a.rank - 2], ca = a.dim[a.rank - 1], rb = b.dim[b.rank - 2], cb = b.dim[b.rank - 1];
    int64_t m = ta ? ca : ra, k = ta ? ra : ca, n = tb ? rb : cb;
    for (int64_t q = 0; q < numeric_size(&lead); q++) {
        int64_t place[AD_MAX_RANK];
        numeric_coordinates(&lead, q, place);
        const double *u = x + numeric_at(&la, place, lead.rank) * ra * ca, *v = y + numeric_at(&lb, place, lead.rank) * rb * cb;
        for (int64_t i = 0; i < m; i++) {
            for (int64_t j = 0; j < n; j++) {
                double sum = 0;
                for (int64_t l = 0; l < k; l++) sum += u[ta ? l * ca + i : i * ca + l] * v[tb ? j * cb + l : l * cb + j];
                *out++ = sum;
            }
        }
    }
    to = lead;
    if (p->a.rank > 1) to.dim[to.rank++] = m;
    if (p->b.rank > 1) to.dim[to.rank++] = n;
    return to;
}

#define S(...) AD_SHAPE(__VA_ARGS__)
START_TEST(test_matmul)
{
    const product cases[] = {
        { S(3, 4), S(4, 5), false, false },       { S(4, 3), S(4, 5), true, false },
        { S(3, 4), S(5, 4), false, true },        { S(4, 3), S(5, 4), true, true },
        { S(1, 1), S(1, 1), false, false },       { S(4), S(4, 3), false, false },
        { S(4), S(3, 4), false, true },           { S(3, 4), S(4), false, false },
        { S(4, 3), S(4), true, false },           { S(4), S(4), false, false },
        { S(2, 3, 4), S(2, 4, 5), false, false }, { S(2, 4, 3), S(2, 4, 5), true, false },
        { S(2, 3, 4), S(2, 5, 4), false, true },  { S(2, 4, 3), S(2, 5, 4), true, true },
        { S(2, 3, 4), S(4, 5), false, false },    { S(2, 3, 4), S(5, 4), false, true },
        { S(2, 4, 3), S(4, 5), true, false },     { S(3, 4), S(2, 4, 5), false, false },
        { S(4, 3), S(2, 5, 4), true, true },      { S(2, 1, 3, 4), S(3, 4, 2), false, false },
        { S(1, 3, 4), S(2, 4, 2), false, false }, { S(2, 3, 4), S(1, 2, 4), false, true },
        { S(4), S(2, 4, 3), false, false },       { S(2, 3, 4), S(4), false, false },
        { S(3, 0), S(0, 2), false, false },       { S(0, 3), S(0, 2), true, false },
        { S(2, 3, 0), S(2, 0, 2), false, false }, { S(0, 4), S(4, 3), false, false },
        { S(3, 4), S(4, 0), false, false },       { S(0), S(0), false, false },
        { S(0, 3, 4), S(4, 2), false, false },    { S(2, 3, 0), S(0, 2), false, false },
        { S(17, 9), S(9, 13), false, false },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const product *p = &cases[i];
        char name[32];
        snprintf(name, sizeof name, "product %zu", i);
        ad_shape shapes[] = { p->a, p->b };
        double *data[] = { numeric_draws(&state, numeric_size(&p->a), -1, 1), numeric_draws(&state, numeric_size(&p->b), -1, 1) };
        double want[1024];
        ad_shape to = naive_product(p, data[0], data[1], want);
        numeric_check_value(name, multiply, p, shapes, data, 2, to, want, 1e-13);
        if (numeric_size(&to) <= 64) numeric_check_gradient(name, multiply, p, shapes, data, 2);
        free(data[0]);
        free(data[1]);
    }
}
END_TEST

static ad_tensor *affine(ad_tensor *const *x, const void *what) { return ad_linear(x[0], x[1], what ? x[2] : NULL); }

START_TEST(test_linear)
{
    ad_shape shapes[] = { S(2, 3, 4), S(5, 4), S(5) };
    double *data[3], want[30];
    for (int i = 0; i < 3; i++) data[i] = numeric_draws(&state, numeric_size(&shapes[i]), -1, 1);
    for (int bias = 0; bias < 2; bias++) {
        product p = { S(2, 3, 4), S(5, 4), false, true };
        ad_shape to = naive_product(&p, data[0], data[1], want);
        for (int k = 0; k < 30; k++) want[k] += bias ? data[2][k % 5] : 0;
        numeric_check_value("linear", affine, bias ? "bias" : NULL, shapes, data, 2 + bias, to, want, 1e-13);
        numeric_check_gradient("linear", affine, bias ? "bias" : NULL, shapes, data, 2 + bias);
    }
    for (int i = 0; i < 3; i++) free(data[i]);
}
END_TEST

static bool fails_with(ad_error_kind kind, const char *words)
{
    return ad_error_code() == kind && strstr(ad_error(), words);
}

START_TEST(test_product_errors)
{
    ad_scope {
        ad_matmul(ad_ones(3, 4), ad_ones(5, 2));
        ck_assert_msg(fails_with(AD_ERROR_SHAPE, "(3, 4) times (5, 2): inner sizes 4 and 5 differ"), "%s", ad_error());
    }
    ad_scope {
        ad_matmul(ad_ones(2, 3, 4), ad_ones(3, 4, 2));
        ck_assert_msg(fails_with(AD_ERROR_SHAPE, "leading dimensions of (2, 3, 4) and (3, 4, 2)"), "%s", ad_error());
    }
    ad_scope {
        ad_matmul(ad_ones(2, 3), 2);
        ck_assert_msg(fails_with(AD_ERROR_SHAPE, "an operand is a scalar") && strstr(ad_error(), "ad_mul"), "%s", ad_error());
    }
}
END_TEST

/* ---- reductions ---------------------------------------------------------------------------------------------------- */

typedef struct reduction {
    ad_reduction kind;
    int axes[4], n;
    bool keep;
} reduction;

static ad_tensor *reduce(ad_tensor *const *x, const void *what)
{
    const reduction *r = what;
    return ad_reduce(r->kind, x[0], r->axes, r->n, r->keep);
}

/* x of shape s -> out; the axes of the mask go. */
static ad_shape naive_reduce(ad_reduction kind, const ad_shape *s, uint32_t mask, bool keep, const double *x, double *out)
{
    ad_shape kept = *s, to = { .rank = 0 };
    int64_t count = 1, place[AD_MAX_RANK];
    for (int i = 0; i < s->rank; i++) {
        if (mask >> i & 1) {
            kept.dim[i] = 1;
            count *= s->dim[i];
        }
        if (keep || !(mask >> i & 1)) to.dim[to.rank++] = kept.dim[i];
    }
    int64_t n = numeric_size(&kept);
    double *most = malloc((size_t)(n + 1) * sizeof *most);
    for (int64_t i = 0; i < n; i++) most[i] = -INFINITY, out[i] = 0;
    for (int64_t i = 0; i < numeric_size(s); i++) {
        numeric_coordinates(s, i, place);
        int64_t at = numeric_at(&kept, place, s->rank);
        most[at] = fmax(most[at], x[i]);
    }
    for (int64_t i = 0; i < numeric_size(s); i++) {
        numeric_coordinates(s, i, place);
        int64_t at = numeric_at(&kept, place, s->rank);
        out[at] += kind == AD_LOGSUMEXP ? exp(x[i] - (isinf(most[at]) ? 0 : most[at])) : x[i];
    }
    for (int64_t i = 0; i < n; i++) {
        if (kind == AD_MEAN) out[i] /= (double)count;
        if (kind == AD_MAX) out[i] = most[i];
        if (kind == AD_LOGSUMEXP) out[i] = log(out[i]) + (isinf(most[i]) ? 0 : most[i]);
    }
    free(most);
    return to;
}

/* Every set of axes of a tensor of rank 4, named from either end and in either order. */
START_TEST(test_reductions)
{
    const ad_shape shapes[] = { S(2, 3, 2, 2), S(3, 1, 2, 1), S(1, 1, 1, 1) };
    for (size_t which = 0; which < 3; which++) {
        ad_shape s = shapes[which];
        int64_t n = numeric_size(&s);
        double *data = malloc((size_t)n * sizeof *data), want[32];
        for (int64_t k = 0; k < n; k++) data[k] = -2 + 4.0 * (double)((k * 7 + 3) % n) / (double)n; /* apart: no ties in a stencil */
        for (uint32_t mask = 0; mask < 16; mask++) {
            for (int variant = 0; variant < 2; variant++) {
                reduction r = { .kind = (ad_reduction)_i, .keep = variant };
                for (int i = 0; i < 4; i++) {
                    int axis = variant ? 3 - i : i;
                    if (mask >> axis & 1) r.axes[r.n++] = variant ? axis - 4 : axis;
                }
                char name[64];
                snprintf(name, sizeof name, "reduction %d over axes %x of shape %zu", _i, mask, which);
                ad_shape to = naive_reduce(r.kind, &s, mask ? mask : 15, r.keep, data, want);
                numeric_check_value(name, reduce, &r, &s, &data, 1, to, want, 1e-13);
                numeric_check_gradient(name, reduce, &r, &s, &data, 1);
            }
        }
        free(data);
    }
}
END_TEST

/* Long rows, long columns and long sums take other paths than short ones; float is judged by the naive sum in double. */
START_TEST(test_large_reductions)
{
    static const struct {
        ad_shape s;
        uint32_t mask;
    } cases[] = {
        { { 1, { 100003 } }, 1 },     { { 2, { 5, 9001 } }, 2 },       { { 2, { 9001, 5 } }, 1 }, { { 2, { 3001, 70 } }, 1 },
        { { 2, { 700, 65 } }, 3 },    { { 3, { 7, 300, 130 } }, 2 },   { { 3, { 7, 300, 13 } }, 5 }, { { 2, { 20000, 3 } }, 2 },
    };
    ad_context_free(context);
    context = numeric_context(_i ? AD_DOUBLE : AD_FLOAT, 2);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ad_shape s = cases[i].s;
        double *data = numeric_draws(&state, numeric_size(&s), -1, 2), *want = malloc((size_t)numeric_size(&s) * sizeof *want);
        for (int64_t k = 0; k < numeric_size(&s); k++) data[k] = (float)data[k];
        for (int kind = AD_SUM; kind <= AD_LOGSUMEXP; kind++) {
            reduction r = { .kind = (ad_reduction)kind };
            for (int axis = 0; axis < s.rank; axis++)
                if (cases[i].mask >> axis & 1) r.axes[r.n++] = axis;
            ad_shape to = naive_reduce(r.kind, &s, cases[i].mask, false, data, want);
            char name[64];
            snprintf(name, sizeof name, "large case %zu, reduction %d", i, kind);
            numeric_check_value(name, reduce, &r, &s, &data, 1, to, want, _i ? 1e-12 : 1e-5);
        }
        free(data);
        free(want);
    }
}
END_TEST

/* Infinities, values far from 0, ties of the maximum, no elements. */
START_TEST(test_reduction_edges)
{
    double rows[5][3] = { { -INFINITY, -INFINITY, -INFINITY },
                          { 1000, 1000, -INFINITY },
                          { -2000, -2001, -2002 },
                          { INFINITY, 0, 1 },
                          { NAN, 1, 2 } };
    double want_lse[] = { -INFINITY, 1000 + M_LN2, -2000 + log(1 + exp(-1) + exp(-2)), INFINITY, NAN };
    double want_max[] = { -INFINITY, 1000, -2000, INFINITY, NAN }, got[15];
    ad_scope {
        ad_tensor *x = ad_from(&rows[0][0], S(5, 3)), *d;
        ad_tensor *lse = ad_logsumexp(x, 1);
        numeric_read(lse, got, 5);
        for (int i = 0; i < 5; i++) ck_assert_msg(numeric_close(got[i], want_lse[i], 1e-14, 1), "logsumexp %d: %g", i, got[i]);
        numeric_read(ad_max_over(x, 1), got, 5);
        for (int i = 0; i < 5; i++) ck_assert_msg(numeric_close(got[i], want_max[i], 0, 1), "max %d: %g", i, got[i]);
        ad_gradient(ad_max_over(ad_slice(x, 0, 1, 1)), &x, 1, &d);
        numeric_read(d, got, 15); /* a tie: shared */
        for (int i = 0; i < 15; i++) ck_assert_msg(got[i] == (i == 3 || i == 4 ? 0.5 : 0), "share %d: %g", i, got[i]);
        ad_gradient(ad_sum(ad_logsumexp(ad_slice(x, 0, 1, 2), -1)), &x, 1, &d);
        numeric_read(d, got, 15); /* softmax, 0 at -inf */
        ck_assert(numeric_close(got[3], 0.5, 1e-13, 1) && got[5] == 0);
        ck_assert(numeric_close(got[7], exp(want_max[2] - 1 - want_lse[2]), 1e-13, 1));
    }
    ad_scope {
        ad_tensor *none = ad_zeros(2, 0, 3);
        ck_assert(ad_item(ad_sum(none)) == 0);
        numeric_read(ad_sum(none, 1), got, 6);
        for (int i = 0; i < 6; i++) ck_assert(got[i] == 0);
        ck_assert(isnan(ad_item(ad_mean(none))));
        ck_assert_int_eq(ad_size(ad_max_over(none, 2)), 0);
        ck_assert(ad_ok());
        ck_assert(ad_is_nil(ad_max_over(none, 1)));
        ck_assert_msg(fails_with(AD_ERROR_SHAPE, "no elements: shape (2, 0, 3)"), "%s", ad_error());
    }
    ad_scope {
        ad_sum(ad_ones(2, 3), 2);
        ck_assert_msg(fails_with(AD_ERROR_SHAPE, "shape (2, 3) has no axis 2"), "%s", ad_error());
    }
}
END_TEST

/* sum_to is the transpose of expand. */
static ad_tensor *sum_to(ad_tensor *const *x, const void *what) { return ad_sum_to(x[0], *(const ad_shape *)what); }

START_TEST(test_sum_to)
{
    const ad_shape full = S(2, 3, 4), shapes[] = { S(2, 3, 4), S(3, 4), S(4), AD_SCALAR, S(1, 3, 1), S(2, 1, 4), S(1, 1), S(3, 1) };
    double *data = numeric_draws(&state, 24, -1, 1), want[24];
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        memset(want, 0, sizeof want);
        for (int64_t k = 0, place[3]; k < 24; k++) {
            numeric_coordinates(&full, k, place);
            want[numeric_at(&shapes[i], place, 3)] += data[k];
        }
        numeric_check_value("sum_to", sum_to, &shapes[i], &full, &data, 1, shapes[i], want, 1e-13);
        numeric_check_gradient("sum_to", sum_to, &shapes[i], &full, &data, 1);
    }
    ad_scope {
        ad_sum_to(ad_ones(2, 3), S(2));
        ck_assert_msg(fails_with(AD_ERROR_SHAPE, "(2,) does not broadcast to (2, 3)"), "%s", ad_error());
    }
    free(data);
}
END_TEST

/* ---- cumulative sums, totals ------------------------------------------------------------------------------------------ */

typedef struct along {
    int axis;
    bool reverse;
} along;
static ad_tensor *cumulate(ad_tensor *const *x, const void *what)
{
    const along *a = what;
    return ad_cumsum(x[0], a->axis, a->reverse);
}

START_TEST(test_cumsum)
{
    const ad_shape shapes[] = { S(2, 3, 4), S(19, 1, 3), S(2, 5, 17) }; /* fewer lines than are added up at once, and more */
    for (size_t c = 0; c < sizeof shapes / sizeof *shapes; c++) {
        const ad_shape s = shapes[c];
        double *data = numeric_draws(&state, numeric_size(&s), -1, 1), want[170];
        for (int axis = 0; axis < 3; axis++) {
            for (int reverse = 0; reverse < 2; reverse++) {
                for (int64_t k = 0, place[3]; k < numeric_size(&s); k++) {
                    numeric_coordinates(&s, k, place);
                    want[k] = 0;
                    int64_t end = place[axis];
                    for (int64_t i = reverse ? end : 0; i <= (reverse ? s.dim[axis] - 1 : end); i++) {
                        place[axis] = i;
                        want[k] += data[numeric_at(&s, place, 3)];
                    }
                }
                along a = { reverse ? axis - 3 : axis, reverse };
                numeric_check_value("cumsum", cumulate, &a, &s, &data, 1, s, want, 1e-13);
                numeric_check_gradient("cumsum", cumulate, &a, &s, &data, 1);
            }
        }
        free(data);
    }
}
END_TEST

static ad_tensor *total(ad_tensor *const *x, const void *what) { return ad_weighted_total(x, what, 3); }

START_TEST(test_weighted_total)
{
    const ad_shape shapes[] = { S(3, 4), AD_SCALAR, S(2) };
    const double weight[] = { 0.5, -2, 3 };
    double *data[3], want = 0;
    for (int i = 0; i < 3; i++) {
        data[i] = numeric_draws(&state, 12, -1, 1);
        for (int k = 0; k < numeric_size(&shapes[i]); k++) want += weight[i] * data[i][k];
    }
    numeric_check_value("total", total, weight, shapes, data, 3, AD_SCALAR, &want, 1e-13);
    numeric_check_gradient("total", total, weight, shapes, data, 3);
    for (int i = 0; i < 3; i++) free(data[i]);

    /* the sum is in double even where the tape is in float */
    ad_context_free(context);
    context = numeric_context(AD_FLOAT, 1);
    float *ones = malloc(100000 * sizeof *ones);
    for (int i = 0; i < 100000; i++) ones[i] = 1.1f;
    ad_scope {
        ad_tensor *x = ad_from(ones, S(100000));
        double got = ad_item(ad_weighted_total(&x, (const double[]){ 1e-3 }, 1));
        ck_assert_msg(numeric_close(got, (double)1.1f * 100, 1e-13, 1), "%.17g", got);
        ad_tensor *nothing = ad_weighted_total(NULL, NULL, 0);
        ck_assert(ad_item(nothing) == 0);
    }
    free(ones);
}
END_TEST

Suite *suite_structured(void)
{
    Suite *s = suite_create("structured");
    TCase *t = tcase_create("products");
    tcase_add_checked_fixture(t, open_double, close_context);
    tcase_add_test(t, test_matmul);
    tcase_add_test(t, test_linear);
    tcase_add_test(t, test_product_errors);
    suite_add_tcase(s, t);
    t = tcase_create("reductions");
    tcase_add_checked_fixture(t, open_double, close_context);
    tcase_add_loop_test(t, test_reductions, AD_SUM, AD_LOGSUMEXP + 1);
    tcase_add_loop_test(t, test_large_reductions, 0, 2);
    tcase_add_test(t, test_reduction_edges);
    tcase_add_test(t, test_sum_to);
    tcase_add_test(t, test_cumsum);
    tcase_add_test(t, test_weighted_total);
    suite_add_tcase(s, t);
    return s;
}
