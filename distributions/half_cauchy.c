/* The half-Cauchy distribution: the absolute value of a Cauchy around 0. */
#include "distributions/formula.h"

/* scale tan(pi u / 2), the cosine as the sine of the complement, so that the tail is exact. */
static T sample(const dist_object *d, const ad_shape *shape, int draw)
{
    T u = ad_random_uniform(*shape, draw);
    T up = (ad_sin)((ad_mul)(k(PI / 2), u)), down = (ad_sin)((ad_mul)(k(PI / 2), (ad_sub)(k(1), u)));
    return (ad_mul)(d->parameter[0], (ad_div)(up, down));
}

static T log_prob(const dist_object *d, T x)
{
    return (ad_neg)((ad_add)(dist__log_cauchy(x, d->parameter[0]), k(LOG_PI - LOG_2)));
}

static T entropy(const dist_object *d) { return (ad_add)((ad_log)(d->parameter[0]), k(LOG_2 + LOG_PI)); }

const dist_class dist__half_cauchy = {
    .name = "half_cauchy",
    .n_parameters = 1,
    .parameter = { { .name = "scale", .constraint.kind = DIST_POSITIVE } },
    .support.kind = DIST_NONNEGATIVE,
    .has_rsample = true,
    .sample = sample,
    .log_prob = log_prob,
    .entropy = entropy,
};

distribution *(dist_half_cauchy)(T scale) { return dist_new(&dist__half_cauchy, (T[]){ scale }, 0); }
