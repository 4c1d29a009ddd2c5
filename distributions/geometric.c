/* The geometric distribution: failures before the first success. */
#include "distributions/formula.h"

/* floor(log u / log(1 - probs)): P(draw >= n) = P(u <= (1 - probs)^n). probs = 1 gives 0 / inf, a 0. */
static T sample(const dist_object *d, const ad_shape *shape, int draw)
{
    T u = ad_random_uniform(*shape, draw);
    return (ad_floor)((ad_div)((ad_log)(u), (ad_log1p)((ad_neg)(d->parameter[0]))));
}

/* log(1 - p) */
static T log_failure(const dist_object *d) { return (ad_log1p)((ad_neg)(d->parameter[0])); }

/* x log(1 - p) + log p; no failure at p = 1 is certain, another number of them impossible */
static T log_prob(const dist_object *d, T x)
{
    return (ad_add)((ad_mul_zero)(x, log_failure(d)), (ad_log)(d->parameter[0]));
}

static T odds(const dist_object *d) { return (ad_div)((ad_sub)(k(1), d->parameter[0]), d->parameter[0]); }
static T mean(const dist_object *d) { return odds(d); }
static T variance(const dist_object *d) { return (ad_div)(odds(d), d->parameter[0]); }

/* The entropy of one trial, divided by probs. */
static T entropy(const dist_object *d)
{
    T p = d->parameter[0], failure = (ad_mul_zero)((ad_sub)(k(1), p), log_failure(d));
    return (ad_neg)((ad_add)((ad_div)(failure, p), (ad_log)(p)));
}

const dist_class dist__geometric = {
    .name = "geometric",
    .n_parameters = 1,
    .parameter = { { .name = "probs", .constraint.kind = DIST_PROBABILITY } },
    .support.kind = DIST_NONNEGATIVE_INTEGER,
    .discrete = true,
    .sample = sample,
    .log_prob = log_prob,
    .mean = mean,
    .variance = variance,
    .entropy = entropy,
};

distribution *(dist_geometric)(T probs) { return dist_new(&dist__geometric, (T[]){ probs }, 0); }
