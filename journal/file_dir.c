#include "journal/file_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define MARKS_NAME "durable"
#define LOCK_NAME "lock"
#define HEADER_FIRST_READ ((size_t)16 * 1024)
#define MARK_READ_TRIES 50

struct file_sys file_sys = {.pwritev = pwritev, .fdatasync = fdatasync, .fsync = fsync};

/* ---- the directory ---- */

void file_dir_close(struct file_dir *d)
{
    if (d->marks >= 0)
        close(d->marks);
    if (d->fd >= 0)
        close(d->fd);
    free(d->path);
    *d = (struct file_dir)FILE_DIR_INIT;
}

static int open_path(const struct journal_options *o, struct file_dir *d)
{
    *d = (struct file_dir)FILE_DIR_INIT;
    d->path = strdup(journal_uri_rest(o));
    invariant(d->path != NULL);
    d->fd = open(d->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return d->fd;
}

int file_dir_open(const struct journal_options *o, struct file_dir *d, struct err *e)
{
    int rc = 0;

    if (open_path(o, d) >= 0)
        d->marks = openat(d->fd, MARKS_NAME, O_RDONLY | O_CLOEXEC);
    if (d->marks >= 0)
        return 1;
    if (errno != ENOENT)
        rc = err_set(e, ERR_FATAL, "journal %s: cannot be opened: %s", d->path, strerror(errno));
    file_dir_close(d);
    return rc;
}

/* The new directory's own entry must survive a power loss too. */
static int make_directory(struct file_dir *d)
{
    int parent;
    int rc;

    if (mkdir(d->path, 0700) < 0)
        return -1;
    d->fd = open(d->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d->fd < 0)
        return -1;
    parent = openat(d->fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent < 0)
        return -1;
    rc = file_sys.fsync(parent);
    close(parent);
    return rc;
}

int file_dir_create(const struct journal_options *o, struct file_dir *d, struct err *e)
{
    if (open_path(o, d) < 0 && (errno != ENOENT || make_directory(d) < 0))
        goto fail;
    d->marks = openat(d->fd, MARKS_NAME, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (d->marks >= 0)
        return 0;
fail:
    err_set(e, ERR_FATAL, "journal %s: cannot be opened for writing: %s", d->path, strerror(errno));
    file_dir_close(d);
    return -1;
}

int file_dir_lock(const struct file_dir *d, int *fd, struct err *e)
{
    struct stat st;

    for (;;) {
        *fd = openat(d->fd, LOCK_NAME, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (*fd < 0)
            return err_set(e, ERR_FATAL, "journal %s: its lock cannot be opened: %s", d->path,
                           strerror(errno));
        if (flock(*fd, LOCK_EX | LOCK_NB) < 0)
            break;
        /* Whoever removes a journal unlinks the lock while holding it: then this one is void. */
        if (fstat(*fd, &st) == 0 && st.st_nlink > 0)
            return 0;
        close(*fd);
    }
    err_set(e, errno == EWOULDBLOCK ? ERR_RETRY : ERR_FATAL,
            errno == EWOULDBLOCK ? "journal %s: another writer holds it"
                                 : "journal %s: its lock cannot be taken",
            d->path);
    close(*fd);
    *fd = -1;
    return -1;
}

/* ---- segments ---- */

void segment_list_release(struct segment_list *l)
{
    free(l->first);
    memset(l, 0, sizeof(*l));
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static void list_add(const struct file_dir *d, struct segment_list *l, const char *name)
{
    struct stat st;
    uint64_t first;

    /* One that is gone by now was trimmed meanwhile. */
    if (!segment_name_parse(name, &first) || fstatat(d->fd, name, &st, 0) < 0)
        return;
    if ((l->n & (l->n - 1)) == 0) {
        l->first = realloc(l->first, (l->n ? l->n * 2 : 1) * sizeof(*l->first));
        invariant(l->first != NULL);
    }
    l->first[l->n++] = first;
    l->bytes += (uint64_t)st.st_size;
}

int segment_list_read(const struct file_dir *d, struct segment_list *out, struct err *e)
{
    int fd = openat(d->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *entry;

    memset(out, 0, sizeof(*out));
    if (!dir) {
        if (fd >= 0)
            close(fd);
        return err_set(e, ERR_FATAL, "journal %s: cannot be listed: %s", d->path, strerror(errno));
    }
    while ((entry = readdir(dir)) != NULL)
        list_add(d, out, entry->d_name);
    closedir(dir);
    if (out->n)
        qsort(out->first, out->n, sizeof(*out->first), by_number);
    return 0;
}

/* ---- marks ---- */

/* Each kind has two slots, written in turn: one of them is whole at any moment, also when the power
 * goes while the other is being written. */
static off_t mark_offset(enum mark_kind kind, unsigned slot)
{
    return (off_t)(((unsigned)kind * 2 + slot) * MARK_SLOT);
}

int mark_read(const struct file_dir *d, enum mark_kind kind, struct mark *out, struct err *e)
{
    char slot[MARK_SLOT];
    struct mark m;
    bool found = false;

    /* A slot may be caught while it is written; both only if the writer went on in between. */
    for (int try = 0; !found && try < MARK_READ_TRIES; try++) {
        for (unsigned i = 0; i < 2; i++) {
            ssize_t n = pread(d->marks, slot, sizeof(slot), mark_offset(kind, i));

            if (n < 0)
                return err_set(e, ERR_FATAL, "journal %s/" MARKS_NAME ": %s", d->path,
                               strerror(errno));
            if (n != (ssize_t)sizeof(slot) || !mark_parse(slot, &m))
                continue;
            if (!found || m.seq > out->seq)
                *out = m;
            found = true;
        }
    }
    return found ? 1 : 0;
}

int mark_write(const struct file_dir *d, enum mark_kind kind, const struct mark *m)
{
    char slot[MARK_SLOT];
    struct iovec iov = {.iov_base = slot, .iov_len = sizeof(slot)};

    mark_format(m, slot);
    return write_all(d->marks, &iov, 1, (uint64_t)mark_offset(kind, m->seq & 1));
}

/* ---- bytes ---- */

int write_all(int fd, struct iovec *iov, int n, uint64_t offset)
{
    while (n > 0) {
        ssize_t done = file_sys.pwritev(fd, iov, n, (off_t)offset);

        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return errno;
        if (done == 0 && iov->iov_len)
            return ENOSPC;
        offset += (uint64_t)done;
        while (n > 0 && (size_t)done >= iov->iov_len) {
            done -= (ssize_t)iov->iov_len;
            iov++;
            n--;
        }
        if (n > 0) {
            iov->iov_base = (char *)iov->iov_base + done;
            iov->iov_len -= (size_t)done;
        }
    }
    return 0;
}

enum parse segment_header_read(int fd, uint64_t limit, struct buf *head, struct segment_header *h,
                               const char **why)
{
    size_t want = HEADER_FIRST_READ;

    buf_reset(head, 0);
    for (;;) {
        enum parse parsed;
        ssize_t n;
        char *p;

        if (want > limit)
            want = (size_t)limit;
        p = buf_reserve(head, want - head->len);
        n = p ? pread(fd, p, want - head->len, (off_t)head->len) : 0;
        if (n < 0) {
            *why = strerror(errno);
            return PARSE_BAD;
        }
        head->len += (size_t)n;
        parsed = segment_header_parse(head->data, head->len, h, why);
        if (parsed != PARSE_SHORT || n == 0)
            return parsed;
        want = head->len * 2;
    }
}
