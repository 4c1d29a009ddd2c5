/* The scope handler: prefixes the names of sample sites and plates. Called through ppl_with.
 * Meaning: NumPyro's handlers.scope, with its divider. */
#include <string.h>

#include "ppl/state.h"

static void process(ppl_handler *h, ppl_message *m)
{
    ad_context *c = ad__current();
    if ((m->type != PPL_SAMPLE && m->type != PPL_SUBSAMPLE) || !ad__ok(c))
        return;
    const char *prefix = h->user;
    size_t a = strlen(prefix), b = strlen(m->name) + 1;
    char *text = ad__step_bytes(c, a + 1 + b);
    if (!text)
        return;
    memcpy(text, prefix, a);
    text[a] = '/';
    memcpy(text + a + 1, m->name, b);
    int32_t id = ad__name(c, text);
    if (id < 0)
        return;
    m->id = id;
    m->name = ad__name_text(c, id);
}

ppl_handler ppl_name_scope(const char *prefix)
{
    return (ppl_handler){ .process = prefix ? process : NULL, .user = prefix };
}
