/* The loop of a stage's thread. It decides on retries; nothing below it does (house style, 3).
 *
 * A stage owns its connections, so its handle is stepped and closed by its own thread; others only
 * ask for counters, under the stage's lock. */
#include "run/stage.h"

#include "apply/apply.h"
#include "capture/capture.h"
#include "core/log.h"
#include "core/run.h"
#include "snapshot/snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define STEP_TIMEOUT_MS 200
#define IDLE_MS 100
#define BACKOFF_FIRST_MS 100
#define BACKOFF_MAX_MS 5000
#define LEASE_NAP_MS 50
/* A worker or the conductor may lose a claim once in a while; not all the time. */
#define FENCED_TRIES 20
#define STACK_BYTES ((size_t)1024 * 1024)

/* ---- the four stages ---- */

static void *open_capture(const struct migration *m, int number)
{
    return capture_open(m);
}
static enum stage_result step_capture(void *handle, struct err *e)
{
    return (enum stage_result)capture_step(handle, STEP_TIMEOUT_MS, e);
}
static void close_capture(void *handle)
{
    capture_close(handle);
}
const struct stage_ops stage_capture = {
    .name = "capture",
    .open = open_capture,
    .step = step_capture,
    .close = close_capture,
    .idle_ms = 1,
    .fenced_is_end = true,
};

static void *open_apply(const struct migration *m, int number)
{
    return apply_open(m);
}
static enum stage_result step_apply(void *handle, struct err *e)
{
    return (enum stage_result)apply_step(handle, STEP_TIMEOUT_MS, e);
}
static void close_apply(void *handle)
{
    apply_close(handle);
}
const struct stage_ops stage_apply = {
    .name = "apply",
    .open = open_apply,
    .step = step_apply,
    .close = close_apply,
    .idle_ms = 1,
    .lease = STAGE_LEASED,
    .fenced_is_end = true,
};

static void *open_conductor(const struct migration *m, int number)
{
    return conductor_open(m);
}
static enum stage_result snapshot_result(enum step_result result)
{
    if (result == STEP_FAILED)
        return STAGE_FAILED;
    return result == STEP_WORKED ? STAGE_WORKED : STAGE_IDLE;
}
static enum stage_result step_conductor(void *handle, struct err *e)
{
    return snapshot_result(conductor_step(handle, e));
}
static void close_conductor(void *handle)
{
    conductor_close(handle);
}
const struct stage_ops stage_conductor = {
    .name = "conductor",
    .open = open_conductor,
    .step = step_conductor,
    .close = close_conductor,
    .idle_ms = IDLE_MS,
    .lease = STAGE_CONDUCTOR,
};

static void *open_worker(const struct migration *m, int number)
{
    return worker_open(m, number);
}
static enum stage_result step_worker(void *handle, struct err *e)
{
    return snapshot_result(worker_step(handle, e));
}
static void close_worker(void *handle)
{
    worker_close(handle);
}
static uint64_t bytes_worker(const void *handle)
{
    return worker_bytes(handle);
}
const struct stage_ops stage_worker = {
    .name = "worker",
    .open = open_worker,
    .step = step_worker,
    .close = close_worker,
    .bytes = bytes_worker,
    .idle_ms = IDLE_MS,
};

/* ---- errors ---- */

bool stage_retries(const struct stage_ops *ops, enum err_class class, uint64_t failures)
{
    if (class == ERR_RETRY || class == ERR_UNKNOWN)
        return true;
    return class == ERR_FENCED && !ops->fenced_is_end && failures < FENCED_TRIES;
}

int stage_backoff_ms(uint64_t failures)
{
    int ms = BACKOFF_FIRST_MS;

    for (uint64_t i = 1; i < failures && ms < BACKOFF_MAX_MS; i++)
        ms *= 2;
    return ms < BACKOFF_MAX_MS ? ms : BACKOFF_MAX_MS;
}

/* Logged once: again only when it says something else. */
static void note_failure(struct stage *s, const struct err *e)
{
    bool news;

    pthread_mutex_lock(&s->lock);
    news = strcmp(s->error.msg, e->msg) != 0;
    if (s->failures++ == 0)
        s->error_since = mono_ms();
    s->error = *e;
    s->ended = !stage_retries(s->ops, e->class, s->failures);
    pthread_mutex_unlock(&s->lock);
    if (s->ended)
        log_err(LOG_ERROR, s->ops->name, "failed", e);
    else if (news)
        log_err(LOG_WARN, s->ops->name, "will-retry", e);
}

static void note_success(struct stage *s)
{
    bool recovered;

    pthread_mutex_lock(&s->lock);
    recovered = s->failures > 0;
    s->failures = 0;
    err_clear(&s->error);
    pthread_mutex_unlock(&s->lock);
    if (recovered)
        log_event(LOG_INFO, s->ops->name, "recovered", "number=%d", s->number);
}

bool stage_trouble(struct stage *s, struct err *out, int64_t *since_ms)
{
    bool ended;

    pthread_mutex_lock(&s->lock);
    *out = s->error;
    *since_ms = s->failures ? s->error_since : 0;
    ended = s->ended;
    pthread_mutex_unlock(&s->lock);
    return ended;
}

bool stages_are_well(struct stage *stages, size_t n, const char *of, char *why, size_t size)
{
    for (size_t i = 0; i < n; i++) {
        struct err trouble;
        int64_t since;

        stage_trouble(&stages[i], &trouble, &since);
        if (!since || mono_ms() - since < STAGE_UNWELL_MS)
            continue;
        snprintf(why, size, "%s%s has been failing for %lld s: %.400s", stages[i].ops->name, of,
                 (long long)(mono_ms() - since) / 1000, trouble.msg);
        return false;
    }
    return true;
}

/* ---- the thread ---- */

static bool quitting(const struct stage *s)
{
    return stop_requested() || atomic_load(&s->shared->quit);
}

/* A nap that also ends when this process's stages are asked to. */
static void stage_nap(const struct stage *s, int ms)
{
    int64_t end = mono_ms() + ms;

    while (!quitting(s) && mono_ms() < end) {
        int64_t left = end - mono_ms();

        nap_ms(left < LEASE_NAP_MS ? (int)left : LEASE_NAP_MS);
    }
}

static bool may_step(const struct stage *s)
{
    const atomic_llong *until =
        s->ops->lease == STAGE_CONDUCTOR ? &s->shared->conductor_until : &s->shared->leased_until;

    return s->ops->lease == STAGE_FREE || mono_ms() < atomic_load(until);
}

/* What a stage remembers from before another process had its lease is worth nothing any more. */
static void begin_afresh(struct stage *s)
{
    void *fresh = s->ops->open(s->shared->m, s->number);
    void *old;

    pthread_mutex_lock(&s->lock);
    old = s->handle;
    s->handle = fresh;
    s->stale = false;
    pthread_mutex_unlock(&s->lock);
    s->ops->close(old);
}

/* False: the stage is over. */
static bool stage_once(struct stage *s)
{
    struct err e = {0};
    enum stage_result result;

    if (!may_step(s)) {
        s->stale = s->ops->lease == STAGE_CONDUCTOR;
        stage_nap(s, LEASE_NAP_MS);
        return true;
    }
    if (s->stale)
        begin_afresh(s);
    result = s->ops->step(s->handle, &e);
    if (result == STAGE_FAILED) {
        if (e.class == ERR_STOPPED)
            return !quitting(s);
        note_failure(s, &e);
        if (s->ended)
            return false;
        stage_nap(s, stage_backoff_ms(s->failures));
        return true;
    }
    note_success(s);
    if (result == STAGE_IDLE)
        stage_nap(s, s->ops->idle_ms);
    return true;
}

static void *stage_main(void *arg)
{
    struct stage *s = arg;
    void *handle;

    while (!quitting(s)) {
        if (!stage_once(s))
            break;
    }
    pthread_mutex_lock(&s->lock);
    handle = s->handle;
    s->handle = NULL;
    pthread_mutex_unlock(&s->lock);
    s->ops->close(handle);
    return NULL;
}

uint64_t stage_bytes(struct stage *s)
{
    uint64_t bytes = 0;

    pthread_mutex_lock(&s->lock);
    if (s->ops->bytes && s->handle)
        bytes = s->ops->bytes(s->handle);
    pthread_mutex_unlock(&s->lock);
    return bytes;
}

int stage_start(struct stage *s, const struct stage_ops *ops, struct stage_shared *shared,
                int number, struct err *e)
{
    pthread_attr_t attr;
    int code;

    memset(s, 0, sizeof(*s));
    s->ops = ops;
    s->shared = shared;
    s->number = number;
    pthread_mutex_init(&s->lock, NULL);
    s->handle = ops->open(shared->m, number);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    code = pthread_create(&s->thread, &attr, stage_main, s);
    pthread_attr_destroy(&attr);
    s->started = code == 0;
    if (!s->started)
        ops->close(s->handle);
    if (code)
        return err_set(e, ERR_FATAL, "a thread for %s cannot be made: %s", ops->name,
                       strerror(code));
    return 0;
}

bool thread_join(pthread_t thread, int64_t deadline)
{
    int64_t left = deadline - mono_ms();
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    left = left > 0 ? left : 0;
    until.tv_sec += left / 1000;
    until.tv_nsec += (left % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    return pthread_timedjoin_np(thread, NULL, &until) == 0;
}

bool stage_join(struct stage *s, int64_t deadline)
{
    if (s->started && !s->joined)
        s->joined = thread_join(s->thread, deadline);
    return !s->started || s->joined;
}
