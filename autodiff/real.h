/* Scalar mathematics of the kernels, in the precision AD_REAL_BITS (32 or 64): branch-free functions that gcc
 * vectorises at -O3 -fno-math-errno -fno-trapping-math.  Included by kernel sources (one object per precision and
 * instruction set) and, as C++, by CUDA sources.  Needs no system header; assumes rounding to nearest, denormals on,
 * no -ffast-math, -ffp-contract=off.
 */
#ifndef AD_REAL_H
#define AD_REAL_H

/* Largest errors found, in ulp (float: every 17th of all floats; double: 4e7 arguments of all sizes; against 64 bit
 * long double and, in the tests, 50 digits), and ns per element with AVX-512 / AVX2 / SSE2 on a shared core
 * of an Emerald Rapids Xeon:
 *
 *                  float                          double
 *     exp          0.98   0.34 / 0.6 / 1.5        0.98   0.8 / 1.6 / 4.5
 *     expm1        1.49   0.32 / 0.6 / 1.7        1.92   0.8 / 1.5 / 5.0
 *     log          0.83   0.44 / 0.8 / 1.9        0.82   1.0 / 1.8 / 5.0
 *     log1p        1.37   0.55 / 1.0 / 2.3        1.39   1.2 / 2.3 / 6.1
 *     sin, cos     1.56   0.81 / 1.5 / 3.0        2.38   1.1 / 2.0 / 5.3      |x| <= 1e8
 *     tanh         1.43   0.58 / 1.1 / 2.9        1.43   1.6 / 2.9 / 8.6
 *     sigmoid      1.93   0.53 / 1.0 / 3.1        1.94   1.3 / 2.5 / 8.4
 *     softplus     2.08   0.60 / 1.3 / 3.6        1.96   2.2 / 4.3 / 15       log_sigmoid alike; 1.82 and 1.63 with FMA
 *     erf          1.36   0.76 / 1.7 / 4.8        1.36   2.8 / 6.2 / 21
 *     pow          1.14   3.8 / 7.9 / 20          1.13   8.5 / 18 / 54
 *     lgamma       2.35   2.2 / 4.1 / 13          2.46   5.9 / 11 / 35        x > 0; x < 0: 4 ulp of max(|y|, 8)
 *     digamma      2.46   1.5 / 2.8 / 8.1         2.5    4.4 / 8.6 / 37       x > 0; x < 0: 8 ulp of max(|y|, 8)
 *     trigamma     2.40   0.8 / 1.6 / 5.8         2.57   2.8 / 5.6 / 28       x > 0; x < 0: 5 ulp
 *     tetragamma   4.08   1.1 / 2.3 / 7.7         4.89   3.4 / 7.5 / 34       x > 0; x < 0: 9 ulp of max(|y|, 8)
 *
 * sqrt is exact, rsqrt within 1.5.  Only pow and lgamma in double stay scalar in a build without AVX2.  NaN gives NaN
 * (but pow(1, NaN) = pow(NaN, 0) = 1, as in C); zeros, infinities and denormals give what C's functions give.
 */

#if AD_REAL_BITS != 32 && AD_REAL_BITS != 64
#error "define AD_REAL_BITS as 32 or 64"
#endif

#ifdef __CUDACC__
#define REAL_FN static __device__ __forceinline__
#define REAL__FMAF(a, b, c) __fmaf_rn(a, b, c)
#define REAL__FMA(a, b, c) __fma_rn(a, b, c)
#else
#define REAL_FN static inline __attribute__((always_inline, unused))
#define REAL__FMAF(a, b, c) __builtin_fmaf(a, b, c)
#define REAL__FMA(a, b, c) __builtin_fma(a, b, c)
#endif

#if defined __CUDACC__ || defined __FMA__ || defined __ARM_FEATURE_FMA
#define REAL_HAS_FMA 1
#else
#define REAL_HAS_FMA 0
#endif

/* R(1.5) is a constant of type real.  real_fma_exact rounds once everywhere (a libm call where there is no
 * instruction); real_fma rounds once where that is one instruction, else twice. */
#if AD_REAL_BITS == 32
typedef float real;
typedef unsigned int real_bits;
#define REAL__MANTISSA 23
#define REAL__BIAS 127u
#define REAL__SQRT_HALF 0x3f3504f3u /* bits of sqrt(1/2) */
#define REAL__MIN_NORMAL R(1.17549435e-38)
#define real_fma_exact(a, b, c) REAL__FMAF(a, b, c)
#else
typedef double real;
typedef unsigned long long real_bits;
#define REAL__MANTISSA 52
#define REAL__BIAS 1023ull
#define REAL__SQRT_HALF 0x3fe6a09e667f3bcdull
#define REAL__MIN_NORMAL R(2.2250738585072014e-308)
#define real_fma_exact(a, b, c) REAL__FMA(a, b, c)
#endif

#define R(x) ((real)(x))

#if REAL_HAS_FMA
#define real_fma(a, b, c) real_fma_exact(a, b, c)
#else
#define real_fma(a, b, c) ((a) * (b) + (c))
#endif

#define REAL__SIGN ((real_bits)1 << (AD_REAL_BITS - 1))
#define REAL__ONE (REAL__BIAS << REAL__MANTISSA)           /* bits of 1 */
#define REAL__ULP ((real)((real_bits)1 << REAL__MANTISSA)) /* 1 / ulp(1) */
#define REAL_EPSILON (1 / REAL__ULP)                       /* 1 + epsilon is the next number after 1 */

REAL_FN real_bits real_to_bits(real x)
{
#ifdef __CUDACC__
    return AD_REAL_BITS == 32 ? (real_bits)__float_as_uint((float)x) : (real_bits)__double_as_longlong((double)x);
#else
    real_bits i;
    __builtin_memcpy(&i, &x, sizeof i);
    return i;
#endif
}

REAL_FN real real_from_bits(real_bits i)
{
#ifdef __CUDACC__
    return AD_REAL_BITS == 32 ? (real)__uint_as_float((unsigned int)i) : (real)__longlong_as_double((long long)i);
#else
    real x;
    __builtin_memcpy(&x, &i, sizeof x);
    return x;
#endif
}

#define REAL_INF real_from_bits(((real_bits)1 << (AD_REAL_BITS - 1)) - ((real_bits)1 << REAL__MANTISSA))
#define REAL_NAN real_from_bits(((real_bits)1 << (AD_REAL_BITS - 1)) - ((real_bits)1 << (REAL__MANTISSA - 1)))

#include "autodiff/real_tables.h"

/* REAL__POLY_FN(real__exp_poly, REAL_EXP_POLY, REAL__NEXT) defines a function that evaluates that table by Horner's
 * rule; with REAL__NEXT_EXACT in place of REAL__NEXT it gives the same bits everywhere. */
#define REAL__FIRST(c) real__p = R(c)
#define REAL__NEXT(c) ; real__p = real_fma(real__p, real__x, R(c))
#define REAL__NEXT_EXACT(c) ; real__p = real_fma_exact(real__p, real__x, R(c))
#define REAL__POLY_FN(name, TABLE, NEXT)                                                                               \
    REAL_FN real name(real real__x)                                                                                    \
    {                                                                                                                  \
        real real__p;                                                                                                  \
        TABLE(REAL__FIRST, NEXT);                                                                                      \
        return real__p;                                                                                                \
    }

/* ---- comparison and rounding ---- */

REAL_FN real real_abs(real x)
{
    return real_from_bits(real_to_bits(x) & ~REAL__SIGN);
}

/* |x| with the sign of s */
REAL_FN real real_copysign(real x, real s)
{
    return real_from_bits((real_to_bits(x) & ~REAL__SIGN) | (real_to_bits(s) & REAL__SIGN));
}

/* -1, 1, or x itself where x is 0 or NaN */
REAL_FN real real_sign(real x)
{
    return x > 0 ? R(1.0) : x < 0 ? R(-1.0) : x;
}

/* NaN if either is NaN (as PyTorch, unlike fmin); of two zeros, b. */
REAL_FN real real_min(real a, real b)
{
    return ((a < b) | (a != a)) ? a : b;
}
REAL_FN real real_max(real a, real b)
{
    return ((a > b) | (a != a)) ? a : b;
}

/* to the nearest integer, ties to even */
REAL_FN real real_round(real x)
{
    real a = real_abs(x), n = (a + REAL__ULP) - REAL__ULP;
    return a < REAL__ULP ? real_copysign(n, x) : x;
}

REAL_FN real real_floor(real x)
{
    real n = real_round(x);
    return n > x ? n - 1 : n;
}

REAL_FN real real_ceil(real x)
{
    real n = real_round(x);
    return n < x ? real_copysign(n + 1, x) : n;
}

REAL_FN real real_sqrt(real x)
{
#ifdef __CUDACC__
    return AD_REAL_BITS == 32 ? (real)__fsqrt_rn((float)x) : (real)__dsqrt_rn((double)x);
#else
    return AD_REAL_BITS == 32 ? (real)__builtin_sqrtf((float)x) : (real)__builtin_sqrt((double)x);
#endif
}

REAL_FN real real_rsqrt(real x)
{
    return 1 / real_sqrt(x);
}

/* ---- exponentials: x = n ln 2 + r, |r| <= ln 2 / 2 ---- */

#define REAL__LOG2E R(1.44269504088896340736)
#if AD_REAL_BITS == 32
#define REAL__LN2_HI R(0.693359375) /* few bits, so that n * LN2_HI is exact */
#define REAL__LN2_LO R(-2.12194440e-4)
#define REAL__EXP_MIN R(-104.0) /* exp is 0 below, infinite above */
#define REAL__EXP_MAX R(89.0)
#define REAL__EXPM1_MIN R(-18.0)           /* expm1 is -1 below */
#define REAL__THIRD2_LOW R(-1.98682152e-8) /* 2/3 less its rounding */
#else
#define REAL__LN2_HI R(6.93147180369123816490e-01)
#define REAL__LN2_LO R(1.90821492927058770002e-10)
#define REAL__EXP_MIN R(-746.0)
#define REAL__EXP_MAX R(710.0)
#define REAL__EXPM1_MIN R(-38.0)
#define REAL__THIRD2_LOW R(3.7007434154171883e-17)
#endif

REAL__POLY_FN(real__exp_poly, REAL_EXP_POLY, REAL__NEXT)
REAL__POLY_FN(real__log_poly, REAL_LOG_POLY, REAL__NEXT)
REAL__POLY_FN(real__log1p_poly, REAL_LOG1P_POLY, REAL__NEXT)
REAL__POLY_FN(real__tanh_poly, REAL_TANH_POLY, REAL__NEXT)

/* lo <= x <= hi, NaN stays */
REAL_FN real real__clamp(real x, real lo, real hi)
{
    x = x < lo ? lo : x;
    return x > hi ? hi : x;
}

/* n as 2 BIAS + n in *k; adding 1.5 ulp^-1 leaves the integer n in the low bits of the sum.  |x| < 2^(MANTISSA - 2) */
REAL_FN real real__exp_reduce(real x, real_bits *k)
{
    const real magic = R(1.5) * REAL__ULP;
    real t = real_fma(x, REAL__LOG2E, magic), n = t - magic;
    *k = real_to_bits(t) - real_to_bits(magic) + 2 * REAL__BIAS;
    return real_fma(n, -REAL__LN2_LO, real_fma(n, -REAL__LN2_HI, x));
}

/* exp(x + low), |low| <= ulp(x), x within EXP_MIN .. EXP_MAX or NaN; 2^n in two factors: results may be denormal */
REAL_FN real real__exp_sum(real x, real low)
{
    real_bits k;
    real r = real__exp_reduce(x, &k) + low;
    real p = 1 + real_fma(r * r, real__exp_poly(r), r);
    real_bits half = k >> 1;
    return p * real_from_bits(half << REAL__MANTISSA) * real_from_bits((k - half) << REAL__MANTISSA);
}

REAL_FN real real_exp(real x)
{
    return real__exp_sum(real__clamp(x, REAL__EXP_MIN, REAL__EXP_MAX), 0);
}

/* exp(x) for x <= 0 or NaN, bit for bit, in fewer steps: 2^n in one factor that is never denormal, and a constant */
REAL_FN real real__exp_below(real x)
{
    const real_bits up = (REAL__BIAS + 1) / 2;
    real_bits k;
    real r = real__exp_reduce(x < REAL__EXP_MIN ? REAL__EXP_MIN : x, &k);
    real p = 1 + real_fma(r * r, real__exp_poly(r), r);
    real s = real_from_bits((k - REAL__BIAS + up) << REAL__MANTISSA);
    return p * s * real_from_bits((REAL__BIAS - up) << REAL__MANTISSA);
}

/* exp(x) - 1 for x within EXPM1_MIN .. EXP_MAX or NaN: 2 (2^(n-1) (e^r - 1) + (2^(n-1) - 1/2)) */
REAL_FN real real__expm1(real x)
{
    real_bits k;
    real r = real__exp_reduce(x, &k), p = real_fma(r * r, real__exp_poly(r), r);
    real s = real_from_bits((k - REAL__BIAS - 1) << REAL__MANTISSA);
    return 2 * real_fma(s, p, s - R(0.5));
}

REAL_FN real real_expm1(real x)
{
    real y = real__expm1(real__clamp(x, REAL__EXPM1_MIN, REAL__EXP_MAX));
    return real_abs(x) * (2 * REAL__ULP) < 1 ? x : y; /* keeps -0 and denormals */
}

/* a polynomial below 0.55, above it 1 - 2 / (e^2|x| + 1) */
REAL_FN real real_tanh(real x)
{
    real a = real_abs(x), z = a < R(0.55) ? a * a : R(0.0);
    real inner = real_fma(a * z, real__tanh_poly(z), a), outer = 1 - 2 / (real_exp(2 * a) + 1);
    return real_copysign(a < R(0.55) ? inner : outer, x);
}

/* 1 / (1 + e^-x), accurate in both tails; what d = 1 + e lost is put back, with 1 / d taken as about 1 - e / 2 */
REAL_FN real real_sigmoid(real x)
{
    real e = real__exp_below(-real_abs(x)), d = 1 + e, low = e - (d - 1);
    real y = (x < 0 ? e : 1) / d;
    return real_fma(-y, low * real_fma(R(-0.5), e, 1), y);
}

/* e^-|x| / (1 + e^-|x|)^2: symmetric, and accurate as long as it is a number */
REAL_FN real real_sigmoid_slope(real x)
{
    real e = real__exp_below(-real_abs(x)), d = 1 + e;
    return e / (d * d);
}

/* 1 / cosh(x)^2 = 4 e^-2|x| / (1 + e^-2|x|)^2 */
REAL_FN real real_sech_squared(real x)
{
    return 4 * real_sigmoid_slope(2 * x);
}

/* log(1 + e) for 0 <= e <= 1 */
REAL_FN real real__log1p_unit(real e)
{
    return real_fma(e * e, real__log1p_poly(e - R(0.5)), e);
}

/* log(1 + e^x) = max(x, 0) + log(1 + e^-|x|), for all x: no threshold, no kink */
REAL_FN real real_softplus(real x)
{
    return (x > 0 ? x : 0) + real__log1p_unit(real__exp_below(-real_abs(x)));
}

/* a b - log(1 + e^b): with t = a - 1 for b > 0, else a, this is t b - log(1 + e^-|b|), and t is exact where it matters */
REAL_FN real real_bernoulli_log_density(real a, real b)
{
    real t = b > 0 ? a - 1 : a, p = t * b;
    return (t == 0 ? 0 : p) - real__log1p_unit(real__exp_below(-real_abs(b)));
}

/* a - 1 / (1 + e^-b) = t + s for b > 0, else t - s, with s = e^-|b| / (1 + e^-|b|) */
REAL_FN real real_bernoulli_score(real a, real b)
{
    real e = real__exp_below(-real_abs(b)), s = e / (1 + e);
    return b > 0 ? (a - 1) + s : a - s;
}

REAL_FN real real_log_sigmoid(real x)
{
    return -real_softplus(-x);
}

/* ---- logarithms: x = 2^k m, sqrt(1/2) <= m < sqrt 2; f = m - 1, s = f / (2 + f) (Tang; fdlibm e_log.c) ---- */

/* x > 0, normal: m; *k as a real, *shift = k << MANTISSA.  The exponent e becomes a real in the low bits of
 * 2^MANTISSA + e. */
REAL_FN real real__split(real x, real *k, real_bits *shift)
{
    real_bits e = (real_to_bits(x) + (REAL__ONE - REAL__SQRT_HALF)) >> REAL__MANTISSA;
    *shift = (e - REAL__BIAS) << REAL__MANTISSA;
    *k = real_from_bits(e | real_to_bits(REAL__ULP)) - (REAL__ULP + (real)REAL__BIAS);
    return real_from_bits(real_to_bits(x) - *shift);
}

/* k ln 2 + log(1 + f) */
REAL_FN real real__log_sum(real k, real f)
{
    real s = f / (2 + f), z = s * s, h = R(0.5) * f * f;
    real tail = z * real_fma(z, real__log_poly(z), R(0.66666666666666666667));
    return real_fma(k, REAL__LN2_HI, f - (h - real_fma(s, h + tail, k * REAL__LN2_LO)));
}

/* log x for 0 < x < inf, else what C asks for, given y = log x where that holds */
REAL_FN real real__log_patch(real x, real y)
{
    y = x < REAL_INF ? y : x;
    return x > 0 ? y : x == 0 ? -REAL_INF : REAL_NAN;
}

REAL_FN real real_log(real x)
{
    real k, tiny = x < REAL__MIN_NORMAL ? R(1.0) : R(0.0);
    real_bits shift;
    real m = real__split(tiny > 0 ? x * (4 * REAL__ULP) : x, &k, &shift);
    return real__log_patch(x, real__log_sum(k - tiny * (REAL__MANTISSA + 2), m - 1));
}

/* log(1 + x): with u = 1 + x rounded and c = x - (u - 1) what was lost, m gets c 2^-k back */
REAL_FN real real_log1p(real x)
{
    real k, u = 1 + x, c = x - (u - 1);
    real_bits shift;
    real m = real__split(u, &k, &shift);
    real y = real__log_sum(k, real_fma(R(0.25) * c, real_from_bits(real_to_bits(R(4.0)) - shift), m - 1));
    return real_abs(x) * (2 * REAL__ULP) < 1 ? x : real__log_patch(u, y);
}

/* log(p / (1 - p)), p clamped to [eps, 1 - eps] as PyTorch's probs_to_logits does; NaN stays */
REAL_FN real real_logit_clamped(real x)
{
    real p = real__clamp(x, REAL_EPSILON, 1 - REAL_EPSILON);
    return real_log(p / (1 - p));
}

#include "autodiff/real_special.h"

#endif
