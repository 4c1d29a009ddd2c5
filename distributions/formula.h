/* What the formulas of this room are written with: the operations as plain functions, so that an error keeps the line
 * of the user's call, not one of ours. Included first by every source file here; functions that have masks are defined
 * with their names in parentheses. */
#ifndef DISTRIBUTIONS_FORMULA_H
#define DISTRIBUTIONS_FORMULA_H

#define AUTODIFF_MASKS_H /* the masks of ad.h stay out */
#include "autodiff/context.h"
#include "autodiff/tape.h"

#include "distributions/check.h"

typedef ad_tensor *T;

/* A number that belongs to a formula. */
static inline T k(double x) { return ad_constant(x); }

/* x (..., N) -> (...): sums the n rightmost dimensions. */
T dist__sum_rightmost(T x, int n);
/* log(1 + (d / s)^2) + log s, s > 0, without overflow however large d / s is. */
T dist__log_cauchy(T d, T s);
/* x broadcast to an interned shape. */
T dist__expanded(T x, const ad_shape *to);

#define DIST(name) extern const dist_class dist__##name;
#include "distributions/registry.def"
#undef DIST

#define HALF_LOG_2PI 0.91893853320467274178
#define LOG_2 0.69314718055994530942
#define LOG_PI 1.14472988584940017414
#define PI 3.14159265358979323846
#define EULER 0.57721566490153286061

#endif
