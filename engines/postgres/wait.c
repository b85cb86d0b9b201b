/* Statements without blocking calls: send, flush, poll, collect.
 *
 * One normal course: pg_send hands the statement to libpq and flushes it; pg_next polls the socket
 * and feeds libpq until a result is whole. Two interleavings matter. The deadline passes while the
 * server works: we cancel over a connection of its own (in a thread, since PQcancel connects
 * blockingly), discard what comes for a moment so that the backend really ends its statement, and
 * give the connection up. And a stop request comes while we wait: the same, after 100 ms, so that
 * statements which are about to end still do. */
#include "engines/postgres/pg.h"

#include "core/run.h"
#include "engines/postgres/prepared.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define POLL_SLICE_MS 50
#define STOP_GRACE_MS 100
#define CANCEL_WAIT_MS 2000
#define DRAIN_MS 2000
#define STALE_PLAN "0A000"

int64_t pg_deadline(const struct pg_db *db)
{
    return db->timeout_ms < 0 ? INT64_MAX : mono_ms() + db->timeout_ms;
}

int pg_poll(struct pg_db *db, short events, int64_t deadline)
{
    int64_t stop_at = 0;

    for (;;) {
        int64_t now = mono_ms();
        int64_t slice = POLL_SLICE_MS;
        struct pollfd fd = {.fd = PQsocket(db->conn), .events = events};

        if (stop_requested()) {
            if (stop_at == 0)
                stop_at = now + STOP_GRACE_MS;
            else if (now >= stop_at)
                return -1;
        }
        if (deadline - now < slice)
            slice = deadline > now ? deadline - now : 0;
        int rc = poll(&fd, 1, (int)slice);
        if (rc > 0)
            return 1;
        if (rc < 0 && errno != EINTR)
            return 1; /* libpq will find what is wrong with the socket */
        /* By the time before the poll: it is looked once more behind the deadline, since it may be
         * us who stood still. */
        if (now >= deadline)
            return 0;
    }
}

/* PQcancel in a thread of its own: it connects blockingly, and to a host that does not answer that
 * takes minutes. The last of the two sides to leave frees the job. */
struct cancel_job {
    pthread_mutex_t lock;
    pthread_cond_t done_cond;
    PGcancel *cancel;
    bool done;
    bool abandoned;
};

static void cancel_job_free(struct cancel_job *job)
{
    PQfreeCancel(job->cancel);
    pthread_cond_destroy(&job->done_cond);
    pthread_mutex_destroy(&job->lock);
    free(job);
}

static void *cancel_main(void *arg)
{
    struct cancel_job *job = arg;
    char text[256];

    /* A cancel that does not arrive is found by the caller's bounded wait. */
    (void)PQcancel(job->cancel, text, sizeof text);
    pthread_mutex_lock(&job->lock);
    job->done = true;
    bool mine = job->abandoned;
    pthread_cond_signal(&job->done_cond);
    pthread_mutex_unlock(&job->lock);
    if (mine)
        cancel_job_free(job);
    return NULL;
}

bool pg_cancel(struct pg_db *db, int wait_ms)
{
    PGcancel *cancel = PQgetCancel(db->conn);
    pthread_t thread;
    struct timespec until;

    if (cancel == NULL)
        return true;
    struct cancel_job *job = calloc(1, sizeof *job);
    if (job == NULL) {
        PQfreeCancel(cancel);
        return true;
    }
    job->cancel = cancel;
    pthread_mutex_init(&job->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&job->done_cond, &attr);
    pthread_condattr_destroy(&attr);
    if (pthread_create(&thread, NULL, cancel_main, job) != 0) {
        cancel_job_free(job);
        return true;
    }
    pthread_detach(thread);

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += wait_ms / 1000;
    until.tv_nsec += (long)(wait_ms % 1000) * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    pthread_mutex_lock(&job->lock);
    while (!job->done && pthread_cond_timedwait(&job->done_cond, &job->lock, &until) == 0)
        ;
    bool done = job->done;
    job->abandoned = !done;
    pthread_mutex_unlock(&job->lock);
    if (done)
        cancel_job_free(job);
    return done;
}

/* Reads and throws away until the statement has ended or DRAIN_MS are over. */
static void drain(struct pg_db *db)
{
    int64_t deadline = mono_ms() + DRAIN_MS;

    while (PQtransactionStatus(db->conn) == PQTRANS_ACTIVE && mono_ms() < deadline) {
        struct pollfd fd = {.fd = PQsocket(db->conn), .events = POLLIN};

        while (!PQisBusy(db->conn)) {
            PGresult *res = PQgetResult(db->conn);
            ExecStatusType status = PQresultStatus(res);

            PQclear(res);
            if (res == NULL || PQstatus(db->conn) == CONNECTION_BAD)
                return;
            /* In a COPY, PQgetResult gives the same answer for ever: closing ends it. */
            if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH)
                return;
        }
        (void)poll(&fd, 1, POLL_SLICE_MS);
        if (!PQconsumeInput(db->conn))
            return;
    }
}

int pg_give_up(struct pg_db *db, enum err_class class, const char *why, struct err *e)
{
    (void)pg_cancel(db, CANCEL_WAIT_MS);
    drain(db);
    db->broken = true;
    return err_set(e, class, "%s", why);
}

int pg_lost(struct pg_db *db, const char *doing, struct err *e)
{
    char text[600];

    snprintf(text, sizeof text, "%s", PQerrorMessage(db->conn));
    for (char *p = text; *p != '\0'; p++)
        if (*p == '\n')
            *p = p[1] == '\0' ? '\0' : ' ';
    db->broken = true;
    return err_set(e, ERR_RETRY, "%s: connection to %s:%s/%s lost: %s", doing, PQhost(db->conn),
                   PQport(db->conn), PQdb(db->conn), text);
}

static int wait_failed(struct pg_db *db, int rc, struct err *e)
{
    char why[120];

    if (rc < 0)
        return pg_give_up(db, ERR_STOPPED, "asked to stop while the server worked", e);
    snprintf(why, sizeof why, "no answer from the server within %d ms; the statement was cancelled",
             db->timeout_ms);
    return pg_give_up(db, ERR_RETRY, why, e);
}

int pg_flush(struct pg_db *db, struct err *e)
{
    int64_t deadline = pg_deadline(db);

    for (;;) {
        int rc = PQflush(db->conn);

        if (rc == 0)
            return 0;
        if (rc < 0)
            return pg_lost(db, "sending", e);
        rc = pg_poll(db, POLLIN | POLLOUT, deadline);
        if (rc <= 0)
            return wait_failed(db, rc, e);
        /* The server may be blocked in sending to us: take its bytes, else both wait for ever. */
        if (!PQconsumeInput(db->conn))
            return pg_lost(db, "sending", e);
        deadline = pg_deadline(db);
    }
}

int pg_send(struct pg_db *db, const char *sql, const struct pg_params *p, struct err *e)
{
    int ok;

    if (db->broken)
        return err_set(e, ERR_RETRY, "the connection was given up before");
    if (p != NULL && (p->n > 0 || p->extended || p->result_format != 0))
        ok = PQsendQueryParams(db->conn, sql, p->n, NULL, p->values, p->lengths, p->formats,
                               p->result_format);
    else
        ok = PQsendQuery(db->conn, sql);
    if (!ok)
        return pg_lost(db, "sending", e);
    return pg_flush(db, e);
}

int pg_wait_input(struct pg_db *db, int timeout_ms, struct err *e)
{
    int rc = pg_poll(db, POLLIN, mono_ms() + timeout_ms);

    if (rc == 0)
        return 0;
    if (rc < 0)
        return pg_give_up(db, ERR_STOPPED, "asked to stop while waiting for the server", e);
    if (!PQconsumeInput(db->conn))
        return pg_lost(db, "receiving", e);
    return 1;
}

int pg_next(struct pg_db *db, PGresult **out, struct err *e)
{
    int64_t deadline = pg_deadline(db);

    *out = NULL;
    while (PQisBusy(db->conn)) {
        int rc = pg_poll(db, POLLIN, deadline);

        if (rc <= 0)
            return wait_failed(db, rc, e);
        if (!PQconsumeInput(db->conn))
            return pg_lost(db, "receiving", e);
        deadline = pg_deadline(db);
    }
    *out = PQgetResult(db->conn);
    if (*out == NULL && PQstatus(db->conn) == CONNECTION_BAD)
        return pg_lost(db, "receiving", e);
    return 0;
}

static bool status_ok(ExecStatusType status)
{
    return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK || status == PGRES_EMPTY_QUERY ||
           status == PGRES_SINGLE_TUPLE || status == PGRES_COPY_IN || status == PGRES_COPY_OUT ||
           status == PGRES_COPY_BOTH;
}

PGresult *pg_collect(struct pg_db *db, struct err *e)
{
    PGresult *last = NULL;
    bool failed = false;

    for (;;) {
        PGresult *res;

        if (pg_next(db, &res, failed ? NULL : e) != 0) {
            PQclear(last);
            return NULL;
        }
        if (res == NULL)
            break;
        ExecStatusType status = PQresultStatus(res);
        if (!failed && !status_ok(status)) {
            failed = true;
            pg_result_err(db, res, e);
        }
        PQclear(last);
        last = res;
        if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH)
            break;
    }
    if (!failed && last != NULL)
        return last;
    PQclear(last);
    if (!failed)
        pg_lost(db, "receiving", e);
    return NULL;
}

int pg_exec(struct pg_db *db, const char *sql, struct err *e)
{
    if (pg_send(db, sql, NULL, e) != 0)
        return -1;
    PGresult *res = pg_collect(db, e);
    if (res == NULL)
        return -1;
    PQclear(res);
    return 0;
}

int pg_execf(struct pg_db *db, struct err *e, const char *fmt, ...)
{
    char *sql = NULL;
    va_list ap;

    va_start(ap, fmt);
    int n = vasprintf(&sql, fmt, ap);
    va_end(ap);
    if (n < 0)
        return err_set(e, ERR_FATAL, "out of memory");
    int rc = pg_exec(db, sql, e);
    free(sql);
    return rc;
}

/* Connections that live long and say the same all the time. */
static bool says_again(const struct pg_db *db)
{
    return (db->use == DB_CONTROL || db->use == DB_APPLY) && !db->replication && !db->broken;
}

static PGresult *query_prepared(struct pg_db *db, const char *sql, const struct pg_params *p,
                                struct err *e)
{
    if (pg_prepare(db, sql, e) != 0 || pg_send_prepared(db, sql, p, e) != 0 || pg_flush(db, e) != 0)
        return NULL;
    return pg_collect(db, e);
}

PGresult *pg_query(struct pg_db *db, const char *sql, int nparams, const char *const *values,
                   struct err *e)
{
    struct pg_params p = {.n = nparams, .values = values, .extended = !db->replication};

    if (says_again(db) && pg_may_prepare(db, sql)) {
        struct err own = {0};
        PGresult *res = query_prepared(db, sql, &p, &own);
        bool stale = strcmp(own.sqlstate, STALE_PLAN) == 0 && own.class == ERR_RETRY;

        if (stale)
            pg_prepared_forget(db, sql);
        if (res == NULL && e != NULL)
            *e = own;
        if (!stale || pg_in_transaction(db))
            return res;
        err_clear(e);
    }
    if (pg_send(db, sql, &p, e) != 0)
        return NULL;
    return pg_collect(db, e);
}

/* ---- errors ---- */

static const struct {
    const char *prefix;
    enum err_class class;
} error_classes[] = {
    {"08", ERR_RETRY},
    {"57P", ERR_RETRY},
    {"57014", ERR_RETRY},
    {"40001", ERR_RETRY},
    {"40P01", ERR_RETRY},
    {"55P03", ERR_RETRY},
    {"25P03", ERR_RETRY},
    {"53300", ERR_RETRY},
    {"55006", ERR_RETRY},
    /* Disk full, out of memory: somebody makes room, and no table is to blame. */
    {"53100", ERR_RETRY},
    {"53200", ERR_RETRY},
    {"23", ERR_CONFLICT},
    {"22", ERR_DATA},
    {"42501", ERR_REFUSED},
    {"28", ERR_REFUSED},
};

static enum err_class class_of(const char *sqlstate)
{
    for (size_t i = 0; i < sizeof error_classes / sizeof error_classes[0]; i++)
        if (strncmp(sqlstate, error_classes[i].prefix, strlen(error_classes[i].prefix)) == 0)
            return error_classes[i].class;
    return ERR_FATAL;
}

/* "cached plan must not change result type": what is not supported otherwise has the same state. */
static bool is_stale_plan(const PGresult *res, const char *sqlstate)
{
    const char *function = PQresultErrorField(res, PG_DIAG_SOURCE_FUNCTION);

    return strcmp(sqlstate, STALE_PLAN) == 0 && function != NULL &&
           strcmp(function, "RevalidateCachedQuery") == 0;
}

static void hint_for(struct pg_db *db, const char *sqlstate, const char *primary, struct err *e)
{
    if (strstr(primary, "session_replication_role") != NULL)
        err_hint(e, "as superuser: GRANT SET ON PARAMETER session_replication_role TO \"%s\"",
                 PQuser(db->conn));
    else if (strcmp(sqlstate, "42501") == 0)
        err_hint(e, "as superuser: GRANT the missing right to role \"%s\" (%s)", PQuser(db->conn),
                 "`lockstep check` names each");
}

int pg_result_err(struct pg_db *db, const PGresult *res, struct err *e)
{
    const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    const char *primary = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
    const char *detail = PQresultErrorField(res, PG_DIAG_MESSAGE_DETAIL);
    const char *hint = PQresultErrorField(res, PG_DIAG_MESSAGE_HINT);

    if (sqlstate == NULL) {
        if (PQstatus(db->conn) == CONNECTION_BAD)
            return pg_lost(db, "waiting for the server", e);
        return err_set(e, ERR_BUG, "unexpected answer of the server (%s)",
                       PQresStatus(PQresultStatus(res)));
    }
    enum err_class class = is_stale_plan(res, sqlstate) ? ERR_RETRY : class_of(sqlstate);
    err_set(e, class, "%s%s%s (SQLSTATE %s)", primary != NULL ? primary : "error",
            detail != NULL ? ": " : "", detail != NULL ? detail : "", sqlstate);
    if (e != NULL) {
        snprintf(e->sqlstate, sizeof e->sqlstate, "%s", sqlstate);
        for (char *p = e->msg; *p != '\0'; p++)
            if (*p == '\n')
                *p = ' ';
    }
    if (hint != NULL)
        err_hint(e, "%s", hint);
    hint_for(db, sqlstate, primary != NULL ? primary : "", e);
    /* 57P01 and its kin, and 25P03, end the session; the others leave it usable. */
    if (strncmp(sqlstate, "57P", 3) == 0 || strcmp(sqlstate, "25P03") == 0 ||
        strncmp(sqlstate, "08", 2) == 0 || PQstatus(db->conn) == CONNECTION_BAD)
        db->broken = true;
    return -1;
}

/* ---- text ---- */

static void quoted(struct buf *b, const char *s, char quote)
{
    buf_addc(b, quote);
    for (; *s != '\0'; s++) {
        if (*s == quote)
            buf_addc(b, quote);
        buf_addc(b, *s);
    }
    buf_addc(b, quote);
}

void pg_ident(struct buf *b, const char *name)
{
    quoted(b, name, '"');
}

void pg_ident2(struct buf *b, const char *schema, const char *name)
{
    pg_ident(b, schema);
    buf_addc(b, '.');
    pg_ident(b, name);
}

void pg_literal(struct buf *b, const char *s)
{
    if (s == NULL)
        buf_adds(b, "NULL");
    else
        quoted(b, s, '\''); /* every session has standard_conforming_strings on */
}

const char *pg_text(const PGresult *res, int row, int column)
{
    return PQgetisnull(res, row, column) ? NULL : PQgetvalue(res, row, column);
}

int64_t pg_int(const PGresult *res, int row, int column)
{
    return PQgetisnull(res, row, column) ? 0 : strtoll(PQgetvalue(res, row, column), NULL, 10);
}

bool pg_bool(const PGresult *res, int row, int column)
{
    return !PQgetisnull(res, row, column) && PQgetvalue(res, row, column)[0] == 't';
}

int pg_parse_lsn(const char *text, uint64_t *out)
{
    unsigned int high;
    unsigned int low;
    int used = 0;

    if (text == NULL || sscanf(text, "%8X/%8X%n", &high, &low, &used) != 2 || text[used] != '\0')
        return -1;
    *out = (uint64_t)high << 32 | low;
    return 0;
}
