/* The raw binlog dump over a connection of the client library: register, ask for a place, take
 * packets without blocking. */
#ifndef LOCKSTEP_ENGINES_MYSQL_BINLOG_DUMP_H
#define LOCKSTEP_ENGINES_MYSQL_BINLOG_DUMP_H

#include "engines/mysql/my.h"

struct binlog_dump;

/* Opens a connection of its own and begins at {file, offset}; offsets that the protocol's 32 bits
 * cannot say begin at the file's start. */
int binlog_dump_open(const struct db_options *o, struct position from, struct binlog_dump **out,
                     struct err *e);
/* 1: an event, borrowed until the next call; 0: none within timeout_ms; -1. */
int binlog_dump_next(struct binlog_dump *d, int timeout_ms, const uint8_t **event, size_t *len,
                     struct err *e);
/* Has a large event gone through, so that the library's buffer is large? */
/* The last failure was that the file ends in the middle of an event. */
bool binlog_dump_is_torn(const struct binlog_dump *d);
bool binlog_dump_is_large(const struct binlog_dump *d);
void binlog_dump_close(struct binlog_dump *d);

#endif
