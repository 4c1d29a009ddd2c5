/* Held programs: one client of them, run in two threads at once while the context goes on recording. */
#include "tests/test.h"

#include "autodiff/program.h"
#include "tests/fixture.h"

#include <math.h>
#include <pthread.h>

enum { N = 5, RUNS = 2000 };

/* sum(exp(a x)) with its gradient a exp(a x), x (N), of a parameter a; and one draw for each run */
typedef struct toy {
    program *program;
    ad_tensor *x, *a;
    node_id roots[3];
} toy;

static toy record(ad_context *c)
{
    toy t = { .x = ad_from_data(NULL, AD_FROM_DOUBLE, AD_SHAPE(N)), .a = ad_state(AD_SHAPE(1)) };
    ad_write(t.a, ((double[]){ 0.5 }), 1);
    ck_assert(ad__tape_open(c, 77, 0) != NULL);
    ad_tensor *y = ad_sum(ad_exp(ad_mul(t.a, t.x))), *g;
    ad_gradient(y, &t.x, 1, &g);
    t.roots[0] = ad__node(c, y, "y");
    t.roots[1] = ad__node(c, g, "its gradient");
    t.roots[2] = ad__node(c, ad_random_normal(AD_SCALAR, 0), "a draw");
    t.program = ad__program_hold(c);
    ck_assert_msg(t.program != NULL, "%s", ad_error());
    return t;
}

static run_state *state_of(toy *t, bool alone)
{
    run_state *s =
        ad__run_state_new(t->program, &(run_request){ .roots = t->roots, .n_roots = 3, .final = true }, &t->x, 1, alone);
    ck_assert_msg(s && ad__run_state_begin(s), "%s", ad_error());
    return s;
}

/* Walks x over RUNS points and adds all up; one walk differs from another by `from` alone. */
typedef struct walk {
    run_state *state;
    double from, sum;
} walk;
static void *go(void *of)
{
    walk *w = of;
    for (int k = 0; k < RUNS; k++) {
        double x[N], y, g[N], draw;
        for (int i = 0; i < N; i++) x[i] = w->from + 1e-3 * k + i;
        ad__run_state_write(w->state, 0, x, N);
        if (!ad__run_state_run(w->state) || !ad__run_state_read(w->state, 0, &y, 1) ||
            !ad__run_state_read(w->state, 1, g, N) || !ad__run_state_read(w->state, 2, &draw, 1))
            return w;
        for (int i = 0; i < N; i++)
            if (fabs(g[i] - 0.5 * exp(0.5 * x[i])) > 1e-12 * fabs(g[i])) return w;
        w->sum += y * draw;
    }
    return NULL;
}

START_TEST(two_threads_give_the_values_of_one)
{
    ad_context *c = ad_context_new(&(ad_options){ .precision = AD_DOUBLE, .threads = 1 });
    ad_context_use(c);
    toy t = record(c);
    walk alone[2] = { { state_of(&t, true), -1, 0 }, { state_of(&t, true), 2, 0 } }, here = { state_of(&t, false), -1, 0 };
    pthread_t thread[2];
    void *failed[2];
    for (int i = 0; i < 2; i++) pthread_create(&thread[i], NULL, go, &alone[i]);
    for (int i = 0; i < 300; i++) /* the context is free meanwhile */
        ad_scope ck_assert(isfinite(ad_item(ad_sum(ad_exp(ad_mul(t.a, ad_ones(i + 1)))))));
    for (int i = 0; i < 2; i++) pthread_join(thread[i], &failed[i]);
    ck_assert(!failed[0] && !failed[1] && !go(&here));
    ck_assert(alone[0].sum == here.sum && alone[1].sum != here.sum);
    for (int i = 0; i < 2; i++) ad__run_state_free(alone[i].state);
    ad__run_state_free(here.state);
    ad__program_free(t.program);
    ad_free(t.x), ad_free(t.a);
    ad_context_free(c);
}
END_TEST

START_TEST(a_freed_tensor_is_told)
{
    ad_context *c = ad_context_new(&(ad_options){ .precision = AD_DOUBLE, .threads = 1 });
    ad_context_use(c);
    toy t = record(c);
    run_state *s = state_of(&t, false);
    ck_assert(ad__run_state_begin(s));
    ad_free(t.a);
    ck_assert(!ad__run_state_begin(s));
    error_says("a tensor or parameter that the program reads was freed");
    ad__run_state_free(s);
    ad__program_free(t.program);
    ad_free(t.x);
    ad_context_free(c);
}
END_TEST

Suite *suite_programs(void)
{
    Suite *s = suite_create("programs");
    TCase *t = tcase_create("programs");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, two_threads_give_the_values_of_one);
    tcase_add_test(t, a_freed_tensor_is_told);
    suite_add_tcase(s, t);
    return s;
}
