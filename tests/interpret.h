/* The slowest judge of autodiff: walks the open tape node by node and computes every value with plain loops in double.
 * Knows nothing of plans, backends or kernels. Included by test_fuzz.c. */
#ifndef TESTS_INTERPRET_H
#define TESTS_INTERPRET_H

#include "autodiff/tape.h"
#include "tests/numeric.h"
#include "tests/op_forms.h"

typedef struct interpreter {
    ad_context *context;
    double **value; /* of each node, or NULL where it is of another dtype or without value */
    int64_t n;
} interpreter;

static inline const ad_shape *interpret_shape(const interpreter *p, int32_t id)
{
    return &ad__shape_info(p->context, p->context->tape->node[id].shape)->shape;
}

static inline const op_form *interpret_form(int op)
{
    for (int i = 0; i < OP_FORM_COUNT; i++)
        if (!strcmp(op_forms[i].name, ad__op_name(op))) return &op_forms[i];
    ck_abort_msg("no form of %s", ad__op_name(op));
    return NULL;
}

/* (outer, n, inner) -> (outer, inner) */
static inline void interpret_reduce(bool max, const int64_t *a, const double *x, double *out)
{
    for (int64_t i = 0; i < a[0]; i++) {
        for (int64_t k = 0; k < a[2]; k++) {
            double sum = max ? -INFINITY : 0;
            for (int64_t j = 0; j < a[1]; j++) {
                double v = x[(i * a[1] + j) * a[2] + k];
                sum = !max ? sum + v : v > sum || v != v ? v : sum;
            }
            out[i * a[2] + k] = sum;
        }
    }
}

/* a (batches or 1; M, K), b (batches or 1; K, N), each perhaps transposed; attributes as structured.def says */
static inline void interpret_matmul(const int64_t *t, const double *a, const double *b, double *out)
{
    int64_t m = t[4], n = t[5], k = t[6], members = t[2] > t[3] ? t[2] : t[3];
    for (int64_t q = 0; q < members; q++) {
        const double *u = a + (t[2] > 1 ? q * m * k : 0), *v = b + (t[3] > 1 ? q * k * n : 0);
        for (int64_t i = 0; i < m; i++) {
            for (int64_t j = 0; j < n; j++) {
                double sum = 0;
                for (int64_t l = 0; l < k; l++) sum += u[t[0] ? l * m + i : i * k + l] * v[t[1] ? j * k + l : l * n + j];
                *out++ = sum;
            }
        }
    }
}

/* slice copies [start, start + length) of each row out, pad copies it in */
static inline void interpret_cut(bool pad, const int64_t *a, int64_t start, const double *x, double *out)
{
    int64_t row = a[4] * a[3], pitch = a[2] * a[3];
    for (int64_t i = 0; i < a[1]; i++)
        for (int64_t k = 0; k < row; k++) {
            if (pad) out[i * pitch + start * a[3] + k] = x[i * row + k];
            else out[i * row + k] = x[i * pitch + start * a[3] + k];
        }
}

static inline void interpret_index(bool scatter, const int64_t *a, const int64_t *index, int64_t members, const double *x,
                                   double *out)
{
    for (int64_t i = 0; i < a[1]; i++)
        for (int64_t j = 0; j < members; j++)
            for (int64_t k = 0; k < a[3]; k++) {
                int64_t near = (i * members + j) * a[3] + k, far = (i * a[2] + index[j]) * a[3] + k;
                if (scatter) out[far] += x[near];
                else out[near] = x[far];
            }
}

static inline void interpret_node(interpreter *p, int32_t id)
{
    const tape *t = p->context->tape;
    const node *n = &t->node[id];
    const int32_t *in = ad__inputs(t, id);
    const int64_t *a = ad__attrs(t, id);
    const ad_shape *s = interpret_shape(p, id);
    int64_t size = numeric_size(s), place[AD_MAX_RANK];
    if (n->dtype != AD_REAL || n->op == OP_run) return;
    double *out = p->value[id] = calloc((size_t)size + 1, sizeof *out), *x = n->n_inputs ? p->value[in[0]] : NULL;
    if (n->op < N_ELEMENTWISE) {
        const op_form *form = interpret_form(n->op);
        for (int64_t k = 0; k < size; k++) {
            double operand[4] = { 0 };
            numeric_coordinates(s, k, place);
            for (int j = 0; j < n->n_inputs; j++)
                operand[j] = p->value[in[j]][numeric_at(interpret_shape(p, in[j]), place, s->rank)];
            out[k] = form->value(operand, NULL);
        }
        return;
    }
    switch (n->op) {
    case OP_input: memcpy(out, ad_host_data(t->bound[n->bind]), (size_t)size * sizeof *out); return;
    case OP_scalar: *out = t->scalar[n->bind]; return;
    case OP_constant: memcpy(out, a, sizeof *out); return;
    case OP_arange:
        for (int64_t k = 0; k < size; k++) out[k] = (double)k;
        return;
    case OP_reshape:
    case OP_stop_gradient: memcpy(out, x, (size_t)size * sizeof *out); return;
    case OP_expand:
        for (int64_t k = 0; k < size; k++) {
            numeric_coordinates(s, k, place);
            out[k] = x[numeric_at(interpret_shape(p, in[0]), place, s->rank)];
        }
        return;
    case OP_permute:
        for (int64_t k = 0, source[AD_MAX_RANK]; k < size; k++) {
            numeric_coordinates(s, k, place);
            for (int i = 0; i < s->rank; i++) source[a[i]] = place[i];
            out[k] = x[numeric_at(interpret_shape(p, in[0]), source, s->rank)];
        }
        return;
    case OP_concat:
        for (int64_t i = 0; i < a[1]; i++)
            for (int j = 0; j < n->n_inputs; j++) {
                int64_t row = interpret_shape(p, in[j])->dim[a[0]] * a[2];
                memcpy(out, p->value[in[j]] + i * row, (size_t)row * sizeof *out);
                out += row;
            }
        return;
    case OP_slice:
    case OP_pad: interpret_cut(n->op == OP_pad, a, n->bind < 0 ? a[5] : (int64_t)t->scalar[n->bind], x, out); return;
    case OP_gather:
    case OP_scatter_add: /* the index is an input as it stands */
        interpret_index(n->op == OP_scatter_add, a, ad_host_data(t->bound[t->node[in[1]].bind]),
                        numeric_size(interpret_shape(p, in[1])), x, out);
        return;
    case OP_matmul: interpret_matmul(a, x, p->value[in[1]], out); return;
    case OP_reduce_sum:
    case OP_reduce_max: interpret_reduce(n->op == OP_reduce_max, a, x, out); return;
    case OP_cumsum:
        for (int64_t i = 0; i < a[0]; i++)
            for (int64_t k = 0; k < a[2]; k++) {
                double sum = 0;
                for (int64_t j = 0; j < a[1]; j++) {
                    int64_t at = (i * a[1] + (a[3] ? a[1] - 1 - j : j)) * a[2] + k;
                    out[at] = sum += x[at];
                }
            }
        return;
    case OP_weighted_total:
        for (int j = 0; j < n->n_inputs; j += 2)
            for (int64_t k = 0; k < numeric_size(interpret_shape(p, in[j])); k++)
                *out += p->value[in[j]][k] * p->value[in[j + 1]][0];
        return;
    }
    ck_abort_msg("the interpreter does not know %s", ad__op_name(n->op));
}

/* Values of all nodes of the context's open tape; end with interpret_free. The tape is in double. */
static inline interpreter interpret_tape(ad_context *c)
{
    interpreter p = { .context = c, .n = c->tape->n };
    p.value = calloc((size_t)p.n + 1, sizeof *p.value);
    for (int32_t i = 0; i < p.n; i++) interpret_node(&p, i);
    return p;
}
static inline void interpret_free(interpreter *p)
{
    for (int64_t i = 0; i < p->n; i++) free(p->value[i]);
    free(p->value);
}

#endif
