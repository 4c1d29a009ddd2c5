/* The pass that gives every value its memory: sources where they lie, everything else in one block, where values whose
 * lives do not overlap share bytes. An assigned value is written straight into its state where no one is looking. Called
 * by build.c once the items stand in their order. */
#include <string.h>

#include "autodiff/plan/plan.h"

enum { LINE = 64 };
static size_t aligned(size_t n)
{
    return (n + LINE - 1) & ~(size_t)(LINE - 1);
}

typedef struct span { /* free bytes of the block */
    size_t offset, size;
} span;

typedef struct placer {
    plan *p;
    int32_t *last; /* per node: the last item that reads its memory; n_items when it outlives the run */
    int32_t *dies; /* per item: first node whose memory it is the last to read; chained by `after` */
    int32_t *after;
    span *spans;
    int64_t n_spans, cap_spans;
    size_t end;
    bool overflows; /* more bytes than can be addressed */
} placer;

/* Every node whose memory item k reads, once for each reading. */
#define EACH_READ(p, k, m, from)                                                                                       \
    for (int32_t m##_ = (p)->item[k].first; m##_ < (p)->item[k].first + (p)->item[k].count; m##_++)                    \
        for (int32_t m = (p)->member[m##_], j_ = 0, from; j_ < (p)->node[m].n_inputs && (from = ad__plan_read(p, m, j_), 1); \
             j_++)

/* ---- free spans: first fit, neighbours joined -------------------------------------------------------------------- */

static size_t take(placer *l, size_t size)
{
    int64_t best = -1;
    for (int64_t i = 0; i < l->n_spans; i++)
        if (l->spans[i].size >= size && (best < 0 || l->spans[i].size < l->spans[best].size))
            best = i;
    if (best < 0) {
        size_t at = l->end;
        if (__builtin_add_overflow(at, size, &l->end) || l->end > PTRDIFF_MAX) {
            l->end = at;
            l->overflows = true;
        }
        return at;
    }
    size_t at = l->spans[best].offset;
    l->spans[best].offset += size;
    l->spans[best].size -= size;
    if (!l->spans[best].size)
        l->spans[best] = l->spans[--l->n_spans];
    return at;
}

static bool give(placer *l, size_t offset, size_t size)
{
    for (int64_t i = 0; i < l->n_spans;) { /* join with neighbours until none is left */
        span s = l->spans[i];
        if (s.offset + s.size == offset || offset + size == s.offset) {
            if (s.offset < offset)
                offset = s.offset;
            size += s.size;
            l->spans[i] = l->spans[--l->n_spans];
            i = 0;
        } else {
            i++;
        }
    }
    if (offset + size == l->end) {
        l->end = offset; /* the top shrinks back; the block keeps its greatest size elsewhere */
        return true;
    }
    if (!ad__reserve(l->p->context, &l->spans, &l->cap_spans, l->n_spans + 1, sizeof *l->spans))
        return false;
    l->spans[l->n_spans++] = (span){ offset, size };
    return true;
}

/* ---- sources ----------------------------------------------------------------------------------------------------- */

static void place_sources(plan *p)
{
    for (int32_t i = 0; i < p->n; i++) {
        const node *n = &p->node[i];
        if (!p->live[i])
            continue;
        if (n->op == OP_state)
            p->place[i] = (place){ PLACE_TENSOR, (int32_t)plan_attrs(p, i)[1], 0 };
        if (n->op == OP_input)
            p->place[i] = (place){ PLACE_BOUND, n->bind, 0 };
        if (n->op == OP_scalar)
            p->place[i] =
                (place){ PLACE_BLOCK, p->segment, (int64_t)p->scalar_offset + n->bind * (int64_t)sizeof(double) };
        if (n->op == OP_constant) {
            double value;
            memcpy(&value, plan_attrs(p, i), sizeof value);
            p->place[i] =
                (place){ PLACE_BLOCK, p->segment,
                         (int64_t)(p->scalar_offset + (size_t)(p->n_scalars + p->n_constants) * sizeof(double)) };
            p->constant[p->n_constants++] = value;
        }
    }
}

/* ---- assignments in place ---------------------------------------------------------------------------------------- */

/* last (nodes): of each state the last member behind the gate that reads its old value, -1 where there is none;
 * INT32_MAX where several values are assigned to it: these wait for their turns. */
static void find_last_readers(const plan *p, int32_t *last)
{
    for (int32_t k = p->gate; k < p->n_items; k++) {
        for (int32_t a = p->item[k].first; a < p->item[k].first + p->item[k].count; a++) {
            int32_t m = p->member[a];
            bool assigns = p->node[m].op == OP_assign; /* its first operand */
            if (assigns) {
                int32_t state = ad__plan_read(p, m, 0);
                last[state] = p->kept[state] & KEPT_ASSIGNED ? INT32_MAX : last[state];
                p->kept[state] |= KEPT_ASSIGNED;
            }
            for (int j = assigns; j < p->node[m].n_inputs; j++) {
                int32_t from = ad__plan_read(p, m, j);
                if (p->node[from].op == OP_state && last[from] < a)
                    last[from] = a;
            }
        }
    }
}

/* Whether the new value may be written over the old: when the member that computes it is done with an element, no one
 * reads that any more. Its item's earlier members read a state of the loop's own shape, hence in the loop's order. */
static bool may_overwrite(const plan *p, const int32_t *last, int32_t state, int32_t value)
{
    return p->item_of[value] >= p->gate && p->node[value].op < N_ELEMENTWISE &&
           p->node[value].shape == p->node[state].shape && last[state] <= p->position[value];
}

/* last: of each node, -1 everywhere; filled here. */
static void place_assignments(plan *p, int32_t *last)
{
    find_last_readers(p, last);
    for (int32_t k = p->gate; k < p->n_items; k++) {
        int32_t m = p->member[p->item[k].first];
        if (p->node[m].op != OP_assign)
            continue;
        int32_t state = ad__plan_source(p, plan_inputs(p, m)[0]), value = ad__plan_source(p, plan_inputs(p, m)[1]);
        p->place[m] = p->place[state];
        if (p->context->passes & PASS_OVERWRITE && p->item_of[value] >= 0 && p->place[value].kind == PLACE_NONE &&
            !(p->kept[value] & KEPT_AFTER_RUN) && may_overwrite(p, last, state, value))
            p->place[value] = p->place[state];
    }
}

/* ---- the pass ---------------------------------------------------------------------------------------------------- */

static bool place_items(placer *l, bool reuse)
{
    plan *p = l->p;
    size_t greatest = l->end;
    for (int32_t k = 0; k < p->n_items; k++) {
        for (int32_t a = p->item[k].first; a < p->item[k].first + p->item[k].count; a++) {
            int32_t m = p->member[a];
            if (p->place[m].kind != PLACE_NONE)
                continue;
            if (l->last[m] < 0 && p->node[m].op < N_ELEMENTWISE)
                continue; /* lives and dies within its item's tiles */
            size_t size = aligned(ad__plan_bytes(p, m));
            if (!size)
                size = LINE;
            p->place[m] = (place){ PLACE_BLOCK, p->segment, (int64_t)take(l, size) };
            if (l->end > greatest)
                greatest = l->end;
            if (l->last[m] < 0)
                l->last[m] = k; /* read by no one: an effect */
            if (l->last[m] < p->n_items) {
                l->after[m] = l->dies[l->last[m]];
                l->dies[l->last[m]] = m;
            }
        }
        for (int32_t m = l->dies[k]; reuse && m >= 0; m = l->after[m]) {
            size_t size = aligned(ad__plan_bytes(p, m));
            if (!give(l, (size_t)p->place[m].offset, size ? size : LINE))
                return false;
        }
    }
    p->block_bytes = greatest;
    if (l->overflows)
        ad__fail(p->context, AD_ERROR_MEMORY, NULL, "out of memory: the values of a step need more bytes than there are");
    return !l->overflows;
}

bool ad__pass_memory(plan *p, bool final)
{
    ad_context *c = p->context;
    int64_t n = p->n + 1, items = p->n_items + 1;
    int32_t *memory = ad__allocate(c, NULL, (size_t)(3 * n + items) * sizeof *memory);
    if (!memory)
        return false;
    memset(memory, 0xff, (size_t)(3 * n + items) * sizeof *memory);
    placer l = { .p = p, .last = memory, .after = memory + n, .dies = memory + 2 * n };
    int64_t constants = 0;
    for (int32_t i = 0; i < p->n; i++)
        constants += p->live[i] && p->node[i].op == OP_constant;
    l.end = aligned((size_t)(p->n_scalars + constants) * sizeof(double));
    place_sources(p);
    place_assignments(p, memory + 2 * n + items);
    for (int32_t k = 0, end = 0; k < p->n_items; k++) {
        for (end = k > end ? k : end; end + 1 < p->n_items && p->item[end + 1].follows;)
            end++; /* items of a group take turns: what one reads must last until all have ended */
        EACH_READ(p, k, m, from)
        {
            bool same_item = p->item_of[from] == k && p->node[m].op < N_ELEMENTWISE;
            if (same_item || l.last[from] >= end)
                continue;
            l.last[from] = end;
        }
    }
    for (int32_t i = 0; i < p->n; i++)
        if (p->kept[i] & KEPT_AFTER_RUN || (!final && l.last[i] >= 0))
            l.last[i] = p->n_items;
    bool done = place_items(&l, final && c->passes & PASS_REUSE);
    ad__allocate(c, l.spans, 0);
    ad__allocate(c, memory, 0);
    return done;
}
