#include "journal/file_format.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEGMENT_DIGITS 20u
#define SEGMENT_SUFFIX ".avro"
/* More entries of metadata than this is not ours. */
#define META_MAX 64
#define MARK_SUM_SIZE 21u /* "sum ", 16 hex digits, newline */

static const uint8_t magic[4] = {'O', 'b', 'j', 1};

/* ---- numbers and texts ---- */

static size_t zigzag_put(uint8_t *out, int64_t value)
{
    uint64_t v = (uint64_t)value << 1 ^ (uint64_t)(value >> 63);
    size_t n = 0;

    while (v > 0x7f) {
        out[n++] = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    out[n++] = (uint8_t)v;
    return n;
}

static void add_long(struct buf *out, int64_t value)
{
    uint8_t bytes[10];

    buf_add(out, bytes, zigzag_put(bytes, value));
}

static void add_text(struct buf *out, const char *s, size_t len)
{
    add_long(out, (int64_t)len);
    buf_add(out, s, len);
}

static void add_meta(struct buf *out, const char *key, const char *value, size_t len)
{
    add_text(out, key, strlen(key));
    add_text(out, value, len);
}

struct text {
    const char *s;
    size_t len;
};

static struct text read_text(struct reader *r)
{
    struct text t = {0};
    int64_t len = reader_zigzag(r);

    if (len < 0 || (uint64_t)len > reader_left(r))
        r->bad = true;
    t.s = (const char *)reader_bytes(r, r->bad ? 0 : (size_t)len);
    t.len = r->bad ? 0 : (size_t)len;
    return t;
}

static bool text_is(struct text t, const char *s)
{
    return t.len == strlen(s) && memcmp(t.s, s, t.len) == 0;
}

/* ---- the header of a segment ---- */

void segment_header_build(const struct segment_header *h, struct buf *out)
{
    char generation[16];
    char first[24];
    int n = snprintf(generation, sizeof(generation), "%" PRIu32, h->generation);
    int m = snprintf(first, sizeof(first), "%" PRIu64, h->first);

    buf_add(out, magic, sizeof(magic));
    add_long(out, h->note ? 5 : 4);
    add_meta(out, "avro.schema", h->schema, h->schema_len);
    add_meta(out, "avro.codec", "null", 4);
    add_meta(out, "lockstep.generation", generation, (size_t)n);
    add_meta(out, "lockstep.first", first, (size_t)m);
    if (h->note)
        add_meta(out, "lockstep.note", h->note, h->note_len);
    add_long(out, 0);
    buf_add(out, h->sync, SYNC_SIZE);
}

static bool parse_number(struct text t, uint64_t max, uint64_t *out)
{
    *out = 0;
    if (t.len == 0 || t.len > 20)
        return false;
    for (size_t i = 0; i < t.len; i++) {
        uint64_t digit = (uint64_t)(t.s[i] - '0');

        if (t.s[i] < '0' || t.s[i] > '9' || *out > (max - digit) / 10)
            return false;
        *out = *out * 10 + digit;
    }
    return true;
}

/* One entry of the metadata; unknown keys are left alone. NULL, or what is wrong. */
static const char *take_meta(struct text key, struct text value, struct segment_header *h)
{
    uint64_t generation;

    if (text_is(key, "avro.codec"))
        return text_is(value, "null") ? NULL : "its codec is not null";
    if (text_is(key, "lockstep.first"))
        return parse_number(value, UINT64_MAX, &h->first) ? NULL : "its first is not a number";
    if (text_is(key, "lockstep.generation")) {
        if (!parse_number(value, UINT32_MAX, &generation))
            return "its generation is not a number";
        h->generation = (uint32_t)generation;
        return NULL;
    }
    if (text_is(key, "avro.schema")) {
        h->schema = value.s;
        h->schema_len = value.len;
    } else if (text_is(key, "lockstep.note")) {
        h->note = value.s;
        h->note_len = value.len;
        return value.len <= JOURNAL_NOTE_MAX ? NULL : "its note is too long";
    }
    return NULL;
}

enum parse segment_header_parse(const void *data, size_t len, struct segment_header *h,
                                const char **why)
{
    struct reader r;
    const uint8_t *p;
    int64_t n;

    memset(h, 0, sizeof(*h));
    *why = "its header is torn";
    reader_init(&r, data, len);
    p = reader_bytes(&r, sizeof(magic));
    if (!p)
        return PARSE_SHORT;
    if (memcmp(p, magic, sizeof(magic)) != 0) {
        *why = "it is no Avro object container file";
        return PARSE_BAD;
    }
    n = reader_zigzag(&r);
    if (!r.bad && (n < 1 || n > META_MAX)) {
        *why = "its metadata is not what the writer writes";
        return PARSE_BAD;
    }
    for (int64_t i = 0; i < n && !r.bad; i++) {
        struct text key = read_text(&r);
        struct text value = read_text(&r);
        const char *wrong = r.bad ? NULL : take_meta(key, value, h);

        if (wrong) {
            *why = wrong;
            return PARSE_BAD;
        }
    }
    n = reader_zigzag(&r);
    p = reader_bytes(&r, SYNC_SIZE);
    if (!p)
        return PARSE_SHORT;
    memcpy(h->sync, p, SYNC_SIZE);
    h->size = len - reader_left(&r);
    if (n == 0 && h->schema && h->generation)
        return PARSE_OK;
    *why = "its metadata lacks the schema or the generation";
    return PARSE_BAD;
}

/* ---- names ---- */

void segment_name(uint64_t first, char out[SEGMENT_NAME_SIZE])
{
    snprintf(out, SEGMENT_NAME_SIZE, "%020" PRIu64 SEGMENT_SUFFIX, first);
}

bool segment_name_parse(const char *name, uint64_t *first)
{
    uint64_t v = 0;

    if (strspn(name, "0123456789") != SEGMENT_DIGITS ||
        strcmp(name + SEGMENT_DIGITS, SEGMENT_SUFFIX) != 0)
        return false;
    for (size_t i = 0; i < SEGMENT_DIGITS; i++) {
        unsigned digit = (unsigned)(name[i] - '0');

        if (v > (UINT64_MAX - digit) / 10)
            return false;
        v = v * 10 + digit;
    }
    *first = v;
    return true;
}

/* ---- blocks ---- */

size_t block_head_build(uint8_t out[BLOCK_HEAD_MAX], uint32_t branch, size_t datum_len)
{
    uint8_t number[10];
    size_t branch_len = zigzag_put(number, branch);
    size_t n = zigzag_put(out, 1);

    n += zigzag_put(out + n, (int64_t)(branch_len + datum_len));
    memcpy(out + n, number, branch_len);
    return n + branch_len;
}

enum parse block_head_parse(const void *data, size_t len, struct block *b, const char **why)
{
    struct reader r;
    int64_t count;
    int64_t body;

    reader_init(&r, data, len);
    count = reader_zigzag(&r);
    body = reader_zigzag(&r);
    if (r.bad) {
        *why = "a block's head is torn";
        return len < BLOCK_HEAD_MAX ? PARSE_SHORT : PARSE_BAD;
    }
    *why = "a block's head is not what the writer writes";
    if (count != 1 || body < 1 || (uint64_t)body > BUF_MAX_ROW)
        return PARSE_BAD;
    b->head = len - reader_left(&r);
    b->body = (uint64_t)body;
    b->size = b->head + b->body + SYNC_SIZE;
    return PARSE_OK;
}

const char *block_parse(const void *data, const struct block *b, const uint8_t sync[SYNC_SIZE],
                        struct block_record *out)
{
    const uint8_t *p = data;
    struct reader r;
    int64_t branch;

    if (memcmp(p + b->head + b->body, sync, SYNC_SIZE) != 0)
        return "a block does not end with the sync marker";
    reader_init(&r, p + b->head, b->body);
    branch = reader_zigzag(&r);
    if (r.bad || branch < 0)
        return "a record's branch number is torn";
    out->branch = (uint64_t)branch;
    out->len = reader_left(&r);
    out->data = reader_bytes(&r, out->len);
    return NULL;
}

/* ---- marks ---- */

/* FNV-1a: it tells a torn line from a whole one, not a forged one. */
static uint64_t checksum(const char *data, size_t len)
{
    uint64_t sum = 14695981039346656037ull;

    for (size_t i = 0; i < len; i++)
        sum = (sum ^ (uint8_t)data[i]) * 1099511628211ull;
    return sum;
}

void mark_format(const struct mark *m, char slot[MARK_SLOT])
{
    const size_t text = MARK_SLOT - MARK_SUM_SIZE;
    char sum[MARK_SUM_SIZE + 1];
    int n = snprintf(slot, text,
                     "lockstep 1 seq %020" PRIu64 " segment %020" PRIu64 " offset %020" PRIu64
                     " next %020" PRIu64 " generation %010" PRIu32 " note %04u %s",
                     m->seq, m->segment, m->offset, m->next, m->generation,
                     m->has_note ? (unsigned)strlen(m->note) + 1 : 0, m->has_note ? m->note : "");

    invariant(n > 0 && (size_t)n < text);
    memset(slot + n, ' ', text - (size_t)n);
    snprintf(sum, sizeof(sum), "sum %016" PRIx64 "\n", checksum(slot, text));
    memcpy(slot + text, sum, MARK_SUM_SIZE);
}

bool mark_parse(const char slot[MARK_SLOT], struct mark *m)
{
    const size_t text = MARK_SLOT - MARK_SUM_SIZE;
    char line[MARK_SLOT + 1];
    char sum[MARK_SUM_SIZE + 1];
    unsigned note = 0;
    int n = 0;

    memset(m, 0, sizeof(*m));
    snprintf(sum, sizeof(sum), "sum %016" PRIx64 "\n", checksum(slot, text));
    if (memcmp(slot + text, sum, MARK_SUM_SIZE) != 0 || memchr(slot, 0, text))
        return false;
    memcpy(line, slot, text);
    line[text] = '\0';
    if (sscanf(line,
               "lockstep 1 seq %20" SCNu64 " segment %20" SCNu64 " offset %20" SCNu64
               " next %20" SCNu64 " generation %10" SCNu32 " note %4u%n",
               &m->seq, &m->segment, &m->offset, &m->next, &m->generation, &note, &n) != 6)
        return false;
    if (note > JOURNAL_NOTE_MAX + 1 || line[n] != ' ' || (size_t)n + 1 + note > text)
        return false;
    m->has_note = note > 0;
    if (note > 1)
        memcpy(m->note, line + n + 1, note - 1);
    return true;
}
