/* Which kernel or library multiplies, and the library's chunks. Called by the CPU backend; see gemm.h. */
#include "autodiff/cpu/gemm.h"
#include "autodiff/cpu/blas.h"
#include "autodiff/cpu/isa.h"

#include <limits.h>

/* Two kernels a level: see gemm_cpu_level. */
#define DECLARE(isa) extern const gemm_kernel gemm_kernel_f32_##isa, gemm_kernel_f64_##isa;
#define LIST(isa) &gemm_kernel_f32_##isa, &gemm_kernel_f64_##isa,
CPU_FOR_EACH_ISA(DECLARE)
static const gemm_kernel *const kernels[] = {CPU_FOR_EACH_ISA(LIST)};

int gemm_cpu_level(void)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512vl"))
        return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return 1;
#endif
    return 0;
}

const gemm_kernel *const *gemm_kernels(int *count)
{
    *count = 2 * (1 + gemm_cpu_level());
    return kernels;
}

const gemm_kernel *gemm_kernel_best(int bits)
{
    int count;
    const gemm_kernel *const *all = gemm_kernels(&count);
    return all[count - (bits == 32 ? 2 : 1)];
}

/* The library speaks in ints, prints a complaint about a row length below the width, and does nothing for K = 0. */
static int expressible(const gemm *g)
{
    int64_t a_width = g->transpose_a ? g->m : g->k, b_width = g->transpose_b ? g->k : g->n;
    return g->m > 0 && g->n > 0 && g->k > 0 && g->m <= INT_MAX && g->n <= INT_MAX && g->k <= INT_MAX
           && g->lda >= a_width && g->lda <= INT_MAX && g->ldb >= b_width && g->ldb <= INT_MAX && g->ldc >= g->n
           && g->ldc <= INT_MAX;
}

/* The library packs B again in every call, so its blocks are tall: 128 rows, or a sixteenth of a taller product. */
static void plan_blas(gemm *g)
{
    int64_t rows = (g->m + 255) / 256 * 16;
    g->block_rows = rows < 128 ? 128 : rows;
    g->block_columns = g->n;
    g->chunks = (g->m + g->block_rows - 1) / g->block_rows;
    g->packed_bytes = 0;
    g->pack_chunks = 0;
}

void gemm_plan_blas(gemm *g, const gemm_kernel *kernel, const struct blas *blas)
{
    g->kernel = kernel;
    g->blas = blas && expressible(g) ? blas : NULL;
    if (g->blas)
        plan_blas(g);
    else
        kernel->plan(g);
}

/* OpenBLAS 0.3.21 against ours, best core type against AVX-512 and AVX2: from 0.4 to 1.1 times the speed while B packed
 * fits the second-level cache, 1.1 to 1.9 beyond, where it blocks for one more level. Our baseline kernels do not pass
 * it anywhere but in the thin products, which pack nothing. */
static size_t packed_limit(const gemm_kernel *kernel)
{
    return kernel == kernels[0] || kernel == kernels[1] ? 0 : (size_t)4 << 20;
}

void gemm_plan(gemm *g, const gemm_kernel *kernel, const struct blas *blas)
{
    gemm_plan_blas(g, kernel, NULL);
    if (gemm_suits_library(g))
        gemm_plan_blas(g, kernel, blas);
}

bool gemm_suits_library(const gemm *g)
{
    return g->packed_bytes > packed_limit(g->kernel);
}

gemm_block gemm_block_of(const gemm *g, int64_t chunk)
{
    int64_t across = (g->n + g->block_columns - 1) / g->block_columns;
    int64_t row = chunk / across * g->block_rows, column = chunk % across * g->block_columns;
    int64_t rows = g->m - row, columns = g->n - column;
    return (gemm_block){row, rows < g->block_rows ? rows : g->block_rows,
                        column, columns < g->block_columns ? columns : g->block_columns};
}

void gemm_pack(const gemm *g, void *packed, int64_t chunk)
{
    g->kernel->pack(g, packed, chunk);
}

void gemm_multiply(const gemm *g, const void *packed, int64_t chunk)
{
    if (g->blas)
        blas_multiply(g->blas, g, gemm_block_of(g, chunk));
    else
        g->kernel->multiply(g, packed, chunk);
}

void gemm_run(const gemm *g, void *packed)
{
    for (int64_t i = 0; i < g->pack_chunks; i++)
        gemm_pack(g, packed, i);
    for (int64_t i = 0; i < g->chunks; i++)
        gemm_multiply(g, packed, i);
}
