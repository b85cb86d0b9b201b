/* Private to journal/: the directory of a file journal, the calls that may fail, and its marks. */
#ifndef LOCKSTEP_JOURNAL_FILE_DIR_H
#define LOCKSTEP_JOURNAL_FILE_DIR_H

#include "journal/file_format.h"

#include <sys/types.h>
#include <sys/uio.h>

/* The system's calls that make things durable; a test puts its own in place to make them fail. */
struct file_sys {
    ssize_t (*pwritev)(int fd, const struct iovec *iov, int n, off_t offset);
    int (*fdatasync)(int fd);
    int (*fsync)(int fd);
};
extern struct file_sys file_sys;

struct file_dir {
    char *path;
    int fd;
    int marks; /* the file `durable` */
};

#define FILE_DIR_INIT                                                                              \
    {                                                                                              \
        .fd = -1, .marks = -1                                                                      \
    }

/* Opens for reading. 1; 0: there is no journal there; -1. */
int file_dir_open(const struct journal_options *o, struct file_dir *d, struct err *e);
/* Opens for writing; makes what is missing. */
int file_dir_create(const struct journal_options *o, struct file_dir *d, struct err *e);
void file_dir_close(struct file_dir *d); /* may be called twice */

/* Takes the lock that one writer holds; ERR_RETRY if somebody has it. *fd is to be closed. */
int file_dir_lock(const struct file_dir *d, int *fd, struct err *e);

/* The segments by their names, in order. */
struct segment_list {
    size_t n;
    uint64_t *first;
    uint64_t bytes; /* of all of them, on disk */
};
int segment_list_read(const struct file_dir *d, struct segment_list *out, struct err *e);
void segment_list_release(struct segment_list *l);

/* What readers may see, and what a writer goes on from after a crash (file.c). */
enum mark_kind { MARK_RECOVERY, MARK_VISIBLE };
/* 1; 0: none is whole; -1. */
int mark_read(const struct file_dir *d, enum mark_kind kind, struct mark *out, struct err *e);
/* 0, or the errno. Not synced. */
int mark_write(const struct file_dir *d, enum mark_kind kind, const struct mark *m);

/* Writes it all at offset, through short writes; 0, or the errno. Consumes iov. */
int write_all(int fd, struct iovec *iov, int n, uint64_t offset);

/* Reads a segment's header, which must end before `limit`. head holds its bytes, into which h
 * points. PARSE_BAD also stands for a failed read; *why tells. */
enum parse segment_header_read(int fd, uint64_t limit, struct buf *head, struct segment_header *h,
                               const char **why);

#endif
