/* Judging a portion against the cuts. Keys of tables with several cuts are located first, all keys
 * of a table in one query: whose order it is, only the source knows. */
#include "apply/internal.h"

#include <string.h>

struct located {
    const struct row *old_key;
    const struct row *new_key;
    size_t old_range;
    size_t new_range;
};
struct judge {
    const struct item *items;
    size_t n;
    struct located *v;
};

static bool must_locate(const struct item *item)
{
    return item->track->has_overlap && overlap_needs_range(&item->track->overlap) &&
           item->change.op != OP_TRUNCATE;
}

/* Locates the keys of one table's items from `first` on, and marks nothing else. */
static int locate_table(struct apply *a, struct judge *j, size_t first, bool *done, struct err *e)
{
    const struct item *head = &j->items[first];
    const struct row **keys = arena_alloc(&a->scratch, 2 * (j->n + 1) * sizeof(*keys));
    size_t *where = arena_alloc(&a->scratch, 2 * (j->n + 1) * sizeof(*where));
    struct db *source = NULL;
    size_t n = 0;
    size_t k = 0;

    for (size_t i = first; i < j->n; i++) {
        if (j->items[i].track != head->track || !must_locate(&j->items[i]))
            continue;
        if (j->v[i].old_key)
            keys[n++] = j->v[i].old_key;
        if (j->v[i].new_key)
            keys[n++] = j->v[i].new_key;
        done[i] = true;
    }
    a->culprit = head->track; /* dropped on the source, say: that table's trouble, no other's */
    if (!key_order_is_local(head->change.table) && apply_source(a, &source, e) < 0)
        return -1;
    if (overlap_locate(&head->track->overlap, head->change.table, source, keys, n, where, e) < 0)
        return err_wrap(e, "locating keys of %s in its chunks", head->track->label);
    for (size_t i = first; i < j->n; i++) {
        if (j->items[i].track != head->track || !must_locate(&j->items[i]))
            continue;
        if (j->v[i].old_key)
            j->v[i].old_range = where[k++];
        if (j->v[i].new_key)
            j->v[i].new_range = where[k++];
    }
    a->culprit = NULL;
    return 0;
}

int judge_open(struct apply *a, const struct item *items, size_t n, struct judge **out,
               struct err *e)
{
    struct judge *j = arena_zalloc(&a->scratch, sizeof(*j));
    bool *done = arena_zalloc(&a->scratch, n + 1);

    j->items = items;
    j->n = n;
    j->v = arena_zalloc(&a->scratch, (n + 1) * sizeof(*j->v));
    for (size_t i = 0; i < n; i++) {
        if (!items[i].track->has_overlap || items[i].change.op == OP_TRUNCATE ||
            items[i].change.table->nkey == 0)
            continue;
        j->v[i].old_key = change_old_key(&a->scratch, &items[i].change);
        j->v[i].new_key = change_new_key(&a->scratch, &items[i].change);
    }
    for (size_t i = 0; i < n; i++) {
        if (must_locate(&items[i]) && !done[i] && locate_table(a, j, i, done, e) < 0)
            return -1;
    }
    *out = j;
    return 0;
}

static int judge_truncate(struct apply *a, const struct item *item, struct err *e)
{
    int seen = overlap_sees_all(&item->track->overlap, a->m->source.engine->cuts, &item->txn);

    if (seen >= 0)
        return seen ? 0 : 1;
    a->culprit = item->track;
    err_set(e, ERR_CONFLICT, "%s was truncated while its chunks were copied under different cuts",
            item->track->label);
    return err_hint(e, "lockstep tables recopy %s", item->track->label);
}

/* A key change whose old key's chunk has it and whose new key's chunk has not: the row is in
 * neither, so it must come from here. */
static void judge_arrival(struct apply *a, const struct located *at, struct act *out)
{
    if (row_complete(out->change.after)) {
        out->change.op = OP_INSERT;
        out->change.before = NULL;
        return;
    }
    out->kind = ACT_POINT;
    out->key = row_copy(&a->scratch, at->new_key);
}

static void judge_departure(struct apply *a, struct act *out)
{
    const struct table *t = out->change.table;
    const struct row *key = change_old_key(&a->scratch, &out->item->change);
    struct row *before = row_new(&a->scratch, t->ncolumns);

    for (size_t i = 0; i < t->ncolumns; i++)
        before->v[i].state = VALUE_UNCHANGED;
    for (size_t i = 0; i < t->nkey; i++)
        before->v[t->key[i]] = key->v[i];
    out->change.op = OP_DELETE;
    out->change.before = before;
    out->change.after = NULL;
}

int judge_item(struct apply *a, const struct judge *j, size_t i, struct act *out, struct err *e)
{
    const struct item *item = &j->items[i];
    const struct located *at = &j->v[i];
    const struct cut_ops *ops = a->m->source.engine->cuts;
    const struct overlap *o = &item->track->overlap;
    bool old_seen;
    bool new_seen;

    *out = (struct act){.kind = ACT_CHANGE, .change = item->change, .item = item};
    if (!item->track->has_overlap)
        return 1;
    if (item->change.op == OP_TRUNCATE)
        return judge_truncate(a, item, e);
    if (item->change.table->nkey == 0)
        return overlap_sees(o, ops, &item->txn, NULL, 0) ? 0 : 1;
    old_seen = at->old_key && overlap_sees(o, ops, &item->txn, at->old_key, at->old_range);
    new_seen = at->new_key && overlap_sees(o, ops, &item->txn, at->new_key, at->new_range);
    if (item->change.op == OP_INSERT)
        return !new_seen;
    if (item->change.op == OP_DELETE)
        return !old_seen;
    if (old_seen && new_seen)
        return 0;
    if (old_seen)
        judge_arrival(a, at, out);
    else if (new_seen)
        judge_departure(a, out);
    return 1;
}
