/* The binlog as the stages' events: a pure machine over the bytes of binlog events (MySQL manual,
 * "The Binary Log", and MySQL's and MariaDB's event headers), fed one event at a time in the order
 * in which a server sends them. It knows nothing of connections, so that tests and the fuzz target
 * drive the very same code.
 *
 * One normal course: GTID (a transaction begins, `commit` is where), TABLE_MAP, row events, XID (it
 * ends, `next` is behind it). BEGIN is handed out with the first change that concerns the plan; a
 * transaction without one is only a position. Three things matter. (1) A transaction whose first
 * row is this migration's in lockstep.origin is our own and left out whole. (2) Rows are handed out
 * one by one, so that memory is bounded by the largest event, and can not be taken back: a
 * transaction that rolls back what it logged, or whose outcome is told later (XA), is refused when
 * it touches a planned table. (3) What is not understood and could carry rows stops the stream;
 * nothing is skipped. (4) A server that dies while it writes a transaction leaves a file that ends
 * inside of it, and goes on in the next one: what was handed out of that transaction is taken back
 * by EVENT_ABORT. */
#ifndef LOCKSTEP_ENGINES_MYSQL_BINLOG_H
#define LOCKSTEP_ENGINES_MYSQL_BINLOG_H

#include "engines/engine.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The numbers of events (enum Log_event_type), as far as they are known to us. */
enum binlog_event {
    BE_QUERY = 2,
    BE_STOP = 3,
    BE_ROTATE = 4,
    BE_INTVAR = 5,
    BE_APPEND_BLOCK = 9,
    BE_DELETE_FILE = 11,
    BE_RAND = 13,
    BE_USER_VAR = 14,
    BE_FORMAT = 15,
    BE_XID = 16,
    BE_BEGIN_LOAD = 17,
    BE_EXECUTE_LOAD = 18,
    BE_TABLE_MAP = 19,
    BE_WRITE_V1 = 23,
    BE_UPDATE_V1 = 24,
    BE_DELETE_V1 = 25,
    BE_INCIDENT = 26,
    BE_HEARTBEAT = 27,
    BE_IGNORABLE = 28,
    BE_ROWS_QUERY = 29,
    BE_WRITE = 30,
    BE_UPDATE = 31,
    BE_DELETE = 32,
    BE_GTID = 33,
    BE_ANONYMOUS_GTID = 34,
    BE_PREVIOUS_GTIDS = 35,
    BE_TRANSACTION_CONTEXT = 36,
    BE_VIEW_CHANGE = 37,
    BE_XA_PREPARE = 38,
    BE_PARTIAL_UPDATE = 39,
    BE_PAYLOAD = 40,
    BE_HEARTBEAT_V2 = 41,
    BE_TAGGED_GTID = 42,
    BE_MARIA_ANNOTATE = 160,
    BE_MARIA_CHECKPOINT = 161,
    BE_MARIA_GTID = 162,
    BE_MARIA_GTID_LIST = 163,
    BE_MARIA_ENCRYPTION = 164,
    BE_MARIA_QUERY = 165, /* compressed, as are the following */
    BE_MARIA_WRITE_V1 = 166,
    BE_MARIA_UPDATE_V1 = 167,
    BE_MARIA_DELETE_V1 = 168,
    BE_MARIA_WRITE = 169,
    BE_MARIA_UPDATE = 170,
    BE_MARIA_DELETE = 171
};

struct binlog;

/* Copies the tables. migration: what it loaded and applied here itself is left out. from: {file
 * number, offset}; events before it are stepped over. */
struct binlog *binlog_new(const struct table_list *tables, const char *migration, uint32_t epoch,
                          struct position from);
void binlog_free(struct binlog *b);

/* Takes the next event, header to checksum; binlog_next has to have answered 0. It is borrowed
 * until binlog_next answers 0 again. */
int binlog_take(struct binlog *b, const uint8_t *event, size_t len, struct err *e);
/* 1: *out, borrowed until the next call; 0: nothing (more) in what was taken; -1. */
int binlog_next(struct binlog *b, struct event *out, struct err *e);

/* Outside of transactions: where the log goes on. */
bool binlog_between(const struct binlog *b, struct position *out);
/* The number of the file under way. */
uint64_t binlog_file(const struct binlog *b);
/* The file under way ends in the middle of an event, and the server has begun the next one: what
 * stood unfinished at its end is handed out as EVENT_ABORT, then binlog_restart goes on there.
 * ERR_FATAL if it ends before the place to go on from: its tail is lost. */
int binlog_torn(struct binlog *b, struct err *e);
/* A new connection begins at that place (or at the file's begin): format and file are told anew. */
void binlog_restart(struct binlog *b);

#endif
