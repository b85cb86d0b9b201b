/* What engines/postgres/describe.c tells of tables, on a real server, to a role that owns nothing
 * of them. */
#include "tests/unit/convert_support.h"
#include "tests/unit/pg_support.h"

#define DATABASE "describe_test"
#define ROLE "describe_test_role"

static struct arena arena;
static struct table_list list;
static struct schema_def def;

static const char tables_sql[] =
    "CREATE TYPE mood AS ENUM ('sad', 'it''s', 'a,b'); CREATE DOMAIN cents AS int;"
    "CREATE TABLE users (id bigserial PRIMARY KEY, email text NOT NULL DEFAULT 'it''s \\ so',"
    " code varchar(20) DEFAULT 'x'::varchar, state mood DEFAULT 'sad', flag bool DEFAULT true,"
    " n int DEFAULT -5, amount numeric(12,2) DEFAULT 1.50, made timestamptz(3) DEFAULT now(),"
    " day date DEFAULT CURRENT_DATE, later timestamp DEFAULT (now() + '1 day'::interval),"
    " old timestamp DEFAULT '2020-01-02 03:04:05', token uuid DEFAULT gen_random_uuid(),"
    " doc jsonb DEFAULT '{\"a\": [1]}', raw bytea DEFAULT '\\x00', tags text[], price cents,"
    " twice int GENERATED ALWAYS AS (n * 2) STORED, nothing int DEFAULT NULL,"
    " CHECK (n > -10));"
    "COMMENT ON TABLE users IS 'people'; COMMENT ON COLUMN users.made IS 'when';"
    "CREATE UNIQUE INDEX users_email ON users (email) INCLUDE (n);"
    "CREATE INDEX users_two ON users (state, n DESC);"
    "CREATE INDEX users_like ON users (email text_pattern_ops);"
    "CREATE UNIQUE INDEX users_part ON users (n) WHERE flag;"
    "CREATE INDEX users_expr ON users (lower(email)); CREATE INDEX users_gin ON users USING gin"
    " (doc);"
    "CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email text,"
    " CONSTRAINT fk_user FOREIGN KEY (email) REFERENCES users (email)"
    "  ON DELETE SET NULL ON UPDATE CASCADE);"
    "CREATE TABLE part (id int, user_id bigint REFERENCES users) PARTITION BY LIST (id);"
    "CREATE TABLE part_1 PARTITION OF part FOR VALUES IN (1)";

static const struct table_def *table(const char *label)
{
    const struct table_def *t = schema_def_find(&def, label);

    if (!t)
        fail_msg("no table %s", label);
    return t;
}

static const struct column_def *column(const char *name)
{
    const struct table_def *t = table("public.users");

    return &t->columns[table_column_find(t->table, name)];
}

static void is_literal(const char *name, const char *text)
{
    assert_int_equal(column(name)->default_kind, DEFAULT_LITERAL);
    assert_string_equal(column(name)->default_text, text);
}

static void tells_columns(void **state)
{
    assert_int_equal(column("id")->default_kind, DEFAULT_IDENTITY);
    is_literal("email", "it's \\ so");
    is_literal("code", "x");
    assert_int_equal(column("code")->column->length, 20);
    is_literal("state", "sad");
    is_literal("flag", "t");
    is_literal("n", "-5");
    is_literal("amount", "1.50");
    is_literal("old", "2020-01-02 03:04:05");
    is_literal("doc", "{\"a\": [1]}");
    assert_int_equal(column("made")->default_kind, DEFAULT_NOW);
    assert_int_equal(column("made")->column->fraction, 3);
    assert_string_equal(column("made")->comment, "when");
    assert_int_equal(column("day")->default_kind, DEFAULT_NOW);
    assert_int_equal(column("later")->default_kind, DEFAULT_EXPRESSION);
    assert_int_equal(column("token")->default_kind, DEFAULT_EXPRESSION);
    assert_int_equal(column("raw")->default_kind, DEFAULT_EXPRESSION);
    assert_int_equal(column("nothing")->default_kind, DEFAULT_NONE);
    assert_int_equal(column("twice")->default_kind, DEFAULT_GENERATED);
    assert_int_equal(column("state")->nlabels, 3);
    assert_string_equal(column("state")->labels[2], "a,b");
    assert_non_null(strstr(column("tags")->unfit, "array"));
    assert_non_null(strstr(column("price")->unfit, "domain"));
    assert_null(column("doc")->unfit);
    assert_int_equal(table("public.orders")->columns[0].default_kind, DEFAULT_IDENTITY);
}

static const struct index_def *index_named(const char *name)
{
    const struct table_def *t = table("public.users");

    for (size_t i = 0; i < t->nindexes; i++) {
        if (strcmp(t->indexes[i].name, name) == 0)
            return &t->indexes[i];
    }
    fail_msg("no index %s", name);
    return NULL;
}

static void tells_indexes(void **state)
{
    assert_true(table("public.users")->indexes[0].primary);
    assert_true(index_named("users_email")->unique);
    assert_int_equal(index_named("users_email")->ncolumns, 1);
    assert_null(index_named("users_email")->unfit);
    assert_int_equal(index_named("users_two")->ncolumns, 2);
    assert_false(index_named("users_two")->columns[0].descending);
    assert_true(index_named("users_two")->columns[1].descending);
    assert_null(index_named("users_like")->unfit);
    assert_non_null(strstr(index_named("users_part")->unfit, "partial"));
    assert_non_null(strstr(index_named("users_expr")->unfit, "expression"));
    assert_non_null(strstr(index_named("users_gin")->unfit, "gin"));
    assert_int_equal(column("email")->shared_key, 1);
    assert_int_equal(column("n")->shared_key, 0); /* a partial index asks for nothing */
    assert_int_equal(table("public.orders")->columns[1].shared_key, 1);
}

static void tells_the_rest(void **state)
{
    const struct table_def *o = table("public.orders");

    assert_string_equal(table("public.users")->comment, "people");
    assert_int_equal(table("public.users")->nchecks, 1);
    assert_int_equal(o->nforeigns, 1);
    assert_string_equal(o->foreigns[0].ref_table, "public.users");
    assert_string_equal(o->foreigns[0].ref_columns[0], "email");
    assert_int_equal(o->foreigns[0].on_delete, FOREIGN_SET_NULL);
    assert_int_equal(o->foreigns[0].on_update, FOREIGN_CASCADE);
    /* A leaf has what its root declared. */
    assert_int_equal(table("public.part_1")->nforeigns, 1);
}

/* As if every column had a condition, and email were bounded on the target. */
static size_t count_unfit(struct db *db, struct findings *out)
{
    struct verdict verdicts[20];
    struct table_def d = *table("public.users");
    struct table from = *d.table;
    struct table there = from;
    struct err e = {0};

    for (size_t i = 0; i < 20; i++)
        verdicts[i] = (struct verdict){.forward = FIDELITY_CONDITION};
    there.columns = arena_memdup(&arena, from.columns, from.ncolumns * sizeof(*from.columns));
    there.columns[1].length = 5;
    from.there = &there;
    d.table = &from;
    *out = (struct findings){0};
    assert_ok(pg_unfit_values(db, &d, verdicts, &arena, out, &e));
    return out->n;
}

static void finds_values(void **state)
{
    struct db *db = test_open(test_uri(DATABASE, NULL), DB_CONTROL);
    struct findings f;

    assert_int_equal(count_unfit(db, &f), 0);
    test_sql(
        db,
        "INSERT INTO public.users (id, email, n, old, day) VALUES"
        " (1, '12345', 1, '0001-01-01', '9999-12-31'), (2, 'a', 2, '9999-12-31 23:59:59.999999',"
        " '0001-01-01')");
    assert_int_equal(count_unfit(db, &f), 0);
    test_sql(db, "INSERT INTO public.users (id, email, n, amount, old, day) VALUES"
                 " (7, '123456', 7, 'NaN', '0001-12-31 BC', 'infinity')");
    assert_int_equal(count_unfit(db, &f), 4);
    for (size_t i = 0; i < f.n; i++) {
        assert_true(f.v[i].fatal);
        assert_non_null(strstr(f.v[i].what, "row (7)"));
    }
    assert_string_equal(f.v[0].object, "public.users.email");
    pg_close(db);
}

static void sees_a_change(void **state)
{
    struct db *db = test_open(test_uri(DATABASE, NULL), DB_CONTROL);
    struct schema_def out;
    struct err e = {0};

    test_sql(db, "ALTER TABLE public.orders RENAME COLUMN email TO mail");
    assert_int_equal(pg_describe(db, &list, &arena, &out, &e), -1);
    assert_int_equal(e.class, ERR_RETRY);
    pg_close(db);
}

static int setup(void **state)
{
    struct err e = {0};
    struct db *db;

    test_role(ROLE);
    test_database(DATABASE, NULL);
    db = test_open(test_uri(DATABASE, NULL), DB_CONTROL);
    test_sql(db, "SET search_path = public");
    test_sql(db, tables_sql);
    pg_close(db);
    db = test_open(test_uri(DATABASE, ROLE), DB_CONTROL);
    assert_ok(pg_tables(db, NULL, &arena, &list, &e));
    assert_ok(pg_describe(db, &list, &arena, &def, &e));
    pg_close(db);
    return 0;
}

static int teardown(void **state)
{
    arena_release(&arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tells_columns),  cmocka_unit_test(tells_indexes),
        cmocka_unit_test(tells_the_rest), cmocka_unit_test(finds_values),
        cmocka_unit_test(sees_a_change),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
