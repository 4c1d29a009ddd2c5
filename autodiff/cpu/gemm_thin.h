/* Products that packing does not pay for: a vector or a few rows times a matrix, and the tiny. Bound by memory or by
 * latency, they read B once, where it lies. Included by gemm_kernel.c alone, after gemm_vec.h. */
#ifndef AUTODIFF_CPU_GEMM_THIN_H
#define AUTODIFF_CPU_GEMM_THIN_H

#include "autodiff/cpu/gemm_vec.h"

#include <stdint.h>

INLINE int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
INLINE int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

/* What a chunk computes: c (rows, columns) = a (rows, k) b (k, columns) [+ c], b as it is stored. */
typedef struct part {
    int64_t rows, columns, k;
    const real *a;
    int64_t a_row, a_column; /* distance of a's rows, of its columns */
    const real *b;
    int64_t ldb;
    real *c;
    int64_t ldc;
    int add;
} part;

/* x (k), b (k, n) -> y (vecs W). With few vectors the sum over k is dealt out to several chains, to hide latency. */
INLINE void row_block(int vecs, int chains, int64_t k, const real *x, int64_t step, const real *b, int64_t ldb, real *y,
                      int last, int add)
{
    vec sum[8] = {{0}};
    int64_t i = 0;
    for (; i + chains <= k; i += chains)
        for (int q = 0; q < chains; q++, b += ldb)
            for (int v = 0; v < vecs; v++) {
                vec z = v < vecs - 1 ? load(b + v * W) : load_part(b + v * W, last);
                sum[q * vecs + v] = multiply_add(broadcast(x[(i + q) * step]), z, sum[q * vecs + v]);
            }
    for (; i < k; i++, b += ldb)
        for (int v = 0; v < vecs; v++) {
            vec z = v < vecs - 1 ? load(b + v * W) : load_part(b + v * W, last);
            sum[v] = multiply_add(broadcast(x[i * step]), z, sum[v]);
        }
    for (int half = 4; half >= vecs; half /= 2)
        for (int v = 0; v < half; v++)
            sum[v] += sum[v + half];
    for (int v = 0; v < vecs; v++)
        if (v < vecs - 1)
            store(y + v * W, add ? load(y + v * W) + sum[v] : sum[v]);
        else
            store_part(y + v * W, add ? load_part(y + v * W, last) + sum[v] : sum[v], last);
}

/* x (k), b (k, n) without gaps -> y (n), n constant and at most 4: LANES sums of each, which the compiler turns into
 * vectors. */
INLINE void short_rows(int n, int64_t k, const real *restrict x, const real *restrict b, real *restrict y, int add)
{
    enum { LANES = 16 };
    real sum[4][LANES] = {{0}};
    int64_t i = 0;
    for (; i + LANES <= k; i += LANES)
        for (int l = 0; l < LANES; l++)
            for (int j = 0; j < n; j++)
                sum[j][l] = real_fma(x[i + l], b[(i + l) * n + j], sum[j][l]);
    for (int l = 0; i + l < k; l++)
        for (int j = 0; j < n; j++)
            sum[j][l] = real_fma(x[i + l], b[(i + l) * n + j], sum[j][l]);
    for (int j = 0; j < n; j++) {
        for (int half = LANES / 2; half; half /= 2)
            for (int l = 0; l < half; l++)
                sum[j][l] += sum[j][l + half];
        y[j] = add ? y[j] + sum[j][0] : sum[j][0];
    }
}

/* a (rows, k), b (k, columns) -> c (rows, columns), a row at a time */
static void multiply_rows(part p)
{
    if (p.rows == 1 && p.a_column == 1 && p.ldb == p.columns)
        switch (p.columns) {
        case 1:
            short_rows(1, p.k, p.a, p.b, p.c, p.add);
            return;
        case 2:
            short_rows(2, p.k, p.a, p.b, p.c, p.add);
            return;
        case 3:
            short_rows(3, p.k, p.a, p.b, p.c, p.add);
            return;
        case 4:
            short_rows(4, p.k, p.a, p.b, p.c, p.add);
            return;
        }
    for (; p.rows > 0; p.rows--, p.a += p.a_row, p.c += p.ldc) {
        const real *b = p.b;
        real *y = p.c;
        int64_t n = p.columns;
#define BLOCKS(size, chains)                                                                                  \
    for (; n > ((size) - 1) * W; n -= (size) * W, b += (size) * W, y += (size) * W)                           \
        row_block(size, chains, p.k, p.a, p.a_column, b, p.ldb, y, (int)min(W, n - ((size) - 1) * W), p.add)
        BLOCKS(8, 1);
        BLOCKS(4, 2);
        BLOCKS(2, 4);
        BLOCKS(1, 8);
#undef BLOCKS
    }
}

/* a (rows, k), b (columns <= W / rows, k) -> c (rows, columns) */
INLINE void dots_block(int rows, int64_t columns, int64_t k, const real *a, int64_t lda, const real *b, int64_t ldb,
                       real *c, int64_t ldc, int add)
{
    int width = W / rows;
    vec sum[W];
    const real *row[W];
    for (int i = 0; i < W; i++)
        sum[i] = (vec){0};
    for (int j = 0; j < width; j++)
        row[j] = b + min(j, columns - 1) * ldb; /* the spare ones repeat the last */
    for (int64_t l = 0; l < k; l += W) {
        int lanes = (int)min(W, k - l), whole = lanes == W;
        for (int j = 0; j < width; j++) {
            vec y = whole ? load(row[j] + l) : load_part(row[j] + l, lanes);
            for (int i = 0; i < rows; i++) {
                const real *x = a + i * lda + l;
                sum[i * width + j] = multiply_add(whole ? load(x) : load_part(x, lanes), y, sum[i * width + j]);
            }
        }
    }
    real out[W];
    store(out, sum_rows(sum));
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++)
            c[i * ldc + j] = out[i * width + j] + (add ? c[i * ldc + j] : 0);
}

/* x (k), b (n, k) without gaps -> y (n), k constant: a loop over n that the compiler turns into vectors. */
INLINE void short_dots(int k, int64_t n, const real *restrict x, const real *restrict b, real *restrict y, int add)
{
    for (int64_t j = 0; j < n; j++) {
        real sum = x[0] * b[j * k];
        for (int l = 1; l < k; l++)
            sum = real_fma(x[l], b[j * k + l], sum);
        y[j] = add ? y[j] + sum : sum;
    }
}

/* a (rows, k), b (columns, k) -> c (rows, columns); a's columns are adjacent */
static void multiply_dots(part p)
{
    if (p.rows == 1 && p.ldb == p.k)
        switch (p.k) {
        case 1:
            short_dots(1, p.columns, p.a, p.b, p.c, p.add);
            return;
        case 2:
            short_dots(2, p.columns, p.a, p.b, p.c, p.add);
            return;
        case 3:
            short_dots(3, p.columns, p.a, p.b, p.c, p.add);
            return;
        case 4:
            short_dots(4, p.columns, p.a, p.b, p.c, p.add);
            return;
        }
    while (p.rows > 0) {
        int step = p.rows >= 4 && W >= 8 ? 4 : p.rows >= 2 ? 2 : 1, width = W / step;
        for (int64_t j = 0; j < p.columns; j += width) {
            const real *b = p.b + j * p.ldb;
            int64_t columns = min(width, p.columns - j);
            if (step == 4)
                dots_block(4, columns, p.k, p.a, p.a_row, b, p.ldb, p.c + j, p.ldc, p.add);
            else if (step == 2)
                dots_block(2, columns, p.k, p.a, p.a_row, b, p.ldb, p.c + j, p.ldc, p.add);
            else
                dots_block(1, columns, p.k, p.a, p.a_row, b, p.ldb, p.c + j, p.ldc, p.add);
        }
        p.rows -= step, p.a += step * p.a_row, p.c += step * p.ldc;
    }
}

/* a (rows, k), b (k, columns) or its transpose -> c (rows, columns) */
static void multiply_tiny(part p, int transpose_b)
{
    int64_t b_row = transpose_b ? 1 : p.ldb, b_column = transpose_b ? p.ldb : 1;
    for (int64_t i = 0; i < p.rows; i++)
        for (int64_t j = 0; j < p.columns; j++) {
            real sum = 0;
            for (int64_t l = 0; l < p.k; l++)
                sum = real_fma(p.a[i * p.a_row + l * p.a_column], p.b[l * b_row + j * b_column], sum);
            p.c[i * p.ldc + j] = p.add ? p.c[i * p.ldc + j] + sum : sum;
        }
}

#endif
