/* Running a single-use plan: node by node as the tape has them, without lowering them first. Elementwise nodes call their
 * kernels at once; others are lowered one at a time to a program that is used again for the next. Called through the
 * backend's table. Every value has its bits from the kernels that lowered plans use, cut alike. */
#include <string.h>

#include "autodiff/cpu/cpu.h"

typedef struct run_state {
    cpu_state *state;
    const plan *plan;
    const run_bind *bind;
    char *block;
    char **at; /* of each node that was met: its memory */
    elementwise_kernel *const *kernel;
} run_state;

static void store(const run_state *r, void *to, double value)
{
    if (r->state->kernels->bits == 64)
        *(double *)to = value;
    else
        *(float *)to = (float)value;
}

/* An elementwise node of any shape: tile by tile, operands of other shapes broadcast into scratch. */
static void run_elementwise(const run_state *r, int32_t id)
{
    const plan *p = r->plan;
    const node *n = &p->node[id];
    const shape_info *loop = ad__shape_info(p->context, n->shape);
    size_t element = (size_t)r->state->kernels->bits / 8;
    _Alignas(64) char scratch[4][TILE * sizeof(double)];
    spread broadcast[4];
    bool spreads[4];
    const char *in[4];
    for (int j = 0; j < n->n_inputs; j++) {
        int32_t x = plan_inputs(p, id)[j];
        in[j] = r->at[x];
        if (!(spreads[j] = p->node[x].shape != n->shape))
            continue;
        broadcast[j] = cpu_spread_broadcast(&ad__shape_info(p->context, p->node[x].shape)->shape, &loop->shape);
        spreads[j] = broadcast[j].rank != 1 || broadcast[j].stride[0] != 1;
    }
    for (int64_t i = 0; i < loop->size; i += TILE) {
        int64_t m = loop->size - i < TILE ? loop->size - i : TILE;
        const char *x[4];
        for (int j = 0; j < n->n_inputs; j++) {
            x[j] = spreads[j] ? scratch[j] : in[j] + (size_t)i * element;
            if (spreads[j])
                cpu_spread(&broadcast[j], element, i, m, in[j], scratch[j]);
        }
        for (int j = n->n_inputs; j < 4; j++)
            x[j] = x[0];
        r->kernel[n->op](m, r->at[id] + (size_t)i * element, x[0], x[1], x[2], x[3]);
    }
}

/* Structured nodes that do not read each other, through their lowering; false after an error. */
static bool run_structured(const run_state *r, const int32_t *id, int32_t n, run_outcome *outcome)
{
    cpu_program *p = r->state->lean;
    cpu_program_reset(p);
    p->outcome = outcome;
    for (int32_t i = 0; i < n; i++)
        if (!cpu_lower_node(p, id[i]))
            return false;
    for (int32_t i = 0; i < p->n_pointers; i++)
        p->pointer[i] = cpu_resolve(p, p->reference[i]);
    for (int32_t i = 0; i < p->n_steps; i++)
        p->step[i].run(&p->step[i], 0, p->step[i].chunks, 0);
    return true;
}

static char *find(const run_state *r, int32_t id)
{
    place at = r->plan->place[id];
    if (at.kind == PLACE_BLOCK)
        return (char *)r->bind->blocks[at.index].data + at.offset;
    if (at.kind == PLACE_TENSOR)
        return r->state->context->tensors[at.index].data;
    return at.kind == PLACE_BOUND ? r->bind->bound[at.index] : NULL;
}

/* What is neither elementwise nor done before; false after an error. */
static bool run_other(const run_state *r, int32_t id, run_outcome *outcome)
{
    const plan *p = r->plan;
    const node *n = &p->node[id];
    double value;
    switch (n->op) {
    case OP_reshape:
    case OP_stop_gradient:
        r->at[id] = r->at[plan_inputs(p, id)[0]];
        return true;
    case OP_constant:
        memcpy(&value, plan_attrs(p, id), sizeof value);
        store(r, r->at[id], value);
        return true;
    case OP_scalar:
        store(r, r->at[id], r->bind->scalar[n->bind]);
        return true;
    case OP_input:
    case OP_state:
    case OP_assign: /* their turn comes last, the guard's before them */
    case OP_guard:
        return true;
    case OP_random_normal:
    case OP_random_uniform:
        if (!n->shape)
            return true; /* drawn with the others */
        return run_structured(r, &id, 1, outcome);
    default:
        return run_structured(r, &id, 1, outcome);
    }
}

bool cpu_interpret(void *state, const plan *p, const run_bind *bind, run_outcome *outcome)
{
    cpu_state *s = state;
    if (!ad__reserve(s->context, &s->at, &s->cap_at, p->n, sizeof *s->at))
        return false;
    if (!s->lean && !(s->lean = cpu_program_new(s, p)))
        return false;
    s->lean->plan = p;
    s->lean->bind = bind;
    run_state r = { s, p, bind, bind->blocks[p->segment].data, s->at, s->kernels->elementwise };
    if (p->n_draws && !run_structured(&r, p->draw, p->n_draws, outcome))
        return false;
    for (int32_t i = 0; i < p->n; i++) {
        if (!p->live[i])
            continue;
        const node *n = &p->node[i];
        if (n->op != OP_guard && plan_size(p, i) == 0)
            continue; /* nothing to compute */
        if (p->done[i] || n->op >= N_ELEMENTWISE) {
            r.at[i] = find(&r, i);
            if (!p->done[i] && !run_other(&r, i, outcome))
                return false;
            continue;
        }
        const int32_t *in = p->input + n->input;
        char *out = r.at[i] = r.block + p->place[i].offset;
        const char *a = r.at[in[0]];
        if (n->shape) /* 0 is the scalar's */
            run_elementwise(&r, i);
        else if (n->n_inputs == 1)
            r.kernel[n->op](1, out, a, a, a, a);
        else if (n->n_inputs == 2)
            r.kernel[n->op](1, out, a, r.at[in[1]], a, a);
        else
            r.kernel[n->op](1, out, a, r.at[in[1]], r.at[in[2]], n->n_inputs > 3 ? r.at[in[3]] : a);
    }
    if (p->guard >= 0 && !run_structured(&r, &p->guard, 1, outcome))
        return false;
    for (int32_t k = 0; k < p->n_members && outcome->finite && outcome->bad_index < 0; k++) {
        int32_t id = p->member[k];
        if (plan_size(p, id) == 0)
            continue;
        memcpy(find(&r, id), r.at[plan_inputs(p, id)[1]], ad__plan_bytes(p, id));
    }
    return true;
}
