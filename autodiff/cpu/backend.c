/* The CPU backend: opening, memory, lowering plans to programs and running them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "autodiff/cpu/cpu.h"

enum { LINE = 64 };

/* ---- memory: 64-byte aligned, from the context's allocator; the distance to the true start lies in front --------- */

static void *memory_new(void *state, size_t bytes)
{
    char *base = ad__allocate(((cpu_state *)state)->context, NULL, bytes + 2 * LINE);
    if (!base)
        return NULL;
    char *p = base + LINE - ((uintptr_t)base & (LINE - 1));
    p[-1] = (char)(p - base);
    return p;
}
static void memory_free(void *state, void *memory)
{
    if (memory)
        ad__allocate(((cpu_state *)state)->context, (char *)memory - ((char *)memory)[-1], 0);
}
static bool copy(void *state, void *to, const void *from, size_t bytes)
{
    (void)state;
    if (bytes)
        memcpy(to, from, bytes);
    return true;
}
static bool clear(void *state, void *memory, size_t bytes)
{
    (void)state;
    memset(memory, 0, bytes);
    return true;
}
static void *host_pointer(void *state, void *memory)
{
    (void)state;
    return memory;
}

bool cpu_need_scratch(cpu_state *s, size_t each)
{
    each = (each + LINE - 1) & ~(size_t)(LINE - 1);
    if (each <= s->scratch_each)
        return true;
    char *scratch = memory_new(s, each * (size_t)cpu_pool_threads(s->pool));
    if (!scratch)
        return false;
    memory_free(s, s->scratch);
    s->scratch = scratch;
    s->scratch_each = each;
    return true;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static const cpu_kernels *choose_kernels(int bits)
{
    static const cpu_kernels *const tables[][2] = {
#define X(isa) { &cpu_kernels_f32_##isa, &cpu_kernels_f64_##isa },
        CPU_FOR_EACH_ISA(X)
#undef X
    };
    int level = gemm_cpu_level(), most = (int)(sizeof tables / sizeof *tables) - 1;
    return tables[level < most ? level : most][bits == 64];
}

static int default_threads(void)
{
    const char *text = getenv("TAPER_THREADS");
    int n = text ? atoi(text) : 0;
    return n > 0 ? n : (int)sysconf(_SC_NPROCESSORS_ONLN);
}

const blas *cpu_library(cpu_state *s)
{
    const char *why;
    if (!s->library_sought)
        s->has_library = blas_open(&s->library, &why) == 0;
    s->library_sought = true;
    return s->has_library ? &s->library : NULL;
}

static const char *describe(void *state)
{
    cpu_state *s = state;
    const blas *library = cpu_library(s);
    int threads = cpu_pool_threads(s->pool);
    snprintf(s->description, sizeof s->description, "CPU, %s kernels, own matrix products%s%s, %d thread%s",
             s->kernels->isa, library ? ", the largest by " : "", library ? library->description : "", threads,
             threads == 1 ? "" : "s");
    return s->description;
}

static void close_state(void *state)
{
    cpu_state *s = state;
    cpu_pool_free(s->pool);
    memory_free(s, s->scratch);
    memory_free(s, s->packed);
    if (s->lean)
        cpu_program_free(s, s->lean);
    ad__allocate(s->context, s->at, 0);
    if (s->has_library)
        blas_close(&s->library);
    ad__allocate(s->context, s, 0);
}

static cpu_state *new_state(ad_context *c, int threads)
{
    cpu_state *s = ad__allocate(c, NULL, sizeof *s);
    if (!s)
        return NULL;
    memset(s, 0, sizeof *s);
    s->context = c;
    int bits = c->precision == AD_DOUBLE ? 64 : 32;
    s->kernels = choose_kernels(bits);
    s->gemm = gemm_kernel_best(bits);
    if ((s->pool = cpu_pool_new(c, threads)))
        return s;
    close_state(s);
    return NULL;
}

static void *open_state(ad_context *c, const char *device)
{
    (void)device;
    cpu_state *s = new_state(c, c->threads > 0 ? c->threads : default_threads());
    if (s)
        c->threads = cpu_pool_threads(s->pool);
    return s;
}
static void *open_alone(void *state)
{
    return new_state(((cpu_state *)state)->context, 1);
}

static int set_threads(void *state, int threads)
{
    cpu_state *s = state;
    cpu_pool *pool = threads == cpu_pool_threads(s->pool) ? NULL : cpu_pool_new(s->context, threads);
    if (!pool)
        return cpu_pool_threads(s->pool);
    size_t each = s->scratch_each;
    cpu_pool *old = s->pool;
    s->pool = pool;
    s->scratch_each = 0;
    if (!cpu_need_scratch(s, each)) { /* as it was */
        s->pool = old;
        s->scratch_each = each;
        cpu_pool_free(pool);
        return cpu_pool_threads(old);
    }
    cpu_pool_free(old);
    s->context->threads = threads;
    return cpu_pool_threads(pool);
}

/* ---- lowering ---------------------------------------------------------------------------------------------------- */

void *cpu_detail(cpu_program *p, size_t bytes)
{
    ad_context *c = p->state->context;
    enum { STRETCH = 1 << 13 };
    bytes = bytes + LINE - bytes % LINE;
    if (bytes > (size_t)(p->detail_end - p->detail_free)) {
        size_t size = bytes > STRETCH ? bytes : STRETCH;
        if (!ad__reserve(c, &p->detail, &p->cap_details, p->n_details + 1, sizeof *p->detail))
            return NULL;
        char *stretch = memory_new(p->state, size);
        if (!stretch)
            return NULL;
        memset(stretch, 0, size);
        p->detail[p->n_details++] = p->detail_free = stretch;
        p->detail_end = stretch + size;
    }
    void *d = p->detail_free;
    p->detail_free += bytes;
    return d;
}

int32_t cpu_pointer_new(cpu_program *p, place at)
{
    ad_context *c = p->state->context;
    int64_t n = p->n_pointers;
    if (!ad__reserve(c, &p->pointer, &p->cap_pointers, n + 1, sizeof *p->pointer) ||
        !ad__reserve(c, &p->reference, &p->cap_references, n + 1, sizeof *p->reference) ||
        !ad__reserve(c, &p->bound, &p->cap_bound, n + 1, sizeof *p->bound))
        return -1;
    p->pointer[n] = NULL;
    p->reference[n] = at;
    if (at.kind == PLACE_BOUND)
        p->bound[p->n_bound++] = (int32_t)n;
    return p->n_pointers++;
}

cpu_step *cpu_step_new(cpu_program *p, chunk_fn *run, int32_t node)
{
    const plan *pl = p->plan;
    if (!ad__reserve(p->state->context, &p->step, &p->cap_steps, p->n_steps + 1, sizeof *p->step))
        return NULL;
    cpu_step *s = &p->step[p->n_steps++];
    *s = (cpu_step){ .run = run, .program = p, .chunks = 1, .pointer = p->n_pointers, .node = node };
    if (node < 0)
        return s;
    if (cpu_pointer_new(p, pl->place[node]) < 0)
        return NULL;
    for (int j = 0; j < pl->node[node].n_inputs; j++) {
        int32_t in = plan_inputs(pl, node)[j];
        in = pl->node[node].op == OP_expand ? ad__plan_operand(pl, node, NULL) : ad__plan_source(pl, in);
        if (cpu_pointer_new(p, pl->place[in]) < 0)
            return NULL;
    }
    return s;
}

void cpu_program_free(cpu_state *s, cpu_program *p)
{
    for (int64_t i = 0; i < p->n_details; i++)
        memory_free(s, p->detail[i]);
    void *arrays[] = { p->detail, p->pointer, p->reference, p->bound, p->step, p };
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        ad__allocate(s->context, arrays[i], 0);
}

static void release(void *state, void *program)
{
    cpu_program_free(state, program);
}

cpu_program *cpu_program_new(cpu_state *s, const plan *pl)
{
    cpu_program *p = ad__allocate(s->context, NULL, sizeof *p);
    if (!p)
        return NULL;
    memset(p, 0, sizeof *p);
    p->state = s;
    p->plan = pl;
    p->gate = p->draws = -1;
    return p;
}

void cpu_program_reset(cpu_program *p)
{
    p->n_steps = p->n_pointers = p->n_bound = 0;
    p->draws = -1;
    while (p->n_details > 1) /* the last is the largest, or large enough */
        memory_free(p->state, p->detail[--p->n_details - 1]), p->detail[p->n_details - 1] = p->detail[p->n_details];
    if (p->n_details) {
        memset(p->detail[0], 0, (size_t)(p->detail_free - p->detail[0]));
        p->detail_free = p->detail[0];
    }
}

/* Lets the last step run part by part with the product before it; false where it cannot. */
static bool follow(cpu_program *p)
{
    cpu_step *s = &p->step[p->n_steps - 1], *product = s - 1;
    while (!cpu_leads(product))
        product--;
    enum { ENOUGH = 8 }; /* chunks, for the threads that the step alone would have */
    if (!s->part || (s->parallel && product->chunks < ENOUGH))
        return false;
    product->parallel |= s->parallel;
    product->followers++;
    return true;
}

static void *lower(void *state, const plan *pl)
{
    cpu_program *p = cpu_program_new(state, pl);
    if (!p)
        return NULL;
    bool done = true, led = false; /* led: the last step is a product that can be followed, or follows it */
    for (int32_t k = 0; done && k < pl->n_items; k++) {
        const plan_item *it = &pl->item[k];
        if (k == pl->gate)
            p->gate = p->n_steps;
        done = it->shape >= 0 ? cpu_lower_tiles(p, it) : cpu_lower_node(p, pl->member[it->first]);
        led = done && p->n_steps && (it->follows ? led && follow(p) : cpu_leads(&p->step[p->n_steps - 1]));
    }
    if (p->gate < 0)
        p->gate = p->n_steps;
    if (done)
        return p;
    release(state, p);
    return NULL;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

void *cpu_resolve(const cpu_program *p, place at)
{
    if (at.kind == PLACE_BLOCK)
        return (char *)p->bind->blocks[at.index].data + at.offset;
    if (at.kind == PLACE_TENSOR)
        return p->state->context->tensors[at.index].data;
    if (at.kind == PLACE_BOUND)
        return p->bind->bound[at.index];
    return NULL;
}

static void refresh_pointers(cpu_program *p)
{
    if (p->epoch != p->bind->blocks_epoch) {
        for (int32_t i = 0; i < p->n_pointers; i++)
            p->pointer[i] = cpu_resolve(p, p->reference[i]);
        p->epoch = p->bind->blocks_epoch;
    }
    for (int32_t i = 0; i < p->n_bound; i++)
        p->pointer[p->bound[i]] = cpu_resolve(p, p->reference[p->bound[i]]);
}

static void prepare(void *state, void *program, const run_bind *bind)
{
    (void)state;
    cpu_program *p = program;
    p->bind = bind;
    p->epoch = 0;
    refresh_pointers(p);
}

static void store_scalars(const cpu_program *p)
{
    const plan *pl = p->plan;
    const cpu_kernels *k = p->state->kernels;
    char *to = (char *)p->bind->blocks[pl->segment].data + pl->scalar_offset;
    k->store_apart(pl->n_scalars, p->bind->scalar, to);
    k->store_apart(pl->n_constants, pl->constant, to + (size_t)pl->n_scalars * sizeof(double));
}

static bool run(void *state, void *program, const run_bind *bind, run_outcome *outcome)
{
    cpu_state *s = state;
    cpu_program *p = program;
    p->bind = bind;
    p->outcome = outcome;
    refresh_pointers(p);
    store_scalars(p);
    for (int32_t i = 0; i < p->n_steps; i += 1 + p->step[i].followers) {
        const cpu_step *step = &p->step[i];
        if (i == p->gate && (!outcome->finite || outcome->bad_index >= 0))
            break;
        if (step->parallel)
            cpu_pool_run(s->pool, step->run, step, step->chunks);
        else
            step->run(step, 0, step->chunks, 0);
    }
    return true;
}

const ad_backend ad__cpu_backend = {
    .name = "cpu",
    .open = open_state,
    .open_alone = open_alone,
    .close = close_state,
    .describe = describe,
    .set_threads = set_threads,
    .memory_new = memory_new,
    .memory_free = memory_free,
    .upload = copy,
    .download = copy,
    .clear = clear,
    .host_pointer = host_pointer,
    .lower = lower,
    .release = release,
    .interpret = cpu_interpret,
    .run = run,
    .prepare = prepare,
};
