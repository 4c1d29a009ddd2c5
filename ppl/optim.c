/* Optimisers: each is a few recorded operations on a parameter, its moments and its gradient. Called by svi.c, first to
 * bind the step's numbers and then, when a step is planned for the first time, to record the update.
 *
 * w is the unconstrained parameter, g its gradient, t its commits with this one. Sources: Kingma and Ba 2015 (Adam),
 * Loshchilov and Hutter 2019 (AdamW), Pyro's clipped_adam.py, PyTorch's SGD and RMSprop. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ppl/inference.h"

/* ---- options ----------------------------------------------------------------------------------------------------- */

/* The number meant by an option: 0 by PPL_ZERO, the default where it was left out. */
static double meant(double given, double otherwise)
{
    return given != 0 ? given : signbit(given) ? 0 : otherwise;
}

static bool refuse(ad_context *c, const char *whose, const char *name, double x, double limit)
{
    ad__fail(c, AD_ERROR_ARGUMENT, x < 0 ? "0 itself is PPL_ZERO; what is left out takes the default" : NULL,
             "svi_new: %s %s is %g, and must be %s", whose, name, x,
             limit == 1 ? "at least 0 and below 1" : "at least 0 and finite");
    return false;
}

bool ppl__optim_settle(ad_context *c, struct optim *o)
{
    if ((unsigned)o->kind > OPTIM_RMSPROP) {
        ad__fail(c, AD_ERROR_ARGUMENT, "make it with optim_adam(...) and its like", "svi_new: there is no optimiser %d",
                 (int)o->kind);
        return false;
    }
    bool adam = o->kind != OPTIM_SGD && o->kind != OPTIM_RMSPROP;
    const struct {
        const char *name;
        double *number, otherwise, limit;
    } rows[] = {
        { "lr", &o->lr, adam ? 1e-3 : 1e-2, INFINITY },
        { "beta1", &o->beta1, o->beta1_set ? 0 : 0.9, 1 },
        { "beta2", &o->beta2, o->kind == OPTIM_RMSPROP ? 0.99 : 0.999, 1 },
        { "eps", &o->eps, 1e-8, INFINITY },
        { "momentum", &o->momentum, 0, INFINITY },
        { "weight_decay", &o->weight_decay, 0, INFINITY },
        { "lrd", &o->lrd, 1, INFINITY },
        { "clip_value", &o->clip_value, o->kind == OPTIM_CLIPPED_ADAM ? 10 : 0, INFINITY },
        { "clip_tensor_norm", &o->clip_tensor_norm, 0, INFINITY },
        { "clip_global_norm", &o->clip_global_norm, 0, INFINITY },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double x = *rows[i].number;
        if (!(x >= 0 && x < rows[i].limit))
            return refuse(c, "the optimiser's", rows[i].name, x, rows[i].limit);
        *rows[i].number = meant(x, rows[i].otherwise);
    }
    return true;
}

/* ---- rules ------------------------------------------------------------------------------------------------------- */

/* Whether row `row` of the text that optim_rules was given, "{ \"*.bias\", .lr = 0 }, { ... }", sets a field, by its
 * name or by its position. */
static bool writes(const char *text, int64_t row, const char *field, int position)
{
    size_t n = strlen(field);
    int depth = 0, item = 0; /* the item's position in its row, -1 behind a designator */
    bool begins = false;     /* an item */
    for (const char *p = text; *p; p++) {
        if (*p == ' ')
            continue;
        if (begins && row == 0 && *p != '.' && item == position)
            return true;
        if (begins && row == 0 && *p == '.') {
            item = -1;
            if (!strncmp(p + 1, field, n) && strcspn(p + 1, " =") == n)
                return true;
        }
        begins = false;
        if (*p == '"' || *p == '\'') {
            char quote = *p++;
            while (*p && *p != quote)
                p += *p == '\\' && p[1] ? 2 : 1;
            if (!*p)
                return false;
        } else if (strchr("({[", *p)) {
            begins = ++depth == 1;
            item = 0;
        } else if (strchr(")}]", *p)) {
            depth--;
        } else if (*p == ',' && depth == 0) {
            row--;
        } else if (*p == ',' && depth == 1) {
            begins = true;
            item += item >= 0;
        }
    }
    return false;
}

/* A rule's number: the optimiser's, unless the row says another. */
static bool settle_number(ad_context *c, const optim_rule *r, const char *name, double *x, double inherited,
                          bool written)
{
    char whose[80];
    snprintf(whose, sizeof whose, "the rule for \"%.40s\": its", r->pattern);
    if (!(*x >= 0 && isfinite(*x)))
        return refuse(c, whose, name, *x, INFINITY);
    *x = written ? *x : meant(*x, inherited);
    return true;
}

bool ppl__optim_copy_rules(ad_context *c, svi *s)
{
    const optim_rule *from = s->optim.rules;
    int64_t n = 0;
    size_t room = 0;
    for (; from && from[n].pattern; n++)
        room += strlen(from[n].pattern) + 1;
    s->optim.rules = NULL;
    if (!n)
        return true;
    if (!(s->rules = ad__allocate(c, NULL, (size_t)n * sizeof *s->rules + room)))
        return false;
    const char *text = from[n].frozen ? from[n + 1].pattern : "";
    char *to = (char *)(s->rules + n);
    for (; s->n_rules < n; s->n_rules++) {
        int64_t i = s->n_rules;
        optim_rule *r = &s->rules[i];
        *r = from[i];
        r->pattern = strcpy(to, from[i].pattern);
        to += strlen(to) + 1;
        if (!settle_number(c, r, "lr", &r->lr, s->optim.lr, writes(text, i, "lr", 1)) ||
            !settle_number(c, r, "weight_decay", &r->weight_decay, s->optim.weight_decay,
                           writes(text, i, "weight_decay", 2)))
            return false;
    }
    return true;
}

bool ppl__optim_check_rules(ad_context *c, const svi *s)
{
    const ppl_state *st = ppl__state(c);
    for (int64_t i = 0; i < s->n_rules; i++) {
        bool found = s->rules[i].optional;
        for (int64_t k = 0; k < st->n_params && !found; k++)
            found = st->params[k].leaf && ppl__glob(s->rules[i].pattern, ad__name_text(c, st->params[k].name));
        if (!found) {
            known k = { .wanted = s->rules[i].pattern, .letters = INT_MAX };
            ad__fail(c, AD_ERROR_SITE,
                     ppl__known_params(c, &k,
                                       "a module is part of a name, * stands for any text; .optional = true if "
                                       "the parameter comes later"),
                     "the optimiser's rule %lld, \"%s\", matches no parameter", (long long)i + 1, s->rules[i].pattern);
            return false;
        }
    }
    return true;
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

bool ppl__optim_bind(ad_context *c, const svi *s, visited *v, int n, optim_slots *slots)
{
    const struct optim *o = &s->optim;
    ppl_state *st = ppl__state(c);
    const void *user = st->user;
    if (o->schedule && !user) /* a user's function, which may end otherwise than by return */
        st->user = __builtin_frame_address(0);
    double schedule = o->schedule ? o->schedule(s->steps, o->user) : 1;
    st->user = user;
    if (!(schedule >= 0 && isfinite(schedule))) {
        ad__fail(c, AD_ERROR_ARGUMENT, "it multiplies lr, and must be at least 0 and finite",
                 "the optimiser's schedule gives %g at step %lld", schedule, (long long)s->steps);
        return false;
    }
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
        double lr = (rule ? rule->lr : o->lr) * schedule, decay = rule ? rule->weight_decay : o->weight_decay;
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
    return ad__ok(c);
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
    const optim_rule *rule = rule_of(s, v);
    return (rule ? rule->weight_decay : s->optim.weight_decay) != 0;
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
