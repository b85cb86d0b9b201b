/* Control facts of either side: versioned, compared and set, locked by their writers. */
#include "engines/scripted/calls.h"
#include "engines/scripted/world.h"

#include <stdlib.h>

static int order(const struct target_fact *f, enum db_side side, const char *kind, const char *key)
{
    int cmp = (int)f->side - (int)side;

    if (!cmp)
        cmp = strcmp(f->kind, kind);
    return cmp ? cmp : strcmp(f->key, key);
}

/* The first fact that is not before (side, kind, key). */
static size_t lower_bound(const struct scripted_world *w, enum db_side side, const char *kind,
                          const char *key)
{
    size_t low = 0;
    size_t high = w->nfacts;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (order(w->facts[mid], side, kind, key) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static struct target_fact *find(const struct conn *c, const char *kind, const char *key)
{
    const struct scripted_world *w = c->w;
    size_t i = lower_bound(w, c->side, kind, key);

    return i < w->nfacts && order(w->facts[i], c->side, kind, key) == 0 ? w->facts[i] : NULL;
}

static struct target_fact *find_or_add(const struct conn *c, const char *kind, const char *key)
{
    struct scripted_world *w = c->w;
    size_t i = lower_bound(w, c->side, kind, key);
    struct target_fact *f;

    if (i < w->nfacts && order(w->facts[i], c->side, kind, key) == 0)
        return w->facts[i];
    f = arena_zalloc(&w->mem, sizeof(*f));
    f->side = c->side;
    f->kind = arena_strdup(&w->mem, kind);
    f->key = arena_strdup(&w->mem, key);
    VEC_PUSH(w, w->facts, w->nfacts, w->facts_cap);
    memmove(&w->facts[i + 1], &w->facts[i], (w->nfacts - 1 - i) * sizeof(struct target_fact *));
    w->facts[i] = f;
    return f;
}

static bool is_mine(const struct conn *c, const struct target_fact *f)
{
    return f->owner && f->owner == c->tx;
}

static bool locked_by_other(const struct conn *c, const struct target_fact *f)
{
    return f->owner && f->owner != c->tx;
}

/* The body belongs to the server; whoever gets one fact to change it is given a copy. */
static void show(const struct conn *c, const struct target_fact *f, struct fact *out)
{
    out->key = NULL;
    out->version = is_mine(c, f) ? f->now_version : f->was_version;
    out->body = json_incref(is_mine(c, f) ? f->now : f->was);
}

/* Of the receiver's own as far as receivers go: they change members, never members' members. */
static void show_copy(const struct conn *c, const struct target_fact *f, struct fact *out)
{
    json_t *shared;

    show(c, f, out);
    shared = out->body;
    out->body = json_copy(shared);
    json_decref(shared);
}

int scripted_fact_get(struct db *db, const char *kind, const char *key, bool lock, struct fact *out,
                      struct err *e)
{
    struct conn *c = conn_of(db);
    struct target_fact *f;

    memset(out, 0, sizeof(*out));
    if (conn_enter(c, e) < 0)
        return -1;
    f = find(c, kind, key);
    if (!f || (is_mine(c, f) ? f->now_version : f->was_version) == 0)
        return 0;
    if (lock && locked_by_other(c, f)) {
        if (c->tx)
            c->tx->failed = true;
        return lock_wait(c->w, e, kind);
    }
    if (lock && c->tx)
        f->owner = c->tx;
    show_copy(c, f, out);
    return 1;
}

int scripted_fact_scan(struct db *db, const char *kind, const char *prefix, struct fact **out,
                       size_t *n, struct err *e)
{
    struct conn *c = conn_of(db);
    struct scripted_world *w = c->w;
    size_t len = strlen(prefix);

    *out = NULL;
    *n = 0;
    if (conn_enter(c, e) < 0)
        return -1;
    *out = calloc(w->nfacts + 1, sizeof(**out));
    invariant(*out != NULL);
    for (size_t i = lower_bound(w, c->side, kind, prefix); i < w->nfacts; i++) {
        struct target_fact *f = w->facts[i];

        if (f->side != c->side || strcmp(f->kind, kind) != 0 || strncmp(f->key, prefix, len) != 0)
            break;
        if ((is_mine(c, f) ? f->now_version : f->was_version) == 0)
            continue;
        show(c, f, &(*out)[*n]);
        (*out)[(*n)++].key = strdup(f->key);
    }
    return 0;
}

static void change(struct scripted_world *w, struct tx *tx, struct target_fact *f, json_t *body,
                   int64_t version)
{
    struct undo *u = VEC_PUSH(w, tx->undo, tx->n, tx->cap);

    memset(u, 0, sizeof(*u));
    u->kind = UNDO_FACT;
    u->thing = f;
    u->body = f->now;
    u->number = f->now_version;
    f->owner = tx;
    f->now = body;
    f->now_version = version;
}

static int put(struct conn *c, struct target_fact *f, int64_t expect, const json_t *body,
               struct err *e)
{
    struct tx *tx;
    bool alone;

    if (locked_by_other(c, f)) {
        if (c->tx)
            c->tx->failed = true;
        return lock_wait(c->w, e, f->kind);
    }
    if (expect != FACT_ANY && f->now_version != expect)
        return 0;
    tx = conn_tx(c, &alone);
    change(c->w, tx, f, json_copy((json_t *)(uintptr_t)body), f->now_version + 1);
    return conn_tx_end(c, tx, alone, 1, e);
}

int scripted_fact_put(struct db *db, const char *kind, const char *key, int64_t expect,
                      const json_t *body, struct err *e)
{
    struct conn *c = conn_of(db);
    int rc;

    if (conn_enter(c, e) < 0)
        return -1;
    rc = put(c, find_or_add(c, kind, key), expect, body, e);
    return rc <= 0 ? rc : conn_leave(c, e) < 0 ? -1 : rc;
}

int scripted_fact_delete(struct db *db, const char *kind, const char *key, struct err *e)
{
    struct conn *c = conn_of(db);
    struct target_fact *f;
    struct tx *tx;
    bool alone;

    if (conn_enter(c, e) < 0)
        return -1;
    f = find(c, kind, key);
    if (!f)
        return 0;
    if (locked_by_other(c, f)) {
        if (c->tx)
            c->tx->failed = true;
        return lock_wait(c->w, e, kind);
    }
    if (f->now_version == 0)
        return 0;
    tx = conn_tx(c, &alone);
    change(c->w, tx, f, NULL, 0);
    if (conn_tx_end(c, tx, alone, 0, e) < 0)
        return -1;
    return conn_leave(c, e);
}

int scripted_control_install(struct db *db, enum db_side side, struct err *e)
{
    return conn_enter(conn_of(db), e);
}

int scripted_control_remove(struct db *db, enum db_side side, struct err *e)
{
    struct conn *c = conn_of(db);

    if (conn_enter(c, e) < 0)
        return -1;
    for (size_t i = 0; side == SIDE_TARGET && i < c->w->nfacts; i++) {
        if (c->w->facts[i]->side != c->side)
            continue;
        if (scripted_fact_delete(db, c->w->facts[i]->kind, c->w->facts[i]->key, e) < 0)
            return -1;
    }
    return 0;
}

int scripted_control_exists(struct db *db, bool *out, struct err *e)
{
    *out = true;
    return conn_enter(conn_of(db), e);
}
