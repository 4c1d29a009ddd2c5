/* The CUDA backend, without a GPU: its code over a device that compiles the same sources as C (emulated_device.c)
 * against the CPU backend, and its sources through NVRTC for every architecture. With $TAPER_TEST_DEVICE=cuda, as
 * gpu_check sets it, a GPU takes the emulated device's place. test_card.c looks at what fails. */
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "autodiff/backend.h"
#define GPU_WORDS_ONLY
#include "gpu/kernels.h"
#undef GPU_WORDS_ONLY
#include "models/loader.h"
#include "models/vae.h"
#include "tests/emulated_device.h"
#include "tests/judged.h"
#include "tests/numeric.h"

static const ad_precision precisions[] = { AD_FLOAT, AD_DOUBLE };
static int n_precisions = 2; /* compared: 1 in the short case */

static char cache[] = "/tmp/taper_emulated_cache_XXXXXX";
static pid_t cache_owner;
static void cache_end(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", cache);
    if (getpid() == cache_owner && system(command))
        fprintf(stderr, "%s stays\n", cache);
}
void emulated_cache_begin(void)
{
    if (cache_owner || !mkdtemp(cache))
        return;
    cache_owner = getpid();
    setenv("TAPER_EMULATED_CACHE", cache, 1);
    atexit(cache_end);
}

/* ---- values: the same recording on both backends ----------------------------------------------------------------- */

enum { MOST = 1 << 16 };
typedef struct values {
    double x[MOST];
    int n;
} values;

static void keep(values *v, ad_tensor *x)
{
    int64_t n = ad_size(x);
    ck_assert_int_le(v->n + n, MOST);
    ck_assert_msg(ad_read(x, v->x + v->n, n), "%s", ad_error());
    v->n += (int)n;
}

/* Runs `record` on the CPU and on the device; values agree within `units` of the precision. */
static void compare(void (*record)(values *), double units)
{
    static values want, got;
    for (int i = 0; i < n_precisions; i++) {
        want.n = got.n = 0;
        ad_context *c = open_context("cpu", precisions[i]);
        record(&want);
        NO_ERROR();
        ad_context_free(c);
        c = open_context(judged(), precisions[i]);
        ck_assert_msg(strncmp(ad_describe(), judged(), 4) == 0, "%s", ad_describe());
        record(&got);
        NO_ERROR();
        ad_context_free(c);
        ck_assert_int_eq(want.n, got.n);
        ck_assert_int_gt(want.n, 0);
        double unit = units * (precisions[i] == AD_FLOAT ? 0x1p-23 : 0x1p-52);
        for (int k = 0; k < want.n; k++) {
            double a = want.x[k], b = got.x[k], largest = fmax(1, fabs(a));
            ck_assert_msg(a == b || (isnan(a) && isnan(b)) || fabs(a - b) <= unit * largest,
                          "%d bits, value %d: %.17g on the device, %.17g on the CPU",
                          precisions[i] == AD_FLOAT ? 32 : 64, k, b, a);
        }
    }
}

static void record_draws(values *v)
{
    ad_scope {
        ad_tensor *z[] = { ad_random_normal(AD_SHAPE(1001), 0),        ad_random_normal(AD_SHAPE(3, 5), 1),
                           ad_random_uniform(AD_SHAPE(4099), 2),       ad_random_uniform(AD_SHAPE(1), 3),
                           ad_cast_real(ad_random_index(1000, 77, 4)), ad_cast_real(ad_random_index(256, 256, 5)),
                           ad_cast_real(ad_random_index(7, 3, 6)),     ad_arange(13) };
        for (size_t i = 0; i < sizeof z / sizeof *z; i++)
            keep(v, z[i]);
    }
}
START_TEST(draws_have_the_cpus_bits)
{
    compare(record_draws, 0);
}
END_TEST

/* What a long row of draws comes to: its bits, mixed. */
static uint64_t checksum(ad_tensor *x, bool whole)
{
    int64_t n = ad_size(x);
    uint64_t sum = 0x9e3779b97f4a7c15u;
    double *real = malloc((size_t)n * sizeof *real);
    int64_t *index = malloc((size_t)n * sizeof *index);
    ck_assert(real && index);
    ck_assert_msg(whole ? ad_read_data(x, index, AD_FROM_INT64, n) : ad_read(x, real, n), "%s", ad_error());
    for (int64_t i = 0; i < n; i++) {
        uint64_t bits;
        memcpy(&bits, whole ? (void *)&index[i] : (void *)&real[i], sizeof bits);
        sum = (sum ^ bits) * 0x100000001b3u;
        sum ^= sum >> 29;
    }
    free(real);
    free(index);
    return sum;
}
/* Many draws have the CPU's bits: grids end, and their loops go on. */
START_TEST(many_draws_have_the_cpus_bits)
{
    const int64_t n = emulated() ? 100003 : 10000003, whole = emulated() ? 10007 : 1000003;
    for (int i = 0; i < 2; i++) {
        uint64_t sum[2][3];
        for (int device = 0; device < 2; device++) {
            ad_context *c = open_context(device ? judged() : "cpu", precisions[i]);
            ad_scope
                sum[device][0] = checksum(ad_random_normal(AD_SHAPE(n), 0), false);
            ad_scope
                sum[device][1] = checksum(ad_random_uniform(AD_SHAPE(n), 1), false);
            ad_scope
                sum[device][2] = checksum(ad_random_index(whole, whole, 2), true);
            ad_context_free(c);
        }
        for (int k = 0; k < 3; k++)
            ck_assert_msg(sum[0][k] == sum[1][k], "%s differ", (const char *[]){ "normals", "uniforms", "indices" }[k]);
    }
}
END_TEST

typedef struct row {
    const char *name;
    int arity;
    double interval[8];
    ad_tensor *(*f1)(ad_tensor *);
    ad_tensor *(*f2)(ad_tensor *, ad_tensor *);
    ad_tensor *(*f3)(ad_tensor *, ad_tensor *, ad_tensor *);
    ad_tensor *(*f4)(ad_tensor *, ad_tensor *, ad_tensor *, ad_tensor *);
} row;
static const row rows[] = {
#define AD_OP1(name, formula, ga, ...) { #name, 1, { __VA_ARGS__ }, .f1 = ad_##name },
#define AD_OP2(name, formula, ga, gb, ...) { #name, 2, { __VA_ARGS__ }, .f2 = ad_##name },
#define AD_OP3(name, formula, ga, gb, gc, ...) { #name, 3, { __VA_ARGS__ }, .f3 = ad_##name },
#define AD_OP4(name, formula, ga, gb, gc, gd, ...) { #name, 4, { __VA_ARGS__ }, .f4 = ad_##name },
#include "autodiff/ops.def"
};

/* Each row over operands in the order of the loop, broadcast along each axis, and of one element: all in one run, so
 * that they are fused into chains; then their sum, which reads the others. */
static void record_rows(values *v, bool each)
{
    enum { A = 7, B = 11, ROWS = sizeof rows / sizeof *rows };
    uint64_t seed = 1;
    ad_tensor *inputs[ROWS][4], *y[ROWS], *sum = NULL;
    const ad_shape shapes[] = { AD_SHAPE(A, B), AD_SHAPE(B), AD_SHAPE(A, 1), AD_SCALAR };
    ad_scope {
        for (int r = 0; r < ROWS; r++) {
            for (int j = 0; j < rows[r].arity; j++) {
                double x[A * B], low = rows[r].interval[2 * j], high = rows[r].interval[2 * j + 1];
                for (int k = 0; k < A * B; k++)
                    x[k] = numeric_uniform(&seed, low, high);
                inputs[r][j] = ad_from_data(x, AD_FROM_DOUBLE, shapes[j]);
            }
            ad_tensor **x = inputs[r];
            y[r] = rows[r].arity == 1   ? rows[r].f1(x[0])
                   : rows[r].arity == 2 ? rows[r].f2(x[0], x[1])
                   : rows[r].arity == 3 ? rows[r].f3(x[0], x[1], x[2])
                                        : rows[r].f4(x[0], x[1], x[2], x[3]);
            sum = sum ? (ad_add)(sum, y[r]) : y[r];
        }
        keep(v, sum);
        for (int r = 0; each && r < ROWS; r++)
            keep(v, y[r]);
        for (int r = 0; r < ROWS; r++)
            for (int j = 0; j < rows[r].arity; j++)
                ad_free(inputs[r][j]);
    }
}
static void record_elementwise(values *v)
{
    record_rows(v, true);
}
START_TEST(elementwise_chains)
{
    compare(record_elementwise, 64);
}
END_TEST

static ad_tensor *waves(ad_shape shape, double phase)
{
    int64_t n = 1;
    for (int i = 0; i < shape.rank; i++)
        n *= shape.dim[i];
    return ad_reshape((ad_sin)((ad_add)(ad_arange(n), ad_number(phase))), shape);
}

static void record_moves(values *v)
{
    static const uint8_t bytes[] = { 0, 1, 128, 255, 7 };
    static const int64_t whole[] = { 4, 0, 2, 2, -0, 3 };
    static const int few[] = { 3, 0, 0, 4 };
    static double borrowed[6] = { 1, 2, 3, 4, 5, 6 };
    static float narrow[6] = { 1, 2, 3, 4, 5, 6 };
    ad_tensor *b = ad_from_data(bytes, AD_FROM_BYTE, AD_SHAPE(5)),
              *index = ad_from_data(whole, AD_FROM_INT64, AD_SHAPE(6)),
              *index_of_few = ad_from_data(few, AD_FROM_INT, AD_SHAPE(2, 2));
    bool wide = ad_precision_of(ad_context_current()) == AD_DOUBLE;
    ad_tensor *mine = ad_borrow(wide ? (void *)borrowed : (void *)narrow, AD_SHAPE(2, 3));
    ad_scope {
        ad_tensor *x = waves(AD_SHAPE(3, 5, 7), 0.5), *narrow_x = waves(AD_SHAPE(3, 2, 7), 1);
        keep(v, ad_permute(x, (int[]){ 2, 0, 1 }, 3));
        keep(v, ad_transpose(x, 0, 1));
        keep(v, ad_expand(waves(AD_SHAPE(5, 1), 2), AD_SHAPE(3, 5, 7)));
        keep(v, ad_concat((ad_tensor *[]){ x, narrow_x, x }, 3, 1));
        keep(v, ad_slice(x, 1, 2, 2));
        keep(v, ad_slice(x, 0, 1, 2));
        keep(v, ad_pad(narrow_x, 1, 2, 5));
        keep(v, ad_gather(x, 1, index));
        keep(v, ad_gather(b, 0, index));
        keep(v, ad_gather(ad_slice(index, 0, 1, 5), 0, index_of_few));
        keep(v, ad_scatter_add(waves(AD_SHAPE(3, 6, 7), 3), 1, index, 5));
        keep(v, ad_cast_real(b));
        keep(v, ad_cast_real(ad_slice(b, 0, 1, 3)));
        keep(v, ad_cast_real(index));
        keep(v, (ad_mul)(mine, mine));
        keep(v, ad_cumsum(x, 1, false));
        keep(v, ad_cumsum(x, 2, true));
    }
    ad_free(b);
    ad_free(index);
    ad_free(index_of_few);
    ad_free(mine);
}
START_TEST(moves_and_indices)
{
    compare(record_moves, 16);
}
END_TEST

/* Short and long rows and columns, long ones by partial results; and weighted totals. */
static void record_reductions(values *v)
{
    static const int64_t sizes[][3] = { { 5, 3, 1 },   { 4, 300, 1 },   { 2, 5000, 1 }, { 1, 20000, 1 }, { 3, 7, 6 },
                                        { 2, 300, 9 }, { 1, 1000, 40 }, { 6, 1, 4 },    { 300, 2, 1 } };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        ad_scope {
            const int64_t *s = sizes[i];
            ad_tensor *x = waves(AD_SHAPE(s[0], s[1], s[2]), 0.1);
            keep(v, ad_reduce(AD_SUM, x, (int[]){ 1 }, 1, false));
            keep(v, ad_reduce(AD_MAX, x, (int[]){ 1 }, 1, false));
            keep(v, ad_reduce(AD_SUM, x, NULL, 0, false));
            keep(v, ad_weighted_total((ad_tensor *[]){ x, (ad_square)(x), ad_number(3) }, (double[]){ 2, -0.5, 1 }, 3));
        }
    }
}
/* More terms than a grid has rows, and a guard over more values; the last one is not finite. */
static void record_many_terms(values *v)
{
    enum { TERMS = GPU_MOST_ROWS + 7 };
    static ad_tensor *x[TERMS], *state[TERMS];
    static double weight[TERMS];
    ad_scope {
        for (int i = 0; i < TERMS; i++) {
            x[i] = waves(AD_SHAPE(3 + i % 2), i);
            weight[i] = i % 5;
        }
        keep(v, ad_weighted_total(x, weight, TERMS));
    }
    for (int i = 0; i < TERMS; i++)
        state[i] = ad_state(AD_SHAPE(2));
    for (int bad = 0; bad < 2; bad++)
        ad_scope {
            for (int i = 0; i < TERMS; i++)
                ad_assign(state[i], (ad_log)((ad_sub)(ad_arange(2), ad_number(bad && i == TERMS - 1 ? 0.5 : -1 - i))));
            v->x[v->n++] = ad_commit();
            ad_error_clear();
            keep(v, state[TERMS - 1]);
            keep(v, state[0]);
        }
    for (int i = 0; i < TERMS; i++)
        ad_free(state[i]);
}
START_TEST(more_terms_than_rows)
{
    compare(record_many_terms, 64);
}
END_TEST

START_TEST(reductions_and_totals)
{
    compare(record_reductions, 4096);
}
END_TEST

static void record_products(values *v)
{
    ad_scope {
        for (int ta = 0; ta < 2; ta++)
            for (int tb = 0; tb < 2; tb++) {
                ad_tensor *a = waves(ta ? AD_SHAPE(6, 4) : AD_SHAPE(4, 6), 1),
                          *b = waves(tb ? AD_SHAPE(5, 6) : AD_SHAPE(6, 5), 2);
                ad_tensor *as = waves(ta ? AD_SHAPE(3, 6, 4) : AD_SHAPE(3, 4, 6), 1);
                ad_tensor *bs = waves(tb ? AD_SHAPE(3, 5, 6) : AD_SHAPE(3, 6, 5), 2);
                keep(v, ad_matmul_t(a, ta, b, tb));
                keep(v, ad_matmul_t(as, ta, bs, tb));
                keep(v, ad_matmul_t(as, ta, b, tb));
                keep(v, ad_matmul_t(a, ta, bs, tb));
            }
    }
}
START_TEST(products)
{
    compare(record_products, 256);
}
END_TEST

/* ---- whole steps ------------------------------------------------------------------------------------------------- */

/* The last minibatch is smaller: a second plan, whose chains are those of the first. */
static void record_vae(values *v)
{
    enum { BATCH = 6, LAST = 4, PIXELS = 20 };
    static double pixels[BATCH * PIXELS];
    for (int i = 0; i < BATCH * PIXELS; i++)
        pixels[i] = 0.5 + 0.5 * sin(i);
    vae net = { .pixels = PIXELS, .hidden = 8, .z_dim = 3 };
    ppl_seed(5);
    ad_tensor *x = ad_from(pixels, AD_SHAPE(BATCH, PIXELS)), *rest = ad_from(pixels, AD_SHAPE(LAST, PIXELS));
    svi *s = svi_new(vae_model, vae_guide, .args = PPL_ARGS(vae *, ad_tensor *), .optim = optim_adam(.lr = 0.02));
    const char *asked = getenv("TAPER_TEST_STEPS");
    int steps = asked ? atoi(asked) : n_precisions < 2 ? 2 : emulated() ? 4 : 200;
    for (int step = 0; step < steps; step++) {
        double loss = svi_step(s, &net, step == 2 ? rest : x);
        ck_assert_msg(isfinite(loss), "%s", svi_error(s));
        v->x[v->n++] = loss;
    }
    v->x[v->n++] = svi_evaluate(s, &net, x);
    ck_assert(ppl_param_value("decoder$$$fc21.weight", v->x + v->n, PIXELS * 8));
    v->n += PIXELS * 8;
    svi_free(s);
    ad_free(x);
    ad_free(rest);
}
/* Minibatches of two epochs: rows gathered by kernels have the bits of rows gathered by the host. */
static void record_minibatches(values *v)
{
    enum { ROWS = 23, WIDTH = 31 };
    static uint8_t pixels[ROWS * WIDTH];
    for (int i = 0; i < ROWS * WIDTH; i++)
        pixels[i] = (uint8_t)(i * 89);
    for (int in_order = 0; in_order < 2; in_order++) {
        loader_options o = { .batch_size = 8, .seed = 3, .in_order = in_order };
        loader *l = loader_new(pixels, ROWS, WIDTH, &o);
        ad_tensor *x;
        for (int epoch = 0; epoch < 2; epoch++)
            while (loader_next(l, &x)) {
                keep(v, x);
                for (int i = 0; i < ad_dim(x, 0); i++)
                    v->x[v->n++] = (double)loader_row(l, i);
            }
        NO_ERROR();
        loader_free(l);
    }
}
START_TEST(minibatches_have_the_cpus_bits)
{
    compare(record_minibatches, 0);
}
END_TEST

/* Another order of additions leaves these few units after 200 steps; products rounded to TF32 would leave thousands. */
START_TEST(steps_of_a_vae)
{
    compare(record_vae, 256);
}
END_TEST

/* ---- sources ----------------------------------------------------------------------------------------------------- */

/* The structured kernels and those of a VAE's step for every architecture and precision; the chain of all rows, which
 * takes the compiler longest, once for each of both. (On its way to machine code NVRTC makes PTX of every source.)
 * What the build folder's cache has of an earlier run is not compiled again. */
START_TEST(sources_compile_for_every_architecture)
{
    char folder[] = "/tmp/taper_sources_XXXXXX", rows_folder[64], command[2048];
    if (access(TAPER_COMPILE_SOURCES, X_OK)) {
        test_skip("built without CUDA: no NVRTC to compile the kernels");
        return;
    }
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(rows_folder, sizeof rows_folder, "%s/rows", folder);
    ck_assert_int_eq(mkdir(rows_folder, 0777), 0);
    static values ignored;
    for (int i = 0; i < 2; i++) {
        setenv("TAPER_EMULATED_KEEP", folder, 1);
        ad_context *c = open_context("emulated", precisions[i]);
        ignored.n = 0;
        record_vae(&ignored);
        setenv("TAPER_EMULATED_KEEP", rows_folder, 1);
        record_rows(&ignored, false);
        NO_ERROR();
        ad_context_free(c);
    }
    unsetenv("TAPER_EMULATED_KEEP");
    /* Where the loader knows no folder of NVRTC's but the one that was built in, its built-in functions are found. */
    static const char alone[] = "/lib64/ld-linux-x86-64.so.2";
    if (!access(alone, X_OK)) {
        snprintf(command, sizeof command,
                 "env -u LD_LIBRARY_PATH HOME= XDG_CACHE_HOME= %s --inhibit-cache '%s' 90 $(ls %s/32_*.cu | head -n 1)",
                 alone, TAPER_COMPILE_SOURCES, folder);
        ck_assert_msg(system(command) == 0, "see above");
    }
    snprintf(command, sizeof command,
             "XDG_CACHE_HOME='%s/kernels' '%s' 80,90,ptx %s/*.cu 90 %s/32_*.cu 80 %s/64_*.cu && rm -r %s",
             TAPER_BACKENDS, TAPER_COMPILE_SOURCES, folder, rows_folder, rows_folder, folder);
    ck_assert_msg(system(command) == 0, "see above");
}
END_TEST

static void one_precision(void)
{
    n_precisions = 1;
}
static void both_precisions(void)
{
    n_precisions = 2;
}

/* Adds a case of the tests up to NULL. */
static TCase *add_case(Suite *s, const char *name, const TTest *const *test)
{
    TCase *t = tcase_create(name);
    tcase_set_timeout(t, 240);
    for (; *test; test++)
        tcase_add_test(t, *test);
    suite_add_tcase(s, t);
    return t;
}

/* Cases have names of their own so that gpu_check runs them apart; the short one is what sanitizers look at. */
Suite *suite_gpu(void)
{
    emulated_cache_begin();
    Suite *s = suite_create("gpu");
    add_case(s, "gpu",
             (const TTest *const[]){ draws_have_the_cpus_bits, elementwise_chains, moves_and_indices,
                                     reductions_and_totals, more_terms_than_rows, products,
                                     minibatches_have_the_cpus_bits, steps_of_a_vae, NULL });
    add_case(s, "gpu_bits", (const TTest *const[]){ many_draws_have_the_cpus_bits, NULL });
    TCase *t = add_case(s, "gpu_short",
                        (const TTest *const[]){ draws_have_the_cpus_bits, moves_and_indices, reductions_and_totals,
                                                more_terms_than_rows, products, steps_of_a_vae, NULL });
    tcase_add_checked_fixture(t, one_precision, both_precisions);
    add_case(s, "sources", (const TTest *const[]){ sources_compile_for_every_architecture, NULL });
    return s;
}
