/* The reader of the file journal. It follows the visible mark and never reads past it, so that a
 * segment is open only once records of it are durable. Everything it reads is checked. */
#include "journal/file_impl.h"

#include "core/run.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct file_reader {
    struct journal_reader base;
    struct file_dir dir;
    struct mark mark; /* the visible one, when last looked */
    uint64_t number;  /* of the next record */
    uint32_t generation;
    int64_t quiet_since; /* when a call first found nothing; 0: the last one found a record */

    int fd; /* the current segment, or -1 */
    uint64_t first;
    uint64_t limit;  /* its durable end */
    uint64_t offset; /* of the next block */
    uint8_t sync[SYNC_SIZE];
    uint64_t *branches; /* the segment's union: schema ids */
    size_t nbranches;

    char *data; /* a window of the segment */
    size_t cap;
    size_t window; /* its ordinary size */
    uint64_t base_offset;
    size_t len;

    char **texts; /* by schema id */
    size_t ntexts;
};

static struct file_reader *reader_of(struct journal_reader *r)
{
    return (struct file_reader *)r;
}

static int damaged(const struct file_reader *r, uint64_t offset, const char *why, struct err *e)
{
    char name[SEGMENT_NAME_SIZE];

    segment_name(r->first, name);
    return err_set(e, ERR_FATAL, "%s/%s: offset %" PRIu64 ", record %" PRIu64 ": %s", r->dir.path,
                   name, offset, r->number, why);
}

/* ---- schemas ---- */

/* Takes over text. Few texts live in a reader: one per version of a table. */
static uint64_t schema_id(struct file_reader *r, char *text)
{
    for (size_t i = 0; i < r->ntexts; i++) {
        if (strcmp(r->texts[i], text) == 0) {
            free(text);
            return i;
        }
    }
    r->texts = realloc(r->texts, (r->ntexts + 1) * sizeof(*r->texts));
    invariant(r->texts != NULL);
    r->texts[r->ntexts] = text;
    return r->ntexts++;
}

static int take_union(struct file_reader *r, const struct segment_header *h, struct err *e)
{
    json_t *json = json_loadb(h->schema, h->schema_len, 0, NULL);
    size_t n = json_array_size(json);
    int rc = -1;

    if (n == 0) {
        damaged(r, 0, "its schema is no union", e);
        goto out;
    }
    free(r->branches);
    r->branches = calloc(n, sizeof(*r->branches));
    invariant(r->branches != NULL);
    r->nbranches = n;
    for (size_t i = 0; i < n; i++) {
        const size_t flags = JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_ENCODE_ANY;
        char *text = json_dumps(json_array_get(json, i), flags);

        if (!text) {
            damaged(r, 0, "its schema cannot be read", e);
            goto out;
        }
        r->branches[i] = schema_id(r, text);
    }
    rc = 0;
out:
    json_decref(json);
    return rc;
}

/* ---- segments ---- */

static void close_segment(struct file_reader *r)
{
    if (r->fd >= 0)
        close(r->fd);
    r->fd = -1;
    r->len = 0;
}

/* Where the durable part of the current segment ends. */
static int find_limit(struct file_reader *r, struct err *e)
{
    struct stat st;

    if (fstat(r->fd, &st) < 0)
        return damaged(r, 0, strerror(errno), e);
    r->limit = r->first == r->mark.segment ? r->mark.offset : (uint64_t)st.st_size;
    if ((uint64_t)st.st_size < r->limit)
        return damaged(r, (uint64_t)st.st_size, "durable bytes are missing", e);
    return 0;
}

/* Takes over the segment that stands open in r->fd and begins with record r->number. */
static int begin_segment(struct file_reader *r, struct err *e)
{
    struct segment_header h;
    struct buf head;
    const char *why;
    int rc = -1;

    buf_init(&head, BUF_MAX_TEXT);
    r->first = r->number;
    r->len = 0;
    if (find_limit(r, e) < 0)
        goto out;
    if (segment_header_read(r->fd, r->limit, &head, &h, &why) != PARSE_OK) {
        damaged(r, 0, why, e);
        goto out;
    }
    if (h.first != r->first) {
        damaged(r, 0, "its header tells another first record than its name", e);
        goto out;
    }
    if (h.generation < r->generation) {
        damaged(r, 0, "its generation is lower than that of the segment before it", e);
        goto out;
    }
    if (take_union(r, &h, e) < 0)
        goto out;
    r->generation = h.generation;
    r->offset = h.size;
    memcpy(r->sync, h.sync, SYNC_SIZE);
    rc = 0;
out:
    buf_release(&head);
    return rc;
}

static int open_named(const struct file_reader *r, uint64_t first)
{
    char name[SEGMENT_NAME_SIZE];

    segment_name(first, name);
    return openat(r->dir.fd, name, O_RDONLY | O_CLOEXEC);
}

/* The segment behind the current one must begin with exactly the next record. */
static int next_segment(struct file_reader *r, struct err *e)
{
    struct segment_list segments;
    char name[SEGMENT_NAME_SIZE];
    uint64_t kept;

    close_segment(r);
    r->fd = open_named(r, r->number);
    if (r->fd >= 0)
        return begin_segment(r, e);
    segment_name(r->number, name);
    if (errno != ENOENT)
        return err_set(e, ERR_FATAL, "%s/%s: %s", r->dir.path, name, strerror(errno));
    if (segment_list_read(&r->dir, &segments, e) < 0)
        return -1;
    kept = segments.n ? segments.first[0] : r->mark.next;
    segment_list_release(&segments);
    if (kept > r->number)
        return err_set(e, ERR_FATAL,
                       "journal %s: record %" PRIu64 " was trimmed; the first kept is %" PRIu64,
                       r->dir.path, r->number, kept);
    return err_set(e, ERR_FATAL,
                   "%s/%s: missing: there is a gap at record %" PRIu64 ", offset 0 of that file",
                   r->dir.path, name, r->number);
}

static int seek_record(struct file_reader *r, uint64_t from, struct err *e);

/* ---- blocks ---- */

/* Makes n bytes from r->offset on lie in the window, and as many more as fit. */
static int fill(struct file_reader *r, size_t n, struct err *e)
{
    uint64_t have = 0;
    size_t cap = n > r->window ? n : r->window;
    size_t want;

    if (r->len && r->offset >= r->base_offset && r->offset <= r->base_offset + r->len)
        have = r->base_offset + r->len - r->offset;
    if (have >= n)
        return 0;
    if (cap != r->cap) {
        /* Grown for a large record, or shrunk again behind it. */
        char *data = malloc(cap);

        if (!data)
            return damaged(r, r->offset, "no memory for a block of its size", e);
        if (have)
            memcpy(data, r->data + (r->offset - r->base_offset), have);
        free(r->data);
        r->data = data;
        r->cap = cap;
    } else if (have) {
        memmove(r->data, r->data + (r->offset - r->base_offset), have);
    }
    r->base_offset = r->offset;
    r->len = have;
    want = r->limit - r->offset < cap ? (size_t)(r->limit - r->offset) : cap;
    while (r->len < want) {
        ssize_t got =
            pread(r->fd, r->data + r->len, want - r->len, (off_t)(r->base_offset + r->len));

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return damaged(r, r->offset, got < 0 ? strerror(errno) : "durable bytes are missing",
                           e);
        r->len += (size_t)got;
    }
    return 0;
}

/* A large record was the caller's until now; it is not kept through a wait. */
static void give_back(struct file_reader *r)
{
    if (r->cap <= r->window)
        return;
    free(r->data);
    r->data = NULL;
    r->cap = 0;
    r->len = 0;
}

/* Reads the head of the block at r->offset and checks that it ends within what is durable. */
static int read_head(struct file_reader *r, struct block *b, struct err *e)
{
    uint64_t left = r->limit - r->offset;
    size_t n = left < BLOCK_HEAD_MAX ? (size_t)left : BLOCK_HEAD_MAX;
    const char *why;

    if (fill(r, n, e) < 0)
        return -1;
    if (block_head_parse(r->data + (r->offset - r->base_offset), n, b, &why) != PARSE_OK)
        return damaged(r, r->offset, why, e);
    if (b->size > left)
        return damaged(r, r->offset, "a block reaches past what is durable", e);
    return 0;
}

/* Stands before a block of record r->number: opens segments as they come. The caller knows that the
 * record is durable. */
static int stand_before(struct file_reader *r, struct block *b, struct err *e)
{
    if (r->fd >= 0 && r->offset == r->limit && find_limit(r, e) < 0)
        return -1;
    if (r->fd < 0 || r->offset == r->limit) {
        if (r->fd >= 0 && r->first == r->mark.segment)
            return damaged(r, r->offset, "it holds fewer records than its mark says", e);
        if (next_segment(r, e) < 0)
            return -1;
        if (r->offset == r->limit)
            return damaged(r, r->offset, "it holds no record", e);
    }
    return read_head(r, b, e);
}

static int deliver(struct file_reader *r, struct journal_record *out, struct err *e)
{
    struct block_record record;
    struct block b;
    const char *why;

    /* Opened at the end: which segment the record is in shows only now that it is there. */
    if (r->fd < 0 && seek_record(r, r->number, e) < 0)
        return -1;
    if (stand_before(r, &b, e) < 0 || fill(r, (size_t)b.size, e) < 0)
        return -1;
    why = block_parse(r->data + (r->offset - r->base_offset), &b, r->sync, &record);
    if (!why && record.branch >= r->nbranches)
        why = "a record's branch is not in the schema";
    if (why)
        return damaged(r, r->offset, why, e);
    r->offset += b.size;
    r->quiet_since = 0;
    *out = (struct journal_record){.number = r->number++,
                                   .generation = r->generation,
                                   .schema = r->branches[record.branch],
                                   .data = record.data,
                                   .len = record.len};
    return 1;
}

/* ---- the mark ---- */

static int look_again(struct file_reader *r, struct err *e)
{
    struct mark m;
    struct stat st;
    int rc = mark_read(&r->dir, MARK_VISIBLE, &m, e);

    if (rc < 0)
        return -1;
    if (fstat(r->dir.marks, &st) == 0 && st.st_nlink == 0)
        return err_set(e, ERR_FATAL, "journal %s: was removed", r->dir.path);
    if (rc > 0 && m.next < r->mark.next)
        return err_set(e, ERR_FATAL,
                       "journal %s/durable: went back from record %" PRIu64 " to %" PRIu64,
                       r->dir.path, r->mark.next, m.next);
    if (rc > 0)
        r->mark = m;
    return rc;
}

int file_reader_read(struct journal_reader *base, int timeout_ms, struct journal_record *out,
                     struct err *e)
{
    struct file_reader *r = reader_of(base);
    int64_t deadline = 0;

    give_back(r);
    for (;;) {
        if (r->number < r->mark.next)
            return deliver(r, out, e);
        if (look_again(r, e) < 0)
            return -1;
        if (r->number < r->mark.next)
            continue;
        if (timeout_ms <= 0)
            return 0;
        if (r->quiet_since == 0)
            r->quiet_since = mono_ms();
        if (deadline == 0)
            deadline = mono_ms() + timeout_ms;
        if (!journal_wait(r->quiet_since, deadline))
            return 0;
    }
}

/* ---- open and close ---- */

/* Goes to record `from`, which is durable, by the heads of the blocks before it. */
static int seek_record(struct file_reader *r, uint64_t from, struct err *e)
{
    struct segment_list segments;
    uint64_t kept;
    size_t i = 0;
    int rc;

    if (segment_list_read(&r->dir, &segments, e) < 0)
        return -1;
    while (i + 1 < segments.n && segments.first[i + 1] <= from)
        i++;
    kept = segments.n ? segments.first[0] : r->mark.next;
    r->number = segments.n ? segments.first[i] : from;
    segment_list_release(&segments);
    if (kept > from)
        return err_set(e, ERR_FATAL,
                       "journal %s: record %" PRIu64 " was trimmed; the first kept is %" PRIu64,
                       r->dir.path, from, kept);
    rc = next_segment(r, e);
    while (rc == 0 && r->number < from) {
        struct block b;

        rc = stand_before(r, &b, e);
        if (rc == 0) {
            r->offset += b.size;
            r->number++;
        }
    }
    return rc;
}

int file_reader_open(const struct journal_options *o, uint64_t from, struct journal_reader **out,
                     struct err *e)
{
    struct file_reader *r = calloc(1, sizeof(*r));
    int rc;

    invariant(r != NULL);
    r->base.ops = &file_journal_ops;
    r->dir = (struct file_dir)FILE_DIR_INIT;
    r->fd = -1;
    r->window = o->block_bytes ? o->block_bytes : JOURNAL_BLOCK_BYTES;
    if (r->window < BLOCK_HEAD_MAX)
        r->window = BLOCK_HEAD_MAX;
    r->number = from;
    rc = file_dir_open(o, &r->dir, e);
    if (rc > 0)
        rc = look_again(r, e);
    if (rc == 0)
        rc = err_set(e, ERR_RETRY, "there is no journal in %s yet", journal_uri_rest(o));
    else if (rc > 0 && from > r->mark.next)
        rc = err_set(e, ERR_FATAL,
                     "journal %s: record %" PRIu64 " lies beyond the end; the next is %" PRIu64,
                     r->dir.path, from, r->mark.next);
    else if (rc > 0 && from < r->mark.next)
        rc = seek_record(r, from, e);
    if (rc < 0) {
        file_reader_close(&r->base);
        return -1;
    }
    *out = &r->base;
    return 0;
}

const char *file_reader_schema_text(struct journal_reader *base, uint64_t schema)
{
    struct file_reader *r = reader_of(base);

    invariant(schema < r->ntexts);
    return r->texts[schema];
}

void file_reader_close(struct journal_reader *base)
{
    struct file_reader *r = reader_of(base);

    close_segment(r);
    for (size_t i = 0; i < r->ntexts; i++)
        free(r->texts[i]);
    free(r->texts);
    free(r->branches);
    free(r->data);
    file_dir_close(&r->dir);
    free(r);
}
