/* Clients of plans beside SVI: held densities with gradients and second derivatives, predictions; values read in
 * models. */
#include "tests/fixture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- densities --------------------------------------------------------------------------------------------------- */

static int runs;
static void scale_model(ad_tensor *x)
{
    runs++;
    ad_tensor *z = ppl_sample("z", dist_to_event(dist_normal(ad_zeros(2), 2.0), 1));
    ad_tensor *s = ppl_sample("s", dist_exponential(1));
    ad_tensor *mean = ad_sum(z);
    ppl_plate ("data", ad_dim(x, 0))
        ppl_sample("x", dist_normal(mean, s), .obs = x);
}

static double by_hand(const double *u, const double *x, int n)
{
    double s = exp(u[2]), value = -0.5 * (u[0] * u[0] + u[1] * u[1]) / 4 - 2 * log(2) - log(2 * M_PI) - s + u[2];
    for (int i = 0; i < n; i++) {
        double e = (x[i] - u[0] - u[1]) / s;
        value += -0.5 * e * e - u[2] - 0.5 * log(2 * M_PI);
    }
    return value;
}

START_TEST(density_of_a_flat_vector)
{
    double data[] = { 0.5, -1, 2, 1.5 }, u[] = { 0.3, -0.7, 0.4 }, g[3], h[9], s;
    ad_tensor *x = ad_from(data, AD_SHAPE(4));
    ppl_density *d = ppl_density_new(scale_model, PPL_ARGS(ad_tensor *), x);
    fine();
    int64_t start, size;
    ck_assert_int_eq(ppl_density_size(d), 3);
    ck_assert(ppl_density_part(d, "s", &start, &size) && start == 2 && size == 1 &&
              !ppl_density_part(d, "x", &start, &size));
    near(ppl_density_value(d, u, NULL), by_hand(u, data, 4), 1e-12);
    for (int round = 0; round < 2; round++) {
        near(ppl_density_value(d, u, g), by_hand(u, data, 4), 1e-12);
        for (int i = 0; i < 3; i++) {
            double e = 1e-5, up[3], down[3];
            memcpy(up, u, sizeof u), memcpy(down, u, sizeof u);
            up[i] += e, down[i] -= e;
            near(g[i], (by_hand(up, data, 4) - by_hand(down, data, 4)) / (2 * e), 1e-7);
        }
        ck_assert(ppl_density_hessian(d, u, h));
        for (int i = 0; i < 3; i++) {
            double e = 1e-5, up[3], down[3], gu[3], gd[3];
            memcpy(up, u, sizeof u), memcpy(down, u, sizeof u);
            up[i] += e, down[i] -= e;
            ppl_density_value(d, up, gu), ppl_density_value(d, down, gd);
            for (int k = 0; k < 3; k++)
                near(h[3 * i + k], (gu[k] - gd[k]) / (2 * e), 1e-6);
        }
        ck_assert(ppl_density_constrained(d, u, "s", &s, 1));
        near(s, exp(u[2]), 1e-14);
        u[0] = -2, u[2] = -1, data[1] = 3;
        ad_write(x, data, 4); /* contents may change */
    }
    ck_assert_int_eq(runs, 1);
    uint64_t before = ad_count().allocations;
    for (int i = 0; i < 50; i++)
        ppl_density_value(d, u, g);
    ck_assert_uint_eq(ad_count().allocations, before);
    ppl_density_free(d);
    ad_free(x);
}
END_TEST

static void simplex_model(void)
{
    ad_tensor *w = ppl_param("w", AD_SCALAR, .init = ppl_constant(2));
    ppl_plate ("p", 3)
        ppl_sample("u", dist_uniform(1, ad_add(w, 1)));
}
START_TEST(densities_of_bounded_sites_and_parameters)
{
    double u[] = { 0, 1, -3 }, g[3], x[3], w = 4, want = 0;
    ppl_density *d = ppl_density_new(simplex_model, PPL_ARGS());
    fine();
    for (int round = 0; round < 2; round++) { /* uniform: only the Jacobian varies */
        want = 0;
        for (int i = 0; i < 3; i++)
            want += log(1 / (1 + exp(-u[i]))) + log(1 / (1 + exp(u[i])));
        near(ppl_density_value(d, u, g), want, 1e-12);
        ck_assert(ppl_density_constrained(d, u, "u", x, 3));
        near(x[1], 1 + (round ? 4 : 2) / (1 + exp(-1)), 1e-12);
        near(g[2], 1 - 2 / (1 + exp(3)), 1e-12);
        ck_assert(ppl_param_set("w", &w, 1));
    }
    ppl_density_free(d);
}
END_TEST

static void coin(void)
{
    ppl_sample("c", dist_bernoulli(0.5));
}
START_TEST(discrete_sites_have_no_density)
{
    ck_assert_ptr_null(ppl_density_new(coin, PPL_ARGS()));
    error_says("site \"c\" (bernoulli) is discrete");
}
END_TEST

/* ---- predictions ------------------------------------------------------------------------------------------------- */

static void shift_model(ad_tensor *x)
{
    ad_tensor *z = ppl_sample("z", dist_normal(10, 1));
    ppl_plate ("data", 2)
        ppl_sample("x", dist_normal(ad_mul(2, z), 1), .obs = x);
    ppl_deterministic("twice", ad_mul(2, z));
}
static void shift_guide(ad_tensor *x)
{
    (void)x;
    ppl_sample("z", dist_normal(ppl_param("loc", AD_SCALAR, .init = ppl_constant(3)), 0.1));
}
enum { DRAWS = 2000 };
static double moments(const double *v, int n, double *sd)
{
    double sum = 0, squares = 0;
    for (int i = 0; i < n; i++)
        sum += v[i] / n, squares += v[i] * v[i] / n;
    *sd = sqrt(squares - sum * sum);
    return sum;
}

START_TEST(predictions_from_prior_and_guide)
{
    static double z[DRAWS], x[2 * DRAWS], twice[DRAWS];
    for (int round = 0; round < 4; round++) {
        bool k = round % 2, at_once = round / 2;
        ppl_predictive *p = k == 0 ? ppl_predictive_prior(shift_model, .args = PPL_ARGS(ad_tensor *), .samples = DRAWS,
                                                          .vectorize = at_once)
                                   : ppl_predictive_new(shift_model, shift_guide, .args = PPL_ARGS(ad_tensor *),
                                                        .samples = DRAWS, .vectorize = at_once);
        double sd, loc = k ? 3 : 10, scale = k ? 0.1 : 1;
        ck_assert_msg(ppl_predict(p, (ad_tensor *)NULL), "%s", ad_error());
        ck_assert(ppl_predictive_read(p, "z", z, DRAWS) && ppl_predictive_read(p, "x", x, 2 * DRAWS));
        ck_assert(ppl_predictive_read(p, "twice", twice, DRAWS));
        near(moments(z, DRAWS, &sd), loc, 0.08);
        near(sd, scale, 0.05);
        double together = 0;
        for (int i = 0; i < DRAWS; i++) /* the two data of a draw share its z */
            together += (x[2 * i] - 2 * loc) * (x[2 * i + 1] - 2 * loc) / DRAWS;
        near(together, 4 * scale * scale, 0.5);
        near(moments(x, 2 * DRAWS, &sd), 2 * loc, 0.16);
        near(sd, sqrt(4 * scale * scale + 1), 0.1);
        for (int i = 0; i < DRAWS; i++)
            near(twice[i], 2 * z[i], 0);
        ck_assert(x[0] != x[1] && z[0] != z[1]);
        ck_assert_int_eq(ppl_predictive_shape(p, "x").rank, 1);
        ck_assert(!ppl_predictive_read(p, "y", z, DRAWS));
        error_says("no predictions of a site \"y\"");
        ppl_predictive_free(p);
    }
}
END_TEST

START_TEST(predictions_of_chosen_sites)
{
    double data[] = { 1, 2 }, x[6], z[3];
    ad_tensor *t = ad_from(data, AD_SHAPE(2));
    for (int at_once = 0; at_once < 2; at_once++) {
        ppl_predictive *p = ppl_predictive_prior(shift_model, .args = PPL_ARGS(ad_tensor *), .samples = 3,
                                                 .sites = PPL_NAMES("x"), .vectorize = at_once);
        ck_assert(ppl_predict(p, t) && ppl_predictive_read(p, "x", x, 6)); /* named: kept although it is data */
        for (int i = 0; i < 6; i++)
            near(x[i], data[i % 2], 0);
        ck_assert(!ppl_predictive_read(p, "z", z, 3));
        ppl_predictive_free(p);
    }
    ad_free(t);
}
END_TEST

static void stubborn_model(void) /* looks at the whole of z: all draws together */
{
    ad_tensor *z = ppl_sample("z", dist_normal(0, 1));
    ppl_deterministic("copies", ad_concat((ad_tensor *[]){ ad_reshape(z, AD_SHAPE(-1)), ad_zeros(2) }, 2, 0));
}
START_TEST(models_that_cannot_be_drawn_at_once)
{
    ppl_predictive *p = ppl_predictive_prior(stubborn_model, .args = PPL_ARGS(), .samples = 5, .vectorize = true);
    ck_assert(!ppl_predict(p));
    error_says("site \"copies\" has shape (3,) in one draw and (7,) in 5 at once");
    error_says("leave .vectorize off");
    ppl_predictive_free(p);
}
END_TEST

/* ---- values read in a model -------------------------------------------------------------------------------------- */

static bool reading;
static double values[4];
static void read_model(void)
{
    ad_tensor *z = ppl_sample("z", dist_to_event(dist_normal(ad_zeros(4), 1.0), 1)), *y = ad_exp(ad_mul(z, 0.3));
    if (reading)
        ad_read(y, values, 4);
    ad_tensor *w = ad_mul(y, ad_sin(y));
    if (reading)
        near(ad_item(ad_sum(w)),
             values[0] * sin(values[0]) + values[1] * sin(values[1]) + values[2] * sin(values[2]) +
                 values[3] * sin(values[3]),
             1e-12);
    ppl_sample("x", dist_normal(ad_sum(ad_mul(w, y)), 1), .obs = ad_constant(1));
}
static void read_guide(void)
{
    ad_tensor *loc = ppl_param("loc", AD_SHAPE(4), .init = ppl_randn(1));
    if (reading)
        ad_read(loc, values, 4);
    ppl_sample("z", dist_to_event(dist_normal(loc, 0.5), 1));
}
START_TEST(reads_leave_gradients_alone)
{
    double loss[2][5], loc[2][4];
    for (int k = 0; k < 2; k++) {
        reading = k;
        ppl_seed(1);
        ppl_param_delete(NULL);
        svi *s = svi_new(read_model, read_guide, .args = PPL_ARGS(), .optim = optim_sgd(.lr = 0.01));
        for (int i = 0; i < 5; i++)
            loss[k][i] = svi_step(s);
        ck_assert_msg(isfinite(loss[k][4]), "%s", svi_error(s));
        ppl_param_value("loc", loc[k], 4);
        svi_free(s);
    }
    for (int i = 0; i < 5; i++)
        near(loss[0][i], loss[1][i], 1e-12 * fabs(loss[0][i]));
    for (int i = 0; i < 4; i++)
        near(loc[0][i], loc[1][i], 1e-12);
}
END_TEST

static ad_tensor *geometric(int depth)
{
    char name[16];
    snprintf(name, sizeof name, "coin%d", depth);
    ad_tensor *c = ppl_sample(name, dist_bernoulli(0.5), .infer = { .from_prior = true });
    if (!ppl_ok() || ad_item(c) == 0)
        return ad_constant(depth);
    return geometric(depth + 1);
}
static void recursive_model(void)
{
    ppl_sample("x", dist_normal(geometric(0), 1), .obs = ad_constant(2));
}
static void empty_guide(void)
{
}
START_TEST(recursion_on_values)
{
    svi *s = svi_new(recursive_model, empty_guide, .args = PPL_ARGS(), .optim = optim_adam());
    double least = INFINITY, most = 0;
    for (int i = 0; i < 40; i++) {
        double loss = svi_step(s);
        ck_assert_msg(isfinite(loss), "%s", svi_error(s));
        least = fmin(least, loss), most = fmax(most, loss);
    }
    ck_assert(most > least + 0.5);
    svi_free(s);
}
END_TEST

static void endless_model(void)
{
    ad_tensor *z = ad_constant(1);
    while (ppl_ok() && !(ad_item(z) < 0))
        z = ad_add(z, 1);
}
START_TEST(endless_loops_end)
{
    ad_context *small = ad_context_new(&(ad_options){ .precision = AD_DOUBLE, .threads = 1, .max_nodes = 200 });
    ad_context *before = ad_context_use(small);
    svi *s = svi_new(endless_model, empty_guide, .args = PPL_ARGS(), .optim = optim_adam());
    ck_assert(isnan(svi_step(s)));
    ck_assert_msg(strstr(svi_error(s), "more than 200 operations in one step"), "%s", svi_error(s));
    svi_free(s);
    ad_context_use(before);
    ad_context_free(small);
}
END_TEST

/* ---- what Pyro leaves untrained in silence ----------------------------------------------------------------------- */

static ad_tensor *state;
static bool stopped;
static void stray_model(void)
{
    ppl_param("w", AD_SCALAR);
    ppl_sample("x", dist_normal(stopped ? ad_stop_gradient(state) : state, 1), .obs = ad_constant(2));
}
START_TEST(states_that_are_no_parameters)
{
    state = ad_state(AD_SCALAR);
    svi *s = svi_new(stray_model, empty_guide, .args = PPL_ARGS(), .optim = optim_adam());
    ck_assert(isnan(svi_step(s)));
    ck_assert_msg(strstr(svi_error(s), "no ppl_param of this step gave"), "%s", svi_error(s));
    stopped = true;
    ck_assert(isfinite(svi_step(s)));
    svi_free(s);
    ad_free(state);
}
END_TEST

Suite *suite_clients(void)
{
    Suite *s = suite_create("clients");
    TCase *t = tcase_create("clients");
    tcase_add_checked_fixture(t, begin, end);
    tcase_add_test(t, density_of_a_flat_vector);
    tcase_add_test(t, densities_of_bounded_sites_and_parameters);
    tcase_add_test(t, discrete_sites_have_no_density);
    tcase_add_test(t, predictions_from_prior_and_guide);
    tcase_add_test(t, predictions_of_chosen_sites);
    tcase_add_test(t, models_that_cannot_be_drawn_at_once);
    tcase_add_test(t, reads_leave_gradients_alone);
    tcase_add_test(t, recursion_on_values);
    tcase_add_test(t, endless_loops_end);
    tcase_add_test(t, states_that_are_no_parameters);
    suite_add_tcase(s, t);
    return s;
}
