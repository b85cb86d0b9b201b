/* The scripted driver: two servers in memory, driven by one seed, that behave at the seams as real
 * ones do, only worse (the simulation's; tests/simulation).
 *
 * One normal course: the harness makes a world, tells it which process (actor) runs, and steps that
 * process's stage. At every call of the vtable the world may go on by itself: sessions of the
 * source begin, write, commit, roll back; committed transactions become visible late; clocks move;
 * connections break, servers restart, the calling process dies. All of it comes from the seed, so
 * that one number replays a run.
 *
 * What is modelled on purpose, because real servers do it:
 *  - Commit order in the log is not the order of becoming visible. A transaction that hangs between
 *    the two is streamed, unseen by new snapshots, and keeps its row locks until it is visible.
 *  - The log leaves out what it may: old keys unless they changed, unchanged big columns.
 *  - A stream opened before what was acknowledged goes on behind it, in silence (half of the
 *    seeds), or says so (the other half).
 *  - A commit whose answer was lost happens, does not, or happens later.
 *  - A dead client's transaction goes on holding its locks for a while.
 *  - A target that restarts has lost the tail of asynchronous commits.
 */
#ifndef LOCKSTEP_ENGINES_SCRIPTED_DRIVER_H
#define LOCKSTEP_ENGINES_SCRIPTED_DRIVER_H

#include "engines/engine.h"

#include <stdio.h>

#define SCRIPTED_SOURCE_URI "scripted:source"
#define SCRIPTED_TARGET_URI "scripted:target"

struct scripted_world;

/* Chances are in 1/10,000 of a call. */
struct scripted_options {
    const struct cut_ops *cuts; /* whose text the source's snapshots have: pg_cut_ops */
    uint64_t (*widen)(uint64_t ref, uint32_t xid); /* as capture's driver does it */
    int transactions;                              /* of the source, then it falls silent */
    int haste;      /* in 1/100: steps of the source's sessions a call */
    int late;       /* in 1/100: commits that become visible late */
    int lost;       /* the connection breaks */
    int crash;      /* the calling process dies */
    int unknown;    /* in 1/100 of commits: the answer is lost */
    int restart;    /* a server restarts */
    bool truncates; /* TRUNCATE happens */
    bool gap_error; /* a stream opened too early says so */
    bool cutover;   /* the switch is part of the run: statements pass the fence in two steps */
};

extern const struct engine engine_scripted;

/* The options that a seed draws, for the harness to change before it makes the world. */
void scripted_options_draw(uint64_t seed, struct scripted_options *out);
/* A world, and from now on the one that engine_scripted talks to in this thread. */
struct scripted_world *scripted_world_new(uint64_t seed, const struct scripted_options *o);
void scripted_world_free(struct scripted_world *w);

/* Which process makes the calls from here on; any small number. */
void scripted_actor(struct scripted_world *w, int actor);
/* Did the calling process die? From then on all its calls fail, without effect. */
bool scripted_crashed(const struct scripted_world *w);
/* Its connections are cut; the next process may call. Objects of the dead one are still closed. */
void scripted_recover(struct scripted_world *w);

/* Called at the begin of every call, before it does anything, and while a call waits. It may let
 * other processes call, if it sets the actor again before it returns. */
void scripted_on_call(struct scripted_world *w, void (*on_call)(void *ctx), void *ctx);
/* The calling process dies here. */
void scripted_kill(struct scripted_world *w);

/* No more faults, from now on; dead sessions are gone. */
void scripted_calm(struct scripted_world *w);
/* Faults again, at so many hundredths of their chances. */
void scripted_trouble(struct scripted_world *w, int share);
/* The source will begin so many transactions more. */
void scripted_more(struct scripted_world *w, int transactions);
/* So many it has yet to begin. */
int scripted_left(const struct scripted_world *w);
/* The source begins no more transactions; the running ones end. */
void scripted_silence(struct scripted_world *w);
bool scripted_is_silent(const struct scripted_world *w);
/* Lets time go by, on both servers. */
void scripted_pass(struct scripted_world *w, int64_t ms);
/* One step of the source's sessions, for tests. */
void scripted_source_step(struct scripted_world *w);

struct scripted_difference {
    const char *table;
    const char *what; /* "missing", "extra", "differs" */
    struct buf source;
    struct buf target;
};

/* ---- the switch (switch.c) ---- */

/* Does the fence of this side let applications write? */
bool scripted_accepts(const struct scripted_world *w, enum db_side side);
/* A control fact of the target as everybody sees it, borrowed; NULL if there is none. */
const json_t *scripted_fact(const struct scripted_world *w, const char *kind, const char *key);
/* The same of either side. */
const json_t *scripted_fact_on(const struct scripted_world *w, enum db_side side, const char *kind,
                               const char *key);
/* The target's own log, as the slot of a way back that exists has it: where the next `max` entries
 * from `from` on end (the end of the log if that is nearer), and the last marker among them ("" if
 * none). False: there is no slot. */
bool scripted_back_read(const struct scripted_world *w, struct position from, size_t max,
                        struct position *next, char *token, size_t size);
/* The first write of an application on the target that lies outside of [from, to): 1 and *out as
 * scripted_compare's; 0: none. */
int scripted_back_missing(struct scripted_world *w, struct position from, struct position to,
                          struct scripted_difference *out);
/* From now on the target must hold what it holds now, and what its own applications write. */
void scripted_switch(struct scripted_world *w);
/* An application tries one transaction on the target: the number that it took from a sequence
 * there, or 0 if the fence refused it. *given: the highest that was given out on the source. */
int64_t scripted_application(struct scripted_world *w, int64_t *given);
/* Would a client of the target get numbers that nobody got on the source? */
bool scripted_numbers_ahead(const struct scripted_world *w);

/* Committed rows of both ends (after scripted_switch: of the target and what it must hold), all
 * tables: 0 equal, 1 the first difference (release its bufs). */
int scripted_compare(struct scripted_world *w, struct scripted_difference *out);

/* What the source committed, in the order of its log. */
void scripted_print_log(const struct scripted_world *w, FILE *out);

struct scripted_counts {
    uint64_t calls;
    uint64_t committed;
    uint64_t late;
    uint64_t lost;
    uint64_t arrived; /* moves of a fence, behind their connection's end */
    uint64_t crashes;
    uint64_t unknown;
    uint64_t restarts;
    uint64_t lock_waits;
    uint64_t ops[8]; /* enum scripted_op */
};
enum scripted_op {
    SCRIPTED_INSERT,
    SCRIPTED_UPDATE,
    SCRIPTED_DELETE,
    SCRIPTED_REINSERT,
    SCRIPTED_KEY_CHANGE,
    SCRIPTED_SWAP,
    SCRIPTED_TRUNCATE,
    SCRIPTED_ROLLBACK
};
const struct scripted_counts *scripted_counts(const struct scripted_world *w);

#endif
