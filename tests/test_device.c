/* What the CUDA backend asks of its device, as the emulated one notes it (emulated_device.h): how the bind is laid
 * out, which steps run, which memory they use, what crosses the bus; and how backends are found. test_gpu.c judges
 * values. */
#include "tests/test.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "autodiff/backend.h"
#include "autodiff/plan/plan.h"
#include "models/loader.h"
#include "models/vae.h"
#include "tests/emulated_device.h"

#define GPU_WORDS_ONLY
#include "gpu/kernels.h"
#undef GPU_WORDS_ONLY

static emulated_record *noted;
static ad_context *context;

static void setup(void)
{
    void *module = dlopen(TAPER_BACKENDS "/libtaper_emulated.so", RTLD_NOW | RTLD_LOCAL);
    ck_assert_msg(module && (noted = dlsym(module, "emulated__record")), "%s", dlerror());
    setenv("TAPER_BACKEND_PATH", TAPER_BACKENDS, 1);
    context = ad_context_new(&(ad_options){ .device = "emulated" });
    ad_context_use(context);
    ck_assert_msg(ad_ok(), "%s", ad_error());
    ppl_seed(7);
}
static void teardown(void)
{
    ad_context_free(context);
    ck_assert_int_eq(noted->n_memory, 0); /* all that was allocated has been freed */
}

#define NO_ERROR() ck_assert_msg(ad_ok(), "%s", ad_error())

/* The allocation that bytes lie in, or -1. */
static int memory_of(const void *at, size_t bytes)
{
    for (int i = 0; i < noted->n_memory; i++)
        if ((const char *)at >= noted->memory[i].at &&
            (const char *)at + bytes <= noted->memory[i].at + noted->memory[i].bytes)
            return i;
    return -1;
}
static int64_t bytes_held(void)
{
    int64_t sum = 0;
    for (int i = 0; i < noted->n_memory; i++)
        sum += (int64_t)noted->memory[i].bytes;
    return sum;
}

/* Which step of the last run is of a kernel that begins so, from `from` on; -1 for none. */
static int step_of(const char *kernel, int from)
{
    for (int i = from; i < noted->n_steps; i++)
        if (!strncmp(noted->step[i].kernel, kernel, strlen(kernel)))
            return i;
    return -1;
}

/* ---- the bind and the steps -------------------------------------------------------------------------------------- */

enum { N = 1000 };

/* state += scale (x[index] + normals) shift; what the steps look at comes of one run. */
static void update(ad_tensor *state, ad_tensor *x, ad_tensor *index, double scale)
{
    ad_scope {
        ad_tensor *z = ad_random_normal(AD_SHAPE(N), 0), *rows = ad_gather(x, 0, index);
        ad_assign(state, ad_add(state, ad_mul(ad_number(scale), ad_add(rows, z))));
        noted->n_steps = 0;
        const tape *t = context->tape;
        ck_assert_msg(ad_commit(), "%s", ad_error());
        const int64_t *bind = noted->step[0].bind;
        ck_assert_uint_eq((uint64_t)bind[BIND_KEY], t->key);
        ck_assert_int_eq(bind[BIND_RUN], t->run);
        ck_assert_int_eq(bind[BIND_BAD_NODE], -1);
        ck_assert_int_eq(bind[BIND_NONFINITE], 0);
        ck_assert_mem_eq(bind + BIND_NUMBERS, &scale, sizeof scale);
    }
}

START_TEST(bind_and_steps_of_an_update)
{
    static int64_t whole[N];
    for (int i = 0; i < N; i++)
        whole[i] = (i * 7) % N;
    ad_tensor *state = ad_state(AD_SHAPE(N)), *x = ad_from_data(NULL, AD_FROM_FLOAT, AD_SHAPE(N));
    ad_tensor *index = ad_from(whole, AD_SHAPE(N));
    for (int turn = 0; turn < 3; turn++) {
        int64_t compiled = noted->compiled, held = bytes_held();
        update(state, x, index, 2.5 + turn);
        if (turn) { /* the same program: nothing is compiled or allocated again */
            ck_assert_int_eq(noted->compiled, compiled);
            ck_assert_int_eq(bytes_held(), held);
        }
        int guard = step_of("guard", 0), checked = step_of("check_index", 0), gather = step_of("gather", 0);
        ck_assert_int_eq(step_of("store_numbers", 0), 0);
        ck_assert(step_of("random_normal", 0) > 0 && checked > 0 && gather == checked + 1);
        ck_assert(guard > gather && step_of("item_", 0) > gather);
        const int64_t *bind = noted->step[0].bind, *numbers = bind + BIND_NUMBERS;
        int64_t next = BIND_NUMBERS + noted->step[0].words[STEP_SIZES]; /* behind the numbers, step after step */
        ck_assert(memory_of(numbers, sizeof *numbers) >= 0);
        bool effects = false;
        for (int i = 0; i < noted->n_steps; i++) {
            const emulated_step *s = &noted->step[i];
            ck_assert_ptr_eq(s->bind, bind);
            ck_assert_int_eq(s->words[STEP_ADDRESSES], next);
            ck_assert_int_eq(s->words[STEP_GATED], i > guard); /* effects wait for the guard, and nothing else does */
            effects |= i > guard;
            int64_t end = i + 1 < noted->n_steps ? noted->step[i + 1].words[STEP_ADDRESSES] : next + 1;
            for (; next < end; next++) {
                const void *at = (const void *)(intptr_t)bind[next];
                ck_assert_msg(!at || memory_of(at, 4) >= 0, "step %d, %s: %p is not the device's", i, s->kernel, at);
                ck_assert_uint_eq((uintptr_t)at % 8, 0);
            }
        }
        ck_assert(effects);
    }
    ad_free(state);
    ad_free(x);
    ad_free(index);
}
END_TEST

/* A program's memory: with the pass on, values that do not live at once share bytes. */
static int64_t block_of_a_chain(bool reuse)
{
    context->passes = reuse ? ad__passes_wanted() : ad__passes_wanted() & ~(uint32_t)PASS_REUSE;
    int64_t before = bytes_held();
    ad_scope {
        ad_tensor *x = ad_arange(N + reuse); /* two plans */
        for (int i = 0; i < 10; i++)
            x = ad_cumsum(x, 0, i % 2);
        node_id root = ad__node(context, x, "a sum");
        ck_assert(ad__run(context, &(run_request){ .roots = &root, .n_roots = 1, .final = true }, NULL));
    }
    return bytes_held() - before;
}
START_TEST(values_share_memory)
{
    enum { VALUE = N * (int)sizeof(float) };
    int64_t shared = block_of_a_chain(true), apart = block_of_a_chain(false);
    ck_assert_msg(shared < 4 * VALUE, "%lld bytes", (long long)shared);
    ck_assert_msg(apart > 4 * VALUE, "%lld bytes", (long long)apart);
}
END_TEST

/* ---- training ---------------------------------------------------------------------------------------------------- */

enum { ROWS = 22, BATCH = 8, WIDE = 60 };

/* An epoch; what was noted is its own. */
static void epoch(svi *s, vae *v, loader *l)
{
    ad_tensor *x;
    noted->sent = noted->fetched = noted->sends = noted->fetches = noted->compiled = noted->n_steps = 0;
    while (loader_next(l, &x))
        ck_assert_msg(isfinite(svi_step(s, v, x)), "%s", svi_error(s));
    NO_ERROR();
}

/* What crosses the bus in an epoch does not depend on how many pixels there are. */
START_TEST(no_pixel_crosses_the_bus_after_the_start)
{
    static uint8_t rows[ROWS * WIDE];
    for (int i = 0; i < ROWS * WIDE; i++)
        rows[i] = (uint8_t)(i * 37);
    int64_t sent[2], fetched[2];
    for (int k = 0; k < 2; k++) {
        vae v = { .pixels = k ? WIDE : 3, .hidden = 4, .z_dim = 2 };
        int64_t before = noted->sent;
        loader *l = loader_new(rows, ROWS, v.pixels, &(loader_options){ .batch_size = BATCH, .seed = 1 });
        ck_assert_int_ge(noted->sent - before, ROWS * v.pixels);
        svi *s = svi_new(vae_model, vae_guide, .args = PPL_ARGS(vae *, ad_tensor *), .optim = optim_adam(.lr = 1e-3));
        epoch(s, &v, l);
        ck_assert_int_gt(noted->compiled, 0);
        epoch(s, &v, l);
        ck_assert_int_eq(noted->compiled, 0);
        ck_assert_int_eq(noted->sends, 1 + 2 * loader_batches(l)); /* the order, a bind for each minibatch and step */
        sent[k] = noted->sent;
        fetched[k] = noted->fetched;
        svi_free(s);
        loader_free(l);
        teardown();
        setup();
    }
    ck_assert_int_eq(sent[0], sent[1]);
    ck_assert_int_eq(fetched[0], fetched[1]);
}
END_TEST

/* The k-th device allocation fails, for every k until none does: an error of memory, and the next loader works. */
START_TEST(a_loader_without_memory_is_refused)
{
    static uint8_t rows[ROWS];
    int failures = 0;
    for (int k = 1, good = 0; !good && k < 64; k++) {
        char text[16];
        snprintf(text, sizeof text, "%d", k);
        setenv("TAPER_FAIL_DEVICE_ALLOCATION", text, 1);
        teardown();
        setup();
        unsetenv("TAPER_FAIL_DEVICE_ALLOCATION");
        for (int turn = 0; turn < 2; turn++) {
            ad_tensor *x;
            loader *l = loader_new(rows, ROWS, 1, &(loader_options){ .batch_size = BATCH });
            bool worked = true;
            for (int i = 0; worked && i < (ROWS + BATCH - 1) / BATCH; i++)
                worked = l && loader_next(l, &x);
            ck_assert_msg(worked || (!turn && ad_error_code() == AD_ERROR_MEMORY), "%s", ad_error());
            failures += !worked;
            good = !turn && worked;
            loader_free(l);
            ad_error_clear();
            if (good)
                break;
        }
    }
    ck_assert_int_gt(failures, 4);
}
END_TEST

/* The last minibatch is smaller: another plan, the same kernels. */
START_TEST(a_smaller_minibatch_compiles_nothing)
{
    vae v = { .pixels = 5, .hidden = 4, .z_dim = 2 };
    ad_tensor *x = ad_from_data(NULL, AD_FROM_FLOAT, AD_SHAPE(BATCH, 5));
    ad_tensor *rest = ad_from_data(NULL, AD_FROM_FLOAT, AD_SHAPE(BATCH - 2, 5));
    svi *s = svi_new(vae_model, vae_guide, .args = PPL_ARGS(vae *, ad_tensor *), .optim = optim_adam(.lr = 1e-3));
    double loss[4];
    for (int i = 0; i < 2; i++)
        loss[i] = svi_step(s, &v, x);
    int64_t compiled = noted->compiled;
    for (int i = 2; i < 4; i++)
        loss[i] = svi_step(s, &v, rest);
    for (int i = 0; i < 4; i++)
        ck_assert_msg(isfinite(loss[i]), "%s", svi_error(s));
    ck_assert_int_eq(noted->compiled, compiled);
    svi_free(s);
    ad_free(x);
    ad_free(rest);
}
END_TEST

/* ---- finding backends -------------------------------------------------------------------------------------------- */

START_TEST(backends_are_opened_by_name)
{
    static const char *const refused[][2] = { { "abacus", "libtaper_abacus.so is not installed" },
                                              { "CUDA", "\"CUDA\" is no name of a backend" },
                                              { "cuda:1", "no name" },
                                              { "../emulated", "no name" },
                                              { "", "no name" } };
    const char *why = NULL;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        ck_assert_ptr_null(ad_backend_open(refused[i][0], &why));
        ck_assert_msg(strstr(why, refused[i][1]) != NULL, "'%s' is not in '%s'", refused[i][1], why);
    }
    ck_assert_ptr_null(ad_backend_open(NULL, NULL));
    NO_ERROR();
    ck_assert_ptr_eq(ad_backend_open("cpu", &why), &ad__cpu_backend);
    ck_assert_str_eq(why, "");
    ck_assert_ptr_eq(ad_backend_open("emulated", NULL), context->backend);
    ck_assert_str_eq(ad_backend_open("emulated", &why)->name, "emulated");
}
END_TEST

START_TEST(a_file_that_is_no_backend_is_told)
{
    char folder[] = "/tmp/taper_backend_XXXXXX", path[64];
    const char *why;
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/libtaper_broken.so", folder);
    FILE *f = fopen(path, "w");
    ck_assert(f && fputs("no object", f) >= 0 && !fclose(f));
    setenv("TAPER_BACKEND_PATH", folder, 1);
    ck_assert_ptr_null(ad_backend_open("broken", &why));
    ck_assert_msg(strstr(why, path) != NULL, "%s", why);
    ad_context *c = ad_context_new(&(ad_options){ .device = "broken" });
    ad_context_use(c);
    ck_assert_int_eq(ad_error_code(), AD_ERROR_DEVICE);
    ck_assert_msg(strstr(ad_error(), path) && strstr(ad_error(), "device \"broken\" cannot be used"), "%s", ad_error());
    ad_context_free(c);
    ad_context_use(context);
    remove(path);
    rmdir(folder);
}
END_TEST

Suite *suite_device(void)
{
    emulated_cache_begin();
    Suite *s = suite_create("device");
    TCase *t = tcase_create("device");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, bind_and_steps_of_an_update);
    tcase_add_test(t, values_share_memory);
    tcase_add_test(t, no_pixel_crosses_the_bus_after_the_start);
    tcase_add_test(t, a_loader_without_memory_is_refused);
    tcase_add_test(t, a_smaller_minibatch_compiles_nothing);
    tcase_add_test(t, backends_are_opened_by_name);
    tcase_add_test(t, a_file_that_is_no_backend_is_told);
    suite_add_tcase(s, t);
    return s;
}
