/* Held programs and their run states; see program.h. Called by the clients of the rooms above. */
#include "autodiff/program.h"

#include <stdio.h>
#include <string.h>

#include "autodiff/backend.h"
#include "autodiff/plan/plan.h"

struct program {
    ad_context *context;
    tape *tape;
    tape_mark recorded; /* what is more on the tape is forgotten when it leaves the stack */
};

struct run_state {
    program *program;
    plan *plan;
    void *backend_state, *lowered; /* the context's and the plan's, or, of a lone one, its own */
    bool alone;
    block memory;          /* of all values */
    ad_tensor **tensor;    /* of each bound input: what stands there */
    void **own;            /* its memory, where it is an input of the state; else NULL */
    void **bound;          /* what the run reads */
    int64_t n_bound;
    int32_t *input; /* slot of each input of the state, -1: the program does not read it */
    int n_inputs;
    double *number; /* of a lone one; else they are the tape's */
    void *staging;  /* room to convert an input or a root in, where the host cannot reach the device's memory */
    uint64_t epoch, key;
    uint32_t run;
    run_outcome outcome;
    bool worked;
};

/* ---- recording --------------------------------------------------------------------------------------------------- */

void ad__program_store(ad_context *c, ad_tensor *to, ad_tensor *value)
{
    node_id from = ad__node(c, value, "a value"), at = ad__node(c, to, "where it is stored");
    if (from >= 0 && at >= 0)
        ad__append(c, OP_assign, AD_REAL, c->tape->node[at].shape, (node_id[]){ at, from }, 2, NULL, 0, -1);
}

int32_t ad__program_start_of(ad_context *c, ad_tensor *slice)
{
    node_id id = ad__node(c, slice, "a slice");
    return id >= 0 && c->tape->node[id].op == OP_slice ? c->tape->node[id].bind : -1;
}

/* ---- programs ---------------------------------------------------------------------------------------------------- */

static void take_off(ad_context *c, tape *t)
{
    c->tape = t->outer;
    t->outer = NULL;
}

/* Shapes and names are forgotten between steps; these must stay as long as the program. */
static void pin(program *p, int by)
{
    for (int64_t i = 0; i < p->recorded.n; i++)
        ad__shape_hold(p->context, p->tape->node[i].shape, by);
    ad__tape_hold_names(p->context, p->tape, 0, p->recorded.n, by);
}

program *ad__program_hold(ad_context *c)
{
    program *p = ad__ok(c) ? ad__allocate(c, NULL, sizeof *p) : NULL;
    if (!p) {
        ad__tape_close(c);
        return NULL;
    }
    *p = (program){ .context = c, .tape = c->tape, .recorded = ad__tape_mark(c->tape) };
    pin(p, 1);
    take_off(c, p->tape);
    return p;
}

void ad__program_free(program *p)
{
    if (!p)
        return;
    ad_context *c = p->context;
    pin(p, -1);
    ad__tape_rewind(c, p->tape, &(tape_mark){ .n = 0 }); /* tensors forget that they were recorded on it */
    ad__tape_free(c, p->tape);
    ad__allocate(c, p, 0);
}

void ad__program_resume(program *p)
{
    ad_context *c = p->context;
    if (!c->tape)
        c->error_kind = AD_ERROR_NONE;
    p->tape->outer = c->tape;
    p->tape->segments = 0;
    p->tape->layout = 0;
    p->tape->n_placed = 0;
    c->tape = p->tape;
}

void ad__program_suspend(program *p, bool keep)
{
    if (keep) {
        pin(p, -1);
        p->recorded = ad__tape_mark(p->tape);
        pin(p, 1);
    } else {
        ad__tape_rewind(p->context, p->tape, &p->recorded);
    }
    take_off(p->context, p->tape);
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

typedef struct difference {
    const char *who, *hint;
} difference;

static bool differs(ad_context *c, const difference *d, const tape *t, node_id id, const char *what, double now,
                    double before)
{
    const node *n = &t->node[id];
    char numbers[80] = "";
    if (now != before)
        snprintf(numbers, sizeof numbers, ": it is %g, and was %g when the step was recorded", now, before);
    c->file = t->where[id].file;
    c->line = t->where[id].line;
    ad__fail(c, AD_ERROR_SITE, d->hint, "%s: %s ad_%s%s%s%s is not what it was%s", d->who, what, ad__op_name(n->op),
             n->site < 0 ? "" : " at site \"", n->site < 0 ? "" : ad__name_text(c, n->site), n->site < 0 ? "" : "\"",
             numbers);
    return false;
}

/* Whether node i means the same on both tapes. */
static bool same_node(const tape *a, const tape *b, node_id i)
{
    const node *m = &a->node[i], *n = &b->node[i];
    return !memcmp(m, n, sizeof *m) &&
           !memcmp(a->input + m->input, b->input + n->input, (size_t)n->n_inputs * sizeof *a->input) &&
           !memcmp(a->attr + m->attr, b->attr + n->attr, (size_t)n->n_attrs * sizeof *a->attr);
}

/* The node that tells a user more than number i itself: its first reader. */
static node_id reader_of(const tape *t, node_id i)
{
    if (t->node[i].op != OP_scalar)
        return i;
    for (node_id k = i + 1; k < t->n; k++)
        for (int j = 0; j < t->node[k].n_inputs; j++)
            if (ad__inputs(t, k)[j] == i)
                return k;
    return -1;
}

bool ad__program_compare(const program *p, int64_t numbers, const char *who, const char *hint)
{
    ad_context *c = p->context;
    const tape *now = c->tape, *before = p->tape;
    const difference d = { who, hint };
    int64_t n = now->n < p->recorded.n ? now->n : p->recorded.n;
    for (node_id i = 0; i < n; i++)
        if (!same_node(now, before, i))
            return differs(c, &d, now, i, "operation", 0, 0);
    if (now->n != p->recorded.n)
        return differs(c, &d, now->n > n ? now : before, (node_id)n, "operation", 0, 0);
    for (node_id i = 0; i < n; i++) {
        int32_t slot = now->node[i].bind, op = now->node[i].op;
        if (slot < 0)
            continue;
        if (op == OP_input && now->bound[slot] != before->bound[slot])
            return differs(c, &d, now, i, "the tensor that enters as", 0, 0);
        if (op == OP_input || slot >= numbers || !memcmp(&now->scalar[slot], &before->scalar[slot], sizeof(double)))
            continue;
        node_id at = reader_of(now, i);
        if (at >= 0)
            return differs(c, &d, now, at, "a number of", now->scalar[slot], before->scalar[slot]);
    }
    return true;
}

/* ---- making run states ------------------------------------------------------------------------------------------- */

/* The slot at which the program reads a tensor; -1: nowhere. */
static int32_t slot_of(const run_state *s, const ad_tensor *x)
{
    for (int64_t i = 0; i < s->n_bound; i++)
        if (s->tensor[i] == x)
            return (int32_t)i;
    return -1;
}

static void *new_memory(ad_context *c, size_t bytes)
{
    return c->backend->memory_new(c->backend_state, bytes ? bytes : 1);
}

/* Finds or makes the plan, with a program for the backend even where others would be interpreted. */
static plan *plan_of(program *p, const run_request *r)
{
    ad_context *c = p->context;
    run_request held = *r;
    held.held = true;
    ad__program_resume(p);
    plan *found = ad__run_append(c, &held) ? ad__cache_plan(c, &held, false) : NULL;
    if (found)
        found->holders++;
    ad__program_suspend(p, false);
    return found;
}

static bool make_inputs(run_state *s, ad_tensor *const *inputs, int n)
{
    ad_context *c = s->program->context;
    const tape *t = s->program->tape;
    s->n_bound = t->n_bound;
    size_t bytes = (size_t)(s->n_bound + 1) * sizeof(void *), most = 0;
    s->tensor = ad__allocate(c, NULL, bytes);
    s->own = ad__allocate(c, NULL, bytes);
    s->bound = ad__allocate(c, NULL, bytes);
    s->input = ad__allocate(c, NULL, (size_t)(n + 1) * sizeof *s->input);
    if (!ad__ok(c))
        return false;
    memset(s->own, 0, bytes);
    memset(s->bound, 0, bytes);
    if (s->n_bound)
        memcpy(s->tensor, t->bound, (size_t)s->n_bound * sizeof *s->tensor);
    for (s->n_inputs = 0; s->n_inputs < n; s->n_inputs++) {
        const tensor *x = ad__tensor(c, inputs[s->n_inputs]);
        int32_t slot = s->input[s->n_inputs] = slot_of(s, inputs[s->n_inputs]);
        if (slot < 0 || !x)
            continue;
        size_t size = (size_t)ad__shape_info(c, x->shape)->size * ad__dtype_bytes(c, x->dtype);
        if (!(s->own[slot] = new_memory(c, size)) || !c->backend->clear(c->backend_state, s->own[slot], size))
            return false;
        most = size > most ? size : most;
    }
    for (int i = 0; i < s->plan->n_roots; i++) {
        size_t size = ad__plan_bytes(s->plan, s->plan->root[i]);
        most = size > most ? size : most;
    }
    return (s->staging = ad__allocate(c, NULL, most + sizeof(double))) != NULL;
}

/* What runs a lone state: a backend's state for one thread, and the plan lowered for it. */
static bool make_runner(run_state *s)
{
    ad_context *c = s->program->context;
    const ad_backend *b = c->backend;
    if (!s->alone) {
        s->backend_state = c->backend_state;
        s->lowered = s->plan->program;
        return true;
    }
    if (!b->open_alone) {
        ad__fail(c, AD_ERROR_DEVICE, "make the context with .device = \"cpu\"",
                 "programs of the %s backend do not run in several threads", b->name);
        return false;
    }
    const tape *t = s->program->tape;
    s->number = ad__allocate(c, NULL, (size_t)(t->n_scalars + 1) * sizeof *s->number);
    if (!s->number || !(s->backend_state = b->open_alone(c->backend_state)))
        return false;
    if (t->n_scalars)
        memcpy(s->number, t->scalar, (size_t)t->n_scalars * sizeof *s->number);
    return (s->lowered = b->lower(s->backend_state, s->plan)) != NULL;
}

run_state *ad__run_state_new(program *p, const run_request *r, ad_tensor *const *inputs, int n_inputs, bool alone)
{
    ad_context *c = p->context;
    run_state *s = ad__allocate(c, NULL, sizeof *s);
    if (!s)
        return NULL;
    memset(s, 0, sizeof *s);
    s->program = p;
    s->alone = alone;
    s->key = p->tape->key;
    s->run = p->tape->run;
    s->plan = plan_of(p, r);
    size_t bytes = s->plan && s->plan->block_bytes ? s->plan->block_bytes : 1;
    if (s->plan && make_inputs(s, inputs, n_inputs) && make_runner(s) && (s->memory.data = new_memory(c, bytes)) &&
        c->backend->clear(c->backend_state, s->memory.data, bytes)) { /* no denormal numbers behind the ends of values */
        s->memory.size = bytes;
        s->epoch = ++c->epoch;
        return s;
    }
    ad__run_state_free(s);
    return NULL;
}

void ad__run_state_free(run_state *s)
{
    if (!s)
        return;
    ad_context *c = s->program->context;
    const ad_backend *b = c->backend;
    if (s->alone && s->lowered)
        b->release(s->backend_state, s->lowered);
    if (s->alone && s->backend_state)
        b->close(s->backend_state);
    if (s->memory.data)
        b->memory_free(c->backend_state, s->memory.data);
    for (int64_t i = 0; s->own && i < s->n_bound; i++)
        if (s->own[i])
            b->memory_free(c->backend_state, s->own[i]);
    if (s->plan)
        ad__plan_release(c, s->plan);
    void *arrays[] = { s->tensor, s->own, s->bound, s->input, s->number, s->staging, s };
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        ad__allocate(c, arrays[i], 0);
}

/* ---- what changes between runs ----------------------------------------------------------------------------------- */

void ad__run_state_substitute(run_state *s, const ad_tensor *from, ad_tensor *to)
{
    int32_t slot = slot_of(s, from);
    if (slot >= 0)
        s->tensor[slot] = to;
}

void ad__run_state_key(run_state *s, uint64_t stream, uint64_t run)
{
    s->key = philox_key(s->program->context->seeding.seed, stream, run);
    s->run = (uint32_t)run;
}

void ad__run_state_number(run_state *s, int32_t slot, double value)
{
    (s->alone ? s->number : s->program->tape->scalar)[slot] = value;
}

void ad__run_state_numbers_begin(run_state *s, int64_t first)
{
    ad__program_resume(s->program);
    s->program->tape->n_scalars = first;
}

void ad__run_state_numbers_end(run_state *s)
{
    take_off(s->program->context, s->program->tape);
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

/* Every state and bound input that the plan reads lives. */
static bool find_tensors(run_state *s)
{
    ad_context *c = s->program->context;
    const plan *p = s->plan;
    bool live = true;
    for (int64_t i = 0; i < s->n_bound; i++) {
        const tensor *x = s->own[i] ? NULL : ad__tensor(c, s->tensor[i]);
        s->bound[i] = s->own[i] ? s->own[i] : x ? x->data : NULL;
    }
    for (int32_t i = 0; i < p->n && live; i++) {
        if (!p->live[i])
            continue;
        if (p->node[i].op == OP_input)
            live = s->bound[p->node[i].bind] != NULL || plan_size(p, i) == 0;
        if (p->node[i].op == OP_state)
            live = c->tensors[plan_attrs(p, i)[1]].serial == plan_attrs(p, i)[0] &&
                   c->tensors[plan_attrs(p, i)[1]].kind == TENSOR_STATE;
    }
    if (!live)
        ad__fail(c, AD_ERROR_STALE, "what a held program reads must live as long as it",
                 "a tensor or parameter that the program reads was freed");
    return live;
}

static run_bind bind_of(run_state *s)
{
    return (run_bind){ .scalar = s->alone ? s->number : s->program->tape->scalar,
                       .bound = s->bound,
                       .blocks = &s->memory,
                       .blocks_epoch = s->epoch,
                       .key = s->key,
                       .run = s->run };
}

bool ad__run_state_begin(run_state *s)
{
    const ad_backend *b = s->program->context->backend;
    if (!find_tensors(s))
        return false;
    run_bind bind = bind_of(s);
    if (s->alone && b->prepare)
        b->prepare(s->backend_state, s->lowered, &bind);
    return true;
}

void ad__run_state_write(run_state *s, int input, const double *x, int64_t n)
{
    ad_context *c = s->program->context;
    int32_t slot = s->input[input];
    if (slot < 0 || n == 0)
        return;
    void *host = c->backend->host_pointer(s->backend_state, s->own[slot]), *to = host ? host : s->staging;
    if (c->precision == AD_DOUBLE)
        memcpy(to, x, (size_t)n * sizeof *x);
    else
        for (int64_t i = 0; i < n; i++)
            ((float *)to)[i] = (float)x[i];
    if (!host)
        c->backend->upload(s->backend_state, s->own[slot], s->staging, (size_t)n * ad__dtype_bytes(c, AD_REAL));
}

bool ad__run_state_run(run_state *s)
{
    run_bind bind = bind_of(s);
    s->outcome = (run_outcome){ .finite = true, .bad_index = -1 };
    s->worked = s->program->context->backend->run(s->backend_state, s->lowered, &bind, &s->outcome);
    return s->worked && s->outcome.bad_index < 0;
}

bool ad__run_state_report(run_state *s)
{
    ad_context *c = s->program->context;
    c->counters.hits++;
    c->counters.nodes = (uint64_t)s->plan->n;
    c->counters.steps = (uint64_t)s->plan->n_items;
    return s->worked && ad__run_report(c, s->plan, s->program->tape, &s->outcome);
}

bool ad__run_state_finite(const run_state *s)
{
    return s->outcome.finite;
}

bool ad__run_state_read(run_state *s, int root, double *out, int64_t n)
{
    ad_context *c = s->program->context;
    const plan *p = s->plan;
    int32_t id = p->root[root];
    const place at = p->place[ad__plan_source(p, id)];
    bool total = p->node[id].op == OP_weighted_total;
    const char *from = at.kind == PLACE_BLOCK   ? (const char *)s->memory.data + at.offset + (total ? sizeof(double) : 0)
                       : at.kind == PLACE_BOUND ? s->bound[at.index]
                                                : c->tensors[at.index].data;
    ad_precision precision = total ? AD_DOUBLE : c->precision;
    int dtype = p->node[id].dtype;
    if (n == 0)
        return true;
    const void *host = c->backend->host_pointer(s->backend_state, (void *)(uintptr_t)from);
    size_t bytes = (size_t)n * (total ? sizeof(double) : ad__dtype_bytes(c, dtype));
    if (!host && !c->backend->download(s->backend_state, s->staging, from, bytes))
        return false;
    ad__from_tensor(out, AD_FROM_DOUBLE, host ? host : s->staging, dtype, precision, n);
    return true;
}
