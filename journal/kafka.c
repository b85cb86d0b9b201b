/* The Kafka journal: one topic of one partition, "kafka://HOST:PORT,…".
 *
 * The normal course. A writer reads the end of the log, writes OPEN with a generation above what it
 * found, and reads on until it sees it: from that place in the log on the generation is its own.
 * Records gather in memory; a flush gives them to librdkafka (idempotent, acks=all) and ends them
 * with STATE, which says the number that comes next and holds the note; it returns when every
 * delivery report is in. Readers run the same machine over the messages (kafka_format.h).
 *
 * What is never trusted is our own memory of what the broker has. message.timeout.ms is unlimited,
 * so the library never drops one message and sends the next: what arrives is always a beginning of
 * what was sent. Whoever loses patience (20 s) ends the writer for good, and the next one reads
 * what has arrived.
 *
 * The dangerous interleavings. (1) A writer sleeps, another takes over, the first one wakes and
 * writes: the broker takes its records, but every reader passes over them, because they stand
 * behind an OPEN of a higher generation; and the writer sees it before it says "durable", because
 * the offsets of its messages are not consecutive. (2) Two open at once: the first OPEN in the log
 * has the generation. (3) Death in the middle of a record's parts: the next OPEN voids them.
 * (4) The topic is removed and made anew under a reader: messages carry the journal's own number.
 * (5) Retention, compaction, an unclean leader: offsets or record numbers are not contiguous, or a
 * record that is needed stands no more behind the first STATE; that is said and never passed over.
 *
 * Finding a record: every message names a STATE known to be valid when it was sent (`ref`), so any
 * probe of a binary search leads to a place from where the machine may run. Trimming ends before a
 * STATE for the same reason; a broker that was killed since may show again what stood before, from
 * any message on, then it is read from the first STATE that a later message names. Sizes are
 * counted by the writer and kept in STATE, because librdkafka cannot ask for them.
 */
#include "journal/kafka_impl.h"
#include "journal/kafka_scan.h"
#include "journal/registry.h"

#include "core/log.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Housekeeping is done every second, so its connections stay: one for each journal of a migration,
 * forward and back. A third name takes the place of the one that was not asked for longest. */
#define HOUSES 2

struct house {
    pthread_mutex_t mutex; /* held while a task runs; guards all but `uri`, `name`, `turn` */
    bool open;
    struct journal_options o;
    struct kafka_client client;
    struct kafka_fetch fetch;
    /* Whom it is kept for; under `street`. No more than a hint: who has the mutex looks at o. */
    char uri[512];
    char name[256];
    uint64_t turn;
};

static pthread_mutex_t street = PTHREAD_MUTEX_INITIALIZER;
static struct house houses[HOUSES] = {{.mutex = PTHREAD_MUTEX_INITIALIZER},
                                      {.mutex = PTHREAD_MUTEX_INITIALIZER}};

static struct house *house_for(const struct journal_options *o)
{
    static uint64_t turns;
    const char *name = o->name ? o->name : "";
    struct house *h = &houses[0];

    pthread_mutex_lock(&street);
    for (size_t i = 0; i < HOUSES; i++) {
        if (strcmp(houses[i].uri, o->uri) == 0 && strcmp(houses[i].name, name) == 0) {
            h = &houses[i];
            break;
        }
        if (houses[i].turn < h->turn)
            h = &houses[i];
    }
    snprintf(h->uri, sizeof(h->uri), "%s", o->uri);
    snprintf(h->name, sizeof(h->name), "%s", name);
    h->turn = ++turns;
    pthread_mutex_unlock(&street);
    return h;
}

static void house_close(struct house *h)
{
    if (!h->open)
        return;
    kafka_fetch_release(&h->fetch);
    kafka_client_close(&h->client);
    free((char *)(uintptr_t)h->o.uri);
    free((char *)(uintptr_t)h->o.name);
    h->open = false;
}

static void house_drop(const struct journal_options *o)
{
    struct house *h = house_for(o);

    pthread_mutex_lock(&h->mutex);
    house_close(h);
    pthread_mutex_unlock(&h->mutex);
}

static int house_open(struct house *h, const struct journal_options *o, struct err *e)
{
    const char *name = o->name ? o->name : "";

    if (h->open && strcmp(h->o.uri, o->uri) == 0 && strcmp(h->o.name, name) == 0)
        return 0;
    house_close(h);
    memset(&h->client, 0, sizeof(h->client));
    memset(&h->fetch, 0, sizeof(h->fetch));
    h->o = *o;
    h->o.owner = NULL;
    h->o.uri = strdup(o->uri);
    h->o.name = strdup(name);
    invariant(h->o.uri && h->o.name);
    h->open = true;
    if (kafka_client_open(&h->client, RD_KAFKA_CONSUMER, &h->o, NULL, 0, e) < 0)
        return -1;
    h->fetch = (struct kafka_fetch){
        .client = &h->client, .topic = h->client.topic, .name = h->client.name};
    return 0;
}

/* Runs one task with the connection; after an error the next task begins with a new one. */
static int with_house(const struct journal_options *o,
                      int (*task)(struct house *h, void *arg, struct err *e), void *arg,
                      struct err *e)
{
    struct house *h = house_for(o);
    int rc;

    pthread_mutex_lock(&h->mutex);
    rc = house_open(h, o, e);
    h->o.owner = o->owner;
    h->o.registry = o->registry;
    if (rc == 0)
        rc = task(h, arg, e);
    h->o.owner = NULL; /* the caller's, as the next is */
    h->o.registry = NULL;
    if (rc < 0)
        house_close(h);
    else
        kafka_fetch_stop(&h->fetch);
    pthread_mutex_unlock(&h->mutex);
    return rc;
}

static int stat_task(struct house *h, void *arg, struct err *e)
{
    struct journal_stats *out = arg;
    struct kafka_machine head = {0};
    struct kafka_machine tail = {0};
    int found = kafka_scan_head(&h->fetch, &head, e);

    if (found == 1)
        found = kafka_scan_tail(&h->fetch, &tail, e);
    if (found < 1)
        return found;
    out->first = head.next;
    out->next = tail.next;
    out->bytes = tail.bytes - head.bytes;
    snprintf(out->owner, sizeof(out->owner), "%s", tail.owner);
    return 1;
}

static int kafka_stat(const struct journal_options *o, struct journal_stats *out, struct err *e)
{
    int found = with_house(o, stat_task, out, e);

    if (found == 1)
        out->max_bytes = o->max_bytes;
    return found;
}

/* Never the last record, so that the numbering goes on. */
static int trim_task(struct house *h, void *arg, struct err *e)
{
    uint64_t below = *(const uint64_t *)arg;
    struct kafka_machine m = {0};
    int found = kafka_scan_tail(&h->fetch, &m, e);

    if (found < 1 || m.next == 0)
        return found < 0 ? -1 : 0;
    if (kafka_scan_owner(&h->fetch, &m, e) < 0)
        return -1;
    if (below > m.next - 1)
        below = m.next - 1;
    found = kafka_scan_head(&h->fetch, &m, e);
    if (found < 1 || m.next >= below)
        return found < 0 ? -1 : 0;
    found = kafka_scan_find(&h->fetch, &m, below, e);
    if (found < 1 || m.state == 0)
        return found < 0 ? -1 : 0;
    return kafka_topic_trim(&h->client, h->client.name, m.state, e);
}

static int kafka_trim(const struct journal_options *o, uint64_t below, struct err *e)
{
    return with_house(o, trim_task, &below, e);
}

static int remove_task(struct house *h, void *arg, struct err *e)
{
    char schemas[sizeof(h->client.name) + sizeof(KAFKA_SCHEMAS_SUFFIX)];

    snprintf(schemas, sizeof(schemas), "%s" KAFKA_SCHEMAS_SUFFIX, h->client.name);
    if (kafka_topic_delete(&h->client, h->client.name, e) < 0)
        return -1;
    return kafka_topic_delete(&h->client, schemas, e);
}

/* 1: nothing of ours can be in it; 0; -1. Where records are missing, nobody else's are. */
static int foreign_task(struct house *h, void *arg, struct err *e)
{
    struct kafka_machine m = {0};
    int found = kafka_scan_tail(&h->fetch, &m, e);

    if (found == 1 && kafka_scan_owner(&h->fetch, &m, e) < 0)
        found = -1;
    if (found >= 0)
        return 0;
    if (e->class != ERR_REFUSED && e->class != ERR_FATAL)
        return -1;
    found = e->class == ERR_REFUSED;
    if (found)
        log_event(LOG_WARN, "journal", "left-alone", "%s", e->msg);
    err_clear(e);
    return found;
}

static int kafka_remove(const struct journal_options *o, struct err *e)
{
    /* By a handle that has not read the topic, and that nobody uses afterwards. */
    int rc = with_house(o, foreign_task, NULL, e);

    if (rc != 0)
        return rc < 0 ? -1 : 0;
    house_drop(o);
    rc = with_house(o, remove_task, NULL, e);
    house_drop(o);
    return rc;
}

/* ---- could it be used ---- */

/* A topic that is there: its settings, and whose it is. */
static int check_topic(struct house *h, bool fresh, struct err *e)
{
    struct kafka_machine m = {0};
    size_t message_max;
    int found;

    if (kafka_topic_check(&h->client, h->client.name, &message_max, e) < 0)
        return -1;
    found = kafka_scan_tail(&h->fetch, &m, e);
    if (found < 1)
        return found;
    if (!fresh)
        return kafka_scan_owner(&h->fetch, &m, e);
    err_set(e, ERR_REFUSED,
            "topic %s at %s holds the journal of another migration of this name%s%s",
            h->client.name, h->client.brokers, m.owner[0] ? ": " : "", m.owner);
    return err_hint(e,
                    "give this migration another name; if nobody needs that one any more, remove "
                    "its topics");
}

static int check_task(struct house *h, void *arg, struct err *e)
{
    const bool *fresh = arg;
    char schemas[sizeof(h->client.name) + sizeof(KAFKA_SCHEMAS_SUFFIX)];
    int found = kafka_topic_exists(&h->client, h->client.name, e);

    if (found == 1)
        return check_topic(h, *fresh, e);
    snprintf(schemas, sizeof(schemas), "%s" KAFKA_SCHEMAS_SUFFIX, h->client.name);
    if (found == 0 && kafka_topic_try(&h->client, h->client.name, e) < 0)
        return -1;
    if (found == 0 && !h->o.registry)
        return kafka_topic_try(&h->client, schemas, e);
    return found;
}

static int kafka_check(const struct journal_options *o, bool fresh, struct err *e)
{
    struct registry *registry = NULL;
    int rc;

    if (with_house(o, check_task, &fresh, e) < 0)
        return -1;
    if (!o->registry)
        return 0;
    rc = registry_open(o->registry, &registry, e);
    if (rc == 0)
        rc = registry_check(registry, e);
    registry_close(registry);
    return rc;
}

const struct journal_ops kafka_journal_ops = {
    .scheme = "kafka:",
    .writer_open = kafka_writer_open,
    .writer_close = kafka_writer_close,
    .generation = kafka_writer_generation,
    .schema = kafka_writer_schema,
    .append = kafka_writer_append,
    .flush = kafka_writer_flush,
    .note = kafka_writer_note,
    .next = kafka_writer_next,
    .durable = kafka_writer_durable,
    .reader_open = kafka_reader_open,
    .read = kafka_reader_read,
    .schema_text = kafka_reader_schema_text,
    .reader_close = kafka_reader_close,
    .trim = kafka_trim,
    .stat = kafka_stat,
    .check = kafka_check,
    .remove = kafka_remove,
};
