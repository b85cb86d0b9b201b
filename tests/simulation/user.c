/* The user: parks tables, has them copied again, and mends what lockstep asks to be mended. */
#include "tests/simulation/sim.h"

#include "control/facts.h"

#include <stdio.h>
#include <string.h>

#define USER 100 /* as an actor of the world */
#define PARKED_BY_USER "the user wants it so"

static int request(struct db *db, const char *verb, const char *label, json_t *body, struct err *e)
{
    char name[300];

    snprintf(name, sizeof(name), "%s/%s", verb, label);
    return request_put(db, name, body, e);
}

/* A TRUNCATE between two cuts of one table is told to the user, with the remedy. */
static int mend(struct sim *s, struct db *db, const struct lane *lane, struct err *e)
{
    const char *reason = lane->reason ? lane->reason : "";

    if (strstr(reason, PARKED_BY_USER))
        return request(db, "resume", lane->label, json_object(), e);
    if (strstr(reason, "was truncated while"))
        return request(db, "recopy", lane->label, json_object(), e);
    if (!s->failed) {
        s->failed = true;
        s->failed_role = "apply";
        err_set(&s->failure, ERR_CONFLICT, "%s is parked: %s", lane->label, reason);
    }
    return 0;
}

static int meddle(struct sim *s, struct db *db, const struct lane *lane, struct err *e)
{
    if (sim_chance(s, 1, 2))
        return request(db, "recopy", lane->label, json_object(), e);
    return request(db, "park", lane->label, json_pack("{s:s}", "reason", PARKED_BY_USER), e);
}

/* -1 only if the target could not be asked. */
static int look(struct sim *s, struct db *db, bool *settled, struct err *e)
{
    struct arena a = ARENA_INIT;
    struct lane_list lanes = {0};
    struct fact *requests = NULL;
    size_t n = 0;
    int status = lanes_load(db, &a, &lanes, e);

    if (status == 0)
        status = db->engine->fact_scan(db, "request", "", &requests, &n, e);
    *settled = status == 0 && n == 0;
    for (size_t i = 0; status == 0 && i < lanes.n; i++) {
        const struct lane *lane = &lanes.v[i];

        *settled = *settled && lane->state == LANE_FOLLOWING;
        if (lane->state == LANE_PARKED && n == 0)
            status = mend(s, db, lane, e);
        else if (lane->state == LANE_FOLLOWING && s->meddles && !s->calm && switch_is_quiet(s) &&
                 sim_chance(s, 1, 40))
            status = meddle(s, db, lane, e);
    }
    facts_release(requests, n);
    arena_release(&a);
    return status;
}

bool user_step(struct sim *s)
{
    const struct db_options options = {
        .uri = SCRIPTED_TARGET_URI, .migration = "sim", .use = DB_CONTROL};
    struct err e = {0};
    struct db *db = NULL;
    bool settled = false;

    scripted_actor(s->world, USER);
    if (engine_scripted.open(&options, &db, &e) == 0)
        look(s, db, &settled, &e);
    if (scripted_crashed(s->world))
        scripted_recover(s->world);
    engine_scripted.close(db);
    return settled;
}
