/* Many steps at once: a step is recorded and held, and its program runs again while its arguments stay alike. Called by
 * the user's loop. The held tape is off the context's stack while user code runs, so that nothing is recorded into
 * it. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ppl/entry.h"
#include "ppl/inference.h"

typedef struct held {
    ad_context *context;
    bool attached;
    step step;
    tape *tape;         /* NULL: nothing is held */
    tape_mark recorded; /* the program: a run appends to it, and is cut off */
    uint64_t tapes; /* that the context had opened: another number means that somebody recorded in between */
    int64_t again;       /* steps made without recording */
    uint64_t deaths;     /* of parameters, when it was recorded */
    uint64_t plan;       /* that ran last, 0: none */
    int n;
    ppl_arg args[PPL_MAX_ARGS]; /* those the tape stands for */
} held;

/* ---- arguments --------------------------------------------------------------------------------------------------- */

static bool same_value(const ppl_arg *a, const ppl_arg *b)
{
    return a->kind == b->kind && (a->kind == 't' || a->kind == 'p' ? a->as.pointer == b->as.pointer
                                                                   : a->as.integer == b->as.integer);
}

/* Whether tensor b can stand where a stood: a persistent one, no state, of the same shape and type. */
static bool like(ad_context *c, const ppl_arg *a, const ppl_arg *b)
{
    if (a->kind != 't' || b->kind != 't')
        return false;
    const tensor *x = ad__tensor(c, a->as.pointer), *y = ad__tensor(c, b->as.pointer);
    return x && y && x->kind != TENSOR_STATE && y->kind != TENSOR_STATE && x->shape == y->shape && x->dtype == y->dtype;
}

/* Puts tensors among the new arguments in the place of the old ones; false when the step must be recorded. Tensors that
 * were one must stay one, and those that were two, two: the program knows them apart. */
static bool adopt(ad_context *c, held *h, const ppl_arg *args)
{
    bool moved = false;
    for (int i = 0; i < h->n; i++) {
        bool same = same_value(&h->args[i], &args[i]);
        if (!same && !like(c, &h->args[i], &args[i]))
            return false;
        moved |= !same;
    }
    for (int i = 0; i < h->n && moved; i++)
        for (int k = 0; k < i; k++)
            if (h->args[i].kind == 't' && h->args[k].kind == 't' &&
                same_value(&h->args[i], &h->args[k]) != same_value(&args[i], &args[k]))
                return false;
    tape *t = h->tape;
    for (int64_t b = 0; b < t->n_bound && moved; b++)
        for (int i = 0; i < h->n; i++)
            if (h->args[i].kind == 't' && h->args[i].as.pointer == (const void *)t->bound[b]) {
                t->bound[b] = (ad_tensor *)(uintptr_t)args[i].as.pointer;
                break;
            }
    memcpy(h->args, args, (size_t)h->n * sizeof *args);
    return true;
}

/* ---- what must not change ---------------------------------------------------------------------------------------- */

static void differs(ad_context *c, const tape *t, node_id id, const char *what, double now, double before)
{
    const node *n = &t->node[id];
    char numbers[80] = "";
    if (now != before)
        snprintf(numbers, sizeof numbers, ": it is %g, and was %g when the step was recorded", now, before);
    c->file = t->where[id].file;
    c->line = t->where[id].line;
    ad__fail(c, AD_ERROR_SITE,
             "let .next change an argument of the model, or use the optimiser's .schedule; svi_step records every step",
             "svi_run: %s ad_%s%s%s%s is not what it was%s", what, ad__op_name(n->op), n->site < 0 ? "" : " at site \"",
             n->site < 0 ? "" : ad__name_text(c, n->site), n->site < 0 ? "" : "\"", numbers);
}

/* Whether node i means the same on both tapes. */
static bool same_node(const tape *a, const tape *b, node_id i)
{
    const node *m = &a->node[i], *n = &b->node[i];
    return !memcmp(m, n, sizeof *m) &&
           !memcmp(a->input + m->input, b->input + n->input, (size_t)n->n_inputs * sizeof *a->input) &&
           !memcmp(a->attr + m->attr, b->attr + n->attr, (size_t)n->n_attrs * sizeof *a->attr);
}

/* Compares the step that is recorded now, on the open tape, with the held one. */
static void compare(ad_context *c, const held *h, int64_t numbers)
{
    const tape *now = c->tape, *before = h->tape;
    int64_t n = now->n < h->recorded.n ? now->n : h->recorded.n;
    for (node_id i = 0; i < n; i++)
        if (!same_node(now, before, i)) {
            differs(c, now, i, "operation", 0, 0);
            return;
        }
    if (now->n != h->recorded.n) {
        differs(c, now->n > n ? now : before, (node_id)n, "operation", 0, 0);
        return;
    }
    for (node_id i = 0; i < n; i++) {
        int32_t slot = now->node[i].bind, op = now->node[i].op;
        if (slot < 0)
            continue;
        if (op == OP_input && now->bound[slot] != before->bound[slot]) {
            differs(c, now, i, "the tensor that enters as", 0, 0);
            return;
        }
        if (op == OP_input || slot >= numbers || !memcmp(&now->scalar[slot], &before->scalar[slot], sizeof(double)))
            continue;
        for (node_id k = op == OP_scalar ? i + 1 : i; k < n && ad__ok(c);
             k++) { /* its reader tells more than a number */
            bool reads = k == i;
            for (int j = 0; j < now->node[k].n_inputs && op == OP_scalar; j++)
                reads |= ad__inputs(now, k)[j] == i;
            if (reads)
                differs(c, now, k, "a number of", now->scalar[slot], before->scalar[slot]);
        }
        if (!ad__ok(c))
            return;
    }
}

/* Records the step once more, without running it, and compares. */
static bool verify(ad_context *c, held *h)
{
    ppl_state *st = ppl__state(c);
    svi *s = h->step.svi;
    if (!ad__tape_open(c, STREAM_SEEDED, 0))
        return false;
    step p;
    st->in_step = true;
    if (ppl__call_arguments(c, s->call, h->n, h->args) && ppl__step_record(c, s, true, &p))
        compare(c, h, p.numbers);
    ppl__params_settle(c, st, false);
    ad__tape_close(c);
    h->tapes = c->tapes;
    return ad__ok(c);
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

/* Takes the held tape off the stack, or puts it there. */
static void detach(ad_context *c, held *h)
{
    c->tape = h->tape->outer;
    h->attached = false;
    h->tapes = c->tapes;
}
static void attach(ad_context *c, held *h)
{
    h->tape->outer = c->tape;
    c->tape = h->tape;
    h->attached = true;
}

static void release(ad_context *c, held *h)
{
    if (!h->tape)
        return;
    attach(c, h);
    ad__tape_close(c);
    c->held--;
    h->tape = NULL;
    h->attached = false;
}

/* An ordinary step, held afterwards when it can run again: it must have been one run, without reads. */
static double first(ad_context *c, held *h, svi *s, int n, const ppl_arg *args)
{
    ppl_state *st = ppl__state(c);
    double loss = NAN;
    bool finite;
    uint64_t run, stream = ppl__step_stream(st, s, true, &run);
    release(c, h);
    if (!ad__tape_open(c, stream, run))
        return NAN;
    h->again = 0;
    h->plan = 0;
    h->deaths = st->deaths;
    h->n = n;
    st->in_step = true;
    if (ppl__call_arguments(c, s->call, n, args) && ppl__step_record(c, s, true, &h->step)) {
        h->recorded = ad__tape_mark(c->tape);
        if (ad__run(c, &h->step.request, &finite))
            loss = ppl__step_finish(c, &h->step, finite);
    }
    ppl__params_settle(c, st, ad__ok(c));
    if (!ad__ok(c) || c->tape->segments != 1) {
        ad__tape_close(c);
        return ad__ok(c) ? loss : NAN;
    }
    memcpy(h->args, args, (size_t)n * sizeof *args);
    h->tape = c->tape;
    c->held++;
    ad__tape_rewind(c, h->tape, &h->recorded);
    detach(c, h);
    return loss;
}

/* Nothing that the held tape stands on has gone: no recording in between, no parameter deleted. */
static bool stands(const ad_context *c, const held *h)
{
    if (!h->tape || h->tapes != c->tapes)
        return false;
    return h->deaths == ((const ppl_state *)c->client)->deaths;
}

/* The held step with this step's draws and optimiser's numbers. */
static double again(ad_context *c, held *h)
{
    tape *t = h->tape;
    step *p = &h->step;
    double loss = NAN;
    bool finite;
    uint64_t run, stream = ppl__step_stream(ppl__state(c), p->svi, true, &run);
    attach(c, h);
    t->key = philox_key(c->seeding.seed, stream, run);
    t->run = (uint32_t)run;
    t->segments = 0;
    t->place[p->loss] = (place){ .kind = PLACE_NONE };
    t->n_scalars = p->numbers;
    p->request.serial = &h->plan;
    if (ppl__optim_bind(c, p->svi, p->visited, p->n, &p->slots) && ad__run(c, &p->request, &finite))
        loss = ppl__step_finish(c, p, finite);
    ad__tape_rewind(c, t, &h->recorded);
    detach(c, h);
    h->again++;
    return ad__ok(c) ? loss : NAN;
}

/* One step of a run, NAN after an error. */
static double advance(ad_context *c, held *h, svi *s, int n, const ppl_arg *args)
{
    if (!stands(c, h) || !adopt(c, h, args))
        return first(c, h, s, n, args);
    c->error_kind = AD_ERROR_NONE;
    return h->again > 0 || verify(c, h) ? again(c, h) : NAN;
}

/* The user's callback, which may end otherwise than by return; false, too, where a call of its own was refused. */
static bool next(ad_context *c, ppl_state *st, const svi_run_options *o, int64_t made, ppl_arg *args)
{
    const void *user = st->user;
    if (!user)
        st->user = __builtin_frame_address(0);
    bool goes_on = o->next(o->user, made, args);
    st->user = user;
    return goes_on && ad__ok(c);
}

static void forget(held *h)
{
    if (h->tape && !h->attached)
        release(h->context, h);
}

double svi_run_steps(svi *s, svi_run_options o)
{
    ENTRY(e);
    if (!s)
        return ppl__no_svi("svi_run");
    ad_context *c = ppl__entry_begin(&e, s, "svi_run", true);
    if (!c)
        return NAN;
    ppl_state *st = ppl__state(c);
    int n = o.args.n || !o.next ? o.args.n : ppl__call_count(s->call);
    ppl_arg args[PPL_MAX_ARGS] = { { .kind = 0 } };
    if (o.args.n > 0 && o.args.n <= PPL_MAX_ARGS)
        memcpy(args, o.args.arg, (size_t)o.args.n * sizeof *args);
    held h __attribute__((cleanup(forget))) = { .context = c };
    double sum = 0, loss = 0;
    int64_t made = 0;
    c->error_kind = AD_ERROR_NONE;
    ppl__at(c, o.at_);
    if (o.steps < 0)
        ad__fail(c, AD_ERROR_ARGUMENT, "svi_run(s, 1000, ...)", "svi_run: steps is %lld, and must not be negative",
                 (long long)o.steps);
    while (made < o.steps && (!o.next || next(c, st, &o, made, args)) && isfinite(loss = advance(c, &h, s, n, args))) {
        if (o.losses)
            o.losses[made] = loss;
        sum += loss;
        made++;
    }
    if (ad__ok(c) && h.tape && h.again > 0)
        verify(c, &h);
    release(c, &h);
    for (int64_t i = made; o.losses && i < o.steps; i++)
        o.losses[i] = NAN;
    ppl__step_told(s);
    bool good = ad__ok(c) && made > 0;
    ppl__entry_end(&e);
    return good ? sum / (double)made : NAN;
}
