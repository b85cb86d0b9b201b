/* Connections and their transactions. */
#include "engines/scripted/calls.h"
#include "engines/scripted/world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

extern const struct engine engine_scripted;

int scripted_open(const struct db_options *o, struct db **out, struct err *e)
{
    struct scripted_world *w = scripted_current;
    struct conn *c;

    *out = NULL;
    invariant(w != NULL);
    if (world_enter(w, e) < 0)
        return -1;
    if (!w->calm && draw_chance(w, w->o.lost, 10000))
        return err_set(e, ERR_RETRY, "connection refused");
    c = calloc(1, sizeof(*c));
    invariant(c != NULL);
    c->db.engine = &engine_scripted;
    c->w = w;
    c->side = strcmp(o->uri, SCRIPTED_SOURCE_URI) == 0 ? SIDE_SOURCE : SIDE_TARGET;
    c->use = o->use;
    c->actor = w->actor;
    c->next = w->conns;
    w->conns = c;
    *out = &c->db;
    return 0;
}

void scripted_close(struct db *db)
{
    struct conn *c = conn_of(db);
    struct conn **at;

    if (!c)
        return;
    conn_cut(c);
    for (at = &c->w->conns; *at != c; at = &(*at)->next)
        ;
    *at = c->next;
    arena_release(&c->rows);
    free(c);
}

int scripted_begin(struct db *db, struct err *e)
{
    struct conn *c = conn_of(db);

    if (conn_enter(c, e) < 0)
        return -1;
    if (c->tx)
        return err_set(e, ERR_BUG, "begin inside a transaction");
    c->tx = tx_new(c->w);
    return 0;
}

/* The answer to a commit is lost: it happened, it did not, or it will. */
static int commit_unknown(struct conn *c, struct err *e)
{
    struct scripted_world *w = c->w;
    struct tx *tx = c->tx;
    struct err ignored;

    c->tx = NULL;
    w->counts.unknown++;
    switch (draw_below(w, 3)) {
    case 0:
        if (tx_commit(w, tx, tx->async, &ignored) == 0)
            break;
        /* fall through */
    case 1:
        tx_rollback(w, tx, 0);
        tx_release(w, tx);
        break;
    default:
        tx->coming = true;
        *VEC_PUSH(w, w->orphans, w->norphans, w->orphans_cap) = tx;
    }
    conn_cut(c);
    return err_set(e, ERR_UNKNOWN, "the connection broke during COMMIT");
}

int scripted_commit(struct db *db, struct err *e)
{
    struct conn *c = conn_of(db);
    struct tx *tx;

    if (conn_enter(c, e) < 0)
        return -1;
    tx = c->tx;
    if (!tx)
        return err_set(e, ERR_BUG, "commit without a transaction");
    tx->async = c->use == DB_APPLY;
    if (!c->w->calm && draw_chance(c->w, c->w->o.unknown, 100))
        return commit_unknown(c, e);
    c->tx = NULL;
    if (tx_commit(c->w, tx, tx->async, e) < 0) {
        tx_rollback(c->w, tx, 0);
        tx_release(c->w, tx);
        return -1;
    }
    if (conn_leave(c, e) < 0) {
        if (!c->w->crashed && e)
            e->class = ERR_UNKNOWN;
        return -1;
    }
    return 0;
}

int scripted_rollback(struct db *db, struct err *e)
{
    struct conn *c = conn_of(db);
    struct tx *tx = c->tx;

    if (tx) {
        tx->failed = false;
        if (conn_enter(c, e) < 0)
            return -1;
        c->tx = NULL;
        tx_rollback(c->w, tx, 0);
        tx_release(c->w, tx);
        c->loading = NULL;
        return 0;
    }
    return conn_enter(c, e);
}

/* No process of a simulation stands still inside of a call. */
int scripted_limit_idle(struct db *db, int ms, struct err *e)
{
    (void)ms;
    return conn_enter(conn_of(db), e) < 0 ? -1 : 0;
}

int scripted_savepoint(struct db *db, struct err *e)
{
    struct conn *c = conn_of(db);

    if (conn_enter(c, e) < 0)
        return -1;
    if (!c->tx)
        return err_set(e, ERR_BUG, "savepoint without a transaction");
    c->tx->savepoint = c->tx->n;
    return 0;
}

int scripted_rollback_to(struct db *db, struct err *e)
{
    struct conn *c = conn_of(db);
    struct tx *tx = c->tx;

    if (!tx)
        return err_set(e, ERR_RETRY, "the connection is closed");
    tx->failed = false;
    if (conn_enter(c, e) < 0)
        return -1;
    tx_rollback(c->w, tx, tx->savepoint);
    tx->deferred = false;
    return 0;
}

int scripted_clock_ms(struct db *db, int64_t *out, struct err *e)
{
    struct conn *c = conn_of(db);

    if (conn_enter(c, e) < 0)
        return -1;
    *out = c->side == SIDE_SOURCE ? c->w->source_ms : c->w->target_ms;
    return 0;
}

int scripted_identify(struct db *db, struct server_identity *out, struct err *e)
{
    struct conn *c = conn_of(db);

    if (conn_enter(c, e) < 0)
        return -1;
    memset(out, 0, sizeof(*out));
    snprintf(out->system, sizeof(out->system), "scripted-%d", (int)c->side);
    snprintf(out->database, sizeof(out->database), "%s",
             c->side == SIDE_SOURCE ? "source" : "target");
    out->timeline = 1;
    out->version = 150000;
    return 0;
}

int scripted_sync(struct db *db, struct err *e)
{
    struct conn *c = conn_of(db);

    if (conn_enter(c, e) < 0)
        return -1;
    if (c->side == SIDE_TARGET)
        volatiles_flush(c->w);
    return conn_leave(c, e);
}

int scripted_current_position(struct db *db, struct position *out, struct err *e)
{
    struct conn *c = conn_of(db);

    if (conn_enter(c, e) < 0)
        return -1;
    *out = (struct position){c->side == SIDE_SOURCE ? c->w->log_end : c->w->back_end, 0};
    return 0;
}

void scripted_position_text(struct position p, char *out, size_t size)
{
    snprintf(out, size, "%" PRIX64, p.major);
}

int scripted_position_find(struct db *db, const char *text, struct position *out, struct err *e)
{
    struct conn *c = conn_of(db);
    int end = 0;

    if (conn_enter(c, e) < 0)
        return -1;
    *out = (struct position){0, 0};
    if (sscanf(text, "%16" SCNx64 "%n", &out->major, &end) != 1 || text[end] != '\0')
        return err_set(e, ERR_CONFIG, "\"%.60s\" is no position; expected hexadecimal digits",
                       text);
    return out->major <= c->w->log_end;
}

int scripted_position_distance(struct db *db, struct position from, struct position to,
                               uint64_t *out, struct err *e)
{
    (void)db;
    (void)e;
    *out = to.major > from.major ? to.major - from.major : 0;
    return 0;
}
