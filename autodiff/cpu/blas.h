/* OpenBLAS, found at run time: no build needs it, and its absence is no error. The CPU backend opens it once per
 * context and hands it to gemm_plan. */
#ifndef AUTODIFF_CPU_BLAS_H
#define AUTODIFF_CPU_BLAS_H

#include "autodiff/cpu/gemm.h"

enum { BLAS_ROW_MAJOR = 101, BLAS_PLAIN = 111, BLAS_TRANSPOSED = 112 };

typedef struct blas {
    void *library;
    void (*sgemm)(int order, int transpose_a, int transpose_b, int m, int n, int k, float alpha, const float *a,
                  int lda, const float *b, int ldb, float beta, float *c, int ldc);
    void (*dgemm)(int order, int transpose_a, int transpose_b, int m, int n, int k, double alpha, const double *a,
                  int lda, const double *b, int ldb, double beta, double *c, int ldc);
    char description[80]; /* "OpenBLAS 0.3.21, SkylakeX, one thread per call" */
} blas;

/* Loads libopenblas.so.0 with kernels that suit this CPU and one thread per call. 0: *b is ready, blas_close ends it.
 * -1: *why is a constant text, *b is zeroed; refused are a library that runs kernels for an older CPU, that starts
 * threads of its own, or that runs on OpenMP, which ignores the wish for one thread.
 *
 * Some releases take a new CPU for an old one and run at a fifth of its speed, so OPENBLAS_CORETYPE and
 * OPENBLAS_NUM_THREADS are set for the time of the call, unless the user has set them. Like every use of setenv, this
 * must not run while another thread reads the environment. A library that the program has loaded before is taken as it
 * is: accepted or refused, never changed. */
int blas_open(blas *b, const char **why);
void blas_close(blas *b);

/* One single-threaded call for a block of rows of g's product, at most INT_MAX in each dimension, none 0. */
void blas_multiply(const blas *b, const gemm *g, gemm_block block);

#endif
