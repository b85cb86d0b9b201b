/* The messages of the output plugin pgoutput, proto_version 1 (PostgreSQL manual, "Logical
 * Replication Message Formats"). A pure decoder: bytes in, plain structs out, no libpq; anything
 * that does not follow the format is an error and never a guess. */
#ifndef LOCKSTEP_ENGINES_POSTGRES_PGOUTPUT_H
#define LOCKSTEP_ENGINES_POSTGRES_PGOUTPUT_H

#include "core/data.h"

#include <stdbool.h>
#include <stdint.h>

/* The server's own letters. */
enum pgo_kind {
    PGO_BEGIN = 'B',
    PGO_COMMIT = 'C',
    PGO_ORIGIN = 'O',
    PGO_RELATION = 'R',
    PGO_TYPE = 'Y',
    PGO_INSERT = 'I',
    PGO_UPDATE = 'U',
    PGO_DELETE = 'D',
    PGO_TRUNCATE = 'T',
    PGO_MESSAGE = 'M'
};

struct pgo_begin {
    uint64_t final_lsn; /* where the transaction's commit record starts */
    int64_t ts;         /* microseconds since 2000-01-01 */
    uint32_t xid;
};

struct pgo_commit {
    uint64_t commit_lsn; /* the begin's final_lsn */
    uint64_t end_lsn;    /* behind the commit record */
    int64_t ts;
};

struct pgo_column {
    bool key; /* of the replica identity */
    const char *name;
    uint32_t type;
    int32_t typmod;
};

struct pgo_relation {
    uint32_t id;
    const char *schema; /* "" means pg_catalog */
    const char *name;
    char identity; /* pg_class.relreplident: d, n, f, i */
    size_t n;
    struct pgo_column *columns;
};

/* before: NULL, or by before_kind 'K' (only the key columns are sent, the others are NULL) or 'O'
 * (the whole old row). A column that the server did not send ('u') is VALUE_UNCHANGED. */
struct pgo_change {
    uint32_t relation;
    char before_kind;
    struct row *before;
    struct row *after;
};

struct pgo_truncate {
    bool cascade;
    bool restart;
    size_t n;
    uint32_t *relations;
};

struct pgo_text {
    bool transactional;
    uint64_t lsn;
    const char *prefix;
    size_t len;
    const char *content;
};

struct pgo_message {
    enum pgo_kind kind;
    union {
        struct pgo_begin begin;
        struct pgo_commit commit;
        struct pgo_relation relation;
        struct pgo_change change;
        struct pgo_truncate truncate;
        struct pgo_text text;
    };
};

/* Decodes one message. Values and names point into data, the rest is in the arena. ERR_FATAL for
 * anything that is not a proto_version 1 message in text format. */
int pgo_decode(struct arena *a, const void *data, size_t len, struct pgo_message *out,
               struct err *e);

/* "\x…" to raw bytes, in place: v->data must be writable memory of ours. -1: not hex. */
int pg_unhex(struct value *v);

#endif
