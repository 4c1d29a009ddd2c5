/* The lift handler: parameters become latent sample sites with priors. Called through ppl_with.
 * Meaning: Pyro's poutine/lift_messenger.py. A second use of a parameter in the same run gets the first one's value and
 * is not seen outside. */
#include <string.h>

#include "ppl/state.h"

static void enter(ppl_handler *h)
{
    h->memory = NULL;
    h->word = 0;
}

/* What this handler drew, in the step's bytes. */
typedef struct drawn {
    struct drawn *next;
    int32_t id;
    ad_tensor *value;
} drawn;

static const drawn *earlier(const ppl_handler *h, int32_t id)
{
    for (const drawn *d = h->memory; d; d = d->next)
        if (d->id == id)
            return d;
    return NULL;
}

/* Of each prior a bit: its parameter was met. Those beyond the word share the last one. */
static uint64_t bit_of(const ppl_handler *h, const ppl_prior *p)
{
    ptrdiff_t i = p - (const ppl_prior *)h->user;
    return (uint64_t)1 << (i < 63 ? i : 63);
}

/* A prior whose parameter never came has changed nothing, and is most likely misspelt. */
static void leave(ppl_handler *h)
{
    ad_context *c = ad__current();
    for (const ppl_prior *p = h->user; p->name && ad__ok(c); p++)
        if (!(h->word & bit_of(h, p)))
            ad__fail(c, AD_ERROR_SITE, "names are whole: \"module$$$weight\"",
                     "ppl_lift: no parameter \"%s\" was met in its block", p->name);
    h->memory = NULL;
}

static void process(ppl_handler *h, ppl_message *m)
{
    if (m->type != PPL_PARAM)
        return;
    for (const ppl_prior *p = h->user; p->name; p++) {
        if (strcmp(p->name, m->name))
            continue;
        const drawn *d = earlier(h, m->id);
        h->word |= bit_of(h, p);
        if (!p->fn) {
            ad_fail(AD_ERROR_ARGUMENT, NULL, "ppl_lift: the prior of parameter \"%s\" is NULL", m->name);
            return;
        }
        m->type = PPL_SAMPLE;
        m->fn = p->fn;
        m->param = NULL;
        if (d) {
            m->value = d->value;
            m->done = m->stop = true;
        }
        return;
    }
}

static void postprocess(ppl_handler *h, ppl_message *m)
{
    ad_context *c = ad__current();
    bool ours = false;
    for (const ppl_prior *p = h->user; p->name && !ours; p++)
        ours = !strcmp(p->name, m->name);
    if (!ours || m->type != PPL_SAMPLE || !m->value || earlier(h, m->id))
        return;
    drawn *d = ad__step_bytes(c, sizeof *d);
    if (!d)
        return;
    *d = (drawn){ .next = h->memory, .id = m->id, .value = m->value };
    h->memory = d;
}

ppl_handler ppl_lift_handler(const ppl_prior *priors)
{
    return (
        ppl_handler){ .process = process, .postprocess = postprocess, .enter = enter, .exit = leave, .user = priors };
}
