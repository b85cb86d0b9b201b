#include "engines/postgres/bulk.h"

#include "core/run.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define CANCEL_MS 2000
#define DRAIN_MS 5000
#define NAP_MS 1

/* ---- large rows ---- */

void pg_incoming_more(struct pg_incoming *in, struct pg_db *db)
{
    int waiting = 0;

    /* What the kernel holds is what the next read takes: an estimate is all that is needed. */
    if (ioctl(PQsocket(db->conn), FIONREAD, &waiting) == 0 && waiting > 0)
        in->bytes += (size_t)waiting;
    if (in->bytes > LARGE_ROW && !in->permit) {
        large_row_enter();
        in->permit = true;
        db->large = true;
    }
}

void pg_incoming_whole(struct pg_incoming *in, struct pg_db *db, size_t len)
{
    in->bytes = 0;
    if (len <= LARGE_ROW)
        return;
    db->large = true;
    if (!in->permit)
        large_row_enter();
    in->permit = true;
}

void pg_incoming_done(struct pg_incoming *in)
{
    if (!in->permit)
        return;
    in->permit = false;
    memory_trim();
    large_row_leave();
}

int pg_renew(struct pg_db *db, struct err *e)
{
    struct db_options o = {
        .uri = db->uri, .migration = db->migration, .use = db->use, .timeout_ms = db->timeout_ms};
    struct pg_db *fresh;
    PGconn *old = db->conn;

    if (!db->large || db->broken || pg_in_transaction(db))
        return 0;
    if (pg_connect(&o, NULL, false, &fresh, e) < 0)
        return -1;
    /* Prepared statements lived in the old one. */
    pg_slot_release(&db->apply);
    pg_slot_release(&db->statements);
    db->conn = fresh->conn;
    fresh->conn = old;
    db->large = false;
    pg_close(&fresh->base);
    memory_trim();
    return 0;
}

/* ---- lines ---- */

int pg_lines_open(struct pg_lines *l, struct pg_db *db, const char *sql, struct err *e)
{
    PGresult *res;
    bool started;

    memset(l, 0, sizeof(*l));
    l->db = db;
    l->ended = true;
    if (pg_send(db, sql, NULL, e) < 0)
        return -1;
    res = pg_collect(db, e);
    started = res && PQresultStatus(res) == PGRES_COPY_OUT;
    if (res && !started)
        err_set(e, ERR_BUG, "a COPY did not begin");
    PQclear(res);
    l->ended = !started;
    return started ? 0 : -1;
}

static void drop_line(struct pg_lines *l)
{
    PQfreemem(l->line);
    l->line = NULL;
    l->len = 0;
    pg_incoming_done(&l->incoming);
}

/* The command's tag, or the error that ended it. */
static int end_of_lines(struct pg_lines *l, struct err *e)
{
    PGresult *res;

    l->ended = true;
    res = pg_collect(l->db, e);
    if (!res)
        return -1;
    l->rows = strtoull(PQcmdTuples(res), NULL, 10);
    PQclear(res);
    return 0;
}

/* While rows come in a stream a sleeping reader would be woken for each packet, at a cost to both
 * sides: a nap instead lets more gather in the socket. */
static void let_gather(struct pg_lines *l)
{
    struct pollfd fd = {.fd = PQsocket(l->db->conn), .events = POLLIN};

    if (l->streaming && poll(&fd, 1, 0) == 0)
        nap_ms(NAP_MS);
    l->streaming = false;
}

static int wait_for_more(struct pg_lines *l, struct err *e)
{
    struct pg_db *db = l->db;
    int rc;

    let_gather(l);
    rc = pg_poll(db, POLLIN, pg_deadline(db));

    if (rc < 0)
        return pg_give_up(db, ERR_STOPPED, "asked to stop while reading rows", e);
    if (rc == 0)
        return pg_give_up(db, ERR_RETRY, "the server sent no row in time; the read was cancelled",
                          e);
    pg_incoming_more(&l->incoming, db);
    return PQconsumeInput(db->conn) ? 0 : pg_lost(db, "reading rows", e);
}

int pg_lines_next(struct pg_lines *l, struct err *e)
{
    drop_line(l);
    while (!l->ended) {
        int n = PQgetCopyData(l->db->conn, &l->line, 1);

        if (n > 0) {
            l->streaming = true;
            l->len = (size_t)n;
            pg_incoming_whole(&l->incoming, l->db, l->len);
            return 1;
        }
        if (n == -1)
            return end_of_lines(l, e);
        if (n < -1)
            return pg_lost(l->db, "reading rows", e);
        if (wait_for_more(l, e) < 0)
            return -1;
    }
    return 0;
}

void pg_lines_close(struct pg_lines *l)
{
    struct pg_db *db = l->db;
    int64_t deadline = mono_ms() + DRAIN_MS;

    if (!db)
        return;
    drop_line(l);
    /* A cancel that is still under way may meet a later statement. */
    if (!l->ended && !db->broken && !pg_cancel(db, CANCEL_MS))
        db->broken = true;
    while (!l->ended && !db->broken) {
        struct pollfd fd = {.fd = PQsocket(db->conn), .events = POLLIN};
        int n = PQgetCopyData(db->conn, &l->line, 1);

        if (n < -1 || mono_ms() > deadline)
            db->broken = true;
        else if (n > 0)
            drop_line(l);
        else if (n == -1)
            (void)end_of_lines(l, NULL);
        else if (poll(&fd, 1, 50) > 0 && !PQconsumeInput(db->conn))
            db->broken = true;
    }
    l->ended = true;
}

/* ---- into a table ---- */

void pg_load_abort(struct pg_db *db)
{
    PGresult *res;

    if (!db->load.data || db->broken)
        return;
    db->load.release(db->load.data);
    db->load.data = NULL;
    /* ended already, by load_end */
    if (PQtransactionStatus(db->conn) != PQTRANS_ACTIVE)
        return;
    if (PQputCopyEnd(db->conn, "given up") != 1 || pg_flush(db, NULL) < 0)
        return;
    res = pg_collect(db, NULL);
    PQclear(res);
}
