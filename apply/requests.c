/* What commands ask of apply (docs/requests.md). One table of requests; each is obeyed at a
 * transaction boundary with nothing uncommitted. */
#include "apply/internal.h"
#include "core/log.h"
#include "core/run.h"

#include <stdio.h>
#include <string.h>

/* A command that died leaves its request; apply does not stand still for it longer than this. */
#define STAND_MAX_MS 120000
/* How old the knowledge may be that the checkpoint is ours. */
#define OURS_MS 1000
/* How long the asker may take to make a snapshot that only its own connection can read. */
#define STAND_PIN_MAX_MS 20000
/* A snapshot that nobody lets go. */
#define PIN_MAX_MS (6 * 3600 * 1000)

struct request_kind {
    const char *prefix;
    bool lanes; /* it takes a table off the stream, or back */
    /* `rest`: the key behind the prefix. */
    int (*obey)(struct apply *a, const char *rest, const struct fact *request, struct err *e);
};

/* ---- lanes ---- */

static int done(struct apply *a, const struct fact *request, struct err *e)
{
    return request_clear(a->db, request->key, e);
}

/* store: apply_store_lane, or lane_store inside a transaction that holds the checkpoint. */
static int move_lane(struct apply *a, struct track *t, const struct lane *to,
                     int (*store)(struct apply *a, struct lane *lane, struct err *e), struct err *e)
{
    struct lane lane = t->lane;

    if (lane.state == LANE_FOLLOWING) {
        lane.next = a->checkpoint.next;
        lane.record = a->checkpoint.record;
    }
    lane.state = to->state;
    lane.reason = to->reason;
    if (store(a, &lane, e) < 0)
        return -1;
    log_event(LOG_INFO, "apply", "lane", "table=%s state=%s", t->label,
              lane_state_name(lane.state));
    t->lane = lane;
    a->lanes_changed = true;
    return 0;
}

static const struct lane catching_up = {.state = LANE_CATCHING_UP};
static const struct lane loading = {.state = LANE_LOADING};

static int store_in_transaction(struct apply *a, struct lane *lane, struct err *e)
{
    return lane_store(a->db, lane, e);
}

static int obey_park(struct apply *a, const char *label, const struct fact *request, struct err *e)
{
    struct track *t = tracks_find(&a->tracks, label);
    const char *reason = fact_text(request->body, "reason");
    const struct lane parked = {.state = LANE_PARKED,
                                .reason = reason ? reason : "parked by the user"};

    /* One that is being copied cannot be parked; the asker sees it by its lane. */
    if (t && (t->lane.state == LANE_FOLLOWING || t->lane.state == LANE_CATCHING_UP) &&
        move_lane(a, t, &parked, apply_store_lane, e) < 0)
        return -1;
    return done(a, request, e);
}

static int obey_resume(struct apply *a, const char *label, const struct fact *request,
                       struct err *e)
{
    struct track *t = tracks_find(&a->tracks, label);

    if (t && t->lane.state == LANE_PARKED && move_lane(a, t, &catching_up, apply_store_lane, e) < 0)
        return -1;
    return done(a, request, e);
}

/* The lane's rows, ledger lines and state go in one transaction; the conductor plans it anew.
 * fresh: the shape that it has now, if that is another. */
static int empty_table(struct apply *a, struct track *t, const struct table *shape,
                       const struct table *fresh, struct err *e)
{
    struct arena arena = ARENA_INIT;
    struct table_fact line;
    int status = -1;

    if (checkpoint_hold(a->db, "forward", &a->checkpoint, e) < 0 ||
        a->db->engine->truncate(a->db, &shape, 1, false, e) < 0 ||
        ledger_reset(a->db, t->label, e) < 0 || reshape_forget(a, t->label, e) < 0 ||
        (fresh && reshape_store(a, fresh, e) < 0) ||
        table_fact_load(a->db, t->label, &arena, &line, e) < 0)
        goto out;
    line.nchunks = 0;
    line.settled = 0;
    line.round++;
    if (table_fact_store(a->db, &line, e) < 0)
        goto out;
    /* Not where it was parked: the new chunks will hold everything up to here. */
    t->lane.next = a->checkpoint.next;
    t->lane.record = a->checkpoint.record;
    status = move_lane(a, t, &loading, store_in_transaction, e);
out:
    arena_release(&arena);
    return status;
}

/* The target would not let it be emptied: its lane says why, and nobody asks for ever. */
static int refuse_recopy(struct apply *a, struct track *t, const struct fact *request,
                         struct err *e)
{
    struct lane parked = {.state = LANE_PARKED};
    char reason[ERR_MSG_MAX + 40];

    if (e->class != ERR_CONFLICT && e->class != ERR_DATA && e->class != ERR_FATAL &&
        e->class != ERR_REFUSED)
        return -1;
    snprintf(reason, sizeof(reason), "it cannot be copied again: %s", e->msg);
    log_event(LOG_ERROR, "apply", "parked", "table=%s reason=%s", t->label, reason);
    err_clear(e);
    parked.reason = reason;
    if (move_lane(a, t, &parked, apply_store_lane, e) < 0)
        return -1;
    t->lane.reason = NULL; /* it was borrowed; the lanes are read anew */
    return done(a, request, e);
}

static int obey_recopy(struct apply *a, const char *label, const struct fact *request,
                       struct err *e)
{
    struct track *t = tracks_find(&a->tracks, label);
    struct arena arena = ARENA_INIT;
    struct table_list shapes;
    const struct table *shape;
    struct table *fresh;
    struct lane before = t ? t->lane : (struct lane){0};
    int status = -1;

    if (!t || t->lane.state == LANE_LOADING || t->lane.state == LANE_CATCHING_UP) {
        status = t && t->lane.state == LANE_CATCHING_UP ? 0 : done(a, request, e);
        goto out;
    }
    if (shapes_load(a->db, &arena, &shapes, e) < 0)
        goto out;
    shape = table_list_find(&shapes, label);
    invariant(shape != NULL);
    if (reshape_look(a, shape, &arena, &fresh, e) < 0) {
        status = refuse_recopy(a, t, request, e);
        goto out;
    }
    if (a->db->engine->begin(a->db, e) < 0)
        goto out;
    if (empty_table(a, t, shape, fresh, e) < 0 || done(a, request, e) < 0) {
        t->lane = before;
        if (a->db->engine->rollback(a->db, NULL) == 0)
            status = refuse_recopy(a, t, request, e);
        goto out;
    }
    status = a->db->engine->commit(a->db, e);
out:
    arena_release(&arena);
    return status;
}

/* ---- standing still, pins ---- */

static struct pin_held *pin_find(struct apply *a, const char *name)
{
    for (size_t i = 0; i < PINS_MAX; i++) {
        if (strcmp(a->pins[i].name, name) == 0)
            return &a->pins[i];
    }
    return NULL;
}

static void pin_release(struct pin_held *p)
{
    if (p->db)
        p->db->engine->close(p->db);
    memset(p, 0, sizeof(*p));
}

/* A request that asks to stand still, seen for the first time or again. Its age is counted by our
 * clock from when we saw it. */
static int stand(struct apply *a, const struct fact *request, const char *state, struct err *e)
{
    struct pin_held *p = pin_find(a, request->key);

    if (!p)
        p = pin_find(a, "");
    if (!p)
        return 0; /* it waits for its turn; those of dead commands go by their age */
    if (!p->name[0]) {
        snprintf(p->name, sizeof(p->name), "%s", request->key);
        p->since_ms = mono_ms();
        if (answer_put(
                a->db, request->key,
                json_pack("{s:s, s:o}", "state", state, "next", position_json(a->checkpoint.next)),
                e) < 0)
            return -1;
    }
    if (mono_ms() - p->since_ms > STAND_MAX_MS)
        return done(a, request, e);
    a->standing = true;
    return 0;
}

static int obey_pin(struct apply *a, const char *rest, const struct fact *request, struct err *e)
{
    const char *state = fact_text(request->body, "state");
    struct pin_held *p = pin_find(a, request->key);
    struct position next;

    if (state && strcmp(state, "hold") == 0)
        return stand(a, request, "held", e);
    if (p && (p->db || p->stands)) {
        if (mono_ms() - p->since_ms < (p->stands ? STAND_PIN_MAX_MS : PIN_MAX_MS)) {
            a->standing = a->standing || p->stands;
            return 0;
        }
        pin_release(p);
        return done(a, request, e);
    }
    if (fact_position(request->body, "next", &next, e) < 0)
        return done(a, request, e);
    if (position_cmp(a->checkpoint.next, next) > 0) {
        if (answer_put(a->db, request->key, json_pack("{s:s}", "state", "passed"), e) < 0)
            return -1;
        return done(a, request, e);
    }
    a->pin_wanted = true;
    snprintf(a->pin_name, sizeof(a->pin_name), "%s", request->key);
    a->main.stop = next;
    a->main.has_stop = true;
    if (position_cmp(a->checkpoint.next, next) == 0)
        a->main.stopped = true;
    return 0;
}

static int obey_pause(struct apply *a, const char *rest, const struct fact *request, struct err *e)
{
    int64_t now;

    if (a->db->engine->clock_ms(a->db, &now, e) < 0)
        return -1;
    if (fact_int(request->body, "until_ms", 0) < now)
        return done(a, request, e);
    return stand(a, request, "paused", e);
}

int requests_pin(struct apply *a, struct err *e)
{
    struct pin_held *p = pin_find(a, a->pin_name);
    char snapshot[80];

    if (!p)
        p = pin_find(a, "");
    if (!p) { /* its asker learns by the missing answer; the stream must go on */
        char name[sizeof(a->pin_name)];

        snprintf(name, sizeof(name), "%s", a->pin_name);
        a->pin_name[0] = '\0';
        a->main.has_stop = false;
        a->main.stopped = false;
        if (answer_put(a->db, name, json_pack("{s:s}", "state", "passed"), e) < 0)
            return -1;
        return request_clear(a->db, name, e);
    }
    snprintf(p->name, sizeof(p->name), "%s", a->pin_name);
    p->since_ms = mono_ms();
    a->pin_name[0] = '\0';
    a->main.has_stop = false;
    a->main.stopped = false;
    if (!a->db->engine->exports_snapshots) {
        /* The asker makes the snapshot on a connection of its own, and withdraws the request. */
        p->stands = true;
        a->standing = true;
        return answer_put(
            a->db, p->name,
            json_pack("{s:s, s:o}", "state", "standing", "next", position_json(a->checkpoint.next)),
            e);
    }
    if (migration_open_target(a->m, DB_READ, &p->db, e) < 0 || p->db->engine->begin(p->db, e) < 0 ||
        p->db->engine->pin_target(p->db, snapshot, sizeof(snapshot), e) < 0)
        return -1;
    return answer_put(a->db, p->name,
                      json_pack("{s:s, s:s, s:o}", "state", "pinned", "snapshot", snapshot, "next",
                                position_json(a->checkpoint.next)),
                      e);
}

void requests_release(struct apply *a)
{
    for (size_t i = 0; i < PINS_MAX; i++)
        pin_release(&a->pins[i]);
    a->standing = false;
    a->pin_name[0] = '\0';
}

/* ---- polling ---- */

static const struct request_kind kinds[] = {
    {"park/", true, obey_park}, {"resume/", true, obey_resume}, {"recopy/", true, obey_recopy},
    {"pin/", false, obey_pin},  {"pause/", false, obey_pause},
};

/* During a switch the lanes stay as they are. The coordinator records where it is going before its
 * first marker and looks at the lanes behind it: what was begun before it said so, it sees. */
static int obey_lanes(struct apply *a, const struct request_kind *kind, const struct fact *request,
                      struct err *e)
{
    bool switching;

    if (switch_under_way(a->db, &switching, e) < 0)
        return -1;
    if (!switching)
        return kind->obey(a, request->key + strlen(kind->prefix), request, e);
    log_event(LOG_WARN, "apply", "request-refused", "request=%s a cutover is under way",
              request->key);
    return done(a, request, e);
}

static int obey(struct apply *a, const struct fact *request, struct err *e)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        size_t n = strlen(kinds[i].prefix);

        if (strncmp(request->key, kinds[i].prefix, n) != 0)
            continue;
        if (kinds[i].lanes)
            return obey_lanes(a, &kinds[i], request, e);
        return kinds[i].obey(a, request->key + n, request, e);
    }
    return 0;
}

/* What was held for a request that is gone. */
static void release_gone(struct apply *a, const struct fact *requests, size_t n)
{
    for (size_t i = 0; i < PINS_MAX; i++) {
        bool there = false;

        for (size_t j = 0; j < n && a->pins[i].name[0]; j++)
            there = there || strcmp(requests[j].key, a->pins[i].name) == 0;
        if (a->pins[i].name[0] && !there) {
            a->db->engine->fact_delete(a->db, "answer", a->pins[i].name, NULL);
            pin_release(&a->pins[i]);
        }
    }
}

/* 1: all of its chunks are there; 0; -1. */
static int is_loaded(struct apply *a, const char *label, struct err *e)
{
    struct arena arena = ARENA_INIT;
    struct chunk_list chunks;
    struct table_fact line;
    size_t loaded = 0;
    int status = -1;

    if (table_fact_load(a->db, label, &arena, &line, e) < 0 ||
        ledger_load(a->db, label, &arena, &chunks, e) < 0)
        goto out;
    for (size_t i = 0; i < chunks.n; i++)
        loaded += chunks.v[i].state == CHUNK_DONE ? 1 : 0;
    status = line.nchunks > 0 && loaded >= line.nchunks;
out:
    arena_release(&arena);
    return status;
}

/* Copied in a new shape: goes on from where capture goes by it, unless the shape has changed once
 * more. 1: the lane may go on; 0: not yet, or it was parked; -1. */
static int finish_reshape(struct apply *a, struct track *t, struct err *e)
{
    const struct lane parked = {.state = LANE_PARKED,
                                .reason = "its shape changed again while it was copied; the same "
                                          "change on the target, then lockstep tables recopy"};
    struct arena arena = ARENA_INIT;
    struct table_list shapes;
    struct table *fresh = NULL;
    struct table_fact line;
    uint64_t record;
    int found = reshape_record(a, t->label, &record, e);

    if (found > 0 && table_fact_load(a->db, t->label, &arena, &line, e) < 0)
        found = -1;
    if (found > 0 && record < line.settled)
        record = line.settled;
    if (found <= 0 || a->checkpoint.record < record) {
        arena_release(&arena);
        return found < 0 ? -1 : found == 0;
    }
    /* Also of one that is parked: what lies before may be gone from the journal. */
    if (t->lane.record < record)
        t->lane.record = record;
    if (shapes_load(a->db, &arena, &shapes, e) < 0) {
        found = -1;
    } else if (reshape_look(a, table_list_find(&shapes, t->label), &arena, &fresh, e) < 0) {
        found = e->class == ERR_REFUSED ? 0 : -1;
    }
    if (found == 0 || (found > 0 && fresh)) {
        err_clear(e);
        found = move_lane(a, t, &parked, apply_store_lane, e) < 0 ? -1 : 0;
    }
    arena_release(&arena);
    return found;
}

/* A lane that is being loaded again, and whose chunks are all there, catches up from where it was
 * taken off the stream. */
static int finish_recopies(struct apply *a, struct err *e)
{
    int status = 0;

    for (size_t i = 0; status >= 0 && i < a->tracks.n; i++) {
        struct track *t = &a->tracks.v[i];

        if (t->lane.state != LANE_LOADING)
            continue;
        status = is_loaded(a, t->label, e);
        if (status > 0)
            status = finish_reshape(a, t, e);
        if (status > 0)
            status = move_lane(a, t, &catching_up, apply_store_lane, e);
    }
    return status < 0 ? -1 : 0;
}

/* Lanes have moved: the main stream looks again, from where it stands, to the pin it was going to.
 */
static int look_again(struct apply *a, struct err *e)
{
    struct cursor before = a->main;

    if (!a->lanes_changed)
        return 0;
    a->lanes_changed = false;
    if (apply_rewind(a, e) < 0)
        return -1;
    a->main.has_stop = before.has_stop;
    a->main.stop = before.stop;
    return 0;
}

/* An apply that was taken over while it had nothing to write does not know it, nor the lanes as
 * they are now: it must not take requests away from its successor. Should that have died since, an
 * idle source would leave the lanes as they are for as long as it is idle. */
static int still_ours(struct apply *a, struct err *e)
{
    struct checkpoint now;

    a->asked_ms = mono_ms();
    if (checkpoint_load(a->db, "forward", &now, e) < 0)
        return -1;
    if (now.version == a->checkpoint.version)
        return 0;
    return err_set(e, ERR_FENCED, "checkpoint forward was taken over by another apply");
}

int requests_poll(struct apply *a, struct err *e)
{
    struct fact *requests;
    size_t n;
    int status = 0;

    if (a->db->engine->fact_scan(a->db, "request", "", &requests, &n, e) < 0)
        return -1;
    a->standing = false;
    a->pin_wanted = false;
    release_gone(a, requests, n);
    if (n || mono_ms() - a->asked_ms >= OURS_MS)
        status = still_ours(a, e);
    for (size_t i = 0; status == 0 && i < n; i++)
        status = obey(a, &requests[i], e);
    if (status == 0)
        status = finish_recopies(a, e);
    facts_release(requests, n);
    if (!a->pin_wanted) {
        a->pin_name[0] = '\0';
        a->main.has_stop = false;
        a->main.stopped = false;
    }
    return status < 0 ? -1 : look_again(a, e);
}
