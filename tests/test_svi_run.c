/* svi_run beside as many calls of svi_step: the same losses to the bit, whatever changes in between, and errors. */
#include "models/loader.h"
#include "tests/fixture.h"

#include <math.h>
#include <string.h>

enum { STEPS = 40, N = 6, WIDTH = 3 };
static const double data[2][N] = { { 0.3, 1.2, -0.4, 2.2, 0.9, 1.4 }, { 1.3, 0.2, 0.4, -0.2, 1.9, -1.4 } };

/* ---- a model that can be made to change -------------------------------------------------------------------------- */

typedef struct kind {
    bool score, reads, twice, moves;
    int calls;
} kind;

static double wandering;
static ad_tensor *chosen;

static void model(kind *k, double beta, ad_tensor *x) /* x (any) */
{
    k->calls++;
    ad_tensor *z = ppl_sample("z", dist_normal(0, 1));
    if (k->reads && ad_item(z) > 1e9)
        return;
    if (k->twice)
        z = ad_add(z, 0);
    if (k->moves)
        z = ad_where(ad_eq(z, NAN), NAN, ad_mul(z, wandering)); /* a NaN is the same number again */
    ppl_with (ppl_scale(beta))
        ppl_plate ("data", ad_dim(x, 0), .full_size = 2 * ad_dim(x, 0))
            ppl_sample("x", dist_normal(z, 1), .obs = chosen ? chosen : x);
}
static void guide(kind *k, double beta, ad_tensor *x)
{
    (void)beta, (void)x;
    ad_tensor *loc = ppl_param("loc", AD_SCALAR);
    ad_tensor *scale = ppl_param("scale", AD_SCALAR, .init = ppl_constant(0.5), .constraint = dist_positive());
    ppl_sample("z", dist_normal(loc, scale), .infer = { .score_function = k->score });
}
static svi *make(struct optim o, struct elbo e)
{
    ppl_seed(3);
    ppl_param_delete(NULL);
    return svi_new(model, guide, .args = PPL_ARGS(kind *, double, ad_tensor *), .optim = o, .elbo = e);
}
static double fall(int64_t step, void *user)
{
    (void)user;
    return 1 / (1 + 0.1 * (double)step);
}

/* What a next function may do; the same function serves the loop of svi_steps. */
typedef struct changes {
    ad_tensor *x[2], *longer;
    int what;
    svi *other;
    kind *k;
} changes;
enum { NOTHING, CONTENT, SWAPS, LENGTHS, NUMBERS, EVALUATES, DELETES, STOPS, KINDS };

static bool change(void *user, int64_t step, ppl_arg *args)
{
    changes *c = user;
    ad_tensor *x = c->x[0];
    double beta = 0.5;
    if (c->what == CONTENT)
        ad_write(c->x[0], data[step % 2], N);
    if (c->what == SWAPS)
        x = c->x[step % 3 == 1];
    if (c->what == LENGTHS)
        x = step % 7 == 6 ? c->longer : c->x[step % 2];
    if (c->what == NUMBERS && step > 5)
        beta = fmin(1, 0.1 * (double)step);
    if (c->what == EVALUATES && step % 4 == 3)
        svi_evaluate(c->other, c->k, 1.0, c->longer);
    if (c->what == DELETES && step == 20)
        ppl_param_delete("loc");
    args[1] = ppl_arg_real(beta);
    args[2] = ppl_arg_tensor(x);
    return c->what != STOPS || step < 11;
}

static void steps_and_runs_agree(struct optim o, struct elbo e, kind k, int what)
{
    double one[STEPS], many[STEPS], loc[2], scale[2], mean = 0, sum = 0;
    int made = what == STOPS ? 11 : STEPS;
    for (int run = 0; run < 2; run++) {
        changes c = { .x = { ad_from(data[0], AD_SHAPE(N)), ad_from(data[1], AD_SHAPE(N)) },
                      .longer = ad_from(data[0], AD_SHAPE(2 * N)), .what = what, .k = &k };
        svi *s = make(o, e);
        c.other = svi_new(model, guide, .args = PPL_ARGS(kind *, double, ad_tensor *), .optim = o);
        k.calls = 0;
        if (run) {
            mean = svi_run(s, STEPS, .args = PPL_VALUES(&k, 0.5, c.x[0]), .next = what ? change : NULL, .user = &c,
                           .losses = many);
            ck_assert_str_eq(svi_error(s), "");
        }
        ppl_arg args[] = { ppl_arg_pointer(&k), ppl_arg_real(0.5), ppl_arg_tensor(c.x[0]) };
        for (int i = 0; i < STEPS && !run && (!what || change(&c, i, args)); i++) {
            ck_assert_msg(isfinite(one[i] = svi_step_args(s, 3, args)), "%s", svi_error(s));
            sum += one[i];
        }
        ck_assert_int_eq(svi_steps(s), made);
        ck_assert(ppl_param_value("loc", &loc[run], 1) && ppl_param_value("scale", &scale[run], 1));
        if (run && (what <= SWAPS || what == STOPS) && !k.reads)
            ck_assert_int_eq(k.calls, e.vectorize ? 4 : 3); /* one more to learn how deep the plates are */
        svi_free(c.other);
        svi_free(s);
    }
    for (int i = 0; i < made; i++)
        ck_assert_msg(one[i] == many[i], "change %d, step %d: %.17g and %.17g", what, i, one[i], many[i]);
    for (int i = made; i < STEPS; i++)
        ck_assert(isnan(many[i]));
    ck_assert(loc[0] == loc[1] && scale[0] == scale[1] && mean == sum / made);
    ck_assert(one[0] != one[1]);
}

START_TEST(a_run_is_its_steps)
{
    const struct optim optims[] = { optim_adam(.lr = 0.05), optim_clipped_adam(.lr = 0.05, .lrd = 0.99),
                                    optim_adamw(.lr = 0.05, .weight_decay = 0.1, .schedule = fall),
                                    optim_sgd(.lr = 0.001, .momentum = 0.9, .clip_global_norm = 3), optim_rmsprop() };
    for (size_t i = 0; i < sizeof optims / sizeof *optims; i++)
        steps_and_runs_agree(optims[i], elbo_trace(), (kind){ .calls = 0 }, NOTHING);
    steps_and_runs_agree(optims[0], elbo_mean_field(), (kind){ .calls = 0 }, NOTHING);
    steps_and_runs_agree(optims[0], elbo_trace(.particles = 3, .vectorize = true), (kind){ .score = true }, NOTHING);
}
END_TEST

START_TEST(whatever_changes_in_between)
{
    for (int what = CONTENT; what < KINDS; what++)
        steps_and_runs_agree(optim_adam(.lr = 0.05), elbo_trace(), (kind){ .score = what % 2 }, what);
    steps_and_runs_agree(optim_adam(.lr = 0.05), elbo_trace(), (kind){ .reads = true }, CONTENT);
}
END_TEST

/* ---- refusals ---------------------------------------------------------------------------------------------------- */

static kind shaken;
static bool shake(void *user, int64_t step, ppl_arg *args)
{
    (void)args;
    int when = ((int *)user)[0], how = ((int *)user)[1];
    if (step == when && how == 0)
        shaken.twice = true;
    if (step == when && how == 1)
        wandering = 0.25;
    if (step == when && how == 2)
        chosen = ad_from(data[1], AD_SHAPE(N));
    return true;
}
START_TEST(models_that_change_are_refused)
{
    static const char *const words[] = { "svi_run: operation ad_", "svi_run: a number of ad_mul",
                                         "svi_run: the tensor that enters as ad_input" };
    ad_tensor *x = ad_from(data[0], AD_SHAPE(N));
    for (int how = 0; how < 3; how++)
        for (int when = 1; when < 10; when += 8) { /* found before the second step; and after the last */
            svi *s = make(optim_adam(), elbo_trace());
            shaken = (kind){ .moves = true };
            wandering = 0.5;
            chosen = NULL;
            ck_assert(isnan(svi_run(s, 10, .args = PPL_VALUES(&shaken, 1.0, x), .next = shake,
                                    .user = (int[]){ when, how })));
            says(svi_error(s), words[how]);
            says(svi_error(s), "test_svi_run.c:");
            if (how == 1)
                says(svi_error(s), "it is 0.25, and was 0.5");
            ck_assert_int_eq(svi_steps(s), when == 1 ? 1 : 10);
            ck_assert(isfinite(svi_run(s, 10, .args = PPL_VALUES(&shaken, 1.0, x))));
            svi_free(s);
        }
    chosen = NULL;
}
END_TEST

static bool poison(void *user, int64_t step, ppl_arg *args)
{
    (void)args;
    double bad[N] = { 0, step == 7 ? NAN : 1 };
    return ad_write((ad_tensor *)user, bad, N);
}
START_TEST(a_run_ends_at_the_first_loss_that_is_not_finite)
{
    ad_tensor *x = ad_from(data[0], AD_SHAPE(N));
    double good[7], losses[STEPS], loc[2];
    kind k = { .calls = 0 };
    for (int run = 0; run < 2; run++) {
        svi *s = make(optim_adam(.lr = 0.05), elbo_trace());
        double mean = svi_run(s, run ? STEPS : 7, .args = PPL_VALUES(&k, 1.0, x), .next = poison, .user = x,
                              .losses = run ? losses : good);
        ck_assert(run ? isnan(mean) : isfinite(mean));
        ck_assert_int_eq(svi_steps(s), 7);
        ck_assert(ppl_param_value("loc", &loc[run], 1));
        if (run)
            says(svi_error(s), "the model's site \"x\" (normal)");
        svi_free(s);
    }
    ck_assert(loc[0] == loc[1] && !memcmp(good, losses, sizeof good) && isnan(losses[7]) && isnan(losses[STEPS - 1]));
}
END_TEST

START_TEST(bad_runs_are_refused)
{
    ad_tensor *x = ad_from(data[0], AD_SHAPE(N));
    kind k = { .calls = 0 };
    svi *s = make(optim_adam(), elbo_trace());
    ck_assert(isnan(svi_run(NULL, 3)));
    says(ad_error(), "svi_run: the svi is NULL");
    ck_assert(isnan(svi_run(s, 3, .args = PPL_VALUES(&k, x))));
    says(svi_error(s), "the model takes 3 arguments");
    ck_assert(isnan(svi_run(s, 3, .args = PPL_VALUES(&k, x, 1.0))));
    says(svi_error(s), "argument 2 of the model is double");
    ck_assert(isnan(svi_run(s, 0, .args = PPL_VALUES(&k, 1.0, x))));
    ck_assert_str_eq(svi_error(s), "");
    svi_free(s);
}
END_TEST

START_TEST(runs_allocate_nothing_once_warm)
{
    ad_tensor *x = ad_from(data[0], AD_SHAPE(N));
    kind k = { .calls = 0 };
    svi *s = make(optim_adam(), elbo_trace());
    for (int i = 0; i < 3; i++)
        svi_run(s, 5, .args = PPL_VALUES(&k, 1.0, x));
    ad_counters before = ad_count();
    for (int i = 0; i < 10; i++)
        ck_assert(isfinite(svi_run(s, 20, .args = PPL_VALUES(&k, 1.0, x))));
    ad_counters since = ad_count();
    ck_assert_uint_eq(since.allocations, before.allocations);
    ck_assert_uint_eq(since.misses, before.misses);
    ck_assert_uint_eq(since.hits, before.hits + 200);
    svi_free(s);
}
END_TEST

/* ---- minibatches ------------------------------------------------------------------------------------------------- */

static void rows_model(ad_tensor *x) /* x (B, WIDTH) */
{
    ad_tensor *mean = ppl_param("mean", AD_SHAPE(WIDTH));
    ppl_plate ("rows", ad_dim(x, 0), .full_size = 10)
        ppl_sample("x", dist_to_event(dist_normal(mean, 1), 1), .obs = x);
}
static void rows_guide(ad_tensor *x)
{
    (void)x;
}
static bool next_batch(void *user, int64_t step, ppl_arg *args)
{
    (void)step;
    ad_tensor *x;
    while (!loader_next(user, &x)) /* false between two epochs */
        if (!ad_ok())
            return false;
    args[0] = ppl_arg_tensor(x);
    return true;
}
START_TEST(minibatches_of_a_loader)
{
    uint8_t rows[10][WIDTH];
    for (int i = 0; i < 10; i++)
        for (int k = 0; k < WIDTH; k++)
            rows[i][k] = (uint8_t)(25 * i + 3 * k);
    double one[STEPS], many[STEPS];
    for (int run = 0; run < 2; run++) {
        loader *l = loader_new(&rows[0][0], 10, WIDTH, &(loader_options){ .batch_size = 4, .seed = 2 });
        ppl_seed(1);
        ppl_param_delete(NULL);
        svi *s = svi_new(rows_model, rows_guide, .args = PPL_ARGS(ad_tensor *), .optim = optim_adam(.lr = 0.1));
        if (run)
            ck_assert(isfinite(svi_run(s, STEPS, .next = next_batch, .user = l, .losses = many)));
        ppl_arg args[1];
        for (int i = 0; i < STEPS && !run && next_batch(l, i, args); i++)
            one[i] = svi_step_args(s, 1, args);
        ck_assert_str_eq(svi_error(s), "");
        svi_free(s);
        loader_free(l);
    }
    ck_assert(!memcmp(one, many, sizeof one));
    ck_assert(one[STEPS - 1] < one[0] && one[3] != one[0]);
}
END_TEST

Suite *suite_svi_run(void)
{
    Suite *s = suite_create("svi_run");
    TCase *t = tcase_create("svi_run");
    tcase_add_checked_fixture(t, begin, end);
    tcase_add_test(t, a_run_is_its_steps);
    tcase_add_test(t, whatever_changes_in_between);
    tcase_add_test(t, models_that_change_are_refused);
    tcase_add_test(t, a_run_ends_at_the_first_loss_that_is_not_finite);
    tcase_add_test(t, bad_runs_are_refused);
    tcase_add_test(t, runs_allocate_nothing_once_warm);
    tcase_add_test(t, minibatches_of_a_loader);
    suite_add_tcase(s, t);
    return s;
}
