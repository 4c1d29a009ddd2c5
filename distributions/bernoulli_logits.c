/* Bernoulli by the logarithm of its odds. */
#include "distributions/categorical.h"

static T probs(const dist_object *d) { return (ad_sigmoid)(d->parameter[0]); }

static T sample(const dist_object *d, const ad_shape *shape, int draw)
{
    return (ad_lt)(ad_random_uniform(*shape, draw), probs(d));
}

/* x l - log(1 + e^l) */
static T log_prob(const dist_object *d, T x)
{
    return (ad_bernoulli_log_density)(x, d->parameter[0]);
}

static T mean(const dist_object *d) { return probs(d); }
static T variance(const dist_object *d)
{
    return (ad_mul)(probs(d), (ad_sigmoid)((ad_neg)(d->parameter[0])));
}

const dist_class dist__bernoulli_logits = {
    .name = "bernoulli_logits",
    .n_parameters = 1,
    .parameter = { { .name = "logits" } },
    .support.kind = DIST_BOOLEAN,
    .accepted.kind = DIST_UNIT_INTERVAL, /* gray values are welcome */
    .discrete = true,
    .sample = sample,
    .log_prob = log_prob,
    .mean = mean,
    .variance = variance,
    .entropy = dist__bernoulli_entropy,
};

distribution *(dist_bernoulli_logits)(T logits) { return dist_new(&dist__bernoulli_logits, (T[]){ logits }, 0); }
