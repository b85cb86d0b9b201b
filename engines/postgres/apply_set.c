/* Changes of one kind to one table, as one statement over arrays.
 *
 * Parameter and column numbers go together: the key's values come first (c0 … ), then the written
 * columns'. Values are typed without their typmod, so that a cast never cuts or rounds: the
 * column's own assignment then judges them. An identity column that is GENERATED ALWAYS cannot be
 * updated; there its value becomes a condition, so that a change of it is met by one row too few.
 */
#include "engines/postgres/apply.h"
#include "engines/postgres/values.h"

#include "core/run.h"

#include <stdlib.h>
#include <string.h>

/* Arrays keep so much memory between sets. */
#define KEEP_BYTES ((size_t)64 * 1024)

/* One parameter: which column's values, out of which rows. */
struct param {
    size_t column;
    bool from_key; /* keys[i]->v[key_at] instead of rows[i]->v[column] */
    size_t key_at;
};

struct plan {
    const struct change_set *s;
    size_t n;
    struct param *params;
};

static bool written(const struct change_set *s, size_t column)
{
    if (s->table->columns[column].generated)
        return false;
    return s->op == SET_INSERT || (s->op == SET_UPDATE && s->columns[column]);
}

static void plan_params(struct plan *p, const struct change_set *s)
{
    const struct table *t = s->table;

    p->s = s;
    p->n = 0;
    p->params = calloc(t->nkey + t->ncolumns + 1, sizeof(*p->params));
    invariant(p->params != NULL);
    for (size_t i = 0; i < t->nkey && s->op != SET_INSERT; i++)
        p->params[p->n++] = (struct param){.column = t->key[i], .from_key = true, .key_at = i};
    for (size_t i = 0; i < t->ncolumns; i++) {
        if (written(s, i))
            p->params[p->n++] = (struct param){.column = i};
    }
}

static const struct column *column_of(const struct plan *p, size_t number)
{
    return &p->s->table->columns[p->params[number].column];
}

/* ---- the statement ---- */

static void add_unnest(struct buf *b, const struct plan *p)
{
    buf_adds(b, "unnest(");
    for (size_t i = 0; i < p->n; i++) {
        buf_addf(b, "%s$%zu::", i ? ", " : "", i + 1);
        pg_array_type(b, column_of(p, i));
    }
    buf_adds(b, ") AS u(");
    for (size_t i = 0; i < p->n; i++)
        buf_addf(b, "%sc%zu", i ? ", " : "", i);
    buf_addc(b, ')');
}

static void add_where(struct buf *b, const struct plan *p)
{
    bool first = true;

    for (size_t i = 0; i < p->n; i++) {
        const struct column *c = column_of(p, i);

        if (!p->params[i].from_key && !c->identity_always)
            continue;
        buf_adds(b, first ? " WHERE t." : " AND t.");
        first = false;
        pg_ident(b, c->name);
        buf_adds(b, p->params[i].from_key ? " = " : " IS NOT DISTINCT FROM ");
        pg_array_item(b, c, "u", i);
    }
}

static void add_insert(struct buf *b, const struct plan *p)
{
    buf_adds(b, "INSERT INTO ");
    pg_ident2(b, p->s->table->schema, p->s->table->name);
    buf_adds(b, " (");
    pg_add_columns(b, p->s->table, "");
    buf_adds(b, ") OVERRIDING SYSTEM VALUE SELECT ");
    for (size_t i = 0; i < p->n; i++) {
        buf_adds(b, i ? ", " : "");
        pg_array_item(b, column_of(p, i), "u", i);
    }
    buf_adds(b, " FROM ");
    add_unnest(b, p);
}

static void add_count(struct buf *b, const struct plan *p)
{
    buf_adds(b, "SELECT count(*) FROM ONLY ");
    pg_ident2(b, p->s->table->schema, p->s->table->name);
    buf_adds(b, " AS t, ");
    add_unnest(b, p);
    add_where(b, p);
}

static void add_delete(struct buf *b, const struct plan *p)
{
    buf_adds(b, "DELETE FROM ONLY ");
    pg_ident2(b, p->s->table->schema, p->s->table->name);
    buf_adds(b, " AS t USING ");
    add_unnest(b, p);
    add_where(b, p);
}

static void add_update(struct buf *b, const struct plan *p)
{
    bool first = true;

    buf_adds(b, "UPDATE ONLY ");
    pg_ident2(b, p->s->table->schema, p->s->table->name);
    buf_adds(b, " AS t SET ");
    for (size_t i = 0; i < p->n; i++) {
        const struct column *c = column_of(p, i);

        if (p->params[i].from_key || c->identity_always)
            continue;
        buf_adds(b, first ? "" : ", ");
        first = false;
        pg_ident(b, c->name);
        buf_adds(b, " = ");
        pg_array_item(b, c, "u", i);
    }
    if (first) { /* nothing that may be set: only the conditions are left to check */
        buf_reset(b, BUF_MAX_TEXT);
        add_count(b, p);
        return;
    }
    buf_adds(b, " FROM ");
    add_unnest(b, p);
    add_where(b, p);
}

static void add_statement(struct buf *b, const struct plan *p)
{
    switch (p->s->op) {
    case SET_INSERT:
        add_insert(b, p);
        return;
    case SET_UPDATE:
        add_update(b, p);
        return;
    case SET_DELETE:
        add_delete(b, p);
        return;
    case SET_ABSENT:
        add_count(b, p);
        return;
    }
}

/* ---- the values ---- */

static struct buf *arrays(struct pg_apply *state, size_t n)
{
    if (n > state->narrays) {
        state->arrays = realloc(state->arrays, n * sizeof(*state->arrays));
        invariant(state->arrays != NULL);
        for (size_t i = state->narrays; i < n; i++)
            buf_init(&state->arrays[i], BUF_MAX_TEXT);
        state->narrays = n;
    }
    return state->arrays;
}

static void fill(struct buf *b, const struct plan *p, size_t number)
{
    const struct param *param = &p->params[number];
    const struct column *c = column_of(p, number);

    buf_reset(b, KEEP_BYTES);
    pg_array_open(b);
    for (size_t i = 0; i < p->s->n; i++)
        pg_array_add(b, c,
                     param->from_key ? &p->s->keys[i]->v[param->key_at]
                                     : &p->s->rows[i]->v[param->column]);
    pg_array_close(b);
}

static int run(struct pg_db *db, const struct plan *p, uint64_t *affected, struct err *e)
{
    struct pg_apply *state = pg_apply_state(db);
    struct buf *b = arrays(state, p->n);
    const char **values = calloc(p->n + 1, sizeof(*values));
    struct pg_params params = {.n = (int)p->n, .values = values};
    PGresult *res = NULL;
    size_t bytes = 0;
    int rc = 0;

    invariant(values != NULL);
    for (size_t i = 0; i < p->n && rc == 0; i++) {
        fill(&b[i], p, i);
        rc = buf_check(&b[i], "a batch of changes", e);
        values[i] = b[i].data;
        bytes += b[i].len;
    }
    /* libpq keeps a buffer as large as the largest batch. */
    db->large |= bytes > 4 * LARGE_ROW;
    if (rc == 0)
        res = pg_apply_exec(db, state->sql.data, &params, true, e);
    if (res)
        *affected = pg_apply_count(res);
    PQclear(res);
    /* The state may be gone with a lost connection, but not before close(). */
    for (size_t i = 0; i < p->n; i++)
        buf_reset(&b[i], KEEP_BYTES);
    free(values);
    return res ? 0 : -1;
}

int pg_apply_set(struct db *base, const struct change_set *s, uint64_t *affected, struct err *e)
{
    static const char *const doing[] = {"inserting into", "updating", "deleting from",
                                        "looking for keys in"};
    struct pg_db *db = pg_db_from(base);
    struct pg_apply *state = pg_apply_state(db);
    struct change_set there = *s;
    struct plan plan;
    int rc;

    invariant(s->op == SET_INSERT || s->table->nkey > 0);
    *affected = 0;
    if (s->n == 0)
        return 0;
    there.table = table_there(s->table);
    plan_params(&plan, &there);
    buf_reset(&state->sql, KEEP_BYTES);
    add_statement(&state->sql, &plan);
    rc = buf_check(&state->sql, "a statement", e);
    if (rc == 0 && s->rows)
        rc = pg_form_check(s->table, s->rows, s->n, e);
    if (rc == 0)
        rc = run(db, &plan, affected, e);
    free(plan.params);
    return rc < 0 ? err_wrap(e, "%s %s (%zu rows)", doing[s->op], table_label(s->table), s->n) : 0;
}
