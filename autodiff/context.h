/* What a context holds, and the small services every file of autodiff uses: memory, errors, handles, names, shapes.
 * Internal: included by autodiff, by backends, and by the rooms above for the ad__ calls they need. */
#ifndef AUTODIFF_CONTEXT_H
#define AUTODIFF_CONTEXT_H

#include "autodiff/ad.h"
#include "autodiff/philox.h"

typedef int32_t node_id; /* index on a tape; -1 is no node */

typedef struct tape tape;
typedef struct plan plan;
typedef struct lean_plan lean_plan;
struct owned;

/* ---- memory: every allocation of the library goes through these -------------------------------------------------- */

/* Grows, makes or (size 0) frees; NULL and an error on failure. The new part is not cleared. */
void *ad__allocate(ad_context *c, void *old, size_t size);
/* Frees what ad__allocate gave, when its context is no more. */
void ad__release_block(const ad_allocator *a, void *block);
/* Makes *array hold at least `need` elements, doubling; false and an error on failure, with the array as it was. */
bool ad__reserve(ad_context *c, void *array, int64_t *capacity, int64_t need, size_t element);

/* ---- handles ----------------------------------------------------------------------------------------------------- */

/* A handle is one odd word: bit 0 set, index in bits 1..31, generation in bits 32..61, kind in bits 62..63. */
typedef enum handle_kind { HANDLE_NIL, HANDLE_STEP, HANDLE_PERSISTENT, HANDLE_OBJECT } handle_kind;
#define HANDLE_GENERATION_MASK 0x3fffffffu

static inline void *handle_make(handle_kind kind, uint32_t generation, int32_t index)
{
    return (void *)((uintptr_t)kind << 62 | (uintptr_t)(generation & HANDLE_GENERATION_MASK) << 32 |
                    (uintptr_t)(uint32_t)index << 1 | 1);
}
static inline handle_kind handle_kind_of(const void *h)
{
    return (handle_kind)((uintptr_t)h >> 62);
}
static inline uint32_t handle_generation(const void *h)
{
    return (uintptr_t)h >> 32 & HANDLE_GENERATION_MASK;
}
static inline int32_t handle_index(const void *h)
{
    return (int32_t)((uintptr_t)h >> 1 & 0x7fffffff);
}
#define AD_NIL ((ad_tensor *)handle_make(HANDLE_NIL, 0, 0))

/* ---- interned names and shapes ----------------------------------------------------------------------------------- */

/* Copies of names, each once, never moved; id from 0. -1 after an error. Id and text are good for the open tapes; what
 * keeps them longer holds the name. */
int32_t ad__name(ad_context *c, const char *text);
int32_t ad__name_known(const ad_context *c, const char *text); /* -1 for a name that nobody has asked for */
void ad__name_hold(ad_context *c, int32_t id, int by); /* by 1, and by -1 when that thing ends; nothing for -1 */
/* Forgets the names that nobody holds or has used of late, once there are many. Called between steps. */
void ad__names_trim(ad_context *c);
void ad__names_free(ad_context *c);
static inline const char *ad__name_text(const ad_context *c, int32_t id);
uint32_t ad__name_hash(ad_context *c, int32_t id); /* 32 bits, distinct for every name of this context: keys draws */

typedef struct shape_info {
    ad_shape shape;
    int64_t size;      /* -1: no shape uses this entry */
    int32_t holders;   /* what outlives a step and has it */
    int32_t next_free; /* of an unused entry: the next one, -1 at the end */
} shape_info;
enum { SHAPE_PAGE = 64 };
int32_t ad__shape(ad_context *c, const ad_shape *s); /* id of an equal shape; -1 after an error */
/* The id stays as long as the context: for shapes of things that outlive a step. */
void ad__shape_pin(ad_context *c, int32_t id);
void ad__shape_hold(ad_context *c, int32_t id, int by); /* by 1, and by -1 when that thing ends */
/* Forgets the shapes that only steps used, and the plans with them, once there are many: a program that meets a new
 * size at every step must not grow. Called between steps. */
void ad__shapes_trim(ad_context *c);
/* NumPy's broadcasting; false when they do not fit (no error reported). */
bool ad__broadcast(const ad_shape *a, const ad_shape *b, ad_shape *out);
/* "(3, 4)" in one of a few rotating buffers of the context. */
const char *ad__shape_text(ad_context *c, const ad_shape *s);

/* ---- errors ------------------------------------------------------------------------------------------------------ */

/* Frames say where in the user's program we are; they cost nothing until an error is formatted, innermost first. */
typedef struct error_frame {
    struct error_frame *outer;
    const char *kind, *name; /* `in plate "rows"`; name may be NULL: `in model` */
} error_frame;

void ad__fail(ad_context *c, ad_error_kind kind, const char *hint, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* ---- persistent tensors ------------------------------------------------------------------------------------------ */

typedef enum tensor_kind { TENSOR_FREE, TENSOR_INPUT, TENSOR_BORROWED, TENSOR_STATE } tensor_kind;

typedef struct tensor {
    void *data; /* backend memory; a borrowed tensor's is the caller's */
    int32_t shape;
    uint8_t kind, dtype;
    int32_t slab;             /* of a state, else -1 */
    uint32_t generation;      /* of the handle */
    uint32_t tape_generation; /* the tape that has recorded it, as node `node` */
    node_id node;
    int64_t serial; /* never reused: what a plan knows a state by */
    int32_t next_free;
    uint32_t read_generation; /* the tape that read it for the host */
} tensor;

/* n elements of a tensor's dtype, its reals of this precision, converted. */
void ad__from_tensor(void *out, ad_source type, const void *in, int dtype, ad_precision precision, int64_t n);
tensor *ad__tensor(ad_context *c, const ad_tensor *handle); /* NULL, no error, when it is not a live persistent */

/* States lie in slabs that never move. What is free of a slab: gaps in order, no two of them side by side. */
typedef struct gap {
    size_t at, size;
} gap;
typedef struct slab {
    void *data; /* NULL: no slab */
    size_t size;
    int32_t live; /* states in it */
    gap *gaps;
    int64_t n_gaps, cap_gaps;
} slab;
/* Memory of a state and the slab that it lies in; NULL after an error. It is given back with the same number of bytes. */
void *ad__slab_take(ad_context *c, size_t bytes, int32_t *which);
void ad__slab_give(ad_context *c, int32_t which, const void *data, size_t bytes);
void ad__slabs_free(ad_context *c);

/* ---- the context ------------------------------------------------------------------------------------------------- */

typedef struct name_entry {
    char *text;
    uint32_t hash, key; /* key: the distinct hash that draws use */
    int32_t holders;    /* what outlives a step and has it */
    uint32_t used;      /* the context's tapes when it was last asked for */
    int32_t next_free;  /* of an unused entry, whose text is NULL: the next one, -1 at the end */
} name_entry;

/* What a seed was followed by. Seeding again begins another one; the rooms above may put one aside for a while. */
typedef struct seeding {
    uint64_t seed;
    uint64_t ordinal; /* distinct in the context */
    uint64_t scopes;  /* scopes that have drawn since */
    uint64_t streams; /* given to instances since, by the rooms above */
} seeding;
/* Begins to draw from a seed. */
static inline void ad__seed(ad_context *c, uint64_t seed);

struct ad_context {
    ad_allocator allocator;
    uint32_t number, next_generation, end_generation; /* of its handles; see owner.h */
    _Atomic int claimed;                              /* the thread that uses it, 0: none */
    int busy;                                         /* calls at work on its objects */
    struct owned *owned;                              /* objects that hang on it */
    ad_counters counters;
    ad_precision precision;
    int threads;
    int64_t max_nodes;

    ad_error_kind error_kind;
    char error[2048];
    const char *file;
    int line;
    error_frame *frame;

    name_entry *names;
    int64_t n_names, cap_names, used_names;
    int64_t names_looked_at; /* so many must there be until it is worth forgetting some */
    int64_t moved_keys;      /* names whose key is not their hash */
    int32_t free_name;
    int32_t *name_slots; /* open addressing; -1 empty */
    int64_t n_name_slots;
    struct {
        const char *text;
        int32_t id;
    } known_name[128]; /* what lay at an address when it was last asked for: mostly literals */

    shape_info **shapes; /* pages of SHAPE_PAGE: an entry never moves */
    int64_t n_shapes, used_shapes, cap_shape_pages;
    int64_t shapes_looked_at; /* so many must there be until it is worth forgetting some */
    int32_t free_shape;
    int held; /* tapes that a client keeps off the stack: their shapes must stay */
    int32_t *shape_slots;
    int64_t n_shape_slots;
    char shape_text[4][256];
    int shape_text_next;
    struct {
        int32_t a, b, joint;
    } broadcast[64]; /* what pairs of shapes broadcast to, found before */

    tensor *tensors;
    int64_t n_tensors, cap_tensors;
    int32_t free_tensor;
    int64_t next_serial;
    slab *slabs;
    int64_t n_slabs, cap_slabs;

    tape *tape;  /* the open one, or NULL */
    tape *spare; /* closed tapes, kept for their memory */
    uint32_t tapes; /* opened so far */

    plan **plans; /* the cache, most recent first */
    int64_t n_plans, cap_plans;
    int max_plans;
    uint64_t last_plan; /* its serial */
    int in_vain;       /* programs planned when they were met that have not come again, at most a few */
    lean_plan *lean;   /* of the last program that was interpreted */
    uint64_t seen[64]; /* hashes of such programs, in a ring: they are planned in full when they come again; 0: none */
    uint32_t next_seen, passed_over;
    uint32_t passes; /* which planner passes run, one bit each */

    uint64_t epoch; /* last given to a tape's blocks */
    seeding seeding; /* where draws come from now */
    uint64_t seedings; /* so far */

    const ad_backend *backend;
    void *backend_state;
    char reason[1024]; /* why ad_backend_open found none */

    void *client; /* the state of the room above */
    void (*client_free)(ad_context *c, void *client);
    void (*client_tape)(ad_context *c, void *client, tape *t, bool opens); /* a tape opens, or is about to close */
    void (*client_recover)(ad_context *c, const void *here); /* a call whose frame is here finds the context in a step */
};

/* The library's one variable: each thread's current context. */
extern _Thread_local ad_context *ad__thread_context __attribute__((tls_model("initial-exec"), visibility("hidden")));
ad_context *ad__default_context(void); /* makes the thread's first; NULL without memory for it */
static inline ad_context *ad__current(void)
{
    return ad__thread_context ? ad__thread_context : ad__default_context();
}
static inline const shape_info *ad__shape_info(const ad_context *c, int32_t id)
{
    return &c->shapes[(uint32_t)id / SHAPE_PAGE][(uint32_t)id % SHAPE_PAGE];
}
static inline const char *ad__name_text(const ad_context *c, int32_t id)
{
    return id >= 0 && id < c->n_names && c->names[id].text ? c->names[id].text : "?";
}
static inline bool ad__ok(const ad_context *c)
{
    return c->error_kind == AD_ERROR_NONE;
}
/* At the beginning of a call that also works outside steps and scopes: there an error of an earlier call is no reason
 * to refuse this one, or to hide what goes wrong in it. */
static inline void ad__begin_call(ad_context *c)
{
    if (!c->tape)
        c->error_kind = AD_ERROR_NONE;
}
static inline size_t ad__dtype_bytes(const ad_context *c, int dtype)
{
    return dtype == AD_INT64 ? 8 : dtype == AD_BYTE ? 1 : c->precision == AD_DOUBLE ? 8 : 4;
}

static inline void ad__seed(ad_context *c, uint64_t seed)
{
    c->seeding = (struct seeding){ .seed = seed, .ordinal = ++c->seedings };
}

/* 64-bit mixing, for hashes and keys. */
static inline uint64_t ad__mix(uint64_t x)
{
    return philox_mix(x);
}

#endif
