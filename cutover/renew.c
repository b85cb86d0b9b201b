/* Keeps two leases alive while the steps wait: the fence's on the closing side, and the
 * coordinator's own on the opening side.
 *
 * A thread with connections of its own, since the steps' may hang in a wait. The dangerous
 * interleaving is a renewal that is under way while the fence is sealed or lifted: the server
 * refuses it (a renewal revives nothing), but it would look like a lost lease. So renewing is ended
 * under the mutex that each renewal holds. */
#include "cutover/internal.h"
#include "core/log.h"
#include "core/run.h"

#include <stdio.h>
#include <string.h>

#define TICK_MS 20
#define RETRY_MS 100
#define OWN_LEASE_MS 10000
#define CONNECTION_MS 3000

static int open_side(const struct cutover *c, const struct endpoint *end, struct db **out,
                     struct err *e)
{
    int third = c->r->lease_ms / 3;
    struct db_options o = {.uri = end->uri,
                           .migration = c->r->m->name,
                           .use = DB_CONTROL,
                           .fence = &c->r->m->fence,
                           .timeout_ms = third < CONNECTION_MS ? third : CONNECTION_MS};

    if (*out)
        return 0;
    if (o.timeout_ms < 300)
        o.timeout_ms = 300;
    return end->engine->open(&o, out, e);
}

static void drop_side(struct db **db)
{
    if (*db)
        (*db)->engine->close(*db);
    *db = NULL;
}

/* Its mutex is held. A server that refuses ends it; a connection that breaks is tried again as long
 * as the lease can still be alive. */
static void renew_fence(struct renewer *r, struct db *db, int64_t now)
{
    struct err e = {0};
    int lease = r->c->r->lease_ms;

    if (db && db->engine->fence_renew(db, r->c->token, lease, &e) == 0) {
        r->next = now + lease / 3;
        r->ends = now + lease;
        return;
    }
    r->next = mono_ms() + RETRY_MS;
    if (db && e.class != ERR_FENCED && strcmp(e.sqlstate, "LS002") != 0 && mono_ms() < r->ends)
        return;
    if (!db && mono_ms() < r->ends)
        return;
    r->lost = true;
    r->fence = false;
    snprintf(r->why, sizeof(r->why), "%.290s", e.msg[0] ? e.msg : "no connection to the server");
}

static void renew_own(struct renewer *r)
{
    const struct cutover *c = r->c;
    struct err e = {0};

    r->next_own = mono_ms() + OWN_LEASE_MS / 3;
    if (open_side(c, &c->road.opening, &r->opening, &e) < 0)
        return;
    /* Whoever takes it over raises the epoch too, and that is what stops us. */
    if (lease_take(r->opening, "cutover", c->r->m->holder, OWN_LEASE_MS, &e) < 0)
        drop_side(&r->opening);
}

static void *renew_main(void *ctx)
{
    struct renewer *r = ctx;

    for (;;) {
        pthread_mutex_lock(&r->mutex);
        bool quit = r->quit;
        bool due = r->fence && mono_ms() >= r->next;

        if (!quit && due) {
            struct err e = {0};
            int64_t now = mono_ms();

            if (open_side(r->c, &r->c->road.closing, &r->closing, &e) < 0)
                drop_side(&r->closing);
            renew_fence(r, r->closing, now);
            if (r->next < now + r->c->r->lease_ms / 3)
                drop_side(&r->closing);
        }
        pthread_mutex_unlock(&r->mutex);
        if (quit)
            break;
        if (mono_ms() >= r->next_own)
            renew_own(r);
        nap_ms(TICK_MS);
    }
    drop_side(&r->closing);
    drop_side(&r->opening);
    return NULL;
}

int renewer_start(struct cutover *c, struct err *e)
{
    struct renewer *r = &c->renewer;

    r->c = c;
    r->next_own = mono_ms() + OWN_LEASE_MS / 3;
    if (pthread_mutex_init(&r->mutex, NULL) != 0)
        return err_set(e, ERR_FATAL, "no mutex for the renewal");
    if (c->r->threads && pthread_create(&r->thread, NULL, renew_main, r) != 0) {
        pthread_mutex_destroy(&r->mutex);
        return err_set(e, ERR_FATAL, "no thread for the renewal");
    }
    r->running = true;
    return 0;
}

void renewer_fence(struct cutover *c)
{
    struct renewer *r = &c->renewer;

    pthread_mutex_lock(&r->mutex);
    r->fence = true;
    r->lost = false;
    r->next = mono_ms() + c->r->lease_ms / 3;
    r->ends = mono_ms() + c->r->lease_ms;
    pthread_mutex_unlock(&r->mutex);
}

void renewer_release_fence(struct cutover *c)
{
    struct renewer *r = &c->renewer;

    if (!r->running)
        return;
    pthread_mutex_lock(&r->mutex);
    r->fence = false;
    pthread_mutex_unlock(&r->mutex);
}

void renewer_tick(struct cutover *c)
{
    struct renewer *r = &c->renewer;
    struct err e = {0};

    if (!r->running || c->r->threads)
        return;
    if (r->fence && mono_ms() >= r->next)
        renew_fence(r, c->closing, mono_ms());
    if (c->opening && mono_ms() >= r->next_own) {
        r->next_own = mono_ms() + OWN_LEASE_MS / 3;
        lease_take(c->opening, "cutover", c->r->m->holder, OWN_LEASE_MS, &e);
    }
}

bool renewer_lost(struct cutover *c, char *why, size_t size)
{
    struct renewer *r = &c->renewer;
    bool lost;

    if (!r->running)
        return false;
    pthread_mutex_lock(&r->mutex);
    lost = r->lost;
    snprintf(why, size, "%s", r->why);
    pthread_mutex_unlock(&r->mutex);
    return lost;
}

void renewer_stop(struct cutover *c)
{
    struct renewer *r = &c->renewer;

    if (!r->running)
        return;
    pthread_mutex_lock(&r->mutex);
    r->quit = true;
    pthread_mutex_unlock(&r->mutex);
    if (c->r->threads)
        pthread_join(r->thread, NULL);
    pthread_mutex_destroy(&r->mutex);
    r->running = false;
}
