/* stream.c on a real server: what is written comes out, once, in order, and from any position. */
#include "engines/mysql/my.h"

#include "core/run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define WAIT_MS 10000

static struct db *db;
static struct arena arena;
static struct column columns[] = {
    {.name = (char *)"id", .source_type = (char *)"int(11)", .kind = TYPE_INT32, .key = 1},
    {.name = (char *)"note", .source_type = (char *)"longtext", .kind = TYPE_TEXT},
    {.name = (char *)"day", .source_type = (char *)"date", .kind = TYPE_DATE},
};
static size_t key[] = {0};
static struct table table = {.schema = (char *)"stream_test",
                             .name = (char *)"t",
                             .ncolumns = 3,
                             .columns = columns,
                             .nkey = 1,
                             .key = key};
static struct table *tables[] = {&table};
static struct table_list plan = {.n = 1, .v = tables};
static struct db_options options = {.migration = "streamtest", .use = DB_CONTROL};

static void sql(const char *text)
{
    struct err e = {0};

    if (my_exec(my_db_from(db), text, strlen(text), NULL, &e) < 0)
        fail_msg("%s: %s", text, e.msg);
}

static struct stream *open_at(struct position from)
{
    struct stream_request r = {.options = &options, .tables = &plan, .from = from, .epoch = 1};
    struct stream *s;
    struct err e = {0};

    if (my_stream_open(&r, &s, &e) < 0)
        fail_msg("%s", e.msg);
    return s;
}

/* The next event that is not only a position. */
static struct event next(struct stream *s)
{
    struct event ev;
    struct err e = {0};

    do {
        if (my_stream_next(s, WAIT_MS, &ev, &e) < 0)
            fail_msg("%s", e.msg);
        assert_int_not_equal(ev.kind, EVENT_NONE);
    } while (ev.kind == EVENT_POSITION);
    return ev;
}

static void expect_change(struct stream *s, enum change_op op, const char *id)
{
    struct event ev = next(s);
    const struct row *row;

    assert_int_equal(ev.kind, EVENT_CHANGE);
    assert_int_equal(ev.change.op, op);
    row = op == OP_DELETE ? ev.change.before : ev.change.after;
    if (id)
        assert_memory_equal(row->v[0].data, id, row->v[0].len);
}

static struct position start(void)
{
    struct stream_origin o;
    struct err e = {0};

    sql("DROP DATABASE IF EXISTS stream_test");
    sql("CREATE DATABASE stream_test CHARACTER SET utf8mb4");
    sql("CREATE TABLE stream_test.t (id INT PRIMARY KEY, note LONGTEXT, day DATE)");
    sql("CREATE TABLE stream_test.u (id INT)");
    sql("CREATE DATABASE IF NOT EXISTS lockstep CHARACTER SET ascii");
    sql("CREATE TABLE IF NOT EXISTS lockstep.origin (id BIGINT UNSIGNED PRIMARY KEY, n INT)");
    sql("CREATE TABLE IF NOT EXISTS lockstep.mark (token VARCHAR(64) PRIMARY KEY)");
    if (my_stream_create(&options, &plan, false, &arena, &o, &e) < 0)
        fail_msg("%s", e.msg);
    assert_int_equal(position_cmp(o.start, o.cut.past), 0);
    return o.start;
}

static void test_transactions(void **state)
{
    struct position from = start();
    struct stream *s = open_at(from);
    struct txn first;
    struct event ev;

    sql("INSERT INTO stream_test.t VALUES (1, 'a', NULL), (2, 'b', NULL)");
    sql("INSERT INTO stream_test.u VALUES (1)");
    sql("UPDATE stream_test.t SET id = 3 WHERE id = 2");
    sql("DELETE FROM stream_test.t WHERE id = 1");
    ev = next(s);
    assert_int_equal(ev.kind, EVENT_BEGIN);
    first = ev.txn;
    assert_true(position_cmp(first.commit, from) >= 0);
    expect_change(s, OP_INSERT, "1");
    expect_change(s, OP_INSERT, "2");
    ev = next(s);
    assert_int_equal(ev.kind, EVENT_COMMIT);
    assert_true(position_cmp(ev.next, first.commit) > 0);
    my_stream_close(s);

    s = open_at(ev.next);
    ev = next(s);
    assert_int_equal(ev.kind, EVENT_BEGIN);
    ev = next(s);
    assert_int_equal(ev.change.op, OP_UPDATE);
    assert_memory_equal(ev.change.before->v[0].data, "2", 1);
    assert_int_equal(ev.change.before->v[1].state, VALUE_UNCHANGED);
    assert_memory_equal(ev.change.after->v[0].data, "3", 1);
    assert_int_equal(next(s).kind, EVENT_COMMIT);
    assert_int_equal(next(s).kind, EVENT_BEGIN);
    expect_change(s, OP_DELETE, "1");
    assert_int_equal(next(s).kind, EVENT_COMMIT);
    my_stream_close(s);
}

static void test_ours_and_marks(void **state)
{
    struct stream *s = open_at(start());
    struct event ev;

    sql("START TRANSACTION");
    sql("REPLACE INTO lockstep.origin VALUES (1, 1)");
    sql("INSERT INTO stream_test.t VALUES (5, 'ours', NULL)");
    sql("COMMIT");
    sql("REPLACE INTO lockstep.mark VALUES ('token-1')");
    ev = next(s);
    assert_int_equal(ev.kind, EVENT_MARK);
    assert_string_equal(ev.token, "token-1");
    my_stream_close(s);
}

/* MariaDB takes half of a surrogate pair for a character; nobody else does. */
static void test_half_a_pair(void **state)
{
    struct stream *s;
    struct event ev;

    if (!my_db_from(db)->maria)
        skip();
    s = open_at(start());
    sql("INSERT INTO stream_test.t VALUES (1, X'61EDA08062', NULL)");
    ev = next(s);
    assert_int_equal(ev.kind, EVENT_TABLE);
    assert_non_null(strstr(ev.reason, "\"note\": it holds bytes that are not UTF-8"));
    my_stream_close(s);
}

/* MariaDB writes the statement with the settings that it was given. */
static void test_set_statement(void **state)
{
    struct stream *s;

    if (!my_db_from(db)->maria)
        skip();
    s = open_at(start());
    sql("SET STATEMENT lock_wait_timeout = 1 FOR TRUNCATE TABLE stream_test.t");
    sql("SET STATEMENT lock_wait_timeout = 1 FOR INSERT INTO stream_test.t VALUES (1, 'a', NULL)");
    sql("SET STATEMENT lock_wait_timeout = 1 FOR ALTER TABLE stream_test.t ADD COLUMN more INT");
    assert_int_equal(next(s).kind, EVENT_BEGIN);
    expect_change(s, OP_TRUNCATE, NULL);
    assert_int_equal(next(s).kind, EVENT_COMMIT);
    assert_int_equal(next(s).kind, EVENT_BEGIN);
    expect_change(s, OP_INSERT, "1");
    assert_int_equal(next(s).kind, EVENT_COMMIT);
    assert_int_equal(next(s).kind, EVENT_TABLE);
    my_stream_close(s);
}

static void test_ddl(void **state)
{
    struct stream *s = open_at(start());
    struct event ev;

    sql("TRUNCATE TABLE stream_test.t");
    sql("INSERT IGNORE INTO stream_test.t VALUES (1, 'x', '0000-00-00')");
    sql("ALTER TABLE stream_test.t ADD COLUMN more INT");
    sql("INSERT INTO stream_test.t VALUES (7, 'wide', NULL, 1)");
    assert_int_equal(next(s).kind, EVENT_BEGIN);
    expect_change(s, OP_TRUNCATE, NULL);
    assert_int_equal(next(s).kind, EVENT_COMMIT);
    ev = next(s);
    assert_int_equal(ev.kind, EVENT_TABLE);
    assert_non_null(strstr(ev.reason, "\"day\": it holds 0000-00-00"));
    ev = next(s);
    assert_int_equal(ev.kind, EVENT_TABLE);
    assert_non_null(strstr(ev.reason, "ALTER TABLE"));
    ev = next(s);
    assert_int_equal(ev.kind, EVENT_TABLE);
    assert_non_null(strstr(ev.reason, "\"more\" that was not planned"));
    my_stream_close(s);
}

/* An idle source goes on (heartbeats), and a large row comes whole, over a new connection after. */
static void test_idle_and_large(void **state)
{
    struct stream *s = open_at(start());
    struct event ev;
    struct err e = {0};

    sql("INSERT INTO stream_test.u VALUES (2)");
    assert_int_equal(my_stream_next(s, WAIT_MS, &ev, &e), 0);
    assert_int_equal(ev.kind, EVENT_POSITION);
    sql("INSERT INTO stream_test.t VALUES (8, REPEAT('x', 20000000), NULL)");
    sql("INSERT INTO stream_test.t VALUES (9, 'after', NULL)");
    assert_int_equal(next(s).kind, EVENT_BEGIN);
    ev = next(s);
    assert_int_equal(ev.change.after->v[1].len, 20000000);
    assert_int_equal(next(s).kind, EVENT_COMMIT);
    assert_int_equal(next(s).kind, EVENT_BEGIN);
    expect_change(s, OP_INSERT, "9");
    assert_int_equal(next(s).kind, EVENT_COMMIT);
    my_stream_close(s);
}

/* MariaDB compresses events, MySQL whole transactions. */
static void test_compressed(void **state)
{
    bool maria = my_db_from(db)->maria;
    struct stream *s = open_at(start());
    struct event ev;

    sql(maria ? "SET GLOBAL log_bin_compress = ON"
              : "SET SESSION binlog_transaction_compression = ON");
    sql("START TRANSACTION");
    sql("INSERT INTO stream_test.t VALUES (1, REPEAT('many ', 100000), NULL), (2, 'few', NULL)");
    sql("DELETE FROM stream_test.t WHERE id = 2");
    sql("COMMIT");
    sql(maria ? "SET GLOBAL log_bin_compress = OFF"
              : "SET SESSION binlog_transaction_compression = OFF");
    assert_int_equal(next(s).kind, EVENT_BEGIN);
    ev = next(s);
    assert_int_equal(ev.change.after->v[1].len, 500000);
    expect_change(s, OP_INSERT, "2");
    expect_change(s, OP_DELETE, "2");
    assert_int_equal(next(s).kind, EVENT_COMMIT);
    my_stream_close(s);
}

/* MariaDB logs a transaction that made a temporary table even if it was rolled back. */
static void test_rolled_back(void **state)
{
    struct stream *s;
    struct event ev;

    if (!my_db_from(db)->maria)
        return;
    s = open_at(start());
    sql("START TRANSACTION");
    sql("CREATE TEMPORARY TABLE stream_test.temporary (id INT)");
    sql("INSERT INTO stream_test.t VALUES (11, 'never', NULL)");
    sql("ROLLBACK");
    sql("INSERT INTO stream_test.t VALUES (12, 'after', NULL)");
    assert_int_equal(next(s).kind, EVENT_BEGIN);
    expect_change(s, OP_INSERT, "11");
    ev = next(s);
    assert_int_equal(ev.kind, EVENT_TABLE);
    assert_string_equal(ev.table->name, "t");
    assert_non_null(strstr(ev.reason, "ROLLBACK"));
    assert_int_equal(next(s).kind, EVENT_COMMIT);
    assert_int_equal(next(s).kind, EVENT_BEGIN);
    expect_change(s, OP_INSERT, "12");
    assert_int_equal(next(s).kind, EVENT_COMMIT);
    my_stream_close(s);
}

/* A closed stream's file is in use, and not purged, until the server sees that we are gone. */
static void until_no_dump(void)
{
    int64_t deadline = mono_ms() + WAIT_MS;
    int64_t n = 1;

    while (n > 0 && mono_ms() < deadline) {
        struct err e = {0};
        MYSQL_RES *res = my_query(my_db_from(db),
                                  "SELECT count(*) FROM information_schema.processlist"
                                  " WHERE command LIKE 'Binlog Dump%'",
                                  &e);

        assert_non_null(res);
        n = my_int(mysql_fetch_row(res)[0]);
        mysql_free_result(res);
        nap_ms(20);
    }
    assert_int_equal(n, 0);
}

static void test_purged_and_xa(void **state)
{
    struct stream_request r = {.options = &options, .tables = &plan, .from = {1, 4}, .epoch = 1};
    struct stream *s;
    struct stream_origin o;
    struct err e = {0};
    struct position now;
    char name[100];
    char purge[200];

    start();
    until_no_dump();
    sql("FLUSH BINARY LOGS");
    assert_int_equal(my_current_position(db, &now, &e), 0);
    assert_int_equal(my_binlog_name(my_db_from(db), now.major, name, sizeof(name), &e), 0);
    snprintf(purge, sizeof(purge), "PURGE BINARY LOGS TO '%s'", name);
    /* A dump that is gone from the list may still hold its file for a moment. */
    for (int64_t end = mono_ms() + WAIT_MS; mono_ms() < end; nap_ms(20)) {
        sql(purge);
        if (my_binlog_name(my_db_from(db), 1, name, sizeof(name), NULL) != 0)
            break;
    }
    assert_int_equal(my_stream_open(&r, &s, &e), -1);
    assert_int_equal(e.class, ERR_FATAL);
    sql("XA START 'branch'");
    sql("INSERT INTO stream_test.u VALUES (3)");
    sql("XA END 'branch'");
    sql("XA PREPARE 'branch'");
    assert_int_equal(my_stream_create(&options, &plan, false, &arena, &o, &e), -1);
    assert_int_equal(e.class, ERR_REFUSED);
    assert_non_null(strstr(e.msg, "branch"));
    sql("XA ROLLBACK 'branch'");
}

static int set_up(void **state)
{
    struct err e = {0};

    options.uri = getenv("LOCKSTEP_TEST_MY");
    if (!options.uri) {
        print_message("SKIPPED: LOCKSTEP_TEST_MY is not set (tests/with_mariadb)\n");
        exit(0);
    }
    if (my_open(&options, &db, &e) < 0) {
        print_message("%s\n", e.msg);
        return -1;
    }
    return 0;
}

static int tear_down(void **state)
{
    my_close(db);
    arena_release(&arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transactions),  cmocka_unit_test(test_ours_and_marks),
        cmocka_unit_test(test_set_statement), cmocka_unit_test(test_half_a_pair),
        cmocka_unit_test(test_ddl),           cmocka_unit_test(test_idle_and_large),
        cmocka_unit_test(test_compressed),    cmocka_unit_test(test_rolled_back),
        cmocka_unit_test(test_purged_and_xa),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
