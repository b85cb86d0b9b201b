/* The stream on a real server: every kind of change, the shapes, the positions, the gaps, and the
 * trap of a commit that is in the log and not yet visible. */
#include "tests/unit/pg_data_support.h"

#include <pthread.h>

#define SOURCE "data_stream_test"
#define TABLES 6

static struct arena arena;
static struct db *control;
static struct db_options options;
static struct table_list tables;
static struct table *table_v[TABLES];
static struct stream_origin origin;
static struct stream *stream;
static struct position last;

static const char ddl[] =
    "CREATE SCHEMA s;"
    "CREATE TYPE s.mood AS ENUM ('sad', 'ok');"
    "CREATE TABLE s.k (id int, g int GENERATED ALWAYS AS (id * 2) STORED, t text, b bytea,"
    " m s.mood, n numeric(12,2), PRIMARY KEY (id));"
    "ALTER TABLE s.k ALTER t SET STORAGE EXTERNAL;"
    "CREATE TABLE s.f (a int, t text, g int GENERATED ALWAYS AS (a * 2) STORED);"
    "ALTER TABLE s.f REPLICA IDENTITY FULL; ALTER TABLE s.f ALTER t SET STORAGE EXTERNAL;"
    "CREATE TABLE s.\"Od d\"\"q\" (\"Key x\" text, n int, PRIMARY KEY (n, \"Key x\"));"
    "CREATE TABLE s.toast (k text PRIMARY KEY, v int);"
    "ALTER TABLE s.toast ALTER k SET STORAGE EXTERNAL;"
    "CREATE TABLE s.shape (id int PRIMARY KEY, v varchar(10));"
    "CREATE TABLE s.part (id int PRIMARY KEY) PARTITION BY RANGE (id);"
    "CREATE TABLE s.p1 PARTITION OF s.part FOR VALUES FROM (0) TO (10);"
    "CREATE TABLE s.other (id int)";

static void open_stream(struct position from)
{
    struct stream_request r = {.options = &options, .tables = &tables, .from = from, .epoch = 3};
    struct err e = {0};

    assert_ok(pg_stream_open(&r, &stream, &e));
}

static int setup(void **state)
{
    static const char *const names[TABLES] = {"k", "f", "Od d\"q", "toast", "shape", "p1"};
    struct err e = {0};

    test_role(ROLE);
    test_database(SOURCE, ROLE);
    options = (struct db_options){.uri = strdup(test_uri(SOURCE, ROLE)), .migration = "streamtest"};
    control = test_open(options.uri, DB_CONTROL);
    test_sql(control, ddl);
    for (size_t i = 0; i < TABLES; i++)
        table_v[i] = test_table(control, &arena, "s", names[i]);
    table_v[5]->root = arena_strdup(&arena, "s.part");
    tables = (struct table_list){.n = TABLES, .v = table_v};
    assert_ok(pg_stream_create(&options, &tables, true, &arena, &origin, &e));
    open_stream(origin.start);
    last = origin.start;
    return 0;
}

static int teardown(void **state)
{
    struct err e = {0};

    pg_stream_close(stream);
    pg_close(origin.holder);
    assert_ok(pg_stream_drop(&options, &e));
    assert_ok(pg_stream_drop(&options, &e));
    assert_string_equal(test_value(control, "SELECT count(*) FROM pg_replication_slots"
                                            " WHERE slot_name = 'lockstep_streamtest'"),
                        "0");
    assert_string_equal(test_value(control, "SELECT count(*) FROM pg_publication"), "0");
    pg_close(control);
    arena_release(&arena);
    free((char *)(uintptr_t)options.uri);
    return 0;
}

/* The next event that is not a mere position. */
static struct event next_event(void)
{
    int64_t deadline = mono_ms() + 10000;
    struct err e = {0};
    struct event event;

    do {
        assert_ok(pg_stream_next(stream, 1000, &event, &e));
        if (event.kind == EVENT_POSITION) {
            assert_true(position_cmp(event.next, last) > 0);
            last = event.next;
        }
        if (mono_ms() > deadline)
            fail_msg("no event in time");
    } while (event.kind == EVENT_NONE || event.kind == EVENT_POSITION);
    return event;
}

/* "insert k none -> (1, …)": the whole of one transaction, changes separated by lines. */
static const char *transaction(void)
{
    static struct buf text;
    struct event begin = next_event();
    struct event event;
    uint64_t ordinal = 0;

    buf_release(&text);
    buf_init(&text, BUF_MAX_TEXT);
    buf_adds(&text, "");
    assert_int_equal(begin.kind, EVENT_BEGIN);
    assert_int_equal(begin.txn.epoch, 3);
    assert_true(position_cmp(begin.txn.commit, last) >= 0);
    while ((event = next_event()).kind != EVENT_COMMIT) {
        if (event.kind == EVENT_TABLE) {
            buf_addf(&text, "table %s: %s\n", event.table->name, event.reason);
            continue;
        }
        assert_int_equal(event.kind, EVENT_CHANGE);
        assert_true(event.change.ordinal >= ordinal);
        ordinal = event.change.ordinal + 1;
        if (event.change.op == OP_TRUNCATE)
            buf_addf(&text, "truncate %s group %u%s\n", event.change.table->name,
                     event.change.group, event.change.restart_identity ? " restart" : "");
        else
            buf_addf(&text, "%s %s %s -> %s\n", change_op_name(event.change.op),
                     event.change.table->name, test_print(event.change.before),
                     test_print(event.change.after));
    }
    assert_int_equal(event.txn.xid, begin.txn.xid);
    assert_true(position_cmp(event.txn.next, begin.txn.commit) > 0);
    last = event.txn.next;
    return text.data;
}

/* The change and the commit of a transaction that has begun. */
static void take_rest(void)
{
    struct event event;

    assert_int_equal(next_event().kind, EVENT_CHANGE);
    event = next_event();
    assert_int_equal(event.kind, EVENT_COMMIT);
    last = event.txn.next;
}

static void expect(const char *sql, const char *changes)
{
    const char *text;

    if (sql)
        test_sql(control, sql);
    /* Reading a chunk may have made the log durable by a transaction of its own, without changes.
     */
    do
        text = transaction();
    while (!text[0] && changes[0]);
    assert_string_equal(text, changes);
}

static void test_origin(void **state)
{
    struct err e = {0};
    void *parsed;
    struct table_list none = {0};
    struct stream_origin again;

    assert_ok(pg_cut_ops.parse(&arena, origin.cut.text, &parsed, &e));
    assert_true(position_cmp(origin.cut.past, origin.start) >= 0);
    assert_string_equal(test_value(origin.holder, "SELECT count(*) FROM s.k"), "0");
    pg_close(origin.holder); /* it has read a table now, and would keep its lock */
    origin.holder = NULL;
    assert_int_equal(pg_stream_create(&options, &none, false, &arena, &again, &e), -1);
    assert_int_equal(e.class, ERR_REFUSED);
}

static void test_changes(void **state)
{
    char wide[8][200];
    const char *x = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…";

    snprintf(wide[0], sizeof wide[0], "insert k none -> (1, NULL, %s, \001, ok, 1.50)\n", x);
    expect("INSERT INTO s.k VALUES (1, DEFAULT, repeat('x', 5000), '\\x01', 'ok', 1.5)", wide[0]);
    expect("UPDATE s.k SET m = 'sad' WHERE id = 1",
           "update k none -> (1, NULL, unchanged, \001, sad, 1.50)\n");
    expect("UPDATE s.k SET id = 2 WHERE id = 1",
           "update k (1, unchanged, unchanged, unchanged, unchanged, unchanged) -> "
           "(2, NULL, unchanged, \001, sad, 1.50)\n");
    expect("UPDATE s.k SET t = NULL, b = '' WHERE id = 2",
           "update k none -> (2, NULL, NULL, , sad, 1.50)\n");
    expect("DELETE FROM s.k WHERE id = 2",
           "delete k (2, unchanged, unchanged, unchanged, unchanged, unchanged) -> none\n");
    snprintf(wide[1], sizeof wide[1],
             "insert f none -> (1, %s, NULL)\ninsert f none -> (NULL, NULL, NULL)\n", x);
    expect("INSERT INTO s.f VALUES (1, repeat('x', 5000)), (NULL, NULL)", wide[1]);
    snprintf(wide[2], sizeof wide[2], "update f (1, %s, NULL) -> (3, %s, NULL)\n", x, x);
    expect("UPDATE s.f SET a = 3 WHERE a = 1", wide[2]);
    expect("DELETE FROM s.f WHERE a IS NULL", "delete f (NULL, NULL, NULL) -> none\n");
    expect("INSERT INTO s.\"Od d\"\"q\" VALUES ('ü ''a', 7)", "insert Od d\"q none -> (ü 'a, 7)\n");
    snprintf(wide[3], sizeof wide[3], "insert toast none -> (%s, 1)\n", x);
    expect("INSERT INTO s.toast VALUES (repeat('x', 2100), 1)", wide[3]);
    /* The key itself lies in TOAST: the log sends it as the old key. */
    snprintf(wide[4], sizeof wide[4], "update toast (%s, unchanged) -> (unchanged, 2)\n", x);
    expect("UPDATE s.toast SET v = 2", wide[4]);
    test_sql(control, "INSERT INTO s.other VALUES (1)");
}

static void test_transactions(void **state)
{
    struct err e = {0};

    assert_ok(pg_begin(control, &e));
    test_sql(control, "INSERT INTO s.shape VALUES (1, 'a')");
    test_sql(control, "SAVEPOINT a; INSERT INTO s.shape VALUES (2, 'b'); ROLLBACK TO a");
    test_sql(control, "SAVEPOINT b; INSERT INTO s.shape VALUES (3, 'c'); RELEASE b");
    assert_ok(pg_commit(control, &e));
    expect(NULL, "insert shape none -> (1, a)\ninsert shape none -> (3, c)\n");
    assert_ok(pg_begin(control, &e));
    test_sql(control, "INSERT INTO s.k (id) VALUES (9)");
    test_sql(control,
             "TRUNCATE s.shape, s.k, s.other RESTART IDENTITY; INSERT INTO s.k (id) VALUES (1)");
    assert_ok(pg_commit(control, &e));
    assert_non_null(strstr(transaction(), "insert k none -> (9"));
    test_sql(control, "INSERT INTO s.shape VALUES (1, 'a'); TRUNCATE s.shape, s.other, s.k");
    {
        const char *text = transaction();

        assert_non_null(strstr(text, "insert shape none -> (1, a)\n"));
        assert_non_null(strstr(text, "truncate shape group 1\n"));
        assert_non_null(strstr(text, "truncate k group 1\n"));
        assert_null(strstr(text, "other"));
    }
    assert_ok(pg_begin(control, &e));
    test_sql(control, "INSERT INTO s.k (id) VALUES (77)");
    assert_ok(pg_rollback(control, &e));
}

static void test_marks(void **state)
{
    struct event event;

    test_sql(control, "SELECT pg_logical_emit_message(true, 'lockstep', 'inside')");
    test_sql(control, "SELECT pg_logical_emit_message(false, 'lockstep.sync', 'x')");
    test_sql(control, "SELECT pg_logical_emit_message(false, 'lockstep', 'token-1')");
    do {
        event = next_event();
    } while (event.kind == EVENT_BEGIN || event.kind == EVENT_COMMIT);
    assert_int_equal(event.kind, EVENT_MARK);
    assert_string_equal(event.token, "token-1");
    assert_true(position_cmp(event.next, last) >= 0);
    last = event.next;
}

/* An idle stream's position goes on, though nothing of ours is written. */
static void test_idle_position(void **state)
{
    int64_t deadline = mono_ms() + 10000;
    struct position before = last;
    struct err e = {0};
    struct event event;

    for (int i = 0; i < 50; i++)
        test_sql(control, "INSERT INTO s.other SELECT generate_series(1, 10)");
    do {
        assert_ok(pg_stream_next(stream, 200, &event, &e));
        assert_true(event.kind == EVENT_NONE || event.kind == EVENT_POSITION);
        if (event.kind == EVENT_POSITION)
            last = event.next;
        assert_true(mono_ms() < deadline);
    } while (position_cmp(last, before) <= 0);
}

/* What was acknowledged is not sent again; what was not, is, with the same numbers. */
static void test_restart(void **state)
{
    struct position from = last;
    struct event first;
    struct event again;
    struct err e = {0};

    test_sql(control, "INSERT INTO s.k (id) VALUES (50)");
    first = next_event();
    assert_int_equal(first.kind, EVENT_BEGIN);
    pg_stream_close(stream);
    open_stream(from);
    again = next_event();
    assert_int_equal(again.kind, EVENT_BEGIN);
    assert_int_equal(again.txn.xid, first.txn.xid);
    assert_int_equal(position_cmp(again.txn.commit, first.txn.commit), 0);
    assert_string_equal(test_value(control, "SELECT xmin FROM s.k WHERE id = 50"),
                        arena_printf(&arena, "%llu", (unsigned long long)again.txn.xid));
    assert_int_equal(next_event().kind, EVENT_CHANGE);
    again = next_event();
    assert_int_equal(again.kind, EVENT_COMMIT);
    last = again.txn.next;
    assert_ok(pg_stream_ack(stream, last, true, &e));
    pg_stream_close(stream);
    open_stream(last);
    expect("INSERT INTO s.k (id) VALUES (51)",
           "insert k none -> (51, NULL, NULL, NULL, NULL, NULL)\n");
}

static void test_gap(void **state)
{
    struct stream_request r = {.options = &options, .tables = &tables, .from = origin.start};
    int64_t deadline = mono_ms() + 10000;
    struct stream *other = NULL;
    struct err e = {0};

    assert_ok(pg_stream_ack(stream, last, true, &e));
    while (
        strcmp(test_value(control, "SELECT count(*) FROM pg_replication_slots WHERE slot_name ="
                                   " 'lockstep_streamtest' AND confirmed_flush_lsn > restart_lsn"),
               "1") != 0)
        assert_true(mono_ms() < deadline);
    pg_stream_close(stream);
    assert_int_equal(pg_stream_open(&r, &other, &e), -1);
    assert_int_equal(e.class, ERR_FATAL);
    assert_non_null(strstr(e.msg, "a gap"));
    assert_null(other);
    r.from.major = UINT64_MAX / 2;
    assert_int_equal(pg_stream_open(&r, &other, &e), -1);
    assert_int_equal(e.class, ERR_FATAL);
    assert_non_null(strstr(e.msg, "another server"));
    open_stream(last);
}

/* A row above the permit's size: handed out whole, and the next transactions come too, over a new
 * connection. */
static void test_large_row(void **state)
{
    struct event event;

    test_sql(control, "INSERT INTO s.k VALUES (60, DEFAULT, repeat('y', 9000000),"
                      " decode(repeat('ab', 3000000), 'hex'))");
    test_sql(control, "INSERT INTO s.k (id) VALUES (61)");
    assert_int_equal(next_event().kind, EVENT_BEGIN);
    event = next_event();
    assert_int_equal(event.kind, EVENT_CHANGE);
    assert_int_equal(event.change.after->v[2].len, 9000000);
    assert_int_equal(event.change.after->v[3].len, 3000000);
    assert_int_equal((unsigned char)event.change.after->v[3].data[2999999], 0xab);
    event = next_event();
    assert_int_equal(event.kind, EVENT_COMMIT);
    last = event.txn.next;
    expect(NULL, "insert k none -> (61, NULL, NULL, NULL, NULL, NULL)\n");
}

static void test_shapes(void **state)
{
    expect("INSERT INTO s.part VALUES (1)", "insert p1 none -> (1)\n");
    expect("CREATE TABLE s.p2 PARTITION OF s.part FOR VALUES FROM (10) TO (20);"
           "INSERT INTO s.part VALUES (11), (2)",
           "table p2: it has a partition s.p2 that was not planned\n"
           "insert p1 none -> (2)\n");
    expect("INSERT INTO s.shape VALUES (10, 'a')", "insert shape none -> (10, a)\n");
    /* The log's order decides: the row before the ALTER still has the planned shape. */
    expect("INSERT INTO s.shape VALUES (11, 'b'); ALTER TABLE s.shape ALTER v TYPE varchar(20);"
           "INSERT INTO s.shape VALUES (12, 'c'); INSERT INTO s.k (id) VALUES (70)",
           "insert shape none -> (11, b)\n"
           "table shape: column \"v\" was planned as character varying(10) and is character "
           "varying(20)\n"
           "insert k none -> (70, NULL, NULL, NULL, NULL, NULL)\n");
    /* What is left out is said in each transaction: the table may have been copied again. */
    expect("INSERT INTO s.shape VALUES (13, 'd'), (14, 'e')",
           "table shape: column \"v\" was planned as character varying(10) and is character "
           "varying(20)\n");
    expect("INSERT INTO s.part VALUES (12), (3)",
           "table p2: it has a partition s.p2 that was not planned\n"
           "insert p1 none -> (3)\n");
    expect("TRUNCATE s.shape",
           "table shape: column \"v\" was planned as character varying(10) and is character "
           "varying(20)\n");
    /* It fits again. */
    expect("ALTER TABLE s.shape ALTER v TYPE varchar(10); INSERT INTO s.shape VALUES (15, 'f')",
           "insert shape none -> (15, f)\n");
    expect("ALTER TABLE s.toast ADD x int DEFAULT 1; INSERT INTO s.toast VALUES ('k', 1)",
           "table toast: it has a column \"x\" that was not planned\n");
    expect("ALTER TABLE s.k REPLICA IDENTITY FULL; UPDATE s.k SET n = 1 WHERE id = 70",
           "table k: its replica identity is 'f' now\n");
}

/* The trap (design.md §2): a standby that is not there keeps a commit invisible, and yet the stream
 * has it. A chunk's cut must say that it has not seen it. */
static void test_visibility_trap(void **state)
{
    struct db *super = test_open(test_uri(SOURCE, NULL), DB_CONTROL);
    struct db *writer = test_open(test_uri(SOURCE, ROLE), DB_CONTROL);
    struct db *reader = test_open(test_uri(SOURCE, ROLE), DB_READ);
    struct read_request r = {.table = table_v[2], .range = {.kind = RANGE_ALL}};
    struct err e = {0};
    struct event event;
    struct block block;
    struct cut cut;
    char late[20];
    void *parsed;
    uint64_t rows = 0;

    test_sql(writer, "SET synchronous_commit = on");
    test_standby_absent(super);
    for (int i = 1;; i++) {
        char sql[100];

        assert_true(i < 500);
        snprintf(late, sizeof late, "late-%d.", i);
        snprintf(sql, sizeof sql, "INSERT INTO s.\"Od d\"\"q\" VALUES ('%s', 1)", late);
        bool waits = test_commit_waits(super, writer, sql);
        event = next_event();
        assert_int_equal(event.kind, EVENT_BEGIN);
        if (waits)
            break;
        take_rest();
    }

    /* A later one has ended: so the late one lies inside the cut, among the running. */
    test_sql(control, "SELECT pg_current_xact_id()");
    assert_ok(pg_read_begin(reader, &r, &arena, &cut, &e));
    while (pg_read_next(reader, &block, &e) > 0)
        assert_null(memmem(block.data, block.len, late, strlen(late)));
    assert_ok(pg_read_end(reader, &rows, &e));
    assert_ok(pg_cut_ops.parse(&arena, cut.text, &parsed, &e));
    assert_false(pg_cut_ops.sees(parsed, &event.txn));
    /* An LSN would have said the contrary. */
    assert_true(position_cmp(event.txn.commit, cut.past) < 0);

    assert_ok(test_standby_forgotten(super, &e));
    PQclear(pg_collect(pg_db_from(writer), &e));
    assert_ok(pg_read_begin(reader, &r, &arena, &cut, &e));
    assert_ok(pg_read_end(reader, NULL, &e));
    assert_ok(pg_cut_ops.parse(&arena, cut.text, &parsed, &e));
    assert_true(pg_cut_ops.sees(parsed, &event.txn));
    take_rest();
    pg_close(super);
    pg_close(writer);
    pg_close(reader);
}

/* Its result is NULL when it was told. A check here would leave by another thread's stack. */
static void *standby_gone(void *arg)
{
    struct err e = {0};

    nap_ms(700);
    return test_standby_forgotten(arg, &e) == 0 ? NULL : arg;
}

static void take_partition(void)
{
    struct event event;

    do {
        assert_int_equal(next_event().kind, EVENT_BEGIN);
        event = next_event();
    } while (event.kind == EVENT_COMMIT); /* what made the log durable for a chunk */
    assert_int_equal(event.kind, EVENT_TABLE);
    assert_string_equal(event.table->root, "s.part");
    event = next_event();
    assert_int_equal(event.kind, EVENT_COMMIT);
    last = event.txn.next;
}

/* A partition that is made and filled in a transaction which the log has and no catalog shows yet:
 * its rows must not be taken for those of a table that does not concern us. */
static void test_invisible_partition(void **state)
{
    struct db *super = test_open(test_uri(SOURCE, NULL), DB_CONTROL);
    struct db *writer = test_open(test_uri(SOURCE, ROLE), DB_CONTROL);
    struct err e = {0};
    pthread_t thread;
    int64_t began;
    void *failed;

    test_sql(writer, "SET synchronous_commit = on");
    test_standby_absent(super);
    for (int i = 1;; i++) {
        char sql[200];

        assert_true(i < 500);
        snprintf(sql, sizeof sql,
                 "CREATE TABLE s.late%d PARTITION OF s.part FOR VALUES FROM (%d) TO (%d);"
                 "INSERT INTO s.part VALUES (%d)",
                 i, 100 + i, 101 + i, 100 + i);
        if (test_commit_waits(super, writer, sql))
            break;
        take_partition();
    }
    assert_int_equal(pthread_create(&thread, NULL, standby_gone, super), 0);
    began = mono_ms();
    take_partition();
    assert_true(mono_ms() - began >= 500);
    pthread_join(thread, &failed);
    assert_null(failed);
    PQclear(pg_collect(pg_db_from(writer), &e));
    pg_close(super);
    pg_close(writer);
}

/* The walsender is killed: to be tried again, from the same place, and nothing is missing. */
static void test_lost_connection(void **state)
{
    struct db *super = test_open(test_uri(SOURCE, NULL), DB_CONTROL);
    struct err e = {0};
    struct event event;
    int rc = 0;

    test_sql(control, "INSERT INTO s.k (id) VALUES (80)");
    test_sql(super, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
                    " WHERE slot_name = 'lockstep_streamtest'");
    for (int i = 0; i < 100 && rc == 0; i++)
        rc = pg_stream_next(stream, 100, &event, &e);
    assert_int_equal(rc, -1);
    assert_int_equal(e.class, ERR_RETRY);
    pg_stream_close(stream);
    open_stream(last);
    expect(NULL, "insert k none -> (80, NULL, NULL, NULL, NULL, NULL)\n");
    pg_close(super);
}

/* Creation waits for running transactions, says for whom, and leaves nothing behind. */
static void test_create_is_bounded(void **state)
{
    struct db *writer = test_open(test_uri(SOURCE, NULL), DB_CONTROL);
    struct db *prepared = test_open(test_uri(SOURCE, NULL), DB_CONTROL);
    struct db_options other = options;
    struct stream_origin out;
    struct err e = {0};

    other.migration = "blocked";
    other.timeout_ms = 3000;
    assert_ok(pg_begin(writer, &e));
    test_sql(writer, "INSERT INTO s.other VALUES (5)");
    assert_ok(pg_begin(prepared, &e));
    test_sql(prepared, "INSERT INTO s.other VALUES (6)");
    test_sql(prepared, "PREPARE TRANSACTION 'in the way'");
    int rc = pg_stream_create(&other, &tables, false, &arena, &out, &e);
    test_sql(prepared, "ROLLBACK PREPARED 'in the way'"); /* also when the checks below fail */
    pg_close(prepared);
    assert_int_equal(rc, -1);
    assert_int_equal(e.class, ERR_RETRY);
    assert_non_null(strstr(e.msg, "prepared transaction 'in the way'"));
    assert_non_null(strstr(e.msg, "did not end within"));
    assert_non_null(
        strstr(e.msg, arena_printf(&arena, "pid %d", PQbackendPID(pg_db_from(writer)->conn))));
    assert_string_equal(
        test_value(control, "SELECT (SELECT count(*) FROM pg_replication_slots WHERE slot_name ="
                            " 'lockstep_blocked') + (SELECT count(*) FROM pg_publication WHERE"
                            " pubname = 'lockstep_blocked')"),
        "0");
    pg_close(writer);
}

/* The last one: the process stays asked to stop. What was acknowledged can still be told. */
static void test_stop(void **state)
{
    struct err e = {0};
    struct event event;
    int64_t began;

    stop_request();
    began = mono_ms();
    int rc;
    while ((rc = pg_stream_next(stream, 10000, &event, &e)) == 0) /* a position on the way */
        assert_true(mono_ms() - began < 3000);
    assert_int_equal(rc, -1);
    assert_int_equal(e.class, ERR_STOPPED);
    assert_true(mono_ms() - began < 3000);
    assert_ok(pg_stream_ack(stream, last, true, &e));
}

/* What begins with our own row of lockstep.origin is left out whole; another migration's is not. */
static void test_own_transactions(void **state)
{
    struct db_options o = {.uri = options.uri, .migration = "streamtest", .use = DB_APPLY};
    struct err e = {0};
    struct db *ours;
    struct db *theirs;

    assert_ok(pg_open(&o, &ours, &e));
    o.migration = "another";
    assert_ok(pg_open(&o, &theirs, &e));
    for (int i = 0; i < 3; i++) {
        assert_ok(pg_begin(ours, &e));
        test_sql(ours, "INSERT INTO s.k (id, t) VALUES (90001, 'ours'); TRUNCATE s.toast;"
                       " DELETE FROM s.k WHERE id = 90001");
        assert_ok(pg_commit(ours, &e));
        assert_ok(pg_begin(theirs, &e));
        test_sql(theirs, "INSERT INTO s.k (id, t) VALUES (90002, 'theirs')");
        assert_ok(pg_commit(theirs, &e));
        assert_string_equal(transaction(), "insert k none -> (90002, NULL, theirs, NULL, NULL, "
                                           "NULL)\n");
        test_sql(control, "DELETE FROM s.k WHERE id = 90002");
        assert_non_null(strstr(transaction(), "delete k"));
    }
    assert_ok(pg_mark(control, "behind", &e));
    assert_int_equal(next_event().kind, EVENT_MARK);
    pg_close(ours);
    pg_close(theirs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_transactions),
        cmocka_unit_test(test_origin),
        cmocka_unit_test(test_changes),
        cmocka_unit_test(test_transactions),
        cmocka_unit_test(test_marks),
        cmocka_unit_test(test_idle_position),
        cmocka_unit_test(test_restart),
        cmocka_unit_test(test_gap),
        cmocka_unit_test(test_large_row),
        cmocka_unit_test_teardown(test_visibility_trap, test_standby_teardown),
        cmocka_unit_test_teardown(test_invisible_partition, test_standby_teardown),
        cmocka_unit_test(test_lost_connection),
        cmocka_unit_test(test_create_is_bounded),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_stop),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
