/* One change as it was, in source order: what apply falls back to when a set meets a conflict, and
 * the way of tables without a key.
 *
 * A table without a key finds its row by all columns. Equal is then what the bytes say, not what a
 * collation takes for equal, and exactly one of the equal rows is met (LIMIT 1). */
#include "core/run.h"
#include "engines/mysql/apply.h"
#include "engines/mysql/range.h"
#include "engines/mysql/values.h"

#include <stdlib.h>
#include <string.h>

bool my_sets_itself(const struct column *c)
{
    return !c->generated && (c->kind == TYPE_TIMESTAMP || c->kind == TYPE_TIMESTAMPTZ);
}

static int add_same(struct buf *b, const struct column *c, const struct value *v, struct err *e)
{
    bool text = c->kind == TYPE_TEXT || c->kind == TYPE_ENUM || c->kind == TYPE_JSON;
    bool json = c->kind == TYPE_JSON && my_type_is(c, "json");

    if (json || !text || v->state == VALUE_NULL) {
        my_ident(b, c->name);
        buf_adds(b, json && v->state == VALUE_SET ? " <=> CAST(" : " <=> ");
        if (my_value_literal(b, c, v, e) < 0)
            return -1;
        buf_adds(b, json && v->state == VALUE_SET ? " AS JSON)" : "");
        return 0;
    }
    buf_adds(b, "CAST(");
    my_ident(b, c->name);
    buf_adds(b, " AS BINARY) <=> CAST(");
    if (my_value_literal(b, c, v, e) < 0)
        return -1;
    buf_adds(b, " AS BINARY)");
    return 0;
}

static int add_which(struct buf *b, const struct change *c, const struct table *there,
                     struct err *e)
{
    struct arena a = ARENA_INIT;
    struct row *old = change_old_key(&a, c);
    bool first = true;
    int rc = 0;

    buf_adds(b, " WHERE ");
    if (there->nkey)
        rc = my_add_key_equal(b, there, old, e);
    for (size_t i = 0; rc == 0 && !there->nkey && i < there->ncolumns; i++) {
        if (there->columns[i].generated || old->v[i].state == VALUE_UNCHANGED)
            continue;
        buf_adds(b, first ? "" : " AND ");
        first = false;
        rc = add_same(b, &there->columns[i], &old->v[i], e);
    }
    if (!there->nkey)
        buf_adds(b, first ? "TRUE LIMIT 1" : " LIMIT 1");
    arena_release(&a);
    return rc;
}

static bool sent(const struct change *c, const struct table *there, size_t i)
{
    return !there->columns[i].generated && c->after->v[i].state != VALUE_UNCHANGED;
}

static int add_update(struct buf *b, const struct change *c, const struct table *there,
                      bool *counts, struct err *e)
{
    bool first = true;

    for (size_t i = 0; i < there->ncolumns; i++)
        first = first && !sent(c, there, i);
    *counts = first;
    buf_adds(b, first ? "SELECT count(*) FROM " : "UPDATE ");
    my_ident2(b, there->schema, there->name);
    if (first)
        return add_which(b, c, there, e);
    for (size_t i = 0; i < there->ncolumns; i++) {
        if (!sent(c, there, i) && !my_sets_itself(&there->columns[i]))
            continue;
        buf_adds(b, first ? ", " : " SET ");
        first = true;
        my_ident(b, there->columns[i].name);
        buf_adds(b, " = ");
        if (!sent(c, there, i))
            my_ident(b, there->columns[i].name);
        else if (my_value_literal(b, &there->columns[i], &c->after->v[i], e) < 0)
            return -1;
    }
    return add_which(b, c, there, e);
}

int my_statement_of(struct buf *b, const struct change *c, bool *counts, struct err *e)
{
    const struct table *there = table_there(c->table);

    *counts = false;
    switch (c->op) {
    case OP_INSERT:
        buf_adds(b, "INSERT INTO ");
        my_ident2(b, there->schema, there->name);
        buf_adds(b, " (");
        my_add_columns(b, there, "");
        buf_adds(b, ") VALUES ");
        return my_add_tuple(b, there, c->after, e);
    case OP_UPDATE:
        return add_update(b, c, there, counts, e);
    case OP_DELETE:
        buf_adds(b, "DELETE FROM ");
        my_ident2(b, there->schema, there->name);
        return add_which(b, c, there, e);
    case OP_TRUNCATE:
        break;
    }
    return err_set(e, ERR_BUG, "a TRUNCATE is not a change of a row");
}

static int run(struct my_db *db, const struct buf *sql, bool counts, uint64_t *affected,
               struct err *e)
{
    MYSQL_RES *res;
    MYSQL_ROW row;

    if (!counts)
        return my_exec(db, sql->data, sql->len, affected, e);
    res = my_query(db, sql->data, e);
    row = res ? mysql_fetch_row(res) : NULL;
    *affected = row ? (uint64_t)my_int(row[0]) : 0;
    mysql_free_result(res);
    return res ? 0 : -1;
}

int my_change_run(struct my_db *db, const struct change *c, uint64_t *affected, struct err *e)
{
    bool large = change_bytes(c) > LARGE_ROW;
    bool counts;
    struct buf sql;
    int rc;

    *affected = 0;
    if (large)
        large_row_enter();
    db->large |= large;
    buf_init(&sql, BUF_MAX_ROW);
    rc = my_statement_of(&sql, c, &counts, e);
    if (rc == 0)
        rc = buf_check(&sql, "a statement", e);
    if (rc == 0)
        rc = run(db, &sql, counts, affected, e);
    buf_release(&sql);
    if (large) {
        memory_trim();
        large_row_leave();
    }
    return rc < 0 ? err_wrap(e, "%s of %s", change_op_name(c->op), table_label(c->table)) : 0;
}

int my_apply_row(struct db *base, const struct change *c, uint64_t *affected, struct err *e)
{
    struct my_db *db = my_db_from(base);
    int timeout_ms = db->timeout_ms;
    int rc;

    if (timeout_ms < DB_WHOLE_TABLE_MS && changes_scan(&c, 1))
        db->timeout_ms = DB_WHOLE_TABLE_MS;
    rc = my_change_run(db, c, affected, e);
    db->timeout_ms = timeout_ms;
    return rc;
}
