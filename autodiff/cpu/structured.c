/* The structured kernels but products: moving, reducing, drawing, totals, assignments. Each section lowers a node to a
 * step and runs its chunks; sizes come from the node's attributes (structured.def). */
#include <stdatomic.h>
#include <string.h>

#include "autodiff/cpu/cpu.h"
#include "autodiff/philox.h"

static const cpu_kernels *kernels(const cpu_step *s)
{
    return s->program->state->kernels;
}
static int64_t pieces(int64_t n, int64_t piece)
{
    return n <= 0 ? 1 : (n + piece - 1) / piece;
}
static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}
enum { PIECE = CHUNK_TILES * TILE };

/* ---- moving ------------------------------------------------------------------------------------------------------ */

/* expand, permute: size 0 elements, 1 bytes of each */
static void run_spread(const void *job, int64_t from, int64_t to, int thread)
{
    const cpu_step *s = job;
    (void)thread;
    int64_t begin = from * PIECE, end = least(to * PIECE, s->size[0]);
    if (end > begin)
        cpu_spread(s->detail, (size_t)s->size[1], begin, end - begin, step_pointer(s, 1),
                   (char *)step_pointer(s, 0) + begin * s->size[1]);
}

/* cast: size 0 elements, 1 dtype */
static void run_cast(const void *job, int64_t from, int64_t to, int thread)
{
    const cpu_step *s = job;
    (void)thread;
    int64_t begin = from * PIECE, end = least(to * PIECE, s->size[0]);
    char *out = (char *)step_pointer(s, 0) + (size_t)begin * real_bytes(s->program);
    if (s->size[1] == AD_BYTE)
        kernels(s)->from_byte(end - begin, (const uint8_t *)step_pointer(s, 1) + begin, out);
    else
        kernels(s)->from_int64(end - begin, (const int64_t *)step_pointer(s, 1) + begin, out);
}

/* slice, pad: attributes 1.. of the node, bytes of an element in size 0 */
static void run_cut(const void *job, int64_t from, int64_t to, int thread)
{
    const cpu_step *s = job;
    (void)from, (void)to, (void)thread;
    const plan *p = s->program->plan;
    const node *n = &p->node[s->node];
    const int64_t *a = plan_attrs(p, s->node);
    int64_t start = n->bind < 0 ? a[5] : (int64_t)s->program->bind->scalar[n->bind];
    size_t row = (size_t)(a[4] * a[3] * s->size[0]), pitch = (size_t)(a[2] * a[3] * s->size[0]);
    size_t skip = (size_t)(start * a[3] * s->size[0]);
    char *out = step_pointer(s, 0);
    const char *x = step_pointer(s, 1);
    if (n->op == OP_pad)
        memset(out, 0, (size_t)a[1] * pitch);
    for (int64_t i = 0; i < a[1] && row; i++) { /* an empty operand has no memory */
        if (n->op == OP_pad)
            memcpy(out + (size_t)i * pitch + skip, x + (size_t)i * row, row);
        else
            memcpy(out + (size_t)i * row, x + (size_t)i * pitch + skip, row);
    }
}

/* concat: size 0 bytes of an element, 1 parts */
static void run_concat(const void *job, int64_t from, int64_t to, int thread)
{
    const cpu_step *s = job;
    (void)from, (void)to, (void)thread;
    const plan *p = s->program->plan;
    const int64_t *a = plan_attrs(p, s->node);
    char *out = step_pointer(s, 0);
    for (int64_t i = 0; i < a[1]; i++) {
        for (int64_t j = 0; j < s->size[1]; j++) {
            size_t row = (size_t)(((const int64_t *)s->detail)[j] * a[2] * s->size[0]);
            if (row)
                memcpy(out, (const char *)step_pointer(s, 1 + (int)j) + (size_t)i * row, row);
            out += row;
        }
    }
}

static bool bad_index(const cpu_step *s, int64_t index, int64_t size)
{
    if (index >= 0 && index < size)
        return false;
    run_outcome *o = s->program->outcome;
    o->bad_index = s->node;
    o->bad_value = index;
    return true;
}

/* gather: (outer, size, inner), index (members) -> (outer, members, inner); size 0 members, 1 bytes of an element */
static void run_gather(const void *job, int64_t from, int64_t to, int thread)
{
    const cpu_step *s = job;
    (void)from, (void)to, (void)thread;
    const int64_t *a = plan_attrs(s->program->plan, s->node), *index = step_pointer(s, 2);
    size_t row = (size_t)(a[3] * s->size[1]);
    char *out = step_pointer(s, 0);
    const char *x = step_pointer(s, 1);
    for (int64_t i = 0; i < a[1]; i++) {
        for (int64_t j = 0; j < s->size[0]; j++, out += row) {
            if (bad_index(s, index[j], a[2]))
                return;
            memcpy(out, x + (size_t)(i * a[2] + index[j]) * row, row);
        }
    }
}

enum { MANY = 256 }; /* members of a row, beyond which their sum would lose digits in float */

/* The rows of n with many members are numbered from 1 on, the others get 0; how many they are. */
static int64_t find_long(int64_t members, const int64_t *index, int64_t n, int64_t *number)
{
    int64_t found = 0;
    memset(number, 0, (size_t)n * sizeof *number);
    for (int64_t j = 0; j < members; j++)
        number[index[j]]++;
    for (int64_t k = 0; k < n; k++)
        number[k] = number[k] > MANY ? ++found : 0;
    return found;
}

/* scatter_add: (outer, members, inner), index (members) -> (outer, size, inner); detail: NULL, or the rows' numbers and
 * behind them the doubles in which the sums of those with many members are made */
static void run_scatter_add(const void *job, int64_t from, int64_t to, int thread)
{
    const cpu_step *s = job;
    (void)from, (void)to, (void)thread;
    const int64_t *a = plan_attrs(s->program->plan, s->node), *index = step_pointer(s, 2), inner = a[3];
    size_t row = (size_t)inner * real_bytes(s->program);
    char *out = step_pointer(s, 0);
    const char *x = step_pointer(s, 1);
    for (int64_t j = 0; j < s->size[0]; j++)
        if (bad_index(s, index[j], a[2]))
            return;
    int64_t *number = s->detail, n_long = number ? find_long(s->size[0], index, a[2], number) : 0;
    double *sum = number ? (double *)(number + a[2]) : NULL;
    memset(out, 0, (size_t)(a[1] * a[2]) * row);
    for (int64_t i = 0; i < a[1]; i++, out += (size_t)a[2] * row) {
        if (n_long)
            memset(sum, 0, (size_t)(n_long * inner) * sizeof *sum);
        for (int64_t j = 0; j < s->size[0]; j++, x += row) {
            if (n_long && number[index[j]])
                kernels(s)->add_to_doubles(inner, x, sum + (number[index[j]] - 1) * inner);
            else
                kernels(s)->add_row(inner, x, out + (size_t)index[j] * row);
        }
        for (int64_t k = 0; n_long && k < a[2]; k++)
            if (number[k])
                kernels(s)->from_double(inner, sum + (number[k] - 1) * inner, out + (size_t)k * row);
    }
}

/* ---- reducing ---------------------------------------------------------------------------------------------------- */

enum { ROW_ELEMENTS = 4096, MOST_PARTIALS = 1 << 16 };

/* (outer, n, 1): the sums of rows whose elements are [from, to) */
static void sum_part(const cpu_step *s, int64_t from, int64_t to, int thread)
{
    (void)thread;
    int64_t n = plan_attrs(s->program->plan, s->node)[1];
    size_t element = real_bytes(s->program);
    kernels(s)->sum_rows((to - from) / n, n, (const char *)step_pointer(s, 1) + (size_t)from * element,
                         (char *)step_pointer(s, 0) + (size_t)(from / n) * element);
}

/* (outer, n, 1): chunks of whole rows, size 0 rows of a chunk; (outer, n, inner): chunks of columns, size 0 of them */
static void run_reduce(const void *job, int64_t from, int64_t to, int thread)
{
    const cpu_step *s = job;
    (void)thread;
    const int64_t *a = plan_attrs(s->program->plan, s->node);
    bool max = s->program->plan->node[s->node].op == OP_reduce_max;
    size_t element = real_bytes(s->program);
    char *out = step_pointer(s, 0);
    const char *x = step_pointer(s, 1);
    if (a[2] == 1) {
        int64_t begin = from * s->size[0], end = least(to * s->size[0], a[0]);
        (max ? kernels(s)->max_rows : kernels(s)->sum_rows)(end - begin, a[1], x + (size_t)(begin * a[1]) * element,
                                                            out + (size_t)begin * element);
        return;
    }
    int64_t per_row = pieces(a[2], s->size[0]);
    for (int64_t chunk = from; chunk < to; chunk++) {
        int64_t i = chunk / per_row, column = chunk % per_row * s->size[0];
        int64_t n = least(s->size[0], a[2] - column);
        (max ? kernels(s)->max_columns : kernels(s)->sum_columns)(a[1], a[2], n,
                                                                  x + (size_t)(i * a[1] * a[2] + column) * element,
                                                                  out + (size_t)(i * a[2] + column) * element);
    }
}

/* A long sum to one number: partial sums of fixed pieces, then their sum. size 0 elements of a piece, 1 pieces */
static void run_partial_sums(const void *job, int64_t from, int64_t to, int thread)
{
    const cpu_step *s = job;
    (void)thread;
    int64_t n = plan_attrs(s->program->plan, s->node)[1];
    size_t element = real_bytes(s->program);
    for (int64_t i = from; i < to; i++)
        kernels(s)->sum_rows(1, least(s->size[0], n - i * s->size[0]),
                             (const char *)step_pointer(s, 1) + (size_t)(i * s->size[0]) * element,
                             (char *)s->detail + (size_t)i * element);
}
static void run_sum_of_partials(const void *job, int64_t from, int64_t to, int thread)
{
    const cpu_step *s = job;
    (void)from, (void)to, (void)thread;
    kernels(s)->sum_rows(1, s->size[1], s->detail, step_pointer(s, 0));
}

static void run_cumsum(const void *job, int64_t from, int64_t to, int thread)
{
    const cpu_step *s = job;
    (void)from, (void)to, (void)thread;
    const int64_t *a = plan_attrs(s->program->plan, s->node);
    const char *x = step_pointer(s, 1);
    char *out = step_pointer(s, 0);
    if (a[2] == 1) {
        kernels(s)->cumsum(a[1], 1, a[0], a[1], a[3], x, out);
        return;
    }
    size_t block = (size_t)(a[1] * a[2]) * real_bytes(s->program);
    for (int64_t i = 0; i < a[0]; i++)
        kernels(s)->cumsum(a[1], a[2], a[2], 1, a[3], x + (size_t)i * block, out + (size_t)i * block);
}

/* ---- sources ----------------------------------------------------------------------------------------------------- */

/* Whether a draw has a key of its own, and which it has. */
static inline bool has_own_key(const plan *p, int32_t node)
{
    return p->node[node].n_attrs > 3;
}
static uint64_t draw_key(const cpu_step *s, uint32_t *run)
{
    const int64_t *a = plan_attrs(s->program->plan, s->node);
    bool own = has_own_key(s->program->plan, s->node);
    *run = own ? (uint32_t)a[4] : s->program->bind->run;
    return own ? (uint64_t)a[3] : s->program->bind->key;
}

static void run_random(const void *job, int64_t from, int64_t to, int thread)
{
    const cpu_step *s = job;
    (void)thread;
    const int64_t *a = plan_attrs(s->program->plan, s->node);
    uint32_t run;
    uint64_t key = draw_key(s, &run);
    int64_t begin = from * PIECE, end = least(to * PIECE, s->size[0]);
    bool normal = s->program->plan->node[s->node].op == OP_random_normal;
    (normal ? kernels(s)->normal
            : kernels(s)->uniform)((char *)step_pointer(s, 0) + (size_t)begin * real_bytes(s->program), begin, end,
                                   key, (uint32_t)a[0], (uint32_t)a[1], run);
}

/* Small draws of one depth */
typedef struct draws {
    draw_batch batch;
    int32_t depth, pointer[DRAW_BLOCKS]; /* the program's, of each part */
} draws;

static void run_draws(const void *job, int64_t from, int64_t to, int thread)
{
    const cpu_step *s = job;
    (void)from, (void)to, (void)thread;
    draws *d = s->detail;
    for (int i = 0; i < d->batch.parts; i++)
        d->batch.part[i].out = s->program->pointer[d->pointer[i]];
    kernels(s)->draw_batch(&d->batch, s->program->bind->key, s->program->bind->run);
}

/* philox_index, by a table where there are steps before */
static void run_random_index(const void *job, int64_t from, int64_t to, int thread)
{
    const cpu_step *s = job;
    (void)from, (void)to, (void)thread;
    const int64_t *a = plan_attrs(s->program->plan, s->node), n = a[2];
    const uint32_t site = (uint32_t)a[0], draw = (uint32_t)a[1];
    uint32_t run;
    uint64_t key = draw_key(s, &run);
    int64_t *out = step_pointer(s, 0);
    if (n > PHILOX_SHUFFLED) {
        key = philox_permutation(key, site, draw, run);
        for (int64_t i = 0; i < s->size[0]; i++)
            out[i] = feistel_permute(key, i, n);
        return;
    }
    uint8_t place[PHILOX_SHUFFLED];
    for (int i = 0; i < PHILOX_SHUFFLED; i++)
        place[i] = (uint8_t)i;
    for (int i = 0; i < (int)s->size[0]; i++) {
        int at = philox_shuffle(key, site, draw, run, i, (int)n);
        out[i] = place[at];
        place[at] = place[i];
    }
}

static void run_arange(const void *job, int64_t from, int64_t to, int thread)
{
    const cpu_step *s = job;
    (void)from, (void)to, (void)thread;
    kernels(s)->arange(0, s->size[0], step_pointer(s, 0));
}

/* ---- totals and assignments -------------------------------------------------------------------------------------- */

/* pointers: out, then values and weights in turn; detail: their terms, size 0 of them */
static void run_weighted_total(const void *job, int64_t from, int64_t to, int thread)
{
    const cpu_step *s = job;
    (void)from, (void)to, (void)thread;
    void *const *pointer = s->program->pointer + s->pointer;
    double sum = kernels(s)->weighted_total(s->size[0], s->detail, pointer + 1, s->program->bind->scalar);
    kernels(s)->store(pointer[0], 0, sum);
    memcpy((char *)pointer[0] + sizeof sum, &sum, sizeof sum);
}

/* pointers: out, then values; detail: their terms, size 0 of them */
static void run_guard(const void *job, int64_t from, int64_t to, int thread)
{
    const cpu_step *s = job;
    (void)thread;
    const guard_term *term = s->detail;
    int64_t j = 0;
    for (int64_t chunk = from; chunk < to; chunk++) {
        while (j + 1 < s->size[0] && term[j + 1].first_chunk <= chunk)
            j++;
        int64_t begin = (chunk - term[j].first_chunk) * PIECE, n = least(PIECE, term[j].size - begin);
        const char *x = (const char *)step_pointer(s, 1 + (int)j) + (size_t)begin * real_bytes(s->program);
        if (n > 0 && !kernels(s)->finite(n, x))
            __atomic_store_n(&s->program->outcome->finite, false, __ATOMIC_RELAXED);
    }
}
static void run_small_guard(const void *job, int64_t from, int64_t to, int thread) /* a chunk for each value */
{
    const cpu_step *s = job;
    (void)from, (void)to, (void)thread;
    if (!kernels(s)->finite_each(s->size[0], s->detail, s->program->pointer + s->pointer + 1))
        s->program->outcome->finite = false;
}

static void run_assign(const void *job, int64_t from, int64_t to, int thread)
{
    const cpu_step *s = job;
    (void)from, (void)to, (void)thread;
    memcpy(step_pointer(s, 1), step_pointer(s, 2), (size_t)s->size[0]);
}

/* ---- lowering ---------------------------------------------------------------------------------------------------- */

static spread spread_of_permute(const plan *p, int32_t node)
{
    const ad_shape *x = &ad__shape_info(p->context, p->node[plan_inputs(p, node)[0]].shape)->shape;
    int64_t strides[AD_MAX_RANK], stride = 1;
    for (int i = x->rank - 1; i >= 0; i--) {
        strides[i] = stride;
        stride *= x->dim[i];
    }
    spread s = { .rank = x->rank };
    for (int i = 0; i < x->rank; i++) {
        int64_t axis = plan_attrs(p, node)[x->rank - 1 - i];
        s.dim[i] = x->dim[axis];
        s.stride[i] = strides[axis];
    }
    return s;
}

static bool lower_spread(cpu_program *p, int32_t node)
{
    const plan *pl = p->plan;
    int32_t shape;
    cpu_step *s = cpu_step_new(p, run_spread, node);
    spread *to = cpu_detail(p, sizeof *to);
    if (!s || !to)
        return false;
    if (pl->node[node].op == OP_permute) {
        *to = spread_of_permute(pl, node);
    } else {
        ad__plan_operand(pl, node, &shape);
        *to = cpu_spread_broadcast(&ad__shape_info(pl->context, shape)->shape,
                                   &ad__shape_info(pl->context, pl->node[node].shape)->shape);
    }
    s->detail = to;
    s->size[0] = plan_size(pl, node);
    s->size[1] = (int64_t)ad__dtype_bytes(pl->context, pl->node[node].dtype);
    s->chunks = pieces(s->size[0], PIECE);
    s->parallel = s->size[0] >= WORTH_MOVES;
    return true;
}

static bool lower_reduce(cpu_program *p, int32_t node)
{
    const int64_t *a = plan_attrs(p->plan, node);
    cpu_step *s = cpu_step_new(p, run_reduce, node);
    if (!s)
        return false;
    s->parallel = a[0] * a[1] * a[2] >= WORTH_MOVES;
    if (a[0] == 1 && a[2] == 1 && a[1] > 2 * ROW_ELEMENTS && p->plan->node[node].op == OP_reduce_sum) {
        int64_t piece = ROW_ELEMENTS;
        while (pieces(a[1], piece) > MOST_PARTIALS)
            piece *= 2;
        s->run = run_partial_sums;
        s->size[0] = piece;
        s->chunks = s->size[1] = pieces(a[1], piece);
        void *partial = s->detail = cpu_detail(p, (size_t)s->chunks * sizeof(double));
        cpu_step *sum = partial ? cpu_step_new(p, run_sum_of_partials, node) : NULL;
        if (!sum)
            return false;
        sum->size[1] = pieces(a[1], piece);
        sum->detail = partial;
        return true;
    }
    if (a[2] == 1) {
        s->size[0] = a[1] >= ROW_ELEMENTS ? 1 : a[1] ? ROW_ELEMENTS / a[1] : ROW_ELEMENTS;
        s->chunks = pieces(a[0], s->size[0]);
        s->part = a[1] && p->plan->node[node].op == OP_reduce_sum ? sum_part : NULL;
    } else {
        s->size[0] = COLUMNS;
        s->chunks = a[0] * pieces(a[2], COLUMNS);
    }
    return true;
}

/* A small draw joins the latest step of draws, which comes behind what was lowered in between: nothing that has its
 * depth reads it, and its memory is its own since before. */
static bool lower_draws(cpu_program *p, int32_t node, int32_t blocks)
{
    const plan *pl = p->plan;
    const int64_t *a = plan_attrs(pl, node);
    bool normal = pl->node[node].op == OP_random_normal;
    int32_t depth = pl->item ? pl->item[pl->item_of[node]].depth : 0, n = (int32_t)plan_size(pl, node);
    draws *d = p->draws >= 0 ? p->step[p->draws].detail : NULL;
    if (d && d->depth == depth && d->batch.normal == normal && d->batch.blocks + blocks <= DRAW_BLOCKS) {
        memmove(p->step + p->draws, p->step + p->draws + 1, (size_t)(--p->n_steps - p->draws) * sizeof *p->step);
        p->draws = -1;
    } else if ((d = cpu_detail(p, sizeof *d))) {
        d->batch.normal = normal;
        d->depth = depth;
    }
    cpu_step *s = d ? cpu_step_new(p, run_draws, node) : NULL;
    if (!s)
        return false;
    s->detail = d;
    p->draws = p->n_steps - 1;
    draw_batch *b = &d->batch;
    d->pointer[b->parts] = s->pointer;
    b->part[b->parts++] = (draw_part){ .n = n, .block = b->blocks };
    b->longest = n > b->longest ? n : b->longest;
    for (int32_t i = 0; i < blocks; i++, b->blocks++) {
        b->counter[0][b->blocks] = (uint64_t)i;
        b->counter[1][b->blocks] = (uint64_t)a[1] << 16;
        b->counter[2][b->blocks] = (uint64_t)a[0];
    }
    return true;
}

static bool lower_weighted_total(cpu_program *p, int32_t node)
{
    const plan *pl = p->plan;
    int n = pl->node[node].n_inputs / 2;
    cpu_step *s = cpu_step_new(p, run_weighted_total, node);
    total_term *term = cpu_detail(p, (size_t)(n + 1) * sizeof *term);
    if (!s || !term)
        return false;
    s->detail = term;
    s->size[0] = n;
    for (int i = 0; i < n; i++) {
        const int32_t *in = plan_inputs(pl, node) + 2 * i;
        term[i] = (total_term){ plan_size(pl, in[0]), pl->node[in[1]].bind };
    }
    return true;
}

static bool lower_guard(cpu_program *p, int32_t node)
{
    const plan *pl = p->plan;
    int n = pl->node[node].n_inputs;
    cpu_step *s = cpu_step_new(p, run_guard, node);
    guard_term *term = cpu_detail(p, (size_t)(n + 1) * sizeof *term);
    int64_t chunk = 0, seen = 0;
    if (!s || !term)
        return false;
    s->detail = term;
    s->size[0] = n;
    for (int i = 0; i < n; i++) {
        int32_t in = plan_inputs(pl, node)[i];
        bool watched = cpu_watched(pl, ad__plan_source(pl, in));
        term[i] = (guard_term){ chunk, watched ? 0 : plan_size(pl, in) };
        chunk += watched ? 0 : pieces(term[i].size, PIECE);
        seen += watched;
    }
    s->chunks = chunk;
    s->parallel = chunk * PIECE >= WORTH_MOVES && chunk > 2 * n;
    if (chunk == n - seen)
        s->run = run_small_guard;
    return true;
}

bool cpu_lower_node(cpu_program *p, int32_t node)
{
    const plan *pl = p->plan;
    const int32_t *in = plan_inputs(pl, node);
    int64_t size = plan_size(pl, node);
    int64_t bytes = (int64_t)ad__dtype_bytes(pl->context, pl->node[node].dtype);
    cpu_step *s;
    switch (pl->node[node].op) {
    case OP_matmul:
        return cpu_lower_product(p, node);
    case OP_expand:
    case OP_permute:
        return lower_spread(p, node);
    case OP_reduce_sum:
    case OP_reduce_max:
        return lower_reduce(p, node);
    case OP_weighted_total:
        return lower_weighted_total(p, node);
    case OP_guard:
        return lower_guard(p, node);
    case OP_cast_real:
        if (!(s = cpu_step_new(p, run_cast, node)))
            return false;
        s->size[0] = size;
        s->size[1] = pl->node[in[0]].dtype;
        s->chunks = pieces(size, PIECE);
        s->parallel = size >= WORTH_MOVES;
        return true;
    case OP_slice:
    case OP_pad:
        if (!(s = cpu_step_new(p, run_cut, node)))
            return false;
        s->size[0] = bytes;
        return true;
    case OP_concat: {
        if (!(s = cpu_step_new(p, run_concat, node)))
            return false;
        int64_t *length = s->detail = cpu_detail(p, (size_t)pl->node[node].n_inputs * sizeof *length);
        if (!length)
            return false;
        s->size[0] = bytes;
        s->size[1] = pl->node[node].n_inputs;
        for (int i = 0; i < pl->node[node].n_inputs; i++)
            length[i] = ad__shape_info(pl->context, pl->node[in[i]].shape)->shape.dim[plan_attrs(pl, node)[0]];
        return true;
    }
    case OP_gather:
    case OP_scatter_add:
        if (!(s = cpu_step_new(p, pl->node[node].op == OP_gather ? run_gather : run_scatter_add, node)))
            return false;
        s->size[0] = plan_size(pl, in[1]);
        s->size[1] = bytes;
        if (pl->node[node].op == OP_scatter_add && s->size[0] > MANY && bytes < (int64_t)sizeof(double)) {
            const int64_t *a = plan_attrs(pl, node);
            return (s->detail = cpu_detail(p, (size_t)(a[2] + s->size[0] / MANY * a[3]) * sizeof(double))) != NULL;
        }
        return true;
    case OP_cumsum:
        return cpu_step_new(p, run_cumsum, node) != NULL;
    case OP_random_normal:
    case OP_random_uniform:
        if (size > 0 && pieces(size, 16 / bytes) <= DRAW_BLOCKS && !has_own_key(pl, node))
            return lower_draws(p, node, (int32_t)pieces(size, 16 / bytes));
        if (!(s = cpu_step_new(p, run_random, node)))
            return false;
        s->size[0] = size;
        s->chunks = pieces(size, PIECE);
        s->parallel = size >= WORTH_DRAWS;
        return true;
    case OP_random_index:
        if (!(s = cpu_step_new(p, run_random_index, node)))
            return false;
        s->size[0] = size;
        return true;
    case OP_arange:
        if (!(s = cpu_step_new(p, run_arange, node)))
            return false;
        s->size[0] = size;
        return true;
    case OP_assign: /* a value that was placed in its state needs no copy */
        if (!memcmp(&pl->place[node], &pl->place[ad__plan_source(pl, in[1])], sizeof(place)))
            return true;
        if (!(s = cpu_step_new(p, run_assign, node)))
            return false;
        s->size[0] = size * bytes;
        return true;
    }
    ad__fail(pl->context, AD_ERROR_ARGUMENT, NULL, "the CPU has no kernel for %s", ad__op_name(pl->node[node].op));
    return false;
}
