/* Plates of ppl: expansion, dimensions, reuse, subsampling, loops. In double precision. */
#include "tests/fixture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- plates ------------------------------------------------------------------------------------------------------ */

START_TEST(plates_expand_and_claim_dimensions)
{
    ad_scope {
        ppl_trace *t = ppl_trace_new();
        ad_tensor *x = NULL, *y = NULL, *e = NULL;
        ppl_with (ppl_record(t))
            ppl_plate ("rows", 3) {
                x = ppl_sample("x", dist_normal(0, 1));
                ppl_plate ("columns", 2)
                    y = ppl_sample("y", dist_normal(x, 1)); /* the outer one has -1 */
                ppl_plate ("far", 5, .dim = -4)
                    e = ppl_sample("e", dist_to_event(dist_normal(ad_zeros(1, 7), 1.0), 1));
            }
        fine();
        ck_assert_int_eq(ad_rank(x), 1);
        ad_shape s = ad_shape_of(y), f = ad_shape_of(e);
        ck_assert(s.rank == 2 && s.dim[0] == 2 && s.dim[1] == 3);
        ck_assert(f.rank == 5 && f.dim[0] == 5 && f.dim[1] == 1 && f.dim[3] == 3 && f.dim[4] == 7);
        double v[6];
        ad_read(y, v, 6);
        ck_assert(v[0] != v[3]); /* independent draws */
        ad_item(ppl_trace_log_prob_sum(t));
        fine();
    }
}
END_TEST

START_TEST(plates_may_come_back)
{
    ad_scope {
        for (int i = 0; i < 2; i++)
            ppl_plate ("p", 3)
                ppl_sample(i ? "a" : "b", dist_normal(0, 1));
        fine();
        ppl_plate ("p", 4)
            ck_assert(!ad_ok());
        error_says("duplicate plate \"p\"");
    }
    ad_scope {
        ppl_plate ("p", 3)
            ppl_plate ("p", 3)
                ck_assert(!ad_ok());
        error_says("duplicate plate");
    }
    ad_scope {
        ppl_plate ("p", 3, .dim = -1)
            ppl_plate ("q", 2, .dim = -1)
                ck_assert(!ad_ok());
        error_says("at plates \"q\" and \"p\", collide at dim=-1");
    }
}
END_TEST

START_TEST(subsampling)
{
    ad_scope {
        ppl_trace *t = ppl_trace_new();
        ad_tensor *index = NULL, *rows = NULL;
        double data[20], got[4];
        int64_t i[4];
        for (int k = 0; k < 20; k++)
            data[k] = 100 + k;
        ad_tensor *x = ad_from(data, AD_SHAPE(20));
        ppl_with (ppl_record(t))
            ppl_plate ("p", 20, .subsample_size = 4, .index = &index) {
                rows = ppl_subsample(x, 0);
                ppl_sample("x", dist_normal(0, 1), .obs = rows);
            }
        ad_read(index, i, 4);
        ad_read(rows, got, 4);
        fine();
        for (int k = 0; k < 4; k++) {
            near(got[k], (double)(100 + i[k]), 0);
            for (int j = 0; j < k; j++)
                ck_assert(i[j] != i[k]);
        }
        ad_free(x);
    }
    ad_scope {
        ad_tensor *all = NULL;
        int64_t i[5];
        ppl_trace *t = ppl_trace_new();
        ppl_with (ppl_record(t)) {
            ppl_plate ("whole", 5, .index = &all)
                ppl_sample("a", dist_normal(0, 1));
            ppl_plate ("part", 60, .subsample_size = 6)
                ppl_sample("b", dist_normal(0, 1));
            ppl_plate ("batch", 6, .full_size = 600)
                ppl_sample("c", dist_normal(0, 1));
        }
        ad_read(all, i, 5);
        for (int k = 0; k < 5; k++)
            ck_assert_int_eq(i[k], k);
        near(ppl_trace_find(t, "a")->scale, 1, 0);
        near(ppl_trace_find(t, "b")->scale, 10, 0);
        near(ppl_trace_find(t, "c")->scale, 100, 0);
        fine();
    }
}
END_TEST

START_TEST(sequential_plates)
{
    int seen = 0;
    ad_scope {
        ppl_trace *t = ppl_trace_new();
        ppl_with (ppl_record(t))
            ppl_each (i, "rows", 6, .full_size = 12) {
                char name[16];
                if (i == 1)
                    continue;
                if (i == 5)
                    break;
                snprintf(name, sizeof name, "x%d", (int)i);
                ppl_sample(name, dist_normal(0, 1));
                seen++;
            }
        fine();
        ck_assert_int_eq(seen, 4);
        near(ppl_trace_find(t, "x3")->scale, 2, 0);
        ck_assert_int_eq(ppl_trace_find(t, "x3")->frame[0]->counter, 3);
        ck_assert_int_eq(ppl_trace_find(t, "x3")->frame[0]->dim, 0);
        ppl_sample("after", dist_normal(0, 1));
        seen = 0;
        ppl_each (i, "some", 50, .subsample_size = 5)
            seen += i >= 0 && i < 50;
        ck_assert_int_eq(seen, 5);
        fine();
    }
    ad_scope {
        ad_tensor *index = NULL;
        int64_t member[40], want[20];
        int n = 0;
        ad_counters before = ad_count();
        for (int round = 0; round < 2; round++) /* the same members when the plate comes back */
            ppl_each (i, "some", 50, .subsample_size = 20, .index = &index)
                member[n++] = i;
        ad_counters since = ad_count();
        fine();
        ck_assert_int_eq(n, 40);
        ad_read(index, want, 20);
        for (int k = 0; k < 40; k++)
            ck_assert_int_eq(member[k], want[k % 20]);
        ck_assert_uint_eq(since.hits + since.misses, before.hits + before.misses + 1); /* read in one run */
    }
}
END_TEST

/* ---- entered by hand --------------------------------------------------------------------------------------------- */

static void __attribute__((noinline)) enter_and_go(const char *plate, const char *module)
{
    if (plate) {
        ppl_plate_scope p = ppl_plate_begin((ppl_plate_args){ .name = plate, .size = 3 });
        ppl_plate_enter(&p);
    }
    if (module) {
        ppl_module_scope m = ppl_module_begin(module);
        ppl_module_enter(&m);
    }
}

static void expect(const char *text)
{
    ck_assert_msg(strstr(ad_error(), text) != NULL, "want \"%s\" in: %s", text, ad_error());
    ad_error_clear();
}

/* What the scope leaves behind: a site is a scalar again, and a parameter's name has no prefix. */
static void expect_nothing_open(void)
{
    ad_scope {
        ck_assert_int_eq(ad_rank(ppl_sample("x", dist_normal(ppl_param("free", AD_SCALAR), 1))), 0);
        fine();
    }
    ck_assert(ppl_param_exists("free"));
}

START_TEST(what_is_never_left_ends_with_its_scope)
{
    for (int i = 0; i < 4; i++) {
        ad_scope enter_and_go(i != 1 ? "p" : NULL, i > 0 ? "m" : NULL);
        expect("was not left");
        expect_nothing_open();
    }
    ad_scope {
        ppl_scope with = ppl_with_value(ppl_scale(2));
        ppl_scope_enter(&with);
        enter_and_go("p", "m");
        ppl_scope_leave(&with); /* ends what was entered inside it, too */
        ppl_scope_leave(&with);
        ck_assert_int_eq(ad_rank(ppl_sample("x", dist_normal(0, 1))), 0);
    }
    ad_error_clear();
    expect_nothing_open();
}
END_TEST

START_TEST(leaving_twice_and_in_the_wrong_order)
{
    ppl_plate_scope a, b;
    ppl_module_scope m;
    ad_scope {
        a = ppl_plate_begin((ppl_plate_args){ .name = "a", .size = 3 });
        ppl_plate_enter(&a);
        b = ppl_plate_begin((ppl_plate_args){ .name = "b", .size = 2 });
        ppl_plate_enter(&b);
        ppl_plate_leave(&b);
        ppl_plate_leave(&b);
        ck_assert_int_eq(ad_rank(ppl_sample("x", dist_normal(0, 1))), 1);
        ppl_plate_leave(&a);
        m = ppl_module_begin("m");
        ppl_module_enter(&m);
        ppl_module_leave(&m);
        ppl_module_leave(&m);
        fine();
    }
    ad_scope {
        a = ppl_plate_begin((ppl_plate_args){ .name = "a", .size = 3 });
        ppl_plate_enter(&a);
        b = ppl_plate_begin((ppl_plate_args){ .name = "b", .size = 2 });
        ppl_plate_enter(&b);
        ppl_plate_leave(&a);
        ppl_plate_leave(&b);
    }
    expect("plate \"a\" is left before what was entered inside it");
    ppl_plate_leave(&a); /* long after their scope */
    ppl_plate_leave(&b);
    ppl_module_leave(&m);
    expect_nothing_open();
}
END_TEST

Suite *suite_plates(void)
{
    Suite *s = suite_create("plates");
    TCase *t = tcase_create("plates");
    tcase_add_checked_fixture(t, begin, end);
    tcase_add_test(t, plates_expand_and_claim_dimensions);
    tcase_add_test(t, plates_may_come_back);
    tcase_add_test(t, subsampling);
    tcase_add_test(t, sequential_plates);
    tcase_add_test(t, what_is_never_left_ends_with_its_scope);
    tcase_add_test(t, leaving_twice_and_in_the_wrong_order);
    suite_add_tcase(s, t);
    return s;
}
