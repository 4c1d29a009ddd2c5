/* Categorical by logits: log probabilities up to a constant. The formulas stand in categorical.c. */
#include "distributions/categorical.h"

const dist_class dist__categorical_logits = {
    .name = "categorical_logits",
    .n_parameters = 1,
    .parameter = { { .name = "logits", .constraint.kind = DIST_LOG_WEIGHTS, .event_dim = 1 } },
    .discrete = true,
    .sample = dist__categorical_sample,
    .log_prob = dist__categorical_log_prob,
    .mean = dist__categorical_mean,
    .variance = dist__categorical_variance,
    .entropy = dist__categorical_entropy,
    .support_of = dist__categorical_support,
};

distribution *(dist_categorical_logits)(T logits) { return dist_new(&dist__categorical_logits, (T[]){ logits }, 0); }
