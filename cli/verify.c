/* verify: the exact pair, through the running stages, or through stages of its own; along the way
 * that changes travel now. Compared the other way, every write since the last switch would count as
 * a difference. */
#include "verify/verify.h"

#include "cli/cli.h"
#include "control/facts.h"
#include "core/run.h"
#include "cutover/cutover.h"
#include "observe/token.h"
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
        char holder[HOLDER_MAX];
        int held = lease_held(target, stage, holder, sizeof(holder), e);
        int left = held == 0 ? is_left(target, stage, e) : 0;

        /* Stages of our own take at once what a dead process holds still. */
        if (held > 0 && holder_is_dead(holder))
            return 0;
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

/* ---- which way ---- */

struct ends {
    struct db *target; /* as configured */
    struct db *source;
};

struct way {
    const struct ends *ends;
    struct token_road road;
    struct arena arena;
    struct migration mirror;
    const struct migration *m; /* the way's: as configured, or the mirror */
    bool turned;               /* a switch came in between */
};

static int way_find(struct way *w, const struct migration *m, const struct ends *ends,
                    struct err *e)
{
    *w = (struct way){.ends = ends, .arena = ARENA_INIT, .m = m};
    if (token_road_find(ends->target, ends->source, &w->road, e) == 0) {
        migration_mirror(m, &w->arena, &w->mirror);
        w->m = w->road.back ? &w->mirror : m;
        return 0;
    }
    if (!w->road.back || e->class != ERR_REFUSED)
        return -1;
    err_set(e, ERR_REFUSED,
            "the applications write on the target, and there is no way back that carries it to "
            "the source: whatever they wrote since the cutover would count as a difference; "
            "nothing was compared");
    return err_hint(e,
                    "what the cutover itself compared is in its record, cutover-%s.md; lockstep "
                    "finish ends the migration",
                    m->name);
}

static void way_release(struct way *w)
{
    arena_release(&w->arena);
}

/* verify_request.still */
static int way_still(void *ctx, struct err *e)
{
    struct way *w = ctx;
    struct token_road now = {0};

    w->turned = true;
    if (token_road_find(w->ends->target, w->ends->source, &now, e) < 0)
        return -1;
    w->turned = now.back != w->road.back || now.epoch != w->road.epoch;
    if (!w->turned)
        return 0;
    err_set(e, ERR_RETRY, "a switch came in between, again and again");
    return err_hint(e, "say it again behind it; lockstep status tells how far it is");
}

/* ---- pins of a verify that was killed ---- */

static int clear_stale_pins(struct db *db, struct err *e)
{
    struct fact *facts;
    size_t n;
    int rc = 0;

    if (db->engine->fact_scan(db, "request", "pin/", &facts, &n, e) < 0)
        return -1;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        const char *holder = fact_text(facts[i].body, "holder");

        if (holder && holder_is_dead(holder))
            rc = request_clear(db, facts[i].key, e);
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

static const char *next_of(const struct verify_report *r, bool back)
{
    if (r->differences)
        return back ? "find out who wrote on the source though it is closed (lockstep status); a "
                      "rollback would go on from its rows: mend them there by hand first"
                    : "lockstep tables recopy NAME copies a table anew";
    if (r->not_compared)
        return "lockstep tables list";
    return back ? "lockstep finish; or lockstep rollback" : "lockstep cutover";
}

static void put_report(struct cli *c, const struct verify_report *r, const struct token_road *road)
{
    cli_put(c, "differences", json_integer((json_int_t)r->differences));
    cli_put(c, "tables", json_integer((json_int_t)r->tables));
    cli_put(c, "rows", json_integer((json_int_t)r->rows));
    cli_put(c, "not_compared", json_integer((json_int_t)r->not_compared));
    cli_put(c, "position", json_string(r->position));
    cli_put(c, "of", json_string(token_written(road)));
    cli_put(c, "seconds", json_real((double)r->took_ms / 1000.0));
    cli_put(c, "next", json_string(next_of(r, road->back)));
}

/* The last line says `differences 0` and no more only if every table was compared. */
static void say_verdict(struct cli *c, const struct verify_report *r)
{
    if (r->not_compared)
        cli_say(c, "differences %llu, tables not compared %llu", (unsigned long long)r->differences,
                (unsigned long long)r->not_compared);
    else
        cli_say(c, "differences %llu", (unsigned long long)r->differences);
}

static int report(struct cli *c, const struct verify_report *r, const struct token_road *road,
                  struct err *e)
{
    put_report(c, r, road);
    if (road->back)
        cli_say(c, "the applications write on the target: compared along the way back");
    cli_say(c, "compared %llu tables, %llu rows, the %s as of %s of the %s, in %.1f s",
            (unsigned long long)r->tables, (unsigned long long)r->rows, token_read(road),
            r->position, token_written(road), (double)r->took_ms / 1000.0);
    say_verdict(c, r);
    if (r->differences)
        return EXIT_DIFFERENT;
    if (!r->not_compared)
        return EXIT_DONE;
    err_set(e, ERR_FATAL, "%llu tables could not be compared, because they do not follow",
            (unsigned long long)r->not_compared);
    return err_hint(e, "lockstep tables list");
}

/* How often a process that begins to run the migration, or a switch, may come in between. */
#define OVERTAKEN_MAX 5

/* 0 compared; 1: another process took the stages that we were about to run: use those; or a switch
 * turned the way; -1. The way back is carried by whoever runs the forward stages. */
static int compare(const struct context *x, struct way *w, struct lines *lines,
                   struct verify_report *out, struct err *e)
{
    static struct own_stages own; /* its thread may outlive a failure to join */
    struct verify_request r = {.m = w->m,
                               .emit = take_line,
                               .ctx = lines,
                               .given_up = &own.ended,
                               .still = way_still,
                               .still_ctx = w};
    int rc;

    memset(&own, 0, sizeof(own));
    if (own_start(&own, &x->m, w->ends->target, e) < 0)
        return -1;
    rc = verify_run(&r, out, e);
    own_stop(&own);
    if (rc < 0 && own.started && own.rc < 0 && own.error.class != ERR_STOPPED)
        *e = own.error;
    return rc < 0 && (w->turned || (own.started && e->class == ERR_REFUSED)) ? 1 : rc;
}

/* The exit code, or -1. *again: begin anew, by what is there now. */
static int verify_once(struct cli *c, const struct context *x, const struct ends *ends,
                       struct lines *lines, bool *again, struct err *e)
{
    struct verify_report out;
    struct way way;
    int rc;

    *again = false;
    if (way_find(&way, &x->m, ends, e) < 0) {
        way_release(&way);
        return -1;
    }
    test_point("verify", "way");
    rc = way.road.back ? clear_stale_pins(ends->source, e) : 0;
    if (rc == 0)
        rc = compare(x, &way, lines, &out, e);
    *again = rc > 0;
    if (rc == 0)
        rc = report(c, &out, &way.road, e);
    /* 4 would say that a guard refused; from here on it only could not compare. */
    else if (e->class == ERR_REFUSED)
        e->class = ERR_FATAL;
    way_release(&way);
    return rc > 0 && *again ? -1 : rc;
}

static int verify(struct cli *c, const struct context *x, const struct ends *ends, struct err *e)
{
    struct lines lines = {c, json_array()};
    bool again = true;
    int rc = -1;

    cli_put(c, "lines", lines.list);
    if (context_need_started(ends->target, e) < 0 || clear_stale_pins(ends->target, e) < 0)
        return -1;
    for (int i = 0; again && i <= OVERTAKEN_MAX; i++) {
        err_clear(e);
        rc = verify_once(c, x, ends, &lines, &again, e);
    }
    return rc;
}

int command_verify(struct cli *c, struct err *e)
{
    struct ends ends = {NULL, NULL};
    struct context x;
    int rc = -1;

    if (context_open(&x, c, e) < 0)
        return -1;
    if (migration_open_target(&x.m, DB_CONTROL, &ends.target, e) == 0 &&
        migration_open_source(&x.m, DB_CONTROL, &ends.source, e) == 0)
        rc = verify(c, &x, &ends, e);
    if (ends.source)
        ends.source->engine->close(ends.source);
    if (ends.target)
        ends.target->engine->close(ends.target);
    context_close(&x);
    return rc;
}
