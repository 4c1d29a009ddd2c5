/* What goes wrong on a device, by the CUDA backend's code: bad indices, values that are not finite, memory that ends in
 * the middle of training; and what is said where the device or its library cannot be had. On the emulated device, or on
 * the one that $TAPER_TEST_DEVICE names; test_gpu.c compares values. */
#include "tests/test.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "models/loader.h"
#include "models/vae.h"
#include "tests/emulated_device.h"
#include "tests/fake/fake_cuda.h"
#include "tests/judged.h"

/* ---- outcomes ---------------------------------------------------------------------------------------------------- */

START_TEST(a_bad_index_is_told)
{
    ad_context *c = open_context(judged(), AD_DOUBLE);
    ad_tensor *index = ad_from_data((int64_t[]){ 1, 9, -4 }, AD_FROM_INT64, AD_SHAPE(3));
    double y[3];
    ad_scope {
        ck_assert(!ad_read(ad_gather(ad_arange(5), 0, index), y, 3));
        ck_assert_msg(strstr(ad_error(), "index 9 is outside [0, 5)") != NULL, "%s", ad_error());
    }
    ad_free(index);
    ad_context_free(c);
}
END_TEST

START_TEST(what_is_not_finite_is_not_assigned)
{
    ad_context *c = open_context(judged(), AD_FLOAT);
    ad_tensor *a = ad_state(AD_SHAPE(3)), *b = ad_state(AD_SHAPE(3));
    double x[3];
    ad_scope {
        ad_assign(a, (ad_add)(a, ad_number(1)));
        ck_assert(ad_commit());
    }
    ad_scope {
        ad_assign(a, (ad_add)(a, ad_number(1)));
        ad_assign(b, (ad_log)((ad_sub)(ad_arange(3), ad_number(1))));
        ck_assert(!ad_commit());
        ck_assert_int_eq(ad_error_code(), AD_ERROR_NONFINITE);
    }
    ad_error_clear();
    ck_assert(ad_read(a, x, 3));
    for (int i = 0; i < 3; i++)
        ck_assert_double_eq(x[i], 1);
    ad_context_free(c);
}
END_TEST

/* ---- memory that ends -------------------------------------------------------------------------------------------- */

/* The k-th device allocation fails, for every k until none does: an error of memory, and nothing lost. */
START_TEST(every_device_allocation_may_fail)
{
    bool passed = !emulated(); /* a card is filled instead: see below */
    for (int k = 1; !passed && k < 64; k++) {
        char text[16];
        snprintf(text, sizeof text, "%d", k);
        setenv("TAPER_FAIL_DEVICE_ALLOCATION", text, 1);
        ad_context *c = open_context(judged(), AD_DOUBLE);
        double y[3] = { 0 };
        ad_tensor *x = ad_from_data((double[]){ 1, 2, 3 }, AD_FROM_DOUBLE, AD_SHAPE(3));
        if (ad_ok())
            ad_scope
                passed = ad_read((ad_square)(x), y, 3) && y[2] == 9;
        if (!passed) {
            ck_assert_int_eq(ad_error_code(), AD_ERROR_MEMORY);
            ck_assert_msg(strstr(ad_error(), " bytes") != NULL, "%s", ad_error());
            ad_error_clear(); /* the next one works in the same context */
            ad_free(x);
            x = ad_from_data((double[]){ 1, 2, 3 }, AD_FROM_DOUBLE, AD_SHAPE(3));
            ad_scope
                ck_assert_msg(ad_read((ad_square)(x), y, 3) && y[1] == 4, "%s", ad_error());
        }
        ck_assert(k > 1 || !passed);
        ad_free(x);
        ad_context_free(c);
    }
    unsetenv("TAPER_FAIL_DEVICE_ALLOCATION");
    ck_assert(passed);
}
END_TEST
#define MEMORY_ERROR()                                                                                                 \
    do {                                                                                                               \
        ck_assert_msg(ad_error_code() == AD_ERROR_MEMORY, "%s", ad_error());                                           \
        ck_assert_msg(strstr(ad_error(), " bytes") || strstr(ad_error(), "out of device memory"), "%s", ad_error());   \
        ad_error_clear();                                                                                              \
    } while (0)

/* Takes all memory that there is, in ever smaller states; returns how many. */
enum { MOST_STATES = 4096 };
static int fill(ad_tensor *state[MOST_STATES])
{
    int n = 0;
    for (int64_t elements = (int64_t)1 << 30; elements >= 1 << 12; elements /= 2) {
        for (; n < MOST_STATES && (state[n] = ad_state(AD_SHAPE(elements)), ad_ok()); n++)
            continue;
        MEMORY_ERROR();
    }
    return n;
}

/* A batch that does not fit, and a device without a byte left, in the middle of training: errors of memory, and what
 * fits goes on. A data set larger than the device is refused before it is read. */
START_TEST(a_full_device_is_told_and_training_goes_on)
{
    enum { BATCH = 6, PIXELS = 20, ROWS = 1 << 30 };
    static ad_tensor *state[MOST_STATES];
    static double pixels[BATCH * PIXELS];
    for (int i = 0; i < BATCH * PIXELS; i++)
        pixels[i] = i % 2;
    vae net = { .pixels = PIXELS, .hidden = 8, .z_dim = 3 };
    ad_context *c = open_context(judged(), AD_FLOAT);
    svi *s = svi_new(vae_model, vae_guide, .args = PPL_ARGS(vae *, ad_tensor *), .optim = optim_adam(.lr = 0.02));
    ad_tensor *x = ad_from(pixels, AD_SHAPE(BATCH, PIXELS));
    for (int turn = 0; turn < 2; turn++)
        ck_assert_msg(isfinite(svi_step(s, &net, x)), "%s", svi_error(s));
    ad_scope {
        ck_assert(isnan(ad_item(ad_reduce(AD_SUM, (ad_sin)(ad_arange((int64_t)1 << 40)), NULL, 0, false))));
        MEMORY_ERROR();
    }
    ck_assert_ptr_null(loader_new((const uint8_t *)pixels, ROWS, 1024, &(loader_options){ .batch_size = 8 }));
    MEMORY_ERROR();
    ck_assert_msg(isfinite(svi_step(s, &net, x)), "%s", svi_error(s));

    int filled = fill(state);
    ck_assert_int_gt(filled, 0);
    ck_assert_msg(isfinite(svi_step(s, &net, x)), "%s", svi_error(s)); /* it has what it needs */
    ad_tensor *large = ad_from_data(NULL, AD_FROM_FLOAT, AD_SHAPE(BATCH * 512, PIXELS));
    if (!ad_ok())
        ad_error_clear();
    else if (isnan(svi_step(s, &net, large)))
        ck_assert_msg(strstr(svi_error(s), "memory") != NULL, "%s", svi_error(s));
    ad_error_clear();
    for (int i = 0; i < filled; i++)
        ad_free(state[i]);
    ck_assert_msg(isfinite(svi_step(s, &net, x)), "%s", svi_error(s));
    svi_free(s);
    ad_context_free(c);
}
END_TEST

/* ---- devices and libraries that are not there -------------------------------------------------------------------- */

START_TEST(a_device_that_is_not_there_says_why)
{
    static const char *const devices[][2] = { { "abacus", "libtaper_abacus.so is not installed" },
                                              { "CUDA", "no device \"CUDA\"" },
                                              { "cuda:x", "device" },
                                              { "cuda:999", "" } };
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
        ad_context *c = ad_context_new(&(ad_options){ .device = devices[i][0] });
        ad_context_use(c);
        ck_assert_int_eq(ad_error_code(), AD_ERROR_DEVICE);
        ck_assert_msg(strstr(ad_error(), devices[i][1]) && strstr(ad_error(), "hint"), "%s", ad_error());
        ad_context_free(c);
    }
    ad_context *c = ad_context_new(&(ad_options){ .device = "auto" });
    ad_context_use(c);
    NO_ERROR();
    ad_context_free(c);
}
END_TEST

START_TEST(the_library_needs_no_cuda)
{
    char line[512];
    FILE *f = popen("ldd '" TAPER_LIBRARY "'", "r");
    ck_assert_ptr_nonnull(f);
    int lines = 0;
    for (; fgets(line, sizeof line, f); lines++)
        ck_assert_msg(!strstr(line, "cuda") && !strstr(line, "cublas") && !strstr(line, "nvrtc"), "%s", line);
    pclose(f);
    ck_assert_int_gt(lines, 0);
}
END_TEST

/* ---- what CUDA's calls say, over a runtime that fails as asked --------------------------------------------------- */

static fake_cuda *fake;
/* A context over that runtime; NULL, skipped, where it is not built. */
static ad_context *open_fake(void)
{
    static const char path[] = TAPER_BACKENDS "/fake/libtaper_cuda.so";
    if (access(path, R_OK)) {
        test_skip("no CUDA device over stubs: built without CUDA, or by tests/bare/build");
        return NULL;
    }
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    ck_assert_msg(module && (fake = dlsym(module, "fake__cuda")), "%s", dlerror());
    setenv("TAPER_BACKEND_PATH", TAPER_BACKENDS "/fake", 1);
    setenv("XDG_CACHE_HOME", TAPER_BACKENDS "/kernels", 1);
    ad_context *c = ad_context_new(&(ad_options){ .threads = 1, .device = "cuda" });
    ad_context_use(c);
    return c;
}
static void set_failure(const char *call, int from, int times, int status)
{
    *fake = (fake_cuda){ .fails = call, .from = from, .times = times, .status = status };
}

/* A product and an elementwise item: one of every call that a run makes. */
static bool compute(void)
{
    bool done = false;
    ad_tensor *x = ad_from_data(NULL, AD_FROM_DOUBLE, AD_SHAPE(2, 2)),
              *state = ad_ok() ? ad_state(AD_SHAPE(2, 2)) : NULL;
    if (ad_ok())
        ad_scope {
            ad_assign(state, (ad_exp)(ad_matmul(x, x)));
            done = ad_commit();
        }
    ad_free(x);
    ad_free(state);
    return done;
}

enum { OUT_OF_MEMORY = 2, ILLEGAL_ADDRESS = 700, BLAS_NO_MEMORY = 3, BLAS_NOT_READY = 1 };
static const struct {
    const char *call;
    int times, status;
    ad_error_kind kind; /* AD_ERROR_NONE: what was held back does */
    const char *words;
} failures[] = {
    { "cudaLaunchKernel", 1, OUT_OF_MEMORY, AD_ERROR_NONE, "" },
    { "cudaLaunchKernel", 2, OUT_OF_MEMORY, AD_ERROR_MEMORY, "out of device memory while launching" },
    { "cudaLaunchKernel", 1, ILLEGAL_ADDRESS, AD_ERROR_DEVICE, "cuda:0, Fake, 1.0 GiB, FP32: launching: a fake error" },
    { "cublasGemmEx_64", 1, BLAS_NO_MEMORY, AD_ERROR_NONE, "" },
    { "cublasGemmEx_64", 2, BLAS_NO_MEMORY, AD_ERROR_MEMORY, "out of device memory while multiplying matrices" },
    { "cublasGemmEx_64", 1, BLAS_NOT_READY, AD_ERROR_DEVICE, "multiplying matrices: a fake status" },
    { "cudaStreamSynchronize", 1, ILLEGAL_ADDRESS, AD_ERROR_DEVICE, "running: a fake error" },
    { "cudaMalloc", 1, OUT_OF_MEMORY, AD_ERROR_MEMORY, "bytes asked, 0 free of" },
    { "cudaLibraryLoadData", 1, OUT_OF_MEMORY, AD_ERROR_MEMORY, "out of device memory while loading kernels" },
};
START_TEST(a_failing_call_is_told_for_what_it_is)
{
    ad_context *c = open_fake();
    if (!c)
        return;
    ck_assert_msg(ad_ok(), "%s", ad_error());
    set_failure(failures[_i].call, 1, failures[_i].times, failures[_i].status);
    ck_assert_int_eq(compute(), failures[_i].kind == AD_ERROR_NONE);
    ck_assert_msg(ad_error_code() == failures[_i].kind && strstr(ad_error(), failures[_i].words), "%s: '%s'",
                  failures[_i].call, ad_error());
    set_failure(NULL, 0, 0, 0);
    ad_error_clear();
    ck_assert_msg(compute(), "%s", ad_error());
    ad_context_free(c);
}
END_TEST

/* A lost device: each call in turn, of opening and of a run, is one error of the device, told once and whole. */
START_TEST(every_call_may_fail)
{
    ad_context *c = open_fake();
    if (!c)
        return;
    ad_context_free(c);
    bool reached = true;
    for (int k = 1; reached; k++) {
        set_failure("", k, 1, 999);
        c = open_fake();
        bool done = ad_ok() && compute();
        reached = fake->count >= k;
        ck_assert_msg(done || (ad_error_code() == AD_ERROR_DEVICE && strstr(ad_error(), "a fake ")), "%d: %s", k,
                      ad_error());
        ck_assert_msg(!strstr(ad_error(), "compiling"), "%d: %s", k, ad_error()); /* it compiles as it always does */
        set_failure(NULL, 0, 0, 0);
        ad_context_free(c);
    }
}
END_TEST

/* cuBLAS without memory says that it is not initialised. */
START_TEST(opening_on_a_full_device_is_an_error_of_memory)
{
    ad_context *c = open_fake();
    for (int full = 0; c && full < 2; full++) {
        ad_context_free(c);
        set_failure("cublasCreate_v2", 1, 1, BLAS_NOT_READY);
        fake->free_bytes = full ? 1 << 20 : 1 << 30;
        c = open_fake();
        ck_assert_msg(ad_error_code() == (full ? AD_ERROR_MEMORY : AD_ERROR_DEVICE), "%s", ad_error());
        ck_assert_msg(strstr(ad_error(), "opening cuBLAS") != NULL, "%s", ad_error());
    }
    ad_context_free(c);
}
END_TEST

/* Borrowed memory is read where it lies only where kernels can: on this device, aligned. */
START_TEST(memory_that_kernels_cannot_read_is_copied)
{
    ad_context *c = open_fake();
    if (!c)
        return;
    static _Alignas(8) char memory[32];
    int copies[3];
    for (int k = 0; k < 3; k++) { /* as it should be, of another device, not aligned */
        ad_tensor *mine = ad_borrow(memory + (k == 2 ? 4 : 0), AD_SHAPE(4)), *state = ad_state(AD_SHAPE(4));
        fake->pointers_of = k == 1;
        for (int turn = 0; turn < 2; turn++)
            ad_scope {
                ad_assign(state, (ad_exp)(mine));
                fake->copies = 0;
                ck_assert_msg(ad_commit(), "%s", ad_error());
            }
        copies[k] = fake->copies;
        ad_free(mine);
        ad_free(state);
    }
    ck_assert_int_eq(copies[0], 1); /* the bind */
    ck_assert_int_eq(copies[1], 2);
    ck_assert_int_eq(copies[2], 2);
    ad_context_free(c);
}
END_TEST

/* Cases have names of their own so that gpu_check runs them apart: the probe shows whether a tool can look at a run. */
Suite *suite_card(void)
{
    emulated_cache_begin();
    Suite *s = suite_create("card");
    TCase *t = tcase_create("card");
    tcase_add_test(t, a_bad_index_is_told);
    tcase_add_test(t, what_is_not_finite_is_not_assigned);
    tcase_add_test(t, every_device_allocation_may_fail);
    tcase_add_test(t, a_device_that_is_not_there_says_why);
    tcase_add_test(t, the_library_needs_no_cuda);
    suite_add_tcase(s, t);
    t = tcase_create("card_calls");
    tcase_add_loop_test(t, a_failing_call_is_told_for_what_it_is, 0, sizeof failures / sizeof *failures);
    tcase_add_test(t, every_call_may_fail);
    tcase_add_test(t, opening_on_a_full_device_is_an_error_of_memory);
    tcase_add_test(t, memory_that_kernels_cannot_read_is_copied);
    suite_add_tcase(s, t);
    t = tcase_create("card_memory");
    tcase_add_test(t, a_full_device_is_told_and_training_goes_on);
    suite_add_tcase(s, t);
    t = tcase_create("card_probe");
    tcase_add_test(t, a_bad_index_is_told);
    suite_add_tcase(s, t);
    return s;
}
