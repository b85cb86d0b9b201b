/* A normal course: ask apply to hold → it stands at H → pin the source at P, which is ≥ H because
 * the source has gone on since → write a marker behind P, so that the stream surely passes P even
 * if nobody writes → ask apply to pin at P → it goes on to exactly P, exports its snapshot and goes
 * on.
 *
 * Where the target's engine cannot export a snapshot, apply stands still at P until we have made
 * one on the connection that reads it, and goes on then. Where the source's cannot, its pin is read
 * on the connection that holds it.
 *
 * Making the source's pin waits for the transactions that run there. If that takes so long that
 * apply stops standing still for us, it may have passed P when it is asked: it answers "passed",
 * and we begin again. */
#include "verify/pin.h"

#include "core/log.h"
#include "core/run.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ATTEMPTS 3
#define POLL_MS 50
/* Without any progress of apply. */
#define STALLED_MS 60000
#define PIN_LIFE_MS (6 * 3600 * 1000)

/* ---- answers ---- */

/* 1: the answer has this state (body is the caller's), 0: not (yet), -1. *other: another state. */
static int read_answer(struct pair *p, const char *state, json_t **body, bool *other, struct err *e)
{
    const char *is;

    *other = false;
    if (fact_read(p->control, "answer", p->request, body, NULL, e) < 0)
        return -1;
    is = fact_text(*body, "state");
    if (is && strcmp(is, state) == 0)
        return 1;
    *other = is && strcmp(is, "passed") == 0;
    json_decref(*body);
    *body = NULL;
    return 0;
}

static int stalled(struct pair *p, struct err *e)
{
    int held = lease_held(p->control, "apply", NULL, 0, e);

    if (held < 0)
        return -1;
    err_set(e, ERR_RETRY,
            held ? "apply does not get to the position at which to compare"
                 : "nobody applies changes: the process that did so has ended");
    return err_hint(e, "lockstep status tells what is in the way");
}

/* 1: the answer came, 0: apply has passed the position, -1. The wait ends when apply has made no
 * progress for long. */
static int wait_answer(struct pair *p, const struct migration *m, const char *state, json_t **body,
                       struct err *e)
{
    int64_t deadline = mono_ms() + STALLED_MS;
    struct position seen = {0, 0};

    for (;;) {
        struct checkpoint c;
        bool passed;
        int rc = read_answer(p, state, body, &passed, e);

        if (rc != 0 || passed)
            return rc;
        if (checkpoint_load(p->control, "forward", &c, e) < 0 || stop_check(e) < 0)
            return -1;
        if (position_cmp(c.next, seen) != 0)
            deadline = mono_ms() + STALLED_MS;
        seen = c.next;
        if (mono_ms() > deadline || (p->given_up && atomic_load(p->given_up)))
            return stalled(p, e);
        nap_ms(POLL_MS);
    }
}

/* ---- the steps ---- */

static int hold(struct pair *p, const struct migration *m, struct err *e)
{
    json_t *body;
    int rc;

    if (request_put(p->control, p->request,
                    json_pack("{s:s, s:s}", "state", "hold", "holder", m->holder), e) < 0)
        return -1;
    rc = wait_answer(p, m, "held", &body, e);
    if (rc > 0)
        json_decref(body);
    return rc < 0 ? -1 : 0;
}

static int pin_source(struct pair *p, const struct migration *m, struct err *e)
{
    struct db_options o = {.uri = m->source.uri,
                           .migration = m->name,
                           .use = DB_READ,
                           .back = m->back,
                           .fence = &m->fence};
    struct db *db = NULL;
    int rc;

    if (m->source.engine->pin_source(&o, &p->arena, &p->source, e) < 0)
        return err_wrap(e, "%s", migration_from(m));
    if (migration_open_source(m, DB_CONTROL, &db, e) < 0)
        return -1;
    rc = db->engine->mark(db, p->request + strlen("pin/"), e);
    db->engine->close(db);
    return rc;
}

/* Apply stands at the position: everything before it is applied and nothing behind it, wherever the
 * checkpoint lies (`answer` says where: behind the last transaction before, or a marker after it).
 * The snapshot is made by the connection that will read; whether apply stood still until then is
 * told by the snapshot itself, for what was applied and the checkpoint are written in one
 * transaction. 1: pinned, 0: apply has gone on, -1. */
static int pin_standing(struct pair *p, const struct migration *m, const json_t *answer,
                        struct err *e)
{
    struct checkpoint seen;
    struct position stands;
    int found;

    if (fact_position(answer, "next", &stands, e) < 0)
        return -1;
    if (migration_open_target(m, DB_READ, &p->target, e) < 0 ||
        p->target->engine->begin(p->target, e) < 0 ||
        p->target->engine->pin_target(p->target, p->target_snapshot, sizeof(p->target_snapshot),
                                      e) < 0)
        return -1;
    found = checkpoint_load(p->target, "forward", &seen, e);
    if (found < 0 || request_clear(p->control, p->request, e) < 0)
        return -1;
    p->request[0] = '\0';
    return found && position_cmp(seen.next, stands) == 0;
}

/* 1: pinned, 0: apply has passed the position, -1. */
static int pin_target(struct pair *p, const struct migration *m, struct err *e)
{
    json_t *body;
    int64_t now;
    const char *snapshot;
    int rc;

    if (p->control->engine->clock_ms(p->control, &now, e) < 0 ||
        request_put(p->control, p->request,
                    json_pack("{s:s, s:o, s:I, s:s}", "state", "at", "next",
                              position_json(p->source.next), "until_ms",
                              (json_int_t)(now + PIN_LIFE_MS), "holder", m->holder),
                    e) < 0)
        return -1;
    rc = wait_answer(p, m, m->target.engine->exports_snapshots ? "pinned" : "standing", &body, e);
    if (rc <= 0)
        return rc;
    if (!m->target.engine->exports_snapshots) {
        rc = pin_standing(p, m, body, e);
        json_decref(body);
        return rc;
    }
    snapshot = fact_text(body, "snapshot");
    if (snapshot)
        snprintf(p->target_snapshot, sizeof(p->target_snapshot), "%s", snapshot);
    json_decref(body);
    if (!snapshot)
        return err_set(e, ERR_FATAL, "apply's answer %s has no snapshot", p->request);
    return 1;
}

/* A name of our own, also among those of the same process. */
static void name_request(struct pair *p)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    snprintf(p->request, sizeof(p->request), "pin/verify-%d-%lld%09ld", (int)getpid(),
             (long long)ts.tv_sec, ts.tv_nsec);
}

static void let_go(struct pair *p)
{
    struct err ignored;

    if (p->request[0] && p->control)
        request_clear(p->control, p->request, &ignored);
    p->request[0] = '\0';
    if (p->source.holder)
        p->source.holder->engine->close(p->source.holder);
    memset(&p->source, 0, sizeof(p->source));
    if (p->target)
        p->target->engine->close(p->target);
    p->target = NULL;
}

int pair_take(struct pair *p, const struct migration *m, const atomic_bool *given_up, struct err *e)
{
    memset(p, 0, sizeof(*p));
    p->given_up = given_up;
    if (migration_open_target(m, DB_CONTROL, &p->control, e) < 0)
        return -1;
    for (int i = 0; i < ATTEMPTS; i++) {
        int rc;

        name_request(p);
        if (hold(p, m, e) < 0 || pin_source(p, m, e) < 0)
            return -1;
        rc = pin_target(p, m, e);
        if (rc != 0)
            return rc < 0 ? -1 : 0;
        log_event(LOG_INFO, "verify", "again", "apply had passed the source's snapshot");
        let_go(p);
    }
    err_set(e, ERR_RETRY, "%d times apply had passed the %s's snapshot before it was made",
            ATTEMPTS, migration_from(m));
    return err_hint(e, "long transactions on the %s delay its snapshot: try again later",
                    migration_from(m));
}

void pair_release(struct pair *p)
{
    let_go(p);
    if (p->control)
        p->control->engine->close(p->control);
    p->control = NULL;
    arena_release(&p->arena);
}
