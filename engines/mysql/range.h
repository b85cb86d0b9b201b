/* Ranges of a table's rows in SQL. */
#ifndef LOCKSTEP_ENGINES_MYSQL_RANGE_H
#define LOCKSTEP_ENGINES_MYSQL_RANGE_H

#include "core/cut.h"
#include "engines/mysql/my.h"

/* " WHERE …", or nothing for all rows. Keys are compared by the server in the columns' own
 * collations; written out by column, because MariaDB finds no index for row values. */
int my_add_range(struct buf *b, const struct table *t, const struct range *range, struct err *e);
/* "a = … AND b = …". */
int my_add_key_equal(struct buf *b, const struct table *t, const struct row *key, struct err *e);
/* The key's columns, quoted, separated by ", ", each behind prefix. */
void my_add_key_columns(struct buf *b, const struct table *t, const char *prefix);
/* May bounds be laid through this table's key? An ENUM's order in an index is not that of its
 * labels, and floats have no text to be trusted with. */
bool my_key_divides(const struct table *t);

#endif
