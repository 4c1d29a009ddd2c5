/* ELBO estimators: guide and model are run, checked against each other, and turned into a loss and what is
 * differentiated. Called by svi.c on an open tape. After Pyro's trace_elbo.py and trace_mean_field_elbo.py.
 *
 *   loss       = - (sum of model log p - sum of guide log q), scaled and masked, averaged over particles
 *   surrogate  = the same without log q of sites whose draws stop gradients; these come in as stop(cost) log q, where
 *                the cost of a site is the part of log p - log q that shares its plates (Rao-Blackwellisation). */
#include <string.h>

#include "distributions/class.h"
#include "ppl/inference.h"

/* ---- terms ------------------------------------------------------------------------------------------------------- */

typedef struct terms {
    ad_tensor **x;
    double *weight;
    int n, cap;
} terms;

static void add_term(ad_context *c, terms *t, ad_tensor *x, double weight)
{
    if (t->n == t->cap) {
        int cap = t->cap ? 2 * t->cap : 16;
        ad_tensor **xs = ad__step_bytes(c, (size_t)cap * sizeof *xs);
        double *weights = ad__step_bytes(c, (size_t)cap * sizeof *weights);
        if (!xs || !weights)
            return;
        if (t->n) {
            memcpy(xs, t->x, (size_t)t->n * sizeof *xs);
            memcpy(weights, t->weight, (size_t)t->n * sizeof *weights);
        }
        *t = (terms){ xs, weights, t->n, cap };
    }
    t->x[t->n] = x;
    t->weight[t->n++] = weight;
}

/* ---- guide against model ----------------------------------------------------------------------------------------- */

static int64_t from_right(const ad_shape *batch, const ad_shape *event, int i)
{
    if (i < event->rank)
        return event->dim[event->rank - 1 - i];
    i -= event->rank;
    return i < batch->rank ? batch->dim[batch->rank - 1 - i] : 1;
}

static bool shapes_agree(ad_context *c, const site *guide, const site *model)
{
    const dist_object *g = ad__object(c, guide->m.fn, "the distribution");
    const dist_object *m = ad__object(c, model->m.fn, "the distribution");
    if (g && m && g->batch == m->batch && g->event == m->event && g->to_event == m->to_event)
        return true; /* shapes are interned */
    ad_shape gb = dist_batch_shape(guide->m.fn), ge = dist_event_shape(guide->m.fn);
    ad_shape mb = dist_batch_shape(model->m.fn), me = dist_event_shape(model->m.fn);
    if (!ad__ok(c))
        return false;
    if (ge.rank != me.rank) {
        ppl__at(c, guide->m.at);
        ad__fail(c, AD_ERROR_SHAPE, "dist_to_event makes batch dimensions event dimensions",
                 "Model and guide event_dims disagree at site \"%s\": %d vs %d", guide->m.name, me.rank, ge.rank);
        return false;
    }
    int rank = gb.rank > mb.rank ? gb.rank : mb.rank;
    for (int i = 0; i < rank + ge.rank; i++) {
        if (from_right(&gb, &ge, i) == from_right(&mb, &me, i))
            continue;
        ppl__at(c, guide->m.at);
        ad__fail(c, AD_ERROR_SHAPE, NULL,
                 "Model and guide shapes disagree at site \"%s\": model has batch shape %s and event shape %s, guide "
                 "%s and %s",
                 guide->m.name, ad__shape_text(c, &mb), ad__shape_text(c, &me), ad__shape_text(c, &gb),
                 ad__shape_text(c, &ge));
        return false;
    }
    return true;
}

/* Makes partners of the latent sites that both have; false, with an error, where the two do not fit. */
static bool match(ad_context *c, const trace *guide, const trace *model)
{
    for (int i = 0; i < guide->n; i++) {
        site *g = guide->site[i], *m = g->m.type == PPL_PARAM ? NULL : ppl__trace_find(model, g->m.id);
        if (g->m.type == PPL_SUBSAMPLE && g->m.value && !m) {
            ppl__at(c, g->m.at);
            ad__fail(c, AD_ERROR_SITE, NULL, "Found plate statements in guide but not model: \"%s\"", g->m.name);
            return false;
        }
        if (!ppl__latent(g))
            continue;
        bool shared = m && ppl__latent(m);
        if (!shared && !g->m.infer.auxiliary) {
            ppl__at(c, g->m.at);
            ad__fail(c, AD_ERROR_SITE, "sample it in the model too, or mark it .infer = { .auxiliary = true }",
                     "Found non-auxiliary vars in guide but not model: \"%s\"%s", g->m.name,
                     !m                          ? ""
                     : m->m.infer.deterministic ? ", which is deterministic in the model"
                                                : ", which is observed in the model");
            return false;
        }
        if (shared && g->m.infer.auxiliary) {
            ad__fail(c, AD_ERROR_SITE, NULL, "Found auxiliary vars in the model: \"%s\"", g->m.name);
            return false;
        }
        if (!shared)
            continue;
        if (!shapes_agree(c, g, m))
            return false;
        g->partner = m;
        m->partner = g;
    }
    for (int i = 0; i < model->n; i++) {
        const site *m = model->site[i];
        if (!ppl__latent(m) || m->m.infer.from_prior || m->partner)
            continue;
        ppl__at(c, m->m.at);
        ad__fail(c, AD_ERROR_SITE, "sample it in the guide, or mark it .infer = { .from_prior = true }",
                 "Found vars in model but not guide: \"%s\"", m->m.name);
        return false;
    }
    return true;
}

/* ---- the score function ------------------------------------------------------------------------------------------ */

/* Costs that share one set of vectorised plates, which are told by name and dimension. */
typedef struct cost {
    const char *plate[AD_MAX_RANK]; /* interned name at dimension -1 - i */
    ad_tensor *sum;
} cost;

static void plates_of(const site *s, const char **plate)
{
    memset(plate, 0, AD_MAX_RANK * sizeof *plate);
    for (int i = 0; i < s->m.n_frames; i++)
        if (s->m.frame[i]->dim)
            plate[-1 - s->m.frame[i]->dim] = s->m.frame[i]->name;
}

static ad_tensor *scaled(const site *s, ad_tensor *x)
{
    return s->m.scale == 1 ? x : ad_mul(s->m.scale, x);
}

/* The costs of a particle, grouped by plates: at every model site log p, less log q where the guide drew it. */
static int gather_costs(const trace *model, cost *costs)
{
    int n = 0;
    for (int i = 0; i < model->n; i++) {
        site *m = model->site[i], *g = m->partner;
        if (!ppl__scored(m))
            continue;
        const char *plate[AD_MAX_RANK];
        plates_of(m, plate);
        ad_tensor *x = scaled(m, m->log_prob);
        if (g)
            x = ad_sub(x, scaled(g, g->log_prob));
        int k = 0;
        while (k < n && memcmp(costs[k].plate, plate, sizeof plate))
            k++;
        costs[k].sum = k < n ? ad_add(costs[k].sum, x) : x;
        if (k == n)
            memcpy(costs[n++].plate, plate, sizeof plate);
    }
    for (int k = 0; k < n; k++)
        costs[k].sum = ad_stop_gradient(costs[k].sum);
    return n;
}

/* x summed over the dimensions of plates that `to` has not, leading dimensions of size 1 dropped. */
static ad_tensor *sum_to_plates(const cost *from, const char *const *to)
{
    ad_tensor *x = from->sum;
    ad_shape s = ad_shape_of(x);
    int axes[AD_MAX_RANK], n = 0;
    for (int i = 0; i < s.rank; i++)
        if (from->plate[i] && from->plate[i] != to[i] && s.dim[s.rank - 1 - i] != 1)
            axes[n++] = -1 - i;
    if (n)
        x = ad_reduce(AD_SUM, x, axes, n, true);
    s = ad_shape_of(x);
    int lead = 0;
    while (lead < s.rank && s.dim[lead] == 1)
        lead++;
    if (!lead)
        return x;
    memmove(s.dim, s.dim + lead, (size_t)(s.rank - lead) * sizeof *s.dim);
    s.rank -= lead;
    return ad_reshape(x, s);
}

static bool pathwise(ad_context *c, const site *s)
{
    const dist_object *o = ad__object(c, s->m.fn, "the distribution");
    return o && o->of->has_rsample && !o->score;
}

static void score_terms(ad_context *c, terms *t, const trace *guide, const trace *model, double weight)
{
    cost *costs = ad__step_bytes(c, (size_t)(model->n + 1) * sizeof *costs);
    if (!costs)
        return;
    int n = gather_costs(model, costs);
    for (int i = 0; i < guide->n && ad__ok(c); i++) {
        site *g = guide->site[i];
        if (!ppl__latent(g) || pathwise(c, g))
            continue;
        const char *plate[AD_MAX_RANK];
        plates_of(g, plate);
        ad_tensor *sum = NULL;
        for (int k = 0; k < n; k++) {
            ad_tensor *x = sum_to_plates(&costs[k], plate);
            sum = sum ? ad_add(sum, x) : x;
        }
        if (sum)
            add_term(c, t, ad_mul(sum, g->unmasked), weight);
    }
}

/* ---- the estimators ---------------------------------------------------------------------------------------------- */

/* Whether both sides of a latent site count alike: then the term of the loss is a multiple of a divergence. */
static bool alike(const site *g, const site *m)
{
    return g->m.scale == m->m.scale && g->m.mask == m->m.mask;
}

static bool has_entropy(ad_context *c, const site *s)
{
    const dist_object *o = ad__object(c, s->m.fn, "the distribution");
    return o && o->of->entropy;
}

/* Whether the term of a latent site that model and guide share is taken in closed form. */
static bool is_closed(ad_context *c, const svi *s, const site *g, const site *m)
{
    return s->elbo.kind == ELBO_MEAN_FIELD && g && m && dist_has_kl(g->m.fn, m->m.fn) &&
           (alike(g, m) || has_entropy(c, g));
}

static void add_masked(ad_context *c, terms *loss, const site *s, ad_tensor *x, double weight)
{
    if (s->m.mask)
        x = ad_where(s->m.mask, x, ad_constant(0));
    if (ppl__fits_plates(c, s, x))
        add_term(c, loss, x, weight * s->m.scale);
}

/* E_q[log q - log p] = KL; where the two sides count differently, -E_q[log p] = KL + H(q) and E_q[log q] = -H(q), each
 * with its own scale and mask. (Pyro takes the guide's for both.) */
static void closed_term(ad_context *c, terms *loss, const site *g, const site *m, double weight)
{
    ad_tensor *kl = dist_kl(g->m.fn, m->m.fn);
    if (alike(g, m)) {
        add_masked(c, loss, m, kl, weight);
        return;
    }
    ad_tensor *entropy = dist_entropy(g->m.fn);
    add_masked(c, loss, m, ad_add(kl, entropy), weight);
    add_masked(c, loss, g, entropy, -weight);
}

/* Adds one particle's terms: to the loss, and to the surrogate where that is kept apart. */
static void particle_terms(ad_context *c, const svi *s, const trace *guide, const trace *model, double weight,
                           terms *loss, terms *surrogate)
{
    error_frame in = { .outer = c->frame, .kind = "model" };
    c->frame = &in;
    for (int i = 0; i < model->n && ad__ok(c); i++) {
        site *m = model->site[i], *g = m->partner;
        if (!ppl__scored(m))
            continue;
        if (is_closed(c, s, g, m)) {
            closed_term(c, loss, g, m, weight);
            continue;
        }
        ad_tensor *lp = ppl__score(c, m);
        add_term(c, loss, lp, -weight * m->m.scale);
        if (surrogate)
            add_term(c, surrogate, lp, -weight * m->m.scale);
    }
    in.kind = "guide";
    for (int i = 0; i < guide->n && ad__ok(c); i++) {
        site *g = guide->site[i];
        const site *m = g->partner;
        if (!ppl__scored(g) || is_closed(c, s, g, m))
            continue;
        ad_tensor *lq = ppl__score(c, g);
        add_term(c, loss, lq, weight * g->m.scale);
        if (surrogate && (!ppl__latent(g) || pathwise(c, g)))
            add_term(c, surrogate, lq, weight * g->m.scale);
    }
    c->frame = in.outer;
    if (surrogate)
        score_terms(c, surrogate, guide, model, -weight);
}

/* Whether a guide draws somewhere without a pathwise gradient; the mean-field estimator refuses that. */
static bool needs_score(ad_context *c, const svi *s, const trace *guide)
{
    for (int i = 0; i < guide->n; i++) {
        const site *g = guide->site[i];
        if (!ppl__latent(g) || pathwise(c, g))
            continue;
        if (s->elbo.kind == ELBO_TRACE)
            return true;
        ppl__at(c, g->m.at);
        ad__fail(c, AD_ERROR_SITE, "use elbo_trace()",
                 "elbo_mean_field: guide site \"%s\" (%s) is not fully reparametrised", g->m.name, dist_name(g->m.fn));
    }
    return false;
}

/* Most batch dimensions that plates claim in one run of guide and model, on a tape of its own. */
static int plate_nesting(ad_context *c, svi *s)
{
    if (!ad__tape_open(c, STREAM_SEEDED, 0))
        return 0;
    const trace *guide = ppl__run(c, s->call, s->guide, "guide", NULL, NULL);
    const trace *model = guide ? ppl__run(c, s->call, s->model, "model", guide, NULL) : NULL;
    int a = model ? ppl__trace_nesting(guide) : 0, b = model ? ppl__trace_nesting(model) : 0;
    ad__tape_close(c);
    return a > b ? a : b;
}

bool ppl__estimate(ad_context *c, svi *s, estimate *e)
{
    ppl_state *st = ppl__state(c);
    int particles = s->elbo.particles, runs = s->elbo.vectorize ? 1 : particles;
    ppl_plate_args around = { .name = "num_particles_vectorized", .size = particles, .at_ = { c->file, c->line } };
    if (s->elbo.vectorize && !s->elbo.max_plate_nesting) {
        s->elbo.max_plate_nesting = plate_nesting(c, s);
        if (!ad__ok(c))
            return s->elbo.max_plate_nesting = 0, false;
        if (!s->elbo.max_plate_nesting)
            s->elbo.max_plate_nesting = -1; /* known to be none */
    }
    if (s->elbo.vectorize)
        around.dim = s->elbo.max_plate_nesting < 0 ? -1 : -1 - s->elbo.max_plate_nesting;
    *e = (estimate){ .particles = runs };
    e->guide = ad__step_bytes(c, 2 * (size_t)runs * sizeof *e->guide);
    if (!e->guide)
        return false;
    e->model = e->guide + runs;
    bool score = false;
    for (int i = 0; i < runs; i++) {
        const ppl_plate_args *plate = s->elbo.vectorize ? &around : NULL;
        st->particle = i;
        e->guide[i] = ppl__run(c, s->call, s->guide, "guide", NULL, plate);
        e->model[i] = e->guide[i] ? ppl__run(c, s->call, s->model, "model", e->guide[i], plate) : NULL;
        st->particle = 0;
        if (!e->model[i] || !match(c, e->guide[i], e->model[i]))
            return false;
        score |= needs_score(c, s, e->guide[i]);
    }
    terms loss = { .n = 0 }, surrogate = { .n = 0 };
    for (int i = 0; i < runs && ad__ok(c); i++)
        particle_terms(c, s, e->guide[i], e->model[i], 1.0 / particles, &loss, score ? &surrogate : NULL);
    e->loss = ad_weighted_total(loss.x, loss.weight, loss.n);
    e->surrogate = score ? ad_weighted_total(surrogate.x, surrogate.weight, surrogate.n) : e->loss;
    return ad__ok(c);
}
