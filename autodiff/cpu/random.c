/* Uniform and normal fills, compiled once per precision and instruction set; the CPU backend calls them through
 * random.h. Whole tiles of blocks are computed in loops that the compiler vectorises; a range's ragged ends go through
 * a buffer; small draws of several sites are computed together.
 */
#include "autodiff/cpu/random.h"

#include <stdbool.h>
#include <string.h>

#ifdef __SSE2__
#include <immintrin.h>
#endif

#include "autodiff/draw.h"

/* Blocks of a tile, of a small one for few draws, and elements of a tile. */
enum { TILE = 64, SMALL = 16, ELEMENTS = TILE * DRAW_LANES };
#define TILED static inline __attribute__((always_inline)) void

typedef struct {
    uint64_t key;
    uint32_t site, draw, run;
} stream;

/* philox_word4 on a vector of blocks: a word in each 64 bit lane, whose upper half is not looked at.  By hand since the
 * compiler has no loop form of the instruction that multiplies lower halves, and this is most of a draw's cost. */
#if defined __AVX512F__
typedef uint64_t words __attribute__((vector_size(64)));
typedef uint32_t halves __attribute__((vector_size(32)));
static inline words multiply(words a, words b)
{
    return (words)_mm512_mul_epu32((__m512i)a, (__m512i)b);
}
#elif defined __AVX2__
typedef uint64_t words __attribute__((vector_size(32)));
typedef uint32_t halves __attribute__((vector_size(16)));
static inline words multiply(words a, words b)
{
    return (words)_mm256_mul_epu32((__m256i)a, (__m256i)b);
}
#else
typedef uint64_t words __attribute__((vector_size(16)));
typedef uint32_t halves __attribute__((vector_size(8)));
#if defined __SSE2__
static inline words multiply(words a, words b)
{
    return (words)_mm_mul_epu32((__m128i)a, (__m128i)b);
}
#else
static inline words multiply(words a, words b)
{
    return (a & UINT32_MAX) * b;
}
#endif
#endif
enum { WIDTH = sizeof(words) / sizeof(uint64_t) };

/* The words of WIDTH blocks, whose counters are c[4] -> bits[lane * stride + block] */
TILED block_bits(const words *c, uint64_t key, int stride, real_bits *restrict bits)
{
    const words zero = c[0] - c[0], m0 = zero + 0xd2511f53u, m1 = zero + 0xcd9e8d57u;
    words c0 = c[0], c1 = c[1], c2 = c[2], c3 = c[3];
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        words p = multiply(c0, m0), q = multiply(c2, m1);
        c0 = q >> 32 ^ c1 ^ k0;
        c1 = q;
        c2 = p >> 32 ^ c3 ^ k1;
        c3 = p;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
#if AD_REAL_BITS == 32
    const halves lanes[4] = { __builtin_convertvector(c0, halves), __builtin_convertvector(c1, halves),
                              __builtin_convertvector(c2, halves), __builtin_convertvector(c3, halves) };
#else
    const words lanes[2] = { (c0 & UINT32_MAX) | c1 << 32, (c2 & UINT32_MAX) | c3 << 32 };
#endif
    for (int lane = 0; lane < DRAW_LANES; lane++)
        memcpy(bits + lane * stride, &lanes[lane], sizeof lanes[lane]);
}

/* Blocks first .. first + blocks - 1, first a multiple of TILE -> bits[lane][block] */
TILED tile_bits(const stream *s, uint64_t first, int blocks, real_bits (*restrict bits)[TILE])
{
    words index;
    for (int i = 0; i < WIDTH; i++)
        index[i] = first + (uint64_t)i;
    const words zero = index - index;
    const uint64_t high = (first >> 32 & 0xffff) | s->draw << 16;
    for (int j = 0; j < blocks; j += WIDTH) {
        const words c[4] = { index + (uint64_t)j, zero + high, zero + s->site, zero + s->run };
        block_bits(c, s->key, TILE, &bits[0][j]);
    }
}

/* out[blocks * DRAW_LANES], from block `first` on */
TILED tile_uniform(const stream *s, uint64_t first, int blocks, real *restrict out)
{
    real_bits bits[DRAW_LANES][TILE];
    tile_bits(s, first, blocks, bits);
    for (int j = 0; j < blocks; j++)
        for (int lane = 0; lane < DRAW_LANES; lane++)
            out[j * DRAW_LANES + lane] = draw_uniform_of(bits[lane][j]);
}

TILED tile_normal(const stream *s, uint64_t first, int blocks, real *restrict out)
{
    real_bits bits[DRAW_LANES][TILE];
    tile_bits(s, first, blocks, bits);
    for (int j = 0; j < blocks; j++)
        for (int lane = 0; lane < DRAW_LANES; lane += 2)
            draw_normals_of(bits[lane][j], bits[lane + 1][j], &out[j * DRAW_LANES + lane],
                            &out[j * DRAW_LANES + lane + 1]);
}

static void uniforms(const stream *s, uint64_t first, real *out) { tile_uniform(s, first, TILE, out); }
static void few_uniforms(const stream *s, uint64_t first, real *out) { tile_uniform(s, first, SMALL, out); }
static void normals(const stream *s, uint64_t first, real *out) { tile_normal(s, first, TILE, out); }
static void few_normals(const stream *s, uint64_t first, real *out) { tile_normal(s, first, SMALL, out); }

/* Elements [from, to) by tiles. */
typedef void tile_fn(const stream *, uint64_t, real *);
static inline void fill(tile_fn *tile, tile_fn *small, const stream *s, real *out, int64_t from, int64_t to)
{
    real buffer[ELEMENTS];
    for (int64_t start = from - from % ELEMENTS; start < to; start += ELEMENTS) {
        int64_t low = start < from ? from : start, high = start + ELEMENTS < to ? start + ELEMENTS : to;
        bool whole = high - low == ELEMENTS;
        real *into = whole ? out + (low - from) : buffer;
        (high - start <= SMALL * DRAW_LANES ? small : tile)(s, (uint64_t)start / DRAW_LANES, into);
        if (!whole)
            memcpy(out + (low - from), buffer + (low - start), (size_t)(high - low) * sizeof(real));
    }
}

void CPU_NAME(fill_uniform)(real *out, int64_t from, int64_t to, uint64_t key, uint32_t site, uint32_t draw,
                            uint32_t run)
{
    const stream s = { key, site, draw, run };
    fill(uniforms, few_uniforms, &s, out, from, to);
}

void CPU_NAME(fill_normal)(real *out, int64_t from, int64_t to, uint64_t key, uint32_t site, uint32_t draw,
                           uint32_t run)
{
    const stream s = { key, site, draw, run };
    fill(normals, few_normals, &s, out, from, to);
}

/* The blocks side by side, in as many vectors as they need; a pair of lanes is computed for all where one needs it. */
void CPU_NAME(fill_batch)(const draw_batch *d, uint64_t key, uint32_t run)
{
    real_bits bits[DRAW_LANES][DRAW_BLOCKS] = { { 0 } };
    real z[DRAW_LANES][DRAW_BLOCKS];
    for (int j = 0; j < d->blocks; j += WIDTH) {
        words c[4];
        for (int k = 0; k < 3; k++)
            memcpy(&c[k], &d->counter[k][j], sizeof c[k]);
        c[3] = c[0] - c[0] + run;
        block_bits(c, key, DRAW_BLOCKS, &bits[0][j]);
    }
    for (int lane = 0; lane < DRAW_LANES && lane < d->longest; lane += 2) {
        if (d->normal)
            for (int j = 0; j < DRAW_BLOCKS; j++)
                draw_normals_of(bits[lane][j], bits[lane + 1][j], &z[lane][j], &z[lane + 1][j]);
        else
            for (int j = 0; j < DRAW_BLOCKS; j++)
                z[lane][j] = draw_uniform_of(bits[lane][j]), z[lane + 1][j] = draw_uniform_of(bits[lane + 1][j]);
    }
    for (const draw_part *p = d->part; p < d->part + d->parts; p++)
        for (int32_t k = 0; k < p->n; k++)
            ((real *)p->out)[k] = z[k % DRAW_LANES][p->block + k / DRAW_LANES];
}
