/* Tables of PostgreSQL, as engines/mysql types and renders them, made on a real server. */
#include "convert_support.h"
#include "my_support.h"

static struct made made;

static void make_tables(void)
{
    static const char *const labels[] = {"sad", "it's"};
    struct table_def *u = made_table(&made, "public", "users");
    struct column_def *c;

    c = made_column(u, "email", TYPE_TEXT, "text");
    c = made_column(u, "id", TYPE_INT64, "bigint");
    c->default_kind = DEFAULT_IDENTITY;
    c = made_column(u, "name", TYPE_TEXT, "character varying(50)");
    made_of(c)->length = 50;
    c->default_kind = DEFAULT_LITERAL;
    c->default_text = "it's \\ so";
    c = made_column(u, "note", TYPE_TEXT, "text");
    c->default_kind = DEFAULT_LITERAL;
    c->default_text = "-";
    c = made_column(u, "flag", TYPE_BOOL, "boolean");
    c->default_kind = DEFAULT_LITERAL;
    c->default_text = "t";
    c = made_column(u, "amount", TYPE_DECIMAL, "numeric(12,2)");
    made_of(c)->precision = 12;
    made_of(c)->scale = 2;
    c->default_kind = DEFAULT_LITERAL;
    c->default_text = "0";
    c = made_column(u, "mood", TYPE_ENUM, "public.mood");
    c->labels = labels;
    c->nlabels = 2;
    c->default_kind = DEFAULT_LITERAL;
    c->default_text = "it's";
    c = made_column(u, "made", TYPE_TIMESTAMPTZ, "timestamp with time zone");
    made_of(c)->fraction = 6;
    c->default_kind = DEFAULT_NOW;
    c = made_column(u, "day", TYPE_DATE, "date");
    c->default_kind = DEFAULT_NOW;
    c = made_column(u, "at", TYPE_TIMESTAMP, "timestamp(3) without time zone");
    made_of(c)->fraction = 3;
    c->default_kind = DEFAULT_NOW;
    c->comment = "when 'it' was made";
    made_column(u, "code", TYPE_UUID, "uuid");
    made_column(u, "doc", TYPE_JSON, "jsonb")->default_kind = DEFAULT_LITERAL;
    u->columns[u->table->ncolumns - 1].default_text = "{}";
    made_column(u, "raw", TYPE_BYTES, "bytea");
    made_column(u, "f", TYPE_FLOAT32, "real");
    made_primary(&made, u, "id");
    made_index(&made, u, "users_email", "email", true);
    made_index(&made, u, "users_note", "note", false);
    made_index(&made, u, "users_gin", "doc", false)->unfit = "it is a gin index";
    u->comment = "people";

    struct table_def *o = made_table(&made, "public", "orders");
    made_column(o, "id", TYPE_INT32, "integer");
    made_column(o, "email", TYPE_TEXT, "text");
    made_primary(&made, o, "id");
    made_foreign(&made, o, "fk_user", "email", "public.users", "email");
    struct table_def *n = made_table(&made, "public", "notes");
    made_column(n, "code", TYPE_UUID, "uuid");
    made_column(n, "email", TYPE_TEXT, "text");
    made_index(&made, n, "notes_code", "code", true);
    made.tables[2].key[made.tables[2].nkey++] = 0;
    made.tables[2].columns[0].not_null = true;
    made_foreign(&made, n, "fk_user", "email", "public.users", "email"); /* the name again */
    made_convert(&made, "render_there", my_column_for);
}

/* Numbered columns that do not lead the primary key: one has a plain index, one only a unique one.
 */
static void make_counters(struct made *m)
{
    static const struct index_column both[] = {{.name = "tenant"}, {.name = "id"}};

    for (int unique = 0; unique < 2; unique++) {
        struct table_def *d = made_table(m, "public", unique ? "by_unique" : "by_plain");

        made_column(d, "tenant", TYPE_INT32, "integer");
        made_column(d, "id", TYPE_INT64, "bigint")->default_kind = DEFAULT_IDENTITY;
        made_primary(m, d, "tenant");
        d->indexes[0].columns = both;
        d->indexes[0].ncolumns = 2;
        m->tables[unique].key[m->tables[unique].nkey++] = 1;
        m->tables[unique].columns[1].key = 2;
        m->tables[unique].columns[1].not_null = true;
        if (!unique)
            made_index(m, d, "id_alone", "id", false);
        made_index(m, d, "id_unique", "id", true);
    }
    made_convert(m, "render_there", my_column_for);
}

static const char *type_of(size_t table, const char *column)
{
    return made.theres[table].columns[table_column_find(&made.tables[table], column)].source_type;
}

static void types_have_verdicts(void **state)
{
    const struct verdict *email = &made.verdicts[0][0];

    assert_string_equal(type_of(0, "email"), "varchar(768)");
    assert_int_equal(email->forward, FIDELITY_CONDITION);
    assert_non_null(strstr(email->condition, "at most 768 characters"));
    /* Who refers to a bounded column is bounded as it is. */
    assert_string_equal(type_of(1, "email"), "varchar(768)");
    assert_string_equal(type_of(0, "name"), "varchar(50)");
    assert_string_equal(type_of(0, "note"), "longtext");
    assert_string_equal(type_of(0, "made"), "datetime(6)");
    assert_string_equal(type_of(0, "at"), "datetime(3)");
    assert_string_equal(type_of(0, "amount"), "decimal(12,2)");
    assert_string_equal(type_of(0, "mood"), "enum('sad','it''s')");
    assert_string_equal(type_of(0, "code"), "char(36)");
    assert_string_equal(type_of(0, "raw"), "longblob");
}

static enum fidelity judge(struct column *c, struct column_def *def)
{
    struct verdict v;
    struct column to;

    def->column = c;
    my_column_for(def, false, &made.arena, &to, &v);
    return v.forward;
}

static void refuses_what_has_no_type(void **state)
{
    static const char *const blank[] = {"a "};
    struct column c = {.name = (char *)(uintptr_t) "n",
                       .kind = TYPE_DECIMAL,
                       .source_type = (char *)(uintptr_t) "numeric"};
    struct column_def def = {.column = &c};

    assert_int_equal(judge(&c, &def), FIDELITY_LOSSY);
    c.precision = 66;
    assert_int_equal(judge(&c, &def), FIDELITY_LOSSY);
    c.precision = 65;
    c.scale = 30;
    assert_int_equal(judge(&c, &def), FIDELITY_CONDITION);
    c.scale = -2;
    assert_int_equal(judge(&c, &def), FIDELITY_LOSSY);
    c = (struct column){.name = c.name, .kind = TYPE_OTHER, .source_type = c.source_type};
    assert_int_equal(judge(&c, &def), FIDELITY_NONE);
    c.kind = TYPE_ENUM;
    def.labels = blank;
    def.nlabels = 1;
    assert_int_equal(judge(&c, &def), FIDELITY_NONE);
    c.kind = TYPE_INT32;
    assert_int_equal(judge(&c, &def), FIDELITY_EXACT);
    c.generated = true;
    assert_int_equal(judge(&c, &def), FIDELITY_NONE);
}

/* As the stage runs them: by phase and order; each is undone and made again. */
static void make_all(struct db *db, const struct schema_steps *steps)
{
    struct err e = {0};

    for (int phase = 0; phase < SCHEMA_PHASES; phase++) {
        for (int order = 0; order < 3; order++) {
            for (size_t i = 0; i < steps->n; i++) {
                const struct schema_step *s = &steps->v[i];

                if ((int)s->phase != phase || s->order != order)
                    continue;
                /* Undone where nothing was done, then where all was. */
                for (int k = 0; k < 2; k++) {
                    if (s->undo)
                        assert_ok(my_schema_run(db, s->undo, true, &e));
                    if (my_schema_run(db, s->sql, true, &e) < 0)
                        fail_msg("%s: %s\n%s", s->name, e.msg, s->sql);
                }
            }
        }
    }
}

static void numbers_what_any_index_begins_with(void **state)
{
    struct db *db = test_open(test_uri(NULL, NULL), DB_SCHEMA);
    struct made m = {0};
    struct schema_steps steps;
    struct err e = {0};

    make_counters(&m);
    test_sql(db, "DROP DATABASE IF EXISTS render_there");
    assert_ok(my_schema_render(&m.def, false, &m.arena, &steps, &e));
    assert_null(made_step(&steps, "index render_there.by_plain.id_alone"));
    assert_non_null(
        strstr(made_step(&steps, "table render_there.by_plain")->sql, "KEY `id_alone`"));
    /* What is unique is so only behind the load. */
    assert_null(strstr(made_step(&steps, "table render_there.by_unique")->sql, "UNIQUE"));
    make_all(db, &steps);
    test_sql(db, "INSERT INTO render_there.by_plain (tenant) VALUES (1), (1);"
                 "INSERT INTO render_there.by_unique (tenant) VALUES (1), (1)");
    assert_string_equal(test_value(db, "SELECT GROUP_CONCAT(id) FROM render_there.by_plain"),
                        "1,2");
    assert_string_equal(test_value(db, "SELECT GROUP_CONCAT(id) FROM render_there.by_unique"),
                        "1,2");
    assert_string_equal(
        test_value(db,
                   "SELECT GROUP_CONCAT(TABLE_NAME, '.', INDEX_NAME, '.', NON_UNIQUE ORDER BY 1)"
                   " FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = 'render_there'"
                   " AND INDEX_NAME <> 'PRIMARY'"),
        "by_plain.id_alone.1,by_plain.id_unique.0,by_unique.id_unique.0");
    test_sql(db, "DROP DATABASE render_there");
    arena_release(&m.arena);
    my_close(db);
}

static void makes_them(void **state)
{
    struct db *db = test_open(test_uri(NULL, NULL), DB_SCHEMA);
    struct schema_steps steps;
    struct err e = {0};

    test_sql(db, "DROP DATABASE IF EXISTS render_there");
    assert_ok(my_schema_render(&made.def, false, &made.arena, &steps, &e));
    make_all(db, &steps);
    assert_null(made_step(&steps, "index render_there.users.users_gin"));
    assert_non_null(made_step(&steps, "foreign key render_there.notes.notes_fk_user"));
    assert_int_equal(made_step(&steps, "unique index render_there.users.users_email")->phase,
                     SCHEMA_UNIQUE);

    test_sql(db, "INSERT INTO render_there.users (email) VALUES ('a'), ('A'), ('a ');"
                 "INSERT INTO render_there.orders VALUES (1, 'a ')");
    assert_string_equal(test_value(db, "SELECT CONCAT_WS('|', id, name, note, flag, amount, mood,"
                                       " doc, ABS(TIMESTAMPDIFF(SECOND, made, UTC_TIMESTAMP)) < 9)"
                                       " FROM render_there.users WHERE email = 'A'"),
                        "2|it's \\ so|-|1|0.00|it's|{}|1");
    assert_string_equal(test_value(db, "SELECT COLUMN_COMMENT FROM information_schema.COLUMNS"
                                       " WHERE TABLE_SCHEMA = 'render_there' AND COLUMN_NAME"
                                       " = 'at'"),
                        "when 'it' was made");
    assert_string_equal(
        test_value(db, "SELECT COUNT(*) FROM information_schema.REFERENTIAL_CONSTRAINTS"
                       " WHERE CONSTRAINT_SCHEMA = 'render_there' AND DELETE_RULE = 'CASCADE'"),
        "2");
    test_sql(db, "DROP DATABASE render_there");
    my_close(db);
}

/* A column as this server describes it, rendered for whichever reads it. */
static const char *collated(struct made *m, const char *collation, bool key)
{
    struct table_def *d = made_table(m, "public", "t");
    struct schema_steps steps;
    struct err e = {0};

    made_column(d, "v", TYPE_TEXT, "varchar(20)")->collation = collation;
    if (key)
        made_index(m, d, "v_unique", "v", true);
    assert_ok(my_schema_render(&m->def, true, &m->arena, &steps, &e));
    return made_step(&steps, "table public.t")->sql;
}

static void collations_have_a_like_on_the_other_server(void **state)
{
    static const struct {
        const char *from;
        const char *want;
    } cases[] = {
        {"utf8mb4_0900_bin",
         "/*M! COLLATE utf8mb4_nopad_bin */ /*!80017 COLLATE utf8mb4_0900_bin */"},
        {"utf8mb4_nopad_bin",
         "/*M! COLLATE utf8mb4_nopad_bin */ /*!80017 COLLATE utf8mb4_0900_bin */"},
        {"utf8mb4_0900_ai_ci", "/*M!101001 COLLATE utf8mb4_uca1400_nopad_ai_ci */"
                               " /*!80017 COLLATE utf8mb4_0900_ai_ci */"},
        {"utf8mb4_uca1400_ai_ci",
         "/*M!101001 COLLATE utf8mb4_uca1400_ai_ci */ /*!80017 COLLATE utf8mb4_0900_ai_ci */"},
        {"utf8mb4_general_ci", "utf8mb4 COLLATE utf8mb4_general_ci NULL"},
        {"utf8mb4_de_pb_0900_ai_ci", "utf8mb4 /*!80017 COLLATE utf8mb4_de_pb_0900_ai_ci */ NULL"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct made m = {0};
        const char *sql = collated(&m, cases[i].from, false);

        if (!strstr(sql, cases[i].want))
            fail_msg("%s: %s", cases[i].from, sql);
        arena_release(&m.arena);
    }
}

static void collations_without_a_like_are_told(void **state)
{
    static const struct {
        const char *collation;
        bool maria; /* the target */
        int version;
        bool key;
        enum fidelity forward;
        int fatal; /* -1: no finding */
    } cases[] = {
        {"utf8mb4_0900_ai_ci", false, 80036, true, FIDELITY_EXACT, -1},
        {"utf8mb4_uca1400_ai_ci", true, 110402, true, FIDELITY_EXACT, -1},
        {"utf8mb4_general_ci", true, 100611, true, FIDELITY_EXACT, -1},
        {"utf8mb4_0900_bin", true, 100611, true, FIDELITY_EXACT, -1},
        {"utf8mb4_nopad_bin", false, 80036, true, FIDELITY_EXACT, -1},
        {"utf8mb4_0900_ai_ci", true, 101001, true, FIDELITY_CONDITION, -1},
        {"utf8mb4_0900_ai_ci", true, 100611, true, FIDELITY_CONDITION, 1},
        {"utf8mb4_0900_ai_ci", true, 100611, false, FIDELITY_CONDITION, 0},
        {"utf8mb4_uca1400_ai_ci", true, 100611, true, FIDELITY_CONDITION, 1},
        {"utf8mb4_general_nopad_ci", false, 80036, true, FIDELITY_CONDITION, 1},
        {"utf8mb4_de_pb_0900_ai_ci", true, 110402, false, FIDELITY_CONDITION, 0},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct made m = {0};
        struct my_db to = {.maria = cases[i].maria, .version = cases[i].version};
        struct verdict v = {FIDELITY_EXACT, FIDELITY_EXACT, NULL};
        struct findings f = {0};

        collated(&m, cases[i].collation, cases[i].key);
        my_judge_pair(NULL, &to.base, &m.defs[0], &v, &m.arena, &f);
        if (v.forward != cases[i].forward || (v.condition != NULL) != (v.forward != FIDELITY_EXACT))
            fail_msg("case %zu: %s", i, v.condition ? v.condition : "exact");
        assert_int_equal(f.n, cases[i].fatal >= 0);
        if (f.n)
            assert_int_equal(f.v[0].fatal, cases[i].fatal);
        arena_release(&m.arena);
    }
}

static int setup(void **state)
{
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
        cmocka_unit_test(collations_have_a_like_on_the_other_server),
        cmocka_unit_test(collations_without_a_like_are_told),
        cmocka_unit_test(numbers_what_any_index_begins_with),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
