#include "core/text.h"

#include <string.h>

size_t utf8_decode(const unsigned char *p, size_t left, uint32_t *point)
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

void text_clean(char *text)
{
    unsigned char *p = (unsigned char *)text;
    size_t left = strlen(text);

    while (left > 0) {
        uint32_t point;
        size_t n = utf8_decode(p, left, &point);

        if (n == 0)
            *p = '?';
        n = n ? n : 1;
        p += n;
        left -= n;
    }
}
