/* The Gumbel distribution of largest values. */
#include "distributions/formula.h"

static T sample(const dist_object *d, const ad_shape *shape, int draw)
{
    T z = (ad_neg)((ad_log)((ad_neg)((ad_log)(ad_random_uniform(*shape, draw)))));
    return (ad_add)(d->parameter[0], (ad_mul)(d->parameter[1], z));
}

static T log_prob(const dist_object *d, T x)
{
    /* far below exp(-z) alone counts; the bound keeps -inf from meeting it */
    T z = (ad_max)((ad_div)((ad_sub)(x, d->parameter[0]), d->parameter[1]), k(-1e30));
    return (ad_neg)((ad_add)((ad_add)(z, (ad_exp)((ad_neg)(z))), (ad_log)(d->parameter[1])));
}

static T mean(const dist_object *d) { return (ad_add)(d->parameter[0], (ad_mul)(d->parameter[1], k(EULER))); }
static T variance(const dist_object *d) { return (ad_mul)(k(PI * PI / 6), (ad_square)(d->parameter[1])); }
static T entropy(const dist_object *d) { return (ad_add)((ad_log)(d->parameter[1]), k(1 + EULER)); }

const dist_class dist__gumbel = {
    .name = "gumbel",
    .n_parameters = 2,
    .parameter = { { .name = "loc" }, { .name = "scale", .constraint.kind = DIST_POSITIVE } },
    .has_rsample = true,
    .sample = sample,
    .log_prob = log_prob,
    .mean = mean,
    .variance = variance,
    .entropy = entropy,
};

distribution *(dist_gumbel)(T loc, T scale) { return dist_new(&dist__gumbel, (T[]){ loc, scale }, 0); }
