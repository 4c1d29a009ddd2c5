/* The first look at a program: before a plan is made of it, the values that were observed and the parameters that were
 * computed must lie where their distributions want them. Called where a plan is missing, so that a known program pays
 * nothing. After Pyro's validation, which looks at every call. */
#include <math.h>
#include <stdio.h>

#include "distributions/check.h"
#include "ppl/state.h"

/* One thing that must not be outside. */
typedef struct demand {
    const site *site;
    const char *run;      /* "model", "guide" */
    int i;                /* parameter, or the value behind them */
    ad_tensor *outside;
    struct demand *next;
} demand;

/* ---- what is wrong ----------------------------------------------------------------------------------------------- */

/* Element k of x after broadcasting to shape s; NAN where it has more dimensions, and after an error. */
static double element(ad_tensor *x, const ad_shape *s, int64_t k)
{
    if (ad_rank(x) > s->rank)
        return NAN;
    return ad_item(ad_slice(ad_reshape(ad_expand(x, *s), AD_SHAPE(-1)), 0, k, 1));
}

/* Where the first 1 of x stands; -1 after an error. */
static int64_t first_one(ad_context *c, ad_tensor *x)
{
    int64_t n = ad_size(x), k = 0;
    uint8_t *bytes = ad__allocate(c, NULL, (size_t)n);
    if (!bytes)
        return -1;
    bool read = ad_read_data(x, bytes, AD_FROM_BYTE, n);
    while (read && k < n && !bytes[k])
        k++;
    ad__allocate(c, bytes, 0);
    return read ? k : -1;
}

/* "(1, 4)" for element k of shape s. */
static const char *index_text(ad_context *c, const ad_shape *s, int64_t k)
{
    ad_shape index = *s;
    for (int i = s->rank - 1; i >= 0; k /= s->dim[i--])
        index.dim[i] = k % s->dim[i];
    return ad__shape_text(c, &index);
}

static const char *hint(const dist_constraint *set, bool of_value, bool drawn, double x)
{
    if (drawn)
        return "the guide must draw where the model's prior has its support";
    if (of_value && isnan(x))
        return "the observation itself holds NaN: .obs_mask marks what is missing";
    if (isnan(x))
        return "NaN in the data, or something like 0 / 0 on the way from them, makes it so";
    if (of_value)
        return set->kind == DIST_UNIT_INTERVAL ? "gray values lie in [0, 1]: divide bytes by 255" : NULL;
    bool positive = set->kind == DIST_POSITIVE || set->kind == DIST_NONNEGATIVE;
    return positive                          ? "ad_exp, ad_softplus or .constraint = dist_positive() keep it so"
           : set->kind == DIST_UNIT_INTERVAL ? "ad_sigmoid or .constraint = dist_unit_interval() keep it so"
                                             : NULL;
}

/* Names the first element that is outside. */
static void tell(ad_context *c, const demand *d)
{
    const dist_object *o = ad__object(c, d->site->m.fn, "the distribution");
    int64_t k = o ? first_one(c, d->outside) : -1;
    if (k < 0)
        return;
    bool of_value = d->i == o->of->n_parameters;
    dist_constraint set = dist__wanted(o, d->i);
    ad_shape s = ad_shape_of(d->outside);
    double x = element(of_value ? d->site->m.value : o->parameter[d->i], &s, k);
    if (set.lower_tensor)
        set.lower = element(set.lower_tensor, &s, k);
    if (set.upper_tensor)
        set.upper = element(set.upper_tensor, &s, k);
    set.lower_tensor = set.upper_tensor = NULL;
    char text[80], found[40] = "";
    if (dist_constraint_event_dim(set.kind) == 0)
        snprintf(found, sizeof found, ", found %g", x);
    if (!ad__ok(c))
        return;
    error_frame run = { .outer = c->frame, .kind = d->run }, frames[PPL_MAX_FRAMES + 1];
    c->frame = &run;
    ppl__stand_at(c, d->site, frames);
    bool drawn = of_value && !d->site->m.is_observed;
    ad__fail(c, AD_ERROR_SUPPORT, hint(&set, of_value, drawn, x), "site \"%s\" (%s): %s must be %s%s%s%s",
             d->site->m.name, o->of->name,
             drawn ? "the value from the guide" : of_value ? "the value" : o->of->parameter[d->i].name,
             dist_constraint_describe(&set, text, sizeof text), found, s.rank ? " at " : "",
             s.rank ? index_text(c, &s, k) : "");
    c->frame = run.outer;
}

/* ---- looking ----------------------------------------------------------------------------------------------------- */

/* Whether a value is known although the latent ones are not: data against fixed bounds. */
static bool is_data(ad_context *c, const dist_object *o, ad_tensor *x)
{
    dist_constraint set = dist__wanted(o, o->of->n_parameters);
    double number;
    node_id id = ad__node(c, x, "a value");
    return id >= 0 && !set.lower_tensor && !set.upper_tensor &&
           (c->tape->node[id].op == OP_input || dist__number(c, id, &number));
}

/* Whether a latent site of a model has its value from a guide whose draws may lie elsewhere than the model's. */
static bool comes_from_guide(const site *s)
{
    if (!s->partner || s->m.is_observed)
        return false;
    dist_constraint own = dist_support(s->m.fn), drawn = dist_support(s->partner->m.fn);
    return own.kind != DIST_REAL && (!dist_constraint_equal(&own, &drawn) || own.lower_tensor || own.upper_tensor);
}

/* Puts what a site must satisfy, as far as that must be computed, before `next`. */
static demand *demands_at(ad_context *c, const site *s, const char *run, bool data_only, demand *next)
{
    const dist_object *o = ad__object(c, s->m.fn, "the distribution");
    for (int i = o ? o->of->n_parameters : -1; i >= 0; i--) {
        bool of_value = i == o->of->n_parameters;
        bool given = s->m.is_observed || comes_from_guide(s);
        if (of_value ? !given || (data_only && !is_data(c, o, s->m.value)) : data_only)
            continue;
        ad_tensor *outside = dist__outside(o, i, s->m.value, s->m.mask);
        demand *d = outside ? ad__step_bytes(c, sizeof *d) : NULL;
        if (!d)
            continue;
        *d = (demand){ .site = s, .run = run, .i = i, .outside = outside, .next = next };
        next = d;
    }
    return next;
}

static demand *demands_of(ad_context *c, const trace *t, const char *run, bool data_only, demand *next)
{
    for (int i = t->n - 1; i >= 0 && ad__ok(c); i--)
        if (ppl__scored(t->site[i]))
            next = demands_at(c, t->site[i], run, data_only, next);
    return next;
}

/* Computes all demands by one plan that is not kept; false after an error. */
static bool look(ad_context *c, const demand *list)
{
    int n = 0, i = 0;
    for (const demand *d = list; d; d = d->next)
        n++;
    node_id *total = ad__step_bytes(c, (size_t)n * sizeof *total);
    if (!total)
        return false;
    for (const demand *d = list; d; d = d->next)
        total[i++] = ad__node(c, ad_sum(d->outside), "a check");
    if (!ad__run(c, &(run_request){ .roots = total, .n_roots = n, .final = true, .once = true }, NULL))
        return false;
    i = 0;
    for (const demand *d = list; d && ad__ok(c); d = d->next, i++)
        if (ad_item(ad__handle(c, total[i])) != 0)
            tell(c, d);
    return ad__ok(c);
}

bool ppl__check(ad_context *c, trace *const *guide, trace *const *model, int n, bool data_only)
{
    tape *p = c->tape;
    const tape_mark recorded = ad__tape_mark(p);
    const source_line at = { c->file, c->line };
    int64_t limit = c->max_nodes;
    const uint64_t layout = p->layout;
    const int segments = p->segments;
    bool good = ad__ok(c);
    demand *list = NULL;
    c->max_nodes = INT32_MAX; /* the user's limit is for what the user records */
    for (int i = n - 1; i >= 0 && good; i--) {
        list = demands_of(c, model[i], "model", data_only, list);
        list = guide ? demands_of(c, guide[i], "guide", data_only, list) : list;
    }
    good = ad__ok(c) && (!list || look(c, list));
    c->max_nodes = limit;
    c->file = good ? at.file : c->file;
    c->line = good ? at.line : c->line;
    ad__tape_rewind(c, p, &recorded);
    p->layout = layout;
    p->segments = segments; /* as if nobody had looked: plans know how many runs came before */
    return good;
}
