/* The fence on a real server (LOCKSTEP_TEST_PG: a superuser's URI; roles and
 * a database of our own are made there and dropped again). lockstep is the role fence_own, owner
 * but not superuser; the application is fence_app. LOCKSTEP_TEST_PG_CRASH=1 also allows the test
 * that crashes the server. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/run.h"
#include "engines/postgres/driver.h"

#include <libpq-fe.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <stdatomic.h>
#include <string.h>

#define DATABASE "lockstep_fence_test"
#define TOKEN "token-a"
#define OTHER "token-b"

static const struct engine *const pg = &engine_postgres;
static char server[200]; /* host:port */
static PGconn *super;
static struct db *own;
static struct err e;

static const char schema_sql[] =
    "CREATE SCHEMA lockstep;"
    "CREATE TABLE parent(id int PRIMARY KEY, note text);"
    "CREATE TABLE \"Child\"(id int PRIMARY KEY, p int REFERENCES parent ON DELETE CASCADE);"
    "CREATE TABLE pt(id int, v text) PARTITION BY RANGE (id);"
    "CREATE TABLE pt1 PARTITION OF pt FOR VALUES FROM (0) TO (100);"
    "CREATE TABLE pt2 PARTITION OF pt FOR VALUES FROM (100) TO (200);"
    "CREATE TABLE up(id int); CREATE TABLE heir(x int) INHERITS (up);"
    "CREATE TABLE apart(id int);"
    "GRANT ALL ON ALL TABLES IN SCHEMA public TO fence_app;"
    "INSERT INTO parent SELECT g, 'n' FROM generate_series(1, 1000) g;"
    "INSERT INTO \"Child\" SELECT g, g FROM generate_series(1, 1000) g;";

/* ---- helpers ---- */

static PGconn *connect_as(const char *role, const char *database)
{
    char uri[400];

    snprintf(uri, sizeof uri, "postgresql://%s:fence@%s/%s", role, server, database);
    PGconn *c = PQconnectdb(uri);
    if (PQstatus(c) != CONNECTION_OK)
        fail_msg("%s: %s", role, PQerrorMessage(c));
    return c;
}

/* The SQLSTATE; "00000" if all went well. */
static const char *run(PGconn *c, const char *sql)
{
    static char state[6];
    PGresult *res = PQexec(c, sql);
    const char *code = PQresultErrorField(res, PG_DIAG_SQLSTATE);

    if (code == NULL && PQresultStatus(res) == PGRES_FATAL_ERROR)
        code = "08006";
    snprintf(state, sizeof state, "%s", code != NULL ? code : "00000");
    PQclear(res);
    return state;
}

static void must(PGconn *c, const char *sql)
{
    PGresult *res = PQexec(c, sql);

    if (PQresultStatus(res) != PGRES_COMMAND_OK && PQresultStatus(res) != PGRES_TUPLES_OK)
        fail_msg("%s: %s", sql, PQerrorMessage(c));
    PQclear(res);
}

static long long number(PGconn *c, const char *sql)
{
    PGresult *res = PQexec(c, sql);

    if (PQresultStatus(res) != PGRES_TUPLES_OK)
        fail_msg("%s: %s", sql, PQerrorMessage(c));
    long long n = atoll(PQgetvalue(res, 0, 0));
    PQclear(res);
    return n;
}

#define ok(call)                                                                                   \
    do {                                                                                           \
        if ((call) != 0)                                                                           \
            fail_msg("%s: %s %s", #call, err_class_name(e.class), e.msg);                          \
    } while (0)
#define refused(call, expected)                                                                    \
    do {                                                                                           \
        err_clear(&e);                                                                             \
        assert_int_equal((call), -1);                                                              \
        if (e.class != (expected))                                                                 \
            fail_msg("%s: %s, not %s: %s", #call, err_class_name(e.class),                         \
                     err_class_name(expected), e.msg);                                             \
    } while (0)
#define state_is(c, sql, code) assert_string_equal(run(c, sql), code)

static struct db *open_own(void)
{
    char uri[400];
    struct db *db;
    struct db_options o = {.uri = uri, .migration = "fence", .use = DB_CONTROL};

    snprintf(uri, sizeof uri, "postgresql://fence_own:fence@%s/" DATABASE, server);
    ok(pg->open(&o, &db, &e));
    return db;
}

static int install(void)
{
    static struct table t[] = {{.schema = (char *)"public", .name = (char *)"parent"},
                               {.schema = (char *)"public", .name = (char *)"pt1"},
                               {.schema = (char *)"public", .name = (char *)"heir"}};
    struct table *v[] = {&t[0], &t[1], &t[2]};
    struct table_list list = {3, v};

    return pg->fence_install(own, &list, 0, &e) < 0 ? -1 : 0;
}

static enum fence_mode mode(void)
{
    struct fence_state s;

    ok(pg->fence_state(own, &s, &e));
    return s.mode;
}

static void drop_everything(void)
{
    run(super, "DROP DATABASE IF EXISTS " DATABASE " WITH (FORCE)");
    run(super, "DROP ROLE IF EXISTS fence_own");
    run(super, "DROP ROLE IF EXISTS fence_app");
    run(super, "DROP ROLE IF EXISTS fence_sup");
}

static int suite_setup(void **state)
{
    super = PQconnectdb(getenv("LOCKSTEP_TEST_PG"));
    if (PQstatus(super) != CONNECTION_OK)
        fail_msg("LOCKSTEP_TEST_PG: %s", PQerrorMessage(super));
    snprintf(server, sizeof server, "%s:%s", PQhost(super), PQport(super));
    drop_everything();
    must(super, "CREATE ROLE fence_own LOGIN REPLICATION PASSWORD 'fence'");
    must(super, "CREATE ROLE fence_app LOGIN PASSWORD 'fence'");
    must(super, "CREATE ROLE fence_sup LOGIN SUPERUSER PASSWORD 'fence'");
    must(super, "GRANT pg_signal_backend TO fence_own");
    must(super, "CREATE DATABASE " DATABASE " OWNER fence_own");
    PGconn *c = connect_as("fence_sup", DATABASE);
    must(c, "GRANT ALL ON SCHEMA public TO fence_own, fence_app");
    PQfinish(c);
    c = connect_as("fence_own", DATABASE);
    must(c, schema_sql);
    PQfinish(c);
    return 0;
}

static int suite_teardown(void **state)
{
    drop_everything();
    PQfinish(super);
    return 0;
}

/* Each test begins with a fence that was never used. */
static int fresh(void **state)
{
    own = open_own();
    ok(pg->fence_remove(own, &e));
    ok(install());
    return 0;
}

/* What a failed test left open must not fail the next. */
static int done(void **state)
{
    PGconn *c = connect_as("fence_sup", DATABASE);
    PGresult *res = PQexec(c, "SELECT gid FROM pg_prepared_xacts WHERE gid LIKE 'fence_gid%'");
    char sql[100];

    for (int i = 0; i < PQntuples(res); i++) {
        snprintf(sql, sizeof sql, "ROLLBACK PREPARED '%s'", PQgetvalue(res, i, 0));
        must(c, sql);
    }
    PQclear(res);
    must(c, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND state LIKE 'idle in transaction%'");
    PQfinish(c);
    pg->close(own);
    own = NULL;
    return 0;
}

/* Runs a statement on another thread, after a while. */
struct later {
    pthread_t thread;
    PGconn *c;
    const char *sql;
    int after_ms;
    char state[6];
};

static void *later_main(void *arg)
{
    struct later *l = arg;

    nap_ms(l->after_ms);
    PGresult *res = PQexec(l->c, l->sql);
    const char *code = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    snprintf(l->state, sizeof l->state, "%s", code != NULL ? code : "00000");
    PQclear(res);
    return NULL;
}

static void later_start(struct later *l)
{
    assert_int_equal(pthread_create(&l->thread, NULL, later_main, l), 0);
}

/* ---- refusing ---- */

static void refuses_open_transactions_and_old_snapshots(void **state)
{
    static const char *const levels[] = {"READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"};
    PGconn *app[6];
    char sql[200];

    for (int i = 0; i < 6; i++) {
        app[i] = connect_as("fence_app", DATABASE);
        snprintf(sql, sizeof sql, "BEGIN ISOLATION LEVEL %s; SELECT count(*) FROM parent",
                 levels[i % 3]);
        must(app[i], sql);
        if (i < 3)
            continue;
        snprintf(sql, sizeof sql, "INSERT INTO parent VALUES (%d, 'before')", 5000 + i);
        must(app[i], sql);
    }
    ok(pg->fence_flip(own, TOKEN, 1, 5000, &e));
    assert_int_equal(mode(), FENCE_LEASED);
    for (int i = 0; i < 6; i++)
        state_is(app[i], "UPDATE parent SET note = 'late' WHERE id = 1", "40001");
    PGconn *fresh_one = connect_as("fence_app", DATABASE);
    state_is(fresh_one, "INSERT INTO parent VALUES (-1, '')", "40001");
    state_is(fresh_one, "COPY parent FROM STDIN", "00000"); /* the server asks for the data … */
    PQputCopyData(fresh_one, "-1\t\n", 4);
    PQputCopyEnd(fresh_one, NULL);
    PGresult *res = PQgetResult(fresh_one);
    assert_string_equal(PQresultErrorField(res, PG_DIAG_SQLSTATE), "40001"); /* … and refuses */
    PQclear(res);
    while ((res = PQgetResult(fresh_one)) != NULL)
        PQclear(res);
    state_is(fresh_one, "SELECT count(*) FROM parent", "00000");
    state_is(fresh_one, "INSERT INTO apart VALUES (1)", "00000");
    ok(pg->fence_lift(own, TOKEN, &e));
    state_is(fresh_one, "UPDATE parent SET note = 'open' WHERE id = 1", "00000");
    for (int i = 0; i < 6; i++)
        PQfinish(app[i]);
    PQfinish(fresh_one);
}

static void refuses_partitions_cascades_heirs(void **state)
{
    static const char *const writes[] = {
        "INSERT INTO pt1 VALUES (1, '')", /* listed */
        "INSERT INTO pt VALUES (1, '')",  /* its root */
        "INSERT INTO pt2 VALUES (101, '')",
        "DELETE FROM parent WHERE id = 2", /* cascades to "Child" */
        "DELETE FROM \"Child\" WHERE id = 2",
        "UPDATE \"Child\" SET p = 1 WHERE false",
        "TRUNCATE \"Child\"",
        "TRUNCATE parent CASCADE",
        "UPDATE up SET id = 1", /* writes to heir */
        "INSERT INTO heir VALUES (1, 1)",
        "WITH d AS (DELETE FROM parent WHERE id = 3 RETURNING 1) SELECT * FROM d",
        "INSERT INTO parent VALUES (1, '') ON CONFLICT DO NOTHING",
        "MERGE INTO parent p USING (SELECT 1 AS id) s ON p.id = s.id WHEN MATCHED THEN DELETE",
        "DO $$ BEGIN DELETE FROM parent; END $$",
    };
    PGconn *app = connect_as("fence_app", DATABASE);
    PGconn *sup = connect_as("fence_sup", DATABASE);

    ok(pg->fence_flip(own, TOKEN, 1, 10000, &e));
    for (size_t i = 0; i < sizeof writes / sizeof writes[0]; i++)
        if (strcmp(run(app, writes[i]), "40001") != 0)
            fail_msg("%s: not refused", writes[i]);
    must(sup, "SET session_replication_role = replica");
    state_is(sup, writes[0], "40001");
    ok(pg->fence_seal(own, TOKEN, 1, &e));
    for (size_t i = 0; i < sizeof writes / sizeof writes[0]; i++)
        if (strcmp(run(app, writes[i]), "25006") != 0)
            fail_msg("%s: not refused by the seal", writes[i]);
    state_is(sup, writes[0], "25006");
    PQfinish(app);
    PQfinish(sup);
}

static void lets_own_role_pass(void **state)
{
    PGconn *c = connect_as("fence_own", DATABASE);

    ok(pg->fence_flip(own, TOKEN, 1, 10000, &e));
    state_is(c, "UPDATE parent SET note = 'own' WHERE id = 1", "00000");
    ok(pg->fence_seal(own, TOKEN, 1, &e));
    state_is(c, "UPDATE parent SET note = 'own' WHERE id = 1", "00000");
    PQfinish(c);
    /* Becoming the role does not help: the login role counts. */
    must(super, "GRANT fence_own TO fence_app");
    c = connect_as("fence_app", DATABASE);
    must(c, "SET ROLE fence_own");
    state_is(c, "UPDATE parent SET note = 'own' WHERE id = 1", "25006");
    PQfinish(c);
    must(super, "REVOKE fence_own FROM fence_app");
}

static void applications_cannot_move_it(void **state)
{
    PGconn *app = connect_as("fence_app", DATABASE);

    ok(pg->fence_seal(own, TOKEN, 1, &e));
    state_is(app, "SELECT setval('lockstep.fence_lease', 0)", "42501");
    must(super, "SELECT 1");
    PGconn *c = connect_as("fence_own", DATABASE);
    must(c, "GRANT USAGE ON SCHEMA lockstep TO fence_app");
    state_is(app, "SELECT lockstep.fence_lift('token-a')", "42501");
    state_is(app, "SELECT setval('lockstep.fence_lease', 0)", "42501");
    must(c, "REVOKE USAGE ON SCHEMA lockstep FROM fence_app");
    PQfinish(c);
    PQfinish(app);
}

/* ---- who holds it ---- */

static void lapses_and_is_not_revived(void **state)
{
    PGconn *app = connect_as("fence_app", DATABASE);
    int64_t start = mono_ms();

    ok(pg->fence_flip(own, TOKEN, 1, 400, &e));
    ok(pg->fence_renew(own, TOKEN, 500, &e));
    state_is(app, "UPDATE parent SET note = 'x' WHERE id = 1", "40001");
    while (strcmp(run(app, "UPDATE parent SET note = 'x' WHERE id = 1"), "40001") == 0)
        assert_true(mono_ms() < start + 5000);
    assert_true(mono_ms() - start >= 499);
    assert_int_equal(mode(), FENCE_OPEN);
    refused(pg->fence_renew(own, TOKEN, 500, &e), ERR_RETRY);
    assert_string_equal(e.sqlstate, "LS002");
    state_is(app, "UPDATE parent SET note = 'x' WHERE id = 1", "00000");
    /* Nobody else took it: the holder may seal, or begin again. */
    ok(pg->fence_seal(own, TOKEN, 1, &e));
    assert_int_equal(mode(), FENCE_SEALED);
    PQfinish(app);
}

static void other_holders_are_fenced_off(void **state)
{
    struct fence_state s;

    ok(pg->fence_flip(own, TOKEN, 5, 10000, &e));
    ok(pg->fence_flip(own, TOKEN, 5, 10000, &e));
    refused(pg->fence_flip(own, OTHER, 5, 10000, &e), ERR_FENCED);
    refused(pg->fence_flip(own, OTHER, 4, 10000, &e), ERR_FENCED);
    refused(pg->fence_flip(own, TOKEN, 4, 10000, &e), ERR_FENCED);
    refused(pg->fence_renew(own, OTHER, 10000, &e), ERR_FENCED);
    refused(pg->fence_seal(own, OTHER, 5, &e), ERR_FENCED);
    refused(pg->fence_seal(own, TOKEN, 4, &e), ERR_FENCED);
    refused(pg->fence_lift(own, OTHER, &e), ERR_FENCED);
    ok(pg->fence_flip(own, OTHER, 6, 10000, &e)); /* takes over */
    refused(pg->fence_renew(own, TOKEN, 10000, &e), ERR_FENCED);
    refused(pg->fence_seal(own, TOKEN, 5, &e), ERR_FENCED);
    refused(pg->fence_lift(own, TOKEN, &e), ERR_FENCED);
    ok(pg->fence_seal(own, OTHER, 6, &e));
    ok(pg->fence_seal(own, OTHER, 6, &e));
    refused(pg->fence_flip(own, OTHER, 6, 10000, &e), ERR_FENCED); /* would undo the seal */
    refused(pg->fence_flip(own, TOKEN, 7, 10000, &e), ERR_FENCED);
    refused(pg->fence_renew(own, OTHER, 10000, &e), ERR_FENCED);
    refused(pg->fence_lift(own, TOKEN, &e), ERR_FENCED);
    ok(pg->fence_state(own, &s, &e));
    assert_int_equal(s.mode, FENCE_SEALED);
    assert_int_equal(s.epoch, 6);
    assert_string_equal(s.token, OTHER);
    ok(pg->fence_lift(own, OTHER, &e));
    ok(pg->fence_lift(own, OTHER, &e));
    ok(pg->fence_lift(own, TOKEN, &e)); /* open already: nothing of anybody's is undone */
    assert_int_equal(mode(), FENCE_OPEN);
}

/* ---- waiting ---- */

static const struct fence_wait patient = {.grace_ms = 5000, .deadline_ms = 5000};

static void waits_for_exactly_the_writers(void **state)
{
    PGconn *app = connect_as("fence_app", DATABASE);
    PGconn *reader = connect_as("fence_app", DATABASE);
    PGconn *elsewhere = connect_as("fence_app", DATABASE);
    PGconn *mine = connect_as("fence_own", DATABASE);
    struct later commit = {.c = app, .sql = "COMMIT", .after_ms = 120};
    struct fence_report r;

    must(reader, "BEGIN; SELECT count(*) FROM parent");
    must(elsewhere, "BEGIN; INSERT INTO apart VALUES (2)");
    must(mine, "SET application_name = 'lockstep:fence:apply'");
    must(mine, "BEGIN; UPDATE parent SET note = 'm' WHERE id = 9");
    must(app, "BEGIN; UPDATE parent SET note = 'w' WHERE id = 1");
    ok(pg->fence_flip(own, TOKEN, 1, 10000, &e));
    later_start(&commit);
    ok(pg->fence_wait(own, &patient, &r, &e));
    pthread_join(commit.thread, NULL);
    assert_string_equal(commit.state, "00000");
    assert_int_equal(r.waited_for, 1);
    assert_int_equal(r.terminated, 0);
    assert_in_range(r.took_ms, 50, 2000);
    assert_int_equal(number(app, "SELECT count(*) FROM parent WHERE id = 1 AND note = 'w'"), 1);
    ok(pg->fence_wait(own, &patient, &r, &e));
    assert_int_equal(r.waited_for, 0);
    PQfinish(app);
    PQfinish(reader);
    PQfinish(elsewhere);
    PQfinish(mine);
}

/* Our role under another name is not one of our sessions. */
static void waits_for_strangers_of_own_role(void **state)
{
    PGconn *mine = connect_as("fence_own", DATABASE);
    PGconn *app = connect_as("fence_app", DATABASE);
    const struct fence_wait soon = {.grace_ms = 5000, .deadline_ms = 60};
    struct fence_report r;

    must(mine, "BEGIN; UPDATE parent SET note = 'm' WHERE id = 9");
    must(app, "SET application_name = 'lockstep:fence:apply'");
    must(app, "BEGIN; UPDATE parent SET note = 'm' WHERE id = 10");
    ok(pg->fence_flip(own, TOKEN, 1, 10000, &e));
    refused(pg->fence_wait(own, &soon, &r, &e), ERR_RETRY);
    assert_int_equal(r.waited_for, 2);
    PQfinish(mine);
    PQfinish(app);
}

static void ends_who_does_not_end(void **state)
{
    PGconn *app = connect_as("fence_app", DATABASE);
    const struct fence_wait strict = {.grace_ms = 30, .deadline_ms = 5000};
    struct fence_report r;

    must(app, "BEGIN; UPDATE parent SET note = 'never' WHERE id = 1");
    ok(pg->fence_flip(own, TOKEN, 1, 10000, &e));
    ok(pg->fence_wait(own, &strict, &r, &e));
    assert_int_equal(r.waited_for, 1);
    assert_int_equal(r.terminated, 1);
    assert_string_not_equal(run(app, "COMMIT"), "00000");
    PQfinish(app);
    app = connect_as("fence_app", DATABASE);
    assert_int_equal(number(app, "SELECT count(*) FROM parent WHERE note = 'never'"), 0);
    PQfinish(app);
}

static void names_who_cannot_be_ended(void **state)
{
    PGconn *sup = connect_as("fence_sup", DATABASE);
    const struct fence_wait strict = {.grace_ms = 20, .deadline_ms = 150};
    struct fence_report r;
    char pid[32];

    must(sup, "BEGIN; UPDATE parent SET note = 's' WHERE id = 1");
    ok(pg->fence_flip(own, TOKEN, 1, 10000, &e));
    refused(pg->fence_wait(own, &strict, &r, &e), ERR_RETRY);
    snprintf(pid, sizeof pid, "pid %d of fence_sup", PQbackendPID(sup));
    assert_non_null(strstr(e.msg, pid));
    assert_non_null(strstr(e.msg, "could not end"));
    assert_int_equal(r.terminated, 0);
    PQfinish(sup);
}

static void waits_for_prepared_transactions(void **state)
{
    PGconn *app = connect_as("fence_app", DATABASE);
    const struct fence_wait soon = {.grace_ms = 20, .deadline_ms = 200};
    struct fence_report r;

    must(app, "BEGIN; UPDATE parent SET note = 'p' WHERE id = 1");
    must(app, "PREPARE TRANSACTION 'fence_gid1'");
    ok(pg->fence_flip(own, TOKEN, 1, 20000, &e));
    refused(pg->fence_wait(own, &soon, &r, &e), ERR_RETRY);
    assert_non_null(strstr(e.msg, "'fence_gid1' of fence_app"));
    struct later commit = {.c = app, .sql = "COMMIT PREPARED 'fence_gid1'", .after_ms = 50};
    later_start(&commit);
    ok(pg->fence_wait(own, &patient, &r, &e));
    pthread_join(commit.thread, NULL);
    assert_string_equal(commit.state, "00000");
    assert_int_equal(r.waited_for, 1);
    PQfinish(app);
}

/* The session of the list ends its part by PREPARE while we wait: the writes are still undecided.
 */
static void waits_when_a_writer_prepares(void **state)
{
    PGconn *app = connect_as("fence_app", DATABASE);
    struct later prepare = {.c = app, .sql = "PREPARE TRANSACTION 'fence_gid2'", .after_ms = 50};
    const struct fence_wait soon = {.grace_ms = 5000, .deadline_ms = 400};
    struct fence_report r;

    must(app, "BEGIN; UPDATE parent SET note = 'p' WHERE id = 2");
    ok(pg->fence_flip(own, TOKEN, 1, 20000, &e));
    later_start(&prepare);
    refused(pg->fence_wait(own, &soon, &r, &e), ERR_RETRY);
    pthread_join(prepare.thread, NULL);
    assert_string_equal(prepare.state, "00000");
    assert_non_null(strstr(e.msg, "fence_gid2"));
    must(app, "ROLLBACK PREPARED 'fence_gid2'");
    ok(pg->fence_wait(own, &patient, &r, &e));
    PQfinish(app);
}

/* Clients that write all the time, in every isolation level, some with a pause in mid-transaction.
 * What is committed at the end of the wait must be all there is until the fence is lifted. */
#define WRITERS 6
#define CYCLES 12

struct writer {
    pthread_t thread;
    PGconn *c;
    int id;
    int acked;
    int refusals;
};
static atomic_bool writers_stop;

static void *writer_main(void *arg)
{
    static const char *const levels[] = {"READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"};
    struct writer *w = arg;
    char begin[100];

    snprintf(begin, sizeof begin, "BEGIN ISOLATION LEVEL %s; SELECT count(*) FROM up",
             levels[w->id % 3]);
    while (!writers_stop) {
        PQclear(PQexec(w->c, begin));
        bool good = PQtransactionStatus(w->c) == PQTRANS_INTRANS;
        nap_ms(w->id % 2);
        for (int i = 0; i < 2 && good; i++) {
            PGresult *res = PQexec(w->c, "INSERT INTO heir VALUES (1, 1)");
            good = PQresultStatus(res) == PGRES_COMMAND_OK;
            PQclear(res);
            nap_ms(w->id > 3 ? 20 * (w->id - 3) : w->id % 3);
        }
        PGresult *res = PQexec(w->c, "COMMIT");
        if (good && strcmp(PQcmdStatus(res), "COMMIT") == 0)
            w->acked += 2;
        else
            w->refusals++;
        PQclear(res);
        if (!good)
            nap_ms(1);
    }
    return NULL;
}

static void nothing_commits_behind_the_wait(void **state)
{
    static struct writer w[WRITERS];
    PGconn *c = connect_as("fence_own", DATABASE);
    struct fence_report r;
    long long acked = 0;
    long long refusals = 0;
    int waited = 0;
    int late = 0;
    int failures = 0;

    must(c, "TRUNCATE heir");
    writers_stop = false;
    for (int i = 0; i < WRITERS; i++) {
        w[i] = (struct writer){.c = connect_as("fence_app", DATABASE), .id = i};
        assert_int_equal(pthread_create(&w[i].thread, NULL, writer_main, &w[i]), 0);
    }
    for (int i = 0; i < CYCLES; i++) {
        nap_ms(20);
        failures += pg->fence_flip(own, TOKEN, 1, 20000, &e) != 0;
        failures += pg->fence_wait(own, &patient, &r, &e) != 0;
        long long before = number(c, "SELECT count(*) FROM heir");
        waited += r.waited_for;
        nap_ms(60);
        late += number(c, "SELECT count(*) FROM heir") != before;
        failures += pg->fence_lift(own, TOKEN, &e) != 0;
    }
    writers_stop = true;
    for (int i = 0; i < WRITERS; i++) {
        pthread_join(w[i].thread, NULL);
        acked += w[i].acked;
        refusals += w[i].refusals;
        PQfinish(w[i].c);
    }
    print_message("%lld rows acknowledged, %lld transactions refused, %d waited for\n", acked,
                  refusals, waited);
    assert_int_equal(failures, 0);
    assert_int_equal(late, 0);
    assert_int_equal(number(c, "SELECT count(*) FROM heir"), acked);
    assert_true(acked > 0 && refusals > 0 && waited > 0);
    PQfinish(c);
}

/* ---- installing ---- */

static const char leftovers[] =
    "SELECT (SELECT count(*) FROM pg_trigger WHERE tgname = '!lockstep_fence')"
    " + (SELECT count(*) FROM pg_event_trigger WHERE evtname = '!lockstep_fence')"
    " + (SELECT count(*) FROM pg_proc WHERE pronamespace = 'lockstep'::regnamespace)"
    " + (SELECT count(*) FROM pg_class WHERE relnamespace = 'lockstep'::regnamespace)";

static void installs_and_removes_without_a_trace(void **state)
{
    PGconn *c = connect_as("fence_own", DATABASE);

    ok(install());
    ok(pg->fence_flip(own, TOKEN, 3, 10000, &e));
    ok(install()); /* does not disturb a fence that is held */
    assert_int_equal(mode(), FENCE_LEASED);
    assert_int_equal(number(c, "SELECT count(*) FROM pg_trigger WHERE tgname = '!lockstep_fence'"
                               " AND tgenabled = 'A' AND tgtype = 62"),
                     7); /* parent "Child" pt pt1 pt2 up heir */
    must(c, "ALTER TABLE parent DISABLE TRIGGER \"!lockstep_fence\"");
    must(c, "DROP TRIGGER \"!lockstep_fence\" ON pt1");
    ok(install()); /* mends */
    assert_int_equal(number(c, "SELECT count(*) FROM pg_trigger WHERE tgname = '!lockstep_fence'"
                               " AND tgenabled = 'A'"),
                     7);
    ok(pg->fence_remove(own, &e));
    assert_int_equal(number(c, leftovers), 0);
    ok(pg->fence_remove(own, &e));
    assert_int_equal(mode(), FENCE_NONE);
    refused(pg->fence_flip(own, TOKEN, 1, 100, &e), ERR_REFUSED);
    PQfinish(c);
}

static const char last_made[] = "SELECT max(xmin::text::bigint) FROM pg_proc"
                                " WHERE pronamespace = 'lockstep'::regnamespace";

static void makes_its_objects_once_but_mends_them(void **state)
{
    PGconn *c = connect_as("fence_own", DATABASE);
    PGconn *app = connect_as("fence_app", DATABASE);
    struct db *other = open_own();
    long long made;

    ok(install());
    made = number(c, last_made);
    ok(install());
    assert_int_equal(number(c, last_made), made);
    must(c, "ALTER FUNCTION lockstep.fence_check() SECURITY INVOKER");
    must(c, "GRANT EXECUTE ON FUNCTION lockstep.fence_lift(text) TO PUBLIC");
    must(c, "DELETE FROM lockstep.fence");
    ok(install());
    assert_int_equal(number(c, "SELECT count(*) FROM pg_proc WHERE proname = 'fence_check'"
                               " AND prosecdef"),
                     1);
    assert_int_equal(number(c, "SELECT count(*) FROM pg_proc, aclexplode(proacl) a"
                               " WHERE proname = 'fence_lift' AND a.grantee = 0"),
                     0);
    assert_int_equal(number(c, "SELECT count(*) FROM lockstep.fence"), 1);
    must(c, "CREATE OR REPLACE FUNCTION lockstep.fence_check() RETURNS trigger LANGUAGE plpgsql"
            " AS 'BEGIN RETURN NULL; END'");
    ok(install());
    ok(pg->fence_seal(own, TOKEN, 1, &e));
    state_is(app, "UPDATE parent SET note = 'm' WHERE id = 1", "25006");
    ok(pg->fence_remove(other, &e)); /* behind the back of the connection that made them */
    ok(install());
    assert_int_equal(mode(), FENCE_OPEN);
    pg->close(other);
    PQfinish(app);
    PQfinish(c);
}

static void installs_while_writers_hold_locks(void **state)
{
    PGconn *app = connect_as("fence_app", DATABASE);
    PGconn *busy = connect_as("fence_app", DATABASE);
    struct later commit = {.c = app, .sql = "COMMIT", .after_ms = 700};
    struct later write = {.c = busy,
                          .sql = "SET statement_timeout = 450; SELECT count(*) FROM (SELECT"
                                 " pg_sleep(0.1)) s; UPDATE parent SET note = 'b' WHERE id = 4",
                          .after_ms = 0};

    ok(pg->fence_remove(own, &e));
    must(app, "BEGIN; UPDATE parent SET note = 'l' WHERE id = 1");
    later_start(&commit);
    later_start(&write);
    ok(install());
    pthread_join(commit.thread, NULL);
    pthread_join(write.thread, NULL);
    assert_string_equal(commit.state, "00000");
    assert_string_equal(write.state, "00000"); /* queued behind our lock for 200 ms at most */
    PQfinish(app);
    PQfinish(busy);
}

static void refuses_a_missing_table(void **state)
{
    struct table t = {.schema = (char *)"public", .name = (char *)"no\"such"};
    struct table *v[] = {&t};
    struct table_list list = {1, v};

    refused(pg->fence_install(own, &list, 0, &e), ERR_FATAL);
    assert_non_null(strstr(e.msg, "no\"\"such"));
}

static void refuses_a_table_of_somebody_else(void **state)
{
    struct table t = {.schema = (char *)"public", .name = (char *)"foreign_owned"};
    struct table *v[] = {&t};
    struct table_list list = {1, v};
    PGconn *app = connect_as("fence_app", DATABASE);

    must(app, "CREATE TABLE public.foreign_owned(id int)");
    refused(pg->fence_install(own, &list, 0, &e), ERR_REFUSED);
    assert_non_null(strstr(e.msg, "foreign_owned"));
    must(app, "DROP TABLE public.foreign_owned");
    PQfinish(app);
}

static void refuses_ddl_where_a_superuser_installed(void **state)
{
    char uri[400];
    struct db *mine = own;
    struct db_options o = {.uri = uri, .migration = "fence", .use = DB_CONTROL};
    PGconn *app = connect_as("fence_app", DATABASE);

    snprintf(uri, sizeof uri, "postgresql://fence_sup:fence@%s/" DATABASE, server);
    ok(pg->open(&o, &own, &e));
    ok(install());
    must(app, "CREATE TABLE apps_own(id int)");
    must(app, "CREATE TABLE apps_root(id int) PARTITION BY LIST (id)");
    run(super, "GRANT CREATE ON DATABASE " DATABASE " TO fence_app");
    ok(pg->fence_flip(mine, TOKEN, 1, 10000, &e));
    state_is(app, "ALTER TABLE apps_own ADD x int", "40001");
    state_is(app, "CREATE TABLE apps_new(id int)", "40001");
    state_is(app, "CREATE TABLE apps_new AS SELECT 1 AS id", "40001");
    state_is(app, "SELECT 1 AS id INTO apps_new", "40001");
    state_is(app,
             "CREATE TRIGGER t BEFORE INSERT ON apps_own EXECUTE FUNCTION"
             " suppress_redundant_updates_trigger()",
             "40001");
    /* The owner's other sessions pass by role; an application that owns the table does not. */
    state_is(app, "CREATE TABLE apps_part PARTITION OF apps_root FOR VALUES IN (1)", "40001");
    state_is(app, "CREATE SCHEMA apps CREATE TABLE part PARTITION OF apps_root FOR VALUES IN (1)",
             "40001");
    /* Turned off, it is on again with the next installation. */
    PGconn *sup = connect_as("fence_sup", DATABASE);
    must(sup, "ALTER EVENT TRIGGER \"!lockstep_fence\" DISABLE");
    ok(install());
    state_is(app, "ALTER TABLE apps_own ADD x int", "40001");
    PQfinish(sup);
    ok(pg->fence_lift(mine, TOKEN, &e));
    state_is(app, "CREATE TABLE apps_part PARTITION OF apps_root FOR VALUES IN (1)", "00000");
    state_is(app, "DROP TABLE apps_own, apps_root", "00000");
    ok(pg->fence_remove(own, &e));
    pg->close(own);
    own = mine;
    PGconn *c = connect_as("fence_own", DATABASE);
    assert_int_equal(number(c, leftovers), 0);
    PQfinish(c);
    PQfinish(app);
}

/* ---- durability ---- */

static void seal_survives_a_crash(void **state)
{
    char sql[200];
    int64_t start = mono_ms();

    if (getenv("LOCKSTEP_TEST_PG_CRASH") == NULL) {
        print_message("NOT RUN: LOCKSTEP_TEST_PG_CRASH is not set\n");
        skip();
    }
    PGconn *sup = connect_as("fence_sup", DATABASE);
    ok(pg->fence_flip(own, TOKEN, 8, 60000, &e));
    ok(pg->fence_seal(own, TOKEN, 8, &e));
    snprintf(sql, sizeof sql, "COPY (SELECT 1) TO PROGRAM 'kill -9 %d'", PQbackendPID(sup));
    run(sup, sql);
    PQfinish(sup);
    /* The postmaster ends everybody and recovers from the log, as after `-m immediate`. */
    while (strcmp(run(super, "SELECT 1"), "00000") == 0)
        assert_true(mono_ms() < start + 60000);
    while (PQstatus(super) != CONNECTION_OK || strcmp(run(super, "SELECT 1"), "00000") != 0) {
        assert_true(mono_ms() < start + 60000);
        PQreset(super);
        nap_ms(20);
    }
    pg->close(own);
    own = open_own();
    assert_int_equal(mode(), FENCE_SEALED);
    PGconn *app = connect_as("fence_app", DATABASE);
    state_is(app, "UPDATE parent SET note = 'x' WHERE id = 1", "25006");
    PQfinish(app);
    refused(pg->fence_lift(own, OTHER, &e), ERR_FENCED);
    ok(pg->fence_lift(own, TOKEN, &e));
}

#define t(f) cmocka_unit_test_setup_teardown(f, fresh, done)

int main(void)
{
    const struct CMUnitTest tests[] = {
        t(refuses_open_transactions_and_old_snapshots),
        t(refuses_partitions_cascades_heirs),
        t(lets_own_role_pass),
        t(applications_cannot_move_it),
        t(lapses_and_is_not_revived),
        t(other_holders_are_fenced_off),
        t(waits_for_exactly_the_writers),
        t(waits_for_strangers_of_own_role),
        t(ends_who_does_not_end),
        t(names_who_cannot_be_ended),
        t(waits_for_prepared_transactions),
        t(waits_when_a_writer_prepares),
        t(nothing_commits_behind_the_wait),
        t(installs_and_removes_without_a_trace),
        t(makes_its_objects_once_but_mends_them),
        t(installs_while_writers_hold_locks),
        t(refuses_a_missing_table),
        t(refuses_a_table_of_somebody_else),
        t(refuses_ddl_where_a_superuser_installed),
        t(seal_survives_a_crash),
    };

    if (getenv("LOCKSTEP_TEST_PG") == NULL) {
        fprintf(stderr, "LOCKSTEP_TEST_PG is not set: run under tests/with_postgres PORT -- …\n");
        return 1;
    }
    return cmocka_run_group_tests(tests, suite_setup, suite_teardown);
}
