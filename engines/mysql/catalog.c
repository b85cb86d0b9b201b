/* The chosen tables with their columns and keys, as information_schema has them: tables, columns,
 * indexes, and on MariaDB the checks by which it marks JSON. Names are compared here, by bytes: the
 * server's own comparisons there take "T" and "t" for one. */
#include "engines/mysql/my.h"

#include "engines/def.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- selection ---- */

static bool any_matches(const char *const *patterns, size_t n, const char *schema, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (selection_pattern_matches(patterns[i], NULL, schema, name))
            return true;
    return false;
}

bool my_selected(const struct selection *s, const char *schema, const char *name)
{
    if (s == NULL)
        return true;
    if (any_matches(s->exclude, s->nexclude, schema, name))
        return false;
    return s->ninclude == 0 || any_matches(s->include, s->ninclude, schema, name);
}

/* ---- tables ---- */

/* The binlog's numbers of tables change with every restart: a number made from the name does not.
 */
static uint32_t id_of(const char *schema, const char *name)
{
    uint32_t hash = 2166136261u;

    for (const char *p = schema; *p != '\0'; p++)
        hash = (hash ^ (unsigned char)*p) * 16777619u;
    hash = (hash ^ '.') * 16777619u;
    for (const char *p = name; *p != '\0'; p++)
        hash = (hash ^ (unsigned char)*p) * 16777619u;
    return hash != 0 ? hash : 1;
}

static int by_label(const void *x, const void *y)
{
    const struct table *a = *(struct table *const *)x;
    const struct table *b = *(struct table *const *)y;
    char one[300];
    char other[300];

    snprintf(one, sizeof one, "%s.%s", a->schema, a->name);
    snprintf(other, sizeof other, "%s.%s", b->schema, b->name);
    return strcmp(one, other);
}

static int read_tables(struct my_db *db, const struct selection *s, struct arena *a,
                       struct table_list *out, struct err *e)
{
    MYSQL_RES *res = my_query(db,
                              "SELECT table_schema, table_name, table_rows, data_length"
                              " FROM information_schema.tables WHERE table_type = 'BASE TABLE'"
                              " AND table_schema NOT IN (" MY_SYSTEM_SCHEMAS ", '" MY_CONTROL "')",
                              e);

    if (res == NULL)
        return -1;
    out->n = 0;
    out->v = arena_zalloc(a, ((size_t)mysql_num_rows(res) + 1) * sizeof *out->v);
    for (MYSQL_ROW row; (row = mysql_fetch_row(res)) != NULL;) {
        if (!my_selected(s, row[0], row[1]))
            continue;
        struct table *t = arena_zalloc(a, sizeof *t);
        t->schema = arena_strdup(a, row[0]);
        t->name = arena_strdup(a, row[1]);
        t->id = id_of(t->schema, t->name);
        t->version = 1;
        t->identity = IDENTITY_FULL;
        t->rows = (uint64_t)my_int(row[2]);
        t->bytes = (uint64_t)my_int(row[3]);
        out->v[out->n++] = t;
    }
    mysql_free_result(res);
    qsort(out->v, out->n, sizeof *out->v, by_label);
    return 0;
}

static struct table *find(const struct table_list *list, char *schema, char *name)
{
    struct table probe = {.schema = schema, .name = name};
    const struct table *key = &probe;
    struct table *const *hit = bsearch(&key, list->v, list->n, sizeof(struct table *), by_label);

    return hit != NULL ? *hit : NULL;
}

/* " WHERE column IN ('a', 'b')" of the tables' databases. */
static void where_schemas(struct buf *b, const char *column, const struct table_list *list)
{
    const char *last = NULL;

    buf_addf(b, " WHERE %s IN (''", column);
    for (size_t i = 0; i < list->n; i++) {
        const char *schema = list->v[i]->schema;

        if (last != NULL && strcmp(last, schema) == 0)
            continue;
        buf_adds(b, ", ");
        my_literal(b, schema, strlen(schema));
        last = schema;
    }
    buf_adds(b, ")");
}

static MYSQL_RES *query_schemas(struct my_db *db, const char *select, const char *order,
                                const struct table_list *list, struct err *e)
{
    MYSQL_RES *res = NULL;
    struct buf sql;

    buf_init(&sql, BUF_MAX_TEXT);
    buf_adds(&sql, select);
    where_schemas(&sql, "table_schema", list);
    buf_adds(&sql, order);
    if (buf_check(&sql, "a query of the catalog", e) == 0)
        res = my_query(db, sql.data, e);
    buf_release(&sql);
    return res;
}

/* ---- columns ---- */

enum {
    C_SCHEMA,
    C_TABLE,
    C_NAME,
    C_DATA_TYPE,
    C_COLUMN_TYPE,
    C_CHARSET,
    C_COLLATION,
    C_LENGTH,
    C_PRECISION,
    C_SCALE,
    C_FRACTION,
    C_NULLABLE,
    C_GENERATED
};

static const char columns_sql[] =
    "SELECT table_schema, table_name, column_name, data_type, column_type, character_set_name,"
    " collation_name, character_maximum_length, numeric_precision, numeric_scale,"
    " datetime_precision, is_nullable, generation_expression FROM information_schema.columns";

/* unsigned_kind: what holds the unsigned one's values. */
static const struct {
    const char *type;
    enum type_kind kind;
    enum type_kind unsigned_kind;
} kinds[] = {
    {"tinyint", TYPE_INT16, TYPE_INT16},     {"smallint", TYPE_INT16, TYPE_INT32},
    {"mediumint", TYPE_INT32, TYPE_INT32},   {"int", TYPE_INT32, TYPE_INT64},
    {"bigint", TYPE_INT64, TYPE_DECIMAL},    {"decimal", TYPE_DECIMAL, TYPE_DECIMAL},
    {"float", TYPE_FLOAT32, TYPE_FLOAT32},   {"double", TYPE_FLOAT64, TYPE_FLOAT64},
    {"char", TYPE_TEXT, TYPE_TEXT},          {"varchar", TYPE_TEXT, TYPE_TEXT},
    {"tinytext", TYPE_TEXT, TYPE_TEXT},      {"text", TYPE_TEXT, TYPE_TEXT},
    {"mediumtext", TYPE_TEXT, TYPE_TEXT},    {"longtext", TYPE_TEXT, TYPE_TEXT},
    {"binary", TYPE_BYTES, TYPE_BYTES},      {"varbinary", TYPE_BYTES, TYPE_BYTES},
    {"tinyblob", TYPE_BYTES, TYPE_BYTES},    {"blob", TYPE_BYTES, TYPE_BYTES},
    {"mediumblob", TYPE_BYTES, TYPE_BYTES},  {"longblob", TYPE_BYTES, TYPE_BYTES},
    {"date", TYPE_DATE, TYPE_DATE},          {"time", TYPE_TIME, TYPE_TIME},
    {"datetime", TYPE_TIMESTAMP, TYPE_DATE}, {"timestamp", TYPE_TIMESTAMPTZ, TYPE_DATE},
    {"json", TYPE_JSON, TYPE_JSON},          {"enum", TYPE_ENUM, TYPE_ENUM},
};

static bool charset_known(const char *charset)
{
    return charset == NULL || strcmp(charset, "utf8mb4") == 0 || strcmp(charset, "utf8mb3") == 0 ||
           strcmp(charset, "utf8") == 0 || strcmp(charset, "ascii") == 0;
}

static enum type_kind kind_of(MYSQL_ROW row)
{
    bool is_unsigned = strstr(row[C_COLUMN_TYPE], " unsigned") != NULL;

    if (!charset_known(row[C_CHARSET]))
        return TYPE_OTHER;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(row[C_DATA_TYPE], kinds[i].type) == 0)
            return is_unsigned ? kinds[i].unsigned_kind : kinds[i].kind;
    return TYPE_OTHER;
}

/* What our code may compare itself: integers, and what the server orders by plain bytes. Other
 * binary collations ignore blanks at the end. */
static enum key_order order_of(enum type_kind kind, const char *collation)
{
    if (kind == TYPE_INT16 || kind == TYPE_INT32 || kind == TYPE_INT64)
        return KEY_ORDER_INT;
    if (kind == TYPE_BYTES)
        return KEY_ORDER_BYTES;
    if (kind == TYPE_TEXT && collation != NULL &&
        (strstr(collation, "nopad_bin") != NULL || strcmp(collation, "utf8mb4_0900_bin") == 0))
        return KEY_ORDER_BYTES;
    return KEY_ORDER_SERVER;
}

/* char(n) is cut to its text by the server when it is read, so its declared length is told, and
 * that of the text types is none: what bounds them is no number that a user chose. */
static int length_of(MYSQL_ROW row)
{
    const char *type = row[C_DATA_TYPE];

    return strstr(type, "char") != NULL || strstr(type, "binary") != NULL
               ? (int)my_int(row[C_LENGTH])
               : 0;
}

static void column_fill(MYSQL_ROW row, struct arena *a, struct column *c)
{
    c->name = arena_strdup(a, row[C_NAME]);
    c->source_type = arena_strdup(a, row[C_COLUMN_TYPE]);
    c->cast_type = arena_strdup(a, row[C_DATA_TYPE]);
    c->kind = kind_of(row);
    c->order = order_of(c->kind, row[C_COLLATION]);
    c->not_null = strcmp(row[C_NULLABLE], "NO") == 0;
    c->generated = row[C_GENERATED] != NULL && row[C_GENERATED][0] != '\0';
    if (c->kind == TYPE_DECIMAL) {
        bool integer = strcmp(row[C_DATA_TYPE], "decimal") != 0;

        c->precision = integer ? 20 : (int)my_int(row[C_PRECISION]);
        c->scale = integer ? 0 : (int)my_int(row[C_SCALE]);
    }
    if (c->kind == TYPE_TEXT || c->kind == TYPE_BYTES)
        c->length = length_of(row);
    if (c->kind == TYPE_TIME || c->kind == TYPE_TIMESTAMP || c->kind == TYPE_TIMESTAMPTZ)
        c->fraction = (int)my_int(row[C_FRACTION]);
}

static int read_columns(struct my_db *db, const struct table_list *list, struct arena *a,
                        struct err *e)
{
    MYSQL_RES *res = query_schemas(db, columns_sql, " ORDER BY ordinal_position", list, e);
    struct table *t;
    MYSQL_ROW row;

    if (res == NULL)
        return -1;
    while ((row = mysql_fetch_row(res)) != NULL) {
        t = find(list, row[C_SCHEMA], row[C_TABLE]);
        if (t != NULL)
            t->ncolumns++;
    }
    for (size_t i = 0; i < list->n; i++) {
        t = list->v[i];
        t->columns = arena_zalloc(a, (t->ncolumns + 1) * sizeof *t->columns);
        t->ncolumns = 0;
    }
    mysql_data_seek(res, 0);
    while ((row = mysql_fetch_row(res)) != NULL) {
        t = find(list, row[C_SCHEMA], row[C_TABLE]);
        if (t != NULL)
            column_fill(row, a, &t->columns[t->ncolumns++]);
    }
    mysql_free_result(res);
    return 0;
}

/* ---- JSON of MariaDB: a longtext with the check that it is valid ---- */

static void mark_json(struct table *t, const char *clause)
{
    struct buf expected;

    for (size_t i = 0; i < t->ncolumns; i++) {
        struct column *c = &t->columns[i];

        if (c->kind != TYPE_TEXT || strcmp(c->cast_type, "longtext") != 0)
            continue;
        buf_init(&expected, BUF_MAX_TEXT);
        buf_adds(&expected, "json_valid(");
        my_ident(&expected, c->name);
        buf_adds(&expected, ")");
        if (!expected.overflow && strcmp(expected.data, clause) == 0)
            c->kind = TYPE_JSON;
        buf_release(&expected);
    }
}

static int read_json(struct my_db *db, const struct table_list *list, struct err *e)
{
    MYSQL_RES *res = query_schemas(
        db,
        "SELECT table_schema, table_name, check_clause FROM (SELECT constraint_schema AS"
        " table_schema, table_name, check_clause FROM information_schema.check_constraints) c",
        " AND check_clause LIKE 'json\\_valid(%'", list, e);

    if (res == NULL)
        return -1;
    for (MYSQL_ROW row; (row = mysql_fetch_row(res)) != NULL;) {
        struct table *t = find(list, row[0], row[1]);

        if (t != NULL)
            mark_json(t, row[2]);
    }
    mysql_free_result(res);
    return 0;
}

/* ---- keys ---- */

enum { K_SCHEMA, K_TABLE, K_INDEX, K_COLUMN, K_PREFIX };

/* An index under examination: its columns in order, or that it identifies no row. */
struct candidate {
    struct table *table;
    char name[260];
    size_t columns[64];
    size_t n;
    bool unfit;
};

static void candidate_add(struct candidate *k, MYSQL_ROW row)
{
    int place = row[K_COLUMN] != NULL ? table_column_find(k->table, row[K_COLUMN]) : -1;

    if (place < 0 || row[K_PREFIX] != NULL || k->n == sizeof k->columns / sizeof k->columns[0] ||
        !k->table->columns[place].not_null || k->table->columns[place].generated) {
        k->unfit = true;
        return;
    }
    k->columns[k->n++] = (size_t)place;
}

/* A table's primary key is its first index, and wins; of the others the narrowest is taken. */
static void candidate_end(const struct candidate *k, bool *primary, struct arena *a)
{
    struct table *t = k->table;

    if (t == NULL || k->unfit || k->n == 0 || *primary || (t->nkey > 0 && t->nkey <= k->n))
        return;
    *primary = strcmp(k->name, "PRIMARY") == 0;
    for (size_t i = 0; i < t->ncolumns; i++)
        t->columns[i].key = 0;
    t->nkey = k->n;
    t->key = arena_zalloc(a, (k->n + 1) * sizeof *t->key);
    for (size_t i = 0; i < k->n; i++) {
        t->key[i] = k->columns[i];
        t->columns[k->columns[i]].key = (int)i + 1;
    }
    t->identity = IDENTITY_KEY;
}

static int read_keys(struct my_db *db, const struct table_list *list, struct arena *a,
                     struct err *e)
{
    MYSQL_RES *res = query_schemas(
        db,
        "SELECT table_schema, table_name, index_name, column_name, sub_part"
        " FROM information_schema.statistics",
        " AND non_unique = 0 ORDER BY CAST(table_schema AS BINARY), CAST(table_name AS BINARY),"
        " index_name <> 'PRIMARY', CAST(index_name AS BINARY), seq_in_index",
        list, e);
    struct candidate k = {0};
    bool primary = false;

    if (res == NULL)
        return -1;
    for (MYSQL_ROW row; (row = mysql_fetch_row(res)) != NULL;) {
        struct table *t = find(list, row[K_SCHEMA], row[K_TABLE]);

        if (t == NULL)
            continue;
        if (t != k.table || strcmp(k.name, row[K_INDEX]) != 0) {
            candidate_end(&k, &primary, a);
            primary = primary && t == k.table;
            k = (struct candidate){.table = t};
            snprintf(k.name, sizeof k.name, "%s", row[K_INDEX]);
        }
        candidate_add(&k, row);
    }
    candidate_end(&k, &primary, a);
    mysql_free_result(res);
    return 0;
}

/* ---- all of it ---- */

int my_tables(struct db *base, const struct selection *s, struct arena *a, struct table_list *out,
              struct err *e)
{
    struct my_db *db = my_db_from(base);

    if (read_tables(db, s, a, out, e) != 0 || read_columns(db, out, a, e) != 0 ||
        (db->maria && read_json(db, out, e) != 0) || read_keys(db, out, a, e) != 0)
        return err_wrap(e, "reading the catalog of %s", db->where);
    for (size_t i = 0; i < out->n; i++)
        if (out->v[i]->ncolumns == 0)
            return err_set(e, ERR_RETRY, "table %s changed while its catalog was read",
                           table_label(out->v[i]));
    return 0;
}
