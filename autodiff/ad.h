/* Tensors, recorded operations and reverse-mode differentiation: the public face of autodiff.
 *
 * Operations do not compute. They append nodes to the tape of the step (or of the ad_scope) that is open, and return
 * handles to the values those nodes will have. A tape is planned, run and, when it is seen again, run as if compiled.
 *
 * Two lifetimes. A *persistent* tensor is made by ad_from, ad_borrow or ad_state and ended by ad_free. Every other
 * ad_tensor is a *step* value: it ends with the step or scope that recorded it. A handle is a word, never an address;
 * a stale one gives an error that says so.
 *
 * Errors are sticky: the first one is kept, whole, in the context; from then on every operation does nothing and
 * returns a nil handle, ad_dim gives 0 and reads give NAN. ad_ok() asks, ad_error() tells. The next scope or step
 * begins clean. Nothing here prints, aborts or exits. */
#ifndef AUTODIFF_AD_H
#define AUTODIFF_AD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#else
#include "autodiff/argument.h"
#endif

#define AD_API __attribute__((visibility("default")))

enum { AD_MAX_RANK = 16 };

typedef struct ad_context ad_context;
typedef struct ad_tensor ad_tensor; /* a handle: (kind, generation, index) in one word, never dereferenced */

/* AD_REAL is the tape's one floating type, float or double by the context; AD_INT64 serves indices, AD_BYTE images. */
typedef enum ad_dtype { AD_REAL, AD_INT64, AD_BYTE } ad_dtype;
typedef enum ad_precision { AD_FLOAT = 1, AD_DOUBLE = 2 } ad_precision;

/* Sizes of each dimension, outermost first; rank 0 is a scalar. Data is row-major. */
typedef struct ad_shape {
    int rank;
    int64_t dim[AD_MAX_RANK];
} ad_shape;

/* AD_SHAPE(3, n): sizes are integers, a real one does not compile. */
#ifdef __cplusplus
#define AD_SHAPE(...)                                                                                                  \
    ((ad_shape){ .rank = (int)(sizeof((int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t)), .dim = { __VA_ARGS__ } })
#else
#define AD_SHAPE(...)                                                                                                  \
    ((ad_shape){ .rank = AD_COUNT_(__VA_ARGS__) - AD_EMPTY_(__VA_ARGS__),                                              \
                 .dim = { AD_CAT_(AD_SIZES_, AD_EMPTY_(__VA_ARGS__))(__VA_ARGS__) } })
#define AD_SIZES_0(...) AD_MAP_(AD_WHOLE_, __VA_ARGS__)
#define AD_SIZES_1(...) 0
#endif
#define AD_SCALAR ((ad_shape){ .rank = 0 })

/* ---- contexts ---------------------------------------------------------------------------------------------------- */

/* Memory comes from `allocate` alone: size > 0 grows or makes (old may be NULL), size 0 frees. Returns NULL on failure,
 * which becomes an error of kind AD_ERROR_MEMORY; nothing is lost. Alignment must be that of malloc. */
typedef struct ad_allocator {
    void *(*allocate)(void *user, void *old, size_t size);
    void *user;
} ad_allocator;

typedef struct ad_options {
    ad_precision precision;        /* AD_FLOAT (default) or AD_DOUBLE */
    int threads;                   /* 0: $TAPER_THREADS, else the number of cores */
    const char *device;            /* NULL: $TAPER_DEVICE, else "cpu" */
    const ad_allocator *allocator; /* NULL: malloc */
    int64_t max_nodes;             /* most operations in one step; 0: 2^24 */
    int max_plans;                 /* plans kept in the cache; 0: 64 */
} ad_options;

/* Makes a context; NULL only when even its own few bytes cannot be had. All state lives in contexts; two threads with
 * two contexts share nothing. A thread that names none gets a default one at its first call. */
AD_API ad_context *ad_context_new(const ad_options *options);
/* Ends the context and all it owns (tensors, parameters, plans). NULL ends this thread's current one. What was made for
 * it by svi_new and its like is freed by hand, and BEFORE it. */
AD_API void ad_context_free(ad_context *c);
/* Makes c this thread's current context and returns the previous one (NULL: none yet). */
AD_API ad_context *ad_context_use(ad_context *c);
AD_API ad_context *ad_context_current(void);
AD_API ad_precision ad_precision_of(ad_context *c);
/* One line about what runs the kernels: backend, instruction set, BLAS, threads. Valid until the context ends. */
AD_API const char *ad_describe(void);
AD_API int ad_set_threads(int threads); /* returns the number now in use */

/* What runs plans: "cpu", or NAME of a shared object libtaper_NAME.so ("cuda"), looked for in $TAPER_BACKEND_PATH and
 * beside the library, opened at the first call and kept for the process's life. NULL where there is none, with the
 * reason in *why (which may be NULL; valid until this context's next call): not installed, its own libraries missing,
 * of another version. That is no error. It looks for no device: whether there is a GPU, a context made with .device =
 * NAME tells. */
typedef struct ad_backend ad_backend;
AD_API const ad_backend *ad_backend_open(const char *name, const char **why);

/* ---- errors ------------------------------------------------------------------------------------------------------ */

#define AD_ERROR_KINDS(X)                                                                                              \
    X(NONE, "no error")                                                                                                \
    X(MEMORY, "out of memory")                                                                                         \
    X(SHAPE, "shapes do not fit")                                                                                      \
    X(ARGUMENT, "bad argument")                                                                                        \
    X(STALE, "stale or nil value")                                                                                     \
    X(SCOPE, "no step or scope is open")                                                                               \
    X(SITE, "site misused")                                                                                            \
    X(SUPPORT, "value or parameter out of its domain")                                                                 \
    X(NONFINITE, "a value is not finite")                                                                              \
    X(LIMIT, "a limit was reached")                                                                                    \
    X(DEVICE, "device or library failure")                                                                             \
    X(FILE, "file cannot be read or written")

typedef enum ad_error_kind {
#define X(name, text) AD_ERROR_##name,
    AD_ERROR_KINDS(X)
#undef X
} ad_error_kind;

AD_API bool ad_ok(void);           /* no error since the scope or step began */
AD_API const char *ad_error(void); /* whole message of the first error, "" without one; valid until it is cleared */
AD_API ad_error_kind ad_error_code(void);
AD_API const char *ad_error_kind_name(ad_error_kind kind);
AD_API void ad_error_clear(void);
/* Reports an error as the library does; the first one wins. For handlers and distributions written by users.
 * `hint` may be NULL: it becomes the line "  hint: ..." */
AD_API void ad_fail(ad_error_kind kind, const char *hint, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Where the next call stands in the user's source; the masks call it. */
AD_API void ad_at(const char *file, int line);

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

typedef enum ad_source { AD_FROM_FLOAT, AD_FROM_DOUBLE, AD_FROM_INT, AD_FROM_INT64, AD_FROM_BYTE } ad_source;

/* Copies data (as many elements as shape has) into a new persistent tensor: float and double become AD_REAL, int and
 * int64_t AD_INT64, uint8_t AD_BYTE. NULL data gives zeros. End with ad_free. In C, ad_from(data, shape) chooses.
 *
 * Here and below, where C's macros are given an array (no pointer) with fewer elements than are copied from or to it,
 * that is an error; of a pointer they cannot know. */
AD_API ad_tensor *ad_from_data(const void *data, ad_source source, ad_shape shape);
/* A persistent tensor over the caller's own memory, which must hold the context's real type (float or double), and
 * must neither move nor change while a step that uses it runs. */
AD_API ad_tensor *ad_borrow(void *data, ad_shape shape);
/* A persistent real tensor that assignments can change at the end of a step; zero at first. Never moves. */
AD_API ad_tensor *ad_state(ad_shape shape);
AD_API void ad_free(ad_tensor *persistent); /* nil and NULL are allowed */
/* Overwrites all n elements of a persistent tensor. In C, ad_write(t, data, n) chooses the source type. */
AD_API bool ad_write_data(ad_tensor *persistent, const void *data, ad_source source, int64_t n);
/* The memory of a persistent tensor when the host can reach it (the CPU backend), else NULL. */
AD_API void *ad_host_data(ad_tensor *persistent);

/* Reads run the tape so far; they are the only calls that do. Copies n elements (exactly as many as the tensor has)
 * into out. Returns false, with out filled with NAN (zeros for integers), after an error. */
AD_API bool ad_read_data(ad_tensor *x, void *out, ad_source type, int64_t n);
/* The value of a tensor with one element; NAN after an error. The number knows nothing of where it came from: used in
 * further operations it is a constant, and no gradient flows through it. Meant for C's own `if` and `while`: a
 * parameter that reaches the loss in no other way is refused by its first svi_step. */
AD_API double ad_item(ad_tensor *x);
/* Reports that an array holds fewer elements than `wants` (as in "ad_from: the shape wants"). Always false. */
AD_API bool ad_array_short(int64_t holds, int64_t n, const char *wants);

AD_API int ad_rank(ad_tensor *x);
AD_API int64_t ad_dim(ad_tensor *x, int axis); /* negative axes count from the right; 0 after an error */
AD_API int64_t ad_size(ad_tensor *x);
AD_API ad_shape ad_shape_of(ad_tensor *x);
AD_API ad_dtype ad_dtype_of(ad_tensor *x);
AD_API bool ad_is_nil(const ad_tensor *x);

/* ---- scopes ------------------------------------------------------------------------------------------------------ */

/* ad_scope { ... } opens a tape for operations outside a step. `return` inside is safe; `break` and `continue` leave
 * the block. Inside another scope or a step it opens nothing new: values live until the outermost block ends. */
typedef struct ad_scope_state {
    ad_context *context;
    bool opened;
} ad_scope_state;
AD_API ad_scope_state ad_scope_begin(void);
AD_API void ad_scope_end(ad_scope_state *s);
#define ad_scope                                                                                                       \
    for (ad_scope_state ad_scope_ __attribute__((cleanup(ad_scope_end))) = ad_scope_begin(), *ad_once_ = &ad_scope_;   \
         ad_once_; ad_once_ = NULL)

/* ---- values without operands ------------------------------------------------------------------------------------- */

/* A number of this step: it enters at run time, so that another value makes no new plan. */
AD_API ad_tensor *ad_number(double value);
/* A number that is part of the program: another value makes another plan, and the planner may simplify with it. */
AD_API ad_tensor *ad_constant(double value);
AD_API ad_tensor *ad_full_shape(ad_shape shape, double value);
AD_API ad_tensor *ad_arange(int64_t n); /* 0, 1, ..., n - 1 as reals, shape (n) */

/* Draws: pure functions of (seed and stream, site, draw, run, element); see autodiff/philox.h. `draw` separates several
 * draws of one site. Without a site the draw's ordinal on the tape stands in for it. No gradient flows. */
AD_API ad_tensor *ad_random_normal(ad_shape shape, int draw);  /* standard normals */
AD_API ad_tensor *ad_random_uniform(ad_shape shape, int draw); /* in the open interval (0, 1) */
/* Seeds all draws of the current context, 0 at first: those that follow begin anew, in an open scope too. */
AD_API void ad_seed(uint64_t seed);

/* ---- elementwise operations -------------------------------------------------------------------------------------- */

/* One function per row of autodiff/ops.def, with NumPy's broadcasting; integer and byte operands are converted to real.
 * Comparisons give 1 and 0 as reals. In C a number may stand wherever an operand may: ad_mul(2, x). */
#define AD_OP1(name, ...) AD_API ad_tensor *ad_##name(ad_tensor *x);
#define AD_OP2(name, ...) AD_API ad_tensor *ad_##name(ad_tensor *a, ad_tensor *b);
#define AD_OP3(name, ...) AD_API ad_tensor *ad_##name(ad_tensor *a, ad_tensor *b, ad_tensor *c);
#define AD_OP4(name, ...) AD_API ad_tensor *ad_##name(ad_tensor *a, ad_tensor *b, ad_tensor *c, ad_tensor *d);
#include "autodiff/ops.def"

/* ---- structured operations --------------------------------------------------------------------------------------- */

AD_API ad_tensor *ad_cast_real(ad_tensor *x); /* int64 or byte -> real */

/* (..., M, K) x (..., K, N) -> (..., M, N), leading dimensions broadcast; a vector counts as a row on the left and as a
 * column on the right, and that dimension is dropped from the result. ad_matmul_t transposes the operands named first.
 */
AD_API ad_tensor *ad_matmul(ad_tensor *a, ad_tensor *b);
AD_API ad_tensor *ad_matmul_t(ad_tensor *a, bool transpose_a, ad_tensor *b, bool transpose_b);
/* x (..., I), weight (O, I), bias (O) or NULL -> x weight^T + bias, (..., O) */
AD_API ad_tensor *ad_linear(ad_tensor *x, ad_tensor *weight, ad_tensor *bias);

/* Reductions over the listed axes, negative ones from the right; n_axes 0 means all. The axes are removed, or kept with
 * size 1. In C: ad_sum(x), ad_sum(x, -1), ad_sum(x, 0, 2). */
typedef enum ad_reduction { AD_SUM, AD_MEAN, AD_MAX, AD_LOGSUMEXP } ad_reduction;
AD_API ad_tensor *ad_reduce(ad_reduction kind, ad_tensor *x, const int *axes, int n_axes, bool keep);
/* Sums x down to a shape that broadcasts to x's: the transpose of ad_expand. */
AD_API ad_tensor *ad_sum_to(ad_tensor *x, ad_shape shape);
AD_API ad_tensor *ad_cumsum(ad_tensor *x, int axis, bool reverse);

/* One dimension of the new shape may be -1. */
AD_API ad_tensor *ad_reshape(ad_tensor *x, ad_shape shape);
AD_API ad_tensor *ad_permute(ad_tensor *x, const int *axes, int n_axes);
AD_API ad_tensor *ad_transpose(ad_tensor *x, int axis_a, int axis_b);
AD_API ad_tensor *ad_expand(ad_tensor *x, ad_shape shape); /* broadcast to shape */
AD_API ad_tensor *ad_unsqueeze(ad_tensor *x, int axis);
AD_API ad_tensor *ad_squeeze(ad_tensor *x, int axis);
AD_API ad_tensor *ad_concat(ad_tensor *const *parts, int n, int axis);
AD_API ad_tensor *ad_stack(ad_tensor *const *parts, int n, int axis);
/* Elements [start, start + length) of an axis. The start enters at run time: another one makes no new plan. */
AD_API ad_tensor *ad_slice(ad_tensor *x, int axis, int64_t start, int64_t length);
/* The transpose of ad_slice: x placed at `start` of an axis of size `size`, zeros elsewhere. */
AD_API ad_tensor *ad_pad(ad_tensor *x, int axis, int64_t start, int64_t size);
/* Rows of an axis by an int64 index of any shape (I...): (A, N, B) -> (A, I..., B), of x's type: bytes stay bytes. The
 * gradient adds rows back up. An index outside [0, N) is an error when the step runs. */
AD_API ad_tensor *ad_gather(ad_tensor *x, int axis, ad_tensor *index);
/* The transpose of ad_gather: (A, I..., B) and index (I...) -> (A, size, B), rows of equal index added in order. */
AD_API ad_tensor *ad_scatter_add(ad_tensor *x, int axis, ad_tensor *index, int64_t size);
/* The value of x; no gradient flows back. */
AD_API ad_tensor *ad_stop_gradient(ad_tensor *x);
/* k indices drawn without replacement from [0, n), int64, shape (k): the first k of a permutation of [0, n). Every
 * ordered choice has the same chance: exactly for n up to 256, by a keyed network beyond (autodiff/philox.h). */
AD_API ad_tensor *ad_random_index(int64_t n, int64_t k, int draw);

/* Elements multiplied in double precision and summed over everything: sum_i weight_i * sum(x_i), the loss of a step. */
AD_API ad_tensor *ad_weighted_total(ad_tensor *const *x, const double *weight, int n);
/* Gradients of a scalar (or, summed, of a tensor) with respect to n values of the same tape, as new values of it;
 * zeros where y does not depend on x. */
AD_API void ad_gradient(ad_tensor *y, ad_tensor *const *x, int n, ad_tensor **out);
/* At the end of the step, once all is finite, state takes the value; shapes must agree. A value that was recorded from
 * the state and not yet read when a commit ran is computed, if it is read later, from the new content. */
AD_API void ad_assign(ad_tensor *state, ad_tensor *value);
/* Runs the open tape's assignments now (a step does so itself). False after an error; then no state has changed. */
AD_API bool ad_commit(void);

/* ---- counters ---------------------------------------------------------------------------------------------------- */

typedef struct ad_counters {
    /* Of the plan cache. A miss is a run of a program that is not known; where programs do not use to come again it is
     * interpreted, and planned when it does. An eviction forgets a program. */
    uint64_t hits, misses, evictions;
    uint64_t plans;                   /* plans now held */
    uint64_t allocations;             /* calls of the allocator that asked for memory, since the context began */
    uint64_t bytes;                   /* held from the allocator now */
    uint64_t nodes, steps;            /* of the last run: recorded nodes, kernels run */
    uint64_t interpreted;             /* runs that were */
} ad_counters;
AD_API ad_counters ad_count(void);

#ifdef __cplusplus
}
#else
#include "autodiff/masks.h"
#endif
#endif
