/* capture, snapshot, apply: one role of `run` alone, as a process that shares only the journal and
 * the control facts with the others. Each may be killed and started again by itself. */
#include "cli/cli.h"

static int run_role(struct cli *c, unsigned stages, struct err *e)
{
    const char *max_runtime = cli_option(c, "max-runtime");
    struct run_request r = {
        .stages = stages, .until_loaded = stages == RUN_SNAPSHOT, .progress = true};
    struct context x;
    enum run_end end = RUN_ENDED_QUIT;
    int rc;

    if (max_runtime && config_duration(max_runtime, &r.max_runtime_ms, e) < 0)
        return err_wrap(e, "--max-runtime");
    if (context_open(&x, c, e) < 0)
        return -1;
    r.m = &x.m;
    r.listen = x.config.listen;
    r.role = c->command->name;
    rc = run_prepare(c, &x, e);
    if (rc == 0) {
        rc = run_stages(&r, &end, e);
        if (rc == 0)
            rc = run_report(c, end);
        else if (e->class == ERR_STOPPED)
            err_hint(e, "lockstep %s goes on where this one stopped", c->command->name);
    }
    context_close(&x);
    return rc;
}

int command_capture(struct cli *c, struct err *e)
{
    return run_role(c, RUN_CAPTURE, e);
}

int command_snapshot(struct cli *c, struct err *e)
{
    return run_role(c, RUN_SNAPSHOT, e);
}

int command_apply(struct cli *c, struct err *e)
{
    return run_role(c, RUN_APPLY, e);
}
