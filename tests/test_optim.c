/* Optimisers of ppl against their formulas, by hand on a parabola. */
#include "ppl/inference.h"
#include "tests/fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- optimisers -------------------------------------------------------------------------------------------------- */

/* loss(w) = (w - 3)^2 / 2 + constant, from w = 1: gradient w - 3 = -2 */
static void parabola_model(void)
{
    ppl_sample("x", dist_normal(ppl_param("w", AD_SCALAR, .init = ppl_constant(1)), 1), .obs = ad_constant(3));
}
static void nothing(void)
{
}

static double after(struct optim o, int steps)
{
    ppl_param_delete(NULL);
    svi *s = svi_new(parabola_model, nothing, .args = PPL_ARGS(), .optim = o);
    for (int i = 0; i < steps; i++)
        ck_assert_msg(isfinite(svi_step(s)), "%s", svi_error(s));
    svi_free(s);
    return parameter("w");
}
static double halve(int64_t step, void *user)
{
    return (void)user, step ? 0.5 : 1;
}

START_TEST(optimisers_by_hand)
{
    double w = 1, m = 0, v = 0;
    near(after(optim_sgd(.lr = 0.1), 1), 1.2, 1e-12);
    near(after(optim_sgd(.lr = 0.1), 2), 1.2 + 0.18, 1e-12);
    near(after(optim_sgd(.lr = 0.1, .schedule = halve), 2), 1.2 + 0.09, 1e-12);
    near(after(optim_sgd(.lr = 0.1, .momentum = 0.9), 2), 1.2 + 0.1 * (0.9 * 2 + 1.8), 1e-12);
    near(after(optim_sgd(.lr = 0.1, .weight_decay = 0.5), 1), 1 + 0.1 * (2 - 0.5), 1e-12);
    near(after(optim_sgd(.lr = 0.1, .clip_value = 0.5), 1), 1.05, 1e-12);
    near(after(optim_sgd(.lr = 0.1, .clip_tensor_norm = 0.5), 1), 1.05, 1e-6);
    near(after(optim_sgd(.lr = 0.1, .clip_global_norm = 0.5), 1), 1.05, 1e-6);
    near(after(optim_sgd(.lr = 0.1, .rules = optim_rules({ "w*", .lr = 0.2 })), 1), 1.4, 1e-12);
    near(after(optim_sgd(.lr = 0.1, .rules = optim_rules({ "?", .frozen = true })), 3), 1, 0);
    for (int t = 1; t <= 3; t++) {
        double g = w - 3;
        m = 0.9 * m + 0.1 * g, v = 0.999 * v + 0.001 * g * g;
        w -= 0.1 * (m / (1 - pow(0.9, t))) / (sqrt(v / (1 - pow(0.999, t))) + 1e-8);
    }
    near(after(optim_adam(.lr = 0.1), 3), w, 1e-10);
    w = 1, m = 0, v = 0;
    for (int t = 1; t <= 3; t++) {
        double g = w - 3;
        m = 0.9 * m + 0.1 * g, v = 0.999 * v + 0.001 * g * g;
        w = w * (1 - 0.1 * 0.2) - 0.1 * (m / (1 - pow(0.9, t))) / (sqrt(v / (1 - pow(0.999, t))) + 1e-8);
    }
    near(after(optim_adamw(.lr = 0.1, .weight_decay = 0.2), 3), w, 1e-10);
    w = 1, m = 0, v = 0;
    for (int t = 1; t <= 3; t++) {
        double g = fmin(fmax(w - 3, -1), 1);
        m = 0.9 * m + 0.1 * g, v = 0.999 * v + 0.001 * g * g;
        w -= 0.1 * pow(0.5, t) * sqrt(1 - pow(0.999, t)) / (1 - pow(0.9, t)) * m / (sqrt(v) + 1e-8);
    }
    near(after(optim_clipped_adam(.lr = 0.1, .lrd = 0.5, .clip_value = 1), 3), w, 1e-10);
    w = 1, v = 0;
    for (int t = 1; t <= 3; t++) {
        double g = w - 3;
        v = 0.99 * v + 0.01 * g * g;
        w -= 0.1 * g / (sqrt(v) + 1e-8);
    }
    near(after(optim_rmsprop(.lr = 0.1), 3), w, 1e-10);
}
END_TEST

/* ---- parameters of different ages -------------------------------------------------------------------------------- */

enum { PARAMETERS = 3 };
static const char *const name[PARAMETERS] = { "p", "q", "r" }, *const site_name[PARAMETERS] = { "x", "y", "z" };

/* Visits the parameters whose bits are set. */
static void some_model(int visited)
{
    for (int i = 0; i < PARAMETERS; i++)
        if (visited >> i & 1)
            ppl_sample(site_name[i], dist_normal(ppl_param(name[i], AD_SCALAR), 1), .obs = ad_constant(i + 2));
}
static void some_nothing(int visited)
{
    (void)visited;
}

/* Which parameters share their age changes while the program stays: all three, then {p = q, r}, then {p, q = r}, then
 * all. Each moves as it does alone. */
START_TEST(ages_of_their_own)
{
    static const int visits[] = { 7, 3, 7, 4, 1, 7, 6, 7, 7 };
    enum { STEPS = sizeof visits / sizeof *visits };
    svi *s = svi_new(some_model, some_nothing, .args = PPL_ARGS(int), .optim = optim_adam(.lr = 0.1));
    for (int i = 0; i < STEPS; i++)
        ck_assert_msg(isfinite(svi_step(s, visits[i])), "%s", svi_error(s));
    double together[PARAMETERS];
    for (int k = 0; k < PARAMETERS; k++)
        together[k] = parameter(name[k]);
    svi_free(s);
    for (int k = 0; k < PARAMETERS; k++) {
        ppl_param_delete(NULL);
        s = svi_new(some_model, some_nothing, .args = PPL_ARGS(int), .optim = optim_adam(.lr = 0.1));
        for (int i = 0; i < STEPS; i++)
            if (visits[i] >> k & 1)
                ck_assert(isfinite(svi_step(s, 1 << k)));
        near(parameter(name[k]), together[k], 0);
        svi_free(s);
    }
}
END_TEST

/* What small kernels make of the elements behind a state's last one is not kept: it would come back at each step, and
 * decay to denormal numbers, which are slow. */
static void vector_model(void)
{
    ad_tensor *v = ppl_param("v", AD_SHAPE(3));
    ppl_sample("x", dist_to_event(dist_normal(ad_exp(v), 1), 1), .obs = ad_full_shape(AD_SHAPE(3), 3));
}
START_TEST(states_end_clear)
{
    enum { LINE = 64 / sizeof(double), N = 3 };
    svi *s = svi_new(vector_model, nothing, .args = PPL_ARGS(), .optim = optim_adam(.lr = 0.1));
    for (int i = 0; i < 4; i++)
        ck_assert_msg(isfinite(svi_step(s)), "%s", svi_error(s));
    ad_context *c = ad_context_current();
    ppl_state *st = ppl__state(c);
    ad_tensor *state[] = { ppl__param_find(c, st, "v")->leaf, s->moments[0].state[0], s->moments[0].state[1] };
    for (int k = 0; k < 3; k++) {
        const double *x = ad_host_data(state[k]);
        for (int i = N; x && i < LINE;
             i++) /* where kernels know their last element, as on a device, nothing lies behind */
            ck_assert(x[i] == 0);
        double own[N];
        ck_assert(ad_read(state[k], own, N));
        ck_assert(own[N - 1] != 0);
    }
    svi_free(s);
}
END_TEST

Suite *suite_optim(void)
{
    Suite *s = suite_create("optim");
    TCase *t = tcase_create("optim");
    tcase_add_checked_fixture(t, begin, end);
    tcase_add_test(t, optimisers_by_hand);
    tcase_add_test(t, ages_of_their_own);
    tcase_add_test(t, states_end_clear);
    suite_add_tcase(s, t);
    return s;
}
