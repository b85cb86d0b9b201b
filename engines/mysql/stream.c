/* The stream: the binlog of the source from a position on, as events of the planned tables.
 *
 * One normal course: stream_open asks for the dump at the journal's frontier (a purged file is
 * refused before anything is read), each packet goes through the machine of binlog.c, which hands
 * out one event at a time. Nothing is acknowledged to the server, which keeps its binlogs by time:
 * a file that is gone is noticed when it is asked for, and never skipped.
 *
 * A large row leaves the library with a buffer of its size: outside of transactions the connection
 * is replaced by one that starts where the old one stood. */
#include "engines/mysql/binlog.h"
#include "engines/mysql/binlog_dump.h"

#include "core/log.h"
#include "core/run.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XA_WAIT_MS 10000
#define XA_NAP_MS 200
/* A lock that waits behind a long statement makes every writer wait behind it. */
#define LOCK_WAIT_S 2

struct stream {
    struct db_options options;
    struct arena life;
    char *uri;
    struct binlog_dump *dump;
    struct binlog *log;
    struct position durable;
};

/* ---- making ---- */

/* Names, for the message; *n: how many branches are open. */
static int open_branches(struct my_db *db, struct buf *names, size_t *n, struct err *e)
{
    MYSQL_RES *res = my_query(db, "XA RECOVER", e);
    MYSQL_ROW row;

    if (!res)
        return err_wrap(e, "looking for open XA transactions");
    buf_reset(names, 256);
    *n = 0;
    while ((row = mysql_fetch_row(res)) != NULL) {
        if ((*n)++ < 5)
            buf_addf(names, "%s%.60s", *n > 1 ? ", " : "", row[3] ? row[3] : "?");
    }
    mysql_free_result(res);
    return 0;
}

static int snapshot_position(struct my_db *db, struct position *out, struct err *e)
{
    MYSQL_RES *res = my_query(db, "SHOW STATUS LIKE 'binlog_snapshot_%'", e);
    MYSQL_ROW row;
    bool file = false;

    if (!res)
        return -1;
    *out = (struct position){0, 0};
    while ((row = mysql_fetch_row(res)) != NULL) {
        if (strcasecmp(row[0], "binlog_snapshot_file") == 0)
            file = my_binlog_number(row[1], &out->major) == 0;
        if (strcasecmp(row[0], "binlog_snapshot_position") == 0)
            out->minor = strtoull(row[1], NULL, 10);
    }
    mysql_free_result(res);
    if (!file || out->minor == 0)
        return err_set(e, ERR_REFUSED, "the server does not write a binlog");
    return 0;
}

/* A position before which every transaction of the binlog is visible to all later snapshots. */
static int settled_position(struct my_db *db, struct position *out, struct err *e)
{
    int rc;

    if (db->maria) {
        if (my_execf(db, e, "START TRANSACTION WITH CONSISTENT SNAPSHOT") < 0)
            return -1;
        rc = snapshot_position(db, out, e);
        return my_execf(db, rc == 0 ? e : NULL, "ROLLBACK") < 0 ? -1 : rc;
    }
    if (my_execf(db, e, "SET SESSION lock_wait_timeout = %d", LOCK_WAIT_S) < 0 ||
        my_execf(db, e, "FLUSH TABLES WITH READ LOCK") < 0)
        return err_wrap(e, "holding the source's commits for a moment");
    rc = my_current_position(&db->base, out, e);
    return my_execf(db, rc == 0 ? e : NULL, "UNLOCK TABLES") < 0 ? -1 : rc;
}

/* A branch that was prepared before the start has its rows before it, and commits behind: neither
 * stream nor snapshot would have them. So there must be none. */
static int find_start(struct my_db *db, struct position *out, struct err *e)
{
    int64_t deadline = mono_ms() + XA_WAIT_MS;
    struct buf names;
    size_t n = 0;
    int rc;

    buf_init(&names, 4096);
    for (;;) {
        rc = settled_position(db, out, e);
        if (rc == 0)
            rc = open_branches(db, &names, &n, e);
        if (rc < 0 || n == 0)
            break;
        if (stop_requested() || mono_ms() > deadline) {
            err_set(e, ERR_REFUSED, "%zu XA transactions are prepared and not decided: %s", n,
                    names.data);
            rc = err_hint(e, "XA COMMIT or XA ROLLBACK them (XA RECOVER lists them), then again");
            break;
        }
        nap_ms(XA_NAP_MS);
    }
    buf_release(&names);
    return rc;
}

int my_stream_create(const struct db_options *o, const struct table_list *tables, bool retry,
                     struct arena *a, struct stream_origin *out, struct err *e)
{
    struct db_options options = *o;
    struct my_db *db;
    int rc;

    (void)tables;
    (void)retry; /* nothing is left on the server by an attempt */
    memset(out, 0, sizeof(*out));
    options.use = DB_CONTROL;
    if (my_connect(&options, &db, e) < 0)
        return -1;
    rc = find_start(db, &out->start, e);
    my_close(&db->base);
    if (rc < 0)
        return -1;
    out->cut.text = arena_printf(a, "%" PRIu64 ":%" PRIu64, out->start.major, out->start.minor);
    out->cut.past = out->start;
    return 0;
}

int my_stream_drop(const struct db_options *o, struct err *e)
{
    (void)o;
    (void)e;
    return 0;
}

/* ---- reading ---- */

static int start(struct stream *s, struct err *e)
{
    struct position from;

    invariant(binlog_between(s->log, &from));
    return binlog_dump_open(&s->options, from, &s->dump, e);
}

int my_stream_open(const struct stream_request *r, struct stream **out, struct err *e)
{
    struct stream *s = calloc(1, sizeof(*s));

    *out = NULL;
    invariant(s != NULL);
    s->options = *r->options;
    s->uri = arena_strdup(&s->life, r->options->uri);
    s->options.uri = s->uri;
    s->options.migration = arena_strdup(&s->life, r->options->migration);
    s->options.use = DB_CONTROL;
    s->durable = r->from;
    s->log = binlog_new(r->tables, s->options.migration, r->epoch, r->from);
    if (start(s, e) < 0) {
        my_stream_close(s);
        return -1;
    }
    *out = s;
    return 0;
}

void my_stream_close(struct stream *s)
{
    if (!s)
        return;
    binlog_dump_close(s->dump);
    binlog_free(s->log);
    explicit_bzero(s->uri, strlen(s->uri));
    arena_release(&s->life);
    free(s);
}

static int renew(struct stream *s, struct err *e)
{
    struct position from;

    if (s->dump && (!binlog_dump_is_large(s->dump) || !binlog_between(s->log, &from)))
        return 0;
    binlog_dump_close(s->dump);
    s->dump = NULL;
    binlog_restart(s->log);
    return start(s, e);
}

/* ---- what a crash of the server leaves ---- */

/* With sync_binlog = 1 all that the server ever committed stands whole in its binlog, so what is
 * cut off at a file's end was rolled back. Without, a crash of the machine may have cut off more
 * than that, and nobody knows. */
static int judge_cut(struct stream *s, const char *what, struct err *e)
{
    struct my_db *db;
    MYSQL_RES *res;
    MYSQL_ROW row;
    uint64_t sync_binlog = 0;
    int rc;

    if (my_connect(&s->options, &db, e) < 0)
        return -1;
    res = my_query(db, "SELECT @@global.sync_binlog", e);
    rc = res ? 0 : -1;
    row = res ? mysql_fetch_row(res) : NULL;
    if (row && row[0])
        sync_binlog = strtoull(row[0], NULL, 10);
    mysql_free_result(res);
    my_close(&db->base);
    if (rc == 0 && sync_binlog != 1) {
        rc = err_set(e, ERR_FATAL,
                     "%s: the server died while it wrote it, and with sync_binlog = %" PRIu64
                     " its binlog may lack what it had committed",
                     what, sync_binlog);
        err_hint(e, "lockstep finish --abandon, SET GLOBAL sync_binlog = 1, then begin anew");
    }
    return rc;
}

/* 1: the server has begun another file behind the torn one; 0: it has not, yet; -1. */
static int has_next_file(struct stream *s, struct err *e)
{
    struct my_db *db;
    char name[500];
    int rc;

    if (my_connect(&s->options, &db, e) < 0)
        return -1;
    rc = my_binlog_name(db, binlog_file(s->log) + 1, name, sizeof(name), e);
    my_close(&db->base);
    if (rc == 0)
        return 1;
    if (e->class != ERR_FATAL)
        return -1;
    err_clear(e);
    return 0;
}

/* The file under way ends in the middle of an event: a write that the server's death cut off. */
static int on_torn(struct stream *s, const struct err *why, struct err *e)
{
    char what[100];
    int next = has_next_file(s, e);

    snprintf(what, sizeof(what), "binlog file %" PRIu64 " ends in the middle of an event",
             binlog_file(s->log));
    if (next <= 0 || judge_cut(s, what, e) < 0) {
        if (next == 0)
            *e = *why;
        return -1;
    }
    err_clear(e);
    if (binlog_torn(s->log, e) < 0)
        return -1;
    log_event(LOG_WARN, "stream", "binlog-torn", "file=%" PRIu64, binlog_file(s->log) - 1);
    binlog_dump_close(s->dump);
    s->dump = NULL;
    return 0;
}

static int take_next(struct stream *s, int timeout_ms, struct err *e)
{
    const uint8_t *event;
    size_t len;
    int rc = binlog_dump_next(s->dump, timeout_ms, &event, &len, e);

    if (rc < 0 && binlog_dump_is_torn(s->dump)) {
        struct err why = *e;

        return on_torn(s, &why, e) < 0 ? -1 : 1;
    }
    if (rc <= 0)
        return rc;
    return binlog_take(s->log, event, len, e) < 0 ? -1 : 1;
}

int my_stream_next(struct stream *s, int timeout_ms, struct event *out, struct err *e)
{
    int64_t deadline = mono_ms() + timeout_ms;

    memset(out, 0, sizeof(*out));
    for (;;) {
        int64_t left;
        int rc = binlog_next(s->log, out, e);

        if (rc > 0 && out->kind == EVENT_ABORT)
            rc = judge_cut(s, out->reason, e) < 0 ? -1 : 1;
        if (rc != 0)
            return rc < 0 ? err_wrap(e, "stream") : 0;
        if (renew(s, e) < 0)
            return -1;
        left = deadline - mono_ms();
        rc = take_next(s, left > 0 ? (int)left : 0, e);
        if (rc <= 0)
            return rc < 0 ? err_wrap(e, "stream") : 0;
    }
}

int my_stream_ack(struct stream *s, struct position p, bool now, struct err *e)
{
    (void)now;
    (void)e;
    invariant(position_cmp(p, s->durable) >= 0);
    s->durable = p;
    return 0;
}
