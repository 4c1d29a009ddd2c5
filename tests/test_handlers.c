/* Handlers within handlers: interventions, scopes, records and loops, where each message must be treated once. */
#include <stdio.h>

#include "tests/fixture.h"

/* ---- interventions ----------------------------------------------------------------------------------------------- */

static ad_tensor *number(double x)
{
    return ad_from(&x, AD_SCALAR);
}
static void chain_model(void)
{
    ad_tensor *x = ppl_sample("x", dist_normal(0, 1));
    ppl_sample("y", dist_normal(ad_mul(10, x), 1e-9));
}
static double value(ppl_trace *t, const char *name)
{
    double v = ad_item(ppl_trace_value(t, name));
    fine();
    return v;
}

START_TEST(inner_intervention_wins)
{
    ad_tensor *v[] = { number(3), number(5), number(7) };
    for (int svi_runs = 0; svi_runs < 2; svi_runs++)
        ad_scope {
            ppl_trace *outer = ppl_trace_new(), *inner = ppl_trace_new();
            ppl_with (ppl_record(outer))
                ppl_with (ppl_do({ "x", v[0] }))
                    ppl_with (ppl_do({ "x", v[1] }))
                        ppl_with (ppl_record(inner))
                            ppl_with (ppl_do({ "x", v[2] })) chain_model();
            near(value(outer, "y"), 70, 1e-6);
            near(value(inner, "y"), 70, 1e-6);
            ck_assert(!ppl_trace_find(outer, "x")->is_observed && fabs(value(outer, "x") - 7) > 1e-6);
            ck_assert_int_eq(ppl_trace_size(outer), 2);
            ck_assert_int_eq(ppl_trace_size(inner), 2);
        }
    for (int i = 0; i < 3; i++) ad_free(v[i]);
}
END_TEST

static void scoped_chain(void)
{
    ppl_with (ppl_name_scope("s")) chain_model();
}
static int changes;
static void change(const ppl_message *m, ppl_infer *infer)
{
    (void)infer;
    changes += !strcmp(m->name, "x");
}
static int processed, returned;
static void count_in(ppl_handler *h, ppl_message *m)
{
    (void)h;
    processed += !strncmp(m->name, "x", 1);
}
static void count_out(ppl_handler *h, ppl_message *m)
{
    (void)h;
    returned += !strncmp(m->name, "x", 1);
}

START_TEST(inside_an_intervention_all_is_done_once)
{
    ad_tensor *five = number(5), *mask = number(0);
    ad_scope {
        ppl_trace *t = ppl_trace_new();
        ppl_with (ppl_record(t))
            ppl_with (ppl_do({ "s/x", five })) scoped_chain();
        near(value(t, "s/y"), 50, 1e-6);
        ck_assert(ppl_trace_find(t, "s/x") && !ppl_trace_find(t, "s/s/x"));
    }
    ad_scope {
        ppl_trace *t = ppl_trace_new(), *in = ppl_trace_new();
        ppl_with (ppl_record(t))
            ppl_with (ppl_do({ "x", five }))
                ppl_with (ppl_record(in))
                    ppl_with (ppl_infer_config(change))
                        ppl_with (ppl_scale(3))
                            ppl_with (ppl_mask(mask))
                                ppl_plate ("rows", 4, .full_size = 8)
                                    ppl_with (((ppl_handler){ .process = count_in, .postprocess = count_out })) chain_model();
        fine();
        ck_assert_int_eq(changes, 1);
        ck_assert_int_eq(processed, 1);
        ck_assert_int_eq(returned, 2); /* the site and its counterfactual */
        const ppl_message *x = ppl_trace_find(t, "x"), *cf = ppl_trace_find(in, "x__CF");
        ck_assert(x && x->scale == 6 && x->n_frames == 1 && x->mask == mask && dist_batch_shape(x->fn).dim[0] == 4);
        ck_assert(cf && cf->is_observed && cf->value == five && ppl_trace_find(in, "x") && !ppl_trace_find(t, "x__CF"));
    }
    ad_free(five), ad_free(mask);
}
END_TEST

/* condition within do observes the site, do within condition is not touched by it. */
START_TEST(interventions_and_conditions)
{
    ad_tensor *two = number(2), *five = number(5);
    ad_scope {
        ppl_trace *t = ppl_trace_new();
        ppl_with (ppl_record(t))
            ppl_with (ppl_do({ "x", five }))
                ppl_with (ppl_condition({ "x", two })) chain_model();
        ck_assert(value(t, "x") == 2 && ppl_trace_find(t, "x")->is_observed);
        near(value(t, "y"), 50, 1e-6);
    }
    ad_scope {
        ppl_trace *t = ppl_trace_new();
        ppl_with (ppl_record(t))
            ppl_with (ppl_condition({ "x", two }))
                ppl_with (ppl_do({ "x", five })) chain_model();
        ck_assert(value(t, "x") == 2 && ppl_trace_find(t, "x")->is_observed);
        near(value(t, "y"), 50, 1e-6);
    }
    ad_free(two), ad_free(five);
}
END_TEST

static void lifted(void)
{
    ad_tensor *w = ppl_param("w", AD_SCALAR);
    ppl_sample("y", dist_normal(ad_add(w, ppl_param("w", AD_SCALAR)), 1e-9));
}
/* A lifted parameter has one value in its run, whatever the handlers around make of its site. */
START_TEST(lifted_parameters_under_other_handlers)
{
    ad_tensor *five = number(5);
    ad_scope {
        ppl_trace *t = ppl_trace_new();
        ppl_with (ppl_record(t))
            ppl_with (ppl_do({ "w", five }))
                ppl_with (ppl_lift({ "w", dist_normal(0, 1) })) lifted();
        near(value(t, "y"), 10, 1e-6);
        ck_assert(!ppl_trace_find(t, "w")->is_observed && fabs(value(t, "w") - 5) > 1e-6);
    }
    ad_scope {
        ppl_trace *t = ppl_trace_new();
        ppl_with (ppl_record(t))
            ppl_with (ppl_name_scope("s"))
                ppl_with (ppl_lift({ "w", dist_normal(0, 1) })) lifted();
        near(value(t, "s/y"), 2 * value(t, "s/w"), 1e-6);
    }
    ad_scope {
        ppl_trace *t = ppl_trace_new();
        ppl_with (ppl_record(t))
            ppl_with (ppl_condition({ "w", five }))
                ppl_plate ("rows", 3)
                    ppl_with (ppl_lift({ "w", dist_normal(0, 1) })) lifted();
        ck_assert(ppl_trace_find(t, "w")->is_observed && ppl_trace_find(t, "w")->n_frames == 1);
        double y[3];
        ck_assert(ad_read(ppl_trace_value(t, "y"), y, 3));
        near(y[2], 10, 1e-6);
    }
    ad_free(five);
}
END_TEST

/* ---- plates under scopes and replay ------------------------------------------------------------------------------ */

static void one_plate(void)
{
    ppl_plate ("p", 1000, .subsample_size = 5) ppl_sample("z", dist_normal(0, 1));
}
START_TEST(scopes_name_plates)
{
    ad_scope {
        ppl_trace *t = ppl_trace_new();
        ppl_with (ppl_record(t)) {
            ppl_with (ppl_name_scope("a")) one_plate();
            ppl_with (ppl_name_scope("b"))
                ppl_with (ppl_name_scope("c")) one_plate();
        }
        fine();
        int64_t a[5], b[5];
        ck_assert(ad_read(ppl_trace_value(t, "a/p"), a, 5) && ad_read(ppl_trace_value(t, "b/c/p"), b, 5));
        ck_assert(memcmp(a, b, sizeof a) != 0);
        ck_assert_str_eq(ppl_trace_find(t, "b/c/z")->frame[0]->name, "b/c/p");
        ppl_with (ppl_name_scope("a"))
            ppl_plate ("p", 3)
                ppl_with (ppl_name_scope("a")) ppl_plate ("p", 2) fine();
        ppl_with (ppl_name_scope("a")) ppl_plate ("q", 2) ppl_plate ("q", 2) ck_assert(!ad_ok());
        error_says("plate \"a/q\": duplicate plate");
    }
}
END_TEST

static ad_tensor *all_rows;
static int64_t rows_seen;
static double weight_seen;
static void full_model(ad_tensor *x)
{
    ppl_plate ("p", 100) {
        ad_tensor *rows = ppl_subsample(x, 0);
        rows_seen = ad_dim(rows, 0);
        ppl_sample("x", dist_normal(0, 1), .obs = rows);
    }
}
static void subsampled_guide(ad_tensor *x)
{
    (void)x;
    ppl_plate ("p", 100, .subsample_size = 7) {}
}
START_TEST(replayed_plates_take_the_rows_of_the_trace)
{
    static double x[100];
    for (int i = 0; i < 100; i++) x[i] = i;
    all_rows = ad_from(x, AD_SHAPE(100));
    svi *s = svi_new(full_model, subsampled_guide, .args = PPL_ARGS(ad_tensor *), .optim = optim_sgd(.lr = 0.1));
    ck_assert_msg(isfinite(svi_step(s, all_rows)), "%s", svi_error(s));
    ck_assert_int_eq(rows_seen, 7);
    svi_free(s);
    ad_scope {
        ppl_trace *guide = ppl_trace_run(subsampled_guide, PPL_ARGS(ad_tensor *), all_rows), *model = ppl_trace_new();
        ppl_with (ppl_record(model))
            ppl_with (ppl_replay(guide)) full_model(all_rows);
        weight_seen = ppl_trace_find(model, "x")->scale;
        near(weight_seen, 100.0 / 7, 1e-12);
        int64_t a[7], b[7];
        ck_assert(ad_read(ppl_trace_value(guide, "p"), a, 7) && ad_read(ppl_trace_value(model, "p"), b, 7));
        ck_assert(!memcmp(a, b, sizeof a));
        ppl_with (ppl_replay(guide)) ppl_each (i, "p", 100) ck_assert(a[rows_seen++ % 7] == i);
        fine();
        ppl_with (ppl_replay(guide)) ppl_plate ("p", 20) {}
        error_says("plate \"p\" has 20 members; in the trace that is replayed it has 100");
    }
    ad_free(all_rows);
}
END_TEST

/* Conditions give plates their members, also around a replay, and in loops. */
START_TEST(conditioned_plates)
{
    static const double x[] = { 1, 2, 3, 4, 5 };
    static const int two[] = { 4, 0 };
    ad_tensor *data = ad_from(x, AD_SHAPE(5)), *rows = ad_from(two, AD_SHAPE(2));
    ad_scope {
        ppl_trace *t = ppl_trace_new();
        double v[2];
        ppl_with (ppl_record(t))
            ppl_with (ppl_condition({ "s/p", rows }))
                ppl_with (ppl_name_scope("s"))
                    ppl_plate ("p", 5, .subsample_size = 2) ck_assert(ad_read(ppl_subsample(data, 0), v, 2));
        ck_assert(v[0] == 5 && v[1] == 1 && ppl_trace_find(t, "s/p")->value == rows);
        ppl_with (ppl_condition({ "s/p", rows }))
            ppl_with (ppl_replay(t))
                ppl_plate ("s/p", 5) ppl_sample("z", dist_normal(ppl_subsample(data, 0), 1));
        fine();
        int k = 0;
        ppl_with (ppl_condition({ "loop", rows })) ppl_each (i, "loop", 5) ck_assert_int_eq(i, two[k++]);
        ck_assert_int_eq(k, 2);
        ppl_with (ppl_condition({ "three", rows })) ppl_plate ("three", 5, .subsample_size = 3) {}
        error_says("subsample_size 3 does not match len(subsample)");
    }
    ad_free(data), ad_free(rows);
}
END_TEST

static ad_tensor *some_rows;
static void rows_without_sites(void)
{
    ad_tensor *sum = ad_number(0);
    ppl_plate ("p", 5, .subsample_size = 2) sum = ad_sum(ppl_subsample(some_rows, 0));
    ppl_deterministic("sum", ad_mul(1, sum));
}
/* The plate of the draws lies left of plates that hold no site. */
START_TEST(predictions_around_plates_without_sites)
{
    static const double x[] = { 1, 2, 3, 4, 5 };
    some_rows = ad_from(x, AD_SHAPE(5));
    for (int vectorize = 0; vectorize < 2; vectorize++) {
        ppl_predictive *p = ppl_predictive_prior(rows_without_sites, .args = PPL_ARGS(), .samples = 3,
                                                 .vectorize = vectorize);
        ck_assert_msg(ppl_predict(p), "%s", ad_error());
        double sum[3];
        ck_assert(ppl_predictive_read(p, "sum", sum, 3) && sum[2] >= 3 && sum[2] <= 9);
        ppl_predictive_free(p);
    }
    ad_free(some_rows);
}
END_TEST

/* ---- records and loops ------------------------------------------------------------------------------------------- */

START_TEST(each_record_is_a_run)
{
    ad_scope {
        ppl_trace *t[3];
        for (int i = 0; i < 3; i++) {
            t[i] = ppl_trace_new();
            ppl_with (ppl_record(t[i])) ppl_plate ("p", 3 + i) ppl_sample("z", dist_normal(0, 1));
        }
        fine();
        ppl_trace *outer = ppl_trace_new(), *inner = ppl_trace_new();
        ppl_with (ppl_record(outer)) {
            ppl_plate ("p", 9, .subsample_size = 3) {}
            ppl_with (ppl_record(inner)) ppl_plate ("p", 4) ppl_sample("y", dist_normal(0, 1));
            ppl_plate ("p", 9, .subsample_size = 3) ppl_sample("z", dist_normal(0, 1)); /* the one before */
        }
        error_says("plate"); /* the inner run's plate is another one to whoever records both */
    }
    ad_scope {
        ppl_trace *outer = ppl_trace_new(), *inner = ppl_trace_new();
        ppl_with (ppl_record(outer)) {
            ppl_plate ("p", 9, .subsample_size = 3) {}
            ppl_with (ppl_block())
                ppl_with (ppl_record(inner)) ppl_plate ("p", 4) ppl_sample("y", dist_normal(0, 1));
            ppl_plate ("p", 9, .subsample_size = 3) ppl_sample("z", dist_normal(0, 1));
        }
        fine();
        ck_assert(ppl_trace_find(inner, "y") && !ppl_trace_find(outer, "y") && ppl_trace_find(outer, "z"));
    }
}
END_TEST

/* What a loop over members leaves when its body ends by `way`: visited members of an outer loop of 4, inner ones of 5. */
enum { CONTINUE, BREAK, RETURN };
static int inner_visits, outer_visits;
static void loop(int way, int at)
{
    inner_visits = outer_visits = 0;
    ppl_each (i, "outer", 4) {
        outer_visits++;
        ppl_each (k, "inner", 5) {
            inner_visits++;
            if (k == at && way == CONTINUE) continue;
            if (k == at && way == BREAK) break;
            if (k == at && way == RETURN) return;
            char name[16];
            snprintf(name, sizeof name, "x%d_%d", (int)i, (int)k);
            ppl_sample(name, dist_normal(0, 1));
        }
    }
}
START_TEST(loops_end_as_loops_do)
{
    for (int way = CONTINUE; way <= RETURN; way++)
        for (int at = 0; at < 5; at++)
            ad_scope {
                ppl_trace *t = ppl_trace_new();
                ppl_with (ppl_record(t)) loop(way, at);
                ck_assert_int_eq(outer_visits, way == RETURN ? 1 : 4);
                ck_assert_int_eq(inner_visits, way == CONTINUE ? 20 : way == BREAK ? 4 * (at + 1) : at + 1);
                int samples = 0;
                for (int i = 0; i < ppl_trace_size(t); i++) samples += ppl_trace_at(t, i)->type == PPL_SAMPLE;
                ck_assert_int_eq(samples, way == CONTINUE ? 16 : way == BREAK ? 4 * at : at);
                ppl_plate ("after", 2) ck_assert_int_eq(ad_rank(ppl_sample("after_all", dist_normal(0, 1))), 1);
                fine();
            }
}
END_TEST

static void wide_model(void)
{
    ad_shape s = { .rank = AD_MAX_RANK };
    for (int i = 0; i < AD_MAX_RANK; i++) s.dim[i] = 1;
    ppl_sample("z", dist_to_event(dist_normal(ad_full_shape(s, 0), 1), 3));
    ppl_sample("k", dist_categorical(ad_full_shape(s, 1)));
}
START_TEST(ranks_are_bounded)
{
    ppl_density *d = ppl_density_new(wide_model, PPL_ARGS());
    ck_assert(!d);
    ppl_density_free(d);
    ad_scope {
        ad_shape s = { .rank = AD_MAX_RANK };
        for (int i = 0; i < AD_MAX_RANK; i++) s.dim[i] = 1;
        ppl_sample("k", dist_expand(dist_categorical(ad_ones(3)), s));
        ck_assert(!ad_ok());
    }
    ad_scope {
        int depth = 0;
        char names[40][8];
        ppl_plate_scope scopes[40];
        for (; depth < 40 && ad_ok(); depth++) {
            snprintf(names[depth], sizeof names[depth], "p%d", depth);
            scopes[depth] = ppl_plate_begin((ppl_plate_args){ .name = names[depth], .size = 1 });
            ppl_plate_enter(&scopes[depth]);
        }
        error_says("no dimension is left");
        while (depth) ppl_plate_leave(&scopes[--depth]);
    }
}
END_TEST

Suite *suite_handlers(void)
{
    Suite *s = suite_create("handlers");
    TCase *t = tcase_create("handlers");
    tcase_add_checked_fixture(t, begin, end);
    tcase_add_test(t, inner_intervention_wins);
    tcase_add_test(t, inside_an_intervention_all_is_done_once);
    tcase_add_test(t, interventions_and_conditions);
    tcase_add_test(t, lifted_parameters_under_other_handlers);
    tcase_add_test(t, scopes_name_plates);
    tcase_add_test(t, replayed_plates_take_the_rows_of_the_trace);
    tcase_add_test(t, conditioned_plates);
    tcase_add_test(t, predictions_around_plates_without_sites);
    tcase_add_test(t, each_record_is_a_run);
    tcase_add_test(t, loops_end_as_loops_do);
    tcase_add_test(t, ranks_are_bounded);
    suite_add_tcase(s, t);
    return s;
}
