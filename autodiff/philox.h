/* Random bits as pure functions: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2,
 * 3", 2011), its keys and counters, and a keyed permutation.  C, and C++ for CUDA; needs no header.  draw.h makes reals
 * of it.
 *
 * The layout is part of the library's promise that a seed gives the same draws for ever:
 *     key     = philox_key(seed, stream, run), 64 bits, low word first
 *     counter = { block low 32, block high 16 | draw << 16, site, run low 32 },  block = element / lanes
 * where a block of four words serves 4 elements in float and 2 in double; site is a 32-bit hash of the site's name,
 * distinct within a context; draw < 2^16 separates several draws of one site (the lap of a draw beyond is mixed into
 * its site); element < 2^49 is the index in the whole tensor.
 */
#ifndef AD_PHILOX_H
#define AD_PHILOX_H

#ifdef __CUDACC__
#define PHILOX_FN static __host__ __device__ __forceinline__
#else
#define PHILOX_FN static inline __attribute__((always_inline, unused))
#endif

typedef unsigned int philox_word;

/* ctr[4], key[2] -> out[4], which may be ctr */
PHILOX_FN void philox_word4(const philox_word *ctr, const philox_word *key, philox_word *out)
{
    philox_word c0 = ctr[0], c1 = ctr[1], c2 = ctr[2], c3 = ctr[3], k0 = key[0], k1 = key[1];
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int round = 0; round < 10; round++) {
        unsigned long long p = 0xd2511f53ull * c0, q = 0xcd9e8d57ull * c2;
        c0 = (philox_word)(q >> 32) ^ c1 ^ k0;
        c1 = (philox_word)q;
        c2 = (philox_word)(p >> 32) ^ c3 ^ k1;
        c3 = (philox_word)p;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* The finaliser of splitmix64 (Steele, Lea, Flood 2014): a bijection of 64 bits, 0 to 0. */
PHILOX_FN unsigned long long philox_mix(unsigned long long x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

/* Key of the draws of one stream; the low half of run goes into the counter. */
PHILOX_FN unsigned long long philox_key(unsigned long long seed, unsigned long long stream, unsigned long long run)
{
    const unsigned long long golden = 0x9e3779b97f4a7c15ull;
    unsigned long long k = philox_mix(seed + golden);
    k = philox_mix((k ^ stream) + golden);
    return philox_mix((k ^ (run >> 32)) + golden);
}

/* The four words of one block; the counter is laid out as above. */
PHILOX_FN void philox_block(unsigned long long key, philox_word site, philox_word draw, philox_word run,
                            unsigned long long block, philox_word *out)
{
    philox_word k[2] = { (philox_word)key, (philox_word)(key >> 32) };
    out[0] = (philox_word)block;
    out[1] = ((philox_word)(block >> 32) & 0xffffu) | draw << 16;
    out[2] = site;
    out[3] = run;
    philox_word4(out, k, out);
}

/* Where i, 0 <= i < n, goes in a permutation of [0, n) chosen by key: a Feistel network on the bits of n - 1, walked
 * until it falls inside (Black and Rogaway 2002); fewer than two rounds of it on average. Halves of less than four bits
 * do not mix well: for n from 257 on, which is what philox_index asks. */
PHILOX_FN long long feistel_permute(unsigned long long key, long long i, long long n)
{
    int bits = 2;
    while (bits < 63 && (n - 1) >> bits)
        bits++;
    int half = bits / 2;
    unsigned long long x = (unsigned long long)i, low = (1ull << half) - 1, high = (1ull << (bits - half)) - 1;
    do {
        unsigned long long a = x & low, b = x >> half, k = key;
        for (int round = 0; round < 4; round++) {
            a ^= philox_mix(b + (k += 0x9e3779b97f4a7c15ull)) & low;
            b ^= philox_mix(a + (k += 0x9e3779b97f4a7c15ull)) & high;
        }
        x = b << half | a;
    } while (x >= (unsigned long long)n);
    return (long long)x;
}

/* ---- indices without replacement --------------------------------------------------------------------------------- */

/* Index i of a draw from [0, n) without replacement: where i goes in a permutation. Up to PHILOX_SHUFFLED it is the
 * shuffle of Fisher and Yates, in which every ordered choice of k has the same chance (but for 2^-120 of it); beyond,
 * the Feistel network, which needs no memory and no look at the indices before. */
enum { PHILOX_SHUFFLED = 256 };

/* The place that step i of the shuffle exchanges with place i, in [i, n): block i as a fraction of 128 bits, times
 * n - i, rounded down. n < 2^32 */
PHILOX_FN int philox_shuffle(unsigned long long key, philox_word site, philox_word draw, philox_word run, int i, int n)
{
    philox_word w[4];
    unsigned long long x = 0;
    philox_block(key, site, draw, run, (unsigned long long)i, w);
    for (int k = 0; k < 4; k++)
        x = (x + (unsigned long long)w[k] * (philox_word)(n - i)) >> 32;
    return i + (int)x;
}

/* The network's key, for n beyond PHILOX_SHUFFLED. */
PHILOX_FN unsigned long long philox_permutation(unsigned long long key, philox_word site, philox_word draw,
                                                philox_word run)
{
    philox_word w[4];
    philox_block(key, site, draw, run, 0, w);
    return w[0] | (unsigned long long)w[1] << 32;
}

/* The definition. What the shuffle has put at the place of step i is found by going back through the steps before: no
 * table, i blocks. */
PHILOX_FN long long philox_index(unsigned long long key, philox_word site, philox_word draw, philox_word run,
                                 long long i, long long n)
{
    if (n > PHILOX_SHUFFLED)
        return feistel_permute(philox_permutation(key, site, draw, run), i, n);
    int at = philox_shuffle(key, site, draw, run, (int)i, (int)n);
    for (int before = (int)i - 1; before >= 0; before--)
        if (philox_shuffle(key, site, draw, run, before, (int)n) == at)
            at = before;
    return at;
}

#endif
