/* What goes wrong, and what goes on by itself, around every call. */
#include "engines/scripted/world.h"

#include <stdlib.h>

struct conn *conn_of(struct db *db)
{
    return (struct conn *)db;
}

/* The server has not noticed yet that its client is gone. */
static void orphan(struct scripted_world *w, struct tx *tx, bool coming)
{
    tx->coming = coming;
    *VEC_PUSH(w, w->orphans, w->norphans, w->orphans_cap) = tx;
}

static void orphan_end(struct scripted_world *w, struct tx *tx)
{
    struct err ignored;

    if (!tx->coming || tx->failed || tx_commit(w, tx, tx->async, &ignored) < 0) {
        tx_rollback(w, tx, 0);
        tx_release(w, tx);
    }
}

void settle_orphans(struct scripted_world *w, bool all)
{
    size_t kept = 0;

    for (size_t i = 0; i < w->norphans; i++) {
        struct tx *tx = w->orphans[i];

        if (all || draw_chance(w, 1, 6))
            orphan_end(w, tx);
        else
            w->orphans[kept++] = tx;
    }
    w->norphans = kept;
}

void conn_cut(struct conn *c)
{
    struct scripted_world *w = c->w;

    if (c->dead)
        return;
    c->dead = true;
    if (c->tx && draw_chance(w, 1, 2)) {
        orphan(w, c->tx, false);
    } else if (c->tx) {
        tx_rollback(w, c->tx, 0);
        tx_release(w, c->tx);
    }
    c->tx = NULL;
    c->loading = NULL;
    if (c->reading)
        c->reading->readers--;
    c->reading = NULL;
    if (c->holds)
        c->holds->alive = false;
}

void restart_source(struct scripted_world *w)
{
    w->counts.restarts++;
    for (int i = 0; i < SESSIONS; i++) {
        if (w->session[i])
            source_abort(w, w->session[i]);
    }
    /* After recovery, what is committed in the log is visible. */
    for (size_t i = 0; i < w->nhung; i++)
        w->hung[i]->state = TXN_DONE;
    w->nhung = 0;
    for (struct conn *c = w->conns; c; c = c->next) {
        if (c->side == SIDE_SOURCE)
            conn_cut(c);
    }
    for (struct stream *s = w->streams; s; s = s->next)
        s->dead = true;
}

/* Open transactions are gone, and so is the tail of the asynchronous commits, newest first. */
void restart_target(struct scripted_world *w)
{
    size_t lose = draw_below(w, w->nvolatiles + 1);

    w->counts.restarts++;
    for (struct conn *c = w->conns; c; c = c->next) {
        if (c->side == SIDE_TARGET)
            conn_cut(c);
    }
    for (size_t i = 0; i < w->norphans; i++)
        w->orphans[i]->coming = false;
    settle_orphans(w, true);
    while (lose--)
        tx_unpublish(w, w->volatiles[--w->nvolatiles]);
    memcpy(w->copied, w->durable, sizeof(w->copied));
    volatiles_flush(w);
}

void world_drift(struct scripted_world *w)
{
    int steps = w->o.haste / 100 + draw_chance(w, w->o.haste % 100, 100);

    w->counts.calls++;
    fence_arrivals(w);
    w->source_ms += (int64_t)draw_below(w, 3);
    w->target_ms += (int64_t)draw_below(w, draw_chance(w, 1, 300) ? 8000 : 3);
    while (steps--)
        source_step(w);
    if (w->norphans)
        settle_orphans(w, false);
    /* The server's own background flush. */
    if (w->nvolatiles && draw_chance(w, 1, 20))
        volatiles_flush(w);
}

static int die(struct scripted_world *w, struct err *e)
{
    w->crashed = true;
    w->counts.crashes++;
    return err_set(e, ERR_FATAL, "the process has died here");
}

void world_tell(struct scripted_world *w)
{
    if (w->on_call)
        w->on_call(w->on_call_ctx);
}

int world_enter(struct scripted_world *w, struct err *e)
{
    if (!w->crashed)
        world_tell(w);
    if (w->crashed)
        return err_set(e, ERR_FATAL, "the process has died before");
    world_drift(w);
    if (w->calm)
        return 0;
    if (draw_chance(w, w->o.crash, 10000))
        return die(w, e);
    if (draw_chance(w, w->o.restart, 10000)) {
        if (draw_chance(w, 1, 2))
            restart_source(w);
        else
            restart_target(w);
    }
    return 0;
}

static int lost(struct scripted_world *w, struct err *e)
{
    w->counts.lost++;
    err_set(e, ERR_RETRY, "server closed the connection unexpectedly");
    if (e)
        memcpy(e->sqlstate, "08006", 6);
    return -1;
}

static int cut_before(struct scripted_world *w, bool *dead, struct err *e)
{
    if (*dead)
        return err_set(e, ERR_RETRY, "the connection is closed");
    if (w->calm || !draw_chance(w, w->o.lost, 10000))
        return 0;
    return lost(w, e);
}

int conn_enter(struct conn *c, struct err *e)
{
    struct scripted_world *w = c->w;

    if (world_enter(w, e) < 0)
        return -1;
    if (cut_before(w, &c->dead, e) < 0) {
        conn_cut(c);
        return -1;
    }
    if (c->tx && c->tx->failed)
        return err_set(e, ERR_FATAL, "current transaction is aborted (25P02)");
    return 0;
}

int conn_lose(struct conn *c, struct err *e)
{
    struct scripted_world *w = c->w;

    if (w->calm || !draw_chance(w, w->o.lost, 1000))
        return 0;
    conn_cut(c);
    return lost(w, e);
}

int conn_leave(struct conn *c, struct err *e)
{
    struct scripted_world *w = c->w;

    if (w->calm)
        return 0;
    if (draw_chance(w, w->o.crash, 10000))
        return die(w, e);
    if (!draw_chance(w, w->o.lost, 20000))
        return 0;
    conn_cut(c);
    return lost(w, e);
}

int stream_enter(struct stream *s, struct err *e)
{
    if (world_enter(s->w, e) < 0)
        return -1;
    if (cut_before(s->w, &s->dead, e) < 0) {
        s->dead = true;
        return -1;
    }
    return 0;
}

int stream_leave(struct stream *s, struct err *e)
{
    struct scripted_world *w = s->w;

    if (!w->calm && draw_chance(w, w->o.crash, 10000))
        return die(w, e);
    return 0;
}
