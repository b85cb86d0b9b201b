/* TABLE_MAP events: what a table was made of when the rows behind it were logged. Pure. */
#ifndef LOCKSTEP_ENGINES_MYSQL_BINLOG_MAP_H
#define LOCKSTEP_ENGINES_MYSQL_BINLOG_MAP_H

#include "core/data.h"

#include <stdbool.h>
#include <stdint.h>

/* The server's own numbers (enum enum_field_types). */
enum binlog_type {
    BT_TINY = 1,
    BT_SHORT = 2,
    BT_LONG = 3,
    BT_FLOAT = 4,
    BT_DOUBLE = 5,
    BT_NULL = 6,
    BT_TIMESTAMP = 7, /* the old forms of times, without fractions */
    BT_LONGLONG = 8,
    BT_INT24 = 9,
    BT_DATE = 10,
    BT_TIME = 11,
    BT_DATETIME = 12,
    BT_YEAR = 13,
    BT_NEWDATE = 14,
    BT_VARCHAR = 15,
    BT_BIT = 16,
    BT_TIMESTAMP2 = 17,
    BT_DATETIME2 = 18,
    BT_TIME2 = 19,
    BT_BLOB_COMPRESSED = 140,
    BT_VARCHAR_COMPRESSED = 141,
    BT_VECTOR = 242,
    BT_JSON = 245,
    BT_NEWDECIMAL = 246,
    BT_ENUM = 247,
    BT_SET = 248,
    BT_BLOB = 252,
    BT_VAR_STRING = 253,
    BT_STRING = 254,
    BT_GEOMETRY = 255
};

enum binlog_charset { CHARSET_UNTOLD, CHARSET_BINARY, CHARSET_UTF8, CHARSET_FOREIGN };

struct binlog_label {
    const char *text;
    size_t len;
};

struct binlog_column {
    uint8_t type;     /* enum binlog_type; ENUM and SET out of STRING's metadata */
    uint16_t meta;    /* bytes of the value or of its length; digits of a second; bits */
    uint8_t digits;   /* NEWDECIMAL */
    uint8_t scale;    /* NEWDECIMAL */
    bool is_unsigned; /* numbers */
    uint32_t collation;
    const char *name; /* NULL: not told (binlog_row_metadata is not FULL) */
    size_t nlabels;   /* ENUM */
    struct binlog_label *labels;
};

struct binlog_map {
    const char *schema;
    const char *name;
    size_t n;
    struct binlog_column *columns;
};

/* The event behind its table id. Everything that stays is copied into the arena. */
int binlog_map_parse(struct arena *a, const uint8_t *data, size_t len, struct binlog_map *out,
                     struct err *e);
/* Only the names, for tables that nobody wants: borrowed from data, NUL-terminated. */
int binlog_map_names(const uint8_t *data, size_t len, const char **schema, const char **name,
                     struct err *e);
/* What a collation's number says of the bytes. */
enum binlog_charset binlog_charset_of(uint32_t collation);

#endif
