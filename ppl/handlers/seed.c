/* The seed handler: what is drawn inside comes from its seed, from the beginning, and what is drawn afterwards is what
 * it would have been without. Like Pyro's it handles no message. Called through ppl_with. */
#include "ppl/state.h"

static void enter(ppl_handler *h)
{
    ad_context *c = ad__current();
    ppl_state *st = ppl__state(c);
    h->number = -1;
    if (!st || !ad__reserve(c, &st->seedings, &st->cap_seedings, st->seeded + 1, sizeof *st->seedings))
        return;
    h->number = (double)st->seeded;
    st->seedings[st->seeded++] = c->seeding;
    ad__seed(c, h->word);
}

void ppl__seeded_end(ad_context *c, ppl_state *st, int64_t depth)
{
    if (st->seeded <= depth)
        return;
    c->seeding = st->seedings[depth];
    st->seeded = depth;
}

static void leave(ppl_handler *h)
{
    ad_context *c = ad__current();
    if (h->number >= 0)
        ppl__seeded_end(c, ppl__state(c), (int64_t)h->number);
}

ppl_handler ppl_seeded(uint64_t seed)
{
    return (ppl_handler){ .enter = enter, .exit = leave, .word = seed };
}
