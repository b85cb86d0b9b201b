/* The writer of the file journal. One normal course: append gathers blocks in `pending`, which goes
 * to the segment when it is full or at a flush; flush syncs the segment and then moves the marks.
 * file.c tells why in that order. */
#include "journal/file_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

/* A ceiling leaves room for at least this many segments, so that trimming can free some of it while
 * the last one is being written. */
#define SEGMENTS_UNDER_CEILING 8u

struct declared {
    char *name;
    char *text;
};

struct file_writer {
    struct journal_writer base;
    struct file_dir dir;
    int lock;
    uint64_t max_bytes;
    size_t segment_bytes;
    size_t block_bytes;

    struct mark mark; /* as last written: mark.next is what is durable, mark.note was flushed */
    char *note;       /* to go with the next flush; NULL: none */
    bool note_changed;
    bool dead; /* a sync failed: what the kernel has kept of it cannot be known */

    struct declared *schemas; /* a schema's id is its place, and its branch in the union */
    size_t nschemas;
    bool schemas_changed; /* since the current segment began */

    int fd; /* the current segment, or -1 */
    bool entry_synced;
    uint64_t first;
    uint64_t end; /* bytes of it that were written */
    uint8_t sync[SYNC_SIZE];
    struct buf pending; /* whole blocks that follow at `end` */
    uint64_t next;
    uint64_t other_bytes; /* of the other segments, when last looked */
};

static struct file_writer *writer_of(struct journal_writer *w)
{
    return (struct file_writer *)w;
}

static int fail_dead(struct file_writer *w, const char *what, int error, struct err *e)
{
    w->dead = true;
    err_set(e, ERR_FATAL, "journal %s: %s failed: %s; nothing more is written", w->dir.path, what,
            strerror(error));
    return err_hint(e, "check the disk; the next start goes on from what is durable");
}

static int check_alive(const struct file_writer *w, struct err *e)
{
    if (!w->dead)
        return 0;
    return err_set(e, ERR_FATAL, "journal %s: an earlier write or sync failed; start again",
                   w->dir.path);
}

/* ---- bytes to the segment ---- */

/* A failed write to the segment is cut off again, so that it ends with a whole block; one to the
 * marks is done again at the next flush, into the same slots. */
static int write_failed(struct file_writer *w, int fd, int error, struct err *e)
{
    if (fd == w->fd && ftruncate(fd, (off_t)w->end) < 0)
        return fail_dead(w, "cutting off an unfinished write", errno, e);
    if (error != ENOSPC && error != EDQUOT)
        return fail_dead(w, "a write", error, e);
    err_set(e, ERR_RETRY, "journal %s: the disk is full (%s)", w->dir.path, strerror(error));
    return err_hint(e, "make room on the file system that holds %s; capture goes on by itself",
                    w->dir.path);
}

static int write_pending(struct file_writer *w, struct err *e)
{
    struct iovec iov = {.iov_base = w->pending.data, .iov_len = w->pending.len};
    int error;

    if (w->pending.len == 0)
        return 0;
    error = write_all(w->fd, &iov, 1, w->end);
    if (error)
        return write_failed(w, w->fd, error, e);
    w->end += w->pending.len;
    buf_reset(&w->pending, w->block_bytes * 2);
    return 0;
}

/* A record too large for pending goes straight from the caller's memory. */
static int write_large(struct file_writer *w, const uint8_t *head, size_t head_len,
                       const struct iovec *datum, struct err *e)
{
    struct iovec iov[3] = {
        {.iov_base = (void *)(uintptr_t)head, .iov_len = head_len},
        *datum,
        {.iov_base = w->sync, .iov_len = SYNC_SIZE},
    };
    int error = write_all(w->fd, iov, 3, w->end);

    if (error)
        return write_failed(w, w->fd, error, e);
    w->end += head_len + datum->iov_len + SYNC_SIZE;
    return 0;
}

/* ---- durable ---- */

static int sync_segment(struct file_writer *w, struct err *e)
{
    if (file_sys.fdatasync(w->fd) < 0)
        return fail_dead(w, "syncing a segment", errno, e);
    if (!w->entry_synced && file_sys.fsync(w->dir.fd) < 0)
        return fail_dead(w, "syncing the directory", errno, e);
    w->entry_synced = true;
    return 0;
}

/* Moves the marks: first the one that the next writer goes on from, and only when that is on disk
 * the one that readers follow. */
static int publish(struct file_writer *w, struct mark *m, struct err *e)
{
    int error;

    m->seq = w->mark.seq + 1;
    error = mark_write(&w->dir, MARK_RECOVERY, m);
    if (error)
        return write_failed(w, w->dir.marks, error, e);
    if (file_sys.fdatasync(w->dir.marks) < 0)
        return fail_dead(w, "syncing the durable mark", errno, e);
    error = mark_write(&w->dir, MARK_VISIBLE, m);
    if (error)
        return write_failed(w, w->dir.marks, error, e);
    w->mark = *m;
    return 0;
}

/* Makes all records durable. The note goes along only with a flush that the caller asked for: only
 * the caller knows which records its note speaks of. */
static int make_durable(struct file_writer *w, bool with_note, struct err *e)
{
    struct mark m = w->mark;

    if (w->next != w->mark.next) {
        invariant(w->fd >= 0);
        if (write_pending(w, e) < 0 || sync_segment(w, e) < 0)
            return -1;
        m.segment = w->first;
        m.offset = w->end;
        m.next = w->next;
    } else if (!with_note || !w->note_changed) {
        return 0;
    }
    if (with_note && w->note_changed) {
        m.has_note = true;
        memcpy(m.note, w->note, strlen(w->note) + 1);
    }
    if (publish(w, &m, e) < 0)
        return -1;
    w->note_changed = w->note_changed && !with_note;
    return 0;
}

int file_writer_flush(struct journal_writer *base, struct err *e)
{
    struct file_writer *w = writer_of(base);

    return check_alive(w, e) < 0 ? -1 : make_durable(w, true, e);
}

int file_writer_note(struct journal_writer *base, const char *note, struct err *e)
{
    struct file_writer *w = writer_of(base);

    if (w->note && strcmp(w->note, note) == 0)
        return 0;
    free(w->note);
    w->note = strdup(note);
    invariant(w->note != NULL);
    w->note_changed = true;
    return 0;
}

/* ---- segments ---- */

static void abandon_segment(struct file_writer *w)
{
    char name[SEGMENT_NAME_SIZE];

    segment_name(w->first, name);
    unlinkat(w->dir.fd, name, 0);
    close(w->fd);
    w->fd = -1;
}

/* Ends the current segment; it is durable to its end before another one exists. */
static int end_segment(struct file_writer *w, struct err *e)
{
    if (w->next == w->first) {
        abandon_segment(w);
        return 0;
    }
    if (make_durable(w, false, e) < 0)
        return -1;
    close(w->fd);
    w->fd = -1;
    w->other_bytes += w->end;
    return 0;
}

static void build_header(struct file_writer *w, struct buf *out)
{
    struct segment_header h = {.generation = w->mark.generation, .first = w->next};
    struct buf schema;

    buf_init(&schema, BUF_MAX_TEXT);
    for (size_t i = 0; i < w->nschemas; i++) {
        buf_addc(&schema, i ? ',' : '[');
        buf_adds(&schema, w->schemas[i].text);
    }
    buf_addc(&schema, ']');
    h.schema = schema.data;
    h.schema_len = schema.len;
    if (w->mark.has_note) {
        h.note = w->mark.note;
        h.note_len = strlen(w->mark.note);
    }
    memcpy(h.sync, w->sync, SYNC_SIZE);
    segment_header_build(&h, out);
    out->overflow = out->overflow || schema.overflow;
    buf_release(&schema);
}

static int start_segment(struct file_writer *w, struct err *e)
{
    char name[SEGMENT_NAME_SIZE];
    struct buf header;
    struct iovec iov;
    int error;
    int rc = -1;

    buf_init(&header, BUF_MAX_TEXT);
    if (getrandom(w->sync, SYNC_SIZE, 0) != (ssize_t)SYNC_SIZE)
        return err_set(e, ERR_FATAL, "journal %s: no random bytes: %s", w->dir.path,
                       strerror(errno));
    build_header(w, &header);
    if (buf_check(&header, "the header of a journal segment", e) < 0)
        goto out;
    segment_name(w->next, name);
    w->fd = openat(w->dir.fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (w->fd < 0) {
        error = errno;
        err_set(e, error == ENOSPC || error == EDQUOT ? ERR_RETRY : ERR_FATAL,
                "%s/%s: cannot be made: %s", w->dir.path, name, strerror(error));
        goto out;
    }
    w->first = w->next;
    w->end = 0;
    w->entry_synced = false;
    iov = (struct iovec){.iov_base = header.data, .iov_len = header.len};
    error = write_all(w->fd, &iov, 1, 0);
    if (error) {
        write_failed(w, w->fd, error, e);
        abandon_segment(w);
        goto out;
    }
    w->end = header.len;
    w->schemas_changed = false;
    rc = 0;
out:
    buf_release(&header);
    return rc;
}

/* ---- append ---- */

/* ERR_RETRY if `more` bytes would pass the ceiling. Trimming happens elsewhere: before it says so
 * it looks again. */
static int check_ceiling(struct file_writer *w, uint64_t more, struct err *e)
{
    struct segment_list segments;
    uint64_t own = w->fd >= 0 ? w->end : 0;

    if (w->max_bytes == 0 || w->other_bytes + own + w->pending.len + more <= w->max_bytes)
        return 0;
    if (segment_list_read(&w->dir, &segments, e) < 0)
        return -1;
    w->other_bytes = segments.bytes > own ? segments.bytes - own : 0;
    segment_list_release(&segments);
    if (w->other_bytes + own + w->pending.len + more <= w->max_bytes)
        return 0;
    err_set(e, ERR_RETRY,
            "journal is full: %s holds %" PRIu64 " of at most %" PRIu64 " bytes, and %" PRIu64
            " more are to come",
            w->dir.path, w->other_bytes + own + w->pending.len, w->max_bytes, more);
    return err_hint(e, "capture goes on when apply has caught up; or raise journal_max");
}

static int ready_segment(struct file_writer *w, size_t framed, struct err *e)
{
    bool too_long =
        w->fd >= 0 && w->next > w->first && w->end + w->pending.len + framed > w->segment_bytes;

    if (w->fd >= 0 && (too_long || w->schemas_changed) && end_segment(w, e) < 0)
        return -1;
    if (w->fd < 0 && start_segment(w, e) < 0)
        return -1;
    return w->pending.len + framed > w->block_bytes ? write_pending(w, e) : 0;
}

int file_writer_append(struct journal_writer *base, uint32_t schema, const struct iovec *datum,
                       uint64_t *number, struct err *e)
{
    struct file_writer *w = writer_of(base);
    uint8_t head[BLOCK_HEAD_MAX];
    size_t head_len = block_head_build(head, schema, datum->iov_len);
    size_t framed = head_len + datum->iov_len + SYNC_SIZE;

    invariant(schema < w->nschemas && datum->iov_len < BUF_MAX_ROW);
    if (check_alive(w, e) < 0 || check_ceiling(w, framed, e) < 0 || ready_segment(w, framed, e) < 0)
        return -1;
    if (framed > w->block_bytes) {
        if (write_large(w, head, head_len, datum, e) < 0)
            return -1;
    } else {
        buf_add(&w->pending, head, head_len);
        buf_add(&w->pending, datum->iov_base, datum->iov_len);
        buf_add(&w->pending, w->sync, SYNC_SIZE);
        invariant(!w->pending.overflow);
    }
    *number = w->next++;
    return 0;
}

/* ---- schemas ---- */

static int check_schema(const char *name, const char *text, struct err *e)
{
    json_error_t where;
    json_t *json = json_loads(text, 0, &where);
    bool object = json_is_object(json);

    json_decref(json);
    if (!object)
        return err_set(e, ERR_BUG, "schema %s is not a JSON object: %s", name, where.text);
    return 0;
}

int file_writer_schema(struct journal_writer *base, const char *name, const char *text,
                       uint32_t *id, struct err *e)
{
    struct file_writer *w = writer_of(base);
    size_t i = 0;

    while (i < w->nschemas && strcmp(w->schemas[i].name, name) != 0)
        i++;
    *id = (uint32_t)i;
    if (i < w->nschemas && strcmp(w->schemas[i].text, text) == 0)
        return 0;
    if (check_schema(name, text, e) < 0)
        return -1;
    if (i == w->nschemas) {
        w->schemas = realloc(w->schemas, (i + 1) * sizeof(*w->schemas));
        invariant(w->schemas != NULL);
        w->schemas[i] = (struct declared){.name = strdup(name)};
        w->nschemas++;
    }
    free(w->schemas[i].text);
    w->schemas[i].text = strdup(text);
    invariant(w->schemas[i].name && w->schemas[i].text);
    w->schemas_changed = true;
    return 0;
}

/* ---- open and close ---- */

void file_writer_close(struct journal_writer *base)
{
    struct file_writer *w = writer_of(base);

    for (size_t i = 0; i < w->nschemas; i++) {
        free(w->schemas[i].name);
        free(w->schemas[i].text);
    }
    free(w->schemas);
    free(w->note);
    buf_release(&w->pending);
    if (w->fd >= 0)
        close(w->fd);
    file_dir_close(&w->dir);
    if (w->lock >= 0)
        close(w->lock);
    free(w);
}

static void set_sizes(struct file_writer *w, const struct journal_options *o)
{
    w->max_bytes = o->max_bytes;
    w->segment_bytes = o->segment_bytes ? o->segment_bytes : JOURNAL_SEGMENT_BYTES;
    if (o->max_bytes && w->segment_bytes > o->max_bytes / SEGMENTS_UNDER_CEILING)
        w->segment_bytes = (size_t)(o->max_bytes / SEGMENTS_UNDER_CEILING);
    w->block_bytes = o->block_bytes ? o->block_bytes : JOURNAL_BLOCK_BYTES;
    buf_init(&w->pending, w->block_bytes + 1);
}

/* Recovers, and publishes what was found under a generation of its own. */
static int take_over(struct file_writer *w, struct err *e)
{
    struct segment_list segments;
    struct mark m;

    if (file_recover(&w->dir, &m, e) < 0)
        return -1;
    w->mark.seq = m.seq;
    m.generation++;
    if (publish(w, &m, e) < 0)
        return -1;
    if (file_sys.fsync(w->dir.fd) < 0)
        return fail_dead(w, "syncing the directory", errno, e);
    w->next = m.next;
    if (segment_list_read(&w->dir, &segments, e) < 0)
        return -1;
    w->other_bytes = segments.bytes;
    segment_list_release(&segments);
    return 0;
}

int file_writer_open(const struct journal_options *o, struct journal_writer **out, char **note,
                     struct err *e)
{
    struct file_writer *w = calloc(1, sizeof(*w));

    invariant(w != NULL);
    w->base.ops = &file_journal_ops;
    w->dir = (struct file_dir)FILE_DIR_INIT;
    w->lock = -1;
    w->fd = -1;
    set_sizes(w, o);
    if (file_dir_create(o, &w->dir, e) < 0 || file_dir_lock(&w->dir, &w->lock, e) < 0 ||
        take_over(w, e) < 0) {
        file_writer_close(&w->base);
        return -1;
    }
    if (w->mark.has_note) {
        w->note = strdup(w->mark.note);
        *note = strdup(w->mark.note);
        invariant(w->note && *note);
    }
    *out = &w->base;
    return 0;
}

uint32_t file_writer_generation(const struct journal_writer *base)
{
    return ((const struct file_writer *)base)->mark.generation;
}

uint64_t file_writer_next(const struct journal_writer *base)
{
    return ((const struct file_writer *)base)->next;
}

uint64_t file_writer_durable(const struct journal_writer *base)
{
    return ((const struct file_writer *)base)->mark.next;
}
