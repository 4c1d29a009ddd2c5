/* The passes that say what a run needs, and what of it is equal. Called by build.c. */
#include <string.h>

#include "autodiff/plan/plan.h"

/* Passes `bit` on from the nodes that have it to all that they need and no earlier segment has computed. Nodes come after
 * their inputs, so one sweep downwards suffices. */
static void mark(plan *p, uint8_t bit)
{
    for (int32_t i = p->n - 1; i >= 0; i--) {
        if (!(p->live[i] & bit) || p->done[i])
            continue;
        const int32_t *in = plan_inputs(p, i);
        for (int j = 0; j < p->node[i].n_inputs; j++)
            p->live[in[j]] |= bit;
    }
}

/* Begins at what the run is for, the roots and, where it commits, the guard and the assignments. */
bool ad__pass_live(plan *p, bool commit)
{
    for (int i = 0; i < p->n_roots; i++)
        p->live[p->root[i]] = LIVE | LIVE_BEFORE_GATE;
    p->guard = -1;
    for (int32_t i = 0; commit && i < p->n; i++) {
        if (p->node[i].op == OP_assign && !p->done[i])
            p->live[i] = LIVE;
        if (p->node[i].op == OP_guard && !p->done[i]) {
            p->live[i] = LIVE | LIVE_BEFORE_GATE;
            p->guard = i;
        }
    }
    mark(p, LIVE_BEFORE_GATE);
    mark(p, LIVE);
    return true;
}

/* ---- common subexpressions --------------------------------------------------------------------------------------- */

static bool equal_nodes(const plan *p, int32_t a, int32_t b)
{
    const node *x = &p->node[a], *y = &p->node[b];
    return x->op == y->op && x->dtype == y->dtype && x->shape == y->shape && x->bind == y->bind &&
           x->n_inputs == y->n_inputs && x->n_attrs == y->n_attrs &&
           !memcmp(plan_inputs(p, a), plan_inputs(p, b), (size_t)x->n_inputs * sizeof(int32_t)) &&
           !memcmp(plan_attrs(p, a), plan_attrs(p, b), (size_t)x->n_attrs * sizeof(int64_t));
}

static uint64_t hash_node(const plan *p, int32_t i)
{
    const node *n = &p->node[i];
    uint64_t h = ad__mix((uint64_t)n->op << 40 ^ (uint64_t)(uint32_t)n->shape << 8 ^ (uint64_t)(uint32_t)n->bind);
    for (int j = 0; j < n->n_inputs; j++)
        h = (h ^ (uint64_t)plan_inputs(p, i)[j]) * 0x9e3779b97f4a7c15u;
    for (int j = 0; j < n->n_attrs; j++)
        h = (h ^ (uint64_t)plan_attrs(p, i)[j]) * 0x9e3779b97f4a7c15u;
    return ad__mix(h);
}

/* Every op is a pure function of its inputs, attributes and the bind (draws too), so equal nodes have equal values. */
bool ad__pass_common(plan *p)
{
    int64_t slots = 64;
    while (slots < 2 * p->n)
        slots *= 2;
    int32_t *table = ad__allocate(p->context, NULL, (size_t)slots * sizeof *table);
    if (!table)
        return false;
    memset(table, 0xff, (size_t)slots * sizeof *table);
    for (int32_t i = 0; i < p->n; i++) {
        if (!p->live[i])
            continue;
        int32_t *in = p->input + p->node[i].input;
        for (int j = 0; j < p->node[i].n_inputs; j++)
            in[j] = p->same[in[j]];
        int op = p->node[i].op;
        if (op == OP_assign || op == OP_guard || op == OP_run)
            continue;
        if (p->done[i])
            continue; /* its state may have changed since: a later node is not it */
        int64_t at = (int64_t)(hash_node(p, i) & (uint64_t)(slots - 1));
        while (table[at] >= 0 && !equal_nodes(p, table[at], i))
            at = (at + 1) & (slots - 1);
        if (table[at] < 0) {
            table[at] = i;
        } else {
            int32_t first = table[at];
            p->same[i] = first;
            p->live[first] |= p->live[i];
            p->live[i] = 0;
        }
    }
    for (int i = 0; i < p->n_roots; i++)
        p->root[i] = p->same[p->root[i]];
    ad__allocate(p->context, table, 0);
    /* a node revived early for an update may now be needed before the gate: its inputs with it */
    mark(p, LIVE_BEFORE_GATE);
    return true;
}
