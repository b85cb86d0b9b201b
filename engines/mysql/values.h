/* Values on their way into SQL, beyond what my.h offers to the whole driver. */
#ifndef LOCKSTEP_ENGINES_MYSQL_VALUES_H
#define LOCKSTEP_ENGINES_MYSQL_VALUES_H

#include "engines/mysql/my.h"

/* As my_value_read, but long values (text, bytes, JSON) are borrowed from `text`. */
int my_value_borrow(struct arena *a, const struct column *here, const char *text, unsigned long len,
                    struct value *out, struct err *e);
/* What the server printed for my_value_select(), as a literal for a column of the same type: the
 * native road, on which nothing is looked at. */
void my_value_relay(struct buf *out, const struct column *here, const char *text,
                    unsigned long len);
/* Is the declared type this one ("char", "binary", "timestamp")? Case does not matter. */
bool my_type_is(const struct column *c, const char *name);

/* The table's columns that are not generated, quoted, separated by ", ", each behind prefix. */
void my_add_columns(struct buf *b, const struct table *t, const char *prefix);
/* The same as my_value_select() expressions; "1" for a table without any. */
void my_add_selects(struct buf *b, const struct table *t);
/* The row that a SELECT of my_add_selects() gave. Generated columns are NULL. borrow: long values
 * point into the row. */
int my_row_read(struct arena *a, const struct table *t, MYSQL_ROW row, const unsigned long *lengths,
                bool borrow, struct row **out, struct err *e);
/* "(…, …)" of a full row's written columns, for table t of this server. */
int my_add_tuple(struct buf *b, const struct table *t, const struct row *row, struct err *e);

#endif
