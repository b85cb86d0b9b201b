/* visible.c: the same answers as pg_visible_in_snapshot(), and no guess for a text that is not a
 * snapshot. */
#include "engines/postgres/visible.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct arena arena;

static bool visible(const char *cut, uint64_t xid)
{
    struct txn txn = {.xid = xid};
    struct err e;
    void *parsed = NULL;

    assert_int_equal(pg_cut_ops.parse(&arena, cut, &parsed, &e), 0);
    return pg_cut_ops.sees(parsed, &txn);
}

static void test_edges(void **state)
{
    assert_true(visible("10:20:12,15", 9));
    assert_true(visible("10:20:12,15", 10));
    assert_true(visible("10:20:12,15", 11));
    assert_false(visible("10:20:12,15", 12));
    assert_true(visible("10:20:12,15", 13));
    assert_false(visible("10:20:12,15", 15));
    assert_true(visible("10:20:12,15", 19));
    assert_false(visible("10:20:12,15", 20));
    assert_false(visible("10:20:12,15", 21));
    assert_false(visible("10:10:", 10));
    assert_true(visible("10:10:", 9));
    assert_false(visible("10:20:10", 10));
    assert_false(visible("10:20:19", 19));
    assert_false(visible("10:20:12,12,15", 12));
}

static void test_wide(void **state)
{
    const char *cut = "4294967290:4294967310:4294967296,4294967299";

    assert_false(visible(cut, 4294967296u));
    assert_true(visible(cut, 4294967297u));
    assert_true(visible(cut, 0u));
    assert_false(visible("1:2:", 4294967297u));
    assert_true(visible("18446744073709551614:18446744073709551615:", 18446744073709551613u));
    assert_false(visible("1:18446744073709551615:", 18446744073709551615u));
}

static void test_hostile(void **state)
{
    static const char *const bad[] = {"",
                                      ":",
                                      "::",
                                      "1",
                                      "1:",
                                      "1:2",
                                      ":1:2",
                                      "a:2:",
                                      "1:b:",
                                      "0:2:",
                                      "3:2:",
                                      "1:2:,",
                                      "1:5:2,",
                                      "1:5:,2",
                                      "1:5:2,,3",
                                      "1:5:0",
                                      "1:5:5",
                                      "1:5:3,2",
                                      "1:5:2 ",
                                      " 1:5:2",
                                      "-1:5:2",
                                      "+1:5:2",
                                      "1:18446744073709551616:",
                                      "1:5:2x",
                                      "1:5:2:3",
                                      "18446744073709551617:2:",
                                      "0x1:5:"};
    struct err e;
    void *parsed;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        err_clear(&e);
        if (pg_cut_ops.parse(&arena, bad[i], &parsed, &e) == 0)
            fail_msg("\"%s\" was taken for a snapshot", bad[i]);
        assert_int_equal(e.class, ERR_FATAL);
    }
    assert_int_equal(pg_cut_ops.parse(&arena, NULL, &parsed, &e), -1);
}

/* Against a slow, plain reading of the definition. */
static void test_random(void **state)
{
    srand(7);
    for (int run = 0; run < 2000; run++) {
        char cut[600];
        bool running[64] = {0};
        int xmin = 1 + rand() % 40;
        int xmax = xmin + rand() % 24;
        int len = snprintf(cut, sizeof(cut), "%d:%d:", xmin, xmax);
        bool first = true;

        for (int xid = xmin; xid < xmax; xid++) {
            running[xid] = rand() % 3 == 0;
            if (!running[xid])
                continue;
            len += snprintf(cut + len, sizeof(cut) - (size_t)len, "%s%d", first ? "" : ",", xid);
            first = false;
        }
        for (int xid = 0; xid < 64; xid++)
            assert_int_equal(visible(cut, (uint64_t)xid),
                             xid < xmin || (xid < xmax && !running[xid]));
        arena_reset(&arena);
    }
}

static void test_widen(void **state)
{
    assert_int_equal(pg_widen_xid(1000, 990), 990);
    assert_int_equal(pg_widen_xid(1000, 1010), 1010);
    assert_int_equal(pg_widen_xid(4294967300u, 4294967290u), 4294967290u);
    assert_int_equal(pg_widen_xid(4294967290u, 5), 4294967301u);
    assert_int_equal(pg_widen_xid(8589934592u + 7, 3), 8589934592u + 3);
    assert_int_equal(pg_widen_xid(8589934592u + 7, 4294967295u), 8589934591u);
}

static int release(void **state)
{
    arena_release(&arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_edges),  cmocka_unit_test(test_wide),  cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_random), cmocka_unit_test(test_widen),
    };

    return cmocka_run_group_tests(tests, NULL, release);
}
