/* The stream: logical replication through pgoutput, proto_version 1 (PostgreSQL manual, "Streaming
 * Replication Protocol").
 *
 * One normal course: stream_open looks at the slot (a gap is refused before anything is read),
 * starts the walsender at the journal's frontier, and stream_next hands out one message at a time,
 * borrowed until the next call. What is durable is told to the server by stream_ack, and with every
 * status message: each 10 s, whenever the server asks, soon after news when nothing comes, and then
 * each second, asking for an answer, so that an idle source's position goes on.
 *
 * A transaction whose first change is a row of lockstep.origin that names this migration is our own
 * (session.c): it is left out whole, and only its end is told, as a position. So BEGIN is told when
 * the first change is known, and that change is held until the next call.
 *
 * Three interleavings matter. (1) The slot's confirmed position lies behind `from`: the server
 * would start there in silence, and what lies between is lost; so we compare first. (2) A large row
 * leaves libpq with a buffer of its size: at the transaction's end the connection is replaced by
 * one that starts at txn.next; nothing of the old one is lost, because all before txn.next was
 * handed out. (3) A table's shape changes while we read an old part of the log: RELATION messages
 * come in the log's own order, so they and never today's catalog are compared with the plan. */
#include "engines/postgres/bulk.h"
#include "engines/postgres/pgoutput.h"
#include "engines/postgres/relation.h"
#include "engines/postgres/slot.h"
#include "engines/postgres/stream_ask.h"
#include "engines/postgres/visible.h"

#include "core/run.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define STATUS_MS 10000
#define IDLE_STATUS_MS 1000
/* A quiet source hears that early what has become durable, and may let its log go. */
#define QUIET_STATUS_MS 100
#define POLL_SLICE_MS 50
/* How much longer than asked for a call may go on while nothing of what comes is told. */
#define SILENT_MS 50
#define HEADER_SIZE 25 /* of an XLogData message: 'w', start, end, time */
/* After a large row the connection is renewed; for one below HUGE_ROW not more often than this,
 * since the server has to find its place in the log again. */
#define RENEW_MIN_MS 5000
#define HUGE_ROW (4 * LARGE_ROW)
/* A walsender whose client went away needs a moment to let go of the slot. */
#define SLOT_BUSY_MS 10000
#define SLOT_BUSY_NAP_MS 100
/* Microseconds from 1970 to 2000, PostgreSQL's epoch. */
#define PG_EPOCH_US ((int64_t)946684800 * 1000000)

struct stream {
    struct db_options options;
    char *uri;
    char *migration;
    uint32_t epoch;
    struct pg_db *log; /* the walsender connection */
    struct pg_db *sql; /* for the names of types; opened when first needed */
    struct arena life;
    struct arena change; /* of one event */
    struct relations relations;
    char *message; /* libpq's, of the current event */
    struct pg_incoming incoming;
    uint64_t xid_ref;
    bool in_txn;
    bool begin_due;  /* the open transaction's begin has not been told: whose is it? */
    bool own;        /* the open transaction is ours */
    uint32_t origin; /* lockstep.origin, as this connection's log calls it; 0: not named yet */
    bool held;       /* held_message comes behind the begin that was told just now */
    struct pgo_message held_message;
    struct txn txn;
    uint64_t ordinal;
    struct pgo_truncate truncate; /* under way: change.truncate_at is next */
    size_t truncate_at;
    uint32_t truncate_group;
    uint64_t start;    /* where a new connection begins */
    uint64_t durable;  /* acknowledged by the caller */
    uint64_t told;     /* of it, to the server */
    uint64_t reported; /* by EVENT_POSITION, EVENT_MARK or EVENT_COMMIT */
    int64_t status_at; /* when the last status message went out */
    bool status_due;
    int64_t renewed_at;
    size_t largest; /* message since then */
};

/* ---- opening ---- */

static int check_slot(struct stream *s, const struct pg_slot_state *slot, struct err *e)
{
    char name[PG_NAME_MAX];
    char from[32];
    char has[32];

    pg_object_name(s->sql, name);
    pg_position_text((struct position){s->start, 0}, from, sizeof(from));
    pg_position_text((struct position){slot->confirmed, 0}, has, sizeof(has));
    if (slot->standby)
        return err_set(e, ERR_REFUSED, "the source is a hot standby; capture reads the primary");
    if (!slot->exists) {
        err_set(e, ERR_FATAL, "the replication slot %s is gone: the log after %s cannot be had",
                name, from);
    } else if (!slot->ours) {
        err_set(e, ERR_FATAL, "the replication slot %s is not a pgoutput slot of this database",
                name);
    } else if (slot->lost) {
        err_set(e, ERR_FATAL, "the server has removed log that the slot %s needed (after %s)", name,
                from);
    } else if (slot->confirmed > s->start) {
        err_set(e, ERR_FATAL,
                "a gap: the journal ends at %s, but the slot %s was told that everything before %s "
                "is safe",
                from, name, has);
    } else if (s->start > slot->insert) {
        pg_position_text((struct position){slot->insert, 0}, has, sizeof(has));
        return err_set(
            e, ERR_FATAL,
            "the journal has this source's log up to %s, but the server's ends at %s: it "
            "is another server, or one that was set back",
            from, has);
    } else {
        return 0;
    }
    return err_hint(e, "the changes in between are lost to this migration: `lockstep finish "
                       "--abandon`, then begin anew");
}

static int open_sql(struct stream *s, struct err *e)
{
    if (s->sql && !s->sql->broken)
        return 0;
    if (s->sql)
        pg_close(&s->sql->base);
    s->sql = NULL;
    return pg_connect(&s->options, "capture", false, &s->sql, e);
}

static int start_once(struct stream *s, struct err *e)
{
    char name[PG_NAME_MAX];
    char from[32];
    char sql[400];
    PGresult *res = NULL;
    bool started = false;

    s->origin = 0;
    if (pg_connect(&s->options, "stream", true, &s->log, e) < 0)
        return -1;
    pg_object_name(s->log, name);
    pg_position_text((struct position){s->start, 0}, from, sizeof(from));
    snprintf(sql, sizeof(sql),
             "START_REPLICATION SLOT \"%s\" LOGICAL %s (proto_version '1', publication_names "
             "'\"%s\"'%s)",
             name, from, name, s->log->version >= 140000 ? ", messages 'true'" : "");
    if (pg_send(s->log, sql, NULL, e) == 0)
        res = pg_collect(s->log, e);
    if (res) {
        started = PQresultStatus(res) == PGRES_COPY_BOTH;
        if (!started)
            err_set(e, ERR_FATAL, "the server did not start to stream");
    }
    PQclear(res);
    s->status_at = mono_ms();
    return started ? 0 : err_wrap(e, "starting the stream of slot %s at %s", name, from);
}

static void close_log(struct stream *s)
{
    if (!s->log)
        return;
    s->log->broken = true; /* no cancel: the walsender ends when the socket closes */
    pg_close(&s->log->base);
    s->log = NULL;
}

static int start(struct stream *s, struct err *e)
{
    int64_t deadline = mono_ms() + SLOT_BUSY_MS;
    struct err own;
    int rc;

    e = e ? e : &own;
    for (;;) {
        err_clear(e);
        rc = start_once(s, e);
        if (rc == 0)
            return 0;
        close_log(s);
        /* 55006: the slot is active for another process, perhaps our own last connection. */
        if (strcmp(e->sqlstate, "55006") != 0 || mono_ms() > deadline || stop_requested())
            return -1;
        nap_ms(SLOT_BUSY_NAP_MS);
    }
}

int pg_stream_open(const struct stream_request *r, struct stream **out, struct err *e)
{
    struct stream *s = calloc(1, sizeof(*s));
    struct pg_slot_state slot;

    *out = NULL;
    invariant(s != NULL);
    s->options = *r->options;
    s->uri = arena_strdup(&s->life, r->options->uri);
    s->migration = arena_strdup(&s->life, r->options->migration);
    s->options.uri = s->uri;
    s->options.migration = s->migration;
    s->options.use = DB_CONTROL;
    s->epoch = r->epoch;
    s->start = r->from.major;
    s->durable = r->from.major;
    s->reported = r->from.major;
    relations_init(&s->relations, &s->life, r->tables);
    if (open_sql(s, e) < 0 || pg_slot_look(s->sql, &slot, e) < 0 || check_slot(s, &slot, e) < 0 ||
        start(s, e) < 0) {
        pg_stream_close(s);
        return -1;
    }
    s->xid_ref = slot.next_xid;
    *out = s;
    return 0;
}

static void drop_message(struct stream *s)
{
    PQfreemem(s->message);
    s->message = NULL;
    pg_incoming_done(&s->incoming);
}

void pg_stream_close(struct stream *s)
{
    if (!s)
        return;
    drop_message(s);
    close_log(s);
    if (s->sql)
        pg_close(&s->sql->base);
    arena_release(&s->change);
    if (s->uri)
        explicit_bzero(s->uri, strlen(s->uri));
    arena_release(&s->life);
    free(s);
}

/* ---- status ---- */

static void put64(char *p, uint64_t v)
{
    for (int i = 7; i >= 0; i--, v >>= 8)
        p[i] = (char)(v & 0xff);
}

static int send_status(struct stream *s, bool ask, struct err *e)
{
    struct timespec now;
    char m[34];

    clock_gettime(CLOCK_REALTIME, &now);
    m[0] = 'r';
    put64(m + 1, s->durable);  /* written */
    put64(m + 9, s->durable);  /* flushed */
    put64(m + 17, s->durable); /* applied */
    put64(m + 25, (uint64_t)(now.tv_sec * 1000000 + now.tv_nsec / 1000 - PG_EPOCH_US));
    m[33] = ask;
    if (PQputCopyData(s->log->conn, m, sizeof(m)) != 1)
        return pg_lost(s->log, "acknowledging", e);
    s->status_at = mono_ms();
    s->status_due = false;
    s->told = s->durable;
    return pg_flush(s->log, e);
}

int pg_stream_ack(struct stream *s, struct position p, bool now, struct err *e)
{
    if (p.major > s->durable)
        s->durable = p.major;
    /* Whoever says so at once may be about to read no more for a while: a large row's permit must
     * not wait with it, for apply may need it to make room. A TRUNCATE under way is in `change`. */
    if (now && !s->truncate.n && !s->held) {
        drop_message(s);
        arena_reset(&s->change);
    }
    /* A failed renewal left no connection; the next stream_next makes one, with this position. */
    if (!s->log || (!now && !s->status_due && mono_ms() - s->status_at < STATUS_MS))
        return 0;
    return send_status(s, false, e);
}

/* ---- events ---- */

static int type_names(void *arg, const struct pgo_relation *r, struct arena *a, const char **names,
                      struct err *e)
{
    struct stream *s = arg;

    return open_sql(s, e) < 0 ? -1 : ask_type_names(s->sql, r, a, names, e);
}

static int rewritten(void *arg, const struct table *planned, struct arena *a, const char **reason,
                     bool *final, struct err *e)
{
    struct stream *s = arg;

    return open_sql(s, e) < 0 ? -1
                              : ask_rewritten(s->sql, s->txn.xid, planned, a, reason, final, e);
}

/* Says, once a transaction, that changes of a relation are left out. 1: *out is the event; 0. */
static int tell(struct stream *s, uint32_t id, struct event *out)
{
    const struct outsider *o = relations_tell(&s->relations, id, s->txn.commit.major);

    if (!o)
        return 0;
    out->kind = EVENT_TABLE;
    out->table = o->table;
    out->reason = o->reason;
    return 1;
}

/* A relation that is not in the plan: a partition made since, of a planned root, whose rows have
 * nowhere to go. Others do not concern us. */
static int on_unplanned(struct stream *s, const struct pgo_relation *r, struct event *out,
                        struct err *e)
{
    const char *root;
    struct table *t;

    if (relations_left_out(&s->relations, r->id))
        return tell(s, r->id, out);
    if (open_sql(s, e) < 0 || ask_root(s->sql, s->txn.xid, r->id, &s->change, &root, e) < 0)
        return -1;
    if (root && relations_has_root(&s->relations, root)) {
        t = arena_zalloc(&s->life, sizeof(*t));
        t->id = r->id;
        t->schema = arena_strdup(&s->life, r->schema);
        t->name = arena_strdup(&s->life, r->name);
        t->root = arena_strdup(&s->life, root);
        relations_leave_out(&s->relations, r->id, t,
                            arena_printf(&s->change,
                                         "it has a partition %s.%s that was not planned", r->schema,
                                         r->name));
    }
    return tell(s, r->id, out);
}

static int on_relation(struct stream *s, const struct pgo_relation *r, struct event *out,
                       struct err *e)
{
    struct relation_asker asker = {.types = type_names, .rewritten = rewritten, .arg = s};
    const char *reason;
    struct relation *rel;
    int rc = relations_take(&s->relations, r, &asker, &s->change, &rel, &reason, e);

    if (rc < 0)
        return -1;
    if (rc > 0) {
        relations_leave_out(&s->relations, r->id, rel->table, reason);
        return tell(s, r->id, out);
    }
    if (!relations_find(&s->relations, r->id))
        return on_unplanned(s, r, out, e);
    if (rel->doubt)
        rel->doubt = s->txn.commit.major;
    relations_let_in(&s->relations, r->id);
    return 0;
}

/* A later transaction has the relation whose last look the catalog could not answer for sure. 0: it
 * is what was planned; 1: it is not, *out says so; -1. */
static int settle_doubt(struct stream *s, struct relation *rel, struct event *out, struct err *e)
{
    const char *reason;
    bool final;

    if (rewritten(s, rel->table, &s->change, &reason, &final, e) < 0)
        return -1;
    rel->doubt = final ? 0 : s->txn.commit.major;
    if (!reason)
        return 0;
    rel->unfit = true;
    relations_leave_out(&s->relations, rel->table->id, rel->table, reason);
    return tell(s, rel->table->id, out);
}

static int on_begin(struct stream *s, const struct pgo_begin *m, struct err *e)
{
    if (s->in_txn)
        return err_set(e, ERR_FATAL, "the log begins a transaction inside of another");
    s->in_txn = true;
    s->begin_due = true;
    s->own = false;
    s->ordinal = 0;
    s->xid_ref = pg_widen_xid(s->xid_ref, m->xid);
    s->txn = (struct txn){.epoch = s->epoch,
                          .xid = s->xid_ref,
                          .commit = {m->final_lsn, 0},
                          .ts_us = m->ts + PG_EPOCH_US};
    return 0;
}

static int on_commit(struct stream *s, const struct pgo_commit *m, struct event *out, struct err *e)
{
    if (!s->in_txn || m->commit_lsn != s->txn.commit.major || m->end_lsn <= m->commit_lsn)
        return err_set(e, ERR_FATAL, "the log ends a transaction that it did not begin");
    s->in_txn = false;
    s->begin_due = false;
    s->own = false;
    s->txn.next = (struct position){m->end_lsn, 0};
    s->start = m->end_lsn;
    s->reported = m->end_lsn;
    out->kind = EVENT_COMMIT;
    out->txn = s->txn;
    out->next = s->txn.next;
    return 1;
}

/* ---- whose transaction it is ---- */

static bool is_origin(const struct pgo_relation *r)
{
    return strcmp(r->schema, "lockstep") == 0 && strcmp(r->name, "origin") == 0;
}

/* The row's first column is the migration. */
static bool names_us(const struct stream *s, const struct pgo_change *m)
{
    const struct value *v = m->after && m->after->n > 0 ? &m->after->v[0] : NULL;
    size_t len = strlen(s->migration);

    return v && v->state == VALUE_SET && v->len == len && memcmp(v->data, s->migration, len) == 0;
}

/* True: the message is about origins, and done with. */
static bool on_origin(struct stream *s, const struct pgo_message *m)
{
    switch (m->kind) {
    case PGO_RELATION:
        if (!is_origin(&m->relation))
            return false;
        s->origin = m->relation.id;
        return true;
    case PGO_INSERT:
    case PGO_UPDATE:
    case PGO_DELETE:
        if (!s->origin || m->change.relation != s->origin)
            return false;
        if (s->begin_due && names_us(s, &m->change))
            s->own = true;
        return true;
    default:
        return false;
    }
}

/* Of a transaction of ours, only the shapes are of interest: each is told once a connection. */
static int on_own(struct stream *s, const struct pgo_message *m, struct event *out, struct err *e)
{
    struct event ignored = {0};

    if (m->kind == PGO_RELATION)
        return on_relation(s, &m->relation, &ignored, e) < 0 ? -1 : 0;
    if (m->kind != PGO_COMMIT)
        return 0;
    if (on_commit(s, &m->commit, &ignored, e) < 0)
        return -1;
    out->kind = EVENT_POSITION;
    out->next = s->txn.next;
    return 1;
}

/* The first message of a transaction that is not ours: first its begin, then the message. */
static int begin_first(struct stream *s, const struct pgo_message *m, struct event *out)
{
    s->begin_due = false;
    s->held = true;
    s->held_message = *m;
    out->kind = EVENT_BEGIN;
    out->txn = s->txn;
    return 1;
}

static int on_change(struct stream *s, const struct pgo_message *m, struct event *out,
                     struct err *e)
{
    struct relation *rel = relations_find(&s->relations, m->change.relation);
    uint64_t ordinal = s->ordinal++;

    /* Every change counts, also those that nobody gets: a number is the same at each sending. */
    if (!s->in_txn)
        return err_set(e, ERR_FATAL, "the log has a change outside of a transaction");
    if (!rel || rel->unfit)
        return tell(s, m->change.relation, out);
    if (!rel->checked)
        return err_set(e, ERR_FATAL, "%s: the log has a change before its shape",
                       table_label(rel->table));
    if (rel->doubt && rel->doubt != s->txn.commit.major) {
        int told = settle_doubt(s, rel, out, e);

        if (told != 0 || rel->unfit)
            return told;
    }
    if (relation_change(rel, m->kind, &m->change, &s->change, &out->change, e) < 0)
        return -1;
    out->change.ordinal = ordinal;
    out->kind = EVENT_CHANGE;
    out->txn = s->txn;
    return 1;
}

/* One change for each table of the statement, from call to call. */
static int next_truncate(struct stream *s, struct event *out)
{
    while (s->truncate_at < s->truncate.n) {
        uint32_t id = s->truncate.relations[s->truncate_at++];
        const struct relation *rel = relations_find(&s->relations, id);
        uint64_t ordinal = s->ordinal++;

        if ((!rel || rel->unfit) && tell(s, id, out))
            return 1;
        if (!rel || rel->unfit)
            continue;
        out->kind = EVENT_CHANGE;
        out->txn = s->txn;
        out->change = (struct change){.op = OP_TRUNCATE,
                                      .table = rel->table,
                                      .ordinal = ordinal,
                                      .group = s->truncate_group,
                                      .restart_identity = s->truncate.restart};
        return 1;
    }
    s->truncate.n = 0;
    return 0;
}

static int on_truncate(struct stream *s, const struct pgo_truncate *m, struct event *out,
                       struct err *e)
{
    if (!s->in_txn)
        return err_set(e, ERR_FATAL, "the log has a TRUNCATE outside of a transaction");
    s->truncate = *m;
    s->truncate_at = 0;
    s->truncate_group = (uint32_t)s->ordinal;
    return next_truncate(s, out);
}

/* A marker: ours, outside of transactions. Others' messages are nothing to us. */
static int on_text(struct stream *s, const struct pgo_text *m, struct event *out, struct err *e)
{
    if (m->transactional || strcmp(m->prefix, "lockstep") != 0)
        return 0;
    if (s->in_txn)
        return err_set(e, ERR_FATAL, "the log has a marker inside of a transaction");
    out->kind = EVENT_MARK;
    out->token = arena_strndup(&s->change, m->content, m->len);
    out->next = (struct position){m->lsn, 0};
    if (m->lsn > s->reported)
        s->reported = m->lsn;
    return 1;
}

/* 1: an event; 0: none for the caller; -1. */
static int dispatch(struct stream *s, const struct pgo_message *m, struct event *out, struct err *e)
{
    switch (m->kind) {
    case PGO_BEGIN:
        return on_begin(s, &m->begin, e);
    case PGO_COMMIT:
        return on_commit(s, &m->commit, out, e);
    case PGO_RELATION:
        return on_relation(s, &m->relation, out, e);
    case PGO_INSERT:
    case PGO_UPDATE:
    case PGO_DELETE:
        return on_change(s, m, out, e);
    case PGO_TRUNCATE:
        return on_truncate(s, &m->truncate, out, e);
    case PGO_MESSAGE:
        return on_text(s, &m->text, out, e);
    case PGO_ORIGIN:
    case PGO_TYPE:
        break;
    }
    return 0;
}

static bool tells_whose(const struct pgo_message *m)
{
    return m->kind != PGO_BEGIN && m->kind != PGO_MESSAGE && m->kind != PGO_ORIGIN &&
           m->kind != PGO_TYPE;
}

static int on_log(struct stream *s, struct reader *r, struct event *out, struct err *e)
{
    struct pgo_message m;
    size_t len;

    reader_bytes(r, HEADER_SIZE - 1);
    len = reader_left(r);
    if (r->bad)
        return err_set(e, ERR_FATAL, "the server sent a truncated replication message");
    if (pgo_decode(&s->change, reader_bytes(r, len), len, &m, e) < 0)
        return -1;
    if (on_origin(s, &m))
        return 0;
    if (s->own)
        return on_own(s, &m, out, e);
    if (s->begin_due && tells_whose(&m))
        return begin_first(s, &m, out);
    return dispatch(s, &m, out, e);
}

/* Everything before a keepalive's position has been sent. */
static int on_keepalive(struct stream *s, struct reader *r, struct event *out, struct err *e)
{
    uint64_t end = reader_be64(r);
    bool reply;

    reader_be64(r);
    reply = reader_u8(r);
    if (r->bad)
        return err_set(e, ERR_FATAL, "the server sent a truncated keepalive");
    s->status_due |= reply;
    if (s->in_txn || end <= s->reported)
        return 0;
    s->reported = end;
    if (end > s->start)
        s->start = end;
    out->kind = EVENT_POSITION;
    out->next = (struct position){end, 0};
    return 1;
}

/* 1: an event; 0: none for the caller; -1. */
static int on_message(struct stream *s, size_t len, struct event *out, struct err *e)
{
    struct reader r;
    uint8_t kind;

    pg_incoming_whole(&s->incoming, s->log, len);
    s->largest = len > s->largest ? len : s->largest;
    reader_init(&r, s->message, len);
    kind = reader_u8(&r);
    if (kind == 'w')
        return on_log(s, &r, out, e);
    if (kind == 'k')
        return on_keepalive(s, &r, out, e);
    return err_set(e, ERR_FATAL, "the server sent an unknown replication message (0x%02x)", kind);
}

/* ---- waiting ---- */

static int ended(struct stream *s, struct err *e)
{
    PGresult *res = pg_collect(s->log, e);

    s->log->broken = true;
    if (!res)
        return err_wrap(e, "the stream ended");
    PQclear(res);
    return err_set(e, ERR_RETRY, "the server ended the stream");
}

static int send_due_status(struct stream *s, bool idle, struct err *e)
{
    int64_t age = mono_ms() - s->status_at;

    if (s->status_due || age >= STATUS_MS || (idle && age >= IDLE_STATUS_MS))
        return send_status(s, idle, e);
    if (idle && age >= QUIET_STATUS_MS && s->durable > s->told)
        return send_status(s, false, e);
    return 0;
}

/* 1: there may be input; 0: the deadline has passed; -1. */
static int wait_input(struct stream *s, int64_t deadline, struct err *e)
{
    struct pollfd fd = {.fd = PQsocket(s->log->conn), .events = POLLIN};
    bool last;
    int rc;

    do {
        int64_t left = deadline - mono_ms();

        last = left <= POLL_SLICE_MS;
        rc = poll(&fd, 1, left <= 0 ? 0 : last ? (int)left : POLL_SLICE_MS);
        if (rc < 0 && errno != EINTR)
            return err_set(e, ERR_RETRY, "waiting for the stream: %s", strerror(errno));
        if (rc <= 0 && stop_requested())
            return err_set(e, ERR_STOPPED, "asked to stop while waiting for the stream");
        if (rc <= 0 && send_due_status(s, true, e) < 0)
            return -1;
    } while (rc <= 0 && !last);
    if (rc <= 0)
        return 0;
    pg_incoming_more(&s->incoming, s->log);
    return PQconsumeInput(s->log->conn) ? 1 : pg_lost(s->log, "streaming", e);
}

/* After a large row: libpq's buffer goes with the connection. */
static int renew(struct stream *s, struct err *e)
{
    int64_t now = mono_ms();

    if (s->log && (!s->log->large || s->in_txn))
        return 0;
    if (s->log && s->largest < HUGE_ROW && now - s->renewed_at < RENEW_MIN_MS)
        return 0;
    close_log(s);
    memory_trim();
    s->renewed_at = now;
    s->largest = 0;
    return start(s, e);
}

int pg_stream_next(struct stream *s, int timeout_ms, struct event *out, struct err *e)
{
    int64_t deadline = mono_ms() + timeout_ms;

    memset(out, 0, sizeof(*out));
    if (s->truncate.n && next_truncate(s, out))
        return 0;
    if (s->held) {
        int rc;

        s->held = false;
        rc = dispatch(s, &s->held_message, out, e);
        if (rc != 0)
            return rc < 0 ? err_wrap(e, "stream") : 0;
    }
    drop_message(s);
    arena_reset(&s->change);
    if (renew(s, e) < 0 || send_due_status(s, false, e) < 0)
        return -1;
    for (;;) {
        int n = PQgetCopyData(s->log->conn, &s->message, 1);
        int rc = 0;

        if (n > 0) {
            rc = on_message(s, (size_t)n, out, e);
            if (rc != 0)
                return rc < 0 ? err_wrap(e, "stream") : 0;
            drop_message(s);
            arena_reset(&s->change);
            if (send_due_status(s, false, e) < 0)
                return -1;
            if (stop_requested())
                return err_set(e, ERR_STOPPED, "asked to stop while reading the stream");
            /* A long transaction of which nothing is told: the caller has other things to do. */
            if (mono_ms() > deadline + SILENT_MS)
                return 0;
            continue;
        }
        if (n < 0)
            return n == -1 ? ended(s, e) : pg_lost(s->log, "streaming", e);
        rc = wait_input(s, deadline, e);
        if (rc <= 0)
            return rc;
    }
}
