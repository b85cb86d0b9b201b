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

struct sim {
    uint64_t seed;
    uint64_t rng;
    bool verbose;
    bool calm;
    bool meddles; /* the user parks and copies again without need */
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
enum verdict { VERDICT_EQUAL, VERDICT_ROWS, VERDICT_STOPPED, VERDICT_STUCK };

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

/* run.c: one seed; prints what it found. */
struct sim_settings {
    bool verbose;
    const char *without; /* kinds of trouble that are left out, or NULL */
};
enum verdict sim_run(uint64_t seed, const struct sim_settings *settings);

/* clock.c: what the stages take for time. */
void sim_clock_set(int64_t ms);
void sim_clock_pass(int64_t ms);

#endif
