/* The uniform distribution on an interval. */
#include "distributions/formula.h"

static T width(const dist_object *d) { return (ad_sub)(d->parameter[1], d->parameter[0]); }

static T sample(const dist_object *d, const ad_shape *shape, int draw)
{
    return (ad_add)(d->parameter[0], (ad_mul)(width(d), ad_random_uniform(*shape, draw)));
}

static T log_prob(const dist_object *d, T x)
{
    (void)x;
    return (ad_neg)((ad_log)(width(d)));
}

static T mean(const dist_object *d) { return (ad_mul)(k(0.5), (ad_add)(d->parameter[0], d->parameter[1])); }
static T variance(const dist_object *d) { return (ad_mul)(k(1.0 / 12), (ad_square)(width(d))); }
static T entropy(const dist_object *d) { return (ad_log)(width(d)); }

static dist_constraint support_of(const dist_object *d)
{
    return (dist_constraint){ .kind = DIST_INTERVAL, .lower_tensor = d->parameter[0], .upper_tensor = d->parameter[1] };
}

const dist_class dist__uniform = {
    .name = "uniform",
    .n_parameters = 2,
    .parameter = { { .name = "low" }, { .name = "high" } },
    .has_rsample = true,
    .sample = sample,
    .log_prob = log_prob,
    .mean = mean,
    .variance = variance,
    .entropy = entropy,
    .support_of = support_of,
};

distribution *(dist_uniform)(T low, T high) { return dist_new(&dist__uniform, (T[]){ low, high }, 0); }
