/* Schema texts of the journal's records: written here from a struct table, and read back into one.
 * Inside schemas/avro only; the contract for others is codec.h, the format docs/journal.md. */
#ifndef LOCKSTEP_SCHEMAS_AVRO_SCHEMA_H
#define LOCKSTEP_SCHEMAS_AVRO_SCHEMA_H

#include "core/data.h"

/* What a field holds. */
enum field_type {
    FIELD_STRING,
    FIELD_LONG,
    FIELD_MICROS, /* long, timestamp-micros */
    FIELD_STRING_OR_NULL,
    FIELD_LONG_OR_NULL,
    FIELD_BOOLEAN_OR_NULL,
    FIELD_NAMES,  /* array of string */
    FIELD_ROW,    /* union null, Value: the first of a record defines Value */
    FIELD_SOURCE, /* nested records, named after the table so that a union may hold many */
    FIELD_TRANSACTION,
    FIELD_VERSION
};

struct field {
    const char *name;
    enum field_type type;
};

enum {
    CHANGE_OP,
    CHANGE_BEFORE,
    CHANGE_AFTER,
    CHANGE_SOURCE,
    CHANGE_TRANSACTION,
    CHANGE_TS_US,
    CHANGE_VERSION,
    CHANGE_UNCHANGED,
    CHANGE_UNCHANGED_BEFORE,
    CHANGE_GROUP,
    CHANGE_RESTART_IDENTITY,
    CHANGE_FIELDS
};
enum {
    SOURCE_ENGINE,
    SOURCE_DB,
    SOURCE_SCHEMA,
    SOURCE_TABLE,
    SOURCE_XID,
    SOURCE_COMMIT,
    SOURCE_TS_US,
    SOURCE_FIELDS
};
enum { TRANSACTION_ID, TRANSACTION_TOTAL_ORDER, TRANSACTION_FIELDS };
enum { VERSION_EPOCH, VERSION_COMMIT, VERSION_ORDINAL, VERSION_FIELDS };
enum {
    TXN_STATUS,
    TXN_ID,
    TXN_EPOCH,
    TXN_XID,
    TXN_COMMIT,
    TXN_NEXT,
    TXN_TS_US,
    TXN_CHANGES,
    TXN_FIELDS
};
enum {
    POSITION_KIND,
    POSITION_NEXT,
    POSITION_TOKEN,
    POSITION_TABLE,
    POSITION_REASON,
    POSITION_FIELDS
};

/* The three kinds of record that travel. */
enum layout { LAYOUT_TRANSACTION, LAYOUT_POSITION, LAYOUT_CHANGE };

/* A record's full name and schema text, malloc'd. */
struct schema_text {
    char *name;
    char *text;
};
/* table: for LAYOUT_CHANGE, else NULL. Deterministic. */
int schema_write(enum layout layout, const char *migration, const struct table *t,
                 struct schema_text *out, struct err *e);

/* Reads a text that schema_write() made, or one that is equal as JSON: *layout, and for a change
 * *table in the arena. ERR_FATAL if it is anything else: what is accepted is written again from
 * what was read and compared, so the decoder may go by a field's number. */
int schema_read(const char *text, struct arena *a, enum layout *layout, struct table **table,
                struct err *e);

#endif
