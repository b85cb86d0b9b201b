/* One change as it was, in source order: what apply falls back to when a set meets a conflict, and
 * the way of tables without a key.
 *
 * Values are parameters of the column's type without its typmod. Raw bytes and text go in binary
 * format, so that a large value is neither copied nor turned into hex here.
 *
 * A table without a key finds its row by all columns. Equal is then what the text says: 1.0
 * and 1.00 are one number to "=", but two rows, and the wrong one must not go. */
#include "engines/postgres/apply.h"
#include "engines/postgres/values.h"

#include "core/run.h"

#include <stdlib.h>
#include <string.h>

#define PARAMS_MAX 3400 /* 2 * 1600 columns and some */
#define SHOWN_MAX 60    /* bytes of a value in a message */

void pg_statement_init(struct pg_statement *st)
{
    memset(st, 0, sizeof(*st));
    buf_init(&st->sql, BUF_MAX_TEXT);
    st->values = calloc(PARAMS_MAX, sizeof(*st->values));
    st->lengths = calloc(PARAMS_MAX, sizeof(*st->lengths));
    st->formats = calloc(PARAMS_MAX, sizeof(*st->formats));
    invariant(st->values && st->lengths && st->formats);
}

void pg_statement_release(struct pg_statement *st)
{
    arena_release(&st->a);
    buf_release(&st->sql);
    free(st->values);
    free(st->lengths);
    free(st->formats);
}

static void reset(struct pg_statement *st)
{
    size_t n = (size_t)st->n;

    arena_reset(&st->a);
    buf_reset(&st->sql, BUF_MAX_TEXT);
    memset(st->values, 0, n * sizeof(*st->values));
    memset(st->lengths, 0, n * sizeof(*st->lengths));
    memset(st->formats, 0, n * sizeof(*st->formats));
    st->n = 0;
    st->bytes = 0;
    st->keep = true;
}

/* The types whose binary form is the value as we have it. */
static bool is_raw(const struct column *c)
{
    if (c->kind == TYPE_BYTES)
        return true;
    return c->kind == TYPE_TEXT || (c->kind == TYPE_JSON && strcmp(c->cast_type, "json") == 0);
}

/* "$n::type", with its value. */
static void add_param(struct pg_statement *st, const struct column *c, const struct value *v)
{
    invariant(st->n < PARAMS_MAX && v->state != VALUE_UNCHANGED);
    buf_addf(&st->sql, "$%d::%s", st->n + 1, c->cast_type);
    if (v->state == VALUE_SET) {
        bool raw = is_raw(c);

        if (v->len == 0)
            st->values[st->n] = "";
        else
            st->values[st->n] = raw ? v->data : arena_strndup(&st->a, v->data, v->len);
        st->lengths[st->n] = (int)v->len;
        st->formats[st->n] = raw;
        st->bytes += v->len;
    }
    st->n++;
}

static void add_table(struct pg_statement *st, const char *verb, const struct table *t)
{
    buf_adds(&st->sql, verb);
    pg_ident2(&st->sql, t->schema, t->name);
}

/* ---- which row ---- */

static void add_key(struct pg_statement *st, const struct table *t, const struct row *key)
{
    for (size_t i = 0; i < t->nkey; i++) {
        const struct column *c = &t->columns[t->key[i]];

        buf_adds(&st->sql, i ? " AND " : " WHERE ");
        pg_ident(&st->sql, c->name);
        buf_adds(&st->sql, " = ");
        add_param(st, c, &key->v[i]);
    }
}

/* Is "=" of this type the same as "the same text"? */
static bool equals_exactly(const struct column *c)
{
    switch (c->kind) {
    case TYPE_BOOL:
    case TYPE_INT16:
    case TYPE_INT32:
    case TYPE_INT64:
    case TYPE_BYTES:
    case TYPE_DATE:
    case TYPE_TIME:
    case TYPE_TIMESTAMP:
    case TYPE_TIMESTAMPTZ:
    case TYPE_UUID:
    case TYPE_ENUM:
        return true;
    default:
        return false;
    }
}

static void add_equal(struct pg_statement *st, const struct column *c, const struct value *v)
{
    pg_ident(&st->sql, c->name);
    if (v->state == VALUE_NULL) {
        buf_adds(&st->sql, " IS NULL");
        st->keep = false; /* another statement for each pattern of NULLs */
    } else if (equals_exactly(c)) {
        buf_adds(&st->sql, " = ");
        add_param(st, c, v);
    } else {
        buf_adds(&st->sql, "::text COLLATE \"C\" = (");
        add_param(st, c, v);
        buf_adds(&st->sql, ")::text");
    }
}

/* One of the rows that equal this one. */
static void add_one_of_equal(struct pg_statement *st, const struct table *t, const struct row *row)
{
    bool first = true;

    add_table(st, " WHERE ctid = (SELECT ctid FROM ONLY ", t);
    for (size_t i = 0; i < t->ncolumns; i++) {
        if (t->columns[i].generated || row->v[i].state == VALUE_UNCHANGED)
            continue;
        buf_adds(&st->sql, first ? " WHERE " : " AND ");
        first = false;
        add_equal(st, &t->columns[i], &row->v[i]);
    }
    buf_adds(&st->sql, " LIMIT 1)");
}

static void add_which(struct pg_statement *st, const struct change *c)
{
    struct row *old = change_old_key(&st->a, c);

    if (c->table->nkey)
        add_key(st, c->table, old);
    else
        add_one_of_equal(st, c->table, old);
}

/* ---- the statements ---- */

static void build_insert(struct pg_statement *st, const struct change *c)
{
    const struct table *t = c->table;
    bool first = true;

    add_table(st, "INSERT INTO ", t);
    buf_adds(&st->sql, " (");
    pg_add_columns(&st->sql, t, "");
    buf_adds(&st->sql, ") OVERRIDING SYSTEM VALUE VALUES (");
    for (size_t i = 0; i < t->ncolumns; i++) {
        if (t->columns[i].generated)
            continue;
        buf_adds(&st->sql, first ? "" : ", ");
        first = false;
        add_param(st, &t->columns[i], &c->after->v[i]);
    }
    buf_addc(&st->sql, ')');
}

static void build_delete(struct pg_statement *st, const struct change *c)
{
    add_table(st, "DELETE FROM ONLY ", c->table);
    add_which(st, c);
}

static bool sent(const struct change *c, size_t i)
{
    return !c->table->columns[i].generated && c->after->v[i].state != VALUE_UNCHANGED;
}

/* Columns GENERATED ALWAYS AS IDENTITY that the row must already have so. Key columns are not
 * looked at again: the old key says what they are. */
static void add_identities(struct pg_statement *st, const struct change *c)
{
    for (size_t i = 0; i < c->table->ncolumns && c->table->nkey; i++) {
        const struct column *column = &c->table->columns[i];

        if (!column->identity_always || column->key || !sent(c, i))
            continue;
        buf_adds(&st->sql, " AND ");
        pg_ident(&st->sql, column->name);
        buf_adds(&st->sql, " IS NOT DISTINCT FROM ");
        add_param(st, column, &c->after->v[i]);
    }
}

static void build_update(struct pg_statement *st, const struct change *c)
{
    const struct table *t = c->table;
    bool first = true;

    add_table(st, "UPDATE ONLY ", t);
    for (size_t i = 0; i < t->ncolumns; i++) {
        if (!sent(c, i) || t->columns[i].identity_always)
            continue;
        buf_adds(&st->sql, first ? " SET " : ", ");
        first = false;
        pg_ident(&st->sql, t->columns[i].name);
        buf_adds(&st->sql, " = ");
        add_param(st, &t->columns[i], &c->after->v[i]);
    }
    if (first) { /* nothing to set; but the row must be there */
        buf_reset(&st->sql, BUF_MAX_TEXT);
        add_table(st, "SELECT count(*) FROM ONLY ", t);
    }
    add_which(st, c);
    add_identities(st, c);
}

/* An identity column cannot be updated to a value: the row is written anew, with what the log does
 * not carry taken from the old one. */
static void build_replace(struct pg_statement *st, const struct change *c)
{
    const struct table *t = c->table;
    bool first = true;

    add_table(st, "WITH d AS (DELETE FROM ONLY ", t);
    add_which(st, c);
    buf_adds(&st->sql, " RETURNING *) ");
    add_table(st, "INSERT INTO ", t);
    buf_adds(&st->sql, " (");
    pg_add_columns(&st->sql, t, "");
    buf_adds(&st->sql, ") OVERRIDING SYSTEM VALUE SELECT ");
    for (size_t i = 0; i < t->ncolumns; i++) {
        if (t->columns[i].generated)
            continue;
        buf_adds(&st->sql, first ? "" : ", ");
        first = false;
        if (sent(c, i)) {
            add_param(st, &t->columns[i], &c->after->v[i]);
            continue;
        }
        buf_adds(&st->sql, "d.");
        pg_ident(&st->sql, t->columns[i].name);
    }
    buf_adds(&st->sql, " FROM d");
}

/* ---- which statement ---- */

static bool identity_changed(const struct change *c)
{
    for (size_t i = 0; i < c->table->ncolumns && c->before; i++) {
        if (c->table->columns[i].identity_always && sent(c, i) &&
            c->before->v[i].state == VALUE_SET && !value_equal(&c->before->v[i], &c->after->v[i]))
            return true;
    }
    return false;
}

static bool has_other_identity(const struct change *c)
{
    for (size_t i = 0; i < c->table->ncolumns && c->table->nkey; i++) {
        if (c->table->columns[i].identity_always && !c->table->columns[i].key && sent(c, i))
            return true;
    }
    return false;
}

/* The log may not have told what the identity was: whether the row can be updated, the server must
 * say first. */
static bool identity_unsure(const struct change *c)
{
    return c->op == OP_UPDATE && !identity_changed(c) && has_other_identity(c);
}

static void build(struct pg_statement *st, const struct change *c, bool replace)
{
    invariant(c->op != OP_TRUNCATE);
    reset(st);
    switch (c->op) {
    case OP_INSERT:
        build_insert(st, c);
        break;
    case OP_UPDATE:
        if (replace || identity_changed(c))
            build_replace(st, c);
        else
            build_update(st, c);
        break;
    case OP_DELETE:
        build_delete(st, c);
        break;
    case OP_TRUNCATE:
        break;
    }
}

/* The change as it is made on this server, to what its table is here. */
static struct change change_there(const struct change *c)
{
    struct change there = *c;

    there.table = table_there(c->table);
    return there;
}

bool pg_statement_of(struct pg_statement *st, const struct change *c)
{
    struct change there = change_there(c);

    if (c->op == OP_TRUNCATE || identity_unsure(&there) ||
        (c->after && !pg_form_is_fit(c->table, c->after)))
        return false;
    build(st, &there, false);
    return true;
}

struct pg_params pg_statement_params(const struct pg_statement *st)
{
    return (struct pg_params){
        .n = st->n, .values = st->values, .lengths = st->lengths, .formats = st->formats};
}

static int run(struct pg_db *db, struct pg_statement *st, uint64_t *affected, struct err *e)
{
    struct pg_params p = pg_statement_params(st);
    bool large = st->bytes > LARGE_ROW;
    PGresult *res;

    if (buf_check(&st->sql, "a statement", e) < 0)
        return -1;
    if (large)
        large_row_enter();
    db->large |= large;
    res = pg_apply_exec(db, st->sql.data, &p, st->keep, e);
    if (large)
        large_row_leave();
    if (res)
        *affected = pg_apply_count(res);
    PQclear(res);
    return res ? 0 : -1;
}

static int run_change(struct pg_db *db, const struct change *c, uint64_t *affected, struct err *e)
{
    struct change there = change_there(c);
    struct pg_statement st;
    int rc;

    pg_statement_init(&st);
    build(&st, &there, false);
    rc = run(db, &st, affected, e);
    if (rc == 0 && *affected == 0 && identity_unsure(&there)) { /* it was another */
        build(&st, &there, true);
        rc = run(db, &st, affected, e);
    }
    pg_statement_release(&st);
    return rc;
}

int pg_apply_defer(struct pg_db *db, struct err *e)
{
    if (db->deferred)
        return 0;
    if (pg_exec(db, "SET CONSTRAINTS ALL DEFERRED", e) < 0)
        return -1;
    db->deferred = true;
    return 0;
}

/* Whole characters of a value, for a message. */
static int shown_length(const struct value *v)
{
    size_t n = v->len < SHOWN_MAX ? v->len : SHOWN_MAX;

    while (n > 0 && n < v->len && ((unsigned char)v->data[n] & 0xc0) == 0x80)
        n--;
    return (int)n;
}

/* The column whose value the server refused without saying where it stands; -1: not known. */
static int column_refused(const struct change *c, const struct err *e)
{
    bool json = strstr(e->msg, "type json") != NULL;
    int found = -1;

    for (size_t i = 0; i < c->after->n; i++) {
        const struct value *v = &c->after->v[i];
        enum type_kind kind = c->table->columns[i].kind;

        if (kind == TYPE_BYTES || v->state != VALUE_SET)
            continue;
        if (memchr(v->data, '\0', v->len))
            return (int)i;
        if (json && kind == TYPE_JSON && found >= 0)
            return -1;
        if (json && kind == TYPE_JSON)
            found = (int)i;
    }
    return found;
}

int pg_change_failed(const struct change *c, struct err *e)
{
    int i = e && e->class == ERR_DATA && c->after ? column_refused(c, e) : -1;
    const struct value *v = i < 0 ? NULL : &c->after->v[i];
    const char *name = i < 0 ? NULL : c->table->columns[i].name;

    if (v && memchr(v->data, '\0', v->len))
        err_set(e, ERR_DATA, "column \"%s\": it holds a NUL character, which no text here does",
                name);
    else if (v)
        err_set(e, ERR_DATA, "column \"%s\": it holds %.*s, which is no JSON here", name,
                shown_length(v), v->data);
    return err_wrap(e, "%s of %s", change_op_name(c->op), table_label(c->table));
}

void pg_be_patient(struct pg_db *db, const struct change *const *changes, size_t n)
{
    if (db->timeout_ms >= 0 && db->timeout_ms < DB_WHOLE_TABLE_MS && changes_scan(changes, n))
        db->timeout_ms = DB_WHOLE_TABLE_MS;
}

int pg_apply_row(struct db *base, const struct change *c, uint64_t *affected, struct err *e)
{
    struct pg_db *db = pg_db_from(base);
    int timeout_ms = db->timeout_ms;
    int rc = 0;

    *affected = 0;
    if (c->op == OP_TRUNCATE)
        return err_set(e, ERR_BUG, "a TRUNCATE is not a change of a row");
    if (pg_apply_defer(db, e) < 0)
        return -1;
    if (c->after)
        rc = pg_form_check(c->table, (const struct row *const *)&c->after, 1, e);
    pg_be_patient(db, &c, 1);
    if (rc == 0)
        rc = run_change(db, c, affected, e);
    db->timeout_ms = timeout_ms;
    return rc < 0 ? pg_change_failed(c, e) : 0;
}
