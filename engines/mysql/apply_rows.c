/* Many changes one by one, in source order, many to a message.
 *
 * This engine checks unique keys at each row, and cannot defer them; the source may have checked
 * at the end of a statement or of the transaction. So a value that two rows swap, or that each
 * hands on to the next, is met here as a duplicate. Then the rows that this source transaction has
 * yet to update or delete are taken off the table ("parked": read and deleted), the refused change
 * is tried again, and each parked row comes back with the change it was parked for: an update as an
 * INSERT of what the row then is, a delete as nothing more. What is still refused is a divergence.
 * Each parked row must have been there once, and none may be left at the end of its transaction. */
#include "core/run.h"
#include "engines/mysql/apply.h"
#include "engines/mysql/range.h"
#include "engines/mysql/values.h"

#include <stdlib.h>
#include <string.h>

#define BATCH_ROWS 256
#define BATCH_BYTES ((size_t)512 * 1024)
#define ER_DUP_ENTRY 1062

struct parked {
    const struct table *table;
    const struct row *key;
    struct row *row; /* full; NULL: came back */
};

struct walk {
    struct my_db *db;
    const struct change *const *changes;
    size_t n;
    uint64_t *affected;
    size_t done;
    struct arena a; /* keys and rows that are parked */
    struct parked *parked;
    size_t nparked;
};

/* ---- parking ---- */

static struct parked *find_parked(struct walk *w, const struct change *c)
{
    const struct row *key;

    if (!w->nparked || !c->table->nkey || c->op == OP_INSERT)
        return NULL;
    key = change_old_key(&w->a, c);
    for (size_t i = 0; i < w->nparked; i++) {
        if (w->parked[i].row && w->parked[i].table == c->table && row_equal(w->parked[i].key, key))
            return &w->parked[i];
    }
    return NULL;
}

/* The row with the key as it is; *out NULL: there is none. */
static int read_row(struct walk *w, const struct table *there, const struct row *key,
                    struct row **out, struct err *e)
{
    MYSQL_RES *res = NULL;
    MYSQL_ROW row;
    struct buf sql;
    int rc;

    *out = NULL;
    buf_init(&sql, BUF_MAX_TEXT);
    buf_adds(&sql, "SELECT ");
    my_add_selects(&sql, there);
    buf_adds(&sql, " FROM ");
    my_ident2(&sql, there->schema, there->name);
    buf_adds(&sql, " WHERE ");
    rc = my_add_key_equal(&sql, there, key, e);
    buf_adds(&sql, " FOR UPDATE");
    if (rc == 0)
        res = my_query(w->db, sql.data, e);
    buf_release(&sql);
    row = res ? mysql_fetch_row(res) : NULL;
    if (row)
        rc = my_row_read(&w->a, there, row, mysql_fetch_lengths(res), false, out, e);
    mysql_free_result(res);
    return res ? rc : -1;
}

static int delete_row(struct walk *w, const struct table *there, const struct row *key,
                      struct err *e)
{
    uint64_t n = 0;
    struct buf sql;
    int rc;

    buf_init(&sql, BUF_MAX_TEXT);
    buf_adds(&sql, "DELETE FROM ");
    my_ident2(&sql, there->schema, there->name);
    buf_adds(&sql, " WHERE ");
    rc = my_add_key_equal(&sql, there, key, e);
    if (rc == 0)
        rc = my_exec(w->db, sql.data, sql.len, &n, e);
    buf_release(&sql);
    if (rc == 0 && n != 1)
        rc = err_set(e, ERR_CONFLICT, "%s: met %llu rows instead of 1", table_label(there),
                     (unsigned long long)n);
    return rc;
}

/* The row that a later change of the transaction will find, unless one in between makes it. */
static int park(struct walk *w, const struct change *c, struct err *e)
{
    const struct table *there = table_there(c->table);
    const struct row *key;
    struct row *row;

    if ((c->op != OP_UPDATE && c->op != OP_DELETE) || !c->table->nkey || find_parked(w, c))
        return 0;
    key = change_old_key(&w->a, c);
    if (read_row(w, there, key, &row, e) < 0)
        return -1;
    if (!row)
        return 0;
    if (delete_row(w, there, key, e) < 0)
        return -1;
    w->parked[w->nparked++] = (struct parked){.table = c->table, .key = key, .row = row};
    return 0;
}

/* Ordinals rise within a transaction. */
static bool same_transaction(const struct walk *w, size_t i)
{
    return i > 0 && w->changes[i]->ordinal > w->changes[i - 1]->ordinal;
}

/* A parked row comes back as what its change makes of it. */
static int unpark(struct walk *w, struct parked *p, const struct change *c, uint64_t *affected,
                  struct err *e)
{
    struct row *row = p->row;
    struct change back = {.op = OP_INSERT, .table = c->table, .after = row};

    p->row = NULL;
    *affected = 1;
    if (c->op == OP_DELETE)
        return 0;
    for (size_t i = 0; i < row->n; i++) {
        if (c->after->v[i].state != VALUE_UNCHANGED)
            row->v[i] = c->after->v[i];
    }
    return my_change_run(w->db, &back, affected, e);
}

static int run_change(struct walk *w, const struct change *c, uint64_t *affected, struct err *e)
{
    struct parked *p = find_parked(w, c);

    return p ? unpark(w, p, c, affected, e) : my_change_run(w->db, c, affected, e);
}

/* The change `done` was refused as a duplicate: the rest of its transaction goes by way of the
 * parking place. */
static int run_swapping(struct walk *w, struct err *e)
{
    size_t end = w->done + 1;
    int rc = 0;

    while (end < w->n && same_transaction(w, end))
        end++;
    arena_reset(&w->a);
    w->nparked = 0;
    w->parked = arena_alloc(&w->a, (end - w->done) * sizeof(*w->parked));
    for (size_t i = w->done + 1; rc == 0 && i < end; i++) {
        if (w->changes[i]->table == w->changes[w->done]->table)
            rc = park(w, w->changes[i], e);
    }
    while (rc == 0 && w->done < end) {
        rc = run_change(w, w->changes[w->done], &w->affected[w->done], e);
        w->done += rc == 0;
    }
    for (size_t i = 0; rc == 0 && i < w->nparked; i++) {
        if (w->parked[i].row)
            rc = err_set(e, ERR_CONFLICT,
                         "%s: a row was changed twice by one transaction in a way"
                         " that does not lead back",
                         table_label(w->parked[i].table));
    }
    w->nparked = 0;
    return rc;
}

/* ---- batches ---- */

/* Statements of the changes from `done` on. An error belongs to the change behind those. */
static size_t build(struct walk *w, struct buf *sql, int *rc, struct err *e)
{
    size_t limit = w->db->max_packet / 2 < BATCH_BYTES ? w->db->max_packet / 2 : BATCH_BYTES;
    size_t n = 0;

    *rc = 0;
    buf_reset(sql, 2 * BATCH_BYTES);
    while (w->done + n < w->n && n < BATCH_ROWS) {
        const struct change *c = w->changes[w->done + n];
        size_t before = sql->len;
        bool counts = false;

        if (n && sql->len + 2 * change_bytes(c) > limit)
            break;
        buf_adds(sql, n ? ";" : "");
        if (change_bytes(c) > LARGE_ROW || (*rc = my_statement_of(sql, c, &counts, e)) < 0 ||
            counts) {
            sql->len = before;
            break;
        }
        n++;
    }
    return n;
}

static bool is_duplicate(const struct walk *w, const struct err *e)
{
    return e->class == ERR_CONFLICT && !w->db->broken && mysql_errno(w->db->conn) == ER_DUP_ENTRY;
}

static int step(struct walk *w, struct buf *sql, struct err *e)
{
    size_t ran = 0;
    int built;
    size_t n = build(w, sql, &built, e);
    int rc = buf_check(sql, "a batch of changes", e);

    if (rc == 0 && n) {
        rc = my_exec_each(w->db, sql->data, sql->len, &w->affected[w->done], n, &ran, e);
        w->done += ran < n ? ran : n;
    } else if (rc == 0 && built == 0) {
        rc = my_change_run(w->db, w->changes[w->done], &w->affected[w->done], e);
        w->done += rc == 0;
    } else {
        rc = -1;
    }
    if (rc < 0 && w->done < w->n && is_duplicate(w, e)) {
        err_clear(e);
        rc = run_swapping(w, e);
    }
    return rc;
}

int my_apply_rows(struct db *base, const struct change *const *changes, size_t n,
                  uint64_t *affected, size_t *failed, struct err *e)
{
    struct walk w = {.db = my_db_from(base), .changes = changes, .n = n, .affected = affected};
    struct err own = {0};
    int timeout_ms = w.db->timeout_ms;
    struct buf sql;
    int rc = 0;

    if (!e)
        e = &own;
    buf_init(&sql, BUF_MAX_ROW);
    if (timeout_ms < DB_WHOLE_TABLE_MS && changes_scan(changes, n))
        w.db->timeout_ms = DB_WHOLE_TABLE_MS;
    while (rc == 0 && w.done < n && (rc = stop_check(e)) == 0)
        rc = step(&w, &sql, e);
    if (rc < 0 && w.done < n)
        err_wrap(e, "%s of %s", change_op_name(changes[w.done]->op),
                 table_label(changes[w.done]->table));
    *failed = w.done;
    w.db->timeout_ms = timeout_ms;
    buf_release(&sql);
    arena_release(&w.a);
    return rc;
}
