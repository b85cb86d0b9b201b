/* Private to engines/postgres: statements that stay prepared on their connection. */
#ifndef LOCKSTEP_ENGINES_POSTGRES_PREPARED_H
#define LOCKSTEP_ENGINES_POSTGRES_PREPARED_H

#include "engines/postgres/pg.h"

/* At most so many a connection; the one that was not used for longest goes. */
#define PG_PREPARED_MAX 64

bool pg_is_prepared(struct pg_db *db, const char *sql);
/* Prepares it, if it is not yet. */
int pg_prepare(struct pg_db *db, const char *sql, struct err *e);
/* Hands a prepared one to libpq, without flushing. */
int pg_send_prepared(struct pg_db *db, const char *sql, const struct pg_params *p, struct err *e);
/* The server does not take it as it was prepared: it is not any more. */
void pg_prepared_forget(struct pg_db *db, const char *sql);
/* It is prepared, or was among the last PG_PREPARED_MAX that this was asked about and takes
 * nobody's place. */
bool pg_may_prepare(struct pg_db *db, const char *sql);

#endif
