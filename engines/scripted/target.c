/* Transactions of the target: what they changed can be taken back, and nobody else sees it before.
 *
 * A slot (row, fact, flag) has one owner at a time: the transaction that changed it. Whoever else
 * would have to wait gets a lock timeout, because in one thread there is nobody to wait for. */
#include "engines/scripted/world.h"

#include <stdlib.h>

struct tx *tx_new(struct scripted_world *w)
{
    return arena_zalloc(&w->mem, sizeof(struct tx));
}

static struct undo *remember(struct scripted_world *w, struct tx *tx, enum undo_kind kind,
                             void *thing)
{
    struct undo *u = VEC_PUSH(w, tx->undo, tx->n, tx->cap);

    memset(u, 0, sizeof(*u));
    u->kind = kind;
    u->thing = thing;
    return u;
}

void slot_set(struct scripted_world *w, struct tx *tx, struct slot *s, const struct row *row)
{
    invariant(!s->owner || s->owner == tx);
    remember(w, tx, UNDO_ROW, s)->row = s->now;
    s->owner = tx;
    s->now = row;
}

struct slot *slot_new(struct scripted_world *w, struct target_table *t)
{
    struct slot *s;

    for (size_t i = 0; i < t->n; i++) {
        s = t->slots[i];
        if (!s->now && !s->was && !s->owner)
            return s;
    }
    s = arena_zalloc(&w->mem, sizeof(*s));
    *VEC_PUSH(w, t->slots, t->n, t->cap) = s;
    return s;
}

int flag_set(struct scripted_world *w, struct tx *tx, struct flag *f, int value, struct err *e)
{
    if (f->owner && f->owner != tx)
        return lock_wait(w, e, "a relation");
    remember(w, tx, UNDO_FLAG, f)->number = f->now;
    f->owner = tx;
    f->now = value;
    return 0;
}

int lock_wait(struct scripted_world *w, struct err *e, const char *what)
{
    w->counts.lock_waits++;
    err_set(e, ERR_RETRY, "canceling statement due to lock timeout (%s)", what);
    if (e)
        memcpy(e->sqlstate, "55P03", 6);
    return -1;
}

static void take_back(struct undo *u)
{
    struct target_fact *fact = u->thing;

    switch (u->kind) {
    case UNDO_ROW:
        ((struct slot *)u->thing)->now = u->row;
        break;
    case UNDO_FLAG:
        ((struct flag *)u->thing)->now = (int)u->number;
        break;
    case UNDO_FACT:
        json_decref(fact->now);
        fact->now = u->body;
        fact->now_version = u->number;
        u->body = NULL;
    }
}

void tx_rollback(struct scripted_world *w, struct tx *tx, size_t to)
{
    while (tx->n > to)
        take_back(&tx->undo[--tx->n]);
}

/* What others see from now on is what it made. */
static void publish(struct undo *u)
{
    struct slot *slot = u->thing;
    struct flag *flag = u->thing;
    struct target_fact *fact = u->thing;

    switch (u->kind) {
    case UNDO_ROW:
        slot->was = slot->now;
        slot->owner = NULL;
        break;
    case UNDO_FLAG:
        flag->was = flag->now;
        flag->owner = NULL;
        break;
    case UNDO_FACT:
        if (fact->was != fact->now) {
            json_decref(fact->was);
            fact->was = json_incref(fact->now);
        }
        fact->was_version = fact->now_version;
        fact->owner = NULL;
    }
}

/* Nothing is owned by it any more; a fact may have been locked without being changed. */
static void disown(struct scripted_world *w, const struct tx *tx)
{
    for (size_t i = 0; i < TABLES; i++) {
        struct target_table *t = &w->target[i];
        struct flag *flags[] = {&t->created, &t->keyed, &t->indexed, &t->constrained};

        for (size_t k = 0; k < t->n; k++) {
            if (t->slots[k]->owner == tx)
                t->slots[k]->owner = NULL;
        }
        for (size_t k = 0; k < 4; k++) {
            if (flags[k]->owner == tx)
                flags[k]->owner = NULL;
        }
    }
    for (size_t i = 0; i < w->nfacts; i++) {
        if (w->facts[i]->owner == tx)
            w->facts[i]->owner = NULL;
    }
}

static void free_bodies(struct tx *tx)
{
    for (size_t i = 0; i < tx->n; i++)
        json_decref(tx->undo[i].body);
    tx->n = 0;
}

void tx_release(struct scripted_world *w, struct tx *tx)
{
    disown(w, tx);
    free_bodies(tx);
}

void volatiles_flush(struct scripted_world *w)
{
    for (size_t i = 0; i < w->nvolatiles; i++)
        free_bodies(w->volatiles[i]);
    w->nvolatiles = 0;
    memcpy(w->durable, w->copied, sizeof(w->durable));
}

/* A commit that a restart took back: for others too, it never was. */
void tx_unpublish(struct scripted_world *w, struct tx *tx)
{
    while (tx->n > 0) {
        struct undo *u = &tx->undo[--tx->n];

        take_back(u);
        publish(u);
    }
}

/* ---- unique columns ---- */

static bool has_duplicates(const struct target_table *t)
{
    size_t column = t->source->unique;

    for (size_t i = 0; i < t->n; i++) {
        const struct row *a = t->slots[i]->now;

        for (size_t j = i + 1; a && a->v[column].state == VALUE_SET && j < t->n; j++) {
            const struct row *b = t->slots[j]->now;

            if (b && value_equal(&a->v[column], &b->v[column]))
                return true;
        }
    }
    return false;
}

static int judge_deferred(struct scripted_world *w, struct err *e)
{
    for (size_t i = 0; i < TABLES; i++) {
        const struct target_table *t = &w->target[i];

        if (t->source->unique != NO_COLUMN && t->constrained.now && has_duplicates(t)) {
            err_set(e, ERR_CONFLICT, "duplicate key value violates a unique constraint of %s",
                    table_label(t->source->def));
            return -1;
        }
    }
    return 0;
}

int tx_commit(struct scripted_world *w, struct tx *tx, bool async, struct err *e)
{
    if (tx->deferred && judge_deferred(w, e) < 0)
        return -1;
    for (size_t i = 0; i < tx->n; i++)
        publish(&tx->undo[i]);
    disown(w, tx);
    if (!async) {
        volatiles_flush(w);
        free_bodies(tx);
    } else {
        *VEC_PUSH(w, w->volatiles, w->nvolatiles, w->volatiles_cap) = tx;
    }
    return 0;
}

struct tx *conn_tx(struct conn *c, bool *alone)
{
    *alone = c->tx == NULL;
    return c->tx ? c->tx : tx_new(c->w);
}

int conn_tx_end(struct conn *c, struct tx *tx, bool alone, int rc, struct err *e)
{
    if (!alone) {
        tx->failed = tx->failed || rc < 0;
        return rc;
    }
    if (rc >= 0 && tx_commit(c->w, tx, c->use == DB_APPLY, e) == 0)
        return rc;
    tx_rollback(c->w, tx, 0);
    tx_release(c->w, tx);
    return -1;
}
