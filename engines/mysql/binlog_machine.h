/* Private to binlog*.c: the machine's state, and an event on its way through it. */
#ifndef LOCKSTEP_ENGINES_MYSQL_BINLOG_MACHINE_H
#define LOCKSTEP_ENGINES_MYSQL_BINLOG_MACHINE_H

#include "engines/mysql/binlog.h"
#include "engines/mysql/binlog_rows.h"
#include "engines/mysql/binlog_unpack.h"

#include "core/run.h"

#define GTID_TEXT 80
/* A statement of the server locks no more tables than this. */
#define BINLOG_MAPS_MAX 4096

struct header {
    uint32_t ts;
    uint8_t type;
    uint32_t server;
    uint32_t len;
    uint32_t end; /* low half of where it ends; 0: it is not in the log */
    uint16_t flags;
};

/* An event to be dealt with: its header, and what is behind it without the checksum. */
struct part {
    struct header h;
    const uint8_t *data; /* the whole event */
    size_t len;
    struct reader body;
};

/* Where the rows of a table id go. */
enum map_use { MAP_PLANNED, MAP_FOREIGN, MAP_ORIGIN, MAP_MARK };
struct map_entry {
    uint64_t id;
    enum map_use use;
    struct binlog_table *table; /* PLANNED, MARK */
};

struct binlog {
    struct arena life;
    struct arena row;    /* of the event that was handed out last */
    struct buf unpacked; /* of a compressed event */
    size_t n;
    struct binlog_table *tables; /* the plan */
    struct binlog_table mark;    /* lockstep.mark */
    struct binlog_table origin;  /* lockstep.origin */
    char *migration;             /* whose rows of it are ours */
    char from_migration[64];     /* of the origin's row that was read last */
    uint32_t epoch;
    struct position from;
    struct position reported; /* by EVENT_POSITION, MARK or COMMIT */
    uint64_t file;
    uint64_t offset; /* behind the last event */
    bool placed;     /* the server has said where it begins */
    bool described;  /* a FORMAT_DESCRIPTION has come */
    bool checksum;
    uint8_t post_header[256];
    /* The group under way, from its GTID to its end. */
    bool in_group;
    bool multi; /* it goes on until a commit; else one statement is all */
    bool begun; /* BEGIN has been handed out */
    bool rows_seen;
    bool ours;
    bool branch;     /* XA: its outcome is told later */
    bool ending;     /* the group's end is to be handed out */
    bool cut;        /* its file ended before it did: that is to be handed out */
    uint64_t number; /* of groups, for `told` */
    uint64_t volume; /* bytes of the group before this event: ordinals count from here */
    char gtid[GTID_TEXT];
    char token[200];
    char reason[200]; /* of the cut */
    struct txn txn;
    struct map_entry *maps;
    size_t nmaps;
    bool maps_stale;
    /* What is to be handed out of the event under way. */
    bool has_rows;
    struct binlog_rows rows;
    uint64_t rows_ordinal;
    bool held; /* a change waits behind its BEGIN */
    struct event hold;
    bool naming;
    size_t named_at;
    bool idle; /* a position */
    struct binlog_payload *payload;
};

static inline struct position binlog_here(const struct binlog *b)
{
    return (struct position){b->file, b->offset};
}
int binlog_bad_format(const char *what, struct err *e);
/* An event that stands only inside of a transaction. */
int binlog_need_group(const struct binlog *b, const char *what, struct err *e);

/* The dealing with one kind of event: binlog_group.c, binlog_statement.c. */
typedef int binlog_handler(struct binlog *b, struct part *ev, struct err *e);
/* A file ends while a group is under way. */
void binlog_group_cut(struct binlog *b);
binlog_handler binlog_on_maria_gtid, binlog_on_gtid, binlog_on_tagged_gtid, binlog_on_commit,
    binlog_on_xa_prepare, binlog_on_table_map, binlog_on_rows, binlog_on_query;

#endif
