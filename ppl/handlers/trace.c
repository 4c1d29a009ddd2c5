/* The trace handler: records every message that reaches it, on the way back. Called through ppl_with. */
#include "ppl/state.h"

static void enter(ppl_handler *h)
{
    trace *t = (trace *)h->user;
    *t = (trace){ .n = 0 };
}

static void postprocess(ppl_handler *h, ppl_message *m)
{
    ad_context *c = ad__current();
    if (m->type != PPL_SELECT && ad__ok(c))
        ppl__trace_add(c, (trace *)h->user, m);
}

ppl_handler ppl__record(trace *t)
{
    return (ppl_handler){ .enter = enter, .postprocess = postprocess, .user = t };
}

ppl_handler ppl_record(ppl_trace *handle)
{
    trace *t = ppl__trace_of(ad__current(), handle);
    return t ? ppl__record(t) : (ppl_handler){ .user = NULL };
}
