/* Constraints: sets of real numbers or vectors that parameters and values must lie in, and the maps from unconstrained
 * reals onto them. Used by distributions (parameters, supports), by ppl_param (the store keeps unconstrained values)
 * and by samplers that move in unconstrained space.
 *
 * Two registries of maps, as in PyTorch. They differ for the simplex alone:
 *
 *   constraint          map u -> x, both registries              log |dx/du|
 *   real                u                                        0
 *   positive            exp(u)                                   u
 *   nonnegative         exp(u)                                   u
 *   softplus_positive   log(1 + exp(u))                          log sigmoid(u)
 *   unit_interval       s = sigmoid(u)                           log s + log(1 - s)
 *   interval(a, b)      a + (b - a) s                            log(b - a) + log s + log(1 - s)
 *   greater_than(a)     a + exp(u)                               u
 *   less_than(b)        b - exp(u)                               u
 *   simplex             transform_to: softmax, K -> K            none: not a bijection
 *                       biject_to: stick-breaking, K - 1 -> K    sum over the K - 1 sticks
 *
 * What rounding would bring onto a bound is kept off it: sigmoid(u) and the elements of a simplex off 0 and 1 by the
 * smallest normal number and the precision's epsilon, as PyTorch's sigmoid is, the others by the bound's neighbour.
 * Only exp(u) and log(1 + exp(u)) by themselves may underflow to 0 and overflow, as PyTorch's.
 * The discrete ones (boolean, nonnegative_integer, integer_interval) are supports only, and those behind them what
 * parameters of distributions must be: they have no map. */
#ifndef DISTRIBUTIONS_CONSTRAINT_H
#define DISTRIBUTIONS_CONSTRAINT_H

#include "autodiff/ad.h"

#ifdef __cplusplus
extern "C" {
#endif

/* X(NAME, name, what a value must be, event dimensions, without a map) */
#define DIST_CONSTRAINT_KINDS(X)                                                                                       \
    X(REAL, real, "a real number", 0, false)                                                                           \
    X(POSITIVE, positive, "positive", 0, false)                                                                        \
    X(NONNEGATIVE, nonnegative, "at least 0", 0, false)                                                                \
    X(SOFTPLUS_POSITIVE, softplus_positive, "positive", 0, false)                                                      \
    X(UNIT_INTERVAL, unit_interval, "in [0, 1]", 0, false)                                                             \
    X(INTERVAL, interval, "in the interval", 0, false)                                                                 \
    X(GREATER_THAN, greater_than, "greater than the bound", 0, false)                                                  \
    X(LESS_THAN, less_than, "less than the bound", 0, false)                                                           \
    X(SIMPLEX, simplex, "a vector of nonnegative numbers whose sum is 1", 1, false)                                    \
    X(BOOLEAN, boolean, "0 or 1", 0, true)                                                                             \
    X(NONNEGATIVE_INTEGER, nonnegative_integer, "0, 1, 2, ...", 0, true)                                               \
    X(INTEGER_INTERVAL, integer_interval, "a whole number in the interval", 0, true)                                   \
    X(FINITE, finite, "finite", 0, true)                                                                               \
    X(FINITE_ABOVE, finite_above, "finite and greater than the bound", 0, true)                                        \
    X(PROBABILITY, probability, "in (0, 1]", 0, true)                                                                  \
    X(WEIGHTS, weights, "a vector of nonnegative numbers with a positive sum", 1, true)                                \
    X(LOG_WEIGHTS, log_weights, "a vector of numbers below inf, not all of them -inf", 1, true)

typedef enum dist_constraint_kind {
#define X(NAME, name, text, event_dim, discrete) DIST_##NAME,
    DIST_CONSTRAINT_KINDS(X)
#undef X
} dist_constraint_kind;

/* A value: copy it, compare it with dist_constraint_equal. All bytes zero is `real`. The bounds of a support may be
 * tensors, which then live as long as the step; parameters' bounds are numbers. */
typedef struct dist_constraint {
    dist_constraint_kind kind;
    double lower, upper;                  /* bounds, where the kind has them */
    ad_tensor *lower_tensor, *upper_tensor; /* not NULL: instead of the numbers */
} dist_constraint;

AD_API dist_constraint dist_real(void);
AD_API dist_constraint dist_positive(void);
AD_API dist_constraint dist_nonnegative(void);
AD_API dist_constraint dist_softplus_positive(void);
AD_API dist_constraint dist_unit_interval(void);
AD_API dist_constraint dist_interval(double lower, double upper); /* an error unless lower < upper, both finite */
AD_API dist_constraint dist_greater_than(double lower);
AD_API dist_constraint dist_less_than(double upper);
AD_API dist_constraint dist_simplex(void);

AD_API bool dist_constraint_equal(const dist_constraint *a, const dist_constraint *b);
AD_API const char *dist_constraint_name(dist_constraint_kind kind);  /* "greater_than" */
AD_API int dist_constraint_event_dim(dist_constraint_kind kind);     /* 1 for the simplex, else 0 */
AD_API bool dist_constraint_discrete(dist_constraint_kind kind);
/* "greater than 2" into out, at most size bytes; returns out. */
AD_API const char *dist_constraint_describe(const dist_constraint *c, char *out, size_t size);

/* Whether a number satisfies it (for the simplex: one component may be it). Bounds that are tensors hold for all. */
AD_API bool dist_constraint_holds(const dist_constraint *c, double x);
/* 1 where x satisfies the constraint, else 0 (NaN satisfies none); the simplex drops the last dimension and allows sums
 * within 1e-4 (float) or 1e-8 (double) of 1. */
AD_API ad_tensor *dist_constraint_check(const dist_constraint *c, ad_tensor *x);

typedef enum dist_map { DIST_TRANSFORM_TO, DIST_BIJECT_TO } dist_map;

/* u (..., U) -> x (..., K): U = K, but K - 1 for the simplex under DIST_BIJECT_TO. For `real` the result is u
 * itself. */
AD_API ad_tensor *dist_constrain(const dist_constraint *c, dist_map map, ad_tensor *u);
/* The inverse: x inside the constraint -> u. For the softmax, log x. */
AD_API ad_tensor *dist_unconstrain(const dist_constraint *c, dist_map map, ad_tensor *x);
/* log |det dx/du| of DIST_BIJECT_TO at u: u's shape without the constraint's event dimensions. */
AD_API ad_tensor *dist_log_det(const dist_constraint *c, ad_tensor *u);
/* The shape of u for an x of shape `constrained`; false with an error when such an x cannot be. */
AD_API bool dist_unconstrained_shape(const dist_constraint *c, dist_map map, ad_shape constrained, ad_shape *out);

/* The same on numbers, for initial values and starting points: n elements x, the last dimension of size `last` (1 for a
 * scalar), to u under DIST_TRANSFORM_TO. False, with *bad the first offending element and no error reported, when some
 * x lies outside or so on the border that u is infinite. out may be x. */
AD_API bool dist_unconstrain_numbers(const dist_constraint *c, const double *x, double *out, int64_t n, int64_t last,
                                     int64_t *bad);

#ifdef __cplusplus
}
#endif
#endif
