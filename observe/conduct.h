/* A switch that nobody conducts any more: begun, not at its end, and no living process has the
 * coordinator's lease. Internal to observe/. */
#ifndef LOCKSTEP_OBSERVE_CONDUCT_H
#define LOCKSTEP_OBSERVE_CONDUCT_H

#include "observe/observe.h"

/* A direction's row (NULL: none) stands between two states, or between `prepared` and `switched`.
 * (pure) */
bool conduct_under_way(const json_t *row);

/* Of one direction's row, as it was read at `version` from the side that this direction opens: NULL
 * if it is not under way, or somebody conducts it; else what is to be told, from the arena: how far
 * it came, what became of who conducted it, and which side takes writes. *next: what to type. -1
 * only if the side that opens cannot be read. */
int conduct_look(const struct observe_ends *ends, bool back, const json_t *row, int64_t version,
                 struct arena *a, const char **told, const char **next, struct err *e);

#endif
