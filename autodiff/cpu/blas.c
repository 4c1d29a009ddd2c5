/* OpenBLAS through dlopen. Called by the CPU backend (open, close) and by gemm.c (multiply); see blas.h. */
#include "autodiff/cpu/blas.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* The core types of OpenBLAS whose kernels use AVX-512, and AVX2 with fused multiply-add. */
static const char *const avx512_cores[] = {"SkylakeX", "Cooperlake", "SapphireRapids", NULL};
static const char *const avx2_cores[] = {"Haswell", "Zen", NULL};

static int among(const char *name, const char *const *list)
{
    for (; *list; list++)
        if (!strcmp(name, *list))
            return 1;
    return 0;
}

static int suits(const char *core, int level)
{
    int core_level = among(core, avx512_cores) ? 2 : among(core, avx2_cores) ? 1 : 0;
    return core_level >= level;
}

/* Nothing of the process is changed for it: not its environment, whose core type and threads the library reads, nor, where
 * the program uses the same library, that one's threads. *ours: nobody had it before. */
static void *load(int *ours)
{
    void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
    *ours = !library;
    return library ? library : dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
}

/* ISO C has no cast from an object's address to a function's; POSIX lends them one form. */
static int find(void *library, const char *name, void *function)
{
    void *address = dlsym(library, name);
    memcpy(function, &address, sizeof address);
    return address != NULL;
}

static const char *check(blas *b, int ours)
{
    char *(*core)(void), *(*config)(void);
    int (*threads)(void), (*parallel)(void);
    void (*set_threads)(int);
    if (!find(b->library, "cblas_sgemm", &b->sgemm) || !find(b->library, "cblas_dgemm", &b->dgemm)
        || !find(b->library, "openblas_get_corename", &core) || !find(b->library, "openblas_get_config", &config)
        || !find(b->library, "openblas_get_num_threads", &threads)
        || !find(b->library, "openblas_set_num_threads", &set_threads)
        || !find(b->library, "openblas_get_parallel", &parallel))
        return "libopenblas.so.0 lacks a function that is needed";
    if (parallel() == 2)
        return "libopenblas.so.0 is built on OpenMP, which may start threads in every call";
    if (ours && threads() != 1)
        set_threads(1);
    if (threads() != 1)
        return "libopenblas.so.0 is set to several threads per call";
    if (!suits(core(), gemm_cpu_level()))
        return "libopenblas.so.0 runs kernels for an older CPU than this one";
    char version[24] = "";
    sscanf(config(), "OpenBLAS %23s", version);
    snprintf(b->description, sizeof b->description, "OpenBLAS %s, %s, one thread per call", version, core());
    return NULL;
}

int blas_open(blas *b, const char **why)
{
    memset(b, 0, sizeof *b);
    int ours;
    b->library = load(&ours);
    *why = b->library ? check(b, ours) : "libopenblas.so.0 is not installed";
    if (!*why)
        return 0;
    blas_close(b);
    return -1;
}

void blas_close(blas *b)
{
    if (b->library)
        dlclose(b->library);
    memset(b, 0, sizeof *b);
}

void blas_multiply(const blas *b, const gemm *g, gemm_block block)
{
    int ta = g->transpose_a ? BLAS_TRANSPOSED : BLAS_PLAIN, tb = g->transpose_b ? BLAS_TRANSPOSED : BLAS_PLAIN;
    int m = (int)block.rows, n = (int)g->n, k = (int)g->k, lda = (int)g->lda, ldb = (int)g->ldb, ldc = (int)g->ldc;
    int64_t from_a = block.row * (g->transpose_a ? 1 : g->lda), from_c = block.row * g->ldc;
    if (g->kernel->bits == 32)
        b->sgemm(BLAS_ROW_MAJOR, ta, tb, m, n, k, 1, (const float *)g->a + from_a, lda, g->b, ldb,
                 g->accumulate ? 1 : 0, (float *)g->c + from_c, ldc);
    else
        b->dgemm(BLAS_ROW_MAJOR, ta, tb, m, n, k, 1, (const double *)g->a + from_a, lda, g->b, ldb,
                 g->accumulate ? 1 : 0, (double *)g->c + from_c, ldc);
}
