/* Values on their way into and out of SQL: literals, array parameters, the COPY text format. Pure
 * text work, no libpq. Values are lockstep's (core/data.h): bytea travels raw between us and as
 * "\x…" on the server's side of these functions. */
#ifndef LOCKSTEP_ENGINES_POSTGRES_VALUES_H
#define LOCKSTEP_ENGINES_POSTGRES_VALUES_H

#include "core/data.h"

/* "\x…" of raw bytes. */
void pg_add_hex(struct buf *b, const char *data, size_t len);
/* 'text'::type, for a value that is set; NULL::type for NULL. */
void pg_add_literal(struct buf *b, const struct column *c, const struct value *v);

/* An array parameter of a column's values: its declared type ("integer[]"), and how one element of
 * it is read back as the column's type. Types that an array of them cannot carry (arrays, types
 * with another delimiter) travel as text[] and are cast by row. */
void pg_array_type(struct buf *b, const struct column *c);
void pg_array_item(struct buf *b, const struct column *c, const char *alias, size_t number);
/* The parameter's text: open, add each, close. An UNCHANGED value has no place here (a bug). */
void pg_array_open(struct buf *b);
void pg_array_add(struct buf *b, const struct column *c, const struct value *v);
void pg_array_close(struct buf *b);

/* One row in COPY text format, without generated columns, with its newline. `spill` is called
 * whenever b holds more than PG_COPY_SLICE bytes and empties it; NULL: everything stays in b. */
#define PG_COPY_SLICE ((size_t)64 * 1024)
struct pg_spill {
    int (*put)(void *arg, struct buf *b, struct err *e);
    void *arg;
};
int pg_copy_encode(struct buf *b, const struct table *t, const struct row *row,
                   const struct pg_spill *spill, struct err *e);
/* Decodes a COPY text line (len bytes, its newline included or not) in place: values point into
 * it. Generated columns, which are not in the line, become NULL. */
int pg_copy_decode(struct arena *a, const struct table *t, char *line, size_t len, struct row **out,
                   struct err *e);

/* The table's columns that are not generated, quoted, separated by ", ", each behind prefix. */
void pg_add_columns(struct buf *b, const struct table *t, const char *prefix);
bool pg_has_columns(const struct table *t);

#endif
