/* The part of Check that the tests use, for machines without it; see tests/bare/build. Included by tests/test.h in
 * Check's place. Each test runs in a process of its own, within its time limit; with CK_FORK=no all run in this one,
 * and a failure leaves the test by a jump. CK_RUN_CASE names the one case to run. */
#ifndef TESTS_BARE_CHECK_H
#define TESTS_BARE_CHECK_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct Suite Suite;
typedef struct TCase TCase;
typedef struct SRunner SRunner;
typedef struct bare_test {
    const char *name;
    void (*run)(int _i);
} TTest;
enum print_output { CK_ENV };

/* Tells the failure and ends the test. */
__attribute__((noreturn, format(printf, 3, 4))) void bare_fail(const char *file, int line, const char *format, ...);

#define START_TEST(test)                                                                                               \
    static void test##_run(int _i);                                                                                    \
    static const TTest test##_entry = { #test, test##_run }, *const test = &test##_entry;                              \
    static void test##_run(int _i)                                                                                     \
    {                                                                                                                  \
        (void)_i;
#define END_TEST }

Suite *suite_create(const char *name);
TCase *tcase_create(const char *name);
void suite_add_tcase(Suite *s, TCase *t);
void tcase_set_timeout(TCase *t, double seconds);
void tcase_add_checked_fixture(TCase *t, void (*setup)(void), void (*teardown)(void));
void tcase_add_loop_test(TCase *t, const TTest *test, int from, int end);
#define tcase_add_test(t, test) tcase_add_loop_test(t, test, 0, 1)
SRunner *srunner_create(Suite *s); /* ends the suite with it */
void srunner_run_all(SRunner *r, enum print_output mode);
int srunner_ntests_failed(SRunner *r);
int srunner_ntests_run(SRunner *r);
void srunner_free(SRunner *r);

#define ck_abort_msg(...) bare_fail(__FILE__, __LINE__, __VA_ARGS__)
#define ck_assert_msg(condition, ...) ((condition) ? (void)0 : bare_fail(__FILE__, __LINE__, __VA_ARGS__))
#define ck_assert(condition) ck_assert_msg(condition, "'%s' is false", #condition)

#define BARE_COMPARE(type, shown, format, a, op, b)                                                                    \
    do {                                                                                                               \
        type left_ = (a);                                                                                              \
        type right_ = (b);                                                                                             \
        ck_assert_msg(left_ op right_, "'%s' is false: " format ", " format, #a " " #op " " #b, (shown)left_,          \
                      (shown)right_);                                                                                  \
    } while (0)
#define BARE_INT(a, op, b) BARE_COMPARE(intmax_t, long long, "%lld", a, op, b)
#define BARE_UINT(a, op, b) BARE_COMPARE(uintmax_t, unsigned long long, "%llu", a, op, b)
#define BARE_DOUBLE(a, op, b) BARE_COMPARE(double, double, "%.17g", a, op, b)
#define ck_assert_int_eq(a, b) BARE_INT(a, ==, b)
#define ck_assert_int_ne(a, b) BARE_INT(a, !=, b)
#define ck_assert_int_lt(a, b) BARE_INT(a, <, b)
#define ck_assert_int_le(a, b) BARE_INT(a, <=, b)
#define ck_assert_int_gt(a, b) BARE_INT(a, >, b)
#define ck_assert_int_ge(a, b) BARE_INT(a, >=, b)
#define ck_assert_uint_eq(a, b) BARE_UINT(a, ==, b)
#define ck_assert_uint_le(a, b) BARE_UINT(a, <=, b)
#define ck_assert_uint_ge(a, b) BARE_UINT(a, >=, b)
#define ck_assert_double_eq(a, b) BARE_DOUBLE(a, ==, b)
#define ck_assert_double_ne(a, b) BARE_DOUBLE(a, !=, b)
#define ck_assert_double_lt(a, b) BARE_DOUBLE(a, <, b)
#define ck_assert_double_le(a, b) BARE_DOUBLE(a, <=, b)
#define ck_assert_double_gt(a, b) BARE_DOUBLE(a, >, b)
#define ck_assert_double_ge(a, b) BARE_DOUBLE(a, >=, b)
#define ck_assert_float_eq(a, b) BARE_COMPARE(float, double, "%.9g", a, ==, b)
#define ck_assert_double_eq_tol(a, b, tolerance) BARE_DOUBLE(fabs((double)(a) - (double)(b)), <, tolerance)
#define ck_assert_ptr_eq(a, b) BARE_COMPARE(const void *, const void *, "%p", a, ==, b)
#define ck_assert_ptr_null(a) ck_assert_ptr_eq(a, NULL)
#define ck_assert_ptr_nonnull(a) BARE_COMPARE(const void *, const void *, "%p", a, !=, NULL)
#define ck_assert_mem_eq(a, b, n) ck_assert(memcmp(a, b, n) == 0)
#define ck_assert_mem_ne(a, b, n) ck_assert(memcmp(a, b, n) != 0)
#define ck_assert_str_eq(a, b)                                                                                         \
    do {                                                                                                               \
        const char *left_ = (a), *right_ = (b);                                                                        \
        ck_assert_msg(strcmp(left_, right_) == 0, "%s: '%s', '%s'", #a " == " #b, left_, right_);                      \
    } while (0)

#endif
