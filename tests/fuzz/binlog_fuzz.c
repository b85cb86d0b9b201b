/* Any bytes as events of a binlog: refused, or decoded with everything inside the input. The input
 * is events without header, each as type, length (two bytes) and body, so that headers and places
 * are right and the bodies are what is tried. Seeds in corpus/binlog were recorded from a server
 * (tests/binlog/zoo.sql). */
#include <stdio.h>

#include "tests/fuzz/binlog_plan.h"
#include "tests/unit/my_binlog_support.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define POST_HEADERS 171
#define FIRST 4

static void put32(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 4; i++, v >>= 8)
        p[i] = (uint8_t)v;
}

static size_t touch(const struct row *r)
{
    size_t sum = 0;

    for (size_t i = 0; r && i < r->n; i++) {
        for (size_t k = 0; r->v[i].state == VALUE_SET && k < r->v[i].len; k++)
            sum += (unsigned char)r->v[i].data[k];
    }
    return sum;
}

static void out(void *arg, const struct event *ev)
{
    size_t *sum = arg;

    if (ev->kind == EVENT_CHANGE)
        *sum += touch(ev->change.before) + touch(ev->change.after);
    if (ev->kind == EVENT_TABLE)
        *sum += strlen(ev->reason);
    invariant(ev->kind != EVENT_COMMIT || position_cmp(ev->txn.commit, ev->next) < 0);
}

/* One event in memory of its exact size. */
static int feed(struct binlog *b, uint8_t type, const uint8_t *body, size_t len, uint64_t *at,
                size_t *sum)
{
    uint8_t *event = calloc(1, 19 + len);
    struct err e = {0};
    int rc;

    invariant(event != NULL);
    event[4] = type;
    put32(event + 9, 19 + len);
    *at += 19 + len;
    put32(event + 13, *at);
    memcpy(event + 19, body, len);
    rc = binlog_take(b, event, 19 + len, &e);
    if (rc == 0)
        rc = feed_out(b, out, sum, &e);
    free(event);
    return rc;
}

static int feed_format(struct binlog *b, uint64_t *at, size_t *sum)
{
    uint8_t body[2 + 50 + 4 + 1 + POST_HEADERS + 1 + 4] = {[0] = 4, [56] = 19};

    memset(body + 57, 8, POST_HEADERS);
    body[56 + BE_QUERY] = 13;
    body[56 + BE_EXECUTE_LOAD] = 26;
    for (int i = BE_WRITE; i <= BE_DELETE; i++)
        body[56 + i] = 10;
    for (int i = BE_MARIA_WRITE; i <= BE_MARIA_DELETE; i++)
        body[56 + i] = 10;
    return feed(b, BE_FORMAT, body, sizeof(body), at, sum);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a = ARENA_INIT;
    char *text = strdup(zoo_plan);
    struct table_list plan;
    struct binlog *b;
    uint64_t at = FIRST;
    size_t sum = 0;
    struct err e = {0};

    plan_parse(&a, text, &plan);
    b = binlog_new(&plan, "fuzz", 1, (struct position){1, FIRST});
    invariant(feed_place(b, "binlog.000001", &e) == 0 && feed_format(b, &at, &sum) == 0);
    for (size_t i = 0; i + 3 <= size;) {
        size_t len = (size_t)data[i + 1] | (size_t)data[i + 2] << 8;

        if (len > size - i - 3)
            len = size - i - 3;
        if (feed(b, data[i], data + i + 3, len, &at, &sum) < 0)
            break;
        i += 3 + len;
    }
    invariant(sum < SIZE_MAX);
    binlog_free(b);
    free(text);
    arena_release(&a);
    return 0;
}
