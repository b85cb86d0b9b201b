/* A chunk's rows, out of the source and into the target, in PostgreSQL's own COPY text format.
 *
 * A read is one REPEATABLE READ transaction. Under the common snapshot it imports that first and
 * then locks the table (ACCESS SHARE, bounded) and looks at its filenode: TRUNCATE and rewrites do
 * not obey snapshots, so a table whose file has changed since the plan would be read empty or with
 * rows of the future. With a snapshot of its own the lock comes first, so that nothing can happen
 * between the two. The cut is that transaction's pg_current_snapshot(); the log's insert position,
 * read after it, lies behind the commit of everything that it sees. */
#include "engines/postgres/bulk.h"
#include "engines/postgres/range.h"
#include "engines/postgres/values.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES ((size_t)64 * 1024)
#define BLOCK_ROWS_MAX 2048
#define LOCK_TIMEOUT "5s"

struct copy_read {
    struct pg_lines lines;
    const struct table *table;
    struct arena arena; /* table's copy */
    enum block_format format;
    uint64_t past; /* LSN behind every commit that is seen */
    bool held;     /* lines.line was read, but not handed out yet */
    struct buf native;
    struct arena block; /* BLOCK_ROWS: lines and rows of one block */
    struct row *rows[BLOCK_ROWS_MAX];
    size_t nrows;
};

static void read_release(void *data)
{
    struct copy_read *c = data;

    pg_lines_close(&c->lines);
    buf_release(&c->native);
    arena_release(&c->block);
    arena_release(&c->arena);
    free(c);
}

/* ---- reading: begin ---- */

static int import_snapshot(struct pg_db *db, const char *snapshot, struct err *e)
{
    struct buf sql;
    int rc;

    buf_init(&sql, BUF_MAX_TEXT);
    buf_adds(&sql, "SET TRANSACTION SNAPSHOT ");
    pg_literal(&sql, snapshot);
    rc = pg_exec(db, sql.data, e);
    buf_release(&sql);
    if (rc == 0 || db->broken || !e)
        return rc;
    /* "invalid snapshot identifier": its holder is gone, so the common cut cannot be read any more.
     */
    if (strncmp(e->sqlstate, "22", 2) == 0 || strncmp(e->sqlstate, "55", 2) == 0)
        e->class = ERR_DATA;
    return err_wrap(e, "importing the common snapshot");
}

static int lock_table(struct pg_db *db, const struct table *t, struct err *e)
{
    struct buf sql;
    int rc;

    buf_init(&sql, BUF_MAX_TEXT);
    buf_adds(&sql, "SET LOCAL lock_timeout = '" LOCK_TIMEOUT "'; LOCK TABLE ONLY ");
    pg_ident2(&sql, t->schema, t->name);
    buf_adds(&sql, " IN ACCESS SHARE MODE");
    rc = pg_exec(db, sql.data, e);
    buf_release(&sql);
    return rc < 0 ? err_wrap(e, "locking %s for reading", table_label(t)) : 0;
}

/* Under the lock: is the file still the one that was planned? */
static int check_filenode(struct pg_db *db, const struct table *t, struct err *e)
{
    char oid[16];
    const char *values[] = {oid};
    uint64_t now;
    PGresult *res;

    snprintf(oid, sizeof(oid), "%" PRIu32, t->id);
    res = pg_query(db, "SELECT pg_relation_filenode($1::oid)::int8", 1, values, e);
    if (!res)
        return -1;
    now = (uint64_t)pg_int(res, 0, 0);
    PQclear(res);
    if (now == t->filenode || (t->filenode == 0 && now))
        return 0;
    return err_set(e, ERR_CONFLICT, "%s was rewritten or truncated since the plan", table_label(t));
}

static int read_cut(struct pg_db *db, struct arena *a, struct cut *cut, struct err *e)
{
    PGresult *res =
        pg_query(db, "SELECT " PG_SQL_CUT ", pg_current_wal_insert_lsn()::text", 0, NULL, e);
    int rc = 0;

    if (!res)
        return -1;
    cut->text = arena_strdup(a, PQgetvalue(res, 0, 0));
    cut->past.minor = 0;
    if (pg_parse_lsn(PQgetvalue(res, 0, 1), &cut->past.major) < 0)
        rc = err_set(e, ERR_FATAL, "the server's log position \"%s\" is none",
                     PQgetvalue(res, 0, 1));
    PQclear(res);
    return rc;
}

static int open_snapshot(struct pg_db *db, const struct read_request *r, struct arena *a,
                         struct cut *cut, struct err *e)
{
    if (pg_exec(db, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", e) < 0)
        return -1;
    if (r->snapshot && import_snapshot(db, r->snapshot, e) < 0)
        return -1;
    if (lock_table(db, r->table, e) < 0 || (r->snapshot && check_filenode(db, r->table, e) < 0))
        return -1;
    return read_cut(db, a, cut, e);
}

static int start_copy(struct pg_db *db, struct copy_read *c, const struct range *range,
                      struct err *e)
{
    struct buf sql;
    int rc;

    buf_init(&sql, BUF_MAX_TEXT);
    buf_adds(&sql, "COPY (SELECT ");
    pg_add_columns(&sql, c->table, "");
    buf_adds(&sql, " FROM ONLY ");
    pg_ident2(&sql, c->table->schema, c->table->name);
    pg_add_range(&sql, c->table, range);
    buf_adds(&sql, ") TO STDOUT");
    rc = buf_check(&sql, "a chunk's statement", e);
    if (rc == 0)
        rc = pg_lines_open(&c->lines, db, sql.data, e);
    buf_release(&sql);
    return rc;
}

int pg_read_begin(struct db *base, const struct read_request *r, struct arena *a, struct cut *cut,
                  struct err *e)
{
    struct pg_db *db = pg_db_from(base);
    struct copy_read *c;

    invariant(!db->read.data);
    if (pg_renew(db, e) < 0)
        return -1;
    if (open_snapshot(db, r, a, cut, e) < 0)
        goto failed;
    c = calloc(1, sizeof(*c));
    invariant(c != NULL);
    db->read = (struct pg_slot){.data = c, .release = read_release};
    c->table = table_copy(&c->arena, r->table);
    c->format = r->format;
    c->past = cut->past.major;
    buf_init(&c->native, BUF_MAX_ROW);
    if (start_copy(db, c, &r->range, e) == 0)
        return 0;
    read_release(c);
    db->read.data = NULL;
failed:
    if (!db->broken)
        (void)pg_rollback(base, NULL);
    return err_wrap(e, "reading a chunk of %s", table_label(r->table));
}

/* ---- reading: blocks ---- */

static int out_native(struct copy_read *c, const char *data, size_t len, struct block *out)
{
    *out = (struct block){.format = BLOCK_NATIVE, .data = data, .len = len};
    return 1;
}

/* Lines of a block are gathered up to BLOCK_BYTES; a longer one is handed out alone and uncopied.
 */
static int next_native(struct copy_read *c, struct block *out, struct err *e)
{
    if (c->held) {
        c->held = false;
        return out_native(c, c->lines.line, c->lines.len, out);
    }
    buf_reset(&c->native, 4 * BLOCK_BYTES);
    while (c->native.len < BLOCK_BYTES) {
        int rc = pg_lines_next(&c->lines, e);

        if (rc < 0)
            return -1;
        if (rc == 0)
            break;
        if (c->lines.len >= BLOCK_BYTES) {
            c->held = c->native.len > 0;
            if (!c->held)
                return out_native(c, c->lines.line, c->lines.len, out);
            break;
        }
        buf_add(&c->native, c->lines.line, c->lines.len);
    }
    return c->native.len ? out_native(c, c->native.data, c->native.len, out) : 0;
}

static int out_rows(struct copy_read *c, struct block *out)
{
    *out = (struct block){
        .format = BLOCK_ROWS, .rows = (const struct row *const *)c->rows, .nrows = c->nrows};
    for (size_t i = 0; i < c->nrows; i++)
        out->len += row_bytes(c->rows[i]);
    return 1;
}

static int add_row(struct copy_read *c, char *line, struct err *e)
{
    return pg_copy_decode(&c->block, c->table, line, c->lines.len, &c->rows[c->nrows++], e);
}

static int next_rows(struct copy_read *c, struct block *out, struct err *e)
{
    arena_reset(&c->block);
    c->nrows = 0;
    if (c->held) {
        c->held = false;
        return add_row(c, c->lines.line, e) < 0 ? -1 : out_rows(c, out);
    }
    while (c->nrows < BLOCK_ROWS_MAX && c->block.used < BLOCK_BYTES) {
        int rc = pg_lines_next(&c->lines, e);

        if (rc < 0)
            return -1;
        if (rc == 0)
            break;
        if (c->lines.len >= BLOCK_BYTES) {
            c->held = c->nrows > 0;
            if (!c->held)
                return add_row(c, c->lines.line, e) < 0 ? -1 : out_rows(c, out);
            break;
        }
        if (add_row(c, arena_memdup(&c->block, c->lines.line, c->lines.len), e) < 0)
            return -1;
    }
    return c->nrows ? out_rows(c, out) : 0;
}

int pg_read_next(struct db *base, struct block *out, struct err *e)
{
    struct copy_read *c = pg_db_from(base)->read.data;
    int rc;

    invariant(c != NULL);
    rc = c->format == BLOCK_NATIVE ? next_native(c, out, e) : next_rows(c, out, e);
    return rc < 0 ? err_wrap(e, "reading a chunk of %s", table_label(c->table)) : rc;
}

/* Commits without waiting for the disk (synchronous_commit = off) are seen by snapshots before they
 * are in the log that survives. Should the source crash now, they never happened, and their xids
 * are given to other transactions, which the cut would then call seen: rows that nobody has, and
 * rows that nobody gets. So nothing read counts before the log is on disk up to its cut. */
static int flush_source(struct pg_db *db, uint64_t past, struct err *e)
{
    char lsn[32];
    const char *values[] = {lsn};
    bool flushed;
    PGresult *res;

    pg_position_text((struct position){past, 0}, lsn, sizeof(lsn));
    res = pg_query(db, "SELECT pg_current_wal_flush_lsn() >= $1::pg_lsn", 1, values, e);
    if (!res)
        return -1;
    flushed = pg_bool(res, 0, 0);
    PQclear(res);
    if (flushed)
        return 0;
    return pg_exec(db,
                   "BEGIN READ WRITE; SET LOCAL synchronous_commit = local;"
                   "SELECT pg_logical_emit_message(true, '" PG_SYNC_PREFIX "', ''); COMMIT",
                   e);
}

int pg_read_end(struct db *base, uint64_t *rows, struct err *e)
{
    struct pg_db *db = pg_db_from(base);
    struct copy_read *c = db->read.data;
    uint64_t past;
    bool whole;

    if (!c)
        return err_set(e, ERR_BUG, "read_end without a read");
    if (rows)
        *rows = c->lines.rows;
    past = c->past;
    whole = c->lines.ended;
    read_release(c);
    db->read.data = NULL;
    if (db->broken)
        return err_set(e, ERR_RETRY, "the connection was lost while a chunk was read");
    if (pg_rollback(base, e) < 0)
        return -1;
    if (whole && flush_source(db, past, e) < 0)
        return err_wrap(e, "waiting for what a chunk has seen to be on the source's disk");
    /* A failure to renew is met again, and reported, at the next begin. */
    (void)pg_renew(db, NULL);
    return 0;
}

/* ---- loading ---- */

struct copy_load {
    struct pg_db *db;
    struct arena arena;
    const struct table *table;
    enum block_format format;
    struct buf text;
};

static void load_release(void *data)
{
    struct copy_load *c = data;

    buf_release(&c->text);
    arena_release(&c->arena);
    free(c);
}

int pg_load_begin(struct db *base, const struct table *table, enum block_format f, struct err *e)
{
    const struct table *t = table_there(table);
    struct pg_db *db = pg_db_from(base);
    struct copy_load *c;
    PGresult *res;
    struct buf sql;
    bool started;

    invariant(!db->load.data);
    buf_init(&sql, BUF_MAX_TEXT);
    buf_adds(&sql, "COPY ");
    pg_ident2(&sql, t->schema, t->name);
    /* A table may have no column that is written; an empty list is no list. */
    if (pg_has_columns(t)) {
        buf_adds(&sql, " (");
        pg_add_columns(&sql, t, "");
        buf_addc(&sql, ')');
    }
    buf_adds(&sql, " FROM STDIN");
    res = pg_send(db, sql.data, NULL, e) == 0 ? pg_collect(db, e) : NULL;
    buf_release(&sql);
    started = res && PQresultStatus(res) == PGRES_COPY_IN;
    PQclear(res);
    if (!started)
        return err_wrap(e, "loading %s", table_label(t));
    c = calloc(1, sizeof(*c));
    invariant(c != NULL);
    c->db = db;
    c->table = table_copy(&c->arena, t);
    c->format = f;
    buf_init(&c->text, BUF_MAX_ROW);
    db->load = (struct pg_slot){.data = c, .release = load_release};
    return 0;
}

/* In slices, each flushed, so that libpq's buffer stays small however large a row is. */
static int put(struct pg_db *db, const char *data, size_t len, struct err *e)
{
    for (size_t at = 0; at < len;) {
        size_t n = len - at < PG_COPY_SLICE ? len - at : PG_COPY_SLICE;
        int rc = PQputCopyData(db->conn, data + at, (int)n);

        if (rc < 0)
            return pg_lost(db, "sending rows", e);
        if (rc > 0)
            at += n;
        if (pg_flush(db, e) < 0)
            return -1;
    }
    return 0;
}

static int put_buf(void *arg, struct buf *b, struct err *e)
{
    struct copy_load *c = arg;
    int rc = put(c->db, b->data, b->len, e);

    buf_reset(b, 4 * PG_COPY_SLICE);
    return rc;
}

int pg_load_block(struct db *base, const struct block *b, struct err *e)
{
    struct pg_db *db = pg_db_from(base);
    struct copy_load *c = db->load.data;
    struct pg_spill spill = {.put = put_buf, .arg = c};
    int rc = 0;

    invariant(c && c->format == b->format);
    if (b->format == BLOCK_NATIVE)
        rc = put(db, b->data, b->len, e);
    for (size_t i = 0; rc == 0 && i < b->nrows && b->format == BLOCK_ROWS; i++)
        rc = pg_copy_encode(&c->text, c->table, b->rows[i], &spill, e);
    if (rc == 0 && c->text.len)
        rc = put_buf(c, &c->text, e);
    return rc < 0 ? err_wrap(e, "loading %s", table_label(c->table)) : 0;
}

int pg_load_end(struct db *base, uint64_t *rows, struct err *e)
{
    struct pg_db *db = pg_db_from(base);
    struct copy_load *c = db->load.data;
    PGresult *res = NULL;
    int rc = -1;

    invariant(c != NULL);
    if (PQputCopyEnd(db->conn, NULL) < 0)
        pg_lost(db, "ending a COPY", e);
    else if (pg_flush(db, e) == 0)
        res = pg_collect(db, e);
    if (res) {
        *rows = strtoull(PQcmdTuples(res), NULL, 10);
        rc = 0;
    }
    if (rc < 0)
        err_wrap(e, "loading %s", table_label(c->table));
    PQclear(res);
    load_release(c);
    db->load.data = NULL;
    return rc;
}
