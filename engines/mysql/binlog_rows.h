/* Planned tables as the binlog tells them, and the rows of row events as changes of the plan. Pure.
 *
 * Columns are matched by name, never by place: a TABLE_MAP that is not the planned shape makes the
 * table unfit until one is again. */
#ifndef LOCKSTEP_ENGINES_MYSQL_BINLOG_ROWS_H
#define LOCKSTEP_ENGINES_MYSQL_BINLOG_ROWS_H

#include "engines/mysql/binlog_map.h"

struct binlog_table {
    const struct table *table;
    struct arena arena; /* of the map, until another one comes */
    uint8_t *raw;       /* the last TABLE_MAP, so that the same one is not judged again */
    size_t raw_len;
    struct binlog_map map;
    size_t *place;     /* of each of the map's columns in the plan */
    const char *unfit; /* why the map is not the plan's, or NULL */
    uint64_t told;     /* number of the transaction in which something was last said of it */
    uint64_t touched;  /* number of the transaction in which a row of it was last handed out */
    const char *named; /* a DDL names it: what is to be said */
    bool truncated;
};

/* Takes a TABLE_MAP (behind its table id) of this table; a NULL plan (`table->table`) fits all. */
int binlog_table_map(struct binlog_table *t, const uint8_t *data, size_t len, struct err *e);
void binlog_table_release(struct binlog_table *t);

/* A row event under way. */
struct binlog_rows {
    const struct binlog_table *table;
    enum change_op op;
    const uint8_t *start; /* of the event's rows */
    const uint8_t *at;
    const uint8_t *end;
    const uint8_t *before; /* which columns the images have */
    const uint8_t *after;
};

/* Behind the post-header: width, bitmaps, rows (`compressed`: MariaDB's, inflated into unpacked,
 * which must live as long as the rows). */
int binlog_rows_open(struct binlog_rows *rows, const struct binlog_table *t, enum change_op op,
                     const uint8_t *data, size_t len, struct err *e);
/* How many bytes width and bitmaps take; 0: truncated. */
size_t binlog_rows_head(enum change_op op, const uint8_t *data, size_t len);
/* 1: a row: *out without its ordinal, or *unfit says why it cannot be one; 0: no more; -1. Values
 * lie in the event or in the arena. */
int binlog_rows_next(struct binlog_rows *rows, struct arena *a, struct change *out,
                     const char **unfit, struct err *e);

#endif
