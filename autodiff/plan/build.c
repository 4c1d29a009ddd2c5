/* Building plans: the copy of the tape, and the passes in their order. Called by cache.c at the first sight of a program.
 */
#include "autodiff/plan/plan.h"

#include <stdlib.h>
#include <string.h>

#include "autodiff/backend.h"

uint32_t ad__passes_wanted(void)
{
    static const struct {
        const char *name;
        uint32_t bit;
    } passes[] = {
#define X(name, text, what) { text, PASS_##name },
        PLAN_PASSES(X)
#undef X
    };
    const char *without = getenv("TAPER_WITHOUT");
    uint32_t wanted = ~0u;
    for (size_t n; without && *without; without += n + (without[n] == ',')) {
        n = strcspn(without, ",");
        for (size_t i = 0; i < sizeof passes / sizeof *passes; i++)
            if (strlen(passes[i].name) == n && !strncmp(passes[i].name, without, n))
                wanted &= ~passes[i].bit;
    }
    return wanted;
}

/* ---- building ---------------------------------------------------------------------------------------------------- */

static void *copy(ad_context *c, const void *from, int64_t n, size_t element)
{
    void *to = ad__allocate(c, NULL, (size_t)(n + 1) * element);
    if (to && n)
        memcpy(to, from, (size_t)n * element);
    return to;
}

static void *filled(ad_context *c, int64_t n, size_t element, int byte)
{
    void *to = ad__allocate(c, NULL, (size_t)(n + 1) * element);
    if (to)
        memset(to, byte, (size_t)(n + 1) * element);
    return to;
}

static bool copy_tape(plan *p, const tape *t, const run_request *r)
{
    ad_context *c = p->context;
    p->n = (int32_t)t->n;
    p->n_inputs = t->n_inputs;
    p->n_attrs = t->n_attrs;
    p->n_scalars = (int32_t)t->n_scalars;
    p->n_roots = r->n_roots;
    p->segment = t->segments;
    p->node = copy(c, t->node, t->n, sizeof *t->node);
    p->input = copy(c, t->input, t->n_inputs, sizeof *t->input);
    p->key_input = copy(c, t->input, p->key_inputs, sizeof *t->input);
    p->attr = copy(c, t->attr, t->n_attrs, sizeof *t->attr);
    p->place = filled(c, t->n, sizeof *t->place, 0);
    p->root = copy(c, r->roots, r->n_roots, sizeof *r->roots);
    p->live = filled(c, t->n, sizeof *p->live, 0);
    p->done = filled(c, t->n, sizeof *p->done, 0);
    p->kept = filled(c, t->n, sizeof *p->kept, 0);
    p->same = filled(c, t->n, sizeof *p->same, 0);
    p->item_of = filled(c, t->n, sizeof *p->item_of, 0xff);
    p->item = filled(c, t->n, sizeof *p->item, 0);
    p->position = filled(c, t->n, sizeof *p->position, 0);
    p->member = filled(c, t->n, sizeof *p->member, 0);
    p->constant = filled(c, t->n, sizeof *p->constant, 0);
    if (!ad__ok(c))
        return false;
    for (int32_t i = 0; i < p->n; i++) {
        p->same[i] = i;
        p->place[i] = ad__place(t, i);
        p->done[i] = p->place[i].kind != PLACE_NONE;
    }
    return true;
}

plan *ad__plan_build(ad_context *c, const run_request *r, const tape_mark *key, uint64_t hash)
{
    plan *p = ad__allocate(c, NULL, sizeof *p);
    if (!p)
        return NULL;
    memset(p, 0, sizeof *p);
    p->context = c;
    p->hash = hash;
    p->serial = ++c->last_plan;
    p->layout = c->tape->layout;
    p->key_nodes = (int32_t)key->n;
    p->key_inputs = key->n_inputs;
    p->key_attrs = key->n_attrs;
    const tape *t = c->tape;
    bool done = copy_tape(p, t, r) && ad__pass_live(p, r->commit);
    if (done && c->passes & PASS_COMMON)
        done = ad__pass_common(p);
    done = done && ad__pass_fuse(p);
    if (done && c->passes & PASS_FOLLOW)
        done = ad__pass_epilogue(p);
    done = done && ad__pass_memory(p, r->final) && (p->program = c->backend->lower(c->backend_state, p));
    if (done)
        return p;
    ad__plan_free(c, p);
    return NULL;
}

void ad__plan_forget(ad_context *c, plan *p)
{
    p->forgotten = true;
    if (!p->holders)
        ad__plan_free(c, p);
}

void ad__plan_release(ad_context *c, plan *p)
{
    if (--p->holders == 0 && p->forgotten)
        ad__plan_free(c, p);
}

void ad__plan_free(ad_context *c, plan *p)
{
    if (p->program)
        c->backend->release(c->backend_state, p->program);
    void *arrays[] = { p->node,    p->input, p->attr,   p->place,    p->root,      p->live, p->kept,    p->same,
                       p->item_of, p->item,  p->member, p->constant, p->key_input, p->done, p->position };
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        ad__allocate(c, arrays[i], 0);
    ad__allocate(c, p, 0);
}
