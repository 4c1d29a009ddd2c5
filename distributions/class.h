/* Classes of distributions: what one must tell about itself. Each distribution of this room is one constant dist_class
 * in one file, and a row of registry.def; programs make their own in the same way and build objects with dist_new.
 *
 *     static ad_tensor *log_prob(const dist_object *d, ad_tensor *x) { ... d->parameter[0] ... }
 *     static const dist_class pareto = { .name = "pareto", .n_parameters = 2,
 *         .parameter = { { .name = "scale", .constraint.kind = DIST_POSITIVE }, ... }, ... };
 *     distribution *d = dist_new(&pareto, (ad_tensor *[]){ scale, alpha }, 0);
 *
 * The room does the rest: broadcasting, expand, to_event, mask, supports, checks of parameters, stopped gradients. */
#ifndef DISTRIBUTIONS_CLASS_H
#define DISTRIBUTIONS_CLASS_H

#include "distributions/constraint.h"
#include "distributions/dist.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { DIST_MAX_PARAMETERS = 4, DIST_OWN_EVENT = -1 };

typedef struct dist_class dist_class;

/* A distribution as its class's functions see it. Shapes are those of the class: dimensions that to_event made event
 * dimensions still count as batch here. */
typedef struct dist_object {
    const dist_class *of;
    ad_tensor *parameter[DIST_MAX_PARAMETERS]; /* as given; they broadcast to batch + own event dimensions */
    const ad_shape *batch; /* after expand; interned: equal shapes have equal addresses */
    const ad_shape *event; /* of the class; interned */
    int to_event;   /* rightmost dimensions of batch that count as event dimensions */
    ad_tensor *mask; /* or NULL; applies once `mask_event` of those are summed */
    int mask_event;
    bool score; /* draws stop gradients even if the class has rsample */
} dist_object;

typedef struct dist_parameter {
    const char *name;
    dist_constraint constraint;
    int event_dim; /* dimensions that belong to one member; DIST_OWN_EVENT: as many as a draw has */
} dist_parameter;

struct dist_class {
    const char *name;
    int n_parameters;
    dist_parameter parameter[DIST_MAX_PARAMETERS];
    dist_constraint support; /* of a draw; outside it log_prob is -inf, whatever the formula gives */
    dist_constraint accepted; /* not real: observed values may lie here, beyond the support (gray pixels); then the
                               * formula alone makes log_prob */
    int event_dim;           /* dimensions of a draw: those of the shape that parameter 0 ends with */
    bool has_rsample;        /* sample is differentiable in the parameters */
    bool discrete;
    /* A draw of `shape` = *d->batch + *d->event; noise must have as many independent cells. NULL: it is only observed,
     * and a draw is an error. */
    ad_tensor *(*sample)(const dist_object *d, const ad_shape *shape, int draw);
    /* x -> log density, own event dimensions summed; what the parameters' and x's shapes broadcast to is enough. */
    ad_tensor *(*log_prob)(const dist_object *d, ad_tensor *x);
    /* Moments, of any shape that broadcasts to batch + event; NULL where there are none (an error says so). */
    ad_tensor *(*mean)(const dist_object *d);
    ad_tensor *(*variance)(const dist_object *d);
    ad_tensor *(*entropy)(const dist_object *d); /* own event dimensions summed; NULL: not known in closed form */
    /* Where what a parameter must be depends on those before it: instead of its own constraint; else NULL. */
    dist_constraint (*constraint_of)(const dist_object *d, int i);
    /* Where the support depends on parameters; NULL: `support`. */
    dist_constraint (*support_of)(const dist_object *d);
};

/* A distribution of a class; event_dim is read where the class says DIST_OWN_EVENT, else give 0. The class must outlive
 * it. Nil, with the error, when parameters do not broadcast, a number among them is outside its constraint, or the
 * class has no name or no log_prob. */
AD_API distribution *dist_new(const dist_class *of, ad_tensor *const *parameter, int event_dim);
/* The object of a live handle, for code that treats classes; NULL, with an error, for others. */
AD_API const dist_object *dist_object_of(distribution *d);

/* The classes of this room, in the order of registry.def; NULL past the end. */
AD_API const dist_class *dist_class_at(int i);

#ifdef __cplusplus
}
#endif
#endif
