/* What the stream asks the catalog about the transaction at hand (`xid`, widened).
 *
 * The log is ahead of what others see: a transaction can be read from it before any snapshot has
 * it, so what the catalog does not show only counts once it shows that transaction. */
#ifndef LOCKSTEP_ENGINES_POSTGRES_STREAM_ASK_H
#define LOCKSTEP_ENGINES_POSTGRES_STREAM_ASK_H

#include "engines/postgres/pg.h"
#include "engines/postgres/pgoutput.h"

/* names[r->n], in a: the types of a relation's columns as format_type() writes them. */
int ask_type_names(struct pg_db *db, const struct pgo_relation *r, struct arena *a,
                   const char **names, struct err *e);

/* *reason, in a: why a table's rows are not those that were planned, though its RELATION is; NULL:
 * they are. The log tells of no row that ALTER TABLE has rewritten, and a RELATION behind it can be
 * the same as before: only the catalog knows. It is read as it is now, so it may tell of an ALTER
 * that the stream has yet to come to; the table would park there anyway. *final: it shows xid, so
 * it cannot be that it has yet to show what this very transaction did. */
int ask_rewritten(struct pg_db *db, uint64_t xid, const struct table *planned, struct arena *a,
                  const char **reason, bool *final, struct err *e);

/* *out, in a: the root of the partition `id`; NULL: it is none. Waits until the catalog has it or
 * shows xid; ERR_RETRY when it does not within ten seconds. */
int ask_root(struct pg_db *db, uint64_t xid, uint32_t id, struct arena *a, const char **out,
             struct err *e);

#endif
