#include "schemas/avro/names.h"

#include <string.h>

/* Decodes one character of well-formed UTF-8; returns its length, 0 if it is not well-formed. */
static size_t utf8_decode(const unsigned char *p, size_t left, uint32_t *point)
{
    static const uint32_t lowest[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = p[0] < 0x80 ? 1 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;

    if (n == 0 || n > left)
        return 0;
    *point = n == 1 ? p[0] : p[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        *point = *point << 6 | (p[i] & 0x3f);
    }
    if (*point < lowest[n] || *point > 0x10ffff || (*point >= 0xd800 && *point <= 0xdfff))
        return 0;
    return n;
}

bool text_is_utf8(const char *data, size_t len)
{
    const unsigned char *p = (const unsigned char *)data;
    size_t i = 0;

    while (i < len) {
        uint64_t word;
        uint32_t point;
        size_t n;

        /* Most text is ASCII: eight bytes at a time. */
        if (len - i >= sizeof(word)) {
            memcpy(&word, p + i, sizeof(word));
            if (!(word & UINT64_C(0x8080808080808080))) {
                i += sizeof(word);
                continue;
            }
        }
        n = utf8_decode(p + i, len - i, &point);
        if (n == 0)
            return false;
        i += n;
    }
    return true;
}

static bool is_letter(uint32_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

void name_escape(struct buf *out, const char *name)
{
    const unsigned char *p = (const unsigned char *)name;
    size_t left = strlen(name);
    bool first = true;

    /* No server allows an empty name, but an empty Avro name would break a whole segment. */
    if (left == 0)
        buf_adds(out, "_x0000_");
    while (left > 0) {
        uint32_t c;
        size_t n = utf8_decode(p, left, &c);

        if (n == 0) {
            c = p[0];
            n = 1;
        }
        if (c == '_' && left > 1 && p[1] == 'x')
            buf_adds(out, "_x005F_");
        else if (is_letter(c) || (c >= '0' && c <= '9' && !first))
            buf_addc(out, (char)c);
        else
            buf_addf(out, "_x%04X_", c);
        p += n;
        left -= n;
        first = false;
    }
}
