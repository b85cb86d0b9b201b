/* Hostile messages as what a Kafka topic holds: no crash, no read past the end, and a machine that
 * goes on only forwards. The input is a list of messages: a byte of flags, a byte of the header's
 * length, the header, a byte for the note's length, the note.
 *
 * Seeds: tests/fuzz/corpus/kafka_format/ (a journal's beginning, a takeover, a record in parts). */
#include "journal/kafka_format.h"

#include "core/buf.h"
#include "core/log.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FLAG_FOREIGN 1u /* no header at all */
#define FLAG_OWNER 2u   /* the note is an owner's name, too */
#define FLAG_GAP 4u     /* offsets are missing before it */

/* A copy of its own size, so that the sanitizer sees a read behind it. */
static void *take(struct reader *r, size_t len)
{
    const void *from = reader_bytes(r, len);
    void *copy = malloc(len ? len : 1);

    invariant(copy != NULL);
    if (from)
        memcpy(copy, from, len);
    return copy;
}

static void check_header(const struct kafka_header *h)
{
    uint8_t bytes[KAFKA_HEADER_SIZE];
    struct kafka_header again;

    kafka_header_write(h, bytes);
    invariant(kafka_header_read(bytes, sizeof(bytes), &again));
    invariant(h->kind == again.kind && h->number == again.number && h->ref == again.ref &&
              h->ref_number == again.ref_number && h->part == again.part &&
              h->generation == again.generation && h->journal == again.journal);
}

/* What a step may do to the machine. */
static void check_step(const struct kafka_machine *was, const struct kafka_machine *is,
                       enum kafka_step step)
{
    invariant(strlen(is->note) <= JOURNAL_NOTE_MAX && strlen(is->owner) <= JOURNAL_OWNER_MAX);
    if (step == KAFKA_STEP_ERROR)
        return;
    invariant(!was->begun || is->offset == was->offset + 1);
    invariant(!was->begun || is->generation >= was->generation);
    invariant(!was->begun || is->next == was->next + (step == KAFKA_STEP_RECORD));
    invariant(is->next_part == 0 || is->next_part < is->parts);
}

static bool one_message(struct reader *r, struct kafka_machine *m, int64_t *offset)
{
    struct kafka_message message = {0};
    struct kafka_machine was = *m;
    struct kafka_header h = {0};
    struct err e = {0};
    uint8_t flags = reader_u8(r);
    void *header;
    void *note;
    enum kafka_step step;

    message.header_len = reader_u8(r);
    header = take(r, message.header_len);
    message.note_len = reader_u8(r);
    note = take(r, message.note_len);
    message.header = flags & FLAG_FOREIGN ? NULL : header;
    message.note = message.note_len ? note : NULL;
    message.owner = flags & FLAG_OWNER ? note : NULL;
    message.owner_len = message.note_len;
    message.offset = *offset += flags & FLAG_GAP ? 2 : 1;
    if (r->bad) {
        step = KAFKA_STEP_ERROR;
    } else {
        step = kafka_machine_step(m, "topic", &message, &h, &e);
        check_step(&was, m, step);
        invariant((step == KAFKA_STEP_ERROR) == (e.class != ERR_NONE));
        if (step == KAFKA_STEP_RECORD || step == KAFKA_STEP_PART)
            check_header(&h);
    }
    free(header);
    free(note);
    return step != KAFKA_STEP_ERROR;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kafka_machine m = {0};
    struct reader r;
    int64_t offset = -1;

    log_set_level(LOG_ERROR);
    reader_init(&r, data, size);
    while (reader_left(&r) && one_message(&r, &m, &offset))
        continue;
    return 0;
}
