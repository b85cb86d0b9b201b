#include "journal/kafka_format.h"

#include "core/buf.h"
#include "core/log.h"

#include <inttypes.h>
#include <string.h>

#define HEADER_VERSION 1u

static uint8_t *put(uint8_t *p, uint64_t value, unsigned size)
{
    for (unsigned i = size; i-- > 0;)
        *p++ = (uint8_t)(value >> (8 * i));
    return p;
}

void kafka_header_write(const struct kafka_header *h, uint8_t out[KAFKA_HEADER_SIZE])
{
    uint8_t *p = put(out, HEADER_VERSION, 1);

    p = put(p, h->kind, 1);
    p = put(p, h->flags, 2);
    p = put(p, h->generation, 4);
    p = put(p, h->number, 8);
    p = put(p, h->part, 4);
    p = put(p, h->parts, 4);
    p = put(p, h->schema, 8);
    p = put(p, h->journal, 8);
    p = put(p, h->bytes, 8);
    p = put(p, h->nonce, 8);
    p = put(p, h->ref, 8);
    p = put(p, h->ref_number, 8);
    invariant(p == out + KAFKA_HEADER_SIZE);
}

bool kafka_header_read(const void *data, size_t len, struct kafka_header *out)
{
    struct reader r;
    uint8_t version;

    reader_init(&r, data, len);
    version = reader_u8(&r);
    *out = (struct kafka_header){.kind = reader_u8(&r)};
    out->flags = reader_be16(&r);
    out->generation = reader_be32(&r);
    out->number = reader_be64(&r);
    out->part = reader_be32(&r);
    out->parts = reader_be32(&r);
    out->schema = reader_be64(&r);
    out->journal = reader_be64(&r);
    out->bytes = reader_be64(&r);
    out->nonce = reader_be64(&r);
    out->ref = reader_be64(&r);
    out->ref_number = reader_be64(&r);
    return !r.bad && version == HEADER_VERSION &&
           (out->kind == KAFKA_OPEN || out->kind == KAFKA_STATE || out->kind == KAFKA_SCHEMA ||
            (out->kind == KAFKA_RECORD && out->part < out->parts));
}

bool kafka_header_begins(const struct kafka_header *h, uint64_t offset)
{
    return h->kind == KAFKA_STATE || (h->kind == KAFKA_OPEN && offset == 0 && h->generation > 0);
}

static void take_text(char *out, size_t size, const char *text, size_t len)
{
    len = len < size ? len : size - 1;
    memcpy(out, text, len);
    out[len] = '\0';
}

static void take_state(struct kafka_machine *m, const struct kafka_message *message,
                       const struct kafka_header *h)
{
    m->state = (uint64_t)message->offset;
    m->state_number = h->number;
    m->has_note = message->note != NULL;
    if (message->note)
        take_text(m->note, sizeof(m->note), message->note, message->note_len);
    if (message->owner)
        take_text(m->owner, sizeof(m->owner), message->owner, message->owner_len);
}

/* The first message of a scan. */
static int begin(struct kafka_machine *m, const char *topic, const struct kafka_message *message,
                 const struct kafka_header *h, struct err *e)
{
    if (!kafka_header_begins(h, (uint64_t)message->offset)) {
        err_set(e, ERR_FATAL,
                "topic %s: what stands at offset %" PRId64
                " is not where the journal's trimming ends: records were removed by somebody else",
                topic, message->offset);
        return err_hint(e, "records are lost: abandon this migration (lockstep finish --abandon) "
                           "and start anew, with retention.ms=-1 and retention.bytes=-1");
    }
    m->begun = true;
    m->journal = h->journal;
    if (h->kind == KAFKA_STATE) {
        m->generation = h->generation;
        m->next = h->number;
        m->bytes = h->bytes;
    }
    return 0;
}

static int lost(const struct kafka_machine *m, const char *topic,
                const struct kafka_message *message, const struct kafka_header *h, struct err *e)
{
    return err_set(e, ERR_FATAL,
                   "topic %s: records are missing at offset %" PRId64 ": %s %" PRIu64
                   " (part %" PRIu32 ") of generation %" PRIu32 " stands where %" PRIu64
                   " (part %" PRIu32 ") was expected",
                   topic, message->offset, h->kind == KAFKA_STATE ? "a state of" : "record",
                   h->number, h->part, h->generation, m->next, m->next_part);
}

static void take_open(struct kafka_machine *m, const struct kafka_header *h)
{
    /* Of two that open the same generation the first has it; the other finds that out and goes. */
    if (h->generation <= m->generation)
        return;
    m->generation = h->generation;
    m->nonce = h->nonce;
    m->next_part = 0;
}

static enum kafka_step take_record(struct kafka_machine *m, const struct kafka_header *h)
{
    m->parts = h->parts;
    m->next_part = h->part + 1;
    if (m->next_part < m->parts)
        return KAFKA_STEP_PART;
    m->next++;
    m->next_part = 0;
    return KAFKA_STEP_RECORD;
}

static enum kafka_step step_ours(struct kafka_machine *m, const char *topic,
                                 const struct kafka_message *message, const struct kafka_header *h,
                                 struct err *e)
{
    if (!m->begun && begin(m, topic, message, h, e) < 0)
        return KAFKA_STEP_ERROR;
    if (h->journal != m->journal) {
        /* Two writers may have made the topic's first message at once; the second one lost. */
        if (h->kind == KAFKA_OPEN)
            return KAFKA_STEP_PASS;
        err_set(e, ERR_FATAL,
                "topic %s was made anew, or holds two journals: offset %" PRId64
                " belongs to another one",
                topic, message->offset);
        return KAFKA_STEP_ERROR;
    }
    if (h->kind == KAFKA_OPEN) {
        take_open(m, h);
        if (message->owner && message->offset == 0)
            take_text(m->owner, sizeof(m->owner), message->owner, message->owner_len);
        return KAFKA_STEP_PASS;
    }
    if (h->generation < m->generation)
        return KAFKA_STEP_PASS;
    if (h->generation > m->generation || h->number != m->next ||
        h->part != (h->kind == KAFKA_RECORD ? m->next_part : 0) ||
        (h->kind == KAFKA_STATE && m->next_part) || (m->next_part && h->parts != m->parts)) {
        lost(m, topic, message, h, e);
        return KAFKA_STEP_ERROR;
    }
    if (h->kind == KAFKA_RECORD)
        return take_record(m, h);
    take_state(m, message, h);
    return KAFKA_STEP_PASS;
}

enum kafka_step kafka_machine_step(struct kafka_machine *m, const char *topic,
                                   const struct kafka_message *message, struct kafka_header *h,
                                   struct err *e)
{
    bool ours = message->header && kafka_header_read(message->header, message->header_len, h);
    enum kafka_step step = KAFKA_STEP_PASS;

    if (m->begun && (uint64_t)message->offset != m->offset) {
        err_set(e, ERR_FATAL,
                "topic %s: offset %" PRId64 " follows %" PRIu64
                ": messages were removed from within (compaction?)",
                topic, message->offset, m->offset - 1);
        return KAFKA_STEP_ERROR;
    }
    if (ours) {
        step = step_ours(m, topic, message, h, e);
    } else if (!m->begun) {
        err_set(e, ERR_REFUSED, "topic %s holds messages that lockstep did not write", topic);
        err_hint(e, "choose another name for the migration, or remove the topic");
        return KAFKA_STEP_ERROR;
    } else {
        log_event(LOG_WARN, "journal", "foreign-message", "topic=%s offset=%" PRId64, topic,
                  message->offset);
    }
    if (step != KAFKA_STEP_ERROR) {
        m->offset = (uint64_t)message->offset + 1;
        m->bytes += message->len + message->note_len + KAFKA_MESSAGE_COST;
    }
    return step;
}
