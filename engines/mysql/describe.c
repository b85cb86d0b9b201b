/* What the tables are made of, from information_schema, for another server or engine to make the
 * same (engines/def.h). It shows a user what he has any right on. */
#include "engines/mysql/my.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct describing {
    struct my_db *db;
    struct arena *arena;
    struct table_def *def; /* the table that is being read */
    const char *where;     /* "TABLE_SCHEMA = '…' AND TABLE_NAME = '…'" */
};

static const char *copy(const struct describing *d, const char *s)
{
    return s ? arena_strdup(d->arena, s) : NULL;
}

/* ---- texts of the server ---- */

/* The text between quotes at *p, which moves behind it; NULL: it is not one. Quotes are doubled;
 * what cannot be shown is escaped by a backslash. */
static const char *quoted(struct arena *a, const char **p)
{
    const char *s = *p + 1;
    char *out = arena_alloc(a, strlen(*p) + 1);
    size_t n = 0;

    if (**p != '\'')
        return NULL;
    for (; *s && !(s[0] == '\'' && s[1] != '\''); s++) {
        char c = *s;

        if (s[0] == '\'') {
            s++;
        } else if (s[0] == '\\' && s[1]) {
            s++;
            c = *s;
            c = c == 'n' ? '\n' : c == 'r' ? '\r' : c == 't' ? '\t' : c;
        }
        out[n++] = c;
    }
    if (*s != '\'')
        return NULL;
    out[n] = '\0';
    *p = s + 1;
    return out;
}

/* enum('a','b''c') */
static void labels(struct arena *a, const char *type, struct column_def *c)
{
    const char *p = strchr(type, '(');
    size_t n = 1;
    const char **v;

    for (const char *q = type; *q; q++)
        n += *q == ',';
    v = arena_zalloc(a, (n + 1) * sizeof(*v));
    while (p && (*p == '(' || *p == ',')) {
        const char *label;

        p++;
        label = quoted(a, &p);
        if (!label)
            break;
        v[c->nlabels++] = label;
    }
    c->labels = v;
}

static bool is_number(const char *s)
{
    size_t n = strlen(s);

    return n && strspn(s[0] == '-' ? s + 1 : s, "0123456789.eE+-") == n - (s[0] == '-');
}

static bool is_now(const char *s)
{
    return strncasecmp(s, "current_timestamp", 17) == 0 || strncasecmp(s, "now(", 4) == 0 ||
           strncasecmp(s, "curdate()", 9) == 0 || strncasecmp(s, "current_date", 12) == 0;
}

static bool is_zero_date(const struct column *c, const char *s)
{
    return (c->kind == TYPE_DATE || c->kind == TYPE_TIMESTAMP || c->kind == TYPE_TIMESTAMPTZ) &&
           (strncmp(s, "0000", 4) == 0 || strstr(s, "-00"));
}

/* A literal in its kind's form; what has none there (bytes, zero dates) stays the server's own. */
static void literal_default(struct arena *a, const char *text, struct column_def *c)
{
    const struct column *col = c->column;

    if (col->kind == TYPE_BYTES || col->kind == TYPE_OTHER || is_zero_date(col, text)) {
        c->default_kind = DEFAULT_EXPRESSION;
        c->default_text = arena_printf(a, "'%s'", text);
        return;
    }
    c->default_kind = DEFAULT_LITERAL;
    c->default_text = text;
    if (col->kind == TYPE_BOOL)
        c->default_text = strcmp(text, "0") == 0 ? "f" : "t";
    if (col->kind == TYPE_TIMESTAMPTZ)
        c->default_text = arena_printf(a, "%s+00", text);
}

/* MariaDB shows the text of the clause, MySQL the value, and says apart whether it is one. */
static void default_of(const struct describing *d, const char *shown, const char *extra,
                       struct column_def *c)
{
    bool maria = d->db->maria;
    const char *p = shown;
    const char *text;

    if (strstr(extra, "auto_increment")) {
        c->default_kind = DEFAULT_IDENTITY;
        return;
    }
    if (!shown || (maria && strcasecmp(shown, "NULL") == 0))
        return;
    if (is_now(shown)) {
        c->default_kind = DEFAULT_NOW;
        return;
    }
    text = maria ? quoted(d->arena, &p) : NULL;
    if (text && *p == '\0')
        literal_default(d->arena, text, c);
    else if (maria ? is_number(shown) : !strstr(extra, "DEFAULT_GENERATED"))
        literal_default(d->arena, copy(d, shown), c);
    else {
        c->default_kind = DEFAULT_EXPRESSION;
        c->default_text = copy(d, shown);
    }
}

/* ---- columns ---- */

static bool known_charset(const char *name)
{
    static const char *const known[] = {"utf8mb4", "utf8mb3", "utf8", "ascii"};

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(name, known[i]) == 0)
            return true;
    }
    return false;
}

static const char *unfit(const struct describing *d, const struct column *c, const char *charset)
{
    if (charset && !known_charset(charset))
        return arena_printf(d->arena, "its character set is %s, not utf8mb4, utf8mb3 or ascii",
                            charset);
    if (c->kind == TYPE_OTHER)
        return "it is of none of the kinds that both engines have";
    if ((c->kind == TYPE_FLOAT32 || c->kind == TYPE_FLOAT64) && strchr(c->source_type, ','))
        return "a float with a declared size rounds what is written to it";
    return NULL;
}

/* A collation of which we know that it tells apart whatever differs in its bytes. */
static bool is_bytewise(const char *collation)
{
    return strcmp(collation, "binary") == 0 || strstr(collation, "nopad_bin") ||
           strstr(collation, "0900_bin");
}

enum { C_NAME, C_DEFAULT, C_EXTRA, C_TYPE, C_COLLATION, C_CHARSET, C_COMMENT, C_GENERATED };

static void column_fill(const struct describing *d, MYSQL_ROW row, struct column_def *c)
{
    const char *extra = row[C_EXTRA] ? row[C_EXTRA] : "";

    if (row[C_GENERATED] && *row[C_GENERATED]) {
        c->default_kind = DEFAULT_GENERATED;
        c->default_text = copy(d, row[C_GENERATED]);
        c->stored = strstr(extra, "STORED") || strstr(extra, "PERSISTENT");
    } else {
        default_of(d, copy(d, row[C_DEFAULT]), extra, c);
    }
    c->on_update_now = strstr(extra, "on update") != NULL;
    if (c->column->kind == TYPE_ENUM)
        labels(d->arena, row[C_TYPE], c);
    c->collation = copy(d, row[C_COLLATION]);
    c->case_insensitive = c->collation && !is_bytewise(c->collation);
    c->comment = copy(d, row[C_COMMENT]);
    c->unfit = unfit(d, c->column, row[C_CHARSET]);
}

static int columns(const struct describing *d, struct err *e)
{
    const struct table *t = d->def->table;
    MYSQL_RES *res =
        my_queryf(d->db, e,
                  "SELECT COLUMN_NAME, COLUMN_DEFAULT, EXTRA, COLUMN_TYPE, COLLATION_NAME,"
                  " CHARACTER_SET_NAME, COLUMN_COMMENT, GENERATION_EXPRESSION"
                  " FROM information_schema.COLUMNS WHERE %s",
                  d->where);
    size_t filled = 0;
    MYSQL_ROW row;

    if (!res)
        return -1;
    while ((row = mysql_fetch_row(res))) {
        int place = table_column_find(t, row[C_NAME]);

        if (place < 0)
            continue;
        column_fill(d, row, &d->def->columns[place]);
        filled++;
    }
    mysql_free_result(res);
    if (filled == t->ncolumns)
        return 0;
    return err_set(e, ERR_RETRY, "table %s changed while its catalog was read", table_label(t));
}

/* ---- lists whose elements are told by consecutive rows: indexes, foreign keys ---- */

/* How many rows of the result there are, and of how many different names (column 0). */
static size_t count_groups(MYSQL_RES *res)
{
    char last[300] = "";
    size_t n = 0;
    MYSQL_ROW row;

    while ((row = mysql_fetch_row(res))) {
        if (n && strcmp(last, row[0]) == 0)
            continue;
        snprintf(last, sizeof(last), "%s", row[0]);
        n++;
    }
    mysql_data_seek(res, 0);
    return n;
}

enum { X_NAME, X_NON_UNIQUE, X_COLUMN, X_PREFIX, X_ORDER, X_TYPE };

static void index_row(const struct describing *d, MYSQL_ROW row, struct index_def *x)
{
    struct index_column *v = arena_zalloc(d->arena, (x->ncolumns + 2) * sizeof(*v));

    if (x->ncolumns)
        memcpy(v, x->columns, x->ncolumns * sizeof(*v));
    x->name = copy(d, row[X_NAME]);
    x->primary = strcmp(row[X_NAME], "PRIMARY") == 0;
    x->unique = strcmp(row[X_NON_UNIQUE], "0") == 0;
    if (strcmp(row[X_TYPE], "FULLTEXT") == 0 || strcmp(row[X_TYPE], "SPATIAL") == 0)
        x->unfit = arena_printf(d->arena, "it is a %s index", row[X_TYPE]);
    if (!row[X_COLUMN])
        x->unfit = "it is on an expression";
    v[x->ncolumns].name = row[X_COLUMN] ? copy(d, row[X_COLUMN]) : "";
    v[x->ncolumns].prefix = (int)my_int(row[X_PREFIX]);
    v[x->ncolumns].descending = row[X_ORDER] && row[X_ORDER][0] == 'D';
    x->ncolumns++;
    x->columns = v;
}

static int indexes(const struct describing *d, struct err *e)
{
    MYSQL_RES *res =
        my_queryf(d->db, e,
                  "SELECT INDEX_NAME, NON_UNIQUE, COLUMN_NAME, SUB_PART, COLLATION, INDEX_TYPE"
                  " FROM information_schema.STATISTICS WHERE %s"
                  " ORDER BY INDEX_NAME = 'PRIMARY' DESC, INDEX_NAME, SEQ_IN_INDEX",
                  d->where);
    struct table_def *t = d->def;
    MYSQL_ROW row;

    if (!res)
        return -1;
    t->indexes = arena_zalloc(d->arena, (count_groups(res) + 1) * sizeof(*t->indexes));
    while ((row = mysql_fetch_row(res))) {
        if (!t->nindexes || strcmp(t->indexes[t->nindexes - 1].name, row[X_NAME]) != 0)
            t->nindexes++;
        index_row(d, row, &t->indexes[t->nindexes - 1]);
    }
    mysql_free_result(res);
    return 0;
}

static enum foreign_action action_of(const char *s)
{
    static const struct {
        const char *word;
        enum foreign_action action;
    } words[] = {{"RESTRICT", FOREIGN_RESTRICT},
                 {"CASCADE", FOREIGN_CASCADE},
                 {"SET NULL", FOREIGN_SET_NULL},
                 {"SET DEFAULT", FOREIGN_SET_DEFAULT}};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp(s, words[i].word) == 0)
            return words[i].action;
    }
    return FOREIGN_NO_ACTION;
}

static const char *const *grown(struct arena *a, const char *const *list, size_t n,
                                const char *more)
{
    const char **v = arena_zalloc(a, (n + 2) * sizeof(*v));

    if (n)
        memcpy(v, list, n * sizeof(*v));
    v[n] = arena_strdup(a, more);
    return v;
}

enum { F_NAME, F_COLUMN, F_REF_SCHEMA, F_REF_TABLE, F_REF_COLUMN, F_DELETE, F_UPDATE };

static void foreign_row(const struct describing *d, MYSQL_ROW row, struct foreign_def *f)
{
    f->name = copy(d, row[F_NAME]);
    f->columns = grown(d->arena, f->columns, f->ncolumns, row[F_COLUMN]);
    f->ref_columns = grown(d->arena, f->ref_columns, f->ncolumns, row[F_REF_COLUMN]);
    f->ncolumns++;
    f->ref_table = arena_printf(d->arena, "%s.%s", row[F_REF_SCHEMA], row[F_REF_TABLE]);
    f->on_delete = action_of(row[F_DELETE]);
    f->on_update = action_of(row[F_UPDATE]);
}

static int foreigns(const struct describing *d, struct err *e)
{
    MYSQL_RES *res =
        my_queryf(d->db, e,
                  "SELECT u.CONSTRAINT_NAME, u.COLUMN_NAME, u.REFERENCED_TABLE_SCHEMA,"
                  " u.REFERENCED_TABLE_NAME, u.REFERENCED_COLUMN_NAME, r.DELETE_RULE,"
                  " r.UPDATE_RULE FROM (SELECT * FROM information_schema.KEY_COLUMN_USAGE"
                  "  WHERE %s AND REFERENCED_TABLE_NAME IS NOT NULL) u"
                  " JOIN information_schema.REFERENTIAL_CONSTRAINTS r"
                  " ON r.CONSTRAINT_SCHEMA = u.CONSTRAINT_SCHEMA"
                  " AND r.CONSTRAINT_NAME = u.CONSTRAINT_NAME AND r.TABLE_NAME = u.TABLE_NAME"
                  " ORDER BY u.CONSTRAINT_NAME, u.ORDINAL_POSITION",
                  d->where);
    struct table_def *t = d->def;
    MYSQL_ROW row;

    if (!res)
        return -1;
    t->foreigns = arena_zalloc(d->arena, (count_groups(res) + 1) * sizeof(*t->foreigns));
    while ((row = mysql_fetch_row(res))) {
        if (!t->nforeigns || strcmp(t->foreigns[t->nforeigns - 1].name, row[F_NAME]) != 0)
            t->nforeigns++;
        foreign_row(d, row, &t->foreigns[t->nforeigns - 1]);
    }
    mysql_free_result(res);
    return 0;
}

/* ---- checks, comment ---- */

/* What MariaDB adds to a column that was declared as JSON is no check of the user's. */
static bool is_json_check(const char *clause)
{
    return strncmp(clause, "json_valid(`", 12) == 0 && strchr(clause + 12, '`') &&
           strcmp(strchr(clause + 12, '`'), "`)") == 0;
}

static int checks(const struct describing *d, struct err *e)
{
    const char *sql = d->db->maria
                          ? "SELECT CHECK_CLAUSE FROM (SELECT CONSTRAINT_SCHEMA AS TABLE_SCHEMA,"
                            " TABLE_NAME, CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS) c"
                            " WHERE %s"
                          : "SELECT c.CHECK_CLAUSE FROM information_schema.TABLE_CONSTRAINTS t"
                            " JOIN information_schema.CHECK_CONSTRAINTS c"
                            " ON c.CONSTRAINT_SCHEMA = t.CONSTRAINT_SCHEMA"
                            " AND c.CONSTRAINT_NAME = t.CONSTRAINT_NAME WHERE %s"
                            " AND t.CONSTRAINT_TYPE = 'CHECK'";
    MYSQL_RES *res = my_queryf(d->db, e, sql, d->where);
    struct table_def *t = d->def;
    MYSQL_ROW row;

    if (!res)
        return -1;
    while ((row = mysql_fetch_row(res))) {
        if (!row[0] || is_json_check(row[0]))
            continue;
        t->checks = grown(d->arena, t->checks, t->nchecks, row[0]);
        t->nchecks++;
    }
    mysql_free_result(res);
    return 0;
}

static int table_comment(const struct describing *d, struct err *e)
{
    MYSQL_RES *res = my_queryf(
        d->db, e, "SELECT TABLE_COMMENT FROM information_schema.TABLES WHERE %s", d->where);
    MYSQL_ROW row;

    if (!res)
        return -1;
    row = mysql_fetch_row(res);
    if (row)
        d->def->comment = copy(d, row[0]);
    mysql_free_result(res);
    return 0;
}

/* ---- all of it ---- */

static const char *where_of(const struct table *t, struct arena *a)
{
    struct buf b;
    const char *out;

    buf_init(&b, 4096);
    buf_adds(&b, "TABLE_SCHEMA = ");
    my_literal(&b, t->schema, strlen(t->schema));
    buf_adds(&b, " AND TABLE_NAME = ");
    my_literal(&b, t->name, strlen(t->name));
    invariant(!b.overflow);
    out = arena_strdup(a, b.data);
    buf_release(&b);
    return out;
}

int my_describe(struct db *base, const struct table_list *tables, struct arena *a,
                struct schema_def *out, struct err *e)
{
    *out = (struct schema_def){0};
    out->tables = arena_zalloc(a, (tables->n + 1) * sizeof(*out->tables));
    for (size_t i = 0; i < tables->n; i++) {
        const struct table *t = tables->v[i];
        struct table_def *def = &out->tables[out->n++];
        struct describing d = {my_db_from(base), a, def, where_of(t, a)};

        def->table = t;
        def->columns = arena_zalloc(a, (t->ncolumns + 1) * sizeof(*def->columns));
        for (size_t c = 0; c < t->ncolumns; c++)
            def->columns[c].column = &t->columns[c];
        if (columns(&d, e) < 0 || indexes(&d, e) < 0 || foreigns(&d, e) < 0 || checks(&d, e) < 0 ||
            table_comment(&d, e) < 0)
            return err_wrap(e, "describing table %s", table_label(t));
    }
    schema_def_finish(out);
    return 0;
}
