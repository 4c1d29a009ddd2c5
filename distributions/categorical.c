/* Categorical by probabilities, and what it shares with categorical_logits. Probabilities become logarithms as
 * PyTorch's do: divided by their sum, then clamped to [eps, 1 - eps]. */
#include "distributions/categorical.h"

#include <float.h>

static T last(ad_reduction kind, T x, bool keep) { return ad_reduce(kind, x, (const int[]){ -1 }, 1, keep); }

T dist__categorical_log_p(const dist_object *d)
{
    T p = d->parameter[0];
    if (d->of == &dist__categorical_logits) return (ad_sub)(p, last(AD_LOGSUMEXP, p, true));
    ad_context *c = ad__current();
    double eps = c && ad_precision_of(c) == AD_DOUBLE ? DBL_EPSILON : FLT_EPSILON;
    return (ad_log)((ad_clamp)((ad_div)(p, last(AD_SUM, p, true)), k(eps), k(1 - eps)));
}

T dist__weighed(T p, T x) { return (ad_where)(p, (ad_mul)(p, x), k(0)); }

T dist__categorical_exact_log_p(const dist_object *d)
{
    T p = d->parameter[0];
    return d->of == &dist__categorical ? (ad_log)((ad_div)(p, last(AD_SUM, p, true))) : dist__categorical_log_p(d);
}

static T probs(const dist_object *d)
{
    T p = d->parameter[0];
    return d->of == &dist__categorical ? (ad_div)(p, last(AD_SUM, p, true)) : (ad_exp)(dist__categorical_log_p(d));
}

/* By the distribution function: how many of its steps but the last lie at or below u. u < 1 keeps u times the last step
 * below that step, so a category without probability is never drawn. */
T dist__categorical_sample(const dist_object *d, const ad_shape *shape, int draw)
{
    T steps = ad_cumsum(probs(d), -1, false);
    int64_t n = ad_dim(steps, -1);
    ad_shape wide = *shape;
    if (n < 1 || wide.rank == AD_MAX_RANK) return AD_NIL;
    wide.dim[wide.rank++] = 1;
    T u = (ad_mul)(ad_random_uniform(wide, draw), ad_slice(steps, -1, n - 1, 1));
    T below = last(AD_SUM, (ad_le)(ad_slice(steps, -1, 0, n - 1), u), false);
    return n == 1 ? ad_expand(k(0), *shape) : below;
}

/* x is compared with every category, so that any x, also one outside, has a value */
static T chosen(const dist_object *d, T x, T values)
{
    T hit = (ad_eq)(ad_unsqueeze(x, -1), ad_arange(ad_dim(d->parameter[0], -1)));
    return last(AD_SUM, (ad_where)(hit, values, k(0)), false);
}

T dist__categorical_log_prob(const dist_object *d, T x) { return chosen(d, x, dist__categorical_log_p(d)); }

T dist__categorical_mean(const dist_object *d)
{
    return last(AD_SUM, (ad_mul)(probs(d), ad_arange(ad_dim(d->parameter[0], -1))), false);
}

T dist__categorical_variance(const dist_object *d)
{
    T off = (ad_sub)(ad_arange(ad_dim(d->parameter[0], -1)), ad_unsqueeze(dist__categorical_mean(d), -1));
    return last(AD_SUM, (ad_mul)(probs(d), (ad_square)(off)), false);
}

T dist__categorical_entropy(const dist_object *d)
{
    return (ad_neg)(last(AD_SUM, dist__weighed(probs(d), dist__categorical_exact_log_p(d)), false));
}

dist_constraint dist__categorical_support(const dist_object *d)
{
    return (dist_constraint){ .kind = DIST_INTEGER_INTERVAL, .upper = (double)(ad_dim(d->parameter[0], -1) - 1) };
}

const dist_class dist__categorical = {
    .name = "categorical",
    .n_parameters = 1,
    .parameter = { { .name = "probs", .constraint.kind = DIST_WEIGHTS, .event_dim = 1 } },
    .discrete = true,
    .sample = dist__categorical_sample,
    .log_prob = dist__categorical_log_prob,
    .mean = dist__categorical_mean,
    .variance = dist__categorical_variance,
    .entropy = dist__categorical_entropy,
    .support_of = dist__categorical_support,
};

distribution *(dist_categorical)(T p) { return dist_new(&dist__categorical, (T[]){ p }, 0); }
