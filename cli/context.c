/* From the configuration to what the stages are given. The one place that names drivers. */
#include "cli/cli.h"
#include "control/facts.h"
#include "engines/mysql/driver.h"
#include "engines/postgres/driver.h"
#include "run/run.h"

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
    {"mysql://", &engine_mysql},
    {"mariadb://", &engine_mysql},
};

const struct engine *driver_of(const char *uri)
{
    for (size_t i = 0; i < sizeof(drivers) / sizeof(drivers[0]); i++) {
        if (strncmp(uri, drivers[i].scheme, strlen(drivers[i].scheme)) == 0)
            return drivers[i].engine;
    }
    return NULL;
}

const struct engine *context_engine(const char *name)
{
    for (size_t i = 0; i < sizeof(drivers) / sizeof(drivers[0]); i++) {
        if (strcmp(drivers[i].engine->name, name) == 0)
            return drivers[i].engine;
    }
    return NULL;
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
    char host[HOLDER_HOST_MAX];

    holder_host(host);
    snprintf(out, size, "%s:%d:%llu", host, (int)getpid(), start_ticks());
}

/* Where a journal of files stands; else the folder of the configuration. */
static void folder_of(const struct config *config, char *out, size_t size)
{
    bool files = strncmp(config->journal, "file:", 5) == 0;
    char *slash;

    snprintf(out, size, "%s", files ? config->journal + 5 : config->file);
    if (!files && !strchr(out, '/'))
        snprintf(out, size, "./");
    while ((slash = strrchr(out, '/')) && slash[1] == '\0' && slash != out)
        *slash = '\0';
    if (slash)
        slash[slash == out] = '\0';
}

/* The names that change on the way. Without a word from the user the source's own schema becomes
 * the target's own, unless one of them is spoken for; the engines say which that is. */
static int map_schemas(struct context *x, struct err *e)
{
    const struct pair_list *pairs = &x->config.schemas;
    struct migration *m = &x->m;
    bool kept = m->source.engine == &engine_postgres && m->target.engine == &engine_postgres;
    struct schema_pair *v = arena_alloc(&x->config.arena, (pairs->n + 1) * sizeof(*v));
    char from[200];
    char to[200];

    m->schemas.v = v;
    if (kept && pairs->n)
        return config_refuse(&x->config, pairs->line, "schemas",
                             "between two PostgreSQL servers all names are kept; expected no such "
                             "key",
                             e);
    if (kept)
        return 0;
    m->source.engine->home_schema(m->source.uri, from, sizeof(from));
    m->target.engine->home_schema(m->target.uri, to, sizeof(to));
    for (size_t i = 0; i < pairs->n; i++) {
        v[m->schemas.n++] = (struct schema_pair){pairs->names[i], pairs->values[i]};
        kept = kept || strcmp(pairs->names[i], from) == 0 || strcmp(pairs->values[i], to) == 0;
    }
    if (!kept)
        v[m->schemas.n++] = (struct schema_pair){arena_strdup(&x->config.arena, from),
                                                 arena_strdup(&x->config.arena, to)};
    return 0;
}

static void set_journal(struct context *x)
{
    struct config *config = &x->config;
    const struct pair_list *kafka = &config->kafka;
    struct journal_property *v = arena_alloc(&config->arena, (kafka->n + 1) * sizeof(*v));

    for (size_t i = 0; i < kafka->n; i++)
        v[i] = (struct journal_property){kafka->names[i], kafka->values[i]};
    x->m.journal = (struct journal_options){
        .uri = config->journal,
        .name = arena_printf(&config->arena, "lockstep.%s", config->migration),
        .registry = config->schema_registry,
        .properties = v,
        .nproperties = kafka->n,
        .max_bytes = config->journal_max,
    };
}

int context_open(struct context *x, const struct cli *c, struct err *e)
{
    const struct config *config = &x->config;

    memset(x, 0, sizeof(*x));
    if (config_load(c->file, &x->config, e) < 0)
        return -1;
    if (!driver_of(config->source) || !driver_of(config->target)) {
        context_close(x);
        return err_set(e, ERR_CONFIG, "this build has no driver for MySQL and MariaDB");
    }
    name_holder(x->holder, sizeof(x->holder));
    folder_of(config, x->folder, sizeof(x->folder));
    x->m = (struct migration){
        .name = config->migration,
        .source = {driver_of(config->source), config->source},
        .target = {driver_of(config->target), config->target},
        .fence = {config->fence.whole_server, config->fence.accounts.v, config->fence.accounts.n},
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
    set_journal(x);
    if (map_schemas(x, e) == 0)
        return 0;
    context_close(x);
    return -1;
}

void context_close(struct context *x)
{
    config_release(&x->config);
}

void context_home(const struct context *x, char *out, size_t size)
{
    char *slash;

    snprintf(out, size, "%s", x->config.file);
    slash = strrchr(out, '/');
    if (!slash)
        snprintf(out, size, ".");
    else
        slash[slash == out] = '\0';
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
