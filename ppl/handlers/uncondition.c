/* The uncondition handler: observed sites become latent and are drawn. Called through ppl_with.
 * Meaning: Pyro's poutine/uncondition_messenger.py. */
#include <string.h>

#include "ppl/state.h"

static bool wanted(const char *const *names, const char *name)
{
    if (!names || !*names)
        return true;
    for (; *names; names++)
        if (!strcmp(*names, name))
            return true;
    return false;
}

static void process(ppl_handler *h, ppl_message *m)
{
    if (m->type != PPL_SAMPLE || !m->is_observed || m->infer.deterministic || !wanted(h->user, m->name))
        return;
    m->is_observed = false;
    m->infer.was_observed = true;
    m->value = NULL;
    m->done = false;
}

ppl_handler ppl_uncondition_handler(const char *const *names)
{
    return (ppl_handler){ .process = process, .user = names };
}
