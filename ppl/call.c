/* Calls of the user's functions through libffi: types prepared once, arguments converted at each call.
 * Called by SVI, traces and predictions. */
#include <ffi.h>
#include <math.h>
#include <string.h>

#include "ppl/state.h"

struct ppl_call {
    ppl_signature types;
    ffi_cif cif;
    ffi_type *type[PPL_MAX_ARGS];
    union {
        const void *pointer;
        int64_t l;
        int32_t i;
        int16_t s;
        int8_t c;
        double d;
        float f;
        bool b;
    } value[PPL_MAX_ARGS];
    void *address[PPL_MAX_ARGS];
};

static ffi_type *type_of(char kind)
{
    switch (kind) {
    case 't':
    case 'p':
        return &ffi_type_pointer;
    case 'b':
        return &ffi_type_uint8;
    case 'f':
        return &ffi_type_float;
    case 'd':
        return &ffi_type_double;
    case 'c':
        return &ffi_type_sint8;
    case 's':
        return &ffi_type_sint16;
    case 'i':
        return &ffi_type_sint32;
    case 'l':
        return &ffi_type_sint64;
    case 'C':
        return &ffi_type_uint8;
    case 'S':
        return &ffi_type_uint16;
    case 'I':
        return &ffi_type_uint32;
    case 'L':
        return &ffi_type_uint64;
    default:
        return NULL;
    }
}

ppl_call *ppl__call_new(ad_context *c, const ppl_signature *types)
{
    ppl_call *call = ad__allocate(c, NULL, sizeof *call);
    if (!call)
        return NULL;
    *call = (ppl_call){ .types = *types };
    bool good = types->n >= 0 && types->n <= PPL_MAX_ARGS;
    for (int i = 0; good && i < types->n; i++) {
        good = (call->type[i] = type_of(types->kind[i])) != NULL;
        call->address[i] = &call->value[i];
    }
    /* whatever a model returns is not looked at: numbers and pointers come back in registers */
    if (good && ffi_prep_cif(&call->cif, FFI_DEFAULT_ABI, (unsigned)types->n, &ffi_type_void, call->type) == FFI_OK)
        return call;
    ad__fail(c, AD_ERROR_ARGUMENT, "make it with PPL_ARGS", "a signature of %d arguments cannot be called%s", types->n,
             types->n > PPL_MAX_ARGS ? ": 12 is the most" : "");
    ad__allocate(c, call, 0);
    return NULL;
}

bool ppl__needs_types(ad_context *c, const ppl_signature *types, bool takes_some, const char *call)
{
    if (types->n || types->types || !takes_some)
        return false;
    ad__fail(c, AD_ERROR_ARGUMENT, "as in .args = PPL_ARGS(ad_tensor *), or PPL_ARGS() for a function of none",
             "%s: .args is missing, the types of the model's parameters", call);
    return true;
}

void ppl__call_free(ad_context *c, ppl_call *call)
{
    ad__allocate(c, call, 0);
}

int ppl__call_count(const ppl_call *call)
{
    return call->types.n;
}

/* The i-th of the comma-separated types, as written. */
static void type_text(const ppl_signature *types, int i, char *out, size_t size)
{
    const char *from = types->types ? types->types : "";
    for (; i > 0 && (from = strchr(from, ',')); i--)
        from++;
    size_t n = from ? strcspn(from += strspn(from, " "), ",") : 0;
    if (n >= size)
        n = size - 1;
    memcpy(out, n ? from : "?", n ? n : 1);
    out[n ? n : 1] = '\0';
}

static bool wrong(ad_context *c, const ppl_call *call, int i, const char *why)
{
    char want[64];
    type_text(&call->types, i, want, sizeof want);
    ad__fail(c, AD_ERROR_ARGUMENT, "the arguments after the first are the model's, with the types of .args",
             "argument %d of the model is %s; %s", i + 1, want, why);
    return false;
}

/* Range of an integer kind, and whether v lies in it. */
static bool fits(char kind, int64_t v, bool is_unsigned)
{
    if (is_unsigned && v < 0)
        return kind == 'L'; /* above INT64_MAX */
    switch (kind) {
    case 'b':
    case 'l':
        return true;
    case 'c':
        return v >= INT8_MIN && v <= INT8_MAX;
    case 's':
        return v >= INT16_MIN && v <= INT16_MAX;
    case 'i':
        return v >= INT32_MIN && v <= INT32_MAX;
    case 'C':
        return v >= 0 && v <= UINT8_MAX;
    case 'S':
        return v >= 0 && v <= UINT16_MAX;
    case 'I':
        return v >= 0 && v <= UINT32_MAX;
    default:
        return v >= 0;
    }
}

static bool number(ad_context *c, ppl_call *call, int i, const ppl_arg *a)
{
    char kind = call->types.kind[i];
    if (kind == 'f' || kind == 'd') {
        double d = a->kind == 'd'   ? a->as.real
                   : a->kind == 'L' ? (double)(uint64_t)a->as.integer
                                    : (double)a->as.integer;
        if (kind == 'd')
            call->value[i].d = d;
        else
            call->value[i].f = (float)d;
        return true;
    }
    int64_t v = a->as.integer;
    if (a->kind == 'd') {
        if (kind == 'b') {
            call->value[i].b = a->as.real != 0;
            return true;
        }
        if (!(fabs(a->as.real) < 9.2e18) || a->as.real != floor(a->as.real))
            return wrong(c, call, i, "a number that is no integer was given");
        v = (int64_t)a->as.real;
    }
    if (!fits(kind, v, a->kind == 'L'))
        return wrong(c, call, i, "the number given is out of its range");
    switch (kind) {
    case 'b':
        call->value[i].b = v != 0;
        break;
    case 'c':
    case 'C':
        call->value[i].c = (int8_t)v;
        break;
    case 's':
    case 'S':
        call->value[i].s = (int16_t)v;
        break;
    case 'i':
    case 'I':
        call->value[i].i = (int32_t)v;
        break;
    default:
        call->value[i].l = v;
    }
    return true;
}

bool ppl__call_arguments(ad_context *c, ppl_call *call, int n, const ppl_arg *args)
{
    if (n != call->types.n) {
        ad__fail(c, AD_ERROR_ARGUMENT, "the arguments after the first are the model's, with the types of .args",
                 "the model takes %d argument%s (%s); %d %s given", call->types.n, call->types.n == 1 ? "" : "s",
                 call->types.types ? call->types.types : "", n, n == 1 ? "was" : "were");
        return false;
    }
    for (int i = 0; i < n; i++) {
        char want = call->types.kind[i], have = args[i].kind;
        bool want_pointer = want == 't' || want == 'p', have_pointer = have == 't' || have == 'p';
        if (want_pointer && have != want && !(have == 'p' && !args[i].as.pointer))
            return wrong(c, call, i,
                         have == 't'   ? "a tensor was given"
                         : have == 'p' ? "another pointer was given"
                                       : "a number was given");
        if (!want_pointer && have_pointer)
            return wrong(c, call, i, have == 't' ? "a tensor was given" : "a pointer was given");
        if (want_pointer)
            call->value[i].pointer = args[i].as.pointer;
        else if (!number(c, call, i, &args[i]))
            return false;
    }
    return true;
}

void ppl__call(ppl_call *call, ppl_function f)
{
    ffi_call(&call->cif, f, NULL, call->address);
}
