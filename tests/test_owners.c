/* Who may use what: handles of other contexts, contexts and threads, objects about their context's end, and calls of the
 * user that end otherwise than by return. Each is told, nothing is lost, and the next good step works. */
#include "tests/fixture.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "models/loader.h"

static void guide(void)
{
    ppl_sample("z", dist_normal(ppl_param("m", AD_SCALAR), 1));
}
static void model(void)
{
    ad_tensor *z = ppl_sample("z", dist_normal(0, 1));
    ppl_sample("x", dist_normal(z, 1), .obs = ad_constant(2));
}
static svi *learner(ppl_function m, ppl_function g)
{
    svi *s = svi_new(m, g, .args = PPL_ARGS(), .optim = optim_adam(.lr = 0.1));
    fine();
    return s;
}

static ad_context *fresh(void)
{
    return ad_context_new(&(ad_options){ .precision = AD_DOUBLE, .threads = 1 });
}

/* ---- handles ----------------------------------------------------------------------------------------------------- */

START_TEST(handles_of_another_context)
{
    double two[] = { 1, 2 }, read[2];
    ad_context *first = ad_context_current(), *second = fresh();
    ad_tensor *x = ad_from(two, AD_SHAPE(2));
    ad_context_use(second);
    ck_assert(!ad_write(x, two, 2));
    error_says("belongs to another context");
    ad_error_clear();
    ck_assert(!ad_read(x, read, 2) && isnan(read[0]));
    error_says("belongs to another context");
    ad_error_clear();
    ad_free(x);
    error_says("belongs to another context");
    ad_scope ck_assert(ad_is_nil(ad_add(x, 1)));
    error_says("belongs to another context");
    ad_context_use(first);
    ad_scope {
        ad_tensor *step = ad_add(x, 1);
        distribution *d = dist_normal(0, 1);
        ad_context_use(second);
        ad_scope {
            ck_assert(ad_is_nil(ad_add(step, 1)));
            error_says("belongs to another context");
        }
        ad_scope ck_assert(ad_is_nil(dist_sample(d, 0)));
        error_says("belongs to another context");
        ad_context_use(first);
        ck_assert_double_eq(ad_item(ad_sum(step)), 5);
    }
    ck_assert(ad_read(x, read, 2) && read[1] == 2);
    ad_context_free(second);
}
END_TEST

/* ---- threads ----------------------------------------------------------------------------------------------------- */

static void *use_claimed(void *context)
{
    ad_context *mine = fresh();
    ad_context_use(mine);
    ck_assert_ptr_eq(ad_context_use(context), mine);
    error_says("ad_context_use");
    ck_assert_ptr_eq(ad_context_current(), mine);
    ad_context_free(context);
    error_says("ad_context_free");
    ad_context_free(mine);
    return NULL;
}
static void *use_free(void *instance)
{
    ad_context *context = ((void **)instance)[0];
    svi *s = ((void **)instance)[1];
    ad_context_use(context);
    ck_assert(isfinite(svi_step(s)));
    ad_context_use(NULL);
    return NULL;
}

START_TEST(a_context_is_one_threads_at_a_time)
{
    pthread_t other;
    ad_context *c = ad_context_current();
    svi *s = learner(model, guide);
    ck_assert(isfinite(svi_step(s)));
    pthread_create(&other, NULL, use_claimed, c);
    pthread_join(other, NULL);
    ck_assert(isfinite(svi_step(s)));
    ad_context_use(NULL);
    void *both[] = { c, s };
    pthread_create(&other, NULL, use_free, both);
    pthread_join(other, NULL);
    ad_context_use(c);
    ck_assert(isfinite(svi_step(s)));
    svi_free(s);
}
END_TEST

#ifndef __SANITIZE_THREAD__
START_TEST(a_forked_child_steps)
{
    double want;
    float *rows = calloc(1 << 20, sizeof *rows);
    ad_context_free(NULL);
    ad_context_use(ad_context_new(&(ad_options){ .threads = 2 }));
    ad_tensor *x = ad_from(rows, AD_SHAPE(1 << 20));
    ad_scope want = ad_item(ad_sum(ad_exp(x)));
    for (int i = 0; i < 3; i++) {
        pid_t child = fork();
        if (child == 0) {
            double got;
            alarm(60);
            ad_scope got = ad_item(ad_sum(ad_exp(x)));
            ad_context_free(NULL);
            _exit(got == want ? 0 : 1);
        }
        int status;
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    free(rows);
}
END_TEST
#endif

/* ---- objects ----------------------------------------------------------------------------------------------------- */

START_TEST(objects_outlive_their_context)
{
    static const uint8_t rows[4];
    double u = 0, out;
    ad_tensor *x;
    ad_context *second = fresh(), *first = ad_context_use(second);
    svi *s = learner(model, guide);
    ppl_density *d = ppl_density_new(model, PPL_ARGS());
    ppl_predictive *p = ppl_predictive_new(model, guide, .args = PPL_ARGS(), .samples = 2);
    loader *l = loader_new(rows, 4, 1, &(loader_options){ .batch_size = 2 });
    svi_step(s);
    ppl_density_value(d, &u, NULL);
    ppl_predict(p);
    loader_next(l, &x);
    fine();
    ad_context_use(first);
    ad_context_free(second);
    ck_assert(isnan(svi_step(s)));
    error_says("svi_step");
    ad_error_clear();
    ck_assert(isnan(ppl_density_value(d, &u, NULL)));
    error_says("ppl_density_value");
    ad_error_clear();
    ck_assert(!ppl_predict(p));
    error_says("ppl_predict");
    ad_error_clear();
    ck_assert(!ppl_predictive_read(p, "z", &out, 1));
    ad_error_clear();
    ck_assert(!loader_next(l, &x));
    error_says("loader_next");
    ad_error_clear();
    svi_free(s);
    ppl_density_free(d);
    ppl_predictive_free(p);
    loader_free(l);
    fine();
}
END_TEST

static svi *own_svi;
static ppl_predictive *own_predictive;
static bool free_own(void *user, int64_t step, ppl_arg *args)
{
    (void)user, (void)step, (void)args;
    svi_free(own_svi);
    ad_context_free(NULL);
    return true;
}
static void frees_its_prediction(void)
{
    ppl_predictive_free(own_predictive);
    model();
}
static double frees_its_svi(int64_t step, void *user)
{
    (void)step, (void)user;
    svi_free(own_svi);
    return 1;
}

START_TEST(nothing_is_freed_at_work)
{
    own_svi = learner(model, guide);
    svi_run(own_svi, 3, .next = free_own);
    says(svi_error(own_svi), "svi_free");
    ck_assert(isfinite(svi_step(own_svi)));
    svi_free(own_svi);
    own_svi = svi_new(model, guide, .args = PPL_ARGS(), .optim = optim_adam(.lr = 0.1, .schedule = frees_its_svi));
    ck_assert(isnan(svi_step(own_svi)));
    says(svi_error(own_svi), "svi_free");
    svi_free(own_svi);
    ad_error_clear();
    own_predictive = ppl_predictive_new(frees_its_prediction, NULL, .args = PPL_ARGS(), .samples = 2);
    ck_assert(!ppl_predict(own_predictive));
    error_says("ppl_predictive_free");
    ppl_predictive_free(own_predictive);
    svi *s = learner(model, guide);
    ck_assert(isfinite(svi_step(s)));
    svi_free(s);
}
END_TEST

/* ---- jumps ------------------------------------------------------------------------------------------------------- */

static jmp_buf away;
static bool jumps;

static void jump(void)
{
    ppl_plate ("p", 3)
        ppl_module ("inner")
            ppl_with (ppl_scale(2)) {
                ppl_param("lost", AD_SCALAR);
                if (jumps) longjmp(away, 1);
            }
}
static void jumping_model(void)
{
    if (jumps) jump();
    model();
}
static void jumping_guide(void)
{
    if (jumps) jump();
    guide();
}

/* From where the user's function ran to the next step, which knows nothing of it. */
START_TEST(a_longjmp_out_of_a_users_function)
{
    svi *s = learner(_i == 0 ? model : jumping_model, _i == 0 ? jumping_guide : guide);
    ppl_predictive *p = ppl_predictive_new(jumping_model, NULL, .args = PPL_ARGS(), .samples = 2);
    ck_assert(isfinite(svi_step(s)));
    for (int round = 0; round < 3; round++) {
        jumps = true;
        if (!setjmp(away)) {
            if (_i < 2) svi_step(s);
            else if (_i == 2) ppl_predict(p);
            else if (_i == 3) ppl_density_new(jumping_model, PPL_ARGS());
            else ad_scope ppl_trace_run(jumping_model, PPL_ARGS());
            ck_abort_msg("it did not jump");
        }
        jumps = false;
        double loss = svi_step(s);
        ck_assert_msg(isfinite(loss), "%s", svi_error(s));
        ck_assert(_i > 1 || !ppl_param_exists("inner$$$lost")); /* what a step made went with it */
        ad_scope ck_assert_int_eq(ad_rank(ppl_sample("x", dist_normal(0, 1))), 0);
        fine();
        ck_assert_msg(ppl_predict(p), "%s", ad_error());
    }
    ppl_predictive_free(p);
    svi_free(s);
}
END_TEST

/* ---- making one -------------------------------------------------------------------------------------------------- */

typedef struct counted {
    int64_t fuse, live;
} counted;
static void *counting(void *user, void *old, size_t size)
{
    counted *n = user;
    if (size == 0) {
        n->live -= old != NULL;
        free(old);
        return NULL;
    }
    if (n->fuse && --n->fuse == 0) return NULL;
    void *given = realloc(old, size);
    n->live += given && !old;
    return given;
}

START_TEST(a_context_without_memory)
{
    int made = 0, failed = 0;
    for (int64_t n = 1; n < 40; n++) {
        counted heap = { .fuse = n };
        ad_context *c = ad_context_new(
            &(ad_options){ .precision = AD_DOUBLE, .threads = 1, .allocator = &(ad_allocator){ counting, &heap } });
        made += c != NULL, failed += c == NULL;
        heap.fuse = 0;
        if (c) {
            ad_context *before = ad_context_use(c);
            svi *s = learner(model, guide);
            ck_assert_msg(isfinite(svi_step(s)), "request %lld: %s", (long long)n, svi_error(s));
            svi_free(s);
            ad_context_use(before);
            ad_context_free(c);
        }
        ck_assert_msg(heap.live == 0, "request %lld leaves %lld blocks", (long long)n, (long long)heap.live);
    }
    ck_assert(made > 0 && failed > 1);
}
END_TEST

START_TEST(the_last_error_tells_outside_of_steps)
{
    double x[2] = { 1, 2 };
    ad_tensor *two = ad_from(x, AD_SHAPE(2));
    ck_assert(!ppl_param_value("none", x, 1));
    error_says("none");
    ck_assert(!ad_read(two, x, 1));
    error_says("room for 1 elements");
    ck_assert(ad_read(two, x, 2) && x[1] == 2);
    ck_assert(!ad_write(two, x, 1));
    error_says("ad_write");
}
END_TEST

Suite *suite_owners(void)
{
    Suite *s = suite_create("owners");
    TCase *t = tcase_create("owners");
    tcase_add_checked_fixture(t, begin, end);
    tcase_add_test(t, handles_of_another_context);
    tcase_add_test(t, a_context_is_one_threads_at_a_time);
#ifndef __SANITIZE_THREAD__ /* which starts no threads in a child of many */
    tcase_add_test(t, a_forked_child_steps);
#endif
    tcase_add_test(t, objects_outlive_their_context);
    tcase_add_test(t, nothing_is_freed_at_work);
    tcase_add_loop_test(t, a_longjmp_out_of_a_users_function, 0, 5);
    tcase_add_test(t, a_context_without_memory);
    tcase_add_test(t, the_last_error_tells_outside_of_steps);
    suite_add_tcase(s, t);
    return s;
}
