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

/* A table that is compared. */
struct subject {
    const struct table *table; /* the source's, with its `there`; generated: at either side */
    const bool *canon;         /* columns compared by their meaning (verify/canon.h), or NULL */
};
struct subject_list {
    size_t n;
    struct subject *v;
};

/* Where a side's rows are read: by a name that each connection of ours imports, or on the one
 * connection that alone has the snapshot. */
struct scan_view {
    const char *snapshot; /* NULL: on db */
    struct db *db;        /* for one thread at a time; NULL: connections are opened as needed */
};

struct scan_end {
    struct scanner *scanner;
    enum scan_side side;
    struct scan_view view;
    pthread_t thread;
    bool started;
    struct bucket_set *ring; /* SCAN_AHEAD of them */
    size_t done;             /* tables read */
    struct err error;        /* class ERR_NONE: none */
};

struct scanner {
    const struct migration *m;
    const struct subject_list *subjects;
    struct scan_end ends[SCAN_SIDES];
    pthread_mutex_t lock;
    pthread_cond_t moved;
    size_t compared; /* tables that the caller is done with */
    atomic_bool stop;
};

int scanner_start(struct scanner *s, const struct migration *m, const struct subject_list *subjects,
                  const struct scan_view views[SCAN_SIDES], struct err *e);
/* Both sides of table number i, which must come in order; the caller is then done with it when it
 * asks for the next. */
int scanner_get(struct scanner *s, size_t i, const struct bucket_set *out[SCAN_SIDES],
                struct err *e);
/* Joins the threads. */
void scanner_stop(struct scanner *s);

struct scan_rows {
    bool (*row)(const struct row *r, void *ctx); /* false ends the reading */
    void *ctx;
};
/* Reads one side's table on one connection. */
int scan_table(struct db *db, const struct subject *s, enum scan_side side, const char *snapshot,
               const struct scan_rows *rows, struct err *e);
/* The connection to scan on: the view's own, or one that is opened; scan_close() it. */
int scan_open(const struct migration *m, enum scan_side side, const struct scan_view *view,
              struct db **out, struct err *e);
void scan_close(const struct scan_view *view, struct db *db); /* takes NULL */

#endif
