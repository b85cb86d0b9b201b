/* What a message of the Kafka journal carries besides its value, and what a log of them means.
 * Pure: no broker is needed to test it. kafka.c tells the whole course.
 *
 * Every message has one header, "lockstep", in big-endian numbers. A record's value is its datum
 * (or a numbered part of it). OPEN and STATE are control messages: their value is null, which every
 * Avro consumer passes over.
 *
 * The log is read by one machine, which is the same for readers and writers, so that all of them
 * agree which records exist: OPEN of a higher generation takes over, at the place where it stands;
 * whatever an older generation writes behind it is a zombie's and does not exist; parts that were
 * not complete by then do not either.
 */
#ifndef LOCKSTEP_JOURNAL_KAFKA_FORMAT_H
#define LOCKSTEP_JOURNAL_KAFKA_FORMAT_H

#include "journal/impl.h"

#define KAFKA_HEADER "lockstep"
#define KAFKA_HEADER_NOTE "lockstep.note"
#define KAFKA_HEADER_OWNER "lockstep.owner"
#define KAFKA_HEADER_SIZE 72u
/* What a message costs the broker besides key, value and note: headers, lengths, its share of a
 * batch. */
#define KAFKA_MESSAGE_COST 100u

/* SCHEMA: in the schemas' topic only. */
enum kafka_kind { KAFKA_RECORD = 'R', KAFKA_OPEN = 'O', KAFKA_STATE = 'S', KAFKA_SCHEMA = 'D' };

/* The record's value stands behind the registry's five bytes, and `schema` is the registry's. */
#define KAFKA_FLAG_REGISTRY 1u

struct kafka_header {
    uint8_t kind;
    uint16_t flags;
    uint32_t generation;
    uint64_t number; /* RECORD: its own; STATE: the next record's; OPEN: not used */
    uint32_t part;   /* from 0 */
    uint32_t parts;
    uint64_t schema;  /* RECORD: offset in the schemas' topic, or the registry's id */
    uint64_t journal; /* drawn when the journal was made: a topic made anew has another */
    uint64_t bytes;   /* STATE: the log's bytes up to here */
    /* OPEN: the writer's own. RECORD: the print of its schema's text, so that another text in the
     * schema's place is seen; 0: not told. */
    uint64_t nonce;
    uint64_t ref; /* offset of a STATE known to be valid, and the number in it: where a scan */
    uint64_t ref_number; /* for anything behind may begin. The first OPEN: 0, 0 */
};

/* May a scan begin with this message, the first that is kept? */
bool kafka_header_begins(const struct kafka_header *h, uint64_t offset);

/* A message as it was fetched; everything is borrowed. */
struct kafka_message {
    int64_t offset;
    const void *value; /* NULL for control messages */
    size_t len;
    const void *header; /* NULL: not a message of ours */
    size_t header_len;
    const char *note; /* NULL: none; not NUL-terminated */
    size_t note_len;
    const char *owner;
    size_t owner_len;
};

void kafka_header_write(const struct kafka_header *h, uint8_t out[KAFKA_HEADER_SIZE]);
/* False: not a header that this version knows. */
bool kafka_header_read(const void *data, size_t len, struct kafka_header *out);

/* The state of a log at an offset. */
struct kafka_machine {
    bool begun;      /* false: before the first message that was read */
    uint64_t offset; /* of the next message */
    uint64_t journal;
    uint32_t generation;
    uint64_t nonce;     /* of the OPEN that began the generation, if it was read */
    uint64_t next;      /* number of the next record */
    uint32_t next_part; /* of it; 0: none has come */
    uint32_t parts;
    uint64_t bytes;
    uint64_t state; /* offset of the last valid STATE, and the number in it */
    uint64_t state_number;
    bool has_note;
    char note[JOURNAL_NOTE_MAX + 1];
    char owner[JOURNAL_OWNER_MAX + 1];
};

enum kafka_step {
    KAFKA_STEP_ERROR = -1,
    KAFKA_STEP_PASS,  /* control, a zombie's, or not ours */
    KAFKA_STEP_PART,  /* of a record that is not complete yet */
    KAFKA_STEP_RECORD /* the last part: the record is complete */
};

/* Takes the next message. A scan begins at offset 0 or at a STATE that is known to be valid.
 * ERR_FATAL: records are missing, or the topic was made anew; `topic` is for the message. */
enum kafka_step kafka_machine_step(struct kafka_machine *m, const char *topic,
                                   const struct kafka_message *message, struct kafka_header *h,
                                   struct err *e);

#endif
