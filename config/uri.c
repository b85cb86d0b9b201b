#include "config/config.h"
#include "core/buf.h"

#include <string.h>

/* The query's parameters that say where a server is; all others are left out, because a password
 * may stand in them, also under a percent-encoded name. */
static int is_place(const char *p, size_t len)
{
    static const char *const names[] = {"host=", "hostaddr=", "port=", "dbname=", "user="};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (len >= strlen(names[i]) && strncmp(p, names[i], strlen(names[i])) == 0)
            return 1;
    }
    return 0;
}

/* The ? behind which parameters stand: a name and a = follow it. One that is only a sign of a
 * password is none. */
static const char *query_of(const char *authority)
{
    static const char name[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-%";
    const char *mark = authority;

    while ((mark = strchr(mark, '?')) != NULL) {
        size_t len = strspn(++mark, name);

        if (len > 0 && mark[len] == '=')
            return mark - 1;
    }
    return NULL;
}

const char *config_uri_at(const char *authority)
{
    const char *query = query_of(authority);
    const char *end = query ? query : authority + strlen(authority);

    /* The last @ of all: a password that should have been percent-encoded may hold any sign. */
    while (end > authority)
        if (*--end == '@')
            return end;
    return NULL;
}

static void add_query(struct buf *out, const char *query)
{
    char sep = '?';

    while (*query) {
        size_t len = strcspn(query, "&");

        if (is_place(query, len)) {
            buf_addc(out, sep);
            buf_add(out, query, len);
            sep = '&';
        }
        query += len + (query[len] == '&');
    }
}

const char *config_uri_redact(struct arena *a, const char *uri)
{
    const char *authority = strstr(uri, "://");
    const char *at;
    const char *result;
    struct buf out;
    size_t len;

    if (!authority)
        return "a database";
    authority += 3;
    buf_init(&out, 1 << 20);
    buf_add(&out, uri, (size_t)(authority - uri));
    at = config_uri_at(authority);
    if (at) {
        size_t user = strcspn(authority, ":@/?");

        buf_add(&out, authority, user);
        buf_addc(&out, '@');
        authority = at + 1;
    }
    len = strcspn(authority, "?");
    buf_add(&out, authority, len);
    if (authority[len])
        add_query(&out, authority + len + 1);
    result = out.overflow ? "a database" : arena_strndup(a, out.data, out.len);
    buf_release(&out);
    return result;
}
