/* The way back from the end of a road: reverse replication, positioned on the opening side while
 * that is sealed and before anybody writes there, and seen to carry before anybody is refused a
 * write.
 *
 * A normal course, on the first cutover: control on the closing side; intent; publication and slot
 * on the opening side; the facts by which capture and apply go, in one transaction. The running
 * process sees them and starts the stages of the way back. A marker on the opening side must come
 * out at the checkpoint on the closing side. On every later switch, of either direction, it is
 * there already: the road that was gone before.
 *
 * Where the servers do not allow one (no logical log on the target, a right that is missing), the
 * cutover goes on without, and says so: `check` has warned of it. */
#include "cutover/internal.h"
#include "core/run.h"

#include <stdio.h>
#include <string.h>

/* The stages of a process that was killed leave leases behind. */
#define CARRY_MS 30000
#define LEAVE_MS 15000
#define LEAVE_POLL_MS 50

static struct db_options stream_options(const struct cutover *c)
{
    return (struct db_options){.uri = c->turn->source.uri,
                               .migration = c->turn->name,
                               .use = DB_CONTROL,
                               .back = c->turn->back,
                               .fence = &c->turn->fence};
}

/* ---- making it ---- */

/* May apply write there at all? Asked before anything is made. */
static int try_apply(struct cutover *c, struct err *e)
{
    struct db *db = NULL;

    if (migration_open_target(c->turn, DB_APPLY, &db, e) < 0)
        return -1;
    db->engine->close(db);
    return 0;
}

static int install(struct cutover *c, struct err *e)
{
    struct server_identity from;
    struct server_identity to;
    struct db *db = c->closing;

    if (c->opening->engine->identify(c->opening, &from, e) < 0 ||
        db->engine->identify(db, &to, e) < 0)
        return -1;
    if (db->engine->control_install(db, SIDE_TARGET, e) < 0)
        return -1;
    return migration_register(c->turn, db, &from, &to, e);
}

/* Runs `work` while the state row is locked and still ours. A coordinator that hung before it may
 * have a successor that has made a way back since, or switched, so that its applications need it;
 * and the version of a fact that was deleted and made again does not tell. */
static int as_holder(struct cutover *c, int (*work)(struct cutover *c, void *arg, struct err *e),
                     void *arg, struct err *e)
{
    struct db *row = c->opening;

    if (!row)
        return err_set(e, ERR_RETRY, "no connection to the side that opens");
    if (row->engine->begin(row, e) < 0)
        return -1;
    if (state_hold(c, e) == 0 && work(c, arg, e) == 0)
        return row->engine->commit(row, e);
    row->engine->rollback(row, NULL);
    return -1;
}

static int mark_creating(struct cutover *c, void *seen, struct err *e)
{
    return stream_fact_creating(c->closing, seen, e);
}

/* An earlier way back that was taken away may have left its journal. */
static int make_room(struct cutover *c, void *seen, struct err *e)
{
    struct owned_journal journal;

    if (owned_journal(c->turn, c->closing, &journal, e) < 0 ||
        journal_remove(&journal.options, e) < 0 || journal_check(&journal.options, false, e) < 0)
        return -1;
    return mark_creating(c, seen, e);
}

struct made {
    struct table_list tables;
    struct stream_origin origin;
    const struct stream_fact *seen;
};

static int record(struct cutover *c, void *arg, struct err *e)
{
    const struct made *made = arg;
    struct db *db = c->closing;

    if (db->engine->begin(db, e) < 0)
        return -1;
    if (way_store(db, &made->tables, made->seen, &made->origin, e) == 0)
        return db->engine->commit(db, e);
    db->engine->rollback(db, NULL);
    return -1;
}

static int make(struct cutover *c, struct stream_fact *seen, struct err *e)
{
    struct db_options options = stream_options(c);
    struct made made = {.seen = seen};
    bool retry = seen->state == STREAM_CREATING;
    int rc;

    if (way_shapes(c->opening, &c->tables, &c->arena, &made.tables, e) < 0 || try_apply(c, e) < 0 ||
        install(c, e) < 0 || as_holder(c, make_room, seen, e) < 0)
        return -1;
    rc = c->opening->engine->stream_create(&options, &made.tables, retry, &c->arena, &made.origin,
                                           e);
    if (rc == 0)
        rc = as_holder(c, record, &made, e);
    if (made.origin.holder)
        made.origin.holder->engine->close(made.origin.holder);
    return rc;
}

static int load_stream(struct cutover *c, struct stream_fact *out, struct err *e)
{
    bool exists;

    memset(out, 0, sizeof(*out));
    if (c->closing->engine->control_exists(c->closing, &exists, e) < 0)
        return -1;
    return exists ? stream_fact_load(c->closing, &c->arena, out, e) : 0;
}

/* Is the way back that was made earlier still that of today's tables? (One may have been copied
 * again in a new shape since.) Not asked of one that has been travelled. */
static int is_stale(struct cutover *c, bool *out, struct err *e)
{
    struct table_list now;
    struct table_list made;

    if (way_shapes(c->opening, &c->tables, &c->arena, &now, e) < 0 ||
        shapes_load(c->closing, &c->arena, &made, e) < 0)
        return -1;
    *out = now.n != made.n;
    for (size_t i = 0; i < now.n && !*out; i++) {
        const struct table *t = table_list_find(&made, table_label(now.v[i]));

        /* One without an identity was given the whole row when the way was made. */
        *out = !t || t->id != now.v[i]->id || !table_same_shape(t, now.v[i]) ||
               table_rewritten(t, now.v[i], &c->arena);
    }
    return 0;
}

/* 1: there is one; 0: there is none to be had; -1. */
static int have(struct cutover *c, struct err *e)
{
    struct stream_fact seen;
    bool stale = false;

    if (load_stream(c, &seen, e) < 0)
        return -1;
    if (seen.state == STREAM_CREATED && !other_closed_it(c) && !c->r->back &&
        is_stale(c, &stale, e) < 0)
        return err_wrap(e, "looking at the way back");
    if (stale) {
        say(c, "the way back is of other tables than today's: it is made anew");
        if (turn_forget(c, e) < 0 || load_stream(c, &seen, e) < 0)
            return -1;
    }
    if (seen.state == STREAM_CREATED || make(c, &seen, e) == 0) {
        note(c, "way_back", json_true());
        return 1;
    }
    if (e->class != ERR_REFUSED || c->r->back)
        return err_wrap(e, "making the way back");
    note(c, "way_back", json_false());
    note(c, "way_back_refused", json_string(e->msg));
    say(c, "without a way back: %s%s%s", e->msg, e->hint[0] ? "; " : "", e->hint);
    err_clear(e);
    return turn_forget(c, e) < 0 ? -1 : 0;
}

/* ---- does it carry? ---- */

static int await(struct cutover *c, struct err *e)
{
    struct checkpoint at;
    int rc = marker_reached(c, c->closing, &c->turn_marker, &at, e);

    if (rc > 0)
        note(c, "way_back_ms", json_integer(mono_ms() - c->turn_ms));
    if (rc != 0 || mono_ms() - c->turn_ms <= CARRY_MS)
        return rc;
    err_set(e, ERR_REFUSED, "the way back does not carry: no marker came through within %d s",
            CARRY_MS / 1000);
    return err_hint(e, "its capture and apply are part of lockstep run; lockstep status tells what "
                       "they lack");
}

int turn_prepare(struct cutover *c, struct err *e)
{
    int rc;

    if (!c->r->way_back)
        return 1;
    if (c->turn_stage == 0) {
        rc = have(c, e);
        if (rc <= 0)
            return rc < 0 ? -1 : 1;
        c->turn_ms = mono_ms();
        if (marker_set(c, c->opening, "back", &c->turn_marker, e) < 0)
            return -1;
        c->turn_stage = 1;
    }
    return await(c, e);
}

/* ---- taking it away ---- */

/* The stages see that the stream is gone, and let go of it. One that hangs is not waited for: the
 * slot is dropped under its feet. */
static int await_stages(struct cutover *c, struct err *e)
{
    static const char *const names[] = {"capture", "apply"};
    int64_t deadline = mono_ms() + LEAVE_MS;

    for (size_t i = 0; i < 2;) {
        int held = lease_held(c->closing, names[i], NULL, 0, e);

        if (held < 0)
            return -1;
        if (held && mono_ms() < deadline)
            nap_ms(LEAVE_POLL_MS);
        else
            i++;
    }
    return 0;
}

/* All of it; a part that is gone is no error. */
static int remove_way(struct cutover *c, void *unused, struct err *e)
{
    struct db_options options = stream_options(c);
    struct owned_journal journal;
    struct db *db = c->closing;

    if (c->turn->source.engine->stream_drop(&options, e) < 0 ||
        owned_journal(c->turn, db, &journal, e) < 0 || journal_remove(&journal.options, e) < 0 ||
        db->engine->begin(db, e) < 0)
        return -1;
    if (way_forget(db, e) == 0)
        return db->engine->commit(db, e);
    db->engine->rollback(db, NULL);
    return -1;
}

int turn_forget(struct cutover *c, struct err *e)
{
    struct stream_fact seen;

    if (!c->r->way_back)
        return 0;
    if (!c->closing)
        return err_set(e, ERR_RETRY, "no connection to the side that closes");
    if (load_stream(c, &seen, e) < 0)
        return -1;
    if (seen.state == STREAM_NONE)
        return 0;
    if (as_holder(c, mark_creating, &seen, e) < 0 || await_stages(c, e) < 0 ||
        as_holder(c, remove_way, NULL, e) < 0)
        return err_wrap(e, "taking the way back away");
    return 0;
}
