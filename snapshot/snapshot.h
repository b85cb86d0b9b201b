/* The snapshot stage: one conductor that walks the load through its phases, and workers that copy
 * chunks. Both are stepped: a step does one bounded thing and returns, so that a thread or the
 * simulation can drive them. Any of them may die between any two calls to a server; another, opened
 * afresh, goes on from the facts. */
#ifndef LOCKSTEP_SNAPSHOT_SNAPSHOT_H
#define LOCKSTEP_SNAPSHOT_SNAPSHOT_H

#include "control/migration.h"

/* What a step did. */
enum step_result { STEP_FAILED = -1, STEP_IDLE = 0, STEP_WORKED = 1, STEP_FINISHED = 2 };

struct conductor;

/* The caller holds the lease "conductor". Connects lazily; cannot fail. */
struct conductor *conductor_open(const struct migration *m);
/* One step: the next thing that the load phase asks for. STEP_IDLE: nothing to do now (waiting for
 * workers or apply). STEP_FINISHED: LOAD_DONE and no re-copy asked for. After STEP_FAILED with
 * ERR_RETRY the next step reconnects. */
enum step_result conductor_step(struct conductor *c, struct err *e);
void conductor_close(struct conductor *c);

struct worker;

struct worker *worker_open(const struct migration *m, int number);
/* One chunk (or nothing to do: STEP_IDLE). */
enum step_result worker_step(struct worker *w, struct err *e);
/* Bytes copied since opened; any thread may ask. */
uint64_t worker_bytes(const struct worker *w);
void worker_close(struct worker *w);

#endif
