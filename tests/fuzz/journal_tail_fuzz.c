/* Hostile bytes as what a journal's files hold: no crash, no read past the end, and what is taken
 * as whole is inside the data. The first byte chooses: a mark, or a segment with its blocks.
 *
 * Seeds: tests/fuzz/corpus/journal_tail/ (a real segment and a real mark, each behind its byte). */
#include "journal/file_format.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_inside(const void *p, size_t len, const uint8_t *data, size_t size)
{
    const uint8_t *at = p;

    invariant(at >= data && len <= size && at + len <= data + size);
}

static void fuzz_mark(const uint8_t *data, size_t size)
{
    char slot[MARK_SLOT];
    char again[MARK_SLOT];
    struct mark m;
    struct mark same;

    memset(slot, ' ', sizeof(slot));
    memcpy(slot, data, size < sizeof(slot) ? size : sizeof(slot));
    if (!mark_parse(slot, &m))
        return;
    invariant(strlen(m.note) <= JOURNAL_NOTE_MAX);
    mark_format(&m, again);
    invariant(mark_parse(again, &same) && same.next == m.next && same.has_note == m.has_note &&
              strcmp(same.note, m.note) == 0);
}

static void fuzz_segment(const uint8_t *data, size_t size)
{
    struct segment_header h;
    const char *why = NULL;
    size_t offset;

    if (segment_header_parse(data, size, &h, &why) != PARSE_OK) {
        invariant(why != NULL);
        return;
    }
    invariant(h.size <= size && h.generation > 0);
    check_inside(h.schema, h.schema_len, data, size);
    if (h.note)
        check_inside(h.note, h.note_len, data, size);
    for (offset = h.size; offset < size;) {
        struct block_record record;
        struct block b;

        if (block_head_parse(data + offset, size - offset, &b, &why) != PARSE_OK)
            return;
        if (b.size > size - offset)
            return;
        if (block_parse(data + offset, &b, h.sync, &record))
            return;
        check_inside(record.data, record.len, data, size);
        offset += b.size;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t first;
    char name[SEGMENT_NAME_SIZE] = {0};
    char again[SEGMENT_NAME_SIZE];

    if (size == 0)
        return 0;
    memcpy(name, data, size < sizeof(name) - 1 ? size : sizeof(name) - 1);
    if (segment_name_parse(name, &first)) {
        segment_name(first, again);
        invariant(strcmp(name, again) == 0);
    }
    /* A copy of its own size, so that the sanitizer sees a read behind it. */
    uint8_t *copy = malloc(size);
    memcpy(copy, data, size);
    if (data[0] & 1)
        fuzz_mark(copy + 1, size - 1);
    else
        fuzz_segment(copy + 1, size - 1);
    free(copy);
    return 0;
}
