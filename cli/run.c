/* run: the same checks as `check` before the first change, then the stages until the end. */
#include "run/run.h"

#include "cli/cli.h"
#include "control/facts.h"

#include <string.h>

/* Compares both servers with what the migration was begun with, or begins it. */
static int register_migration(const struct context *x, struct db *target, struct err *e)
{
    struct server_identity source_id;
    struct server_identity target_id;
    struct db *source = NULL;
    int rc = -1;

    if (migration_open_source(&x->m, DB_CONTROL, &source, e) < 0)
        return -1;
    if (source->engine->identify(source, &source_id, e) < 0 ||
        target->engine->identify(target, &target_id, e) < 0)
        goto out;
    if (strcmp(source_id.system, target_id.system) == 0 &&
        strcmp(source_id.database, target_id.database) == 0) {
        err_set(e, ERR_REFUSED, "source and target are the same database");
        goto out;
    }
    if (target->engine->control_install(target, SIDE_TARGET, e) < 0 ||
        migration_register(target, &source_id, &target_id, e) < 0)
        goto out;
    rc = 0;
out:
    source->engine->close(source);
    return rc;
}

/* 0: may go on; else an exit code, or -1. */
static int prepare(struct cli *c, const struct context *x, struct err *e)
{
    struct db *target = NULL;
    bool started;
    bool unfit = false;
    int rc = -1;

    if (migration_open_target(&x->m, DB_CONTROL, &target, e) < 0)
        return -1;
    if (context_started(target, &started, e) < 0)
        goto out;
    if (!started && check_both(c, x, false, &unfit, e) < 0)
        goto out;
    if (unfit) {
        cli_next(c, "mend what is unfit, then lockstep check again; nothing was changed");
        rc = EXIT_REFUSED;
        goto out;
    }
    rc = register_migration(x, target, e);
out:
    target->engine->close(target);
    return rc;
}

static int report_end(struct cli *c, enum run_end end)
{
    switch (end) {
    case RUN_ENDED_FINISHED:
        cli_say(c, "the migration is being finished");
        cli_put(c, "result", json_string("finished"));
        return EXIT_DONE;
    case RUN_ENDED_CAUGHT_UP:
        cli_say(c, "caught up");
        cli_put(c, "result", json_string("caught_up"));
        cli_next(c, "lockstep verify; lockstep run goes on following");
        return EXIT_DONE;
    case RUN_ENDED_PARKED:
        cli_say(c, "caught up, but for tables that are parked: lockstep tables list");
        cli_put(c, "result", json_string("parked"));
        cli_next(c, "mend what the reason says, then lockstep tables resume NAME");
        return EXIT_DIFFERENT;
    case RUN_ENDED_QUIT:
        break;
    }
    return EXIT_MORE;
}

int command_run(struct cli *c, struct err *e)
{
    const char *until = cli_option(c, "until");
    struct run_request r = {.stages = RUN_ALL, .progress = true};
    struct context x;
    enum run_end end = RUN_ENDED_QUIT;
    int rc;

    if (until && strcmp(until, "caught-up") != 0)
        return err_set(e, ERR_CONFIG, "--until %s is not known; expected caught-up", until);
    if (context_open(&x, c, e) < 0)
        return -1;
    r.m = &x.m;
    r.until_caught_up = until != NULL;
    rc = prepare(c, &x, e);
    if (rc == 0) {
        rc = run_stages(&r, &end, e);
        if (rc == 0)
            rc = report_end(c, end);
        else if (e->class == ERR_STOPPED)
            err_hint(e, "lockstep run goes on where this one stopped");
    }
    context_close(&x);
    return rc;
}
