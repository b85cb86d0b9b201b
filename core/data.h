/* What travels: values, rows, tables, changes, transactions, positions, versions. Engine-neutral.
 */
#ifndef LOCKSTEP_CORE_DATA_H
#define LOCKSTEP_CORE_DATA_H

#include "core/arena.h"
#include "core/buf.h"
#include "core/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- values ---- */

/* UNCHANGED: the log does not carry this column (unchanged TOAST, partial image). Never NULL. */
enum value_state { VALUE_NULL, VALUE_SET, VALUE_UNCHANGED };

/* data is the canonical text of the value as the source server prints it under lockstep's session
 * settings (UTC, ISO dates, shortest round-trip floats), in UTF-8; for TYPE_BYTES it is the raw
 * bytes. It is not NUL-terminated by contract. Borrowed from an arena or a stream's buffer. */
struct value {
    enum value_state state;
    size_t len;
    const char *data;
};

struct row {
    size_t n; /* equals the table's ncolumns (or nkey, for a key) */
    struct value *v;
};

struct row *row_new(struct arena *a, size_t n); /* all VALUE_NULL */
struct row *row_copy(struct arena *a, const struct row *r);
bool value_equal(const struct value *a, const struct value *b);
bool row_equal(const struct row *a, const struct row *b);
size_t row_bytes(const struct row *r);
bool row_complete(const struct row *r); /* no VALUE_UNCHANGED in it */
/* "(42, abc)" for messages; at most max bytes of each value. */
void row_print(struct buf *out, const struct row *r, size_t max_value);

/* ---- tables ---- */

enum type_kind {
    TYPE_BOOL, /* t | f */
    TYPE_INT16,
    TYPE_INT32,
    TYPE_INT64,
    TYPE_FLOAT32,
    TYPE_FLOAT64,
    TYPE_DECIMAL, /* precision 0: unconstrained */
    TYPE_TEXT,
    TYPE_BYTES,
    TYPE_DATE,
    TYPE_TIME,
    TYPE_TIMESTAMP,
    TYPE_TIMESTAMPTZ, /* text in UTC, "+00" */
    TYPE_UUID,
    TYPE_JSON,
    TYPE_ENUM,
    TYPE_OTHER, /* opaque text of the server */
    TYPE_COUNT
};
const char *type_kind_name(enum type_kind kind);
/* -1 if unknown. */
int type_kind_parse(const char *name);

/* How keys of this column are ordered, as far as anybody but the source server may know it. */
enum key_order { KEY_ORDER_SERVER, KEY_ORDER_INT, KEY_ORDER_BYTES };

struct column {
    char *name;
    char *source_type; /* as the source declares it: "numeric(12,2)" */
    char *cast_type;   /* a type name without typmod that literals may be cast to: "numeric" */
    enum type_kind kind;
    enum key_order order;
    int precision; /* TYPE_DECIMAL with a declared size; else 0 */
    int scale;
    int length;   /* declared: characters of text, bytes of bytes; 0: none */
    int fraction; /* digits of a second that a time keeps, 0 … 6 */
    int key;      /* 0: not in the key; else its place in the key, from 1 */
    bool array;   /* an array type (its kind is TYPE_OTHER) */
    bool not_null;
    bool generated; /* computed by the server: never written, never compared */
    bool identity_always;
    uint32_t number; /* the catalog's own; a column that is dropped and made again has another */
    uint32_t stamp;  /* another one whenever the column is altered; both 0: not known (any rewrite
                        alters one whose default stands in the catalog for rows before it) */
};

enum replica_identity { IDENTITY_KEY, IDENTITY_FULL, IDENTITY_NONE };

struct table {
    uint32_t id;      /* the source's own (PostgreSQL: the relation's oid) */
    uint32_t version; /* raised when the shape changes */
    char *schema;
    char *name;
    char *root; /* "schema.name" of the partitioned table it is a leaf of, else NULL */
    enum replica_identity identity;
    size_t ncolumns;
    struct column *columns;
    size_t nkey;       /* 0: no key */
    size_t *key;       /* indexes into columns, in key order */
    uint64_t rows;     /* the server's estimate */
    uint64_t bytes;    /* on disk, all forks and TOAST */
    uint64_t filenode; /* changes when the table is rewritten or truncated; 0: not known */
    bool scattered;    /* key order has nothing to do with order on disk: copy by blocks */
    /* The table that it becomes on the target, if that has another name or other types: the same
     * columns in the same order, each of the same kind (a value's text depends on its kind alone,
     * whatever type holds it at either end), the same key. NULL: the target's is the same. */
    struct table *there;
};
/* What t is called and made of on the target. */
const struct table *table_there(const struct table *t);

/* "public.orders", the name that facts, logs and users know it by. Points into static thread-local
 * storage that the next 15 calls leave alone: for messages, and to be copied at once. */
const char *table_label(const struct table *t);
/* Is this the table of that label? */
bool table_is(const struct table *t, const char *label);
/* Its column of that name, or NULL. */
const struct column *table_column(const struct table *t, const char *name);
struct table *table_copy(struct arena *a, const struct table *t);
/* Same columns, types, key and identity (rows, bytes, filenode and version aside). */
bool table_same_shape(const struct table *a, const struct table *b);
/* Were rows of `now` rewritten in place since it was planned, with no change of a row that the log
 * would tell of: a column dropped and made again, or altered with a rewrite? NULL: no (or that
 * cannot be known: a table rewritten as it was, by VACUUM FULL or CLUSTER, is none). In `a`. */
const char *table_rewritten(const struct table *planned, const struct table *now, struct arena *a);
/* What else has become of it (or that); NULL: nothing. The order of the columns, their kinds and
 * the replica identity aside, which a plan of the way back may have as it needs them. In `a`. */
const char *table_altered(const struct table *planned, const struct table *now, struct arena *a);
/* The key of a full row, in key order; shares the values' data. */
struct row *table_key_of(struct arena *a, const struct table *t, const struct row *full);

/* ---- positions ---- */

/* A place in the source's log; two numbers whose meaning is the engine's (PostgreSQL: LSN, 0;
 * MySQL: file number, offset). Ordered by major, then minor. */
struct position {
    uint64_t major;
    uint64_t minor;
};
int position_cmp(struct position a, struct position b);
bool position_is_zero(struct position p);
/* The text form of control facts and journal records ("0000000001A2B3C4.0000000000000000"); sorts
 * like the position. Users see the engine's own text instead (engine.position_text). */
#define POSITION_TEXT_SIZE 34
void position_format(struct position p, char out[POSITION_TEXT_SIZE]);
int position_parse(const char *text, struct position *out);

/* The total order of the source. epoch: the source's history (raised only by a decision of the
 * operator). A writer's generation is no part of it. */
struct version {
    uint32_t epoch;
    struct position commit;
    uint64_t ordinal; /* of the change in its transaction, from 0 */
};
int version_cmp(const struct version *a, const struct version *b);

/* ---- changes ---- */

/* A transaction of the source. `commit` orders it and is known at its begin; `next` is where the
 * log goes on behind it, known at its end: every later transaction has commit >= next. A stream
 * that has applied everything with commit < F stands at the frontier F. */
struct txn {
    uint32_t epoch;
    uint64_t xid; /* PostgreSQL: widened to 64 bits; others: a number of their own, or 0 */
    struct position commit;
    struct position next;
    int64_t ts_us; /* commit time by the source's clock, Unix microseconds */
};

enum change_op { OP_INSERT, OP_UPDATE, OP_DELETE, OP_TRUNCATE };
const char *change_op_name(enum change_op op);

struct change {
    enum change_op op;
    const struct table *table;
    uint64_t ordinal;
    /* UPDATE: the old key (or old row, identity full) where the log carries it, else NULL: then the
     * key did not change. DELETE: always. Columns that the log does not tell are VALUE_UNCHANGED.
     */
    const struct row *before;
    const struct row *after; /* INSERT, UPDATE */
    /* TRUNCATE: this change's table is the first of truncate_n tables cut by one statement; they
     * travel as consecutive TRUNCATE changes with the same group number. */
    uint32_t group;
    bool restart_identity;
};
size_t change_bytes(const struct change *c);
/* Does the server find one of these rows by reading a whole table, as it does without a key? */
bool changes_scan(const struct change *const *changes, size_t n);
/* The key that the row had before the change / has after it (NULL for INSERT / DELETE). For a table
 * without a key: the whole row. From the arena. */
struct row *change_old_key(struct arena *a, const struct change *c);
struct row *change_new_key(struct arena *a, const struct change *c);

/* ---- JSON, for control facts ---- */

/* New references. Bytes that are not UTF-8 travel as {"hex": "…"}, NULL as null. */
json_t *row_to_json(const struct row *r);
struct row *row_from_json(struct arena *a, const json_t *json); /* NULL: not a row */

#endif
