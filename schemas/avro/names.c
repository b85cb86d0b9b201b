#include "schemas/avro/names.h"

#include "core/text.h"

#include <string.h>

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
