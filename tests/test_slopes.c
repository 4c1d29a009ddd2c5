/* Derivatives where formulas bend, break or fade: at masks, ties and zeros, and far out. One row is a function of one
 * number, a point, the order of the derivative and its value; every row runs in both precisions. */
#include "tests/fixture.h"

#include <float.h>

typedef ad_tensor *function(ad_tensor *x);

/* The derivative of f at x, of any order; tensors of one element. */
static double derivative(function *f, double x, int order)
{
    ad_tensor *t = ad_from(&x, AD_SHAPE(1));
    double value = NAN;
    ad_scope {
        ad_tensor *y = f(t);
        for (int i = 0; i < order; i++) ad_gradient(y, &t, 1, &y);
        value = ad_item(ad_sum(y));
        fine();
    }
    ad_free(t);
    return value;
}

typedef struct row {
    const char *name;
    function *f;
    double x;
    int order;
    double want;
} row;

static void check_rows(const row *rows, size_t n, double float_tolerance, double double_tolerance)
{
    for (int p = AD_FLOAT; p <= AD_DOUBLE; p++) {
        begin_as((ad_precision)p);
        for (size_t i = 0; i < n; i++) {
            const row *r = &rows[i];
            double x = p == AD_FLOAT ? (double)(float)r->x : r->x, got = derivative(r->f, x, r->order), want = r->want;
            if (p == AD_FLOAT && fabs(want) < FLT_MIN) continue; /* no normal number there */
            double most = (p == AD_FLOAT ? float_tolerance : double_tolerance) * fabs(want);
            ck_assert_msg(got == want || fabs(got - want) <= most, "%s: derivative %d at %g is %.17g, should be %.17g (%s)",
                          r->name, r->order, x, got, want, p == AD_FLOAT ? "float" : "double");
        }
        end();
    }
}
#define CHECK(rows, in_float, in_double) check_rows(rows, sizeof rows / sizeof *rows, in_float, in_double)

/* A row: the function is the expression in x. */
#define F(name, expression)                                                                                            \
    static ad_tensor *name(ad_tensor *x) { return expression; }

/* ---- what was not selected does not matter, whatever stands above ------------------------------------------------ */

F(sqrt_relu, ad_sqrt(ad_relu(x)))
F(sqrt_max, ad_sqrt(ad_max(x, 0)))
F(sqrt_max_other, ad_sqrt(ad_max(0, x)))
F(sqrt_clamp, ad_sqrt(ad_clamp(x, 0, 10)))
F(log_relu, ad_log(ad_relu(x)))
F(sqrt_min, ad_sqrt(ad_neg(ad_min(x, 0))))
F(inverse_relu, ad_reciprocal(ad_relu(x)))
F(rsqrt_relu, ad_rsqrt(ad_relu(x)))
F(root_max, ad_pow(ad_max(x, 0), 0.5))
F(log_clamp, ad_log(ad_sub(1, ad_clamp(x, 0, 1))))
F(clamp_exp, ad_clamp(ad_exp(x), 0, 1))
F(min_exp, ad_min(ad_exp(x), 1))
F(log_where, ad_where(ad_gt(x, 0), ad_log(x), 0))
F(root_where, ad_where(ad_gt(x, 0), ad_sqrt(x), 0))
F(nested_where, ad_where(ad_gt(x, 0), ad_mul(ad_log(x), ad_rsqrt(x)), ad_square(x)))
F(sqrt_abs_of_relu, ad_sqrt(ad_abs(ad_relu(x))))
F(logit_far, ad_sqrt(ad_add(ad_logit_clamped(x), 16)))
F(lower_bound, ad_sqrt(ad_clamp(1, x, 2)))
F(max_of_row, ad_sqrt(ad_max_over(ad_stack(((ad_tensor *[]){ ad_constant(0), ad_squeeze(ad_neg(ad_square(x)), 0) }), 2, 0))))

START_TEST(what_is_masked_is_0)
{
    static const row rows[] = {
        { "sqrt(relu)", sqrt_relu, -1, 1, 0 },         { "sqrt(relu)", sqrt_relu, -1, 2, 0 },
        { "sqrt(relu)", sqrt_relu, -1, 3, 0 },         { "sqrt(relu)", sqrt_relu, 4, 2, -1.0 / 32 },
        { "sqrt(max(x, 0))", sqrt_max, -1, 1, 0 },     { "sqrt(max(x, 0))", sqrt_max, -1, 2, 0 },
        { "sqrt(max(0, x))", sqrt_max_other, -1, 1, 0 }, { "sqrt(clamp)", sqrt_clamp, -1, 1, 0 },
        { "sqrt(clamp)", sqrt_clamp, -1, 2, 0 },       { "log(relu)", log_relu, -1, 1, 0 },
        { "log(relu)", log_relu, -1, 2, 0 },           { "sqrt(-min)", sqrt_min, 1, 1, 0 },
        { "sqrt(-min)", sqrt_min, 1, 2, 0 },           { "1 / relu", inverse_relu, -1, 1, 0 },
        { "1 / relu", inverse_relu, -1, 2, 0 },        { "rsqrt(relu)", rsqrt_relu, -1, 1, 0 },
        { "rsqrt(relu)", rsqrt_relu, -1, 2, 0 },       { "max^0.5", root_max, -1, 1, 0 },
        { "max^0.5", root_max, -1, 2, 0 },             { "log(1 - clamp)", log_clamp, 2, 1, 0 },
        { "log(1 - clamp)", log_clamp, 2, 2, 0 },      { "clamp(exp)", clamp_exp, 1000, 1, 0 },
        { "clamp(exp)", clamp_exp, 1000, 2, 0 },       { "min(exp, 1)", min_exp, 1000, 1, 0 },
        { "where(log)", log_where, -1, 1, 0 },         { "where(log)", log_where, -1, 2, 0 },
        { "where(log)", log_where, 0, 2, 0 },          { "where(log)", log_where, 0, 3, 0 },
        { "where(sqrt)", root_where, 0, 1, 0 },        { "where(sqrt)", root_where, 0, 2, 0 },
        { "nested where", nested_where, 0, 2, 2 },     { "nested where", nested_where, -1, 3, 0 },
        { "sqrt(|relu|)", sqrt_abs_of_relu, -1, 1, 0 }, { "sqrt(|relu|)", sqrt_abs_of_relu, -1, 2, 0 },
        { "logit beyond its clamp", logit_far, 1, 1, 0 }, { "logit beyond its clamp", logit_far, 1, 2, 0 },
        { "a clamp's bound", lower_bound, 0, 1, 0 },   { "a clamp's bound", lower_bound, 1.5, 1, 0.40824829046386301637 },
        { "a row's maximum", max_of_row, 2, 1, 0 },    { "a row's maximum", max_of_row, 2, 2, 0 },
    };
    CHECK(rows, 1e-6, 1e-14);
}
END_TEST

/* ---- powers and x log y at 0 ------------------------------------------------------------------------------------- */

F(power_0, ad_pow(x, 0))
F(power_1, ad_pow(x, 1))
F(power_2, ad_pow(x, 2))
F(power_3, ad_pow(x, 3))
F(power_real, ad_pow(x, 1.875))
F(power_below, ad_pow(x, -1))
F(zero_to_the, ad_pow(0, x))
F(minus_two_cubed, ad_mul(ad_pow(ad_mul(-2, x), 3), 1))
F(gauss, ad_exp(ad_neg(ad_pow(x, 2))))
F(root_product, ad_mul(x, ad_pow(x, 0.5)))
F(polynomial, ad_sum(ad_pow(ad_unsqueeze(x, -1), ad_arange(4)), -1))
F(x_to_the_x, ad_pow(x, x))
F(entropy, ad_xlogy(x, x))
F(xlogy_first, ad_xlogy(x, 0))
F(xlogy_second, ad_xlogy(0, x))
F(xlogy_inner, ad_xlogy(x, ad_square(x)))

START_TEST(powers_at_0)
{
    static const row rows[] = {
        { "x^0", power_0, 0, 0, 1 },        { "x^0", power_0, 0, 1, 0 },         { "x^0", power_0, 0, 2, 0 },
        { "x^0", power_0, -2, 1, 0 },       { "x^1", power_1, 0, 1, 1 },         { "x^1", power_1, 0, 2, 0 },
        { "x^1", power_1, 0, 3, 0 },        { "x^2", power_2, 0, 1, 0 },         { "x^2", power_2, 0, 2, 2 },
        { "x^2", power_2, 0, 3, 0 },        { "x^2", power_2, 0, 4, 0 },         { "x^2", power_2, -3, 1, -6 },
        { "x^2", power_2, -3, 2, 2 },       { "x^3", power_3, -2, 1, 12 },       { "x^3", power_3, 0, 3, 6 },
        { "x^3", power_3, 0, 4, 0 },        { "x^1.875", power_real, 0, 1, 0 },  { "x^-1", power_below, 0, 1, -INFINITY },
        { "0^x", zero_to_the, 1, 1, 0 },    { "0^x", zero_to_the, 2, 1, 0 },     { "0^x", zero_to_the, 0, 1, 0 },
        { "0^x", zero_to_the, 2, 2, 0 },    { "(-2x)^3", minus_two_cubed, 1, 1, -24 },
        { "exp(-x^2)", gauss, 0, 2, -2 },   { "exp(-x^2)", gauss, 0, 3, 0 },     { "exp(-x^2)", gauss, 0, 4, 12 },
        { "x sqrt(x)", root_product, 0, 1, 0 }, { "1 + x + x^2 + x^3", polynomial, 0, 1, 1 },
        { "1 + x + x^2 + x^3", polynomial, 0, 2, 2 }, { "1 + x + x^2 + x^3", polynomial, 0, 3, 6 },
        { "1 + x + x^2 + x^3", polynomial, -1, 1, 2 }, { "x^x", x_to_the_x, 2, 1, 4 * (M_LN2 + 1) },
        { "x^x", x_to_the_x, 2, 2, 4 * (M_LN2 + 1) * (M_LN2 + 1) + 2 },
        { "xlogy(x, 0)", xlogy_first, 0, 1, 0 }, { "xlogy(0, x)", xlogy_second, 0, 1, 0 },
        { "xlogy(0, x)", xlogy_second, 0, 2, 0 }, { "xlogy(0, x)", xlogy_second, 3, 1, 0 },
        { "xlogy(x, x^2)", xlogy_inner, 0, 1, 0 }, { "x log x", entropy, 2, 1, 1 + M_LN2 }, { "x log x", entropy, 2, 2, 0.5 },
        { "x log x", entropy, 0, 1, 0 },
    };
    CHECK(rows, 2e-6, 1e-14);
}
END_TEST

/* ---- far out ----------------------------------------------------------------------------------------------------- */

F(tanh_of, ad_tanh(x))
F(sigmoid_of, ad_sigmoid(x))
F(softplus_of, ad_softplus(x))
F(log_sigmoid_of, ad_log_sigmoid(x))
F(erf_of, ad_erf(x))
F(expm1_of, ad_expm1(x))
F(bernoulli_1, ad_bernoulli_log_density(1, x))
F(bernoulli_0, ad_bernoulli_log_density(0, x))

/* Slopes and curvatures of these over a grid, by exponentials of negative numbers alone. */
START_TEST(slopes_do_not_fade)
{
    for (double x = -80; x <= 80; x += 0.625) {
        double e = exp(-fabs(x)), e2 = exp(-2 * fabs(x)), d = 1 + e, d2 = 1 + e2, sign = x > 0 ? 1 : -1;
        double s = e / (d * d), th = sign * (1 - e2) / d2, half = sign * (1 - e) / d, up = x > 0 ? 1 / d : e / d;
        const row rows[] = {
            { "tanh", tanh_of, x, 1, 4 * e2 / (d2 * d2) },
            { "tanh", tanh_of, x, 2, -8 * th * e2 / (d2 * d2) },
            { "sigmoid", sigmoid_of, x, 1, s },
            { "sigmoid", sigmoid_of, x, 2, -s * half },
            { "softplus", softplus_of, x, 1, up },
            { "softplus", softplus_of, x, 2, s },
            { "softplus", softplus_of, x, 3, -s * half },
            { "log_sigmoid", log_sigmoid_of, x, 1, x > 0 ? e / d : 1 / d },
            { "log_sigmoid", log_sigmoid_of, x, 2, -s },
            { "expm1", expm1_of, x, 1, exp(x) },
            { "log Bernoulli(1)", bernoulli_1, x, 0, x > 0 ? -log1p(e) : x - log1p(e) },
            { "log Bernoulli(1)", bernoulli_1, x, 1, x > 0 ? e / d : 1 / d },
            { "log Bernoulli(1)", bernoulli_1, x, 2, -s },
            { "log Bernoulli(0)", bernoulli_0, x, 0, x > 0 ? -x - log1p(e) : -log1p(e) },
            { "log Bernoulli(0)", bernoulli_0, x, 1, x > 0 ? -1 / d : -e / d },
        };
        CHECK(rows, 1e-5, 2e-14);
        if (fabs(x) > 9) continue;
        const row erf_rows[] = {
            { "erf", erf_of, x, 1, M_2_SQRTPI * exp(-x * x) },
            { "erf", erf_of, x, 2, -2 * x * M_2_SQRTPI * exp(-x * x) },
        };
        CHECK(erf_rows, 1e-5, 1e-13);
    }
}
END_TEST

/* ---- logarithms of sums ------------------------------------------------------------------------------------------ */

/* Rows (-inf, -inf) and (0, x): what the impossible row holds does not reach x. */
static ad_tensor *two_rows(ad_tensor *x)
{
    ad_tensor *one = ad_squeeze(x, 0), *low = ad_constant(-INFINITY), *zero = ad_constant(0);
    ad_tensor *rows = ad_reshape(ad_stack(((ad_tensor *[]){ low, ad_add(low, one), zero, one }), 4, 0), AD_SHAPE(2, 2));
    ad_tensor *sums = ad_logsumexp(rows, -1);
    return ad_add(ad_slice(sums, 0, 1, 1), ad_where(ad_is_finite(sums), sums, 0));
}
F(all_impossible, ad_logsumexp(ad_add(x, -INFINITY)))
F(one_impossible, ad_logsumexp(ad_stack(((ad_tensor *[]){ ad_squeeze(x, 0), ad_constant(-INFINITY) }), 2, 0)))
F(infinite, ad_logsumexp(ad_stack(((ad_tensor *[]){ ad_squeeze(x, 0), ad_constant(INFINITY) }), 2, 0)))

START_TEST(logarithms_of_sums)
{
    double s = 1 / (1 + exp(-0.5));
    const row rows[] = {
        { "nothing but -inf", all_impossible, 1, 0, -INFINITY }, { "nothing but -inf", all_impossible, 1, 1, 0 },
        { "nothing but -inf", all_impossible, 1, 2, 0 },         { "one -inf", one_impossible, 3, 0, 3 },
        { "one -inf", one_impossible, 3, 1, 1 },                 { "one -inf", one_impossible, 3, 2, 0 },
        { "one +inf", infinite, 3, 0, INFINITY },                { "one +inf", infinite, 3, 1, 0 },
        { "beside an impossible row", two_rows, 0.5, 1, 3 * s }, { "beside an impossible row", two_rows, 0.5, 2, 3 * s * (1 - s) },
    };
    CHECK(rows, 2e-6, 1e-14);
}
END_TEST

/* ---- densities behind a mask ------------------------------------------------------------------------------------- */

/* Every continuous family of one real value, masked where x is below 1, at points that are wrong for it. */
#define FAMILIES(X)                                                                                                    \
    X(normal, dist_normal(0, 1)) X(log_normal, dist_log_normal(0, 1)) X(half_normal, dist_half_normal(1))              \
    X(uniform, dist_uniform(0, 1)) X(exponential, dist_exponential(1)) X(laplace, dist_laplace(0, 1))                  \
    X(cauchy, dist_cauchy(0, 1)) X(half_cauchy, dist_half_cauchy(1)) X(gumbel, dist_gumbel(0, 1))                      \
    X(logistic, dist_logistic(0, 1)) X(bernoulli, dist_bernoulli(x)) X(bernoulli_logits, dist_bernoulli_logits(x))     \
    X(geometric, dist_geometric(x)) X(normal_by_scale, dist_normal(0, x)) X(gumbel_by_scale, dist_gumbel(0, x))        \
    X(log_normal_by_scale, dist_log_normal(0, x)) X(cauchy_by_scale, dist_cauchy(0, x))
#define X(name, d) F(masked_##name, ad_where(ad_gt(x, 1), dist_log_prob(d, x), 0))
FAMILIES(X)
#undef X

START_TEST(masked_densities)
{
    static const struct {
        const char *name;
        function *f;
    } families[] = {
#define X(name, d) { #name, masked_##name },
        FAMILIES(X)
#undef X
    };
    static const double points[] = { 0, -1, -INFINITY, NAN, -1e30 };
    for (int p = AD_FLOAT; p <= AD_DOUBLE; p++) {
        begin_as((ad_precision)p);
        for (size_t i = 0; i < sizeof families / sizeof *families; i++)
            for (size_t k = 0; k < sizeof points / sizeof *points; k++)
                for (int order = 0; order <= 3; order++) {
                    double got = derivative(families[i].f, points[k], order);
                    ck_assert_msg(got == 0, "%s: derivative %d behind the mask, at %g, is %g", families[i].name, order,
                                  points[k], got);
                }
        end();
    }
}
END_TEST

Suite *suite_slopes(void)
{
    Suite *s = suite_create("slopes");
    TCase *t = tcase_create("slopes");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, what_is_masked_is_0);
    tcase_add_test(t, powers_at_0);
    tcase_add_test(t, slopes_do_not_fade);
    tcase_add_test(t, logarithms_of_sums);
    tcase_add_test(t, masked_densities);
    suite_add_tcase(s, t);
    return s;
}
