/* The smallest whole program: what is the mean of these numbers, and how sure are we? Run it without arguments. */
#include "ppl/ppl.h"

#include <stdio.h>

static void model(ad_tensor *x) /* x (N) */
{
    ad_tensor *mean = ppl_sample("mean", dist_normal(0, 10));
    ppl_plate ("data", ad_dim(x, 0)) ppl_sample("x", dist_normal(mean, 1), .obs = x);
}

static void guide(ad_tensor *x)
{
    (void)x;
    ad_tensor *loc = ppl_param("loc", AD_SCALAR);
    ad_tensor *scale = ppl_param("scale", AD_SCALAR, .init = ppl_constant(1), .constraint = dist_positive());
    ppl_sample("mean", dist_normal(loc, scale));
}

int main(void)
{
    ad_tensor *x = ad_from(((double[]){ 4.1, 5.3, 3.9, 4.7, 5.0 }), AD_SHAPE(5));
    svi *s = svi_new(model, guide, .args = PPL_ARGS(ad_tensor *), .optim = optim_adam(.lr = 0.005));
    for (int step = 0; step < 4000; step++) svi_step(s, x);

    double loc, scale;
    if (!ppl_param_value("loc", &loc, 1) || !ppl_param_value("scale", &scale, 1)) {
        fprintf(stderr, "%s\n%s\n", s ? svi_error(s) : "", ad_error());
        return 1;
    }
    printf("mean = %.2f +- %.2f (exactly 4.59 +- 0.45)\n", loc, scale);
    svi_free(s);
    ad_free(x);
    return 0;
}
