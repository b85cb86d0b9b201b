/* Groups of the binlog from their GTID to their end, and the rows in them. */
#include "engines/mysql/binlog_bytes.h"
#include "engines/mysql/binlog_machine.h"
#include "engines/mysql/binlog_value.h"
#include "engines/mysql/my.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define ROWS_STATEMENT_END 1
#define ROWS_DUMMY_TABLE 0xffffff
/* MariaDB's GTID flags. */
#define MARIA_STANDALONE 0x01
#define MARIA_PREPARED_XA 0x40

int binlog_bad_format(const char *what, struct err *e)
{
    return err_set(e, ERR_FATAL, "the binlog has a %s event that does not follow the format", what);
}

int binlog_need_group(const struct binlog *b, const char *what, struct err *e)
{
    if (b->in_group)
        return 0;
    return err_set(e, ERR_FATAL, "the binlog has a %s event outside of a transaction", what);
}

/* ---- groups ---- */

/* The server commits what stands in its binlog whole, and rolls back the rest when it recovers. */
void binlog_group_cut(struct binlog *b)
{
    b->in_group = false;
    b->cut = b->begun;
    b->begun = false;
    snprintf(b->reason, sizeof(b->reason),
             "binlog file %" PRIu64 " ends inside of the transaction %s", b->file, b->gtid);
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

int binlog_on_maria_gtid(struct binlog *b, struct part *ev, struct err *e)
{
    uint64_t number = binlog_le(&ev->body, 8);
    uint32_t domain = (uint32_t)binlog_le(&ev->body, 4);
    uint8_t flags = reader_u8(&ev->body);

    if (ev->body.bad)
        return binlog_bad_format("GTID", e);
    if (begin_group(b, ev, !(flags & MARIA_STANDALONE), e) < 0)
        return -1;
    b->branch = flags & MARIA_PREPARED_XA;
    b->txn.xid = number;
    snprintf(b->gtid, sizeof(b->gtid), "%u-%u-%" PRIu64, domain, ev->h.server, number);
    return 0;
}

int binlog_on_gtid(struct binlog *b, struct part *ev, struct err *e)
{
    struct reader *r = &ev->body;
    const uint8_t *uuid;
    uint64_t number;
    size_t n = 0;

    reader_u8(r);
    uuid = reader_bytes(r, 16);
    number = binlog_le(r, 8);
    if (r->bad)
        return binlog_bad_format("GTID", e);
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

int binlog_on_tagged_gtid(struct binlog *b, struct part *ev, struct err *e)
{
    if (begin_group(b, ev, false, e) < 0)
        return -1;
    snprintf(b->gtid, sizeof(b->gtid), "at %" PRIu64 ":%" PRIu64, b->txn.commit.major,
             b->txn.commit.minor);
    return 0;
}

int binlog_on_commit(struct binlog *b, struct part *ev, struct err *e)
{
    if (binlog_need_group(b, "XID", e) < 0)
        return -1;
    b->ending = true;
    return 0;
}

/* Nothing of the plan is in it, or it would have been refused at its first row. */
int binlog_on_xa_prepare(struct binlog *b, struct part *ev, struct err *e)
{
    if (b->begun)
        return err_set(e, ERR_FATAL, "transaction %s ends as an XA branch", b->gtid);
    b->ending = true;
    return 0;
}

/* ---- rows ---- */

static enum map_use use_of(struct binlog *b, const char *schema, const char *name,
                           struct binlog_table **table)
{
    if (strcmp(schema, MY_CONTROL) == 0) {
        bool origin = strcmp(name, "origin") == 0;

        *table = origin ? &b->origin : &b->mark;
        return origin ? MAP_ORIGIN : strcmp(name, "mark") == 0 ? MAP_MARK : MAP_FOREIGN;
    }
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

int binlog_on_table_map(struct binlog *b, struct part *ev, struct err *e)
{
    uint64_t id = take_table_id(b, ev);
    struct map_entry m = {.id = id};
    struct map_entry *old;
    const char *schema;
    const char *name;

    if (binlog_need_group(b, "TABLE_MAP", e) < 0)
        return -1;
    if (binlog_map_names(ev->body.p, reader_left(&ev->body), &schema, &name, e) < 0)
        return -1;
    m.use = use_of(b, schema, name, &m.table);
    if (m.use != MAP_FOREIGN &&
        binlog_table_map(m.table, ev->body.p, reader_left(&ev->body), e) < 0)
        return err_wrap(e, "%s.%s", schema, name);
    if (b->maps_stale)
        b->nmaps = 0;
    b->maps_stale = false;
    old = find_map(b, id);
    if (!old && b->nmaps == BINLOG_MAPS_MAX)
        return err_set(e, ERR_FATAL, "a statement of the binlog has more than %d tables",
                       BINLOG_MAPS_MAX);
    if (!old)
        old = &b->maps[b->nmaps++];
    *old = m;
    return 0;
}

/* A text of the first image of a row of our own control tables; out is "" if it is not there. */
static int take_text(struct binlog *b, const char *column, char *out, size_t size, struct err *e)
{
    static const struct column text = {.name = (char *)"text", .kind = TYPE_TEXT};
    const struct binlog_rows *rows = &b->rows;
    const struct binlog_map *m = &rows->table->map;
    const uint8_t *present = rows->op == OP_INSERT ? rows->after : rows->before;
    const uint8_t *nulls;
    struct reader r;
    size_t k = 0;

    out[0] = '\0';
    reader_init(&r, rows->at, (size_t)(rows->end - rows->at));
    nulls = reader_bytes(&r, (m->n + 7) / 8);
    for (size_t i = 0; nulls && i < m->n; i++) {
        struct value v = {0};
        const char *unfit = NULL;

        if (!binlog_bit(present, i) || binlog_bit(nulls, k++))
            continue;
        if (!m->columns[i].name || strcmp(m->columns[i].name, column) != 0) {
            binlog_value_skip(&m->columns[i], &r);
            continue;
        }
        binlog_value_take(&b->row, &m->columns[i], &text, &r, &v, &unfit);
        if (!r.bad && !unfit && v.len < size)
            snprintf(out, size, "%.*s", (int)v.len, v.data);
    }
    return r.bad ? binlog_bad_format("row", e) : 0;
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
        return binlog_bad_format("compressed row", e);
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
        return kind.op == OP_INSERT ? take_text(b, "token", b->token, sizeof(b->token), e) : 0;
    if (m->use == MAP_ORIGIN)
        return take_text(b, "migration", b->from_migration, sizeof(b->from_migration), e);
    b->has_rows = true;
    return 0;
}

static bool partial_rows(uint8_t type)
{
    return type == BE_PARTIAL_UPDATE;
}

int binlog_on_rows(struct binlog *b, struct part *ev, struct err *e)
{
    bool extra = b->post_header[ev->h.type] == 10;
    uint64_t id = take_table_id(b, ev);
    uint16_t flags = (uint16_t)binlog_le(&ev->body, 2);
    size_t more = extra ? (size_t)binlog_le(&ev->body, 2) : 2;
    const struct map_entry *m = find_map(b, id);

    if (more < 2 || !reader_bytes(&ev->body, more - 2) || ev->body.bad)
        return binlog_bad_format("row", e);
    if (binlog_need_group(b, "row", e) < 0)
        return -1;
    if (b->maps_stale)
        m = NULL;
    b->maps_stale |= flags & ROWS_STATEMENT_END;
    if (id == ROWS_DUMMY_TABLE)
        return 0;
    if (!m)
        return err_set(e, ERR_FATAL, "the binlog has rows of a table that it does not describe");
    if (!b->rows_seen && m->use == MAP_ORIGIN) {
        if (open_rows(b, m, ev, e) < 0)
            return -1;
        b->ours = strcmp(b->from_migration, b->migration) == 0;
    }
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
