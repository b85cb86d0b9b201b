/* init: two URIs → a commented lockstep.yaml without passwords. */
#include "cli/cli.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SOURCE_VARIABLE "LOCKSTEP_SOURCE_PASSWORD"
#define TARGET_VARIABLE "LOCKSTEP_TARGET_PASSWORD"

/* The URI with every password in it replaced by the variable; it is put in as well if none is there
 * but the variable is set: whoever exports it means it to be read. *had: it is in the URI. */
static const char *without_password(struct arena *a, const char *uri, const char *variable,
                                    bool *had)
{
    const char *authority = strstr(uri, "://") + 3;
    const char *at = config_uri_at(authority);
    const char *colon = at ? memchr(authority, ':', (size_t)(at - authority)) : NULL;
    const char *rest = at ? at : authority;
    const char *param = strchr(rest, '?');
    bool named = param && strstr(param, "password=");

    *had = colon || named;
    if (!*had && at && getenv(variable)) {
        *had = true;
        colon = at;
    }
    if (colon)
        uri = arena_printf(a, "%.*s:${%s}%s", (int)(colon - uri), uri, variable, at);
    param = strchr(uri + strlen(uri) - strlen(rest), '?');
    while (param && (param = strstr(param, "password="))) {
        size_t kept = (size_t)(param - uri) + strlen("password=");

        uri = arena_printf(a, "%.*s${%s}%s", (int)kept, uri, variable,
                           uri + kept + strcspn(uri + kept, "&"));
        param = uri + kept;
    }
    return uri;
}

/* A name for the migration, out of the source's database. */
static const char *migration_name(struct arena *a, const char *uri)
{
    const char *authority = strstr(uri, "://") + 3;
    const char *at = config_uri_at(authority);
    const char *slash = strchr(at ? at : authority, '/');
    size_t len = slash ? strcspn(slash + 1, "?") : 0;
    char *name = slash ? arena_strndup(a, slash + 1, len < 31 ? len : 31) : NULL;

    if (!name || !isalpha((unsigned char)*name))
        return "migration";
    for (char *p = name; *p; p++)
        *p = isalnum((unsigned char)*p) ? (char)tolower((unsigned char)*p) : '_';
    return name;
}

static const char template[] =
    "# lockstep: what moves where. docs/configuration.md tells every key.\n"
    "# A value may name an environment variable: ${NAME}.\n"
    "\n"
    "migration: %s            # names slot, publication and journal\n"
    "\n"
    "source: %s\n"
    "target: %s\n"
    "\n"
    "# Captured changes wait here for apply; it needs room for what the source writes meanwhile.\n"
    "# journal: file:./%s.journal            # or kafka://broker1:9092,broker2:9092\n"
    "# journal_max: 50GiB\n"
    "# schema_registry: http://localhost:8081            # with kafka\n"
    "# kafka: {security.protocol: SASL_SSL}              # properties of librdkafka\n"
    "\n"
    "%s"
    "%s"
    "\n"
    "# snapshot: {workers: 4, chunk_size: 64MiB, max_rate: 0}\n"
    "# apply: {batch: 4MiB, batch_delay: 50ms, on_error: park}        # stop | park\n"
    "# cutover: {max_pause: 5s, lease: 30s, on_switch: ./switch.sh}\n"
    "# memory: 64MiB\n"
    "# listen: 127.0.0.1:8650                            # status page, /metrics, /healthz\n"
    "# pg_bindir: /usr/lib/postgresql/17/bin\n";

static const char template_tables[] = "# All user tables, unless said otherwise:\n"
                                      "# tables:\n"
                                      "#   include: [%s.*]\n"
                                      "#   exclude: [%s.audit_*]\n";
/* A MySQL or MariaDB URI names a database, which by itself limits nothing. */
static const char template_database[] = "# What is migrated: without this, the tables of all "
                                        "databases of the source.\n"
                                        "tables:\n"
                                        "  include: ['%s.*']\n"
                                        "#   exclude: ['%s.audit_*']\n";

/* Only what concerns a MySQL or MariaDB end; the user is to see it, and to answer. */
static const char template_closing[] =
    "\n"
    "# A MySQL or MariaDB server can only be closed to writes as a whole. If other databases are\n"
    "# on it, say that this is right; on MariaDB name the applications' accounts, whose lock "
    "keeps\n"
    "# it closed over a restart.\n"
    "# fence: {whole_server: true, accounts: ['app@%']}\n";

/* The URI's scheme and form are the configuration's to judge: they are options of it. */
static int check_uri(const char *uri, const char *key, const char *which, struct err *e)
{
    struct config c = {0};
    int rc = config_override(&c, key, uri, e);

    config_release(&c);
    if (rc == 0 && !strpbrk(uri, " \n\t\"'"))
        return 0;
    if (rc == 0)
        err_set(e, ERR_CONFIG, "it has blanks or quotes; expected them percent-encoded");
    return err_wrap(e, "%s", which);
}

/* MySQL's patterns are database.table. */
static const char *home_schema(struct arena *a, const char *uri)
{
    const struct engine *engine = driver_of(uri);
    char home[200] = "public";

    if (engine && engine->home_schema)
        engine->home_schema(uri, home, sizeof(home));
    return arena_strdup(a, home);
}

static void write_config(struct buf *out, struct arena *a, const char *const ends[2])
{
    const char *name = migration_name(a, ends[0]);
    const char *from = home_schema(a, ends[0]);
    const char *to = home_schema(a, ends[1]);
    bool renamed = strcmp(from, to) != 0;
    bool named = strncmp(ends[0], "postgres", 8) != 0 && from[0] != '\0' && !strchr(from, '\'');
    bool closing = strncmp(ends[0], "postgres", 8) != 0 || strncmp(ends[1], "postgres", 8) != 0;
    const char *schemas =
        renamed ? arena_printf(a,
                               "# schemas: {%s: %s}            # so it is, unless said "
                               "otherwise; others keep their name\n",
                               from, to)
                : "";

    buf_addf(out, template, name, ends[0], ends[1], name,
             arena_printf(a, named ? template_database : template_tables, from, from), schemas);
    if (closing)
        buf_adds(out, template_closing);
}

/* Never over an existing file, also not over one that appears meanwhile. */
static int write_new(const char *path, const struct buf *text, struct err *e)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int rc = 0;

    if (fd < 0 && errno == EEXIST) {
        err_set(e, ERR_REFUSED, "%s exists already; it was left as it is", path);
        return err_hint(e, "edit it, or move it away");
    }
    if (fd < 0)
        return err_set(e, ERR_FATAL, "%s: %s", path, strerror(errno));
    if (write(fd, text->data, text->len) != (ssize_t)text->len || fsync(fd) != 0)
        rc = err_set(e, ERR_FATAL, "%s: %s", path, strerror(errno));
    if (close(fd) != 0 && rc == 0)
        rc = err_set(e, ERR_FATAL, "%s: %s", path, strerror(errno));
    if (rc < 0)
        unlink(path);
    return rc;
}

/* What is to be typed before the next command, if the file names a variable that is not set. */
static const char *to_export(bool named, const char *variable)
{
    if (!named || getenv(variable))
        return "";
    return strcmp(variable, SOURCE_VARIABLE) == 0 ? "export " SOURCE_VARIABLE "=…; "
                                                  : "export " TARGET_VARIABLE "=…; ";
}

int command_init(struct cli *c, struct err *e)
{
    struct arena a = ARENA_INIT;
    const char *source;
    const char *target;
    bool source_had;
    bool target_had;
    struct buf text;
    int rc = -1;

    if (check_uri(c->operands[0], "source", "SOURCE", e) < 0 ||
        check_uri(c->operands[1], "target", "TARGET", e) < 0)
        return -1;
    buf_init(&text, BUF_MAX_TEXT);
    source = without_password(&a, c->operands[0], SOURCE_VARIABLE, &source_had);
    target = without_password(&a, c->operands[1], TARGET_VARIABLE, &target_had);
    write_config(&text, &a, (const char *[]){source, target});
    if (write_new(c->file, &text, e) < 0)
        goto out;
    cli_say(c, "%s is written", c->file);
    cli_put(c, "file", json_string(c->file));
    cli_next(c, "%s%slockstep check", to_export(source_had, SOURCE_VARIABLE),
             to_export(target_had, TARGET_VARIABLE));
    rc = EXIT_DONE;
out:
    buf_release(&text);
    arena_release(&a);
    return rc;
}
