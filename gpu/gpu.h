/* Inside the backend: its state, and the programs that plans are lowered to. */
#ifndef GPU_GPU_H
#define GPU_GPU_H

#include "autodiff/plan/plan.h"
#include "gpu/device.h"

#define GPU_WORDS_ONLY
#include "gpu/kernels.h"
#undef GPU_WORDS_ONLY

/* A compiled source, shared by the programs that have the same. */
typedef struct gpu_module {
    struct gpu_module *next;
    uint64_t hash;
    char *source;
    int64_t uses;
    void *loaded;
} gpu_module;

typedef struct gpu_state {
    ad_context *context;
    void *device;
    gpu_module *modules, *structured;
    int64_t most_blocks; /* of a grid's rows: what there is beyond them is done by loops */

    int64_t *record;                          /* kernels.h says what kernels write here */
    const char *total_at[RECORD_MOST_TOTALS]; /* where the device has the record's totals */
    int n_totals;                             /* since the last run; 0 once the device's memory was changed otherwise */
} gpu_state;

typedef struct gpu_step {
    void *kernel; /* NULL: a product */
    gpu_grid grid;
    int64_t words;   /* first of its words */
    int32_t address; /* first of its addresses */
    gpu_product product;
} gpu_step;

/* A bound input: where it is this time, and memory of the device for one that lies on the host. */
typedef struct gpu_input {
    void *now, *staged;
    size_t bytes; /* 0: the plan does not read it */
} gpu_input;

/* Where an address comes from: a place, or the program's scratch. */
enum { PLACE_SCRATCH = PLACE_BOUND + 1 };

typedef struct gpu_program {
    gpu_state *state;
    const plan *plan;
    gpu_module *module; /* of its elementwise items, or NULL */
    gpu_step *step;
    int64_t *words; /* of all steps: host's copy */
    place *reference;
    int64_t n_steps, n_words, n_references, cap_steps, cap_words, cap_references;
    bool gated; /* while lowering: behind the gate */

    int64_t *bind; /* host's copy: words, numbers, addresses */
    int64_t n_bind;
    void *device_bind, *device_words;
    char *scratch;
    size_t scratch_bytes;
    gpu_input *input; /* of each slot of bound inputs */
    int64_t n_inputs;
    place total[RECORD_MOST_TOTALS]; /* that the record tells */
    int n_totals;

    char *source; /* while lowering: of the items */
    int64_t source_bytes, cap_source;
    struct {
        int64_t step;
        char name[32];
    } * pending; /* steps whose kernels come of it */
    int64_t n_pending, cap_pending;
} gpu_program;

/* Each appends the steps of its item; false after an error. */
bool gpu__lower_chain(gpu_program *p, const plan_item *item);
bool gpu__lower_node(gpu_program *p, int32_t node);

/* A step of n threads' worth of work, with room for sizes; NULL after an error. Addresses follow by gpu__address. */
gpu_step *gpu__step(gpu_program *p, const char *kernel, int64_t work, const int64_t *sizes, int n_sizes);
bool gpu__address(gpu_program *p, place at);
bool gpu__more_words(gpu_program *p, const int64_t *words, int n); /* to the last step's sizes */
/* A module of this source; NULL after an error. */
gpu_module *gpu__module(gpu_state *s, const char *source);
void gpu__module_release(gpu_state *s, gpu_module *m);
/* Rank, then size and stride of each dimension, innermost first, of memory of shape `from` read in a loop of shape
 * `to`; returns the number of words. */
int gpu__spread(const ad_shape *from, const ad_shape *to, int64_t out[2 * AD_MAX_RANK + 1]);
void *gpu__memory(gpu_state *s, size_t bytes); /* of the device; NULL after an error */

#endif
