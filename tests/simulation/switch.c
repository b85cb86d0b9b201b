/* The switch: a user who tries until it is done, the coordinators (cutover/'s real code), and the
 * applications that follow to the target.
 *
 * A coordinator has a stack of its own, so that it can be left in the middle of a step, at any
 * call, while all others go on: stalled longer than its lease, overtaken by a second one, or never
 * woken again. */
#include "tests/simulation/sim.h"

#include "control/facts.h"
#include "cutover/cutover.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define FIRST_ACTOR 50 /* as actors of the world */
#define STACK_BYTES ((size_t)512 * 1024)
/* The calls of a whole cutover are about so many: it dies, or hangs, at one of them. */
#define CALLS 220
#define STALL_ROUNDS 120
#define TOP_UP_MAX 250

struct coordinator {
    int actor;
    ucontext_t context;
    char *stack;
    bool runs; /* its stack is in use */
    int pause; /* rounds until it goes on, or is begun anew */
    int calls; /* until it lets others run */
    int fatal; /* calls until it dies; 0: it does not */
    int hang;  /* calls until it hangs for longer than its lease; 0: it does not */
    char holder[40];
    struct migration m;
    struct cutover_request request;
    int rc;
    struct err e;
};

static struct sim *sim;             /* whose coordinators they are */
static struct coordinator *running; /* the one that runs now */
static ucontext_t home;

/* Its own draws, so that the other runs stay as they are. */
static bool chance(int of, int whole)
{
    return sim_chance(sim, of, whole);
}

static void tell(void *ctx, const char *line)
{
    const struct coordinator *c = ctx;

    if (sim->verbose)
        fprintf(stderr, "--- coordinator %d: %s\n", c->actor, line);
}

static void leave(struct coordinator *c)
{
    running = NULL;
    swapcontext(&c->context, &home);
    running = c;
    scripted_actor(sim->world, c->actor);
}

bool switch_wait(void)
{
    if (!running || scripted_crashed(sim->world))
        return false;
    leave(running);
    return true;
}

static void stall(struct coordinator *c)
{
    c->pause = (int)(sim_draw(sim) % STALL_ROUNDS);
    if (chance(1, 2))
        scripted_pass(sim->world,
                      sim->sw.lease_ms + (int64_t)(sim_draw(sim) % (uint64_t)sim->sw.lease_ms));
}

/* Before each call of anybody. */
static void on_call(void *ctx)
{
    struct coordinator *c = running;

    watch(sim);
    if (!c)
        return;
    if (c->fatal > 0 && --c->fatal == 0 && !sim->calm) {
        scripted_kill(sim->world);
        return;
    }
    if (sim->calm)
        return;
    if ((c->hang > 0 && --c->hang == 0) || chance(sim->sw.stall, 10000))
        stall(c);
    else if (--c->calls > 0)
        return;
    leave(c);
}

/* The body of a coordinator, on its own stack. */
static void conduct(void)
{
    struct coordinator *c = running;
    struct cutover *cutover = cutover_open(&c->request);

    while ((c->rc = cutover_step(cutover, &c->e)) == 0)
        switch_wait();
    cutover_close(cutover);
    c->runs = false;
}

/* As a look at the process table tells, on the machine where it ran. */
static bool is_dead(const char *holder)
{
    if (strncmp(holder, "cutover:", 8) != 0)
        return false; /* a stage, which begins again under the same name */
    for (int i = 0; i < COORDINATORS; i++) {
        if (sim->sw.c[i]->runs && strcmp(sim->sw.c[i]->holder, holder) == 0)
            return false;
    }
    return true;
}

static void request(struct sim *s, struct coordinator *c)
{
    c->m = s->p[0].m;
    snprintf(c->holder, sizeof(c->holder), "cutover:%d.%llu", c->actor,
             (unsigned long long)s->sw.attempts);
    c->m.holder = c->holder;
    c->request = (struct cutover_request){.m = &c->m,
                                          .max_pause_ms = s->calm ? 1000000 : s->sw.pause_ms,
                                          .lease_ms = s->calm ? 1000000 : s->sw.lease_ms,
                                          .rehearse = !s->calm && chance(1, 6),
                                          .rounds = 2,
                                          .way_back = s->sw.way,
                                          .digest_ms = s->sw.digest ? 1000 : 0,
                                          .holder_is_dead = chance(3, 4) ? is_dead : NULL,
                                          .say = tell,
                                          .ctx = c};
    c->fatal = chance(s->sw.kill, 100) ? 1 + (int)(sim_draw(s) % CALLS) : 0;
    c->hang = s->sw.stall && chance(1, 2) ? 1 + (int)(sim_draw(s) % CALLS) : 0;
}

static void begin(struct sim *s, struct coordinator *c)
{
    s->sw.attempts++;
    memset(&c->e, 0, sizeof(c->e));
    request(s, c);
    getcontext(&c->context);
    c->context.uc_stack.ss_sp = c->stack;
    c->context.uc_stack.ss_size = STACK_BYTES;
    c->context.uc_link = &home;
    c->runs = true;
    makecontext(&c->context, conduct, 0);
}

static void ended(struct sim *s, struct coordinator *c, bool died)
{
    if (s->verbose)
        fprintf(stderr, "--- coordinator %d %s: %s\n", c->actor,
                died        ? "dies"
                : c->rc > 0 ? "is done"
                            : err_class_name(c->e.class),
                c->e.msg);
    c->pause = (int)(sim_draw(s) % 30);
    if (died)
        return;
    s->sw.undone += c->rc < 0;
    if (c->rc < 0 && c->e.class == ERR_BUG && !s->failed) {
        s->failed = true;
        s->failure = c->e;
        s->failed_role = "cutover";
    }
}

/* Until it lets others run. */
static void run(struct sim *s, struct coordinator *c)
{
    int64_t now = sim_clock();
    bool died;

    c->calls = 1 + (int)(sim_draw(s) % (chance(1, 3) ? 40 : 8));
    scripted_actor(s->world, c->actor);
    running = c;
    swapcontext(&home, &c->context);
    running = NULL;
    died = scripted_crashed(s->world);
    if (died) {
        /* Its last waits, in which it could do nothing, took nobody's time. */
        sim_clock_set(now);
        scripted_actor(s->world, c->actor);
        scripted_recover(s->world);
    }
    if (!c->runs)
        ended(s, c, died);
}

static void coordinator_step(struct sim *s, struct coordinator *c, bool first)
{
    if (c->pause > 0 && !s->calm) {
        c->pause--;
        return;
    }
    if (!c->runs) {
        if (s->sw.state == CUTOVER_SWITCHED || (!first && !chance(1, 40)))
            return;
        begin(s, c);
    }
    run(s, c);
}

/* An application that knows both servers writes wherever it may. */
static void application(struct sim *s)
{
    int64_t given = 0;
    int64_t number = 0;

    if (s->sw.state >= CUTOVER_FENCED && s->sw.written < 30)
        number = scripted_application(s->world, &given);
    s->sw.written += number != 0;
    if (number && number <= given && !s->sw.broken[0])
        snprintf(s->sw.broken, sizeof(s->sw.broken),
                 "the target gave the number %lld again, the source had given %lld",
                 (long long)number, (long long)given);
}

/* There are writers to be caught for as long as it takes. */
static void top_up(struct sim *s)
{
    if (s->sw.closed || s->calm || s->sw.state < CUTOVER_PREPARED ||
        s->sw.topped_up >= TOP_UP_MAX || scripted_left(s->world) > 0)
        return;
    scripted_more(s->world, 10);
    s->sw.topped_up += 10;
}

void switch_step(struct sim *s)
{
    if (!s->sw.wanted)
        return;
    s->sw.tried = true;
    top_up(s);
    coordinator_step(s, s->sw.c[0], true);
    if (s->sw.c[1]->runs || (s->sw.twice && !s->calm && !s->sw.closed))
        coordinator_step(s, s->sw.c[1], false);
    way_step(s);
    application(s);
}

bool switch_is_over(const struct sim *s)
{
    return !s->sw.wanted ||
           (s->sw.state == CUTOVER_SWITCHED && !s->sw.c[0]->runs && !s->sw.c[1]->runs &&
            scripted_accepts(s->world, SIDE_TARGET) && way_is_over(s));
}

bool switch_is_quiet(const struct sim *s)
{
    return s->sw.state < CUTOVER_PREPARED;
}

void switch_init(struct sim *s)
{
    static const int leases[] = {300, 3000, 30000, 100000};
    static const int pauses[] = {3000, 30000, 100000, 300000};
    static const int stalls[] = {0, 10, 30, 100};
    static const int shares[] = {0, 10, 30, 100};
    static const int kills[] = {0, 0, 20, 60};

    sim = s;
    running = NULL;
    if (!s->sw.wanted)
        return;
    s->sw.early = chance(1, 4);
    s->sw.twice = chance(1, 2);
    s->sw.way = chance(1, 2);
    s->sw.digest = chance(1, 4);
    s->sw.lease_ms = leases[sim_draw(s) % 4];
    s->sw.pause_ms = pauses[sim_draw(s) % 4];
    s->sw.stall = stalls[sim_draw(s) % 4];
    s->sw.share = shares[sim_draw(s) % 4];
    s->sw.kill = kills[sim_draw(s) % 4];
    for (int i = 0; i < s->n; i++)
        s->p[i].m.lease_ms = chance(1, 8) ? 5000 : 60000;
    for (int i = 0; i < COORDINATORS; i++) {
        s->sw.c[i] = calloc(1, sizeof(struct coordinator));
        s->sw.c[i]->actor = FIRST_ACTOR + i;
        s->sw.c[i]->stack = malloc(STACK_BYTES);
    }
    scripted_on_call(s->world, on_call, s);
}

/* Those that were left in the middle die there. */
void switch_close(struct sim *s)
{
    for (int i = 0; s->sw.wanted && i < COORDINATORS; i++) {
        struct coordinator *c = s->sw.c[i];

        if (c->runs) {
            scripted_kill(s->world);
            run(s, c);
        }
        free(c->stack);
        free(c);
    }
    if (s->sw.wanted)
        scripted_on_call(s->world, NULL, NULL);
}
