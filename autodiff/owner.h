/* Who may use a context, and what lives by it. Internal: autodiff, and the rooms above for the objects that they make.
 *
 * A context is claimed by the thread whose current one it is; while it is claimed no other thread may use it. Objects
 * that their makers free (svi, densities, predictives, loaders) hang on their context: it releases what they hold when it
 * ends, and their shells stay until they are freed. */
#ifndef AUTODIFF_OWNER_H
#define AUTODIFF_OWNER_H

#include "autodiff/context.h"

/* ---- handles ----------------------------------------------------------------------------------------------------- */

/* A generation that no other handle of the process has, whatever its context (until 2^30 have been given). */
uint32_t ad__generation_new(ad_context *c);
/* Whether a handle that is none of c's was made in another context. */
bool ad__is_foreign(const ad_context *c, const void *handle);
/* "stale: ..." or "of another context", with c's error set; `what` names the operand. */
void ad__fail_dead_handle(ad_context *c, const void *handle, const char *what, const char *hint, const char *stale);

/* ---- claims ------------------------------------------------------------------------------------------------------ */

/* Claims c for this thread; false, with an error in the thread's own context, where a living thread has it. */
bool ad__claim(ad_context *c, const char *call);
void ad__unclaim(ad_context *c);

/* ---- objects ----------------------------------------------------------------------------------------------------- */

/* The first member of such an object. */
typedef struct owned {
    ad_context *context; /* NULL: it has ended */
    struct owned *next, **link;
    void (*release)(void *object); /* frees what it holds in its context, but not itself */
    ad_allocator allocator;
    int busy; /* calls that are at work on it */
} owned;

/* Cleared but for this; NULL after an error. Freed by ad__owned_free, which refuses an object at work. */
void *ad__owned_new(ad_context *c, size_t size, void (*release)(void *object));
void ad__owned_free(void *object, const char *call);
void ad__owned_end(ad_context *c); /* releases all: its context ends */

/* A call at work on an object: its context is the current one meanwhile. */
typedef struct ad_use {
    owned *object;
    ad_context *context, *previous;
    bool claimed;
} ad_use;
/* NULL, with an error that begins with `call`, where the object is NULL or has ended, or another thread uses its context. */
ad_context *ad__use_begin(ad_use *u, void *object, const char *call);
void ad__use_end(ad_use *u); /* as a cleanup, too */

#endif
