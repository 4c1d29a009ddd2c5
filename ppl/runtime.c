/* The runtime: the stack of handlers, the order in which messages travel, and the primitives that send them.
 * It knows no handler by name. Called by models through the macros of ppl.h. */
#include <string.h>

#include "distributions/class.h"
#include "ppl/entry.h"

/* ---- the state of a context -------------------------------------------------------------------------------------- */

/* What was entered by hand within a tape and not left ends with it: what it points to may be gone, and is dropped unseen. */
static void at_tape(ad_context *c, void *client, tape *t, bool opens)
{
    ppl_state *st = client;
    if (opens) {
        t->client_mark[0] = st->depth;
        t->client_mark[1] = (int64_t)st->prefix_length;
        return;
    }
    if (st->depth <= t->client_mark[0] && st->prefix_length <= (size_t)t->client_mark[1])
        return;
    c->frame = t->frame;
    ppl__drop(c, st, t->client_mark[0], (size_t)t->client_mark[1]);
}

void ppl__drop(ad_context *c, ppl_state *st, int64_t depth, size_t prefix_length)
{
    ppl__plates_close(st, depth);
    ppl__seeded_end(c, st, depth);
    st->depth = depth;
    st->prefix_length = prefix_length;
    ad__fail(c, AD_ERROR_SITE, "every ppl_plate_enter wants its ppl_plate_leave, on every way out",
             "a plate, handler or module was not left");
}

static void state_free(ad_context *c, void *client)
{
    ppl_state *st = client; /* the leaves of parameters end with the context's tensors */
    void *arrays[] = { st->handler, st->params, st->slots, st->names, st->prefix, st->seedings, st };
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        ad__allocate(c, arrays[i], 0);
}

ppl_state *ppl__state_new(ad_context *c)
{
    if (!c)
        return NULL;
    ppl_state *st = ad__allocate(c, NULL, sizeof *st);
    if (!st)
        return NULL;
    memset(st, 0, sizeof *st);
    st->free_slot = -1;
    c->client = st;
    c->client_free = state_free;
    c->client_tape = at_tape;
    c->client_recover = ppl__recover;
    return st;
}

name_slot *ppl__name_slot_new(ad_context *c, ppl_state *st, int32_t name)
{
    if (name < 0)
        return NULL;
    if (name >= st->n_names) {
        int64_t need = c->n_names;
        if (!ad__reserve(c, &st->names, &st->cap_names, need, sizeof *st->names))
            return NULL;
        memset(st->names + st->n_names, 0, (size_t)(need - st->n_names) * sizeof *st->names);
        st->n_names = need;
    }
    return &st->names[name];
}

void ppl_seed(uint64_t seed)
{
    ad_context *c = ad__current();
    if (c)
        ad__seed(c, seed);
}

bool ppl_ok(void)
{
    ad_context *c = ad__current();
    return c && ad__ok(c);
}

/* ---- the stack --------------------------------------------------------------------------------------------------- */

static bool install(ad_context *c, ppl_state *st, ppl_handler *h)
{
    if (h->installed) {
        ad__fail(c, AD_ERROR_SITE, "make a second handler", "cannot install a handler twice");
        return false;
    }
    if (!ad__reserve(c, &st->handler, &st->cap_handlers, st->depth + 1, sizeof *st->handler))
        return false;
    st->handler[st->depth++] = h;
    h->installed = true;
    if (h->enter)
        h->enter(h);
    return true;
}

/* Ends a handler and, unseen, what was entered inside it and not left. A handler that is not on the stack any more ended
 * in this way. */
void ppl__leave(ad_context *c, ppl_state *st, ppl_handler *h, int64_t depth, const char *name)
{
    if (st->depth > depth && st->handler[depth] == h) {
        if (st->depth > depth + 1)
            ad__fail(c, AD_ERROR_SITE, "what is entered last is left first",
                     name ? "plate \"%s\" is left before what was entered inside it"
                          : "a handler is left before what was entered inside it",
                     name);
        ppl__plates_close(st, depth);
        ppl__seeded_end(c, st, depth + 1);
        st->depth = depth;
    }
    h->installed = false;
    if (h->exit)
        h->exit(h);
}

ppl_scope ppl_with_value(ppl_handler h)
{
    h.installed = false;
    return (ppl_scope){ .context = ad__current(), .own = h };
}
ppl_scope ppl_with_pointer(ppl_handler *h)
{
    return (ppl_scope){ .context = ad__current(), .handler = h };
}

void ppl_scope_enter(ppl_scope *s)
{
    ppl_state *st = ppl__state(s->context);
    if (!st)
        return;
    s->depth = (int)st->depth;
    s->frame = s->context->frame;
    s->opened = install(s->context, st, s->handler ? s->handler : &s->own);
}

void ppl_scope_leave(ppl_scope *s)
{
    if (s->opened && ppl__state(s->context)->depth > s->depth + 1)
        s->context->frame = s->frame;
    if (s->opened)
        ppl__leave(s->context, ppl__state(s->context), s->handler ? s->handler : &s->own, s->depth, NULL);
    s->opened = false;
}

/* ---- messages ---------------------------------------------------------------------------------------------------- */

void ppl__draw(ad_context *c, ppl_state *st, ppl_message *m)
{
    if (!c->tape)
        return;
    int32_t outer = c->tape->site;
    error_frame where = { .outer = c->frame, .kind = "site", .name = m->name };
    c->frame = &where;
    int draw = ad__site_draw(c, m->id, st->particle);
    if (m->infer.score_function)
        m->fn = dist_set_rsample(m->fn, false);
    m->value = dist_sample(m->fn, draw);
    ad__site_end(c, outer);
    c->frame = where.outer;
}

static void settle(ad_context *c, ppl_state *st, ppl_message *m)
{
    if (!m->done && !m->is_observed && !m->value) {
        if (m->type == PPL_SAMPLE)
            ppl__draw(c, st, m);
        if (m->type == PPL_PARAM)
            ppl__param_value(c, st, m);
        if (m->type == PPL_SUBSAMPLE)
            ppl__plate_members(c, st, m);
    }
    m->done = true;
}

/* Sends a message through the handlers below `reached` in the stack, and back through all. */
static inline __attribute__((always_inline)) void send_from(ad_context *c, ppl_state *st, int64_t reached,
                                                           ppl_message *m)
{
    int64_t top = st->depth;
    while (reached > 0 && !m->stop) {
        ppl_handler *h = st->handler[--reached];
        if (h->process)
            h->process(h, m);
    }
    settle(c, st, m);
    for (; reached < top; reached++) {
        ppl_handler *h = st->handler[reached];
        if (h->postprocess)
            h->postprocess(h, m);
    }
    if (m->continuation)
        m->continuation(m);
}

void ppl_send(ppl_message *m)
{
    ad_context *c = ad__current();
    ppl_state *st = ppl__state(c);
    if (st)
        send_from(c, st, st->depth, m);
}

void ppl__send_outward(ad_context *c, const ppl_handler *from, ppl_message *m)
{
    ppl_state *st = ppl__state(c);
    int64_t at = st->depth;
    while (at > 0 && st->handler[at - 1] != from)
        at--;
    send_from(c, st, at > 0 ? at - 1 : 0, m);
}

/* The context when a message can be sent from it: all is well and a tape is open. */
static ad_context *ready(ppl_source at)
{
    ad_context *c = ad__current();
    if (!c || !ad__ok(c))
        return NULL;
    ppl__at(c, at);
    if (c->tape)
        return c;
    ad__fail(c, AD_ERROR_SCOPE, "call it in a model or guide of svi_step, or in ad_scope { ... }",
             "no step or scope is open");
    return NULL;
}

static ad_tensor *send_named(ad_context *c, ppl_message *m)
{
    if (m->id < 0)
        return AD_NIL;
    m->name = ad__name_text(c, m->id);
    ppl_send(m);
    return ad__ok(c) && m->value ? m->value : AD_NIL;
}

/* "<name><suffix>", interned. */
static int32_t with_suffix(ad_context *c, const char *name, const char *suffix)
{
    size_t a = strlen(name), b = strlen(suffix) + 1;
    char *text = ad__step_bytes(c, a + b);
    if (!text)
        return -1;
    memcpy(text, name, a);
    memcpy(text + a, suffix, b);
    return ad__name(c, text);
}

static ad_tensor *sample(ad_context *c, const ppl_sample_args *a, int32_t id, ad_tensor *obs, ad_tensor *mask)
{
    ppl_message m;
    ppl__message_begin(&m, PPL_SAMPLE, id, a->at_);
    m.is_observed = obs != NULL;
    m.infer = a->infer;
    m.fn = a->fn;
    m.value = obs;
    m.mask = mask;
    m.event_dim = -1;
    return send_named(c, &m);
}

/* A mask tells of whole draws: the draws in obs must have its shape, or shapes that broadcast. */
static bool mask_fits(ad_context *c, const ppl_sample_args *a)
{
    ad_shape mask = ad_shape_of(a->obs_mask), obs = ad_shape_of(a->obs), draws = obs, joint;
    int events = dist_event_dim(a->fn);
    draws.rank = obs.rank > events ? obs.rank - events : 0;
    bool too_deep = events && mask.rank > draws.rank && mask.rank >= obs.rank; /* as deep as obs itself */
    if (!ad__ok(c) || (ad__broadcast(&mask, &draws, &joint) && !too_deep))
        return ad__ok(c);
    ad__fail(c, AD_ERROR_SHAPE, events ? "a draw is observed as a whole or not at all" : NULL,
             "site \"%s\": .obs_mask has shape %s, and the draws in .obs, of shape %s with %d event dimension%s, have "
             "shape %s",
             a->name, ad__shape_text(c, &mask), ad__shape_text(c, &obs), events, events == 1 ? "" : "s",
             ad__shape_text(c, &draws));
    return false;
}

/* Observed where the mask is 1, drawn where it is 0: two masked sites and the value they make together. */
static ad_tensor *sample_partly(ad_context *c, const ppl_sample_args *a)
{
    if (!mask_fits(c, a))
        return AD_NIL;
    ad_tensor *mask = a->obs_mask, *missing = ad_sub(1, mask);
    ad_tensor *seen = sample(c, a, with_suffix(c, a->name, "_observed"), a->obs, mask);
    ad_tensor *drawn = sample(c, a, with_suffix(c, a->name, "_unobserved"), NULL, missing);
    for (int i = dist_event_dim(a->fn); i > 0; i--)
        mask = ad_unsqueeze(mask, -1);
    return ppl_deterministic_site(a->at_, a->name, ad_where(mask, seen, drawn));
}

ad_tensor *ppl_sample_site(const ppl_sample_args *a)
{
    ad_context *c = ready(a->at_);
    if (!c)
        return AD_NIL;
    int32_t id = ad__name(c, a->name);
    if (id >= 0 && !a->fn)
        ad__fail(c, AD_ERROR_ARGUMENT, NULL, "site \"%s\": the distribution is NULL", a->name);
    if (id < 0 || !a->fn)
        return AD_NIL;
    if (a->obs && a->obs_mask)
        return sample_partly(c, a);
    return sample(c, a, id, a->obs, NULL);
}

/* The distribution behind ppl_factor: its log-density is its parameter, whatever the value. */
static ad_tensor *unit_sample(const dist_object *d, const ad_shape *shape, int draw)
{
    (void)d, (void)draw;
    return ad_full_shape(*shape, 0);
}
static ad_tensor *unit_log_prob(const dist_object *d, ad_tensor *x)
{
    (void)x;
    return d->parameter[0];
}
static const dist_class unit = {
    .name = "factor",
    .n_parameters = 1,
    .parameter = { { "log_factor", { .kind = DIST_REAL }, 0 } },
    .has_rsample = true,
    .sample = unit_sample,
    .log_prob = unit_log_prob,
};

ad_tensor *ppl_factor_site(ppl_source at, const char *name, ad_tensor *log_factor)
{
    ad_context *c = ready(at);
    if (!c)
        return AD_NIL;
    ppl_sample_args a = { .name = name, .fn = dist_new(&unit, &log_factor, 0), .at_ = at };
    return sample(c, &a, ad__name(c, name), ad_full_shape(AD_SCALAR, 0), NULL);
}

ad_tensor *ppl_deterministic_site(ppl_source at, const char *name, ad_tensor *value)
{
    ad_context *c = ready(at);
    if (!c)
        return AD_NIL;
    if (!value || ad_is_nil(value)) {
        ad__fail(c, AD_ERROR_STALE, NULL, "site \"%s\": the value is nil", name ? name : "?");
        return AD_NIL;
    }
    ppl_sample_args a = { .name = name, .infer = { .deterministic = true }, .at_ = at };
    return sample(c, &a, ad__name(c, name), value, NULL);
}

ad_tensor *ppl_param_site(const ppl_param_args *a)
{
    ad_context *c = ready(a->at_);
    ppl_state *st = ppl__state(c);
    if (!c || !st)
        return AD_NIL;
    if (a->event_dim < PPL_NONE) {
        ad__fail(c, AD_ERROR_ARGUMENT, "PPL_NONE says that every dimension may be a plate's",
                 "parameter \"%s\": event_dim is %d", a->name ? a->name : "?", a->event_dim);
        return AD_NIL;
    }
    ppl_message m;
    ppl__message_begin(&m, PPL_PARAM, ppl__prefixed(c, st, a->name), a->at_);
    m.param = a;
    m.event_dim = a->event_dim == PPL_NONE ? 0 : a->event_dim_set || a->event_dim ? a->event_dim : -1;
    return send_named(c, &m);
}

ad_tensor *ppl_subsample_site(ppl_source at, ad_tensor *data, int event_dim)
{
    ad_context *c = ready(at);
    if (!c)
        return AD_NIL;
    if (event_dim < 0) {
        ad__fail(c, AD_ERROR_ARGUMENT, NULL, "ppl_subsample: event_dim is %d, and must not be negative", event_dim);
        return AD_NIL;
    }
    ppl_message m;
    ppl__message_begin(&m, PPL_SELECT, ad__name(c, "ppl_subsample"), at);
    m.value = data;
    m.event_dim = event_dim;
    return send_named(c, &m);
}
