/* Distributions as objects: construction, shapes, expand, to_event, mask, and the calls of a class's functions. Called
 * by ppl and by users; knows no distribution by name. Handles are words; the objects live in the step's memory. */
#include "distributions/formula.h"

#include <math.h>
#include <string.h>

#define NIL ((distribution *)AD_NIL)

/* ---- handles ----------------------------------------------------------------------------------------------------- */

static const dist_object *open_object(ad_context **c, const distribution *d)
{
    *c = ad__current();
    return *c ? ad__object(*c, d, "the distribution") : NULL;
}

const dist_object *dist_object_of(distribution *d)
{
    ad_context *c;
    return open_object(&c, d);
}

/* A handle to a changed copy, or nil without memory. */
static distribution *keep(ad_context *c, const dist_object *o)
{
    dist_object *copy = ad__step_bytes(c, sizeof *copy);
    if (!copy) return NIL;
    *copy = *o;
    return ad__object_new(c, copy);
}

bool dist_is_nil(const distribution *d) { return ad_is_nil((const ad_tensor *)d); }

/* ---- shapes: interned, so that equal ones have equal addresses; NULL after an error ------------------------------ */

static const ad_shape *intern(ad_context *c, const ad_shape *s)
{
    int32_t id = ad__shape(c, s);
    return id < 0 ? NULL : &ad__shape_info(c, id)->shape;
}

/* The interned shape of a tensor; NULL, with the error, when it is none. */
static inline const ad_shape *shape_of(ad_context *c, T x, const char *what)
{
    node_id id = ad__node(c, x, what);
    return id < 0 ? NULL : &ad__shape_of(c, id)->shape;
}

/* Dimensions [from, to) */
static const ad_shape *part(ad_context *c, const ad_shape *s, int from, int to)
{
    if (from <= 0 && to == s->rank) return s;
    if (from >= to) return &ad__shape_info(c, 0)->shape; /* the scalar's */
    ad_shape r = { .rank = to - from };
    memcpy(r.dim, s->dim + from, (size_t)r.rank * sizeof *r.dim);
    return intern(c, &r);
}

/* All but the n rightmost dimensions, and those. */
static const ad_shape *without_right(ad_context *c, const ad_shape *s, int n)
{
    return n < s->rank ? part(c, s, 0, s->rank - n) : part(c, s, 0, 0);
}
static const ad_shape *right(ad_context *c, const ad_shape *s, int n)
{
    return n < s->rank ? part(c, s, s->rank - n, s->rank) : s;
}

/* s followed by t; an error when there are too many dimensions. */
static const ad_shape *join(ad_context *c, const ad_shape *s, const ad_shape *t)
{
    if (!s || !t || t->rank == 0) return t ? s : NULL;
    if (s->rank == 0) return t;
    if (s->rank + t->rank > AD_MAX_RANK) {
        ad__fail(c, AD_ERROR_SHAPE, NULL, "batch shape %s and event shape %s have more than %d dimensions",
                 ad__shape_text(c, s), ad__shape_text(c, t), AD_MAX_RANK);
        return NULL;
    }
    ad_shape r = *s;
    r.rank = s->rank + t->rank;
    memcpy(r.dim + s->rank, t->dim, (size_t)t->rank * sizeof *t->dim);
    return intern(c, &r);
}

/* What two shapes broadcast to; NULL, without an error, when they do not. */
static const ad_shape *broadcast(ad_context *c, const ad_shape *s, const ad_shape *t)
{
    ad_shape joint;
    if (!s || !t) return NULL;
    if (s == t || t->rank == 0) return s;
    if (s->rank == 0) return t;
    return ad__broadcast(s, t, &joint) ? intern(c, &joint) : NULL;
}

static const ad_shape *batch_of(ad_context *c, const dist_object *o)
{
    return o->to_event ? without_right(c, o->batch, o->to_event) : o->batch;
}
static const ad_shape *outer_event_of(ad_context *c, const dist_object *o) { return right(c, o->batch, o->to_event); }
static const ad_shape *event_of(ad_context *c, const dist_object *o)
{
    return o->to_event ? join(c, outer_event_of(c, o), o->event) : o->event;
}

ad_shape dist_batch_shape(distribution *d)
{
    ad_context *c;
    const dist_object *o = open_object(&c, d);
    const ad_shape *s = o ? batch_of(c, o) : NULL;
    return s ? *s : AD_SCALAR;
}

ad_shape dist_event_shape(distribution *d)
{
    ad_context *c;
    const dist_object *o = open_object(&c, d);
    const ad_shape *s = o ? event_of(c, o) : NULL;
    return s ? *s : AD_SCALAR;
}

int dist_event_dim(distribution *d)
{
    ad_context *c;
    const dist_object *o = open_object(&c, d);
    return o ? o->to_event + o->event->rank : 0;
}

const char *dist_name(distribution *d)
{
    ad_context *c = ad__current();
    const dist_object *o = c && !dist_is_nil(d) ? open_object(&c, d) : NULL;
    return o ? o->of->name : "?";
}

T dist__sum_rightmost(T x, int n)
{
    static const int axes[] = { -1, -2, -3, -4, -5, -6, -7, -8, -9, -10, -11, -12, -13, -14, -15, -16 };
    return n ? ad_reduce(AD_SUM, x, axes, n, false) : x;
}

static inline T expanded(ad_context *c, T x, const ad_shape *to)
{
    const ad_shape *s = to ? shape_of(c, x, "a result") : NULL;
    return !s ? AD_NIL : s == to ? x : ad_expand(x, *to);
}
T dist__expanded(T x, const ad_shape *to)
{
    ad_context *c = ad__current();
    return c ? expanded(c, x, to) : AD_NIL;
}

/* ---- construction ------------------------------------------------------------------------------------------------ */

/* A bound that is a number becomes one. */
static void bound_by_number(ad_context *c, ad_tensor **tensor, double *number)
{
    node_id id = *tensor ? ad__node(c, *tensor, "a bound") : -1;
    if (id >= 0 && dist__number(c, id, number)) *tensor = NULL;
}

static bool number_is(ad_context *c, const dist_object *o, int i, double x, dist_constraint set)
{
    const dist_class *of = o->of;
    const char *bound = NULL; /* the name of a parameter that bounds this one */
    for (int j = 0; j < i; j++)
        if (o->parameter[j] == set.lower_tensor || o->parameter[j] == set.upper_tensor) bound = of->parameter[j].name;
    bound_by_number(c, &set.lower_tensor, &set.lower);
    bound_by_number(c, &set.upper_tensor, &set.upper);
    if (dist_constraint_holds(&set, x)) return true;
    char text[120];
    int digits = dist__digits(&set, x);
    ad__fail(c, AD_ERROR_SUPPORT, NULL, "%s: %s must be %s%s%s%s, found %.*g", of->name, of->parameter[i].name,
             dist__describe(&set, digits, text, sizeof text), bound ? " (" : "", bound ? bound : "", bound ? ")" : "",
             digits, x);
    return false;
}

/* A number that the user wrote (perhaps broadcast) is known now: check it now, where the line is. */
static bool number_fits(ad_context *c, const dist_object *o, int i, node_id id)
{
    double x;
    if (!dist__number(c, id, &x)) return true;
    if (!o->of->constraint_of && dist_constraint_holds(&o->of->parameter[i].constraint, x)) return true;
    return number_is(c, o, i, x, dist__wanted(o, i));
}

/* A parameter that does not have the dimensions of a member, or has none to have; false. */
static bool has_no_member(ad_context *c, const dist_object *o, int i, const ad_shape *s, int own)
{
    const dist_parameter *info = &o->of->parameter[i];
    if (!info->name || own < 0 || own > AD_MAX_RANK)
        ad__fail(c, AD_ERROR_ARGUMENT, NULL, "dist_new: parameter %d of class %s %s", i, o->of->name,
                 info->name ? "has an event_dim that is none" : "has no name");
    else if (s->rank < own)
        ad__fail(c, AD_ERROR_SHAPE, NULL, "%s: %s has shape %s, but one member needs %d dimension%s", o->of->name,
                 info->name, ad__shape_text(c, s), own, own == 1 ? "" : "s");
    else
        ad__fail(c, AD_ERROR_SHAPE, NULL, "%s: %s has shape %s: nothing to choose from", o->of->name, info->name,
                 ad__shape_text(c, s));
    return false;
}

/* Adds parameter i, whose `own` rightmost dimensions belong to one member, to o's shapes; false after an error. */
static inline bool add_parameter(ad_context *c, dist_object *o, int i, T x, int own)
{
    const dist_parameter *info = &o->of->parameter[i];
    if (!info->name || (unsigned)own > AD_MAX_RANK) return has_no_member(c, o, i, NULL, own);
    node_id id = ad__node(c, x, info->name);
    if (id < 0) return false;
    const ad_shape *s = &ad__shape_of(c, id)->shape, *front = s;
    if ((unsigned)own > (unsigned)s->rank) return has_no_member(c, o, i, s, own);
    if (own) {
        if (info->event_dim > 0 && s->dim[s->rank - 1] == 0) return has_no_member(c, o, i, s, own);
        if (!(front = without_right(c, s, own))) return false;
    }
    int op = c->tape->node[id].op;
    if ((op == OP_scalar || op == OP_constant || op == OP_expand) && !number_fits(c, o, i, id)) return false;
    const ad_shape *joint = i == 0 ? front : broadcast(c, o->batch, front);
    if (!joint) {
        ad__fail(c, AD_ERROR_SHAPE, "sizes must agree from the right, or be 1",
                 "%s: %s has batch shape %s, which does not broadcast with %s of the parameters before it",
                 o->of->name, info->name, ad__shape_text(c, front), ad__shape_text(c, o->batch));
        return false;
    }
    o->batch = joint;
    o->parameter[i] = x;
    if (i == 0) o->event = right(c, s, info->event_dim == DIST_OWN_EVENT ? own : o->of->event_dim);
    return o->event != NULL;
}

/* The event shape is read off parameter 0. */
static inline bool has_sane_dims(const dist_class *of)
{
    int of_first = of->n_parameters ? of->parameter[0].event_dim : 0;
    return of_first == DIST_OWN_EVENT || (of->event_dim >= 0 && of->event_dim <= of_first);
}

/* Whether a class can make a distribution; the room's own pass quickly. */
static bool is_whole(ad_context *c, const dist_class *of, T const *parameter)
{
    if (of && of->name && of->log_prob && (unsigned)of->n_parameters <= DIST_MAX_PARAMETERS &&
        (parameter || !of->n_parameters) && has_sane_dims(of))
        return true;
    const char *name = of && of->name ? of->name : "?";
    if (!of || !of->name)
        ad__fail(c, AD_ERROR_ARGUMENT, NULL, "dist_new: the class %s", of ? "has no name" : "is NULL");
    else if (!of->log_prob)
        ad__fail(c, AD_ERROR_ARGUMENT, "set .log_prob of the dist_class", "dist_new: class %s has no log_prob", name);
    else if ((unsigned)of->n_parameters <= DIST_MAX_PARAMETERS && !has_sane_dims(of))
        ad__fail(c, AD_ERROR_ARGUMENT, "a draw's dimensions are the rightmost ones of parameter 0's members",
                 "dist_new: class %s says that a draw has %d dimensions", name, of->event_dim);
    else if (!parameter) ad__fail(c, AD_ERROR_ARGUMENT, NULL, "dist_new: the parameters of %s are NULL", name);
    else
        ad__fail(c, AD_ERROR_ARGUMENT, NULL, "dist_new: class %s says that it has %d parameters; 0 to %d are possible",
                 name, of->n_parameters, DIST_MAX_PARAMETERS);
    return false;
}

distribution *dist_new(const dist_class *of, T const *parameter, int event_dim)
{
    ad_context *c = ad__current();
    if (!c || !is_whole(c, of, parameter)) return NIL;
    dist_object *o = ad__ok(c) ? ad__step_bytes(c, sizeof *o) : NULL;
    if (!o) return NIL;
    o->of = of;
    o->to_event = o->mask_event = 0;
    o->mask = NULL;
    o->score = false;
    o->batch = o->event = &ad__shape_info(c, 0)->shape; /* the scalar's */
    for (int i = 0; i < of->n_parameters; i++) {
        int own = of->parameter[i].event_dim == DIST_OWN_EVENT ? event_dim : of->parameter[i].event_dim;
        if (!add_parameter(c, o, i, parameter[i], own)) return NIL;
    }
    return ad__object_new(c, o);
}

distribution *dist_expand(distribution *d, ad_shape batch)
{
    ad_context *c;
    const dist_object *o = open_object(&c, d);
    if (!o) return NIL;
    const ad_shape *old = batch_of(c, o), *to = intern(c, &batch);
    if (!to || old == to) return to ? d : NIL;
    if (broadcast(c, old, to) != to) {
        ad__fail(c, AD_ERROR_SHAPE, NULL, "%s: batch shape %s cannot be expanded to %s", o->of->name,
                 ad__shape_text(c, old), ad__shape_text(c, to));
        return NIL;
    }
    dist_object e = *o;
    e.batch = o->to_event ? join(c, to, outer_event_of(c, o)) : to;
    return e.batch ? keep(c, &e) : NIL;
}

distribution *(dist_to_event)(distribution *d, int n)
{
    ad_context *c;
    const dist_object *o = open_object(&c, d);
    if (!o || n == 0) return o ? d : NIL;
    dist_object e = *o;
    e.to_event += n == AD_ALL_DIMS ? o->batch->rank - o->to_event : n;
    if (e.to_event > o->batch->rank) {
        ad__fail(c, AD_ERROR_SHAPE, NULL, "%s: to_event(%d) asks for more dimensions than batch shape %s has",
                 o->of->name, n, ad__shape_text(c, batch_of(c, o)));
        return NIL;
    }
    if (e.to_event < (o->mask ? o->mask_event : 0)) {
        ad__fail(c, AD_ERROR_SHAPE, NULL, "%s: to_event(%d) gives back more dimensions than to_event made events%s",
                 o->of->name, n, o->mask ? " since the mask was set" : "");
        return NIL;
    }
    return keep(c, &e);
}

distribution *dist_mask(distribution *d, T mask)
{
    ad_context *c;
    const dist_object *o = open_object(&c, d);
    const ad_shape *shape = o ? shape_of(c, mask, "the mask") : NULL, *batch = shape ? batch_of(c, o) : NULL;
    if (!batch) return NIL;
    const ad_shape *joint = broadcast(c, batch, shape);
    if (!joint) {
        ad__fail(c, AD_ERROR_SHAPE, NULL, "%s: a mask of shape %s does not broadcast with batch shape %s", o->of->name,
                 ad__shape_text(c, shape), ad__shape_text(c, batch));
        return NIL;
    }
    dist_object e = *o;
    e.batch = o->to_event ? join(c, joint, outer_event_of(c, o)) : joint;
    if (o->mask) { /* a second mask: brought to the first one's dimensions, and both must be on */
        ad_shape wide = *shape;
        for (int i = o->mask_event; i < o->to_event && wide.rank < AD_MAX_RANK; i++) wide.dim[wide.rank++] = 1;
        e.mask = (ad_mul)((ad_ne)(o->mask, k(0)), (ad_ne)(ad_reshape(mask, wide), k(0)));
    } else {
        e.mask = mask;
        e.mask_event = o->to_event;
    }
    return e.batch ? keep(c, &e) : NIL;
}

bool dist_has_rsample(distribution *d)
{
    ad_context *c;
    const dist_object *o = open_object(&c, d);
    return o && o->of->has_rsample && !o->score;
}

distribution *dist_set_rsample(distribution *d, bool on)
{
    ad_context *c;
    const dist_object *o = open_object(&c, d);
    if (!o || o->score == !on) return o ? d : NIL;
    dist_object e = *o;
    e.score = !on;
    return keep(c, &e);
}

/* ---- the class's functions --------------------------------------------------------------------------------------- */

T dist_sample(distribution *d, int draw)
{
    ad_context *c;
    const dist_object *o = open_object(&c, d);
    const ad_shape *shape = o ? join(c, o->batch, o->event) : NULL;
    if (!shape) return AD_NIL;
    if (!o->of->sample) {
        ad__fail(c, AD_ERROR_ARGUMENT, "set .sample of the dist_class, or observe the site",
                 "class %s has no sample: nothing can be drawn from it", o->of->name);
        return AD_NIL;
    }
    T x = expanded(c, o->of->sample(o, shape, draw), shape);
    return o->of->has_rsample && o->score ? ad_stop_gradient(x) : x;
}

static dist_constraint support(const dist_object *o)
{
    return o->of->support_of ? o->of->support_of(o) : o->of->support;
}

/* The shape of elementwise log densities: batch against what stands in front of one draw of the class in value. NULL,
 * with an error, unless value ends with the event shape and broadcasts with the batch shape. */
static const ad_shape *value_fits(ad_context *c, const dist_object *o, const ad_shape *value)
{
    if (value == o->batch && !o->event->rank) return value; /* as mostly, whatever to_event counts as event */
    const ad_shape *event = event_of(c, o), *batch = batch_of(c, o);
    if (!event || !batch) return NULL;
    if (right(c, value, event->rank) == event && broadcast(c, without_right(c, value, event->rank), batch))
        return broadcast(c, without_right(c, value, o->event->rank), o->batch);
    ad__fail(c, AD_ERROR_SHAPE, NULL, "%s has batch shape %s and event shape %s; a value of shape %s does not fit",
             o->of->name, ad__shape_text(c, batch), ad__shape_text(c, event), ad__shape_text(c, value));
    return NULL;
}

T dist_log_prob(distribution *d, T value)
{
    ad_context *c;
    const dist_object *o = open_object(&c, d);
    const ad_shape *shape = o ? shape_of(c, value, "the value of log_prob") : NULL;
    if (!shape || !(shape = value_fits(c, o, shape))) return AD_NIL;
    T lp = o->of->log_prob(o, value);
    if (o->of->accepted.kind == DIST_REAL && (o->of->support_of || o->of->support.kind != DIST_REAL)) {
        dist_constraint set = support(o);
        T outside = (ad_sub)(k(1), dist_constraint_check(&set, value));
        outside = dist__sum_rightmost(outside, o->event->rank - dist_constraint_event_dim(set.kind));
        lp = (ad_where)(outside, k(-INFINITY), lp);
    }
    lp = expanded(c, lp, shape);
    if (!o->mask) return dist__sum_rightmost(lp, o->to_event);
    lp = dist__sum_rightmost(lp, o->mask_event);
    return dist__sum_rightmost((ad_where)(o->mask, lp, k(0)), o->to_event - o->mask_event);
}

static T moment(distribution *d, size_t function, const char *what)
{
    ad_context *c;
    const dist_object *o = open_object(&c, d);
    T (*f)(const dist_object *);
    const ad_shape *shape = o ? join(c, o->batch, o->event) : NULL;
    if (!shape) return AD_NIL;
    memcpy(&f, (const char *)o->of + function, sizeof f);
    if (f) return dist__expanded(f(o), shape);
    ad__fail(c, AD_ERROR_ARGUMENT, NULL, "%s has no %s", o->of->name, what);
    return AD_NIL;
}
T dist_mean(distribution *d) { return moment(d, offsetof(dist_class, mean), "mean"); }
T dist_variance(distribution *d) { return moment(d, offsetof(dist_class, variance), "variance"); }

T dist_entropy(distribution *d)
{
    ad_context *c;
    const dist_object *o = open_object(&c, d);
    if (!o) return AD_NIL;
    if (o->of->entropy) return dist__sum_rightmost(dist__expanded(o->of->entropy(o), o->batch), o->to_event);
    ad__fail(c, AD_ERROR_ARGUMENT, NULL, "%s has no entropy in closed form", o->of->name);
    return AD_NIL;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

bool dist_is_discrete(distribution *d)
{
    const dist_object *o = dist_object_of(d);
    return o && o->of->discrete;
}
dist_constraint dist_support(distribution *d)
{
    const dist_object *o = dist_object_of(d);
    return o ? support(o) : dist_real();
}
int dist_parameter_count(distribution *d)
{
    const dist_object *o = dist_object_of(d);
    return o ? o->of->n_parameters : 0;
}
const char *dist_parameter_name(distribution *d, int i)
{
    const dist_object *o = dist_object_of(d);
    return o && i >= 0 && i < o->of->n_parameters ? o->of->parameter[i].name : NULL;
}
T dist_parameter_value(distribution *d, int i)
{
    const dist_object *o = dist_object_of(d);
    return o && i >= 0 && i < o->of->n_parameters ? o->parameter[i] : AD_NIL;
}
dist_constraint dist_parameter_constraint(distribution *d, int i)
{
    const dist_object *o = dist_object_of(d);
    return o && i >= 0 && i < o->of->n_parameters ? o->of->parameter[i].constraint : dist_real();
}

const dist_class *dist_class_at(int i)
{
    static const dist_class *const classes[] = {
#define DIST(name) &dist__##name,
#include "distributions/registry.def"
#undef DIST
    };
    return i >= 0 && (size_t)i < sizeof classes / sizeof *classes ? classes[i] : NULL;
}
