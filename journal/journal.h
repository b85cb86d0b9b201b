/* The journal: opaque, ordered, numbered records, durable before they count.
 *
 * One writer (of the highest generation), any number of readers, also in other processes. Record
 * numbers are contiguous from 0; readers see only what is durable. A record is one Avro datum of a
 * schema that the writer declared; the journal knows schemas only as texts with a name.
 *
 * URIs: "file:DIR" (a directory of Avro object container files, journal/file.c tells the layout),
 * "kafka://HOST:PORT,…" (one topic of one partition), "memory:NAME" (tests: shared by name inside
 * the process, with memory_journal_crash()).
 */
#ifndef LOCKSTEP_JOURNAL_JOURNAL_H
#define LOCKSTEP_JOURNAL_JOURNAL_H

#include "core/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JOURNAL_OWNER_MAX 200

/* A setting of the journal's client library, by that library's own name. */
struct journal_property {
    const char *name;
    const char *value; /* may be a secret: never in a message */
};

struct journal_options {
    const char *uri;
    const char *name;     /* kafka: the topic, "lockstep.<migration>"; else not used */
    const char *owner;    /* kafka: whose journal this is; another's is refused. NULL: not told */
    const char *registry; /* URL of a Confluent-API schema registry, or NULL */
    const struct journal_property *properties;
    size_t nproperties;
    /* The ceiling: at 100 % append says ERR_RETRY and nothing is written. 0: none. Segments are
     * kept to an eighth of it, so that trimming can always free most of a full journal. */
    uint64_t max_bytes;
    size_t segment_bytes; /* 0: 64 MiB */
    size_t block_bytes;   /* 0: 1 MiB */
};

struct journal_record {
    uint64_t number;
    uint32_t generation;
    uint64_t schema;  /* an id of this reader, for journal_schema_text; equal ids, equal text */
    const void *data; /* borrowed until the next read */
    size_t len;
};

struct journal_stats {
    uint64_t first; /* the oldest record kept */
    uint64_t next;  /* the number behind the last durable record */
    uint64_t bytes; /* on disk */
    uint64_t max_bytes;
    char owner[JOURNAL_OWNER_MAX + 1]; /* kafka: as its writer told; "": not known */
};

struct journal_writer;
struct journal_reader;

/* ---- writing ---- */

/* Takes over: repairs a torn tail, raises the generation. ERR_RETRY if another writer lives.
 * *note: what journal_note() recorded last before the end of the durable records (malloc'd; NULL if
 * never): the writer's own words, here capture's frontier. */
int journal_writer_open(const struct journal_options *o, struct journal_writer **out, char **note,
                        struct err *e);
void journal_writer_close(struct journal_writer *w); /* takes NULL; does not flush */
uint32_t journal_writer_generation(const struct journal_writer *w);
/* Declares a schema; same name and text: the same id; same name and another text: replaces it (a
 * new segment begins). name is the record's full name, which occurs in the text. */
int journal_schema(struct journal_writer *w, const char *name, const char *text, uint32_t *id,
                   struct err *e);
/* Appends; durable with the next flush at the latest (ending a full segment makes the records in it
 * durable, and seen, earlier; the note stays). After ERR_RETRY the same call may be made again.
 * *number: the record's. */
int journal_append(struct journal_writer *w, uint32_t schema, const void *data, size_t len,
                   uint64_t *number, struct err *e);
/* Everything appended so far is durable and visible to readers when this returns 0. The note
 * becomes durable with it. */
int journal_flush(struct journal_writer *w, struct err *e);
/* The note to be kept with the next flush: a text of at most 1024 bytes without newlines. */
int journal_note(struct journal_writer *w, const char *note, struct err *e);
uint64_t journal_next(const struct journal_writer *w);    /* number of the next record */
uint64_t journal_durable(const struct journal_writer *w); /* records below are durable */

/* ---- reading ---- */

/* Stands before record `from`. ERR_FATAL if that was trimmed or lies beyond the end. */
int journal_reader_open(const struct journal_options *o, uint64_t from, struct journal_reader **out,
                        struct err *e);
/* 1: a record; 0: nothing new within timeout_ms; -1. A gap in the numbers, a generation that falls,
 * or bytes that are not what the writer wrote are ERR_FATAL and name file and offset. */
int journal_read(struct journal_reader *r, int timeout_ms, struct journal_record *out,
                 struct err *e);
const char *journal_schema_text(struct journal_reader *r, uint64_t schema);
void journal_reader_close(struct journal_reader *r); /* takes NULL */

/* ---- keeping house; from any process ---- */

/* Deletes whole segments (or their like) in which every record is below `below`. */
int journal_trim(const struct journal_options *o, uint64_t below, struct err *e);
/* 1: there is one, 0: none yet. */
int journal_stat(const struct journal_options *o, struct journal_stats *out, struct err *e);
/* Could it be used? Asks, and changes nothing. fresh: the migration has not begun, so whatever is
 * there belongs to another one. ERR_RETRY: it does not answer; ERR_REFUSED: another's, or settings
 * that would lose records; each with its remedy. */
int journal_check(const struct journal_options *o, bool fresh, struct err *e);
/* Removes the journal; what it holds is gone. Idempotent. Another owner's is left alone. */
int journal_remove(const struct journal_options *o, struct err *e);

/* ---- the memory journal's faults, for the simulation ---- */

/* As if the machine lost power: keeps the durable records and the first `keep` of the others; the
 * last kept one, if not durable, may be torn (then the next writer drops it). */
void memory_journal_crash(const char *uri, size_t keep, bool torn);
void memory_journal_reset_all(void);

#endif
