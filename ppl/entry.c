/* Entries; see entry.h. */
#include "ppl/entry.h"

static void save(ppl_entry *e, ad_context *c, ppl_state *st)
{
    e->context = c;
    e->tape = c->tape;
    e->frame = c->frame;
    e->file = c->file;
    e->line = c->line;
    e->busy = c->busy;
    e->depth = st->depth;
    e->prefix_length = st->prefix_length;
    e->run = st->run;
    e->particle = st->particle;
    e->calls = st->calls;
    e->user = st->user;
    e->in_step = st->in_step;
    e->call = NULL;
    e->object = NULL;
}

/* Everything as the entry found it. What still points to frames that are gone is dropped unseen. */
static void roll_back(ppl_entry *e)
{
    ad_context *c = e->context;
    ppl_state *st = ppl__state(c);
    ppl__plates_close(st, e->depth);
    st->depth = e->depth;
    ppl__seeded_end(c, st, e->depth);
    st->prefix_length = e->prefix_length;
    while (c->tape != e->tape)
        ad__tape_close(c);
    if (st->prefix)
        st->prefix[st->prefix_length] = '\0';
    st->run = e->run;
    st->particle = e->particle;
    st->calls = e->calls;
    st->user = e->user;
    st->in_step = e->in_step;
    ppl__params_settle(c, st, false);
    ppl__call_free(c, e->call);
    ad__owned_free(e->object, "");
    c->frame = e->frame;
    c->file = e->file;
    c->line = e->line;
}

void ppl__recover(ad_context *c, const void *here)
{
    ppl_state *st = c->client;
    if (!st || !st->user || (uintptr_t)here <= (uintptr_t)st->user)
        return;
    roll_back(&st->outermost);
    st->user = NULL;
    c->busy = st->outermost.busy;
    for (owned *o = c->owned; o && !c->busy; o = o->next)
        o->busy = 0;
}

ad_context *ppl__entry_begin(ppl_entry *e, void *object, const char *call, bool outermost)
{
    owned *o = object;
    ad_context *at = o ? o->context : ad__current();
    if (at)
        ppl__recover(at, __builtin_frame_address(0));
    ad_context *c = o ? ad__use_begin(&e->use, o, call) : at;
    ppl_state *st = c ? ppl__state(c) : NULL;
    if (!st || (outermost && ppl__refuse_inside(c, st, call))) {
        ad__use_end(&e->use);
        return NULL;
    }
    save(e, c, st);
    if (!st->user)
        st->outermost = *e;
    return c;
}

void ppl__entry_holds(ppl_entry *e, struct ppl_call *call, void *object)
{
    ppl_state *st = ppl__state(e->context);
    e->call = call;
    e->object = object;
    if (!st->user) {
        st->outermost.call = call;
        st->outermost.object = object;
    }
}

void ppl__entry_end(ppl_entry *e)
{
    ad_context *c = e->context;
    if (!c)
        return;
    ppl__state(c)->in_step = e->in_step;
    c->file = e->file;
    c->line = e->line;
    e->context = NULL;
    ad__use_end(&e->use);
}

void ppl__entry_leave(ppl_entry *e)
{
    if (!e->context)
        return;
    roll_back(e);
    e->context = NULL;
    ad__use_end(&e->use);
}
