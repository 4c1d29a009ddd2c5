/* Random programs with gradients: as planned, with each planner pass off, cut into segments, from the cache, with many
 * threads, and as the naive interpreter computes them; the gradients of smooth ones against central differences too.
 * Seeds are fixed; a failure names its own. */
#include "autodiff/plan/plan.h"
#include "tests/interpret.h"

enum { PROGRAMS = 2000, BATCH = 100, VALUES = 40, INPUTS = 4, MOST_RESULTS = 1 << 21 };
enum { PASSES_NONE = 0, PASSES_COMMON = PASS_COMMON, PASSES_FUSE = PASS_FUSE, PASSES_ALL = PASS_COMMON | PASS_FUSE };

/* A program is a function of its seed: grown afresh each time it runs. */
typedef struct garden {
    uint64_t state;
    int64_t limit; /* most elements of a value */
    bool smooth;   /* no corners, no stops: only ops that differences can judge */
    ad_tensor *value[VALUES];
    int n;
    ad_tensor *input[INPUTS], *index;
} garden;

static int64_t below(garden *g, int64_t n) { return numeric_below(&g->state, n); }
static bool often(garden *g, int percent) { return below(g, 100) < percent; }
static ad_tensor *any(garden *g) { return g->value[below(g, g->n)]; }

/* Inputs of joinable shapes: suffixes of one shape, some sizes 1. Made before the scope opens. */
static void plant(garden *g, uint64_t seed, bool large)
{
    *g = (garden){ .state = seed, .limit = large ? 80000 : 300 };
    int64_t base[4];
    for (int i = 0; i < 4; i++) base[i] = large ? 2 + below(g, i == 3 ? 300 : i == 2 ? 60 : 3) : 1 + below(g, 5);
    for (int i = 0; i < INPUTS; i++) {
        ad_shape s = { .rank = i == 0 ? 3 : (int)below(g, 4) };
        for (int k = 0; k < s.rank; k++) s.dim[k] = often(g, 25) ? 1 : base[4 - s.rank + k];
        double *data = numeric_draws(&g->state, numeric_size(&s), -1.5, 1.5);
        g->input[i] = ad_from(data, s);
        free(data);
    }
    int64_t index[3] = { 0, 0, 0 };
    g->index = ad_from(index, AD_SHAPE(3)); /* row 0 thrice: within any axis */
}
static void uproot(garden *g)
{
    for (int i = 0; i < INPUTS; i++) ad_free(g->input[i]);
    ad_free(g->index);
}

static ad_tensor *grow_unary(garden *g, ad_tensor *x)
{
    switch (below(g, g->smooth ? 10 : 14)) {
    case 0: return ad_neg(x);
    case 1: return ad_sin(x);
    case 2: return ad_cos(x);
    case 3: return ad_tanh(x);
    case 4: return ad_sigmoid(x);
    case 5: return ad_softplus(x);
    case 6: return ad_erf(x);
    case 7: return ad_log1p(ad_square(x));
    case 8: return ad_sqrt(ad_add(ad_square(x), 1));
    case 9: return ad_exp(ad_tanh(x));
    case 10: return ad_abs(x);
    case 11: return ad_relu(x);
    case 12: return ad_clamp(x, -1, ad_constant(0.8));
    default: return ad_stop_gradient(x);
    }
}

/* An operand that broadcasts with a and stays small, made of b. */
static ad_tensor *fitting(garden *g, ad_tensor *a, ad_tensor *b)
{
    ad_shape s = ad_shape_of(a), t = ad_shape_of(b), joint;
    return ad__broadcast(&s, &t, &joint) && numeric_size(&joint) <= g->limit ? b : ad_mean(b);
}

static ad_tensor *grow_joined(garden *g, ad_tensor *a)
{
    ad_tensor *b = fitting(g, a, any(g));
    switch (below(g, g->smooth ? 5 : 8)) {
    case 0: return ad_add(a, b);
    case 1: return ad_sub(b, a);
    case 2: return ad_tanh(ad_mul(a, b));
    case 3: return ad_div(a, ad_add(ad_square(b), 1));
    case 4: {
        ad_tensor *c = ad_lerp(a, b, ad_number(0.3));
        return ad_sin(ad_fma(c, fitting(g, c, any(g)), 0.2));
    }
    case 5: return ad_max(a, b);
    case 6: return ad_min(b, a);
    default: return ad_where(ad_gt(a, 0.1), b, ad_mul(a, 0.5));
    }
}

static ad_tensor *grow_reduced(garden *g, ad_tensor *x)
{
    int rank = ad_rank(x), axes[2] = { 0, 0 }, n = rank ? 1 + (int)below(g, rank > 1 ? 2 : 1) : 0;
    if (n) axes[0] = (int)below(g, rank);
    if (n == 2) axes[1] = (int)below(g, rank);
    ad_reduction kind = (ad_reduction[]){ AD_MEAN, AD_LOGSUMEXP, AD_SUM, AD_MAX }[below(g, g->smooth ? 3 : 4)];
    ad_tensor *y = ad_reduce(kind, x, axes, n, often(g, 50));
    return kind == AD_SUM ? ad_tanh(y) : y;
}

static ad_tensor *grow_moved(garden *g, ad_tensor *x)
{
    ad_shape s = ad_shape_of(x);
    int64_t size = numeric_size(&s);
    if (s.rank == 0) return size * 3 <= g->limit ? ad_expand(x, AD_SHAPE(3)) : x;
    int axis = (int)below(g, s.rank);
    switch (below(g, 9)) {
    case 0: return ad_reshape(x, AD_SHAPE(-1));
    case 1: return s.rank < 5 ? ad_unsqueeze(x, (int)below(g, s.rank + 1)) : ad_reshape(x, AD_SHAPE(1, -1));
    case 2: return ad_transpose(x, axis, (int)below(g, s.rank));
    case 3: {
        if (s.dim[axis] != 1 || size * 3 > g->limit) return ad_transpose(x, 0, -1);
        s.dim[axis] = 3;
        return ad_expand(x, s);
    }
    case 4: {
        int64_t start = below(g, s.dim[axis]);
        return ad_slice(x, axis, start, 1 + below(g, s.dim[axis] - start));
    }
    case 5: return size * 2 <= g->limit ? ad_concat((ad_tensor *[]){ x, ad_sin(x), x }, 2 + (int)below(g, 2), axis) : x;
    case 6: return size / s.dim[axis] * (s.dim[axis] + 2) <= g->limit ? ad_pad(x, axis, below(g, 3), s.dim[axis] + 2) : x;
    case 7: return size / s.dim[axis] * 3 <= g->limit && s.rank < 5 ? ad_gather(x, axis, g->index) : x;
    default: return ad_mul(ad_cumsum(x, axis, often(g, 50)), 1 / (double)s.dim[axis]);
    }
}

static ad_tensor *grow_product(garden *g, ad_tensor *x)
{
    ad_shape s = ad_shape_of(x);
    if (s.rank == 0) return ad_sin(x);
    if (s.rank == 1) return ad_mul(ad_matmul(x, ad_cos(x)), 1 / (double)s.dim[0]);
    int64_t size = numeric_size(&s), rows = s.dim[s.rank - 2], columns = s.dim[s.rank - 1];
    bool first = often(g, 50);
    int64_t side = first ? columns : rows;
    if (size / rows / columns * side * side > g->limit) return ad_sin(x);
    ad_tensor *other = often(g, 30) && s.rank > 2 ? ad_mean(x, 0) : ad_cos(x); /* perhaps with fewer leading dimensions */
    if (ad_rank(other) < 2) other = x;
    return ad_mul(first ? ad_matmul_t(x, true, other, false) : ad_matmul_t(x, false, other, true), 1 / (double)(first ? rows : columns));
}

/* Grows the program within the open scope. `pauses`: reads on the way, which make segments. Results, in order: the loss,
 * the gradient of each input, a few values on the way. */
static int64_t flower(garden *g, bool pauses, double *out, interpreter *judge)
{
    garden start = *g;
    uint64_t reading = g->state ^ 0x5555;
    for (int i = 0; i < INPUTS; i++) g->value[g->n++] = g->input[i];
    g->value[g->n++] = ad_number(numeric_uniform(&g->state, -1, 1));
    int steps = 4 + (int)below(g, VALUES - INPUTS - 5);
    for (int i = 0; i < steps; i++) {
        ad_tensor *x = often(g, 60) ? g->value[g->n - 1] : any(g), *y;
        int64_t way = below(g, 100);
        y = way < 30 ? grow_unary(g, x) : way < 62 ? grow_joined(g, x) : way < 74 ? grow_reduced(g, x)
            : way < 92 ? grow_moved(g, x) : grow_product(g, x);
        g->value[g->n++] = y;
        if (pauses && numeric_below(&reading, 5) == 0) ck_assert_msg(ad_read(y, out, ad_size(y)), "%s", ad_error());
    }
    ad_tensor *terms[3] = { g->value[g->n - 1], any(g), any(g) }, *result[INPUTS + 4];
    result[0] = ad_weighted_total(terms, (const double[]){ 1, -0.5, 0.25 }, 3);
    ad_gradient(result[0], g->input, INPUTS, result + 1);
    for (int i = 0; i < 3; i++) result[1 + INPUTS + i] = terms[i];
    int64_t n = 0;
    for (int i = 0; i < INPUTS + 4; i++) {
        int64_t size = ad_size(result[i]);
        ck_assert_msg(n + size < MOST_RESULTS && ad_read(result[i], out + n, size), "%s", ad_error());
        n += size;
    }
    if (judge) {
        *judge = interpret_tape(judge->context);
        n = 0;
        for (int i = 0; i < INPUTS + 4; i++) {
            int64_t size = ad_size(result[i]);
            node_id id = ad__node(judge->context, result[i], "a result");
            double largest = 1e-2;
            for (int64_t k = 0; k < size; k++) largest = fmax(largest, fabs(judge->value[id][k]));
            for (int64_t k = 0; k < size; k++)
                ck_assert_msg(numeric_close(out[n + k], judge->value[id][k], 1e-9, largest),
                              "result %d, node %d, element %lld of %lld: %.17g, not %.17g", i, id, (long long)k, (long long)size,
                              out[n + k], judge->value[id][k]);
            n += size;
        }
        interpret_free(judge);
    }
    *g = start;
    return n;
}

static int64_t run_program(ad_context *c, uint64_t seed, bool large, bool pauses, bool judged, double *out)
{
    garden g;
    int64_t n = 0;
    ad_context_use(c);
    plant(&g, seed, large);
    interpreter judge = { .context = c };
    ad_scope n = flower(&g, pauses, out, judged ? &judge : NULL);
    uproot(&g);
    return n;
}

static void same_bits(uint64_t seed, const char *what, const double *a, const double *b, int64_t n, int64_t m)
{
    ck_assert_msg(n == m, "program %llu, %s: %lld results, not %lld", (unsigned long long)seed, what, (long long)m, (long long)n);
    for (int64_t k = 0; k < n; k++)
        ck_assert_msg(a[k] == b[k] || (isnan(a[k]) && isnan(b[k])), "program %llu, %s: result %lld is %.17g, not %.17g",
                      (unsigned long long)seed, what, (long long)k, b[k], a[k]);
}

static ad_context *with_passes(uint32_t passes)
{
    ad_context *c = numeric_context(AD_DOUBLE, 1);
    c->passes = passes;
    c->in_vain = 1 << 20; /* new programs are interpreted, where that pass is on */
    return c;
}

/* Programs at their first sightings, at later ones, and where some segments of theirs were forgotten. */
static void interpret_first(uint64_t seed, double *want, double *got)
{
    ad_context *full = with_passes(PASSES_ALL), *lean = with_passes(~0u);
    for (int pauses = 0; pauses < 2; pauses++) {
        int64_t n = run_program(full, seed, false, pauses, false, want);
        for (int sighting = 0; sighting < 5; sighting++) {
            same_bits(seed, "interpreted at first", want, got, n, run_program(lean, seed, false, pauses, false, got));
            for (size_t i = 0; sighting < 3 && i < sizeof lean->seen / sizeof *lean->seen; i++)
                if ((i + (size_t)sighting) % 3 == 0) lean->seen[i] = 0;
        }
    }
    ad_context_use(lean);
    ck_assert(ad_count().misses > ad_count().plans);
    ad_context_free(lean);
    ad_context_free(full);
}

/* The interpreter's values, and the same bits whatever passes run, from the cache, and with reads on the way. */
START_TEST(test_programs)
{
    ad_context *none = with_passes(PASSES_NONE), *all = with_passes(PASSES_ALL), *paused = with_passes(PASSES_ALL);
    ad_context *fuse = with_passes(PASSES_FUSE), *common = with_passes(PASSES_COMMON);
    double *want = malloc(MOST_RESULTS * sizeof *want), *got = malloc(MOST_RESULTS * sizeof *got);
    for (uint64_t seed = (uint64_t)_i * BATCH; seed < (uint64_t)(_i + 1) * BATCH; seed++) {
        int64_t n = run_program(none, seed, false, false, true, want);
        same_bits(seed, "planned", want, got, n, run_program(all, seed, false, false, false, got));
        same_bits(seed, "planned, from the cache", want, got, n, run_program(all, seed, false, false, false, got));
        same_bits(seed, "fused", want, got, n, run_program(fuse, seed, false, false, false, got));
        same_bits(seed, "without repetitions", want, got, n, run_program(common, seed, false, false, false, got));
        same_bits(seed, "in segments", want, got, n, run_program(paused, seed, false, true, false, got));
    }
    for (uint64_t seed = (uint64_t)_i * BATCH; seed < (uint64_t)(_i + 1) * BATCH; seed++)
        interpret_first(seed, want, got);
    ad_context_use(all);
    ck_assert(ad_count().hits >= BATCH);
    free(want);
    free(got);
    ad_context *contexts[] = { none, all, paused, fuse, common };
    for (int i = 0; i < 5; i++) ad_context_free(contexts[i]);
}
END_TEST

/* One smooth program: its gradients along a random direction against the difference of its loss in that direction. */
static void check_direction(uint64_t seed, double *out)
{
    garden g;
    plant(&g, seed, false);
    g.smooth = true;
    double slope = 0, scale = 1e-3, loss[NUMERIC_STENCIL], h = 1e-3;
    double *at[INPUTS], *start[INPUTS], *along[INPUTS];
    uint64_t state = ~seed;
    ad_scope flower(&g, false, out, NULL);
    for (int64_t i = 0, n = 1; i < INPUTS; i++) {
        int64_t size = ad_size(g.input[i]);
        at[i] = ad_host_data(g.input[i]);
        start[i] = malloc((size_t)size * sizeof *start[i]);
        memcpy(start[i], at[i], (size_t)size * sizeof *start[i]);
        along[i] = numeric_draws(&state, size, -1, 1);
        for (int64_t k = 0; k < size; k++, n++) {
            slope += out[n] * along[i][k];
            scale += fabs(out[n] * along[i][k]);
        }
    }
    for (int s = 0; s < NUMERIC_STENCIL; s++) {
        for (int i = 0; i < INPUTS; i++)
            for (int64_t k = 0; k < ad_size(g.input[i]); k++) at[i][k] = start[i][k] + numeric_offset(s) * h * along[i][k];
        ad_scope flower(&g, false, out, NULL);
        loss[s] = out[0];
    }
    double want = numeric_difference(loss, h);
    ck_assert_msg(fabs(slope - want) <= 1e-6 * scale, "smooth program %llu: slope %.12g, not %.12g", (unsigned long long)seed,
                  slope, want);
    for (int i = 0; i < INPUTS; i++) {
        free(start[i]);
        free(along[i]);
    }
    uproot(&g);
}

START_TEST(test_gradients)
{
    ad_context *c = with_passes(PASSES_ALL);
    double *out = malloc(MOST_RESULTS * sizeof *out);
    for (uint64_t seed = 9000; seed < 9500; seed++) check_direction(seed, out);
    free(out);
    ad_context_free(c);
}
END_TEST

/* Programs large enough for threads to share them give the same bits with any number. */
START_TEST(test_threads)
{
    ad_context *c = with_passes(PASSES_ALL);
    double *want = malloc(MOST_RESULTS * sizeof *want), *got = malloc(MOST_RESULTS * sizeof *got);
    static const int threads[] = { 2, 3, 8 };
    for (uint64_t seed = 5000; seed < 5025; seed++) {
        ad_context_use(c);
        ad_set_threads(1);
        int64_t n = run_program(c, seed, true, false, false, want);
        for (int i = 0; i < 3; i++) {
            ck_assert_int_eq(ad_set_threads(threads[i]), threads[i]);
            same_bits(seed, "with threads", want, got, n, run_program(c, seed, true, i == 1, false, got));
        }
    }
    free(want);
    free(got);
    ad_context_free(c);
}
END_TEST

Suite *suite_fuzz(void)
{
    Suite *s = suite_create("fuzz");
    TCase *t = tcase_create("programs");
    tcase_add_loop_test(t, test_programs, 0, PROGRAMS / BATCH);
    tcase_add_test(t, test_gradients);
    tcase_add_test(t, test_threads);
    suite_add_tcase(s, t);
    return s;
}
