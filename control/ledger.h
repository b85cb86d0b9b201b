/* The ledger of chunks: which range of which table is planned, claimed, or loaded under which cut.
 * A chunk's line becomes `done` in the same target transaction as its rows: each exactly once. */
#ifndef LOCKSTEP_CONTROL_LEDGER_H
#define LOCKSTEP_CONTROL_LEDGER_H

#include "control/facts.h"

enum chunk_state { CHUNK_PLANNED, CHUNK_CLAIMED, CHUNK_DONE };

struct chunk {
    const char *key;   /* of the fact: "public.orders/001-000012" (round, number), or
                          "public.orders/p…" for a point */
    const char *table; /* label */
    enum chunk_state state;
    struct range range;
    bool common;    /* planned for the common cut (block ranges need it) */
    struct cut cut; /* done */
    uint64_t rows;  /* done */
    uint64_t bytes; /* done: as they travelled */
    const char *holder;
    int64_t until_ms; /* claimed: by the target's clock */
    int64_t version;
};
struct chunk_list {
    size_t n;
    struct chunk *v; /* in key order, so in range order; points last */
};

/* The table's own line: planned when all its chunks are. */
struct table_fact {
    const char *label;
    uint64_t nchunks;
    uint64_t rows_estimate;
    uint64_t bytes_estimate;
    uint32_t round; /* raised by each plan and re-copy; part of the chunks' keys */
    bool key_built;
    uint64_t settled; /* a re-copy's cuts have all that lies before this record of the journal */
    int64_t version;
};
/* 1 found, 0, -1. */
int table_fact_load(struct db *db, const char *label, struct arena *a, struct table_fact *out,
                    struct err *e);
int table_fact_store(struct db *db, struct table_fact *t, struct err *e); /* compare and set */

/* Writes a table's chunks and its line, replacing what an earlier plan left. In a transaction. */
int ledger_plan(struct db *db, const struct table *t, const struct range_list *ranges, bool common,
                struct err *e);
/* All chunks of a table (label) or, with "", of the migration. */
int ledger_load(struct db *db, const char *label, struct arena *a, struct chunk_list *out,
                struct err *e);
/* Claims c for holder if it is planned, or claimed by a lease that has ended. 1, 0, -1; on 1 the
 * chunk's version is ours. */
int ledger_claim(struct db *db, struct chunk *c, const char *holder, int lease_ms, struct err *e);
/* Makes our claim last from now on; ERR_FENCED if it was taken over. */
int ledger_renew(struct db *db, struct chunk *c, int lease_ms, struct err *e);
/* Gives a claim back. */
int ledger_unclaim(struct db *db, struct chunk *c, struct err *e);
/* done, under `cut`; compare-and-set on the claim. In the transaction of the rows. ERR_FENCED: the
 * claim was taken over; the caller rolls back. */
int ledger_done(struct db *db, struct chunk *c, const struct cut *cut, struct err *e);
/* A one-key chunk (range RANGE_POINT), replacing an earlier one of the same key. In a transaction.
 */
int ledger_point(struct db *db, const struct table *t, const struct row *key, const struct cut *cut,
                 struct err *e);
/* Forgets a table's chunks. In a transaction. */
int ledger_reset(struct db *db, const char *label, struct err *e);

#endif
