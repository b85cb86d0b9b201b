#include "journal/kafka_scan.h"

#include "core/run.h"

#include <inttypes.h>
#include <string.h>

/* A search ends when this many messages are left to read through. */
#define SEARCH_NEAR 1024u
#define SEARCH_PROBES 48
/* By position in proportion first, then by halves. */
#define SEARCH_PROPORTIONAL 4
#define POLL_MS 100
/* Of the 4 MiB that the library keeps ready (kafka_client.c). */
#define WAKE_BYTES ((size_t)1024 * 1024)
#define WAKE_MS 200
#define BACKS_OFF_SINCE 0x02020000 /* the version that has fetch.queue.backoff.ms */

/* ---- fetching ---- */

int kafka_fetch_start(struct kafka_fetch *f, uint64_t offset, struct err *e)
{
    kafka_fetch_stop(f);
    rd_kafka_poll(f->client->rk, 0);
    f->client->down = false; /* what was said while nobody asked */
    if (rd_kafka_consume_start(f->topic, 0, (int64_t)offset) < 0)
        return kafka_fail(f->client, rd_kafka_last_error(), "reading it", e);
    f->started = true;
    return 0;
}

static void drop_current(struct kafka_fetch *f)
{
    if (f->current)
        rd_kafka_message_destroy(f->current);
    f->current = NULL;
}

void kafka_fetch_stop(struct kafka_fetch *f)
{
    if (f->started && !f->client->topic_gone)
        rd_kafka_consume_stop(f->topic, 0);
    f->started = false;
}

void kafka_fetch_release(struct kafka_fetch *f)
{
    drop_current(f);
    kafka_fetch_stop(f);
}

static void take_headers(struct kafka_fetch *f)
{
    struct kafka_message *m = &f->message;
    rd_kafka_headers_t *headers = NULL;
    const char *name;
    const void *value;
    size_t len;

    if (rd_kafka_message_headers(f->current, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR)
        return;
    for (size_t i = 0;
         rd_kafka_header_get_all(headers, i, &name, &value, &len) == RD_KAFKA_RESP_ERR_NO_ERROR;
         i++) {
        if (strcmp(name, KAFKA_HEADER) == 0) {
            m->header = value;
            m->header_len = len;
        } else if (strcmp(name, KAFKA_HEADER_NOTE) == 0) {
            m->note = value;
            m->note_len = len;
        } else if (strcmp(name, KAFKA_HEADER_OWNER) == 0) {
            m->owner = value;
            m->owner_len = len;
        }
    }
}

static int fail_unknown(struct kafka_fetch *f, struct err *e)
{
    int found = kafka_topic_exists(f->client, f->name, e);

    if (found < 0)
        return -1;
    if (found > 0)
        return err_set(e, ERR_RETRY, "topic %s was not known to the broker", f->name);
    f->client->topic_gone = true;
    return kafka_topic_lost(f->client, f->name, e);
}

static int fetch_failed(struct kafka_fetch *f, bool *out_of_range, struct err *e)
{
    rd_kafka_resp_err_t error = f->current->err;

    if (error == RD_KAFKA_RESP_ERR__PARTITION_EOF || error == RD_KAFKA_RESP_ERR__TIMED_OUT ||
        error == RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT)
        return 0;
    *out_of_range = error == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET ||
                    error == RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE;
    if (error == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART ||
        error == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC || error == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION)
        return fail_unknown(f, e);
    return kafka_fail(f->client, error, "reading it", e);
}

/* librdkafka 2.0 stops asking when its queue is full, and does not look at the queue again before
 * something happens to its connection, or a second has passed; later versions have a setting
 * (fetch.queue.backoff.ms). A question on that connection is such a thing. */
static void wake_up(struct kafka_fetch *f)
{
    int64_t low;
    int64_t high;

    f->taken = 0;
    (void)rd_kafka_query_watermark_offsets(f->client->rk, f->name, 0, &low, &high, WAKE_MS);
}

int kafka_fetch_next(struct kafka_fetch *f, int timeout_ms, bool *out_of_range, struct err *e)
{
    int rc;

    drop_current(f);
    f->message = (struct kafka_message){0};
    *out_of_range = false;
    if (f->taken >= WAKE_BYTES && !f->at_end && rd_kafka_version() < BACKS_OFF_SINCE)
        wake_up(f);
    f->current = rd_kafka_consume(f->topic, 0, timeout_ms);
    if (!f->current)
        return kafka_client_check(f->client, e);
    if (f->current->err) {
        f->at_end = f->current->err == RD_KAFKA_RESP_ERR__PARTITION_EOF;
        rc = fetch_failed(f, out_of_range, e);
        drop_current(f);
        return rc;
    }
    f->message.offset = f->current->offset;
    f->message.value = f->current->payload;
    f->message.len = f->current->payload ? f->current->len : 0;
    f->taken += f->message.len;
    f->at_end = false;
    take_headers(f);
    return 1;
}

/* The next message, waited for as long as a broker may take. */
static int fetch_await(struct kafka_fetch *f, struct err *e)
{
    int64_t end = mono_ms() + KAFKA_ANSWER_MS;
    bool out_of_range;
    int got = 0;

    while (got == 0 && mono_ms() < end) {
        if (stop_check(e) < 0)
            return -1;
        got = kafka_fetch_next(f, POLL_MS, &out_of_range, e);
    }
    if (got == 0)
        return err_set(e, ERR_RETRY, "topic %s at %s: the broker sends nothing", f->name,
                       f->client->brokers);
    return got;
}

int kafka_fetch_one(struct kafka_fetch *f, uint64_t offset, struct err *e)
{
    int got = kafka_fetch_start(f, offset, e);

    if (got == 0)
        got = fetch_await(f, e);
    kafka_fetch_stop(f);
    return got < 0 ? -1 : 0;
}

/* ---- the machine over it ---- */

int kafka_scan_to(struct kafka_fetch *f, struct kafka_machine *m, uint64_t end, struct err *e)
{
    struct kafka_header h;

    while (m->offset < end) {
        if (fetch_await(f, e) < 0 ||
            kafka_machine_step(m, f->name, &f->message, &h, e) == KAFKA_STEP_ERROR)
            return -1;
    }
    return 0;
}

static int fail_emptied(const struct kafka_fetch *f, struct err *e)
{
    err_set(e, ERR_FATAL, "topic %s was emptied by somebody else", f->name);
    return err_hint(e, "records are lost: abandon this migration (lockstep finish --abandon) and "
                       "start anew");
}

/* A message can only name one that stands before it. */
static int check_ref(const struct kafka_fetch *f, const struct kafka_header *h, uint64_t offset,
                     struct err *e)
{
    if (h->ref < offset || h->ref == 0)
        return 0;
    err_set(e, ERR_FATAL,
            "topic %s was made anew: offset %" PRIu64 " names a message that would stand behind it",
            f->name, offset);
    return err_hint(e, "what stood in it is lost: abandon this migration (lockstep finish "
                       "--abandon) and start anew");
}

/* Where the last message says that a scan may begin. A foreign message knows nothing: then the one
 * before it, in growing steps. */
static int last_ref(struct kafka_fetch *f, uint64_t first, uint64_t end, struct kafka_header *h,
                    struct err *e)
{
    for (uint64_t back = 1; back <= end - first; back *= 2) {
        if (kafka_fetch_one(f, end - back, e) < 0)
            return -1;
        if (f->message.header && kafka_header_read(f->message.header, f->message.header_len, h))
            return check_ref(f, h, end - back, e);
    }
    *h = (struct kafka_header){.ref = first};
    return 0;
}

/* The machine behind the message at this offset, a STATE or the very first OPEN. */
static int begin_at(struct kafka_fetch *f, struct kafka_machine *m, uint64_t offset, struct err *e)
{
    *m = (struct kafka_machine){.offset = offset};
    if (kafka_fetch_start(f, offset, e) < 0)
        return -1;
    return kafka_scan_to(f, m, offset + 1, e);
}

/* The same at the first place where it may, as no message says one that is kept. That is the first
 * message, where trimming ended. But brokers note where a log begins once a minute only: one that
 * is killed goes by its files, and shows again what stood before in the oldest one, whose beginning
 * is any message. Then it is the first STATE that a later message names. */
static int begin_first(struct kafka_fetch *f, struct kafka_machine *m, uint64_t first, uint64_t end,
                       struct err *e)
{
    struct kafka_header h;

    *m = (struct kafka_machine){.offset = first};
    if (kafka_fetch_start(f, first, e) < 0)
        return -1;
    for (uint64_t at = first; at < end; at++) {
        bool ours;

        if (fetch_await(f, e) < 0)
            return -1;
        ours = f->message.header && kafka_header_read(f->message.header, f->message.header_len, &h);
        if (at == first && (!ours || kafka_header_begins(&h, first)))
            break;
        if (ours && h.ref >= first && h.ref < at)
            return begin_at(f, m, h.ref, e);
        if (at + 1 == end) /* what stands at its beginning tells what is wrong */
            return begin_at(f, m, first, e);
    }
    return kafka_machine_step(m, f->name, &f->message, &h, e) == KAFKA_STEP_ERROR ? -1 : 0;
}

/* 1, 0: no topic or an empty one, -1. */
static int ends_of(struct kafka_fetch *f, uint64_t *first, uint64_t *end, struct err *e)
{
    int found = kafka_topic_ends(f->client, f->name, first, end, e);

    if (found < 1 || *first < *end)
        return found;
    return *end ? fail_emptied(f, e) : 0;
}

int kafka_scan_tail(struct kafka_fetch *f, struct kafka_machine *m, struct err *e)
{
    struct kafka_header h;
    uint64_t first;
    uint64_t end;
    int found = ends_of(f, &first, &end, e);

    if (found < 1)
        return found;
    if (last_ref(f, first, end, &h, e) < 0 ||
        (h.ref > first ? begin_at(f, m, h.ref, e) : begin_first(f, m, first, end, e)) < 0)
        return -1;
    return kafka_scan_to(f, m, end, e) < 0 ? -1 : 1;
}

int kafka_scan_head(struct kafka_fetch *f, struct kafka_machine *m, struct err *e)
{
    uint64_t first;
    uint64_t end;
    int found = ends_of(f, &first, &end, e);

    if (found < 1)
        return found;
    if (begin_first(f, m, first, end, e) < 0)
        return -1;
    kafka_fetch_stop(f);
    return 1;
}

/* ---- finding a record ---- */

struct search {
    uint64_t number; /* wanted */
    uint64_t low;    /* offset of a message whose ref does not lie behind the record */
    uint64_t low_number;
    uint64_t high; /* of one whose ref does */
    uint64_t high_number;
    uint64_t best; /* the ref to begin at */
};

static uint64_t next_probe(const struct search *s, int probes)
{
    uint64_t width = s->high - s->low;
    uint64_t step = width / 2;

    if (probes < SEARCH_PROPORTIONAL && s->high_number > s->low_number)
        step = (uint64_t)((double)width * (double)(s->number - s->low_number) /
                          (double)(s->high_number - s->low_number));
    if (step == 0 || step >= width)
        step = width / 2;
    return s->low + step;
}

/* Every ref tells the truth, also a zombie's, so whatever the search ends with is a place from
 * where the record is reached; only how near depends on the messages met. */
static int search(struct kafka_fetch *f, struct search *s, struct err *e)
{
    for (int i = 0; i < SEARCH_PROBES && s->high - s->low > SEARCH_NEAR; i++) {
        uint64_t probe = next_probe(s, i);
        struct kafka_header h;

        if (kafka_fetch_one(f, probe, e) < 0)
            return -1;
        if (!f->message.header ||
            !kafka_header_read(f->message.header, f->message.header_len, &h) ||
            h.ref_number > s->number) {
            s->high = probe;
            s->high_number = f->message.header ? h.ref_number : s->high_number;
            continue;
        }
        if (check_ref(f, &h, probe, e) < 0)
            return -1;
        s->low = probe;
        s->low_number = h.ref_number;
        s->best = h.ref > s->best ? h.ref : s->best;
    }
    return 0;
}

/* Goes on from the best place to the record itself. */
static int walk(struct kafka_fetch *f, struct kafka_machine *m, uint64_t number, uint64_t end,
                struct err *e)
{
    for (;;) {
        if (m->next > number)
            return err_set(e, ERR_FATAL,
                           "topic %s: record %" PRIu64 " was trimmed; the first kept is %" PRIu64,
                           f->name, number, m->next);
        if (m->next == number && m->next_part == 0)
            return 1;
        if (m->offset >= end)
            break;
        if (kafka_scan_to(f, m, m->offset + 1, e) < 0)
            return -1;
    }
    return err_set(e, ERR_FATAL,
                   "topic %s: record %" PRIu64 " lies beyond the end; the next is %" PRIu64,
                   f->name, number, m->next);
}

int kafka_scan_find(struct kafka_fetch *f, struct kafka_machine *m, uint64_t number, struct err *e)
{
    struct search s = {.number = number};
    struct kafka_header h;
    uint64_t first;
    uint64_t end;
    int found = ends_of(f, &first, &end, e);

    if (found < 1)
        return found;
    s.low = first;
    s.best = first;
    s.high = end - 1;
    if (last_ref(f, first, end, &h, e) < 0)
        return -1;
    if (h.ref_number <= number) {
        s.best = h.ref > s.best ? h.ref : s.best;
    } else {
        s.high_number = h.ref_number;
        if (search(f, &s, e) < 0)
            return -1;
    }
    if ((s.best > first ? begin_at(f, m, s.best, e) : begin_first(f, m, first, end, e)) < 0)
        return -1;
    return walk(f, m, number, end, e);
}

/* ---- whose it is ---- */

int kafka_scan_owner(const struct kafka_fetch *f, const struct kafka_machine *m, struct err *e)
{
    const char *mine = f->client->o->owner;

    if (!mine || !m->owner[0] || strcmp(mine, m->owner) == 0)
        return 0;
    err_set(e, ERR_REFUSED, "topic %s at %s is the journal of another migration of this name (%s)",
            f->name, f->client->brokers, m->owner);
    return err_hint(e, "give this migration another name, or end the other one (lockstep finish)");
}
