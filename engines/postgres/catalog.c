/* The chosen tables with their columns and keys, as the source's catalog has them. Three queries
 * for all tables: relations, keys, columns; each sorted so that one pass joins them. */
#include "engines/postgres/pg.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Below this correlation a range of the key is spread over the whole table. */
#define SCATTERED_BELOW "0.5"

/* ---- selection ---- */

static bool any_matches(const char *const *patterns, size_t n, const char *schema, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (selection_pattern_matches(patterns[i], "public", schema, name))
            return true;
    return false;
}

bool pg_selected(const struct selection *s, const char *schema, const char *name)
{
    if (s == NULL)
        return true;
    if (any_matches(s->exclude, s->nexclude, schema, name))
        return false;
    return s->ninclude == 0 || any_matches(s->include, s->ninclude, schema, name);
}

/* A leaf is chosen by its own name or by that of any table above it; excluded likewise. lines:
 * "schema\nname" of itself and its ancestors, alternating. */
static bool family_selected(const struct selection *s, const json_t *family)
{
    bool included = s == NULL || s->ninclude == 0;

    for (size_t i = 0; s != NULL && i + 1 < json_array_size(family); i += 2) {
        const char *schema = json_string_value(json_array_get(family, i));
        const char *name = json_string_value(json_array_get(family, i + 1));

        if (schema == NULL || name == NULL)
            continue;
        if (any_matches(s->exclude, s->nexclude, schema, name))
            return false;
        included = included || any_matches(s->include, s->ninclude, schema, name);
    }
    return included;
}

/* ---- relations ---- */

static const char relations_sql[] =
    "SELECT c.oid::text, n.nspname, c.relname, c.relreplident,"
    " greatest(c.reltuples, 0)::bigint, pg_table_size(c.oid),"
    " coalesce(pg_relation_filenode(c.oid)::bigint, 0),"
    " rn.nspname || '.' || rc.relname,"
    " CASE WHEN c.relispartition THEN (SELECT json_agg(x) FROM ("
    "  SELECT unnest(ARRAY[an.nspname::text, ac.relname::text]) AS x"
    "  FROM pg_partition_ancestors(c.oid) p(relid) JOIN pg_class ac ON ac.oid = p.relid"
    "  JOIN pg_namespace an ON an.oid = ac.relnamespace) y)"
    " ELSE json_build_array(n.nspname, c.relname) END"
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " LEFT JOIN pg_class rc ON c.relispartition AND rc.oid = pg_partition_root(c.oid)"
    " LEFT JOIN pg_namespace rn ON rn.oid = rc.relnamespace"
    " WHERE c.relkind = 'r' AND c.relpersistence = 'p'"
    " AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'lockstep')"
    " AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass"
    "  AND d.objid = c.oid AND d.deptype = 'e')"
    " ORDER BY (n.nspname || '.' || c.relname) COLLATE \"C\"";

static int relations(struct pg_db *db, const struct selection *s, struct arena *a,
                     struct table_list *out, struct err *e)
{
    PGresult *res = pg_query(db, relations_sql, 0, NULL, e);
    int rc = -1;

    if (res == NULL)
        return -1;
    out->n = 0;
    out->v = arena_zalloc(a, ((size_t)PQntuples(res) + 1) * sizeof *out->v);
    for (int i = 0; i < PQntuples(res); i++) {
        json_t *family = json_loads(PQgetvalue(res, i, 8), 0, NULL);
        bool chosen = family_selected(s, family);

        json_decref(family);
        if (family == NULL) {
            err_set(e, ERR_BUG, "the ancestors of a table are not JSON");
            goto out;
        }
        if (!chosen)
            continue;
        struct table *t = arena_zalloc(a, sizeof *t);
        t->id = (uint32_t)strtoul(PQgetvalue(res, i, 0), NULL, 10);
        t->version = 1;
        t->schema = arena_strdup(a, PQgetvalue(res, i, 1));
        t->name = arena_strdup(a, PQgetvalue(res, i, 2));
        t->identity = PQgetvalue(res, i, 3)[0] == 'f' ? IDENTITY_FULL : IDENTITY_NONE;
        t->rows = (uint64_t)pg_int(res, i, 4);
        t->bytes = (uint64_t)pg_int(res, i, 5);
        t->filenode = (uint64_t)pg_int(res, i, 6);
        if (!PQgetisnull(res, i, 7))
            t->root = arena_strdup(a, PQgetvalue(res, i, 7));
        out->v[out->n++] = t;
    }
    rc = 0;
out:
    PQclear(res);
    return rc;
}

/* ---- by oid ---- */

static int by_id(const void *x, const void *y)
{
    const struct table *a = *(struct table *const *)x;
    const struct table *b = *(struct table *const *)y;

    return a->id < b->id ? -1 : a->id > b->id;
}

static struct table *find(struct table *const *sorted, size_t n, uint32_t id)
{
    struct table probe = {.id = id};
    const struct table *key = &probe;
    struct table *const *hit = bsearch(&key, sorted, n, sizeof(struct table *), by_id);

    return hit != NULL ? *hit : NULL;
}

static struct table **sorted_by_id(struct arena *a, const struct table_list *list)
{
    struct table **v = arena_memdup(a, list->v, (list->n + 1) * sizeof *v);

    qsort(v, list->n, sizeof *v, by_id);
    return v;
}

static char *oid_array(struct arena *a, const struct table_list *list)
{
    char *text = arena_alloc(a, list->n * 11 + 3);
    char *p = text;

    *p++ = '{';
    for (size_t i = 0; i < list->n; i++)
        p += sprintf(p, "%s%u", i > 0 ? "," : "", list->v[i]->id);
    *p++ = '}';
    *p = '\0';
    return text;
}

/* ---- columns ---- */

/* A domain is followed to its base type for the kind; its own name stays the type to cast to. The
 * domain's typmod counts where the column has none. */
static const char columns_sql[] =
    "WITH RECURSIVE base(typ, oid, typmod) AS ("
    " SELECT DISTINCT a.atttypid, a.atttypid, -1 FROM pg_attribute a"
    "  WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped"
    " UNION ALL SELECT b.typ, t.typbasetype, t.typtypmod FROM base b"
    "  JOIN pg_type t ON t.oid = b.oid WHERE t.typtype = 'd')"
    " SELECT a.attrelid::text, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod),"
    " format_type(a.atttypid, -1), t.oid::text, t.typtype,"
    " EXISTS (SELECT FROM pg_type el WHERE el.typarray = t.oid),"
    " CASE WHEN a.atttypmod >= 0 THEN a.atttypmod ELSE b.typmod END,"
    " a.attnotnull, a.attgenerated <> '', a.attidentity = 'a',"
    " CASE WHEN a.attcollation = 100 THEN (SELECT d.datcollate IN ('C', 'POSIX') AND"
    "   coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') = 'c'"
    "   FROM pg_database d WHERE d.datname = current_database())"
    "  ELSE coalesce(co.collname IN ('C', 'POSIX') AND co.collnamespace = "
    "'pg_catalog'::regnamespace,"
    "   false) END, CASE WHEN a.atthasmissing THEN '0' ELSE a.xmin::text END"
    " FROM pg_attribute a JOIN base b ON b.typ = a.atttypid"
    " JOIN pg_type t ON t.oid = b.oid AND t.typtype <> 'd'"
    " LEFT JOIN pg_collation co ON co.oid = a.attcollation"
    " WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped"
    " ORDER BY a.attrelid, a.attnum";

static const struct {
    uint32_t oid; /* fixed in pg_type.dat */
    enum type_kind kind;
} kinds[] = {
    {16, TYPE_BOOL},     {21, TYPE_INT16},    {23, TYPE_INT32},       {20, TYPE_INT64},
    {700, TYPE_FLOAT32}, {701, TYPE_FLOAT64}, {1700, TYPE_DECIMAL},   {25, TYPE_TEXT},
    {1043, TYPE_TEXT},   {1042, TYPE_TEXT},   {19, TYPE_TEXT},        {17, TYPE_BYTES},
    {1082, TYPE_DATE},   {1083, TYPE_TIME},   {1114, TYPE_TIMESTAMP}, {1184, TYPE_TIMESTAMPTZ},
    {2950, TYPE_UUID},   {114, TYPE_JSON},    {3802, TYPE_JSON},
};

#define OID_BPCHAR 1042
#define OID_VARCHAR 1043

static enum type_kind kind_of(uint32_t oid, char typtype)
{
    if (typtype == 'e')
        return TYPE_ENUM;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (kinds[i].oid == oid)
            return kinds[i].kind;
    return TYPE_OTHER;
}

/* What our code may compare itself: integers, and what the server orders by plain bytes. bpchar
 * ignores trailing blanks, so it is left to the server in every collation. */
static enum key_order order_of(enum type_kind kind, uint32_t oid, bool bytewise)
{
    if (kind == TYPE_INT16 || kind == TYPE_INT32 || kind == TYPE_INT64)
        return KEY_ORDER_INT;
    if (kind == TYPE_UUID || kind == TYPE_BYTES)
        return KEY_ORDER_BYTES;
    if (kind == TYPE_TEXT && oid != OID_BPCHAR && bytewise)
        return KEY_ORDER_BYTES;
    return KEY_ORDER_SERVER;
}

static void column_fill(const PGresult *res, int i, struct arena *a, struct column *c)
{
    uint32_t oid = (uint32_t)strtoul(PQgetvalue(res, i, 5), NULL, 10);
    int64_t typmod = pg_int(res, i, 8);

    c->number = (uint32_t)pg_int(res, i, 1);
    c->stamp = (uint32_t)strtoul(PQgetvalue(res, i, 13), NULL, 10);
    c->name = arena_strdup(a, PQgetvalue(res, i, 2));
    c->source_type = arena_strdup(a, PQgetvalue(res, i, 3));
    c->cast_type = arena_strdup(a, PQgetvalue(res, i, 4));
    c->kind = kind_of(oid, PQgetvalue(res, i, 6)[0]);
    c->array = pg_bool(res, i, 7);
    c->order = order_of(c->kind, oid, pg_bool(res, i, 12));
    c->not_null = pg_bool(res, i, 9);
    c->generated = pg_bool(res, i, 10);
    c->identity_always = pg_bool(res, i, 11);
    if (c->kind == TYPE_DECIMAL && typmod >= 4) {
        int scale = (int)((typmod - 4) & 0x7ff);

        c->precision = (int)(((typmod - 4) >> 16) & 0xffff);
        c->scale = (scale ^ 1024) - 1024; /* eleven bits, signed, since PostgreSQL 15 */
    }
    if ((oid == OID_VARCHAR || oid == OID_BPCHAR) && typmod >= 4)
        c->length = (int)typmod - 4;
    if (c->kind == TYPE_TIME || c->kind == TYPE_TIMESTAMP || c->kind == TYPE_TIMESTAMPTZ)
        c->fraction = typmod >= 0 ? (int)typmod : 6;
}

static int columns(struct pg_db *db, const struct table_list *list, struct table **sorted,
                   struct arena *a, struct err *e)
{
    const char *oids = oid_array(a, list);
    PGresult *res = pg_query(db, columns_sql, 1, &oids, e);

    if (res == NULL)
        return -1;
    for (int i = 0; i < PQntuples(res);) {
        uint32_t id = (uint32_t)strtoul(PQgetvalue(res, i, 0), NULL, 10);
        struct table *t = find(sorted, list->n, id);
        int end = i;

        while (end < PQntuples(res) && strtoul(PQgetvalue(res, end, 0), NULL, 10) == id)
            end++;
        invariant(t != NULL);
        t->ncolumns = (size_t)(end - i);
        t->columns = arena_zalloc(a, t->ncolumns * sizeof *t->columns);
        for (int c = i; c < end; c++)
            column_fill(res, c, a, &t->columns[c - i]);
        i = end;
    }
    PQclear(res);
    return 0;
}

/* ---- keys ---- */

/* The index that identifies rows: the one of REPLICA IDENTITY USING INDEX, else the primary key. A
 * deferrable one identifies nothing, to the server neither: two rows may have one key for a while.
 * Column names in key order, as JSON. scattered: of its first column. */
static const char keys_sql[] =
    "SELECT i.indrelid::text, i.indisreplident OR c.relreplident = 'd',"
    " (SELECT json_agg(a.attname ORDER BY k.n) FROM unnest(i.indkey::int2[]) WITH ORDINALITY "
    "k(num, n)"
    "  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num"
    "  WHERE k.n <= i.indnkeyatts),"
    " (SELECT abs(s.correlation) < " SCATTERED_BELOW " FROM pg_stats s"
    "  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]"
    "  JOIN pg_namespace n ON n.oid = c.relnamespace WHERE s.schemaname = n.nspname"
    "  AND s.tablename = c.relname AND s.attname = a.attname AND s.correlation IS NOT NULL"
    "  ORDER BY s.inherited LIMIT 1)"
    " FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid"
    " WHERE i.indrelid = ANY ($1::oid[]) AND i.indisvalid AND i.indimmediate AND i.indisunique"
    " AND i.indpred IS NULL AND i.indexprs IS NULL"
    " AND CASE WHEN c.relreplident = 'i' THEN i.indisreplident ELSE i.indisprimary END";

static int key_fill(struct table *t, const json_t *names, struct arena *a, struct err *e)
{
    t->nkey = json_array_size(names);
    t->key = arena_zalloc(a, (t->nkey + 1) * sizeof *t->key);
    for (size_t k = 0; k < t->nkey; k++) {
        const char *name = json_string_value(json_array_get(names, k));
        size_t c = 0;

        while (c < t->ncolumns && name != NULL && strcmp(t->columns[c].name, name) != 0)
            c++;
        if (name == NULL || c == t->ncolumns)
            return err_set(e, ERR_RETRY, "table %s changed while its catalog was read",
                           table_label(t));
        t->key[k] = c;
        t->columns[c].key = (int)k + 1;
    }
    return 0;
}

static int keys(struct pg_db *db, const struct table_list *list, struct table **sorted,
                struct arena *a, struct err *e)
{
    const char *oids = oid_array(a, list);
    PGresult *res = pg_query(db, keys_sql, 1, &oids, e);
    int rc = 0;

    if (res == NULL)
        return -1;
    for (int i = 0; i < PQntuples(res) && rc == 0; i++) {
        struct table *t = find(sorted, list->n, (uint32_t)strtoul(PQgetvalue(res, i, 0), NULL, 10));
        json_t *names = json_loads(PQgetvalue(res, i, 2), 0, NULL);

        invariant(t != NULL);
        rc = key_fill(t, names, a, e);
        json_decref(names);
        if (rc != 0 || t->nkey == 0)
            continue;
        if (t->identity != IDENTITY_FULL && pg_bool(res, i, 1))
            t->identity = IDENTITY_KEY;
        t->scattered =
            PQgetisnull(res, i, 3) ? t->columns[t->key[0]].kind == TYPE_UUID : pg_bool(res, i, 3);
    }
    PQclear(res);
    return rc;
}

/* ---- one of them ---- */

int pg_table_columns(struct pg_db *db, uint32_t id, struct arena *a, struct table_list *out,
                     struct err *e)
{
    char oid[16];
    const char *values[] = {oid};
    struct table *t = arena_zalloc(a, sizeof(*t));
    PGresult *res;

    snprintf(oid, sizeof(oid), "%u", id);
    res = pg_query(db, "SELECT coalesce(pg_relation_filenode($1::oid)::bigint, 0)", 1, values, e);
    if (!res)
        return -1;
    t->id = id;
    t->filenode = (uint64_t)pg_int(res, 0, 0);
    PQclear(res);
    out->v = arena_memdup(a, &t, sizeof(struct table *));
    out->n = 1;
    if (columns(db, out, out->v, a, e) < 0)
        return err_wrap(e, "reading the catalog");
    out->n = t->ncolumns > 0;
    return 0;
}

/* ---- all of it ---- */

static int read_all(struct pg_db *db, const struct selection *s, struct arena *a,
                    struct table_list *out, struct err *e)
{
    if (relations(db, s, a, out, e) != 0)
        return -1;
    struct table **sorted = sorted_by_id(a, out);
    return columns(db, out, sorted, a, e) == 0 && keys(db, out, sorted, a, e) == 0 ? 0 : -1;
}

int pg_tables(struct db *base, const struct selection *s, struct arena *a, struct table_list *out,
              struct err *e)
{
    struct pg_db *db = pg_db_from(base);
    bool own = !pg_in_transaction(db);

    out->n = 0;
    /* One snapshot for the three queries, so that they speak of one state. */
    if (own && pg_exec(db, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", e) != 0)
        return -1;
    int rc = read_all(db, s, a, out, e);
    if (own && !db->broken)
        pg_rollback(base, rc == 0 ? e : NULL);
    return rc == 0 ? 0 : err_wrap(e, "reading the catalog");
}
