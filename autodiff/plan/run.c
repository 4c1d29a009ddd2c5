/* Running the open tape: its blocks, what comes back, and the assignments. Called by reads, commits and clients. */
#include <math.h>
#include <string.h>

#include "autodiff/backend.h"
#include "autodiff/owner.h"
#include "autodiff/plan/plan.h"

/* ---- running
 * ----------------------------------------------------------------------------------------------------------------- */

/* There is no memory for the values of a run: says which is the largest, and where it was recorded. */
static void tell_largest(ad_context *c, const tape *t, const plan *p)
{
    node_id at = -1;
    for (node_id i = 0; i < t->n; i++) {
        if (!p->live[i])
            continue;
        size_t now = ad__plan_bytes(p, i), most = at < 0 ? 0 : ad__plan_bytes(p, at);
        if (now > most || (now == most && at >= 0 && t->node[at].site < 0))
            at = i;
    }
    if (at < 0)
        return;
    const node *n = &t->node[at];
    error_frame site = { c->frame, "site", ad__name_text(c, n->site) };
    c->error_kind = AD_ERROR_NONE;
    c->file = t->where[at].file;
    c->line = t->where[at].line;
    if (n->site >= 0)
        c->frame = &site;
    ad__fail(c, AD_ERROR_MEMORY, NULL,
             "out of memory: %zu bytes asked for the values of a step; the largest is ad_%s of shape %s",
             p->block_bytes, ad__op_name(n->op), ad__shape_text(c, &ad__shape_info(c, n->shape)->shape));
    c->frame = site.outer;
}

/* The block of this segment, large enough. Earlier segments' blocks stay where they are. */
static bool ensure_block(ad_context *c, tape *t, const plan *p)
{
    size_t bytes = p->block_bytes;
    if (t->segments >= t->n_blocks) {
        if (!ad__reserve(c, &t->blocks, &t->cap_blocks, t->segments + 1, sizeof *t->blocks))
            return false;
        while (t->n_blocks <= t->segments)
            t->blocks[t->n_blocks++] = (block){ NULL, 0 };
        t->epoch = ++c->epoch;
    }
    block *b = &t->blocks[t->segments];
    if (b->data && b->size >= bytes)
        return true;
    size_t size = 4096;
    while (size < bytes && size < 1 << 20)
        size *= 2; /* small ones seldom move */
    if (size < bytes)
        size = bytes;
    void *data = c->backend->memory_new(c->backend_state, size);
    if (!data) {
        if (c->error_kind == AD_ERROR_MEMORY) /* and not that the device is lost */
            tell_largest(c, t, p);
        return false;
    }
    if (b->data)
        c->backend->memory_free(c->backend_state, b->data);
    *b = (block){ data, size };
    t->epoch = ++c->epoch;
    return true;
}

/* Before a small plan's first run: what its values leave free of their lines is read and written by kernels that know
 * no remainder. Its content is of no account, but what memory held before may be denormal as numbers, and slow in every
 * run. */
static bool begin_clear(ad_context *c, const tape *t, plan *p)
{
    enum { SMALL = 1 << 16 };
    if (p->begun || !p->program || p->block_bytes > SMALL)
        return true;
    p->begun = true;
    return c->backend->clear(c->backend_state, t->blocks[t->segments].data, p->block_bytes);
}

/* Room to note places in, made before the run: nothing may fail once states have changed. */
static bool ensure_places(ad_context *c, tape *t)
{
    if (!ad__reserve(c, &t->place, &t->cap_place, t->n, sizeof *t->place))
        return false;
    while (t->n_placed < t->n)
        t->place[t->n_placed++] = (place){ .kind = PLACE_NONE };
    return true;
}

/* Tells the tape where the values of this run lie, for reads and later segments. */
static void note_places(const plan *p, tape *t, const run_request *r, bool committed)
{
    if (!r->final) {
        for (int32_t i = 0; i < t->n; i++) {
            int op = p->node[i].op;
            if (op == OP_input || op == OP_state || op == OP_scalar || op == OP_constant)
                continue;
            if ((op == OP_assign || op == OP_guard) && !committed)
                continue;
            const place *at = &p->place[p->same[i]];
            if (p->live[p->same[i]] && at->kind != PLACE_NONE)
                t->place[i] = *at;
        }
    }
    for (int i = 0; i < r->n_roots; i++)
        t->place[r->roots[i]] = p->place[ad__plan_source(p, r->roots[i])];
}

bool ad__run_report(ad_context *c, const plan *p, const tape *t, const run_outcome *o)
{
    if (o->bad_index < 0)
        return ad__ok(c);
    const node *n = &p->node[o->bad_index];
    if (o->bad_index < t->n) {
        c->file = t->where[o->bad_index].file;
        c->line = t->where[o->bad_index].line;
    }
    ad__fail(c, AD_ERROR_SUPPORT, NULL, "%s%s%sad_%s: index %lld is outside [0, %lld)", n->site < 0 ? "" : "site \"",
             n->site < 0 ? "" : ad__name_text(c, n->site), n->site < 0 ? "" : "\": ", ad__op_name(n->op),
             (long long)o->bad_value, (long long)plan_attrs(p, o->bad_index)[2]);
    return false;
}

/* Whether the plan reads the bound input of a slot. */
static bool needs_bound(const plan *p, int32_t slot)
{
    for (int32_t i = 0; i < p->n; i++)
        if (p->live[i] && p->node[i].op == OP_input && p->node[i].bind == slot)
            return true;
    return false;
}

bool ad__run_append(ad_context *c, const run_request *r)
{
    tape *t = c->tape;
    int64_t attrs[64] = { r->final | r->commit << 1, t->n_scalars };
    if (r->n_attrs > 62) {
        ad__fail(c, AD_ERROR_LIMIT, NULL, "a run request with %d attributes", r->n_attrs);
        return false;
    }
    if (r->n_attrs)
        memcpy(attrs + 2, r->attrs, (size_t)r->n_attrs * sizeof *attrs);
    int32_t site = t->site;
    t->site = -1;
    node_id mark = ad__append(c, OP_run, AD_REAL, 0, r->roots, r->n_roots, attrs, r->n_attrs + 2, -1);
    t->site = site;
    return mark >= 0;
}

static bool run_plan(ad_context *c, const run_request *r, plan *p, bool *finite)
{
    tape *t = c->tape;
    if (!ensure_block(c, t, p) || !begin_clear(c, t, p) || !ensure_places(c, t))
        return false;
    if (!ad__reserve(c, &t->bound_data, &t->cap_bound_data, t->n_bound, sizeof *t->bound_data))
        return false;
    for (int64_t i = 0; i < t->n_bound; i++) {
        const tensor *x = ad__tensor(c, t->bound[i]);
        t->bound_data[i] = x ? x->data : NULL;
        if (!x && needs_bound(p, (int32_t)i)) {
            ad__fail(c, AD_ERROR_STALE, "free a tensor after the values made of it are read",
                     "a tensor was freed before a value that needs it was computed");
            return false;
        }
    }
    run_bind bind = { t->scalar, t->bound_data, t->blocks, t->epoch, t->key, t->run };
    run_outcome o = { .finite = true, .bad_index = -1 };
    bool ran = p->program ? c->backend->run(c->backend_state, p->program, &bind, &o)
                          : c->backend->interpret(c->backend_state, p, &bind, &o);
    if (!ran || !ad__run_report(c, p, t, &o))
        return false;
    if (finite)
        *finite = o.finite;
    note_places(p, t, r, r->commit && o.finite);
    t->segments++;
    if (t->layout || !p->program)
        t->layout = ad__mix(2 * t->layout + !p->program);
    return true;
}

/* A run whose plan is forgotten again, behind the counters' back. */
static bool run_once(ad_context *c, const run_request *r)
{
    plan *p = ad__cache_pass(c, r);
    bool ran = p && run_plan(c, r, p, NULL);
    if (p && p->program)
        ad__plan_free(c, p);
    return ran;
}

bool ad__run(ad_context *c, const run_request *r, bool *finite)
{
    if (finite)
        *finite = true;
    if (!ad__ok(c))
        return false;
    if (r->once && !c->backend->interpret) { /* what had to be compiled is kept */
        run_request kept = *r;
        kept.once = false;
        return ad__run(c, &kept, finite);
    }
    tape *t = c->tape;
    bool known = r->serial && c->n_plans && c->plans[0]->serial == *r->serial;
    if (!known && !ad__run_append(c, r))
        return false;
    if (!t->segments)
        t->layout = 0;
    if (r->once)
        return run_once(c, r);
    plan *p = ad__cache_plan(c, r, known);
    if (!p)
        return false;
    if (r->serial)
        *r->serial = p->serial;
    c->counters.nodes = (uint64_t)p->n;
    c->counters.steps = (uint64_t)p->n_items;
    return run_plan(c, r, p, finite);
}

/* ---- what comes back
 * ------------------------------------------------------------------------------------------------------------ */

/* Where the elements of a computed node lie (of a weighted total: its double); NULL after an error. */
static const void *value_of(ad_context *c, node_id id)
{
    const tape *t = c->tape;
    const place found = ad__place(t, id), *at = &found;
    bool total = t->node[id].op == OP_weighted_total;
    const char *from = NULL;
    if (at->kind == PLACE_BLOCK)
        from = (const char *)t->blocks[at->index].data + at->offset + (total ? sizeof(double) : 0);
    if (at->kind == PLACE_TENSOR)
        from = c->tensors[at->index].data;
    if (at->kind == PLACE_BOUND) {
        const tensor *x = ad__tensor(c, t->bound[at->index]);
        from = x ? x->data : NULL;
    }
    if (!from)
        ad__fail(c, AD_ERROR_STALE, NULL, "a value was read that no run computed, or whose tensor was freed");
    return from;
}

bool ad__fetch(ad_context *c, node_id id, void *out, int64_t n)
{
    const node *nd = &c->tape->node[id];
    const void *from = value_of(c, id);
    size_t bytes = (size_t)n * (nd->op == OP_weighted_total ? sizeof(double) : ad__dtype_bytes(c, nd->dtype));
    return from && c->backend->download(c->backend_state, out, from, bytes);
}

static void fill_nan(void *out, ad_source type, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        switch (type) {
        case AD_FROM_FLOAT:
            ((float *)out)[i] = NAN;
            break;
        case AD_FROM_DOUBLE:
            ((double *)out)[i] = NAN;
            break;
        case AD_FROM_INT:
            ((int *)out)[i] = 0;
            break;
        case AD_FROM_INT64:
            ((int64_t *)out)[i] = 0;
            break;
        case AD_FROM_BYTE:
            ((uint8_t *)out)[i] = 0;
            break;
        }
    }
}

/* Host bytes of a tensor in its own dtype, copied to `out` as `type`. */
static bool read_elements(ad_context *c, ad_tensor *x, void *out, ad_source type, int64_t n)
{
    const tensor *p = ad__ok(c) || !c->tape ? ad__tensor(c, x) : NULL; /* outside of steps an older error is no matter */
    bool of_step = ((uintptr_t)x & 1) && handle_kind_of(x) != HANDLE_PERSISTENT;
    if (!p && !of_step)
        ad__begin_call(c);
    if (!p && !of_step && !c->tape && ((uintptr_t)x & 1)) {
        ad__fail_dead_handle(c, x, "the tensor that is read", NULL, "it was freed");
        return false;
    }
    node_id id = p ? -1 : ad__node(c, x, "the tensor that is read");
    if (!p && id < 0)
        return false;
    if (id >= 0 && c->tape->node[id].op == OP_state) { /* its value lies there already */
        const int64_t *known = ad__attrs(c->tape, id);
        tensor *state = &c->tensors[known[1]];
        if (state->kind == TENSOR_STATE && state->serial == known[0]) {
            state->read_generation = c->tape->generation;
            p = state;
        }
    }
    int dtype = p ? p->dtype : c->tape->node[id].dtype;
    int64_t size = ad__shape_info(c, p ? p->shape : c->tape->node[id].shape)->size;
    if (n != size || (!out && n)) {
        ad__fail(c, AD_ERROR_SHAPE, NULL, "ad_read: room for %lld elements, the tensor has %lld", (long long)n,
                 (long long)size);
        return false;
    }
    if (n == 0)
        return true;
    if (id >= 0 && ad__place(c->tape, id).kind == PLACE_NONE &&
        !ad__run(c, &(run_request){ .roots = &id, .n_roots = 1 }, NULL))
        return false;
    if (id >= 0 && c->tape->node[id].op == OP_weighted_total) {
        double total;
        if (!ad__fetch(c, id, &total, 1))
            return false;
        ad__from_tensor(out, type, &total, AD_REAL, AD_DOUBLE, 1);
        return true;
    }
    bool borrowed = p && p->kind == TENSOR_BORROWED;
    const void *from = p ? p->data : value_of(c, id);
    if (!from)
        return false;
    const void *host = borrowed ? from : c->backend->host_pointer(c->backend_state, (void *)(uintptr_t)from);
    if (host) {
        ad__from_tensor(out, type, host, dtype, c->precision, n);
        return true;
    }
    size_t bytes = (size_t)n * ad__dtype_bytes(c, dtype);
    char few[64], *staged = bytes <= sizeof few ? few : ad__allocate(c, NULL, bytes);
    if (!staged)
        return false;
    bool done = c->backend->download(c->backend_state, staged, from, bytes);
    if (done)
        ad__from_tensor(out, type, staged, dtype, c->precision, n);
    if (staged != few)
        ad__allocate(c, staged, 0);
    return done;
}

bool(ad_read_data)(ad_tensor *x, void *out, ad_source type, int64_t n)
{
    ad_context *c = ad__current();
    if (c && read_elements(c, x, out, type, n))
        return true;
    if (out)
        fill_nan(out, type, n);
    return false;
}

double(ad_item)(ad_tensor *x)
{
    double value;
    return ad_read_data(x, &value, AD_FROM_DOUBLE, 1) ? value : NAN;
}

/* ---- totals and assignments
 * --------------------------------------------------------------------------------------------------------- */

ad_tensor *(ad_weighted_total)(ad_tensor *const *x, const double *weight, int n)
{
    ad_context *c = ad__open_context();
    node_id *in = c ? ad__step_bytes(c, (size_t)(2 * n + 1) * sizeof *in) : NULL;
    if (!in)
        return AD_NIL;
    for (int i = 0; i < n; i++) {
        if ((in[2 * i] = ad__node(c, x[i], "a term of ad_weighted_total")) < 0)
            return AD_NIL;
        if (c->tape->node[in[2 * i]].dtype != AD_REAL)
            in[2 * i] = ad__node(c, ad_cast_real(x[i]), "a term");
        in[2 * i + 1] = i && weight[i] == weight[i - 1] ? in[2 * i - 1] /* as mostly */
                                                        : ad__scalar_of_slot(c, ad__bind_scalar(c, weight[i]));
        if (in[2 * i + 1] < 0)
            return AD_NIL;
    }
    return ad__handle(c, ad__append(c, OP_weighted_total, AD_REAL, ad__shape(c, &AD_SCALAR), in, 2 * n, NULL, 0, -1));
}
void ad__gradient_weighted_total(ad_context *c, node_id y, node_id g, const bool *want, node_id *d)
{
    for (int i = 0; i < c->tape->node[y].n_inputs; i += 2) {
        if (!want[i])
            continue;
        node_id w = ad__op2(c, OP_mul, g, ad__inputs(c->tape, y)[i + 1]);
        d[i] = ad__expand_to(c, w, c->tape->node[ad__inputs(c->tape, y)[i]].shape);
    }
}

void(ad_assign)(ad_tensor *state, ad_tensor *value)
{
    ad_context *c = ad__open_context();
    if (!c)
        return;
    const tensor *s = ad__tensor(c, state);
    if (!s || s->kind != TENSOR_STATE) {
        ad__fail(c, AD_ERROR_ARGUMENT, "make it with ad_state", "ad_assign: the first argument is not a state");
        return;
    }
    int32_t shape = s->shape;
    node_id to = ad__node(c, state, "ad_assign's state"), from = ad__node(c, value, "ad_assign's value");
    if (from < 0)
        return;
    if (c->tape->node[from].shape != shape) {
        ad__fail(c, AD_ERROR_SHAPE, NULL, "ad_assign: a value of shape %s for a state of shape %s",
                 ad__shape_text(c, &ad__shape_of(c, from)->shape), ad__shape_text(c, &ad__shape_info(c, shape)->shape));
        return;
    }
    node_id source = from;
    while (c->tape->node[source].op == OP_reshape || c->tape->node[source].op == OP_stop_gradient)
        source = ad__inputs(c->tape, source)[0];
    if (c->tape->node[source].op == OP_state) /* copied first: another assignment may change that state */
        from = ad__op2(c, OP_mul, from, ad__constant(c, 1));
    if (from >= 0)
        ad__append(c, OP_assign, AD_REAL, shape, (node_id[]){ to, from }, 2, NULL, 0, -1);
}

void ad__guard(ad_context *c, const node_id *x, int n)
{
    ad__append(c, OP_guard, AD_REAL, ad__shape(c, &AD_SCALAR), x, n, NULL, 0, -1);
}

/* Guards every value that is about to be assigned: the expansion of a plain ad_commit. */
static bool guard_values(ad_context *c, void *user)
{
    (void)user;
    const tape *t = c->tape;
    int n = 0;
    node_id *values = ad__step_bytes(c, (size_t)(t->n + 1) * sizeof *values);
    if (!values)
        return false;
    for (node_id i = 0; i < t->n; i++)
        if (t->node[i].op == OP_assign && ad__place(t, i).kind == PLACE_NONE)
            values[n++] = ad__inputs(t, i)[1];
    ad__guard(c, values, n);
    return ad__ok(c);
}

bool(ad_commit)(void)
{
    ad_context *c = ad__open_context();
    bool finite = true;
    if (!c || !ad__run(c, &(run_request){ .commit = true, .expand = guard_values }, &finite))
        return false;
    if (!finite)
        ad__fail(c, AD_ERROR_NONFINITE, NULL, "ad_commit: a value to be assigned is not finite; no state has changed");
    return finite;
}
