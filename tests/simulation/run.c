/* One seed: a world, its processes, a time of trouble, then calm, then the comparison. */
#include "tests/simulation/sim.h"

#include "apply/apply.h"
#include "control/facts.h"
#include "cutover/cutover.h"
#include "engines/postgres/visible.h"
#include "journal/journal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* A run that switches: rounds until the load is done, rounds of trouble with the switch, and those
 * that follow it. */
#define LOAD_ROUNDS 600
#define SWITCH_STEPS 3500
#define SWITCH_AFTER 60
/* After this many steps the trouble ends, wherever the migration is; and after these many since the
 * source has fallen silent. */
#define TROUBLE_STEPS 5000
#define TROUBLE_AFTER 400
/* In calm, everything must be done within this many rounds of all processes. */
#define CALM_ROUNDS 1500
/* Rounds in which nothing moved: whatever is missing now will stay so. */
#define QUIET_ROUNDS 12
/* Time goes by quickly then, so that the claims of the dead end. */
#define CALM_ROUND_MS 2000

uint64_t sim_draw(struct sim *s)
{
    uint64_t z = s->rng += 0x9E3779B97F4A7C15u;

    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

bool sim_chance(struct sim *s, int of, int whole)
{
    return (int)(sim_draw(s) % (uint64_t)whole) < of;
}

static void add(struct sim *s, enum role role, bool second)
{
    struct process *p = &s->p[s->n];

    process_init(s, p, s->n + 1, role);
    s->n++;
    /* A second one of a role comes late, as a takeover does: the first may still be there. */
    p->group = role == ROLE_WORKER || (role == ROLE_CONDUCTOR && !second) ? 0 : p->number;
    p->pause = second ? 20 + (int)(sim_draw(s) % 400) : 0;
}

static void make_processes(struct sim *s, bool seconds)
{
    bool twice[ROLES];

    for (int r = 0; r < ROLES; r++)
        twice[r] = sim_chance(s, 1, 4) && seconds;
    for (int r = 0; r < ROLES; r++)
        add(s, (enum role)r, false);
    add(s, ROLE_WORKER, false);
    for (int r = 0; r < ROLES; r++) {
        if (twice[r] && r != ROLE_WORKER)
            add(s, (enum role)r, true);
    }
}

/* One process is favoured for a while, so that stages get far ahead of each other. */
static void trouble(struct sim *s)
{
    int after = 0;

    for (int i = 0; i < TROUBLE_STEPS && after < TROUBLE_AFTER; i++) {
        struct process *p = &s->p[sim_draw(s) % (uint64_t)s->n];
        int times = sim_chance(s, 1, 30) ? 12 : 1;

        while (times--)
            process_step(s, p);
        if (sim_chance(s, 1, 40))
            user_step(s);
        if (s->sw.early && sim_chance(s, 1, 8))
            switch_step(s);
        sim_clock_pass((int64_t)(sim_draw(s) % (sim_chance(s, 1, 100) ? 8000 : 20)));
        after += scripted_is_silent(s->world);
    }
}

static bool load_is_done(const struct sim *s)
{
    const json_t *phase = scripted_fact(s->world, "phase", "load");
    const char *name = json_string_value(json_object_get(phase, "phase"));

    return name && strcmp(name, load_phase_name(LOAD_DONE)) == 0;
}

static void settle_down(struct sim *s)
{
    scripted_calm(s->world);
    s->calm = true;
    for (int i = 0; i < s->n; i++)
        s->p[i].pause = 0;
}

static void calm_round(struct sim *s)
{
    for (int i = 0; i < s->n; i++)
        process_step(s, &s->p[i]);
    sim_clock_pass(CALM_ROUND_MS);
    scripted_pass(s->world, CALM_ROUND_MS);
}

/* Mostly those that a switch waits for. */
static struct process *any_follower(struct sim *s)
{
    struct process *p = &s->p[sim_draw(s) % (uint64_t)s->n];

    for (int i = 0; i < 2 && p->role != ROLE_CAPTURE && p->role != ROLE_APPLY; i++)
        p = &s->p[sim_draw(s) % (uint64_t)s->n];
    return p;
}

/* A switch happens under load, in trouble, once the load is done. */
static void trouble_with_switch(struct sim *s)
{
    int64_t ms;
    int after = 0;

    settle_down(s);
    for (int round = 0; round < LOAD_ROUNDS && !(user_step(s) && load_is_done(s)); round++)
        calm_round(s);
    scripted_trouble(s->world, s->sw.share);
    s->calm = false;
    for (int i = 0; i < SWITCH_STEPS && after < SWITCH_AFTER; i++) {
        process_step(s, any_follower(s));
        if (sim_chance(s, 1, 2))
            switch_step(s);
        if (sim_chance(s, 1, 40))
            user_step(s);
        ms = (int64_t)(sim_draw(s) % (sim_chance(s, 1, 100) ? 8000 : 20));
        sim_clock_pass(ms);
        scripted_pass(s->world, ms);
        after += switch_is_over(s);
    }
}

static bool all_quiet(const struct sim *s)
{
    for (int i = 0; i < s->n; i++) {
        const struct process *p = &s->p[i];

        if (p->role == ROLE_CONDUCTOR && p->leads && p->stage.any && !p->finished)
            return false;
        if (!p->idle && !p->finished)
            return false;
    }
    return true;
}

/* The number of quiet rounds at the end; less than QUIET_ROUNDS: it never came to rest. */
static int calm(struct sim *s)
{
    int quiet = 0;

    scripted_silence(s->world);
    settle_down(s);
    for (int round = 0; round < CALM_ROUNDS && quiet < QUIET_ROUNDS; round++) {
        calm_round(s);
        switch_step(s);
        quiet = user_step(s) && all_quiet(s) && switch_is_over(s) ? quiet + 1 : 0;
    }
    return quiet;
}

static void report_rows(const struct sim *s, struct scripted_difference *d)
{
    fprintf(stderr, "finding: seed %" PRIu64 ": rows: table %s: %s: source %s target %s\n", s->seed,
            d->table, d->what, d->source.len ? d->source.data : "-",
            d->target.len ? d->target.data : "-");
    buf_release(&d->source);
    buf_release(&d->target);
}

static void report_failure(const struct sim *s)
{
    fprintf(stderr, "finding: seed %" PRIu64 ": %s stopped: %s: %s\n", s->seed, s->failed_role,
            err_class_name(s->failure.class), s->failure.msg);
}

static enum sim_verdict judge(struct sim *s, int quiet)
{
    struct scripted_difference d;

    if (s->sw.differs) {
        report_rows(s, &s->sw.difference);
        return VERDICT_ROWS;
    }
    if (scripted_compare(s->world, &d)) {
        report_rows(s, &d);
        if (s->failed)
            report_failure(s);
        return VERDICT_ROWS;
    }
    if (way_lacks(s, &d)) {
        report_rows(s, &d);
        return VERDICT_ROWS;
    }
    if (s->sw.broken[0]) {
        fprintf(stderr, "finding: seed %" PRIu64 ": switch: %s\n", s->seed, s->sw.broken);
        return VERDICT_SWITCH;
    }
    if (s->failed) {
        report_failure(s);
        return VERDICT_STOPPED;
    }
    if (quiet < QUIET_ROUNDS) {
        fprintf(stderr, "finding: seed %" PRIu64 ": it does not come to rest:", s->seed);
        for (int i = 0; i < s->n; i++)
            fprintf(stderr, " %s %d%s%s", role_name(s->p[i].role), s->p[i].number,
                    s->p[i].idle ? " idle" : "", s->p[i].finished ? " finished" : "");
        if (s->sw.wanted)
            fprintf(stderr, " cutover %s", cutover_state_name((enum cutover_state)s->sw.state));
        fprintf(stderr, "\n");
        return VERDICT_STUCK;
    }
    return VERDICT_EQUAL;
}

static void print_counts(const struct sim *s)
{
    const struct scripted_counts *c = scripted_counts(s->world);

    fprintf(stderr,
            "seed %" PRIu64 ": steps %" PRIu64 " retries %" PRIu64 " fenced %" PRIu64
            " calls %" PRIu64 " committed %" PRIu64 " late %" PRIu64 " lost %" PRIu64
            " arrived %" PRIu64 " crashes %" PRIu64 " unknown %" PRIu64 " restarts %" PRIu64
            " lock waits %" PRIu64 "\n",
            s->seed, s->steps, s->retries, s->fenced, c->calls, c->committed, c->late, c->lost,
            c->arrived, c->crashes, c->unknown, c->restarts, c->lock_waits);
    if (s->sw.wanted)
        fprintf(stderr,
                "seed %" PRIu64 ": switch %s, attempts %" PRIu64 " undone %" PRIu64
                " written behind it %d%s\n",
                s->seed, cutover_state_name((enum cutover_state)s->sw.state), s->sw.attempts,
                s->sw.undone, s->sw.written, s->sw.in_calm ? ", in calm" : "");
}

static bool has(const struct sim_settings *settings, const char *kind)
{
    return !settings->without || !strstr(settings->without, kind);
}

static void leave_out(struct scripted_options *o, const struct sim_settings *settings)
{
    o->late = has(settings, "late") ? o->late : 0;
    o->lost = has(settings, "lost") ? o->lost : 0;
    o->crash = has(settings, "crash") ? o->crash : 0;
    o->unknown = has(settings, "unknown") ? o->unknown : 0;
    o->restart = has(settings, "restart") ? o->restart : 0;
    o->truncates = o->truncates && has(settings, "truncate");
}

enum sim_verdict sim_run(uint64_t seed, const struct sim_settings *settings)
{
    struct sim s = {.seed = seed, .rng = ~seed, .verbose = settings->verbose};
    enum sim_verdict verdict;

    s.rng = sim_draw(&s);
    memory_journal_reset_all();
    sim_clock_set(1000);
    scripted_options_draw(seed, &s.options);
    leave_out(&s.options, settings);
    s.options.cuts = &pg_cut_ops;
    s.options.widen = pg_widen_xid;
    s.sw.wanted = seed % 3 == 0 && has(settings, "switch");
    s.options.cutover = s.sw.wanted;
    s.world = scripted_world_new(seed, &s.options);
    make_processes(&s, has(settings, "second"));
    s.meddles = sim_chance(&s, 1, 4) && has(settings, "user");
    switch_init(&s);
    trouble(&s);
    if (s.sw.wanted)
        trouble_with_switch(&s);
    verdict = judge(&s, calm(&s));
    if (s.verbose) {
        scripted_print_log(s.world, stderr);
        print_counts(&s);
    }
    switch_close(&s);
    for (int i = 0; i < s.n; i++)
        process_close(&s, &s.p[i]);
    scripted_world_free(s.world);
    memory_journal_reset_all();
    return verdict;
}
