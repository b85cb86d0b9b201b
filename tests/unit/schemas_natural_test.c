/* Texts of a server as natural Avro values: which texts are natural, and that none is ever changed.
 */
#include "schemas/avro/natural.h"

#include "core/arena.h"
#include "schemas/avro/codec.h"
#include "schemas/avro/names.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct column column_of(enum type_kind kind)
{
    return (struct column){.name = (char *)"c", .kind = kind};
}

static struct column decimal_of(int precision, int scale)
{
    return (struct column){
        .name = (char *)"c", .kind = TYPE_DECIMAL, .precision = precision, .scale = scale};
}

/* The text must be natural, and print back as itself. */
static void natural_text(struct column c, const char *text, struct natural *n)
{
    char back[NATURAL_TEXT_MAX];

    if (!natural_parse(&c, text, strlen(text), n))
        fail_msg("%s: '%s' is not natural", type_kind_name(c.kind), text);
    assert_int_equal(natural_print(&c, n, back), strlen(text));
    assert_string_equal(back, text);
}

static void natural_number(enum type_kind kind, const char *text, int64_t expected)
{
    struct natural n;

    natural_text(column_of(kind), text, &n);
    if (n.i != expected)
        fail_msg("'%s' became %" PRId64 ", not %" PRId64, text, n.i, expected);
}

static void natural_float(enum type_kind kind, const char *text, double expected)
{
    struct natural n;

    natural_text(column_of(kind), text, &n);
    if (memcmp(&n.d, &expected, sizeof(expected)) != 0)
        fail_msg("'%s' became %a, not %a", text, n.d, expected);
}

static void not_natural(struct column c, const char *text)
{
    struct natural n;

    if (natural_parse(&c, text, strlen(text), &n))
        fail_msg("%s: '%s' counts as natural", type_kind_name(c.kind), text);
}

static void none_natural(struct column c, const char *const *texts)
{
    for (; *texts; texts++)
        not_natural(c, *texts);
}

/* ---- by type ---- */

static void test_bool(void **state)
{
    natural_number(TYPE_BOOL, "t", 1);
    natural_number(TYPE_BOOL, "f", 0);
    none_natural(column_of(TYPE_BOOL), (const char *[]){"", "true", "T", "1", "tt", NULL});
}

static void test_integers(void **state)
{
    static const char *const odd[] = {"",   "-",  "-0",   "+1",  "01",  " 1",
                                      "1 ", "1a", "0x10", "1e3", "NaN", NULL};

    natural_number(TYPE_INT16, "32767", INT16_MAX);
    natural_number(TYPE_INT16, "-32768", INT16_MIN);
    not_natural(column_of(TYPE_INT16), "32768");
    natural_number(TYPE_INT32, "2147483647", INT32_MAX);
    natural_number(TYPE_INT32, "-2147483648", INT32_MIN);
    not_natural(column_of(TYPE_INT32), "2147483648");
    not_natural(column_of(TYPE_INT32), "-2147483649");
    natural_number(TYPE_INT64, "9223372036854775807", INT64_MAX);
    natural_number(TYPE_INT64, "-9223372036854775808", INT64_MIN);
    not_natural(column_of(TYPE_INT64), "9223372036854775808");
    not_natural(column_of(TYPE_INT64), "-9223372036854775809");
    not_natural(column_of(TYPE_INT64), "18446744073709551616");
    natural_number(TYPE_INT64, "0", 0);
    for (int kind = TYPE_INT16; kind <= TYPE_INT64; kind++)
        none_natural(column_of((enum type_kind)kind), odd);
}

static void test_floats(void **state)
{
    static const char *const odd[] = {"",       "1.0",  "1e5",  "0x1p3", "nan", "inf",
                                      "+1",     " 1",   "1 ",   ".5",    "00",  "1e+5",
                                      "1e+400", "0.10", "1e-5", "-NaN",  NULL};

    natural_float(TYPE_FLOAT64, "0", 0.0);
    natural_float(TYPE_FLOAT64, "-0", -0.0);
    natural_float(TYPE_FLOAT64, "0.1", 0.1);
    natural_float(TYPE_FLOAT64, "0.0001", 0.0001);
    natural_float(TYPE_FLOAT64, "1e-05", 1e-05);
    natural_float(TYPE_FLOAT64, "123456789012345", 123456789012345.0);
    natural_float(TYPE_FLOAT64, "1e+15", 1e15);
    natural_float(TYPE_FLOAT64, "9.007199254740992e+15", 9007199254740992.0);
    natural_float(TYPE_FLOAT64, "100", 100.0);
    natural_float(TYPE_FLOAT64, "-1234.5", -1234.5);
    natural_float(TYPE_FLOAT64, "0.30000000000000004", 0.1 + 0.2);
    natural_float(TYPE_FLOAT64, "1.7976931348623157e+308", 1.7976931348623157e+308);
    natural_float(TYPE_FLOAT64, "2.2250738585072014e-308", 2.2250738585072014e-308);
    natural_float(TYPE_FLOAT64, "5e-324", 5e-324);
    natural_float(TYPE_FLOAT64, "-5e-324", -5e-324);
    natural_float(TYPE_FLOAT32, "1e-45", (double)1e-45f);
    natural_float(TYPE_FLOAT32, "3.4028235e+38", (double)3.4028235e+38f);
    natural_float(TYPE_FLOAT32, "1.6777216e+07", 16777216.0);
    natural_float(TYPE_FLOAT32, "0.1", (double)0.1f);
    natural_float(TYPE_FLOAT32, "123456", 123456.0);
    natural_float(TYPE_FLOAT32, "1e+06", 1e6);
    /* 1.772174352715108e+17 is half-way to the next one, so PostgreSQL prints a digit more. */
    natural_float(TYPE_FLOAT64, "1.7721743527151078e+17", 1.7721743527151078e+17);
    not_natural(column_of(TYPE_FLOAT64), "1.772174352715108e+17");
    /* Not what either type prints: 2^53 + 1 and 2^24 + 1 are no floats. */
    not_natural(column_of(TYPE_FLOAT64), "9007199254740993");
    not_natural(column_of(TYPE_FLOAT32), "16777217");
    not_natural(column_of(TYPE_FLOAT32), "1e-46");
    none_natural(column_of(TYPE_FLOAT64), odd);
    none_natural(column_of(TYPE_FLOAT32), odd);
}

static void test_float_specials(void **state)
{
    static const char *const specials[] = {"NaN", "Infinity", "-Infinity"};
    struct natural n;

    for (size_t i = 0; i < 3; i++) {
        natural_text(column_of(TYPE_FLOAT32), specials[i], &n);
        natural_text(column_of(TYPE_FLOAT64), specials[i], &n);
    }
}

static void decimal_bytes(struct column c, const char *text, const char *bytes, size_t len)
{
    struct natural n;

    natural_text(c, text, &n);
    assert_int_equal(n.len, len);
    assert_memory_equal(n.bytes, bytes, len);
}

static void test_decimals(void **state)
{
    static const char *const odd[] = {
        "",    "0",     "0.0",  "0.000",    "-0.00",     "00.00", ".00",  "1.",
        "1.2", "+1.00", "NaN",  "Infinity", "1,00",      "1e3",   "1.0a", "12345678901.00",
        "-",   "-.10",  "1..0", "1.0.0",    "-Infinity", "0x.12", NULL};
    struct column money = decimal_of(12, 2);

    decimal_bytes(money, "0.00", "\x00", 1);
    decimal_bytes(money, "-0.01", "\xff", 1);
    decimal_bytes(money, "1.27", "\x7f", 1);
    decimal_bytes(money, "1.28", "\x00\x80", 2);
    decimal_bytes(money, "-1.28", "\x80", 1);
    decimal_bytes(money, "-1.29", "\xff\x7f", 2);
    decimal_bytes(money, "-1.10", "\x92", 1);
    decimal_bytes(money, "9999999999.99", "\x00\xe8\xd4\xa5\x0f\xff", 6);
    decimal_bytes(decimal_of(3, 3), "0.001", "\x01", 1);
    decimal_bytes(decimal_of(5, 0), "-256", "\xff\x00", 2);
    decimal_bytes(decimal_of(20, 0), "18446744073709551616", "\x01\0\0\0\0\0\0\0\0", 9);
    none_natural(money, odd);
    not_natural(decimal_of(3, 3), "1.000");
    not_natural(decimal_of(2, 0), "100");
}

static void test_long_decimals(void **state)
{
    char text[131073 + 1];
    struct column wide = decimal_of(1000, 500);
    struct natural n;

    memset(text, '9', sizeof(text));
    text[131072] = '\0';
    not_natural(wide, text);
    not_natural(decimal_of(1000, 0), text);
    text[1001] = '\0';
    text[500] = '.';
    natural_text(wide, text, &n);
    assert_int_equal(n.len, 416);
    text[1000] = '\0';
    text[500] = '9';
    natural_text(decimal_of(1000, 0), text, &n);
    text[0] = '-';
    natural_text(decimal_of(1000, 0), text, &n);
    text[0] = '0';
    not_natural(decimal_of(1000, 0), text);
}

static void test_which_decimals_are_natural(void **state)
{
    const struct column none[] = {decimal_of(0, 0), decimal_of(2, -3), decimal_of(3, 4),
                                  decimal_of(1001, 0), decimal_of(-1, 0)};

    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
        assert_int_equal(natural_type_of(&none[i]), NATURAL_NONE);
    assert_int_equal(
        natural_type_of(&(struct column){.kind = TYPE_DECIMAL, .precision = 4, .scale = 4}),
        NATURAL_DECIMAL);
}

static void test_dates(void **state)
{
    static const char *const odd[] = {"",
                                      "infinity",
                                      "-infinity",
                                      "0001-01-01 BC",
                                      "4713-11-24 BC",
                                      "10000-01-01",
                                      "5874897-12-31",
                                      "2023-02-29",
                                      "1900-02-29",
                                      "2024-13-01",
                                      "2024-00-10",
                                      "2024-01-00",
                                      "2024-1-31",
                                      "0000-01-01",
                                      "2024-01-31 ",
                                      "2024/01/31",
                                      NULL};

    natural_number(TYPE_DATE, "1970-01-01", 0);
    natural_number(TYPE_DATE, "1969-12-31", -1);
    natural_number(TYPE_DATE, "2024-02-29", 19782);
    natural_number(TYPE_DATE, "2000-02-29", 11016);
    natural_number(TYPE_DATE, "1582-10-10", -141432);
    natural_number(TYPE_DATE, "0001-01-01", -719162);
    natural_number(TYPE_DATE, "9999-12-31", 2932896);
    none_natural(column_of(TYPE_DATE), odd);
}

static void test_times(void **state)
{
    static const char *const odd[] = {"",          "24:00:00",    "23:59:60",    "12:60:00",
                                      "12:00",     "12:00:00.",   "12:00:00.50", "12:00:00.1234567",
                                      "1:00:00",   "12:00:00+00", "-1:00:00",    "12:00:00.0",
                                      "12:00:00 ", NULL};

    natural_number(TYPE_TIME, "00:00:00", 0);
    natural_number(TYPE_TIME, "12:00:00.5", 43200500000);
    natural_number(TYPE_TIME, "23:59:59.999999", 86399999999);
    natural_number(TYPE_TIME, "00:00:00.000001", 1);
    none_natural(column_of(TYPE_TIME), odd);
}

static void test_timestamps(void **state)
{
    static const char *const odd[] = {"",
                                      "infinity",
                                      "-infinity",
                                      "294276-12-31 23:59:59.999999",
                                      "0044-03-15 12:00:00 BC",
                                      "2024-01-31",
                                      "2024-01-31T12:00:00",
                                      "2024-01-31 24:00:00",
                                      "2024-01-31 12:00:00.100",
                                      "2024-02-30 12:00:00",
                                      "10000-01-01 00:00:00",
                                      NULL};
    static const char *const odd_tz[] = {"2024-01-31 12:00:00",
                                         "2024-01-31 12:00:00+01",
                                         "2024-01-31 12:00:00+00:00",
                                         "infinity",
                                         "294276-12-31 23:59:59.999999+00",
                                         "0044-03-15 12:00:00+00 BC",
                                         "+00",
                                         NULL};

    natural_number(TYPE_TIMESTAMP, "1970-01-01 00:00:00", 0);
    natural_number(TYPE_TIMESTAMP, "1969-12-31 23:59:59.999999", -1);
    natural_number(TYPE_TIMESTAMP, "2024-01-31 12:00:00.123", 1706702400123000);
    natural_number(TYPE_TIMESTAMP, "0001-01-01 00:00:00", -62135596800000000);
    natural_number(TYPE_TIMESTAMP, "9999-12-31 23:59:59.999999", 253402300799999999);
    natural_number(TYPE_TIMESTAMPTZ, "2024-01-31 12:00:00.1+00", 1706702400100000);
    none_natural(column_of(TYPE_TIMESTAMP), odd);
    none_natural(column_of(TYPE_TIMESTAMPTZ), odd_tz);
}

/* What a damaged datum may hold is printed or refused, within bounds. */
static void test_print_refuses(void **state)
{
    char out[NATURAL_TEXT_MAX];
    struct natural n = {.i = 86400000000};
    struct column c = column_of(TYPE_TIME);
    struct column widest = decimal_of(1000, 1000);

    assert_int_equal(natural_print(&c, &n, out), 0);
    n.i = -1;
    assert_int_equal(natural_print(&c, &n, out), 0);
    c.kind = TYPE_DATE;
    n.i = INT32_MAX;
    assert_int_equal(natural_print(&c, &n, out), 0);
    c.kind = TYPE_TIMESTAMP;
    n.i = INT64_MIN;
    assert_int_equal(natural_print(&c, &n, out), 0);
    c.kind = TYPE_INT16;
    n.i = 40000;
    assert_int_equal(natural_print(&c, &n, out), 0);
    n.len = 0;
    assert_int_equal(natural_print(&widest, &n, out), 0);
    n.len = NATURAL_DECIMAL_MAX + 1;
    assert_int_equal(natural_print(&widest, &n, out), 0);
    n.len = NATURAL_DECIMAL_MAX;
    memset(n.bytes, 0xff, sizeof(n.bytes));
    n.bytes[0] = 0x80;
    assert_true(natural_print(&widest, &n, out) < NATURAL_TEXT_MAX);
}

/* ---- names ---- */

static void escaped(const char *name, const char *expected)
{
    struct buf b;

    buf_init(&b, BUF_MAX_TEXT);
    name_escape(&b, name);
    assert_string_equal(b.data, expected);
    buf_release(&b);
}

static void test_names(void **state)
{
    escaped("orders_2", "orders_2");
    escaped("2nd", "_x0032_nd");
    escaped("a b", "a_x0020_b");
    escaped("ü😀", "_x00FC__x1F600_");
    escaped("a_xb", "a_x005F_xb");
    escaped("a_x0020_b", "a_x005F_x0020_b");
    escaped("__x", "__x005F_x");
    escaped("_", "_");
    escaped("", "_x0000_");
    escaped("\xff", "_x00FF_");
    escaped("a.b", "a_x002E_b");
}

/* ---- any value of any kind, by a fixed seed ---- */

static uint64_t seed = UINT64_C(0x9e3779b97f4a7c15);

static uint64_t next_random(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static unsigned below(unsigned n)
{
    return (unsigned)(next_random() >> 33) % n;
}

static size_t random_clock(enum type_kind kind, char *out, size_t size)
{
    size_t n = 0;

    if (kind != TYPE_TIME)
        n += (size_t)snprintf(out, size, "%04u-%02u-%02u", below(11000), below(14), below(33));
    if (kind == TYPE_TIMESTAMP || kind == TYPE_TIMESTAMPTZ)
        n += (size_t)snprintf(out + n, size - n, " ");
    if (kind != TYPE_DATE)
        n += (size_t)snprintf(out + n, size - n, "%02u:%02u:%02u", below(25), below(61), below(61));
    if (kind != TYPE_DATE && below(2))
        n += (size_t)snprintf(out + n, size - n, ".%u", below(1000000));
    if (kind == TYPE_TIMESTAMPTZ)
        n += (size_t)snprintf(out + n, size - n, "+0%u", below(8) == 0);
    return n;
}

static size_t random_decimal(const struct column *c, char *out)
{
    size_t whole = 1 + below((unsigned)(c->precision - c->scale) + 2);
    size_t n = 0;

    if (below(2))
        out[n++] = '-';
    for (size_t i = 0; i < whole; i++)
        out[n++] = (char)('0' + below(10));
    if (c->scale)
        out[n++] = '.';
    for (int i = 0; i < c->scale; i++)
        out[n++] = (char)('0' + below(10));
    return n;
}

static size_t random_double(enum type_kind kind, char *out, size_t size)
{
    uint64_t bits = next_random();
    uint32_t bits32 = (uint32_t)bits;
    double d;
    float f;

    memcpy(&d, &bits, sizeof(d));
    memcpy(&f, &bits32, sizeof(f));
    if (below(4) == 0)
        return (size_t)snprintf(out, size, "%.*g", 1 + (int)below(9), (double)below(1000000) / 64);
    return kind == TYPE_FLOAT32 ? (size_t)snprintf(out, size, "%.*g", 6 + (int)below(4), (double)f)
                                : (size_t)snprintf(out, size, "%.*g", 15 + (int)below(3), d);
}

static size_t random_bytes(char *out, bool ascii)
{
    size_t n = below(40);

    for (size_t i = 0; i < n; i++)
        out[i] = (char)(ascii ? 32 + below(95) : below(256));
    return n;
}

static size_t random_text(const struct column *c, char *out, size_t size)
{
    /* Now and then something that the type would never print. */
    if (below(20) == 0)
        return random_bytes(out, c->kind != TYPE_BYTES);
    switch (c->kind) {
    case TYPE_BOOL:
        return (size_t)snprintf(out, size, "%c", below(2) ? 't' : 'f');
    case TYPE_INT16:
    case TYPE_INT32:
    case TYPE_INT64:
        return (size_t)snprintf(out, size, "%" PRId64, (int64_t)next_random() >> below(64));
    case TYPE_FLOAT32:
    case TYPE_FLOAT64:
        return random_double(c->kind, out, size);
    case TYPE_DECIMAL:
        return random_decimal(c, out);
    case TYPE_DATE:
    case TYPE_TIME:
    case TYPE_TIMESTAMP:
    case TYPE_TIMESTAMPTZ:
        return random_clock(c->kind, out, size);
    default:
        return random_bytes(out, c->kind != TYPE_BYTES);
    }
}

#define ROWS 20000

static void test_random_rows(void **state)
{
    struct column columns[TYPE_COUNT];
    struct table t = {.schema = (char *)"s",
                      .name = (char *)"t",
                      .ncolumns = TYPE_COUNT,
                      .columns = columns,
                      .identity = IDENTITY_FULL};
    struct value v[TYPE_COUNT];
    struct row row = {TYPE_COUNT, v};
    static char texts[TYPE_COUNT][2048];
    struct record r = {.kind = RECORD_CHANGE};
    struct encoder *enc = encoder_new("m", "postgres", "db");
    struct decoder *dec = decoder_new();
    struct arena a = ARENA_INIT;
    struct buf out;
    unsigned naturals[TYPE_COUNT] = {0};
    struct err e;

    buf_init(&out, BUF_MAX_ROW);
    for (int k = 0; k < TYPE_COUNT; k++) {
        columns[k] = column_of((enum type_kind)k);
        columns[k].name = (char *)type_kind_name((enum type_kind)k);
    }
    for (int i = 0; i < ROWS; i++) {
        const char *name;
        const char *schema;
        struct record back;

        if (i % 1000 == 0) {
            columns[TYPE_DECIMAL].precision = 1 + (int)below(i % 2000 ? 40 : 1000);
            columns[TYPE_DECIMAL].scale = (int)below((unsigned)columns[TYPE_DECIMAL].precision + 1);
        }
        for (int k = 0; k < TYPE_COUNT; k++) {
            struct natural n;

            v[k].data = texts[k];
            v[k].state = below(10) ? VALUE_SET : below(2) ? VALUE_NULL : VALUE_UNCHANGED;
            v[k].len = random_text(&columns[k], texts[k], sizeof(texts[k]));
            if (natural_type_of(&columns[k]) != NATURAL_NONE && k != TYPE_BYTES)
                naturals[k] += natural_parse(&columns[k], v[k].data, v[k].len, &n);
        }
        r.change = (struct change){.op = OP_INSERT, .table = &t, .after = &row};
        buf_reset(&out, SIZE_MAX);
        assert_int_equal(encoder_schema(enc, &r, &name, &schema, &e), 0);
        assert_int_equal(encoder_encode(enc, &r, &out, &e), 0);
        if (decoder_decode(dec, (uint64_t)(uintptr_t)schema, schema, out.data, out.len, &a, &back,
                           &e) != 0)
            fail_msg("%s", e.msg);
        assert_true(row_equal(&row, back.change.after));
        arena_reset(&a);
    }
    /* The generator must reach the natural branches, or this test would say little. */
    for (int k = 0; k < TYPE_COUNT; k++) {
        if (natural_type_of(&columns[k]) != NATURAL_NONE && k != TYPE_BYTES &&
            naturals[k] < ROWS / 50)
            fail_msg("only %u natural values of %s", naturals[k], columns[k].name);
    }
    encoder_free(enc);
    decoder_free(dec);
    arena_release(&a);
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bool),          cmocka_unit_test(test_integers),
        cmocka_unit_test(test_floats),        cmocka_unit_test(test_float_specials),
        cmocka_unit_test(test_decimals),      cmocka_unit_test(test_long_decimals),
        cmocka_unit_test(test_dates),         cmocka_unit_test(test_which_decimals_are_natural),
        cmocka_unit_test(test_times),         cmocka_unit_test(test_timestamps),
        cmocka_unit_test(test_print_refuses), cmocka_unit_test(test_names),
        cmocka_unit_test(test_random_rows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
