/* Checks of single parameters and values, for dist.c and for ppl's first look at a program. Internal. */
#ifndef DISTRIBUTIONS_CHECK_H
#define DISTRIBUTIONS_CHECK_H

#include "autodiff/tape.h"
#include "distributions/class.h"

/* Whether a node of the open tape is a number, perhaps broadcast, and which one: as the context's precision holds
 * it. */
bool dist__number(const ad_context *c, node_id id, double *x);

/* What parameter i must satisfy, or (i the number of parameters) an observed value: the support, or what the class
 * accepts beyond it. */
dist_constraint dist__wanted(const dist_object *o, int i);

/* 1 where parameter i (or the value) is not what is wanted and neither the distribution's mask nor `mask` (NULL: none)
 * hides it, else 0: of the shape of the parameter, broadcast with bounds and masks, without a constraint's event
 * dimensions. NULL when nothing needs to be computed: numbers and operations such as exp promise it. */
ad_tensor *dist__outside(const dist_object *o, int i, ad_tensor *value, ad_tensor *mask);
/* The same for NaN, which is told even where any real number would do; never NULL. */
ad_tensor *dist__is_nan(const dist_object *o, int i, ad_tensor *value, ad_tensor *mask);

/* dist_constraint_describe with so many digits; and how many of them tell x, which violates the constraint, from its
 * bounds: "found -2, and must be in [-2, 2]" is no help. */
const char *dist__describe(const dist_constraint *c, int digits, char *out, size_t size);
int dist__digits(const dist_constraint *c, double x);

#endif
