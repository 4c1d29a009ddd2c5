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

/* What this handler drew, in the step's bytes. A message carries it, so that it is found under whatever name an outer
 * scope or intervention has given the site. */
typedef struct drawn {
    struct drawn *next;
    int32_t id; /* the parameter's name */
    ad_tensor *value;
} drawn;

static drawn *earlier(const ppl_handler *h, int32_t id)
{
    for (drawn *d = h->memory; d; d = d->next)
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
        drawn *d = earlier(h, m->id);
        h->word |= bit_of(h, p);
        if (!p->fn) {
            ad_fail(AD_ERROR_ARGUMENT, NULL, "ppl_lift: the prior of parameter \"%s\" is NULL", m->name);
            return;
        }
        m->type = PPL_SAMPLE;
        m->fn = p->fn;
        m->lifted = NULL;
        if (d) {
            m->value = d->value;
            m->done = m->stop = true;
        } else if ((d = ad__step_bytes(ad__current(), sizeof *d))) {
            *d = (drawn){ .next = h->memory, .id = m->id };
            m->lifted = h->memory = d;
        }
        return;
    }
}

/* The last value that comes back is the program's: behind the site's own that is an intervention's. */
static void postprocess(ppl_handler *h, ppl_message *m)
{
    if (m->type != PPL_SAMPLE || !m->lifted)
        return;
    for (drawn *d = h->memory; d; d = d->next)
        if (d == m->lifted)
            d->value = m->value;
}

ppl_handler ppl_lift_handler(const ppl_prior *priors)
{
    return (
        ppl_handler){ .process = process, .postprocess = postprocess, .enter = enter, .exit = leave, .user = priors };
}
