/* A plan: a recorded program made ready to run. What happens to a tape when it is to be run, file by file:
 *
 *   run.c         appends the request (which values are wanted, whether states are assigned), asks for a plan, runs it
 *   cache.c       has seen this tape before? then its plan is there, and all of the following is skipped
 *   build.c       copies the tape, with the gradients and updates that the client appends, and hands it from pass to pass
 *   need.c          which nodes the run needs, and which of them are equal
 *   fuse.c          which run together, and in which order: items
 *   epilogue.c      which items can run behind a matrix product while its rows are in cache
 *   memory.c        where each value lies
 *   (a backend)     lowers the result to its own program; it reads the plan, nothing else
 *   view.c        what all of these ask: the memory behind a node, looking through views and expansions
 *   single_use.c  instead of all that, for programs that are not expected again: one sweep, then the backend interprets
 *
 * Calls go downwards in this list, never up. */
#ifndef AUTODIFF_PLAN_PLAN_H
#define AUTODIFF_PLAN_PLAN_H

#include "autodiff/tape.h"

/* A run goes through these in order. The gate stands before UPDATE: what comes after it runs only where all that the
 * guard watches is finite, so that a step changes all of its states or none. */
typedef enum plan_phase { PHASE_COMPUTE, PHASE_GUARD, PHASE_UPDATE, PHASE_ASSIGN } plan_phase;

/* A kernel's worth of nodes: one structured node, or elementwise nodes of one loop shape in an order that can be run
 * tile by tile. Members lie in plan->member[first ...]. */
typedef struct plan_item {
    int32_t first, count;
    plan_phase phase;
    int32_t depth; /* 1 + the greatest depth among the items of its phase that it reads: an order to run in */
    int32_t shape; /* loop shape of an elementwise item, else -1 */
    bool follows;  /* may run behind the product before it, rows by rows */
} plan_item;

/* What passes note of a node, bits of plan->live and of plan->kept. */
enum {
    LIVE = 1,             /* the run needs it */
    LIVE_BEFORE_GATE = 2, /* a root or the guard does */
    KEPT_AFTER_RUN = 1,   /* a root: its value outlives the run */
    KEPT_IN_MEMORY = 2,   /* somebody reads it as memory: an expansion has to be made, not just looked through */
    KEPT_ASSIGNED = 4     /* a state to which a value is assigned */
};

struct plan {
    ad_context *context;

    /* the key: the tape up to and with its run node */
    uint64_t hash;
    uint64_t serial; /* of this context, never used again */
    int32_t key_nodes;
    int64_t key_inputs, key_attrs;
    uint64_t layout; /* of the tape before the run: where its values lie */

    /* the program, key included */
    node *node;
    int32_t *input;     /* passes may redirect these */
    int32_t *key_input; /* as recorded */
    int64_t *attr;
    int32_t n;
    int64_t n_inputs, n_attrs;

    int32_t *same;    /* of each node: the node that stands for it (itself, or an equal earlier one) */
    uint8_t *live;    /* LIVE, LIVE_BEFORE_GATE */
    uint8_t *done;    /* whether an earlier segment computed it */
    uint8_t *kept;    /* KEPT_AFTER_RUN, KEPT_IN_MEMORY, KEPT_ASSIGNED */
    int32_t *item_of; /* -1: no kernel (a source, a view, or dead) */
    plan_item *item;
    int32_t n_items, *member, n_members;
    int32_t *position; /* of each node with an item: its index in member */
    int32_t gate;      /* the first item of PHASE_UPDATE or later; n_items where there is none */
    int32_t *draw, n_draws; /* of a single-use plan: its draws of scalars */

    place *place; /* of each node that has memory; views share their operand's */
    int segment;  /* ordinal of the block it writes */
    size_t block_bytes;
    size_t scalar_offset; /* in the block: the run-time numbers as reals, then the constants */
    int32_t n_scalars;
    double *constant;
    int32_t n_constants;
    int32_t guard; /* node, or -1 */
    int32_t *root;
    int n_roots;

    bool again;    /* it was found in the cache */
    int holders;   /* run states of held programs: it outlives its place in the cache */
    bool forgotten; /* by the cache: its last holder frees it */
    bool begun;    /* a small one: its memory was cleared */
    void *program; /* the backend's */
};

/* The node that stands for id after views are looked through: reshape and stop_gradient cost nothing. */
int32_t ad__plan_source(const plan *p, int32_t id);
/* The node whose memory an elementwise member reads for its operand id, and the shape it is read under: expansions are
 * looked through, since such an operand is broadcast to the loop as it is loaded. */
int32_t ad__plan_operand(const plan *p, int32_t id, int32_t *shape);
/* The node whose memory node id reads for its input j. */
int32_t ad__plan_read(const plan *p, int32_t id, int j);
static inline const int32_t *plan_inputs(const plan *p, int32_t id)
{
    return p->input + p->node[id].input;
}
static inline const int64_t *plan_attrs(const plan *p, int32_t id)
{
    return p->attr + p->node[id].attr;
}
static inline int64_t plan_size(const plan *p, int32_t id)
{
    return ad__shape_info(p->context, p->node[id].shape)->size;
}
size_t ad__plan_bytes(const plan *p, int32_t id); /* of a node's value */

/* The optional passes: each has a bit in context->passes, and is left out where $TAPER_WITHOUT lists its name
 * ("fuse,reuse"), to find out who is to blame. None of them changes a bit of any result. */
#define PLAN_PASSES(X)                                                                                                 \
    X(COMMON, "common", "equal nodes are computed once")                                                               \
    X(FUSE, "fuse", "elementwise nodes of one shape run together, tile by tile")                                       \
    X(SINK, "sink", "an item with one reader moves into it")                                                           \
    X(FOLLOW, "follow", "elementwise items and sums of rows run behind a product's rows")                              \
    X(WATCH, "watch", "a product tells whether its result is finite, while it is in cache")                            \
    X(PAIR, "pair", "a value and its gradient share their exponential: softplus and sigmoid, say")                     \
    X(OVERWRITE, "overwrite", "an assigned value is written straight into its state")                                  \
    X(REUSE, "reuse", "values whose lives do not overlap share memory")                                                \
    X(LEAN, "lean", "a new program is interpreted as it stands, where such do not use to come again")
enum {
#define X(name, text, what) PASS_BIT_##name,
    PLAN_PASSES(X)
#undef X
#define X(name, text, what) PASS_##name = 1 << PASS_BIT_##name,
        PLAN_PASSES(X)
#undef X
};
uint32_t ad__passes_wanted(void); /* all but those that $TAPER_WITHOUT lists */
bool ad__pass_live(plan *p, bool commit);
bool ad__pass_common(plan *p);
bool ad__pass_fuse(plan *p);
bool ad__pass_epilogue(plan *p);
bool ad__pass_memory(plan *p, bool final);

plan *ad__plan_build(ad_context *c, const run_request *r, const tape_mark *key, uint64_t hash);
/* The plan of a program for one run; NULL after an error, or where its values are too large for that. */
plan *ad__plan_single_use(ad_context *c, const run_request *r);
void ad__single_use_free(ad_context *c);
void ad__plan_free(ad_context *c, plan *p);
void ad__plan_forget(ad_context *c, plan *p);  /* frees it, or lets its last holder do so */
void ad__plan_release(ad_context *c, plan *p); /* one holder less */

/* The plan of the open tape, up to and with its run node: found in the cache or made; `first`: known to be the cache's
 * first. NULL after an error. */
plan *ad__cache_plan(ad_context *c, const run_request *r, bool first);
/* Appends the node that stands for the request: with it the open tape is the plan's key. False after an error. */
bool ad__run_append(ad_context *c, const run_request *r);
struct run_outcome;
/* Makes an error of what a run of the plan of tape t reports; true where it reports none. */
bool ad__run_report(ad_context *c, const plan *p, const tape *t, const struct run_outcome *o);
/* A plan for one run behind the counters' back, which the cache does not keep. NULL after an error. */
plan *ad__cache_pass(ad_context *c, const run_request *r);

#endif
