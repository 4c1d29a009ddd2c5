/* The do handler: intervention. The site itself is drawn or observed as ever, and everyone outside sees that; what
 * follows in the program gets the value given here, under the name <name>__CF. Called through ppl_with. Meaning: Pyro's
 * poutine/do_messenger.py. */
#include <string.h>

#include "ppl/state.h"

static void process(ppl_handler *h, ppl_message *m)
{
    ad_context *c = ad__current();
    if (m->type != PPL_SAMPLE || m->intervener == h || !ad__ok(c))
        return;
    for (const ppl_value *v = h->user; v->name; v++) {
        if (strcmp(v->name, m->name))
            continue;
        size_t n = strlen(m->name);
        char *text = ad__step_bytes(c, n + sizeof "__CF");
        if (!text)
            return;
        memcpy(text, m->name, n);
        memcpy(text + n, "__CF", sizeof "__CF");
        ppl_message site = *m; /* as if no handler had seen it: the whole stack treats it again */
        site.intervener = h;
        site.n_frames = 0;
        site.scale = 1;
        site.mask = NULL;
        ppl_send(&site);
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
