/* What the files of `check` share. */
#ifndef LOCKSTEP_ENGINES_MYSQL_CHECK_H
#define LOCKSTEP_ENGINES_MYSQL_CHECK_H

#include "engines/def.h"
#include "engines/mysql/rights.h"

struct my_checking {
    struct my_db *db;
    const struct check_request *request;
    const char *side; /* "source" or "target" */
    struct arena *arena;
    struct my_rights rights;
    struct table_list tables; /* the chosen ones, as they are called here */
    struct findings *found;
};

void my_check_found(struct my_checking *c, bool fatal, const char *object, const char *what,
                    const char *remedy);
/* `a`.`b`, in the arena. */
const char *my_check_name(struct my_checking *c, const char *schema, const char *name);
/* The first value of a query, in the arena: "" for NULL or no row; NULL: error. */
const char *my_check_text(struct my_checking *c, const char *sql, struct err *e);
/* " IN ('a', 'b')" of the databases of the chosen tables and '', in the arena. */
const char *my_check_schemas(struct my_checking *c);

/* check.c: names that the server, or its binlog, writes otherwise than the catalog does. mode: its
 * lower_case_table_names, NULL: asked here. */
int my_check_letter_case(struct my_checking *c, const char *mode, struct err *e);

/* check_server.c: settings and rights, of either side. */
int my_check_server(struct my_checking *c, struct err *e);
void my_check_rights(struct my_checking *c);
/* check_carried.c: what stands beside the chosen tables and does not come along; and, on a target,
 * whether anybody may write to them. Warnings. */
int my_check_beside(struct my_checking *c, struct err *e);
int my_check_writers(struct my_checking *c, struct err *e);
/* check_target.c */
int my_check_target(struct my_checking *c, struct err *e);

#endif
