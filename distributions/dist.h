/* Distributions: objects with a step's life, made by dist_<name>(parameters), read by ppl and by users.
 *
 * A distribution has a batch shape (independent, possibly different members) and an event shape (one draw of one
 * member). log_prob has the batch shape, broadcast against the value's. `distribution *` is a handle like ad_tensor *:
 * it ends with the step or scope that made it, and nil goes through every call unharmed.
 *
 * Terms and shapes are Pyro's: https://docs.pyro.ai, "Tensor shapes in Pyro". */
#ifndef DISTRIBUTIONS_DIST_H
#define DISTRIBUTIONS_DIST_H

#include "autodiff/ad.h"
#include "distributions/constraint.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct distribution distribution; /* a handle, never dereferenced by users */

AD_API ad_shape dist_batch_shape(distribution *d);
AD_API ad_shape dist_event_shape(distribution *d);
AD_API int dist_event_dim(distribution *d);
AD_API const char *dist_name(distribution *d); /* "normal"; "?" for nil */
AD_API bool dist_is_nil(const distribution *d);

/* A draw of shape batch + event. `draw` separates several draws at one site. When the distribution is reparametrised
 * the gradient flows to its parameters (the pathwise derivative), else it stops. */
AD_API ad_tensor *dist_sample(distribution *d, int draw);
AD_API bool dist_has_rsample(distribution *d);
/* The same distribution with the pathwise derivative switched off (on: back to what its class can do): the
 * score-function estimator is used at its site. Survives dist_expand and dist_to_event. */
AD_API distribution *dist_set_rsample(distribution *d, bool on);
/* log p(value): shape broadcast(batch shape, value's batch part). */
AD_API ad_tensor *dist_log_prob(distribution *d, ad_tensor *value);
/* Mean and variance, shape batch + event; an error for a class that has none. */
AD_API ad_tensor *dist_mean(distribution *d);
AD_API ad_tensor *dist_variance(distribution *d);

/* Batch shape broadcast to `batch`: every new cell draws independently. */
AD_API distribution *dist_expand(distribution *d, ad_shape batch);
/* The n rightmost batch dimensions become event dimensions (total = old + n): log_prob is summed over them. n = 0 gives
 * d, AD_ALL_DIMS all batch dimensions, a negative n gives event dimensions made by to_event back. */
enum { AD_ALL_DIMS = 1 << 20 };
AD_API distribution *dist_to_event(distribution *d, int n);
/* log_prob is 0, with gradient exactly 0, where mask (broadcast to the batch shape) is 0. */
AD_API distribution *dist_mask(distribution *d, ad_tensor *mask);

/* ---- reading more ------------------------------------------------------------------------------------------------ */

/* Entropy in closed form, of the batch shape; an error for a class that does not know it. */
AD_API ad_tensor *dist_entropy(distribution *d);
/* Whether values are integers, and where values lie. Bounds may be step values. */
AD_API bool dist_is_discrete(distribution *d);
AD_API dist_constraint dist_support(distribution *d);
/* Parameters by number: NULL name, nil tensor and `real` past the last one. */
AD_API int dist_parameter_count(distribution *d);
AD_API const char *dist_parameter_name(distribution *d, int i);
AD_API ad_tensor *dist_parameter_value(distribution *d, int i);
AD_API dist_constraint dist_parameter_constraint(distribution *d, int i);
/* 1 where all parameters satisfy their constraints and, when value is not NULL, the value lies in the support (for a
 * Bernoulli: in [0, 1]); else 0.
 *
 * What is checked when: plain numbers among the parameters, as the context's precision holds them, by the constructors,
 * at once. Computed parameters, values that were observed and those that a guide draws for a model, by svi_step,
 * svi_evaluate and svi_run where they meet a program first, before anything runs (ppl_density_new: observed values
 * alone; ppl_predict and ppl_trace_run: parameters alone); parameters whose last operation promises their constraint,
 * as exp, softplus and sigmoid do, cost nothing. A program that is known pays nothing: what turns bad later is named when the
 * loss is not finite. dist_log_prob itself looks at nothing: it is -inf outside the support, or what the formula
 * gives. */
AD_API ad_tensor *dist_check(distribution *d, ad_tensor *value);

/* KL(p || q), of the common batch shape, where it has a closed form: normal, log_normal, half_normal, bernoulli and
 * categorical (probs or logits), geometric, exponential, laplace, uniform, cauchy and gumbel among themselves, delta
 * against anything; equally many event dimensions on both sides, no masks. Infinite where p can draw what q cannot;
 * what p cannot draw counts nothing. */
AD_API bool dist_has_kl(distribution *p, distribution *q);
AD_API ad_tensor *dist_kl(distribution *p, distribution *q); /* an error where dist_has_kl is false */

/* ---- the distributions ----------------------------------------------------------------------------------------------
 * Parameters are broadcast against each other; in C a number may stand for a tensor. Densities at x: */

/* exp(-(x - loc)^2 / (2 scale^2)) / (scale sqrt(2 pi)), scale > 0 */
AD_API distribution *dist_normal(ad_tensor *loc, ad_tensor *scale);
/* probs^x (1 - probs)^(1 - x). As in PyTorch, probs is clamped to [eps, 1 - eps] in log_prob, so that it is never below
 * log eps (eps: 2^-23 in float, 2^-52 in double), with gradient 0 where it was clamped; x may be anything in [0, 1]
 * (gray pixels): the log density is linear in x. */
AD_API distribution *dist_bernoulli(ad_tensor *probs);
/* The same with probs = sigmoid(logits), never clamped. */
AD_API distribution *dist_bernoulli_logits(ad_tensor *logits);
/* All mass at value: log_prob is 0 where x equals it exactly, else -inf. */
AD_API distribution *dist_delta(ad_tensor *value);
/* A delta whose draws are the event_dim rightmost dimensions of value, and whose log_prob at it is log_density (of the
 * batch shape): what a deterministic map of another draw carries along. */
AD_API distribution *dist_delta_density(ad_tensor *value, ad_tensor *log_density, int event_dim);
/* exp of a normal: log x is normal(loc, scale) */
AD_API distribution *dist_log_normal(ad_tensor *loc, ad_tensor *scale);
/* |x| of a normal(0, scale); support x >= 0 */
AD_API distribution *dist_half_normal(ad_tensor *scale);
/* 1 / (high - low) on [low, high] */
AD_API distribution *dist_uniform(ad_tensor *low, ad_tensor *high);
/* rate exp(-rate x), x >= 0 */
AD_API distribution *dist_exponential(ad_tensor *rate);
/* exp(-|x - loc| / scale) / (2 scale) */
AD_API distribution *dist_laplace(ad_tensor *loc, ad_tensor *scale);
/* 1 / (pi scale (1 + ((x - loc) / scale)^2)); no moments */
AD_API distribution *dist_cauchy(ad_tensor *loc, ad_tensor *scale);
/* |x| of a cauchy(0, scale); support x >= 0; no moments */
AD_API distribution *dist_half_cauchy(ad_tensor *scale);
/* exp(-(z + exp(-z))) / scale, z = (x - loc) / scale */
AD_API distribution *dist_gumbel(ad_tensor *loc, ad_tensor *scale);
/* exp(-z) / (scale (1 + exp(-z))^2), z = (x - loc) / scale */
AD_API distribution *dist_logistic(ad_tensor *loc, ad_tensor *scale);
/* (1 - probs)^x probs, x = 0, 1, ...: failures before the first success; 0 < probs <= 1, never
 * clamped */
AD_API distribution *dist_geometric(ad_tensor *probs);
/* x in 0, ..., K - 1 with probability proportional to probs (..., K), clamped as in dist_bernoulli after division by
 * their sum */
AD_API distribution *dist_categorical(ad_tensor *probs);
/* The same with probs = softmax(logits). */
AD_API distribution *dist_categorical_logits(ad_tensor *logits);

#ifdef __cplusplus
}
#else
#define dist_to_event(d, n) (dist_to_event)((d), (int)AD_WHOLE_(n))
#define dist_normal(loc, scale) AD_MASK2(dist_normal, loc, scale)
#define dist_bernoulli(probs) AD_MASK1(dist_bernoulli, probs)
#define dist_bernoulli_logits(logits) AD_MASK1(dist_bernoulli_logits, logits)
#define dist_delta(value) AD_MASK1(dist_delta, value)
#define dist_log_normal(loc, scale) AD_MASK2(dist_log_normal, loc, scale)
#define dist_half_normal(scale) AD_MASK1(dist_half_normal, scale)
#define dist_uniform(low, high) AD_MASK2(dist_uniform, low, high)
#define dist_exponential(rate) AD_MASK1(dist_exponential, rate)
#define dist_laplace(loc, scale) AD_MASK2(dist_laplace, loc, scale)
#define dist_cauchy(loc, scale) AD_MASK2(dist_cauchy, loc, scale)
#define dist_half_cauchy(scale) AD_MASK1(dist_half_cauchy, scale)
#define dist_gumbel(loc, scale) AD_MASK2(dist_gumbel, loc, scale)
#define dist_logistic(loc, scale) AD_MASK2(dist_logistic, loc, scale)
#define dist_geometric(probs) AD_MASK1(dist_geometric, probs)
#define dist_categorical(probs) AD_MASK1(dist_categorical, probs)
#define dist_categorical_logits(logits) AD_MASK1(dist_categorical_logits, logits)
#endif
#endif
