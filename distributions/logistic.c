/* The logistic distribution. */
#include "distributions/formula.h"

/* loc + scale logit(u) */
static T sample(const dist_object *d, const ad_shape *shape, int draw)
{
    T u = ad_random_uniform(*shape, draw), z = (ad_sub)((ad_log)(u), (ad_log1p)((ad_neg)(u)));
    return (ad_add)(d->parameter[0], (ad_mul)(d->parameter[1], z));
}

/* The derivative of the sigmoid at z is sigmoid(z) sigmoid(-z). */
static T log_prob(const dist_object *d, T x)
{
    T z = (ad_div)((ad_sub)(x, d->parameter[0]), d->parameter[1]);
    T slope = (ad_add)((ad_log_sigmoid)(z), (ad_log_sigmoid)((ad_neg)(z)));
    return (ad_sub)(slope, (ad_log)(d->parameter[1]));
}

static T mean(const dist_object *d) { return d->parameter[0]; }
static T variance(const dist_object *d) { return (ad_mul)(k(PI * PI / 3), (ad_square)(d->parameter[1])); }
static T entropy(const dist_object *d) { return (ad_add)((ad_log)(d->parameter[1]), k(2)); }

const dist_class dist__logistic = {
    .name = "logistic",
    .n_parameters = 2,
    .parameter = { { .name = "loc" }, { .name = "scale", .constraint.kind = DIST_POSITIVE } },
    .has_rsample = true,
    .sample = sample,
    .log_prob = log_prob,
    .mean = mean,
    .variance = variance,
    .entropy = entropy,
};

distribution *(dist_logistic)(T loc, T scale) { return dist_new(&dist__logistic, (T[]){ loc, scale }, 0); }
