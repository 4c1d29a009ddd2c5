/* A context on the device that is judged: the emulated one (emulated_device.h), or the one that $TAPER_TEST_DEVICE
 * names, as gpu_check sets it. Included by the suites that look at the CUDA backend's code. */
#ifndef TESTS_JUDGED_H
#define TESTS_JUDGED_H

#include <stdlib.h>
#include <string.h>

#include "tests/test.h"

static inline ad_context *open_context(const char *device, ad_precision precision)
{
    setenv("TAPER_BACKEND_PATH", TAPER_BACKENDS, 1);
    ad_context *c = ad_context_new(&(ad_options){ .precision = precision, .threads = 1, .device = device });
    ck_assert_ptr_nonnull(c);
    ad_context_use(c);
    ck_assert_msg(ad_ok(), "%s", ad_error());
    ad_seed(7);
    return c;
}

static inline const char *judged(void)
{
    const char *device = getenv("TAPER_TEST_DEVICE");
    return device ? device : "emulated";
}
static inline bool emulated(void)
{
    return !strcmp(judged(), "emulated");
}

#define NO_ERROR() ck_assert_msg(ad_ok(), "%s", ad_error())

#endif
