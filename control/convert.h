/* From the source's tables to the target's: what each column becomes there and what of its values,
 * what cannot be carried, and the steps that make it all. Between two servers of an engine that
 * copies its own schemas nothing is converted. */
#ifndef LOCKSTEP_CONTROL_CONVERT_H
#define LOCKSTEP_CONTROL_CONVERT_H

#include "control/migration.h"
#include "engines/def.h"

struct conversion {
    bool needed;               /* false: the engine copies its own schemas (schema_steps) */
    struct schema_def def;     /* of the source, in the order of the tables */
    struct verdict **verdicts; /* by table, by column */
    /* What cannot be (fatal: a column that no type of the target holds), and what will be left
     * behind (warnings: an index that only the source's engine knows, …). */
    struct findings findings;
};

/* Asks the source what the tables are made of, and gives each its `there`. Changes nothing on any
 * server. What is unfit becomes a finding; -1 only if the source could not be asked. */
int convert_plan(const struct migration *m, struct db *source, const struct table_list *tables,
                 struct arena *a, struct conversion *out, struct err *e);
/* Lowers the verdicts, and adds to the findings, by what these two servers of one engine have not
 * in common. */
void convert_pair(struct conversion *c, struct db *source, struct db *target, struct arena *a);
/* Reads the source's rows for values that do not meet the conditions, as far as its engine can;
 * adds to the findings. */
int convert_values(struct conversion *c, struct db *source, struct arena *a, struct err *e);
/* ERR_REFUSED with the first fatal finding, if there is one. */
int convert_refuse(const struct conversion *c, struct err *e);
/* The tables as they will stand on the target; the given ones where nothing is converted. */
void convert_there(const struct table_list *tables, struct arena *a, struct table_list *out);
/* The steps that make on the target what it lacks: tables, indexes and foreign keys that are there
 * already are left out. */
int convert_steps(const struct migration *m, struct conversion *c, struct db *target,
                  struct arena *a, struct schema_steps *out, struct err *e);

#endif
