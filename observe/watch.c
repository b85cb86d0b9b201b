/* The watching thread has connections of its own to both ends, so that a page can be looked at
 * while the stages wait for theirs. While nobody looks it looks rarely: reading the ledger of a
 * large migration every second is work for the target. */
#include "observe/watch.h"

#include "core/log.h"
#include "core/run.h"
#include "observe/http.h"
#include "observe/page.h"
#include "observe/waits.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LOOK_MS 1000
#define IDLE_LOOK_MS 10000
#define INTEREST_MS 60000
#define SOURCE_RETRY_MS 5000
/* The target may be away for a moment (a restart) without this process being ill. */
#define BLIND_MS 30000
#define TICK_MS 100
#define JOIN_S 3
#define HISTORY 300
#define STACK_BYTES ((size_t)512 * 1024)

/* One second of the past, for the page's curves. */
struct moment {
    int64_t at_ms; /* Unix */
    double lag_s;  /* negative: not known */
    int64_t changes;
    int64_t records;
    int64_t rate;
};

struct watch {
    struct watch_options o;
    struct arena arena; /* of `about` */
    struct page_about about;
    struct http *http;
    struct waits *waits;
    pthread_t thread;
    atomic_bool quit;
    atomic_llong seen_ms; /* mono_ms of the last observation */

    /* the thread's own */
    struct db *target;
    struct db *source;
    struct db *way; /* opened when a way back has been seen */
    struct migration mirror;
    int64_t next_source;
    char source_trouble[ERR_MSG_MAX];

    pthread_mutex_t lock; /* for what follows */
    char trouble[ERR_MSG_MAX];
    struct moment past[HISTORY]; /* oldest first */
    size_t npast;
};

/* ---- what the server asks ---- */

static bool is_healthy(void *ctx, char *why, size_t size)
{
    struct watch *w = ctx;

    if (mono_ms() - atomic_load(&w->seen_ms) > BLIND_MS) {
        pthread_mutex_lock(&w->lock);
        snprintf(why, size, "the target cannot be read: %.400s", w->trouble);
        pthread_mutex_unlock(&w->lock);
        return false;
    }
    return !w->o.healthy || w->o.healthy(w->o.ctx, why, size);
}

static json_t *number_json(int64_t v)
{
    return v == UNKNOWN_COUNT ? json_null() : json_integer((json_int_t)v);
}

static json_t *moment_json(const struct moment *m)
{
    return json_pack("[I, o, o, o, o]", (json_int_t)m->at_ms,
                     m->lag_s < 0 ? json_null() : json_real(m->lag_s), number_json(m->changes),
                     number_json(m->records), number_json(m->rate));
}

static void add_json(struct buf *out, json_t *v)
{
    char *text = json_dumps(v, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6));

    json_decref(v);
    invariant(text != NULL);
    buf_adds(out, text);
    free(text);
}

static void say_hello(void *ctx, struct buf *out)
{
    struct watch *w = ctx;
    json_t *past = json_array();

    pthread_mutex_lock(&w->lock);
    for (size_t i = 0; i < w->npast; i++)
        json_array_append_new(past, moment_json(&w->past[i]));
    pthread_mutex_unlock(&w->lock);
    add_json(out, past);
}

/* ---- looking ---- */

static void disconnect(struct db **db)
{
    if (*db)
        (*db)->engine->close(*db);
    *db = NULL;
}

static int connect_ends(struct watch *w, struct err *e)
{
    struct err own = {0};

    if (!w->target && migration_open_target(w->o.m, DB_CONTROL, &w->target, e) < 0)
        return -1;
    if (w->source || mono_ms() < w->next_source)
        return 0;
    if (migration_open_source(w->o.m, DB_CONTROL, &w->source, &own) < 0) {
        snprintf(w->source_trouble, sizeof(w->source_trouble), "%.*s",
                 (int)sizeof(w->source_trouble) - 1, own.msg);
        w->next_source = mono_ms() + SOURCE_RETRY_MS;
    }
    return 0;
}

/* observe() only warns of a source that fails, so its connection is tried by a small question. */
static void test_source(struct watch *w)
{
    struct err e = {0};
    int64_t now;

    if (!w->source || w->source->engine->clock_ms(w->source, &now, &e) == 0)
        return;
    snprintf(w->source_trouble, sizeof(w->source_trouble), "%.*s",
             (int)sizeof(w->source_trouble) - 1, e.msg);
    disconnect(&w->source);
    w->next_source = mono_ms() + SOURCE_RETRY_MS;
}

/* For the next look. One that has failed is made anew. */
static void open_way(struct watch *w, const struct observation *o)
{
    struct err ignored;

    if (w->way && (!o->way_back || o->way_back->retained_bytes == UNKNOWN_COUNT))
        disconnect(&w->way);
    else if (!w->way && o->way_back)
        migration_open_source(&w->mirror, DB_CONTROL, &w->way, &ignored);
}

static int look(struct watch *w, struct arena *a, struct observation *o, struct err *e)
{
    if (connect_ends(w, e) < 0)
        return -1;
    test_source(w);
    struct observe_ends ends = {w->o.m, w->target,          w->source, w->source_trouble,
                                w->way, w->o.holder_is_dead};
    if (observe(&ends, a, o, e) < 0)
        return -1;
    open_way(w, o);
    return 0;
}

static void remember(struct watch *w, const struct observation *o)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    pthread_mutex_lock(&w->lock);
    if (w->npast == HISTORY)
        memmove(w->past, w->past + 1, --w->npast * sizeof(w->past[0]));
    w->past[w->npast++] = (struct moment){
        .at_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000,
        .lag_s = o->lag_seconds,
        .changes = o->changes,
        .records = o->journal_records,
        .rate = o->rate,
    };
    w->trouble[0] = '\0';
    pthread_mutex_unlock(&w->lock);
    atomic_store(&w->seen_ms, mono_ms());
}

static void publish(struct watch *w, enum http_text which, struct buf *text)
{
    if (!text->overflow)
        http_publish(w->http, which, text->data ? text->data : "", text->len);
    buf_release(text);
}

/* o NULL: it could not be observed. What was seen last stays in status.json. */
static void publish_all(struct watch *w, const struct observation *o, const char *trouble)
{
    struct buf text;

    buf_init(&text, BUF_MAX_TEXT);
    add_json(&text, page_json(&w->about, o, trouble));
    publish(w, HTTP_EVENT, &text);
    buf_init(&text, BUF_MAX_TEXT);
    metrics_render(&w->about, o, &text);
    publish(w, HTTP_METRICS, &text);
    if (!o)
        return;
    json_t *status = observe_json(o);

    json_object_set_new(status, "next", json_string(observe_next(o)));
    buf_init(&text, BUF_MAX_TEXT);
    add_json(&text, status);
    buf_addc(&text, '\n');
    publish(w, HTTP_STATUS, &text);
}

static void look_once(struct watch *w)
{
    struct arena a = ARENA_INIT;
    struct observation o;
    struct err e = {0};

    if (look(w, &a, &o, &e) == 0) {
        remember(w, &o);
        publish_all(w, &o, NULL);
    } else if (e.class != ERR_STOPPED) {
        pthread_mutex_lock(&w->lock);
        memcpy(w->trouble, e.msg, sizeof(w->trouble));
        pthread_mutex_unlock(&w->lock);
        publish_all(w, NULL, e.msg);
        disconnect(&w->way);
        disconnect(&w->target);
    }
    arena_release(&a);
}

/* ---- the thread ---- */

static bool quitting(const struct watch *w)
{
    return stop_requested() || atomic_load(&w->quit);
}

static void *watch_main(void *arg)
{
    struct watch *w = arg;
    int64_t last = -IDLE_LOOK_MS;

    while (!quitting(w)) {
        int64_t now = mono_ms();
        bool wanted = now - http_last_look(w->http) < INTEREST_MS;

        if (now - last >= (wanted ? LOOK_MS : IDLE_LOOK_MS)) {
            look_once(w);
            last = now;
        }
        nap_ms(TICK_MS);
    }
    disconnect(&w->way);
    disconnect(&w->source);
    disconnect(&w->target);
    return NULL;
}

static void describe(struct watch *w)
{
    const struct migration *m = w->o.m;

    migration_mirror(m, &w->arena, &w->mirror);
    w->about = (struct page_about){
        .migration = m->name,
        .role = w->o.role,
        .source = config_uri_redact(&w->arena, m->source.uri),
        .target = config_uri_redact(&w->arena, m->target.uri),
        .source_engine = m->source.engine->name,
        .target_engine = m->target.engine->name,
        .journal = strncmp(m->journal.uri, "kafka:", 6) == 0 ? "Kafka" : "files",
    };
}

int watch_open(const struct watch_options *o, struct watch **out, struct err *e)
{
    struct watch *w = calloc(1, sizeof(*w));
    struct http_options http = {
        .listen = o->listen, .healthy = is_healthy, .hello = say_hello, .ctx = w};
    pthread_attr_t attr;
    int code;

    invariant(w != NULL);
    w->o = *o;
    pthread_mutex_init(&w->lock, NULL);
    snprintf(w->trouble, sizeof(w->trouble), "not read yet");
    atomic_store(&w->seen_ms, mono_ms());
    describe(w);
    if (waits_open(o->m, &w->waits, e) < 0)
        goto fail;
    http.waits = w->waits;
    if (http_open(&http, &w->http, e) < 0)
        goto fail;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    code = pthread_create(&w->thread, &attr, watch_main, w);
    pthread_attr_destroy(&attr);
    if (code) {
        err_set(e, ERR_FATAL, "a thread for the status page cannot be made: %s", strerror(code));
        goto fail;
    }
    *out = w;
    return 0;
fail:
    /* Nobody has asked anything yet, so that its thread cannot hang. */
    if (w->waits && waits_end(w->waits)) {
        http_close(w->http);
        waits_release(w->waits);
    }
    arena_release(&w->arena);
    free(w);
    return -1;
}

void watch_close(struct watch *w)
{
    struct timespec until;

    if (!w)
        return;
    atomic_store(&w->quit, true);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += JOIN_S;
    if (pthread_timedjoin_np(w->thread, NULL, &until) != 0) {
        log_event(LOG_WARN, "page", "hangs", "did not end within %d s", JOIN_S);
        return;
    }
    if (!waits_end(w->waits)) {
        log_event(LOG_WARN, "page", "hangs", "a question to a server does not end");
        return;
    }
    http_close(w->http);
    waits_release(w->waits);
    arena_release(&w->arena);
    free(w);
}

void watch_url(const struct watch *w, char *out, size_t size)
{
    http_url(w->http, out, size);
}
