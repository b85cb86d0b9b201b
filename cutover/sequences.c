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

static void ahead_of(const struct sequence_value *from, struct sequence_value *to)
{
    int64_t margin;

    *to = *from;
    if (!from->called || __builtin_mul_overflow(from->increment, MARGIN_STEPS, &margin) ||
        __builtin_add_overflow(from->last_value, margin, &to->last_value))
        *to = *from;
}

static const struct sequence_value *find(const struct sequence_list *l,
                                         const struct sequence_value *v)
{
    for (size_t i = 0; i < l->n; i++) {
        if (strcmp(l->v[i].schema, v->schema) == 0 && strcmp(l->v[i].name, v->name) == 0)
            return &l->v[i];
    }
    return NULL;
}

static bool same(const struct sequence_value *a, const struct sequence_value *b)
{
    return a && a->last_value == b->last_value && a->called == b->called;
}

/* Near its bound the margin does not fit: then exactly what was read. */
static int set_one(struct db *db, const struct sequence_value *from,
                   const struct sequence_value *to, struct err *e)
{
    if (db->engine->savepoint(db, e) < 0)
        return -1;
    if (db->engine->sequence_set(db, to, e) == 0)
        return 0;
    if (e->class != ERR_DATA || same(from, to))
        return -1;
    if (db->engine->rollback_to(db, e) < 0)
        return -1;
    return db->engine->sequence_set(db, from, e);
}

static int set_differing(struct cutover *c, const struct sequence_list *from,
                         const struct sequence_list *there, struct err *e)
{
    struct db *db = c->opening;
    int rc = -1;

    if (db->engine->begin(db, e) < 0)
        return -1;
    if (state_hold(c, e) < 0)
        goto out;
    for (size_t i = 0; i < from->n; i++) {
        struct sequence_value to;

        ahead_of(&from->v[i], &to);
        if (!same(find(there, &from->v[i]), &to) && set_one(db, &from->v[i], &to, e) < 0)
            goto out;
    }
    rc = 0;
out:
    if (rc < 0)
        db->engine->rollback(db, NULL);
    else
        rc = db->engine->commit(db, e);
    return rc;
}

static void note_sequences(struct cutover *c, const struct sequence_list *l)
{
    json_t *all = json_array();

    for (size_t i = 0; i < l->n; i++)
        json_array_append_new(
            all, json_pack("{s:s, s:s, s:I, s:b}", "schema", l->v[i].schema, "name", l->v[i].name,
                           "last_value", (json_int_t)l->v[i].last_value, "called", l->v[i].called));
    note(c, "sequences", all);
}

int sequences_copy(struct cutover *c, struct err *e)
{
    const struct selection *s = &c->r->m->selection;
    struct arena a = ARENA_INIT;
    struct sequence_list from = {0};
    struct sequence_list there = {0};
    int rc = -1;

    if (c->closing->engine->sequences(c->closing, s, &a, &from, e) < 0 ||
        c->opening->engine->sequences(c->opening, s, &a, &there, e) < 0)
        goto out;
    if (from.n > 0 && set_differing(c, &from, &there, e) < 0)
        goto out;
    note_sequences(c, &from);
    rc = 0;
out:
    arena_release(&a);
    return rc < 0 ? err_wrap(e, "copying the sequences") : 0;
}
