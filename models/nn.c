/* Layers of neural networks over ppl_param. Called by models inside a step or scope. */
#include "models/nn.h"

#include "autodiff/context.h"

#include <math.h>
#include <stdio.h>

enum { NAME = 256 };

/* "<name>.<part>" into out; false, with the error, when it is too long. */
static bool compose(char *out, const char *name, const char *part)
{
    if (name && snprintf(out, NAME, "%s.%s", name, part) < NAME) return true;
    ad_fail(AD_ERROR_ARGUMENT, NULL, name ? "the name of a layer is longer than %d characters" : "a layer has no name",
            NAME - 16);
    return false;
}

/* x (B..., D) -> (B..., H) */
static ad_tensor *linear(const char *name, ad_tensor *x, int64_t out, bool bias)
{
    char weight_name[NAME], bias_name[NAME];
    ad_context *c = ad__current();
    if (!c || !ad__ok(c) || !compose(weight_name, name, "weight") || !compose(bias_name, name, "bias")) return AD_NIL;
    ppl_source at = { c->file, c->line };
    if (ad_rank(x) < 1 || out < 1) {
        ad_shape s = ad_shape_of(x);
        ad_fail(AD_ERROR_SHAPE, "x needs a last dimension of features, and the layer at least one output",
                "layer \"%s\": x has shape %s, %lld outputs are asked for", name, ad__shape_text(c, &s),
                (long long)out);
        return AD_NIL;
    }
    int64_t in = ad_dim(x, -1);
    double bound = in > 0 ? 1 / sqrt((double)in) : 0;
    ppl_param_args w = {
        .name = weight_name, .shape = AD_SHAPE(out, in), .init = ppl_uniform(-bound, bound), .at_ = at
    };
    ppl_param_args b = { .name = bias_name, .shape = AD_SHAPE(out), .init = ppl_uniform(-bound, bound), .at_ = at };
    ad_tensor *weight = ppl_param_site(&w);
    return ad_linear(x, weight, bias ? ppl_param_site(&b) : NULL);
}

ad_tensor *(nn_linear)(const char *name, ad_tensor *x, int64_t out) { return linear(name, x, out, true); }
ad_tensor *(nn_linear_unbiased)(const char *name, ad_tensor *x, int64_t out) { return linear(name, x, out, false); }

ad_tensor *nn_mlp_widths(const char *name, ad_tensor *x, nn_activation *activation, const int64_t *widths, int n)
{
    for (int i = 0; i < n; i++) {
        char number[12], layer[NAME];
        snprintf(number, sizeof number, "%d", i);
        if (!compose(layer, name, number)) return AD_NIL;
        x = linear(layer, x, widths[i], true);
        if (i + 1 < n) x = activation(x);
    }
    return x;
}
