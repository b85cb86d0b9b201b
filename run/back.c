#include "run/back.h"

#include "core/log.h"
#include "core/run.h"
#include "run/house.h"
#include "run/run.h"

#include <stdio.h>

#include <string.h>

#define TICK_MS 100
#define LOOK_MS 500
#define STATUS_MS 3000
#define RECONNECT_MS 2000
#define LEAVE_MS 12000

static void disconnect(struct back *b)
{
    if (b->facts)
        b->facts->engine->close(b->facts);
    b->facts = NULL;
}

/* ---- starting and ending ---- */

static void forget_stages(struct back *b)
{
    pthread_mutex_lock(&b->lock);
    b->n = 0;
    pthread_mutex_unlock(&b->lock);
}

static void stop_stages(struct back *b)
{
    int64_t deadline = mono_ms() + LEAVE_MS;

    atomic_store(&b->shared.quit, true);
    b->hangs = false;
    for (size_t i = 0; i < b->n; i++) {
        if (stage_join(&b->stages[i], deadline))
            continue;
        log_event(LOG_ERROR, "run", "hangs", "stage=%s of the way back: did not end in time",
                  b->stages[i].ops->name);
        b->hangs = true;
    }
    if (b->hangs)
        return;
    if (b->n && b->facts)
        leases_release(&b->leases, b->facts);
    forget_stages(b);
}

static int start_all(struct back *b, struct err *e)
{
    static const struct {
        unsigned of;
        const struct stage_ops *ops;
    } table[BACK_STAGES] = {
        {RUN_CAPTURE, &stage_capture}, {RUN_APPLY, &stage_apply}, {RUN_APPLY, &stage_janitor}};

    int rc = 0;

    atomic_store(&b->shared.quit, false);
    pthread_mutex_lock(&b->lock);
    for (size_t i = 0; rc == 0 && i < BACK_STAGES; i++) {
        if (b->wanted & table[i].of)
            rc = stage_start(&b->stages[b->n++], table[i].ops, &b->shared, 0, e);
    }
    pthread_mutex_unlock(&b->lock);
    if (rc < 0) {
        stop_stages(b);
        return -1;
    }
    log_event(LOG_INFO, "run", "way-back-begins", "stages=%zu", b->n);
    return 0;
}

/* Stages that were asked to end and had not in time: once they have, they may begin again. */
static void join_late(struct back *b)
{
    for (size_t i = 0; i < b->n; i++) {
        if (!stage_join(&b->stages[i], mono_ms()))
            return;
    }
    b->hangs = false;
    forget_stages(b);
    log_event(LOG_INFO, "run", "way-back-ended-late", "what hung has ended");
}

/* ---- tending ---- */

/* 1: the stream of the way back is there. */
static int is_wanted(struct back *b, struct err *e)
{
    struct arena a = ARENA_INIT;
    struct stream_fact stream;
    bool exists;
    int rc = -1;

    if (b->facts->engine->control_exists(b->facts, &exists, e) < 0)
        return -1;
    if (!exists)
        return 0;
    if (stream_fact_load(b->facts, &a, &stream, e) == 0)
        rc = stream.state == STREAM_CREATED;
    arena_release(&a);
    return rc;
}

static int begin(struct back *b, struct err *e)
{
    int rc;

    leases_init(&b->leases, &b->m, b->wanted);
    rc = leases_try(&b->leases, b->facts, e);
    if (rc <= 0)
        return rc;
    atomic_store(&b->shared.leased_until, b->leases.until);
    b->next_renew = mono_ms() + b->m.lease_ms / 3;
    return start_all(b, e);
}

static int renew(struct back *b, struct err *e)
{
    if (mono_ms() < b->next_renew)
        return 0;
    if (leases_renew(&b->leases, b->facts, e) < 0)
        return -1;
    atomic_store(&b->shared.leased_until, b->leases.until);
    b->next_renew = mono_ms() + b->m.lease_ms / 3;
    return 0;
}

static int write_status(struct back *b, struct err *e)
{
    char key[40];
    int64_t now;

    if (mono_ms() < b->next_status)
        return 0;
    b->next_status = mono_ms() + STATUS_MS;
    if (b->facts->engine->clock_ms(b->facts, &now, e) < 0)
        return -1;
    /* One for each division of the roles, so that restarts leave no more behind. */
    snprintf(key, sizeof(key), "process/%u", b->wanted);
    return fact_write(b->facts, "status", key,
                      json_pack("{s:s, s:I, s:o}", "holder", b->m.holder, "at_ms", (json_int_t)now,
                                "stages", house_stages_json(b->stages, b->n)),
                      e);
}

static int look(struct back *b, struct err *e)
{
    int wanted;

    if (!b->facts && migration_open_target(&b->m, DB_CONTROL, &b->facts, e) < 0)
        return -1;
    if (b->n && !b->hangs && renew(b, e) < 0)
        return -1;
    if (mono_ms() < b->next_look)
        return 0;
    b->next_look = mono_ms() + LOOK_MS;
    wanted = is_wanted(b, e);
    if (wanted < 0)
        return -1;
    b->seen = wanted;
    if (b->n && !b->hangs && !wanted) {
        log_event(LOG_INFO, "run", "way-back-ends", "its stream was taken away");
        stop_stages(b);
    }
    if (wanted && !b->n)
        return begin(b, e);
    return b->n ? write_status(b, e) : 0;
}

static int check_stages(struct back *b, struct err *e)
{
    for (size_t i = 0; i < b->n; i++) {
        struct err trouble;
        int64_t since;

        if (!stage_trouble(&b->stages[i], &trouble, &since))
            continue;
        *e = trouble;
        return err_wrap(e, "%s of the way back", b->stages[i].ops->name);
    }
    return 0;
}

/* True: this is the first of it. */
static bool set_trouble(struct back *b, const struct err *e)
{
    bool first;

    pthread_mutex_lock(&b->lock);
    first = e && b->trouble.class == ERR_NONE;
    /* Where nobody has seen a way back, that its side cannot be reached is nobody's trouble. */
    b->trouble_since = !e || !b->seen ? 0 : b->trouble_since ? b->trouble_since : mono_ms();
    b->trouble = e ? *e : (struct err){0};
    pthread_mutex_unlock(&b->lock);
    return first;
}

/* -1: over. */
static int tend(struct back *b, struct err *e)
{
    /* What hung is not asked for its errors: it was to end, and may end with any. */
    if (b->hangs)
        join_late(b);
    if (!b->hangs && check_stages(b, e) < 0)
        return -1;
    if (!b->facts && mono_ms() < b->next_connect)
        return 0;
    if (look(b, e) == 0) {
        set_trouble(b, NULL);
        return 0;
    }
    if (set_trouble(b, e) && e->class != ERR_STOPPED)
        log_err(LOG_WARN, "run", "way-back-will-retry", e);
    /* Another process has taken the stages over: ours end, and may come back when it has gone. */
    if (e->class == ERR_FENCED && !b->hangs)
        stop_stages(b);
    b->next_connect = mono_ms() + RECONNECT_MS;
    disconnect(b);
    err_clear(e);
    return 0;
}

/* ---- the thread ---- */

static void *back_main(void *arg)
{
    struct back *b = arg;
    struct err e = {0};

    while (!atomic_load(&b->quit) && !stop_requested()) {
        if (tend(b, &e) < 0)
            break;
        nap_ms(TICK_MS);
    }
    stop_stages(b);
    disconnect(b);
    pthread_mutex_lock(&b->lock);
    b->error = e;
    pthread_mutex_unlock(&b->lock);
    return NULL;
}

void back_init(struct back *b, const struct migration *m, unsigned stages)
{
    memset(b, 0, sizeof(*b));
    migration_mirror(m, &b->arena, &b->m);
    b->wanted = stages & (RUN_CAPTURE | RUN_APPLY);
    b->shared.m = &b->m;
    pthread_mutex_init(&b->lock, NULL);
}

bool back_is_well(struct back *b, char *why, size_t size)
{
    int64_t since;
    bool well;

    pthread_mutex_lock(&b->lock);
    well = stages_are_well(b->stages, b->n, " of the way back", why, size);
    since = b->trouble_since;
    if (well && since && mono_ms() - since >= STAGE_UNWELL_MS) {
        snprintf(why, size, "tending the way back has been failing for %lld s: %.400s",
                 (long long)(mono_ms() - since) / 1000, b->trouble.msg);
        well = false;
    }
    pthread_mutex_unlock(&b->lock);
    return well;
}

int back_start(struct back *b, struct err *e)
{
    int code;

    if (!b->wanted)
        return 0;
    code = pthread_create(&b->thread, NULL, back_main, b);
    b->started = code == 0;
    return code ? err_set(e, ERR_FATAL, "a thread for the way back cannot be made: %s",
                          strerror(code))
                : 0;
}

int back_check(struct back *b, struct err *e)
{
    struct err seen;

    if (!b->started)
        return 0;
    pthread_mutex_lock(&b->lock);
    seen = b->error;
    pthread_mutex_unlock(&b->lock);
    if (seen.class == ERR_NONE)
        return 0;
    *e = seen;
    return -1;
}

void back_quit(struct back *b)
{
    atomic_store(&b->quit, true);
    atomic_store(&b->shared.quit, true);
}

bool back_stop(struct back *b, int64_t deadline)
{
    back_quit(b);
    if (b->started && !thread_join(b->thread, deadline)) {
        log_event(LOG_ERROR, "run", "hangs", "the way back did not end in time");
        return false;
    }
    b->started = false;
    if (!b->hangs)
        arena_release(&b->arena);
    return !b->hangs;
}
