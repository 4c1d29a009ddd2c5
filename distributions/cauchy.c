/* The Cauchy distribution: tails so heavy that it has no moments. */
#include "distributions/formula.h"

/* loc + scale tan(pi (u - 1/2)) = cot of the shorter tail, with its sign: exact far out, where tan near pi/2 is not. */
static T sample(const dist_object *d, const ad_shape *shape, int draw)
{
    T u = ad_random_uniform(*shape, draw), tail = (ad_mul)(k(PI), (ad_min)(u, (ad_sub)(k(1), u)));
    T z = (ad_mul)((ad_sign)((ad_sub)(u, k(0.5))), (ad_div)((ad_cos)(tail), (ad_sin)(tail)));
    return (ad_add)(d->parameter[0], (ad_mul)(d->parameter[1], z));
}

/* Near the mode as it stands; far out log(1 + z^2) = 2 log |z| + log(1 + 1 / z^2), of d and s by themselves. Where both
 * are computed only one is selected, with its slopes. */
T dist__log_cauchy(T d, T s)
{
    T distance = (ad_abs)(d), log_s = (ad_log)(s);
    T near = (ad_add)((ad_log1p)((ad_square)((ad_div)(d, s))), log_s);
    T far = (ad_add)((ad_mul)(k(2), (ad_log)(distance)), (ad_log1p)((ad_square)((ad_div)(s, d))));
    return (ad_where)((ad_gt)(distance, s), (ad_sub)(far, log_s), near);
}

static T log_prob(const dist_object *d, T x)
{
    T z = dist__log_cauchy((ad_sub)(x, d->parameter[0]), d->parameter[1]);
    return (ad_neg)((ad_add)(z, k(LOG_PI)));
}

static T entropy(const dist_object *d) { return (ad_add)((ad_log)(d->parameter[1]), k(2 * LOG_2 + LOG_PI)); }

const dist_class dist__cauchy = {
    .name = "cauchy",
    .n_parameters = 2,
    .parameter = { { .name = "loc" }, { .name = "scale", .constraint.kind = DIST_POSITIVE } },
    .has_rsample = true,
    .sample = sample,
    .log_prob = log_prob,
    .entropy = entropy,
};

distribution *(dist_cauchy)(T loc, T scale) { return dist_new(&dist__cauchy, (T[]){ loc, scale }, 0); }
