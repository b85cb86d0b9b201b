#include "verify/scan.h"

#include "core/run.h"
#include "verify/canon.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define STOP_EVERY 1024
#define STACK_BYTES ((size_t)1024 * 1024)

int scan_table(struct db *db, const struct subject *s, enum scan_side side, const char *snapshot,
               const struct scan_rows *rows, struct err *e)
{
    const struct table *t = side == SCAN_SOURCE ? s->table : table_there(s->table);
    struct arena arena = ARENA_INIT;
    const struct row *r;
    uint64_t n = 0;
    int rc;

    if (db->engine->scan_begin(db, t, snapshot, NULL, 0, e) < 0)
        return err_wrap(e, "reading %s", table_label(t));
    while ((rc = db->engine->scan_next(db, &r, e)) > 0) {
        arena_reset(&arena);
        if (!rows->row(canon_row(&arena, s->canon, r), rows->ctx)) {
            rc = err_set(e, ERR_STOPPED, "it was broken off");
            break;
        }
        if (++n % STOP_EVERY == 0 && stop_check(e) < 0) {
            rc = -1;
            break;
        }
    }
    arena_release(&arena);
    if (rc < 0 || db->engine->scan_end(db, e) < 0)
        return err_wrap(e, "reading %s", table_label(t));
    return 0;
}

int scan_open(const struct migration *m, enum scan_side side, const struct scan_view *view,
              struct db **out, struct err *e)
{
    if (view->db) {
        *out = view->db;
        return 0;
    }
    return side == SCAN_SOURCE ? migration_open_source(m, DB_READ, out, e)
                               : migration_open_target(m, DB_READ, out, e);
}

void scan_close(const struct scan_view *view, struct db *db)
{
    if (db && db != view->db)
        db->engine->close(db);
}

/* ---- one side ---- */

struct filling {
    struct bucket_set *set;
    struct hasher *hasher;
    const struct table *table;
    const atomic_bool *stop;
};

static bool fill(const struct row *r, void *ctx)
{
    struct filling *f = ctx;

    bucket_add(f->set, f->hasher, f->table, r);
    return !atomic_load_explicit(f->stop, memory_order_relaxed);
}

/* False: the caller wants no more. */
static bool wait_for_room(struct scan_end *end, size_t i)
{
    struct scanner *s = end->scanner;
    bool go;

    pthread_mutex_lock(&s->lock);
    while (!s->stop && i >= s->compared + SCAN_AHEAD)
        pthread_cond_wait(&s->moved, &s->lock);
    go = !s->stop;
    pthread_mutex_unlock(&s->lock);
    return go;
}

static void tell(struct scan_end *end, size_t done, const struct err *error)
{
    struct scanner *s = end->scanner;

    pthread_mutex_lock(&s->lock);
    end->done = done;
    if (error)
        end->error = *error;
    pthread_cond_broadcast(&s->moved);
    pthread_mutex_unlock(&s->lock);
}

static int read_tables(struct scan_end *end, struct db *db, struct hasher *hasher, struct err *e)
{
    const struct subject_list *subjects = end->scanner->subjects;

    for (size_t i = 0; i < subjects->n; i++) {
        const struct subject *s = &subjects->v[i];
        struct filling f = {&end->ring[i % SCAN_AHEAD], hasher, s->table, &end->scanner->stop};
        const struct scan_rows rows = {fill, &f};

        if (!wait_for_room(end, i))
            return 0;
        memset(f.set, 0, sizeof(*f.set));
        if (scan_table(db, s, end->side, end->view.snapshot, &rows, e) < 0)
            return -1;
        tell(end, i + 1, NULL);
    }
    return 0;
}

static void *scan_main(void *arg)
{
    struct scan_end *end = arg;
    const struct migration *m = end->scanner->m;
    struct hasher *hasher = hasher_new();
    struct db *db = NULL;
    struct err e = {0};
    int rc = scan_open(m, end->side, &end->view, &db, &e);

    if (rc == 0)
        rc = read_tables(end, db, hasher, &e);
    scan_close(&end->view, db);
    hasher_free(hasher);
    if (rc < 0) {
        err_wrap(&e, "%s", end->side == SCAN_SOURCE ? migration_from(m) : migration_to(m));
        tell(end, end->done, &e);
    }
    return NULL;
}

/* ---- both ---- */

static int start_end(struct scanner *s, enum scan_side side, const struct scan_view *view,
                     struct err *e)
{
    struct scan_end *end = &s->ends[side];
    pthread_attr_t attr;
    int code;

    end->scanner = s;
    end->side = side;
    end->view = *view;
    end->ring = calloc(SCAN_AHEAD, sizeof(*end->ring));
    invariant(end->ring != NULL);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    code = pthread_create(&end->thread, &attr, scan_main, end);
    pthread_attr_destroy(&attr);
    end->started = code == 0;
    return code ? err_set(e, ERR_FATAL, "a thread cannot be made: %s", strerror(code)) : 0;
}

int scanner_start(struct scanner *s, const struct migration *m, const struct subject_list *subjects,
                  const struct scan_view views[SCAN_SIDES], struct err *e)
{
    memset(s, 0, sizeof(*s));
    s->m = m;
    s->subjects = subjects;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->moved, NULL);
    for (int side = 0; side < SCAN_SIDES; side++) {
        if (start_end(s, (enum scan_side)side, &views[side], e) < 0)
            return -1;
    }
    return 0;
}

/* 1: read, 0: not yet, -1: it failed. Under the lock. */
static int end_state(const struct scan_end *end, size_t i, struct err *e)
{
    if (end->done > i)
        return 1;
    if (end->error.class == ERR_NONE)
        return 0;
    *e = end->error;
    return -1;
}

int scanner_get(struct scanner *s, size_t i, const struct bucket_set *out[SCAN_SIDES],
                struct err *e)
{
    int source;
    int target;

    pthread_mutex_lock(&s->lock);
    s->compared = i;
    pthread_cond_broadcast(&s->moved);
    for (;;) {
        source = end_state(&s->ends[SCAN_SOURCE], i, e);
        target = source < 0 ? 0 : end_state(&s->ends[SCAN_TARGET], i, e);
        if (source < 0 || target < 0 || (source && target))
            break;
        /* The threads look at the stop request themselves and tell. */
        pthread_cond_wait(&s->moved, &s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    for (int side = 0; side < SCAN_SIDES; side++)
        out[side] = &s->ends[side].ring[i % SCAN_AHEAD];
    return source < 0 || target < 0 ? -1 : 0;
}

void scanner_stop(struct scanner *s)
{
    pthread_mutex_lock(&s->lock);
    atomic_store(&s->stop, true);
    pthread_cond_broadcast(&s->moved);
    pthread_mutex_unlock(&s->lock);
    for (int side = 0; side < SCAN_SIDES; side++) {
        if (s->ends[side].started)
            pthread_join(s->ends[side].thread, NULL);
        free(s->ends[side].ring);
    }
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->moved);
}
