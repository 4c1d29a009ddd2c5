/* Traces: recording what a run does, finding sites by name, scoring them. Called by SVI and by users.
 * Traces live in the bytes of a step. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "ppl/entry.h"

/* ---- recording --------------------------------------------------------------------------------------------------- */

trace *ppl__trace_new(ad_context *c)
{
    trace *t = ad__step_bytes(c, sizeof *t);
    if (t)
        *t = (trace){ .n = 0 };
    return t;
}

/* Where the site of a name is, or the free place for it; the table has one. */
static int32_t *slot_of(const trace *t, int32_t name)
{
    uint32_t mask = (uint32_t)t->n_slots - 1, i = (uint32_t)name * 0x9e3779b1u & mask;
    while (t->slot[i] >= 0 && t->site[t->slot[i]]->m.id != name)
        i = (i + 1) & mask;
    return &t->slot[i];
}

site *ppl__trace_find(const trace *t, int32_t name)
{
    if (!t->n_slots || name < 0)
        return NULL;
    int32_t i = *slot_of(t, name);
    return i < 0 ? NULL : t->site[i];
}

int ppl__trace_nesting(const trace *t)
{
    int depth = 0;
    for (int i = 0; i < t->n; i++) {
        const ppl_message *m = &t->site[i]->m;
        for (int f = 0; f < m->n_frames; f++)
            if (-m->frame[f]->dim > depth)
                depth = -m->frame[f]->dim;
        if (m->type == PPL_SUBSAMPLE && -m->plate->dim > depth) /* a plate without a site */
            depth = -m->plate->dim;
    }
    return depth;
}

/* Room for one more; tables double, so that what is left behind in the step's bytes is no more than what is used. */
static bool grow(ad_context *c, trace *t)
{
    int cap = t->cap ? 2 * t->cap : 16;
    site **sites = ad__step_bytes(c, (size_t)cap * sizeof *sites);
    int32_t *slots = ad__step_bytes(c, 2 * (size_t)cap * sizeof *slots);
    if (!sites || !slots)
        return false;
    if (t->n)
        memcpy(sites, t->site, (size_t)t->n * sizeof *sites);
    memset(slots, 0xff, 2 * (size_t)cap * sizeof *slots);
    t->site = sites;
    t->cap = cap;
    t->slot = slots;
    t->n_slots = 2 * cap;
    for (int i = 0; i < t->n; i++)
        *slot_of(t, t->site[i]->m.id) = i;
    return true;
}

static const char *type_name(const ppl_message *m)
{
    return m->type == PPL_SAMPLE ? "sample" : m->type == PPL_PARAM ? "param" : "plate";
}

/* How many members a plate's message takes. */
static int64_t members(const ppl_message *m)
{
    return m->value ? ad_dim(m->value, 0) : m->plate->size;
}

bool ppl__trace_add(ad_context *c, trace *t, const ppl_message *m)
{
    if (t->n == t->cap && !grow(c, t))
        return false;
    int32_t *slot = slot_of(t, m->id);
    if (*slot >= 0) {
        site *before = t->site[*slot];
        bool again = before->m.type == m->type && m->type != PPL_SAMPLE; /* a parameter or plate that comes again */
        bool plates = again && m->type == PPL_SUBSAMPLE;
        if (plates)
            again = m->plate->full_size == before->m.plate->full_size && members(m) == members(&before->m);
        if (again) {
            before->m = *m;
            if (!plates)
                before->m.param = NULL;
            return true;
        }
        if (plates)
            ad__fail(c, AD_ERROR_SITE, "give it another name",
                     "duplicate plate \"%s\": size %lld of %lld here, %lld of %lld before", m->name,
                     (long long)members(m), (long long)m->plate->full_size, (long long)members(&before->m),
                     (long long)before->m.plate->full_size);
        else if (before->m.type == PPL_SAMPLE && m->type == PPL_SAMPLE)
            ad__fail(c, AD_ERROR_SITE, "every site of a run needs a name of its own; in ppl_each put the index into it",
                     "Multiple sample sites named \"%s\": the first is at %s:%d", m->name,
                     before->m.at.file ? before->m.at.file : "?", before->m.at.line);
        else
            ad__fail(c, AD_ERROR_SITE, "sites, plates and parameters share one set of names",
                     "%s site \"%s\" is already in the trace as a %s", type_name(m), m->name, type_name(&before->m));
        return false;
    }
    site *s = ad__step_bytes(c, sizeof *s);
    if (!s)
        return false;
    size_t used = offsetof(ppl_message, frame) + (size_t)m->n_frames * sizeof *m->frame; /* frames come last */
    memcpy(&s->m, m, used);
    s->log_prob = s->unmasked = NULL;
    s->partner = s->next_param = NULL;
    if (m->type == PPL_PARAM) {
        s->m.param = NULL;
        *(t->last_param ? &t->last_param->next_param : &t->first_param) = s;
        t->last_param = s;
    }
    *slot = t->n;
    t->site[t->n++] = s;
    return true;
}

/* ---- scoring ----------------------------------------------------------------------------------------------------- */

/* What the plates around a site want of a log density's shape, and what it has. */
static void say_misfit(ad_context *c, const site *s, const ad_shape *have)
{
    ad_shape want = { .rank = 0 }, given = ad_shape_of(s->m.value), batch = dist_batch_shape(s->m.fn);
    for (int i = 0; i < s->m.n_frames; i++)
        if (-s->m.frame[i]->dim > want.rank)
            want.rank = -s->m.frame[i]->dim;
    for (int i = 0; i < want.rank; i++)
        want.dim[i] = 1;
    for (int i = 0; i < s->m.n_frames; i++)
        if (s->m.frame[i]->dim)
            want.dim[want.rank + s->m.frame[i]->dim] = s->m.frame[i]->size;
    ad__fail(c, AD_ERROR_SHAPE,
             "Try one of the following fixes:\n"
             "    - enclose the batched tensor in a ppl_plate (...) scope\n"
             "    - dist_to_event(...) the distribution being sampled\n"
             "    - ad_permute the data's dimensions",
             "at site \"%s\", invalid log_prob shape: the plates around it want %s, actual %s; %s has shape %s, %s batch "
             "shape %s",
             s->m.name, ad__shape_text(c, &want), ad__shape_text(c, have), s->m.is_observed ? "obs" : "its value",
             ad__shape_text(c, &given), dist_name(s->m.fn), ad__shape_text(c, &batch));
}

/* The shape that plates promise for a log-density must be the one it has: a silent N x N broadcast is refused here. */
static inline bool fits_plates(ad_context *c, const site *s, ad_tensor *log_prob)
{
    node_id id = ad__node(c, log_prob, "the log density");
    if (id < 0)
        return false;
    const ad_shape *have = &ad__shape_of(c, id)->shape;
    int64_t size[AD_MAX_RANK];
    int rank = have->rank;
    if (rank == 0 && s->m.n_frames == 0)
        return true;
    bool fits = true;
    for (int i = 0; i < rank; i++)
        size[i] = 1;
    for (int i = 0; i < s->m.n_frames; i++) {
        const ppl_frame *f = s->m.frame[i];
        if (f->dim < 0 && -f->dim <= rank)
            size[-1 - f->dim] = f->size;
        else if (f->dim < 0)
            fits &= f->size < 0 || f->size == 1;
    }
    for (int i = 0; i < rank; i++)
        fits &= size[i] < 0 || size[i] == have->dim[rank - 1 - i];
    if (!fits)
        say_misfit(c, s, have);
    return fits;
}
bool ppl__fits_plates(ad_context *c, const site *s, ad_tensor *log_prob)
{
    return fits_plates(c, s, log_prob);
}

void ppl__stand_at(ad_context *c, const site *s, error_frame *frames)
{
    error_frame *outer = c->frame;
    for (int i = 0; i < s->m.n_frames; i++, outer = c->frame) {
        frames[i] = (error_frame){ .outer = outer, .kind = "plate", .name = s->m.frame[i]->name };
        c->frame = &frames[i];
    }
    frames[s->m.n_frames] = (error_frame){ .outer = outer, .kind = "site", .name = s->m.name };
    c->frame = &frames[s->m.n_frames];
    ppl__at(c, s->m.at);
}

ad_tensor *ppl__score(ad_context *c, site *s)
{
    if (s->log_prob)
        return s->log_prob;
    int32_t outer = c->tape->site;
    error_frame frames[PPL_MAX_FRAMES + 1], *around = c->frame;
    ppl__stand_at(c, s, frames);
    c->tape->site = s->m.id;
    ad_tensor *lp = s->unmasked = dist_log_prob(s->m.fn, s->m.value);
    if (s->m.mask)
        lp = ad_where(s->m.mask, lp, ad_constant(0));
    bool fits = ad__ok(c) && fits_plates(c, s, lp);
    c->tape->site = outer;
    c->frame = around;
    return s->log_prob = fits ? lp : AD_NIL;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

/* Calls the user's function. A scope that it entered without leaving lay on its stack, which is gone: what still points
 * there is dropped unseen, so that the next step does not inherit it. */
static void call_user(ad_context *c, ppl_call *call, ppl_function f)
{
    ppl_state *st = ppl__state(c);
    error_frame *frame = c->frame;
    int64_t depth = st->depth;
    size_t prefix_length = st->prefix_length;
    const void *user = st->user;
    if (!user)
        st->user = __builtin_frame_address(0);
    ppl__call(call, f);
    st->user = user;
    if (st->depth == depth && st->prefix_length == prefix_length)
        return;
    c->frame = frame;
    ppl__drop(c, st, depth, prefix_length);
}

static void call_in(ad_context *c, ppl_call *call, ppl_function f, const ppl_plate_args *around)
{
    if (!around) {
        call_user(c, call, f);
        return;
    }
    PPL_SCOPE_(ppl_plate_scope, ppl_plate_begin(*around), ppl_plate_enter, ppl_plate_leave) call_user(c, call, f);
}

trace *ppl__run(ad_context *c, ppl_call *call, ppl_function f, const char *what, const trace *replayed,
                const ppl_plate_args *around)
{
    ppl_state *st = ppl__state(c);
    trace *t = st ? ppl__trace_new(c) : NULL;
    if (!t)
        return NULL;
    st->calls++;
    error_frame where = { .outer = c->frame, .kind = what };
    c->frame = &where;
    ppl_with (ppl__record(t)) {
        if (replayed)
            ppl_with (ppl__replay(replayed))
                call_in(c, call, f, around);
        else
            call_in(c, call, f, around);
    }
    c->frame = where.outer;
    st->calls--;
    return ad__ok(c) ? t : NULL;
}

static ppl_trace *handle_of(ad_context *c, trace *t)
{
    return t ? ad__object_new(c, t) : (ppl_trace *)AD_NIL;
}
trace *ppl__trace_of(ad_context *c, const ppl_trace *t)
{
    return c ? ad__object(c, t, "the trace") : NULL;
}

ppl_trace *ppl_trace_new(void)
{
    ad_context *c = ad__current();
    return c ? handle_of(c, ppl__trace_new(c)) : (ppl_trace *)AD_NIL;
}

ppl_trace *ppl_trace_run_args(ppl_function f, ppl_signature types, int n, const ppl_arg *args)
{
    ENTRY(e);
    ad_context *c = ppl__entry_begin(&e, NULL, "ppl_trace_run", false);
    if (!c || (c->tape && !ad__ok(c))) {
        ppl__entry_end(&e);
        return (ppl_trace *)AD_NIL;
    }
    if (!f) {
        ad__fail(c, AD_ERROR_ARGUMENT, NULL, "ppl_trace_run: the function is NULL");
        ppl__entry_end(&e);
        return (ppl_trace *)AD_NIL;
    }
    ppl_call *call = ppl__call_new(c, &types);
    ppl__entry_holds(&e, call, NULL);
    trace *t = NULL;
    if (call && ppl__call_arguments(c, call, n, args))
        t = ppl__run(c, call, f, "model", NULL, NULL);
    if (t && !ppl__check_trace(c, t))
        t = NULL;
    ppl__call_free(c, call);
    ppl__entry_end(&e);
    return handle_of(c, t);
}

/* ---- questions --------------------------------------------------------------------------------------------------- */

int ppl_trace_size(ppl_trace *handle)
{
    const trace *t = ppl__trace_of(ad__current(), handle);
    return t ? t->n : 0;
}

const ppl_message *ppl_trace_at(ppl_trace *handle, int i)
{
    const trace *t = ppl__trace_of(ad__current(), handle);
    return t && i >= 0 && i < t->n ? &t->site[i]->m : NULL;
}

static site *find(ppl_trace *handle, const char *name)
{
    ad_context *c = ad__current();
    const trace *t = ppl__trace_of(c, handle);
    return t && name ? ppl__trace_find(t, ad__name_known(c, name)) : NULL;
}

/* As find, with an error when there is none. */
static site *must_find(ppl_trace *handle, const char *name)
{
    site *s = find(handle, name);
    if (s)
        return s;
    ad_context *c = ad__current();
    const trace *t = c && ad__ok(c) ? ppl__trace_of(c, handle) : NULL;
    known k = { .wanted = name, .letters = INT_MAX };
    for (int i = 0; t && i < t->n; i++)
        ppl__known_add(&k, t->site[i]->m.name);
    if (t)
        ad__fail(c, AD_ERROR_SITE, ppl__known_text(&k, NULL), "the trace has no site \"%s\"", name ? name : "?");
    return NULL;
}

const ppl_message *ppl_trace_find(ppl_trace *handle, const char *name)
{
    site *s = find(handle, name);
    return s ? &s->m : NULL;
}

ad_tensor *ppl_trace_value(ppl_trace *handle, const char *name)
{
    site *s = must_find(handle, name);
    return s && s->m.value ? s->m.value : AD_NIL;
}

static ad_tensor *scaled(ad_context *c, site *s)
{
    ad_tensor *lp = ppl__score(c, s);
    return s->m.scale == 1 ? lp : ad_mul(s->m.scale, lp);
}

ad_tensor *ppl_trace_log_prob(ppl_trace *handle, const char *name)
{
    site *s = must_find(handle, name);
    if (!s)
        return AD_NIL;
    if (ppl__scored(s))
        return scaled(ad__current(), s);
    ad_fail(AD_ERROR_SITE, NULL, "\"%s\" is no sample site and has no density", name);
    return AD_NIL;
}

ad_tensor *ppl_trace_log_prob_sum(ppl_trace *handle)
{
    ad_context *c = ad__current();
    const trace *t = ppl__trace_of(c, handle);
    ad_tensor *sum = t ? ad_number(0) : AD_NIL;
    for (int i = 0; t && i < t->n; i++)
        if (ppl__scored(t->site[i]))
            sum = ad_add(sum, ad_sum(scaled(c, t->site[i])));
    return sum;
}

/* ---- shapes as text ---------------------------------------------------------------------------------------------- */

typedef struct text {
    char *out;
    size_t size, used;
} text;

static void __attribute__((format(printf, 2, 3))) put(text *t, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    for (int i = 0; i < n && i < (int)sizeof line - 1; i++, t->used++)
        if (t->used + 1 < t->size)
            t->out[t->used] = line[i];
}

/* "   2 3 | 4" */
static void put_dims(text *t, const ad_shape *s, int from, int to)
{
    for (int i = from; i < to; i++)
        put(t, " %lld", (long long)s->dim[i]);
}

size_t ppl_format_shapes(ppl_trace *handle, char *out, size_t size)
{
    ad_context *c = ad__current();
    const trace *t = ppl__trace_of(c, handle);
    text x = { .out = out, .size = size };
    for (int pass = 0; t && pass < 2; pass++) { /* parameters first, as Pyro does */
        if (pass == 0)
            put(&x, "Param Sites:\n");
        if (pass == 1)
            put(&x, "Sample Sites:\n");
        for (int i = 0; i < t->n; i++) {
            const ppl_message *m = &t->site[i]->m;
            if ((m->type == PPL_PARAM) != (pass == 0))
                continue;
            if (m->type == PPL_SUBSAMPLE && !m->value)
                continue; /* a plate with all its members */
            ad_shape value = ad_shape_of(m->value);
            int event = m->fn ? dist_event_dim(m->fn) : 0, batch = value.rank - event;
            if (m->fn) {
                ad_shape b = dist_batch_shape(m->fn), e = dist_event_shape(m->fn);
                put(&x, "%20s dist ", m->name);
                put_dims(&x, &b, 0, b.rank);
                put(&x, " |");
                put_dims(&x, &e, 0, e.rank);
                put(&x, "\n%20s value", "");
            } else {
                put(&x, "%20s value", m->name);
            }
            put_dims(&x, &value, 0, batch);
            if (pass == 1)
                put(&x, " |");
            put_dims(&x, &value, batch, value.rank);
            put(&x, "\n");
        }
    }
    if (size)
        out[x.used < size ? x.used : size - 1] = '\0';
    return x.used;
}
