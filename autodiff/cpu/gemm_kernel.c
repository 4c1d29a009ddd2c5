/* Matrix kernels, compiled once per precision and instruction set; gemm.c reaches them through the gemm_kernel at the
 * end. They may assume a plan made by the same kernel and operands that do not overlap. Panels and micro-tiles follow
 * Goto and van de Geijn, "Anatomy of high-performance matrix multiplication" (2008), with the panel of B rather than
 * the block of A in the first-level cache: a panel is 48 floats wide, so little of A passes per multiply-add. */
#include "autodiff/cpu/gemm.h"
#include "autodiff/cpu/gemm_vec.h"
#include "autodiff/cpu/gemm_thin.h"

/* Limits of the paths and chunks, measured with the AVX-512 kernels on products of 1 to 4096 rows. */
enum {
    CHUNK_ROWS = 8 * TILE_ROWS,       /* rows that pass a panel of B while it is in the first-level cache */
    COPY_COLUMNS = 4 * TILE_VECS * W, /* from here on a copy of transposed A pays */
    TINY_TERMS = 64,                  /* M N K of a plain triple loop */
    DOTS_ROWS = 4,                    /* M of dot products with rows of B */
    ROWS_TERMS = 8,                   /* K of a C made row by row: bound by writing it */
    PANELS_ROWS = 64,                 /* M of panels packed within the chunk */
    FEW_CHUNKS = 16,
    CHUNK_TERMS = 1 << 18,            /* about 4 us of floats */
    PACK_ELEMENTS = 1 << 13,          /* of B in a pack chunk, at least */
};

/* --- Panels: the N columns as vectors, shared out evenly over the fewest panels of at most TILE_VECS. ------------- */

INLINE int64_t vecs(int64_t n) { return ceil_div(n, W); }
INLINE int64_t panels(int64_t n) { return ceil_div(vecs(n), TILE_VECS); }
INLINE int64_t panel_start(int64_t n, int64_t p) { return p * vecs(n) / panels(n); }

typedef struct panel {
    int64_t vec;  /* its first vector */
    int vecs;     /* how many */
    int last;     /* lanes used of the last one */
} panel;

INLINE panel panel_at(int64_t n, int64_t p)
{
    panel r = {.vec = panel_start(n, p)};
    int64_t end = panel_start(n, p + 1);
    r.vecs = (int)(end - r.vec);
    r.last = (int)(min(n, end * W) - (end - 1) * W);
    return r;
}

/* --- Packing: op(B) (K, N) -> for each block of k, for each panel, its rows (kc, vecs W), zeros beyond N. --------- */

INLINE real *packed_panel(const gemm *g, const void *packed, int64_t k0, int64_t kc, int64_t vec)
{
    return (real *)packed + W * (k0 * vecs(g->n) + kc * vec);
}

/* b rows (kc, panel) -> out (kc, vecs W) */
static void pack_rows(const real *b, int64_t ldb, int64_t kc, panel p, real *out)
{
    for (int64_t k = 0; k < kc; k++, b += ldb, out += p.vecs * W) {
        for (int v = 0; v < p.vecs - 1; v++)
            store(out + v * W, load(b + v * W));
        store(out + (p.vecs - 1) * W, load_part(b + (p.vecs - 1) * W, p.last));
    }
}

/* b (columns <= W, kc <= W), its rows ldb apart -> out (kc, W), rows `stride` apart */
INLINE void pack_square(const real *b, int64_t ldb, int columns, int kc, real *out, int64_t stride)
{
    vec r[W];
    for (int i = 0; i < W; i++)
        r[i] = i < columns ? load_part(b + i * ldb, kc) : (vec){0};
    transpose(r);
    for (int i = 0; i < W; i++)
        if (i < kc)
            store(out + i * stride, r[i]);
}

/* b (panel, kc) -> out (kc, vecs W) */
static void pack_transposed(const real *b, int64_t ldb, int64_t kc, panel p, real *out)
{
    for (int v = 0; v < p.vecs; v++, b += W * ldb, out += W) {
        int columns = v == p.vecs - 1 ? p.last : W;
        int64_t k = 0;
        if (columns == W)
            for (; k + W <= kc; k += W)
                pack_square(b + k, ldb, W, W, out + k * p.vecs * W, p.vecs * W);
        for (; k < kc; k += W)
            pack_square(b + k, ldb, columns, (int)min(W, kc - k), out + k * p.vecs * W, p.vecs * W);
    }
}

INLINE void pack_panel(int transposed, const real *b, int64_t ldb, int64_t kc, panel p, real *out)
{
    if (transposed)
        pack_transposed(b, ldb, kc, p, out);
    else
        pack_rows(b, ldb, kc, p, out);
}

static void pack(const gemm *g, void *packed, int64_t chunk)
{
    int64_t count = panels(g->n), units = count * ceil_div(g->k, g->k_block);
    int64_t end = min(units, (chunk + 1) * g->pack_units);
    for (int64_t u = chunk * g->pack_units; u < end; u++) {
        int64_t k0 = u / count * g->k_block, kc = min(g->k_block, g->k - k0);
        panel p = panel_at(g->n, u % count);
        const real *b = (const real *)g->b + (g->transpose_b ? p.vec * W * g->ldb + k0 : k0 * g->ldb + p.vec * W);
        pack_panel(g->transpose_b, b, g->ldb, kc, p, packed_panel(g, packed, k0, kc, p.vec));
    }
}

/* --- The micro-tile. ---------------------------------------------------------------------------------------------- */

/* A strip of micro-tiles: c (rows, panel) = a (rows, kc) b (kc, panel) [+ c] */
typedef struct strip {
    int64_t rows, kc;
    const real *a;
    int64_t a_row, a_column; /* distance of a's rows, of its columns */
    const real *b;
    int64_t ldb;
    real *c;
    int64_t ldc;
    int last, add;           /* lanes used of the last vector; add to c */
} strip;

/* a (rows, kc), b (kc, vecs W) -> c (rows, vecs W). whole: b may be read to the end of its last vector. */
INLINE void multiply_tile(int rows, int vecs, int whole, int64_t kc, const real *a, int64_t a_row, int64_t a_column,
                          const real *b, int64_t ldb, real *c, int64_t ldc, int last, int add)
{
    vec sum[TILE_ROWS][TILE_VECS];
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vecs; v++)
            sum[i][v] = (vec){0};
    for (; kc; kc--, a += a_column, b += ldb) {
        vec row[TILE_VECS];
        for (int v = 0; v < vecs; v++)
            row[v] = whole || v < vecs - 1 ? load(b + v * W) : load_part(b + v * W, last);
        for (int i = 0; i < rows; i++) {
            vec x = broadcast(a[i * a_row]);
            for (int v = 0; v < vecs; v++)
                sum[i][v] = multiply_add(x, row[v], sum[i][v]);
        }
    }
    for (int i = 0; add && i < rows; i++)
        for (int v = 0; v < vecs; v++) {
            const real *old = c + i * ldc + v * W;
            sum[i][v] += v < vecs - 1 ? load(old) : load_part(old, last);
        }
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vecs; v++)
            if (v < vecs - 1)
                store(c + i * ldc + v * W, sum[i][v]);
            else
                store_part(c + i * ldc + v * W, sum[i][v], last);
}

INLINE void multiply_strip(int vecs, int whole, strip s, int64_t a_row, int64_t a_column)
{
#define TILES(size, condition)                                                                                  \
    for (; s.rows >= (size) && (condition); s.rows -= (size), s.a += (size) * a_row, s.c += (size) * s.ldc)     \
        multiply_tile(size, vecs, whole, s.kc, s.a, a_row, a_column, s.b, s.ldb, s.c, s.ldc, s.last, s.add)
    TILES(TILE_ROWS, 1);
    TILES(4, TILE_ROWS > 4);
    TILES(2, 1);
    TILES(1, 1);
#undef TILES
}

/* One function for each width, for a's rows contiguous, for its columns contiguous, and for b with a rest. */
#define STRIP(vecs)                                                                                      \
    static void by_rows_##vecs(const strip *s) { multiply_strip(vecs, 1, *s, s->a_row, 1); }             \
    static void by_columns_##vecs(const strip *s) { multiply_strip(vecs, 1, *s, 1, s->a_column); }       \
    static void with_rest_##vecs(const strip *s) { multiply_strip(vecs, 0, *s, s->a_row, s->a_column); }
STRIP(1)
STRIP(2)
#if TILE_VECS == 3
STRIP(3)
#define EACH_WIDTH(name) {name##1, name##2, name##3}
#else
#define EACH_WIDTH(name) {name##1, name##2}
#endif

enum { BY_ROWS, BY_COLUMNS, WITH_REST };
static void (*const strips[][TILE_VECS])(const strip *) = {
    EACH_WIDTH(by_rows_), EACH_WIDTH(by_columns_), EACH_WIDTH(with_rest_)};

/* --- Products of many rows: B packed for all chunks. -------------------------------------------------------------- */

/* a (kc, rows) by stored rows -> out (kc, rows) without gaps: a tile's walk down k would touch a page at every step. */
static void copy_columns(const real *a, int64_t lda, int64_t kc, int64_t rows, real *out)
{
    for (int64_t k = 0; k < kc; k++, a += lda, out += rows) {
        int64_t i = 0;
        for (; i + W <= rows; i += W)
            store(out + i, load(a + i));
        if (i < rows)
            store_part(out + i, load_part(a + i, (int)(rows - i)), (int)(rows - i));
    }
}

/* p: at most CHUNK_ROWS rows of g, all its columns. */
static void multiply_packed(const gemm *g, const void *packed, part p)
{
    real copy[CHUNK_ROWS * K_BLOCK] __attribute__((aligned(64)));
    int64_t k0 = 0;
    do { /* once even if K = 0, to write C */
        int64_t kc = min(g->k_block, p.k - k0);
        strip s = {.rows = p.rows, .kc = kc, .ldc = p.ldc, .add = p.add || k0};
        s.a = p.a + k0 * p.a_column, s.a_row = p.a_row, s.a_column = p.a_column;
        if (g->transpose_a && p.columns >= COPY_COLUMNS) {
            copy_columns(s.a, p.a_column, kc, p.rows, copy);
            s.a = copy, s.a_column = p.rows;
        }
        for (int64_t q = 0; q < panels(p.columns); q++) {
            panel at = panel_at(p.columns, q);
            s.b = packed_panel(g, packed, k0, kc, at.vec), s.ldb = at.vecs * W;
            s.c = p.c + at.vec * W;
            s.last = at.last;
            strips[g->transpose_a ? BY_COLUMNS : BY_ROWS][at.vecs - 1](&s);
        }
        k0 += kc;
    } while (k0 < p.k);
}

/* --- Products of few rows: B where it lies or, if that is awkward, packed panel by panel within the chunk. -------- */

static void multiply_panels(const gemm *g, part p)
{
    real packed[K_BLOCK * TILE_VECS * W] __attribute__((aligned(64)));
    int pack_it = g->transpose_b || p.rows > 2 * TILE_ROWS, by = g->transpose_a ? BY_COLUMNS : BY_ROWS;
    int64_t k0 = 0;
    do {
        int64_t kc = min(g->k_block, p.k - k0);
        strip s = {.rows = p.rows, .kc = kc, .ldc = p.ldc, .add = p.add || k0};
        s.a = p.a + k0 * p.a_column, s.a_row = p.a_row, s.a_column = p.a_column;
        for (int64_t q = 0; q < panels(p.columns); q++) {
            panel at = panel_at(p.columns, q);
            s.b = p.b + (g->transpose_b ? at.vec * W * p.ldb + k0 : k0 * p.ldb + at.vec * W), s.ldb = p.ldb;
            s.c = p.c + at.vec * W;
            s.last = at.last;
            if (pack_it) {
                pack_panel(g->transpose_b, s.b, p.ldb, kc, at, packed);
                s.b = packed, s.ldb = at.vecs * W;
            }
            strips[!pack_it && at.last < W ? WITH_REST : by][at.vecs - 1](&s);
        }
        k0 += kc;
    } while (k0 < p.k);
}

/* --- The plan: a path and blocks, from shapes alone. -------------------------------------------------------------- */

enum path { PACKED, PANELS, DOTS, ROWS, TINY };

static enum path choose_path(const gemm *g)
{
    if (g->swapped)
        return g->transpose_a ? ROWS : DOTS;
    if (g->m <= TINY_TERMS && g->n <= TINY_TERMS && g->k <= TINY_TERMS && g->m * g->n * g->k <= TINY_TERMS)
        return TINY;
    if (g->transpose_b && !g->transpose_a && g->m <= DOTS_ROWS)
        return DOTS;
    if (!g->transpose_b && (g->m == 1 || (g->k <= ROWS_TERMS && g->n >= 8 * W)))
        return ROWS;
    return g->m <= PANELS_ROWS ? PANELS : PACKED;
}

/* A chunk earns a thread's visit by CHUNK_TERMS multiply-adds or, where it is bound by memory, by an eighth of them.
 * Above that there are at least 16, if the shape yields them: blocks of rows, so that an epilogue finds finished rows
 * in cache, and of columns in products of few rows. */
static void plan(gemm *g)
{
    g->swapped = g->n == 1 && g->m > 1 && g->ldc == 1 && (g->transpose_b || g->ldb == 1);
    g->path = choose_path(g);
    int64_t k = max(1, g->k), m = max(1, g->m), n = max(1, g->n);
    g->k_block = round_up(ceil_div(k, ceil_div(k, K_BLOCK)), 4);
    g->packed_bytes = 0;
    g->pack_chunks = 0;
    g->block_rows = m;
    g->block_columns = n;
    if (g->path == PACKED || (g->path == ROWS && m > 1) || g->swapped) {
        int64_t worthwhile = ceil_div(g->path == PACKED ? CHUNK_TERMS : CHUNK_TERMS / 8, n * k);
        g->block_rows = round_up(max(worthwhile, min(CHUNK_ROWS, m / FEW_CHUNKS)), g->swapped ? 8 * W : TILE_ROWS);
    } else if (!g->whole_rows && g->path != TINY) {
        int64_t worthwhile = ceil_div(CHUNK_TERMS, k * max(8, m));
        g->block_columns = round_up(max(worthwhile, n / FEW_CHUNKS), 8 * W); /* whole BLOCKS, for the bits */
    }
    g->chunks = ceil_div(g->m, g->block_rows) * ceil_div(g->n, g->block_columns);
    if (g->path == PACKED) {
        int64_t units = panels(g->n) * ceil_div(g->k, g->k_block);
        g->packed_bytes = sizeof(real) * W * vecs(g->n) * g->k;
        g->pack_units = max(1, PACK_ELEMENTS / (g->k_block * TILE_VECS * W));
        g->pack_chunks = ceil_div(units, g->pack_units);
    }
}

/* The chunk's product: row and column within C. A swapped one is its transpose, (1, N) = B^T (1, K) A^T (K, M). */
static part part_of(const gemm *g, gemm_block at)
{
    part p = {.rows = at.rows, .columns = at.columns, .k = g->k, .ldb = g->ldb, .ldc = g->ldc, .add = g->accumulate};
    p.a_row = g->transpose_a ? 1 : g->lda;
    p.a_column = g->transpose_a ? g->lda : 1;
    p.a = (const real *)g->a + at.row * p.a_row;
    p.b = (const real *)g->b + at.column * (g->transpose_b ? g->ldb : 1);
    p.c = (real *)g->c + at.row * g->ldc + at.column;
    if (g->swapped) {
        const real *x = p.b;
        p.b = p.a, p.ldb = g->lda;
        p.a = x, p.a_row = 0, p.a_column = 1;
        p.rows = 1, p.columns = at.rows;
    }
    return p;
}

static void multiply(const gemm *g, const void *packed, int64_t chunk)
{
    gemm_block at = g->chunks == 1 ? (gemm_block){0, g->m, 0, g->n} : gemm_block_of(g, chunk);
    part p = part_of(g, at);
    switch ((enum path)g->path) {
    case PACKED:
        for (; p.rows > 0; p.rows -= CHUNK_ROWS, p.a += CHUNK_ROWS * p.a_row, p.c += CHUNK_ROWS * p.ldc) {
            part few = p;
            few.rows = min(p.rows, CHUNK_ROWS);
            multiply_packed(g, packed, few);
        }
        break;
    case PANELS:
        multiply_panels(g, p);
        break;
    case DOTS:
        multiply_dots(p);
        break;
    case ROWS:
        multiply_rows(p);
        break;
    case TINY:
        multiply_tiny(p, g->transpose_b);
        break;
    }
}

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

extern const gemm_kernel CPU_NAME(gemm_kernel);
const gemm_kernel CPU_NAME(gemm_kernel) = {TEXT(CPU_ISA), AD_REAL_BITS, plan, pack, multiply};
