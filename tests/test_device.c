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

/* A step of a VAE, and what it takes: one launch for each thing that is done, one upload, one wait. The loss comes with
 * the outcome. */
START_TEST(a_step_launches_uploads_and_waits_no_more_than_it_must)
{
    enum { PRODUCTS = 14, KERNELS = 28 };
    vae v = { .pixels = 5, .hidden = 4, .z_dim = 2 };
    ad_tensor *x = ad_from_data(NULL, AD_FROM_FLOAT, AD_SHAPE(BATCH, 5));
    svi *s = svi_new(vae_model, vae_guide, .args = PPL_ARGS(vae *, ad_tensor *), .optim = optim_adam(.lr = 1e-3));
    for (int turn = 0; turn < 4; turn++) {
        noted->sends = noted->fetches = noted->waits = noted->n_steps = 0;
        double loss = svi_step(s, &v, x);
        ck_assert_msg(isfinite(loss), "%s", svi_error(s));
        if (turn < 2)
            continue;
        int products = 0;
        for (int i = 0; i < noted->n_steps; i++)
            products += !noted->step[i].kernel[0];
        ck_assert_int_eq(products, PRODUCTS);
        ck_assert_int_le(noted->n_steps - products, KERNELS);
        ck_assert_int_eq(step_of("assign", 0), -1); /* all values were computed where the states are */
        ck_assert_int_eq(noted->sends, 1);
        ck_assert_int_eq(noted->waits, 1);
        ck_assert_int_eq(noted->fetches, 0);
    }
    svi_free(s);
    ad_free(x);
}
END_TEST

/* An assignment of what lies elsewhere, as another state or the state's old value, is a launch. */
START_TEST(an_assignment_from_elsewhere_copies)
{
    ad_tensor *a = ad_state(AD_SHAPE(3)), *b = ad_state(AD_SHAPE(3));
    double x[3];
    for (int turn = 0; turn < 2; turn++)
        ad_scope {
            ad_assign(a, ad_add(ad_arange(3), ad_number(turn)));
            ad_assign(b, turn ? a : ad_expand(ad_number(7), AD_SHAPE(3)));
            noted->n_steps = 0;
            ck_assert_msg(ad_commit(), "%s", ad_error());
            ck_assert(step_of("assign", 0) > 0);
        }
    ck_assert(ad_read(a, x, 3) && x[2] == 3);
    ck_assert(ad_read(b, x, 3) && x[2] == 2); /* a as it was before its assignment */
    ad_free(a);
    ad_free(b);
}
END_TEST

/* Totals come with the outcome as long as nothing else happened; read later, or after the memory was written anew, they
 * come from the device. More of them than the record holds are all right. */
START_TEST(totals_come_with_the_outcome)
{
    enum { TOTALS = RECORD_MOST_TOTALS + 3 };
    ad_scope {
        ad_tensor *total[TOTALS];
        node_id root[TOTALS];
        for (int i = 0; i < TOTALS; i++) {
            total[i] = ad_weighted_total((ad_tensor *[]){ ad_arange(3 + i) }, (double[]){ 0.1 }, 1);
            root[i] = ad__node(context, total[i], "a total");
        }
        ck_assert(ad__run(context, &(run_request){ .roots = root, .n_roots = TOTALS }, NULL));
        for (int turn = 0; turn < 2; turn++) {
            noted->fetches = 0;
            for (int i = 0; i < TOTALS; i++)
                ck_assert_double_eq_tol(ad_item(total[i]), 0.1 * (3 + i) * (2 + i) / 2, 1e-12);
            ck_assert_int_eq(noted->fetches, turn ? TOTALS : TOTALS - RECORD_MOST_TOTALS);
            ad_tensor *other = ad_square(total[0]); /* another run */
            ck_assert_double_eq_tol(ad_item(other), 0.09, 1e-7);
        }
        ad_tensor *state = ad_from_data(NULL, AD_FROM_FLOAT, AD_SHAPE(64));
        ad_free(state);
        ck_assert_double_eq_tol(ad_item(total[1]), 0.1 * 6, 1e-12);
    }
}
END_TEST

/* Grids: as many blocks as the processors can have at work, few for a guard, many for a column that was one thread's.
 */
START_TEST(grids_are_as_large_as_the_work)
{
    enum { MUCH = 1 << 18, DEEP = 256, WIDE_ROW = 100 };
    ad_tensor *state = ad_state(AD_SHAPE(MUCH));
    ad_scope {
        ad_assign(state, ad_add(state, ad_number(1)));
        noted->n_steps = 0;
        ck_assert_msg(ad_commit(), "%s", ad_error());
        const emulated_step *item = &noted->step[step_of("item_", 0)], *guard = &noted->step[step_of("guard", 0)];
        ck_assert_int_eq(item->grid.blocks, 8 * EMULATED_PROCESSORS);
        ck_assert_int_le(guard->grid.blocks, GPU_GUARD_BLOCKS);
    }
    ad_free(state);
    double sums[WIDE_ROW];
    ad_scope {
        ad_tensor *x = ad_reshape(ad_arange(DEEP * WIDE_ROW), AD_SHAPE(DEEP, WIDE_ROW));
        noted->n_steps = 0;
        ck_assert(ad_read(ad_reduce(AD_SUM, x, (int[]){ 0 }, 1, false), sums, WIDE_ROW));
        const emulated_step *columns = &noted->step[step_of("sum_columns", 0)];
        ck_assert_int_eq(columns->grid.blocks, (WIDE_ROW + 31) / 32);
        ck_assert_double_eq(sums[1], DEEP + (double)WIDE_ROW * DEEP * (DEEP - 1) / 2);
    }
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

/* The benchmarks' rates are set against what the CPU can do where the CPU did it. */
START_TEST(rates_of_a_device_are_not_set_against_the_cpus)
{
    for (int device = 0; device < 2; device++) {
        char command[1024], line[1024] = "";
        snprintf(command, sizeof command,
                 "TAPER_DEVICE=%s '%s/bench/bench' --repeat 1 --filter op/matmul_256x50x400_nn 2>/dev/null",
                 device ? "emulated" : "cpu", TAPER_BACKENDS);
        FILE *f = popen(command, "r");
        ck_assert(f && fgets(line, sizeof line, f) && !pclose(f));
        ck_assert_msg(strstr(line, "gflop_per_s") && (device == !strstr(line, "of_ceiling")), "%s", line);
    }
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
    tcase_add_test(t, a_step_launches_uploads_and_waits_no_more_than_it_must);
    tcase_add_test(t, an_assignment_from_elsewhere_copies);
    tcase_add_test(t, totals_come_with_the_outcome);
    tcase_add_test(t, grids_are_as_large_as_the_work);
    tcase_add_test(t, a_loader_without_memory_is_refused);
    tcase_add_test(t, a_smaller_minibatch_compiles_nothing);
    tcase_add_test(t, rates_of_a_device_are_not_set_against_the_cpus);
    tcase_add_test(t, backends_are_opened_by_name);
    tcase_add_test(t, a_file_that_is_no_backend_is_told);
    suite_add_tcase(s, t);
    return s;
}
