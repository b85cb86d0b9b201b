/* What the tables are made of, from pg_catalog, for another engine to make the same
 * (engines/def.h). Every role may read it. Five queries for all tables; their rows name the table
 * by its oid. */
#include "engines/postgres/pg.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void pg_home_schema(const char *uri, char *out, size_t size)
{
    (void)uri;
    snprintf(out, size, "public");
}

struct describing {
    struct pg_db *db;
    const struct table_list *tables;
    struct arena *arena;
    struct schema_def *out;
    const char *oids; /* '{…}' */
};

static struct table_def *entry(const struct describing *d, const PGresult *res, int row)
{
    uint32_t id = (uint32_t)strtoul(PQgetvalue(res, row, 0), NULL, 10);

    for (size_t i = 0; i < d->out->n; i++) {
        if (d->out->tables[i].table->id == id)
            return &d->out->tables[i];
    }
    return NULL;
}

static const char *text_or_null(const struct describing *d, const PGresult *res, int row, int col)
{
    const char *s = pg_text(res, row, col);

    return s ? arena_strdup(d->arena, s) : NULL;
}

/* A JSON array of texts; NULL: none. */
static const char *const *texts(const struct describing *d, const PGresult *res, int row, int col,
                                size_t *n)
{
    const char *source = pg_text(res, row, col);
    json_t *list = source ? json_loads(source, 0, NULL) : NULL;
    const char **v;

    *n = json_array_size(list);
    v = arena_zalloc(d->arena, (*n + 1) * sizeof(*v));
    for (size_t i = 0; i < *n; i++) {
        const char *s = json_string_value(json_array_get(list, i));

        v[i] = arena_strdup(d->arena, s ? s : "");
    }
    json_decref(list);
    return v;
}

/* ---- defaults ---- */

/* 'it''s'::text -> it's; NULL: something else than one literal. */
static const char *unquote(struct arena *a, const char *expr)
{
    char *out = arena_alloc(a, strlen(expr) + 1);
    size_t n = 0;
    const char *p = expr + 1;

    if (*expr != '\'')
        return NULL;
    for (; *p && !(p[0] == '\'' && p[1] != '\''); p++) {
        p += p[0] == '\'';
        out[n++] = *p;
    }
    out[n] = '\0';
    if (*p != '\'')
        return NULL;
    p++;
    /* Behind it only the cast to the column's type: no operator, no call. */
    if (*p && (p[0] != ':' || p[1] != ':'))
        return NULL;
    for (; *p; p++) {
        if (!isalnum((unsigned char)*p) && !strchr(":_ .\"(),[]", *p))
            return NULL;
    }
    return out;
}

/* 0, -1.5, (-1), '-1'::integer as the digits; NULL: not a number. */
static const char *number(struct arena *a, const char *expr)
{
    size_t n = strlen(expr);
    size_t digits;
    char *out;

    if (n > 2 && expr[0] == '(' && expr[n - 1] == ')') {
        expr++;
        n -= 2;
    }
    out = arena_strndup(a, expr, n);
    digits = strspn(out[0] == '-' ? out + 1 : out, "0123456789.");
    return digits && digits + (out[0] == '-') == n ? out : NULL;
}

static bool is_now(const char *expr)
{
    static const char *const words[] = {"now()",
                                        "CURRENT_TIMESTAMP",
                                        "CURRENT_DATE",
                                        "CURRENT_TIME",
                                        "LOCALTIMESTAMP",
                                        "LOCALTIME",
                                        "transaction_timestamp()",
                                        "statement_timestamp()",
                                        "clock_timestamp()"};
    size_t n = strcspn(expr, ":");

    if (expr[0] == '(')
        return is_now(expr + 1);
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        size_t len = strlen(words[i]);

        if (strncmp(expr, words[i], len) == 0 &&
            (n == len || expr[len] == '\0' || expr[len] == '(' || expr[len] == ')'))
            return true;
    }
    return false;
}

static void default_of(struct arena *a, const char *expr, struct column_def *c)
{
    const char *literal;

    if (!expr || strncmp(expr, "NULL", 4) == 0)
        return;
    c->default_text = expr;
    c->default_kind = DEFAULT_EXPRESSION;
    if (strncmp(expr, "nextval(", 8) == 0) {
        c->default_kind = DEFAULT_IDENTITY;
        return;
    }
    if (is_now(expr)) {
        c->default_kind = DEFAULT_NOW;
        return;
    }
    literal = number(a, expr);
    if (!literal)
        literal = unquote(a, expr);
    if (!literal && c->column->kind == TYPE_BOOL)
        literal = strcmp(expr, "true") == 0 ? "t" : strcmp(expr, "false") == 0 ? "f" : NULL;
    /* Bytes have no text of their own that ends at a NUL; arrays and the like stay here. */
    if (!literal || c->column->kind == TYPE_BYTES || c->column->kind == TYPE_OTHER)
        return;
    c->default_kind = DEFAULT_LITERAL;
    c->default_text = literal;
}

/* ---- columns ---- */

static const char columns_sql[] =
    "SELECT a.attrelid::text, a.attname, pg_get_expr(d.adbin, d.adrelid), a.attidentity <> '',"
    " a.attgenerated <> '',"
    " (SELECT json_agg(l.enumlabel ORDER BY l.enumsortorder) FROM pg_enum l"
    "  WHERE l.enumtypid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END),"
    " CASE WHEN a.attcollation NOT IN (0, 100) THEN co.collname END,"
    " NOT coalesce(co.collisdeterministic, true), col_description(a.attrelid, a.attnum),"
    " CASE WHEN t.typtype = 'd' THEN 'a domain' WHEN t.typcategory = 'A' THEN 'an array' END"
    " FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid"
    " LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum"
    " LEFT JOIN pg_collation co ON co.oid = a.attcollation"
    " WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped";

static void column_fill(const struct describing *d, const PGresult *res, int i,
                        struct column_def *c)
{
    const char *expr = text_or_null(d, res, i, 2);

    if (pg_bool(res, i, 4)) {
        c->default_kind = DEFAULT_GENERATED;
        c->default_text = expr;
        c->stored = true;
    } else if (pg_bool(res, i, 3)) {
        c->default_kind = DEFAULT_IDENTITY;
    } else {
        default_of(d->arena, expr, c);
    }
    c->labels = texts(d, res, i, 5, &c->nlabels);
    c->collation = text_or_null(d, res, i, 6);
    c->case_insensitive = pg_bool(res, i, 7);
    c->comment = text_or_null(d, res, i, 8);
    c->unfit = text_or_null(d, res, i, 9);
    if (!c->unfit && c->column->kind == TYPE_OTHER)
        c->unfit = "it is of none of the kinds that both engines have";
}

static int columns(const struct describing *d, struct err *e)
{
    PGresult *res = pg_query(d->db, columns_sql, 1, &d->oids, e);
    size_t filled = 0;
    size_t wanted = 0;

    if (!res)
        return -1;
    for (size_t i = 0; i < d->out->n; i++)
        wanted += d->out->tables[i].table->ncolumns;
    for (int i = 0; i < PQntuples(res); i++) {
        struct table_def *t = entry(d, res, i);
        int place = t ? table_column_find(t->table, PQgetvalue(res, i, 1)) : -1;

        if (place < 0)
            continue;
        column_fill(d, res, i, &t->columns[place]);
        filled++;
    }
    PQclear(res);
    if (filled == wanted)
        return 0;
    return err_set(e, ERR_RETRY, "a table changed while its catalog was read");
}

/* ---- indexes ---- */

/* Left out: what another engine knows by another name or not at all. Included columns are not part
 * of what an index promises; the pattern operator classes order as a binary collation does. */
static const char indexes_sql[] =
    "SELECT i.indrelid::text, x.relname, i.indisprimary, i.indisunique,"
    " (SELECT json_agg(coalesce(a.attname, '') ORDER BY k.n) FROM unnest(i.indkey::int2[])"
    "   WITH ORDINALITY k(num, n) LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid"
    "   AND a.attnum = k.num AND k.num > 0 WHERE k.n <= i.indnkeyatts),"
    " (SELECT json_agg(CASE WHEN o.opt & 1 = 1 THEN 'desc' ELSE '' END ORDER BY o.n)"
    "   FROM unnest(i.indoption::int2[]) WITH ORDINALITY o(opt, n)),"
    " CASE WHEN i.indisexclusion THEN 'it is an exclusion constraint'"
    "  WHEN m.amname <> 'btree' THEN 'it is a ' || m.amname || ' index'"
    "  WHEN i.indexprs IS NOT NULL THEN 'it is on an expression'"
    "  WHEN i.indpred IS NOT NULL THEN 'it is partial'"
    "  WHEN to_jsonb(i) ->> 'indnullsnotdistinct' = 'true' THEN 'it takes NULLs for equal'"
    "  WHEN EXISTS (SELECT FROM unnest(i.indclass::oid[]) c(oid) JOIN pg_opclass o"
    "   ON o.oid = c.oid WHERE NOT o.opcdefault AND o.opcname !~ '_pattern_ops$'"
    "   AND o.opcname <> 'varchar_ops')"
    "  THEN 'it has an operator class of its own' END"
    " FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam"
    " WHERE i.indrelid = ANY ($1::oid[]) AND i.indislive AND i.indisvalid"
    " ORDER BY i.indrelid, i.indisprimary DESC, x.relname";

/* How many of the result's rows from `row` on are of one table. */
static int same_table(const PGresult *res, int row)
{
    int end = row + 1;

    while (end < PQntuples(res) && strcmp(PQgetvalue(res, end, 0), PQgetvalue(res, row, 0)) == 0)
        end++;
    return end - row;
}

static void index_fill(const struct describing *d, const PGresult *res, int i, struct index_def *x)
{
    size_t n;
    const char *const *options = texts(d, res, i, 5, &n);
    const char *const *names = texts(d, res, i, 4, &x->ncolumns);
    struct index_column *v = arena_zalloc(d->arena, (x->ncolumns + 1) * sizeof(*v));

    for (size_t c = 0; c < x->ncolumns; c++) {
        v[c].name = names[c];
        v[c].descending = c < n && strcmp(options[c], "desc") == 0;
    }
    x->columns = v;
    x->name = text_or_null(d, res, i, 1);
    x->primary = pg_bool(res, i, 2);
    x->unique = pg_bool(res, i, 3);
    x->unfit = text_or_null(d, res, i, 6);
}

static int indexes(const struct describing *d, struct err *e)
{
    PGresult *res = pg_query(d->db, indexes_sql, 1, &d->oids, e);

    if (!res)
        return -1;
    for (int i = 0; i < PQntuples(res);) {
        struct table_def *t = entry(d, res, i);
        int n = same_table(res, i);

        t->nindexes = (size_t)n;
        t->indexes = arena_zalloc(d->arena, t->nindexes * sizeof(*t->indexes));
        for (int k = 0; k < n; k++)
            index_fill(d, res, i + k, &t->indexes[k]);
        i += n;
    }
    PQclear(res);
    return 0;
}

/* ---- foreign keys, checks, comments ---- */

/* A key to a partitioned table has a shadow for each of its leaves: left out. A leaf's own key,
 * inherited from its root, is its own here, for the leaf becomes a plain table. */
static const char foreigns_sql[] =
    "SELECT k.conrelid::text, k.conname,"
    " (SELECT json_agg(a.attname ORDER BY c.n) FROM unnest(k.conkey) WITH ORDINALITY c(num, n)"
    "   JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = c.num),"
    " n.nspname || '.' || r.relname,"
    " (SELECT json_agg(a.attname ORDER BY c.n) FROM unnest(k.confkey) WITH ORDINALITY c(num, n)"
    "   JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = c.num),"
    " k.confdeltype, k.confupdtype"
    " FROM pg_constraint k JOIN pg_class r ON r.oid = k.confrelid"
    " JOIN pg_namespace n ON n.oid = r.relnamespace"
    " WHERE k.contype = 'f' AND k.conrelid = ANY ($1::oid[]) AND NOT EXISTS (SELECT"
    "  FROM pg_constraint p WHERE p.oid = k.conparentid AND p.conrelid = k.conrelid)"
    " ORDER BY k.conrelid, k.conname";

static enum foreign_action action_of(char c)
{
    switch (c) {
    case 'r':
        return FOREIGN_RESTRICT;
    case 'c':
        return FOREIGN_CASCADE;
    case 'n':
        return FOREIGN_SET_NULL;
    case 'd':
        return FOREIGN_SET_DEFAULT;
    default:
        return FOREIGN_NO_ACTION;
    }
}

static int foreigns(const struct describing *d, struct err *e)
{
    PGresult *res = pg_query(d->db, foreigns_sql, 1, &d->oids, e);

    if (!res)
        return -1;
    for (int i = 0; i < PQntuples(res);) {
        struct table_def *t = entry(d, res, i);
        int n = same_table(res, i);

        t->nforeigns = (size_t)n;
        t->foreigns = arena_zalloc(d->arena, t->nforeigns * sizeof(*t->foreigns));
        for (int k = 0; k < n; k++) {
            struct foreign_def *f = &t->foreigns[k];
            size_t refs;

            f->name = text_or_null(d, res, i + k, 1);
            f->columns = texts(d, res, i + k, 2, &f->ncolumns);
            f->ref_table = text_or_null(d, res, i + k, 3);
            f->ref_columns = texts(d, res, i + k, 4, &refs);
            invariant(refs == f->ncolumns);
            f->on_delete = action_of(PQgetvalue(res, i + k, 5)[0]);
            f->on_update = action_of(PQgetvalue(res, i + k, 6)[0]);
        }
        i += n;
    }
    PQclear(res);
    return 0;
}

static const char rest_sql[] =
    "SELECT c.oid::text, obj_description(c.oid, 'pg_class'),"
    " (SELECT json_agg(pg_get_expr(k.conbin, k.conrelid) ORDER BY k.conname) FROM pg_constraint k"
    "   WHERE k.conrelid = c.oid AND k.contype = 'c')"
    " FROM pg_class c WHERE c.oid = ANY ($1::oid[])";

static int rest(const struct describing *d, struct err *e)
{
    PGresult *res = pg_query(d->db, rest_sql, 1, &d->oids, e);

    if (!res)
        return -1;
    for (int i = 0; i < PQntuples(res); i++) {
        struct table_def *t = entry(d, res, i);

        t->comment = text_or_null(d, res, i, 1);
        t->checks = texts(d, res, i, 2, &t->nchecks);
    }
    PQclear(res);
    return 0;
}

/* ---- all of it ---- */

static int begin(struct describing *d, struct err *e)
{
    struct buf b;
    int rc;

    buf_init(&b, BUF_MAX_TEXT);
    buf_addc(&b, '{');
    d->out->n = d->tables->n;
    d->out->tables = arena_zalloc(d->arena, (d->out->n + 1) * sizeof(*d->out->tables));
    for (size_t i = 0; i < d->out->n; i++) {
        struct table_def *t = &d->out->tables[i];

        t->table = d->tables->v[i];
        t->columns = arena_zalloc(d->arena, (t->table->ncolumns + 1) * sizeof(*t->columns));
        for (size_t c = 0; c < t->table->ncolumns; c++)
            t->columns[c].column = &t->table->columns[c];
        buf_addf(&b, "%s%u", i ? "," : "", t->table->id);
    }
    buf_addc(&b, '}');
    rc = buf_check(&b, "the list of tables", e);
    d->oids = rc == 0 ? arena_strdup(d->arena, b.data) : NULL;
    buf_release(&b);
    return rc;
}

int pg_describe(struct db *base, const struct table_list *tables, struct arena *a,
                struct schema_def *out, struct err *e)
{
    struct describing d = {pg_db_from(base), tables, a, out, NULL};

    *out = (struct schema_def){0};
    if (begin(&d, e) < 0 || columns(&d, e) < 0 || indexes(&d, e) < 0 || foreigns(&d, e) < 0 ||
        rest(&d, e) < 0)
        return err_wrap(e, "describing the tables");
    schema_def_finish(out);
    return 0;
}
