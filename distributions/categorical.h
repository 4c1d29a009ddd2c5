/* What the classes of a choice share: the two categorical ones see a vector of log probabilities, log_p (..., K), the
 * two Bernoulli ones a pair of them. */
#ifndef DISTRIBUTIONS_CATEGORICAL_H
#define DISTRIBUTIONS_CATEGORICAL_H

#include "distributions/formula.h"

/* p x, and 0 where p is 0, with its slopes: what is impossible weighs nothing, were x infinite. */
T dist__weighed(T p, T x);

/* The probabilities of 0 and 1 with their logarithms, not clamped, of either class. */
typedef struct dist__two {
    T p[2], log_p[2];
} dist__two;
dist__two dist__bernoulli_parts(const dist_object *d);
T dist__bernoulli_entropy(const dist_object *d);

T dist__categorical_log_p(const dist_object *d); /* of either class; of probabilities clamped, as PyTorch's */
T dist__categorical_exact_log_p(const dist_object *d);
T dist__categorical_sample(const dist_object *d, const ad_shape *shape, int draw);
T dist__categorical_log_prob(const dist_object *d, T x);
T dist__categorical_mean(const dist_object *d);
T dist__categorical_variance(const dist_object *d);
T dist__categorical_entropy(const dist_object *d);
dist_constraint dist__categorical_support(const dist_object *d);

#endif
