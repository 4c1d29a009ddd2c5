/* The random fills of the CPU backend, one pair for each precision and instruction set: the backend and the tests call
 * those of the set they run on, as CPU_NAME(fill_normal) from within a kernel object or as fill_normal_f32_avx2 from
 * without.
 */
#ifndef AD_CPU_RANDOM_H
#define AD_CPU_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

#include "autodiff/cpu/isa.h"

/* Elements [from, to) of a stream into out[0 .. to - from): the same bits for every set and every split of the range.
 * key from philox_key; site, draw, run as autodiff/philox.h says. */
/* Small draws of several sites at once: elements [0, n) of each part into part.out, the same bits as the fills'. The
 * first three counters of each block (autodiff/philox.h) stand ready; a part has n / lanes blocks, rounded up. */
enum { DRAW_BLOCKS = 16 };
typedef struct draw_part {
    void *out;
    int32_t n, block; /* elements, first block */
} draw_part;
typedef struct draw_batch {
    bool normal;
    int32_t parts, blocks, longest; /* longest: the greatest n */
    draw_part part[DRAW_BLOCKS];
    uint64_t counter[3][DRAW_BLOCKS];
} draw_batch;
#define CPU__FILLS(real, bits, isa)                                                                                    \
    void fill_uniform_f##bits##_##isa(real *out, int64_t from, int64_t to, uint64_t key, uint32_t site, uint32_t draw, \
                                      uint32_t run);                                                                   \
    void fill_normal_f##bits##_##isa(real *out, int64_t from, int64_t to, uint64_t key, uint32_t site, uint32_t draw,  \
                                     uint32_t run);                                                                    \
    void fill_batch_f##bits##_##isa(const draw_batch *d, uint64_t key, uint32_t run);
#define CPU__BOTH_FILLS(isa) CPU__FILLS(float, 32, isa) CPU__FILLS(double, 64, isa)
CPU_FOR_EACH_ISA(CPU__BOTH_FILLS)

#endif
