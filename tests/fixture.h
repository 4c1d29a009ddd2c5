/* What the tests of distributions and ppl share: a context of double precision around each test, and what they assert.
 * Included by test files alone. */
#ifndef TESTS_FIXTURE_H
#define TESTS_FIXTURE_H

#include <math.h>
#include <string.h>

#include "ppl/ppl.h"
#include "tests/test.h"

#define near(a, b, tolerance) ck_assert_double_le(fabs((a) - (b)), (tolerance)) /* false for NaN */
#define fine() ck_assert_msg(ad_ok(), "%s", ad_error())
#define says(text, words) ck_assert_msg(strstr(text, words), "want \"%s\" in: %s", words, text)
#define error_says(words) says(ad_error(), words)

static inline void begin_as(ad_precision precision)
{
    ad_context *c = ad_context_new(&(ad_options){ .precision = precision, .threads = 1 });
    ck_assert_ptr_nonnull(c);
    ad_context_use(c);
}
static inline void begin(void)
{
    begin_as(AD_DOUBLE);
}
static inline void end(void)
{
    ad_context_free(NULL);
}

/* A scalar parameter of the store. */
static inline double parameter(const char *name)
{
    double v = NAN;
    ck_assert_msg(ppl_param_value(name, &v, 1), "%s", ad_error());
    return v;
}
static inline void set(const char *name, double v)
{
    ck_assert_msg(ppl_param_set(name, &v, 1), "%s", ad_error());
}

#endif
