/* Sequences are not in the log, and nextval passes every fence, so they are read and set again
 * until the seal, and the last reading counts (correctness.md C04). The closing side's are read
 * beside a drain, which hides the time that it takes. The opening side's are moved by apply, too (a
 * TRUNCATE that restarts them), so what was read beside a drain is read again if that has brought
 * any change.
 *
 * A coordinator that hung and goes on late must not set a live side's sequences back: each round
 * runs while the state row is locked and still ours; a successor waits for that lock. The server
 * takes it from one that stands still, with the session, so that it cannot go on later. */
#include "cutover/internal.h"
#include "core/run.h"

#include <stdlib.h>
#include <string.h>

/* The lock is not held for longer than this by one that stands still. Setting one counter, on a
 * connection of its own, may take some seconds. */
#define IDLE_MS 20000

/* The closing side's are not used when they are older: nextval goes on behind the seal, and what is
 * drawn there in between has to lie within the margin. */
#define READ_AGE_MS 20

/* What became of one. */
struct outcome {
    bool found;  /* it has a counterpart */
    int64_t was; /* the counterpart's value before */
    int64_t set;
};

/* One that is to be set. */
struct setting {
    struct setting *next;
    const struct sequence_value *from;
    struct sequence_value to;
    struct outcome *done;
};

/* One round of it. */
struct copying {
    struct cutover *c;
    struct db *db; /* of the side that opens */
    const struct sequence_list *there;
    struct setting *first;
    struct setting **last;
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

static void plan_one(struct copying *k, const struct sequence_value *from,
                     const struct sequence_value *there, struct outcome *out)
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
    *out = (struct outcome){true, there->last_value, there->last_value};
    if (ahead == AHEAD_SET && !same(there, &to)) {
        struct setting *one = arena_zalloc(&k->c->sequences.arena, sizeof(*one));

        *one = (struct setting){NULL, from, to, out};
        *k->last = one;
        k->last = &one->next;
    }
}

/* By its name where both ends are the same engine; else, and where the name is another, by the
 * column that it feeds. False: it has no counterpart. */
static bool plan_counterparts(struct copying *k, const struct sequence_value *v,
                              struct outcome *out)
{
    struct cutover *c = k->c;
    const struct sequence_list *there = k->there;
    bool same_engine = c->closing->engine == k->db->engine;
    const char *schema = migration_schema_there(c->m, v->schema);
    const struct sequence_value *named = same_engine ? by_name(there, schema, v->name) : NULL;
    struct sequence_value as_named = *v;
    bool found = false;

    for (size_t i = 0; !named && i < c->tables.n; i++) {
        const struct table *t = c->tables.v[i];
        const struct sequence_value *to = feeds(v, t) ? counterpart(t, v, there) : NULL;

        if (to)
            plan_one(k, v, to, out);
        found = found || to;
    }
    if (!named && (found || !same_engine))
        return found;
    /* If it is missing there, the server says so. */
    as_named.schema = schema;
    plan_one(k, v, named ? named : &as_named, out);
    return true;
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

/* In one transaction, while the row is ours. */
static int set_planned(const struct copying *k, struct err *e)
{
    struct db *db = k->db;
    int rc = k->first ? db->engine->begin(db, e) : 0;

    if (!k->first || rc < 0)
        return rc;
    rc = db->engine->limit_idle(db, IDLE_MS, e);
    if (rc == 0)
        rc = state_hold(k->c, e);
    for (struct setting *one = k->first; one && rc == 0; one = one->next) {
        rc = set_one(db, one->from, &one->to, e);
        one->done->set = one->to.last_value;
    }
    if (rc == 0)
        return db->engine->commit(db, e);
    db->engine->rollback(db, NULL);
    return -1;
}

static int set_differing(struct cutover *c, struct outcome *done, struct err *e)
{
    const struct sequence_list *from = &c->sequences.closing;
    struct copying k = {.c = c,
                        .db = c->opening,
                        .there = &c->sequences.opening,
                        .alone = json_array(),
                        .tight = json_array(),
                        .unsafe = json_array()};
    int rc;

    k.last = &k.first;
    for (size_t i = 0; i < from->n; i++) {
        if (!plan_counterparts(&k, &from->v[i], &done[i]))
            tell_name(k.alone, &from->v[i]);
    }
    rc = set_planned(&k, e);
    if (rc == 0) {
        note_list(c, "sequences_left_out", k.alone,
                  "sequences that nothing on the other side counts");
        note_list(c, "sequences_tight", k.tight, "sequences near their end, too near for a margin");
        note_list(c, "sequences_unsafe", k.unsafe,
                  "sequences that count the other way there, so numbers may come again");
    }
    json_decref(k.alone);
    json_decref(k.tight);
    json_decref(k.unsafe);
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

int sequences_read_closing(struct cutover *c, struct err *e)
{
    struct sequences_seen *seen = &c->sequences;
    struct selection selection;

    arena_reset(&seen->arena);
    seen->closing = (struct sequence_list){0};
    seen->opening = (struct sequence_list){0};
    seen->read_ms = mono_ms();
    select_closing(c, &seen->arena, &selection);
    if (c->closing->engine->sequences(c->closing, &selection, &seen->arena, &seen->closing, e) < 0)
        return err_wrap(e, "reading the sequences of the side that closes");
    return 0;
}

int sequences_read_opening(struct cutover *c, struct err *e)
{
    struct sequences_seen *seen = &c->sequences;
    struct selection selection;
    struct checkpoint at;

    if (checkpoint_load(c->opening, c->road.stream, &at, e) < 0)
        return -1;
    seen->changes = at.changes;
    select_opening(c, &seen->arena, &selection);
    if (c->opening->engine->sequences(c->opening, &selection, &seen->arena, &seen->opening, e) < 0)
        return err_wrap(e, "reading the sequences of the side that opens");
    return 0;
}

int sequences_set(struct cutover *c, struct err *e)
{
    const struct sequence_list *from = &c->sequences.closing;
    struct outcome *done = arena_zalloc(&c->sequences.arena, (from->n + 1) * sizeof(*done));

    if (set_differing(c, done, e) < 0)
        return err_wrap(e, "setting the sequences");
    note_sequences(c, from, done);
    return 0;
}

int sequences_refresh(struct cutover *c, struct err *e)
{
    const struct sequences_seen *seen = &c->sequences;
    bool old = mono_ms() - seen->read_ms > READ_AGE_MS;

    if (old && sequences_read_closing(c, e) < 0)
        return -1;
    return old || seen->changes != c->changes ? sequences_read_opening(c, e) : 0;
}

int sequences_copy(struct cutover *c, struct err *e)
{
    return sequences_read_closing(c, e) < 0 || sequences_read_opening(c, e) < 0
               ? -1
               : sequences_set(c, e);
}
