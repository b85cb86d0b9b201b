/* The insides of the scripted driver; only its own files include this. */
#ifndef LOCKSTEP_ENGINES_SCRIPTED_WORLD_H
#define LOCKSTEP_ENGINES_SCRIPTED_WORLD_H

#include "engines/scripted/driver.h"

#include <string.h>

#define TABLES 7
#define SESSIONS 5
#define NO_COLUMN ((size_t)-1)
/* A value from this length on counts as stored out of line: unchanged, it is not in the log. */
#define BIG_VALUE 24

/* Grows vec (a pointer) to hold n + 1 members; memory stays with the world. */
#define VEC_PUSH(w, vec, n, cap)                                                                   \
    (((n) == (cap) ? (void)((vec) = vec_grow((w), (vec), &(cap), sizeof(*(vec)))) : (void)0),      \
     &(vec)[(n)++])

/* ---- the source ---- */

enum txn_state {
    TXN_RUNNING,
    TXN_HUNG, /* committed in the log, running to everybody else */
    TXN_DONE,
    TXN_ABORTED
};
struct source_txn {
    uint64_t xid; /* 0 until it writes */
    enum txn_state state;
    struct txn txn;
    struct change *changes;
    size_t nchanges;
    size_t cap;
    int left;         /* writes still to come */
    bool passed;      /* a statement that the fence let pass holds its lock and has not written */
    unsigned wrote;   /* tables, as bits */
    unsigned emptied; /* tables that it truncated */
};
struct tuple {
    const struct row *row;
    uint64_t xmin;
    uint64_t xmax;
    uint64_t emptied; /* xid of a TRUNCATE that has not committed yet */
    bool dead;        /* rolled back, or truncated away: gone for every snapshot */
};
struct source_table {
    struct table *def;
    size_t unique; /* a column whose values are unique, or NO_COLUMN */
    size_t big;    /* a column with big values, or NO_COLUMN */
    struct tuple *tuples;
    size_t n;
    size_t cap;
    int readers;      /* snapshot reads that hold the table */
    uint64_t emptied; /* xid of the last committed TRUNCATE */
    uint64_t filenode;
};
struct snap {
    uint64_t xmin;
    uint64_t xmax;
    size_t n;
    uint64_t *xip;
    const char *text;
    struct position past;
};
struct log_entry {
    struct position at;
    struct position next;
    const struct source_txn *txn; /* or */
    const char *token;
};
struct exported {
    const char *name;
    struct snap snap;
    bool alive;
};

/* ---- the target ---- */

struct tx;
/* A row, a fact or a flag: `now` is what its owner's transaction sees, `was` what others see. */
struct slot {
    struct tx *owner;
    const struct row *now; /* NULL: no such row */
    const struct row *was;
};
struct target_fact {
    enum db_side side; /* those of the way back stand on the source */
    const char *kind;
    const char *key;
    struct tx *owner;
    json_t *now;
    json_t *was;
    int64_t now_version; /* 0: absent */
    int64_t was_version;
};
struct flag {
    struct tx *owner;
    int now;
    int was;
};
enum undo_kind { UNDO_ROW, UNDO_FACT, UNDO_FLAG };
struct undo {
    enum undo_kind kind;
    void *thing;
    const struct row *row;
    json_t *body;
    int64_t number;
};
struct tx {
    struct undo *undo;
    size_t n;
    size_t cap;
    size_t savepoint;
    bool failed;   /* a statement failed: only a rollback goes */
    bool deferred; /* unique columns are judged at the commit */
    bool async;
    bool coming; /* its client is gone and its commit is on the way */
};
struct target_table {
    struct source_table *source;
    struct slot **slots;
    size_t n;
    size_t cap;
    struct flag created;
    struct flag keyed;
    struct flag indexed; /* 1 built, 2 invalid: a concurrent build was cut off */
    struct flag constrained;
};

/* The committed rows of the target at one moment. */
struct target_pin {
    const char *name;
    const struct row **rows[TABLES];
    size_t n[TABLES];
};

/* The target's own log, from the moment that a way back may begin on it: marks, and what its
 * applications wrote. */
struct back_entry {
    struct position at;
    const char *token; /* NULL: a write */
    size_t table;
    const struct row *row; /* what it made, or took away */
};

/* A lease that has lapsed still stands here: the clock decides. */
struct fence {
    enum fence_mode mode;
    int64_t end_ms;
    uint32_t epoch;
    char token[40];
};

enum fence_moves { MOVE_FLIP, MOVE_TAKE, MOVE_RENEW, MOVE_SEAL, MOVE_LIFT };
struct fence_move {
    enum fence_moves what;
    enum db_side side;
    const char *token;
    uint32_t epoch;
    int lease_ms;
};
struct late_move {
    struct fence_move move;
    uint64_t due; /* by counts.calls */
};

/* Not transactional, on either end. */
#define SEQUENCES 2
struct sequence {
    int64_t last;
    bool called;
};

/* ---- a connection ---- */

struct conn {
    struct db db;
    struct scripted_world *w;
    struct conn *next;
    enum db_side side;
    enum db_use use;
    int actor;
    bool dead;
    struct tx *tx; /* target: the open transaction */
    /* A running read of the source, or scan of either end. */
    struct arena rows;
    const struct row **found;
    size_t nfound;
    size_t at;
    struct source_table *reading;
    bool scanning;
    enum block_format format;
    /* A running load into the target. */
    struct target_table *loading;
    uint64_t loaded;
    struct exported *holds; /* the snapshot that this connection keeps alive */
};

struct stream {
    struct scripted_world *w;
    struct stream *next;
    int actor;
    bool dead;
    size_t entry;
    size_t change;
    int place; /* in the entry: 0 before it, 1 in its changes */
    uint32_t epoch;
    uint64_t ref;
    struct position sent;
    int64_t keepalive_ms;
    struct position from;
    struct position wanted; /* acknowledged by the client, not sent yet */
    struct arena mem;
    const struct table **tables; /* by number */
};

struct scripted_world {
    struct scripted_options o;
    uint64_t rng;
    struct arena mem;
    struct scripted_counts counts;
    int actor;
    bool crashed;
    bool calm;
    bool silent;

    struct source_table source[TABLES];
    struct source_txn *session[SESSIONS];
    struct source_txn **txns; /* by xid - first_xid */
    size_t ntxns;
    size_t txns_cap;
    uint64_t first_xid;
    struct source_txn **hung;
    size_t nhung;
    size_t hung_cap;
    int begun;
    uint64_t values; /* a counter that makes values differ */
    struct log_entry *log;
    size_t nlog;
    size_t log_cap;
    uint64_t log_end;
    bool slot;
    struct position confirmed;
    struct exported **exports;
    size_t nexports;
    size_t exports_cap;
    struct fence fence[2];  /* by enum db_side */
    struct late_move *late; /* sent, and not there yet */
    size_t nlate;
    size_t late_cap;
    struct sequence numbers[SEQUENCES]; /* of the source */
    int64_t source_ms;

    struct target_table target[TABLES];
    struct target_fact **facts; /* sorted by kind, key */
    size_t nfacts;
    size_t facts_cap;
    struct tx **orphans;
    size_t norphans;
    size_t orphans_cap;
    struct tx **volatiles; /* asynchronous commits that a restart may lose, oldest first */
    size_t nvolatiles;
    size_t volatiles_cap;
    struct back_entry *back_log;
    size_t nback;
    size_t back_cap;
    uint64_t back_end;
    bool back_slot;
    struct position back_start;         /* what lies before it, the slot never had */
    struct sequence copied[SEQUENCES];  /* the target's */
    struct sequence durable[SEQUENCES]; /* what a restart leaves of them */
    struct target_pin *expected;        /* what the target must hold, since it is the live one */
    size_t expected_cap[TABLES];
    int64_t target_ms;
    struct target_pin **pins;
    size_t npins;
    size_t pins_cap;

    struct conn *conns;
    struct stream *streams;
    void (*on_call)(void *ctx);
    void *on_call_ctx;
};

/* world.c */
extern _Thread_local struct scripted_world *scripted_current;
uint64_t draw(struct scripted_world *w);
/* 0 … n-1 */
size_t draw_below(struct scripted_world *w, size_t n);
bool draw_chance(struct scripted_world *w, int of, int whole);
void *vec_grow(struct scripted_world *w, void *old, size_t *cap, size_t size);

/* faults.c: every call begins with conn_enter() and, if it had an effect, ends with conn_leave().
 */
struct conn *conn_of(struct db *db);
int conn_enter(struct conn *c, struct err *e);
int conn_leave(struct conn *c, struct err *e);
int stream_enter(struct stream *s, struct err *e);
int stream_leave(struct stream *s, struct err *e);
/* The same for calls that have no connection (stream_create, …). */
int world_enter(struct scripted_world *w, struct err *e);
/* What the harness wants to be told of; it may let others run before it returns. */
void world_tell(struct scripted_world *w);
void conn_cut(struct conn *c);
/* A connection that may break just before the server has what was sent: more often than others. */
int conn_lose(struct conn *c, struct err *e);
/* The world by itself: sessions, clocks, dead clients' transactions. */
void world_drift(struct scripted_world *w);
void settle_orphans(struct scripted_world *w, bool all);
void restart_source(struct scripted_world *w);
void restart_target(struct scripted_world *w);

/* tables.c */
void tables_make(struct scripted_world *w);
struct source_table *source_table_of(struct scripted_world *w, const struct table *t);
struct target_table *target_table_of(struct scripted_world *w, const struct table *t);
/* The server's own order of keys. */
int server_key_cmp(const struct table *t, const struct row *a, const struct row *b);
bool range_holds(const struct table *t, const struct range *r, const struct row *key, size_t block);
struct row *random_row(struct scripted_world *w, struct source_table *t);
void change_some(struct scripted_world *w, struct source_table *t, struct row *row);

/* source.c */
void source_step(struct scripted_world *w);
struct source_txn *txn_by_xid(struct scripted_world *w, uint64_t xid);
void source_commit(struct scripted_world *w, struct source_txn *t);
void source_abort(struct scripted_world *w, struct source_txn *t);
void source_drop_session(struct scripted_world *w, struct source_txn *t);
bool source_running(const struct source_txn *t);

/* fence.c */
bool fence_refuses(const struct scripted_world *w, enum db_side side);
/* What was sent on connections that have ended, and is due. */
void fence_arrivals(struct scripted_world *w);
/* A client takes a number: no fence and no rollback stands in its way. */
int64_t sequence_next(struct sequence *s, size_t number);

/* write.c */
void source_write(struct scripted_world *w, struct source_txn *t);

/* snap.c */
void snap_take(struct scripted_world *w, struct arena *a, struct snap *out);
bool snap_sees(const struct scripted_world *w, const struct snap *s, uint64_t xid);
bool tuple_seen(const struct scripted_world *w, const struct snap *s, const struct tuple *t);
struct exported *snap_export(struct scripted_world *w);
struct exported *snap_find(struct scripted_world *w, const char *name);

/* switch.c */
void back_log_add(struct scripted_world *w, const char *token, size_t table, const struct row *row);

/* target.c */
struct tx *tx_new(struct scripted_world *w);
int tx_commit(struct scripted_world *w, struct tx *tx, bool async, struct err *e);
void tx_rollback(struct scripted_world *w, struct tx *tx, size_t to);
void tx_release(struct scripted_world *w, struct tx *tx);
void tx_unpublish(struct scripted_world *w, struct tx *tx);
void volatiles_flush(struct scripted_world *w);
/* The transaction to work in: the open one, or one for this call alone (then *alone is true). */
struct tx *conn_tx(struct conn *c, bool *alone);
/* Ends a transaction of one call; otherwise marks the open one failed on error. */
int conn_tx_end(struct conn *c, struct tx *tx, bool alone, int rc, struct err *e);
void slot_set(struct scripted_world *w, struct tx *tx, struct slot *s, const struct row *row);
struct slot *slot_new(struct scripted_world *w, struct target_table *t);
int flag_set(struct scripted_world *w, struct tx *tx, struct flag *f, int value, struct err *e);
int lock_wait(struct scripted_world *w, struct err *e, const char *what);

#endif
