/* Matrix products: lowering to gemm plans. One large product is packed and multiplied by all threads; a stack of them
 * is shared out member by member. Where the inner dimension is long it is cut into pieces, whose products are added in
 * double: in float a running sum loses what is added to it once it is large. */
#include <string.h>

#include "autodiff/cpu/cpu.h"

enum {
    PIECE_TERMS = 8192, /* of the inner dimension: few enough for the digits of a float, enough for a product */
    MOST_PIECES = 4096
};
/* The terms of a piece where there are k. */
static int64_t piece_terms(int64_t k)
{
    int64_t terms = PIECE_TERMS;
    while (k / MOST_PIECES > terms)
        terms *= 2;
    return terms;
}

/* What a step multiplies: a plan for one piece, which begins at term `from` of the inner dimension. */
typedef struct piece {
    gemm plan;
    int64_t from;
    char *out;          /* of a piece among several: its own product; NULL: the result */
    struct piece *next; /* in a stack of products */
} piece;

/* The piece of member i with the memory of this run. */
static gemm product(const cpu_step *s, const piece *p, int64_t i)
{
    gemm g = p->plan;
    const int64_t *a = plan_attrs(s->program->plan, s->node);
    size_t element = real_bytes(s->program);
    int64_t in_a = (a[2] > 1 ? i * g.m * a[6] : 0) + p->from * (a[0] ? g.lda : 1);
    int64_t in_b = (a[3] > 1 ? i * a[6] * g.n : 0) + p->from * (a[1] ? 1 : g.ldb);
    g.a = (const char *)step_pointer(s, 1) + (size_t)in_a * element;
    g.b = (const char *)step_pointer(s, 2) + (size_t)in_b * element;
    g.c = p->out ? p->out : (char *)step_pointer(s, 0) + (size_t)(i * g.m * g.n) * element;
    return g;
}

static void run_pack(const void *job, int64_t from, int64_t to, int thread)
{
    const cpu_step *s = job;
    (void)thread;
    gemm g = product(s, s->detail, 0);
    for (int64_t i = from; i < to; i++)
        gemm_pack(&g, s->program->state->packed, i);
}

/* The guard's work on a chunk, while it is in cache. */
static void watch(const cpu_step *s, const gemm *g, gemm_block b)
{
    const cpu_kernels *k = s->program->state->kernels;
    bool finite = true;
    for (int64_t i = b.row; i < b.row + b.rows; i++)
        finite &= k->finite(b.columns, (const char *)g->c + (size_t)(i * g->ldc + b.column) * real_bytes(s->program));
    if (!finite)
        __atomic_store_n(&s->program->outcome->finite, false, __ATOMIC_RELAXED);
}

/* Large products alone: a small one is not worth the look at every chunk. */
bool cpu_watched(const plan *p, int32_t node)
{
    if (p->guard < 0 || !(p->context->passes & PASS_WATCH) || p->node[node].op != OP_matmul || p->done[node] ||
        plan_attrs(p, node)[2] > 1 || plan_attrs(p, node)[3] > 1 || plan_attrs(p, node)[6] > PIECE_TERMS ||
        plan_size(p, node) < CHUNK_TILES * TILE)
        return false;
    for (int j = 0; j < p->node[p->guard].n_inputs; j++)
        if (ad__plan_source(p, plan_inputs(p, p->guard)[j]) == node)
            return true;
    return false;
}

/* Each chunk with the part of the steps that follow. */
static void run_multiply(const void *job, int64_t from, int64_t to, int thread)
{
    const cpu_step *s = job;
    gemm g = product(s, s->detail, 0);
    for (int64_t i = from; i < to; i++) {
        gemm_multiply(&g, s->program->state->packed, i);
        if (s->watched)
            watch(s, &g, gemm_block_of(&g, i));
        if (!s->followers)
            continue;
        gemm_block b = gemm_block_of(&g, i);
        for (const cpu_step *f = s + 1; f <= s + s->followers; f++)
            f->part(f, b.row * g.n, (b.row + b.rows) * g.n, thread);
    }
}

bool cpu_leads(const cpu_step *s)
{
    const piece *p = s->detail;
    return s->run == run_multiply && !p->out && p->plan.block_columns >= p->plan.n;
}

/* Products whole, one member after another. */
static void run_stack(const void *job, int64_t from, int64_t to, int thread)
{
    const cpu_step *s = job;
    const cpu_state *state = s->program->state;
    for (int64_t i = from; i < to; i++) {
        gemm g = product(s, s->detail, i);
        gemm_run(&g, state->scratch + (size_t)thread * state->scratch_each);
    }
}

/* The same in pieces. Scratch: sums in double, a piece's product, the packed operand. */
static void run_long_stack(const void *job, int64_t from, int64_t to, int thread)
{
    const cpu_step *s = job;
    const cpu_state *state = s->program->state;
    const cpu_kernels *k = state->kernels;
    const int64_t *a = plan_attrs(s->program->plan, s->node);
    int64_t size = a[4] * a[5];
    double *sum = (double *)(state->scratch + (size_t)thread * state->scratch_each);
    char *one = (char *)(sum + size), *packed = one + (size_t)size * sizeof(double);
    packed += (64 - (uintptr_t)packed % 64) % 64;
    for (int64_t i = from; i < to; i++) {
        memset(sum, 0, (size_t)size * sizeof *sum);
        for (const piece *p = s->detail; p; p = p->next) {
            gemm g = product(s, p, i);
            g.c = one;
            gemm_run(&g, packed);
            k->add_to_doubles(size, one, sum);
        }
        k->from_double(size, sum, (char *)step_pointer(s, 0) + (size_t)(i * size) * real_bytes(s->program));
    }
}

static bool need_packed(cpu_state *s, size_t bytes)
{
    if (bytes <= s->packed_bytes)
        return true;
    const ad_backend *b = &ad__cpu_backend;
    char *packed = b->memory_new(s, bytes);
    if (!packed)
        return false;
    if (s->packed)
        b->memory_free(s, s->packed);
    s->packed = packed;
    s->packed_bytes = bytes;
    return true;
}

/* Whether a product is worth more than one thread; the number of its terms may exceed an integer. */
static bool is_worth(int64_t m, int64_t n, int64_t k)
{
    return (double)m * (double)n * (double)k >= WORTH_PRODUCT;
}

/* The plan of a piece: terms [from, from + k) of the inner dimension; NULL after an error. */
static piece *plan_piece(cpu_program *p, int32_t node, int64_t from, int64_t k)
{
    const int64_t *a = plan_attrs(p->plan, node);
    piece *to = cpu_detail(p, sizeof *to);
    if (!to)
        return NULL;
    gemm *g = &to->plan;
    to->from = from;
    *g = (gemm){ .transpose_a = (int)a[0],
                 .transpose_b = (int)a[1],
                 .m = a[4],
                 .n = a[5],
                 .k = k,
                 .lda = a[0] ? a[4] : a[6],
                 .ldb = a[1] ? a[6] : a[5],
                 .ldc = a[5] };
    gemm_plan(g, p->state->gemm, NULL);
    if (gemm_suits_library(g))
        gemm_plan(g, p->state->gemm, cpu_library(p->state));
    return to;
}

/* The steps of one product by all threads; NULL after an error. */
static cpu_step *lower_piece(cpu_program *p, int32_t node, piece *of)
{
    const gemm *g = &of->plan;
    bool parallel = is_worth(g->m, g->n, g->k);
    cpu_step *s;
    if (g->pack_chunks) {
        if (!(s = cpu_step_new(p, run_pack, node)))
            return NULL;
        s->detail = of;
        s->chunks = g->pack_chunks;
        s->parallel = parallel;
    }
    if (!(s = cpu_step_new(p, run_multiply, node)))
        return NULL;
    s->detail = of;
    s->chunks = g->chunks;
    s->parallel = parallel;
    return need_packed(p->state, g->packed_bytes) ? s : NULL;
}

/* Sums of the pieces' products: size 0 elements; the last one writes the result. */
typedef struct piece_sum {
    double *sum;
    const char *product;
    bool first, last;
} piece_sum;

static void run_add_piece(const void *job, int64_t from, int64_t to, int thread)
{
    enum { ELEMENTS = CHUNK_TILES * TILE };
    const cpu_step *s = job;
    const piece_sum *d = s->detail;
    const cpu_kernels *k = s->program->state->kernels;
    size_t element = real_bytes(s->program);
    int64_t begin = from * ELEMENTS, end = to * ELEMENTS < s->size[0] ? to * ELEMENTS : s->size[0];
    (void)thread;
    if (d->first)
        memset(d->sum + begin, 0, (size_t)(end - begin) * sizeof *d->sum);
    k->add_to_doubles(end - begin, d->product + (size_t)begin * element, d->sum + begin);
    if (d->last)
        k->from_double(end - begin, d->sum + begin, (char *)step_pointer(s, 0) + (size_t)begin * element);
}

/* A product whose inner dimension is cut: each piece into memory of its own, and from there into the sums. */
static bool lower_long(cpu_program *p, int32_t node)
{
    const int64_t *a = plan_attrs(p->plan, node);
    int64_t size = a[4] * a[5];
    double *sum = cpu_detail(p, (size_t)size * sizeof *sum);
    char *product = sum ? cpu_detail(p, (size_t)size * real_bytes(p)) : NULL;
    const int64_t terms = piece_terms(a[6]);
    for (int64_t from = 0; product && from < a[6]; from += terms) {
        piece *of = plan_piece(p, node, from, a[6] - from < terms ? a[6] - from : terms);
        piece_sum *d = of ? cpu_detail(p, sizeof *d) : NULL;
        if (!d)
            return false;
        of->out = product;
        *d = (piece_sum){ sum, product, from == 0, from + terms >= a[6] };
        cpu_step *s = lower_piece(p, node, of) ? cpu_step_new(p, run_add_piece, node) : NULL;
        if (!s)
            return false;
        s->detail = d;
        s->size[0] = size;
        s->chunks = (size + CHUNK_TILES * TILE - 1) / (CHUNK_TILES * TILE);
        s->parallel = size >= WORTH_MOVES;
    }
    return product != NULL;
}

/* A stack of products: a member is one thread's. */
static bool lower_stack(cpu_program *p, int32_t node, int64_t members)
{
    const int64_t *a = plan_attrs(p->plan, node);
    const int64_t terms = piece_terms(a[6]);
    bool cut = a[6] > terms;
    piece *first = plan_piece(p, node, 0, cut ? terms : a[6]), *last = first;
    for (int64_t from = terms; last && from < a[6]; from += terms)
        last = last->next = plan_piece(p, node, from, a[6] - from < terms ? a[6] - from : terms);
    cpu_step *s = last ? cpu_step_new(p, cut ? run_long_stack : run_stack, node) : NULL;
    if (!s)
        return false;
    s->detail = first;
    s->chunks = members;
    s->parallel = is_worth(members * a[4], a[5], a[6]);
    size_t packed = first->plan.packed_bytes;
    return cpu_need_scratch(p->state, cut ? packed + 64 + (size_t)(a[4] * a[5]) * 2 * sizeof(double) : packed);
}

bool cpu_lower_product(cpu_program *p, int32_t node)
{
    const int64_t *a = plan_attrs(p->plan, node);
    int64_t members = a[2] > a[3] ? a[2] : a[3];
    if (members > 1)
        return lower_stack(p, node, members);
    if (a[6] > PIECE_TERMS)
        return lower_long(p, node);
    piece *whole = plan_piece(p, node, 0, a[6]);
    cpu_step *s = whole ? lower_piece(p, node, whole) : NULL;
    if (!s)
        return false;
    s->watched = cpu_watched(p->plan, node);
    return true;
}
