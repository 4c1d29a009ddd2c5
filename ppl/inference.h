/* What SVI, its estimators and its optimisers share. Internal. */
#ifndef PPL_INFERENCE_H
#define PPL_INFERENCE_H

#include "ppl/state.h"

/* What an optimiser remembers of one parameter. */
typedef struct moment {
    uint64_t life;       /* of the parameter; another one: start afresh */
    ad_tensor *state[2]; /* NULL: not made yet */
    int64_t commits;     /* steps that moved it */
    int32_t rule;        /* row of optim.rules, or -1 */
} moment;

struct svi {
    owned own;
    ppl_function model, guide;
    ppl_call *call;
    struct optim optim; /* defaults filled in */
    struct elbo elbo;
    uint64_t id;     /* never used again: plans know the optimiser by it */
    ppl_streams streams;
    int64_t steps;
    moment *moments; /* by slot of the parameter */
    int64_t n_moments, cap_moments;
    uint64_t deaths; /* of parameters, whose moments are gone */
    optim_rule *rules; /* a copy, with the texts of the patterns behind it and all numbers filled in */
    int64_t n_rules;
    char error[sizeof(((ad_context *)0)->error)];
};

/* ---- estimators -------------------------------------------------------------------------------------------------- */

typedef struct estimate {
    ad_tensor *loss;      /* a weighted total */
    ad_tensor *surrogate; /* what is differentiated: the loss itself, where no site needs the score function */
    trace **guide, **model;
    int particles; /* traces of each */
} estimate;

/* Runs guide and model on the open tape and records the estimate; false after an error. */
bool ppl__estimate(ad_context *c, svi *s, estimate *e);

/* ---- optimisers -------------------------------------------------------------------------------------------------- */

/* A parameter of this step, and its run-time numbers: slots of the tape's scalars. */
typedef struct visited {
    param *param;
    moment *moment;
    node_id leaf;
    int32_t step, correction, decay;
    bool frozen;
} visited;

/* The numbers that all parameters share. */
typedef struct optim_slots {
    int32_t beta1, beta2, eps, clip, clip_negative, clip_norm, clip_global;
} optim_slots;

/* Fills the defaults in; false, with an error, where a number is senseless. */
bool ppl__optim_settle(ad_context *c, struct optim *o);
/* Copies the rules and the texts of their patterns, in one allocation, with the optimiser's numbers where a rule has
 * none of its own; false after an error. */
bool ppl__optim_copy_rules(ad_context *c, svi *s);
/* False, with an error, when a rule matches no parameter. */
bool ppl__optim_check_rules(ad_context *c, const svi *s);
int ppl__optim_states(const struct optim *o); /* moments for each parameter */
/* Binds this step's numbers, in a fixed order; false after an error: the schedule's. */
bool ppl__optim_bind(ad_context *c, const svi *s, visited *v, int n, optim_slots *slots);
/* Records the update of n parameters from their gradients (NULL: does not depend on it). */
void ppl__optim_record(ad_context *c, const svi *s, const optim_slots *slots, const visited *v, ad_tensor **gradient,
                       int n);

/* ---- steps ------------------------------------------------------------------------------------------------------- */

/* A step as it was recorded on the open tape. It points into itself: it must stay where it is. */
typedef struct step {
    svi *svi;
    estimate estimate;
    visited *visited; /* parameters, in order of visit */
    int n;
    optim_slots slots;
    int64_t numbers; /* scalars of the tape before the optimiser's */
    node_id loss;
    int64_t attrs[3];
    run_request request;
} step;

/* Records guide, model and, in training, the optimiser's numbers; false after an error. */
bool ppl__step_record(ad_context *c, svi *s, bool train, step *p);
/* After a run: counts it, or says what was not finite. The loss, NAN after an error. */
double ppl__step_finish(ad_context *c, step *p, bool finite);
/* The stream of draws of the next step and its ordinal there, which is used up. */
uint64_t ppl__step_stream(const ppl_state *st, svi *s, bool train, uint64_t *run);
/* NAN, with the error of a call on no instance. */
double ppl__no_svi(const char *call);
/* Keeps the context's error for svi_error. */
void ppl__step_told(svi *s);

#endif
