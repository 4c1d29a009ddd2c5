/* The elementwise operations in closed form: FORM(name, value, derivatives...) over doubles a, b, c, d, for the judges of
 * ops.def. Included by test_ops.c and test_fuzz.c; every row of ops.def has a form here, or the test of coverage fails. */
#ifndef TESTS_OP_FORMS_H
#define TESTS_OP_FORMS_H

#include <math.h>

/* The polygamma function of order n >= 1, and digamma for n = 0: recurrence up to 30, then the asymptotic series
 * (Abramowitz and Stegun 6.3.18, 6.4.11), in long double. */
static inline double form_polygamma(int n, double at)
{
    static const long double bernoulli[] = { 1.0L / 6, -1.0L / 30, 1.0L / 42, -1.0L / 30, 5.0L / 66, -691.0L / 2730, 7.0L / 6 };
    long double x = at, sum = 0, sign = n % 2 ? 1 : -1;
    for (; x < 30; x++) sum += sign * tgammal(n + 1) / powl(x, n + 1);
    sum += n ? sign * (tgammal(n) / powl(x, n) + tgammal(n + 1) / (2 * powl(x, n + 1))) : logl(x) - 1 / (2 * x);
    for (int k = 1; k <= 7; k++)
        sum += sign * bernoulli[k - 1] * tgammal(2 * k + n) / (tgammal(2 * k + 1) * powl(x, 2 * k + n));
    return (double)sum;
}
static inline double form_sigmoid(double a) { return a < 0 ? exp(a) / (1 + exp(a)) : 1 / (1 + exp(-a)); }
static inline double form_softplus(double a) { return fmax(a, 0) + log1p(exp(-fabs(a))); }
static inline double form_root(double b, double c, double d) { return sqrt(b) * c + d; }

#define OP_FORMS(FORM)                                                                                                 \
    FORM(neg, -a, -1, 0, 0, 0)                                                                                         \
    FORM(abs, fabs(a), (a > 0) - (a < 0), 0, 0, 0)                                                                     \
    FORM(sign, (a > 0) - (a < 0), 0, 0, 0, 0)                                                                          \
    FORM(exp, exp(a), exp(a), 0, 0, 0)                                                                                 \
    FORM(expm1, expm1(a), exp(a), 0, 0, 0)                                                                             \
    FORM(log, log(a), 1 / a, 0, 0, 0)                                                                                  \
    FORM(log1p, log1p(a), 1 / (1 + a), 0, 0, 0)                                                                        \
    FORM(sqrt, sqrt(a), 0.5 / sqrt(a), 0, 0, 0)                                                                        \
    FORM(rsqrt, 1 / sqrt(a), -0.5 / (a * sqrt(a)), 0, 0, 0)                                                            \
    FORM(square, a *a, 2 * a, 0, 0, 0)                                                                                 \
    FORM(reciprocal, 1 / a, -1 / (a * a), 0, 0, 0)                                                                     \
    FORM(sin, sin(a), cos(a), 0, 0, 0)                                                                                 \
    FORM(cos, cos(a), -sin(a), 0, 0, 0)                                                                                \
    FORM(tanh, tanh(a), 1 / (cosh(a) * cosh(a)), 0, 0, 0)                                                              \
    FORM(sech_squared, 1 / (cosh(a) * cosh(a)), -2 * tanh(a) / (cosh(a) * cosh(a)), 0, 0, 0)                           \
    FORM(sigmoid_slope, form_sigmoid(a) * form_sigmoid(-a),                                                            \
         form_sigmoid(a) * form_sigmoid(-a) * (1 - 2 * form_sigmoid(a)), 0, 0, 0)                                      \
    FORM(sigmoid, form_sigmoid(a), form_sigmoid(a) * form_sigmoid(-a), 0, 0, 0)                                        \
    FORM(softplus, form_softplus(a), form_sigmoid(a), 0, 0, 0)                                                         \
    FORM(log_sigmoid, -form_softplus(-a), form_sigmoid(-a), 0, 0, 0)                                                   \
    FORM(relu, a > 0 ? a : 0, a > 0, 0, 0, 0)                                                                          \
    FORM(erf, erf(a), M_2_SQRTPI * exp(-a * a), 0, 0, 0)                                                               \
    FORM(lgamma, lgamma(a), form_polygamma(0, a), 0, 0, 0)                                                             \
    FORM(digamma, form_polygamma(0, a), form_polygamma(1, a), 0, 0, 0)                                                 \
    FORM(trigamma, form_polygamma(1, a), form_polygamma(2, a), 0, 0, 0)                                                \
    FORM(tetragamma, form_polygamma(2, a), form_polygamma(3, a), 0, 0, 0)                                              \
    FORM(logit_clamped, log(a / (1 - a)), 1 / (a * (1 - a)), 0, 0, 0)                                                  \
    FORM(inside_unit, a > 1e-9 && a < 1 - 1e-9, 0, 0, 0, 0)                                                            \
    FORM(is_finite, isfinite(a) != 0, 0, 0, 0, 0)                                                                      \
    FORM(floor, floor(a), 0, 0, 0, 0)                                                                                  \
    FORM(add, a + b, 1, 1, 0, 0)                                                                                       \
    FORM(sub, a - b, 1, -1, 0, 0)                                                                                      \
    FORM(mul, a *b, b, a, 0, 0)                                                                                        \
    FORM(div, a / b, 1 / b, -a / (b * b), 0, 0)                                                                        \
    FORM(pow, pow(a, b), b *pow(a, b - 1), pow(a, b) * log(a), 0, 0)                                                   \
    FORM(min, a < b ? a : b, a <= b, a > b, 0, 0)                                                                      \
    FORM(max, a > b ? a : b, a >= b, a < b, 0, 0)                                                                      \
    FORM(eq, a == b, 0, 0, 0, 0)                                                                                       \
    FORM(ne, a != b, 0, 0, 0, 0)                                                                                       \
    FORM(lt, a < b, 0, 0, 0, 0)                                                                                        \
    FORM(le, a <= b, 0, 0, 0, 0)                                                                                       \
    FORM(gt, a > b, 0, 0, 0, 0)                                                                                        \
    FORM(ge, a >= b, 0, 0, 0, 0)                                                                                       \
    FORM(chain, a == 0 ? 0 : a * b, b, a, 0, 0)                                                                        \
    FORM(mul_zero, a == 0 || b == 0 ? 0 : a * b, b, a, 0, 0)                                                           \
    FORM(xlogy, a == 0 ? 0 : a * log(b), log(b), a / b, 0, 0)                                                          \
    FORM(bernoulli_log_density, a *b - form_softplus(b), b, a - form_sigmoid(b), 0, 0)                                 \
    FORM(bernoulli_score, a - form_sigmoid(b), 1, -form_sigmoid(b) * form_sigmoid(-b), 0, 0)                           \
    FORM(where, a != 0 ? b : c, 0, a != 0, a == 0, 0)                                                                  \
    FORM(clamp, a < b ? b : a > c ? c : a, a >= b && a <= c, a < b, a > c, 0)                                          \
    FORM(within, a >= b && a <= c, 0, 0, 0, 0)                                                                         \
    FORM(fma, a *b + c, b, a, 1, 0)                                                                                    \
    FORM(lerp, a + c * (b - a), 1 - c, c, b - a, 0)                                                                    \
    FORM(adam_direction, a / form_root(b, c, d), 1 / form_root(b, c, d),                                               \
         -0.5 * a * c / (sqrt(b) * form_root(b, c, d) * form_root(b, c, d)),                                           \
         -a * sqrt(b) / (form_root(b, c, d) * form_root(b, c, d)), -a / (form_root(b, c, d) * form_root(b, c, d)))     \
    FORM(normal_log_density, -0.5 * (a - b) * (a - b) / (c * c) - d - 0.91893853320467274178, (b - a) / (c * c),       \
         (a - b) / (c * c), (a - b) * (a - b) / (c * c * c), -1)                                                       \
    FORM(normal_score, (a - b) / (c * c), 1 / (c * c), -1 / (c * c), -2 * (a - b) / (c * c * c), 0)

/* One C function for each: form_<name>(x, d) gives the value and, where d is not NULL, the four derivatives. */
#define FORM(name, value, da, db, dc, dd)                                                                              \
    static inline double form_of_##name(const double *x, double *slope)                                                \
    {                                                                                                                  \
        double a = x[0], b = x[1], c = x[2], d = x[3];                                                                 \
        (void)b, (void)c, (void)d;                                                                                     \
        if (slope) slope[0] = (da), slope[1] = (db), slope[2] = (dc), slope[3] = (dd);                                 \
        return (value);                                                                                                \
    }
OP_FORMS(FORM)
#undef FORM

typedef struct op_form {
    const char *name;
    double (*value)(const double *x, double *slope);
} op_form;
#define FORM(form, ...) { #form, form_of_##form },
static const op_form op_forms[] = { OP_FORMS(FORM) };
#undef FORM
enum { OP_FORM_COUNT = sizeof op_forms / sizeof op_forms[0] };

#endif
