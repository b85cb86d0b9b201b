/* What engines/mysql/describe.c tells of tables, on a real server. */
#include "convert_support.h"
#include "my_support.h"

static struct made made;
static struct schema_def def;

static const char tables_sql[] =
    "DROP DATABASE IF EXISTS describe_test; CREATE DATABASE describe_test CHARACTER SET utf8mb4;"
    "CREATE TABLE describe_test.users (id bigint unsigned NOT NULL AUTO_INCREMENT,"
    " email varchar(100) COLLATE utf8mb4_general_ci NOT NULL DEFAULT 'it''s \\\\ so',"
    " same varchar(20) COLLATE utf8mb4_nopad_bin NULL,"
    " state enum('new','it''s','a,b') NOT NULL DEFAULT 'new',"
    " made datetime(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)"
    "  COMMENT 'when',"
    " seen timestamp NOT NULL DEFAULT '2020-01-02 03:04:05', n int NULL DEFAULT -5,"
    " nothing int NULL DEFAULT NULL, latin varchar(5) CHARACTER SET latin1,"
    " fuzzy float(7,2), token char(36) DEFAULT (uuid()),"
    " twice int GENERATED ALWAYS AS (n * 2) STORED, words text,"
    " PRIMARY KEY (id), UNIQUE KEY email (email), KEY two (state, email(10) DESC),"
    " FULLTEXT KEY words (words), CONSTRAINT positive CHECK (n > -10)) COMMENT='people';"
    "CREATE TABLE describe_test.orders (id int PRIMARY KEY, doc json, user_id bigint unsigned,"
    " CONSTRAINT fk_user FOREIGN KEY (user_id) REFERENCES describe_test.users (id)"
    "  ON DELETE SET NULL ON UPDATE CASCADE)";

static void list_tables(void)
{
    static const struct {
        const char *name;
        enum type_kind kind;
        const char *type;
    } users[] = {{"id", TYPE_DECIMAL, "bigint(20) unsigned"},
                 {"email", TYPE_TEXT, "varchar(100)"},
                 {"same", TYPE_TEXT, "varchar(20)"},
                 {"state", TYPE_ENUM, "enum"},
                 {"made", TYPE_TIMESTAMP, "datetime(6)"},
                 {"seen", TYPE_TIMESTAMPTZ, "timestamp"},
                 {"n", TYPE_INT32, "int(11)"},
                 {"nothing", TYPE_INT32, "int(11)"},
                 {"latin", TYPE_TEXT, "varchar(5)"},
                 {"fuzzy", TYPE_FLOAT32, "float(7,2)"},
                 {"token", TYPE_TEXT, "char(36)"},
                 {"twice", TYPE_INT32, "int(11)"},
                 {"words", TYPE_TEXT, "text"}};
    struct table_def *u = made_table(&made, "describe_test", "users");
    struct table_def *o;

    for (size_t i = 0; i < sizeof(users) / sizeof(users[0]); i++)
        made_column(u, users[i].name, users[i].kind, users[i].type);
    made_of(&u->columns[1])->length = 100;
    made.tables[0].key[made.tables[0].nkey++] = 0;
    o = made_table(&made, "describe_test", "orders");
    made_column(o, "id", TYPE_INT32, "int(11)");
    made_column(o, "doc", TYPE_JSON, "longtext");
    made_column(o, "user_id", TYPE_DECIMAL, "bigint(20) unsigned");
}

static const struct column_def *column(const char *name)
{
    return &def.tables[0].columns[table_column_find(def.tables[0].table, name)];
}

static void tells_columns(void **state)
{
    assert_int_equal(column("id")->default_kind, DEFAULT_IDENTITY);
    assert_int_equal(column("email")->default_kind, DEFAULT_LITERAL);
    assert_string_equal(column("email")->default_text, "it's \\ so");
    assert_true(column("email")->case_insensitive);
    assert_false(column("same")->case_insensitive);
    assert_string_equal(column("same")->collation, "utf8mb4_nopad_bin");
    assert_int_equal(column("same")->default_kind, DEFAULT_NONE);
    assert_int_equal(column("state")->nlabels, 3);
    assert_string_equal(column("state")->labels[1], "it's");
    assert_string_equal(column("state")->labels[2], "a,b");
    assert_string_equal(column("state")->default_text, "new");
    assert_int_equal(column("made")->default_kind, DEFAULT_NOW);
    assert_true(column("made")->on_update_now);
    assert_string_equal(column("made")->comment, "when");
    assert_string_equal(column("seen")->default_text, "2020-01-02 03:04:05+00");
    assert_int_equal(column("n")->default_kind, DEFAULT_LITERAL);
    assert_string_equal(column("n")->default_text, "-5");
    assert_int_equal(column("nothing")->default_kind, DEFAULT_NONE);
    assert_int_equal(column("token")->default_kind, DEFAULT_EXPRESSION);
    assert_int_equal(column("twice")->default_kind, DEFAULT_GENERATED);
    assert_true(column("twice")->stored);
    assert_non_null(strstr(column("latin")->unfit, "latin1"));
    assert_non_null(strstr(column("fuzzy")->unfit, "rounds"));
    assert_null(column("words")->unfit);
}

static void tells_indexes(void **state)
{
    const struct table_def *t = &def.tables[0];

    assert_int_equal(t->nindexes, 4);
    assert_true(t->indexes[0].primary);
    assert_string_equal(t->indexes[0].columns[0].name, "id");
    assert_string_equal(t->indexes[1].name, "email");
    assert_true(t->indexes[1].unique);
    assert_string_equal(t->indexes[2].name, "two");
    assert_int_equal(t->indexes[2].ncolumns, 2);
    assert_int_equal(t->indexes[2].columns[1].prefix, 10);
    assert_true(t->indexes[2].columns[1].descending);
    assert_null(t->indexes[2].unfit);
    assert_non_null(t->indexes[3].unfit);
    assert_int_equal(column("email")->shared_key, 1);
    assert_int_equal(column("words")->shared_key, 0);
    assert_int_equal(column("n")->row_chars, 100);
}

static void tells_the_rest(void **state)
{
    const struct table_def *o = &def.tables[1];

    assert_string_equal(def.tables[0].comment, "people");
    assert_int_equal(def.tables[0].nchecks, 1);
    assert_non_null(strstr(def.tables[0].checks[0], "-10"));
    assert_int_equal(o->nchecks, 0); /* the server's own for json is none */
    assert_int_equal(o->nforeigns, 1);
    assert_string_equal(o->foreigns[0].ref_table, "describe_test.users");
    assert_string_equal(o->foreigns[0].columns[0], "user_id");
    assert_string_equal(o->foreigns[0].ref_columns[0], "id");
    assert_int_equal(o->foreigns[0].on_delete, FOREIGN_SET_NULL);
    assert_int_equal(o->foreigns[0].on_update, FOREIGN_CASCADE);
    assert_int_equal(o->columns[2].shared_key, 1); /* it refers to a key */
}

/* As if every column had a condition. */
static size_t count_unfit(struct db *db, struct findings *out)
{
    struct verdict verdicts[20];
    struct err e = {0};

    for (size_t i = 0; i < 20; i++)
        verdicts[i] = (struct verdict){.forward = FIDELITY_CONDITION};
    *out = (struct findings){0};
    assert_ok(my_unfit_values(db, &def.tables[0], verdicts, &made.arena, out, &e));
    return out->n;
}

static void finds_values(void **state)
{
    struct db *db = test_open(test_uri(NULL, NULL), DB_CONTROL);
    struct findings f;

    assert_int_equal(count_unfit(db, &f), 0);
    test_sql(db, "INSERT INTO describe_test.users (id, email, made) VALUES"
                 " (1, 'a', '0001-01-01'), (2, 'b', '9999-12-31 23:59:59.999999')");
    assert_int_equal(count_unfit(db, &f), 0);
    test_sql(db, "SET sql_mode = '';"
                 "INSERT INTO describe_test.users (id, email, made, seen, state, words) VALUES"
                 " (7, CONCAT('a', CHAR(0)), '2024-00-10', 0, 'none', CONCAT(CHAR(0), 'x'))");
    assert_int_equal(count_unfit(db, &f), 5);
    for (size_t i = 0; i < f.n; i++) {
        assert_true(f.v[i].fatal);
        assert_non_null(strstr(f.v[i].what, "row (7)"));
    }
    assert_string_equal(f.v[0].object, "describe_test.users.email");
    test_sql(db, "DELETE FROM describe_test.users WHERE id = 7");
    if (my_db_from(db)->maria) { /* the ends of what is none, and what lies beside them */
        test_sql(db, "INSERT INTO describe_test.users (id, email, made, words) VALUES"
                     " (8, X'61EDA080', '2024-01-01', X'EDBFBF'),"
                     " (9, X'ED9FBF', '2024-01-01', X'EE8080')");
        assert_int_equal(count_unfit(db, &f), 2);
        assert_non_null(strstr(f.v[0].what, "row (8)"));
        assert_non_null(strstr(f.v[1].what, "half of a surrogate pair"));
    }
    my_close(db);
}

static void sees_a_change(void **state)
{
    struct db *db = test_open(test_uri(NULL, NULL), DB_CONTROL);
    struct table *v[] = {&made.tables[1]};
    struct table_list list = {1, v};
    struct schema_def out;
    struct err e = {0};

    test_sql(db, "ALTER TABLE describe_test.orders RENAME COLUMN doc TO paper");
    assert_int_equal(my_describe(db, &list, &made.arena, &out, &e), -1);
    assert_int_equal(e.class, ERR_RETRY);
    test_sql(db, "DROP DATABASE describe_test");
    my_close(db);
}

static int setup(void **state)
{
    struct db *db = test_open(test_uri(NULL, NULL), DB_CONTROL);
    struct table *v[] = {&made.tables[0], &made.tables[1]};
    struct table_list list = {2, v};
    struct err e = {0};

    test_sql(db, tables_sql);
    list_tables();
    assert_ok(my_describe(db, &list, &made.arena, &def, &e));
    my_close(db);
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
        cmocka_unit_test(tells_columns),  cmocka_unit_test(tells_indexes),
        cmocka_unit_test(tells_the_rest), cmocka_unit_test(finds_values),
        cmocka_unit_test(sees_a_change),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
