/* Replication slots: what the server says about ours, and making one with its snapshot. */
#ifndef LOCKSTEP_ENGINES_POSTGRES_SLOT_H
#define LOCKSTEP_ENGINES_POSTGRES_SLOT_H

#include "engines/postgres/pg.h"

/* The migration's slot, and the server's own place, in one look. */
struct pg_slot_state {
    bool standby;
    bool exists;
    bool ours; /* pgoutput, logical, this database */
    bool lost;
    bool active;
    int pid;            /* of its walsender, if active */
    uint64_t confirmed; /* LSN */
    uint64_t insert;    /* LSN: the log's end (0 on a standby) */
    uint64_t next_xid;  /* 64 bits */
};
int pg_slot_look(struct pg_db *db, struct pg_slot_state *out, struct err *e);

/* A new slot and the snapshot at its starting point, held by a connection of its own. */
struct pg_slot_made {
    uint64_t lsn;         /* the snapshot has exactly every transaction with commit < lsn */
    const char *snapshot; /* re-exported by holder */
    struct db *holder;
};
/* temporary: the slot is gone when this returns, only its snapshot stays. */
int pg_slot_make(const struct db_options *o, const char *name, bool temporary, struct arena *a,
                 struct pg_slot_made *out, struct err *e);

#endif
