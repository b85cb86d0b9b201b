/* A table whose shape has changed on the source is planned anew when it is copied again.
 *
 * The order matters. apply finds that the target's table has been changed alike, and in one
 * transaction empties it, writes the new shape, takes the lane off the stream and asks for
 * "reshape/<table>". Capture opens its stream again with the new shapes; when it has read all that
 * the source's log held at that moment (the rows of the old shape, and the change itself), it
 * answers with the journal's next record, from which they hold. Only then does the conductor wait
 * until the source's running transactions have ended, and plan: so the new cut sees all that
 * capture has read with the old shape, and the lane goes on from that record. What says behind it
 * that the shape is another one speaks of another change, and parks the table as any would.
 *
 * A second change of shape in between might have been read by the stream of the old one and be said
 * only before that record: so the catalog is looked at once more when the copy is there. */
#include "apply/internal.h"
#include "control/convert.h"

#include <string.h>

static bool same_type(const struct engine *engine, const struct column *a, const struct column *b)
{
    return engine->same_type ? engine->same_type(a, b)
                             : strcmp(a->source_type, b->source_type) == 0;
}

/* Can the target's table take the rows of the source's, as they are to stand there (`source`), and
 * has it no columns besides? */
static int check_target(const struct engine *engine, const struct table *source,
                        const struct table *target, struct err *e)
{
    const char *label = table_label(source);

    if (!target)
        return err_set(e, ERR_REFUSED, "the target has no table %s", label);
    for (size_t i = 0; i < source->ncolumns; i++) {
        const struct column *ours = &source->columns[i];
        const struct column *theirs = table_column(target, ours->name);

        if (!theirs)
            return err_set(e, ERR_REFUSED, "the target's table has no column \"%s\"", ours->name);
        if (!same_type(engine, ours, theirs))
            return err_set(e, ERR_REFUSED,
                           "column \"%s\" is to be %s on the target, where it is %s", ours->name,
                           ours->source_type, theirs->source_type);
        if (ours->generated != theirs->generated)
            return err_set(e, ERR_REFUSED, "column \"%s\" is generated on the %s only", ours->name,
                           ours->generated ? "source" : "target");
    }
    for (size_t i = 0; i < target->ncolumns; i++) {
        if (!table_column(source, target->columns[i].name))
            return err_set(e, ERR_REFUSED, "the source's table has no column \"%s\"",
                           target->columns[i].name);
    }
    return 0;
}

/* The publication lists relations, not names: another table of the name is not in the stream. */
static int check_source(const struct table *planned, const struct table *now, struct err *e)
{
    if (!now)
        return err_set(e, ERR_REFUSED, "the source has no table %s any more", table_label(planned));
    if (now->id != planned->id)
        return err_set(e, ERR_REFUSED, "a new table has taken its name on the source");
    if ((now->root != NULL) != (planned->root != NULL) ||
        (now->root && strcmp(now->root, planned->root) != 0))
        return err_set(e, ERR_REFUSED, "on the source it is a partition of another table now");
    if (now->identity == IDENTITY_NONE)
        return err_set(e, ERR_REFUSED, "it has neither a primary key nor another replica identity");
    return 0;
}

/* What the table becomes on the target now; a type that cannot be there is refused. */
static int convert_one(struct apply *a, struct db *source, struct table *now, struct arena *arena,
                       struct err *e)
{
    struct table_list one = {1, &now};
    struct conversion conversion;

    if (convert_plan(a->m, source, &one, arena, &conversion, e) < 0)
        return -1;
    return convert_refuse(&conversion, e);
}

int reshape_look(struct apply *a, const struct table *planned, struct arena *arena,
                 struct table **out, struct err *e)
{
    const char *label = arena_strdup(arena, table_label(planned));
    struct table_list ours;
    struct table_list theirs;
    struct db *source;
    struct table *now;

    *out = NULL;
    if (apply_source(a, &source, e) < 0 ||
        source->engine->tables(source, &a->m->selection, arena, &ours, e) < 0)
        return -1;
    now = table_list_find(&ours, label);
    if (check_source(planned, now, e) < 0)
        return -1;
    if (table_same_shape(now, planned) && !table_rewritten(planned, now, arena))
        return 0;
    if (convert_one(a, source, now, arena, e) < 0 ||
        a->db->engine->tables(a->db, NULL, arena, &theirs, e) < 0)
        return -1;
    label = arena_strdup(arena, table_label(table_there(now)));
    if (check_target(a->db->engine, table_there(now), table_list_find(&theirs, label), e) < 0)
        return -1;
    now->version = planned->version + 1;
    *out = now;
    return 0;
}

static const char *fact_key(struct arena *arena, const char *label)
{
    return arena_printf(arena, REQUEST_RESHAPE "%s", label);
}

int reshape_store(struct apply *a, const struct table *t, struct err *e)
{
    struct arena arena = ARENA_INIT;
    const char *key = fact_key(&arena, table_label(t));
    int status = shape_store(a->db, t, e);

    if (status == 0)
        status = request_put(a->db, key, json_pack("{s:I}", "version", (json_int_t)t->version), e);
    arena_release(&arena);
    return status;
}

int reshape_forget(struct apply *a, const char *label, struct err *e)
{
    struct arena arena = ARENA_INIT;
    int status = a->db->engine->fact_delete(a->db, "answer", fact_key(&arena, label), e);

    arena_release(&arena);
    return status;
}

int reshape_record(struct apply *a, const char *label, uint64_t *record, struct err *e)
{
    struct arena arena = ARENA_INIT;
    json_t *body = NULL;
    int found = fact_read(a->db, "answer", fact_key(&arena, label), &body, NULL, e);

    if (found > 0)
        *record = (uint64_t)fact_int(body, "record", 0);
    json_decref(body);
    arena_release(&arena);
    return found;
}
