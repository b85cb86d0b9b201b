#include "apply/overlap.h"

#include <string.h>

void overlap_release(struct overlap *o)
{
    arena_release(&o->arena);
    memset(o, 0, sizeof(*o));
}

/* The parsed form of a cut; equal texts share one. */
static int intern_cut(struct overlap *o, const struct engine *source, const char *text,
                      const void **out, struct err *e)
{
    struct overlap_cut *cut;

    for (size_t i = 0; i < o->ncuts; i++) {
        if (strcmp(o->cuts[i].text, text) == 0) {
            *out = o->cuts[i].parsed;
            return 0;
        }
    }
    cut = &o->cuts[o->ncuts];
    if (source->cuts->parse(&o->arena, text, &cut->parsed, e) < 0)
        return err_wrap(e, "cut %s", text);
    cut->text = arena_strdup(&o->arena, text);
    o->ncuts++;
    *out = cut->parsed;
    return 0;
}

static void push_point(struct overlap *o, const struct row *key, const void *parsed)
{
    for (size_t i = 0; i < o->npoints; i++) {
        if (row_equal(o->points[i].key, key)) {
            o->points[i].parsed = parsed;
            return;
        }
    }
    if (o->npoints == o->points_cap) {
        struct overlap_point *old = o->points;

        o->points_cap = o->points_cap ? o->points_cap * 2 : 16;
        o->points = arena_alloc(&o->arena, o->points_cap * sizeof(*o->points));
        if (o->npoints)
            memcpy(o->points, old, o->npoints * sizeof(*old));
    }
    o->points[o->npoints++] = (struct overlap_point){row_copy(&o->arena, key), parsed};
}

static int take_chunk(struct overlap *o, const struct engine *source, const struct chunk *c,
                      struct err *e)
{
    const void *parsed;

    if (c->state != CHUNK_DONE)
        return err_set(e, ERR_BUG, "chunk %s is not loaded, but its table is to be followed",
                       c->key);
    if (intern_cut(o, source, c->cut.text, &parsed, e) < 0)
        return -1;
    if (position_cmp(c->cut.past, o->past) > 0)
        o->past = c->cut.past;
    if (c->range.kind == RANGE_POINT) {
        push_point(o, c->range.lower, parsed);
        return 0;
    }
    o->range_cuts[o->ranges.n] = parsed;
    o->ranges.v[o->ranges.n++] = c->range;
    return 0;
}

/* One cut for the whole table? Ranges that are not by key always have one. */
static int find_single(struct overlap *o, const char *label, struct err *e)
{
    for (size_t i = 1; i < o->ranges.n; i++) {
        if (o->range_cuts[i] == o->range_cuts[0])
            continue;
        for (size_t j = 0; j < o->ranges.n; j++) {
            if (o->ranges.v[j].kind != RANGE_KEY)
                return err_set(e, ERR_BUG, "%s has several cuts, but a chunk that is no key range",
                               label);
        }
        return 0;
    }
    o->single = o->ranges.n ? o->range_cuts[0] : NULL;
    return 0;
}

int overlap_load(struct db *target, const struct engine *source, const char *label,
                 struct position next, struct overlap *out, struct err *e)
{
    struct chunk_list chunks;
    int status;

    memset(out, 0, sizeof(*out));
    status = ledger_load(target, label, &out->arena, &chunks, e);
    if (status == 0) {
        out->range_cuts = arena_zalloc(&out->arena, (chunks.n + 1) * sizeof(*out->range_cuts));
        out->ranges.v = arena_zalloc(&out->arena, (chunks.n + 1) * sizeof(*out->ranges.v));
        out->cuts_cap = chunks.n + 1;
        out->cuts = arena_zalloc(&out->arena, out->cuts_cap * sizeof(*out->cuts));
    }
    for (size_t i = 0; status == 0 && i < chunks.n; i++)
        status = take_chunk(out, source, &chunks.v[i], e);
    if (status == 0)
        status = find_single(out, label, e);
    if (status == 0 && out->ranges.n && position_cmp(next, out->past) < 0)
        return 1;
    overlap_release(out);
    return status;
}

bool overlap_needs_range(const struct overlap *o)
{
    return !o->single;
}

static size_t locate_local(const struct overlap *o, const struct table *t, const struct row *key)
{
    size_t low = 0;
    size_t high = o->ranges.n;

    /* The last range whose lower bound is not above the key; the first one is open below. */
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;

        if (key_cmp_local(t, o->ranges.v[middle].lower, key) <= 0)
            low = middle;
        else
            high = middle;
    }
    return low;
}

int overlap_locate(const struct overlap *o, const struct table *t, struct db *source,
                   const struct row *const *keys, size_t n, size_t *out, struct err *e)
{
    if (!key_order_is_local(t))
        return source->engine->locate(source, t, &o->ranges, keys, n, out, e);
    for (size_t i = 0; i < n; i++)
        out[i] = locate_local(o, t, keys[i]);
    return 0;
}

bool overlap_sees(const struct overlap *o, const struct cut_ops *ops, const struct txn *txn,
                  const struct row *key, size_t range)
{
    for (size_t i = 0; key && i < o->npoints; i++) {
        if (row_equal(o->points[i].key, key))
            return ops->sees(o->points[i].parsed, txn);
    }
    if (o->single)
        return ops->sees(o->single, txn);
    invariant(range < o->ranges.n);
    return ops->sees(o->range_cuts[range], txn);
}

int overlap_sees_all(const struct overlap *o, const struct cut_ops *ops, const struct txn *txn)
{
    size_t seen = 0;

    for (size_t i = 0; i < o->ncuts; i++)
        seen += ops->sees(o->cuts[i].parsed, txn) ? 1 : 0;
    return seen == o->ncuts ? 1 : seen == 0 ? 0 : -1;
}

int overlap_add_point(struct overlap *o, const struct engine *source, const struct row *key,
                      const struct cut *cut, struct err *e)
{
    const void *parsed;

    /* Doubled, since the arena gives nothing back: a statement that moves all keys reads as many
     * points. */
    if (o->ncuts == o->cuts_cap) {
        struct overlap_cut *old = o->cuts;

        o->cuts_cap = o->cuts_cap * 2 + 1;
        o->cuts = arena_zalloc(&o->arena, o->cuts_cap * sizeof(*o->cuts));
        if (o->ncuts)
            memcpy(o->cuts, old, o->ncuts * sizeof(*old));
    }
    if (intern_cut(o, source, cut->text, &parsed, e) < 0)
        return -1;
    push_point(o, key, parsed);
    if (position_cmp(cut->past, o->past) > 0)
        o->past = cut->past;
    return 0;
}
