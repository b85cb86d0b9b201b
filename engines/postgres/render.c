/* The steps that make another engine's tables here. PRE: schemas, and each table with its types and
 * comments in one transaction; KEY: what identifies rows, when they are loaded; INDEX; UNIQUE:
 * CONCURRENTLY, behind the highest cut; FOREIGN: NOT VALID, then VALIDATE; ANALYZE. */
#include "engines/postgres/pg.h"

#include <string.h>

#define NAME_BYTES 63

struct rendering {
    const struct schema_def *def;
    struct arena *arena;
    struct schema_steps *out;
    size_t cap;
    struct buf b;       /* the statement that is being written */
    const char **names; /* "schema.name" of relations that are taken */
    size_t nnames;
    size_t names_cap;
};

static const char *take_text(struct rendering *r)
{
    const char *s;

    invariant(!r->b.overflow);
    s = arena_strdup(r->arena, r->b.data ? r->b.data : "");
    buf_reset(&r->b, 65536);
    return s;
}

static void add(struct rendering *r, struct schema_step step)
{
    schema_steps_add(r->arena, r->out, &r->cap, step);
}

static void there_name(struct rendering *r, const struct table *t)
{
    pg_ident2(&r->b, table_there(t)->schema, table_there(t)->name);
}

/* ---- names: indexes share one room with tables and sequences, a schema ---- */

static bool name_is_taken(const struct rendering *r, const char *full)
{
    for (size_t i = 0; i < r->nnames; i++) {
        if (strcmp(r->names[i], full) == 0)
            return true;
    }
    return false;
}

static void name_take(struct rendering *r, const char *full)
{
    if (r->nnames == r->names_cap) {
        size_t cap = r->names_cap * 2 + 64;
        const char **grown = arena_alloc(r->arena, cap * sizeof(*grown));

        if (r->nnames)
            memcpy(grown, r->names, r->nnames * sizeof(*grown));
        r->names = grown;
        r->names_cap = cap;
    }
    r->names[r->nnames++] = full;
}

/* The wished name, else one with the table's in front, else a numbered one. */
static const char *name_choose(struct rendering *r, const struct table *t, const char *wish)
{
    const char *schema = table_there(t)->schema;
    const char *name = schema_object_name(r->arena, NAME_BYTES, wish);
    const char *full = arena_printf(r->arena, "%s.%s", schema, name);

    for (int i = 1; name_is_taken(r, full); i++) {
        const char *longer =
            i == 1 ? arena_printf(r->arena, "%s_%s", table_there(t)->name, wish)
                   : arena_printf(r->arena, "%s_%s_%d", table_there(t)->name, wish, i);

        name = schema_object_name(r->arena, NAME_BYTES, longer);
        full = arena_printf(r->arena, "%s.%s", schema, name);
    }
    name_take(r, full);
    return name;
}

/* ---- PRE ---- */

/* Asking first: IF NOT EXISTS wants the right to create even where there is nothing to do. */
static void schema_pre(struct rendering *r)
{
    for (size_t i = 0; i < r->def->n; i++) {
        const char *schema = table_there(r->def->tables[i].table)->schema;
        size_t before = 0;

        while (strcmp(table_there(r->def->tables[before].table)->schema, schema) != 0)
            before++;
        if (before < i)
            continue;
        buf_adds(&r->b, "DO $lockstep$ BEGIN IF to_regnamespace(quote_ident(");
        pg_literal(&r->b, schema);
        buf_adds(&r->b, ")) IS NULL THEN CREATE SCHEMA ");
        pg_ident(&r->b, schema);
        buf_adds(&r->b, "; END IF; END $lockstep$");
        add(r, (struct schema_step){.phase = SCHEMA_PRE,
                                    .name = arena_printf(r->arena, "schema %s", schema),
                                    .sql = take_text(r)});
    }
}

/* A type of its own for each list of labels. */
static void enum_type(struct rendering *r, const struct column_def *c, const struct column *to)
{
    if (strcmp(to->source_type, "text") == 0)
        return;
    buf_addf(&r->b, "CREATE TYPE %s AS ENUM (", to->source_type);
    for (size_t i = 0; i < c->nlabels; i++) {
        buf_adds(&r->b, i ? ", " : "");
        pg_literal(&r->b, c->labels[i]);
    }
    buf_adds(&r->b, ");\n");
}

/* An unsigned 64-bit key is a numeric, which can be no identity: a sequence of its own feeds it. */
static const char *own_sequence(struct rendering *r, const struct table *t,
                                const struct column_def *c)
{
    if (c->default_kind != DEFAULT_IDENTITY || c->column->kind != TYPE_DECIMAL)
        return NULL;
    return name_choose(r, t,
                       arena_printf(r->arena, "%s_%s_seq", table_there(t)->name, c->column->name));
}

static void column_default(struct rendering *r, const struct column_def *c, const struct column *to)
{
    const char *now = to->kind == TYPE_DATE          ? "CURRENT_DATE"
                      : to->kind == TYPE_TIME        ? "LOCALTIME"
                      : to->kind == TYPE_TIMESTAMPTZ ? "CURRENT_TIMESTAMP"
                                                     : "LOCALTIMESTAMP";

    switch (c->default_kind) {
    case DEFAULT_LITERAL:
        buf_adds(&r->b, " DEFAULT ");
        pg_literal(&r->b, c->default_text);
        break;
    case DEFAULT_NOW:
        buf_addf(&r->b, " DEFAULT %s", now);
        break;
    case DEFAULT_IDENTITY:
        if (to->kind != TYPE_DECIMAL)
            buf_adds(&r->b, " GENERATED BY DEFAULT AS IDENTITY");
        break;
    case DEFAULT_NONE:
    case DEFAULT_EXPRESSION:
    case DEFAULT_GENERATED:
        break;
    }
}

static void comment(struct rendering *r, const struct table *t, const char *column,
                    const char *text)
{
    if (!text || !*text)
        return;
    buf_addf(&r->b, ";\nCOMMENT ON %s ", column ? "COLUMN" : "TABLE");
    there_name(r, t);
    if (column) {
        buf_addc(&r->b, '.');
        pg_ident(&r->b, column);
    }
    buf_adds(&r->b, " IS ");
    pg_literal(&r->b, text);
}

static void column_line(struct rendering *r, const struct table_def *d, size_t i,
                        const char *sequence)
{
    const struct column *to = &table_there(d->table)->columns[i];

    buf_adds(&r->b, i ? ",\n    " : "    ");
    pg_ident(&r->b, to->name);
    buf_addf(&r->b, " %s", to->source_type);
    if (sequence) {
        struct buf quoted;

        buf_init(&quoted, 1024);
        pg_ident2(&quoted, table_there(d->table)->schema, sequence);
        buf_adds(&r->b, " DEFAULT nextval(");
        pg_literal(&r->b, quoted.data);
        buf_addc(&r->b, ')');
        buf_release(&quoted);
    } else {
        column_default(r, &d->columns[i], to);
    }
    if (to->not_null)
        buf_adds(&r->b, " NOT NULL");
}

static void table_pre(struct rendering *r, const struct table_def *d)
{
    const struct table *to = table_there(d->table);
    const char **sequences = arena_zalloc(r->arena, (to->ncolumns + 1) * sizeof(*sequences));

    for (size_t i = 0; i < to->ncolumns; i++) {
        if (to->columns[i].kind == TYPE_ENUM)
            enum_type(r, &d->columns[i], &to->columns[i]);
        sequences[i] = own_sequence(r, d->table, &d->columns[i]);
        if (!sequences[i])
            continue;
        buf_adds(&r->b, "CREATE SEQUENCE ");
        pg_ident2(&r->b, to->schema, sequences[i]);
        buf_adds(&r->b, ";\n");
    }
    buf_adds(&r->b, "CREATE TABLE ");
    there_name(r, d->table);
    buf_adds(&r->b, " (\n");
    for (size_t i = 0; i < to->ncolumns; i++)
        column_line(r, d, i, sequences[i]);
    buf_adds(&r->b, "\n)");
    for (size_t i = 0; i < to->ncolumns; i++) {
        if (!sequences[i])
            continue;
        buf_adds(&r->b, ";\nALTER SEQUENCE ");
        pg_ident2(&r->b, to->schema, sequences[i]);
        buf_adds(&r->b, " OWNED BY ");
        there_name(r, d->table);
        buf_addc(&r->b, '.');
        pg_ident(&r->b, to->columns[i].name);
    }
    comment(r, d->table, NULL, d->comment);
    for (size_t i = 0; i < to->ncolumns; i++)
        comment(r, d->table, to->columns[i].name, d->columns[i].comment);
    if (to->nkey == 0) {
        /* So that the way back, too, finds the rows. */
        buf_adds(&r->b, ";\nALTER TABLE ");
        there_name(r, d->table);
        buf_adds(&r->b, " REPLICA IDENTITY FULL");
    }
    add(r, (struct schema_step){.phase = SCHEMA_PRE,
                                .order = 1,
                                .name = arena_printf(r->arena, "table %s", table_label(to)),
                                .sql = take_text(r)});
}

/* ---- KEY, INDEX, UNIQUE ---- */

/* An index on the first characters of a text keeps its meaning as one on that expression. */
static void index_columns(struct rendering *r, const struct table *t, const struct index_def *x)
{
    for (size_t i = 0; i < x->ncolumns; i++) {
        const struct index_column *c = &x->columns[i];
        int place = table_column_find(t, c->name);
        bool bytes = place >= 0 && t->columns[place].kind == TYPE_BYTES;

        buf_adds(&r->b, i ? ", " : "");
        if (c->prefix)
            buf_addf(&r->b, "(%s(", bytes ? "substring" : "left");
        pg_ident(&r->b, c->name);
        if (c->prefix)
            buf_addf(&r->b, bytes ? ", 1, %d))" : ", %d))", c->prefix);
        buf_adds(&r->b, c->descending ? " DESC" : "");
    }
}

/* Is this the index whose columns are the table's key? */
static bool is_key(const struct table *t, const struct index_def *x)
{
    if (!x->unique || x->ncolumns != t->nkey)
        return false;
    for (size_t i = 0; i < x->ncolumns; i++) {
        if (x->columns[i].prefix || strcmp(x->columns[i].name, t->columns[t->key[i]].name) != 0)
            return false;
    }
    return t->nkey > 0;
}

static void primary_step(struct rendering *r, const struct table *t, const struct index_def *x)
{
    const char *name = name_choose(r, t, arena_printf(r->arena, "%s_pkey", table_there(t)->name));

    buf_adds(&r->b, "ALTER TABLE ");
    there_name(r, t);
    buf_adds(&r->b, " ADD CONSTRAINT ");
    pg_ident(&r->b, name);
    buf_adds(&r->b, " PRIMARY KEY (");
    for (size_t i = 0; i < x->ncolumns; i++) {
        buf_adds(&r->b, i ? ", " : "");
        pg_ident(&r->b, x->columns[i].name);
    }
    buf_addc(&r->b, ')');
    add(r,
        (struct schema_step){.phase = SCHEMA_KEY,
                             .name = arena_printf(r->arena, "key %s", table_label(table_there(t))),
                             .table = arena_strdup(r->arena, table_label(t)),
                             .sql = take_text(r)});
}

static void index_statement(struct rendering *r, const struct table *t, const struct index_def *x,
                            const char *name, bool online)
{
    buf_addf(&r->b, "CREATE %sINDEX %s", x->unique ? "UNIQUE " : "", online ? "CONCURRENTLY " : "");
    pg_ident(&r->b, name);
    buf_adds(&r->b, " ON ");
    there_name(r, t);
    buf_adds(&r->b, " (");
    index_columns(r, t, x);
    buf_addc(&r->b, ')');
}

static void index_step(struct rendering *r, const struct table_def *d, const struct index_def *x)
{
    const struct table *t = d->table;
    bool has_primary = d->nindexes && d->indexes[0].primary;
    bool key = !has_primary && is_key(t, x);
    bool online = x->unique && !key;
    const char *name = name_choose(r, t, x->name);
    struct schema_step step = {
        .phase = key         ? SCHEMA_KEY
                 : x->unique ? SCHEMA_UNIQUE
                             : SCHEMA_INDEX,
        .name = arena_printf(r->arena, "%sindex %s.%s", x->unique ? "unique " : "",
                             table_there(t)->schema, name),
        .table = arena_strdup(r->arena, table_label(t)),
        .online = online,
    };

    index_statement(r, t, x, name, online);
    if (key) {
        buf_adds(&r->b, ";\nALTER TABLE ");
        there_name(r, t);
        buf_adds(&r->b, " REPLICA IDENTITY USING INDEX ");
        pg_ident(&r->b, name);
    }
    step.sql = take_text(r);
    if (online) {
        buf_adds(&r->b, "DROP INDEX CONCURRENTLY IF EXISTS ");
        pg_ident2(&r->b, table_there(t)->schema, name);
        step.undo = take_text(r);
    }
    add(r, step);
}

/* ---- FOREIGN, ANALYZE ---- */

static void names_list(struct rendering *r, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        buf_adds(&r->b, i ? ", " : "");
        pg_ident(&r->b, names[i]);
    }
}

static void foreign_steps(struct rendering *r, const struct table *t, const struct foreign_def *f)
{
    static const char *const actions[] = {"RESTRICT", "NO ACTION", "CASCADE", "SET NULL",
                                          "SET DEFAULT"};
    const struct table_def *parent = schema_def_find(r->def, f->ref_table);
    const char *name = schema_object_name(r->arena, NAME_BYTES, f->name);
    const char *label;

    if (!parent)
        return;
    label = arena_printf(r->arena, "%s.%s", table_label(table_there(t)), name);
    buf_adds(&r->b, "ALTER TABLE ");
    there_name(r, t);
    buf_adds(&r->b, " ADD CONSTRAINT ");
    pg_ident(&r->b, name);
    buf_adds(&r->b, " FOREIGN KEY (");
    names_list(r, f->columns, f->ncolumns);
    buf_adds(&r->b, ") REFERENCES ");
    there_name(r, parent->table);
    buf_adds(&r->b, " (");
    names_list(r, f->ref_columns, f->ncolumns);
    buf_addf(&r->b, ") ON DELETE %s ON UPDATE %s NOT VALID", actions[f->on_delete],
             actions[f->on_update]);
    add(r, (struct schema_step){.phase = SCHEMA_FOREIGN,
                                .name = arena_printf(r->arena, "foreign key %s", label),
                                .sql = take_text(r)});
    buf_adds(&r->b, "ALTER TABLE ");
    there_name(r, t);
    buf_adds(&r->b, " VALIDATE CONSTRAINT ");
    pg_ident(&r->b, name);
    add(r, (struct schema_step){.phase = SCHEMA_FOREIGN,
                                .order = 1,
                                .name = arena_printf(r->arena, "validate %s", label),
                                .sql = take_text(r)});
}

static void table_steps(struct rendering *r, const struct table_def *d)
{
    const char *label = table_label(table_there(d->table));

    if (!d->exists)
        table_pre(r, d);
    for (size_t i = 0; i < d->nindexes; i++) {
        const struct index_def *x = &d->indexes[i];

        if (x->unfit)
            continue;
        if (x->primary)
            primary_step(r, d->table, x);
        else
            index_step(r, d, x);
    }
    for (size_t i = 0; i < d->nforeigns; i++)
        foreign_steps(r, d->table, &d->foreigns[i]);
    buf_adds(&r->b, "ANALYZE ");
    there_name(r, d->table);
    add(r, (struct schema_step){.phase = SCHEMA_ANALYZE,
                                .name = arena_printf(r->arena, "analyze %s", label),
                                .table = arena_strdup(r->arena, table_label(d->table)),
                                .sql = take_text(r)});
}

int pg_schema_render(const struct schema_def *def, bool native, struct arena *a,
                     struct schema_steps *out, struct err *e)
{
    struct rendering r = {.def = def, .arena = a, .out = out};

    *out = (struct schema_steps){0};
    buf_init(&r.b, BUF_MAX_TEXT);
    for (size_t i = 0; i < def->n; i++)
        name_take(&r, arena_strdup(a, table_label(table_there(def->tables[i].table))));
    schema_pre(&r);
    for (size_t i = 0; i < def->n; i++)
        table_steps(&r, &def->tables[i]);
    buf_release(&r.b);
    return 0;
}
