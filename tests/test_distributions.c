/* The registry of distributions: every class against reference values, finite differences, quadrature, its own sampler,
 * bad parameters and values outside its support. A new row of registry.def needs cases in golden/distributions.py, and
 * is tested here without another line. */
#include "tests/fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "autodiff/tape.h"
#include "distributions/class.h"

typedef struct golden {
    const char *name;
    int n, size[DIST_MAX_PARAMETERS];
    double parameter[DIST_MAX_PARAMETERS][8], value, log_prob, mean, variance, entropy;
} golden;

static const golden cases[] = {
#define CASE(...) { __VA_ARGS__ },
#include "tests/golden/distributions.inc"
#undef CASE
};
enum { CASES = sizeof cases / sizeof *cases };

static void close_to(double got, double want, double tolerance, const golden *g, const char *what)
{
    if (isinf(want) && got == want) return;
    double scale = fabs(want) > 1 ? fabs(want) : 1;
    ck_assert_msg(fabs(got - want) <= tolerance * scale, "%s (%g, %g) at %g: %s is %.17g, should be %.17g", g->name,
                  g->parameter[0][0], g->parameter[1][0], g->value, what, got, want);
}

/* ---- objects from cases ------------------------------------------------------------------------------------------ */

/* Persistent tensors of the parameters, so that nothing is known while recording. */
typedef struct made {
    distribution *d;
    ad_tensor *parameter[DIST_MAX_PARAMETERS];
} made;

static made make(const dist_class *of, const golden *g)
{
    made m;
    ck_assert_int_eq(of->n_parameters, g->n);
    for (int i = 0; i < g->n; i++)
        m.parameter[i] = ad_from(g->parameter[i], g->size[i] ? AD_SHAPE(g->size[i]) : AD_SCALAR);
    m.d = dist_new(of, m.parameter, 0);
    fine();
    return m;
}
static void done(const made *m, const golden *g)
{
    for (int i = 0; i < g->n; i++) ad_free(m->parameter[i]);
}

static double log_prob_at(const dist_class *of, const golden *g, double x)
{
    double lp = NAN;
    ad_scope {
        made m = make(of, g);
        lp = ad_item(dist_log_prob(m.d, ad_number(x)));
        fine();
        done(&m, g);
    }
    return lp;
}

/* Calls f for every case of the i-th class; a class without cases fails. Deltas have no density: test_dist.c has
 * them. */
static void each_case(int i, void (*f)(const dist_class *of, const golden *g))
{
    const dist_class *of = dist_class_at(i);
    int n = 0;
    for (int k = 0; k < CASES; k++)
        if (!strcmp(cases[k].name, of->name)) {
            f(of, &cases[k]);
            n++;
        }
    ck_assert_msg(n >= 4 || !strcmp(of->name, "delta"), "%s has %d cases", of->name, n);
}
static bool first_value(const golden *g) /* once for each set of parameters */
{
    return g == cases || strcmp(g[-1].name, g->name) || memcmp(g[-1].parameter, g->parameter, sizeof g->parameter);
}

/* ---- reference values -------------------------------------------------------------------------------------------- */

static double reference_tolerance;
static void reference(const dist_class *of, const golden *g)
{
    close_to(log_prob_at(of, g, g->value), g->log_prob, reference_tolerance, g, "log_prob");
    if (!first_value(g)) return;
    ad_scope {
        made m = make(of, g);
        ad_tensor *mean = dist_mean(m.d), *variance = isnan(g->mean) ? NULL : dist_variance(m.d);
        if (isnan(g->mean)) {
            ck_assert_ptr_nonnull(strstr(ad_error(), "has no mean"));
        } else {
            double tolerance = reference_tolerance * 10;
            close_to(ad_item(mean), g->mean, tolerance, g, "mean");
            close_to(ad_item(variance), g->variance, tolerance, g, "variance");
            close_to(ad_item(dist_entropy(m.d)), g->entropy, tolerance, g, "entropy");
            fine();
        }
        done(&m, g);
    }
}
START_TEST(reference_values)
{
    reference_tolerance = 4e-15;
    each_case(_i, reference);
    end();
    begin_as(AD_FLOAT);
    reference_tolerance = 4e-6;
    each_case(_i, reference);
}
END_TEST

/* ---- gradients --------------------------------------------------------------------------------------------------- */

static void gradients(const dist_class *of, const golden *g)
{
    double got[DIST_MAX_PARAMETERS][8] = { { 0 } }, of_value = 0, h = 1e-5;
    /* on the border of the support there is no derivative by the value */
    bool by_value = !of->discrete && isfinite(log_prob_at(of, g, g->value - h)) && g->value != g->parameter[0][0];
    ad_scope {
        made m = make(of, g);
        ad_tensor *x = ad_number(g->value), *wrt[DIST_MAX_PARAMETERS + 1], *grad[DIST_MAX_PARAMETERS + 1];
        memcpy(wrt, m.parameter, sizeof m.parameter);
        wrt[g->n] = x;
        ad_gradient(dist_log_prob(m.d, x), wrt, g->n + 1, grad);
        for (int i = 0; i < g->n; i++) ck_assert(ad_read(grad[i], got[i], g->size[i] ? g->size[i] : 1));
        of_value = ad_item(grad[g->n]);
        fine();
        done(&m, g);
    }
    for (int i = 0; i < g->n; i++)
        for (int j = 0; j < (g->size[i] ? g->size[i] : 1); j++) {
            golden up = *g, down = *g;
            double step = h * fmax(fabs(g->parameter[i][j]), 0.1);
            up.parameter[i][j] += step;
            down.parameter[i][j] -= step;
            double slope = (log_prob_at(of, &up, g->value) - log_prob_at(of, &down, g->value)) /
                           (up.parameter[i][j] - down.parameter[i][j]);
            if (g->parameter[i][j] == g->value && !strcmp(of->name, "laplace")) continue; /* its kink */
            close_to(got[i][j], slope, 1e-7, g, of->parameter[i].name);
        }
    if (by_value) {
        double step = h * fmax(fabs(g->value), 0.1), up = g->value + step, down = g->value - step;
        close_to(of_value, (log_prob_at(of, g, up) - log_prob_at(of, g, down)) / (up - down), 1e-7, g, "d/dx");
    }
}
START_TEST(gradients_of_log_prob) { each_case(_i, gradients); }
END_TEST

/* ---- normalisation, moments, entropy and sampler by one table of the distribution -------------------------------- */

/* Points x with weights w such that sum_i w_i f(x_i) is the integral (or sum) of f over the support: all integers of a
 * discrete one that matter; else the trapezoidal rule in the unconstrained u, u = sinh(v) where that is x itself. */
enum { MOST_POINTS = 40001 };
static double points[MOST_POINTS], weights[MOST_POINTS], density[MOST_POINTS], log_density[MOST_POINTS];
static int n_points;

static void tabulate(const dist_class *of, const golden *g)
{
    made m = make(of, g);
    dist_constraint support = dist_support(m.d);
    if (of->discrete) {
        n_points = support.kind == DIST_BOOLEAN            ? 2
                   : support.kind == DIST_INTEGER_INTERVAL ? (int)support.upper + 1
                                                           : 1000;
        for (int i = 0; i < n_points; i++) {
            points[i] = i;
            weights[i] = 1;
        }
    } else {
        n_points = MOST_POINTS;
        double reach = support.kind == DIST_REAL ? 27 : 40, h = 2 * reach / (n_points - 1);
        for (int i = 0; i < n_points; i++) {
            double v = -reach + h * i;
            points[i] = support.kind == DIST_REAL ? sinh(v) : v;
            weights[i] = h * (support.kind == DIST_REAL ? cosh(v) : 1);
        }
        ad_tensor *u = ad_from(points, AD_SHAPE(n_points)), *x = dist_constrain(&support, DIST_BIJECT_TO, u);
        ck_assert(ad_read(ad_exp(dist_log_det(&support, u)), density, n_points));
        ck_assert(ad_read(x, points, n_points));
        for (int i = 0; i < n_points; i++) weights[i] *= density[i];
        ad_free(u);
    }
    ad_tensor *x = ad_from(points, AD_SHAPE(n_points));
    ck_assert(ad_read(dist_log_prob(m.d, x), log_density, n_points));
    for (int i = 0; i < n_points; i++) density[i] = exp(log_density[i]);
    ad_free(x);
    done(&m, g);
}

static double integral(int power, bool of_log)
{
    double sum = 0;
    for (int i = 0; i < n_points; i++)
        if (density[i] > 0) sum += weights[i] * density[i] * (of_log ? -log_density[i] : pow(points[i], power));
    return sum;
}

static void quadrature(const dist_class *of, const golden *g)
{
    if (!first_value(g)) return;
    ad_scope tabulate(of, g);
    close_to(integral(0, false), 1, 5e-6 /* kinks cost digits */, g, "total mass");
    close_to(integral(0, true), g->entropy, 1e-5, g, "entropy by quadrature");
    if (isnan(g->mean)) return;
    close_to(integral(1, false), g->mean, 1e-5, g, "mean by quadrature");
    close_to(integral(2, false), g->variance + g->mean * g->mean, 1e-5, g, "second moment by quadrature");
}
START_TEST(quadrature_agrees) { each_case(_i, quadrature); }
END_TEST

/* P(X <= x), x inside the table: masses of whole cells and a part of the last. */
static double below(double x, const double *cumulative)
{
    int low = 0, high = n_points - 1;
    if (x <= points[0]) return cumulative[0];
    if (x >= points[high]) return 1;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (points[middle] <= x) low = middle;
        else high = middle;
    }
    double part = (x - points[low]) / (points[high] - points[low]);
    return cumulative[low] + part * (cumulative[high] - cumulative[low]);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

enum { DRAWS = 100000 };
static double draws[DRAWS];

static void draw(const dist_class *of, const golden *g)
{
    ad_seed(20130);
    ad_scope {
        made m = make(of, g);
        ck_assert(ad_read(dist_sample(dist_expand(m.d, AD_SHAPE(DRAWS)), 0), draws, DRAWS));
        fine();
        done(&m, g);
    }
}

/* Chi-squared over the values expected at least five times, the others together. */
static void fits_masses(const golden *g)
{
    double chi = 0, rest = 0, seen_rest = 0;
    int degrees = -1;
    for (int k = 0; k < DRAWS; k++) ck_assert_msg(draws[k] == floor(draws[k]) && draws[k] >= 0, "%g", draws[k]);
    for (int i = 0; i <= n_points; i++) {
        double expected = rest, seen = seen_rest;
        if (i < n_points) {
            expected = DRAWS * density[i];
            seen = 0;
            for (int k = 0; k < DRAWS; k++) seen += draws[k] == points[i];
            if (expected < 5) {
                rest += expected;
                seen_rest += seen;
                continue;
            }
        }
        if (expected < 1e-3) continue;
        chi += (seen - expected) * (seen - expected) / expected;
        degrees++;
    }
    if (degrees > 0)
        ck_assert_msg((chi - degrees) / sqrt(2 * degrees) < 4, "%s: chi2 %g of %d", g->name, chi, degrees);
}

/* Kolmogorov and Smirnov: P(sqrt(n) D > 1.95) is 1e-3. */
static void fits_density(const golden *g)
{
    static double cumulative[MOST_POINTS];
    double sum = 0, distance = 0;
    for (int i = 0; i < n_points; i++) {
        cumulative[i] = sum + 0.5 * weights[i] * density[i];
        sum += weights[i] * density[i];
    }
    qsort(draws, DRAWS, sizeof *draws, ascending);
    for (int k = 0; k < DRAWS; k++) {
        double f = below(draws[k], cumulative);
        distance = fmax(distance, fmax(fabs(f - (double)k / DRAWS), fabs(f - (double)(k + 1) / DRAWS)));
    }
    ck_assert_msg(isfinite(draws[0]) && isfinite(draws[DRAWS - 1]), "%s draws from %g to %g", g->name, draws[0],
                  draws[DRAWS - 1]);
    ck_assert_msg(distance * sqrt(DRAWS) < 1.95, "%s (%g, %g): sqrt(n) D = %g", g->name, g->parameter[0][0],
                  g->parameter[1][0], distance * sqrt(DRAWS));
}

static void sampler(const dist_class *of, const golden *g)
{
    if (!first_value(g)) return;
    ad_scope tabulate(of, g);
    for (int wide = 0; wide < 2; wide++) {
        end();
        begin_as(wide ? AD_DOUBLE : AD_FLOAT);
        draw(of, g);
        (of->discrete ? fits_masses : fits_density)(g);
    }
}
START_TEST(sampler_fits) { each_case(_i, sampler); }
END_TEST

/* ---- the pathwise derivative ------------------------------------------------------------------------------------- */

enum { PATHS = 200 };

/* The same draws whenever they are asked for: the tape of one and the same run. */
static void draw_paths(const dist_class *of, const golden *g, bool rsample, double *x, double *gradient)
{
    ad__tape_open(ad_context_current(), 2, 1);
    made m = make(of, g);
    distribution *d = dist_expand(dist_set_rsample(m.d, rsample), AD_SHAPE(PATHS));
    ck_assert_int_eq(dist_has_rsample(d), rsample);
    ad_tensor *draws_now = dist_sample(d, 0), *grad[DIST_MAX_PARAMETERS];
    ck_assert(ad_read(draws_now, x, PATHS));
    ad_gradient(ad_sum(draws_now), m.parameter, g->n, grad);
    for (int i = 0; i < g->n; i++) gradient[i] = ad_item(grad[i]);
    fine();
    done(&m, g);
    ad__tape_close(ad_context_current());
}

static void pathwise(const dist_class *of, const golden *g)
{
    if (!of->has_rsample || !first_value(g)) return;
    static double x[PATHS], up[PATHS], down[PATHS];
    double got[DIST_MAX_PARAMETERS], stopped[DIST_MAX_PARAMETERS], unused[DIST_MAX_PARAMETERS];
    draw_paths(of, g, true, x, got);
    draw_paths(of, g, false, up, stopped);
    ck_assert_mem_eq(x, up, sizeof x);
    for (int i = 0; i < g->n; i++) {
        golden changed = *g;
        double h = 1e-6 * fmax(fabs(g->parameter[i][0]), 0.1), slope = 0, size = 0;
        changed.parameter[i][0] = g->parameter[i][0] + h;
        draw_paths(of, &changed, true, up, unused);
        changed.parameter[i][0] = g->parameter[i][0] - h;
        draw_paths(of, &changed, true, down, unused);
        for (int k = 0; k < PATHS; k++) {
            slope += (up[k] - down[k]) / (2 * h);
            size += fabs(up[k] - down[k]) / (2 * h);
        }
        ck_assert_msg(fabs(got[i] - slope) <= 1e-7 * fmax(size, 1), "%s: d draws / d %s is %.12g, should be %.12g",
                      g->name, of->parameter[i].name, got[i], slope);
        ck_assert_double_eq(stopped[i], 0);
    }
}
START_TEST(pathwise_derivative) { each_case(_i, pathwise); }
END_TEST

/* ---- bad parameters, values outside ------------------------------------------------------------------------------ */

/* A number outside the constraint, if there is one. */
static bool outside(const dist_constraint *c, double *x)
{
    switch (c->kind) {
    case DIST_POSITIVE: *x = 0; return true;
    case DIST_NONNEGATIVE:
    case DIST_UNIT_INTERVAL:
    case DIST_NONNEGATIVE_INTEGER:
    case DIST_INTEGER_INTERVAL: *x = -1; return true;
    default: return false;
    }
}

static void bad(const dist_class *of, const golden *g)
{
    for (int i = 0; i < g->n; i++) {
        golden wrong = *g;
        if (!outside(&of->parameter[i].constraint, &wrong.parameter[i][0])) continue;
        ad_scope { /* a tensor: found by the check, once values are there */
            made m = make(of, &wrong), good = make(of, g);
            ck_assert_double_eq(ad_item(dist_check(m.d, NULL)), 0);
            ck_assert_double_eq(ad_item(dist_check(good.d, ad_number(of->discrete ? 1 : g->value))), 1);
        }
        if (of->parameter[i].event_dim) continue;
        ad_scope { /* a number: found at once */
            ad_tensor *p[DIST_MAX_PARAMETERS];
            for (int k = 0; k < g->n; k++) p[k] = ad_number(wrong.parameter[k][0]);
            distribution *d = dist_new(of, p, 0);
            char words[128], set[64];
            snprintf(words, sizeof words, "%s: %s must be %s, found %g", of->name, of->parameter[i].name,
                     dist_constraint_describe(&of->parameter[i].constraint, set, sizeof set), wrong.parameter[i][0]);
            ck_assert_msg(strstr(ad_error(), words) != NULL, "'%s' is not in '%s'", words, ad_error());
            ck_assert_int_eq(ad_error_code(), AD_ERROR_SUPPORT);
            ck_assert(dist_is_nil(d) && isnan(ad_item(dist_log_prob(d, p[0]))) && dist_event_dim(d) == 0);
        }
    }
    dist_constraint support = { 0 };
    ad_scope {
        made m = make(of, g);
        support = dist_support(m.d);
        double x = support.kind == DIST_INTERVAL ? g->parameter[1][0] + 1 : support.kind == DIST_POSITIVE ? -1 : NAN;
        if (of->accepted.kind == DIST_REAL && (!isnan(x) || outside(&support, &x))) {
            ad_tensor *lp = dist_log_prob(m.d, ad_number(x)), *grad[DIST_MAX_PARAMETERS];
            ad_gradient(lp, m.parameter, g->n, grad);
            ck_assert_msg(ad_item(lp) == -INFINITY, "%s at %g: %g", g->name, x, ad_item(lp));
            ck_assert_double_eq(ad_item(ad_sum(grad[0])), 0);
            ck_assert_double_eq(ad_item(dist_check(m.d, ad_number(x))), 0);
        }
        fine();
        done(&m, g);
    }
}
START_TEST(bad_parameters_and_values) { each_case(_i, bad); }
END_TEST

Suite *suite_distributions(void)
{
    int n = 0;
    while (dist_class_at(n)) n++;
    Suite *suite = suite_create("distributions");
    TCase *t = tcase_create("registry");
    tcase_add_checked_fixture(t, begin, end);
    tcase_add_loop_test(t, reference_values, 0, n);
    tcase_add_loop_test(t, gradients_of_log_prob, 0, n);
    tcase_add_loop_test(t, quadrature_agrees, 0, n);
    tcase_add_loop_test(t, sampler_fits, 0, n);
    tcase_add_loop_test(t, pathwise_derivative, 0, n);
    tcase_add_loop_test(t, bad_parameters_and_values, 0, n);
    suite_add_tcase(suite, t);
    return suite;
}
