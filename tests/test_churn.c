/* What comes and goes for ever: names, parameters, instances, contexts, tensors. Nothing is left of what has gone. */
#include <stdio.h>

#include "ppl/predictive.h"
#include "tests/fixture.h"
#include "tests/resident.h"

static int at; /* the step */
static const char *name_of(const char *prefix, int i)
{
    static char text[4][32];
    static int next;
    next = (next + 1) % 4;
    snprintf(text[next], sizeof text[next], "%s_%d", prefix, i);
    return text[next];
}
static void observe(void)
{
    ppl_sample("y", dist_normal(0, 1), .obs = ad_number(1));
}
static void keep_one(void)
{
    ppl_param("kept", AD_SCALAR);
}
#define FROM_PRIOR .infer = { .from_prior = true }
static void site_names(void)
{
    ppl_sample(name_of("x", at), dist_normal(0, 1), FROM_PRIOR);
    observe();
}
static void plate_names(void)
{
    ppl_plate (name_of("p", at), 3) observe();
}
static void scope_names(void)
{
    ppl_with (ppl_name_scope(name_of("s", at))) ppl_sample("x", dist_normal(0, 1), FROM_PRIOR);
    observe();
}
static void module_names(void)
{
    ppl_module (name_of("m", at)) observe();
}
static void sliding_params(void)
{
    keep_one();
    ppl_param(name_of("q", at), AD_SHAPE(1 + at % 500));
    ppl_module (name_of("q", at)) ppl_param("w", AD_SCALAR, .init = ppl_randn(1));
}
static void delete_older(svi *s)
{
    (void)s;
    ppl_param_delete(name_of("q", at - 3));
    char old[32];
    snprintf(old, sizeof old, "q_%d$$$*", at - 3);
    ppl_param_delete(old);
}
static void ask(svi *s)
{
    (void)s;
    for (int i = 0; i < 3; i++) ck_assert(!ppl_param_exists(name_of("none", 3 * at + i)));
}
static void other_instances(svi *s)
{
    (void)s;
    svi *other = svi_new(observe, keep_one, .args = PPL_ARGS(), .optim = optim_adam());
    svi_step(other);
    svi_free(other);
    ppl_predictive *p = ppl_predictive_new(site_names, keep_one, .args = PPL_ARGS(), .samples = 2);
    ppl_predict(p);
    ppl_predictive_free(p);
    ad_scope ppl_trace_log_prob_sum(ppl_trace_run(site_names, PPL_ARGS()));
}
static void other_contexts(svi *s)
{
    (void)s;
    ad_context *previous = ad_context_use(ad_context_new(&(ad_options){ .threads = 1 }));
    ad_scope ad_item(ppl_sample("z", dist_normal(ppl_param("l", AD_SCALAR), 1)));
    ad_context_free(ad_context_use(previous));
}
static void other_tensors(svi *s)
{
    (void)s;
    ad_tensor *x = ad_state(AD_SHAPE(1 + at % 9000)), *y = ad_from((float *)NULL, AD_SHAPE(1 + at % 20000, 1));
    ad_free(x);
    ad_free(y);
}

static const struct coming {
    const char *what;
    void (*model)(void), (*guide)(void), (*between)(svi *);
} coming[] = {
    { "sites", site_names, keep_one, NULL },
    { "plates", plate_names, keep_one, NULL },
    { "scopes", scope_names, keep_one, NULL },
    { "modules", module_names, keep_one, NULL },
    { "parameters", observe, sliding_params, delete_older },
    { "questions", observe, keep_one, ask },
    { "instances", observe, keep_one, other_instances },
    { "contexts", observe, keep_one, other_contexts },
    { "tensors", observe, keep_one, other_tensors },
};

/* Bytes held and what is resident stay where they are; a step that slowed down would not end in time. */
START_TEST(nothing_is_left_of_what_goes)
{
    enum { THIRD = 12000 };
    const struct coming *row = &coming[_i];
    uint64_t bytes[3];
    long pages[3];
    ad_context_use(ad_context_new(&(ad_options){ .threads = 1 }));
    svi *s = svi_new(row->model, row->guide, .args = PPL_ARGS(), .optim = optim_adam(.lr = 1e-3));
    (void)resident();
    for (int third = 0; third < 3; third++) {
        for (int i = 0; i < THIRD; i++) {
            at = third * THIRD + i;
            double loss = svi_step(s);
            if (isnan(loss)) ck_abort_msg("%s, step %d: %s", row->what, at, svi_error(s));
            if (row->between) row->between(s);
        }
        bytes[third] = ad_count().bytes;
        pages[third] = resident();
    }
    ck_assert_msg(bytes[2] <= bytes[1] + 65536, "%s: %llu bytes after a second third, %llu after the last", row->what,
                  (unsigned long long)bytes[1], (unsigned long long)bytes[2]);
    ck_assert_msg(bytes[2] < 4 << 20, "%s: %llu bytes", row->what, (unsigned long long)bytes[2]);
#ifndef SANITIZED
    ck_assert_msg(pages[2] <= pages[1] + 256, "%s: %ld kB resident, then %ld", row->what, pages[1], pages[2]);
#endif
    svi_free(s);
    ad_context_free(NULL);
}
END_TEST

/* Parameters that slide: what is live keeps its order, its values and its moments, and one born again starts afresh. */
static void ordered_guide(void)
{
    ppl_param("first", AD_SHAPE(3), .init = ppl_randn(1));
    ppl_param(name_of("q", at), AD_SHAPE(2), .init = ppl_constant(at));
    ppl_param("last", AD_SHAPE(3), .init = ppl_randn(1));
    ad_tensor *loc = ad_add(ad_sum(ppl_param("first", AD_SHAPE(3), .init = ppl_randn(1))),
                            ad_sum(ppl_param("last", AD_SHAPE(3), .init = ppl_randn(1))));
    ppl_sample("z", dist_normal(loc, 1));
}
static void ordered_model(void)
{
    ppl_sample("z", dist_normal(0, 1));
}
START_TEST(what_stays_is_undisturbed)
{
    double first[2][3], last[2][3], q[2];
    for (int slides = 0; slides < 2; slides++) {
        ad_context_use(ad_context_new(&(ad_options){ .precision = AD_DOUBLE, .threads = 1 }));
        svi *s = svi_new(ordered_model, ordered_guide, .args = PPL_ARGS(), .optim = optim_adam(.lr = 0.1));
        for (int i = 0; i < 20; i++) {
            at = slides ? i : 0;
            ck_assert_msg(isfinite(svi_step(s)), "%s", svi_error(s));
            if (!slides) continue;
            ck_assert_int_eq(ppl_param_count(), 3);
            ck_assert_str_eq(ppl_param_name(0), "first");
            ck_assert_str_eq(ppl_param_name(i ? 2 : 1), name_of("q", i));
            ck_assert(ppl_param_value(name_of("q", i), q, 2) && q[1] == i);
            ck_assert_int_eq(ppl_param_delete(name_of("q", i)), 1);
            ck_assert(!ppl_param_exists(name_of("q", i)) && ppl_param_count() == 2);
            ck_assert_str_eq(ppl_param_name(1), "last");
        }
        ck_assert(ppl_param_value("first", first[slides], 3) && ppl_param_value("last", last[slides], 3));
        svi_free(s);
        ad_context_free(NULL);
    }
    ck_assert_mem_eq(first[0], first[1], sizeof first[0]);
    ck_assert_mem_eq(last[0], last[1], sizeof last[0]);
}
END_TEST

/* A scope that never ends its names: an error that says so, and the next scope is well. */
START_TEST(too_many_names_in_one_scope)
{
    enum { MOST = 1 << 20 };
    ad_context_use(ad_context_new(&(ad_options){ .threads = 1 }));
    for (int round = 0; round < 2; round++) {
        int i = 0;
        ad_scope {
            for (; i <= MOST && ad_ok(); i++) ppl_module (name_of("m", i)) {
                }
            error_says("more than 1048576 names are in use");
            error_says("not by the step");
        }
        ad_scope ck_assert(isfinite(ad_item(ppl_sample("z", dist_normal(0, 1)))));
        ck_assert_msg(ad_ok(), "%s", ad_error());
    }
    ad_context_free(NULL);
}
END_TEST

Suite *suite_churn(void);
Suite *suite_churn(void)
{
    Suite *s = suite_create("churn");
    TCase *t = tcase_create("churn");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, nothing_is_left_of_what_goes, 0, sizeof coming / sizeof *coming);
    tcase_add_test(t, what_stays_is_undisturbed);
    tcase_add_test(t, too_many_names_in_one_scope);
    suite_add_tcase(s, t);
    return s;
}
