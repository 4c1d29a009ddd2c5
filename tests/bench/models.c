/* Steps of SVI, whole: the variational autoencoder on pictures, and three small models where what counts is everything
 * but arithmetic. peers.py states the same models for other libraries. Called by bench.c. */
#include "autodiff/tape.h"
#include "models/vae.h"
#include "tests/bench/bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 170, COLUMNS = 3, SCHOOLS = 8, CHAIN = 10, PIXELS = 784, HIDDEN = 400, LATENT = 50 };

/* ---- the small models -------------------------------------------------------------------------------------------- */

/* A scalar site of a guide: a Normal with parameters of its own. */
static distribution *free_normal(const char *loc, const char *scale)
{
    return dist_normal(ppl_param(loc, AD_SCALAR),
                       ppl_param(scale, AD_SCALAR, .init = ppl_constant(0.1), .constraint = dist_positive()));
}
/* n of them as one site: batch shape (n) */
static distribution *free_normals(const char *loc, const char *scale, int64_t n)
{
    return dist_normal(ppl_param(loc, AD_SHAPE(n)),
                       ppl_param(scale, AD_SHAPE(n), .init = ppl_constant(0.1), .constraint = dist_positive()));
}

/* Linear regression with unknown noise, x (ROWS, COLUMNS), y (ROWS). */
static void regression_model(ad_tensor *x, ad_tensor *y)
{
    ad_tensor *w = ppl_sample("w", dist_to_event(dist_normal(ad_zeros(COLUMNS), 1), 1));
    ad_tensor *b = ppl_sample("b", dist_normal(0, 10));
    ad_tensor *sigma = ppl_sample("sigma", dist_log_normal(0, 1));
    ppl_plate ("rows", ad_dim(x, 0)) ppl_sample("y", dist_normal(ad_add(ad_matmul(x, w), b), sigma), .obs = y);
}
static void regression_guide(ad_tensor *x, ad_tensor *y)
{
    (void)x, (void)y;
    ppl_sample("w", dist_to_event(free_normals("w_loc", "w_scale", COLUMNS), 1));
    ppl_sample("b", free_normal("b_loc", "b_scale"));
    ppl_sample("sigma", dist_log_normal(ppl_param("sigma_loc", AD_SCALAR),
                                        ppl_param("sigma_scale", AD_SCALAR, .init = ppl_constant(0.1),
                                                  .constraint = dist_positive())));
}

/* Eight schools (Rubin 1981), not centred: effect (SCHOOLS), error (SCHOOLS). */
static void schools_model(ad_tensor *effect, ad_tensor *error)
{
    ad_tensor *mu = ppl_sample("mu", dist_normal(0, 5));
    ad_tensor *tau = ad_exp(ppl_sample("log_tau", dist_normal(0, 1)));
    ppl_plate ("schools", SCHOOLS) {
        ad_tensor *raw = ppl_sample("raw", dist_normal(0, 1));
        ppl_sample("effect", dist_normal(ad_add(mu, ad_mul(tau, raw)), error), .obs = effect);
    }
}
static void schools_guide(ad_tensor *effect, ad_tensor *error)
{
    (void)effect, (void)error;
    ppl_sample("mu", free_normal("mu_loc", "mu_scale"));
    ppl_sample("log_tau", free_normal("log_tau_loc", "log_tau_scale"));
    ppl_plate ("schools", SCHOOLS) ppl_sample("raw", free_normals("raw_loc", "raw_scale", SCHOOLS));
}

/* A random walk of ten scalar sites. */
static const char *const link_names[CHAIN][3] = {
    { "z0", "loc0", "scale0" }, { "z1", "loc1", "scale1" }, { "z2", "loc2", "scale2" }, { "z3", "loc3", "scale3" },
    { "z4", "loc4", "scale4" }, { "z5", "loc5", "scale5" }, { "z6", "loc6", "scale6" }, { "z7", "loc7", "scale7" },
    { "z8", "loc8", "scale8" }, { "z9", "loc9", "scale9" },
};
static void chain_model(ad_tensor *x, ad_tensor *y)
{
    (void)x, (void)y;
    ad_tensor *z = ppl_sample(link_names[0][0], dist_normal(0, 1));
    for (int i = 1; i < CHAIN; i++) z = ppl_sample(link_names[i][0], dist_normal(z, 1));
}
static void chain_guide(ad_tensor *x, ad_tensor *y)
{
    (void)x, (void)y;
    for (int i = 0; i < CHAIN; i++) ppl_sample(link_names[i][0], free_normal(link_names[i][1], link_names[i][2]));
}

/* ---- their rows -------------------------------------------------------------------------------------------------- */

/* Two tensors that every small model takes. */
typedef struct data {
    float x[ROWS * COLUMNS], y[ROWS];
    ad_shape x_shape, y_shape;
} data;

static void regression_data(data *d)
{
    d->x_shape = AD_SHAPE(ROWS, COLUMNS);
    d->y_shape = AD_SHAPE(ROWS);
    for (int i = 0; i < ROWS; i++) {
        float *x = d->x + COLUMNS * i;
        for (int j = 0; j < COLUMNS; j++) x[j] = sinf(1.0f + 12.9898f * (float)i + 78.233f * (float)j) * 1.4f;
        d->y[i] = x[0] - 2 * x[1] + 0.5f * x[2] + 0.3f + 0.4f * sinf(37.719f * (float)i);
    }
}
static void schools_data(data *d)
{
    static const float effect[SCHOOLS] = { 28, 8, -3, 7, -1, 1, 18, 12 },
                       error[SCHOOLS] = { 15, 10, 16, 11, 9, 11, 10, 18 };
    d->x_shape = d->y_shape = AD_SHAPE(SCHOOLS);
    for (int i = 0; i < SCHOOLS; i++) d->x[i] = effect[i], d->y[i] = error[i];
}
static void chain_data(data *d) { d->x_shape = d->y_shape = AD_SCALAR; }

typedef void small_function(ad_tensor *x, ad_tensor *y);
typedef struct small_model {
    const char *name;
    small_function *model, *guide;
    void (*fill)(data *d);
} small_model;
static const small_model small_models[] = {
    { "regression", regression_model, regression_guide, regression_data },
    { "schools", schools_model, schools_guide, schools_data },
    { "chain", chain_model, chain_guide, chain_data },
};

typedef struct small {
    svi *first, *second; /* the second only where plans shall be missed */
    ad_tensor *x, *y;
    uint64_t nodes;
} small;

static void close_small(void *state)
{
    small *s = state;
    svi_free(s->first);
    svi_free(s->second);
    ad_free(s->x);
    ad_free(s->y);
    free(s);
}
static void *open_model(const small_model *m, bool two)
{
    data d = { .x = { 0 } };
    m->fill(&d);
    small *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->x = ad_from(d.x, d.x_shape);
    s->y = ad_from(d.y, d.y_shape);
    for (int i = 0; i < 1 + two; i++)
        *(i ? &s->second : &s->first) = svi_new(m->model, m->guide, .args = PPL_ARGS(ad_tensor *, ad_tensor *),
                                                .optim = optim_adam(.lr = 0.005));
    if (s->first && (s->second || !two)) return s;
    close_small(s);
    return NULL;
}
static void *open_small(const bench_row *row) { return open_model(row->what, false); }
static double step_small(void *state)
{
    const small *s = state;
    return svi_step(s->first, s->x, s->y);
}
static bool run_small(void *state, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (isnan(step_small(state))) return false;
    return true;
}
/* The same steps as one run, which records only the first ones and the last. */
static bool run_small_run(void *state, int64_t n)
{
    const small *s = state;
    return !isnan(svi_run(s->first, n, .args = PPL_VALUES(s->x, s->y)));
}

bool bench_first_step(void)
{
    small *s = open_model(&small_models[0], false);
    bool done = s && run_small(s, 1);
    if (s) close_small(s);
    return done;
}

/* Two instances with room for one plan: every step misses. */
static void *open_missing(const bench_row *row) { return open_model(row->what, true); }
static bool run_missing(void *state, int64_t n)
{
    small *s = state;
    for (int64_t i = 0; i < n; i++)
        if (isnan(svi_step(i % 2 ? s->second : s->first, s->x, s->y))) return false;
    s->nodes = ad_count().nodes;
    return true;
}
/* What a miss costs above a hit: finding no plan, the reverse sweep, the update, the passes, the lowering. */
static double sample_building(void *state)
{
    enum { STEPS = 64 };
    double start = bench_now();
    if (!run_missing(state, STEPS)) return NAN;
    double between = bench_now();
    if (!run_small(state, 1)) return NAN; /* brings its plan back */
    double again = bench_now();
    if (!run_small(state, STEPS)) return NAN;
    return ((between - start) - (bench_now() - again)) / STEPS * 1e6;
}
static void tell_nodes(void *state, FILE *out, double median_us)
{
    const small *s = state;
    fprintf(out, ",\"nodes\":%llu,\"us_per_node\":%.3f", (unsigned long long)s->nodes, median_us / (double)s->nodes);
}

/* ---- models that grow -------------------------------------------------------------------------------------------- */

/* A random walk seen at each of its steps; one that is never as long as the one before is planned anew at every
 * step. */
enum { SHORTEST = 50, LENGTHS = 400, STRIDE = 7, LONGEST = SHORTEST + LENGTHS };
typedef struct walk {
    svi *s;
    int64_t step;
    char z[LONGEST][8], y[LONGEST][8];
} walk;

static void walk_model(walk *w, int n)
{
    ad_tensor *z = ad_constant(0);
    for (int i = 0; i < n; i++) {
        z = ppl_sample(w->z[i], dist_normal(z, 1));
        ppl_sample(w->y[i], dist_normal(z, 0.5), .obs = ad_number(0.1 * (i % 9)));
    }
}
static void walk_guide(walk *w, int n)
{
    distribution *d = free_normal("loc", "scale");
    for (int i = 0; i < n; i++) ppl_sample(w->z[i], d);
}
static void close_walk(void *state)
{
    walk *w = state;
    svi_free(w->s);
    free(w);
}
static void *open_walk(const bench_row *row)
{
    (void)row;
    walk *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    for (int i = 0; i < LONGEST; i++) {
        snprintf(w->z[i], sizeof w->z[i], "z%d", i);
        snprintf(w->y[i], sizeof w->y[i], "y%d", i);
    }
    w->s = svi_new(walk_model, walk_guide, .args = PPL_ARGS(walk *, int), .optim = optim_adam(.lr = 1e-3));
    if (w->s && !isnan(svi_step(w->s, w, LONGEST))) return w;
    close_walk(w);
    return NULL;
}
/* Microseconds per site of the model, over steps of many lengths or of the lengths' mean. */
static double sample_walk(walk *w, bool varying)
{
    enum { STEPS = 40 };
    int64_t sites = 0;
    double start = bench_now();
    for (int i = 0; i < STEPS; i++) {
        int n = varying ? SHORTEST + (int)(w->step++ * STRIDE % LENGTHS) : SHORTEST + LENGTHS / 2;
        if (isnan(svi_step(w->s, w, n))) return NAN;
        sites += 2 * n;
    }
    return (bench_now() - start) / (double)sites * 1e6;
}
static double sample_varying(void *state) { return sample_walk(state, true); }
static double sample_repeating(void *state) { return sample_walk(state, false); }

/* ---- the autoencoder --------------------------------------------------------------------------------------------- */

enum { MOST_BATCHES = 40 };
typedef struct training {
    svi *s;
    vae v;
    ad_tensor *x[MOST_BATCHES];
    int n;
    int64_t next;
} training;

static void close_training(void *state)
{
    training *t = state;
    svi_free(t->s);
    for (int i = 0; i < t->n; i++) ad_free(t->x[i]);
    free(t);
}
static void *open_training(const bench_row *row)
{
    int64_t batch = *(const int64_t *)row->what;
    int n = batch > 4096 ? 1 : batch > 256 ? 3 : MOST_BATCHES;
    const float *digits = bench_digits(n * batch);
    training *t = digits ? calloc(1, sizeof *t) : NULL;
    if (!t) return NULL;
    for (t->n = 0; t->n < n; t->n++) t->x[t->n] = ad_from(digits + t->n * batch * PIXELS, AD_SHAPE(batch, PIXELS));
    t->s = svi_new(vae_model, vae_guide, .args = PPL_ARGS(vae *, ad_tensor *), .optim = optim_adam(.lr = 1e-3));
    if (t->s) return t;
    close_training(t);
    return NULL;
}
static double step_training(void *state)
{
    training *t = state;
    return svi_step(t->s, &t->v, t->x[t->next++ % t->n]);
}
static bool run_training(void *state, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (isnan(step_training(state))) return false;
    return true;
}

/* The step's products: op(a) (m, k) op(b) (k, n); 0 stands for the batch. The two heads of the encoder count as one. */
static const struct product {
    int m, n, k;
    bool transpose_a, transpose_b;
} products[] = {
    { 0, HIDDEN, PIXELS, false, true }, { 0, 2 * LATENT, HIDDEN, false, true },      /* encoder */
    { 0, HIDDEN, LATENT, false, true }, { 0, PIXELS, HIDDEN, false, true },          /* decoder */
    { 0, HIDDEN, PIXELS, false, false }, { 0, LATENT, HIDDEN, false, false },        /* gradients of values */
    { 0, HIDDEN, 2 * LATENT, false, false },
    { PIXELS, HIDDEN, 0, true, false }, { HIDDEN, LATENT, 0, true, false },          /* gradients of weights */
    { 2 * LATENT, HIDDEN, 0, true, false }, { HIDDEN, PIXELS, 0, true, false },
};
enum { PRODUCTS = sizeof products / sizeof *products };

static double flops_of(const struct product *p, int64_t batch)
{
    return 2.0 * (double)(p->m ? p->m : batch) * (double)(p->n) * (double)(p->k ? p->k : batch);
}

/* What rows of products are about: all of them, or one. */
typedef struct which {
    int64_t batch;
    int from, count;
} which;
typedef struct alone {
    which what;
    ad_tensor *a[PRODUCTS], *b[PRODUCTS];
} alone;

static void close_alone(void *state)
{
    alone *s = state;
    for (int i = 0; i < s->what.count; i++) ad_free(s->a[i]), ad_free(s->b[i]);
    free(s);
}
static void *open_alone(const bench_row *row)
{
    alone *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->what = *(const which *)row->what;
    for (int i = 0; i < s->what.count; i++) {
        const struct product *p = &products[s->what.from + i];
        int64_t m = p->m ? p->m : s->what.batch, k = p->k ? p->k : s->what.batch;
        s->a[i] = ad_state(p->transpose_a ? AD_SHAPE(k, m) : AD_SHAPE(m, k));
        s->b[i] = ad_state(p->transpose_b ? AD_SHAPE(p->n, k) : AD_SHAPE(k, p->n));
    }
    return s;
}
static bool run_alone(void *state, int64_t n)
{
    const alone *s = state;
    bool done = true;
    for (int64_t i = 0; i < n && done; i++)
        ad_scope {
            ad_context *c = ad_context_current();
            node_id root[PRODUCTS];
            for (int k = 0; k < s->what.count; k++) {
                const struct product *p = &products[s->what.from + k];
                root[k] = ad__node(c, ad_matmul_t(s->a[k], p->transpose_a, s->b[k], p->transpose_b), "a product");
            }
            done = ad__run(c, &(run_request){ .roots = root, .n_roots = s->what.count, .final = true }, NULL);
        }
    return done;
}

/* ---- all of them ------------------------------------------------------------------------------------------------- */

static void add_training(void)
{
    enum { LARGE = 4 }; /* from here on for GPUs only: a CPU takes seconds for a step */
    static const which steps[] = { { 1, 0, PRODUCTS },    { 16, 0, PRODUCTS },    { 256, 0, PRODUCTS },
                                   { 4096, 0, PRODUCTS }, { 16384, 0, PRODUCTS }, { 65536, 0, PRODUCTS } };
    const char *device = getenv("TAPER_DEVICE");
    size_t n = device && *device && strcmp(device, "cpu") ? sizeof steps / sizeof *steps : LARGE;
    for (size_t i = 0; i < n; i++) {
        bench_row step = { .open = open_training, .close = close_training, .run = run_training,
                           .loss = step_training, .what = &steps[i].batch };
        for (int k = 0; k < PRODUCTS; k++) step.flops += flops_of(&products[k], steps[i].batch);
        bench_row all = { .open = open_alone, .close = close_alone, .run = run_alone, .what = &steps[i] };
        all.flops = step.flops;
        snprintf(step.name, sizeof step.name, "vae_step/%d", (int)steps[i].batch);
        snprintf(all.name, sizeof all.name, "vae_products/%d", (int)steps[i].batch);
        bench_add(&step);
        bench_add(&all);
    }
}

/* Each product at batch 256: op/matmul_256x400x784_nt is (256, 784) times the transpose of (400, 784). */
static void add_products(void)
{
    static which one[PRODUCTS];
    for (int i = 0; i < PRODUCTS; i++) {
        const struct product *p = &products[i];
        one[i] = (which){ 256, i, 1 };
        bench_row row = { .threads = 1, .open = open_alone, .close = close_alone, .run = run_alone, .what = &one[i],
                          .flops = flops_of(p, 256) };
        snprintf(row.name, sizeof row.name, "op/matmul_%dx%dx%d_%c%c", p->m ? p->m : 256, p->n, p->k ? p->k : 256,
                 p->transpose_a ? 't' : 'n', p->transpose_b ? 't' : 'n');
        bench_add(&row);
    }
}

void bench_add_models(void)
{
    add_training();
    add_products();
    for (size_t i = 0; i < sizeof small_models / sizeof *small_models; i++) {
        bench_row row = { .open = open_small, .close = close_small, .what = &small_models[i] };
        for (int run = 0; run < 2; run++) {
            row.run = run ? run_small_run : run_small;
            row.loss = run ? NULL : step_small;
            snprintf(row.name, sizeof row.name, "%s%s", run ? "svi_run/" : "", small_models[i].name);
            bench_add(&row);
        }
    }
    bench_add(&(bench_row){ .name = "plan_miss", .threads = 1, .plans = 1, .open = open_missing, .close = close_small,
                            .run = run_missing, .tell = tell_nodes, .what = &small_models[0] });
    bench_add(&(bench_row){ .name = "plan_build", .threads = 1, .plans = 1, .open = open_missing, .close = close_small,
                            .sample = sample_building, .tell = tell_nodes, .what = &small_models[0] });
    bench_add(
        &(bench_row){ .name = "length/varying", .open = open_walk, .close = close_walk, .sample = sample_varying });
    bench_add(&(bench_row){ .name = "length/repeating", .open = open_walk, .close = close_walk,
                            .sample = sample_repeating });
}
