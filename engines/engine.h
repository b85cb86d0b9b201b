/* The one vtable between lockstep and a database server. Drivers: engines/postgres (libpq stays
 * inside), engines/scripted (the simulation's). Stages see only this header.
 *
 * Conventions
 *  - Every function returns 0 or -1 with *e set, unless its comment says otherwise.
 *  - A struct db is one connection and belongs to one thread. After ERR_RETRY or ERR_UNKNOWN it is
 *    unusable: close it and open another.
 *  - Every wait inside a driver ends: by db_options.timeout_ms without progress, or within 100 ms
 *    of stop_requested() (then ERR_STOPPED). A commit that was cancelled or cut off is ERR_UNKNOWN.
 *  - Texts in results live in the arena that the caller passes.
 *  - A value's text depends on its column's kind alone (core/data.h), not on the engine: a driver
 *    turns what its server says into that form, and back. What its server cannot hold is ERR_DATA,
 *    never altered.
 *  - What writes to the target (load_*, apply_*, truncate) is given the source's tables and writes
 *    to table_there() of each. Everything else speaks of the tables that it is given.
 *  - Every transaction of DB_LOAD and DB_APPLY begins with a write to lockstep.origin, so that the
 *    stream of that server knows our own transactions and leaves them out.
 *  - Server errors are classed: 08*, 57P*, 40001, 40P01, 55P03, 53100, 53200 (disk, memory) and a
 *    broken connection ERR_RETRY;
 *    23* ERR_CONFLICT; 22* ERR_DATA; 42501 and 28* ERR_REFUSED with the GRANT in the hint;
 *    else ERR_FATAL. e->sqlstate holds the code.
 */
#ifndef LOCKSTEP_ENGINES_ENGINE_H
#define LOCKSTEP_ENGINES_ENGINE_H

#include "core/cut.h"
#include "core/data.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct engine;
struct column_def;
struct schema_def;
struct table_def;
struct verdict;

/* Drivers embed this as the first member of their connection. */
struct db {
    const struct engine *engine;
};

/* Longest wait without progress for a statement that reads or empties a whole table. */
#define DB_WHOLE_TABLE_MS (60 * 60 * 1000)

/* What a connection is for; the driver derives session settings from it. */
enum db_use {
    DB_CONTROL, /* facts, catalog, checks, fence */
    DB_READ,    /* reads rows of the source: repeatable read, read only, row_security off */
    DB_LOAD,    /* loads chunks into the target: replica role */
    DB_APPLY,   /* applies changes to the target: replica role, commits may be asynchronous */
    DB_SCHEMA   /* runs schema steps */
};

/* What the user has said of a fence that closes more than the migrated tables. */
struct fence_settings {
    bool whole_server;           /* closing the server for all its databases is all right */
    const char *const *accounts; /* "app@%": whose lock seals where nothing else is durable */
    size_t naccounts;
};

struct db_options {
    const char *uri;       /* with its password; never logged */
    const char *migration; /* names slot, publication, facts, application_name */
    enum db_use use;
    int timeout_ms; /* longest wait without progress; 0: the default of 30 s */
    bool back;      /* the stream of the way back: its slot and publication have names of their own
                       ("lockstep_<migration>_back") */
    const struct fence_settings *fence; /* NULL: nothing was said */
};

/* Which server this is, to recognise a foreign or failed-over one. All text. */
struct server_identity {
    char system[40]; /* PostgreSQL: system_identifier */
    char database[64];
    uint32_t timeline;
    int version; /* PostgreSQL: server_version_num */
    bool standby;
};

/* ---- control facts: one row each, (migration, kind, key) -> JSON body, numbered at each write
 * ---- */

#define FACT_ABSENT ((int64_t)0)
#define FACT_ANY ((int64_t)-1)

struct fact {
    char *key;       /* malloc'd by fact_scan; NULL from fact_get */
    int64_t version; /* 1 at creation, +1 at each put */
    json_t *body;    /* owned by the receiver: json_decref */
};

/* ---- selection and catalog ---- */

/* Patterns are "schema.name" with * and ? (each part); exclude wins. */
struct selection {
    const char *const *include;
    size_t ninclude; /* 0: all user tables */
    const char *const *exclude;
    size_t nexclude;
};

/* One pattern; without a dot it speaks of the schema `home` (NULL: of any). */
bool selection_pattern_matches(const char *pattern, const char *home, const char *schema,
                               const char *name);

struct table_list {
    size_t n;
    struct table **v; /* leaf and plain tables only, sorted by label */
};

/* One line of `check`: what is unfit, and the remedy. */
struct finding {
    bool fatal;         /* false: a warning */
    const char *object; /* "public.orders", "source", "target", … */
    const char *what;
    const char *remedy;
};
struct findings {
    size_t n;
    struct finding *v;
};
enum db_side { SIDE_SOURCE, SIDE_TARGET };
struct check_request {
    enum db_side side;
    const struct selection *selection;
    const struct table_list *tables; /* the source's chosen tables; for SIDE_TARGET */
    const char *slot_owner_note;
    const char *pg_bindir; /* may be NULL */
    int source_version;    /* for SIDE_TARGET */
    bool started;          /* the migration already runs: no emptiness or free-slot checks */
    struct db *source;     /* for SIDE_TARGET: DB_CONTROL on the source (is it the same database?
                              which extensions?), or NULL: not asked */
    bool same_engine;      /* as the other side */
};

/* ---- schema ---- */

enum schema_phase {
    SCHEMA_PRE,     /* types, tables, sequences: before the first chunk */
    SCHEMA_KEY,     /* primary key or replica identity index of a table: when it is loaded */
    SCHEMA_INDEX,   /* plain secondary indexes: before apply begins */
    SCHEMA_UNIQUE,  /* unique and exclusion constraints: after the highest cut */
    SCHEMA_FOREIGN, /* foreign keys: NOT VALID, then VALIDATE */
    SCHEMA_POST,    /* triggers, rules, policies, comments, statistics objects */
    SCHEMA_ANALYZE,
    SCHEMA_PHASES
};
/* Steps with an order from here on wait for every earlier one of their phase, not only for those of
 * their table (a partitioned table's key waits for its leaves' keys). */
#define SCHEMA_ORDER_BARRIER 1000
struct schema_step {
    enum schema_phase phase;
    int order;         /* in the phase; equal: may run side by side */
    const char *name;  /* unique in the migration: "index public.orders_note_idx" */
    const char *table; /* label whose load it waits for, or NULL */
    const char *sql;
    const char *undo; /* run first when the step is found half done (online steps), or NULL */
    bool online;      /* not in a transaction (CONCURRENTLY): autocommit, undo before a repeat */
    bool whole;       /* online, and taken whole or not at all: what the server refused left nothing
                         behind, so undo (which might meet somebody else's object) is not for it */
    bool pauses_apply; /* has no online form: apply stands at a transaction boundary meanwhile */
};
struct schema_steps {
    size_t n;
    struct schema_step *v;
};
/* For engines that copy their own schemas by their own tools (schema_steps). */
struct schema_request {
    struct db *source; /* DB_CONTROL */
    const char *source_uri;
    const char *snapshot; /* to read under, or NULL */
    const struct selection *selection;
    const struct table_list *tables;
    struct db *target; /* DB_CONTROL: what exists there already is left out; NULL: it is empty */
    int target_version;
    const char *bindir;  /* pg_bindir, or NULL */
    const char *workdir; /* for the dump file */
};

/* ---- snapshot ---- */

/* The start of a migration's stream: made once. */
struct stream_origin {
    struct position start; /* the stream has every transaction with commit >= start */
    struct cut cut;        /* the common cut of everything read under `snapshot` */
    const char *snapshot;  /* to import, while holder lives */
    struct db *holder;     /* close it when the common cut is no longer needed */
};

enum block_format { BLOCK_NATIVE, BLOCK_ROWS };
struct block {
    enum block_format format;
    const char *data; /* native: bytes of the engine's own bulk format, opaque */
    size_t len;       /* of what was read, in either format: it is counted, and throttled by */
    const struct row *const *rows; /* rows */
    size_t nrows;
};
struct read_request {
    const struct table *table;
    struct range range;
    const char *snapshot;     /* the holder's, or NULL: a snapshot of its own */
    enum block_format format; /* native if both ends are the same engine and no rule transforms */
};

/* ---- stream ---- */

struct stream;

enum event_kind {
    EVENT_NONE,     /* nothing within the timeout */
    EVENT_BEGIN,    /* txn (without next) */
    EVENT_CHANGE,   /* change */
    EVENT_COMMIT,   /* txn, with next */
    EVENT_ABORT,    /* the transaction that was begun never came to be (the server died while it
                       wrote its log), nothing of it counts; reason: where */
    EVENT_MARK,     /* token, next: a marker outside of transactions; all before it has been sent */
    EVENT_POSITION, /* next: all before it has been sent, nothing is in flight */
    EVENT_TABLE     /* table, reason: its shape is not (any more) the one that was planned */
};
struct event {
    enum event_kind kind;
    struct txn txn;
    struct change change; /* borrowed until the next stream_next */
    struct position next;
    const char *token;
    const struct table *table; /* lives as long as the stream */
    const char *reason;
};
struct stream_request {
    const struct db_options *options;
    const struct table_list *tables; /* the plan's shapes */
    struct position from;            /* the journal's frontier: must not lie before what the server
                                        has been told that it may forget (else ERR_FATAL, a gap) */
    uint32_t epoch;
};

/* ---- apply ---- */

enum set_op {
    SET_INSERT, /* rows: full new rows; each key must not exist */
    SET_UPDATE, /* keys + rows: `columns` are written; each key must exist exactly once */
    SET_DELETE, /* keys; each must exist exactly once */
    SET_ABSENT  /* keys: counts how many exist; 0 is expected */
};
struct change_set {
    enum set_op op;
    const struct table *table;
    size_t n;
    const struct row *const *keys; /* key rows (nkey values); NULL for INSERT */
    const struct row *const *rows; /* full rows (ncolumns values); NULL for DELETE, ABSENT */
    const bool *columns;           /* UPDATE: which of ncolumns are written (all rows alike) */
};

/* ---- verify ---- */

struct pin {
    struct position next; /* the snapshot has exactly every transaction with commit < next */
    const char *snapshot; /* NULL: the engine does not export any; scan on the holder itself */
    struct db *holder;
};

/* ---- fence, sequences ---- */

enum fence_mode { FENCE_NONE, FENCE_OPEN, FENCE_LEASED, FENCE_SEALED };
struct fence_state {
    enum fence_mode mode;
    int64_t lease_end_ms; /* server clock */
    int64_t now_ms;       /* server clock */
    uint32_t epoch;       /* of the last holder */
    char token[40];
};
/* The sqlstate of an error of fence_wait and settle: who writes cannot be seen at all. */
#define FENCE_UNLISTED "LS004"
struct fence_wait {
    int grace_ms;    /* before the remaining writers are terminated */
    int deadline_ms; /* then give up: ERR_RETRY, with who stands in the way */
};
#define FENCE_PREPARED_MAX 32 /* that are told apart */
struct fence_report {
    int waited_for;
    int terminated;
    int64_t took_ms;
    /* Those that are prepared and not decided, when it gave up: a number of each one's name. */
    size_t nprepared;
    uint64_t prepared[FENCE_PREPARED_MAX];
};
struct sequence_value {
    const char *schema;
    const char *name;   /* MySQL: the table's, it is the AUTO_INCREMENT's */
    const char *table;  /* "schema.table" that it belongs to, NULL: to none */
    const char *column; /* with table */
    int64_t last_value;
    int64_t increment;
    bool called;
    int64_t min; /* the bounds of what it may be set to; min == max: not known */
    int64_t max;
    int64_t cache; /* numbers that a session takes at once; 0: not known */
    bool cycle;    /* it begins anew behind its end */
};
struct sequence_list {
    size_t n;
    struct sequence_value *v;
};

struct retention {
    uint64_t retained_bytes; /* log that the source keeps for us */
    bool lost;
    const char *state; /* the server's word for it */
    bool active;
    bool ours; /* something of this migration's is there and keeps it: a slot */
};

struct engine {
    const char *name; /* "postgres" */
    const struct cut_ops *cuts;
    /* Snapshots have names that other connections import. False: a snapshot lives in the
     * transaction of the connection that took it (pin_source's holder; the db of pin_target);
     * scan_begin with snapshot NULL on a connection with an open transaction reads under that one,
     * and scan_end leaves it open. */
    bool exports_snapshots;
    /* It numbers one column of a table, and only the first column of an index. */
    bool counts_by_index;
    /* What its type "json" holds is put into a form of its own: the text does not come back. */
    bool normalizes_json;
    /* What fence_wait looks at is made anew only so long after the last look. */
    int looks_apart_ms;

    /* ---- sessions ---- */
    int (*open)(const struct db_options *o, struct db **out, struct err *e);
    void (*close)(struct db *db); /* takes NULL; an open transaction is rolled back */
    int (*begin)(struct db *db, struct err *e);
    int (*commit)(struct db *db, struct err *e);
    int (*rollback)(struct db *db, struct err *e);
    /* In a transaction: until it ends the server gives the session up, and what it has locked, when
     * nothing was said to it for `ms` (a process that stands still must not lock others out). */
    int (*limit_idle)(struct db *db, int ms, struct err *e);
    int (*savepoint)(struct db *db, struct err *e);   /* one level; repeated calls replace it */
    int (*rollback_to)(struct db *db, struct err *e); /* to that savepoint, which stays */
    int (*clock_ms)(struct db *db, int64_t *out, struct err *e); /* the server's, Unix ms */
    int (*identify)(struct db *db, struct server_identity *out, struct err *e);
    /* After this, what earlier asynchronous commits of this server wrote is durable. */
    int (*sync)(struct db *db, struct err *e);

    /* ---- positions ---- */
    int (*current_position)(struct db *db, struct position *out, struct err *e);
    void (*position_text)(struct position p, char *out, size_t size); /* the server's own text */
    /* A token for reads of what one wrote: a text as position_text makes it, or as an application
     * gets it by SQL behind its own commit (PostgreSQL: an LSN; MySQL: file:offset as SHOW MASTER
     * STATUS has them, or GTIDs). *out: a frontier that lies behind every transaction which was
     * acknowledged before the text was read, and that an idle stream reaches. 1; 0: the server has
     * not written so far (yet); -1, ERR_CONFIG if it is no position: says what was expected. */
    int (*position_find)(struct db *db, const char *text, struct position *out, struct err *e);
    /* Bytes of this server's log from one to the other; 0 if they are not in that order. */
    int (*position_distance)(struct db *db, struct position from, struct position to, uint64_t *out,
                             struct err *e);

    /* ---- control: facts; inside the open transaction if there is one, else autocommit ---- */
    int (*control_install)(struct db *db, enum db_side side, struct err *e); /* idempotent */
    int (*control_remove)(struct db *db, enum db_side side, struct err *e);  /* idempotent */
    /* Is the control schema there at all? */
    int (*control_exists)(struct db *db, bool *out, struct err *e);
    /* 1 found, 0 absent, -1. lock: the row stays locked until the transaction ends. */
    int (*fact_get)(struct db *db, const char *kind, const char *key, bool lock, struct fact *out,
                    struct err *e);
    /* All facts of the kind whose key begins with prefix, in key order. facts_release() them. */
    int (*fact_scan)(struct db *db, const char *kind, const char *prefix, struct fact **out,
                     size_t *n, struct err *e);
    /* Compare and set: 1 written, 0 the version was not `expect`, -1. FACT_ABSENT creates. */
    int (*fact_put)(struct db *db, const char *kind, const char *key, int64_t expect,
                    const json_t *body, struct err *e);
    int (*fact_delete)(struct db *db, const char *kind, const char *key, struct err *e);

    /* ---- catalog and checks ---- */
    int (*tables)(struct db *db, const struct selection *s, struct arena *a, struct table_list *out,
                  struct err *e);
    /* Appends findings; -1 only if the server could not be asked. Changes nothing. */
    int (*check)(struct db *db, const struct check_request *r, struct arena *a,
                 struct findings *out, struct err *e);

    /* ---- schema ---- */
    /* The schema that an unnamed one stands for: "public"; MySQL: the URI's database. */
    void (*home_schema)(const char *uri, char *out, size_t size);
    /* What the tables are made of, for another engine or server to make the same (engines/def.h).
     * Entries stand in the order of `tables`. */
    int (*describe)(struct db *db, const struct table_list *tables, struct arena *a,
                    struct schema_def *out, struct err *e);
    /* How a column of another engine (or of this one: `native`) stands here: fills *to (kind as
     * from's) and what becomes of its values. Pure. */
    void (*column_for)(const struct column_def *from, bool native, struct arena *a,
                       struct column *to, struct verdict *out);
    /* What column_for cannot know: between these two servers of this engine a column may be less
     * than exact (MySQL and MariaDB have not all collations in common). Lowers the verdicts (one a
     * column), appends what cannot be. Asks nobody. NULL: all servers of the engine are alike. */
    void (*judge_pair)(struct db *source, struct db *target, const struct table_def *def,
                       struct verdict *verdicts, struct arena *a, struct findings *out);
    /* Do both declare one type on this engine, whatever they call it (MySQL's int and MariaDB's
     * int(11))? NULL: types of one name alone are the same. */
    bool (*same_type)(const struct column *a, const struct column *b);
    /* The steps that make the tables here; def's tables have their `there`. Pure. */
    int (*schema_render)(const struct schema_def *def, bool native, struct arena *a,
                         struct schema_steps *out, struct err *e);
    /* Reads the table for values that a column of another engine does not hold, where the verdicts
     * (one a column, of its `there`) state a condition: appends a finding each, with the column and
     * one row's key. One bounded read a table; what it did not get through is a warning. NULL: the
     * engine cannot. */
    int (*unfit_values)(struct db *db, const struct table_def *def, const struct verdict *verdicts,
                        struct arena *a, struct findings *out, struct err *e);
    /* NULL: between two of this engine describe and schema_render do it too. */
    int (*schema_steps)(const struct schema_request *r, struct arena *a, struct schema_steps *out,
                        struct err *e);
    /* Runs one statement list in the open transaction, or in autocommit for an online step. If the
     * server was not heard to answer a `whole` one: ERR_UNKNOWN, or ERR_STOPPED. */
    int (*schema_run)(struct db *db, const char *sql, bool online, struct err *e);
    /* Ends sessions of this migration's dead processes that still run schema steps. */
    int (*schema_settle)(struct db *db, struct err *e);

    /* ---- snapshot, source side ---- */
    /* Publication, slot, common cut. `retry`: an earlier attempt was cut off before its outcome was
     * recorded, so what it left is dropped first. */
    int (*stream_create)(const struct db_options *o, const struct table_list *tables, bool retry,
                         struct arena *a, struct stream_origin *out, struct err *e);
    /* Waits (bounded) until every transaction that now runs on the server has ended, so that a cut
     * taken afterwards sees all that was committed before the call. */
    int (*settle)(struct db *db, int timeout_ms, struct err *e);
    /* Ranges that together hold each row exactly once, of about `bytes` each. by_blocks allows
     * RANGE_BLOCKS (only under one common cut). */
    int (*chunk_plan)(struct db *db, const struct table *t, uint64_t bytes, bool by_blocks,
                      struct arena *a, struct range_list *out, struct err *e);
    /* Opens a snapshot transaction, reads its cut, starts reading. ERR_CONFLICT: the table was
     * rewritten or truncated since the plan (filenode), so the common cut is not good for it.
     * ERR_DATA: the snapshot is gone with its holder. */
    int (*read_begin)(struct db *db, const struct read_request *r, struct arena *a, struct cut *cut,
                      struct err *e);
    /* 1: a block, borrowed until the next call; 0: the end; -1. */
    int (*read_next)(struct db *db, struct block *out, struct err *e);
    /* After the end, or early to give up. rows: by the server's own count. After the end: 0 only
     * once everything that the cut sees would survive a crash of the server. */
    int (*read_end)(struct db *db, uint64_t *rows, struct err *e);
    /* Which range (RANGE_KEY only, sorted, gapless) holds each key, by the server's own order. */
    int (*locate)(struct db *db, const struct table *t, const struct range_list *ranges,
                  const struct row *const *keys, size_t n, size_t *out, struct err *e);

    /* ---- snapshot, target side; inside the open transaction ---- */
    int (*load_begin)(struct db *db, const struct table *t, enum block_format f, struct err *e);
    int (*load_block)(struct db *db, const struct block *b, struct err *e);
    int (*load_end)(struct db *db, uint64_t *rows, struct err *e);

    /* ---- stream ---- */
    int (*stream_open)(const struct stream_request *r, struct stream **out, struct err *e);
    /* *out is EVENT_NONE when nothing came within timeout_ms. */
    int (*stream_next)(struct stream *s, int timeout_ms, struct event *out, struct err *e);
    /* Tells the server that everything before p is durable with us. Never goes backwards. Sent at
     * once if `now`, else with the next status message; with `now` what stream_next handed out is
     * borrowed no longer. */
    int (*stream_ack)(struct stream *s, struct position p, bool now, struct err *e);
    void (*stream_close)(struct stream *s);
    int (*stream_drop)(const struct db_options *o,
                       struct err *e); /* slot, publication; idempotent */
    int (*retention)(struct db *db, struct arena *a, struct retention *out, struct err *e);

    /* ---- apply; inside the open transaction ---- */
    /* *affected: rows met. ERR_CONFLICT or ERR_DATA leave the transaction to rollback_to. */
    int (*apply_set)(struct db *db, const struct change_set *s, uint64_t *affected, struct err *e);
    /* One change as it was: by the old key, to the columns that the log carries. A table without a
     * key: exactly one of the equal rows. *affected: rows met (1 is right). */
    int (*apply_row)(struct db *db, const struct change *c, uint64_t *affected, struct err *e);
    /* As apply_row for each of n changes, in their order, without waiting for one before the next
     * is sent: a change that meets no row does not stop those behind it. affected has n places. On
     * an error *failed is the index of the change that was refused (or not answered), those before
     * it have their affected, those behind it are as if never sent; n: none of them is to blame.
     * Rows over LARGE_ROW go one by one. */
    int (*apply_rows)(struct db *db, const struct change *const *changes, size_t n,
                      uint64_t *affected, size_t *failed, struct err *e);
    int (*truncate)(struct db *db, const struct table *const *tables, size_t n, bool restart,
                    struct err *e);

    /* ---- verify ---- */
    /* A snapshot of the source that lies exactly at a position of its stream. */
    int (*pin_source)(const struct db_options *o, struct arena *a, struct pin *out, struct err *e);
    /* In an open transaction of db that has read nothing yet: a snapshot of the target as it is
     * now; lives until that transaction ends. Its name, or "" if it has none. */
    int (*pin_target)(struct db *db, char *snapshot, size_t size, struct err *e);
    /* Rows in canonical text, in no particular order; keys (NULL: all rows) restricts to them.
     * Generated columns are VALUE_NULL. */
    int (*scan_begin)(struct db *db, const struct table *t, const char *snapshot,
                      const struct row *const *keys, size_t nkeys, struct err *e);
    /* 1: a row, borrowed until the next call; 0: the end; -1. */
    int (*scan_next)(struct db *db, const struct row **out, struct err *e);
    int (*scan_end)(struct db *db, struct err *e);

    /* ---- cutover: functions on the server; one call locks the fence row, checks token, epoch and
     * lapse by the server's clock ---- */
    /* Triggers in lockstep's control schema; short, bounded, retried locks. Idempotent. The session
     * users in `exempt` (lockstep's own roles) pass. Returns how many tables were not armed before;
     * -1. A table's lock is tried for budget_ms, 0: for as long as is usual. */
    int (*fence_install)(struct db *db, const struct table_list *tables, int budget_ms,
                         struct err *e);
    int (*fence_remove)(struct db *db, struct err *e);
    /* Refuses writes from here on. Where the server first has to come to rest (MySQL), those who
     * begin to write meanwhile wait for that. It is tried as long as budget_ms are not over, and
     * once in any case; a try takes a second, seldom two. ERR_FENCED: another token holds it. */
    int (*fence_flip)(struct db *db, const char *token, uint32_t epoch, int lease_ms, int budget_ms,
                      struct err *e);
    /* Takes the fence over as it is, open, leased or sealed, for fence_lift (fence_seal behind it
     * does not know how long the lease has held): nobody is refused more or less by it, and a
     * holder by a lower epoch can move it no more. ERR_FENCED: it has a higher epoch, or another
     * token holds it by this one. */
    int (*fence_take)(struct db *db, const char *token, uint32_t epoch, struct err *e);
    int (*fence_renew)(struct db *db, const char *token, int lease_ms, struct err *e);
    /* Lists the transactions that hold write locks, waits for exactly those. Slow if another look
     * was less than looks_apart_ms ago. */
    int (*fence_wait)(struct db *db, const struct fence_wait *w, struct fence_report *out,
                      struct err *e);
    /* 1: the server tells that it has refused writes without a break since fence_flip by this
     * token: of those whom the fence stops, nobody can have begun to write behind the fence_wait
     * that followed; 0: it may have lapsed. */
    int (*fence_seal)(struct db *db, const char *token, uint32_t epoch, struct err *e);
    int (*fence_lift)(struct db *db, const char *token,
                      struct err *e); /* leased or sealed -> open */
    int (*fence_state)(struct db *db, struct fence_state *out, struct err *e);
    /* A marker with this token comes out of the stream behind everything committed before. */
    int (*mark)(struct db *db, const char *token, struct err *e);
    int (*sequences)(struct db *db, const struct selection *s, struct arena *a,
                     struct sequence_list *out, struct err *e);
    int (*sequence_set)(struct db *db, const struct sequence_value *v, struct err *e);
};

/* Releases what fact_scan returned (keys, bodies, the array). Takes NULL. */
void facts_release(struct fact *facts, size_t n);

#endif
