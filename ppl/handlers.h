/* The handlers that come with the library: each is a value to be given to ppl_with. Included by ppl.h. One file each in
 * ppl/handlers/; the runtime knows none of them. Meanings are those of Pyro's poutine.
 *
 * Lists of names end with NULL, lists of pairs with a pair of zeros; in C the macros add it:
 *   ppl_with (ppl_condition({ "z", z }, { "w", w })) { ... }
 * What a list holds must live while the handler is installed: a handler built in the head of ppl_with is safe. */
#ifndef PPL_HANDLERS_H
#define PPL_HANDLERS_H

#include "ppl/message.h"
#include "ppl/trace.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A value, or a distribution, for a name. */
typedef struct ppl_value {
    const char *name;
    ad_tensor *value;
} ppl_value;
typedef struct ppl_prior {
    const char *name;
    distribution *fn;
} ppl_prior;

/* Latent sites take their values (and infer) from the trace; a site observed in the model is left alone, a name missing
 * in the trace is drawn as usual. An error when the trace's site of that name is observed or no sample site. Plates
 * that give no .subsample have the members that the trace's plates have; where the sizes differ, or rows of one's own
 * meet drawn ones, that is an error. */
AD_API ppl_handler ppl_replay(ppl_trace *t);

/* Hides messages from the handlers outside. Nothing given: all. `hide...` hides what is named and shows the rest,
 * `expose...` shows what is named and hides the rest. The same name, or type, in both is an error. */
typedef struct ppl_block_args {
    const char *const *hide, *const *expose; /* names, ended by NULL: PPL_NAMES("a", "b") */
    unsigned hide_types, expose_types;       /* PPL_TYPE(PPL_PARAM) | ... */
    bool hide_observed, expose_observed;     /* observed sample sites */
    bool (*hide_if)(const ppl_message *m, void *user);
    void *user;
    int end_;
} ppl_block_args;
#define PPL_TYPE(message_type) (1u << (message_type))
AD_API ppl_handler ppl_block_handler(const ppl_block_args *args);

/* Named latent sites become observed with these values, and observed ones get them instead; a NULL value makes the
 * site latent. A plate of that name has the members that the value gives (int64, one dimension). */
AD_API ppl_handler ppl_condition_handler(const ppl_value *values);
/* Named observed sites become latent and are drawn; no names (or NULL): all. */
AD_API ppl_handler ppl_uncondition_handler(const char *const *names);
/* Intervention: the site itself is drawn or observed as ever, for everyone to see; the program goes on with the value
 * given here, which is called <name>__CF and seen by the handlers inside alone. Of two on one site the inner one wins.
 * A plate is no site: intervening on one is an error. */
AD_API ppl_handler ppl_do_handler(const ppl_value *values);
/* Values for parameters; names are those after the last "$$$", or whole. */
AD_API ppl_handler ppl_substitute_handler(const ppl_value *values);
/* Parameters become latent sites with these priors; a later use of one in the block gets the same value. A prior whose
 * parameter is not met in the block is an error at its end. */
AD_API ppl_handler ppl_lift_handler(const ppl_prior *priors);

/* Multiplies the weight of every message inside; the factor enters at run time, so another one makes no new plan. */
AD_API ppl_handler ppl_scale(double factor);
/* Counts log-densities only where mask is not 0; masks of several handlers are combined. NULL: all count. */
AD_API ppl_handler ppl_mask(ad_tensor *mask);
/* Changes the infer hints of every sample site inside. */
AD_API ppl_handler ppl_infer_config(void (*change)(const ppl_message *m, ppl_infer *infer));
/* Prefixes the names of sample sites and plates inside: "prefix/name". */
AD_API ppl_handler ppl_name_scope(const char *prefix);
/* What is drawn inside comes from this seed, from the beginning, so that blocks of one seed repeat each other; what is
 * drawn afterwards is what it would have been without the block. Each step, evaluation and prediction begins anew: an
 * evaluation and a step of the same model then have the same loss. */
AD_API ppl_handler ppl_seeded(uint64_t seed);

#ifdef __cplusplus
}
#else
#define PPL_NAMES(...) ((const char *const[]){ __VA_ARGS__, NULL })
#define ppl_block(...) ppl_block_handler(&(const ppl_block_args){ .end_ = 0, __VA_ARGS__ })
#define ppl_condition(...) ppl_condition_handler((const ppl_value[]){ __VA_ARGS__, { NULL, NULL } })
/* the zeros after the names end the list; the first entry lets it be empty */
#define ppl_uncondition(...) ppl_uncondition_handler((const char *const[64]){ "", __VA_ARGS__ } + 1)
#define ppl_do(...) ppl_do_handler((const ppl_value[]){ __VA_ARGS__, { NULL, NULL } })
#define ppl_substitute(...) ppl_substitute_handler((const ppl_value[]){ __VA_ARGS__, { NULL, NULL } })
#define ppl_lift(...) ppl_lift_handler((const ppl_prior[]){ __VA_ARGS__, { NULL, NULL } })
#endif
#endif
