/* What the tests of PostgreSQL's fence share: a server's roles and a database of our own
 * (LOCKSTEP_TEST_PG: a superuser's URI), made before the first test and dropped behind the last.
 * lockstep is the role fence_own, owner but not superuser; the application is fence_app. */
#ifndef LOCKSTEP_TESTS_PG_FENCE_SUPPORT_H
#define LOCKSTEP_TESTS_PG_FENCE_SUPPORT_H

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

static inline PGconn *connect_as(const char *role, const char *database)
{
    char uri[400];

    /* What is held up for longer fails here, and not by the limit of the whole program. */
    snprintf(uri, sizeof uri, "postgresql://%s:fence@%s/%s?options=-cstatement_timeout%%3D30s",
             role, server, database);
    PGconn *c = PQconnectdb(uri);
    if (PQstatus(c) != CONNECTION_OK)
        fail_msg("%s: %s", role, PQerrorMessage(c));
    return c;
}

/* The SQLSTATE; "00000" if all went well. */
static inline const char *run(PGconn *c, const char *sql)
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

static inline void must(PGconn *c, const char *sql)
{
    PGresult *res = PQexec(c, sql);

    if (PQresultStatus(res) != PGRES_COMMAND_OK && PQresultStatus(res) != PGRES_TUPLES_OK)
        fail_msg("%s: %s", sql, PQerrorMessage(c));
    PQclear(res);
}

static inline long long number(PGconn *c, const char *sql)
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

static inline struct db *open_own(void)
{
    char uri[400];
    struct db *db;
    struct db_options o = {.uri = uri, .migration = "fence", .use = DB_CONTROL};

    snprintf(uri, sizeof uri, "postgresql://fence_own:fence@%s/" DATABASE, server);
    ok(pg->open(&o, &db, &e));
    return db;
}

static inline int install(void)
{
    static struct table t[] = {{.schema = (char *)"public", .name = (char *)"parent"},
                               {.schema = (char *)"public", .name = (char *)"pt1"},
                               {.schema = (char *)"public", .name = (char *)"heir"}};
    struct table *v[] = {&t[0], &t[1], &t[2]};
    struct table_list list = {3, v};

    return pg->fence_install(own, &list, 0, &e) < 0 ? -1 : 0;
}

static inline enum fence_mode mode(void)
{
    struct fence_state s;

    ok(pg->fence_state(own, &s, &e));
    return s.mode;
}

static inline void drop_everything(void)
{
    run(super, "DROP DATABASE IF EXISTS " DATABASE " WITH (FORCE)");
    run(super, "DROP ROLE IF EXISTS fence_own");
    run(super, "DROP ROLE IF EXISTS fence_app");
    run(super, "DROP ROLE IF EXISTS fence_sup");
}

static inline int suite_setup(void **state)
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

static inline int suite_teardown(void **state)
{
    drop_everything();
    PQfinish(super);
    return 0;
}

/* Each test begins with a fence that was never used. */
static inline int fresh(void **state)
{
    own = open_own();
    ok(pg->fence_remove(own, &e));
    ok(install());
    return 0;
}

/* What a failed test left open must not fail the next. */
static inline int done(void **state)
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

static inline void *later_main(void *arg)
{
    struct later *l = arg;

    nap_ms(l->after_ms);
    PGresult *res = PQexec(l->c, l->sql);
    const char *code = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    snprintf(l->state, sizeof l->state, "%s", code != NULL ? code : "00000");
    PQclear(res);
    return NULL;
}

static inline void later_start(struct later *l)
{
    assert_int_equal(pthread_create(&l->thread, NULL, later_main, l), 0);
}

#define t(f) cmocka_unit_test_setup_teardown(f, fresh, done)

static inline int run_all(const char *name, const struct CMUnitTest *tests, size_t n)
{
    if (getenv("LOCKSTEP_TEST_PG") == NULL) {
        fprintf(stderr, "LOCKSTEP_TEST_PG is not set: run under tests/with_postgres PORT -- …\n");
        return 1;
    }
    return _cmocka_run_group_tests(name, tests, n, suite_setup, suite_teardown);
}

#endif
