/* What callers write: options left out, options that mean 0, options that mean nothing; arrays that are too short;
 * arguments of every type; rules and names that match nothing. Each refusal has its words, and the next good call
 * works.
 */
#include "tests/fixture.h"

#include <math.h>
#include <string.h>

/* loss (w - 3)^2 / 2 + (v + 1)^2 / 2 + constant, from 1 and 2: gradients -2 and 3 */
static void parabola(void)
{
    ppl_sample("x", dist_normal(ppl_param("w", AD_SCALAR, .init = ppl_constant(1)), 1), .obs = ad_constant(3));
    ppl_sample("y", dist_normal(ppl_param("v.bias", AD_SCALAR, .init = ppl_constant(2)), 1), .obs = ad_constant(-1));
}
static void nothing(void)
{
}

/* w and v after some steps; from svi_options given as they are. */
typedef struct pair {
    double w, v;
} pair;
static pair after(svi *s, int steps)
{
    ck_assert_msg(s != NULL, "%s", ad_error());
    ppl_param_delete(NULL);
    for (int i = 0; i < steps; i++)
        ck_assert_msg(isfinite(svi_step(s)), "%s", svi_error(s));
    svi_free(s);
    return (pair){ parameter("w"), parameter("v.bias") };
}
#define AFTER(steps, ...) after(svi_new(parabola, nothing, .optim = __VA_ARGS__), steps)
static void same(pair a, pair b)
{
    near(a.w, b.w, 1e-12);
    near(a.v, b.v, 1e-12);
}

/* ---- options ----------------------------------------------------------------------------------------------------- */

START_TEST(what_is_left_out)
{
    pair adam = AFTER(3, optim_adam(.lr = 1e-3));
    same(after(svi_new(parabola, nothing), 3), adam);
    same(after(svi_new(parabola, nothing, .args = PPL_ARGS()), 3), adam);
    same(after(svi_new(parabola, nothing, .args = PPL_ARGS(void), .elbo = elbo_trace()), 3), adam);
    same(AFTER(3, { .lr = 1e-3 }), adam);
    same(AFTER(3, optim_adam()), adam);
    same(AFTER(1, optim_sgd()), (pair){ 1 + 0.01 * 2, 2 - 0.01 * 3 });
}
END_TEST

START_TEST(zero_is_meant)
{
    const double lr = 0.1;
    same(AFTER(2, optim_adam(.lr = PPL_ZERO)), (pair){ 1, 2 });
    same(AFTER(1, optim_adam(.lr = lr, .beta1 = PPL_ZERO)), AFTER(1, optim_adam(.lr = lr, .beta1_set = true)));
    /* beta1 = 0: the direction is g / |g| at the first step and at the second g / sqrt(mean of squares) */
    pair p = AFTER(2, optim_adam(.lr = lr, .beta1 = PPL_ZERO, .eps = PPL_ZERO));
    double v = 0, w = 1;
    for (int t = 1; t <= 2; t++) {
        v = 0.999 * v + 0.001 * (w - 3) * (w - 3);
        w -= lr * (w - 3) / sqrt(v / (1 - pow(0.999, t)));
    }
    near(p.w, w, 1e-12);
    p = AFTER(2, optim_adam(.lr = lr, .beta1 = PPL_ZERO, .beta2 = PPL_ZERO, .eps = PPL_ZERO)); /* the sign alone */
    same(p, (pair){ 1 + 2 * lr, 2 - 2 * lr });
    same(AFTER(1, optim_rmsprop(.lr = lr, .beta2 = PPL_ZERO, .eps = PPL_ZERO)), (pair){ 1 + lr, 2 - lr });
    same(AFTER(2, optim_clipped_adam(.lr = lr, .lrd = PPL_ZERO)), (pair){ 1, 2 });
    same(AFTER(3, optim_clipped_adam(.lr = lr, .clip_value = PPL_ZERO)),
         AFTER(3, optim_clipped_adam(.lr = lr, .clip_value = 1e9)));
    same(AFTER(2, optim_sgd(.lr = lr, .momentum = PPL_ZERO, .weight_decay = PPL_ZERO, .clip_value = PPL_ZERO,
                            .clip_tensor_norm = PPL_ZERO, .clip_global_norm = PPL_ZERO)),
         AFTER(2, optim_sgd(.lr = lr)));
}
END_TEST

/* In rules what is written counts, also 0; what is not is the optimiser's. */
START_TEST(zero_in_rules)
{
    static const optim_rule by_hand[] = { { "*.bias", .weight_decay = PPL_ZERO }, { .pattern = NULL } };
    const double lr = 0.1, decay = 0.5, w = 1 * (1 - lr * decay) + lr, no_decay = 2 - lr;
#define ADAMW(...) AFTER(1, optim_adamw(.lr = lr, .weight_decay = decay, .eps = PPL_ZERO, .rules = __VA_ARGS__))
    same(ADAMW(NULL), (pair){ w, 2 * (1 - lr * decay) - lr });
    same(ADAMW(optim_rules({ "*.bias", .weight_decay = 0 })), (pair){ w, no_decay });
    same(ADAMW(optim_rules({ "*.bias", .weight_decay = PPL_ZERO })), (pair){ w, no_decay });
    same(ADAMW(optim_rules({ .weight_decay = 0.0, .pattern = "*.bias" })), (pair){ w, no_decay });
    same(ADAMW(optim_rules({ "*.bias", 0.1, 0, false, false })), (pair){ w, no_decay });
    same(ADAMW(by_hand), (pair){ w, no_decay });
    same(ADAMW(optim_rules({ "*.bias", .lr = 0.2 })), (pair){ w, 2 * (1 - 0.2 * decay) - 0.2 });
    same(ADAMW(optim_rules({ "*.bias", .lr = 0 })), (pair){ w, 2 });
    same(ADAMW(optim_rules({ "w", .lr = 0.1 }, { "*.bias", .weight_decay = 0 })), (pair){ w, no_decay });
    same(ADAMW(optim_rules({ "w", .weight_decay = (decay) }, { "*.bias", .frozen = true })), (pair){ w, 2 });
    /* a name within a text or a value is none */
    same(ADAMW(optim_rules({ "*.bias", .lr = lr }, { "x, .weight_decay = 0 \"", .optional = true })),
         (pair){ w, 2 * (1 - lr * decay) - lr });
    /* the decay of a rule alone */
    same(AFTER(1, optim_sgd(.lr = lr, .rules = optim_rules({ "w", .weight_decay = decay }))),
         (pair){ 1 - lr * (-2 + decay), 2 - lr * 3 });
}
END_TEST

static double wrong_schedule(int64_t step, void *user)
{
    return step < 2 ? 1 : *(const double *)user;
}

START_TEST(senseless_numbers)
{
    const struct {
        struct optim optim;
        struct elbo elbo;
        const char *words;
    } rows[] = {
        { { .lr = -1 }, { 0 }, "the optimiser's lr is -1, and must be at least 0 and finite" },
        { { .lr = NAN }, { 0 }, "lr is nan" },
        { { .lr = INFINITY }, { 0 }, "lr is inf" },
        { { .beta1 = 1 }, { 0 }, "beta1 is 1, and must be at least 0 and below 1" },
        { { .beta2 = 2 }, { 0 }, "beta2 is 2" },
        { { .beta2 = -0.5 }, { 0 }, "beta2 is -0.5" },
        { { .beta1 = NAN }, { 0 }, "beta1 is nan" },
        { { .eps = -1e-8 }, { 0 }, "eps is -1e-08" },
        { { .momentum = -1 }, { 0 }, "momentum is -1" },
        { { .weight_decay = NAN }, { 0 }, "weight_decay is nan" },
        { { .lrd = -1 }, { 0 }, "lrd is -1" },
        { { .clip_value = -1 }, { 0 }, "clip_value is -1" },
        { { .clip_tensor_norm = NAN }, { 0 }, "clip_tensor_norm is nan" },
        { { .clip_global_norm = -1 }, { 0 }, "clip_global_norm is -1" },
        { { .kind = (optim_kind)77 }, { 0 }, "there is no optimiser 77" },
        { { .rules = optim_rules({ "w", .lr = -2 }) }, { 0 }, "the rule for \"w\": its lr is -2" },
        { { .rules = optim_rules({ "w", .lr = NAN }) }, { 0 }, "its lr is nan" },
        { { .rules = optim_rules({ "w", .weight_decay = -1 }) }, { 0 }, "its weight_decay is -1" },
        { { 0 }, { .particles = -3 }, "the elbo's particles is -3" },
        { { 0 }, { .particles = PPL_NONE }, "the elbo's particles is -1" },
        { { 0 }, { .particles = 1 << 20 }, "the elbo's particles is 1048576" },
        { { 0 }, { .max_plate_nesting = -2 }, "the elbo's max_plate_nesting is -2" },
        { { 0 }, { .max_plate_nesting = 40 }, "the elbo's max_plate_nesting is 40" },
        { { 0 }, { .kind = (elbo_kind)9 }, "there is no estimator 9" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        ck_assert_ptr_null(svi_new(parabola, nothing, .optim = rows[i].optim, .elbo = rows[i].elbo));
        error_says(rows[i].words);
        error_says("test_options.c");
    }
    after(svi_new(parabola, nothing,
                  .elbo = elbo_trace(.vectorize = true, .particles = 2, .max_plate_nesting = PPL_NONE)),
          1);
    static const double factors[] = { NAN, -1, INFINITY };
    for (int i = 0; i < 3; i++)
        for (int run = 0; run < 2; run++) {
            double factor = factors[i], losses[4];
            svi *s =
                svi_new(parabola, nothing, .optim = optim_sgd(.lr = 0.1, .schedule = wrong_schedule, .user = &factor));
            if (run)
                ck_assert(isnan(svi_run(s, 4, .losses = losses)) && isfinite(losses[1]) && isnan(losses[2]));
            else
                ck_assert(isfinite(svi_step(s)) && isfinite(svi_step(s)) && isnan(svi_step(s)));
            says(svi_error(s), "the optimiser's schedule gives ");
            says(svi_error(s), " at step 2");
            double before = parameter("w");
            ck_assert_int_eq(svi_steps(s), 2);
            factor = 1;
            ck_assert_msg(isfinite(svi_step(s)), "%s", svi_error(s));
            ck_assert(parameter("w") != before);
            svi_free(s);
        }
    svi *s = svi_new(parabola, nothing);
    ck_assert(isnan(svi_run(s, -5)));
    says(svi_error(s), "svi_run: steps is -5");
    ck_assert(isfinite(svi_run(s, 5)));
    svi_free(s);
    ck_assert_ptr_null(svi_new(NULL, nothing));
    error_says("svi_new: the model is NULL");
    ck_assert_ptr_null(svi_new(parabola, NULL));
    error_says("svi_new: the guide is NULL");
    ck_assert_ptr_null(ppl_predictive_new(parabola, nothing));
    error_says("ppl_predictive_new: samples is 0, and must be at least 1");
    ck_assert_ptr_null(ppl_predictive_new(parabola, nothing, .samples = -2));
    error_says("samples is -2");
    ck_assert_ptr_null(ppl_density_new((void (*)(void))NULL));
    error_says("ppl_density_new: the model is NULL");
}
END_TEST

/* ---- rules that match nothing ------------------------------------------------------------------------------------ */

static void staged(int stage)
{
    ppl_factor("early", ad_square(ppl_param("encoder.weight", AD_SCALAR)));
    if (stage)
        ppl_factor("late", ad_square(ppl_param("late.weight", AD_SCALAR, .init = ppl_constant(1))));
}
static void staged_nothing(int stage)
{
    (void)stage;
}

START_TEST(rules_that_match_nothing)
{
    svi *s = svi_new(
        staged, staged_nothing, .args = PPL_ARGS(int),
        .optim = optim_sgd(.lr = 0.1, .rules = optim_rules({ "enc*", .lr = 0.2 }, { "encoder.wieght", .lr = 1 })));
    ck_assert(isnan(svi_step(s, 0)));
    says(svi_error(s), "the optimiser's rule 2, \"encoder.wieght\", matches no parameter");
    says(svi_error(s), "did you mean \"encoder.weight\"? there is \"encoder.weight\"");
    ck_assert_int_eq(ppl_param_count(), 0);
    svi_free(s);
    s = svi_new(staged, staged_nothing, .args = PPL_ARGS(int),
                .optim = optim_sgd(.lr = 0.1, .rules = optim_rules({ "late*", .frozen = true })));
    ck_assert(isnan(svi_step(s, 0)) && isnan(svi_run(s, 3, .args = PPL_VALUES(0))));
    ck_assert_msg(isfinite(svi_step(s, 1)), "%s", svi_error(s)); /* now it has come */
    ck_assert(isfinite(svi_step(s, 0)));
    svi_free(s);
    ppl_param_delete(NULL);
    s = svi_new(staged, staged_nothing, .args = PPL_ARGS(int),
                .optim = optim_sgd(.lr = 0.1, .rules = optim_rules({ "late*", .frozen = true, .optional = true })));
    ck_assert(isfinite(svi_step(s, 0)) && isfinite(svi_step(s, 1)));
    near(parameter("late.weight"), 1, 0);
    svi_free(s);
}
END_TEST

/* ---- arrays ------------------------------------------------------------------------------------------------------ */

static void shaped(void)
{
    ad_tensor *w = ppl_param("w", AD_SHAPE(4));
    ppl_factor("f", ad_neg(ad_sum(ad_square(w))));
    ppl_sample("z", dist_to_event(dist_normal(ad_zeros(2), 1.0), 1));
}
static void shaped_guide(void)
{
    ppl_sample("z", dist_to_event(dist_normal(ad_zeros(2), 1.0), 1));
}
static void with_values(const double *unused)
{
    static const double three[3] = { 1, 2, 3 };
    (void)unused;
    ppl_factor("f", ad_sum(ppl_param("short", AD_SHAPE(4), .init = ppl_values(three))));
}
static void with_nothing(const double *unused)
{
    (void)unused;
}

START_TEST(arrays_that_are_too_short)
{
    double three[3] = { 1, 2, 3 }, grid[2][3] = { { 1, 2, 3 }, { 4, 5, 6 } }, few[2], *pointer = grid[0];
    struct {
        float a[3], b[2];
    } members = { { 1, 2, 3 }, { 4, 5 } };
    ck_assert_ptr_null(ad_from(three, AD_SHAPE(4)));
    error_says("ad_from: the shape wants 4 elements; the array has 3");
    error_says("test_options.c");
    ck_assert_ptr_null(ad_from(((int[]){ 1, 2 }), AD_SHAPE(2, 2)));
    error_says("the shape wants 4 elements; the array has 2");
    ck_assert_ptr_null(ad_from(((double[]){ 1, 2 }), AD_SHAPE(5)));
    ck_assert_ptr_null(ad_from(grid[0], AD_SHAPE(7)));
    ck_assert_ptr_null(ad_from(members.b, AD_SHAPE(6)));
    ad_tensor *t[] = { ad_from(three, AD_SHAPE(3)),     ad_from(grid[0], AD_SHAPE(2, 3)), ad_from(pointer, AD_SHAPE(6)),
                       ad_from(members.a, AD_SHAPE(3)), ad_from(three, AD_SHAPE(2)),      ad_from(three, AD_SCALAR) };
    for (int i = 0; i < 6; i++)
        ck_assert(!ad_is_nil(t[i]));
    ck_assert(!ad_read(t[1], few, 6));
    error_says("ad_read is asked for 6 elements; the array has 2");
    ck_assert(ad_read(t[4], few, 2) && few[1] == 2);
    ck_assert(!ad_write(t[1], three, 6));
    error_says("ad_write is asked for 6 elements; the array has 3");
    ck_assert(ad_write(t[1], grid[0], 6));
    for (int i = 0; i < 6; i++)
        ad_free(t[i]);

    svi *s = svi_new(shaped, shaped_guide);
    ck_assert_msg(isfinite(svi_step(s)), "%s", svi_error(s));
    svi_free(s);
    ck_assert(!ppl_param_value("w", three, 4));
    error_says("ppl_param_value is asked for 4 elements; the array has 3");
    ck_assert(!ppl_param_value("w", three, 3));
    error_says("parameter \"w\" has shape (4,), 4 elements; 3 were asked for");
    ck_assert(!ppl_param_set("w", three, 4));
    error_says("ppl_param_set is asked for 4 elements; the array has 3");
    double four[4] = { 4, 3, 2, 1 };
    ck_assert(ppl_param_set("w", four, 4) && ppl_param_value("w", four, 4) && four[3] == 1);

    ppl_predictive *p = ppl_predictive_prior(shaped, .samples = 2);
    ck_assert_msg(ppl_predict(p), "%s", ad_error());
    ck_assert(!ppl_predictive_read(p, "z", three, 4));
    error_says("ppl_predictive_read is asked for 4 elements; the array has 3");
    ck_assert(ppl_predictive_read(p, "z", four, 4));
    ppl_predictive_free(p);

    ppl_density *d = ppl_density_new(shaped);
    double two[2] = { 0, 0 }, one[1], nine[9];
    ck_assert(isnan(ppl_density_value(d, one, NULL)));
    error_says("ppl_density_value: the vector has 2 elements; the array has 1");
    ck_assert(isnan(ppl_density_value(d, two, one)));
    error_says("ppl_density_value: the gradient has 2 elements; the array has 1");
    ck_assert(!ppl_density_hessian(d, two, three));
    error_says("the derivatives have 4 elements; the array has 3");
    ck_assert(isfinite(ppl_density_value(d, two, two)) && ppl_density_hessian(d, two, nine));
    ppl_density_free(d);

    s = svi_new(with_values, with_nothing, .args = PPL_ARGS(const double *));
    ck_assert(isnan(svi_step(s, NULL)));
    says(svi_error(s), "parameter \"short\": shape (4,) wants 4 initial values; the array has 3");
    svi_free(s);
}
END_TEST

/* ---- arguments --------------------------------------------------------------------------------------------------- */

typedef enum colour { RED, BLUE = 7 } colour;
static int seen;
static void every(bool a, char b, signed char c, short d, int e, long f, long long g, unsigned char h, unsigned short i,
                  unsigned j, unsigned long k, const double *l)
{
    seen = a && b == 'b' && c == -3 && d == -4 && e == -5 && f == -6 && g == -7 && h == 200 && i == 60000 &&
           j == 4000000000u && k == 18446744073709551615ul && l[0] == 2.5;
}
static void others(colour a, float b, ad_tensor *c)
{
    seen = a == BLUE && b == 0.5f && !c;
}
static void taking(ad_tensor *x, int n, const double *v)
{
    seen = n + (x != NULL) + (v != NULL);
    ppl_sample("z", dist_normal(0, 1));
}
static void not_taking(ad_tensor *x, int n, const double *v)
{
    (void)x, (void)n, (void)v;
    ppl_sample("z", dist_normal(0, 1));
}
START_TEST(arguments_of_every_type)
{
    static const double data[] = { 2.5 };
    ad_scope {
        ppl_trace_run(every,
                      PPL_ARGS(bool, char, signed char, short, int, long, long long, unsigned char, unsigned short,
                               unsigned, unsigned long, const double *),
                      true, 'b', (signed char)-3, (short)-4, -5, -6L, -7LL, (unsigned char)200, (unsigned short)60000,
                      4000000000u, 18446744073709551615ul, data);
        fine();
        ck_assert_int_eq(seen, 1);
        ppl_trace_run(others, PPL_ARGS(colour, float, ad_tensor *), BLUE, 0.5, NULL);
        ck_assert_int_eq(seen, 1);
        ppl_trace *t = ppl_trace_run(nothing);
        ck_assert_int_eq(ppl_trace_size(t), 0);
        fine();
    }
    svi *s = svi_new(taking, not_taking, .args = PPL_ARGS(ad_tensor *, int, const double *));
    ad_tensor *x = ad_from(data, AD_SCALAR);
    ck_assert_msg(isfinite(svi_step(s, NULL, 10, NULL)) && seen == 10, "%s", svi_error(s));
    ck_assert_msg(isfinite(svi_step(s, x, BLUE, data)) && seen == 9, "%s", svi_error(s));
    ck_assert(isfinite(svi_step(s, x, 10.0, NULL)) && seen == 11);
    ck_assert(isfinite(svi_evaluate(s, NULL, 1, NULL)));
    ck_assert(isfinite(svi_run(s, 3, .args = PPL_VALUES(NULL, 2, NULL))));
    static const struct {
        const char *words;
        int case_;
    } rows[] = { { "the model takes 3 arguments (ad_tensor *, int, const double *); 0 were given", 0 },
                 { "the model takes 3 arguments (ad_tensor *, int, const double *); 1 was given", 1 },
                 { "argument 1 of the model is ad_tensor *; another pointer was given", 2 },
                 { "argument 1 of the model is ad_tensor *; a number was given", 3 },
                 { "argument 2 of the model is int; a number that is no integer was given", 4 },
                 { "argument 2 of the model is int; the number given is out of its range", 5 },
                 { "argument 2 of the model is int; a tensor was given", 6 },
                 { "argument 2 of the model is int; a pointer was given", 7 },
                 { "argument 3 of the model is const double *; a tensor was given", 8 } };
    for (int i = 0; i < (int)(sizeof rows / sizeof *rows); i++) {
        double loss = i == 0   ? svi_step(s)
                      : i == 1 ? svi_step(s, x)
                      : i == 2 ? svi_step(s, data, 1, NULL)
                      : i == 3 ? svi_step(s, 1, 1, NULL)
                      : i == 4 ? svi_step(s, x, 1.5, NULL)
                      : i == 5 ? svi_step(s, x, 3000000000u, NULL)
                      : i == 6 ? svi_step(s, x, x, NULL)
                      : i == 7 ? svi_step(s, x, data, NULL)
                               : svi_step(s, x, 1, x);
        ck_assert(isnan(loss));
        says(svi_error(s), rows[i].words);
        ck_assert(isfinite(svi_step(s, x, 1, NULL)));
    }
    svi_free(s);
    ck_assert_ptr_null(svi_new(taking, not_taking));
    error_says("svi_new: .args is missing, the types of the model's parameters");
    ck_assert_ptr_null(ppl_predictive_new(taking, not_taking, .samples = 3));
    error_says("ppl_predictive_new: .args is missing");
    ppl_predictive *p =
        ppl_predictive_new(taking, NULL, .args = PPL_ARGS(ad_tensor *, int, const double *), .samples = 3);
    ck_assert_msg(ppl_predict(p, NULL, 3, NULL), "%s", ad_error());
    ppl_predictive_free(p);
    ad_free(x);
}
END_TEST

/* ---- names ------------------------------------------------------------------------------------------------------- */

static void two_sites(ad_tensor *x)
{
    ad_tensor *z = ppl_sample("height", dist_normal(0, 1));
    ppl_plate ("rows", 2)
        ppl_sample("weight", dist_normal(z, 1), .obs = x);
}
static int visits;
static void sometimes(void)
{
    if (visits++ % 2)
        ppl_sample("odd", dist_normal(0, 1));
    ppl_sample("always", dist_normal(0, 1));
}

START_TEST(names_that_are_not_there)
{
    double x[8];
    ppl_predictive *p = ppl_predictive_prior(two_sites, .args = PPL_ARGS(ad_tensor *), .samples = 4);
    ck_assert(!ppl_predictive_read(p, "height", x, 4));
    error_says("there are no predictions of a site \"height\"\n  hint: there are none yet; call ppl_predict first");
    ck_assert(ppl_predict(p, NULL));
    ck_assert(!ppl_predictive_read(p, "hieght", x, 4));
    error_says("there are no predictions of a site \"hieght\"\n  hint: did you mean \"height\"? there are \"height\", "
               "\"weight\"; observed sites are kept only when .sites names them");
    ck_assert(!ppl_predictive_read(p, NULL, x, 4));
    error_says("the site is NULL");
    ck_assert(!ppl_predictive_read(p, "height", x, 8));
    error_says("site \"height\" has 4 draws of 1");
    ck_assert_int_eq(ppl_predictive_shape(p, "nowhere").rank, 0);
    error_says("there are no predictions of a site \"nowhere\"");
    ck_assert(ppl_predictive_read(p, "height", x, 4) && ppl_predictive_shape(p, "weight").dim[0] == 2);
    ck_assert(!ppl_predict(p));
    error_says("the model takes 1 argument (ad_tensor *); 0 were given");
    ck_assert(!ppl_predict(p, 3));
    error_says("argument 1 of the model is ad_tensor *; a number was given");
    ck_assert(ppl_predict(p, NULL));
    ppl_predictive_free(p);
    for (int vectorize = 0; vectorize < 2; vectorize++) {
        p = ppl_predictive_prior(two_sites, .args = PPL_ARGS(ad_tensor *), .samples = 4, .vectorize = vectorize,
                                 .sites = PPL_NAMES("height", "wight"));
        ck_assert(!ppl_predict(p, NULL));
        error_says(".sites names \"wight\", which is no site of the model\n  hint: did you mean \"weight\"?");
        ppl_predictive_free(p);
    }
    p = ppl_predictive_prior(sometimes, .samples = 4, .sites = PPL_NAMES("odd"));
    ck_assert_msg(ppl_predict(p), "%s", ad_error());
    ck_assert(ppl_predictive_read(p, "odd", x, 4));
    ck_assert(isnan(x[0]) && isfinite(x[1]) && isnan(x[2]) && isfinite(x[3]));
    ppl_predictive_free(p);

    ad_tensor *data = ad_from(((double[]){ 1, 2 }), AD_SHAPE(2));
    ppl_density *d = ppl_density_new(two_sites, PPL_ARGS(ad_tensor *), data);
    double u[1] = { 0 };
    ck_assert(!ppl_density_constrained(d, u, "heihgt", x, 1));
    error_says("the density has no latent site \"heihgt\"\n  hint: did you mean \"height\"? there is \"height\"");
    ck_assert(!ppl_density_constrained(d, u, "height", x, 2));
    error_says("site \"height\" has 1 elements; 2 were asked for");
    ck_assert(isnan(ppl_density_value(d, (double *)NULL, NULL)));
    error_says("ppl_density_value: the vector is NULL");
    ck_assert(ppl_density_constrained(d, u, "height", x, 1) && isfinite(ppl_density_value(d, u, NULL)));
    ppl_density_free(d);
    ck_assert(isnan(ppl_density_value(NULL, u, NULL)));
    error_says("ppl_density_value: the object is NULL");

    svi *s = svi_new(parabola, nothing);
    ck_assert(isfinite(svi_step(s)));
    ck_assert(!ppl_param_value("bias", x, 1));
    error_says(
        "there is no parameter \"bias\"\n  hint: did you mean \"v.bias\"? there are \"w\", \"v.bias\"; a parameter is");
    svi_free(s);
    ad_scope {
        ppl_trace *t = ppl_trace_run(two_sites, PPL_ARGS(ad_tensor *), data);
        ppl_trace_value(t, "Height");
        error_says("the trace has no site \"Height\"\n  hint: did you mean \"height\"? there are");
    }
    ad_free(data);
}
END_TEST

/* ---- numbers of parameters --------------------------------------------------------------------------------------- */

static int way;
static void reading(void)
{
    ad_tensor *w = ppl_param("w", AD_SCALAR, .init = ppl_constant(2));
    ad_tensor *scale = ppl_param("scale", AD_SCALAR, .init = ppl_constant(1), .constraint = dist_positive());
    ad_tensor *used = ppl_param("used", AD_SCALAR);
    if (way == 0) /* the number goes back */
        ppl_factor("f", ad_sub(ad_mul(ad_item(w), used), scale));
    if (way == 1)
        ppl_factor("f", ad_sub(ad_mul(2 * ad_item(ad_exp(scale)), used), w));
    if (way == 2) /* what a C if needs */
        ppl_factor("f", ad_item(w) > 0 ? ad_sub(ad_mul(w, used), scale) : scale);
    if (way == 3) /* meant */
        ppl_factor("f", ad_sub(ad_mul(ad_item(ad_stop_gradient(w)), used), scale));
    if (way == 4) /* not read: as in Pyro, no word */
        ppl_factor("f", used);
}

START_TEST(numbers_cut_gradients)
{
    static const char *const words[] = { "parameter \"w\" was read as a number",
                                         "parameter \"scale\" was read as a number", NULL, NULL, NULL };
    for (way = 0; way < 5; way++) {
        svi *s = svi_new(reading, nothing);
        double loss = svi_step(s);
        ck_assert_msg(isnan(loss) == (words[way] != NULL), "%d: %s", way, svi_error(s));
        if (words[way]) {
            says(svi_error(s), words[way]);
            says(svi_error(s), "ad_item(ad_stop_gradient(p))");
            says(svi_error(s), "test_options.c");
            ck_assert_int_eq(ppl_param_count(), 0);
        }
        svi_free(s);
        ppl_param_delete(NULL);
    }
    way = 0;
    svi *s = svi_new(reading, nothing, .optim = optim_adam(.rules = optim_rules({ "w", .frozen = true })));
    ck_assert_msg(isfinite(svi_step(s)), "%s", svi_error(s));
    svi_free(s);
}
END_TEST

Suite *suite_options(void)
{
    Suite *s = suite_create("options");
    TCase *t = tcase_create("options");
    tcase_add_checked_fixture(t, begin, end);
    tcase_add_test(t, what_is_left_out);
    tcase_add_test(t, zero_is_meant);
    tcase_add_test(t, zero_in_rules);
    tcase_add_test(t, senseless_numbers);
    tcase_add_test(t, rules_that_match_nothing);
    tcase_add_test(t, arrays_that_are_too_short);
    tcase_add_test(t, arguments_of_every_type);
    tcase_add_test(t, names_that_are_not_there);
    tcase_add_test(t, numbers_cut_gradients);
    suite_add_tcase(s, t);
    return s;
}
