/* Cuts: what a chunk's snapshot had seen, and ranges: which rows a chunk holds (design.md §2). */
#ifndef LOCKSTEP_CORE_CUT_H
#define LOCKSTEP_CORE_CUT_H

#include "core/data.h"

/* The state that a chunk was read in. `text` is the engine's (PostgreSQL: "xmin:xmax:xip,…" of
 * pg_current_snapshot()). Every transaction that the cut sees has commit < past: once the stream's
 * frontier is at `past`, the cut need not be asked any more. */
struct cut {
    const char *text;
    struct position past;
};

/* The heart: is the effect of txn in what was read under this cut? Exact, never a guess. `parse`
 * makes the engine's form of it once per chunk; both are pure. */
struct cut_ops {
    int (*parse)(struct arena *a, const char *text, void **parsed, struct err *e);
    bool (*sees)(const void *parsed, const struct txn *txn);
};

enum range_kind {
    RANGE_ALL,    /* the whole table */
    RANGE_KEY,    /* lower <= key < upper; either may be missing */
    RANGE_BLOCKS, /* block_from <= block number on disk < block_to (UINT64_MAX: to the end) */
    RANGE_POINT   /* exactly the key `lower` */
};

struct range {
    enum range_kind kind;
    const struct row *lower; /* NULL: open */
    const struct row *upper; /* NULL: open */
    uint64_t block_from;
    uint64_t block_to;
};

struct range_list {
    size_t n;
    struct range *v;
};

json_t *range_to_json(const struct range *r);
int range_from_json(struct arena *a, const json_t *json, struct range *out, struct err *e);
void range_print(struct buf *out, const struct range *r);

/* True if every key column's order is known without asking the server. */
bool key_order_is_local(const struct table *t);
/* Compares two keys of a table for which key_order_is_local() holds. */
int key_cmp_local(const struct table *t, const struct row *a, const struct row *b);

#endif
