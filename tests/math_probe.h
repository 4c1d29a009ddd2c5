/* What tests/math_probe.c offers to test_math.c for each precision and instruction set: the functions of autodiff/real.h
 * over arrays.
 */
#ifndef TESTS_MATH_PROBE_H
#define TESTS_MATH_PROBE_H

#include <stdint.h>

#include "autodiff/cpu/isa.h"

/* x (n), y (n) -> out (n), arrays of real; functions of one argument leave y alone */
typedef struct math_probe {
    const char *name;
    void (*run)(const void *x, const void *y, void *out, int64_t n);
} math_probe;

/* Rows end with a NULL name. */
#define MATH_PROBES(isa) extern const math_probe math_probes_f32_##isa[], math_probes_f64_##isa[];
CPU_FOR_EACH_ISA(MATH_PROBES)

#endif
