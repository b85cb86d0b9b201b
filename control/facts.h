/* clang-format off */
/* The facts that must survive, as rows of the target's control table (engine.h: fact_*).
 *
 *   kind       key                 body
 *   migration  "self"              source and target identity, back, created_ms      (create once)
 *   stream     "forward"           state creating|created, start, epoch, common cut and snapshot
 *   table      "public.orders"     its planned shape's facts: chunks, common (cut), state, settled
 *   chunk      "public.orders/001-000012"  range, state planned|claimed|done, holder, until_ms,
 *                                  cut …
 *   shape      "public.orders"     the table as it was planned: columns, types, key (control/plan.h)
 *   step       "2/000007"          a schema step: name, sql …, state planned|ready|running|done
 *   phase      "load"              how far the conductor is (enum load_phase)
 *   turn       "conductor"         whose turn it is: raised by each conductor that takes over
 *   checkpoint "forward"           next, record, generation, epoch, marker, ts_us, totals
 *   lane       "public.orders"     state, next, record, reason
 *   lease      "capture"           holder, until_ms (server clock)
 *   request    "park/public.x" …   what a command asks of a running stage; removed when obeyed
 *   answer     …                   what the stage replies
 *   cutover    "forward"           the state row (cutover/)
 *   foreign    "forward"           what came past the seal of the stream's source (foreign.h)
 *
 * Each direction's facts live on its own target: those of the way back on the original source,
 * under the same keys (its stream is called "forward" there too), but for the cutover's row, whose
 * key is the direction: "forward" or "back".
 *
 * Every function takes the caller's own connection to the target; where it says "in a transaction"
 * the caller has one open, and the fact is true exactly if that transaction commits.
 */
/* clang-format on */
#ifndef LOCKSTEP_CONTROL_FACTS_H
#define LOCKSTEP_CONTROL_FACTS_H

#include "control/migration.h"

#define HOLDER_MAX 100
#define TOKEN_MAX 40

/* ---- small facts ---- */

/* Reads a fact's body: 1 and *body (json_decref it), 0 absent (*body NULL), -1. version may be
 * NULL. */
int fact_read(struct db *db, const char *kind, const char *key, json_t **body, int64_t *version,
              struct err *e);
/* Writes whatever was there before; body's reference is taken over. */
int fact_write(struct db *db, const char *kind, const char *key, json_t *body, struct err *e);
/* Compare and set; body's reference is taken over. ERR_FENCED if the version is not `expect`. */
int fact_cas(struct db *db, const char *kind, const char *key, int64_t expect, json_t *body,
             struct err *e);
/* Members, checked: ERR_FATAL names the fact if missing or of another type. */
const char *fact_text(const json_t *body, const char *member); /* NULL if absent or null */
int64_t fact_int(const json_t *body, const char *member, int64_t absent);
bool fact_bool(const json_t *body, const char *member);
int fact_position(const json_t *body, const char *member, struct position *out, struct err *e);
json_t *position_json(struct position p);

/* ---- migration ---- */

/* Creates the row of m (which may be a way back), or compares both servers' identities with it:
 * ERR_REFUSED names what differs (another server, a changed timeline, a second migration of this
 * name). */
int migration_register(const struct migration *m, struct db *target,
                       const struct server_identity *source_id,
                       const struct server_identity *target_id, struct err *e);
/* The way back's facts look like those of a migration in the other direction. ERR_REFUSED: such
 * stand on db, m's target, while m is no way back: its source and target are exchanged. Asked where
 * a target is opened for DB_CONTROL (migration_open_target, cutover/driver.c). */
int migration_check_way(const struct migration *m, struct db *db, struct err *e);

/* m's journal, its owner as told by the facts on db, which are those of m's direction; without
 * facts none. Two migrations of one name differ by it. */
struct owned_journal {
    struct journal_options options;
    char owner[JOURNAL_OWNER_MAX + 1];
};
int owned_journal(const struct migration *m, struct db *db, struct owned_journal *out,
                  struct err *e);

/* ---- stream ---- */

enum stream_state { STREAM_NONE, STREAM_CREATING, STREAM_CREATED };
struct stream_fact {
    enum stream_state state;
    uint32_t epoch;
    struct position start;
    struct cut cut;       /* the common cut; text NULL if none */
    const char *snapshot; /* may be dead; the cut read under it tells */
    int64_t version;
};
int stream_fact_load(struct db *db, struct arena *a, struct stream_fact *out, struct err *e);
/* Compare and set on seen->version, which rises. ERR_FENCED: another conductor is at it. */
int stream_fact_creating(struct db *db, struct stream_fact *seen, struct err *e);
int stream_fact_created(struct db *db, const struct stream_fact *seen,
                        const struct stream_origin *origin, struct err *e);
/* The common snapshot is gone: chunks that are left get cuts of their own. */
int stream_fact_forget_snapshot(struct db *db, struct err *e);

/* ---- load phase ---- */

enum load_phase {
    LOAD_NONE,    /* nothing happened yet */
    LOAD_STREAM,  /* publication and slot exist: capture may run */
    LOAD_SCHEMA,  /* steps are planned and SCHEMA_PRE is done */
    LOAD_PLANNED, /* all chunks are in the ledger as planned */
    LOAD_LOADED,  /* all chunks done, keys and plain indexes there: apply may start */
    LOAD_OVERLAP, /* apply is past the highest cut; unique, foreign keys … are being built */
    LOAD_DONE
};
const char *load_phase_name(enum load_phase p);
int load_phase_get(struct db *db, enum load_phase *out, struct err *e);
/* Only forward. ERR_FENCED: another conductor is further already. */
int load_phase_set(struct db *db, enum load_phase p, struct err *e);

/* ---- the conductor's turn ---- */

/* Takes it over; *turn is ours until another one does so. */
int turn_take(struct db *db, const char *holder, int64_t *turn, struct err *e);
/* First write of a transaction that goes by what was read before it: locks the row and checks that
 * it still is our turn. ERR_FENCED: another conductor took over. In a transaction. */
int turn_hold(struct db *db, int64_t turn, struct err *e);

/* ---- checkpoint: where apply stands; one a stream ---- */

/* Where a stream stands between the marks of the coordinators (control/foreign.h). */
struct turns {
    bool shut;      /* the side that it comes from is sealed, and perhaps closed */
    uint32_t epoch; /* of the mark that said so; one of a lower epoch comes too late to count */
};

struct checkpoint {
    int64_t version; /* of the fact; the compare-and-set */
    uint32_t epoch;
    uint32_t generation;    /* of the apply that owns it */
    struct position next;   /* frontier: everything with commit < next is applied */
    uint64_t record;        /* the journal record to read next */
    char marker[TOKEN_MAX]; /* the last marker passed */
    int64_t ts_us;          /* commit time of the last transaction applied; 0: none yet */
    uint64_t txns;          /* totals */
    uint64_t changes;
    struct turns turns;
};
/* 1 found, 0 none yet, -1. */
int checkpoint_load(struct db *db, const char *stream, struct checkpoint *out, struct err *e);
/* Takes it over for a new writer: generation + 1, creating it at `start` if there is none. */
int checkpoint_take(struct db *db, const char *stream, const struct checkpoint *start,
                    struct checkpoint *out, struct err *e);
/* First write of a target transaction: locks the row and checks that it is still ours.
 * ERR_FENCED: another apply took over. In a transaction. */
int checkpoint_hold(struct db *db, const char *stream, const struct checkpoint *mine,
                    struct err *e);
/* Compare-and-set from `mine` to `to`; raises to->version. In a transaction. ERR_FENCED. */
int checkpoint_advance(struct db *db, const char *stream, const struct checkpoint *mine,
                       struct checkpoint *to, struct err *e);

/* ---- lanes ---- */

enum lane_state { LANE_LOADING, LANE_FOLLOWING, LANE_PARKED, LANE_CATCHING_UP };
struct lane {
    const char *label;
    enum lane_state state;
    struct position next; /* parked, catching up: the lane has everything with commit < next … */
    uint64_t record;      /* … and goes on from this journal record */
    const char *reason;   /* parked */
    int64_t version;
};
struct lane_list {
    size_t n;
    struct lane *v;
};
const char *lane_state_name(enum lane_state s);
int lanes_load(struct db *db, struct arena *a, struct lane_list *out, struct err *e);
/* 1 found, 0, -1. */
int lane_load(struct db *db, const char *label, struct arena *a, struct lane *out, struct err *e);
/* Compare and set on lane->version (FACT_ABSENT creates); raises it. ERR_FENCED. */
int lane_store(struct db *db, struct lane *lane, struct err *e);

/* ---- leases, by the target server's clock ---- */

/* 1: ours until now + ms (taken, or renewed); 0: another holder's lease has not ended; -1. */
int lease_take(struct db *db, const char *name, const char *holder, int ms, struct err *e);
int lease_release(struct db *db, const char *name, const char *holder, struct err *e);
/* 1: somebody holds it (holder filled if not NULL), 0: nobody, -1. */
int lease_held(struct db *db, const char *name, char *holder, size_t size, struct err *e);

/* ---- requests and answers between commands and stages ---- */

/* A table's new shape, which apply asks capture to go by (docs/requests.md). */
#define REQUEST_RESHAPE "reshape/"
int request_put(struct db *db, const char *name, json_t *body, struct err *e);
/* Is a cutover on its way past `prepared`, or through? Then no lane may be taken off the stream any
 * more: what it lacked would be missing behind the switch. True also if that cannot be undone. */
int switch_under_way(struct db *db, bool *out, struct err *e);
int request_clear(struct db *db, const char *name, struct err *e);
int answer_put(struct db *db, const char *name, json_t *body, struct err *e);

#endif
