/* Log densities of models as functions of a flat vector. Called by users and by samplers.
 * The model is recorded once, on a tape that is then taken off the context's stack and held; an evaluation puts it
 * back, writes the vector into the states that stand for the latent sites, and runs the same plan again. */
#include <math.h>
#include <string.h>

#include "ppl/state.h"

/* A latent site. */
typedef struct latent {
    int32_t name;
    ad_tensor *state; /* unconstrained */
    ad_tensor *value; /* constrained, on the held tape */
    int64_t start, size;
} latent;

struct ppl_density {
    ad_context *context;
    tape *tape;
    tape_mark recorded; /* the program: runs append to the tape, and are cut off */
    int64_t named;      /* nodes whose names are held */
    latent *latents;
    int64_t n_latents, cap_latents, size;
    ad_tensor **jacobian; /* log-Jacobians while recording */
    int64_t n_jacobian, cap_jacobian;
    node_id total, gradient, hessian; /* a scalar, (n), (n, n); hessian -1: not recorded yet */
};

/* ---- recording --------------------------------------------------------------------------------------------------- */

static latent *add_latent(ad_context *c, ppl_density *d, const ppl_message *m, const dist_constraint *support)
{
    ad_shape batch = dist_batch_shape(m->fn), event = dist_event_shape(m->fn), u;
    if (batch.rank + event.rank > AD_MAX_RANK) {
        ad__fail(c, AD_ERROR_SHAPE, NULL, "site \"%s\": batch shape %s and event shape %s have more than %d dimensions",
                 m->name, ad__shape_text(c, &batch), ad__shape_text(c, &event), AD_MAX_RANK);
        return NULL;
    }
    for (int i = 0; i < event.rank; i++)
        batch.dim[batch.rank + i] = event.dim[i];
    batch.rank += event.rank;
    if (!ad__ok(c) || !dist_unconstrained_shape(support, DIST_BIJECT_TO, batch, &u))
        return NULL;
    if (!ad__reserve(c, &d->latents, &d->cap_latents, d->n_latents + 1, sizeof *d->latents))
        return NULL;
    latent *l = &d->latents[d->n_latents];
    *l = (latent){ .name = m->id, .state = ad_state(u), .start = d->size };
    l->size = ad_size(l->state);
    ad__name_hold(c, m->id, 1);
    d->n_latents++;
    d->size += l->size;
    return l;
}

/* Gives each latent site a value from its state. */
static void process(ppl_handler *h, ppl_message *m)
{
    ad_context *c = ad__current();
    ppl_density *d = (ppl_density *)h->user;
    if (m->type != PPL_SAMPLE || m->is_observed || m->value || !ad__ok(c))
        return;
    if (dist_is_discrete(m->fn)) {
        ad__fail(c, AD_ERROR_SITE, "sum it out by hand, or observe it",
                 "site \"%s\" (%s) is discrete: its density is no function of real numbers", m->name, dist_name(m->fn));
        return;
    }
    dist_constraint support = dist_support(m->fn);
    latent *l = add_latent(c, d, m, &support);
    if (!l || !ad__reserve(c, &d->jacobian, &d->cap_jacobian, d->n_jacobian + 1, sizeof *d->jacobian))
        return;
    m->value = l->value = dist_constrain(&support, DIST_BIJECT_TO, l->state);
    m->done = true;
    if (support.kind != DIST_REAL)
        d->jacobian[d->n_jacobian++] = dist_log_det(&support, l->state);
}

/* parts[i], of any shapes, as one vector. */
static ad_tensor *flat(ad_context *c, ad_tensor **parts, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        parts[i] = ad_reshape(parts[i], AD_SHAPE(-1));
    return n == 0      ? ad_full_shape(AD_SHAPE(0), 0)
           : n == 1    ? parts[0]
           : ad__ok(c) ? ad_concat(parts, (int)n, 0)
                       : AD_NIL;
}

/* The gradient of y with respect to all latent sites, (n). */
static ad_tensor *gradient_of(ad_context *c, ppl_density *d, ad_tensor *y)
{
    ad_tensor **x = ad__step_bytes(c, 2 * (size_t)(d->n_latents + 1) * sizeof *x), **g = x + d->n_latents + 1;
    if (!x)
        return AD_NIL;
    for (int64_t i = 0; i < d->n_latents; i++)
        x[i] = d->latents[i].state;
    ad_gradient(y, x, (int)d->n_latents, g);
    return flat(c, g, d->n_latents);
}

static bool record(ad_context *c, ppl_density *d, ppl_call *call, ppl_function model)
{
    trace *t = NULL;
    ppl_with (((ppl_handler){ .process = process, .user = d }))
        t = ppl__run(c, call, model, "model", NULL, NULL);
    if (!t)
        return false;
    int n = 0;
    ad_tensor **x = ad__step_bytes(c, (size_t)(t->n + d->n_jacobian + 1) * sizeof *x);
    double *weight = ad__step_bytes(c, (size_t)(t->n + d->n_jacobian + 1) * sizeof *weight);
    if (!x || !weight)
        return false;
    error_frame in = { .outer = c->frame, .kind = "model" };
    c->frame = &in;
    for (int i = 0; i < t->n; i++) {
        if (!ppl__scored(t->site[i]))
            continue;
        weight[n] = t->site[i]->m.scale;
        x[n++] = ppl__score(c, t->site[i]);
    }
    c->frame = in.outer;
    for (int64_t i = 0; i < d->n_jacobian; i++) {
        weight[n] = 1;
        x[n++] = d->jacobian[i];
    }
    if (!ppl__check(c, NULL, &t, 1, LOOK_AT_DATA))
        return false;
    ad_tensor *total = ad_weighted_total(x, weight, n);
    d->total = ad__node(c, total, "the log density");
    d->gradient = ad__node(c, gradient_of(c, d, total), "its gradient");
    return ad__ok(c);
}

/* What is on the tape now is the program. */
static void mark(ad_context *c, ppl_density *d)
{
    d->recorded = ad__tape_mark(d->tape);
    ad__tape_hold_names(c, d->tape, d->named, d->tape->n, 1);
    d->named = d->tape->n;
}

/* Takes the held tape off the stack, or puts it there. */
static void detach(ad_context *c, ppl_density *d)
{
    c->tape = d->tape->outer;
    d->tape->outer = NULL;
}
static void attach(ad_context *c, ppl_density *d)
{
    if (!c->tape)
        c->error_kind = AD_ERROR_NONE;
    d->tape->outer = c->tape;
    c->tape = d->tape;
}

ppl_density *ppl_density_new_args(ppl_function model, ppl_signature types, int n, const ppl_arg *args)
{
    ad_context *c = ad__current();
    if (!ppl__state(c))
        return NULL;
    ppl_density *d = ad__allocate(c, NULL, sizeof *d);
    if (!d)
        return NULL;
    *d = (ppl_density){ .context = c, .hessian = -1 };
    c->held++;
    ppl_call *call = ppl__call_new(c, &types);
    bool good = false;
    if (call && (d->tape = ad__tape_open(c, STREAM_SEEDED, 0))) {
        good = ppl__call_arguments(c, call, n, args) && record(c, d, call, model);
        mark(c, d);
        detach(c, d);
    }
    ppl__call_free(c, call);
    if (good)
        return d;
    ppl_density_free(d);
    return NULL;
}

void ppl_density_free(ppl_density *d)
{
    if (!d)
        return;
    ad_context *c = d->context, *previous = ad_context_use(c);
    c->held--;
    for (int64_t i = 0; i < d->n_latents; i++) {
        ad_free(d->latents[i].state);
        ad__name_hold(c, d->latents[i].name, -1);
    }
    if (d->tape) {
        ad__tape_hold_names(c, d->tape, 0, d->named, -1);
        ad__tape_free(c, d->tape);
    }
    ad__allocate(c, d->latents, 0);
    ad__allocate(c, d->jacobian, 0);
    ad__allocate(c, d, 0);
    ad_context_use(previous);
}

/* ---- evaluating -------------------------------------------------------------------------------------------------- */

int64_t ppl_density_size(ppl_density *d)
{
    return d ? d->size : 0;
}

static const latent *find(const ppl_density *d, const char *site)
{
    for (int64_t i = 0; d && site && i < d->n_latents; i++)
        if (!strcmp(ad__name_text(d->context, d->latents[i].name), site))
            return &d->latents[i];
    return NULL;
}

bool ppl_density_part(ppl_density *d, const char *site, int64_t *start, int64_t *size)
{
    const latent *l = find(d, site);
    if (!l)
        return false;
    *start = l->start;
    *size = l->size;
    return true;
}

/* Runs the attached program at u for these nodes and cuts the run off the tape again. */
static bool evaluate(ad_context *c, ppl_density *d, const double *u, const node_id *roots, int n)
{
    tape *t = d->tape;
    for (int64_t i = 0; i < d->n_latents; i++) {
        const latent *l = &d->latents[i];
        if (!ad_write_data(l->state, u + l->start, AD_FROM_DOUBLE, l->size))
            return false;
    }
    t->segments = 0;
    bool ran = ad__run(c, &(run_request){ .roots = roots, .n_roots = n, .final = true }, NULL);
    ad__tape_rewind(c, t, &d->recorded);
    return ran;
}

static bool fetch(ad_context *c, ppl_density *d, node_id id, double *out, int64_t n)
{
    bool done = n == 0 || ad_read_data(ad__handle(c, id), out, AD_FROM_DOUBLE, n);
    d->tape->place[id] = (place){ .kind = PLACE_NONE };
    return done;
}

double ppl_density_value(ppl_density *d, const double *u, double *gradient)
{
    if (!d)
        return NAN;
    ad_context *c = d->context, *previous = ad_context_use(c);
    node_id roots[] = { d->total, d->gradient };
    double value = NAN;
    attach(c, d);
    if (evaluate(c, d, u, roots, gradient ? 2 : 1)) {
        bool done = fetch(c, d, d->total, &value, 1);
        if (gradient)
            done = fetch(c, d, d->gradient, gradient, d->size) && done;
        if (!done)
            value = NAN;
    }
    detach(c, d);
    ad_context_use(previous);
    return value;
}

/* Appends the second derivatives to the program: row by row, the gradient of each element of the gradient. */
static bool record_hessian(ad_context *c, ppl_density *d)
{
    ad_tensor *g = ad__handle(c, d->gradient), **row = ad__step_bytes(c, (size_t)(d->size + 1) * sizeof *row);
    if (!row)
        return false;
    for (int64_t i = 0; i < d->size; i++)
        row[i] = gradient_of(c, d, ad_sum(ad_slice(g, 0, i, 1)));
    ad_tensor *all = d->size ? ad_stack(row, (int)d->size, 0) : g;
    node_id id = ad__node(c, all, "the second derivatives");
    if (id < 0)
        return false;
    d->hessian = id;
    mark(c, d);
    return true;
}

bool ppl_density_hessian(ppl_density *d, const double *u, double *out)
{
    if (!d)
        return false;
    ad_context *c = d->context, *previous = ad_context_use(c);
    attach(c, d);
    bool done = (d->hessian >= 0 || record_hessian(c, d)) && evaluate(c, d, u, &d->hessian, 1) &&
                fetch(c, d, d->hessian, out, d->size * d->size);
    detach(c, d);
    ad_context_use(previous);
    return done;
}

bool ppl_density_constrained(ppl_density *d, const double *u, const char *site, double *out, int64_t n)
{
    const latent *l = find(d, site);
    if (!l)
        return ad_fail(AD_ERROR_SITE, NULL, "the density has no latent site \"%s\"", site ? site : "?"), false;
    ad_context *c = d->context, *previous = ad_context_use(c);
    attach(c, d);
    node_id id = ad__node(c, l->value, "a latent site");
    int64_t size = ad_size(l->value);
    bool done = id >= 0 && n == size;
    if (id >= 0 && !done)
        ad__fail(c, AD_ERROR_SHAPE, NULL, "site \"%s\" has %lld elements; %lld were asked for", site, (long long)size,
                 (long long)n);
    if (done && l->value == l->state)
        memcpy(out, u + l->start, (size_t)n * sizeof *out);
    else
        done = done && evaluate(c, d, u, &id, 1) && fetch(c, d, id, out, n);
    detach(c, d);
    ad_context_use(previous);
    return done;
}
