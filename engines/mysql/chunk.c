/* The ranges in which a table is copied.
 *
 * A key of one integer is divided by halves, as the optimizer's dives into the index estimate the
 * rows between two numbers: some pages are read, whatever the table's size. Any other key is walked
 * in steps, each a statement of its own that passes over one chunk's keys in the index. The bounds
 * are strictly ascending in the server's own order, the first range is open below and the last
 * above, so every key that there is or will be lies in exactly one. */
#include "core/run.h"
#include "engines/mysql/range.h"
#include "engines/mysql/values.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* The ledger has a line for each. */
#define CHUNKS_MAX 65536
#define STEP_TIMEOUT_MS (15 * 60 * 1000)
#define HALVES_MAX 40

struct plan {
    struct my_db *db;
    const struct table *t;
    struct arena *a;
    uint64_t step; /* rows of a chunk */
    struct row **bounds;
    size_t n;
};

static int read_size(struct my_db *db, const struct table *t, uint64_t *bytes, uint64_t *rows,
                     struct err *e)
{
    MYSQL_RES *res = NULL;
    MYSQL_ROW row;
    struct buf sql;

    buf_init(&sql, BUF_MAX_TEXT);
    buf_adds(&sql, "SELECT DATA_LENGTH, TABLE_ROWS FROM information_schema.TABLES"
                   " WHERE TABLE_SCHEMA = ");
    my_literal(&sql, t->schema, strlen(t->schema));
    buf_adds(&sql, " AND TABLE_NAME = ");
    my_literal(&sql, t->name, strlen(t->name));
    res = my_query(db, sql.data, e);
    buf_release(&sql);
    if (!res)
        return -1;
    row = mysql_fetch_row(res);
    *bytes = row ? (uint64_t)my_int(row[0]) : 0;
    *rows = row ? (uint64_t)my_int(row[1]) : 0;
    mysql_free_result(res);
    return 0;
}

static int add_bound(struct plan *p, struct row *bound, struct err *e)
{
    if (p->n >= CHUNKS_MAX - 1)
        return err_set(e, ERR_FATAL, "%s has more chunks than a ledger takes: raise chunk_size",
                       table_label(p->t));
    p->bounds[p->n++] = bound;
    return 0;
}

/* ---- integers ---- */

static struct row *int_bound(struct plan *p, int64_t at)
{
    struct row *r = row_new(p->a, 1);

    r->v[0].state = VALUE_SET;
    r->v[0].data = arena_printf(p->a, "%" PRId64, at);
    r->v[0].len = strlen(r->v[0].data);
    return r;
}

static const char *key_name(const struct table *t)
{
    return t->columns[t->key[0]].name;
}

/* 1: both ends; 0: the table is empty. */
static int int_ends(struct plan *p, int64_t *low, int64_t *high, struct err *e)
{
    struct buf sql;
    MYSQL_RES *res;
    MYSQL_ROW row;
    int rc = 0;

    buf_init(&sql, BUF_MAX_TEXT);
    buf_adds(&sql, "SELECT min(");
    my_ident(&sql, key_name(p->t));
    buf_adds(&sql, "), max(");
    my_ident(&sql, key_name(p->t));
    buf_adds(&sql, ") FROM ");
    my_ident2(&sql, p->t->schema, p->t->name);
    res = my_query(p->db, sql.data, e);
    buf_release(&sql);
    if (!res)
        return -1;
    row = mysql_fetch_row(res);
    if (row && row[0] && row[1]) {
        *low = my_int(row[0]);
        *high = my_int(row[1]);
        rc = 1;
    }
    mysql_free_result(res);
    return rc;
}

/* Rows with low <= key < high, roughly. (With FORCE INDEX MySQL would not look and say 1.) */
static int estimate(struct plan *p, int64_t low, int64_t high, uint64_t *rows, struct err *e)
{
    struct buf sql;
    MYSQL_RES *res;
    MYSQL_FIELD *fields;
    MYSQL_ROW row;

    buf_init(&sql, BUF_MAX_TEXT);
    buf_adds(&sql, "EXPLAIN FORMAT=TRADITIONAL SELECT 1 FROM ");
    my_ident2(&sql, p->t->schema, p->t->name);
    buf_adds(&sql, " USE INDEX (PRIMARY) WHERE ");
    my_ident(&sql, key_name(p->t));
    buf_addf(&sql, " >= %" PRId64 " AND ", low);
    my_ident(&sql, key_name(p->t));
    buf_addf(&sql, " < %" PRId64, high);
    res = my_query(p->db, sql.data, e);
    buf_release(&sql);
    if (!res)
        return -1;
    *rows = 0;
    row = mysql_fetch_row(res);
    fields = mysql_fetch_fields(res);
    for (unsigned i = 0; row && i < mysql_num_fields(res); i++) {
        if (strcmp(fields[i].name, "rows") == 0 && row[i])
            *rows = (uint64_t)my_int(row[i]);
    }
    mysql_free_result(res);
    return 0;
}

/* A stack of ranges that are still to be looked at, the leftmost on top. */
static int divide(struct plan *p, int64_t low, int64_t high, struct err *e)
{
    struct {
        int64_t low;
        int64_t high;
    } left[HALVES_MAX * 2 + 2] = {{low, high}};
    size_t n = 1;

    while (n) {
        int64_t from = left[n - 1].low;
        int64_t to = left[n - 1].high;
        int64_t middle = (int64_t)((uint64_t)from + ((uint64_t)to - (uint64_t)from) / 2);
        uint64_t rows;

        n--;
        if (stop_check(e) < 0 || estimate(p, from, to, &rows, e) < 0)
            return -1;
        if (rows > p->step + p->step / 2 && middle > from && n + 2 <= HALVES_MAX * 2) {
            left[n].low = middle;
            left[n++].high = to;
            left[n].low = from;
            left[n++].high = middle;
            continue;
        }
        if (to < high && add_bound(p, int_bound(p, to), e) < 0)
            return -1;
    }
    return 0;
}

static bool is_integer_key(const struct table *t)
{
    enum type_kind kind = t->columns[t->key[0]].kind;

    return t->nkey == 1 && (kind == TYPE_INT16 || kind == TYPE_INT32 || kind == TYPE_INT64);
}

/* 1: the key is the primary key, whose pages the rows lie in; 0: another unique index; -1. */
static int is_primary(struct plan *p, struct err *e)
{
    struct buf sql;
    MYSQL_RES *res;
    MYSQL_ROW row;
    int rc;

    buf_init(&sql, BUF_MAX_TEXT);
    buf_adds(&sql, "SELECT count(*) = 1 AND min(COLUMN_NAME) = ");
    my_literal(&sql, key_name(p->t), strlen(key_name(p->t)));
    buf_adds(&sql, " FROM information_schema.STATISTICS WHERE INDEX_NAME = 'PRIMARY'"
                   " AND TABLE_SCHEMA = ");
    my_literal(&sql, p->t->schema, strlen(p->t->schema));
    buf_adds(&sql, " AND TABLE_NAME = ");
    my_literal(&sql, p->t->name, strlen(p->t->name));
    res = my_query(p->db, sql.data, e);
    buf_release(&sql);
    if (!res)
        return -1;
    row = mysql_fetch_row(res);
    rc = row && my_int(row[0]);
    mysql_free_result(res);
    return rc;
}

static int by_halves(struct plan *p, struct err *e)
{
    int64_t low;
    int64_t high;
    int rc = int_ends(p, &low, &high, e);

    if (rc <= 0 || low >= high)
        return rc < 0 ? -1 : 0;
    return divide(p, low, high, e);
}

/* ---- any other key ---- */

/* 1: the key that is `step` behind `from` (NULL: the first); 0: there is none. */
static int next_bound(struct plan *p, const struct row *from, struct row **out, struct err *e)
{
    struct range range = {.kind = RANGE_KEY, .lower = from};
    struct buf sql;
    MYSQL_RES *res = NULL;
    MYSQL_ROW row;
    int rc;

    buf_init(&sql, BUF_MAX_TEXT);
    buf_adds(&sql, "SELECT ");
    my_add_key_columns(&sql, p->t, "");
    buf_adds(&sql, " FROM ");
    my_ident2(&sql, p->t->schema, p->t->name);
    rc = my_add_range(&sql, p->t, &range, e);
    buf_adds(&sql, " ORDER BY ");
    my_add_key_columns(&sql, p->t, "");
    buf_addf(&sql, " LIMIT 1 OFFSET %" PRIu64, p->step);
    if (rc == 0)
        res = my_query(p->db, sql.data, e);
    buf_release(&sql);
    if (!res)
        return -1;
    row = mysql_fetch_row(res);
    rc = row != NULL;
    *out = row_new(p->a, p->t->nkey);
    for (size_t i = 0; rc > 0 && i < p->t->nkey; i++) {
        if (my_value_read(p->a, &p->t->columns[p->t->key[i]], row[i], mysql_fetch_lengths(res)[i],
                          &(*out)->v[i], e) < 0)
            rc = -1;
    }
    mysql_free_result(res);
    return rc;
}

static int by_steps(struct plan *p, struct err *e)
{
    int timeout_ms = p->db->timeout_ms;
    struct row *at = NULL;
    int rc;

    if (timeout_ms < STEP_TIMEOUT_MS)
        p->db->timeout_ms = STEP_TIMEOUT_MS;
    do {
        rc = next_bound(p, at, &at, e);
        if (rc > 0 && add_bound(p, at, e) < 0)
            rc = -1;
    } while (rc > 0);
    p->db->timeout_ms = timeout_ms;
    return rc;
}

/* ---- all ---- */

static void ranges_between(struct plan *p, struct range_list *out)
{
    out->n = p->n + 1;
    out->v = arena_zalloc(p->a, out->n * sizeof(*out->v));
    for (size_t i = 0; i < out->n; i++) {
        out->v[i].kind = p->t->nkey ? RANGE_KEY : RANGE_ALL;
        out->v[i].block_to = UINT64_MAX;
        out->v[i].lower = i ? p->bounds[i - 1] : NULL;
        out->v[i].upper = i < p->n ? p->bounds[i] : NULL;
    }
}

int my_chunk_plan(struct db *base, const struct table *t, uint64_t bytes, bool by_blocks,
                  struct arena *a, struct range_list *out, struct err *e)
{
    struct plan p = {.db = my_db_from(base), .t = t, .a = a};
    uint64_t size;
    uint64_t rows;
    uint64_t chunks;
    int rc = 0;

    invariant(bytes > 0);
    if (read_size(p.db, t, &size, &rows, e) < 0)
        return err_wrap(e, "planning the chunks of %s", table_label(t));
    chunks = (size + bytes - 1) / bytes;
    if (chunks > CHUNKS_MAX / 2)
        chunks = CHUNKS_MAX / 2;
    p.bounds = calloc(CHUNKS_MAX, sizeof(struct row *));
    invariant(p.bounds != NULL);
    p.step = chunks ? rows / chunks : 0;
    if (chunks > 1 && p.step > 0 && my_key_divides(t)) {
        rc = is_integer_key(t) ? is_primary(&p, e) : 0;
        if (rc >= 0)
            rc = rc ? by_halves(&p, e) : by_steps(&p, e);
    }
    if (rc == 0)
        ranges_between(&p, out);
    free(p.bounds);
    return rc < 0 ? err_wrap(e, "planning the chunks of %s", table_label(t)) : 0;
}
