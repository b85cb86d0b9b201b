/* Rows of values as a table of a statement: "(SELECT … UNION ALL VALUES …) AS lockstep_u". */
#ifndef LOCKSTEP_ENGINES_MYSQL_TUPLES_H
#define LOCKSTEP_ENGINES_MYSQL_TUPLES_H

#include "engines/mysql/my.h"

#define MY_TUPLES "lockstep_u"

/* Opens it with the named columns of `t` as c0, c1, …; the empty SELECT gives them the types and
 * collations of the table's. number: an integer column "o" stands in front. */
void my_tuples_open(struct buf *b, const struct table *t, const size_t *columns, size_t n,
                    bool number);
/* Before each tuple's first value; then the values separated by ", ", then my_tuple_close(). */
void my_tuple_open(struct buf *b, const struct my_db *db, bool first);
void my_tuple_close(struct buf *b);
void my_tuples_close(struct buf *b);

#endif
