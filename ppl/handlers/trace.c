/* The trace handler: records every message that reaches it, on the way back. Called through ppl_with. */
#include "ppl/state.h"

/* What is recorded is a run of its own; the one around goes on behind it. */
static void enter(ppl_handler *h)
{
    ppl_state *st = ppl__state(ad__current());
    trace *t = (trace *)h->user;
    *t = (trace){ .n = 0 };
    h->word = st->run;
    st->run = ++st->last_run;
}

static void leave(ppl_handler *h)
{
    ppl__state(ad__current())->run = (uint32_t)h->word;
}

static void postprocess(ppl_handler *h, ppl_message *m)
{
    ad_context *c = ad__current();
    if (m->type != PPL_SELECT && ad__ok(c))
        ppl__trace_add(c, (trace *)h->user, m);
}

ppl_handler ppl__record(trace *t)
{
    return (ppl_handler){ .enter = enter, .exit = leave, .postprocess = postprocess, .user = t };
}

ppl_handler ppl_record(ppl_trace *handle)
{
    trace *t = ppl__trace_of(ad__current(), handle);
    return t ? ppl__record(t) : (ppl_handler){ .user = NULL };
}
