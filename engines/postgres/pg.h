/* Private to engines/postgres: the connection, the waits, the quoting, and the functions that stand
 * in the driver's vtable.
 *
 * No libpq call that can block is made without our deadline: connections are non-blocking, a query
 * is sent (pg_send), flushed and collected in a poll loop. A wait ends
 *  - by db->timeout_ms without a byte of progress (ERR_RETRY; 0 < timeout; PG_FOREVER: no deadline,
 *    dead peers are found by keepalives and tcp_user_timeout),
 *  - within 100 ms of noticing stop_requested() (ERR_STOPPED): so the short statements of an
 * orderly shutdown still pass. In both cases the statement is cancelled on the server and the
 * connection is `broken`: only close() may follow. */
#ifndef LOCKSTEP_ENGINES_POSTGRES_PG_H
#define LOCKSTEP_ENGINES_POSTGRES_PG_H

#include "engines/def.h"

#include <libpq-fe.h>

#define PG_FOREVER (-1)
#define PG_TIMEOUT_DEFAULT_MS 30000
#define PG_NAME_MAX 64
/* A prefix of slot and publication; the way back's have a suffix. */
#define PG_OBJECT_PREFIX "lockstep_"
#define PG_OBJECT_BACK "_back"
/* Prefix of logical messages that only force a flush (pg_sync); streams skip them. */
#define PG_SYNC_PREFIX "lockstep.sync"

/* What another file of the driver keeps with a connection; freed by close(). */
struct pg_slot {
    void *data;
    void (*release)(void *data);
};

struct pg_db {
    struct db base;
    PGconn *conn;
    char *uri; /* with its password: never in a message */
    char migration[40];
    bool back; /* of the way back: names slot and publication */
    enum db_use use;
    int timeout_ms; /* longest wait without progress; may be changed between statements */
    int version;    /* server_version_num */
    bool broken;    /* a wait was given up or the connection was lost: close it */
    bool has_savepoint;
    bool replication; /* a walsender connection: simple queries only */
    bool large;       /* a large row went through: renewed when the transaction has ended */
    bool deferred;    /* SET CONSTRAINTS ALL DEFERRED holds in this transaction */
    char fence[24];   /* digest of the fence's objects as this connection made them; "" */
    struct pg_slot read;
    struct pg_slot load;
    struct pg_slot scan;
    struct pg_slot apply;
    struct pg_slot statements;
};

static inline struct pg_db *pg_db_from(struct db *db)
{
    return (struct pg_db *)(void *)db;
}

/* ---- session.c: connections ---- */

/* Opens with lockstep's session settings. replication: "replication=database" for a walsender.
 * label: the third part of application_name ("lockstep:<migration>:<label>"); NULL: by o->use. */
int pg_connect(const struct db_options *o, const char *label, bool replication, struct pg_db **out,
               struct err *e);
int pg_open(const struct db_options *o, struct db **out, struct err *e);
void pg_close(struct db *db);
void pg_slot_release(struct pg_slot *slot); /* leaves it empty */
int pg_begin(struct db *db, struct err *e);
int pg_limit_idle(struct db *db, int ms, struct err *e);
int pg_commit(struct db *db, struct err *e);
int pg_rollback(struct db *db, struct err *e);
int pg_savepoint(struct db *db, struct err *e);
int pg_rollback_to(struct db *db, struct err *e);
/* True between BEGIN and COMMIT, also when the transaction has failed. */
bool pg_in_transaction(const struct pg_db *db);
/* "lockstep_<migration>", of the way back "lockstep_<migration>_back": slot and publication. */
void pg_object_name(const struct pg_db *db, char out[PG_NAME_MAX]);

/* ---- wait.c: statements ---- */

/* Polls the socket. 1: ready; 0: the deadline (mono_ms; INT64_MAX: none) has passed; -1: stopped.
 * Sets no error. */
int pg_poll(struct pg_db *db, short events, int64_t deadline);
/* The deadline of a wait that begins now. */
int64_t pg_deadline(const struct pg_db *db);
/* Sends one statement; nparams > 0 (or extended) uses the extended protocol. lengths and formats
 * may be NULL (text). The output is flushed when it returns. */
struct pg_params {
    int n;
    const char *const *values;
    const int *lengths;
    const int *formats;
    int result_format; /* 1: binary */
    bool extended;     /* the extended protocol even without parameters (one statement only) */
};
int pg_send(struct pg_db *db, const char *sql, const struct pg_params *p, struct err *e);
/* Flushes what libpq holds (after PQsendQueryPrepared, PQputCopyData, …). */
int pg_flush(struct pg_db *db, struct err *e);
/* Waits until input has come and hands it to libpq. 1: input, 0: nothing within timeout_ms (the
 * connection stays good), -1: stopped or lost. For loops over PQgetCopyData(…, 1). */
int pg_wait_input(struct pg_db *db, int timeout_ms, struct err *e);
/* The next result of the statement, of whatever status; *out = NULL at its end. */
int pg_next(struct pg_db *db, PGresult **out, struct err *e);
/* All results of the statement: the last one, or NULL with the error of the first that failed. */
PGresult *pg_collect(struct pg_db *db, struct err *e);
/* Statements without parameters and results of interest; several, separated by ';', are one
 * transaction outside of BEGIN. */
int pg_exec(struct pg_db *db, const char *sql, struct err *e);
int pg_execf(struct pg_db *db, struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* One statement with text parameters (NULL: NULL). PQclear() the result; NULL: error. */
PGresult *pg_query(struct pg_db *db, const char *sql, int nparams, const char *const *values,
                   struct err *e);
/* Sets e from a failed result by the classes of engines/engine.h; returns -1. */
int pg_result_err(struct pg_db *db, const PGresult *res, struct err *e);
/* Connection lost (or libpq out of order): marks it broken, ERR_RETRY; returns -1. */
int pg_lost(struct pg_db *db, const char *doing, struct err *e);
/* Cancels what runs, discards what comes (bounded), marks the connection broken, sets e; -1. */
int pg_give_up(struct pg_db *db, enum err_class class, const char *why, struct err *e);
/* Asks the server to cancel, waiting at most wait_ms for its answer. False: the request is still
 * under way, and may meet whatever this connection runs next. */
bool pg_cancel(struct pg_db *db, int wait_ms);

/* ---- text ---- */

void pg_ident(struct buf *b, const char *name);                      /* "quoted" */
void pg_ident2(struct buf *b, const char *schema, const char *name); /* "schema"."name" */
void pg_literal(struct buf *b, const char *s);                       /* 'quoted', NULL: NULL */
/* Values of a result: borrowed; NULL if SQL NULL. */
const char *pg_text(const PGresult *res, int row, int column);
int64_t pg_int(const PGresult *res, int row, int column); /* 0 if NULL */
bool pg_bool(const PGresult *res, int row, int column);
/* "16/B374D848" -> its number; -1: not an LSN. */
int pg_parse_lsn(const char *text, uint64_t *out);

/* ---- the vtable's functions, by file ---- */

/* control.c */
int pg_clock_ms(struct db *db, int64_t *out, struct err *e);
int pg_identify(struct db *db, struct server_identity *out, struct err *e);
int pg_sync(struct db *db, struct err *e);
int pg_current_position(struct db *db, struct position *out, struct err *e);
void pg_position_text(struct position p, char *out, size_t size);
int pg_position_find(struct db *db, const char *text, struct position *out, struct err *e);
int pg_position_distance(struct db *db, struct position from, struct position to, uint64_t *out,
                         struct err *e);
int pg_control_install(struct db *db, enum db_side side, struct err *e);
int pg_control_remove(struct db *db, enum db_side side, struct err *e);
int pg_control_exists(struct db *db, bool *out, struct err *e);
int pg_fact_get(struct db *db, const char *kind, const char *key, bool lock, struct fact *out,
                struct err *e);
int pg_fact_scan(struct db *db, const char *kind, const char *prefix, struct fact **out, size_t *n,
                 struct err *e);
int pg_fact_put(struct db *db, const char *kind, const char *key, int64_t expect,
                const json_t *body, struct err *e);
int pg_fact_delete(struct db *db, const char *kind, const char *key, struct err *e);
int pg_settle(struct db *db, int timeout_ms, struct err *e);
int pg_retention(struct db *db, struct arena *a, struct retention *out, struct err *e);

/* describe*.c, types.c, render.c */
void pg_home_schema(const char *uri, char *out, size_t size);
int pg_describe(struct db *db, const struct table_list *tables, struct arena *a,
                struct schema_def *out, struct err *e);
void pg_column_for(const struct column_def *from, bool native, struct arena *a, struct column *to,
                   struct verdict *out);
/* The name of the type that an enum column gets (types.c). */
const char *pg_enum_name(struct arena *a, const char *table, const char *column);
int pg_unfit_values(struct db *db, const struct table_def *def, const struct verdict *verdicts,
                    struct arena *a, struct findings *out, struct err *e);
int pg_schema_render(const struct schema_def *def, bool native, struct arena *a,
                     struct schema_steps *out, struct err *e);

/* Columns and filenode of the table `id` as it is now; out->n 0: there is none. */
int pg_table_columns(struct pg_db *db, uint32_t id, struct arena *a, struct table_list *out,
                     struct err *e);

/* catalog.c, check.c, schema*.c */
int pg_tables(struct db *db, const struct selection *s, struct arena *a, struct table_list *out,
              struct err *e);
int pg_check(struct db *db, const struct check_request *r, struct arena *a, struct findings *out,
             struct err *e);
int pg_schema_steps(const struct schema_request *r, struct arena *a, struct schema_steps *out,
                    struct err *e);
int pg_schema_run(struct db *db, const char *sql, bool online, struct err *e);
int pg_schema_settle(struct db *db, struct err *e);
/* "schema.name" against the selection's patterns (catalog.c). */
bool pg_selected(const struct selection *s, const char *schema, const char *name);

/* visible.c */
extern const struct cut_ops pg_cut_ops;
/* The cut of the session's snapshot, as text. A slot's snapshot may have xmin > xmax (its xmax
 * follows only transactions that changed catalogs), which the server refuses to read back. It asks
 * xmin first (XidInMVCCSnapshot), so xmin is both. */
#define PG_SQL_CUT                                                                                 \
    "(SELECT CASE WHEN txid_snapshot_xmin(s) > txid_snapshot_xmax(s)"                              \
    " THEN txid_snapshot_xmin(s) || ':' || txid_snapshot_xmin(s) || ':' ELSE s::text END"          \
    " FROM txid_current_snapshot() s)"

/* chunk.c, read.c, locate.c, load.c, stream*.c */
int pg_stream_create(const struct db_options *o, const struct table_list *tables, bool retry,
                     struct arena *a, struct stream_origin *out, struct err *e);
int pg_chunk_plan(struct db *db, const struct table *t, uint64_t bytes, bool by_blocks,
                  struct arena *a, struct range_list *out, struct err *e);
int pg_read_begin(struct db *db, const struct read_request *r, struct arena *a, struct cut *cut,
                  struct err *e);
int pg_read_next(struct db *db, struct block *out, struct err *e);
int pg_read_end(struct db *db, uint64_t *rows, struct err *e);
int pg_locate(struct db *db, const struct table *t, const struct range_list *ranges,
              const struct row *const *keys, size_t n, size_t *out, struct err *e);
int pg_load_begin(struct db *db, const struct table *t, enum block_format f, struct err *e);
int pg_load_block(struct db *db, const struct block *b, struct err *e);
int pg_load_end(struct db *db, uint64_t *rows, struct err *e);
int pg_stream_open(const struct stream_request *r, struct stream **out, struct err *e);
int pg_stream_next(struct stream *s, int timeout_ms, struct event *out, struct err *e);
int pg_stream_ack(struct stream *s, struct position p, bool now, struct err *e);
void pg_stream_close(struct stream *s);
int pg_stream_drop(const struct db_options *o, struct err *e);

/* apply*.c, verify.c */
int pg_apply_set(struct db *db, const struct change_set *s, uint64_t *affected, struct err *e);
int pg_apply_row(struct db *db, const struct change *c, uint64_t *affected, struct err *e);
int pg_apply_rows(struct db *db, const struct change *const *changes, size_t n, uint64_t *affected,
                  size_t *failed, struct err *e);
int pg_truncate(struct db *db, const struct table *const *tables, size_t n, bool restart,
                struct err *e);
int pg_pin_source(const struct db_options *o, struct arena *a, struct pin *out, struct err *e);
int pg_pin_target(struct db *db, char *snapshot, size_t size, struct err *e);
int pg_scan_begin(struct db *db, const struct table *t, const char *snapshot,
                  const struct row *const *keys, size_t nkeys, struct err *e);
int pg_scan_next(struct db *db, const struct row **out, struct err *e);
int pg_scan_end(struct db *db, struct err *e);

/* fence*.c, sequence.c */
int pg_fence_install(struct db *db, const struct table_list *tables, int budget_ms, struct err *e);
int pg_fence_remove(struct db *db, struct err *e);
int pg_fence_flip(struct db *db, const char *token, uint32_t epoch, int lease_ms, int budget_ms,
                  struct err *e);
int pg_fence_take(struct db *db, const char *token, uint32_t epoch, struct err *e);
int pg_fence_renew(struct db *db, const char *token, int lease_ms, struct err *e);
int pg_fence_wait(struct db *db, const struct fence_wait *w, struct fence_report *out,
                  struct err *e);
int pg_fence_seal(struct db *db, const char *token, uint32_t epoch, struct err *e);
int pg_fence_lift(struct db *db, const char *token, struct err *e);
int pg_fence_state(struct db *db, struct fence_state *out, struct err *e);
int pg_mark(struct db *db, const char *token, struct err *e);
int pg_sequences(struct db *db, const struct selection *s, struct arena *a,
                 struct sequence_list *out, struct err *e);
int pg_sequence_set(struct db *db, const struct sequence_value *v, struct err *e);

#endif
