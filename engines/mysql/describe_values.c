/* Values that a column of another engine does not hold, looked for before anything is copied: one
 * bounded read a table says which columns have any, one more for each of those names a row. */
#include "engines/mysql/my.h"

#include <stdio.h>
#include <string.h>

#define READ_MS 20000
#define TIMED_OUT_MARIA 1969
#define TIMED_OUT_MYSQL 3024

#define ZERO_DATE "YEAR(%s) = 0 OR MONTH(%s) = 0 OR DAYOFMONTH(%s) = 0"

/* An escape that JSON does not have; and, outside of strings, a number that ends in its point:
 * MariaDB takes both. In hex, because what a backslash in a literal is depends on the sql_mode. */
#define PATTERN(hex) "CONVERT(X'" hex "' USING utf8mb4)"
#define ODD_ESCAPE                                                                                 \
    PATTERN("5E283F3A5B5E5C5C5D2B2B7C5C5C5B225C5C2F62666E7274755D292A2B5C5C5B5E225C5C2F62666E7274" \
            "755D") /* ^(?:[^\\]++|\\["\\/bfnrtu])*+\\[^"\\/bfnrtu] */
#define STRINGS PATTERN("22283F3A5B5E225C5C5D2B2B7C5C5C2E292A2B22") /* "(?:[^"\\]++|\\.)*+" */

#define NUL_CHARACTER "LOCATE(0x00, CAST(%s AS BINARY)) > 0"
/* MariaDB takes it for UTF-8, unlike MySQL 8 and everybody else: bytes ED A0 to ED BF. */
#define HALF_A_PAIR "CAST(%s AS BINARY) REGEXP X'ED5BA02DBF5D'" /* \xED[\xA0-\xBF] */

/* What no column of the kind on another engine holds; each %s is the column. The first that fits
 * the kind and the server counts. */
static const struct {
    enum type_kind kind;
    bool maria; /* on MariaDB alone */
    const char *unfit;
    const char *what;
} predicates[] = {
    {TYPE_BOOL, false, "%s NOT IN (0, 1)", "another number than 0 and 1"},
    {TYPE_TEXT, true, NUL_CHARACTER " OR " HALF_A_PAIR,
     "a NUL character or half of a surrogate pair"},
    {TYPE_TEXT, false, NUL_CHARACTER, "a NUL character"},
    {TYPE_DATE, false, ZERO_DATE, "a zero date"},
    {TYPE_TIMESTAMP, false, ZERO_DATE, "a zero date"},
    {TYPE_TIMESTAMPTZ, false, ZERO_DATE, "a zero date"},
    {TYPE_TIME, false, "%s < '00:00:00' OR %s > '24:00:00'",
     "a time outside of 00:00:00 to 24:00:00"},
    {TYPE_ENUM, false, "%s + 0 = 0", "a value outside of the list"},
    {TYPE_JSON, false,
     "%s REGEXP " ODD_ESCAPE " OR REGEXP_REPLACE(%s, " STRINGS ", '') REGEXP '[0-9][.]([^0-9]|$)'"
     " OR " HALF_A_PAIR,
     "what only MariaDB takes for JSON"},
};

static const char *quoted(struct arena *a, const char *name)
{
    struct buf b;
    const char *out;

    buf_init(&b, 1024);
    my_ident(&b, name);
    out = arena_strdup(a, b.data);
    buf_release(&b);
    return out;
}

static const char *predicate(struct arena *a, bool maria, const struct column *c, const char **what)
{
    const char *name = quoted(a, c->name);

    for (size_t p = 0; p < sizeof(predicates) / sizeof(predicates[0]); p++) {
        if (predicates[p].kind != c->kind || (predicates[p].maria && !maria) ||
            strcmp(c->source_type, "json") == 0)
            continue; /* MySQL's own JSON has but one form */
        *what = predicates[p].what;
        return arena_printf(a, predicates[p].unfit, name, name, name);
    }
    return NULL;
}

struct reading {
    struct my_db *db;
    const struct table_def *def;
    struct arena *arena;
    struct findings *out;
    const char *from; /* `schema`.`table` */
    bool timed_out;
};

static void found(struct reading *r, bool fatal, const char *object, const char *what,
                  const char *remedy)
{
    findings_add(r->arena, r->out, (struct finding){fatal, object, what, remedy});
}

/* One statement that the server itself ends in time; the two say it each in their own way. */
static MYSQL_RES *query(struct reading *r, const char *rest, struct err *e)
{
    MYSQL_RES *res =
        r->db->maria
            ? my_queryf(r->db, e, "SET STATEMENT max_statement_time = %d FOR SELECT %s",
                        READ_MS / 1000, rest)
            : my_queryf(r->db, e, "SELECT /*+ MAX_EXECUTION_TIME(%d) */ %s", READ_MS, rest);

    if (!res) {
        unsigned code = mysql_errno(r->db->conn);

        r->timed_out = code == TIMED_OUT_MARIA || code == TIMED_OUT_MYSQL;
    }
    return res;
}

static int name_row(struct reading *r, size_t i, const char *condition, const char *what,
                    struct err *e)
{
    const struct table *t = r->def->table;
    const char *key = "'?'";
    const char *object = arena_printf(r->arena, "%s.%s", table_label(t), t->columns[i].name);
    MYSQL_RES *res;
    MYSQL_ROW row;

    for (size_t k = 0; k < t->nkey; k++)
        key = arena_printf(r->arena, "%s%s%s", k ? key : "", k ? ", " : "",
                           quoted(r->arena, t->columns[t->key[k]].name));
    res = query(r,
                arena_printf(r->arena, "CONCAT_WS(', ', %s) FROM %s WHERE %s LIMIT 1", key, r->from,
                             condition),
                e);
    if (!res)
        return -1;
    row = mysql_fetch_row(res);
    if (row)
        found(r, true, object,
              arena_printf(r->arena, "row (%s) holds %s, which %s does not hold",
                           row[0] ? row[0] : "?", what, table_there(t)->columns[i].source_type),
              "change those rows, or exclude the table");
    mysql_free_result(res);
    return 0;
}

static int read_table(struct reading *r, const char *const *conditions, const char *const *whats,
                      const char *list, struct err *e)
{
    MYSQL_RES *res = query(r, arena_printf(r->arena, "%s FROM %s", list, r->from), e);
    MYSQL_ROW row = res ? mysql_fetch_row(res) : NULL;
    int rc = res ? 0 : -1;
    size_t column = 0;

    for (size_t i = 0; row && rc == 0 && i < r->def->table->ncolumns; i++) {
        if (conditions[i] && my_int(row[column++]))
            rc = name_row(r, i, conditions[i], whats[i], e);
    }
    if (res)
        mysql_free_result(res);
    return rc;
}

int my_unfit_values(struct db *base, const struct table_def *def, const struct verdict *verdicts,
                    struct arena *a, struct findings *out, struct err *e)
{
    const struct table *t = def->table;
    const char **conditions = arena_zalloc(a, (t->ncolumns + 1) * sizeof(*conditions));
    const char **whats = arena_zalloc(a, (t->ncolumns + 1) * sizeof(*whats));
    struct reading r = {my_db_from(base), def, a, out, NULL, false};
    const char *list = "";
    int rc;

    for (size_t i = 0; i < t->ncolumns; i++) {
        if (verdicts[i].forward != FIDELITY_CONDITION)
            continue;
        conditions[i] = predicate(a, r.db->maria, &t->columns[i], &whats[i]);
        if (conditions[i])
            list = arena_printf(a, "%s%sMAX(%s)", list, *list ? ", " : "", conditions[i]);
    }
    if (!*list)
        return 0;
    r.from = arena_printf(a, "%s.%s", quoted(a, t->schema), quoted(a, t->name));
    rc = read_table(&r, conditions, whats, list, e);
    if (rc < 0 && r.timed_out) {
        found(&r, false, table_label(t),
              "its values could not all be read in 20 s: what does not fit will park the table",
              "nothing, or look for it by hand: lockstep plan names the conditions");
        err_clear(e);
        rc = 0;
    }
    return rc;
}
