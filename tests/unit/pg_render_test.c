/* Tables of MySQL, as engines/postgres types and renders them, made on a real server; then the
 * server's own catalog must say what was planned. */
#include "tests/unit/convert_support.h"
#include "tests/unit/pg_support.h"

#define DATABASE "render_test"
#define ROLE "render_test_role"

static struct made made;

static void make_tables(void)
{
    static const char *const labels[] = {"new", "it's", ""};
    struct table_def *u = made_table(&made, "shop", "users");
    struct column_def *c;

    c = made_column(u, "id", TYPE_DECIMAL, "bigint(20) unsigned");
    made_of(c)->precision = 20;
    c->default_kind = DEFAULT_IDENTITY;
    c = made_column(u, "email", TYPE_TEXT, "varchar(100)");
    made_of(c)->length = 100;
    c->collation = "utf8mb4_general_ci";
    c->case_insensitive = true;
    made_column(u, "small", TYPE_INT16, "smallint(6)")->default_kind = DEFAULT_LITERAL;
    u->columns[2].default_text = "-7";
    made_column(u, "tiny", TYPE_INT16, "tinyint(3) unsigned");
    c = made_column(u, "state", TYPE_ENUM, "enum('new','it''s','')");
    c->labels = labels;
    c->nlabels = 3;
    c->default_kind = DEFAULT_LITERAL;
    c->default_text = "it's";
    c = made_column(u, "made", TYPE_TIMESTAMP, "datetime(3)");
    made_of(c)->fraction = 3;
    c->default_kind = DEFAULT_NOW;
    c->comment = "when 'it' was made";
    c->on_update_now = true;
    c = made_column(u, "seen", TYPE_TIMESTAMPTZ, "timestamp(6)");
    made_of(c)->fraction = 6;
    made_column(u, "raw", TYPE_BYTES, "binary(16)");
    made_column(u, "doc", TYPE_JSON, "json");
    made_column(u, "Odd \"name", TYPE_TEXT, "longtext");
    made_primary(&made, u, "id");
    made_index(&made, u, "email", "email", true);
    ((struct index_column *)(uintptr_t)made_index(&made, u, "name", "Odd \"name", false)->columns)
        ->prefix = 10;
    made_index(&made, u, "words", "Odd \"name", false)->unfit = "it is a FULLTEXT index";
    u->comment = "people";

    struct table_def *o = made_table(&made, "shop", "orders");
    c = made_column(o, "id", TYPE_INT32, "int(11)");
    c->default_kind = DEFAULT_IDENTITY;
    c = made_column(o, "user_id", TYPE_DECIMAL, "bigint(20) unsigned");
    made_of(c)->precision = 20;
    made_primary(&made, o, "id");
    made_index(&made, o, "email", "user_id", false); /* the same name as another table's */
    made_foreign(&made, o, "fk_user", "user_id", "shop.users", "id");
    made_column(made_table(&made, "shop", "keyless"), "x", TYPE_FLOAT64, "double");
    made_convert(&made, "web", pg_column_for);
}

static const struct verdict *verdict_of(const char *column)
{
    return &made.verdicts[0][table_column_find(&made.tables[0], column)];
}

static const char *type_of(const char *column)
{
    return made.theres[0].columns[table_column_find(&made.tables[0], column)].source_type;
}

/* C11: what would not come back as it was is said, for each column and each way. */
static void types_have_verdicts(void **state)
{
    assert_string_equal(type_of("id"), "numeric(20,0)");
    assert_int_equal(verdict_of("id")->forward, FIDELITY_EXACT);
    assert_int_equal(verdict_of("id")->back, FIDELITY_CONDITION);
    assert_non_null(strstr(verdict_of("id")->condition, "bigint(20) unsigned"));
    assert_string_equal(type_of("email"), "character varying(100)");
    assert_int_equal(verdict_of("email")->forward, FIDELITY_CONDITION);
    assert_non_null(strstr(verdict_of("email")->condition, "NUL"));
    assert_non_null(strstr(verdict_of("email")->condition, "no two keys"));
    assert_int_equal(verdict_of("small")->back, FIDELITY_EXACT);
    assert_null(verdict_of("small")->condition);
    assert_int_equal(verdict_of("tiny")->back, FIDELITY_CONDITION);
    assert_string_equal(type_of("state"), "web.users_state_enum");
    assert_string_equal(type_of("made"), "timestamp(3) without time zone");
    assert_string_equal(type_of("seen"), "timestamp with time zone");
    assert_string_equal(type_of("Odd \"name"), "text");
}

static void refuses_what_has_no_type(void **state)
{
    struct column c = {.name = (char *)(uintptr_t) "g",
                       .kind = TYPE_OTHER,
                       .source_type = (char *)(uintptr_t) "geometry"};
    struct column_def def = {.column = &c, .unfit = "it is a shape"};
    struct verdict v;
    struct column to;

    pg_column_for(&def, false, &made.arena, &to, &v);
    assert_int_equal(v.forward, FIDELITY_NONE);
    assert_string_equal(v.condition, "it is a shape");
    def.unfit = NULL;
    pg_column_for(&def, false, &made.arena, &to, &v);
    assert_int_equal(v.forward, FIDELITY_NONE);
    c.kind = TYPE_DECIMAL;
    pg_column_for(&def, false, &made.arena, &to, &v);
    assert_int_equal(v.forward, FIDELITY_NONE);
    c.kind = TYPE_INT32;
    c.generated = true;
    pg_column_for(&def, false, &made.arena, &to, &v);
    assert_int_equal(v.forward, FIDELITY_NONE);
    c.generated = false;
    pg_column_for(&def, false, &made.arena, &to, &v);
    assert_int_equal(v.forward, FIDELITY_EXACT);
}

static void run(struct db *db, const struct schema_step *s)
{
    struct err e = {0};

    if (!s->online)
        assert_ok(pg_begin(db, &e));
    if (pg_schema_run(db, s->sql, s->online, &e) < 0)
        fail_msg("%s: %s\n%s", s->name, e.msg, s->sql);
    if (!s->online)
        assert_ok(pg_commit(db, &e));
}

static const struct table *find(const struct table_list *l, const char *label)
{
    for (size_t i = 0; i < l->n; i++) {
        if (table_is(l->v[i], label))
            return l->v[i];
    }
    fail_msg("no table %s", label);
    return NULL;
}

static void check_catalog(struct db *db)
{
    struct table_list list;
    struct err e = {0};

    assert_ok(pg_tables(db, NULL, &made.arena, &list, &e));
    for (size_t i = 0; i < made.def.n; i++) {
        const struct table *want = &made.theres[i];
        const struct table *have = find(&list, table_label(want));

        assert_int_equal(have->ncolumns, want->ncolumns);
        assert_int_equal(have->nkey, want->nkey);
        for (size_t c = 0; c < want->ncolumns; c++) {
            assert_string_equal(have->columns[c].name, want->columns[c].name);
            assert_string_equal(have->columns[c].source_type, want->columns[c].source_type);
            assert_string_equal(have->columns[c].cast_type, want->columns[c].cast_type);
            assert_int_equal(have->columns[c].kind, want->columns[c].kind);
            assert_int_equal(have->columns[c].length, want->columns[c].length);
            assert_int_equal(have->columns[c].fraction, want->columns[c].fraction);
        }
    }
}

/* As the stage runs them: by phase and order; an online one is undone and made again. */
static void makes_them(void **state)
{
    struct db *db = test_open(test_uri(DATABASE, ROLE), DB_SCHEMA);
    struct schema_steps steps;
    struct err e = {0};

    assert_ok(pg_schema_render(&made.def, false, &made.arena, &steps, &e));
    for (int phase = 0; phase < SCHEMA_PHASES; phase++) {
        for (int order = 0; order < 3; order++) {
            for (size_t i = 0; i < steps.n; i++) {
                const struct schema_step *s = &steps.v[i];

                if ((int)s->phase != phase || s->order != order)
                    continue;
                run(db, s);
                if (!s->undo)
                    continue;
                assert_ok(pg_schema_run(db, s->undo, true, &e));
                run(db, s);
            }
        }
    }
    check_catalog(db);
    assert_null(made_step(&steps, "index web.words"));
    assert_int_equal(made_step(&steps, "unique index web.email")->phase, SCHEMA_UNIQUE);
    assert_int_equal(made_step(&steps, "key web.users")->phase, SCHEMA_KEY);
    assert_string_equal(made_step(&steps, "key web.users")->table, "shop.users");
    assert_non_null(made_step(&steps, "index web.orders_email"));

    test_sql(db, "INSERT INTO web.users (email) VALUES ('a'), ('b');"
                 "INSERT INTO web.orders (user_id) VALUES (1)");
    assert_string_equal(test_value(db, "SELECT id || ' ' || small || ' ' || state || ' ' ||"
                                       " (now() - made < interval '1 min') FROM web.users"
                                       " WHERE email = 'b'"),
                        "2 -7 it's true");
    assert_string_equal(test_value(db, "SELECT col_description('web.users'::regclass, 6)"),
                        "when 'it' was made");
    assert_string_equal(test_value(db, "SELECT obj_description('web.users'::regclass)"), "people");
    assert_string_equal(test_value(db, "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND"
                                       " convalidated AND confdeltype = 'c'"),
                        "1");
    assert_string_equal(test_value(db, "SELECT relreplident FROM pg_class WHERE relname ="
                                       " 'keyless'"),
                        "f");
    assert_string_equal(test_value(db, "SELECT pg_get_serial_sequence('web.users', 'id')"),
                        "web.users_id_seq");
    pg_close(db);
}

static void cuts_long_names(void **state)
{
    char name[80];

    memset(name, 'x', sizeof name);
    name[79] = '\0';
    const char *a = schema_object_name(&made.arena, 63, name);
    name[78] = 'y';
    const char *b = schema_object_name(&made.arena, 63, name);
    assert_int_equal(strlen(a), 63);
    assert_string_not_equal(a, b);
    assert_string_equal(schema_object_name(&made.arena, 63, "short"), "short");
}

static int setup(void **state)
{
    test_role(ROLE);
    test_database(DATABASE, ROLE);
    make_tables();
    return 0;
}

static int teardown(void **state)
{
    arena_release(&made.arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(types_have_verdicts),
        cmocka_unit_test(refuses_what_has_no_type),
        cmocka_unit_test(makes_them),
        cmocka_unit_test(cuts_long_names),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
