/* The elementwise and reducing kernels of one precision and instruction set: loops the compiler turns into vectors.
 * Compiled once for each; the table at the end is all that leaves the file. */
#include "autodiff/cpu/kernels.h"

#include <string.h>

#include "autodiff/real.h"

/* ---- elementwise, from the rows ---------------------------------------------------------------------------------- */

#define ELEMENTWISE(name)                                                                                              \
    static void kernel_##name(int64_t n, void *out_, const void *a_, const void *b_, const void *c_, const void *d_)
#ifdef __clang__
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif
#define LOOP INDEPENDENT for (int64_t i = 0; i < n; i++)
/* Small operations, for one element and for whole lines: each ends with a call that the compiler makes a jump. */
#define SMALL_KERNEL(name) static void name(const small_op *o)
#define NEXT() o[1].run(o + 1)
#define IN(j, i) ((const real *)o->in[j])[i]
#define OUT(i) ((real *)o->out)[i]
#define OPERANDS1(i) real x = IN(0, i);
#define OPERANDS2(i) real a = IN(0, i), b = IN(1, i);
#define OPERANDS3(i) real a = IN(0, i), b = IN(1, i), c = IN(2, i);
#define OPERANDS4(i) real a = IN(0, i), b = IN(1, i), c = IN(2, i), d = IN(3, i);
/* The compiler sees that no element is left over. */
#define EACH_OF_LINES INDEPENDENT for (int64_t i = 0, n = o->n & -(int64_t)LINE; i < n; i++)
enum { LINE = 64 / sizeof(real) };
#define SMALL(name, OPERANDS, formula)                                                                                 \
    SMALL_KERNEL(scalar_##name)                                                                                        \
    {                                                                                                                  \
        OPERANDS(0)                                                                                                    \
        OUT(0) = formula;                                                                                              \
        NEXT();                                                                                                        \
    }                                                                                                                  \
    SMALL_KERNEL(lines_##name)                                                                                         \
    {                                                                                                                  \
        EACH_OF_LINES                                                                                                  \
        {                                                                                                              \
            OPERANDS(i)                                                                                                \
            OUT(i) = formula;                                                                                          \
        }                                                                                                              \
        NEXT();                                                                                                        \
    }
#define AD_OP1(name, formula, ...)                                                                                     \
    SMALL(name, OPERANDS1, formula)                                                                                    \
    ELEMENTWISE(name)                                                                                                  \
    {                                                                                                                  \
        (void)b_, (void)c_, (void)d_;                                                                                  \
        real *out = out_;                                                                                              \
        const real *x_ = a_;                                                                                           \
        LOOP                                                                                                           \
        {                                                                                                              \
            real x = x_[i];                                                                                            \
            out[i] = formula;                                                                                          \
        }                                                                                                              \
    }
#define AD_OP2(name, formula, ...)                                                                                     \
    SMALL(name, OPERANDS2, formula)                                                                                    \
    ELEMENTWISE(name)                                                                                                  \
    {                                                                                                                  \
        (void)c_, (void)d_;                                                                                            \
        real *out = out_;                                                                                              \
        const real *pa = a_, *pb = b_;                                                                                 \
        LOOP                                                                                                           \
        {                                                                                                              \
            real a = pa[i], b = pb[i];                                                                                 \
            out[i] = formula;                                                                                          \
        }                                                                                                              \
    }
#define AD_OP3(name, formula, ...)                                                                                     \
    SMALL(name, OPERANDS3, formula)                                                                                    \
    ELEMENTWISE(name)                                                                                                  \
    {                                                                                                                  \
        (void)d_;                                                                                                      \
        real *out = out_;                                                                                              \
        const real *pa = a_, *pb = b_, *pc = c_;                                                                       \
        LOOP                                                                                                           \
        {                                                                                                              \
            real a = pa[i], b = pb[i], c = pc[i];                                                                      \
            out[i] = formula;                                                                                          \
        }                                                                                                              \
    }
#define AD_OP4(name, formula, ...)                                                                                     \
    SMALL(name, OPERANDS4, formula)                                                                                    \
    ELEMENTWISE(name)                                                                                                  \
    {                                                                                                                  \
        real *out = out_;                                                                                              \
        const real *pa = a_, *pb = b_, *pc = c_, *pd = d_;                                                             \
        LOOP                                                                                                           \
        {                                                                                                              \
            real a = pa[i], b = pb[i], c = pc[i], d = pd[i];                                                           \
            out[i] = formula;                                                                                          \
        }                                                                                                              \
    }
#include "autodiff/ops.def"

/* The formulas by name, and from them the pairs: what two have in common the compiler computes once. */
#define AD_OP1(name, formula, ...)                                                                                     \
    REAL_FN real formula_##name(real x)                                                                                \
    {                                                                                                                  \
        return formula;                                                                                                \
    }
#define AD_OP2(name, formula, ...)                                                                                     \
    REAL_FN real formula_##name(real a, real b)                                                                        \
    {                                                                                                                  \
        return formula;                                                                                                \
    }
#define PAIR(first, second, OPERANDS, ...)                                                                             \
    ELEMENTWISE(pair_##first)                                                                                          \
    {                                                                                                                  \
        (void)b_, (void)c_;                                                                                            \
        real *out = out_, *beside = (real *)(uintptr_t)d_;                                                             \
        LOOP                                                                                                           \
        {                                                                                                              \
            OPERANDS                                                                                                   \
            out[i] = formula_##first(__VA_ARGS__);                                                                     \
            beside[i] = formula_##second(__VA_ARGS__);                                                                 \
        }                                                                                                              \
    }                                                                                                                  \
    SMALL_KERNEL(scalar_pair_##first)                                                                                  \
    {                                                                                                                  \
        enum { i = 0 };                                                                                                \
        const void *a_ = o->in[0], *b_ = o->in[1];                                                                     \
        (void)b_;                                                                                                      \
        OPERANDS                                                                                                       \
        OUT(0) = formula_##first(__VA_ARGS__);                                                                         \
        *(real *)(uintptr_t)o->in[3] = formula_##second(__VA_ARGS__);                                                  \
        NEXT();                                                                                                        \
    }                                                                                                                  \
    SMALL_KERNEL(lines_pair_##first)                                                                                   \
    {                                                                                                                  \
        kernel_pair_##first(o->n, o->out, o->in[0], o->in[1], NULL, o->in[3]);                                         \
        NEXT();                                                                                                        \
    }
#define PAIR_OPERANDS1 real x = ((const real *)a_)[i];
#define PAIR_OPERANDS2 real a = ((const real *)a_)[i], b = ((const real *)b_)[i];
#define AD_PAIR1(first, second) PAIR(first, second, PAIR_OPERANDS1, x)
#define AD_PAIR2(first, second) PAIR(first, second, PAIR_OPERANDS2, a, b)
#include "autodiff/ops.def"

SMALL_KERNEL(small_copy)
{
    OUT(0) = IN(0, 0);
    NEXT();
}
SMALL_KERNEL(small_splat)
{
    real value = IN(0, 0);
    EACH_OF_LINES OUT(i) = value;
    NEXT();
}
SMALL_KERNEL(small_clear)
{
    for (int64_t i = 0; i < o->n; i++)
        OUT(i) = 0;
    NEXT();
}
SMALL_KERNEL(small_end)
{
    (void)o;
}

/* ---- filling and converting -------------------------------------------------------------------------------------- */

static void splat(int64_t n, void *out_, const void *value)
{
    real *out = out_, v = *(const real *)value;
    for (int64_t i = 0; i < n; i++)
        out[i] = v;
}
static void store(void *out, int64_t i, double value)
{
    ((real *)out)[i] = (real)value;
}
static void store_apart(int64_t n, const double *restrict value, void *restrict out_)
{
    enum { APART = sizeof(double) / sizeof(real) };
    real *restrict out = out_;
    for (int64_t i = 0; i < n; i++)
        for (int j = 0; j < APART; j++)
            out[i * APART + j] = j ? 0 : (real)value[i];
}
static void arange(int64_t from, int64_t n, void *out_)
{
    real *out = out_;
    for (int64_t i = 0; i < n; i++)
        out[i] = (real)(from + i);
}
static void from_byte(int64_t n, const uint8_t *x, void *out_)
{
    real *out = out_;
    for (int64_t i = 0; i < n; i++)
        out[i] = (real)x[i];
}
static void from_int64(int64_t n, const int64_t *x, void *out_)
{
    real *out = out_;
    for (int64_t i = 0; i < n; i++)
        out[i] = (real)x[i];
}
static void add_row(int64_t n, const void *x_, void *out_)
{
    real *out = out_;
    const real *x = x_;
    for (int64_t i = 0; i < n; i++)
        out[i] += x[i];
}
static void add_to_doubles(int64_t n, const void *x_, double *sum)
{
    const real *x = x_;
    for (int64_t i = 0; i < n; i++)
        sum[i] += (double)x[i];
}
static void from_double(int64_t n, const double *x, void *out_)
{
    real *out = out_;
    for (int64_t i = 0; i < n; i++)
        out[i] = (real)x[i];
}

/* ---- reductions -------------------------------------------------------------------------------------------------- */

/* Partial results of a row, whatever the vectors' width: the order of additions is fixed by n alone. */
enum { LANES = 32 };

/* lane[0] becomes the sum of all, pairs first; widths are constants, for the compiler. */
#define HALVE(lane, half)                                                                                              \
    for (int j = 0; j < half; j++)                                                                                     \
    lane[j] += lane[j + half]
#define FOLD(lane)                                                                                                     \
    do {                                                                                                               \
        HALVE(lane, 16);                                                                                               \
        HALVE(lane, 8);                                                                                                \
        HALVE(lane, 4);                                                                                                \
        HALVE(lane, 2);                                                                                                \
        HALVE(lane, 1);                                                                                                \
    } while (0)

/* Long sums are cut into blocks, whose sums are added in double: a running sum of floats would lose what is added to it
 * once it is large. A block of rows, and as many rows of columns. */
enum { BLOCK = 1024, BLOCK_ROWS = 16 };

static real sum_block(int64_t n, const real *x)
{
    real lane[LANES] = { 0 }, sum = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++)
            lane[j] += x[i + j];
    if (i)
        FOLD(lane);
    for (; i < n; i++)
        sum += x[i];
    return lane[0] + sum;
}

static void sum_rows(int64_t rows, int64_t n, const void *x_, void *out_)
{
    real *out = out_;
    for (int64_t r = 0; r < rows; r++) {
        const real *x = (const real *)x_ + r * n;
        if (n <= BLOCK) {
            out[r] = sum_block(n, x);
            continue;
        }
        double sum = 0;
        for (int64_t i = 0; i < n; i += BLOCK)
            sum += (double)sum_block(n - i < BLOCK ? n - i : BLOCK, x + i);
        out[r] = (real)sum;
    }
}

static void max_rows(int64_t rows, int64_t n, const void *x_, void *out_)
{
    real *out = out_;
    for (int64_t r = 0; r < rows; r++) {
        const real *x = (const real *)x_ + r * n;
        real lane[LANES], most = x[0];
        int64_t i = 0;
        if (n >= LANES) {
            for (int j = 0; j < LANES; j++)
                lane[j] = x[j];
            for (i = LANES; i + LANES <= n; i += LANES)
                for (int j = 0; j < LANES; j++)
                    lane[j] = real_max(lane[j], x[i + j]);
            for (int j = 0; j < LANES; j++)
                most = real_max(most, lane[j]);
        }
        for (; i < n; i++)
            most = real_max(most, x[i]);
        out[r] = most;
    }
}

/* out (columns) = the sum of x (n, columns), rows `stride` apart */
static inline void add_rows(int64_t n, int64_t stride, int64_t columns, const real *restrict x, real *restrict out)
{
    for (int64_t i = 0; i < columns; i++)
        out[i] = 0;
    for (int64_t r = 0; r < n; r++)
        for (int64_t i = 0; i < columns; i++)
            out[i] += x[r * stride + i];
}

static void sum_columns(int64_t n, int64_t stride, int64_t columns, const void *x_, void *out_)
{
    const real *x = x_;
    real *out = out_;
    if (n <= BLOCK_ROWS) {
        add_rows(n, stride, columns, x, out);
        return;
    }
    double sum[COLUMNS] = { 0 };
    for (int64_t r = 0; r < n; r += BLOCK_ROWS) {
        add_rows(n - r < BLOCK_ROWS ? n - r : BLOCK_ROWS, stride, columns, x + r * stride, out);
        for (int64_t i = 0; i < columns; i++)
            sum[i] += (double)out[i];
    }
    for (int64_t i = 0; i < columns; i++)
        out[i] = (real)sum[i];
}

static void max_columns(int64_t n, int64_t stride, int64_t columns, const void *x_, void *out_)
{
    real *restrict out = out_;
    const real *restrict x = x_;
    for (int64_t i = 0; i < columns; i++)
        out[i] = x[i];
    for (int64_t r = 1; r < n; r++)
        for (int64_t i = 0; i < columns; i++)
            out[i] = real_max(out[i], x[r * stride + i]);
}

static double total(int64_t n, const void *x_)
{
    const real *x = x_;
    double lane[LANES], sum = 0;
    int64_t i = 0;
    lane[0] = 0;
    if (n >= LANES) {
        memset(lane, 0, sizeof lane);
        for (; i + LANES <= n; i += LANES)
            for (int j = 0; j < LANES; j++)
                lane[j] += (double)x[i + j];
        FOLD(lane);
    }
    for (; i < n; i++)
        sum += (double)x[i];
    return lane[0] + sum;
}
static double weighted_total(int64_t terms, const total_term *term, void *const *x, const double *weight)
{
    double sum = 0;
    for (int64_t i = 0; i < terms; i++)
        sum += weight[term[i].weight] *
               (term[i].size == 1 ? (double)*(const real *)x[2 * i] : total(term[i].size, x[2 * i]));
    return sum;
}

static bool all_finite(int64_t n, const void *x_)
{
    const real *x = x_;
    real_bits bad = 0, top = real_to_bits(REAL_INF);
    for (int64_t i = 0; i < n; i++)
        bad |= (real_to_bits(x[i]) & top) == top ? 1 : 0;
    return !bad;
}
static bool finite_each(int64_t terms, const guard_term *term, void *const *x)
{
    bool finite = true;
    for (int64_t i = 0; i < terms; i++)
        finite &= term[i].size == 1 ? *(const real *)x[i] - *(const real *)x[i] == 0 : all_finite(term[i].size, x[i]);
    return finite;
}

enum { CUMULATED = 8 };
/* `together` lines at once, a constant: an addition waits for the one before it in its line alone */
static inline void cumulate(int together, int64_t n, int64_t stride, int64_t apart, bool reverse,
                            const real *restrict x, real *restrict out)
{
    double sum[CUMULATED] = { 0 };
    for (int64_t i = 0; i < n; i++) {
        int64_t at = (reverse ? n - 1 - i : i) * stride;
        for (int j = 0; j < together; j++)
            out[at + j * apart] = (real)(sum[j] += (double)x[at + j * apart]);
    }
}
static void cumsum(int64_t n, int64_t stride, int64_t lines, int64_t apart, bool reverse, const void *x_, void *out_)
{
    const real *x = x_;
    real *out = out_;
    int64_t i = 0;
    for (; i + CUMULATED <= lines; i += CUMULATED)
        if (apart == 1)
            cumulate(CUMULATED, n, stride, 1, reverse, x + i, out + i);
        else
            cumulate(CUMULATED, n, stride, apart, reverse, x + i * apart, out + i * apart);
    for (; i < lines; i++)
        cumulate(1, n, stride, apart, reverse, x + i * apart, out + i * apart);
}

static void uniform(void *out, int64_t from, int64_t to, uint64_t key, uint32_t site, uint32_t draw, uint32_t run)
{
    CPU_NAME(fill_uniform)(out, from, to, key, site, draw, run);
}
static void normal(void *out, int64_t from, int64_t to, uint64_t key, uint32_t site, uint32_t draw, uint32_t run)
{
    CPU_NAME(fill_normal)(out, from, to, key, site, draw, run);
}

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

const cpu_kernels CPU_NAME(cpu_kernels) = {
    .isa = TEXT(CPU_ISA),
    .bits = AD_REAL_BITS,
    .elementwise = {
#define AD_OP1(name, ...) [OP_##name] = kernel_##name,
#define AD_OP2(name, ...) [OP_##name] = kernel_##name,
#define AD_OP3(name, ...) [OP_##name] = kernel_##name,
#define AD_OP4(name, ...) [OP_##name] = kernel_##name,
#include "autodiff/ops.def"
    },
    .scalar = {
#define AD_OP1(name, ...) [OP_##name] = scalar_##name,
#define AD_OP2(name, ...) [OP_##name] = scalar_##name,
#define AD_OP3(name, ...) [OP_##name] = scalar_##name,
#define AD_OP4(name, ...) [OP_##name] = scalar_##name,
#include "autodiff/ops.def"
    },
    .lines = {
#define AD_OP1(name, ...) [OP_##name] = lines_##name,
#define AD_OP2(name, ...) [OP_##name] = lines_##name,
#define AD_OP3(name, ...) [OP_##name] = lines_##name,
#define AD_OP4(name, ...) [OP_##name] = lines_##name,
#include "autodiff/ops.def"
    },
    .pair = {
#define AD_PAIR1(first, second) [OP_##first] = kernel_pair_##first,
#define AD_PAIR2(first, second) [OP_##first] = kernel_pair_##first,
#include "autodiff/ops.def"
    },
    .scalar_pair = {
#define AD_PAIR1(first, second) [OP_##first] = scalar_pair_##first,
#define AD_PAIR2(first, second) [OP_##first] = scalar_pair_##first,
#include "autodiff/ops.def"
    },
    .lines_pair = {
#define AD_PAIR1(first, second) [OP_##first] = lines_pair_##first,
#define AD_PAIR2(first, second) [OP_##first] = lines_pair_##first,
#include "autodiff/ops.def"
    },
    .small_copy = small_copy,
    .small_splat = small_splat,
    .small_clear = small_clear,
    .small_end = small_end,
    .splat = splat,
    .store = store,
    .store_apart = store_apart,
    .arange = arange,
    .sum_rows = sum_rows,
    .max_rows = max_rows,
    .sum_columns = sum_columns,
    .max_columns = max_columns,
    .total = total,
    .weighted_total = weighted_total,
    .finite = all_finite,
    .finite_each = finite_each,
    .cumsum = cumsum,
    .add_row = add_row,
    .add_to_doubles = add_to_doubles,
    .from_double = from_double,
    .from_byte = from_byte,
    .from_int64 = from_int64,
    .uniform = uniform,
    .normal = normal,
    .draw_batch = CPU_NAME(fill_batch),
};
