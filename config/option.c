#include "config/option.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define KIB ((int64_t)1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define TIB (1024 * GIB)
#define SECOND ((int64_t)1000)
#define MINUTE (60 * SECOND)

#define AT(member) offsetof(struct config, member)

/* In the order of enum on_error. */
static const char *const on_error_words[] = {"park", "stop", NULL};
static const char *const later_rules[] = {
    "this version takes tables.include and tables.exclude; leave the rules out", NULL};

const struct option options[] = {
    {"migration", OPTION_NAME, AT(migration), NULL, true, false, 0, 0, NULL,
     "Names the migration, its slot, publication and journal: [a-z][a-z0-9_]{0,30}."},
    {"source", OPTION_URI, AT(source), NULL, true, false, 0, 0, NULL,
     "The database to move. The password may be ${ENV}, or come from PGPASSFILE or ~/.my.cnf."},
    {"target", OPTION_URI, AT(target), NULL, true, false, 0, 0, NULL, "Where it goes."},
    {"journal", OPTION_JOURNAL, AT(journal), NULL, false, false, 0, 0, NULL,
     "Where captured changes wait: a directory, relative to this file, or a topic in Kafka, "
     "lockstep.<migration>. Default: file:./<migration>.journal."},
    {"schema_registry", OPTION_URL, AT(schema_registry), NULL, false, true, 0, 0, NULL,
     "Schema registry with Confluent's API, for a journal in Kafka; any consumer can then read the "
     "topic."},
    {"kafka", OPTION_SECRETS, AT(kafka), NULL, false, true, 0, 0, NULL,
     "Properties for librdkafka, as `security.protocol: SASL_SSL`; a value may be ${ENV}, and none "
     "is ever shown."},
    {"schemas", OPTION_PAIRS, AT(schemas), NULL, false, false, 0, 0, NULL,
     "What a schema of the source is called at the target. Unnamed: the source's own (public, or "
     "the database of its URI) becomes the target's own, others keep their name. Not between two "
     "PostgreSQL servers, where all names are kept."},
    {"tables.include", OPTION_PATTERNS, AT(include), NULL, false, false, 0, 0, NULL,
     "Tables to move, as schema.name with * and ?. Default: all user tables."},
    {"tables.exclude", OPTION_PATTERNS, AT(exclude), NULL, false, false, 0, 0, NULL,
     "Tables to leave out; wins over include."},
    {"snapshot.workers", OPTION_INT, AT(snapshot.workers), "4", false, false, 1, 64, NULL,
     "Chunks copied at the same time."},
    {"snapshot.chunk_size", OPTION_SIZE, AT(snapshot.chunk_size), "64MiB", false, false, MIB,
     64 * GIB, NULL,
     "About how much of a table one chunk holds; a crash costs the chunks in flight."},
    {"snapshot.max_rate", OPTION_SIZE, AT(snapshot.max_rate), "0", false, false, 0, TIB, NULL,
     "The most that all workers of a process together copy a second; 0: no limit."},
    {"apply.batch", OPTION_SIZE, AT(apply.batch), "4MiB", false, false, 64 * KIB, 64 * MIB, NULL,
     "The most that one target transaction holds, unless one source transaction is larger."},
    {"apply.batch_delay", OPTION_DURATION, AT(apply.batch_delay_ms), "50ms", false, false, 0,
     MINUTE, NULL,
     "The longest that a batch is held while an earlier one commits; an idle apply writes at "
     "once."},
    {"apply.on_error", OPTION_ENUM, AT(apply.on_error), "park", false, false, 0, 0, on_error_words,
     "A change that cannot be applied: park its table and go on with the others, or stop."},
    {"cutover.max_pause", OPTION_DURATION, AT(cutover.max_pause_ms), "5s", false, false, 100,
     60 * MINUTE, NULL, "The longest that writers are held; then the cutover is undone."},
    {"cutover.lease", OPTION_DURATION, AT(cutover.lease_ms), "30s", false, false, SECOND,
     60 * MINUTE, NULL,
     "The fence opens by itself, inside the server, when nobody renews it for so long."},
    {"cutover.on_switch", OPTION_TEXT, AT(cutover.on_switch), NULL, false, false, 0, 0, NULL,
     "Command that sends the applications to the target (or back): their reads ahead if asked for, "
     "their writes when it is the only one to write to. docs/cutover.md tells what it is told, "
     "docs/proxies.md has some for PgBouncer, HAProxy and ProxySQL."},
    {"fence.whole_server", OPTION_BOOL, AT(fence.whole_server), "false", false, false, 0, 0, NULL,
     "MySQL and MariaDB can only be closed as a whole; true says that this is right although other "
     "databases are on the server."},
    {"fence.accounts", OPTION_ACCOUNTS, AT(fence.accounts), NULL, false, false, 0, 0, NULL,
     "The applications' accounts on a MariaDB server; locking them is what keeps it closed over a "
     "restart."},
    {"memory", OPTION_SIZE, AT(memory), "64MiB", false, false, 64 * MIB, TIB, NULL,
     "The process stays under 64 MiB, plus four times the largest row in flight; more is not "
     "used."},
    {"journal_max", OPTION_SIZE, AT(journal_max), "50GiB", false, false, 64 * MIB, 1024 * TIB, NULL,
     "The journal's ceiling: a warning at 80 %; capture pauses before it is reached, with room for "
     "the largest row."},
    {"pg_bindir", OPTION_TEXT, AT(pg_bindir), NULL, false, false, 0, 0, NULL,
     "Where pg_dump and pg_restore are. Default: the newest found, at least the source's "
     "version."},
    {"listen", OPTION_ADDRESS, AT(listen), "127.0.0.1:8650", false, false, 0, 0, NULL,
     "Address of the status page, /metrics, /healthz, /position and /wait. Whoever reaches it can "
     "read them, so it is this machine only unless said otherwise."},
    {"tables.rules", OPTION_LATER, 0, NULL, false, false, 0, 0, later_rules, NULL},
};
const size_t option_count = sizeof(options) / sizeof(options[0]);

const struct option *option_find(const char *key)
{
    for (size_t i = 0; i < option_count; i++) {
        if (strcmp(options[i].key, key) == 0)
            return &options[i];
    }
    return NULL;
}

bool option_is_section(const char *name)
{
    size_t len = strlen(name);

    for (size_t i = 0; i < option_count; i++) {
        if (strncmp(options[i].key, name, len) == 0 && options[i].key[len] == '.')
            return true;
    }
    return false;
}

#define NEAREST_MAX 40

/* Levenshtein's distance; texts longer than any key are simply far. */
static size_t distance(const char *a, const char *b)
{
    size_t row[NEAREST_MAX + 1];
    size_t n = strlen(b);

    if (strlen(a) > NEAREST_MAX || n > NEAREST_MAX)
        return NEAREST_MAX;
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t corner = row[0];

        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t best = corner + (a[i - 1] != b[j - 1]);

            corner = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[n];
}

static const char *last_part(const char *key)
{
    const char *dot = strrchr(key, '.');

    return dot ? dot + 1 : key;
}

const char *option_nearest(const char *key)
{
    const char *best = NULL;
    size_t least = strlen(last_part(key)) / 3 + 1;

    for (size_t i = 0; i < option_count; i++) {
        size_t whole = distance(key, options[i].key);
        size_t part = distance(last_part(key), last_part(options[i].key));

        /* A key of that name in another section is a good guess too, but a worse one. */
        if (options[i].kind == OPTION_LATER)
            continue;
        if (whole < least || (whole == least && !best)) {
            least = whole;
            best = options[i].key;
        } else if (part + 1 < least) {
            least = part + 1;
            best = options[i].key;
        }
    }
    return best;
}
