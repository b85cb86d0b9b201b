/* Changes of one kind to one table, as statements over many rows, each as long as the server takes.
 *
 * The rows stand in a derived table that is read first (STRAIGHT_JOIN), and the target's rows are
 * found by its key, whatever the optimizer thinks of a table that was just loaded
 * (max_seeks_for_key). A column that
 * this server would set by itself (ON UPDATE CURRENT_TIMESTAMP) is set to what it is. */
#include "core/run.h"
#include "engines/mysql/apply.h"
#include "engines/mysql/tuples.h"
#include "engines/mysql/values.h"

#include <stdlib.h>
#include <string.h>

#define STATEMENT_BYTES ((size_t)1024 * 1024)

struct plan {
    struct my_db *db;
    const struct change_set *s;
    const struct table *there;
    size_t *columns; /* of a tuple: the key's first, then the written ones */
    size_t n;
};

static bool written(const struct change_set *s, const struct table *there, size_t i)
{
    return s->op == SET_UPDATE && s->columns[i] && !there->columns[i].generated &&
           !there->columns[i].key;
}

static void plan_columns(struct plan *p)
{
    const struct table *there = p->there;

    p->columns = calloc(there->nkey + there->ncolumns + 1, sizeof(*p->columns));
    invariant(p->columns != NULL);
    for (size_t i = 0; i < there->nkey; i++)
        p->columns[p->n++] = there->key[i];
    for (size_t i = 0; i < there->ncolumns; i++) {
        if (written(p->s, there, i))
            p->columns[p->n++] = i;
    }
}

/* By its full name everywhere: MariaDB looks for an alias that rows are deleted from in the
 * session's database, and there is none. */
static void add_target(struct buf *b, const struct plan *p, const char *before, const char *after)
{
    buf_adds(b, before);
    my_ident2(b, p->there->schema, p->there->name);
    buf_adds(b, after);
}

static void add_target_column(struct buf *b, const struct plan *p, const char *before, size_t i)
{
    add_target(b, p, before, ".");
    my_ident(b, p->there->columns[i].name);
}

static void add_head(struct buf *b, const struct plan *p)
{
    bool update = p->n > p->there->nkey;

    if (p->s->op == SET_INSERT) {
        add_target(b, p, "INSERT INTO ", " (");
        my_add_columns(b, p->there, "");
        buf_adds(b, ") VALUES ");
        return;
    }
    if (p->s->op == SET_DELETE)
        add_target(b, p, "DELETE ", " FROM ");
    else
        buf_adds(b, update ? "UPDATE " : "SELECT count(*) FROM ");
    my_tuples_open(b, p->there, p->columns, p->n, false);
}

static void add_sets(struct buf *b, const struct plan *p)
{
    for (size_t i = p->there->nkey; i < p->n; i++) {
        add_target_column(b, p, i == p->there->nkey ? " SET " : ", ", p->columns[i]);
        buf_addf(b, " = " MY_TUPLES ".c%zu", i);
    }
    for (size_t i = 0; i < p->there->ncolumns && p->n > p->there->nkey; i++) {
        if (!written(p->s, p->there, i) && my_sets_itself(&p->there->columns[i])) {
            add_target_column(b, p, ", ", i);
            add_target_column(b, p, " = ", i);
        }
    }
}

static void add_tail(struct buf *b, const struct plan *p)
{
    if (p->s->op == SET_INSERT)
        return;
    my_tuples_close(b);
    add_target(b, p, " STRAIGHT_JOIN ", " ON ");
    for (size_t i = 0; i < p->there->nkey; i++) {
        add_target_column(b, p, i ? " AND " : "", p->columns[i]);
        buf_addf(b, " = " MY_TUPLES ".c%zu", i);
    }
    if (p->s->op == SET_UPDATE)
        add_sets(b, p);
}

static int add_tuple(struct buf *b, const struct plan *p, size_t row, bool first, struct err *e)
{
    const struct change_set *s = p->s;

    if (s->op == SET_INSERT) {
        buf_adds(b, first ? "" : ",");
        return my_add_tuple(b, p->there, s->rows[row], e);
    }
    my_tuple_open(b, p->db, first);
    for (size_t i = 0; i < p->n; i++) {
        const struct value *v =
            i < p->there->nkey ? &s->keys[row]->v[i] : &s->rows[row]->v[p->columns[i]];

        buf_adds(b, i ? "," : "");
        if (my_value_literal(b, &p->there->columns[p->columns[i]], v, e) < 0)
            return -1;
    }
    my_tuple_close(b);
    return 0;
}

static int run(const struct plan *p, struct buf *sql, uint64_t *affected, struct err *e)
{
    uint64_t n = 0;
    MYSQL_RES *res;
    MYSQL_ROW row;

    add_tail(sql, p);
    if (buf_check(sql, "a batch of changes", e) < 0)
        return -1;
    p->db->large |= sql->len > 4 * LARGE_ROW;
    if (strncmp(sql->data, "SELECT", 6) != 0) {
        if (my_exec(p->db, sql->data, sql->len, &n, e) < 0)
            return -1;
        *affected += n;
        return 0;
    }
    res = my_query(p->db, sql->data, e);
    row = res ? mysql_fetch_row(res) : NULL;
    *affected += row ? (uint64_t)my_int(row[0]) : 0;
    mysql_free_result(res);
    return res ? 0 : -1;
}

static size_t row_weight(const struct change_set *s, size_t i)
{
    return 2 * ((s->keys ? row_bytes(s->keys[i]) : 0) + (s->rows ? row_bytes(s->rows[i]) : 0));
}

static int run_all(const struct plan *p, uint64_t *affected, struct err *e)
{
    size_t limit =
        p->db->max_packet / 2 < STATEMENT_BYTES ? p->db->max_packet / 2 : STATEMENT_BYTES;
    struct buf sql;
    int rc = 0;

    buf_init(&sql, BUF_MAX_ROW);
    for (size_t i = 0; i < p->s->n && rc == 0;) {
        bool first = true;

        buf_reset(&sql, 2 * STATEMENT_BYTES);
        add_head(&sql, p);
        while (rc == 0 && i < p->s->n && (first || sql.len + row_weight(p->s, i) < limit)) {
            rc = add_tuple(&sql, p, i++, first, e);
            first = false;
        }
        if (rc == 0)
            rc = run(p, &sql, affected, e);
    }
    buf_release(&sql);
    return rc;
}

/* Once a connection: an index look-up for each row is what we mean. */
static int prefer_keys(struct my_db *db, struct err *e)
{
    if (db->apply.data)
        return 0;
    if (my_execf(db, e, "SET SESSION max_seeks_for_key = 1") < 0)
        return -1;
    db->apply = (struct my_slot){.data = malloc(1), .release = free};
    return 0;
}

int my_apply_set(struct db *base, const struct change_set *s, uint64_t *affected, struct err *e)
{
    static const char *const doing[] = {"inserting into", "updating", "deleting from",
                                        "looking for keys in"};
    struct plan p = {.db = my_db_from(base), .s = s, .there = table_there(s->table)};
    int rc;

    invariant(s->op == SET_INSERT || s->table->nkey > 0);
    *affected = 0;
    if (s->n == 0)
        return 0;
    plan_columns(&p);
    rc = prefer_keys(p.db, e);
    if (rc == 0)
        rc = run_all(&p, affected, e);
    free(p.columns);
    return rc < 0 ? err_wrap(e, "%s %s (%zu rows)", doing[s->op], table_label(p.there), s->n) : 0;
}
