/* The apply stage: journal → target, strictly in source order, exactly once (design.md §5). */
#ifndef LOCKSTEP_APPLY_APPLY_H
#define LOCKSTEP_APPLY_APPLY_H

#include "control/facts.h"

struct apply;

struct apply *apply_open(const struct migration *m);
/* Reads and applies at most one batch. 1 worked, 0 idle (nothing new within timeout_ms, or the
 * load is not ready), -1. After ERR_RETRY, ERR_UNKNOWN the next step reconnects and asks the target
 * where it stands. ERR_FENCED: another apply took over; this one must not be stepped again. */
int apply_step(struct apply *a, int timeout_ms, struct err *e);
/* Where it stands, for status and tests. */
void apply_stand(const struct apply *a, struct checkpoint *out);
void apply_close(struct apply *a);

#endif
