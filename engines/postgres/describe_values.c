/* Values that a column of another engine does not hold, looked for before anything is copied: one
 * bounded read a table says which columns have any, one more for each of those names a row. */
#include "engines/postgres/pg.h"

#include <string.h>

#define READ_MS "20000"
#define YEARS(type) "NOT (%s >= '0001-01-01'::" type " AND %s < '10000-01-01'::" type ")"

/* What no column of the kind on another engine holds; each %s is the column. */
static const struct {
    enum type_kind kind;
    const char *unfit;
    const char *what;
} predicates[] = {
    {TYPE_FLOAT32, "(%s IN ('NaN', 'Infinity', '-Infinity') OR %s::text = '-0')",
     "NaN, infinity or negative zero"},
    {TYPE_FLOAT64, "(%s IN ('NaN', 'Infinity', '-Infinity') OR %s::text = '-0')",
     "NaN, infinity or negative zero"},
    {TYPE_DECIMAL, "%s = 'NaN'", "NaN"},
    {TYPE_DATE, YEARS("date"), "a date outside of years 1 to 9999"},
    {TYPE_TIMESTAMP, YEARS("timestamp"), "a time outside of years 1 to 9999"},
    {TYPE_TIMESTAMPTZ, YEARS("timestamptz"), "a time outside of years 1 to 9999"},
};

static const char *quoted(struct arena *a, const char *name)
{
    struct buf b;
    const char *out;

    buf_init(&b, 1024);
    pg_ident(&b, name);
    out = arena_strdup(a, b.data);
    buf_release(&b);
    return out;
}

/* The condition that finds what does not fit; NULL: all does. */
static const char *predicate(struct arena *a, const struct table_def *d, size_t i,
                             const char **what)
{
    const struct column *c = &d->table->columns[i];
    const struct column *to = &table_there(d->table)->columns[i];
    const char *name = quoted(a, c->name);

    if ((c->kind == TYPE_TEXT || c->kind == TYPE_BYTES) && to->length &&
        (!c->length || c->length > to->length)) {
        bool text = c->kind == TYPE_TEXT;

        *what = arena_printf(a, "more than %d %s", to->length, text ? "characters" : "bytes");
        return arena_printf(a, "%s(%s) > %d", text ? "char_length" : "octet_length", name,
                            to->length);
    }
    for (size_t p = 0; p < sizeof(predicates) / sizeof(predicates[0]); p++) {
        if (predicates[p].kind != c->kind)
            continue;
        *what = predicates[p].what;
        return arena_printf(a, predicates[p].unfit, name, name);
    }
    return NULL;
}

struct reading {
    struct pg_db *db;
    const struct table_def *def;
    struct arena *arena;
    struct findings *out;
    const char *from; /* "schema"."table" */
};

static void found(struct reading *r, bool fatal, const char *object, const char *what,
                  const char *remedy)
{
    findings_add(r->arena, r->out, (struct finding){fatal, object, what, remedy});
}

static int name_row(struct reading *r, size_t i, const char *condition, const char *what,
                    struct err *e)
{
    const struct table *t = r->def->table;
    const char *key = "ctid";
    const char *object = arena_printf(r->arena, "%s.%s", table_label(t), t->columns[i].name);
    PGresult *res;

    for (size_t k = 0; k < t->nkey; k++)
        key = arena_printf(r->arena, "%s%s%s", k ? key : "", k ? ", " : "",
                           quoted(r->arena, t->columns[t->key[k]].name));
    res =
        pg_query(r->db,
                 arena_printf(r->arena, "SELECT concat_ws(', ', %s) FROM ONLY %s WHERE %s LIMIT 1",
                              key, r->from, condition),
                 0, NULL, e);
    if (!res)
        return -1;
    if (PQntuples(res) > 0)
        found(r, true, object,
              arena_printf(r->arena, "row (%s) holds %s, which %s does not hold",
                           PQgetvalue(res, 0, 0), what, table_there(t)->columns[i].source_type),
              "change those rows, or exclude the table");
    PQclear(res);
    return 0;
}

static int read_table(struct reading *r, const char *const *conditions, const char *const *whats,
                      const char *list, struct err *e)
{
    PGresult *res = pg_query(r->db, arena_printf(r->arena, "SELECT %s FROM ONLY %s", list, r->from),
                             0, NULL, e);
    int rc = 0;
    int column = 0;

    if (!res)
        return -1;
    for (size_t i = 0; rc == 0 && i < r->def->table->ncolumns; i++) {
        if (conditions[i] && pg_bool(res, 0, column++))
            rc = name_row(r, i, conditions[i], whats[i], e);
    }
    PQclear(res);
    return rc;
}

int pg_unfit_values(struct db *base, const struct table_def *def, const struct verdict *verdicts,
                    struct arena *a, struct findings *out, struct err *e)
{
    const struct table *t = def->table;
    const char **conditions = arena_zalloc(a, (t->ncolumns + 1) * sizeof(*conditions));
    const char **whats = arena_zalloc(a, (t->ncolumns + 1) * sizeof(*whats));
    struct reading r = {pg_db_from(base), def, a, out, NULL};
    const char *list = "";
    int rc;

    for (size_t i = 0; i < t->ncolumns; i++) {
        if (verdicts[i].forward != FIDELITY_CONDITION)
            continue;
        conditions[i] = predicate(a, def, i, &whats[i]);
        if (conditions[i])
            list = arena_printf(a, "%s%sbool_or(%s)", list, *list ? ", " : "", conditions[i]);
    }
    if (!*list)
        return 0;
    r.from = arena_printf(a, "%s.%s", quoted(a, t->schema), quoted(a, t->name));
    if (pg_exec(r.db, "BEGIN READ ONLY; SET LOCAL statement_timeout = " READ_MS, e) < 0)
        return -1;
    rc = read_table(&r, conditions, whats, list, e);
    if (!r.db->broken)
        pg_rollback(base, NULL);
    if (rc < 0 && strcmp(e->sqlstate, "57014") == 0) {
        found(&r, false, table_label(t),
              "its values could not all be read in 20 s: what does not fit will park the table",
              "nothing, or look for it by hand: lockstep plan names the conditions");
        err_clear(e);
        rc = 0;
    }
    return rc;
}
