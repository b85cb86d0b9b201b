#include "engines/postgres/relation.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int by_id(const void *a, const void *b)
{
    const struct relation *x = a;
    const struct relation *y = b;

    return x->table->id < y->table->id ? -1 : x->table->id > y->table->id;
}

void relations_init(struct relations *rs, struct arena *a, const struct table_list *tables)
{
    rs->n = tables->n;
    rs->v = arena_zalloc(a, (tables->n + 1) * sizeof(*rs->v));
    rs->last = NULL;
    rs->life = a;
    rs->outsiders = NULL;
    rs->noutsiders = 0;
    for (size_t i = 0; i < tables->n; i++) {
        struct relation *rel = &rs->v[i];
        size_t n = tables->v[i]->ncolumns + 1;

        rel->table = table_copy(a, tables->v[i]);
        rel->place = arena_zalloc(a, n * sizeof(*rel->place));
        rel->types = arena_zalloc(a, n * sizeof(*rel->types));
        rel->typmods = arena_zalloc(a, n * sizeof(*rel->typmods));
    }
    qsort(rs->v, rs->n, sizeof(*rs->v), by_id);
}

struct relation *relations_find(struct relations *rs, uint32_t id)
{
    size_t low = 0;
    size_t high = rs->n;

    if (rs->last && rs->last->table->id == id)
        return rs->last;
    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (rs->v[mid].table->id < id)
            low = mid + 1;
        else
            high = mid;
    }
    if (low == rs->n || rs->v[low].table->id != id)
        return NULL;
    rs->last = &rs->v[low];
    return rs->last;
}

bool relations_has_root(const struct relations *rs, const char *root)
{
    for (size_t i = 0; i < rs->n; i++) {
        if (rs->v[i].table->root && strcmp(rs->v[i].table->root, root) == 0)
            return true;
    }
    return false;
}

/* ---- what is left out ---- */

static struct outsider *outsider_find(const struct relations *rs, uint32_t id)
{
    for (size_t i = 0; i < rs->noutsiders; i++) {
        if (rs->outsiders[i].id == id)
            return &rs->outsiders[i];
    }
    return NULL;
}

void relations_leave_out(struct relations *rs, uint32_t id, const struct table *table,
                         const char *reason)
{
    struct outsider *o = outsider_find(rs, id);

    if (!o && (rs->noutsiders & (rs->noutsiders - 1)) == 0) {
        struct outsider *old = rs->outsiders;
        size_t cap = rs->noutsiders ? rs->noutsiders * 2 : 1;

        rs->outsiders = arena_zalloc(rs->life, cap * sizeof(*rs->outsiders));
        if (rs->noutsiders)
            memcpy(rs->outsiders, old, rs->noutsiders * sizeof(*old));
    }
    if (!o)
        o = &rs->outsiders[rs->noutsiders++];
    if (!o->reason || strcmp(o->reason, reason) != 0)
        o->reason = arena_strdup(rs->life, reason);
    o->id = id;
    o->table = table;
}

bool relations_left_out(const struct relations *rs, uint32_t id)
{
    return outsider_find(rs, id) != NULL;
}

void relations_let_in(struct relations *rs, uint32_t id)
{
    struct outsider *o = outsider_find(rs, id);

    if (o)
        *o = rs->outsiders[--rs->noutsiders];
}

const struct outsider *relations_tell(struct relations *rs, uint32_t id, uint64_t commit)
{
    struct outsider *o = outsider_find(rs, id);

    if (!o || o->told == commit)
        return NULL;
    o->told = commit;
    return o;
}

/* ---- RELATION against the plan ---- */

static struct relation *find_named(struct relations *rs, const struct pgo_relation *r)
{
    for (size_t i = 0; i < rs->n; i++) {
        if (strcmp(rs->v[i].table->schema, r->schema) == 0 &&
            strcmp(rs->v[i].table->name, r->name) == 0)
            return &rs->v[i];
    }
    return NULL;
}

static size_t stored_columns(const struct table *t)
{
    size_t n = 0;

    for (size_t i = 0; i < t->ncolumns; i++)
        n += !t->columns[i].generated;
    return n;
}

static bool place_of(const struct table *t, const char *name, size_t *out)
{
    for (size_t i = 0; i < t->ncolumns; i++) {
        if (strcmp(t->columns[i].name, name) == 0) {
            *out = i;
            return true;
        }
    }
    return false;
}

static const char *compare_identity(const struct table *t, const struct pgo_relation *r,
                                    const size_t *place, struct arena *a)
{
    if ((t->identity == IDENTITY_FULL) != (r->identity == 'f'))
        return arena_printf(a, "its replica identity is '%c' now", r->identity);
    for (size_t i = 0; r->identity != 'f' && i < r->n; i++) {
        bool key = t->identity == IDENTITY_KEY && t->columns[place[i]].key > 0;

        if (r->columns[i].key != key)
            return arena_printf(a, "its replica identity %s column \"%s\" now",
                                key ? "has lost" : "has", r->columns[i].name);
    }
    return NULL;
}

/* Fills place; NULL: names and identity are the plan's. */
static const char *compare_names(const struct table *t, const struct pgo_relation *r, size_t *place,
                                 struct arena *a)
{
    if (strcmp(t->schema, r->schema) != 0 || strcmp(t->name, r->name) != 0)
        return arena_printf(a, "it is called %s.%s now", r->schema, r->name);
    for (size_t i = 0; i < r->n; i++) {
        if (!place_of(t, r->columns[i].name, &place[i]) || t->columns[place[i]].generated)
            return arena_printf(a, "it has a column \"%s\" that was not planned",
                                r->columns[i].name);
        for (size_t k = 0; k < i; k++) {
            if (place[k] == place[i])
                return arena_printf(a, "the log names its column \"%s\" twice", r->columns[i].name);
        }
    }
    if (r->n != stored_columns(t))
        return arena_printf(a, "the log carries %zu of its %zu columns", r->n, stored_columns(t));
    return compare_identity(t, r, place, a);
}

static bool same_types(const struct relation *rel, const struct pgo_relation *r)
{
    if (!rel->checked || rel->nsent != r->n)
        return false;
    for (size_t i = 0; i < r->n; i++) {
        if (rel->types[i] != r->columns[i].type || rel->typmods[i] != r->columns[i].typmod)
            return false;
    }
    return true;
}

/* 0: *reason is NULL (equal) or says what differs. */
static int compare_types(const struct relation *rel, const struct pgo_relation *r,
                         const size_t *place, const struct relation_asker *asker,
                         struct arena *scratch, const char **reason, struct err *e)
{
    const char **names = arena_zalloc(scratch, (r->n + 1) * sizeof(*names));

    *reason = NULL;
    if (same_types(rel, r))
        return 0;
    if (asker->types(asker->arg, r, scratch, names, e) < 0)
        return -1;
    for (size_t i = 0; i < r->n; i++) {
        const struct column *c = &rel->table->columns[place[i]];

        if (strcmp(names[i], c->source_type) == 0)
            continue;
        *reason = arena_printf(scratch, "column \"%s\" was planned as %s and is %s", c->name,
                               c->source_type, names[i]);
        return 0;
    }
    return 0;
}

static void keep(struct relation *rel, const struct pgo_relation *r, const size_t *place)
{
    rel->checked = true;
    rel->nsent = r->n;
    for (size_t i = 0; i < r->n; i++) {
        rel->place[i] = place[i];
        rel->types[i] = r->columns[i].type;
        rel->typmods[i] = r->columns[i].typmod;
    }
}

int relations_take(struct relations *rs, const struct pgo_relation *r,
                   const struct relation_asker *asker, struct arena *scratch, struct relation **out,
                   const char **reason, struct err *e)
{
    struct relation *rel = relations_find(rs, r->id);
    size_t *place = arena_zalloc(scratch, (r->n + 1) * sizeof(*place));
    bool final = true;

    *reason = NULL;
    *out = rel;
    if (!rel) {
        *out = find_named(rs, r);
        if (!*out)
            return 0;
        *reason = "a new table has taken its name";
    } else {
        *reason = compare_names(rel->table, r, place, scratch);
        if (!*reason && compare_types(rel, r, place, asker, scratch, reason, e) < 0)
            return -1;
        if (!*reason && asker->rewritten(asker->arg, rel->table, scratch, reason, &final, e) < 0)
            return -1;
        rel->doubt = !final;
    }
    if (*reason) {
        (*out)->unfit = true;
        return 1;
    }
    rel->unfit = false;
    keep(rel, r, place);
    return 0;
}

/* ---- changes ---- */

/* A row of the log in the plan's columns; those that the log does not have keep `rest`. */
static int take_row(const struct relation *rel, const struct row *sent, enum value_state rest,
                    struct arena *a, struct row **out, struct err *e)
{
    const struct table *t = rel->table;
    struct row *row = row_new(a, t->ncolumns);

    if (sent->n != rel->nsent)
        return err_set(e, ERR_FATAL, "%s: the log has a row of %zu columns instead of %zu",
                       table_label(t), sent->n, rel->nsent);
    for (size_t i = 0; i < t->ncolumns; i++)
        row->v[i].state = rest;
    for (size_t i = 0; i < sent->n; i++) {
        const struct column *c = &t->columns[rel->place[i]];
        struct value *v = &row->v[rel->place[i]];

        *v = sent->v[i];
        if (v->state == VALUE_SET && c->kind == TYPE_BYTES && pg_unhex(v) < 0)
            return err_set(e, ERR_FATAL, "%s.%s: the log's bytea is not hex", table_label(t),
                           c->name);
    }
    *out = row;
    return 0;
}

static int take_before(const struct relation *rel, const struct pgo_change *m, struct arena *a,
                       struct row **out, struct err *e)
{
    const struct table *t = rel->table;

    *out = NULL;
    if (!m->before)
        return 0;
    if (take_row(rel, m->before, VALUE_NULL, a, out, e) < 0)
        return -1;
    /* Only the key is sent; the others' NULLs are place holders. */
    for (size_t i = 0; m->before_kind == 'K' && i < t->ncolumns; i++) {
        if (!t->columns[i].key)
            (*out)->v[i] = (struct value){.state = VALUE_UNCHANGED};
    }
    return 0;
}

/* With identity full, an unchanged TOAST is in the old row only. */
static void fill_from_before(struct row *after, const struct row *before)
{
    for (size_t i = 0; i < after->n; i++) {
        if (after->v[i].state == VALUE_UNCHANGED)
            after->v[i] = before->v[i];
    }
}

static int check_key(const struct change *c, struct err *e)
{
    const struct table *t = c->table;

    for (size_t i = 0; i < t->nkey; i++) {
        size_t at = t->key[i];
        bool after = c->after && c->after->v[at].state == VALUE_SET;
        bool before = c->before && c->before->v[at].state == VALUE_SET;

        if (!after && !before)
            return err_set(e, ERR_FATAL, "%s: the log has a change without the key's column \"%s\"",
                           table_label(t), t->columns[at].name);
    }
    return 0;
}

int relation_change(const struct relation *rel, enum pgo_kind kind, const struct pgo_change *m,
                    struct arena *a, struct change *out, struct err *e)
{
    struct row *before;
    struct row *after = NULL;

    memset(out, 0, sizeof(*out));
    out->table = rel->table;
    out->op = kind == PGO_INSERT ? OP_INSERT : kind == PGO_UPDATE ? OP_UPDATE : OP_DELETE;
    if (take_before(rel, m, a, &before, e) < 0)
        return -1;
    if (m->after && take_row(rel, m->after, VALUE_NULL, a, &after, e) < 0)
        return -1;
    if (after && before && m->before_kind == 'O')
        fill_from_before(after, before);
    out->before = before;
    out->after = after;
    return check_key(out, e);
}
