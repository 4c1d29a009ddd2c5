/* The geometric distribution: failures before the first success. */
#include "distributions/formula.h"

/* floor(log u / log(1 - probs)): P(draw >= n) = P(u <= (1 - probs)^n). probs = 1 gives 0 / inf, a 0. */
static T sample(const dist_object *d, const ad_shape *shape, int draw)
{
    T u = ad_random_uniform(*shape, draw);
    return (ad_floor)((ad_div)((ad_log)(u), (ad_log1p)((ad_neg)(d->parameter[0]))));
}

/* x log(1 - p) + log p, with p = sigmoid(l) clamped */
static T log_prob(const dist_object *d, T x)
{
    T l = (ad_logit_clamped)(d->parameter[0]);
    return (ad_add)((ad_mul)(x, (ad_log_sigmoid)((ad_neg)(l))), (ad_log_sigmoid)(l));
}

static T odds(const dist_object *d) { return (ad_div)((ad_sub)(k(1), d->parameter[0]), d->parameter[0]); }
static T mean(const dist_object *d) { return odds(d); }
static T variance(const dist_object *d) { return (ad_div)(odds(d), d->parameter[0]); }

/* The entropy of one trial, divided by probs. */
static T entropy(const dist_object *d)
{
    T l = (ad_logit_clamped)(d->parameter[0]);
    return (ad_div)((ad_sub)((ad_softplus)(l), (ad_mul)(d->parameter[0], l)), d->parameter[0]);
}

const dist_class dist__geometric = {
    .name = "geometric",
    .n_parameters = 1,
    .parameter = { { .name = "probs", .constraint.kind = DIST_UNIT_INTERVAL } },
    .support.kind = DIST_NONNEGATIVE_INTEGER,
    .discrete = true,
    .sample = sample,
    .log_prob = log_prob,
    .mean = mean,
    .variance = variance,
    .entropy = entropy,
};

distribution *(dist_geometric)(T probs) { return dist_new(&dist__geometric, (T[]){ probs }, 0); }
