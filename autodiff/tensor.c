/* Persistent tensors: making, writing, ending; and what may be asked of any tensor. */
#include <math.h>
#include <string.h>

#include "autodiff/backend.h"
#include "autodiff/owner.h"

enum { LINE = 64 };

tensor *ad__tensor(ad_context *c, const ad_tensor *handle)
{
    if (((uintptr_t)handle & 1) == 0 || handle_kind_of(handle) != HANDLE_PERSISTENT)
        return NULL;
    int32_t i = handle_index(handle);
    if (i >= c->n_tensors || c->tensors[i].kind == TENSOR_FREE)
        return NULL;
    return c->tensors[i].generation == handle_generation(handle) ? &c->tensors[i] : NULL;
}

/* A free entry of the table, or -1 after an error. */
static int32_t new_entry(ad_context *c)
{
    int32_t i = c->free_tensor;
    if (i >= 0) {
        c->free_tensor = c->tensors[i].next_free;
        return i;
    }
    if (!ad__reserve(c, &c->tensors, &c->cap_tensors, c->n_tensors + 1, sizeof *c->tensors))
        return -1;
    i = (int32_t)c->n_tensors++;
    c->tensors[i] = (tensor){ .kind = TENSOR_FREE };
    return i;
}

/* Bytes of a state: whole lines, for kernels run to the end of the last one. */
static size_t state_bytes(const ad_context *c, int32_t shape, int dtype)
{
    size_t bytes = (size_t)ad__shape_info(c, shape)->size * ad__dtype_bytes(c, dtype);
    return bytes ? (bytes + LINE - 1) & ~(size_t)(LINE - 1) : LINE;
}

static ad_tensor *make(int kind, int dtype, const ad_shape *shape, void *borrowed)
{
    ad_context *c = ad__current();
    if (!c || (!c->backend && !ad__backend_start(c, NULL)))
        return AD_NIL;
    if (!c->tape)
        ad__shapes_trim(c);
    int32_t id = ad__shape(c, shape), slab_index = -1;
    int32_t i = id < 0 ? -1 : new_entry(c);
    if (i < 0)
        return AD_NIL;
    size_t bytes = kind == TENSOR_STATE ? state_bytes(c, id, dtype)
                                        : (size_t)ad__shape_info(c, id)->size * ad__dtype_bytes(c, dtype);
    void *data = kind == TENSOR_STATE ? ad__slab_take(c, bytes, &slab_index) : borrowed;
    if (kind == TENSOR_INPUT)
        data = c->backend->memory_new(c->backend_state, bytes ? bytes : 1);
    tensor *x = &c->tensors[i];
    if (!data || (kind != TENSOR_BORROWED && !c->backend->clear(c->backend_state, data, bytes))) {
        if (data && kind == TENSOR_INPUT)
            c->backend->memory_free(c->backend_state, data);
        if (data && kind == TENSOR_STATE)
            ad__slab_give(c, slab_index, data, bytes);
        x->kind = TENSOR_FREE;
        x->next_free = c->free_tensor;
        c->free_tensor = i;
        return AD_NIL;
    }
    ad__shape_hold(c, id, 1);
    *x = (tensor){ .data = data,
                   .shape = id,
                   .kind = (uint8_t)kind,
                   .dtype = (uint8_t)dtype,
                   .slab = slab_index,
                   .generation = ad__generation_new(c),
                   .tape_generation = ~0u,
                   .node = -1,
                   .serial = ++c->next_serial };
    return handle_make(HANDLE_PERSISTENT, x->generation, i);
}

static int dtype_of_source(ad_source s)
{
    return s == AD_FROM_FLOAT || s == AD_FROM_DOUBLE ? AD_REAL : s == AD_FROM_BYTE ? AD_BYTE : AD_INT64;
}

ad_tensor *(ad_from_data)(const void *data, ad_source source, ad_shape shape)
{
    ad_tensor *x = make(TENSOR_INPUT, dtype_of_source(source), &shape, NULL);
    ad_context *c = ad__current();
    const tensor *made = c ? ad__tensor(c, x) : NULL;
    if (made && data && !ad_write_data(x, data, source, ad__shape_info(c, made->shape)->size)) {
        ad_free(x);
        return AD_NIL;
    }
    return x;
}

bool ad_array_short(int64_t holds, int64_t n, const char *wants)
{
    ad_context *c = ad__current();
    if (c)
        ad__begin_call(c);
    ad_fail(AD_ERROR_ARGUMENT, "a longer array, or the count that it has", "%s %lld elements; the array has %lld",
            wants, (long long)n, (long long)holds);
    return false;
}

ad_tensor *(ad_borrow)(void *data, ad_shape shape)
{
    if (data)
        return make(TENSOR_BORROWED, AD_REAL, &shape, data);
    if (ad__current())
        ad__begin_call(ad__current());
    ad_fail(AD_ERROR_ARGUMENT, NULL, "ad_borrow: data is NULL");
    return AD_NIL;
}

ad_tensor *(ad_state)(ad_shape shape)
{
    return make(TENSOR_STATE, AD_REAL, &shape, NULL);
}

void ad_free(ad_tensor *persistent)
{
    ad_context *c = ad__current();
    tensor *x = c ? ad__tensor(c, persistent) : NULL;
    if (c && !x && ad__is_foreign(c, persistent))
        ad__fail_dead_handle(c, persistent, "ad_free: the tensor", NULL, "");
    if (!x)
        return;
    if (x->kind == TENSOR_INPUT)
        c->backend->memory_free(c->backend_state, x->data);
    if (x->kind == TENSOR_STATE)
        ad__slab_give(c, x->slab, x->data, state_bytes(c, x->shape, x->dtype));
    ad__shape_hold(c, x->shape, -1);
    x->kind = TENSOR_FREE;
    x->next_free = c->free_tensor;
    c->free_tensor = handle_index(persistent);
}

void ad__tensors_free(ad_context *c)
{
    for (int64_t i = 0; i < c->n_tensors; i++)
        if (c->tensors[i].kind == TENSOR_INPUT)
            c->backend->memory_free(c->backend_state, c->tensors[i].data);
    ad__slabs_free(c);
    ad__allocate(c, c->tensors, 0);
}

/* ---- content ----------------------------------------------------------------------------------------------------- */

/* Converts n elements between a caller's type and a tensor's (dtype, precision). */
static void to_tensor(void *out, int dtype, ad_precision precision, const void *in, ad_source source, int64_t n)
{
#define CONVERT(To, From)                                                                                              \
    for (int64_t i = 0; i < n; i++)                                                                                    \
    ((To *)out)[i] = (To)((const From *)in)[i]
#define FROM(To)                                                                                                       \
    switch (source) {                                                                                                  \
    case AD_FROM_FLOAT:                                                                                                \
        CONVERT(To, float);                                                                                            \
        break;                                                                                                         \
    case AD_FROM_DOUBLE:                                                                                               \
        CONVERT(To, double);                                                                                           \
        break;                                                                                                         \
    case AD_FROM_INT:                                                                                                  \
        CONVERT(To, int);                                                                                              \
        break;                                                                                                         \
    case AD_FROM_INT64:                                                                                                \
        CONVERT(To, int64_t);                                                                                          \
        break;                                                                                                         \
    case AD_FROM_BYTE:                                                                                                 \
        CONVERT(To, uint8_t);                                                                                          \
        break;                                                                                                         \
    }
    if (dtype == AD_INT64) {
        FROM(int64_t)
    } else if (dtype == AD_BYTE) {
        FROM(uint8_t)
    } else if (precision == AD_DOUBLE) {
        FROM(double)
    } else {
        FROM(float)
    }
}

void ad__from_tensor(void *out, ad_source type, const void *in, int dtype, ad_precision precision, int64_t n)
{
#define TO(From)                                                                                                       \
    switch (type) {                                                                                                    \
    case AD_FROM_FLOAT:                                                                                                \
        CONVERT(float, From);                                                                                          \
        break;                                                                                                         \
    case AD_FROM_DOUBLE:                                                                                               \
        CONVERT(double, From);                                                                                         \
        break;                                                                                                         \
    case AD_FROM_INT:                                                                                                  \
        CONVERT(int, From);                                                                                            \
        break;                                                                                                         \
    case AD_FROM_INT64:                                                                                                \
        CONVERT(int64_t, From);                                                                                        \
        break;                                                                                                         \
    case AD_FROM_BYTE:                                                                                                 \
        CONVERT(uint8_t, From);                                                                                        \
        break;                                                                                                         \
    }
    if (dtype == AD_INT64) {
        TO(int64_t)
    } else if (dtype == AD_BYTE) {
        TO(uint8_t)
    } else if (precision == AD_DOUBLE) {
        TO(double)
    } else {
        TO(float)
    }
#undef TO
#undef FROM
#undef CONVERT
}

/* Whether a tensor's memory has the very type of the caller's data. */
static bool is_stored(const ad_context *c, int dtype, ad_source source)
{
    return dtype == AD_REAL ? source == (c->precision == AD_DOUBLE ? AD_FROM_DOUBLE : AD_FROM_FLOAT)
                            : source != AD_FROM_INT;
}

bool (ad_write_data)(ad_tensor *persistent, const void *data, ad_source source, int64_t n)
{
    ad_context *c = ad__current();
    tensor *x = c ? ad__tensor(c, persistent) : NULL;
    if (!x) {
        if (c && ad__is_foreign(c, persistent))
            ad__fail_dead_handle(c, persistent, "ad_write: the tensor", NULL, "");
        else if (c)
            ad__fail(c, AD_ERROR_STALE, NULL, "ad_write: not a live persistent tensor");
        return false;
    }
    int64_t size = ad__shape_info(c, x->shape)->size;
    if (n != size || (!data && n)) {
        ad__fail(c, AD_ERROR_SHAPE, NULL, "ad_write: %lld elements for a tensor of %lld", (long long)n,
                 (long long)size);
        return false;
    }
    if (dtype_of_source(source) != x->dtype) {
        ad__fail(c, AD_ERROR_ARGUMENT, NULL, "ad_write: the data's type is not the tensor's");
        return false;
    }
    void *host = x->kind == TENSOR_BORROWED ? x->data : c->backend->host_pointer(c->backend_state, x->data);
    if (host) {
        to_tensor(host, x->dtype, c->precision, data, source, n);
        return true;
    }
    size_t bytes = (size_t)n * ad__dtype_bytes(c, x->dtype);
    if (is_stored(c, x->dtype, source))
        return c->backend->upload(c->backend_state, x->data, data, bytes);
    void *staged = ad__allocate(c, NULL, bytes ? bytes : 1);
    if (!staged)
        return false;
    to_tensor(staged, x->dtype, c->precision, data, source, n);
    bool done = c->backend->upload(c->backend_state, x->data, staged, bytes);
    ad__allocate(c, staged, 0);
    return done;
}

void *ad_host_data(ad_tensor *persistent)
{
    ad_context *c = ad__current();
    tensor *x = c ? ad__tensor(c, persistent) : NULL;
    if (!x)
        return NULL;
    return x->kind == TENSOR_BORROWED ? x->data : c->backend->host_pointer(c->backend_state, x->data);
}

/* ---- questions --------------------------------------------------------------------------------------------------- */

bool ad_is_nil(const ad_tensor *x)
{
    return ((uintptr_t)x & 1) == 0 || handle_kind_of(x) == HANDLE_NIL;
}

/* Shape and dtype of any live tensor; false after an error. Asking records nothing. */
static bool look(const ad_tensor *x, int32_t *shape, int *dtype)
{
    ad_context *c = ad__current();
    if (!c || !ad__ok(c))
        return false;
    const tensor *p = ad__tensor(c, x);
    if (p) {
        *shape = p->shape;
        *dtype = p->dtype;
        return true;
    }
    node_id id = ad__node(c, x, "the tensor");
    if (id < 0)
        return false;
    *shape = c->tape->node[id].shape;
    *dtype = c->tape->node[id].dtype;
    return true;
}

ad_shape ad_shape_of(ad_tensor *x)
{
    int32_t shape;
    int dtype;
    return look(x, &shape, &dtype) ? ad__shape_info(ad__current(), shape)->shape : (ad_shape){ .rank = 0 };
}
int ad_rank(ad_tensor *x)
{
    int32_t shape;
    int dtype;
    return look(x, &shape, &dtype) ? ad__shape_info(ad__current(), shape)->shape.rank : 0;
}
int64_t ad_size(ad_tensor *x)
{
    int32_t shape;
    int dtype;
    return look(x, &shape, &dtype) ? ad__shape_info(ad__current(), shape)->size : 0;
}
ad_dtype ad_dtype_of(ad_tensor *x)
{
    int32_t shape;
    int dtype;
    return look(x, &shape, &dtype) ? (ad_dtype)dtype : AD_REAL;
}
int64_t(ad_dim)(ad_tensor *x, int axis)
{
    int32_t shape;
    int dtype;
    if (!look(x, &shape, &dtype))
        return 0;
    ad_context *c = ad__current();
    const ad_shape *s = &ad__shape_info(c, shape)->shape;
    int i = axis < 0 ? axis + s->rank : axis;
    if (i >= 0 && i < s->rank)
        return s->dim[i];
    ad__fail(c, AD_ERROR_SHAPE, NULL, "axis %d of shape %s does not exist", axis, ad__shape_text(c, s));
    return 0;
}
