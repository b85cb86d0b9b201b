#include "engines/mysql/binlog.h"

#include "engines/mysql/binlog_bytes.h"
#include "engines/mysql/binlog_rows.h"
#include "engines/mysql/binlog_sql.h"
#include "engines/mysql/binlog_unpack.h"
#include "engines/mysql/binlog_value.h"
#include "engines/mysql/my.h"

#include "core/run.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>

#define HEADER_SIZE 19
#define CHECKSUM_SIZE 4
#define FLAG_ARTIFICIAL 0x20
#define FLAG_IGNORABLE 0x80
#define ROWS_STATEMENT_END 1
#define ROWS_DUMMY_TABLE 0xffffff
/* A statement of the server locks no more tables than this. */
#define MAPS_MAX 4096
#define GTID_TEXT 80
/* MariaDB's GTID flags. */
#define MARIA_STANDALONE 0x01
#define MARIA_GROUP_COMMIT 0x02
#define MARIA_PREPARED_XA 0x40
#define MARIA_COMPLETED_XA 0x80

struct header {
    uint32_t ts;
    uint8_t type;
    uint32_t server;
    uint32_t len;
    uint32_t end; /* low half of where it ends; 0: it is not in the log */
    uint16_t flags;
};

/* An event to be dealt with: its header, and what is behind it without the checksum. */
struct part {
    struct header h;
    const uint8_t *data; /* the whole event */
    size_t len;
    struct reader body;
};

/* Where the rows of a table id go. */
enum map_use { MAP_PLANNED, MAP_FOREIGN, MAP_ORIGIN, MAP_MARK };
struct map_entry {
    uint64_t id;
    enum map_use use;
    struct binlog_table *table; /* PLANNED, MARK */
};

struct binlog {
    struct arena life;
    struct arena row;    /* of the event that was handed out last */
    struct buf unpacked; /* of a compressed event */
    size_t n;
    struct binlog_table *tables; /* the plan */
    struct binlog_table mark;    /* lockstep.mark */
    uint32_t epoch;
    struct position from;
    struct position reported; /* by EVENT_POSITION, MARK or COMMIT */
    uint64_t file;
    uint64_t offset; /* behind the last event */
    bool placed;     /* the server has said where it begins */
    bool described;  /* a FORMAT_DESCRIPTION has come */
    bool checksum;
    uint8_t post_header[256];
    /* The group under way, from its GTID to its end. */
    bool in_group;
    bool multi; /* it goes on until a commit; else one statement is all */
    bool begun; /* BEGIN has been handed out */
    bool rows_seen;
    bool ours;
    bool branch;     /* XA: its outcome is told later */
    bool ending;     /* the group's end is to be handed out */
    uint64_t number; /* of groups, for `told` */
    uint64_t volume; /* bytes of the group before this event: ordinals count from here */
    char gtid[GTID_TEXT];
    char token[200];
    struct txn txn;
    struct map_entry *maps;
    size_t nmaps;
    bool maps_stale;
    /* What is to be handed out of the event under way. */
    bool has_rows;
    struct binlog_rows rows;
    uint64_t rows_ordinal;
    bool held; /* a change waits behind its BEGIN */
    struct event hold;
    bool naming;
    size_t named_at;
    bool idle; /* a position */
    struct binlog_payload *payload;
};

/* ---- life ---- */

struct binlog *binlog_new(const struct table_list *tables, uint32_t epoch, struct position from)
{
    struct binlog *b = calloc(1, sizeof(*b));

    invariant(b != NULL);
    b->n = tables->n;
    b->tables = arena_zalloc(&b->life, (tables->n + 1) * sizeof(*b->tables));
    for (size_t i = 0; i < tables->n; i++)
        b->tables[i].table = table_copy(&b->life, tables->v[i]);
    b->maps = arena_zalloc(&b->life, MAPS_MAX * sizeof(*b->maps));
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
    return !b->in_group && !b->held && !b->has_rows && !b->naming && !b->payload;
}

void binlog_restart(struct binlog *b)
{
    invariant(binlog_between(b, &b->from));
    b->placed = false;
    b->described = false;
    b->idle = false;
    b->nmaps = 0;
}

static struct position here(const struct binlog *b)
{
    return (struct position){b->file, b->offset};
}

/* ---- file and place ---- */

static int bad_format(const char *what, struct err *e)
{
    return err_set(e, ERR_FATAL, "the binlog has a %s event that does not follow the format", what);
}

static bool crc_fits(const uint8_t *data, size_t len)
{
    struct reader r;

    if (len < HEADER_SIZE + CHECKSUM_SIZE)
        return false;
    reader_init(&r, data + len - CHECKSUM_SIZE, CHECKSUM_SIZE);
    return crc32_z(0, data, len - CHECKSUM_SIZE) == (uLong)binlog_le(&r, 4);
}

static int in_group_at_end(struct binlog *b, struct err *e)
{
    if (!b->begun) {
        b->in_group = false;
        return 0;
    }
    return err_set(e, ERR_FATAL,
                   "binlog file %" PRIu64 " ends inside of the transaction %s: the server died "
                   "while it was written",
                   b->file, b->gtid);
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
        return bad_format("ROTATE", e);
    memcpy(name, r.p, len);
    name[len] = '\0';
    if (my_binlog_number(name, &out->major) < 0)
        return err_set(e, ERR_FATAL, "the binlog goes on in a file without a number: \"%.100s\"",
                       name);
    return 0;
}

/* The server says where it begins to read; later, that it has opened the next file. */
static int on_begin_of_file(struct binlog *b, const struct position *p, struct err *e)
{
    struct position was = b->placed ? here(b) : b->from;
    bool next_file = p->major == was.major + 1 && p->minor == 4;
    bool from_start = !b->placed && p->major == was.major && p->minor == 4;

    if (position_cmp(*p, was) != 0 && !(b->placed && next_file) && !from_start)
        return err_set(e, ERR_FATAL,
                       "the server sends binlog %" PRIu64 ":%" PRIu64 " instead of %" PRIu64
                       ":%" PRIu64,
                       p->major, p->minor, was.major, was.minor);
    if (b->placed && next_file && b->in_group && in_group_at_end(b, e) < 0)
        return -1;
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
    if (b->in_group && in_group_at_end(b, e) < 0)
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
        return bad_format("FORMAT_DESCRIPTION", e);
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

/* ---- groups ---- */

static bool wanted(const struct binlog *b)
{
    return position_cmp((struct position){b->file, b->offset}, b->from) > 0;
}

static int begin_group(struct binlog *b, const struct part *ev, bool multi, struct err *e)
{
    if (b->in_group && b->begun)
        return err_set(e, ERR_FATAL, "the binlog begins a transaction inside of %s", b->gtid);
    b->in_group = true;
    b->multi = multi;
    b->begun = false;
    b->rows_seen = false;
    b->ours = false;
    b->branch = false;
    b->ending = false;
    b->token[0] = '\0';
    b->number++;
    b->volume = 0;
    b->nmaps = 0;
    b->txn = (struct txn){.epoch = b->epoch,
                          .commit = {b->file, b->offset - ev->h.len},
                          .ts_us = (int64_t)ev->h.ts * 1000000};
    return 0;
}

static int on_maria_gtid(struct binlog *b, struct part *ev, struct err *e)
{
    uint64_t number = binlog_le(&ev->body, 8);
    uint32_t domain = (uint32_t)binlog_le(&ev->body, 4);
    uint8_t flags = reader_u8(&ev->body);

    if (ev->body.bad)
        return bad_format("GTID", e);
    if (begin_group(b, ev, !(flags & MARIA_STANDALONE), e) < 0)
        return -1;
    b->branch = flags & MARIA_PREPARED_XA;
    b->txn.xid = number;
    snprintf(b->gtid, sizeof(b->gtid), "%u-%u-%" PRIu64, domain, ev->h.server, number);
    return 0;
}

static int on_gtid(struct binlog *b, struct part *ev, struct err *e)
{
    struct reader *r = &ev->body;
    const uint8_t *uuid;
    uint64_t number;
    size_t n = 0;

    reader_u8(r);
    uuid = reader_bytes(r, 16);
    number = binlog_le(r, 8);
    if (r->bad)
        return bad_format("GTID", e);
    if (begin_group(b, ev, false, e) < 0)
        return -1;
    if (reader_u8(r) == 2) {
        reader_bytes(r, 16);
        /* Microseconds of this server's commit; the highest bit says that another's follow. */
        uint64_t us = binlog_le(r, 7);

        if (!r->bad)
            b->txn.ts_us = (int64_t)(us & ~((uint64_t)1 << 55));
    }
    b->txn.xid = number;
    for (size_t i = 0; i < 16; i++)
        n += (size_t)snprintf(b->gtid + n, sizeof(b->gtid) - n, "%s%02x",
                              i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
    snprintf(b->gtid + n, sizeof(b->gtid) - n, ":%" PRIu64, number);
    if (ev->h.type == BE_ANONYMOUS_GTID)
        snprintf(b->gtid, sizeof(b->gtid), "at %" PRIu64 ":%" PRIu64, b->txn.commit.major,
                 b->txn.commit.minor);
    return 0;
}

static int on_tagged_gtid(struct binlog *b, struct part *ev, struct err *e)
{
    if (begin_group(b, ev, false, e) < 0)
        return -1;
    snprintf(b->gtid, sizeof(b->gtid), "at %" PRIu64 ":%" PRIu64, b->txn.commit.major,
             b->txn.commit.minor);
    return 0;
}

static int need_group(const struct binlog *b, const char *what, struct err *e)
{
    if (b->in_group)
        return 0;
    return err_set(e, ERR_FATAL, "the binlog has a %s event outside of a transaction", what);
}

static int on_commit(struct binlog *b, struct part *ev, struct err *e)
{
    if (need_group(b, "XID", e) < 0)
        return -1;
    b->ending = true;
    return 0;
}

/* Nothing of the plan is in it, or it would have been refused at its first row. */
static int on_xa_prepare(struct binlog *b, struct part *ev, struct err *e)
{
    if (b->begun)
        return err_set(e, ERR_FATAL, "transaction %s ends as an XA branch", b->gtid);
    b->ending = true;
    return 0;
}

/* ---- statements ---- */

static void name_table(struct binlog *b, struct binlog_table *t, bool truncate, const char *why)
{
    b->naming = true;
    b->named_at = 0;
    if (truncate)
        t->truncated = true;
    else
        t->named = why;
}

struct naming {
    struct binlog *b;
    bool truncate;
    const char *sql; /* printable, in the row's arena */
};

/* Names that differ in case only may be the same on this server: then the table parks. */
static void take_sql_name(void *arg, const struct sql_name *name)
{
    struct naming *n = arg;

    for (size_t i = 0; i < n->b->n; i++) {
        struct binlog_table *t = &n->b->tables[i];
        bool exact;

        if (strcasecmp(t->table->schema, name->schema) != 0 ||
            (name->table[0] && strcasecmp(t->table->name, name->table) != 0))
            continue;
        exact =
            strcmp(t->table->schema, name->schema) == 0 && strcmp(t->table->name, name->table) == 0;
        name_table(n->b, t, n->truncate && exact,
                   arena_printf(&n->b->row, "the source ran on it: %s", n->sql));
    }
}

static void on_ddl(struct binlog *b, const char *sql, size_t len, const char *schema, bool truncate)
{
    char *text = arena_strndup(&b->row, sql, len < 200 ? len : 200);
    struct naming n = {.b = b, .truncate = truncate, .sql = text};

    for (char *p = text; *p; p++)
        *p = (unsigned char)*p < 0x20 ? ' ' : *p;
    sql_names(sql, len, schema, take_sql_name, &n);
}

static int on_dml(struct binlog *b, const char *sql, size_t len, const char *schema, struct err *e)
{
    for (size_t i = 0; i < b->n; i++) {
        const struct table *t = b->tables[i].table;

        if (strcasecmp(t->schema, schema) != 0 && !sql_mentions(sql, len, t->schema))
            continue;
        err_set(e, ERR_FATAL,
                "transaction %s has a statement instead of rows, in the migrated database %s: "
                "%.*s",
                b->gtid, t->schema, len < 200 ? (int)len : 200, sql);
        return err_hint(e, "no session may set binlog_format to STATEMENT or MIXED; "
                           "SET GLOBAL binlog_format = ROW, then begin anew");
    }
    return 0;
}

static int on_rollback(struct binlog *b, const char *what, struct err *e)
{
    if (!b->begun)
        return 0;
    return err_set(e, ERR_FATAL,
                   "transaction %s logs rows and then %s: it mixes tables that can roll back with "
                   "others (MyISAM), and which rows stand cannot be told",
                   b->gtid, what);
}

/* A single statement is a group of its own. */
static void end_single(struct binlog *b, const char *sql, size_t len)
{
    if (!b->multi && !sql_leaves_open(sql, len))
        b->ending = true;
    else
        b->multi = true;
}

static int on_statement(struct binlog *b, const char *sql, size_t len, const char *schema,
                        struct err *e)
{
    enum sql_kind kind = sql_kind_of(sql, len);

    switch (kind) {
    case SQL_BEGIN:
        b->multi = true;
        return 0;
    case SQL_XA_START:
        b->branch = true;
        b->multi = true;
        return 0;
    case SQL_SAVEPOINT:
    case SQL_XA_END:
        return 0;
    case SQL_COMMIT:
        b->ending = true;
        return 0;
    case SQL_ROLLBACK:
        b->ending = true;
        return on_rollback(b, "ROLLBACK", e);
    case SQL_ROLLBACK_TO:
        return on_rollback(b, "ROLLBACK TO a savepoint", e);
    case SQL_DML:
        return on_dml(b, sql, len, schema, e);
    case SQL_TRUNCATE:
    case SQL_DDL:
        on_ddl(b, sql, len, schema, kind == SQL_TRUNCATE);
        break;
    case SQL_XA_DECIDE:
    case SQL_OTHER:
        break;
    }
    end_single(b, sql, len);
    return 0;
}

/* The statement's text behind post-header, status variables and database. */
static int on_query(struct binlog *b, struct part *ev, struct err *e)
{
    struct reader *r = &ev->body;
    uint8_t usual = b->post_header[BE_QUERY];
    uint8_t post = ev->h.type == BE_EXECUTE_LOAD ? b->post_header[BE_EXECUTE_LOAD] : usual;
    const char *schema;
    size_t status;

    reader_bytes(r, 4 + 4 + 1 + 2);
    status = (size_t)binlog_le(r, 2);
    if (post < 13)
        r->bad = true;
    reader_bytes(r, post - 13u);
    reader_bytes(r, status);
    schema = reader_cstr(r);
    if (r->bad || !schema)
        return bad_format("QUERY", e);
    if (need_group(b, "QUERY", e) < 0)
        return -1;
    if (ev->h.type != BE_MARIA_QUERY)
        return on_statement(b, (const char *)r->p, reader_left(r), schema, e);
    buf_reset(&b->unpacked, LARGE_ROW);
    if (binlog_inflate(r->p, reader_left(r), &b->unpacked, e) < 0)
        return -1;
    return on_statement(b, b->unpacked.data, b->unpacked.len, schema, e);
}

/* ---- rows ---- */

static enum map_use use_of(const struct binlog *b, const char *schema, const char *name,
                           struct binlog_table **table)
{
    if (strcmp(schema, MY_CONTROL) == 0)
        return strcmp(name, "origin") == 0 ? MAP_ORIGIN
               : strcmp(name, "mark") == 0 ? MAP_MARK
                                           : MAP_FOREIGN;
    for (size_t i = 0; i < b->n; i++) {
        if (strcmp(b->tables[i].table->schema, schema) != 0 ||
            strcmp(b->tables[i].table->name, name) != 0)
            continue;
        *table = &b->tables[i];
        return MAP_PLANNED;
    }
    return MAP_FOREIGN;
}

static uint64_t take_table_id(const struct binlog *b, struct part *ev)
{
    return binlog_le(&ev->body, b->post_header[ev->h.type] == 6 ? 4 : 6);
}

static struct map_entry *find_map(struct binlog *b, uint64_t id)
{
    for (size_t i = 0; i < b->nmaps; i++) {
        if (b->maps[i].id == id)
            return &b->maps[i];
    }
    return NULL;
}

static int on_table_map(struct binlog *b, struct part *ev, struct err *e)
{
    uint64_t id = take_table_id(b, ev);
    struct map_entry m = {.id = id, .table = &b->mark};
    struct map_entry *old;
    const char *schema;
    const char *name;

    if (need_group(b, "TABLE_MAP", e) < 0)
        return -1;
    if (binlog_map_names(ev->body.p, reader_left(&ev->body), &schema, &name, e) < 0)
        return -1;
    m.use = use_of(b, schema, name, &m.table);
    if ((m.use == MAP_PLANNED || m.use == MAP_MARK) &&
        binlog_table_map(m.table, ev->body.p, reader_left(&ev->body), e) < 0)
        return err_wrap(e, "%s.%s", schema, name);
    if (b->maps_stale)
        b->nmaps = 0;
    b->maps_stale = false;
    old = find_map(b, id);
    if (!old && b->nmaps == MAPS_MAX)
        return err_set(e, ERR_FATAL, "a statement of the binlog has more than %d tables", MAPS_MAX);
    if (!old)
        old = &b->maps[b->nmaps++];
    *old = m;
    return 0;
}

/* The row that my_mark() wrote: its column "token". */
static int take_token(struct binlog *b, const struct binlog_rows *rows, struct err *e)
{
    static const struct column text = {.name = (char *)"token", .kind = TYPE_TEXT};
    const struct binlog_map *m = &b->mark.map;
    const uint8_t *nulls;
    struct reader r;
    size_t k = 0;

    reader_init(&r, rows->at, (size_t)(rows->end - rows->at));
    nulls = reader_bytes(&r, (m->n + 7) / 8);
    for (size_t i = 0; nulls && i < m->n; i++) {
        struct value v = {0};
        const char *unfit = NULL;

        if (!binlog_bit(rows->after, i) || binlog_bit(nulls, k++))
            continue;
        if (!m->columns[i].name || strcmp(m->columns[i].name, "token") != 0) {
            binlog_value_skip(&m->columns[i], &r);
            continue;
        }
        binlog_value_take(&b->row, &m->columns[i], &text, &r, &v, &unfit);
        if (!r.bad && !unfit && v.len < sizeof(b->token))
            snprintf(b->token, sizeof(b->token), "%.*s", (int)v.len, v.data);
    }
    return r.bad ? bad_format("row", e) : 0;
}

struct rows_kind {
    enum change_op op;
    bool packed; /* MariaDB's compressed form */
};

static struct rows_kind rows_kind_of(uint8_t type)
{
    bool packed = type >= BE_MARIA_WRITE_V1;
    uint8_t first = type < BE_INCIDENT           ? BE_WRITE_V1
                    : !packed                    ? BE_WRITE
                    : type <= BE_MARIA_DELETE_V1 ? BE_MARIA_WRITE_V1
                                                 : BE_MARIA_WRITE;
    static const enum change_op ops[] = {OP_INSERT, OP_UPDATE, OP_DELETE};

    return (struct rows_kind){.op = ops[type - first], .packed = packed};
}

/* Width and bitmaps are not compressed, the rows behind them are. */
static int unpack_rows(struct binlog *b, enum change_op op, struct reader *r, struct err *e)
{
    size_t head = binlog_rows_head(op, r->p, reader_left(r));

    if (head == 0)
        return bad_format("compressed row", e);
    buf_reset(&b->unpacked, LARGE_ROW);
    buf_add(&b->unpacked, r->p, head);
    if (binlog_inflate(r->p + head, reader_left(r) - head, &b->unpacked, e) < 0)
        return -1;
    b->volume += b->unpacked.len;
    reader_init(r, b->unpacked.data, b->unpacked.len);
    return 0;
}

static int open_rows(struct binlog *b, const struct map_entry *m, struct part *ev, struct err *e)
{
    struct rows_kind kind = rows_kind_of(ev->h.type);
    uint64_t ordinal = b->volume;

    if (m->use == MAP_PLANNED && b->branch) {
        err_set(e, ERR_FATAL, "transaction %s is an XA branch that changes %s", b->gtid,
                table_label(m->table->table));
        return err_hint(e, "XA is not carried by this version: keep XA away from the migrated "
                           "tables, then begin anew");
    }
    if (m->table->unfit) {
        b->has_rows = true;
        b->rows = (struct binlog_rows){.table = m->table};
        return 0;
    }
    if (kind.packed && unpack_rows(b, kind.op, &ev->body, e) < 0)
        return -1;
    if (binlog_rows_open(&b->rows, m->table, kind.op, ev->body.p, reader_left(&ev->body), e) < 0)
        return -1;
    b->rows_ordinal = ordinal;
    if (m->use == MAP_MARK)
        return kind.op == OP_INSERT ? take_token(b, &b->rows, e) : 0;
    b->has_rows = true;
    return 0;
}

static bool partial_rows(uint8_t type)
{
    return type == BE_PARTIAL_UPDATE;
}

static int on_rows(struct binlog *b, struct part *ev, struct err *e)
{
    bool extra = b->post_header[ev->h.type] == 10;
    uint64_t id = take_table_id(b, ev);
    uint16_t flags = (uint16_t)binlog_le(&ev->body, 2);
    size_t more = extra ? (size_t)binlog_le(&ev->body, 2) : 2;
    const struct map_entry *m = find_map(b, id);

    if (more < 2 || !reader_bytes(&ev->body, more - 2) || ev->body.bad)
        return bad_format("row", e);
    if (need_group(b, "row", e) < 0)
        return -1;
    if (b->maps_stale)
        m = NULL;
    b->maps_stale |= flags & ROWS_STATEMENT_END;
    if (id == ROWS_DUMMY_TABLE)
        return 0;
    if (!m)
        return err_set(e, ERR_FATAL, "the binlog has rows of a table that it does not describe");
    if (!b->rows_seen)
        b->ours = m->use == MAP_ORIGIN;
    b->rows_seen = true;
    if (b->ours || m->use == MAP_FOREIGN || m->use == MAP_ORIGIN)
        return 0;
    if (partial_rows(ev->h.type)) {
        err_set(e, ERR_FATAL, "transaction %s logs a part of a JSON document in %s.%s", b->gtid,
                m->table->map.schema, m->table->map.name);
        return err_hint(e, "SET GLOBAL binlog_row_value_options = ''");
    }
    return open_rows(b, m, ev, e);
}

/* ---- the other events ---- */

static int on_payload(struct binlog *b, struct part *ev, struct err *e)
{
    if (need_group(b, "TRANSACTION_PAYLOAD", e) < 0)
        return -1;
    if (b->payload)
        return bad_format("TRANSACTION_PAYLOAD", e);
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

static int on_nothing(struct binlog *b, struct part *ev, struct err *e)
{
    return 0;
}

typedef int handler_fn(struct binlog *b, struct part *ev, struct err *e);

/* By event type; NULL: unknown, or such as could carry rows and is not understood. */
static handler_fn *const handlers[256] = {
    [BE_QUERY] = on_query,
    [BE_STOP] = on_nothing,
    [BE_ROTATE] = on_rotate,
    [BE_INTVAR] = on_nothing, /* for statements, which are judged themselves */
    [BE_APPEND_BLOCK] = on_nothing,
    [BE_DELETE_FILE] = on_nothing,
    [BE_RAND] = on_nothing,
    [BE_USER_VAR] = on_nothing,
    [BE_FORMAT] = on_format,
    [BE_XID] = on_commit,
    [BE_BEGIN_LOAD] = on_nothing,
    [BE_EXECUTE_LOAD] = on_query,
    [BE_TABLE_MAP] = on_table_map,
    [BE_WRITE_V1] = on_rows,
    [BE_UPDATE_V1] = on_rows,
    [BE_DELETE_V1] = on_rows,
    [BE_INCIDENT] = on_incident,
    [BE_HEARTBEAT] = on_heartbeat,
    [BE_IGNORABLE] = on_nothing,
    [BE_ROWS_QUERY] = on_nothing,
    [BE_WRITE] = on_rows,
    [BE_UPDATE] = on_rows,
    [BE_DELETE] = on_rows,
    [BE_GTID] = on_gtid,
    [BE_ANONYMOUS_GTID] = on_gtid,
    [BE_PREVIOUS_GTIDS] = on_nothing,
    [BE_TRANSACTION_CONTEXT] = on_nothing,
    [BE_VIEW_CHANGE] = on_nothing,
    [BE_XA_PREPARE] = on_xa_prepare,
    [BE_PARTIAL_UPDATE] = on_rows,
    [BE_PAYLOAD] = on_payload,
    [BE_HEARTBEAT_V2] = on_heartbeat,
    [BE_TAGGED_GTID] = on_tagged_gtid,
    [BE_MARIA_ANNOTATE] = on_nothing,
    [BE_MARIA_CHECKPOINT] = on_nothing,
    [BE_MARIA_GTID] = on_maria_gtid,
    [BE_MARIA_GTID_LIST] = on_nothing,
    [BE_MARIA_ENCRYPTION] = on_nothing,
    [BE_MARIA_QUERY] = on_query,
    [BE_MARIA_WRITE_V1] = on_rows,
    [BE_MARIA_UPDATE_V1] = on_rows,
    [BE_MARIA_DELETE_V1] = on_rows,
    [BE_MARIA_WRITE] = on_rows,
    [BE_MARIA_UPDATE] = on_rows,
    [BE_MARIA_DELETE] = on_rows,
};

static int dispatch(struct binlog *b, struct part *ev, struct err *e)
{
    handler_fn *handler = handlers[ev->h.type];
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
        if (!unfit)
            return hand_change(b, &c, out);
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
    b->txn.next = here(b);
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
    if (b->in_group || position_cmp(here(b), b->reported) <= 0)
        return 0;
    b->reported = here(b);
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
        return bad_format("TRANSACTION_PAYLOAD", e);
    return dispatch(b, &ev, e) < 0 ? -1 : 1;
}

/* 1: an event; 0: try what comes next; -1. */
static int step(struct binlog *b, struct event *out, struct err *e)
{
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
