/* The point mass, with a log density that a deterministic map of another draw may carry. */
#include "distributions/formula.h"

#include <math.h>

static T sample(const dist_object *d, const ad_shape *shape, int draw)
{
    (void)draw;
    return ad_expand(d->parameter[0], *shape);
}

/* log_density where every component of x equals value, else -inf */
static T log_prob(const dist_object *d, T x)
{
    T off = dist__sum_rightmost((ad_ne)(x, d->parameter[0]), d->event->rank);
    return (ad_where)((ad_eq)(off, k(0)), d->parameter[1], k(-INFINITY));
}

static T mean(const dist_object *d) { return d->parameter[0]; }
static T variance(const dist_object *d)
{
    (void)d;
    return k(0);
}

const dist_class dist__delta = {
    .name = "delta",
    .n_parameters = 2,
    .parameter = { { .name = "value", .event_dim = DIST_OWN_EVENT }, { .name = "log_density" } },
    .has_rsample = true,
    .sample = sample,
    .log_prob = log_prob,
    .mean = mean,
    .variance = variance,
};

distribution *(dist_delta)(T value) { return dist_new(&dist__delta, (T[]){ value, k(0) }, 0); }
distribution *dist_delta_density(T value, T log_density, int event_dim)
{
    return dist_new(&dist__delta, (T[]){ value, log_density }, event_dim);
}
