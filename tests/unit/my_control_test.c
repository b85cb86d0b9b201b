/* engines/mysql/control.c, schema_run.c, binlog_file.c on a real server. */
#include "my_support.h"

#include <time.h>
#include <pthread.h>
#include <stdatomic.h>

#define ROLE "ls_control"

static void clean(void)
{
    struct db *root = test_open(test_uri(NULL, NULL), DB_CONTROL);

    test_sql(root, "DROP DATABASE IF EXISTS lockstep");
    test_role(ROLE, "ALL ON lockstep.*");
    test_sql(root, "GRANT PROCESS, RELOAD ON *.* TO " ROLE "@'%'");
    test_sql(root, my_db_from(root)->maria ? "GRANT BINLOG MONITOR ON *.* TO " ROLE "@'%'"
                                           : "GRANT REPLICATION CLIENT ON *.* TO " ROLE "@'%'");
    my_close(root);
}

static struct db *installed(void)
{
    struct db *db;
    struct err e = {0};

    clean();
    db = test_open(test_uri(NULL, ROLE), DB_CONTROL);
    assert_ok(my_control_install(db, SIDE_TARGET, &e));
    return db;
}

static struct db *open_migration(const char *migration)
{
    struct db_options o = {.uri = test_uri(NULL, ROLE), .migration = migration, .use = DB_CONTROL};
    struct err e = {0};
    struct db *db = NULL;

    assert_ok(my_open(&o, &db, &e));
    return db;
}

static int put(struct db *db, const char *key, int64_t expect, int value)
{
    struct err e = {0};
    json_t *body = json_pack("{s:i}", "n", value);
    int rc = my_fact_put(db, "kind", key, expect, body, &e);

    json_decref(body);
    if (rc < 0)
        fail_msg("%s", e.msg);
    return rc;
}

static int64_t version_of(struct db *db, const char *key, int *value)
{
    struct fact f;
    struct err e = {0};
    int rc = my_fact_get(db, "kind", key, false, &f, &e);

    assert_ok(rc);
    if (rc == 0)
        return 0;
    *value = (int)json_integer_value(json_object_get(f.body, "n"));
    json_decref(f.body);
    return f.version;
}

static void compares_and_sets(void **state)
{
    struct db *db = installed();
    struct err e = {0};
    int value = 0;

    assert_int_equal(put(db, "a", FACT_ABSENT, 1), 1);
    assert_int_equal(put(db, "a", FACT_ABSENT, 2), 0);
    assert_int_equal(put(db, "a", 7, 3), 0);
    assert_int_equal(version_of(db, "a", &value), 1);
    assert_int_equal(value, 1);
    assert_int_equal(put(db, "a", 1, 4), 1);
    assert_int_equal(put(db, "a", 1, 5), 0);
    /* The same body is a write too. */
    assert_int_equal(put(db, "a", 2, 4), 1);
    assert_int_equal(put(db, "a", FACT_ANY, 6), 1);
    assert_int_equal(put(db, "b", FACT_ANY, 7), 1);
    assert_int_equal(version_of(db, "a", &value), 4);
    assert_int_equal(value, 6);
    assert_int_equal(version_of(db, "b", &value), 1);
    /* Keys differ by their bytes. */
    assert_int_equal(put(db, "A", FACT_ABSENT, 8), 1);
    assert_int_equal(put(db, "a ", FACT_ABSENT, 9), 1);
    assert_int_equal(put(db, "ä'\\%", FACT_ABSENT, 10), 1);
    assert_int_equal(version_of(db, "ä'\\%", &value), 1);
    assert_int_equal(value, 10);
    assert_ok(my_fact_delete(db, "kind", "a", &e));
    assert_int_equal(version_of(db, "a", &value), 0);
    assert_int_equal(version_of(db, "A", &value), 1);

    struct fact *facts;
    size_t n;
    assert_ok(my_fact_scan(db, "kind", "", &facts, &n, &e));
    assert_int_equal(n, 4);
    assert_string_equal(facts[0].key, "A");
    assert_string_equal(facts[1].key, "a ");
    assert_string_equal(facts[2].key, "b");
    facts_release(facts, n);
    assert_int_equal(put(db, "public.orders/001-000012", FACT_ABSENT, 1), 1);
    assert_int_equal(put(db, "public_orders/001-000012", FACT_ABSENT, 1), 1);
    assert_ok(my_fact_scan(db, "kind", "public.orders/", &facts, &n, &e));
    assert_int_equal(n, 1);
    facts_release(facts, n);
    my_close(db);
}

static void keeps_bodies_as_they_are(void **state)
{
    struct db *db = installed();
    struct err e = {0};
    struct fact f;
    json_t *body = json_pack("{s:s, s:s%, s:f}", "t", "ä\n'\"\\ \xf0\x9f\x98\x80", "zero", "a\0b",
                             (size_t)3, "d", 0.1);

    assert_int_equal(my_fact_put(db, "kind", "x", FACT_ABSENT, body, &e), 1);
    assert_int_equal(my_fact_get(db, "kind", "x", true, &f, &e), 1);
    assert_true(json_equal(body, f.body));
    json_decref(body);
    json_decref(f.body);
    my_close(db);
}

static void writes_go_with_their_transaction(void **state)
{
    struct db *a = installed();
    struct db *b = test_open(test_uri(NULL, ROLE), DB_CONTROL);
    struct err e = {0};
    struct fact f;
    int value;

    assert_int_equal(put(a, "x", FACT_ABSENT, 1), 1);
    assert_ok(my_begin(a, &e));
    assert_int_equal(put(a, "x", 1, 2), 1);
    assert_int_equal(version_of(b, "x", &value), 1);
    assert_ok(my_rollback(a, &e));
    assert_int_equal(version_of(a, "x", &value), 1);
    /* What another has committed is seen inside a transaction, as on PostgreSQL. */
    assert_ok(my_begin(a, &e));
    assert_int_equal(version_of(a, "x", &value), 1);
    assert_int_equal(put(b, "x", 1, 3), 1);
    assert_int_equal(version_of(a, "x", &value), 2);
    /* A locked row waits for its holder, boundedly. */
    assert_int_equal(my_fact_get(a, "kind", "x", true, &f, &e), 1);
    json_decref(f.body);
    assert_ok(my_execf(my_db_from(b), &e, "SET SESSION innodb_lock_wait_timeout = 1"));
    assert_int_equal(my_fact_delete(b, "kind", "x", &e), -1);
    assert_int_equal(e.class, ERR_RETRY);
    assert_ok(my_commit(a, &e));
    my_close(a);
    my_close(b);
}

/* A process that stands still loses what it has locked; one that goes on keeps its session. */
static void who_stands_still_holds_no_lock(void **state)
{
    struct db *a = installed();
    struct db *b = test_open(test_uri(NULL, ROLE), DB_CONTROL);
    struct err e = {0};
    struct fact f;

    assert_int_equal(put(a, "x", FACT_ABSENT, 1), 1);
    assert_ok(my_begin(a, &e));
    assert_ok(my_limit_idle(a, 3000, &e));
    assert_int_equal(my_fact_get(a, "kind", "x", true, &f, &e), 1);
    json_decref(f.body);
    assert_ok(my_commit(a, &e));
    nap_ms(4500);
    assert_ok(my_begin(a, &e));
    assert_ok(my_limit_idle(a, 3000, &e));
    assert_int_equal(my_fact_get(a, "kind", "x", true, &f, &e), 1);
    json_decref(f.body);
    /* b waits for the lock until a's session ends, not until its own time is over. */
    assert_int_equal(put(b, "x", 1, 2), 1);
    assert_int_equal(my_fact_get(a, "kind", "x", false, &f, &e), -1);
    my_close(a);
    my_close(b);
}

static void installs_and_removes(void **state)
{
    struct db *db = installed();
    struct err e = {0};
    bool there;

    assert_ok(my_control_install(db, SIDE_SOURCE, &e));
    assert_ok(my_control_exists(db, &there, &e));
    assert_true(there);
    struct db *other = open_migration("crm");
    assert_int_equal(put(db, "x", FACT_ABSENT, 1), 1);
    assert_int_equal(put(other, "x", FACT_ABSENT, 1), 1);
    assert_ok(my_control_remove(db, SIDE_TARGET, &e));
    assert_ok(my_control_exists(db, &there, &e));
    assert_true(there);
    assert_ok(my_control_remove(other, SIDE_TARGET, &e));
    assert_ok(my_control_exists(db, &there, &e));
    assert_false(there);
    assert_ok(my_control_remove(db, SIDE_TARGET, &e));
    my_close(other);
    my_close(db);

    /* Somebody else's database of that name is left alone. */
    struct db *root = test_open(test_uri(NULL, NULL), DB_CONTROL);
    test_sql(root, "CREATE DATABASE lockstep; CREATE TABLE lockstep.theirs (a int)");
    assert_int_equal(my_control_install(root, SIDE_TARGET, &e), -1);
    assert_int_equal(e.class, ERR_REFUSED);
    assert_ok(my_control_remove(root, SIDE_TARGET, &e));
    assert_string_equal(test_value(root, "SELECT count(*) FROM lockstep.theirs"), "0");
    test_sql(root, "DROP DATABASE lockstep");
    my_close(root);
}

static void a_missing_right_is_named(void **state)
{
    struct err e = {0};

    clean();
    test_role("ls_plain", NULL);
    struct db *db = test_open(test_uri(NULL, "ls_plain"), DB_CONTROL);
    assert_int_equal(my_control_install(db, SIDE_TARGET, &e), -1);
    assert_int_equal(e.class, ERR_REFUSED);
    assert_non_null(strstr(e.hint, "GRANT"));
    my_close(db);
}

static void must_find(struct db *db, const char *text, int rc)
{
    struct position found;
    struct err e = {0};

    if (my_position_find(db, text, &found, &e) != rc)
        fail_msg("\"%s\" is not found as %d: %s", text, rc, e.msg);
}

/* What an application gets by SQL, what status shows, what is neither, and what is to come. */
static void test_position_find(struct db *db)
{
    static const char *const none[] = {"",         "42",        "42:",        ":4",     "42:x",
                                       "x:4",      "16/B374D8", "42:4 ",      "-1:4",   "0-1",
                                       "0-1-2,",   "0-1-2-3",   "a-1-2",      "42:4:5", "0-1-2;",
                                       "log.01:4", "x.000001:", "0-1-2 0-1-3"};
    struct position found;
    struct position now;
    struct err e = {0};
    char text[200];
    char file[100];

    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
        must_find(db, none[i], -1);
        my_position_find(db, none[i], &found, &e);
        assert_int_equal(e.class, ERR_CONFIG);
        assert_non_null(strstr(e.msg, "file:offset"));
    }
    assert_ok(my_current_position(db, &now, &e));
    my_position_text(now, text, sizeof text);
    assert_int_equal(my_position_find(db, text, &found, &e), 1);
    assert_int_equal(position_cmp(found, now), 0);
    assert_ok(my_binlog_name(my_db_from(db), now.major, file, sizeof file, &e));
    snprintf(text, sizeof text, "%s:%llu", file, (unsigned long long)now.minor);
    assert_int_equal(my_position_find(db, text, &found, &e), 1);
    assert_int_equal(position_cmp(found, now), 0);
    must_find(db, "999999:4", 0);
    if (!my_db_from(db)->maria)
        return;
    /* Of this session's own last write, of nobody's, and of several. */
    snprintf(text, sizeof text, "%s", test_value(db, "SELECT @@last_gtid"));
    assert_int_equal(my_position_find(db, text, &found, &e), 1);
    assert_true(position_cmp(found, now) >= 0);
    snprintf(text, sizeof text, "%s", test_value(db, "SELECT @@global.gtid_current_pos"));
    must_find(db, text, 1);
    must_find(db, "0-1-18000000000000000000", 0);
    must_find(db, "77-1-1", 0);
    snprintf(text, sizeof text, "%s,77-1-1", test_value(db, "SELECT @@last_gtid"));
    must_find(db, text, 0);
}

static void tells_who_and_where_it_is(void **state)
{
    struct db *db = installed();
    struct server_identity id;
    struct server_identity again;
    struct position p;
    struct position q;
    struct position after;
    uint64_t bytes;
    struct err e = {0};
    int64_t clock;
    char name[300];
    char text[60];
    uint64_t number;

    assert_ok(my_identify(db, &id, &e));
    assert_ok(my_identify(db, &again, &e));
    assert_memory_equal(&id, &again, sizeof id);
    assert_true(strlen(id.system) > 20);
    assert_int_equal(id.version, my_db_from(db)->version);
    assert_false(id.standby);
    assert_ok(my_clock_ms(db, &clock, &e));
    assert_true(llabs(clock - (int64_t)time(NULL) * 1000) < 20000);

    assert_ok(my_current_position(db, &p, &e));
    assert_int_equal(put(db, "x", FACT_ABSENT, 1), 1);
    assert_ok(my_current_position(db, &q, &e));
    assert_true(position_cmp(p, q) < 0);
    assert_ok(my_position_distance(db, p, q, &bytes, &e));
    assert_int_equal(bytes, q.minor - p.minor);
    assert_ok(my_position_distance(db, q, p, &bytes, &e));
    assert_int_equal(bytes, 0);
    /* A file that ended early counts with what it holds: the lag behind a restart is no gigabyte.
     */
    assert_ok(my_exec(my_db_from(db), "FLUSH BINARY LOGS", strlen("FLUSH BINARY LOGS"), NULL, &e));
    assert_ok(my_current_position(db, &after, &e));
    assert_true(after.major == q.major + 1);
    assert_ok(my_position_distance(db, q, after, &bytes, &e));
    assert_true(bytes >= after.minor && bytes < after.minor + 4096);
    my_position_text((struct position){42, 1234}, text, sizeof text);
    assert_string_equal(text, "42:1234");
    test_position_find(db);
    assert_ok(my_binlog_name(my_db_from(db), p.major, name, sizeof name, &e));
    assert_int_equal(my_binlog_number(name, &number), 0);
    assert_int_equal(number, p.major);
    assert_int_equal(my_binlog_name(my_db_from(db), 987654, name, sizeof name, &e), -1);
    assert_int_equal(e.class, ERR_FATAL);
    assert_non_null(strstr(e.msg, "987654"));
    assert_int_equal(my_binlog_number("mysql-bin.1000000", &number), 0);
    assert_int_equal(number, 1000000);
    assert_int_equal(my_binlog_number("mysql-bin.index", &number), -1);
    assert_int_equal(my_binlog_number("mysql-bin", &number), -1);

    struct arena a = ARENA_INIT;
    struct retention r;
    assert_ok(my_retention(db, &a, &r, &e));
    assert_true(r.retained_bytes >= q.minor);
    assert_false(r.lost);
    arena_release(&a);
    assert_ok(my_sync(db, &e));
    my_close(db);
}

static void *commit_soon(void *arg)
{
    struct db *db = arg;
    struct err e = {0};

    nap_ms(400);
    assert_ok(my_commit(db, &e));
    return NULL;
}

/* On a machine that stands still no new list may be had within the limit: then again. */
static void settle_fails(struct db *db, int limit_ms, struct err *e)
{
    for (int i = 0; i < 20; i++) {
        *e = (struct err){0};
        assert_int_equal(my_settle(db, limit_ms, e), -1);
        if (strcmp(e->sqlstate, FENCE_UNLISTED) != 0)
            break;
    }
}

static void settles_when_writers_have_ended(void **state)
{
    struct db *db = installed();
    struct db *writer = test_open(test_uri(NULL, ROLE), DB_CONTROL);
    struct db *reader = test_open(test_uri(NULL, ROLE), DB_CONTROL);
    struct err e = {0};
    pthread_t thread;

    assert_int_equal(put(db, "x", FACT_ABSENT, 1), 1);
    /* One that only reads is none to wait for. */
    assert_ok(my_execf(my_db_from(reader), &e, "START TRANSACTION"));
    (void)test_value(reader, "SELECT count(*) FROM lockstep.fact");
    assert_ok(my_settle(db, 30000, &e));

    assert_ok(my_begin(writer, &e));
    assert_int_equal(put(writer, "x", 1, 2), 1);
    settle_fails(db, 300, &e);
    assert_int_equal(e.class, ERR_RETRY);
    assert_non_null(strstr(e.msg, "of thread"));
    int64_t begun = mono_ms();
    pthread_create(&thread, NULL, commit_soon, writer);
    assert_ok(my_settle(db, 30000, &e));
    assert_true(mono_ms() - begun >= 300);
    pthread_join(thread, NULL);
    my_close(reader);
    my_close(writer);
    my_close(db);
}

static atomic_bool reading;

static void *read_list(void *arg)
{
    while (atomic_load(&reading)) {
        mysql_free_result(
            my_query(my_db_from(arg), "SELECT count(*) FROM information_schema.innodb_trx", NULL));
        nap_ms(5);
    }
    return NULL;
}

/* What is shown is kept as long as somebody reads it. */
static void settle_believes_no_earlier_list(void **state)
{
    struct db *db = installed();
    struct db *reader = test_open(test_uri(NULL, NULL), DB_CONTROL);
    struct db *writer = test_open(test_uri(NULL, ROLE), DB_CONTROL);
    struct err e = {0};
    pthread_t thread;

    atomic_store(&reading, true);
    pthread_create(&thread, NULL, read_list, reader);
    nap_ms(50);
    assert_ok(my_begin(writer, &e));
    assert_int_equal(put(writer, "y", FACT_ABSENT, 1), 1);
    /* The reader may stand still, and the list be a new one: then it tells who writes. */
    for (int i = 0; i < 20 && strcmp(e.sqlstate, FENCE_UNLISTED) != 0; i++) {
        e = (struct err){0};
        assert_int_equal(my_settle(db, 200, &e), -1);
        if (strcmp(e.sqlstate, FENCE_UNLISTED) != 0)
            assert_non_null(strstr(e.msg, "of thread"));
    }
    assert_string_equal(e.sqlstate, FENCE_UNLISTED);
    atomic_store(&reading, false);
    pthread_join(thread, NULL);
    settle_fails(db, 1500, &e);
    assert_non_null(strstr(e.msg, "of thread"));
    assert_ok(my_rollback(writer, &e));
    my_close(reader);
    my_close(writer);
    my_close(db);
}

static void runs_schema_steps(void **state)
{
    struct db *db = installed();
    struct err e = {0};

    test_database("ls_steps");
    struct db *root = test_open(test_uri("ls_steps", NULL), DB_SCHEMA);
    struct db *dead = test_open(test_uri("ls_steps", NULL), DB_SCHEMA);
    assert_ok(my_schema_run(root, "CREATE TABLE t (a int); INSERT INTO t VALUES (1)", true, &e));
    assert_string_equal(test_value(root, "SELECT a FROM t"), "1");
    assert_int_equal(my_schema_run(root, "CREATE TABLE t (a int)", true, &e), -1);
    /* What a dead process left running is ended; our own session is not. */
    assert_ok(my_schema_run(dead, "DO 1", true, &e));
    unsigned long id = mysql_thread_id(my_db_from(dead)->conn);
    assert_ok(my_schema_settle(root, &e));
    char sql[120];
    snprintf(sql, sizeof sql, "SELECT count(*) FROM information_schema.processlist WHERE id = %lu",
             id);
    for (int64_t end = mono_ms() + 30000; strcmp(test_value(root, sql), "0") != 0; nap_ms(20))
        assert_true(mono_ms() < end);
    assert_ok(my_schema_run(root, "DROP TABLE t", true, &e));
    my_close(dead);
    my_close(root);
    my_close(db);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compares_and_sets),
        cmocka_unit_test(keeps_bodies_as_they_are),
        cmocka_unit_test(writes_go_with_their_transaction),
        cmocka_unit_test(who_stands_still_holds_no_lock),
        cmocka_unit_test(installs_and_removes),
        cmocka_unit_test(a_missing_right_is_named),
        cmocka_unit_test(tells_who_and_where_it_is),
        cmocka_unit_test(settles_when_writers_have_ended),
        cmocka_unit_test(settle_believes_no_earlier_list),
        cmocka_unit_test(runs_schema_steps),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
