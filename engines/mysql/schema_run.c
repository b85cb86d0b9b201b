/* Schema steps on a target. DDL commits by itself on these servers, so every step is an online one:
 * in autocommit, with an undo that runs before a repeat. While it runs steps a session holds one of
 * a few named locks, by which a successor finds the sessions of dead processes and ends them. */
#include "engines/mysql/my.h"

#include "core/run.h"

#include <errmsg.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SLOTS 16
#define SETTLE_MS 20000
#define SETTLE_NAP_MS 50

static int64_t ask(struct my_db *db, const char *what, int slot, struct err *e)
{
    MYSQL_RES *res = my_queryf(db, e, "SELECT %s('lockstep.%s.schema.%d'%s)", what, db->migration,
                               slot, strcmp(what, "GET_LOCK") == 0 ? ", 0" : "");
    int64_t value = 0;

    if (res == NULL)
        return -1;
    MYSQL_ROW row = mysql_fetch_row(res);
    if (row != NULL)
        value = my_int(row[0]);
    mysql_free_result(res);
    return value;
}

/* Once a connection; GET_LOCK would count a second time. */
static int hold_slot(struct my_db *db, struct err *e)
{
    if (db->holds_schema_lock)
        return 0;
    for (int slot = 0; slot < SLOTS; slot++) {
        int64_t got = ask(db, "GET_LOCK", slot, e);

        if (got < 0)
            return -1;
        if (got == 1) {
            db->holds_schema_lock = true;
            return 0;
        }
    }
    return err_set(e, ERR_RETRY, "%d other sessions run schema steps of this migration", SLOTS);
}

/* The server may have done it and not been heard. What is too large has not been sent, or not been
 * taken: it is known. */
static void outcome(const struct my_db *db, struct err *e)
{
    unsigned code = mysql_errno(db->conn);
    bool heard = !db->broken && (code < CR_MIN_ERROR || code > CR_MAX_ERROR);

    if (e != NULL && !heard && (e->class == ERR_RETRY || e->class == ERR_FATAL))
        e->class = ERR_UNKNOWN;
}

int my_schema_run(struct db *base, const char *sql, bool online, struct err *e)
{
    struct my_db *db = my_db_from(base);
    int timeout_ms = db->timeout_ms;

    if (!online || db->in_txn)
        return err_set(e, ERR_BUG, "a schema step inside of a transaction");
    if (hold_slot(db, e) != 0)
        return -1;
    /* An index on a large table takes as long as it takes; locks are bounded by the session. */
    db->timeout_ms = -1;
    int rc = my_exec(db, sql, strlen(sql), NULL, e);
    db->timeout_ms = timeout_ms;
    if (rc != 0)
        outcome(db, e);
    return rc;
}

/* Tells the leftover sessions to end; *left of them are still there. */
static int end_others(struct my_db *db, int *left, struct err *e)
{
    int64_t own = (int64_t)mysql_thread_id(db->conn);

    *left = 0;
    for (int slot = 0; slot < SLOTS; slot++) {
        int64_t id = ask(db, "IS_USED_LOCK", slot, e);

        if (id < 0)
            return -1;
        if (id == 0 || id == own)
            continue;
        (*left)++;
        /* It may have ended by itself in between. */
        if (my_execf(db, NULL, "KILL CONNECTION %" PRId64, id) != 0 && db->broken)
            return err_set(e, ERR_RETRY, "connection to %s lost", db->where);
    }
    return 0;
}

int my_schema_settle(struct db *base, struct err *e)
{
    struct my_db *db = my_db_from(base);
    int64_t deadline = mono_ms() + SETTLE_MS;

    for (;;) {
        int left;

        if (end_others(db, &left, e) != 0)
            return err_wrap(e, "ending leftover schema sessions");
        if (left == 0)
            return 0;
        if (stop_check(e) != 0)
            return -1;
        if (mono_ms() >= deadline)
            return err_set(e, ERR_RETRY,
                           "%d leftover schema session(s) of this migration do not end", left);
        nap_ms(SETTLE_NAP_MS);
    }
}
