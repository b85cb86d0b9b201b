/* JSON that means the same, and JSON that does not; which columns are compared that way. */
#include "verify/canon.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static bool alike(const char *left, const char *right)
{
    struct buf a;
    struct buf b;
    bool same;

    buf_init(&a, 1 << 20);
    buf_init(&b, 1 << 20);
    assert_true(canon_json(&a, left, strlen(left)));
    assert_true(canon_json(&b, right, strlen(right)));
    same = a.len == b.len && memcmp(a.data, b.data, a.len) == 0;
    buf_release(&a);
    buf_release(&b);
    return same;
}

static bool is_json(const char *text)
{
    struct buf a;
    bool is;

    buf_init(&a, 1 << 20);
    buf_adds(&a, "before");
    is = canon_json(&a, text, strlen(text));
    assert_true(is || a.len == strlen("before"));
    buf_release(&a);
    return is;
}

static void same_meaning(void **state)
{
    static const char *const pairs[][2] = {
        {"{\"b\": 1, \"a\": [1, 2]}", " {\"a\":[1,2],\"b\":1}\n"},
        {"{\"a\":1,\"a\":2}", "{\"a\":2}"},
        {"{\"a\":{\"x\":1,\"c\":null},\"a\":{\"c\":true,\"b\":[{}]}}",
         "{\"a\":{\"b\":[{}],\"c\":true}}"},
        {"100", "1e2"},
        {"100.0", "1E+2"},
        {"-0.00", "0"},
        {"0.010", "1e-2"},
        {"1234567890123456789012345678901234567890",
         "1.234567890123456789012345678901234567890e39"},
        {"\"\\u00e9\\n\\/\"", "\"é\\u000a/\""},
        {"\"\\ud83d\\ude00\"", "\"😀\""},
        {"[]", " [ ] "},
        {"{\"ab\":1,\"a\":2,\"b\":3}", "{\"b\":3,\"a\":2,\"ab\":1}"},
    };

    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        if (!alike(pairs[i][0], pairs[i][1]))
            fail_msg("%s and %s", pairs[i][0], pairs[i][1]);
    }
}

static void other_meaning(void **state)
{
    static const char *const pairs[][2] = {
        {"1", "10"},
        {"1", "-1"},
        {"1", "\"1\""},
        {"0.1", "0.10000000000000001"},
        {"[1,2]", "[2,1]"},
        {"[12]", "[1,2]"},
        {"{\"a\":1}", "{\"A\":1}"},
        {"null", "{}"},
        {"\"a\"", "\"a \""},
        {"{\"a\":1,\"a\":2}", "{\"a\":1}"},
        {"\"\\\"\"", "\"\\\\\""},
        {"{}", "[]"},
        {"\"\\\\n\"", "\"\\n\""},
    };

    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        if (alike(pairs[i][0], pairs[i][1]))
            fail_msg("%s and %s", pairs[i][0], pairs[i][1]);
    }
}

static void not_json(void **state)
{
    static const char *const texts[] = {"",
                                        "{",
                                        "[1,]",
                                        "{\"a\"}",
                                        "tru",
                                        "1 2",
                                        "\"a",
                                        "\"\\x\"",
                                        "\"\\ud800\"",
                                        "-",
                                        "1.",
                                        "1e",
                                        "{\"a\":1,}",
                                        "nullx",
                                        "{1:2}",
                                        "1e9999999999999999"};
    char deep[2001];

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        if (is_json(texts[i]))
            fail_msg("%s", texts[i]);
    }
    memset(deep, '[', 1000);
    memset(deep + 1000, ']', 1000);
    deep[2000] = '\0';
    assert_false(is_json(deep));
    assert_true(is_json("[[[]]]"));
}

static void which_columns(void **state)
{
    static char names[][10] = {"json", "jsonb", "longtext"};
    struct column json = {.kind = TYPE_JSON, .source_type = names[0]};
    struct column jsonb = {.kind = TYPE_JSON, .source_type = names[1]};
    struct column plain = {.kind = TYPE_JSON, .source_type = names[2]};
    struct column text = {.kind = TYPE_TEXT, .source_type = names[2]};

    assert_false(canon_wanted(&json, false, &json, false));
    assert_false(canon_wanted(&jsonb, false, &jsonb, false));
    assert_true(canon_wanted(&json, false, &jsonb, false));
    assert_true(canon_wanted(&jsonb, false, &json, true));
    assert_true(canon_wanted(&json, true, &json, false));
    assert_false(canon_wanted(&json, true, &json, true));
    assert_true(canon_wanted(&plain, true, &json, true));
    assert_false(canon_wanted(&plain, true, &json, false));
    assert_false(canon_wanted(&text, true, &text, false));
}

static void rows(void **state)
{
    struct arena a = ARENA_INIT;
    bool wanted[3] = {false, true, true};
    struct row *r = row_new(&a, 3);
    const struct row *c;

    r->v[0] = (struct value){VALUE_SET, 4, "[ ] "};
    r->v[1] = (struct value){VALUE_SET, 4, "[ ] "};
    c = canon_row(&a, wanted, r);
    assert_true(value_equal(&c->v[0], &r->v[0]));
    assert_false(value_equal(&c->v[1], &r->v[1]));
    assert_int_equal(c->v[2].state, VALUE_NULL);
    assert_ptr_equal(canon_row(&a, NULL, r), r);
    arena_release(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_meaning), cmocka_unit_test(other_meaning),
        cmocka_unit_test(not_json),     cmocka_unit_test(which_columns),
        cmocka_unit_test(rows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
