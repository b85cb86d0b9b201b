/* The prediction's arithmetic, and the record as a page. */
#include "cutover/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void fill(int64_t ms[PARTS][PREDICT_ROUNDS], int64_t value)
{
    for (int p = 0; p < PARTS; p++) {
        for (int i = 0; i < PREDICT_ROUNDS; i++)
            ms[p][i] = value;
    }
}

static void test_a_part_counts_as_often_as_the_pause_has_it(void **state)
{
    int64_t ms[PARTS][PREDICT_ROUNDS];
    struct spread each[PARTS];
    struct spread sum;

    (void)state;
    fill(ms, 0);
    memcpy(ms[PART_DRAIN], (int64_t[]){50, 10, 30, 20, 40}, sizeof(ms[0]));
    sum = predict_sum(ms, PREDICT_ROUNDS, each);
    assert_int_equal(each[PART_DRAIN].low, 20);
    assert_int_equal(each[PART_DRAIN].expected, 60);
    assert_int_equal(each[PART_DRAIN].high, 102);
    assert_int_equal(sum.low, 20);
    assert_int_equal(sum.expected, 60);
    /* Two drains, two sequences, two moves of the closing side's fence, one of the other's. */
    assert_int_equal(each[PART_SEQUENCES].high, 2);
    assert_int_equal(each[PART_FENCE].high, 2);
    assert_int_equal(each[PART_OPEN].high, 1);
    assert_int_equal(each[PART_RECORD].high, 4);
}

static void test_a_writer_is_bounded_by_the_grace(void **state)
{
    int64_t ms[PARTS][PREDICT_ROUNDS];
    struct spread each[PARTS];

    (void)state;
    fill(ms, 3);
    predict_sum(ms, PREDICT_ROUNDS, each);
    assert_int_equal(each[PART_WRITERS].low, 6);
    assert_int_equal(each[PART_WRITERS].expected, 6);
    assert_int_equal(each[PART_WRITERS].high, GRACE_MS + 3 + 2);
    /* One was met that would have been ended: that takes time, too. */
    ms[PART_WRITERS][2] = GRACE_MS + 1;
    predict_sum(ms, PREDICT_ROUNDS, each);
    assert_int_equal(each[PART_WRITERS].high, 2 * GRACE_MS + 3 + 2);
}

static void test_only_what_stands_in_every_round_stands(void **state)
{
    struct fence_report some = {.nprepared = 3, .prepared = {7, 8, 9}};
    struct fence_report others = {.nprepared = 3, .prepared = {9, 1, 7}};
    struct fence_report one = {.nprepared = 1, .prepared = {8}};
    struct predict p = {0};

    (void)state;
    predict_prepared(&p, &some);
    p.rounds++;
    assert_int_equal(p.nstanding, 3);
    predict_prepared(&p, &others);
    p.rounds++;
    assert_int_equal(p.nstanding, 2);
    predict_prepared(&p, &some);
    p.rounds++;
    assert_int_equal(p.nstanding, 2);
    predict_prepared(&p, &one);
    p.rounds++;
    assert_int_equal(p.nstanding, 0);
    predict_prepared(&p, &some);
    assert_int_equal(p.nstanding, 0);
}

static void test_few_rounds_are_enough_for_a_spread(void **state)
{
    int64_t ms[PARTS][PREDICT_ROUNDS];
    struct spread each[PARTS];

    (void)state;
    fill(ms, 1000);
    memcpy(ms[PART_DRAIN], (int64_t[]){7, 5}, 2 * sizeof(int64_t));
    predict_sum(ms, 2, each);
    assert_int_equal(each[PART_DRAIN].low, 10);
    assert_int_equal(each[PART_DRAIN].expected, 14);
    assert_int_equal(each[PART_DRAIN].high, 16);
}

/* ---- the page ---- */

struct lines {
    char text[20000];
};

static void keep(const char *line, void *ctx)
{
    struct lines *l = ctx;
    size_t n = strlen(l->text);

    snprintf(l->text + n, sizeof(l->text) - n, "%s\n", line);
}

static const char *page(struct lines *l, json_t *record)
{
    l->text[0] = '\0';
    cutover_print_record(record, keep, l);
    json_decref(record);
    return l->text;
}

static void must_say(const char *text, const char *word)
{
    if (!strstr(text, word))
        fail_msg("the page does not say \"%s\":\n%s", word, text);
}

static void test_a_name_does_not_break_its_table(void **state)
{
    struct lines l;
    const char *text =
        page(&l, json_pack("{s:s, s:s, s:s, s:[{s:s, s:s, s:I, s:I, s:I}]}", "migration", "shop",
                           "direction", "forward", "state", "switched", "sequences", "schema",
                           "a|b", "name", "c\n<d>", "last_value", (json_int_t)7, "was",
                           (json_int_t)1, "set", (json_int_t)107));

    (void)state;
    must_say(text, "# Cutover of shop: switched\n");
    must_say(text, "| a\\|b.c \\<d> | 7 | 1 | 107 |\n");
}

static void test_one_that_failed_says_why(void **state)
{
    struct lines l;
    const char *text =
        page(&l, json_pack("{s:s, s:s, s:s, s:s, s:s}", "migration", "shop", "direction", "back",
                           "state", "prepared", "undone_because", "it took too long", "remedy",
                           "lockstep rollback again"));

    (void)state;
    must_say(text, "# Rollback of shop: not made\n");
    must_say(text, "- Undone because: it took too long\n");
    must_say(text, "- What to do: lockstep rollback again\n");
}

static void test_an_empty_record_has_a_page(void **state)
{
    struct lines l;

    (void)state;
    must_say(page(&l, json_object()), "## Facts\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_part_counts_as_often_as_the_pause_has_it),
        cmocka_unit_test(test_a_writer_is_bounded_by_the_grace),
        cmocka_unit_test(test_only_what_stands_in_every_round_stands),
        cmocka_unit_test(test_few_rounds_are_enough_for_a_spread),
        cmocka_unit_test(test_a_name_does_not_break_its_table),
        cmocka_unit_test(test_one_that_failed_says_why),
        cmocka_unit_test(test_an_empty_record_has_a_page),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
