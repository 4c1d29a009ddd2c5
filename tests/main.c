/* Runs the suites named as arguments, all of them without arguments (CK_RUN_CASE names a case within).
 * Each test runs in its own process, so that a crash or a leak (under ASan) counts against that test alone. For each
 * suite it prints "name: 3 passed, 0 failed, 1 skipped", which tests/run adds up; it fails when any test does. */
#include "tests/test.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SUITE(name) Suite *suite_##name(void);
#include "tests/suites.def"
#undef SUITE

static const struct {
    const char *name;
    Suite *(*make)(void);
} suites[] = {
#define SUITE(name) { #name, suite_##name },
#include "tests/suites.def"
#undef SUITE
};

enum { SUITES = sizeof suites / sizeof suites[0] };

static atomic_int *skips; /* shared with the tests' processes */

void test_skip(const char *reason)
{
    atomic_fetch_add(skips, 1);
    printf("skipped: %s\n", reason);
    fflush(stdout);
}

/* Returns the number of tests that failed. */
static int run(const char *name, Suite *suite)
{
    atomic_store(skips, 0);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner), skipped = atomic_load(skips);
    printf("%s: %d passed, %d failed, %d skipped\n", name, srunner_ntests_run(runner) - failed - skipped, failed,
           skipped);
    fflush(stdout);
    srunner_free(runner);
    return failed;
}

static int chosen(const char *name, int count, char **names)
{
    for (int i = 0; i < count; i++)
        if (strcmp(name, names[i]) == 0)
            return 1;
    return count == 0;
}

int main(int argc, char **argv)
{
    skips = mmap(NULL, sizeof *skips, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (skips == MAP_FAILED) {
        perror("mmap");
        return EXIT_FAILURE;
    }
    setenv("CK_DEFAULT_TIMEOUT", "120", 0); /* seconds; Check's own 4 are short under sanitizers */

    int failed = 0, found = 0;
    for (int i = 0; i < SUITES; i++)
        if (chosen(suites[i].name, argc - 1, argv + 1)) {
            failed += run(suites[i].name, suites[i].make());
            found++;
        }
    if (found == 0 || (argc > 1 && found < argc - 1)) {
        fprintf(stderr, "%s: no such suite; there are:", argv[0]);
        for (int i = 0; i < SUITES; i++)
            fprintf(stderr, " %s", suites[i].name);
        fprintf(stderr, "\n");
        return EXIT_FAILURE;
    }
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
