/* The variational autoencoder: a ready model and guide (Kingma and Welling, "Auto-Encoding Variational Bayes", 2013).
 *
 * An image x of D pixels is explained by Z hidden numbers z. With theta the parameters of the decoder and phi those of
 * the encoder,
 *
 *   prior       p(z)           = N(z; 0, I)
 *   decoder     p_theta(x | z) = product over pixels of Bernoulli(x_i; mu_i),   mu = sigmoid(fc21(softplus(fc1(z))))
 *   encoder     q_phi(z | x)   = N(z; loc, diag(scale^2)),   h = softplus(fc1(x)), loc = fc21(h), scale = exp(fc22(h))
 *
 * exp(fc22) is the standard deviation, not the variance. Since log p(x) does not depend on z,
 *
 *   log p_theta(x) = E_q[log p(x, z) - log q(z | x)] + KL(q(z | x) || p(z | x))  >=  ELBO
 *   ELBO           = E_q[log p(x, z) - log q(z | x)]
 *                  = E_q[log p(x | z)] - KL(q(z | x) || p(z)),
 *
 * the KL divergence from the encoder to the exact posterior being nonnegative. Raising the ELBO in theta makes the
 * images likely, in phi brings q near the posterior. svi_step lowers the loss -ELBO, summed over the images of the
 * minibatch, by one draw z = loc + scale eps, eps ~ N(0, I), through which gradients reach phi.
 *
 * Sites: "latent" (B, Z) and "obs" (B, D) in plate "data" (B images); modules "encoder" and "decoder", so that the
 * parameters are encoder$$$fc1.weight (H, D), encoder$$$fc21.weight (Z, H), ..., decoder$$$fc21.weight (D, H).
 * Gray pixels are welcome: the log density is linear in x (see dist_bernoulli). */
#ifndef MODELS_VAE_H
#define MODELS_VAE_H

#include "ppl/ppl.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Zero takes the default: 784 pixels, 400 hidden units, 50 latent numbers. */
typedef struct vae {
    int64_t pixels, hidden, z_dim;
} vae;

/* p(z) p(x | z), x (B, D) in [0, 1] */
AD_API void vae_model(vae *v, ad_tensor *x);
/* q(z | x) */
AD_API void vae_guide(vae *v, ad_tensor *x);

/* z (B, Z) -> pixel means (B, D), in module "decoder" */
AD_API ad_tensor *vae_decode(vae *v, ad_tensor *z);
/* x (B, D) -> q(z | x): batch shape (B), event shape (Z), in module "encoder" */
AD_API distribution *vae_encode(vae *v, ad_tensor *x);

#ifdef __cplusplus
}
#endif
#endif
