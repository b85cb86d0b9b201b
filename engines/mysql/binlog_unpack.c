#include "engines/mysql/binlog_unpack.h"

#include "engines/mysql/binlog_bytes.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

/* zlib gives at most so many bytes for one (RFC 1951: 258 bytes from two bits, and a margin). */
#define INFLATE_MAX_RATIO 1100
#define EVENT_HEADER 19
/* The window that zstd may ask for: what `zstd --ultra` of MySQL's highest level uses. */
#define WINDOW_LOG_MAX 27
#define SLICE ((size_t)256 * 1024)

int binlog_inflate(const uint8_t *data, size_t len, struct buf *out, struct err *e)
{
    struct reader r;
    uint8_t head;
    uint64_t size;
    uLongf got;
    char *place;

    reader_init(&r, data, len);
    head = reader_u8(&r);
    size = binlog_be(&r, head & 0x07 ? head & 0x07 : 1);
    if (r.bad || (head & 0xf8) != 0x80 || (head & 0x07) > 4 || size > BINLOG_EVENT_MAX ||
        size / INFLATE_MAX_RATIO > reader_left(&r))
        return err_set(e, ERR_FATAL, "the binlog has a compressed event in an unknown form");
    place = buf_reserve(out, (size_t)size);
    if (!place)
        return buf_check(out, "a compressed event of the binlog", e);
    got = (uLongf)size;
    if (uncompress((Bytef *)place, &got, r.p, (uLong)reader_left(&r)) != Z_OK || got != size)
        return err_set(e, ERR_FATAL, "the binlog has a compressed event that is damaged");
    out->len += (size_t)size;
    place[size] = '\0';
    return 0;
}

/* ---- TRANSACTION_PAYLOAD ---- */

enum payload_field { PAYLOAD_END, PAYLOAD_SIZE, PAYLOAD_COMPRESSION, PAYLOAD_UNCOMPRESSED };
enum payload_compression { PAYLOAD_ZSTD = 0, PAYLOAD_NONE = 255 };

struct binlog_payload {
    ZSTD_DCtx *zstd; /* NULL: not compressed */
    ZSTD_inBuffer in;
    struct buf event;
};

static int unknown(struct err *e)
{
    return err_set(e, ERR_FATAL, "the binlog has a TRANSACTION_PAYLOAD in an unknown form");
}

int binlog_payload_open(const uint8_t *data, size_t len, struct binlog_payload **out, struct err *e)
{
    uint64_t compression = PAYLOAD_NONE;
    uint64_t size = UINT64_MAX;
    uint64_t field;
    struct reader r;

    *out = NULL;
    reader_init(&r, data, len);
    while ((field = binlog_packed(&r)) != PAYLOAD_END && !r.bad) {
        size_t n;
        const char *value = binlog_string(&r, &n);
        struct reader inner;

        reader_init(&inner, value, n);
        if (field == PAYLOAD_SIZE)
            size = binlog_packed(&inner);
        if (field == PAYLOAD_COMPRESSION)
            compression = binlog_packed(&inner);
        r.bad |= inner.bad;
    }
    if (r.bad || (size != UINT64_MAX && size != reader_left(&r)) ||
        (compression != PAYLOAD_ZSTD && compression != PAYLOAD_NONE))
        return unknown(e);
    *out = calloc(1, sizeof(**out));
    invariant(*out != NULL);
    buf_init(&(*out)->event, BINLOG_EVENT_MAX);
    (*out)->in = (ZSTD_inBuffer){.src = r.p, .size = reader_left(&r)};
    if (compression == PAYLOAD_ZSTD) {
        (*out)->zstd = ZSTD_createDCtx();
        invariant((*out)->zstd != NULL);
        ZSTD_DCtx_setParameter((*out)->zstd, ZSTD_d_windowLogMax, WINDOW_LOG_MAX);
    }
    return 0;
}

/* Fills `to` as far as it goes. */
static int fill(struct binlog_payload *p, ZSTD_outBuffer *to, struct err *e)
{
    while (to->pos < to->size) {
        size_t before = to->pos + p->in.pos;
        size_t rc = 0;

        if (p->zstd) {
            rc = ZSTD_decompressStream(p->zstd, to, &p->in);
        } else {
            size_t left = p->in.size - p->in.pos;
            size_t n = left < to->size - to->pos ? left : to->size - to->pos;

            memcpy((char *)to->dst + to->pos, (const char *)p->in.src + p->in.pos, n);
            p->in.pos += n;
            to->pos += n;
        }
        if (ZSTD_isError(rc))
            return err_set(e, ERR_FATAL, "the binlog has a damaged compressed transaction: %s",
                           ZSTD_getErrorName(rc));
        if (to->pos + p->in.pos == before)
            break;
    }
    return 0;
}

/* Appends n bytes of what the payload holds. 1: done; 0: it ended before the first; -1. In slices,
 * so that memory is taken for what comes and not for what an event claims. */
static int pull(struct binlog_payload *p, size_t n, struct err *e)
{
    size_t got = 0;

    while (got < n) {
        size_t slice = n - got < SLICE ? n - got : SLICE;
        ZSTD_outBuffer to = {.dst = buf_reserve(&p->event, slice), .size = slice};

        if (!to.dst)
            return buf_check(&p->event, "an event of a compressed transaction", e);
        if (fill(p, &to, e) < 0)
            return -1;
        p->event.len += to.pos;
        got += to.pos;
        if (to.pos < slice)
            return got ? unknown(e) : 0;
    }
    return 1;
}

int binlog_payload_next(struct binlog_payload *p, const uint8_t **event, size_t *len, struct err *e)
{
    struct reader r;
    uint64_t size;
    int rc;

    buf_reset(&p->event, EVENT_HEADER * 1024);
    rc = pull(p, EVENT_HEADER, e);
    if (rc <= 0)
        return rc;
    reader_init(&r, p->event.data + 9, 4);
    size = binlog_le(&r, 4);
    if (size < EVENT_HEADER || size > BINLOG_EVENT_MAX)
        return unknown(e);
    if (size > EVENT_HEADER) {
        rc = pull(p, (size_t)size - EVENT_HEADER, e);
        if (rc <= 0)
            return rc < 0 ? -1 : unknown(e);
    }
    *event = (const uint8_t *)p->event.data;
    *len = (size_t)size;
    return 1;
}

void binlog_payload_close(struct binlog_payload *p)
{
    if (!p)
        return;
    ZSTD_freeDCtx(p->zstd);
    buf_release(&p->event);
    free(p);
}
