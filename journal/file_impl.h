/* Private to journal/: what the parts of the file journal know of each other. */
#ifndef LOCKSTEP_JOURNAL_FILE_IMPL_H
#define LOCKSTEP_JOURNAL_FILE_IMPL_H

#include "journal/file_dir.h"

/* Brings the directory to where it was at the last flush, as a mark that has yet to be written
 * under a generation of its own. The caller holds the lock. */
int file_recover(const struct file_dir *d, struct mark *out, struct err *e);

int file_writer_open(const struct journal_options *o, struct journal_writer **out, char **note,
                     struct err *e);
void file_writer_close(struct journal_writer *w);
uint32_t file_writer_generation(const struct journal_writer *w);
int file_writer_schema(struct journal_writer *w, const char *name, const char *text, uint32_t *id,
                       struct err *e);
int file_writer_append(struct journal_writer *w, uint32_t schema, const struct iovec *datum,
                       uint64_t *number, struct err *e);
int file_writer_flush(struct journal_writer *w, struct err *e);
int file_writer_note(struct journal_writer *w, const char *note, struct err *e);
uint64_t file_writer_next(const struct journal_writer *w);
uint64_t file_writer_durable(const struct journal_writer *w);

int file_reader_open(const struct journal_options *o, uint64_t from, struct journal_reader **out,
                     struct err *e);
int file_reader_read(struct journal_reader *r, int timeout_ms, struct journal_record *out,
                     struct err *e);
const char *file_reader_schema_text(struct journal_reader *r, uint64_t schema);
void file_reader_close(struct journal_reader *r);

#endif
