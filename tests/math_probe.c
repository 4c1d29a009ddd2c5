/* The functions of autodiff/real.h as loops over arrays, and single draws of autodiff/draw.h; compiled like a kernel:
 * once per precision and instruction set, with the kernels' flags.  test_math.c and test_random.c judge them.
 */
#include "tests/math_probe.h"

#include "autodiff/draw.h"

#define UNARY(ROW)                                                                                                     \
    ROW(abs)                                                                                                           \
    ROW(sign) ROW(round) ROW(floor) ROW(ceil) ROW(sqrt) ROW(rsqrt) ROW(exp) ROW(expm1) ROW(log) ROW(log1p) ROW(sin)    \
        ROW(cos) ROW(tanh) ROW(sigmoid) ROW(softplus) ROW(log_sigmoid) ROW(logit_clamped) ROW(erf) ROW(lgamma)         \
            ROW(digamma) ROW(trigamma) ROW(tetragamma)
#define BINARY(ROW) ROW(pow) ROW(min) ROW(max)

#define UNARY_LOOP(f)                                                                                                  \
    static void run_##f(const void *x, const void *y, void *out, int64_t n)                                            \
    {                                                                                                                  \
        const real *restrict a = x;                                                                                    \
        real *restrict o = out;                                                                                        \
        (void)y;                                                                                                       \
        for (int64_t i = 0; i < n; i++)                                                                                \
            o[i] = real_##f(a[i]);                                                                                     \
    }
#define BINARY_LOOP(f)                                                                                                 \
    static void run_##f(const void *x, const void *y, void *out, int64_t n)                                            \
    {                                                                                                                  \
        const real *restrict a = x, *restrict b = y;                                                                   \
        real *restrict o = out;                                                                                        \
        for (int64_t i = 0; i < n; i++)                                                                                \
            o[i] = real_##f(a[i], b[i]);                                                                               \
    }
#define PROBE(f) { #f, run_##f },

UNARY(UNARY_LOOP)
BINARY(BINARY_LOOP)

const math_probe CPU_NAME(math_probes)[] = { UNARY(PROBE) BINARY(PROBE){ 0 } };

static double uniform_of(uint64_t word)
{
    return draw_uniform_of((real_bits)word);
}

static void normals_of(uint64_t a, uint64_t b, double *z)
{
    real z0, z1;
    draw_normals_of((real_bits)a, (real_bits)b, &z0, &z1);
    z[0] = z0;
    z[1] = z1;
}

static double uniform(uint64_t key, uint32_t site, uint32_t draw, uint32_t run, uint64_t i)
{
    return draw_uniform(key, site, draw, run, i);
}

static double normal(uint64_t key, uint32_t site, uint32_t draw, uint32_t run, uint64_t i)
{
    return draw_normal(key, site, draw, run, i);
}

const draw_probe CPU_NAME(draw_probe) = { uniform_of, normals_of, uniform, normal };
