/* The first reading: each side by a thread of its own, table after table, into buckets. Internal to
 * verify/. */
#ifndef LOCKSTEP_VERIFY_SCAN_H
#define LOCKSTEP_VERIFY_SCAN_H

#include "verify/bucket.h"

#include "control/migration.h"

#include <pthread.h>
#include <stdatomic.h>

/* How many tables one side may be ahead of what was compared. */
#define SCAN_AHEAD 8

enum scan_side { SCAN_SOURCE, SCAN_TARGET, SCAN_SIDES };

struct scan_end {
    struct scanner *scanner;
    enum scan_side side;
    const char *snapshot;
    pthread_t thread;
    bool started;
    struct bucket_set *ring; /* SCAN_AHEAD of them */
    size_t done;             /* tables read */
    struct err error;        /* class ERR_NONE: none */
};

struct scanner {
    const struct migration *m;
    const struct table_list *tables;
    struct scan_end ends[SCAN_SIDES];
    pthread_mutex_t lock;
    pthread_cond_t moved;
    size_t compared; /* tables that the caller is done with */
    atomic_bool stop;
};

int scanner_start(struct scanner *s, const struct migration *m, const struct table_list *tables,
                  const char *const snapshots[SCAN_SIDES], struct err *e);
/* Both sides of table number i, which must come in order; the caller is then done with it when it
 * asks for the next. */
int scanner_get(struct scanner *s, size_t i, const struct bucket_set *out[SCAN_SIDES],
                struct err *e);
/* Joins the threads. */
void scanner_stop(struct scanner *s);

/* Reads one table on one connection; `row` is called with each, and ends the reading by false. */
int scan_table(struct db *db, const struct table *t, const char *snapshot,
               bool (*row)(const struct row *r, void *ctx), void *ctx, struct err *e);

#endif
