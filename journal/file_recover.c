/* What a new writer finds, and how it makes it whole (file.c has the reasoning). */
#include "journal/file_impl.h"

#include "core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct recovery {
    const struct file_dir *dir;
    struct segment_list segments;
    struct mark mark;
    bool removed; /* the directory is to be synced */
};

static int drop_segment(struct recovery *r, uint64_t first, struct err *e)
{
    char name[SEGMENT_NAME_SIZE];

    segment_name(first, name);
    if (unlinkat(r->dir->fd, name, 0) < 0 && errno != ENOENT)
        return err_set(e, ERR_FATAL, "%s/%s: cannot be removed: %s", r->dir->path, name,
                       strerror(errno));
    r->removed = true;
    return 0;
}

/* Cuts the segment behind what is durable and makes sure that the cut is on disk. */
static int cut_segment(const struct recovery *r, int fd, const char *name, uint64_t size,
                       struct err *e)
{
    if (ftruncate(fd, (off_t)size) < 0 || file_sys.fdatasync(fd) < 0)
        return err_set(e, ERR_FATAL, "%s/%s: its torn tail cannot be cut off: %s", r->dir->path,
                       name, strerror(errno));
    return 0;
}

/* Holds the marked segment against the mark: it must reach that far and end with a block there. */
static int check_marked(const struct recovery *r, int fd, const char *name, struct err *e)
{
    const uint64_t offset = r->mark.offset;
    struct segment_header h;
    struct buf head;
    struct stat st;
    uint8_t sync[SYNC_SIZE];
    const char *why = "";
    int rc = -1;

    buf_init(&head, BUF_MAX_TEXT);
    if (fstat(fd, &st) < 0) {
        err_set(e, ERR_FATAL, "%s/%s: %s", r->dir->path, name, strerror(errno));
    } else if ((uint64_t)st.st_size < offset) {
        err_set(e, ERR_FATAL,
                "%s/%s: durable bytes are missing: it has %" PRIu64 " of %" PRIu64 " bytes",
                r->dir->path, name, (uint64_t)st.st_size, offset);
    } else if (segment_header_read(fd, offset, &head, &h, &why) != PARSE_OK) {
        err_set(e, ERR_FATAL, "%s/%s: offset 0: %s", r->dir->path, name, why);
    } else if (pread(fd, sync, SYNC_SIZE, (off_t)(offset - SYNC_SIZE)) != (ssize_t)SYNC_SIZE ||
               memcmp(sync, h.sync, SYNC_SIZE) != 0) {
        err_set(e, ERR_FATAL, "%s/%s: offset %" PRIu64 ": a durable block is damaged", r->dir->path,
                name, offset);
    } else {
        rc = (uint64_t)st.st_size > offset ? cut_segment(r, fd, name, offset, e) : 0;
    }
    buf_release(&head);
    return rc;
}

/* The ordinary case: the mark tells what is durable, all else goes. */
static int recover_marked(struct recovery *r, struct err *e)
{
    char name[SEGMENT_NAME_SIZE];
    int fd;
    int rc;

    for (size_t i = 0; i < r->segments.n; i++) {
        if ((r->mark.offset == 0 || r->segments.first[i] > r->mark.segment) &&
            drop_segment(r, r->segments.first[i], e) < 0)
            return -1;
    }
    if (r->mark.offset == 0)
        return 0;
    segment_name(r->mark.segment, name);
    fd = openat(r->dir->fd, name, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return err_set(e, ERR_FATAL, "%s/%s: a durable segment cannot be opened: %s", r->dir->path,
                       name, strerror(errno));
    rc = check_marked(r, fd, name, e);
    close(fd);
    return rc;
}

/* Counts the whole blocks from offset on; *offset is then behind the last. */
static uint64_t count_blocks(int fd, const struct segment_header *h, uint64_t size,
                             uint64_t *offset)
{
    uint64_t count = 0;

    for (;;) {
        uint8_t head[BLOCK_HEAD_MAX];
        uint8_t sync[SYNC_SIZE];
        struct block b;
        const char *why;
        ssize_t n = pread(fd, head, sizeof(head), (off_t)*offset);

        if (n <= 0 || block_head_parse(head, (size_t)n, &b, &why) != PARSE_OK)
            return count;
        if (b.size > size - *offset ||
            pread(fd, sync, SYNC_SIZE, (off_t)(*offset + b.size - SYNC_SIZE)) !=
                (ssize_t)SYNC_SIZE ||
            memcmp(sync, h->sync, SYNC_SIZE) != 0)
            return count;
        *offset += b.size;
        count++;
    }
}

/* Takes what is whole of one segment into the mark. 1; 0: nothing of it is, it was removed; -1. */
static int scan_segment(struct recovery *r, uint64_t first, struct err *e)
{
    struct mark *m = &r->mark;
    struct segment_header h;
    struct buf head;
    struct stat st;
    const char *why;
    char name[SEGMENT_NAME_SIZE];
    uint64_t count = 0;
    int rc = -1;
    int fd;

    buf_init(&head, BUF_MAX_TEXT);
    segment_name(first, name);
    fd = openat(r->dir->fd, name, O_RDWR | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        err_set(e, ERR_FATAL, "%s/%s: %s", r->dir->path, name, strerror(errno));
        goto out;
    }
    if (segment_header_read(fd, (uint64_t)st.st_size, &head, &h, &why) == PARSE_OK) {
        m->offset = h.size;
        count = count_blocks(fd, &h, (uint64_t)st.st_size, &m->offset);
        if (h.generation > m->generation)
            m->generation = h.generation;
        if (h.note && !m->has_note) {
            memcpy(m->note, h.note, h.note_len);
            m->has_note = true;
        }
    }
    m->segment = first;
    m->next = first + count;
    if (count == 0) {
        m->offset = 0;
        rc = drop_segment(r, first, e);
        goto out;
    }
    rc = cut_segment(r, fd, name, m->offset, e) < 0 ? -1 : 1;
out:
    if (fd >= 0)
        close(fd);
    buf_release(&head);
    return rc;
}

/* The marks are lost: takes from the segments what is whole, from the last one backwards. */
static int recover_scanning(struct recovery *r, struct err *e)
{
    int rc = 0;

    if (r->segments.n)
        log_event(LOG_WARN, "journal", "mark-lost",
                  "directory=%s its file \"durable\" is missing or damaged; reading the last "
                  "segment instead",
                  r->dir->path);
    for (size_t i = r->segments.n; i-- > 0 && rc == 0;)
        rc = scan_segment(r, r->segments.first[i], e);
    return rc < 0 ? -1 : 0;
}

int file_recover(const struct file_dir *d, struct mark *out, struct err *e)
{
    struct recovery r = {.dir = d};
    struct mark visible = {0};
    int rc = -1;
    int whole;
    int seen;

    if (segment_list_read(d, &r.segments, e) < 0)
        return -1;
    whole = mark_read(d, MARK_RECOVERY, &r.mark, e);
    seen = whole < 0 ? -1 : mark_read(d, MARK_VISIBLE, &visible, e);
    if (whole < 0 || seen < 0)
        goto out;
    if (seen && (!whole || visible.seq > r.mark.seq))
        r.mark = visible;
    if ((whole || seen ? recover_marked(&r, e) : recover_scanning(&r, e)) < 0)
        goto out;
    if (r.removed && file_sys.fsync(d->fd) < 0) {
        err_set(e, ERR_FATAL, "journal %s: cannot be synced: %s", d->path, strerror(errno));
        goto out;
    }
    *out = r.mark;
    rc = 0;
out:
    segment_list_release(&r.segments);
    return rc;
}
