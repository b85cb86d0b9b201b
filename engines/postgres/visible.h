/* What a PostgreSQL snapshot sees: the heart of "is this change in that chunk?" (design.md §2).
 * Needs no server and no libpq, so that the simulation links the very same code. */
#ifndef LOCKSTEP_ENGINES_POSTGRES_VISIBLE_H
#define LOCKSTEP_ENGINES_POSTGRES_VISIBLE_H

#include "core/cut.h"

/* Cuts in the form of pg_current_snapshot(): "xmin:xmax:xip,xip,…", 64-bit transaction ids. Gives
 * exactly what pg_visible_in_snapshot() gives. parse: ERR_FATAL for any other text. */
extern const struct cut_ops pg_cut_ops;

/* A 32-bit transaction id from the log, widened: the one within 2^31 of ref. */
uint64_t pg_widen_xid(uint64_t ref, uint32_t xid);

#endif
