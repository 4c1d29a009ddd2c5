/* Messages and handlers: the whole contract between primitives and effects. Included by ppl.h; read by everyone who
 * writes a handler. Names and order are Pyro's (poutine/runtime.py, apply_stack).
 *
 * A primitive (ppl_sample, ppl_param, ...) makes a message and sends it through the stack of installed handlers:
 *   1. `process` from the innermost handler to the outermost; a handler that sets `stop` is the last one reached;
 *   2. the default: unless `done`, or observed, or a value is there, the value is drawn from `fn`; then `done` is set;
 *   3. `postprocess` from the outermost handler reached to the innermost. Handlers skipped by `stop` get none. */
#ifndef PPL_MESSAGE_H
#define PPL_MESSAGE_H

#include "distributions/constraint.h"
#include "distributions/dist.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { PPL_MAX_FRAMES = 16 }; /* plates around one site */

/* Options that are left out, or 0, take their defaults. Where 0 itself is meant, PPL_ZERO says so in options that are
 * real numbers (it is minus zero), and PPL_NONE in those that are integers. */
#define PPL_ZERO (-0.0)
enum { PPL_NONE = -1 };

/* A place in the user's source; the macros fill it in. */
typedef struct ppl_source {
    const char *file;
    int line;
} ppl_source;

typedef enum ppl_message_type {
    PPL_SAMPLE,    /* ppl_sample, ppl_factor, ppl_deterministic */
    PPL_PARAM,     /* ppl_param */
    PPL_SUBSAMPLE, /* a plate, named so: value is the indices of its members, NULL where these are all; is_observed where
                    * the model gave them */
    PPL_SELECT     /* ppl_subsample(data): value is the data, each subsampled plate takes its rows */
} ppl_message_type;

/* One plate around a site. */
typedef struct ppl_frame {
    const char *name; /* interned */
    int dim;          /* batch dimension from the right (-1, -2, ...); 0 in a sequential plate */
    int64_t size;     /* of that dimension: the batch size when the plate is subsampled; -1: any */
    int64_t full_size;
    int64_t counter; /* iteration of a sequential plate, else 0 */
} ppl_frame;

/* Hints for inference at one site; handlers may change them. All false by default. */
typedef struct ppl_infer {
    bool auxiliary;      /* a guide's site that the model need not have */
    bool from_prior;     /* a latent site of the model that the guide leaves to the prior */
    bool score_function; /* do not differentiate through the draw, even where that is possible */
    bool was_observed;   /* set by ppl_uncondition */
    bool deterministic;  /* set by ppl_deterministic: recorded, never scored */
} ppl_infer;

struct ppl_param_args;

typedef struct ppl_message {
    ppl_message_type type;
    const char *name;                   /* full name, interned: two names are equal when the pointers are */
    int32_t id;                         /* the name's number in this context */
    bool is_observed;                   /* the value is data: it is scored but neither drawn nor replayed */
    bool done;                          /* the value is settled: the default action does nothing */
    bool stop;                          /* set by a handler: handlers further out never see this message */
    ppl_infer infer;                    /* this call's own copy */
    distribution *fn;                   /* of a sample site; plates have expanded it when an outer handler sees it */
    ad_tensor *value;                   /* NULL until somebody sets it */
    double scale;                       /* weight of the site's log-density; plates and ppl_scale multiply it */
    ad_tensor *mask;                    /* NULL, or 1 where the log-density counts; broadcasts with the batch shape */
    union {
        const struct ppl_param_args *param; /* of a parameter, while its message travels; NULL in a trace */
        const ppl_frame *plate;             /* of a plate's message: the plate's own frame */
        const void *lifted;                 /* of a sample site: NULL, or what ppl_lift keeps of it */
    };
    ad_tensor *unconstrained;           /* of a parameter: the leaf that the optimiser moves */
    int event_dim;          /* of a parameter or ppl_subsample: its dimensions that no plate counts; -1: not given */
    const void *intervener; /* the ppl_do handler that has split this site */
    void (*continuation)(struct ppl_message *m); /* called after all postprocessing, when set */
    ppl_source at;                               /* the line of the call */
    int n_frames;                                /* plates around the site, outermost first */
    const ppl_frame *frame[PPL_MAX_FRAMES];
} ppl_message;

/* An effect handler. Set the functions you need (NULL: nothing happens) and any of the fields that carry parameters;
 * then `ppl_with (handler) { ... }`, with the handler itself or a pointer to it. A handler may be installed only once
 * at a time. Larger state: put a ppl_handler first in a struct of yours, or point `user` at it. */
typedef struct ppl_handler ppl_handler;
struct ppl_handler {
    void (*process)(ppl_handler *h, ppl_message *m);
    void (*postprocess)(ppl_handler *h, ppl_message *m);
    void (*enter)(ppl_handler *h);
    void (*exit)(ppl_handler *h);
    const void *user;                                       /* the handler's own */
    double number;                                          /* the handler's own */
    uint64_t word;                                          /* the handler's own */
    ad_tensor *tensor;                                      /* the handler's own */
    void *memory;                                           /* the handler's own */
    void (*change)(const ppl_message *m, ppl_infer *infer); /* the handler's own */
    bool installed;                                         /* kept by ppl_with */
};

/* A scope opened by ppl_with, ppl_plate or ppl_module; its fields belong to the library. */
typedef struct ppl_scope {
    ad_context *context;
    ppl_handler own, *handler;
    int depth; /* of the handler stack before */
    bool opened;
    void *frame; /* where errors stood before */
} ppl_scope;

AD_API ppl_scope ppl_with_value(ppl_handler h);
AD_API ppl_scope ppl_with_pointer(ppl_handler *h);
AD_API void ppl_scope_enter(ppl_scope *s);
AD_API void ppl_scope_leave(ppl_scope *s); /* removes the handler; with an error, what is above it */

/* Sends a message through the installed handlers, as primitives do. */
AD_API void ppl_send(ppl_message *m);

#ifdef __cplusplus
}
#else
#define PPL_HERE ((ppl_source){ __FILE__, __LINE__ })

/* A block that runs once, with s opened by `begin` around it; compilers can see that it runs. */
#define PPL_SCOPE_(type, begin, enter, leave)                                                                          \
    for (type ppl_scope_ __attribute__((cleanup(leave))) = begin, *ppl_once_ = &ppl_scope_;                            \
         ppl_once_ && (enter(ppl_once_), true); ppl_once_ = NULL)

/* ppl_with (handler) { ... }: one-shot scope. `return` inside is safe; `break` and `continue` leave the block. */
#define ppl_with(h)                                                                                                    \
    PPL_SCOPE_(ppl_scope,                                                                                              \
               _Generic((h), ppl_handler *                                                                             \
                        : ppl_with_pointer, default                                                                    \
                        : ppl_with_value)(h),                                                                          \
               ppl_scope_enter, ppl_scope_leave)
#endif
#endif
