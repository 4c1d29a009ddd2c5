/* Recording as its user sees it: sticky errors and their words, stale handles, scopes, reads in the middle, assignments
 * and commits, contexts and precisions, tensors' content. */
#include <pthread.h>
#include <stdio.h>

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

/* ---- errors ---------------------------------------------------------------------------------------------------------- */

/* The first error is kept whole with the line of its call, whatever follows; the next scope begins clean. */
START_TEST(test_sticky)
{
    ad_scope {
        ad_tensor *x = ad_ones(3, 4);
        int line = __LINE__ + 1;
        ad_tensor *y = ad_add(ad_mul(x, 2), ad_ones(5));
        char where[64];
        snprintf(where, sizeof where, "test_tape.c:%d", line);
        ck_assert(!ad_ok() && ad_is_nil(y));
        expect(AD_ERROR_SHAPE, "ad_add: shapes (3, 4) and (5,) do not broadcast");
        expect(AD_ERROR_SHAPE, "\n  hint: sizes must agree from the right, or be 1");
        expect(AD_ERROR_SHAPE, where);
        char *first = strdup(ad_error());
        (ad_log)(NULL);
        ad_fail(AD_ERROR_FILE, NULL, "another");
        ck_assert_str_eq(ad_error(), first);
        free(first);
    }
    ck_assert(!ad_ok()); /* it can be asked for behind the scope */
    ad_scope {
        ck_assert(ad_ok());
        ck_assert_str_eq(ad_error(), "");
        ck_assert(ad_item(ad_add(1, 2)) == 3);
    }
}
END_TEST

/* After an error everything gives nil, 0 and NAN, through every function. */
START_TEST(test_nil_flows)
{
    ad_scope {
        ad_tensor *bad = ad_add(ad_ones(2), ad_ones(3)), *d[1], *one = ad_ones(2);
        ck_assert(ad_is_nil(bad) && ad_is_nil(one));
        ad_tensor *all[] = {
            ad_exp(bad), ad_add(bad, 1), ad_where(bad, bad, 0), ad_matmul(bad, bad), ad_linear(bad, bad, bad), ad_sum(bad),
            ad_mean(bad, 0), ad_logsumexp(bad, 0, 1), ad_cumsum(bad, 0, false), ad_sum_to(bad, S(1)), ad_reshape(bad, S(1)),
            ad_permute(bad, (const int[]){ 0 }, 1), ad_transpose(bad, 0, 1), ad_expand(bad, S(2)), ad_unsqueeze(bad, 0),
            ad_squeeze(bad, 0), ad_concat(&bad, 1, 0), ad_stack(&bad, 1, 0), ad_slice(bad, 0, 0, 1), ad_pad(bad, 0, 0, 2),
            ad_gather(bad, 0, bad), ad_scatter_add(bad, 0, bad, 2), ad_stop_gradient(bad), ad_cast_real(bad), ad_number(1),
            ad_constant(1), ad_full_shape(S(2), 1), ad_arange(3), ad_random_normal(S(2), 0), ad_random_uniform(S(2), 0),
            ad_random_index(3, 2, 0), ad_weighted_total(&bad, (const double[]){ 1 }, 1),
        };
        for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) ck_assert_msg(ad_is_nil(all[i]), "call %zu", i);
        ad_gradient(bad, &bad, 1, d);
        ck_assert(ad_is_nil(d[0]));
        ad_assign(bad, bad);
        ck_assert(!ad_commit());
        ck_assert(ad_dim(bad, 0) == 0 && ad_size(bad) == 0 && ad_rank(bad) == 0 && ad_shape_of(bad).rank == 0);
        ck_assert(isnan(ad_item(bad)));
        float f[2] = { 0, 0 };
        int i[2] = { 1, 1 };
        ck_assert(!ad_read(bad, f, 2) && isnan(f[0]) && isnan(f[1]));
        ck_assert(!ad_read(bad, i, 2) && i[0] == 0 && i[1] == 0);
        expect(AD_ERROR_SHAPE, "ad_add: shapes (2,) and (3,)");
    }
}
END_TEST

START_TEST(test_bad_operands)
{
    double x = 1;
    ad_tensor *kept = NULL, *freed = ad_from(&x, AD_SCALAR), *fresh;
    ad_free(freed);
    ad_scope kept = ad_exp(1);
    ad_scope {
        ad_exp(kept);
        expect(AD_ERROR_STALE, "first operand is stale: it belongs to a step or scope that has ended");
    }
    ad_scope {
        ad_mul(2, freed);
        expect(AD_ERROR_STALE, "second operand is stale: this tensor was freed");
    }
    fresh = ad_from(&x, AD_SCALAR); /* takes the entry of the freed one: the old handle stays stale */
    ad_scope {
        ad_mul(2, freed);
        expect(AD_ERROR_STALE, "this tensor was freed");
    }
    ad_scope {
        (ad_exp)(NULL);
        expect(AD_ERROR_STALE, "first operand is NULL");
    }
    ad_scope {
        ad_exp((ad_tensor *)(void *)&x);
        expect(AD_ERROR_STALE, "first operand is not a tensor");
    }
    ad_scope {
        ad_exp(AD_NIL);
        expect(AD_ERROR_STALE, "first operand is nil");
    }
    ad_scope {
        (ad_exp)(ad__object_new(context, ad__step_bytes(context, 16)));
        expect(AD_ERROR_ARGUMENT, "first operand is a distribution, not a tensor\n  hint: draw from it");
    }
    ad_scope {
        ck_assert(ad_dim(ad_ones(2, 3), -1) == 3);
        ck_assert(ad_dim(ad_ones(2, 3), 2) == 0);
        expect(AD_ERROR_SHAPE, "axis 2 of shape (2, 3) does not exist");
    }
    ad_error_clear();
    ad_exp(fresh);
    expect(AD_ERROR_SCOPE, "no step or scope is open\n  hint: record inside svi_step's model, or in ad_scope { ... }");
    ad_error_clear();
    ck_assert(ad_item(fresh) == 1 && ad_rank(fresh) == 0); /* persistent ones can be read anywhere */
}
END_TEST

/* A tensor freed between recording and running is an error, not a read of freed memory; values already made stay. */
START_TEST(test_freed_too_early)
{
    double data[2] = { 1, 2 }, got[2];
    ad_scope {
        ad_tensor *x = ad_from(data, S(2)), *y = ad_neg(x), *z = ad_exp(x), *w = ad_square(y);
        numeric_read(y, got, 2);
        ad_free(x);
        numeric_read(y, got, 2);
        numeric_read(w, got, 2); /* made of y alone */
        ck_assert(got[1] == 4);
        ck_assert(!ad_read(z, got, 2));
        expect(AD_ERROR_STALE, "a tensor was freed before a value that needs it was computed");
    }
}
END_TEST

START_TEST(test_operation_limit)
{
    ad_context_free(context);
    context = ad_context_new(&(ad_options){ .max_nodes = 1000, .threads = 1 });
    ad_context_use(context);
    int steps = 0;
    ad_scope {
        ad_tensor *x = ad_number(1);
        for (; ad_ok() && steps < 100000; steps++) x = ad_add(x, 1);
        expect(AD_ERROR_LIMIT, "more than 1000 operations in one step");
    }
    ck_assert(steps > 400 && steps < 1001);
    ad_scope ck_assert(ad_item(ad_add(1, 1)) == 2);
}
END_TEST

START_TEST(test_error_kinds)
{
    for (int k = AD_ERROR_NONE; k <= AD_ERROR_FILE; k++)
        ck_assert(strlen(ad_error_kind_name((ad_error_kind)k)) > 3 && strcmp(ad_error_kind_name((ad_error_kind)k), "unknown"));
    ck_assert_str_eq(ad_error_kind_name((ad_error_kind)99), "unknown");
    ad_fail(AD_ERROR_FILE, "a way out", "%s: %d", "what", 3);
    ck_assert(!strncmp(ad_error(), "what: 3\n  hint: a way out", 25));
    ad_error_clear();
    char *huge = malloc(10000);
    memset(huge, 'x', 9999);
    huge[9999] = 0;
    ad_fail(AD_ERROR_FILE, huge, "%s", huge); /* cut, not overrun */
    ck_assert(strlen(ad_error()) > 1000 && strlen(ad_error()) < 9999);
    free(huge);
    ad_error_clear();
    ad_context *bad = ad_context_new(&(ad_options){ .device = "abacus" });
    ad_context_use(bad);
    expect(AD_ERROR_DEVICE, "device \"abacus\"");
    ad_context_use(context);
    ad_context_free(bad);
}
END_TEST

/* ---- scopes ------------------------------------------------------------------------------------------------------------ */

static double left_by_return(void)
{
    ad_scope return ad_item(ad_add(1, 1));
    return 0;
}

/* However a scope is left, its tape is closed. */
START_TEST(test_leaving_scopes)
{
    ck_assert(left_by_return() == 2);
    ck_assert_ptr_null(context->tape);
    int rounds = 0;
    for (int i = 0; i < 3; i++) {
        ad_scope {
            if (i == 1) break; /* leaves the scope, not the loop */
            if (i == 2) continue;
        }
        ck_assert_ptr_null(context->tape);
        rounds++;
    }
    ck_assert_int_eq(rounds, 3);
    ad_tensor *inner = NULL;
    ad_scope {
        ad_scope inner = ad_exp(0);
        ck_assert(ad_item(inner) == 1); /* lives until the outermost scope ends */
        ad_scope ad_add(ad_ones(2), ad_ones(3));
        ck_assert(!ad_ok()); /* one tape, one error */
    }
    ck_assert_ptr_null(context->tape);
    ad_scope {
        ck_assert(isnan(ad_item(inner)));
        expect(AD_ERROR_STALE, "the tensor that is read is stale");
    }
}
END_TEST

/* A tape opened over another one interrupts it: both keep their values. */
START_TEST(test_interrupting_tape)
{
    double data = 3;
    ad_tensor *x = ad_from(&data, AD_SCALAR);
    ad_scope {
        ad_tensor *y = ad_mul(x, 2), *inner;
        ck_assert(ad_item(y) == 6);
        ck_assert_ptr_nonnull(ad__tape_open(context, 2, 0));
        inner = ad_mul(x, 5);
        ck_assert(ad_item(inner) == 15);
        ad__tape_close(context);
        ck_assert(ad_item(ad_add(y, x)) == 9);
        ad_exp(inner);
        expect(AD_ERROR_STALE, "stale");
    }
}
END_TEST

/* ---- reads in the middle ------------------------------------------------------------------------------------------------ */

/* A chain of dependent values with a read wherever a bit of `reads` is set: the values and gradients must not notice. */
static void segments(unsigned reads, double *value, double *gradient)
{
    double data[6] = { 0.3, -0.2, 0.5, 1.1, -0.7, 0.9 }, seen[64];
    ad_tensor *x = ad_from(data, S(2, 3));
    ad_scope {
        ad_tensor *h = ad_mul(x, 1.5), *d;
        int at = 0;
#define MAYBE_READ(v) \
    if (reads >> at++ & 1) ck_assert(ad_read(v, seen, ad_size(v)))
        MAYBE_READ(h);
        ad_tensor *e = ad_expand(ad_sum(h, 0), S(2, 3));
        MAYBE_READ(e);
        ad_tensor *t = ad_tanh(ad_add(e, h));
        MAYBE_READ(t);
        ad_tensor *r = ad_reshape(t, S(3, 2));
        MAYBE_READ(r);
        ad_tensor *m = ad_matmul(r, t);
        MAYBE_READ(m);
        ad_tensor *s = ad_logsumexp(ad_add(m, ad_slice(ad_stop_gradient(t), 0, 1, 1)), -1);
        MAYBE_READ(s);
        ad_tensor *y = ad_sum(ad_mul(s, ad_arange(3)));
        MAYBE_READ(y);
        ad_gradient(y, &x, 1, &d);
        MAYBE_READ(d);
        numeric_read(d, gradient, 6);
        *value = ad_item(y);
    }
    ad_free(x);
}

START_TEST(test_segments)
{
    double value, gradient[6], v, g[6];
    segments(0, &value, gradient);
    ck_assert(isfinite(value) && gradient[0] != 0);
    for (unsigned reads = 1; reads < 256; reads++) {
        segments(reads, &v, g);
        ck_assert_msg(numeric_close(v, value, 1e-14, 1), "reads %x: %.17g, not %.17g", reads, v, value);
        for (int i = 0; i < 6; i++)
            ck_assert_msg(numeric_close(g[i], gradient[i], 1e-13, 1), "reads %x: gradient %d is %.17g, not %.17g", reads, i, g[i],
                          gradient[i]);
    }
}
END_TEST

/* What is read can steer the program, and earlier values outlive any number of segments. */
START_TEST(test_values_across_segments)
{
    ad_scope {
        ad_tensor *x = ad_number(1), *first = ad_add(x, 0.5), *kept[40];
        for (int i = 0; i < 40; i++) {
            kept[i] = x = ad_item(x) < 100 ? ad_mul(x, 2) : ad_sub(x, 99);
        }
        double want = 1;
        for (int i = 0; i < 40; i++) {
            want = want < 100 ? want * 2 : want - 99;
            ck_assert(ad_item(kept[i]) == want);
        }
        ck_assert(ad_item(first) == 1.5);
    }
}
END_TEST

Suite *suite_tape(void)
{
    Suite *s = suite_create("tape");
    TCase *t = tcase_create("errors");
    tcase_add_checked_fixture(t, open_double, close_context);
    tcase_add_test(t, test_sticky);
    tcase_add_test(t, test_nil_flows);
    tcase_add_test(t, test_bad_operands);
    tcase_add_test(t, test_freed_too_early);
    tcase_add_test(t, test_operation_limit);
    tcase_add_test(t, test_error_kinds);
    suite_add_tcase(s, t);
    t = tcase_create("scopes");
    tcase_add_checked_fixture(t, open_double, close_context);
    tcase_add_test(t, test_leaving_scopes);
    tcase_add_test(t, test_interrupting_tape);
    tcase_add_test(t, test_segments);
    tcase_add_test(t, test_values_across_segments);
    suite_add_tcase(s, t);
    return s;
}
