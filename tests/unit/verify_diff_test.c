/* Buckets and the second reading, on rows in memory: exactly what differs is told, by key. */
#include "verify/diff.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COLUMNS 4
#define LINES_MAX 64

static struct column columns[COLUMNS] = {
    {.name = "id", .kind = TYPE_INT64, .key = 1, .not_null = true},
    {.name = "note", .kind = TYPE_TEXT},
    {.name = "blob", .kind = TYPE_BYTES},
    {.name = "twice", .kind = TYPE_INT64, .generated = true},
};
static size_t key_columns[] = {0};
static struct table keyed = {.schema = "public",
                             .name = "orders",
                             .ncolumns = COLUMNS,
                             .columns = columns,
                             .nkey = 1,
                             .key = key_columns};
static struct table keyless = {
    .schema = "public", .name = "log", .ncolumns = COLUMNS, .columns = columns};

static struct arena arena;
static char *lines[LINES_MAX];
static size_t nlines;

static void take(const char *line, void *ctx)
{
    assert_true(nlines < LINES_MAX);
    lines[nlines++] = arena_strdup(&arena, line);
}

/* NULL: SQL's NULL. */
static const struct row *row(const char *id, const char *note, const char *blob, const char *twice)
{
    const char *texts[COLUMNS] = {id, note, blob, twice};
    struct row *r = row_new(&arena, COLUMNS);

    for (size_t i = 0; i < COLUMNS; i++) {
        if (texts[i])
            r->v[i] = (struct value){VALUE_SET, strlen(texts[i]), texts[i]};
    }
    return r;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The way back: what is called the source here is what users call the target. */
static bool back;

/* Both readings, as verify.c does them; the lines come sorted. */
static uint64_t compare_in(const struct table *t, const struct row *const *source, size_t nsource,
                           const struct row *const *target, size_t ntarget, uint64_t passes)
{
    static struct bucket_set sets[2];
    bool differs[BUCKETS];
    struct diff_out out = {take, NULL, 0, back};
    struct hasher *h = hasher_new();
    struct diff *d;
    uint64_t rows;

    memset(sets, 0, sizeof(sets));
    nlines = 0;
    for (size_t i = 0; i < nsource; i++)
        bucket_add(&sets[0], h, t, source[i]);
    for (size_t i = 0; i < ntarget; i++)
        bucket_add(&sets[1], h, t, target[i]);
    hasher_free(h);
    if (bucket_compare(&sets[0], &sets[1], differs, &rows) == 0)
        return 0;
    d = diff_new(t, differs, &out);
    for (uint64_t pass = 0; pass < passes; pass++) {
        diff_pass(d, pass, passes);
        for (size_t i = 0; i < nsource; i++)
            diff_source(d, source[i]);
        for (size_t i = 0; i < ntarget; i++)
            diff_target(d, target[i]);
        diff_end(d);
    }
    diff_free(d);
    qsort(lines, nlines, sizeof(lines[0]), by_text);
    return out.differences;
}

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define compare(t, s, g) compare_in(t, s, COUNT(s), g, COUNT(g), 1)

static void test_equal(void **state)
{
    const struct row *source[] = {row("1", "a", "x", "2"), row("2", NULL, NULL, "4"),
                                  row("3", "", "", "6")};
    /* Another order, and what the server computes is not compared. */
    const struct row *target[] = {row("3", "", "", NULL), row("1", "a", "x", "9"),
                                  row("2", NULL, NULL, "4")};

    assert_int_equal(compare(&keyed, source, target), 0);
}

static void test_each_kind(void **state)
{
    const struct row *source[] = {row("1", "a", "x", NULL), row("2", "b", "y", NULL),
                                  row("3", "", "z", NULL), row("4", "d", NULL, NULL)};
    const struct row *target[] = {row("1", "a", "x", NULL), row("2", "B", "Y", NULL),
                                  row("3", NULL, "z", NULL), row("5", "d", NULL, NULL)};

    assert_int_equal(compare(&keyed, source, target), 4);
    assert_int_equal(nlines, 4);
    assert_string_equal(lines[0], "public.orders (id)=(2): differs: note, blob");
    assert_string_equal(lines[1], "public.orders (id)=(3): differs: note");
    assert_string_equal(lines[2], "public.orders (id)=(4): missing on target");
    assert_string_equal(lines[3], "public.orders (id)=(5): missing on source");
}

/* The sides keep the names that users know, whichever way is compared along. */
static void test_the_way_back(void **state)
{
    const struct row *lives[] = {row("1", "a", NULL, NULL)};
    const struct row *closed[] = {row("2", "b", NULL, NULL)};

    back = true;
    assert_int_equal(compare(&keyed, lives, closed), 2);
    back = false;
    assert_string_equal(lines[0], "public.orders (id)=(1): missing on source");
    assert_string_equal(lines[1], "public.orders (id)=(2): missing on target");
}

/* A value may not slip from one column into the next. */
static void test_columns_have_ends(void **state)
{
    const struct row *source[] = {row("1", "a\x01", "c", NULL)};
    const struct row *target[] = {row("1", "a",
                                      "\x01"
                                      "c",
                                      NULL)};

    assert_int_equal(compare(&keyed, source, target), 1);
    assert_string_equal(lines[0], "public.orders (id)=(1): differs: note, blob");
}

static void test_keyless_is_a_multiset(void **state)
{
    const struct row *source[] = {row("1", "a", NULL, NULL), row("1", "a", NULL, NULL),
                                  row("2", "b", NULL, NULL)};
    const struct row *target[] = {row("1", "a", NULL, NULL), row("2", "b", NULL, NULL),
                                  row("2", "b", NULL, NULL)};

    assert_int_equal(compare(&keyless, source, source), 0);
    assert_int_equal(compare(&keyless, source, target), 2);
    assert_string_equal(lines[0],
                        "public.log (id, note, blob, twice)=(1, a, NULL, NULL): missing on target");
    assert_string_equal(lines[1],
                        "public.log (id, note, blob, twice)=(2, b, NULL, NULL): missing on source");
}

/* With XOR instead of a sum two equal rows would cancel each other, whatever they are. */
static void test_pairs_do_not_cancel(void **state)
{
    struct bucket a = {0};
    struct hasher *h = hasher_new();
    struct digest d = hasher_row(h, &keyless, row("1", "a", NULL, NULL));

    a.sum = digest_add(digest_add(a.sum, d), d);
    assert_false(a.sum.high == 0 && a.sum.low == 0);
    hasher_free(h);
}

static void test_duplicate_on_target(void **state)
{
    const struct row *source[] = {row("1", "a", NULL, NULL)};
    const struct row *target[] = {row("1", "a", NULL, NULL), row("1", "a", NULL, NULL)};

    assert_int_equal(compare(&keyed, source, target), 1);
    assert_string_equal(lines[0], "public.orders (id)=(1): missing on source");
}

/* However many passes: each difference is told once. */
static void test_passes(void **state)
{
    const struct row *source[200];
    const struct row *target[200];

    for (size_t i = 0; i < 200; i++) {
        const char *id = arena_printf(&arena, "%zu", i);

        source[i] = row(id, "a", NULL, NULL);
        target[i] = row(id, i % 10 == 3 ? "b" : "a", NULL, NULL);
    }
    for (uint64_t passes = 1; passes < 9; passes += 2) {
        assert_int_equal(compare_in(&keyed, source, 200, target, 200, passes), 20);
        assert_int_equal(nlines, 20);
        assert_string_equal(lines[0], "public.orders (id)=(103): differs: note");
    }
    assert_int_equal(diff_passes(&keyed, 0), 1);
    assert_true(diff_passes(&keyed, 10000000) > 10);
}

/* Large values go to the hash around the gathering buffer; the outcome must not depend on it. */
static void test_large_values(void **state)
{
    char *text = arena_alloc(&arena, 20001);
    char *other;
    const struct row *source[1];
    const struct row *target[1];

    memset(text, 'x', 20000);
    text[20000] = '\0';
    other = arena_strdup(&arena, text);
    source[0] = row("1", text, "tail", NULL);
    target[0] = row("1", other, "tail", NULL);
    assert_int_equal(compare(&keyed, source, target), 0);
    other[19999] = 'y';
    assert_int_equal(compare(&keyed, source, target), 1);
    assert_string_equal(lines[0], "public.orders (id)=(1): differs: note");
}

/* A row's text stays on one line. */
static void test_print(void **state)
{
    struct buf out;

    buf_init(&out, 1000);
    diff_print_key(&out, &keyless, row("1", "a\nb\x01", "\xff\x01", NULL));
    assert_string_equal(out.data,
                        "public.log (id, note, blob, twice)=(1, a\\nb\\x01, \\xff01, NULL)");
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal),
        cmocka_unit_test(test_each_kind),
        cmocka_unit_test(test_the_way_back),
        cmocka_unit_test(test_columns_have_ends),
        cmocka_unit_test(test_keyless_is_a_multiset),
        cmocka_unit_test(test_pairs_do_not_cancel),
        cmocka_unit_test(test_duplicate_on_target),
        cmocka_unit_test(test_passes),
        cmocka_unit_test(test_large_values),
        cmocka_unit_test(test_print),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    arena_release(&arena);
    return failed;
}
