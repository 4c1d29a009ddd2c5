/* Predictions: many draws of a model's sites, from the prior or given a guide. Included by ppl.h.
 *
 *   ppl_predictive *p = ppl_predictive_new(model, guide, .args = PPL_ARGS(ad_tensor *), .samples = 1000);
 *   ppl_predict(p, x);
 *   ppl_predictive_read(p, "z", buffer, 1000);
 *
 * With a guide the model's latent sites take their values from it; without one they are drawn from the prior. A site
 * with data stays as it is: pass NULL for .obs to predict it. */
#ifndef PPL_PREDICTIVE_H
#define PPL_PREDICTIVE_H

#include "ppl/call.h"
#include "ppl/message.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ppl_predictive ppl_predictive;

typedef struct ppl_predictive_options {
    ppl_signature args;       /* PPL_ARGS(types of the model's parameters); may be left out when it has none */
    const char *const *sites; /* PPL_NAMES("a", "b"), each a site of the model; NULL: all that are not observed,
                                 and deterministic ones */
    int64_t samples;          /* draws at every ppl_predict */
    bool vectorize;           /* all draws at once, in an outermost plate: the model then must take values with more
                                 batch dimensions on the left, and not read them. Else one run for each draw */
    ppl_source at_;
    bool takes_some_; /* the macros': a model without .args would be called without its arguments */
} ppl_predictive_options;

/* A NULL guide: draws from the prior. NULL after an error. End with ppl_predictive_free, before or
 * after the context's end. */
AD_API ppl_predictive *ppl_predictive_new_functions(ppl_function model, ppl_function guide,
                                                    ppl_predictive_options options);
AD_API void ppl_predictive_free(ppl_predictive *p);
/* Draws anew, from a stream of its own; false after an error. */
AD_API bool ppl_predict_args(ppl_predictive *p, int n, const ppl_arg *args);
/* The shape of one draw; and all draws (samples, shape...) of a site, n elements in all; NAN in draws without the site.
 * An error for a site that is not there. */
AD_API ad_shape ppl_predictive_shape(ppl_predictive *p, const char *site);
AD_API bool ppl_predictive_read(ppl_predictive *p, const char *site, double *out, int64_t n);

#ifdef __cplusplus
}
#else
/* ppl_predictive_prior(model, .args = ..., .samples = ...), ppl_predictive_new(model, guide, ...): checked like
 * svi_new. */
#define ppl_predictive_new(...) PPL_PREDICTIVE_NEW_(__VA_ARGS__, .at_ = PPL_HERE)
#define PPL_PREDICTIVE_NEW_(model, guide, ...)                                                                         \
    __extension__({                                                                                                    \
        PPL_MODEL_AND_GUIDE_(model, guide);                                                                            \
        AD_STRICT_SIZES_ ppl_predictive *ppl_made_ = ppl_predictive_new_functions(                                     \
            (ppl_function)ppl_model_, PPL_GUIDE_OR_NULL_(guide),                                                       \
            (ppl_predictive_options){ __VA_ARGS__, .takes_some_ = PPL_TAKES_SOME_(ppl_model_) });                      \
        AD_STRICT_END_ ppl_made_;                                                                                      \
    })
#define ppl_predictive_prior(...) PPL_PREDICTIVE_PRIOR_(__VA_ARGS__, .at_ = PPL_HERE)
#define PPL_PREDICTIVE_PRIOR_(model, ...) PPL_PREDICTIVE_NEW_(model, NULL, __VA_ARGS__)
#define ppl_predict(...) (AD_HERE, PPL_CALL_(ppl_predict_args, __VA_ARGS__))
#define ppl_predictive_read(p, site, out, n)                                                                           \
    __extension__({                                                                                                    \
        int64_t ppl_n_ = AD_WHOLE_(n);                                                                                 \
        AD_HERE;                                                                                                       \
        AD_HOLDS_(out, ppl_n_, "ppl_predictive_read is asked for") &&                                                  \
            (ppl_predictive_read)((p), (site), (out), ppl_n_);                                                         \
    })
#endif
#endif
