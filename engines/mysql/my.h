/* Private to engines/mysql: the connection, statements, quoting, values, and the functions that
 * stand in the driver's vtable. The client library is MariaDB Connector/C; nobody outside this
 * folder knows it.
 *
 * A position is (number of the binlog file, offset in it): "mysql-bin.000042" at 1234 is {42,
 * 1234}. A transaction's `commit` is where its GTID event begins, its `next` is behind its last
 * event.
 *
 * Waits end as in engines/engine.h: statements are driven through the library's non-blocking calls,
 * so that each has our deadline and notices stop_requested() within 100 ms. What was given up is
 * killed on the server and the connection is `broken`: only close() may follow. */
#ifndef LOCKSTEP_ENGINES_MYSQL_MY_H
#define LOCKSTEP_ENGINES_MYSQL_MY_H

#include "engines/def.h"

#include <mysql.h>

#define MY_TIMEOUT_DEFAULT_MS 30000
/* The control schema is a database of this name. */
#define MY_CONTROL "lockstep"
/* Databases that are the server's own, for IN (…). */
#define MY_SYSTEM_SCHEMAS "'mysql', 'information_schema', 'performance_schema', 'sys', 'ndbinfo'"

/* What another file of the driver keeps with a connection; freed by close(). */
struct my_slot {
    void *data;
    void (*release)(void *data);
};

struct my_db {
    struct db base;
    MYSQL *conn;
    char *uri;       /* with its password: never in a message */
    char where[300]; /* host:port, for messages */
    char migration[40];
    enum db_use use;
    int timeout_ms; /* longest wait without progress; may be changed between statements */
    bool back;
    struct fence_settings fence; /* borrowed from the options' owner, who outlives us */
    bool maria;                  /* MariaDB, not MySQL */
    bool sealed;                 /* the last that was said over it to the fence sealed it */
    int version;                 /* 101119, 90704 */
    size_t max_packet;           /* the server's max_allowed_packet */
    bool in_txn;
    bool idle_limited; /* until the transaction ends */
    bool broken;       /* a wait was given up or the connection was lost: close it */
    bool has_savepoint;
    bool has_origin; /* a row of lockstep.origin is this connection's */
    bool holds_schema_lock;
    bool large;  /* a large row went through: renewed when the transaction has ended */
    bool permit; /* wait.c: that of large rows, for the row that was fetched last */
    struct my_slot read;
    struct my_slot load;
    struct my_slot scan;
    struct my_slot apply;
    struct my_slot setter; /* sequence.c */
    unsigned marks;        /* set over this connection */
    unsigned looks;        /* for writers, over this connection */
};

static inline struct my_db *my_db_from(struct db *db)
{
    return (struct my_db *)(void *)db;
}

/* ---- session.c: connections ---- */

/* Opens with lockstep's session settings: utf8mb4, time_zone '+00:00', strict mode, autocommit off
 * inside my_begin() only; DB_LOAD and DB_APPLY also foreign_key_checks = 0. */
int my_connect(const struct db_options *o, struct my_db **out, struct err *e);
void my_slot_release(struct my_slot *slot); /* leaves it empty */

/* ---- wait.c: statements ---- */

/* One statement without rows of interest; *affected (may be NULL): rows matched, not only changed
 * (CLIENT_FOUND_ROWS is on). */
int my_exec(struct my_db *db, const char *sql, size_t len, uint64_t *affected, struct err *e);
/* Several statements, separated by semicolons, in one message: affected[i] of each of the first n.
 * The first that fails ends them: *done is then its index (those before it have run), else their
 * number. */
int my_exec_each(struct my_db *db, const char *sql, size_t len, uint64_t *affected, size_t n,
                 size_t *done, struct err *e);
/* As my_exec_each, of n statements, with the rows: out[i] are those of statement i, for the caller
 * to free, NULL where it has none, which is an error for the statements in `with_rows` (1 << i). On
 * an error there are none of any. */
int my_query_each(struct my_db *db, const char *sql, unsigned with_rows, MYSQL_RES **out, size_t n,
                  struct err *e);
int my_execf(struct my_db *db, struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* All rows at once, for small results: mysql_free_result() it. NULL: error. */
MYSQL_RES *my_query(struct my_db *db, const char *sql, struct err *e);
MYSQL_RES *my_queryf(struct my_db *db, struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Row by row; until my_stream_free() the connection takes no other statement. */
MYSQL_RES *my_query_stream(struct my_db *db, const char *sql, size_t len, struct err *e);
/* 1: *row and its lengths, borrowed until the next call; 0: the end; -1. */
int my_fetch(struct my_db *db, MYSQL_RES *res, MYSQL_ROW *row, unsigned long **lengths,
             struct err *e);
/* Frees what my_query_stream() gave; before its end the server is told to stop, so that the rest of
 * the rows need not be read. Takes NULL. */
void my_stream_free(struct my_db *db, MYSQL_RES *res);
/* Sets e from the connection's last error by the classes of engines/engine.h; `doing` (may be NULL)
 * stands in front. Returns -1. Lost connections mark it broken. */
int my_fail(struct my_db *db, const char *doing, struct err *e);
/* The same from a number, for errors that come by other ways (the binlog's packets). */
int my_fail_code(unsigned code, const char *sqlstate, const char *text, struct err *e);

/* ---- text.c ---- */

void my_ident(struct buf *b, const char *name);                      /* `quoted` */
void my_ident2(struct buf *b, const char *schema, const char *name); /* `schema`.`name` */
void my_literal(struct buf *b, const char *s, size_t len); /* 'escaped', whatever the sql_mode */
/* Columns of a row: borrowed; NULL if SQL NULL. */
int64_t my_int(const char *text); /* 0 if NULL */

/* ---- values.c: a value's text between server and kind ---- */

/* A literal for column `here` of this server that holds exactly v: numbers bare, bytes as X'…',
 * true as 1, "2024-01-31 10:00:00.5+00" as a UTC datetime. ERR_DATA: no such value on this server
 * (NaN, infinity, BC), which names the column. UNCHANGED is a bug. */
int my_value_literal(struct buf *out, const struct column *here, const struct value *v,
                     struct err *e);
/* The expression by which a column is read so that snapshot and binlog agree to the bit (floats as
 * double, binary raw, time in UTC). */
void my_value_select(struct buf *out, const struct column *here);
/* What the server printed for that expression -> the kind's form; text from the arena. ERR_DATA: a
 * value that the kind does not have (a zero date, 2 in a boolean), named with its column. */
int my_value_read(struct arena *a, const struct column *here, const char *text, unsigned long len,
                  struct value *out, struct err *e);

/* ---- binlog_file.c ---- */

/* The name of the binlog file with this number ("mysql-bin.000042"); ERR_FATAL: purged. */
int my_binlog_name(struct my_db *db, uint64_t number, char *out, size_t size, struct err *e);
/* "mysql-bin.000042" -> 42; -1: not such a name. */
int my_binlog_number(const char *name, uint64_t *out);

/* ---- the vtable's functions, by file ---- */

/* session.c */
int my_open(const struct db_options *o, struct db **out, struct err *e);
void my_close(struct db *db);
int my_begin(struct db *db, struct err *e);
int my_limit_idle(struct db *db, int ms, struct err *e);
int my_commit(struct db *db, struct err *e);
int my_rollback(struct db *db, struct err *e);
int my_savepoint(struct db *db, struct err *e);
int my_rollback_to(struct db *db, struct err *e);

/* control.c */
int my_clock_ms(struct db *db, int64_t *out, struct err *e);
int my_identify(struct db *db, struct server_identity *out, struct err *e);
/* Whether it takes another server's changes: replicas that are set up, and one whose thread runs.
 * ERR_REFUSED: the account may not ask (SLAVE MONITOR on MariaDB, REPLICATION CLIENT on MySQL). */
struct my_replication {
    bool configured;
    bool running;
};
int my_replication_state(struct my_db *db, struct my_replication *out, struct err *e);
int my_sync(struct db *db, struct err *e);
int my_current_position(struct db *db, struct position *out, struct err *e);
void my_position_text(struct position p, char *out, size_t size);
int my_position_find(struct db *db, const char *text, struct position *out, struct err *e);
int my_position_distance(struct db *db, struct position from, struct position to, uint64_t *out,
                         struct err *e);
int my_control_install(struct db *db, enum db_side side, struct err *e);
int my_control_remove(struct db *db, enum db_side side, struct err *e);
int my_control_exists(struct db *db, bool *out, struct err *e);
int my_fact_get(struct db *db, const char *kind, const char *key, bool lock, struct fact *out,
                struct err *e);
int my_fact_scan(struct db *db, const char *kind, const char *prefix, struct fact **out, size_t *n,
                 struct err *e);
int my_fact_put(struct db *db, const char *kind, const char *key, int64_t expect,
                const json_t *body, struct err *e);
int my_fact_delete(struct db *db, const char *kind, const char *key, struct err *e);
int my_settle(struct db *db, int timeout_ms, struct err *e);
int my_retention(struct db *db, struct arena *a, struct retention *out, struct err *e);

/* catalog.c, check.c, describe.c, types.c, render.c */
void my_home_schema(const char *uri, char *out, size_t size);
int my_describe(struct db *db, const struct table_list *tables, struct arena *a,
                struct schema_def *out, struct err *e);
void my_column_for(const struct column_def *from, bool native, struct arena *a, struct column *to,
                   struct verdict *out);
/* collate.c */
void my_judge_pair(struct db *source, struct db *target, const struct table_def *def,
                   struct verdict *verdicts, struct arena *a, struct findings *out);
/* Appends " COLLATE …" so that each of the two servers reads what it has. */
void my_collate(struct buf *b, const char *collation);
bool my_same_type(const struct column *a, const struct column *b); /* check_target.c */
int my_unfit_values(struct db *db, const struct table_def *def, const struct verdict *verdicts,
                    struct arena *a, struct findings *out, struct err *e);
int my_schema_render(const struct schema_def *def, bool native, struct arena *a,
                     struct schema_steps *out, struct err *e);
int my_tables(struct db *db, const struct selection *s, struct arena *a, struct table_list *out,
              struct err *e);
int my_check(struct db *db, const struct check_request *r, struct arena *a, struct findings *out,
             struct err *e);
int my_schema_run(struct db *db, const char *sql, bool online, struct err *e);
int my_schema_settle(struct db *db, struct err *e);
/* "schema.name" against the selection's patterns (catalog.c). */
bool my_selected(const struct selection *s, const char *schema, const char *name);

/* cut.c */
extern const struct cut_ops my_cut_ops;
/* chunk.c, read.c, locate.c, load.c, stream.c */
int my_stream_create(const struct db_options *o, const struct table_list *tables, bool retry,
                     struct arena *a, struct stream_origin *out, struct err *e);
int my_chunk_plan(struct db *db, const struct table *t, uint64_t bytes, bool by_blocks,
                  struct arena *a, struct range_list *out, struct err *e);
int my_read_begin(struct db *db, const struct read_request *r, struct arena *a, struct cut *cut,
                  struct err *e);
int my_read_next(struct db *db, struct block *out, struct err *e);
int my_read_end(struct db *db, uint64_t *rows, struct err *e);
int my_locate(struct db *db, const struct table *t, const struct range_list *ranges,
              const struct row *const *keys, size_t n, size_t *out, struct err *e);
int my_load_begin(struct db *db, const struct table *t, enum block_format f, struct err *e);
int my_load_block(struct db *db, const struct block *b, struct err *e);
int my_load_end(struct db *db, uint64_t *rows, struct err *e);
int my_stream_open(const struct stream_request *r, struct stream **out, struct err *e);
int my_stream_next(struct stream *s, int timeout_ms, struct event *out, struct err *e);
int my_stream_ack(struct stream *s, struct position p, bool now, struct err *e);
void my_stream_close(struct stream *s);
int my_stream_drop(const struct db_options *o, struct err *e);

/* apply*.c, verify.c */
int my_apply_set(struct db *db, const struct change_set *s, uint64_t *affected, struct err *e);
int my_apply_row(struct db *db, const struct change *c, uint64_t *affected, struct err *e);
int my_apply_rows(struct db *db, const struct change *const *changes, size_t n, uint64_t *affected,
                  size_t *failed, struct err *e);
int my_truncate(struct db *db, const struct table *const *tables, size_t n, bool restart,
                struct err *e);
int my_pin_source(const struct db_options *o, struct arena *a, struct pin *out, struct err *e);
int my_pin_target(struct db *db, char *snapshot, size_t size, struct err *e);
int my_scan_begin(struct db *db, const struct table *t, const char *snapshot,
                  const struct row *const *keys, size_t nkeys, struct err *e);
int my_scan_next(struct db *db, const struct row **out, struct err *e);
int my_scan_end(struct db *db, struct err *e);

/* fence.c, sequence.c */
int my_fence_install(struct db *db, const struct table_list *tables, int budget_ms, struct err *e);
int my_fence_remove(struct db *db, struct err *e);
int my_fence_flip(struct db *db, const char *token, uint32_t epoch, int lease_ms, int budget_ms,
                  struct err *e);
int my_fence_take(struct db *db, const char *token, uint32_t epoch, struct err *e);
int my_fence_renew(struct db *db, const char *token, int lease_ms, struct err *e);
/* InnoDB shows a copy of its transactions that is made anew only if nobody has read it for 0.1 s.
 */
#define MY_LOOKS_APART_MS 105
/* Of a row of information_schema.innodb_trx: is it our own, and is this its question, by the number
 * of the look (++looks)? If so the copy is no earlier one. */
#define MY_OUR_LOOK                                                                                \
    "(trx_mysql_thread_id = CONNECTION_ID() AND locate('lockstep looks, %u', trx_query) > 0)"
/* Sets *e: no copy was newer than the first question. -1. */
int my_list_is_stale(const struct my_db *db, struct err *e);
int my_fence_wait(struct db *db, const struct fence_wait *w, struct fence_report *out,
                  struct err *e);
int my_fence_seal(struct db *db, const char *token, uint32_t epoch, struct err *e);
int my_fence_lift(struct db *db, const char *token, struct err *e);
int my_fence_state(struct db *db, struct fence_state *out, struct err *e);
int my_mark(struct db *db, const char *token, struct err *e);
/* fence_check.c: appends what the fence lacks on this server; `object` is "source" or "target",
 * `schemas` names the migrated databases: " IN ('shop')". */
void my_fence_findings(struct my_db *db, const char *object, const char *schemas, struct arena *a,
                       struct findings *out);
int my_sequences(struct db *db, const struct selection *s, struct arena *a,
                 struct sequence_list *out, struct err *e);
int my_sequence_set(struct db *db, const struct sequence_value *v, struct err *e);

#endif
