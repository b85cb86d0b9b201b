/* The simulation: every stage's real code, on the scripted engine and the memory journal, one seed
 * a run. */
#ifndef LOCKSTEP_TESTS_SIMULATION_SIM_H
#define LOCKSTEP_TESTS_SIMULATION_SIM_H

#include "control/migration.h"
#include "engines/scripted/driver.h"

#include <stdbool.h>
#include <stdint.h>

#define SIM_JOURNAL "memory:simulation"

struct apply;
struct capture;
struct conductor;
struct worker;

enum role { ROLE_CAPTURE, ROLE_CONDUCTOR, ROLE_WORKER, ROLE_APPLY, ROLES };

/* One process: a stage that is stepped, dies, and is begun anew. */
struct process {
    int number;
    enum role role;
    int group; /* those of one number die together: threads of one process */
    struct migration m;
    char holder[40];
    union {
        struct capture *capture;
        struct conductor *conductor;
        struct worker *worker;
        struct apply *apply;
        void *any;
    } stage;
    struct db *lease; /* a leased stage's own connection for its lease */
    bool leads;
    bool resting; /* a second one of its role, which has not been started */
    int pause;    /* rounds until it is begun (again) */
    bool idle;    /* its last step found nothing to do */
    bool finished;
};

#define PROCESSES 8
#define COORDINATORS 2

struct coordinator;

/* The switch, in the runs that do one. */
struct sim_switch {
    bool wanted;   /* this run does one */
    bool tried;    /* the user has begun to try */
    bool early;    /* also before the load is done, when it must be refused */
    bool twice;    /* a second coordinator comes now and then */
    bool way;      /* with a way back */
    bool digest;   /* the quiet pair is compared */
    int share;     /* in 1/100: of the world's faults, while it is tried */
    int kill;      /* in 1/100: a coordinator dies at some call */
    int stall;     /* in 1/10,000 of its calls: it hangs, perhaps longer than its lease */
    int lease_ms;  /* of the fence */
    int pause_ms;  /* the longest pause */
    int topped_up; /* transactions that the source was given beyond its own */
    struct coordinator *c[COORDINATORS];
    uint64_t attempts;
    uint64_t undone;
    uint64_t at_closed; /* transactions that the source had committed then */
    bool closed;
    bool in_calm;                          /* nothing stood in its way any more */
    int written;                           /* by applications, on the target */
    int state;                             /* of the row, as last seen */
    bool differs;                          /* at `closed`: */
    struct scripted_difference difference; /* what the target lacked */
    char broken[300];                      /* what must hold and did not */
};

struct sim {
    uint64_t seed;
    uint64_t rng;
    bool verbose;
    bool calm;
    bool meddles; /* the user parks and copies again without need */
    struct sim_switch sw;
    struct scripted_options options;
    struct scripted_world *world;
    struct process p[PROCESSES];
    int n;
    uint64_t steps;
    uint64_t retries;
    uint64_t fenced;
    bool failed; /* a stage stopped for good, though nobody killed it */
    struct err failure;
    const char *failed_role;
};

/* What a run came to. */
enum sim_verdict { VERDICT_EQUAL, VERDICT_ROWS, VERDICT_STOPPED, VERDICT_STUCK, VERDICT_SWITCH };
#define VERDICTS 5

uint64_t sim_draw(struct sim *s);
bool sim_chance(struct sim *s, int of, int whole);

/* process.c */
const char *role_name(enum role role);
void process_init(struct sim *s, struct process *p, int number, enum role role);
/* Begins it if it is not there, steps it once, and buries it if it died. */
void process_step(struct sim *s, struct process *p);
void process_close(struct sim *s, struct process *p);

/* user.c: looks at the lanes, mends what is to be mended. True if nothing is left to do. */
bool user_step(struct sim *s);

/* switch.c: the user who switches, the coordinators of the cutover, the target's applications. */
void switch_init(struct sim *s);
/* One round: perhaps a coordinator is begun, runs on for some calls, and an application writes. */
void switch_step(struct sim *s);
/* Nothing is left to do. */
bool switch_is_over(const struct sim *s);
/* May the user still ask for something else? */
bool switch_is_quiet(const struct sim *s);
/* Where a coordinator waits, others go on; false: the caller is none. */
bool switch_wait(void);
void switch_close(struct sim *s);

/* way.c: what carries the way back. */
void way_step(struct sim *s);
/* It has come to the end of the target's log, or there is none. */
bool way_is_over(const struct sim *s);
/* 1: an application's write on the target is not on it. */
int way_lacks(struct sim *s, struct scripted_difference *out);

/* watch.c: what must hold in every moment of a switch; at every call. */
void watch(struct sim *s);

/* run.c: one seed; prints what it found. */
struct sim_settings {
    bool verbose;
    const char *without; /* kinds of trouble that are left out, or NULL */
};
enum sim_verdict sim_run(uint64_t seed, const struct sim_settings *settings);

/* clock.c: what the stages take for time. */
void sim_clock_set(int64_t ms);
void sim_clock_pass(int64_t ms);
int64_t sim_clock(void);

#endif
