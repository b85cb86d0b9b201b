/* What was planned: the tables' shapes and the schema's steps. Stages work by these, never by
 * today's catalog of the source (which may have moved on). */
#ifndef LOCKSTEP_CONTROL_PLAN_H
#define LOCKSTEP_CONTROL_PLAN_H

#include "control/facts.h"

/* ---- shapes ---- */

/* Writes the shapes of all chosen tables, replacing earlier ones. In a transaction. */
int shapes_store(struct db *db, const struct table_list *tables, struct err *e);
int shape_store(struct db *db, const struct table *t, struct err *e);
/* Sorted by label. n is 0 before anything was planned. */
int shapes_load(struct db *db, struct arena *a, struct table_list *out, struct err *e);
/* The tables that they are on the target, in the same order. */
void tables_there(const struct table_list *tables, struct arena *a, struct table_list *out);
/* What selects them on the target: `s` itself if none has another name or shape there. */
void selection_there(const struct selection *s, const struct table_list *tables, struct arena *a,
                     struct selection *out);
/* NULL if it is not among them. */
struct table *table_list_find(const struct table_list *l, const char *label);

/* ---- schema steps ---- */

enum step_state { STEP_PLANNED, STEP_READY, STEP_RUNNING, STEP_DONE };
struct step {
    struct schema_step s;
    const char *key; /* of the fact */
    enum step_state state;
    bool repeated;      /* an earlier attempt may have left something: undo first */
    const char *runner; /* running: a name that only this attempt has */
    int64_t version;
};
struct step_list {
    size_t n;
    struct step *v; /* those that are not done, by phase, then order */
    size_t done;
};

/* Writes all steps as planned, replacing earlier ones. In a transaction. */
int steps_store(struct db *db, const struct schema_steps *steps, struct err *e);
int steps_load(struct db *db, struct arena *a, struct step_list *out, struct err *e);
/* Compare and set of the state; ERR_FENCED if somebody else moved it. */
int step_move(struct db *db, struct step *step, enum step_state to, struct err *e);

#endif
