/* What ppl keeps beside an ad_context, and the calls that cross its files. Internal.
 * One ppl_state hangs on ad_context.client; it is made at the first call that needs it. */
#ifndef PPL_STATE_H
#define PPL_STATE_H

#include <limits.h>
#include <string.h>

#include "autodiff/owner.h"
#include "autodiff/tape.h"
#include "ppl/ppl.h"

/* Streams of draws: scopes have theirs in autodiff; instance i has STREAM_FIRST + 4 i and the three after it. */
enum {
    STREAM_INIT = 8,
    STREAM_SEEDED = 9,
    STREAM_FIRST = 16,
    STREAM_STEP = 0,
    STREAM_EVALUATE = 1,
    STREAM_PREDICT = 2
};

/* A parameter, in order of first visit. */
typedef struct param {
    int32_t name, shape;
    int32_t slot; /* its place in the tables of others, its own as long as it lives */
    dist_constraint constraint;
    ad_tensor *leaf;          /* unconstrained, an ad_state; NULL: about to go from the list */
    bool newborn;             /* made in a step that has not succeeded yet */
    uint64_t life;            /* distinct for every birth: moments of an earlier one are not used */
    uint32_t tape_generation; /* the tape that visited it last, and its constrained value there */
    ad_tensor *value;
    uint32_t collected; /* the tape whose step has found it */
} param;

/* A place in the tables that others keep of parameters. */
typedef struct param_slot {
    uint64_t life;     /* of the parameter whose it is; 0: free */
    int32_t next_free; /* the next free one, -1 at the end */
} param_slot;

/* An open or earlier plate of this run. */
typedef struct plate {
    struct plate *outer; /* the next one around */
    ppl_frame frame;
    int32_t id;
    double scale;
    ad_tensor *index; /* NULL: all members */
    int64_t *member;  /* of a sequential plate: the index, read */
    bool sequential, open;
    int64_t depth; /* handlers around it */
    ppl_handler handler;
    error_frame where;
} plate;

/* What is known about a name: its parameter, and the plate of that name in a run. */
typedef struct name_slot {
    int32_t param; /* index + 1; 0: none */
    uint32_t run, tape_generation;
    plate *plate;
} name_slot;

/* What an entry found; see entry.h. */
typedef struct ppl_entry {
    ad_use use;
    ad_context *context; /* NULL: it has ended, or not begun */
    tape *tape;
    error_frame *frame;
    const char *file;
    int line, busy, particle, calls;
    int64_t depth;
    size_t prefix_length;
    uint32_t run;
    const void *user;
    bool in_step;
    struct ppl_call *call; /* what the call has made for itself, and goes when it does not return */
    void *object;
} ppl_entry;

/* A seeding that a ppl_seeded handler has put aside, and how many handlers are around that. */
typedef struct put_aside {
    seeding seeding;
    int64_t depth;
} put_aside;

typedef struct ppl_state {
    ppl_handler **handler; /* outermost first */
    int64_t depth, cap_handlers;

    param *params;
    int64_t n_params, cap_params;
    uint64_t lives, deaths;
    param_slot *slots;
    int64_t n_slots, cap_slots;
    int32_t free_slot;

    name_slot *names; /* by id of the name */
    int64_t n_names, cap_names;

    char *prefix; /* of parameter names: "outer$$$inner$$$"; room for a name behind it */
    size_t prefix_length;
    int64_t cap_prefix;

    plate *plates;              /* open ones, innermost first */
    plate *by_dim[AD_MAX_RANK]; /* the open plate of dimension -1 - i */
    uint32_t run, last_run;     /* ordinal of the run of a model: plates of one name may come back within it */

    ad_tensor *members; /* 0, 1, ..., n_members - 1: the indices of plates that are not subsampled */
    int64_t n_members;

    int particle; /* ordinal of the draws at every site */
    bool in_step;
    bool born; /* parameters were made in a step that is not settled yet */
    int calls; /* of models and guides that are running */

    uint64_t looked[64]; /* hashes of programs whose traces were looked at, in a ring; 0: none */
    unsigned n_looked;

    const void *user;    /* the frame that called the user's function or callback at work; NULL: none is */
    ppl_entry outermost; /* what was found before it was called */
    put_aside *seedings; /* by ppl_seeded handlers around, outermost first */
    int64_t seeded, cap_seedings;
} ppl_state;

/* The state of c; NULL without memory for it. */
ppl_state *ppl__state_new(ad_context *c);
static inline ppl_state *ppl__state(ad_context *c)
{
    return c && c->client ? c->client : ppl__state_new(c);
}
/* The slot of a name; NULL after an error. */
name_slot *ppl__name_slot_new(ad_context *c, ppl_state *st, int32_t name);
static inline name_slot *ppl__name_slot(ad_context *c, ppl_state *st, int32_t name)
{
    return name >= 0 && name < st->n_names ? &st->names[name] : ppl__name_slot_new(c, st, name);
}
/* The name of a parameter with the prefix of the open modules, interned; -1 after an error. */
int32_t ppl__prefixed(ad_context *c, ppl_state *st, const char *name);
/* Leaves the handler that was entered with `depth` others around it; `name` is the plate's whose it is, or NULL. */
void ppl__leave(ad_context *c, ppl_state *st, ppl_handler *h, int64_t depth, const char *name);
/* Ends handlers and modules that were entered and not left, without looking at them, with an error. */
void ppl__drop(ad_context *c, ppl_state *st, int64_t depth, size_t prefix_length);
/* Closes the plates that were opened with so many handlers around them, or more. */
void ppl__plates_close(ppl_state *st, int64_t depth);

/* ---- draws ------------------------------------------------------------------------------------------------------- */

/* The streams of an instance: given when it is made, and again when it is first used after another seed. */
typedef struct ppl_streams {
    uint64_t first, seeding;   /* + STREAM_STEP, ... */
    uint64_t runs, evaluations; /* so far */
} ppl_streams;
static inline void ppl__streams_begin(ad_context *c, ppl_streams *s)
{
    *s = (ppl_streams){ .first = STREAM_FIRST + 4 * c->seeding.streams++, .seeding = c->seeding.ordinal };
}
/* Before use; not inside ppl_seeded, which leaves streams where they were. */
static inline void ppl__streams_now(ad_context *c, ppl_streams *s)
{
    if (s->seeding != c->seeding.ordinal)
        ppl__streams_begin(c, s);
}
/* Ends the ppl_seeded handlers with so many handlers around them, or more. */
void ppl__seeded_end(ad_context *c, ppl_state *st, int64_t depth);

/* ---- default actions of messages -------------------------------------------------------------------------------- */

void ppl__draw(ad_context *c, ppl_state *st, ppl_message *m);        /* of a sample site */
void ppl__param_value(ad_context *c, ppl_state *st, ppl_message *m); /* of a parameter */
void ppl__plate_members(ad_context *c, ppl_state *st, ppl_message *m); /* of a plate */
/* Clears all but the frames, of which there are none: that is most of a message. */
static inline void ppl__message_begin(ppl_message *m, ppl_message_type type, int32_t id, ppl_source at)
{
    memset(m, 0, offsetof(ppl_message, frame));
    m->type = type;
    m->id = id;
    m->scale = 1;
    m->at = at;
}
/* Sends a message as it is to the handlers outside of one that is at work, and back through all. */
void ppl__send_outward(ad_context *c, const ppl_handler *from, ppl_message *m);

/* ---- parameters -------------------------------------------------------------------------------------------------- */

param *ppl__param_find(ad_context *c, ppl_state *st, const char *name); /* NULL, no error, when there is none */
/* After a step: keeps the parameters born in it, or ends them again. */
void ppl__params_settle(ad_context *c, ppl_state *st, bool keep);
bool ppl__glob(const char *pattern, const char *text);

/* ---- names for messages ------------------------------------------------------------------------------------------ */

/* Begun as { .wanted = name, .letters = INT_MAX }: the names there are, and the nearest of them. */
typedef struct known {
    const char *wanted, *nearest;
    int letters, n; /* that the nearest differs by; names added */
    size_t used;
    char names[256], text[512];
} known;

void ppl__known_add(known *k, const char *name);
/* "did you mean "x"? there are "x", "y"; more", for a hint; lives as long as k. The second one adds the parameters. */
const char *ppl__known_text(known *k, const char *more);
const char *ppl__known_params(ad_context *c, known *k, const char *more);

/* ---- calls ------------------------------------------------------------------------------------------------------- */

typedef struct ppl_call ppl_call; /* a prepared signature */
ppl_call *ppl__call_new(ad_context *c, const ppl_signature *types);
void ppl__call_free(ad_context *c, ppl_call *call);
int ppl__call_count(const ppl_call *call); /* of arguments */
/* Whether .args was left out though the model takes something: true with an error. */
bool ppl__needs_types(ad_context *c, const ppl_signature *types, bool takes_some, const char *call);
/* Converts n arguments for the next ppl__call; false, with an error naming the argument, when they do not fit. */
bool ppl__call_arguments(ad_context *c, ppl_call *call, int n, const ppl_arg *args);
void ppl__call(ppl_call *call, ppl_function f);

/* ---- traces ------------------------------------------------------------------------------------------------------ */

/* One recorded message, and what scoring made of it. */
typedef struct site {
    ppl_message m;
    ad_tensor *log_prob;     /* masked, not scaled; NULL: not scored yet */
    ad_tensor *unmasked;     /* the same before the mask */
    struct site *partner;    /* of a latent site, once guide and model are matched: the other one's, or NULL */
    struct site *next_param; /* of a parameter: the trace's next one */
} site;

typedef struct trace {
    site **site;
    int n, cap;
    site *first_param, *last_param;
    int32_t *slot; /* open addressing by the name's id: ordinal of the site, -1 empty */
    int n_slots;
} trace;

trace *ppl__trace_new(ad_context *c);                         /* NULL after an error */
trace *ppl__trace_of(ad_context *c, const ppl_trace *handle); /* NULL, with an error, for a stale one */
site *ppl__trace_find(const trace *t, int32_t name);
int ppl__trace_nesting(const trace *t); /* most batch dimensions that plates claim */
bool ppl__trace_add(ad_context *c, trace *t, const ppl_message *m);
/* Runs f under a fresh trace, under replay of `replayed` and inside a plate where these are given (else NULL, 0);
 * `what` is for messages. NULL after an error. */
trace *ppl__run(ad_context *c, ppl_call *call, ppl_function f, const char *what, const trace *replayed,
                const ppl_plate_args *around);
/* Whether a site's elementwise log density, or divergence, has the shape that the plates around it promise; else false,
 * with an error: a silent N x N broadcast is refused here. */
bool ppl__fits_plates(ad_context *c, const site *s, ad_tensor *log_prob);
/* log p of a site's value, masked but not scaled; checks its shape against the plates. AD_NIL after an error. */
ad_tensor *ppl__score(ad_context *c, site *s);
/* The first look at n traces of a guide (or NULL) and a model: false, with an error that names site, value and index,
 * where a computed parameter of a scored site, an observed value or one that a guide has drawn is outside what its
 * distribution wants. What it records is forgotten again. */
typedef enum look_at {
    LOOK_AT_ALL,
    LOOK_AT_DATA,       /* nothing else is known */
    LOOK_AT_PARAMETERS, /* nothing is scored */
} look_at;
bool ppl__check(ad_context *c, trace *const *guide, trace *const *model, int n, look_at what);
/* The same for the parameters of one trace, unless its program was looked at before. */
bool ppl__check_trace(ad_context *c, trace *t);
/* Why the log density of a site is not finite, as far as its parameters and its value tell: the rest of a sentence into
 * out, or "", and a hint or NULL. What it computes is recorded on the open tape. */
void ppl__why(ad_context *c, const site *s, char *out, size_t size, const char **advice);
/* Errors until c->frame is set back are told of this site, its plates and its line; room for PPL_MAX_FRAMES + 1 frames.
 */
void ppl__stand_at(ad_context *c, const site *s, error_frame *frames);
static inline bool ppl__scored(const site *s)
{
    return s->m.type == PPL_SAMPLE && !s->m.infer.deterministic;
}
static inline bool ppl__latent(const site *s)
{
    return ppl__scored(s) && !s->m.is_observed;
}
static inline void ppl__at(ad_context *c, ppl_source at)
{
    c->file = at.file; /* NULL, an unknown place, is better than the place of another call */
    c->line = at.line;
}

/* Replay by an internal trace. */
ppl_handler ppl__replay(const trace *t);
ppl_handler ppl__record(trace *t);

/* True, with an error that names the call, while a model or guide runs: `call` would pull the rug from under it. */
bool ppl__refuse_inside(ad_context *c, const ppl_state *st, const char *call);

#endif
