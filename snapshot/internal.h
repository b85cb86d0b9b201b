/* What the files of the snapshot stage share. */
#ifndef LOCKSTEP_SNAPSHOT_INTERNAL_H
#define LOCKSTEP_SNAPSHOT_INTERNAL_H

#include "control/ledger.h"
#include "control/plan.h"
#include "snapshot/snapshot.h"

struct conductor {
    const struct migration *m;
    struct db *target;
    struct db *source;
    struct db *schema;    /* DB_SCHEMA, while a step runs */
    struct db *holder;    /* of the common snapshot; NULL: gone, or not needed any more */
    bool marked;          /* the stream has been told to pass the highest cut */
    bool settled;         /* leftovers of dead processes have been looked for */
    int64_t turn;         /* 0: not taken */
    struct position past; /* behind every cut that was seen; later ones lie higher */
};

/* Begins a transaction on the target that a conductor who woke up late cannot commit. */
int conductor_begin(struct conductor *c, struct err *e);

/* ---- steps.c: schema steps ---- */

/* Plans the steps, unless they are. */
int steps_plan(struct conductor *c, const struct stream_fact *stream,
               const struct table_list *tables, struct err *e);
/* A step that a dead process left running may be run again. */
int steps_recover(struct conductor *c, struct err *e);
/* What is there to be done in one phase: makes steps ready whose time has come. Returns 1 if all of
 * the phase is done, 0 if not, -1. `loaded`: the tables whose rows are all there, or NULL: all. */
int steps_advance(struct conductor *c, enum schema_phase phase, const struct table_list *tables,
                  const bool *loaded, struct err *e);
/* Runs one ready step; *schema is opened when needed. 1 ran, 0 none is ready, -1. `pausing`: only
 * steps that need apply to stand still (the conductor's); else only the others. */
int steps_run_one(const struct migration *m, struct db *control, struct db **schema, bool pausing,
                  struct err *e);

/* ---- load.c: planning tables, the common cut ---- */

/* Plans a table's chunks; under the common cut if the holder lives. Empties the target first if
 * `again`. */
int load_plan(struct conductor *c, const struct table *t, bool again, struct err *e);
/* The common snapshot is gone: what depended on it is planned anew. */
int load_without_common(struct conductor *c, const struct table_list *tables, struct err *e);
/* Obeys "replan/<table>" of workers: the table was rewritten under the common cut. 1 did, 0, -1. */
int load_replans(struct conductor *c, const struct table_list *tables, struct err *e);
/* Which tables have all their chunks. */
int load_progress(struct conductor *c, const struct table_list *tables, struct arena *a,
                  bool **loaded, size_t *nloaded, struct err *e);
/* *past: behind every cut. */
int load_past(struct conductor *c, struct arena *a, struct position *past, struct err *e);
/* Tables that were taken off the stream to be copied again. 1 planned one, 0 none, -1. Asked ten
 * times a second for as long as the migration lives: without such a table it reads the lanes only.
 */
int load_recopies(struct conductor *c, struct err *e);

#endif
