/* The seed handler: what is drawn inside comes from its seed, from the beginning, and what is drawn afterwards is what
 * it would have been without. Like Pyro's it handles no message. Called through ppl_with. */
#include "ppl/state.h"

static void enter(ppl_handler *h)
{
    ad_context *c = ad__current();
    ppl_state *st = ppl__state(c);
    if (!st || !ad__reserve(c, &st->seedings, &st->cap_seedings, st->seeded + 1, sizeof *st->seedings))
        return;
    st->seedings[st->seeded++] = (put_aside){ .seeding = c->seeding, .depth = st->depth - 1 };
    ad__seed(c, h->word);
}

void ppl__seeded_end(ad_context *c, ppl_state *st, int64_t depth)
{
    while (st->seeded && st->seedings[st->seeded - 1].depth >= depth)
        c->seeding = st->seedings[--st->seeded].seeding;
}

static void leave(ppl_handler *h)
{
    (void)h;
    ad_context *c = ad__current();
    ppl__seeded_end(c, ppl__state(c), ppl__state(c)->depth);
}

ppl_handler ppl_seeded(uint64_t seed)
{
    return (ppl_handler){ .enter = enter, .exit = leave, .word = seed };
}
