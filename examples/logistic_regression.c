/* Bayesian logistic regression on data drawn from the model itself, so that the truth is known; beside it the
 * posterior's mode, found by Newton's method on the same model. Run it without arguments.
 *
 *   w ~ N(0, I), y_i ~ Bernoulli(sigmoid(x_i . w)), the last column of x all ones
 *
 * Near its mode the posterior is normal, with the precision H of its second derivatives there (Laplace). The guide is a
 * product of normals; the best such product has standard deviations 1 / sqrt(H_ii). */
#include "ppl/ppl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { N = 1000, K = 4, STEPS = 6000 };
static const double truth[K] = { 1, -0.7, 0.4, -0.5 };

static void model(ad_tensor *x, ad_tensor *y) /* x (N, K), y (N) or NULL */
{
    ad_tensor *w = ppl_sample("w", dist_to_event(dist_normal(ad_zeros(K), 1), 1));
    ppl_plate ("rows", N) ppl_sample("y", dist_bernoulli_logits(ad_matmul(x, w)), .obs = y);
}

static void guide(ad_tensor *x, ad_tensor *y)
{
    (void)x, (void)y;
    ad_tensor *loc = ppl_param("loc", AD_SHAPE(K));
    ad_tensor *scale = ppl_param("scale", AD_SHAPE(K), .init = ppl_constant(0.1), .constraint = dist_positive());
    ppl_sample("w", dist_to_event(dist_normal(loc, scale), 1));
}

static double fall(int64_t step, void *user) /* of the step size, to a thousandth */
{
    (void)user;
    return pow(1e-3, (double)step / STEPS);
}

/* Draws x, and y from the model where w is the truth. */
static bool draw_data(double x[N][K], double y[N])
{
    bool drawn = false;
    ad_tensor *w = ad_from(truth, AD_SHAPE(K)), *draws;
    ppl_trace *t;
    ad_scope {
        ad_tensor *columns[] = { ad_random_normal(AD_SHAPE(N, K - 1), 0), ad_ones(N, 1) };
        draws = ad_concat(columns, 2, 1);
        ppl_with (ppl_condition({ "w", w }))
            t = ppl_trace_run(model, PPL_ARGS(ad_tensor *, ad_tensor *), draws, (ad_tensor *)NULL);
        drawn = ad_read(draws, &x[0][0], N * K) && ad_read(ppl_trace_value(t, "y"), y, N);
    }
    ad_free(w);
    return drawn;
}

/* b <- a^-1 b for a symmetric and definite, by elimination; a is lost. */
static void solve(double a[K][K], double b[K])
{
    for (int i = 0; i < K; i++)
        for (int r = i + 1; r < K; r++) {
            double factor = a[r][i] / a[i][i];
            for (int j = i; j < K; j++) a[r][j] -= factor * a[i][j];
            b[r] -= factor * b[i];
        }
    for (int i = K - 1; i >= 0; i--) {
        for (int j = i + 1; j < K; j++) b[i] -= a[i][j] * b[j];
        b[i] /= a[i][i];
    }
}

/* The mode of the posterior density, and the spread of each weight there when the others are held. */
static bool newton(ad_tensor *x, ad_tensor *y, double mode[K], double sd[K])
{
    ppl_density *d = ppl_density_new(model, PPL_ARGS(ad_tensor *, ad_tensor *), x, y);
    double h[K][K], move[K];
    bool good = d != NULL;
    for (int i = 0; i < K; i++) mode[i] = 0;
    for (int round = 0; round < 10 && good; round++) {
        good = isfinite(ppl_density_value(d, mode, move)) && ppl_density_hessian(d, mode, &h[0][0]);
        for (int i = 0; i < K && good; i++) sd[i] = 1 / sqrt(-h[i][i]);
        if (good) solve(h, move);
        for (int i = 0; i < K && good; i++) mode[i] -= move[i];
    }
    ppl_density_free(d);
    return good;
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        bool help = !strcmp(argv[1], "--help");
        fprintf(help ? stdout : stderr,
                "usage: logistic_regression, without arguments: "
                "fits a logistic regression and prints it beside the truth and the posterior's mode\n");
        return help ? 0 : 64;
    }
    ad_context *context = ad_context_new(&(ad_options){ .precision = AD_DOUBLE });
    ad_context_use(context);
    static double rows[N][K], labels[N];
    double mode[K], sd[K], loc[K], scale[K], loss = 0;
    bool good = draw_data(rows, labels);
    ad_tensor *x = ad_from(&rows[0][0], AD_SHAPE(N, K)), *y = ad_from(labels, AD_SHAPE(N));
    svi *s = svi_new(model, guide, .args = PPL_ARGS(ad_tensor *, ad_tensor *),
                     .optim = optim_adam(.lr = 0.05, .schedule = fall));
    for (int step = 0; step < STEPS && good; step++) good = isfinite(loss = svi_step(s, x, y));
    if (!good || !newton(x, y, mode, sd) || !ppl_param_value("loc", loc, K) || !ppl_param_value("scale", scale, K)) {
        fprintf(stderr, "logistic_regression: %s\n", s && *svi_error(s) ? svi_error(s) : ad_error());
        return 1;
    }
    printf("           truth   fit: loc   scale   exact: mode  sd, others held\n");
    for (int i = 0; i < K; i++)
        printf("  w[%d] %10.3f %10.4f %7.4f %13.4f %9.4f\n", i, truth[i], loc[i], scale[i], mode[i], sd[i]);
    svi_free(s);
    ad_context_free(context);
    return 0;
}
