/* The ranges in which a table is copied. Bounds of key ranges are keys that a sample of the table's
 * blocks has (never OFFSET), cut where the server's order divides the sample evenly: so they are
 * strictly ascending, the first range is open below and the last above, and every key that there is
 * or will be lies in exactly one. */
#include "engines/postgres/pg.h"
#include "engines/postgres/pgoutput.h"
#include "engines/postgres/range.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The ledger has a line for each. */
#define CHUNKS_MAX 65536
/* Blocks read for the sample: some for each chunk, so that chunks come out about equal. */
#define SAMPLE_BLOCKS_PER_CHUNK 4
#define SAMPLE_BLOCKS_MIN 200
/* A sample of a large table on slow disks takes its time before the first byte comes. */
#define SAMPLE_TIMEOUT_MS (15 * 60 * 1000)
#define TID_RANGE_SCAN_VERSION 140000

struct size {
    uint64_t bytes;  /* with TOAST */
    uint64_t blocks; /* of the main fork */
};

/* From the disk and not from statistics, which a table that was never analysed does not have. */
static int read_size(struct pg_db *db, const struct table *t, struct size *out, struct err *e)
{
    char oid[16];
    const char *values[] = {oid};
    PGresult *res;

    snprintf(oid, sizeof(oid), "%" PRIu32, t->id);
    res = pg_query(db,
                   "SELECT pg_table_size($1::oid), pg_relation_size($1::oid)"
                   " / current_setting('block_size')::int8",
                   1, values, e);
    if (!res)
        return -1;
    out->bytes = (uint64_t)pg_int(res, 0, 0);
    out->blocks = (uint64_t)pg_int(res, 0, 1);
    PQclear(res);
    return 0;
}

static void one_range(struct arena *a, struct range_list *out, enum range_kind kind)
{
    out->n = 1;
    out->v = arena_zalloc(a, sizeof(*out->v));
    out->v[0].kind = kind;
    out->v[0].block_to = UINT64_MAX;
}

static void block_ranges(struct arena *a, const struct size *size, uint64_t chunks,
                         struct range_list *out)
{
    uint64_t step = (size->blocks + chunks - 1) / chunks;
    size_t n;

    if (step == 0)
        step = 1;
    n = (size_t)((size->blocks + step - 1) / step);
    if (n == 0)
        n = 1;
    out->n = n;
    out->v = arena_zalloc(a, n * sizeof(*out->v));
    for (size_t i = 0; i < n; i++) {
        out->v[i].kind = RANGE_BLOCKS;
        out->v[i].block_from = i * step;
        out->v[i].block_to = i + 1 < n ? (i + 1) * step : UINT64_MAX;
    }
}

/* The i-th of c ordered sample keys is a bound where i * chunks / c steps up; the c-th never is. */
static void add_sample(struct buf *sql, const struct table *t, uint64_t chunks, double percent)
{
    buf_adds(sql, "SELECT ");
    for (size_t i = 0; i < t->nkey; i++)
        buf_addf(sql, "%sk%zu", i ? ", " : "", i);
    buf_adds(sql, " FROM (SELECT *, row_number() OVER (ORDER BY ");
    for (size_t i = 0; i < t->nkey; i++)
        buf_addf(sql, "%sk%zu", i ? ", " : "", i);
    buf_adds(sql, ") AS i, count(*) OVER () AS c FROM (SELECT DISTINCT ");
    for (size_t i = 0; i < t->nkey; i++) {
        buf_adds(sql, i ? ", " : "");
        pg_ident(sql, t->columns[t->key[i]].name);
        buf_addf(sql, " AS k%zu", i);
    }
    buf_adds(sql, " FROM ONLY ");
    pg_ident2(sql, t->schema, t->name);
    if (percent < 100)
        buf_addf(sql, " TABLESAMPLE SYSTEM (%.9f) REPEATABLE (1)", percent);
    buf_addf(sql,
             ") s) n WHERE i < c AND i * %" PRIu64 " / c > (i - 1) * %" PRIu64 " / c ORDER BY i",
             chunks, chunks);
}

static int take_bound(struct arena *a, const struct table *t, const PGresult *res, int line,
                      struct row **out, struct err *e)
{
    struct row *key = row_new(a, t->nkey);

    for (size_t i = 0; i < t->nkey; i++) {
        const struct column *c = &t->columns[t->key[i]];
        struct value *v = &key->v[i];

        if (PQgetisnull(res, line, (int)i))
            return err_set(e, ERR_FATAL, "%s.%s is part of the key and NULL", table_label(t),
                           c->name);
        v->state = VALUE_SET;
        v->len = (size_t)PQgetlength(res, line, (int)i);
        v->data = arena_strndup(a, PQgetvalue(res, line, (int)i), v->len);
        if (c->kind == TYPE_BYTES && pg_unhex(v) < 0)
            return err_set(e, ERR_FATAL, "%s.%s: the server's bytea is not hex", table_label(t),
                           c->name);
    }
    *out = key;
    return 0;
}

static int ranges_between(struct arena *a, const struct table *t, const PGresult *res,
                          struct range_list *out, struct err *e)
{
    int bounds = PQntuples(res);

    out->n = (size_t)bounds + 1;
    out->v = arena_zalloc(a, out->n * sizeof(*out->v));
    for (size_t i = 0; i < out->n; i++) {
        struct row *bound = NULL;

        out->v[i].kind = RANGE_KEY;
        out->v[i].block_to = UINT64_MAX;
        if (i == 0)
            continue;
        if (take_bound(a, t, res, (int)i - 1, &bound, e) < 0)
            return -1;
        out->v[i - 1].upper = bound;
        out->v[i].lower = bound;
    }
    return 0;
}

static int key_ranges(struct pg_db *db, const struct table *t, const struct size *size,
                      uint64_t chunks, struct arena *a, struct range_list *out, struct err *e)
{
    double want = (double)(chunks * SAMPLE_BLOCKS_PER_CHUNK + SAMPLE_BLOCKS_MIN);
    double percent = size->blocks ? 100.0 * want / (double)size->blocks : 100.0;
    int timeout_ms = db->timeout_ms;
    PGresult *res;
    struct buf sql;
    int rc = -1;

    buf_init(&sql, BUF_MAX_TEXT);
    add_sample(&sql, t, chunks, percent);
    if (timeout_ms >= 0 && timeout_ms < SAMPLE_TIMEOUT_MS)
        db->timeout_ms = SAMPLE_TIMEOUT_MS;
    res = pg_query(db, sql.data, 0, NULL, e);
    db->timeout_ms = timeout_ms;
    if (res)
        rc = ranges_between(a, t, res, out, e);
    PQclear(res);
    buf_release(&sql);
    return rc;
}

int pg_chunk_plan(struct db *base, const struct table *t, uint64_t bytes, bool by_blocks,
                  struct arena *a, struct range_list *out, struct err *e)
{
    struct pg_db *db = pg_db_from(base);
    struct size size;
    uint64_t chunks;

    invariant(bytes > 0);
    if (read_size(db, t, &size, e) < 0)
        return err_wrap(e, "planning the chunks of %s", table_label(t));
    chunks = (size.bytes + bytes - 1) / bytes;
    if (chunks > CHUNKS_MAX)
        chunks = CHUNKS_MAX;
    if (chunks == 0)
        chunks = 1;
    if (by_blocks && (t->scattered || t->nkey == 0) && db->version >= TID_RANGE_SCAN_VERSION) {
        block_ranges(a, &size, chunks, out);
        return 0;
    }
    if (t->nkey == 0 || chunks == 1) {
        one_range(a, out, t->nkey ? RANGE_KEY : RANGE_ALL);
        return 0;
    }
    if (key_ranges(db, t, &size, chunks, a, out, e) < 0)
        return err_wrap(e, "planning the chunks of %s", table_label(t));
    return 0;
}
