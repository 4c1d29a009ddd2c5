/* Powers, trigonometric functions, erf and the gamma family for autodiff/real.h, which alone includes this file and
 * whose assumptions hold here too.
 */
#ifndef AD_REAL_SPECIAL_H
#define AD_REAL_SPECIAL_H

REAL__POLY_FN(real__sin_poly, REAL_SIN_POLY, REAL__NEXT)
REAL__POLY_FN(real__cos_poly, REAL_COS_POLY, REAL__NEXT)
REAL__POLY_FN(real__sinpi_poly, REAL_SINPI_POLY, REAL__NEXT)
REAL__POLY_FN(real__erf_poly, REAL_ERF_POLY, REAL__NEXT)
REAL__POLY_FN(real__erfc_poly, REAL_ERFC_POLY, REAL__NEXT)
REAL__POLY_FN(real__lgamma_poly, REAL_LGAMMA_POLY, REAL__NEXT)
REAL__POLY_FN(real__stirling_poly, REAL_STIRLING_POLY, REAL__NEXT)
REAL__POLY_FN(real__digamma_poly, REAL_DIGAMMA_POLY, REAL__NEXT)
REAL__POLY_FN(real__digamma_tail, REAL_DIGAMMA_TAIL_POLY, REAL__NEXT)
REAL__POLY_FN(real__trigamma_poly, REAL_TRIGAMMA_POLY, REAL__NEXT)
REAL__POLY_FN(real__trigamma_tail, REAL_TRIGAMMA_TAIL_POLY, REAL__NEXT)
REAL__POLY_FN(real__tetragamma_poly, REAL_TETRAGAMMA_POLY, REAL__NEXT)
REAL__POLY_FN(real__tetragamma_tail, REAL_TETRAGAMMA_TAIL_POLY, REAL__NEXT)

/* ---- powers ---- */

/* p = a b rounded; what rounding lost (Dekker 1971 without the instruction) */
REAL_FN real real__product_low(real a, real b, real p)
{
#if REAL_HAS_FMA
    return real_fma(a, b, -p);
#else
    const real split = (real)(((real_bits)1 << (REAL__MANTISSA / 2 + 1)) + 1);
    real ta = split * a, tb = split * b;
    real ah = ta - (ta - a), bh = tb - (tb - b), al = a - ah, bl = b - bh;
    return ((ah * bh - p) + ah * bl + al * bh) + al * bl;
#endif
}

/* log x, 0 < x < inf, as hi + *low, relative error about 2^-(MANTISSA + 11): the terms of 2 s + 2/3 s^3 + s^5 P(s^2)
 * in sums and products of two parts, the last one plain */
REAL_FN real real__log_parts(real x, real *low)
{
    const real third2 = R(0.66666666666666666667);
    real k, tiny = x < REAL__MIN_NORMAL ? R(1.0) : R(0.0);
    real_bits shift;
    real f = real__split(tiny > 0 ? x * (4 * REAL__ULP) : x, &k, &shift) - 1;
    k -= tiny * (REAL__MANTISSA + 2);

    real d = 2 + f, dl = f - (d - 2), inv = 1 / d, s = f * inv, sd = s * d;
    real sl = (((f - sd) - real__product_low(s, d, sd)) - s * dl) * inv;
    real z = s * s, zl = real_fma(2 * s, sl, real__product_low(s, s, z));
    real w = z * third2, wl = real__product_low(z, third2, w) + real_fma(zl, third2, z * REAL__THIRD2_LOW);
    real q = w * s, ql = real__product_low(w, s, q) + real_fma(w, sl, wl * s);
    ql = real_fma(z * z, s * real__log_poly(z), ql);

    real head = 2 * s + q, rest = real_fma(2, sl, (2 * s - head) + q) + ql; /* |2 s| >= |q| */
    real base = k * REAL__LN2_HI, sum = base + head, b = sum - base;
    rest += (base - (sum - b)) + (head - b);
    rest = real_fma(k, REAL__LN2_LO, rest);
    real hi = sum + rest;
    *low = (sum - hi) + rest;
    return hi;
}

/* x^y as C's pow: x < 0 needs an integer y; pow(x, 0) = pow(1, y) = 1 even for NaN */
REAL_FN real real_pow(real x, real y)
{
    real a = real_abs(x), b = real_abs(y), low;
    real hi = real__log_parts(a > 0 ? a : 1, &low);
    real limit = REAL__ULP * REAL__ULP; /* |y| beyond it saturates for every x but 1 */
    real c = real__clamp(y, -limit, limit), e = c * hi, el = real_fma(c, low, real__product_low(c, hi, e));
    real bounded = real__clamp(e, REAL__EXP_MIN, REAL__EXP_MAX);
    real p = real__exp_sum(bounded, e == bounded ? el : 0);

    p = a == 0 ? (y < 0 ? REAL_INF : R(0.0)) : p;
    p = a == REAL_INF ? (y < 0 ? R(0.0) : REAL_INF) : p;
    real up = b + REAL__ULP;
    real_bits odd = (b < REAL__ULP ? real_to_bits(up) : real_to_bits(b)) & 1;
    real whole = b < REAL__ULP ? up - REAL__ULP : b;
    odd = ((whole == b) & (b < 2 * REAL__ULP)) ? odd : 0;
    p = real_from_bits(real_to_bits(p) ^ (odd << (AD_REAL_BITS - 1) & real_to_bits(x)));
    p = ((x < 0) & (a < REAL_INF) & (whole != b)) ? REAL_NAN : p;
    p = ((x != x) | (y != y)) ? REAL_NAN : p;
    return ((y == 0) | (x == 1)) ? R(1.0) : p;
}

/* ---- sine and cosine: x = q pi/2 + r, |r| <= pi/4 ---- */

/* The reduction is in double for both precisions.  pi/2 = P1 + P2 + P3 + P4, the first three of 27 bits, so that
 * q P1, q P2, q P3 are exact up to |q| = 2^26, that is |x| <= 1e8: to there the errors stated in real.h hold.  Beyond,
 * the phase is lost little by little (absolute error about |x| 2^-53 in both precisions), and from 2^45 on x counts as
 * 0; an infinite x gives NaN. */
REAL_FN real real__quadrant(real x, real_bits *q)
{
    const double magic = 6755399441055744.0; /* 1.5 * 2^52 */
    double wide = real_abs(x) < R(35184372088832.0) ? (double)x : (double)(x - x);
    double t = wide * 0.63661977236758134308 + magic, n = t - magic;
    double r = ((wide - n * 0x1.921fb54p+0) - n * 0x1.10b4610p-30) - n * 0x1.a626330p-58;
    r -= n * 0x1.45c06e0e68948p-86;
    unsigned long long i;
#ifdef __CUDACC__
    i = (unsigned long long)__double_as_longlong(t);
#else
    __builtin_memcpy(&i, &t, sizeof i);
#endif
    *q = (real_bits)i;
    return (real)r;
}

/* sin(r + q pi/2): the sine or the cosine of r, by the parity of q, negated where q mod 4 is 2 or 3 */
REAL_FN real real__sin_quadrant(real r, real_bits q)
{
    real z = r * r, h = R(0.5) * z, w = 1 - h;
    real s = real_fma(r * z, real__sin_poly(z), r);
    real c = w + real_fma(z * z, real__cos_poly(z), (1 - w) - h);
    real_bits odd = 0 - (q & 1); /* a mask: SSE2 compares no 64 bit integers */
    real_bits v = (real_to_bits(c) & odd) | (real_to_bits(s) & ~odd);
    return real_from_bits(v ^ ((q & 2) << (AD_REAL_BITS - 2)));
}

REAL_FN real real_sin(real x)
{
    real_bits q;
    real r = real__quadrant(x, &q), y = real__sin_quadrant(r, q);
    return x == 0 ? x : y; /* keeps -0 */
}

REAL_FN real real_cos(real x)
{
    real_bits q;
    real r = real__quadrant(x, &q);
    return real__sin_quadrant(r, q + 1);
}

/* ---- error function ---- */

#if AD_REAL_BITS == 32
#define REAL__ERF_MAX R(3.93)             /* erf rounds to 1 above */
#define REAL__DIGAMMA_ZERO R(0.461632133) /* digamma(1 + t0) = 0; t0 in two parts */
#define REAL__DIGAMMA_ZERO_LOW R(1.24381499e-8)
#else
#define REAL__ERF_MAX R(5.93)
#define REAL__DIGAMMA_ZERO R(0.46163214496836236)
#define REAL__DIGAMMA_ZERO_LOW R(-1.5522348162858677e-17)
#endif

/* A polynomial below 1, above it 1 - exp of one (a fit of log erfc). */
REAL_FN real real_erf(real x)
{
    real a = real_abs(x), t = real__clamp(a, 1, REAL__ERF_MAX), z = a < 1 ? a * a : 1;
    real inner = real_fma(a, real__erf_poly(z), a), outer = 1 - real_exp(-real__erfc_poly(t));
    return real_copysign(a < 1 ? inner : outer, x);
}

/* ---- gamma family: polynomials in t for x = 1 + t < 5/2, one step of the recurrence for x < 1; Stirling's series
 * above ---- Negative arguments are reflected: y = 1 - x and sin(pi x) / pi, exact where it vanishes. */

/* r = x less the nearest integer -> sin(pi r) / pi */
REAL_FN real real__sinpi(real r)
{
    real z = r * r;
    return real_fma(r * z, real__sinpi_poly(z), r);
}

/* x < 0 -> x - rounded x; else 1/2, harmless to divide by */
REAL_FN real real__reflected(real x)
{
    return x < 0 ? x - real_round(x) : R(0.5);
}

/* lgamma x for 0 < x < inf.  Large x: (x - 1/2) (log x - 1) + (log(2 pi) - 1) / 2 + P / x, log x in two parts. */
REAL_FN real real__lgamma(real x)
{
    real low, hi = real__log_parts(x, &low), inv = 1 / x;
    real t = x < 1 ? x : x < R(2.5) ? x - 1 : 1;
    real near = real_fma(t * (t - 1), real__lgamma_poly(t - R(0.75)), x < 1 ? -hi : 0);
    real h = x - R(0.5), p = h * (hi - 1);
    real rest = real_fma(h, low, R(0.41893853320467274178)) + inv * real__stirling_poly(inv * inv);
    rest = rest + real__product_low(h, hi - 1, p);
    rest = real_abs(rest) < REAL_INF ? rest : 0; /* p overflows, or its halves do: then rest is below its last bit */
    return x < R(2.5) ? near : p + rest;
}

/* log |Gamma(x)|; +inf at the poles 0, -1, -2, ... and at both infinities */
REAL_FN real real_lgamma(real x)
{
    real s = real_abs(real__sinpi(real__reflected(x)));
    real y = real__lgamma(x < 0 ? 1 - x : x);
    y = x < 0 ? -real_log(s) - y : y;
    return real_abs(x) < REAL_INF ? (x == 0 ? REAL_INF : y) : real_abs(x);
}

/* digamma x, 0 < x */
REAL_FN real real__digamma(real x)
{
    real t = x < 1 ? x : x < R(2.5) ? x - 1 : 1, inv = 1 / x, z = inv * inv;
    real near =
        real_fma((t - REAL__DIGAMMA_ZERO) - REAL__DIGAMMA_ZERO_LOW, real__digamma_poly(t - R(0.75)), x < 1 ? -inv : 0);
    real far = real_log(x) - real_fma(z, real__digamma_tail(z), R(0.5) * inv);
    return x < R(2.5) ? near : far;
}

/* (log Gamma)'(x); reflection digamma(1 - x) - pi / tan(pi x); -inf at 0, +inf at -0, NaN at -1, -2, ... (as PyTorch)
 */
REAL_FN real real_digamma(real x)
{
    real r = real__reflected(x), s = real__sinpi(r), c = real__sinpi(R(0.5) - real_abs(r));
    real y = real__digamma(x < 0 ? 1 - x : x);
    y = x < 0 ? y - R(3.14159265358979323846) * c / s : y;
    return s == 0 ? REAL_NAN : y;
}

/* trigamma x, 0 < x */
REAL_FN real real__trigamma(real x)
{
    real t = x < 1 ? x : x < R(2.5) ? x - 1 : 1, inv = 1 / x, z = inv * inv;
    real near = real__trigamma_poly(t - R(0.75)) + (x < 1 ? z : 0);
    real far = inv + real_fma(z * inv, real__trigamma_tail(z), R(0.5) * z);
    return x < R(2.5) ? near : far;
}

/* (log Gamma)''(x); reflection pi^2 / sin^2(pi x) - trigamma(1 - x); +inf at the poles, NaN at -inf */
REAL_FN real real_trigamma(real x)
{
    real inv = 1 / real__sinpi(real__reflected(x));
    real y = real__trigamma(x < 0 ? 1 - x : x);
    return x < 0 ? inv * inv - y : y;
}

/* tetragamma x, 0 < x */
REAL_FN real real__tetragamma(real x)
{
    real t = x < 1 ? x : x < R(2.5) ? x - 1 : 1, inv = 1 / x, z = inv * inv;
    real near = real__tetragamma_poly(t - R(0.75)) - (x < 1 ? 2 * z * inv : 0);
    real far = -real_fma(z * z, real__tetragamma_tail(z), real_fma(z, inv, z));
    return x < R(2.5) ? near : far;
}

/* (log Gamma)'''(x), the gradient of trigamma; reflection tetragamma(1 - x) - 2 pi^3 cos(pi x) / sin^3(pi x); infinite
 * at 0, NaN at -1, -2, ... */
REAL_FN real real_tetragamma(real x)
{
    real r = real__reflected(x), s = real__sinpi(r), c = real__sinpi(R(0.5) - real_abs(r)), inv = 1 / s;
    real y = real__tetragamma(x < 0 ? 1 - x : x);
    y = x < 0 ? y - R(6.28318530717958647693) * c * inv * inv * inv : y;
    return s == 0 ? REAL_NAN : y;
}

#endif
