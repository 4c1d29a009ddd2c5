/* The replay handler: latent sites, and plates' indices, take their values from a trace. Called through ppl_with.
 * Meaning: Pyro's poutine/replay_messenger.py. */
#include "ppl/state.h"

/* A plate has the members of the trace's: those of the guide's, where it says none of its own. Members that were taken
 * elsewhere cannot be compared: there the sizes must agree. */
static void replay_plate(ad_context *c, ppl_message *m, const ppl_message *before)
{
    const ppl_frame *here = m->plate, *there = before->plate;
    bool drawn = before->value && !before->is_observed;
    if (here->full_size < 0 || there->full_size < 0) /* of any size: no members to agree on */
        return;
    if (here->full_size != there->full_size) {
        ad__fail(c, AD_ERROR_SHAPE, NULL, "plate \"%s\" has %lld members; in the trace that is replayed it has %lld",
                 m->name, (long long)here->full_size, (long long)there->full_size);
    } else if (m->is_observed) {
        if (drawn && m->value != before->value)
            ad__fail(c, AD_ERROR_SITE, "leave .subsample out here, or give it in both",
                     "plate \"%s\" has a .subsample of its own, and other members in the trace that is replayed",
                     m->name);
        else if (before->value && here->size != there->size)
            ad__fail(c, AD_ERROR_SHAPE, NULL, "plate \"%s\" takes %lld members; in the trace that is replayed %lld",
                     m->name, (long long)here->size, (long long)there->size);
    } else if (before->value ? m->done : here->size != there->size || (!m->done && here->size < here->full_size)) {
        ad__fail(c, AD_ERROR_SHAPE, "model and guide must subsample a plate alike",
                 "plate \"%s\" takes %lld of %lld members%s; in the trace that is replayed %lld%s", m->name,
                 (long long)here->size, (long long)here->full_size, m->done ? " by .full_size" : "",
                 (long long)there->size, !before->value && there->size < there->full_size ? " by .full_size" : "");
    } else {
        m->value = before->value;
        m->done = true;
    }
}

static void process(ppl_handler *h, ppl_message *m)
{
    ad_context *c = ad__current();
    if ((m->type != PPL_SAMPLE && m->type != PPL_SUBSAMPLE) || (m->is_observed && m->type == PPL_SAMPLE) || !ad__ok(c))
        return;
    const site *s = ppl__trace_find(h->user, m->id);
    if (!s)
        return;
    if (m->type == PPL_SUBSAMPLE && s->m.type == PPL_SUBSAMPLE) {
        replay_plate(c, m, &s->m);
        return;
    }
    if (s->m.type != m->type || s->m.is_observed) {
        ad__fail(c, AD_ERROR_SITE,
                 s->m.type != m->type        ? "give the guide's parameter or plate another name"
                 : s->m.infer.deterministic ? "the guide has a deterministic site of this name: give it another one"
                                            : "give the guide's site another name, or observe it in the model alone",
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
