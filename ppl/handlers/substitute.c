/* The substitute handler: values for parameters, in place of the store's. Called through ppl_with.
 * Meaning: Pyro's poutine/substitute_messenger.py. */
#include <string.h>

#include "ppl/state.h"

/* The part of a parameter's name that its module does not give. */
static const char *own_name(const char *name)
{
    for (const char *p; (p = strstr(name, "$$$"));)
        name = p + 3;
    return name;
}

static void process(ppl_handler *h, ppl_message *m)
{
    if (m->type != PPL_PARAM)
        return;
    for (const ppl_value *v = h->user; v->name; v++)
        if (!strcmp(v->name, m->name) || !strcmp(v->name, own_name(m->name)))
            m->value = v->value;
}

ppl_handler ppl_substitute_handler(const ppl_value *values)
{
    return (ppl_handler){ .process = process, .user = values };
}
