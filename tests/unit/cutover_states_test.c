/* The table of states: what the driver, --dry-run and the docs rely on. */
#include "cutover/cutover.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void test_the_rows_are_one_road(void **state)
{
    enum cutover_state at = CUTOVER_NONE;

    (void)state;
    for (size_t i = 0; i < cutover_row_count; i++) {
        const struct cutover_row *row = cutover_row_from(at);

        assert_non_null(row);
        assert_ptr_equal(row, &cutover_rows[i]);
        assert_int_equal(row->to, at + 1);
        at = row->to;
    }
    assert_int_equal(at, CUTOVER_SWITCHED);
    assert_null(cutover_row_from(CUTOVER_SWITCHED));
}

static void test_every_row_can_be_undone_up_to_closed_and_none_behind(void **state)
{
    (void)state;
    for (size_t i = 0; i < cutover_row_count; i++) {
        const struct cutover_row *row = &cutover_rows[i];
        bool forward_only = row->from >= CUTOVER_CLOSED;

        assert_non_null(row->step);
        assert_int_equal(row->undo == NULL, forward_only);
        assert_int_equal(row->undoes == NULL, forward_only);
        assert_true(strlen(row->does) > 0 && strlen(row->why) > 0);
    }
}

/* Whatever holds writes back is bounded; whatever opens the target comes behind `closed`. */
static void test_guards(void **state)
{
    (void)state;
    for (size_t i = 0; i < cutover_row_count; i++) {
        const struct cutover_row *row = &cutover_rows[i];
        bool writes_held = row->from >= CUTOVER_FENCED && row->from < CUTOVER_CLOSED;

        assert_int_equal((row->guard & CHECK_IN_TIME) != 0, writes_held);
        /* A dead source or a stopped apply must not keep a closed migration shut. */
        if (row->from == CUTOVER_CLOSED)
            assert_int_equal(row->guard | row->beside, 0);
        /* The step asks these itself, and only that of `closed` does. */
        assert_int_equal(row->beside != 0, row->to == CUTOVER_CLOSED);
        /* Only what proves itself old is done again. */
        assert_int_equal(row->again, row->to == CUTOVER_PREPARED);
    }
    assert_true(cutover_row_from(CUTOVER_SETTLED)->beside & CHECK_OPENING_SEALED);
    assert_true(cutover_row_from(CUTOVER_SETTLED)->beside & CHECK_FOREIGN);
    assert_true(cutover_row_from(CUTOVER_SETTLED)->guard & CHECK_LANES);
    assert_true(cutover_row_from(CUTOVER_NONE)->guard & CHECK_LOADED);
}

static void test_legal_pairs(void **state)
{
    static const bool legal[CUTOVER_STATES][CUTOVER_STATES] = {
        /* to:              none   prep   fenced drained settled closed switched */
        [CUTOVER_NONE] = {true, true, false, false, false, false, false},
        [CUTOVER_PREPARED] = {true, true, true, false, false, false, false},
        [CUTOVER_FENCED] = {false, true, false, true, false, false, false},
        [CUTOVER_DRAINED] = {false, true, false, false, true, false, false},
        [CUTOVER_SETTLED] = {false, true, false, false, false, true, false},
        [CUTOVER_CLOSED] = {false, false, false, false, false, false, true},
        [CUTOVER_SWITCHED] = {false, false, false, false, false, false, false},
    };

    (void)state;
    for (int from = 0; from < CUTOVER_STATES; from++) {
        for (int to = 0; to < CUTOVER_STATES; to++) {
            if (cutover_pair_is_legal((enum cutover_state)from, (enum cutover_state)to) !=
                legal[from][to])
                fail_msg("%s -> %s", cutover_state_name((enum cutover_state)from),
                         cutover_state_name((enum cutover_state)to));
        }
    }
}

static void test_names(void **state)
{
    (void)state;
    for (int s = 0; s < CUTOVER_STATES; s++)
        assert_int_equal(cutover_state_parse(cutover_state_name((enum cutover_state)s)), s);
    assert_int_equal(cutover_state_parse("open"), -1);
    assert_int_equal(cutover_state_parse(NULL), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_rows_are_one_road),
        cmocka_unit_test(test_every_row_can_be_undone_up_to_closed_and_none_behind),
        cmocka_unit_test(test_guards),
        cmocka_unit_test(test_legal_pairs),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
