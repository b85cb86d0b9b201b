/* Whole states of both ends, for verify. */
#include "engines/scripted/calls.h"
#include "engines/scripted/world.h"

#include <stdio.h>

int scripted_pin_source(const struct db_options *o, struct arena *a, struct pin *out, struct err *e)
{
    struct scripted_world *w = scripted_current;
    struct db_options holder = *o;
    struct exported *x;

    memset(out, 0, sizeof(*out));
    holder.use = DB_READ;
    if (scripted_open(&holder, &out->holder, e) < 0)
        return -1;
    while (w->nhung)
        source_step(w);
    x = snap_export(w);
    conn_of(out->holder)->holds = x;
    out->next = x->snap.past;
    out->snapshot = arena_strdup(a, x->name);
    return 0;
}

int scripted_pin_target(struct db *db, char *snapshot, size_t size, struct err *e)
{
    struct conn *c = conn_of(db);
    struct scripted_world *w = c->w;
    struct target_pin *pin;

    if (conn_enter(c, e) < 0)
        return -1;
    pin = arena_zalloc(&w->mem, sizeof(*pin));
    pin->name = arena_printf(&w->mem, "target-%zu", w->npins + 1);
    for (size_t i = 0; i < TABLES; i++) {
        const struct target_table *t = &w->target[i];

        pin->rows[i] = arena_alloc(&w->mem, (t->n + 1) * sizeof(*pin->rows[i]));
        for (size_t k = 0; k < t->n; k++) {
            if (t->slots[k]->was)
                pin->rows[i][pin->n[i]++] = t->slots[k]->was;
        }
    }
    *VEC_PUSH(w, w->pins, w->npins, w->pins_cap) = pin;
    snprintf(snapshot, size, "%s", pin->name);
    return 0;
}

static bool wanted(const struct table *def, const struct row *row, const struct row *const *keys,
                   size_t nkeys)
{
    struct arena a = ARENA_INIT;
    const struct row *key = def->nkey ? table_key_of(&a, def, row) : row;
    bool is = keys == NULL;

    for (size_t i = 0; keys && i < nkeys && !is; i++)
        is = row_equal(key, keys[i]);
    arena_release(&a);
    return is;
}

static void scan_source(struct conn *c, const struct source_table *t, const char *snapshot)
{
    const struct exported *x = snapshot ? snap_find(c->w, snapshot) : NULL;
    struct snap now;

    if (!x)
        snap_take(c->w, &c->rows, &now);
    c->found = arena_alloc(&c->rows, (t->n + 1) * sizeof(*c->found));
    for (size_t i = 0; i < t->n; i++) {
        if (tuple_seen(c->w, x ? &x->snap : &now, &t->tuples[i]))
            c->found[c->nfound++] = t->tuples[i].row;
    }
}

static void scan_target(struct conn *c, const struct target_table *t, const char *snapshot)
{
    size_t number = (size_t)(t - c->w->target);
    const struct target_pin *pin = NULL;

    for (size_t i = 0; snapshot && i < c->w->npins; i++) {
        if (strcmp(c->w->pins[i]->name, snapshot) == 0)
            pin = c->w->pins[i];
    }
    c->found = arena_alloc(&c->rows, (t->n + (pin ? pin->n[number] : 0) + 1) * sizeof(*c->found));
    for (size_t i = 0; pin && i < pin->n[number]; i++)
        c->found[c->nfound++] = pin->rows[number][i];
    for (size_t i = 0; !pin && i < t->n; i++) {
        const struct slot *s = t->slots[i];
        const struct row *row = s->owner && s->owner == c->tx ? s->now : s->was;

        if (row)
            c->found[c->nfound++] = row;
    }
}

int scripted_scan_begin(struct db *db, const struct table *t, const char *snapshot,
                        const struct row *const *keys, size_t nkeys, struct err *e)
{
    struct conn *c = conn_of(db);
    struct source_table *s = source_table_of(c->w, t);
    size_t kept = 0;

    if (conn_enter(c, e) < 0)
        return -1;
    invariant(s != NULL && !c->reading);
    arena_reset(&c->rows);
    c->nfound = 0;
    c->at = 0;
    c->scanning = true;
    if (c->side == SIDE_SOURCE)
        scan_source(c, s, snapshot);
    else
        scan_target(c, target_table_of(c->w, t), snapshot);
    for (size_t i = 0; i < c->nfound; i++) {
        if (wanted(s->def, c->found[i], keys, nkeys))
            c->found[kept++] = c->found[i];
    }
    c->nfound = kept;
    return 0;
}

int scripted_scan_next(struct db *db, const struct row **out, struct err *e)
{
    struct conn *c = conn_of(db);

    if (conn_enter(c, e) < 0)
        return -1;
    invariant(c->scanning);
    if (c->at == c->nfound)
        return 0;
    *out = c->found[c->at++];
    return 1;
}

int scripted_scan_end(struct db *db, struct err *e)
{
    struct conn *c = conn_of(db);

    c->scanning = false;
    return conn_enter(c, e);
}
