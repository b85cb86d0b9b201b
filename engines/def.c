#include "engines/def.h"

#include <string.h>

const char *fidelity_name(enum fidelity f)
{
    static const char *const names[] = {"exact", "conditional", "lossy", "none"};

    return names[f];
}

const struct table_def *schema_def_find(const struct schema_def *def, const char *label)
{
    for (size_t i = 0; i < def->n; i++) {
        if (table_is(def->tables[i].table, label))
            return &def->tables[i];
    }
    return NULL;
}

int table_column_find(const struct table *t, const char *name)
{
    for (size_t i = 0; i < t->ncolumns; i++) {
        if (strcmp(t->columns[i].name, name) == 0)
            return (int)i;
    }
    return -1;
}

/* A plain one before a unique one, which may not be there before the load has settled. */
static const struct index_def *index_beginning_with(const struct table_def *t, const char *column)
{
    const struct index_def *best = NULL;

    for (size_t i = 0; i < t->nindexes; i++) {
        const struct index_def *x = &t->indexes[i];

        if (x->unfit || !x->ncolumns || strcmp(x->columns[0].name, column) != 0)
            continue;
        if (x->primary)
            return x;
        if (!best || (best->unique && !x->unique))
            best = x;
    }
    return best;
}

int table_counter(const struct table_def *t, const struct index_def **index)
{
    int counter = -1;

    *index = NULL;
    for (size_t i = 0; i < t->table->ncolumns; i++) {
        const struct index_def *x = NULL;

        if (t->columns[i].default_kind == DEFAULT_IDENTITY)
            x = index_beginning_with(t, t->table->columns[i].name);
        if (x && (counter < 0 || x->primary)) {
            counter = (int)i;
            *index = x;
        }
    }
    return counter;
}

const char *index_columns_text(struct arena *a, const struct index_def *x)
{
    const char *text = "";

    for (size_t i = 0; i < x->ncolumns; i++)
        text = arena_printf(a, "%s%s%s", text, i ? ", " : "", x->columns[i].name);
    return text;
}

/* ---- the columns' surroundings ---- */

static void share(struct table_def *t, const char *column, size_t n)
{
    int i = table_column_find(t->table, column);

    if (i >= 0 && t->columns[i].shared_key < n)
        t->columns[i].shared_key = n;
}

static void share_keys(struct table_def *t)
{
    for (size_t i = 0; i < t->table->nkey; i++)
        share(t, t->table->columns[t->table->key[i]].name, t->table->nkey);
    for (size_t i = 0; i < t->nindexes; i++) {
        const struct index_def *x = &t->indexes[i];

        for (size_t c = 0; (x->unique || x->primary) && !x->unfit && c < x->ncolumns; c++) {
            if (!x->columns[c].prefix)
                share(t, x->columns[c].name, x->ncolumns);
        }
    }
}

/* True if a referring column had to be raised. */
static bool share_foreign(const struct schema_def *def, struct table_def *t,
                          const struct foreign_def *f)
{
    const struct table_def *parent = schema_def_find(def, f->ref_table);
    bool raised = false;

    for (size_t c = 0; parent && c < f->ncolumns; c++) {
        int here = table_column_find(t->table, f->columns[c]);
        int there = table_column_find(parent->table, f->ref_columns[c]);

        if (here < 0 || there < 0)
            continue;
        if (t->columns[here].shared_key < parent->columns[there].shared_key) {
            t->columns[here].shared_key = parent->columns[there].shared_key;
            raised = true;
        }
        if (parent->columns[there].shared_key < t->columns[here].shared_key) {
            parent->columns[there].shared_key = t->columns[here].shared_key;
            raised = true;
        }
    }
    return raised;
}

void schema_def_finish(struct schema_def *def)
{
    bool raised = true;

    for (size_t i = 0; i < def->n; i++) {
        struct table_def *t = &def->tables[i];
        size_t chars = 0;

        for (size_t c = 0; c < t->table->ncolumns; c++) {
            if (t->table->columns[c].kind == TYPE_TEXT)
                chars += (size_t)t->table->columns[c].length;
        }
        for (size_t c = 0; c < t->table->ncolumns; c++)
            t->columns[c].row_chars = chars;
        share_keys(t);
    }
    while (raised) {
        raised = false;
        for (size_t i = 0; i < def->n; i++) {
            for (size_t f = 0; f < def->tables[i].nforeigns; f++)
                raised |= share_foreign(def, &def->tables[i], &def->tables[i].foreigns[f]);
        }
    }
}

/* ---- what both renderers need ---- */

void schema_steps_add(struct arena *a, struct schema_steps *steps, size_t *cap,
                      struct schema_step step)
{
    if (steps->n == *cap) {
        struct schema_step *grown;

        *cap = *cap * 2 + 32;
        grown = arena_alloc(a, *cap * sizeof(*grown));
        if (steps->n)
            memcpy(grown, steps->v, steps->n * sizeof(*grown));
        steps->v = grown;
    }
    steps->v[steps->n++] = step;
}

void findings_add(struct arena *a, struct findings *f, struct finding one)
{
    /* Whoever made the list may have sized it to the entry. */
    struct finding *grown = arena_alloc(a, (f->n + 1) * sizeof(*grown));

    if (f->n)
        memcpy(grown, f->v, f->n * sizeof(*grown));
    one.object = arena_strdup(a, one.object);
    grown[f->n++] = one;
    f->v = grown;
}

const char *schema_object_name(struct arena *a, size_t max, const char *name)
{
    uint32_t hash = 2166136261u;
    size_t keep = max - 9;

    if (strlen(name) <= max)
        return name;
    for (const char *p = name; *p; p++)
        hash = (hash ^ (unsigned char)*p) * 16777619u;
    while (keep && ((unsigned char)name[keep] & 0xc0) == 0x80)
        keep--;
    return arena_printf(a, "%.*s_%08x", (int)keep, name, hash);
}

void fence_report_prepared(struct fence_report *r, const char *name, size_t len)
{
    uint64_t number = 14695981039346656037u; /* FNV-1a */

    for (size_t i = 0; i < len; i++)
        number = (number ^ (unsigned char)name[i]) * 1099511628211u;
    if (r->nprepared < FENCE_PREPARED_MAX)
        r->prepared[r->nprepared++] = number;
}
