/* The vectors of the matrix kernels, on GCC's vector extensions: one source for SSE2, AVX2, AVX-512 and NEON, float and
 * double. Included by gemm_kernel.c alone; the flags of the translation unit choose the width. Only the fused
 * multiply-add (-ffp-contract=off forbids the compiler to form one) and the masked access need intrinsics. */
#ifndef AUTODIFF_CPU_GEMM_VEC_H
#define AUTODIFF_CPU_GEMM_VEC_H

#include "autodiff/cpu/isa.h"
#include "autodiff/real.h"

#if defined __AVX2__ || defined __AVX512F__
#include <immintrin.h>
#elif defined __aarch64__
#include <arm_neon.h>
#endif

/* Micro-tile: TILE_ROWS (4, 6 or 8) rows by TILE_VECS (2 or 3) vectors of C live in registers, beside one row of B and
 * a broadcast. Between two visits of C, K_BLOCK rows of a panel of B stay in the first-level cache. */
#if defined __AVX512F__
#define VEC_BITS 512
#define TILE_VECS 3
enum { TILE_ROWS = 8, K_BLOCK = 208 };
#elif defined __AVX2__
#define VEC_BITS 256
#define TILE_VECS 2
enum { TILE_ROWS = 6, K_BLOCK = 320 };
#elif defined __aarch64__
#define VEC_BITS 128
#define TILE_VECS 3
enum { TILE_ROWS = 8, K_BLOCK = 320 };
#else
#define VEC_BITS 128
#define TILE_VECS 2
enum { TILE_ROWS = 4, K_BLOCK = 320 };
#endif

#define INLINE static inline __attribute__((always_inline))

typedef real vec __attribute__((vector_size(VEC_BITS / 8)));
typedef real loose_vec __attribute__((vector_size(VEC_BITS / 8), may_alias, aligned(sizeof(real))));

enum { W = VEC_BITS / AD_REAL_BITS }; /* lanes */

INLINE vec load(const real *p) { return *(const loose_vec *)p; }
INLINE void store(real *p, vec v) { *(loose_vec *)p = v; }
INLINE vec broadcast(real x) { return x - (vec){0}; } /* not 0 + x, which loses the sign of -0 */

/* a b + c; rounded once where the hardware can. */
INLINE vec multiply_add(vec a, vec b, vec c)
{
#if defined __AVX512F__ && AD_REAL_BITS == 32
    return (vec)_mm512_fmadd_ps(a, b, c);
#elif defined __AVX512F__
    return (vec)_mm512_fmadd_pd(a, b, c);
#elif defined __AVX2__ && AD_REAL_BITS == 32
    return (vec)_mm256_fmadd_ps(a, b, c);
#elif defined __AVX2__
    return (vec)_mm256_fmadd_pd(a, b, c);
#elif defined __aarch64__ && AD_REAL_BITS == 32
    return (vec)vfmaq_f32(c, a, b);
#elif defined __aarch64__
    return (vec)vfmaq_f64(c, a, b);
#else
    return a * b + c;
#endif
}

/* The first `count` lanes, 0 <= count <= W; the others read as 0, are not written, and their memory is not touched. */
#if defined __AVX512F__ && AD_REAL_BITS == 32
#define LANES(count) ((__mmask16)((1u << (count)) - 1))
INLINE vec load_part(const real *p, int count) { return (vec)_mm512_maskz_loadu_ps(LANES(count), p); }
INLINE void store_part(real *p, vec v, int count) { _mm512_mask_storeu_ps(p, LANES(count), v); }
#elif defined __AVX512F__
#define LANES(count) ((__mmask8)((1u << (count)) - 1))
INLINE vec load_part(const real *p, int count) { return (vec)_mm512_maskz_loadu_pd(LANES(count), p); }
INLINE void store_part(real *p, vec v, int count) { _mm512_mask_storeu_pd(p, LANES(count), v); }
#elif defined __AVX2__ && AD_REAL_BITS == 32
#define LANES(count) _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
INLINE vec load_part(const real *p, int count) { return (vec)_mm256_maskload_ps(p, LANES(count)); }
INLINE void store_part(real *p, vec v, int count) { _mm256_maskstore_ps(p, LANES(count), v); }
#elif defined __AVX2__
#define LANES(count) _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3))
INLINE vec load_part(const real *p, int count) { return (vec)_mm256_maskload_pd(p, LANES(count)); }
INLINE void store_part(real *p, vec v, int count) { _mm256_maskstore_pd(p, LANES(count), v); }
#else
INLINE vec load_part(const real *p, int count)
{
    if (count == W)
        return load(p);
    vec v = {0};
    for (int i = 0; i < W - 1; i++)
        if (i < count)
            v[i] = p[i];
    return v;
}
INLINE void store_part(real *p, vec v, int count)
{
    if (count == W)
        store(p, v);
    else
        for (int i = 0; i < W - 1; i++)
            if (i < count)
                p[i] = v[i];
}
#endif

/* Lanes s, s + 1, ... of a and of b in turn: with s = 0 their lower halves, with s = W / 2 the upper ones. */
#if VEC_BITS / AD_REAL_BITS == 16
#define INTERLEAVE(a, b, s)                                                                                      \
    __builtin_shufflevector(a, b, s, s + 16, s + 1, s + 17, s + 2, s + 18, s + 3, s + 19, s + 4, s + 20, s + 5, \
                            s + 21, s + 6, s + 22, s + 7, s + 23)
#elif VEC_BITS / AD_REAL_BITS == 8
#define INTERLEAVE(a, b, s) __builtin_shufflevector(a, b, s, s + 8, s + 1, s + 9, s + 2, s + 10, s + 3, s + 11)
#elif VEC_BITS / AD_REAL_BITS == 4
#define INTERLEAVE(a, b, s) __builtin_shufflevector(a, b, s, s + 4, s + 1, s + 5)
#else
#define INTERLEAVE(a, b, s) __builtin_shufflevector(a, b, s, s + 2)
#endif

/* r (W, W), a vector a row, becomes its transpose: log2 W perfect shuffles. */
INLINE void transpose(vec *r)
{
    vec t[W];
    for (int stage = 1; stage < W; stage *= 2) {
        for (int i = 0; i < W / 2; i++) {
            t[2 * i] = INTERLEAVE(r[i], r[i + W / 2], 0);
            t[2 * i + 1] = INTERLEAVE(r[i], r[i + W / 2], W / 2);
        }
        for (int i = 0; i < W; i++)
            r[i] = t[i];
    }
}

/* r (W, W), a vector a row -> the sum of each row; each sum is the same tree. Destroys r. */
INLINE vec sum_rows(vec *r)
{
    for (int half = W / 2; half; half /= 2)
        for (int i = 0; i < half; i++)
            r[i] = INTERLEAVE(r[i], r[i + half], 0) + INTERLEAVE(r[i], r[i + half], W / 2);
    return r[0];
}

#endif
