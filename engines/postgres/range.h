/* Ranges of a table's rows in SQL. */
#ifndef LOCKSTEP_ENGINES_POSTGRES_RANGE_H
#define LOCKSTEP_ENGINES_POSTGRES_RANGE_H

#include "core/cut.h"

/* " WHERE …", or nothing for all rows. Keys are compared as row values by the server, in the
 * columns' own collations. */
void pg_add_range(struct buf *b, const struct table *t, const struct range *range);
/* "(a, b)" of the key columns, each behind prefix; one column stands without parentheses. */
void pg_add_key_columns(struct buf *b, const struct table *t, const char *prefix);
/* A key's values as literals, in the same form. */
void pg_add_key_literals(struct buf *b, const struct table *t, const struct row *key);

#endif
