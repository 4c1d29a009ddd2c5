/* What names draw within one scope or step, and what a seed makes begin anew. The kernels of draws are random's. */
#include <stdio.h>

#include "autodiff/tape.h"
#include "ppl/predictive.h"
#include "tests/fixture.h"

static double draw(void)
{
    double z = NAN;
    ad_scope
        z = ad_item(ppl_sample("z", dist_normal(0, 1)));
    fine();
    return z;
}

/* ---- one name, many draws ---------------------------------------------------------------------------------------- */

static void normal_model(void)
{
    ppl_sample("z", dist_normal(0, 1));
}
static void expect_distinct(const double *x, int n, const char *what)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++)
            ck_assert_msg(x[i] != x[j], "%s: draws %d and %d are both %g", what, j, i, x[i]);
}

START_TEST(every_run_draws_anew)
{
    double z[8];
    ad_scope {
        for (int i = 0; i < 3; i++)
            z[i] = ad_item(ppl_trace_value(ppl_trace_run(normal_model, PPL_ARGS()), "z"));
        ppl_trace *t = ppl_trace_new();
        ppl_with (ppl_record(t)) normal_model();
        z[3] = ad_item(ppl_trace_value(t, "z"));
        z[4] = ad_item(ppl_sample("z", dist_normal(0, 1)));
        ppl_sample("z", dist_normal(0, 1), .obs = ad_number(1)); /* observed: draws nothing */
        svi *s = svi_new(normal_model, normal_model, .args = PPL_ARGS());
        svi_step(s); /* another tape in between */
        svi_free(s);
        z[5] = ad_item(ppl_sample("z", dist_normal(0, 1)));
        ppl_trace *guide = ppl_trace_run(normal_model, PPL_ARGS()), *model = ppl_trace_run(normal_model, PPL_ARGS());
        z[6] = ad_item(ppl_trace_value(guide, "z"));
        z[7] = ad_item(ppl_trace_value(model, "z"));
        ppl_with (ppl_replay(guide)) model = ppl_trace_run(normal_model, PPL_ARGS());
        near(ad_item(ppl_trace_value(model, "z")), z[6], 0);
    }
    fine();
    expect_distinct(z, 8, "runs in a scope");
}
END_TEST

enum { PASSES = 4 };
static double passed[2][PASSES];
static int evaluations;
static bool hides(const ppl_message *m, void *user)
{
    (void)user;
    return !strcmp(m->name, "step");
}
static void walk(void)
{
    ad_tensor *x = ad_constant(0);
    for (int i = 0; i < PASSES; i++)
        ppl_with (ppl_block(.hide_if = hides)) {
            ad_tensor *step = ppl_sample("step", dist_normal(0, 1));
            passed[evaluations % 2][i] = ad_item(step);
            x = ad_add(x, step);
        }
    ppl_factor("f", x);
}
static void nothing(void)
{
}

/* Each pass of a loop draws anew; the first pass as ever; the next evaluation with the same seed the same again. */
START_TEST(hidden_sites_draw_at_each_pass)
{
    svi *s = svi_new(walk, nothing, .args = PPL_ARGS());
    for (evaluations = 0; evaluations < 2; evaluations++)
        ppl_with (ppl_seeded(4)) ck_assert_msg(isfinite(svi_evaluate(s)), "%s", svi_error(s));
    expect_distinct(passed[0], PASSES, "a loop");
    for (int i = 0; i < PASSES; i++)
        near(passed[0][i], passed[1][i], 0);
    svi_free(s);
    s = svi_new(walk, nothing, .args = PPL_ARGS(), .elbo = elbo_trace(.particles = 2));
    evaluations = 0;
    ck_assert(isfinite(svi_evaluate(s)));
    svi_free(s);
}
END_TEST

static void rows_model(void)
{
    ppl_plate ("rows", 1000, .subsample_size = 5) ppl_sample("x", dist_normal(0, 1));
}
START_TEST(members_are_drawn_at_each_run)
{
    int64_t a[5], b[5];
    ad_scope {
        ppl_trace *one = ppl_trace_run(rows_model, PPL_ARGS()), *two = ppl_trace_run(rows_model, PPL_ARGS());
        ck_assert(ad_read(ppl_trace_value(one, "rows"), a, 5) && ad_read(ppl_trace_value(two, "rows"), b, 5));
        ck_assert(memcmp(a, b, sizeof a));
        ppl_with (ppl_replay(one)) two = ppl_trace_run(rows_model, PPL_ARGS());
        ck_assert(ad_read(ppl_trace_value(two, "rows"), b, 5));
        ck_assert_mem_eq(a, b, sizeof a);
    }
    fine();
}
END_TEST

static void resend(ppl_handler *h, ppl_message *m)
{
    if (m->type != PPL_SAMPLE || m->intervener == h)
        return;
    ppl_message again = *m;
    again.intervener = h;
    ppl_send(&again);
    *(ad_tensor **)(uintptr_t)h->user = again.value;
}
START_TEST(messages_sent_again_draw_again)
{
    ad_tensor *other = NULL;
    ad_scope {
        double z[3];
        ppl_with (((ppl_handler){ .process = resend, .user = &other }))
            z[0] = ad_item(ppl_sample("z", dist_normal(0, 1)));
        z[1] = ad_item(other);
        z[2] = ad_item(ppl_sample("z", dist_normal(0, 1)));
        expect_distinct(z, 3, "a message sent twice");
    }
    fine();
}
END_TEST

/* More draws of a name than a counter has room for. */
START_TEST(draws_beyond_sixteen_bits)
{
    enum { MANY = (1 << 16) + 3 };
    double mean = 0, square = 0, few[4];
    ad_scope {
        ad_tensor *sum = ad_constant(0), *squares = ad_constant(0);
        for (int i = 0; i < MANY; i++) {
            ad_tensor *z = ppl_sample("z", dist_normal(0, 1));
            sum = ad_add(sum, z);
            squares = ad_fma(z, z, squares);
            if (i < 2 || i >= MANY - 2)
                few[i < 2 ? i : i - MANY + 4] = ad_item(z);
        }
        mean = ad_item(sum) / MANY;
        square = ad_item(squares) / MANY;
    }
    fine();
    expect_distinct(few, 4, "the first and the last");
    near(mean, 0, 5 / sqrt(MANY));
    near(square, 1, 5 * sqrt(2.0 / MANY));
}
END_TEST

/* ---- frozen ------------------------------------------------------------------------------------------------------ */

static void frozen_model(void)
{
    ad_tensor *z = ppl_sample("z", dist_normal(0, 1));
    ad_tensor *w = ppl_sample("w", dist_normal(z, 2), .infer = { .from_prior = true });
    ppl_plate ("rows", 300, .subsample_size = 3) ppl_factor("f", ad_mul(w, z));
}
static void frozen_guide(void)
{
    ad_tensor *loc = ppl_param("loc", AD_SHAPE(2), .init = ppl_randn(1));
    ppl_sample("z", dist_normal(ad_sum(loc), 0.5));
    ppl_plate ("rows", 300, .subsample_size = 3) {
    }
}

/* Two steps, an evaluation, one that is seeded, two predictions; looped and vectorised particles. They must not change:
 * what draws once in a run is keyed as it was before names could draw again. */
START_TEST(first_draws_are_frozen)
{
    static const double want[3][6] = {
        { 422.10173136901199, 431.26099932621776, -371.23827592493905, -14.034165899125258, -1.8730339060921324,
          1.0240117046238189 },
        { -34.954631737639616, -58.430327413433695, -1074.5110385420571, -905.64564790766565, -2.0847539009811085,
          0.81229170973484255 },
        { -90.8287409263733, 118.1430204397811, -284.03288283307893, 105.11787649137476, -2.0735311093883162,
          -0.7670571351380131 }
    };
    const struct elbo kinds[] = { elbo_trace(), elbo_trace(.particles = 3),
                                  elbo_trace(.particles = 3, .vectorize = true, .max_plate_nesting = 1) };
    for (int k = 0; k < 3; k++) {
        double got[6];
        ppl_seed(7);
        ppl_param_delete(NULL);
        svi *s = svi_new(frozen_model, frozen_guide, .args = PPL_ARGS(), .optim = optim_sgd(.lr = 1e-4),
                         .elbo = kinds[k]);
        got[0] = svi_step(s);
        got[1] = svi_step(s);
        got[2] = svi_evaluate(s);
        ppl_with (ppl_seeded(5)) got[3] = svi_evaluate(s);
        ppl_predictive *p = ppl_predictive_new(frozen_model, frozen_guide, .args = PPL_ARGS(), .samples = 2,
                                               .sites = PPL_NAMES("w"), .vectorize = k == 2);
        ck_assert(ppl_predict(p) && ppl_predictive_read(p, "w", got + 4, 2));
        for (int i = 0; i < 6; i++)
            near(got[i], want[k][i], 1e-11 * fabs(want[k][i]));
        ppl_predictive_free(p);
        svi_free(s);
    }
    ppl_seed(3);
    near(draw(), 0.89492284350795093, 1e-15);
    near(draw(), 1.8402490608667097, 1e-15);
}
END_TEST

/* ---- seeds ------------------------------------------------------------------------------------------------------- */

static void seed(int way, uint64_t s)
{
    (way ? ad_seed : ppl_seed)(s);
}

START_TEST(a_seed_repeats_what_follows)
{
    double v;
    for (int way = 0; way < 2; way++) {
        seed(way, 1);
        double a = draw(), b = draw();
        seed(way, 1);
        near(draw(), a, 0);
        ppl_param_value("none", &v, 1); /* none of these draws */
        ad_error_clear();
        svi *s = svi_new(frozen_model, frozen_guide, .args = PPL_ARGS());
        ad_scope ppl_param("loc", AD_SHAPE(2), .init = ppl_randn(1));
        ck_assert(ppl_param_value("loc", (double[2]){ 0 }, 2));
        ad_free(ad_from(&v, AD_SCALAR));
        near(draw(), b, 0);
        svi_free(s);
        ck_assert(a != b);
        seed(way, 2);
        ck_assert(draw() != a);
    }
}
END_TEST

/* In an open scope: named, anonymous and member draws begin anew, whatever was drawn before, in any scope. */
START_TEST(a_seed_repeats_in_an_open_scope)
{
    double z[4][4];
    int64_t rows[4][3];
    for (int i = 0; i < 4; i++)
        ad_scope {
            if (i > 1)
                ad_item(ppl_sample("z", dist_normal(0, 1)));
            ppl_seed(6);
            z[i][0] = ad_item(ppl_sample("z", dist_normal(0, 1)));
            z[i][1] = ad_item(ppl_sample("z", dist_normal(0, 1)));
            z[i][2] = ad_item(ad_random_normal(AD_SCALAR, 0));
            double u[3];
            ck_assert(ad_read(ad_random_uniform(AD_SHAPE(3), 0), u, 3));
            z[i][3] = u[2];
            ck_assert(ad_read(ad_random_index(1 << 20, 3, 0), rows[i], 3));
        }
    fine();
    expect_distinct(z[0], 3, "after a seed");
    for (int i = 1; i < 4; i++) {
        ck_assert_mem_eq(z[i], z[0], sizeof z[0]);
        ck_assert_mem_eq(rows[i], rows[0], sizeof rows[0]);
    }
    ppl_seed(6);
    near(draw(), z[0][0], 0);
    ad_scope {
        ad_tensor *unread = ppl_sample("z", dist_normal(0, 1)); /* keeps its own draw */
        ppl_seed(6);
        near(ad_item(ppl_sample("z", dist_normal(0, 1))), z[0][0], 0);
        double old = ad_item(unread);
        ck_assert(old != z[0][0]);
        ppl_seed(6);
        near(ad_item(ad_add(unread, ppl_sample("z", dist_normal(0, 1)))), old + z[0][0], 1e-15);
    }
}
END_TEST

START_TEST(seeded_blocks_repeat)
{
    double a[2], b[2], c[2], plain[4], around[4];
    ppl_seed(1);
    for (int i = 0; i < 2; i++)
        ad_scope {
            plain[2 * i] = ad_item(ppl_sample("z", dist_normal(0, 1)));
            plain[2 * i + 1] = ad_item(ppl_sample("z", dist_normal(0, 1)));
        }
    for (int k = 0; k < 2; k++)
        ppl_with (ppl_seeded(1)) {
            a[k] = draw();
            ppl_with (ppl_seeded(2)) b[k] = draw();
            c[k] = draw();
        }
    ck_assert(a[0] == a[1] && b[0] == b[1] && c[0] == c[1] && a[0] == plain[0] && a[0] != c[0]);
    /* inside scopes, between their draws, and a seed inside a block */
    ppl_seed(1);
    for (int i = 0; i < 2; i++)
        ad_scope {
            around[2 * i] = ad_item(ppl_sample("z", dist_normal(0, 1)));
            ppl_with (ppl_seeded(1)) {
                near(ad_item(ppl_sample("z", dist_normal(0, 1))), a[0], 0);
                ppl_with (ppl_seeded(2)) near(ad_item(ppl_sample("z", dist_normal(0, 1))), b[0], 0);
                near(ad_item(ppl_sample("z", dist_normal(0, 1))), plain[1], 0);
                ppl_seed(2);
                near(ad_item(ppl_sample("z", dist_normal(0, 1))), b[0], 0);
            }
            around[2 * i + 1] = ad_item(ppl_sample("z", dist_normal(0, 1)));
        }
    fine();
    ck_assert_mem_eq(around, plain, sizeof plain);
}
END_TEST

/* Instances: numbered anew after a seed, those made before included; one that could not be made takes no number. */
START_TEST(instances_begin_anew)
{
    double one[4], two[4];
    svi *old = svi_new(frozen_model, frozen_guide, .args = PPL_ARGS());
    svi_evaluate(old);
    ppl_param_delete(NULL);
    ppl_seed(9);
    svi *first = svi_new(frozen_model, frozen_guide, .args = PPL_ARGS());
    for (int i = 0; i < 3; i++)
        one[i] = svi_evaluate(first);
    one[3] = svi_evaluate(old);
    ppl_seed(9);
    ck_assert(!svi_new(frozen_model, frozen_guide, .args = PPL_ARGS(), .optim = optim_adam(.lr = -1)));
    ck_assert(!svi_new((void (*)(void))NULL, frozen_guide, .args = PPL_ARGS()));
    ck_assert(!ppl_predictive_new(frozen_model, frozen_guide, .args = PPL_ARGS(), .samples = 0));
    svi *second = svi_new(frozen_model, frozen_guide, .args = PPL_ARGS());
    for (int i = 0; i < 3; i++)
        two[i] = svi_evaluate(second);
    two[3] = svi_evaluate(old);
    ck_assert_mem_eq(one, two, sizeof one);
    expect_distinct(one, 4, "evaluations");
    ppl_seed(9);
    near(svi_evaluate(old), one[0], 0);
    ppl_seed(9);
    near(svi_evaluate(old), one[0], 0);
    near(svi_evaluate(old), one[1], 0);
    double left = svi_evaluate(second);
    ppl_seed(9);
    svi_evaluate(old), svi_evaluate(old);
    ppl_with (ppl_seeded(3)) one[2] = svi_evaluate(second);
    ppl_with (ppl_seeded(3)) near(svi_evaluate(old), one[2], 0);
    near(svi_evaluate(second), left, 0); /* the block took nothing */
    svi_free(old), svi_free(first), svi_free(second);
}
END_TEST

static bool inside;
static double seen;
static void seeding_model(void)
{
    if (inside)
        ppl_seed(5);
    ppl_with (ppl_seeded(8)) {
        ad_tensor *z = ppl_sample("z", dist_normal(0, 1), .infer = { .from_prior = true });
        ppl_factor("f", z);
        seen = ad_item(z);
    }
}
/* A seed inside a model: the same draw at every step, and the loop around goes on with its own. */
START_TEST(seeds_inside_models)
{
    svi *s = svi_new(seeding_model, nothing, .args = PPL_ARGS());
    for (int i = 0; i < 2; i++) {
        inside = i;
        ck_assert(isfinite(svi_step(s)));
        double first = seen;
        ck_assert(isfinite(svi_step(s)) && seen == first);
        ppl_with (ppl_seeded(8)) near(draw(), first, 0);
    }
    svi_free(s);
}
END_TEST

Suite *suite_draws(void)
{
    Suite *s = suite_create("draws");
    TCase *t = tcase_create("draws");
    tcase_add_checked_fixture(t, begin, end);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, every_run_draws_anew);
    tcase_add_test(t, hidden_sites_draw_at_each_pass);
    tcase_add_test(t, members_are_drawn_at_each_run);
    tcase_add_test(t, messages_sent_again_draw_again);
    tcase_add_test(t, draws_beyond_sixteen_bits);
    tcase_add_test(t, first_draws_are_frozen);
    tcase_add_test(t, a_seed_repeats_what_follows);
    tcase_add_test(t, a_seed_repeats_in_an_open_scope);
    tcase_add_test(t, seeded_blocks_repeat);
    tcase_add_test(t, instances_begin_anew);
    tcase_add_test(t, seeds_inside_models);
    suite_add_tcase(s, t);
    return s;
}
