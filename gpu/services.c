/* The shared object's one exported name, and the few of the library's internals that it uses: they are hidden from it,
 * so calls go on to the table that the library hands over when it opens the object. */
#include <stdarg.h>
#include <stdio.h>

#include "autodiff/backend.h"
#include "autodiff/plan/plan.h"

static const backend_services *services; /* the same for every caller: set when the object is opened */
extern const ad_backend gpu__backend;

__attribute__((visibility("default"))) const ad_backend *ad__backend_entry(const backend_services *s)
{
    if (s->bytes != sizeof *s || s->context_bytes != sizeof(ad_context) || s->plan_bytes != sizeof(plan))
        return NULL;
    services = s;
    return &gpu__backend;
}

void *ad__allocate(ad_context *c, void *old, size_t size)
{
    return services->allocate(c, old, size);
}
bool ad__reserve(ad_context *c, void *array, int64_t *capacity, int64_t need, size_t element)
{
    return services->reserve(c, array, capacity, need, element);
}
void ad__fail(ad_context *c, ad_error_kind kind, const char *hint, const char *format, ...)
{
    char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    services->fail(c, kind, hint, "%s", text);
}
const char *ad__op_name(int op)
{
    return services->op_name(op);
}
int32_t ad__plan_source(const plan *p, int32_t id)
{
    return services->source(p, id);
}
int32_t ad__plan_operand(const plan *p, int32_t id, int32_t *shape)
{
    return services->operand(p, id, shape);
}
size_t ad__plan_bytes(const plan *p, int32_t id)
{
    return services->value_bytes(p, id);
}
