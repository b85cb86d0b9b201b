/* Verify: both databases as of one moment of the side that the applications write on, row by row
 * (design.md §7). That side is the migration's source: behind a cutover verify is given the mirror
 * (migration_mirror) and goes along the way back, whose apply obeys the same requests.
 *
 * The pair of snapshots is exact: apply stands still, the source is pinned at a position that lies
 * ahead of it, apply goes on to exactly that position and pins the target there. Writers on the
 * source are never held. Both sides are then read once, each by one thread, into buckets of hashes;
 * only rows of buckets that differ are read again and told by key. */
#ifndef LOCKSTEP_VERIFY_VERIFY_H
#define LOCKSTEP_VERIFY_VERIFY_H

#include "control/migration.h"

#include <stdatomic.h>

struct verify_request {
    const struct migration *m; /* the way that changes travel now */
    /* One line for each difference: "public.orders (id)=(42): differs: note, total". */
    void (*emit)(const char *line, void *ctx);
    void *ctx;
    const atomic_bool *given_up; /* may be NULL; set: the stages have ended, waiting is in vain */
    /* Asked once both snapshots are there, before they are compared: has the way been this one all
     * the while? Had a switch come in between, the target's may hold what applications wrote. -1
     * with *e ends it. */
    int (*still)(void *ctx, struct err *e);
    void *still_ctx;
};

struct verify_report {
    uint64_t differences;
    uint64_t tables;       /* compared */
    uint64_t not_compared; /* tables whose lane does not follow */
    uint64_t rows;         /* of the source */
    char position[80];     /* of the source, in its own text */
    int64_t took_ms;
};

/* Capture and apply run, here or in another process. -1: could not compare. */
int verify_run(const struct verify_request *r, struct verify_report *out, struct err *e);

#endif
