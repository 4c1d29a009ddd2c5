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

/* NULL after an error. End with ppl_density_free, before or after the context's end. */
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
#define ppl_density_new(...) AD_CAT_(PPL_DENSITY_NEW_, AD_COMMA_(__VA_ARGS__))(__VA_ARGS__)
#define PPL_DENSITY_NEW_0(model) PPL_DENSITY_NEW_1(model, PPL_ARGS())
#define PPL_DENSITY_NEW_1(model, ...)                                                                                  \
    __extension__({                                                                                                    \
        PPL_MODEL_AND_GUIDE_(model, NULL);                                                                             \
        AD_HERE;                                                                                                       \
        PPL_CALL_(PPL_DENSITY_NEW_, __VA_ARGS__);                                                                      \
    })
#define ppl_density_value(d, u, gradient)                                                                              \
    __extension__({                                                                                                    \
        ppl_density *ppl_d_ = (d);                                                                                     \
        int64_t ppl_n_ = ppl_density_size(ppl_d_);                                                                     \
        AD_HERE;                                                                                                       \
        AD_HOLDS_(u, ppl_n_, "ppl_density_value: the vector has") &&                                                   \
                ad_holds(AD_ARRAY_BYTES_(gradient) / (int64_t)sizeof(double), ppl_n_,                                  \
                         "ppl_density_value: the gradient has")                                                        \
            ? (ppl_density_value)(ppl_d_, (u), (gradient))                                                             \
            : (double)__builtin_nan("");                                                                               \
    })
#define ppl_density_hessian(d, u, out)                                                                                 \
    __extension__({                                                                                                    \
        ppl_density *ppl_d_ = (d);                                                                                     \
        int64_t ppl_n_ = ppl_density_size(ppl_d_);                                                                     \
        AD_HERE;                                                                                                       \
        AD_HOLDS_(u, ppl_n_, "ppl_density_hessian: the vector has") &&                                                 \
            AD_HOLDS_(out, ppl_n_ *ppl_n_, "ppl_density_hessian: the derivatives have") &&                             \
            (ppl_density_hessian)(ppl_d_, (u), (out));                                                                 \
    })
#define ppl_density_constrained(d, u, site, out, n)                                                                    \
    __extension__({                                                                                                    \
        ppl_density *ppl_d_ = (d);                                                                                     \
        int64_t ppl_n_ = AD_WHOLE_(n);                                                                                 \
        AD_HERE;                                                                                                       \
        AD_HOLDS_(u, ppl_density_size(ppl_d_), "ppl_density_constrained: the vector has") &&                           \
            AD_HOLDS_(out, ppl_n_, "ppl_density_constrained is asked for") &&                                          \
            (ppl_density_constrained)(ppl_d_, (u), (site), (out), ppl_n_);                                             \
    })
#endif
#endif
