/* What the supervisor does beside the stages: caught up?, tell `status` how the
 * process fares, print progress. Internal to run/. */
#ifndef LOCKSTEP_RUN_HOUSE_H
#define LOCKSTEP_RUN_HOUSE_H

#include "observe/observe.h"
#include "run/stage.h"

#define HOUSE_SAMPLES 900

struct house {
    const struct migration *m;
    unsigned stages; /* what this process runs */
    bool progress;
    struct db *source; /* DB_CONTROL, or NULL */
    int64_t next_source;
    char source_trouble[200];

    /* caught up */
    bool marked; /* `until` is known: where the source stood when all lanes had settled */
    struct position until;
    bool reached;
    bool parked; /* a lane is */

    bool loaded; /* nothing is left to copy or to build, and no re-copy is asked for */

    /* lag; only the process that applies measures it */
    struct lag_sample samples[HOUSE_SAMPLES]; /* oldest first */
    size_t nsamples;
    int64_t lag_ms;

    /* rate of copying */
    uint64_t bytes;
    int64_t bytes_at;
    int64_t rate; /* bytes a second, UNKNOWN_COUNT */

    bool swept;
    int64_t next_status;
    int64_t next_line;
    char phase[20];
};

void house_init(struct house *h, const struct migration *m, unsigned stages, bool progress);
void house_release(struct house *h);
/* This process ends: what it told about itself goes. */
void house_farewell(struct house *h, struct db *target);
/* What ails the stages, by name: for the status fact. */
json_t *house_stages_json(struct stage *stages, size_t n);
/* Once a second. */
int house_tend(struct house *h, struct db *target, struct stage *stages, size_t n, struct err *e);
/* Asks the facts, at once, for what house_caught_up() tells. */
int house_hurry(struct house *h, struct db *target, struct err *e);
/* Apply has passed what the source had when every lane first followed. */
bool house_caught_up(const struct house *h, bool *parked);
int house_finish_asked(struct db *target, bool *out, struct err *e);

#endif
