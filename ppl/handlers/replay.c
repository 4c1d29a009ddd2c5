/* The replay handler: latent sites, and plates' indices, take their values from a trace. Called through ppl_with.
 * Meaning: Pyro's poutine/replay_messenger.py. */
#include "ppl/state.h"

static void process(ppl_handler *h, ppl_message *m)
{
    ad_context *c = ad__current();
    if ((m->type != PPL_SAMPLE && m->type != PPL_SUBSAMPLE) || m->is_observed || !ad__ok(c))
        return;
    const site *s = ppl__trace_find(h->user, m->id);
    if (!s)
        return;
    if (s->m.type != m->type || s->m.is_observed) {
        ad__fail(c, AD_ERROR_SITE, "give the guide's site another name, or observe it in the model alone",
                 "site \"%s\" must be sampled in trace", m->name);
        return;
    }
    m->value = s->m.value;
    m->infer = s->m.infer;
    m->done = true;
}

ppl_handler ppl__replay(const trace *t)
{
    return (ppl_handler){ .process = process, .user = t };
}

ppl_handler ppl_replay(ppl_trace *handle)
{
    trace *t = ppl__trace_of(ad__current(), handle);
    return t ? ppl__replay(t) : (ppl_handler){ .user = NULL };
}
