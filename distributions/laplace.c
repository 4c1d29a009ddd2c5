/* The Laplace (double exponential) distribution. */
#include "distributions/formula.h"

/* By the inverse distribution function, with the shorter of the tails u and 1 - u, which is never 0. */
static T sample(const dist_object *d, const ad_shape *shape, int draw)
{
    T u = ad_random_uniform(*shape, draw), tail = (ad_min)(u, (ad_sub)(k(1), u));
    T z = (ad_mul)((ad_sign)((ad_sub)(k(0.5), u)), (ad_log)((ad_mul)(k(2), tail)));
    return (ad_add)(d->parameter[0], (ad_mul)(d->parameter[1], z));
}

static T log_prob(const dist_object *d, T x)
{
    T z = (ad_div)((ad_abs)((ad_sub)(x, d->parameter[0])), d->parameter[1]);
    return (ad_sub)((ad_neg)(z), (ad_add)((ad_log)(d->parameter[1]), k(LOG_2)));
}

static T mean(const dist_object *d) { return d->parameter[0]; }
static T variance(const dist_object *d) { return (ad_mul)(k(2), (ad_square)(d->parameter[1])); }
static T entropy(const dist_object *d) { return (ad_add)((ad_log)(d->parameter[1]), k(1 + LOG_2)); }

const dist_class dist__laplace = {
    .name = "laplace",
    .n_parameters = 2,
    .parameter = { { .name = "loc" }, { .name = "scale", .constraint.kind = DIST_POSITIVE } },
    .has_rsample = true,
    .sample = sample,
    .log_prob = log_prob,
    .mean = mean,
    .variance = variance,
    .entropy = entropy,
};

distribution *(dist_laplace)(T loc, T scale) { return dist_new(&dist__laplace, (T[]){ loc, scale }, 0); }
