/* The substitute handler: values for parameters, in place of the store's. Called through ppl_with.
 * Meaning: Pyro's poutine/substitute_messenger.py. */
#include <string.h>

#include "distributions/check.h"
#include "ppl/state.h"

/* The part of a parameter's name that its module does not give. */
static const char *own_name(const char *name)
{
    for (const char *p; (p = strstr(name, "$$$"));)
        name = p + 3;
    return name;
}

/* A number is known here and now; other values meet the check of the distributions that they enter. */
static void check(const ppl_message *m)
{
    ad_context *c = ad__current();
    const dist_constraint *set = &m->param->constraint;
    node_id id = c && m->value ? ad__node(c, m->value, "ppl_substitute's value") : -1;
    double x;
    char text[120];
    if (id < 0 || !dist__number(c, id, &x) || dist_constraint_holds(set, x))
        return;
    int digits = dist__digits(set, x);
    ad__fail(c, AD_ERROR_SUPPORT, NULL, "parameter \"%s\": ppl_substitute gives it %.*g, and it must be %s", m->name,
             digits, x, dist__describe(set, digits, text, sizeof text));
}

static void process(ppl_handler *h, ppl_message *m)
{
    if (m->type != PPL_PARAM)
        return;
    for (const ppl_value *v = h->user; v->name; v++) {
        if (strcmp(v->name, m->name) && strcmp(v->name, own_name(m->name)))
            continue;
        if (!v->value || ad_is_nil(v->value)) {
            ad_fail(AD_ERROR_ARGUMENT, NULL, "ppl_substitute: the value for parameter \"%s\" is %s", m->name,
                    v->value ? "nil" : "NULL");
            return;
        }
        m->value = v->value;
        check(m);
    }
}

ppl_handler ppl_substitute_handler(const ppl_value *values)
{
    return (ppl_handler){ .process = process, .user = values };
}
