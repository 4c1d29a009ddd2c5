/* The pass that makes items: which nodes run together, and in which order. Called by build.c once it is known what is
 * needed; epilogue.c and memory.c take its items from there.
 *
 * Elementwise nodes of one loop shape join an item when nothing that they read can depend on it: every operand lies in the
 * item itself or at a smaller depth. Depth grows along every path between items, so no cycle can arise, and depth order is
 * an order to run in. Updates of states, which nothing else of the run reads, are of a later phase: after the gate.
 *
 * Three ways in which nodes come together, in the order of their code:
 *   join   a node goes to a recent item of its shape that has one of its operands, or shares one with it
 *   sink   an item that only one other item reads moves into that one
 *   order  items by phase and depth, their members one after another */
#include <string.h>

#include "autodiff/plan/plan.h"

enum {
    MOST_MEMBERS = 48, /* of an item: its slots lie in the first-level cache */
    LOOK_BACK = 8,     /* items of a shape that a node tries to join */
    SMALL = 512        /* elements; up to here nodes of one shape join even unrelated: a kernel's start costs more */
};

static bool is_source(int op)
{
    return op == OP_input || op == OP_state || op == OP_scalar || op == OP_constant || op == OP_run;
}
static bool is_view(int op)
{
    return op == OP_reshape || op == OP_stop_gradient;
}

/* Marks what must lie in memory: what is read otherwise than through an expansion, and what outlives the run. An expansion
 * that is not marked is never made, since its readers, all elementwise, look through it. */
static void mark_memory(plan *p)
{
    for (int32_t i = 0; i < p->n; i++) {
        if (!p->live[i] || is_view(p->node[i].op) || p->done[i])
            continue;
        if (p->node[i].op == OP_expand)
            continue; /* decided by its own readers below */
        for (int j = 0; j < p->node[i].n_inputs; j++)
            p->kept[ad__plan_read(p, i, j)] |= KEPT_IN_MEMORY;
    }
    for (int i = 0; i < p->n_roots; i++)
        p->kept[ad__plan_source(p, p->root[i])] |= KEPT_AFTER_RUN | KEPT_IN_MEMORY;
    for (int32_t i = p->n - 1; i >= 0; i--) /* an expansion that is made reads its own source as memory */
        if (p->live[i] && p->node[i].op == OP_expand && p->kept[i] & KEPT_IN_MEMORY)
            p->kept[ad__plan_read(p, i, 0)] |= KEPT_IN_MEMORY;
}

/* ---- joining ----------------------------------------------------------------------------------------------------- */

typedef struct fuser {
    plan *p;
    int32_t *next;     /* per node: next member of its item, or -1 */
    int32_t *tail;     /* per item: its last member */
    int32_t *recent;   /* per shape: latest item of that loop shape, or -1 */
    int32_t *previous; /* per item: the item of the same loop shape before it */
} fuser;

static plan_phase phase_of(const plan *p, int32_t id)
{
    int op = p->node[id].op;
    return op == OP_guard    ? PHASE_GUARD
           : op == OP_assign ? PHASE_ASSIGN
                             : p->live[id] & LIVE_BEFORE_GATE ? PHASE_COMPUTE
                                                              : PHASE_UPDATE;
}

/* How deep in a phase the value of a node comes: 0 where it is there before the phase begins. */
static int32_t depth_in(const plan *p, plan_phase phase, int32_t id)
{
    int32_t k = p->item_of[id];
    return k < 0 || p->item[k].phase < phase ? 0 : p->item[k].depth;
}

/* The depth of a node of a phase that begins an item of its own. */
static int32_t depth_after(const plan *p, plan_phase phase, int32_t id)
{
    int32_t deepest = 0;
    for (int j = 0; j < p->node[id].n_inputs; j++) {
        int32_t depth = depth_in(p, phase, ad__plan_read(p, id, j));
        deepest = depth > deepest ? depth : deepest;
    }
    return deepest + 1;
}

static void new_item(fuser *f, int32_t id, int32_t shape)
{
    plan *p = f->p;
    plan_phase phase = phase_of(p, id);
    int32_t k = p->n_items++;
    p->item[k] = (plan_item){
        .first = id, .count = 1, .phase = phase, .depth = depth_after(p, phase, id), .shape = shape
    };
    f->tail[k] = id;
    p->item_of[id] = k;
    if (shape >= 0) {
        f->previous[k] = f->recent[shape];
        f->recent[shape] = k;
    }
}

/* Whether item k has a member that computes one of a node's operands (n of them, in[]). */
static bool computes_one(const plan *p, int32_t k, const int32_t *in, int n)
{
    for (int j = 0; j < n; j++)
        if (p->item_of[in[j]] == k)
            return true;
    return false;
}

/* Whether item k has a member that reads one of a node's operands too, and that is worth a look: more than a number. */
static bool shares_one(const fuser *f, int32_t k, const int32_t *in, int n)
{
    const plan *p = f->p;
    for (int32_t m = p->item[k].first; m >= 0; m = f->next[m])
        for (int i = 0; i < p->node[m].n_inputs; i++)
            for (int j = 0; j < n; j++)
                if (plan_size(p, in[j]) > 1 && ad__plan_read(p, m, i) == in[j])
                    return true;
    return false;
}

/* Adds an elementwise node to a recent item of its shape and phase that none of its operands comes after, or makes one. */
static void add_elementwise(fuser *f, int32_t id)
{
    plan *p = f->p;
    const node *n = &p->node[id];
    plan_phase phase = phase_of(p, id);
    bool small = plan_size(p, id) <= SMALL;
    int32_t in[4];
    for (int j = 0; j < n->n_inputs; j++)
        in[j] = ad__plan_read(p, id, j);
    int32_t k = p->context->passes & PASS_FUSE ? f->recent[n->shape] : -1;
    for (int tries = 0; k >= 0 && tries < LOOK_BACK; k = f->previous[k], tries++) {
        plan_item *it = &p->item[k];
        bool fits = it->count < MOST_MEMBERS && it->phase == phase;
        for (int j = 0; j < n->n_inputs && fits; j++)
            fits = p->item_of[in[j]] == k || depth_in(p, phase, in[j]) < it->depth;
        if (!fits || !(small || computes_one(p, k, in, n->n_inputs) || shares_one(f, k, in, n->n_inputs)))
            continue;
        f->next[f->tail[k]] = id;
        f->tail[k] = id;
        p->item_of[id] = k;
        it->count++;
        return;
    }
    new_item(f, id, n->shape);
}

/* ---- sinking ----------------------------------------------------------------------------------------------------- */

/* Who reads each node's memory: edges chained per node. */
typedef struct readers {
    int32_t *head;  /* per node: first edge, or -1 */
    int32_t *after; /* per edge */
    int32_t *who;   /* per edge: the reading node */
    int32_t n;
} readers;

static void find_readers(const plan *p, readers *r)
{
    for (int32_t i = 0; i < p->n; i++) {
        if (p->item_of[i] < 0)
            continue;
        for (int j = 0; j < p->node[i].n_inputs; j++) {
            int32_t from = ad__plan_read(p, i, j);
            r->after[r->n] = r->head[from];
            r->who[r->n] = i;
            r->head[from] = r->n++;
        }
    }
}

/* The one item besides k that reads what k computes, element by element; -1 where there is none or several. */
static int32_t only_reader(const fuser *f, const readers *r, int32_t k)
{
    const plan *p = f->p;
    int32_t found = -1;
    for (int32_t m = p->item[k].first; m >= 0; m = f->next[m]) {
        if (p->kept[m] & KEPT_AFTER_RUN)
            return -1;
        for (int32_t e = r->head[m]; e >= 0; e = r->after[e]) {
            int32_t reader = r->who[e], j = p->item_of[reader];
            if (j == k)
                continue;
            if (found >= 0 && j != found)
                return -1;
            if (p->node[reader].op >= N_ELEMENTWISE || p->item[j].shape != p->item[k].shape)
                return -1;
            for (int i = 0; i < p->node[reader].n_inputs; i++) {
                int32_t shape;
                if (ad__plan_operand(p, plan_inputs(p, reader)[i], &shape) == m && shape != p->item[k].shape)
                    return -1;
            }
            found = j;
        }
    }
    return found;
}

/* An item that only one other reads moves into it: joining by depth alone leaves nodes of shallow operands (a weight,
 * an observation) early and by themselves, and their values would travel through memory. */
static bool sink_items(fuser *f)
{
    plan *p = f->p;
    size_t edges = (size_t)p->n_inputs + 1, bytes = ((size_t)p->n + 1 + 2 * edges) * sizeof(int32_t);
    int32_t *memory = ad__allocate(p->context, NULL, bytes);
    if (!memory)
        return false;
    memset(memory, 0xff, bytes);
    readers r = { memory, memory + p->n + 1, memory + p->n + 1 + edges, 0 };
    find_readers(p, &r);
    for (int32_t k = p->n_items - 1; k >= 0; k--) {
        if (p->item[k].shape < 0)
            continue;
        int32_t j = only_reader(f, &r, k);
        if (j < 0 || p->item[j].count + p->item[k].count > MOST_MEMBERS)
            continue;
        if (p->item[j].phase != p->item[k].phase)
            continue;
        for (int32_t m = p->item[k].first; m >= 0; m = f->next[m])
            p->item_of[m] = j;
        f->next[f->tail[k]] = p->item[j].first;
        p->item[j].first = p->item[k].first;
        p->item[j].count += p->item[k].count;
        p->item[k].count = 0;
    }
    int32_t n = 0;
    for (int32_t k = 0; k < p->n_items; k++)
        if (p->item[k].count)
            p->item[n++] = p->item[k];
    p->n_items = n;
    ad__allocate(p->context, memory, 0);
    return true;
}

/* ---- order ------------------------------------------------------------------------------------------------------- */

static bool comes_later(const plan_item *a, const plan_item *b)
{
    return a->phase != b->phase ? a->phase > b->phase : a->depth > b->depth;
}

/* By phase and depth, keeping the order of creation among equals (a merge sort); members become contiguous. */
static bool order_items(fuser *f)
{
    plan *p = f->p;
    ad_context *c = p->context;
    int32_t n = p->n_items;
    plan_item *sorted = ad__allocate(c, NULL, (size_t)(n + 1) * sizeof *sorted);
    if (!sorted)
        return false;
    memcpy(sorted, p->item, (size_t)n * sizeof *sorted);
    plan_item *from = p->item, *to = sorted;
    for (int32_t width = 1; width < n; width *= 2) {
        for (int32_t low = 0; low < n; low += 2 * width) {
            int32_t middle = low + width < n ? low + width : n, high = low + 2 * width < n ? low + 2 * width : n;
            int32_t a = low, b = middle;
            for (int32_t k = low; k < high; k++)
                to[k] = a < middle && (b >= high || !comes_later(&from[a], &from[b])) ? from[a++] : from[b++];
        }
        plan_item *swap = from;
        from = to;
        to = swap;
    }
    if (from != p->item)
        memcpy(p->item, from, (size_t)n * sizeof *sorted);
    ad__allocate(c, sorted, 0);
    p->gate = n;
    for (int32_t k = 0; k < n; k++) {
        plan_item *it = &p->item[k];
        if (it->phase >= PHASE_UPDATE && p->gate == n)
            p->gate = k;
        int32_t m = it->first;
        it->first = p->n_members;
        for (; m >= 0; m = f->next[m]) {
            p->position[m] = p->n_members;
            p->member[p->n_members++] = m;
            p->item_of[m] = k;
        }
    }
    return true;
}

bool ad__pass_fuse(plan *p)
{
    ad_context *c = p->context;
    mark_memory(p);
    size_t bytes = ((size_t)p->n * 3 + (size_t)c->n_shapes + 4) * sizeof(int32_t);
    int32_t *memory = ad__allocate(c, NULL, bytes);
    if (!memory)
        return false;
    memset(memory, 0xff, bytes);
    fuser f = { p, memory, memory + p->n, memory + 3 * (int64_t)p->n, memory + 2 * (int64_t)p->n };
    for (int32_t i = 0; i < p->n; i++) {
        int op = p->node[i].op;
        if (!p->live[i] || p->same[i] != i || p->done[i] || is_source(op) || is_view(op))
            continue;
        if (op == OP_expand && !(p->kept[i] & KEPT_IN_MEMORY))
            continue; /* its readers look through it */
        if (op != OP_guard && plan_size(p, i) == 0)
            continue; /* nothing to compute, and no memory to compute it in */
        if (op < N_ELEMENTWISE)
            add_elementwise(&f, i);
        else
            new_item(&f, i, -1);
    }
    bool done = (~c->passes & (PASS_FUSE | PASS_SINK) || sink_items(&f)) && order_items(&f);
    ad__allocate(c, memory, 0);
    return done;
}
