/* The fences, one a side: as the server-side functions of the PostgreSQL driver (fence_sql.c)
 * decide them. Markers and sequences. */
#include "engines/scripted/calls.h"
#include "engines/scripted/world.h"

#include <stdio.h>

/* Steps of the source's sessions while a call waits for writers; each takes a few milliseconds. */
#define WAIT_STEPS 4000

static int64_t clock_of(const struct scripted_world *w, enum db_side side)
{
    return side == SIDE_SOURCE ? w->source_ms : w->target_ms;
}

static bool held(const struct scripted_world *w, enum db_side side)
{
    const struct fence *f = &w->fence[side];

    return f->mode == FENCE_SEALED || (f->mode == FENCE_LEASED && f->end_ms > clock_of(w, side));
}

bool fence_refuses(const struct scripted_world *w, enum db_side side)
{
    return held(w, side);
}

static struct fence *fence_of(struct conn *c)
{
    return &c->w->fence[c->side];
}

static int enter(struct conn *c, struct err *e)
{
    if (conn_enter(c, e) < 0)
        return -1;
    if (fence_of(c)->mode == FENCE_NONE)
        return err_set(e, ERR_FATAL, "no fence is installed");
    return 0;
}

static int by_another(const struct fence *f, struct err *e)
{
    return err_set(e, ERR_FENCED, "the fence is held by %s (epoch %u)", f->token, f->epoch);
}

static void give(struct fence *f, enum fence_mode mode, const struct fence_move *m)
{
    f->mode = mode;
    f->epoch = m->epoch;
    snprintf(f->token, sizeof(f->token), "%s", m->token);
}

/* ---- what the server does ---- */

static int flip(struct scripted_world *w, const struct fence_move *m, struct err *e)
{
    struct fence *f = &w->fence[m->side];

    if (f->mode == FENCE_SEALED || f->epoch > m->epoch ||
        (f->epoch == m->epoch && strcmp(f->token, m->token) != 0 && held(w, m->side)))
        return by_another(f, e);
    give(f, FENCE_LEASED, m);
    f->end_ms = clock_of(w, m->side) + m->lease_ms;
    return 0;
}

static int take(struct scripted_world *w, const struct fence_move *m, struct err *e)
{
    struct fence *f = &w->fence[m->side];

    if (f->epoch > m->epoch ||
        (f->epoch == m->epoch && strcmp(f->token, m->token) != 0 && held(w, m->side)))
        return by_another(f, e);
    give(f, f->mode, m);
    return 0;
}

static int renew(struct scripted_world *w, const struct fence_move *m, struct err *e)
{
    struct fence *f = &w->fence[m->side];

    if (f->mode == FENCE_SEALED || strcmp(f->token, m->token) != 0)
        return by_another(f, e);
    if (!held(w, m->side)) {
        err_set(e, ERR_RETRY, "the lease of %s has lapsed, the fence is open", m->token);
        if (e)
            memcpy(e->sqlstate, "LS002", 6);
        return -1;
    }
    f->end_ms = clock_of(w, m->side) + m->lease_ms;
    return 0;
}

static int seal(struct scripted_world *w, const struct fence_move *m, struct err *e)
{
    struct fence *f = &w->fence[m->side];
    bool unbroken;

    if (f->epoch > m->epoch || (f->epoch == m->epoch && strcmp(f->token, m->token) != 0))
        return by_another(f, e);
    unbroken = f->mode == FENCE_LEASED && strcmp(f->token, m->token) == 0 && held(w, m->side);
    give(f, FENCE_SEALED, m);
    return unbroken;
}

static int lift(struct scripted_world *w, const struct fence_move *m, struct err *e)
{
    struct fence *f = &w->fence[m->side];

    if (strcmp(f->token, m->token) == 0)
        f->mode = FENCE_OPEN;
    else if (held(w, m->side))
        return by_another(f, e);
    return 0;
}

static int (*const moves[])(struct scripted_world *w, const struct fence_move *m, struct err *e) = {
    [MOVE_FLIP] = flip, [MOVE_TAKE] = take, [MOVE_RENEW] = renew,
    [MOVE_SEAL] = seal, [MOVE_LIFT] = lift,
};

/* ---- on its way there ---- */

/* A connection that broke, or whose process died, may still carry what was sent: it arrives when
 * the network is back. */
static void carry(struct scripted_world *w, const struct fence_move *m)
{
    struct late_move *l;

    if (!draw_chance(w, 1, 2))
        return;
    l = VEC_PUSH(w, w->late, w->nlate, w->late_cap);
    l->move = *m;
    l->move.token = arena_strdup(&w->mem, m->token);
    l->due = w->counts.calls + draw_below(w, draw_chance(w, 1, 2) ? 40 : 1500);
}

void fence_arrivals(struct scripted_world *w)
{
    for (size_t i = 0; i < w->nlate; i++) {
        struct late_move *l = &w->late[i];

        if (w->counts.calls < l->due)
            continue;
        if (w->fence[l->move.side].mode != FENCE_NONE)
            (void)moves[l->move.what](w, &l->move, NULL);
        w->counts.arrived++;
        *l = w->late[--w->nlate];
        i--;
    }
}

/* One call that moves the fence. */
static int move(struct conn *c, struct fence_move m, struct err *e)
{
    const struct scripted_counts *n = &c->w->counts;
    uint64_t ends = n->lost + n->crashes;
    int rc;

    m.side = c->side;
    if (enter(c, e) < 0 || conn_lose(c, e) < 0) {
        if (n->lost + n->crashes > ends)
            carry(c->w, &m);
        return -1;
    }
    rc = moves[m.what](c->w, &m, e);
    return rc < 0 || conn_leave(c, e) < 0 ? -1 : rc;
}

/* ---- the calls ---- */

int scripted_fence_install(struct db *db, const struct table_list *tables, int budget_ms,
                           struct err *e)
{
    struct conn *c = conn_of(db);

    if (conn_enter(c, e) < 0)
        return -1;
    if (fence_of(c)->mode == FENCE_NONE)
        fence_of(c)->mode = FENCE_OPEN;
    return conn_leave(c, e);
}

int scripted_fence_remove(struct db *db, struct err *e)
{
    struct conn *c = conn_of(db);

    if (conn_enter(c, e) < 0)
        return -1;
    memset(fence_of(c), 0, sizeof(struct fence));
    return conn_leave(c, e);
}

int scripted_fence_flip(struct db *db, const char *token, uint32_t epoch, int lease_ms,
                        int budget_ms, struct err *e)
{
    (void)budget_ms; /* it comes to rest at once */
    return move(conn_of(db), (struct fence_move){MOVE_FLIP, .token = token, epoch, lease_ms}, e);
}

int scripted_fence_take(struct db *db, const char *token, uint32_t epoch, struct err *e)
{
    return move(conn_of(db), (struct fence_move){MOVE_TAKE, .token = token, epoch}, e);
}

int scripted_fence_renew(struct db *db, const char *token, int lease_ms, struct err *e)
{
    return move(conn_of(db), (struct fence_move){MOVE_RENEW, .token = token, .lease_ms = lease_ms},
                e);
}

int scripted_fence_seal(struct db *db, const char *token, uint32_t epoch, struct err *e)
{
    return move(conn_of(db), (struct fence_move){MOVE_SEAL, .token = token, epoch}, e);
}

int scripted_fence_lift(struct db *db, const char *token, struct err *e)
{
    return move(conn_of(db), (struct fence_move){MOVE_LIFT, .token = token}, e);
}

int scripted_fence_state(struct db *db, struct fence_state *out, struct err *e)
{
    struct conn *c = conn_of(db);
    const struct fence *f = fence_of(c);

    memset(out, 0, sizeof(*out));
    if (conn_enter(c, e) < 0)
        return -1;
    out->mode = f->mode == FENCE_LEASED && !held(c->w, c->side) ? FENCE_OPEN : f->mode;
    out->lease_end_ms = f->end_ms;
    out->now_ms = clock_of(c->w, c->side);
    out->epoch = f->epoch;
    memcpy(out->token, f->token, sizeof(out->token));
    return 0;
}

/* ---- waiting for writers ---- */

struct writers {
    size_t n;
    struct source_txn **v;
};

/* Whoever wrote, or has passed the fence and is about to, holds a lock until it has ended. */
static void list_writers(struct scripted_world *w, struct arena *a, struct writers *out)
{
    out->v = arena_alloc(a, (SESSIONS + w->nhung) * sizeof(struct source_txn *));
    for (int i = 0; i < SESSIONS; i++) {
        struct source_txn *t = w->session[i];

        if (t && (t->xid || t->passed))
            out->v[out->n++] = t;
    }
    for (size_t i = 0; i < w->nhung; i++)
        out->v[out->n++] = w->hung[i];
}

static int still_running(const struct writers *l)
{
    int n = 0;

    for (size_t i = 0; i < l->n; i++)
        n += source_running(l->v[i]);
    return n;
}

/* One that hangs in its commit has committed: it can only be waited for. */
static int terminate(struct scripted_world *w, const struct writers *l)
{
    int n = 0;

    for (size_t i = 0; i < l->n; i++) {
        if (l->v[i]->state != TXN_RUNNING)
            continue;
        source_abort(w, l->v[i]);
        n++;
    }
    return n;
}

static int await_writers(struct conn *c, const struct writers *l, const struct fence_wait *wait,
                         struct fence_report *out, struct err *e)
{
    struct scripted_world *w = c->w;
    int64_t from = w->source_ms;

    out->waited_for = still_running(l);
    for (int i = 0; i < WAIT_STEPS && still_running(l) && w->source_ms - from < wait->deadline_ms;
         i++) {
        if (w->source_ms - from >= wait->grace_ms)
            out->terminated += terminate(w, l);
        source_step(w);
        w->source_ms += (int64_t)draw_below(w, 5);
        world_tell(w);
        if (w->crashed || c->dead)
            return err_set(e, ERR_RETRY, "server closed the connection unexpectedly");
    }
    out->took_ms = w->source_ms - from;
    return still_running(l) ? err_set(e, ERR_RETRY, "writers of the source do not end") : 0;
}

int scripted_fence_wait(struct db *db, const struct fence_wait *wait, struct fence_report *out,
                        struct err *e)
{
    struct conn *c = conn_of(db);
    struct arena a = ARENA_INIT;
    struct writers writers = {0};
    int rc;

    memset(out, 0, sizeof(*out));
    if (enter(c, e) < 0)
        return -1;
    /* The target's applications commit at once. */
    if (c->side == SIDE_SOURCE)
        list_writers(c->w, &a, &writers);
    rc = await_writers(c, &writers, wait, out, e);
    arena_release(&a);
    return rc < 0 ? -1 : conn_leave(c, e);
}

/* ---- markers, sequences ---- */

int scripted_mark(struct db *db, const char *token, struct err *e)
{
    struct conn *c = conn_of(db);
    struct scripted_world *w = c->w;
    struct log_entry *entry;

    if (conn_enter(c, e) < 0)
        return -1;
    if (c->side == SIDE_TARGET) {
        back_log_add(w, token, 0, NULL);
        return conn_leave(c, e);
    }
    entry = VEC_PUSH(w, w->log, w->nlog, w->log_cap);
    memset(entry, 0, sizeof(*entry));
    entry->token = arena_strdup(&w->mem, token);
    entry->at.major = w->log_end;
    w->log_end += 8;
    entry->next.major = w->log_end;
    return conn_leave(c, e);
}

static const char *const sequence_names[SEQUENCES] = {"accounts_id_seq", "docs_id_seq"};
static const int64_t sequence_steps[SEQUENCES] = {1, 5};

int64_t sequence_next(struct sequence *s, size_t number)
{
    s->last = s->called ? s->last + sequence_steps[number] : s->last + 1;
    s->called = true;
    return s->last;
}

int scripted_sequences(struct db *db, const struct selection *s, struct arena *a,
                       struct sequence_list *out, struct err *e)
{
    struct conn *c = conn_of(db);

    out->n = 0;
    out->v = arena_zalloc(a, SEQUENCES * sizeof(*out->v));
    if (conn_enter(c, e) < 0)
        return -1;
    for (size_t i = 0; i < SEQUENCES && c->w->o.cutover; i++) {
        const struct sequence *from = c->side == SIDE_SOURCE ? &c->w->numbers[i] : &c->w->copied[i];

        out->v[out->n++] = (struct sequence_value){.schema = "public",
                                                   .name = sequence_names[i],
                                                   .last_value = from->last,
                                                   .increment = sequence_steps[i],
                                                   .called = from->called};
    }
    return 0;
}

int scripted_sequence_set(struct db *db, const struct sequence_value *v, struct err *e)
{
    struct conn *c = conn_of(db);

    if (conn_enter(c, e) < 0)
        return -1;
    for (size_t i = 0; i < SEQUENCES && c->side == SIDE_TARGET; i++) {
        if (strcmp(sequence_names[i], v->name) == 0)
            c->w->copied[i] = (struct sequence){v->last_value, v->called};
    }
    return conn_leave(c, e);
}
