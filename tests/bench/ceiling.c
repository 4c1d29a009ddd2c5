/* What the machine can do on one thread: the ceilings that rates of operations are compared with. Called by bench.c,
 * and rows of their own. Nothing here uses the library's kernels. */
#include "tests/bench/bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* ---- fused multiply-adds ----------------------------------------------------------------------------------------- */

/* Each does `rounds` rounds of independent multiply-adds, enough to cover their latency, and gives their number in one
 * round in *each. The sum keeps the compiler from leaving them out. */
enum { CHAINS = 12 };

static float round_portable(int64_t rounds, double *each)
{
    enum { WIDTH = 16 };
    float sum[WIDTH] = { 0 }, factor = 0.999f, term = 0.001f;
    for (int64_t i = 0; i < rounds; i++)
        for (int k = 0; k < WIDTH; k++) sum[k] = sum[k] * factor + term;
    *each = WIDTH;
    float total = 0;
    for (int k = 0; k < WIDTH; k++) total += sum[k];
    return total;
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static float round_avx512(int64_t rounds, double *each)
{
    __m512 sum[CHAINS], factor = _mm512_set1_ps(0.999f), term = _mm512_set1_ps(0.001f);
    for (int k = 0; k < CHAINS; k++) sum[k] = _mm512_set1_ps((float)k);
    for (int64_t i = 0; i < rounds; i++)
        for (int k = 0; k < CHAINS; k++) sum[k] = _mm512_fmadd_ps(sum[k], factor, term);
    *each = CHAINS * 16;
    for (int k = 1; k < CHAINS; k++) sum[0] = _mm512_add_ps(sum[0], sum[k]);
    return _mm512_reduce_add_ps(sum[0]);
}

__attribute__((target("avx2,fma"))) static float round_avx2(int64_t rounds, double *each)
{
    __m256 sum[CHAINS], factor = _mm256_set1_ps(0.999f), term = _mm256_set1_ps(0.001f);
    for (int k = 0; k < CHAINS; k++) sum[k] = _mm256_set1_ps((float)k);
    for (int64_t i = 0; i < rounds; i++)
        for (int k = 0; k < CHAINS; k++) sum[k] = _mm256_fmadd_ps(sum[k], factor, term);
    *each = CHAINS * 8;
    for (int k = 1; k < CHAINS; k++) sum[0] = _mm256_add_ps(sum[0], sum[k]);
    float out[8], total = 0;
    _mm256_storeu_ps(out, sum[0]);
    for (int k = 0; k < 8; k++) total += out[k];
    return total;
}
#endif

static float multiply_add(int64_t rounds, double *each)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return round_avx512(rounds, each);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return round_avx2(rounds, each);
#endif
    return round_portable(rounds, each);
}

static volatile float unused;

/* The best of a few samples: a ceiling is what the machine does when left alone. */
double bench_peak_gflops(void)
{
    enum { ROUNDS = 200000, SAMPLES = 15 };
    static double peak;
    if (peak > 0) return peak;
    for (int i = 0; i < SAMPLES; i++) {
        double each, start = bench_now();
        unused = multiply_add(ROUNDS, &each);
        peak = fmax(peak, 2 * each * ROUNDS / (bench_now() - start) * 1e-9);
    }
    return peak;
}

/* ---- copying ----------------------------------------------------------------------------------------------------- */

static double copy_rate(size_t bytes)
{
    enum { SAMPLES = 15 };
    size_t half = bytes / 2 ? bytes / 2 : 1;
    char *from = aligned_alloc(64, (half + 63) / 64 * 64), *to = aligned_alloc(64, (half + 63) / 64 * 64);
    double best = 0;
    if (from && to) {
        memset(from, 1, half);
        memset(to, 2, half);
        int64_t times = (int64_t)(4e6 / (double)half) + 1;
        for (int i = 0; i < SAMPLES; i++) {
            double start = bench_now();
            for (int64_t k = 0; k < times; k++) {
                memcpy(to, from, half);
                __asm__ volatile("" : : "r"(to), "r"(from) : "memory"); /* each copy is made */
            }
            best = fmax(best, 2.0 * (double)half * (double)times / (bench_now() - start) * 1e-9);
        }
    }
    free(from);
    free(to);
    return best > 0 ? best : NAN;
}

double bench_copy_gbs(double bytes)
{
    enum { LEAST = 9, MOST = 30 }; /* powers of two, between half a kilobyte and a gigabyte */
    static double rate[MOST + 1];
    int power = (int)lround(log2(bytes));
    power = power < LEAST ? LEAST : power > MOST ? MOST : power;
    if (rate[power] == 0) rate[power] = copy_rate((size_t)1 << power);
    return rate[power];
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static bool run_fma(void *state, int64_t n)
{
    (void)state;
    double each;
    for (int64_t i = 0; i < n; i++) unused = multiply_add(1000, &each);
    return true;
}

static double fma_flops(void)
{
    double each;
    unused = multiply_add(1, &each);
    return 2000 * each;
}

typedef struct copy {
    size_t half;
    char *from, *to;
} copy;

static void close_copy(void *state)
{
    copy *c = state;
    free(c->from);
    free(c->to);
    free(c);
}
static void *open_copy(const bench_row *row)
{
    copy *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->half = (size_t)row->bytes / 2;
    c->from = aligned_alloc(64, c->half);
    c->to = aligned_alloc(64, c->half);
    if (!c->from || !c->to) {
        close_copy(c);
        return NULL;
    }
    memset(c->from, 1, c->half);
    memset(c->to, 2, c->half);
    return c;
}
static bool run_copy(void *state, int64_t n)
{
    copy *c = state;
    for (int64_t i = 0; i < n; i++) {
        memcpy(c->to, c->from, c->half);
        __asm__ volatile("" : : "r"(c->to), "r"(c->from) : "memory");
    }
    return true;
}

void bench_add_ceilings(void)
{
    bench_add(&(bench_row){ .name = "ceiling/fma", .threads = 1, .run = run_fma, .flops = fma_flops() });
    static const struct { const char *name; int power; } sizes[] = {
        { "ceiling/copy_4k", 12 }, { "ceiling/copy_1m", 20 }, { "ceiling/copy_256m", 28 }
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        bench_row row = { .threads = 1, .open = open_copy, .close = close_copy, .run = run_copy,
                          .bytes = (double)((int64_t)1 << sizes[i].power) };
        snprintf(row.name, sizeof row.name, "%s", sizes[i].name);
        bench_add(&row);
    }
}
