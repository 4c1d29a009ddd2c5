/* Bernoulli by its mean. The log density goes through clamped logits, exactly as PyTorch's. */
#include "distributions/formula.h"

static T sample(const dist_object *d, const ad_shape *shape, int draw)
{
    return (ad_lt)(ad_random_uniform(*shape, draw), d->parameter[0]);
}

/* x l - log(1 + e^l), l = logit(probs) */
static T log_prob(const dist_object *d, T x)
{
    return (ad_bernoulli_log_density)(x, (ad_logit_clamped)(d->parameter[0]));
}

static T mean(const dist_object *d) { return d->parameter[0]; }
static T variance(const dist_object *d) { return (ad_mul)(d->parameter[0], (ad_sub)(k(1), d->parameter[0])); }

/* log(1 + e^l) - p l */
static T entropy(const dist_object *d)
{
    T l = (ad_logit_clamped)(d->parameter[0]);
    return (ad_sub)((ad_softplus)(l), (ad_mul)(d->parameter[0], l));
}

const dist_class dist__bernoulli = {
    .name = "bernoulli",
    .n_parameters = 1,
    .parameter = { { .name = "probs", .constraint.kind = DIST_UNIT_INTERVAL } },
    .support.kind = DIST_BOOLEAN,
    .accepted.kind = DIST_UNIT_INTERVAL, /* gray values are welcome */
    .discrete = true,
    .sample = sample,
    .log_prob = log_prob,
    .mean = mean,
    .variance = variance,
    .entropy = entropy,
};

distribution *(dist_bernoulli)(T probs) { return dist_new(&dist__bernoulli, (T[]){ probs }, 0); }
