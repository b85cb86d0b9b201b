/* The writer of the Kafka journal; kafka.c tells the course and why it is safe. */
#include "journal/kafka_impl.h"
#include "journal/kafka_schemas.h"

#include "core/buf.h"
#include "core/run.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* Records gather here until a flush, or until this much has gathered. */
#define HAND_OVER_BYTES ((size_t)256 * 1024)
/* A STATE at least after this many bytes: trimming and searching go by them. */
#define STATE_BYTES ((size_t)1024 * 1024)
#define STATES_UNDER_CEILING 8u
/* What a part leaves to its headers and its batch. */
#define PART_RESERVE 2048u
#define FLUSH_MS 20000
#define FLUSH_STOPPING_MS 5000
#define CEILING_LOOK_MS 500
#define SLICE_MS 100
#define REGISTRY_PREFIX 5u

struct declared {
    char *name;
    char *text;
    uint64_t remote;
    uint64_t print; /* of the text as readers get it */
};

/* Precedes each record in `pending`. */
struct frame {
    uint64_t number;
    size_t len;
    uint32_t schema;
};

struct kafka_writer {
    struct journal_writer base;
    struct journal_options o;
    char owner[JOURNAL_OWNER_MAX + 1];
    struct kafka_client scan; /* reads and asks */
    struct kafka_fetch fetch;
    struct kafka_client producer;
    rd_kafka_topic_t *schemas_topic; /* NULL with a registry */
    struct kafka_schemas schemas;
    struct declared *declared;
    size_t ndeclared;

    uint32_t generation;
    uint64_t journal;
    uint64_t nonce;
    uint64_t next;
    uint64_t durable;
    char *note; /* to go with the next flush; NULL: never said */
    bool note_changed;
    char *flushed_note;

    struct buf pending;
    size_t hand_over;
    size_t state_every;
    size_t part_size;
    uint64_t bytes;         /* of the log behind what was handed over */
    uint64_t pending_bytes; /* what `pending` will cost */
    uint64_t state_at;      /* bytes, when the last STATE was handed over */
    uint64_t first_bytes;   /* bytes of the log before its first message that is kept */
    int64_t last_look_ms;

    /* Set by delivery reports. */
    rd_kafka_resp_err_t failed;
    uint64_t expected; /* the offset of the next message of ours, if nobody else writes */
    bool opening;      /* the next one is OPEN: its offset is not known before */
    bool jumped;       /* an offset was another one */
    uint64_t ref;
    uint64_t ref_number;
    bool schema_done;
    int64_t schema_offset;

    enum err_class dead; /* ERR_NONE: lives */
    char why[256];
};

static struct kafka_writer *writer_of(struct journal_writer *w)
{
    return (struct kafka_writer *)w;
}

/* ---- delivery reports ---- */

static void on_delivered(void *owner, const rd_kafka_message_t *message)
{
    struct kafka_writer *w = owner;
    uint64_t state = (uint64_t)(uintptr_t)message->_private; /* STATE: its number + 1 */

    if (message->err) {
        if (!w->failed)
            w->failed = message->err;
        return;
    }
    if (w->schemas_topic && message->rkt == w->schemas_topic) {
        w->schema_offset = message->offset;
        w->schema_done = true;
        return;
    }
    if (w->opening) {
        w->expected = (uint64_t)message->offset + 1;
        w->opening = false;
        return;
    }
    if (message->offset < 0 || (uint64_t)message->offset != w->expected)
        w->jumped = true;
    if (w->jumped)
        return;
    w->expected++;
    if (state) {
        w->ref = (uint64_t)message->offset;
        w->ref_number = state - 1;
    }
}

/* From now on nothing is written: what the broker has of the last records is not known, and only
 * reading the log again tells. */
static int die(struct kafka_writer *w, const struct err *e)
{
    w->dead = e->class;
    snprintf(w->why, sizeof(w->why), "%s", e->msg);
    rd_kafka_purge(w->producer.rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
    return -1;
}

static int check_alive(const struct kafka_writer *w, struct err *e)
{
    if (w->dead == ERR_NONE)
        return 0;
    return err_set(e, w->dead, "topic %s: this writer has ended: %s", w->scan.name, w->why);
}

static int check_delivered(struct kafka_writer *w, struct err *e)
{
    char text[256];
    rd_kafka_resp_err_t fatal = rd_kafka_fatal_error(w->producer.rk, text, sizeof(text));

    if (w->producer.refused || fatal || w->failed) {
        kafka_fail(&w->producer, fatal ? fatal : w->failed, "writing it", e);
        if (w->failed == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE)
            err_hint(e,
                     "max.message.bytes of the topic was lowered below %zu; a new start goes "
                     "by what it is then",
                     w->part_size);
        return die(w, e);
    }
    return 0;
}

/* ---- messages ---- */

struct out_message {
    rd_kafka_topic_t *topic;
    struct kafka_header header;
    const void *value;
    size_t len;
    const char *note;
    const char *owner;
    uint64_t opaque;
};

static rd_kafka_resp_err_t produce(struct kafka_writer *w, const struct out_message *m)
{
    uint8_t bytes[KAFKA_HEADER_SIZE];
    rd_kafka_headers_t *headers = rd_kafka_headers_new(3);
    rd_kafka_resp_err_t error;

    kafka_header_write(&m->header, bytes);
    rd_kafka_header_add(headers, KAFKA_HEADER, -1, bytes, sizeof(bytes));
    if (m->note)
        rd_kafka_header_add(headers, KAFKA_HEADER_NOTE, -1, m->note, (ssize_t)strlen(m->note));
    if (m->owner)
        rd_kafka_header_add(headers, KAFKA_HEADER_OWNER, -1, m->owner, (ssize_t)strlen(m->owner));
    error = rd_kafka_producev(w->producer.rk, RD_KAFKA_V_RKT(m->topic), RD_KAFKA_V_PARTITION(0),
                              RD_KAFKA_V_VALUE((void *)(uintptr_t)m->value, m->len),
                              RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_HEADERS(headers),
                              RD_KAFKA_V_OPAQUE((void *)(uintptr_t)m->opaque), RD_KAFKA_V_END);
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
        rd_kafka_headers_destroy(headers);
    return error;
}

static int64_t patience(void)
{
    return stop_requested() ? FLUSH_STOPPING_MS : FLUSH_MS;
}

/* Gives the message to the library; its queue is bounded, so this may wait for the broker. */
static int send_message(struct kafka_writer *w, const struct out_message *m, struct err *e)
{
    int64_t begin = mono_ms();
    rd_kafka_resp_err_t error;

    while ((error = produce(w, m)) == RD_KAFKA_RESP_ERR__QUEUE_FULL) {
        rd_kafka_poll(w->producer.rk, SLICE_MS);
        if (check_delivered(w, e) < 0)
            return -1;
        if (mono_ms() - begin > patience())
            break;
    }
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR) {
        kafka_fail(&w->producer, error, "writing it", e);
        return die(w, e);
    }
    if (m->topic == w->producer.topic)
        w->bytes += m->len + (m->note ? strlen(m->note) : 0) + KAFKA_MESSAGE_COST;
    return 0;
}

static struct kafka_header header_of(const struct kafka_writer *w, enum kafka_kind kind,
                                     uint64_t number)
{
    return (struct kafka_header){.kind = (uint8_t)kind,
                                 .generation = w->generation,
                                 .number = number,
                                 .journal = w->journal,
                                 .ref = w->ref,
                                 .ref_number = w->ref_number};
}

static int send_state(struct kafka_writer *w, uint64_t number, const char *note, struct err *e)
{
    struct out_message m = {.topic = w->producer.topic,
                            .header = header_of(w, KAFKA_STATE, number),
                            .note = note,
                            .owner = w->o.owner,
                            .opaque = number + 1};

    m.header.bytes = w->bytes;
    if (send_message(w, &m, e) < 0)
        return -1;
    w->state_at = w->bytes;
    return 0;
}

/* Waits until everything that was sent has been reported. */
static int await_reports(struct kafka_writer *w, struct err *e)
{
    int64_t begin = mono_ms();

    while (rd_kafka_flush(w->producer.rk, SLICE_MS) != RD_KAFKA_RESP_ERR_NO_ERROR) {
        if (check_delivered(w, e) < 0)
            return -1;
        if (mono_ms() - begin <= patience())
            continue;
        err_set(e, ERR_RETRY,
                "topic %s at %s: the brokers have not confirmed records for %lld s%s%s",
                w->scan.name, w->scan.brokers, (long long)(patience() / 1000),
                w->producer.reason[0] ? ": " : "", w->producer.reason);
        return die(w, e);
    }
    w->producer.down = false;
    return check_delivered(w, e);
}

/* Our messages did not follow each other: the log itself tells whether somebody took over. */
static int look_into_jump(struct kafka_writer *w, struct err *e)
{
    struct kafka_machine m = {0};
    int found = kafka_scan_tail(&w->fetch, &m, e);

    /* A broker that has just started may not know its topics yet: that fences nobody. */
    if (found == 0)
        err_set(e, ERR_RETRY,
                "topic %s at %s is empty or not known to the broker: the writer must begin again",
                w->scan.name, w->scan.brokers);
    if (found < 1)
        return die(w, e);
    kafka_fetch_stop(&w->fetch);
    if (m.generation != w->generation || m.journal != w->journal) {
        err_set(e, ERR_FENCED,
                "topic %s: another writer took over: generation %" PRIu32 ", ours is %" PRIu32,
                w->scan.name, m.generation, w->generation);
        return die(w, e);
    }
    if (m.next != w->next) {
        err_set(e, ERR_RETRY,
                "topic %s ends before record %" PRIu64 " instead of %" PRIu64
                ": the writer must begin again",
                w->scan.name, m.next, w->next);
        return die(w, e);
    }
    w->expected = m.offset;
    w->ref = m.state;
    w->ref_number = m.state_number;
    w->jumped = false;
    return 0;
}

/* ---- records ---- */

/* One record, in as many parts as it needs. prefix: the registry's, in front of the data. */
static int send_record(struct kafka_writer *w, uint32_t schema, uint64_t number,
                       const struct iovec *datum, struct err *e)
{
    struct out_message m = {.topic = w->producer.topic,
                            .header = header_of(w, KAFKA_RECORD, number)};
    const char *data = datum->iov_base;
    size_t left = datum->iov_len;

    if (w->o.registry)
        m.header.flags = KAFKA_FLAG_REGISTRY;
    m.header.schema = w->declared[schema].remote;
    m.header.nonce = w->declared[schema].print;
    m.header.parts = left <= w->part_size ? 1 : (uint32_t)((left - 1) / w->part_size + 1);
    for (; m.header.part < m.header.parts; m.header.part++) {
        m.value = data;
        m.len = left < w->part_size ? left : w->part_size;
        if (send_message(w, &m, e) < 0)
            return -1;
        data += m.len;
        left -= m.len;
    }
    if (w->bytes - w->state_at >= w->state_every)
        return send_state(w, number + 1, w->flushed_note, e);
    return 0;
}

static int send_pending(struct kafka_writer *w, struct err *e)
{
    size_t at = 0;

    while (at < w->pending.len) {
        struct iovec datum;
        struct frame frame;

        memcpy(&frame, w->pending.data + at, sizeof(frame));
        at += sizeof(frame);
        datum = (struct iovec){.iov_base = w->pending.data + at, .iov_len = frame.len};
        at += frame.len;
        if (send_record(w, frame.schema, frame.number, &datum, e) < 0)
            return -1;
    }
    buf_reset(&w->pending, w->hand_over * 2);
    w->pending_bytes = 0;
    rd_kafka_poll(w->producer.rk, 0);
    return 0;
}

static int look_at_first(struct kafka_writer *w, struct err *e)
{
    struct kafka_machine head = {0};
    int found = kafka_scan_head(&w->fetch, &head, e);

    if (found == 1)
        w->first_bytes = head.bytes - KAFKA_MESSAGE_COST;
    return found < 0 ? -1 : 0;
}

static uint64_t held(const struct kafka_writer *w)
{
    return w->bytes + w->pending_bytes + 3 * KAFKA_MESSAGE_COST + JOURNAL_NOTE_MAX - w->first_bytes;
}

/* Trimming happens elsewhere: before it says that the journal is full it looks again. */
static int check_ceiling(struct kafka_writer *w, size_t more, struct err *e)
{
    int64_t now = mono_ms();

    if (w->o.max_bytes == 0 || held(w) + more <= w->o.max_bytes)
        return 0;
    if (!w->last_look_ms || now - w->last_look_ms >= CEILING_LOOK_MS) {
        w->last_look_ms = now;
        if (look_at_first(w, e) < 0)
            return -1;
        if (held(w) + more <= w->o.max_bytes)
            return 0;
    }
    err_set(e, ERR_RETRY,
            "journal is full: topic %s holds %" PRIu64 " of at most %" PRIu64
            " bytes, and %zu more are to come",
            w->scan.name, held(w), w->o.max_bytes, more);
    return err_hint(e, "capture goes on when apply has caught up; or raise journal_max");
}

/* The datum as it travels, behind its frame in `pending`. */
static void frame_record(struct kafka_writer *w, uint32_t schema, const struct iovec *datum)
{
    size_t prefix = w->o.registry ? REGISTRY_PREFIX : 0;
    struct frame frame = {.number = w->next, .len = datum->iov_len + prefix, .schema = schema};
    uint64_t id = w->declared[schema].remote;
    const uint8_t head[REGISTRY_PREFIX] = {0, (uint8_t)(id >> 24), (uint8_t)(id >> 16),
                                           (uint8_t)(id >> 8), (uint8_t)id};

    buf_add(&w->pending, &frame, sizeof(frame));
    buf_add(&w->pending, head, prefix);
    buf_add(&w->pending, datum->iov_base, datum->iov_len);
    w->pending_bytes += frame.len + KAFKA_MESSAGE_COST;
}

int kafka_writer_append(struct journal_writer *base, uint32_t schema, const struct iovec *datum,
                        uint64_t *number, struct err *e)
{
    struct kafka_writer *w = writer_of(base);
    size_t parts = datum->iov_len / w->part_size + 1;

    invariant(schema < w->ndeclared);
    if (check_alive(w, e) < 0 ||
        check_ceiling(w, datum->iov_len + parts * KAFKA_MESSAGE_COST, e) < 0)
        return -1;
    *number = w->next;
    if (datum->iov_len <= w->hand_over || w->o.registry) {
        frame_record(w, schema, datum);
        w->next++;
        if (buf_check(&w->pending, "a journal record", e) < 0)
            return die(w, e);
        return w->pending.len >= w->hand_over ? send_pending(w, e) : 0;
    }
    /* A large one goes straight from the caller's memory. */
    w->next++;
    return send_pending(w, e) < 0 || send_record(w, schema, *number, datum, e) < 0 ? -1 : 0;
}

static char *copy_text(const char *s)
{
    char *copy = strdup(s);

    invariant(copy != NULL);
    return copy;
}

int kafka_writer_flush(struct journal_writer *base, struct err *e)
{
    struct kafka_writer *w = writer_of(base);

    if (check_alive(w, e) < 0)
        return -1;
    if (w->next == w->durable && !w->note_changed)
        return 0;
    if (send_pending(w, e) < 0 || (w->note_changed && send_state(w, w->next, w->note, e) < 0) ||
        await_reports(w, e) < 0 || (w->jumped && look_into_jump(w, e) < 0))
        return -1;
    w->durable = w->next;
    if (w->note_changed) {
        free(w->flushed_note);
        w->flushed_note = copy_text(w->note);
        w->note_changed = false;
    }
    return 0;
}

int kafka_writer_note(struct journal_writer *base, const char *note, struct err *e)
{
    struct kafka_writer *w = writer_of(base);

    if (w->note && strcmp(w->note, note) == 0)
        return 0;
    free(w->note);
    w->note = copy_text(note);
    w->note_changed = true;
    return 0;
}

uint32_t kafka_writer_generation(const struct journal_writer *w)
{
    return ((const struct kafka_writer *)w)->generation;
}

uint64_t kafka_writer_next(const struct journal_writer *w)
{
    return ((const struct kafka_writer *)w)->next;
}

uint64_t kafka_writer_durable(const struct journal_writer *w)
{
    return ((const struct kafka_writer *)w)->durable;
}

/* ---- schemas ---- */

static int write_schema(struct kafka_writer *w, const char *text, uint64_t *remote, struct err *e)
{
    struct out_message m = {.topic = w->schemas_topic,
                            .header = header_of(w, KAFKA_SCHEMA, 0),
                            .value = text,
                            .len = strlen(text)};

    if (kafka_schemas_find(&w->schemas, text, remote))
        return 0;
    if (m.len > w->part_size) {
        err_set(e, ERR_FATAL, "topic %s: a schema of %zu bytes does not fit into a message",
                w->schemas.topic, m.len);
        return err_hint(e, "raise max.message.bytes of the topic");
    }
    w->schema_done = false;
    if (send_message(w, &m, e) < 0 || await_reports(w, e) < 0)
        return -1;
    if (!w->schema_done || w->schema_offset < 0)
        return err_set(e, ERR_RETRY, "topic %s: the broker told no offset of a schema",
                       w->schemas.topic);
    *remote = (uint64_t)w->schema_offset;
    kafka_schemas_add(&w->schemas, false, *remote, text);
    return 0;
}

/* A registry may write the text in another way: *print is of what it gives back. */
static int register_schema(struct kafka_writer *w, const char *name, const char *text,
                           struct declared *d, struct err *e)
{
    struct registry *registry;
    char subject[600];
    char *kept;
    uint32_t id;

    snprintf(subject, sizeof(subject), "%s-%s", w->scan.name, name);
    if (kafka_schemas_registry(&w->schemas, &w->o, &registry, e) < 0 ||
        registry_register(registry, subject, text, &id, e) < 0 ||
        registry_get(registry, id, &kept, e) < 0)
        return -1;
    d->remote = id;
    d->print = kafka_schema_print(kept);
    free(kept);
    return 0;
}

int kafka_writer_schema(struct journal_writer *base, const char *name, const char *text,
                        uint32_t *id, struct err *e)
{
    struct kafka_writer *w = writer_of(base);
    struct declared d = {.print = kafka_schema_print(text)};
    size_t i = 0;

    while (i < w->ndeclared && strcmp(w->declared[i].name, name) != 0)
        i++;
    *id = (uint32_t)i;
    if (i < w->ndeclared && strcmp(w->declared[i].text, text) == 0)
        return 0;
    /* What waits still goes by the schema that is being replaced. */
    if (check_alive(w, e) < 0 || send_pending(w, e) < 0 ||
        (w->o.registry ? register_schema(w, name, text, &d, e)
                       : write_schema(w, text, &d.remote, e)) < 0)
        return -1;
    if (i == w->ndeclared) {
        w->declared = realloc(w->declared, (i + 1) * sizeof(*w->declared));
        invariant(w->declared != NULL);
        w->declared[i] = (struct declared){.name = copy_text(name)};
        w->ndeclared++;
    }
    free(w->declared[i].text);
    w->declared[i].text = copy_text(text);
    w->declared[i].remote = d.remote;
    w->declared[i].print = d.print;
    return 0;
}

/* ---- opening ---- */

static int random_number(uint64_t *out, struct err *e)
{
    if (getrandom(out, sizeof(*out), 0) != (ssize_t)sizeof(*out))
        return err_set(e, ERR_FATAL, "no random bytes");
    return 0;
}

/* The topics, made if need be, with settings that keep every record. */
static int prepare_topics(struct kafka_writer *w, size_t *message_max, struct err *e)
{
    size_t other_max;

    if (kafka_topic_make(&w->scan, w->scan.name, e) < 0 ||
        kafka_topic_check(&w->scan, w->scan.name, message_max, e) < 0)
        return -1;
    if (w->o.registry)
        return 0;
    if (kafka_topic_make(&w->scan, w->schemas.topic, e) < 0 ||
        kafka_topic_check(&w->scan, w->schemas.topic, &other_max, e) < 0)
        return -1;
    return 0;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static int open_producer(struct kafka_writer *w, size_t message_max, struct err *e)
{
    struct kafka_setting settings[2] = {{.name = "message.max.bytes"}, {.name = "batch.size"}};
    size_t segment = w->o.segment_bytes ? w->o.segment_bytes : STATE_BYTES;

    message_max = smaller(message_max, KAFKA_MESSAGE_MAX);
    snprintf(settings[0].value, sizeof(settings[0].value), "%zu", message_max);
    snprintf(settings[1].value, sizeof(settings[1].value), "%zu", message_max - 512);
    w->part_size = message_max - PART_RESERVE;
    w->hand_over = smaller(HAND_OVER_BYTES, segment);
    w->state_every = smaller(STATE_BYTES, segment);
    if (w->o.max_bytes)
        w->state_every = smaller(w->state_every, (size_t)(w->o.max_bytes / STATES_UNDER_CEILING));
    w->producer.delivered = on_delivered;
    w->producer.owner = w;
    if (kafka_client_open(&w->producer, RD_KAFKA_PRODUCER, &w->o, settings, 2, e) < 0)
        return -1;
    if (w->o.registry)
        return 0;
    w->schemas_topic = rd_kafka_topic_new(w->producer.rk, w->schemas.topic, NULL);
    return w->schemas_topic ? 0 : kafka_fail(&w->producer, rd_kafka_last_error(), "opening it", e);
}

/* Writes OPEN and reads the log until it is seen there. Of two that do so at once the log's order
 * says which one has the generation. */
static int take_over(struct kafka_writer *w, struct kafka_machine *m, struct err *e)
{
    struct out_message open = {.topic = w->producer.topic, .owner = w->o.owner};

    if (random_number(&w->nonce, e) < 0)
        return -1;
    if (m->begun)
        w->journal = m->journal;
    else if (random_number(&w->journal, e) < 0)
        return -1;
    w->generation = m->generation + 1;
    w->ref = m->state;
    w->ref_number = m->state_number;
    open.header = header_of(w, KAFKA_OPEN, 0);
    open.header.nonce = w->nonce;
    w->opening = true;
    if (send_message(w, &open, e) < 0 || await_reports(w, e) < 0 ||
        kafka_scan_tail(&w->fetch, m, e) < 0)
        return -1;
    kafka_fetch_stop(&w->fetch);
    if (m->offset >= w->expected && m->journal == w->journal && m->generation == w->generation &&
        m->nonce == w->nonce)
        return 0;
    return err_set(e, ERR_RETRY, "topic %s: another writer took over at the same time",
                   w->scan.name);
}

/* The log's state is ours from here; it is written down, so that scans may begin here. */
static int take_state(struct kafka_writer *w, const struct kafka_machine *m, char **note,
                      struct err *e)
{
    w->expected = m->offset;
    w->next = m->next;
    w->durable = m->next;
    w->bytes = m->bytes;
    if (m->has_note) {
        w->note = copy_text(m->note);
        w->flushed_note = copy_text(m->note);
        *note = copy_text(m->note);
    }
    if (send_state(w, w->next, w->flushed_note, e) < 0 || await_reports(w, e) < 0 ||
        (w->jumped && look_into_jump(w, e) < 0) || look_at_first(w, e) < 0)
        return -1;
    return w->o.registry ? 0 : kafka_schemas_load(&w->schemas, &w->scan, w->journal, e);
}

static int open_all(struct kafka_writer *w, char **note, struct err *e)
{
    struct kafka_machine m = {0};
    size_t message_max;

    if (kafka_client_open(&w->scan, RD_KAFKA_CONSUMER, &w->o, NULL, 0, e) < 0)
        return -1;
    w->fetch =
        (struct kafka_fetch){.client = &w->scan, .topic = w->scan.topic, .name = w->scan.name};
    if (prepare_topics(w, &message_max, e) < 0 || kafka_scan_tail(&w->fetch, &m, e) < 0)
        return -1;
    kafka_fetch_stop(&w->fetch);
    if (kafka_scan_owner(&w->fetch, &m, e) < 0 || open_producer(w, message_max, e) < 0 ||
        take_over(w, &m, e) < 0)
        return -1;
    return take_state(w, &m, note, e);
}

int kafka_writer_open(const struct journal_options *o, struct journal_writer **out, char **note,
                      struct err *e)
{
    struct kafka_writer *w = calloc(1, sizeof(*w));

    invariant(w != NULL);
    w->base.ops = &kafka_journal_ops;
    w->o = *o;
    if (o->owner) {
        snprintf(w->owner, sizeof(w->owner), "%s", o->owner);
        w->o.owner = w->owner;
    }
    buf_init(&w->pending, BUF_MAX_ROW);
    kafka_schemas_init(&w->schemas, o);
    if (open_all(w, note, e) < 0) {
        free(*note);
        *note = NULL;
        kafka_writer_close(&w->base);
        return -1;
    }
    *out = &w->base;
    return 0;
}

void kafka_writer_close(struct journal_writer *base)
{
    struct kafka_writer *w = writer_of(base);

    kafka_fetch_release(&w->fetch);
    if (w->producer.rk)
        rd_kafka_purge(w->producer.rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
    if (w->schemas_topic)
        rd_kafka_topic_destroy(w->schemas_topic);
    kafka_client_close(&w->producer);
    kafka_client_close(&w->scan);
    kafka_schemas_release(&w->schemas);
    for (size_t i = 0; i < w->ndeclared; i++) {
        free(w->declared[i].name);
        free(w->declared[i].text);
    }
    free(w->declared);
    buf_release(&w->pending);
    free(w->note);
    free(w->flushed_note);
    free(w);
}
