/* Values of row events, as the bytes of the log are, in the text of their column's kind. Pure. */
#ifndef LOCKSTEP_ENGINES_MYSQL_BINLOG_VALUE_H
#define LOCKSTEP_ENGINES_MYSQL_BINLOG_VALUE_H

#include "engines/mysql/binlog_map.h"

#include "core/buf.h"

/* Why values of the log's column cannot be values of the plan's, or NULL: they can. */
const char *binlog_value_unfit(struct arena *a, const struct binlog_column *c,
                               const struct column *plan);
/* Takes one value. Text lies in the reader's bytes or in the arena. A value that the kind does not
 * have (a zero date, 2 in a boolean): *unfit says what it is, and the reader stands behind it all
 * the same. A truncated one: r->bad. */
void binlog_value_take(struct arena *a, const struct binlog_column *c, const struct column *plan,
                       struct reader *r, struct value *out, const char **unfit);
void binlog_value_skip(const struct binlog_column *c, struct reader *r);

/* MySQL's binary JSON as the server prints it; NULL: not that format. binlog_json.c */
const char *binlog_json_text(struct arena *a, const uint8_t *data, size_t len, size_t *out_len);
/* The shortest text that reads back as the same bits, in PostgreSQL's form ("1e+20", "-0"). */
size_t binlog_float_text(double d, bool single, char out[40]);
/* A packed decimal of that size behind `bytes`, with all its digits behind the point. */
size_t binlog_decimal_text(const uint8_t *bytes, unsigned digits, unsigned scale, char out[100]);
/* Bytes of one; 0: no such decimal. */
size_t binlog_decimal_size(unsigned digits, unsigned scale);

#endif
