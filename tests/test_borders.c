/* Distributions at their borders and far out: densities, slopes, divergences and entropies where formulas overflow,
 * cancel or meet 0 times infinity; parameters that make no distribution; maps onto constraints at both ends. */
#include <float.h>

#include "distributions/class.h"
#include "tests/fixture.h"

#define LOG_PI 1.14472988584940017414

typedef struct density {
    const char *name;
    distribution *(*of)(void);
    double x, want;
} density;
#define D(name, expression)                                                                                            \
    static distribution *name(void)                                                                                    \
    {                                                                                                                  \
        return expression;                                                                                             \
    }
D(cauchy, dist_cauchy(0, 1))
D(cauchy_tiny, dist_cauchy(0, 1e-15))
D(cauchy_huge, dist_cauchy(0, 1e25))
D(half_cauchy, dist_half_cauchy(1))
D(gumbel, dist_gumbel(0, 1))
D(uniform_wide, dist_uniform(-3e38, 3e38))
D(uniform_unit, dist_uniform(0, 1))
D(geometric_rare, dist_geometric(1e-10))
D(geometric_sure, dist_geometric(1))
D(logits_inf, dist_bernoulli_logits(INFINITY))
D(logits_less, dist_bernoulli_logits(-INFINITY))
D(logits_20, dist_bernoulli_logits(20))

START_TEST(densities_far_out)
{
    const density rows[] = {
        { "cauchy", cauchy, 1e20, -LOG_PI - 2 * log(1e20) },
        { "cauchy", cauchy, 3e38, -LOG_PI - 2 * log(3e38) },
        { "cauchy", cauchy, 0, -LOG_PI },
        { "cauchy", cauchy, -1, -LOG_PI - M_LN2 },
        { "cauchy of a tiny scale", cauchy_tiny, 1e30, -LOG_PI - 2 * log(1e30) + log(1e-15) },
        { "cauchy of a huge scale", cauchy_huge, 1e-10, -LOG_PI - log(1e25) },
        { "half_cauchy", half_cauchy, 1e25, M_LN2 - LOG_PI - 2 * log(1e25) },
        { "half_cauchy", half_cauchy, 0, M_LN2 - LOG_PI },
        { "gumbel", gumbel, -INFINITY, -INFINITY },
        { "gumbel", gumbel, INFINITY, -INFINITY },
        { "gumbel", gumbel, -5, 5 - exp(5) },
        { "wide uniform", uniform_wide, 0, -log(3e38) - M_LN2 },
        { "uniform", uniform_unit, 0.3, 0 },
        { "uniform", uniform_unit, 1.5, -INFINITY },
        { "rare geometric", geometric_rare, 0, log(1e-10) },
        { "rare geometric", geometric_rare, 7, log(1e-10) - 7e-10 },
        { "sure geometric", geometric_sure, 0, 0 },
        { "sure geometric", geometric_sure, 1, -INFINITY },
        { "logit inf", logits_inf, 1, 0 },
        { "logit inf", logits_inf, 0, -INFINITY },
        { "logit -inf", logits_less, 0, 0 },
        { "logit -inf", logits_less, 1, -INFINITY },
        { "logit 20", logits_20, 1, -log1p(exp(-20)) },
        { "logit 20", logits_20, 0, -20 - exp(-20) },
        { "logit 20, gray", logits_20, 0.25, -15 - log1p(exp(-20)) },
    };
    for (int p = AD_FLOAT; p <= AD_DOUBLE; p++) {
        begin_as((ad_precision)p);
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
            ad_scope {
                double got = ad_item(dist_log_prob(rows[i].of(), ad_number(rows[i].x))), want = rows[i].want;
                fine();
                ck_assert_msg(got == want || fabs(got - want) <= (p == AD_FLOAT ? 1e-6 : 1e-14) *
                                                                     fmax(fabs(want), fabs(want) < 1e-6 ? 0 : 1),
                              "%s at %g: %.17g, should be %.17g", rows[i].name, rows[i].x, got, want);
            }
        end();
    }
}
END_TEST

/* Slopes and curvatures of the Cauchy at its mode, beside it and far out. */
START_TEST(cauchy_slopes)
{
    for (int p = AD_FLOAT; p <= AD_DOUBLE; p++) {
        begin_as((ad_precision)p);
        for (double at = -1e12; at <= 1e12; at += at < -2 ? -at / 2 : at < 2 ? 0.5 : at / 2) {
            double x = p == AD_FLOAT ? (double)(float)at : at, t = 1 / (1 + x * x);
            ad_tensor *v = ad_from(&x, AD_SHAPE(1)), *g, *h;
            ad_scope {
                ad_tensor *y = dist_log_prob(dist_cauchy(0, 1), v);
                ad_gradient(y, &v, 1, &g);
                ad_gradient(g, &v, 1, &h);
                double slope = -2 * x * t, curve = -2 * t + 4 * x * x * t * t, tolerance = p == AD_FLOAT ? 1e-5 : 1e-12;
                near(ad_item(ad_sum(g)), slope, tolerance * fabs(slope) + 1e-300);
                near(ad_item(ad_sum(h)), curve, tolerance * (2 * t) + 1e-300);
            }
            ad_free(v);
        }
        end();
    }
}
END_TEST

/* ---- divergences and entropies ----------------------------------------------------------------------------------- */

static double kl(distribution *p, distribution *q)
{
    return ad_item(ad_sum(dist_kl(p, q)));
}
static ad_tensor *vector(double a, double b, double c)
{
    return ad_stack(((ad_tensor *[]){ ad_number(a), ad_number(b), ad_number(c) }), 3, 0);
}

START_TEST(divergences_of_the_impossible)
{
    const double two = log1p(exp(-2));
    for (int p = AD_FLOAT; p <= AD_DOUBLE; p++) {
        double e = p == AD_FLOAT ? 2e-6 : 1e-14;
        begin_as((ad_precision)p);
        ad_scope {
            double logits[] = { 40, 1e6, 1e8, INFINITY };
            for (int i = 0; i < 4; i++) {
                near(kl(dist_bernoulli_logits(ad_number(logits[i])), dist_bernoulli_logits(2)), two, e);
                near(kl(dist_bernoulli_logits(ad_number(-logits[i])), dist_bernoulli_logits(2)), 2 + two, 2 * e);
            }
            ck_assert(kl(dist_bernoulli(0.5), dist_bernoulli(0)) == INFINITY);
            ck_assert(kl(dist_bernoulli(0.5), dist_bernoulli_logits(INFINITY)) == INFINITY);
            ck_assert(kl(dist_bernoulli(0), dist_bernoulli(0)) == 0 &&
                      kl(dist_bernoulli(1), dist_bernoulli_logits(INFINITY)) == 0);
            ck_assert(kl(dist_categorical(vector(1, 1, 0)), dist_categorical(vector(1, 0, 0))) == INFINITY);
            near(kl(dist_categorical(vector(1, 1, 0)), dist_categorical_logits(vector(0, 0, -INFINITY))), 0, e);
            near(kl(dist_categorical_logits(vector(0, 0, -INFINITY)), dist_categorical(vector(1, 3, 0))),
                 log(2) - 0.5 * log(3), e);
            near(kl(dist_half_normal(2), dist_half_normal(1)), 1.5 - M_LN2, e);
            near(kl(dist_uniform(0, 1), dist_uniform(-1, 3)), log(4), e);
            ck_assert(kl(dist_uniform(0, 4), dist_uniform(-1, 3)) == INFINITY);
            near(kl(dist_geometric(0.5), dist_geometric(0.25)), M_LN2 + log(0.5 / 0.75), e);
            near(kl(dist_geometric(1), dist_geometric(0.25)), log(4), e);
            near(kl(dist_cauchy(1, 2), dist_cauchy(0, 1)), log(10.0 / 8), e);
            near(kl(dist_cauchy(1e25, 1), dist_cauchy(0, 1)), 2 * log(1e25) - log(4), 200 * e);
            near(kl(dist_cauchy(0, 1e-30), dist_cauchy(0, 1)), log(1e30) - log(4), 200 * e);
            near(kl(dist_cauchy(0, 1e30), dist_cauchy(3, 1)), log(1e30) - log(4), 200 * e);
            near(kl(dist_cauchy(1e-3, 1e15), dist_cauchy(0, 1e15)), 0, 1e-30);
            near(kl(dist_cauchy(0, 1.001), dist_cauchy(0, 1)), 1e-6 / 4.004, 1e-9);
            near(kl(dist_gumbel(1, 2), dist_gumbel(0, 1)), -M_LN2 + 0.57721566490153286061 + 1 - 1 + exp(-1) * 2,
                 2 * e);
            near(ad_item(dist_entropy(dist_bernoulli_logits(INFINITY))), 0, 0);
            near(ad_item(dist_entropy(dist_bernoulli_logits(-30))), 31 * exp(-30), 1e3 * e * exp(-30));
            near(ad_item(dist_entropy(dist_bernoulli(0))), 0, 0);
            near(ad_item(dist_entropy(dist_geometric(1))), 0, 0);
            fine();
            dist_kl(dist_mask(dist_normal(0, 1), ad_number(1)), dist_normal(0, 1));
            error_says("one of them is masked");
        }
        end();
    }
}
END_TEST

START_TEST(slopes_beside_the_impossible)
{
    for (int p = AD_FLOAT; p <= AD_DOUBLE; p++) {
        begin_as((ad_precision)p);
        double logits[3] = { 0, 1, -INFINITY }, g[3], e = p == AD_FLOAT ? 1e-6 : 1e-14, s = 1 / (1 + exp(-1)),
               slope = s * (1 - s);
        ad_tensor *l = ad_from(logits, AD_SHAPE(3)), *d;
        ad_scope {
            ad_gradient(dist_entropy(dist_categorical_logits(l)), &l, 1, &d);
            ck_assert(ad_read(d, g, 3));
            near(g[0], slope, e);
            near(g[1], -slope, e);
            near(g[2], 0, 0);
            ad_gradient(dist_kl(dist_categorical_logits(l), dist_categorical(vector(1, 1, 0))), &l, 1, &d);
            ck_assert(ad_read(d, g, 3));
            near(g[0], -slope, e);
            near(g[1], slope, e);
            near(g[2], 0, 0);
            ad_gradient(d, &l, 1, &d);
            ck_assert(ad_read(d, g, 3) && isfinite(g[0]) && isfinite(g[1]) && g[2] == 0);
        }
        ad_free(l);
        end();
    }
}
END_TEST

/* ---- what makes no distribution ---------------------------------------------------------------------------------- */

static int which;
static ad_tensor *data;
static distribution *senseless(ad_tensor *x)
{
    ad_tensor *m = ad_mean(x); /* 1.5 */
    switch (which) {
    case 0:
        return dist_uniform(m, ad_sub(m, 1));
    case 1:
        return dist_uniform(m, m);
    case 2:
        return dist_uniform(0, ad_exp(ad_mul(1000, m)));
    case 3:
        return dist_geometric(ad_sub(m, 1.5));
    case 4:
        return dist_categorical(ad_mul(0, x));
    case 5:
        return dist_categorical(ad_neg(x));
    case 6:
        return dist_categorical_logits(ad_log(ad_mul(0, x)));
    case 7:
        return dist_normal(0, ad_sub(m, 2));
    default:
        return dist_bernoulli(m);
    }
}
enum { SENSELESS = 9 };
static void senseless_model(ad_tensor *x)
{
    ppl_sample("z", senseless(x));
}
static void senseless_guide(ad_tensor *x)
{
    (void)x, ppl_sample("z", dist_delta(0));
}
START_TEST(senseless_parameters)
{
    static const char *const parameter[SENSELESS] = { "high",  "high",   "high",  "probs", "probs",
                                                      "probs", "logits", "scale", "probs" };
    begin();
    data = ad_from(((double[]){ 1, 2 }), AD_SHAPE(2));
    for (which = 0; which < SENSELESS; which++)
        for (int vectorize = 0; vectorize < 2; vectorize++) {
            ppl_predictive *p = ppl_predictive_prior(senseless_model, .args = PPL_ARGS(ad_tensor *), .samples = 3,
                                                     .vectorize = vectorize);
            ck_assert_msg(!ppl_predict(p, data), "%d was not refused", which);
            error_says("site \"z\"");
            error_says(parameter[which]);
            ppl_predictive_free(p);
            ad_scope {
                ck_assert(ad_is_nil((ad_tensor *)ppl_trace_run(senseless_model, PPL_ARGS(ad_tensor *), data)));
                error_says("site \"z\"");
                error_says(parameter[which]);
            }
            svi *s = svi_new(senseless_model, senseless_guide, .args = PPL_ARGS(ad_tensor *), .optim = optim_sgd());
            ck_assert(isnan(svi_step(s, data)));
            says(svi_error(s), "site \"z\"");
            svi_free(s);
        }
    ad_free(data);
    end();
}
END_TEST

/* A trace looks at its program once; values are nobody's business there. */
static void sensible_model(ad_tensor *x)
{
    ppl_sample("z", dist_uniform(ad_mean(x), 9), .obs = ad_number(100));
}
START_TEST(traces_look_once)
{
    begin();
    ad_tensor *one = ad_from(((double[]){ 1, 2 }), AD_SHAPE(2)), *many = ad_from(((double[]){ 10, 20 }), AD_SHAPE(2));
    for (int i = 0; i < 3; i++)
        ad_scope {
            ppl_trace *t = ppl_trace_run(sensible_model, PPL_ARGS(ad_tensor *), i == 2 ? many : one);
            fine();
            ck_assert(ad_item(ppl_trace_log_prob_sum(t)) == -INFINITY);
        }
    ad_free(one), ad_free(many);
    end();
}
END_TEST

/* Numbers are what the context's precision makes of them. */
START_TEST(numbers_are_rounded_first)
{
    begin_as(AD_FLOAT);
    ad_scope {
        dist_uniform(1, 1 + 1e-12);
        error_says("uniform: high must be finite and greater than 1");
    }
    ad_scope {
        dist_uniform(0, 1e39);
        error_says("uniform: high must be finite");
    }
    ad_scope {
        dist_normal(0, 1e-50);
        error_says("normal: scale must be positive, found 0");
    }
    ad_scope {
        dist_geometric(1e-50);
        error_says("geometric: probs must be in (0, 1], found 0");
    }
    ad_scope {
        dist_bernoulli(1 + 1e-12);
        fine();
    }
    end();
    begin();
    ad_scope {
        dist_uniform(1, 1 + 1e-12), dist_normal(0, 1e-50), dist_uniform(0, 1e39), dist_geometric(1e-50);
        fine();
    }
    end();
}
END_TEST

static void positive_model(void)
{
    ppl_sample("z", dist_exponential(1));
}
static void wrong_guide(void)
{
    ppl_sample("z", dist_normal(-5, 0.1));
}
START_TEST(draws_outside_of_the_models_support)
{
    begin();
    svi *s = svi_new(positive_model, wrong_guide, .args = PPL_ARGS(), .optim = optim_sgd());
    ck_assert(isnan(svi_step(s)));
    says(svi_error(s), "site \"z\" (exponential): the value from the guide must be at least 0, found -");
    svi_free(s);
    end();
}
END_TEST

static ad_tensor *minus_square(const dist_object *d, ad_tensor *x)
{
    return ad_neg(ad_square(ad_sub(x, d->parameter[0])));
}
static const dist_class observed_only = {
    .name = "observed_only", .n_parameters = 1, .parameter = { { .name = "at" } }, .log_prob = minus_square
};
static const dist_class without_density = { .name = "without_density",
                                            .n_parameters = 1,
                                            .parameter = { { .name = "at" } } };
static const dist_class without_name = { .n_parameters = 1, .log_prob = minus_square };
static const dist_class of_too_many = { .name = "of_too_many", .n_parameters = 5, .log_prob = minus_square };
static const dist_class of_nameless = { .name = "of_nameless", .n_parameters = 1, .log_prob = minus_square };
static const dist_class of_deep = {
    .name = "of_deep", .n_parameters = 1, .parameter = { { .name = "at" } }, .event_dim = 3, .log_prob = minus_square
};
static const dist_class of_odd = {
    .name = "of_odd", .n_parameters = 1, .parameter = { { .name = "at", .event_dim = 99 } }, .log_prob = minus_square
};
static ad_tensor *square(const dist_object *d, ad_tensor *x)
{
    (void)d;
    return ad_neg(ad_square(x));
}
static const dist_class of_none = { .name = "of_none", .log_prob = square };
static void draws_from_it(void)
{
    ppl_sample("site", dist_new(&observed_only, (ad_tensor *[]){ ad_number(1) }, 0));
}
START_TEST(classes_with_holes)
{
    begin();
    ad_tensor *at[5] = { NULL };
    static const struct {
        const dist_class *of;
        const char *words;
    } rows[] = { { &without_density, "class without_density has no log_prob" },
                 { &without_name, "has no name" },
                 { &of_too_many, "says that it has 5 parameters" },
                 { &of_nameless, "parameter 0 of class of_nameless has no name" },
                 { &of_deep, "class of_deep says that a draw has 3 dimensions" },
                 { &of_odd, "parameter 0 of class of_odd has an event_dim that is none" },
                 { NULL, "is NULL" },
                 { &observed_only, "at is NULL" } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        ad_scope {
            dist_new(rows[i].of, at, 0);
            error_says(rows[i].words);
        }
    ad_scope { /* without parameters: the shape of its values */
        distribution *d = dist_expand(dist_new(&of_none, NULL, 0), AD_SHAPE(3));
        near(ad_item(ad_sum(dist_log_prob(d, ad_full_shape(AD_SHAPE(3), 2)))), -12, 0);
        ck_assert_int_eq(dist_event_dim(d), 0);
        fine();
    }
    ad_scope {
        near(ad_item(dist_log_prob(dist_new(&observed_only, (ad_tensor *[]){ ad_number(1) }, 0), ad_number(3))), -4, 0);
        ppl_trace_run(draws_from_it, PPL_ARGS());
        error_says("class observed_only has no sample");
        error_says("in site \"site\"");
    }
    end();
}
END_TEST

/* ---- maps at both ends ------------------------------------------------------------------------------------------- */

/* The logarithms of the distances of x (..., K) from both bounds, where there are two; of a simplex, from 0 and 1. */
static ad_tensor *distances(const dist_constraint *c, ad_tensor *x)
{
    ad_tensor *low = c->lower_tensor ? c->lower_tensor : ad_constant(c->lower);
    ad_tensor *high = c->upper_tensor ? c->upper_tensor : ad_constant(c->upper);
    if (c->kind == DIST_GREATER_THAN)
        return ad_log(ad_sub(x, low));
    if (c->kind == DIST_LESS_THAN)
        return ad_log(ad_sub(high, x));
    if (c->kind == DIST_INTERVAL)
        return ad_add(ad_log(ad_sub(x, low)), ad_log(ad_sub(high, x)));
    return ad_add(ad_log(x), ad_log1p(ad_neg(x)));
}

/* Onto no bound at either end, with finite slopes and log-Jacobian, and back without overflow. */
START_TEST(maps_stay_inside)
{
    for (int p = AD_FLOAT; p <= AD_DOUBLE; p++) {
        begin_as((ad_precision)p);
        for (int i = 0; i < 11; i++)
            for (double u = -1e4; u <= 1e4; u = u < -1 ? u / 2 : u < 1 ? u + 0.25 : u * 2)
                ad_scope {
                    ad_tensor *one = ad_full_shape(AD_SHAPE(1), 1), *t = ad_full_shape(AD_SHAPE(3), u), *g;
                    dist_constraint sets[] = { dist_unit_interval(),
                                               dist_interval(-2, 3),
                                               dist_interval(1e6, 1e6 + 1),
                                               dist_interval(0, 1e-20),
                                               dist_greater_than(1),
                                               dist_greater_than(-1e6),
                                               dist_less_than(5),
                                               dist_support(dist_uniform(1, 2)),
                                               dist_support(dist_uniform(ad_exp(one), ad_exp(ad_add(one, 1)))),
                                               dist_simplex(),
                                               dist_simplex() };
                    const dist_constraint *c = &sets[i];
                    dist_map map = i == 9 ? DIST_TRANSFORM_TO : DIST_BIJECT_TO;
                    if (i == 9)
                        t = ad_mul(t, ad_arange(3)); /* its softmax reaches both ends */
                    if (u > 60 && (c->kind == DIST_GREATER_THAN || c->kind == DIST_LESS_THAN))
                        continue; /* exp overflows */
                    ad_tensor *x = dist_constrain(c, map, t);
                    ad_gradient(ad_sum(distances(c, x)), &t, 1, &g);
                    double away = ad_item(ad_sum(distances(c, x))), slope = ad_item(ad_sum(g));
                    double back = ad_item(ad_sum(ad_abs(dist_unconstrain(c, map, x))));
                    ck_assert_msg(isfinite(away) && isfinite(slope) && isfinite(back),
                                  "%d: %g maps to a distance %g, slope %g, back %g", i, u, away, slope, back);
                    if (map == DIST_BIJECT_TO)
                        ck_assert(isfinite(ad_item(ad_sum(dist_log_det(c, t)))));
                    fine();
                }
        end();
    }
}
END_TEST

/* Sticks whose rest is beyond the digits of 1. */
START_TEST(sticks_come_back)
{
    for (int p = AD_FLOAT; p <= AD_DOUBLE; p++) {
        begin_as((ad_precision)p);
        const double u[] = { 12, -3, 7, -20 };
        double back[4];
        dist_constraint c = dist_simplex();
        ad_scope {
            ad_tensor *t = ad_from(u, AD_SHAPE(4));
            ck_assert(ad_read(dist_unconstrain(&c, DIST_BIJECT_TO, dist_constrain(&c, DIST_BIJECT_TO, t)), back, 4));
            for (int i = 0; i < 4; i++)
                near(back[i], u[i], p == AD_FLOAT ? 2e-5 : 1e-13);
            dist_constraint wide = dist_interval(-3e38, 3e38);
            near(ad_item(dist_constrain(&wide, DIST_BIJECT_TO, ad_number(1))) / 3e38, tanh(0.5), 1e-6);
            near(ad_item(dist_log_det(&wide, ad_number(0))), log(3e38) + M_LN2 - log(4), 1e-4);
            ad_free(t);
        }
        end();
    }
}
END_TEST

static double edge;
static void edge_guide(void)
{
    ppl_param("p", AD_SCALAR, .init = ppl_constant(edge), .constraint = dist_interval(-2, 2));
}
static void simplex_guide(void)
{
    static const double x[3] = { 0.5, 0.2, 0.1 };
    ppl_param("p", AD_SHAPE(3), .init = ppl_values(x), .constraint = dist_simplex());
}
static void nothing(void)
{
}
START_TEST(initial_values_are_told_truly)
{
    begin();
    edge = -2;
    svi *s = svi_new(nothing, edge_guide, .args = PPL_ARGS(), .optim = optim_sgd());
    ck_assert(isnan(svi_step(s)));
    says(svi_error(s), "at the border of what is in [-2, 2]");
    edge = -3;
    ck_assert(isnan(svi_step(s)));
    says(svi_error(s), "element 0 is -3, and must be in [-2, 2]");
    svi_free(s);
    s = svi_new(nothing, simplex_guide, .args = PPL_ARGS(), .optim = optim_sgd());
    ck_assert(isnan(svi_step(s)));
    says(svi_error(s), "elements 0 to 2 sum to 0.8");
    svi_free(s);
    end();
}
END_TEST

/* ---- the mean-field estimator where the two sides count differently ---------------------------------------------- */

static double scale_p, scale_q;
static void scaled_model(void)
{
    ppl_with (ppl_scale(scale_p))
        ppl_plate ("n", 5)
            ppl_sample("z", dist_normal(0, 1));
}
static void scaled_guide(void)
{
    ppl_with (ppl_scale(scale_q))
        ppl_plate ("n", 5)
            ppl_sample("z", dist_normal(0.5, 0.5));
}
static void tall_model(void)
{
    ppl_plate ("n", 5)
        ppl_sample("z", dist_normal(ad_zeros(5, 1), 1));
}
static void tall_guide(void)
{
    ppl_plate ("n", 5)
        ppl_sample("z", dist_normal(ad_zeros(5, 1), 0.5));
}
START_TEST(mean_field_of_unequal_scales)
{
    const double lp = -0.91893853320467274178 - 0.25, lq = -0.91893853320467274178 - 0.5 + M_LN2;
    begin();
    for (scale_p = 0.5; scale_p <= 2; scale_p *= 2)
        for (scale_q = 0.5; scale_q <= 2; scale_q *= 2) {
            svi *s = svi_new(scaled_model, scaled_guide, .args = PPL_ARGS(), .optim = optim_sgd(),
                             .elbo = elbo_mean_field());
            near(svi_evaluate(s), -5 * (scale_p * lp - scale_q * lq), 1e-12);
            svi_free(s);
        }
    svi *s = svi_new(tall_model, tall_guide, .args = PPL_ARGS(), .optim = optim_sgd(), .elbo = elbo_mean_field());
    ck_assert(isnan(svi_step(s)));
    says(svi_error(s), "site \"z\"");
    svi_free(s);
    end();
}
END_TEST

Suite *suite_borders(void)
{
    Suite *s = suite_create("borders");
    TCase *t = tcase_create("borders");
    tcase_add_test(t, densities_far_out);
    tcase_add_test(t, cauchy_slopes);
    tcase_add_test(t, divergences_of_the_impossible);
    tcase_add_test(t, slopes_beside_the_impossible);
    tcase_add_test(t, senseless_parameters);
    tcase_add_test(t, traces_look_once);
    tcase_add_test(t, numbers_are_rounded_first);
    tcase_add_test(t, draws_outside_of_the_models_support);
    tcase_add_test(t, classes_with_holes);
    tcase_add_test(t, maps_stay_inside);
    tcase_add_test(t, sticks_come_back);
    tcase_add_test(t, initial_values_are_told_truly);
    tcase_add_test(t, mean_field_of_unequal_scales);
    suite_add_tcase(s, t);
    return s;
}
