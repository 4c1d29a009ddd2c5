/* Philox against its authors' vectors, the frozen layout of draws, uniforms and normals against their distributions,
 * the fills of every instruction set that this machine runs against the elementwise definition, and the keyed
 * permutation.
 */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "autodiff/cpu/random.h"
#include "autodiff/tape.h"
#include "tests/math_probe.h"
#include "tests/test.h"

/* ---- the sets of functions under test ---- */

typedef struct {
    const char *isa;
    const draw_probe *probe[2]; /* float, double */
    void (*uniform32)(float *, int64_t, int64_t, uint64_t, uint32_t, uint32_t, uint32_t);
    void (*uniform64)(double *, int64_t, int64_t, uint64_t, uint32_t, uint32_t, uint32_t);
    void (*normal32)(float *, int64_t, int64_t, uint64_t, uint32_t, uint32_t, uint32_t);
    void (*normal64)(double *, int64_t, int64_t, uint64_t, uint32_t, uint32_t, uint32_t);
    void (*batch[2])(const draw_batch *, uint64_t, uint32_t);
} variant;

#define VARIANT(isa)                                                                                                   \
    { #isa,                                                                                                            \
      { &draw_probe_f32_##isa, &draw_probe_f64_##isa },                                                                \
      fill_uniform_f32_##isa,                                                                                          \
      fill_uniform_f64_##isa,                                                                                          \
      fill_normal_f32_##isa,                                                                                           \
      fill_normal_f64_##isa,                                                                                           \
      { fill_batch_f32_##isa, fill_batch_f64_##isa } },
static const variant all_variants[] = { CPU_FOR_EACH_ISA(VARIANT) };

/* How many of them, from the first, this machine can run */
static int variants(void)
{
#ifdef __x86_64__
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return 1;
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")
               ? 3
               : 2;
#else
    return 1;
#endif
}

enum kind { UNIFORM, NORMAL };

/* Elements [from, to) as doubles, by the fill of a variant. */
static void fill(const variant *v, int bits, enum kind kind, double *out, int64_t from, int64_t to, uint64_t key,
                 uint32_t site, uint32_t draw, uint32_t run)
{
    if (bits == 64) {
        (kind == NORMAL ? v->normal64 : v->uniform64)(out, from, to, key, site, draw, run);
        return;
    }
    float *narrow = malloc((size_t)(to - from) * sizeof *narrow + 1);
    (kind == NORMAL ? v->normal32 : v->uniform32)(narrow, from, to, key, site, draw, run);
    for (int64_t i = 0; i < to - from; i++)
        out[i] = narrow[i];
    free(narrow);
}

/* ---- Philox ---- */

/* Random123's kat_vectors, philox4x32 with 10 rounds */
START_TEST(test_known_answers)
{
    static const struct {
        philox_word ctr[4], key[2], out[4];
    } kat[] = {
        { { 0, 0, 0, 0 }, { 0, 0 }, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
        { { 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff },
          { 0xffffffff, 0xffffffff },
          { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
        { { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 },
          { 0xa4093822, 0x299f31d0 },
          { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
    };
    for (int i = 0; i < 3; i++) {
        philox_word out[4];
        philox_word4(kat[i].ctr, kat[i].key, out);
        ck_assert_mem_eq(out, kat[i].out, sizeof out);
    }
}
END_TEST

/* The counter, written out by hand, for a block index beyond 32 bits */
START_TEST(test_layout)
{
    const uint64_t key = 0x0123456789abcdefu;
    const uint32_t site = 0xdeadbeef, draw = 0xa5b6, run = 0x12345678;
    const philox_word k[2] = { 0x89abcdef, 0x01234567 };
    const uint64_t block = 0x7654fedcba98u;
    philox_word ctr[4] = { 0xfedcba98, 0xa5b67654, site, run }, w[4];
    philox_word4(ctr, k, w);
    for (int v = 0; v < variants(); v++) {
        double out[4];
        fill(&all_variants[v], 32, UNIFORM, out, (int64_t)(4 * block), (int64_t)(4 * block + 4), key, site, draw, run);
        for (int i = 0; i < 4; i++)
            ck_assert_double_eq(out[i], (w[i] >> 9) * 0x1p-23 + 0x1p-24);
        fill(&all_variants[v], 64, UNIFORM, out, (int64_t)(2 * block), (int64_t)(2 * block + 2), key, site, draw, run);
        for (int i = 0; i < 2; i++)
            ck_assert_double_eq(out[i], ((w[2 * i] | (uint64_t)w[2 * i + 1] << 32) >> 12) * 0x1p-52 + 0x1p-53);
    }
}
END_TEST

/* Four normals of one stream, and a digest of 4096, frozen: they must never change. */
START_TEST(test_frozen)
{
    enum { N = 4096 };
    const uint64_t want_digest[2] = { 0xca5c26ca7c0c99du, 0xb659e1fb29200f0au };
    static const double want[2][4] = {
        { 0x1.afbbfp-1, -0x1.ea5568p-2, -0x1.66117ep+0, 0x1.578b0ap-1 },
        { 0x1.60e8de5a43fd7p+0, 0x1.db45079054b68p-2, 0x1.f554caa2f2a54p-3, 0x1.5a6686255b802p-2 },
    };
    uint64_t key = philox_key(2024, 1, 0x500000003u);
    ck_assert_uint_eq(key, 0xbfcce3d92a9c7891u);
    for (int v = 0; v < variants(); v++)
        for (int wide = 0; wide < 2; wide++) {
            static double z[N];
            uint64_t digest = 0, word;
            fill(&all_variants[v], wide ? 64 : 32, NORMAL, z, 1000, 1000 + N, key, 77, 1, 3);
            ck_assert_mem_eq(z, want[wide], sizeof want[wide]);
            for (int i = 0; i < N; i++) {
                memcpy(&word, &z[i], sizeof word);
                digest = philox_mix(digest ^ word);
            }
            ck_assert_uint_eq(digest, want_digest[wide]);
        }
}
END_TEST

/* ---- from bits to reals ---- */

START_TEST(test_open_interval)
{
    static const uint64_t words[] = { 0, 1, 511, UINT64_MAX, UINT64_MAX << 9, UINT64_MAX << 12, 1ull << 63 };
    for (int v = 0; v < variants(); v++)
        for (int wide = 0; wide < 2; wide++)
            for (int i = 0; i < 7; i++) {
                double u = all_variants[v].probe[wide]->uniform_of(words[i]), step = wide ? 0x1p-52 : 0x1p-23;
                ck_assert_double_ge(u, step / 2);
                ck_assert_double_le(u, 1 - step / 2);
            }
}
END_TEST

/* Box and Muller from extreme words: finite, bounded, and against libm in double */
START_TEST(test_box_muller)
{
    uint64_t words[40] = { 0,          1,          2,          UINT64_MAX, UINT64_MAX - 1,
                           1ull << 62, 1ull << 63, 3ull << 62, 1ull << 31, 3ull << 30 };
    for (int i = 10; i < 40; i++)
        words[i] = philox_mix((uint64_t)i);
    for (int v = 0; v < variants(); v++)
        for (int wide = 0; wide < 2; wide++)
            for (int i = 0; i < 40; i++)
                for (int j = 0; j < 40; j++) {
                    double z[2], a = (double)words[i] + 0.5, b = (double)(words[j] << 2 >> 12), scale = 0x1p-64;
                    uint64_t q = words[j] >> 62;
                    if (!wide) {
                        a = (uint32_t)words[i] + 0.5;
                        b = (uint32_t)words[j] << 2 >> 9;
                        q = (uint32_t)words[j] >> 30;
                        scale = 0x1p-32;
                    }
                    all_variants[v].probe[wide]->normals_of(words[i], words[j], z);
                    double radius = sqrt(-2 * log(fmin(a * scale, 1)));
                    double angle = acos(-1) / 2 * ((double)q + (b + 0.5) * (wide ? 0x1p-52 : 0x1p-23) - 0.5);
                    /* a radius near 0 is that of a rounded uniform */
                    double tolerance = wide ? 3e-14 : 3e-6, loose = wide ? 3e-8 : 5e-4;
                    tolerance = radius * radius < loose ? loose : tolerance;
                    ck_assert_double_le(hypot(z[0], z[1]), wide ? 9.5 : 6.8);
                    ck_assert_double_eq_tol(z[0], radius * cos(angle), tolerance);
                    ck_assert_double_eq_tol(z[1], radius * sin(angle), tolerance);
                }
}
END_TEST

/* ---- distributions ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Kolmogorov and Smirnov's sqrt(n) D; x is sorted */
static double kolmogorov(double *x, int n, enum kind kind)
{
    double worst = 0;
    qsort(x, (size_t)n, sizeof *x, by_value);
    for (int i = 0; i < n; i++) {
        double p = kind == NORMAL ? 0.5 * erfc(-x[i] * sqrt(0.5)) : x[i];
        double off = fmax(p - (double)i / n, (double)(i + 1) / n - p);
        worst = off > worst ? off : worst; /* so that GCC 12 compiles it for aarch64 */
    }
    return worst * sqrt(n);
}

/* Moments within 4.5 standard errors, correlation of neighbours likewise, Kolmogorov-Smirnov at one in ten thousand */
START_TEST(test_distribution)
{
    enum { N = 1 << 18 };
    const double moments[2][4] = { { 0.5, 1.0 / 3, 0.25, 0.2 }, { 0, 1, 0, 3 } };
    const double variances[2][4] = { { 1.0 / 12, 4.0 / 45, 9.0 / 112, 16.0 / 225 }, { 1, 2, 15, 96 } };
    const variant *v = &all_variants[variants() - 1];
    double *x = malloc(N * sizeof *x);
    for (int bits = 32; bits <= 64; bits += 32)
        for (enum kind kind = UNIFORM; kind <= NORMAL; kind++) {
            fill(v, bits, kind, x, 0, N, philox_key(1, 2, 3), 4, 5, 3);
            for (int power = 1; power <= 4; power++) {
                double sum = 0;
                for (int i = 0; i < N; i++)
                    sum += pow(x[i], power);
                double z = (sum / N - moments[kind][power - 1]) / sqrt(variances[kind][power - 1] / N);
                ck_assert_msg(fabs(z) < 4.5, "f%d kind %d: moment %d is %.1f standard errors off", bits, kind, power,
                              z);
            }
            for (int lag = 1; lag <= 8; lag++) {
                double mean = moments[kind][0], variance = variances[kind][0], plain = 0, squares = 0;
                for (int i = 0; i + lag < N; i++) {
                    double a = x[i] - mean, b = x[i + lag] - mean;
                    plain += a * b;
                    squares += (a * a - variance) * (b * b - variance);
                }
                double fourth = kind == NORMAL ? 2 : 1.0 / 180;
                ck_assert_double_le(fabs(plain) / (variance * sqrt(N)), 4.5);
                ck_assert_double_le(fabs(squares) / (fourth * sqrt(N)), 4.5);
            }
            ck_assert_double_le(kolmogorov(x, N, kind), 2.23);
        }
    free(x);
}
END_TEST

/* Each part of the address changes the draws. */
START_TEST(test_streams_differ)
{
    const uint64_t keys[] = { philox_key(0, 0, 0), philox_key(1, 0, 0), philox_key(0, 1, 0),
                              philox_key(0, 0, 1ull << 32) };
    double x[7][64];
    for (int i = 0; i < 4; i++)
        fill(&all_variants[0], 64, UNIFORM, x[i], 0, 64, keys[i], 0, 0, 0);
    fill(&all_variants[0], 64, UNIFORM, x[4], 0, 64, keys[0], 1, 0, 0);
    fill(&all_variants[0], 64, UNIFORM, x[5], 0, 64, keys[0], 0, 1, 0);
    fill(&all_variants[0], 64, UNIFORM, x[6], 0, 64, keys[0], 0, 0, 1);
    for (int i = 0; i < 7; i++)
        for (int j = 0; j < i; j++)
            for (int k = 0; k < 64; k++)
                ck_assert_double_ne(x[i][k], x[j][k]);
}
END_TEST

/* ---- the same bits everywhere ---- */

/* Every instruction set and every split of the range against the definition of one element */
START_TEST(test_same_bits)
{
    enum { N = 1200 };
    const int64_t start = (1ll << 34) - 601; /* the block index passes 2^32 inside */
    const uint64_t key = philox_key(3, 1, 4);
    static double want[N], got[N];
    for (int wide = 0; wide < 2; wide++)
        for (enum kind kind = UNIFORM; kind <= NORMAL; kind++) {
            const draw_probe *base = all_variants[0].probe[wide];
            for (int i = 0; i < N; i++)
                want[i] = (kind == NORMAL ? base->normal : base->uniform)(key, 9, 2, 6, (uint64_t)(start + i));
            for (int v = 0; v < variants(); v++) {
                const draw_probe *p = all_variants[v].probe[wide];
                for (int i = 0; i < N; i++)
                    got[i] = (kind == NORMAL ? p->normal : p->uniform)(key, 9, 2, 6, (uint64_t)(start + i));
                ck_assert_mem_eq(got, want, sizeof got);
                for (int cut = 0; cut <= N; cut += cut < 300 ? 1 : 97) {
                    memset(got, 0, sizeof got);
                    fill(&all_variants[v], wide ? 64 : 32, kind, got, start, start + cut, key, 9, 2, 6);
                    fill(&all_variants[v], wide ? 64 : 32, kind, got + cut, start + cut, start + N, key, 9, 2, 6);
                    ck_assert_msg(memcmp(got, want, sizeof got) == 0, "%s f%d kind %d, cut at %d", all_variants[v].isa,
                                  wide ? 64 : 32, kind, cut);
                }
            }
        }
}
END_TEST

/* A fill writes its range and nothing else. */
START_TEST(test_fill_stays_inside)
{
    for (int v = 0; v < variants(); v++)
        for (int from = 0; from < 9; from++)
            for (int n = 0; n < 600; n += n < 20 ? 1 : 83) {
                float *out = malloc(((size_t)n + 2) * sizeof *out);
                out[0] = out[n + 1] = -77;
                all_variants[v].normal32(out + 1, from, from + n, 1, 2, 3, 4);
                ck_assert(out[0] == -77 && out[n + 1] == -77);
                free(out);
            }
}
END_TEST

/* ---- permutations ---- */

/* Draws of several sites at once are each site's own. */
START_TEST(test_batches)
{
    static const int32_t n[] = { 3, 1, 8, 2, 5, 4 };
    enum { PARTS = sizeof n / sizeof *n, MOST = 8 };
    const uint64_t key = 0xfedcba9876543210u;
    for (int i = 0; i < 4 * variants(); i++) {
        const variant *v = &all_variants[i / 4];
        bool normal = i & 1, wide = i >> 1 & 1;
        int lanes = wide ? 2 : 4;
        _Alignas(8) char out[PARTS][MOST * sizeof(double)], want[MOST * sizeof(double)];
        draw_batch d = { .normal = normal };
        for (; d.parts < PARTS; d.parts++) {
            d.part[d.parts] = (draw_part){ out[d.parts], n[d.parts], d.blocks };
            d.longest = n[d.parts] > d.longest ? n[d.parts] : d.longest;
            for (int block = 0; block * lanes < n[d.parts]; block++, d.blocks++) {
                d.counter[0][d.blocks] = (uint64_t)block;
                d.counter[1][d.blocks] = (uint64_t)d.parts << 16;
                d.counter[2][d.blocks] = 0x80000000u + (uint32_t)d.parts;
            }
        }
        ck_assert_int_le(d.blocks, DRAW_BLOCKS);
        memset(out, 0x55, sizeof out);
        v->batch[wide](&d, key, 9);
        for (uint32_t k = 0; k < PARTS; k++) {
            uint32_t site = 0x80000000u + k;
            memset(want, 0x55, sizeof want);
            if (wide)
                (normal ? v->normal64 : v->uniform64)((double *)(void *)want, 0, n[k], key, site, k, 9);
            else
                (normal ? v->normal32 : v->uniform32)((float *)(void *)want, 0, n[k], key, site, k, 9);
            ck_assert_mem_eq(out[k], want, sizeof want);
        }
    }
}
END_TEST

START_TEST(test_permutation)
{
    static unsigned char seen[1 << 20];
    static const int large[] = { 4095, 4096, 4097, 60000, 99991, (1 << 20) - 1, 1 << 20 };
    for (int k = 0; k < 1000 + 7; k++) {
        int n = k < 1000 ? k + 1 : large[k - 1000];
        memset(seen, 0, (size_t)n);
        int once = 0;
        for (int i = 0; i < n; i++) {
            long long to = philox_index(philox_mix((uint64_t)n), 5, 6, 7, i, n);
            once += to >= 0 && to < n && !seen[to]++;
        }
        ck_assert_int_eq(once, n);
    }
}
END_TEST

/* Populations up to the largest: all bits of an index take part, and no index comes twice among a thousand. */
START_TEST(test_permutation_of_the_largest)
{
    static const long long sizes[] = { 1ll << 61, (1ll << 62) - 1, 1ll << 62, (1ll << 62) + 1, 3ll << 61, INT64_MAX };
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        enum { N = 1000 };
        long long n = sizes[k], to[N], most = 0, least = n;
        int upper = 0, outside = 0;
        for (int i = 0; i < N; i++) {
            to[i] = philox_index(11, 1, 0, (uint32_t)k, i % 2 ? n - 1 - i : i, n);
            outside += to[i] < 0 || to[i] >= n;
            upper += to[i] >= n / 2;
            most = to[i] > most ? to[i] : most;
            least = to[i] < least ? to[i] : least;
            for (int j = 0; j < i; j++)
                outside += to[i] == to[j];
        }
        ck_assert(outside == 0 && abs(upper - N / 2) < 100 && most > n - n / 50 && least < n / 50);
    }
}
END_TEST

/* A chi squared of `degrees` as a standard normal (Wilson and Hilferty 1931) */
static double normal_of(double chi, double degrees)
{
    double v = 2 / (9 * degrees);
    return (cbrt(chi / degrees) - (1 - v)) / sqrt(v);
}

/* (count - expected)^2 / expected, over `cells` cells but those of a pair of equals */
static double chi_squared(const int *count, int n, int pairs, double expected)
{
    double chi = 0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < (pairs ? n : 1); j++)
            if (!pairs || i != j)
                chi += pow(count[pairs ? i * n + j : i] - expected, 2) / expected;
    return chi;
}

/* Of the first k of n: how often each is among them, and which ordered pairs stand at places (0, 1), (0, k - 1) and
 * (k - 2, k - 1). The bound is p = 1e-6, the seed the loop's. */
static void check_chances(int seed, int n, int k, int rounds)
{
    enum { MOST = 300 };
    static int member[MOST], pair[3][MOST * MOST];
    int64_t at[MOST];
    const double bound = 4.76;
    bool read = true; /* an assertion in the loop would cost more than the draws */
    memset(member, 0, sizeof member);
    memset(pair, 0, sizeof pair);
    for (int r = 0; r < rounds; r++) {
        if (r % 10000 == 0)
            ad_seed((uint64_t)(seed + 1000 * (r / 10000)));
        ad_scope read &= ad_read(ad_random_index(n, k, r % 10000), at, k);
        for (int i = 0; i < k; i++)
            member[at[i]]++;
        if (k < 2)
            continue;
        pair[0][at[0] * n + at[1]]++;
        pair[1][at[0] * n + at[k - 1]]++;
        pair[2][at[k - 2] * n + at[k - 1]]++;
    }
    ck_assert(read);
    if (k < n) { /* the counts of one draw add up to k: n - 1 degrees, each count's variance (k / n) (1 - k / n) */
        double chance = (double)k / n, of = rounds * chance;
        double chi = chi_squared(member, n, 0, of) / (1 - chance) * (n - 1) / n;
        ck_assert_msg(normal_of(chi, n - 1) < bound, "seed %d, %d of %d: members, %.1f", seed, k, n, chi);
    }
    for (int p = 0; p < 3 && k > 1; p++) {
        double cells = (double)n * (n - 1), chi = chi_squared(pair[p], n, 1, rounds / cells);
        ck_assert_msg(n == 2 || normal_of(chi, cells - 1) < bound, "seed %d, %d of %d: pairs %d, %.1f on %g", seed, k,
                      n, p, chi, cells - 1);
    }
}

START_TEST(test_indices_are_fair)
{
    ad_context *c = ad_context_new(&(ad_options){ .threads = 1 });
    ad_context_use(c);
    for (int n = 2; n <= 64; n++) {
        const int ks[] = { 1, 2, 3, n / 2, n };
        for (int i = 0; i < 5; i++)
            if (ks[i] <= n && (i < 3 || ks[i] > 3))
                check_chances(_i + 1, n, ks[i], 5 * n * (n - 1) + 200);
    }
    check_chances(_i + 1, 5, 2, 200000);
    check_chances(_i + 1, 257, 2, 300000); /* the first of the network's */
    ad_context_free(c);
}
END_TEST

/* The kernel, which keeps a table, against the definition; and the first k of n are the first of all n. */
START_TEST(test_indices_are_the_definition)
{
    enum { MOST = 300 };
    int64_t all[MOST], some[MOST];
    ad_context *c = ad_context_new(&(ad_options){ .threads = 1 });
    ad_context_use(c);
    ad_seed(9);
    for (int n = 1; n <= MOST; n++) {
        ad_scope {
            int32_t site = c->tape->site = ad__name(c, "rows");
            ck_assert(ad_read(ad_random_index(n, n, 3), all, n));
            ck_assert(ad_read(ad_random_index(n, n / 2, 3), some, n / 2));
            int same = 0;
            for (int i = 0; i < n; i++)
                same += all[i] == philox_index(c->tape->key, ad__name_hash(c, site), 3, c->tape->run, i, n);
            ck_assert_int_eq(same, n);
            ck_assert_mem_eq(some, all, (size_t)(n / 2) * sizeof *some);
        }
    }
    ad_context_free(c);
}
END_TEST

/* Indices of a small, a middling and the largest population, frozen. */
START_TEST(test_frozen_indices)
{
    static const long long want[3][4] = {
        { 8, 7, 0, 2 },
        { 5510, 91032, 25407, 11269 },
        { 6895701720923065256, 2986936092719538271, 145720419417874212, 2009557196475457562 }
    };
    static const long long n[] = { 10, 100000, INT64_MAX };
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < 4; i++)
            ck_assert_int_eq(philox_index(0x0123456789abcdefu, 0xdeadbeef, 2, 7, i, n[k]), want[k][i]);
}
END_TEST

Suite *suite_random(void)
{
    Suite *s = suite_create("random");
    TCase *t = tcase_create("draws");
    tcase_add_test(t, test_known_answers);
    tcase_add_test(t, test_layout);
    tcase_add_test(t, test_frozen);
    tcase_add_test(t, test_open_interval);
    tcase_add_test(t, test_box_muller);
    tcase_add_test(t, test_distribution);
    tcase_add_test(t, test_streams_differ);
    tcase_add_test(t, test_same_bits);
    tcase_add_test(t, test_fill_stays_inside);
    tcase_add_test(t, test_batches);
    tcase_add_test(t, test_permutation);
    tcase_add_test(t, test_permutation_of_the_largest);
    tcase_add_loop_test(t, test_indices_are_fair, 0, 3);
    tcase_add_test(t, test_indices_are_the_definition);
    tcase_add_test(t, test_frozen_indices);
    suite_add_tcase(s, t);
    return s;
}
