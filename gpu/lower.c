/* Lowering structured nodes to steps: which kernel of structured.h, over which sizes. */
#include "gpu/gpu.h"

#include <string.h>

int gpu__spread(const ad_shape *from, const ad_shape *to, int64_t out[2 * AD_MAX_RANK + 1])
{
    int64_t stride = 1;
    int n = 1;
    for (int i = 1; i <= to->rank; i++) {
        int64_t size = to->dim[to->rank - i], own = i <= from->rank ? from->dim[from->rank - i] : 1;
        int64_t step = own == 1 ? 0 : stride;
        stride *= own;
        if (size == 1)
            continue;
        if (n > 1 && step == out[n - 2] * out[n - 1]) { /* continues the dimension inside it */
            out[n - 2] *= size;
        } else {
            out[n++] = size;
            out[n++] = step;
        }
    }
    out[0] = n / 2;
    return n;
}

/* x's dimensions in the order of the axes, innermost first. */
static int permuted(const ad_shape *x, const int64_t *axes, int64_t out[2 * AD_MAX_RANK + 1])
{
    int64_t strides[AD_MAX_RANK], stride = 1;
    for (int i = x->rank - 1; i >= 0; i--) {
        strides[i] = stride;
        stride *= x->dim[i];
    }
    out[0] = x->rank;
    for (int i = 0; i < x->rank; i++) {
        int64_t axis = axes[x->rank - 1 - i];
        out[1 + 2 * i] = x->dim[axis];
        out[2 + 2 * i] = strides[axis];
    }
    return 1 + 2 * x->rank;
}

/* The addresses of a node and of the operands [0, n) that it reads. */
static bool addresses(gpu_program *p, int32_t node, int n)
{
    const plan *pl = p->plan;
    bool done = gpu__address(p, pl->place[node]);
    for (int j = 0; done && j < n; j++) {
        int32_t in = plan_inputs(pl, node)[j];
        in = pl->node[node].op == OP_expand ? ad__plan_operand(pl, node, NULL) : ad__plan_source(pl, in);
        done = gpu__address(p, pl->place[in]);
    }
    return done;
}

static const ad_shape *shape_of(const plan *p, int32_t node)
{
    return &ad__shape_info(p->context, p->node[node].shape)->shape;
}

/* A step over `work` elements whose sizes are those given and whose addresses are the node's and its operands'. */
static bool plain(gpu_program *p, const char *kernel, int32_t node, int64_t work, const int64_t *sizes, int n_sizes)
{
    return gpu__step(p, kernel, work, sizes, n_sizes) && addresses(p, node, p->plan->node[node].n_inputs);
}

/* Scratch of the step that comes next; steps run one after the other, so all share it. */
static place scratch(gpu_program *p, int64_t bytes)
{
    if ((size_t)bytes > p->scratch_bytes)
        p->scratch_bytes = (size_t)bytes;
    return (place){ .kind = PLACE_SCRATCH };
}

/* ---- moving ------------------------------------------------------------------------------------------------------ */

static bool lower_spread(gpu_program *p, int32_t node, int64_t bytes)
{
    const plan *pl = p->plan;
    int64_t n = plan_size(pl, node), words[2 * AD_MAX_RANK + 1];
    int32_t shape;
    int n_words;
    if (pl->node[node].op == OP_permute) {
        n_words = permuted(shape_of(pl, plan_inputs(pl, node)[0]), plan_attrs(pl, node), words);
    } else {
        ad__plan_operand(pl, node, &shape);
        n_words = gpu__spread(&ad__shape_info(pl->context, shape)->shape, shape_of(pl, node), words);
    }
    return gpu__step(p, "spread", n, (int64_t[]){ n, bytes }, 2) && gpu__more_words(p, words, n_words) &&
           addresses(p, node, 1);
}

static bool lower_cut(gpu_program *p, int32_t node, int64_t bytes)
{
    const node_id bind = p->plan->node[node].bind;
    const int64_t *a = plan_attrs(p->plan, node), n = plan_size(p->plan, node);
    return plain(p, p->plan->node[node].op == OP_pad ? "pad" : "slice", node, n,
                 (int64_t[]){ n, bytes, a[2], a[3], a[4], a[5], bind }, 7);
}

static bool lower_concat(gpu_program *p, int32_t node, int64_t bytes)
{
    const plan *pl = p->plan;
    const int64_t *a = plan_attrs(pl, node);
    int64_t start = 0, size = shape_of(pl, node)->dim[a[0]];
    for (int j = 0; j < pl->node[node].n_inputs; j++) {
        int32_t part = plan_inputs(pl, node)[j];
        int64_t n = plan_size(pl, part), length = shape_of(pl, part)->dim[a[0]];
        if (!gpu__step(p, "paste", n, (int64_t[]){ n, bytes, size, a[2], length, start }, 6) ||
            !gpu__address(p, pl->place[node]) || !gpu__address(p, pl->place[ad__plan_source(pl, part)]))
            return false;
        start += length;
    }
    return true;
}

/* gather and scatter_add: the indices are looked at first */
static bool lower_indexed(gpu_program *p, int32_t node, int64_t bytes)
{
    const plan *pl = p->plan;
    const int64_t *a = plan_attrs(pl, node), n = plan_size(pl, node);
    int32_t index = plan_inputs(pl, node)[1];
    int64_t members = plan_size(pl, index);
    return gpu__step(p, "check_index", members ? 1 : 0, (int64_t[]){ members, a[2], node }, 3) &&
           gpu__address(p, pl->place[ad__plan_source(pl, index)]) &&
           plain(p, pl->node[node].op == OP_gather ? "gather" : "scatter_add", node, n,
                 (int64_t[]){ n, members, a[2], a[3], bytes }, 5);
}

/* ---- reducing ---------------------------------------------------------------------------------------------------- */

enum { ROW = 4096, COLUMN = 128 }; /* elements that one row, one column, sums before partial sums are made */

/* rows of n elements from `from`, `total` in all */
static bool reduce_rows(gpu_program *p, bool max, int64_t rows, int64_t n, int64_t total, place to, place from)
{
    int64_t lanes = 32;
    while (lanes < GPU_THREADS && lanes * 4 < n)
        lanes *= 2;
    return gpu__step(p, max ? "max_rows" : "sum_rows", rows * lanes, (int64_t[]){ rows, n, total, lanes }, 4) &&
           gpu__address(p, to) && gpu__address(p, from);
}

static bool reduce_columns(gpu_program *p, bool max, int64_t outer, int64_t n, int64_t inner, int64_t piece, place to,
                           place from)
{
    int64_t pieces = n ? (n + piece - 1) / piece : 1, columns = 32;
    while (columns < GPU_THREADS && GPU_THREADS / columns > n) /* else threads would find no row */
        columns *= 2;
    while (columns / 2 >= inner && columns > 1)
        columns /= 2;
    int64_t tiles = outer * pieces * ((inner + columns - 1) / columns);
    return gpu__step(p, max ? "max_columns" : "sum_columns", tiles * GPU_THREADS,
                     (int64_t[]){ tiles, n, inner, piece, pieces, columns }, 6) &&
           gpu__address(p, to) && gpu__address(p, from);
}

/* Partial results first where one row or column would be long. */
static bool lower_reduce(gpu_program *p, int32_t node)
{
    const plan *pl = p->plan;
    const int64_t *a = plan_attrs(pl, node), outer = a[0], n = a[1], inner = a[2];
    int64_t real = (int64_t)ad__dtype_bytes(pl->context, AD_REAL);
    bool max = pl->node[node].op == OP_reduce_max;
    place to = pl->place[node], from = pl->place[ad__plan_source(pl, plan_inputs(pl, node)[0])];
    if (inner == 1 && (outer > 1 || n <= 2 * ROW))
        return reduce_rows(p, max, outer, n, outer * n, to, from);
    if (inner == 1) {
        int64_t pieces = (n + ROW - 1) / ROW;
        place partial = scratch(p, pieces * real);
        return reduce_rows(p, max, pieces, ROW, n, partial, from) &&
               reduce_rows(p, max, 1, pieces, pieces, to, partial);
    }
    if (n <= 2 * COLUMN)
        return reduce_columns(p, max, outer, n, inner, n ? n : 1, to, from);
    int64_t pieces = (n + COLUMN - 1) / COLUMN;
    place partial = scratch(p, outer * pieces * inner * real);
    return reduce_columns(p, max, outer, n, inner, COLUMN, partial, from) &&
           reduce_columns(p, max, outer, pieces, inner, pieces, to, partial);
}

static int32_t rows_for(int operands)
{
    return operands < GPU_MOST_ROWS ? operands : GPU_MOST_ROWS;
}

static bool lower_total(gpu_program *p, int32_t node)
{
    const plan *pl = p->plan;
    const int32_t *in = plan_inputs(pl, node);
    int terms = pl->node[node].n_inputs / 2;
    gpu_step *s = gpu__step(p, "total_partials", 1, (int64_t[]){ terms }, 1);
    place partial = scratch(p, (int64_t)terms * GPU_TOTAL_BLOCKS * (int64_t)sizeof(double));
    if (!s)
        return false;
    s->grid = (gpu_grid){ terms ? GPU_TOTAL_BLOCKS : 0, rows_for(terms), GPU_THREADS };
    bool done = gpu__address(p, partial);
    for (int t = 0; done && t < terms; t++)
        done = gpu__more_words(p, (int64_t[]){ plan_size(pl, in[2 * t]) }, 1) &&
               gpu__address(p, pl->place[ad__plan_source(pl, in[2 * t])]) &&
               gpu__address(p, (place){ .kind = PLACE_NONE });
    int64_t recorded = -1;
    if (pl->kept[node] & KEPT_AFTER_RUN && !p->gated && p->n_totals < RECORD_MOST_TOTALS) {
        recorded = p->n_totals;
        p->total[p->n_totals++] = pl->place[node];
    }
    if (!done || !(s = gpu__step(p, "total", 1, (int64_t[]){ terms, recorded }, 2)))
        return false;
    s->grid.threads = GPU_TOTAL_BLOCKS;
    for (int t = 0; done && t < terms; t++)
        done = gpu__more_words(p, (int64_t[]){ pl->node[in[2 * t + 1]].bind }, 1);
    return done && gpu__address(p, pl->place[node]) && gpu__address(p, partial);
}

static bool lower_guard(gpu_program *p, int32_t node)
{
    const plan *pl = p->plan;
    int n = pl->node[node].n_inputs;
    int64_t most = 0;
    for (int j = 0; j < n; j++)
        if (plan_size(pl, plan_inputs(pl, node)[j]) > most)
            most = plan_size(pl, plan_inputs(pl, node)[j]);
    gpu_step *s = gpu__step(p, "guard", most, (int64_t[]){ n }, 1);
    if (!s)
        return false;
    s->grid.rows = rows_for(n);
    if (s->grid.blocks > GPU_GUARD_BLOCKS)
        s->grid.blocks = GPU_GUARD_BLOCKS;
    bool done = addresses(p, node, n);
    for (int j = 0; done && j < n; j++)
        done = gpu__more_words(p, (int64_t[]){ plan_size(pl, plan_inputs(pl, node)[j]) }, 1);
    return done;
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

static bool lower_product(gpu_program *p, int32_t node)
{
    const int64_t *a = plan_attrs(p->plan, node);
    if (p->gated && p->plan->place[node].kind == PLACE_TENSOR) { /* cuBLAS knows no gate */
        ad__fail(p->plan->context, AD_ERROR_ARGUMENT, NULL, "a product was planned in the place of a state");
        return false;
    }
    gpu_step *s = gpu__step(p, NULL, 1, NULL, 0);
    if (!s)
        return false;
    s->product = (gpu_product){ .transpose_a = a[0],
                                .transpose_b = a[1],
                                .m = a[4],
                                .n = a[5],
                                .k = a[6],
                                .members = a[2] > a[3] ? a[2] : a[3],
                                .stride_a = a[2] > 1 ? a[4] * a[6] : 0,
                                .stride_b = a[3] > 1 ? a[6] * a[5] : 0 };
    return addresses(p, node, 2);
}

/* Nothing, where the value was computed in the state's place. */
static bool lower_assign(gpu_program *p, int32_t node, int64_t bytes)
{
    const plan *pl = p->plan;
    const int32_t *in = plan_inputs(pl, node);
    const place *to = &pl->place[ad__plan_source(pl, in[0])], *from = &pl->place[ad__plan_source(pl, in[1])];
    if (from->kind == to->kind && from->index == to->index && from->offset == to->offset)
        return true;
    return plain(p, "assign", node, plan_size(pl, node), (int64_t[]){ plan_size(pl, node) * bytes }, 1);
}

static bool lower_draw(gpu_program *p, const char *kernel, int32_t node)
{
    const int64_t *a = plan_attrs(p->plan, node), n = plan_size(p->plan, node);
    bool own_key = p->plan->node[node].n_attrs > 3;
    return plain(p, kernel, node, n, (int64_t[]){ n, a[0], a[1], own_key ? a[3] : 0, own_key ? a[4] : 0, a[2] }, 6);
}

bool gpu__lower_node(gpu_program *p, int32_t node)
{
    const plan *pl = p->plan;
    const int64_t *a = plan_attrs(pl, node), n = plan_size(pl, node);
    int64_t bytes = (int64_t)ad__dtype_bytes(pl->context, pl->node[node].dtype);
    switch (pl->node[node].op) {
    case OP_matmul:
        return lower_product(p, node);
    case OP_expand:
    case OP_permute:
        return lower_spread(p, node, bytes);
    case OP_slice:
    case OP_pad:
        return lower_cut(p, node, bytes);
    case OP_concat:
        return lower_concat(p, node, bytes);
    case OP_gather:
    case OP_scatter_add:
        return lower_indexed(p, node, bytes);
    case OP_reduce_sum:
    case OP_reduce_max:
        return lower_reduce(p, node);
    case OP_weighted_total:
        return lower_total(p, node);
    case OP_guard:
        return lower_guard(p, node);
    case OP_cast_real:
        return plain(p, pl->node[plan_inputs(pl, node)[0]].dtype == AD_BYTE ? "cast_byte" : "cast_int64", node, n,
                     (int64_t[]){ n }, 1);
    case OP_cumsum:
        return plain(p, "cumsum", node, a[0] * a[2], (int64_t[]){ a[0] * a[2], a[1], a[2], a[3] }, 4);
    case OP_random_normal:
        return lower_draw(p, "random_normal", node);
    case OP_random_uniform:
        return lower_draw(p, "random_uniform", node);
    case OP_random_index:
        return lower_draw(p, "random_index", node);
    case OP_arange:
        return plain(p, "arange", node, n, (int64_t[]){ n }, 1);
    case OP_assign:
        return lower_assign(p, node, bytes);
    }
    ad__fail(pl->context, AD_ERROR_ARGUMENT, NULL, "the device has no kernel for %s", ad__op_name(pl->node[node].op));
    return false;
}
