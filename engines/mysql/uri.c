/* Connection URIs. None of the messages quotes the URI: it holds a password. */
#include "engines/mysql/session.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_PORT 3306

static const char *const schemes[] = {"mysql://", "mariadb://"};

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* from … end percent-decoded into out; false: too long, a broken escape, or a zero byte. */
static bool decode(const char *from, const char *end, char *out, size_t size)
{
    size_t n = 0;

    while (from < end) {
        char c = *from++;

        if (c == '%') {
            int high = end - from >= 2 ? hex_digit(from[0]) : -1;
            int low = high >= 0 ? hex_digit(from[1]) : -1;

            if (low < 0 || high * 16 + low == 0)
                return false;
            c = (char)(high * 16 + low);
            from += 2;
        }
        if (n + 1 >= size)
            return false;
        out[n++] = c;
    }
    out[n] = '\0';
    return true;
}

static int malformed(const char *what, struct err *e)
{
    err_set(e, ERR_CONFIG, "the connection URI cannot be parsed: %s", what);
    return err_hint(e, "write mysql://user@host:port/database; characters like @ : / ? in a "
                       "password are written %%40 %%3A %%2F %%3F");
}

static int parse_port(const char *from, const char *end, unsigned *out)
{
    unsigned long n = 0;

    if (from == end)
        return 0;
    for (; from < end; from++) {
        if (!isdigit((unsigned char)*from))
            return -1;
        n = n * 10 + (unsigned long)(*from - '0');
        if (n > 65535)
            return -1;
    }
    *out = (unsigned)n;
    return n == 0 ? -1 : 0;
}

static int parse_host(const char *from, const char *end, struct my_uri *u, struct err *e)
{
    const char *host_end = end;
    const char *port = NULL;

    if (from < end && *from == '[') {
        from++;
        host_end = memchr(from, ']', (size_t)(end - from));
        if (host_end == NULL)
            return malformed("a [ without its ]", e);
        if (host_end + 1 < end && host_end[1] != ':')
            return malformed("something between ] and the port", e);
        if (host_end + 1 < end)
            port = host_end + 2;
    } else {
        const char *colon = memchr(from, ':', (size_t)(end - from));

        if (colon != NULL) {
            host_end = colon;
            port = colon + 1;
        }
    }
    if (!decode(from, host_end, u->host, sizeof u->host))
        return malformed("the host", e);
    if (port != NULL && parse_port(port, end, &u->port) != 0)
        return malformed("the port is not a number from 1 to 65535", e);
    return 0;
}

static int parse_tls(const char *text, struct my_uri *u, struct err *e)
{
    static const char *const names[] = {
        [MY_TLS_DISABLED] = "disabled", [MY_TLS_PREFERRED] = "preferred",
        [MY_TLS_REQUIRED] = "required", [MY_TLS_CA] = "verify-ca",
        [MY_TLS_FULL] = "verify-full",
    };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcasecmp(text, names[i]) != 0)
            continue;
        u->tls = (enum my_tls)i;
        return 0;
    }
    err_set(e, ERR_CONFIG, "the connection URI has an unknown ssl-mode");
    return err_hint(e, "ssl-mode is disabled, preferred, required, verify-ca or verify-full");
}

static int parse_parameter(const char *from, const char *end, struct my_uri *u, struct err *e)
{
    const struct {
        const char *name;
        char *out;
        size_t size;
    } texts[] = {{"socket", u->socket, sizeof u->socket},
                 {"ssl-ca", u->ssl_ca, sizeof u->ssl_ca},
                 {"ssl-cert", u->ssl_cert, sizeof u->ssl_cert},
                 {"ssl-key", u->ssl_key, sizeof u->ssl_key}};
    const char *equals = memchr(from, '=', (size_t)(end - from));
    char mode[20];

    if (equals == NULL)
        return malformed("a parameter without its value", e);
    size_t len = (size_t)(equals - from);
    if (len == strlen("ssl-mode") && strncmp(from, "ssl-mode", len) == 0) {
        if (!decode(equals + 1, end, mode, sizeof mode))
            mode[0] = '\0';
        return parse_tls(mode, u, e);
    }
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (strlen(texts[i].name) != len || strncmp(from, texts[i].name, len) != 0)
            continue;
        return decode(equals + 1, end, texts[i].out, texts[i].size) ? 0
                                                                    : malformed(texts[i].name, e);
    }
    err_set(e, ERR_CONFIG, "the connection URI has an unknown parameter \"%.*s\"",
            (int)(len < 40 ? len : 40), from);
    return err_hint(e, "known are ssl-mode, ssl-ca, ssl-cert, ssl-key and socket");
}

static int parse_parameters(const char *from, struct my_uri *u, struct err *e)
{
    while (*from != '\0') {
        const char *end = from + strcspn(from, "&");

        if (parse_parameter(from, end, u, e) != 0)
            return -1;
        from = *end == '&' ? end + 1 : end;
    }
    return 0;
}

static int parse_login(const char *from, const char *at, struct my_uri *u, struct err *e)
{
    const char *colon = memchr(from, ':', (size_t)(at - from));
    const char *user_end = colon != NULL ? colon : at;

    if (!decode(from, user_end, u->user, sizeof u->user))
        return malformed("the user", e);
    u->has_password = colon != NULL;
    if (colon != NULL && !decode(colon + 1, at, u->password, sizeof u->password))
        return malformed("the password", e);
    return 0;
}

/* The authority ends at the first / or ?; a login ends at its last @. */
static int parse(const char *p, struct my_uri *u, struct err *e)
{
    const char *end = p + strcspn(p, "/?");
    const char *at = memrchr(p, '@', (size_t)(end - p));

    if (at != NULL && parse_login(p, at, u, e) != 0)
        return -1;
    if (parse_host(at != NULL ? at + 1 : p, end, u, e) != 0)
        return -1;
    if (*end == '/') {
        const char *name = end + 1;

        end = name + strcspn(name, "?");
        if (!decode(name, end, u->database, sizeof u->database))
            return malformed("the database", e);
    }
    if (*end == '?' && parse_parameters(end + 1, u, e) != 0)
        return -1;
    if (u->host[0] == '\0' && u->socket[0] == '\0')
        snprintf(u->host, sizeof u->host, "localhost");
    if (u->tls == MY_TLS_CA && u->ssl_ca[0] == '\0')
        return malformed("ssl-mode=verify-ca needs ssl-ca", e);
    return 0;
}

int my_uri_parse(const char *text, struct my_uri *out, struct err *e)
{
    memset(out, 0, sizeof *out);
    out->port = DEFAULT_PORT;
    out->tls = MY_TLS_PREFERRED;
    for (size_t i = 0; text != NULL && i < sizeof schemes / sizeof schemes[0]; i++)
        if (strncasecmp(text, schemes[i], strlen(schemes[i])) == 0)
            return parse(text + strlen(schemes[i]), out, e);
    return malformed("it does not begin with mysql:// or mariadb://", e);
}

void my_uri_release(struct my_uri *u)
{
    explicit_bzero(u, sizeof *u);
}

void my_home_schema(const char *uri, char *out, size_t size)
{
    struct my_uri u;

    out[0] = '\0';
    if (my_uri_parse(uri, &u, NULL) == 0)
        snprintf(out, size, "%s", u.database);
    my_uri_release(&u);
}
