/* Is the coin fair? A Bernoulli model with a logit-normal guide, beside the exact Beta posterior. Run it without
 * arguments.
 *
 *   fairness ~ Uniform(0, 1), heads_i ~ Bernoulli(fairness);  exactly: fairness | heads ~ Beta(1 + heads, 1 + tails).
 *
 * The model speaks of logit = log(fairness / (1 - fairness)): that of a uniform number is logistic, and where the guide
 * makes it normal, fairness is logit-normal. */
#include "ppl/ppl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { FLIPS = 40, HEADS = 28, STEPS = 10000, DRAWS = 40000 };

static void model(ad_tensor *x) /* x (FLIPS): 1 heads, 0 tails */
{
    ad_tensor *logit = ppl_sample("logit", dist_logistic(0, 1));
    ppl_deterministic("fairness", ad_sigmoid(logit));
    ppl_plate ("flips", FLIPS) ppl_sample("heads", dist_bernoulli_logits(logit), .obs = x);
}

static void guide(ad_tensor *x)
{
    (void)x;
    ad_tensor *loc = ppl_param("loc", AD_SCALAR);
    ad_tensor *scale = ppl_param("scale", AD_SCALAR, .init = ppl_constant(0.5), .constraint = dist_positive());
    ppl_sample("logit", dist_normal(loc, scale));
}

static double fall(int64_t step, void *user) /* of the step size, to a thousandth */
{
    (void)user;
    return pow(1e-3, (double)step / STEPS);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        bool help = !strcmp(argv[1], "--help");
        fprintf(help ? stdout : stderr,
                "usage: coin, without arguments: fits a coin's fairness and prints it beside the exact posterior\n");
        return help ? 0 : 64;
    }
    double flips[FLIPS] = { 0 };
    for (int i = 0; i < HEADS; i++) flips[i] = 1;
    ad_tensor *x = ad_from(flips, AD_SHAPE(FLIPS));
    svi *s = svi_new(model, guide, .args = PPL_ARGS(ad_tensor *), .optim = optim_adam(.lr = 0.02, .schedule = fall));
    double loss = 0;
    for (int step = 0; step < STEPS && !isnan(loss); step++) loss = svi_step(s, x);

    static double fairness[DRAWS];
    ppl_predictive *p = ppl_predictive_new(model, guide, .args = PPL_ARGS(ad_tensor *), .samples = DRAWS,
                                           .sites = PPL_NAMES("fairness"), .vectorize = true);
    if (isnan(loss) || !ppl_predict(p, x) || !ppl_predictive_read(p, "fairness", fairness, DRAWS)) {
        fprintf(stderr, "coin: %s\n", s && *svi_error(s) ? svi_error(s) : ad_error());
        return 1;
    }
    double mean = 0, square = 0;
    for (int i = 0; i < DRAWS; i++) mean += fairness[i] / DRAWS, square += fairness[i] * fairness[i] / DRAWS;

    double a = 1 + HEADS, b = 1 + FLIPS - HEADS;
    printf("%d heads in %d flips\n", HEADS, FLIPS);
    printf("  fairness, fitted   %.4f +- %.4f\n", mean, sqrt(square - mean * mean));
    printf("  fairness, exactly  %.4f +- %.4f\n", a / (a + b), sqrt(a * b / (a + b + 1)) / (a + b));
    ppl_predictive_free(p);
    svi_free(s);
    ad_free(x);
    return 0;
}
