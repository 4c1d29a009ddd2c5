/* Lean plans: what a program gets that is seen for the first time. One sweep finds what the run needs and gives each
 * value memory of its own; the backend interprets the nodes in the order of the tape, with the assignments last. Called
 * by run.c. The plan stands on the tape's own arrays, is good for one run, and its memory serves the next one. */
#include <string.h>

#include "autodiff/plan.h"

enum {
    LINE = 64,
    MEAN_BYTES = 512 /* where values are larger on average, what fusing saves in one run is worth planning for */
};

struct lean_plan {
    plan plan;
    int64_t room; /* nodes that there is room for */
};

static void forget(ad_context *c, plan *p)
{
    void *arrays[] = { p->place, p->same, p->member, p->live, p->done };
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        ad__allocate(c, arrays[i], 0);
    *p = (plan){ .context = NULL };
}

void ad__lean_free(ad_context *c)
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
    p->live = ad__allocate(c, NULL, (size_t)n);
    p->done = ad__allocate(c, NULL, (size_t)n);
    if (!ad__ok(c))
        return false;
    for (int32_t i = 0; i < n; i++)
        p->same[i] = i;
    l->room = n;
    return true;
}

static bool is_view(int op)
{
    return op == OP_reshape || op == OP_stop_gradient;
}

/* Marks what is needed, downwards, and places it: all readers of a node come after it. Live assignments are collected
 * in member[first ...]. Returns how many values were placed. */
static int64_t sweep(plan *p, const run_request *r, int32_t *first)
{
    int64_t placed = 0;
    size_t end = 0;
    *first = p->n;
    p->guard = -1;
    for (int32_t i = p->n - 1; i >= 0; i--) {
        const node *n = &p->node[i];
        if (r->commit && !p->done[i]) {
            if (n->op == OP_guard)
                p->guard = i;
            if (n->op == OP_assign)
                p->member[--*first] = i;
            p->live[i] |= n->op == OP_guard || n->op == OP_assign;
        }
        if (!p->live[i] || p->done[i])
            continue;
        const int32_t *in = p->input + n->input;
        for (int j = 0; j < n->n_inputs; j++)
            p->live[in[j]] = 1;
        place *at = &p->place[i];
        if (n->op == OP_state) {
            *at = (place){ PLACE_TENSOR, (int32_t)plan_attrs(p, i)[1], 0 };
        } else if (n->op == OP_input) {
            *at = (place){ PLACE_BOUND, n->bind, 0 };
        } else if (n->op == OP_assign) {
            *at = (place){ PLACE_TENSOR, (int32_t)plan_attrs(p, in[0])[1], 0 };
        } else if (is_view(n->op)) {
            *at = (place){ .kind = PLACE_NONE };
        } else {
            size_t bytes = n->shape ? ad__plan_bytes(p, i) : n->op < N_ELEMENTWISE ? sizeof(double) : 2 * sizeof(double);
            if (bytes > 2 * sizeof(double))
                end = (end + LINE - 1) & ~(size_t)(LINE - 1);
            *at = (place){ PLACE_BLOCK, p->segment, (int64_t)end };
            end += (bytes + sizeof(double) - 1) & ~(sizeof(double) - 1);
            placed++;
        }
    }
    p->block_bytes = end;
    return placed;
}

plan *ad__plan_lean(ad_context *c, const run_request *r)
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
    int64_t placed = sweep(p, r, &first);
    p->n_members = p->n - first;
    memmove(p->member, p->member + first, (size_t)p->n_members * sizeof *p->member);
    p->n_items = (int32_t)placed;
    return p->block_bytes <= (size_t)placed * MEAN_BYTES ? p : NULL;
}
