/* Shared by apply_set.c, apply_row.c and apply_rows.c: statements that are prepared once a
 * connection, and the statement that a change becomes. */
#ifndef LOCKSTEP_ENGINES_POSTGRES_APPLY_H
#define LOCKSTEP_ENGINES_POSTGRES_APPLY_H

#include "engines/postgres/pg.h"
#include "engines/postgres/prepared.h"

/* The array parameters of a set, kept for the next one. */
struct pg_apply {
    struct buf sql;
    struct buf *arrays;
    size_t narrays;
    bool generic; /* plan_cache_mode is set */
};
struct pg_apply *pg_apply_state(struct pg_db *db);

/* Runs `sql` with the parameters; keep: prepares it and keeps that. NULL: error. */
PGresult *pg_apply_exec(struct pg_db *db, const char *sql, const struct pg_params *p, bool keep,
                        struct err *e);
/* Its parts, for statements that are sent before the last one is answered. */
int pg_apply_prepare(struct pg_db *db, const char *sql, struct err *e);
/* Hands it to libpq without flushing; keep: it is prepared. */
int pg_apply_send(struct pg_db *db, const char *sql, const struct pg_params *p, bool keep,
                  struct err *e);
/* Rows that the statement met: of its tag, or the count that a SELECT gave. */
uint64_t pg_apply_count(const PGresult *res);

/* ---- apply_row.c: a change as a statement ---- */

/* Filled anew by each pg_statement_of(); borrows the values of the change. */
struct pg_statement {
    struct arena a;
    struct buf sql;
    int n;
    const char **values;
    int *lengths;
    int *formats;
    size_t bytes; /* of the values */
    bool keep;    /* worth preparing */
};
void pg_statement_init(struct pg_statement *st);
void pg_statement_release(struct pg_statement *st);
/* False: no single statement is the change; pg_apply_row() knows how. */
bool pg_statement_of(struct pg_statement *st, const struct change *c);
/* Puts in front of e what was being done; where the server does not say which column's value it
 * refuses (a NUL character in a text), names it. Returns -1. */
int pg_change_failed(const struct change *c, struct err *e);
/* Raises db->timeout_ms if one of the changes needs it; the caller sets it back. */
void pg_be_patient(struct pg_db *db, const struct change *const *changes, size_t n);
struct pg_params pg_statement_params(const struct pg_statement *st);
/* SET CONSTRAINTS ALL DEFERRED, once a transaction: a legal history may pass through rows that only
 * its end makes legal. */
int pg_apply_defer(struct pg_db *db, struct err *e);

/* ---- form.c: texts that a column of ours would keep as another value ---- */

/* Of a table that another engine calls `t`. rows[i] is complete or has UNCHANGED values. ERR_DATA
 * names the column and the value. */
int pg_form_check(const struct table *t, const struct row *const *rows, size_t n, struct err *e);
bool pg_form_is_fit(const struct table *t, const struct row *row);

#endif
