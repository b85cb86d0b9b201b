/* Private to engines/postgres: the SQL text of the fence (fence_sql.c), for fence.c. */
#ifndef LOCKSTEP_ENGINES_POSTGRES_FENCE_H
#define LOCKSTEP_ENGINES_POSTGRES_FENCE_H

/* Idempotent scripts, to be run in this order in one transaction; NULL ends the list. The schema
 * "lockstep" must exist. */
extern const char *const pg_fence_create[];
/* One value: a digest of all that those scripts make, and would make again. Fails with 42P01 or
 * 42883, or has no row, where they have not been run. */
extern const char pg_fence_digest[];
/* Drops what pg_fence_create made, once no table carries a trigger any more. */
extern const char pg_fence_drop[];

#endif
