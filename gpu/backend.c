/* The backend over a device: memory, modules, lowering plans to programs and running them. Of the module's entries this
 * is the one that the library calls. A run is one upload of the bind, the launches, and one wait: what the host wants
 * to know, the outcome and the totals, kernels have then written to a record of the host's. */
#include <stdlib.h>
#include <string.h>

#include "gpu/gpu.h"
#include "gpu/hash.h"

/* ---- opening ----------------------------------------------------------------------------------------------------- */

enum { BLOCKS_OF_PROCESSOR = 8 }; /* as many of GPU_THREADS threads as one has at work */

static int ordinal_of(ad_context *c, const char *device)
{
    const char *colon = strchr(device, ':');
    if (!colon)
        return 0;
    char *end;
    long n = strtol(colon + 1, &end, 10);
    if (end != colon + 1 && !*end && n >= 0 && n < 1024)
        return (int)n;
    ad__fail(c, AD_ERROR_DEVICE, "write it as cuda or cuda:1", "no device \"%s\"", device);
    return -1;
}

static void close_state(void *state)
{
    gpu_state *s = state;
    if (s->structured)
        gpu__module_release(s, s->structured);
    if (s->record)
        gpu__device.record_free(s->device, s->record);
    if (s->device)
        gpu__device.close(s->device);
    ad__allocate(s->context, s, 0);
}

static void *open_state(ad_context *c, const char *device)
{
    int ordinal = ordinal_of(c, device);
    gpu_state *s = ordinal < 0 ? NULL : ad__allocate(c, NULL, sizeof *s);
    if (!s)
        return NULL;
    *s = (gpu_state){ .context = c };
    s->device = gpu__device.open(c, ordinal, c->precision == AD_DOUBLE ? 64 : 32);
    if (s->device) {
        s->most_blocks = (int64_t)BLOCKS_OF_PROCESSOR * gpu__device.processors(s->device);
        s->record = gpu__device.record_new(s->device, (RECORD_TOTALS + RECORD_MOST_TOTALS) * sizeof *s->record);
    }
    if (s->record && (s->structured = gpu__module(s, "#include \"gpu/structured.h\"\n")))
        return s;
    close_state(s);
    return NULL;
}

static const char *describe(void *state)
{
    return gpu__device.describe(((gpu_state *)state)->device);
}

static int set_threads(void *state, int threads)
{
    (void)state, (void)threads;
    return 1;
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

void *gpu__memory(gpu_state *s, size_t bytes)
{
    return gpu__device.memory_new(s->device, bytes ? bytes : 1);
}
static void *memory_new(void *state, size_t bytes)
{
    return gpu__memory(state, bytes);
}
static void memory_free(void *state, void *memory)
{
    gpu_state *s = state;
    s->n_totals = 0;
    if (memory)
        gpu__device.memory_free(s->device, memory);
}
static bool copy(const gpu_state *s, void *to, const void *from, size_t bytes)
{
    return !bytes || (gpu__device.copy(s->device, to, from, bytes) && gpu__device.wait(s->device));
}
static bool upload(void *state, void *to, const void *from, size_t bytes)
{
    gpu_state *s = state;
    s->n_totals = 0;
    return copy(s, to, from, bytes);
}
/* A total of the last run is known already. */
static bool download(void *state, void *to, const void *from, size_t bytes)
{
    const gpu_state *s = state;
    for (int k = 0; k < s->n_totals; k++) {
        if (from != s->total_at[k] || bytes != sizeof(double))
            continue;
        memcpy(to, &s->record[RECORD_TOTALS + k], bytes);
        return true;
    }
    return copy(s, to, from, bytes);
}
static bool clear(void *state, void *memory, size_t bytes)
{
    gpu_state *s = state;
    s->n_totals = 0;
    return !bytes || gpu__device.clear(s->device, memory, bytes);
}
static void *host_pointer(void *state, void *memory)
{
    (void)state, (void)memory;
    return NULL;
}

/* ---- modules ----------------------------------------------------------------------------------------------------- */

gpu_module *gpu__module(gpu_state *s, const char *source)
{
    size_t bytes = strlen(source) + 1;
    uint64_t hash = gpu__hash(GPU_HASH, source, bytes);
    for (gpu_module *m = s->modules; m; m = m->next) {
        if (m->hash != hash || strcmp(m->source, source))
            continue;
        m->uses++;
        return m;
    }
    gpu_module *m = ad__allocate(s->context, NULL, sizeof *m + bytes);
    if (!m)
        return NULL;
    *m = (gpu_module){ .next = s->modules, .hash = hash, .source = (char *)(m + 1), .uses = 1 };
    memcpy(m->source, source, bytes);
    if ((m->loaded = gpu__device.compile(s->device, source)))
        return s->modules = m;
    ad__allocate(s->context, m, 0);
    return NULL;
}

void gpu__module_release(gpu_state *s, gpu_module *m)
{
    if (--m->uses)
        return;
    for (gpu_module **at = &s->modules; *at; at = &(*at)->next) {
        if (*at != m)
            continue;
        *at = m->next;
        break;
    }
    gpu__device.unload(s->device, m->loaded);
    ad__allocate(s->context, m, 0);
}

/* ---- lowering ---------------------------------------------------------------------------------------------------- */

static int32_t numbers(const gpu_program *p)
{
    return p->plan->n_scalars + p->plan->n_constants;
}
static int64_t first_address(const gpu_program *p)
{
    return BIND_NUMBERS + numbers(p);
}

bool gpu__more_words(gpu_program *p, const int64_t *words, int n)
{
    if (!n)
        return true;
    if (!ad__reserve(p->state->context, &p->words, &p->cap_words, p->n_words + n, sizeof *p->words))
        return false;
    memcpy(p->words + p->n_words, words, (size_t)n * sizeof *words);
    p->n_words += n;
    return true;
}

gpu_step *gpu__step(gpu_program *p, const char *kernel, int64_t work, const int64_t *sizes, int n_sizes)
{
    gpu_state *s = p->state;
    if (!ad__reserve(s->context, &p->step, &p->cap_steps, p->n_steps + 1, sizeof *p->step))
        return NULL;
    gpu_step *to = &p->step[p->n_steps++];
    int64_t blocks = (work + GPU_THREADS - 1) / GPU_THREADS;
    *to = (gpu_step){ .grid = { (int32_t)(blocks < s->most_blocks ? blocks : s->most_blocks), 1, GPU_THREADS },
                      .words = p->n_words,
                      .address = (int32_t)p->n_references };
    int64_t head[STEP_SIZES] = { [STEP_GATED] = p->gated, [STEP_ADDRESSES] = first_address(p) + p->n_references };
    if (!gpu__more_words(p, head, STEP_SIZES) || !gpu__more_words(p, sizes, n_sizes))
        return NULL;
    if (kernel && !(to->kernel = gpu__device.kernel(s->device, s->structured->loaded, kernel)))
        return NULL;
    return to;
}

bool gpu__address(gpu_program *p, place at)
{
    if (!ad__reserve(p->state->context, &p->reference, &p->cap_references, p->n_references + 1, sizeof *p->reference))
        return false;
    p->reference[p->n_references++] = at;
    return true;
}

static void release(void *state, void *program)
{
    gpu_state *s = state;
    gpu_program *p = program;
    if (p->module)
        gpu__module_release(s, p->module);
    for (int64_t i = 0; i < p->n_inputs; i++)
        memory_free(s, p->input[i].staged);
    memory_free(s, p->device_bind);
    memory_free(s, p->device_words);
    memory_free(s, p->scratch);
    void *arrays[] = { p->step, p->words, p->reference, p->bind, p->input, p->source, p->pending, p };
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        ad__allocate(s->context, arrays[i], 0);
}

/* The sizes of the bound inputs that the plan reads. */
static bool find_inputs(gpu_program *p)
{
    const plan *pl = p->plan;
    for (int32_t i = 0; i < pl->n; i++)
        if (pl->live[i] && pl->node[i].op == OP_input && pl->node[i].bind >= p->n_inputs)
            p->n_inputs = pl->node[i].bind + 1;
    int64_t n = p->n_inputs;
    p->n_inputs = 0;
    if (n && !(p->input = ad__allocate(p->state->context, NULL, (size_t)n * sizeof *p->input)))
        return false;
    if (n)
        memset(p->input, 0, (size_t)n * sizeof *p->input);
    p->n_inputs = n;
    for (int32_t i = 0; i < pl->n; i++)
        if (pl->live[i] && pl->node[i].op == OP_input)
            p->input[pl->node[i].bind].bytes = ad__plan_bytes(pl, i);
    return true;
}

static bool store_numbers(gpu_program *p)
{
    const plan *pl = p->plan;
    return gpu__step(p, "store_numbers", numbers(p), (int64_t[]){ numbers(p) }, 1) &&
           gpu__address(p, (place){ PLACE_BLOCK, pl->segment, (int64_t)pl->scalar_offset });
}

/* Compiles the items' source and looks its kernels up. */
static bool link_items(gpu_program *p)
{
    if (!p->n_pending)
        return true;
    if (!(p->module = gpu__module(p->state, p->source)))
        return false;
    for (int64_t i = 0; i < p->n_pending; i++) {
        gpu_step *s = &p->step[p->pending[i].step];
        if (!(s->kernel = gpu__device.kernel(p->state->device, p->module->loaded, p->pending[i].name)))
            return false;
    }
    return true;
}

/* The tables of the program on the device. */
static bool send_tables(gpu_program *p)
{
    gpu_state *s = p->state;
    p->n_bind = first_address(p) + p->n_references;
    size_t bytes = (size_t)p->n_bind * sizeof *p->bind, words = (size_t)p->n_words * sizeof *p->words;
    if (!(p->bind = ad__allocate(s->context, NULL, bytes)))
        return false;
    memset(p->bind, 0, bytes);
    double *number = (double *)(p->bind + BIND_NUMBERS);
    if (p->plan->n_constants)
        memcpy(number + p->plan->n_scalars, p->plan->constant, (size_t)p->plan->n_constants * sizeof *number);
    if (!(p->device_bind = gpu__memory(s, bytes)) || !(p->device_words = gpu__memory(s, words)))
        return false;
    if (p->scratch_bytes && !(p->scratch = gpu__memory(s, p->scratch_bytes)))
        return false;
    return copy(s, p->device_words, p->words, words);
}

static void *lower(void *state, const plan *pl)
{
    gpu_state *s = state;
    gpu_program *p = ad__allocate(s->context, NULL, sizeof *p);
    if (!p)
        return NULL;
    *p = (gpu_program){ .state = s, .plan = pl };
    bool done = find_inputs(p) && store_numbers(p);
    for (int32_t k = 0; done && k < pl->n_items; k++) {
        const plan_item *it = &pl->item[k];
        p->gated = k >= pl->gate;
        done = it->shape >= 0 ? gpu__lower_chain(p, it) : gpu__lower_node(p, pl->member[it->first]);
    }
    if (done && link_items(p) && send_tables(p))
        return p;
    release(s, p);
    return NULL;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

/* Bound inputs that kernels cannot read where they lie are copied to memory of the device's. */
static bool fetch_inputs(gpu_program *p, const run_bind *bind)
{
    gpu_state *s = p->state;
    for (int64_t i = 0; i < p->n_inputs; i++) {
        gpu_input *in = &p->input[i];
        if (!in->bytes)
            continue;
        in->now = bind->bound[i];
        if (gpu__device.reaches(s->device, in->now))
            continue;
        if (!in->staged && !(in->staged = gpu__memory(s, in->bytes)))
            return false;
        if (!copy(s, in->staged, in->now, in->bytes))
            return false;
        in->now = in->staged;
    }
    return true;
}

static void *resolve(const gpu_program *p, const run_bind *bind, place at)
{
    if (at.kind == PLACE_BLOCK)
        return (char *)bind->blocks[at.index].data + at.offset;
    if (at.kind == PLACE_TENSOR)
        return p->state->context->tensors[at.index].data;
    if (at.kind == PLACE_BOUND)
        return p->input[at.index].now;
    if (at.kind == PLACE_SCRATCH)
        return p->scratch + at.offset;
    return NULL;
}

static bool run_step(gpu_program *p, const gpu_step *t)
{
    gpu_state *s = p->state;
    if (t->kernel) {
        return !t->grid.blocks || gpu__device.launch(s->device, t->kernel, t->grid, p->device_bind,
                                                     (const int64_t *)p->device_words + t->words);
    }
    const gpu_product *g = &t->product;
    void *const *at = (void *const *)(p->bind + first_address(p) + t->address);
    if (!g->members || !g->m || !g->n)
        return true;
    if (!g->k)
        return clear(s, at[0], (size_t)(g->members * g->m * g->n) * ad__dtype_bytes(s->context, AD_REAL));
    return gpu__device.multiply(s->device, g, at[1], at[2], at[0]);
}

static bool run(void *state, void *program, const run_bind *bind, run_outcome *outcome)
{
    gpu_state *s = state;
    gpu_program *p = program;
    s->n_totals = 0;
    if (!fetch_inputs(p, bind))
        return false;
    int64_t *word = p->bind, address = first_address(p);
    word[BIND_KEY] = (int64_t)bind->key;
    word[BIND_RUN] = bind->run;
    word[BIND_BAD_NODE] = s->record[RECORD_BAD_NODE] = -1;
    word[BIND_NONFINITE] = s->record[RECORD_NONFINITE] = 0;
    word[BIND_RECORD] = (int64_t)(intptr_t)s->record;
    if (p->plan->n_scalars)
        memcpy(word + BIND_NUMBERS, bind->scalar, (size_t)p->plan->n_scalars * sizeof(double));
    for (int64_t i = 0; i < p->n_references; i++)
        word[address + i] = (int64_t)(intptr_t)resolve(p, bind, p->reference[i]);
    bool done = gpu__device.copy(s->device, p->device_bind, word, (size_t)p->n_bind * sizeof *word);
    for (int64_t i = 0; done && i < p->n_steps; i++)
        done = run_step(p, &p->step[i]);
    if (!gpu__device.wait(s->device) ||
        !done) /* after a failure too: what was launched reads the bind and the tables */
        return false;
    outcome->finite = !s->record[RECORD_NONFINITE];
    outcome->bad_index = (node_id)s->record[RECORD_BAD_NODE];
    outcome->bad_value = s->record[RECORD_BAD_VALUE];
    for (int k = 0; k < p->n_totals; k++) /* the double lies behind the real */
        s->total_at[k] = (char *)resolve(p, bind, p->total[k]) + sizeof(double);
    s->n_totals = p->n_totals;
    return true;
}

const ad_backend gpu__backend = {
    .name = gpu__device_name,
    .open = open_state,
    .close = close_state,
    .describe = describe,
    .set_threads = set_threads,
    .memory_new = memory_new,
    .memory_free = memory_free,
    .upload = upload,
    .download = download,
    .clear = clear,
    .host_pointer = host_pointer,
    .lower = lower,
    .release = release,
    .run = run,
};
