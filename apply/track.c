#include "apply/track.h"

#include <string.h>

void tracks_release(struct track_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        overlap_release(&l->v[i].overlap);
    arena_release(&l->arena);
    memset(l, 0, sizeof(*l));
}

int tracks_load(struct track_list *l, struct db *target, const struct engine *source,
                struct position next, struct err *e)
{
    struct lane_list lanes;

    tracks_release(l);
    if (lanes_load(target, &l->arena, &lanes, e) < 0 ||
        shapes_load(target, &l->arena, &l->shapes, e) < 0)
        return -1;
    l->v = arena_zalloc(&l->arena, (lanes.n + 1) * sizeof(*l->v));
    for (size_t i = 0; i < lanes.n; i++) {
        struct track *t = &l->v[l->n++];
        const struct table *shape = table_list_find(&l->shapes, lanes.v[i].label);
        int overlap = 0;

        t->label = lanes.v[i].label;
        t->root = shape ? shape->root : NULL;
        t->lane = lanes.v[i];
        if (t->lane.state == LANE_FOLLOWING)
            overlap = overlap_load(target, source, t->label, next, &t->overlap, e);
        else if (t->lane.state == LANE_CATCHING_UP)
            overlap = overlap_load(target, source, t->label, t->lane.next, &t->overlap, e);
        if (overlap < 0)
            return -1;
        t->has_overlap = overlap > 0;
    }
    return 0;
}

struct track *tracks_find(struct track_list *l, const char *label)
{
    size_t low = 0;
    size_t high = l->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(l->v[middle].label, label);

        if (order == 0)
            return &l->v[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

void tracks_pass(struct track_list *l, struct position next)
{
    for (size_t i = 0; i < l->n; i++) {
        struct track *t = &l->v[i];

        if (!t->has_overlap || t->lane.state != LANE_FOLLOWING ||
            position_cmp(next, t->overlap.past) < 0)
            continue;
        overlap_release(&t->overlap);
        t->has_overlap = false;
    }
}
