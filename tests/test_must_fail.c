/* Models that must fail and models that must not. The rows lie in must_fail.def and legal.def; each bad one is tried
 * between good steps: the message has the words, nothing has changed, and the next good step works. */
#include "tests/fixture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static ad_tensor *x0, *x5, *x53, *bits, *index2, *holes, *stray, *stale_tensor;
static distribution *stale_fn;

static void begin_with_data(void)
{
    static const double one[] = { 1 }, five[] = { 1, 2, 3, 4, 5 }, fifteen[15] = { 1, 2, 3 },
                        mask[] = { 1, 0, 1, 1, 0 }, torn[15] = { 1, 2, 3, 4, NAN };
    static const int two[] = { 1, 9 };
    begin();
    x0 = ad_from(one, AD_SCALAR), x5 = ad_from(five, AD_SHAPE(5)), x53 = ad_from(fifteen, AD_SHAPE(5, 3));
    bits = ad_from(mask, AD_SHAPE(5)), holes = ad_from(torn, AD_SHAPE(5, 3)), index2 = ad_from(two, AD_SHAPE(2)), stray = ad_state(AD_SCALAR);
    ad_scope
        stale_tensor = ad_exp(x5), stale_fn = dist_normal(0, 1);
}
#define N01 dist_normal(0, 1)
#define Z(name) ppl_sample(name, N01)
#define OBSERVE(name, fn) ppl_sample(name, fn, .obs = ad_constant(0.5))

#define Q(name)                                                                                                        \
    ppl_sample(name,                                                                                                   \
               dist_normal(ppl_param("q_loc", AD_SCALAR),                                                              \
                           ppl_param("q_scale", AD_SCALAR, .init = ppl_constant(0.5), .constraint = dist_positive())))
#define QV(name) ppl_sample(name, dist_to_event(dist_normal(ppl_param("q_locs", AD_SHAPE(3)), 0.5), 1))

/* The name with a number behind it; good until the next call. */
static const char *numbered(const char *name, int64_t i)
{
    static char text[32];
    snprintf(text, sizeof text, "%s%d", name, (int)i);
    return text;
}

/* Plates in plates without end. */
static void nest(int depth)
{
    if (ppl_ok())
        ppl_plate (numbered("p", depth), 1)
            nest(depth + 1);
}
/* Plates in plates, and a site in the last. */
static void many(int from, int depth)
{
    if (from)
        return;
    if (depth < 0)
        OBSERVE("x", N01);
    else
        ppl_plate (numbered("p", depth), 1)
            many(0, depth - 1);
}

/* clang-format off */
#define BAD(name, words, model, guide) static void model_##name(void) model static void guide_##name(void) guide
#include "tests/must_fail.def"
#undef BAD
#define LEGAL(name, model, guide) static void legal_model_##name(void) model static void legal_guide_##name(void) guide
#include "tests/legal.def"
#undef LEGAL
/* clang-format on */

typedef struct row {
    const char *name, *words;
    void (*model)(void), (*guide)(void);
} row;
static const row bad[] = {
#define BAD(name, words, model, guide) { #name, words, model_##name, guide_##name },
#include "tests/must_fail.def"
};
static const row legal[] = {
#define LEGAL(name, model, guide) { #name, NULL, legal_model_##name, legal_guide_##name },
#include "tests/legal.def"
};
enum { N_BAD = sizeof bad / sizeof *bad, N_LEGAL = sizeof legal / sizeof *legal };
_Static_assert(N_BAD >= 100 && N_LEGAL >= 100, "at least a hundred of each");

/* One svi runs a good model (row NULL) or the model of a row. */
static void model(const row *r)
{
    if (r) {
        r->model();
        return;
    }
    ad_tensor *mean = Z("mean");
    ppl_plate ("data", 5)
        ppl_sample("good", dist_normal(mean, 1), .obs = x5);
}
static void guide(const row *r)
{
    if (r)
        r->guide();
    else
        ppl_sample("mean",
                   dist_normal(ppl_param("loc", AD_SCALAR), ppl_param("scale", AD_SCALAR, .init = ppl_constant(0.5),
                                                                      .constraint = dist_positive())));
}

START_TEST(must_fail)
{
    const row *r = &bad[_i], *good = NULL;
    double before = NAN, now = NAN;
    svi *s = svi_new(model, guide, .args = PPL_ARGS(const row *), .optim = optim_adam(.lr = 0.1));
    double loss = svi_step(s, good);
    ck_assert_msg(isfinite(loss), "%s", svi_error(s));
    ck_assert(ppl_param_value("loc", &before, 1));
    loss = svi_step(s, r);
    ck_assert_msg(isnan(loss), "%s: no error, loss %g", r->name, loss);
    ck_assert_msg(strstr(svi_error(s), r->words), "%s: want \"%s\" in: %s", r->name, r->words, svi_error(s));
    ck_assert(ppl_param_value("loc", &now, 1));
    ck_assert_msg(now == before && ppl_param_count() == 2, "%s: something has changed", r->name);
    ck_assert_int_eq(svi_steps(s), 1);
    loss = svi_step(s, good);
    ck_assert_msg(isfinite(loss), "%s: after it: %s", r->name, svi_error(s));
    ck_assert(ppl_param_value("loc", &now, 1) && now != before);
    svi_free(s);
}
END_TEST

/* The loss of an evaluation with the same draws is the loss of the step, also when particles are averaged. */
START_TEST(must_work)
{
    const row *r = &legal[_i];
    static const struct elbo elbos[] = { { .particles = 1 }, { .particles = 3 }, { .kind = ELBO_MEAN_FIELD } };
    for (int k = 0; k < 3; k++) {
        if (k == 2 && strstr(r->name, "score"))
            continue;
        svi *s = svi_new(model, guide, .args = PPL_ARGS(const row *), .optim = optim_sgd(.lr = 1e-9), .elbo = elbos[k]);
        double a = svi_step(s, r), b = NAN, c = NAN;
        ck_assert_msg(isfinite(a), "%s: %s", r->name, svi_error(s));
        ppl_with (ppl_seeded(3))
            b = svi_evaluate(s, r);
        ck_assert_msg(isfinite(b), "%s: %s", r->name, svi_error(s));
        ppl_with (ppl_seeded(3))
            c = svi_step(s, r);
        ck_assert_msg(b == c, "%s: evaluated %.17g, stepped %.17g", r->name, b, c);
        svi_free(s);
    }
}
END_TEST

Suite *suite_must_fail(void)
{
    Suite *s = suite_create("must_fail");
    TCase *t = tcase_create("must_fail");
    tcase_add_checked_fixture(t, begin_with_data, end);
    tcase_add_loop_test(t, must_fail, 0, N_BAD);
    tcase_add_loop_test(t, must_work, 0, N_LEGAL);
    suite_add_tcase(s, t);
    return s;
}
