/* Eight schools (Rubin 1981; Gelman et al. 2013, section 5.5): what coaching adds to a test's score, school by school,
 * beside the exact posterior. Run it without arguments.
 *
 *   mu ~ N(0, 5^2), log tau ~ N(0, 1), theta_i ~ N(mu, tau^2), y_i ~ N(theta_i, sigma_i^2), sigma known.
 *
 * Non-centred: theta = mu + tau eta with eta ~ N(0, 1), so that no funnel lies between theta and tau. Given tau all is
 * normal, so the exact moments are integrals over log tau alone. */
#include "ppl/ppl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SCHOOLS = 8, SITES = SCHOOLS + 2, STEPS = 15000, DRAWS = 20000 };
static const double effect[SCHOOLS] = { 28, 8, -3, 7, -1, 1, 18, 12 };
static const double error[SCHOOLS] = { 15, 10, 16, 11, 9, 11, 10, 18 };
static const double prior_sd = 5;

static void model(ad_tensor *y, ad_tensor *sigma) /* (SCHOOLS) each */
{
    ad_tensor *mu = ppl_sample("mu", dist_normal(0, prior_sd));
    ad_tensor *log_tau = ppl_sample("log_tau", dist_normal(0, 1));
    ppl_plate ("schools", SCHOOLS) {
        ad_tensor *eta = ppl_sample("eta", dist_normal(0, 1));
        ad_tensor *theta = ppl_deterministic("theta", ad_add(mu, ad_mul(ad_exp(log_tau), eta)));
        ppl_sample("y", dist_normal(theta, sigma), .obs = y);
    }
}

static void guide_site(const char *site, const char *loc, const char *scale, ad_shape shape)
{
    ppl_sample(site, dist_normal(ppl_param(loc, shape),
                                 ppl_param(scale, shape, .init = ppl_constant(0.5), .constraint = dist_positive())));
}
static void guide(ad_tensor *y, ad_tensor *sigma)
{
    (void)y, (void)sigma;
    guide_site("mu", "mu_loc", "mu_scale", AD_SCALAR);
    guide_site("log_tau", "log_tau_loc", "log_tau_scale", AD_SCALAR);
    ppl_plate ("schools", SCHOOLS) guide_site("eta", "eta_loc", "eta_scale", AD_SHAPE(SCHOOLS));
}

static double fall(int64_t step, void *user) /* of the step size, to a thousandth */
{
    (void)user;
    return pow(1e-3, (double)step / STEPS);
}

/* ---- the exact posterior ----------------------------------------------------------------------------------------- */

typedef struct moments {
    double weight, sum[SITES], square[SITES]; /* of theta_1, ..., theta_8, mu, log tau */
} moments;

/* Adds the posterior given tau, weighted by its density there: y_i ~ N(mu, sigma_i^2 + tau^2) once theta is gone. */
static void add_given(moments *m, double log_tau)
{
    double tau2 = exp(2 * log_tau), precision = 1 / (prior_sd * prior_sd), pull = 0;
    double density = -0.5 * log_tau * log_tau;
    for (int i = 0; i < SCHOOLS; i++) {
        double v = error[i] * error[i] + tau2;
        precision += 1 / v, pull += effect[i] / v;
        density -= 0.5 * (log(v) + effect[i] * effect[i] / v);
    }
    double mu = pull / precision, w = exp(density - 0.5 * log(precision) + 0.5 * mu * pull);
    double mean[SITES], variance[SITES];
    for (int i = 0; i < SCHOOLS; i++) { /* theta_i = (1 - k) y_i + k mu + noise */
        double v = error[i] * error[i] + tau2, k = error[i] * error[i] / v;
        mean[i] = (1 - k) * effect[i] + k * mu;
        variance[i] = k * tau2 + k * k / precision;
    }
    mean[SCHOOLS] = mu, variance[SCHOOLS] = 1 / precision;
    mean[SCHOOLS + 1] = log_tau, variance[SCHOOLS + 1] = 0;
    m->weight += w;
    for (int i = 0; i < SITES; i++)
        m->sum[i] += w * mean[i], m->square[i] += w * (variance[i] + mean[i] * mean[i]);
}

/* ---- the program ------------------------------------------------------------------------------------------------- */

/* Mean and standard deviation of column i of x (DRAWS, columns). */
static void describe(const double *x, int columns, int i, double *mean, double *sd)
{
    double sum = 0, square = 0;
    for (int k = 0; k < DRAWS; k++) sum += x[k * columns + i], square += x[k * columns + i] * x[k * columns + i];
    *mean = sum / DRAWS;
    *sd = sqrt(square / DRAWS - *mean * *mean);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        bool help = !strcmp(argv[1], "--help");
        fprintf(help ? stdout : stderr,
                "usage: eight_schools, without arguments: "
                "fits the eight schools and prints them beside the exact posterior\n");
        return help ? 0 : 64;
    }
    ad_context *context = ad_context_new(&(ad_options){ .threads = 1 });
    ad_context_use(context);
    ad_tensor *y = ad_from(effect, AD_SHAPE(SCHOOLS)), *sigma = ad_from(error, AD_SHAPE(SCHOOLS));
    svi *s = svi_new(model, guide, .args = PPL_ARGS(ad_tensor *, ad_tensor *),
                     .optim = optim_adam(.lr = 0.03, .schedule = fall));
    double loss = 0;
    for (int step = 0; step < STEPS && !isnan(loss); step++) loss = svi_step(s, y, sigma);

    static double theta[DRAWS * SCHOOLS], mu[DRAWS], log_tau[DRAWS];
    ppl_predictive *p = ppl_predictive_new(model, guide, .args = PPL_ARGS(ad_tensor *, ad_tensor *), .samples = DRAWS,
                                           .vectorize = true);
    if (isnan(loss) || !ppl_predict(p, y, sigma) || !ppl_predictive_read(p, "theta", theta, DRAWS * SCHOOLS) ||
        !ppl_predictive_read(p, "mu", mu, DRAWS) || !ppl_predictive_read(p, "log_tau", log_tau, DRAWS)) {
        fprintf(stderr, "eight_schools: %s\n", s && *svi_error(s) ? svi_error(s) : ad_error());
        return 1;
    }
    moments exact = { .weight = 0 };
    for (int i = -800; i <= 800; i++) add_given(&exact, 0.01 * i);

    static const char *const names[SITES] = { "A", "B", "C", "D", "E", "F", "G", "H", "mu", "log tau" };
    printf("             fit: mean     sd   exact: mean     sd\n");
    for (int i = 0; i < SITES; i++) {
        double mean, sd, truth = exact.sum[i] / exact.weight;
        describe(i < SCHOOLS    ? theta
                 : i == SCHOOLS ? mu
                                : log_tau,
                 i < SCHOOLS ? SCHOOLS : 1, i < SCHOOLS ? i : 0, &mean, &sd);
        printf("  %-10s %9.3f %6.3f %13.3f %6.3f\n", names[i], mean, sd, truth,
               sqrt(exact.square[i] / exact.weight - truth * truth));
    }
    ppl_predictive_free(p);
    svi_free(s);
    ad_context_free(context);
    return 0;
}
