/* The scale handler: multiplies the weight of every message. Called through ppl_with. */
#include <math.h>

#include "ppl/state.h"

static void process(ppl_handler *h, ppl_message *m)
{
    m->scale *= h->number;
}

ppl_handler ppl_scale(double factor)
{
    if (!(factor >= 0) || !isfinite(factor)) {
        ad_fail(AD_ERROR_ARGUMENT, NULL, "ppl_scale: the factor is %g, and must be finite and not negative", factor);
        factor = 1;
    }
    return (ppl_handler){ .process = process, .number = factor };
}
