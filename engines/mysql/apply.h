/* Shared by apply_set.c, apply_row.c and apply_rows.c. */
#ifndef LOCKSTEP_ENGINES_MYSQL_APPLY_H
#define LOCKSTEP_ENGINES_MYSQL_APPLY_H

#include "engines/mysql/my.h"

/* May the server give this column a value in an UPDATE that does not name it? */
bool my_sets_itself(const struct column *c);
/* Appends the statement that a change becomes. *counts: it is a SELECT that counts the rows. */
int my_statement_of(struct buf *b, const struct change *c, bool *counts, struct err *e);
/* Runs one change; e->sqlstate and mysql_errno() tell of a refusal. */
int my_change_run(struct my_db *db, const struct change *c, uint64_t *affected, struct err *e);

#endif
