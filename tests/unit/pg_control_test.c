/* Connections, waits, facts and positions, on a real server. */
#include "tests/unit/pg_support.h"

#include <pthread.h>

#define DATABASE "control_test"
#define ROLE "control_test_role"

static int group_setup(void **state)
{
    test_role(ROLE);
    test_database(DATABASE, ROLE);
    return 0;
}

static struct db *open_role(enum db_use use)
{
    return test_open(test_uri(DATABASE, ROLE), use);
}

static void settings_hold_for_every_use(void **state)
{
    for (int use = DB_CONTROL; use <= DB_SCHEMA; use++) {
        struct db *db = open_role((enum db_use)use);

        assert_string_equal(test_value(db, "SHOW timezone"), "UTC");
        assert_string_equal(test_value(db, "SHOW search_path"), "pg_catalog");
        assert_string_equal(test_value(db, "SHOW extra_float_digits"), "3");
        assert_string_equal(test_value(db, "SHOW row_security"), "off");
        assert_string_equal(test_value(db, "SHOW session_replication_role"),
                            use == DB_LOAD || use == DB_APPLY ? "replica" : "origin");
        assert_string_equal(test_value(db, "SELECT split_part(current_setting('application_name'),"
                                           " ':', 2)"),
                            "shop");
        pg_close(db);
    }
}

static void failures_to_connect_say_where_and_keep_the_password(void **state)
{
    static const struct {
        const char *uri;
        enum err_class class;
        const char *says;
    } cases[] = {
        {"postgresql://shop:s3cret@127.0.0.1:1/db", ERR_RETRY,
         "port 1, database \"db\" as \"shop\""},
        {"postgresql://shop:s3cret@127.0.0.1:port/db", ERR_RETRY, "port"},
        {"postgresql://shop:s3cret@[::1/db", ERR_CONFIG, "cannot be parsed"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct db_options o = {.uri = cases[i].uri, .migration = "shop"};
        struct db *db = NULL;
        struct err e = {0};

        assert_int_equal(pg_open(&o, &db, &e), -1);
        assert_null(db);
        assert_int_equal(e.class, cases[i].class);
        assert_non_null(strstr(e.msg, cases[i].says));
        assert_null(strstr(e.msg, "s3cret"));
        assert_null(strstr(e.hint, "s3cret"));
        assert_true(e.hint[0] != '\0');
    }
    struct db_options o = {.uri = test_uri("no_such_database", ROLE), .migration = "shop"};
    struct db *db = NULL;
    struct err e = {0};
    assert_int_equal(pg_open(&o, &db, &e), -1);
    assert_int_equal(e.class, ERR_FATAL);
}

static void a_missing_right_names_its_grant(void **state)
{
    struct db *admin = test_open(test_uri(DATABASE, NULL), DB_CONTROL);
    struct db_options o = {
        .uri = test_uri(DATABASE, "control_test_plain"), .migration = "shop", .use = DB_LOAD};
    struct db *db = NULL;
    struct err e = {0};

    test_sql(admin, "DO $$ BEGIN CREATE ROLE control_test_plain LOGIN;"
                    " EXCEPTION WHEN duplicate_object THEN NULL; END $$");
    assert_int_equal(pg_open(&o, &db, &e), -1);
    assert_int_equal(e.class, ERR_REFUSED);
    assert_non_null(strstr(e.hint, "GRANT SET ON PARAMETER session_replication_role"));
    pg_close(admin);
}

static void a_wait_without_answer_ends_by_itself(void **state)
{
    struct db *db = open_role(DB_CONTROL);
    struct err e = {0};
    int64_t began = mono_ms();

    pg_db_from(db)->timeout_ms = 300;
    assert_int_equal(pg_exec(pg_db_from(db), "SELECT pg_sleep(60)", &e), -1);
    assert_int_equal(e.class, ERR_RETRY);
    assert_true(mono_ms() - began < 5000);
    assert_true(pg_db_from(db)->broken);
    assert_int_equal(pg_exec(pg_db_from(db), "SELECT 1", &e), -1);
    pg_close(db);

    /* The statement is gone from the server too. */
    db = open_role(DB_CONTROL);
    assert_string_equal(test_value(db, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE"
                                       " '%pg_sleep(60)%' AND pid <> pg_backend_pid()"
                                       " AND state = 'active'"),
                        "0");
    pg_close(db);
}

static void a_commit_that_fails_is_told_apart(void **state)
{
    struct db *db = open_role(DB_CONTROL);
    struct db *admin = test_open(test_uri(DATABASE, NULL), DB_CONTROL);
    struct err e = {0};
    char sql[100];

    test_sql(db, "CREATE TABLE public.t (i int UNIQUE DEFERRABLE INITIALLY DEFERRED)");
    assert_ok(pg_begin(db, &e));
    test_sql(db, "INSERT INTO public.t VALUES (1), (1)");
    assert_int_equal(pg_commit(db, &e), -1);
    assert_int_equal(e.class, ERR_CONFLICT);

    /* A failed transaction is not taken for a committed one. */
    assert_ok(pg_begin(db, &e));
    assert_int_equal(pg_exec(pg_db_from(db), "SELECT 1/0", &e), -1);
    assert_int_equal(e.class, ERR_DATA);
    assert_int_equal(pg_commit(db, &e), -1);

    /* Cut off in the middle. */
    assert_ok(pg_begin(db, &e));
    test_sql(db, "INSERT INTO public.t VALUES (2)");
    snprintf(sql, sizeof sql, "SELECT pg_terminate_backend(%d, 5000)",
             PQbackendPID(pg_db_from(db)->conn));
    test_sql(admin, sql);
    assert_int_equal(pg_commit(db, &e), -1);
    assert_int_equal(e.class, ERR_UNKNOWN);
    pg_close(db);
    pg_close(admin);
}

static void savepoints_replace_each_other(void **state)
{
    struct db *db = open_role(DB_CONTROL);
    struct err e = {0};

    test_sql(db, "CREATE TABLE public.s (i int)");
    assert_ok(pg_begin(db, &e));
    assert_ok(pg_savepoint(db, &e));
    test_sql(db, "INSERT INTO public.s VALUES (1)");
    assert_ok(pg_savepoint(db, &e));
    test_sql(db, "INSERT INTO public.s VALUES (2)");
    assert_ok(pg_rollback_to(db, &e));
    test_sql(db, "INSERT INTO public.s VALUES (3)");
    assert_ok(pg_rollback_to(db, &e));
    assert_ok(pg_commit(db, &e));
    assert_string_equal(test_value(db, "SELECT string_agg(i::text, ',') FROM public.s"), "1");
    pg_close(db);
}

/* A process that stands still loses what it has locked; one that goes on keeps its session. */
static void who_stands_still_holds_no_lock(void **state)
{
    struct db *a = open_role(DB_CONTROL);
    struct db *b = open_role(DB_CONTROL);
    struct err e = {0};

    test_sql(a, "CREATE TABLE public.still AS SELECT 1 AS i");
    assert_ok(pg_begin(a, &e));
    assert_ok(pg_limit_idle(a, 1500, &e));
    test_sql(a, "UPDATE public.still SET i = 2");
    assert_ok(pg_commit(a, &e));
    assert_ok(pg_begin(a, &e));
    nap_ms(2500);
    test_sql(a, "UPDATE public.still SET i = 3");
    assert_ok(pg_limit_idle(a, 300, &e));
    test_sql(b, "UPDATE public.still SET i = 4");
    assert_string_equal(test_value(b, "SELECT i FROM public.still"), "4");
    assert_int_equal(pg_exec(pg_db_from(a), "UPDATE public.still SET i = 5", &e), -1);
    pg_close(a);
    pg_close(b);
}

static void *install_main(void *arg)
{
    struct db *db = open_role(DB_CONTROL);
    struct err e = {0};
    intptr_t rc = pg_control_install(db, SIDE_SOURCE, &e);

    if (rc != 0)
        print_error("%s\n", e.msg);
    pg_close(db);
    return (void *)rc;
}

static void control_is_installed_once_by_many(void **state)
{
    pthread_t threads[8];
    struct db *db = open_role(DB_CONTROL);
    struct err e = {0};
    bool exists;

    assert_ok(pg_control_exists(db, &exists, &e));
    assert_false(exists);
    for (int i = 0; i < 8; i++)
        pthread_create(&threads[i], NULL, install_main, NULL);
    for (int i = 0; i < 8; i++) {
        void *rc;

        pthread_join(threads[i], &rc);
        assert_ptr_equal(rc, NULL);
    }
    assert_ok(pg_control_exists(db, &exists, &e));
    assert_true(exists);
    pg_close(db);
}

static void facts_compare_and_set(void **state)
{
    struct db *db = open_role(DB_CONTROL);
    struct db *other = open_role(DB_CONTROL);
    struct err e = {0};
    struct fact f;
    struct fact *all;
    size_t n;
    json_t *one = json_pack("{s:i}", "n", 1);
    json_t *two = json_pack("{s:s}", "text", "l\xc3\xa4nge \"quoted\" \\");

    assert_ok(pg_control_install(db, SIDE_TARGET, &e));
    assert_int_equal(pg_fact_get(db, "lane", "public.a", false, &f, &e), 0);
    assert_int_equal(pg_fact_put(db, "lane", "public.a", 1, one, &e), 0);
    assert_int_equal(pg_fact_put(db, "lane", "public.a", FACT_ABSENT, one, &e), 1);
    assert_int_equal(pg_fact_put(db, "lane", "public.a", FACT_ABSENT, one, &e), 0);
    assert_int_equal(pg_fact_put(db, "lane", "public.a", 1, two, &e), 1);
    assert_int_equal(pg_fact_put(db, "lane", "public.a", 1, one, &e), 0);
    assert_int_equal(pg_fact_put(db, "lane", "public.B", FACT_ANY, one, &e), 1);
    assert_int_equal(pg_fact_put(db, "lane", "public.B", FACT_ANY, two, &e), 1);
    assert_int_equal(pg_fact_put(db, "lane", "other_", FACT_ANY, two, &e), 1);
    assert_int_equal(pg_fact_get(db, "lane", "public.a", false, &f, &e), 1);
    assert_int_equal(f.version, 2);
    assert_true(json_equal(f.body, two));
    json_decref(f.body);

    /* Bytes order the keys: B before a, in whatever collation the database has. */
    assert_ok(pg_fact_scan(db, "lane", "public.", &all, &n, &e));
    assert_int_equal(n, 2);
    assert_string_equal(all[0].key, "public.B");
    assert_string_equal(all[1].key, "public.a");
    assert_int_equal(all[0].version, 2);
    facts_release(all, n);

    /* A locked fact makes another writer wait; a rolled back write leaves nothing. */
    assert_ok(pg_begin(db, &e));
    assert_int_equal(pg_fact_get(db, "lane", "public.a", true, &f, &e), 1);
    json_decref(f.body);
    test_sql(other, "SET lock_timeout = '100ms'");
    assert_int_equal(pg_fact_put(other, "lane", "public.a", 2, one, &e), -1);
    assert_int_equal(e.class, ERR_RETRY);
    assert_string_equal(e.sqlstate, "55P03");
    assert_int_equal(pg_fact_put(db, "lane", "public.a", 2, one, &e), 1);
    assert_ok(pg_rollback(db, &e));
    assert_int_equal(pg_fact_put(other, "lane", "public.a", 2, one, &e), 1);
    assert_ok(pg_fact_delete(db, "lane", "public.a", &e));
    assert_int_equal(pg_fact_get(db, "lane", "public.a", false, &f, &e), 0);
    json_decref(one);
    json_decref(two);
    pg_close(db);
    pg_close(other);
}

static void control_goes_with_the_last_migration(void **state)
{
    struct db_options o = {.uri = test_uri(DATABASE, ROLE), .migration = "second"};
    struct db *db = open_role(DB_CONTROL);
    struct db *second = NULL;
    struct err e = {0};
    json_t *body = json_true();
    bool exists;

    assert_ok(pg_open(&o, &second, &e));
    assert_ok(pg_control_install(db, SIDE_TARGET, &e));
    assert_int_equal(pg_fact_put(second, "x", "y", FACT_ANY, body, &e), 1);
    assert_ok(pg_control_remove(db, SIDE_TARGET, &e));
    assert_ok(pg_control_exists(db, &exists, &e));
    assert_true(exists);
    assert_ok(pg_control_remove(second, SIDE_TARGET, &e));
    assert_ok(pg_control_exists(db, &exists, &e));
    assert_false(exists);
    assert_ok(pg_control_remove(second, SIDE_TARGET, &e));

    test_sql(db, "CREATE SCHEMA lockstep; CREATE TABLE lockstep.mine (i int)");
    assert_int_equal(pg_control_install(db, SIDE_TARGET, &e), -1);
    assert_int_equal(e.class, ERR_REFUSED);
    test_sql(db, "DROP SCHEMA lockstep CASCADE");
    pg_close(db);
    pg_close(second);
}

/* What an application gets by SQL, what status shows, what is neither, and what is to come. */
static void test_position_find(struct db *db)
{
    static const char *const none[] = {
        "",      "0/0",   "16",          "16/",   "/16",  " 1/2",         "1/ 2", "1/2 ",
        "+1/-2", "1/2/3", "123456789/0", "0x1/2", "1/2g", "mysql.0001:4", "1-2-3"};
    struct position found;
    struct position now;
    struct err e = {0};
    char text[80];

    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
        assert_int_equal(pg_position_find(db, none[i], &found, &e), -1);
        assert_int_equal(e.class, ERR_CONFIG);
        assert_non_null(strstr(e.msg, "pg_current_wal_insert_lsn"));
    }
    assert_ok(pg_current_position(db, &now, &e));
    pg_position_text(now, text, sizeof text);
    assert_int_equal(pg_position_find(db, text, &found, &e), 1);
    assert_int_equal(position_cmp(found, now), 0);
    snprintf(text, sizeof text, "%s", test_value(db, "SELECT pg_current_wal_insert_lsn()"));
    assert_int_equal(pg_position_find(db, text, &found, &e), 1);
    assert_true(position_cmp(found, now) >= 0);
    assert_int_equal(pg_position_find(db, "ffffff/0", &found, &e), 0);
    /* Behind the header of a page, and of a segment, no stream comes to stand. */
    assert_int_equal(pg_position_find(db, "0/1002018", &found, &e), 1);
    assert_true(found.major == 0x1002000);
    assert_int_equal(pg_position_find(db, "0/1000028", &found, &e), 1);
    assert_true(found.major == 0x1000000);
    assert_int_equal(pg_position_find(db, "0/1002028", &found, &e), 1);
    assert_true(found.major == 0x1002028);
}

static void identity_clock_and_positions(void **state)
{
    struct db *db = open_role(DB_CONTROL);
    struct server_identity id;
    struct err e = {0};
    int64_t ms;
    struct position before;
    struct position after;
    uint64_t bytes;
    char text[40];
    struct arena a = ARENA_INIT;
    struct retention r;

    assert_ok(pg_identify(db, &id, &e));
    assert_string_equal(id.database, DATABASE);
    assert_true(strlen(id.system) > 15);
    assert_int_equal(id.timeline, 1);
    assert_true(id.version >= 130000);
    assert_false(id.standby);
    assert_ok(pg_clock_ms(db, &ms, &e));
    assert_true(ms > INT64_C(1600000000000));
    assert_ok(pg_current_position(db, &before, &e));
    assert_ok(pg_sync(db, &e));
    assert_ok(pg_current_position(db, &after, &e));
    assert_true(position_cmp(before, after) < 0);
    assert_ok(pg_position_distance(db, before, after, &bytes, &e));
    assert_true(bytes > 0);
    pg_position_text((struct position){.major = 0x16B374D848}, text, sizeof text);
    assert_string_equal(text, "16/B374D848");
    test_position_find(db);
    /* What sync promises. */
    pg_position_text(after, text, sizeof text);
    char sql[200];
    snprintf(sql, sizeof sql, "SELECT pg_current_wal_flush_lsn() >= '%s'", text);
    assert_string_equal(test_value(db, sql), "t");
    assert_ok(pg_retention(db, &a, &r, &e));
    assert_true(r.lost);
    arena_release(&a);
    pg_close(db);
}

/* Begin of a page: the position stands before the header, as an idle stream's does. */
static void a_position_at_a_page_begin_can_be_reached(void **state)
{
    struct db *db = test_open(test_uri(DATABASE, NULL), DB_CONTROL);
    struct err e = {0};
    struct position p;

    test_sql(db, "CREATE TABLE public.w (i int)");
    test_sql(db, "INSERT INTO public.w VALUES (1)");
    test_sql(db, "SELECT pg_switch_wal()");
    assert_ok(pg_current_position(db, &p, &e));
    assert_int_equal(p.major % 8192, 0);
    pg_close(db);
}

static void settle_waits_for_what_runs(void **state)
{
    struct db *db = open_role(DB_CONTROL);
    struct db *writer = open_role(DB_CONTROL);
    struct err e = {0};

    assert_ok(pg_settle(db, 1000, &e));
    assert_ok(pg_begin(writer, &e));
    test_sql(writer, "SELECT pg_current_xact_id()");
    assert_int_equal(pg_settle(db, 200, &e), -1);
    assert_int_equal(e.class, ERR_RETRY);
    char pid[20];
    snprintf(pid, sizeof pid, "pid %d", PQbackendPID(pg_db_from(writer)->conn));
    assert_non_null(strstr(e.msg, pid));
    assert_ok(pg_commit(writer, &e));
    assert_ok(pg_settle(db, 1000, &e));
    pg_close(db);
    pg_close(writer);
}

/* A commit that waits for a standby which never answers: ours do not wait, a durable one ends in
 * time with its outcome unknown, and settle sees the transaction that nobody else sees. */
static void an_absent_standby_holds_nothing_of_ours(void **state)
{
    struct db *admin = test_open(test_uri(DATABASE, NULL), DB_CONTROL);
    struct db *second = test_open(test_uri(DATABASE, NULL), DB_CONTROL);
    struct db *db = open_role(DB_CONTROL);
    struct db *hung = open_role(DB_CONTROL);
    struct err e = {0};

    assert_ok(pg_control_install(db, SIDE_TARGET, &e));
    test_sql(admin, "CREATE TABLE public.hung (i int)");
    test_sql(admin, "SET synchronous_commit = on");
    test_standby_absent(second);
    for (int i = 0; !test_commit_waits(second, admin, "INSERT INTO public.hung VALUES (1)"); i++)
        assert_true(i < 500);
    json_t *body = json_true();
    assert_int_equal(pg_fact_put(db, "x", "y", FACT_ANY, body, &e), 1);
    test_sql(db, "CREATE TABLE public.not_hung (i int)"); /* local: DB_CONTROL */
    assert_int_equal(pg_settle(db, 300, &e), -1);
    assert_int_equal(e.class, ERR_RETRY);
    pg_db_from(hung)->timeout_ms = 500;
    assert_int_equal(pg_sync(hung, &e), -1);
    assert_int_equal(e.class, ERR_UNKNOWN);
    pg_close(hung);

    assert_ok(test_standby_forgotten(second, &e));
    PGresult *res = pg_collect(pg_db_from(admin), &e);
    assert_non_null(res);
    PQclear(res);
    assert_ok(pg_settle(db, 5000, &e));
    pg_close(second);
    pg_close(admin);
    pg_close(db);
}

/* Last: the request to stop is not taken back. */
static void a_stop_request_ends_a_wait(void **state)
{
    struct db *db = open_role(DB_CONTROL);
    struct err e = {0};
    int64_t began = mono_ms();

    stop_request();
    for (int i = 0; pg_exec(pg_db_from(db), "SELECT 1", &e) != 0; i++) { /* short ones still pass */
        assert_true(i < 5);
        pg_close(db);
        db = open_role(DB_CONTROL);
    }
    assert_int_equal(pg_exec(pg_db_from(db), "SELECT pg_sleep(60)", &e), -1);
    assert_int_equal(e.class, ERR_STOPPED);
    assert_true(mono_ms() - began < 3000);
    pg_close(db);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(settings_hold_for_every_use),
        cmocka_unit_test(failures_to_connect_say_where_and_keep_the_password),
        cmocka_unit_test(a_missing_right_names_its_grant),
        cmocka_unit_test(a_wait_without_answer_ends_by_itself),
        cmocka_unit_test(a_commit_that_fails_is_told_apart),
        cmocka_unit_test(savepoints_replace_each_other),
        cmocka_unit_test(who_stands_still_holds_no_lock),
        cmocka_unit_test(control_is_installed_once_by_many),
        cmocka_unit_test(facts_compare_and_set),
        cmocka_unit_test(control_goes_with_the_last_migration),
        cmocka_unit_test(identity_clock_and_positions),
        cmocka_unit_test(a_position_at_a_page_begin_can_be_reached),
        cmocka_unit_test(settle_waits_for_what_runs),
        cmocka_unit_test_teardown(an_absent_standby_holds_nothing_of_ours, test_standby_teardown),
        cmocka_unit_test(a_stop_request_ends_a_wait),
    };
    return cmocka_run_group_tests(tests, group_setup, NULL);
}
