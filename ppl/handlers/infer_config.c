/* The infer_config handler: changes the hints of every sample site. Called through ppl_with. */
#include "ppl/state.h"

static void process(ppl_handler *h, ppl_message *m)
{
    if (m->type == PPL_SAMPLE && h->change)
        h->change(m, &m->infer);
}

ppl_handler ppl_infer_config(void (*change)(const ppl_message *m, ppl_infer *infer))
{
    return (ppl_handler){ .process = process, .change = change };
}
