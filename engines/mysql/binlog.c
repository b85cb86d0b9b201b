#include "engines/mysql/binlog.h"

#include "engines/mysql/binlog_bytes.h"
#include "engines/mysql/binlog_machine.h"
#include "engines/mysql/my.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define HEADER_SIZE 19
#define FIRST_EVENT 4
#define CHECKSUM_SIZE 4
#define FLAG_ARTIFICIAL 0x20
#define FLAG_IGNORABLE 0x80

/* ---- life ---- */

struct binlog *binlog_new(const struct table_list *tables, const char *migration, uint32_t epoch,
                          struct position from)
{
    struct binlog *b = calloc(1, sizeof(*b));

    invariant(b != NULL);
    b->n = tables->n;
    b->tables = arena_zalloc(&b->life, (tables->n + 1) * sizeof(*b->tables));
    for (size_t i = 0; i < tables->n; i++)
        b->tables[i].table = table_copy(&b->life, tables->v[i]);
    b->maps = arena_zalloc(&b->life, BINLOG_MAPS_MAX * sizeof(*b->maps));
    b->migration = arena_strdup(&b->life, migration);
    b->epoch = epoch;
    b->from = from;
    b->reported = from;
    buf_init(&b->unpacked, BINLOG_EVENT_MAX);
    return b;
}

void binlog_free(struct binlog *b)
{
    if (!b)
        return;
    for (size_t i = 0; i < b->n; i++)
        binlog_table_release(&b->tables[i]);
    binlog_table_release(&b->mark);
    binlog_table_release(&b->origin);
    binlog_payload_close(b->payload);
    buf_release(&b->unpacked);
    arena_release(&b->row);
    arena_release(&b->life);
    free(b);
}

bool binlog_between(const struct binlog *b, struct position *out)
{
    *out = b->placed ? (struct position){b->file, b->offset} : b->from;
    if (position_cmp(*out, b->from) < 0)
        *out = b->from;
    return !b->in_group && !b->cut && !b->held && !b->has_rows && !b->naming && !b->payload;
}

uint64_t binlog_file(const struct binlog *b)
{
    return b->file;
}

void binlog_restart(struct binlog *b)
{
    invariant(binlog_between(b, &b->from));
    b->placed = false;
    b->described = false;
    b->idle = false;
    b->nmaps = 0;
}

/* ---- file and place ---- */

static bool crc_fits(const uint8_t *data, size_t len)
{
    struct reader r;

    if (len < HEADER_SIZE + CHECKSUM_SIZE)
        return false;
    reader_init(&r, data + len - CHECKSUM_SIZE, CHECKSUM_SIZE);
    return crc32_z(0, data, len - CHECKSUM_SIZE) == (uLong)binlog_le(&r, 4);
}

/* The name may have anything behind it in old servers: it is the rest of the event. */
static int take_place(const struct part *ev, struct position *out, struct err *e)
{
    struct reader r = ev->body;
    char name[512];
    size_t len;

    out->minor = binlog_le(&r, 8);
    len = reader_left(&r);
    if (r.bad || len == 0 || len >= sizeof(name))
        return binlog_bad_format("ROTATE", e);
    memcpy(name, r.p, len);
    name[len] = '\0';
    if (my_binlog_number(name, &out->major) < 0)
        return err_set(e, ERR_FATAL, "the binlog goes on in a file without a number: \"%.100s\"",
                       name);
    return 0;
}

/* The file under way ends. Where we go on from must have been in it, else its tail is lost. */
static int leave_file(const struct binlog *b, struct err *e)
{
    if (position_cmp(binlog_here(b), b->from) >= 0)
        return 0;
    err_set(e, ERR_FATAL,
            "binlog file %" PRIu64 " ends at %" PRIu64 ", before %" PRIu64
            " from where the stream goes on",
            b->file, b->offset, b->from.minor);
    return err_hint(e, "its tail is lost, or this is another server: `lockstep finish --abandon`, "
                       "then begin anew");
}

int binlog_torn(struct binlog *b, struct err *e)
{
    if (leave_file(b, e) < 0)
        return -1;
    if (b->in_group)
        binlog_group_cut(b);
    b->file++;
    b->offset = FIRST_EVENT;
    return 0;
}

/* A server that ends a file of its own will has ended its transactions before. */
static int end_whole(struct binlog *b, struct err *e)
{
    if (b->in_group && b->begun)
        return err_set(e, ERR_FATAL,
                       "binlog file %" PRIu64 " is closed inside of the transaction %s", b->file,
                       b->gtid);
    b->in_group = false;
    return 0;
}

/* The server says where it begins to read; later, that it has opened the next file. */
static int on_begin_of_file(struct binlog *b, const struct position *p, struct err *e)
{
    struct position was = b->placed ? binlog_here(b) : b->from;
    bool next_file = p->major == was.major + 1 && p->minor == FIRST_EVENT;
    bool from_start = !b->placed && p->major == was.major && p->minor == FIRST_EVENT;

    if (position_cmp(*p, was) != 0 && !(b->placed && next_file) && !from_start)
        return err_set(e, ERR_FATAL,
                       "the server sends binlog %" PRIu64 ":%" PRIu64 " instead of %" PRIu64
                       ":%" PRIu64,
                       p->major, p->minor, was.major, was.minor);
    if (b->placed && next_file && leave_file(b, e) < 0)
        return -1;
    if (b->placed && next_file && b->in_group)
        binlog_group_cut(b);
    b->placed = true;
    b->file = p->major;
    b->offset = p->minor;
    return 0;
}

static int on_rotate(struct binlog *b, struct part *ev, struct err *e)
{
    struct position p;

    if (take_place(ev, &p, e) < 0)
        return -1;
    if (ev->h.end == 0 || ev->h.flags & FLAG_ARTIFICIAL)
        return on_begin_of_file(b, &p, e);
    if (p.major <= b->file)
        return err_set(e, ERR_FATAL, "binlog file %" PRIu64 " is followed by %" PRIu64, b->file,
                       p.major);
    if (leave_file(b, e) < 0 || end_whole(b, e) < 0)
        return -1;
    b->file = p.major;
    b->offset = p.minor;
    b->idle = true;
    return 0;
}

/* Always with a checksum behind it, and in front of that a byte that says whether events have one
 * (since MySQL 5.6.1 and MariaDB 5.3). */
static int on_format(struct binlog *b, struct part *ev, struct err *e)
{
    struct reader r = ev->body;
    size_t n;

    if (binlog_le(&r, 2) != 4 && !r.bad)
        return err_set(e, ERR_FATAL, "the binlog is not of version 4");
    reader_bytes(&r, 50 + 4);
    if (reader_u8(&r) != HEADER_SIZE || reader_left(&r) < BE_DELETE_V1 + 1 + CHECKSUM_SIZE)
        return binlog_bad_format("FORMAT_DESCRIPTION", e);
    n = reader_left(&r) - 1 - CHECKSUM_SIZE;
    memset(b->post_header, 0, sizeof(b->post_header));
    if (n > sizeof(b->post_header) - 1)
        n = sizeof(b->post_header) - 1;
    memcpy(b->post_header + 1, r.p, n);
    b->checksum = *(ev->data + ev->len - CHECKSUM_SIZE - 1) == 1;
    if (*(ev->data + ev->len - CHECKSUM_SIZE - 1) > 1)
        return err_set(e, ERR_FATAL, "the binlog has checksums of an unknown kind");
    if (b->checksum && !crc_fits(ev->data, ev->len))
        return err_set(e, ERR_FATAL, "a binlog event's checksum is wrong");
    b->described = true;
    return 0;
}

/* Counts on: offsets are ours, the log's own are half as wide. What the server left out (events
 * for others) is stepped over. */
static int advance(struct binlog *b, const struct header *h, struct err *e)
{
    uint64_t end = b->offset + h->len;
    uint32_t ahead = h->end - (uint32_t)end;

    if (ahead > INT32_MAX)
        return err_set(e, ERR_FATAL,
                       "a binlog event behind %" PRIu64 ":%" PRIu64 " says that it ends at %u",
                       b->file, b->offset, h->end);
    b->offset = end + ahead;
    return 0;
}

static bool wanted(const struct binlog *b)
{
    return position_cmp((struct position){b->file, b->offset}, b->from) > 0;
}

/* ---- the other events ---- */

static int on_payload(struct binlog *b, struct part *ev, struct err *e)
{
    if (binlog_need_group(b, "TRANSACTION_PAYLOAD", e) < 0)
        return -1;
    if (b->payload)
        return binlog_bad_format("TRANSACTION_PAYLOAD", e);
    return binlog_payload_open(ev->body.p, reader_left(&ev->body), &b->payload, e);
}

static int on_heartbeat(struct binlog *b, struct part *ev, struct err *e)
{
    b->idle = !b->in_group;
    return 0;
}

static int on_incident(struct binlog *b, struct part *ev, struct err *e)
{
    err_set(e, ERR_FATAL,
            "the server says at %" PRIu64 ":%" PRIu64
            " that changes are missing in its binlog (INCIDENT)",
            b->file, b->offset);
    return err_hint(e, "they are lost to this migration: `lockstep finish --abandon`, then begin "
                       "anew");
}

/* The server went down in good order. */
static int on_stop(struct binlog *b, struct part *ev, struct err *e)
{
    return end_whole(b, e);
}

static int on_nothing(struct binlog *b, struct part *ev, struct err *e)
{
    return 0;
}

/* By event type; NULL: unknown, or such as could carry rows and is not understood. */
static binlog_handler *const handlers[256] = {
    [BE_QUERY] = binlog_on_query,
    [BE_STOP] = on_stop,
    [BE_ROTATE] = on_rotate,
    [BE_INTVAR] = on_nothing, /* for statements, which are judged themselves */
    [BE_APPEND_BLOCK] = on_nothing,
    [BE_DELETE_FILE] = on_nothing,
    [BE_RAND] = on_nothing,
    [BE_USER_VAR] = on_nothing,
    [BE_FORMAT] = on_format,
    [BE_XID] = binlog_on_commit,
    [BE_BEGIN_LOAD] = on_nothing,
    [BE_EXECUTE_LOAD] = binlog_on_query,
    [BE_TABLE_MAP] = binlog_on_table_map,
    [BE_WRITE_V1] = binlog_on_rows,
    [BE_UPDATE_V1] = binlog_on_rows,
    [BE_DELETE_V1] = binlog_on_rows,
    [BE_INCIDENT] = on_incident,
    [BE_HEARTBEAT] = on_heartbeat,
    [BE_IGNORABLE] = on_nothing,
    [BE_ROWS_QUERY] = on_nothing,
    [BE_WRITE] = binlog_on_rows,
    [BE_UPDATE] = binlog_on_rows,
    [BE_DELETE] = binlog_on_rows,
    [BE_GTID] = binlog_on_gtid,
    [BE_ANONYMOUS_GTID] = binlog_on_gtid,
    [BE_PREVIOUS_GTIDS] = on_nothing,
    [BE_TRANSACTION_CONTEXT] = on_nothing,
    [BE_VIEW_CHANGE] = on_nothing,
    [BE_XA_PREPARE] = binlog_on_xa_prepare,
    [BE_PARTIAL_UPDATE] = binlog_on_rows,
    [BE_PAYLOAD] = on_payload,
    [BE_HEARTBEAT_V2] = on_heartbeat,
    [BE_TAGGED_GTID] = binlog_on_tagged_gtid,
    [BE_MARIA_ANNOTATE] = on_nothing,
    [BE_MARIA_CHECKPOINT] = on_nothing,
    [BE_MARIA_GTID] = binlog_on_maria_gtid,
    [BE_MARIA_GTID_LIST] = on_nothing,
    [BE_MARIA_ENCRYPTION] = on_nothing,
    [BE_MARIA_QUERY] = binlog_on_query,
    [BE_MARIA_WRITE_V1] = binlog_on_rows,
    [BE_MARIA_UPDATE_V1] = binlog_on_rows,
    [BE_MARIA_DELETE_V1] = binlog_on_rows,
    [BE_MARIA_WRITE] = binlog_on_rows,
    [BE_MARIA_UPDATE] = binlog_on_rows,
    [BE_MARIA_DELETE] = binlog_on_rows,
};

static int dispatch(struct binlog *b, struct part *ev, struct err *e)
{
    binlog_handler *handler = handlers[ev->h.type];
    int rc;

    if (!handler && ev->h.flags & FLAG_IGNORABLE)
        return 0;
    if (!handler)
        return err_set(e, ERR_FATAL,
                       "the binlog has an event of type %u at %" PRIu64 ":%" PRIu64
                       ", which this version does not know",
                       ev->h.type, b->file, b->offset);
    rc = handler(b, ev, e);
    b->volume += ev->len;
    return rc;
}

/* ---- taking ---- */

static int take_header(struct part *ev, const uint8_t *data, size_t len, struct err *e)
{
    struct reader r;

    reader_init(&r, data, len);
    ev->data = data;
    ev->len = len;
    ev->h.ts = (uint32_t)binlog_le(&r, 4);
    ev->h.type = reader_u8(&r);
    ev->h.server = (uint32_t)binlog_le(&r, 4);
    ev->h.len = (uint32_t)binlog_le(&r, 4);
    ev->h.end = (uint32_t)binlog_le(&r, 4);
    ev->h.flags = (uint16_t)binlog_le(&r, 2);
    ev->body = r;
    if (r.bad || ev->h.len != len)
        return err_set(e, ERR_FATAL, "the binlog has an event of %zu bytes that says it has %u",
                       len, ev->h.len);
    return 0;
}

static bool is_artificial(const struct part *ev)
{
    return ev->h.end == 0 || ev->h.flags & FLAG_ARTIFICIAL || ev->h.type == BE_HEARTBEAT ||
           ev->h.type == BE_HEARTBEAT_V2;
}

/* Verifies and cuts off the checksum. The first ROTATE comes before anybody has said whether there
 * are any, so there it is found out. */
static int take_checksum(const struct binlog *b, struct part *ev, struct err *e)
{
    bool fake_rotate = ev->h.type == BE_ROTATE && is_artificial(ev);
    bool fits;

    if (ev->h.type == BE_FORMAT || (!fake_rotate && !b->checksum))
        return 0;
    fits = crc_fits(ev->data, ev->len);
    if (!fits && fake_rotate)
        return 0;
    if (!fits)
        return err_set(e, ERR_FATAL, "a binlog event's checksum is wrong");
    ev->body.end -= CHECKSUM_SIZE;
    return 0;
}

static int take_event(struct binlog *b, const uint8_t *event, size_t len, struct err *e)
{
    struct part ev;
    bool structural;

    if (take_header(&ev, event, len, e) < 0 || take_checksum(b, &ev, e) < 0)
        return -1;
    structural = ev.h.type == BE_ROTATE || ev.h.type == BE_FORMAT;
    if (!structural && (!b->placed || !b->described))
        return err_set(e, ERR_FATAL, "the server sends events before their format");
    if (!is_artificial(&ev) && advance(b, &ev.h, e) < 0)
        return -1;
    if (!structural && !wanted(b) && !is_artificial(&ev))
        return 0;
    return dispatch(b, &ev, e);
}

int binlog_take(struct binlog *b, const uint8_t *event, size_t len, struct err *e)
{
    arena_reset(&b->row);
    if (take_event(b, event, len, e) < 0)
        return err_wrap(e, "binlog %" PRIu64 ":%" PRIu64, b->file, b->offset);
    return 0;
}

/* ---- handing out ---- */

/* A change of the plan: behind BEGIN, if it is the first. */
static int hand_change(struct binlog *b, const struct change *c, struct event *out)
{
    struct event ev = {.kind = EVENT_CHANGE, .txn = b->txn, .change = *c};

    if (b->begun) {
        *out = ev;
        return 1;
    }
    b->begun = true;
    b->held = true;
    b->hold = ev;
    *out = (struct event){.kind = EVENT_BEGIN, .txn = b->txn};
    return 1;
}

/* Says, once a group, that changes of a table are left out. */
static int tell(struct binlog *b, struct binlog_table *t, const char *reason, struct event *out)
{
    if (t->told == b->number)
        return 0;
    t->told = b->number;
    *out = (struct event){.kind = EVENT_TABLE, .table = t->table, .reason = reason};
    return 1;
}

static struct binlog_table *table_of(struct binlog *b)
{
    return &b->tables[b->rows.table - b->tables];
}

static int next_row(struct binlog *b, struct event *out, struct err *e)
{
    struct binlog_table *t = table_of(b);

    if (t->unfit) {
        b->has_rows = false;
        return tell(b, t, t->unfit, out);
    }
    for (;;) {
        uint64_t ordinal = b->rows_ordinal + (uint64_t)(b->rows.at - b->rows.start);
        struct change c;
        const char *unfit;
        int rc;

        arena_reset(&b->row);
        rc = binlog_rows_next(&b->rows, &b->row, &c, &unfit, e);
        if (rc <= 0) {
            b->has_rows = false;
            return rc;
        }
        c.ordinal = ordinal;
        if (!unfit) {
            t->touched = b->number;
            return hand_change(b, &c, out);
        }
        if (tell(b, t, unfit, out))
            return 1;
    }
}

/* What the statement under way names: one table after another. */
static int next_named(struct binlog *b, struct event *out)
{
    for (; b->named_at < b->n; b->named_at++) {
        struct binlog_table *t = &b->tables[b->named_at];
        const char *why = t->named;

        if (t->truncated) {
            struct change c = {.op = OP_TRUNCATE, .table = t->table, .ordinal = b->volume};

            t->truncated = false;
            return hand_change(b, &c, out);
        }
        t->named = NULL;
        if (why && tell(b, t, why, out))
            return 1;
    }
    b->naming = false;
    return 0;
}

static int hand_end(struct binlog *b, struct event *out)
{
    b->ending = false;
    b->in_group = false;
    b->txn.next = binlog_here(b);
    b->reported = b->txn.next;
    *out = (struct event){.kind = b->begun      ? EVENT_COMMIT
                                  : b->token[0] ? EVENT_MARK
                                                : EVENT_POSITION,
                          .txn = b->txn,
                          .token = b->token,
                          .next = b->txn.next};
    return 1;
}

static int hand_position(struct binlog *b, struct event *out)
{
    b->idle = false;
    if (b->in_group || position_cmp(binlog_here(b), b->reported) <= 0)
        return 0;
    b->reported = binlog_here(b);
    *out = (struct event){.kind = EVENT_POSITION, .next = b->reported};
    return 1;
}

/* The next event of a compressed transaction. 1: one was taken; 0: no more. */
static int next_packed(struct binlog *b, struct err *e)
{
    const uint8_t *event;
    struct part ev;
    size_t len;
    int rc = binlog_payload_next(b->payload, &event, &len, e);

    if (rc <= 0) {
        binlog_payload_close(b->payload);
        b->payload = NULL;
        return rc;
    }
    arena_reset(&b->row);
    if (take_header(&ev, event, len, e) < 0)
        return -1;
    if (ev.h.type == BE_FORMAT || ev.h.type == BE_ROTATE || ev.h.type == BE_PAYLOAD)
        return binlog_bad_format("TRANSACTION_PAYLOAD", e);
    return dispatch(b, &ev, e) < 0 ? -1 : 1;
}

static int hand_cut(struct binlog *b, struct event *out)
{
    b->cut = false;
    *out = (struct event){.kind = EVENT_ABORT, .txn = b->txn, .reason = b->reason};
    return 1;
}

/* 1: an event; 0: try what comes next; -1. */
static int step(struct binlog *b, struct event *out, struct err *e)
{
    if (b->cut)
        return hand_cut(b, out);
    if (b->held) {
        b->held = false;
        *out = b->hold;
        return 1;
    }
    if (b->has_rows)
        return next_row(b, out, e);
    if (b->naming)
        return next_named(b, out);
    if (b->ending)
        return hand_end(b, out);
    return b->idle ? hand_position(b, out) : 0;
}

int binlog_next(struct binlog *b, struct event *out, struct err *e)
{
    for (;;) {
        int rc;

        do
            rc = step(b, out, e);
        while (rc == 0 && (b->held || b->has_rows || b->naming || b->ending || b->idle));
        if (rc == 0 && b->payload)
            rc = next_packed(b, e) < 0 ? -1 : 2;
        if (rc == 2)
            continue;
        return rc < 0 ? err_wrap(e, "binlog %" PRIu64 ":%" PRIu64, b->file, b->offset) : rc;
    }
}
