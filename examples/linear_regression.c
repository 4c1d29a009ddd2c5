/* Bayesian linear regression, 170 rows by 3 columns, beside its exact posterior. Run it without arguments.
 *
 *   w ~ N(0, I), b ~ N(0, 10^2), y ~ N(X w + b, sigma^2), sigma known.
 *
 * With the columns of A = [X 1] the exact posterior of (w, b) is normal with precision P = A'A / sigma^2 + diag(1, 1,
 * 1, 1/100) and mean P^-1 A'y / sigma^2. The guide is a product of normals: its optimum has the exact mean, and
 * standard deviations 1 / sqrt(P_ii), the posterior's when the other coefficients are held (Bishop 2006, section
 * 10.1.2). */
#include "ppl/ppl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { ROWS = 170, COLUMNS = 3, K = COLUMNS + 1, STEPS = 8000 };
static const double sigma = 0.4, prior_sd[K] = { 1, 1, 1, 10 };

static void model(ad_tensor *x, ad_tensor *y) /* x (ROWS, COLUMNS), y (ROWS) */
{
    ad_tensor *w = ppl_sample("w", dist_to_event(dist_normal(ad_zeros(COLUMNS), 1), 1));
    ad_tensor *b = ppl_sample("b", dist_normal(0, prior_sd[COLUMNS]));
    ppl_plate ("rows", ad_dim(x, 0)) ppl_sample("y", dist_normal(ad_add(ad_matmul(x, w), b), sigma), .obs = y);
}

static void guide(ad_tensor *x, ad_tensor *y)
{
    (void)x, (void)y;
    ad_tensor *w_loc = ppl_param("w_loc", AD_SHAPE(COLUMNS)), *b_loc = ppl_param("b_loc", AD_SCALAR);
    ad_tensor *w_scale =
        ppl_param("w_scale", AD_SHAPE(COLUMNS), .init = ppl_constant(0.1), .constraint = dist_positive());
    ad_tensor *b_scale = ppl_param("b_scale", AD_SCALAR, .init = ppl_constant(0.1), .constraint = dist_positive());
    ppl_sample("w", dist_to_event(dist_normal(w_loc, w_scale), 1));
    ppl_sample("b", dist_normal(b_loc, b_scale));
}

/* The step size falls to a thousandth, so that the noise of the gradients averages out. */
static double fall(int64_t step, void *user)
{
    (void)user;
    return pow(1e-3, (double)step / STEPS);
}

/* ---- data, the same on every machine ----------------------------------------------------------------------------- */

static double uniform(uint64_t *state) /* splitmix64 -> (0, 1) */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return ((double)((z ^ (z >> 31)) >> 11) + 0.5) * 0x1p-53;
}
static double normal(uint64_t *state)
{
    double r = sqrt(-2 * log(uniform(state)));
    return r * cos(6.283185307179586 * uniform(state));
}
static void make_data(double x[ROWS][COLUMNS], double y[ROWS])
{
    static const double w[K] = { 1, -2, 0.5, 0.3 };
    uint64_t state = 1;
    for (int i = 0; i < ROWS; i++) {
        y[i] = w[COLUMNS] + sigma * normal(&state);
        for (int j = 0; j < COLUMNS; j++) y[i] += w[j] * (x[i][j] = normal(&state));
    }
}

/* ---- the exact posterior ----------------------------------------------------------------------------------------- */

/* Gauss-Jordan: p (K, K), symmetric and positive definite, becomes its inverse. */
static void invert(double p[K][K])
{
    for (int i = 0; i < K; i++) {
        double pivot = p[i][i];
        p[i][i] = 1;
        for (int j = 0; j < K; j++) p[i][j] /= pivot;
        for (int r = 0; r < K; r++) {
            if (r == i) continue;
            double factor = p[r][i];
            p[r][i] = 0;
            for (int j = 0; j < K; j++) p[r][j] -= factor * p[i][j];
        }
    }
}

static void exact(double x[ROWS][COLUMNS], const double y[ROWS], double mean[K], double sd[K], double conditional_sd[K])
{
    double p[K][K] = { { 0 } }, right[K] = { 0 };
    for (int i = 0; i < K; i++) p[i][i] = 1 / (prior_sd[i] * prior_sd[i]);
    for (int row = 0; row < ROWS; row++)
        for (int i = 0; i < K; i++) {
            double a = i < COLUMNS ? x[row][i] : 1;
            right[i] += a * y[row] / (sigma * sigma);
            for (int j = 0; j < K; j++) p[i][j] += a * (j < COLUMNS ? x[row][j] : 1) / (sigma * sigma);
        }
    for (int i = 0; i < K; i++) conditional_sd[i] = 1 / sqrt(p[i][i]);
    invert(p);
    for (int i = 0; i < K; i++) {
        mean[i] = 0;
        sd[i] = sqrt(p[i][i]);
        for (int j = 0; j < K; j++) mean[i] += p[i][j] * right[j];
    }
}

/* ---- the program ------------------------------------------------------------------------------------------------- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        bool help = !strcmp(argv[1], "--help");
        fprintf(help ? stdout : stderr,
                "usage: linear_regression, without arguments: "
                "fits a linear regression and prints it beside the exact posterior\n");
        return help ? 0 : 64;
    }
    static double x[ROWS][COLUMNS], y[ROWS];
    double mean[K], sd[K], conditional_sd[K], loc[K], scale[K];
    make_data(x, y);
    exact(x, y, mean, sd, conditional_sd);

    /* A small model: one thread, and doubles. */
    ad_context *context = ad_context_new(&(ad_options){ .precision = AD_DOUBLE, .threads = 1 });
    ad_context_use(context);
    ad_tensor *tx = ad_from(&x[0][0], AD_SHAPE(ROWS, COLUMNS)), *ty = ad_from(y, AD_SHAPE(ROWS));
    svi *s = svi_new(model, guide, .args = PPL_ARGS(ad_tensor *, ad_tensor *),
                     .optim = optim_adam(.lr = 0.05, .schedule = fall));
    double loss = 0, start = now();
    for (int i = 0; i < STEPS && !isnan(loss); i++) loss = svi_step(s, tx, ty);
    double seconds = now() - start;
    if (isnan(loss) || !ppl_param_value("w_loc", loc, COLUMNS) || !ppl_param_value("b_loc", loc + COLUMNS, 1) ||
        !ppl_param_value("w_scale", scale, COLUMNS) || !ppl_param_value("b_scale", scale + COLUMNS, 1)) {
        fprintf(stderr, "linear_regression: %s\n", s && *svi_error(s) ? svi_error(s) : ad_error());
        return 1;
    }

    static const char *const names[K] = { "w[0]", "w[1]", "w[2]", "b" };
    printf("          fit: loc    scale   exact: mean  sd, others held  marginal sd\n");
    for (int i = 0; i < K; i++)
        printf("  %-5s %10.5f %8.5f %12.5f %11.5f %14.5f\n", names[i], loc[i], scale[i], mean[i], conditional_sd[i],
               sd[i]);
    printf("%d steps, %.1f us each\n", STEPS, seconds / STEPS * 1e6);
    svi_free(s);
    ad_context_free(context);
    return 0;
}
