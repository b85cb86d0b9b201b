/* What the checks share: appending findings, and the questions that are one query each. */
#ifndef LOCKSTEP_ENGINES_POSTGRES_CHECK_H
#define LOCKSTEP_ENGINES_POSTGRES_CHECK_H

#include "engines/postgres/pg.h"

struct check {
    struct pg_db *db;
    const struct check_request *request;
    struct arena *arena;
    struct findings found;
    size_t cap;
};

void check_found(struct check *c, bool fatal, const char *object, const char *what,
                 const char *remedy);

/* One question: a query whose rows are findings (fatal, object, what, remedy). It may use
 * p(slot text, tables oid[]), a relation of one row. */
struct check_query {
    bool only_new; /* asked only while the migration has not started */
    const char *sql;
};
extern const struct check_query check_source_queries[];
extern const size_t check_source_nqueries;
extern const struct check_query check_target_queries[];
extern const size_t check_target_nqueries;

/* check_carried.c: what stands beside the chosen tables (oids: '{…}') and does not come along; and,
 * on a target, whether anybody may write to them. Warnings. */
int check_beside(struct check *c, const struct table_list *tables, const char *oids, struct err *e);
int check_writers(struct check *c, struct err *e);

#endif
