/* What every distribution shares (broadcasting, expand, to_event, mask), the particulars of Bernoulli, Delta and
 * Categorical, closed-form divergences, and constraints with their maps. */
#include "tests/fixture.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "distributions/class.h"

#define NEAR(a, b, tolerance) ck_assert_double_eq_tol(a, b, tolerance)
#define SHAPE_IS(got, ...) shape_is(got, AD_SHAPE(__VA_ARGS__), __LINE__)
static void shape_is(ad_shape got, ad_shape want, int line)
{
    ck_assert_msg(got.rank == want.rank && !memcmp(got.dim, want.dim, (size_t)got.rank * sizeof *got.dim),
                  "line %d: shape of rank %d (%lld ...)", line, got.rank, (long long)got.dim[0]);
}
static double normal_at(double x, double loc, double scale)
{
    return -0.5 * (x - loc) * (x - loc) / (scale * scale) - log(scale) - 0.91893853320467274178;
}

/* ---- shapes ------------------------------------------------------------------------------------------------------ */

START_TEST(parameters_broadcast)
{
    ad_scope {
        distribution *d = dist_normal(ad_zeros(4, 1), ad_ones(3));
        SHAPE_IS(dist_batch_shape(d), 4, 3);
        ck_assert_int_eq(dist_batch_shape(dist_normal(0, 1)).rank, 0);
        SHAPE_IS(ad_shape_of(dist_sample(d, 0)), 4, 3);
        SHAPE_IS(ad_shape_of(dist_mean(d)), 4, 3);
        SHAPE_IS(ad_shape_of(dist_log_prob(d, ad_zeros(5, 1, 1))), 5, 4, 3);
        SHAPE_IS(ad_shape_of(dist_log_prob(dist_expand(dist_normal(0, 1), AD_SHAPE(6)), ad_number(0))), 6);
        SHAPE_IS(dist_batch_shape(dist_categorical(ad_ones(2, 1, 7))), 2, 1);
        ck_assert_str_eq(dist_name(d), "normal");
        ck_assert_str_eq(dist_parameter_name(d, 1), "scale");
        ck_assert_ptr_null(dist_parameter_name(d, 2));
        fine();
    }
    ad_scope {
        ck_assert(dist_is_nil(dist_normal(ad_zeros(4), ad_ones(3))));
        error_says("normal: scale has batch shape (3,), which does not broadcast with (4,)");
        error_says("test_dist.c");
    }
    ad_scope {
        dist_categorical(0.5);
        error_says("categorical: probs has shape (), but one member needs 1 dimension");
    }
    ad_scope {
        dist_log_prob(dist_to_event(dist_normal(ad_zeros(4, 3), 1), 1), ad_zeros(4, 1));
        error_says("normal has batch shape (4,) and event shape (3,); a value of shape (4, 1) does not fit");
    }
}
END_TEST

START_TEST(expand_draws_independently)
{
    enum { N = 1000 };
    double x[N], sum = 0;
    ad_scope {
        distribution *d = dist_expand(dist_normal(ad_zeros(1), 1), AD_SHAPE(N));
        ck_assert(ad_read(dist_sample(d, 0), x, N));
        for (int i = 0; i < N; i++) sum += x[i] * x[i];
        for (int i = 1; i < N; i++) ck_assert_double_ne(x[i], x[i - 1]);
        NEAR(sum / N, 1, 0.2);
        ck_assert_ptr_eq(dist_expand(d, AD_SHAPE(N)), d);
        distribution *e =
            dist_expand(dist_to_event(dist_set_rsample(dist_normal(ad_zeros(3), 1), false), 1), AD_SHAPE(2, 5));
        SHAPE_IS(dist_batch_shape(e), 2, 5);
        SHAPE_IS(dist_event_shape(e), 3);
        SHAPE_IS(ad_shape_of(dist_sample(e, 0)), 2, 5, 3);
        ck_assert(!dist_has_rsample(e));
        ck_assert(dist_has_rsample(dist_set_rsample(e, true)));
        fine();
        dist_expand(d, AD_SHAPE(3));
        error_says("normal: batch shape (1000,) cannot be expanded to (3,)");
    }
}
END_TEST

START_TEST(to_event_sums)
{
    double x[6] = { 0.1, -0.4, 2, 0.7, 1.1, -3 }, lp[2], want[2] = { 0, 0 };
    for (int i = 0; i < 6; i++) want[i / 3] += normal_at(x[i], 0.5, 2);
    ad_scope {
        ad_tensor *value = ad_from(x, AD_SHAPE(2, 3));
        distribution *d = dist_expand(dist_normal(0.5, 2), AD_SHAPE(2, 3)), *e = dist_to_event(d, 1);
        ck_assert_int_eq(dist_event_dim(e), 1);
        ck_assert(ad_read(dist_log_prob(e, value), lp, 2));
        NEAR(lp[0], want[0], 1e-14);
        NEAR(lp[1], want[1], 1e-14);
        NEAR(ad_item(dist_log_prob(dist_to_event(e, 1), value)), want[0] + want[1], 1e-14);
        NEAR(ad_item(dist_log_prob(dist_to_event(d, AD_ALL_DIMS), value)), want[0] + want[1], 1e-14);
        NEAR(ad_item(dist_entropy(dist_to_event(d, 2))), 6 * (log(2) + 1.41893853320467274178), 1e-13);
        ck_assert_ptr_eq(dist_to_event(d, 0), d);
        ck_assert_int_eq(dist_event_dim(dist_to_event(dist_to_event(e, 1), -2)), 0);
        fine();
        ad_free(value);
        dist_to_event(d, 3);
        error_says("normal: to_event(3) asks for more dimensions than batch shape (2, 3) has");
    }
    ad_scope {
        dist_to_event(dist_normal(ad_zeros(2), 1), -1);
        error_says("gives back more dimensions");
    }
}
END_TEST

START_TEST(masked_lanes_do_not_count)
{
    double x[4] = { 0.3, NAN, INFINITY, -1 }, on[4] = { 1, 0, 0, 1 }, lp[4], grad[4], slope;
    ad_scope {
        ad_tensor *value = ad_from(x, AD_SHAPE(4)), *mask = ad_from(on, AD_SHAPE(4)), *loc = ad_number(0.5), *g[2];
        distribution *d = dist_mask(dist_normal(loc, ad_ones(4)), mask);
        ad_tensor *masked = dist_log_prob(d, value);
        ad_gradient(masked, (ad_tensor *[]){ loc, value }, 2, g);
        ck_assert(ad_read(masked, lp, 4) && ad_read(g[0], &slope, 1) && ad_read(g[1], grad, 4));
        NEAR(lp[0], normal_at(0.3, 0.5, 1), 1e-15);
        NEAR(lp[3], normal_at(-1, 0.5, 1), 1e-15);
        ck_assert(lp[1] == 0 && lp[2] == 0 && grad[1] == 0 && grad[2] == 0);
        NEAR(slope, -0.2 - 1.5, 1e-14);
        NEAR(ad_item(dist_log_prob(dist_to_event(d, 1), value)), lp[0] + lp[3], 1e-15);

        /* over events, and two masks of different dimensions */
        distribution *rows = dist_to_event(dist_normal(ad_zeros(4, 2), 1), 1);
        ad_tensor *ends = dist_log_prob(dist_mask(rows, mask), ad_zeros(4, 2));
        NEAR(ad_item(ad_sum(ends)), 4 * normal_at(0, 0, 1), 1e-14);
        ad_tensor *left = ad_from(((double[]){ 1, 0 }), AD_SHAPE(2));
        distribution *twice = dist_mask(dist_to_event(dist_mask(dist_normal(ad_zeros(4, 2), 1), left), 1), mask);
        NEAR(ad_item(ad_sum(dist_log_prob(twice, ad_zeros(4, 2)))), 2 * normal_at(0, 0, 1), 1e-14);
        SHAPE_IS(dist_batch_shape(dist_mask(dist_normal(0, 1), mask)), 4);
        fine();
        dist_mask(dist_normal(ad_zeros(3), 1), mask);
        error_says("normal: a mask of shape (4,) does not broadcast with batch shape (3,)");
    }
}
END_TEST

START_TEST(handles_end_with_their_scope)
{
    distribution *d = NULL;
    ad_scope d = dist_normal(0, 1);
    ad_scope {
        ck_assert(ad_is_nil(dist_sample(d, 0)));
        error_says("the distribution is stale");
    }
    ad_scope {
        ck_assert(dist_is_nil(dist_to_event(dist_expand((distribution *)NULL, AD_SHAPE(2)), 1)));
        error_says("the distribution is nil");
        ck_assert_str_eq(dist_name(NULL), "?");
    }
    ad_error_clear();
    dist_normal(0, 1);
    error_says("no step or scope is open");
}
END_TEST

/* ---- particulars ------------------------------------------------------------------------------------------------- */

/* PyTorch 1.13: Bernoulli(p).log_prob(x) */
START_TEST(bernoulli_clamps_as_pytorch)
{
    for (int wide = 0; wide < 2; wide++) {
        end();
        begin_as(wide ? AD_DOUBLE : AD_FLOAT);
        double eps = wide ? DBL_EPSILON : FLT_EPSILON, floor_of = log(eps) - log1p(-eps);
        double p[5] = { 0, 1, 0, 1, 0.25 }, x[5] = { 1, 0, 0.5, 1, 0.5 }, lp[5], grad[5];
        double want[5] = { floor_of, floor_of, 0.5 * floor_of, log1p(-eps), 0.5 * log(0.25) + 0.5 * log(0.75) };
        ad_scope {
            ad_tensor *probs = ad_from(p, AD_SHAPE(5)), *value = ad_from(x, AD_SHAPE(5)), *g;
            ad_tensor *density = dist_log_prob(dist_bernoulli(probs), value);
            ad_gradient(density, &probs, 1, &g);
            ck_assert(ad_read(density, lp, 5) && ad_read(g, grad, 5));
            for (int i = 0; i < 5; i++) NEAR(lp[i], want[i], wide ? 1e-13 : 4e-6);
            for (int i = 0; i < 4; i++) ck_assert_double_eq(grad[i], 0);
            NEAR(grad[4], 0.5 / 0.25 - 0.5 / 0.75, wide ? 1e-14 : 1e-6);
            fine();
            ad_free(probs);
            ad_free(value);
        }
    }
}
END_TEST

START_TEST(delta_is_a_point)
{
    double v[2] = { 0.1, 0.7 }, other[2] = { 0.1, 0.8 }, out[2];
    ad_scope {
        ad_tensor *value = ad_from(v, AD_SHAPE(2)), *x = ad_from(other, AD_SHAPE(2)), *g;
        distribution *d = dist_delta(value);
        ck_assert(ad_read(dist_sample(d, 0), out, 2));
        ck_assert_mem_eq(out, v, sizeof v);
        ck_assert(ad_read(dist_log_prob(d, x), out, 2));
        ck_assert(out[0] == 0 && out[1] == -INFINITY);
        ck_assert_double_eq(ad_item(dist_log_prob(dist_to_event(d, 1), value)), 0);
        distribution *e = dist_delta_density(value, ad_number(-2.5), 1);
        ck_assert_int_eq(dist_event_dim(e), 1);
        ck_assert_int_eq(dist_batch_shape(e).rank, 0);
        ck_assert_double_eq(ad_item(dist_log_prob(e, value)), -2.5);
        ck_assert(ad_item(dist_log_prob(e, x)) == -INFINITY);
        ad_gradient(dist_sample(e, 0), &value, 1, &g);
        ck_assert(ad_read(g, out, 2));
        ck_assert(out[0] == 1 && out[1] == 1);
        ck_assert_double_eq(ad_item(ad_sum(dist_variance(d))), 0);
        fine();
    }
}
END_TEST

START_TEST(categorical_never_draws_the_impossible)
{
    enum { N = 20000 };
    double x[N], p[5] = { 0, 2, 0, 1, 0 };
    ad_scope {
        distribution *d = dist_expand(dist_categorical(ad_from(p, AD_SHAPE(5))), AD_SHAPE(N));
        ck_assert(ad_read(dist_sample(d, 0), x, N));
        for (int i = 0; i < N; i++) ck_assert_msg(x[i] == 1 || x[i] == 3, "%g", x[i]);
        NEAR(ad_item(dist_log_prob(dist_categorical(ad_from(p, AD_SHAPE(5))), ad_number(3))), log(1.0 / 3), 1e-15);
        fine();
    }
}
END_TEST

/* ---- divergences ------------------------------------------------------------------------------------------------- */

/* E_p[log p - log q] over a grid (or the few values of a discrete one). */
static double kl_by_sum(distribution *p, distribution *q, double low, double high, int n, double weight)
{
    static double x[60001], a[60001], b[60001];
    double sum = 0;
    for (int i = 0; i < n; i++) x[i] = low + (high - low) * i / (n - 1);
    ad_tensor *t = ad_from(x, AD_SHAPE(n));
    ck_assert(ad_read(dist_log_prob(p, t), a, n) && ad_read(dist_log_prob(q, t), b, n));
    for (int i = 0; i < n; i++)
        if (exp(a[i]) > 0) sum += weight * exp(a[i]) * (a[i] - b[i]);
    ad_free(t);
    return sum;
}

START_TEST(divergences_in_closed_form)
{
    ad_scope {
        distribution *pairs[][2] = {
            { dist_normal(0.3, 0.7), dist_normal(-0.5, 1.9) },
            { dist_laplace(0.3, 0.7), dist_laplace(-0.5, 1.9) },
            { dist_exponential(0.8), dist_exponential(2.1) },
        };
        for (int i = 0; i < 3; i++) {
            double low = i == 2 ? 0 : -30, h = (30 - low) / 60000;
            NEAR(ad_item(dist_kl(pairs[i][0], pairs[i][1])), kl_by_sum(pairs[i][0], pairs[i][1], low, 30, 60001, h),
                 1e-3);
            NEAR(ad_item(dist_kl(pairs[i][0], pairs[i][0])), 0, 1e-15);
        }
        NEAR(ad_item(dist_kl(pairs[0][0], pairs[0][1])), log(1.9 / 0.7) + (0.49 + 0.64) / (2 * 3.61) - 0.5, 1e-15);
        distribution *discrete[] = { dist_bernoulli(0.3), dist_bernoulli_logits(1.7) };
        for (int i = 0; i < 4; i++)
            NEAR(ad_item(dist_kl(discrete[i / 2], discrete[i % 2])),
                 kl_by_sum(discrete[i / 2], discrete[i % 2], 0, 1, 2, 1), 1e-14);
        distribution *three[] = { dist_categorical(ad_from(((double[]){ 1, 2, 5 }), AD_SHAPE(3))),
                                  dist_categorical_logits(ad_from(((double[]){ 0.3, -1, 0.1 }), AD_SHAPE(3))) };
        for (int i = 0; i < 4; i++)
            NEAR(ad_item(dist_kl(three[i / 2], three[i % 2])), kl_by_sum(three[i / 2], three[i % 2], 0, 2, 3, 1),
                 1e-14);
        fine();
    }
    ad_scope {
        distribution *p = dist_normal(ad_zeros(5, 3), 0.5), *q = dist_normal(0, ad_ones(3));
        double one = log(2) + 0.125 - 0.5;
        SHAPE_IS(ad_shape_of(dist_kl(p, q)), 5, 3);
        SHAPE_IS(ad_shape_of(dist_kl(dist_to_event(p, 1), dist_to_event(q, 1))), 5);
        NEAR(ad_item(ad_sum(dist_kl(dist_to_event(p, 1), dist_to_event(q, 1)))), 15 * one, 1e-13);
        NEAR(ad_item(dist_kl(dist_delta(ad_number(0.4)), dist_normal(0, 1))), -normal_at(0.4, 0, 1), 1e-15);
        ck_assert(dist_has_kl(p, q) && !dist_has_kl(p, dist_to_event(q, 1)) && !dist_has_kl(p, dist_cauchy(0, 1)));
        fine();
        dist_kl(p, dist_cauchy(0, 1));
        error_says("no closed form of KL(normal || cauchy)");
    }
}
END_TEST

/* ---- constraints ------------------------------------------------------------------------------------------------- */

static const dist_constraint continuous[] = {
    { .kind = DIST_REAL },          { .kind = DIST_POSITIVE },
    { .kind = DIST_NONNEGATIVE },   { .kind = DIST_SOFTPLUS_POSITIVE },
    { .kind = DIST_UNIT_INTERVAL }, { .kind = DIST_INTERVAL, .lower = -2, .upper = 5 },
    { .kind = DIST_GREATER_THAN, .lower = 3 }, { .kind = DIST_LESS_THAN, .upper = -1 },
    { .kind = DIST_SIMPLEX },
};
enum { KINDS = sizeof continuous / sizeof *continuous, N = 5 };
static const double somewhere[N] = { -2.3, -0.4, 0, 0.9, 1.7 };

START_TEST(maps_and_inverses)
{
    const dist_constraint *c = &continuous[_i];
    for (int map = 0; map < 2; map++)
        ad_scope {
            double back[N], x[N + 1], numbers[N + 1], ok[N];
            ad_shape free_shape;
            int64_t bad;
            ad_tensor *u = ad_from(somewhere, AD_SHAPE(N)), *y = dist_constrain(c, (dist_map)map, u);
            int n = (int)ad_dim(y, 0), checks = c->kind == DIST_SIMPLEX ? 1 : n;
            ck_assert_int_eq(n, N + (c->kind == DIST_SIMPLEX && map == DIST_BIJECT_TO));
            ck_assert(dist_unconstrained_shape(c, (dist_map)map, AD_SHAPE(n), &free_shape) && free_shape.dim[0] == N);
            ck_assert(ad_read(dist_constraint_check(c, y), ok, checks));
            for (int i = 0; i < checks; i++) ck_assert_double_eq(ok[i], 1);
            ck_assert(ad_read(y, x, n) && ad_read(dist_unconstrain(c, (dist_map)map, y), back, N));
            double shift = 0; /* softmax forgets a constant */
            if (c->kind == DIST_SIMPLEX && map == DIST_TRANSFORM_TO) shift = somewhere[0] - back[0];
            for (int i = 0; i < N; i++) NEAR(back[i] + shift, somewhere[i], 1e-13);
            if (map == DIST_TRANSFORM_TO) {
                ck_assert(dist_unconstrain_numbers(c, x, numbers, n, n, &bad));
                for (int i = 0; i < N; i++) NEAR(numbers[i], back[i], 1e-13);
            }
            fine();
            ad_free(u);
        }
}
END_TEST

/* |det| by elimination of the Jacobian of central differences. */
static double log_det_by_differences(const dist_constraint *c)
{
    double j[N][N], det = 1, h = 1e-6;
    for (int col = 0; col < N; col++) {
        double u[2][N], x[2][N + 1];
        for (int side = 0; side < 2; side++) {
            memcpy(u[side], somewhere, sizeof somewhere);
            u[side][col] += side ? h : -h;
            ad_tensor *t = ad_from(u[side], AD_SHAPE(N)), *y = dist_constrain(c, DIST_BIJECT_TO, t);
            ck_assert(ad_read(y, x[side], ad_dim(y, 0)));
            ad_free(t);
        }
        for (int row = 0; row < N; row++) j[row][col] = (x[1][row] - x[0][row]) / (2 * h);
    }
    for (int i = 0; i < N; i++) {
        det *= j[i][i];
        for (int r = i + 1; r < N; r++)
            for (int k = N - 1; k >= i; k--) j[r][k] -= j[r][i] / j[i][i] * j[i][k];
    }
    return log(fabs(det));
}
START_TEST(log_determinants)
{
    ad_scope {
        ad_tensor *u = ad_from(somewhere, AD_SHAPE(N));
        NEAR(ad_item(ad_sum(dist_log_det(&continuous[_i], u))), log_det_by_differences(&continuous[_i]), 1e-7);
        fine();
        ad_free(u);
    }
}
END_TEST

START_TEST(constraints_refuse)
{
    static const struct {
        dist_constraint c;
        double in, out;
        const char *text;
    } rows[] = {
        { { .kind = DIST_REAL }, -7, NAN, "a real number" },
        { { .kind = DIST_POSITIVE }, 1e-300, 0, "positive" },
        { { .kind = DIST_NONNEGATIVE }, 0, -1, "at least 0" },
        { { .kind = DIST_UNIT_INTERVAL }, 1, 1.5, "in [0, 1]" },
        { { .kind = DIST_INTERVAL, .lower = -2, .upper = 5 }, 5, 5.5, "in [-2, 5]" },
        { { .kind = DIST_GREATER_THAN, .lower = 3 }, 4, 3, "greater than 3" },
        { { .kind = DIST_LESS_THAN, .upper = -1 }, -2, 0, "less than -1" },
        { { .kind = DIST_BOOLEAN }, 1, 0.5, "0 or 1" },
        { { .kind = DIST_NONNEGATIVE_INTEGER }, 7, 0.5, "0, 1, 2, ..." },
        { { .kind = DIST_INTEGER_INTERVAL, .lower = 0, .upper = 3 }, 3, 4, "a whole number in [0, 3]" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        ad_scope {
            char text[64];
            const dist_constraint *c = &rows[i].c;
            ck_assert_str_eq(dist_constraint_describe(c, text, sizeof text), rows[i].text);
            double bad[] = { rows[i].out, NAN };
            ck_assert_double_eq(ad_item(dist_constraint_check(c, ad_number(rows[i].in))), 1);
            ck_assert(dist_constraint_holds(c, rows[i].in));
            for (int k = 0; k < 2; k++) {
                ck_assert_double_eq(ad_item(dist_constraint_check(c, ad_number(bad[k]))), 0);
                ck_assert(!dist_constraint_holds(c, bad[k]));
            }
            fine();
            if (!dist_constraint_discrete(c->kind)) continue;
            dist_constrain(c, DIST_TRANSFORM_TO, ad_number(0));
            error_says("has no map from unconstrained values");
        }
    ad_scope {
        dist_constraint simplex = dist_simplex();
        double u[3], good[3] = { 0.2, 0.3, 0.5 }, sum[3] = { 0.2, 0.3, 0.6 }, sign[3] = { -0.1, 0.6, 0.5 };
        int64_t bad;
        ck_assert_double_eq(ad_item(dist_constraint_check(&simplex, ad_from(good, AD_SHAPE(3)))), 1);
        ck_assert_double_eq(ad_item(dist_constraint_check(&simplex, ad_from(sum, AD_SHAPE(3)))), 0);
        ck_assert_double_eq(ad_item(dist_constraint_check(&simplex, ad_from(sign, AD_SHAPE(3)))), 0);
        ck_assert(dist_unconstrain_numbers(&simplex, good, u, 3, 3, &bad));
        ck_assert(!dist_unconstrain_numbers(&simplex, sum, u, 3, 3, &bad) && bad == 0);
        dist_constraint unit = dist_unit_interval(); /* 1 is in it, but nowhere on the line */
        ck_assert(!dist_unconstrain_numbers(&unit, ((double[]){ 0.5, 1, 0.1 }), u, 3, 1, &bad) && bad == 1);
        ck_assert(ad_read(dist_constrain(&simplex, DIST_BIJECT_TO, ad_zeros(2)), u, 3));
        for (int i = 0; i < 3; i++) NEAR(u[i], 1.0 / 3, 1e-15); /* sticks are broken evenly at 0 */
        fine();
        dist_interval(3, 2);
        error_says("dist_interval: 3 and 2 bound no interval");
    }
}
END_TEST

Suite *suite_dist(void)
{
    Suite *suite = suite_create("dist");
    TCase *t = tcase_create("distributions");
    tcase_add_checked_fixture(t, begin, end);
    tcase_add_test(t, parameters_broadcast);
    tcase_add_test(t, expand_draws_independently);
    tcase_add_test(t, to_event_sums);
    tcase_add_test(t, masked_lanes_do_not_count);
    tcase_add_test(t, handles_end_with_their_scope);
    tcase_add_test(t, bernoulli_clamps_as_pytorch);
    tcase_add_test(t, delta_is_a_point);
    tcase_add_test(t, categorical_never_draws_the_impossible);
    tcase_add_test(t, divergences_in_closed_form);
    tcase_add_loop_test(t, maps_and_inverses, 0, KINDS);
    tcase_add_loop_test(t, log_determinants, 0, KINDS);
    tcase_add_test(t, constraints_refuse);
    suite_add_tcase(suite, t);
    return suite;
}
