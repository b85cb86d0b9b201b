/* verify: the exact pair, through the running stages, or through stages of its own. */
#include "verify/verify.h"

#include "cli/cli.h"
#include "control/facts.h"
#include "core/run.h"
#include "run/run.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define JSON_LINES_MAX 1000

/* ---- stages of its own ---- */

struct own_stages {
    struct run_request request;
    atomic_bool quit;
    pthread_t thread;
    bool started;
    atomic_bool ended;
    struct err error;
    int rc;
};

static void *own_main(void *arg)
{
    struct own_stages *own = arg;
    enum run_end end;

    own->rc = run_stages(&own->request, &end, &own->error);
    atomic_store(&own->ended, true);
    return NULL;
}

/* How long a stage whose lease has lapsed may take to renew it: a busy machine, or a target that
 * hung. Its lease taken, it would end for good, and nobody would go on when we are done. */
#define LAPSED_MS 30000
#define LAPSED_POLL_MS 200

/* Left in good order, or by a process that is dead? 1, 0, -1. */
static int is_left(struct db *target, const char *stage, struct err *e)
{
    const char *holder;
    json_t *body;
    bool left;

    if (fact_read(target, "lease", stage, &body, NULL, e) < 0)
        return -1;
    holder = fact_text(body, "holder");
    left = !holder || fact_int(body, "until_ms", 0) == 0 || holder_is_dead(holder);
    json_decref(body);
    return left;
}

static int is_run(struct db *target, const char *stage, struct err *e)
{
    int64_t deadline = mono_ms() + LAPSED_MS;

    for (;;) {
        int held = lease_held(target, stage, NULL, 0, e);
        int left = held == 0 ? is_left(target, stage, e) : 0;

        if (held || left)
            return held < 0 || left < 0 ? -1 : held;
        if (stop_check(e) < 0)
            return -1;
        if (mono_ms() >= deadline)
            return 0;
        nap_ms(LAPSED_POLL_MS);
    }
}

/* If nobody runs them, capture and apply run in this process until verify is done. */
static int own_start(struct own_stages *own, const struct migration *m, struct db *target,
                     struct err *e)
{
    unsigned stages = 0;
    int capture = is_run(target, "capture", e);
    int apply = capture < 0 ? -1 : is_run(target, "apply", e);

    if (capture < 0 || apply < 0)
        return -1;
    stages |= capture ? 0 : RUN_CAPTURE;
    stages |= apply ? 0 : RUN_APPLY;
    if (!stages)
        return 0;
    own->request = (struct run_request){.m = m, .stages = stages, .quit = &own->quit};
    if (pthread_create(&own->thread, NULL, own_main, own) != 0)
        return err_set(e, ERR_FATAL, "a thread cannot be made");
    own->started = true;
    return 0;
}

static void own_stop(struct own_stages *own)
{
    if (!own->started)
        return;
    atomic_store(&own->quit, true);
    pthread_join(own->thread, NULL);
}

/* ---- pins of a verify that was killed ---- */

static int clear_stale_pins(struct db *target, struct err *e)
{
    struct fact *facts;
    size_t n;
    int rc = 0;

    if (target->engine->fact_scan(target, "request", "pin/", &facts, &n, e) < 0)
        return -1;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        const char *holder = fact_text(facts[i].body, "holder");

        if (holder && holder_is_dead(holder))
            rc = request_clear(target, facts[i].key, e);
    }
    facts_release(facts, n);
    return rc;
}

/* ---- output ---- */

struct lines {
    struct cli *c;
    json_t *list;
};

static void take_line(const char *line, void *ctx)
{
    struct lines *l = ctx;

    cli_say(l->c, "%s", line);
    if (json_array_size(l->list) < JSON_LINES_MAX)
        json_array_append_new(l->list, json_string(line));
}

static int report(struct cli *c, const struct verify_report *r, struct err *e)
{
    cli_put(c, "differences", json_integer((json_int_t)r->differences));
    cli_put(c, "tables", json_integer((json_int_t)r->tables));
    cli_put(c, "rows", json_integer((json_int_t)r->rows));
    cli_put(c, "not_compared", json_integer((json_int_t)r->not_compared));
    cli_put(c, "position", json_string(r->position));
    cli_put(c, "seconds", json_real((double)r->took_ms / 1000.0));
    cli_put(c, "next",
            json_string(r->differences    ? "lockstep tables recopy NAME copies a table anew"
                        : r->not_compared ? "lockstep tables list"
                                          : "lockstep cutover"));
    cli_say(c, "compared %llu tables, %llu rows, as of %s, in %.1f s",
            (unsigned long long)r->tables, (unsigned long long)r->rows, r->position,
            (double)r->took_ms / 1000.0);
    cli_say(c, "differences %llu", (unsigned long long)r->differences);
    if (r->differences)
        return EXIT_DIFFERENT;
    if (!r->not_compared)
        return EXIT_DONE;
    err_set(e, ERR_FATAL, "%llu tables could not be compared, because they do not follow",
            (unsigned long long)r->not_compared);
    return err_hint(e, "lockstep tables list");
}

/* How often a process that begins to run the migration may come in between. */
#define OVERTAKEN_MAX 5

/* 0 compared; 1: another process took the stages that we were about to run: use those; -1. */
static int compare(const struct context *x, struct db *target, struct lines *lines,
                   struct verify_report *out, struct err *e)
{
    static struct own_stages own; /* its thread may outlive a failure to join */
    struct verify_request r = {.m = &x->m, .emit = take_line, .ctx = lines, .given_up = &own.ended};
    int rc;

    memset(&own, 0, sizeof(own));
    if (own_start(&own, &x->m, target, e) < 0)
        return -1;
    rc = verify_run(&r, out, e);
    own_stop(&own);
    if (rc < 0 && own.started && own.rc < 0 && own.error.class != ERR_STOPPED)
        *e = own.error;
    return rc < 0 && own.started && e->class == ERR_REFUSED ? 1 : rc;
}

static int verify(struct cli *c, const struct context *x, struct db *target, struct err *e)
{
    struct lines lines = {c, json_array()};
    struct verify_report out;
    int rc;

    cli_put(c, "lines", lines.list);
    if (context_need_started(target, e) < 0 || clear_stale_pins(target, e) < 0)
        return -1;
    rc = compare(x, target, &lines, &out, e);
    for (int i = 0; rc > 0 && i < OVERTAKEN_MAX; i++)
        rc = compare(x, target, &lines, &out, e);
    if (rc == 0)
        return report(c, &out, e);
    /* 4 would say that a guard refused; from here on it only could not compare. */
    if (e->class == ERR_REFUSED)
        e->class = ERR_FATAL;
    return -1;
}

int command_verify(struct cli *c, struct err *e)
{
    struct context x;
    struct db *target = NULL;
    int rc = -1;

    if (context_open(&x, c, e) < 0)
        return -1;
    if (migration_open_target(&x.m, DB_CONTROL, &target, e) == 0) {
        rc = verify(c, &x, target, e);
        target->engine->close(target);
    }
    context_close(&x);
    return rc;
}
