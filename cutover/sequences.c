/* Sequences are not in the log, and nextval passes every fence, so they are read and set again
 * until the seal, and the last reading counts (correctness.md C04).
 *
 * A coordinator that hung and goes on late must not set a live side's sequences back: each round
 * runs while the state row is locked and still ours; a successor waits for that lock. The server
 * takes it from one that stands still, with the session, so that it cannot go on later. */
#include "cutover/internal.h"

#include <stdlib.h>
#include <string.h>

/* The lock is not held for longer than this by one that stands still. Setting one counter, on a
 * connection of its own, may take some seconds. */
#define IDLE_MS 20000

/* What became of one. */
struct outcome {
    bool found;  /* it has a counterpart */
    int64_t was; /* the counterpart's value before */
    int64_t set;
};

/* One round of it. */
struct copying {
    struct cutover *c;
    struct db *db; /* of the side that opens */
    const struct sequence_list *there;
    json_t *alone;  /* names of those without a counterpart */
    json_t *tight;  /* of those near their end, with how many numbers are left */
    json_t *unsafe; /* of those that count the other way there */
};

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

/* Where the bounds are not known the margin may not fit: then exactly what was read, and *to is
 * that.
 */
static int set_one(struct db *db, const struct sequence_value *from, struct sequence_value *to,
                   struct err *e)
{
    struct sequence_value exact = *to;

    exact.last_value = from->last_value;
    exact.called = from->called;
    if (db->engine->savepoint(db, e) < 0)
        return -1;
    if (db->engine->sequence_set(db, to, e) == 0)
        return 0;
    if (e->class != ERR_DATA || same(&exact, to))
        return -1;
    if (db->engine->rollback_to(db, e) < 0)
        return -1;
    *to = exact;
    return db->engine->sequence_set(db, to, e);
}

static void tell_name(json_t *list, const struct sequence_value *v)
{
    json_array_append_new(list, json_sprintf("%s.%s", v->schema, v->name));
}

static int set_there(struct copying *k, const struct sequence_value *from,
                     const struct sequence_value *there, struct outcome *out, struct err *e)
{
    struct sequence_value to = *there;
    uint64_t left;
    enum ahead ahead = sequence_ahead(from, there, &to, &left);

    if (ahead == AHEAD_UNSAFE)
        tell_name(k->unsafe, from);
    if (left != UINT64_MAX)
        json_array_append_new(
            k->tight,
            json_pack("{s:o, s:I}", "name", json_sprintf("%s.%s", from->schema, from->name), "left",
                      left > INT64_MAX ? (json_int_t)INT64_MAX : (json_int_t)left));
    if (ahead == AHEAD_SET && !same(there, &to) && set_one(k->db, from, &to, e) < 0)
        return -1;
    *out = (struct outcome){true, there->last_value,
                            ahead == AHEAD_SET ? to.last_value : there->last_value};
    return 0;
}

/* By its name where both ends are the same engine; else, and where the name is another, by the
 * column that it feeds. 1: set, 0: it has no counterpart, -1. */
static int set_counterparts(struct copying *k, const struct sequence_value *v, struct outcome *out,
                            struct err *e)
{
    struct cutover *c = k->c;
    const struct sequence_list *there = k->there;
    bool same_engine = c->closing->engine == k->db->engine;
    const char *schema = migration_schema_there(c->m, v->schema);
    const struct sequence_value *named = same_engine ? by_name(there, schema, v->name) : NULL;
    struct sequence_value as_named = *v;
    int found = 0;

    for (size_t i = 0; !named && i < c->tables.n; i++) {
        const struct table *t = c->tables.v[i];
        const struct sequence_value *to = feeds(v, t) ? counterpart(t, v, there) : NULL;

        if (to && set_there(k, v, to, out, e) < 0)
            return -1;
        found = found || to;
    }
    if (!named && (found || !same_engine))
        return found;
    /* If it is missing there, the server says so. */
    as_named.schema = schema;
    return set_there(k, v, named ? named : &as_named, out, e) < 0 ? -1 : 1;
}

/* Nothing is wrong with those, but somebody should know. */
static void note_list(struct cutover *c, const char *name, json_t *list, const char *told)
{
    bool news = !json_equal(json_object_get(c->body, name), list);
    char *text;

    if (json_array_size(list) == 0 || !news)
        return;
    note(c, name, json_incref(list));
    text = json_dumps(list, JSON_COMPACT);
    if (text)
        say(c, "%s: %.700s", told, text);
    free(text);
}

static int set_differing(struct cutover *c, const struct sequence_list *from,
                         const struct sequence_list *there, struct outcome *done, struct err *e)
{
    struct db *db = c->opening;
    struct copying k = {c, db, there, json_array(), json_array(), json_array()};
    int rc = db->engine->begin(db, e);

    if (rc == 0)
        rc = db->engine->limit_idle(db, IDLE_MS, e);
    if (rc == 0 && (rc = state_hold(c, e)) == 0) {
        for (size_t i = 0; i < from->n && rc >= 0; i++) {
            rc = set_counterparts(&k, &from->v[i], &done[i], e);
            if (rc == 0)
                tell_name(k.alone, &from->v[i]);
        }
    }
    if (rc >= 0) {
        note_list(c, "sequences_left_out", k.alone,
                  "sequences that nothing on the other side counts");
        note_list(c, "sequences_tight", k.tight, "sequences near their end, too near for a margin");
        note_list(c, "sequences_unsafe", k.unsafe,
                  "sequences that count the other way there, so numbers may come again");
    }
    json_decref(k.alone);
    json_decref(k.tight);
    json_decref(k.unsafe);
    if (rc >= 0)
        return db->engine->commit(db, e);
    db->engine->rollback(db, NULL);
    return -1;
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
static void select_closing(const struct cutover *c, struct arena *a, struct selection *out)
{
    const struct table_list *tables = &c->tables;
    const struct selection *s = &c->r->m->selection;
    const char **labels = arena_zalloc(a, (tables->n + 1) * sizeof(*labels));
    bool other = false;

    for (size_t i = 0; i < tables->n; i++) {
        labels[i] = arena_strdup(a, table_label(tables->v[i]));
        other = other || tables->v[i]->there;
    }
    *out = c->r->back && other ? (struct selection){.include = labels, .ninclude = tables->n} : *s;
}

static void select_opening(const struct cutover *c, struct arena *a, struct selection *out)
{
    if (c->r->back)
        *out = c->r->m->selection;
    else
        selection_there(&c->r->m->selection, &c->tables, a, out);
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

    select_closing(c, &a, &closing);
    select_opening(c, &a, &opening);
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
