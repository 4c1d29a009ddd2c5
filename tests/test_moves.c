/* Operations that move elements: reshape, permute, expand, concat, stack, slice, pad, gather, scatter_add, stop_gradient,
 * random_index, casts: values against index arithmetic, gradients against central differences, odd sizes and rank 16. */
#include <stdio.h>

#include "autodiff/tape.h"
#include "tests/numeric.h"

#define S(...) AD_SHAPE(__VA_ARGS__)

static ad_context *context;
static uint64_t state;

static void open_double(void)
{
    context = numeric_context(AD_DOUBLE, 2);
    state = 11;
}
static void close_context(void) { ad_context_free(context); }

/* One case of a moving op: result element k is operand element from[k], or 0 where from[k] < 0 (one operand). */
static void check_move(const char *name, numeric_program *f, const void *what, ad_shape s, ad_shape to, const int64_t *from)
{
    double *data = numeric_draws(&state, numeric_size(&s), -1, 1), *want = calloc((size_t)numeric_size(&to) + 1, sizeof *want);
    for (int64_t k = 0; k < numeric_size(&to); k++) want[k] = from[k] < 0 ? 0 : data[from[k]];
    numeric_check_value(name, f, what, &s, &data, 1, to, want, 0);
    numeric_check_gradient(name, f, what, &s, &data, 1);
    free(data);
    free(want);
}

static bool fails_with(ad_error_kind kind, const char *words)
{
    bool so = ad_error_code() == kind && strstr(ad_error(), words);
    ad_error_clear();
    return so;
}

/* ---- views and orders ------------------------------------------------------------------------------------------------- */

static ad_tensor *reshape(ad_tensor *const *x, const void *what) { return ad_mul(ad_reshape(x[0], *(const ad_shape *)what), 1); }

START_TEST(test_reshape)
{
    const struct {
        ad_shape ask, get;
    } cases[] = {
        { S(4, 3, 2), S(4, 3, 2) }, { S(-1), S(24) }, { S(2, -1, 2), S(2, 6, 2) }, { S(1, 24, -1), S(1, 24, 1) },
        { S(2, 3, 4), S(2, 3, 4) },
    };
    int64_t from[24];
    for (int k = 0; k < 24; k++) from[k] = k;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check_move("reshape", reshape, &cases[i].ask, S(2, 3, 4), cases[i].get, from);
    check_move("reshape of one", reshape, &(ad_shape){ .rank = 0 }, S(1, 1), AD_SCALAR, from);
    ad_scope {
        ad_reshape(ad_ones(2, 3), S(4, -1));
        ck_assert(fails_with(AD_ERROR_SHAPE, "(2, 3) has 6 elements, (4, -1) does not fit"));
        ad_reshape(ad_ones(2, 3), S(-1, -1));
        ck_assert(fails_with(AD_ERROR_SHAPE, ""));
        ck_assert_int_eq(ad_dim(ad_reshape(ad_zeros(0, 3), S(-1, 3)), 0), 0);
        ck_assert_int_eq(ad_dim(ad_reshape(ad_zeros(0, 3), S(5, 0)), 0), 5);
        ad_tensor *x = ad_unsqueeze(ad_ones(2, 3), -1), *y = ad_unsqueeze(x, 0);
        ck_assert(ad_rank(y) == 4 && ad_dim(y, 0) == 1 && ad_dim(y, 1) == 2 && ad_dim(y, 3) == 1);
        y = ad_squeeze(ad_squeeze(y, 0), -1);
        ck_assert(ad_rank(y) == 2 && ad_dim(y, 0) == 2 && ad_dim(y, 1) == 3 && ad_ok());
        ad_squeeze(y, 1);
        ck_assert(fails_with(AD_ERROR_SHAPE, "axis 1 of (2, 3) has more than one element"));
        ad_unsqueeze(y, 4);
        ck_assert(fails_with(AD_ERROR_SHAPE, "axis 4 does not fit rank 2"));
    }
}
END_TEST

typedef struct axes {
    int axis[AD_MAX_RANK], n;
} axes;
static ad_tensor *permute(ad_tensor *const *x, const void *what)
{
    const axes *a = what;
    return ad_permute(x[0], a->axis, a->n);
}

static void check_permutation(const ad_shape *s, const axes *a)
{
    int rank = s->rank;
    ad_shape to = { .rank = rank };
    for (int i = 0; i < rank; i++) to.dim[i] = s->dim[a->axis[i] < 0 ? a->axis[i] + rank : a->axis[i]];
    int64_t n = numeric_size(s), *from = malloc((size_t)n * sizeof *from), place[AD_MAX_RANK], source[AD_MAX_RANK];
    for (int64_t k = 0; k < n; k++) {
        numeric_coordinates(&to, k, place);
        for (int i = 0; i < rank; i++) source[a->axis[i] < 0 ? a->axis[i] + rank : a->axis[i]] = place[i];
        from[k] = numeric_at(s, source, rank);
    }
    check_move("permute", permute, a, *s, to, from);
    free(from);
}

START_TEST(test_permute)
{
    const ad_shape s = S(2, 3, 1, 4);
    for (int code = 0; code < 256; code++) { /* those that are permutations: 24 */
        axes a = { { code & 3, code >> 2 & 3, code >> 4 & 3, code >> 6 & 3 }, 4 };
        int seen = 0;
        for (int i = 0; i < 4; i++) seen |= 1 << a.axis[i];
        if (seen != 15) continue;
        if (code & 1) a.axis[3] -= 4;
        check_permutation(&s, &a);
    }
    ad_shape wide = { .rank = 16, .dim = { 1, 2, 1, 1, 2, 1, 3, 1, 1, 1, 2, 1, 1, 1, 2, 1 } };
    axes back = { .n = 16 };
    for (int i = 0; i < 16; i++) back.axis[i] = 15 - i;
    check_permutation(&wide, &back);
    ad_scope {
        ad_tensor *x = ad_ones(2, 3, 4), *y = ad_transpose(x, 0, -1);
        ck_assert(ad_dim(y, 0) == 4 && ad_dim(y, 1) == 3 && ad_dim(y, 2) == 2);
        ad_permute(x, (const int[]){ 0, 1, 1 }, 3);
        ck_assert(fails_with(AD_ERROR_SHAPE, "not a permutation of those of (2, 3, 4)"));
        ad_permute(x, (const int[]){ 0, 1 }, 2);
        ck_assert(fails_with(AD_ERROR_SHAPE, "not a permutation"));
        ad_transpose(x, 0, 3);
        ck_assert(fails_with(AD_ERROR_SHAPE, "ad_transpose: shape (2, 3, 4) has no axis 3"));
    }
}
END_TEST

static ad_tensor *expand(ad_tensor *const *x, const void *what) { return ad_expand(x[0], *(const ad_shape *)what); }

START_TEST(test_expand)
{
    const ad_shape to = S(2, 3, 4), shapes[] = { S(2, 3, 4), S(3, 4), S(4), AD_SCALAR, S(1, 3, 1), S(2, 1, 4), S(1, 1), S(2, 3, 1) };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        int64_t from[24];
        for (int64_t k = 0, place[3]; k < 24; k++) {
            numeric_coordinates(&to, k, place);
            from[k] = numeric_at(&shapes[i], place, 3);
        }
        check_move("expand", expand, &to, shapes[i], to, from);
    }
    ad_scope {
        ad_expand(ad_ones(2, 3), S(3, 3));
        ck_assert(fails_with(AD_ERROR_SHAPE, "ad_expand: shape (2, 3) does not broadcast to (3, 3)"));
        ad_expand(ad_ones(2, 3), S(3));
        ck_assert(fails_with(AD_ERROR_SHAPE, "does not broadcast to (3,)"));
    }
}
END_TEST

/* ---- cutting and joining ------------------------------------------------------------------------------------------------ */

typedef struct cut {
    int axis;
    int64_t start, extent; /* the length of a slice, the size of a pad */
} cut;
static ad_tensor *slice(ad_tensor *const *x, const void *what)
{
    const cut *c = what;
    return ad_slice(x[0], c->axis, c->start, c->extent);
}
static ad_tensor *pad(ad_tensor *const *x, const void *what)
{
    const cut *c = what;
    return ad_pad(x[0], c->axis, c->start, c->extent);
}

START_TEST(test_slice_and_pad)
{
    const ad_shape s = S(3, 2, 4);
    int64_t from[64], place[3];
    for (int axis = 0; axis < 3; axis++) {
        for (int64_t start = 0; start <= s.dim[axis]; start++) {
            for (int64_t length = 0; start + length <= s.dim[axis]; length++) {
                ad_shape to = s;
                to.dim[axis] = length;
                for (int64_t k = 0; k < numeric_size(&to); k++) {
                    numeric_coordinates(&to, k, place);
                    place[axis] += start;
                    from[k] = s.dim[axis] == 1 ? k : numeric_at(&s, place, 3);
                }
                check_move("slice", slice, &(cut){ axis - 3, start, length }, s, to, from);
            }
            ad_shape to = s;
            to.dim[axis] = s.dim[axis] + 2;
            if (start > 2) continue;
            for (int64_t k = 0; k < numeric_size(&to); k++) {
                numeric_coordinates(&to, k, place);
                place[axis] -= start;
                from[k] = place[axis] < 0 || place[axis] >= s.dim[axis] ? -1 : numeric_at(&s, place, 3);
            }
            check_move("pad", pad, &(cut){ axis, start, to.dim[axis] }, s, to, from);
        }
    }
    ad_scope {
        ad_slice(ad_ones(3, 4), 1, 2, 3);
        ck_assert(fails_with(AD_ERROR_SHAPE, "3 elements from 2 on are not within axis 1 of shape (3, 4)"));
        ad_slice(ad_ones(3, 4), 0, -1, 1);
        ck_assert(fails_with(AD_ERROR_SHAPE, "1 elements from -1 on are not within"));
        ad_pad(ad_ones(3), 0, 2, 4);
        ck_assert(fails_with(AD_ERROR_SHAPE, "3 elements at 2 do not fit into 4"));
        int64_t whole[] = { 5, 6, 7 }, two[2]; /* other dtypes move too */
        ck_assert(ad_read(ad_slice(ad_from(whole, S(3)), 0, 1, 2), two, 2) && two[0] == 6 && two[1] == 7);
    }
}
END_TEST

typedef struct joint {
    int n, axis;
    bool stack;
} joint;
static ad_tensor *join(ad_tensor *const *x, const void *what)
{
    const joint *j = what;
    return (j->stack ? ad_stack : ad_concat)(x, j->n, j->axis);
}

START_TEST(test_concat_and_stack)
{
    for (int stack = 0; stack < 2; stack++) {
        for (int axis = 0; axis < (stack ? 3 : 2); axis++) {
            for (int n = 1; n <= 4; n++) {
                ad_shape shapes[4], to;
                double *data[4], want[128];
                int64_t length = 0;
                for (int i = 0; i < n; i++) {
                    shapes[i] = S(2, 3);
                    if (!stack) shapes[i].dim[axis] = i; /* the first is empty */
                    length += stack ? 1 : i;
                    data[i] = numeric_draws(&state, numeric_size(&shapes[i]), -1, 1);
                }
                to = shapes[0];
                if (stack) {
                    memmove(to.dim + axis + 1, to.dim + axis, (size_t)(2 - axis) * sizeof *to.dim);
                    to.rank = 3;
                }
                to.dim[axis] = length;
                for (int64_t k = 0, place[3]; k < numeric_size(&to); k++) {
                    numeric_coordinates(&to, k, place);
                    int part = 0;
                    int64_t at = place[axis];
                    while (!stack && at >= shapes[part].dim[axis]) at -= shapes[part++].dim[axis];
                    if (stack) {
                        part = (int)at;
                        memmove(place + axis, place + axis + 1, (size_t)(2 - axis) * sizeof *place);
                    } else {
                        place[axis] = at;
                    }
                    want[k] = data[part][place[0] * shapes[part].dim[1] + place[1]];
                }
                joint j = { n, axis - (stack ? 3 : 2), stack };
                numeric_check_value("join", join, &j, shapes, data, n, to, want, 0);
                numeric_check_gradient("join", join, &j, shapes, data, n);
                for (int i = 0; i < n; i++) free(data[i]);
            }
        }
    }
    ad_scope {
        ad_concat((ad_tensor *[]){ ad_ones(2, 3), ad_ones(2, 4) }, 2, 0);
        ck_assert(fails_with(AD_ERROR_SHAPE, "part 1 has shape (2, 4), the first (2, 3); they may differ in axis 0 only"));
        ad_concat(NULL, 0, 0);
        ck_assert(fails_with(AD_ERROR_ARGUMENT, "ad_concat: no parts"));
        ad_stack((ad_tensor *[]){ ad_ones(2), ad_ones(3) }, 2, 0);
        ck_assert(fails_with(AD_ERROR_SHAPE, "part 1"));
    }
}
END_TEST

/* ---- by index ----------------------------------------------------------------------------------------------------------- */

typedef struct pick {
    int axis;
    int64_t size;
    ad_shape shape;
    ad_tensor *index; /* of that shape */
} pick;
static ad_tensor *gather(ad_tensor *const *x, const void *what)
{
    const pick *p = what;
    return ad_gather(x[0], p->axis, p->index);
}
static ad_tensor *scatter_add(ad_tensor *const *x, const void *what)
{
    const pick *p = what;
    return ad_scatter_add(x[0], p->axis, p->index, p->size);
}

/* x (2, 3, 4) along every axis, by indices of rank 0, 1 and 2 with repetitions; scatter_add takes the result back. */
START_TEST(test_gather_and_scatter_add)
{
    const ad_shape s = S(2, 3, 4), shapes[] = { AD_SCALAR, S(5), S(2, 3), S(0), S(1) };
    for (int axis = 0; axis < 3; axis++) {
        for (size_t which = 0; which < sizeof shapes / sizeof shapes[0]; which++) {
            pick p = { axis - 3, s.dim[axis], shapes[which], NULL };
            int64_t members = numeric_size(&p.shape), index[6];
            for (int64_t i = 0; i < members; i++) index[i] = numeric_below(&state, p.size);
            p.index = ad_from(index, p.shape);
            ad_shape to = { .rank = 2 + p.shape.rank };
            memcpy(to.dim, s.dim, (size_t)axis * sizeof *to.dim);
            memcpy(to.dim + axis, p.shape.dim, (size_t)p.shape.rank * sizeof *to.dim);
            memcpy(to.dim + axis + p.shape.rank, s.dim + axis + 1, (size_t)(2 - axis) * sizeof *to.dim);
            int64_t from[96], inner = 1, n = numeric_size(&to);
            for (int i = axis + 1; i < 3; i++) inner *= s.dim[i];
            for (int64_t k = 0; k < n; k++) /* k = (outer, member, inner) */
                from[k] = (k / inner / members * p.size + index[k / inner % members]) * inner + k % inner;
            check_move("gather", gather, &p, s, to, from);

            double *data = numeric_draws(&state, n, -1, 1), want[24] = { 0 };
            for (int64_t k = 0; k < n; k++) want[from[k]] += data[k];
            p.axis = axis;
            numeric_check_value("scatter_add", scatter_add, &p, &to, &data, 1, s, want, 1e-15);
            numeric_check_gradient("scatter_add", scatter_add, &p, &to, &data, 1);
            free(data);
            ad_free(p.index);
        }
    }
}
END_TEST

/* An index outside is found when the step runs, by site and number; nothing is read there. */
START_TEST(test_bad_index)
{
    double x[6] = { 1, 2, 3, 4, 5, 6 }, got[6];
    const int bad[][2] = { { 0, 3 }, { -1, 0 }, { 1 << 30, 0 } };
    for (int i = 0; i < 3; i++) {
        ad_tensor *index = ad_from(bad[i], S(2));
        char words[64];
        snprintf(words, sizeof words, "index %d is outside [0, 3)", bad[i][i == 0]);
        ad_scope {
            ck_assert(!ad_read(ad_gather(ad_from(x, S(3, 2)), 0, index), got, 4));
            ck_assert_msg(strstr(ad_error(), words) && strstr(ad_error(), "ad_gather"), "%s", ad_error());
            ck_assert_int_eq(ad_error_code(), AD_ERROR_SUPPORT);
            ck_assert(isnan(got[0]) && isnan(got[3]));
        }
        ad_scope {
            double nine[9];
            ck_assert(!ad_read(ad_scatter_add(ad_from(x, S(2, 3)), 0, index, 3), nine, 9));
            ck_assert_msg(strstr(ad_error(), words) && strstr(ad_error(), "ad_scatter_add"), "%s", ad_error());
        }
        ad_free(index);
    }
    ad_scope {
        ad_gather(ad_ones(3), 0, ad_ones(2));
        ck_assert(fails_with(AD_ERROR_ARGUMENT, "an index must be int64"));
        int none = 0;
        ad_scatter_add(ad_ones(2, 3), 0, ad_from(&none, S(1)), 4);
        ck_assert(fails_with(AD_ERROR_SHAPE, "shape (2, 3) does not have the index's shape (1,) at axis 0"));
    }
}
END_TEST

/* k distinct indices: the first k of one permutation of [0, n) for a site and draw, another one for another draw. */
START_TEST(test_random_index)
{
    enum { N = 97, K = 20, DRAWS = 40 };
    int64_t all[DRAWS][N], some[K];
    int hits[N] = { 0 };
    ad_scope {
        context->tape->site = ad__name(context, "rows");
        for (int draw = 0; draw < DRAWS; draw++) {
            bool seen[N] = { false };
            ck_assert(ad_read(ad_random_index(N, N, draw), all[draw], N));
            for (int i = 0; i < N; i++) {
                ck_assert(all[draw][i] >= 0 && all[draw][i] < N && !seen[all[draw][i]]);
                seen[all[draw][i]] = true;
            }
            ad_tensor *first = ad_random_index(N, K, draw);
            ck_assert_int_eq(ad_dtype_of(first), AD_INT64);
            ck_assert(ad_read(first, some, K));
            ck_assert(!memcmp(some, all[draw], sizeof some));
            for (int i = 0; i < K; i++) hits[some[i]]++;
        }
        ck_assert(memcmp(all[0], all[1], sizeof all[0]));
        for (int i = 0; i < N; i++) ck_assert_msg(hits[i] > 0 && hits[i] < 25, "%d was drawn %d times", i, hits[i]);
        ck_assert_int_eq(ad_size(ad_random_index(0, 0, 0)), 0);
        ad_random_index(3, 4, 0);
        ck_assert(fails_with(AD_ERROR_ARGUMENT, "cannot draw 4 of 3 indices"));
    }
}
END_TEST

/* ---- the end of gradients, odd sizes ----------------------------------------------------------------------------------- */

START_TEST(test_stop_gradient)
{
    ad_scope {
        double three = 3;
        ad_tensor *x = ad_from(&three, AD_SCALAR), *d[2], *held = ad_stop_gradient(x);
        ad_gradient(ad_mul(x, held), (ad_tensor *[]){ x, held }, 2, d);
        ck_assert(ad_item(d[0]) == 3); /* not 6 */
        ck_assert(ad_item(d[1]) == 3); /* held is a value like others */
        ad_gradient(ad_square(held), &x, 1, d);
        ck_assert(ad_item(d[0]) == 0);
    }
}
END_TEST

/* No elements: every op takes them and gives shapes and sums that fit. */
START_TEST(test_empty)
{
    ad_scope {
        ad_tensor *x = ad_from((double *)NULL, S(3, 0, 2)), *d;
        ad_tensor *y = ad_exp(ad_add(x, ad_ones(3, 1, 2)));
        ck_assert_int_eq(ad_dim(y, 1), 0);
        y = ad_concat((ad_tensor *[]){ y, ad_ones(3, 1, 2), ad_permute(x, (const int[]){ 0, 1, 2 }, 3) }, 3, 1);
        ck_assert_int_eq(ad_size(y), 6);
        ck_assert(ad_item(ad_sum(y)) == 6);
        ad_gradient(ad_sum(y), &x, 1, &d);
        ck_assert(ad_rank(d) == 3 && ad_size(d) == 0);
        ck_assert(ad_read(d, (double *)NULL, 0));
        ck_assert_int_eq(ad_size(ad_cumsum(x, 1, false)), 0);
        ck_assert(ad_item(ad_sum(ad_cumsum(x, 0, true))) == 0);
        ck_assert(ad_item(ad_sum(ad_expand(ad_transpose(x, 0, 1), S(5, 0, 3, 2)))) == 0);
        ck_assert(ad_item(ad_sum(ad_pad(x, 1, 0, 4))) == 0);
        ck_assert(ad_item(ad_sum(ad_random_normal(S(0, 3), 0))) == 0);
        ck_assert(ad_item(ad_sum(ad_arange(0))) == 0);
        ck_assert_msg(ad_ok(), "%s", ad_error());
    }
}
END_TEST

/* Sixteen dimensions: broadcast, permute, reduce; a seventeenth is an error. */
static ad_tensor *wide(ad_tensor *const *x, const void *what)
{
    (void)what;
    int back[16], odd[8];
    for (int i = 0; i < 16; i++) back[i] = 15 - i;
    for (int i = 0; i < 8; i++) odd[i] = 2 * i + 1;
    return ad_reduce(AD_SUM, ad_permute(ad_mul(x[0], x[1]), back, 16), odd, 8, false);
}

START_TEST(test_rank_16)
{
    /* joint sizes 2 at axes 0, 3, 6, 9, 12, 15; each operand has size 1 at some of them */
    ad_shape shapes[2] = { { .rank = 16 }, { .rank = 16 } }, full = { .rank = 16 }, to = { .rank = 8 };
    for (int i = 0; i < 16; i++) {
        full.dim[i] = i % 3 ? 1 : 2;
        shapes[0].dim[i] = i == 3 ? 1 : full.dim[i];
        shapes[1].dim[i] = i == 0 || i == 15 ? 1 : full.dim[i];
    }
    for (int i = 0; i < 8; i++) to.dim[i] = full.dim[15 - 2 * i];
    double *data[2], want[64] = { 0 };
    for (int i = 0; i < 2; i++) data[i] = numeric_draws(&state, numeric_size(&shapes[i]), -1, 1);
    for (int64_t k = 0, place[16], kept[8]; k < 64; k++) {
        numeric_coordinates(&full, k, place);
        for (int i = 0; i < 8; i++) kept[i] = place[15 - 2 * i];
        want[numeric_at(&to, kept, 8)] += data[0][numeric_at(&shapes[0], place, 16)] * data[1][numeric_at(&shapes[1], place, 16)];
    }
    numeric_check_value("rank 16", wide, NULL, shapes, data, 2, to, want, 1e-14);
    numeric_check_gradient("rank 16", wide, NULL, shapes, data, 2);
    for (int i = 0; i < 2; i++) free(data[i]);
    ad_scope {
        ad_unsqueeze(ad_full_shape(full, 1), 0);
        ck_assert(fails_with(AD_ERROR_SHAPE, "does not fit rank 16"));
        ad_shape more = full;
        more.rank = 17;
        ck_assert(ad_is_nil(ad_full_shape(more, 1)));
        ck_assert(fails_with(AD_ERROR_SHAPE, "17 dimensions; at most 16"));
    }
}
END_TEST

Suite *suite_moves(void)
{
    Suite *s = suite_create("moves");
    TCase *t = tcase_create("moves");
    tcase_add_checked_fixture(t, open_double, close_context);
    tcase_add_test(t, test_reshape);
    tcase_add_test(t, test_permute);
    tcase_add_test(t, test_expand);
    tcase_add_test(t, test_slice_and_pad);
    tcase_add_test(t, test_concat_and_stack);
    tcase_add_test(t, test_gather_and_scatter_add);
    tcase_add_test(t, test_bad_index);
    tcase_add_test(t, test_random_index);
    tcase_add_test(t, test_stop_gradient);
    tcase_add_test(t, test_empty);
    tcase_add_test(t, test_rank_16);
    suite_add_tcase(s, t);
    return s;
}
