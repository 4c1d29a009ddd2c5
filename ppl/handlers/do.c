/* The do handler: intervention. The site itself is drawn or observed as ever, and everyone sees that; what follows in
 * the program gets the value given here, under the name <name>__CF. Called through ppl_with. Meaning: Pyro's
 * poutine/do_messenger.py, but that the handlers inside have treated the message once, before it becomes two. */
#include <string.h>

#include "ppl/state.h"

static void process(ppl_handler *h, ppl_message *m)
{
    ad_context *c = ad__current();
    if ((m->type != PPL_SAMPLE && m->type != PPL_SUBSAMPLE) || !ad__ok(c))
        return;
    if (m->intervener) /* of two interventions the inner one wins */
        return;
    for (const ppl_value *v = h->user; v->name; v++) {
        if (strcmp(v->name, m->name))
            continue;
        if (m->type == PPL_SUBSAMPLE) {
            ad__fail(c, AD_ERROR_SITE, "ppl_condition gives a plate its members", "ppl_do: \"%s\" is a plate", m->name);
            return;
        }
        if (!v->value || ad_is_nil(v->value)) {
            ad__fail(c, AD_ERROR_ARGUMENT, NULL, "ppl_do: the value for site \"%s\" is %s", m->name,
                     v->value ? "nil" : "NULL");
            return;
        }
        size_t n = strlen(m->name);
        char *text = ad__step_bytes(c, n + sizeof "__CF");
        if (!text)
            return;
        memcpy(text, m->name, n);
        memcpy(text + n, "__CF", sizeof "__CF");
        ppl_message site = *m; /* with what the handlers inside have done to it, for those outside */
        site.intervener = m->intervener = h;
        site.continuation = NULL;
        ppl__send_outward(c, h, &site);
        m->id = ad__name(c, text);
        m->name = ad__name_text(c, m->id);
        m->value = v->value;
        m->is_observed = m->stop = true;
        return;
    }
}

ppl_handler ppl_do_handler(const ppl_value *values)
{
    return (ppl_handler){ .process = process, .user = values };
}
