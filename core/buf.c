#include "core/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUF_FIRST_SIZE 256u
/* Below this a buffer doubles; above it grows by a quarter, so that a large row costs little more
 * than itself. */
#define BUF_DOUBLING_LIMIT (4u * 1024u * 1024u)

void buf_init(struct buf *b, size_t max)
{
    memset(b, 0, sizeof(*b));
    b->max = max;
}

void buf_release(struct buf *b)
{
    free(b->data);
    buf_init(b, b->max);
}

void buf_reset(struct buf *b, size_t keep)
{
    if (b->cap > keep) {
        free(b->data);
        b->data = NULL;
        b->cap = 0;
    }
    b->len = 0;
    b->overflow = false;
    if (b->data)
        b->data[0] = '\0';
}

char *buf_reserve(struct buf *b, size_t n)
{
    size_t need = b->len + n + 1;
    size_t cap = b->cap ? b->cap : BUF_FIRST_SIZE;
    char *data;

    if (b->overflow || need < n || need > b->max) {
        b->overflow = true;
        return NULL;
    }
    if (need <= b->cap)
        return b->data + b->len;
    while (cap < need)
        cap += cap < BUF_DOUBLING_LIMIT ? cap : cap / 4;
    if (need > BUF_DOUBLING_LIMIT && cap > need + need / 8)
        cap = need;
    data = realloc(b->data, cap);
    invariant(data != NULL);
    b->data = data;
    b->cap = cap;
    return b->data + b->len;
}

void buf_add(struct buf *b, const void *data, size_t len)
{
    char *p = buf_reserve(b, len);

    if (!p)
        return;
    if (len)
        memcpy(p, data, len);
    b->len += len;
    b->data[b->len] = '\0';
}

void buf_adds(struct buf *b, const char *s)
{
    buf_add(b, s, strlen(s));
}

void buf_addc(struct buf *b, char c)
{
    char *p = b->len + 1 < b->cap && !b->overflow ? b->data + b->len : buf_reserve(b, 1);

    if (!p)
        return;
    p[0] = c;
    p[1] = '\0';
    b->len++;
}

void buf_addf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    char *p;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    invariant(n >= 0);
    p = buf_reserve(b, (size_t)n);
    if (!p)
        return;
    va_start(ap, fmt);
    vsnprintf(p, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)n;
}

int buf_check(const struct buf *b, const char *what, struct err *e)
{
    if (!b->overflow)
        return 0;
    return err_set(e, ERR_FATAL, "%s does not fit into %zu bytes", what, b->max);
}

void reader_init(struct reader *r, const void *data, size_t len)
{
    r->p = data;
    r->end = r->p ? r->p + len : r->p;
    r->bad = false;
}

size_t reader_left(const struct reader *r)
{
    return r->bad ? 0 : (size_t)(r->end - r->p);
}

const uint8_t *reader_bytes(struct reader *r, size_t n)
{
    const uint8_t *p = r->p;

    if (r->bad || (size_t)(r->end - r->p) < n) {
        r->bad = true;
        return NULL;
    }
    r->p += n;
    return p;
}

static uint64_t reader_be(struct reader *r, size_t n)
{
    const uint8_t *p = reader_bytes(r, n);
    uint64_t v = 0;

    for (size_t i = 0; p && i < n; i++)
        v = v << 8 | p[i];
    return v;
}

uint8_t reader_u8(struct reader *r)
{
    return (uint8_t)reader_be(r, 1);
}

uint16_t reader_be16(struct reader *r)
{
    return (uint16_t)reader_be(r, 2);
}

uint32_t reader_be32(struct reader *r)
{
    return (uint32_t)reader_be(r, 4);
}

uint64_t reader_be64(struct reader *r)
{
    return reader_be(r, 8);
}

int64_t reader_zigzag(struct reader *r)
{
    uint64_t v = 0;

    for (unsigned shift = 0; shift < 64; shift += 7) {
        const uint8_t *p = reader_bytes(r, 1);

        if (!p)
            return 0;
        v |= (uint64_t)(*p & 0x7f) << shift;
        if (!(*p & 0x80))
            return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
    }
    r->bad = true;
    return 0;
}

const char *reader_cstr(struct reader *r)
{
    const uint8_t *nul = r->bad ? NULL : memchr(r->p, 0, (size_t)(r->end - r->p));
    const char *s = (const char *)r->p;

    if (!nul) {
        r->bad = true;
        return NULL;
    }
    r->p = nul + 1;
    return s;
}
