/* What the binlog's tests, its zoo and its fuzz target share: a plan written as text, and bytes of
 * a binlog file fed to the machine as a server would send them. */
#ifndef LOCKSTEP_TESTS_MY_BINLOG_SUPPORT_H
#define LOCKSTEP_TESTS_MY_BINLOG_SUPPORT_H

#include "engines/mysql/binlog.h"

#include <stdlib.h>
#include <string.h>

#define PLAN_COLUMNS_MAX 200

static inline char *plan_word(struct arena *a, char **line)
{
    char *word = strsep(line, "\t\n");

    return arena_strdup(a, word ? word : "");
}

/* A line each: "schema name" and behind it its columns, each with a tab in front of each word:
 * "name kind source_type precision scale length fraction key generated". */
static inline void plan_column(struct arena *a, char *line, struct table *t)
{
    struct column *c = &t->columns[t->ncolumns];

    c->name = plan_word(a, &line);
    c->kind = (enum type_kind)type_kind_parse(plan_word(a, &line));
    c->source_type = plan_word(a, &line);
    c->precision = atoi(plan_word(a, &line));
    c->scale = atoi(plan_word(a, &line));
    c->length = atoi(plan_word(a, &line));
    c->fraction = atoi(plan_word(a, &line));
    c->key = atoi(plan_word(a, &line));
    c->generated = atoi(plan_word(a, &line)) > 0;
    if (c->key > 0 && c->key <= PLAN_COLUMNS_MAX) {
        t->key[c->key - 1] = t->ncolumns;
        t->nkey++;
    }
    t->ncolumns++;
}

/* A table's line has no tab in front, its columns' lines have one. text is changed. */
static inline void plan_parse(struct arena *a, char *text, struct table_list *out)
{
    struct table *t = NULL;
    char *line;

    out->n = 0;
    out->v = arena_zalloc(a, 100 * sizeof(*out->v));
    while ((line = strsep(&text, "\n")) != NULL) {
        if (*line == '\t' && t && t->ncolumns < PLAN_COLUMNS_MAX) {
            plan_column(a, line + 1, t);
        } else if (*line && out->n < 100) {
            t = arena_zalloc(a, sizeof(*t));
            t->schema = plan_word(a, &line);
            t->name = plan_word(a, &line);
            t->columns = arena_zalloc(a, PLAN_COLUMNS_MAX * sizeof(*t->columns));
            t->key = arena_zalloc(a, PLAN_COLUMNS_MAX * sizeof(*t->key));
            out->v[out->n++] = t;
        }
    }
}

/* The server's first word: where it begins. */
static inline int feed_place(struct binlog *b, const char *file, struct err *e)
{
    uint8_t event[100] = {[4] = BE_ROTATE, [17] = 0x20, [19] = 4};
    size_t len = 19 + 8 + strlen(file);

    memcpy(event + 27, file, strlen(file));
    event[9] = (uint8_t)len;
    return binlog_take(b, event, len, e);
}

/* What happens with each event that comes out. */
typedef void feed_fn(void *arg, const struct event *ev);

static inline int feed_out(struct binlog *b, feed_fn *out, void *arg, struct err *e)
{
    struct event ev;
    int rc;

    while ((rc = binlog_next(b, &ev, e)) > 0)
        out(arg, &ev);
    return rc;
}

/* A whole file behind its four bytes of magic. */
static inline int feed_file(struct binlog *b, const uint8_t *data, size_t len, feed_fn *out,
                            void *arg, struct err *e)
{
    size_t at = 4;

    if (feed_place(b, "binlog.000001", e) < 0)
        return -1;
    while (at + 19 <= len) {
        const uint8_t *p = data + at;
        size_t n = (size_t)p[9] | (size_t)p[10] << 8 | (size_t)p[11] << 16 | (size_t)p[12] << 24;

        if (n < 19 || n > len - at)
            return 0;
        if (binlog_take(b, p, n, e) < 0 || feed_out(b, out, arg, e) < 0)
            return -1;
        at += n;
    }
    return 0;
}

/* The file's bytes; NULL: not there. */
static inline uint8_t *read_bytes(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    struct buf all;
    char block[65536];
    size_t n;

    if (!f)
        return NULL;
    buf_init(&all, BUF_MAX_ROW);
    while ((n = fread(block, 1, sizeof(block), f)) > 0)
        buf_add(&all, block, n);
    fclose(f);
    *len = all.len;
    return (uint8_t *)all.data;
}

#endif
