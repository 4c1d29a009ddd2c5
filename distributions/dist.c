/* Distributions as objects: construction, shapes, expand, to_event, mask, and the calls of a class's functions. Called by
 * ppl and by users; knows no distribution by name. Handles are words; the objects live in the step's memory. */
#include "distributions/formula.h"

#include <math.h>
#include <string.h>

#define NIL ((distribution *)AD_NIL)

/* ---- handles --------------------------------------------------------------------------------------------------------- */

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

/* ---- shapes ------------------------------------------------------------------------------------------------------------ */

/* Drops the n rightmost dimensions. */
static ad_shape without_right(ad_shape s, int n)
{
    s.rank = n < s.rank ? s.rank - n : 0;
    return s;
}

/* The n rightmost dimensions. */
static ad_shape right(const ad_shape *s, int n)
{
    ad_shape r = { .rank = n < s->rank ? n : s->rank };
    memcpy(r.dim, s->dim + s->rank - r.rank, (size_t)r.rank * sizeof *r.dim);
    return r;
}

/* s followed by t; an error when there are too many dimensions. */
static bool join(ad_context *c, const ad_shape *s, const ad_shape *t, ad_shape *out)
{
    if (s->rank + t->rank > AD_MAX_RANK) {
        ad__fail(c, AD_ERROR_SHAPE, NULL, "batch shape %s and event shape %s have more than %d dimensions",
                 ad__shape_text(c, s), ad__shape_text(c, t), AD_MAX_RANK);
        return false;
    }
    *out = *s;
    out->rank = s->rank + t->rank;
    memcpy(out->dim + s->rank, t->dim, (size_t)t->rank * sizeof *t->dim);
    return true;
}

static bool same(const ad_shape *s, const ad_shape *t)
{
    return s->rank == t->rank && !memcmp(s->dim, t->dim, (size_t)s->rank * sizeof *s->dim);
}

ad_shape dist_batch_shape(distribution *d)
{
    ad_context *c;
    const dist_object *o = open_object(&c, d);
    return o ? without_right(o->batch, o->to_event) : AD_SCALAR;
}

ad_shape dist_event_shape(distribution *d)
{
    ad_context *c;
    const dist_object *o = open_object(&c, d);
    ad_shape s = AD_SCALAR, outer;
    if (!o) return s;
    outer = right(&o->batch, o->to_event);
    return join(c, &outer, &o->event, &s) ? s : AD_SCALAR;
}

int dist_event_dim(distribution *d)
{
    ad_context *c;
    const dist_object *o = open_object(&c, d);
    return o ? o->to_event + o->event.rank : 0;
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

static T expanded(T x, const ad_shape *to)
{
    ad_shape s = ad_shape_of(x);
    return same(&s, to) ? x : ad_expand(x, *to);
}

/* ---- construction -------------------------------------------------------------------------------------------------------- */

/* A number that the user wrote (perhaps broadcast) is known now: check it now, where the line is. */
static bool number_fits(ad_context *c, const dist_class *of, int i, T parameter)
{
    node_id id = ad__node(c, parameter, of->parameter[i].name);
    const tape *t = c->tape;
    double x;
    if (id < 0) return false;
    while (t->node[id].op == OP_expand) id = ad__inputs(t, id)[0];
    if (t->node[id].op == OP_scalar) x = t->scalar[t->node[id].bind];
    else if (t->node[id].op == OP_constant) memcpy(&x, ad__attrs(t, id), sizeof x);
    else return true;
    const dist_constraint *set = &of->parameter[i].constraint;
    if (dist_constraint_holds(set, x)) return true;
    char text[80];
    ad__fail(c, AD_ERROR_SUPPORT, NULL, "%s: %s must be %s, found %g", of->name, of->parameter[i].name,
             dist_constraint_describe(set, text, sizeof text), x);
    return false;
}

distribution *dist_new(const dist_class *of, T const *parameter, int event_dim)
{
    ad_context *c = ad__current();
    if (!c || !ad__ok(c)) return NIL;
    dist_object o = { .of = of };
    for (int i = 0; i < of->n_parameters; i++) {
        if (!number_fits(c, of, i, parameter[i])) return NIL;
        o.parameter[i] = parameter[i];
        ad_shape s = ad_shape_of(parameter[i]), batch;
        int own = of->parameter[i].event_dim == DIST_OWN_EVENT ? event_dim : of->parameter[i].event_dim;
        if (s.rank < own) {
            ad__fail(c, AD_ERROR_SHAPE, NULL, "%s: %s has shape %s, but one member needs %d dimension%s", of->name,
                     of->parameter[i].name, ad__shape_text(c, &s), own, own == 1 ? "" : "s");
            return NIL;
        }
        if (i == 0) o.event = right(&s, of->parameter[i].event_dim == DIST_OWN_EVENT ? event_dim : of->event_dim);
        s = without_right(s, own);
        if (!ad__broadcast(&o.batch, &s, &batch)) {
            ad__fail(c, AD_ERROR_SHAPE, "sizes must agree from the right, or be 1",
                     "%s: %s has batch shape %s, which does not broadcast with %s of the parameters before it", of->name,
                     of->parameter[i].name, ad__shape_text(c, &s), ad__shape_text(c, &o.batch));
            return NIL;
        }
        o.batch = batch;
    }
    return keep(c, &o);
}

distribution *dist_expand(distribution *d, ad_shape batch)
{
    ad_context *c;
    const dist_object *o = open_object(&c, d);
    if (!o) return NIL;
    dist_object e = *o;
    ad_shape old = without_right(o->batch, o->to_event), outer = right(&o->batch, o->to_event), joint;
    if (!ad__broadcast(&old, &batch, &joint) || !same(&joint, &batch)) {
        ad__fail(c, AD_ERROR_SHAPE, NULL, "%s: batch shape %s cannot be expanded to %s", o->of->name,
                 ad__shape_text(c, &old), ad__shape_text(c, &batch));
        return NIL;
    }
    if (same(&old, &batch)) return d;
    return join(c, &batch, &outer, &e.batch) ? keep(c, &e) : NIL;
}

distribution *dist_to_event(distribution *d, int n)
{
    ad_context *c;
    const dist_object *o = open_object(&c, d);
    if (!o || n == 0) return o ? d : NIL;
    dist_object e = *o;
    int free_dims = o->batch.rank - o->to_event;
    e.to_event += n == AD_ALL_DIMS ? free_dims : n;
    if (e.to_event > o->batch.rank) {
        ad_shape batch = without_right(o->batch, o->to_event);
        ad__fail(c, AD_ERROR_SHAPE, NULL, "%s: to_event(%d) asks for more dimensions than batch shape %s has", o->of->name,
                 n, ad__shape_text(c, &batch));
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
    node_id id = o ? ad__node(c, mask, "the mask") : -1;
    if (id < 0) return NIL;
    dist_object e = *o;
    ad_shape batch = without_right(o->batch, o->to_event), outer = right(&o->batch, o->to_event), joint;
    ad_shape shape = ad_shape_of(mask);
    if (!ad__broadcast(&batch, &shape, &joint)) {
        ad__fail(c, AD_ERROR_SHAPE, NULL, "%s: a mask of shape %s does not broadcast with batch shape %s", o->of->name,
                 ad__shape_text(c, &shape), ad__shape_text(c, &batch));
        return NIL;
    }
    if (!join(c, &joint, &outer, &e.batch)) return NIL;
    if (o->mask) { /* a second mask: brought to the first one's dimensions, and both must be on */
        shape = ad_shape_of(mask);
        for (int i = o->mask_event; i < o->to_event && shape.rank < AD_MAX_RANK; i++) shape.dim[shape.rank++] = 1;
        e.mask = (ad_mul)((ad_ne)(o->mask, k(0)), (ad_ne)(ad_reshape(mask, shape), k(0)));
    } else {
        e.mask = mask;
        e.mask_event = o->to_event;
    }
    return keep(c, &e);
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

/* ---- the class's functions ------------------------------------------------------------------------------------------------- */

T dist_sample(distribution *d, int draw)
{
    ad_context *c;
    const dist_object *o = open_object(&c, d);
    ad_shape shape;
    if (!o || !join(c, &o->batch, &o->event, &shape)) return AD_NIL;
    T x = expanded(o->of->sample(o, &shape, draw), &shape);
    return o->of->has_rsample && o->score ? ad_stop_gradient(x) : x;
}

static dist_constraint support(const dist_object *o) { return o->of->support_of ? o->of->support_of(o) : o->of->support; }

/* Values must end with the event shape; what is in front must broadcast with the batch shape. */
static bool value_fits(ad_context *c, const dist_object *o, const ad_shape *value)
{
    ad_shape outer = right(&o->batch, o->to_event), batch = without_right(o->batch, o->to_event), event, got, front, joint;
    if (!join(c, &outer, &o->event, &event)) return false;
    got = right(value, event.rank);
    front = without_right(*value, event.rank);
    if (same(&got, &event) && ad__broadcast(&front, &batch, &joint)) return true;
    ad__fail(c, AD_ERROR_SHAPE, NULL, "%s has batch shape %s and event shape %s; a value of shape %s does not fit",
             o->of->name, ad__shape_text(c, &batch), ad__shape_text(c, &event), ad__shape_text(c, value));
    return false;
}

T dist_log_prob(distribution *d, T value)
{
    ad_context *c;
    const dist_object *o = open_object(&c, d);
    node_id id = o ? ad__node(c, value, "the value of log_prob") : -1;
    if (id < 0) return AD_NIL;
    ad_shape shape = ad_shape_of(value), batch;
    if (!value_fits(c, o, &shape)) return AD_NIL;
    dist_constraint set = support(o);
    T lp = o->of->log_prob(o, value);
    if (!o->of->any_value && set.kind != DIST_REAL) {
        T inside = dist__sum_rightmost((ad_sub)(dist_constraint_check(&set, value), k(1)),
                                       o->event.rank - dist_constraint_event_dim(set.kind));
        lp = (ad_where)((ad_ge)(inside, k(0)), lp, k(-INFINITY));
    }
    shape = without_right(shape, o->event.rank);
    if (!ad__broadcast(&o->batch, &shape, &batch)) return AD_NIL;
    lp = expanded(lp, &batch);
    if (!o->mask) return dist__sum_rightmost(lp, o->to_event);
    lp = dist__sum_rightmost(lp, o->mask_event);
    return dist__sum_rightmost((ad_where)(o->mask, lp, k(0)), o->to_event - o->mask_event);
}

static T moment(distribution *d, size_t function, const char *what)
{
    ad_context *c;
    const dist_object *o = open_object(&c, d);
    T (*f)(const dist_object *);
    ad_shape shape;
    if (!o || !join(c, &o->batch, &o->event, &shape)) return AD_NIL;
    memcpy(&f, (const char *)o->of + function, sizeof f);
    if (f) return expanded(f(o), &shape);
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
    if (o->of->entropy) return dist__sum_rightmost(expanded(o->of->entropy(o), &o->batch), o->to_event);
    ad__fail(c, AD_ERROR_ARGUMENT, NULL, "%s has no entropy in closed form", o->of->name);
    return AD_NIL;
}

/* ---- reading ----------------------------------------------------------------------------------------------------------------- */

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

T dist_check(distribution *d, T value)
{
    const dist_object *o = dist_object_of(d);
    if (!o) return AD_NIL;
    T all = k(1);
    for (int i = 0; i <= o->of->n_parameters; i++) {
        bool of_value = i == o->of->n_parameters;
        if (of_value && (!value || o->of->any_value)) break;
        dist_constraint set = of_value ? support(o) : o->of->parameter[i].constraint;
        T ok = dist_constraint_check(&set, of_value ? value : o->parameter[i]);
        all = (ad_min)(all, (ad_sub)(k(1), ad_reduce(AD_MAX, (ad_sub)(k(1), ok), NULL, 0, false)));
    }
    return all;
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
