/* Shared by apply_set.c and apply_row.c: statements that are prepared once a connection. */
#ifndef LOCKSTEP_ENGINES_POSTGRES_APPLY_H
#define LOCKSTEP_ENGINES_POSTGRES_APPLY_H

#include "engines/postgres/pg.h"

/* At most so many stay prepared a connection; the one that was not used for longest goes. */
#define PG_PREPARED_MAX 64

/* The array parameters of a set, kept for the next one. */
struct pg_apply {
    struct pg_prepared {
        char *sql;
        unsigned number; /* its name is "lockstep_<number>" */
        uint64_t used;
    } prepared[PG_PREPARED_MAX];
    size_t nprepared;
    uint64_t clock;
    unsigned next_number;
    struct buf sql;
    struct buf *arrays;
    size_t narrays;
    bool generic; /* plan_cache_mode is set */
};
struct pg_apply *pg_apply_state(struct pg_db *db);

/* Runs `sql` with the parameters; keep: prepares it and keeps that. NULL: error. */
PGresult *pg_apply_exec(struct pg_db *db, const char *sql, const struct pg_params *p, bool keep,
                        struct err *e);
/* Rows that the statement met: of its tag, or the count that a SELECT gave. */
uint64_t pg_apply_count(const PGresult *res);

#endif
