/* The switch of a migration from the side that closes to the side that opens (design.md §6).
 *
 * A table of states (table.c) and one driver (driver.c). The state stands in one row on the side
 * that opens (fact "cutover", key = direction) and is moved by compare-and-set only: the intent
 * before a step, its completion behind it. Whoever conducts has an epoch, one higher than any
 * before, and a token; the fences of both servers obey the highest epoch, so that a coordinator
 * that hung and wakes up late can neither open nor close anything.
 *
 *   none → prepared → fenced → drained → settled → closed → switched
 *
 * Before `closed` any failure, timeout or new coordinator undoes in reverse order: the closing side
 * is open again, the opening side stays sealed, the state is `prepared` (or what it
 * was, if the preparation itself failed). From `closed` on the road goes only forward. At no moment
 * both sides are writable for applications: the opening side is sealed from `prepared` on and
 * lifted behind a durable `closed`, which is written behind the closing side's seal.
 *
 * Everything speaks of the closing and the opening side, never of source and target, so that the
 * way back is the same table on the mirrored road. Each direction has a row of its own, on the side
 * that it opens; a coordinator takes both, so that the directions cannot be gone at once, and of
 * two rows that say `switched` the one of the higher epoch tells which side lives (row.c).
 *
 * A rehearsal (rehearse.c) walks the same steps but for the fence of the closing side, and leaves
 * things as they were.
 *
 * For tests only: the environment variable LOCKSTEP_TEST_KILL="settled:before" ends the process
 * with SIGKILL when the intent for that state is recorded and its step is about to begin; ":after"
 * when the step is done and its completion is not recorded yet. "closed:sealed" lies between the
 * seal and the second marker, "undo:before" and "undo:after" around an undo,
 * "switched:opened" between the lift and the hook, "rehearsed:before" and "rehearsed:after" around
 * the end of a rehearsal, which takes the preparation back, "reads:before" and "reads:after" around
 * the hook of the stage of reads; "verify:way" in `verify`, when it knows which way to compare and
 * has not begun. LOCKSTEP_TEST_STOP sends SIGSTOP instead, once.
 */
#ifndef LOCKSTEP_CUTOVER_CUTOVER_H
#define LOCKSTEP_CUTOVER_CUTOVER_H

#include "control/facts.h"

enum cutover_state {
    CUTOVER_NONE,
    CUTOVER_PREPARED,
    CUTOVER_FENCED,
    CUTOVER_DRAINED,
    CUTOVER_SETTLED,
    CUTOVER_CLOSED,
    CUTOVER_SWITCHED,
    CUTOVER_STATES
};
const char *cutover_state_name(enum cutover_state s);
/* -1 if unknown. */
int cutover_state_parse(const char *name);

/* What must hold before a step; checks.c has one function for each. */
enum cutover_check {
    CHECK_LOADED = 1,          /* the load is done, constraints and statistics are there */
    CHECK_LANES = 2,           /* every table follows */
    CHECK_STAGES = 4,          /* capture and apply are running, and have no lasting trouble */
    CHECK_LAG = 8,             /* apply is close behind */
    CHECK_QUIET = 16,          /* no command waits for apply to stand still */
    CHECK_CLOSING_OPEN = 32,   /* nobody else holds the closing side's fence */
    CHECK_OPENING_SEALED = 64, /* the opening side refuses applications, by our seal */
    CHECK_IN_TIME = 128, /* writes have been held for less than max_pause, the lease is ours */
    CHECK_FOREIGN = 256, /* nothing came past the seal of the side that opens, or it may stay */
    CHECK_FENCES = 512,  /* no other migration has moved the fences of these databases */
    CHECK_SHAPES = 1024, /* the tables of the closing side are as they were planned */
    CHECK_HOOK = 2048    /* the on_switch hook can be started, as far as can be told */
};
#define CUTOVER_CHECKS 12

struct cutover;

/* One row of the table. */
struct cutover_row {
    enum cutover_state from;
    enum cutover_state to;
    bool again; /* done again by each later call that finds `to`: what it proved grows old */
    /* enum cutover_check: asked before its intent is recorded; and by the step, beside a wait of
     * its own, where it costs nothing. */
    unsigned guard;
    unsigned beside;
    /* 1 done, 0 not yet: call again, -1. Idempotent. */
    int (*step)(struct cutover *c, struct err *e);
    /* Takes back what the step did or began; idempotent. NULL: the road goes only forward. */
    int (*undo)(struct cutover *c, struct err *e);
    const char *does;
    const char *undoes; /* NULL with undo */
    const char *why;
};
extern const struct cutover_row cutover_rows[];
extern const size_t cutover_row_count;
/* The row that leads on from `s`; NULL at the end. */
const struct cutover_row *cutover_row_from(enum cutover_state s);
/* May the state row go from `from` to `to`: by a row, by its undo, or by doing it again? */
bool cutover_pair_is_legal(enum cutover_state from, enum cutover_state to);

/* What of a switch is wanted (stage.c). */
enum cutover_stage {
    CUTOVER_STAGE_WRITES,    /* all of it */
    CUTOVER_STAGE_READS,     /* up to `prepared`, then the hook sends the reads ahead */
    CUTOVER_STAGE_READS_BACK /* the hook brings reads that went ahead on this road back */
};

struct cutover_request {
    const struct migration *m; /* as configured, for both directions */
    bool back;                 /* the road of the way back: `rollback` */
    enum cutover_stage stage;
    bool alone;    /* READS_BACK without the side that opens: it has died, and the row with it */
    bool way_back; /* `prepared` also makes the way back of the road, or finds that it carries;
                      false (simulation): there is none */
    int max_pause_ms;
    int lease_ms;  /* of the fence */
    int digest_ms; /* of the pause, at most, to compare the quiet pair; 0: it is not compared */
    bool accept_foreign;   /* what came past the seal of the side that opens may stay there */
    const char *on_switch; /* shell command, or NULL */
    const char *folder;    /* where on_switch runs; NULL: here */
    const char *source;    /* both URIs without passwords, for the hook and the record */
    const char *target;
    bool rehearse; /* everything but the fence of the closing side, then back to how it was */
    int rounds;    /* of measuring, for the prediction; 0: as many as are good */
    bool threads;  /* renew the lease from a thread of its own; false (simulation): in the steps */
    /* Is the process behind a lease's holder (ours, or a stage's) certainly dead? NULL: never
     * known. */
    bool (*holder_is_dead)(const char *holder);
    /* Tells how far it is; may be NULL. */
    void (*say)(void *ctx, const char *line);
    void *ctx;
};

/* Connects nothing yet. The request must outlive it. */
struct cutover *cutover_open(const struct cutover_request *r);
/* 1: at the end (switched, or rehearsed); 0: call again soon (within 5 ms, the pause depends on
 * it); -1: it failed, and was undone if it could be: the message says what stood in the way and how
 * things stand. After 1 or -1 it must only be closed. ERR_REFUSED: a guard refused. */
int cutover_step(struct cutover *c, struct err *e);
/* What is known of it (positions, sequences, durations): a new reference, for the record file. */
json_t *cutover_record(const struct cutover *c);
void cutover_close(struct cutover *c);

/* Of a record: "120 ms (90 to 310)". False: it has no prediction. */
bool cutover_predicted_text(const json_t *record, char *out, size_t size);
/* The record as a page (Markdown) for people, line by line. */
void cutover_print_record(const json_t *record, void (*emit)(const char *line, void *ctx),
                          void *ctx);

/* Steps to the end. *record may be NULL, else it receives cutover_record(), also with -1, and then
 * with what failed in it. */
int cutover_run(const struct cutover_request *r, json_t **record, struct err *e);

/* For --stage reads: r->back says whose side they are to go to (`rollback`: the source). Where the
 * applications write decides whether they go ahead of the writes or back to them; sets r's back,
 * stage and alone accordingly. Changes nothing else. */
int cutover_plan_reads(struct cutover_request *r, struct err *e);

/* Has the switch in this direction been made, so that cutover_run would change nothing? ERR_REFUSED
 * as cutover_run. Changes nothing. */
int cutover_is_over(const struct cutover_request *r, bool *over, struct err *e);

/* The road from here, one line a call: each row, what undoes it, and how its guards stand now.
 * Changes nothing. *ready: cutover_run would begin. */
int cutover_explain(const struct cutover_request *r, bool *ready, struct err *e);

/* Can /bin/sh start `command` in `folder` (NULL: here)? As far as it can be told without a shell:
 * false, and why, if its first word is a path at which no executable file stands. */
bool cutover_hook_starts(const char *command, const char *folder, char *why, size_t size);

/* The diagram and the table of docs/cutover.md, which come from the rows, line by line. */
void cutover_print_page(void (*emit)(const char *line, void *ctx), void *ctx);
/* The rows for programs, in order: from, to, does, again, and undo: may the row be undone? A new
 * reference. The kill tests are generated from it. */
json_t *cutover_rows_json(void);

/* Ends (or stops) the process if LOCKSTEP_TEST_KILL (or _STOP) names this point. */
void test_point(const char *what, const char *where);

#endif
