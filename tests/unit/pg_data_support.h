/* What the tests of the driver's data path share: a table's shape by a query of their own, so that
 * they need no catalog code, and rows written as texts. */
#ifndef LOCKSTEP_TESTS_PG_DATA_SUPPORT_H
#define LOCKSTEP_TESTS_PG_DATA_SUPPORT_H

#include "tests/unit/pg_support.h"

#define ROLE "data_test_role"

static inline enum type_kind test_kind(const char *type, bool is_enum)
{
    static const struct {
        const char *type;
        enum type_kind kind;
    } kinds[] = {
        {"boolean", TYPE_BOOL},
        {"smallint", TYPE_INT16},
        {"integer", TYPE_INT32},
        {"bigint", TYPE_INT64},
        {"numeric", TYPE_DECIMAL},
        {"text", TYPE_TEXT},
        {"character varying", TYPE_TEXT},
        {"bytea", TYPE_BYTES},
        {"date", TYPE_DATE},
        {"timestamp with time zone", TYPE_TIMESTAMPTZ},
        {"uuid", TYPE_UUID},
        {"json", TYPE_JSON},
        {"jsonb", TYPE_JSON},
        {"double precision", TYPE_FLOAT64},
    };

    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(type, kinds[i].type) == 0)
            return kinds[i].kind;
    }
    return is_enum ? TYPE_ENUM : TYPE_OTHER;
}

static inline void test_columns(struct table *t, struct arena *a, const PGresult *res)
{
    t->ncolumns = (size_t)PQntuples(res);
    t->columns = arena_zalloc(a, (t->ncolumns + 1) * sizeof *t->columns);
    t->key = arena_zalloc(a, (t->ncolumns + 1) * sizeof *t->key);
    for (int i = 0; i < PQntuples(res); i++) {
        struct column *c = &t->columns[i];

        c->name = arena_strdup(a, PQgetvalue(res, i, 0));
        c->source_type = arena_strdup(a, PQgetvalue(res, i, 1));
        c->cast_type = arena_strdup(a, PQgetvalue(res, i, 2));
        c->array = pg_bool(res, i, 3);
        c->kind = test_kind(PQgetvalue(res, i, 9), pg_bool(res, i, 8));
        c->not_null = pg_bool(res, i, 4);
        c->generated = pg_bool(res, i, 5);
        c->identity_always = pg_bool(res, i, 6);
        c->key = (int)pg_int(res, i, 7);
        if (c->key > 0) {
            t->key[c->key - 1] = (size_t)i;
            t->nkey++;
        }
    }
}

/* The table's shape as the catalog would tell it. */
static inline struct table *test_table(struct db *db, struct arena *a, const char *schema,
                                       const char *name)
{
    static const char columns[] =
        "SELECT a.attname, format_type(a.atttypid, a.atttypmod), format_type(a.atttypid, -1),"
        " t.typcategory = 'A', a.attnotnull, a.attgenerated <> '', a.attidentity = 'a',"
        " coalesce(array_position(i.indkey::int2[], a.attnum) + 1, 0), t.typtype = 'e',"
        " format_type(CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END, -1)"
        " FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid"
        " LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary"
        " WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
    static const char head[] =
        "SELECT c.oid, c.relreplident, pg_relation_filenode(c.oid)::int8 FROM pg_class c"
        " WHERE c.relnamespace = $1::regnamespace AND c.relname = $2";
    const char *names[] = {schema, name};
    struct table *t = arena_zalloc(a, sizeof *t);
    struct err e = {0};
    PGresult *res = pg_query(pg_db_from(db), head, 2, names, &e);
    const char *oid;
    char ident;

    if (!res || PQntuples(res) != 1)
        fail_msg("no table %s.%s: %s", schema, name, e.msg);
    oid = arena_strdup(a, PQgetvalue(res, 0, 0));
    ident = PQgetvalue(res, 0, 1)[0];
    t->id = (uint32_t)pg_int(res, 0, 0);
    t->filenode = (uint64_t)pg_int(res, 0, 2);
    PQclear(res);
    t->schema = arena_strdup(a, schema);
    t->name = arena_strdup(a, name);
    res = pg_query(pg_db_from(db), columns, 1, &oid, &e);
    if (!res)
        fail_msg("%s", e.msg);
    test_columns(t, a, res);
    PQclear(res);
    t->identity = ident == 'f' ? IDENTITY_FULL : t->nkey ? IDENTITY_KEY : IDENTITY_NONE;
    return t;
}

/* A row of texts: NULL is SQL NULL, TEST_UNCHANGED an unsent column. */
#define TEST_UNCHANGED "\001unchanged"
static inline struct row *test_row(struct arena *a, size_t n, ...)
{
    struct row *r = row_new(a, n);
    va_list ap;

    va_start(ap, n);
    for (size_t i = 0; i < n; i++) {
        const char *text = va_arg(ap, const char *);

        if (!text)
            continue;
        r->v[i].state = strcmp(text, TEST_UNCHANGED) == 0 ? VALUE_UNCHANGED : VALUE_SET;
        if (r->v[i].state == VALUE_UNCHANGED)
            continue;
        r->v[i].len = strlen(text);
        /* Exactly as long as it is, so that a sanitizer sees who relies on a NUL. */
        r->v[i].data = arena_memdup(a, text, r->v[i].len);
    }
    va_end(ap);
    return r;
}

/* "(1, abc)" */
static inline const char *test_print(const struct row *r)
{
    static _Thread_local struct buf b[4];
    static _Thread_local int next;
    struct buf *out = &b[next++ % 4];

    if (!r)
        return "none";
    buf_release(out);
    buf_init(out, BUF_MAX_TEXT);
    row_print(out, r, 60);
    return out->data;
}

#endif
