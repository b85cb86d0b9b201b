/* What the catalog tells about tables, on a real server. */
#include "tests/unit/pg_support.h"

#define DATABASE "catalog_test"
#define ROLE "catalog_test_role"

static struct db *db;
static struct arena arena;

static int group_setup(void **state)
{
    test_role(ROLE);
    test_database(DATABASE, ROLE);
    db = test_open(test_uri(DATABASE, ROLE), DB_CONTROL);
    test_sql(db, "CREATE SCHEMA \"Sch\"\"ema\"; CREATE SCHEMA lockstep; CREATE SCHEMA public2;"
                 "CREATE TABLE lockstep.fact (i int PRIMARY KEY);"
                 "CREATE UNLOGGED TABLE public2.unlogged (i int PRIMARY KEY);"
                 "CREATE VIEW public2.v AS SELECT 1 AS one;"
                 "CREATE TYPE public2.mood AS ENUM ('sad', 'ok');"
                 "CREATE DOMAIN public2.cents AS numeric(12,2);"
                 "CREATE DOMAIN public2.deep AS public2.cents NOT NULL");
    test_sql(db,
             "CREATE TABLE public2.types (b bool, i2 int2, i4 int4, i8 int8, f4 float4, f8 float8,"
             " n numeric, n2 numeric(12,2), nneg numeric(5,-2), t text, vc varchar(10),"
             " ch char(3), nm name, by bytea, d date, ti time, ts timestamp(3), tz timestamptz,"
             " u uuid, j json, jb jsonb, m public2.mood, a int[], ma public2.mood[],"
             " dom public2.deep, inet inet, dropped int,"
             " gen int GENERATED ALWAYS AS (i4 + 1) STORED,"
             " id int GENERATED ALWAYS AS IDENTITY, \"Odd \"\"name\" text NOT NULL)");
    test_sql(db, "ALTER TABLE public2.types DROP COLUMN dropped;"
                 "CREATE TABLE public2.keyed (c int, b text COLLATE \"C\", a uuid, d text,"
                 " PRIMARY KEY (a, d, b));"
                 "CREATE TABLE public2.by_index (id int PRIMARY KEY, code text NOT NULL);"
                 "CREATE UNIQUE INDEX by_index_code ON public2.by_index (code) INCLUDE (id);"
                 "ALTER TABLE public2.by_index REPLICA IDENTITY USING INDEX by_index_code;"
                 "CREATE TABLE public2.full_keyless (x int, y text);"
                 "ALTER TABLE public2.full_keyless REPLICA IDENTITY FULL;"
                 "CREATE TABLE public2.nothing (i int PRIMARY KEY);"
                 "ALTER TABLE public2.nothing REPLICA IDENTITY NOTHING;"
                 "CREATE TABLE public2.deferred (i int PRIMARY KEY DEFERRABLE);"
                 "CREATE TABLE \"Sch\"\"ema\".\"Ta.ble\" (\"K\" int PRIMARY KEY)");
    test_sql(db, "CREATE TABLE public2.part (id int, day date, PRIMARY KEY (id, day))"
                 " PARTITION BY RANGE (day);"
                 "CREATE TABLE public2.part_1 PARTITION OF public2.part"
                 " FOR VALUES FROM ('2024-01-01') TO ('2025-01-01') PARTITION BY LIST (id);"
                 "CREATE TABLE public2.part_1_a PARTITION OF public2.part_1 FOR VALUES IN (1);"
                 "CREATE TABLE public2.part_2 PARTITION OF public2.part"
                 " FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')");
    test_sql(
        db,
        "CREATE TABLE public2.ordered (i int PRIMARY KEY);"
        "INSERT INTO public2.ordered SELECT generate_series(1, 2000);"
        "CREATE TABLE public2.shuffled (i int PRIMARY KEY);"
        "INSERT INTO public2.shuffled SELECT (g * 7919) % 10007 FROM generate_series(1, 2000) g;"
        "CREATE TABLE public2.no_stats (u uuid PRIMARY KEY)");
    test_sql(db, "ANALYZE public2.ordered, public2.shuffled");
    return 0;
}

static int group_teardown(void **state)
{
    pg_close(db);
    arena_release(&arena);
    return 0;
}

static struct table_list read_tables(const char *include, const char *exclude)
{
    const char *in[] = {include};
    const char *ex[] = {exclude};
    struct selection s = {in, include != NULL, ex, exclude != NULL};
    struct table_list list;
    struct err e = {0};

    assert_ok(pg_tables(db, &s, &arena, &list, &e));
    return list;
}

static const struct table *table_named(const struct table_list *list, const char *label)
{
    for (size_t i = 0; i < list->n; i++)
        if (table_is(list->v[i], label))
            return list->v[i];
    return NULL;
}

static void assert_labels(const char *include, const char *exclude, const char *expected)
{
    struct table_list list = read_tables(include, exclude);
    struct buf b;

    buf_init(&b, 10000);
    for (size_t i = 0; i < list.n; i++)
        buf_addf(&b, "%s%s", i > 0 ? " " : "", table_label(list.v[i]));
    assert_string_equal(b.data != NULL ? b.data : "", expected);
    buf_release(&b);
}

static void selection_takes_leaves_and_plain_tables(void **state)
{
    assert_labels(NULL, "public2.*", "Sch\"ema.Ta.ble");
    assert_labels("Sch\"ema.Ta.ble", NULL, "Sch\"ema.Ta.ble");
    assert_labels("public2.part", NULL, "public2.part_1_a public2.part_2");
    assert_labels("public2.part_?", NULL, "public2.part_1_a public2.part_2");
    assert_labels("public2.part_1", NULL, "public2.part_1_a");
    assert_labels("public2.part", "public2.part_1", "public2.part_2");
    assert_labels("public2.*ed", NULL,
                  "public2.deferred public2.keyed public2.ordered public2.shuffled");
    assert_labels("lockstep.*", NULL, "");
    assert_labels("public2.unlogged", NULL, "");
    assert_labels("public2.v", NULL, "");
    assert_string_equal(
        table_named(&(struct table_list){1, read_tables("public2.part_1_a", NULL).v},
                    "public2.part_1_a")
            ->root,
        "public2.part");
}

static void columns_have_kinds_and_types(void **state)
{
    static const struct {
        const char *name;
        enum type_kind kind;
        const char *source_type;
        const char *cast_type;
        enum key_order order;
    } expect[] = {
        {"b", TYPE_BOOL, "boolean", "boolean", KEY_ORDER_SERVER},
        {"i2", TYPE_INT16, "smallint", "smallint", KEY_ORDER_INT},
        {"i4", TYPE_INT32, "integer", "integer", KEY_ORDER_INT},
        {"i8", TYPE_INT64, "bigint", "bigint", KEY_ORDER_INT},
        {"f4", TYPE_FLOAT32, "real", "real", KEY_ORDER_SERVER},
        {"f8", TYPE_FLOAT64, "double precision", "double precision", KEY_ORDER_SERVER},
        {"n", TYPE_DECIMAL, "numeric", "numeric", KEY_ORDER_SERVER},
        {"n2", TYPE_DECIMAL, "numeric(12,2)", "numeric", KEY_ORDER_SERVER},
        {"nneg", TYPE_DECIMAL, "numeric(5,-2)", "numeric", KEY_ORDER_SERVER},
        {"t", TYPE_TEXT, "text", "text", KEY_ORDER_SERVER},
        {"vc", TYPE_TEXT, "character varying(10)", "character varying", KEY_ORDER_SERVER},
        {"ch", TYPE_TEXT, "character(3)", "bpchar", KEY_ORDER_SERVER},
        {"nm", TYPE_TEXT, "name", "name", KEY_ORDER_BYTES},
        {"by", TYPE_BYTES, "bytea", "bytea", KEY_ORDER_BYTES},
        {"d", TYPE_DATE, "date", "date", KEY_ORDER_SERVER},
        {"ti", TYPE_TIME, "time without time zone", "time without time zone", KEY_ORDER_SERVER},
        {"ts", TYPE_TIMESTAMP, "timestamp(3) without time zone", "timestamp without time zone",
         KEY_ORDER_SERVER},
        {"tz", TYPE_TIMESTAMPTZ, "timestamp with time zone", "timestamp with time zone",
         KEY_ORDER_SERVER},
        {"u", TYPE_UUID, "uuid", "uuid", KEY_ORDER_BYTES},
        {"j", TYPE_JSON, "json", "json", KEY_ORDER_SERVER},
        {"jb", TYPE_JSON, "jsonb", "jsonb", KEY_ORDER_SERVER},
        {"m", TYPE_ENUM, "public2.mood", "public2.mood", KEY_ORDER_SERVER},
        {"a", TYPE_OTHER, "integer[]", "integer[]", KEY_ORDER_SERVER},
        {"ma", TYPE_OTHER, "public2.mood[]", "public2.mood[]", KEY_ORDER_SERVER},
        {"dom", TYPE_DECIMAL, "public2.deep", "public2.deep", KEY_ORDER_SERVER},
        {"inet", TYPE_OTHER, "inet", "inet", KEY_ORDER_SERVER},
        {"gen", TYPE_INT32, "integer", "integer", KEY_ORDER_INT},
        {"id", TYPE_INT32, "integer", "integer", KEY_ORDER_INT},
        {"Odd \"name", TYPE_TEXT, "text", "text", KEY_ORDER_SERVER},
    };
    struct table_list list = read_tables("public2.types", NULL);
    const struct table *t = table_named(&list, "public2.types");
    size_t n = sizeof expect / sizeof expect[0];

    assert_non_null(t);
    assert_int_equal(t->ncolumns, n);
    for (size_t i = 0; i < n; i++) {
        const struct column *c = &t->columns[i];

        assert_string_equal(c->name, expect[i].name);
        assert_string_equal(c->source_type, expect[i].source_type);
        assert_string_equal(c->cast_type, expect[i].cast_type);
        assert_int_equal(c->kind, expect[i].kind);
        assert_int_equal(c->order, expect[i].order);
        assert_int_equal(c->array, strchr(c->cast_type, '[') != NULL);
        assert_int_equal(c->generated, strcmp(c->name, "gen") == 0);
        assert_int_equal(c->identity_always, strcmp(c->name, "id") == 0);
    }
    assert_int_equal(t->columns[6].precision, 0);
    assert_int_equal(t->columns[7].precision, 12);
    assert_int_equal(t->columns[7].scale, 2);
    assert_int_equal(t->columns[8].scale, -2);
    assert_int_equal(t->columns[24].precision, 12);
    assert_int_equal(t->columns[24].scale, 2);
    assert_true(t->columns[n - 1].not_null);
    assert_int_equal(t->identity, IDENTITY_NONE);
    assert_int_equal(t->nkey, 0);
    assert_true(t->filenode > 0);
}

static void keys_are_those_that_identify(void **state)
{
    struct table_list list = read_tables("public2.*", NULL);
    const struct table *t = table_named(&list, "public2.keyed");

    assert_int_equal(t->identity, IDENTITY_KEY);
    assert_int_equal(t->nkey, 3);
    assert_int_equal(t->key[0], 2);
    assert_int_equal(t->key[1], 3);
    assert_int_equal(t->key[2], 1);
    assert_int_equal(t->columns[1].key, 3);
    assert_int_equal(t->columns[1].order, KEY_ORDER_BYTES);
    assert_int_equal(t->columns[3].order, KEY_ORDER_SERVER);
    t = table_named(&list, "public2.by_index");
    assert_int_equal(t->identity, IDENTITY_KEY);
    assert_int_equal(t->nkey, 1);
    assert_int_equal(t->key[0], 1);
    t = table_named(&list, "public2.full_keyless");
    assert_int_equal(t->identity, IDENTITY_FULL);
    assert_int_equal(t->nkey, 0);
    t = table_named(&list, "public2.nothing");
    assert_int_equal(t->identity, IDENTITY_NONE);
    assert_int_equal(t->nkey, 1);
    t = table_named(&list, "public2.deferred");
    assert_int_equal(t->identity, IDENTITY_NONE);
    assert_int_equal(t->nkey, 0);
}

static void order_on_disk_is_told(void **state)
{
    struct table_list list = read_tables("public2.*", NULL);

    assert_false(table_named(&list, "public2.ordered")->scattered);
    assert_true(table_named(&list, "public2.shuffled")->scattered);
    assert_true(table_named(&list, "public2.no_stats")->scattered);
    assert_false(table_named(&list, "public2.nothing")->scattered);
    assert_int_equal(table_named(&list, "public2.ordered")->rows, 2000);
    assert_true(table_named(&list, "public2.ordered")->bytes >= 65536);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(selection_takes_leaves_and_plain_tables),
        cmocka_unit_test(columns_have_kinds_and_types),
        cmocka_unit_test(keys_are_those_that_identify),
        cmocka_unit_test(order_on_disk_is_told),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
