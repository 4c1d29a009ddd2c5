/* The first look at a program: before a plan is made of it, the values that were observed and the parameters that were
 * computed must lie where their distributions want them. Called where a plan is missing, so that a known program pays
 * nothing. After Pyro's validation, which looks at every call. */
#include <math.h>
#include <stdio.h>
#include <string.h>

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

static bool is_leaf(ad_context *c, const param *p, node_id id)
{
    const tensor *x = p->leaf && c->tape->node[id].op == OP_state ? ad__tensor(c, p->leaf) : NULL;
    return x && x->serial == ad__attrs(c->tape, id)[0];
}

/* The last persistent tensor behind a node that holds NaN: "a tensor of shape (5, 3) among the data holds NaN at
 * (1, 2)". False where none does. */
static bool nan_behind(ad_context *c, node_id id, char *out, size_t size)
{
    const tape *t = c->tape;
    const ppl_state *st = ppl__state(c);
    bool *seen = ad__step_bytes(c, (size_t)id + 1);
    if (!seen)
        return false;
    memset(seen, 0, (size_t)id + 1);
    seen[id] = true;
    for (node_id i = id; i >= 0 && ad__ok(c); i--) {
        if (!seen[i])
            continue;
        for (int j = 0; j < t->node[i].n_inputs; j++)
            seen[ad__inputs(t, i)[j]] = true;
        if ((t->node[i].op != OP_input && t->node[i].op != OP_state) || t->node[i].dtype != AD_REAL)
            continue;
        ad_tensor *x = ad__handle(c, i), *nan = ad_ne(x, x);
        if (ad_item(ad_sum(nan)) == 0)
            continue;
        ad_shape s = ad_shape_of(x);
        int64_t k = first_one(c, nan);
        const char *name = NULL;
        for (int64_t q = 0; q < st->n_params && !name; q++)
            if (is_leaf(c, &st->params[q], i))
                name = ad__name_text(c, st->params[q].name);
        snprintf(out, size, "%s%s%s%s holds NaN%s%s", name ? "parameter \"" : "a tensor of shape ",
                 name ? name : ad__shape_text(c, &s), name ? "\"" : "", name ? "" : " among the data",
                 s.rank ? " at " : "", s.rank ? index_text(c, &s, k) : "");
        return true;
    }
    return false;
}

/* What is wrong with the k-th of the vectors that x (s, n) ends with: ", found -1 at (0, 2)" for an element that is
 * wrong by itself, which *wrong becomes, else what they are together. */
static void found_in_vector(ad_context *c, const dist_constraint *set, ad_tensor *x, const ad_shape *s, int64_t k,
                            char *out, size_t size, double *wrong)
{
    if (s->rank >= AD_MAX_RANK)
        return;
    ad_shape all = *s;
    int64_t n = ad_dim(x, -1), j = 0;
    double *v = ad__step_bytes(c, (size_t)n * sizeof *v), sum = 0;
    all.dim[all.rank++] = n;
    if (!v || !ad_read(ad_slice(ad_reshape(ad_expand(x, all), AD_SHAPE(-1)), 0, k * n, n), v, n))
        return;
    bool logs = set->kind == DIST_LOG_WEIGHTS;
    while (j < n && (logs ? v[j] < INFINITY : v[j] >= 0 && v[j] < INFINITY))
        sum += v[j++];
    if (j < n) {
        *wrong = v[j];
        snprintf(out, size, ", found %g at %s", v[j], index_text(c, &all, k * n + j));
    } else if (logs) {
        snprintf(out, size, ", found -inf alone%s%s", s->rank ? " at " : "", s->rank ? index_text(c, s, k) : "");
    } else {
        snprintf(out, size, ", found a sum of %.9g%s%s", sum, s->rank ? " at " : "",
                 s->rank ? index_text(c, s, k) : "");
    }
}

/* "scale must be positive, found -1 at (2,)": what is outside first, of parameter i or the value; and a hint. False
 * after an error. */
static bool describe(ad_context *c, const site *site, int i, ad_tensor *outside, char *out, size_t size,
                     const char **advice)
{
    const dist_object *o = ad__object(c, site->m.fn, "the distribution");
    int64_t k = o ? first_one(c, outside) : -1;
    if (k < 0)
        return false;
    bool of_value = i == o->of->n_parameters, drawn = of_value && !site->m.is_observed;
    ad_tensor *x = of_value ? site->m.value : o->parameter[i];
    dist_constraint set = dist__wanted(o, i);
    ad_shape s = ad_shape_of(outside);
    if (set.lower_tensor)
        set.lower = element(set.lower_tensor, &s, k);
    if (set.upper_tensor)
        set.upper = element(set.upper_tensor, &s, k);
    set.lower_tensor = set.upper_tensor = NULL;
    char text[120], found[120] = "";
    double wrong = 0;
    int digits = 6;
    if (dist_constraint_event_dim(set.kind)) {
        found_in_vector(c, &set, x, &s, k, found, sizeof found, &wrong);
    } else {
        wrong = element(x, &s, k);
        digits = dist__digits(&set, wrong);
        snprintf(found, sizeof found, ", found %.*g%s%s", digits, wrong, s.rank ? " at " : "",
                 s.rank ? index_text(c, &s, k) : "");
    }
    char origin[200] = "";
    if (isnan(wrong) && !of_value)
        nan_behind(c, ad__node(c, x, "a parameter"), origin, sizeof origin);
    *advice = hint(&set, of_value, drawn, wrong);
    snprintf(out, size, "%s must be %s%s%s%s",
             drawn ? "the value from the guide" : of_value ? "the value" : o->of->parameter[i].name,
             dist__describe(&set, digits, text, sizeof text), found, *origin ? ": " : "", origin);
    return ad__ok(c);
}

/* Names the first element that is outside. */
static void tell(ad_context *c, const demand *d)
{
    char text[600];
    const char *advice;
    if (!describe(c, d->site, d->i, d->outside, text, sizeof text, &advice))
        return;
    error_frame run = { .outer = c->frame, .kind = d->run }, frames[PPL_MAX_FRAMES + 1];
    c->frame = &run;
    ppl__stand_at(c, d->site, frames);
    ad__fail(c, AD_ERROR_SUPPORT, advice, "site \"%s\" (%s): %s", d->site->m.name, dist_name(d->site->m.fn), text);
    c->frame = run.outer;
}

/* ---- why a density is not finite --------------------------------------------------------------------------------- */

/* ": loc is NaN at (1,)", where something is that no mask hides. */
static bool is_nan(ad_context *c, const site *s, const dist_object *o, int i, char *out, size_t size,
                   const char **advice)
{
    bool of_value = i == o->of->n_parameters;
    ad_tensor *x = of_value ? s->m.value : o->parameter[i], *nan = dist__is_nan(o, i, s->m.value, s->m.mask);
    ad_shape shape = ad_shape_of(nan);
    if (ad_item(ad_sum(nan)) == 0 || !ad__ok(c))
        return false;
    char text[200] = "";
    bool known = nan_behind(c, ad__node(c, x, "a parameter"), text, sizeof text);
    *advice = of_value && s->m.is_observed
                  ? "the observation itself holds NaN: .obs_mask marks what is missing"
              : known ? "fill in or leave out what is missing; .obs_mask is for observations"
                      : "something like 0 / 0 or inf - inf on the way makes it so";
    snprintf(out, size, ": %s is NaN%s%s%s%s", of_value ? "the value" : o->of->parameter[i].name,
             shape.rank ? " at " : "", shape.rank ? index_text(c, &shape, first_one(c, nan)) : "", known ? ": " : "",
             text);
    return true;
}

void ppl__why(ad_context *c, const site *s, char *out, size_t size, const char **advice)
{
    const dist_object *o = ad__object(c, s->m.fn, "the distribution");
    char text[600];
    *out = '\0';
    *advice = NULL;
    for (int i = 0; o && i <= o->of->n_parameters && ad__ok(c); i++)
        if (is_nan(c, s, o, i, out, size, advice))
            return;
    for (int i = 0; o && i <= o->of->n_parameters && ad__ok(c); i++) {
        ad_tensor *outside = dist__outside(o, i, s->m.value, s->m.mask);
        if (!outside || ad_item(ad_sum(outside)) == 0 || !describe(c, s, i, outside, text, sizeof text, advice))
            continue;
        if (i < o->of->n_parameters)
            *advice = "constrain the parameters behind it, as in .constraint = dist_positive(), or lower the learning "
                      "rate";
        snprintf(out, size, ", outside what the distribution allows: %s", text);
        return;
    }
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

static bool is_looked_at(ad_context *c, const site *s, const dist_object *o, int i, look_at what)
{
    if (i < o->of->n_parameters)
        return what != LOOK_AT_DATA;
    bool given = s->m.is_observed || comes_from_guide(s);
    return given && (what == LOOK_AT_ALL || (what == LOOK_AT_DATA && is_data(c, o, s->m.value)));
}

/* Puts what a site must satisfy, as far as that must be computed, before `next`. */
static demand *demands_at(ad_context *c, const site *s, const char *run, look_at what, demand *next)
{
    const dist_object *o = ad__object(c, s->m.fn, "the distribution");
    for (int i = o ? o->of->n_parameters : -1; i >= 0; i--) {
        ad_tensor *outside = is_looked_at(c, s, o, i, what) ? dist__outside(o, i, s->m.value, s->m.mask) : NULL;
        demand *d = outside ? ad__step_bytes(c, sizeof *d) : NULL;
        if (!d)
            continue;
        *d = (demand){ .site = s, .run = run, .i = i, .outside = outside, .next = next };
        next = d;
    }
    return next;
}

static demand *demands_of(ad_context *c, const trace *t, const char *run, look_at what, demand *next)
{
    for (int i = t->n - 1; i >= 0 && ad__ok(c); i--)
        if (ppl__scored(t->site[i]))
            next = demands_at(c, t->site[i], run, what, next);
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

bool ppl__check(ad_context *c, trace *const *guide, trace *const *model, int n, look_at what)
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
        list = demands_of(c, model[i], "model", what, list);
        list = guide ? demands_of(c, guide[i], "guide", what, list) : list;
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

bool ppl__check_trace(ad_context *c, trace *t)
{
    ppl_state *st = ppl__state(c);
    uint64_t hash = ad__tape_hash(c->tape) | 1;
    for (size_t i = 0; i < sizeof st->looked / sizeof *st->looked; i++)
        if (st->looked[i] == hash)
            return true;
    if (!ppl__check(c, NULL, &t, 1, LOOK_AT_PARAMETERS))
        return false;
    st->looked[st->n_looked++ % (sizeof st->looked / sizeof *st->looked)] = hash;
    return true;
}
