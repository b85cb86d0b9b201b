/* Processes: begun, stepped, killed by the world, begun anew. */
#include "tests/simulation/sim.h"

#include "apply/apply.h"
#include "capture/capture.h"
#include "control/facts.h"
#include "core/log.h"
#include "journal/journal.h"
#include "snapshot/snapshot.h"

#include <stdio.h>
#include <string.h>

const char *role_name(enum role role)
{
    static const char *const names[ROLES] = {"capture", "conductor", "worker", "apply"};

    return names[role];
}

void process_init(struct sim *s, struct process *p, int number, enum role role)
{
    static const struct migration common = {
        .name = "sim",
        .source = {.engine = &engine_scripted, .uri = SCRIPTED_SOURCE_URI},
        .target = {.engine = &engine_scripted, .uri = SCRIPTED_TARGET_URI},
        .journal = {.uri = SIM_JOURNAL, .max_bytes = 64 * 1024 * 1024},
        .workers = 2,
        .chunk_bytes = 256,
        .batch_bytes = 2000,
        .on_error = ON_ERROR_PARK,
        .lease_ms = 300,
        .workdir = "/nonexistent",
    };

    memset(p, 0, sizeof(*p));
    p->number = number;
    p->role = role;
    p->m = common;
    snprintf(p->holder, sizeof(p->holder), "sim:%d", number);
    p->m.holder = p->holder;
}

static void begin(struct process *p)
{
    switch (p->role) {
    case ROLE_CAPTURE:
        p->stage.capture = capture_open(&p->m);
        break;
    case ROLE_CONDUCTOR:
        p->stage.conductor = conductor_open(&p->m);
        break;
    case ROLE_WORKER:
        p->stage.worker = worker_open(&p->m, p->number);
        break;
    case ROLE_APPLY:
        p->stage.apply = apply_open(&p->m);
        break;
    case ROLES:
        break;
    }
}

static void close_stage(struct process *p)
{
    if (!p->stage.any)
        return;
    switch (p->role) {
    case ROLE_CAPTURE:
        capture_close(p->stage.capture);
        break;
    case ROLE_CONDUCTOR:
        conductor_close(p->stage.conductor);
        break;
    case ROLE_WORKER:
        worker_close(p->stage.worker);
        break;
    case ROLE_APPLY:
        apply_close(p->stage.apply);
        break;
    case ROLES:
        break;
    }
    p->stage.any = NULL;
}

void process_close(struct sim *s, struct process *p)
{
    scripted_actor(s->world, p->number);
    if (p->lease)
        engine_scripted.close(p->lease);
    p->lease = NULL;
    p->leads = false;
    close_stage(p);
}

/* The machine of capture (and of the journal) may lose power with it: then the records that were
 * not flushed survive in part, and its other captures die too. */
static void lose_power(struct sim *s)
{
    memory_journal_crash(SIM_JOURNAL, sim_draw(s) % 8, sim_chance(s, 1, 2));
    for (int i = 0; i < s->n; i++) {
        if (s->p[i].role == ROLE_CAPTURE)
            process_close(s, &s->p[i]);
    }
}

/* The dead one's connections are cut where they stand; what its threads hold goes with it. */
static void bury_group(struct sim *s, const struct process *dead)
{
    for (int i = 0; i < s->n; i++) {
        struct process *p = &s->p[i];

        if (p == dead || p->group != dead->group)
            continue;
        process_close(s, p);
        scripted_actor(s->world, p->number);
        scripted_recover(s->world);
        p->pause = dead->pause;
    }
}

static void bury(struct sim *s, struct process *p)
{
    if (s->verbose)
        fprintf(stderr, "--- %s %d dies\n", role_name(p->role), p->number);
    if (p->role == ROLE_CAPTURE && sim_chance(s, 2, 3))
        lose_power(s);
    process_close(s, p);
    scripted_actor(s->world, p->number);
    scripted_recover(s->world);
    p->pause = (int)(sim_draw(s) % 20);
    bury_group(s, p);
}

/* A leased stage steps while it believes that it holds the lease; it looks now and then only, so a
 * lapsed one goes on for a while, as a process that hung does. */
static bool lead(struct sim *s, struct process *p)
{
    struct err e = {0};
    int rc;

    if (p->leads && !s->calm && !sim_chance(s, 1, 8))
        return true;
    p->leads = false;
    if (!p->lease && migration_open_target(&p->m, DB_CONTROL, &p->lease, &e) < 0)
        return false;
    rc = lease_take(p->lease, role_name(p->role), p->holder, p->m.lease_ms, &e);
    p->leads = rc == 1;
    if (rc < 0) {
        engine_scripted.close(p->lease);
        p->lease = NULL;
    }
    /* Who knows that it does not lead lets go of what it holds. */
    if (s->calm && !p->leads)
        close_stage(p);
    return p->leads;
}

static int step(struct sim *s, struct process *p, struct err *e)
{
    switch (p->role) {
    case ROLE_CAPTURE:
        /* A switch asks whether somebody holds this lease. */
        return !s->sw.wanted || lead(s, p) ? capture_step(p->stage.capture, 0, e) : 0;
    case ROLE_CONDUCTOR:
        return lead(s, p) ? (int)conductor_step(p->stage.conductor, e) : 0;
    case ROLE_WORKER:
        return (int)worker_step(p->stage.worker, e);
    case ROLE_APPLY:
        return lead(s, p) ? apply_step(p->stage.apply, 0, e) : 0;
    case ROLES:
        break;
    }
    return 0;
}

static void stumble(struct sim *s, struct process *p, const struct err *e)
{
    if (s->verbose)
        fprintf(stderr, "--- %s %d: %s: %s\n", role_name(p->role), p->number,
                err_class_name(e->class), e->msg);
    switch (e->class) {
    case ERR_RETRY:
    case ERR_UNKNOWN:
        s->retries++;
        return;
    case ERR_FENCED:
        s->fenced++;
        break;
    default:
        if (!s->failed) {
            s->failed = true;
            s->failure = *e;
            s->failed_role = role_name(p->role);
        }
    }
    process_close(s, p);
    p->pause = 5;
}

void process_step(struct sim *s, struct process *p)
{
    struct err e = {0};
    int rc;

    if (p->pause > 0) {
        p->pause--;
        return;
    }
    scripted_actor(s->world, p->number);
    if (!p->stage.any)
        begin(p);
    s->steps++;
    rc = step(s, p, &e);
    /* A second capture waits for the first one's journal: that is rest, too. */
    p->idle = rc == 0 || (rc < 0 && p->role == ROLE_CAPTURE && e.class == ERR_RETRY);
    p->finished = rc == STEP_FINISHED;
    if (scripted_crashed(s->world))
        bury(s, p);
    else if (rc < 0)
        stumble(s, p, &e);
}
