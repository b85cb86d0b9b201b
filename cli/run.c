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
        migration_register(&x->m, target, &source_id, &target_id, e) < 0)
        goto out;
    rc = 0;
out:
    source->engine->close(source);
    return rc;
}

/* 1 fit, 0 unfit, -1. Processes of other roles may begin the same migration meanwhile: what this
 * one found unfit can be their slot, and their tables. */
static int check_fit(struct cli *c, const struct context *x, struct db *target, struct err *e)
{
    bool started;
    bool unfit = false;

    if (context_started(target, &started, e) < 0)
        return -1;
    if (started)
        return 1;
    if (check_both(c, x, false, &unfit, e) < 0)
        return -1;
    if (!unfit)
        return 1;
    return context_started(target, &started, e) < 0 ? -1 : started;
}

int run_prepare(struct cli *c, const struct context *x, struct err *e)
{
    struct db *target = NULL;
    int rc = -1;
    int fit;

    if (migration_open_target(&x->m, DB_CONTROL, &target, e) < 0)
        return -1;
    fit = check_fit(c, x, target, e);
    if (fit < 0)
        goto out;
    if (!fit) {
        cli_next(c, "mend what is unfit, then lockstep check again; nothing was changed");
        rc = EXIT_REFUSED;
        goto out;
    }
    rc = register_migration(x, target, e);
out:
    target->engine->close(target);
    return rc;
}

int run_report(struct cli *c, enum run_end end)
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
    case RUN_ENDED_LOADED:
        cli_say(c, "loaded: nothing is left to copy or to build");
        cli_put(c, "result", json_string("loaded"));
        cli_next(c, "lockstep status; a table that is to be copied again needs lockstep snapshot "
                    "again");
        return EXIT_DONE;
    case RUN_ENDED_QUIT:
        cli_put(c, "result", json_string("stopped_in_time"));
        cli_next(c, "lockstep %s goes on where this one stopped", c->command->name);
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
    r.listen = x.config.listen;
    r.role = c->command->name;
    r.until_caught_up = until != NULL;
    rc = run_prepare(c, &x, e);
    if (rc == 0) {
        rc = run_stages(&r, &end, e);
        if (rc == 0)
            rc = run_report(c, end);
        else if (e->class == ERR_STOPPED)
            err_hint(e, "lockstep run goes on where this one stopped");
    }
    context_close(&x);
    return rc;
}
