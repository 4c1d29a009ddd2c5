/* Layers, the variational autoencoder, and the loader that feeds it. */
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "models/loader.h"
#include "models/nn.h"
#include "models/vae.h"

static ad_context *context;
static void setup(void)
{
    context = ad_context_new(&(ad_options){ .precision = AD_DOUBLE, .threads = 1 });
    ck_assert_ptr_nonnull(context);
    ad_context_use(context);
    ppl_seed(3);
}
static void teardown(void) { ad_context_free(context); }

#define NO_ERROR() ck_assert_msg(ad_ok(), "%s", ad_error())
#define ERROR_SAYS(words) ck_assert_msg(strstr(ad_error(), words) != NULL, "'%s' is not in '%s'", words, ad_error())
#define NEAR(a, b, tolerance) ck_assert_double_eq_tol(a, b, tolerance)

/* ---- layers ------------------------------------------------------------------------------------------------------ */

enum { B = 3, D = 16, H = 200 };

START_TEST(linear_is_pytorchs)
{
    static double w[H * D], b[H], x[B * D], y[B * H];
    double sum = 0, squares = 0, most = 0, bound = 1 / sqrt(D);
    for (int i = 0; i < B * D; i++) x[i] = sin(i);
    ad_tensor *input = ad_from(x, AD_SHAPE(B, D));
    ad_scope {
        ad_tensor *out = NULL;
        ppl_module ("encoder") out = nn_linear("fc1", input, H);
        ck_assert(ad_read(out, y, B * H));
        NO_ERROR();
    }
    ck_assert(ppl_param_value("encoder$$$fc1.weight", w, H * D) && ppl_param_value("encoder$$$fc1.bias", b, H));
    ck_assert_int_eq(ppl_param_shape("encoder$$$fc1.weight").dim[0], H);
    for (int i = 0; i < B; i++)
        for (int j = 0; j < H; j++) {
            double want = b[j];
            for (int k = 0; k < D; k++) want += x[i * D + k] * w[j * D + k];
            NEAR(y[i * H + j], want, 1e-13);
        }
    for (int i = 0; i < H * D; i++) { /* uniform in (-bound, bound): mean 0, variance bound^2 / 3 */
        most = fmax(most, fabs(w[i]));
        sum += w[i];
        squares += w[i] * w[i];
    }
    ck_assert(most < bound && most > 0.99 * bound);
    NEAR(sum / (H * D), 0, 4 * bound / sqrt(3.0 * H * D));
    NEAR(squares / (H * D), bound * bound / 3, bound * bound / 3 * 0.07);
    for (int i = 0; i < H; i++) ck_assert(fabs(b[i]) < bound);
    ad_free(input);
}
END_TEST

START_TEST(layers_compose_and_refuse)
{
    double x[B * D] = { 0.5 };
    ad_tensor *input = ad_from(x, AD_SHAPE(B, D));
    ad_scope {
        ad_tensor *y = nn_mlp("net", input, ad_softplus, 7, 5, 2);
        ck_assert_int_eq(ad_dim(y, 0), B);
        ck_assert_int_eq(ad_dim(y, 1), 2);
        ad_tensor *plain = nn_linear_unbiased("plain", input, 4);
        ck_assert_int_eq(ad_dim(plain, 1), 4);
        NO_ERROR();
    }
    ck_assert(ppl_param_exists("net.0.weight") && ppl_param_exists("net.2.bias") && !ppl_param_exists("net.3.weight"));
    ck_assert(ppl_param_exists("plain.weight") && !ppl_param_exists("plain.bias"));
    ck_assert_int_eq(ppl_param_shape("net.1.weight").dim[0], 5);
    ck_assert_int_eq(ppl_param_shape("net.1.weight").dim[1], 7);
    ad_scope {
        nn_linear("scalar", ad_number(1), 3);
        ERROR_SAYS("layer \"scalar\": x has shape ()");
        ERROR_SAYS("test_nets.c");
    }
    ad_scope {
        char name[400];
        memset(name, 'n', sizeof name - 1);
        name[sizeof name - 1] = 0;
        ck_assert(ad_is_nil(nn_linear(name, input, 3)));
        ERROR_SAYS("the name of a layer is longer than");
    }
    ad_scope {
        nn_linear("net.0", ad_zeros(2, 3), 7);
        ck_assert_msg(!ad_ok(), "another width for a known layer");
    }
    ad_free(input);
}
END_TEST

/* ---- the autoencoder --------------------------------------------------------------------------------------------- */

enum { PIXELS = 6, HIDDEN = 4, Z = 2 };

/* y (n, o) = x (n, i) W^T + b by the parameters of a name */
static void by_hand(const char *name, const double *x, int n, int in, int out, double *y)
{
    double w[64], b[16];
    char full[64];
    ck_assert(snprintf(full, sizeof full, "%s.weight", name) > 0 && ppl_param_value(full, w, out * in));
    ck_assert(snprintf(full, sizeof full, "%s.bias", name) > 0 && ppl_param_value(full, b, out));
    for (int i = 0; i < n; i++)
        for (int j = 0; j < out; j++) {
            y[i * out + j] = b[j];
            for (int k = 0; k < in; k++) y[i * out + j] += x[i * in + k] * w[j * in + k];
        }
}
static double normal_at(double x, double loc, double scale)
{
    return -0.5 * (x - loc) * (x - loc) / (scale * scale) - log(scale) - 0.91893853320467274178;
}

/* Both densities of one draw, computed from the parameters with the formulas of vae.h. */
START_TEST(autoencoder_has_its_densities)
{
    vae v = { PIXELS, HIDDEN, Z };
    double x[B * PIXELS], z[B * Z], h[B * HIDDEN], loc[B * Z], log_scale[B * Z], logit[B * PIXELS];
    double log_q = NAN, log_p = NAN, want_q = 0, want_p = 0;
    for (int i = 0; i < B * PIXELS; i++) x[i] = 0.5 + 0.5 * sin(3 * i);
    ad_tensor *input = ad_from(x, AD_SHAPE(B, PIXELS));
    ad_scope {
        ppl_trace *guide = ppl_trace_run(vae_guide, PPL_ARGS(vae *, ad_tensor *), &v, input), *model = ppl_trace_new();
        ck_assert(ad_read(ppl_trace_value(guide, "latent"), z, B * Z));
        ppl_with (ppl_record(model)) ppl_with (ppl_replay(guide)) vae_model(&v, input);
        log_q = ad_item(ppl_trace_log_prob_sum(guide));
        log_p = ad_item(ppl_trace_log_prob_sum(model));
        NO_ERROR();
    }
    by_hand("encoder$$$fc1", x, B, PIXELS, HIDDEN, h);
    for (int i = 0; i < B * HIDDEN; i++) h[i] = log1p(exp(h[i]));
    by_hand("encoder$$$fc21", h, B, HIDDEN, Z, loc);
    by_hand("encoder$$$fc22", h, B, HIDDEN, Z, log_scale);
    for (int i = 0; i < B * Z; i++) {
        want_q += normal_at(z[i], loc[i], exp(log_scale[i]));
        want_p += normal_at(z[i], 0, 1);
    }
    by_hand("decoder$$$fc1", z, B, Z, HIDDEN, h);
    for (int i = 0; i < B * HIDDEN; i++) h[i] = log1p(exp(h[i]));
    by_hand("decoder$$$fc21", h, B, HIDDEN, PIXELS, logit);
    for (int i = 0; i < B * PIXELS; i++) {
        double p = 1 / (1 + exp(-logit[i]));
        want_p += x[i] * log(p) + (1 - x[i]) * log(1 - p);
    }
    NEAR(log_q, want_q, 1e-12);
    NEAR(log_p, want_p, 1e-12);
    ck_assert_int_eq(ppl_param_count(), 10);
    ad_free(input);
}
END_TEST

START_TEST(autoencoder_learns)
{
    vae v = { PIXELS, HIDDEN, Z };
    uint8_t rows[64 * PIXELS];
    for (int i = 0; i < 64 * PIXELS; i++) rows[i] = (i / PIXELS + i % PIXELS) % 2 ? 255 : 0; /* two kinds of rows */
    loader *l = loader_new(rows, 64, PIXELS, &(loader_options){ .batch_size = 24 });
    svi *s = svi_new(vae_model, vae_guide, .args = PPL_ARGS(vae *, ad_tensor *), .optim = optim_adam(.lr = 0.02));
    double first = 0, last = 0;
    ad_tensor *x;
    for (int epoch = 0; epoch < 150; epoch++) {
        last = 0;
        while (loader_next(l, &x)) last += svi_step(s, &v, x) / 64;
        ck_assert_msg(!isnan(last), "%s", svi_error(s));
        if (epoch == 0) first = last;
    }
    ck_assert_msg(first > 4 && last < 1.5, "from %g to %g", first, last); /* the best possible is log 2 */
    svi_free(s);
    loader_free(l);
}
END_TEST

/* ---- the loader -------------------------------------------------------------------------------------------------- */

enum { ROWS = 23, WIDTH = 3, BATCH = 8 };

/* Reads an epoch: rows in the order of their coming; checks sizes and values. */
static void epoch_of(loader *l, const uint8_t *rows, int64_t *order)
{
    ad_tensor *x;
    int64_t n = 0, batches = 0;
    while (loader_next(l, &x)) {
        int64_t size = ROWS - n < BATCH ? ROWS - n : BATCH;
        double got[BATCH * WIDTH];
        ck_assert_int_eq(ad_dim(x, 0), size);
        ck_assert_int_eq(ad_dim(x, 1), WIDTH);
        ad_scope ck_assert(ad_read(x, got, size * WIDTH));
        for (int64_t i = 0; i < size; i++) {
            order[n + i] = loader_row(l, i);
            for (int k = 0; k < WIDTH; k++)
                ck_assert_double_eq(got[i * WIDTH + k], rows[order[n + i] * WIDTH + k] / 255.0);
        }
        ck_assert_int_eq(loader_row(l, size), -1);
        n += size;
        batches++;
    }
    ck_assert_int_eq(n, ROWS);
    ck_assert_int_eq(batches, loader_batches(l));
    ck_assert(ad_is_nil(x));
    bool seen[ROWS] = { false };
    for (int i = 0; i < ROWS; i++) {
        ck_assert(order[i] >= 0 && order[i] < ROWS && !seen[order[i]]);
        seen[order[i]] = true;
    }
}

START_TEST(loader_shuffles_every_epoch)
{
    uint8_t rows[ROWS * WIDTH];
    int64_t a[3][ROWS], b[3][ROWS], other[ROWS], straight[ROWS];
    for (int i = 0; i < ROWS * WIDTH; i++) rows[i] = (uint8_t)(11 * i);
    loader *l = loader_new(rows, ROWS, WIDTH, &(loader_options){ .batch_size = BATCH, .seed = 5 });
    loader *same = loader_new(rows, ROWS, WIDTH, &(loader_options){ .batch_size = BATCH, .seed = 5 });
    loader *different = loader_new(rows, ROWS, WIDTH, &(loader_options){ .batch_size = BATCH, .seed = 6 });
    loader *plain = loader_new(rows, ROWS, WIDTH, &(loader_options){ .batch_size = BATCH, .in_order = true });
    for (int i = 0; i < 3; i++) {
        epoch_of(l, rows, a[i]);
        epoch_of(same, rows, b[i]);
    }
    epoch_of(different, rows, other);
    epoch_of(plain, rows, straight);
    ck_assert_mem_eq(a, b, sizeof a);
    ck_assert_mem_ne(a[0], a[1], sizeof a[0]);
    ck_assert_mem_ne(a[1], a[2], sizeof a[0]);
    ck_assert_mem_ne(a[0], other, sizeof other);
    for (int i = 0; i < ROWS; i++) ck_assert_int_eq(straight[i], i);

    uint64_t before = ad_count().allocations;
    ad_tensor *x;
    for (int i = 0; i < 50; i++)
        while (loader_next(l, &x)) ck_assert(!ad_is_nil(x));
    ck_assert_uint_eq(ad_count().allocations, before);
    loader *all[] = { l, same, different, plain, NULL };
    for (int i = 0; i < 5; i++) loader_free(all[i]);
}
END_TEST

/* In float every byte is the float nearest to b / 255. */
START_TEST(bytes_divide_as_floats)
{
    uint8_t rows[256];
    float got[256];
    teardown();
    context = ad_context_new(&(ad_options){ .threads = 1 });
    ad_context_use(context);
    for (int i = 0; i < 256; i++) rows[i] = (uint8_t)i;
    loader *l = loader_new(rows, 1, 256, NULL);
    ad_tensor *x;
    ck_assert(loader_next(l, &x));
    ad_scope ck_assert(ad_read(x, got, 256));
    for (int i = 0; i < 256; i++) ck_assert_float_eq(got[i], (float)i / 255.0f);
    ck_assert_int_eq(loader_batches(l), 1);
    loader_free(l);
    ck_assert_ptr_null(loader_new(rows, 0, 4, NULL));
    ERROR_SAYS("loader_new: 0 rows of 4 bytes");
    ck_assert(!loader_next(NULL, &x) && ad_is_nil(x));
}
END_TEST

Suite *suite_nets(void)
{
    Suite *suite = suite_create("nets");
    TCase *t = tcase_create("nets");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, linear_is_pytorchs);
    tcase_add_test(t, layers_compose_and_refuse);
    tcase_add_test(t, autoencoder_has_its_densities);
    tcase_add_test(t, autoencoder_learns);
    tcase_add_test(t, loader_shuffles_every_epoch);
    tcase_add_test(t, bytes_divide_as_floats);
    suite_add_tcase(suite, t);
    return suite;
}
