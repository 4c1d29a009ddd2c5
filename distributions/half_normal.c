/* The half-normal distribution: the absolute value of a normal around 0. */
#include "distributions/formula.h"

static T sample(const dist_object *d, const ad_shape *shape, int draw)
{
    return (ad_mul)(d->parameter[0], (ad_abs)(ad_random_normal(*shape, draw)));
}

/* Twice the normal's density. */
static T log_prob(const dist_object *d, T x)
{
    T norm = (ad_add)((ad_log)(d->parameter[0]), k(HALF_LOG_2PI - LOG_2));
    return (ad_sub)((ad_mul)(k(-0.5), (ad_square)((ad_div)(x, d->parameter[0]))), norm);
}

static T mean(const dist_object *d) { return (ad_mul)(d->parameter[0], k(0.79788456080286535588)); } /* sqrt(2 / pi) */
static T variance(const dist_object *d) { return (ad_mul)((ad_square)(d->parameter[0]), k(1 - 2 / PI)); }
static T entropy(const dist_object *d)
{
    return (ad_add)((ad_log)(d->parameter[0]), k(0.5 + HALF_LOG_2PI - LOG_2));
}

const dist_class dist__half_normal = {
    .name = "half_normal",
    .n_parameters = 1,
    .parameter = { { .name = "scale", .constraint.kind = DIST_POSITIVE } },
    .support.kind = DIST_NONNEGATIVE,
    .has_rsample = true,
    .sample = sample,
    .log_prob = log_prob,
    .mean = mean,
    .variance = variance,
    .entropy = entropy,
};

distribution *(dist_half_normal)(T scale) { return dist_new(&dist__half_normal, (T[]){ scale }, 0); }
