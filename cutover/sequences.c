/* Sequences are not in the log, and nextval passes every fence, so they are read and set again
 * until the seal, and the last reading counts (correctness.md C04).
 *
 * A coordinator that hung and goes on late must not set a live side's sequences back: each round
 * runs while the state row is locked and still ours; a successor waits for that lock. */
#include "cutover/internal.h"

#include <string.h>

/* Steps ahead of the value that was read: a client may have taken a number on the closing side
 * whose row was refused there, and store it on the opening side. A margin is all that helps, and
 * gaps in sequences are nothing new to an application. It also is the headroom from `prepared` on.
 */
#define MARGIN_STEPS 100

/* What became of one. */
struct outcome {
    bool found;  /* it has a counterpart */
    int64_t was; /* the counterpart's value before */
    int64_t set;
};

static void ahead_of(const struct sequence_value *from, struct sequence_value *to)
{
    int64_t margin;

    *to = *from;
    if (!from->called || __builtin_mul_overflow(from->increment, MARGIN_STEPS, &margin) ||
        __builtin_add_overflow(from->last_value, margin, &to->last_value))
        *to = *from;
}

/* ---- which of them is which ---- */

static const struct sequence_value *by_name(const struct sequence_list *l, const char *schema,
                                            const char *name)
{
    for (size_t i = 0; i < l->n; i++) {
        if (strcmp(l->v[i].schema, schema) == 0 && strcmp(l->v[i].name, name) == 0)
            return &l->v[i];
    }
    return NULL;
}

static const struct sequence_value *by_column(const struct sequence_list *l,
                                              const struct table *there, const char *column)
{
    for (size_t i = 0; i < l->n; i++) {
        const struct sequence_value *v = &l->v[i];

        if (v->table && table_is(there, v->table) && strcmp(v->column, column) == 0)
            return v;
    }
    return NULL;
}

/* Belongs v to t, or to the partitioned table that t is a leaf of? */
static bool feeds(const struct sequence_value *v, const struct table *t)
{
    return v->table && (table_is(t, v->table) || (t->root && strcmp(t->root, v->table) == 0));
}

/* What numbers the same column of t on the side that opens; NULL: nothing there does. */
static const struct sequence_value *counterpart(const struct table *t,
                                                const struct sequence_value *v,
                                                const struct sequence_list *there)
{
    for (size_t i = 0; i < t->ncolumns; i++) {
        if (strcmp(t->columns[i].name, v->column) == 0)
            return by_column(there, table_there(t), table_there(t)->columns[i].name);
    }
    return NULL;
}

static bool same(const struct sequence_value *a, const struct sequence_value *b)
{
    return a && a->last_value == b->last_value && a->called == b->called;
}

/* Near its bound the margin does not fit: then exactly what was read, and *to is that. */
static int set_one(struct db *db, const struct sequence_value *from, struct sequence_value *to,
                   struct err *e)
{
    if (db->engine->savepoint(db, e) < 0)
        return -1;
    if (db->engine->sequence_set(db, to, e) == 0)
        return 0;
    if (e->class != ERR_DATA || same(from, to))
        return -1;
    if (db->engine->rollback_to(db, e) < 0)
        return -1;
    *to = *from;
    return db->engine->sequence_set(db, to, e);
}

/* As ahead_of, for a sequence that has another name or another step there. */
static int set_there(struct db *db, const struct sequence_value *from,
                     const struct sequence_value *there, struct outcome *out, struct err *e)
{
    struct sequence_value exact = *from;
    struct sequence_value to;

    exact.schema = there->schema;
    exact.name = there->name;
    exact.table = there->table;
    exact.column = there->column;
    ahead_of(&exact, &to);
    if (!same(there, &to) && set_one(db, &exact, &to, e) < 0)
        return -1;
    *out = (struct outcome){true, there->last_value, to.last_value};
    return 0;
}

/* By its name where both ends are the same engine; else, and where the name is another, by the
 * column that it feeds. 1: set, 0: it has no counterpart, -1. */
static int set_counterparts(struct cutover *c, const struct sequence_value *v,
                            const struct sequence_list *there, struct outcome *out, struct err *e)
{
    struct db *db = c->opening;
    bool same_engine = c->closing->engine == db->engine;
    const char *schema = migration_schema_there(c->m, v->schema);
    const struct sequence_value *named = same_engine ? by_name(there, schema, v->name) : NULL;
    struct sequence_value as_named = *v;
    int found = 0;

    for (size_t i = 0; !named && i < c->tables.n; i++) {
        const struct table *t = c->tables.v[i];
        const struct sequence_value *to = feeds(v, t) ? counterpart(t, v, there) : NULL;

        if (to && set_there(db, v, to, out, e) < 0)
            return -1;
        found = found || to;
    }
    if (!named && (found || !same_engine))
        return found;
    /* If it is missing there, the server says so. */
    as_named.schema = schema;
    return set_there(db, v, named ? named : &as_named, out, e) < 0 ? -1 : 1;
}

/* Notes those that have no counterpart: nothing is wrong with them, but somebody should know. */
static int set_differing(struct cutover *c, const struct sequence_list *from,
                         const struct sequence_list *there, struct outcome *done, struct err *e)
{
    struct db *db = c->opening;
    json_t *alone = json_array();
    int rc = -1;

    if (db->engine->begin(db, e) < 0) {
        json_decref(alone);
        return -1;
    }
    if (state_hold(c, e) < 0)
        goto out;
    for (size_t i = 0; i < from->n; i++) {
        const struct sequence_value *v = &from->v[i];

        rc = set_counterparts(c, v, there, &done[i], e);
        if (rc < 0)
            goto out;
        if (rc == 0)
            json_array_append_new(alone, json_sprintf("%s.%s", v->schema, v->name));
    }
    rc = 0;
out:
    if (rc == 0 && json_array_size(alone) > 0)
        note(c, "sequences_left_out", json_incref(alone));
    json_decref(alone);
    if (rc < 0)
        db->engine->rollback(db, NULL);
    else
        rc = db->engine->commit(db, e);
    return rc;
}

/* The value that its counterpart had when this attempt first read it; else `now`. All readings
 * stand in one order, so it is the i-th again, unless one was made or dropped meanwhile. */
static json_int_t was_at_first(const struct cutover *c, const struct sequence_value *v, size_t i,
                               int64_t now)
{
    const json_t *s = json_array_get(json_object_get(c->body, "sequences"), i);
    const char *schema = fact_text(s, "schema");
    const char *name = fact_text(s, "name");
    bool it = schema && name && strcmp(schema, v->schema) == 0 && strcmp(name, v->name) == 0;

    return it ? fact_int(s, "was", now) : now;
}

static void note_sequences(struct cutover *c, const struct sequence_list *l,
                           const struct outcome *done)
{
    json_t *all = json_array();

    for (size_t i = 0; i < l->n; i++) {
        const struct sequence_value *v = &l->v[i];
        json_t *one = json_pack("{s:s, s:s, s:I, s:b}", "schema", v->schema, "name", v->name,
                                "last_value", (json_int_t)v->last_value, "called", v->called);

        if (done[i].found) {
            json_object_set_new(one, "was", json_integer(was_at_first(c, v, i, done[i].was)));
            json_object_set_new(one, "set", json_integer(done[i].set));
        }
        json_array_append_new(all, one);
    }
    note(c, "sequences", all);
}

/* The user's selection names what the original source has; of the other side, which may have other
 * names, the planned tables are named. */
static void select_both(struct cutover *c, struct arena *a, struct selection *closing,
                        struct selection *opening)
{
    const struct selection *s = &c->r->m->selection;
    const char **labels = arena_zalloc(a, (c->tables.n + 1) * sizeof(*labels));
    bool other = false;

    if (!c->r->back) {
        *closing = *s;
        selection_there(s, &c->tables, a, opening);
        return;
    }
    for (size_t i = 0; i < c->tables.n; i++) {
        labels[i] = arena_strdup(a, table_label(c->tables.v[i]));
        other = other || c->tables.v[i]->there;
    }
    *opening = *s;
    *closing = other ? (struct selection){.include = labels, .ninclude = c->tables.n} : *s;
}

int sequences_copy(struct cutover *c, struct err *e)
{
    struct selection closing;
    struct selection opening;
    struct arena a = ARENA_INIT;
    struct sequence_list from = {0};
    struct sequence_list there = {0};
    struct outcome *done;
    int rc = -1;

    select_both(c, &a, &closing, &opening);
    if (c->closing->engine->sequences(c->closing, &closing, &a, &from, e) < 0 ||
        c->opening->engine->sequences(c->opening, &opening, &a, &there, e) < 0)
        goto out;
    done = arena_zalloc(&a, (from.n + 1) * sizeof(*done));
    if (from.n > 0 && set_differing(c, &from, &there, done, e) < 0)
        goto out;
    note_sequences(c, &from, done);
    rc = 0;
out:
    arena_release(&a);
    return rc < 0 ? err_wrap(e, "copying the sequences") : 0;
}
