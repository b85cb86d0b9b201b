/* Natural Avro values: a server's text as a number, and back. Pure functions.
 *
 * A value takes its column's natural branch only if natural_print(natural_parse(text)) is text,
 * byte for byte; natural_parse() makes that very check, so nothing can be lost here: a text that we
 * do not understand travels as the string it is. Values that Avro could hold but common readers
 * cannot (years outside 0001..9999, the time 24:00:00) count as not natural.
 */
#ifndef LOCKSTEP_SCHEMAS_AVRO_NATURAL_H
#define LOCKSTEP_SCHEMAS_AVRO_NATURAL_H

#include "core/data.h"

/* The Avro type of the branch between null and string; NONE: the string is the natural type. */
enum natural_type {
    NATURAL_NONE,
    NATURAL_BOOLEAN,
    NATURAL_INT,
    NATURAL_LONG,
    NATURAL_FLOAT,
    NATURAL_DOUBLE,
    NATURAL_BYTES,  /* TYPE_BYTES: raw, needs no conversion */
    NATURAL_DECIMAL /* bytes: the unscaled number, big-endian two's complement */
};

/* PostgreSQL declares at most numeric(1000); a larger precision is not natural. */
#define NATURAL_PRECISION_MAX 1000
#define NATURAL_DECIMAL_MAX 448 /* bytes; 1000 digits need 416 */
#define NATURAL_TEXT_MAX 1152   /* the longest text that natural_print() writes, with its NUL */

struct natural {
    int64_t i; /* boolean, int, long */
    double d;  /* float, double */
    size_t len;
    uint8_t bytes[NATURAL_DECIMAL_MAX]; /* decimal */
};

enum natural_type natural_type_of(const struct column *c);
/* False: not natural, use the string branch. Never called for NONE and BYTES. */
bool natural_parse(const struct column *c, const char *text, size_t len, struct natural *out);
/* Writes the text and a NUL; returns its length, or 0 if this is no value of the column's type
 * (then natural_parse() never made it). */
size_t natural_print(const struct column *c, const struct natural *n, char out[NATURAL_TEXT_MAX]);

#endif
