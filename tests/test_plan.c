/* The plan cache and what plans are: hits, misses and evictions, what makes a new plan and what does not, bounded memory
 * over many shapes, dead and repeated nodes, fused kernels. Values with each pass off are test_fuzz.c's. */
#include "autodiff/plan/plan.h"
#include "tests/numeric.h"

#define S(...) AD_SHAPE(__VA_ARGS__)

enum { NO_TRUST = 1 << 20 }; /* as context->in_vain: new programs are interpreted */
static ad_context *context;

/* Every program is planned at once, but where a test says otherwise. */
static void open_double(void)
{
    context = numeric_context(AD_DOUBLE, 1);
    context->passes &= ~(uint32_t)PASS_LEAN;
}
static void close_context(void) { ad_context_free(context); }

static uint64_t misses(void) { return ad_count().misses; }

/* ---- the cache ---------------------------------------------------------------------------------------------------------- */

/* Numbers, data, starts of slices and weights enter at run time; shapes, axes, constants and ops are the program. */
START_TEST(test_what_makes_a_plan)
{
    double data[6] = { 1, 2, 3, 4, 5, 6 }, got[2];
    ad_tensor *x = ad_from(data, S(6)), *y = ad_from(data, S(6));
    uint64_t before = 0;
    for (int i = 0; i < 30; i++) {
        ad_scope {
            ad_tensor *part = ad_slice(ad_mul(i % 2 ? x : y, 0.5 * i), 0, i % 5, 2);
            numeric_read(part, got, 2);
            double *from = ad_host_data(i % 2 ? x : y);
            ck_assert(got[0] == from[i % 5] * 0.5 * i && got[1] == from[i % 5 + 1] * 0.5 * i);
            ck_assert(ad_item(ad_weighted_total(&part, &(double){ i }, 1)) == i * (got[0] + got[1]));
        }
        data[3] = -i;
        ck_assert(ad_write(y, data, 6));
        if (i == 0) before = misses();
    }
    ck_assert_uint_eq(misses(), before);
    ck_assert_uint_eq(ad_count().hits, 58);

    for (int i = 0; i < 10; i++) ad_scope ck_assert(ad_item(ad_mul(ad_constant(i), 2)) == 2 * i);
    ck_assert_uint_eq(misses(), before + 10);
    for (int i = 1; i < 10; i++) ad_scope ck_assert_int_eq(ad_item(ad_sum(ad_ones(i))), i);
    ck_assert_uint_eq(misses(), before + 19);
    for (int i = 0; i < 4; i++) ad_scope ck_assert(ad_item(i % 2 ? ad_sub(5, 3) : ad_add(5, 3)) == (i % 2 ? 2 : 8));
    ck_assert_uint_eq(misses(), before + 21);
    for (int axis = 0; axis < 2; axis++)
        ad_scope {
            numeric_read(ad_sum(ad_ones(2, 2), axis), got, 2);
            ck_assert(got[0] == 2);
        }
    ck_assert_uint_eq(misses(), before + 23);
    ad_scope ad_item(ad_add(5, 3)); /* known */
    ck_assert_uint_eq(misses(), before + 23);
}
END_TEST

/* A state is known by identity, not by shape or place: a new one never takes the plan of one that was freed. */
START_TEST(test_states_in_plans)
{
    ad_tensor *a = ad_state(S(2)), *b = ad_state(S(2));
    for (int round = 0; round < 5; round++) {
        uint64_t before = misses();
        for (int i = 0; i < 4; i++) {
            ad_scope {
                ad_assign(i % 2 ? a : b, ad_add(i % 2 ? a : b, i % 2 ? 1 : 10));
                ck_assert(ad_commit());
            }
        }
        ck_assert_uint_eq(misses() - before, round ? 1 : 2); /* b is new each time */
        ck_assert(((double *)ad_host_data(a))[1] == 2 * (round + 1));
        ck_assert(((double *)ad_host_data(b))[1] == 20);
        ad_free(b);
        b = ad_state(S(2));
    }
}
END_TEST

/* Room for four plans. */
static void open_small(bool lean)
{
    ad_context_free(context);
    context = ad_context_new(&(ad_options){ .threads = 1, .max_plans = 4 });
    ad_context_use(context);
    if (!lean) context->passes &= ~(uint32_t)PASS_LEAN;
}

/* The least recently used plan goes. */
START_TEST(test_eviction)
{
    open_small(false);
    static const struct {
        int n;
        bool hit;
    } uses[] = { { 1, 0 }, { 2, 0 }, { 3, 0 }, { 4, 0 }, { 1, 1 }, { 5, 0 }, { 2, 0 }, { 1, 1 }, { 3, 0 }, { 5, 1 }, { 4, 0 } };
    for (size_t i = 0; i < sizeof uses / sizeof uses[0]; i++) {
        uint64_t hits = ad_count().hits;
        ad_scope ck_assert(ad_item(ad_sum(ad_exp(ad_zeros(uses[i].n)))) == uses[i].n);
        ck_assert_msg((ad_count().hits > hits) == uses[i].hit, "use %zu", i);
        ck_assert_uint_le(ad_count().plans, 4);
    }
    ck_assert_uint_eq(ad_count().misses, 8);
    ck_assert_uint_eq(ad_count().evictions, 4);
}
END_TEST

/* New programs are planned until four were planned in vain; from then on they are interpreted, and planned when they come
 * again. What comes again is no miss, and earns trust. */
START_TEST(test_first_sight)
{
    context->passes = ~0u;
    static const struct {
        int n;
        uint64_t interpreted, misses, plans;
    } uses[] = { { 1, 0, 1, 1 }, { 2, 0, 2, 2 }, { 2, 0, 2, 2 }, { 3, 0, 3, 3 }, { 4, 0, 4, 4 }, { 5, 0, 5, 5 },
                 { 6, 1, 6, 5 }, { 7, 2, 7, 5 }, { 6, 2, 7, 6 }, { 8, 3, 8, 6 }, { 6, 3, 8, 6 }, { 9, 3, 9, 7 },
                 { 8, 3, 9, 8 }, { 10, 4, 10, 8 } };
    for (size_t i = 0; i < sizeof uses / sizeof uses[0]; i++) {
        ad_scope ck_assert(ad_item(ad_sum(ad_exp(ad_zeros(uses[i].n)))) == uses[i].n);
        ad_counters c = ad_count();
        ck_assert_msg(c.interpreted == uses[i].interpreted && c.misses == uses[i].misses && c.plans == uses[i].plans &&
                          c.hits == i + 1 - c.misses,
                      "use %zu", i);
    }
    /* large values are worth planning for at once: they would share no memory */
    ad_scope ck_assert(ad_item(ad_sum(ad_exp(ad_zeros(10000)))) == 10000);
    ck_assert_uint_eq(ad_count().interpreted, 4);
    ck_assert_uint_eq(ad_count().plans, 9);
    ck_assert_uint_eq(ad_count().evictions, 0);
    for (int n = 11; n < 111; n++) ad_scope ad_item(ad_sum(ad_zeros(n)));
    ck_assert_uint_eq(ad_count().evictions, 100 + 2 - 64); /* forgotten sightings, which are as many as plans may be */
}
END_TEST

/* Programs that pass do not drive out one that returns, whether they are interpreted or planned. */
START_TEST(test_returning_plans_stay)
{
    open_small(_i);
    uint64_t missed = 0;
    for (int i = 0; i < 400; i++) {
        uint64_t before = misses();
        bool returns = i % 100 < 2 || i % 20 == 0; /* 19 others in between */
        ad_scope ck_assert(ad_item(ad_sum(ad_exp(ad_zeros(returns ? 1 : i)))) == (returns ? 1 : i));
        if (returns) missed += misses() - before;
    }
    ck_assert_uint_eq(missed, 1);
    ck_assert_uint_le(ad_count().plans, 4);
}
END_TEST

/* 10,000 different shapes: right results, at most max_plans plans, and memory that grows by the shapes' own names alone. */
START_TEST(test_many_shapes)
{
    if (_i) context->passes = ~0u;
    enum { SIDE = 100, FEW = 512 };
    uint64_t middle = 0;
    for (int i = 0; i < SIDE * SIDE; i++) {
        int64_t rows = 1 + i % SIDE, columns = 1 + i / SIDE;
        ad_scope {
            ad_tensor *x = ad_reshape(ad_arange(rows * columns), S(rows, columns)), *d;
            ad_tensor *y = ad_sum(ad_mul(ad_mul(x, x), 0.5));
            ad_gradient(y, &x, 1, &d);
            double n = (double)(rows * columns), last[1];
            ck_assert(numeric_close(ad_item(y), (n - 1) * n * (2 * n - 1) / 12, 1e-12, 1));
            numeric_read(ad_slice(ad_reshape(d, S(-1)), 0, rows * columns - 1, 1), last, 1);
            ck_assert(last[0] == n - 1);
        }
        if (i == SIDE * SIDE / 2) middle = ad_count().bytes;
    }
    ck_assert_uint_le(ad_count().plans, 64);
    ck_assert_uint_ge(ad_count().evictions + ad_count().interpreted, SIDE * SIDE - 64);
    ck_assert(_i ? ad_count().interpreted > SIDE : !ad_count().interpreted);
    ck_assert_msg(ad_count().bytes < middle + SIDE * SIDE / 2 * FEW, "%llu bytes, %llu halfway",
                  (unsigned long long)ad_count().bytes, (unsigned long long)middle);
}
END_TEST

/* Hits and misses leave the tape alike: a program whose first run built plans goes on like one whose runs found them. */
START_TEST(test_hit_and_miss_alike)
{
    double got[2][6];
    int64_t nodes[2];
    for (int round = 0; round < 2; round++) {
        ad_tensor *s = ad_state(AD_SCALAR);
        double two = 2;
        ad_tensor *x = ad_from(&two, AD_SCALAR);
        ad_scope {
            ad_tensor *y = ad_exp(x), *d;
            got[round][0] = ad_item(y);
            ad_gradient(ad_square(y), &x, 1, &d);
            got[round][1] = ad_item(d);
            ad_assign(s, ad_mul(d, y)); /* the commit's guard is an expansion: gone from the tape afterwards */
            ck_assert(ad_commit());
            got[round][2] = ad_item(ad_add(d, y));
            nodes[round] = context->tape->n;
        }
        got[round][3] = ad_item(s);
        ad_free(s);
        ad_free(x);
    }
    ck_assert_int_eq(nodes[0], nodes[1]);
    for (int i = 0; i < 4; i++) ck_assert(got[0][i] == got[1][i]);
}
END_TEST

/* ---- what plans run ------------------------------------------------------------------------------------------------------ */

/* Kernels of the last plan. */
static uint64_t steps_of(ad_tensor *root, uint32_t passes)
{
    context->passes = passes;
    double *out = malloc((size_t)ad_size(root) * sizeof *out);
    numeric_read(root, out, ad_size(root));
    free(out);
    return ad_count().steps;
}

/* What no one reads does not run; what is written twice runs once; chains run together. */
START_TEST(test_passes)
{
    double data[12] = { 0 };
    ad_tensor *x = ad_from(data, S(3, 4));
    ad_scope {
        ad_tensor *dead = ad_matmul_t(x, true, x, false), *y = ad_exp(x);
        ad_sum(ad_log(dead));
        ck_assert_uint_eq(steps_of(y, 0), 1);
    }
    ad_scope ck_assert_uint_eq(steps_of(ad_add(ad_sum(x, 0), ad_sum(x, 0)), 0), 3);
    ad_context_free(context); /* passes are no part of a plan's key: a fresh cache for each choice */
    open_double();
    x = ad_from(data, S(3, 4));
    ad_scope ck_assert_uint_eq(steps_of(ad_add(ad_sum(x, 0), ad_sum(x, 0)), PASS_COMMON), 2);
    ad_scope {
        ad_tensor *y = x;
        for (int i = 0; i < 10; i++) y = ad_tanh(ad_add(y, ad_sum(x, 0))); /* (4) is broadcast as it is read */
        ck_assert_uint_eq(steps_of(y, PASS_COMMON), 21);
    }
    ad_context_free(context);
    open_double();
    x = ad_from(data, S(3, 4));
    ad_scope {
        ad_tensor *y = x;
        for (int i = 0; i < 10; i++) y = ad_tanh(ad_add(y, ad_sum(x, 0)));
        ck_assert_uint_eq(steps_of(y, PASS_COMMON | PASS_FUSE), 2);
    }
    /* views cost nothing, and one number behind them is one number */
    ad_scope ck_assert_uint_eq(steps_of(ad_exp(ad_reshape(ad_stop_gradient(ad_reshape(x, S(12))), S(2, 6))), ~0u), 1);
    ad_scope {
        ad_tensor *twos = ad_reshape(ad_full_shape(S(3), 2), S(3, 1));
        ck_assert_uint_eq(steps_of(ad_add(x, twos), ~(uint32_t)PASS_LEAN), 1);
    }
}
END_TEST

/* Assigned values are written over the old ones, but not before these were read: behind the new value, in its item or
 * another, or by a value that is assigned to the same state. */
START_TEST(test_old_values)
{
    double start[3] = { 1, 2, 3 }, got[4][3];
    for (int pass = 0; pass < 3; pass++) {
        context->passes = pass == 0 ? 0 : pass == 1 ? ~(uint32_t)PASS_LEAN : ~0u;
        context->in_vain = NO_TRUST;
        ad_tensor *x[4];
        for (int i = 0; i < 4; i++) {
            x[i] = ad_state(S(3));
            ck_assert(ad_write(x[i], start, 3));
        }
        ad_scope {
            ad_tensor *next = ad_add(x[0], 1);
            ad_assign(x[0], next);
            ad_assign(x[1], ad_mul(next, x[0]));
            ad_assign(x[2], ad_mul(ad_sum(x[0]), x[2]));
            ad_tensor *again = ad_mul(x[0], 10);
            ad_assign(x[0], again);
            ad_assign(x[3], ad_add(ad_cumsum(next, 0, false), ad_mul(again, next)));
            /* without a guard, as optimisers' values are: guarded values are computed before anything is written */
            ck_assert_msg(ad__run(context, &(run_request){ .commit = true }, NULL), "%s", ad_error());
        }
        for (int i = 0; i < 4; i++) ck_assert(ad_read(x[i], got[i], 3));
        for (int i = 0, sum = 0; i < 3; i++) {
            double old = start[i], next = old + 1;
            sum += (int)next;
            ck_assert_msg(got[0][i] == 10 * old && got[1][i] == next * old && got[2][i] == 6 * old &&
                              got[3][i] == sum + 10 * old * next,
                          "passes %d, element %d: %g, %g, %g, %g", pass, i, got[0][i], got[1][i], got[2][i], got[3][i]);
        }
        for (int i = 0; i < 4; i++) ad_free(x[i]);
    }
}
END_TEST

/* Long chains, wide fans and many operands: more than one kernel holds. */
START_TEST(test_large_items)
{
    enum { N = 700, FAN = 60 };
    double got[N], want[N], x[N];
    for (int k = 0; k < N; k++) x[k] = 0.001 * k;
    for (int pass = 0; pass < 2; pass++) {
        ad_scope {
            ad_tensor *start = ad_from(x, S(N)), *y = start, *parts[FAN], *d;
            for (int i = 0; i < 300; i++) y = ad_sin(ad_add(y, ad_number(0.01 * i)));
            for (int i = 0; i < FAN; i++) parts[i] = ad_mul(y, ad_add(start, i));
            for (int i = 1; i < FAN; i++) parts[0] = ad_add(parts[0], ad_cos(parts[i]));
            ad_gradient(parts[0], &start, 1, &d);
            numeric_read(ad_add(d, parts[0]), pass ? got : want, N);
            ad_free(start);
        }
        ad_context_free(context);
        open_double();
        context->passes = 0;
    }
    ck_assert(!memcmp(got, want, sizeof got));
}
END_TEST

/* Memory of the user's that ends within a line: nothing behind it is read (the sanitizers see to it) or written, and
 * where it lies may change from run to run. */
START_TEST(test_borrowed_ends)
{
    enum { N = 5 };
    for (int run = 0; run < 2; run++) {
        double *x = malloc(N * sizeof *x), *s = malloc(sizeof *s), got[N], one;
        ck_assert(x && s);
        for (int i = 0; i < N; i++) x[i] = 0.3 * i + run;
        *s = 2 + run;
        ad_tensor *a = ad_borrow(x, S(N)), *b = ad_borrow(s, AD_SCALAR);
        ad_scope {
            numeric_read(ad_add(ad_mul(a, b), ad_square(a)), got, N);
            numeric_read(ad_add(ad_mul(b, b), 1), &one, 1);
        }
        for (int i = 0; i < N; i++) ck_assert(got[i] == x[i] * *s + x[i] * x[i]);
        ck_assert(one == *s * *s + 1);
        ad_free(a);
        ad_free(b);
        free(x);
        free(s);
    }
}
END_TEST

/* What runs behind a product, rows by rows, gives the bits of what runs after it: a value that others read later, too,
 * sums of rows, an operand that only comes after the product. */
static void run_followers(uint32_t passes, int threads, double out[3])
{
    enum { M = 301, K = 40, N = 77 };
    double a[M * K], b[K * N];
    for (int i = 0; i < M * K; i++) a[i] = sin(0.7 * i);
    for (int i = 0; i < K * N; i++) b[i] = cos(0.3 * i);
    ad_context_free(context);
    context = numeric_context(AD_DOUBLE, threads);
    context->passes = passes;
    ad_scope {
        ad_tensor *x = ad_from(a, S(M, K)), *w = ad_from(b, S(K, N)), *h = ad_matmul(x, w), *d;
        ad_tensor *y = ad_tanh(ad_add(h, ad_sum(w, 0))), *late = ad_matmul(ad_square(x), w);
        ad_tensor *rows = ad_mul(ad_sum(ad_mul(y, late), 1), ad_sum(y, 1));
        ad_tensor *total = ad_sum(ad_add(rows, ad_sum(ad_matmul_t(y, false, y, true), 1)));
        ad_gradient(total, &w, 1, &d);
        out[0] = ad_item(ad_weighted_total((ad_tensor *[]){ total }, (double[]){ 1 }, 1));
        out[1] = ad_item(ad_sum(d));
        out[2] = ad_item(ad_sum(ad_square(d)));
        ad_free(x);
        ad_free(w);
    }
}
START_TEST(test_followers)
{
    double want[3], got[3];
    run_followers(0, 1, want);
    for (int threads = 1; threads <= 3; threads++) {
        run_followers(~(uint32_t)PASS_LEAN, threads, got);
        ck_assert_msg(!memcmp(got, want, sizeof got), "%d threads: %.17g, %.17g alone", threads, got[1], want[1]);
        run_followers(~(uint32_t)(PASS_LEAN | PASS_FOLLOW), threads, got);
        ck_assert(!memcmp(got, want, sizeof got));
    }
}
END_TEST

/* An infinity anywhere in a large product that will be assigned keeps all states as they were, whoever looks for it. */
START_TEST(test_watched_products)
{
    enum { N = 90 };
    static double a[N * N];
    for (int i = 0; i < N * N; i++) a[i] = 0.01 * i;
    for (int i = 0; i < 12; i++) {
        ad_context_free(context);
        context = numeric_context(AD_DOUBLE, 1 + i % 3);
        context->passes &= ~(uint32_t)PASS_LEAN;
        if (i % 2) context->passes &= ~(uint32_t)PASS_WATCH;
        bool bad = i < 10;
        int at = i * N * N / 10 % (N * N);
        if (bad) a[at] = INFINITY;
        ad_tensor *state = ad_state(S(N, N)), *other = ad_state(S(3));
        ad_scope {
            ad_assign(state, ad_matmul(ad_from(a, S(N, N)), ad_ones(N, N)));
            ad_assign(other, ad_ones(3));
            ck_assert(ad_commit() == !bad);
        }
        ck_assert(((double *)ad_host_data(other))[0] == !bad);
        for (int k = 0; k < N * N; k++) ck_assert((((double *)ad_host_data(state))[k] != 0) == !bad);
        if (bad) a[at] = 1;
    }
}
END_TEST

Suite *suite_plan(void)
{
    Suite *s = suite_create("plan");
    TCase *t = tcase_create("plans");
    tcase_add_checked_fixture(t, open_double, close_context);
    tcase_add_test(t, test_what_makes_a_plan);
    tcase_add_test(t, test_states_in_plans);
    tcase_add_test(t, test_eviction);
    tcase_add_test(t, test_first_sight);
    tcase_add_loop_test(t, test_returning_plans_stay, 0, 2);
    tcase_add_loop_test(t, test_many_shapes, 0, 2);
    tcase_add_test(t, test_hit_and_miss_alike);
    tcase_add_test(t, test_passes);
    tcase_add_test(t, test_old_values);
    tcase_add_test(t, test_large_items);
    tcase_add_test(t, test_borrowed_ends);
    tcase_add_test(t, test_followers);
    tcase_add_test(t, test_watched_products);
    suite_add_tcase(s, t);
    return s;
}
