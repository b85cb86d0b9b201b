/* The fence's server side, as SQL text. Private to fence*.c. */
#ifndef LOCKSTEP_ENGINES_MYSQL_FENCE_H
#define LOCKSTEP_ENGINES_MYSQL_FENCE_H

#include "core/buf.h"
#include "engines/mysql/my.h"

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

/* fence_check.c: the accounts, but ours and those with SUPER, that may write to a database, whether
 * it exists or not (its name as a literal), by a right on the server, on the database or on one of
 * its tables; in the arena, "" for none, NULL: we may not look. */
const char *my_fence_writers(struct my_db *db, const char *database, struct arena *a);

#endif
