/* What the tests of autodiff share: draws, comparisons, contexts, and gradients judged by finite differences.
 * Included by test files alone; everything reports through Check. */
#ifndef TESTS_NUMERIC_H
#define TESTS_NUMERIC_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "autodiff/ad.h"
#include "tests/test.h"

/* ---- draws and comparisons ---------------------------------------------------------------------------------------- */

/* The next of splitmix64. */
static inline uint64_t numeric_bits(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
static inline int64_t numeric_below(uint64_t *state, int64_t n)
{
    return (int64_t)(numeric_bits(state) % (uint64_t)n);
}
static inline double numeric_uniform(uint64_t *state, double low, double high)
{
    return low + (high - low) * (double)(numeric_bits(state) >> 11) * 0x1p-53;
}

/* |a - b| <= relative * max(|a|, |b|, scale); infinities and NaNs are close to themselves. */
static inline bool numeric_close(double a, double b, double relative, double scale)
{
    if (isnan(a) || isnan(b) || isinf(a) || isinf(b)) return a == b || (isnan(a) && isnan(b));
    return fabs(a - b) <= relative * fmax(fmax(fabs(a), fabs(b)), scale);
}

/* The sixth-order central difference from values at x + h, x - h, x + 2 h, x - 2 h, x + 3 h, x - 3 h. */
enum { NUMERIC_STENCIL = 6 };
static inline double numeric_offset(int s) { return (s % 2 ? -1.0 : 1.0) * (s / 2 + 1); }
static inline double numeric_difference(const double *y, double h)
{
    return (45 * (y[0] - y[1]) - 9 * (y[2] - y[3]) + (y[4] - y[5])) / (60 * h);
}

/* ---- contexts and shapes ------------------------------------------------------------------------------------------ */

/* Makes a context the current one. */
static inline ad_context *numeric_context(ad_precision precision, int threads)
{
    ad_context *c = ad_context_new(&(ad_options){ .precision = precision, .threads = threads });
    ck_assert_ptr_nonnull(c);
    ad_context_use(c);
    return c;
}

static inline int64_t numeric_size(const ad_shape *s)
{
    int64_t n = 1;
    for (int i = 0; i < s->rank; i++) n *= s->dim[i];
    return n;
}

/* The coordinates of element `at` of a row-major array, and back; coordinates of a longer shape are read from the right
 * and taken as 0 where s has size 1. */
static inline void numeric_coordinates(const ad_shape *s, int64_t at, int64_t *k)
{
    for (int i = s->rank - 1; i >= 0; i--) {
        k[i] = at % s->dim[i];
        at /= s->dim[i];
    }
}
static inline int64_t numeric_at(const ad_shape *s, const int64_t *k, int rank)
{
    int64_t at = 0;
    for (int i = 0; i < s->rank; i++) at = at * s->dim[i] + (s->dim[i] == 1 ? 0 : k[i + rank - s->rank]);
    return at;
}

/* n draws from [low, high), malloc'ed. */
static inline double *numeric_draws(uint64_t *state, int64_t n, double low, double high)
{
    double *x = malloc((size_t)(n + 1) * sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = numeric_uniform(state, low, high);
    return x;
}

/* All elements of a step value as doubles; fails the test with the library's words. */
static inline void numeric_read(ad_tensor *x, double *out, int64_t n)
{
    ck_assert_msg(ad_read(x, out, n), "%s", ad_error());
}

/* ---- programs and their gradients ---------------------------------------------------------------------------------------- */

/* A program under test: operands x[0..n) -> one value. `what` is the case's own. */
typedef ad_tensor *numeric_program(ad_tensor *const *x, const void *what);
enum { NUMERIC_OPERANDS = 8 };

/* The value of a program against `want` of shape `to`, relative to its largest element. */
static inline void numeric_check_value(const char *name, numeric_program *f, const void *what, const ad_shape *shapes,
                                       double *const *data, int n, ad_shape to, const double *want, double relative)
{
    int64_t size = numeric_size(&to);
    double *got = malloc((size_t)(size + 1) * sizeof *got), largest = 1e-3;
    for (int64_t k = 0; k < size; k++)
        if (isfinite(want[k])) largest = fmax(largest, fabs(want[k]));
    ad_scope {
        ad_tensor *x[NUMERIC_OPERANDS];
        for (int i = 0; i < n; i++) x[i] = ad_from(data[i], shapes[i]);
        ad_tensor *y = f(x, what);
        ad_shape s = ad_shape_of(y);
        ck_assert_msg(ad_ok() && s.rank == to.rank && !memcmp(s.dim, to.dim, (size_t)s.rank * sizeof *s.dim),
                      "%s: rank %d for %d, or other sizes %s", name, s.rank, to.rank, ad_error());
        ck_assert_msg(ad_read(y, got, size), "%s: %s", name, ad_error());
        for (int64_t k = 0; k < size; k++)
            ck_assert_msg(numeric_close(got[k], want[k], relative, largest), "%s: element %lld is %.17g, not %.17g", name,
                          (long long)k, got[k], want[k]);
        for (int i = 0; i < n; i++) ad_free(x[i]);
    }
    free(got);
}

/* sum(f(x) w), w fixed and without symmetry, so that a gradient that lands on the wrong element shows. */
static inline ad_tensor *numeric_loss(numeric_program *f, ad_tensor *const *x, const void *what)
{
    ad_tensor *y = f(x, what), *flat = ad_reshape(y, AD_SHAPE(-1));
    return ad_sum(ad_mul(flat, ad_cos(ad_add(ad_mul(ad_arange(ad_size(y)), 1.7), 0.3))));
}

/* Gradients of numeric_loss with respect to every operand against central differences, relative to the largest
 * derivative of the operand. The context is of double precision. */
static inline void numeric_check_gradient(const char *name, numeric_program *f, const void *what, const ad_shape *shapes,
                                          double *const *data, int n)
{
    ad_tensor *x[NUMERIC_OPERANDS], *d[NUMERIC_OPERANDS];
    double *got[NUMERIC_OPERANDS] = { NULL };
    for (int i = 0; i < n; i++) x[i] = ad_from(data[i], shapes[i]);
    ad_scope {
        ad_gradient(numeric_loss(f, x, what), x, n, d);
        for (int i = 0; i < n; i++) {
            int64_t size = numeric_size(&shapes[i]);
            got[i] = malloc((size_t)(size + 1) * sizeof(double));
            ck_assert_msg(ad_size(d[i]) == size, "%s: the gradient of operand %d has another shape: %s", name, i, ad_error());
            ck_assert_msg(ad_read(d[i], got[i], size), "%s: %s", name, ad_error());
        }
    }
    const double h = 2e-3;
    for (int i = 0; i < n; i++) {
        int64_t size = numeric_size(&shapes[i]);
        double *want = malloc((size_t)(size + 1) * sizeof *want), largest = 1e-3;
        double *at = malloc((size_t)(size + 1) * sizeof *at); /* the operand, which may lie out of the host's reach */
        if (size) memcpy(at, data[i], (size_t)size * sizeof *at);
        for (int64_t k = 0; k < size; k++) {
            double y[NUMERIC_STENCIL];
            for (int s = 0; s < NUMERIC_STENCIL; s++) {
                at[k] = data[i][k] + numeric_offset(s) * h;
                ad_write(x[i], at, size);
                ad_scope y[s] = ad_item(numeric_loss(f, x, what));
            }
            at[k] = data[i][k];
            ad_write(x[i], at, size);
            want[k] = numeric_difference(y, h);
            largest = fmax(largest, fabs(want[k]));
        }
        for (int64_t k = 0; k < size; k++)
            ck_assert_msg(numeric_close(got[i][k], want[k], 1e-7, largest), "%s: gradient of operand %d at %lld: %.12g, not %.12g",
                          name, i, (long long)k, got[i][k], want[k]);
        free(at);
        free(want);
        free(got[i]);
    }
    for (int i = 0; i < n; i++) ad_free(x[i]);
}

#endif
