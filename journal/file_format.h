/* Private to journal/: the bytes of the file journal, from and to memory. Pure; nothing here trusts
 * what it reads, and tests/fuzz/journal_tail_fuzz.c feeds it hostile bytes.
 *
 * Segment: Avro's object container file, https://avro.apache.org/docs/1.11.1/specification/
 * ("Object Container Files"). Mark: one line of the file `durable` (file.c tells its meaning).
 */
#ifndef LOCKSTEP_JOURNAL_FILE_FORMAT_H
#define LOCKSTEP_JOURNAL_FILE_FORMAT_H

#include "core/buf.h"
#include "journal/impl.h"

#define SYNC_SIZE 16u
/* Count, size and branch, each a zig-zag long of at most 10 bytes. */
#define BLOCK_HEAD_MAX 32u
#define SEGMENT_NAME_SIZE 32u
#define MARK_SLOT 4096u

/* SHORT: more bytes might make it whole; at the end of the file that means torn. */
enum parse { PARSE_OK, PARSE_SHORT, PARSE_BAD };

struct segment_header {
    const char *schema; /* a JSON array: the union */
    size_t schema_len;
    uint32_t generation;
    uint64_t first;   /* the number of its first record, as in its name */
    const char *note; /* NULL: none */
    size_t note_len;
    uint8_t sync[SYNC_SIZE];
    size_t size; /* of the header itself, in bytes */
};

void segment_header_build(const struct segment_header *h, struct buf *out);
/* The texts point into data. *why is set for PARSE_BAD. */
enum parse segment_header_parse(const void *data, size_t len, struct segment_header *h,
                                const char **why);

void segment_name(uint64_t first, char out[SEGMENT_NAME_SIZE]);
bool segment_name_parse(const char *name, uint64_t *first);

/* A block holds one record: count 1, size, then branch and datum, then the sync marker. */
struct block {
    size_t head;   /* bytes before the body */
    uint64_t body; /* branch and datum */
    uint64_t size; /* of all, with the sync marker */
};
size_t block_head_build(uint8_t out[BLOCK_HEAD_MAX], uint32_t branch, size_t datum_len);
enum parse block_head_parse(const void *data, size_t len, struct block *b, const char **why);

struct block_record {
    uint64_t branch;
    const void *data;
    size_t len;
};
/* data: the whole block, b->size bytes. NULL, or what is wrong. */
const char *block_parse(const void *data, const struct block *b, const uint8_t sync[SYNC_SIZE],
                        struct block_record *out);

/* Up to where the journal is durable: `next` is the number behind the last durable record, which
 * ends at `offset` of the segment that begins with record `segment`. offset 0: no record yet. */
struct mark {
    uint64_t seq; /* raised with every mark written; the higher one holds */
    uint64_t segment;
    uint64_t offset;
    uint64_t next;
    uint32_t generation;
    bool has_note;
    char note[JOURNAL_NOTE_MAX + 1];
};
void mark_format(const struct mark *m, char slot[MARK_SLOT]);
bool mark_parse(const char slot[MARK_SLOT], struct mark *m);

#endif
