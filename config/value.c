/* How each kind of option reads its text. */
#include "config/option.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHOWN_MAX 60

struct unit {
    const char *name;
    int64_t factor;
};
static const struct unit size_units[] = {
    {"GiB", (int64_t)1 << 30}, {"MiB", (int64_t)1 << 20}, {"KiB", (int64_t)1 << 10}, {NULL, 0}};
static const struct unit time_units[] = {{"m", 60000}, {"s", 1000}, {"ms", 1}, {NULL, 0}};
#define DURATION_MAX_MS ((int64_t)7 * 24 * 3600 * 1000)

/* ---- messages ---- */

/* A number in the largest unit that divides it. */
static void print_units(const struct unit *units, int64_t v, char *out, size_t size)
{
    for (const struct unit *u = units; u->name; u++) {
        if (v && v % u->factor == 0) {
            snprintf(out, size, "%" PRId64 "%s", v / u->factor, u->name);
            return;
        }
    }
    snprintf(out, size, "%" PRId64, v);
}

static void expected_units(const struct option *o, const char *what, const struct unit *units,
                           char *out, size_t size)
{
    char min[32];
    char max[32];

    print_units(units, o->min, min, sizeof(min));
    print_units(units, o->max, max, sizeof(max));
    if (o->min > 0)
        snprintf(out, size, "%s, at least %s, at most %s", what, min, max);
    else
        snprintf(out, size, "%s, or 0, at most %s", what, max);
}

static void expected_words(const struct option *o, char *out, size_t size)
{
    size_t used = 0;

    out[0] = '\0';
    for (size_t i = 0; o->words[i] && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%s", i ? " or " : "", o->words[i]);
}

void option_expected(const struct option *o, char *out, size_t size)
{
    switch (o->kind) {
    case OPTION_NAME:
        snprintf(out, size, "a small letter, then at most 30 of a-z, 0-9 and _");
        return;
    case OPTION_URI:
        snprintf(out, size,
                 "postgresql://user@host:port/database, or mysql://… or mariadb://… of that form");
        return;
    case OPTION_JOURNAL:
        snprintf(out, size,
                 "file: and a directory, like file:./shop.journal, or kafka://host:port,host:port");
        return;
    case OPTION_URL:
        snprintf(out, size, "http://host:port or https://host:port");
        return;
    case OPTION_ACCOUNTS:
        snprintf(out, size, "a list of user@host accounts, like [app@%%]");
        return;
    case OPTION_SECRETS:
        snprintf(out, size, "properties, like {security.protocol: SSL}");
        return;
    case OPTION_PAIRS:
        snprintf(out, size, "pairs of names, like {public: shop}");
        return;
    case OPTION_BOOL:
        snprintf(out, size, "true or false");
        return;
    case OPTION_PATTERNS:
        snprintf(out, size, "a list of schema.name patterns, like [public.*]");
        return;
    case OPTION_INT:
        snprintf(out, size, "a number from %" PRId64 " to %" PRId64, o->min, o->max);
        return;
    case OPTION_SIZE:
        expected_units(o, "a number with KiB, MiB, GiB", size_units, out, size);
        return;
    case OPTION_DURATION:
        expected_units(o, "a number with ms, s or m", time_units, out, size);
        return;
    case OPTION_ENUM:
        expected_words(o, out, size);
        return;
    case OPTION_ADDRESS:
        snprintf(out, size, "host:port, like 127.0.0.1:8650");
        return;
    case OPTION_TEXT:
        snprintf(out, size, "a text");
        return;
    case OPTION_LATER:
        snprintf(out, size, "%s", o->words[0]);
        return;
    }
}

/* The value as a message may quote it: short, printable, and never a URI, which may hold a
 * password that somebody put behind the wrong key. */
static void print_shown(const struct option *o, const char *shown, char *out, size_t size)
{
    size_t n = 0;

    if (o->kind == OPTION_URI || o->kind == OPTION_URL || strstr(shown, "://") ||
        strstr(shown, "password")) {
        snprintf(out, size, "this value");
        return;
    }
    out[n++] = '"';
    for (size_t i = 0; shown[i] && n + 6 < size; i++)
        out[n++] = (unsigned char)shown[i] < ' ' ? ' ' : shown[i];
    out[n] = '\0';
    strcat(out, strlen(shown) + 7 > size ? "…\"" : "\"");
}

static int refuse(const struct option *o, const char *shown, const char *what, struct err *e)
{
    char value[SHOWN_MAX];
    char expected[200];

    print_shown(o, shown, value, sizeof(value));
    option_expected(o, expected, sizeof(expected));
    return err_set(e, ERR_CONFIG, "%s %s; expected %s", value, what, expected);
}

/* ---- kinds ---- */

static int set_name(const struct option *o, struct config *c, const char *text, struct err *e)
{
    size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_");

    if (text[len] || len < 1 || len > 31 || text[0] < 'a' || text[0] > 'z')
        return refuse(o, text, "is not a name for a migration", e);
    *(const char **)((char *)c + o->offset) = arena_strdup(&c->arena, text);
    return 0;
}

static bool has_scheme(const char *text, const char *scheme)
{
    return strncmp(text, scheme, strlen(scheme)) == 0;
}

static bool has_control(const char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < ' ')
            return true;
    }
    return false;
}

/* Digits, then one of the units (NULL units: none). -1: not such a number. */
static int parse_number(const char *text, const struct unit *units, int64_t *out)
{
    size_t digits = strspn(text, "0123456789");
    int64_t factor = 0;

    if (digits < 1 || digits > 15)
        return -1;
    *out = strtoll(text, NULL, 10);
    if (!text[digits])
        return units && *out ? -1 : 0;
    for (const struct unit *u = units; u && u->name; u++) {
        if (strcmp(text + digits, u->name) == 0)
            factor = u->factor;
    }
    return factor && !__builtin_mul_overflow(*out, factor, out) ? 0 : -1;
}

/* host:port with a port that is one, in the first len characters. */
static bool is_address(const char *text, size_t len)
{
    const char *colon = memrchr(text, ':', len);
    char digits[8] = "";
    int64_t port = 0;

    if (!colon || colon == text || memchr(text, '/', len) ||
        (size_t)(text + len - colon) > sizeof(digits))
        return false;
    memcpy(digits, colon + 1, (size_t)(text + len - colon) - 1);
    return parse_number(digits, NULL, &port) == 0 && port <= 65535;
}

/* A MySQL server has one log over all its databases, so a URI could do without one; but which
 * schema is meant by an unnamed one (schemas:) then nobody knows. */
static bool names_database(const char *rest)
{
    const char *at = strrchr(rest, '@');
    const char *slash = strchr(at ? at : rest, '/');

    return slash && slash[1] && slash[1] != '?';
}

static int set_uri(const struct option *o, struct config *c, const char *text, struct err *e)
{
    static const struct {
        const char *scheme;
        bool database; /* must be named */
    } schemes[] = {
        {"postgresql://", false}, {"postgres://", false}, {"mysql://", true}, {"mariadb://", true}};
    const size_t n = sizeof(schemes) / sizeof(schemes[0]);
    size_t i = 0;

    while (i < n && !has_scheme(text, schemes[i].scheme))
        i++;
    if (i == n || has_control(text) || strchr(text, ' '))
        return refuse(o, text, "is not the URI of a database", e);
    if (!text[strlen(schemes[i].scheme)])
        return refuse(o, text, "names no server and no database", e);
    if (schemes[i].database && !names_database(text + strlen(schemes[i].scheme)))
        return refuse(o, text, "names no database", e);
    *(const char **)((char *)c + o->offset) = arena_strdup(&c->arena, text);
    return 0;
}

/* dirname(3) without its surprises: "" for a name without a folder. */
static const char *folder_of(struct arena *a, const char *file)
{
    const char *slash = strrchr(file, '/');

    return slash ? arena_strndup(a, file, (size_t)(slash - file + 1)) : "";
}

static int set_kafka(const struct option *o, struct config *c, const char *text, struct err *e)
{
    const char *p = text + strlen("kafka://");

    if (!has_scheme(text, "kafka://"))
        return refuse(o, text, "is not a journal", e);
    while (*p) {
        size_t len = strcspn(p, ",");

        if (!is_address(p, len) || (p[len] == ',' && !p[len + 1]))
            return refuse(o, text, "names a broker that is not host:port", e);
        p += len + (p[len] == ',');
    }
    if (p == text + strlen("kafka://") || strpbrk(text, "@?# ") || has_control(text))
        return refuse(o, text, "names more or less than brokers", e);
    *(const char **)((char *)c + o->offset) = arena_strdup(&c->arena, text);
    return 0;
}

static int set_journal(const struct option *o, struct config *c, const char *text, struct err *e)
{
    const char **out = (const char **)((char *)c + o->offset);
    const char *path = text + strlen("file:");
    const char *folder = folder_of(&c->arena, c->file);
    char *cwd;

    if (has_scheme(text, "kafka:"))
        return set_kafka(o, c, text, e);
    if (!has_scheme(text, "file:") || has_control(text))
        return refuse(o, text, "is not a journal", e);
    while (path[0] == '/' && path[1] == '/')
        path++;
    while (path[0] == '.' && path[1] == '/')
        path += 2;
    if (!*path || strcmp(path, "/") == 0 || strcmp(path, ".") == 0)
        return refuse(o, text, "names no directory of its own", e);
    if (path[0] == '/') {
        *out = arena_printf(&c->arena, "file:%s", path);
        return 0;
    }
    if (folder[0] == '/') {
        *out = arena_printf(&c->arena, "file:%s%s", folder, path);
        return 0;
    }
    cwd = realpath(".", NULL);
    if (!cwd)
        return err_set(e, ERR_CONFIG, "the current directory cannot be read");
    *out = arena_printf(&c->arena, "file:%s/%s%s", cwd, folder, path);
    free(cwd);
    return 0;
}

static int set_url(const struct option *o, struct config *c, const char *text, struct err *e)
{
    const char *rest = strstr(text, "://");

    if ((!has_scheme(text, "http://") && !has_scheme(text, "https://")) || has_control(text) ||
        strpbrk(text, " ?#"))
        return refuse(o, text, "is not the URL of a registry", e);
    if (!rest[3] || rest[3] == '/')
        return refuse(o, text, "names no server", e);
    *(const char **)((char *)c + o->offset) = arena_strdup(&c->arena, text);
    return 0;
}

/* v with one text more behind its n. */
static const char **grow(struct arena *a, const char *const *v, size_t n, const char *text)
{
    const char **grown = arena_alloc(a, (n + 1) * sizeof(*grown));

    if (n)
        memcpy(grown, v, n * sizeof(*grown));
    grown[n] = arena_strdup(a, text);
    return grown;
}

static int set_pattern(const struct option *o, struct config *c, const char *text, struct err *e)
{
    struct string_list *list = (struct string_list *)((char *)c + o->offset);
    const char *dot = strchr(text, '.');

    if (!dot || dot == text || !dot[1] || has_control(text))
        return refuse(o, text, "is not a pattern", e);
    list->v = grow(&c->arena, list->v, list->n, text);
    list->n++;
    return 0;
}

static int set_account(const struct option *o, struct config *c, const char *text, struct err *e)
{
    struct string_list *list = (struct string_list *)((char *)c + o->offset);
    const char *at = strrchr(text, '@');

    if (!at || at == text || !at[1] || strpbrk(text, "'`\"\\") || has_control(text))
        return refuse(o, text, "is not an account", e);
    list->v = grow(&c->arena, list->v, list->n, text);
    list->n++;
    return 0;
}

int option_add_pair(const struct option *o, struct config *c, const char *name, const char *text,
                    struct err *e)
{
    struct pair_list *list = (struct pair_list *)((char *)c + o->offset);

    if (has_control(name) || has_control(text))
        return err_set(e, ERR_CONFIG, "has control characters; expected a text without");
    if (o->kind == OPTION_PAIRS && !*text)
        return err_set(e, ERR_CONFIG, "is empty; expected the name of a schema");
    for (size_t i = 0; i < list->n; i++) {
        if (strcmp(list->names[i], name) == 0)
            return err_set(e, ERR_CONFIG, "is there twice; expected it once");
        if (o->kind == OPTION_PAIRS && strcmp(list->values[i], text) == 0)
            return err_set(e, ERR_CONFIG,
                           "becomes the schema that %s becomes, too; expected one of its own",
                           list->names[i]);
    }
    list->names = grow(&c->arena, list->names, list->n, name);
    list->values = grow(&c->arena, list->values, list->n, text);
    list->n++;
    return 0;
}

bool option_is_list(const struct option *o)
{
    return o->kind == OPTION_PATTERNS || o->kind == OPTION_ACCOUNTS;
}

bool option_is_pairs(const struct option *o)
{
    return o->kind == OPTION_SECRETS || o->kind == OPTION_PAIRS;
}

static int set_bool(const struct option *o, struct config *c, const char *text, struct err *e)
{
    bool *at = (bool *)((char *)c + o->offset);

    if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
        return refuse(o, text, "is neither", e);
    *at = strcmp(text, "true") == 0;
    return 0;
}

int config_duration_between(const char *text, int64_t min_ms, int64_t max_ms, int64_t *out_ms,
                            struct err *e)
{
    if (parse_number(text, time_units, out_ms) == 0 && *out_ms >= min_ms && *out_ms <= max_ms)
        return 0;
    return err_set(e, ERR_CONFIG,
                   "\"%.20s\" is not taken; expected a number with ms, s or m, at least %gs, at "
                   "most %gm",
                   text, (double)min_ms / 1000, (double)max_ms / 60000);
}

int config_duration(const char *text, int64_t *out_ms, struct err *e)
{
    return config_duration_between(text, 1000, DURATION_MAX_MS, out_ms, e);
}

static int set_number(const struct option *o, struct config *c, const char *text, struct err *e)
{
    static const char *const wrong[] = {[OPTION_INT] = "is not a number",
                                        [OPTION_SIZE] = "is not a size",
                                        [OPTION_DURATION] = "is not a duration"};
    const struct unit *units = o->kind == OPTION_SIZE       ? size_units
                               : o->kind == OPTION_DURATION ? time_units
                                                            : NULL;
    char *at = (char *)c + o->offset;
    int64_t v;

    if (parse_number(text, units, &v) < 0)
        return refuse(o, text, wrong[o->kind], e);
    if (v < o->min || v > o->max)
        return refuse(o, text, v < o->min ? "is too small" : "is too large", e);
    if (o->kind == OPTION_SIZE)
        *(uint64_t *)at = (uint64_t)v;
    else
        *(int *)at = (int)v;
    return 0;
}

static int set_word(const struct option *o, struct config *c, const char *text, struct err *e)
{
    if (o->offset == offsetof(struct config, apply.on_error) && strcmp(text, "quarantine") == 0)
        return err_set(e, ERR_CONFIG,
                       "quarantine is not supported by this version, which takes park or stop");
    for (size_t i = 0; o->words[i]; i++) {
        if (strcmp(text, o->words[i]) == 0) {
            *(enum on_error *)((char *)c + o->offset) = (enum on_error)i;
            return 0;
        }
    }
    return refuse(o, text, "is not known", e);
}

static int set_address(const struct option *o, struct config *c, const char *text, struct err *e)
{
    if (!is_address(text, strlen(text)) || has_control(text))
        return refuse(o, text, "is not an address", e);
    *(const char **)((char *)c + o->offset) = arena_strdup(&c->arena, text);
    return 0;
}

static int set_text(const struct option *o, struct config *c, const char *text, struct err *e)
{
    if (!*text || has_control(text))
        return refuse(o, text, "is empty or has control characters", e);
    *(const char **)((char *)c + o->offset) = arena_strdup(&c->arena, text);
    return 0;
}

static int set_later(const struct option *o, struct config *c, const char *text, struct err *e)
{
    return err_set(e, ERR_CONFIG, "is not supported yet: %s", o->words[0]);
}

int option_set(const struct option *o, struct config *c, const char *text, const char *shown,
               struct err *e)
{
    static int (*const setters[])(const struct option *, struct config *, const char *,
                                  struct err *) = {
        [OPTION_NAME] = set_name,        [OPTION_URI] = set_uri,     [OPTION_JOURNAL] = set_journal,
        [OPTION_PATTERNS] = set_pattern, [OPTION_INT] = set_number,  [OPTION_SIZE] = set_number,
        [OPTION_DURATION] = set_number,  [OPTION_ENUM] = set_word,   [OPTION_TEXT] = set_text,
        [OPTION_ADDRESS] = set_address,  [OPTION_LATER] = set_later, [OPTION_URL] = set_url,
        [OPTION_ACCOUNTS] = set_account, [OPTION_BOOL] = set_bool,
    };

    if (o->kind != OPTION_LATER && !*text)
        return refuse(o, shown, "is empty", e);
    /* A value that came out of a variable is quoted as the file has it: it may be a secret. */
    if (strcmp(text, shown) != 0) {
        struct err ignored;

        if (setters[o->kind](o, c, text, &ignored) == 0)
            return 0;
        return refuse(o, shown, "holds a text that does not fit here", e);
    }
    return setters[o->kind](o, c, text, e);
}

/* ---- variables ---- */

/* Is this the place between "scheme://user:" and "@"? */
static bool at_password(const char *text, const char *at, const char *behind)
{
    const char *authority = strstr(text, "://");
    const char *colon;

    if (!authority || authority > at || *behind != '@')
        return false;
    authority += 3;
    colon = memchr(authority, ':', (size_t)(at - authority));
    return colon && !memchr(authority, '/', (size_t)(at - authority)) &&
           !memchr(authority, '@', (size_t)(at - authority));
}

static void add_encoded(struct buf *out, const char *s)
{
    for (; *s; s++) {
        if (isalnum((unsigned char)*s) || strchr("-._~", *s))
            buf_addc(out, *s);
        else
            buf_addf(out, "%%%02X", (unsigned char)*s);
    }
}

/* p stands at "${"; returns behind "}", or NULL with *e set. */
static const char *add_variable(struct buf *out, const struct option *o, const char *text,
                                const char *p, struct err *e)
{
    const char *name = p + 2;
    size_t len = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_");
    char key[100];
    const char *value;

    if (name[len] != '}' || len == 0 || len >= sizeof(key) || isdigit((unsigned char)*name)) {
        err_set(e, ERR_CONFIG,
                "has a ${ that names no variable; expected ${NAME}, or $${ for the two characters");
        return NULL;
    }
    memcpy(key, name, len);
    key[len] = '\0';
    value = getenv(key);
    if (!value) {
        err_set(e, ERR_CONFIG, "the environment variable %s is not set", key);
        err_hint(e, "export %s=…", key);
        return NULL;
    }
    if ((o->kind == OPTION_URI || o->kind == OPTION_URL) && at_password(text, p, name + len + 1))
        add_encoded(out, value);
    else
        buf_adds(out, value);
    return name + len + 1;
}

const char *option_substitute(struct arena *a, const struct option *o, const char *text,
                              struct err *e)
{
    const char *result = NULL;
    struct buf out;

    if (!strstr(text, "${"))
        return text;
    buf_init(&out, 1 << 20);
    for (const char *p = text; *p;) {
        if (strncmp(p, "$${", 3) == 0) {
            buf_adds(&out, "${");
            p += 3;
        } else if (strncmp(p, "${", 2) == 0) {
            p = add_variable(&out, o, text, p, e);
            if (!p)
                goto out;
        } else {
            buf_addc(&out, *p++);
        }
    }
    if (out.overflow)
        err_set(e, ERR_CONFIG, "is too long with its variables put in");
    else
        result = arena_strndup(a, out.data ? out.data : "", out.len);
out:
    buf_release(&out);
    return result;
}
