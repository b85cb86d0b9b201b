/* The source's fence (leased, then sealed), markers, sequences. */
#include "engines/scripted/calls.h"
#include "engines/scripted/world.h"

#include <stdio.h>

#define WAIT_STEPS 400

static bool lapsed(const struct scripted_world *w)
{
    return w->fence.mode == FENCE_LEASED && w->fence.end_ms <= w->source_ms;
}

static bool held_by_other(const struct scripted_world *w, const char *token)
{
    return (w->fence.mode == FENCE_SEALED || (w->fence.mode == FENCE_LEASED && !lapsed(w))) &&
           strcmp(w->fence.token, token) != 0;
}

int scripted_fence_install(struct db *db, const struct table_list *tables, struct err *e)
{
    struct conn *c = conn_of(db);

    if (conn_enter(c, e) < 0)
        return -1;
    if (c->w->fence.mode == FENCE_NONE)
        c->w->fence.mode = FENCE_OPEN;
    return 0;
}

int scripted_fence_remove(struct db *db, struct err *e)
{
    struct conn *c = conn_of(db);

    if (conn_enter(c, e) < 0)
        return -1;
    memset(&c->w->fence, 0, sizeof(c->w->fence));
    return 0;
}

static int set(struct conn *c, const char *token, enum fence_mode mode, struct err *e)
{
    struct fence *f = &c->w->fence;

    if (f->mode == FENCE_NONE)
        return err_set(e, ERR_REFUSED, "no fence is installed");
    if (held_by_other(c->w, token))
        return err_set(e, ERR_FENCED, "the fence is held by another");
    f->mode = mode;
    snprintf(f->token, sizeof(f->token), "%s", mode == FENCE_OPEN ? "" : token);
    return 0;
}

int scripted_fence_flip(struct db *db, const char *token, uint32_t epoch, int lease_ms,
                        struct err *e)
{
    struct conn *c = conn_of(db);

    if (conn_enter(c, e) < 0 || set(c, token, FENCE_LEASED, e) < 0)
        return -1;
    c->w->fence.epoch = epoch;
    c->w->fence.end_ms = c->w->source_ms + lease_ms;
    return conn_leave(c, e);
}

int scripted_fence_renew(struct db *db, const char *token, int lease_ms, struct err *e)
{
    struct conn *c = conn_of(db);
    struct fence *f = &c->w->fence;

    if (conn_enter(c, e) < 0)
        return -1;
    if (f->mode != FENCE_LEASED || lapsed(c->w) || strcmp(f->token, token) != 0)
        return err_set(e, ERR_FENCED, "the fence's lease is not ours any more");
    f->end_ms = c->w->source_ms + lease_ms;
    return conn_leave(c, e);
}

int scripted_fence_wait(struct db *db, const struct fence_wait *wait, struct fence_report *out,
                        struct err *e)
{
    struct conn *c = conn_of(db);
    struct scripted_world *w = c->w;
    struct arena a = ARENA_INIT;
    struct snap writers;
    bool waiting = true;

    memset(out, 0, sizeof(*out));
    if (conn_enter(c, e) < 0)
        return -1;
    snap_take(w, &a, &writers);
    out->waited_for = (int)writers.n;
    for (int i = 0; waiting && i < WAIT_STEPS; i++) {
        waiting = false;
        for (size_t k = 0; k < writers.n; k++)
            waiting = waiting || source_running(txn_by_xid(w, writers.xip[k]));
        if (waiting)
            source_step(w);
    }
    arena_release(&a);
    if (waiting)
        return err_set(e, ERR_RETRY, "writers of the source do not end");
    return 0;
}

int scripted_fence_seal(struct db *db, const char *token, uint32_t epoch, struct err *e)
{
    struct conn *c = conn_of(db);

    if (conn_enter(c, e) < 0 || set(c, token, FENCE_SEALED, e) < 0)
        return -1;
    c->w->fence.epoch = epoch;
    return conn_leave(c, e);
}

int scripted_fence_lift(struct db *db, const char *token, struct err *e)
{
    struct conn *c = conn_of(db);

    if (conn_enter(c, e) < 0 || set(c, token, FENCE_OPEN, e) < 0)
        return -1;
    return conn_leave(c, e);
}

int scripted_fence_state(struct db *db, struct fence_state *out, struct err *e)
{
    struct conn *c = conn_of(db);
    const struct fence *f = &c->w->fence;

    memset(out, 0, sizeof(*out));
    if (conn_enter(c, e) < 0)
        return -1;
    out->mode = lapsed(c->w) ? FENCE_OPEN : f->mode;
    out->lease_end_ms = f->end_ms;
    out->now_ms = c->w->source_ms;
    out->epoch = f->epoch;
    memcpy(out->token, f->token, sizeof(out->token));
    return 0;
}

int scripted_mark(struct db *db, const char *token, struct err *e)
{
    struct conn *c = conn_of(db);
    struct scripted_world *w = c->w;
    struct log_entry *entry;

    if (conn_enter(c, e) < 0)
        return -1;
    entry = VEC_PUSH(w, w->log, w->nlog, w->log_cap);
    memset(entry, 0, sizeof(*entry));
    entry->token = arena_strdup(&w->mem, token);
    entry->at.major = w->log_end;
    w->log_end += 8;
    entry->next.major = w->log_end;
    return conn_leave(c, e);
}

int scripted_sequences(struct db *db, const struct selection *s, struct arena *a,
                       struct sequence_list *out, struct err *e)
{
    out->n = 0;
    out->v = NULL;
    return conn_enter(conn_of(db), e);
}

int scripted_sequence_set(struct db *db, const struct sequence_value *v, struct err *e)
{
    return conn_enter(conn_of(db), e);
}
