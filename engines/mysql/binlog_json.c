/* MySQL's binary JSON (MySQL source, sql-common/json_binary.h), printed as the server prints it:
 * ", " and ": " between, keys in the stored order. Opaque values are its decimals and times. */
#include "engines/mysql/binlog_value.h"

#include "engines/mysql/binlog_bytes.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define DEPTH_MAX 100 /* the server's own */

enum json_type {
    JSON_SMALL_OBJECT_B = 0,
    JSON_LARGE_OBJECT_B = 1,
    JSON_SMALL_ARRAY_B = 2,
    JSON_LARGE_ARRAY_B = 3,
    JSON_LITERAL_B = 4,
    JSON_INT16_B = 5,
    JSON_UINT16_B = 6,
    JSON_INT32_B = 7,
    JSON_UINT32_B = 8,
    JSON_INT64_B = 9,
    JSON_UINT64_B = 10,
    JSON_DOUBLE_B = 11,
    JSON_STRING_B = 12,
    JSON_OPAQUE_B = 15
};

static bool put_value(struct buf *out, uint8_t type, const uint8_t *data, size_t len, int depth);

static void put_string(struct buf *out, const char *s, size_t len)
{
    static const char plain[] = "\"\\\b\f\n\r\t";
    static const char letter[] = "\"\\bfnrt";

    buf_addc(out, '"');
    for (size_t i = 0; i < len; i++) {
        const char *at = s[i] ? strchr(plain, s[i]) : NULL;

        if (at)
            buf_addf(out, "\\%c", letter[at - plain]);
        else if ((uint8_t)s[i] < 0x20)
            buf_addf(out, "\\u%04x", (uint8_t)s[i]);
        else
            buf_addc(out, s[i]);
    }
    buf_addc(out, '"');
}

/* Seven bits a byte, the lowest first. */
static size_t take_length(struct reader *r)
{
    uint64_t n = 0;

    for (unsigned shift = 0; shift < 35; shift += 7) {
        uint8_t b = reader_u8(r);

        n |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80))
            break;
    }
    if (n > reader_left(r))
        r->bad = true;
    return r->bad ? 0 : (size_t)n;
}

static bool put_time(struct buf *out, uint8_t type, uint64_t v)
{
    int64_t packed = (int64_t)v;
    uint64_t u = packed < 0 ? 0 - v : v;
    unsigned us = (unsigned)(u & 0xffffff);
    uint64_t t = u >> 24;
    unsigned hms[] = {(unsigned)(t >> 12 & 0x3ff), (unsigned)(t >> 6 & 63), (unsigned)(t & 63)};
    unsigned months = (unsigned)(t >> 22 & 0x1ffff);

    buf_addc(out, '"');
    if (type == BT_TIME)
        buf_addf(out, "%s%02u:%02u:%02u.%06u", packed < 0 ? "-" : "", hms[0], hms[1], hms[2], us);
    else
        buf_addf(out, "%04u-%02u-%02u", months / 13, months % 13, (unsigned)(t >> 17 & 31));
    if (type == BT_DATETIME || type == BT_TIMESTAMP)
        buf_addf(out, " %02u:%02u:%02u.%06u", hms[0] & 31, hms[1], hms[2], us);
    buf_addc(out, '"');
    return true;
}

static void put_base64(struct buf *out, uint8_t type, const uint8_t *p, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    buf_addf(out, "\"base64:type%u:", type);
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0) |
                     (i + 2 < n ? p[i + 2] : 0);

        buf_addc(out, digits[v >> 18]);
        buf_addc(out, digits[v >> 12 & 63]);
        buf_addc(out, i + 1 < n ? digits[v >> 6 & 63] : '=');
        buf_addc(out, i + 2 < n ? digits[v & 63] : '=');
    }
    buf_addc(out, '"');
}

static bool put_opaque(struct buf *out, struct reader *r)
{
    uint8_t type = reader_u8(r);
    size_t n = take_length(r);
    const uint8_t *p = reader_bytes(r, n);
    struct reader inner;
    char text[100];

    if (!p)
        return false;
    if (type == BT_NEWDECIMAL && n > 2 && p[1] <= p[0] &&
        binlog_decimal_size(p[0], p[1]) == n - 2 && n > 2) {
        buf_add(out, text, binlog_decimal_text(p + 2, p[0], p[1], text));
        return true;
    }
    reader_init(&inner, p, n);
    if ((type == BT_DATE || type == BT_TIME || type == BT_DATETIME || type == BT_TIMESTAMP) &&
        n == 8)
        return put_time(out, type, binlog_le(&inner, 8));
    put_base64(out, type, p, n);
    return true;
}

/* Whole numbers keep ".0", so that a double stays one. */
static void put_double(struct buf *out, uint64_t bits)
{
    char text[40];
    char *e;
    double d;

    memcpy(&d, &bits, sizeof(d));
    binlog_float_text(d, false, text);
    e = strchr(text, 'e');
    if (e && e[1] == '+')
        memmove(e + 1, e + 2, strlen(e + 2) + 1);
    if (e && e[1] == '-' && e[2] == '0')
        memmove(e + 2, e + 3, strlen(e + 3) + 1);
    buf_adds(out, text);
    if (!strpbrk(text, ".e"))
        buf_adds(out, ".0");
}

static bool put_literal(struct buf *out, uint64_t v)
{
    static const char *const names[] = {"null", "true", "false"};

    if (v > 2)
        return false;
    buf_adds(out, names[v]);
    return true;
}

struct container {
    bool object;
    size_t wide; /* bytes of an offset or a size */
    size_t n;
    const uint8_t *data; /* offsets count from here */
    size_t len;
    struct reader keys;
    struct reader values;
};

static bool open_container(struct container *c, uint8_t type, const uint8_t *data, size_t len)
{
    struct reader r;
    uint64_t size;
    uint64_t n;
    size_t head;

    c->object = type <= JSON_LARGE_OBJECT_B;
    c->wide = type == JSON_LARGE_OBJECT_B || type == JSON_LARGE_ARRAY_B ? 4 : 2;
    reader_init(&r, data, len);
    n = binlog_le(&r, c->wide);
    size = binlog_le(&r, c->wide);
    head = (c->object ? c->wide + 2 : 0) + c->wide + 1;
    if (r.bad || size > len || n > reader_left(&r) / head)
        return false;
    c->n = (size_t)n;
    c->data = data;
    c->len = (size_t)size;
    c->keys = r;
    if (c->object)
        reader_bytes(&r, c->n * (c->wide + 2));
    c->values = r;
    return !r.bad;
}

/* Small values stand in the place of their offset. */
static bool is_inline(uint8_t type, size_t wide)
{
    return type == JSON_LITERAL_B || type == JSON_INT16_B || type == JSON_UINT16_B ||
           (wide == 4 && (type == JSON_INT32_B || type == JSON_UINT32_B));
}

static bool put_entry(struct buf *out, struct container *c, int depth)
{
    uint8_t type = reader_u8(&c->values);
    const uint8_t *place = reader_bytes(&c->values, c->wide);
    struct reader r;
    uint64_t offset;

    if (!place)
        return false;
    if (is_inline(type, c->wide))
        return put_value(out, type, place, c->wide, depth);
    reader_init(&r, place, c->wide);
    offset = binlog_le(&r, c->wide);
    return offset < c->len &&
           put_value(out, type, c->data + offset, c->len - (size_t)offset, depth);
}

static bool put_key(struct buf *out, struct container *c)
{
    uint64_t offset = binlog_le(&c->keys, c->wide);
    uint64_t len = binlog_le(&c->keys, 2);

    if (c->keys.bad || offset > c->len || len > c->len - offset)
        return false;
    put_string(out, (const char *)c->data + offset, (size_t)len);
    buf_adds(out, ": ");
    return true;
}

static bool put_container(struct buf *out, uint8_t type, const uint8_t *data, size_t len, int depth)
{
    struct container c;

    if (depth >= DEPTH_MAX || !open_container(&c, type, data, len))
        return false;
    buf_addc(out, c.object ? '{' : '[');
    for (size_t i = 0; i < c.n; i++) {
        if (i)
            buf_adds(out, ", ");
        if ((c.object && !put_key(out, &c)) || !put_entry(out, &c, depth + 1) || out->overflow)
            return false;
    }
    buf_addc(out, c.object ? '}' : ']');
    return true;
}

static bool put_number(struct buf *out, uint8_t type, struct reader *r)
{
    switch (type) {
    case JSON_INT16_B:
        buf_addf(out, "%d", (int16_t)binlog_le(r, 2));
        break;
    case JSON_UINT16_B:
        buf_addf(out, "%u", (unsigned)binlog_le(r, 2));
        break;
    case JSON_INT32_B:
        buf_addf(out, "%" PRId32, (int32_t)binlog_le(r, 4));
        break;
    case JSON_UINT32_B:
        buf_addf(out, "%" PRIu32, (uint32_t)binlog_le(r, 4));
        break;
    case JSON_INT64_B:
        buf_addf(out, "%" PRId64, (int64_t)binlog_le(r, 8));
        break;
    case JSON_UINT64_B:
        buf_addf(out, "%" PRIu64, binlog_le(r, 8));
        break;
    default:
        put_double(out, binlog_le(r, 8));
        break;
    }
    return !r->bad;
}

static bool put_value(struct buf *out, uint8_t type, const uint8_t *data, size_t len, int depth)
{
    struct reader r;
    const char *text;
    size_t n;

    reader_init(&r, data, len);
    if (type <= JSON_LARGE_ARRAY_B)
        return put_container(out, type, data, len, depth);
    if (type == JSON_LITERAL_B)
        return put_literal(out, reader_u8(&r)) && !r.bad;
    if (type <= JSON_DOUBLE_B)
        return put_number(out, type, &r);
    if (type == JSON_OPAQUE_B)
        return put_opaque(out, &r);
    if (type != JSON_STRING_B)
        return false;
    n = take_length(&r);
    text = (const char *)reader_bytes(&r, n);
    if (!text)
        return false;
    put_string(out, text, n);
    return true;
}

const char *binlog_json_text(struct arena *a, const uint8_t *data, size_t len, size_t *out_len)
{
    struct buf out;
    char *text = NULL;

    *out_len = 0;
    /* A text is at most eight times its binary form; what claims more points at itself. */
    buf_init(&out, len < BUF_MAX_ROW / 8 ? len * 8 + 256 : BUF_MAX_ROW);
    /* A row image may hold JSON without a byte: the server reads it as null. */
    if (len == 0)
        buf_adds(&out, "null");
    if (len == 0 || put_value(&out, data[0], data + 1, len - 1, 0)) {
        text = out.overflow ? NULL : arena_strndup(a, out.data, out.len);
        *out_len = text ? out.len : 0;
    }
    buf_release(&out);
    return text;
}
