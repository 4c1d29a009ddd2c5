/* Plates: independence of batch dimensions, vectorised or sequential, with subsampling and its scale.
 * A plate is a handler: it prepends its frame to every message, multiplies the scale, and expands distributions.
 * Meanings are those of Pyro's plate_messenger, indep_messenger, broadcast_messenger and subsample_messenger. */
#include <string.h>

#include "ppl/state.h"

/* ---- what a plate does to messages ------------------------------------------------------------------------------- */

/* m.fn with dimension frame.dim of its batch shape made frame.size; free dimensions are those of size 1. */
static void broadcast(ad_context *c, ppl_message *m, const ppl_frame *f)
{
    ad_shape own = dist_batch_shape(m->fn), batch = own;
    int shift = -f->dim - own.rank;
    if (!ad__ok(c))
        return;
    if (shift > 0) {
        batch.rank = -f->dim;
        memmove(batch.dim + shift, own.dim, (size_t)own.rank * sizeof *own.dim);
        for (int i = 0; i < shift; i++)
            batch.dim[i] = 1;
    }
    int64_t *size = &batch.dim[batch.rank + f->dim];
    if (*size == f->size && shift <= 0)
        return;
    if (*size != 1 && *size != f->size) {
        ad__fail(
            c, AD_ERROR_SHAPE,
            "dist_to_event(d, 1) if the last dimension is one draw; .dim of the plate to choose another dimension",
            "Shape mismatch inside plate('%s') at site \"%s\": %s has batch shape %s; plate \"%s\" wants size %lld at "
            "dimension %d, found %lld",
            f->name, m->name, dist_name(m->fn), ad__shape_text(c, &own), f->name, (long long)f->size, f->dim,
            (long long)*size);
        return;
    }
    *size = f->size;
    m->fn = dist_expand(m->fn, batch);
}

static void process(ppl_handler *h, ppl_message *m)
{
    ad_context *c = ad__current();
    plate *p = (plate *)h->user;
    if (m->n_frames == PPL_MAX_FRAMES) {
        ad__fail(c, AD_ERROR_LIMIT, NULL, "plate stack overflow at site \"%s\": more than %d plates around it", m->name,
                 PPL_MAX_FRAMES);
        return;
    }
    memmove(m->frame + 1, m->frame, (size_t)m->n_frames * sizeof *m->frame);
    m->frame[0] = &p->frame;
    m->n_frames++;
    m->scale *= p->scale;
    if (m->type == PPL_SAMPLE && m->fn && p->frame.dim && p->frame.size >= 0 && ad__ok(c))
        broadcast(c, m, &p->frame);
}

/* Parameters with an event_dim, and the data of ppl_subsample: rows of this plate's members. */
static void postprocess(ppl_handler *h, ppl_message *m)
{
    ad_context *c = ad__current();
    const plate *p = h->user;
    if ((m->type != PPL_PARAM && m->type != PPL_SELECT) || m->event_dim < 0 || !p->frame.dim || !ad__ok(c))
        return;
    ad_shape s = ad_shape_of(m->value);
    int axis = s.rank + p->frame.dim - m->event_dim;
    if (!ad__ok(c) || axis < 0 || s.dim[axis] == 1 || p->frame.size < 0)
        return;
    if (s.dim[axis] != p->frame.full_size) {
        ad__fail(c, AD_ERROR_SHAPE, NULL,
                 "inside plate \"%s\" of size %lld: invalid shape of %s%s%s: %s has size %lld at dimension %d "
                 "(event_dim %d)",
                 p->frame.name, (long long)p->frame.full_size, m->type == PPL_PARAM ? "parameter \"" : "", m->name,
                 m->type == PPL_PARAM ? "\"" : "", ad__shape_text(c, &s), (long long)s.dim[axis], axis - s.rank,
                 m->event_dim);
        return;
    }
    if (p->index)
        m->value = ad_gather(m->value, axis, p->index);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static plate *refuse(ad_context *c, ad_error_kind kind, const ppl_plate_args *a, const char *hint, const char *text)
{
    ad__fail(c, kind, hint, "plate \"%s\": %s", a->name ? a->name : "?", text);
    return NULL;
}

/* Free dimension: the one asked for, or the first from the right; 0 after an error. `name` is the plate's full one. */
static int free_dim(ad_context *c, const ppl_state *st, const ppl_plate_args *a, const char *name)
{
    if (a->dim > 0 || a->dim < -AD_MAX_RANK) {
        ad__fail(c, AD_ERROR_ARGUMENT, NULL, "plate \"%s\": dim is %d; batch dimensions are -1 to %d", name, a->dim,
                 -AD_MAX_RANK);
        return 0;
    }
    int i = a->dim ? -a->dim - 1 : 0;
    if (!a->dim)
        while (i < AD_MAX_RANK && st->by_dim[i])
            i++;
    if (i == AD_MAX_RANK) {
        ad__fail(c, AD_ERROR_LIMIT, NULL, "plate stack overflow: no dimension is left for plate \"%s\"", name);
        return 0;
    }
    if (st->by_dim[i]) {
        ad__fail(c, AD_ERROR_SITE, "try moving the dim of one plate to the left",
                 "at plates \"%s\" and \"%s\", collide at dim=%d", name, st->by_dim[i]->frame.name, a->dim);
        return 0;
    }
    return -1 - i;
}

/* The sizes that a's numbers mean; false after an error. */
static bool sizes(ad_context *c, const ppl_plate_args *a, int64_t *batch, int64_t *full)
{
    *batch = *full = a->size;
    if (a->size == PPL_ANY_SIZE && !a->subsample_size && !a->subsample && !a->full_size)
        return true;
    if (a->size <= 0)
        return refuse(c, AD_ERROR_ARGUMENT, a, NULL, "the size must be positive; skip an empty batch"), false;
    if (a->subsample_size < 0 || a->full_size < 0)
        return refuse(c, AD_ERROR_ARGUMENT, a, NULL, "subsample_size and full_size must not be negative"), false;
    if (a->full_size && (a->subsample_size || a->subsample))
        return refuse(c, AD_ERROR_ARGUMENT, a,
                      "full_size is for minibatches taken elsewhere, subsample_size for those taken here",
                      "full_size and a subsample exclude each other"),
               false;
    if (a->full_size && a->full_size < a->size)
        return refuse(c, AD_ERROR_ARGUMENT, a, "size is the batch's, full_size the population's",
                      "full_size is below size"),
               false;
    if (a->full_size)
        *full = a->full_size;
    if (a->subsample)
        *batch = ad_dim(a->subsample, 0);
    if (a->subsample_size) {
        if (a->subsample && a->subsample_size != *batch) {
            ad__fail(c, AD_ERROR_SHAPE, NULL, "plate \"%s\": subsample_size %lld does not match len(subsample), %lld",
                     a->name, (long long)a->subsample_size, (long long)*batch);
            return false;
        }
        *batch = a->subsample_size < a->size ? a->subsample_size : a->size;
    }
    return ad__ok(c);
}

/* The plate of this name earlier in the same run of the model, or NULL. */
static plate *earlier(const ad_context *c, const ppl_state *st, const name_slot *slot)
{
    return slot->run == st->run && slot->tape_generation == c->tape->generation ? slot->plate : NULL;
}

/* The default action of a plate's message: the members it had earlier in this run, or drawn ones; all where it is not
 * subsampled. */
void ppl__plate_members(ad_context *c, ppl_state *st, ppl_message *m)
{
    const ppl_frame *f = m->plate;
    const name_slot *slot = ppl__name_slot(c, st, m->id);
    const plate *before = slot ? earlier(c, st, slot) : NULL;
    if (before) {
        m->value = before->index;
        return;
    }
    if (f->size < 0 || f->size >= f->full_size)
        return;
    int32_t outer = c->tape->site;
    m->value = ad_random_index(f->full_size, f->size, ad__site_draw(c, m->id, st->particle));
    ad__site_end(c, outer);
}

/* Lets the handlers name the plate and say which members it has: replay gives the guide's. False after an error. */
static bool announce(ad_context *c, const ppl_plate_args *a, plate *p)
{
    ppl_message m;
    ppl__message_begin(&m, PPL_SUBSAMPLE, p->id, a->at_);
    m.name = p->frame.name;
    m.event_dim = -1;
    m.plate = &p->frame;
    m.value = a->subsample;
    m.is_observed = a->subsample != NULL;
    m.done = a->full_size != 0; /* the members were taken elsewhere */
    ppl_send(&m);
    if (!ad__ok(c))
        return false;
    p->id = m.id;
    p->frame.name = m.name;
    p->index = m.value;
    if (!m.value)
        return true;
    ad_shape s = ad_shape_of(m.value);
    if (a->full_size) {
        ad__fail(c, AD_ERROR_SITE, "subsample_size draws members here", "plate \"%s\": with full_size the members were "
                 "taken elsewhere, and a handler gives others", m.name);
    } else if (ad__ok(c) && ad_dtype_of(m.value) != AD_INT64) {
        ad__fail(c, AD_ERROR_ARGUMENT, "make them with ad_from of int or int64_t",
                 "plate \"%s\": the subsample's indices are not integers", m.name);
    } else if (s.rank != 1 || s.dim[0] < 1 || ((a->subsample_size || a->subsample) && s.dim[0] != p->frame.size)) {
        ad__fail(c, AD_ERROR_SHAPE, "model and guide must subsample a plate alike",
                 "plate \"%s\": subsample_size %lld does not match len(subsample): indices have shape %s", m.name,
                 (long long)p->frame.size, ad__shape_text(c, &s));
    }
    p->frame.size = s.rank ? s.dim[0] : 0;
    return ad__ok(c);
}

static plate *open_plate(ad_context *c, ppl_state *st, ppl_plate_args *a, bool sequential)
{
    int64_t batch, full;
    ppl__at(c, a->at_);
    if (!ad__ok(c))
        return NULL;
    if (sequential && a->size == PPL_ANY_SIZE)
        return refuse(c, AD_ERROR_ARGUMENT, a, NULL, "a loop over members wants their number");
    plate *p = ad__step_bytes(c, sizeof *p);
    if (!p)
        return NULL;
    int32_t id = ad__name(c, a->name);
    if (id < 0 || !sizes(c, a, &batch, &full))
        return NULL;
    *p = (plate){ .outer = st->plates,
                  .frame = { .name = ad__name_text(c, id), .size = batch, .full_size = full },
                  .id = id,
                  .sequential = sequential };
    if (!announce(c, a, p))
        return NULL;
    batch = p->frame.size;
    p->scale = batch > 0 ? (double)full / (double)batch : 1;
    name_slot *slot = ppl__name_slot(c, st, p->id);
    if (!slot)
        return NULL;
    const char *name = p->frame.name;
    plate *before = earlier(c, st, slot);
    if (before && before->open) {
        ad__fail(c, AD_ERROR_SITE, "nested plates need different names",
                 "plate \"%s\": duplicate plate, it is open already", name);
        return NULL;
    }
    if (before &&
        (before->frame.size != batch || before->frame.full_size != full || before->sequential != sequential)) {
        ad__fail(c, AD_ERROR_SITE, "give it another name",
                 "duplicate plate \"%s\": size %lld of %lld here, %lld of %lld before%s", name, (long long)batch,
                 (long long)full, (long long)before->frame.size, (long long)before->frame.full_size,
                 before->sequential != sequential ? "; sequential in one place, vectorised in the other" : "");
        return NULL;
    }
    if (!sequential && !(p->frame.dim = free_dim(c, st, a, name)))
        return NULL;
    *slot = (name_slot){ .param = slot->param, .run = st->run, .tape_generation = c->tape->generation, .plate = p };
    return p;
}

/* 0, 1, ..., n - 1: the front of a persistent tensor, which a larger need replaces but never ends: tapes may hold it.
 */
static ad_tensor *all_members(ad_context *c, ppl_state *st, int64_t n)
{
    if (n > st->n_members) {
        int64_t size = n > 2 * st->n_members ? n : 2 * st->n_members;
        int64_t *i = ad__allocate(c, NULL, (size_t)size * sizeof *i);
        if (!i)
            return AD_NIL;
        for (int64_t k = 0; k < size; k++)
            i[k] = k;
        ad_tensor *grown = ad_from_data(i, AD_FROM_INT64, AD_SHAPE(size));
        ad__allocate(c, i, 0);
        if (ad_is_nil(grown))
            return AD_NIL;
        st->members = grown;
        st->n_members = size;
    }
    return n == st->n_members ? st->members : ad_slice(st->members, 0, 0, n);
}

static ppl_plate_scope begin(ppl_plate_args *a, bool sequential)
{
    ad_context *c = ad__current();
    ppl_state *st = ppl__state(c);
    ppl_plate_scope s = { .context = c };
    if (a->index)
        *a->index = AD_NIL;
    if (!st)
        return s;
    plate *p = open_plate(c, st, a, sequential);
    if (!p)
        return s;
    if (a->index && p->index)
        *a->index = p->index;
    if (a->index && !p->index)
        *a->index = p->frame.size < 0 ? AD_NIL : all_members(c, st, p->frame.size);
    s.plate = p;
    return s;
}
ppl_plate_scope ppl_plate_begin(ppl_plate_args a)
{
    return begin(&a, false);
}
ppl_plate_scope ppl_each_begin(ppl_plate_args a)
{
    return begin(&a, true);
}

/* ---- scopes ------------------------------------------------------------------------------------------------------ */

static void enter(ppl_plate_scope *s)
{
    ad_context *c = s->context;
    ppl_state *st = ppl__state(c);
    plate *p = s->plate;
    s->depth = (int)st->depth;
    p->depth = st->depth;
    p->handler = (ppl_handler){ .process = process, .postprocess = postprocess, .user = p, .installed = true };
    if (!ad__reserve(c, &st->handler, &st->cap_handlers, st->depth + 1, sizeof *st->handler)) {
        s->plate = NULL;
        return;
    }
    st->handler[st->depth++] = &p->handler;
    p->open = true;
    p->where = (error_frame){ .outer = c->frame, .kind = "plate", .name = p->frame.name };
    c->frame = &p->where;
    st->plates = p;
    if (p->frame.dim)
        st->by_dim[-1 - p->frame.dim] = p;
}

void ppl_plate_enter(ppl_plate_scope *s)
{
    if (s->plate)
        enter(s);
}

void ppl_plate_leave(ppl_plate_scope *s)
{
    ppl_state *st = s->plate ? ppl__state(s->context) : NULL;
    plate *p = s->plate;
    if (!st || st->depth <= s->depth || st->handler[s->depth] != &p->handler)
        return; /* it was never entered, or ended with what was around it */
    s->context->frame = p->where.outer;
    ppl__leave(s->context, st, &p->handler, s->depth, p->frame.name);
}

void ppl__plates_close(ppl_state *st, int64_t depth)
{
    for (plate *p = st->plates; p && p->depth >= depth; p = st->plates) {
        p->open = false;
        if (p->frame.dim)
            st->by_dim[-1 - p->frame.dim] = NULL;
        st->plates = p->outer;
    }
}

/* The drawn members of a sequential plate: one run for all of them. */
static bool read_members(ad_context *c, plate *p)
{
    if (p->member || !p->index)
        return true;
    int64_t *member = ad__step_bytes(c, (size_t)p->frame.size * sizeof *member);
    if (!member || !ad_read_data(p->index, member, AD_FROM_INT64, p->frame.size))
        return false;
    p->member = member;
    return true;
}

/* The members are 0, 1, ..., or the subsampled ones; each iteration has a frame of its own. */
bool ppl_each_next(ppl_plate_scope *s, int64_t *i)
{
    plate *p = s->plate;
    if (!p || !ad__ok(s->context))
        return false;
    if (s->next == 0)
        enter(s);
    if (!s->plate || s->next >= p->frame.size || !read_members(s->context, p))
        return false;
    if (s->next > 0) {
        plate *again = ad__step_bytes(s->context, sizeof *again);
        if (!again)
            return false;
        *again = *p;
        again->frame.counter = s->next;
        p->handler.user = again;
    }
    *i = p->member ? p->member[s->next] : s->next;
    s->next++;
    return true;
}
