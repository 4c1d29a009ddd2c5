/* Uniforms and normals from Philox words, in the precision AD_REAL_BITS; for the kernels of autodiff/cpu/random.c and,
 * as C++, for CUDA sources.  Every operation rounds the same everywhere: +, -, /, sqrt and explicit fused
 * multiply-adds; no product is left for a compiler to contract.  So scalar code, every instruction set and the GPU give
 * the same bits.  The constants and widths below are frozen: changing one changes every seeded result.
 */
#ifndef AD_DRAW_H
#define AD_DRAW_H

#include "autodiff/philox.h"
#include "autodiff/real.h"

/* Elements per Philox block.  Element i takes word i & 3 in float; in double the words 2 (i & 1), the low one, and
 * 2 (i & 1) + 1. */
#define DRAW_LANES (128 / AD_REAL_BITS)

/* The bits of each element of a block. */
REAL_FN void draw_bits(unsigned long long key, unsigned int site, unsigned int draw, unsigned int run,
                       unsigned long long block, real_bits *bits)
{
    unsigned int w[4];
    philox_block(key, site, draw, run, block, w);
#if AD_REAL_BITS == 32
    for (int i = 0; i < 4; i++)
        bits[i] = w[i];
#else
    for (int i = 0; i < 2; i++)
        bits[i] = w[2 * i] | (real_bits)w[2 * i + 1] << 32;
#endif
}

/* The top MANTISSA bits b of the word, (b + 1/2) 2^-MANTISSA: never 0 nor 1; both steps are exact. */
REAL_FN real draw_uniform_of(real_bits word)
{
    return real_from_bits(word >> (AD_REAL_BITS - REAL__MANTISSA) | REAL__ONE) - (1 - REAL_EPSILON / 2);
}

#if AD_REAL_BITS == 32
#define DRAW__WORD_ULP R(2.3283064365386963e-10) /* 2^-32 */
#define DRAW__LN2 R(0.69314718)
/* log((1 + s) / (1 - s)) = 2 s + s^3 P(s^2); sin(pi v / 2) = v P(v^2); cos(pi v / 2) = 1 + v^2 P(v^2), |v| <= 1/2 */
#define DRAW__LOG_POLY(FIRST, NEXT) FIRST(2.35854039e-1) NEXT(2.85371081e-1) NEXT(4.00003391e-1) NEXT(6.66666656e-1)
#define DRAW__SIN_POLY(FIRST, NEXT) FIRST(-4.60216310e-3) NEXT(7.96802229e-2) NEXT(-6.45963478e-1) NEXT(1.57079632)
#define DRAW__COS_POLY(FIRST, NEXT) FIRST(9.03975442e-4) NEXT(-2.08602648e-2) NEXT(2.53669240e-1) NEXT(-1.23370054)
#else
#define DRAW__WORD_ULP R(5.4210108624275222e-20) /* 2^-64 */
#define DRAW__LN2 R(0.69314718055994531)
/* clang-format off */
#define DRAW__LOG_POLY(FIRST, NEXT) \
    FIRST(1.4797435002932493e-1) NEXT(1.5313888053767505e-1) NEXT(1.8183571383712115e-1) \
    NEXT(2.2222198419202701e-1) NEXT(2.8571428744138776e-1) NEXT(3.9999999999405075e-1) \
    NEXT(6.6666666666667363e-1)
#define DRAW__SIN_POLY(FIRST, NEXT) \
    FIRST(5.6339361322738390e-8) NEXT(-3.5986433706134926e-6) NEXT(1.6044115074714991e-4) \
    NEXT(-4.6817541323416189e-3) NEXT(7.9692626246043041e-2) NEXT(-6.4596409750624432e-1) \
    NEXT(1.5707963267948966)
#define DRAW__COS_POLY(FIRST, NEXT) \
    FIRST(-6.3218014159613899e-9) NEXT(4.7106148305980864e-7) NEXT(-2.5202036961798195e-5) \
    NEXT(9.1926027421968330e-4) NEXT(-2.0863480763314943e-2) NEXT(2.5366950790104691e-1) \
    NEXT(-1.2337005501361698)
/* clang-format on */
#endif

REAL__POLY_FN(draw__log_poly, DRAW__LOG_POLY, REAL__NEXT_EXACT)
REAL__POLY_FN(draw__sin_poly, DRAW__SIN_POLY, REAL__NEXT_EXACT)
REAL__POLY_FN(draw__cos_poly, DRAW__COS_POLY, REAL__NEXT_EXACT)

/* log u, 2^-65 <= u <= 1, near enough for a normal; 0 exactly where u is 1 */
REAL_FN real draw__log(real u)
{
    real k;
    real_bits shift;
    real m = real__split(u, &k, &shift);
#ifdef __CUDACC__
    real s = AD_REAL_BITS == 32 ? (real)__fdiv_rn((float)(m - 1), (float)(m + 1)) : (real)__ddiv_rn(m - 1, m + 1);
#else
    real s = (m - 1) / (m + 1);
#endif
    real z = s * s;
    return real_fma_exact(k, DRAW__LN2, real_fma_exact(s * z, draw__log_poly(z), s + s));
}

/* Two words -> two independent normals (Box and Muller 1958): radius sqrt(-2 log u), u = (a + 1/2) 2^-BITS rounded, in
 * (0, 1]; angle pi/2 (q + v), where the top two bits of b give q and the next MANTISSA give v in (-1/2, 1/2).
 * |z| < 6.8 in float, 9.5 in double. */
REAL_FN void draw_normals_of(real_bits a, real_bits b, real *z0, real *z1)
{
    const int half = AD_REAL_BITS / 2;
    const real_bits ulp = real_to_bits(REAL__ULP); /* a half word in its low bits is that integer more */
    real high = real_from_bits(a >> half | ulp) - REAL__ULP;
    real low = real_from_bits((a & (((real_bits)1 << half) - 1)) | ulp) - REAL__ULP;
    real whole = real_fma_exact(high, (real)((real_bits)1 << half), low);
    real radius = real_sqrt(-2 * draw__log(real_fma_exact(whole, DRAW__WORD_ULP, DRAW__WORD_ULP / 2)));

    real v = (real_from_bits(b << 2 >> (AD_REAL_BITS - REAL__MANTISSA) | REAL__ONE) - R(1.5)) + REAL_EPSILON / 2;
    real z = v * v, sine = v * draw__sin_poly(z), cosine = real_fma_exact(z, draw__cos_poly(z), 1);

    real_bits q = b >> (AD_REAL_BITS - 2), odd = 0 - (q & 1), swap = (real_to_bits(sine) ^ real_to_bits(cosine)) & odd;
    *z0 = radius * real_from_bits((real_to_bits(cosine) ^ swap) ^ (((q + 1) & 2) << (AD_REAL_BITS - 2)));
    *z1 = radius * real_from_bits((real_to_bits(sine) ^ swap) ^ ((q & 2) << (AD_REAL_BITS - 2)));
}

/* Element i of a stream: the definition that the fills and every GPU kernel agree with. */
REAL_FN real draw_uniform(unsigned long long key, unsigned int site, unsigned int draw, unsigned int run,
                          unsigned long long i)
{
    real_bits b[DRAW_LANES];
    draw_bits(key, site, draw, run, i / DRAW_LANES, b);
    return draw_uniform_of(b[i % DRAW_LANES]);
}

REAL_FN real draw_normal(unsigned long long key, unsigned int site, unsigned int draw, unsigned int run,
                         unsigned long long i)
{
    real_bits b[DRAW_LANES];
    real z[2];
    draw_bits(key, site, draw, run, i / DRAW_LANES, b);
    int first = (int)(i % DRAW_LANES) & ~1;
    draw_normals_of(b[first], b[first + 1], &z[0], &z[1]);
    return z[i % 2];
}

#endif
