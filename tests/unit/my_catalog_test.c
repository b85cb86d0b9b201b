/* engines/mysql/catalog.c on a real server. */
#include "my_support.h"

static struct arena arena = ARENA_INIT;

static const struct table *find(const struct table_list *list, const char *label)
{
    for (size_t i = 0; i < list->n; i++)
        if (table_is(list->v[i], label))
            return list->v[i];
    fail_msg("%s is not there", label);
    return NULL;
}

static struct table_list read_tables(const char *const *include, size_t ninclude)
{
    struct db *db = test_open(test_uri(NULL, NULL), DB_CONTROL);
    struct selection s = {.include = include, .ninclude = ninclude};
    struct table_list list;
    struct err e = {0};

    assert_ok(my_tables(db, &s, &arena, &list, &e));
    my_close(db);
    return list;
}

static void expect_column(const struct table *t, const char *name, enum type_kind kind,
                          const int sizes[4])
{
    for (size_t i = 0; i < t->ncolumns; i++) {
        const struct column *c = &t->columns[i];

        if (strcmp(c->name, name) != 0)
            continue;
        if (c->kind != kind)
            fail_msg("%s (%s) is of kind %s", name, c->source_type, type_kind_name(c->kind));
        assert_int_equal(c->precision, sizes[0]);
        assert_int_equal(c->scale, sizes[1]);
        assert_int_equal(c->length, sizes[2]);
        assert_int_equal(c->fraction, sizes[3]);
        return;
    }
    fail_msg("no column %s", name);
}

static void knows_each_type(void **state)
{
    static const struct {
        const char *name;
        const char *type;
        enum type_kind kind;
        int sizes[4]; /* precision, scale, length, fraction */
    } columns[] = {
        {"c01", "tinyint(1)", TYPE_INT16, {0}},
        {"c02", "tinyint unsigned", TYPE_INT16, {0}},
        {"c03", "smallint", TYPE_INT16, {0}},
        {"c04", "smallint unsigned", TYPE_INT32, {0}},
        {"c05", "mediumint unsigned", TYPE_INT32, {0}},
        {"c06", "int", TYPE_INT32, {0}},
        {"c07", "int unsigned", TYPE_INT64, {0}},
        {"c08", "bigint", TYPE_INT64, {0}},
        {"c09", "bigint unsigned", TYPE_DECIMAL, {20, 0, 0, 0}},
        {"c10", "decimal(12,4)", TYPE_DECIMAL, {12, 4, 0, 0}},
        {"c11", "float", TYPE_FLOAT32, {0}},
        {"c12", "double", TYPE_FLOAT64, {0}},
        {"c13", "char(5) character set utf8mb4", TYPE_TEXT, {0, 0, 5, 0}},
        {"c14", "varchar(40) character set ascii", TYPE_TEXT, {0, 0, 40, 0}},
        {"c15", "text character set utf8mb4", TYPE_TEXT, {0}},
        {"c16", "varchar(9) character set latin1", TYPE_OTHER, {0}},
        {"c17", "binary(16)", TYPE_BYTES, {0, 0, 16, 0}},
        {"c18", "varbinary(30)", TYPE_BYTES, {0, 0, 30, 0}},
        {"c19", "mediumblob", TYPE_BYTES, {0}},
        {"c20", "date", TYPE_DATE, {0}},
        {"c21", "datetime(3)", TYPE_TIMESTAMP, {0, 0, 0, 3}},
        {"c22", "timestamp(6) null", TYPE_TIMESTAMPTZ, {0, 0, 0, 6}},
        {"c23", "time(2)", TYPE_TIME, {0, 0, 0, 2}},
        {"c24", "enum('a','b') character set utf8mb4", TYPE_ENUM, {0}},
        {"c25", "json", TYPE_JSON, {0}},
        {"c26", "set('a','b') character set utf8mb4", TYPE_OTHER, {0}},
        {"c27", "bit(3)", TYPE_OTHER, {0}},
        {"c28", "year", TYPE_OTHER, {0}},
        {"c29", "point", TYPE_OTHER, {0}},
        {"c`30", "json", TYPE_JSON, {0}},
    };
    static const char *const include[] = {"ls_types.*"};
    struct db *db;
    struct buf sql;

    test_database("ls_types");
    db = test_open(test_uri("ls_types", NULL), DB_CONTROL);
    buf_init(&sql, BUF_MAX_TEXT);
    buf_adds(&sql, "CREATE TABLE t (id int PRIMARY KEY");
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++) {
        buf_adds(&sql, ", ");
        my_ident(&sql, columns[i].name);
        buf_addf(&sql, " %s", columns[i].type);
    }
    buf_adds(&sql, ", twice int GENERATED ALWAYS AS (id * 2) STORED)");
    test_sql(db, sql.data);
    buf_release(&sql);
    my_close(db);

    const struct table_list list = read_tables(include, 1);
    const struct table *t = find(&list, "ls_types.t");
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++)
        expect_column(t, columns[i].name, columns[i].kind, columns[i].sizes);
    assert_true(t->columns[t->ncolumns - 1].generated);
    assert_false(t->columns[1].generated);
    assert_true(t->columns[0].not_null);
    assert_int_equal(t->columns[0].order, KEY_ORDER_INT);
    assert_int_equal(t->columns[17].order, KEY_ORDER_BYTES);
    assert_int_equal(t->columns[14].order, KEY_ORDER_SERVER);
}

static void expect_key(const struct table_list *list, const char *label, const char *columns,
                       enum replica_identity identity)
{
    const struct table *t = find(list, label);
    char text[100] = "";

    for (size_t i = 0; i < t->nkey; i++) {
        strcat(text, i > 0 ? "," : "");
        strcat(text, t->columns[t->key[i]].name);
        assert_int_equal(t->columns[t->key[i]].key, i + 1);
    }
    assert_string_equal(text, columns);
    assert_int_equal(t->identity, identity);
}

static void finds_what_identifies_a_row(void **state)
{
    static const char *const include[] = {"ls_keys.*"};
    struct db *db;

    test_database("ls_keys");
    db = test_open(test_uri("ls_keys", NULL), DB_CONTROL);
    test_sql(db, "CREATE TABLE pk (a int, b int, c int NOT NULL UNIQUE, PRIMARY KEY (b, a));"
                 "CREATE TABLE uk (a int NOT NULL, b int NOT NULL, c int NOT NULL,"
                 " UNIQUE aa (b, c), UNIQUE zz (a));"
                 "CREATE TABLE nullable (a int UNIQUE);"
                 "CREATE TABLE prefixed (a varchar(50) NOT NULL, UNIQUE (a(5)));"
                 "CREATE TABLE plain (a int, KEY (a));"
                 "CREATE TABLE T (a int PRIMARY KEY); CREATE TABLE t (b int NOT NULL UNIQUE);"
                 "CREATE VIEW v AS SELECT * FROM pk; CREATE TABLE `dot.ted` (a int PRIMARY KEY)");
    my_close(db);
    const struct table_list list = read_tables(include, 1);
    assert_int_equal(list.n, 8);
    for (size_t i = 1; i < list.n; i++)
        assert_true(strcmp(table_label(list.v[i - 1]), table_label(list.v[i])) < 0);
    expect_key(&list, "ls_keys.pk", "b,a", IDENTITY_KEY);
    expect_key(&list, "ls_keys.uk", "a", IDENTITY_KEY);
    expect_key(&list, "ls_keys.nullable", "", IDENTITY_FULL);
    expect_key(&list, "ls_keys.prefixed", "", IDENTITY_FULL);
    expect_key(&list, "ls_keys.plain", "", IDENTITY_FULL);
    expect_key(&list, "ls_keys.T", "a", IDENTITY_KEY);
    expect_key(&list, "ls_keys.t", "b", IDENTITY_KEY);
    expect_key(&list, "ls_keys.dot.ted", "a", IDENTITY_KEY);
    assert_true(find(&list, "ls_keys.T")->id != find(&list, "ls_keys.t")->id);
}

static void takes_what_was_chosen(void **state)
{
    static const char *const two[] = {"ls_keys.p*", "ls_types.?"};
    static const char *const bare[] = {"plain"};
    struct table_list list = read_tables(two, 2);

    assert_int_equal(list.n, 4);
    list = read_tables(bare, 1);
    assert_int_equal(list.n, 1);
    list = read_tables(NULL, 0);
    for (size_t i = 0; i < list.n; i++) {
        assert_string_not_equal(list.v[i]->schema, "mysql");
        assert_string_not_equal(list.v[i]->schema, "sys");
        assert_string_not_equal(list.v[i]->schema, "lockstep");
    }
    find(&list, "ls_keys.pk");
    find(&list, "ls_types.t");
}

static int release(void **state)
{
    arena_release(&arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(knows_each_type),
        cmocka_unit_test(finds_what_identifies_a_row),
        cmocka_unit_test(takes_what_was_chosen),
    };

    return cmocka_run_group_tests(tests, NULL, release);
}
