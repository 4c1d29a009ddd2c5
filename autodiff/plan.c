/* Building plans: the copy of the tape, and the passes that say what is needed and what is equal. */
#include "autodiff/plan.h"

#include <stdlib.h>
#include <string.h>

#include "autodiff/backend.h"

int32_t ad__plan_source(const plan *p, int32_t id)
{
    for (;;) {
        id = p->same[id];
        int op = p->node[id].op;
        if (op != OP_reshape && op != OP_stop_gradient)
            return id;
        if (p->done[id])
            return id; /* computed by an earlier segment */
        id = plan_inputs(p, id)[0];
    }
}

size_t ad__plan_bytes(const plan *p, int32_t id)
{
    if (p->node[id].op == OP_weighted_total)
        return 2 * sizeof(double);
    if (p->node[id].op == OP_guard)
        return sizeof(double);
    return (size_t)plan_size(p, id) * ad__dtype_bytes(p->context, p->node[id].dtype);
}

uint32_t ad__passes_wanted(void)
{
    static const struct {
        const char *name;
        uint32_t bit;
    } passes[] = {
#define X(name, text, what) { text, PASS_##name },
        PLAN_PASSES(X)
#undef X
    };
    const char *without = getenv("TAPER_WITHOUT");
    uint32_t wanted = ~0u;
    for (size_t n; without && *without; without += n + (without[n] == ',')) {
        n = strcspn(without, ",");
        for (size_t i = 0; i < sizeof passes / sizeof *passes; i++)
            if (strlen(passes[i].name) == n && !strncmp(passes[i].name, without, n))
                wanted &= ~passes[i].bit;
    }
    return wanted;
}

/* ---- what the run needs ------------------------------------------------------------------------------------------ */

/* Marks with `bit` every node that id needs and that no earlier segment has computed. Nodes come after their inputs, so
 * one sweep downwards suffices. */
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

/* live: bit 1 needed at all, bit 2 needed before the gate (by a root or the guard). */
bool ad__pass_live(plan *p, bool commit)
{
    for (int i = 0; i < p->n_roots; i++)
        p->live[p->root[i]] = 3;
    p->guard = -1;
    for (int32_t i = 0; commit && i < p->n; i++) {
        if (p->node[i].op == OP_assign && !p->done[i])
            p->live[i] = 1;
        if (p->node[i].op == OP_guard && !p->done[i]) {
            p->live[i] = 3;
            p->guard = i;
        }
    }
    mark(p, 2);
    mark(p, 1);
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
    mark(p, 2);
    return true;
}

/* ---- building ---------------------------------------------------------------------------------------------------- */

static void *copy(ad_context *c, const void *from, int64_t n, size_t element)
{
    void *to = ad__allocate(c, NULL, (size_t)(n + 1) * element);
    if (to && n)
        memcpy(to, from, (size_t)n * element);
    return to;
}

static void *filled(ad_context *c, int64_t n, size_t element, int byte)
{
    void *to = ad__allocate(c, NULL, (size_t)(n + 1) * element);
    if (to)
        memset(to, byte, (size_t)(n + 1) * element);
    return to;
}

static bool copy_tape(plan *p, const tape *t, const run_request *r)
{
    ad_context *c = p->context;
    p->n = (int32_t)t->n;
    p->n_inputs = t->n_inputs;
    p->n_attrs = t->n_attrs;
    p->n_scalars = (int32_t)t->n_scalars;
    p->n_roots = r->n_roots;
    p->segment = t->segments;
    p->node = copy(c, t->node, t->n, sizeof *t->node);
    p->input = copy(c, t->input, t->n_inputs, sizeof *t->input);
    p->key_input = copy(c, t->input, p->key_inputs, sizeof *t->input);
    p->attr = copy(c, t->attr, t->n_attrs, sizeof *t->attr);
    p->place = filled(c, t->n, sizeof *t->place, 0);
    p->root = copy(c, r->roots, r->n_roots, sizeof *r->roots);
    p->live = filled(c, t->n, sizeof *p->live, 0);
    p->done = filled(c, t->n, sizeof *p->done, 0);
    p->kept = filled(c, t->n, sizeof *p->kept, 0);
    p->same = filled(c, t->n, sizeof *p->same, 0);
    p->item_of = filled(c, t->n, sizeof *p->item_of, 0xff);
    p->item = filled(c, t->n, sizeof *p->item, 0);
    p->position = filled(c, t->n, sizeof *p->position, 0);
    p->member = filled(c, t->n, sizeof *p->member, 0);
    p->constant = filled(c, t->n, sizeof *p->constant, 0);
    if (!ad__ok(c))
        return false;
    for (int32_t i = 0; i < p->n; i++) {
        p->same[i] = i;
        p->place[i] = ad__place(t, i);
        p->done[i] = p->place[i].kind != PLACE_NONE;
    }
    return true;
}

plan *ad__plan_build(ad_context *c, const run_request *r, const tape_mark *key, uint64_t hash)
{
    plan *p = ad__allocate(c, NULL, sizeof *p);
    if (!p)
        return NULL;
    memset(p, 0, sizeof *p);
    p->context = c;
    p->hash = hash;
    p->serial = ++c->last_plan;
    p->layout = c->tape->layout;
    p->key_nodes = (int32_t)key->n;
    p->key_inputs = key->n_inputs;
    p->key_attrs = key->n_attrs;
    const tape *t = c->tape;
    if (copy_tape(p, t, r) && ad__pass_live(p, r->commit) && (!(c->passes & PASS_COMMON) || ad__pass_common(p)) &&
        ad__pass_fuse(p) && (!(c->passes & PASS_FOLLOW) || ad__pass_follow(p)) && ad__pass_place(p, r->final) &&
        (p->program = c->backend->lower(c->backend_state, p)))
        return p;
    ad__plan_free(c, p);
    return NULL;
}

void ad__plan_forget(ad_context *c, plan *p)
{
    p->forgotten = true;
    if (!p->holders)
        ad__plan_free(c, p);
}

void ad__plan_release(ad_context *c, plan *p)
{
    if (--p->holders == 0 && p->forgotten)
        ad__plan_free(c, p);
}

void ad__plan_free(ad_context *c, plan *p)
{
    if (p->program)
        c->backend->release(c->backend_state, p->program);
    void *arrays[] = { p->node,    p->input, p->attr,   p->place,    p->root,      p->live, p->kept,    p->same,
                       p->item_of, p->item,  p->member, p->constant, p->key_input, p->done, p->position };
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        ad__allocate(c, arrays[i], 0);
    ad__allocate(c, p, 0);
}
