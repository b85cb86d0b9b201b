#include "control/way.h"

#include <stdlib.h>
#include <string.h>

/* ---- the tables ---- */

static int take_columns(struct table *b, const struct table *now, const struct table *t,
                        struct arena *a, struct err *e)
{
    const struct table *there = table_there(t);

    if (now->ncolumns != t->ncolumns)
        return err_set(e, ERR_REFUSED, "%s has %zu columns there instead of %zu", table_label(now),
                       now->ncolumns, t->ncolumns);
    b->columns = arena_zalloc(a, (t->ncolumns + 1) * sizeof(*b->columns));
    b->key = arena_zalloc(a, (t->ncolumns + 1) * sizeof(*b->key));
    b->nkey = 0;
    for (size_t i = 0; i < t->ncolumns; i++) {
        const struct column *c = table_column(now, there->columns[i].name);

        if (!c)
            return err_set(e, ERR_REFUSED, "%s has no column \"%s\" there", table_label(now),
                           there->columns[i].name);
        if (c->key != t->columns[i].key)
            return err_set(e, ERR_REFUSED, "%s has another key there (column \"%s\")",
                           table_label(now), c->name);
        b->columns[i] = *c;
        b->columns[i].kind = t->columns[i].kind;
        if (c->key) {
            b->key[c->key - 1] = i;
            b->nkey++;
        }
    }
    return 0;
}

static int by_label(const void *x, const void *y)
{
    const struct table *const *a = x;
    const struct table *const *b = y;
    int order = strcmp((*a)->schema, (*b)->schema);

    return order ? order : strcmp((*a)->name, (*b)->name);
}

int way_shapes(struct db *db, const struct table_list *forward, struct arena *a,
               struct table_list *out, struct err *e)
{
    static const struct selection all = {0};
    struct table_list there;

    if (db->engine->tables(db, &all, a, &there, e) < 0)
        return -1;
    out->n = 0;
    out->v = arena_zalloc(a, (forward->n + 1) * sizeof(*out->v));
    for (size_t i = 0; i < forward->n; i++) {
        struct table *t = forward->v[i];
        const struct table *now = table_list_find(&there, table_label(table_there(t)));
        struct table *b;

        if (!now)
            return err_set(e, ERR_REFUSED, "%s is not there", table_label(table_there(t)));
        b = table_copy(a, now);
        if (take_columns(b, now, t, a, e) < 0)
            return -1;
        b->version = t->version;
        b->there = NULL;
        /* An engine that asked for more than a name on the way there asks for it back, too. */
        if (t->there || !table_same_shape(b, t)) {
            b->there = table_copy(a, t);
            b->there->there = NULL;
        }
        out->v[out->n++] = b;
    }
    qsort(out->v, out->n, sizeof(*out->v), by_label);
    return 0;
}

/* ---- the facts ---- */

static int store_lane(struct db *db, const struct table *t, struct position start, struct err *e)
{
    struct arena a = ARENA_INIT;
    struct lane lane = {.version = FACT_ABSENT};
    int rc = lane_load(db, table_label(t), &a, &lane, e) < 0 ? -1 : 0;

    lane.label = table_label(t);
    lane.state = LANE_FOLLOWING;
    lane.next = start;
    lane.record = 0;
    lane.reason = NULL;
    if (rc == 0)
        rc = lane_store(db, &lane, e);
    arena_release(&a);
    return rc;
}

int way_store(struct db *db, const struct table_list *tables, const struct stream_fact *seen,
              const struct stream_origin *origin, struct err *e)
{
    struct stream_origin made = *origin;

    made.snapshot = NULL;
    if (shapes_store(db, tables, e) < 0 || stream_fact_created(db, seen, &made, e) < 0)
        return -1;
    for (size_t i = 0; i < tables->n; i++) {
        if (store_lane(db, tables->v[i], origin->start, e) < 0)
            return -1;
    }
    return load_phase_set(db, LOAD_DONE, e);
}

int way_forget(struct db *db, struct err *e)
{
    /* What was written past a seal stays known: the rows are there still. */
    static const char *const kinds[] = {"stream", "checkpoint", "phase", "shape", "lane", "status"};

    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        struct fact *facts;
        size_t n;
        int rc = 0;

        if (db->engine->fact_scan(db, kinds[k], "", &facts, &n, e) < 0)
            return -1;
        for (size_t i = 0; rc == 0 && i < n; i++)
            rc = db->engine->fact_delete(db, kinds[k], facts[i].key, e);
        facts_release(facts, n);
        if (rc < 0)
            return -1;
    }
    return 0;
}
