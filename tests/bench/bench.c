/* The benchmark program: times the rows that the other files add and writes one JSON object for each on standard
 * output. Run by people, and by peers.py (--serve), which lets it alternate with other programs on the same work. */
#include "tests/bench/bench.h"

#include <argp.h>
#include <errno.h>
#include <fnmatch.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- rows -------------------------------------------------------------------------------------------------------- */

enum { MOST_ROWS = 256 };
static bench_row rows[MOST_ROWS];
static int n_rows;

void bench_add(const bench_row *row)
{
    if (n_rows == MOST_ROWS) {
        fprintf(stderr, "bench: more than %d rows\n", MOST_ROWS);
        exit(EXIT_FAILURE);
    }
    rows[n_rows++] = *row;
}

double bench_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- options ----------------------------------------------------------------------------------------------------- */

typedef struct options {
    const char *filter, *data;
    int threads, repeat, losses;
    bool list, serve, first_step;
} options;

static options chosen = { .filter = "*", .threads = 1, .repeat = 15 };
const char *bench_data_folder(void) { return chosen.data; }
int bench_threads(void) { return chosen.threads; }

enum { KEY_FIRST_STEP = 0x100, KEY_SERVE, KEY_LOSSES };
static const struct argp_option option_rows[] = {
    { "list", 'l', NULL, 0, "write the names of the rows and stop", 0 },
    { "filter", 'f', "NAME", 0, "only rows of this name; * stands for any text, ? for a character (default: *)", 0 },
    { "threads", 't', "N", 0, "threads of the steps; operations are always timed on one (default: 1)", 0 },
    { "repeat", 'r', "N", 0, "samples behind each median; a sample lasts a few milliseconds (default: 15)", 0 },
    { "data", 'd', "DIR", 0, "MNIST's folder for the steps on pictures (default: drawn digits)", 0 },
    { "losses", KEY_LOSSES, "N", 0,
      "write the losses of the first N steps, as hexadecimal numbers, instead of times; only rows that make steps", 0 },
    { "serve", KEY_SERVE, NULL, 0,
      "of the first row chosen: for each line N on standard input, write the median of N more samples, in "
      "microseconds", 0 },
    { "first-step", KEY_FIRST_STEP, NULL, OPTION_HIDDEN, "", 0 },
    { NULL, 0, NULL, 0, NULL, 0 }
};

static int number(struct argp_state *state, const char *option, const char *text, long most)
{
    char *end;
    errno = 0;
    long n = strtol(text, &end, 10);
    if (end == text || *end || errno || n < 1 || n > most)
        argp_error(state, "--%s takes a whole number from 1 to %ld, found '%s'", option, most, text);
    return (int)n;
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    options *o = state->input;
    switch (key) {
    case 'l': o->list = true; return 0;
    case 'f': o->filter = text; return 0;
    case 't': o->threads = number(state, "threads", text, 1024); return 0;
    case 'r': o->repeat = number(state, "repeat", text, 100000); return 0;
    case 'd': o->data = text; return 0;
    case KEY_LOSSES: o->losses = number(state, "losses", text, 1000000); return 0;
    case KEY_SERVE: o->serve = true; return 0;
    case KEY_FIRST_STEP: o->first_step = true; return 0;
    case ARGP_KEY_ARG: argp_error(state, "unexpected '%s'", text); return EINVAL;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp command = {
    .options = option_rows,
    .parser = parse,
    .doc = "Times Taper. Each line is a JSON object: median_us and min_us are microseconds per unit (a step, a "
           "recorded op, a kernel's call); of_ceiling, of the CPU alone, compares the rate with multiply-adds, or with "
           "copying of equal size, on this machine.",
};

/* ---- timing ------------------------------------------------------------------------------------------------------ */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Seconds of n units; NAN after an error. */
static double seconds(const bench_row *row, void *state, int64_t n)
{
    double start = bench_now();
    return row->run(state, n) ? bench_now() - start : NAN;
}

/* How many units make a sample, so that the clock's own cost and the noise of a single unit vanish. Warms up. */
static int64_t calibrate(const bench_row *row, void *state)
{
    const double warm = 0.03, sample = 0.003;
    if (row->sample) return 1;
    double spent = 0;
    int64_t n = 1;
    for (;;) {
        double s = seconds(row, state, n);
        if (isnan(s)) return 0;
        spent += s;
        if (s >= sample || spent > 1) {
            if (spent >= warm) return n;
            continue;
        }
        n *= 2;
    }
}

/* Samples of microseconds per unit, in ascending order; false after an error. */
static bool measure(const bench_row *row, void *state, int64_t units, int count, double *us)
{
    for (int i = 0; i < count; i++) {
        us[i] = row->sample ? row->sample(state) : seconds(row, state, units) / (double)units * 1e6;
        if (isnan(us[i])) return false;
    }
    qsort(us, (size_t)count, sizeof *us, ascending);
    return true;
}

/* ---- what is written --------------------------------------------------------------------------------------------- */

/* What the CPU can do at best is no measure of another device. */
static bool on_cpu(void) { return strncmp(ad_describe(), "CPU", 3) == 0; }

static void write_line(const bench_row *row, void *state, int threads, const double *us, int count)
{
    double median = us[count / 2], gbs = row->bytes / median * 1e-3, gflops = row->flops / median * 1e-3;
    printf("{\"name\":\"%s\",\"threads\":%d,\"median_us\":%.6g,\"min_us\":%.6g", row->name, threads, median, us[0]);
    if (row->elements > 0) printf(",\"ns_per_element\":%.4g", median * 1e3 / row->elements);
    if (row->bytes > 0) printf(",\"gb_per_s\":%.4g", gbs);
    if (row->flops > 0) printf(",\"gflop_per_s\":%.4g", gflops);
    if (row->flops > 0 && on_cpu()) printf(",\"of_ceiling\":%.3f", gflops / (bench_peak_gflops() * threads));
    else if (row->bytes > 0 && on_cpu()) printf(",\"of_ceiling\":%.3f", gbs / bench_copy_gbs(row->bytes));
    if (row->tell) row->tell(state, stdout, median);
    printf("}\n");
    fflush(stdout);
}

static bool write_losses(const bench_row *row, void *state, int count)
{
    for (int i = 1; i <= count; i++) {
        double loss = row->loss(state);
        if (isnan(loss)) return false;
        printf("%s %d %a\n", row->name, i, loss);
    }
    return true;
}

static bool serve(const bench_row *row, void *state, int64_t units)
{
    char line[64];
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        int count = atoi(line);
        if (count <= 0) break;
        double *us = malloc((size_t)count * sizeof *us), again;
        /* what ran in between has emptied the caches */
        bool done = us && measure(row, state, units, 1, &again) && measure(row, state, units, count, us);
        if (done) printf("%.6g\n", us[count / 2]);
        fflush(stdout);
        free(us);
        if (!done) return false;
    }
    return true;
}

/* ---- the program ------------------------------------------------------------------------------------------------- */

static bool perform(const bench_row *row)
{
    int threads = row->threads ? row->threads : chosen.threads;
    ad_context *c = ad_context_new(&(ad_options){ .threads = threads, .max_plans = row->plans });
    ad_context_use(c);
    double *us = malloc((size_t)chosen.repeat * sizeof *us);
    void *state = row->open ? row->open(row) : NULL;
    bool done = us && (state || !row->open);
    if (chosen.losses) {
        done = done && write_losses(row, state, chosen.losses);
        goto end;
    }
    int64_t units = done ? calibrate(row, state) : 0;
    done = done && units && (chosen.serve ? serve(row, state, units) : measure(row, state, units, chosen.repeat, us));
    if (done && !chosen.serve) write_line(row, state, threads, us, chosen.repeat);
end:
    if (!done) fprintf(stderr, "bench: %s: %s\n", row->name, *ad_error() ? ad_error() : "it failed");
    if (state && row->close) row->close(state);
    free(us);
    ad_context_free(NULL);
    return done;
}

/* Says on standard error what runs the kernels. */
static void introduce(void)
{
    ad_context_use(ad_context_new(&(ad_options){ .threads = chosen.threads }));
    fprintf(stderr, "bench: %s\n", ad_describe());
    ad_context_free(NULL);
}

int main(int argc, char **argv)
{
    argp_parse(&command, argc, argv, 0, NULL, &chosen);
    if (chosen.first_step) {
        if (!bench_first_step()) return EXIT_FAILURE;
        printf("%.9f\n", bench_now());
        return EXIT_SUCCESS;
    }
    bench_add_models();
    bench_add_densities();
    bench_add_recording();
    bench_add_operations();
    bench_add_ceilings();

    int found = 0, failed = 0;
    for (int i = 0; i < n_rows; i++) {
        if (fnmatch(chosen.filter, rows[i].name, 0) != 0 || (chosen.losses && !rows[i].loss)) continue;
        if (chosen.list) printf("%s\n", rows[i].name);
        else if (!found && !chosen.serve) introduce();
        found++;
        if (!chosen.list) failed += !perform(&rows[i]);
        if (chosen.serve) break;
    }
    if (!found) fprintf(stderr, "bench: no row is called '%s'; see --list\n", chosen.filter);
    return found && !failed ? EXIT_SUCCESS : EXIT_FAILURE;
}
