/* The file journal: a directory that any Avro tool reads.
 *
 *   00000000000000000000.avro   segments: Avro object container files, codec null, named by the
 *   00000000000000004711.avro   number of their first record
 *   durable                     up to where all of it is durable: the marks, and the note
 *   lock                        held (flock) by the one writer
 *
 * A segment's schema is the union of the record schemas that were declared when it began, so a
 * datum on disk is a branch number and the caller's bytes. Its metadata carry the generation of its
 * writer, the number of its first record, and the note in force. Records are opaque here: only the
 * schema could tell where one datum ends, so each record is a block of its own (about 20 bytes
 * around it), and blocks are gathered to `block_bytes` before they are written. A record's number
 * is that of its segment plus its place.
 *
 * One normal course. append → pending blocks → (full, or flush) pwritev to the segment. flush:
 *   1. fdatasync(segment), and fsync(directory) the first time
 *   2. the recovery mark is written, fdatasync(durable)
 *   3. the visible mark is written, not synced
 * A reader follows the visible mark; a new writer goes on from the recovery mark.
 *
 * Why two marks. Whatever a reader has seen may already be committed on the target, on another
 * machine: no power loss may take it back. Without (2) a new writer would have to accept whole
 * looking blocks behind an old mark, and with codec null nothing tells a whole block from one whose
 * middle pages never reached the disk. So a new writer keeps exactly what the recovery mark covers
 * and cuts off the rest; and since (3) comes after (2), what readers saw is always covered. The
 * kernel may write the visible mark back earlier or later or never: it is written only when the
 * recovery mark is already on disk, so it is never ahead of it.
 * Records that were appended but not flushed are lost with their writer, and their numbers are used
 * again; nobody has seen them.
 *
 * The note is part of the marks and moves only in a flush that the caller asked for, after (1).
 * INVARIANT: a note that a new writer is given is never ahead of the durable records; it is the one
 * of the last flush that returned 0 (or of one that was under way). Ending a full segment also
 * makes its records durable, but keeps the old note: the new one may speak of records still to
 * come. The flushed note also stands in each segment's header. It is used only if the file
 * `durable` is lost or damaged, and is then older than the last records, which is harmless (the
 * caller looks through the records behind it).
 *
 * If both recovery marks are unreadable (somebody deleted `durable`), the writer takes the whole
 * blocks of the last segment instead, up to the first torn one, and removes a segment without any.
 *
 * Dangerous interleavings:
 * - Power loss between (1) and (2): the records were never reported; they are cut off.
 * - Power loss while a mark is written: each kind has two slots, written in turn, each with a sum.
 * - A reader reads a mark in the middle of its being written: the sum fails, the other slot counts.
 * - A writer dies having begun a segment: no mark covers it, no reader opened it, it is removed.
 *   So the name of a segment that anybody opened never comes to mean another file.
 * - Trimming while a writer begins a segment: the last segment with a durable record always stays,
 *   so the numbering survives even if `durable` is lost. A reader that stands in a segment being
 *   deleted keeps its descriptor and reads it to its end.
 * - A failed sync: the kernel may have dropped the pages and reported it once. Trying again would
 *   lie, so the writer is dead; the next one starts from the recovery mark.
 * - A full disk: the partial block is cut off again, the pending blocks stay in memory, ERR_RETRY.
 */
#include "journal/file_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How many of the segments a mark covers: those behind it hold no durable record. */
static size_t covered(const struct segment_list *l, const struct mark *m)
{
    size_t n = l->n;

    while (n > 0 && (m->offset == 0 || l->first[n - 1] > m->segment))
        n--;
    return n;
}

/* 1, with d, m and l to be released; 0: no journal yet; -1. */
static int look(const struct journal_options *o, struct file_dir *d, struct mark *m,
                struct segment_list *l, struct err *e)
{
    int rc = file_dir_open(o, d, e);

    if (rc <= 0)
        return rc;
    rc = mark_read(d, MARK_VISIBLE, m, e);
    if (rc > 0 && segment_list_read(d, l, e) < 0)
        rc = -1;
    if (rc <= 0)
        file_dir_close(d);
    return rc;
}

static int file_stat(const struct journal_options *o, struct journal_stats *out, struct err *e)
{
    struct segment_list segments;
    struct file_dir d;
    struct mark m;
    int rc = look(o, &d, &m, &segments, e);

    if (rc <= 0)
        return rc;
    out->first = covered(&segments, &m) ? segments.first[0] : m.next;
    out->next = m.next;
    out->bytes = segments.bytes;
    out->max_bytes = o->max_bytes;
    segment_list_release(&segments);
    file_dir_close(&d);
    return 1;
}

static int file_trim(const struct journal_options *o, uint64_t below, struct err *e)
{
    struct segment_list segments;
    struct file_dir d;
    struct mark m;
    size_t n;
    int rc = look(o, &d, &m, &segments, e);

    if (rc <= 0)
        return rc;
    rc = 0;
    n = covered(&segments, &m);
    /* The oldest first: whatever stops us, what is left has no gap. */
    for (size_t i = 0; i + 1 < n && segments.first[i + 1] <= below && rc == 0; i++) {
        char name[SEGMENT_NAME_SIZE];

        segment_name(segments.first[i], name);
        if (unlinkat(d.fd, name, 0) < 0 && errno != ENOENT)
            rc = err_set(e, ERR_RETRY, "%s/%s: cannot be removed: %s", d.path, name,
                         strerror(errno));
    }
    segment_list_release(&segments);
    file_dir_close(&d);
    return rc;
}

static int remove_files(const struct file_dir *d, struct err *e)
{
    struct segment_list segments;
    char name[SEGMENT_NAME_SIZE];

    if (segment_list_read(d, &segments, e) < 0)
        return -1;
    /* The marks go first: without them nobody takes what is left for a journal with a gap. */
    unlinkat(d->fd, "durable", 0);
    for (size_t i = segments.n; i-- > 0;) {
        segment_name(segments.first[i], name);
        unlinkat(d->fd, name, 0);
    }
    segment_list_release(&segments);
    unlinkat(d->fd, "lock", 0);
    if (rmdir(d->path) < 0 && errno != ENOTEMPTY && errno != EEXIST && errno != ENOENT)
        return err_set(e, ERR_RETRY, "journal %s: cannot be removed: %s", d->path, strerror(errno));
    return 0;
}

static int file_remove(const struct journal_options *o, struct err *e)
{
    struct file_dir d;
    int lock = -1;
    int rc;

    if (access(journal_uri_rest(o), F_OK) < 0 && errno == ENOENT)
        return 0;
    if (file_dir_create(o, &d, e) < 0)
        return -1;
    rc = file_dir_lock(&d, &lock, e);
    if (rc == 0)
        rc = remove_files(&d, e);
    if (lock >= 0)
        close(lock);
    file_dir_close(&d);
    return rc;
}

const struct journal_ops file_journal_ops = {
    .scheme = "file:",
    .writer_open = file_writer_open,
    .writer_close = file_writer_close,
    .generation = file_writer_generation,
    .schema = file_writer_schema,
    .append = file_writer_append,
    .flush = file_writer_flush,
    .note = file_writer_note,
    .next = file_writer_next,
    .durable = file_writer_durable,
    .reader_open = file_reader_open,
    .read = file_reader_read,
    .schema_text = file_reader_schema_text,
    .reader_close = file_reader_close,
    .trim = file_trim,
    .stat = file_stat,
    .remove = file_remove,
};
