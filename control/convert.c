#include "control/convert.h"

#include "control/plan.h"

#include <stdlib.h>
#include <string.h>

struct converting {
    const struct migration *m;
    struct arena *arena;
    struct conversion *out;
};

static void found(struct converting *k, bool fatal, const char *object, const char *what,
                  const char *remedy)
{
    findings_add(k->arena, &k->out->findings, (struct finding){fatal, object, what, remedy});
}

/* ---- columns ---- */

static struct table *make_there(const struct converting *k, const struct table *t)
{
    struct table *there = arena_zalloc(k->arena, sizeof(*there));

    *there = *t;
    there->there = NULL;
    there->id = 0;
    there->filenode = 0;
    there->root = NULL;
    there->schema = arena_strdup(k->arena, migration_schema_there(k->m, t->schema));
    there->columns = arena_zalloc(k->arena, (t->ncolumns + 1) * sizeof(*there->columns));
    return there;
}

static void judge_column(struct converting *k, const struct column_def *from,
                         const struct verdict *v, const char *label)
{
    const char *object;

    if (v->forward != FIDELITY_LOSSY && v->forward != FIDELITY_NONE)
        return;
    object = arena_printf(k->arena, "%s.%s", label, from->column->name);
    found(
        k, true, object,
        arena_printf(k->arena, "type %s: %s", from->column->source_type,
                     v->condition ? v->condition : "no type of the target holds it"),
        arena_printf(k->arena, "give the column another type, or add %s to tables.exclude", label));
}

static void convert_columns(struct converting *k, struct table_def *d, struct table *t,
                            struct verdict *verdicts)
{
    bool native = migration_is_native(k->m);

    t->there = make_there(k, t);
    for (size_t i = 0; i < t->ncolumns; i++) {
        struct column *to = &t->there->columns[i];

        d->columns[i].there = t->there;
        k->m->target.engine->column_for(&d->columns[i], native, k->arena, to, &verdicts[i]);
        invariant(to->kind == t->columns[i].kind);
        judge_column(k, &d->columns[i], &verdicts[i], table_label(t));
    }
}

/* ---- what stays behind ---- */

static void warn_columns(struct converting *k, const struct table_def *d, const char *label)
{
    bool native = migration_is_native(k->m);

    for (size_t i = 0; i < d->table->ncolumns; i++) {
        const struct column_def *c = &d->columns[i];
        const char *object = arena_printf(k->arena, "%s.%s", label, c->column->name);

        if (c->default_kind == DEFAULT_EXPRESSION && !native)
            found(k, false, object,
                  arena_printf(k->arena,
                               "its default is the source engine's own and is not carried: %s",
                               c->default_text),
                  "give the target's column a default before applications write there");
        if (c->on_update_now && !native)
            found(k, false, object, "ON UPDATE CURRENT_TIMESTAMP has no counterpart on the target",
                  "let the application set it, or add a trigger behind the cutover");
        if (c->case_insensitive && c->shared_key && !native)
            found(k, false, object,
                  "its collation takes texts for equal that differ (case, accents, blanks at the"
                  " end); on the target they are different",
                  "look for lower(…) or the like in the application's searches and keys");
    }
}

/* Behind the switch nothing would give such a column its number. */
static void judge_counters(struct converting *k, const struct table_def *d, const char *label)
{
    const struct index_def *index;
    int counter = table_counter(d, &index);

    if (!k->m->target.engine->counts_by_index)
        return;
    for (size_t i = 0; i < d->table->ncolumns; i++) {
        const char *name = d->columns[i].column->name;
        const char *object = arena_printf(k->arena, "%s.%s", label, name);

        if (d->columns[i].default_kind != DEFAULT_IDENTITY || (int)i == counter)
            continue;
        if (counter < 0)
            found(k, true, object,
                  "it is numbered by the server, and no index begins with it, without which the"
                  " target does not number it",
                  arena_printf(k->arena, "on the source: an index on (%s)", name));
        else
            found(k, false, object,
                  arena_printf(k->arena,
                               "the target numbers one column of a table, here %s: this one gets"
                               " no number by itself there",
                               d->columns[counter].column->name),
                  "let the application give it its values, or add a trigger behind the cutover");
    }
}

static void warn_table(struct converting *k, const struct table_def *d, const char *label)
{
    warn_columns(k, d, label);
    judge_counters(k, d, label);
    for (size_t i = 0; i < d->nindexes; i++) {
        if (d->indexes[i].unfit)
            found(k, false, label,
                  arena_printf(k->arena, "index %s is not carried: %s", d->indexes[i].name,
                               d->indexes[i].unfit),
                  "make its like on the target, if queries or uniqueness need it");
    }
    for (size_t i = 0; i < d->nforeigns; i++) {
        if (!schema_def_find(&k->out->def, d->foreigns[i].ref_table))
            found(k, false, label,
                  arena_printf(k->arena, "foreign key %s is not carried: %s is not chosen",
                               d->foreigns[i].name, d->foreigns[i].ref_table),
                  "add that table to tables.include");
    }
    for (size_t i = 0; i < d->nchecks; i++)
        found(k, false, label,
              arena_printf(k->arena,
                           "a check is in the source engine's own words and is not"
                           " carried: %s",
                           d->checks[i]),
              "add its like on the target behind the cutover, if it is needed");
}

/* ---- all of it ---- */

/* The engine copies its own schemas, names and all. */
static void refuse_renames(struct converting *k, const struct table_list *tables)
{
    for (size_t i = 0; i < tables->n; i++) {
        const char *to = migration_schema_there(k->m, tables->v[i]->schema);

        if (strcmp(to, tables->v[i]->schema) != 0)
            found(k, true, table_label(tables->v[i]),
                  arena_printf(k->arena,
                               "between two servers of one engine its schema cannot be"
                               " called %s there",
                               to),
                  "remove the pair from schemas:");
    }
}

struct named {
    const char *there;
    const char *here;
};

static int by_name_there(const void *x, const void *y)
{
    const struct named *a = x;
    const struct named *b = y;
    int order = strcmp(a->there, b->there);

    return order ? order : strcmp(a->here, b->here);
}

/* Two of the source's schemas may have become one: the rows of both would go into one table.
 * Names that differ in their letters' case alone are two; a server that takes them for one is asked
 * for names without capitals by its own check. */
static void refuse_shared_names(struct converting *k, const struct table_list *tables)
{
    struct named *v = arena_zalloc(k->arena, (tables->n + 1) * sizeof(*v));

    for (size_t i = 0; i < tables->n; i++) {
        v[i].there = arena_strdup(k->arena, table_label(table_there(tables->v[i])));
        v[i].here = arena_strdup(k->arena, table_label(tables->v[i]));
    }
    qsort(v, tables->n, sizeof(*v), by_name_there);
    for (size_t i = 1; i < tables->n; i++) {
        if (strcmp(v[i - 1].there, v[i].there) == 0)
            found(k, true, v[i].here,
                  arena_printf(k->arena, "on the target it would be %s, and so would %s",
                               v[i].there, v[i - 1].here),
                  "give their schemas different names there in schemas:, or add one of the tables"
                  " to tables.exclude");
    }
}

int convert_plan(const struct migration *m, struct db *source, const struct table_list *tables,
                 struct arena *a, struct conversion *out, struct err *e)
{
    struct converting k = {.m = m, .arena = a, .out = out};

    *out =
        (struct conversion){.needed = !migration_is_native(m) || !m->source.engine->schema_steps};
    if (!out->needed) {
        refuse_renames(&k, tables);
        return 0;
    }
    if (source->engine->describe(source, tables, a, &out->def, e) < 0)
        return err_wrap(e, "source");
    out->verdicts = arena_zalloc(a, (tables->n + 1) * sizeof(struct verdict *));
    for (size_t i = 0; i < tables->n; i++) {
        struct table *t = tables->v[i];
        const char *label = arena_strdup(a, table_label(t));

        out->verdicts[i] = arena_zalloc(a, (t->ncolumns + 1) * sizeof(struct verdict));
        convert_columns(&k, &out->def.tables[i], t, out->verdicts[i]);
        warn_table(&k, &out->def.tables[i], label);
    }
    refuse_shared_names(&k, tables);
    return 0;
}

void convert_pair(struct conversion *c, struct db *source, struct db *target, struct arena *a)
{
    if (!c->needed || source->engine != target->engine || !target->engine->judge_pair)
        return;
    for (size_t i = 0; i < c->def.n; i++)
        target->engine->judge_pair(source, target, &c->def.tables[i], c->verdicts[i], a,
                                   &c->findings);
}

int convert_values(struct conversion *c, struct db *source, struct arena *a, struct err *e)
{
    if (!c->needed || !source->engine->unfit_values)
        return 0;
    for (size_t i = 0; i < c->def.n; i++) {
        if (source->engine->unfit_values(source, &c->def.tables[i], c->verdicts[i], a, &c->findings,
                                         e) < 0)
            return err_wrap(e, "reading the values of %s", table_label(c->def.tables[i].table));
    }
    return 0;
}

int convert_refuse(const struct conversion *c, struct err *e)
{
    for (size_t i = 0; i < c->findings.n; i++) {
        const struct finding *f = &c->findings.v[i];

        if (!f->fatal)
            continue;
        err_set(e, ERR_REFUSED, "%s: %s", f->object, f->what);
        return err_hint(e, "%s", f->remedy);
    }
    return 0;
}

void convert_there(const struct table_list *tables, struct arena *a, struct table_list *out)
{
    out->n = tables->n;
    out->v = arena_zalloc(a, (tables->n + 1) * sizeof(*out->v));
    for (size_t i = 0; i < tables->n; i++)
        out->v[i] = tables->v[i]->there ? tables->v[i]->there : tables->v[i];
}

/* ---- steps: without what the target has already ---- */

static bool same_index(const struct index_def *a, const struct index_def *b)
{
    if (a->primary != b->primary || a->unique != b->unique || a->ncolumns != b->ncolumns ||
        b->unfit)
        return false;
    for (size_t i = 0; i < a->ncolumns; i++) {
        if (strcmp(a->columns[i].name, b->columns[i].name) != 0)
            return false;
    }
    return true;
}

static bool same_foreign(const struct foreign_def *a, const struct foreign_def *b)
{
    if (a->ncolumns != b->ncolumns)
        return false;
    for (size_t i = 0; i < a->ncolumns; i++) {
        if (strcmp(a->columns[i], b->columns[i]) != 0 ||
            strcmp(a->ref_columns[i], b->ref_columns[i]) != 0)
            return false;
    }
    return true;
}

static void leave_out(struct table_def *want, const struct table_def *have)
{
    size_t kept = 0;

    want->exists = true;
    for (size_t i = 0; i < want->nindexes; i++) {
        bool there = false;

        for (size_t h = 0; h < have->nindexes && !there; h++)
            there = same_index(&want->indexes[i], &have->indexes[h]);
        if (!there)
            want->indexes[kept++] = want->indexes[i];
    }
    want->nindexes = kept;
    kept = 0;
    for (size_t i = 0; i < want->nforeigns; i++) {
        bool there = false;

        for (size_t h = 0; h < have->nforeigns && !there; h++)
            there = same_foreign(&want->foreigns[i], &have->foreigns[h]);
        if (!there)
            want->foreigns[kept++] = want->foreigns[i];
    }
    want->nforeigns = kept;
}

/* The target's own tables that stand where ours are to be; *def says what they are made of. */
static int read_existing(const struct conversion *c, struct db *target, struct arena *a,
                         struct schema_def *def, struct err *e)
{
    struct table_list all;
    struct table_list ours = {0};

    if (target->engine->tables(target, NULL, a, &all, e) < 0)
        return err_wrap(e, "target");
    ours.v = arena_zalloc(a, (c->def.n + 1) * sizeof(*ours.v));
    for (size_t i = 0; i < c->def.n; i++) {
        struct table *t = table_list_find(&all, table_label(table_there(c->def.tables[i].table)));

        if (t)
            ours.v[ours.n++] = t;
    }
    if (target->engine->describe(target, &ours, a, def, e) < 0)
        return err_wrap(e, "target");
    return 0;
}

int convert_steps(const struct migration *m, struct conversion *c, struct db *target,
                  struct arena *a, struct schema_steps *out, struct err *e)
{
    struct schema_def existing;

    if (read_existing(c, target, a, &existing, e) < 0)
        return -1;
    for (size_t i = 0; i < c->def.n; i++) {
        const char *label = arena_strdup(a, table_label(table_there(c->def.tables[i].table)));
        const struct table_def *have = schema_def_find(&existing, label);

        if (have)
            leave_out(&c->def.tables[i], have);
    }
    return m->target.engine->schema_render(&c->def, migration_is_native(m), a, out, e);
}
