/* Bernoulli by its mean. The log density goes through clamped logits, exactly as PyTorch's. */
#include "distributions/categorical.h"

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

/* The log density is PyTorch's, and its logit that of a clamped mean; entropy and divergences are exact. */
dist__two dist__bernoulli_parts(const dist_object *d)
{
    T p = d->parameter[0];
    if (d->of == &dist__bernoulli)
        return (dist__two){ { (ad_sub)(k(1), p), p }, { (ad_log1p)((ad_neg)(p)), (ad_log)(p) } };
    return (dist__two){ { (ad_sigmoid)((ad_neg)(p)), (ad_sigmoid)(p) },
                        { (ad_neg)((ad_softplus)(p)), (ad_neg)((ad_softplus)((ad_neg)(p))) } };
}

/* - (1 - p) log(1 - p) - p log p */
T dist__bernoulli_entropy(const dist_object *d)
{
    dist__two t = dist__bernoulli_parts(d);
    return (ad_neg)((ad_add)(dist__weighed(t.p[0], t.log_p[0]), dist__weighed(t.p[1], t.log_p[1])));
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
    .entropy = dist__bernoulli_entropy,
};

distribution *(dist_bernoulli)(T probs) { return dist_new(&dist__bernoulli, (T[]){ probs }, 0); }
