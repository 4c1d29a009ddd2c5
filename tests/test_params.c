/* The parameter store of ppl: initial values, constraints, later visits, rows in plates. In double precision. */
#include "tests/fixture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- parameters -------------------------------------------------------------------------------------------------- */

START_TEST(parameters_live_on)
{
    double w[6], v = 0;
    const double given[] = { 1, 2, 3 };
    ad_scope {
        ppl_module ("net")
            ppl_module ("fc1")
                ppl_param("weight", AD_SHAPE(2, 3), .init = ppl_randn(0.5));
        ppl_param("scale", AD_SCALAR, .init = ppl_constant(3), .constraint = dist_positive());
        ppl_param("given", AD_SHAPE(3), .init = ppl_values(given));
        ppl_param("unit", AD_SHAPE(2), .init = ppl_uniform(0.2, 0.4), .constraint = dist_interval(0, 0.5));
        ppl_param("plain", AD_SCALAR, .constraint = dist_positive());
    }
    fine();
    ck_assert_int_eq(ppl_param_count(), 5);
    ck_assert_str_eq(ppl_param_name(0), "net$$$fc1$$$weight");
    ck_assert(ppl_param_value("net$$$fc1$$$weight", w, 6));
    ck_assert(w[0] != w[1] && fabs(w[0]) < 3);
    ck_assert(ppl_param_value("scale", &v, 1));
    near(v, 3, 1e-14);
    ck_assert(ppl_param_value("plain", &v, 1));
    near(v, 1, 0);
    ck_assert(ppl_param_value("given", w, 3));
    near(w[2], 3, 0);
    ck_assert(ppl_param_value("unit", w, 2));
    ck_assert(w[0] > 0.2 && w[0] < 0.4 && w[0] != w[1]);
    v = 8;
    ck_assert(ppl_param_set("scale", &v, 1));
    ad_scope
        near(ad_item(ppl_param("scale", AD_SCALAR, .constraint = dist_positive())), 8, 1e-13);
    v = -1;
    ck_assert(!ppl_param_set("scale", &v, 1));
    error_says("must be positive");
    ck_assert(!ppl_param_value("scala", &v, 1));
    error_says("there is no parameter \"scala\"");
    ck_assert(!ppl_param_value("given", w, 2));
    error_says("shape (3,)");
    ck_assert_int_eq(ppl_param_delete("net$$$*"), 1);
    ck_assert_int_eq(ppl_param_delete("*a*"), 2); /* scale, plain */
    ck_assert_int_eq(ppl_param_count(), 2);
    ck_assert_int_eq(ppl_param_delete(NULL), 2);
}
END_TEST

START_TEST(initial_values_depend_on_seed_and_name)
{
    double a[4], b[4], other[4];
    ppl_seed(3);
    ad_scope {
        ppl_param("b", AD_SHAPE(4), .init = ppl_randn(1));
        ppl_param("a", AD_SHAPE(4), .init = ppl_randn(1));
    }
    ppl_param_value("a", a, 4);
    ppl_param_delete(NULL);
    ad_scope
        ppl_param("a", AD_SHAPE(4), .init = ppl_randn(1));
    ppl_param_value("a", b, 4);
    ck_assert(!memcmp(a, b, sizeof a));
    ppl_seed(4);
    ppl_param_delete(NULL);
    ad_scope {
        ppl_param("a", AD_SHAPE(4), .init = ppl_randn(1));
        ppl_param("b", AD_SHAPE(4), .init = ppl_randn(1));
    }
    ppl_param_value("a", b, 4);
    ppl_param_value("b", other, 4);
    ck_assert(memcmp(a, b, sizeof a) && memcmp(b, other, sizeof b));
}
END_TEST

START_TEST(a_later_visit_must_agree)
{
    ad_scope
        ppl_param("w", AD_SHAPE(3, 4));
    ad_scope {
        ppl_param("w", AD_SHAPE(4, 3));
        error_says("parameter \"w\" has shape (3, 4) since its first visit, and shape (4, 3) here");
    }
    ad_scope {
        ppl_param("w", AD_SHAPE(3, 4), .constraint = dist_positive());
        error_says("constrained");
        error_says("ppl_param_delete");
    }
    ad_scope {
        ppl_param("v", AD_SCALAR, .init = ppl_constant(-1), .constraint = dist_positive());
        error_says("must be positive");
    }
    ck_assert(!ppl_param_exists("v"));
    ad_scope {
        ppl_param("w", AD_SHAPE(3, 4));
        fine();
    }
}
END_TEST

START_TEST(rows_of_a_parameter_in_a_plate)
{
    ad_scope {
        ad_tensor *w = NULL, *index = NULL, *same = NULL;
        double v[8], all[40], one[40];
        int64_t i[4];
        ppl_plate ("p", 20, .subsample_size = 4, .index = &index) {
            w = ppl_param("w", AD_SHAPE(20, 2), .init = ppl_randn(1), .event_dim = 1);
            same = ppl_param("w", AD_SHAPE(20, 2), .init = ppl_randn(1));
        }
        ad_read(w, v, 8), ad_read(index, i, 4), ad_read(same, all, 40);
        for (int k = 0; k < 8; k++)
            near(v[k], all[2 * i[k / 2] + k % 2], 0);
        ad_tensor *g = NULL;
        ad_gradient(ad_sum(w), (ad_tensor *[]){ same }, 1, &g);
        ad_read(g, one, 40);
        for (int k = 0; k < 40; k++) {
            bool taken = false;
            for (int j = 0; j < 4; j++)
                taken |= i[j] == k / 2;
            near(one[k], taken, 0);
        }
        fine();
        ppl_plate ("q", 7, .subsample_size = 4)
            ppl_param("w", AD_SHAPE(20, 2), .event_dim = 1);
        error_says("inside plate \"q\" of size 7: invalid shape of parameter \"w\"");
    }
}
END_TEST

Suite *suite_params(void)
{
    Suite *s = suite_create("params");
    TCase *t = tcase_create("params");
    tcase_add_checked_fixture(t, begin, end);
    tcase_add_test(t, parameters_live_on);
    tcase_add_test(t, initial_values_depend_on_seed_and_name);
    tcase_add_test(t, a_later_visit_must_agree);
    tcase_add_test(t, rows_of_a_parameter_in_a_plate);
    suite_add_tcase(s, t);
    return s;
}
