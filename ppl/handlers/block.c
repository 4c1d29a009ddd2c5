/* The block handler: stops messages, so that handlers outside never see them. Called through ppl_with.
 * Meaning: Pyro's poutine/block_messenger.py. */
#include <string.h>

#include "ppl/state.h"

static bool listed(const char *const *names, const char *name)
{
    for (; names && *names; names++)
        if (!strcmp(*names, name))
            return true;
    return false;
}

static void process(ppl_handler *h, ppl_message *m)
{
    const ppl_block_args *a = h->user;
    bool observed = m->type == PPL_SAMPLE && m->is_observed;
    bool hides = a->hide || a->hide_types || a->hide_observed || a->hide_if;
    bool exposes = a->expose || a->expose_types || a->expose_observed;
    bool stop = exposes || !hides; /* what is neither hidden nor exposed by name */
    if (listed(a->expose, m->name) || (a->expose_types & PPL_TYPE(m->type)) || (a->expose_observed && observed))
        stop = false;
    if (listed(a->hide, m->name) || (a->hide_types & PPL_TYPE(m->type)) || (a->hide_observed && observed))
        stop = true;
    if (a->hide_if && a->hide_if(m, a->user))
        stop = true;
    m->stop = stop;
}

ppl_handler ppl_block_handler(const ppl_block_args *args)
{
    for (const char *const *name = args->hide; name && *name; name++)
        if (listed(args->expose, *name))
            ad_fail(AD_ERROR_ARGUMENT, NULL, "ppl_block: \"%s\" is both hidden and exposed", *name);
    if (args->hide_types & args->expose_types || (args->hide_observed && args->expose_observed))
        ad_fail(AD_ERROR_ARGUMENT, NULL, "ppl_block: the same sites are both hidden and exposed by their type");
    return (ppl_handler){ .process = process, .user = args };
}
