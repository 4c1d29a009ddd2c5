/* Looking through views: the memory behind a node. Called by the passes and by backends; calls nobody. */
#include "autodiff/plan/plan.h"

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

int32_t ad__plan_read(const plan *p, int32_t id, int j)
{
    if (p->node[id].op == OP_expand)
        return ad__plan_operand(p, id, NULL);
    int32_t in = plan_inputs(p, id)[j];
    return p->node[id].op < N_ELEMENTWISE ? ad__plan_operand(p, in, NULL) : ad__plan_source(p, in);
}

size_t ad__plan_bytes(const plan *p, int32_t id)
{
    if (p->node[id].op == OP_weighted_total)
        return 2 * sizeof(double);
    if (p->node[id].op == OP_guard)
        return sizeof(double);
    return (size_t)plan_size(p, id) * ad__dtype_bytes(p->context, p->node[id].dtype);
}
