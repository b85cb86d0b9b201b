/* AUTO_INCREMENT counters: read freshly, only ever raised, and set while the caller's transaction
 * keeps its lock; markers. */
#include "my_support.h"

static struct db *db;
static struct err e;

static int setup(void **state)
{
    test_database("shop");
    test_database(MY_CONTROL);
    test_role("lockstep_s", "ALL ON shop.*");
    db = test_open(test_uri(NULL, NULL), DB_CONTROL);
    test_sql(db, "GRANT ALL ON lockstep.* TO 'lockstep_s'@'%';"
                 "CREATE TABLE shop.orders (id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY, w INT);"
                 "CREATE TABLE shop.small (w INT, n TINYINT AUTO_INCREMENT UNIQUE);"
                 "CREATE TABLE shop.plain (id INT PRIMARY KEY);"
                 "CREATE VIEW shop.of_orders AS SELECT * FROM shop.orders");
    my_close(db);
    db = test_open(test_uri(NULL, "lockstep_s"), DB_CONTROL);
    return 0;
}

static int teardown(void **state)
{
    my_close(db);
    return 0;
}

static struct sequence_value read_one(struct arena *a, const char *table)
{
    static const char *const all[] = {"shop.*"};
    const struct selection s = {.include = all, .ninclude = 1};
    struct sequence_list l;

    assert_ok(my_sequences(db, &s, a, &l, &e));
    assert_int_equal(l.n, 2);
    for (size_t i = 0; i < l.n; i++) {
        if (strcmp(l.v[i].table, table) == 0)
            return l.v[i];
    }
    fail_msg("no counter of %s", table);
    return (struct sequence_value){0};
}

static void counters(void **state)
{
    struct arena a = ARENA_INIT;
    struct sequence_value v = read_one(&a, "shop.orders");

    assert_string_equal(v.column, "id");
    assert_false(v.called);
    assert_int_equal(v.last_value, 1);
    for (int i = 1; i <= 3; i++) {
        test_sql(db, "INSERT INTO shop.orders (w) VALUES (1), (2)");
        v = read_one(&a, "shop.orders");
        assert_true(v.called);
        assert_int_equal(v.last_value, 2 * i);
    }
    v.last_value = 1000;
    assert_ok(my_sequence_set(db, &v, &e));
    assert_int_equal(read_one(&a, "shop.orders").last_value, 1000);
    v.last_value = 500;
    assert_ok(my_sequence_set(db, &v, &e));
    assert_int_equal(read_one(&a, "shop.orders").last_value, 1000);
    test_sql(db, "INSERT INTO shop.orders (w) VALUES (3)");
    assert_string_equal(test_value(db, "SELECT max(id) FROM shop.orders"), "1001");
    arena_release(&a);
}

static void bounds(void **state)
{
    struct arena a = ARENA_INIT;
    struct sequence_value v = read_one(&a, "shop.small");

    assert_string_equal(v.column, "n");
    v.called = true;
    v.last_value = 127;
    assert_int_equal(my_sequence_set(db, &v, &e), -1);
    assert_int_equal(e.class, ERR_DATA);
    v.last_value = INT64_MAX;
    assert_int_equal(my_sequence_set(db, &v, &e), -1);
    assert_int_equal(e.class, ERR_DATA);
    v.last_value = 126;
    assert_ok(my_sequence_set(db, &v, &e));
    assert_int_equal(read_one(&a, "shop.small").last_value, 126);
    v.name = "plain";
    assert_int_equal(my_sequence_set(db, &v, &e), -1);
    arena_release(&a);
}

/* The row lock tells that the caller still may; it must outlast the DDL. */
static void inside_a_transaction(void **state)
{
    struct arena a = ARENA_INIT;
    struct sequence_value v = read_one(&a, "shop.orders");

    assert_ok(my_begin(db, &e));
    test_sql(db, "INSERT INTO shop.plain VALUES (1)");
    assert_ok(my_savepoint(db, &e));
    v.last_value += 10;
    assert_ok(my_sequence_set(db, &v, &e));
    assert_ok(my_rollback_to(db, &e));
    assert_ok(my_rollback(db, &e));
    assert_string_equal(test_value(db, "SELECT count(*) FROM shop.plain"), "0");
    assert_int_equal(read_one(&a, "shop.orders").last_value, v.last_value);
    arena_release(&a);
}

/* The connection that sets them stays, and may have been ended meanwhile. */
static void beside_the_caller(void **state)
{
    struct arena a = ARENA_INIT;
    struct sequence_value v = read_one(&a, "shop.orders");
    static const char others[] = "SELECT group_concat(id) FROM information_schema.processlist"
                                 " WHERE user = 'lockstep_s' AND id <> CONNECTION_ID()";
    char first[40];

    for (int i = 0; i < 2; i++) { /* one that was closed before may have been listed yet */
        v.last_value += 10;
        assert_ok(my_sequence_set(db, &v, &e));
        snprintf(first, sizeof first, "%s", test_value(db, others));
        v.last_value += 10;
        assert_ok(my_sequence_set(db, &v, &e));
        if (strcmp(test_value(db, others), first) == 0)
            break;
    }
    assert_string_equal(test_value(db, others), first);
    assert_ok(my_execf(my_db_from(db), &e, "KILL %s", first));
    v.last_value += 10;
    assert_ok(my_sequence_set(db, &v, &e));
    assert_int_equal(read_one(&a, "shop.orders").last_value, v.last_value);
    arena_release(&a);
}

static void markers(void **state)
{
    char token[40];

    for (int i = 0; i < 300; i++) {
        snprintf(token, sizeof token, "it's %d", i);
        assert_ok(my_mark(db, token, &e));
    }
    assert_string_equal(test_value(db, "SELECT token FROM lockstep.mark ORDER BY id DESC LIMIT 1"),
                        "it's 299");
    /* Those that are kept, and what a connection sets between two tidyings. */
    assert_string_equal(test_value(db, "SELECT count(*) <= 133 FROM lockstep.mark"), "1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counters),
        cmocka_unit_test(bounds),
        cmocka_unit_test(inside_a_transaction),
        cmocka_unit_test(beside_the_caller),
        cmocka_unit_test(markers),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
