/* The parameter store: named tensors that outlive steps, kept unconstrained, seen constrained.
 * Called through messages by models, and by users who read and write parameters by name. Names get the prefix of the
 * open modules here. Initial values are drawn on a tape of their own, keyed by the seed and the name alone. */
#include <math.h>
#include <string.h>

#include "distributions/check.h"
#include "ppl/state.h"

/* ---- names ------------------------------------------------------------------------------------------------------- */

static const char divider[] = "$$$";

/* Appends text to the prefix buffer at `at`, with its end; false after an error. */
static bool append(ad_context *c, ppl_state *st, size_t at, const char *text, size_t length)
{
    if (!ad__reserve(c, &st->prefix, &st->cap_prefix, (int64_t)(at + length + 1), 1))
        return false;
    memcpy(st->prefix + at, text, length);
    st->prefix[at + length] = '\0';
    return true;
}

int32_t ppl__prefixed(ad_context *c, ppl_state *st, const char *name)
{
    if (!st->prefix_length || !name)
        return ad__name(c, name);
    if (!append(c, st, st->prefix_length, name, strlen(name)))
        return -1;
    return ad__name(c, st->prefix);
}

ppl_module_scope ppl_module_begin(const char *name)
{
    ad_context *c = ad__current();
    ppl_state *st = ppl__state(c);
    ppl_module_scope s = { .context = NULL };
    if (!st || !ad__ok(c))
        return s;
    if (!name || !*name) {
        ad__fail(c, AD_ERROR_ARGUMENT, NULL, "ppl_module: the name is %s", name ? "empty" : "NULL");
        return s;
    }
    if (strstr(name, divider)) {
        ad__fail(c, AD_ERROR_ARGUMENT, "nest one ppl_module in another",
                 "module \"%s\": a module's name must not contain \"%s\"", name, divider);
        return s;
    }
    int32_t id = ad__name(c, name);
    size_t length = strlen(name), old = st->prefix_length;
    if (id < 0 || !append(c, st, old, name, length) || !append(c, st, old + length, divider, strlen(divider)))
        return s;
    s.context = c;
    s.length = old;
    st->prefix_length = old + length + strlen(divider);
    s.name = ad__name_text(c, id);
    return s;
}

void ppl_module_enter(ppl_module_scope *s)
{
    ad_context *c = s->context;
    if (!c)
        return;
    s->entered = true;
    ad__name_hold(c, ad__name(c, s->name), 1);
    error_frame *f = c->tape ? ad__step_bytes(c, sizeof *f) : NULL; /* where it stays, whoever forgets to leave */
    s->frame = f;
    if (!f)
        return;
    *f = (error_frame){ .outer = c->frame, .kind = "module", .name = s->name };
    c->frame = f;
}

void ppl_module_leave(ppl_module_scope *s)
{
    ad_context *c = s->context;
    if (!c || !s->entered)
        return;
    s->entered = false;
    ad__name_hold(c, ad__name(c, s->name), -1);
    error_frame *f = s->frame;
    if (f && c->frame != f)
        return; /* it ended with what was around it */
    if (f)
        c->frame = f->outer;
    if (ppl__state(c)->prefix_length > s->length)
        ppl__state(c)->prefix_length = s->length;
}

/* ---- initial values ---------------------------------------------------------------------------------------------- */

/* n standard normals or uniforms for a name, the same whenever they are asked for. */
static bool noise(ad_context *c, const ppl_param_args *a, int32_t name, double *out, int64_t n)
{
    if (!ad__tape_open(c, STREAM_INIT, 0))
        return false;
    c->tape->site = name;
    ad_tensor *x =
        a->init.kind == PPL_INIT_NORMAL ? ad_random_normal(AD_SHAPE(n), 0) : ad_random_uniform(AD_SHAPE(n), 0);
    bool read = ad_read_data(x, out, AD_FROM_DOUBLE, n);
    ad__tape_close(c);
    return read;
}

static void copy(double *out, const ppl_init *init, int64_t n)
{
#define FROM(type)                                                                                                     \
    for (int64_t i = 0; i < n; i++)                                                                                    \
    out[i] = (double)((const type *)init->data)[i]
    switch (init->source) {
    case AD_FROM_FLOAT:
        FROM(float);
        break;
    case AD_FROM_DOUBLE:
        FROM(double);
        break;
    case AD_FROM_INT:
        FROM(int);
        break;
    case AD_FROM_INT64:
        FROM(int64_t);
        break;
    case AD_FROM_BYTE:
        FROM(uint8_t);
        break;
    }
#undef FROM
}

/* Makes constrained values out[n] unconstrained; false, with an error, when one lies outside. */
static bool unconstrain(ad_context *c, const dist_constraint *constraint, const char *name, const ad_shape *shape,
                        double *x, int64_t n)
{
    char text[120];
    int64_t bad = 0, last = shape->rank ? shape->dim[shape->rank - 1] : 1;
    for (int64_t i = 0; i < n; i++)
        if (isnan(x[i])) {
            ad__fail(c, AD_ERROR_SUPPORT, NULL, "parameter \"%s\": element %lld is nan", name, (long long)i);
            return false;
        }
    if (dist_unconstrain_numbers(constraint, x, x, n, last, &bad))
        return true;
    dist_constraint_describe(constraint, text, sizeof text);
    if (!dist_constraint_holds(constraint, x[bad])) {
        int digits = dist__digits(constraint, x[bad]);
        ad__fail(c, AD_ERROR_SUPPORT, NULL, "parameter \"%s\": element %lld is %.*g, and must be %s", name,
                 (long long)bad, digits, x[bad], dist__describe(constraint, digits, text, sizeof text));
        return false;
    }
    double sum = 0;
    for (int64_t i = bad; constraint->kind == DIST_SIMPLEX && bad % last == 0 && i < bad + last; i++)
        sum += x[i];
    if (constraint->kind == DIST_SIMPLEX && bad % last == 0 && !(fabs(sum - 1) < 1e-4))
        ad__fail(c, AD_ERROR_SUPPORT, NULL, "parameter \"%s\": elements %lld to %lld sum to %g, and must be %s", name,
                 (long long)bad, (long long)(bad + last - 1), sum, text);
    else
        ad__fail(c, AD_ERROR_SUPPORT, "begin a little inside it",
                 "parameter \"%s\": element %lld is %g, at the border of what is %s: no unconstrained value stands "
                 "for it",
                 name, (long long)bad, x[bad], text);
    return false;
}

/* Fills the unconstrained leaf of a new parameter. */
static bool initialise(ad_context *c, const ppl_param_args *a, const char *name, int32_t id, ad_tensor *leaf, int64_t n)
{
    if (a->init.kind == PPL_INIT_DEFAULT || n == 0)
        return true;
    if (a->init.kind == PPL_INIT_VALUES && !a->init.data) {
        ad__fail(c, AD_ERROR_ARGUMENT, NULL, "parameter \"%s\": the initial values are NULL", name);
        return false;
    }
    if (a->init.kind == PPL_INIT_VALUES && a->init.room && a->init.room < n) {
        ad__fail(c, AD_ERROR_ARGUMENT, NULL, "parameter \"%s\": shape %s wants %lld initial values; the array has %lld",
                 name, ad__shape_text(c, &a->shape), (long long)n, (long long)a->init.room);
        return false;
    }
    if ((a->init.kind == PPL_INIT_UNIFORM && !(a->init.a <= a->init.b)) ||
        (a->init.kind == PPL_INIT_NORMAL && !(a->init.b >= 0))) {
        ad__fail(c, AD_ERROR_ARGUMENT, "ppl_uniform(low, high) with low <= high, ppl_randn(sd) with sd >= 0",
                 "parameter \"%s\": its initial values cannot be drawn", name);
        return false;
    }
    double *x = ad__allocate(c, NULL, (size_t)n * sizeof *x);
    if (!x)
        return false;
    bool good = true;
    if (a->init.kind == PPL_INIT_NORMAL || a->init.kind == PPL_INIT_UNIFORM)
        good = noise(c, a, id, x, n);
    for (int64_t i = 0; i < n && good; i++) {
        if (a->init.kind == PPL_INIT_CONSTANT)
            x[i] = a->init.a;
        if (a->init.kind == PPL_INIT_NORMAL)
            x[i] = a->init.b * x[i];
        if (a->init.kind == PPL_INIT_UNIFORM)
            x[i] = a->init.a + (a->init.b - a->init.a) * x[i];
    }
    if (a->init.kind == PPL_INIT_VALUES)
        copy(x, &a->init, n);
    good = good && unconstrain(c, &a->constraint, name, &a->shape, x, n) && ad_write_data(leaf, x, AD_FROM_DOUBLE, n);
    ad__allocate(c, x, 0);
    return good;
}

/* ---- the store --------------------------------------------------------------------------------------------------- */

/* A place in the tables of others for a new parameter; -1 after an error. */
static int32_t new_slot(ad_context *c, ppl_state *st)
{
    int32_t slot = st->free_slot;
    if (slot >= 0) {
        st->free_slot = st->slots[slot].next_free;
        return slot;
    }
    if (!ad__reserve(c, &st->slots, &st->cap_slots, st->n_slots + 1, sizeof *st->slots))
        return -1;
    return (int32_t)st->n_slots++;
}

static param *make(ad_context *c, ppl_state *st, const ppl_message *m)
{
    const ppl_param_args *a = m->param;
    int32_t shape = ad__shape(c, &a->shape);
    if (shape < 0 || !ad__reserve(c, &st->params, &st->cap_params, st->n_params + 1, sizeof *st->params))
        return NULL;
    if (dist_constraint_discrete(a->constraint.kind) || dist_constraint_event_dim(a->constraint.kind) > a->shape.rank) {
        ad__fail(c, AD_ERROR_ARGUMENT, NULL, "parameter \"%s\" of shape %s cannot be constrained to %s", m->name,
                 ad__shape_text(c, &a->shape), dist_constraint_name(a->constraint.kind));
        return NULL;
    }
    ad_tensor *leaf = ad_state(a->shape);
    if (ad_is_nil(leaf) || !initialise(c, a, m->name, m->id, leaf, ad__shape_info(c, shape)->size)) {
        ad_free(leaf);
        return NULL;
    }
    name_slot *named = ppl__name_slot(c, st, m->id);
    int32_t slot = named ? new_slot(c, st) : -1;
    if (slot < 0) {
        ad_free(leaf);
        return NULL;
    }
    ad__name_hold(c, m->id, 1);
    ad__shape_hold(c, shape, 1);
    param *p = &st->params[st->n_params++];
    *p = (param){ .name = m->id,
                  .shape = shape,
                  .slot = slot,
                  .constraint = a->constraint,
                  .leaf = leaf,
                  .life = ++st->lives,
                  .newborn = st->in_step,
                  .tape_generation = ~0u,
                  .collected = ~0u };
    st->slots[slot].life = p->life;
    named->param = (int32_t)st->n_params;
    st->born |= st->in_step;
    return p;
}

/* A later visit must mean the same parameter. */
static bool agrees(ad_context *c, const param *p, const ppl_message *m)
{
    static const char hint[] = "ppl_param_delete starts a parameter afresh; ppl_module and other names keep two apart";
    const ad_shape *s = &ad__shape_info(c, p->shape)->shape, *asked = &m->param->shape;
    if (s->rank != asked->rank || (s->rank && memcmp(s->dim, asked->dim, (size_t)s->rank * sizeof *s->dim))) {
        ad__fail(c, AD_ERROR_SHAPE, hint, "parameter \"%s\" has shape %s since its first visit, and shape %s here",
                 m->name, ad__shape_text(c, s), ad__shape_text(c, asked));
        return false;
    }
    const dist_constraint *before_set = &p->constraint, *set = &m->param->constraint;
    bool real = before_set->kind == DIST_REAL && set->kind == DIST_REAL; /* as mostly */
    if (!real && !dist_constraint_equal(before_set, set)) {
        char before[120], now[120];
        for (int digits = 6; digits < 18; digits += 3) { /* until the two look different */
            dist__describe(&p->constraint, digits, before, sizeof before);
            dist__describe(&m->param->constraint, digits, now, sizeof now);
            if (strcmp(before, now))
                break;
        }
        ad__fail(c, AD_ERROR_SITE, hint,
                 "parameter \"%s\" is constrained to be %s since its first visit, and to be %s here", m->name, before,
                 now);
        return false;
    }
    return true;
}

void ppl__param_value(ad_context *c, ppl_state *st, ppl_message *m)
{
    name_slot *slot = ppl__name_slot(c, st, m->id);
    if (!slot || !m->param)
        return;
    error_frame where = { .outer = c->frame, .kind = "parameter", .name = m->name };
    c->frame = &where;
    param *p = slot->param ? &st->params[slot->param - 1] : make(c, st, m);
    bool good = p && agrees(c, p, m);
    c->frame = where.outer;
    if (!good)
        return;
    if (p->tape_generation != c->tape->generation) {
        node_id leaf = ad__node(c, p->leaf, "a parameter"); /* as a value of this tape operations find it quickest */
        p->value = dist_constrain(&p->constraint, DIST_TRANSFORM_TO, ad__handle(c, leaf));
        p->tape_generation = c->tape->generation;
    }
    m->unconstrained = p->leaf;
    m->value = p->value;
}

param *ppl__param_find(ad_context *c, ppl_state *st, const char *name)
{
    name_slot *slot = st ? ppl__name_slot(c, st, ad__name_known(c, name)) : NULL;
    return slot && slot->param ? &st->params[slot->param - 1] : NULL;
}

static void end(ad_context *c, ppl_state *st, param *p)
{
    ad_free(p->leaf);
    p->leaf = NULL;
    ad__name_hold(c, p->name, -1);
    ad__shape_hold(c, p->shape, -1);
    st->slots[p->slot] = (param_slot){ .next_free = st->free_slot };
    st->free_slot = p->slot;
    st->names[p->name].param = 0;
    st->deaths++;
}

/* Closes the gaps that ended parameters leave, so that nothing grows by those that were. */
static void close_gaps(ppl_state *st)
{
    int64_t n = 0;
    for (int64_t i = 0; i < st->n_params; i++) {
        if (!st->params[i].leaf)
            continue;
        if (n < i)
            st->params[n] = st->params[i];
        n++;
        st->names[st->params[n - 1].name].param = (int32_t)n;
    }
    st->n_params = n;
}

void ppl__params_settle(ad_context *c, ppl_state *st, bool keep)
{
    uint64_t before = st->deaths;
    for (int64_t i = 0; i < st->n_params && st->born; i++) {
        param *p = &st->params[i];
        if (p->newborn && p->leaf && !keep)
            end(c, st, p);
        p->newborn = false;
    }
    st->born = false;
    if (st->deaths != before)
        close_gaps(st);
    st->in_step = false;
}

/* ---- the user's calls -------------------------------------------------------------------------------------------- */

static param *named(ad_context *c, ppl_state *st, const char *name, int64_t n)
{
    param *p = ppl__param_find(c, st, name);
    if (!p) {
        known k = { .wanted = name, .letters = INT_MAX };
        ad__fail(c, AD_ERROR_ARGUMENT,
                 ppl__known_params(c, &k,
                                   "a parameter is made at its first visit in a step; modules prefix its name, "
                                   "as in decoder$$$fc1.weight"),
                 "there is no parameter \"%s\"", name ? name : "?");
        return NULL;
    }
    const shape_info *s = ad__shape_info(c, p->shape);
    if (n == s->size)
        return p;
    ad__fail(c, AD_ERROR_SHAPE, NULL, "parameter \"%s\" has shape %s, %lld elements; %lld were asked for", name,
             ad__shape_text(c, &s->shape), (long long)s->size, (long long)n);
    return NULL;
}

bool ppl_param_read(const char *name, void *out, ad_source type, int64_t n)
{
    ad_context *c = ad__current();
    ppl_state *st = ppl__state(c);
    if (!st || !ad__tape_open(c, 0, 0))
        return false;
    param *p = named(c, st, name, n);
    bool read = p && ad_read_data(dist_constrain(&p->constraint, DIST_TRANSFORM_TO, p->leaf), out, type, n);
    ad__tape_close(c);
    return read;
}

bool ppl_param_write(const char *name, const void *data, ad_source type, int64_t n)
{
    ad_context *c = ad__current();
    ppl_state *st = ppl__state(c);
    if (!st)
        return false;
    ad__begin_call(c);
    param *p = named(c, st, name, n);
    double *x = p && data ? ad__allocate(c, NULL, (size_t)(n ? n : 1) * sizeof *x) : NULL;
    if (!x)
        return false;
    copy(x, &(ppl_init){ .data = data, .source = type }, n);
    bool written = unconstrain(c, &p->constraint, name, &ad__shape_info(c, p->shape)->shape, x, n) &&
                   ad_write_data(p->leaf, x, AD_FROM_DOUBLE, n);
    ad__allocate(c, x, 0);
    return written;
}

bool ppl_param_exists(const char *name)
{
    ad_context *c = ad__current();
    return name && ppl__param_find(c, ppl__state(c), name);
}

ad_shape ppl_param_shape(const char *name)
{
    ad_context *c = ad__current();
    const param *p = name ? ppl__param_find(c, ppl__state(c), name) : NULL;
    return p ? ad__shape_info(c, p->shape)->shape : AD_SCALAR;
}

int64_t ppl_param_count(void)
{
    ppl_state *st = ppl__state(ad__current());
    return st ? st->n_params : 0;
}

const char *ppl_param_name(int64_t i)
{
    ad_context *c = ad__current();
    ppl_state *st = ppl__state(c);
    return st && i >= 0 && i < st->n_params ? ad__name_text(c, st->params[i].name) : NULL;
}

/* Whether text matches pattern: * stands for any text, ? for one character. */
bool ppl__glob(const char *pattern, const char *text)
{
    const char *star = NULL, *resume = NULL;
    while (*text) {
        if (*pattern == '*') {
            star = pattern++;
            resume = text;
        } else if (*pattern == '?' || *pattern == *text) {
            pattern++, text++;
        } else if (star) {
            pattern = star + 1;
            text = ++resume;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return !*pattern;
}

int64_t ppl_param_delete(const char *pattern)
{
    ad_context *c = ad__current();
    ppl_state *st = ppl__state(c);
    int64_t n = 0;
    if (ppl__refuse_inside(c, st, "ppl_param_delete"))
        return 0;
    for (int64_t i = 0; st && i < st->n_params; i++) {
        param *p = &st->params[i];
        if (pattern && !ppl__glob(pattern, ad__name_text(c, p->name)))
            continue;
        end(c, st, p);
        n++;
    }
    if (n)
        close_gaps(st);
    return n;
}
