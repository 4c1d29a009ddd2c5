/* The scalar functions of autodiff/real.h, in both precisions and every instruction set that this machine runs (through
 * math_probe.c), against references of 25 digits and C's special values; errors are counted in ulp.
 */
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/math_probe.h"
#include "tests/test.h"

typedef struct {
    double x, y;
    long double value;
} math_case;

#include "tests/golden/math.inc"

typedef struct {
    const char *name;
    const math_case *cases[2]; /* float, double */
    int n[2];
} golden;

#define COUNT(a) ((int)(sizeof(a) / sizeof(a)[0]))
#define GOLDEN(f) { #f, { f##_f32, f##_f64 }, { COUNT(f##_f32), COUNT(f##_f64) } },
static const golden goldens[] = { MATH_GOLDEN(GOLDEN) };

/* Largest error allowed, in ulp of max(|value|, floor); for negative arguments the second pair where there is one */
/* clang-format off */
static const struct {
    const char *name;
    double ulp[2], floor, ulp_below_zero, floor_below_zero;
} bounds[] = {
    {"sqrt", {0.5, 0.5}, 0, 0, 0},     {"rsqrt", {1.5, 1.5}, 0, 0, 0},      {"exp", {1, 1}, 0, 0, 0},
    {"expm1", {1.6, 2}, 0, 0, 0},      {"log", {1, 1}, 0, 0, 0},            {"log1p", {1.5, 1.5}, 0, 0, 0},
    {"sin", {1.6, 2.5}, 0, 0, 0},      {"cos", {1.6, 2.5}, 0, 0, 0},        {"tanh", {1.6, 1.6}, 0, 0, 0},
    {"sigmoid", {2, 2}, 0, 0, 0},      {"softplus", {2.1, 2.1}, 0, 0, 0},   {"log_sigmoid", {2.1, 2.1}, 0, 0, 0},
    {"erf", {1.6, 1.6}, 0, 0, 0},      {"pow", {1.5, 1.5}, 0, 0, 0},        {"logit_clamped", {2, 2}, 0.5, 0, 0},
    {"lgamma", {2.5, 2.5}, 0, 4, 8},   {"digamma", {2.5, 3}, 0, 5, 8},   {"trigamma", {2.5, 2.5}, 0, 5, 0},
    {"tetragamma", {4.5, 5}, 0, 9, 8},
};
/* clang-format on */

/* ---- the sets of functions under test ---- */

typedef struct {
    const char *isa;
    int bits;
    const math_probe *probes;
} variant;

enum { VARIANTS_MAX = 8 };

/* Those this machine can run -> their number */
static int variants(variant *v)
{
    int n = 0;
    v[n++] = (variant){ "base", 32, math_probes_f32_base };
    v[n++] = (variant){ "base", 64, math_probes_f64_base };
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        v[n++] = (variant){ "avx2", 32, math_probes_f32_avx2 };
        v[n++] = (variant){ "avx2", 64, math_probes_f64_avx2 };
    }
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl")) {
        v[n++] = (variant){ "avx512", 32, math_probes_f32_avx512 };
        v[n++] = (variant){ "avx512", 64, math_probes_f64_avx512 };
    }
#endif
    return n;
}

/* x (n), y (n) -> out (n) as doubles, in the variant's precision */
static void evaluate(const variant *v, const char *name, const double *x, const double *y, double *out, int n)
{
    const math_probe *p = v->probes;
    while (p->name && strcmp(p->name, name))
        p++;
    ck_assert_msg(p->name != NULL, "no function %s", name);
    if (v->bits == 64) {
        p->run(x, y, out, n);
        return;
    }
    float *a = malloc(3 * (size_t)n * sizeof *a), *b = a + n, *c = b + n;
    for (int i = 0; i < n; i++) {
        a[i] = (float)x[i];
        b[i] = (float)y[i];
    }
    p->run(a, b, c, n);
    for (int i = 0; i < n; i++)
        out[i] = c[i];
    free(a);
}

/* Distance of `got` from the reference in ulp of max(|value|, floor). */
static double error(double got, long double value, int bits, double floor)
{
    long double magnitude = fabsl(value) > floor ? fabsl(value) : floor;
    int exponent, digits = bits == 32 ? FLT_MANT_DIG : DBL_MANT_DIG, least = bits == 32 ? FLT_MIN_EXP : DBL_MIN_EXP;
    frexpl(magnitude, &exponent);
    if (exponent < least)
        exponent = least;
    return (double)(fabsl((long double)got - value) / ldexpl(1, exponent - digits));
}

/* ---- accuracy ---- */

START_TEST(test_accuracy)
{
    variant v[VARIANTS_MAX];
    int n_variants = variants(v);
    const golden *g = &goldens[_i];
    int b = 0;
    while (b < COUNT(bounds) && strcmp(bounds[b].name, g->name))
        b++;
    ck_assert_msg(b < COUNT(bounds), "no bound for %s", g->name);
    for (int i = 0; i < n_variants; i++) {
        int wide = v[i].bits == 64, n = g->n[wide];
        double *x = malloc(3 * (size_t)n * sizeof *x), *y = x + n, *out = y + n;
        for (int k = 0; k < n; k++) {
            x[k] = g->cases[wide][k].x;
            y[k] = g->cases[wide][k].y;
        }
        evaluate(&v[i], g->name, x, y, out, n);
        for (int k = 0; k < n; k++) {
            long double value = g->cases[wide][k].value;
            bool below = x[k] < 0 && bounds[b].ulp_below_zero > 0;
            double e = error(out[k], value, v[i].bits, below ? bounds[b].floor_below_zero : bounds[b].floor);
            ck_assert_msg(e <= (below ? bounds[b].ulp_below_zero : bounds[b].ulp[wide]),
                          "%s f%d %s: x %a, y %a: got %.17g, want %.20Lg, %.2f ulp off", g->name, v[i].bits, v[i].isa,
                          x[k], y[k], out[k], value, e);
        }
        free(x);
    }
}
END_TEST

/* ---- special values ---- */

typedef struct {
    const char *name;
    double x, y, want;
} special;

#define I INFINITY
/* clang-format off */
static const special specials[] = {
    {"abs", -0.0, 0, 0.0}, {"abs", -I, 0, I}, {"abs", NAN, 0, NAN}, {"sign", -3, 0, -1}, {"sign", 0.0, 0, 0.0},
    {"sign", -0.0, 0, -0.0}, {"sign", I, 0, 1}, {"sign", NAN, 0, NAN}, {"round", 2.5, 0, 2}, {"round", 3.5, 0, 4},
    {"round", -0.4, 0, -0.0}, {"round", -I, 0, -I}, {"round", NAN, 0, NAN}, {"round", 1e30, 0, 1e30},
    {"floor", -0.25, 0, -1}, {"floor", 2.75, 0, 2}, {"floor", -0.0, 0, -0.0}, {"floor", I, 0, I},
    {"floor", 8388609, 0, 8388609}, {"ceil", -0.25, 0, -0.0}, {"ceil", 2.25, 0, 3}, {"ceil", NAN, 0, NAN},
    {"min", 1, 2, 1}, {"min", 2, 1, 1}, {"min", NAN, 1, NAN}, {"min", 1, NAN, NAN}, {"min", -I, I, -I},
    {"max", 1, 2, 2}, {"max", 2, 1, 2}, {"max", NAN, 1, NAN}, {"max", 1, NAN, NAN}, {"max", -I, I, I},
    {"sqrt", -1, 0, NAN}, {"sqrt", -0.0, 0, -0.0}, {"sqrt", I, 0, I}, {"rsqrt", 0, 0, I}, {"rsqrt", I, 0, 0},
    {"exp", -I, 0, 0}, {"exp", I, 0, I}, {"exp", NAN, 0, NAN}, {"exp", 0, 0, 1}, {"exp", -1e30, 0, 0},
    {"exp", 1e30, 0, I}, {"exp", 709.8, 0, I}, {"exp", -745.2, 0, 0}, {"expm1", -I, 0, -1}, {"expm1", I, 0, I},
    {"expm1", NAN, 0, NAN}, {"expm1", -0.0, 0, -0.0}, {"expm1", 0, 0, 0}, {"log", 0, 0, -I}, {"log", -0.0, 0, -I},
    {"log", -1, 0, NAN}, {"log", -I, 0, NAN}, {"log", I, 0, I}, {"log", NAN, 0, NAN}, {"log", 1, 0, 0},
    {"log1p", -1, 0, -I}, {"log1p", -1.5, 0, NAN}, {"log1p", I, 0, I}, {"log1p", NAN, 0, NAN}, {"log1p", -I, 0, NAN},
    {"log1p", -0.0, 0, -0.0}, {"log1p", 0, 0, 0}, {"sin", I, 0, NAN}, {"sin", -I, 0, NAN}, {"sin", NAN, 0, NAN},
    {"sin", -0.0, 0, -0.0}, {"cos", I, 0, NAN}, {"cos", 0, 0, 1}, {"cos", NAN, 0, NAN}, {"tanh", I, 0, 1},
    {"tanh", -I, 0, -1}, {"tanh", NAN, 0, NAN}, {"tanh", -0.0, 0, -0.0}, {"sigmoid", I, 0, 1}, {"sigmoid", -I, 0, 0},
    {"sigmoid", NAN, 0, NAN}, {"sigmoid", 0, 0, 0.5}, {"softplus", I, 0, I}, {"softplus", -I, 0, 0},
    {"softplus", NAN, 0, NAN}, {"softplus", 1e6, 0, 1e6}, {"log_sigmoid", -I, 0, -I}, {"log_sigmoid", I, 0, -0.0},
    {"log_sigmoid", NAN, 0, NAN}, {"logit_clamped", NAN, 0, NAN}, {"logit_clamped", 0.5, 0, 0}, {"erf", I, 0, 1},
    {"erf", -I, 0, -1}, {"erf", NAN, 0, NAN}, {"erf", -0.0, 0, -0.0}, {"lgamma", 1, 0, 0}, {"lgamma", 2, 0, 0},
    {"lgamma", 0, 0, I}, {"lgamma", -0.0, 0, I}, {"lgamma", -3, 0, I}, {"lgamma", I, 0, I}, {"lgamma", -I, 0, I},
    {"lgamma", NAN, 0, NAN}, {"lgamma", -1e20, 0, I}, {"digamma", 0.0, 0, -I}, {"digamma", -0.0, 0, I},
    {"digamma", -2, 0, NAN}, {"digamma", I, 0, I}, {"digamma", NAN, 0, NAN}, {"trigamma", 0, 0, I},
    {"trigamma", -2, 0, I}, {"trigamma", I, 0, 0}, {"trigamma", NAN, 0, NAN}, {"tetragamma", 0, 0, -I},
    {"tetragamma", -2, 0, NAN}, {"tetragamma", NAN, 0, NAN}, {"pow", 0, 0, 1}, {"pow", NAN, 0, 1}, {"pow", 1, NAN, 1},
    {"pow", I, 0, 1}, {"pow", 0, 3, 0}, {"pow", -0.0, 3, -0.0}, {"pow", -0.0, 2, 0}, {"pow", -0.0, -3, -I},
    {"pow", 0, -1.5, I}, {"pow", -2, 3, -8}, {"pow", -2, 2, 4}, {"pow", -2, 0.5, NAN}, {"pow", -2, 1e30, I},
    {"pow", -0.5, 1e30, 0}, {"pow", -1, I, 1}, {"pow", -1, -I, 1}, {"pow", 2, I, I}, {"pow", 2, -I, 0},
    {"pow", 0.5, I, 0}, {"pow", 0.5, -I, I}, {"pow", I, 2, I}, {"pow", I, -2, 0}, {"pow", -I, 3, -I},
    {"pow", -I, 2, I}, {"pow", -I, -3, -0.0}, {"pow", -I, 0.5, I}, {"pow", NAN, 2, NAN}, {"pow", 2, NAN, NAN},
    {"pow", 10, 400, I}, {"pow", 10, -400, 0}, {"pow", 3, 2, 9}, {"pow", -3, 16777217, -I},
};
/* clang-format on */
#undef I

START_TEST(test_special)
{
    variant v[VARIANTS_MAX];
    int n = variants(v);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < COUNT(specials); k++) {
            const special *s = &specials[k];
            if (v[i].bits == 32 && (double)(float)s->y != s->y && s->y == s->y)
                continue;                 /* 2^24 + 1 is even as a float */
            double x[19], y[19], out[19]; /* both the vector loop and its remainder */
            double want = v[i].bits == 32 ? (float)s->want : s->want;
            for (int j = 0; j < COUNT(x); j++) {
                x[j] = s->x;
                y[j] = s->y;
            }
            evaluate(&v[i], s->name, x, y, out, COUNT(x));
            for (int j = 0; j < COUNT(x); j++)
                ck_assert_msg(isnan(want) ? isnan(out[j]) : out[j] == want && signbit(out[j]) == signbit(want),
                              "%s f%d %s: x %g, y %g: got %g, want %g", s->name, v[i].bits, v[i].isa, s->x, s->y,
                              out[j], want);
        }
}
END_TEST

/* ---- properties ---- */

/* The same argument gives the same bits wherever it lies, and instruction sets with fused multiply-add agree. */
START_TEST(test_same_bits)
{
    enum { N = 67 };
    variant v[VARIANTS_MAX];
    int n = variants(v);
    double x[N], y[N], all[N], one, other[N];
    for (int i = 0; i < N; i++) {
        x[i] = (float)ldexp(1 + i / 64.0, i % 13 - 6);
        y[i] = (float)(i / 16.0 - 2);
    }
    for (int i = 0; i < n; i++)
        for (const math_probe *p = v[i].probes; p->name; p++) {
            evaluate(&v[i], p->name, x, y, all, N);
            for (int k = 0; k < N; k++) {
                evaluate(&v[i], p->name, &x[k], &y[k], &one, 1);
                ck_assert_msg(memcmp(&one, &all[k], sizeof one) == 0, "%s f%d %s: x %a gives %a and %a", p->name,
                              v[i].bits, v[i].isa, x[k], all[k], one);
            }
            for (int j = 2; j < i; j++)
                if (v[j].bits == v[i].bits) {
                    evaluate(&v[j], p->name, x, y, other, N);
                    ck_assert_msg(memcmp(other, all, sizeof all) == 0, "%s f%d: %s and %s differ", p->name, v[i].bits,
                                  v[j].isa, v[i].isa);
                }
        }
}
END_TEST

/* softplus has no threshold: it exceeds max(x, 0) while that can be represented, and never decreases. */
START_TEST(test_softplus_has_no_kink)
{
    enum { N = 4001 };
    variant v[VARIANTS_MAX];
    int n = variants(v);
    double x[N], y[N], out[N];
    for (int i = 0; i < N; i++) {
        x[i] = (float)(i / 100.0 - 20);
        y[i] = 0;
    }
    for (int i = 0; i < n; i++) {
        evaluate(&v[i], "softplus", x, y, out, N);
        for (int k = 0; k < N; k++) {
            ck_assert(out[k] > x[k] || x[k] > 13);
            ck_assert(out[k] > 0 && out[k] >= x[k]);
            ck_assert(k == 0 || out[k] >= out[k - 1]);
        }
    }
}
END_TEST

/* Far out the phase of a sine is lost, but never its range. */
START_TEST(test_sine_stays_bounded)
{
    enum { N = 600 };
    variant v[VARIANTS_MAX];
    int n = variants(v);
    double x[N], y[N] = { 0 }, s[N], c[N];
    for (int i = 0; i < N; i++)
        x[i] = (float)ldexp(1 + (i * 37 % 64) / 64.0, i / 5);
    for (int i = 0; i < n; i++) {
        evaluate(&v[i], "sin", x, y, s, N);
        evaluate(&v[i], "cos", x, y, c, N);
        for (int k = 0; k < N; k++)
            ck_assert_msg(fabs(s[k]) <= 1 && fabs(c[k]) <= 1 && fabs(s[k] * s[k] + c[k] * c[k] - 1) < 1e-2,
                          "f%d %s: x %g: sin %g, cos %g", v[i].bits, v[i].isa, x[k], s[k], c[k]);
    }
}
END_TEST

Suite *suite_math(void)
{
    Suite *s = suite_create("math");
    TCase *t = tcase_create("real");
    tcase_add_loop_test(t, test_accuracy, 0, COUNT(goldens));
    tcase_add_test(t, test_special);
    tcase_add_test(t, test_same_bits);
    tcase_add_test(t, test_softplus_has_no_kink);
    tcase_add_test(t, test_sine_stays_bounded);
    suite_add_tcase(s, t);
    return s;
}
