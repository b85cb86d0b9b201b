#include "engines/mysql/binlog_value.h"

#include "core/text.h"
#include "engines/mysql/binlog_bytes.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX 100
#define DIGITS_A_WORD 9
#define DECIMAL_DIGITS_MAX 65
#define DECIMAL_SCALE_MAX 38

/* Bytes that hold so many of a decimal's digits. */
static const uint8_t digit_bytes[DIGITS_A_WORD + 1] = {0, 1, 1, 2, 2, 3, 3, 4, 4, 4};

/* ---- sizes ---- */

size_t binlog_decimal_size(unsigned digits, unsigned scale)
{
    unsigned whole = digits - scale;

    if (digits == 0 || digits > DECIMAL_DIGITS_MAX || scale > DECIMAL_SCALE_MAX || scale > digits)
        return 0;
    return whole / DIGITS_A_WORD * 4u + digit_bytes[whole % DIGITS_A_WORD] +
           scale / DIGITS_A_WORD * 4u + digit_bytes[scale % DIGITS_A_WORD];
}

static size_t fraction_bytes(const struct binlog_column *c)
{
    return (c->meta + 1u) / 2;
}

/* Bytes of a value whose size its type tells; 0: it has a length in front, see length_bytes. */
static size_t fixed_size(const struct binlog_column *c)
{
    switch (c->type) {
    case BT_TINY:
    case BT_YEAR:
        return 1;
    case BT_SHORT:
        return 2;
    case BT_INT24:
    case BT_DATE:
    case BT_NEWDATE:
    case BT_TIME:
        return 3;
    case BT_LONG:
    case BT_FLOAT:
    case BT_TIMESTAMP:
        return 4;
    case BT_LONGLONG:
    case BT_DOUBLE:
    case BT_DATETIME:
        return 8;
    case BT_TIMESTAMP2:
        return 4 + fraction_bytes(c);
    case BT_DATETIME2:
        return 5 + fraction_bytes(c);
    case BT_TIME2:
        return 3 + fraction_bytes(c);
    case BT_BIT:
        return (size_t)(c->meta >> 8) + ((c->meta & 0xff) > 0);
    case BT_NEWDECIMAL:
        return binlog_decimal_size(c->digits, c->scale);
    case BT_ENUM:
    case BT_SET:
        return c->meta;
    default:
        return 0;
    }
}

static size_t length_bytes(const struct binlog_column *c)
{
    switch (c->type) {
    case BT_STRING:
    case BT_VAR_STRING:
    case BT_VARCHAR:
    case BT_VARCHAR_COMPRESSED:
        return c->meta > 255 ? 2 : 1;
    case BT_BLOB:
    case BT_BLOB_COMPRESSED:
    case BT_JSON:
    case BT_GEOMETRY:
    case BT_VECTOR:
        return c->meta >= 1 && c->meta <= 4 ? c->meta : 0;
    default:
        return 0;
    }
}

/* The value's bytes, whatever its type; NULL and r->bad: truncated, or a type without a size. */
static const uint8_t *take_bytes(const struct binlog_column *c, struct reader *r, size_t *len)
{
    size_t prefix = length_bytes(c);
    size_t size = prefix ? (size_t)binlog_le(r, prefix) : fixed_size(c);

    *len = size;
    if (!prefix && size == 0)
        r->bad = true;
    return r->bad ? NULL : reader_bytes(r, size);
}

void binlog_value_skip(const struct binlog_column *c, struct reader *r)
{
    size_t len;

    if (c->type != BT_NULL)
        (void)take_bytes(c, r, &len);
}

/* ---- numbers ---- */

static uint64_t little(const uint8_t *p, size_t n)
{
    uint64_t v = 0;

    while (n-- > 0)
        v = v << 8 | p[n];
    return v;
}

static uint64_t big(const uint8_t *p, size_t n)
{
    uint64_t v = 0;

    for (size_t i = 0; i < n; i++)
        v = v << 8 | p[i];
    return v;
}

static size_t put_integer(const struct binlog_column *c, const uint8_t *p, size_t n, char *out)
{
    uint64_t v = little(p, n);
    unsigned shift = (unsigned)(64 - n * 8);

    if (c->is_unsigned)
        return (size_t)snprintf(out, TEXT_MAX, "%" PRIu64, v);
    return (size_t)snprintf(out, TEXT_MAX, "%" PRId64, (int64_t)(v << shift) >> shift);
}

/* Digits, and the exponent of the first one, of the shortest form. */
static size_t shortest(double d, bool single, char digits[20], int *exponent)
{
    char text[40];
    size_t n = 0;

    for (int precision = 1; precision <= 17; precision++) {
        snprintf(text, sizeof(text), "%.*e", precision - 1, d);
        if (single ? strtof(text, NULL) == (float)d : strtod(text, NULL) == d)
            break;
    }
    *exponent = atoi(strchr(text, 'e') + 1);
    for (const char *p = text; *p != 'e'; p++) {
        if (*p >= '0' && *p <= '9' && n < 19)
            digits[n++] = *p;
    }
    while (n > 1 && digits[n - 1] == '0')
        n--;
    digits[n] = '\0';
    return n;
}

size_t binlog_float_text(double d, bool single, char out[40])
{
    char digits[20];
    int exponent;
    size_t n;
    const char *sign = signbit(d) ? "-" : "";

    if (isnan(d))
        return (size_t)snprintf(out, 40, "NaN");
    if (isinf(d))
        return (size_t)snprintf(out, 40, "%sInfinity", sign);
    if (d == 0)
        return (size_t)snprintf(out, 40, "%s0", sign);
    n = shortest(fabs(d), single, digits, &exponent);
    if (exponent < -4 || exponent >= (single ? 6 : 15))
        return (size_t)snprintf(out, 40, "%s%c%s%se%c%02d", sign, digits[0], n > 1 ? "." : "",
                                digits + 1, exponent < 0 ? '-' : '+', abs(exponent));
    if (exponent < 0)
        return (size_t)snprintf(out, 40, "%s0.%.*s%s", sign, -exponent - 1, "0000", digits);
    if ((int)n <= exponent + 1)
        return (size_t)snprintf(out, 40, "%s%s%.*s", sign, digits, exponent + 1 - (int)n,
                                "000000000000000");
    return (size_t)snprintf(out, 40, "%s%.*s.%s", sign, exponent + 1, digits,
                            digits + exponent + 1);
}

static size_t put_float(const uint8_t *p, bool single, char *out)
{
    uint64_t bits = little(p, single ? 4 : 8);
    uint32_t half = (uint32_t)bits;
    float f;
    double d;

    memcpy(&f, &half, sizeof(f));
    memcpy(&d, &bits, sizeof(d));
    return binlog_float_text(single ? (double)f : d, single, out);
}

/* One group of digits, big-endian, with the leading zeros that `width` asks for. */
static size_t put_group(const uint8_t **p, unsigned width, uint8_t flip, bool first, char *out)
{
    size_t n = digit_bytes[width];
    uint64_t v = 0;

    for (size_t i = 0; i < n; i++)
        v = v << 8 | ((*p)[i] ^ flip ^ (first && i == 0 ? 0x80 : 0));
    *p += n;
    return n ? (size_t)snprintf(out, TEXT_MAX, "%0*" PRIu64, (int)width, v) : 0;
}

/* decimal2bin of the server: groups of nine digits in four bytes, a shorter group at either end;
 * the highest bit is the sign, and a negative number has all its bits turned. */
size_t binlog_decimal_text(const uint8_t *bytes, unsigned digits, unsigned scale, char out[100])
{
    unsigned whole = digits - scale;
    bool negative = !(bytes[0] & 0x80);
    uint8_t flip = negative ? 0xff : 0;
    char text[TEXT_MAX * 2];
    const uint8_t *p = bytes;
    size_t n = 1; /* a zero in front, for numbers that have nothing there */
    size_t skip = 0;

    text[0] = '0';
    if (whole % DIGITS_A_WORD)
        n += put_group(&p, whole % DIGITS_A_WORD, flip, p == bytes, text + n);
    for (unsigned i = 0; i < whole / DIGITS_A_WORD; i++)
        n += put_group(&p, DIGITS_A_WORD, flip, p == bytes, text + n);
    while (skip + 1 < n && text[skip] == '0')
        skip++;
    if (scale)
        text[n++] = '.';
    for (unsigned i = 0; i < scale / DIGITS_A_WORD; i++)
        n += put_group(&p, DIGITS_A_WORD, flip, p == bytes, text + n);
    if (scale % DIGITS_A_WORD)
        n += put_group(&p, scale % DIGITS_A_WORD, flip, p == bytes, text + n);
    return (size_t)snprintf(out, TEXT_MAX, "%s%.*s", negative ? "-" : "", (int)(n - skip),
                            text + skip);
}

/* ---- times ---- */

/* Bits `from` (the lowest) to from + n - 1. */
static unsigned bits_of(uint64_t v, unsigned from, unsigned n)
{
    return (unsigned)(v >> from & ((1u << n) - 1));
}

/* The fraction behind a time, in microseconds: two digits a byte. */
static unsigned fraction_of(const struct binlog_column *c, const uint8_t *p)
{
    static const unsigned unit[] = {1, 10000, 100, 1};
    size_t n = fraction_bytes(c);

    return n == 0 || n > 3 ? 0 : (unsigned)big(p, n) * unit[n];
}

static size_t put_fraction(unsigned us, char *out)
{
    size_t n;

    if (us == 0)
        return 0;
    n = (size_t)snprintf(out, TEXT_MAX, ".%06u", us);
    while (out[n - 1] == '0')
        n--;
    return n;
}

struct civil {
    unsigned year, month, day, hour, minute, second, us;
};

static size_t put_date(const struct civil *t, char *out)
{
    return (size_t)snprintf(out, TEXT_MAX, "%04u-%02u-%02u", t->year, t->month, t->day);
}

static size_t put_clock(const struct civil *t, char *out)
{
    size_t n = (size_t)snprintf(out, TEXT_MAX, "%02u:%02u:%02u", t->hour, t->minute, t->second);

    return n + put_fraction(t->us, out + n);
}

/* Days since 1970 to a date (Howard Hinnant, "chrono-compatible low-level date algorithms"). */
static void civil_of_unix(uint32_t seconds, struct civil *out)
{
    unsigned z = seconds / 86400 + 719468;
    unsigned era = z / 146097;
    unsigned doe = z - era * 146097;
    unsigned yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    unsigned mp = (5 * doy + 2) / 153;

    out->day = doy - (153 * mp + 2) / 5 + 1;
    out->month = mp < 10 ? mp + 3 : mp - 9;
    out->year = yoe + era * 400 + (out->month <= 2);
    out->hour = seconds / 3600 % 24;
    out->minute = seconds / 60 % 60;
    out->second = seconds % 60;
}

/* A zero or impossible date is none that another server could hold. */
static bool is_date(const struct civil *t)
{
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = t->year % 4 == 0 && (t->year % 100 != 0 || t->year % 400 == 0);

    if (t->year == 0 || t->year > 9999 || t->month < 1 || t->month > 12)
        return false;
    return t->day >= 1 && t->day <= days[t->month - 1] + (unsigned)(leap && t->month == 2);
}

static void civil_of_datetime2(const struct binlog_column *c, const uint8_t *p, struct civil *out)
{
    uint64_t v = big(p, 5) - ((uint64_t)1 << 39);
    unsigned months = bits_of(v, 22, 17);

    *out = (struct civil){.year = months / 13,
                          .month = months % 13,
                          .day = bits_of(v, 17, 5),
                          .hour = bits_of(v, 12, 5),
                          .minute = bits_of(v, 6, 6),
                          .second = bits_of(v, 0, 6),
                          .us = fraction_of(c, p + 5)};
}

/* DATETIME and TIMESTAMP, with or without a zone behind it. */
static size_t put_moment(const struct binlog_column *c, const struct column *plan, const uint8_t *p,
                         char *out, const char **unfit, struct arena *a)
{
    struct civil t = {0};
    size_t n;
    bool zero = false;

    if (c->type == BT_TIMESTAMP2) {
        zero = big(p, 4) == 0;
        civil_of_unix((uint32_t)big(p, 4), &t);
        t.us = fraction_of(c, p + 4);
    } else {
        civil_of_datetime2(c, p, &t);
    }
    if (zero)
        *unfit = "it holds the zero timestamp 0000-00-00 00:00:00";
    else if (!is_date(&t) || t.hour > 23 || t.minute > 59 || t.second > 59 || t.us > 999999)
        *unfit = arena_printf(a, "it holds %04u-%02u-%02u %02u:%02u:%02u, which is no date", t.year,
                              t.month, t.day, t.hour, t.minute, t.second);
    n = put_date(&t, out);
    out[n++] = ' ';
    n += put_clock(&t, out + n);
    if (plan->kind == TYPE_TIMESTAMPTZ)
        n += (size_t)snprintf(out + n, TEXT_MAX, "+00");
    return n;
}

static size_t put_day(const uint8_t *p, char *out, const char **unfit, struct arena *a)
{
    uint64_t v = little(p, 3);
    struct civil t = {
        .year = bits_of(v, 9, 15), .month = bits_of(v, 5, 4), .day = bits_of(v, 0, 5)};
    size_t n = put_date(&t, out);

    if (!is_date(&t))
        *unfit = arena_printf(a, "it holds %s, which is no date", out);
    return n;
}

static size_t put_time(const struct binlog_column *c, const uint8_t *p, char *out,
                       const char **unfit, struct arena *a)
{
    static const unsigned places[] = {1, 100, 10000, 1000000};
    size_t more = fraction_bytes(c) > 3 ? 3 : fraction_bytes(c);
    uint64_t v = big(p, 3 + more);
    uint64_t sign = (uint64_t)0x800000 << 8 * more;
    bool negative = v < sign;
    struct civil t = {0};
    size_t n;

    /* Behind the sign one number, its complement if negative: the fraction's bytes are its low
     * ones, so that they borrow from the seconds. */
    v = negative ? sign - v : v - sign;
    t.us = (unsigned)(v & (((uint64_t)1 << 8 * more) - 1)) * (places[3] / places[more]);
    v >>= 8 * more;
    t.hour = bits_of(v, 12, 10);
    t.minute = bits_of(v, 6, 6);
    t.second = bits_of(v, 0, 6);
    n = put_clock(&t, out);
    if (negative)
        *unfit = arena_printf(a, "it holds -%s, which is no time of the day", out);
    else if (t.hour > 24 || t.minute > 59 || t.second > 59 || t.us > 999999 ||
             (t.hour == 24 && (t.minute || t.second || t.us)))
        *unfit = arena_printf(a, "it holds %s, which is no time of the day", out);
    return n;
}

/* ---- texts and bytes ---- */

static const char *padded(struct arena *a, const uint8_t *p, size_t n, size_t want)
{
    char *out = arena_zalloc(a, want + 1);

    if (n)
        memcpy(out, p, n);
    return out;
}

/* BINARY(n): the log leaves out the zeros at the end. */
static void take_padded(struct arena *a, const struct binlog_column *c, const uint8_t *p,
                        struct value *v)
{
    bool fixed = c->type == BT_STRING && binlog_charset_of(c->collation) == CHARSET_BINARY;

    if (fixed && v->len < c->meta) {
        v->data = padded(a, p, v->len, c->meta);
        v->len = c->meta;
    }
}

/* As 36 characters or 16 bytes. */
static void take_uuid(struct arena *a, const struct binlog_column *c, const uint8_t *p,
                      struct value *v, const char **unfit)
{
    static const char hex[] = "0123456789abcdef";
    char *out = arena_zalloc(a, 37);

    take_padded(a, c, p, v);
    p = (const uint8_t *)v->data;
    if (v->len == 36) {
        for (size_t i = 0; i < 36; i++)
            out[i] = (char)(p[i] >= 'A' && p[i] <= 'F' ? p[i] + 32 : p[i]);
    } else if (v->len == 16) {
        for (size_t i = 0, k = 0; i < 16; i++) {
            if (i == 4 || i == 6 || i == 8 || i == 10)
                out[k++] = '-';
            out[k++] = hex[p[i] >> 4];
            out[k++] = hex[p[i] & 15];
        }
    }
    for (size_t i = 0; i < 36 && !*unfit; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;

        if (dash ? out[i] != '-' : !out[i] || !strchr(hex, out[i]))
            *unfit = "it holds a text that is no uuid";
    }
    v->data = out;
    v->len = 36;
}

static void take_text(struct arena *a, const struct binlog_column *c, const struct column *plan,
                      const uint8_t *p, struct value *v, const char **unfit)
{
    if (plan->kind == TYPE_UUID)
        take_uuid(a, c, p, v, unfit);
    else if (plan->kind == TYPE_BYTES)
        take_padded(a, c, p, v);
    else if (!text_is_utf8((const char *)p, v->len))
        *unfit = "it holds bytes that are not UTF-8";
}

static void take_label(const struct binlog_column *c, const uint8_t *p, size_t len, struct value *v,
                       const char **unfit, struct arena *a)
{
    uint64_t i = little(p, len);

    if (i == 0 || i > c->nlabels) {
        *unfit =
            arena_printf(a, "it holds the enum value %" PRIu64 ", which is none of its labels", i);
        return;
    }
    v->data = c->labels[i - 1].text;
    v->len = c->labels[i - 1].len;
    if (!text_is_utf8(v->data, v->len))
        *unfit = "it holds a label that is not UTF-8";
}

static void take_json(struct arena *a, const uint8_t *p, struct value *v, const char **unfit)
{
    v->data = binlog_json_text(a, p, v->len, &v->len);
    if (!v->data) {
        v->data = "";
        *unfit = "it holds JSON in a form that this version does not know";
    }
}

/* ---- one value ---- */

static size_t put_scalar(struct arena *a, const struct binlog_column *c, const struct column *plan,
                         const uint8_t *p, size_t len, char *out, const char **unfit)
{
    switch (c->type) {
    case BT_TINY:
    case BT_SHORT:
    case BT_INT24:
    case BT_LONG:
    case BT_LONGLONG:
        if (plan->kind != TYPE_BOOL)
            return put_integer(c, p, len, out);
        if (*p > 1)
            *unfit = arena_printf(a, "it holds %d, which is neither true nor false",
                                  c->is_unsigned ? *p : (int)(int8_t)*p);
        out[0] = *p ? 't' : 'f';
        return 1;
    case BT_FLOAT:
        return put_float(p, true, out);
    case BT_DOUBLE:
        return put_float(p, false, out);
    case BT_NEWDECIMAL:
        return binlog_decimal_text(p, c->digits, c->scale, out);
    case BT_DATE:
    case BT_NEWDATE:
        return put_day(p, out, unfit, a);
    case BT_TIME2:
        return put_time(c, p, out, unfit, a);
    case BT_TIMESTAMP2:
    case BT_DATETIME2:
        return put_moment(c, plan, p, out, unfit, a);
    default:
        /* No plan has such a column (kinds_of()); a table of ours may have been given one. */
        *unfit = "it is of a type that this version does not know";
        return 0;
    }
}

void binlog_value_take(struct arena *a, const struct binlog_column *c, const struct column *plan,
                       struct reader *r, struct value *out, const char **unfit)
{
    char text[TEXT_MAX * 2];
    const uint8_t *p = take_bytes(c, r, &out->len);

    out->state = VALUE_SET;
    out->data = (const char *)p;
    if (!p) {
        out->len = 0;
        return;
    }
    switch (c->type) {
    case BT_STRING:
    case BT_VAR_STRING:
    case BT_VARCHAR:
    case BT_BLOB:
        take_text(a, c, plan, p, out, unfit);
        break;
    case BT_ENUM:
        take_label(c, p, out->len, out, unfit, a);
        break;
    case BT_JSON:
        take_json(a, p, out, unfit);
        break;
    default:
        out->len = put_scalar(a, c, plan, p, out->len, text, unfit);
        out->data = arena_strndup(a, text, out->len);
        break;
    }
}

/* ---- the plan's column against the log's ---- */

static unsigned kinds_of(const struct binlog_column *c)
{
    static const unsigned moments = 1u << TYPE_TIMESTAMP | 1u << TYPE_TIMESTAMPTZ;
    static const unsigned integers =
        1u << TYPE_INT16 | 1u << TYPE_INT32 | 1u << TYPE_INT64 | 1u << TYPE_DECIMAL;

    switch (c->type) {
    case BT_TINY:
        return integers | 1u << TYPE_BOOL;
    case BT_SHORT:
    case BT_INT24:
    case BT_LONG:
    case BT_LONGLONG:
        return integers;
    case BT_FLOAT:
        return 1u << TYPE_FLOAT32;
    case BT_DOUBLE:
        return 1u << TYPE_FLOAT64;
    case BT_NEWDECIMAL:
        return 1u << TYPE_DECIMAL;
    case BT_DATE:
    case BT_NEWDATE:
        return 1u << TYPE_DATE;
    case BT_TIME2:
        return 1u << TYPE_TIME;
    case BT_TIMESTAMP2:
    case BT_DATETIME2:
        return moments;
    case BT_JSON:
        return 1u << TYPE_JSON;
    case BT_ENUM:
        return 1u << TYPE_ENUM | 1u << TYPE_TEXT;
    case BT_STRING:
    case BT_VAR_STRING:
    case BT_VARCHAR:
    case BT_BLOB:
        return binlog_charset_of(c->collation) == CHARSET_BINARY
                   ? 1u << TYPE_BYTES | 1u << TYPE_UUID
                   : 1u << TYPE_TEXT | 1u << TYPE_UUID | 1u << TYPE_JSON;
    default:
        return 0;
    }
}

static bool is_integer(const struct binlog_column *c)
{
    return c->type == BT_TINY || c->type == BT_SHORT || c->type == BT_INT24 || c->type == BT_LONG ||
           c->type == BT_LONGLONG;
}

static bool has_fraction(const struct binlog_column *c)
{
    return c->type == BT_TIMESTAMP2 || c->type == BT_DATETIME2 || c->type == BT_TIME2;
}

static bool takes_charset(const struct binlog_column *c)
{
    return c->type == BT_STRING || c->type == BT_VAR_STRING || c->type == BT_VARCHAR ||
           c->type == BT_BLOB;
}

static bool labels_are_utf8(const struct binlog_column *c)
{
    bool ascii = true;

    for (size_t i = 0; i < c->nlabels; i++) {
        for (size_t k = 0; k < c->labels[i].len; k++)
            ascii &= (uint8_t)c->labels[i].text[k] < 0x80;
    }
    return ascii || binlog_charset_of(c->collation) == CHARSET_UTF8;
}

static bool sizes_agree(const struct binlog_column *c, const struct column *plan)
{
    if (c->type == BT_NEWDECIMAL)
        return c->digits == plan->precision && c->scale == plan->scale &&
               binlog_decimal_size(c->digits, c->scale) > 0;
    if (has_fraction(c))
        return c->meta == plan->fraction && c->meta <= 6;
    if (c->type == BT_STRING && plan->kind == TYPE_BYTES && plan->length > 0)
        return c->meta == plan->length;
    if (c->type == BT_ENUM)
        return c->meta == 1 || c->meta == 2;
    if (c->type == BT_BLOB || c->type == BT_JSON)
        return c->meta >= 1 && c->meta <= 4;
    return true;
}

const char *binlog_value_unfit(struct arena *a, const struct binlog_column *c,
                               const struct column *plan)
{
    const char *type = plan->source_type ? plan->source_type : "";

    if (!(kinds_of(c) >> plan->kind & 1))
        return arena_printf(a,
                            "column \"%s\" was planned as %s and is of the binlog's type %u there",
                            plan->name, type, c->type);
    if (takes_charset(c) && binlog_charset_of(c->collation) == CHARSET_UNTOLD)
        return arena_printf(a, "the binlog does not tell the character set of column \"%s\"",
                            plan->name);
    if (takes_charset(c) && binlog_charset_of(c->collation) == CHARSET_FOREIGN)
        return arena_printf(a, "column \"%s\" is neither in UTF-8 nor ASCII (collation %u)",
                            plan->name, c->collation);
    if (c->type == BT_ENUM && !labels_are_utf8(c))
        return arena_printf(a, "the labels of column \"%s\" are not UTF-8 (collation %u)",
                            plan->name, c->collation);
    if (is_integer(c) && c->is_unsigned != (strstr(type, "unsigned") != NULL))
        return arena_printf(a, "column \"%s\" was planned as %s and is %s there", plan->name, type,
                            c->is_unsigned ? "unsigned" : "signed");
    if (!sizes_agree(c, plan))
        return arena_printf(a, "column \"%s\" was planned as %s and has another size there",
                            plan->name, type);
    return NULL;
}
