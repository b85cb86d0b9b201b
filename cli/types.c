/* docs types: what becomes of each type in both directions, and the values at its bounds. The
 * verdicts are the drivers' own; the samples here are what tests/types/run inserts before and
 * behind the snapshot (lockstep --json docs types). */
#include "cli/cli.h"
#include "engines/def.h"

#include <stdio.h>
#include <string.h>

#define VALUES_MAX 10

/* One type with values in the source's SQL: those that arrive exactly, and those that no column of
 * the other engine holds, which check names and the stream parks. And in the target's SQL those
 * that only the target's column takes, which park the table on the way back. */
struct sample {
    const char *declared;    /* as CREATE TABLE takes it */
    const char *source_type; /* as the catalog shows it; NULL: the same */
    enum type_kind kind;
    int precision;
    int scale;
    int length;
    int fraction;
    const char *collation; /* NULL: one of utf8mb4 */
    const char *exact[VALUES_MAX];
    const char *unfit[VALUES_MAX];
    const char *no_return[VALUES_MAX];
    const char *why; /* the type itself is refused, and why it stands here */
};

static const char *const labels[] = {"new", "it's", "a,b", "gr\xc3\xbcn", "b\\c"};

static const struct sample from_postgres[] = {
    {"boolean", NULL, TYPE_BOOL, .exact = {"true", "false"}, .no_return = {"2", "-1"}},
    {"smallint", NULL, TYPE_INT16, .exact = {"-32768", "0", "32767"}},
    {"integer", NULL, TYPE_INT32, .exact = {"-2147483648", "0", "2147483647"}},
    {"bigint", NULL, TYPE_INT64, .exact = {"-9223372036854775808", "0", "9223372036854775807"}},
    {"numeric(12,2)", NULL, TYPE_DECIMAL, 12, 2, .exact = {"-9999999999.99", "0", "0.01", "1.5"},
     .unfit = {"'NaN'"}},
    {"numeric(65,30)", NULL, TYPE_DECIMAL, 65, 30,
     .exact = {"99999999999999999999999999999999999.999999999999999999999999999999",
               "0.000000000000000000000000000001"},
     .unfit = {"'NaN'"}},
    {"real", NULL, TYPE_FLOAT32,
     .exact = {"0", "0.1", "3.4028235e38", "-3.4028235e38", "1.1754944e-38", "1e-45", "16777217"},
     .unfit = {"'NaN'", "'Infinity'", "'-Infinity'", "'-0'"}},
    {"double precision", NULL, TYPE_FLOAT64,
     .exact = {"0", "0.1", "1.7976931348623157e308", "2.2250738585072014e-308", "5e-324",
               "9007199254740993"},
     .unfit = {"'NaN'", "'Infinity'", "'-Infinity'", "'-0'"}},
    {"text", NULL, TYPE_TEXT,
     .exact = {"''", "' '", "'a '", "E'\\u00ff\\U0001F600'", "E'\\\\ '' \" ` \\t \\n \\r'",
               "repeat('x', 70000)"},
     .no_return = {"CHAR(0)"}},
    {"varchar(10)", "character varying(10)", TYPE_TEXT, .length = 10,
     .exact = {"''", "'a '", "repeat(E'\\U0001F600', 10)", "E'\\\\0 %'"},
     .no_return = {"CONCAT('a', CHAR(0))"}},
    {"char(10)", "character(10)", TYPE_TEXT, .length = 10, .exact = {"''", "'a'", "'1234567890'"}},
    {"bytea", NULL, TYPE_BYTES,
     .exact = {"''", "'\\x00'", "'\\xff00275c'", "decode(repeat('00ff', 40000), 'hex')"}},
    {"date", NULL, TYPE_DATE,
     .exact = {"'0001-01-01'", "'1582-10-10'", "'1970-01-01'", "'2024-02-29'", "'9999-12-31'"},
     .unfit = {"'infinity'", "'-infinity'", "'0001-12-31 BC'", "'10000-01-01'"},
     .no_return = {"'0000-00-00'", "'2024-00-10'"}},
    {"time", "time without time zone", TYPE_TIME, .fraction = 6,
     .exact = {"'00:00:00'", "'23:59:59.999999'", "'24:00:00'", "'12:00:00.5'"},
     .no_return = {"'-00:00:00.000001'", "'838:59:59'"}},
    {"timestamp", "timestamp without time zone", TYPE_TIMESTAMP, .fraction = 6,
     .exact = {"'0001-01-01 00:00:00'", "'1970-01-01 00:00:00.000001'", "'2024-02-29 12:00:00.5'",
               "'9999-12-31 23:59:59.999999'"},
     .unfit = {"'infinity'", "'-infinity'", "'0001-12-31 23:59:59 BC'", "'10000-01-01 00:00:00'"},
     .no_return = {"'0000-00-00 00:00:00'"}},
    {"timestamp(3)", "timestamp(3) without time zone", TYPE_TIMESTAMP, .fraction = 3,
     .exact = {"'2024-01-01 00:00:00.123'", "'2024-01-01 00:00:00'"}, .unfit = {"'infinity'"},
     .no_return = {"'2024-00-10 00:00:00'"}},
    {"timestamptz", "timestamp with time zone", TYPE_TIMESTAMPTZ, .fraction = 6,
     .exact = {"'0001-01-01 00:00:00+00'", "'1970-01-01 00:00:00+00'", "'2038-01-19 03:14:08.5+00'",
               "'2024-03-31 01:30:00+02'", "'9999-12-31 23:59:59.999999+00'"},
     .unfit = {"'infinity'", "'-infinity'", "'0001-12-31 23:59:59+00 BC'",
               "'10000-01-01 00:00:00+00'"},
     .no_return = {"'0000-00-00 00:00:00'"}},
    {"uuid", NULL, TYPE_UUID,
     .exact = {"'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
               "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'"},
     .no_return = {"'a0eebc999c0b4ef8bb6d6bb9bd380a11'", "''"}},
    {"json", NULL, TYPE_JSON,
     .exact = {"'{}'", "'{\"b\": 1, \"a\" : [1.10, null]}'", "'\"\\u0000\"'", "'1e400'",
               "(repeat('[', 60) || repeat(']', 60))::json"},
     .no_return = {"'[1.]'", "''"}},
    {"jsonb", NULL, TYPE_JSON,
     .exact = {"'{}'", "'{\"b\": 1, \"a\": [1.10, null]}'", "'12345678901234567890.5'"},
     .no_return = {"'[1.]'", "''"}},
    {"mood", "public.mood", TYPE_ENUM,
     .exact = {"'new'", "'it''s'", "'a,b'", "'gr\xc3\xbcn'", "'b\\c'"}, .no_return = {"0"}},
    {"numeric", NULL, TYPE_DECIMAL, .why = "without a declared precision it could be rounded"},
    {"integer[]", NULL, TYPE_OTHER, .why = "an array"},
    {"interval", NULL, TYPE_OTHER, .why = "no counterpart"},
    {"inet", NULL, TYPE_OTHER, .why = "no counterpart"},
};

static const struct sample from_mysql[] = {
    {"tinyint", "tinyint(4)", TYPE_INT16, .exact = {"-128", "0", "127"},
     .no_return = {"-129", "128"}},
    {"tinyint(1)", NULL, TYPE_INT16, .exact = {"0", "1", "2", "-128"}, .no_return = {"128"}},
    {"tinyint unsigned", "tinyint(3) unsigned", TYPE_INT16, .exact = {"0", "255"},
     .no_return = {"-1", "256"}},
    {"smallint", "smallint(6)", TYPE_INT16, .exact = {"-32768", "32767"}},
    {"smallint unsigned", "smallint(5) unsigned", TYPE_INT32, .exact = {"0", "65535"},
     .no_return = {"-1", "65536"}},
    {"mediumint", "mediumint(9)", TYPE_INT32, .exact = {"-8388608", "8388607"},
     .no_return = {"-8388609", "8388608"}},
    {"mediumint unsigned", "mediumint(8) unsigned", TYPE_INT32, .exact = {"0", "16777215"},
     .no_return = {"-1", "16777216"}},
    {"int", "int(11)", TYPE_INT32, .exact = {"-2147483648", "2147483647"}},
    {"int unsigned", "int(10) unsigned", TYPE_INT64, .exact = {"0", "4294967295"},
     .no_return = {"-1", "4294967296"}},
    {"bigint", "bigint(20)", TYPE_INT64, .exact = {"-9223372036854775808", "9223372036854775807"}},
    {"bigint unsigned", "bigint(20) unsigned", TYPE_DECIMAL, 20, 0,
     .exact = {"0", "9223372036854775808", "18446744073709551615"},
     .no_return = {"'NaN'", "-1", "18446744073709551616"}},
    {"decimal(12,2)", NULL, TYPE_DECIMAL, 12, 2, .exact = {"-9999999999.99", "0", "0.01"},
     .no_return = {"'NaN'"}},
    {"decimal(65,30)", NULL, TYPE_DECIMAL, 65, 30,
     .exact = {"99999999999999999999999999999999999.999999999999999999999999999999",
               "0.000000000000000000000000000001"},
     .no_return = {"'NaN'"}},
    {"float", NULL, TYPE_FLOAT32,
     .exact = {"0", "0.1", "3.4028234663852886e38", "1.1754943508222875e-38", "1e-45", "16777217"},
     .no_return = {"'NaN'", "'Infinity'", "'-Infinity'", "'-0'"}},
    {"double", NULL, TYPE_FLOAT64,
     .exact = {"0", "0.1", "1.7976931348623157e308", "2.2250738585072014e-308", "5e-324",
               "9007199254740993"},
     .no_return = {"'NaN'", "'Infinity'", "'-Infinity'", "'-0'"}},
    {"varchar(10)", NULL, TYPE_TEXT, .length = 10,
     .exact = {"''", "'a '", "REPEAT('\xf0\x9f\x98\x80', 10)", "'\\\\ '' \"'"},
     .unfit = {"CONCAT('a', CHAR(0))"}},
    {"varchar(10) CHARACTER SET utf8mb3", "varchar(10)", TYPE_TEXT, .length = 10,
     .collation = "utf8mb3_general_ci", .exact = {"''", "REPEAT('\xe2\x82\xac', 10)"},
     .no_return = {"E'\\U0001F600'"}},
    {"varchar(10) CHARACTER SET ascii", "varchar(10)", TYPE_TEXT, .length = 10,
     .collation = "ascii_general_ci", .exact = {"' a'", "'0123456789'"},
     .no_return = {"E'\\u00e9'"}},
    {"char(10)", NULL, TYPE_TEXT, .length = 10, .exact = {"''", "'a'", "' a'", "'1234567890'"},
     .no_return = {"'a '"}},
    {"char(36)", NULL, TYPE_TEXT, .length = 36, .exact = {"'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'"},
     .no_return = {"' '"}},
    {"text", NULL, TYPE_TEXT, .exact = {"''", "' '", "'a '", "'\\t\\n\\r'", "REPEAT('x', 65535)"},
     .unfit = {"CHAR(0)"}, .no_return = {"repeat('x', 65536)", "repeat(E'\\u20ac', 21846)"}},
    {"longtext", NULL, TYPE_TEXT, .exact = {"''", "REPEAT('y', 70000)"}, .unfit = {"CHAR(0)"}},
    {"binary(4)", NULL, TYPE_BYTES, .length = 4, .exact = {"X'00000000'", "X'61200000'", "'ab'"},
     .no_return = {"'\\x61'", "'\\x6162636465'"}},
    {"binary(16)", NULL, TYPE_BYTES, .length = 16, .exact = {"X'A0EEBC999C0B4EF8BB6D6BB9BD380A00'"},
     .no_return = {"'\\x'"}},
    {"varbinary(10)", NULL, TYPE_BYTES, .length = 10, .exact = {"''", "X'00'", "X'FF00275C20'"},
     .no_return = {"'\\x0102030405060708090a0b'"}},
    {"blob", NULL, TYPE_BYTES, .exact = {"''", "X'00'", "REPEAT(X'00FF', 32767)"},
     .no_return = {"decode(repeat('ff', 65536), 'hex')"}},
    {"longblob", NULL, TYPE_BYTES, .exact = {"''", "REPEAT(X'5C27', 40000)"}},
    {"date", NULL, TYPE_DATE,
     .exact = {"'0001-01-01'", "'1582-10-10'", "'2024-02-29'", "'9999-12-31'"},
     .unfit = {"'0000-00-00'", "'2024-00-10'", "'2024-01-00'"},
     .no_return = {"'infinity'", "'0001-12-31 BC'", "'10000-01-01'"}},
    {"datetime", NULL, TYPE_TIMESTAMP, .exact = {"'0001-01-01 00:00:00'", "'9999-12-31 23:59:59'"},
     .unfit = {"'0000-00-00 00:00:00'", "'2024-00-10 00:00:00'"},
     .no_return = {"'infinity'", "'10000-01-01 00:00:00'"}},
    {"datetime(6)", NULL, TYPE_TIMESTAMP, .fraction = 6,
     .exact = {"'0001-01-01 00:00:00.000001'", "'2024-02-29 12:00:00.5'",
               "'9999-12-31 23:59:59.999999'"},
     .unfit = {"'0000-00-00 00:00:00'"}, .no_return = {"'-infinity'", "'0001-12-31 23:59:59 BC'"}},
    {"timestamp", NULL, TYPE_TIMESTAMPTZ,
     .exact = {"'1970-01-01 00:00:01'", "'2038-01-19 03:14:07'"},
     .unfit = {"'0000-00-00 00:00:00'"},
     .no_return = {"'1970-01-01 00:00:00+00'", "'2038-01-19 03:14:08+00'", "'infinity'"}},
    {"timestamp(6)", NULL, TYPE_TIMESTAMPTZ, .fraction = 6,
     .exact = {"'1970-01-01 00:00:01.000001'", "'2024-02-29 12:00:00.5'",
               "'2038-01-19 03:14:07.999999'"},
     .unfit = {"'0000-00-00 00:00:00'"},
     .no_return = {"'1969-12-31 23:59:59.999999+00'", "'2038-01-19 03:14:08.000000+00'"}},
    {"time(6)", NULL, TYPE_TIME, .fraction = 6,
     .exact = {"'00:00:00'", "'23:59:59.999999'", "'24:00:00'"},
     .unfit = {"'-00:00:00.000001'", "'838:59:59'"}},
    {"json", "longtext", TYPE_JSON,
     .exact = {"'{}'", "'{\"b\": 1, \"a\" : [1.10, null]}'", "'1e400'", "'[\"5. \\\\\\\\ \"]'"},
     .unfit = {"'[1.]'", "'\"\\\\x\"'"}},
    {"enum('new','it''s','a,b','gr\xc3\xbcn','b\\\\c')", NULL, TYPE_ENUM,
     .exact = {"'new'", "'it''s'", "'a,b'", "'gr\xc3\xbcn'", "'b\\\\c'"}, .unfit = {"0"}},
    {"varchar(10) CHARACTER SET latin1", "varchar(10)", TYPE_OTHER,
     .why = "a character set other than utf8mb4, utf8mb3, ascii"},
    {"set('a','b')", NULL, TYPE_OTHER, .why = "no counterpart"},
    {"bit(8)", NULL, TYPE_OTHER, .why = "no counterpart"},
    {"year", NULL, TYPE_OTHER, .why = "no counterpart"},
    {"point", NULL, TYPE_OTHER, .why = "no counterpart"},
};

static const struct direction {
    const char *title;
    const char *from;
    const char *to;
    const struct sample *samples;
    size_t n;
} directions[] = {
    {"PostgreSQL to MariaDB and MySQL", "postgres", "mysql", from_postgres,
     sizeof(from_postgres) / sizeof(from_postgres[0])},
    {"MariaDB and MySQL to PostgreSQL", "mysql", "postgres", from_mysql,
     sizeof(from_mysql) / sizeof(from_mysql[0])},
    {"Between two MariaDB or MySQL servers", "mysql", "mysql", from_mysql,
     sizeof(from_mysql) / sizeof(from_mysql[0])},
};

static bool is_native(const struct direction *d)
{
    return strcmp(d->from, d->to) == 0;
}

/* What the target's driver says of the sample. */
static void judge(const struct direction *d, const struct sample *s, struct arena *a,
                  struct column *to, struct verdict *out)
{
    struct table *there = arena_zalloc(a, sizeof(*there));
    struct column *c = arena_zalloc(a, sizeof(*c));
    struct column_def def = {.column = c, .labels = labels, .nlabels = 3, .there = there};

    there->schema = arena_strdup(a, "public");
    there->name = arena_strdup(a, "t");
    c->name = arena_strdup(a, "c");
    c->source_type = arena_strdup(a, s->source_type ? s->source_type : s->declared);
    c->cast_type = c->source_type;
    c->kind = s->kind;
    c->precision = s->precision;
    c->scale = s->scale;
    c->length = s->length;
    c->fraction = s->fraction;
    def.row_chars = (size_t)s->length;
    def.collation = s->collation;
    def.unfit = s->why && s->kind == TYPE_OTHER ? s->why : NULL;
    context_engine(d->to)->column_for(&def, is_native(d), a, to, out);
}

struct values {
    const char *exact[2 * VALUES_MAX + 1];
    const char *unfit[VALUES_MAX + 1];
    const char *no_return[VALUES_MAX + 1];
};

static void append(const char **to, const char *const *from)
{
    while (*to)
        to++;
    for (size_t i = 0; i < VALUES_MAX && from[i]; i++)
        to[i] = from[i];
}

/* What a text or JSON of the other engine does not hold, one of the same does. */
static struct values values_of(const struct direction *d, const struct sample *s)
{
    struct values v = {0};
    bool any = is_native(d) && (s->kind == TYPE_TEXT || s->kind == TYPE_JSON);

    append(v.exact, s->exact);
    append(any ? v.exact : v.unfit, s->unfit);
    /* Between servers of one engine what does not pass one way does not pass the other way. */
    append(v.no_return, is_native(d) ? v.unfit : s->no_return);
    return v;
}

/* ---- the page ---- */

/* As code in a table's cell, where a bar would end the cell and a backtick the code. */
static const char *joined(struct arena *a, const char *const *values)
{
    struct buf b;
    const char *text;

    buf_init(&b, BUF_MAX_TEXT);
    for (size_t i = 0; values[i]; i++) {
        const char *fence = strchr(values[i], '`') ? "``" : "`";

        buf_addf(&b, "%s%s", i ? ", " : "", fence);
        for (const char *p = values[i]; *p; p++)
            buf_addf(&b, "%s%c", *p == '|' ? "\\" : "", *p);
        buf_adds(&b, fence);
    }
    text = arena_strdup(a, b.data ? b.data : "");
    buf_release(&b);
    return text;
}

static void print_direction(const struct direction *d, struct arena *a)
{
    printf("\n## %s\n\n| type | becomes | forward | back | condition |\n|---|---|---|---|---|\n",
           d->title);
    for (size_t i = 0; i < d->n; i++) {
        struct verdict v;
        struct column to;

        judge(d, &d->samples[i], a, &to, &v);
        printf("| %s | %s | %s | %s | %s |\n", d->samples[i].declared,
               v.forward >= FIDELITY_LOSSY ? "refused" : to.source_type, fidelity_name(v.forward),
               fidelity_name(v.back), v.condition ? v.condition : "");
    }
    printf("\nValues at the bounds:\n\n| type | arrive exactly, and come back | refused by `check`,"
           " park the table in the stream | written on the target, park it on the way back |\n"
           "|---|---|---|---|\n");
    for (size_t i = 0; i < d->n; i++) {
        struct values v = values_of(d, &d->samples[i]);

        if (!d->samples[i].why)
            printf("| %s | %s | %s | %s |\n", d->samples[i].declared, joined(a, v.exact),
                   joined(a, v.unfit), joined(a, v.no_return));
    }
}

static void print_page(struct arena *a)
{
    puts("# Types\n\n"
         "This page is generated: `lockstep docs types`. The verdicts are those that `lockstep "
         "plan` prints; the values are those that `tests/types/run` inserts, before the snapshot "
         "and behind it.\n\n"
         "*exact*: every value of the source's type arrives, and would come back, unaltered. "
         "*conditional*: those that meet the condition do; any other is refused, by `check` or by "
         "parking the table, never altered. *lossy*, *none*: the table is refused by name. A "
         "column of a type that does not stand here is refused by name, too. Between two servers "
         "of one engine every type stays what it is; between two PostgreSQL servers that goes for "
         "all its types.");
    for (size_t i = 0; i < sizeof(directions) / sizeof(directions[0]); i++) {
        if (context_engine(directions[i].to))
            print_direction(&directions[i], a);
    }
}

/* ---- for the test ---- */

static json_t *texts(const char *const *values)
{
    json_t *list = json_array();

    for (size_t i = 0; values[i]; i++)
        json_array_append_new(list, json_string(values[i]));
    return list;
}

static json_t *directions_json(struct arena *a)
{
    json_t *list = json_array();

    for (size_t i = 0; i < sizeof(directions) / sizeof(directions[0]); i++) {
        const struct direction *d = &directions[i];
        json_t *types;

        if (!context_engine(d->to))
            continue;
        types = json_array();
        for (size_t k = 0; k < d->n; k++) {
            const struct sample *s = &d->samples[k];
            struct values values = values_of(d, s);
            struct verdict v;
            struct column to;

            judge(d, s, a, &to, &v);
            json_array_append_new(
                types, json_pack("{s:s, s:s, s:s, s:s, s:s?, s:o, s:o, s:o}", "declared",
                                 s->declared, "target_type", to.source_type, "forward",
                                 fidelity_name(v.forward), "back", fidelity_name(v.back),
                                 "condition", v.condition, "exact", texts(values.exact), "unfit",
                                 texts(values.unfit), "no_return", texts(values.no_return)));
        }
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:o}", "from", d->from, "to", d->to, "types", types));
    }
    return list;
}

void types_page(struct cli *c)
{
    struct arena a = ARENA_INIT;

    if (c->json)
        cli_put(c, "directions", directions_json(&a));
    else
        print_page(&a);
    arena_release(&a);
}
