/* The benchmark program's rows, and what its files share. bench.c times rows and writes lines; every other file adds
 * the rows of one subject. Rows run one after another, each in a context of its own, which is the current one. */
#ifndef TESTS_BENCH_BENCH_H
#define TESTS_BENCH_BENCH_H

#include "autodiff/ad.h"

#include <stdio.h>

/* A row does its work in units: one step, one recorded op, one product. */
typedef struct bench_row {
    char name[48];
    int threads; /* of its context; 0: what --threads says */
    int plans;   /* most plans in its context's cache; 0: the usual number */

    /* Makes the row's state, which `close` ends; NULL after an error, with the reason in ad_error(). All may be
     * NULL. */
    void *(*open)(const struct bench_row *row);
    void (*close)(void *state);
    /* Does n units; false after an error. */
    bool (*run)(void *state, int64_t n);
    /* Instead of run, for what a stopwatch around n units cannot tell: the microseconds of one unit, NAN after an
     * error. */
    double (*sample)(void *state);
    /* Of a row whose units are steps of SVI: makes one and returns its loss, for --losses. Else NULL. */
    double (*loss)(void *state);
    /* Adds keys to the row's line, as `,"key":value`. May be NULL. */
    void (*tell)(void *state, FILE *out, double median_us);

    /* What one unit moves and computes, for ns_per_element, gb_per_s, gflop_per_s and of_ceiling; 0: not told. */
    double elements, bytes, flops;
    const void *what; /* the file's own */
} bench_row;

void bench_add(const bench_row *row); /* copied */

/* Each adds the rows of its file. */
void bench_add_models(void);
void bench_add_densities(void);
void bench_add_recording(void);
void bench_add_operations(void);
void bench_add_ceilings(void);

double bench_now(void); /* seconds of the monotonic clock */
const char *bench_data_folder(void); /* --data, or NULL */
int bench_threads(void); /* --threads */
/* The first step of a small model, from nothing, for the row `start`; false after an error. */
bool bench_first_step(void);

/* What this machine can do on one thread, measured when first asked for: fused multiply-adds of floats in GFLOP/s (two
 * operations each), and copying in GB/s (bytes read + written) where source and destination are `bytes` together. */
double bench_peak_gflops(void);
double bench_copy_gbs(double bytes);

/* images (count, 784) of digits in [0, 1], MNIST's from --data or drawn ones, made once; NULL with a message on
 * stderr. */
const float *bench_digits(int64_t count);

#endif
