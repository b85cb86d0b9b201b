/* The binlog's numbers, read through the bounds-checked reader: little-endian, and the packed form
 * in which lengths and counts travel (MySQL internals manual, "Protocol::LengthEncodedInteger"). */
#ifndef LOCKSTEP_ENGINES_MYSQL_BINLOG_BYTES_H
#define LOCKSTEP_ENGINES_MYSQL_BINLOG_BYTES_H

#include "core/buf.h"

/* n bytes (at most 8), the lowest first. */
static inline uint64_t binlog_le(struct reader *r, size_t n)
{
    const uint8_t *p = reader_bytes(r, n);
    uint64_t v = 0;

    while (p && n-- > 0)
        v = v << 8 | p[n];
    return v;
}

/* n bytes (at most 8), the highest first. */
static inline uint64_t binlog_be(struct reader *r, size_t n)
{
    const uint8_t *p = reader_bytes(r, n);
    uint64_t v = 0;

    for (size_t i = 0; p && i < n; i++)
        v = v << 8 | p[i];
    return v;
}

static inline uint64_t binlog_packed(struct reader *r)
{
    uint8_t first = reader_u8(r);

    if (first < 251)
        return first;
    if (first == 252)
        return binlog_le(r, 2);
    if (first == 253)
        return binlog_le(r, 3);
    if (first == 254)
        return binlog_le(r, 8);
    r->bad = true;
    return 0;
}

/* A packed length and as many bytes: *len, and where they are (NULL: truncated). */
static inline const char *binlog_string(struct reader *r, size_t *len)
{
    uint64_t n = binlog_packed(r);

    *len = 0;
    if (n > reader_left(r))
        r->bad = true;
    else
        *len = (size_t)n;
    return r->bad ? NULL : (const char *)reader_bytes(r, *len);
}

static inline bool binlog_bit(const uint8_t *bits, size_t i)
{
    return bits[i / 8] >> (i % 8) & 1;
}

#endif
