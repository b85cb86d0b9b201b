/* What the tests that need a MariaDB or MySQL server share: LOCKSTEP_TEST_MY, databases of their
 * own. */
#ifndef LOCKSTEP_TESTS_MY_SUPPORT_H
#define LOCKSTEP_TESTS_MY_SUPPORT_H

#include "core/run.h"
#include "engines/mysql/driver.h"
#include "engines/mysql/my.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* The server's URI for this database (NULL: none) as this user (NULL: the superuser root; password
 * "secret" for others); without LOCKSTEP_TEST_MY the test fails. */
static inline const char *test_uri(const char *database, const char *user)
{
    static _Thread_local char text[4][400];
    static _Thread_local int next;
    char *out = text[next++ % 4];
    const char *base = getenv("LOCKSTEP_TEST_MY");
    const char *host = base != NULL ? strchr(base, '@') : NULL;

    if (host == NULL)
        fail_msg("LOCKSTEP_TEST_MY is not set: run under tests/with_mariadb PORT -- …");
    snprintf(out, sizeof text[0], "mysql://%s%s%s/%s", user != NULL ? user : "root",
             user != NULL ? ":secret" : "", host, database != NULL ? database : "");
    return out;
}

static inline struct db *test_open(const char *uri, enum db_use use)
{
    struct db_options o = {.uri = uri, .migration = "shop", .use = use};
    struct err e = {0};
    struct db *db = NULL;

    if (my_open(&o, &db, &e) != 0)
        fail_msg("%s", e.msg);
    return db;
}

#define assert_ok(call)                                                                            \
    do {                                                                                           \
        if ((call) < 0)                                                                            \
            fail_msg("%s: %s: %s [%s]", #call, err_class_name(e.class), e.msg, e.hint);            \
    } while (0)

/* Statements as they are, separated by semicolons. */
static inline void test_sql(struct db *db, const char *sql)
{
    struct err e = {0};

    if (my_exec(my_db_from(db), sql, strlen(sql), NULL, &e) != 0)
        fail_msg("%s\n%s", e.msg, sql);
}

/* The first value of the first row, or "" for none; static storage. */
static inline const char *test_value(struct db *db, const char *sql)
{
    static _Thread_local char text[4][4000];
    static _Thread_local int next;
    char *out = text[next++ % 4];
    struct err e = {0};
    MYSQL_RES *res = my_query(my_db_from(db), sql, &e);

    if (res == NULL)
        fail_msg("%s\n%s", e.msg, sql);
    MYSQL_ROW row = mysql_fetch_row(res);
    snprintf(out, sizeof text[0], "%s", row != NULL && row[0] != NULL ? row[0] : "");
    mysql_free_result(res);
    return out;
}

/* A fresh empty database. */
static inline void test_database(const char *name)
{
    struct db *db = test_open(test_uri(NULL, NULL), DB_CONTROL);
    struct err e = {0};

    assert_ok(my_execf(my_db_from(db), &e, "DROP DATABASE IF EXISTS `%s`", name));
    assert_ok(my_execf(my_db_from(db), &e, "CREATE DATABASE `%s`", name));
    my_close(db);
}

/* A fresh account 'name'@'%' with the password "secret" and these rights ("SELECT ON *.*"; NULL:
 * none). */
static inline void test_role(const char *name, const char *rights)
{
    struct db *db = test_open(test_uri(NULL, NULL), DB_CONTROL);
    struct err e = {0};

    assert_ok(my_execf(my_db_from(db), &e, "DROP USER IF EXISTS '%s'@'%%'", name));
    assert_ok(my_execf(my_db_from(db), &e, "CREATE USER '%s'@'%%' IDENTIFIED BY 'secret'", name));
    if (rights != NULL)
        assert_ok(my_execf(my_db_from(db), &e, "GRANT %s TO '%s'@'%%'", rights, name));
    my_close(db);
}

#endif
