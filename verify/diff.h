/* The rows of buckets that differ, told apart by key: the source's are kept, the target's pass by.
 * Internal to verify/. */
#ifndef LOCKSTEP_VERIFY_DIFF_H
#define LOCKSTEP_VERIFY_DIFF_H

#include "verify/bucket.h"

/* What one pass keeps at most. */
#define DIFF_BUDGET ((size_t)16 * 1024 * 1024)

struct diff_out {
    void (*emit)(const char *line, void *ctx);
    void *ctx;
    uint64_t differences;
    bool back; /* the source's rows are those of the side that users call the target */
};
struct diff;

/* Rows of the buckets marked in `differs` whose key falls into pass number `pass` of `passes`. */
struct diff *diff_new(const struct table *t, const bool *differs, struct diff_out *out);
void diff_free(struct diff *d); /* takes NULL */
void diff_pass(struct diff *d, uint64_t pass, uint64_t passes);
/* All of the source's rows, then all of the target's, then the end of the pass. */
void diff_source(struct diff *d, const struct row *r);
void diff_target(struct diff *d, const struct row *r);
void diff_end(struct diff *d);
/* Into how many passes so many rows of the source must be cut. (pure) */
uint64_t diff_passes(const struct table *t, uint64_t rows);

/* "public.orders (id)=(42)"; without a key: all columns, cut short. One line, whatever is in it. */
void diff_print_key(struct buf *out, const struct table *t, const struct row *r);
/* "missing on target", or on the side that its place has on the way back. (pure) */
const char *diff_missing_there(bool back);

#endif
