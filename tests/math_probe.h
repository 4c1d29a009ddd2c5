/* What tests/math_probe.c offers for each precision and instruction set: the functions of autodiff/real.h
 * over arrays, and the draws of autodiff/draw.h one by one (by test_random.c).
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

/* Draws from given bits, and by the definition that the fills must agree with. */
typedef struct draw_probe {
    double (*uniform_of)(uint64_t word);
    void (*normals_of)(uint64_t a, uint64_t b, double *z); /* z[2] */
    double (*uniform)(uint64_t key, uint32_t site, uint32_t draw, uint32_t run, uint64_t i);
    double (*normal)(uint64_t key, uint32_t site, uint32_t draw, uint32_t run, uint64_t i);
} draw_probe;

/* Rows end with a NULL name. */
#define MATH_PROBES(isa)                                                                                               \
    extern const math_probe math_probes_f32_##isa[], math_probes_f64_##isa[];                                          \
    extern const draw_probe draw_probe_f32_##isa, draw_probe_f64_##isa;
CPU_FOR_EACH_ISA(MATH_PROBES)

#endif
