/* What apply knows of each table while it runs: its lane and its overlap. */
#ifndef LOCKSTEP_APPLY_TRACK_H
#define LOCKSTEP_APPLY_TRACK_H

#include "apply/overlap.h"
#include "control/plan.h"

struct track {
    const char *label;
    const char *root; /* of a leaf, or NULL */
    struct lane lane;
    bool has_overlap;
    struct overlap overlap;
    unsigned rows_left; /* portions to go row by row before sets are tried again */
};
struct track_list {
    struct arena arena;
    size_t n;
    struct track *v;          /* by label */
    struct table_list shapes; /* as planned */
};

/* All lanes, with the overlaps that lie beyond their position (following: beyond `next`). */
int tracks_load(struct track_list *l, struct db *target, const struct engine *source,
                struct position next, struct err *e);
void tracks_release(struct track_list *l);
struct track *tracks_find(struct track_list *l, const char *label);
/* Drops the overlaps that the frontier has passed. */
void tracks_pass(struct track_list *l, struct position next);

#endif
