/* Elementwise items: lowering to tile programs, and running them. A tile goes through all members while it is in L1, so
 * an item costs one pass over its operands and results, however many members it has. */
#include <string.h>

#include "autodiff/cpu/cpu.h"

enum { LINE = 64 };

/* ---- spreads ----------------------------------------------------------------------------------------------------- */

static void repeat(void *out, const void *value, int64_t n, size_t element)
{
    if (element == 4) {
        uint32_t v, *o = out;
        memcpy(&v, value, sizeof v);
        for (int64_t i = 0; i < n; i++)
            o[i] = v;
    } else if (element == 8) {
        uint64_t v, *o = out;
        memcpy(&v, value, sizeof v);
        for (int64_t i = 0; i < n; i++)
            o[i] = v;
    } else {
        memset(out, *(const uint8_t *)value, (size_t)n);
    }
}

static void pick(void *out, const char *x, int64_t stride, int64_t n, size_t element)
{
    if (element == 4) {
        for (int64_t i = 0; i < n; i++)
            ((uint32_t *)out)[i] = ((const uint32_t *)x)[i * stride];
    } else if (element == 8) {
        for (int64_t i = 0; i < n; i++)
            ((uint64_t *)out)[i] = ((const uint64_t *)x)[i * stride];
    } else {
        for (int64_t i = 0; i < n; i++)
            ((uint8_t *)out)[i] = (uint8_t)x[i * stride];
    }
}

void cpu_spread(const spread *s, size_t element, int64_t from, int64_t n, const void *x_, void *out_)
{
    const char *x = x_;
    char *out = out_;
    int64_t at[AD_MAX_RANK], offset = 0;
    if (n <= 0) /* of an empty loop, which has no coordinates */
        return;
    for (int i = 0; i < s->rank; i++) { /* coordinates of the first element */
        at[i] = from % s->dim[i];
        from /= s->dim[i];
        offset += at[i] * s->stride[i];
    }
    while (n > 0) {
        int64_t run = s->dim[0] - at[0] < n ? s->dim[0] - at[0] : n;
        const char *source = x + offset * (int64_t)element;
        if (s->stride[0] == 1)
            memcpy(out, source, (size_t)run * element);
        else if (s->stride[0] == 0)
            repeat(out, source, run, element);
        else
            pick(out, source, s->stride[0], run, element);
        out += (size_t)run * element;
        n -= run;
        offset -= at[0] * s->stride[0];
        at[0] = 0;
        for (int i = 1; i < s->rank; i++) {
            offset += s->stride[i];
            if (++at[i] < s->dim[i])
                break;
            offset -= at[i] * s->stride[i];
            at[i] = 0;
        }
    }
}

spread cpu_spread_broadcast(const ad_shape *from, const ad_shape *to)
{
    spread s = { .rank = 0 };
    int64_t stride = 1;
    for (int i = 1; i <= to->rank; i++) {
        int64_t dim = to->dim[to->rank - i], own = i <= from->rank ? from->dim[from->rank - i] : 1;
        int64_t step = own == 1 ? 0 : stride;
        stride *= own;
        if (dim == 1)
            continue;
        int last = s.rank - 1;
        if (last >= 0 && step == s.stride[last] * s.dim[last] && (step || !s.stride[last])) {
            s.dim[last] *= dim; /* continues the dimension inside it */
        } else {
            s.dim[s.rank] = dim;
            s.stride[s.rank++] = step;
        }
    }
    if (s.rank == 0)
        s = (spread){ .rank = 1, .dim = { 1 }, .stride = { 1 } };
    return s;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

/* Where the slots lie for the tile that starts at element `begin`. */
static void find_slots(const cpu_step *s, const tile_program *t, char *scratch, int64_t begin, size_t element,
                       char **at)
{
    for (int32_t i = 0; i < t->n_slots; i++) {
        const tile_slot *slot = &t->slot[i];
        if (slot->kind == SLOT_MEMORY)
            at[i] = (char *)step_pointer(s, slot->pointer) + (size_t)begin * element;
        else
            at[i] = scratch + (size_t)slot->scratch * TILE * element;
    }
}

/* Loads the spread operands of elements [i, i + n) and runs the members over them. */
static inline void run_tile(const cpu_step *s, const tile_program *t, int64_t i, int64_t n, size_t element, char **at)
{
    for (int32_t j = 0; j < t->n_spreads; j++) {
        const tile_slot *slot = &t->slot[t->spread_slot[j]];
        cpu_spread(slot->spread, element, i, n, step_pointer(s, slot->pointer), at[t->spread_slot[j]]);
    }
    const tile_member *end = t->member + t->n_members;
    for (const tile_member *m = t->member; m < end; m++)
        m->run(n, at[m->out], at[m->in[0]], at[m->in[1]], at[m->in[2]], at[m->in[3]]);
}

static void fill_splats(const cpu_step *s, const tile_program *t, int64_t n, char **at)
{
    for (int32_t j = 0; j < t->n_splats; j++) {
        int16_t i = t->splat_slot[j];
        s->program->state->kernels->splat(n, at[i], step_pointer(s, t->slot[i].pointer));
    }
}

/* ---- programs of one tile: small models are made of them --------------------------------------------------------- */

/* Memory other than the user's comes in whole lines, and so do the pieces of scratch: operations run to the end of the
 * last one, where they need no remainder. What they make of the elements behind the size, nobody reads; but what a
 * state keeps there comes back at the next run, and is cleared, or it decays in time to denormal numbers, which are
 * slow. */
static int64_t whole_lines(int64_t size, size_t element)
{
    int64_t line = LINE / (int64_t)element;
    return (size + line - 1) / line * line;
}

/* The operations of a program of one tile, with the addresses of this epoch. A scalar one begins by loading its spread
 * operands, one of lines by filling its splats. */
static void find_operations(const cpu_step *s, tile_program *t)
{
    const cpu_state *state = s->program->state;
    const cpu_kernels *k = state->kernels;
    size_t element = (size_t)k->bits / 8;
    int64_t n = whole_lines(t->size, element);
    char *at[TILE_SLOTS];
    find_slots(s, t, state->scratch, 0, element, at);
    small_op *o = t->op;
    for (int32_t j = 0; j < t->n_spreads && t->size == 1; j++)
        *o++ = (small_op){ k->small_copy, 1, at[t->spread_slot[j]], { NULL } };
    for (int32_t j = 0; j < t->n_splats; j++) {
        int16_t i = t->splat_slot[j];
        *o++ = (small_op){ k->small_splat, n, at[i], { step_pointer(s, t->slot[i].pointer) } };
    }
    for (const tile_member *m = t->member; m < t->member + t->n_members; m++) {
        *o++ = (small_op){ m->small, n, at[m->out], { at[m->in[0]], at[m->in[1]], at[m->in[2]], at[m->in[3]] } };
        const tile_slot *out = &t->slot[m->out];
        if (out->kind == SLOT_MEMORY && t->size > 1 && t->size < n &&
            s->program->reference[s->pointer + out->pointer].kind == PLACE_TENSOR)
            *o++ = (small_op){ k->small_clear, n - t->size, at[m->out] + (size_t)t->size * element, { NULL } };
    }
    o->run = k->small_end;
    t->epoch = s->program->epoch;
    t->scratch = state->scratch;
}

static void run_single_tile(const void *job, int64_t from, int64_t to, int thread)
{
    const cpu_step *s = job;
    tile_program *t = s->detail;
    const cpu_state *state = s->program->state;
    size_t element = (size_t)state->kernels->bits / 8;
    (void)from, (void)to, (void)thread;
    if (t->epoch != s->program->epoch || t->scratch != state->scratch)
        find_operations(s, t);
    for (int32_t j = 0; j < t->n_spreads; j++) {
        const tile_slot *slot = &t->slot[t->spread_slot[j]];
        if (t->size == 1)
            t->op[j].in[0] = step_pointer(s, slot->pointer);
        else
            cpu_spread(slot->spread, element, 0, t->size, step_pointer(s, slot->pointer),
                       state->scratch + (size_t)slot->scratch * TILE * element);
    }
    t->op->run(t->op);
}

/* ---- programs of many tiles -------------------------------------------------------------------------------------- */

/* Asks for the memory of the tile behind this one. A tile is short for the hardware's guess, and while a member divides
 * or takes roots, nothing else would ask: an optimiser's update takes three quarters of the time. */
static inline void fetch_next_tile(const tile_program *t, size_t tile_bytes, char *const *at)
{
    for (int32_t j = 0; j < t->n_memories; j++)
        for (size_t i = 0; i < tile_bytes; i += LINE)
            __builtin_prefetch(at[t->memory_slot[j]] + tile_bytes + i);
}

static void run_part(const cpu_step *s, int64_t begin, int64_t end, int thread)
{
    const tile_program *t = s->detail;
    const cpu_state *state = s->program->state;
    size_t element = (size_t)state->kernels->bits / 8;
    char *at[TILE_SLOTS];
    find_slots(s, t, state->scratch + (size_t)thread * state->scratch_each, begin, element, at);
    fill_splats(s, t, end - begin < TILE ? end - begin : TILE, at);
    for (int64_t i = begin; i < end; i += TILE) {
        fetch_next_tile(t, (size_t)TILE * element, at);
        run_tile(s, t, i, end - i < TILE ? end - i : TILE, element, at);
        for (int32_t j = 0; j < t->n_memories; j++)
            at[t->memory_slot[j]] += (size_t)TILE * element;
    }
}

static void run_tiles(const void *job, int64_t from, int64_t to, int thread)
{
    const cpu_step *s = job;
    int64_t begin = from * CHUNK_TILES * TILE, end = to * CHUNK_TILES * TILE, size = ((tile_program *)s->detail)->size;
    run_part(s, begin, end < size ? end : size, thread);
}

/* ---- lowering ---------------------------------------------------------------------------------------------------- */

enum { FOUND = 2 * TILE_SLOTS };
typedef struct key { /* what an operand slot holds: a node's memory under a shape */
    int32_t node, shape;
} key;

typedef struct tiler {
    cpu_program *program;
    const plan *plan;
    cpu_step *step;
    tile_program *tiles;
    const plan_item *item;
    key keys[TILE_SLOTS];
    int16_t found[FOUND];        /* slots of operands, by hash of their keys; -1 empty */
    int16_t slot_of[TILE_SLOTS]; /* of each member's result */
    bool done[TILE_SLOTS];
    int16_t dies[TILE_SLOTS], after[TILE_SLOTS]; /* per member: the first that dies with it, the next that does */
    int32_t free_scratch[TILE_SLOTS], n_free;
} tiler;

/* Whether memory of shape `from` lies in the order of a loop of shape `to`. */
static bool same_order(const ad_shape *from, const ad_shape *to)
{
    int lead = to->rank - from->rank;
    for (int i = 0; i < to->rank; i++)
        if (to->dim[i] != (i < lead ? 1 : from->dim[i - lead]))
            return false;
    return true;
}

static int16_t new_slot(tiler *l, tile_slot slot, key k)
{
    int16_t i = (int16_t)l->tiles->n_slots++;
    l->tiles->slot[i] = slot;
    l->keys[i] = k;
    return i;
}

static int32_t take_scratch(tiler *l)
{
    return l->n_free ? l->free_scratch[--l->n_free] : l->tiles->n_scratch++;
}

/* The slot of an operand outside the item; -1 after an error. */
static int16_t outside_slot(tiler *l, int32_t node, int32_t shape)
{
    uint32_t at = ((uint32_t)node * 31 + (uint32_t)shape) % FOUND;
    for (; l->found[at] >= 0; at = (at + 1) % FOUND)
        if (l->keys[l->found[at]].node == node && l->keys[l->found[at]].shape == shape)
            return l->found[at];
    ad_context *c = l->plan->context;
    const shape_info *from = ad__shape_info(c, shape), *loop = ad__shape_info(c, l->item->shape);
    tile_slot slot = { .kind = SLOT_SPREAD };
    /* the user's memory may end within a line, and move: small programs copy it */
    bool user = l->tiles->size <= TILE && l->plan->place[node].kind == PLACE_BOUND;
    if (same_order(&from->shape, &loop->shape) && !user)
        slot.kind = SLOT_MEMORY;
    else if (from->size == 1 && !user)
        slot.kind = SLOT_SPLAT;
    int32_t pointer = cpu_pointer_new(l->program, l->plan->place[node]);
    if (pointer < 0)
        return -1;
    slot.pointer = pointer - l->step->pointer;
    if (slot.kind != SLOT_MEMORY)
        slot.scratch = l->tiles->n_scratch++;
    if (slot.kind == SLOT_SPREAD) {
        if (!(slot.spread = cpu_detail(l->program, sizeof *slot.spread)))
            return -1;
        *slot.spread = cpu_spread_broadcast(&from->shape, &loop->shape);
    }
    return l->found[at] = new_slot(l, slot, (key){ node, shape });
}

/* The member of this item that computes a node, or -1. */
static int32_t member_of(const tiler *l, int32_t node)
{
    const plan *p = l->plan;
    return p->item_of[node] >= 0 && &p->item[p->item_of[node]] == l->item ? p->position[node] - l->item->first : -1;
}

/* Chains to each member those whose values it is the last of the item to read: then their scratch is free again. */
static void find_last_readers(tiler *l)
{
    const plan *p = l->plan;
    int32_t last[TILE_SLOTS];
    for (int32_t a = 0; a < l->item->count; a++) {
        int32_t m = p->member[l->item->first + a];
        last[a] = a;
        l->dies[a] = -1;
        for (int j = 0; j < p->node[m].n_inputs; j++) {
            int32_t b = member_of(l, ad__plan_operand(p, plan_inputs(p, m)[j], NULL));
            if (b >= 0)
                last[b] = a;
        }
    }
    for (int32_t b = 0; b < l->item->count; b++) {
        l->after[b] = l->dies[last[b]];
        l->dies[last[b]] = (int16_t)b;
    }
}

/* Scratch of values that member a is the last to read is free again, for a's own result if need be. */
static void free_scratch(tiler *l, int32_t a)
{
    for (int16_t b = l->dies[a]; b >= 0; b = l->after[b]) {
        const tile_slot *s = &l->tiles->slot[l->slot_of[b]];
        if (b != a && s->kind == SLOT_SCRATCH)
            l->free_scratch[l->n_free++] = s->scratch;
    }
}

/* A slot for the result of member a; -1 after an error. */
static int16_t result_slot(tiler *l, int32_t a)
{
    int32_t m = l->plan->member[l->item->first + a];
    tile_slot out = { .kind = SLOT_SCRATCH };
    if (l->plan->place[m].kind != PLACE_NONE) {
        int32_t pointer = cpu_pointer_new(l->program, l->plan->place[m]);
        if (pointer < 0)
            return -1;
        out = (tile_slot){ .kind = SLOT_MEMORY, .pointer = pointer - l->step->pointer };
    } else {
        out.scratch = take_scratch(l);
    }
    return l->slot_of[a] = new_slot(l, out, (key){ -1, -1 });
}

/* The row that is computed beside another where both have the same operands; 0, neg, where there is none. */
static const uint16_t beside_of[N_ELEMENTWISE] = {
#define AD_PAIR1(first, second) [OP_##first] = OP_##second,
#define AD_PAIR2(first, second) [OP_##first] = OP_##second,
#include "autodiff/ops.def"
};

static bool same_operands(const plan *p, int32_t m, int32_t n)
{
    for (int j = 0; j < p->node[m].n_inputs; j++) {
        int32_t shape, other;
        if (ad__plan_operand(p, plan_inputs(p, m)[j], &shape) != ad__plan_operand(p, plan_inputs(p, n)[j], &other) ||
            shape != other)
            return false;
    }
    return true;
}

/* The later member that is computed beside member a; -1 where there is none. */
static int32_t member_beside(const tiler *l, int32_t a)
{
    const plan *p = l->plan;
    const int32_t *member = p->member + l->item->first;
    uint16_t op = beside_of[p->node[member[a]].op];
    for (int32_t b = a + 1; op && p->context->passes & PASS_PAIR && b < l->item->count; b++)
        if (p->node[member[b]].op == op && same_operands(p, member[a], member[b]))
            return b;
    return -1;
}

static bool lower_member(tiler *l, int32_t a)
{
    const plan *p = l->plan;
    int32_t m = p->member[l->item->first + a];
    if (l->done[a]) { /* computed beside an earlier member */
        free_scratch(l, a);
        return true;
    }
    tile_member *to = &l->tiles->member[l->tiles->n_members++];
    const cpu_kernels *k = l->program->state->kernels;
    to->run = k->elementwise[p->node[m].op];
    to->small = (l->tiles->size == 1 ? k->scalar : k->lines)[p->node[m].op];
    for (int j = 0; j < p->node[m].n_inputs; j++) {
        int32_t shape, from = ad__plan_operand(p, plan_inputs(p, m)[j], &shape);
        int32_t inside = member_of(l, from);
        int16_t slot = inside >= 0 ? l->slot_of[inside] : outside_slot(l, from, shape);
        if (slot < 0)
            return false;
        to->in[j] = slot;
    }
    for (int j = p->node[m].n_inputs; j < 4; j++)
        to->in[j] = to->in[0];
    int32_t beside = member_beside(l, a);
    if (beside >= 0) { /* two results: neither may lie where an operand does, so they come before those are freed */
        to->run = k->pair[p->node[m].op];
        to->small = (l->tiles->size == 1 ? k->scalar_pair : k->lines_pair)[p->node[m].op];
        if ((to->in[3] = result_slot(l, beside)) < 0 || (to->out = result_slot(l, a)) < 0)
            return false;
        l->done[beside] = true;
        free_scratch(l, a);
        return true;
    }
    free_scratch(l, a);
    to->out = result_slot(l, a);
    return to->out >= 0;
}

bool cpu_lower_tiles(cpu_program *p, const plan_item *item)
{
    const plan *pl = p->plan;
    tiler l;
    l.program = p;
    l.plan = pl;
    l.item = item;
    l.n_free = 0;
    memset(l.done, 0, (size_t)item->count);
    tile_program *t = l.tiles = cpu_detail(p, sizeof *t);
    l.step = cpu_step_new(p, run_tiles, -1);
    if (!t || !l.step)
        return false;
    t->size = ad__shape_info(pl->context, item->shape)->size;
    t->member = cpu_detail(p, (size_t)item->count * sizeof *t->member);
    t->slot = cpu_detail(p, (size_t)item->count * 5 * sizeof *t->slot);
    if (!t->member || !t->slot)
        return false;
    memset(l.found, 0xff, sizeof l.found);
    find_last_readers(&l);
    for (int32_t a = 0; a < item->count; a++)
        if (!lower_member(&l, a))
            return false;
    t->spread_slot = cpu_detail(p, (size_t)t->n_slots * 3 * sizeof *t->spread_slot);
    if (!t->spread_slot)
        return false;
    t->memory_slot = t->spread_slot + t->n_slots;
    t->splat_slot = t->memory_slot + t->n_slots;
    for (int16_t i = 0; i < t->n_slots; i++) {
        const tile_slot *slot = &t->slot[i];
        if (slot->kind == SLOT_SPREAD)
            t->spread_slot[t->n_spreads++] = i;
        if (slot->kind == SLOT_MEMORY)
            t->memory_slot[t->n_memories++] = i;
        if (slot->kind == SLOT_SPLAT)
            t->splat_slot[t->n_splats++] = i;
    }
    if (t->size > TILE) {
        l.step->part = run_part;
    } else {
        l.step->run = run_single_tile;
        t->op = cpu_detail(p, (size_t)(2 * t->n_members + t->n_spreads + t->n_splats + 1) * sizeof *t->op);
        if (!t->op)
            return false;
    }
    l.step->detail = t;
    l.step->node = pl->member[item->first];
    int64_t chunk = CHUNK_TILES * TILE;
    l.step->chunks = (t->size + chunk - 1) / chunk;
    l.step->parallel = t->size * t->n_members >= WORTH_TILES;
    return cpu_need_scratch(p->state, (size_t)t->n_scratch * TILE * real_bytes(p));
}
