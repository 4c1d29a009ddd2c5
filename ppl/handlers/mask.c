/* The mask handler: log-densities count only where the mask is not 0. Called through ppl_with. */
#include "ppl/state.h"

static void process(ppl_handler *h, ppl_message *m)
{
    m->mask = m->mask ? ad_mul(ad_ne(m->mask, 0), ad_ne(h->tensor, 0)) : h->tensor;
}

ppl_handler ppl_mask(ad_tensor *mask)
{
    return (ppl_handler){ .process = mask ? process : NULL, .tensor = mask };
}
