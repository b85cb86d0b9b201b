/* What the binlog carries compressed. Pure; memory is bounded by the largest event. */
#ifndef LOCKSTEP_ENGINES_MYSQL_BINLOG_UNPACK_H
#define LOCKSTEP_ENGINES_MYSQL_BINLOG_UNPACK_H

#include "core/arena.h"
#include "core/buf.h"

/* No event is larger than the server's largest packet. */
#define BINLOG_EVENT_MAX ((size_t)1024 * 1024 * 1024 + 65536)

/* MariaDB's form (log_bin_compress): a byte with the size of the length, the length, zlib. Appends
 * to out. */
int binlog_inflate(const uint8_t *data, size_t len, struct buf *out, struct err *e);

/* MySQL's TRANSACTION_PAYLOAD: events without checksums, compressed together with zstd. They are
 * taken out one by one. */
struct binlog_payload;
/* The event's body. data stays borrowed until the end. */
int binlog_payload_open(const uint8_t *data, size_t len, struct binlog_payload **out,
                        struct err *e);
/* 1: the next event, whole, borrowed until the next call; 0: the end; -1. */
int binlog_payload_next(struct binlog_payload *p, const uint8_t **event, size_t *len,
                        struct err *e);
void binlog_payload_close(struct binlog_payload *p);

#endif
