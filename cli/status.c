/* status: what observe/ found, as JSON, as a page, or again and again. */
#include "cli/cli.h"
#include "core/run.h"
#include "observe/observe.h"
#include "run/run.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define WATCH_MS 2000

struct looking {
    struct context x;
    struct db *target;
    struct db *source;
    struct db *way; /* the target, as the way back's source */
    char trouble[ERR_MSG_MAX];
};

static void disconnect(struct looking *l)
{
    struct db **all[] = {&l->target, &l->source, &l->way};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (*all[i])
            (*all[i])->engine->close(*all[i]);
        *all[i] = NULL;
    }
}

/* Only the target is needed: what is known of the migration stands there. */
static int connect_ends(struct looking *l, struct err *e)
{
    struct arena a = ARENA_INIT;
    struct migration mirror;
    struct err own = {0};

    if (!l->target && migration_open_target(&l->x.m, DB_CONTROL, &l->target, e) < 0)
        return -1;
    if (!l->source && migration_open_source(&l->x.m, DB_CONTROL, &l->source, &own) < 0)
        memcpy(l->trouble, own.msg, sizeof(l->trouble));
    migration_mirror(&l->x.m, &a, &mirror);
    if (!l->way)
        migration_open_source(&mirror, DB_CONTROL, &l->way, &own);
    arena_release(&a);
    return 0;
}

static int look(struct cli *c, struct looking *l, bool watch, struct err *e)
{
    struct arena a = ARENA_INIT;
    struct observation o;
    struct buf page;
    int rc = -1;

    buf_init(&page, BUF_MAX_TEXT);
    if (connect_ends(l, e) < 0)
        goto out;
    struct observe_ends ends = {&l->x.m, l->target, l->source, l->trouble, l->way, holder_is_dead};
    if (observe(&ends, &a, &o, e) < 0)
        goto out;
    if (c->json) {
        json_decref(c->result);
        c->result = observe_json(&o);
    } else {
        observe_page(&o, watch, &page);
        if (watch && isatty(STDOUT_FILENO))
            fputs("\033[H\033[J", stdout);
        fputs(page.data, stdout);
    }
    cli_next(c, "%s", observe_next(&o));
    rc = EXIT_DONE;
out:
    buf_release(&page);
    arena_release(&a);
    return rc;
}

static int watch_loop(struct cli *c, struct looking *l, struct err *e)
{
    while (!stop_requested()) {
        if (look(c, l, true, e) < 0) {
            if (e->class == ERR_STOPPED)
                break;
            if (e->class != ERR_RETRY)
                return -1;
            cli_say(c, "%s", e->msg);
            disconnect(l);
        }
        fflush(stdout);
        nap_ms(WATCH_MS);
    }
    err_clear(e);
    return EXIT_DONE;
}

int command_status(struct cli *c, struct err *e)
{
    static struct looking l;
    int rc;

    if (context_open(&l.x, c, e) < 0)
        return -1;
    if (cli_option(c, "watch") && !c->json)
        rc = watch_loop(c, &l, e);
    else
        rc = look(c, &l, false, e);
    disconnect(&l);
    context_close(&l.x);
    return rc;
}
