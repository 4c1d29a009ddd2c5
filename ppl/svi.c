/* The step of stochastic variational inference: record, differentiate, move the parameters, all or nothing.
 * Called by the user's loop. A step runs on a tape of its own, keyed by the instance's stream and run counter. */
#include <math.h>
#include <string.h>

#include "ppl/entry.h"
#include "ppl/inference.h"

/* ---- instances --------------------------------------------------------------------------------------------------- */

static bool sensible(ad_context *c, const struct elbo *e)
{
    const char *wrong = e->particles < 0 || e->particles > 0xffff ? "particles" : "max_plate_nesting";
    if ((unsigned)e->kind > ELBO_MEAN_FIELD)
        ad__fail(c, AD_ERROR_ARGUMENT, "make it with elbo_trace(...) and its like", "svi_new: there is no estimator %d",
                 (int)e->kind);
    else if (e->particles < 0 || e->particles > 0xffff || e->max_plate_nesting < PPL_NONE ||
             e->max_plate_nesting >= AD_MAX_RANK)
        ad__fail(c, AD_ERROR_ARGUMENT, *wrong == 'p' ? "1 to 65535; 0: 1" : "PPL_NONE says that there are no plates",
                 "svi_new: the elbo's %s is %d", wrong, *wrong == 'p' ? e->particles : e->max_plate_nesting);
    return ad__ok(c);
}

static void drop(moment *m)
{
    for (int i = 0; i < 2; i++)
        if (m->state[i])
            ad_free(m->state[i]);
    *m = (moment){ .life = 0 };
}

/* What an instance holds, at its end or its context's. */
static void end(void *object)
{
    svi *s = object;
    ad_context *c = s->own.context;
    for (int64_t i = 0; i < s->n_moments; i++)
        drop(&s->moments[i]);
    ppl__call_free(c, s->call);
    ad__allocate(c, s->rules, 0);
    ad__allocate(c, s->moments, 0);
}

svi *svi_new_functions(ppl_function model, ppl_function guide, svi_options o)
{
    ad_context *c = ad__current();
    ppl_state *st = ppl__state(c);
    if (!st)
        return NULL;
    ad__begin_call(c);
    ppl__at(c, o.at_);
    if (!model || !guide) {
        ad__fail(c, AD_ERROR_ARGUMENT, NULL, "svi_new: the %s is NULL", model ? "guide" : "model");
        return NULL;
    }
    if (ppl__needs_types(c, &o.args, o.takes_some_, "svi_new") || !sensible(c, &o.elbo) ||
        !ppl__optim_settle(c, &o.optim))
        return NULL;
    svi *s = ad__owned_new(c, sizeof *s, end);
    if (!s)
        return NULL;
    s->model = model, s->guide = guide, s->optim = o.optim, s->elbo = o.elbo, s->id = ++st->lives;
    if (s->elbo.particles == 0)
        s->elbo.particles = 1;
    if (ppl__optim_copy_rules(c, s) && (s->call = ppl__call_new(c, &o.args))) {
        ppl__streams_begin(c, &s->streams);
        return s;
    }
    svi_free(s);
    return NULL;
}

void svi_free(svi *s)
{
    ad_context *c = s ? s->own.context : NULL;
    if (c)
        ppl__recover(c, __builtin_frame_address(0));
    if (!c || !ppl__refuse_inside(c, ppl__state(c), "svi_free"))
        ad__owned_free(s, "svi_free");
}

const char *svi_error(svi *s)
{
    return !s              ? "the svi is NULL: svi_new failed"
           : s->own.context ? s->error
                            : "the context that the svi was made in has ended";
}
int64_t svi_steps(svi *s)
{
    return s ? s->steps : 0;
}

/* ---- the parameters of a step ------------------------------------------------------------------------------------ */

/* Room for the moments of every parameter, none of them of one that has ended; false after an error. */
static bool room_for_moments(ad_context *c, svi *s, const ppl_state *st)
{
    for (int64_t i = 0; s->deaths != st->deaths && i < s->n_moments; i++)
        if (s->moments[i].life != st->slots[i].life)
            drop(&s->moments[i]);
    s->deaths = st->deaths;
    if (s->n_moments >= st->n_slots)
        return true;
    if (!ad__reserve(c, &s->moments, &s->cap_moments, st->n_slots, sizeof *s->moments))
        return false;
    memset(s->moments + s->n_moments, 0, (size_t)(st->n_slots - s->n_moments) * sizeof *s->moments);
    s->n_moments = st->n_slots;
    return true;
}

/* Begins the moments of a parameter, which has none or is another than before; false after an error. */
static bool begin_moment(ad_context *c, const svi *s, moment *m, const param *p)
{
    drop(m);
    m->rule = -1;
    for (int64_t i = 0; i < s->n_rules && m->rule < 0; i++)
        if (ppl__glob(s->rules[i].pattern, ad__name_text(c, p->name)))
            m->rule = (int32_t)i;
    for (int i = 0; i < ppl__optim_states(&s->optim); i++) {
        m->state[i] = ad_state(ad__shape_info(c, p->shape)->shape);
        if (ad_is_nil(m->state[i])) {
            m->state[i] = NULL;
            return false;
        }
    }
    m->life = p->life;
    return true;
}

/* Finds the parameters in the traces, each once, in order of visit; false after an error. */
static bool collect(ad_context *c, step *p)
{
    ppl_state *st = ppl__state(c);
    const estimate *e = &p->estimate;
    p->visited = ad__step_bytes(c, (size_t)(st->n_params + 1) * sizeof *p->visited);
    if (!p->visited || !room_for_moments(c, p->svi, st))
        return false;
    for (int i = 0; i < 2 * e->particles; i++) {
        const trace *t = i % 2 ? e->model[i / 2] : e->guide[i / 2];
        for (const site *s = t->first_param; s; s = s->next_param) {
            if (!s->m.unconstrained)
                continue;
            param *q = &st->params[st->names[s->m.id].param - 1];
            if (q->collected == c->tape->generation)
                continue;
            q->collected = c->tape->generation;
            moment *m = &p->svi->moments[q->slot];
            if (m->life != q->life && !begin_moment(c, p->svi, m, q))
                return false;
            p->visited[p->n++] = (visited){ .param = q, .moment = m, .leaf = ad__node(c, q->leaf, "a parameter") };
        }
    }
    return ad__ok(c);
}

/* ---- the step ---------------------------------------------------------------------------------------------------- */

/* A state on the tape that no parameter of this step stands for: forgotten, unless a handler hid its message. */
static bool forgotten(const ad_context *c, const ppl_state *st, const step *p, node_id id)
{
    const node *n = &c->tape->node[id];
    if (n->op != OP_state)
        return false;
    for (int i = 0; i < p->n; i++)
        if (p->visited[i].leaf == id)
            return false;
    for (int64_t i = 0; i < st->n_params; i++) {
        const tensor *x = st->params[i].leaf ? ad__tensor((ad_context *)c, st->params[i].leaf) : NULL;
        if (x && x->serial == ad__attrs(c->tape, id)[0] && st->params[i].tape_generation == c->tape->generation)
            return false;
    }
    return true;
}

/* Refuses a step whose loss depends on a state that nobody registered: Pyro would leave it untrained in silence. `leaf`
 * and `d` have room for every node. */
static bool check_registered(ad_context *c, const step *p, node_id surrogate, node_id *leaf, node_id *d)
{
    const ppl_state *st = ppl__state(c);
    int n = 0;
    for (node_id i = 0; i <= surrogate; i++)
        if (forgotten(c, st, p, i))
            leaf[n++] = i;
    if (!n)
        return true;
    if (!ad__gradient(c, surrogate, leaf, n, d))
        return false;
    for (int i = 0; i < n; i++) {
        if (d[i] < 0)
            continue;
        ppl__at(c, (ppl_source){ c->tape->where[leaf[i]].file, c->tape->where[leaf[i]].line });
        ad__fail(c, AD_ERROR_SITE, "call ppl_param at every step, or ad_stop_gradient if it is not to be trained",
                 "the loss depends on a persistent state of shape %s that no ppl_param of this step gave",
                 ad__shape_text(c, &ad__shape_info(c, c->tape->node[leaf[i]].shape)->shape));
        return false;
    }
    return true;
}

/* Whether one of the first n nodes was read by the host though it depends on the leaf. `dirty` has room for n. */
static bool was_read(ad_context *c, node_id leaf, int64_t n, bool *dirty)
{
    const tape *t = c->tape;
    memset(dirty, 0, (size_t)n * sizeof *dirty);
    dirty[leaf] = true;
    for (node_id i = leaf + 1; i < n; i++) {
        for (int k = 0; k < t->node[i].n_inputs && t->node[i].op != OP_stop_gradient; k++)
            dirty[i] |= dirty[ad__inputs(t, i)[k]];
        if (dirty[i] && ad__place(t, i).kind != PLACE_NONE)
            return true;
    }
    const int64_t *state = ad__attrs(t, leaf);
    return c->tensors[state[1]].read_generation == t->generation;
}

/* Refuses a step on whose first sight a new parameter was read as a number and has no other way to the loss: it would
 * be left untrained in silence. d holds the gradients' nodes; n nodes were recorded by guide and model. */
static bool check_read(ad_context *c, const step *p, const node_id *d, int64_t n)
{
    bool *dirty = NULL;
    for (int i = 0; i < p->n; i++) {
        const visited *v = &p->visited[i];
        if (d[i] >= 0 || v->frozen || v->moment->commits)
            continue;
        if (!dirty && !(dirty = ad__step_bytes(c, (size_t)n * sizeof *dirty)))
            return false;
        if (!was_read(c, v->leaf, n, dirty))
            continue;
        ppl__at(c, (ppl_source){ c->tape->where[v->leaf].file, c->tape->where[v->leaf].line });
        ad__fail(c, AD_ERROR_SITE,
                 "use the tensor itself in operations; ad_item(ad_stop_gradient(p)) says that only its number is meant",
                 "parameter \"%s\" was read as a number (ad_item), and the loss depends on it in no other way: no "
                 "gradient reaches it",
                 ad__name_text(c, v->param->name));
        return false;
    }
    return true;
}

/* What an evaluation does at its first sight. */
static bool look(ad_context *c, void *user)
{
    const estimate *e = &((const step *)user)->estimate;
    return ppl__check(c, e->guide, e->model, e->particles, LOOK_AT_ALL);
}

/* What the recorded step implies: gradients, the guard, the update. Called at the first sight of a step only. */
static bool expand(ad_context *c, void *user)
{
    step *p = user;
    int64_t recorded = c->tape->n;
    if (!look(c, user))
        return false;
    int n = p->n;
    int64_t room = c->tape->n + 1;
    node_id *leaf = ad__step_bytes(c, 2 * (size_t)room * sizeof *leaf), *d = leaf + room;
    ad_tensor **gradient = ad__step_bytes(c, (size_t)(n + 1) * sizeof(ad_tensor *));
    node_id surrogate = ad__node(c, p->estimate.surrogate, "the surrogate loss");
    if (!leaf || !gradient || surrogate < 0 || !check_registered(c, p, surrogate, leaf, d))
        return false;
    for (int i = 0; i < n; i++)
        leaf[i] = p->visited[i].leaf;
    if (!ad__gradient(c, surrogate, leaf, n, d) || !check_read(c, p, d, recorded))
        return false;
    int guarded = 0;
    for (int i = 0; i < n; i++) {
        gradient[i] = d[i] < 0 || p->visited[i].frozen ? NULL : ad__handle(c, d[i]);
        if (gradient[i])
            leaf[guarded++] = d[i];
    }
    leaf[guarded++] = ad__node(c, p->estimate.loss, "the loss");
    ad__guard(c, leaf, guarded);
    ppl__optim_record(c, p->svi, &p->slots, p->visited, gradient, n);
    return ad__ok(c);
}

/* Names the first thing that is not finite: a site's log-density, or a parameter's gradient. The tape is still there;
 * the values are computed once more. */
static void blame(ad_context *c, step *p)
{
    const estimate *e = &p->estimate;
    for (int i = 0; i < 2 * e->particles; i++) {
        const trace *t = i % 2 ? e->model[i / 2] : e->guide[i / 2];
        for (int k = 0; k < t->n; k++) {
            site *s = t->site[k];
            if (!ppl__scored(s) || !s->log_prob || !ad__ok(c))
                continue;
            double sum = ad_item(ad_sum(s->log_prob));
            if (isfinite(sum))
                continue;
            char why[700];
            const char *advice;
            ppl__why(c, s, why, sizeof why, &advice);
            error_frame run = { .outer = c->frame, .kind = i % 2 ? "model" : "guide" }, frames[PPL_MAX_FRAMES + 1];
            c->frame = &run;
            ppl__stand_at(c, s, frames);
            bool data = s->m.is_observed && ad_item(ad_sum(ad_sub(1, ad_is_finite(s->m.value)))) != 0;
            ad__fail(c, AD_ERROR_NONFINITE,
                     !advice && data ? "the observation itself holds inf: .obs_mask marks what is missing" : advice,
                     "Encountered %s: loss; the %s's site \"%s\" (%s) has log-density %g%s", isnan(sum) ? "NaN" : "inf",
                     run.kind, s->m.name, dist_name(s->m.fn), isnan(sum) ? NAN : sum, why);
            c->frame = run.outer;
            return;
        }
    }
    ad_tensor **x = ad__step_bytes(c, 2 * (size_t)(p->n + 1) * sizeof *x), **g = x + p->n + 1;
    if (!x)
        return;
    for (int i = 0; i < p->n; i++)
        x[i] = p->visited[i].param->leaf;
    ad_gradient(e->surrogate, x, p->n, g);
    for (int i = 0; i < p->n && ad__ok(c); i++) {
        if (ad_item(ad_sum(ad_sub(1, ad_is_finite(g[i])))) == 0)
            continue;
        ad__fail(c, AD_ERROR_NONFINITE, NULL,
                 "Encountered NaN: the gradient of parameter \"%s\" is not finite; the loss is %g",
                 ad__name_text(c, p->visited[i].param->name), ad_item(e->loss));
        return;
    }
    ad__fail(c, AD_ERROR_NONFINITE, NULL, "Encountered NaN: the loss is %g", ad_item(e->loss));
}

bool ppl__step_record(ad_context *c, svi *s, bool train, step *p)
{
    *p = (step){ .svi = s };
    if (!ppl__estimate(c, s, &p->estimate))
        return false;
    p->loss = ad__node(c, p->estimate.loss, "the loss");
    p->request = (run_request){ .roots = &p->loss, .n_roots = 1, .final = true, .expand = look, .user = p };
    if (!train)
        return ad__ok(c);
    if (!collect(c, p))
        return false;
    p->numbers = c->tape->n_scalars;
    if ((!s->steps && !ppl__optim_check_rules(c, s)) || !ppl__optim_bind(c, s, p->visited, p->n, &p->slots))
        return false;
    uint64_t h = (uint64_t)p->n; /* which leaves are moved, by which numbers; the leaves themselves are on the tape */
    for (int i = 0; i < p->n; i++)
        h = ad__mix(h ^ ((uint64_t)p->visited[i].leaf << 32 | (uint32_t)p->visited[i].step)) + 0x9e3779b97f4a7c15u;
    p->attrs[0] = (int64_t)s->id;
    p->attrs[1] = ad__node(c, p->estimate.surrogate, "the surrogate loss");
    p->attrs[2] = (int64_t)h;
    p->request.commit = true;
    p->request.attrs = p->attrs;
    p->request.n_attrs = 3;
    p->request.expand = expand;
    return ad__ok(c);
}

double ppl__step_finish(ad_context *c, step *p, bool finite)
{
    double loss;
    if (!ad__fetch(c, p->loss, &loss, 1))
        return NAN;
    if (!finite || !isfinite(loss)) {
        blame(c, p);
        return NAN;
    }
    for (int i = 0; i < p->n; i++)
        p->visited[i].moment->commits += !p->visited[i].frozen;
    p->svi->steps += p->request.commit;
    return loss;
}

uint64_t ppl__step_stream(const ppl_state *st, svi *s, bool train, uint64_t *run)
{
    *run = 0;
    if (st->seeded)
        return STREAM_SEEDED;
    ppl__streams_now(s->own.context, &s->streams);
    *run = train ? s->streams.runs++ : s->streams.evaluations++;
    return s->streams.first + (train ? STREAM_STEP : STREAM_EVALUATE);
}

void ppl__step_told(svi *s)
{
    s->error[0] = '\0';
    if (!ad__ok(s->own.context))
        memcpy(s->error, s->own.context->error, sizeof s->error);
}

bool ppl__refuse_inside(ad_context *c, const ppl_state *st, const char *call)
{
    if (!st || !st->calls)
        return false;
    ad__fail(c, AD_ERROR_ARGUMENT, "call it from the loop around the steps", "%s inside a model or guide", call);
    return true;
}

double ppl__no_svi(const char *call)
{
    ad_fail(AD_ERROR_ARGUMENT, NULL, "%s: the svi is NULL: svi_new failed", call);
    return NAN;
}

/* A step or an evaluation from end to end: record guide and model on a tape of their own, find or make its plan, run it,
 * and keep what it changed or none of it. */
static double perform(svi *s, int n, const ppl_arg *args, bool train)
{
    ENTRY(e);
    if (!s)
        return ppl__no_svi(train ? "svi_step" : "svi_evaluate");
    ad_context *c = ppl__entry_begin(&e, s, train ? "svi_step" : "svi_evaluate", true);
    if (!c)
        return NAN;
    ppl_state *st = ppl__state(c);
    uint64_t run, stream = ppl__step_stream(st, s, train, &run);
    double loss = NAN;
    bool finite;
    if (ad__tape_open(c, stream, run)) {
        step p;
        st->in_step = true;
        if (ppl__call_arguments(c, s->call, n, args) && ppl__step_record(c, s, train, &p) &&
            ad__run(c, &p.request, &finite))
            loss = ppl__step_finish(c, &p, finite);
        ppl__params_settle(c, st, ad__ok(c));
        ad__tape_close(c);
    }
    ppl__step_told(s);
    if (!ad__ok(c))
        loss = NAN;
    ppl__entry_end(&e);
    return loss;
}

double svi_step_args(svi *s, int n, const ppl_arg *args)
{
    return perform(s, n, args, true);
}
double svi_evaluate_args(svi *s, int n, const ppl_arg *args)
{
    return perform(s, n, args, false);
}
