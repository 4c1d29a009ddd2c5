/* The variational autoencoder; vae.h derives it. Its functions are run by svi_step, and by programs inside an
 * ad_scope. */
#include "models/vae.h"

#include "models/nn.h"

static int64_t or(int64_t n, int64_t standard) { return n > 0 ? n : standard; }

ad_tensor *vae_decode(vae *v, ad_tensor *z)
{
    ad_tensor *pixels = z;
    ppl_module ("decoder") {
        ad_tensor *h = ad_softplus(nn_linear("fc1", z, or(v->hidden, 400)));
        pixels = ad_sigmoid(nn_linear("fc21", h, or(v->pixels, 784)));
    }
    return pixels;
}

distribution *vae_encode(vae *v, ad_tensor *x)
{
    ad_tensor *loc = x, *scale = x;
    ppl_module ("encoder") {
        ad_tensor *h = ad_softplus(nn_linear("fc1", x, or(v->hidden, 400)));
        loc = nn_linear("fc21", h, or(v->z_dim, 50));
        scale = ad_exp(nn_linear("fc22", h, or(v->z_dim, 50)));
    }
    return dist_to_event(dist_normal(loc, scale), 1);
}

void vae_model(vae *v, ad_tensor *x)
{
    int64_t n = ad_dim(x, 0);
    ppl_plate ("data", n) {
        distribution *prior = dist_normal(ad_zeros(n, or(v->z_dim, 50)), 1.0);
        ad_tensor *z = ppl_sample("latent", dist_to_event(prior, 1));
        ppl_sample("obs", dist_to_event(dist_bernoulli(vae_decode(v, z)), 1), .obs = x);
    }
}

void vae_guide(vae *v, ad_tensor *x)
{
    ppl_plate ("data", ad_dim(x, 0)) ppl_sample("latent", vae_encode(v, x));
}
