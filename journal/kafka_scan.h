/* Reading a Kafka journal's messages through its machine (kafka_format.h). */
#ifndef LOCKSTEP_JOURNAL_KAFKA_SCAN_H
#define LOCKSTEP_JOURNAL_KAFKA_SCAN_H

#include "journal/kafka_client.h"
#include "journal/kafka_format.h"

/* One topic's one partition, fetched from an offset on. */
struct kafka_fetch {
    struct kafka_client *client;
    rd_kafka_topic_t *topic; /* the client's, or another one */
    const char *name;
    bool started;
    rd_kafka_message_t *current;
    size_t taken;                 /* bytes, since the library was last woken */
    bool at_end;                  /* no message has come since the partition's end was met */
    struct kafka_message message; /* borrows from current */
};

int kafka_fetch_start(struct kafka_fetch *f, uint64_t offset, struct err *e);
void kafka_fetch_stop(struct kafka_fetch *f);
void kafka_fetch_release(struct kafka_fetch *f); /* before its client is closed */
/* 1: f->message holds the next one until the next call; 0: none within timeout_ms; -1: ERR_RETRY,
 * or ERR_FATAL if the topic was removed. *out_of_range: the offset is not in the topic; the call
 * says ERR_RETRY then. */
int kafka_fetch_next(struct kafka_fetch *f, int timeout_ms, bool *out_of_range, struct err *e);
/* The one message at this offset, for f->message; the fetch is stopped. */
int kafka_fetch_one(struct kafka_fetch *f, uint64_t offset, struct err *e);

/* Brings m up to the end of the topic as it is now. 1; 0: nothing was ever written. */
int kafka_scan_tail(struct kafka_fetch *f, struct kafka_machine *m, struct err *e);
/* Goes on until m->offset is `end`. The fetch runs on. */
int kafka_scan_to(struct kafka_fetch *f, struct kafka_machine *m, uint64_t end, struct err *e);
/* Brings m before record `number`; the fetch stands at m->offset. ERR_FATAL: trimmed, or beyond
 * the end; 0: nothing was ever written; 1. */
int kafka_scan_find(struct kafka_fetch *f, struct kafka_machine *m, uint64_t number, struct err *e);
/* The state at the first place where a reader may begin: m->next is the oldest record. 1; 0:
 * nothing there. */
int kafka_scan_head(struct kafka_fetch *f, struct kafka_machine *m, struct err *e);

/* ERR_REFUSED if the log is another owner's. */
int kafka_scan_owner(const struct kafka_fetch *f, const struct kafka_machine *m, struct err *e);

#endif
