/* Predictions: many draws of chosen sites, from the prior or from a guide. Called by users after training.
 * Each draw, or all of them in a plate, is a run of guide and model on a tape of its own; the values come home to host
 * memory, in one block. */
#include <math.h>
#include <string.h>

#include "ppl/entry.h"
#include "ppl/inference.h"
#include "ppl/predictive.h"

/* The draws of one site: n values of equal shape, one after the other. */
typedef struct drawn {
    int32_t name;
    ad_shape shape; /* of one draw */
    int64_t size;
    double *values; /* (samples, size) */
} drawn;

struct ppl_predictive {
    owned own;
    ppl_function model, guide;
    ppl_call *call;
    int64_t samples;
    bool vectorize;
    ppl_streams streams;
    char *wanted; /* names of chosen sites, each ended; an empty one ends the list; NULL: all */
    drawn *site;
    int64_t n, cap;
};

static void forget(ad_context *c, ppl_predictive *p)
{
    for (int64_t i = 0; i < p->n; i++) {
        ad__allocate(c, p->site[i].values, 0);
        ad__name_hold(c, p->site[i].name, -1);
    }
    p->n = 0;
}

/* What it holds, at its end or its context's. */
static void end(void *object)
{
    ppl_predictive *p = object;
    ad_context *c = p->own.context;
    forget(c, p);
    ppl__call_free(c, p->call);
    ad__allocate(c, p->wanted, 0);
    ad__allocate(c, p->site, 0);
    p->site = NULL;
}

ppl_predictive *ppl_predictive_new_functions(ppl_function model, ppl_function guide, ppl_predictive_options o)
{
    ad_context *c = ad__current();
    ppl_state *st = ppl__state(c);
    if (!st)
        return NULL;
    ad__begin_call(c);
    ppl__at(c, o.at_);
    if (!model || o.samples < 1) {
        ad__fail(c, AD_ERROR_ARGUMENT, model ? "as in .samples = 1000" : NULL,
                 model ? "ppl_predictive_new: samples is %lld, and must be at least 1"
                       : "ppl_predictive_new: the model is NULL",
                 (long long)o.samples);
        return NULL;
    }
    ppl_predictive *p =
        ppl__needs_types(c, &o.args, o.takes_some_, "ppl_predictive_new") ? NULL : ad__owned_new(c, sizeof *p, end);
    if (!p)
        return NULL;
    p->model = model, p->guide = guide, p->samples = o.samples, p->vectorize = o.vectorize;
    size_t text = 1;
    for (const char *const *s = o.sites; s && *s; s++)
        text += strlen(*s) + 1;
    if (o.sites && (p->wanted = ad__allocate(c, NULL, text))) {
        char *to = p->wanted;
        for (const char *const *s = o.sites; *s; to += strlen(*s) + 1, s++)
            memcpy(to, *s, strlen(*s) + 1);
        *to = '\0';
    }
    if (ad__ok(c) && (p->call = ppl__call_new(c, &o.args))) {
        ppl__streams_begin(c, &p->streams);
        return p;
    }
    ppl_predictive_free(p);
    return NULL;
}

void ppl_predictive_free(ppl_predictive *p)
{
    ad__owned_free(p, "ppl_predictive_free");
}

/* ---- drawing ----------------------------------------------------------------------------------------------------- */

static bool wanted(const ppl_predictive *p, const site *s)
{
    if (s->m.type != PPL_SAMPLE)
        return false;
    if (!p->wanted)
        return !s->m.is_observed || s->m.infer.deterministic;
    for (const char *w = p->wanted; *w; w += strlen(w) + 1)
        if (!strcmp(w, s->m.name))
            return true;
    return false;
}

static const drawn *find(const ppl_predictive *p, const char *name)
{
    for (int64_t i = 0; p && name && i < p->n; i++)
        if (!strcmp(ad__name_text(p->own.context, p->site[i].name), name))
            return &p->site[i];
    return NULL;
}

/* Whether the model, in this run or an earlier one, had every site that was chosen; false with an error. */
static bool all_there(ad_context *c, const ppl_predictive *p, const trace *t)
{
    for (const char *w = p->wanted; w && *w; w += strlen(w) + 1) {
        bool found = find(p, w) != NULL;
        known k = { .wanted = w, .letters = INT_MAX };
        for (int i = 0; i < t->n && !found; i++) {
            if (t->site[i]->m.type != PPL_SAMPLE)
                continue;
            found = !strcmp(w, t->site[i]->m.name);
            ppl__known_add(&k, t->site[i]->m.name);
        }
        if (!found) {
            ad__fail(c, AD_ERROR_SITE, ppl__known_text(&k, NULL), ".sites names \"%s\", which is no site of the model",
                     w);
            return false;
        }
    }
    return true;
}

static drawn *place_of(ad_context *c, ppl_predictive *p, const site *s)
{
    for (int64_t i = 0; i < p->n; i++)
        if (p->site[i].name == s->m.id)
            return &p->site[i];
    if (!ad__reserve(c, &p->site, &p->cap, p->n + 1, sizeof *p->site))
        return NULL;
    drawn *d = &p->site[p->n];
    *d = (drawn){ .name = s->m.id, .shape = ad_shape_of(s->m.value), .size = ad_size(s->m.value) };
    size_t bytes = (size_t)(p->samples * d->size) * sizeof *d->values;
    if (!(d->values = ad__allocate(c, NULL, bytes ? bytes : 1)))
        return NULL;
    for (int64_t i = 0; i < p->samples * d->size; i++)
        d->values[i] = NAN; /* what a draw without the site keeps */
    ad__name_hold(c, d->name, 1);
    p->n++;
    return d;
}

static bool same(const ad_shape *a, const ad_shape *b)
{
    return a->rank == b->rank && !memcmp(a->dim, b->dim, (size_t)a->rank * sizeof *a->dim);
}

/* The value of a site in one draw. */
static bool keep_one(ad_context *c, const site *s, drawn *d, int64_t draw)
{
    ad_shape shape = ad_shape_of(s->m.value);
    if (same(&shape, &d->shape))
        return ad_read_data(s->m.value, d->values + draw * d->size, AD_FROM_DOUBLE, d->size);
    ad__fail(c, AD_ERROR_SHAPE, "choose sites of one shape with .sites",
             "site \"%s\" has shape %s in one draw and %s in another", s->m.name, ad__shape_text(c, &d->shape),
             ad__shape_text(c, &shape));
    return false;
}

/* All draws of a site, (samples, 1..., one draw): or, where it does not depend on them, one for all. */
static bool keep_all(ad_context *c, const ppl_predictive *p, const site *s, drawn *d)
{
    ad_shape shape = ad_shape_of(s->m.value);
    int64_t size = ad_size(s->m.value), times = p->samples;
    if (size == d->size * times && (times == 1 || (shape.rank && shape.dim[0] == times)))
        return ad_read_data(s->m.value, d->values, AD_FROM_DOUBLE, size);
    if (size == d->size) {
        bool read = ad_read_data(s->m.value, d->values, AD_FROM_DOUBLE, size);
        for (int64_t i = 1; i < times && read && size; i++)
            memcpy(d->values + i * size, d->values, (size_t)size * sizeof *d->values);
        return read;
    }
    ad__fail(c, AD_ERROR_SHAPE, "leave .vectorize off: then the model runs once for each draw",
             "site \"%s\" has shape %s in one draw and %s in %lld at once", s->m.name, ad__shape_text(c, &d->shape),
             ad__shape_text(c, &shape), (long long)times);
    return false;
}

/* What a prediction does at its first sight: parameters that make no distribution are refused. */
typedef struct runs {
    trace *guide, *model;
} runs;
static bool look(ad_context *c, void *user)
{
    const runs *r = user;
    return ppl__check(c, r->guide ? &r->guide : NULL, &r->model, 1, LOOK_AT_PARAMETERS);
}

/* Computes the chosen sites of one run, all by one plan, and copies them; draw -1: all draws are in it. */
static bool keep(ad_context *c, ppl_predictive *p, runs *r, int64_t draw)
{
    const trace *t = r->model;
    node_id *roots = ad__step_bytes(c, (size_t)(t->n + 1) * sizeof *roots);
    int n = 0;
    if (!roots)
        return false;
    for (int i = 0; i < t->n; i++)
        if (wanted(p, t->site[i]) && !ad__tensor(c, t->site[i]->m.value))
            roots[n++] = ad__node(c, t->site[i]->m.value, "a site");
    const run_request request = { .roots = roots, .n_roots = n, .final = true, .expand = look, .user = r };
    if (n && !ad__run(c, &request, NULL))
        return false;
    for (int i = 0; i < t->n; i++) {
        if (!wanted(p, t->site[i]))
            continue;
        drawn *d = place_of(c, p, t->site[i]);
        if (!d || !(draw < 0 ? keep_all(c, p, t->site[i], d) : keep_one(c, t->site[i], d, draw)))
            return false;
    }
    return ad__ok(c);
}

/* One run of guide and model on a tape of its own. draw -1 keeps all draws of the plate around it; PLACES keeps none
 * but makes room for them, and learns how many batch dimensions the model's own plates claim. */
enum { PLACES = -2 };
static bool run(ad_context *c, ppl_predictive *p, int n, const ppl_arg *args, uint64_t stream, uint64_t ordinal,
                int64_t draw, ppl_plate_args *around)
{
    if (!ad__tape_open(c, stream, ordinal))
        return false;
    const ppl_plate_args *plate = draw == -1 ? around : NULL;
    bool good = ppl__call_arguments(c, p->call, n, args);
    trace *guide = good && p->guide ? ppl__run(c, p->call, p->guide, "guide", NULL, plate) : NULL;
    trace *model = ad__ok(c) ? ppl__run(c, p->call, p->model, "model", guide, plate) : NULL;
    if (model && (draw < 0 || draw == p->samples - 1) && !all_there(c, p, model))
        model = NULL;
    if (model && draw == PLACES) {
        int a = ppl__trace_nesting(model), b = guide ? ppl__trace_nesting(guide) : 0;
        around->dim = -1 - (a > b ? a : b);
        for (int i = 0; i < model->n; i++)
            if (wanted(p, model->site[i]) && !place_of(c, p, model->site[i]))
                break;
    }
    good = model && (draw == PLACES || keep(c, p, &(runs){ guide, model }, draw)) && ad__ok(c);
    ad__tape_close(c);
    return good;
}

bool ppl_predict_args(ppl_predictive *p, int n, const ppl_arg *args)
{
    ENTRY(e);
    if (!p)
        return ad_fail(AD_ERROR_ARGUMENT, NULL, "ppl_predict: the predictive is NULL"), false;
    ad_context *c = ppl__entry_begin(&e, p, "ppl_predict", true);
    if (!c)
        return false;
    ppl_state *st = ppl__state(c);
    if (!st->seeded)
        ppl__streams_now(c, &p->streams);
    uint64_t stream = st->seeded ? STREAM_SEEDED : p->streams.first + STREAM_PREDICT;
    uint64_t first = st->seeded ? 0 : p->streams.runs;
    ppl_plate_args all = { .name = "_num_predictive_samples", .size = p->samples };
    forget(c, p);
    bool good = true;
    if (p->vectorize)
        good = run(c, p, n, args, stream, first, PLACES, &all) && run(c, p, n, args, stream, first, -1, &all);
    for (int64_t i = 0; i < p->samples && good && !p->vectorize; i++)
        good = run(c, p, n, args, stream, first + (uint64_t)i, i, NULL);
    if (!st->seeded)
        p->streams.runs += (uint64_t)p->samples;
    ppl__entry_end(&e);
    return good;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static void unknown(const ppl_predictive *p, const char *site)
{
    known k = { .wanted = site, .letters = INT_MAX };
    for (int64_t i = 0; p && i < p->n; i++)
        ppl__known_add(&k, ad__name_text(p->own.context, p->site[i].name));
    ad_fail(AD_ERROR_SITE,
            ppl__known_text(&k, k.n ? "observed sites are kept only when .sites names them" : "call ppl_predict first"),
            "there are no predictions of a site \"%s\"", site ? site : "?");
}

ad_shape ppl_predictive_shape(ppl_predictive *p, const char *site)
{
    const drawn *d = find(p, site);
    if (ad__current())
        ad__begin_call(ad__current());
    if (!d)
        unknown(p, site);
    return d ? d->shape : AD_SCALAR;
}

bool (ppl_predictive_read)(ppl_predictive *p, const char *site, double *out, int64_t n)
{
    const drawn *d = find(p, site);
    if (ad__current())
        ad__begin_call(ad__current());
    if (!p || !site || !out) {
        ad_fail(AD_ERROR_ARGUMENT, NULL, "ppl_predictive_read: the %s is NULL",
                !p ? "predictive" : !site ? "site" : "place to write to");
        return false;
    }
    if (!d) {
        unknown(p, site);
        return false;
    }
    if (n != p->samples * d->size) {
        ad_fail(AD_ERROR_SHAPE, NULL, "ppl_predictive_read: room for %lld elements; site \"%s\" has %lld draws of %lld",
                (long long)n, site, (long long)p->samples, (long long)d->size);
        return false;
    }
    if (n)
        memcpy(out, d->values, (size_t)n * sizeof *out);
    return true;
}
