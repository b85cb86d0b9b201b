/* Capture: the source's log becomes journal records.
 *
 * The normal course. The stream hands out transactions in commit order: BEGIN, changes, COMMIT; in
 * between, markers and positions. Each becomes a record and is appended. When a mebibyte has
 * gathered, or the source has nothing more to say right now, the journal is flushed, and only then
 * is the source told that it may forget what lies behind: `acknowledge` is the one place that says
 * so, and it is given the frontier that the flush covered.
 *
 * The frontier travels with the records as the journal's note. A new capture goes on from the note:
 * what an earlier one wrote behind it, possibly half a transaction, comes once more, from a new
 * generation; apply drops what it has by its version and forgets an unfinished transaction when
 * the generation rises.
 *
 * The dangerous interleavings. (1) Death between flush and acknowledgement: the source sends again
 * what the journal holds; same versions, dropped. (2) Death between append and flush: the journal
 * loses the tail, the note is older, the source still has it all because nothing was acknowledged.
 * (3) Somebody moves the slot, or the journal is lost: then the slot has forgotten what lies behind
 * the note, stream_open sees the gap and refuses. (4) A table was planned anew: the stream goes on
 * from the note with the new shape, and reads once more, or for the first time, what still speaks
 * of the old one. The new shape holds from where the source's log ended when it was taken up. */
#include "capture/capture.h"
#include "capture/schema_ids.h"
#include "control/plan.h"
#include "core/log.h"
#include "core/run.h"
#include "journal/journal.h"
#include "schemas/avro/codec.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Records gathered before a flush, and how long one step may go on gathering. */
#define CAPTURE_FLUSH_BYTES (1024u * 1024u)
#define CAPTURE_STEP_EVENTS 20000
/* A busy source sends message by message, and waking us for each costs both more than the message
 * does. A step that met so many events naps for more, while so many more come; so does the one
 * behind it. */
#define CAPTURE_BUSY_EVENTS 16
#define CAPTURE_NAPS 4
#define CAPTURE_NAP_MS 1
/* A heartbeat record at most this often: it only lets an idle stream advance. */
#define CAPTURE_HEARTBEAT_MS 500
/* With the journal fuller than this, or with less room than slack(), reading pauses before an
 * append would fail in mid-transaction. */
#define CAPTURE_PAUSE_PERCENT 97
#define CAPTURE_FULL_CHECK_MS 1000
/* What a record may take in the journal beside its datum. */
#define CAPTURE_RECORD_MAX_COST 256
/* How often a table's new shape is looked for. */
#define CAPTURE_SHAPES_MS 500
/* The encoding buffer keeps this much between records. */
#define CAPTURE_BUFFER_KEEP (1024u * 1024u)

struct capture {
    const struct migration *m;
    struct db *control;
    struct arena arena; /* shapes; as long as the stream */
    struct table_list shapes;
    struct journal_writer *writer;
    struct encoder *encoder;
    struct schema_ids ids;
    struct owned_journal journal;
    struct stream *stream;
    struct buf datum;

    bool in_txn;
    uint64_t nchanges;       /* of the open transaction */
    struct position pending; /* frontier behind the last whole thing appended */
    struct position idle;    /* told by the last EVENT_POSITION */
    size_t unflushed;        /* bytes */
    int64_t last_heartbeat_ms;
    int64_t last_full_check_ms;
    uint64_t room;     /* of the journal when it was last looked at; 0: it was not */
    uint64_t appended; /* bytes since, at most */
    size_t largest;    /* datum so far */
    int64_t last_shapes_check_ms;
    struct fact *reshaped; /* requests whose shapes the stream goes by, not answered yet */
    size_t nreshaped;
    struct position reshaped_end; /* of the source's log when they were taken up */
    bool paused;
    bool busy;               /* the last step met many events */
    char changed_table[520]; /* said last; the stream says it in every transaction */

    pthread_mutex_t lock; /* of durable */
    struct position durable;
};

struct capture *capture_open(const struct migration *m)
{
    struct capture *c = calloc(1, sizeof(*c));

    invariant(c != NULL);
    c->m = m;
    buf_init(&c->datum, BUF_MAX_ROW);
    pthread_mutex_init(&c->lock, NULL);
    return c;
}

struct position capture_frontier(const struct capture *c)
{
    struct capture *mutable = (struct capture *)(uintptr_t)c;
    struct position p;

    pthread_mutex_lock(&mutable->lock);
    p = c->durable;
    pthread_mutex_unlock(&mutable->lock);
    return p;
}

static void forget_reshaped(struct capture *c)
{
    facts_release(c->reshaped, c->nreshaped);
    c->reshaped = NULL;
    c->nreshaped = 0;
}

static void capture_stop(struct capture *c)
{
    if (c->stream)
        c->m->source.engine->stream_close(c->stream);
    c->stream = NULL;
    journal_writer_close(c->writer);
    c->writer = NULL;
    encoder_free(c->encoder);
    c->encoder = NULL;
    schema_ids_release(&c->ids);
    if (c->control)
        c->control->engine->close(c->control);
    c->control = NULL;
    arena_release(&c->arena);
    forget_reshaped(c);
    c->in_txn = false;
    c->idle = (struct position){0, 0};
    c->changed_table[0] = '\0';
    c->unflushed = 0;
    c->room = 0;
    c->busy = false;
}

void capture_close(struct capture *c)
{
    if (!c)
        return;
    capture_stop(c);
    buf_release(&c->datum);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static void set_durable(struct capture *c, struct position p)
{
    pthread_mutex_lock(&c->lock);
    c->durable = p;
    pthread_mutex_unlock(&c->lock);
}

/* ---- records ---- */

static int schema_id(struct capture *c, const struct record *r, uint32_t *id, struct err *e)
{
    const char *name;
    const char *text;

    if (encoder_schema(c->encoder, r, &name, &text, e) < 0)
        return -1;
    if (schema_ids_find(&c->ids, text, id))
        return 0;
    if (journal_schema(c->writer, name, text, id, e) < 0)
        return -1;
    schema_ids_add(&c->ids, text, *id);
    return 0;
}

static int append(struct capture *c, const struct record *r, struct err *e)
{
    uint32_t id;
    uint64_t number;

    if (schema_id(c, r, &id, e) < 0)
        return -1;
    buf_reset(&c->datum, CAPTURE_BUFFER_KEEP);
    if (encoder_encode(c->encoder, r, &c->datum, e) < 0 ||
        buf_check(&c->datum, "a journal record", e) < 0)
        return -1;
    /* Also of one that finds no room: before it comes again there has to be. */
    if (c->datum.len > c->largest)
        c->largest = c->datum.len;
    if (journal_append(c->writer, id, c->datum.data, c->datum.len, &number, e) < 0)
        return -1;
    c->unflushed += c->datum.len;
    c->appended += c->datum.len + CAPTURE_RECORD_MAX_COST;
    if (c->datum.cap > CAPTURE_BUFFER_KEEP)
        buf_reset(&c->datum, 0);
    return 0;
}

/* Tells the source that everything before p is durable with us. Callers have flushed up to p. */
static int acknowledge(struct capture *c, struct position p, bool now, struct err *e)
{
    if (c->m->source.engine->stream_ack(c->stream, p, now, e) < 0)
        return -1;
    set_durable(c, p);
    return 0;
}

static int flush(struct capture *c, struct err *e)
{
    struct position frontier = c->pending;
    char note[POSITION_TEXT_SIZE];

    position_format(frontier, note);
    if (journal_note(c->writer, note, e) < 0 || journal_flush(c->writer, e) < 0)
        return err_wrap(e, "journal");
    c->unflushed = 0;
    return acknowledge(c, frontier, false, e);
}

/* ---- starting ---- */

/* The schemas of all planned tables at once, so that a segment holds many tables. */
static int declare_schemas(struct capture *c, struct err *e)
{
    struct record r = {.kind = RECORD_BEGIN};
    uint32_t id;

    if (schema_id(c, &r, &id, e) < 0)
        return -1;
    r.kind = RECORD_POSITION;
    if (schema_id(c, &r, &id, e) < 0)
        return -1;
    r.kind = RECORD_CHANGE;
    for (size_t i = 0; i < c->shapes.n; i++) {
        r.change.table = c->shapes.v[i];
        if (schema_id(c, &r, &id, e) < 0)
            return -1;
    }
    return 0;
}

/* Where to go on: the note, or the stream's start for a new journal. A journal that is gone while
 * apply has read from it must not be begun again in silence. */
static int find_start(struct capture *c, const struct stream_fact *stream, const char *note,
                      struct err *e)
{
    struct checkpoint checkpoint;
    int found = checkpoint_load(c->control, "forward", &checkpoint, e);

    if (found < 0)
        return -1;
    if (found && checkpoint.record > journal_next(c->writer)) {
        err_set(e, ERR_FATAL,
                "the journal %s ends at record %llu, but the target has applied up to record %llu: "
                "it was removed or replaced",
                c->m->journal.uri, (unsigned long long)journal_next(c->writer),
                (unsigned long long)checkpoint.record);
        return err_hint(e, "bring the journal back, or abandon this migration (lockstep finish "
                           "--abandon) and start anew");
    }
    c->pending = stream->start;
    if (note && position_parse(note, &c->pending) < 0)
        return err_set(e, ERR_FATAL, "the journal's note is not a position: %s", note);
    return 0;
}

static int open_stream(struct capture *c, uint32_t epoch, struct err *e)
{
    struct db_options options = {
        .uri = c->m->source.uri, .migration = c->m->name, .use = DB_CONTROL, .back = c->m->back};
    struct stream_request request = {
        .options = &options, .tables = &c->shapes, .from = c->pending, .epoch = epoch};

    return c->m->source.engine->stream_open(&request, &c->stream, e);
}

/* The database's name, for the records' source block, which the encoder writes; and where its log
 * ends now, if a new shape is to hold from there. */
static int ask_source(struct capture *c, struct err *e)
{
    struct server_identity id = {0};
    struct db *source;
    int status;

    if (migration_open_source(c->m, DB_CONTROL, &source, e) < 0)
        return -1;
    status = source->engine->identify(source, &id, e);
    if (status == 0 && c->nreshaped)
        status = source->engine->current_position(source, &c->reshaped_end, e);
    source->engine->close(source);
    if (status < 0)
        return -1;
    c->encoder = encoder_new(c->m->name, c->m->source.engine->name, id.database);
    return 0;
}

/* ---- tables that were planned anew (apply/reshape.c) ---- */

static int find_reshaped(struct capture *c, struct fact **out, size_t *n, struct err *e)
{
    return c->control->engine->fact_scan(c->control, "request", REQUEST_RESHAPE, out, n, e);
}

static bool has_reshaped(const struct capture *c)
{
    return c->nreshaped && !c->in_txn && position_cmp(c->pending, c->reshaped_end) >= 0;
}

/* Is it still what was asked for? A death may have left a request that its answer, on the way to
 * the server, takes away: then a second answer would stand where the first was believed. */
static int still_asked(struct db *db, const struct fact *taken, struct err *e)
{
    struct fact now = {0};
    int found = db->engine->fact_get(db, "request", taken->key, true, &now, e);
    bool same = found > 0 && json_equal(now.body, taken->body);

    if (found > 0)
        json_decref(now.body);
    return found < 0 ? -1 : same;
}

static int answer_one(struct db *db, const struct fact *request, uint64_t record, struct err *e)
{
    int asked = still_asked(db, request, e);

    if (asked <= 0)
        return asked;
    log_event(LOG_INFO, "capture", "new-shape-holds", "table=%s record=%llu",
              request->key + strlen(REQUEST_RESHAPE), (unsigned long long)record);
    if (answer_put(db, request->key, json_pack("{s:I}", "record", (json_int_t)record), e) < 0)
        return -1;
    return request_clear(db, request->key, e);
}

/* The stream goes by the new shapes, and nothing that was written before they were planned comes
 * from the next record on. Answer and removal together: whoever finds the request gone, finds the
 * answer. */
static int answer_reshaped(struct capture *c, struct err *e)
{
    struct db *db = c->control;
    uint64_t next;
    int status = 0;

    if (!has_reshaped(c))
        return 0;
    next = journal_next(c->writer);
    if (db->engine->begin(db, e) < 0)
        return -1;
    for (size_t i = 0; status == 0 && i < c->nreshaped; i++)
        status = answer_one(db, &c->reshaped[i], next, e);
    if (status < 0) {
        db->engine->rollback(db, NULL);
        return -1;
    }
    if (db->engine->commit(db, e) < 0)
        return -1;
    forget_reshaped(c);
    return 0;
}

/* A table was planned anew: the stream is closed, to be opened with its new shape. It goes on from
 * what is durable, as after a death. */
static int look_for_shapes(struct capture *c, struct err *e)
{
    int64_t now = mono_ms();
    struct fact *facts;
    size_t n;

    /* Those that it goes by are answered first. */
    if (c->nreshaped ||
        (c->last_shapes_check_ms && now - c->last_shapes_check_ms < CAPTURE_SHAPES_MS))
        return 0;
    c->last_shapes_check_ms = now;
    if (find_reshaped(c, &facts, &n, e) < 0)
        return -1;
    if (n > 0) {
        log_event(LOG_INFO, "capture", "table-reshaped", "table=%s",
                  facts[0].key + strlen(REQUEST_RESHAPE));
        capture_stop(c);
    }
    facts_release(facts, n);
    return 0;
}

/* Opening the journal takes it from its writer. One that stood still for longer than its lease must
 * not take it from its successor, which would end, as it does itself. */
static int demand_lease(struct capture *c, struct err *e)
{
    char holder[HOLDER_MAX] = "";
    int rc = lease_held(c->control, "capture", holder, sizeof(holder), e);

    if (rc <= 0 || strcmp(holder, c->m->holder) == 0)
        return rc < 0 ? -1 : 0;
    return err_set(e, ERR_FENCED, "another process captures: %s", holder);
}

/* 1 started, 0 there is no stream yet, -1. */
static int capture_start(struct capture *c, struct err *e)
{
    struct stream_fact stream;
    char *note = NULL;
    bool exists;
    int status;

    if (!c->control && migration_open_target(c->m, DB_CONTROL, &c->control, e) < 0)
        return -1;
    if (c->control->engine->control_exists(c->control, &exists, e) < 0)
        return -1;
    if (!exists)
        return 0;
    if (stream_fact_load(c->control, &c->arena, &stream, e) < 0)
        return -1;
    if (stream.state != STREAM_CREATED)
        return 0;
    /* In this order: the shapes have all that the requests ask for, and the log's end lies behind
     * the changes of shape. */
    if (find_reshaped(c, &c->reshaped, &c->nreshaped, e) < 0)
        return -1;
    status = shapes_load(c->control, &c->arena, &c->shapes, e);
    if (status == 0)
        status = ask_source(c, e);
    if (status == 0)
        status = owned_journal(c->m, c->control, &c->journal, e);
    if (status == 0)
        status = demand_lease(c, e);
    if (status == 0 && journal_writer_open(&c->journal.options, &c->writer, &note, e) < 0)
        status = err_wrap(e, "journal");
    if (status == 0)
        status = find_start(c, &stream, note, e);
    free(note);
    if (status == 0)
        status = declare_schemas(c, e);
    if (status == 0)
        status = open_stream(c, stream.epoch, e);
    if (status < 0)
        return -1;
    set_durable(c, c->pending);
    log_event(LOG_INFO, "capture", "started", "generation=%u tables=%zu",
              journal_writer_generation(c->writer), c->shapes.n);
    return 1;
}

/* ---- events ---- */

/* Lets an idle stream advance. One that comes too soon is kept, not dropped: the driver tells each
 * position once, and on an idle source there may be no other. */
static int heartbeat(struct capture *c, struct err *e)
{
    struct record r = {.kind = RECORD_POSITION, .next = c->idle};
    int64_t now = mono_ms();
    bool awaited = c->nreshaped && position_cmp(c->idle, c->reshaped_end) >= 0;

    if (c->in_txn || position_cmp(c->idle, c->pending) <= 0 ||
        (!awaited && c->last_heartbeat_ms && now - c->last_heartbeat_ms < CAPTURE_HEARTBEAT_MS))
        return 0;
    c->last_heartbeat_ms = now;
    if (append(c, &r, e) < 0)
        return -1;
    c->pending = c->idle;
    return 0;
}

static int on_position(struct capture *c, const struct event *ev, struct err *e)
{
    c->idle = ev->next;
    return heartbeat(c, e);
}

static int on_change(struct capture *c, const struct event *ev, struct err *e)
{
    struct record r = {.kind = RECORD_CHANGE, .txn = ev->txn, .change = ev->change};

    invariant(c->in_txn);
    c->nchanges++;
    return append(c, &r, e);
}

static int on_commit(struct capture *c, const struct event *ev, struct err *e)
{
    struct record r = {.kind = RECORD_END, .txn = ev->txn, .nchanges = c->nchanges};

    invariant(c->in_txn && position_cmp(ev->txn.commit, ev->txn.next) < 0);
    if (append(c, &r, e) < 0)
        return -1;
    c->in_txn = false;
    c->pending = ev->txn.next;
    return 0;
}

/* What was sent of the transaction is void. Readers learn it as they do when a writer died in the
 * middle of one: by a new generation. */
static int on_abort(struct capture *c, const struct event *ev, struct err *e)
{
    char *note = NULL;

    invariant(c->in_txn);
    log_event(LOG_WARN, "capture", "transaction-cut", "changes=%llu %s",
              (unsigned long long)c->nchanges, ev->reason);
    if (flush(c, e) < 0)
        return -1;
    c->in_txn = false;
    journal_writer_close(c->writer);
    c->writer = NULL;
    schema_ids_release(&c->ids);
    if (journal_writer_open(&c->journal.options, &c->writer, &note, e) < 0)
        return err_wrap(e, "journal");
    free(note);
    return declare_schemas(c, e);
}

static int on_table(struct capture *c, const struct event *ev, struct err *e)
{
    const char *label = ev->table->root ? ev->table->root : table_label(ev->table);
    struct record r = {
        .kind = RECORD_TABLE, .next = c->pending, .table_label = label, .reason = ev->reason};

    if (table_list_find(&c->shapes, table_label(ev->table)))
        r.table_label = table_label(ev->table);
    if (strcmp(c->changed_table, r.table_label) != 0)
        log_event(LOG_WARN, "capture", "table-changed", "table=%s reason=%s", r.table_label,
                  ev->reason);
    snprintf(c->changed_table, sizeof(c->changed_table), "%s", r.table_label);
    return append(c, &r, e);
}

static int handle(struct capture *c, const struct event *ev, struct err *e)
{
    struct record r = {.txn = ev->txn, .next = ev->next, .token = ev->token};

    switch (ev->kind) {
    case EVENT_NONE:
        return 0;
    case EVENT_BEGIN:
        invariant(!c->in_txn);
        c->in_txn = true;
        c->nchanges = 0;
        r.kind = RECORD_BEGIN;
        return append(c, &r, e);
    case EVENT_CHANGE:
        return on_change(c, ev, e);
    case EVENT_COMMIT:
        return on_commit(c, ev, e);
    case EVENT_ABORT:
        return on_abort(c, ev, e);
    case EVENT_MARK:
        r.kind = RECORD_MARK;
        if (append(c, &r, e) < 0)
            return -1;
        c->pending = ev->next;
        return 0;
    case EVENT_POSITION:
        return on_position(c, ev, e);
    case EVENT_TABLE:
        return on_table(c, ev, e);
    }
    return err_set(e, ERR_BUG, "an event of unknown kind %d", (int)ev->kind);
}

/* What stays free below the ceiling: a step's records and one that is as large as any was. A
 * transaction that has begun goes on as far as it can: what it has taken is given free only by its
 * end. */
static uint64_t slack(const struct capture *c)
{
    uint64_t max = c->m->journal.max_bytes;
    uint64_t share = max / 100 * (100 - CAPTURE_PAUSE_PERCENT);
    uint64_t step = 2 * CAPTURE_FLUSH_BYTES + c->largest;

    if (step > max / 2)
        step = max / 2;
    return c->in_txn || step < share ? share : step;
}

/* The journal's ceiling: capture stands still, and keeps telling the source that it lives. A broker
 * takes up to a fifth of a second to say how full a topic is, so it is not asked before what was
 * appended since may have filled half of the room that there was. */
static int check_room(struct capture *c, struct err *e)
{
    uint64_t max = c->m->journal.max_bytes - slack(c);
    struct journal_stats stats = {0};
    int64_t now = mono_ms();
    bool full;

    if (c->m->journal.max_bytes == 0 ||
        (c->paused ? now - c->last_full_check_ms < CAPTURE_FULL_CHECK_MS
                   : c->appended < c->room / 2))
        return 0;
    c->last_full_check_ms = now;
    if (journal_stat(&c->m->journal, &stats, e) < 0)
        return -1;
    full = stats.bytes > max;
    c->room = full ? 0 : max - stats.bytes;
    c->appended = 0;
    if (full != c->paused)
        log_event(full ? LOG_WARN : LOG_INFO, "capture", full ? "journal-full" : "journal-room",
                  "bytes=%llu max=%llu", (unsigned long long)stats.bytes,
                  (unsigned long long)c->m->journal.max_bytes);
    c->paused = full;
    return full ? acknowledge(c, capture_frontier(c), true, e) : 0;
}

/* The source has nothing more to say right now: is a nap worth while? */
static bool more_is_near(const struct capture *c, int events, int naps)
{
    if (events >= CAPTURE_BUSY_EVENTS)
        return naps < CAPTURE_NAPS;
    return events > 0 && naps == 0 && c->busy;
}

/* 1 worked, 0 idle. */
static int gather(struct capture *c, int timeout_ms, struct err *e)
{
    int events = 0;
    int naps = 0;
    int nap_from = 0; /* events before the last nap */

    while (events < CAPTURE_STEP_EVENTS && c->unflushed < CAPTURE_FLUSH_BYTES && !has_reshaped(c)) {
        struct event ev = {0};

        /* Only the first wait may last: what has gathered must not wait for what may come. */
        if (c->m->source.engine->stream_next(c->stream, c->unflushed ? 0 : timeout_ms, &ev, e) < 0)
            return -1;
        if (ev.kind == EVENT_NONE) {
            if (heartbeat(c, e) < 0)
                return -1;
            if (!more_is_near(c, events - nap_from, naps++))
                break;
            nap_from = events;
            nap_ms(CAPTURE_NAP_MS);
            continue;
        }
        if (handle(c, &ev, e) < 0)
            return -1;
        events++;
    }
    c->busy = events >= CAPTURE_BUSY_EVENTS;
    if (c->unflushed && flush(c, e) < 0)
        return -1;
    return events > 0;
}

int capture_step(struct capture *c, int timeout_ms, struct err *e)
{
    int status = 1;

    if (c->stream && look_for_shapes(c, e) < 0) {
        capture_stop(c);
        return -1;
    }
    if (!c->stream) {
        status = capture_start(c, e);
        if (status == 0)
            nap_ms(timeout_ms);
    }
    if (status == 1)
        status = check_room(c, e) < 0 ? -1 : 1;
    if (status == 1 && c->paused) {
        nap_ms(timeout_ms);
        status = 0;
    } else if (status == 1) {
        status = gather(c, timeout_ms, e);
    }
    if (status >= 0 && answer_reshaped(c, e) < 0)
        status = -1;
    if (status < 0)
        capture_stop(c);
    return status;
}
