/* The table of CPU kernels: one for each precision and instruction set, chosen when a context opens. `real` is float or
 * double by the table; sizes are in elements. No kernel allocates, locks or fails. */
#ifndef AUTODIFF_CPU_KERNELS_H
#define AUTODIFF_CPU_KERNELS_H

#include "autodiff/cpu/random.h"
#include "autodiff/tape.h"

/* out[i] = formula(a[i], b[i], c[i], d[i]); out may be any of the operands, else they do not overlap. */
typedef void elementwise_kernel(int64_t n, void *out, const void *a, const void *b, const void *c, const void *d);

/* One operation of a small program, with its addresses, on one element or on whole lines of 64 bytes: n elements. It
 * gives the bits of the loop above, and goes on to the operation behind it, so that nothing stands between two; the
 * last is small_end. */
typedef struct small_op small_op;
typedef void small_kernel(const small_op *o);
struct small_op {
    small_kernel *run;
    int64_t n;
    void *out;
    const void *in[4];
};

/* An operand of a weighted total and of a guard, whose work is shared out in chunks. */
enum { COLUMNS = 64 };

typedef struct total_term {
    int64_t size, weight; /* weight: which number */
} total_term;
typedef struct guard_term {
    int64_t first_chunk, size;
} guard_term;

typedef struct cpu_kernels {
    const char *isa;
    int bits;
    elementwise_kernel *elementwise[N_ELEMENTWISE];
    small_kernel *scalar[N_ELEMENTWISE], *lines[N_ELEMENTWISE];
    /* Of two rows at once, by the number of the first: into out and d, bit-equal to the two, for the price of one
     * exponential; NULL where a row has no pair. */
    elementwise_kernel *pair[N_ELEMENTWISE];
    small_kernel *scalar_pair[N_ELEMENTWISE], *lines_pair[N_ELEMENTWISE];
    small_kernel *small_copy, *small_splat, *small_clear, *small_end; /* one element; one into lines; zeros; nothing */
    void (*splat)(int64_t n, void *out, const void *value);           /* out[i] = *value */
    void (*store)(void *out, int64_t i, double value);                /* ((real *)out)[i] = value, from a double */
    void (*store_apart)(int64_t n, const double *value, void *out);   /* each a real at the start of its own 8 bytes */
    void (*arange)(int64_t from, int64_t n, void *out);               /* from, from + 1, ... */

    /* x (rows, n) -> out (rows): each row's sum or maximum, in an order fixed by n alone; blocks of long sums are added
     * in double */
    void (*sum_rows)(int64_t rows, int64_t n, const void *x, void *out);
    void (*max_rows)(int64_t rows, int64_t n, const void *x, void *out);
    /* x (n, stride) -> out: sums or maxima of `columns` (at most COLUMNS) neighbouring columns, likewise */
    void (*sum_columns)(int64_t n, int64_t stride, int64_t columns, const void *x, void *out);
    void (*max_columns)(int64_t n, int64_t stride, int64_t columns, const void *x, void *out);
    double (*total)(int64_t n, const void *x); /* sum in double */
    /* the sum of weight[term.weight] total(term.size, x[2 i]) over the terms i, in order */
    double (*weighted_total)(int64_t terms, const total_term *term, void *const *x, const double *weight);
    bool (*finite)(int64_t n, const void *x);
    bool (*finite_each)(int64_t terms, const guard_term *term, void *const *x); /* term[i].size elements of each x[i] */
    /* `lines` lines of n elements each, `stride` from one element to the next, `apart` from one line to the next */
    void (*cumsum)(int64_t n, int64_t stride, int64_t lines, int64_t apart, bool reverse, const void *x, void *out);
    void (*add_row)(int64_t n, const void *x, void *out);                              /* out += x */
    void (*add_to_doubles)(int64_t n, const void *x, double *sum);                     /* sum += x */
    void (*from_double)(int64_t n, const double *x, void *out);
    void (*from_byte)(int64_t n, const uint8_t *x, void *out);
    void (*from_int64)(int64_t n, const int64_t *x, void *out);
    /* elements [from, to) of the stream (autodiff/philox.h); out points at element `from` */
    void (*uniform)(void *out, int64_t from, int64_t to, uint64_t key, uint32_t site, uint32_t draw, uint32_t run);
    void (*normal)(void *out, int64_t from, int64_t to, uint64_t key, uint32_t site, uint32_t draw, uint32_t run);
    void (*draw_batch)(const draw_batch *d, uint64_t key, uint32_t run);
} cpu_kernels;

#define CPU_DECLARE_KERNELS(isa) extern const cpu_kernels cpu_kernels_f32_##isa, cpu_kernels_f64_##isa;
CPU_FOR_EACH_ISA(CPU_DECLARE_KERNELS)

#endif
