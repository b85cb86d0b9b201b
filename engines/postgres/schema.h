/* The schema plan: which steps make the chosen tables, and what they need, on the target.
 *
 * PRE and POST are pg_dump's own texts, chosen entry by entry (schema_toc.c) by the closure of the
 * source's dependencies; keys, indexes, constraints and foreign keys are steps of our own
 * (schema_index.c), because they come at their own times and some of them online. */
#ifndef LOCKSTEP_ENGINES_POSTGRES_SCHEMA_H
#define LOCKSTEP_ENGINES_POSTGRES_SCHEMA_H

#include "engines/postgres/pg.h"

/* An object by its catalog and oid, as both pg_depend and pg_dump name it. */
struct schema_object {
    uint32_t classid;
    uint32_t objid;
};

#define CLASS_PG_CLASS 1259u
#define CLASS_PG_CONSTRAINT 2606u
#define CLASS_PG_EXTENSION 3079u

struct schema_objects {
    size_t n;
    size_t cap;
    struct schema_object *v;
};

struct schema_plan {
    const struct schema_request *request;
    struct pg_db *source;
    struct pg_db *target; /* or NULL: empty */
    struct arena *arena;
    struct schema_steps *out;
    size_t cap;
    const char *tables_oids;    /* '{…}': the chosen tables */
    const char *schemas_oids;   /* '{…}': schemas that are included whole */
    bool everything;            /* no include list */
    struct schema_objects ours; /* constraints and indexes that have steps of their own */
    struct schema_objects wanted;
};

void schema_step_add(struct schema_plan *p, struct schema_step step);
void schema_object_add(struct schema_plan *p, struct schema_objects *set, uint32_t classid,
                       uint32_t objid);
bool schema_object_in(const struct schema_objects *set, uint32_t classid, uint32_t objid);
/* Sorts the set, after the last add: before the first look-up. */
void schema_objects_seal(struct schema_objects *set);
/* Does a valid index / a constraint of that name exist on the target? 1, 0, -1. */
int schema_target_index(struct schema_plan *p, const char *schema, const char *name, struct err *e);
int schema_target_constraint(struct schema_plan *p, const char *schema, const char *table,
                             const char *name, struct err *e);

/* Fills p->wanted with what comes along with request->tables and its selection. */
int schema_carried(struct schema_plan *p, struct err *e);
/* schema_closure.c: fills p->wanted. */
int schema_closure(struct schema_plan *p, struct err *e);
/* schema_index.c: KEY, INDEX, UNIQUE. Fills p->ours. */
int schema_indexes(struct schema_plan *p, struct err *e);
/* schema_foreign.c: FOREIGN, ANALYZE. Fills p->ours. */
int schema_foreign(struct schema_plan *p, struct err *e);
int schema_analyze(struct schema_plan *p, struct err *e);
/* schema_toc.c: PRE, POST. */
int schema_dump(struct schema_plan *p, struct err *e);

#endif
