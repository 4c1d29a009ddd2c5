/* What the two categorical classes share; both see a vector of log probabilities, log_p (..., K). */
#ifndef DISTRIBUTIONS_CATEGORICAL_H
#define DISTRIBUTIONS_CATEGORICAL_H

#include "distributions/formula.h"

T dist__categorical_log_p(const dist_object *d); /* of either class */
T dist__categorical_sample(const dist_object *d, const ad_shape *shape, int draw);
T dist__categorical_log_prob(const dist_object *d, T x);
T dist__categorical_mean(const dist_object *d);
T dist__categorical_variance(const dist_object *d);
T dist__categorical_entropy(const dist_object *d);
dist_constraint dist__categorical_support(const dist_object *d);

#endif
