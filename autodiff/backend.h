/* What runs plans. A backend fills one of these tables; the CPU's is always there, others are opened at run time.
 * Every entry but `interpret`, `open_alone` and `prepare` is required. Nothing here may abort or print; failures go through ad__fail of the
 * context. */
#ifndef AUTODIFF_BACKEND_H
#define AUTODIFF_BACKEND_H

#include "autodiff/context.h"
#include "autodiff/tape.h"

/* What changes between two runs of one plan. */
typedef struct run_bind {
    const double *scalar;  /* the tape's run-time numbers */
    void *const *bound;    /* memory of the bound inputs, in slot order */
    const block *blocks;   /* the tape's memory, one block for each segment; the plan writes the last */
    uint64_t blocks_epoch; /* changes whenever a block moved */
    uint64_t key;          /* of the draws */
    uint32_t run;
} run_bind;

/* What a run reports beside its values. */
typedef struct run_outcome {
    bool finite;       /* false: the assignments were not made */
    node_id bad_index; /* node whose index was out of range, or -1 */
    int64_t bad_value;
} run_outcome;

struct ad_backend {
    const char *name;
    /* NULL after an error; `device` is what the user asked for ("cpu", "cuda:1"). */
    void *(*open)(ad_context *c, const char *device);
    void (*close)(void *state);
    const char *(*describe)(void *state); /* one line; lives as long as the state */
    int (*set_threads)(void *state, int threads);

    /* A state beside this one that runs programs on its own thread alone, without a look at the context; ended by close.
     * NULL entry: programs do not run in several threads. NULL after an error. */
    void *(*open_alone)(void *state);

    /* Memory of tensors and blocks, aligned to 64 bytes; uncleared; NULL after an error. */
    void *(*memory_new)(void *state, size_t bytes);
    void (*memory_free)(void *state, void *memory);
    bool (*upload)(void *state, void *to, const void *from, size_t bytes);
    bool (*download)(void *state, void *to, const void *from, size_t bytes);
    bool (*clear)(void *state, void *memory, size_t bytes);
    void *(*host_pointer)(void *state, void *memory); /* NULL where the host cannot reach it */

    /* Turns a planned program into something runnable; NULL after an error. */
    void *(*lower)(void *state, const plan *p);
    void (*release)(void *state, void *program);
    /* Runs a single-use plan (autodiff/plan/single_use.c), which is not lowered: its live nodes in order, then the guard, then the
     * assignments in `member`. NULL: programs are planned in full at first sight. */
    bool (*interpret)(void *state, const plan *p, const run_bind *bind, run_outcome *outcome);
    bool (*run)(void *state, void *program, const run_bind *bind, run_outcome *outcome);
    /* Looks up, in the context's thread, the addresses that later runs with these blocks use. NULL where there is no
     * open_alone. */
    void (*prepare)(void *state, void *program, const run_bind *bind);
};

extern const ad_backend ad__cpu_backend;
/* Chooses and opens the context's backend; false after an error. A device is "cpu", "auto" (CUDA's first one where it
 * can be had, else the CPU), or NAME or NAME:number of a backend in a shared object of its own, libtaper_NAME.so:
 * "cuda:1". NULL is $TAPER_DEVICE, else the CPU. */
bool ad__backend_start(ad_context *c, const char *device);

/* What such a shared object is given: the library's internals are hidden from it. It exports ad__backend_entry, which
 * returns its backend, or NULL where the sizes are not those that it was built with. */
typedef struct backend_services {
    size_t bytes, context_bytes, plan_bytes; /* of these structures */
    void *(*allocate)(ad_context *c, void *old, size_t size);
    bool (*reserve)(ad_context *c, void *array, int64_t *capacity, int64_t need, size_t element);
    void (*fail)(ad_context *c, ad_error_kind kind, const char *hint, const char *format, ...)
        __attribute__((format(printf, 4, 5)));
    const char *(*op_name)(int op);
    int32_t (*source)(const plan *p, int32_t id);
    int32_t (*operand)(const plan *p, int32_t id, int32_t *shape);
    size_t (*value_bytes)(const plan *p, int32_t id);
} backend_services;
typedef const ad_backend *backend_entry(const backend_services *services);

void ad__tensors_free(ad_context *c);

#endif
