/* What the rows of the table do, and how it is taken back. Each is idempotent. A step with waits in
 * it has stages: c->stage says where it stands, 0 at its begin. */
#include "cutover/internal.h"
#include "control/foreign.h"
#include "core/log.h"
#include "core/run.h"

#include <stdio.h>
#include <string.h>

/* Foreign writers on the side that opens are waited for, never ended. */
#define FOREIGN_MS 5000
/* How often it is asked whether anybody is left to bring a marker. */
#define STALL_MS 1000

/* ---- markers ---- */

int marker_set(struct cutover *c, struct db *db, const char *suffix, struct marker *m,
               struct err *e)
{
    switch_mark(m->token, sizeof(m->token), c->token, suffix);
    /* The frontier is read behind the marker, so who has passed it has passed the marker, also
     * when another marker has taken its place in the checkpoint. */
    if (db->engine->mark(db, m->token, e) < 0 ||
        db->engine->current_position(db, &m->beyond, e) < 0)
        return -1;
    return 0;
}

int marker_reached(struct cutover *c, struct db *db, const struct marker *m, struct checkpoint *at,
                   struct err *e)
{
    int found = checkpoint_load(db, c->road.stream, at, e);

    if (found <= 0)
        return found;
    return strcmp(at->marker, m->token) == 0 || position_cmp(at->next, m->beyond) >= 0;
}

int mark_closing(struct cutover *c, const char *suffix, struct err *e)
{
    c->stall_ms = mono_ms() + STALL_MS;
    return marker_set(c, c->closing, suffix, &c->marker, e);
}

/* Apply may commit asynchronously. That is durable with the next commit of this connection, the
 * record of the step: had the server crashed in between, that would fail. */
int marker_passed(struct cutover *c, struct err *e)
{
    struct checkpoint at;
    char text[80];
    int rc = marker_reached(c, c->opening, &c->marker, &at, e);

    if (rc <= 0)
        return rc;
    c->changes = at.changes;
    c->road.closing.engine->position_text(at.next, text, sizeof(text));
    note(c, "position", json_string(text));
    return 1;
}

int marker_too_late(const struct cutover *c, struct err *e)
{
    err_set(e, ERR_REFUSED,
            "apply is too far behind: a marker does not pass within max_pause (%d ms)",
            c->r->max_pause_ms);
    return err_hint(e, "wait until lockstep status shows a small lag, or allow a longer "
                       "--max-pause");
}

/* ---- prepared ---- */

static int arm_and_seal(struct cutover *c, struct err *e)
{
    static const struct fence_wait patient = {FOREIGN_MS, FOREIGN_MS};
    struct fence_report report;
    struct table_list there;
    struct db *to = c->opening;

    if (shapes_load(to, &c->arena, &c->tables, e) < 0)
        return -1;
    if (c->tables.n == 0)
        return err_set(e, ERR_REFUSED, "no table was planned");
    if (!c->r->rehearse && c->closing->engine->fence_install(c->closing, &c->tables, 0, e) < 0)
        return err_wrap(e, "the side that closes");
    tables_there(&c->tables, &c->arena, &there);
    if (to->engine->fence_install(to, &there, 0, e) < 0 ||
        to->engine->fence_seal(to, c->token, c->epoch, e) < 0 ||
        to->engine->fence_wait(to, &patient, &report, e) < 0) {
        if (strcmp(e->sqlstate, FENCE_UNLISTED) == 0)
            e->class = ERR_REFUSED;
        return err_wrap(e, "the side that opens");
    }
    return 0;
}

int step_prepare(struct cutover *c, struct err *e)
{
    int rc;

    switch (c->stage) {
    case 0:
        predict_begin(c);
        if (arm_and_seal(c, e) < 0 || sequences_copy(c, e) < 0)
            return -1;
        c->stage = 1;
        return 0;
    case 1:
        rc = turn_prepare(c, e);
        if (rc > 0)
            digest_open(c);
        if (rc > 0)
            c->stage = 2;
        return rc < 0 ? -1 : 0;
    default:
        return predict_step(c, e);
    }
}

/* ---- fenced ---- */

static int64_t left_ms(const struct cutover *c)
{
    int64_t left = c->r->max_pause_ms - pause_ms(c);

    return left > 0 ? left : 0;
}

/* Half of what is left of the pause; the other half is for draining. */
static int wait_for_writers(struct cutover *c, const char *name, struct err *e)
{
    struct fence_wait limits = {.grace_ms = GRACE_MS, .deadline_ms = (int)(left_ms(c) / 2)};
    struct fence_report report = {0};

    if (limits.deadline_ms < 1)
        return err_set(e, ERR_RETRY, "no time is left to wait for writers");
    if (c->closing->engine->fence_wait(c->closing, &limits, &report, e) < 0)
        return -1;
    c->looked_ms = mono_ms();
    note(c, name,
         json_pack("{s:i, s:i, s:I}", "waited_for", report.waited_for, "terminated",
                   report.terminated, "took_ms", (json_int_t)report.took_ms));
    return 0;
}

bool looked_just_now(const struct cutover *c)
{
    int apart = c->closing->engine->looks_apart_ms;

    return apart > 0 && mono_ms() < c->looked_ms + apart;
}

int step_fence(struct cutover *c, struct err *e)
{
    struct db *db = c->closing;

    /* Tables that came since; idempotent, and before anybody is refused. */
    if (db->engine->fence_install(db, &c->tables, 0, e) < 0)
        return -1;
    note_time(c, "fenced_at");
    c->flipped = true;
    c->flipped_ms = mono_ms();
    if (db->engine->fence_flip(db, c->token, c->epoch, c->r->lease_ms, (int)(left_ms(c) / 2), e) <
        0)
        return -1;
    note(c, "flip_ms", json_integer(pause_ms(c)));
    renewer_fence(c);
    if (wait_for_writers(c, "writers_1", e) < 0 || mark_closing(c, "1", e) < 0)
        return -1;
    return 1;
}

/* ---- drained, settled ---- */

/* As marker_passed. A role that has ended is told of, not waited for till the end of max_pause (one
 * that was killed keeps its lease for a while). */
static int await_marker(struct cutover *c, struct err *e)
{
    struct err again = {0};
    int rc = marker_passed(c, e);

    if (rc != 0 || mono_ms() < c->stall_ms)
        return rc;
    c->stall_ms = mono_ms() + STALL_MS;
    if (checks_demand(c, CHECK_STAGES, e) == 0)
        return 0;
    /* It may have been the last that they did. */
    rc = marker_passed(c, &again);
    if (rc > 0)
        err_clear(e);
    return rc > 0 ? 1 : -1;
}

int step_drain(struct cutover *c, struct err *e)
{
    if (c->stage == 0) {
        /* Beside the drain. That the side that opens can make its commits durable (a standby may
         * have to take part) is seen while there still is a way back. */
        if (sequences_read_closing(c, e) < 0 || c->opening->engine->sync(c->opening, e) < 0)
            return -1;
        c->stage = 1;
    }
    return await_marker(c, e);
}

int step_settle(struct cutover *c, struct err *e)
{
    if (sequences_read_opening(c, e) < 0 || sequences_set(c, e) < 0)
        return -1;
    return digest_compare(c, e) < 0 ? -1 : 1;
}

/* ---- closed ---- */

static int seal(struct cutover *c, struct err *e)
{
    struct db *db = c->closing;
    int held;
    int armed;

    renewer_release_fence(c);
    held = db->engine->fence_seal(db, c->token, c->epoch, e);
    if (held < 0)
        return -1;
    test_point("closed", "sealed");
    /* What a table's owner has taken off under the lease is put back, when those who would be in
     * the way of that have ended; what was written meanwhile lies before the second marker. */
    if (!held && wait_for_writers(c, "writers_2", e) < 0)
        return -1;
    armed = db->engine->fence_install(db, &c->tables, (int)(left_ms(c) / 2), e);
    if (armed < 0 || (armed > 0 && wait_for_writers(c, "writers_2", e) < 0))
        return -1;
    return mark_closing(c, SWITCH_MARK_SHUT, e);
}

int step_close(struct cutover *c, struct err *e)
{
    int rc;

    if (c->stage == 0) {
        if (seal(c, e) < 0 || sequences_read_closing(c, e) < 0 ||
            sequences_read_opening(c, e) < 0 || checks_demand(c, c->row->beside, e) < 0)
            return -1;
        c->stage = 1;
    }
    rc = await_marker(c, e);
    if (rc <= 0)
        return rc;
    /* A table that was parked in the meantime lacks what was drained past it. */
    if (checks_demand(c, CHECK_LANES | CHECK_IN_TIME, e) < 0 || sequences_refresh(c, e) < 0 ||
        sequences_set(c, e) < 0)
        return -1;
    return 1;
}

/* ---- switched ---- */

/* A coordinator that was not there when the side was sealed looks after it, as far as it can be
 * reached: a source that has died must not keep its successor shut. */
static void reseal_closing(struct cutover *c)
{
    struct db *db = c->closing;
    struct fence_state f = {0};
    struct err e = {0};

    if (c->flipped)
        return;
    if (!db || db->engine->fence_state(db, &f, &e) < 0) {
        log_event(LOG_WARN, "cutover", "closing-side-unreachable", "error=%s",
                  e.msg[0] ? e.msg : "no connection");
        return;
    }
    if (switch_token_is_anothers(f.token, c->r->m->name)) {
        log_event(LOG_WARN, "cutover", "closing-side-is-anothers", "token=%s", f.token);
        return;
    }
    if (f.mode != FENCE_SEALED)
        log_event(LOG_ERROR, "cutover", "closing-side-was-open",
                  "it was sealed and is not any more (failed over, or lifted by hand): what was "
                  "written there since is not on the other side");
    if (db->engine->fence_seal(db, c->token, c->epoch, &e) < 0)
        log_err(LOG_WARN, "cutover", "closing-side-not-sealed", &e);
}

/* What its stream brings behind this is an application's, and travels; before it, foreign. Nobody
 * may write yet when this is set, so nothing is on the wrong side of it. */
static int mark_open(struct cutover *c, struct db *db, struct err *e)
{
    char token[TOKEN_MAX];

    switch_mark(token, sizeof(token), c->token, SWITCH_MARK_OPEN);
    return db->engine->mark(db, token, e);
}

bool has_turn(const struct cutover *c)
{
    return c->r->back || (c->r->way_back && fact_bool(c->body, "way_back"));
}

int demand_open(struct cutover *c, struct err *e)
{
    static const char *const sides[] = {"target", "source"};
    struct fence_state f = {0};

    if (c->opening->engine->fence_state(c->opening, &f, e) < 0)
        return -1;
    if (f.mode == FENCE_NONE || f.mode == FENCE_OPEN)
        return 0;
    err_set(
        e, ERR_REFUSED,
        "the %s is %s by %s, though it was opened: a later switch has closed it, or is about to, "
        "and the applications may live on the %s",
        sides[c->r->back], f.mode == FENCE_SEALED ? "sealed" : "fenced", f.token,
        sides[!c->r->back]);
    return err_hint(e, "start the %s; lockstep status then tells which side takes the writes",
                    sides[!c->r->back]);
}

/* Opens the side that opens; which of our coordinators sealed it does not matter, by the higher
 * epoch it is ours. Only behind `closed`: once `switched` is written it has been opened, and if it
 * is sealed again, a later switch did that. */
static int open_opening(struct cutover *c, struct err *e)
{
    struct db *db = c->opening;
    struct fence_state f = {0};

    if (c->state != CUTOVER_CLOSED)
        return demand_open(c, e);
    if (db->engine->fence_state(db, &f, e) < 0)
        return -1;
    /* Found open (failed over, or lifted by hand): what is written from here on is the
     * applications'. */
    if (f.mode == FENCE_NONE || f.mode == FENCE_OPEN)
        return has_turn(c) ? mark_open(c, db, e) : 0;
    if (switch_token_is_anothers(f.token, c->r->m->name)) {
        err_set(e, ERR_REFUSED, "the side that opens is %s by another migration (%s)",
                f.mode == FENCE_SEALED ? "sealed" : "fenced", f.token);
        return err_hint(e, "end that one first, then the same command again");
    }
    if ((strcmp(f.token, c->token) != 0 && db->engine->fence_take(db, c->token, c->epoch, e) < 0) ||
        (has_turn(c) && mark_open(c, db, e) < 0))
        return -1;
    return db->engine->fence_lift(db, c->token, e);
}

/* What apply has taken up to the switch, for the record. The side that closes is sealed, so its
 * stream brings nothing more that would count. */
static void note_carried(struct cutover *c)
{
    struct checkpoint at;
    struct err e = {0};
    int found;

    if (fact_int(c->body, "changes_then", -1) >= 0)
        return;
    found = checkpoint_load(c->opening, c->road.stream, &at, &e);
    if (found < 0)
        log_err(LOG_WARN, "cutover", "carried-not-known", &e);
    if (found <= 0)
        return;
    note(c, "changes_then", json_integer((json_int_t)at.changes));
    note(c, "transactions_then", json_integer((json_int_t)at.txns));
}

/* The first time counts: the step may be done again behind it. */
static void note_opened(struct cutover *c)
{
    if (c->state != CUTOVER_CLOSED || fact_text(c->body, "opened_at"))
        return;
    if (c->flipped)
        note(c, "pause_ms", json_integer(pause_ms(c)));
    note_time(c, "opened_at");
}

/* What the user has let stay behind is told no more; that which came later is. */
static void acknowledge_foreign(struct cutover *c)
{
    int64_t n = fact_int(c->body, "foreign_accepted", 0);
    struct err e = {0};

    if (n > 0 && !c->closing)
        err_set(&e, ERR_RETRY, "no connection to the side that is closed");
    if (n > 0 && (!c->closing || foreign_acknowledge(c->closing, (uint64_t)n, &e) < 0))
        log_err(LOG_WARN, "cutover", "foreign-writes-stay-told", &e);
}

int step_switch(struct cutover *c, struct err *e)
{
    struct err closing = {0};
    char failed[200];

    /* `closed` must outlive a crash before anybody writes behind it. */
    if (c->opening->engine->sync(c->opening, e) < 0)
        return -1;
    reseal_closing(c);
    if (open_opening(c, e) < 0)
        return -1;
    note_opened(c);
    note_carried(c);
    test_point("switched", "opened");
    /* One that comes late must not move the traffic: a switch back may have been made since. */
    if (state_check(c, e) < 0 || hook_run(c, failed, sizeof(failed), e) < 0)
        return -1;
    note(c, "hook", json_string(failed[0] ? failed : c->r->on_switch ? "done" : "none"));
    note(c, "hook_failed", json_boolean(failed[0]));
    /* What is left to tell it is not worth waiting for before the other side is open. */
    if (!c->closing && connect_closing(c, &closing) < 0)
        log_err(LOG_WARN, "cutover", "closing-side-unreachable", &closing);
    acknowledge_foreign(c);
    other_reset(c);
    return 1;
}

/* ---- undo ---- */

/* Whoever held it: by our epoch it is ours, and then open, if it was not; nobody is refused a write
 * for that. A coordinator that hung cannot move it afterwards, since its epoch is lower, and what
 * we said ourselves before the undo had a lower one too. */
static int reclaim(struct cutover *c, struct db *db, struct err *e)
{
    struct fence_state f = {0};

    if (!db)
        return err_set(e, ERR_RETRY, "no connection to the server");
    if (db->engine->fence_state(db, &f, e) < 0)
        return -1;
    /* What another migration holds is not ours to move: nothing of ours can be there. */
    if (f.mode == FENCE_NONE || switch_token_is_anothers(f.token, c->r->m->name))
        return 0;
    if ((f.epoch < c->epoch || strcmp(f.token, c->token) != 0) &&
        db->engine->fence_take(db, c->token, c->epoch, e) < 0)
        return -1;
    return db->engine->fence_lift(db, c->token, e);
}

/* A side that a switch has closed stays closed: applications live on the other one. What was open
 * before is open again, and nothing carries what is written there to the side that lives. */
int undo_prepare(struct cutover *c, struct err *e)
{
    if (other_closed_it(c))
        return 0;
    if (turn_forget(c, e) < 0)
        return -1;
    return reclaim(c, c->opening, e);
}

/* The mark only spares apply the question, transaction by transaction, whether the side is closed.
 */
int undo_fence(struct cutover *c, struct err *e)
{
    struct err own = {0};

    renewer_release_fence(c);
    if (reclaim(c, c->closing, e) < 0)
        return -1;
    if (mark_open(c, c->closing, &own) < 0)
        log_err(LOG_WARN, "cutover", "open-not-marked", &own);
    return 0;
}

int undo_nothing(struct cutover *c, struct err *e)
{
    (void)c;
    (void)e;
    return 0;
}
