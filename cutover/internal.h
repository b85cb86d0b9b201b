/* Internal to cutover/. */
#ifndef LOCKSTEP_CUTOVER_INTERNAL_H
#define LOCKSTEP_CUTOVER_INTERNAL_H

#include "control/plan.h"
#include "cutover/cutover.h"

#include "control/way.h"

#include <pthread.h>
#include <stdarg.h>

/* How long a writer that the fence met may go on before its session is ended. */
#define GRACE_MS 100
/* How often a coordinator that waits looks. */
#define POLL_MS 1

/* Which way: the same table serves the way back with the ends exchanged. */
struct road {
    const char *direction; /* the state row's key, and what the hook is told */
    const char *stream;    /* whose checkpoint says how far apply is */
    struct endpoint closing;
    struct endpoint opening;
};

/* The other direction's row, on the closing side. */
struct other_row {
    bool known; /* it could be read (also: there is none) */
    int64_t version;
    enum cutover_state state;
    uint32_t epoch;
    json_t *body; /* NULL: there is none */
};

struct marker {
    char token[TOKEN_MAX];
    struct position beyond; /* a frontier that lies behind the marker */
};

/* What the pause is made of; predict.c tells of each how often. A round takes them in this order.
 */
enum pause_part {
    PART_GUARDS,
    PART_RECORD,
    PART_OPEN,
    PART_FENCE,
    PART_ARM,
    PART_SEQUENCES,
    PART_WRITERS,
    PART_DRAIN,
    PART_DIGEST,
    PARTS
};
#define PREDICT_ROUNDS 5

struct spread {
    int64_t low;
    int64_t expected;
    int64_t high;
};

/* The rounds of measuring, in `prepared`. */
struct predict {
    int rounds;   /* that are over */
    bool marked;  /* one is waiting for its marker */
    bool passed;  /* the marker of the last one that is over came through */
    bool judged;  /* and it fits */
    int unlisted; /* rounds in which the writers could not be seen */
    struct err unlisted_why;
    size_t nstanding; /* prepared transactions that stood in every round */
    uint64_t standing[FENCE_PREPARED_MAX];
    struct err standing_why;
    int64_t marked_ms;
    int64_t ms[PARTS][PREDICT_ROUNDS]; /* the last ones */
    bool reading_broke;                /* the digest's connections are in the middle of a table */
    int reading_failures;              /* how often one could not be read in time */
};

/* Both sides', as they were read last. */
struct sequences_seen {
    struct arena arena;
    struct sequence_list closing;
    struct sequence_list opening;
    int64_t read_ms;  /* before the closing side's were read */
    uint64_t changes; /* that apply had made before the opening side's were read */
};

/* Keeps the fence's lease and the coordinator's alive (renew.c). */
struct renewer {
    const struct cutover *c;
    pthread_t thread;
    pthread_mutex_t mutex; /* held during each renewal, so that renewing can be ended for sure */
    bool running;
    bool quit;
    bool fence;   /* the fence's lease is to be renewed */
    int64_t next; /* mono_ms of the next renewal */
    int64_t ends; /* mono_ms at which the lease has ended by our own clock */
    bool lost;    /* it could not be renewed */
    char why[300];
    struct db *closing;
    struct db *opening;
    int64_t next_own;
};

struct cutover {
    const struct cutover_request *r;
    struct road road;
    struct migration mirror;
    const struct migration *m;    /* of the road */
    const struct migration *turn; /* of the way back from its end: the other direction */
    struct db *closing;
    struct db *opening;
    struct db *reading[2]; /* of the closing and the opening side, for the digest; or NULL */
    struct arena arena;
    struct table_list tables;
    bool begun;
    bool leased;            /* we hold the coordinator's lease */
    bool taken;             /* and the row: something may have been changed */
    int64_t clock_ahead_ms; /* of mono_ms: the opening side's clock */

    /* the state row */
    int64_t version;
    enum cutover_state state;
    json_t *body;
    uint32_t epoch;
    char token[TOKEN_MAX];
    struct other_row other;

    /* the step at hand */
    const struct cutover_row *row; /* NULL: none is begun */
    bool entered;                  /* its intent is recorded */
    bool waits;                    /* its step has nothing to do for the moment */
    bool prepared;                 /* by us */
    int stage;                     /* where a step with several parts stands */
    int turn_stage;                /* the same of turn_prepare */
    int64_t turn_ms;
    struct marker turn_marker;
    int64_t began_ms;
    struct marker marker;
    int64_t stall_ms; /* mono_ms from which on it is asked who brings it */
    uint64_t changes; /* that apply had made when it was past the marker */
    struct predict predict;
    struct sequences_seen sequences;

    /* a rehearsal */
    enum cutover_state was; /* as it was found */
    int leg;
    int64_t leg_ms; /* its begin; 0: it has not begun */
    bool rehearsed; /* it is over */

    /* the pause */
    int64_t looked_ms; /* mono_ms of the last look for writers on the closing side, or 0 */
    bool flipped;
    int64_t flipped_ms;
    int64_t failed_ms;  /* mono_ms of the first failure behind `closed`; 0: none */
    bool closing_tried; /* `closed` may have been written */
    struct renewer renewer;
};

/* ---- state.c: the one setter ---- */

/* Reads the row; a missing one is `none`. */
int state_load(struct cutover *c, struct err *e);
/* Makes both rows ours under a new epoch; the states stay. ERR_FENCED: one has moved since it was
 * read. */
int state_take(struct cutover *c, struct err *e);
/* state (by a legal pair) and going (the state aimed at, "undo", or NULL). ERR_FENCED: another
 * coordinator took over. ERR_RETRY, ERR_UNKNOWN: the outcome is not known. */
int state_set(struct cutover *c, enum cutover_state state, const char *going, struct err *e);
/* Locks the row in the open transaction of the opening side; ERR_FENCED if it is not ours. */
int state_hold(struct cutover *c, struct err *e);
/* ERR_FENCED if the row is not ours any more; asked outside of a transaction, before something that
 * cannot be had back is taken away. */
int state_check(struct cutover *c, struct err *e);
/* What the row says that is being done: a state's name, "undo", or NULL. */
const char *state_going(const struct cutover *c);
void state_clear(struct cutover *c);

/* ---- record.c ---- */

#define UTC_MAX 40

/* What the row tells beside its state; written with the next state_set. Takes the reference over.
 */
void note(struct cutover *c, const char *name, json_t *value);
/* Reads the opening side's clock, from which times are counted. */
int clock_begin(struct cutover *c, struct err *e);
/* Now, by that clock: "2025-12-31 23:59:59.999 UTC"; returns out. */
const char *clock_text(const struct cutover *c, char out[UTC_MAX]);
void note_time(struct cutover *c, const char *name);
/* Forgets what the row tells of an earlier attempt. */
void notes_begin(struct cutover *c);
/* A step that is done, or a part of a rehearsal. */
void note_step(struct cutover *c, const char *name, int64_t took_ms);

/* ---- other.c: the other direction ---- */

/* Reads its row from the closing side, if that can be reached. */
int other_load(struct cutover *c, struct err *e);
/* Which direction holds? A `switched` that the other direction has passed since is `none`.
 * ERR_REFUSED: the other direction is under way, or there is nothing to roll back. */
int other_resolve(struct cutover *c, struct err *e);
/* ERR_REFUSED: no cutover, so no rollback. */
int other_refuse_unmade(struct err *e);
/* Writes its row anew as it is, so that whoever conducts it cannot move it any more. */
int other_take(struct cutover *c, struct err *e);
/* It still is as we left it; ERR_FENCED: somebody took it, or made it, meanwhile. */
int other_hold(struct cutover *c, struct err *e);
/* We are switched: it is not any more. Best effort, the epochs tell it too. */
void other_reset(struct cutover *c);
/* The opening side has been closed by a switch: it is never opened but by another one. */
bool other_closed_it(const struct cutover *c);

/* ---- turn.c: the way back from the end of the road ---- */

/* 1: it carries (or there is none to be had, and that is said); 0: not yet; -1. */
int turn_prepare(struct cutover *c, struct err *e);
/* Takes it away again. */
int turn_forget(struct cutover *c, struct err *e);

/* ---- checks.c ---- */

struct check_result {
    bool holds;
    char text[400]; /* what is so, or what stands in the way */
    char remedy[300];
};
struct check {
    enum cutover_check bit;
    const char *name;
    int (*look)(struct cutover *c, struct check_result *out, struct err *e);
};
extern const struct check cutover_checks[CUTOVER_CHECKS];
/* ERR_REFUSED names all that do not hold. */
int checks_demand(struct cutover *c, unsigned wanted, struct err *e);

/* ---- steps.c ---- */

/* A look for writers on the closing side would be slow now (engine.looks_apart_ms). */
bool looked_just_now(const struct cutover *c);
int step_prepare(struct cutover *c, struct err *e);
int step_fence(struct cutover *c, struct err *e);
int step_drain(struct cutover *c, struct err *e);
int step_settle(struct cutover *c, struct err *e);
int step_close(struct cutover *c, struct err *e);
int step_switch(struct cutover *c, struct err *e);
/* ERR_REFUSED: the side that this road has opened is fenced or sealed, by a later switch. */
int demand_open(struct cutover *c, struct err *e);
int undo_prepare(struct cutover *c, struct err *e);
int undo_fence(struct cutover *c, struct err *e);
int undo_nothing(struct cutover *c, struct err *e);
/* Is there a stream that begins on the side that opens? */
bool has_turn(const struct cutover *c);
/* A marker in the log of `db`. */
int marker_set(struct cutover *c, struct db *db, const char *suffix, struct marker *m,
               struct err *e);
/* 1: the apply whose checkpoint stands on `db` is past the marker; 0: not yet. */
int marker_reached(struct cutover *c, struct db *db, const struct marker *m, struct checkpoint *at,
                   struct err *e);

/* Sets c->marker in the closing side's log. */
int mark_closing(struct cutover *c, const char *suffix, struct err *e);
/* 1: apply is past c->marker; 0: not yet. What it wrote is durable when a later commit is. */
int marker_passed(struct cutover *c, struct err *e);
/* ERR_REFUSED: it has been waited for as long as a pause may be. */
int marker_too_late(const struct cutover *c, struct err *e);

/* ---- predict.c: the pause, measured before anybody is refused a write ---- */

void predict_begin(struct cutover *c);
/* Keeps of those that stood in every round before the ones that stand in this one, too. */
void predict_prepared(struct predict *p, const struct fence_report *report);
/* As a step: 1 the prediction is noted and fits (or this is a rehearsal), 0 call again, -1.
 * ERR_REFUSED: it does not fit into max_pause. */
int predict_step(struct cutover *c, struct err *e);
/* From n samples of each part in milliseconds: what each contributes, and the sum. Pure. */
struct spread predict_sum(const int64_t samples[PARTS][PREDICT_ROUNDS], int n,
                          struct spread each[PARTS]);

/* ---- rehearse.c ---- */

/* What a rehearsal does in the place of the table's rows. */
extern const struct cutover_row rehearsal_row;
/* ERR_REFUSED: a switch is under way, or made. */
int rehearsal_allowed(const struct cutover *c, struct err *e);

/* ---- ahead.c ---- */

enum ahead {
    AHEAD_SET,   /* to *to */
    AHEAD_KEPT,  /* it is beyond all that the closing side gave already */
    AHEAD_UNSAFE /* it counts the other way through numbers that the closing side gave */
};
/* Where a counter of the side that opens goes, by what was read of its counterpart. *left: how many
 * numbers it can still give, if that is why the margin had to be cut; else UINT64_MAX. */
enum ahead sequence_ahead(const struct sequence_value *from, const struct sequence_value *there,
                          struct sequence_value *to, uint64_t *left);

/* ---- sequences.c ---- */

/* The closing side's first. */
int sequences_read_closing(struct cutover *c, struct err *e);
int sequences_read_opening(struct cutover *c, struct err *e);
/* Apply is past c->marker: reads again what it has changed since, or what was read long ago. */
int sequences_refresh(struct cutover *c, struct err *e);
/* Sets those of the opening side that differ, by what was read, while the row is ours. */
int sequences_set(struct cutover *c, struct err *e);
/* Reads and sets. */
int sequences_copy(struct cutover *c, struct err *e);

/* ---- digest.c ---- */

/* Connects, while there is time for it. Without a connection there is no digest, and that is said.
 */
void digest_open(struct cutover *c);
/* Reads as digest_compare does, for the prediction; 0. Behind it, outside of what is measured,
 * digest_again(). */
int digest_measure(struct cutover *c, struct err *e);
void digest_again(struct cutover *c);
/* Compares what it can of the quiet pair, and notes it. ERR_CONFLICT: a table differs. */
int digest_compare(struct cutover *c, struct err *e);
void digest_close(struct cutover *c);

/* ---- renew.c ---- */

int renewer_start(struct cutover *c, struct err *e);
/* From now on the fence's lease, which was just taken, is renewed. */
void renewer_fence(struct cutover *c);
/* When this returns, no renewal is under way and none comes. */
void renewer_release_fence(struct cutover *c);
/* Without a thread: renews if it is due. */
void renewer_tick(struct cutover *c);
/* True and why, if the lease could not be renewed. */
bool renewer_lost(struct cutover *c, char *why, size_t size);
void renewer_stop(struct cutover *c);

/* ---- stage.c: the reads, ahead of the writes ---- */

/* Reads are to be taken back, and none have gone ahead. */
bool stage_is_over(const struct cutover *c);
/* ERR_REFUSED: past `closed` there are no stages any more. */
int stage_demand(const struct cutover *c, struct err *e);
/* Is it the hook's turn? */
bool stage_is_due(const struct cutover *c);
/* 1 done, -1. */
int stage_step(struct cutover *c, struct err *e);
/* The side that reads have gone ahead to, NULL: none have. */
const char *stage_reads_at(const struct cutover *c);

/* ---- hook.c ---- */

/* 0 and *failed empty if there is no hook or it succeeded; a failed hook is said in *failed. */
int hook_run(struct cutover *c, char *failed, size_t size, struct err *e);

/* ---- driver.c ---- */

int connect_sides(struct cutover *c, struct err *e);
int connect_opening(struct cutover *c, struct err *e);
int connect_closing(struct cutover *c, struct err *e);
/* ERR_REFUSED: there is none. Both rows, and which of them holds. */
int load_migration(struct cutover *c, struct err *e);
void disconnect_sides(struct cutover *c);
void say(const struct cutover *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* mono_ms since the fence was flipped; 0 before. */
int64_t pause_ms(const struct cutover *c);

#endif
