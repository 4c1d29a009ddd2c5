/* Interned shapes and broadcasting. A shape is looked up once and known by its number from then on. */
#include <stdio.h>
#include <string.h>

#include "autodiff/backend.h"
#include "autodiff/plan/plan.h"

enum { MANY_SHAPES = 1 << 13 };

static uint64_t hash_shape(const ad_shape *s)
{
    uint64_t h = (uint64_t)s->rank + 0x9e3779b97f4a7c15u;
    for (int i = 0; i < s->rank; i++)
        h = ad__mix(h ^ (uint64_t)s->dim[i]);
    return h;
}

static bool equal(const ad_shape *a, const ad_shape *b)
{
    return a->rank == b->rank && !memcmp(a->dim, b->dim, (size_t)a->rank * sizeof *a->dim);
}

static shape_info *entry(ad_context *c, int32_t id)
{
    return &c->shapes[id / SHAPE_PAGE][id % SHAPE_PAGE];
}

static void fill_slots(ad_context *c)
{
    memset(c->shape_slots, 0xff, (size_t)c->n_shape_slots * sizeof *c->shape_slots);
    for (int32_t id = 0; id < c->n_shapes; id++) {
        if (entry(c, id)->size < 0)
            continue; /* free */
        int64_t i = (int64_t)(hash_shape(&entry(c, id)->shape) & (uint64_t)(c->n_shape_slots - 1));
        while (c->shape_slots[i] >= 0)
            i = (i + 1) & (c->n_shape_slots - 1);
        c->shape_slots[i] = id;
    }
}

static bool grow_slots(ad_context *c)
{
    int64_t n = c->n_shape_slots ? c->n_shape_slots * 2 : 64;
    int32_t *slots = ad__allocate(c, NULL, (size_t)n * sizeof *slots);
    if (!slots)
        return false;
    ad__allocate(c, c->shape_slots, 0);
    c->shape_slots = slots;
    c->n_shape_slots = n;
    fill_slots(c);
    return true;
}

/* An entry that no shape uses; -1 after an error. */
static int32_t new_entry(ad_context *c)
{
    int32_t id = c->free_shape;
    if (id >= 0) {
        c->free_shape = entry(c, id)->next_free;
        return id;
    }
    if (c->n_shapes % SHAPE_PAGE == 0) {
        int64_t page = c->n_shapes / SHAPE_PAGE;
        if (!ad__reserve(c, &c->shapes, &c->cap_shape_pages, page + 1, sizeof *c->shapes))
            return -1;
        if (!(c->shapes[page] = ad__allocate(c, NULL, SHAPE_PAGE * sizeof **c->shapes)))
            return -1;
    }
    return (int32_t)c->n_shapes++;
}

void ad__shape_hold(ad_context *c, int32_t id, int by)
{
    if (id >= 0)
        entry(c, id)->holders += by;
}
void ad__shape_pin(ad_context *c, int32_t id)
{
    ad__shape_hold(c, id, 1);
}

void ad__shapes_trim(ad_context *c)
{
    if (c->used_shapes < MANY_SHAPES || c->used_shapes < c->shapes_looked_at || c->held)
        return;
    int64_t pinned = 1; /* the scalar's */
    for (int32_t id = 1; id < c->n_shapes; id++)
        pinned += entry(c, id)->size >= 0 && entry(c, id)->holders;
    c->shapes_looked_at = 2 * pinned;
    if (pinned > c->used_shapes / 2)
        return; /* there is little to forget */
    while (c->n_plans)
        ad__plan_forget(c, c->plans[--c->n_plans]);
    memset(c->seen, 0, sizeof c->seen);
    for (int32_t id = 1; id < c->n_shapes; id++) {
        shape_info *e = entry(c, id);
        if (e->holders || e->size < 0)
            continue;
        e->size = -1;
        e->next_free = c->free_shape;
        c->free_shape = id;
    }
    c->used_shapes = pinned;
    memset(c->broadcast, 0xff, sizeof c->broadcast);
    fill_slots(c);
}

int32_t ad__shape(ad_context *c, const ad_shape *s)
{
    if (s->rank == 0 && c->n_shapes)
        return 0;
    if (s->rank < 0 || s->rank > AD_MAX_RANK) {
        ad__fail(c, AD_ERROR_SHAPE, NULL, "a shape has %d dimensions; at most %d are allowed", s->rank, AD_MAX_RANK);
        return -1;
    }
    /* What is checked is the product of all dimensions but zeros: then no product of some of them, nor of their bytes,
     * overflows anywhere. */
    int64_t size = 1;
    bool empty = false;
    for (int i = 0; i < s->rank; i++) {
        empty |= s->dim[i] == 0;
        if (s->dim[i] < 0 || __builtin_mul_overflow(size, s->dim[i] ? s->dim[i] : 1, &size) || size > INT64_MAX / 16) {
            ad__fail(c, AD_ERROR_SHAPE, NULL,
                     s->dim[i] < 0 ? "dimension %d of a shape is %lld: a size cannot be negative"
                                   : "dimension %d of a shape is %lld: too many elements for any memory",
                     i, (long long)s->dim[i]);
            return -1;
        }
    }
    uint64_t hash = hash_shape(s);
    if (c->used_shapes * 2 >= c->n_shape_slots && !grow_slots(c))
        return -1;
    int64_t mask = c->n_shape_slots - 1, i = (int64_t)(hash & (uint64_t)mask);
    for (; c->shape_slots[i] >= 0; i = (i + 1) & mask)
        if (equal(&ad__shape_info(c, c->shape_slots[i])->shape, s))
            return c->shape_slots[i];
    int32_t id = new_entry(c);
    if (id < 0)
        return -1;
    shape_info *e = entry(c, id);
    memset(e, 0, sizeof *e);
    e->shape.rank = s->rank;
    memcpy(e->shape.dim, s->dim, (size_t)s->rank * sizeof *s->dim);
    e->size = empty ? 0 : size;
    c->used_shapes++;
    return c->shape_slots[i] = id;
}

bool ad__broadcast(const ad_shape *a, const ad_shape *b, ad_shape *out)
{
    ad_shape r = { .rank = a->rank > b->rank ? a->rank : b->rank };
    for (int i = 1; i <= r.rank; i++) {
        int64_t x = i <= a->rank ? a->dim[a->rank - i] : 1, y = i <= b->rank ? b->dim[b->rank - i] : 1;
        if (x != y && x != 1 && y != 1)
            return false;
        r.dim[r.rank - i] = x == 1 ? y : x;
    }
    *out = r;
    return true;
}

const char *ad__shape_text(ad_context *c, const ad_shape *s)
{
    char *text = c->shape_text[c->shape_text_next];
    size_t size = sizeof c->shape_text[0], used = 0;
    c->shape_text_next = (c->shape_text_next + 1) % 4;
    used += (size_t)snprintf(text, size, "(");
    for (int i = 0; i < s->rank && used < size - 24; i++)
        used += (size_t)snprintf(text + used, size - used, i ? ", %lld" : "%lld", (long long)s->dim[i]);
    snprintf(text + used, size - used, s->rank == 1 ? ",)" : ")");
    return text;
}
