/* The steps that make tables here. DDL commits by itself on these servers, so every step is one
 * statement, an online one, with what undoes it. PRE: databases and tables with their key; INDEX;
 * UNIQUE: behind the highest cut; FOREIGN; ANALYZE.
 *
 * What the two servers call differently stands in comments that only one of them runs: MariaDB
 * reads M-comments and passes over versions 50700 to 99999, MySQL the other way round. */
#include "engines/mysql/my.h"

#include <stdio.h>
#include <string.h>

#define NAME_BYTES 64
#define KEY_BYTES 3072
#define CHAR_BYTES 4
/* Stands for a unique index that is not there yet. */
#define COUNTER_INDEX "lockstep_counter"

struct rendering {
    const struct schema_def *def;
    bool native;
    struct arena *arena;
    struct schema_steps *out;
    size_t cap;
    struct buf b; /* the statement that is being written */
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
    step.online = true;
    step.whole = true;
    schema_steps_add(r->arena, r->out, &r->cap, step);
}

static void there_name(struct rendering *r, const struct table *t)
{
    my_ident2(&r->b, table_there(t)->schema, table_there(t)->name);
}

static void literal(struct rendering *r, const char *s)
{
    my_literal(&r->b, s, strlen(s));
}

/* ---- PRE ---- */

static void database_steps(struct rendering *r)
{
    for (size_t i = 0; i < r->def->n; i++) {
        const char *schema = table_there(r->def->tables[i].table)->schema;
        size_t before = 0;

        while (strcmp(table_there(r->def->tables[before].table)->schema, schema) != 0)
            before++;
        if (before < i)
            continue;
        buf_adds(&r->b, "CREATE DATABASE IF NOT EXISTS ");
        my_ident(&r->b, schema);
        buf_adds(&r->b, " CHARACTER SET utf8mb4");
        add(r, (struct schema_step){.phase = SCHEMA_PRE,
                                    .name = arena_printf(r->arena, "database %s", schema),
                                    .sql = take_text(r)});
    }
}

/* Texts of another engine are told apart by their bytes, blanks at the end included; those of this
 * engine keep their collation, or get its like on the other server (collate.c). */
static void collation(struct rendering *r, const struct column_def *c, const struct column *to)
{
    if (to->kind != TYPE_TEXT && to->kind != TYPE_ENUM && to->kind != TYPE_JSON &&
        to->kind != TYPE_UUID)
        return;
    if (!r->native) {
        if (to->kind == TYPE_UUID)
            buf_adds(&r->b, " CHARACTER SET ascii COLLATE ascii_bin");
        else
            buf_adds(&r->b, " CHARACTER SET utf8mb4 /*M! COLLATE utf8mb4_nopad_bin */"
                            " /*!80017 COLLATE utf8mb4_0900_bin */");
        return;
    }
    if (!c->collation)
        return;
    buf_addf(&r->b, " CHARACTER SET %.*s", (int)strcspn(c->collation, "_"), c->collation);
    my_collate(&r->b, c->collation);
}

static bool is_long(const struct column *c)
{
    return strstr(c->source_type, "text") || strstr(c->source_type, "blob") ||
           strstr(c->source_type, "json");
}

static void now(struct rendering *r, const struct column *to)
{
    if (to->kind == TYPE_DATE)
        buf_adds(&r->b, "(CURRENT_DATE)");
    else if (to->kind == TYPE_TIME)
        buf_adds(&r->b, "(CURRENT_TIME)");
    else if (!r->native && to->kind == TYPE_TIMESTAMPTZ)
        buf_addf(&r->b, "(UTC_TIMESTAMP(%d))", to->fraction);
    else if (to->fraction)
        buf_addf(&r->b, "CURRENT_TIMESTAMP(%d)", to->fraction);
    else
        buf_adds(&r->b, "CURRENT_TIMESTAMP");
}

/* A default in its kind's form, as this server reads it. A long text's is an expression. */
static void literal_default(struct rendering *r, const struct column_def *c,
                            const struct column *to)
{
    const char *text = c->default_text;

    buf_adds(&r->b, is_long(to) ? " DEFAULT (" : " DEFAULT ");
    if (to->kind == TYPE_BOOL)
        buf_adds(&r->b, text[0] == 't' ? "1" : "0");
    else if (to->kind == TYPE_TIMESTAMPTZ && strlen(text) > 3 &&
             strcmp(text + strlen(text) - 3, "+00") == 0)
        my_literal(&r->b, text, strlen(text) - 3);
    else
        literal(r, text);
    buf_adds(&r->b, is_long(to) ? ")" : "");
}

static bool counts(const struct table_def *d, const struct column_def *c)
{
    const struct index_def *x;
    int counter = table_counter(d, &x);

    return counter >= 0 && c == &d->columns[counter];
}

static void column_default(struct rendering *r, const struct table_def *d,
                           const struct column_def *c, const struct column *to)
{
    switch (c->default_kind) {
    case DEFAULT_LITERAL:
        literal_default(r, c, to);
        break;
    case DEFAULT_NOW:
        buf_adds(&r->b, " DEFAULT ");
        now(r, to);
        break;
    case DEFAULT_IDENTITY:
        if (counts(d, c))
            buf_adds(&r->b, " AUTO_INCREMENT");
        break;
    case DEFAULT_EXPRESSION:
        if (r->native)
            buf_addf(&r->b, " DEFAULT (%s)", c->default_text);
        break;
    case DEFAULT_NONE:
        /* Else a timestamp would get one that nobody asked for. */
        if (!to->not_null)
            buf_adds(&r->b, " DEFAULT NULL");
        break;
    case DEFAULT_GENERATED:
        break;
    }
    if (c->on_update_now && r->native) {
        buf_adds(&r->b, " ON UPDATE ");
        now(r, to);
    }
}

static void column_line(struct rendering *r, const struct table_def *d, size_t i)
{
    const struct column *to = &table_there(d->table)->columns[i];
    const struct column_def *c = &d->columns[i];

    buf_adds(&r->b, "    ");
    my_ident(&r->b, to->name);
    buf_addf(&r->b, " %s", to->source_type);
    collation(r, c, to);
    if (c->default_kind == DEFAULT_GENERATED && r->native)
        buf_addf(&r->b, " GENERATED ALWAYS AS (%s) %s", c->default_text,
                 c->stored ? "STORED" : "VIRTUAL");
    else
        buf_adds(&r->b, to->not_null ? " NOT NULL" : " NULL");
    column_default(r, d, c, to);
    if (c->comment && *c->comment) {
        buf_adds(&r->b, " COMMENT ");
        literal(r, c->comment);
    }
}

/* ---- indexes ---- */

static size_t bytes_of(const struct column *c)
{
    return (size_t)c->length * (c->kind == TYPE_TEXT ? CHAR_BYTES : 1);
}

/* A plain index on what is longer than a key may be takes its beginning. */
static int prefix_of(const struct table *to, const struct index_def *x, size_t i)
{
    int place = table_column_find(to, x->columns[i].name);
    const struct column *c = place >= 0 ? &to->columns[place] : NULL;
    size_t most = KEY_BYTES / x->ncolumns;

    if (x->columns[i].prefix || !c)
        return x->columns[i].prefix;
    if (is_long(c) || (c->length && bytes_of(c) > most))
        return (int)(most / (c->kind == TYPE_BYTES ? 1 : CHAR_BYTES));
    return 0;
}

static void index_columns(struct rendering *r, const struct table *t, const struct index_def *x)
{
    for (size_t i = 0; i < x->ncolumns; i++) {
        int prefix = prefix_of(table_there(t), x, i);

        buf_adds(&r->b, i ? ", " : "");
        my_ident(&r->b, x->columns[i].name);
        if (prefix)
            buf_addf(&r->b, "(%d)", prefix);
        buf_adds(&r->b, x->columns[i].descending ? " DESC" : "");
    }
}

static bool has_primary(const struct table_def *d)
{
    return d->nindexes && d->indexes[0].primary;
}

/* Is this the index by which rows are known where there is no primary key? */
static bool is_key(const struct table_def *d, const struct index_def *x)
{
    const struct table *t = d->table;

    if (has_primary(d) || !x->unique || x->unfit || !t->nkey || x->ncolumns != t->nkey)
        return false;
    for (size_t i = 0; i < x->ncolumns; i++) {
        if (x->columns[i].prefix || strcmp(x->columns[i].name, t->columns[t->key[i]].name) != 0)
            return false;
    }
    return true;
}

static const char *index_name(struct rendering *r, const struct index_def *x)
{
    /* PRIMARY is a word of the server's own. */
    const char *name = strcasecmp(x->name, "primary") == 0 ? "primary_key" : x->name;

    return schema_object_name(r->arena, NAME_BYTES, name);
}

/* AUTO_INCREMENT must be the first column of an index as soon as it is there: the index that makes
 * it so stands in CREATE TABLE. */
static bool makes_counter(const struct table_def *d, const struct index_def *x)
{
    const struct index_def *needed;

    return !d->exists && table_counter(d, &needed) >= 0 && needed == x;
}

/* But a unique one comes behind the highest cut, like all of them, and takes a plain one's place.
 */
static bool replaces_counter(const struct table_def *d, const struct index_def *x)
{
    return makes_counter(d, x) && x->unique && !x->primary && !is_key(d, x);
}

/* Opens the index's line; false: it does not stand in CREATE TABLE. */
static bool index_line(struct rendering *r, const struct table_def *d, const struct index_def *x)
{
    if (x->primary) {
        buf_adds(&r->b, ",\n    PRIMARY KEY (");
        return true;
    }
    if (!is_key(d, x) && !makes_counter(d, x))
        return false;
    buf_adds(&r->b, is_key(d, x) ? ",\n    UNIQUE KEY " : ",\n    KEY ");
    my_ident(&r->b, replaces_counter(d, x) ? COUNTER_INDEX : index_name(r, x));
    buf_adds(&r->b, " (");
    return true;
}

static void table_step(struct rendering *r, const struct table_def *d)
{
    const struct table *to = table_there(d->table);

    buf_adds(&r->b, "CREATE TABLE ");
    there_name(r, d->table);
    buf_adds(&r->b, " (\n");
    for (size_t i = 0; i < to->ncolumns; i++) {
        buf_adds(&r->b, i ? ",\n" : "");
        column_line(r, d, i);
    }
    for (size_t i = 0; i < d->nindexes; i++) {
        if (!index_line(r, d, &d->indexes[i]))
            continue;
        index_columns(r, d->table, &d->indexes[i]);
        buf_addc(&r->b, ')');
    }
    buf_adds(&r->b, "\n) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4");
    if (d->comment && *d->comment) {
        buf_adds(&r->b, " COMMENT=");
        literal(r, d->comment);
    }
    struct schema_step step = {.phase = SCHEMA_PRE,
                               .order = 1,
                               .name = arena_printf(r->arena, "table %s", table_label(to)),
                               .sql = take_text(r)};

    buf_adds(&r->b, "DROP TABLE IF EXISTS ");
    there_name(r, d->table);
    step.undo = take_text(r);
    add(r, step);
}

/* Found half done: the server takes an ALTER whole or not at all, so what is there is complete. It
 * is dropped only if it is there, in a way that both servers know: a block that may fail is none of
 * them. So the undo asks the catalog and prepares one statement or the other. `counter`: the index
 * took the place of a plain one, which comes back. */
static const char *drop_if_there(struct rendering *r, const struct table *t, const char *catalog,
                                 const char *name, const struct index_def *counter)
{
    struct buf drop;
    bool index = strcmp(catalog, "STATISTICS") == 0;

    buf_init(&drop, BUF_MAX_TEXT);
    buf_adds(&drop, "ALTER TABLE ");
    my_ident2(&drop, table_there(t)->schema, table_there(t)->name);
    buf_adds(&drop, index ? " DROP INDEX " : " DROP FOREIGN KEY ");
    my_ident(&drop, name);
    if (counter) {
        buf_adds(&drop, ", ADD INDEX " COUNTER_INDEX " (");
        my_ident(&drop, counter->columns[0].name);
        buf_addc(&drop, ')');
    }
    buf_adds(&r->b, "SET @lockstep_undo = IF(EXISTS (SELECT 1 FROM information_schema.");
    buf_addf(&r->b, "%s WHERE TABLE_SCHEMA = ", catalog);
    literal(r, table_there(t)->schema);
    buf_adds(&r->b, " AND TABLE_NAME = ");
    literal(r, table_there(t)->name);
    buf_addf(&r->b, " AND %s = ", index ? "INDEX_NAME" : "CONSTRAINT_NAME");
    literal(r, name);
    buf_adds(&r->b, "), ");
    my_literal(&r->b, drop.data, drop.len);
    buf_adds(&r->b, ", 'DO 0'); PREPARE lockstep_undo FROM @lockstep_undo;"
                    " EXECUTE lockstep_undo; DEALLOCATE PREPARE lockstep_undo");
    buf_release(&drop);
    return take_text(r);
}

static void index_step(struct rendering *r, const struct table_def *d, const struct index_def *x)
{
    const struct table *t = d->table;
    const char *name = index_name(r, x);
    bool swaps = replaces_counter(d, x);
    struct schema_step step = {
        .phase = x->unique ? SCHEMA_UNIQUE : SCHEMA_INDEX,
        .name = arena_printf(r->arena, "%sindex %s.%s", x->unique ? "unique " : "",
                             table_label(table_there(t)), name),
        .table = arena_strdup(r->arena, table_label(t)),
        /* While it is built, InnoDB takes values for doubled that a running transaction has only
         * swapped or moved (error 1062). */
        .pauses_apply = x->unique,
    };

    buf_adds(&r->b, "ALTER TABLE ");
    there_name(r, t);
    buf_addf(&r->b, " ADD %sINDEX ", x->unique ? "UNIQUE " : "");
    my_ident(&r->b, name);
    buf_adds(&r->b, " (");
    index_columns(r, t, x);
    buf_adds(&r->b, swaps ? "), DROP INDEX " COUNTER_INDEX : ")");
    step.sql = take_text(r);
    step.undo = drop_if_there(r, t, "STATISTICS", name, swaps ? x : NULL);
    add(r, step);
}

/* ---- FOREIGN, ANALYZE ---- */

static void names_list(struct rendering *r, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        buf_adds(&r->b, i ? ", " : "");
        my_ident(&r->b, names[i]);
    }
}

/* Names of foreign keys share one room, a database. */
static const char *foreign_name(struct rendering *r, const struct table *t,
                                const struct foreign_def *f)
{
    for (size_t i = 0; i < r->def->n; i++) {
        const struct table_def *other = &r->def->tables[i];

        for (size_t k = 0; other->table != t && k < other->nforeigns; k++) {
            if (strcasecmp(other->foreigns[k].name, f->name) == 0)
                return schema_object_name(
                    r->arena, NAME_BYTES,
                    arena_printf(r->arena, "%s_%s", table_there(t)->name, f->name));
        }
    }
    return schema_object_name(r->arena, NAME_BYTES, f->name);
}

/* The server checks the rows under a lock that keeps writers out: apply stands meanwhile. InnoDB
 * knows no SET DEFAULT; NO ACTION is what it does instead. */
static void foreign_step(struct rendering *r, const struct table *t, const struct foreign_def *f)
{
    static const char *const actions[] = {"RESTRICT", "NO ACTION", "CASCADE", "SET NULL",
                                          "NO ACTION"};
    const struct table_def *parent = schema_def_find(r->def, f->ref_table);
    const char *name = foreign_name(r, t, f);
    struct schema_step step = {.phase = SCHEMA_FOREIGN, .pauses_apply = true};

    if (!parent)
        return;
    step.name = arena_printf(r->arena, "foreign key %s.%s", table_label(table_there(t)), name);
    buf_adds(&r->b, "ALTER TABLE ");
    there_name(r, t);
    buf_adds(&r->b, " ADD CONSTRAINT ");
    my_ident(&r->b, name);
    buf_adds(&r->b, " FOREIGN KEY (");
    names_list(r, f->columns, f->ncolumns);
    buf_adds(&r->b, ") REFERENCES ");
    there_name(r, parent->table);
    buf_adds(&r->b, " (");
    names_list(r, f->ref_columns, f->ncolumns);
    buf_addf(&r->b, ") ON DELETE %s ON UPDATE %s", actions[f->on_delete], actions[f->on_update]);
    step.sql = take_text(r);
    step.undo = drop_if_there(r, t, "TABLE_CONSTRAINTS", name, NULL);
    add(r, step);
}

static void table_steps(struct rendering *r, const struct table_def *d)
{
    if (!d->exists)
        table_step(r, d);
    for (size_t i = 0; i < d->nindexes; i++) {
        const struct index_def *x = &d->indexes[i];

        if (x->unfit || x->primary || is_key(d, x) ||
            (makes_counter(d, x) && !replaces_counter(d, x)))
            continue;
        index_step(r, d, x);
    }
    for (size_t i = 0; i < d->nforeigns; i++)
        foreign_step(r, d->table, &d->foreigns[i]);
    buf_adds(&r->b, "ANALYZE NO_WRITE_TO_BINLOG TABLE ");
    there_name(r, d->table);
    add(r, (struct schema_step){
               .phase = SCHEMA_ANALYZE,
               .name = arena_printf(r->arena, "analyze %s", table_label(table_there(d->table))),
               .table = arena_strdup(r->arena, table_label(d->table)),
               .sql = take_text(r)});
}

int my_schema_render(const struct schema_def *def, bool native, struct arena *a,
                     struct schema_steps *out, struct err *e)
{
    struct rendering r = {.def = def, .native = native, .arena = a, .out = out};

    *out = (struct schema_steps){0};
    buf_init(&r.b, BUF_MAX_TEXT);
    database_steps(&r);
    for (size_t i = 0; i < def->n; i++)
        table_steps(&r, &def->tables[i]);
    buf_release(&r.b);
    return 0;
}
