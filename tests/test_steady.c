/* What does not change while a program trains: its losses under other numbers of threads, and its memory. The counting
 * malloc below is the whole test program's, but for builds with a sanitizer, whose own must stay in place. */
#include "models/loader.h"
#include "models/mnist.h"
#include "models/vae.h"
#include "tests/resident.h"
#include "tests/test.h"

#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- an interposed malloc ---------------------------------------------------------------------------------------- */

static atomic_llong requests; /* of memory, by anyone in the process */

#if defined(__GLIBC__) && !defined(SANITIZED)
#define COUNTED 1
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t),
    *__libc_memalign(size_t, size_t);

void *malloc(size_t size)
{
    atomic_fetch_add(&requests, 1);
    return __libc_malloc(size);
}
void *calloc(size_t n, size_t size)
{
    atomic_fetch_add(&requests, 1);
    return __libc_calloc(n, size);
}
void *realloc(void *old, size_t size)
{
    atomic_fetch_add(&requests, 1);
    return __libc_realloc(old, size);
}
void *aligned_alloc(size_t alignment, size_t size)
{
    atomic_fetch_add(&requests, 1);
    return __libc_memalign(alignment, size);
}
int posix_memalign(void **out, size_t alignment, size_t size)
{
    atomic_fetch_add(&requests, 1);
    *out = __libc_memalign(alignment, size);
    return *out ? 0 : ENOMEM;
}
#else
#define COUNTED 0
#endif

/* ---- the regression of 170 rows by 3 columns --------------------------------------------------------------------- */

enum { ROWS = 170, COLUMNS = 3 };

static void regression_model(ad_tensor *x, ad_tensor *y) /* x (ROWS, COLUMNS), y (ROWS) */
{
    ad_tensor *w = ppl_sample("w", dist_to_event(dist_normal(ad_zeros(COLUMNS), 1), 1));
    ad_tensor *b = ppl_sample("b", dist_normal(0, 10));
    ad_tensor *sigma = ppl_sample("sigma", dist_log_normal(0, 1));
    ppl_plate ("rows", ad_dim(x, 0)) ppl_sample("y", dist_normal(ad_add(ad_matmul(x, w), b), sigma), .obs = y);
}
static ad_tensor *scale(const char *name, ad_shape shape)
{
    return ppl_param(name, shape, .init = ppl_constant(0.1), .constraint = dist_positive());
}
static void regression_guide(ad_tensor *x, ad_tensor *y)
{
    (void)x, (void)y;
    distribution *w = dist_normal(ppl_param("w_loc", AD_SHAPE(COLUMNS)), scale("w_scale", AD_SHAPE(COLUMNS)));
    ppl_sample("w", dist_to_event(w, 1));
    ppl_sample("b", dist_normal(ppl_param("b_loc", AD_SCALAR), scale("b_scale", AD_SCALAR)));
    ppl_sample("sigma", dist_log_normal(ppl_param("sigma_loc", AD_SCALAR), scale("sigma_scale", AD_SCALAR)));
}

typedef struct regression {
    ad_tensor *x, *y;
    svi *s;
} regression;

static regression regression_begin(void)
{
    double x[ROWS][COLUMNS], y[ROWS];
    for (int i = 0; i < ROWS; i++) {
        for (int j = 0; j < COLUMNS; j++) x[i][j] = 1.4 * sin(1 + 12.9898 * i + 78.233 * j);
        y[i] = x[i][0] - 2 * x[i][1] + 0.5 * x[i][2] + 0.3 + 0.4 * sin(37.719 * i);
    }
    ad_context_use(ad_context_new(&(ad_options){ .precision = AD_DOUBLE, .threads = 1 }));
    regression r = { .x = ad_from(&x[0][0], AD_SHAPE(ROWS, COLUMNS)), .y = ad_from(y, AD_SHAPE(ROWS)) };
    r.s = svi_new(regression_model, regression_guide, .args = PPL_ARGS(ad_tensor *, ad_tensor *),
                  .optim = optim_adam(.lr = 0.005));
    ck_assert_msg(r.s != NULL, "%s", ad_error());
    return r;
}
static void regression_end(regression *r)
{
    svi_free(r->s);
    ad_free(r->x);
    ad_free(r->y);
    ad_context_free(NULL);
}
static void regression_steps(regression *r, int n)
{
    for (int i = 0; i < n; i++) {
        double loss = svi_step(r->s, r->x, r->y);
        if (isnan(loss)) ck_abort_msg("%s", svi_error(r->s));
    }
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

/* Two bytes kept by each step would exceed SLACK, which is for pages of code that are touched late. */
START_TEST(resident_memory_does_not_grow)
{
    enum { SLACK = 128 };
#ifdef SANITIZED
    enum { STEPS = 10000 };
#else
    enum { STEPS = 100000 };
#endif
    regression r = regression_begin();
    regression_steps(&r, 1000);
    (void)resident(); /* its own first call takes memory */
    long before = resident();
    if (before < 0) {
        test_skip("the system does not tell resident memory");
        regression_end(&r);
        return;
    }
    regression_steps(&r, STEPS - 1000);
    long after = resident();
    ck_assert_msg(after <= before + SLACK, "%ld kB after 1000 steps, %ld kB after %d", before, after, STEPS);
    ck_assert_int_eq(svi_steps(r.s), STEPS);
    regression_end(&r);
}
END_TEST

/* What was asked for between two looks: of the context's allocator, and of malloc. */
typedef struct look {
    uint64_t allocator, bytes;
    long long malloc;
} look;
static look look_now(void)
{
    ad_counters c = ad_count();
    return (look){ c.allocations, c.bytes, atomic_load(&requests) };
}
static void check_same(look a, look b, const char *what)
{
    ck_assert_msg(a.allocator == b.allocator && a.bytes == b.bytes,
                  "%s: the allocator was asked %llu times, and holds %lld bytes more", what,
                  (unsigned long long)(b.allocator - a.allocator), (long long)(b.bytes - a.bytes));
    ck_assert_msg(a.malloc == b.malloc, "%s: malloc was called %lld times", what, b.malloc - a.malloc);
}

START_TEST(malloc_is_counted)
{
    long long before = atomic_load(&requests);
    void *volatile p = malloc(10);
    void *volatile q = aligned_alloc(64, 64);
    long long counted = atomic_load(&requests) - before; /* Check's macros allocate, too */
    ck_assert(p && q);
    if (COUNTED) ck_assert_int_eq(counted, 2);
    else test_skip("malloc is not interposed in this build");
    free(p);
    free(q);
}
END_TEST

START_TEST(regression_allocates_nothing)
{
    regression r = regression_begin();
    regression_steps(&r, 10);
    look before = look_now();
    regression_steps(&r, 5000);
    check_same(before, look_now(), "5000 steps");
    regression_end(&r);
}
END_TEST

/* ---- the autoencoder on drawn digits ----------------------------------------------------------------------------- */

enum { IMAGES = 600, BATCH = 256, EPOCHS = 2, LOSSES = 3 * EPOCHS + 1 }; /* minibatches of 256, 256 and 88 */

typedef struct training {
    mnist data;
    loader *train;
    svi *s;
    vae v;
} training;

static training training_begin(uint64_t seed, int threads)
{
    char why[256];
    training t = { .train = NULL };
    ad_context_use(ad_context_new(&(ad_options){ .threads = threads }));
    ppl_seed(seed);
    mnist_options digits = { .synthetic = true, .train = IMAGES, .test = 1 };
    ck_assert_msg(!mnist_open(&t.data, &digits, why, sizeof why), "%s", why);
    t.train =
        loader_new(t.data.train.images, IMAGES, MNIST_PIXELS, &(loader_options){ .batch_size = BATCH, .seed = 1 });
    t.s = svi_new(vae_model, vae_guide, .args = PPL_ARGS(vae *, ad_tensor *), .optim = optim_adam(.lr = 1e-3));
    ck_assert_msg(t.train && t.s, "%s", ad_error());
    return t;
}
static void training_end(training *t)
{
    svi_free(t->s);
    loader_free(t->train);
    mnist_close(&t->data);
    ad_context_free(NULL);
}
static int training_epoch(training *t, double *losses)
{
    int n = 0;
    for (ad_tensor *x; loader_next(t->train, &x); n++) {
        double loss = svi_step(t->s, &t->v, x);
        if (isnan(loss)) ck_abort_msg("%s", svi_error(t->s));
        if (losses) losses[n] = loss;
    }
    return n;
}

/* Every loss of two epochs and an evaluation after them; returns a hash of a parameter's bits. The minibatches are the
 * same for every seed. */
static uint64_t fit(uint64_t seed, int threads, double losses[LOSSES])
{
    enum { WEIGHTS = 50 * 400 };
    static float weights[WEIGHTS];
    training t = training_begin(seed, threads);
    int n = 0;
    for (int epoch = 0; epoch < EPOCHS; epoch++) n += training_epoch(&t, losses + n);
    ad_tensor *x;
    ck_assert(loader_next(t.train, &x));
    losses[n] = svi_evaluate(t.s, &t.v, x);
    ck_assert_int_eq(n + 1, LOSSES);
    ck_assert_msg(ppl_param_value("encoder$$$fc21.weight", weights, WEIGHTS), "%s", ad_error());
    uint64_t sum = 0;
    for (int i = 0; i < WEIGHTS; i++) {
        uint32_t bits;
        memcpy(&bits, &weights[i], sizeof bits);
        sum = sum * 1099511628211u + bits;
    }
    training_end(&t);
    return sum;
}

START_TEST(threads_change_no_bit)
{
    static const int threads[] = { 2, 3, 8 };
    double one[LOSSES], other[LOSSES];
    uint64_t weights = fit(7, 1, one);
    for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
        uint64_t theirs = fit(7, threads[i], other);
        for (int k = 0; k < LOSSES; k++)
            ck_assert_msg(!memcmp(&one[k], &other[k], sizeof one[k]), "loss %d: %.17g with 1 thread, %.17g with %d", k,
                          one[k], other[k], threads[i]);
        ck_assert_msg(weights == theirs, "parameters differ between 1 thread and %d", threads[i]);
    }
}
END_TEST

START_TEST(seeds_matter)
{
    double one[LOSSES], again[LOSSES], other[LOSSES];
    fit(7, 2, one);
    fit(7, 2, again);
    fit(8, 2, other);
    for (int k = 0; k < LOSSES; k++) {
        ck_assert_msg(!memcmp(&one[k], &again[k], sizeof one[k]), "loss %d differs between equal runs", k);
        ck_assert_msg(one[k] != other[k], "loss %d is %.17g with either seed", k, one[k]);
    }
}
END_TEST

START_TEST(autoencoder_allocates_nothing)
{
    training t = training_begin(1, 2);
    training_epoch(&t, NULL);
    training_epoch(&t, NULL);
    look before = look_now();
    for (int i = 0; i < 3; i++) training_epoch(&t, NULL);
    check_same(before, look_now(), "3 epochs");
    training_end(&t);
}
END_TEST

Suite *suite_steady(void);
Suite *suite_steady(void)
{
    Suite *s = suite_create("steady");
    TCase *memory = tcase_create("memory"), *bits = tcase_create("bits");
    tcase_add_test(memory, malloc_is_counted);
    tcase_add_test(memory, resident_memory_does_not_grow);
    tcase_add_test(memory, regression_allocates_nothing);
    tcase_add_test(memory, autoencoder_allocates_nothing);
    tcase_add_test(bits, threads_change_no_bit);
    tcase_add_test(bits, seeds_matter);
    suite_add_tcase(s, memory);
    suite_add_tcase(s, bits);
    return s;
}
