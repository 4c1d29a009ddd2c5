/* The seed handler: steps and evaluations inside draw from its seed, from the beginning, and leave the streams of their
 * instances where they were. Like Pyro's it handles no message. Called through ppl_with. */
#include "ppl/state.h"

static void enter(ppl_handler *h)
{
    ad_context *c = ad__current();
    uint64_t seed = c->seed;
    c->seed = h->word;
    h->word = seed;
    ppl__state(c)->seeded++;
}

static void leave(ppl_handler *h)
{
    ad_context *c = ad__current();
    uint64_t seed = c->seed;
    c->seed = h->word;
    h->word = seed;
    ppl__state(c)->seeded--;
}

ppl_handler ppl_seeded(uint64_t seed)
{
    return (ppl_handler){ .enter = enter, .exit = leave, .word = seed };
}
