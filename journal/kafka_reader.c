/* The reader of the Kafka journal: the machine over the topic's messages, parts put together. */
#include "journal/kafka_impl.h"
#include "journal/kafka_schemas.h"

#include "core/buf.h"
#include "core/run.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SLICE_MS 100
#define REGISTRY_PREFIX 5u
/* A reader that gets nothing asks this often whether its topic is still there. */
#define LOOK_MS 2000
#define ASSEMBLY_KEEP ((size_t)1024 * 1024)

struct kafka_reader {
    struct journal_reader base;
    struct journal_options o;
    struct kafka_client client;
    struct kafka_fetch fetch;
    struct kafka_machine machine;
    struct kafka_schemas schemas;
    struct buf assembly;
    int64_t last_look_ms; /* or when the last message came */
};

int kafka_reader_open(const struct journal_options *o, uint64_t from, struct journal_reader **out,
                      struct err *e)
{
    struct kafka_reader *r = calloc(1, sizeof(*r));
    size_t message_max;
    int found;

    invariant(r != NULL);
    r->base.ops = &kafka_journal_ops;
    r->o = *o;
    buf_init(&r->assembly, BUF_MAX_ROW);
    kafka_schemas_init(&r->schemas, o);
    found = kafka_client_open(&r->client, RD_KAFKA_CONSUMER, &r->o, NULL, 0, e);
    if (found == 0)
        found = kafka_topic_exists(&r->client, r->client.name, e);
    if (found == 0 && from > 0) /* somebody has read in it */
        found = kafka_topic_lost(&r->client, r->client.name, e);
    if (found == 1 && kafka_topic_check(&r->client, r->client.name, &message_max, e) < 0)
        found = -1;
    r->fetch = (struct kafka_fetch){
        .client = &r->client, .topic = r->client.topic, .name = r->client.name};
    if (found == 1)
        found = kafka_scan_find(&r->fetch, &r->machine, from, e);
    /* Also where the record was not found: that another's journal is shorter says nothing. */
    if (found != 0 && kafka_scan_owner(&r->fetch, &r->machine, e) < 0)
        found = -1;
    r->o.owner = NULL; /* the caller's */
    if (found == 1) {
        *out = &r->base;
        return 0;
    }
    if (found == 0)
        err_set(e, ERR_RETRY, "there is no journal in topic %s at %s yet", r->client.name,
                r->client.brokers);
    kafka_reader_close(&r->base);
    return -1;
}

void kafka_reader_close(struct journal_reader *base)
{
    struct kafka_reader *r = (struct kafka_reader *)base;

    kafka_fetch_release(&r->fetch);
    kafka_schemas_release(&r->schemas);
    kafka_client_close(&r->client);
    buf_release(&r->assembly);
    free(r);
}

/* The record's bytes: the message's own, or what was put together from its parts. */
static int take_part(struct kafka_reader *r, const struct kafka_header *h, struct err *e)
{
    const struct kafka_message *m = &r->fetch.message;

    if (h->parts == 1)
        return 0;
    if (h->part == 0)
        buf_reset(&r->assembly, ASSEMBLY_KEEP);
    buf_add(&r->assembly, m->value, m->len);
    return buf_check(&r->assembly, "a journal record in parts", e);
}

static int take_record(struct kafka_reader *r, const struct kafka_header *h,
                       struct journal_record *out, struct err *e)
{
    const char *data = h->parts == 1 ? r->fetch.message.value : r->assembly.data;
    size_t len = h->parts == 1 ? r->fetch.message.len : r->assembly.len;
    size_t skip = h->flags & KAFKA_FLAG_REGISTRY ? REGISTRY_PREFIX : 0;

    if (len < skip || (skip && data[0] != 0))
        return err_set(e, ERR_FATAL,
                       "topic %s: record %" PRIu64 " does not begin as the registry's do",
                       r->client.name, h->number);
    *out = (struct journal_record){.number = h->number,
                                   .generation = h->generation,
                                   .data = data ? data + skip : "",
                                   .len = len - skip};
    return kafka_schemas_resolve(&r->schemas, &r->client, h, &out->schema, e) < 0 ? -1 : 1;
}

/* The offset that comes next is not in the topic: somebody removed records, or the topic was made
 * anew. */
static int fail_range(struct kafka_reader *r, struct err *e)
{
    struct kafka_machine head = {0};
    uint64_t first;
    uint64_t end = 0;
    int found = kafka_topic_ends(&r->client, r->client.name, &first, &end, e);

    if (found == 1)
        found = kafka_scan_head(&r->fetch, &head, e);
    if (found < 0)
        return -1;
    if (found == 0 || head.journal != r->machine.journal)
        return err_set(e, ERR_FATAL, "topic %s was made anew: it is not the one that was read",
                       r->client.name);
    if (end < r->machine.offset) {
        err_set(e, ERR_FATAL,
                "topic %s ends at offset %" PRIu64 ", but was read up to %" PRIu64
                ": the brokers lost records that they had confirmed",
                r->client.name, end, r->machine.offset);
        return err_hint(e, "a broker lost its disk's last writes, or an unclean leader was "
                           "elected: abandon this migration (lockstep finish --abandon)");
    }
    return err_set(e, ERR_FATAL,
                   "topic %s: record %" PRIu64 " was trimmed; the first kept is %" PRIu64,
                   r->client.name, r->machine.next, head.next);
}

/* 1 a record, 0 nothing for now, -1; *more: there may be another message at once. */
static int read_one(struct kafka_reader *r, int timeout_ms, struct journal_record *out, bool *more,
                    struct err *e)
{
    struct kafka_header h;
    bool out_of_range;
    int got = kafka_fetch_next(&r->fetch, timeout_ms, &out_of_range, e);

    *more = got == 1;
    if (got < 0 && out_of_range)
        return fail_range(r, e);
    if (got < 1)
        return got;
    switch (kafka_machine_step(&r->machine, r->client.name, &r->fetch.message, &h, e)) {
    case KAFKA_STEP_ERROR:
        return -1;
    case KAFKA_STEP_PASS:
        return 0;
    case KAFKA_STEP_PART:
        return take_part(r, &h, e);
    case KAFKA_STEP_RECORD:
        return take_part(r, &h, e) < 0 ? -1 : take_record(r, &h, out, e);
    }
    return -1;
}

/* The library goes on asking for a topic that was removed, and says nothing. */
static int look_at_topic(struct kafka_reader *r, struct err *e)
{
    uint64_t first;
    uint64_t end;
    int found;

    if (mono_ms() - r->last_look_ms < LOOK_MS)
        return 0;
    found = kafka_topic_ends(&r->client, r->client.name, &first, &end, e);
    r->last_look_ms = mono_ms();
    if (found == 0) {
        r->client.topic_gone = true;
        return kafka_topic_lost(&r->client, r->client.name, e);
    }
    if (found == 1 && (end < r->machine.offset || first > r->machine.offset))
        return fail_range(r, e);
    return found < 0 ? -1 : 0;
}

int kafka_reader_read(struct journal_reader *base, int timeout_ms, struct journal_record *out,
                      struct err *e)
{
    struct kafka_reader *r = (struct kafka_reader *)base;
    int64_t end = timeout_ms > 0 ? mono_ms() + timeout_ms : 0;

    if (r->assembly.cap > ASSEMBLY_KEEP && r->machine.next_part == 0)
        buf_reset(&r->assembly, 0);
    for (;;) {
        int64_t left = timeout_ms > 0 ? end - mono_ms() : 0;
        bool more;
        int got;

        left = left < 0 ? 0 : left;
        got = read_one(r, left < SLICE_MS ? (int)left : SLICE_MS, out, &more, e);
        if (more)
            r->last_look_ms = mono_ms();
        if (got != 0)
            return got;
        if (!more && look_at_topic(r, e) < 0)
            return -1;
        if ((!more && left == 0) || stop_requested())
            return 0;
    }
}

const char *kafka_reader_schema_text(struct journal_reader *base, uint64_t schema)
{
    return kafka_schemas_text(&((struct kafka_reader *)base)->schemas, schema);
}
