/* What every test file includes: Check, and skipping with a reason.
 * A file test_NAME.c defines Suite *suite_NAME(void) and has the row SUITE(NAME) in suites.def. */
#ifndef TESTS_TEST_H
#define TESTS_TEST_H

#include <check.h>

/* Marks the running test as skipped and says why; the test returns after it. Works from Check's child processes. */
void test_skip(const char *reason);

#endif
