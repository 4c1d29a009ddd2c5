/* Memory of states: slabs of the backend's memory, filled from the first gap that is wide enough. Called by tensor.c.
 * What a state leaves is used again by later ones. */
#include <string.h>

#include "autodiff/backend.h"

enum { SLAB = 1 << 20 };

/* Cuts bytes off the first gap of s that has them; NULL where none has. */
static void *cut(slab *s, size_t bytes)
{
    for (int64_t i = 0; i < s->n_gaps; i++) {
        gap *g = &s->gaps[i];
        if (g->size < bytes)
            continue;
        void *data = (char *)s->data + g->at;
        g->at += bytes;
        g->size -= bytes;
        if (!g->size)
            memmove(g, g + 1, (size_t)(--s->n_gaps - i) * sizeof *g);
        s->live++;
        return data;
    }
    return NULL;
}

/* An entry of the table without a slab; -1 after an error. */
static int32_t new_entry(ad_context *c)
{
    for (int64_t i = 0; i < c->n_slabs; i++)
        if (!c->slabs[i].data)
            return (int32_t)i;
    if (!ad__reserve(c, &c->slabs, &c->cap_slabs, c->n_slabs + 1, sizeof *c->slabs))
        return -1;
    c->slabs[c->n_slabs] = (slab){ .data = NULL };
    return (int32_t)c->n_slabs++;
}

void *ad__slab_take(ad_context *c, size_t bytes, int32_t *which)
{
    for (int64_t i = 0; i < c->n_slabs; i++) {
        slab *s = &c->slabs[i];
        if (!s->data)
            continue;
        /* so many states leave at most so many gaps, and one more: giving back must not fail */
        if (!ad__reserve(c, &s->gaps, &s->cap_gaps, s->live + 2, sizeof *s->gaps))
            return NULL;
        void *data = cut(s, bytes);
        *which = (int32_t)i;
        if (data)
            return data;
    }
    int32_t i = new_entry(c);
    size_t size = bytes > SLAB ? bytes : SLAB;
    if (i < 0 || !ad__reserve(c, &c->slabs[i].gaps, &c->slabs[i].cap_gaps, 2, sizeof(gap)))
        return NULL;
    slab *s = &c->slabs[i];
    if (!(s->data = c->backend->memory_new(c->backend_state, size)))
        return NULL;
    s->size = size;
    s->gaps[0] = (gap){ 0, size };
    s->n_gaps = 1;
    *which = i;
    return cut(s, bytes);
}

/* Ends the slabs without states, but for one of the usual size: not while a tape is open, which may have recorded what
 * lay there. */
static void end_empty(ad_context *c)
{
    bool kept = false;
    for (slab *s = c->slabs; !c->tape && s < c->slabs + c->n_slabs; s++) {
        if (!s->data || s->live)
            continue;
        if (s->size == SLAB && !kept) {
            kept = true;
            continue;
        }
        c->backend->memory_free(c->backend_state, s->data);
        s->data = NULL;
    }
}

void ad__slab_give(ad_context *c, int32_t which, const void *data, size_t bytes)
{
    slab *s = &c->slabs[which];
    size_t at = (size_t)((const char *)data - (const char *)s->data);
    int64_t i = 0;
    while (i < s->n_gaps && s->gaps[i].at < at)
        i++;
    gap *g = &s->gaps[i];
    bool left = i > 0 && g[-1].at + g[-1].size == at, right = i < s->n_gaps && at + bytes == g->at;
    if (left) {
        g[-1].size += bytes + (right ? g->size : 0);
        if (right)
            memmove(g, g + 1, (size_t)(--s->n_gaps - i) * sizeof *g);
    } else if (right) {
        g->at = at;
        g->size += bytes;
    } else {
        memmove(g + 1, g, (size_t)(s->n_gaps++ - i) * sizeof *g);
        *g = (gap){ at, bytes };
    }
    if (--s->live == 0)
        end_empty(c);
}

void ad__slabs_free(ad_context *c)
{
    for (int64_t i = 0; i < c->n_slabs; i++) {
        if (c->slabs[i].data)
            c->backend->memory_free(c->backend_state, c->slabs[i].data);
        ad__allocate(c, c->slabs[i].gaps, 0);
    }
    ad__allocate(c, c->slabs, 0);
}
