/* A model's log density with its gradient, as samplers ask for it: one evaluation is one unit. Called by bench.c. */
#include "ppl/ppl.h"
#include "tests/bench/bench.h"

#include <math.h>
#include <stdlib.h>

enum { SCHOOLS = 8, LATENT = SCHOOLS + 2 };

/* Eight schools (Rubin 1981), not centred: effect (SCHOOLS), error (SCHOOLS). */
static void schools_model(ad_tensor *effect, ad_tensor *error)
{
    ad_tensor *mu = ppl_sample("mu", dist_normal(0, 5));
    ad_tensor *tau = ppl_sample("tau", dist_half_cauchy(5));
    ppl_plate ("schools", SCHOOLS) {
        ad_tensor *raw = ppl_sample("raw", dist_normal(0, 1));
        ppl_sample("effect", dist_normal(ad_add(mu, ad_mul(tau, raw)), error), .obs = effect);
    }
}

typedef struct evaluated {
    ppl_density *density;
    ad_tensor *effect, *error;
    double u[LATENT];
} evaluated;

static void close_density(void *state)
{
    evaluated *e = state;
    ppl_density_free(e->density);
    ad_free(e->effect);
    ad_free(e->error);
    free(e);
}
static void *open_density(const bench_row *row)
{
    static const float effect[SCHOOLS] = { 28, 8, -3, 7, -1, 1, 18, 12 },
                       error[SCHOOLS] = { 15, 10, 16, 11, 9, 11, 10, 18 };
    (void)row;
    evaluated *e = calloc(1, sizeof *e);
    if (!e) return NULL;
    e->effect = ad_from(effect, AD_SHAPE(SCHOOLS));
    e->error = ad_from(error, AD_SHAPE(SCHOOLS));
    e->density = ppl_density_new(schools_model, PPL_ARGS(ad_tensor *, ad_tensor *), e->effect, e->error);
    if (e->density && ppl_density_size(e->density) == LATENT) return e;
    close_density(e);
    return NULL;
}
/* Another point for each evaluation, as along a leapfrog's path. */
static bool run_density(void *state, int64_t n)
{
    evaluated *e = state;
    double gradient[LATENT];
    for (int64_t i = 0; i < n; i++) {
        for (int k = 0; k < LATENT; k++) e->u[k] = 0.9 * e->u[k] + 0.01 * (double)((i + 3 * k) % 7);
        if (!isfinite(ppl_density_value(e->density, e->u, gradient))) return false;
    }
    return true;
}

void bench_add_densities(void)
{
    bench_add(&(bench_row){
        .name = "density/schools", .threads = 1, .open = open_density, .close = close_density, .run = run_density });
}
