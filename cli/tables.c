/* tables: the lanes, and what the stages are asked to do with one (docs/requests.md). */
#include "cli/cli.h"
#include "control/facts.h"
#include "core/run.h"

#include <string.h>

#define WAIT_MS 20000
#define POLL_MS 100

struct verb {
    const char *name;
    const char *already;  /* what to say if there is nothing to do */
    enum lane_state goal; /* the lane is there already: nothing to do */
};

static const struct verb verbs[] = {
    {"park", "is parked already", LANE_PARKED},
    {"resume", "follows already", LANE_FOLLOWING},
    {"recopy", "is being copied already", LANE_LOADING},
};

static int list(struct cli *c, struct db *db, struct err *e)
{
    struct arena a = ARENA_INIT;
    json_t *tables = json_array();
    struct lane_list lanes;
    size_t parked = 0;
    int rc = -1;

    if (lanes_load(db, &a, &lanes, e) < 0)
        goto out;
    for (size_t i = 0; i < lanes.n; i++) {
        const struct lane *lane = &lanes.v[i];

        cli_say(c, "%-40s %-12s %s", lane->label, lane_state_name(lane->state),
                lane->state == LANE_PARKED && lane->reason ? lane->reason : "");
        json_array_append_new(tables,
                              json_pack("{s:s, s:s, s:s?}", "name", lane->label, "lane",
                                        lane_state_name(lane->state), "reason", lane->reason));
        parked += lane->state == LANE_PARKED;
    }
    cli_put(c, "tables", json_incref(tables));
    cli_next(c, "%s",
             parked ? "mend what the reason says, then lockstep tables resume NAME"
                    : "lockstep status");
    rc = EXIT_DONE;
out:
    json_decref(tables);
    arena_release(&a);
    return rc;
}

/* Waits a while for the stages to obey: the request goes when they did, and with it the lane has
 * moved. 1 they did, 0 not yet, -1. */
static int wait_obeyed(struct db *db, const char *request, struct err *e)
{
    int64_t deadline = mono_ms() + WAIT_MS;

    for (;;) {
        json_t *body = NULL;
        int there = fact_read(db, "request", request, &body, NULL, e);
        int held = there <= 0 ? 0 : lease_held(db, "apply", NULL, 0, e);

        json_decref(body);
        if (there < 0 || held < 0 || stop_check(e) < 0)
            return -1;
        if (!there)
            return 1;
        if (!held || mono_ms() >= deadline)
            return 0;
        nap_ms(POLL_MS);
    }
}

/* Obeyed; but a table that cannot be copied again stays parked, and its lane says why. One that was
 * resumed may be parked again by the very next change, which is told as well. */
static int check_outcome(struct db *db, const struct verb *verb, const char *table, struct err *e)
{
    struct arena a = ARENA_INIT;
    struct lane lane;
    int found = lane_load(db, table, &a, &lane, e);
    int rc = found < 0 ? -1 : 0;

    if (found > 0 && verb->goal == LANE_PARKED && lane.state == LANE_LOADING) {
        rc = err_set(e, ERR_REFUSED, "%s is being copied: it cannot be parked now", table);
        err_hint(e, "lockstep tables list shows when it follows; then park it");
    } else if (found > 0 && verb->goal != LANE_PARKED && lane.state == LANE_PARKED) {
        rc = err_set(e, verb->goal == LANE_LOADING ? ERR_REFUSED : ERR_CONFLICT, "%s is parked: %s",
                     table, lane.reason ? lane.reason : "");
        err_hint(e, "mend what the reason says, then lockstep tables %s %s", verb->name, table);
    }
    arena_release(&a);
    return rc;
}

static int ask(struct cli *c, struct db *db, const struct verb *verb, struct err *e)
{
    const char *table = c->operands[1];
    struct arena a = ARENA_INIT;
    struct lane lane;
    int found = lane_load(db, table, &a, &lane, e);
    const char *request;
    json_t *body;
    bool switching;
    int rc = -1;

    if (found <= 0) {
        if (found == 0) {
            err_set(e, ERR_CONFIG, "this migration has no table %s", table);
            err_hint(e, "lockstep tables list shows them, as schema.name");
        }
        goto out;
    }
    cli_put(c, "table", json_string(table));
    if (lane.state == verb->goal) {
        cli_say(c, "%s %s", table, verb->already);
        cli_next(c, "lockstep tables list");
        rc = EXIT_DONE;
        goto out;
    }
    if (switch_under_way(db, &switching, e) < 0)
        goto out;
    if (switching) {
        err_set(e, ERR_REFUSED, "a cutover is under way or made: the lanes stay as they are");
        err_hint(e, "lockstep status tells how far it is");
        goto out;
    }
    request = arena_printf(&a, "%s/%s", verb->name, table);
    body = strcmp(verb->name, "park") == 0 ? json_pack("{s:s}", "reason", "asked for by the user")
                                           : json_object();
    if (request_put(db, request, body, e) < 0)
        goto out;
    rc = wait_obeyed(db, request, e);
    if (rc > 0 && check_outcome(db, verb, table, e) < 0)
        rc = -1;
    if (rc < 0)
        goto out;
    cli_put(c, "obeyed", json_boolean(rc));
    cli_say(c, rc ? "%s: done" : "%s: asked for; it is done when lockstep run gets to it", table);
    cli_next(c, rc ? "lockstep tables list" : "lockstep run, if none is running");
    rc = EXIT_DONE;
out:
    arena_release(&a);
    return rc;
}

static const char *word(const struct cli *c)
{
    return c->noperands > 0 ? c->operands[0] : "list";
}

static int dispatch(struct cli *c, struct db *db, bool back, struct err *e)
{
    const char *name = word(c);

    cli_put(c, "direction", json_string(back ? "back" : "forward"));
    if (back && strcmp(name, "recopy") == 0) {
        err_set(e, ERR_REFUSED,
                "after a cutover no table is copied anew: the old source is what a "
                "rollback would go back to");
        return err_hint(e, "mend what tables list says, then lockstep tables resume NAME");
    }
    if (strcmp(name, "list") == 0)
        return list(c, db, e);
    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
        if (strcmp(name, verbs[i].name) == 0)
            return ask(c, db, &verbs[i], e);
    }
    invariant(!"the words were checked");
}

static int check_words(const struct cli *c, struct err *e)
{
    const char *name = word(c);
    int operands = -1;

    if (c->noperands == 0)
        return 0;
    if (strcmp(name, "list") == 0)
        operands = 1;
    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
        if (strcmp(name, verbs[i].name) == 0)
            operands = 2;
    }
    if (c->noperands == operands)
        return 0;
    return err_set(e, ERR_CONFIG, "usage: lockstep tables %s", c->command->operands);
}

/* Does the way back carry what is written now? Its lanes stand on the source. 1, 0, -1. */
static int carries_back(struct db *source, const json_t *cutover, struct err *e)
{
    struct arena a = ARENA_INIT;
    struct stream_fact stream = {0};
    json_t *rollback = NULL;
    const char *state;
    bool exists;
    int rc = -1;

    if (source->engine->control_exists(source, &exists, e) < 0)
        return -1;
    if (!exists)
        return 0;
    if (fact_read(source, "cutover", "back", &rollback, NULL, e) >= 0 &&
        stream_fact_load(source, &a, &stream, e) == 0) {
        state = fact_text(rollback, "state");
        rc = stream.state == STREAM_CREATED &&
             !(state && strcmp(state, "switched") == 0 &&
               fact_int(rollback, "epoch", 0) > fact_int(cutover, "epoch", 0));
    }
    json_decref(rollback);
    arena_release(&a);
    return rc;
}

/* The side whose lanes count: the target, and behind a cutover the old source. */
static int open_side(const struct context *x, struct db **out, bool *back, struct err *e)
{
    struct db *target = NULL;
    struct db *source = NULL;
    json_t *cutover = NULL;
    const char *state;
    int rc = -1;

    *back = false;
    if (migration_open_target(&x->m, DB_CONTROL, &target, e) < 0 ||
        context_need_started(target, e) < 0 ||
        fact_read(target, "cutover", "forward", &cutover, NULL, e) < 0)
        goto out;
    state = fact_text(cutover, "state");
    rc = 0;
    if (state && strcmp(state, "switched") == 0) {
        rc = migration_open_source(&x->m, DB_CONTROL, &source, e) < 0
                 ? -1
                 : carries_back(source, cutover, e);
        *back = rc > 0;
    }
    if (rc >= 0) {
        *out = *back ? source : target;
        *(*back ? &source : &target) = NULL;
        rc = 0;
    }
out:
    if (target)
        target->engine->close(target);
    if (source)
        source->engine->close(source);
    json_decref(cutover);
    return rc;
}

int command_tables(struct cli *c, struct err *e)
{
    struct context x;
    struct db *db = NULL;
    bool back;
    int rc = -1;

    if (check_words(c, e) < 0 || context_open(&x, c, e) < 0)
        return -1;
    if (open_side(&x, &db, &back, e) == 0) {
        rc = dispatch(c, db, back, e);
        db->engine->close(db);
    }
    context_close(&x);
    return rc;
}
