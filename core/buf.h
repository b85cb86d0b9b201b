/* A growing byte buffer that is created with its maximum. Always NUL-terminated behind len. */
#ifndef LOCKSTEP_CORE_BUF_H
#define LOCKSTEP_CORE_BUF_H

#include "core/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
    char *data;
    size_t len;
    size_t cap;
    size_t max;
    bool overflow; /* an append did not fit; what follows was not appended either */
};

/* The largest row that travels: PostgreSQL's 1 GiB, as hex, with room for its frame. */
#define BUF_MAX_ROW ((size_t)2200 * 1024 * 1024)
/* Statements, JSON bodies, schema texts. */
#define BUF_MAX_TEXT ((size_t)256 * 1024 * 1024)

void buf_init(struct buf *b, size_t max);
void buf_release(struct buf *b);
/* Empties it; gives memory above keep bytes back to the system. */
void buf_reset(struct buf *b, size_t keep);
/* Makes room for n more bytes and returns where they go (len is not raised); NULL on overflow. */
char *buf_reserve(struct buf *b, size_t n);
/* Appends; on overflow sets b->overflow and appends nothing. Check once, at the end. */
void buf_add(struct buf *b, const void *data, size_t len);
void buf_adds(struct buf *b, const char *s);
void buf_addc(struct buf *b, char c);
void buf_addf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* 0, or -1 with an error that names what overflowed. */
int buf_check(const struct buf *b, const char *what, struct err *e);

/* The one bounds-checked reader for bytes that come off a wire or a disk. After any read past the
 * end, `bad` is set, every read returns 0 or NULL, and the caller checks once. */
struct reader {
    const uint8_t *p;
    const uint8_t *end;
    bool bad;
};

void reader_init(struct reader *r, const void *data, size_t len);
size_t reader_left(const struct reader *r);
uint8_t reader_u8(struct reader *r);
uint16_t reader_be16(struct reader *r);
uint32_t reader_be32(struct reader *r);
uint64_t reader_be64(struct reader *r);
/* Avro's zig-zag variable-length long. */
int64_t reader_zigzag(struct reader *r);
/* n bytes, or NULL. */
const uint8_t *reader_bytes(struct reader *r, size_t n);
/* A NUL-terminated string inside the data, or NULL. */
const char *reader_cstr(struct reader *r);

#endif
