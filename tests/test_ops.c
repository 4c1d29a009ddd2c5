/* The elementwise operations, every row of autodiff/ops.def from the table itself: values and gradients against closed
 * forms, first and second derivatives against central differences, float against double, broadcasting, masked lanes,
 * ties, NaN. Runs on contexts of its own. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "autodiff/cpu/gemm.h"
#include "autodiff/cpu/kernels.h"
#include "tests/numeric.h"
#include "tests/op_forms.h"

enum { POINTS = 40 };

/* One row: its rules as text, where they are `none` and `undefined`, and the intervals it is drawn from. */
typedef struct row {
    const char *name;
    int arity;
    const char *rule[4];
    double interval[8];
    ad_tensor *(*f1)(ad_tensor *);
    ad_tensor *(*f2)(ad_tensor *, ad_tensor *);
    ad_tensor *(*f3)(ad_tensor *, ad_tensor *, ad_tensor *);
    ad_tensor *(*f4)(ad_tensor *, ad_tensor *, ad_tensor *, ad_tensor *);
} row;

static const row rows[] = {
#define AD_OP1(name, formula, gx, ...) { #name, 1, { #gx }, { __VA_ARGS__ }, .f1 = ad_##name },
#define AD_OP2(name, formula, ga, gb, ...) { #name, 2, { #ga, #gb }, { __VA_ARGS__ }, .f2 = ad_##name },
#define AD_OP3(name, formula, ga, gb, gc, ...) { #name, 3, { #ga, #gb, #gc }, { __VA_ARGS__ }, .f3 = ad_##name },
#define AD_OP4(name, formula, ga, gb, gc, gd, ...) { #name, 4, { #ga, #gb, #gc, #gd }, { __VA_ARGS__ }, .f4 = ad_##name },
#include "autodiff/ops.def"
};
enum { ROWS = sizeof rows / sizeof rows[0] };

/* The other branches of rows whose formula has several. */
static const struct {
    const char *name;
    double interval[8];
} branches[] = {
    { "abs", { -2, -0.1 } },
    { "sign", { -2, -0.1 } },
    { "relu", { -2, -0.1 } },
    { "floor", { -1.9, -1.1 } },
    { "inside_unit", { 1.1, 2 } },
    { "min", { 0.1, 2, -2, -0.1 } },
    { "max", { 0.1, 2, -2, -0.1 } },
    { "lt", { 0.1, 2, -2, -0.1 } },
    { "le", { 0.1, 2, -2, -0.1 } },
    { "gt", { 0.1, 2, -2, -0.1 } },
    { "ge", { 0.1, 2, -2, -0.1 } },
    { "clamp", { -2, -1.1, -1, 0, 1, 2 } },
    { "clamp", { 1.1, 2, -2, -1, 0, 1 } },
    { "within", { -2, -1.1, -1, 0, 1, 2 } },
    { "within", { 1.1, 2, -2, -1, 0, 1 } },
    { "where", { 0, 0, -2, 2, -2, 2 } },
    { "lgamma", { 6, 40 } },
    { "digamma", { 6, 40 } },
    { "trigamma", { 6, 40 } },
    { "erf", { 2, 4 } },
    { "softplus", { 3, 30 } },
    { "sigmoid", { -12, -3 } },
};
enum { BRANCHES = sizeof branches / sizeof branches[0] };

static bool is(const char *a, const char *b) { return strcmp(a, b) == 0; }

static const row *row_named(const char *name)
{
    for (int i = 0; i < ROWS; i++)
        if (is(rows[i].name, name)) return &rows[i];
    ck_abort_msg("ops.def has no row %s", name);
    return NULL;
}
static const op_form *form_named(const char *name)
{
    for (int i = 0; i < OP_FORM_COUNT; i++)
        if (is(op_forms[i].name, name)) return &op_forms[i];
    ck_abort_msg("op_forms.h has no form %s", name);
    return NULL;
}

/* Case i of the loop tests: the rows first, then the other branches. */
static row case_at(int i)
{
    if (i < ROWS) return rows[i];
    row r = *row_named(branches[i - ROWS].name);
    memcpy(r.interval, branches[i - ROWS].interval, sizeof r.interval);
    return r;
}

static ad_tensor *apply(const row *r, ad_tensor *const *x)
{
    switch (r->arity) {
    case 1: return r->f1(x[0]);
    case 2: return r->f2(x[0], x[1]);
    case 3: return r->f3(x[0], x[1], x[2]);
    default: return r->f4(x[0], x[1], x[2], x[3]);
    }
}

/* Operands of a row: x (arity, POINTS), away from the ends of the intervals by more than a stencil. */
static void draw_points(const row *r, uint64_t seed, double x[4][POINTS])
{
    for (int i = 0; i < r->arity; i++) {
        double low = r->interval[2 * i], high = r->interval[2 * i + 1], margin = high > low ? 0.01 : 0;
        for (int k = 0; k < POINTS; k++) x[i][k] = numeric_uniform(&seed, low + margin, high - margin);
    }
}

typedef struct result {
    double y[POINTS], d[4][POINTS], dd[4][4][POINTS];
} result;
enum { VALUE, FIRST, SECOND };

/* y = op(x), and up to `order` its derivatives by ad_gradient. */
static void evaluate(const row *r, double x[4][POINTS], int order, result *out)
{
    ad_scope {
        ad_tensor *in[4], *d[4], *dd[4];
        for (int i = 0; i < r->arity; i++) in[i] = ad_from(x[i], AD_SHAPE(POINTS));
        ad_tensor *y = apply(r, in);
        numeric_read(y, out->y, POINTS);
        if (order >= FIRST) ad_gradient(y, in, r->arity, d);
        for (int i = 0; order >= FIRST && i < r->arity; i++) {
            numeric_read(d[i], out->d[i], POINTS);
            if (order < SECOND || is(r->rule[i], "none")) continue;
            ad_gradient(d[i], in, r->arity, dd);
            for (int j = 0; j < r->arity; j++) numeric_read(dd[j], out->dd[i][j], POINTS);
        }
        for (int i = 0; i < r->arity; i++) ad_free(in[i]);
    }
}

static double largest(const double *x)
{
    double most = 1e-3;
    for (int k = 0; k < POINTS; k++) most = fmax(most, fabs(x[k]));
    return most;
}

static void agree(const row *r, const char *what, int i, const double *got, const double *want, double relative, double scale)
{
    for (int k = 0; k < POINTS; k++)
        ck_assert_msg(numeric_close(got[k], want[k], relative, scale), "ad_%s: %s %d at point %d: %.17g, not %.17g", r->name,
                      what, i, k, got[k], want[k]);
}

static bool differentiable(const row *r)
{
    for (int i = 0; i < r->arity; i++)
        if (is(r->rule[i], "undefined")) return false;
    return true;
}

/* ---- the tests of every row --------------------------------------------------------------------------------------- */

START_TEST(test_closed_forms)
{
    row r = case_at(_i);
    const op_form *form = form_named(r.name);
    numeric_context(AD_DOUBLE, 1);
    double x[4][POINTS];
    draw_points(&r, 1, x);
    result got, want;
    evaluate(&r, x, differentiable(&r) ? FIRST : VALUE, &got);
    for (int k = 0; k < POINTS; k++) {
        double in[4] = { 0 }, slope[4];
        for (int i = 0; i < r.arity; i++) in[i] = x[i][k];
        want.y[k] = form->value(in, slope);
        for (int i = 0; i < 4; i++) want.d[i][k] = slope[i];
    }
    agree(&r, "value of result", 0, got.y, want.y, 1e-12, largest(want.y));
    for (int i = 0; differentiable(&r) && i < r.arity; i++)
        agree(&r, "derivative by operand", i, got.d[i], want.d[i], 1e-12, largest(want.d[i]));
    ad_context_free(NULL);
}
END_TEST

/* First derivatives against differences of values, second ones against differences of the first. */
START_TEST(test_differences)
{
    row r = case_at(_i);
    if (!differentiable(&r)) return; /* test_without_gradient has these */
    numeric_context(AD_DOUBLE, 1);
    bool twice = !is(r.name, "trigamma"); /* its derivative, tetragamma, has none itself */
    double x[4][POINTS], moved[4][POINTS];
    draw_points(&r, 2, x);
    result at;
    evaluate(&r, x, twice ? SECOND : FIRST, &at);
    for (int j = 0; j < r.arity; j++) {
        if (is(r.rule[j], "none")) {
            for (int k = 0; k < POINTS; k++) ck_assert_msg(at.d[j][k] == 0, "ad_%s: operand %d has a gradient", r.name, j);
            continue;
        }
        const double h = 2e-3;
        result near[NUMERIC_STENCIL];
        for (int s = 0; s < NUMERIC_STENCIL; s++) {
            memcpy(moved, x, sizeof moved);
            for (int k = 0; k < POINTS; k++) moved[j][k] += numeric_offset(s) * h;
            evaluate(&r, moved, twice ? FIRST : VALUE, &near[s]);
        }
        for (int i = -1; i < (twice ? r.arity : 0); i++) { /* -1: the value */
            if (i >= 0 && is(r.rule[i], "none")) continue;
            double want[POINTS];
            for (int k = 0; k < POINTS; k++) {
                double y[NUMERIC_STENCIL];
                for (int s = 0; s < NUMERIC_STENCIL; s++) y[s] = i < 0 ? near[s].y[k] : near[s].d[i][k];
                want[k] = numeric_difference(y, h);
            }
            agree(&r, i < 0 ? "derivative by operand" : "second derivative by operand", j, i < 0 ? at.d[j] : at.dd[i][j], want,
                  1e-7, fmax(1e-3, 1e-2 * largest(want)));
        }
    }
    ad_context_free(NULL);
}
END_TEST

/* The same points in float: values and gradients within a few ulp of float, where the terms are of order 1. */
START_TEST(test_float_against_double)
{
    row r = case_at(_i);
    double x[4][POINTS];
    draw_points(&r, 3, x);
    for (int i = 0; i < r.arity; i++)
        for (int k = 0; k < POINTS; k++) x[i][k] = (float)x[i][k];
    result single, both;
    int order = differentiable(&r) ? FIRST : VALUE;
    numeric_context(AD_FLOAT, 1);
    evaluate(&r, x, order, &single);
    ad_context_free(NULL);
    numeric_context(AD_DOUBLE, 1);
    evaluate(&r, x, order, &both);
    ad_context_free(NULL);
    agree(&r, "float value of result", 0, single.y, both.y, 2e-6, largest(both.y));
    for (int i = 0; order == FIRST && i < r.arity; i++)
        agree(&r, "float derivative by operand", i, single.d[i], both.d[i], 5e-6, largest(both.d[i]));
}
END_TEST

/* A derivative that does not exist is an error with the op's name, one that is not asked for is none. */
START_TEST(test_without_gradient)
{
    numeric_context(AD_DOUBLE, 1);
    double one = 1;
    for (int i = 0; i < ROWS; i++) {
        if (differentiable(&rows[i])) continue;
        ad_scope {
            ad_tensor *x = ad_from(&one, AD_SCALAR), *d;
            ad_tensor *y = rows[i].f1(x);
            ck_assert(isfinite(ad_item(y)));
            ad_gradient(y, &x, 1, &d);
            char words[64];
            snprintf(words, sizeof words, "ad_%s has no gradient", rows[i].name);
            ck_assert_int_eq(ad_error_code(), AD_ERROR_ARGUMENT);
            ck_assert_msg(strstr(ad_error(), words), "%s", ad_error());
            ck_assert(ad_is_nil(d));
        }
        ad_scope ck_assert(ad_ok());
    }
    ad_context_free(NULL);
}
END_TEST

START_TEST(test_every_row_has_a_form)
{
    for (int i = 0; i < ROWS; i++) ck_assert_ptr_nonnull(form_named(rows[i].name));
    for (int i = 0; i < OP_FORM_COUNT; i++) ck_assert_ptr_nonnull(row_named(op_forms[i].name));
}
END_TEST

/* ---- broadcasting -------------------------------------------------------------------------------------------------- */

/* Every pair of operand shapes that join to (3, 5): values are those of the expanded operands, gradients their sums. */
START_TEST(test_broadcasting)
{
    static const ad_shape shapes[] = { { 2, { 3, 5 } }, { 0, { 0 } },    { 1, { 5 } }, { 2, { 3, 1 } },
                                       { 2, { 1, 5 } }, { 2, { 1, 1 } }, { 1, { 1 } } };
    enum { SHAPES = sizeof shapes / sizeof shapes[0], FULL = 15 };
    row r = rows[_i];
    if (r.arity < 2) return;
    numeric_context(AD_DOUBLE, 1);
    double x[4][POINTS], slope[4];
    draw_points(&r, 4, x);
    const op_form *form = form_named(r.name);
    for (int choice = 0; choice < SHAPES * SHAPES; choice++) {
        ad_shape s[4];
        for (int i = 0; i < r.arity; i++) s[i] = shapes[(i == 0 ? choice : i == 1 ? choice / SHAPES : choice * 5 + i) % SHAPES];
        s[choice % r.arity] = shapes[0]; /* so that the whole is (3, 5) */
        double want[FULL], sums[4][FULL] = { { 0 } };
        for (int k = 0; k < FULL; k++) {
            double in[4] = { 0 };
            int64_t at[4], place[2];
            numeric_coordinates(&shapes[0], k, place);
            for (int i = 0; i < r.arity; i++) in[i] = x[i][at[i] = numeric_at(&s[i], place, 2)];
            want[k] = form->value(in, slope);
            for (int i = 0; i < r.arity; i++) sums[i][at[i]] += slope[i];
        }
        ad_scope {
            ad_tensor *in[4], *d[4];
            for (int i = 0; i < r.arity; i++) in[i] = ad_from(x[i], s[i]);
            ad_tensor *y = apply(&r, in);
            ad_gradient(y, in, r.arity, d);
            double got[FULL];
            ck_assert_msg(ad_rank(y) == 2 && ad_dim(y, 0) == 3 && ad_dim(y, 1) == 5, "ad_%s: %s", r.name, ad_error());
            numeric_read(y, got, FULL);
            for (int k = 0; k < FULL; k++)
                ck_assert_msg(numeric_close(got[k], want[k], 1e-12, 1), "ad_%s, shapes %d: element %d: %.17g, not %.17g",
                              r.name, choice, k, got[k], want[k]);
            for (int i = 0; i < r.arity; i++) {
                int64_t n = numeric_size(&s[i]);
                ck_assert_int_eq(ad_size(d[i]), n);
                ck_assert_int_eq(ad_rank(d[i]), s[i].rank);
                numeric_read(d[i], got, n);
                for (int k = 0; k < n; k++)
                    ck_assert_msg(numeric_close(got[k], sums[i][k], 1e-12, 1),
                                  "ad_%s, shapes %d: gradient of operand %d at %d: %.17g, not %.17g", r.name, choice, i, k,
                                  got[k], sums[i][k]);
            }
            for (int i = 0; i < r.arity; i++) ad_free(in[i]);
        }
    }
    ad_context_free(NULL);
}
END_TEST

/* ---- masked lanes, ties, NaN ---------------------------------------------------------------------------------------- */

/* where(mask, op(x), 0): whatever lies under the mask, gradients there are exactly 0, the others those without a mask. */
START_TEST(test_masked_lanes)
{
    static const double poison[] = { NAN, INFINITY, -INFINITY, 0, -1, 1e308 };
    enum { POISONS = sizeof poison / sizeof poison[0] };
    row r = rows[_i];
    if (!differentiable(&r)) return;
    numeric_context(AD_DOUBLE, 1);
    double x[4][POINTS], mask[POINTS];
    draw_points(&r, 5, x);
    result clean;
    evaluate(&r, x, FIRST, &clean);
    for (int k = 0; k < POINTS; k++) {
        mask[k] = k % 2;
        for (int i = 0; k % 2 == 0 && i < r.arity; i++)
            if (k / 2 % (r.arity + 1) != i) x[i][k] = poison[(k / 2 + i) % POISONS]; /* all but one, or all */
    }
    ad_scope {
        ad_tensor *in[4], *d[4], *m = ad_from(mask, AD_SHAPE(POINTS));
        for (int i = 0; i < r.arity; i++) in[i] = ad_from(x[i], AD_SHAPE(POINTS));
        ad_gradient(ad_where(m, apply(&r, in), 0), in, r.arity, d);
        double got[POINTS];
        for (int i = 0; i < r.arity; i++) {
            numeric_read(d[i], got, POINTS);
            for (int k = 0; k < POINTS; k++)
                ck_assert_msg(got[k] == (mask[k] ? clean.d[i][k] : 0), "ad_%s: gradient of operand %d in lane %d is %g", r.name,
                              i, k, got[k]);
        }
    }
    ad_context_free(NULL);
}
END_TEST

/* NaN in an operand gives NaN, but where the row's formula says otherwise. */
START_TEST(test_nan)
{
    static const struct {
        const char *name;
        int operand;
        double value; /* with the other operands 0.5 */
    } exceptions[] = {
        { "inside_unit", 0, 0 }, { "is_finite", 0, 0 }, { "eq", -1, 0 }, { "ne", -1, 1 }, { "lt", -1, 0 },
        { "le", -1, 0 },         { "gt", -1, 0 },       { "ge", -1, 0 }, { "where", 0, 0.5 }, { "where", 2, 0.5 },
        { "within", -1, 0 },     { "clamp", 1, 0.5 },   { "clamp", 2, 0.5 },
    };
    numeric_context(_i ? AD_DOUBLE : AD_FLOAT, 1);
    for (int i = 0; i < ROWS; i++) {
        for (int j = 0; j < rows[i].arity; j++) {
            double want = NAN;
            for (size_t e = 0; e < sizeof exceptions / sizeof exceptions[0]; e++)
                if (is(exceptions[e].name, rows[i].name) && (exceptions[e].operand == j || exceptions[e].operand < 0))
                    want = exceptions[e].value;
            ad_scope {
                ad_tensor *in[4];
                for (int k = 0; k < 4; k++) in[k] = ad_number(k == j ? NAN : 0.5);
                double got = ad_item(apply(&rows[i], in));
                ck_assert_msg(ad_ok() && numeric_close(got, want, 0, 1), "ad_%s: NaN in operand %d gives %g, not %g",
                              rows[i].name, j, got, want);
            }
        }
    }
    ad_context_free(NULL);
}
END_TEST

typedef struct tie {
    const char *name;
    double x[3], value, d[3];
} tie;

/* Where a formula has a corner the gradient goes to one operand, whole; masks of 0 take none. */
START_TEST(test_corners)
{
    static const tie ties[] = {
        { "min", { 1, 1 }, 1, { 1, 0 } },
        { "max", { 1, 1 }, 1, { 1, 0 } },
        { "clamp", { -1, -1, 1 }, -1, { 1, 0, 0 } },
        { "clamp", { 1, -1, 1 }, 1, { 1, 0, 0 } },
        { "clamp", { -3, -1, 1 }, -1, { 0, 1, 0 } },
        { "clamp", { 3, -1, 1 }, 1, { 0, 0, 1 } },
        { "relu", { 0 }, 0, { 0 } },
        { "abs", { 0 }, 0, { 0 } },
        { "sign", { 0 }, 0, { 0 } },
        { "chain", { 0, INFINITY }, 0, { INFINITY, 0 } },
        { "chain", { 0, 2 }, 0, { 2, 0 } },
        { "xlogy", { 0, 0 }, 0, { 0, 0 } },
        { "xlogy", { 0, 2 }, 0, { 0.69314718055994530942, 0 } },
        { "where", { 0, INFINITY, 2 }, 2, { 0, 0, 1 } },
        { "where", { 1, 2, NAN }, 2, { 0, 1, 0 } },
        { "logit_clamped", { 0 }, -36.04365338911715, { 0 } },
        { "logit_clamped", { 1 }, 36.04365338911715, { 0 } },
        { "softplus", { 800 }, 800, { 1 } },
        { "softplus", { -800 }, 0, { 0 } },
        { "sigmoid", { -800 }, 0, { 0 } },
        { "log_sigmoid", { -800 }, -800, { 1 } },
    };
    numeric_context(AD_DOUBLE, 1);
    for (size_t t = 0; t < sizeof ties / sizeof ties[0]; t++) {
        const row *r = row_named(ties[t].name);
        ad_scope {
            ad_tensor *in[3], *d[4];
            for (int i = 0; i < r->arity; i++) in[i] = ad_number(ties[t].x[i]);
            ad_tensor *y = apply(r, in);
            double got = ad_item(y);
            ck_assert_msg(numeric_close(got, ties[t].value, 1e-12, 1), "corner %zu, ad_%s: %.17g, not %g", t, r->name, got,
                          ties[t].value);
            ad_gradient(y, in, r->arity, d);
            for (int i = 0; i < r->arity; i++) {
                got = ad_item(d[i]);
                ck_assert_msg(numeric_close(got, ties[t].d[i], 1e-12, 1), "corner %zu, ad_%s: gradient %d is %.17g, not %g", t,
                              r->name, i, got, ties[t].d[i]);
            }
        }
    }
    ad_context_free(NULL);
}
END_TEST

/* Integers and bytes count as reals and have no gradient; numbers may stand for operands. */
START_TEST(test_dtypes)
{
    numeric_context(AD_DOUBLE, 1);
    int64_t whole[] = { -2, 3, 1 };
    uint8_t bytes[] = { 0, 255, 7 };
    ad_scope {
        ad_tensor *i = ad_from(whole, AD_SHAPE(3)), *b = ad_from(bytes, AD_SHAPE(3)), *d;
        ad_tensor *y = ad_add(ad_mul(i, b), 0.5);
        double got[3];
        numeric_read(y, got, 3);
        for (int k = 0; k < 3; k++) ck_assert(got[k] == (double)whole[k] * bytes[k] + 0.5);
        ck_assert_int_eq(ad_dtype_of(y), AD_REAL);
        ad_gradient(y, &b, 1, &d);
        numeric_read(d, got, 3);
        for (int k = 0; k < 3; k++) ck_assert(got[k] == 0);
    }
    ad_context_free(NULL);
}
END_TEST

/* ---- kernels for one element and for whole lines ----------------------------------------------------------------- */

static bool same_bits(int bits, const void *a, const void *b)
{
    if (bits == 64 ? isnan(*(const double *)a) && isnan(*(const double *)b) : isnan(*(const float *)a) && isnan(*(const float *)b))
        return true;
    return !memcmp(a, b, (size_t)bits / 8);
}

/* Every kernel gives the same bits to an element alone, in lines, and in a loop, in every set that this machine runs. */
START_TEST(test_small_kernels)
{
    static const cpu_kernels *const tables[] = {
#define X(isa) &cpu_kernels_f32_##isa, &cpu_kernels_f64_##isa,
        CPU_FOR_EACH_ISA(X)
#undef X
    };
    static const double corners[] = { 0, -0.0, INFINITY, -INFINITY, NAN, 1, -1, 1e-310, 3e-39, 90, -90, 0.5 };
    enum { N = 64, CORNERS = sizeof corners / sizeof *corners };
    const cpu_kernels *k = tables[_i];
    _Alignas(64) char x[4][N * sizeof(double)], loop[N * sizeof(double)], lines[N * sizeof(double)], one[sizeof(double)];
    size_t element = (size_t)k->bits / 8;
    for (int i = 0; i < 4 * N; i++) /* corners among numbers, every pair of them in some lane */
        k->store(x[i / N], i % N, (i / N & 1 ? i / 5 : i) % 3 == 0 ? corners[(i / N & 1 ? i / 3 : i) % CORNERS] : sin(i) * 4);
    for (int op = 0; op < N_ELEMENTWISE; op++) {
        const small_op line[2] = { { k->lines[op], N, lines, { x[0], x[1], x[2], x[3] } }, { .run = k->small_end } };
        k->elementwise[op](N, loop, x[0], x[1], x[2], x[3]);
        line->run(line);
        for (size_t i = 0; i < N; i++) {
            size_t at = i * element;
            const small_op alone[2] = { { k->scalar[op], 1, one, { x[0] + at, x[1] + at, x[2] + at, x[3] + at } },
                                        { .run = k->small_end } };
            alone->run(alone);
            ck_assert_msg(same_bits(k->bits, loop + at, lines + at), "%s of %zu in lines", ad__op_name(op), i);
            ck_assert_msg(same_bits(k->bits, loop + at, one), "%s of %zu alone", ad__op_name(op), i);
        }
    }
}
END_TEST

Suite *suite_ops(void)
{
    Suite *s = suite_create("ops");
    TCase *t = tcase_create("rows");
    tcase_add_loop_test(t, test_closed_forms, 0, ROWS + BRANCHES);
    tcase_add_loop_test(t, test_differences, 0, ROWS + BRANCHES);
    tcase_add_loop_test(t, test_float_against_double, 0, ROWS);
    tcase_add_loop_test(t, test_broadcasting, 0, ROWS);
    tcase_add_loop_test(t, test_masked_lanes, 0, ROWS);
    tcase_add_test(t, test_without_gradient);
    tcase_add_test(t, test_every_row_has_a_form);
    suite_add_tcase(s, t);
    t = tcase_create("corners");
    tcase_add_loop_test(t, test_nan, 0, 2);
    tcase_add_test(t, test_corners);
    tcase_add_test(t, test_dtypes);
    tcase_add_loop_test(t, test_small_kernels, 0, 2 * (gemm_cpu_level() + 1));
    suite_add_tcase(s, t);
    return s;
}
