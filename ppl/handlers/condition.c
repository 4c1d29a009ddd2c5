/* The condition handler: named sites are observed, named plates have the members given. Called through ppl_with.
 * Meaning: Pyro's poutine/condition_messenger.py; it wins over obs and over replay. */
#include <string.h>

#include "ppl/state.h"

static void process(ppl_handler *h, ppl_message *m)
{
    if (m->type != PPL_SAMPLE && m->type != PPL_SUBSAMPLE)
        return;
    for (const ppl_value *v = h->user; v->name; v++) {
        if (strcmp(v->name, m->name))
            continue;
        if (v->value && ad_is_nil(v->value)) {
            ad_fail(AD_ERROR_STALE, NULL, "ppl_condition: the value for \"%s\" is nil", m->name);
            return;
        }
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
