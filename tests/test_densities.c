/* Log densities far out and at borders, with first and second derivatives, in both precisions, against
 * golden/densities.inc. A value may be off by what rounding its inputs does to it: 1e-6 of that in float, 1e-14 in
 * double. */
#include "tests/fixture.h"

#include <float.h>
#include <math.h>
#include <stdio.h>

#include "distributions/class.h"

enum { MOST = DIST_MAX_PARAMETERS + 1 };

typedef struct far {
    const char *name;
    int bits, n, size[DIST_MAX_PARAMETERS];
    double parameter[DIST_MAX_PARAMETERS][3], value, log_prob, bound;
    double slope[MOST], slope_bound[MOST], bend[MOST], bend_bound[MOST];
} far;

static const far rows[] = {
#define FAR(...) { __VA_ARGS__ },
#include "tests/golden/densities.inc"
#undef FAR
};
enum { ROWS = sizeof rows / sizeof *rows };

static const dist_class *class_of(const char *name)
{
    const dist_class *of;
    for (int i = 0; (of = dist_class_at(i)) && strcmp(of->name, name); i++)
        ;
    ck_assert_msg(of != NULL, "%s", name);
    return of;
}

static int failures; /* all of a class are told */
static void close_to(double got, double want, double bound, const far *r, const char *what)
{
    bool wide = r->bits == 64;
    double least = wide ? DBL_MIN : FLT_MIN, most = wide ? DBL_MAX : FLT_MAX, tolerance = wide ? 1e-14 : 1e-6;
    if (isnan(want) || got == want || fabs(got - want) <= tolerance * bound + least)
        return;
    if (fabs(want) > most / 4 && isinf(got) && (got > 0) == (want > 0))
        return;
    failures++;
    printf("%s%d(%g, %g) at %g: %s is %.17g, should be %.17g\n", r->name, r->bits, r->parameter[0][0],
           r->parameter[1][0], r->value, what, got, want);
}

static void compare(const far *r)
{
    ad_tensor *p[MOST], *g[MOST], *h[MOST];
    char what[40];
    for (int i = 0; i < r->n; i++)
        p[i] = ad_from(r->parameter[i], r->size[i] ? AD_SHAPE(r->size[i]) : AD_SCALAR);
    p[r->n] = ad_from(&r->value, AD_SCALAR);
    ad_scope {
        ad_tensor *lp = dist_log_prob(dist_new(class_of(r->name), p, 0), p[r->n]);
        double got[2][3];
        close_to(ad_item(lp), r->log_prob, r->bound, r, "the log density");
        ad_gradient(lp, p, r->n + 1, g);
        for (int i = 0, e = 0; i <= r->n; i++) {
            int n = i < r->n && r->size[i] ? r->size[i] : 1;
            ck_assert(ad_read(g[i], got[0], n));
            for (int k = 0; k < n; k++, e++) {
                snprintf(what, sizeof what, "slope %d", e);
                close_to(got[0][k], r->slope[e], 8 * r->slope_bound[e], r, what);
                ad_gradient(n > 1 ? ad_slice(g[i], 0, k, 1) : g[i], p, r->n + 1, h);
                ck_assert(ad_read(h[i], got[1], n));
                snprintf(what, sizeof what, "second derivative %d", e);
                if (isfinite(r->bend_bound[e]))
                    close_to(got[1][k], r->bend[e], 16 * r->bend_bound[e], r, what);
            }
        }
        fine();
    }
    for (int i = 0; i <= r->n; i++)
        ad_free(p[i]);
}

START_TEST(far_out)
{
    failures = 0;
    for (int wide = 0; wide < 2; wide++) {
        end();
        begin_as(wide ? AD_DOUBLE : AD_FLOAT);
        for (int i = 0; i < ROWS; i++)
            if (!strcmp(rows[i].name, dist_class_at(_i)->name) && rows[i].bits == (wide ? 64 : 32))
                compare(&rows[i]);
    }
    ck_assert_int_eq(failures, 0);
}
END_TEST

Suite *suite_densities(void)
{
    int n = 0;
    while (dist_class_at(n))
        n++;
    Suite *s = suite_create("densities");
    TCase *t = tcase_create("densities");
    tcase_add_checked_fixture(t, begin, end);
    tcase_add_loop_test(t, far_out, 0, n);
    suite_add_tcase(s, t);
    return s;
}
