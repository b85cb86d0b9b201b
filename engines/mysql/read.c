/* A chunk's rows out of the source: one snapshot transaction each, whose cut is an exact place in
 * the binlog (snapshot.h), read row by row.
 *
 * Between two servers of this engine a block is text of our own: ready "(…),(…)" for an INSERT,
 * written from what the server printed without looking at it. */
#include "core/run.h"
#include "engines/mysql/range.h"
#include "engines/mysql/snapshot.h"
#include "engines/mysql/values.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES ((size_t)64 * 1024)
#define NATIVE_BYTES ((size_t)512 * 1024)
#define BLOCK_ROWS_MAX 2048

struct chunk_read {
    struct my_db *db;
    MYSQL_RES *res;
    const struct table *table;
    struct arena arena; /* table's copy */
    enum block_format format;
    struct position at;
    bool ended;
    uint64_t count;
    struct buf native;
    struct arena block;
    struct row *rows[BLOCK_ROWS_MAX];
    size_t nrows;
};

static void read_release(void *data)
{
    struct chunk_read *c = data;

    my_rows_end(c->db, c->res);
    buf_release(&c->native);
    arena_release(&c->block);
    arena_release(&c->arena);
    free(c);
}

static int start_select(struct chunk_read *c, const struct range *range, struct err *e)
{
    struct buf sql;
    int rc;

    buf_init(&sql, BUF_MAX_TEXT);
    buf_adds(&sql, "SELECT ");
    my_add_selects(&sql, c->table);
    buf_adds(&sql, " FROM ");
    my_ident2(&sql, c->table->schema, c->table->name);
    rc = my_add_range(&sql, c->table, range, e);
    if (rc == 0)
        rc = buf_check(&sql, "a chunk's statement", e);
    if (rc == 0) {
        c->res = my_query_stream(c->db, sql.data, sql.len, e);
        rc = c->res ? 0 : -1;
    }
    buf_release(&sql);
    return rc;
}

int my_read_begin(struct db *base, const struct read_request *r, struct arena *a, struct cut *cut,
                  struct err *e)
{
    struct my_db *db = my_db_from(base);
    struct position at;
    struct chunk_read *c;

    invariant(!db->read.data);
    if (r->snapshot)
        return err_set(e, ERR_DATA, "this engine's snapshots cannot be shared");
    if (my_snapshot_open(db, &at, e) < 0)
        return err_wrap(e, "reading a chunk of %s", table_label(r->table));
    cut->text = arena_printf(a, "%" PRIu64 ":%" PRIu64, at.major, at.minor);
    cut->past = at;
    c = calloc(1, sizeof(*c));
    invariant(c != NULL);
    c->db = db;
    c->at = at;
    c->table = table_copy(&c->arena, r->table);
    c->format = r->format;
    buf_init(&c->native, BUF_MAX_ROW);
    db->read = (struct my_slot){.data = c, .release = read_release};
    if (start_select(c, &r->range, e) == 0)
        return 0;
    read_release(c);
    db->read.data = NULL;
    if (!db->broken)
        (void)my_rollback(base, NULL);
    return err_wrap(e, "reading a chunk of %s", table_label(r->table));
}

static size_t row_size(const struct chunk_read *c, const unsigned long *lengths)
{
    size_t bytes = 0;

    for (unsigned i = 0; i < mysql_num_fields(c->res); i++)
        bytes += lengths[i];
    return bytes;
}

static void relay(struct chunk_read *c, MYSQL_ROW row, const unsigned long *lengths)
{
    size_t at = 0;

    buf_adds(&c->native, c->native.len ? ",(" : "(");
    for (size_t i = 0; i < c->table->ncolumns; i++) {
        if (c->table->columns[i].generated)
            continue;
        if (at)
            buf_addc(&c->native, ',');
        my_value_relay(&c->native, &c->table->columns[i], row[at], lengths[at]);
        at++;
    }
    buf_addc(&c->native, ')');
}

/* 1: the block is full; 0: more; -1. */
static int take_row(struct chunk_read *c, MYSQL_ROW row, const unsigned long *lengths,
                    struct err *e)
{
    bool large = row_size(c, lengths) >= BLOCK_BYTES;

    c->count++;
    if (c->format == BLOCK_NATIVE) {
        relay(c, row, lengths);
        c->nrows++;
        return c->native.len >= NATIVE_BYTES || large;
    }
    /* A large row ends its block, so that it need not be copied. */
    if (my_row_read(&c->block, c->table, row, lengths, large, &c->rows[c->nrows], e) < 0)
        return -1;
    c->nrows++;
    return large || c->nrows == BLOCK_ROWS_MAX || c->block.used >= BLOCK_BYTES;
}

static int fill(struct chunk_read *c, struct err *e)
{
    unsigned long *lengths;
    MYSQL_ROW row;

    arena_reset(&c->block);
    buf_reset(&c->native, 2 * NATIVE_BYTES);
    c->nrows = 0;
    while (!c->ended) {
        int rc = my_fetch(c->db, c->res, &row, &lengths, e);

        if (rc < 0)
            return -1;
        c->ended = rc == 0;
        if (rc > 0 && (rc = take_row(c, row, lengths, e)) != 0)
            return rc < 0 ? -1 : 0;
    }
    return 0;
}

int my_read_next(struct db *base, struct block *out, struct err *e)
{
    struct chunk_read *c = my_db_from(base)->read.data;

    invariant(c != NULL);
    if (fill(c, e) < 0 || buf_check(&c->native, "a row on its way to the target", e) < 0)
        return err_wrap(e, "reading a chunk of %s", table_label(c->table));
    if (!c->nrows)
        return 0;
    *out = (struct block){.format = c->format, .nrows = c->nrows};
    if (c->format == BLOCK_NATIVE) {
        out->data = c->native.data;
        out->len = c->native.len;
        return 1;
    }
    out->rows = (const struct row *const *)c->rows;
    for (size_t i = 0; i < c->nrows; i++)
        out->len += row_bytes(c->rows[i]);
    return 1;
}

int my_read_end(struct db *base, uint64_t *rows, struct err *e)
{
    struct my_db *db = my_db_from(base);
    struct chunk_read *c = db->read.data;
    struct position at;
    bool whole;

    if (!c)
        return err_set(e, ERR_BUG, "read_end without a read");
    if (rows)
        *rows = c->count;
    at = c->at;
    whole = c->ended;
    read_release(c);
    db->read.data = NULL;
    if (db->broken)
        return err_set(e, ERR_RETRY, "the connection was lost while a chunk was read");
    if (my_rollback(base, e) < 0)
        return -1;
    return whole ? my_snapshot_durable(db, at, e) : 0;
}
