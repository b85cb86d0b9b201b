/* Exit codes, which scripts rely on (design.md §8). */
#include "cli/output.c"

#include <setjmp.h>
#include <stddef.h>

#include <cmocka.h>

static void test_exit_codes(void **state)
{
    static const struct {
        enum err_class class;
        int code;
    } cases[] = {{ERR_NONE, 0},     {ERR_RETRY, 1},  {ERR_CONFLICT, 1}, {ERR_DATA, 1},
                 {ERR_UNKNOWN, 1},  {ERR_FENCED, 1}, {ERR_CONFIG, 2},   {ERR_REFUSED, 4},
                 {ERR_STOPPED, 75}, {ERR_FATAL, 1},  {ERR_BUG, 1}};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(exit_code_of(cases[i].class), cases[i].code);
    assert_int_equal(EXIT_DIFFERENT, 3);
}

/* Nobody can answer a question here: the command was not said whole, unless with --yes. */
static void test_confirm(void **state)
{
    struct command command = {.name = "finish"};
    struct cli c = {.command = &command, .json = true};
    struct err e;

    assert_int_equal(cli_confirm(&c, "?", &e), -1);
    assert_int_equal(e.class, ERR_CONFIG);
    c.yes = true;
    assert_int_equal(cli_confirm(&c, "?", &e), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exit_codes),
        cmocka_unit_test(test_confirm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
