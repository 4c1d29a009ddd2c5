/* The pass that makes items: which nodes run together, and in which order.
 *
 * Elementwise nodes of one loop shape join an item when nothing they read can depend on it: every operand lies in the
 * item itself or at a smaller depth. Depth grows along every path between items, so no cycle can arise, and depth order
 * is an order to run in. Updates of states, which nothing else of the run reads, come after the gate. */
#include <string.h>

#include "autodiff/plan.h"

enum { GATE = 1 << 29, LAST = GATE + GATE, MOST_MEMBERS = 48, LOOK_BACK = 8, SMALL = 512 };

static bool is_source(int op)
{
    return op == OP_input || op == OP_state || op == OP_scalar || op == OP_constant || op == OP_run;
}
static bool is_view(int op)
{
    return op == OP_reshape || op == OP_stop_gradient;
}

/* One number made a tensor, reshaped, made larger, is one number still: so the gradient of a sum over some axes. */
static int32_t number_behind(const plan *p, int32_t id, int32_t *shape)
{
    int32_t from = ad__plan_source(p, id), of;
    if (from == id || p->node[from].op != OP_expand || p->done[from])
        return -1;
    int32_t number = ad__plan_operand(p, from, &of);
    const shape_info *s = ad__shape_info(p->context, of);
    if (s->size != 1 || s->shape.rank > ad__shape_info(p->context, p->node[id].shape)->shape.rank)
        return -1;
    *shape = of;
    return number;
}

int32_t ad__plan_operand(const plan *p, int32_t id, int32_t *shape)
{
    id = p->same[id];
    while ((p->node[id].op == OP_expand || p->node[id].op == OP_stop_gradient) && !p->done[id])
        id = p->same[plan_inputs(p, id)[0]];
    int32_t of = p->node[id].shape, number = p->node[id].op == OP_reshape ? number_behind(p, id, &of) : -1;
    if (shape)
        *shape = of;
    return number >= 0 ? number : ad__plan_source(p, id);
}

/* Expansions that someone must read as memory: all but elementwise readers. */
static void mark_expanded(plan *p)
{
    for (int32_t i = 0; i < p->n; i++) {
        if (!p->live[i] || is_view(p->node[i].op) || p->done[i])
            continue;
        const int32_t *in = plan_inputs(p, i);
        bool elementwise = p->node[i].op < N_ELEMENTWISE;
        if (p->node[i].op == OP_expand)
            continue; /* decided by its own readers below */
        for (int j = 0; j < p->node[i].n_inputs; j++)
            p->kept[elementwise ? ad__plan_operand(p, in[j], NULL) : ad__plan_source(p, in[j])] |= 2;
    }
    for (int i = 0; i < p->n_roots; i++)
        p->kept[ad__plan_source(p, p->root[i])] |= 3;
    for (int32_t i = p->n - 1; i >= 0; i--) /* an expansion that is made reads its own source as memory */
        if (p->live[i] && p->node[i].op == OP_expand && p->kept[i] & 2)
            p->kept[ad__plan_operand(p, i, NULL)] |= 2;
}

typedef struct fuser {
    plan *p;
    int32_t *next;     /* per node: next member of its item, or -1 */
    int32_t *tail;     /* per item */
    int32_t *recent;   /* per shape: latest item of that loop shape, or -1 */
    int32_t *previous; /* per item: the item of the same loop shape before it */
} fuser;

static int32_t depth_of(const plan *p, int32_t id)
{
    return p->item_of[id] < 0 ? 0 : p->item[p->item_of[id]].depth;
}

static int32_t new_item(fuser *f, int32_t id, int32_t shape, int32_t depth)
{
    plan *p = f->p;
    int32_t k = p->n_items++;
    p->item[k] = (plan_item){ .first = id, .count = 1, .depth = depth, .shape = shape };
    f->tail[k] = id;
    p->item_of[id] = k;
    if (shape >= 0) {
        f->previous[k] = f->recent[shape];
        f->recent[shape] = k;
    }
    return k;
}

static void add_elementwise(fuser *f, int32_t id)
{
    plan *p = f->p;
    const node *n = &p->node[id];
    bool small = plan_size(p, id) <= SMALL, update = !(p->live[id] & 2);
    int32_t base = update ? GATE : 0;
    int32_t in[4], deepest = base;
    for (int j = 0; j < n->n_inputs; j++) {
        in[j] = ad__plan_operand(p, plan_inputs(p, id)[j], NULL);
        int32_t depth = depth_of(p, in[j]);
        if (depth > deepest)
            deepest = depth;
    }
    int32_t k = p->context->passes & PASS_FUSE ? f->recent[n->shape] : -1;
    for (int tries = 0; k >= 0 && tries < LOOK_BACK; k = f->previous[k], tries++) {
        plan_item *it = &p->item[k];
        if (it->count >= MOST_MEMBERS || it->depth <= base || (!update && it->depth > GATE))
            continue;
        bool fits = true, related = small;
        for (int j = 0; j < n->n_inputs && fits; j++) {
            bool inside = p->item_of[in[j]] == k;
            fits = inside || depth_of(p, in[j]) < it->depth;
            related |= inside;
        }
        for (int32_t m = it->first; fits && !related && m >= 0;
             m = f->next[m]) /* horizontally: where they share an operand */
            for (int i = 0; i < p->node[m].n_inputs && !related; i++)
                for (int j = 0; j < n->n_inputs && !related; j++)
                    related = plan_size(p, in[j]) > 1 && ad__plan_operand(p, plan_inputs(p, m)[i], NULL) == in[j];
        if (!fits || !related)
            continue;
        f->next[f->tail[k]] = id;
        f->tail[k] = id;
        p->item_of[id] = k;
        it->count++;
        return;
    }
    new_item(f, id, n->shape, deepest + 1);
}

static void add_structured(fuser *f, int32_t id)
{
    plan *p = f->p;
    const node *n = &p->node[id];
    int32_t deepest = p->live[id] & 2 ? 0 : GATE;
    for (int j = 0; j < n->n_inputs; j++) {
        int32_t from = n->op == OP_expand ? ad__plan_operand(p, id, NULL) : ad__plan_source(p, plan_inputs(p, id)[j]);
        int32_t depth = depth_of(p, from);
        if (depth > deepest)
            deepest = depth;
    }
    if (n->op == OP_guard)
        deepest = GATE - 2; /* the last before the gate */
    if (n->op == OP_assign)
        deepest = LAST - 2;
    new_item(f, id, -1, deepest + 1);
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
        const node *n = &p->node[i];
        for (int j = 0; j < n->n_inputs; j++) {
            int32_t in = plan_inputs(p, i)[j], from = n->op == OP_expand      ? ad__plan_operand(p, i, NULL)
                                                      : n->op < N_ELEMENTWISE ? ad__plan_operand(p, in, NULL)
                                                                              : ad__plan_source(p, in);
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
        if (p->kept[m] & 1)
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
        if ((p->item[j].depth > GATE) != (p->item[k].depth > GATE))
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

/* By depth, keeping the order of creation within one; members become contiguous. */
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
                to[k] = a < middle && (b >= high || from[a].depth <= from[b].depth) ? from[a++] : from[b++];
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
        if (it->depth >= GATE && p->gate == n)
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
    mark_expanded(p);
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
        if (op == OP_expand && !(p->kept[i] & 2))
            continue;
        if (op < N_ELEMENTWISE)
            add_elementwise(&f, i);
        else
            add_structured(&f, i);
    }
    bool done = (~c->passes & (PASS_FUSE | PASS_SINK) || sink_items(&f)) && order_items(&f);
    ad__allocate(c, memory, 0);
    return done;
}
