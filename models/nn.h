/* Layers of neural networks, as functions of names: a layer's parameters are made at its first visit and live in the
 * parameter store under the module they are called in. Names and initial values are PyTorch's.
 *
 *     ppl_module ("encoder") {
 *         ad_tensor *h = ad_softplus(nn_linear("fc1", x, 400));       encoder$$$fc1.weight, encoder$$$fc1.bias
 *         loc = nn_linear("fc21", h, 50);
 *     }
 *
 * Call them where ppl_param may be called. Shapes: B... any leading dimensions, D in, H out. */
#ifndef MODELS_NN_H
#define MODELS_NN_H

#include "ppl/ppl.h"

#ifdef __cplusplus
extern "C" {
#endif

/* x (B..., D) -> x W^T + b (B..., H), with the parameters <name>.weight (H, D) and <name>.bias (H), both at first
 * uniform in (-1/sqrt(D), 1/sqrt(D)), as torch.nn.Linear has them. */
AD_API ad_tensor *nn_linear(const char *name, ad_tensor *x, int64_t out_features);
/* The same without a bias. */
AD_API ad_tensor *nn_linear_unbiased(const char *name, ad_tensor *x, int64_t out_features);

typedef ad_tensor *nn_activation(ad_tensor *x); /* ad_softplus, ad_relu, ad_tanh, ... or one of yours */

/* A chain of n linear layers <name>.0, <name>.1, ... of the given widths, with the activation between them and none
 * after the last: x (B..., D) -> (B..., widths[n - 1]). In C: nn_mlp("net", x, ad_relu, 400, 400, 10). */
AD_API ad_tensor *nn_mlp_widths(const char *name, ad_tensor *x, nn_activation *activation, const int64_t *widths,
                                int n);

#ifdef __cplusplus
}
#else
#define nn_linear(name, x, out_features) (AD_HERE, (nn_linear)((name), (x), (out_features)))
#define nn_linear_unbiased(name, x, out_features) (AD_HERE, (nn_linear_unbiased)((name), (x), (out_features)))
#define nn_mlp(name, x, activation, ...)                                                                               \
    (AD_HERE, nn_mlp_widths((name), (x), (activation), (const int64_t[]){ __VA_ARGS__ },                               \
                            (int)(sizeof((const int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t))))
#endif
#endif
