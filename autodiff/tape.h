/* The tape: a program of plain-data nodes, recorded afresh at every step. Recording files append to it; the reverse
 * sweep appends gradients to the same tape; the planner reads it. Nothing on it changes between equal steps: what does,
 * enters through the bind (scalars and bound inputs), filled beside it. */
#ifndef AUTODIFF_TAPE_H
#define AUTODIFF_TAPE_H

#include "autodiff/context.h"

/* The elementwise ops come first, from ops.def; the structured ones from structured.def. */
typedef enum ad_op {
#define AD_OP1(name, ...) OP_##name,
#define AD_OP2(name, ...) OP_##name,
#define AD_OP3(name, ...) OP_##name,
#define AD_OP4(name, ...) OP_##name,
#include "autodiff/ops.def"
    N_ELEMENTWISE,
    OP_first_structured = N_ELEMENTWISE - 1,
#define AD_STRUCTURED(name, ...) OP_##name,
#include "autodiff/structured.def"
    N_OPS
} ad_op;

typedef struct node {
    uint16_t op;
    uint8_t dtype, n_attrs;
    int32_t shape;
    int32_t input, n_inputs; /* tape->input[input ...] */
    int32_t attr;            /* tape->attr[attr ...]: structural integers, compared by the plan cache */
    int32_t bind;            /* scalar or bound-input slot, or -1 */
    int32_t site;            /* interned name, or -1 */
    int32_t reserved;
} node;
_Static_assert(sizeof(node) == 32, "nodes are compared as bytes: no padding");

typedef struct source_line {
    const char *file;
    int line;
} source_line;

/* Where a value lies once computed. Blocks are the memory of a tape's runs: one for each segment. */
typedef enum place_kind { PLACE_NONE, PLACE_BLOCK, PLACE_TENSOR, PLACE_BOUND } place_kind;
typedef struct place {
    int32_t kind, index; /* block ordinal, tensor index (states), or bind slot */
    int64_t offset;      /* bytes from its start */
} place;

typedef struct block {
    void *data;
    size_t size;
} block;

typedef struct step_chunk step_chunk; /* of ad__step_bytes */

/* Streams of draws with a meaning here; those of the rooms above begin at 8. */
enum { STREAM_NONE = 0, STREAM_SCOPE = 2 };

/* Draws of a tape after a seed was given, or put aside, in its midst: their key is structural. */
typedef struct draw_source draw_source;
struct draw_source {
    draw_source *next;
    uint64_t seeding, key;
    uint32_t run;
    int32_t draws;           /* anonymous ones so far */
    struct drawn_name *named; /* how often each name has drawn */
};

/* How often a name has drawn from the tape's own key. */
typedef struct name_draws {
    uint32_t generation; /* of the tape: another one, not at all */
    int32_t draws;
} name_draws;

struct tape {
    tape *outer; /* the tape this one interrupts, or the next spare */
    error_frame *frame;     /* the context's when it opened */
    int64_t client_mark[2]; /* what the client had open then */
    uint32_t generation;
    uint32_t tag; /* the upper half of its handles */

    node *node;
    source_line *where; /* of each node; no part of the program */
    place *place;       /* of the first n_placed nodes: those computed by a run of this tape */
    int64_t n, cap, cap_where, n_placed, cap_place;
    int32_t *input;
    int64_t n_inputs, cap_inputs;
    int64_t *attr;
    int64_t n_attrs, cap_attrs;

    double *scalar; /* the bind: run-time numbers, and persistent tensors */
    int64_t n_scalars, cap_scalars;
    ad_tensor **bound; /* handles: a tensor that was freed meanwhile is known by its generation */
    int64_t n_bound, cap_bound;

    void **bound_data; /* their memory, for the run */
    int64_t cap_bound_data;
    block *blocks;
    int64_t n_blocks, cap_blocks;
    uint64_t epoch;  /* unique in the context; changes when a block moves */
    int segments;    /* runs so far */
    uint64_t layout; /* tells which of them had single-use plans, whose values lie elsewhere; 0: none */
    uint64_t key;    /* of this tape's draws: mix(seed, stream, high half of run) */
    uint32_t run;    /* low half */
    int32_t site;    /* current site, recorded into nodes */
    int32_t lap;     /* of its draw's ordinal, what is above 16 bits */
    int32_t draws;   /* anonymous draws so far */
    bool scope;      /* an ad_scope's: it counts as one when it draws */
    bool drew;       /* from its own key */
    uint64_t seeding, own_seeding; /* whose draws are recorded now, and whose the tape's own key is */
    draw_source *source, *sources; /* NULL: the tape's own key; all others */
    name_draws *drawn;                  /* by id of the name */
    int64_t n_drawn, cap_drawn;
    struct {
        int64_t bits;
        node_id node;
    } constant[16]; /* recorded last, by bits */
    node_id rule;   /* first node of the gradient rule at work, -1: none; what it records twice is recorded once */
    bool expanding; /* inside run_request.expand: numbers are structural there */

    void **object; /* of ad__object_new */
    int64_t n_objects, cap_objects;
    step_chunk *chunks, *chunk;   /* first, current */
    char *free_bytes, *end_bytes; /* what is left of the current one */
};

/* Bytes that live until the step or scope ends, aligned to 16; NULL and an error on failure. */
void *ad__step_chunk(ad_context *c, size_t size);
static inline void *ad__step_bytes(ad_context *c, size_t size)
{
    tape *t = c->tape;
    size = (size + 16) & ~(size_t)15; /* never none */
    if (!t || size > (size_t)(t->end_bytes - t->free_bytes))
        return ad__step_chunk(c, size);
    t->free_bytes += size;
    return t->free_bytes - size;
}

/* Where the next draw of the open tape comes from: NULL is the tape's own key, and so it is after an error. */
draw_source *ad__draw_source_other(ad_context *c);
static inline draw_source *ad__draw_source(ad_context *c)
{
    const tape *t = c->tape;
    return t->seeding == c->seeding.ordinal && t->drew ? t->source : ad__draw_source_other(c);
}
/* Makes `site` the current one for its next draw, and gives that draw's ordinal, below 2^16: how often the name has
 * drawn on this tape since the seed, but at least `least`, by which particles keep apart. So a name draws anew in every
 * run of a model, in every pass of a loop and again after each run without replay. ad__site_end gives `outer` back. */
int ad__site_draw(ad_context *c, int32_t site, int least);
static inline void ad__site_end(ad_context *c, int32_t outer)
{
    c->tape->site = outer;
    c->tape->lap = 0;
}

/* Opens a tape over the current one; closes it. Opening clears the sticky error. */
tape *ad__tape_open(ad_context *c, uint64_t stream, uint64_t run);
void ad__tape_close(ad_context *c);
void ad__tape_free(ad_context *c, tape *t);

/* Objects of the rooms above (distributions) with a step's life: registers `object` (from ad__step_bytes) and gives its
 * handle; ad__object gives it back, or NULL with an error that says `what` was stale. */
void *ad__object_new(ad_context *c, void *object);
void *ad__object_stale(ad_context *c, const void *handle, const char *what);
static inline void *ad__object(ad_context *c, const void *handle, const char *what)
{
    const tape *t = c->tape;
    bool live = t && handle_kind_of(handle) == HANDLE_OBJECT && handle_generation(handle) == t->generation &&
                handle_index(handle) < t->n_objects && ad__ok(c);
    return live ? t->object[handle_index(handle)] : ad__object_stale(c, handle, what);
}

/* How far a tape has been recorded; rewinding forgets what came after, runs included. */
typedef struct tape_mark {
    int64_t n, n_inputs, n_attrs, n_scalars, n_bound;
} tape_mark;
static inline tape_mark ad__tape_mark(const tape *t)
{
    return (tape_mark){ t->n, t->n_inputs, t->n_attrs, t->n_scalars, t->n_bound };
}
uint64_t ad__tape_hash(const tape *t); /* of what is recorded; numbers of run time do not count */
void ad__tape_rewind(ad_context *c, tape *t, const tape_mark *to);

/* Holds, by 1, or lets go, by -1, the names of sites on nodes [from, to): of tapes that are kept off the stack. */
void ad__tape_hold_names(ad_context *c, const tape *t, int64_t from, int64_t to, int by);

/* What an operand nearly always is, a value of tape t or a persistent tensor that t has recorded: its node; else -1. */
static inline node_id ad__node_quickly(const ad_context *c, const tape *t, const ad_tensor *handle)
{
    int32_t i = handle_index(handle);
    if (((uintptr_t)handle ^ (uintptr_t)t->tag << 32) >> 32 == 0 && (uintptr_t)handle & 1)
        return i;
    if (handle_kind_of(handle) != HANDLE_PERSISTENT || !((uintptr_t)handle & 1) || i >= c->n_tensors)
        return -1;
    const tensor *x = &c->tensors[i];
    bool recorded = x->kind != TENSOR_FREE && x->generation == handle_generation(handle) &&
                    x->tape_generation == t->generation && x->node < t->n;
    return recorded ? x->node : -1;
}
/* The node of an operand on the open tape (persistent tensors are recorded at first sight); -1 after an error. */
node_id ad__node_of(ad_context *c, const ad_tensor *handle, const char *operand);
static inline node_id ad__node(ad_context *c, const ad_tensor *handle, const char *operand)
{
    node_id id = c->tape && ad__ok(c) ? ad__node_quickly(c, c->tape, handle) : -1;
    return id >= 0 ? id : ad__node_of(c, handle, operand);
}
static inline ad_tensor *ad__handle(ad_context *c, node_id id)
{
    return id < 0 ? AD_NIL : handle_make(HANDLE_STEP, c->tape->generation, id);
}

/* Appends a node; -1 after an error. `attrs` are structural. The caller has checked shapes. */
node_id ad__append(ad_context *c, int op, int dtype, int32_t shape, const node_id *inputs, int n_inputs,
                   const int64_t *attrs, int n_attrs, int32_t bind);
/* Whether another node fits, with so many inputs and attributes, without growing anything. */
static inline bool ad__room(const ad_context *c, const tape *t, int n_inputs, int n_attrs)
{
    return t->n < t->cap_where && t->n < c->max_nodes && t->n_inputs + n_inputs <= t->cap_inputs &&
           t->n_attrs + n_attrs <= t->cap_attrs;
}
/* Appends a node whose inputs and attributes are about to be written behind those of the others. There is room. */
static inline node_id ad__push(const ad_context *c, tape *t, int op, int dtype, int32_t shape, int n_inputs,
                               int n_attrs, int32_t bind)
{
    node_id id = (node_id)t->n++;
    t->node[id] = (node){ (uint16_t)op,        (uint8_t)dtype, (uint8_t)n_attrs, shape, (int32_t)t->n_inputs, n_inputs,
                          (int32_t)t->n_attrs, bind,           t->site,          0 };
    t->where[id] = (source_line){ c->file, c->line };
    t->n_inputs += n_inputs;
    t->n_attrs += n_attrs;
    return id;
}
static inline bool ad__has_other_shape(const node *n, int32_t shape)
{
    return n->shape && n->shape != shape;
}
/* What nearly every recording is: reals of one shape or scalars, and room for the node. -1, without an error, where it
 * is not so: ad__elementwise does the rest, in two hundred instructions for some thirty here. Operands are nodes of
 * tape t, those beyond the arity repeat the first one; all are kept apart, in registers. */
static inline __attribute__((always_inline)) node_id ad__append_plain(const ad_context *c, tape *t, int op, int arity,
                                                                      node_id x, node_id y, node_id z, node_id w)
{
    if (!ad__ok(c) || op == OP_logit_clamped || !ad__room(c, t, arity, 0))
        return -1;
    const node *a = &t->node[x], *b = &t->node[y], *d = &t->node[z], *e = &t->node[w];
    int32_t shape = a->shape | b->shape | d->shape | e->shape; /* what they all have (0: the scalar's), or nobody */
    if ((a->dtype | b->dtype | d->dtype | e->dtype) != AD_REAL || ad__has_other_shape(a, shape) ||
        ad__has_other_shape(b, shape) || ad__has_other_shape(d, shape) || ad__has_other_shape(e, shape))
        return -1;
    int32_t *in = t->input + t->n_inputs;
    in[0] = x;
    if (arity > 1)
        in[1] = y;
    if (arity > 2)
        in[2] = z;
    if (arity > 3)
        in[3] = w;
    return ad__push(c, t, op, AD_REAL, shape, arity, 0, -1);
}
_Static_assert(AD_REAL == 0, "of dtypes the sum is taken");
/* Elementwise op by number, broadcasting; -1 after an error. */
node_id ad__elementwise(ad_context *c, int op, const node_id *inputs);
int ad__arity(int op);
const char *ad__op_name(int op);

node_id ad__constant(ad_context *c, double value);    /* structural */
int32_t ad__bind_scalar(ad_context *c, double value); /* a slot */
node_id ad__scalar_of_slot(ad_context *c, int32_t slot);
/* The assignments of the next committing run are made only if all of these are finite: gradients, the loss. */
void ad__guard(ad_context *c, const node_id *x, int n);
node_id ad__expand_to(ad_context *c, node_id x, int32_t shape);
node_id ad__sum_to(ad_context *c, node_id x, int32_t shape);

/* Where an earlier run left a node's value. */
static inline place ad__place(const tape *t, node_id i)
{
    return i < t->n_placed ? t->place[i] : (place){ .kind = PLACE_NONE };
}
/* Views of a node, for code that walks tapes. */
static inline const int32_t *ad__inputs(const tape *t, node_id i)
{
    return t->input + t->node[i].input;
}
static inline const int64_t *ad__attrs(const tape *t, node_id i)
{
    return t->attr + t->node[i].attr;
}

/* Gradient rule of an op: with gradient g arriving at y, records d[j] for each input j with want[j] (at the
 * input's shape, or one that sums down or expands to it), or leaves it -1 for zero. */
typedef void gradient_rule(ad_context *c, node_id y, node_id g, const bool *want, node_id *d);
#define AD_SOURCE(name, attrs)
#define AD_STRUCTURED(name, attrs) gradient_rule ad__gradient_##name;
#include "autodiff/structured.def"
/* The recorded forms that gradient rules share. */
node_id ad__op1(ad_context *c, int op, node_id a);
node_id ad__op2(ad_context *c, int op, node_id a, node_id b);
node_id ad__op3(ad_context *c, int op, node_id a, node_id b, node_id d);
node_id ad__reshape_to(ad_context *c, node_id x, int32_t shape);
node_id ad__matmul(ad_context *c, node_id a, bool transpose_a, node_id b, bool transpose_b);
node_id ad__reduce_axes(ad_context *c, int op, node_id x, int first, int end, bool keep);
static inline const shape_info *ad__shape_of(ad_context *c, node_id x)
{
    return ad__shape_info(c, c->tape->node[x].shape);
}
/* The open tape's node of an operand; NULL context or -1 after an error. */
ad_context *ad__open_context(void);
/* Axis counted from the left; -1 after an error that names the function. */
int ad__axis(ad_context *c, const ad_shape *s, int axis, const char *function);
/* Records gradients of the scalar y, times g, with respect to x[0..n): out[i], -1 where y does not depend on x[i]. */
bool ad__gradient(ad_context *c, node_id y, const node_id *x, int n, node_id *out);

/* ---- running ----------------------------------------------------------------------------------------------------- */

typedef struct run_request {
    const node_id *roots; /* values to keep */
    int n_roots;
    bool final;           /* nothing of this tape is used afterwards but the roots */
    bool commit;          /* run the assignments */
    bool held;            /* the plan is for many runs: it is made in full at once */
    bool once;            /* do not keep the plan, nor count it, unless it had to be compiled */
    const int64_t *attrs; /* what `expand` depends on beside the tape: part of the plan's key */
    int n_attrs;
    /* NULL, or: in, the plan that this very tape and request had, 0 where it may be another; out, the one it has */
    uint64_t *serial;
    /* Called at a miss, after the key is taken: appends what the recorded program implies (gradients, optimiser).
     * It must depend on the tape and attrs alone. */
    bool (*expand)(ad_context *c, void *user);
    void *user;
} run_request;

/* Plans (or finds the plan of) the tape so far and runs it. False after an error. *finite (may be NULL) is false when a
 * commit was refused because a value that it depends on is not finite; that alone is not an error. */
bool ad__run(ad_context *c, const run_request *r, bool *finite);
/* Copies the elements of a computed node to host memory in its own dtype (weighted totals: doubles). */
bool ad__fetch(ad_context *c, node_id id, void *out, int64_t n);

#endif
