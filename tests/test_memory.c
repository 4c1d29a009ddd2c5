/* Memory: every allocation fails in turn, and nothing leaks, nothing breaks and the next good scope works; after warm-up a
 * repeated scope allocates nothing. The allocator of these tests counts what it gave and fails on command. */
#include "autodiff/plan/plan.h"
#include "tests/numeric.h"

#define S(...) AD_SHAPE(__VA_ARGS__)

typedef struct heap {
    int64_t live, asked; /* blocks held; requests so far */
    int64_t fuse;        /* requests until one fails; 0: none does */
    bool for_good;       /* and all after it */
    bool failed;
} heap;

static void *from_heap(void *user, void *old, size_t size)
{
    heap *h = user;
    if (!size) {
        h->live -= old != NULL;
        free(old);
        return NULL;
    }
    h->asked++;
    if ((h->failed && h->for_good) || (h->fuse && --h->fuse == 0)) {
        h->failed = true;
        return NULL;
    }
    void *given = realloc(old, size);
    h->live += given && !old;
    return given;
}

static ad_context *context_of(heap *h, ad_allocator *a)
{
    *a = (ad_allocator){ from_heap, h };
    return ad_context_new(&(ad_options){ .precision = AD_DOUBLE, .threads = 2, .allocator = a });
}

/* Arms the heap to fail at its n-th request from now; disarms it. */
static void arm(heap *h, int64_t n, bool for_good) { h->fuse = n, h->for_good = for_good, h->failed = false; }
static void disarm(heap *h) { h->fuse = 0, h->failed = false; }

static void expect_memory(void)
{
    ck_assert_msg(ad_error_code() == AD_ERROR_MEMORY && strstr(ad_error(), "out of memory"), "the error is: %s", ad_error());
}

/* Persistent tensors, a scope with products, gradients, reads and a commit. True when all went well, with the result
 * checked; false after an error of memory. The state is as it was unless the commit went through. */
static bool program(ad_tensor *state)
{
    double data[12], before = ((double *)ad_host_data(state))[0], sum;
    for (int i = 0; i < 12; i++) data[i] = i * 0.1;
    ad_error_clear();
    ad_tensor *x = ad_from(data, S(4, 3)), *w = ad_state(S(5, 3));
    if (ad_is_nil(x) || ad_is_nil(w)) {
        expect_memory();
        ad_free(x);
        ad_free(w);
        return false;
    }
    bool done = false;
    ad_scope {
        ad_tensor *h = ad_linear(x, ad_add(w, 0.5), ad_arange(5)), *d[2], *parts[10];
        for (int i = 0; i < 10; i++) parts[i] = ad_mul(ad_tanh(h), i);
        ad_tensor *y = ad_sum(ad_concat(parts, 10, 0), -1);
        double middle[40];
        if (!ad_read(y, middle, 40)) break;
        ad_gradient(ad_sum(ad_square(y)), (ad_tensor *[]){ w, state }, 2, d);
        ad_assign(w, ad_sub(w, ad_mul(d[0], 0.01)));
        ad_assign(state, ad_add(state, ad_add(1, d[1])));
        if (!ad_commit()) break;
        done = true;
    }
    double after = ((double *)ad_host_data(state))[0];
    if (!done) expect_memory();
    ck_assert(after == before + done);
    if (done) {
        sum = 0;
        for (int i = 0; i < 15; i++) sum += ((double *)ad_host_data(w))[i];
        static double first;
        if (first == 0) first = sum;
        ck_assert(isfinite(sum) && sum != 0 && sum == first);
    }
    ad_free(x);
    ad_free(w);
    return done;
}

enum { MOST_REQUESTS = 5000 };

/* One request fails (or it and all after it): the context survives, whether programs are interpreted at first or not. */
START_TEST(test_failing_scope)
{
    for (int64_t n = 1;; n++) {
        heap h = { 0 };
        ad_allocator a;
        ad_context *c = context_of(&h, &a);
        ad_context_use(c);
        ad_tensor *state = ad_state(AD_SCALAR);
        c->in_vain = 1 << 20; /* new programs are interpreted */
        if (_i >= 2) c->passes &= ~(uint32_t)PASS_LEAN;
        arm(&h, n, _i % 2);
        bool done = program(state), failed = h.failed;
        disarm(&h);
        ck_assert_msg(done || failed, "request %lld did not fail, the program did", (long long)n);
        ck_assert_msg(program(state), "after request %lld failed: %s", (long long)n, ad_error());
        ck_assert_msg(program(state), "again, after request %lld failed: %s", (long long)n, ad_error());
        ad_context_free(c);
        ck_assert_msg(h.live == 0, "request %lld failed and %lld blocks leaked", (long long)n, (long long)h.live);
        if (!failed) {
            ck_assert_int_gt(n, _i < 2 ? 40 : 50); /* there was something to fail */
            break;
        }
        ck_assert_int_lt(n, MOST_REQUESTS);
    }
}
END_TEST

/* The same on a context that is warm: what a new structure, more threads or a longer tape ask for. */
START_TEST(test_failing_growth)
{
    for (int64_t n = 1;; n++) {
        heap h = { 0 };
        ad_allocator a;
        ad_context *c = context_of(&h, &a);
        ad_context_use(c);
        ad_tensor *state = ad_state(AD_SCALAR);
        ck_assert(program(state));
        arm(&h, n, _i);
        ad_scope {
            ad_tensor *x = state;
            for (int i = 0; i < 500; i++) x = ad_sin(ad_add(x, ad_ones(i % 2 ? 1 : 3, 1)));
            double got = ad_item(ad_sum(x));
            if (ad_ok()) ck_assert(isfinite(got));
            else expect_memory();
        }
        int threads = ad_set_threads(3);
        ck_assert(threads == 3 || (h.failed && threads == 2));
        bool failed = h.failed;
        disarm(&h);
        ck_assert_msg(program(state), "after request %lld failed: %s", (long long)n, ad_error());
        ad_context_free(c);
        ck_assert_int_eq(h.live, 0);
        if (!failed) break;
        ck_assert_int_lt(n, MOST_REQUESTS);
    }
}
END_TEST

/* A context that could not be made whole is NULL, or says so and recovers. */
START_TEST(test_failing_context)
{
    for (int64_t n = 1;; n++) {
        heap h = { 0 };
        ad_allocator a;
        arm(&h, n, _i);
        ad_context *c = context_of(&h, &a);
        bool failed = h.failed;
        disarm(&h);
        if (c) {
            ad_context_use(c);
            if (failed) expect_memory();
            ad_tensor *state = ad_state(AD_SCALAR);
            ck_assert_msg(!ad_is_nil(state) && program(state), "after request %lld failed: %s", (long long)n, ad_error());
            ad_context_free(c);
        }
        ck_assert_int_eq(h.live, 0);
        if (!failed) break;
        ck_assert_int_lt(n, MOST_REQUESTS);
    }
}
END_TEST

/* A shape whose bytes no machine has is an error of memory, not a crash. */
START_TEST(test_too_large)
{
    heap h = { 0 };
    ad_allocator a;
    ad_context *c = context_of(&h, &a);
    ad_context_use(c);
    ck_assert(ad_is_nil(ad_from((double *)NULL, S((int64_t)1 << 55))));
    expect_memory();
    ad_scope {
        ck_assert(isnan(ad_item(ad_sum(ad_exp(ad_zeros((int64_t)1 << 29, (int64_t)1 << 26))))));
        expect_memory();
    }
    ad_scope ck_assert(ad_item(ad_add(1, 2)) == 3);
    ad_context_free(c);
    ck_assert_int_eq(h.live, 0);
}
END_TEST

/* A repeated scope, with other numbers each time: recording, gradients, large reads and commits ask for nothing. */
START_TEST(test_steady)
{
    heap h = { 0 };
    ad_allocator a;
    ad_context *c = context_of(&h, &a);
    ad_context_use(c);
    double *x = calloc(4096, sizeof *x), *got = calloc(4096, sizeof *got);
    ad_tensor *data = ad_from(x, S(64, 64)), *w = ad_state(S(64, 64));
    int64_t asked = 0;
    uint64_t allocations = 0, bytes = 0;
    for (int round = 0; round < 200; round++) {
        if (round == 10) asked = h.asked, allocations = ad_count().allocations, bytes = ad_count().bytes;
        x[round] = round;
        ck_assert(ad_write(data, x, 4096));
        ad_scope {
            ad_tensor *d, *y = ad_matmul(ad_tanh(ad_add(w, 0.01 * round)), data), *z;
            ck_assert(ad_read(y, got, 4096));
            z = ad_add(ad_slice(y, 0, round % 32, 8), ad_random_normal(S(8, 64), 0));
            ad_gradient(ad_logsumexp(z), &w, 1, &d);
            ad_assign(w, ad_sub(w, ad_mul(d, round)));
            ck_assert_msg(ad_commit(), "%s", ad_error());
            ad_add(ad_ones(2), ad_ones(3)); /* errors ask for nothing either */
        }
    }
    ck_assert_int_eq(h.asked, asked);
    ck_assert_uint_eq(ad_count().allocations, allocations);
    ck_assert_uint_eq(ad_count().bytes, bytes);
    free(x);
    free(got);
    ad_context_free(c);
    ck_assert_int_eq(h.live, 0);
}
END_TEST

Suite *suite_memory(void)
{
    Suite *s = suite_create("memory");
    TCase *t = tcase_create("failing");
    tcase_add_loop_test(t, test_failing_scope, 0, 4);
    tcase_add_loop_test(t, test_failing_growth, 0, 2);
    tcase_add_loop_test(t, test_failing_context, 0, 2);
    tcase_add_test(t, test_too_large);
    tcase_add_test(t, test_steady);
    suite_add_tcase(s, t);
    return s;
}
