/* Values between the text of their kind (core/data.h) and this server's SQL.
 *
 * The server is strict, and yet it alters some values without an error: blanks behind the end of a
 * VARCHAR are cut, digits of a second behind those that the column keeps are cut, decimals are
 * rounded, BINARY(n) is filled up, -0.0 becomes 0, NULL in an AUTO_INCREMENT or TIMESTAMP column
 * that takes none becomes a value, an ENUM takes 'A' for its label 'a' and '2' for the second of
 * its labels. Each of these is refused here, before it is sent. */
#include "engines/mysql/values.h"

#include "engines/mysql/binlog_value.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define NUMBER_MAX 400
/* Longer bytes travel escaped instead of as hex: half the size. */
#define HEX_MAX 64
#define DECIMAL_DIGITS_MAX 65
#define UUID_TEXT 36
#define UUID_BYTES 16
/* Bytes of a value in a message. */
#define SHOWN_MAX 60

bool my_type_is(const struct column *c, const char *name)
{
    size_t n = strlen(name);

    return c->source_type && strncasecmp(c->source_type, name, n) == 0 &&
           !isalnum((unsigned char)c->source_type[n]);
}

static int refuse(const struct column *c, const char *data, size_t len, struct err *e,
                  const char *why)
{
    bool raw = c->kind == TYPE_BYTES || my_type_is(c, "binary") || !data;
    int shown = raw ? 0 : len > SHOWN_MAX ? SHOWN_MAX : (int)len;

    /* Whole characters. */
    while (shown > 0 && (size_t)shown < len && ((unsigned char)data[shown] & 0xc0) == 0x80)
        shown--;
    return err_set(e, ERR_DATA, "column \"%s\" (%s): %.*s%s%s", c->name,
                   c->source_type ? c->source_type : type_kind_name(c->kind), shown,
                   raw ? "" : data, raw ? "" : ": ", why);
}

static int refuse_value(const struct column *c, const struct value *v, struct err *e,
                        const char *why)
{
    return refuse(c, v->state == VALUE_SET ? v->data : NULL, v->len, e, why);
}

/* ---- numbers ---- */

static bool is_decimal(const char *s, size_t len)
{
    size_t digits = 0;
    size_t points = 0;

    for (size_t i = len && s[0] == '-' ? 1 : 0; i < len; i++) {
        if (s[i] == '.')
            points++;
        else if (s[i] >= '0' && s[i] <= '9')
            digits++;
        else
            return false;
    }
    return digits > 0 && points <= 1;
}

static int add_integer(struct buf *b, const struct column *c, const struct value *v, struct err *e)
{
    if (!is_decimal(v->data, v->len) || memchr(v->data, '.', v->len))
        return refuse_value(c, v, e, "not an integer");
    buf_add(b, v->data, v->len);
    return 0;
}

static int add_decimal(struct buf *b, const struct column *c, const struct value *v, struct err *e)
{
    size_t scale = c->scale > 0 ? (size_t)c->scale : 0;
    size_t precision = c->precision > 0 ? (size_t)c->precision : DECIMAL_DIGITS_MAX;
    const char *end = v->data + v->len;
    const char *p = v->data;
    const char *point;
    const char *last = end;

    if (!is_decimal(v->data, v->len))
        return refuse_value(c, v, e, "not a number that this server has");
    p += *p == '-';
    while (p < end && *p == '0')
        p++;
    point = memchr(p, '.', (size_t)(end - p));
    while (point && last > point + 1 && last[-1] == '0')
        last--;
    if (point && (size_t)(last - point - 1) > scale && c->precision > 0)
        return refuse_value(c, v, e, "more digits behind the point than the column keeps");
    if ((size_t)((point ? point : end) - p) > precision - (scale < precision ? scale : precision))
        return refuse_value(c, v, e, "more digits than the column keeps");
    buf_add(b, v->data, v->len);
    return 0;
}

/* The exact double, with an exponent: without one the server reads a decimal. */
static int add_float(struct buf *b, const struct column *c, const struct value *v, struct err *e)
{
    char text[64];
    char *end;
    double d;

    if (v->len == 0 || v->len >= sizeof(text))
        return refuse_value(c, v, e, "not a number");
    memcpy(text, v->data, v->len);
    text[v->len] = '\0';
    d = c->kind == TYPE_FLOAT32 ? (double)strtof(text, &end) : strtod(text, &end);
    if (*end || !isfinite(d))
        return refuse_value(c, v, e, "neither NaN nor infinity can be held here");
    if (d == 0 && signbit(d))
        return refuse_value(c, v, e, "a negative zero cannot be held here");
    buf_addf(b, "%.16e", d);
    return 0;
}

/* ---- times ---- */

static bool digits_at(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
    }
    return true;
}

static int two(const char *s)
{
    return (s[0] - '0') * 10 + (s[1] - '0');
}

/* "2024-01-31", of a calendar that both families of engines share. */
static bool is_date(const char *s, size_t len)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int year;
    int month;
    int last;

    if (len < 10 || !digits_at(s, 4) || s[4] != '-' || !digits_at(s + 5, 2) || s[7] != '-' ||
        !digits_at(s + 8, 2))
        return false;
    year = two(s) * 100 + two(s + 2);
    month = two(s + 5);
    if (year < 1 || month < 1 || month > 12)
        return false;
    last = days[month - 1];
    if (month == 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0))
        last = 29;
    return two(s + 8) >= 1 && two(s + 8) <= last;
}

/* "10:00:00[.ffffff]": the length up to the last digit that tells something; 0: not a time. */
static size_t time_length(const char *s, size_t len)
{
    size_t n = len;

    if (len < 8 || !digits_at(s, 2) || s[2] != ':' || !digits_at(s + 3, 2) || s[5] != ':' ||
        !digits_at(s + 6, 2))
        return 0;
    if (len == 8)
        return two(s) <= 24 && two(s + 3) < 60 && two(s + 6) < 60 ? 8 : 0;
    if (s[8] != '.' || len > 15 || len == 9 || !digits_at(s + 9, len - 9))
        return 0;
    while (s[n - 1] == '0')
        n--;
    if (s[n - 1] == '.')
        n--;
    if (two(s) == 24 && (two(s + 3) || two(s + 6) || n > 8))
        return 0;
    return two(s) <= 24 && two(s + 3) < 60 && two(s + 6) < 60 ? n : 0;
}

static bool keeps_fraction(const struct column *c, size_t time_len)
{
    return time_len <= 8 || time_len - 9 <= (size_t)c->fraction;
}

static int add_date(struct buf *b, const struct column *c, const struct value *v, struct err *e)
{
    if (v->len != 10 || !is_date(v->data, v->len))
        return refuse_value(c, v, e, "not a date of the years 1 to 9999");
    buf_addf(b, "DATE'%.10s'", v->data);
    return 0;
}

static int add_time(struct buf *b, const struct column *c, const struct value *v, struct err *e)
{
    size_t n = time_length(v->data, v->len);

    if (n == 0)
        return refuse_value(c, v, e, "not a time of a day");
    if (!keeps_fraction(c, n))
        return refuse_value(c, v, e, "more digits of a second than the column keeps");
    buf_addf(b, "TIME'%.*s'", (int)n, v->data);
    return 0;
}

static int add_moment(struct buf *b, const struct column *c, const struct value *v, struct err *e)
{
    size_t len = v->len;
    size_t n;

    if (c->kind == TYPE_TIMESTAMPTZ) {
        if (len < 3 || memcmp(v->data + len - 3, "+00", 3) != 0)
            return refuse_value(c, v, e, "not a moment of the years 1 to 9999 in UTC");
        len -= 3;
    }
    if (len < 19 || !is_date(v->data, len) || v->data[10] != ' ')
        return refuse_value(c, v, e, "not a moment of the years 1 to 9999");
    n = time_length(v->data + 11, len - 11);
    if (n == 0 || two(v->data + 11) > 23)
        return refuse_value(c, v, e, "not a moment of the years 1 to 9999");
    if (!keeps_fraction(c, n))
        return refuse_value(c, v, e, "more digits of a second than the column keeps");
    if (my_type_is(c, "timestamp") && memcmp(v->data, "1970-01-01 00:00:01", 19) < 0)
        return refuse_value(c, v, e, "before what a TIMESTAMP holds (1970-01-01 00:00:01)");
    buf_addf(b, "TIMESTAMP'%.*s'", (int)(11 + n), v->data);
    return 0;
}

/* ---- text and bytes ---- */

static size_t characters(const char *s, size_t len)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++)
        n += ((unsigned char)s[i] & 0xc0) != 0x80;
    return n;
}

/* Bytes that the type holds at most; SIZE_MAX: no own limit. */
static size_t type_bytes(const struct column *c)
{
    if (my_type_is(c, "tinytext") || my_type_is(c, "tinyblob"))
        return 255;
    if (my_type_is(c, "text") || my_type_is(c, "blob"))
        return 65535;
    if (my_type_is(c, "mediumtext") || my_type_is(c, "mediumblob"))
        return 16777215;
    return SIZE_MAX;
}

static int add_text(struct buf *b, const struct column *c, const struct value *v, struct err *e)
{
    if (v->len > type_bytes(c))
        return refuse_value(c, v, e, "longer than the column");
    if (c->kind == TYPE_TEXT && c->length > 0 && characters(v->data, v->len) > (size_t)c->length)
        return refuse_value(c, v, e, "longer than the column");
    if (c->kind == TYPE_TEXT && v->len && v->data[v->len - 1] == ' ' && my_type_is(c, "char"))
        return refuse_value(c, v, e, "ends in a blank, which a CHAR column does not keep");
    my_literal(b, v->data, v->len);
    return 0;
}

/* Is the text at p, behind its quote, this label? p moves behind the closing quote; NULL: there is
 * none. Quotes are doubled, what cannot be shown is escaped by a backslash. */
static bool label_at(const char **p, const char *want, size_t len)
{
    const char *s = *p;
    bool same = true;
    size_t n = 0;

    for (; *s && !(s[0] == '\'' && s[1] != '\''); s++) {
        char c = *s;

        if ((c == '\'' || c == '\\') && s[1]) {
            s++;
            c = c == '\\' && *s == 'n' ? '\n' : c == '\\' && *s == 'r' ? '\r' : *s;
        }
        same = same && n < len && want[n] == c;
        n++;
    }
    *p = *s ? s + 1 : NULL;
    return same && n == len;
}

/* To the byte: the server takes what its collation takes for a label, and what is none and made of
 * digits as a label's number. */
static bool is_label(const char *type, const char *text, size_t len)
{
    const char *p = strchr(type, '(');

    while (p && (*p == '(' || *p == ',') && p[1] == '\'') {
        p += 2;
        if (label_at(&p, text, len))
            return true;
    }
    return false;
}

static int add_label(struct buf *b, const struct column *c, const struct value *v, struct err *e)
{
    if (my_type_is(c, "enum") && !is_label(c->source_type, v->data, v->len))
        return refuse_value(c, v, e, "none of the column's labels");
    return add_text(b, c, v, e);
}

static void add_raw(struct buf *b, const char *data, size_t len)
{
    static const char hex[] = "0123456789abcdef";

    if (len > HEX_MAX) {
        buf_adds(b, "_binary");
        my_literal(b, data, len);
        return;
    }
    buf_adds(b, "X'");
    for (size_t i = 0; i < len; i++) {
        buf_addc(b, hex[(unsigned char)data[i] >> 4]);
        buf_addc(b, hex[(unsigned char)data[i] & 15]);
    }
    buf_addc(b, '\'');
}

static int add_bytes(struct buf *b, const struct column *c, const struct value *v, struct err *e)
{
    if (v->len > type_bytes(c) || (c->length > 0 && v->len > (size_t)c->length))
        return refuse_value(c, v, e, "longer than the column");
    if (c->length > 0 && v->len < (size_t)c->length && my_type_is(c, "binary"))
        return refuse_value(c, v, e, "shorter than the column, which would fill it up with zeros");
    add_raw(b, v->data, v->len);
    return 0;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static bool is_uuid(const char *s, size_t len)
{
    if (len != UUID_TEXT)
        return false;
    for (size_t i = 0; i < len; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;

        if (dash ? s[i] != '-' : hex_value(s[i]) < 0)
            return false;
    }
    return true;
}

static int add_uuid(struct buf *b, const struct column *c, const struct value *v, struct err *e)
{
    char raw[UUID_BYTES];
    size_t n = 0;

    if (!is_uuid(v->data, v->len))
        return refuse_value(c, v, e, "not a UUID");
    if (!my_type_is(c, "binary")) {
        my_literal(b, v->data, v->len);
        return 0;
    }
    for (size_t i = 0; i < v->len; i += 2) {
        if (v->data[i] == '-')
            i++;
        raw[n++] = (char)(hex_value(v->data[i]) << 4 | hex_value(v->data[i + 1]));
    }
    add_raw(b, raw, n);
    return 0;
}

static int add_bool(struct buf *b, const struct column *c, const struct value *v, struct err *e)
{
    if (v->len != 1 || (v->data[0] != 't' && v->data[0] != 'f'))
        return refuse_value(c, v, e, "neither true nor false");
    buf_addc(b, v->data[0] == 't' ? '1' : '0');
    return 0;
}

/* ---- into SQL ---- */

typedef int add_fn(struct buf *b, const struct column *c, const struct value *v, struct err *e);

static add_fn *const add[TYPE_COUNT] = {
    [TYPE_BOOL] = add_bool,          [TYPE_INT16] = add_integer, [TYPE_INT32] = add_integer,
    [TYPE_INT64] = add_integer,      [TYPE_FLOAT32] = add_float, [TYPE_FLOAT64] = add_float,
    [TYPE_DECIMAL] = add_decimal,    [TYPE_TEXT] = add_text,     [TYPE_BYTES] = add_bytes,
    [TYPE_DATE] = add_date,          [TYPE_TIME] = add_time,     [TYPE_TIMESTAMP] = add_moment,
    [TYPE_TIMESTAMPTZ] = add_moment, [TYPE_UUID] = add_uuid,     [TYPE_JSON] = add_text,
    [TYPE_ENUM] = add_label,         [TYPE_OTHER] = add_text,
};

int my_value_literal(struct buf *out, const struct column *here, const struct value *v,
                     struct err *e)
{
    invariant(v->state != VALUE_UNCHANGED && here->kind < TYPE_COUNT);
    if (v->state == VALUE_SET)
        return add[here->kind](out, here, v, e);
    if (here->not_null)
        return refuse_value(here, v, e, "NULL in a column that takes none");
    buf_adds(out, "NULL");
    return 0;
}

void my_value_select(struct buf *out, const struct column *here)
{
    bool single = here->kind == TYPE_FLOAT32;

    buf_adds(out, single ? "CAST(" : "");
    my_ident(out, here->name);
    buf_adds(out, single ? " AS DOUBLE)" : "");
}

static bool is_bare(enum type_kind kind)
{
    return kind == TYPE_BOOL || kind == TYPE_INT16 || kind == TYPE_INT32 || kind == TYPE_INT64 ||
           kind == TYPE_DECIMAL;
}

void my_value_relay(struct buf *out, const struct column *here, const char *text, unsigned long len)
{
    if (!text)
        buf_adds(out, "NULL");
    else if (is_bare(here->kind))
        buf_add(out, text, len);
    else if (here->kind == TYPE_BYTES || my_type_is(here, "binary"))
        add_raw(out, text, len);
    else
        my_literal(out, text, len);
}

/* ---- out of the server ---- */

static int put(struct arena *a, const char *text, size_t len, const char *tail, struct value *out)
{
    size_t more = strlen(tail);
    char *copy = arena_alloc(a, len + more + 1);

    memcpy(copy, text, len);
    memcpy(copy + len, tail, more + 1);
    out->data = copy;
    out->len = len + more;
    return 0;
}

/* ZEROFILL prints zeros in front that are no part of the number. */
static int read_number(struct arena *a, const char *text, size_t len, struct value *out)
{
    bool minus = len && text[0] == '-';
    size_t from = minus;
    char *copy;

    while (from + 1 < len && text[from] == '0' && text[from + 1] != '.')
        from++;
    if (from == (size_t)minus)
        return put(a, text, len, "", out);
    put(a, text + from - minus, len - from + minus, "", out);
    copy = arena_strndup(a, out->data, out->len);
    if (minus)
        copy[0] = '-';
    out->data = copy;
    return 0;
}

static int read_float(struct arena *a, const struct column *c, const char *text, size_t len,
                      struct value *out, struct err *e)
{
    char number[NUMBER_MAX];
    char shortest[40];
    double d;

    if (len >= sizeof(number))
        return refuse(c, text, len, e, "not a number");
    memcpy(number, text, len);
    number[len] = '\0';
    d = strtod(number, NULL);
    if (c->kind == TYPE_FLOAT32 && (double)(float)d != d)
        return refuse(c, text, len, e, "more digits than a float of four bytes has");
    return put(a, shortest, binlog_float_text(d, c->kind == TYPE_FLOAT32, shortest), "", out);
}

static int read_moment(struct arena *a, const struct column *c, const char *text, size_t len,
                       struct value *out, struct err *e)
{
    size_t n = len > 11 ? time_length(text + 11, len - 11) : 0;

    if (n == 0 || !is_date(text, len))
        return refuse(c, text, len, e, "a zero or impossible date");
    return put(a, text, 11 + n, c->kind == TYPE_TIMESTAMPTZ ? "+00" : "", out);
}

static int read_uuid(struct arena *a, const struct column *c, const char *text, size_t len,
                     struct value *out, struct err *e)
{
    char canonical[UUID_TEXT + 1];
    size_t n = 0;

    if (my_type_is(c, "binary") && len == UUID_BYTES) {
        for (size_t i = 0; i < len; i++) {
            if (i == 4 || i == 6 || i == 8 || i == 10)
                canonical[n++] = '-';
            snprintf(canonical + n, 3, "%02x", (unsigned char)text[i]);
            n += 2;
        }
        return put(a, canonical, n, "", out);
    }
    if (!is_uuid(text, len))
        return refuse(c, text, len, e, "not a UUID");
    for (n = 0; n < len; n++)
        canonical[n] = (char)tolower((unsigned char)text[n]);
    return put(a, canonical, n, "", out);
}

static int read_bool(const struct column *c, const char *text, size_t len, struct value *out,
                     struct err *e)
{
    if (len != 1 || (text[0] != '0' && text[0] != '1'))
        return refuse(c, text, len, e, "neither 0 nor 1 in a boolean");
    out->data = text[0] == '1' ? "t" : "f";
    out->len = 1;
    return 0;
}

int my_value_borrow(struct arena *a, const struct column *here, const char *text, unsigned long len,
                    struct value *out, struct err *e)
{
    size_t n;

    *out = (struct value){.state = text ? VALUE_SET : VALUE_NULL, .data = text, .len = len};
    if (!text)
        return 0;
    switch (here->kind) {
    case TYPE_BOOL:
        return read_bool(here, text, len, out, e);
    case TYPE_INT16:
    case TYPE_INT32:
    case TYPE_INT64:
    case TYPE_DECIMAL:
        return read_number(a, text, len, out);
    case TYPE_FLOAT32:
    case TYPE_FLOAT64:
        return read_float(a, here, text, len, out, e);
    case TYPE_DATE:
        if (len != 10 || !is_date(text, len))
            return refuse(here, text, len, e, "a zero or impossible date");
        return put(a, text, len, "", out);
    case TYPE_TIME:
        n = time_length(text, len);
        return n ? put(a, text, n, "", out) : refuse(here, text, len, e, "not a time of a day");
    case TYPE_TIMESTAMP:
    case TYPE_TIMESTAMPTZ:
        return read_moment(a, here, text, len, out, e);
    case TYPE_UUID:
        return read_uuid(a, here, text, len, out, e);
    case TYPE_ENUM:
        return len ? 0 : refuse(here, text, len, e, "no label (MySQL's 0, '')");
    default:
        return 0;
    }
}

int my_value_read(struct arena *a, const struct column *here, const char *text, unsigned long len,
                  struct value *out, struct err *e)
{
    if (my_value_borrow(a, here, text, len, out, e) < 0)
        return -1;
    if (out->state == VALUE_SET && out->data == text)
        out->data = arena_strndup(a, text, len);
    return 0;
}

/* ---- rows ---- */

void my_add_columns(struct buf *b, const struct table *t, const char *prefix)
{
    bool first = true;

    for (size_t i = 0; i < t->ncolumns; i++) {
        if (t->columns[i].generated)
            continue;
        buf_adds(b, first ? "" : ", ");
        first = false;
        buf_adds(b, prefix);
        my_ident(b, t->columns[i].name);
    }
}

void my_add_selects(struct buf *b, const struct table *t)
{
    bool first = true;

    for (size_t i = 0; i < t->ncolumns; i++) {
        if (t->columns[i].generated)
            continue;
        buf_adds(b, first ? "" : ", ");
        first = false;
        my_value_select(b, &t->columns[i]);
    }
    buf_adds(b, first ? "1" : "");
}

int my_row_read(struct arena *a, const struct table *t, MYSQL_ROW row, const unsigned long *lengths,
                bool borrow, struct row **out, struct err *e)
{
    size_t at = 0;

    *out = row_new(a, t->ncolumns);
    for (size_t i = 0; i < t->ncolumns; i++) {
        const struct column *c = &t->columns[i];
        int rc;

        if (c->generated)
            continue;
        rc = borrow ? my_value_borrow(a, c, row[at], lengths[at], &(*out)->v[i], e)
                    : my_value_read(a, c, row[at], lengths[at], &(*out)->v[i], e);
        if (rc < 0)
            return err_wrap(e, "%s", table_label(t));
        at++;
    }
    return 0;
}

int my_add_tuple(struct buf *b, const struct table *t, const struct row *row, struct err *e)
{
    bool first = true;

    invariant(row->n == t->ncolumns);
    buf_addc(b, '(');
    for (size_t i = 0; i < t->ncolumns; i++) {
        if (t->columns[i].generated)
            continue;
        buf_adds(b, first ? "" : ", ");
        first = false;
        if (my_value_literal(b, &t->columns[i], &row->v[i], e) < 0)
            return err_wrap(e, "%s", table_label(t));
    }
    buf_addc(b, ')');
    return 0;
}
