/* The log density of a model as a function of one flat unconstrained vector, with gradient and second derivatives: what
 * samplers, optimisers of one's own and Laplace approximations need. Included by ppl.h.
 *
 *   ppl_density *d = ppl_density_new(model, PPL_ARGS(ad_tensor *, ad_tensor *), x, y);
 *   int64_t n = ppl_density_size(d);
 *   double value = ppl_density_value(d, u, gradient);           u, gradient (n)
 *
 * The model runs once, when the density is made; afterwards its program is evaluated again and again without it. So its
 * arguments must outlive the density; their contents, and parameters, may change. All latent sites must be continuous
 * and always the same; each is mapped from the reals onto its support (biject_to), and the logarithm of the map's
 * Jacobian is part of the value:  log p(x(u), data) + log |dx/du|. */
#ifndef PPL_DENSITY_H
#define PPL_DENSITY_H

#include "ppl/call.h"
#include "ppl/message.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ppl_density ppl_density;

/* NULL after an error. End with ppl_density_free, before the context ends. */
AD_API ppl_density *ppl_density_new_args(ppl_function model, ppl_signature types, int n, const ppl_arg *args);
AD_API void ppl_density_free(ppl_density *d);

AD_API int64_t ppl_density_size(ppl_density *d); /* elements of the vector: sites in order of the model */
/* Where a site's part begins and how many elements it has; false when there is no such latent site. */
AD_API bool ppl_density_part(ppl_density *d, const char *site, int64_t *start, int64_t *size);
/* The value at u; NAN, with an error, only when the evaluation itself failed (a value may be -inf). gradient (n) may be
 * NULL. */
AD_API double ppl_density_value(ppl_density *d, const double *u, double *gradient);
/* Second derivatives at u, (n, n) row-major. Made for small n: the program grows with it. */
AD_API bool ppl_density_hessian(ppl_density *d, const double *u, double *out);
/* The constrained value of a site at u, n elements. */
AD_API bool ppl_density_constrained(ppl_density *d, const double *u, const char *site, double *out, int64_t n);

#ifdef __cplusplus
}
#else
#define PPL_DENSITY_NEW_(s, n, args) ppl_density_new_args((ppl_function)ppl_model_, s, n, args)
#define ppl_density_new(model, ...)                                                                                    \
    __extension__({                                                                                                    \
        __auto_type ppl_model_ = (model);                                                                              \
        __auto_type ppl_guide_ = ppl_model_;                                                                           \
        (void)ppl_guide_;                                                                                              \
        AD_HERE;                                                                                                       \
        PPL_CALL_(PPL_DENSITY_NEW_, __VA_ARGS__);                                                                      \
    })
#endif
#endif
