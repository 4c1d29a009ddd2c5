/* Matrix products: C (M, N) = op(A) (M, K) op(B) (K, N) [+ C], all row-major.
 * Called by the CPU backend, whose threads run the chunks; nothing here starts a thread, allocates or keeps state. */
#ifndef AUTODIFF_CPU_GEMM_H
#define AUTODIFF_CPU_GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct blas;
typedef struct gemm gemm;

/* One precision's kernels for one instruction set. */
typedef struct gemm_kernel {
    const char *isa; /* "base", "avx2", "avx512" */
    int bits;        /* 32: float, 64: double */
    void (*plan)(gemm *g);
    void (*pack)(const gemm *g, void *packed, int64_t chunk);
    void (*multiply)(const gemm *g, const void *packed, int64_t chunk);
} gemm_kernel;

/* A product and its plan. The caller fills the first group, then calls gemm_plan; a, b and c may be set again before
 * every run, the rest may not. C overlaps neither operand.
 *
 * A run is two phases. First gemm_pack for every chunk in [0, pack_chunks), in any order, on any threads; then, when
 * all are done, gemm_multiply for every chunk in [0, chunks). pack_chunks may be 0, and then `packed` may be NULL. One
 * packed buffer serves any number of products of the same plan and the same b.
 *
 * An element of C is summed over k in an order fixed by shape, strides, transposes, precision and kernel: never by the
 * chunks, the threads that run them or the addresses. A chunk takes at most 160 KiB of stack. */
struct gemm {
    int transpose_a;  /* A is stored (K, M) instead of (M, K) */
    int transpose_b;  /* B is stored (N, K) instead of (K, N) */
    int64_t m, n, k;  /* any may be 0; K = 0 gives C = 0, or C untouched if accumulate */
    const void *a;    /* stored rows lda elements apart */
    int64_t lda;
    const void *b;    /* stored rows ldb elements apart */
    int64_t ldb;
    void *c;          /* rows ldc elements apart */
    int64_t ldc;
    int accumulate;   /* C += instead of C = */
    int whole_rows;   /* every chunk spans all of N; otherwise a product of few rows is split by columns too */

    size_t packed_bytes;              /* the buffer that the caller provides, aligned to 64 bytes */
    int64_t pack_chunks, chunks;
    int64_t block_rows, block_columns; /* of a chunk; the last ones may be smaller */
    int64_t k_block;                  /* terms summed before they are added to C */
    int64_t pack_units;               /* packing units per pack chunk */
    int path, swapped;
    const gemm_kernel *kernel;
    const struct blas *blas;          /* the library that multiplies, or NULL for our own kernels */
};

/* The part of C that a chunk computes. */
typedef struct gemm_block {
    int64_t row, rows, column, columns;
} gemm_block;

/* 0: the architecture's baseline, 1: AVX2 with fused multiply-add, 2: AVX-512 (F, DQ, BW, VL). */
int gemm_cpu_level(void);

/* All kernels that this build holds and this CPU runs, best last; *count of them. */
const gemm_kernel *const *gemm_kernels(int *count);

/* The best of them for float (32) or double (64). */
const gemm_kernel *gemm_kernel_best(int bits);

/* Fills the second group of *g. With a library (not NULL) the shapes that it does better go to it, by a fixed rule. */
void gemm_plan(gemm *g, const gemm_kernel *kernel, const struct blas *blas);

/* Whether a product, planned for our own kernels, is one that a library does better. */
bool gemm_suits_library(const gemm *g);

gemm_block gemm_block_of(const gemm *g, int64_t chunk);

void gemm_pack(const gemm *g, void *packed, int64_t chunk);
void gemm_multiply(const gemm *g, const void *packed, int64_t chunk);

/* Both phases on the calling thread. */
void gemm_run(const gemm *g, void *packed);

/* Like gemm_plan, but the library takes every shape that it can express: for tests and benchmarks. */
void gemm_plan_blas(gemm *g, const gemm_kernel *kernel, const struct blas *blas);

#endif
