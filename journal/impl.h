/* Private to journal/: the seam between journal.h and its implementations.
 *
 * An implementation is one const struct journal_ops, listed in journal.c. Its writer and its reader
 * begin with the structs below, so that a handle finds its own functions. The contract of each slot
 * is that of the function of the same name in journal.h; `close` takes no NULL.
 */
#ifndef LOCKSTEP_JOURNAL_IMPL_H
#define LOCKSTEP_JOURNAL_IMPL_H

#include "journal/journal.h"

#include <sys/uio.h>

#define JOURNAL_SEGMENT_BYTES ((size_t)64 * 1024 * 1024)
#define JOURNAL_BLOCK_BYTES ((size_t)1024 * 1024)
/* The longest note, so that a mark fits into its slot. */
#define JOURNAL_NOTE_MAX 1024

struct journal_ops {
    const char *scheme; /* with its colon */
    int (*writer_open)(const struct journal_options *o, struct journal_writer **out, char **note,
                       struct err *e);
    void (*writer_close)(struct journal_writer *w);
    uint32_t (*generation)(const struct journal_writer *w);
    int (*schema)(struct journal_writer *w, const char *name, const char *text, uint32_t *id,
                  struct err *e);
    int (*append)(struct journal_writer *w, uint32_t schema, const struct iovec *datum,
                  uint64_t *number, struct err *e);
    int (*flush)(struct journal_writer *w, struct err *e);
    int (*note)(struct journal_writer *w, const char *note, struct err *e);
    uint64_t (*next)(const struct journal_writer *w);
    uint64_t (*durable)(const struct journal_writer *w);

    int (*reader_open)(const struct journal_options *o, uint64_t from, struct journal_reader **out,
                       struct err *e);
    int (*read)(struct journal_reader *r, int timeout_ms, struct journal_record *out,
                struct err *e);
    const char *(*schema_text)(struct journal_reader *r, uint64_t schema);
    void (*reader_close)(struct journal_reader *r);

    int (*trim)(const struct journal_options *o, uint64_t below, struct err *e);
    int (*stat)(const struct journal_options *o, struct journal_stats *out, struct err *e);
    int (*check)(const struct journal_options *o, bool fresh, struct err *e); /* may be NULL */
    int (*remove)(const struct journal_options *o, struct err *e);
};

struct journal_writer {
    const struct journal_ops *ops;
};

struct journal_reader {
    const struct journal_ops *ops;
};

extern const struct journal_ops file_journal_ops;
extern const struct journal_ops memory_journal_ops;
extern const struct journal_ops kafka_journal_ops;

/* What stands behind the scheme in the URI. */
const char *journal_uri_rest(const struct journal_options *o);
/* True if the note may be kept: short and of one line. */
int journal_note_check(const char *note, struct err *e);

/* One wait of a reader that has found nothing since `began`, of 1 ms at first and 20 ms at last.
 * False when the deadline has passed (both mono_ms) or the process was asked to stop. */
bool journal_wait(int64_t began, int64_t deadline);

#endif
