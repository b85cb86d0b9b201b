/* What the tests that need a server share: LOCKSTEP_TEST_PG, databases of their own, psql. */
#ifndef LOCKSTEP_TESTS_PG_SUPPORT_H
#define LOCKSTEP_TESTS_PG_SUPPORT_H

#include "core/run.h"
#include "engines/postgres/driver.h"
#include "engines/postgres/pg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* A conninfo for this database as this user; without LOCKSTEP_TEST_PG the test fails. */
static inline const char *test_uri(const char *database, const char *user)
{
    static _Thread_local char text[4][400];
    static _Thread_local int next;
    char *out = text[next++ % 4];
    const char *base = getenv("LOCKSTEP_TEST_PG");

    if (base == NULL)
        fail_msg("LOCKSTEP_TEST_PG is not set: run under tests/with_postgres PORT -- …");
    snprintf(out, sizeof text[0], "%s dbname=%s%s%s", base, database, user != NULL ? " user=" : "",
             user != NULL ? user : "");
    return out;
}

static inline struct db *test_open(const char *uri, enum db_use use)
{
    struct db_options o = {.uri = uri, .migration = "shop", .use = use};
    struct err e = {0};
    struct db *db = NULL;

    if (pg_open(&o, &db, &e) != 0)
        fail_msg("%s", e.msg);
    return db;
}

#define assert_ok(call)                                                                            \
    do {                                                                                           \
        if ((call) < 0)                                                                            \
            fail_msg("%s: %s: %s [%s]", #call, err_class_name(e.class), e.msg, e.hint);            \
    } while (0)

/* Statements as they are; several are one transaction. */
static inline void test_sql(struct db *db, const char *sql)
{
    struct err e = {0};

    if (pg_exec(pg_db_from(db), sql, &e) != 0)
        fail_msg("%s\n%s", e.msg, sql);
}

/* The first value of the first row, or "" for none; static storage. */
static inline const char *test_value(struct db *db, const char *sql)
{
    static _Thread_local char text[4][4000];
    static _Thread_local int next;
    char *out = text[next++ % 4];
    struct err e = {0};
    PGresult *res = pg_query(pg_db_from(db), sql, 0, NULL, &e);

    if (res == NULL)
        fail_msg("%s\n%s", e.msg, sql);
    const char *v = PQntuples(res) > 0 ? pg_text(res, 0, 0) : NULL;
    snprintf(out, sizeof text[0], "%s", v != NULL ? v : "");
    PQclear(res);
    return out;
}

/* A fresh empty database, owned by `owner` (NULL: the superuser). */
static inline void test_database(const char *name, const char *owner)
{
    struct db *db = test_open(test_uri("postgres", NULL), DB_CONTROL);
    struct err e = {0};

    assert_ok(pg_execf(pg_db_from(db), &e, "DROP DATABASE IF EXISTS %s WITH (FORCE)", name));
    assert_ok(pg_execf(pg_db_from(db), &e, "CREATE DATABASE %s TEMPLATE template0 %s %s", name,
                       owner != NULL ? "OWNER" : "", owner != NULL ? owner : ""));
    pg_close(db);
}

/* The control schema, without which nothing is loaded or applied. */
static inline void test_control(struct db *db)
{
    struct err e = {0};

    assert_ok(pg_control_install(db, SIDE_TARGET, &e));
}

/* The least that lockstep needs: LOGIN, REPLICATION and SET session_replication_role. */
static inline void test_role(const char *name)
{
    struct db *db = test_open(test_uri("postgres", NULL), DB_CONTROL);
    char sql[400];

    snprintf(sql, sizeof sql,
             "DO $$ BEGIN CREATE ROLE %s LOGIN REPLICATION;"
             " EXCEPTION WHEN duplicate_object THEN NULL; END $$",
             name);
    test_sql(db, sql);
    snprintf(sql, sizeof sql, "GRANT SET ON PARAMETER session_replication_role TO %s", name);
    test_sql(db, sql);
    pg_close(db);
}

/* ---- a standby that is not there ---- */

/* From soon on, durable commits wait for a standby which never answers. */
static inline void test_standby_absent(struct db *super)
{
    test_sql(super, "ALTER SYSTEM SET synchronous_standby_names = 'absent'");
    test_sql(super, "SELECT pg_reload_conf()");
}

static inline int test_standby_forgotten(struct db *super, struct err *e)
{
    struct pg_db *db = pg_db_from(super);

    return pg_exec(db, "ALTER SYSTEM RESET synchronous_standby_names", e) != 0
               ? -1
               : pg_exec(db, "SELECT pg_reload_conf()", e);
}

/* The teardown of each test that makes one absent: a test that fails must not hold up the others.
 */
static inline int test_standby_teardown(void **state)
{
    struct db *super = test_open(test_uri("postgres", NULL), DB_CONTROL);
    struct err e = {0};

    assert_ok(test_standby_forgotten(super, &e));
    pg_close(super);
    return 0;
}

/* Sends what commits durably: does the commit wait for the standby (its answer is then to be
 * collected)? The setting reaches the checkpointer, which makes commits wait, in its own time: to
 * be asked again, up to 500 times. */
static inline bool test_commit_waits(struct db *observer, struct db *writer, const char *sql)
{
    int64_t deadline = mono_ms() + 10000;
    struct pg_db *db = pg_db_from(writer);
    struct err e = {0};
    char seen[200];

    snprintf(seen, sizeof seen,
             "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %d"
             " AND wait_event = 'SyncRep')",
             PQbackendPID(db->conn));
    assert_ok(pg_send(db, sql, NULL, &e));
    while (strcmp(test_value(observer, seen), "t") != 0) {
        if (pg_wait_input(db, 20, &e) != 0) {
            PQclear(pg_collect(db, &e));
            nap_ms(20);
            return false;
        }
        if (mono_ms() > deadline)
            fail_msg("neither answered nor waiting: %s", sql);
    }
    return true;
}

#endif
