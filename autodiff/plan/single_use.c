/* Single-use plans: for a program that is not expected to come again. One sweep finds what the run needs and gives each
 * value memory of its own; the backend interprets the nodes in the order of the tape, with the assignments last.
 * Called by cache.c. The plan stands on the tape's own arrays, is good for one run, and its memory serves the next one. */
#include <string.h>

#include "autodiff/plan/plan.h"

enum {
    LINE = 64,
    MOST_BYTES = 1 << 30,
    MEAN_BYTES = 8192 /* where values are larger on average, fusing and sharing memory are worth planning for at once */
};

struct lean_plan {
    plan plan;
    int64_t room; /* nodes that there is room for */
};

static void forget(ad_context *c, plan *p)
{
    void *arrays[] = { p->place, p->same, p->member, p->draw, p->live, p->done };
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        ad__allocate(c, arrays[i], 0);
    *p = (plan){ .context = NULL };
}

void ad__single_use_free(ad_context *c)
{
    if (c->lean)
        forget(c, &c->lean->plan);
    ad__allocate(c, c->lean, 0);
    c->lean = NULL;
}

/* Arrays for n nodes; their content is of no account, but for `same`: nothing is merged, each node is itself. */
static bool make_room(ad_context *c, int64_t n)
{
    if (!c->lean) {
        if (!(c->lean = ad__allocate(c, NULL, sizeof *c->lean)))
            return false;
        memset(c->lean, 0, sizeof *c->lean);
    }
    lean_plan *l = c->lean;
    plan *p = &l->plan;
    if (n <= l->room)
        return true;
    forget(c, p);
    l->room = 0;
    n += n / 2;
    p->place = ad__allocate(c, NULL, (size_t)n * sizeof *p->place);
    p->same = ad__allocate(c, NULL, (size_t)n * sizeof *p->same);
    p->member = ad__allocate(c, NULL, (size_t)n * sizeof *p->member);
    p->draw = ad__allocate(c, NULL, (size_t)n * sizeof *p->draw);
    p->live = ad__allocate(c, NULL, (size_t)n);
    p->done = ad__allocate(c, NULL, (size_t)n);
    if (!ad__ok(c))
        return false;
    for (int32_t i = 0; i < n; i++)
        p->same[i] = i;
    l->room = n;
    return true;
}

static size_t aligned(size_t n, size_t to)
{
    return (n + to - 1) & ~(to - 1);
}

/* Where a live node's value lies; *end is the end of the block so far. */
static place place_of(const plan *p, int32_t id, size_t *end)
{
    const node *n = &p->node[id];
    switch (n->op) {
    case OP_state:
        return (place){ PLACE_TENSOR, (int32_t)plan_attrs(p, id)[1], 0 };
    case OP_assign:
        return (place){ PLACE_TENSOR, (int32_t)plan_attrs(p, plan_inputs(p, id)[0])[1], 0 };
    case OP_input:
        return (place){ PLACE_BOUND, n->bind, 0 };
    case OP_reshape:
    case OP_stop_gradient:
        return (place){ .kind = PLACE_NONE };
    }
    size_t bytes = ad__plan_bytes(p, id), at = aligned(*end, bytes > 2 * sizeof(double) ? LINE : sizeof(double));
    *end = at + aligned(bytes, sizeof(double));
    if (*end > MOST_BYTES)
        *end = MOST_BYTES; /* refused when all are counted; until then it may not overflow */
    return (place){ PLACE_BLOCK, p->segment, (int64_t)at };
}

/* Marks what is needed, downwards, and places it: all readers of a node come after it. Live assignments are collected
 * in member[first ...]. Returns how many kernels will run. */
static int64_t sweep(plan *p, const run_request *r, int32_t *first)
{
    uint8_t *restrict live = p->live;
    const uint8_t *restrict done = p->done;
    place *restrict at = p->place;
    const int32_t *input = p->input;
    int64_t kernels = 0;
    size_t end = 0;
    *first = p->n;
    p->guard = -1;
    p->n_draws = 0;
    for (int32_t i = p->n - 1; i >= 0; i--) {
        const node n = p->node[i];
        if (done[i])
            continue;
        if (r->commit && n.op == OP_assign)
            p->member[--*first] = i;
        else if (r->commit && n.op == OP_guard)
            p->guard = i;
        else if (!live[i])
            continue;
        live[i] = 1;
        for (int j = 0; j < n.n_inputs; j++)
            live[input[n.input + j]] = 1;
        if (n.op < N_ELEMENTWISE && !n.shape) { /* a scalar: most nodes of the programs that matter here */
            at[i] = (place){ PLACE_BLOCK, p->segment, (int64_t)end };
            end += sizeof(double);
            kernels++;
        } else {
            at[i] = place_of(p, i, &end);
            if (!n.shape && (n.op == OP_random_normal || n.op == OP_random_uniform))
                p->draw[p->n_draws++] = i;
            kernels += n.op == OP_assign || (at[i].kind == PLACE_BLOCK && n.op != OP_scalar && n.op != OP_constant);
        }
    }
    p->block_bytes = end;
    return kernels;
}

plan *ad__plan_single_use(ad_context *c, const run_request *r)
{
    const tape *t = c->tape;
    if (!make_room(c, t->n + 1))
        return NULL;
    plan *p = &c->lean->plan;
    p->context = c;
    p->node = t->node;
    p->input = t->input;
    p->attr = t->attr;
    p->n = (int32_t)t->n;
    p->segment = t->segments;
    memset(p->live, 0, (size_t)p->n);
    memset(p->done, 0, (size_t)p->n);
    for (int32_t i = 0; i < t->n_placed; i++) {
        p->done[i] = t->place[i].kind != PLACE_NONE;
        p->place[i] = t->place[i];
    }
    for (int i = 0; i < r->n_roots; i++)
        p->live[r->roots[i]] = 1;
    int32_t first;
    int64_t kernels = sweep(p, r, &first);
    p->n_members = p->n - first;
    memmove(p->member, p->member + first, (size_t)p->n_members * sizeof *p->member);
    p->n_items = (int32_t)kernels;
    return p->block_bytes < MOST_BYTES && p->block_bytes <= (size_t)(kernels + 1) * MEAN_BYTES ? p : NULL;
}
