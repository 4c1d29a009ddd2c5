/* Optimisers: each is a few recorded operations on a parameter, its moments and its gradient. Called by svi.c, first to
 * bind the step's numbers and then, when a step is planned for the first time, to record the update.
 *
 * w is the unconstrained parameter, g its gradient, t its commits with this one. Sources: Kingma and Ba 2015 (Adam),
 * Loshchilov and Hutter 2019 (AdamW), Pyro's clipped_adam.py, PyTorch's SGD and RMSprop. */
#include <math.h>

#include "ppl/inference.h"

void ppl__optim_defaults(struct optim *o)
{
    bool slow = o->kind == OPTIM_SGD || o->kind == OPTIM_RMSPROP;
    if (o->lr == 0)
        o->lr = slow ? 1e-2 : 1e-3;
    if (o->beta1 == 0 && !o->beta1_set)
        o->beta1 = 0.9;
    if (o->beta2 == 0)
        o->beta2 = o->kind == OPTIM_RMSPROP ? 0.99 : 0.999;
    if (o->eps == 0)
        o->eps = 1e-8;
    if (o->lrd == 0)
        o->lrd = 1;
    if (o->kind == OPTIM_CLIPPED_ADAM && o->clip_value == 0)
        o->clip_value = 10;
}

int ppl__optim_states(const struct optim *o)
{
    return o->kind == OPTIM_SGD ? o->momentum != 0 : o->kind == OPTIM_RMSPROP ? 1 : 2;
}

/* ---- the numbers of a step --------------------------------------------------------------------------------------- */

static const optim_rule *rule_of(const svi *s, const visited *v)
{
    return v->moment->rule < 0 ? NULL : &s->rules[v->moment->rule];
}

/* Whether all parameters that move are of one age: then those under one rule share their numbers. Ages that agree by
 * chance do not count, or each chance would make a plan of its own. */
static bool even(const svi *s, const visited *v, int n)
{
    int64_t age = -1;
    for (int i = 0; i < n; i++) {
        const optim_rule *rule = rule_of(s, &v[i]);
        if (rule && rule->frozen)
            continue;
        if (age >= 0 && age != v[i].moment->commits)
            return false;
        age = v[i].moment->commits;
    }
    return true;
}

/* 1 - beta^t; below e^-38 < 2^-54 the power changes no bit of it, and costs as much as a few parameters. */
static double less_power(double beta, double t)
{
    return t * (1 - beta) > 38 ? 1 : 1 - pow(beta, t);
}

void ppl__optim_bind(ad_context *c, const svi *s, visited *v, int n, optim_slots *slots)
{
    const struct optim *o = &s->optim;
    ppl_state *st = ppl__state(c);
    const void *user = st->user;
    if (o->schedule && !user) /* a user's function, which may end otherwise than by return */
        st->user = __builtin_frame_address(0);
    double schedule = o->schedule ? o->schedule(s->steps, o->user) : 1;
    st->user = user;
    *slots = (optim_slots){ .beta1 = ad__bind_scalar(c, o->kind == OPTIM_SGD ? o->momentum : 1 - o->beta1),
                            .beta2 = ad__bind_scalar(c, 1 - o->beta2),
                            .eps = ad__bind_scalar(c, o->eps),
                            .clip = ad__bind_scalar(c, o->clip_value),
                            .clip_negative = ad__bind_scalar(c, -o->clip_value),
                            .clip_norm = ad__bind_scalar(c, o->clip_tensor_norm),
                            .clip_global = ad__bind_scalar(c, o->clip_global_norm) };
    bool shared = even(s, v, n);
    const visited *before = NULL; /* the parameter whose numbers were bound last */
    double bias1 = 0, bias2 = 0, decayed = 1;
    for (int i = 0; i < n; i++) {
        const moment *m = v[i].moment;
        const optim_rule *rule = rule_of(s, &v[i]);
        int64_t t = m->commits + 1;
        v[i].frozen = rule && rule->frozen;
        if (before && shared && before->moment->rule == m->rule) {
            v[i].step = before->step, v[i].correction = before->correction, v[i].decay = before->decay;
            continue;
        }
        if (!before || before->moment->commits != m->commits) {
            bias1 = less_power(o->beta1, (double)t);
            bias2 = sqrt(less_power(o->beta2, (double)t));
            decayed = o->lrd == 1 ? 1 : pow(o->lrd, (double)t);
        }
        double lr = (rule && rule->lr ? rule->lr : o->lr) * schedule,
               decay = rule && rule->weight_decay ? rule->weight_decay : o->weight_decay;
        double step = lr, correction = 1;
        switch (o->kind) {
        case OPTIM_SGD:
        case OPTIM_RMSPROP:
            break;
        case OPTIM_ADAM:
        case OPTIM_ADAMW:
            step = lr / bias1;
            correction = 1 / bias2;
            break;
        case OPTIM_CLIPPED_ADAM:
            step = lr * decayed * bias2 / bias1;
            break;
        }
        if (o->kind == OPTIM_ADAMW)
            decay = 1 - lr * decay;
        v[i].step = ad__bind_scalar(c, -step);
        v[i].correction = ad__bind_scalar(c, correction);
        v[i].decay = ad__bind_scalar(c, decay);
        before = &v[i];
    }
}

/* ---- recorded updates -------------------------------------------------------------------------------------------- */

static ad_tensor *number(ad_context *c, int32_t slot)
{
    return ad__handle(c, ad__scalar_of_slot(c, slot));
}

/* g limited so that its norm is at most the number in the slot. */
static ad_tensor *limit_norm(ad_context *c, ad_tensor *g, ad_tensor *norm, int32_t slot)
{
    return ad_mul(g, ad_min(1, ad_div(number(c, slot), ad_add(norm, 1e-6))));
}

static bool decays(const svi *s, const visited *v)
{
    return s->optim.weight_decay != 0 || (v->moment->rule >= 0 && s->rules[v->moment->rule].weight_decay != 0);
}

/* m <- m + (1 - beta) (x - m) */
static ad_tensor *average(ad_context *c, ad_tensor *state, ad_tensor *x, int32_t one_minus_beta)
{
    ad_tensor *next = ad_lerp(state, x, number(c, one_minus_beta));
    ad_assign(state, next);
    return next;
}

static void update(ad_context *c, const svi *s, const optim_slots *slots, const visited *v, ad_tensor *g)
{
    const struct optim *o = &s->optim;
    ad_tensor *w = v->param->leaf, *const *state = v->moment->state, *direction = g;
    if (o->clip_value)
        g = ad_clamp(g, number(c, slots->clip_negative), number(c, slots->clip));
    if (decays(s, v) && o->kind != OPTIM_ADAMW)
        g = ad_fma(w, number(c, v->decay), g);
    switch (o->kind) {
    case OPTIM_SGD:
        direction = g;
        if (o->momentum)
            ad_assign(state[0], direction = ad_fma(state[0], number(c, slots->beta1), g));
        break;
    case OPTIM_RMSPROP: {
        ad_tensor *v2 = average(c, state[0], ad_square(g), slots->beta2);
        direction = ad_adam_direction(g, v2, number(c, v->correction), number(c, slots->eps));
        break;
    }
    case OPTIM_ADAM:
    case OPTIM_ADAMW:
    case OPTIM_CLIPPED_ADAM: {
        ad_tensor *m = average(c, state[0], g, slots->beta1), *v2 = average(c, state[1], ad_square(g), slots->beta2);
        direction = ad_adam_direction(m, v2, number(c, v->correction), number(c, slots->eps));
        break;
    }
    }
    ad_tensor *from = o->kind == OPTIM_ADAMW && decays(s, v) ? ad_mul(w, number(c, v->decay)) : w;
    ad_assign(w, ad_fma(direction, number(c, v->step), from));
}

void ppl__optim_record(ad_context *c, const svi *s, const optim_slots *slots, const visited *v, ad_tensor **gradient,
                       int n)
{
    const struct optim *o = &s->optim;
    ad_tensor *squares = NULL;
    for (int i = 0; i < n; i++) {
        if (!gradient[i])
            continue;
        if (o->clip_tensor_norm)
            gradient[i] = limit_norm(c, gradient[i], ad_sqrt(ad_sum(ad_square(gradient[i]))), slots->clip_norm);
        if (!o->clip_global_norm)
            continue;
        ad_tensor *square = ad_sum(ad_square(gradient[i]));
        squares = squares ? ad_add(squares, square) : square;
    }
    for (int i = 0; i < n; i++) {
        if (!gradient[i])
            continue;
        if (squares)
            gradient[i] = limit_norm(c, gradient[i], ad_sqrt(squares), slots->clip_global);
        update(c, s, slots, &v[i], gradient[i]);
    }
}
