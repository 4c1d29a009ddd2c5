/* The condition handler: named sites are observed. Called through ppl_with.
 * Meaning: Pyro's poutine/condition_messenger.py; it wins over obs and over replay. */
#include <string.h>

#include "ppl/state.h"

static void process(ppl_handler *h, ppl_message *m)
{
    if (m->type != PPL_SAMPLE)
        return;
    for (const ppl_value *v = h->user; v->name; v++) {
        if (strcmp(v->name, m->name))
            continue;
        m->value = v->value;
        m->is_observed = v->value != NULL;
        if (!v->value)
            m->done = false;
        return;
    }
}

ppl_handler ppl_condition_handler(const ppl_value *values)
{
    return (ppl_handler){ .process = process, .user = values };
}
