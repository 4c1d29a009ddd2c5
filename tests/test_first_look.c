/* The first look at a program: who refuses what is outside its support, what it costs, and that it leaves no trace. The
 * words for each class stand in must_fail.def, the edges in legal.def. */
#include "ppl/density.h"
#include "tests/fixture.h"

#include <math.h>
#include <string.h>

static ad_tensor *good, *bad;
static void begin_with_data(void)
{
    static const double fine[] = { 0.5, 2, 0, 1 }, wrong[] = { 0.5, 2, -3, 1 };
    begin();
    good = ad_from(fine, AD_SHAPE(4)), bad = ad_from(wrong, AD_SHAPE(4));
}
#define REFUSAL "site \"x\" (exponential): the value must be at least 0, found -3 at (2,)"

static bool reads;
static int calls;
static void model(ad_tensor *x) /* x (N) */
{
    calls++;
    ad_tensor *z = ppl_sample("z", dist_normal(0, 1));
    if (reads && ad_item(z) > 1e9)
        return;
    ppl_plate ("data", ad_dim(x, 0))
        ppl_sample("x", dist_exponential(ad_exp(z)), .obs = x);
}
static void guide(ad_tensor *x)
{
    (void)x;
    ppl_sample("z", dist_normal(ppl_param("loc", AD_SCALAR), 0.5));
}
static svi *make(void)
{
    return svi_new(model, guide, .args = PPL_ARGS(ad_tensor *), .optim = optim_adam());
}

/* ---- who refuses ------------------------------------------------------------------------------------------------- */

START_TEST(every_way_in_refuses)
{
    svi *s = make();
    ck_assert(isnan(svi_step(s, bad)));
    says(svi_error(s), REFUSAL);
    ck_assert_int_eq(svi_steps(s), 0);
    ck_assert(isnan(svi_evaluate(s, bad)));
    says(svi_error(s), REFUSAL);
    ck_assert(isnan(svi_run(s, 3, .args = PPL_VALUES(bad))));
    says(svi_error(s), REFUSAL);
    ck_assert_int_eq(svi_steps(s), 0);
    ck_assert_ptr_null(ppl_density_new(model, PPL_ARGS(ad_tensor *), bad));
    says(ad_error(), REFUSAL);
    ck_assert(isfinite(svi_step(s, good)));
    svi_free(s);
}
END_TEST

/* A density does not know its latent values yet: what depends on them is not judged. */
static void latent_scale(ad_tensor *x)
{
    ad_tensor *z = ppl_sample("z", dist_normal(0, 1));
    ppl_plate ("data", ad_dim(x, 0)) {
        ppl_sample("x", dist_normal(0, z), .obs = x);
        ppl_sample("y", dist_uniform(z, 5), .obs = x);
    }
}
START_TEST(a_density_judges_data_alone)
{
    ppl_density *d = ppl_density_new(latent_scale, PPL_ARGS(ad_tensor *), good);
    ck_assert_msg(d != NULL, "%s", ad_error());
    ck_assert(!isfinite(ppl_density_value(d, &(double){ 1 }, NULL)));
    ppl_density_free(d);
}
END_TEST

START_TEST(data_that_turns_bad_is_blamed)
{
    svi *s = make();
    for (int i = 0; i < 3; i++) /* now there is a plan: nobody looks any more */
        ck_assert(isfinite(svi_step(s, good)));
    ck_assert(isnan(svi_step(s, bad)));
    says(svi_error(s), "Encountered inf: loss; the model's site \"x\" (exponential) has log-density -inf");
    says(svi_error(s), "outside what the distribution allows");
    svi_free(s);
}
END_TEST

/* ---- what it costs ----------------------------------------------------------------------------------------------- */

/* As many plans as if nobody had looked, also when the model has read a value before; with a plan nothing at all. */
START_TEST(the_look_leaves_no_trace)
{
    for (int i = 0; i < 2; i++) {
        reads = i == 1;
        svi *s = make();
        ad_counters before = ad_count();
        ck_assert(isfinite(svi_step(s, good)));
        ad_counters first = ad_count();
        ck_assert_uint_eq(first.misses - before.misses, 1 + reads);
        for (int k = 0; k < 3; k++)
            ck_assert(isfinite(svi_step(s, good)));
        before = ad_count();
        for (int k = 0; k < 20; k++)
            ck_assert(isfinite(svi_step(s, good)));
        ck_assert_uint_eq(ad_count().allocations, before.allocations);
        ck_assert_uint_eq(ad_count().misses, before.misses);
        svi_free(s);
    }
    reads = false;
    svi *s = make(); /* a run records its first step, which looks, and compares with two more: it has held the first */
    calls = 0;
    ck_assert(isfinite(svi_run(s, 5, .args = PPL_VALUES(good))));
    ck_assert_int_eq(calls, 3);
    svi_free(s);
}
END_TEST

/* A program at the limit of operations is not pushed over it by what the look records. */
START_TEST(the_look_does_not_count_as_operations)
{
    ad_context *wide = ad_context_current();
    double x[] = { 1, 2 };
    int64_t limit = 16;
    for (bool finite = false; !finite; limit++) {
        ck_assert_int_lt(limit, 1000);
        ad_context_use(ad_context_new(&(ad_options){ .precision = AD_DOUBLE, .threads = 1, .max_nodes = limit }));
        svi *s = make();
        finite = isfinite(svi_evaluate(s, ad_from(x, AD_SHAPE(2))));
        if (finite)
            ck_assert_int_eq(limit, (int64_t)ad_count().nodes);
        svi_free(s);
        ad_context_free(NULL);
    }
    ad_context_use(wide);
}
END_TEST

Suite *suite_first_look(void)
{
    Suite *s = suite_create("first_look");
    TCase *t = tcase_create("first_look");
    tcase_add_checked_fixture(t, begin_with_data, end);
    tcase_add_test(t, every_way_in_refuses);
    tcase_add_test(t, a_density_judges_data_alone);
    tcase_add_test(t, data_that_turns_bad_is_blamed);
    tcase_add_test(t, the_look_leaves_no_trace);
    tcase_add_test(t, the_look_does_not_count_as_operations);
    suite_add_tcase(s, t);
    return s;
}
