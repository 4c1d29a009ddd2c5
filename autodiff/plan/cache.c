/* The cache of plans: finding the plan of a tape, making one, and which one goes. Called by run.c. */
#include <string.h>

#include "autodiff/backend.h"
#include "autodiff/plan/plan.h"

/* ---- finding ------------------------------------------------------------------------------------------------------
 */

static bool same_program(const plan *p, const tape *t)
{
    return p->layout == t->layout && p->key_nodes == t->n && p->key_inputs == t->n_inputs &&
           p->key_attrs == t->n_attrs && !memcmp(p->node, t->node, (size_t)t->n * sizeof *t->node) &&
           !memcmp(p->key_input, t->input, (size_t)t->n_inputs * sizeof *t->input) &&
           !memcmp(p->attr, t->attr, (size_t)t->n_attrs * sizeof *t->attr);
}

/* Four lanes, since each multiplication waits for the one before it in its lane. */
static uint64_t hash_words(uint64_t h, const void *data, size_t bytes)
{
    const char *from = data;
    uint64_t lane[4] = { h, h + 1, h + 2, h + 3 }, w[4];
    for (; bytes >= sizeof w; from += sizeof w, bytes -= sizeof w) {
        memcpy(w, from, sizeof w);
        for (int i = 0; i < 4; i++) {
            lane[i] = (lane[i] ^ w[i]) * 0x9e3779b97f4a7c15u;
            lane[i] ^= lane[i] >> 32;
        }
    }
    memset(w, 0, sizeof w);
    if (bytes)
        memcpy(w, from, bytes);
    for (int i = 0; i < 4; i++)
        h = ad__mix(h ^ lane[i] ^ w[i]);
    return h;
}

uint64_t ad__tape_hash(const tape *t)
{
    uint64_t h = hash_words((uint64_t)t->n, t->node, (size_t)t->n * sizeof *t->node);
    h = hash_words(h, t->input, (size_t)t->n_inputs * sizeof *t->input);
    return hash_words(h, t->attr, (size_t)t->n_attrs * sizeof *t->attr);
}

static plan *found(ad_context *c, plan *p)
{
    c->in_vain -= !p->again && c->in_vain > 0;
    p->again = true;
    return p;
}

/* The plan of the tape, moved to the front; NULL when it has none. */
static plan *find(ad_context *c, const tape *t, uint64_t *hash)
{
    if (c->n_plans && same_program(c->plans[0], t))
        return found(c, c->plans[0]);
    *hash = ad__tape_hash(t);
    for (int64_t i = 1; i < c->n_plans; i++) {
        plan *p = c->plans[i];
        if (p->hash != *hash || !same_program(p, t))
            continue;
        memmove(c->plans + 1, c->plans, (size_t)i * sizeof *c->plans);
        return c->plans[0] = found(c, p);
    }
    return NULL;
}

/* ---- making and forgetting ----------------------------------------------------------------------------------------
 */

/* Where a program stands among those that were interpreted when they were met; NULL: nowhere. */
static uint64_t *sighting(ad_context *c, uint64_t hash)
{
    for (size_t i = 0; i < sizeof c->seen / sizeof *c->seen; i++)
        if (c->seen[i] == hash)
            return &c->seen[i];
    return NULL;
}

/* Notes such a program. There is room for as many as the cache holds by default: one that comes again later than that
 * would not be found there either. */
static void note_sighting(ad_context *c, uint64_t hash)
{
    uint64_t *place = &c->seen[c->next_seen++ % (sizeof c->seen / sizeof *c->seen)];
    c->counters.evictions += *place != 0;
    *place = hash;
}

/* The plan that goes next: the least recent one, but those that were never found again first while they are many.
 * Programs that pass do not drive out those that return. */
static int64_t victim(const ad_context *c)
{
    int64_t passing = 0, last = c->n_plans - 1;
    for (int64_t i = 0; i < c->n_plans; i++)
        passing += !c->plans[i]->again;
    while (passing > c->n_plans / 4 && c->plans[last]->again)
        last--;
    return last;
}

static void evict(ad_context *c, int64_t which)
{
    ad__plan_forget(c, c->plans[which]);
    c->n_plans--;
    memmove(c->plans + which, c->plans + which + 1, (size_t)(c->n_plans - which) * sizeof *c->plans);
    c->counters.evictions++;
}

/* Whether this run should do with a single-use plan, which is interpreted. A new program is planned in full at once; but
 * after four plans that were never used again (TRUST), new programs are interpreted the first time and planned the
 * second. A program is also interpreted, seven times of eight (PATIENCE), where the cache is full of plans that are used:
 * more programs than there is room for are better interpreted than planned again and again. */
static bool interprets(ad_context *c, const run_request *r, uint64_t hash)
{
    enum { PATIENCE = 8, TRUST = 4 };
    if (r->held || !(c->passes & PASS_LEAN) || !c->backend->interpret)
        return false;
    if (r->once)
        return true;
    uint64_t *seen = sighting(c, hash);
    if (!seen && c->in_vain < TRUST) {
        c->in_vain++; /* until it is found */
        return false;
    }
    if (!seen)
        note_sighting(c, hash);
    return !seen || (c->n_plans >= c->max_plans && c->plans[victim(c)]->again && ++c->passed_over % PATIENCE);
}

/* The plan of a tape that has none yet. The client first appends what its program implies (gradients, the optimiser's
 * updates); all that is part of the plan and is cut off the tape again, so that a miss and a hit leave it alike. */
static plan *build(ad_context *c, const run_request *r, uint64_t hash)
{
    tape *t = c->tape;
    const tape_mark recorded = ad__tape_mark(t);
    if (r->expand) {
        t->expanding = true;
        int32_t site = t->site;
        bool expanded = r->expand(c, r->user) && ad__ok(c);
        t->site = site;
        t->expanding = false;
        if (!expanded)
            return NULL;
    }
    plan *once = interprets(c, r, hash) ? ad__plan_single_use(c, r) : NULL;
    c->counters.interpreted += once && !r->once;
    if (once || !ad__ok(c)) {
        ad__tape_rewind(c, t, &recorded);
        return once;
    }
    uint64_t *seen = sighting(c, hash);
    if (seen)
        *seen = 0;
    if (!r->once && c->n_plans >= c->max_plans)
        evict(c, victim(c));
    if (!ad__reserve(c, &c->plans, &c->cap_plans, c->n_plans + 1, sizeof *c->plans))
        return NULL;
    plan *p = ad__plan_build(c, r, &recorded, hash);
    ad__tape_rewind(c, t, &recorded);
    if (!p || r->once)
        return p;
    memmove(c->plans + 1, c->plans, (size_t)c->n_plans * sizeof *c->plans);
    c->plans[0] = p;
    c->n_plans++;
    return p;
}

plan *ad__cache_pass(ad_context *c, const run_request *r)
{
    return build(c, r, 0);
}

plan *ad__cache_plan(ad_context *c, const run_request *r, bool first)
{
    uint64_t hash = 0;
    plan *p = first ? c->plans[0] : find(c, c->tape, &hash);
    bool met = p || sighting(c, hash);
    c->counters.hits += met;
    c->counters.misses += !met;
    return p ? p : build(c, r, hash);
}
