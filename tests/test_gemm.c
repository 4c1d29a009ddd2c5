/* Matrix products on the CPU: every kernel that this machine runs, and the library, against a triple loop.
 * Small integers make every order of summation exact, so most cases ask for equality; rounding has its own test. */
#include "autodiff/cpu/blas.h"
#include "autodiff/cpu/gemm.h"
#include "tests/test.h"

#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- Cases: a product with operands of its own, the gaps between its rows filled with NaN. --- */

typedef struct sizes {
    int64_t m, n, k;
} sizes;

typedef struct product {
    gemm g;
    int bits;
    void *a, *b, *c, *start;      /* start: C before the run */
    size_t c_bytes;
    long double *want, *magnitude; /* (M, N), from the triple loop at the first judgement */
} product;

static uint64_t state;

/* Uniform in [0, n); splitmix64. */
static int64_t draw(int64_t n)
{
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (int64_t)((z ^ z >> 31) % (uint64_t)n);
}

static double get(const void *p, int bits, int64_t i)
{
    return bits == 32 ? ((const float *)p)[i] : ((const double *)p)[i];
}

static void put(void *p, int bits, int64_t i, double x)
{
    if (bits == 32)
        ((float *)p)[i] = (float)x;
    else
        ((double *)p)[i] = x;
}

static size_t extent(int64_t rows, int64_t columns, int64_t stride, int bits)
{
    return rows > 0 && columns > 0 ? (size_t)((rows - 1) * stride + columns) * (size_t)(bits / 8) : 0;
}

/* (rows, columns) of integers in [-8, 8] or, if rough, of reals in (-1, 1); exactly as long as needed. */
static void *matrix(int64_t rows, int64_t columns, int64_t stride, int bits, int rough)
{
    size_t bytes = extent(rows, columns, stride, bits);
    void *p = malloc(bytes + 1);
    ck_assert_ptr_nonnull(p);
    for (int64_t i = 0; i < (int64_t)bytes / (bits / 8); i++)
        put(p, bits, i,
            i % stride >= columns ? (double)NAN : rough ? (double)draw(2000001) * 1e-6 - 1 : (double)draw(17) - 8);
    return p;
}

/* spare: elements between the rows of each operand */
static product make(sizes s, int transpose_a, int transpose_b, int accumulate, int64_t spare, int bits, int rough)
{
    product p = {.bits = bits};
    gemm *g = &p.g;
    g->m = s.m, g->n = s.n, g->k = s.k;
    g->transpose_a = transpose_a, g->transpose_b = transpose_b, g->accumulate = accumulate;
    g->lda = (transpose_a ? s.m : s.k) + spare;
    g->ldb = (transpose_b ? s.k : s.n) + spare;
    g->ldc = s.n + spare;
    p.a = transpose_a ? matrix(s.k, s.m, g->lda, bits, rough) : matrix(s.m, s.k, g->lda, bits, rough);
    p.b = transpose_b ? matrix(s.n, s.k, g->ldb, bits, rough) : matrix(s.k, s.n, g->ldb, bits, rough);
    p.start = matrix(s.m, s.n, g->ldc, bits, rough);
    p.c_bytes = extent(s.m, s.n, g->ldc, bits);
    p.c = malloc(p.c_bytes + 1);
    ck_assert_ptr_nonnull(p.c);
    g->a = p.a, g->b = p.b, g->c = p.c;
    return p;
}

static void release(product *p)
{
    free(p->a);
    free(p->b);
    free(p->c);
    free(p->start);
    free(p->want);
    free(p->magnitude);
}

/* The triple loop; magnitude is the sum of the terms' absolute values. */
static void naive(product *p)
{
    const gemm *g = &p->g;
    int64_t a_row = g->transpose_a ? 1 : g->lda, a_column = g->transpose_a ? g->lda : 1;
    int64_t b_row = g->transpose_b ? 1 : g->ldb, b_column = g->transpose_b ? g->ldb : 1;
    p->want = calloc((size_t)(g->m * g->n + 1), sizeof *p->want);
    p->magnitude = calloc((size_t)(g->m * g->n + 1), sizeof *p->magnitude);
    ck_assert(p->want && p->magnitude);
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->n; j++) {
            long double sum = g->accumulate ? get(p->start, p->bits, i * g->ldc + j) : 0, magnitude = fabsl(sum);
            for (int64_t k = 0; k < g->k; k++) {
                long double x = get(p->a, p->bits, i * a_row + k * a_column);
                long double term = x * get(p->b, p->bits, k * b_row + j * b_column);
                sum += term;
                magnitude += fabsl(term);
            }
            p->want[i * g->n + j] = sum;
            p->magnitude[i * g->n + j] = magnitude;
        }
}

static void run(product *p)
{
    void *packed = malloc(p->g.packed_bytes + 1);
    ck_assert_ptr_nonnull(packed);
    memcpy(p->c, p->start, p->c_bytes);
    gemm_run(&p->g, packed);
    free(packed);
}

/* tolerance: in units of rounding of the terms' magnitude; 0 asks for equality */
static void judge(product *p, const char *who, double tolerance)
{
    const gemm *g = &p->g;
    if (!p->want)
        naive(p);
    double unit = p->bits == 32 ? 0x1p-24 : 0x1p-53;
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->n; j++) {
            long double want = p->want[i * g->n + j], magnitude = p->magnitude[i * g->n + j];
            double got = get(p->c, p->bits, i * g->ldc + j);
            if (fabsl(got - want) <= tolerance * unit * magnitude)
                continue;
            ck_abort_msg("%s, float%d: (%ld, %ld) of %ld x %ld x %ld, transposes %d %d, accumulate %d, path %d: "
                         "%.17g instead of %.17Lg",
                         who, p->bits, (long)i, (long)j, (long)g->m, (long)g->n, (long)g->k, g->transpose_a,
                         g->transpose_b, g->accumulate, g->path, got, want);
        }
    for (int64_t i = 0; i < (int64_t)p->c_bytes / (p->bits / 8); i++)
        if (i % g->ldc >= g->n && !isnan(get(p->c, p->bits, i)))
            ck_abort_msg("%s wrote between the rows of C", who);
}

/* Every kernel of both precisions on one shape. */
static void check_kernels(sizes s, int transpose_a, int transpose_b, int accumulate, int64_t spare, int whole_rows,
                          int rough)
{
    int count;
    const gemm_kernel *const *kernels = gemm_kernels(&count);
    for (int bits = 32; bits <= 64; bits += 32) {
        product p = make(s, transpose_a, transpose_b, accumulate, spare, bits, rough);
        p.g.whole_rows = whole_rows;
        for (int i = 0; i < count; i++)
            if (kernels[i]->bits == bits) {
                gemm_plan(&p.g, kernels[i], NULL);
                run(&p);
                judge(&p, kernels[i]->isa, rough ? 2 * sqrt((double)s.k) + 4 : 0);
            }
        release(&p);
    }
}

START_TEST(cross_section)
{
    static const int64_t edges[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 70};
    enum { EDGES = sizeof edges / sizeof edges[0] };
    state = 1;
    for (int i = 0; i < 800; i++) {
        sizes s = {edges[draw(EDGES)], edges[draw(EDGES)], edges[draw(EDGES)]};
        if (i % 2)
            s = (sizes){draw(71), draw(71), draw(71)};
        check_kernels(s, i & 1, i >> 1 & 1, i >> 2 & 1, draw(3) * draw(6), 0, 0);
    }
}
END_TEST

START_TEST(vectors)
{
    state = 2;
    for (int64_t size = 1; size < 400; size += 1 + size / 3)
        for (int64_t k = 1; k < 400; k += 1 + k / 2)
            for (int i = 0; i < 8; i++) {
                check_kernels((sizes){1, size, k}, i & 1, i >> 1 & 1, i >> 2, 0, 0, 0);
                check_kernels((sizes){size, 1, k}, i & 1, i >> 1 & 1, i >> 2, 0, 0, 0);
            }
    check_kernels((sizes){1, 5000, 300}, 0, 0, 0, 0, 0, 0);
    check_kernels((sizes){1, 5000, 300}, 0, 1, 0, 0, 0, 0);
    check_kernels((sizes){5000, 1, 300}, 0, 0, 0, 0, 0, 0);
    check_kernels((sizes){5000, 1, 300}, 1, 0, 0, 0, 1, 0);
}
END_TEST

/* Many blocks of k, many chunks, primes. */
START_TEST(large)
{
    static const sizes all[] = {{131, 211, 797}, {50, 103, 1009}, {787, 50, 257}, {16, 397, 787}, {4, 1000, 661},
                                {37, 1201, 31}, {2, 3, 4001}, {128, 64, 512}};
    state = 3;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        for (int t = 0; t < 4; t++)
            check_kernels(all[i], t & 1, t >> 1, i & 1, (int64_t)(i % 3), t == 2, 0);
}
END_TEST

/* Real numbers: the error stays within 2 sqrt K + 4 units of rounding of the terms' sum of magnitudes. */
START_TEST(rounding)
{
    static const sizes all[] = {{1, 61, 1500}, {61, 1, 1500}, {3, 61, 1500}, {14, 61, 1500}, {65, 61, 1500}};
    state = 4;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        for (int t = 0; t < 4; t++)
            check_kernels(all[i], t & 1, t >> 1, t == 1, 0, 0, 1);
}
END_TEST

/* --- The same bits whatever the order, the threads and the chunks. --- */

typedef struct crew {
    const gemm *g;
    void *packed;
    atomic_long next_pack, packs_done, next_chunk;
} crew;

static void *labour(void *argument)
{
    crew *w = argument;
    for (long i; (i = atomic_fetch_add(&w->next_pack, 1)) < w->g->pack_chunks; atomic_fetch_add(&w->packs_done, 1))
        gemm_pack(w->g, w->packed, i);
    while (atomic_load(&w->packs_done) < w->g->pack_chunks)
        sched_yield();
    for (long i; (i = atomic_fetch_add(&w->next_chunk, 1)) < w->g->chunks;)
        gemm_multiply(w->g, w->packed, i);
    return NULL;
}

static void run_threads(product *p, int count)
{
    pthread_t threads[8];
    crew w = {.g = &p->g, .packed = malloc(p->g.packed_bytes + 1)};
    ck_assert_ptr_nonnull(w.packed);
    memcpy(p->c, p->start, p->c_bytes);
    for (int i = 0; i < count; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, labour, &w), 0);
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    free(w.packed);
}

static void run_backwards(product *p)
{
    void *packed = malloc(p->g.packed_bytes + 1);
    ck_assert_ptr_nonnull(packed);
    memcpy(p->c, p->start, p->c_bytes);
    for (int64_t i = p->g.pack_chunks; i-- > 0;)
        gemm_pack(&p->g, packed, i);
    for (int64_t i = p->g.chunks; i-- > 0;)
        gemm_multiply(&p->g, packed, i);
    free(packed);
}

static void check_bits(product *p, const char *who, const gemm_kernel *kernel, const blas *library)
{
    void *first = malloc(p->c_bytes + 1);
    ck_assert_ptr_nonnull(first);
    run(p);
    memcpy(first, p->c, p->c_bytes);
    run_backwards(p);
    ck_assert_msg(!memcmp(first, p->c, p->c_bytes), "%s: chunks backwards give other bits", who);
    for (int threads = 1; threads <= 4; threads++) {
        run_threads(p, threads);
        ck_assert_msg(!memcmp(first, p->c, p->c_bytes), "%s: %d threads give other bits", who, threads);
    }
    if (!library) { /* other chunks */
        p->g.whole_rows = !p->g.whole_rows;
        gemm_plan(&p->g, kernel, NULL);
        run(p);
        ck_assert_msg(!memcmp(first, p->c, p->c_bytes), "%s: whole rows give other bits", who);
        p->g.whole_rows = 0;
    }
    free(first);
}

static const sizes bit_sizes[] = {{256, 100, 401}, {33, 701, 300}, {5, 900, 333},   {1, 3000, 200},
                                  {3000, 1, 200},  {97, 64, 2000}, {16, 500, 1000}, {300, 300, 3}};

START_TEST(same_bits)
{
    int count;
    const gemm_kernel *const *kernels = gemm_kernels(&count);
    state = 5;
    for (size_t s = 0; s < sizeof bit_sizes / sizeof bit_sizes[0]; s++)
        for (int t = 0; t < 4; t++)
            for (int i = 0; i < count; i++) {
                product p = make(bit_sizes[s], t & 1, t >> 1, t == 1, 0, kernels[i]->bits, 1);
                gemm_plan(&p.g, kernels[i], NULL);
                check_bits(&p, kernels[i]->isa, kernels[i], NULL);
                release(&p);
            }
}
END_TEST

/* --- Plans. --- */

/* Every element of C lies in exactly one chunk. */
START_TEST(chunks_tile)
{
    int count;
    const gemm_kernel *const *kernels = gemm_kernels(&count);
    state = 6;
    for (int i = 0; i < 2000; i++) {
        gemm g = {.m = draw(300), .n = draw(900), .k = draw(900), .transpose_a = i & 1, .transpose_b = i >> 1 & 1};
        if (i % 5 == 0)
            g.m = 1;
        if (i % 5 == 1)
            g.n = 1;
        g.whole_rows = i % 3 == 0;
        g.lda = g.transpose_a ? g.m : g.k, g.ldb = g.transpose_b ? g.k : g.n, g.ldc = g.n;
        gemm_plan(&g, kernels[i % count], NULL);
        int64_t covered = 0, end = 0;
        for (int64_t chunk = 0; chunk < g.chunks; chunk++) {
            gemm_block b = gemm_block_of(&g, chunk);
            ck_assert(b.rows > 0 && b.columns > 0);
            ck_assert(b.row + b.rows <= g.m && b.column + b.columns <= g.n);
            ck_assert(!g.whole_rows || b.columns == g.n);
            ck_assert_int_eq(b.row * g.n + b.column * b.rows, end); /* blocks follow each other */
            covered += b.rows * b.columns;
            end = covered;
        }
        ck_assert_int_eq(covered, g.m * g.n);
    }
}
END_TEST

/* --- The library. --- */

static int opened(blas *library)
{
    const char *why;
    if (!blas_open(library, &why))
        return 1;
    ck_assert_ptr_nonnull(why);
    test_skip(why);
    return 0;
}

/* Products whose packed B leaves the cache go to the library, where there is one; so does no shape that it would
 * complain about. */
START_TEST(library_choice)
{
    blas library = {0};
    for (int bits = 32; bits <= 64; bits += 32) {
        const gemm_kernel *kernel = gemm_kernel_best(bits);
        gemm g = {.m = 1000, .n = 1100, .k = 1200, .lda = 1200, .ldb = 1100, .ldc = 1100};
        gemm_plan(&g, kernel, &library);
        ck_assert_ptr_eq(g.blas, &library);
        ck_assert(g.packed_bytes == 0 && g.pack_chunks == 0 && g.block_columns == g.n);
        gemm_plan(&g, kernel, NULL);
        ck_assert_ptr_null(g.blas);
        ck_assert(g.packed_bytes >= 1100 * 1200 * (size_t)bits / 8);
        g.ldb = 0; /* one row repeated */
        gemm_plan(&g, kernel, &library);
        ck_assert_ptr_null(g.blas);
        g = (gemm){.m = 1000, .n = 4, .k = 3, .lda = 3, .ldb = 4, .ldc = 4};
        gemm_plan(&g, kernel, gemm_cpu_level() ? &library : NULL);
        ck_assert_ptr_null(g.blas);
    }
}
END_TEST

START_TEST(library_agrees)
{
    blas library;
    if (!opened(&library))
        return;
    state = 7;
    for (int i = 0; i < 200; i++)
        for (int bits = 32; bits <= 64; bits += 32) {
            sizes s = {draw(71), draw(71), draw(71)};
            if (i % 20 == 0)
                s.m = 300 + draw(3000);
            product p = make(s, i & 1, i >> 1 & 1, i >> 2 & 1, draw(3), bits, 1);
            gemm_plan_blas(&p.g, gemm_kernel_best(bits), &library);
            run(&p);
            judge(&p, library.description, 2 * sqrt((double)s.k) + 4);
            release(&p);
        }
    for (size_t s = 0; s < sizeof bit_sizes / sizeof bit_sizes[0]; s++)
        for (int t = 0; t < 4; t++) {
            product p = make(bit_sizes[s], t & 1, t >> 1, t == 1, 0, 32, 1);
            gemm_plan_blas(&p.g, gemm_kernel_best(32), &library);
            check_bits(&p, library.description, NULL, &library);
            release(&p);
        }
    blas_close(&library);
}
END_TEST

/* Opening leaves no trace in the environment, and what the user has set stands. */
START_TEST(library_environment)
{
    blas library;
    unsetenv("OPENBLAS_CORETYPE");
    unsetenv("OPENBLAS_NUM_THREADS");
    if (!opened(&library))
        return;
    ck_assert_ptr_null(getenv("OPENBLAS_CORETYPE"));
    ck_assert_ptr_null(getenv("OPENBLAS_NUM_THREADS"));
    ck_assert(strstr(library.description, "OpenBLAS ") == library.description);
    ck_assert_ptr_nonnull(strstr(library.description, "one thread per call"));
    blas_close(&library);
    blas_close(&library); /* closing twice is harmless */
}
END_TEST

START_TEST(library_refused)
{
    blas library;
    const char *why;
    if (!opened(&library))
        return;
    blas_close(&library);
    setenv("OPENBLAS_NUM_THREADS", "2", 1);
    void *others = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL); /* the program uses it, too, with its threads */
    ck_assert_ptr_nonnull(others);
    int (*count)(void);
    void *symbol = dlsym(others, "openblas_get_num_threads");
    memcpy(&count, &symbol, sizeof count);
    int before = count(), opened_beside = blas_open(&library, &why);
    if (before > 1) {
        ck_assert_int_eq(opened_beside, -1);
        ck_assert_ptr_nonnull(strstr(why, "several threads"));
    }
    ck_assert_int_eq(count(), before);
    ck_assert_str_eq(getenv("OPENBLAS_NUM_THREADS"), "2");
    unsetenv("OPENBLAS_NUM_THREADS");
    blas_close(&library);
    dlclose(others);
    if (gemm_cpu_level() == 0)
        return;
    setenv("OPENBLAS_CORETYPE", "Prescott", 1);
    ck_assert_int_eq(blas_open(&library, &why), -1);
    ck_assert_ptr_nonnull(strstr(why, "older CPU"));
    ck_assert_ptr_null(library.library);
}
END_TEST

Suite *suite_gemm(void)
{
    Suite *suite = suite_create("gemm");
    TCase *kernels = tcase_create("kernels"), *library = tcase_create("library");
    tcase_add_test(kernels, cross_section);
    tcase_add_test(kernels, vectors);
    tcase_add_test(kernels, large);
    tcase_add_test(kernels, rounding);
    tcase_add_test(kernels, same_bits);
    tcase_add_test(kernels, chunks_tile);
    tcase_add_test(library, library_choice);
    tcase_add_test(library, library_agrees);
    tcase_add_test(library, library_environment);
    tcase_add_test(library, library_refused);
    suite_add_tcase(suite, kernels);
    suite_add_tcase(suite, library);
    return suite;
}
