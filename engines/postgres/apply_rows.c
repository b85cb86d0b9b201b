/* Many changes one by one, in source order, without a round trip for each: libpq's pipeline mode.
 *
 * One normal course: statements are handed to libpq; every FLUSH_EVERY of them a flush request
 * makes the server send the answers that it has. When the window is full we wait until half of it
 * has been answered, so that the server works on one half while we build the other. The wait for
 * room in the socket takes the server's bytes too (pg_flush), so neither side blocks the other. At
 * the end one Sync, its answer, and out of pipeline mode.
 *
 * Interleavings that matter. A statement fails: the server skips all behind it up to the Sync, and
 * libpq answers for them (PGRES_PIPELINE_ABORTED). Answers come in the order of the statements, so
 * the number of good answers is the index of the failed one; we send the Sync, throw the rest away
 * and leave pipeline mode: what remains is a failed transaction like any other, and ROLLBACK TO
 * works. A statement must be prepared first, is too large, or is really two: the pipeline is ended
 * before and begins again behind it. The stream of answers dries up (deadline, stop): the running
 * statement is cancelled and the connection given up, whose pipeline goes with it. */
#include "engines/postgres/apply.h"

#include "core/run.h"

#include <stdlib.h>

/* In flight at most; one change that is larger goes too, up to LARGE_ROW. */
#define WINDOW 256
#define WINDOW_BYTES ((size_t)1024 * 1024)
/* The deadline is for a wait without an answer, so answers must not be held back for long. */
#define FLUSH_EVERY 16
/* The most answers that a Sync has before it: an answer and an end for each in flight. */
#define ANSWERS_MAX (2 * WINDOW + 8)

struct pipeline {
    struct pg_db *db;
    const struct change *const *changes;
    uint64_t *affected;
    struct pg_statement st;
    size_t sent;
    size_t answered;
    size_t bytes[WINDOW]; /* of each change in flight, by its index */
    size_t in_flight;     /* bytes */
    size_t unflushed;     /* changes since the last flush request */
    bool open;
    bool refused; /* the server refused the change `answered` */
};

/* ---- answers ---- */

/* In front of e: what could not be done. */
static int name_change(struct pipeline *p, struct err *e)
{
    const struct change *c = p->changes[p->answered];

    return pg_change_failed(c, e);
}

static bool answer_good(const PGresult *res)
{
    return PQresultStatus(res) == PGRES_COMMAND_OK || PQresultStatus(res) == PGRES_TUPLES_OK;
}

static int take_answer(struct pipeline *p, struct err *e)
{
    PGresult *res;

    if (stop_requested())
        return pg_give_up(p->db, ERR_STOPPED, "asked to stop while changes were on their way", e);
    if (pg_next(p->db, &res, e) < 0)
        return -1;
    if (!res)
        return pg_lost(p->db, "receiving", e);
    if (!answer_good(res)) {
        p->refused = true;
        pg_result_err(p->db, res, e);
        PQclear(res);
        return name_change(p, e);
    }
    p->in_flight -= p->bytes[p->answered % WINDOW];
    p->affected[p->answered++] = pg_apply_count(res);
    PQclear(res);
    if (pg_next(p->db, &res, e) < 0)
        return -1;
    invariant(res == NULL);
    return 0;
}

/* Throws away what is left, up to and with the answer of the Sync. */
static int skip_to_sync(struct pipeline *p, struct err *e)
{
    for (int i = 0; i < ANSWERS_MAX; i++) {
        PGresult *res;
        bool sync;

        if (pg_next(p->db, &res, e) < 0)
            return -1;
        sync = PQresultStatus(res) == PGRES_PIPELINE_SYNC;
        PQclear(res);
        if (sync)
            return 0;
    }
    return pg_lost(p->db, "waiting for the end of a pipeline", e);
}

/* ---- begin and end ---- */

static int open_pipeline(struct pipeline *p, struct err *e)
{
    if (p->open)
        return 0;
    if (PQenterPipelineMode(p->db->conn) != 1)
        return pg_lost(p->db, "sending changes", e);
    p->open = true;
    p->unflushed = 0;
    return 0;
}

/* All answers, then out of pipeline mode; of a refused change only the latter. e may be NULL. */
static int close_pipeline(struct pipeline *p, struct err *e)
{
    struct pg_db *db = p->db;
    int rc = 0;

    if (!p->open || db->broken)
        return 0;
    p->open = false;
    if (PQpipelineSync(db->conn) != 1)
        return pg_lost(db, "sending changes", e);
    if (pg_flush(db, e) < 0)
        return -1;
    while (rc == 0 && !p->refused && p->answered < p->sent)
        rc = take_answer(p, e);
    if (db->broken)
        return -1;
    if (skip_to_sync(p, rc == 0 ? e : NULL) < 0)
        return -1;
    if (PQexitPipelineMode(db->conn) != 1)
        return pg_lost(db, "leaving a pipeline", rc == 0 ? e : NULL);
    return rc;
}

/* ---- changes ---- */

static int want_answers(struct pipeline *p, struct err *e)
{
    p->unflushed = 0;
    if (PQsendFlushRequest(p->db->conn) != 1 || PQflush(p->db->conn) < 0)
        return pg_lost(p->db, "sending changes", e);
    return 0;
}

static bool full(const struct pipeline *p, size_t part)
{
    return p->sent - p->answered >= WINDOW / part || p->in_flight >= WINDOW_BYTES / part;
}

static int make_room(struct pipeline *p, struct err *e)
{
    if (!full(p, 1))
        return 0;
    if (want_answers(p, e) < 0 || pg_flush(p->db, e) < 0)
        return -1;
    while (p->answered < p->sent && full(p, 2)) {
        if (take_answer(p, e) < 0)
            return -1;
    }
    return 0;
}

static int send_alone(struct pipeline *p, const struct change *c, struct err *e)
{
    if (close_pipeline(p, e) < 0 || pg_apply_row(&p->db->base, c, &p->affected[p->answered], e) < 0)
        return -1;
    p->sent++;
    p->answered++;
    return 0;
}

/* Whatever can go wrong with the statement itself, goes wrong behind all before it. */
static int make_ready(struct pipeline *p, struct err *e)
{
    const struct pg_statement *st = &p->st;

    if (!st->sql.overflow && (!st->keep || pg_is_prepared(p->db, st->sql.data)))
        return 0;
    if (close_pipeline(p, e) < 0)
        return -1;
    if (buf_check(&st->sql, "a statement", e) < 0 ||
        (st->keep && pg_apply_prepare(p->db, st->sql.data, e) < 0))
        return name_change(p, e);
    return 0;
}

static int send_change(struct pipeline *p, const struct change *c, struct err *e)
{
    struct pg_statement *st = &p->st;
    struct pg_params params;

    if (!pg_statement_of(st, c) || st->bytes > LARGE_ROW)
        return send_alone(p, c, e);
    if (make_ready(p, e) < 0 || open_pipeline(p, e) < 0)
        return -1;
    params = pg_statement_params(st);
    if (pg_apply_send(p->db, st->sql.data, &params, st->keep, e) < 0)
        return -1;
    invariant(p->sent - p->answered < WINDOW);
    p->bytes[p->sent % WINDOW] = st->bytes;
    p->in_flight += st->bytes;
    p->sent++;
    p->unflushed++;
    /* Without a key the server reads the whole table for each. */
    if ((p->unflushed >= FLUSH_EVERY || !c->table->nkey) && want_answers(p, e) < 0)
        return -1;
    return make_room(p, e);
}

int pg_apply_rows(struct db *base, const struct change *const *changes, size_t n,
                  uint64_t *affected, size_t *failed, struct err *e)
{
    struct pipeline *p = calloc(1, sizeof(*p));
    int timeout_ms = pg_db_from(base)->timeout_ms;
    int rc;

    invariant(p != NULL);
    p->db = pg_db_from(base);
    pg_be_patient(p->db, changes, n);
    p->changes = changes;
    p->affected = affected;
    pg_statement_init(&p->st);
    rc = pg_apply_defer(p->db, e);
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = send_change(p, changes[i], e);
    if (close_pipeline(p, rc == 0 ? e : NULL) < 0)
        rc = -1;
    *failed = p->answered;
    p->db->timeout_ms = timeout_ms;
    pg_statement_release(&p->st);
    free(p);
    return rc;
}
