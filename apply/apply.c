/* Apply: the journal onto the target, strictly in source order, exactly once.
 *
 * The normal course. A cursor gathers whole transactions into a batch. In one target transaction
 * the checkpoint's row is locked and found to be ours, the batch's changes are written, the
 * checkpoint is moved by compare-and-set; commit. A source transaction larger than a batch is
 * written in portions inside one target transaction ("streaming"), and the checkpoint moves at its
 * end.
 *
 * The dangerous interleavings. (1) Death before commit: the target forgets all of it, the next
 * apply reads the checkpoint and the journal from there. (2) A commit whose answer is lost: the
 * next step asks the target where it stands. (3) A second apply takes over while we hang: the
 * checkpoint's version has moved, our next transaction is refused as a whole. (4) Capture dies in
 * the middle of a transaction: the journal holds its first half, then, from a new generation, all
 * of it; the half is forgotten, with what streaming has written of it.
 *
 * Behind a switch the stream's source is closed, and a transaction that comes from there all the
 * same is foreign: it is told, and never written (control/foreign.h). Whether the switch was made
 * is asked in the target transaction that would write it, under the state row's lock: a coordinator
 * that writes `closed` waits, and finds it applied like all that was drained.
 *
 * What the target refuses even along the source's own road parks the table: the batch is rolled
 * back, the lane is parked at the last commit, and the journal is read from there once more,
 * without that table. */
#include "apply/internal.h"
#include "core/log.h"
#include "core/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Requests are looked for when idle, and otherwise this often. */
#define POLL_MS 500
#define POLL_STEPS 64

struct apply *apply_open(const struct migration *m)
{
    struct apply *a = calloc(1, sizeof(*a));

    invariant(a != NULL);
    a->m = m;
    cursor_init(&a->main, m, &a->tracks);
    cursor_init(&a->lane, m, &a->tracks);
    return a;
}

static void disconnect(struct apply *a)
{
    requests_release(a);
    if (a->db)
        a->db->engine->close(a->db);
    if (a->source)
        a->source->engine->close(a->source);
    a->db = NULL;
    a->source = NULL;
    a->lane_active = false;
    cursor_release(&a->main);
    cursor_release(&a->lane);
    tracks_release(&a->tracks);
    arena_release(&a->scratch);
}

void apply_close(struct apply *a)
{
    if (!a)
        return;
    disconnect(a);
    free(a);
}

void apply_stand(const struct apply *a, struct checkpoint *out)
{
    *out = a->checkpoint;
}

int apply_source(struct apply *a, struct db **out, struct err *e)
{
    if (!a->source && migration_open_source(a->m, DB_READ, &a->source, e) < 0)
        return -1;
    *out = a->source;
    return 0;
}

/* ---- starting ---- */

static void stand_of(const struct checkpoint *c, struct stand *out)
{
    *out = (struct stand){.next = c->next,
                          .record = c->record,
                          .epoch = c->epoch,
                          .ts_us = c->ts_us,
                          .txns = c->txns,
                          .changes = c->changes,
                          .turns = c->turns};
    snprintf(out->marker, sizeof(out->marker), "%s", c->marker);
}

int apply_rewind(struct apply *a, struct err *e)
{
    struct stand at;

    stand_of(&a->checkpoint, &at);
    a->lane_active = false;
    cursor_release(&a->lane);
    if (tracks_load(&a->tracks, a->db, a->m->source.engine, at.next, e) < 0)
        return -1;
    return cursor_seek(&a->main, a->db, &at, e);
}

/* 1 ready, 0 the load is not, -1. */
static int connect_target(struct apply *a, struct err *e)
{
    struct arena arena = ARENA_INIT;
    struct stream_fact stream;
    enum load_phase phase = LOAD_NONE;
    struct checkpoint start = {0};
    bool exists = false;
    int status;

    if (!a->db && migration_open_target(a->m, DB_APPLY, &a->db, e) < 0)
        return -1;
    if (a->db->engine->control_exists(a->db, &exists, e) < 0)
        return -1;
    if (exists && load_phase_get(a->db, &phase, e) < 0)
        return -1;
    if (phase < LOAD_LOADED)
        return 0;
    status = stream_fact_load(a->db, &arena, &stream, e);
    start.next = stream.start;
    start.epoch = stream.epoch;
    start.turns = turns_begin(a->m);
    arena_release(&arena);
    if (status == 0)
        status = checkpoint_take(a->db, "forward", &start, &a->checkpoint, e);
    /* Our own earlier commit, whose answer was lost, may have moved it just now: ask again. */
    if (status < 0 && e->class == ERR_FENCED)
        e->class = ERR_RETRY;
    if (status < 0 || apply_rewind(a, e) < 0)
        return -1;
    log_event(LOG_INFO, "apply", "started", "generation=%u record=%llu", a->checkpoint.generation,
              (unsigned long long)a->checkpoint.record);
    return 1;
}

/* ---- committing ---- */

static int open_txn(struct apply *a, struct cursor *c, struct err *e)
{
    if (c->streaming)
        return 0;
    if (a->db->engine->begin(a->db, e) < 0)
        return -1;
    return checkpoint_hold(a->db, "forward", &a->checkpoint, e);
}

static int advance_main(struct apply *a, struct checkpoint *to, struct err *e)
{
    const struct stand *f = &a->main.frontier;

    *to = a->checkpoint;
    to->next = f->next;
    to->record = f->record;
    to->epoch = f->epoch;
    to->ts_us = f->ts_us;
    to->txns = f->txns;
    to->changes = f->changes;
    to->turns = f->turns;
    snprintf(to->marker, sizeof(to->marker), "%s", f->marker);
    return checkpoint_advance(a->db, "forward", &a->checkpoint, to, e);
}

/* The batch's last transaction came from a side that is sealed: is that closed? Asked in the open
 * transaction. */
static int settle_suspect(struct apply *a, struct cursor *c, struct err *e)
{
    const struct turns *turns = &c->frontier.turns;
    /* A way back begins on a side that nobody may write on yet. */
    bool closed = turns->epoch == 0;

    if (c->suspicion != SUSPECT_ASK)
        return 0;
    if (!closed && switch_is_closed(a->db, a->m, turns, &closed, e) < 0)
        return -1;
    cursor_settle(c, closed);
    return 0;
}

/* A whole foreign transaction is in the batch: it is counted in the transaction that passes it. */
static bool has_foreign(const struct cursor *c)
{
    return c->suspicion == SUSPECT_FOREIGN && !c->in_txn && c->foreign.changes > 0;
}

static void tell_foreign(const struct apply *a, const struct cursor *c)
{
    char position[80];
    struct buf text;

    buf_init(&text, BUF_MAX_TEXT);
    foreign_print(&c->foreign, &text);
    a->m->source.engine->position_text(c->foreign.txn.commit, position, sizeof(position));
    log_event(LOG_WARN, "apply", "foreign-write", "side=%s at=%s %s",
              a->m->back ? "target" : "source", position, text.data ? text.data : "");
    buf_release(&text);
}

/* A lane's own progress; at its end it follows. */
static int advance_lane(struct apply *a, struct lane *to, struct err *e)
{
    const struct cursor *c = &a->lane;
    bool joins = c->stopped && c->frontier.record >= c->stop_record;

    *to = c->only->lane;
    to->next = joins ? a->checkpoint.next : c->frontier.next;
    to->record = joins ? a->checkpoint.record : c->frontier.record;
    to->state = joins ? LANE_FOLLOWING : LANE_CATCHING_UP;
    return lane_store(a->db, to, e);
}

static int commit_batch(struct apply *a, struct cursor *c, struct err *e)
{
    struct checkpoint to = a->checkpoint;
    struct lane lane = {0};
    int status;

    if (open_txn(a, c, e) < 0 || (!c->in_txn && settle_suspect(a, c, e) < 0) ||
        portion_run(a, c->items, c->complete, e) < 0)
        return -1;
    /* From here on no table is to blame, and none is parked for it. */
    a->culprit = NULL;
    status = c == &a->main ? advance_main(a, &to, e) : advance_lane(a, &lane, e);
    if (status == 0 && has_foreign(c))
        status = foreign_store(a->db, a->m, &to.turns, &c->foreign, e);
    if (status < 0)
        return -1;
    if (a->db->engine->commit(a->db, e) < 0)
        return -1;
    if (c == &a->main)
        a->checkpoint = to;
    else
        c->only->lane = lane;
    if (has_foreign(c))
        tell_foreign(a, c);
    if (!c->in_txn)
        c->suspicion = SUSPECT_NONE;
    c->streaming = false;
    c->at = c->frontier;
    /* Behind the end of a streamed transaction the batch may hold the next one's begin: it stays.
     */
    cursor_consume(c, c->complete);
    if (c == &a->main)
        tracks_pass(&a->tracks, c->at.next);
    return 0;
}

/* ---- parking ---- */

int apply_store_lane(struct apply *a, struct lane *lane, struct err *e)
{
    const struct engine *engine = a->db->engine;

    if (engine->begin(a->db, e) < 0)
        return -1;
    if (checkpoint_hold(a->db, "forward", &a->checkpoint, e) < 0 ||
        lane_store(a->db, lane, e) < 0) {
        engine->rollback(a->db, NULL);
        return -1;
    }
    return engine->commit(a->db, e);
}

static int park(struct apply *a, struct track *track, const char *reason, struct err *e)
{
    struct lane lane = track->lane;

    if (lane.state == LANE_FOLLOWING) {
        lane.next = a->checkpoint.next;
        lane.record = a->checkpoint.record;
    }
    lane.state = LANE_PARKED;
    lane.reason = reason;
    log_event(LOG_ERROR, "apply", "parked", "table=%s reason=%s", track->label, reason);
    return apply_store_lane(a, &lane, e);
}

/* The target refused a change of a->culprit. Parks it, or gives the error on. */
static int on_refusal(struct apply *a, struct err *e)
{
    char reason[ERR_MSG_MAX + ERR_HINT_MAX + 40];
    struct track *track = a->culprit;

    if (!track || a->m->on_error == ON_ERROR_STOP)
        return -1;
    if (e->class != ERR_CONFLICT && e->class != ERR_DATA && e->class != ERR_FATAL)
        return -1;
    snprintf(reason, sizeof(reason), "%s%s%s", e->msg, e->hint[0] ? "; " : "", e->hint);
    if (a->db->engine->rollback(a->db, e) < 0 || park(a, track, reason, e) < 0)
        return -1;
    return apply_rewind(a, e);
}

static bool is_changed(const struct cursor *c, const struct track *t)
{
    bool named = strcmp(t->label, c->changed_table) == 0 ||
                 (t->root && strcmp(t->root, c->changed_table) == 0);

    /* A lane that catches up reads what the others have passed. */
    return named && (c->only ? t == c->only : t->lane.state == LANE_FOLLOWING);
}

/* A partition that was not planned cannot be had by copying its siblings again. */
static int park_changed(struct apply *a, const struct cursor *c, struct track *t, struct err *e)
{
    char reason[ERR_MSG_MAX + 1200];
    char position[64] = "";
    bool own = strcmp(t->label, c->changed_table) == 0;

    if (c->in_txn)
        a->m->source.engine->position_text(c->txn.commit, position, sizeof(position));
    snprintf(reason, sizeof(reason), "%s: %s%s%s%s%s", c->changed_table, c->changed_reason,
             position[0] ? ", at " : "", position,
             own ? "; after the same change on the target: lockstep tables recopy " : "",
             own ? t->label : "");
    return park(a, t, reason, e);
}

/* A table's shape is not the planned one any more: it (or the leaves of that root) parks where the
 * last commit stands. One that is parked already is no news. */
static int on_table_changed(struct apply *a, struct cursor *c, struct err *e)
{
    size_t found = 0;

    for (size_t i = 0; i < a->tracks.n; i++)
        found += is_changed(c, &a->tracks.v[i]) ? 1 : 0;
    if (found == 0) {
        c->changed_table[0] = '\0';
        return 0;
    }
    if (c->streaming && a->db->engine->rollback(a->db, e) < 0)
        return -1;
    c->streaming = false;
    for (size_t i = 0; i < a->tracks.n; i++) {
        struct track *t = &a->tracks.v[i];

        if (is_changed(c, t) && park_changed(a, c, t, e) < 0)
            return -1;
    }
    return apply_rewind(a, e);
}

/* ---- one batch ---- */

/* What streaming wrote of a transaction that will come again goes, and with it the points that were
 * read for it. */
static int forget_streamed(struct apply *a, struct cursor *c, struct err *e)
{
    char only[520];

    c->discard = false;
    if (!c->streaming)
        return 0;
    invariant(c->n == 0);
    c->streaming = false;
    if (c->only)
        snprintf(only, sizeof(only), "%s", c->only->label);
    if (a->db->engine->rollback(a->db, e) < 0 ||
        tracks_load(&a->tracks, a->db, a->m->source.engine, a->checkpoint.next, e) < 0)
        return -1;
    if (c->only)
        c->only = tracks_find(&a->tracks, only);
    return 0;
}

/* A portion of a transaction that has not ended. One that turns out to be foreign leaves nothing to
 * write, and the rest of it is only counted. */
static int stream_portion(struct apply *a, struct cursor *c, struct err *e)
{
    if (open_txn(a, c, e) < 0)
        return -1;
    c->streaming = true;
    if (settle_suspect(a, c, e) < 0)
        return -1;
    if (c->suspicion == SUSPECT_FOREIGN) {
        c->streaming = false;
        return a->db->engine->rollback(a->db, e);
    }
    return portion_run(a, c->items, c->n, e);
}

/* 1 worked, 0 nothing to do, -1. */
static int execute(struct apply *a, struct cursor *c, struct err *e)
{
    if (c->discard && forget_streamed(a, c, e) < 0)
        return -1;
    if (c->complete || cursor_advanced(c))
        return commit_batch(a, c, e) < 0 ? -1 : 1;
    if (c->changed_table[0])
        return on_table_changed(a, c, e) < 0 ? -1 : 1;
    if (!cursor_is_full(c) || c->stopped)
        return 0;
    if (c->n && stream_portion(a, c, e) < 0)
        return -1;
    cursor_consume(c, c->n);
    return 1;
}

static int run_cursor(struct apply *a, struct cursor *c, int timeout_ms, struct err *e)
{
    int status = cursor_fill(c, timeout_ms, e);

    if (status == 0)
        status = execute(a, c, e);
    if (status < 0 && on_refusal(a, e) == 0)
        status = 1;
    return status;
}

/* ---- lanes that catch up ---- */

static int start_lane(struct apply *a, struct track *track, struct err *e)
{
    struct stand at = {
        .next = track->lane.next, .record = track->lane.record, .epoch = a->checkpoint.epoch};

    cursor_init(&a->lane, a->m, &a->tracks);
    if (foreign_spans_load(a->db, &a->lane.foreign_spans, e) < 0)
        return -1;
    a->lane.only = track;
    a->lane.stop_record = a->checkpoint.record;
    a->lane_active = true;
    return cursor_seek(&a->lane, a->db, &at, e);
}

/* 1 worked, 0 no lane catches up, -1. The main stream stands still meanwhile, so the place where
 * the lane joins is fixed. */
static int run_lane(struct apply *a, struct err *e)
{
    struct track *track = NULL;

    if (a->main.streaming)
        return 0;
    for (size_t i = 0; i < a->tracks.n && !track; i++) {
        if (a->tracks.v[i].lane.state == LANE_CATCHING_UP)
            track = &a->tracks.v[i];
    }
    if (!track)
        return 0;
    if (!a->lane_active && start_lane(a, track, e) < 0)
        return -1;
    if (run_cursor(a, &a->lane, 0, e) < 0)
        return -1;
    if (!a->lane_active)
        return 1; /* parked again */
    /* Nothing of its own was left to commit, but the join must be recorded. */
    if (a->lane.only->lane.state == LANE_CATCHING_UP && a->lane.stopped && a->lane.n == 0 &&
        commit_batch(a, &a->lane, e) < 0)
        return -1;
    /* Joined: the main stream reads on with this table. */
    if (a->lane.only->lane.state == LANE_FOLLOWING && apply_rewind(a, e) < 0)
        return -1;
    return 1;
}

/* ---- steps ---- */

static int poll_if_due(struct apply *a, bool idle, struct err *e)
{
    int64_t now = mono_ms();

    /* Nothing uncommitted: requests have transactions of their own. */
    if (a->main.streaming || (a->lane_active && a->lane.streaming))
        return 0;
    if (!idle && !a->standing && a->steps_since_poll++ < POLL_STEPS && now - a->polled_ms < POLL_MS)
        return 0;
    a->steps_since_poll = 0;
    a->polled_ms = now;
    return requests_poll(a, e);
}

static int step(struct apply *a, int timeout_ms, struct err *e)
{
    int status;

    if (!a->main.reader) {
        status = connect_target(a, e);
        if (status == 0)
            nap_ms(timeout_ms);
        if (status <= 0)
            return status;
    }
    if (poll_if_due(a, false, e) < 0)
        return -1;
    if (a->standing) {
        nap_ms(timeout_ms);
        return 0;
    }
    status = run_lane(a, e);
    if (status)
        return status;
    status = run_cursor(a, &a->main, timeout_ms, e);
    if (status < 0)
        return -1;
    if (a->main.stopped && a->pin_name[0] && a->main.complete == 0)
        return requests_pin(a, e) < 0 ? -1 : 1;
    if (status == 0 && poll_if_due(a, true, e) < 0)
        return -1;
    return status;
}

int apply_step(struct apply *a, int timeout_ms, struct err *e)
{
    int status;

    a->culprit = NULL;
    status = step(a, timeout_ms, e);
    if (status < 0)
        disconnect(a);
    return status;
}
