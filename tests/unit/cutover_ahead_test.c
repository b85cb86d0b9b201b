/* C04: where a counter of the side that opens is set. What must hold: it gives no number that the
 * closing side gave or that a session there still holds, and it is not the margin that ends it. */
#include "cutover/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct sequence_value counter(int64_t last, int64_t increment, int64_t min, int64_t max)
{
    return (struct sequence_value){.schema = "s",
                                   .name = "n",
                                   .last_value = last,
                                   .increment = increment,
                                   .called = true,
                                   .min = min,
                                   .max = max,
                                   .cache = 1};
}

/* What nextval gives then. */
static int64_t next_of(const struct sequence_value *v)
{
    return v->called ? v->last_value + v->increment : v->last_value;
}

static struct sequence_value to;
static uint64_t left;

static int64_t next(const struct sequence_value *from, const struct sequence_value *there)
{
    assert_int_equal(sequence_ahead(from, there, &to, &left), AHEAD_SET);
    return next_of(&to);
}

static void both_ways(void **state)
{
    struct sequence_value from = counter(500, 1, 1, INT64_MAX);
    struct sequence_value there = counter(1, 1, 1, INT64_MAX);

    there.called = false;
    assert_int_equal(next(&from, &there), 601);
    from = counter(-500, -5, INT64_MIN, -1);
    there = counter(-1, -5, INT64_MIN, -1);
    assert_int_equal(next(&from, &there), -1005);
    assert_int_equal(left, UINT64_MAX);
    /* Never called: nothing was given. */
    from = counter(41, 1, 1, INT64_MAX);
    there = counter(1, 1, 1, INT64_MAX);
    from.called = there.called = false;
    assert_int_equal(next(&from, &there), 41);
}

/* A session holds a block, and others take theirs when it is too late. */
static void cached_blocks(void **state)
{
    struct sequence_value from = counter(1000, 2, 1, INT64_MAX);
    struct sequence_value there = counter(1, 2, 1, INT64_MAX);

    from.cache = 50;
    assert_true(next(&from, &there) > 1000 + 2 * (100 + 10 * 50));
}

/* C04: neither does the margin fail there, nor does it use the last numbers up. */
static void near_the_end(void **state)
{
    struct sequence_value from = counter(32700, 1, 1, 32767);
    struct sequence_value there = counter(1, 1, 1, 32767);

    assert_int_equal(next(&from, &there), 32734);
    assert_int_equal(left, 32767 - 32733);
    from.last_value = 32766;
    assert_int_equal(next(&from, &there), 32767);
    assert_int_equal(left, 1);
    from.last_value = 32767; /* nextval fails there, as it did here */
    assert_int_equal(sequence_ahead(&from, &there, &to, &left), AHEAD_SET);
    assert_int_equal(to.last_value, 32767);
    assert_int_equal(left, 0);
    from = counter(INT64_MIN + 5, -3, INT64_MIN, -1);
    there = counter(-1, -3, INT64_MIN, -1);
    assert_int_equal(sequence_ahead(&from, &there, &to, &left), AHEAD_SET);
    assert_true(to.last_value <= from.last_value && to.last_value >= INT64_MIN);
    assert_int_equal(left, 1);
    from = counter(INT64_MAX - 1, 7, 1, INT64_MAX);
    there = counter(1, 7, 1, INT64_MAX);
    assert_int_equal(sequence_ahead(&from, &there, &to, &left), AHEAD_SET);
    assert_int_equal(to.last_value, INT64_MAX - 1);
    /* The other side's column is narrower. */
    from = counter(40000, 1, 1, INT64_MAX);
    there = counter(1, 1, 1, 32767);
    assert_int_equal(sequence_ahead(&from, &there, &to, &left), AHEAD_SET);
    assert_int_equal(to.last_value, 32767);
    assert_int_equal(left, 0);
}

static void never_back_but_round(void **state)
{
    struct sequence_value from = counter(500, 1, 1, 1000);
    struct sequence_value there = counter(900, 1, 1, 1000);

    assert_int_equal(sequence_ahead(&from, &there, &to, &left), AHEAD_KEPT);
    from.cycle = there.cycle = true;
    assert_int_equal(next(&from, &there), 601);
    from.last_value = 1000;
    assert_int_equal(sequence_ahead(&from, &there, &to, &left), AHEAD_SET);
    assert_int_equal(to.last_value, 1000); /* the next one is its first */
    from = counter(-500, -1, INT64_MIN, -1);
    there = counter(-900, -1, INT64_MIN, -1);
    assert_int_equal(sequence_ahead(&from, &there, &to, &left), AHEAD_KEPT);
}

/* AUTO_INCREMENT counts up whatever the sequence did. */
static void the_other_way_round(void **state)
{
    struct sequence_value down = counter(900, -1, 1, 1000);
    struct sequence_value up = counter(5, 1, 0, INT32_MAX - 1);

    assert_int_equal(next(&down, &up), 1001);
    down = counter(-7, -1, INT64_MIN, -1);
    assert_int_equal(sequence_ahead(&down, &up, &to, &left), AHEAD_KEPT);
    down = counter(INT32_MAX - 3, -1, 1, INT32_MAX);
    assert_int_equal(sequence_ahead(&down, &up, &to, &left), AHEAD_UNSAFE);
    /* And back: it goes on where it had stopped. */
    down = counter(900, -1, 1, 1000);
    up.last_value = 1500;
    assert_int_equal(sequence_ahead(&up, &down, &to, &left), AHEAD_KEPT);
}

/* A step of its own, as those have that share numbers out: it stays in it. */
static void other_steps(void **state)
{
    struct sequence_value from = counter(1234, 1, 1, INT64_MAX);
    struct sequence_value there = counter(3, 10, 1, INT64_MAX);

    assert_int_equal(next(&from, &there) % 10, 3);
    assert_true(to.last_value >= 1234 + 1000);
    /* Bounds and caches that are not known change nothing. */
    from.min = from.max = from.cache = 0;
    there = from;
    assert_int_equal(next(&from, &there), 1335);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ways),           cmocka_unit_test(cached_blocks),
        cmocka_unit_test(near_the_end),        cmocka_unit_test(never_back_but_round),
        cmocka_unit_test(the_other_way_round), cmocka_unit_test(other_steps),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
