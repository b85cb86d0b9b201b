/* Snapshots whose place in the binlog is exact. */
#ifndef LOCKSTEP_ENGINES_MYSQL_SNAPSHOT_H
#define LOCKSTEP_ENGINES_MYSQL_SNAPSHOT_H

#include "engines/mysql/my.h"

/* Opens a repeatable, read-only transaction on db (which has none): it sees exactly the
 * transactions that begin before *at in the binlog. */
int my_snapshot_open(struct my_db *db, struct position *at, struct err *e);
/* 0 only once everything before `at` would survive a crash of the server. */
int my_snapshot_durable(struct my_db *db, struct position at, struct err *e);

/* Frees a stream of rows. A short rest of it is read first: only a long one is worth telling the
 * server to stop. */
void my_rows_end(struct my_db *db, MYSQL_RES *res);

#endif
