/* Runs suites as Check would; see check.h. Linked into the bare build's test program. */
#include "tests/bare/check.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_CASES = 16, MOST_TESTS = 128 };

struct TCase {
    const char *name;
    double seconds; /* 0: $CK_DEFAULT_TIMEOUT */
    void (*setup)(void), (*teardown)(void);
    struct {
        const TTest *test;
        int from, end;
    } tests[MOST_TESTS];
    int n;
};
struct Suite {
    const char *name;
    TCase *cases[MOST_CASES];
    int n;
};
struct SRunner {
    Suite *suite;
    int run, failed;
};

static jmp_buf leave;
static bool forks;

static void *make(size_t bytes)
{
    void *made = calloc(1, bytes);
    if (made)
        return made;
    perror("tests");
    exit(EXIT_FAILURE);
}

void bare_fail(const char *file, int line, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("%s:%d: ", file, line);
    vprintf(format, args);
    printf("\n");
    fflush(stdout);
    va_end(args);
    if (forks)
        _exit(EXIT_FAILURE);
    longjmp(leave, 1);
}

Suite *suite_create(const char *name)
{
    Suite *s = make(sizeof *s);
    s->name = name;
    return s;
}
TCase *tcase_create(const char *name)
{
    TCase *t = make(sizeof *t);
    t->name = name;
    return t;
}
static void full(const char *what)
{
    fprintf(stderr, "tests: too many %s\n", what);
    exit(EXIT_FAILURE);
}
void suite_add_tcase(Suite *s, TCase *t)
{
    if (s->n == MOST_CASES)
        full("cases");
    s->cases[s->n++] = t;
}
void tcase_set_timeout(TCase *t, double seconds)
{
    t->seconds = seconds;
}
void tcase_add_checked_fixture(TCase *t, void (*setup)(void), void (*teardown)(void))
{
    t->setup = setup;
    t->teardown = teardown;
}
void tcase_add_loop_test(TCase *t, const TTest *test, int from, int end)
{
    if (t->n == MOST_TESTS)
        full("tests");
    t->tests[t->n].test = test;
    t->tests[t->n].from = from;
    t->tests[t->n++].end = end;
}

static void perform(const TCase *t, const TTest *test, int i)
{
    if (t->setup)
        t->setup();
    test->run(i);
    if (t->teardown)
        t->teardown();
}

/* Whether it passed. */
static bool passes(const TCase *t, const TTest *test, int i)
{
    const char *standard = getenv("CK_DEFAULT_TIMEOUT");
    double seconds = t->seconds > 0 ? t->seconds : standard ? atof(standard) : 4;
    int status = 0;
    fflush(NULL);
    if (!forks) {
        bool failed = setjmp(leave);
        if (!failed)
            perform(t, test, i);
        return !failed;
    }
    pid_t child = fork();
    if (!child) {
        alarm((unsigned)ceil(seconds));
        perform(t, test, i);
        fflush(NULL);
        _exit(EXIT_SUCCESS);
    }
    while (child > 0 && waitpid(child, &status, 0) < 0)
        continue;
    if (child > 0 && WIFSIGNALED(status))
        printf("%s: ended by signal %d, %s\n", test->name, WTERMSIG(status), strsignal(WTERMSIG(status)));
    return child > 0 && status == 0;
}

SRunner *srunner_create(Suite *s)
{
    SRunner *r = make(sizeof *r);
    r->suite = s;
    return r;
}

void srunner_run_all(SRunner *r, enum print_output mode)
{
    const char *only = getenv("CK_RUN_CASE"), *fork_wanted = getenv("CK_FORK");
    (void)mode;
    forks = !fork_wanted || strcmp(fork_wanted, "no") != 0;
    for (int k = 0; k < r->suite->n; k++) {
        const TCase *t = r->suite->cases[k];
        if (only && strcmp(only, t->name))
            continue;
        for (int j = 0; j < t->n; j++)
            for (int i = t->tests[j].from; i < t->tests[j].end; i++) {
                r->run++;
                if (passes(t, t->tests[j].test, i))
                    continue;
                r->failed++;
                printf("%s: %s:%d failed\n", t->name, t->tests[j].test->name, i);
            }
    }
}
int srunner_ntests_failed(SRunner *r)
{
    return r->failed;
}
int srunner_ntests_run(SRunner *r)
{
    return r->run;
}
void srunner_free(SRunner *r)
{
    for (int k = 0; k < r->suite->n; k++)
        free(r->suite->cases[k]);
    free(r->suite);
    free(r);
}
