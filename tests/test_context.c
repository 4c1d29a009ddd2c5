/* What outlives a tape: states, assignments and commits, the content of persistent tensors, draws, contexts and threads. */
#include <pthread.h>

#include "autodiff/tape.h"
#include "tests/numeric.h"

#define S(...) AD_SHAPE(__VA_ARGS__)

static ad_context *context;

static void open_double(void) { context = numeric_context(AD_DOUBLE, 1); }
static void close_context(void) { ad_context_free(context); }

static void expect(ad_error_kind kind, const char *words)
{
    ck_assert_msg(ad_error_code() == kind && strstr(ad_error(), words), "expected \"%s\", the error is: %s", words, ad_error());
}
static double element(ad_tensor *state, int i) { return ((double *)ad_host_data(state))[i]; }

/* ---- assignments -------------------------------------------------------------------------------------------------------- */

START_TEST(test_commit)
{
    ad_tensor *a = ad_state(S(3)), *b = ad_state(S(3));
    double start[] = { 1, 2, 3 };
    ck_assert(element(a, 0) == 0); /* zero at first */
    ck_assert(ad_write(a, start, 3));
    for (int round = 1; round <= 20; round++) {
        ad_scope {
            ad_tensor *next = ad_add(a, 1);
            ad_assign(a, next);
            ad_assign(b, ad_mul(next, 2)); /* of the new value, not of the state */
            ck_assert(element(a, 0) == round);
            ck_assert(ad_commit());
        }
        for (int i = 0; i < 3; i++) {
            ck_assert(element(a, i) == start[i] + round);
            ck_assert(element(b, i) == 2 * (start[i] + round));
        }
    }
    ad_scope { /* exchanged: each assignment sees the old values */
        ad_assign(a, b);
        ad_assign(b, a);
        ck_assert(ad_commit());
    }
    ck_assert(element(a, 0) == 42 && element(b, 0) == 21);
    ad_scope { /* read by a neighbour's place: no element may be overwritten too early */
        ad_assign(a, ad_permute(ad_gather(a, 0, ad_from(((int[]){ 2, 1, 0 }), S(3))), (const int[]){ 0 }, 1));
        ad_assign(b, ad_add(b, ad_sum(b)));
        ck_assert(ad_commit());
    }
    ck_assert(element(a, 0) == 46 && element(a, 2) == 42);
    ck_assert(element(b, 0) == 21 + 66 && element(b, 2) == 23 + 66);
    ad_scope { /* never committed: nothing happens */
        ad_assign(a, ad_zeros(3));
        ck_assert(ad_item(ad_sum(a)) == 42 + 44 + 46);
    }
    ck_assert(element(a, 0) == 46);
}
END_TEST

/* One value that is not finite, and no state takes anything; the next commit works. */
START_TEST(test_commit_refused)
{
    static const double poison[] = { NAN, INFINITY, -INFINITY };
    enum { N = 20000 }; /* more than one chunk: the last element counts too */
    ad_tensor *a = ad_state(S(N)), *b = ad_state(AD_SCALAR);
    double *data = calloc(N, sizeof *data);
    for (int i = 0; i < 3; i++) {
        data[N - 1] = poison[i];
        ad_tensor *x = ad_from(data, S(N));
        ad_scope {
            ad_assign(b, ad_add(b, 1));
            ad_assign(a, ad_add(a, x));
            ck_assert(!ad_commit());
            expect(AD_ERROR_NONFINITE, "no state has changed");
        }
        ck_assert(element(b, 0) == i && element(a, 0) == i && element(a, N - 1) == i);
        data[N - 1] = 0;
        ck_assert(ad_write(x, data, N));
        ad_scope {
            ad_assign(b, ad_add(b, 1));
            ad_assign(a, ad_add(a, ad_add(x, 1)));
            ck_assert_msg(ad_commit(), "%s", ad_error());
        }
        ck_assert(element(b, 0) == i + 1 && element(a, N - 1) == i + 1);
        ad_free(x);
    }
    free(data);
}
END_TEST

START_TEST(test_assign_errors)
{
    ad_tensor *s = ad_state(S(2));
    double x[2] = { 0 };
    ad_scope {
        ad_assign(ad_from(x, S(2)), ad_ones(2));
        expect(AD_ERROR_ARGUMENT, "the first argument is not a state\n  hint: make it with ad_state");
    }
    ad_scope {
        ad_assign(s, ad_ones(3));
        expect(AD_ERROR_SHAPE, "a value of shape (3,) for a state of shape (2,)");
        ck_assert(!ad_commit());
    }
    ad_scope {
        ad_assign(s, NULL);
        expect(AD_ERROR_STALE, "ad_assign's value is NULL");
    }
    ad_scope ck_assert(ad_commit()); /* nothing to do is no error */
    ck_assert(!ad_commit());
    expect(AD_ERROR_SCOPE, "no step or scope is open");
    ck_assert(element(s, 0) == 0);
}
END_TEST

/* Values made before a commit keep the values they had; later ones see the new state. Twice in one scope. */
START_TEST(test_values_around_commits)
{
    ad_tensor *s = ad_state(S(2));
    double got[2];
    ad_scope {
        ad_tensor *before = ad_add(s, 10);
        numeric_read(before, got, 2);
        ad_assign(s, ad_add(s, 1));
        ck_assert(ad_commit());
        numeric_read(before, got, 2);
        ck_assert(got[0] == 10);
        numeric_read(ad_add(s, 10), got, 2);
        ck_assert_msg(got[0] == 11, "%g", got[0]);
        ad_tensor *square = ad_square(s); /* 1, and 4 of the state to come: equal nodes that are not equal */
        numeric_read(square, got, 2);
        ad_assign(s, ad_add(s, 1));
        ck_assert(ad_commit());
        ck_assert(element(s, 1) == 2);
        numeric_read(ad_add(ad_mul(square, 10), ad_square(s)), got, 2);
        ck_assert_msg(got[0] == 14, "%g", got[0]);
        numeric_read(before, got, 2);
        ck_assert(got[0] == 10);
    }
}
END_TEST

/* States of many sizes never move; freed ones make room. */
START_TEST(test_states_stay)
{
    ad_tensor *s[200];
    void *at[200];
    for (int i = 0; i < 200; i++) {
        s[i] = ad_state(S(i * 37 % 5000));
        at[i] = ad_host_data(s[i]);
        ck_assert(((uintptr_t)at[i] & 63) == 0);
        double one = i;
        ad_scope {
            ad_assign(s[i], ad_expand(ad_from(&one, AD_SCALAR), ad_shape_of(s[i])));
            ck_assert(ad_commit());
        }
    }
    for (int i = 0; i < 200; i++) {
        ck_assert_ptr_eq(ad_host_data(s[i]), at[i]);
        for (int64_t k = 0; k < ad_size(s[i]); k++) ck_assert(element(s[i], (int)k) == i);
    }
    uint64_t bytes = 0;
    for (int round = 0; round < 50; round++) {
        ad_tensor *passing[4];
        for (int i = 0; i < 4; i++) passing[i] = ad_state(S(100000 + i));
        for (int i = 0; i < 4; i++) ad_free(passing[i]);
        if (round == 5) bytes = ad_count().bytes;
        if (round > 5) ck_assert_uint_eq(ad_count().bytes, bytes);
    }
}
END_TEST

/* ---- content ------------------------------------------------------------------------------------------------------------ */

/* Each type of data into each precision and back as each type. */
START_TEST(test_sources)
{
    ad_context_free(context);
    context = numeric_context(_i ? AD_DOUBLE : AD_FLOAT, 1);
    float f[] = { 1.5f, -2, 3 };
    double d[] = { 1.5, -2, 3 };
    int i[] = { 1, -2, 3 };
    int64_t l[] = { 1, -2, (int64_t)1 << 53 };
    uint8_t b[] = { 1, 254, 3 };
    ad_tensor *x[] = { ad_from(f, S(3)), ad_from(d, S(3)), ad_from(i, S(3)), ad_from(l, S(3)), ad_from(b, S(3)) };
    const ad_dtype types[] = { AD_REAL, AD_REAL, AD_INT64, AD_INT64, AD_BYTE };
    const double last[] = { 3, 3, 3, 0x1p53, 3 }, first[] = { 1.5, 1.5, 1, 1, 1 };
    for (int k = 0; k < 5; k++) {
        ck_assert_int_eq(ad_dtype_of(x[k]), types[k]);
        float of[3];
        double od[3];
        int oi[3];
        int64_t ol[3];
        uint8_t ob[3];
        ad_scope {
            ad_tensor *y = _i ? x[k] : ad_reshape(x[k], S(3));
            ck_assert(ad_read(y, of, 3) && ad_read(y, od, 3) && ad_read(y, ol, 3) && ad_read(y, ob, 3));
            ck_assert(of[0] == (float)first[k] && od[2] == last[k] && ol[0] == 1 && ol[2] == (int64_t)last[k] && ob[0] == 1);
            ck_assert(od[1] == (k == 4 ? 254 : -2));
            ck_assert(k == 3 || (ad_read(y, oi, 3) && oi[2] == 3));
        }
    }
    ck_assert(ad_write(x[0], d, 3) && ad_write(x[1], f, 3) && ad_write(x[3], i, 3) && ad_write(x[4], b, 3));
    ck_assert(!ad_write(x[0], i, 3));
    expect(AD_ERROR_ARGUMENT, "the data's type is not the tensor's");
    ad_error_clear();
    ck_assert(!ad_write(x[0], d, 2));
    expect(AD_ERROR_SHAPE, "2 elements for a tensor of 3");
    ad_error_clear();
    ad_scope {
        ck_assert(!ad_write(ad_exp(x[0]), d, 3));
        expect(AD_ERROR_STALE, "ad_write: not a live persistent tensor");
    }
    ad_error_clear();
    ck_assert(!ad_read(x[0], d, 2));
    expect(AD_ERROR_SHAPE, "ad_read: room for 2 elements, the tensor has 3");
    ad_error_clear();
    ck_assert(ad_is_nil(ad_from(d, S(-1))));
    expect(AD_ERROR_SHAPE, "dimension 0 of a shape is -1");
    ad_error_clear();
    ck_assert(ad_is_nil(ad_from((double *)NULL, S((int64_t)1 << 40, (int64_t)1 << 40))));
    expect(AD_ERROR_SHAPE, "dimension 1");
}
END_TEST

/* A borrowed tensor is the caller's memory: changes show in the next scope, and freeing the handle leaves it alone. */
START_TEST(test_borrow)
{
    double *mine = malloc(3 * sizeof *mine);
    for (int i = 0; i < 3; i++) mine[i] = i;
    ad_tensor *x = ad_borrow(mine, S(3));
    ck_assert_ptr_eq(ad_host_data(x), mine);
    for (int round = 0; round < 3; round++) {
        mine[2] = round;
        ad_scope ck_assert(ad_item(ad_sum(x)) == 1 + round);
    }
    double other[] = { 5, 6, 7 };
    ck_assert(ad_write(x, other, 3) && mine[1] == 6);
    ad_free(x);
    ck_assert(mine[2] == 7);
    free(mine);
    ck_assert(ad_is_nil(ad_borrow(NULL, S(3))));
    expect(AD_ERROR_ARGUMENT, "ad_borrow: data is NULL");
    ad_free(NULL);
    ad_free(AD_NIL);
    ck_assert_ptr_null(ad_host_data(NULL));
}
END_TEST

/* ---- draws --------------------------------------------------------------------------------------------------------------- */

static void draw(uint64_t seed, int ordinal, double *out, int n)
{
    ad_seed(seed);
    ad__tape_open(context, 0, 5);
    numeric_read(ad_random_normal(S(n), ordinal), out, n);
    ad__tape_close(context);
}

/* Draws are functions of seed, ordinal and run alone, so the same bits come from any number of threads. */
START_TEST(test_draws)
{
    enum { N = 50000 };
    double *first = malloc(N * sizeof *first), *x = malloc(N * sizeof *x);
    draw(3, 1, first, N);
    for (int threads = 1; threads <= 8; threads++) {
        ck_assert_int_eq(ad_set_threads(threads), threads);
        draw(3, 1, x, N);
        ck_assert(!memcmp(x, first, N * sizeof *x));
    }
    draw(3, 2, x, N);
    ck_assert(memcmp(x, first, N * sizeof *x));
    draw(4, 1, x, N);
    ck_assert(memcmp(x, first, N * sizeof *x));
    double mean = 0, square = 0;
    for (int i = 0; i < N; i++) mean += first[i] / N, square += first[i] * first[i] / N;
    ck_assert(fabs(mean) < 0.025 && fabs(square - 1) < 0.035); /* 5 standard errors */
    ad_scope {
        ad_tensor *a = ad_random_uniform(S(100), 0), *b = ad_random_uniform(S(100), 0); /* two anonymous draws differ */
        double u[100], v[100];
        numeric_read(a, u, 100);
        numeric_read(b, v, 100);
        ck_assert(memcmp(u, v, sizeof u));
        for (int i = 0; i < 100; i++) ck_assert(u[i] > 0 && u[i] < 1);
        ad_random_uniform(S(2), 1 << 16);
        expect(AD_ERROR_ARGUMENT, "draw 65536 is not in 0..65535");
    }
    free(first);
    free(x);
}
END_TEST

/* ---- contexts and threads -------------------------------------------------------------------------------------------------- */

START_TEST(test_contexts_are_apart)
{
    ad_context *other = ad_context_new(&(ad_options){ .precision = AD_FLOAT, .threads = 1 });
    double x = 1.1;
    ad_tensor *mine = ad_from(&x, AD_SCALAR);
    ck_assert_ptr_eq(ad_context_use(other), context);
    ck_assert_int_eq(ad_precision_of(other), AD_FLOAT);
    ad_scope {
        ad_exp(mine); /* its handle means nothing here */
        ck_assert(!ad_ok());
    }
    ck_assert_ptr_eq(ad_context_use(context), other);
    ck_assert(ad_ok());
    ck_assert(ad_item(mine) == 1.1);
    ad_scope {
        ad_tensor *y = ad_mul(mine, 2);
        ad_context_use(other); /* scopes of two contexts may be open at once */
        ad_scope ck_assert(ad_item(ad_add(1, 1)) == 2);
        ad_context_use(context);
        ck_assert(ad_item(y) == 2.2);
    }
    ad_context_free(other);
    ck_assert_ptr_eq(ad_context_current(), context);
}
END_TEST

typedef struct job {
    double seed, result;
    bool own; /* a context of its own, else the thread's default one */
    bool frees;
} job;

static void *fit(void *job_)
{
    job *j = job_;
    ad_context *c = j->own ? numeric_context(AD_DOUBLE, 1) : ad_context_current();
    ad_tensor *w = ad_state(S(4));
    for (int step = 0; step < 300; step++) {
        ad_scope {
            ad_tensor *x = ad_add(ad_arange(4), j->seed), *d;
            ad_gradient(ad_sum(ad_square(ad_sub(w, x))), &w, 1, &d);
            ad_assign(w, ad_sub(w, ad_mul(d, 0.1)));
            if (step % 7 == 0) ad_add(ad_ones(2), ad_ones(3)); /* an error here is not one there */
            if (ad_commit() != (step % 7 != 0)) return NULL;
        }
    }
    ad_scope j->result = ad_item(ad_sum(w));
    if (j->frees) ad_context_free(j->own ? c : NULL);
    return j;
}

/* Two threads with two contexts share nothing; a default context ends with its thread, or when it is told to. */
START_TEST(test_threads)
{
    job jobs[6];
    pthread_t id[6];
    for (int i = 0; i < 6; i++) {
        jobs[i] = (job){ .seed = i, .own = i < 2, .frees = i < 4 };
        ck_assert_int_eq(pthread_create(&id[i], NULL, fit, &jobs[i]), 0);
    }
    for (int i = 0; i < 6; i++) {
        void *done;
        pthread_join(id[i], &done);
        ck_assert_ptr_eq(done, &jobs[i]);
        ck_assert_msg(numeric_close(jobs[i].result, 6 + 4 * i, 1e-5, 1), "thread %d: %g", i, jobs[i].result);
    }
}
END_TEST

/* The same program in both precisions; the float context holds floats. */
START_TEST(test_precisions)
{
    double value[2];
    for (int p = 0; p < 2; p++) {
        ad_context_free(context);
        context = numeric_context(p ? AD_DOUBLE : AD_FLOAT, 1);
        double x[] = { 0.1, 0.7 };
        ad_tensor *t = ad_from(x, S(2));
        if (p) ck_assert(((double *)ad_host_data(t))[0] == 0.1);
        else ck_assert(((float *)ad_host_data(t))[0] == 0.1f);
        ad_scope {
            ad_tensor *d;
            ad_gradient(ad_logsumexp(ad_exp(t)), &t, 1, &d);
            value[p] = ad_item(ad_sum(ad_square(d)));
        }
    }
    ck_assert(value[0] != value[1] && numeric_close(value[0], value[1], 1e-6, 1));
    ck_assert(strstr(ad_describe(), "CPU") && strstr(ad_describe(), "1 thread"));
}
END_TEST

Suite *suite_context(void)
{
    Suite *s = suite_create("context");
    TCase *t = tcase_create("states");
    tcase_add_checked_fixture(t, open_double, close_context);
    tcase_add_test(t, test_commit);
    tcase_add_test(t, test_commit_refused);
    tcase_add_test(t, test_assign_errors);
    tcase_add_test(t, test_values_around_commits);
    tcase_add_test(t, test_states_stay);
    tcase_add_loop_test(t, test_sources, 0, 2);
    tcase_add_test(t, test_borrow);
    tcase_add_test(t, test_draws);
    suite_add_tcase(s, t);
    t = tcase_create("contexts");
    tcase_add_checked_fixture(t, open_double, close_context);
    tcase_add_test(t, test_contexts_are_apart);
    tcase_add_test(t, test_threads);
    tcase_add_test(t, test_precisions);
    suite_add_tcase(s, t);
    return s;
}
