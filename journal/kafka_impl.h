/* Private to kafka*.c: the writer's and the reader's slots of kafka_journal_ops. */
#ifndef LOCKSTEP_JOURNAL_KAFKA_IMPL_H
#define LOCKSTEP_JOURNAL_KAFKA_IMPL_H

#include "journal/impl.h"

int kafka_writer_open(const struct journal_options *o, struct journal_writer **out, char **note,
                      struct err *e);
void kafka_writer_close(struct journal_writer *w);
uint32_t kafka_writer_generation(const struct journal_writer *w);
int kafka_writer_schema(struct journal_writer *w, const char *name, const char *text, uint32_t *id,
                        struct err *e);
int kafka_writer_append(struct journal_writer *w, uint32_t schema, const struct iovec *datum,
                        uint64_t *number, struct err *e);
int kafka_writer_flush(struct journal_writer *w, struct err *e);
int kafka_writer_note(struct journal_writer *w, const char *note, struct err *e);
uint64_t kafka_writer_next(const struct journal_writer *w);
uint64_t kafka_writer_durable(const struct journal_writer *w);

int kafka_reader_open(const struct journal_options *o, uint64_t from, struct journal_reader **out,
                      struct err *e);
int kafka_reader_read(struct journal_reader *r, int timeout_ms, struct journal_record *out,
                      struct err *e);
const char *kafka_reader_schema_text(struct journal_reader *r, uint64_t schema);
void kafka_reader_close(struct journal_reader *r);

#endif
