/* cut.c: a cut sees exactly what begins before it, and only "NUMBER:OFFSET" is one. */
#include "engines/mysql/my.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static bool sees(const char *cut, uint64_t file, uint64_t offset)
{
    struct arena a = ARENA_INIT;
    struct txn txn = {.commit = {file, offset}};
    struct err e = {0};
    void *parsed;
    bool seen;

    assert_int_equal(my_cut_ops.parse(&a, cut, &parsed, &e), 0);
    seen = my_cut_ops.sees(parsed, &txn);
    arena_release(&a);
    return seen;
}

static void test_sees(void **state)
{
    assert_true(sees("42:1234", 42, 1233));
    assert_false(sees("42:1234", 42, 1234));
    assert_false(sees("42:1234", 43, 4));
    assert_true(sees("42:4", 41, UINT64_MAX));
    assert_true(sees("1:18446744073709551615", 1, UINT64_MAX - 1));
}

static void test_refuses(void **state)
{
    static const char *const bad[] = {
        "", ":", "1", "1:", ":1", "0:4", "1:2:3", "1:2 ", "-1:2", " 1:2", "1:18446744073709551616"};
    struct arena a = ARENA_INIT;
    void *parsed;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct err e = {0};

        assert_int_equal(my_cut_ops.parse(&a, bad[i], &parsed, &e), -1);
        assert_int_equal(e.class, ERR_FATAL);
    }
    assert_int_equal(my_cut_ops.parse(&a, NULL, &parsed, NULL), -1);
    arena_release(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sees), cmocka_unit_test(test_refuses)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
