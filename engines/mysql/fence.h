/* The fence's server side, as SQL text. Private to fence*.c. */
#ifndef LOCKSTEP_ENGINES_MYSQL_FENCE_H
#define LOCKSTEP_ENGINES_MYSQL_FENCE_H

#include "core/buf.h"

/* One object each, made in this order; `make` has these words replaced:
 *   @NOW@      the server's clock in ms
 *   @KEEP@     GLOBAL, or PERSIST where the server has it
 *   @LOCKED@   is account (v_user, v_host) locked now? */
struct my_fence_object {
    const char *kind; /* TABLE, PROCEDURE, EVENT */
    const char *name;
    const char *make;
};
extern const struct my_fence_object my_fence_objects[];
extern const unsigned my_fence_object_count;

/* "app@%" at its last @ (without one any host) as two literals: 'app', '%'. */
void my_fence_account(const char *account, struct buf *out);

#endif
