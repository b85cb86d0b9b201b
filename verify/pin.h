/* The exact pair of snapshots (docs/requests.md). Source and target are those of the way that is
 * compared along: on the way back the source is the side that was the target. Internal to verify/.
 */
#ifndef LOCKSTEP_VERIFY_PIN_H
#define LOCKSTEP_VERIFY_PIN_H

#include "control/facts.h"

#include <stdatomic.h>

struct pair {
    struct db *control; /* target, DB_CONTROL */
    struct pin source;  /* holder, snapshot, position */
    char target_snapshot[80];
    struct db *target; /* has the target's snapshot, if the engine cannot export one; else NULL */
    char request[80];  /* its key while it stands, else "" */
    const atomic_bool *given_up; /* verify_request */
    struct arena arena;
};

int pair_take(struct pair *p, const struct migration *m, const atomic_bool *given_up,
              struct err *e);
/* Lets both go; takes an empty one. */
void pair_release(struct pair *p);

#endif
