/* The capture stage: source log → records → journal; acknowledges behind the journal's fsync. */
#ifndef LOCKSTEP_CAPTURE_CAPTURE_H
#define LOCKSTEP_CAPTURE_CAPTURE_H

#include "control/migration.h"

struct capture;

struct capture *capture_open(const struct migration *m);
/* Handles what has come within timeout_ms (many events a call, at most 1 MiB of records, then a
 * flush). 1 worked, 0 idle, -1. After ERR_RETRY the next step starts again from the journal. Idle
 * (0) also while the stream does not exist yet. */
int capture_step(struct capture *c, int timeout_ms, struct err *e);
/* The frontier that is durable in the journal; any thread may ask. */
struct position capture_frontier(const struct capture *c);
void capture_close(struct capture *c);

#endif
