/* Gradients of the ELBO's estimators against closed forms: 100,000 draws each, at fixed seeds. All models are normal or
 * binary, so that the gradients of -ELBO are known exactly. */
#include "tests/fixture.h"

#include <math.h>

enum { N = 8, DRAWS = 100000, MOST = 4 };
static const double data[N] = { 0.3, 1.2, -0.4, 2.2, 0.9, 1.4, 0.1, 0.7 };
static double sum(void)
{
    double s = 0;
    for (int i = 0; i < N; i++)
        s += data[i];
    return s;
}

/* ---- judging ----------------------------------------------------------------------------------------------------- */

/* A parameter: where gradients are taken, and the exact one with respect to its unconstrained value. */
typedef enum scale_of { REAL, POSITIVE, UNIT } scale_of;
typedef struct coordinate {
    const char *name;
    scale_of scale;
    double at, exact;
} coordinate;

static double unconstrained(const coordinate *p, double x)
{
    return p->scale == POSITIVE ? log(x) : p->scale == UNIT ? log(x / (1 - x)) : x;
}

typedef void function(ad_tensor *x);

/* Steps of SGD with lr 1 move by exactly the gradient, from the same place each time. */
static void unbiased(function *model, function *guide, struct elbo e, const coordinate *p, int n)
{
    double mean[MOST] = { 0 }, square[MOST] = { 0 };
    int rounds = DRAWS / (e.particles ? e.particles : 1);
    ad_tensor *x = ad_from(data, AD_SHAPE(N));
    ppl_param_delete(NULL);
    svi *s = svi_new(model, guide, .args = PPL_ARGS(ad_tensor *), .optim = optim_sgd(.lr = 1), .elbo = e);
    svi_step(s, x);
    for (int i = 0; i < rounds; i++) {
        for (int k = 0; k < n; k++)
            ck_assert(ppl_param_set(p[k].name, &p[k].at, 1));
        ck_assert_msg(isfinite(svi_step(s, x)), "%s", svi_error(s));
        for (int k = 0; k < n; k++) {
            double moved;
            ck_assert(ppl_param_value(p[k].name, &moved, 1));
            double g = unconstrained(&p[k], p[k].at) - unconstrained(&p[k], moved);
            mean[k] += g / rounds, square[k] += g * g / rounds;
        }
    }
    for (int k = 0; k < n; k++) {
        double sd = sqrt(fmax(0, square[k] - mean[k] * mean[k]) / rounds) + 1e-12;
        ck_assert_msg(fabs(mean[k] - p[k].exact) < 5 * sd, "gradient of %s: %g, exactly %g, sd %g", p[k].name, mean[k],
                      p[k].exact, sd);
        ck_assert_double_lt(5 * sd, fmax(0.5, fabs(p[k].exact) / 2)); /* else nothing would be refused */
    }
    svi_free(s);
    ad_free(x);
}

/* Looped and vectorised particles. */
#define LOOPED(elbo_) elbo_(.particles = 50)
#define VECTORISED(elbo_) elbo_(.particles = 1000, .vectorize = true)

/* ---- one latent for all data: z ~ N(0, 1), x_i ~ N(z, 1) --------------------------------------------------------- */

static void global_model(ad_tensor *x)
{
    ad_tensor *z = ppl_sample("z", dist_normal(0, 1));
    ppl_plate ("data", N)
        ppl_sample("x", dist_normal(z, 1), .obs = x);
}
static void subsampled_model(ad_tensor *x)
{
    ad_tensor *z = ppl_sample("z", dist_normal(0, 1));
    ppl_plate ("data", N, .subsample_size = 3)
        ppl_sample("x", dist_normal(z, 1), .obs = ppl_subsample(x, 0));
}
static void scaled_model(ad_tensor *x) /* as if the data were there three times */
{
    ad_tensor *z = ppl_sample("z", dist_normal(0, 1));
    ppl_with (ppl_scale(3))
        ppl_plate ("data", N)
            ppl_sample("x", dist_normal(z, 1), .obs = x);
}
static distribution *q(const char *loc, const char *scale, bool pathwise)
{
    distribution *d = dist_normal(ppl_param(loc, AD_SCALAR), ppl_param(scale, AD_SCALAR, .init = ppl_constant(0.5),
                                                                       .constraint = dist_positive()));
    return dist_set_rsample(d, pathwise);
}
static void pathwise_guide(ad_tensor *x)
{
    (void)x;
    ppl_sample("z", q("loc", "scale", true));
}
static void score_guide(ad_tensor *x)
{
    (void)x;
    ppl_sample("z", q("loc", "scale", false));
}

/* -ELBO = E z^2 / 2 + times sum_i E (x_i - z)^2 / 2 - log scale + ... */
static void global_latent(function *model, double times, bool with_looped)
{
    const coordinate p[] = { { "loc", REAL, 0.4, (times * N + 1) * 0.4 - times * sum() },
                             { "scale", POSITIVE, 0.6, (times * N + 1) * 0.36 - 1 } };
    unbiased(model, pathwise_guide, VECTORISED(elbo_trace), p, 2);
    unbiased(model, score_guide, VECTORISED(elbo_trace), p, 2);
    unbiased(model, pathwise_guide, VECTORISED(elbo_mean_field), p, 2);
    if (!with_looped)
        return;
    unbiased(model, pathwise_guide, LOOPED(elbo_trace), p, 2);
    unbiased(model, score_guide, LOOPED(elbo_trace), p, 2);
    unbiased(model, pathwise_guide, LOOPED(elbo_mean_field), p, 2);
}
START_TEST(pathwise_score_function_and_mean_field)
{
    global_latent(global_model, 1, true);
}
END_TEST
START_TEST(scaled)
{
    global_latent(scaled_model, 3, false);
}
END_TEST
START_TEST(subsampled) /* looped: every particle draws members of its own */
{
    const coordinate p[] = { { "loc", REAL, 0.4, (N + 1) * 0.4 - sum() },
                             { "scale", POSITIVE, 0.6, (N + 1) * 0.36 - 1 } };
    unbiased(subsampled_model, pathwise_guide, LOOPED(elbo_trace), p, 2);
    unbiased(subsampled_model, score_guide, LOOPED(elbo_trace), p, 2);
    unbiased(subsampled_model, pathwise_guide, LOOPED(elbo_mean_field), p, 2);
}
END_TEST

/* ---- a latent for each datum, some masked away, the rest counted three times ------------------------------------- */

static const double keep[N] = { 1, 0, 1, 1, 0, 1, 1, 1 };
static ad_tensor *keep_tensor;

static void local_model(ad_tensor *x) /* z_i ~ N(0, 1), x_i ~ N(z_i, 1): masked data are NaN */
{
    ppl_with (ppl_scale(3))
        ppl_plate ("data", N)
            ppl_with (ppl_mask(keep_tensor))
                ppl_sample("x", dist_normal(ppl_sample("z", dist_normal(0, 1)), 1),
                           .obs = ad_where(keep_tensor, x, ad_constant(NAN)));
}
static void local_guide(bool pathwise)
{
    ppl_with (ppl_scale(3))
        ppl_plate ("data", N)
            ppl_with (ppl_mask(keep_tensor))
                ppl_sample("z", q("loc", "scale", pathwise));
}
static void local_pathwise_guide(ad_tensor *x)
{
    (void)x;
    local_guide(true);
}
static void local_score_guide(ad_tensor *x)
{
    (void)x;
    local_guide(false);
}
START_TEST(masked_in_plates)
{
    coordinate p[] = { { "loc", REAL, 0.4, 0 }, { "scale", POSITIVE, 0.6, 0 } };
    for (int i = 0; i < N; i++)
        p[0].exact += 3 * keep[i] * (2 * 0.4 - data[i]), p[1].exact += 3 * keep[i] * (2 * 0.36 - 1);
    keep_tensor = ad_from(keep, AD_SHAPE(N));
    unbiased(local_model, local_pathwise_guide, VECTORISED(elbo_trace), p, 2);
    unbiased(local_model, local_score_guide, VECTORISED(elbo_trace), p, 2);
    unbiased(local_model, local_pathwise_guide, VECTORISED(elbo_mean_field), p, 2);
    unbiased(local_model, local_score_guide, LOOPED(elbo_trace), p, 2);
}
END_TEST

/* ---- both kinds of gradient in one guide ------------------------------------------------------------------------- */

enum { AIM = 2 };
static void chain_model(ad_tensor *x) /* a ~ N(0, 1), b ~ N(a, 1), AIM ~ N(a + b, 1) */
{
    (void)x;
    ad_tensor *a = ppl_sample("a", dist_normal(0, 1)), *b = ppl_sample("b", dist_normal(a, 1));
    ppl_sample("x", dist_normal(ad_add(a, b), 1), .obs = ad_constant(AIM));
}
static void chain_guide(ad_tensor *x)
{
    (void)x;
    ppl_sample("a", q("a_loc", "a_scale", true));
    ppl_sample("b", q("b_loc", "b_scale", false));
}
static void switch_model(ad_tensor *x) /* z ~ N(0, 1), c ~ Bernoulli(0.3), AIM ~ N(z + 2 c, 1) */
{
    (void)x;
    ad_tensor *z = ppl_sample("z", dist_normal(0, 1)), *c = ppl_sample("c", dist_bernoulli(0.3));
    ppl_sample("x", dist_normal(ad_fma(c, 2, z), 1), .obs = ad_constant(AIM));
}
static void switch_guide(ad_tensor *x)
{
    (void)x;
    ppl_sample("z", q("loc", "scale", true));
    ppl_sample("c", dist_bernoulli(
                        ppl_param("probs", AD_SCALAR, .init = ppl_constant(0.5), .constraint = dist_unit_interval())));
}
START_TEST(mixed)
{
    const double a = 0.4, b = -0.3, m = 0.5, u = 0.35;
    const coordinate chain[] = { { "a_loc", REAL, a, a - (b - a) - (AIM - a - b) },
                                 { "a_scale", POSITIVE, 0.6, 3 * 0.36 - 1 },
                                 { "b_loc", REAL, b, (b - a) - (AIM - a - b) },
                                 { "b_scale", POSITIVE, 0.7, 2 * 0.49 - 1 } };
    const coordinate choice[] = {
        { "loc", REAL, m, m - (AIM - m) + 2 * u },
        { "scale", POSITIVE, 0.6, 2 * 0.36 - 1 },
        { "probs", UNIT, u, u * (1 - u) * (2 - 2 * (AIM - m) + log(u / (1 - u)) - log(0.3 / 0.7)) }
    };
    unbiased(chain_model, chain_guide, VECTORISED(elbo_trace), chain, 4);
    unbiased(chain_model, chain_guide, LOOPED(elbo_trace), chain, 4);
    unbiased(switch_model, switch_guide, VECTORISED(elbo_trace), choice, 3);
    unbiased(switch_model, switch_guide, LOOPED(elbo_trace), choice, 3);
}
END_TEST

Suite *suite_estimators(void)
{
    Suite *s = suite_create("estimators");
    TCase *t = tcase_create("estimators");
    tcase_add_checked_fixture(t, begin, end);
    tcase_add_test(t, pathwise_score_function_and_mean_field);
    tcase_add_test(t, scaled);
    tcase_add_test(t, subsampled);
    tcase_add_test(t, masked_in_plates);
    tcase_add_test(t, mixed);
    suite_add_tcase(s, t);
    return s;
}
