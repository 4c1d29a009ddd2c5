/* The log-normal distribution: exp of a normal. */
#include "distributions/formula.h"

static T sample(const dist_object *d, const ad_shape *shape, int draw)
{
    return (ad_exp)((ad_add)(d->parameter[0], (ad_mul)(d->parameter[1], ad_random_normal(*shape, draw))));
}

/* The normal's at log x, times dlog x/dx = 1 / x */
static T log_prob(const dist_object *d, T x)
{
    T log_x = (ad_log)(x), z = (ad_div)((ad_sub)(log_x, d->parameter[0]), d->parameter[1]);
    T norm = (ad_add)((ad_add)((ad_log)(d->parameter[1]), k(HALF_LOG_2PI)), log_x);
    return (ad_sub)((ad_mul)(k(-0.5), (ad_square)(z)), norm);
}

static T half_variance(const dist_object *d) { return (ad_mul)(k(0.5), (ad_square)(d->parameter[1])); }

static T mean(const dist_object *d) { return (ad_exp)((ad_add)(d->parameter[0], half_variance(d))); }

/* (exp(scale^2) - 1) mean^2 */
static T variance(const dist_object *d)
{
    return (ad_mul)((ad_expm1)((ad_square)(d->parameter[1])), (ad_square)(mean(d)));
}

static T entropy(const dist_object *d)
{
    return (ad_add)(d->parameter[0], (ad_add)((ad_log)(d->parameter[1]), k(0.5 + HALF_LOG_2PI)));
}

const dist_class dist__log_normal = {
    .name = "log_normal",
    .n_parameters = 2,
    .parameter = { { .name = "loc" }, { .name = "scale", .constraint.kind = DIST_POSITIVE } },
    .support.kind = DIST_POSITIVE,
    .has_rsample = true,
    .sample = sample,
    .log_prob = log_prob,
    .mean = mean,
    .variance = variance,
    .entropy = entropy,
};

distribution *(dist_log_normal)(T loc, T scale) { return dist_new(&dist__log_normal, (T[]){ loc, scale }, 0); }
