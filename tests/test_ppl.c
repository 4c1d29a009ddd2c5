/* The runtime of ppl: order of handlers, what each of them does, names, traces. In double precision. */
#include "tests/fixture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- the order of messages --------------------------------------------------------------------------------------- */

static char story[512];
typedef struct teller {
    ppl_handler handler; /* first: a pointer to it is a pointer to the teller */
    char name;
    bool stops;
} teller;

static void tell(char what, const ppl_handler *h, const ppl_message *m)
{
    char word[32];
    snprintf(word, sizeof word, "%c%c%s ", what, ((const teller *)h)->name, m ? m->name : "");
    strcat(story, word);
}
static void on_process(ppl_handler *h, ppl_message *m)
{
    tell('<', h, m);
    if (((teller *)h)->stops)
        m->stop = true;
}
static void on_postprocess(ppl_handler *h, ppl_message *m)
{
    tell('>', h, m);
}
static void on_enter(ppl_handler *h)
{
    tell('+', h, NULL);
}
static void on_exit_(ppl_handler *h)
{
    tell('-', h, NULL);
}
static teller make(char name, bool stops)
{
    return (teller){ { .process = on_process, .postprocess = on_postprocess, .enter = on_enter, .exit = on_exit_ },
                     name,
                     stops };
}

START_TEST(handlers_run_inside_out_and_back)
{
    teller a = make('a', false), b = make('b', false), c = make('c', false);
    ad_scope
        ppl_with (&a.handler)
            ppl_with (&b.handler)
                ppl_with (&c.handler)
                    ppl_sample("x", dist_normal(0, 1));
    fine();
    ck_assert_str_eq(story, "+a +b +c <cx <bx <ax >ax >bx >cx -c -b -a ");
}
END_TEST

START_TEST(stop_hides_from_those_outside)
{
    teller a = make('a', false), b = make('b', true), c = make('c', false);
    ad_scope
        ppl_with (&a.handler)
            ppl_with (&b.handler)
                ppl_with (&c.handler)
                    ppl_sample("x", dist_normal(0, 1));
    ck_assert_str_eq(story, "+a +b +c <cx <bx >bx >cx -c -b -a ");
}
END_TEST

static int leaves_early(teller *a, teller *b)
{
    ppl_with (&a->handler)
        ppl_with (&b->handler)
            return 7;
    return 0;
}
START_TEST(return_unwinds)
{
    teller a = make('a', false), b = make('b', false);
    ad_scope {
        ck_assert_int_eq(leaves_early(&a, &b), 7);
        ppl_sample("x", dist_normal(0, 1));
    }
    ck_assert_str_eq(story, "+a +b -b -a ");
    story[0] = 0;
    ad_scope
        for (int i = 0; i < 2; i++) {
            ppl_plate ("p", 3, .dim = -1)
                break; /* leaves the plate's block, not the loop */
            ppl_with (&a.handler)
                ppl_sample(i ? "y" : "x", dist_normal(0, 1));
        }
    fine();
    ck_assert_str_eq(story, "+a <ax >ax -a +a <ay >ay -a ");
}
END_TEST

START_TEST(a_handler_is_installed_once)
{
    teller a = make('a', false);
    ad_scope {
        ppl_with (&a.handler)
            ppl_with (&a.handler)
                ck_assert(!ad_ok());
        error_says("cannot install a handler twice");
    }
    ad_scope
        ppl_with (&a.handler)
            fine();
}
END_TEST

START_TEST(order_of_parameters_and_plates)
{
    teller a = make('a', false);
    ad_scope
        ppl_with (&a.handler) {
            ppl_param("w", AD_SHAPE(2));
            ppl_plate ("rows", 5, .subsample_size = 2)
                ppl_sample("x", dist_normal(0, 1));
        }
    fine();
    ck_assert_str_eq(story, "+a <aw >aw <arows >arows <ax >ax -a ");
}
END_TEST

/* ---- handlers ---------------------------------------------------------------------------------------------------- */

static void chain_model(void)
{
    ad_tensor *z = ppl_sample("z", dist_normal(0, 1));
    ppl_sample("x", dist_normal(z, 1), .obs = ad_number(2));
}

START_TEST(trace_and_replay)
{
    ad_scope {
        ppl_trace *t = ppl_trace_run(chain_model, PPL_ARGS()), *again = ppl_trace_new(), *fresh = ppl_trace_new();
        ppl_with (ppl_record(again))
            ppl_with (ppl_replay(t))
                chain_model();
        ppl_with (ppl_record(fresh))
            chain_model();
        fine();
        double z = ad_item(ppl_trace_value(t, "z"));
        near(ad_item(ppl_trace_value(again, "z")), z, 0);
        ck_assert(ad_item(ppl_trace_value(fresh, "z")) != z); /* another run draws anew */
        near(ad_item(ppl_trace_log_prob_sum(t)), -0.5 * z * z - 0.5 * (2 - z) * (2 - z) - log(2 * M_PI), 1e-12);
        ck_assert_int_eq(ppl_trace_size(t), 2);
        ck_assert(ppl_trace_find(t, "x")->is_observed && !ppl_trace_find(t, "z")->is_observed);
        ck_assert_ptr_null(ppl_trace_find(t, "nothing"));
    }
    fine();
}
END_TEST

START_TEST(condition_wins_over_obs_and_replay)
{
    ad_scope {
        ppl_trace *t = ppl_trace_run(chain_model, PPL_ARGS()), *in = ppl_trace_new(), *out = ppl_trace_new(),
                  *un = ppl_trace_new();
        ad_tensor *one = ad_constant(1);
        ppl_with (ppl_record(in))
            ppl_with (ppl_replay(t))
                ppl_with (ppl_condition({ "z", one }, { "x", one }))
                    chain_model();
        ppl_with (ppl_record(out))
            ppl_with (ppl_condition({ "z", one }))
                ppl_with (ppl_replay(t))
                    chain_model();
        ppl_with (ppl_record(un))
            ppl_with (ppl_condition({ "x", NULL }))
                chain_model();
        fine();
        near(ad_item(ppl_trace_value(in, "z")), 1, 0);
        near(ad_item(ppl_trace_value(in, "x")), 1, 0);
        near(ad_item(ppl_trace_value(out, "z")), 1, 0);
        ck_assert(ppl_trace_find(in, "z")->is_observed && ppl_trace_find(out, "z")->is_observed);
        ck_assert(!ppl_trace_find(un, "x")->is_observed);
    }
    fine();
}
END_TEST

START_TEST(replay_leaves_observed_sites_and_refuses_observed_traces)
{
    ad_scope {
        ppl_trace *t = ppl_trace_new(), *again = ppl_trace_new();
        ppl_with (ppl_record(t))
            ppl_sample("x", dist_normal(0, 1));
        ppl_with (ppl_record(again))
            ppl_with (ppl_replay(t))
                chain_model();
        fine();
        near(ad_item(ppl_trace_value(again, "x")), 2, 0);
        ppl_with (ppl_record(t))
            ppl_sample("z", dist_normal(0, 1), .obs = ad_number(0));
        ppl_with (ppl_replay(t))
            chain_model();
        error_says("site \"z\" must be sampled in trace");
    }
}
END_TEST

START_TEST(uncondition_draws)
{
    ad_scope {
        ppl_trace *t = ppl_trace_new();
        ppl_with (ppl_record(t))
            ppl_with (ppl_uncondition())
                chain_model();
        fine();
        ck_assert(!ppl_trace_find(t, "x")->is_observed && ppl_trace_find(t, "x")->infer.was_observed);
        ck_assert(ad_item(ppl_trace_value(t, "x")) != 2);
        ppl_with (ppl_record(t))
            ppl_with (ppl_uncondition("y"))
                chain_model();
        ck_assert(ppl_trace_find(t, "x")->is_observed);
    }
    fine();
}
END_TEST

static bool is_z(const ppl_message *m, void *user)
{
    return (void)user, !strcmp(m->name, "z");
}
static void three(void)
{
    ppl_param("w", AD_SCALAR);
    ppl_sample("z", dist_normal(0, 1));
    ppl_sample("x", dist_normal(0, 1), .obs = ad_number(0));
}
#define RECORDED(t, name) (ppl_trace_find(t, name) != NULL)
#define block_shows(w, z, x, ...)                                                                                      \
    do {                                                                                                               \
        ppl_with (ppl_record(t))                                                                                       \
            ppl_with (ppl_block(__VA_ARGS__))                                                                          \
                three();                                                                                               \
        fine();                                                                                                        \
        ck_assert_int_eq(RECORDED(t, "w"), w);                                                                         \
        ck_assert_int_eq(RECORDED(t, "z"), z);                                                                         \
        ck_assert_int_eq(RECORDED(t, "x"), x);                                                                         \
    } while (0)

START_TEST(block_combinations)
{
    ad_scope {
        ppl_trace *t = ppl_trace_new();
        block_shows(0, 0, 0, .hide = NULL);
        block_shows(1, 0, 1, .hide = PPL_NAMES("z"));
        block_shows(0, 1, 0, .expose = PPL_NAMES("z"));
        block_shows(0, 1, 1, .hide_types = PPL_TYPE(PPL_PARAM));
        block_shows(1, 0, 0, .expose_types = PPL_TYPE(PPL_PARAM));
        block_shows(1, 1, 0, .hide_observed = true);
        block_shows(0, 0, 1, .expose_observed = true);
        block_shows(1, 0, 1, .hide_if = is_z);
        block_shows(0, 0, 1, .expose_types = PPL_TYPE(PPL_SAMPLE), .hide = PPL_NAMES("z"));
    }
}
END_TEST

START_TEST(do_keeps_the_site_and_changes_what_follows)
{
    ad_scope {
        ppl_trace *out = ppl_trace_new(), *plain = NULL;
        ad_tensor *ten = ad_constant(10);
        ppl_with (ppl_seeded(1))
            plain = ppl_trace_run(chain_model, PPL_ARGS());
        ppl_with (ppl_seeded(1))
            ppl_with (ppl_record(out))
                ppl_with (ppl_scale(3))
                    ppl_with (ppl_do({ "z", ten }))
                        chain_model();
        fine();
        near(ad_item(ppl_trace_value(out, "z")), ad_item(ppl_trace_value(plain, "z")), 0);
        near(ad_item(ppl_trace_log_prob(out, "x")), 3 * (-0.5 * 64 - 0.5 * log(2 * M_PI)), 1e-12);
        near(ppl_trace_find(out, "z")->scale, 3, 0);
        ck_assert_int_eq(ppl_trace_size(out), 2);
        ppl_with (ppl_record(out))
            ppl_with (ppl_do({ "z", ten }))
                ppl_with (ppl_scale(3))
                    chain_model();
        near(ppl_trace_find(out, "z")->scale, 3, 0); /* not 9: the stack treats the site once */
    }
    fine();
}
END_TEST

START_TEST(substitute_and_lift)
{
    ad_scope {
        ppl_trace *t = ppl_trace_new();
        ad_tensor *four = ad_constant(4), *sum = NULL;
        ppl_with (ppl_substitute({ "w", four }))
            ppl_module ("net")
                sum = ppl_param("w", AD_SCALAR);
        near(ad_item(sum), 4, 0);
        ck_assert(!ppl_param_exists("net$$$w"));
        ppl_with (ppl_record(t))
            ppl_with (ppl_lift({ "w", dist_normal(5, 1e-9) }))
                sum = ad_sub(ppl_param("w", AD_SCALAR), ppl_param("w", AD_SCALAR));
        fine();
        near(ad_item(sum), 0, 0);
        near(ad_item(ppl_trace_value(t, "w")), 5, 1e-6);
        ck_assert_int_eq(ppl_trace_find(t, "w")->type, PPL_SAMPLE);
        ck_assert(!ppl_param_exists("w"));
    }
    fine();
}
END_TEST

static void all_auxiliary(const ppl_message *m, ppl_infer *infer)
{
    infer->auxiliary = m->name[0] == 'z';
}
START_TEST(scope_scale_mask_infer)
{
    ad_scope {
        ppl_trace *t = ppl_trace_new();
        double half[] = { 1, 0 }, lp[2];
        ad_tensor *mask = ad_from(half, AD_SHAPE(2)), *nan = ad_constant(NAN);
        ppl_with (ppl_record(t))
            ppl_with (ppl_name_scope("in"))
                ppl_with (ppl_scale(2))
                    ppl_with (ppl_scale(0.25))
                        ppl_with (ppl_infer_config(all_auxiliary))
                            chain_model();
        fine();
        near(ppl_trace_find(t, "in/x")->scale, 0.5, 0);
        ck_assert(ppl_trace_find(t, "in/z")->infer.auxiliary && !ppl_trace_find(t, "in/x")->infer.auxiliary);
        ppl_with (ppl_record(t))
            ppl_with (ppl_mask(mask))
                ppl_plate ("p", 2)
                    ppl_sample("x", dist_normal(0, 1), .obs = ad_where(mask, ad_constant(1), nan));
        ad_read(ppl_trace_log_prob(t, "x"), lp, 2);
        fine();
        near(lp[0], -0.5 - 0.5 * log(2 * M_PI), 1e-12);
        near(lp[1], 0, 0);
        ppl_with (ppl_record(t))
            ppl_with (ppl_mask(mask))
                ppl_with (ppl_mask(ad_sub(1, mask)))
                    ppl_plate ("p", 2)
                        ppl_sample("x", dist_normal(0, 1));
        ad_read(ppl_trace_log_prob(t, "x"), lp, 2);
        ck_assert(lp[0] == 0 && lp[1] == 0);
        ad_free(mask);
    }
}
END_TEST

START_TEST(factor_and_deterministic)
{
    ad_scope {
        ppl_trace *t = ppl_trace_new();
        ppl_with (ppl_record(t)) {
            ppl_factor("alone", -2);
            ppl_plate ("p", 4)
                ppl_with (ppl_scale(10))
                    ppl_factor("each", 0.5); /* a scalar counts once a member */
            ppl_deterministic("double", ad_mul(2, ad_ones(3)));
        }
        near(ad_item(ppl_trace_log_prob_sum(t)), -2 + 4 * 10 * 0.5, 1e-12);
        ck_assert_int_eq(ad_size(ppl_trace_value(t, "double")), 3);
        fine();
    }
}
END_TEST

START_TEST(observation_masks)
{
    ad_scope {
        ppl_trace *t = ppl_trace_new();
        double bits[] = { 1, 0, 1 }, data[] = { 5, NAN, 7 }, out[3], drawn[3], lp[3];
        ad_tensor *mask = ad_from(bits, AD_SHAPE(3)), *x = ad_from(data, AD_SHAPE(3)), *v = NULL;
        ppl_with (ppl_record(t))
            ppl_plate ("p", 3)
                v = ppl_sample("x", dist_normal(0, 1), .obs = x, .obs_mask = mask);
        fine();
        ad_read(v, out, 3);
        ad_read(ppl_trace_value(t, "x_unobserved"), drawn, 3);
        ad_read(ppl_trace_log_prob(t, "x_observed"), lp, 3);
        fine();
        near(out[0], 5, 0);
        near(out[1], drawn[1], 0);
        near(out[2], 7, 0);
        near(lp[1], 0, 0);
        near(lp[2], -24.5 - 0.5 * log(2 * M_PI), 1e-12);
        ad_free(mask), ad_free(x);
    }
}
END_TEST

/* ---- names and messages ------------------------------------------------------------------------------------------ */

START_TEST(names_are_one_space)
{
    ad_scope {
        ppl_trace *t = ppl_trace_new();
        ppl_with (ppl_record(t)) {
            ppl_sample("z", dist_normal(0, 1));
            ppl_sample("z", dist_normal(0, 1));
        }
        error_says("Multiple sample sites named \"z\"");
        error_says("test_ppl.c:");
    }
    ad_scope {
        ppl_trace *t = ppl_trace_new();
        ppl_with (ppl_record(t)) {
            ppl_sample("z", dist_normal(0, 1));
            ppl_param("z", AD_SCALAR);
        }
        error_says("is already in the trace as a sample");
    }
    ad_error_clear();
    ppl_sample("z", dist_normal(0, 1));
    error_says("no step or scope is open");
}
END_TEST

START_TEST(shape_table)
{
    char text[400];
    ad_scope {
        ppl_trace *t = ppl_trace_new();
        ppl_with (ppl_record(t)) {
            ppl_param("w", AD_SHAPE(3, 4));
            ppl_plate ("p", 5)
                ppl_sample("z", dist_to_event(dist_normal(ad_zeros(5, 2), 1.0), 1));
        }
        size_t n = ppl_format_shapes(t, text, sizeof text);
        ck_assert_uint_eq(n, strlen(text));
        ck_assert_ptr_nonnull(strstr(text, "w value 3 4"));
        ck_assert_ptr_nonnull(strstr(text, "z dist  5 | 2"));
        ck_assert_ptr_nonnull(strstr(text, "value 5 | 2"));
        char few[8];
        ck_assert_uint_eq(ppl_format_shapes(t, few, sizeof few), n);
        ck_assert_uint_eq(strlen(few), 7);
    }
}
END_TEST

Suite *suite_ppl(void)
{
    Suite *s = suite_create("ppl");
    TCase *t = tcase_create("ppl");
    tcase_add_checked_fixture(t, begin, end);
    tcase_add_test(t, handlers_run_inside_out_and_back);
    tcase_add_test(t, stop_hides_from_those_outside);
    tcase_add_test(t, return_unwinds);
    tcase_add_test(t, a_handler_is_installed_once);
    tcase_add_test(t, order_of_parameters_and_plates);
    tcase_add_test(t, trace_and_replay);
    tcase_add_test(t, condition_wins_over_obs_and_replay);
    tcase_add_test(t, replay_leaves_observed_sites_and_refuses_observed_traces);
    tcase_add_test(t, uncondition_draws);
    tcase_add_test(t, block_combinations);
    tcase_add_test(t, do_keeps_the_site_and_changes_what_follows);
    tcase_add_test(t, substitute_and_lift);
    tcase_add_test(t, scope_scale_mask_infer);
    tcase_add_test(t, factor_and_deterministic);
    tcase_add_test(t, observation_masks);
    tcase_add_test(t, names_are_one_space);
    tcase_add_test(t, shape_table);
    suite_add_tcase(s, t);
    return s;
}
