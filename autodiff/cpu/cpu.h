/* Inside the CPU backend: its state, and the programs that plans are lowered to. */
#ifndef AUTODIFF_CPU_CPU_H
#define AUTODIFF_CPU_CPU_H

#include "autodiff/backend.h"
#include "autodiff/cpu/blas.h"
#include "autodiff/cpu/gemm.h"
#include "autodiff/cpu/kernels.h"
#include "autodiff/cpu/pool.h"
#include "autodiff/plan/plan.h"

enum {
    TILE = 256,       /* elements of an elementwise item that go through all its members at once: they stay in L1 */
    CHUNK_TILES = 16, /* tiles of a chunk, the unit that threads take: fixed by shape alone */
    /* Work that is worth another thread, whose part costs some microseconds to hand out and collect: elements times
     * members, drawn numbers, elements reduced or moved, multiply-adds. */
    WORTH_TILES = 1 << 17,
    WORTH_DRAWS = 1 << 15,
    WORTH_MOVES = 1 << 18,
    WORTH_PRODUCT = 1 << 21
};

typedef struct cpu_state {
    ad_context *context;
    const cpu_kernels *kernels;
    const gemm_kernel *gemm;
    blas library;
    bool library_sought, has_library; /* opening costs milliseconds: it waits for a product that needs it */
    cpu_pool *pool;
    char *scratch; /* one stretch for each thread, for tiles */
    size_t scratch_each;
    char *packed; /* operand of the product that is running, packed */
    size_t packed_bytes;
    struct cpu_program *lean; /* of interpreted nodes, one after another; NULL before the first */
    char **at;                /* where the values of interpreted nodes lie */
    int64_t cap_at;
    char description[256];
} cpu_state;

typedef struct cpu_program cpu_program;
typedef struct cpu_step cpu_step;
typedef struct spread spread;
/* The part of a step that computes elements [from, to) of the rows it is about. */
typedef void part_fn(const cpu_step *s, int64_t from, int64_t to, int thread);

/* A kernel with everything it needs; pointers are looked up in program->pointer, which is refreshed when memory moves.
 */
struct cpu_step {
    chunk_fn *run; /* job: the step */
    cpu_program *program;
    int64_t chunks;
    bool parallel;
    bool watched;      /* of a product: it sees to the guard's finiteness */
    int32_t followers; /* of a product: the steps behind it that run part by part with it */
    part_fn *part;     /* NULL: cannot follow */
    int32_t pointer; /* first of its pointers; output first */
    int32_t node;
    int64_t size[8]; /* what the kernel's function says */
    void *detail;    /* a tile program, a product, a list */
};

struct cpu_program {
    cpu_state *state;
    const plan *plan;
    void **pointer;
    place *reference; /* what each pointer points to */
    int32_t n_pointers;
    int32_t *bound; /* pointers to refresh at each run */
    int32_t n_bound;
    uint64_t epoch;
    cpu_step *step;
    int32_t n_steps, gate;
    int32_t draws; /* while lowering: the latest step of small draws, or -1 */
    char **detail;                  /* stretches of memory for all step->detail */
    char *detail_free, *detail_end; /* what is left of the last one */
    int64_t n_details, cap_details, cap_steps, cap_pointers, cap_references, cap_bound;
    const run_bind *bind; /* during a run */
    run_outcome *outcome;
};

static inline void *step_pointer(const cpu_step *s, int i)
{
    return s->program->pointer[s->pointer + i];
}
static inline size_t real_bytes(const cpu_program *p)
{
    return (size_t)p->state->kernels->bits / 8;
}

/* Elements of a strided array in the row-major order of a loop, innermost dimension first; stride 0 repeats. */
struct spread {
    int rank;
    int64_t dim[AD_MAX_RANK], stride[AD_MAX_RANK];
};
/* The elements [from, from + n) of the loop, each `element` bytes, into out. */
void cpu_spread(const spread *s, size_t element, int64_t from, int64_t n, const void *x, void *out);
/* x of shape `from` broadcast to shape `to`. */
spread cpu_spread_broadcast(const ad_shape *from, const ad_shape *to);

/* An elementwise item: operands are loaded, members computed, tile by tile. A slot is a stretch of elements that
 * members read or write: memory itself where it lies in the order of the loop, else a piece of scratch. */
typedef enum slot_kind { SLOT_MEMORY, SLOT_SPLAT, SLOT_SPREAD, SLOT_SCRATCH } slot_kind;
typedef struct tile_slot {
    int32_t kind;
    int32_t pointer; /* of memory, splat and spread */
    int32_t scratch; /* ordinal of its tile of scratch */
    spread *spread;
} tile_slot;
typedef struct tile_member {
    elementwise_kernel *run;
    small_kernel *small;
    int16_t out, in[4];
} tile_member;
typedef struct tile_program {
    int64_t size;
    int32_t n_slots, n_members, n_scratch;
    int32_t n_spreads, n_memories;
    tile_slot *slot;
    tile_member *member;
    int32_t n_splats;
    int16_t *spread_slot, *memory_slot, *splat_slot; /* the slots of those kinds */
    /* Of a program of one tile: its members with their addresses, found once for as long as no memory moves. A scalar
     * program loads its spreads by operations before them. */
    small_op *op;
    uint64_t epoch;
    const char *scratch;
} tile_program;
enum { TILE_SLOTS = 256 };

/* The entry of the backend's table. */
bool cpu_interpret(void *state, const plan *p, const run_bind *bind, run_outcome *outcome);
cpu_program *cpu_program_new(cpu_state *s, const plan *p);
void cpu_program_free(cpu_state *s, cpu_program *p);
void cpu_program_reset(cpu_program *p); /* without steps, as it was made, but for its memory */
void *cpu_resolve(const cpu_program *p, place at);

/* Each appends the steps of its item; false after an error. */
bool cpu_lower_tiles(cpu_program *p, const plan_item *item);
bool cpu_lower_node(cpu_program *p, int32_t node);
bool cpu_lower_product(cpu_program *p, int32_t node);
bool cpu_leads(const cpu_step *s);                 /* a product of whole rows, which other steps may follow */
bool cpu_watched(const plan *p, int32_t node);     /* a product that does the guard's work on its result */

/* A new step with the pointers of a node and of the operands it reads, in order; NULL after an error. */
cpu_step *cpu_step_new(cpu_program *p, chunk_fn *run, int32_t node);
int32_t cpu_pointer_new(cpu_program *p, place at); /* -1 after an error */
void *cpu_detail(cpu_program *p, size_t bytes);    /* cleared memory that lives as long as the program; NULL: error */
bool cpu_need_scratch(cpu_state *s, size_t each);
const blas *cpu_library(cpu_state *s); /* NULL where there is none */

#endif
