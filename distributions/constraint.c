/* Constraints and the maps onto them; the table stands in constraint.h. Called by dist.c for parameters and supports,
 * by ppl for parameters and unconstrained spaces. */
#include "distributions/formula.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- values ------------------------------------------------------------------------------------------------------ */

static const struct {
    const char *name, *text;
    int event_dim;
    bool discrete;
} kinds[] = {
#define X(NAME, name, text, event_dim, discrete) { #name, text, event_dim, discrete },
    DIST_CONSTRAINT_KINDS(X)
#undef X
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static bool known(dist_constraint_kind kind) { return (unsigned)kind < KINDS; }
const char *dist_constraint_name(dist_constraint_kind kind) { return known(kind) ? kinds[kind].name : "?"; }
int dist_constraint_event_dim(dist_constraint_kind kind) { return known(kind) ? kinds[kind].event_dim : 0; }
bool dist_constraint_discrete(dist_constraint_kind kind) { return known(kind) && kinds[kind].discrete; }

dist_constraint dist_real(void) { return (dist_constraint){ .kind = DIST_REAL }; }
dist_constraint dist_positive(void) { return (dist_constraint){ .kind = DIST_POSITIVE }; }
dist_constraint dist_nonnegative(void) { return (dist_constraint){ .kind = DIST_NONNEGATIVE }; }
dist_constraint dist_softplus_positive(void) { return (dist_constraint){ .kind = DIST_SOFTPLUS_POSITIVE }; }
dist_constraint dist_unit_interval(void) { return (dist_constraint){ .kind = DIST_UNIT_INTERVAL }; }
dist_constraint dist_simplex(void) { return (dist_constraint){ .kind = DIST_SIMPLEX }; }

dist_constraint dist_interval(double lower, double upper)
{
    if (!(lower < upper && isfinite(lower) && isfinite(upper)))
        ad_fail(AD_ERROR_ARGUMENT, NULL, "dist_interval: %g and %g bound no interval", lower, upper);
    return (dist_constraint){ .kind = DIST_INTERVAL, .lower = lower, .upper = upper };
}
dist_constraint dist_greater_than(double lower)
{
    if (!isfinite(lower)) ad_fail(AD_ERROR_ARGUMENT, NULL, "dist_greater_than: %g is no bound", lower);
    return (dist_constraint){ .kind = DIST_GREATER_THAN, .lower = lower };
}
dist_constraint dist_less_than(double upper)
{
    if (!isfinite(upper)) ad_fail(AD_ERROR_ARGUMENT, NULL, "dist_less_than: %g is no bound", upper);
    return (dist_constraint){ .kind = DIST_LESS_THAN, .upper = upper };
}

bool dist_constraint_equal(const dist_constraint *a, const dist_constraint *b)
{
    return a->kind == b->kind && a->lower == b->lower && a->upper == b->upper && a->lower_tensor == b->lower_tensor &&
           a->upper_tensor == b->upper_tensor;
}

const char *dist__describe(const dist_constraint *c, int digits, char *out, size_t size)
{
    const char *text = known(c->kind) ? kinds[c->kind].text : "?";
    if ((c->kind == DIST_INTERVAL || c->kind == DIST_INTEGER_INTERVAL) && !c->lower_tensor && !c->upper_tensor)
        snprintf(out, size, "%sin [%.*g, %.*g]", c->kind == DIST_INTERVAL ? "" : "a whole number ", digits, c->lower,
                 digits, c->upper);
    else if (c->kind == DIST_GREATER_THAN && !c->lower_tensor)
        snprintf(out, size, "greater than %.*g", digits, c->lower);
    else if (c->kind == DIST_FINITE_ABOVE && !c->lower_tensor)
        snprintf(out, size, "finite and greater than %.*g", digits, c->lower);
    else if (c->kind == DIST_LESS_THAN && !c->upper_tensor) snprintf(out, size, "less than %.*g", digits, c->upper);
    else snprintf(out, size, "%s", text);
    return out;
}
const char *dist_constraint_describe(const dist_constraint *c, char *out, size_t size)
{
    return dist__describe(c, 6, out, size);
}

static double printed(double x, int digits)
{
    char text[40];
    snprintf(text, sizeof text, "%.*g", digits, x);
    return strtod(text, NULL);
}

int dist__digits(const dist_constraint *c, double x)
{
    for (int digits = 6; digits < 17; digits += 3) {
        dist_constraint seen = *c;
        seen.lower = printed(c->lower, digits);
        seen.upper = printed(c->upper, digits);
        if (!dist_constraint_holds(&seen, printed(x, digits))) return digits;
    }
    return 17;
}

static T lower(const dist_constraint *c) { return c->lower_tensor ? c->lower_tensor : k(c->lower); }
static T upper(const dist_constraint *c) { return c->upper_tensor ? c->upper_tensor : k(c->upper); }

/* An error for a kind that has no maps. */
static bool has_map(const dist_constraint *c)
{
    if (known(c->kind) && !kinds[c->kind].discrete) return true;
    ad_fail(AD_ERROR_ARGUMENT, "only continuous constraints can be mapped to the reals",
            "the constraint %s has no map from unconstrained values", dist_constraint_name(c->kind));
    return false;
}

/* ---- membership -------------------------------------------------------------------------------------------------- */

bool dist_constraint_holds(const dist_constraint *c, double x)
{
    double low = c->lower_tensor ? -INFINITY : c->lower, high = c->upper_tensor ? INFINITY : c->upper;
    switch (c->kind) {
    case DIST_REAL: return !isnan(x);
    case DIST_POSITIVE:
    case DIST_SOFTPLUS_POSITIVE: return x > 0;
    case DIST_NONNEGATIVE: return x >= 0;
    case DIST_UNIT_INTERVAL:
    case DIST_SIMPLEX: return x >= 0 && x <= 1;
    case DIST_INTERVAL: return x >= low && x <= high;
    case DIST_GREATER_THAN: return x > low;
    case DIST_LESS_THAN: return x < high;
    case DIST_BOOLEAN: return x == 0 || x == 1;
    case DIST_NONNEGATIVE_INTEGER: return x >= 0 && x == floor(x);
    case DIST_INTEGER_INTERVAL: return x >= low && x <= high && x == floor(x);
    case DIST_FINITE: return isfinite(x);
    case DIST_FINITE_ABOVE: return isfinite(x) && x > low;
    case DIST_PROBABILITY: return x > 0 && x <= 1;
    case DIST_WEIGHTS: return x > 0 && isfinite(x); /* of a vector whose elements are all x */
    case DIST_LOG_WEIGHTS: return isfinite(x);
    }
    return false;
}

static T last(ad_reduction kind, T x) { return ad_reduce(kind, x, (const int[]){ -1 }, 1, false); }
static T both(T a, T b) { return (ad_mul)(a, b); }
static T whole(T x) { return (ad_eq)(x, (ad_floor)(x)); }
static T within(T x, T low, T high) { return both((ad_ge)(x, low), (ad_le)(x, high)); }

T dist_constraint_check(const dist_constraint *c, T x)
{
    switch (c->kind) {
    case DIST_REAL: return (ad_eq)(x, x);
    case DIST_POSITIVE:
    case DIST_SOFTPLUS_POSITIVE: return (ad_gt)(x, k(0));
    case DIST_NONNEGATIVE: return (ad_ge)(x, k(0));
    case DIST_UNIT_INTERVAL: return within(x, k(0), k(1));
    case DIST_INTERVAL: return within(x, lower(c), upper(c));
    case DIST_GREATER_THAN: return (ad_gt)(x, lower(c));
    case DIST_LESS_THAN: return (ad_lt)(x, upper(c));
    case DIST_SIMPLEX: {
        ad_context *context = ad__current();
        T off = (ad_abs)((ad_sub)(last(AD_SUM, x), k(1)));
        T negative = last(AD_SUM, (ad_sub)(k(1), (ad_ge)(x, k(0))));
        double allowed = context && ad_precision_of(context) == AD_DOUBLE ? 1e-8 : 1e-4;
        return both((ad_le)(off, k(allowed)), (ad_eq)(negative, k(0)));
    }
    case DIST_BOOLEAN: return both(within(x, k(0), k(1)), whole(x));
    case DIST_NONNEGATIVE_INTEGER: return both((ad_ge)(x, k(0)), whole(x));
    case DIST_INTEGER_INTERVAL: return both(within(x, lower(c), upper(c)), whole(x));
    case DIST_FINITE: return (ad_is_finite)(x);
    case DIST_FINITE_ABOVE: return both((ad_is_finite)(x), (ad_gt)(x, lower(c)));
    case DIST_PROBABILITY: return both((ad_gt)(x, k(0)), (ad_le)(x, k(1)));
    case DIST_WEIGHTS: {
        T sum = last(AD_SUM, x), negative = last(AD_SUM, (ad_sub)(k(1), (ad_ge)(x, k(0))));
        return both(both((ad_gt)(sum, k(0)), (ad_is_finite)(sum)), (ad_eq)(negative, k(0)));
    }
    case DIST_LOG_WEIGHTS: return both((ad_is_finite)(last(AD_MAX, x)), (ad_eq)(last(AD_SUM, (ad_ne)(x, x)), k(0)));
    }
    return AD_NIL;
}

/* ---- stick-breaking: u (..., K - 1) -> x (..., K) -------------------------------------------------------------------
 * t_i = u_i - log(K - i), i = 1 .. K - 1, so that u = 0 is the uniform point; x_i is the share sigmoid(t_i) of what the
 * earlier ones left, x_K the rest. In logarithms: log x_i = log sigmoid(t_i) + sum_{j<i} log sigmoid(-t_j). */

/* log(K - 1), ..., log 1 */
static T stick_offsets(int64_t n) { return (ad_log)((ad_sub)(k((double)n), ad_arange(n))); }

/* The logarithms of x_1 .. x_{K-1}, and in *rest that of x_K, (..., 1). */
static T stick_logs(T t, T *rest)
{
    T left = (ad_log_sigmoid)((ad_neg)(t)), sum = ad_cumsum(left, -1, false);
    if (rest) *rest = ad_reduce(AD_SUM, left, (const int[]){ -1 }, 1, true);
    return (ad_add)((ad_log_sigmoid)(t), (ad_sub)(sum, left));
}

static T stick_breaking(T u)
{
    T rest, logs = stick_logs((ad_sub)(u, stick_offsets(ad_dim(u, -1))), &rest);
    return (ad_exp)(ad_concat((ad_tensor *const[]){ logs, rest }, 2, -1));
}

/* logit of x_i's share of what is left, which is x_i / (x_{i+1} + ... + x_K) in odds */
static T stick_unbreaking(T x)
{
    int64_t n = ad_dim(x, -1) - 1;
    if (n < 0) return AD_NIL;
    T after = ad_slice(ad_cumsum(x, -1, true), -1, 1, n);
    return (ad_add)((ad_sub)((ad_log)(ad_slice(x, -1, 0, n)), (ad_log)(after)), stick_offsets(n));
}

/* ---- off the bounds, onto which rounding would bring values: log(x - a) and log(b - x) may follow ---------------- */

static bool wide(void)
{
    ad_context *c = ad__current();
    return c && ad_precision_of(c) == AD_DOUBLE;
}
static double least(void) { return wide() ? DBL_MIN : FLT_MIN; }
static double epsilon(void) { return wide() ? DBL_EPSILON : FLT_EPSILON; }

/* x in [0, 1], off both. */
static T inside_unit(T x) { return (ad_clamp)(x, k(least()), k(1 - epsilon())); }

/* The next number of the context's precision above (way 1) or below (-1) a bound; of a tensor, one no further than
 * two. */
static T beside(const ad_tensor *tensor, double number, int way)
{
    T bound = (T)tensor;
    ad_context *c = ad__current();
    node_id id = bound && c ? ad__node(c, bound, "a bound") : -1;
    if (id >= 0 && dist__number(c, id, &number)) bound = NULL;
    if (bound) return (ad_add)(bound, (ad_mul)(k(way), (ad_add)((ad_mul)((ad_abs)(bound), k(epsilon())), k(least()))));
    if (number == 0) return k(way * least());
    return k(wide() ? nextafter(number, way * INFINITY) : nextafterf((float)number, (float)way * INFINITY));
}
/* (b - a) / 2 overflows for no bounds */
static T half_width(const dist_constraint *c)
{
    return (ad_sub)((ad_mul)(k(0.5), upper(c)), (ad_mul)(k(0.5), lower(c)));
}
static T above_lower(const dist_constraint *c, T x) { return (ad_max)(x, beside(c->lower_tensor, c->lower, 1)); }
static T below_upper(const dist_constraint *c, T x) { return (ad_min)(x, beside(c->upper_tensor, c->upper, -1)); }

/* ---- the maps ---------------------------------------------------------------------------------------------------- */

T dist_constrain(const dist_constraint *c, dist_map map, T u)
{
    if (!has_map(c)) return AD_NIL;
    switch (c->kind) {
    case DIST_REAL: return u;
    case DIST_POSITIVE:
    case DIST_NONNEGATIVE: return (ad_exp)(u);
    case DIST_SOFTPLUS_POSITIVE: return (ad_softplus)(u);
    case DIST_UNIT_INTERVAL: return inside_unit((ad_sigmoid)(u));
    case DIST_INTERVAL: {
        T half = (ad_add)((ad_mul)(k(0.5), lower(c)), (ad_mul)(half_width(c), (ad_sigmoid)(u)));
        return below_upper(c, above_lower(c, (ad_mul)(k(2), half)));
    }
    case DIST_GREATER_THAN: return above_lower(c, (ad_add)(lower(c), (ad_exp)(u)));
    case DIST_LESS_THAN: return below_upper(c, (ad_sub)(upper(c), (ad_exp)(u)));
    case DIST_SIMPLEX: {
        T total = map == DIST_BIJECT_TO ? NULL : ad_reduce(AD_LOGSUMEXP, u, (const int[]){ -1 }, 1, true);
        T x = total ? (ad_exp)((ad_sub)(u, total)) : stick_breaking(u);
        return ad_dim(x, -1) > 1 ? inside_unit(x) : x; /* of one element it is 1 */
    }
    default: return AD_NIL;
    }
}

static T logit(T x) { return (ad_sub)((ad_log)(x), (ad_log1p)((ad_neg)(x))); }

T dist_unconstrain(const dist_constraint *c, dist_map map, T x)
{
    if (!has_map(c)) return AD_NIL;
    switch (c->kind) {
    case DIST_REAL: return x;
    case DIST_POSITIVE:
    case DIST_NONNEGATIVE: return (ad_log)(x);
    case DIST_SOFTPLUS_POSITIVE: return (ad_add)(x, (ad_log)((ad_neg)((ad_expm1)((ad_neg)(x)))));
    case DIST_UNIT_INTERVAL: return logit(x);
    case DIST_INTERVAL: return (ad_sub)((ad_log)((ad_sub)(x, lower(c))), (ad_log)((ad_sub)(upper(c), x)));
    case DIST_GREATER_THAN: return (ad_log)((ad_sub)(x, lower(c)));
    case DIST_LESS_THAN: return (ad_log)((ad_sub)(upper(c), x));
    case DIST_SIMPLEX: return map == DIST_BIJECT_TO ? stick_unbreaking(x) : (ad_log)(x);
    default: return AD_NIL;
    }
}

T dist_log_det(const dist_constraint *c, T u)
{
    if (!has_map(c)) return AD_NIL;
    switch (c->kind) {
    case DIST_REAL: return ad_expand(k(0), ad_shape_of(u));
    case DIST_POSITIVE:
    case DIST_NONNEGATIVE:
    case DIST_GREATER_THAN:
    case DIST_LESS_THAN: return u;
    case DIST_SOFTPLUS_POSITIVE: return (ad_log_sigmoid)(u);
    case DIST_UNIT_INTERVAL:
    case DIST_INTERVAL: {
        T slope = (ad_add)((ad_log_sigmoid)(u), (ad_log_sigmoid)((ad_neg)(u)));
        return c->kind == DIST_UNIT_INTERVAL ? slope : (ad_add)((ad_add)((ad_log)(half_width(c)), k(LOG_2)), slope);
    }
    case DIST_SIMPLEX: { /* the Jacobian is triangular: dx_i/du_i = x_i sigmoid(-t_i) */
        T t = (ad_sub)(u, stick_offsets(ad_dim(u, -1)));
        return dist__sum_rightmost((ad_add)(stick_logs(t, NULL), (ad_log_sigmoid)((ad_neg)(t))), 1);
    }
    default: return AD_NIL;
    }
}

bool dist_unconstrained_shape(const dist_constraint *c, dist_map map, ad_shape constrained, ad_shape *out)
{
    *out = constrained;
    if (!has_map(c)) return false;
    if (c->kind != DIST_SIMPLEX) return true;
    if (constrained.rank == 0 || constrained.dim[constrained.rank - 1] < 1) {
        ad_fail(AD_ERROR_SHAPE, NULL, "a simplex needs a last dimension of at least one element");
        return false;
    }
    if (map == DIST_BIJECT_TO) out->dim[constrained.rank - 1]--;
    return true;
}

/* ---- on numbers -------------------------------------------------------------------------------------------------- */

static double number(const dist_constraint *c, double x)
{
    switch (c->kind) {
    case DIST_REAL: return x;
    case DIST_POSITIVE:
    case DIST_NONNEGATIVE:
    case DIST_SIMPLEX: return log(x);
    case DIST_SOFTPLUS_POSITIVE: return x + log(-expm1(-x));
    case DIST_UNIT_INTERVAL: return log(x) - log1p(-x);
    case DIST_INTERVAL: return log(x - c->lower) - log(c->upper - x);
    case DIST_GREATER_THAN: return log(x - c->lower);
    case DIST_LESS_THAN: return log(c->upper - x);
    default: return NAN;
    }
}

bool dist_unconstrain_numbers(const dist_constraint *c, const double *x, double *out, int64_t n, int64_t last,
                              int64_t *bad)
{
    for (int64_t i = 0; i < n; i++) {
        *bad = i;
        if (c->kind == DIST_SIMPLEX && (last <= 0 || i % last == 0)) {
            double sum = 0;
            for (int64_t j = 0; j < last && i + j < n; j++) sum += x[i + j];
            if (!(fabs(sum - 1) < 1e-4)) return false;
        }
        double u = dist_constraint_holds(c, x[i]) ? number(c, x[i]) : NAN;
        if (!isfinite(u)) return false;
        out[i] = u;
    }
    return true;
}
