/* What recording costs without running, and how long a process takes to its first finished step. Called by bench.c. */
#include "ppl/ppl.h"
#include "tests/bench/bench.h"

#include <errno.h>
#include <math.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* ---- ops and sites ----------------------------------------------------------------------------------------------- */

enum { OPS = 1024, SITES = 128 };

/* A chain of sums of two tensors (64): n ops, on tapes of OPS. */
static void *open_ops(const bench_row *row)
{
    (void)row;
    return ad_state(AD_SHAPE(64));
}
static void close_tensor(void *state) { ad_free(state); }
static bool run_ops(void *state, int64_t n)
{
    ad_tensor *x = state;
    bool done = true;
    while (n > 0 && done)
        ad_scope {
            ad_tensor *y = x;
            for (int i = 0; i < OPS && n > 0; i++, n--) y = ad_add(y, x);
            done = !ad_is_nil(y);
        }
    return done;
}

/* Sites that draw from one Normal, under a trace: messages, names, the draw's own ops. */
typedef struct sites {
    char name[SITES][8];
    int64_t n;
} sites;

static void *open_sites(const bench_row *row)
{
    (void)row;
    sites *s = calloc(1, sizeof *s);
    for (int i = 0; s && i < SITES; i++) snprintf(s->name[i], sizeof s->name[i], "z%d", i);
    return s;
}
static void sample_sites(sites *s)
{
    distribution *d = dist_normal(0, 1);
    for (int64_t i = 0; i < s->n; i++) ppl_sample(s->name[i], d);
}
static bool run_sites(void *state, int64_t n)
{
    sites *s = state;
    bool done = true;
    while (n > 0 && done) {
        s->n = n < SITES ? n : SITES;
        n -= s->n;
        ad_scope {
            ppl_trace *t = ppl_trace_run(sample_sites, PPL_ARGS(sites *), s);
            done = ad_ok() && ppl_trace_size(t) == s->n;
        }
    }
    return done;
}

static void tell_ns(void *state, FILE *out, double median_us)
{
    (void)state;
    fprintf(out, ",\"ns\":%.1f", median_us * 1e3);
}

/* ---- a process's first step -------------------------------------------------------------------------------------- */

/* Runs this program again with --first-step, which writes the time at which the step was done: from before the process
 * exists to its first loss. */
static double sample_start(void *state)
{
    (void)state;
    int ends[2];
    if (pipe(ends)) return NAN;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    char threads[32];
    snprintf(threads, sizeof threads, "--threads=%d", bench_threads());
    char *arguments[] = { (char[]){ "bench" }, (char[]){ "--first-step" }, threads, NULL };
    pid_t child;
    double start = bench_now();
    int failed = posix_spawn(&child, "/proc/self/exe", &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    char text[64] = "";
    if (!failed) {
        ssize_t got = 0, n;
        while (got < (ssize_t)sizeof text - 1 &&
               ((n = read(ends[0], text + got, sizeof text - 1 - (size_t)got)) > 0 || (n < 0 && errno == EINTR)))
            got += n > 0 ? n : 0;
        waitpid(child, NULL, 0);
    }
    close(ends[0]);
    double end = atof(text);
    return end > 0 ? (end - start) * 1e6 : NAN;
}

void bench_add_recording(void)
{
    bench_add(&(bench_row){ .name = "record_op", .threads = 1, .open = open_ops, .close = close_tensor, .run = run_ops,
                            .tell = tell_ns });
    bench_add(&(bench_row){ .name = "record_site", .threads = 1, .open = open_sites, .close = free, .run = run_sites,
                            .tell = tell_ns });
    bench_add(&(bench_row){ .name = "start", .sample = sample_start });
}
