/* Statements in the binlog: we do not parse SQL, we see what sort of statement it is and which
 * tables a DDL names. Comments, quotes and MySQL's versioned comments (which are code) are
 * understood. Pure. */
#ifndef LOCKSTEP_ENGINES_MYSQL_BINLOG_SQL_H
#define LOCKSTEP_ENGINES_MYSQL_BINLOG_SQL_H

#include <stdbool.h>
#include <stddef.h>

enum sql_kind {
    SQL_OTHER, /* nothing that rows or shapes depend on */
    SQL_BEGIN,
    SQL_COMMIT,
    SQL_ROLLBACK,
    SQL_ROLLBACK_TO,
    SQL_SAVEPOINT,
    SQL_XA_START,  /* what follows is a branch whose outcome is told later */
    SQL_XA_END,    /* still inside of it */
    SQL_XA_DECIDE, /* XA COMMIT, XA ROLLBACK */
    SQL_DML,       /* rows changed by a statement: they are not in the log */
    SQL_TRUNCATE,
    SQL_DDL,
    SQL_UNREAD /* a SET STATEMENT whose statement is not found: it may be any of them */
};

/* An identifier with its quotes taken off; at most the server's 64 characters. */
#define SQL_NAME_MAX 260
struct sql_name {
    char schema[SQL_NAME_MAX];
    char table[SQL_NAME_MAX]; /* "": the whole schema (DROP DATABASE) */
};

/* TEMPORARY tables concern nobody else: SQL_OTHER. */
enum sql_kind sql_kind_of(const char *sql, size_t len);
/* Does the text of a DDL leave the transaction open (CREATE TABLE … START TRANSACTION)? */
bool sql_leaves_open(const char *sql, size_t len);

/* Calls take() for each table that a SQL_TRUNCATE or SQL_DDL names; unqualified names are of
 * default_schema. */
typedef void sql_name_fn(void *arg, const struct sql_name *name);
void sql_names(const char *sql, size_t len, const char *default_schema, sql_name_fn *take,
               void *arg);
/* Does any identifier of the statement equal this word? */
bool sql_mentions(const char *sql, size_t len, const char *word);

#endif
