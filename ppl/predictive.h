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
    ppl_signature args;
    const char *const *sites; /* PPL_NAMES("a", "b"); NULL: all that are not observed, and deterministic ones */
    int64_t samples;          /* draws at every ppl_predict */
    bool vectorize;           /* all draws at once, in an outermost plate: the model then must take values with more
                                 batch dimensions on the left, and not read them. Else one run for each draw */
    ppl_source at_;
} ppl_predictive_options;

/* A NULL guide: draws from the prior. NULL after an error. End with ppl_predictive_free, before the context ends. */
AD_API ppl_predictive *ppl_predictive_new_functions(ppl_function model, ppl_function guide,
                                                    ppl_predictive_options options);
AD_API void ppl_predictive_free(ppl_predictive *p);
/* Draws anew, from a stream of its own; false after an error. */
AD_API bool ppl_predict_args(ppl_predictive *p, int n, const ppl_arg *args);
/* The shape of one draw; and all draws (samples, shape...) of a site, n elements in all. */
AD_API ad_shape ppl_predictive_shape(ppl_predictive *p, const char *site);
AD_API bool ppl_predictive_read(ppl_predictive *p, const char *site, double *out, int64_t n);

#ifdef __cplusplus
}
#else
/* ppl_predictive_prior(model, .args = ..., .samples = ...), ppl_predictive_new(model, guide, ...): checked like
 * svi_new. */
#define ppl_predictive_new(model, guide_, ...)                                                                         \
    __extension__({                                                                                                    \
        __auto_type ppl_model_ = (model);                                                                              \
        __auto_type ppl_guide_ = (guide_);                                                                             \
        ppl_predictive_new_functions((ppl_function)ppl_model_, (ppl_function)ppl_guide_,                               \
                                     (ppl_predictive_options){ __VA_ARGS__, .at_ = { __FILE__, __LINE__ } });          \
    })
#define ppl_predictive_prior(model, ...)                                                                               \
    __extension__({                                                                                                    \
        __auto_type ppl_model_ = (model);                                                                              \
        __auto_type ppl_guide_ = ppl_model_;                                                                           \
        (void)ppl_guide_;                                                                                              \
        ppl_predictive_new_functions((ppl_function)ppl_model_, NULL,                                                   \
                                     (ppl_predictive_options){ __VA_ARGS__, .at_ = { __FILE__, __LINE__ } });          \
    })
#define ppl_predict(...) (AD_HERE, PPL_CALL_(ppl_predict_args, __VA_ARGS__))
#endif
#endif
