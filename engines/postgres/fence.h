/* Private to engines/postgres: the SQL text of the fence (fence_sql.c), for fence.c. */
#ifndef LOCKSTEP_ENGINES_POSTGRES_FENCE_H
#define LOCKSTEP_ENGINES_POSTGRES_FENCE_H

/* Idempotent scripts, to be run in this order in one transaction; NULL ends the list. The schema
 * "lockstep" must exist. */
extern const char *const pg_fence_create[];
/* Drops what pg_fence_create made, once no table carries a trigger any more. */
extern const char pg_fence_drop[];

#endif
