/* Stochastic variational inference: estimators, optimisers, and the loop's step. Included by ppl.h.
 *
 *   svi *s = svi_new(model, guide, .args = PPL_ARGS(ad_tensor *), .optim = optim_adam(.lr = 0.01));
 *   for (int i = 0; i < 1000; i++) loss = svi_step(s, x);
 *   svi_free(s); */
#ifndef PPL_SVI_H
#define PPL_SVI_H

#include "ppl/call.h"
#include "ppl/message.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- ELBO estimators -------------------------------------------------------------------------------------------- */

/* ELBO = E_q[log p(x, z) - log q(z)], summed over data as Pyro sums, never a mean; the loss is -ELBO.
 *
 * TRACE (Trace_ELBO): one draw of q per particle; pathwise gradients where a site has them, else the score function
 * with Rao-Blackwellisation over plates.
 * MEAN_FIELD (TraceMeanField_ELBO): E_q of log p - log q in closed form where the pair has one; all guide sites must be
 * reparametrised. */
typedef enum elbo_kind { ELBO_TRACE, ELBO_MEAN_FIELD } elbo_kind;
typedef struct elbo {
    elbo_kind kind;
    int particles;         /* draws of q that are averaged; 0: 1 */
    bool vectorize;        /* all particles at once, in an outermost plate */
    int max_plate_nesting; /* dimensions that plates use, PPL_NONE for none; 0: found out by running guide and model */
} elbo;

/* ---- optimisers -------------------------------------------------------------------------------------------------- */

/* A glob pattern over parameter names (* any text, ? one character) and what holds for those that match. What is left
 * out is the optimiser's own number; 0 is PPL_ZERO, or, in a row of optim_rules, simply 0: the macro sees what was
 * written, .weight_decay = 0 switches the decay off. The first match counts; a row without pattern ends the list.
 *
 * A pattern must match a parameter that the store has after the first run of guide and model, the first step's, or that
 * step is an error that names the pattern; .optional is for rules of parameters that come later, or never. */
typedef struct optim_rule {
    const char *pattern;
    double lr;
    double weight_decay;
    bool frozen;   /* never moved */
    bool optional; /* may match nothing */
} optim_rule;

typedef enum optim_kind { OPTIM_ADAM, OPTIM_ADAMW, OPTIM_CLIPPED_ADAM, OPTIM_SGD, OPTIM_RMSPROP } optim_kind;

/* g is the gradient of the loss with respect to an unconstrained parameter w, t the number of commits of that
 * parameter, this one included. All numbers enter at run time. Numbers that are negative, infinite or NaN, and betas of
 * 1 and more, are refused by svi_new; a schedule's value that is, by the step. PPL_ZERO stands for 0 itself. */
typedef struct optim {
    optim_kind kind;
    double lr;               /* 0: 1e-3 (SGD and RMSprop: 1e-2) */
    double beta1, beta2;     /* 0: 0.9, 0.999 (RMSprop's beta2, "alpha": 0.99) */
    bool beta1_set;          /* beta1 = 0 is meant, as PPL_ZERO says it */
    double eps;              /* 0: 1e-8 */
    double momentum;         /* of SGD: buffer b = momentum b + g, w -= lr b */
    double weight_decay;     /* added to g as weight_decay w; AdamW: w is multiplied by 1 - lr weight_decay instead */
    double lrd;              /* of ClippedAdam: lr is multiplied by it before every step, the first included; 0: 1 */
    double clip_value;       /* each element of g is kept in [-clip_value, clip_value]; 0: off (ClippedAdam:
                                10, and off by PPL_ZERO) */
    double clip_tensor_norm; /* the norm of each parameter's g is at most this; 0: off */
    double clip_global_norm; /* the norm of all gradients together is at most this; 0: off */
    double (*schedule)(int64_t step, void *user); /* multiplies lr at step 0, 1, ... of this instance; NULL: 1 */
    void *user;
    const optim_rule *rules; /* NULL, or rows ended by one without pattern; copied by svi_new */
} optim;

/* ---- SVI --------------------------------------------------------------------------------------------------------- */

typedef struct svi svi;

typedef struct svi_options {
    ppl_signature args; /* PPL_ARGS(types of the model's parameters); may be left out when it has none */
    struct optim optim; /* left out: optim_adam() */
    struct elbo elbo;
    ppl_source at_;
    bool takes_some_; /* the macro's: a model without .args would be called without its arguments */
} svi_options;

/* A new instance for the current context; NULL after an error. Several may share parameters; each has moments of its
 * own. End with svi_free BEFORE its context ends (the default context ends with its thread): an instance stands on its
 * context's memory, and once that is gone it can be neither used nor freed. Densities and predictives likewise. */
AD_API svi *svi_new_functions(ppl_function model, ppl_function guide, svi_options options);
AD_API void svi_free(svi *s); /* the parameters stay; NULL is allowed */

/* One step: records guide and model, estimates the loss and its gradient, moves the parameters that were visited.
 * Returns the loss before the move. After any error, or when a loss or gradient is not finite: returns NAN, parameters
 * and moments are as before, svi_error tells, and the next step starts afresh. */
AD_API double svi_step_args(svi *s, int n, const ppl_arg *args);
/* The loss alone, from draws of its own: training does not notice. */
AD_API double svi_evaluate_args(svi *s, int n, const ppl_arg *args);

/* The arguments of a step, changed in place: args holds those of the step before. False ends the run. */
typedef bool svi_next(void *user, int64_t step, ppl_arg *args);

typedef struct svi_run_options {
    int64_t steps;
    ppl_arguments args; /* PPL_VALUES(arguments of the model...): of every step, or where `next` starts from */
    svi_next *next;     /* NULL, or called before every step, numbered from 0 in this run: it may write into the
                           tensors that are arguments, put others in their place, or change anything else */
    void *user;         /* handed to next */
    double *losses;     /* NULL, or (steps): the loss of every step; NAN for those not made */
    ppl_source at_;
} svi_run_options;

/* Many steps, with the losses of as many calls of svi_step to the bit, at little more than the cost of their
 * arithmetic: steps whose arguments are those of the step before, or tensors of the same shapes in their place, run
 * again what was recorded, and the model is not called. So it must record the same again: it is called once more before
 * the second of such steps and after the last, and an operation or number that differs is an error that names it.
 * Numbers that change go through arguments (that step is recorded) or the optimiser's schedule. A model that reads
 * values is recorded at every step. Returns the mean loss of the steps made. At the first error, or loss that is not
 * finite, the run ends: NAN, with everything as after the last good step. */
AD_API double svi_run_steps(svi *s, svi_run_options options);

/* What went wrong in the last step, run or evaluation, "" if nothing; valid until the next one. */
AD_API const char *svi_error(svi *s);
AD_API int64_t svi_steps(svi *s); /* that moved the parameters */

#ifdef __cplusplus
}
#else
#define elbo_trace(...) ((struct elbo){ .kind = ELBO_TRACE, __VA_ARGS__ })
#define elbo_mean_field(...) ((struct elbo){ .kind = ELBO_MEAN_FIELD, __VA_ARGS__ })

#define optim_sgd(...) ((struct optim){ .kind = OPTIM_SGD, __VA_ARGS__ })
#define optim_adam(...) ((struct optim){ .kind = OPTIM_ADAM, __VA_ARGS__ })
#define optim_adamw(...) ((struct optim){ .kind = OPTIM_ADAMW, __VA_ARGS__ })
#define optim_clipped_adam(...) ((struct optim){ .kind = OPTIM_CLIPPED_ADAM, __VA_ARGS__ })
#define optim_rmsprop(...) ((struct optim){ .kind = OPTIM_RMSPROP, __VA_ARGS__ })
/* The last row but one, frozen without a pattern, says that the last one holds the rows' text. */
#define optim_rules(...)                                                                                               \
    ((const optim_rule[]){ __VA_ARGS__, { .pattern = NULL, .frozen = true }, { .pattern = OPTIM_TEXT_(__VA_ARGS__) } })
#define OPTIM_TEXT_(...) #__VA_ARGS__

/* svi_new(model, guide, .args = PPL_ARGS(...), .optim = ..., .elbo = ...): model and guide are functions that take
 * exactly these types, checked at compile time. */
#define svi_new(...) SVI_NEW_(__VA_ARGS__, .at_ = PPL_HERE)
#define SVI_NEW_(model, guide, ...)                                                                                    \
    __extension__({                                                                                                    \
        PPL_MODEL_AND_GUIDE_(model, guide);                                                                            \
        AD_STRICT_SIZES_ svi *svi_made_ =                                                                              \
            svi_new_functions((ppl_function)ppl_model_, PPL_GUIDE_OR_NULL_(guide),                                     \
                              (svi_options){ __VA_ARGS__, .takes_some_ = PPL_TAKES_SOME_(ppl_model_) });               \
        AD_STRICT_END_ svi_made_;                                                                                      \
    })
/* svi_step(s, arguments of the model...) */
#define svi_step(...) (AD_HERE, PPL_CALL_(svi_step_args, __VA_ARGS__))
#define svi_evaluate(...) (AD_HERE, PPL_CALL_(svi_evaluate_args, __VA_ARGS__))
/* svi_run(s, 1000, .args = PPL_VALUES(&v, x)), svi_run(s, n, .args = ..., .next = next, .user = loader) */
#define svi_run(...) SVI_RUN_(__VA_ARGS__, .at_ = PPL_HERE)
static inline double svi_same_(double loss) /* as ppl_same_ */
{
    return loss;
}
#define SVI_RUN_(s, ...)                                                                                               \
    __extension__({                                                                                                    \
        AD_STRICT_SIZES_ double svi_loss_ = svi_run_steps((s), (svi_run_options){ __VA_ARGS__ });                      \
        AD_STRICT_END_ svi_same_(svi_loss_);                                                                           \
    })
#endif
#endif
