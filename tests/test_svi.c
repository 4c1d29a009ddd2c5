/* SVI: exact posteriors, estimators against closed forms, transactions, arguments, reproducibility. */
#include "tests/fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- a conjugate model: z ~ N(0, 1), x_i ~ N(z, 1), i < 8 -------------------------------------------------------- */

static const double data[8] = { 0.3, 1.2, -0.4, 2.2, 0.9, 1.4, 0.1, 0.7 };
enum { N = 8 };
static double posterior_loc(void)
{
    double sum = 0;
    for (int i = 0; i < N; i++)
        sum += data[i];
    return sum / (N + 1);
}
static double posterior_scale(void)
{
    return sqrt(1.0 / (N + 1));
}
static double log_evidence(void)
{
    double squares = 0, sum = 0;
    for (int i = 0; i < N; i++)
        squares += data[i] * data[i], sum += data[i];
    return -0.5 * N * log(2 * M_PI) - 0.5 * log(N + 1) - 0.5 * squares + 0.5 * sum * sum / (N + 1);
}

static void conjugate_model(ad_tensor *x)
{
    ad_tensor *z = ppl_sample("z", dist_normal(0, 1));
    ppl_plate ("data", ad_dim(x, 0))
        ppl_sample("obs", dist_normal(z, 1), .obs = x);
}
static distribution *q(void)
{
    return dist_normal(ppl_param("loc", AD_SCALAR),
                       ppl_param("scale", AD_SCALAR, .init = ppl_constant(0.5), .constraint = dist_positive()));
}
static void conjugate_guide(ad_tensor *x)
{
    (void)x;
    ppl_sample("z", q());
}
static void score_guide(ad_tensor *x)
{
    (void)x;
    ppl_sample("z", dist_set_rsample(q(), false));
}

static void asking_guide(ad_tensor *x)
{
    (void)x;
    ppl_sample("z", q(), .infer = { .score_function = true });
}

START_TEST(exact_guide_has_no_variance)
{
    ad_tensor *x = ad_from(data, AD_SHAPE(N));
    svi *s = svi_new(conjugate_model, conjugate_guide, .args = PPL_ARGS(ad_tensor *), .optim = optim_sgd(.lr = 1e-12));
    svi_step(s, x);
    set("loc", posterior_loc()), set("scale", posterior_scale());
    for (int i = 0; i < 5; i++)
        near(svi_evaluate(s, x), -log_evidence(), 1e-6);
    near(svi_step(s, x), -log_evidence(), 1e-6);
    svi_free(s);
}
END_TEST

static void recovers(void (*guide)(ad_tensor *), struct elbo e, double lr, int steps, double loc, double scale)
{
    ad_tensor *x = ad_from(data, AD_SHAPE(N));
    double sum_loc = 0, sum_scale = 0;
    int tail = steps / 2;
    svi *s = svi_new(conjugate_model, guide, .args = PPL_ARGS(ad_tensor *), .optim = optim_adam(.lr = lr), .elbo = e);
    for (int i = 0; i < steps; i++) {
        ck_assert_msg(isfinite(svi_step(s, x)), "%s", svi_error(s));
        if (i >= steps - tail)
            sum_loc += parameter("loc"), sum_scale += parameter("scale");
    }
    near(sum_loc / tail, posterior_loc(), loc * posterior_scale());
    near(sum_scale / tail, posterior_scale(), scale * posterior_scale());
    svi_free(s);
}
START_TEST(pathwise_recovers_the_posterior)
{
    recovers(conjugate_guide, elbo_trace(), 0.003, 8000, 0.01, 0.02);
}
END_TEST
START_TEST(score_function_recovers_the_posterior)
{
    recovers(score_guide, elbo_trace(.particles = 200, .vectorize = true), 0.002, 20000, 0.01, 0.02);
}
END_TEST
START_TEST(mean_field_recovers_the_posterior)
{
    recovers(conjugate_guide, elbo_mean_field(), 0.003, 8000, 0.01, 0.02);
}
END_TEST

/* ---- gradients --------------------------------------------------------------------------------------------------- */

/* The gradient of one step with respect to (loc, log scale): SGD with lr 1 moves by exactly that. */
static void gradient(svi *s, ad_tensor *x, double loc, double scale, double *out)
{
    set("loc", loc), set("scale", scale);
    ck_assert_msg(isfinite(svi_step(s, x)), "%s", svi_error(s));
    out[0] = loc - parameter("loc");
    out[1] = log(scale) - log(parameter("scale"));
}

/* One draw z: pathwise d(-ELBO)/d loc and the score function's -(ELBO) d log q, by hand. */
START_TEST(single_draw_formulas)
{
    ad_tensor *x = ad_from(data, AD_SHAPE(N));
    const double loc = 0.4, scale = 0.6;
    for (int score = 0; score < 3; score++) {
        double g[2], z = 0;
        svi *s = svi_new(conjugate_model,
                         score == 0   ? conjugate_guide
                         : score == 1 ? score_guide
                                      : asking_guide,
                         .args = PPL_ARGS(ad_tensor *), .optim = optim_sgd(.lr = 1));
        svi_step(s, x);
        ppl_with (ppl_seeded(5))
            gradient(s, x, loc, scale, g);
        double loss = NAN;
        set("loc", loc), set("scale", scale);
        ppl_with (ppl_seeded(5))
            loss = svi_evaluate(s, x);
        /* loss is quadratic in z with known coefficients: two roots; the pathwise gradient tells which */
        double sum = 0, squares = 0;
        for (int i = 0; i < N; i++)
            sum += data[i], squares += data[i] * data[i];
        double best = 1e9;
        for (double sign = -1; sign <= 1; sign += 2) {
            double a = 0.5 * (N + 1) - 0.5 / (scale * scale), b = -sum + loc / (scale * scale);
            double k = 0.5 * squares - 0.5 * loc * loc / (scale * scale) + 0.5 * N * log(2 * M_PI) - log(scale) - loss;
            double root = (-b + sign * sqrt(b * b - 4 * a * k)) / (2 * a), e = (root - loc) / scale;
            double dz = (N + 1) * root - sum, want[2] = { dz, dz * scale * e - 1 };
            if (score)
                want[0] = loss * e / scale, want[1] = loss * (e * e - 1);
            double off = fabs(g[0] - want[0]) + fabs(g[1] - want[1]);
            if (off < best)
                best = off, z = root;
        }
        ck_assert_msg(best < 1e-10, "%s: off by %g (z %g)", score ? "score" : "pathwise", best, z);
        svi_free(s);
    }
}
END_TEST

START_TEST(evaluation_is_the_loss_of_a_step)
{
    ad_tensor *x = ad_from(data, AD_SHAPE(N));
    double one = NAN;
    for (int k = 0; k < 4; k++) {
        struct elbo e = { .kind = k == 3 ? ELBO_MEAN_FIELD : ELBO_TRACE,
                          .particles = k == 0 ? 1 : 3,
                          .vectorize = k == 2 };
        svi *s =
            svi_new(conjugate_model, conjugate_guide, .args = PPL_ARGS(ad_tensor *), .optim = optim_adam(), .elbo = e);
        svi_step(s, x);
        double a = 0, b = 1, c = 1;
        set("loc", 0.4), set("scale", 0.6);
        ppl_with (ppl_seeded(7))
            a = svi_evaluate(s, x);
        ppl_with (ppl_seeded(8))
            c = svi_evaluate(s, x);
        ppl_with (ppl_seeded(7))
            b = svi_step(s, x);
        near(a, b, 0);
        ck_assert(a != c);
        if (k == 0)
            one = a;
        else
            ck_assert(a != one); /* particles draw differently */
        svi_free(s);
    }
}
END_TEST

/* ---- reproducibility --------------------------------------------------------------------------------------------- */

static void losses(uint64_t seed, bool evaluate, double *out)
{
    ad_tensor *x = ad_from(data, AD_SHAPE(N));
    ppl_seed(seed);
    ppl_param_delete(NULL);
    svi *s = svi_new(conjugate_model, conjugate_guide, .args = PPL_ARGS(ad_tensor *), .optim = optim_adam(.lr = 0.01));
    for (int i = 0; i < 20; i++) {
        out[i] = svi_step(s, x);
        if (evaluate)
            svi_evaluate(s, x);
    }
    svi_free(s);
    ad_free(x);
}
START_TEST(the_seed_decides)
{
    double a[20], b[20], c[20], d[20];
    losses(1, false, a), losses(2, false, b), losses(1, false, c), losses(1, true, d);
    ck_assert(!memcmp(a, c, sizeof a));
    ck_assert(memcmp(a, b, sizeof a));
    ck_assert(!memcmp(a, d, sizeof a)); /* evaluating does not disturb training */
    ck_assert(a[0] != a[1]);
}
END_TEST

/* ---- transactions ------------------------------------------------------------------------------------------------ */

typedef struct trouble {
    int kind; /* 0: none */
    bool born;
} trouble;

static void troubled_model(trouble *t, ad_tensor *x)
{
    ad_tensor *z = ppl_sample("z", dist_normal(0, 1));
    if (t->born)
        z = ad_add(z, ppl_param("late", AD_SCALAR));
    if (t->kind == 1)
        z = ad_mul(z, ad_log(-1)); /* NaN */
    if (t->kind == 2)
        ad_add(ad_zeros(3), ad_zeros(4));
    if (t->kind == 3)
        ppl_sample("z", dist_normal(0, 1));
    if (t->kind == 4)
        ppl_plate ("data", N)
            ppl_sample("obs", dist_normal(z, ad_exp(ad_mul(1e6, ad_add(1, ad_square(z))))), .obs = x);
    else
        ppl_plate ("data", N)
            ppl_sample("obs", dist_normal(z, 1), .obs = x);
}
static void troubled_guide(trouble *t, ad_tensor *x)
{
    (void)t;
    conjugate_guide(x);
}

START_TEST(a_failed_step_changes_nothing)
{
    ad_tensor *x = ad_from(data, AD_SHAPE(N));
    static const char *const words[] = { "", "Encountered NaN: loss", "do not broadcast", "Multiple sample sites",
                                         "Encountered inf: loss" };
    double straight[6], bent[6];
    for (int kind = 0; kind < 5; kind++) {
        ppl_seed(1);
        ppl_param_delete(NULL);
        trouble t = { 0, false };
        svi *s = svi_new(troubled_model, troubled_guide, .args = PPL_ARGS(trouble *, ad_tensor *),
                         .optim = optim_adam(.lr = 0.1));
        for (int i = 0; i < 6; i++) {
            t.kind = i == 2 ? kind : 0;
            t.born = t.kind != 0;
            double loc = i ? parameter("loc") : 0, loss = svi_step(s, &t, x);
            if (t.kind) {
                ck_assert(isnan(loss));
                says(svi_error(s), words[kind]);
                near(parameter("loc"), loc, 0);
                ck_assert(!ppl_param_exists("late"));
            } else {
                ck_assert_msg(isfinite(loss), "%s", svi_error(s));
                ck_assert_str_eq(svi_error(s), "");
            }
            (kind ? bent : straight)[i] = parameter("loc");
        }
        ck_assert_int_eq(svi_steps(s), kind ? 5 : 6);
        if (kind)
            ck_assert(bent[1] == straight[1] && bent[2] == straight[1] && bent[3] != bent[2]);
        svi_free(s);
    }
}
END_TEST

START_TEST(the_culprit_is_named)
{
    ad_tensor *x = ad_from(data, AD_SHAPE(N));
    trouble t = { 1, false };
    svi *s = svi_new(troubled_model, troubled_guide, .args = PPL_ARGS(trouble *, ad_tensor *), .optim = optim_adam());
    ck_assert(isnan(svi_step(s, &t, x)));
    says(svi_error(s), "the model's site \"obs\" (normal)");
    says(svi_error(s), "test_svi.c:");
    svi_free(s);
}
END_TEST

static void late_model(int *step, ad_tensor *x)
{
    ad_tensor *shift = *step >= 5 ? ppl_param("shift", AD_SCALAR) : ad_constant(0);
    (void)shift;
    conjugate_model(x);
}
static void late_guide(int *step, ad_tensor *x)
{
    (void)step;
    conjugate_guide(x);
}
START_TEST(parameters_born_late_change_nothing_else)
{
    ad_tensor *x = ad_from(data, AD_SHAPE(N));
    double a[10], b[10];
    for (int late = 0; late < 2; late++) {
        ppl_seed(1);
        ppl_param_delete(NULL);
        svi *s = svi_new(late_model, late_guide, .args = PPL_ARGS(int *, ad_tensor *), .optim = optim_adam(.lr = 0.1));
        for (int i = 0; i < 10; i++) {
            int step = late ? i : 0;
            (late ? b : a)[i] = svi_step(s, &step, x);
        }
        svi_free(s);
    }
    ck_assert(!memcmp(a, b, sizeof a));
    ck_assert(ppl_param_exists("shift"));
}
END_TEST

/* ---- arguments --------------------------------------------------------------------------------------------------- */

typedef struct seen {
    int i;
    unsigned char c;
    bool b;
    float f;
    double d;
    int64_t l;
    void *p;
} seen;
static seen got;
static void many_model(int i, unsigned char c, bool b, float f, double d, int64_t l, void *p, ad_tensor *x)
{
    got = (seen){ i, c, b, f, d, l, p };
    ppl_sample("x", dist_normal(0, 1), .obs = x);
}
static int many_guide(int i, unsigned char c, bool b, float f, double d, int64_t l, void *p, ad_tensor *x)
{
    return (void)c, (void)b, (void)f, (void)d, (void)l, (void)p, (void)x, i;
}
#define MANY PPL_ARGS(int, unsigned char, bool, float, double, int64_t, void *, ad_tensor *)

START_TEST(arguments_arrive)
{
    double one = 1;
    ad_tensor *x = ad_from(&one, AD_SCALAR);
    svi *s = svi_new(many_model, many_guide, .args = MANY, .optim = optim_adam());
    double loss = svi_step(s, -3, 200, true, 0.5f, 2, (int64_t)1 << 40, &one, x);
    near(loss, 0.5 + 0.5 * log(2 * M_PI), 1e-12);
    ck_assert_str_eq(svi_error(s), "");
    ck_assert(got.i == -3 && got.c == 200 && got.b && got.f == 0.5f && got.d == 2 && got.l == (int64_t)1 << 40 &&
              got.p == &one);
    svi_step(s, 4.0, (short)7, 0, 1, 'a', 3u, NULL, x); /* converted as C would */
    ck_assert_str_eq(svi_error(s), "");
    ck_assert(got.i == 4 && got.c == 7 && !got.b && got.f == 1 && got.d == 'a' && got.l == 3 && !got.p);
    svi_free(s);
}
END_TEST

START_TEST(wrong_arguments_are_named)
{
    double one = 1;
    ad_tensor *x = ad_from(&one, AD_SCALAR);
    svi *s = svi_new(many_model, many_guide, .args = MANY, .optim = optim_adam());
    double loss;
#define refused(words, ...) loss = svi_step(s, __VA_ARGS__), ck_assert(isnan(loss)), says(svi_error(s), words)
    refused("the model takes 8 arguments", 1, 2, true);
    refused("argument 1 of the model is int; a number that is no integer", 1.5, 2, true, 1, 1, 1, &one, x);
    refused("argument 2 of the model is unsigned char; the number given is out of its range", 1, 256, true, 1, 1, 1,
            &one, x);
    refused("argument 7 of the model is void *; a tensor was given", 1, 2, true, 1, 1, 1, x, x);
    refused("argument 8 of the model is ad_tensor *; another pointer", 1, 2, true, 1, 1, 1, &one, &one);
    refused("argument 8 of the model is ad_tensor *; a number", 1, 2, true, 1, 1, 1, &one, 3);
    refused("argument 5 of the model is double; a pointer", 1, 2, true, 1, &one, 1, &one, x);
    loss = svi_step(s, 1, 2, true, 1, 1, 1, &one, x);
    ck_assert(isfinite(loss));
    svi_free(s);
}
END_TEST

/* ---- steps ------------------------------------------------------------------------------------------------------- */

START_TEST(steps_allocate_nothing_once_warm)
{
    ad_tensor *x = ad_from(data, AD_SHAPE(N));
    svi *s = svi_new(conjugate_model, conjugate_guide, .args = PPL_ARGS(ad_tensor *), .optim = optim_adam());
    for (int i = 0; i < 5; i++)
        svi_step(s, x), svi_evaluate(s, x);
    ad_counters before = ad_count();
    for (int i = 0; i < 100; i++)
        svi_step(s, x), svi_evaluate(s, x);
    ad_counters after_ = ad_count();
    ck_assert_uint_eq(after_.allocations, before.allocations);
    ck_assert_uint_eq(after_.bytes, before.bytes);
    ck_assert_uint_eq(after_.misses, before.misses);
    svi_free(s);
}
END_TEST

static void walk_model(int *n)
{
    ad_tensor *z = ppl_sample("z0", dist_normal(0, 1));
    char name[16];
    *n = 0;
    while (ppl_ok() && ad_item(z) < 1) { /* a read in a model: the tape so far is run */
        snprintf(name, sizeof name, "z%d", ++*n);
        z = ppl_sample(name, dist_normal(ad_add(z, 0.5), 0.1), .infer = { .from_prior = true });
    }
    ppl_sample("x", dist_normal(z, 1), .obs = ad_constant(2));
}
static void walk_guide(int *n)
{
    (void)n;
    ppl_sample("z0", q());
}
START_TEST(values_can_steer_a_model)
{
    int n = 0, longest = 0;
    svi *s = svi_new(walk_model, walk_guide, .args = PPL_ARGS(int *), .optim = optim_adam());
    for (int i = 0; i < 20; i++) {
        ck_assert_msg(isfinite(svi_step(s, &n)), "%s", svi_error(s));
        if (n > longest)
            longest = n;
    }
    ck_assert_int_gt(longest, 1);
    svi_free(s);
}
END_TEST

/* A model that pulls the rug from under its own step. */
static svi *self;
static void nesting_model(int *what)
{
    ad_tensor *w = ppl_param("w", AD_SCALAR);
    ppl_sample("x", dist_normal(w, 1), .obs = ad_constant(2));
    if (*what == 1)
        ppl_with (ppl_block()) svi_step(self, what);
    if (*what == 2)
        svi_evaluate(self, what);
    if (*what == 3)
        svi_free(self);
}
static void empty_guide(int *what)
{
    (void)what;
}
START_TEST(steps_do_not_nest)
{
    static const char *const words[] = { "", "svi_step inside a model", "svi_evaluate inside a model",
                                         "svi_free inside a model" };
    self = svi_new(nesting_model, empty_guide, .args = PPL_ARGS(int *), .optim = optim_adam());
    for (int what = 3; what >= 0; what--) {
        double loss = svi_step(self, &what);
        ck_assert_msg(what ? isnan(loss) && strstr(svi_error(self), words[what]) : isfinite(loss), "%d: %s", what,
                      svi_error(self));
    }
    svi_free(self);
}
END_TEST

Suite *suite_svi(void)
{
    Suite *s = suite_create("svi");
    TCase *t = tcase_create("svi");
    tcase_add_checked_fixture(t, begin, end);
    tcase_add_test(t, exact_guide_has_no_variance);
    tcase_add_test(t, pathwise_recovers_the_posterior);
    tcase_add_test(t, score_function_recovers_the_posterior);
    tcase_add_test(t, mean_field_recovers_the_posterior);
    tcase_add_test(t, single_draw_formulas);
    tcase_add_test(t, evaluation_is_the_loss_of_a_step);
    tcase_add_test(t, the_seed_decides);
    tcase_add_test(t, a_failed_step_changes_nothing);
    tcase_add_test(t, the_culprit_is_named);
    tcase_add_test(t, parameters_born_late_change_nothing_else);
    tcase_add_test(t, arguments_arrive);
    tcase_add_test(t, wrong_arguments_are_named);
    tcase_add_test(t, steps_allocate_nothing_once_warm);
    tcase_add_test(t, values_can_steer_a_model);
    tcase_add_test(t, steps_do_not_nest);
    suite_add_tcase(s, t);
    return s;
}
