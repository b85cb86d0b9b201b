/* Chunks: planned, read under a snapshot while the sessions go on, and keys located in them. */
#include "engines/scripted/calls.h"
#include "engines/scripted/world.h"

#include <stdlib.h>

#define ROWS_A_BLOCK 6 /* on the scripted "disk" */
#define WAIT_STEPS 400

int scripted_settle(struct db *db, int timeout_ms, struct err *e)
{
    struct conn *c = conn_of(db);
    struct scripted_world *w = c->w;
    struct arena a = ARENA_INIT;
    struct snap then;
    bool waiting = true;

    if (conn_enter(c, e) < 0)
        return -1;
    snap_take(w, &a, &then);
    for (int i = 0; waiting && i < WAIT_STEPS; i++) {
        waiting = false;
        for (size_t k = 0; k < then.n; k++)
            waiting = waiting || source_running(txn_by_xid(w, then.xip[k]));
        if (waiting)
            source_step(w);
    }
    arena_release(&a);
    if (waiting)
        return err_set(e, ERR_RETRY, "transactions of the source do not end");
    return 0;
}

/* ---- planning ---- */

static int by_key(const void *a, const void *b, void *table)
{
    return server_key_cmp(table, *(const struct row *const *)a, *(const struct row *const *)b);
}

static size_t keys_now(struct scripted_world *w, struct source_table *t, struct arena *a,
                       const struct row ***out)
{
    struct snap now;
    size_t n = 0;

    snap_take(w, a, &now);
    *out = arena_alloc(a, (t->n + 1) * sizeof(**out));
    for (size_t i = 0; i < t->n; i++) {
        if (tuple_seen(w, &now, &t->tuples[i]))
            (*out)[n++] = row_copy(a, table_key_of(a, t->def, t->tuples[i].row));
    }
    qsort_r(*out, n, sizeof(**out), by_key, t->def);
    return n;
}

static void plan_blocks(struct scripted_world *w, struct source_table *t, struct arena *a,
                        struct range_list *out)
{
    size_t blocks = t->n / ROWS_A_BLOCK + 1;
    size_t step = 1 + draw_below(w, 3);

    out->v = arena_zalloc(a, (blocks + 1) * sizeof(*out->v));
    for (size_t from = 0; from < blocks; from += step) {
        struct range *r = &out->v[out->n++];

        r->kind = RANGE_BLOCKS;
        r->block_from = from;
        r->block_to = from + step < blocks ? from + step : UINT64_MAX;
    }
}

static void plan_keys(struct scripted_world *w, struct source_table *t, struct arena *a,
                      struct range_list *out)
{
    const struct row **keys;
    size_t n = keys_now(w, t, a, &keys);
    const struct row *lower = NULL;

    out->v = arena_zalloc(a, (n + 1) * sizeof(*out->v));
    for (size_t i = 1 + draw_below(w, 8); i < n; i += 1 + draw_below(w, 8)) {
        out->v[out->n++] = (struct range){.kind = RANGE_KEY, .lower = lower, .upper = keys[i]};
        lower = keys[i];
    }
    out->v[out->n++] = (struct range){.kind = RANGE_KEY, .lower = lower};
}

int scripted_chunk_plan(struct db *db, const struct table *t, uint64_t bytes, bool by_blocks,
                        struct arena *a, struct range_list *out, struct err *e)
{
    struct conn *c = conn_of(db);
    struct source_table *s = source_table_of(c->w, t);

    out->n = 0;
    out->v = NULL;
    if (conn_enter(c, e) < 0)
        return -1;
    invariant(s != NULL);
    if (by_blocks && (s->def->scattered || s->def->nkey == 0) && draw_chance(c->w, 3, 4)) {
        plan_blocks(c->w, s, a, out);
    } else if (s->def->nkey == 0) {
        out->v = arena_zalloc(a, sizeof(*out->v));
        out->v[out->n++].kind = RANGE_ALL;
    } else {
        plan_keys(c->w, s, a, out);
    }
    return 0;
}

/* ---- reading ---- */

/* A TRUNCATE that has not ended keeps readers out. */
static int wait_for_table(struct scripted_world *w, const struct source_table *t, struct err *e)
{
    unsigned bit = 1u << (t - w->source);

    for (int i = 0; i < WAIT_STEPS; i++) {
        bool waiting = false;

        for (int k = 0; k < SESSIONS; k++)
            waiting = waiting || (w->session[k] && w->session[k]->emptied & bit);
        for (size_t k = 0; k < w->nhung; k++)
            waiting = waiting || w->hung[k]->emptied & bit;
        if (!waiting)
            return 0;
        source_step(w);
    }
    return lock_wait(w, e, table_label(t->def));
}

static void collect(struct conn *c, const struct read_request *r, const struct snap *snap)
{
    struct source_table *t = c->reading;

    c->found = arena_alloc(&c->rows, (t->n + 1) * sizeof(*c->found));
    c->nfound = 0;
    c->at = 0;
    for (size_t i = 0; i < t->n; i++) {
        const struct row *row = t->tuples[i].row;

        if (tuple_seen(c->w, snap, &t->tuples[i]) &&
            range_holds(t->def, &r->range, table_key_of(&c->rows, t->def, row), i / ROWS_A_BLOCK))
            c->found[c->nfound++] = row;
    }
}

static int choose_snapshot(struct conn *c, const struct read_request *r, struct snap *out,
                           struct err *e)
{
    struct source_table *t = c->reading;
    const struct exported *x = r->snapshot ? snap_find(c->w, r->snapshot) : NULL;

    if (!x) {
        if (r->snapshot)
            return err_set(e, ERR_DATA, "snapshot \"%s\" does not exist", r->snapshot);
        snap_take(c->w, &c->rows, out);
        return 0;
    }
    if (t->emptied && !snap_sees(c->w, &x->snap, t->emptied))
        return err_set(e, ERR_CONFLICT, "%s was rewritten since the snapshot", table_label(t->def));
    *out = x->snap;
    return 0;
}

int scripted_read_begin(struct db *db, const struct read_request *r, struct arena *a,
                        struct cut *cut, struct err *e)
{
    struct conn *c = conn_of(db);
    struct source_table *t = source_table_of(c->w, r->table);
    struct snap snap;

    if (conn_enter(c, e) < 0)
        return -1;
    invariant(t != NULL && !c->reading);
    if (wait_for_table(c->w, t, e) < 0)
        return -1;
    arena_reset(&c->rows);
    c->reading = t;
    t->readers++;
    c->format = r->format;
    if (choose_snapshot(c, r, &snap, e) < 0) {
        c->reading = NULL;
        t->readers--;
        return -1;
    }
    collect(c, r, &snap);
    cut->text = arena_strdup(a, snap.text);
    cut->past = snap.past;
    return 0;
}

int scripted_read_next(struct db *db, struct block *out, struct err *e)
{
    struct conn *c = conn_of(db);
    size_t n;

    if (conn_enter(c, e) < 0)
        return -1;
    invariant(c->reading != NULL);
    n = c->nfound - c->at;
    if (n == 0)
        return 0;
    if (n > 3)
        n = 1 + draw_below(c->w, n);
    memset(out, 0, sizeof(*out));
    out->format = c->format;
    if (c->format == BLOCK_NATIVE) {
        out->data = (const char *)(c->found + c->at);
        out->len = n * sizeof(*c->found);
    } else {
        out->rows = c->found + c->at;
        out->nrows = n;
    }
    c->at += n;
    return 1;
}

int scripted_read_end(struct db *db, uint64_t *rows, struct err *e)
{
    struct conn *c = conn_of(db);

    if (conn_enter(c, e) < 0)
        return -1;
    if (rows)
        *rows = c->at;
    if (c->reading)
        c->reading->readers--;
    c->reading = NULL;
    return 0;
}

static size_t range_of(const struct table *t, const struct range_list *ranges,
                       const struct row *key)
{
    for (size_t i = 0; i < ranges->n; i++) {
        if (range_holds(t, &ranges->v[i], key, 0))
            return i;
    }
    return ranges->n;
}

int scripted_locate(struct db *db, const struct table *t, const struct range_list *ranges,
                    const struct row *const *keys, size_t n, size_t *out, struct err *e)
{
    struct conn *c = conn_of(db);
    struct source_table *s = source_table_of(c->w, t);

    if (conn_enter(c, e) < 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        out[i] = range_of(s->def, ranges, keys[i]);
        if (out[i] == ranges->n)
            return err_set(e, ERR_BUG, "the ranges of %s have a gap", table_label(t));
    }
    return 0;
}
