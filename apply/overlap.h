/* Overlap: while a table's chunks were read under cuts that the stream has not passed, each change
 * is judged against the cut of the chunk in which its key lies (design.md §2). */
#ifndef LOCKSTEP_APPLY_OVERLAP_H
#define LOCKSTEP_APPLY_OVERLAP_H

#include "control/ledger.h"

struct overlap_cut {
    const char *text;
    void *parsed;
};
struct overlap_point {
    const struct row *key;
    const void *parsed;
};

/* One table's. Everything in `arena`. */
struct overlap {
    struct arena arena;
    struct range_list ranges; /* RANGE_KEY, in order; empty when one cut holds for all */
    const void **range_cuts;  /* parsed, one a range */
    const void *single;       /* the one cut, or NULL */
    struct overlap_cut *cuts; /* the different ones */
    size_t ncuts;
    size_t cuts_cap;
    struct overlap_point *points;
    size_t npoints;
    size_t points_cap;
    struct position past; /* beyond this no cut need be asked */
};

/* From the ledger. 1: there is an overlap beyond `next`; 0: none (out is empty); -1. */
int overlap_load(struct db *target, const struct engine *source, const char *label,
                 struct position next, struct overlap *out, struct err *e);
void overlap_release(struct overlap *o);
/* Must the key be located in its range before overlap_sees is asked? */
bool overlap_needs_range(const struct overlap *o);
/* Finds the ranges of n keys: in place where the order of keys is known, else by the source. */
int overlap_locate(const struct overlap *o, const struct table *t, struct db *source,
                   const struct row *const *keys, size_t n, size_t *out, struct err *e);
/* Does the chunk that holds `key` (in ranges[range], unless a point of its own) contain txn? */
bool overlap_sees(const struct overlap *o, const struct cut_ops *ops, const struct txn *txn,
                  const struct row *key, size_t range);
/* Do all (or none, or some) of the table's chunks contain txn? 1 all, 0 none, -1 mixed. */
int overlap_sees_all(const struct overlap *o, const struct cut_ops *ops, const struct txn *txn);
/* A point that has just been read. */
int overlap_add_point(struct overlap *o, const struct engine *source, const struct row *key,
                      const struct cut *cut, struct err *e);

#endif
