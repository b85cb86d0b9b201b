/* What must hold before a step: one function a check, also asked by --dry-run. */
#include "cutover/internal.h"
#include "control/foreign.h"
#include "core/run.h"

#include <stdio.h>
#include <string.h>

/* A marker needs to pass what lies between; more than this does not pass in a pause. */
#define LAG_MAX_BYTES (UINT64_C(64) * 1024 * 1024)
/* What a stage says of itself counts for so long: it says it every few seconds. */
#define SAID_MS 15000
/* A server that restarts is trouble for a moment, and no reason to take a switch back. */
#define TROUBLE_S 10

/* As their leases are named, and what they say of themselves. */
static const char *const stages[2] = {"capture", "apply"};

__attribute__((format(printf, 3, 4))) static int answer(struct check_result *out, bool holds,
                                                        const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(out->text, sizeof(out->text), fmt, ap);
    va_end(ap);
    out->holds = holds;
    return 0;
}

static void remedy(struct check_result *out, const char *text)
{
    if (!out->holds)
        snprintf(out->remedy, sizeof(out->remedy), "%s", text);
}

static int look_loaded(struct cutover *c, struct check_result *out, struct err *e)
{
    enum load_phase p;

    if (load_phase_get(c->opening, &p, e) < 0)
        return -1;
    answer(out, p == LOAD_DONE,
           p == LOAD_DONE ? "the load is done, constraints and statistics are there"
                          : "the load is not done: its phase is %s",
           load_phase_name(p));
    remedy(out, "lockstep run --until caught-up, then cutover");
    return 0;
}

static const char *what_became(const struct table *t, const struct table_list *now, struct arena *a)
{
    const struct table *is = table_list_find(now, table_label(t));

    return is ? table_altered(t, is, a) : "it is gone";
}

static bool is_root(const struct table_list *planned, const char *root)
{
    for (size_t i = 0; root && i < planned->n; i++) {
        if (planned->v[i]->root && strcmp(planned->v[i]->root, root) == 0)
            return true;
    }
    return false;
}

/* A change of shape that no change of a row has followed is not in every engine's log. */
static int look_shapes(struct cutover *c, struct check_result *out, struct err *e)
{
    struct arena a = ARENA_INIT;
    struct table_list planned;
    struct table_list now;
    /* The user's words name what the original source has. */
    struct selection s = c->r->back ? (struct selection){0} : c->r->m->selection;
    int rc = -1;

    if (shapes_load(c->opening, &a, &planned, e) < 0)
        goto out;
    if (c->closing->engine->tables(c->closing, &s, &a, &now, e) < 0)
        goto out;
    rc = answer(out, true, "every table has the shape that was planned");
    for (size_t i = 0; i < planned.n && out->holds; i++) {
        const char *what = what_became(planned.v[i], &now, &a);

        if (what)
            answer(out, false, "%s is not what was planned: %s", table_label(planned.v[i]), what);
    }
    remedy(out, c->r->back ? "a way back carries rows, not changes of shape: take that change back"
                           : "make the same change on the target, lockstep tables recopy NAME");
    for (size_t i = 0; i < now.n && out->holds; i++) {
        if (!is_root(&planned, now.v[i]->root) || table_list_find(&planned, table_label(now.v[i])))
            continue;
        answer(out, false, "%s has a partition %s that was not planned", now.v[i]->root,
               table_label(now.v[i]));
        remedy(out, "detach or drop it: its rows are not on the other side");
    }
out:
    arena_release(&a);
    return rc;
}

static int look_lanes(struct cutover *c, struct check_result *out, struct err *e)
{
    struct arena a = ARENA_INIT;
    struct lane_list lanes;
    size_t behind = 0;
    int rc = -1;

    if (lanes_load(c->opening, &a, &lanes, e) < 0)
        goto out;
    rc = answer(out, lanes.n > 0, lanes.n ? "every table follows" : "no table is followed yet");
    for (size_t i = 0; i < lanes.n; i++) {
        const struct lane *l = &lanes.v[i];

        if (l->state == LANE_FOLLOWING)
            continue;
        if (behind++ == 0)
            answer(out, false, "%s is %s%s%s", l->label, lane_state_name(l->state),
                   l->reason ? ": " : "", l->reason ? l->reason : "");
    }
    if (behind > 1)
        snprintf(out->text + strlen(out->text), sizeof(out->text) - strlen(out->text),
                 " (and %zu more tables)", behind - 1);
    remedy(out, "lockstep tables list; lockstep tables resume NAME");
out:
    arena_release(&a);
    return rc;
}

static bool is_dead(const struct cutover *c, const char *holder)
{
    return holder && c->r->holder_is_dead && c->r->holder_is_dead(holder);
}

/* 1 it runs, 0 it does not, and why, -1. A process that was killed keeps its lease for a while. */
static int stage_runs(struct cutover *c, const char *name, char *why, size_t size, struct err *e)
{
    char holder[HOLDER_MAX];
    int rc = lease_held(c->opening, name, holder, sizeof(holder), e);

    if (rc < 0 || (rc > 0 && !is_dead(c, holder)))
        return rc;
    if (rc > 0)
        snprintf(why, size, "the process %s is dead", holder);
    else
        snprintf(why, size, "no process holds the lease");
    return 0;
}

static void judge_trouble(struct check_result *out, const json_t *process, int64_t age_ms)
{
    for (size_t i = 0; out->holds && i < sizeof(stages) / sizeof(stages[0]); i++) {
        const json_t *stage = json_object_get(json_object_get(process, "stages"), stages[i]);
        const char *error = fact_text(stage, "error");
        int64_t since_s = fact_int(stage, "for_s", 0) + age_ms / 1000;

        if (error && since_s >= TROUBLE_S)
            answer(out, false, "%s has been failing for %lld s: %.330s", stages[i],
                   (long long)since_s, error);
    }
}

/* What the processes say of themselves, each in a fact of its own beside the leases. */
static int look_trouble(struct cutover *c, struct check_result *out, struct err *e)
{
    struct fact *facts;
    int64_t now;
    size_t n;

    if (c->opening->engine->clock_ms(c->opening, &now, e) < 0 ||
        c->opening->engine->fact_scan(c->opening, "status", "process/", &facts, &n, e) < 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        int64_t age = now - fact_int(facts[i].body, "at_ms", 0);

        if (age <= SAID_MS && !is_dead(c, fact_text(facts[i].body, "holder")))
            judge_trouble(out, facts[i].body, age > 0 ? age : 0);
    }
    facts_release(facts, n);
    remedy(out, "mend that; lockstep status shows when it goes on");
    return 0;
}

static int look_stages(struct cutover *c, struct check_result *out, struct err *e)
{
    bool runs[2];
    char why[HOLDER_MAX + 40];

    for (int i = 0; i < 2; i++) {
        int rc = stage_runs(c, stages[i], why, sizeof(why), e);

        if (rc < 0)
            return -1;
        runs[i] = rc > 0;
    }
    if (runs[0] && runs[1]) {
        answer(out, true, "capture and apply are running");
        return look_trouble(c, out, e);
    }
    answer(out, false, "%s not running (%s)",
           !runs[0] && !runs[1] ? "capture and apply are"
           : !runs[0]           ? "capture is"
                                : "apply is",
           why);
    remedy(out, "lockstep run");
    return 0;
}

static int look_lag(struct cutover *c, struct check_result *out, struct err *e)
{
    struct checkpoint at;
    struct position now;
    uint64_t bytes;
    int found = checkpoint_load(c->opening, c->road.stream, &at, e);

    if (found < 0 || c->closing->engine->current_position(c->closing, &now, e) < 0)
        return -1;
    if (!found)
        return answer(out, false, "apply has not begun");
    if (c->closing->engine->position_distance(c->closing, at.next, now, &bytes, e) < 0)
        return -1;
    answer(out, bytes <= LAG_MAX_BYTES, "apply is %llu KiB behind",
           (unsigned long long)(bytes / 1024));
    remedy(out, "wait until lockstep status shows a small lag");
    return 0;
}

/* A command that was killed leaves its request; apply does not stand still for it for long. */
static bool is_stale(const struct cutover *c, const struct fact *request)
{
    return is_dead(c, fact_text(request->body, "holder"));
}

static int look_quiet(struct cutover *c, struct check_result *out, struct err *e)
{
    static const char *const prefixes[] = {"pin/", "pause/", "park/", "recopy/", "resume/"};

    answer(out, true, "no command waits for apply");
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        struct fact *facts;
        size_t n;

        if (c->opening->engine->fact_scan(c->opening, "request", prefixes[i], &facts, &n, e) < 0)
            return -1;
        for (size_t k = 0; k < n; k++) {
            if (!is_stale(c, &facts[k]))
                answer(out, false, "a request waits for apply: %s", facts[k].key);
        }
        facts_release(facts, n);
    }
    remedy(out, "wait until that command (verify, tables) has ended; if it was killed on another "
                "machine, say it there again, which takes away what it left");
    return 0;
}

static int look_closing_open(struct cutover *c, struct check_result *out, struct err *e)
{
    struct fence_state f = {0};

    if (c->closing->engine->fence_state(c->closing, &f, e) < 0)
        return -1;
    if (f.mode == FENCE_NONE || f.mode == FENCE_OPEN)
        return answer(out, true, "the side that closes is open");
    answer(out, false, "the side that closes is %s by %s (epoch %u)",
           f.mode == FENCE_SEALED ? "sealed" : "fenced", f.token, f.epoch);
    remedy(out,
           "wait until it has switched or has opened that side again; lockstep status tells how "
           "things stand");
    return 0;
}

/* A server has one fence, for all that migrate from it or to it: moved for one of them it would
 * close, or open, the tables of the other one too. Who has moved it keeps it until finish. */
static int look_fences(struct cutover *c, struct check_result *out, struct err *e)
{
    struct db *sides[2] = {c->opening, c->closing};

    answer(out, true, "no other migration has moved the fences");
    /* A rehearsal does not touch the fence of the side that closes. */
    for (int i = 0; i < (c->r->rehearse ? 1 : 2); i++) {
        struct fence_state f = {0};

        if (sides[i]->engine->fence_state(sides[i], &f, e) < 0)
            return -1;
        if (switch_token_is_anothers(f.token, c->r->m->name))
            answer(out, false, "the fence of the side that %s is another migration's (%s by %s)",
                   i == 0 ? "opens" : "closes",
                   f.mode == FENCE_SEALED   ? "sealed"
                   : f.mode == FENCE_LEASED ? "leased"
                                            : "open, last moved",
                   f.token);
    }
    remedy(out, "lockstep finish (or finish --abandon) of that migration takes it away");
    return 0;
}

static int look_opening_sealed(struct cutover *c, struct check_result *out, struct err *e)
{
    struct fence_state f = {0};
    bool ours;

    if (c->opening->engine->fence_state(c->opening, &f, e) < 0)
        return -1;
    ours = f.mode == FENCE_SEALED && strcmp(f.token, c->token) == 0;
    return answer(out, ours,
                  ours ? "the side that opens is sealed by us"
                       : "the side that opens is not sealed by us");
}

static int look_in_time(struct cutover *c, struct check_result *out, struct err *e)
{
    char why[300];
    int64_t held = pause_ms(c);

    if (renewer_lost(c, why, sizeof(why)))
        return answer(out, false, "the fence's lease could not be renewed: %s", why);
    answer(out, held < c->r->max_pause_ms, "writes have been held for %lld ms of at most %d",
           (long long)held, c->r->max_pause_ms);
    return 0;
}

/* The stream of the side that opens, which a switch (or the preparation) has closed, is told where
 * the other direction's facts stand: on the side that closes. */
static int look_foreign(struct cutover *c, struct check_result *out, struct err *e)
{
    static const char *const sides[] = {"source", "target"};
    struct foreign_seen seen;
    /* Behind the flip it has been seen before. */
    bool exists = c->flipped && c->r->way_back && has_turn(c);
    char first[250];

    if (!exists && c->r->way_back && c->closing->engine->control_exists(c->closing, &exists, e) < 0)
        return -1;
    if (!exists)
        return answer(out, true, "nothing came past the seal of the side that opens");
    if (foreign_load(c->closing, &seen, e) < 0)
        return -1;
    foreign_first(&seen, first, sizeof(first));
    answer(out, foreign_open(&seen) == 0 || c->r->accept_foreign,
           foreign_open(&seen) == 0
               ? "nothing came past the seal of the side that opens"
               : "%llu transactions were written on the %s though it is sealed, and are not on the "
                 "%s: the first %s",
           (unsigned long long)foreign_open(&seen), sides[!c->r->back], sides[c->r->back], first);
    if (out->holds && foreign_open(&seen) > 0) {
        note(c, "foreign_accepted", json_integer((json_int_t)seen.transactions));
        note(c, "foreign", seen.first ? json_deep_copy(seen.first) : json_array());
    }
    json_decref(seen.body);
    remedy(out, "lockstep status --json lists them; carry over by hand what is to live, then the "
                "same command with --accept-foreign, which leaves them where they are");
    return 0;
}

static int look_hook(struct cutover *c, struct check_result *out, struct err *e)
{
    char why[300];

    (void)e;
    if (!c->r->on_switch)
        return answer(out, true, "there is none: the traffic is moved by hand");
    if (cutover_hook_starts(c->r->on_switch, c->r->folder, why, sizeof(why)))
        return answer(out, true, "nothing stands in the way of starting on_switch");
    answer(out, false, "on_switch cannot be started: %s", why);
    remedy(out, "correct cutover.on_switch, or make that file executable");
    return 0;
}

const struct check cutover_checks[CUTOVER_CHECKS] = {
    {CHECK_LOADED, "load", look_loaded},
    {CHECK_LANES, "tables", look_lanes},
    {CHECK_STAGES, "stages", look_stages},
    {CHECK_LAG, "lag", look_lag},
    {CHECK_QUIET, "requests", look_quiet},
    {CHECK_CLOSING_OPEN, "closing side", look_closing_open},
    {CHECK_OPENING_SEALED, "opening side", look_opening_sealed},
    {CHECK_IN_TIME, "pause", look_in_time},
    {CHECK_FOREIGN, "foreign writes", look_foreign},
    {CHECK_FENCES, "fences", look_fences},
    {CHECK_SHAPES, "shapes", look_shapes},
    {CHECK_HOOK, "hook", look_hook},
};

int checks_demand(struct cutover *c, unsigned wanted, struct err *e)
{
    char all[ERR_MSG_MAX] = "";
    char first_remedy[300] = "";

    for (size_t i = 0; i < CUTOVER_CHECKS; i++) {
        struct check_result r = {0};
        size_t len = strlen(all);

        if (!(wanted & cutover_checks[i].bit))
            continue;
        if (cutover_checks[i].look(c, &r, e) < 0)
            return err_wrap(e, "looking at the %s", cutover_checks[i].name);
        if (r.holds)
            continue;
        snprintf(all + len, sizeof(all) - len, "%s%s", len ? "; " : "", r.text);
        if (!first_remedy[0])
            snprintf(first_remedy, sizeof(first_remedy), "%s", r.remedy);
    }
    if (!all[0])
        return 0;
    err_set(e, ERR_REFUSED, "%s", all);
    if (first_remedy[0])
        err_hint(e, "%s", first_remedy);
    return -1;
}
