/* Matrix products: lowering to gemm plans. One large product is packed and multiplied by all threads; a stack of them
 * is shared out member by member. */
#include <string.h>

#include "autodiff/cpu/cpu.h"

/* The product of member i with the memory of this run. */
static gemm product(const cpu_step *s, int64_t i)
{
    gemm g = *(const gemm *)s->detail;
    const int64_t *a = plan_attrs(s->program->plan, s->node);
    size_t element = real_bytes(s->program);
    g.a = (const char *)step_pointer(s, 1) + (a[2] > 1 ? (size_t)(i * g.m * g.k) * element : 0);
    g.b = (const char *)step_pointer(s, 2) + (a[3] > 1 ? (size_t)(i * g.k * g.n) * element : 0);
    g.c = (char *)step_pointer(s, 0) + (size_t)(i * g.m * g.n) * element;
    return g;
}

static void run_pack(const void *job, int64_t from, int64_t to, int thread)
{
    const cpu_step *s = job;
    (void)thread;
    gemm g = product(s, 0);
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
        plan_attrs(p, node)[2] > 1 || plan_attrs(p, node)[3] > 1 || plan_size(p, node) < CHUNK_TILES * TILE)
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
    gemm g = product(s, 0);
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
    return s->run == run_multiply && ((const gemm *)s->detail)->block_columns >= ((const gemm *)s->detail)->n;
}

static void run_stack(const void *job, int64_t from, int64_t to, int thread)
{
    const cpu_step *s = job;
    const cpu_state *state = s->program->state;
    for (int64_t i = from; i < to; i++) {
        gemm g = product(s, i);
        gemm_run(&g, state->scratch + (size_t)thread * state->scratch_each);
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

bool cpu_lower_product(cpu_program *p, int32_t node)
{
    const int64_t *a = plan_attrs(p->plan, node);
    cpu_state *state = p->state;
    gemm *g = cpu_detail(p, sizeof *g);
    if (!g)
        return false;
    *g = (gemm){ .transpose_a = (int)a[0],
                 .transpose_b = (int)a[1],
                 .m = a[4],
                 .n = a[5],
                 .k = a[6],
                 .lda = a[0] ? a[4] : a[6],
                 .ldb = a[1] ? a[6] : a[5],
                 .ldc = a[5] };
    gemm_plan(g, state->gemm, NULL);
    if (gemm_suits_library(g))
        gemm_plan(g, state->gemm, cpu_library(state));
    int64_t members = a[2] > a[3] ? a[2] : a[3];
    cpu_step *s;
    if (members > 1) {
        if (!(s = cpu_step_new(p, run_stack, node)))
            return false;
        s->detail = g;
        s->chunks = members;
        s->parallel = members * g->m * g->n * g->k >= WORTH_PRODUCT;
        return cpu_need_scratch(state, g->packed_bytes);
    }
    bool parallel = g->m * g->n * g->k >= WORTH_PRODUCT;
    if (g->pack_chunks) {
        if (!(s = cpu_step_new(p, run_pack, node)))
            return false;
        s->detail = g;
        s->chunks = g->pack_chunks;
        s->parallel = parallel;
    }
    if (!(s = cpu_step_new(p, run_multiply, node)))
        return false;
    s->detail = g;
    s->chunks = g->chunks;
    s->parallel = parallel;
    s->watched = cpu_watched(p->plan, node);
    return need_packed(state, g->packed_bytes);
}
