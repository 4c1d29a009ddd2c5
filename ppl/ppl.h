/* Models and guides: ordinary functions that call these primitives. The public face of ppl; it includes the rest.
 *
 *   static void model(ad_tensor *x)                     x (N)
 *   {
 *       ad_tensor *rate = ppl_sample("rate", dist_normal(0, 1));
 *       ppl_plate ("data", ad_dim(x, 0)) ppl_sample("obs", dist_normal(rate, 0.5), .obs = x);
 *   }
 *
 * Optional arguments are designated initialisers after the positional ones; zero means default. Meanings are Pyro's.
 * Every error names the site, the plates around it, the shapes and the line of the call. */
#ifndef PPL_PPL_H
#define PPL_PPL_H

#include "ppl/call.h"
#include "ppl/density.h"
#include "ppl/handlers.h"
#include "ppl/message.h"
#include "ppl/predictive.h"
#include "ppl/svi.h"
#include "ppl/trace.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- sample sites ------------------------------------------------------------------------------------------------ */

typedef struct ppl_sample_args {
    const char *name;    /* unique in a run of the model */
    distribution *fn;    /* plates around the site expand it: every cell draws independently */
    ad_tensor *obs;      /* the value, when it is data */
    ad_tensor *obs_mask; /* 1 where obs is data and 0 where it is missing, of the batch shape: the missing part is
                            drawn. Makes the sites <name>_observed and <name>_unobserved; the guide gives the
                            latter, inside ppl_mask(1 - obs_mask): without it the guide pays for the entries
                            that are observed, too */
    ppl_infer infer;
    ppl_source at_;
} ppl_sample_args;

/* A draw from fn (or obs), known to inference by its name. In C: ppl_sample("z", d), ppl_sample("x", d, .obs = x). */
AD_API ad_tensor *ppl_sample_site(const ppl_sample_args *a);

/* Adds log_factor to the model's log-density; in plates it is expanded, so a scalar counts once for each member. In a
 * guide it is taken from the ELBO, and its gradient is pathwise: right where log_factor is a differentiable function of
 * the guide's draws (Pyro's has_rsample=True). The model needs no partner of it. */
AD_API ad_tensor *ppl_factor_site(ppl_source at, const char *name, ad_tensor *log_factor);
/* Records a value under a name: it is in traces and predictions but has no density. */
AD_API ad_tensor *ppl_deterministic_site(ppl_source at, const char *name, ad_tensor *value);

/* ---- parameters ------------------------------------------------------------------------------------------------- */

/* How a parameter begins: a description, drawn when the parameter is made and never again. Draws depend on the seed and
 * the parameter's name alone. Values are constrained ones, as the model sees them. */
typedef enum ppl_init_kind {
    PPL_INIT_DEFAULT,
    PPL_INIT_CONSTANT,
    PPL_INIT_NORMAL,
    PPL_INIT_UNIFORM,
    PPL_INIT_VALUES
} ppl_init_kind;
typedef struct ppl_init {
    ppl_init_kind kind; /* the default is what unconstrained zeros become: 0, or 1 if positive */
    double a, b;
    const void *data;
    ad_source source;
    int64_t room; /* elements of the array, 0: not known */
} ppl_init;

/* Every element x; independent normal(0, sd); independent uniform(low, high); and in C ppl_values(array): its elements.
 */
static inline ppl_init ppl_constant(double x)
{
    ppl_init init = { PPL_INIT_CONSTANT, x, 0, NULL, AD_FROM_DOUBLE, 0 };
    return init;
}
static inline ppl_init ppl_randn(double sd)
{
    ppl_init init = { PPL_INIT_NORMAL, 0, sd, NULL, AD_FROM_DOUBLE, 0 };
    return init;
}
static inline ppl_init ppl_uniform(double low, double high)
{
    ppl_init init = { PPL_INIT_UNIFORM, low, high, NULL, AD_FROM_DOUBLE, 0 };
    return init;
}
static inline ppl_init ppl_init_values(const void *data, ad_source source, int64_t room)
{
    ppl_init init = { PPL_INIT_VALUES, 0, 0, data, source, room };
    return init;
}

typedef struct ppl_param_args {
    const char *name;
    ad_shape shape;
    ppl_init init;
    dist_constraint constraint; /* real by default; the optimiser moves an unconstrained tensor behind it */
    int event_dim; /* inside a subsampled plate: so many dimensions on the right are no plate's, the plate's rows */
    bool event_dim_set; /* are taken; PPL_NONE, or this, for event_dim 0 */
    ppl_source at_;
} ppl_param_args;

/* The parameter of that name, made at its first visit: ppl_param("scale", AD_SHAPE(3), .init = ppl_constant(0.1),
 * .constraint = ...). Another shape or constraint at a later visit is an error. */
AD_API ad_tensor *ppl_param_site(const ppl_param_args *a);

/* Reading and writing by full name, as the model sees the values (constrained); n counts elements. False, and an error,
 * when there is no such parameter or n is not its size. Outside a step. In C the pointer's type chooses: double, float.
 */
AD_API bool ppl_param_read(const char *name, void *out, ad_source type, int64_t n);
AD_API bool ppl_param_write(const char *name, const void *data, ad_source type, int64_t n);
AD_API bool ppl_param_exists(const char *name);
AD_API ad_shape ppl_param_shape(const char *name);
AD_API int64_t ppl_param_count(void);
/* In order of first visit, NULL beyond the last; the text is good as long as the parameter lives. */
AD_API const char *ppl_param_name(int64_t i);
/* Ends the parameters whose names match (* stands for any text, ? for one character); NULL: all. Returns how many. Their
 * memory, and what optimisers keep of them, is used again. Names may change for ever: those that no parameter has are
 * forgotten between steps; one scope, step or context has room for a million. */
AD_API int64_t ppl_param_delete(const char *pattern);

/* ---- plates ----------------------------------------------------------------------------------------------------- */

enum { PPL_ANY_SIZE = -1 }; /* a plate that only claims its dimension */

typedef struct ppl_plate_args {
    const char *name;
    int64_t size;           /* of the population */
    int dim;                /* batch dimension, negative; 0: the first free one from the right */
    int64_t subsample_size; /* draw so many members without replacement, the same in model and guide */
    ad_tensor *subsample;   /* or take these (int64, one dimension) */
    int64_t full_size;      /* the *external* minibatch: `size` members were taken elsewhere out of so many */
    ad_tensor **index;      /* out: indices of the members, int64 (size of the dimension) */
    ppl_source at_;
} ppl_plate_args;

/* Log-densities of sites inside count full size / size of the dimension times. */
typedef struct ppl_plate_scope {
    ad_context *context;
    void *plate;
    int depth;
    bool entered;
    int64_t next;
} ppl_plate_scope;

AD_API ppl_plate_scope ppl_plate_begin(ppl_plate_args a);
AD_API void ppl_plate_enter(ppl_plate_scope *s);
AD_API ppl_plate_scope ppl_each_begin(ppl_plate_args a);
AD_API bool ppl_each_next(ppl_plate_scope *s, int64_t *i);
AD_API void ppl_plate_leave(ppl_plate_scope *s);

/* Rows of data for the subsampled plates around, along their dimensions, counted left of the event_dim rightmost ones.
 * The data unchanged in plates that are not subsampled. */
AD_API ad_tensor *ppl_subsample_site(ppl_source at, ad_tensor *data, int event_dim);

/* ---- scopes of names, and the rest ------------------------------------------------------------------------------- */

typedef struct ppl_module_scope {
    ad_context *context;
    size_t length;
    bool entered;
    const char *name;
    void *frame;
} ppl_module_scope;
AD_API ppl_module_scope ppl_module_begin(const char *name);
AD_API void ppl_module_enter(ppl_module_scope *s);
AD_API void ppl_module_leave(ppl_module_scope *s);

/* Seeds all draws of the current context, as ad_seed does: what follows begins anew and is the same after the same
 * seed.
 *
 *   scopes       those that draw count from 0; in an open one the draws from here on begin anew
 *   instances    svi and predictives made from here on are numbered from 0, and each has draws of its own; those made
 *                before get their number at their next use, and count their steps and predictions from 0 again
 *   parameters   those made from here on are drawn from this seed and their name; those that there are stay
 *
 * A seed disturbs nothing else, and nothing but drawing uses draws up: a scope without draws, a parameter that is read
 * or made, an instance that could not be made. Within a scope or step a name that draws again draws anew. */
AD_API void ppl_seed(uint64_t seed);
/* No error so far in this step, and recording goes on: what a loop or recursion that ends on a value should test. */
AD_API bool ppl_ok(void);

#ifdef __cplusplus
}
#else

/* A call's result need not be used; a variable that ends a statement expression must be, says Clang. */
static inline ad_tensor *ppl_same_(ad_tensor *x)
{
    return x;
}
#define ppl_sample(...)                                                                                                \
    __extension__({                                                                                                    \
        AD_STRICT_ ad_tensor *ppl_value_ = ppl_sample_site(&(ppl_sample_args){ __VA_ARGS__, .at_ = PPL_HERE });        \
        AD_STRICT_END_ ppl_same_(ppl_value_);                                                                          \
    })
#define ppl_factor(name, x)                                                                                            \
    __extension__({                                                                                                    \
        __auto_type ad_x_ = (x);                                                                                       \
        AD_HERE;                                                                                                       \
        ppl_factor_site(PPL_HERE, (name), AD_OPERAND(ad_x_));                                                          \
    })
#define ppl_deterministic(name, x)                                                                                     \
    __extension__({                                                                                                    \
        __auto_type ad_x_ = (x);                                                                                       \
        AD_HERE;                                                                                                       \
        ppl_deterministic_site(PPL_HERE, (name), AD_OPERAND(ad_x_));                                                   \
    })

/* The shape is written AD_SHAPE(3): a bare 3 does not compile ("missing braces"). */
#define ppl_param(...)                                                                                                 \
    __extension__({                                                                                                    \
        AD_STRICT_ ad_tensor *ppl_value_ =                                                                             \
            ppl_param_site(&(ppl_param_args){ __VA_ARGS__, .at_ = { __FILE__, __LINE__ } });                           \
        AD_STRICT_END_ ppl_same_(ppl_value_);                                                                          \
    })
#define ppl_values(pointer) ppl_init_values((pointer), AD_SOURCE_OF(pointer), AD_ROOM_(pointer))
#define ppl_param_value(name, out, n)                                                                                  \
    __extension__({                                                                                                    \
        int64_t ppl_n_ = AD_WHOLE_(n);                                                                                 \
        AD_HERE;                                                                                                       \
        AD_HOLDS_(out, ppl_n_, "ppl_param_value is asked for") &&                                                      \
            ppl_param_read((name), (out), AD_SOURCE_OF(out), ppl_n_);                                                  \
    })
#define ppl_param_set(name, data, n)                                                                                   \
    __extension__({                                                                                                    \
        int64_t ppl_n_ = AD_WHOLE_(n);                                                                                 \
        AD_HERE;                                                                                                       \
        AD_HOLDS_(data, ppl_n_, "ppl_param_set is asked for") &&                                                       \
            ppl_param_write((name), (data), AD_SOURCE_OF(data), ppl_n_);                                               \
    })

/* ppl_plate ("rows", n) { ... }, ppl_plate ("rows", n, .subsample_size = 32, .index = &rows) { ... }: one-shot scopes.
 * `return` inside is safe; `break` and `continue` leave the block. Plates of one name may follow each other with the
 * same sizes. */
#define ppl_plate(...)                                                                                                 \
    PPL_SCOPE_(ppl_plate_scope, PPL_PLATE_(ppl_plate_begin, __VA_ARGS__), ppl_plate_enter, ppl_plate_leave)
#define PPL_PLATE_(begin, ...)                                                                                         \
    __extension__({                                                                                                    \
        AD_STRICT_SIZES_ ppl_plate_scope ppl_plate_ = begin((ppl_plate_args){ __VA_ARGS__, .at_ = PPL_HERE });         \
        AD_STRICT_END_ ppl_plate_;                                                                                     \
    })
/* The sequential plate: ppl_each (i, "rows", n) { ... } runs its block for every member i (int64_t); site names must
 * differ between iterations. `break` and `continue` do as in any loop. */
#define ppl_each(i, ...)                                                                                               \
    for (ppl_plate_scope ppl_scope_                                                                                    \
         __attribute__((cleanup(ppl_plate_leave))) = PPL_PLATE_(ppl_each_begin, __VA_ARGS__);                          \
         !ppl_scope_.entered; ppl_scope_.entered = true)                                                               \
        for (int64_t i = 0; ppl_each_next(&ppl_scope_, &i);)
#define ppl_subsample(data, event_dim) ppl_subsample_site(PPL_HERE, (data), (int)AD_WHOLE_(event_dim))

/* ppl_module ("decoder") { ... }: parameters inside are called decoder$$$name (nested: outer$$$inner$$$name). */
#define ppl_module(name)                                                                                               \
    PPL_SCOPE_(ppl_module_scope, (AD_HERE, ppl_module_begin(name)), ppl_module_enter, ppl_module_leave)
#endif
#endif
