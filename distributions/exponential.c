/* The exponential distribution. */
#include "distributions/formula.h"

static T sample(const dist_object *d, const ad_shape *shape, int draw)
{
    return (ad_div)((ad_neg)((ad_log)(ad_random_uniform(*shape, draw))), d->parameter[0]);
}

static T log_prob(const dist_object *d, T x)
{
    return (ad_sub)((ad_log)(d->parameter[0]), (ad_mul)(d->parameter[0], x));
}

static T mean(const dist_object *d) { return (ad_reciprocal)(d->parameter[0]); }
static T variance(const dist_object *d) { return (ad_reciprocal)((ad_square)(d->parameter[0])); }
static T entropy(const dist_object *d) { return (ad_sub)(k(1), (ad_log)(d->parameter[0])); }

const dist_class dist__exponential = {
    .name = "exponential",
    .n_parameters = 1,
    .parameter = { { .name = "rate", .constraint.kind = DIST_POSITIVE } },
    .support.kind = DIST_NONNEGATIVE,
    .has_rsample = true,
    .sample = sample,
    .log_prob = log_prob,
    .mean = mean,
    .variance = variance,
    .entropy = entropy,
};

distribution *(dist_exponential)(T rate) { return dist_new(&dist__exponential, (T[]){ rate }, 0); }
