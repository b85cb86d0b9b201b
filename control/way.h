/* The way back, as facts on its target (the original source): what its capture and apply go by.
 * Nothing is loaded on it: both servers hold the same rows at its begin, the side that it begins on
 * is sealed then, and each change behind that is carried. */
#ifndef LOCKSTEP_CONTROL_WAY_H
#define LOCKSTEP_CONTROL_WAY_H

#include "control/plan.h"

/* The tables of the way back: what `db` (its source) has today of the targets of `forward`, with
 * the columns in the order and of the kinds of the forward plan, and `there` the forward plan's
 * table. ERR_REFUSED: a table has another key or other columns than its counterpart. */
int way_shapes(struct db *db, const struct table_list *forward, struct arena *a,
               struct table_list *out, struct err *e);
/* Writes all of its facts: shapes, lanes that follow from origin->start, the stream. In a
 * transaction. ERR_FENCED: another coordinator is at it. */
int way_store(struct db *db, const struct table_list *tables, const struct stream_fact *seen,
              const struct stream_origin *origin, struct err *e);
/* Removes them. In a transaction; idempotent. */
int way_forget(struct db *db, struct err *e);

#endif
