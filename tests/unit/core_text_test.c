/* core/text.c: what is UTF-8, and what only looks like it. */
#include "core/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static bool is(const char *s)
{
    return text_is_utf8(s, strlen(s));
}

static void test_well_formed(void **state)
{
    assert_true(is(""));
    assert_true(is("\x7f \xc2\x80 \xdf\xbf \xe0\xa0\x80 \xef\xbf\xbf \xf0\x90\x80\x80"));
    assert_true(is("\xed\x9f\xbf \xee\x80\x80 \xf4\x8f\xbf\xbf"));
    assert_true(text_is_utf8("\0\0\0\0\0\0\0\0\0", 9));
}

static void test_not(void **state)
{
    static const char *const cases[] = {
        "\x80",             /* a middle without a beginning */
        "\xc3",             /* cut off */
        "\xe2\x82",         /* cut off */
        "\xc3(",            /* another character instead of the middle */
        "\xc0\x80",         /* overlong */
        "\xe0\x9f\xbf",     /* overlong */
        "\xf0\x8f\xbf\xbf", /* overlong */
        "\xed\xa0\x80",     /* the first half of a surrogate pair */
        "\xed\xbf\xbf",     /* a last one */
        "\xf4\x90\x80\x80", /* U+110000 */
        "\xf5\x80\x80\x80",
        "\xfe",
        "\xff",
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[40] = "before, ";

        if (is(cases[i]))
            fail_msg("case %zu", i);
        strcat(text, cases[i]);
        strcat(text, " and behind");
        if (is(text))
            fail_msg("case %zu among others", i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_well_formed),
        cmocka_unit_test(test_not),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
