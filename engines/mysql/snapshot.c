/* Snapshots whose place in the binlog is exact.
 *
 * MariaDB tells it: a transaction that is started WITH CONSISTENT SNAPSHOT has in
 * binlog_snapshot_file and _position the place up to which its view has the binlog's transactions,
 * no more and no less, and nobody waits.
 *
 * MySQL does not. There a global read lock is held while the view is opened and the position read.
 * The lock waits for running statements, and while it waits it holds up every writer: so it waits
 * a second at most, gives way, and comes back, and whatever happens it is given up before we
 * return. */
#include "engines/mysql/snapshot.h"

#include "core/run.h"

#include <stdio.h>
#include <string.h>

#define START "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
#define REST_ROWS 200
#define LOCK_TRIES 30
#define LOCK_NAP_MS 500
#define ER_LOCK_WAIT_TIMEOUT 1205

static int maria_position(struct my_db *db, struct position *at, struct err *e)
{
    MYSQL_RES *res = my_query(db, "SHOW STATUS LIKE 'binlog\\_snapshot\\_%'", e);
    bool known = false;
    MYSQL_ROW row;

    if (!res)
        return -1;
    *at = (struct position){0};
    while ((row = mysql_fetch_row(res))) {
        if (strcasecmp(row[0], "binlog_snapshot_file") == 0)
            known = my_binlog_number(row[1], &at->major) == 0;
        else if (strcasecmp(row[0], "binlog_snapshot_position") == 0)
            at->minor = (uint64_t)my_int(row[1]);
    }
    mysql_free_result(res);
    if (known && at->minor)
        return 0;
    err_set(e, ERR_FATAL, "%s tells no binlog position of a snapshot", db->where);
    return err_hint(e, "start the server with log_bin");
}

/* With the global read lock held. */
static int locked_position(struct my_db *db, struct position *at, struct err *e)
{
    if (my_execf(db, e, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; " START) < 0)
        return -1;
    db->in_txn = true;
    return my_current_position(&db->base, at, e);
}

static int lock_all(struct my_db *db, struct err *e)
{
    for (int i = 0;; i++) {
        if (my_execf(db, e, "FLUSH TABLES WITH READ LOCK") == 0)
            return 0;
        if (db->broken || mysql_errno(db->conn) != ER_LOCK_WAIT_TIMEOUT || i + 1 >= LOCK_TRIES ||
            stop_requested())
            return err_wrap(e, "a global read lock for a moment");
        nap_ms(LOCK_NAP_MS);
    }
}

static int mysql_snapshot(struct my_db *db, struct position *at, struct err *e)
{
    int rc;

    if (my_execf(db, e,
                 "SET @lockstep_wait = @@lock_wait_timeout; SET SESSION lock_wait_timeout = 1") < 0)
        return -1;
    rc = lock_all(db, e);
    if (rc == 0) {
        rc = locked_position(db, at, e);
        if (!db->broken && my_execf(db, rc == 0 ? e : NULL, "UNLOCK TABLES") < 0)
            rc = -1;
    }
    /* What cannot be unlocked must not stay: the lock ends with its connection. */
    if (rc < 0)
        return -1;
    return my_execf(db, e, "SET SESSION lock_wait_timeout = @lockstep_wait");
}

int my_snapshot_open(struct my_db *db, struct position *at, struct err *e)
{
    int rc;

    invariant(!db->in_txn);
    if (db->maria) {
        rc = my_execf(db, e, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; " START);
        db->in_txn = rc == 0;
        if (rc == 0)
            rc = maria_position(db, at, e);
    } else {
        rc = mysql_snapshot(db, at, e);
    }
    if (rc < 0 && db->in_txn && !db->broken)
        (void)my_rollback(&db->base, NULL);
    return rc < 0 ? err_wrap(e, "taking a snapshot at a position of the binlog") : 0;
}

/* With sync_binlog other than 1 commits are seen before they are on disk. Should the machine fail
 * now, they never happened, and rows would have been read that nobody has. A new binlog file is
 * begun behind the old one's fsync, so what lies in an older file than the current one is safe. */
int my_snapshot_durable(struct my_db *db, struct position at, struct err *e)
{
    MYSQL_RES *res =
        my_query(db, "SELECT @@sync_binlog = 1, @@innodb_flush_log_at_trx_commit = 1", e);
    struct position now;
    MYSQL_ROW row;
    bool binlog;
    bool engine;

    if (!res)
        return -1;
    row = mysql_fetch_row(res);
    binlog = row && my_int(row[0]);
    engine = row && my_int(row[1]);
    mysql_free_result(res);
    if (!engine && my_execf(db, e, "FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS") < 0)
        goto failed;
    if (binlog)
        return 0;
    if (my_current_position(&db->base, &now, e) < 0)
        return -1;
    if (now.major > at.major)
        return 0;
    if (my_execf(db, e, "FLUSH NO_WRITE_TO_BINLOG BINARY LOGS") == 0)
        return 0;
failed:
    if (e && e->class == ERR_REFUSED)
        err_hint(e, "SET GLOBAL sync_binlog = 1, innodb_flush_log_at_trx_commit = 1, or GRANT "
                    "RELOAD ON *.* to lockstep's account");
    return err_wrap(e, "waiting for what was read to be on the source's disk");
}

void my_rows_end(struct my_db *db, MYSQL_RES *res)
{
    unsigned long *lengths;
    MYSQL_ROW row;

    for (int i = 0; res && !db->broken && i < REST_ROWS; i++) {
        if (my_fetch(db, res, &row, &lengths, NULL) <= 0)
            break;
    }
    my_stream_free(db, res);
}
