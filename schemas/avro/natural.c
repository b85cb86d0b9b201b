#include "schemas/avro/natural.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DAY_US INT64_C(86400000000)
#define DAYS_MIN (-719162) /* 0001-01-01 */
#define DAYS_MAX 2932896   /* 9999-12-31 */

enum natural_type natural_type_of(const struct column *c)
{
    static const enum natural_type types[TYPE_COUNT] = {
        [TYPE_BOOL] = NATURAL_BOOLEAN,    [TYPE_INT16] = NATURAL_INT,
        [TYPE_INT32] = NATURAL_INT,       [TYPE_INT64] = NATURAL_LONG,
        [TYPE_FLOAT32] = NATURAL_FLOAT,   [TYPE_FLOAT64] = NATURAL_DOUBLE,
        [TYPE_DECIMAL] = NATURAL_DECIMAL, [TYPE_BYTES] = NATURAL_BYTES,
        [TYPE_DATE] = NATURAL_INT,        [TYPE_TIME] = NATURAL_LONG,
        [TYPE_TIMESTAMP] = NATURAL_LONG,  [TYPE_TIMESTAMPTZ] = NATURAL_LONG,
    };

    if (c->kind == TYPE_DECIMAL && (c->precision < 1 || c->precision > NATURAL_PRECISION_MAX ||
                                    c->scale < 0 || c->scale > c->precision))
        return NATURAL_NONE;
    return types[c->kind];
}

/* ---- integers ---- */

/* An optional minus and 1 to 19 digits. The print-back check refuses odd forms. */
static bool parse_int(const char *p, size_t len, int64_t *out)
{
    bool negative = len > 0 && p[0] == '-';
    uint64_t v = 0;

    p += negative;
    len -= negative;
    if (len < 1 || len > 19)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (p[i] < '0' || p[i] > '9')
            return false;
        v = v * 10 + (uint64_t)(p[i] - '0');
    }
    if (v > (uint64_t)INT64_MAX + negative)
        return false;
    *out = negative ? (int64_t)(0 - v) : (int64_t)v;
    return true;
}

static size_t print_int(int64_t v, char *out)
{
    char digits[24];
    uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    size_t n = sizeof(digits);
    size_t len = 0;

    do {
        digits[--n] = (char)('0' + u % 10);
        u /= 10;
    } while (u);
    if (v < 0)
        out[len++] = '-';
    memcpy(out + len, digits + n, sizeof(digits) - n);
    len += sizeof(digits) - n;
    out[len] = '\0';
    return len;
}

/* ---- floating point ---- */

static bool parse_float(const struct column *c, const char *text, size_t len, struct natural *out)
{
    char copy[40];
    char *end;

    if (len == 0 || len >= sizeof(copy))
        return false;
    memcpy(copy, text, len);
    copy[len] = '\0';
    out->d = c->kind == TYPE_FLOAT32 ? (double)strtof(copy, &end) : strtod(copy, &end);
    return end == copy + len;
}

/* Below these no text of so few digits lies exactly half-way between two numbers. */
#define HALFWAY_DOUBLE 0x1p52
#define HALFWAY_FLOAT 0x1p22

/* The next number above (step 1) or below (-1) a positive one: its bits, counted on. */
static double neighbour(bool single, double d, int step)
{
    uint64_t bits;
    uint32_t bits32;
    float f = (float)d;

    if (single) {
        memcpy(&bits32, &f, sizeof(f));
        bits32 += (uint32_t)step;
        memcpy(&f, &bits32, sizeof(f));
        return (double)f;
    }
    memcpy(&bits, &d, sizeof(d));
    bits += (uint64_t)(int64_t)step;
    memcpy(&d, &bits, sizeof(d));
    return d;
}

/* A text that lies exactly half-way to a neighbour reads back too (ties go to even), but PostgreSQL
 * does not print it: its shortest form lies strictly inside. */
static bool float_reads_back(bool single, double d, const char *text)
{
    long double exact;

    if (single ? strtof(text, NULL) != (float)d : strtod(text, NULL) != d)
        return false;
    if (d < (single ? HALFWAY_FLOAT : HALFWAY_DOUBLE))
        return true;
    exact = strtold(text, NULL);
    return exact != ((long double)d + neighbour(single, d, 1)) / 2 &&
           exact != ((long double)d + neighbour(single, d, -1)) / 2;
}

/* The shortest decimal form that reads back as the same number, as "d.ddde±dd". A number of up to
 * DBL_DIG digits survives the way there and back, so no shorter precision need be tried first;
 * denormals have fewer digits, so they count from one. */
static void float_shortest(bool single, double d, char *out, size_t size)
{
    int digits = single ? FLT_DIG : DBL_DIG;
    int most = single ? FLT_DECIMAL_DIG : DBL_DECIMAL_DIG;

    if (fabs(d) < (single ? (double)FLT_MIN : DBL_MIN))
        digits = 1;
    for (; digits <= most; digits++) {
        snprintf(out, size, "%.*e", digits - 1, d);
        if (float_reads_back(single, d, out))
            return;
    }
}

/* As PostgreSQL prints: positional for exponents from -4 up to the digits that the type keeps
 * exactly, else d.ddde±dd; no trailing zeros. */
static size_t print_float(bool single, double d, char *out)
{
    char form[40];
    char digits[32];
    size_t n = 0;
    size_t len = 0;
    int exponent;

    if (isnan(d) || isinf(d))
        return (size_t)sprintf(out, "%s", isnan(d) ? "NaN" : d > 0 ? "Infinity" : "-Infinity");
    if (signbit(d))
        out[len++] = '-';
    if (d == 0)
        return (out[len] = '0', out[len + 1] = '\0', len + 1);
    float_shortest(single, fabs(d), form, sizeof(form));
    exponent = atoi(strchr(form, 'e') + 1);
    for (const char *p = form; *p != 'e'; p++) {
        if (*p != '.')
            digits[n++] = *p;
    }
    while (n > 1 && digits[n - 1] == '0')
        n--;
    if (exponent < -4 || exponent >= (single ? FLT_DIG : DBL_DIG)) {
        out[len++] = digits[0];
        if (n > 1)
            out[len++] = '.';
        memcpy(out + len, digits + 1, n - 1);
        len += n - 1;
        return len + (size_t)sprintf(out + len, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
    }
    if (exponent < 0)
        len += (size_t)sprintf(out + len, "0.%.*s", -exponent - 1, "000");
    for (int i = 0; i < (int)n || i <= exponent; i++) {
        if (i == exponent + 1 && exponent >= 0)
            out[len++] = '.';
        out[len++] = i < (int)n ? digits[i] : '0';
    }
    out[len] = '\0';
    return len;
}

/* ---- decimals ---- */

#define LIMB UINT32_C(1000000000)
#define LIMB_DIGITS 9
#define LIMBS_MAX 124 /* NATURAL_DECIMAL_MAX bytes make at most 1080 digits */

/* Splits "-12.30" into its sign and its digits without the point; exactly `scale` of them must
 * stand behind the point. */
static bool decimal_digits(const struct column *c, const char *text, size_t len, char *digits,
                           size_t *n)
{
    size_t point = c->scale ? len - (size_t)c->scale - 1 : len;

    *n = 0;
    if (len > NATURAL_PRECISION_MAX + 2 || (c->scale && len < (size_t)c->scale + 2))
        return false;
    for (size_t i = 0; i < len; i++) {
        if (i == point && text[i] == '.')
            continue;
        if (i == point || text[i] < '0' || text[i] > '9')
            return false;
        /* The zero before the point of 0.05 is not one of the precision's digits. */
        if (*n > 0 || text[i] != '0')
            digits[(*n)++] = text[i];
    }
    return len > 0 && *n <= (size_t)c->precision;
}

static void negate_bytes(uint8_t *p, size_t n)
{
    unsigned carry = 1;

    for (size_t i = n; i-- > 0;) {
        carry += (uint8_t)~p[i];
        p[i] = (uint8_t)carry;
        carry >>= 8;
    }
}

static bool parse_decimal(const struct column *c, const char *text, size_t len, struct natural *out)
{
    bool negative = len > 0 && text[0] == '-';
    char digits[NATURAL_PRECISION_MAX + 4];
    uint8_t *b = out->bytes;
    size_t n;

    if (!decimal_digits(c, text + negative, len - negative, digits, &n))
        return false;
    out->len = 1;
    b[0] = 0;
    /* Little-endian first: b = b * 10^k + the next k digits. */
    for (size_t i = 0; i < n;) {
        uint64_t carry = 0;
        uint64_t factor = 1;

        for (int k = 0; k < LIMB_DIGITS && i < n; k++, i++) {
            carry = carry * 10 + (uint64_t)(digits[i] - '0');
            factor *= 10;
        }
        for (size_t j = 0; j < out->len; j++) {
            carry += b[j] * factor;
            b[j] = (uint8_t)carry;
            carry >>= 8;
        }
        for (; carry; carry >>= 8)
            b[out->len++] = (uint8_t)carry;
    }
    if (b[out->len - 1] & 0x80)
        b[out->len++] = 0;
    for (size_t i = 0; i < out->len / 2; i++) {
        uint8_t swap = b[i];

        b[i] = b[out->len - 1 - i];
        b[out->len - 1 - i] = swap;
    }
    if (negative)
        negate_bytes(b, out->len);
    /* -128 fits into one byte, as 128 did not. */
    if (negative && out->len > 1 && b[0] == 0xff && (b[1] & 0x80))
        memmove(b, b + 1, --out->len);
    return true;
}

static size_t print_decimal(const struct column *c, const struct natural *v, char *out)
{
    uint8_t bytes[NATURAL_DECIMAL_MAX];
    uint32_t limbs[LIMBS_MAX] = {0};
    char digits[LIMBS_MAX * LIMB_DIGITS + 1];
    size_t nlimbs = 1;
    size_t scale = (size_t)c->scale;
    size_t n;
    size_t len = 0;

    if (v->len == 0 || v->len > sizeof(bytes))
        return 0;
    memcpy(bytes, v->bytes, v->len);
    if (bytes[0] & 0x80) {
        negate_bytes(bytes, v->len);
        out[len++] = '-';
    }
    for (size_t i = 0; i < v->len; i++) {
        uint64_t carry = bytes[i];

        for (size_t j = 0; j < nlimbs; j++) {
            carry += (uint64_t)limbs[j] << 8;
            limbs[j] = (uint32_t)(carry % LIMB);
            carry /= LIMB;
        }
        if (carry)
            limbs[nlimbs++] = (uint32_t)carry;
    }
    n = (size_t)sprintf(digits, "%u", limbs[nlimbs - 1]);
    for (size_t j = nlimbs - 1; j-- > 0;)
        n += (size_t)sprintf(digits + n, "%09u", limbs[j]);
    /* At least one digit stands before the point. */
    for (size_t i = n; i <= scale; i++) {
        out[len++] = '0';
        if (i == n)
            out[len++] = '.';
    }
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && n - i == scale)
            out[len++] = '.';
        out[len++] = digits[i];
    }
    out[len] = '\0';
    return len;
}

/* ---- dates and times ---- */

/* Days since 1970-01-01 of the proleptic Gregorian calendar (Howard Hinnant's days_from_civil and
 * civil_from_days, for years from 1). */
static int64_t days_from_civil(int64_t y, unsigned m, unsigned d)
{
    int64_t era;
    unsigned yoe;
    unsigned doy;

    y -= m <= 2;
    era = y / 400;
    yoe = (unsigned)(y - era * 400);
    doy = (153 * (m > 2 ? m - 3 : m + 9) + 2) / 5 + d - 1;
    return era * 146097 + (int64_t)(yoe * 365 + yoe / 4 - yoe / 100 + doy) - 719468;
}

static void civil_from_days(int64_t days, unsigned *y, unsigned *m, unsigned *d)
{
    int64_t z = days + 719468;
    int64_t era = z / 146097;
    unsigned doe = (unsigned)(z - era * 146097);
    unsigned yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    unsigned mp = (5 * doy + 2) / 153;

    *d = doy - (153 * mp + 2) / 5 + 1;
    *m = mp < 10 ? mp + 3 : mp - 9;
    *y = (unsigned)(yoe + era * 400 + (*m <= 2));
}

/* Exactly n digits at p. */
static bool parse_digits(const char *p, size_t n, unsigned *out)
{
    *out = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9')
            return false;
        *out = *out * 10 + (unsigned)(p[i] - '0');
    }
    return true;
}

static bool parse_date(const char *p, size_t len, int64_t *days)
{
    unsigned y, m, d;

    if (len != 10 || p[4] != '-' || p[7] != '-' || !parse_digits(p, 4, &y) ||
        !parse_digits(p + 5, 2, &m) || !parse_digits(p + 8, 2, &d))
        return false;
    /* The print-back check refuses what is not in the calendar, such as 2023-02-29. */
    if (y < 1 || m < 1 || m > 12 || d < 1 || d > 31)
        return false;
    *days = days_from_civil(y, m, d);
    return true;
}

static bool parse_time(const char *p, size_t len, int64_t *us)
{
    unsigned h, m, s;
    unsigned fraction = 0;

    if (len < 8 || p[2] != ':' || p[5] != ':' || !parse_digits(p, 2, &h) ||
        !parse_digits(p + 3, 2, &m) || !parse_digits(p + 6, 2, &s))
        return false;
    if (h > 23 || m > 59 || s > 59)
        return false;
    if (len > 8) {
        if (len < 10 || len > 15 || p[8] != '.' || !parse_digits(p + 9, len - 9, &fraction))
            return false;
        for (size_t i = len; i < 15; i++)
            fraction *= 10;
    }
    *us = ((int64_t)h * 3600 + m * 60 + s) * 1000000 + fraction;
    return true;
}

static char *put_digits(char *out, unsigned v, int n)
{
    for (int i = n; i-- > 0; v /= 10)
        out[i] = (char)('0' + v % 10);
    return out + n;
}

static char *put_date(char *out, int64_t days)
{
    unsigned y, m, d;

    civil_from_days(days, &y, &m, &d);
    out = put_digits(out, y, 4);
    *out++ = '-';
    out = put_digits(out, m, 2);
    *out++ = '-';
    return put_digits(out, d, 2);
}

static char *put_time(char *out, int64_t us)
{
    unsigned fraction = (unsigned)(us % 1000000);
    unsigned s = (unsigned)(us / 1000000);

    out = put_digits(out, s / 3600, 2);
    *out++ = ':';
    out = put_digits(out, s / 60 % 60, 2);
    *out++ = ':';
    out = put_digits(out, s % 60, 2);
    if (!fraction)
        return out;
    *out++ = '.';
    out = put_digits(out, fraction, 6);
    while (out[-1] == '0')
        out--;
    return out;
}

static bool parse_timestamp(const struct column *c, const char *p, size_t len, int64_t *us)
{
    int64_t days;
    int64_t time;

    if (c->kind == TYPE_TIMESTAMPTZ) {
        if (len < 3 || memcmp(p + len - 3, "+00", 3) != 0)
            return false;
        len -= 3;
    }
    if (len < 19 || p[10] != ' ' || !parse_date(p, 10, &days) ||
        !parse_time(p + 11, len - 11, &time))
        return false;
    *us = days * DAY_US + time;
    return true;
}

static size_t print_clock(const struct column *c, int64_t v, char *out)
{
    int64_t days = v / DAY_US - (v % DAY_US < 0);
    char *p = out;

    if (c->kind == TYPE_DATE)
        days = v;
    if (c->kind == TYPE_TIME ? days != 0 : days < DAYS_MIN || days > DAYS_MAX)
        return 0;
    if (c->kind != TYPE_TIME)
        p = put_date(p, days);
    if (c->kind == TYPE_TIMESTAMP || c->kind == TYPE_TIMESTAMPTZ)
        *p++ = ' ';
    if (c->kind != TYPE_DATE)
        p = put_time(p, v - days * DAY_US);
    if (c->kind == TYPE_TIMESTAMPTZ)
        p = (char *)memcpy(p, "+00", 3) + 3;
    *p = '\0';
    return (size_t)(p - out);
}

/* ---- the two ways ---- */

static bool parse_any(const struct column *c, const char *text, size_t len, struct natural *out)
{
    switch (c->kind) {
    case TYPE_BOOL:
        out->i = len == 1 && text[0] == 't';
        return true;
    case TYPE_INT16:
    case TYPE_INT32:
    case TYPE_INT64:
        return parse_int(text, len, &out->i);
    case TYPE_FLOAT32:
    case TYPE_FLOAT64:
        return parse_float(c, text, len, out);
    case TYPE_DECIMAL:
        return parse_decimal(c, text, len, out);
    case TYPE_DATE:
        return parse_date(text, len, &out->i);
    case TYPE_TIME:
        return parse_time(text, len, &out->i);
    case TYPE_TIMESTAMP:
    case TYPE_TIMESTAMPTZ:
        return parse_timestamp(c, text, len, &out->i);
    default:
        return false;
    }
}

bool natural_parse(const struct column *c, const char *text, size_t len, struct natural *out)
{
    char back[NATURAL_TEXT_MAX];

    if (len == 0 || len >= NATURAL_TEXT_MAX || !parse_any(c, text, len, out))
        return false;
    return natural_print(c, out, back) == len && memcmp(back, text, len) == 0;
}

size_t natural_print(const struct column *c, const struct natural *n, char out[NATURAL_TEXT_MAX])
{
    switch (c->kind) {
    case TYPE_BOOL:
        out[0] = n->i ? 't' : 'f';
        out[1] = '\0';
        return 1;
    case TYPE_INT16:
        return n->i < INT16_MIN || n->i > INT16_MAX ? 0 : print_int(n->i, out);
    case TYPE_INT32:
        return n->i < INT32_MIN || n->i > INT32_MAX ? 0 : print_int(n->i, out);
    case TYPE_INT64:
        return print_int(n->i, out);
    case TYPE_FLOAT32:
    case TYPE_FLOAT64:
        return print_float(c->kind == TYPE_FLOAT32, n->d, out);
    case TYPE_DECIMAL:
        return print_decimal(c, n, out);
    case TYPE_DATE:
    case TYPE_TIME:
    case TYPE_TIMESTAMP:
    case TYPE_TIMESTAMPTZ:
        return print_clock(c, n->i, out);
    default:
        return 0;
    }
}
