/* Tables made by hand, as one engine describes them and another is given them. */
#ifndef LOCKSTEP_TESTS_CONVERT_SUPPORT_H
#define LOCKSTEP_TESTS_CONVERT_SUPPORT_H

#include "engines/def.h"

#include <stdio.h>
#include <string.h>

struct made {
    struct arena arena;
    struct table tables[4];
    struct table theres[4];
    struct table_def defs[4];
    struct verdict verdicts[4][24];
    struct schema_def def;
};

static inline struct table_def *made_table(struct made *m, const char *schema, const char *name)
{
    struct table *t = &m->tables[m->def.n];
    struct table_def *d = &m->defs[m->def.n];

    t->schema = arena_strdup(&m->arena, schema);
    t->name = arena_strdup(&m->arena, name);
    t->columns = arena_zalloc(&m->arena, 24 * sizeof(struct column));
    t->key = arena_zalloc(&m->arena, 4 * sizeof(size_t));
    d->table = t;
    d->columns = arena_zalloc(&m->arena, 24 * sizeof(struct column_def));
    d->indexes = arena_zalloc(&m->arena, 8 * sizeof(struct index_def));
    d->foreigns = arena_zalloc(&m->arena, 4 * sizeof(struct foreign_def));
    m->def.tables = m->defs;
    m->def.n++;
    return d;
}

/* What is set beside name and type is set on the entry that is returned; its column is writable. */
static inline struct column_def *made_column(struct table_def *d, const char *name,
                                             enum type_kind kind, const char *type)
{
    struct table *t = (struct table *)(uintptr_t)d->table;
    struct column *c = &t->columns[t->ncolumns];
    struct column_def *def = &d->columns[t->ncolumns++];

    c->name = (char *)(uintptr_t)name;
    c->kind = kind;
    c->source_type = c->cast_type = (char *)(uintptr_t)type;
    def->column = c;
    return def;
}

static inline struct column *made_of(const struct column_def *d)
{
    return (struct column *)(uintptr_t)d->column;
}

static inline struct index_def *made_index(struct made *m, struct table_def *d, const char *name,
                                           const char *column, bool unique)
{
    struct index_def *x = &d->indexes[d->nindexes++];
    struct index_column *c = arena_zalloc(&m->arena, sizeof(*c));

    c->name = column;
    *x = (struct index_def){.name = name, .unique = unique, .ncolumns = 1, .columns = c};
    return x;
}

/* The primary key of one column. */
static inline void made_primary(struct made *m, struct table_def *d, const char *column)
{
    struct table *t = (struct table *)(uintptr_t)d->table;
    int place = table_column_find(t, column);

    made_index(m, d, "PRIMARY", column, true)->primary = true;
    t->key[t->nkey++] = (size_t)place;
    t->columns[place].key = 1;
    t->columns[place].not_null = true;
}

static inline void made_foreign(struct made *m, struct table_def *d, const char *name,
                                const char *column, const char *parent, const char *ref)
{
    const char **columns = arena_zalloc(&m->arena, 2 * sizeof(*columns));

    columns[0] = column;
    columns[1] = ref;
    d->foreigns[d->nforeigns++] = (struct foreign_def){.name = name,
                                                       .ncolumns = 1,
                                                       .columns = columns,
                                                       .ref_table = parent,
                                                       .ref_columns = columns + 1,
                                                       .on_delete = FOREIGN_CASCADE,
                                                       .on_update = FOREIGN_NO_ACTION};
}

/* Gives every table its `there`, in this schema. */
static inline void made_convert(struct made *m, const char *schema,
                                void (*column_for)(const struct column_def *, bool, struct arena *,
                                                   struct column *, struct verdict *))
{
    schema_def_finish(&m->def);
    for (size_t i = 0; i < m->def.n; i++) {
        struct table *t = &m->tables[i];

        m->theres[i] = *t;
        t->there = &m->theres[i];
        t->there->schema = arena_strdup(&m->arena, schema);
        t->there->columns = arena_zalloc(&m->arena, 24 * sizeof(struct column));
        for (size_t c = 0; c < t->ncolumns; c++) {
            m->defs[i].columns[c].there = t->there;
            column_for(&m->defs[i].columns[c], false, &m->arena, &t->there->columns[c],
                       &m->verdicts[i][c]);
        }
    }
}

/* What the step of this name says; NULL: there is none. */
static inline const struct schema_step *made_step(const struct schema_steps *steps,
                                                  const char *name)
{
    for (size_t i = 0; i < steps->n; i++) {
        if (strcmp(steps->v[i].name, name) == 0)
            return &steps->v[i];
    }
    return NULL;
}

#endif
