/* Log densities of models as functions of a flat vector. Called by users and by samplers.
 * The model is recorded once, as a held program (autodiff/program.h) whose inputs are the unconstrained latent sites; an
 * evaluation fills them and runs a state of it. */
#include <math.h>
#include <string.h>

#include "autodiff/program.h"
#include "ppl/entry.h"

/* A latent site. */
typedef struct latent {
    int32_t name;
    ad_tensor *input; /* unconstrained */
    ad_tensor *value; /* constrained, while recording */
    node_id at;       /* the same on the program's tape */
    int64_t start, size, value_size;
    run_state *constrain; /* gives the value; NULL: not asked for yet */
} latent;

struct ppl_density {
    owned own;
    program *program;
    latent *latents;
    int64_t n_latents, cap_latents, size;
    ad_tensor **jacobian; /* log-Jacobians while recording */
    int64_t n_jacobian, cap_jacobian;
    node_id total, gradient, hessian;           /* a scalar, (n), (n, n); hessian -1: not recorded yet */
    run_state *value, *with_gradient, *curvature; /* made when first asked for */
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
    *l = (latent){ .name = m->id, .input = ad_from_data(NULL, AD_FROM_DOUBLE, u), .start = d->size };
    l->size = ad_size(l->input);
    ad__name_hold(c, m->id, 1);
    d->n_latents++;
    d->size += l->size;
    return l;
}

/* Gives each latent site a value from its input. */
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
    m->value = l->value = dist_constrain(&support, DIST_BIJECT_TO, l->input);
    m->done = true;
    if (support.kind != DIST_REAL)
        d->jacobian[d->n_jacobian++] = dist_log_det(&support, l->input);
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
        x[i] = d->latents[i].input;
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
    for (int64_t i = 0; i < d->n_latents; i++) {
        latent *l = &d->latents[i];
        l->at = ad__node(c, l->value, "a latent site");
        l->value_size = ad_size(l->value);
    }
    return ad__ok(c);
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

/* What a density holds, at its end or its context's. */
static void end(void *object)
{
    ppl_density *d = object;
    ad_context *c = d->own.context;
    run_state *states[] = { d->value, d->with_gradient, d->curvature };
    for (int i = 0; i < 3; i++)
        ad__run_state_free(states[i]);
    for (int64_t i = 0; i < d->n_latents; i++) {
        ad__run_state_free(d->latents[i].constrain);
        ad_free(d->latents[i].input);
        ad__name_hold(c, d->latents[i].name, -1);
    }
    ad__program_free(d->program);
    ad__allocate(c, d->latents, 0);
    ad__allocate(c, d->jacobian, 0);
    d->latents = NULL;
    d->n_latents = 0;
}

ppl_density *ppl_density_new_args(ppl_function model, ppl_signature types, int n, const ppl_arg *args)
{
    ENTRY(e);
    ad_context *c = ppl__entry_begin(&e, NULL, "ppl_density_new", true);
    if (!c)
        return NULL;
    ad__begin_call(c);
    if (!model) {
        ad__fail(c, AD_ERROR_ARGUMENT, NULL, "ppl_density_new: the model is NULL");
        ppl__entry_end(&e);
        return NULL;
    }
    ppl_density *d = ad__owned_new(c, sizeof *d, end);
    ppl_call *call = d ? ppl__call_new(c, &types) : NULL;
    ppl__entry_holds(&e, call, d);
    if (call && ad__tape_open(c, STREAM_SEEDED, 0)) {
        d->hessian = -1;
        if (ppl__call_arguments(c, call, n, args) && record(c, d, call, model))
            d->program = ad__program_hold(c);
        else
            ad__tape_close(c);
    }
    ppl__call_free(c, call);
    ppl__entry_end(&e);
    if (d && d->program)
        return d;
    ppl_density_free(d);
    return NULL;
}

void ppl_density_free(ppl_density *d)
{
    ad__owned_free(d, "ppl_density_free");
}

/* ---- evaluating -------------------------------------------------------------------------------------------------- */

int64_t ppl_density_size(ppl_density *d)
{
    return d ? d->size : 0;
}

static latent *find(const ppl_density *d, const char *site)
{
    for (int64_t i = 0; d && d->own.context && site && i < d->n_latents; i++)
        if (!strcmp(ad__name_text(d->own.context, d->latents[i].name), site))
            return &d->latents[i];
    return NULL;
}

static void unknown(const ppl_density *d, const char *site)
{
    known k = { .wanted = site, .letters = INT_MAX };
    if (ad__current())
        ad__begin_call(ad__current());
    for (int64_t i = 0; d && i < d->n_latents; i++)
        ppl__known_add(&k, ad__name_text(d->own.context, d->latents[i].name));
    ad_fail(AD_ERROR_SITE, ppl__known_text(&k, NULL), "the density has no latent site \"%s\"", site ? site : "?");
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

/* The state that runs the program for some roots, made when it is first asked for; NULL after an error. */
static run_state *state_of(ad_context *c, ppl_density *d, run_state **state, const node_id *roots, int n)
{
    if (*state)
        return *state;
    ad_tensor **inputs = ad__allocate(c, NULL, (size_t)(d->n_latents + 1) * sizeof(ad_tensor *));
    if (!inputs)
        return NULL;
    for (int64_t i = 0; i < d->n_latents; i++)
        inputs[i] = d->latents[i].input;
    *state = ad__run_state_new(d->program, &(run_request){ .roots = roots, .n_roots = n, .final = true }, inputs,
                               (int)d->n_latents, false);
    ad__allocate(c, inputs, 0);
    return *state;
}

static bool evaluate(ppl_density *d, run_state *s, const double *u)
{
    if (!s || !ad__run_state_begin(s))
        return false;
    for (int64_t i = 0; i < d->n_latents; i++)
        ad__run_state_write(s, (int)i, u + d->latents[i].start, d->latents[i].size);
    bool ran = ad__run_state_run(s);
    return ad__run_state_report(s) && ran;
}

/* Begins a call on a density, at u, for out. Outside of steps an earlier error does not matter to it. */
static ad_context *begin(ad_use *use, ppl_density *d, const double *u, const double *out, const char *call)
{
    ad_context *c = ad__use_begin(use, d, call);
    if (!c)
        return NULL;
    ad__begin_call(c);
    if ((u && out) || !d->size)
        return c;
    ad__fail(c, AD_ERROR_ARGUMENT, NULL, "%s: the vector is NULL", call);
    ad__use_end(use);
    return NULL;
}

double(ppl_density_value)(ppl_density *d, const double *u, double *gradient)
{
    ad_use use;
    ad_context *c = begin(&use, d, u, u, "ppl_density_value");
    if (!c)
        return NAN;
    const node_id roots[] = { d->total, d->gradient };
    run_state *s = gradient ? state_of(c, d, &d->with_gradient, roots, 2) : state_of(c, d, &d->value, roots, 1);
    double value = NAN;
    bool done = evaluate(d, s, u) && ad__run_state_read(s, 0, &value, 1) &&
                (!gradient || ad__run_state_read(s, 1, gradient, d->size));
    ad__use_end(&use);
    return done ? value : NAN;
}

/* Appends the second derivatives to the program: row by row, the gradient of each element of the gradient. */
static bool record_hessian(ad_context *c, ppl_density *d)
{
    ad__program_resume(d->program);
    ad_tensor *g = ad__handle(c, d->gradient), **row = ad__step_bytes(c, (size_t)(d->size + 1) * sizeof *row);
    for (int64_t i = 0; row && i < d->size; i++)
        row[i] = gradient_of(c, d, ad_sum(ad_slice(g, 0, i, 1)));
    d->hessian = row ? ad__node(c, d->size ? ad_stack(row, (int)d->size, 0) : g, "the second derivatives") : -1;
    ad__program_suspend(d->program, d->hessian >= 0);
    return d->hessian >= 0;
}

bool(ppl_density_hessian)(ppl_density *d, const double *u, double *out)
{
    ad_use use;
    ad_context *c = begin(&use, d, u, out, "ppl_density_hessian");
    if (!c)
        return false;
    bool done = (d->hessian >= 0 || record_hessian(c, d)) &&
                evaluate(d, state_of(c, d, &d->curvature, &d->hessian, 1), u) &&
                ad__run_state_read(d->curvature, 0, out, d->size * d->size);
    ad__use_end(&use);
    return done;
}

bool(ppl_density_constrained)(ppl_density *d, const double *u, const char *site, double *out, int64_t n)
{
    ad_use use;
    ad_context *c = begin(&use, d, u, out, "ppl_density_constrained");
    if (!c)
        return false;
    latent *l = find(d, site);
    bool done = false;
    if (!l)
        unknown(d, site);
    else if (n != l->value_size)
        ad__fail(c, AD_ERROR_SHAPE, NULL, "site \"%s\" has %lld elements; %lld were asked for", site,
                 (long long)l->value_size, (long long)n);
    else
        done = evaluate(d, state_of(c, d, &l->constrain, &l->at, 1), u) &&
               ad__run_state_read(l->constrain, 0, out, n);
    ad__use_end(&use);
    return done;
}
