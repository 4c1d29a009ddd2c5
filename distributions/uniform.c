/* The uniform distribution on an interval. */
#include "distributions/formula.h"

/* Half of the interval's width, which overflows for no bounds. */
static T half_width(const dist_object *d)
{
    return (ad_sub)((ad_mul)(k(0.5), d->parameter[1]), (ad_mul)(k(0.5), d->parameter[0]));
}
static T log_width(const dist_object *d) { return (ad_add)((ad_log)(half_width(d)), k(LOG_2)); }

static T sample(const dist_object *d, const ad_shape *shape, int draw)
{
    T half = (ad_mul)(half_width(d), ad_random_uniform(*shape, draw));
    return (ad_mul)(k(2), (ad_add)((ad_mul)(k(0.5), d->parameter[0]), half));
}

static T log_prob(const dist_object *d, T x)
{
    (void)x;
    return (ad_neg)(log_width(d));
}

static T mean(const dist_object *d)
{
    return (ad_add)((ad_mul)(k(0.5), d->parameter[0]), (ad_mul)(k(0.5), d->parameter[1]));
}
static T variance(const dist_object *d) { return (ad_mul)(k(1.0 / 3), (ad_square)(half_width(d))); }
static T entropy(const dist_object *d) { return log_width(d); }

static dist_constraint constraint_of(const dist_object *d, int i)
{
    return (dist_constraint){ .kind = i ? DIST_FINITE_ABOVE : DIST_FINITE, .lower_tensor = i ? d->parameter[0] : NULL };
}

static dist_constraint support_of(const dist_object *d)
{
    return (dist_constraint){ .kind = DIST_INTERVAL, .lower_tensor = d->parameter[0], .upper_tensor = d->parameter[1] };
}

const dist_class dist__uniform = {
    .name = "uniform",
    .n_parameters = 2,
    .parameter = { { .name = "low", .constraint.kind = DIST_FINITE }, { .name = "high" } },
    .constraint_of = constraint_of,
    .has_rsample = true,
    .sample = sample,
    .log_prob = log_prob,
    .mean = mean,
    .variance = variance,
    .entropy = entropy,
    .support_of = support_of,
};

distribution *(dist_uniform)(T low, T high) { return dist_new(&dist__uniform, (T[]){ low, high }, 0); }
