/* From the configuration to what the stages are given. The one place that names drivers. */
#include "cli/cli.h"
#include "control/facts.h"
#include "engines/postgres/driver.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* How long a process that vanished blocks its successor. */
#define STAGE_LEASE_MS 10000

static const struct {
    const char *scheme;
    const struct engine *engine;
} drivers[] = {
    {"postgresql://", &engine_postgres},
    {"postgres://", &engine_postgres},
};

static const struct engine *driver_of(const char *uri)
{
    for (size_t i = 0; i < sizeof(drivers) / sizeof(drivers[0]); i++) {
        if (strncmp(uri, drivers[i].scheme, strlen(drivers[i].scheme)) == 0)
            return drivers[i].engine;
    }
    invariant(!"config/ lets no other scheme pass");
}

/* Field 22 of /proc/self/stat: when this process started, in ticks since boot. */
static unsigned long long start_ticks(void)
{
    char text[1024];
    unsigned long long ticks = 0;
    FILE *f = fopen("/proc/self/stat", "re");
    char *p = NULL;

    if (f && fgets(text, sizeof(text), f))
        p = strrchr(text, ')');
    if (f)
        fclose(f);
    if (p)
        sscanf(p + 1,
               " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d "
               "%*d %llu",
               &ticks);
    return ticks;
}

/* host:pid:start. The start names the process among all that ever had this pid. */
static void name_holder(char *out, size_t size)
{
    char host[60] = "localhost";

    gethostname(host, sizeof(host) - 1);
    host[sizeof(host) - 1] = '\0';
    snprintf(out, size, "%s:%d:%llu", host, (int)getpid(), start_ticks());
}

static void folder_of(const char *journal, char *out, size_t size)
{
    char *slash;

    snprintf(out, size, "%s", strchr(journal, ':') + 1);
    while ((slash = strrchr(out, '/')) && slash[1] == '\0' && slash != out)
        *slash = '\0';
    if (slash)
        slash[slash == out] = '\0';
}

int context_open(struct context *x, const struct cli *c, struct err *e)
{
    const struct config *config = &x->config;

    memset(x, 0, sizeof(*x));
    if (config_load(c->file, &x->config, e) < 0)
        return -1;
    name_holder(x->holder, sizeof(x->holder));
    folder_of(config->journal, x->folder, sizeof(x->folder));
    x->m = (struct migration){
        .name = config->migration,
        .source = {driver_of(config->source), config->source},
        .target = {driver_of(config->target), config->target},
        .journal = {.uri = config->journal, .max_bytes = config->journal_max},
        .selection = {config->include.v, config->include.n, config->exclude.v, config->exclude.n},
        .workers = config->snapshot.workers,
        .chunk_bytes = config->snapshot.chunk_size,
        .max_rate = config->snapshot.max_rate,
        .batch_bytes = config->apply.batch,
        .batch_delay_ms = config->apply.batch_delay_ms,
        .on_error = config->apply.on_error,
        .lease_ms = STAGE_LEASE_MS,
        .bindir = config->pg_bindir,
        .workdir = x->folder,
        .holder = x->holder,
    };
    return 0;
}

void context_close(struct context *x)
{
    config_release(&x->config);
}

int context_started(struct db *target, bool *out, struct err *e)
{
    json_t *body = NULL;

    *out = false;
    if (target->engine->control_exists(target, out, e) < 0)
        return -1;
    if (!*out)
        return 0;
    if (fact_read(target, "migration", "self", &body, NULL, e) < 0)
        return -1;
    *out = body != NULL;
    json_decref(body);
    return 0;
}

int context_need_started(struct db *target, struct err *e)
{
    bool started;

    if (context_started(target, &started, e) < 0)
        return -1;
    if (started)
        return 0;
    err_set(e, ERR_REFUSED,
            "the target knows nothing of this migration: it has not begun, or is "
            "finished");
    return err_hint(e, "lockstep run begins it");
}
