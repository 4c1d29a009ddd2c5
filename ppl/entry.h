/* Calls that run a user's functions: what they find, and how it is found again when such a function ends otherwise than by
 * return. Internal.
 *
 * A C++ exception passes through the library's frames, and the cleanup of the entry rolls its context back. A longjmp
 * runs no cleanup: then the next call that is an entry finds that the user's function is no longer on the stack, and
 * rolls back first. */
#ifndef PPL_ENTRY_H
#define PPL_ENTRY_H

#include "autodiff/owner.h"
#include "ppl/state.h"

/* Use it as `ENTRY(e);`, then begin, and end on every way out that returns. */
#define ENTRY(e) ppl_entry e __attribute__((cleanup(ppl__entry_leave))) = { .context = NULL }
/* Makes `call` this thread's work on an object (or, NULL, on the current context). The context, which is current until the
 * end; NULL, with an error and nothing to end, where it is refused: inside a model or guide when `outermost`, and as
 * ad__use_begin does. */
ad_context *ppl__entry_begin(ppl_entry *e, void *object, const char *call, bool outermost);
/* What the call has made for itself (a call, an owned object; NULL: none): freed where the entry is rolled back. */
void ppl__entry_holds(ppl_entry *e, struct ppl_call *call, void *object);
void ppl__entry_end(ppl_entry *e);
void ppl__entry_leave(ppl_entry *e);
/* Rolls back what a longjmp has left behind, when a call whose frame is here begins. */
void ppl__recover(ad_context *c, const void *here);

#endif
