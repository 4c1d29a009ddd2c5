/* Opening, closing and appending to tapes; operands; the handles of values. Called by every recording function. */
#include "autodiff/tape.h"

#include <string.h>

#include "autodiff/backend.h"
#include "autodiff/owner.h"

struct step_chunk {
    step_chunk *next;
    size_t size;
    _Alignas(16) char bytes[];
};
enum { CHUNK = 1 << 14 };

/* ---- life -------------------------------------------------------------------------------------------------------- */

tape *ad__tape_open(ad_context *c, uint64_t stream, uint64_t run)
{
    c->error_kind = AD_ERROR_NONE;
    if (!c->tape) {
        ad__shapes_trim(c);
        ad__names_trim(c);
    }
    if (!c->backend && !ad__backend_start(c, NULL))
        return NULL;
    tape *t = c->spare;
    if (t) {
        c->spare = t->outer;
    } else {
        if (!(t = ad__allocate(c, NULL, sizeof *t)))
            return NULL;
        memset(t, 0, sizeof *t);
    }
    t->outer = c->tape;
    t->frame = c->frame;
    memset(t->client_mark, 0, sizeof t->client_mark);
    c->tape = t;
    if (c->client)
        c->client_tape(c, c->client, t, true);
    t->generation = ad__generation_new(c);
    c->tapes++;
    t->tag = (uint32_t)((uintptr_t)handle_make(HANDLE_STEP, t->generation, 0) >> 32);
    t->n_placed = 0;
    for (int i = 0; i < 16; i++)
        t->constant[i].node = -1;
    t->n = t->n_inputs = t->n_attrs = t->n_scalars = t->n_bound = t->n_objects = 0;
    t->segments = 0;
    t->site = -1;
    t->lap = 0;
    t->draws = 0;
    t->scope = t->drew = false;
    t->seeding = t->own_seeding = c->seeding.ordinal;
    t->source = t->sources = NULL;
    t->expanding = false;
    t->rule = -1;
    t->chunk = t->chunks;
    t->free_bytes = t->chunk ? t->chunk->bytes : NULL;
    t->end_bytes = t->chunk ? t->chunk->bytes + t->chunk->size : NULL;
    t->key = philox_key(c->seeding.seed, stream, run);
    t->run = (uint32_t)run;
    return t;
}

void ad__tape_close(ad_context *c)
{
    tape *t = c->tape;
    if (c->client)
        c->client_tape(c, c->client, t, false);
    c->tape = t->outer;
    t->outer = c->spare;
    c->spare = t;
    t->generation = t->tag = ~0u; /* no handle has these */
}

void ad__tape_rewind(ad_context *c, tape *t, const tape_mark *to)
{
    for (int64_t i = to->n; i < t->n; i++) { /* no tensor may remember a node that is gone */
        tensor *x = t->node[i].op == OP_state   ? &c->tensors[ad__attrs(t, (node_id)i)[1]]
                    : t->node[i].op == OP_input ? ad__tensor(c, t->bound[t->node[i].bind])
                                                : NULL;
        if (x && x->tape_generation == t->generation && x->node == i)
            x->tape_generation = ~0u;
    }
    for (size_t i = 0; i < sizeof t->constant / sizeof *t->constant; i++)
        if (t->constant[i].node >= to->n)
            t->constant[i].node = -1;
    t->n = to->n;
    t->n_inputs = to->n_inputs;
    t->n_attrs = to->n_attrs;
    t->n_scalars = to->n_scalars;
    t->n_bound = to->n_bound;
    if (t->n_placed > t->n)
        t->n_placed = t->n;
}

void ad__tape_hold_names(ad_context *c, const tape *t, int64_t from, int64_t to, int by)
{
    for (int64_t i = from; i < to; i++)
        ad__name_hold(c, t->node[i].site, by);
}

void ad__tape_free(ad_context *c, tape *t)
{
    for (int64_t i = 0; i < t->n_blocks; i++)
        if (t->blocks[i].data)
            c->backend->memory_free(c->backend_state, t->blocks[i].data);
    for (step_chunk *k = t->chunks, *next; k; k = next) {
        next = k->next;
        ad__allocate(c, k, 0);
    }
    void *arrays[] = { t->node,   t->where, t->place,      t->input,  t->attr,
                       t->scalar, t->bound, t->bound_data, t->blocks, t->object, t->drawn };
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        ad__allocate(c, arrays[i], 0);
    ad__allocate(c, t, 0);
}

ad_scope_state ad_scope_begin(void)
{
    ad_context *c = ad__current();
    ad_scope_state s = { .context = c };
    if (!c)
        return s;
    if (c->tape && c->client_recover)
        c->client_recover(c, __builtin_frame_address(0));
    if (!c->tape)
        s.opened = ad__tape_open(c, STREAM_SCOPE, c->seeding.scopes) != NULL;
    if (s.opened)
        c->tape->scope = true;
    return s;
}

void ad_scope_end(ad_scope_state *s)
{
    if (s->opened)
        ad__tape_close(s->context);
}

/* ---- draws ------------------------------------------------------------------------------------------------------- */

struct drawn_name {
    struct drawn_name *next;
    int32_t name, draws;
};

/* The source of a seeding on tape t, made at its first draw, as the next scope of that seeding. */
static draw_source *source_of(ad_context *c, tape *t, uint64_t ordinal)
{
    for (draw_source *s = t->sources; s; s = s->next)
        if (s->seeding == ordinal)
            return s;
    draw_source *s = ad__step_bytes(c, sizeof *s);
    if (!s)
        return NULL;
    *s = (draw_source){ .next = t->sources,
                        .seeding = ordinal,
                        .key = philox_key(c->seeding.seed, STREAM_SCOPE, c->seeding.scopes),
                        .run = (uint32_t)c->seeding.scopes };
    c->seeding.scopes++;
    return t->sources = s;
}

draw_source *ad__draw_source_other(ad_context *c)
{
    tape *t = c->tape;
    uint64_t ordinal = c->seeding.ordinal;
    if (t->scope && !t->drew && t->own_seeding != ordinal) { /* nothing was drawn: as if it opened now */
        t->own_seeding = ordinal;
        t->key = philox_key(c->seeding.seed, STREAM_SCOPE, c->seeding.scopes);
        t->run = (uint32_t)c->seeding.scopes;
    }
    t->source = t->own_seeding == ordinal ? NULL : source_of(c, t, ordinal);
    t->seeding = ordinal;
    if (t->source || t->drew)
        return t->source;
    t->drew = true;
    c->seeding.scopes += t->scope;
    return NULL;
}

/* Where the draws of a name are counted; NULL after an error. */
static int32_t *draws_of_source(ad_context *c, draw_source *s, int32_t name)
{
    struct drawn_name *n = s->named;
    while (n && n->name != name)
        n = n->next;
    if (!n && (n = ad__step_bytes(c, sizeof *n))) {
        *n = (struct drawn_name){ .next = s->named, .name = name };
        s->named = n;
    }
    return n ? &n->draws : NULL;
}
static bool make_room(ad_context *c, tape *t)
{
    if (!ad__reserve(c, &t->drawn, &t->cap_drawn, c->n_names, sizeof *t->drawn))
        return false;
    for (; t->n_drawn < c->n_names; t->n_drawn++)
        t->drawn[t->n_drawn] = (name_draws){ .generation = ~0u };
    return true;
}
static inline int32_t *draws_of(ad_context *c, tape *t, int32_t name)
{
    draw_source *s = name < 0 ? NULL : ad__draw_source(c);
    if (s)
        return draws_of_source(c, s, name);
    if (name < 0 || (name >= t->n_drawn && !make_room(c, t)))
        return NULL;
    name_draws *d = &t->drawn[name];
    if (d->generation != t->generation)
        *d = (name_draws){ .generation = t->generation };
    return &d->draws;
}

int ad__site_draw(ad_context *c, int32_t site, int least)
{
    tape *t = c->tape;
    int32_t *draws = draws_of(c, t, site), ordinal = draws && *draws > least ? *draws : least;
    if (draws)
        *draws = ordinal + 1;
    t->site = site;
    t->lap = ordinal >> 16;
    return ordinal & 0xffff;
}

/* ---- step memory and objects ------------------------------------------------------------------------------------- */

void *ad__step_chunk(ad_context *c, size_t size)
{
    tape *t = c->tape;
    if (!t) {
        ad__fail(c, AD_ERROR_SCOPE, "record inside svi_step's model, or in ad_scope { ... }",
                 "no step or scope is open");
        return NULL;
    }
    step_chunk *k = t->chunk ? t->chunk->next : t->chunks, **last = &t->chunks;
    while (k && k->size < size)
        k = k->next;
    if (!k) {
        size_t room = CHUNK; /* doubling: needs that grow from step to step leave little behind */
        while (room < size)
            room *= 2;
        if (!(k = ad__allocate(c, NULL, sizeof *k + room)))
            return NULL;
        *k = (step_chunk){ .size = room };
        while (*last)
            last = &(*last)->next;
        *last = k;
    }
    t->chunk = k;
    t->free_bytes = k->bytes + size;
    t->end_bytes = k->bytes + k->size;
    return k->bytes;
}

void *ad__object_new(ad_context *c, void *object)
{
    tape *t = c->tape;
    if (!t || !object || !ad__reserve(c, &t->object, &t->cap_objects, t->n_objects + 1, sizeof *t->object))
        return AD_NIL;
    t->object[t->n_objects] = object;
    return handle_make(HANDLE_OBJECT, t->generation, (int32_t)t->n_objects++);
}

void *ad__object_stale(ad_context *c, const void *handle, const char *what)
{
    if (!ad__ok(c))
        return NULL;
    if (!handle || handle_kind_of(handle) == HANDLE_NIL || ((uintptr_t)handle & 1) == 0)
        ad__fail(c, AD_ERROR_STALE, NULL, "%s is nil", what);
    else
        ad__fail_dead_handle(c, handle, what,
                             "make it again in each step: distributions and values end with their step or scope",
                             "it belongs to a step or scope that has ended");
    return NULL;
}

/* ---- operands ---------------------------------------------------------------------------------------------------- */

static node_id record_tensor(ad_context *c, tensor *x, int32_t index)
{
    tape *t = c->tape;
    if (x->tape_generation == t->generation && x->node < t->n)
        return x->node;
    node_id id;
    if (x->kind == TENSOR_STATE && ad__room(c, t, 0, 2)) {
        t->attr[t->n_attrs] = x->serial;
        t->attr[t->n_attrs + 1] = index;
        id = ad__push(c, t, OP_state, x->dtype, x->shape, 0, 2, -1);
    } else if (x->kind == TENSOR_STATE) {
        id = ad__append(c, OP_state, x->dtype, x->shape, NULL, 0, (int64_t[]){ x->serial, index }, 2, -1);
    } else {
        if (!ad__reserve(c, &t->bound, &t->cap_bound, t->n_bound + 1, sizeof *t->bound))
            return -1;
        t->bound[t->n_bound] = handle_make(HANDLE_PERSISTENT, x->generation, index);
        id = ad__append(c, OP_input, x->dtype, x->shape, NULL, 0, NULL, 0, (int32_t)t->n_bound);
        t->n_bound++;
    }
    if (id < 0)
        return -1;
    x->tape_generation = t->generation;
    x->node = id;
    return id;
}

node_id ad__node_of(ad_context *c, const ad_tensor *handle, const char *operand)
{
    if (!ad__ok(c))
        return -1;
    tape *t = c->tape;
    if (!t) {
        ad__fail(c, AD_ERROR_SCOPE, "record inside svi_step's model, or in ad_scope { ... }",
                 "no step or scope is open");
        return -1;
    }
    if (((uintptr_t)handle & 1) == 0) {
        ad__fail(c, AD_ERROR_STALE, handle ? "ad_from(data, AD_SHAPE(...)) makes a tensor of numbers" : NULL,
                 handle ? "%s is not a tensor" : "%s is NULL", operand);
        return -1;
    }
    handle_kind kind = handle_kind_of(handle);
    if (kind == HANDLE_STEP && handle_generation(handle) == t->generation && handle_index(handle) < t->n)
        return handle_index(handle);
    if (kind == HANDLE_PERSISTENT) {
        tensor *x = ad__tensor(c, handle);
        if (x)
            return record_tensor(c, x, handle_index(handle));
        ad__fail_dead_handle(c, handle, operand, NULL, "this tensor was freed");
    } else if (kind == HANDLE_NIL) {
        ad__fail(c, AD_ERROR_STALE, "an earlier call failed or gave no value", "%s is nil", operand);
    } else if (kind == HANDLE_OBJECT && !ad__is_foreign(c, handle)) {
        ad__fail(c, AD_ERROR_ARGUMENT, "draw from it with ppl_sample or dist_sample",
                 "%s is a distribution, not a tensor", operand);
    } else {
        ad__fail_dead_handle(c, handle, operand, "keep numbers with ad_read, or tensors with ad_from",
                             "it belongs to a step or scope that has ended");
    }
    return -1;
}

/* ---- appending --------------------------------------------------------------------------------------------------- */

node_id ad__append(ad_context *c, int op, int dtype, int32_t shape, const node_id *inputs, int n_inputs,
                   const int64_t *attrs, int n_attrs, int32_t bind)
{
    tape *t = c->tape;
    if (shape < 0 || !ad__ok(c))
        return -1;
    if (t->n >= c->max_nodes) {
        ad__fail(c, AD_ERROR_LIMIT, "a loop whose end depends on a value should also test ppl_ok()",
                 "more than %lld operations in one step", (long long)c->max_nodes);
        return -1;
    }
    /* `where` grows after `node`: where memory ran out between the two its capacity is the smaller */
    if (!ad__room(c, t, n_inputs, n_attrs)) {
        if (!ad__reserve(c, &t->node, &t->cap, t->n + 1, sizeof *t->node) ||
            !ad__reserve(c, &t->where, &t->cap_where, t->cap, sizeof *t->where) ||
            !ad__reserve(c, &t->input, &t->cap_inputs, t->n_inputs + n_inputs, sizeof *t->input) ||
            !ad__reserve(c, &t->attr, &t->cap_attrs, t->n_attrs + n_attrs, sizeof *t->attr))
            return -1;
    }
    for (int i = 0; i < n_inputs; i++)
        t->input[t->n_inputs + i] = inputs[i];
    for (int i = 0; i < n_attrs; i++)
        t->attr[t->n_attrs + i] = attrs[i];
    return ad__push(c, t, op, dtype, shape, n_inputs, n_attrs, bind);
}
