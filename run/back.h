/* The stages of the way back, beside those of the road: they begin when a coordinator has made its
 * stream, and end when it is taken away. Internal to run/. */
#ifndef LOCKSTEP_RUN_BACK_H
#define LOCKSTEP_RUN_BACK_H

#include "run/lease.h"
#include "run/stage.h"

#define BACK_STAGES 3

struct back {
    struct arena arena;
    struct migration m; /* the mirror */
    unsigned wanted;    /* enum run_stages */
    struct stage_shared shared;
    struct stage stages[BACK_STAGES]; /* written with the lock, read by its writer without */
    size_t n;                         /* 0: they do not run; likewise */
    struct leases leases;
    struct db *facts; /* of the way back: on the original source */
    int64_t next_renew;
    int64_t next_look;
    int64_t next_status;
    int64_t next_connect;
    bool seen;  /* there was a way back when it was last looked for */
    bool hangs; /* stages were asked to end and have not: none is begun until they have */

    pthread_t thread; /* tends them: a source that hangs must not hold up what runs on the target */
    bool started;
    atomic_bool quit;
    pthread_mutex_t lock;  /* for what follows */
    struct err error;      /* a stage is over */
    struct err trouble;    /* what ails the tending itself */
    int64_t trouble_since; /* mono_ms; 0: nothing does */
};

/* b must outlive the process's threads. */
void back_init(struct back *b, const struct migration *m, unsigned stages);
int back_start(struct back *b, struct err *e);
/* From any thread; see stages_are_well(). */
bool back_is_well(struct back *b, char *why, size_t size);
/* -1: a stage is over, with its error. What ails the connection is tried again for ever. */
int back_check(struct back *b, struct err *e);
/* Asks all of it to end. */
void back_quit(struct back *b);
/* Waits for that until `deadline` (mono_ms). False: something hangs and is left behind. */
bool back_stop(struct back *b, int64_t deadline);

#endif
