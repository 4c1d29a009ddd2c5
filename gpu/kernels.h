/* The device's kernels, as text that is CUDA, compiled at run time by the device, and C, by which tests judge it.
 * Included by every generated source; the host includes it for the words that both sides number (GPU_WORDS_ONLY). Of a
 * kernel, what changes between runs lies in `bind`, what never does in `step`: its launch is the same run after run. */
#ifndef GPU_KERNELS_H
#define GPU_KERNELS_H

/* Words of the bind; behind them the run-time numbers and constants (doubles), then the addresses of all steps. */
enum { BIND_KEY, BIND_RUN, BIND_BAD_NODE, BIND_NONFINITE, BIND_RECORD, BIND_NUMBERS };
/* Words of the record, host's memory at the address in BIND_RECORD: what the host wants to know of a run, written by
 * the kernels that find it out, so that nothing has to be fetched. The node of a bad index or -1, and its value;
 * whether a guarded value was not finite; then the totals that are read after the run (doubles). */
enum { RECORD_BAD_NODE, RECORD_BAD_VALUE, RECORD_NONFINITE, RECORD_TOTALS, RECORD_MOST_TOTALS = 8 };
/* Words of a step: whether it waits for the gate, the word of the bind where its addresses begin, its sizes. */
enum { STEP_GATED, STEP_ADDRESSES, STEP_SIZES };
/* Sizes of blocks of threads and of sums, fixed: the order of additions depends on shapes alone. */
enum { GPU_THREADS = 256, GPU_TOTAL_BLOCKS = 64 };
/* Most rows of a grid, which go on to the operands behind them: CUDA's limit is 65535, and a tape may have more
 * terms. Most blocks in each row of a guard, whose operands differ in size: most blocks would find nothing to do. */
enum { GPU_MOST_ROWS = 64, GPU_GUARD_BLOCKS = 64 };

#ifndef GPU_WORDS_ONLY

#include "autodiff/draw.h"

typedef long long word;

#ifdef __CUDACC__
#define DEVICE static __device__ __forceinline__
#define KERNEL(name) extern "C" __global__ void name(word *__restrict__ bind, const word *__restrict__ step)
#define THREAD ((int)threadIdx.x)
#define THREADS ((int)blockDim.x)
#define BLOCK ((word)blockIdx.x)
#define BLOCKS ((word)gridDim.x)
#define ROW ((word)blockIdx.y)
#define ROWS ((word)gridDim.y)
#endif

/* The elementwise operations: op_add(a, b), ... */
#define AD_OP1(name, formula, ...)                                                                                     \
    REAL_FN real op_##name(real x)                                                                                     \
    {                                                                                                                  \
        return formula;                                                                                                \
    }
#define AD_OP2(name, formula, ...)                                                                                     \
    REAL_FN real op_##name(real a, real b)                                                                             \
    {                                                                                                                  \
        return formula;                                                                                                \
    }
#define AD_OP3(name, formula, ...)                                                                                     \
    REAL_FN real op_##name(real a, real b, real c)                                                                     \
    {                                                                                                                  \
        return formula;                                                                                                \
    }
#define AD_OP4(name, formula, ...)                                                                                     \
    REAL_FN real op_##name(real a, real b, real c, real d)                                                             \
    {                                                                                                                  \
        return formula;                                                                                                \
    }
#include "autodiff/ops.def"

#define SIZE(k) (step[STEP_SIZES + (k)])
#define ADDRESS(type, k) ((type *)bind[step[STEP_ADDRESSES] + (k)])
#define RECORD(type) ((type *)bind[BIND_RECORD])
#define EACH(i, n) for (word i = BLOCK * THREADS + THREAD; i < (n); i += BLOCKS * THREADS)
/* Effects are made only where the values guarded before the gate are finite and no index was bad. */
#define GATE                                                                                                           \
    if (step[STEP_GATED] && (bind[BIND_NONFINITE] || bind[BIND_BAD_NODE] >= 0))                                        \
    return

/* Where element i of a loop lies in a strided array: s is rank, then size and stride of each dimension, innermost
 * first. */
DEVICE word spread_at(const word *s, word i)
{
    word at = 0, rank = s[0];
    for (word r = 0; r < rank; r++) {
        word n = s[1 + 2 * r], next = r + 1 < rank ? i / n : 0;
        at += (i - next * n) * s[2 + 2 * r];
        i = next;
    }
    return at;
}

/* to[i] = from[j], elements of 1, 4 or 8 bytes */
DEVICE void move(void *to, word i, const void *from, word j, word bytes)
{
    if (bytes == 4)
        ((unsigned int *)to)[i] = ((const unsigned int *)from)[j];
    else if (bytes == 8)
        ((unsigned long long *)to)[i] = ((const unsigned long long *)from)[j];
    else
        ((unsigned char *)to)[i] = ((const unsigned char *)from)[j];
}
DEVICE void zero(void *to, word i, word bytes)
{
    if (bytes == 4)
        ((unsigned int *)to)[i] = 0;
    else if (bytes == 8)
        ((unsigned long long *)to)[i] = 0;
    else
        ((unsigned char *)to)[i] = 0;
}

#endif
#endif
