/* Statements without blocking calls: the library's _start and _cont halves around our own poll.
 *
 * One normal course: an op is started, says what it waits for, and is continued when that has come,
 * until it is done. Two interleavings matter. The deadline passes while the server works: we kill
 * the session over a second connection, wait a moment until the server has really let go of its
 * locks, and cut the first one off; the op stays suspended on its own stack, and only
 * mysql_close() may follow. And a stop request comes while we wait: the same, after 100 ms, so that
 * statements which are about to end still do. */
#include "engines/mysql/my.h"

#include "core/run.h"
#include "engines/mysql/session.h"

#include <errmsg.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define POLL_SLICE_MS 50
#define KILL_MS 2000
#define KILL_NAP_MS 10

/* ---- ops ---- */

int my_op_query(struct my_op *op, MYSQL *conn, int ready)
{
    return ready == 0 ? mysql_real_query_start(&op->rc, conn, op->sql, op->len)
                      : mysql_real_query_cont(&op->rc, conn, ready);
}

static int op_store(struct my_op *op, MYSQL *conn, int ready)
{
    return ready == 0 ? mysql_store_result_start(&op->res, conn)
                      : mysql_store_result_cont(&op->res, conn, ready);
}

static int op_fetch(struct my_op *op, MYSQL *conn, int ready)
{
    return ready == 0 ? mysql_fetch_row_start(&op->row, op->res)
                      : mysql_fetch_row_cont(&op->row, op->res, ready);
}

static int op_next(struct my_op *op, MYSQL *conn, int ready)
{
    return ready == 0 ? mysql_next_result_start(&op->rc, conn)
                      : mysql_next_result_cont(&op->rc, conn, ready);
}

static int op_free(struct my_op *op, MYSQL *conn, int ready)
{
    return ready == 0 ? mysql_free_result_start(op->res) : mysql_free_result_cont(op->res, ready);
}

/* ---- large rows ---- */

static size_t bytes_read(MYSQL *conn)
{
    size_t n = 0;

    (void)mariadb_get_infov(conn, MARIADB_CONNECTION_BYTES_READ, &n);
    return n;
}

/* The permit is taken while the rest of a large row still comes. */
static void incoming_more(struct my_db *db, size_t bytes)
{
    if (bytes <= LARGE_ROW || db->permit)
        return;
    large_row_enter();
    db->permit = true;
    db->large = true;
}

static void incoming_done(struct my_db *db)
{
    if (!db->permit)
        return;
    db->permit = false;
    memory_trim();
    large_row_leave();
}

/* ---- waiting ---- */

/* What became ready of `wants`; 0: the deadline; -1: stop, see my_op_run. */
static int wait_ready(MYSQL *conn, int wants, int64_t deadline, int grace_ms)
{
    int64_t stop_at = 0;
    int64_t library = INT64_MAX;

    if (wants & MYSQL_WAIT_TIMEOUT)
        library = mono_ms() + mysql_get_timeout_value_ms(conn);
    for (;;) {
        int64_t now = mono_ms();
        int64_t until = deadline < library ? deadline : library;
        struct pollfd fd = {.fd = mysql_get_socket(conn)};

        if (grace_ms >= 0 && stop_requested()) {
            if (stop_at == 0)
                stop_at = now + grace_ms;
            else if (now >= stop_at)
                return -1;
        }
        fd.events = (short)((wants & MYSQL_WAIT_READ ? POLLIN : 0) |
                            (wants & MYSQL_WAIT_WRITE ? POLLOUT : 0) |
                            (wants & MYSQL_WAIT_EXCEPT ? POLLPRI : 0));
        int64_t slice = until - now < POLL_SLICE_MS ? until - now : POLL_SLICE_MS;
        int rc = poll(&fd, 1, slice > 0 ? (int)slice : 0);
        int ready = (fd.revents & (POLLIN | POLLHUP | POLLERR) ? MYSQL_WAIT_READ : 0) |
                    (fd.revents & (POLLOUT | POLLHUP | POLLERR) ? MYSQL_WAIT_WRITE : 0) |
                    (fd.revents & POLLPRI ? MYSQL_WAIT_EXCEPT : 0);
        if (rc > 0 || (rc < 0 && errno != EINTR))
            return (ready & wants) != 0 ? ready & wants : wants & ~MYSQL_WAIT_TIMEOUT;
        /* By the time before the poll: it is looked once more behind the deadline, since it may be
         * us who stood still. */
        if (now >= deadline)
            return 0;
        if (now >= library)
            return MYSQL_WAIT_TIMEOUT;
    }
}

/* The library reads plain sockets without waiting, whatever their mode; under TLS it would wait,
 * and after the handshake it leaves the socket blocking. */
static void never_block(MYSQL *conn)
{
    int fd = mysql_get_socket(conn);
    int flags = fd >= 0 ? fcntl(fd, F_GETFL) : -1;

    if (flags >= 0 && !(flags & O_NONBLOCK))
        (void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

/* OpenSSL's errors are the thread's, not the connection's, and the library takes one that another
 * connection has left (a session that was ended) for its own: what only has to wait would be lost.
 */
static int step(struct my_op *op, MYSQL *conn, int ready)
{
    ERR_clear_error();
    return op->step(op, conn, ready);
}

int my_op_run(struct my_op *op, MYSQL *conn, int timeout_ms, int grace_ms)
{
    size_t before = op->incoming != NULL ? bytes_read(conn) : 0;
    int wants = step(op, conn, 0);

    while (wants != 0) {
        int64_t deadline = timeout_ms < 0 ? INT64_MAX : mono_ms() + timeout_ms;
        int ready = wait_ready(conn, wants, deadline, grace_ms);

        if (ready <= 0)
            return ready;
        if (op->incoming != NULL)
            incoming_more(op->incoming, bytes_read(conn) - before);
        if (op->uri != NULL)
            never_block(conn);
        wants = step(op, conn, ready);
    }
    if (op->uri != NULL)
        never_block(conn);
    return 1;
}

/* ---- giving up ---- */

void my_cut_off(MYSQL *conn)
{
    if (conn == NULL)
        return;
    if (conn->net.pvio != NULL)
        (void)shutdown(mysql_get_socket(conn), SHUT_RDWR);
    mysql_close(conn);
}

/* One statement of the second connection; its first value, or -1. */
static int64_t side_query(MYSQL *conn, const char *sql)
{
    struct my_op op = {.step = my_op_query, .sql = sql, .len = strlen(sql)};
    int64_t value = 0;

    if (my_op_run(&op, conn, KILL_MS, -1) != 1 || op.rc != 0)
        return -1;
    if (mysql_field_count(conn) == 0)
        return 0;
    op.step = op_store;
    if (my_op_run(&op, conn, KILL_MS, -1) != 1 || op.res == NULL)
        return -1;
    MYSQL_ROW row = mysql_fetch_row(op.res);
    if (row != NULL)
        value = my_int(row[0]);
    mysql_free_result(op.res);
    return value;
}

/* KILL QUERY or CONNECTION from outside; the latter waits until the session is gone with its locks.
 * What does not succeed is found by the caller's own bounded wait. False: it was not sent, or is
 * still under way and may meet whatever this session runs next. */
static bool kill_remote(struct my_db *db, bool connection)
{
    struct my_dial d = {.uri = db->uri, .program = "lockstep:kill", .timeout_ms = KILL_MS};
    unsigned long id = mysql_thread_id(db->conn);
    int64_t deadline = mono_ms() + KILL_MS;
    char sql[160];
    MYSQL *conn;

    if (my_dial(&d, &conn, NULL) != 0)
        return false;
    snprintf(sql, sizeof sql, "KILL %s %lu", connection ? "CONNECTION" : "QUERY", id);
    bool answered =
        side_query(conn, sql) >= 0 || (mysql_errno(conn) != 0 && mysql_errno(conn) < CR_MIN_ERROR);
    snprintf(sql, sizeof sql, "SELECT count(*) FROM information_schema.processlist WHERE id = %lu",
             id);
    while (connection && side_query(conn, sql) > 0 && mono_ms() < deadline)
        (void)poll(NULL, 0, KILL_NAP_MS);
    my_cut_off(conn);
    return answered;
}

int my_give_up(struct my_db *db, enum err_class class, const char *why, struct err *e)
{
    (void)kill_remote(db, true);
    db->broken = true;
    incoming_done(db);
    /* What still frees a result would read its rows to the end: there is no more to read. */
    if (db->conn->net.pvio != NULL)
        (void)shutdown(mysql_get_socket(db->conn), SHUT_RDWR);
    return err_set(e, class, "%s", why);
}

/* Runs an op of db under its deadline. */
static int run(struct my_db *db, struct my_op *op, struct err *e)
{
    char why[120];

    if (db->broken)
        return err_set(e, ERR_RETRY, "the connection was given up before");
    int rc = my_op_run(op, db->conn, db->timeout_ms, MY_STOP_GRACE_MS);
    if (rc == 1)
        return 0;
    if (rc < 0)
        return my_give_up(db, ERR_STOPPED, "asked to stop while the server worked", e);
    snprintf(why, sizeof why, "no answer from the server within %d ms; the statement was killed",
             db->timeout_ms);
    return my_give_up(db, ERR_RETRY, why, e);
}

/* ---- statements ---- */

/* The server ends a session that sends it more than its limit, which counts the statement and the
 * command's byte before it. So that is refused here: the connection stays good, and whose statement
 * it is can park. A session keeps the limit that it began with: when it has been raised since,
 * another connection has it. */
static int refuse_too_long(struct my_db *db, size_t len, struct err *e)
{
    MYSQL_RES *res = my_query(db, "SELECT @@global.max_allowed_packet", e);
    MYSQL_ROW row = res != NULL ? mysql_fetch_row(res) : NULL;
    bool raised = row != NULL && (size_t)my_int(row[0]) > db->max_packet;

    mysql_free_result(res);
    if (res == NULL)
        return -1;
    if (raised) {
        db->broken = true;
        return err_set(e, ERR_RETRY,
                       "max_allowed_packet of %s was raised: it takes a new connection", db->where);
    }
    err_set(e, ERR_DATA, "a statement of %zu bytes for %s, whose max_allowed_packet is %zu", len,
            db->where, db->max_packet);
    return err_hint(e, "SET GLOBAL max_allowed_packet = 1073741824 on that server, and in its "
                       "configuration");
}

static int send_query(struct my_db *db, const char *sql, size_t len, struct err *e)
{
    struct my_op op = {.step = my_op_query, .sql = sql, .len = len};

    if (!db->broken && db->max_packet > 0 && len + 1 >= db->max_packet)
        return refuse_too_long(db, len, e);
    if (run(db, &op, e) != 0)
        return -1;
    return op.rc == 0 ? 0 : my_fail(db, NULL, e);
}

/* The rows of the current statement; NULL with *e unset where it has none. */
static int store(struct my_db *db, MYSQL_RES **out, struct err *e)
{
    struct my_op op = {.step = op_store};

    *out = NULL;
    if (mysql_field_count(db->conn) == 0)
        return 0;
    if (run(db, &op, e) != 0)
        return -1;
    *out = op.res;
    return op.res != NULL ? 0 : my_fail(db, NULL, e);
}

/* 1: on to the next statement's outcome; 0: there is none; -1. */
static int next_result(struct my_db *db, struct err *e)
{
    struct my_op op = {.step = op_next};

    if (!mysql_more_results(db->conn))
        return 0;
    if (run(db, &op, e) != 0)
        return -1;
    return op.rc == 0 ? 1 : my_fail(db, NULL, e);
}

int my_exec_each(struct my_db *db, const char *sql, size_t len, uint64_t *affected, size_t n,
                 size_t *done, struct err *e)
{
    int rc;

    *done = 0;
    if (send_query(db, sql, len, e) != 0)
        return -1;
    do {
        MYSQL_RES *res;

        if (store(db, &res, e) != 0)
            return -1;
        if (*done < n)
            affected[*done] = res == NULL ? mysql_affected_rows(db->conn) : 0;
        mysql_free_result(res);
        (*done)++;
        rc = next_result(db, e);
    } while (rc == 1);
    return rc;
}

int my_query_each(struct my_db *db, const char *sql, unsigned with_rows, MYSQL_RES **out, size_t n,
                  struct err *e)
{
    size_t done = 0;
    int rc;

    memset(out, 0, n * sizeof(*out));
    rc = send_query(db, sql, strlen(sql), e) == 0 ? 1 : -1;
    while (rc == 1 && done < n)
        rc = store(db, &out[done++], e) == 0 ? next_result(db, e) : -1;
    if (rc == 1)
        rc = my_give_up(db, ERR_FATAL, "more answers than statements", e);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        if ((with_rows & (1U << i)) != 0 && out[i] == NULL)
            rc = err_set(e, ERR_BUG, "a query without rows");
    }
    for (size_t i = 0; rc < 0 && i < n; i++) {
        mysql_free_result(out[i]);
        out[i] = NULL;
    }
    return rc;
}

int my_exec(struct my_db *db, const char *sql, size_t len, uint64_t *affected, struct err *e)
{
    uint64_t count = 0;
    size_t done;
    int rc = my_exec_each(db, sql, len, &count, 1, &done, e);

    if (rc == 0 && affected != NULL)
        *affected = count;
    return rc;
}

int my_execf(struct my_db *db, struct err *e, const char *fmt, ...)
{
    char *sql = NULL;
    va_list ap;

    va_start(ap, fmt);
    int n = vasprintf(&sql, fmt, ap);
    va_end(ap);
    if (n < 0)
        return err_set(e, ERR_FATAL, "out of memory");
    int rc = my_exec(db, sql, (size_t)n, NULL, e);
    free(sql);
    return rc;
}

MYSQL_RES *my_query(struct my_db *db, const char *sql, struct err *e)
{
    MYSQL_RES *res = NULL;

    if (send_query(db, sql, strlen(sql), e) != 0 || store(db, &res, e) != 0)
        return NULL;
    if (res == NULL)
        err_set(e, ERR_BUG, "a query without rows");
    return res;
}

MYSQL_RES *my_queryf(struct my_db *db, struct err *e, const char *fmt, ...)
{
    char *sql = NULL;
    va_list ap;

    va_start(ap, fmt);
    int n = vasprintf(&sql, fmt, ap);
    va_end(ap);
    if (n < 0) {
        err_set(e, ERR_FATAL, "out of memory");
        return NULL;
    }
    MYSQL_RES *res = my_query(db, sql, e);
    free(sql);
    return res;
}

MYSQL_RES *my_query_stream(struct my_db *db, const char *sql, size_t len, struct err *e)
{
    if (send_query(db, sql, len, e) != 0)
        return NULL;
    MYSQL_RES *res = mysql_use_result(db->conn);
    if (res == NULL && mysql_errno(db->conn) != 0)
        my_fail(db, NULL, e);
    else if (res == NULL)
        err_set(e, ERR_BUG, "a query without rows");
    return res;
}

int my_fetch(struct my_db *db, MYSQL_RES *res, MYSQL_ROW *row, unsigned long **lengths,
             struct err *e)
{
    struct my_op op = {.step = op_fetch, .res = res, .incoming = db};

    *row = NULL;
    incoming_done(db);
    if (run(db, &op, e) != 0)
        return -1;
    *row = op.row;
    if (op.row != NULL) {
        size_t bytes = 0;

        *lengths = mysql_fetch_lengths(res);
        for (unsigned i = 0; i < mysql_num_fields(res); i++)
            bytes += (*lengths)[i];
        incoming_more(db, bytes);
        return 1;
    }
    return mysql_errno(db->conn) != 0 ? my_fail(db, NULL, e) : 0;
}

void my_stream_free(struct my_db *db, MYSQL_RES *res)
{
    struct my_op op = {.step = op_free, .res = res};

    if (res == NULL)
        return;
    incoming_done(db);
    /* The rest would come to the last row: the server is told to stop instead. */
    if (!db->broken && !res->eof && db->conn->status == MYSQL_STATUS_USE_RESULT) {
        if (kill_remote(db, false) && my_op_run(&op, db->conn, KILL_MS, -1) == 1)
            return;
        my_give_up(db, ERR_RETRY, "", NULL);
        return;
    }
    mysql_free_result(res);
}
