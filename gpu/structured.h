/* The kernels of the structured operations, one library for each precision; lower.c says what their sizes are. Text for
 * the device's compiler and, as C, for the tests. No atomics: the same bits run after run. */
#include "gpu/kernels.h"

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

/* The bind's numbers as reals, eight bytes apart. sizes: count; addresses: block */
KERNEL(store_numbers)
{
    const double *number = (const double *)(bind + BIND_NUMBERS);
    real *out = ADDRESS(real, 0);
    EACH(i, SIZE(0)) out[i * (word)(sizeof(double) / sizeof(real))] = (real)number[i];
}

KERNEL(arange)
{
    GATE;
    EACH(i, SIZE(0)) ADDRESS(real, 0)[i] = (real)i;
}

/* Draws. sizes: elements, site, draw, key and run (key 0: the bind's) */
DEVICE unsigned long long draw_key(const word *bind, const word *step)
{
    return (unsigned long long)(SIZE(3) ? SIZE(3) : bind[BIND_KEY]);
}
DEVICE philox_word draw_run(const word *bind, const word *step)
{
    return (philox_word)(SIZE(3) ? SIZE(4) : bind[BIND_RUN]);
}

KERNEL(random_uniform)
{
    GATE;
    real *out = ADDRESS(real, 0);
    EACH(block, (SIZE(0) + DRAW_LANES - 1) / DRAW_LANES)
    {
        real_bits bits[DRAW_LANES];
        draw_bits(draw_key(bind, step), (philox_word)SIZE(1), (philox_word)SIZE(2), draw_run(bind, step),
                  (unsigned long long)block, bits);
        for (int lane = 0; lane < DRAW_LANES; lane++)
            if (block * DRAW_LANES + lane < SIZE(0))
                out[block * DRAW_LANES + lane] = draw_uniform_of(bits[lane]);
    }
}

KERNEL(random_normal)
{
    GATE;
    real *out = ADDRESS(real, 0);
    EACH(block, (SIZE(0) + DRAW_LANES - 1) / DRAW_LANES)
    {
        real_bits bits[DRAW_LANES];
        real z[DRAW_LANES];
        draw_bits(draw_key(bind, step), (philox_word)SIZE(1), (philox_word)SIZE(2), draw_run(bind, step),
                  (unsigned long long)block, bits);
        for (int lane = 0; lane < DRAW_LANES; lane += 2)
            draw_normals_of(bits[lane], bits[lane + 1], &z[lane], &z[lane + 1]);
        for (int lane = 0; lane < DRAW_LANES; lane++)
            if (block * DRAW_LANES + lane < SIZE(0))
                out[block * DRAW_LANES + lane] = z[lane];
    }
}

/* sizes: as above, n */
KERNEL(random_index)
{
    GATE;
    EACH(i, SIZE(0))
    ADDRESS(word, 0)[i] = philox_index(draw_key(bind, step), (philox_word)SIZE(1), (philox_word)SIZE(2),
                                       draw_run(bind, step), i, SIZE(5));
}

/* ---- moving ------------------------------------------------------------------------------------------------------ */

/* expand, permute. sizes: elements, bytes of each, spread of x */
KERNEL(spread)
{
    GATE;
    EACH(i, SIZE(0)) move(ADDRESS(void, 0), i, ADDRESS(void, 1), spread_at(&SIZE(2), i), SIZE(1));
}

KERNEL(cast_byte)
{
    GATE;
    EACH(i, SIZE(0)) ADDRESS(real, 0)[i] = (real)ADDRESS(unsigned char, 1)[i];
}
KERNEL(cast_int64)
{
    GATE;
    EACH(i, SIZE(0)) ADDRESS(real, 0)[i] = (real)ADDRESS(word, 1)[i];
}

/* slice, pad: sizes: elements of the result, bytes of each, size, inner, length, start, scalar of the start or -1 */
DEVICE word cut_start(const word *bind, const word *step)
{
    return SIZE(6) < 0 ? SIZE(5) : (word)((const double *)(bind + BIND_NUMBERS))[SIZE(6)];
}
KERNEL(slice)
{
    GATE;
    word size = SIZE(2), inner = SIZE(3), length = SIZE(4), start = cut_start(bind, step);
    EACH(i, SIZE(0))
    {
        word outer = i / (length * inner), rest = i % (length * inner);
        move(ADDRESS(void, 0), i, ADDRESS(void, 1), (outer * size + start) * inner + rest, SIZE(1));
    }
}
KERNEL(pad)
{
    GATE;
    word size = SIZE(2), inner = SIZE(3), length = SIZE(4), start = cut_start(bind, step);
    EACH(i, SIZE(0))
    {
        word outer = i / (size * inner), rest = i % (size * inner) - start * inner;
        if (rest >= 0 && rest < length * inner)
            move(ADDRESS(void, 0), i, ADDRESS(void, 1), outer * length * inner + rest, SIZE(1));
        else
            zero(ADDRESS(void, 0), i, SIZE(1));
    }
}

/* One part of a concatenation to its place. sizes: elements of the part, bytes of each, size, inner, length, start */
KERNEL(paste)
{
    GATE;
    word size = SIZE(2), inner = SIZE(3), length = SIZE(4), start = SIZE(5);
    EACH(i, SIZE(0))
    {
        word outer = i / (length * inner), rest = i % (length * inner);
        move(ADDRESS(void, 0), (outer * size + start) * inner + rest, ADDRESS(void, 1), i, SIZE(1));
    }
}

/* sizes: bytes; addresses: of the assignment, state, value */
KERNEL(assign)
{
    GATE;
    EACH(i, SIZE(0) / 4) ADDRESS(unsigned int, 1)[i] = ADDRESS(unsigned int, 2)[i];
}

/* ---- indices ----------------------------------------------------------------------------------------------------- */

/* One block: the first index outside [0, size), told in the bind unless an earlier step told one. sizes: members, size,
 * node */
KERNEL(check_index)
{
    GATE;
    __shared__ word first[GPU_THREADS];
    const word *index = ADDRESS(word, 0);
    word mine = SIZE(0);
    for (word j = THREAD; j < SIZE(0); j += THREADS) /* to the end: its loads do not wait for each other */
        if ((index[j] < 0 || index[j] >= SIZE(1)) && mine == SIZE(0))
            mine = j;
    first[THREAD] = mine;
    __syncthreads();
    if (THREAD || bind[BIND_BAD_NODE] >= 0)
        return;
    for (int t = 1; t < THREADS; t++)
        if (first[t] < mine)
            mine = first[t];
    if (mine == SIZE(0))
        return;
    bind[BIND_BAD_NODE] = RECORD(word)[RECORD_BAD_NODE] = SIZE(2);
    RECORD(word)[RECORD_BAD_VALUE] = index[mine];
}

/* (outer, size, inner), index (members) -> (outer, members, inner). sizes: result's elements, members, size, inner,
 * bytes of an element */
KERNEL(gather)
{
    GATE;
    word members = SIZE(1), size = SIZE(2), inner = SIZE(3);
    const word *index = ADDRESS(word, 2);
    EACH(i, SIZE(0))
    {
        word k = i % inner, j = index[i / inner % members], outer = i / inner / members;
        if (j >= 0 && j < size)
            move(ADDRESS(void, 0), i, ADDRESS(void, 1), (outer * size + j) * inner + k, SIZE(4));
        else
            zero(ADDRESS(void, 0), i, SIZE(4));
    }
}

/* (outer, members, inner), index (members) -> (outer, size, inner): every sum by one thread, in the order of members.
 * sizes as of gather, reals */
KERNEL(scatter_add)
{
    GATE;
    word members = SIZE(1), size = SIZE(2), inner = SIZE(3);
    const word *index = ADDRESS(word, 2);
    const real *x = ADDRESS(real, 1);
    EACH(i, SIZE(0))
    {
        word k = i % inner, to = i / inner % size, outer = i / inner / size;
        double sum = 0;
        for (word j = 0; j < members; j++)
            if (index[j] == to)
                sum += (double)x[(outer * members + j) * inner + k];
        ADDRESS(real, 0)[i] = (real)sum;
    }
}

/* ---- reducing: sums in double, so that they keep their digits however long they are ------------------------------ */

/* Rows of up to n elements, row r from r * n on, of `total` elements in all: `lanes` threads a row, a power of two.
 * sizes: rows, n, total, lanes */
#define REDUCE_ROWS(name, number, START, JOIN)                                                                         \
    KERNEL(name)                                                                                                       \
    {                                                                                                                  \
        GATE;                                                                                                          \
        __shared__ number part[GPU_THREADS];                                                                           \
        word n = SIZE(1), lanes = SIZE(3), lane = THREAD % lanes;                                                      \
        const real *x = ADDRESS(real, 1);                                                                              \
        for (word from = BLOCK * (THREADS / lanes); from < SIZE(0); from += BLOCKS * (THREADS / lanes)) {              \
            word row = from + THREAD / lanes, end = (row + 1) * n < SIZE(2) ? (row + 1) * n : SIZE(2);                 \
            number y = START;                                                                                          \
            for (word i = row * n + lane; i < end; i += lanes)                                                         \
                y = JOIN(y, x[i]);                                                                                     \
            part[THREAD] = y;                                                                                          \
            __syncthreads();                                                                                           \
            for (word width = lanes / 2; width; width /= 2) {                                                          \
                if (lane < width)                                                                                      \
                    part[THREAD] = JOIN(part[THREAD], part[THREAD + width]);                                           \
                __syncthreads();                                                                                       \
            }                                                                                                          \
            if (!lane && row < SIZE(0))                                                                                \
                ADDRESS(real, 0)[row] = (real)part[THREAD];                                                            \
            __syncthreads();                                                                                           \
        }                                                                                                              \
    }
#define ADD(a, b) ((a) + (b))
REDUCE_ROWS(sum_rows, double, 0.0, ADD)
REDUCE_ROWS(max_rows, real, -REAL_INF, op_max)

/* (outer, n, inner) -> (outer, pieces, inner): a block for a tile of neighbouring columns and a piece of their rows.
 * Its threads lie `columns` (a power of two) side by side, the others below them; they go down the piece together and
 * join what they have. sizes: tiles in all, n, inner, rows of a piece, pieces, columns */
#define REDUCE_COLUMNS(name, number, START, JOIN)                                                                      \
    KERNEL(name)                                                                                                       \
    {                                                                                                                  \
        GATE;                                                                                                          \
        __shared__ number part[GPU_THREADS];                                                                           \
        word n = SIZE(1), inner = SIZE(2), piece = SIZE(3), pieces = SIZE(4), columns = SIZE(5);                       \
        word lanes = THREADS / columns, lane = THREAD / columns, across = (inner + columns - 1) / columns;             \
        const real *x = ADDRESS(real, 1);                                                                              \
        for (word tile = BLOCK; tile < SIZE(0); tile += BLOCKS) {                                                      \
            word k = tile % across * columns + THREAD % columns, outer = tile / across / pieces;                       \
            word from = tile / across % pieces * piece, end = from + piece < n ? from + piece : n;                     \
            number y = START;                                                                                          \
            for (word r = from + lane; r < end && k < inner; r += lanes)                                               \
                y = JOIN(y, x[(outer * n + r) * inner + k]);                                                           \
            part[THREAD] = y;                                                                                          \
            __syncthreads();                                                                                           \
            for (word width = lanes / 2; width; width /= 2) {                                                          \
                if (lane < width)                                                                                      \
                    part[THREAD] = JOIN(part[THREAD], part[THREAD + width * columns]);                                 \
                __syncthreads();                                                                                       \
            }                                                                                                          \
            if (!lane && k < inner)                                                                                    \
                ADDRESS(real, 0)[tile / across * inner + k] = (real)part[THREAD];                                      \
            __syncthreads();                                                                                           \
        }                                                                                                              \
    }
REDUCE_COLUMNS(sum_columns, double, 0.0, ADD)
REDUCE_COLUMNS(max_columns, real, -REAL_INF, op_max)

/* sizes: outer * inner, length, inner, reverse */
KERNEL(cumsum)
{
    GATE;
    word n = SIZE(1), inner = SIZE(2);
    EACH(i, SIZE(0))
    {
        word base = i / inner * n * inner + i % inner;
        double sum = 0;
        for (word r = 0; r < n; r++) {
            word at = base + (SIZE(3) ? n - 1 - r : r) * inner;
            sum += (double)ADDRESS(real, 1)[at];
            ADDRESS(real, 0)[at] = (real)sum;
        }
    }
}

/* ---- totals and the guard ---------------------------------------------------------------------------------------- */

DEVICE double block_sum(double mine, double *part)
{
    part[THREAD] = mine;
    __syncthreads();
    for (int width = THREADS / 2; width; width /= 2) {
        if (THREAD < width)
            part[THREAD] += part[THREAD + width];
        __syncthreads();
    }
    return part[0];
}

/* Each value's sum in double, by GPU_TOTAL_BLOCKS blocks in the row of its term. sizes: terms, of each value;
 * addresses: partial sums, then values and weights in turn */
KERNEL(total_partials)
{
    GATE;
    __shared__ double part[GPU_THREADS];
    for (word term = ROW; term < SIZE(0); term += ROWS) {
        const real *x = ADDRESS(real, 1 + 2 * term);
        double sum = 0;
        EACH(i, SIZE(1 + term)) sum += (double)x[i];
        sum = block_sum(sum, part);
        if (!THREAD)
            ADDRESS(double, 0)[term * GPU_TOTAL_BLOCKS + BLOCK] = sum;
        __syncthreads();
    }
}

/* One block of GPU_TOTAL_BLOCKS threads: their weighted sum, as a real and a double. sizes: terms, its number among the
 * record's totals or -1, scalar of each weight; addresses: out, partial sums */
KERNEL(total)
{
    GATE;
    __shared__ double part[GPU_TOTAL_BLOCKS];
    const double *number = (const double *)(bind + BIND_NUMBERS);
    double sum = 0;
    for (word t = 0; t < SIZE(0); t++) {
        sum += number[SIZE(2 + t)] * block_sum(ADDRESS(double, 1)[t * GPU_TOTAL_BLOCKS + THREAD], part);
        __syncthreads();
    }
    if (THREAD)
        return;
    ADDRESS(double, 0)[1] = sum;
    *ADDRESS(real, 0) = (real)sum;
    if (SIZE(1) >= 0)
        RECORD(double)[RECORD_TOTALS + SIZE(1)] = sum;
}

/* sizes: operands, of each; addresses: of the guard, operands. An operand has a row; all finders write the same. */
KERNEL(guard)
{
    GATE;
    for (word operand = ROW; operand < SIZE(0); operand += ROWS) {
        const real *x = ADDRESS(real, 1 + operand);
        EACH(i, SIZE(1 + operand))
        {
            if (!(x[i] - x[i] == 0))
                bind[BIND_NONFINITE] = RECORD(word)[RECORD_NONFINITE] = 1;
        }
    }
}
