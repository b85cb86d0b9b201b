/* The leases of the stages that this process runs. Internal to run/. */
#ifndef LOCKSTEP_RUN_LEASE_H
#define LOCKSTEP_RUN_LEASE_H

#include "control/facts.h"

#define LEASES_MAX 4

struct leases {
    const struct migration *m;
    size_t n;
    const char *names[LEASES_MAX];
    bool taken[LEASES_MAX];
    int64_t until;           /* mono_ms up to which all but the conductor's are surely ours */
    int64_t conductor_until; /* the same of the conductor's, which another process may have */
};

void leases_init(struct leases *l, const struct migration *m, unsigned stages);
/* Takes all, waiting for those of processes that vanished. ERR_REFUSED: a living process has one;
 * but the conductor's may be another's: renewing asks for it again each time. */
int leases_take(struct leases *l, struct db *target, struct err *e);
/* The same without waiting: 1 all are ours; 0 a living process has one, and none is kept; -1. */
int leases_try(struct leases *l, struct db *target, struct err *e);
/* ERR_FENCED: another process took one over. */
int leases_renew(struct leases *l, struct db *target, struct err *e);
void leases_release(struct leases *l, struct db *target);

#endif
