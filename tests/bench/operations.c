/* Every operation: the elementwise ones from ops.def as the CPU's kernels run them, a tile at a time; the structured
 * ones as plans of one node at the sizes of the autoencoder's step. On one thread. Called by bench.c. */
#include "autodiff/cpu/cpu.h"
#include "tests/bench/bench.h"

#include <stdlib.h>
#include <string.h>

/* ---- elementwise ------------------------------------------------------------------------------------------------- */

/* Where the operands of each op are drawn: its row's intervals. */
typedef struct elementwise {
    const char *name;
    int op, arity;
    double interval[8];
} elementwise;
static const elementwise elementwise_rows[] = {
#define AD_OP1(op, formula, ga, ...) { #op, OP_##op, 1, { __VA_ARGS__ } },
#define AD_OP2(op, formula, ga, gb, ...) { #op, OP_##op, 2, { __VA_ARGS__ } },
#define AD_OP3(op, formula, ga, gb, gc, ...) { #op, OP_##op, 3, { __VA_ARGS__ } },
#define AD_OP4(op, formula, ga, gb, gc, gd, ...) { #op, OP_##op, 4, { __VA_ARGS__ } },
#include "autodiff/ops.def"
};

typedef struct tile {
    _Alignas(64) float out[TILE], in[4][TILE];
    elementwise_kernel *kernel;
} tile;

static void *open_tile(const bench_row *row)
{
    const elementwise *e = row->what;
    const cpu_state *cpu = ad_context_current()->backend_state;
    tile *t = aligned_alloc(64, (sizeof *t + 63) / 64 * 64);
    if (!t) return NULL;
    t->kernel = cpu->kernels->elementwise[e->op];
    for (int k = 0; k < 4; k++)
        for (int i = 0; i < TILE; i++) {
            const double *from = e->interval + 2 * (k < e->arity ? k : 0);
            uint32_t draw = (uint32_t)(i + TILE * k) * 2654435761u;
            t->in[k][i] = (float)(from[0] + (from[1] - from[0]) * (double)draw * 0x1p-32);
        }
    return t;
}
static bool run_tile(void *state, int64_t n)
{
    tile *t = state;
    for (int64_t i = 0; i < n; i++) t->kernel(TILE, t->out, t->in[0], t->in[1], t->in[2], t->in[3]);
    return true;
}

/* ---- structured -------------------------------------------------------------------------------------------------- */

enum { B = 256, D = 784 };

/* What the structured ops read: x (B, D), y (B, D), v (D), index (B) into x's rows, bytes (B, D). */
typedef struct operands {
    ad_tensor *x, *y, *v, *index, *bytes;
    ad_tensor *(*record)(const struct operands *o);
} operands;

/* name, elements of the larger of operand and result, floats read and written, multiply-adds, the recorded
 * expression */
#define STRUCTURED(X)                                                                                                  \
    X(cast_real, B * D, 1.25 * B * D, 0, ad_cast_real(o->bytes))                                                       \
    X(random_normal, B * D, 1.0 * B * D, 0, ad_random_normal(AD_SHAPE(B, D), 0))                                       \
    X(random_uniform, B * D, 1.0 * B * D, 0, ad_random_uniform(AD_SHAPE(B, D), 0))                                     \
    X(random_index, B, 2.0 * B, 0, ad_random_index(60000, B, 0))                                                       \
    X(expand, B * D, 1.0 * B * D, 0, ad_expand(o->v, AD_SHAPE(B, D)))                                                  \
    X(transpose, B * D, 2.0 * B * D, 0, ad_transpose(o->x, 0, 1))                                                      \
    X(concat, 2 * B * D, 4.0 * B * D, 0, ad_concat((ad_tensor *[]){ o->x, o->y }, 2, 1))                               \
    X(slice, B * D / 2, 1.0 * B * D, 0, ad_slice(o->x, 1, 100, D / 2))                                                 \
    X(pad, 2 * B * D, 3.0 * B * D, 0, ad_pad(o->x, 1, 100, 2 * D))                                                     \
    X(gather, B * D, 2.0 * B * D, 0, ad_gather(o->x, 0, o->index))                                                     \
    X(scatter_add, B * D, 2.0 * B * D, 0, ad_scatter_add(o->x, 0, o->index, B))                                        \
    X(sum, B * D, 1.0 * B * D, 0, ad_sum(o->x))                                                                        \
    X(sum_rows, B * D, 1.0 * B * D, 0, ad_sum(o->x, 1))                                                                \
    X(sum_columns, B * D, 1.0 * B * D, 0, ad_sum(o->x, 0))                                                             \
    X(max_rows, B * D, 1.0 * B * D, 0, ad_max_over(o->x, 1))                                                           \
    X(max_columns, B * D, 1.0 * B * D, 0, ad_max_over(o->x, 0))                                                        \
    X(logsumexp, B * D, 1.0 * B * D, 0, ad_logsumexp(o->x, 1))                                                         \
    X(cumsum, B * D, 2.0 * B * D, 0, ad_cumsum(o->x, 1, false))                                                        \
    X(weighted_total, B * D, 1.0 * B * D, 0, ad_weighted_total(&o->x, (double[]){ 1 }, 1))                             \
    X(matvec, B * D, 1.0 * B * D, 1.0 * B * D, ad_matmul(o->x, o->v))                                                  \
    X(fused_normal, B * D, 3.0 * B * D, 0, ad_mul(-0.5, ad_square(ad_div(ad_sub(o->x, o->y), 0.3))))

#define DEFINE(name, elements, traffic, fmas, expression)                                                              \
    static ad_tensor *record_##name(const operands *o)                                                                 \
    {                                                                                                                  \
        (void)o;                                                                                                       \
        return expression;                                                                                             \
    }
STRUCTURED(DEFINE)
#undef DEFINE

typedef struct structured {
    const char *name;
    double elements, traffic, fmas;
    ad_tensor *(*record)(const operands *o);
} structured;
static const structured structured_rows[] = {
#define ROW(name, elements, traffic, fmas, expression) { #name, elements, traffic, fmas, record_##name },
    STRUCTURED(ROW)
#undef ROW
};

static void close_operands(void *state)
{
    operands *o = state;
    ad_tensor *all[] = { o->x, o->y, o->v, o->index, o->bytes };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) ad_free(all[i]);
    free(o);
}
static void *open_operands(const bench_row *row)
{
    float *numbers = malloc(sizeof(float) * B * D);
    uint8_t *bytes = malloc((size_t)B * D);
    operands *o = calloc(1, sizeof *o);
    if (!numbers || !bytes || !o) {
        free(numbers);
        free(bytes);
        free(o);
        return NULL;
    }
    for (int i = 0; i < B * D; i++) numbers[i] = (float)((uint32_t)i * 2654435761u) * 0x1p-32f - 0.5f;
    for (int i = 0; i < B * D; i++) bytes[i] = (uint8_t)i;
    int64_t index[B];
    for (int i = 0; i < B; i++) index[i] = 97 * i % B;
    *o = (operands){ .x = ad_from(numbers, AD_SHAPE(B, D)), .y = ad_from(numbers, AD_SHAPE(B, D)),
                     .v = ad_from(numbers, AD_SHAPE(D)),
                     .index = ad_from(index, AD_SHAPE(B)), .bytes = ad_from(bytes, AD_SHAPE(B, D)),
                     .record = ((const structured *)row->what)->record };
    free(numbers);
    free(bytes);
    return o;
}
static bool run_recorded(void *state, int64_t n)
{
    const operands *o = state;
    bool done = true;
    for (int64_t i = 0; i < n && done; i++)
        ad_scope {
            ad_context *c = ad_context_current();
            node_id root = ad__node(c, o->record(o), "the operation");
            done = ad__run(c, &(run_request){ .roots = &root, .n_roots = 1, .final = true }, NULL);
        }
    return done;
}

/* ---- all of them ------------------------------------------------------------------------------------------------- */

void bench_add_operations(void)
{
    for (size_t i = 0; i < sizeof elementwise_rows / sizeof *elementwise_rows; i++) {
        const elementwise *e = &elementwise_rows[i];
        bench_row row = { .threads = 1, .open = open_tile, .close = free, .run = run_tile, .elements = TILE,
                          .bytes = (e->arity + 1) * TILE * sizeof(float), .what = e };
        snprintf(row.name, sizeof row.name, "op/%s", e->name);
        bench_add(&row);
    }
    for (size_t i = 0; i < sizeof structured_rows / sizeof *structured_rows; i++) {
        const structured *s = &structured_rows[i];
        bench_row row = { .threads = 1, .open = open_operands, .close = close_operands, .run = run_recorded, .what = s,
                          .elements = s->elements, .bytes = s->traffic * sizeof(float), .flops = 2 * s->fmas };
        snprintf(row.name, sizeof row.name, "op/%s", s->name);
        bench_add(&row);
    }
}
