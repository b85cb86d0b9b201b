#include "engines/postgres/values.h"

#include "engines/postgres/pg.h"
#include "engines/postgres/pgoutput.h"

#include <string.h>

static const char hex_digits[] = "0123456789abcdef";

static void add_hex_digits(struct buf *b, const char *data, size_t len)
{
    char *p = buf_reserve(b, 2 * len);

    if (!p)
        return;
    for (size_t i = 0; i < len; i++) {
        p[2 * i] = hex_digits[(unsigned char)data[i] >> 4];
        p[2 * i + 1] = hex_digits[(unsigned char)data[i] & 15];
    }
    b->len += 2 * len;
    b->data[b->len] = '\0';
}

void pg_add_hex(struct buf *b, const char *data, size_t len)
{
    buf_adds(b, "\\x");
    add_hex_digits(b, data, len);
}

/* Appends data; before each byte of `special` an `escape`. Runs between them are copied whole. */
static void add_escaped(struct buf *b, const char *data, size_t len, const char *special,
                        char escape)
{
    size_t from = 0;

    for (size_t i = 0; i < len; i++) {
        if (data[i] != special[0] && data[i] != special[1])
            continue;
        buf_add(b, data + from, i - from);
        buf_addc(b, escape);
        from = i;
    }
    if (from < len)
        buf_add(b, data + from, len - from);
}

void pg_add_literal(struct buf *b, const struct column *c, const struct value *v)
{
    invariant(v->state != VALUE_UNCHANGED);
    if (v->state == VALUE_NULL) {
        buf_adds(b, "NULL");
    } else {
        buf_addc(b, '\'');
        if (c->kind == TYPE_BYTES)
            pg_add_hex(b, v->data, v->len);
        else
            add_escaped(b, v->data, v->len, "''", '\'');
        buf_addc(b, '\'');
    }
    buf_addf(b, "::%s", c->cast_type);
}

/* ---- arrays ---- */

static bool by_text(const struct column *c)
{
    return c->array || c->kind == TYPE_OTHER;
}

void pg_array_type(struct buf *b, const struct column *c)
{
    buf_addf(b, "%s[]", by_text(c) ? "text" : c->cast_type);
}

void pg_array_item(struct buf *b, const struct column *c, const char *alias, size_t number)
{
    buf_addf(b, "%s.c%zu", alias, number);
    if (by_text(c))
        buf_addf(b, "::%s", c->cast_type);
}

void pg_array_open(struct buf *b)
{
    buf_addc(b, '{');
}

void pg_array_add(struct buf *b, const struct column *c, const struct value *v)
{
    invariant(v->state != VALUE_UNCHANGED);
    if (b->len && b->data[b->len - 1] != '{')
        buf_addc(b, ',');
    if (v->state == VALUE_NULL) {
        buf_adds(b, "NULL");
        return;
    }
    buf_addc(b, '"');
    if (c->kind == TYPE_BYTES) {
        buf_adds(b, "\\\\x");
        add_hex_digits(b, v->data, v->len);
    } else {
        add_escaped(b, v->data, v->len, "\"\\", '\\');
    }
    buf_addc(b, '"');
}

void pg_array_close(struct buf *b)
{
    buf_addc(b, '}');
}

/* ---- COPY text ---- */

static char copy_escape(char c)
{
    switch (c) {
    case '\b':
        return 'b';
    case '\f':
        return 'f';
    case '\n':
        return 'n';
    case '\r':
        return 'r';
    case '\t':
        return 't';
    case '\v':
        return 'v';
    case '\\':
        return '\\';
    default:
        return 0;
    }
}

static void encode_text(struct buf *b, const char *data, size_t len)
{
    size_t from = 0;

    for (size_t i = 0; i < len; i++) {
        char escape = copy_escape(data[i]);

        if (!escape)
            continue;
        buf_add(b, data + from, i - from);
        buf_addc(b, '\\');
        buf_addc(b, escape);
        from = i + 1;
    }
    buf_add(b, data + from, len - from);
}

/* In slices, so that a large value never stands whole in b. */
static int encode_value(struct buf *b, const struct column *c, const struct value *v,
                        const struct pg_spill *spill, struct err *e)
{
    if (v->state == VALUE_NULL) {
        buf_adds(b, "\\N");
        return 0;
    }
    if (c->kind == TYPE_BYTES)
        buf_adds(b, "\\\\x");
    for (size_t at = 0; at < v->len;) {
        size_t n = v->len - at < PG_COPY_SLICE ? v->len - at : PG_COPY_SLICE;

        if (c->kind == TYPE_BYTES)
            add_hex_digits(b, v->data + at, n);
        else
            encode_text(b, v->data + at, n);
        at += n;
        if (spill && b->len >= PG_COPY_SLICE && spill->put(spill->arg, b, e) < 0)
            return -1;
    }
    return 0;
}

int pg_copy_encode(struct buf *b, const struct table *t, const struct row *row,
                   const struct pg_spill *spill, struct err *e)
{
    bool first = true;

    invariant(row->n == t->ncolumns);
    for (size_t i = 0; i < t->ncolumns; i++) {
        if (t->columns[i].generated)
            continue;
        invariant(row->v[i].state != VALUE_UNCHANGED);
        if (!first)
            buf_addc(b, '\t');
        first = false;
        if (encode_value(b, &t->columns[i], &row->v[i], spill, e) < 0)
            return -1;
    }
    buf_addc(b, '\n');
    return buf_check(b, "a row on its way to the target", e);
}

static char copy_unescape(char c)
{
    static const char from[] = "bfnrtv";
    static const char to[] = "\b\f\n\r\t\v";
    const char *p = c ? strchr(from, c) : NULL;

    return p ? to[p - from] : c;
}

/* One field from *at: unescaped in place; *at moves behind its delimiter. */
static void decode_field(char *line, size_t len, size_t *at, struct value *v)
{
    char *out = line + *at;
    size_t i = *at;

    if (i + 1 < len && line[i] == '\\' && line[i + 1] == 'N' &&
        (i + 2 == len || line[i + 2] == '\t')) {
        v->state = VALUE_NULL;
        *at = i + 3;
        return;
    }
    v->state = VALUE_SET;
    v->data = out;
    while (i < len && line[i] != '\t') {
        char *next = memchr(line + i, '\t', len - i);
        size_t end = next ? (size_t)(next - line) : len;
        char *slash = memchr(line + i, '\\', end - i);
        size_t run = slash ? (size_t)(slash - line) - i : end - i;

        if (out != line + i)
            memmove(out, line + i, run);
        out += run;
        i += run;
        if (!slash)
            continue;
        *out++ = i + 1 < len ? copy_unescape(line[i + 1]) : '\\';
        i += 2;
    }
    v->len = (size_t)(out - v->data);
    *at = i + 1;
}

int pg_copy_decode(struct arena *a, const struct table *t, char *line, size_t len, struct row **out,
                   struct err *e)
{
    struct row *row = row_new(a, t->ncolumns);
    size_t at = 0;

    if (len && line[len - 1] == '\n')
        len--;
    for (size_t i = 0; i < t->ncolumns; i++) {
        if (t->columns[i].generated)
            continue;
        if (at > len)
            return err_set(e, ERR_FATAL, "%s: a row came with too few columns", table_label(t));
        decode_field(line, len, &at, &row->v[i]);
        if (row->v[i].state == VALUE_SET && t->columns[i].kind == TYPE_BYTES &&
            pg_unhex(&row->v[i]) < 0)
            return err_set(e, ERR_FATAL, "%s.%s: the server's bytea is not hex", table_label(t),
                           t->columns[i].name);
    }
    if (at ? at <= len : len > 0)
        return err_set(e, ERR_FATAL, "%s: a row came with too many columns", table_label(t));
    *out = row;
    return 0;
}

void pg_add_columns(struct buf *b, const struct table *t, const char *prefix)
{
    bool first = true;

    for (size_t i = 0; i < t->ncolumns; i++) {
        if (t->columns[i].generated)
            continue;
        if (!first)
            buf_adds(b, ", ");
        first = false;
        buf_adds(b, prefix);
        pg_ident(b, t->columns[i].name);
    }
}

bool pg_has_columns(const struct table *t)
{
    for (size_t i = 0; i < t->ncolumns; i++) {
        if (!t->columns[i].generated)
            return true;
    }
    return false;
}
