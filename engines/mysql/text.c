#include "engines/mysql/my.h"

#include <stdlib.h>

void my_ident(struct buf *b, const char *name)
{
    buf_addc(b, '`');
    for (; *name != '\0'; name++) {
        if (*name == '`')
            buf_addc(b, '`');
        buf_addc(b, *name);
    }
    buf_addc(b, '`');
}

void my_ident2(struct buf *b, const char *schema, const char *name)
{
    my_ident(b, schema);
    buf_addc(b, '.');
    my_ident(b, name);
}

/* Every session of ours has NO_BACKSLASH_ESCAPES off, so a backslash escapes; quotes are doubled
 * all the same, which means one quote in either mode. */
void my_literal(struct buf *b, const char *s, size_t len)
{
    size_t from = 0;

    buf_addc(b, '\'');
    for (size_t i = 0; i < len; i++) {
        if (s[i] != '\'' && s[i] != '\\' && s[i] != '\0')
            continue;
        buf_add(b, s + from, i - from);
        from = i + 1;
        if (s[i] == '\0')
            buf_adds(b, "\\0");
        else {
            buf_addc(b, s[i]);
            buf_addc(b, s[i]);
        }
    }
    buf_add(b, s + from, len - from);
    buf_addc(b, '\'');
}

int64_t my_int(const char *text)
{
    return text != NULL ? strtoll(text, NULL, 10) : 0;
}
