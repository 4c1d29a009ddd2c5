/* What goes wrong on a device, by the CUDA backend's code: bad indices, values that are not finite, memory that ends in
 * the middle of training; and what is said where the device or its library cannot be had. On the emulated device, or on
 * the one that $TAPER_TEST_DEVICE names; test_gpu.c compares values. */
#include "tests/test.h"

#include <math.h>
#include <stdio.h>

#include "models/loader.h"
#include "models/vae.h"
#include "tests/emulated_device.h"
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
    ad_tensor *large = ad_full_shape(AD_SHAPE(BATCH * 512, PIXELS), 1);
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
    t = tcase_create("card_memory");
    tcase_add_test(t, a_full_device_is_told_and_training_goes_on);
    suite_add_tcase(s, t);
    t = tcase_create("card_probe");
    tcase_add_test(t, a_bad_index_is_told);
    suite_add_tcase(s, t);
    return s;
}
