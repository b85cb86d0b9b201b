/* The driver of the table.
 *
 * One normal course: cutover_step connects, takes the coordinator's lease and the state row (under
 * a new epoch), and then for each row asks the guards, records the intent, does the step (again and
 * again while it waits), and records the completion, while nobody may write in one with the next
 * row's intent.
 *
 * The dangerous interleavings. (1) A coordinator hangs, a second one takes over, the first wakes
 * up: its epoch is lower on both fences and its version of the state row is old, so it can move
 * neither; it then takes nothing back either, for what stands there is the second one's. (2) The
 * commit that writes `closed` is cut off: it may still come to pass. So an undo first records its
 * intent by compare-and-set on the same row: if that succeeds, `closed` can never be written any
 * more; if the row says `closed`, the road goes forward. If neither can be found out, nothing is
 * opened. (3) Killed anywhere: the next call finds the state and the intent in the row; before
 * `closed` it takes the fences over by its higher epoch and opens the closing side, whatever the
 * dead one had got to. */
#include "core/log.h"
#include "core/run.h"
#include "cutover/internal.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OWN_LEASE_MS 10000
#define UNDO_MS 15000
#define UNDO_STOP_MS 3000 /* when asked to stop */
#define UNDO_PAUSE_MS 100
#define FORWARD_MS 60000 /* how long a closed cutover is tried before the user is told */
#define FORWARD_PAUSE_MS 200
#define TAKE_TRIES 3
#define TIMEOUT_MIN_MS 7000

/* ---- small ---- */

void say(const struct cutover *c, const char *fmt, ...)
{
    char line[1000];
    va_list ap;

    if (!c->r->say)
        return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    c->r->say(c->r->ctx, line);
}

int64_t pause_ms(const struct cutover *c)
{
    return c->flipped ? mono_ms() - c->flipped_ms : 0;
}

static bool names_point(const char *wanted, const char *what, const char *where)
{
    size_t len = strlen(what);

    return wanted && strncmp(wanted, what, len) == 0 && wanted[len] == ':' &&
           strcmp(wanted + len + 1, where) == 0;
}

void test_point(const char *what, const char *where)
{
    static bool stopped; /* once: a step that is tried again comes past here again */

    if (names_point(getenv("LOCKSTEP_TEST_KILL"), what, where))
        raise(SIGKILL);
    if (!stopped && names_point(getenv("LOCKSTEP_TEST_STOP"), what, where)) {
        stopped = true;
        raise(SIGSTOP);
    }
}

static int open_side(const struct cutover *c, const struct endpoint *end, struct db **out,
                     struct err *e)
{
    struct db_options o = {.uri = end->uri,
                           .migration = c->r->m->name,
                           .use = DB_CONTROL,
                           .fence = &c->r->m->fence,
                           .timeout_ms = c->r->max_pause_ms > TIMEOUT_MIN_MS ? c->r->max_pause_ms
                                                                             : TIMEOUT_MIN_MS};

    if (*out)
        return 0;
    if (end->engine->open(&o, out, e) < 0)
        return err_wrap(e, (end == &c->road.opening) == c->r->back ? "source" : "target");
    if (strcmp(end->uri, c->r->m->target.uri) != 0 || migration_check_way(c->r->m, *out, e) == 0)
        return 0;
    (*out)->engine->close(*out);
    *out = NULL;
    return -1;
}

int connect_opening(struct cutover *c, struct err *e)
{
    return open_side(c, &c->road.opening, &c->opening, e);
}

int connect_closing(struct cutover *c, struct err *e)
{
    return open_side(c, &c->road.closing, &c->closing, e);
}

int connect_sides(struct cutover *c, struct err *e)
{
    return connect_opening(c, e) < 0 || connect_closing(c, e) < 0 ? -1 : 0;
}

void disconnect_sides(struct cutover *c)
{
    struct db **sides[2] = {&c->closing, &c->opening};

    digest_close(c);
    for (int i = 0; i < 2; i++) {
        if (*sides[i])
            (*sides[i])->engine->close(*sides[i]);
        *sides[i] = NULL;
    }
}

/* The command that was said. That which takes reads back is named by where they come back to. */
static const char *verb(const struct cutover *c)
{
    static const char *const verbs[][2] = {{"cutover", "rollback"},
                                           {"cutover --rehearse", "rollback --rehearse"},
                                           {"cutover --stage reads", "rollback --stage reads"}};

    if (c->r->rehearse)
        return verbs[1][c->r->back];
    if (c->r->stage == CUTOVER_STAGE_WRITES)
        return verbs[0][c->r->back];
    return verbs[2][c->r->back != (c->r->stage == CUTOVER_STAGE_READS_BACK)];
}

/* ---- begin ---- */

/* Both directions' rows, and which of them holds. */
static int load_rows(struct cutover *c, struct err *e)
{
    return state_load(c, e) < 0 || other_load(c, e) < 0 || other_resolve(c, e) < 0 ? -1 : 0;
}

static int knows_migration(struct db *db, bool *out, struct err *e)
{
    json_t *self = NULL;

    if (db->engine->control_exists(db, out, e) < 0 ||
        (*out && fact_read(db, "migration", "self", &self, NULL, e) < 0))
        return -1;
    *out = self != NULL;
    json_decref(self);
    return 0;
}

/* The source has no facts: what that means the target tells. */
static int refuse_without_way(struct cutover *c, struct err *e)
{
    bool known;

    if (connect_closing(c, e) < 0 || knows_migration(c->closing, &known, e) < 0)
        return err_wrap(e, "the source knows of no way back");
    if (!known) {
        err_set(e, ERR_REFUSED,
                "there is nothing to go back to: the migration has not begun, or "
                "is finished");
        return err_hint(e, "lockstep status tells how things stand");
    }
    if (other_load(c, e) < 0)
        return -1;
    if (c->other.state < CUTOVER_CLOSED)
        return other_refuse_unmade(e);
    err_set(e, ERR_REFUSED, "there is no way back: the cutover was made without one");
    return err_hint(e, "there is only forward: lockstep finish ends the migration");
}

static int need_migration(struct cutover *c, struct err *e)
{
    bool known;

    if (knows_migration(c->opening, &known, e) < 0)
        return -1;
    if (known)
        return 0;
    if (c->r->back)
        return refuse_without_way(c, e);
    err_set(e, ERR_REFUSED,
            "the target knows nothing of this migration: it has not begun, or is "
            "finished");
    return err_hint(e, "lockstep run begins it");
}

static int take_lease(struct cutover *c, struct err *e)
{
    char holder[HOLDER_MAX];

    for (int tries = 0; tries < 3; tries++) {
        int rc = lease_take(c->opening, "cutover", c->r->m->holder, OWN_LEASE_MS, e);

        if (rc != 0) {
            c->leased = rc > 0;
            return rc < 0 ? -1 : 0;
        }
        if (lease_held(c->opening, "cutover", holder, sizeof(holder), e) < 0)
            return -1;
        if (!holder[0])
            continue;
        if (!c->r->holder_is_dead || !c->r->holder_is_dead(holder))
            break;
        if (lease_release(c->opening, "cutover", holder, e) < 0)
            return -1;
    }
    err_set(e, ERR_REFUSED, "%s conducts this %s", holder, verb(c));
    return err_hint(e,
                    "wait for it; if that process is dead, its lease ends within %d s and the "
                    "next lockstep %s takes over",
                    OWN_LEASE_MS / 1000, verb(c));
}

int load_migration(struct cutover *c, struct err *e)
{
    return need_migration(c, e) < 0 || load_rows(c, e) < 0 ? -1 : 0;
}

static bool is_over(const struct cutover *c)
{
    return stage_is_over(c) || (c->state == CUTOVER_SWITCHED && !fact_bool(c->body, "hook_failed"));
}

/* What a vanished coordinator began beyond `prepared` is taken back before we begin ourselves: its
 * pause has lasted long enough. */
static int recover(struct cutover *c, struct err *e)
{
    const char *going = state_going(c);

    if (c->state >= CUTOVER_CLOSED)
        return 0;
    if (c->state <= CUTOVER_PREPARED && (!going || strcmp(going, "prepared") == 0))
        return 0;
    say(c, "an earlier coordinator did not finish (%s, on its way to %s): taking it back first",
        cutover_state_name(c->state), going ? going : "nowhere");
    if (state_set(c, c->state, "undo", e) < 0)
        return -1;
    test_point("undo", "before");
    for (size_t i = cutover_row_count; i-- > 0;) {
        const struct cutover_row *row = &cutover_rows[i];

        if (row->undo && row->to > CUTOVER_PREPARED && row->undo(c, e) < 0)
            return -1;
    }
    test_point("undo", "after");
    return state_set(c, c->state < CUTOVER_PREPARED ? CUTOVER_NONE : CUTOVER_PREPARED, NULL, e);
}

/* May what is asked for be done from the state that the row tells? */
static int demand_state(struct cutover *c, struct err *e)
{
    if (stage_demand(c, e) < 0 || (c->r->rehearse && rehearsal_allowed(c, e) < 0))
        return -1;
    if (c->state < CUTOVER_CLOSED)
        notes_begin(c);
    return 0;
}

/* What a coordinator sent before it was killed may still arrive: then the row has just moved. */
static int take_row(struct cutover *c, struct err *e)
{
    for (int tries = 0; state_take(c, e) < 0; tries++) {
        if (e->class != ERR_FENCED || tries == TAKE_TRIES || load_rows(c, e) < 0)
            return -1;
        err_clear(e);
        if (demand_state(c, e) < 0)
            return -1;
    }
    return 0;
}

static int begin(struct cutover *c, struct err *e)
{
    struct err closing_error = {0};

    c->begun = c->r->alone;
    if (c->begun)
        return 0;
    if (open_side(c, &c->road.opening, &c->opening, e) < 0 || need_migration(c, e) < 0 ||
        state_load(c, e) < 0)
        return -1;
    if (open_side(c, &c->road.closing, &c->closing, &closing_error) < 0 &&
        c->state < CUTOVER_CLOSED) {
        *e = closing_error;
        return -1;
    }
    if (load_rows(c, e) < 0)
        return -1;
    c->begun = true;
    /* A switch back that could not reset this row has sealed the side, and must not be denied;
     * asked before anything is recorded, or that switch would find one of ours under way. */
    if (c->state == CUTOVER_SWITCHED && !c->r->rehearse && demand_open(c, e) < 0)
        return -1;
    if (is_over(c) && !c->r->rehearse)
        return 0;
    if (take_lease(c, e) < 0 || load_rows(c, e) < 0 || clock_begin(c, e) < 0 ||
        demand_state(c, e) < 0)
        return -1;
    /* A refusal changes nothing: what must hold for the first step is asked before that. */
    if (c->r->stage != CUTOVER_STAGE_READS_BACK && c->state <= CUTOVER_PREPARED &&
        !state_going(c) && checks_demand(c, cutover_rows[0].guard, e) < 0)
        return -1;
    c->taken = true;
    if (take_row(c, e) < 0 || recover(c, e) < 0)
        return -1;
    c->was = c->state;
    return renewer_start(c, e);
}

/* ---- undo ---- */

/* As long as we have not tried to write `closed`, our own fence may be lifted at once: the side
 * that opens, which settles whose the undo is, may be what has died. A successor's fence has
 * another token, and stays. Is it lifted? */
static bool lift_early(struct cutover *c)
{
    struct err e = {0};

    if (!c->flipped || c->closing_tried || !c->closing)
        return false;
    if (c->closing->engine->fence_lift(c->closing, c->token, &e) == 0)
        return true;
    /* Another's by now, or our epoch's is over: undo_claim() tells. */
    if (e.class != ERR_FENCED)
        log_err(LOG_WARN, "cutover", "fence-not-lifted-at-once", &e);
    return false;
}

static int taken_over(const struct cutover *c, struct err *e)
{
    err_set(e, ERR_FENCED, "another coordinator took the cutover over");
    return err_hint(e, "go by what the other one says, or lockstep %s again", verb(c));
}

enum undo_road { UNDO_BACK, UNDO_FORWARD, UNDO_LOST, UNDO_UNKNOWN };

/* What a rehearsal has begun is a preparation, also while it is taken back. */
static const char *undo_intent(const struct cutover *c)
{
    return c->r->rehearse ? "prepared" : "undo";
}

/* What was done but not recorded yet belongs to what is told of it. */
static void keep_notes(struct cutover *c, json_t *notes)
{
    static const char *const newer[] = {"steps", "position", "sequences"};

    json_object_update_missing(c->body, notes);
    for (size_t i = 0; i < sizeof(newer) / sizeof(newer[0]); i++) {
        json_t *value = json_object_get(notes, newer[i]);

        if (value)
            json_object_set(c->body, newer[i], value);
    }
}

/* May we take back? Records the intent, which also settles whether `closed` was written. What takes
 * back has a higher epoch than what was done: a statement of ours that a broken connection still
 * carries must not close a side that we have opened again. */
static enum undo_road undo_claim(struct cutover *c)
{
    const uint32_t epoch = c->epoch;
    int64_t from = mono_ms();
    struct err e = {0};

    for (;;) {
        json_t *notes = json_deep_copy(c->body);
        const char *token;
        bool loaded;

        disconnect_sides(c);
        loaded = open_side(c, &c->road.opening, &c->opening, &e) == 0 && state_load(c, &e) == 0;
        token = loaded ? fact_text(c->body, "token") : NULL;
        /* A row that was never written is nobody's. */
        if (loaded && (!token || strcmp(token, c->token) != 0)) {
            json_decref(notes);
            return UNDO_LOST;
        }
        keep_notes(c, notes);
        json_decref(notes);
        if (loaded && c->state >= CUTOVER_CLOSED)
            return UNDO_FORWARD;
        c->epoch = epoch + 1;
        if (loaded && state_set(c, c->state, undo_intent(c), &e) == 0)
            return UNDO_BACK;
        c->epoch = epoch;
        if (mono_ms() - from > (stop_requested() ? UNDO_STOP_MS : UNDO_MS))
            return c->closing_tried ? UNDO_UNKNOWN : UNDO_BACK;
        nap_ms(UNDO_PAUSE_MS);
    }
}

/* Until it succeeds or the time is up: the closing side may have been restarted just now. */
static int undo_row(struct cutover *c, const struct cutover_row *row, struct err *e)
{
    int64_t from = mono_ms();

    for (;;) {
        struct err other = {0};

        /* Each undo concerns one side; the other one may be gone. */
        open_side(c, &c->road.opening, &c->opening, &other);
        if (open_side(c, &c->road.closing, &c->closing, e) < 0)
            c->closing = NULL;
        if (row->undo(c, e) == 0)
            return 0;
        if (e->class == ERR_FENCED ||
            mono_ms() - from > (stop_requested() ? UNDO_STOP_MS : UNDO_MS))
            return -1;
        disconnect_sides(c);
        nap_ms(UNDO_PAUSE_MS);
    }
}

static int undo_rows(struct cutover *c, enum cutover_state to, struct err *e)
{
    enum cutover_state from = c->row->to;

    test_point("undo", "before");
    for (size_t i = cutover_row_count; i-- > 0;) {
        const struct cutover_row *row = &cutover_rows[i];

        if (row->to > from || row->to <= to)
            continue;
        invariant(row->undo != NULL);
        if (undo_row(c, row, e) < 0)
            return err_wrap(e, "undoing %s", cutover_state_name(row->to));
    }
    test_point("undo", "after");
    if (!c->opening)
        return err_set(e, ERR_RETRY, "undone, but the target cannot be reached to record it");
    return state_set(c, to, NULL, e);
}

static int after_undo(struct cutover *c, int64_t held, const struct err *undo, struct err *e)
{
    char hint[ERR_HINT_MAX];
    struct err why = *e; /* a message cannot be a part of itself */
    const char *reads = stage_reads_at(c);

    snprintf(hint, sizeof(hint), "%s", e->hint);
    if (reads)
        say(c, "the reads stay on the %s: it goes on following", reads);
    if (undo->class != ERR_NONE) {
        err_set(e, ERR_FATAL, "%.600s; and it could not be undone: %.600s", why.msg, undo->msg);
        return err_hint(e,
                        "lockstep %s again undoes it first; a fence that is not sealed "
                        "lapses by itself",
                        verb(c));
    }
    if (!c->flipped)
        return err_wrap(e, "%s not begun", verb(c));
    if (e->class != ERR_STOPPED)
        e->class = ERR_FATAL;
    err_wrap(e, "%s undone, writes were held for %lld ms", verb(c), (long long)held);
    return hint[0] ? -1 : err_hint(e, "lockstep %s again", verb(c));
}

/* Both sides are shut: as long as there is hope, the road is tried again from where the row says.
 * 0: try, -1: give up. */
static int forward_again(struct cutover *c, struct err *e)
{
    struct err again = {0};

    if (e->class != ERR_RETRY && e->class != ERR_UNKNOWN)
        return -1;
    if (c->failed_ms == 0)
        c->failed_ms = mono_ms();
    while (mono_ms() - c->failed_ms < FORWARD_MS && !stop_requested()) {
        json_t *notes = json_deep_copy(c->body);
        bool loaded;

        disconnect_sides(c);
        nap_ms(FORWARD_PAUSE_MS);
        loaded =
            open_side(c, &c->road.opening, &c->opening, &again) == 0 && state_load(c, &again) == 0;
        json_object_update_missing(c->body, notes);
        json_decref(notes);
        if (!loaded)
            continue;
        if (strcmp(fact_text(c->body, "token") ? fact_text(c->body, "token") : "", c->token) != 0)
            return taken_over(c, e);
        c->row = NULL;
        return 0;
    }
    return -1;
}

/* Where an undo leads to: a preparation that failed to what was found, which may be one that an
 * earlier call has made, and on which reads rest; else what was prepared stays. */
static enum cutover_state undo_leads_to(const struct cutover *c)
{
    return c->r->rehearse || c->row->to == CUTOVER_PREPARED ? c->was : CUTOVER_PREPARED;
}

/* The step at hand failed with *e. 0: the road goes forward after all; -1. */
static int fail(struct cutover *c, struct err *e)
{
    enum cutover_state to = undo_leads_to(c);
    struct err undo = {0};
    int64_t held;
    bool lifted;

    if (c->state >= CUTOVER_CLOSED) {
        if (forward_again(c, e) == 0)
            return 0;
        if (e->hint[0] == '\0')
            err_hint(e, "lockstep %s again: it goes on from %s", verb(c),
                     cutover_state_name(c->state));
        return err_wrap(e, "%s %s, on its way to %s", verb(c), cutover_state_name(c->state),
                        cutover_state_name(c->row->to));
    }
    /* A guard refused before the first step, or between prepared and fenced. */
    if (!c->entered && !c->flipped && e->class == ERR_REFUSED)
        return -1;
    err_wrap(e, "on the way to %s", cutover_state_name(c->row->to));
    renewer_release_fence(c);
    lifted = lift_early(c);
    held = pause_ms(c);
    switch (undo_claim(c)) {
    case UNDO_LOST:
        return taken_over(c, e);
    case UNDO_FORWARD:
        c->row = NULL;
        return 0;
    case UNDO_UNKNOWN:
        err_wrap(e, "whether the %s is closed is not known, so both sides stay shut", verb(c));
        return err_hint(e, "lockstep %s again as soon as the side that opens can be reached",
                        verb(c));
    case UNDO_BACK:
        break;
    }
    note(c, "undone_because", json_string(e->msg));
    if (undo_rows(c, to, &undo) == 0)
        err_clear(&undo);
    if (!lifted)
        held = pause_ms(c);
    return after_undo(c, held, &undo, e);
}

/* ---- forward ---- */

static const struct cutover_row *next_row(const struct cutover *c)
{
    if (c->r->rehearse)
        return &rehearsal_row;
    /* Prepared by an earlier call, which may be long ago. */
    if (c->state == CUTOVER_PREPARED && !c->prepared)
        return &cutover_rows[0];
    if (c->state == CUTOVER_SWITCHED)
        return &cutover_rows[cutover_row_count - 1];
    return cutover_row_from(c->state);
}

static void take_up(struct cutover *c, const struct cutover_row *row, int64_t now)
{
    invariant(row != NULL);
    c->row = row;
    c->entered = false;
    c->stage = 0;
    c->turn_stage = 0;
    c->began_ms = now;
}

/* The intent is recorded. */
static void begin_row(struct cutover *c)
{
    c->entered = true;
    test_point(cutover_state_name(c->row->to), "before");
}

static int enter(struct cutover *c, struct err *e)
{
    const struct cutover_row *row = next_row(c);

    take_up(c, row, mono_ms());
    if (checks_demand(c, row->guard, e) < 0 ||
        state_set(c, c->state, cutover_state_name(row->to), e) < 0)
        return -1;
    begin_row(c);
    return 0;
}

/* As it was found. That the row is still ours is asked first, as before any undo. */
static int end_rehearsal(struct cutover *c, struct err *e)
{
    test_point("rehearsed", "before");
    if (state_set(c, c->state, undo_intent(c), e) < 0 || undo_rows(c, c->was, e) < 0)
        return -1;
    test_point("rehearsed", "after");
    c->row = NULL;
    c->rehearsed = true;
    return 0;
}

/* While nobody may write, the row that follows is begun with the end of the one before, so that one
 * record tells both. */
static const struct cutover_row *follower(const struct cutover_row *row)
{
    bool held = row->to >= CUTOVER_FENCED && row->to < CUTOVER_SWITCHED;

    return held ? cutover_row_from(row->to) : NULL;
}

static void tell_done(const struct cutover *c, const struct cutover_row *row, int64_t took)
{
    say(c, "%-9s %6lld ms  %s", cutover_state_name(row->to), (long long)took, row->does);
}

static int complete(struct cutover *c, struct err *e)
{
    const struct cutover_row *row = c->row;
    const struct cutover_row *next = follower(row);
    int64_t now = mono_ms();
    int64_t took = now - c->began_ms;

    test_point(cutover_state_name(row->to), "after");
    if (c->r->rehearse)
        return end_rehearsal(c, e);
    note_step(c, cutover_state_name(row->to), took);
    if (row->to == CUTOVER_SWITCHED)
        note_time(c, "ended_at");
    if (row->to == CUTOVER_CLOSED && checks_demand(c, CHECK_IN_TIME, e) < 0)
        return -1;
    if (next && checks_demand(c, next->guard, e) < 0) {
        tell_done(c, row, took);
        take_up(c, next, now); /* that is what is undone */
        return -1;
    }
    c->closing_tried = c->closing_tried || row->to == CUTOVER_CLOSED;
    if (state_set(c, row->to, next ? cutover_state_name(next->to) : NULL, e) < 0)
        return -1;
    tell_done(c, row, took);
    c->prepared = c->prepared || row->to == CUTOVER_PREPARED;
    c->row = NULL;
    if (next) {
        take_up(c, next, now);
        begin_row(c);
    }
    return 0;
}

static int forward(struct cutover *c, struct err *e)
{
    int rc;

    if (!c->row && enter(c, e) < 0)
        return -1;
    renewer_tick(c);
    if (c->flipped && c->state < CUTOVER_CLOSED && checks_demand(c, CHECK_IN_TIME, e) < 0)
        return -1;
    if (stop_requested() && c->state < CUTOVER_CLOSED)
        return stop_check(e);
    rc = c->row->step(c, e);
    c->waits = rc == 0;
    return rc <= 0 ? rc : complete(c, e);
}

static int at_end(struct cutover *c, struct err *e)
{
    if (!fact_bool(c->body, "hook_failed"))
        return 1;
    err_set(e, ERR_FATAL, "switched and open, but the on_switch hook failed: %s",
            fact_text(c->body, "hook"));
    return err_hint(e,
                    "move the traffic by hand, or lockstep %s again, which runs the hook "
                    "again",
                    verb(c));
}

int cutover_step(struct cutover *c, struct err *e)
{
    c->waits = true;
    if (!c->begun) {
        if (begin(c, e) < 0)
            return -1;
        return is_over(c) ? 1 : 0;
    }
    if (is_over(c) || c->rehearsed)
        return 1;
    if (stage_is_due(c))
        return stage_step(c, e);
    if (forward(c, e) < 0) {
        if (!c->row || fail(c, e) < 0)
            return -1;
        err_clear(e);
        return 0;
    }
    if (c->rehearsed)
        return 1;
    return c->state == CUTOVER_SWITCHED && !c->row ? at_end(c, e) : 0;
}

/* ---- the whole ---- */

struct cutover *cutover_open(const struct cutover_request *r)
{
    struct cutover *c = calloc(1, sizeof(*c));

    invariant(c != NULL);
    c->r = r;
    migration_mirror(r->m, &c->arena, &c->mirror);
    c->m = r->back ? &c->mirror : r->m;
    c->turn = r->back ? r->m : &c->mirror;
    /* Each direction's facts stand on its own target, its stream under the same name. */
    c->road = (struct road){.direction = migration_stream(c->m),
                            .stream = "forward",
                            .closing = c->m->source,
                            .opening = c->m->target};
    c->body = json_object();
    return c;
}

void cutover_close(struct cutover *c)
{
    struct err ignored = {0};

    if (!c)
        return;
    renewer_stop(c);
    if (c->leased && c->opening)
        lease_release(c->opening, "cutover", c->r->m->holder, &ignored);
    disconnect_sides(c);
    state_clear(c);
    arena_release(&c->sequences.arena);
    arena_release(&c->arena);
    free(c);
}

int cutover_is_over(const struct cutover_request *r, bool *over, struct err *e)
{
    struct cutover *c = cutover_open(r);
    struct err missing = {0};
    int rc = -1;

    if (open_side(c, &c->road.opening, &c->opening, e) == 0 && need_migration(c, e) == 0) {
        open_side(c, &c->road.closing, &c->closing, &missing);
        rc = load_rows(c, e);
        /* What is refused without the other side's row is not known to hold. */
        if (rc < 0 && missing.class != ERR_NONE)
            *e = missing;
    }
    *over = rc == 0 && is_over(c);
    cutover_close(c);
    return rc;
}

int cutover_run(const struct cutover_request *r, json_t **record, struct err *e)
{
    struct cutover *c = cutover_open(r);
    int rc;

    while ((rc = cutover_step(c, e)) == 0) {
        if (c->waits)
            nap_ms(POLL_MS);
    }
    if (record) {
        *record = cutover_record(c);
        if (rc < 0)
            json_object_set_new(*record, "failed", json_string(e->msg));
        if (rc < 0 && e->hint[0])
            json_object_set_new(*record, "remedy", json_string(e->hint));
    }
    cutover_close(c);
    return rc < 0 ? -1 : 0;
}
