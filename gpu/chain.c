/* Lowering elementwise items: a kernel of generated source for each, in which every element goes through all members
 * while it is in registers. The text depends on what is computed, not on sizes, so that a last, smaller minibatch finds
 * the kernels of the others; a kernel is named by the hash of its body, so equal items share one. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "gpu/gpu.h"
#include "gpu/hash.h"

enum { MOST_OPERANDS = 256, MOST_BODY = 1 << 16 };

/* An operand from outside: a node's memory read under a shape. */
typedef struct operand {
    int32_t node, shape;
} operand;

typedef struct writer {
    gpu_program *program;
    const plan *plan;
    const plan_item *item;
    operand operand[MOST_OPERANDS];
    int n_operands;
    char body[MOST_BODY];
    size_t used;
} writer;

__attribute__((format(printf, 2, 3))) static void write_text(writer *w, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    size_t room = sizeof w->body - w->used;
    int n = vsnprintf(w->body + w->used, room, format, args);
    va_end(args);
    w->used += n < 0 ? room : (size_t)n < room ? (size_t)n : room - 1;
}

static int32_t member_at(const writer *w, int32_t a)
{
    return w->plan->member[w->item->first + a];
}

/* Which of the first `end` members a node is, or -1. */
static int32_t member_of(const writer *w, int32_t node, int32_t end)
{
    for (int32_t a = 0; a < end; a++)
        if (member_at(w, a) == node)
            return a;
    return -1;
}

/* The ordinal of an operand, found or added; -1 where there are too many. */
static int operand_of(writer *w, int32_t node, int32_t shape)
{
    for (int i = 0; i < w->n_operands; i++)
        if (w->operand[i].node == node && w->operand[i].shape == shape)
            return i;
    if (w->n_operands == MOST_OPERANDS)
        return -1;
    w->operand[w->n_operands] = (operand){ node, shape };
    return w->n_operands++;
}

/* Adds bytes to the program's source. */
static bool add_source(gpu_program *p, const char *text, size_t n)
{
    if (!ad__reserve(p->state->context, &p->source, &p->cap_source, p->source_bytes + (int64_t)n + 1, 1))
        return false;
    memcpy(p->source + p->source_bytes, text, n);
    p->source_bytes += (int64_t)n;
    p->source[p->source_bytes] = 0;
    return true;
}

/* Loads operand i of the element: in the order of the loop, one for all, or spread, as its words in the step say. */
static bool load_operand(writer *w, int i, int64_t *word)
{
    gpu_program *p = w->program;
    const ad_context *c = w->plan->context;
    const shape_info *from = ad__shape_info(c, w->operand[i].shape), *loop = ad__shape_info(c, w->item->shape);
    int64_t words[2 * AD_MAX_RANK + 1];
    int n = gpu__spread(&from->shape, &loop->shape, words);
    bool in_order = from->size == loop->size;
    if (in_order)
        write_text(w, "        const real x%d = ADDRESS(real, %d)[i];\n", i, i);
    else if (from->size == 1)
        write_text(w, "        const real x%d = ADDRESS(real, %d)[0];\n", i, i);
    else
        write_text(w, "        const real x%d = ADDRESS(real, %d)[spread_at(&SIZE(SIZE(%d)), i)];\n", i, i, 1 + i);
    p->words[*word] = p->n_words - *word + 1 + i; /* counted from SIZE(0), which lies 1 + i before */
    (*word)++;
    return (in_order || from->size == 1 || gpu__more_words(p, words, n)) &&
           gpu__address(p, w->plan->place[w->operand[i].node]);
}

/* y3 = op_add(x0, y2); and to memory where someone else reads it. */
static bool compute_member(writer *w, int32_t a, int *address)
{
    const plan *p = w->plan;
    int32_t m = member_at(w, a);
    write_text(w, "        const real y%d = op_%s(", a, ad__op_name(p->node[m].op));
    for (int j = 0; j < p->node[m].n_inputs; j++) {
        int32_t shape, from = ad__plan_operand(p, plan_inputs(p, m)[j], &shape), b = member_of(w, from, a);
        write_text(w, "%s%c%d", j ? ", " : "", b < 0 ? 'x' : 'y', b < 0 ? operand_of(w, from, shape) : b);
    }
    write_text(w, ");\n");
    if (p->place[m].kind == PLACE_NONE)
        return true;
    write_text(w, "        ADDRESS(real, %d)[i] = y%d;\n", (*address)++, a);
    return gpu__address(w->program, p->place[m]);
}

static bool find_operands(writer *w)
{
    const plan *p = w->plan;
    for (int32_t a = 0; a < w->item->count; a++) {
        int32_t m = member_at(w, a);
        for (int j = 0; j < p->node[m].n_inputs; j++) {
            int32_t shape, from = ad__plan_operand(p, plan_inputs(p, m)[j], &shape);
            if (member_of(w, from, a) < 0 && operand_of(w, from, shape) < 0) {
                ad__fail(p->context, AD_ERROR_LIMIT, NULL, "an elementwise kernel of more than %d operands",
                         MOST_OPERANDS);
                return false;
            }
        }
    }
    return true;
}

/* The kernel is known by its body; the step's kernel is filled in once the whole source is compiled. */
static bool name_kernel(writer *w)
{
    gpu_program *p = w->program;
    uint64_t hash = gpu__hash(GPU_HASH, w->body, w->used);
    if (!ad__reserve(p->state->context, &p->pending, &p->cap_pending, p->n_pending + 1, sizeof *p->pending))
        return false;
    p->pending[p->n_pending].step = p->n_steps - 1;
    char *name = p->pending[p->n_pending++].name, head[64];
    snprintf(name, sizeof p->pending->name, "item_%016llx", (unsigned long long)hash);
    static const char include[] = "#include \"gpu/kernels.h\"\n";
    if (!p->source && !add_source(p, include, sizeof include - 1))
        return false;
    if (strstr(p->source, name))
        return true;
    int n = snprintf(head, sizeof head, "KERNEL(%s)\n", name);
    return add_source(p, head, (size_t)n) && add_source(p, w->body, w->used);
}

static bool lower_chain(writer *w)
{
    gpu_program *p = w->program;
    int64_t size = ad__shape_info(w->plan->context, w->item->shape)->size;
    if (!find_operands(w) || !gpu__step(p, NULL, size, &size, 1))
        return false;
    int64_t word = p->n_words;
    for (int i = 0; i < w->n_operands; i++)
        if (!gpu__more_words(p, (int64_t[]){ 0 }, 1))
            return false;
    write_text(w, "{\n    GATE;\n    EACH(i, SIZE(0)) {\n");
    for (int i = 0; i < w->n_operands; i++)
        if (!load_operand(w, i, &word))
            return false;
    int address = w->n_operands;
    for (int32_t a = 0; a < w->item->count; a++)
        if (!compute_member(w, a, &address))
            return false;
    write_text(w, "    }\n}\n");
    if (w->used + 1 < sizeof w->body)
        return name_kernel(w);
    ad__fail(w->plan->context, AD_ERROR_LIMIT, NULL, "an elementwise kernel of more than %d bytes", MOST_BODY);
    return false;
}

bool gpu__lower_chain(gpu_program *p, const plan_item *item)
{
    writer *w = ad__allocate(p->state->context, NULL, sizeof *w);
    if (!w)
        return false;
    w->program = p;
    w->plan = p->plan;
    w->item = item;
    w->n_operands = 0;
    w->used = 0;
    bool done = lower_chain(w);
    ad__allocate(p->state->context, w, 0);
    return done;
}
