/* The normal distribution. */
#include "distributions/formula.h"

static T sample(const dist_object *d, const ad_shape *shape, int draw)
{
    return (ad_fma)(d->parameter[1], ad_random_normal(*shape, draw), d->parameter[0]);
}

static T log_prob(const dist_object *d, T x)
{
    return (ad_normal_log_density)(x, d->parameter[0], d->parameter[1], (ad_log)(d->parameter[1]));
}

static T mean(const dist_object *d) { return d->parameter[0]; }
static T variance(const dist_object *d) { return (ad_square)(d->parameter[1]); }
static T entropy(const dist_object *d) { return (ad_add)((ad_log)(d->parameter[1]), k(0.5 + HALF_LOG_2PI)); }

const dist_class dist__normal = {
    .name = "normal",
    .n_parameters = 2,
    .parameter = { { .name = "loc" }, { .name = "scale", .constraint.kind = DIST_POSITIVE } },
    .has_rsample = true,
    .sample = sample,
    .log_prob = log_prob,
    .mean = mean,
    .variance = variance,
    .entropy = entropy,
};

distribution *(dist_normal)(T loc, T scale) { return dist_new(&dist__normal, (T[]){ loc, scale }, 0); }
