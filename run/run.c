/* The supervisor: the thread that called run_stages() takes the leases, starts a thread for each
 * stage, and then looks after them a few times a second until the end.
 *
 * A normal course: leases → threads → (every lease/3: renew; every second: look at the facts; every
 * few seconds: write the status fact) → one of the ends → quit flag → join →
 * leases given back.
 *
 * The stages retry what may heal by themselves (run/stage.c). The supervisor's own connections are
 * mended the same way: while it cannot renew, the leases run out by our clock and the leased stages
 * stand still; a successor may then take over, which the next renewal finds out (ERR_FENCED).
 *
 * Beside them stand the stages of the way back, if a coordinator has made one (run/back.c).
 *
 * A stage that hangs in a call must not keep the process from ending: threads are joined with a
 * deadline, and one that misses it is named and left behind, with what it holds. */
#include "run/run.h"

#include "core/log.h"
#include "core/run.h"
#include "observe/watch.h"
#include "run/back.h"
#include "run/house.h"
#include "run/lease.h"
#include "run/stage.h"

#include <stdio.h>
#include <string.h>

#define TICK_MS 100
#define LOOK_MS 1000
#define JOIN_MS 12000
#define RECONNECT_MS 1000
#define STAGES_MAX (4 + 64)

struct supervisor {
    const struct run_request *r;
    struct stage_shared shared;
    struct stage stages[STAGES_MAX];
    size_t n;
    atomic_size_t started; /* of n; what other threads may look at */
    struct leases leases;
    struct back back;
    struct house house; /* the supervisor's view of the facts */
    struct db *target;
    int64_t ends_at; /* mono_ms; 0: no limit */
    int64_t next_renew;
    int64_t next_look;
    int64_t next_connect;
    bool troubled; /* the supervisor's own connection; logged once */
    bool ended;
    enum run_end end;
};

/* ---- stages ---- */

static int start_one(struct supervisor *s, const struct stage_ops *ops, int number, struct err *e)
{
    invariant(s->n < STAGES_MAX);
    if (stage_start(&s->stages[s->n++], ops, &s->shared, number, e) < 0)
        return -1;
    atomic_store(&s->started, s->n);
    return 0;
}

static int start_all(struct supervisor *s, struct err *e)
{
    unsigned stages = s->r->stages;

    if ((stages & RUN_CAPTURE) && start_one(s, &stage_capture, 0, e) < 0)
        return -1;
    if ((stages & RUN_APPLY) && start_one(s, &stage_apply, 0, e) < 0)
        return -1;
    if ((stages & RUN_APPLY) && start_one(s, &stage_janitor, 0, e) < 0)
        return -1;
    if (!(stages & RUN_SNAPSHOT))
        return 0;
    if (start_one(s, &stage_conductor, 0, e) < 0)
        return -1;
    for (int i = 0; i < s->r->m->workers; i++) {
        if (start_one(s, &stage_worker, i, e) < 0)
            return -1;
    }
    return 0;
}

/* True if all threads have ended. */
static bool stop_all(struct supervisor *s)
{
    int64_t deadline = mono_ms() + JOIN_MS;
    bool all = true;

    atomic_store(&s->shared.quit, true);
    back_quit(&s->back);
    for (size_t i = 0; i < s->n; i++) {
        if (!stage_join(&s->stages[i], deadline)) {
            log_event(LOG_ERROR, "run", "hangs", "stage=%s number=%d: did not end within %d s",
                      s->stages[i].ops->name, s->stages[i].number, JOIN_MS / 1000);
            all = false;
        }
    }
    return back_stop(&s->back, deadline) && all;
}

/* -1 with the error of a stage that is over. */
static int check_stages(struct supervisor *s, struct err *e)
{
    for (size_t i = 0; i < s->n; i++) {
        struct err trouble;
        int64_t since;

        if (stage_trouble(&s->stages[i], &trouble, &since)) {
            *e = trouble;
            return err_wrap(e, "%s", s->stages[i].ops->name);
        }
    }
    return 0;
}

/* ---- the supervisor's own connection ---- */

static void disconnect(struct supervisor *s)
{
    if (s->target)
        s->target->engine->close(s->target);
    s->target = NULL;
}

/* 0: mended or to be tried again later; -1: not to be mended. */
static int mend(struct supervisor *s, struct err *e)
{
    bool exists;
    struct err again;

    if (e->class == ERR_STOPPED)
        return 0;
    if (e->class != ERR_RETRY && e->class != ERR_UNKNOWN) {
        /* `finish` may have removed the facts under our feet: then this is the end, no error. */
        if (s->target && e->class == ERR_FATAL &&
            s->target->engine->control_exists(s->target, &exists, &again) == 0 && !exists) {
            s->ended = true;
            s->end = RUN_ENDED_FINISHED;
            return 0;
        }
        return -1;
    }
    if (!s->troubled)
        log_err(LOG_WARN, "run", "will-retry", e);
    s->troubled = true;
    s->next_connect = mono_ms() + RECONNECT_MS;
    disconnect(s);
    err_clear(e);
    return 0;
}

static int connect_target(struct supervisor *s, struct err *e)
{
    if (s->target)
        return 0;
    if (migration_open_target(s->r->m, DB_CONTROL, &s->target, e) < 0)
        return -1;
    s->next_renew = 0;
    return 0;
}

/* ---- one look after everything ---- */

static void publish_leases(struct supervisor *s)
{
    atomic_store(&s->shared.leased_until, s->leases.until);
    atomic_store(&s->shared.conductor_until, s->leases.conductor_until);
}

static int renew(struct supervisor *s, struct err *e)
{
    if (mono_ms() < s->next_renew)
        return 0;
    if (leases_renew(&s->leases, s->target, e) < 0)
        return -1;
    publish_leases(s);
    s->next_renew = mono_ms() + s->r->m->lease_ms / 3;
    return 0;
}

static int look(struct supervisor *s, struct err *e)
{
    bool finish;

    if (mono_ms() < s->next_look)
        return 0;
    s->next_look = mono_ms() + LOOK_MS;
    if (house_finish_asked(s->target, &finish, e) < 0)
        return -1;
    if (finish) {
        s->ended = true;
        s->end = RUN_ENDED_FINISHED;
        return 0;
    }
    if (house_tend(&s->house, s->target, s->stages, s->n, e) < 0)
        return -1;
    if (s->r->until_loaded && s->house.loaded) {
        s->ended = true;
        s->end = RUN_ENDED_LOADED;
    }
    return 0;
}

/* Somebody waits for this, so it is looked for at every tick. */
static int look_for_end(struct supervisor *s, struct err *e)
{
    bool parked;

    if (s->ended || !s->r->until_caught_up)
        return 0;
    if (house_hurry(&s->house, s->target, e) < 0)
        return -1;
    if (house_caught_up(&s->house, &parked)) {
        s->ended = true;
        s->end = parked ? RUN_ENDED_PARKED : RUN_ENDED_CAUGHT_UP;
    }
    return 0;
}

static int tick(struct supervisor *s, struct err *e)
{
    int rc;

    if ((s->r->quit && atomic_load(s->r->quit)) || (s->ends_at && mono_ms() >= s->ends_at)) {
        s->ended = true;
        s->end = RUN_ENDED_QUIT;
        return 0;
    }
    if (check_stages(s, e) < 0 || back_check(&s->back, e) < 0)
        return -1;
    if (!s->target && mono_ms() < s->next_connect)
        return 0;
    rc = connect_target(s, e);
    if (rc == 0)
        rc = renew(s, e);
    if (rc == 0)
        rc = look(s, e);
    if (rc == 0)
        rc = look_for_end(s, e);
    if (rc < 0)
        return mend(s, e);
    if (s->troubled)
        log_event(LOG_INFO, "run", "recovered", "the target answers again");
    s->troubled = false;
    return 0;
}

static int supervise(struct supervisor *s, struct err *e)
{
    while (!s->ended) {
        if (stop_check(e) < 0 || tick(s, e) < 0)
            return -1;
        if (!s->ended)
            nap_ms(TICK_MS);
    }
    return 0;
}

/* ---- the status page ---- */

/* Trouble that goes on is told to who watches over processes; a restart may be what they do. */
static bool is_healthy(void *ctx, char *why, size_t size)
{
    struct supervisor *s = ctx;

    return stages_are_well(s->stages, atomic_load(&s->started), "", why, size) &&
           back_is_well(&s->back, why, size);
}

static struct watch *open_page(struct supervisor *s)
{
    struct watch_options o = {.m = s->r->m,
                              .listen = s->r->listen,
                              .role = s->r->role,
                              .healthy = is_healthy,
                              .ctx = s,
                              .holder_is_dead = holder_is_dead};
    struct watch *w = NULL;
    struct err e = {0};
    char url[100];

    if (!s->r->listen)
        return NULL;
    if (watch_open(&o, &w, &e) < 0) {
        log_err(LOG_WARN, "page", "not-served", &e);
        return NULL;
    }
    watch_url(w, url, sizeof(url));
    log_event(LOG_INFO, "page", "served", "url=%s", url);
    return w;
}

int run_stages(const struct run_request *r, enum run_end *end, struct err *e)
{
    static struct supervisor s; /* large, and one a process; a thread left behind may use it */
    struct watch *page;
    int rc = -1;

    memset(&s, 0, sizeof(s));
    s.r = r;
    s.shared.m = r->m;
    leases_init(&s.leases, r->m, r->stages);
    house_init(&s.house, r->m, r->stages, r->progress);
    s.ends_at = r->max_runtime_ms ? mono_ms() + r->max_runtime_ms : 0;
    back_init(&s.back, r->m, r->stages);
    page = open_page(&s);
    if (migration_open_target(r->m, DB_CONTROL, &s.target, e) < 0)
        goto out;
    if (leases_take(&s.leases, s.target, e) < 0)
        goto out;
    publish_leases(&s);
    if (start_all(&s, e) == 0 && back_start(&s.back, e) == 0)
        rc = supervise(&s, e);
    /* The leases of stages that still hang are left to run out. */
    if (stop_all(&s) && s.target) {
        house_farewell(&s.house, s.target);
        leases_release(&s.leases, s.target);
    }
    *end = s.end;
out:
    watch_close(page);
    disconnect(&s);
    house_release(&s.house);
    return rc;
}
