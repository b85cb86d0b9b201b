/* Rows in bulk: lines out of COPY TO STDOUT, slices into COPY FROM STDIN, and what a large row asks
 * of a connection (design.md §1.5: the permit, and a new connection afterwards, because libpq keeps
 * its buffer). */
#ifndef LOCKSTEP_ENGINES_POSTGRES_BULK_H
#define LOCKSTEP_ENGINES_POSTGRES_BULK_H

#include "engines/postgres/pg.h"

/* A row that is on its way in. From LARGE_ROW on, the permit is taken while the rest of it still
 * comes; it is given back by pg_incoming_done(). */
struct pg_incoming {
    size_t bytes; /* of the unfinished row that have come so far */
    bool permit;
};
/* Call when libpq says that the row is not whole yet, before its input is consumed. */
void pg_incoming_more(struct pg_incoming *in, struct pg_db *db);
/* The row is whole (len bytes). */
void pg_incoming_whole(struct pg_incoming *in, struct pg_db *db, size_t len);
/* The row has been dealt with and its memory freed. */
void pg_incoming_done(struct pg_incoming *in);

/* Lines of a running COPY … TO STDOUT. */
struct pg_lines {
    struct pg_db *db;
    char *line; /* libpq's memory, ours to write into, until the next call */
    size_t len;
    struct pg_incoming incoming;
    bool ended;
    uint64_t rows;  /* the server's count, once ended */
    bool streaming; /* rows came since the last wait */
};
/* Starts the statement, a COPY … TO STDOUT. */
int pg_lines_open(struct pg_lines *l, struct pg_db *db, const char *sql, struct err *e);
/* 1: a line; 0: the end, again and again; -1. */
int pg_lines_next(struct pg_lines *l, struct err *e);
/* Before the end: cancels it, so that the connection can go on (or marks it broken). */
void pg_lines_close(struct pg_lines *l);

/* If a large row went through the connection: replaces it by a new one, outside of transactions.
 * The old one stays where no new one can be had. */
int pg_renew(struct pg_db *db, struct err *e);
/* Ends a COPY FROM STDIN that is under way, so that ROLLBACK can be sent. */
void pg_load_abort(struct pg_db *db);

#endif
