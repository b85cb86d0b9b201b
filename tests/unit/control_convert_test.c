/* The plan of a conversion, with engines that know their answers: what becomes a finding, what is
 * refused, what is left out because the target has it. The columns' types are the drivers' own. */
#include "control/convert.h"
#include "convert_support.h"
#include "engines/postgres/driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct made made;
static struct made existing;

static int describe_source(struct db *db, const struct table_list *tables, struct arena *a,
                           struct schema_def *out, struct err *e)
{
    (void)db, (void)tables, (void)a, (void)e;
    *out = made.def;
    return 0;
}

static int describe_target(struct db *db, const struct table_list *tables, struct arena *a,
                           struct schema_def *out, struct err *e)
{
    (void)db, (void)a, (void)e;
    assert_int_equal(tables->n, existing.def.n);
    *out = existing.def;
    return 0;
}

static int tables_target(struct db *db, const struct selection *s, struct arena *a,
                         struct table_list *out, struct err *e)
{
    (void)db, (void)s, (void)e;
    out->n = existing.def.n;
    out->v = arena_zalloc(a, 4 * sizeof(*out->v));
    for (size_t i = 0; i < out->n; i++)
        out->v[i] = &existing.tables[i];
    return 0;
}

static struct engine source_engine;
static struct engine target_engine;
static struct schema_pair pair = {"shop", "public"};
static struct migration migration;
static struct db source = {&source_engine};
static struct db target = {&target_engine};
static struct table *chosen[4];
static struct table_list list;

static void add_orders(void)
{
    struct table_def *d = made_table(&made, "shop", "orders");

    made_column(d, "id", TYPE_INT32, "int(11)");
    made_column(d, "customer", TYPE_INT32, "int(11)");
    made_column(d, "note", TYPE_TEXT, "text")->on_update_now = true;
    made_primary(&made, d, "id");
    made_index(&made, d, "by_customer", "customer", false);
    made_index(&made, d, "words", "note", false)->unfit = "it is a FULLTEXT index";
    made_foreign(&made, d, "fk", "customer", "shop.elsewhere", "id");
}

static int setup(void **state)
{
    (void)state;
    memset(&made, 0, sizeof(made));
    memset(&existing, 0, sizeof(existing));
    source_engine = (struct engine){.name = "source", .describe = describe_source};
    target_engine = (struct engine){.name = "target",
                                    .describe = describe_target,
                                    .tables = tables_target,
                                    .column_for = engine_postgres.column_for,
                                    .schema_render = engine_postgres.schema_render};
    migration = (struct migration){.name = "m",
                                   .source = {&source_engine, "source"},
                                   .target = {&target_engine, "target"},
                                   .schemas = {1, &pair}};
    add_orders();
    chosen[0] = &made.tables[0];
    list = (struct table_list){1, chosen};
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_release(&made.arena);
    arena_release(&existing.arena);
    return 0;
}

static void plan(struct conversion *out)
{
    struct err e = {0};

    schema_def_finish(&made.def);
    assert_int_equal(convert_plan(&migration, &source, &list, &made.arena, out, &e), 0);
    assert_true(out->needed);
}

static bool has_finding(const struct conversion *c, bool fatal, const char *object,
                        const char *what)
{
    for (size_t i = 0; i < c->findings.n; i++) {
        const struct finding *f = &c->findings.v[i];

        if (f->fatal == fatal && strcmp(f->object, object) == 0 && strstr(f->what, what))
            return true;
    }
    return false;
}

static void test_what_stays_behind_is_a_warning(void **state)
{
    struct conversion c;
    struct err e = {0};

    (void)state;
    plan(&c);
    assert_true(has_finding(&c, false, "shop.orders", "it is a FULLTEXT index"));
    assert_true(has_finding(&c, false, "shop.orders", "shop.elsewhere is not chosen"));
    assert_true(has_finding(&c, false, "shop.orders.note", "ON UPDATE"));
    assert_int_equal(convert_refuse(&c, &e), 0);
}

static void test_each_column_has_its_there(void **state)
{
    const struct table *there;
    struct conversion c;

    (void)state;
    plan(&c);
    there = table_there(chosen[0]);
    assert_string_equal(table_label(there), "public.orders");
    assert_int_equal(there->ncolumns, 3);
    assert_string_equal(there->columns[0].source_type, "integer");
    for (size_t i = 0; i < there->ncolumns; i++)
        assert_int_equal(there->columns[i].kind, chosen[0]->columns[i].kind);
    assert_int_equal(c.verdicts[0][0].forward, FIDELITY_EXACT);
    assert_int_equal(c.verdicts[0][2].forward, FIDELITY_CONDITION);
}

static void test_an_unfit_column_is_refused_by_name(void **state)
{
    struct table_def *d = &made.defs[0];
    struct conversion c;
    struct err e = {0};

    (void)state;
    made_column(d, "tags", TYPE_OTHER, "set('a','b')")->unfit = "it is a set";
    plan(&c);
    assert_true(has_finding(&c, true, "shop.orders.tags", "type set('a','b'): it is a set"));
    assert_int_equal(convert_refuse(&c, &e), -1);
    assert_int_equal(e.class, ERR_REFUSED);
    assert_non_null(strstr(e.msg, "shop.orders.tags"));
    assert_non_null(strstr(e.hint, "tables.exclude"));
}

static bool has_step(const struct schema_steps *steps, const char *word)
{
    for (size_t i = 0; i < steps->n; i++) {
        if (strstr(steps->v[i].sql, word))
            return true;
    }
    return false;
}

static void test_what_is_there_is_left_out(void **state)
{
    struct conversion c;
    struct schema_steps steps = {0};
    struct err e = {0};
    struct table_def *d;

    (void)state;
    plan(&c);
    assert_int_equal(convert_steps(&migration, &c, &target, &made.arena, &steps, &e), 0);
    assert_true(has_step(&steps, "CREATE TABLE"));
    assert_true(has_step(&steps, "CREATE INDEX"));
    assert_false(has_step(&steps, "\"note\")"));
    assert_false(has_step(&steps, "FOREIGN KEY"));

    d = made_table(&existing, "public", "orders");
    made_column(d, "customer", TYPE_INT32, "integer");
    made_index(&existing, d, "another_name", "customer", false);
    steps = (struct schema_steps){0};
    plan(&c);
    assert_int_equal(convert_steps(&migration, &c, &target, &made.arena, &steps, &e), 0);
    assert_false(has_step(&steps, "CREATE TABLE"));
    assert_false(has_step(&steps, "CREATE INDEX"));
}

static void test_two_tables_must_not_become_one(void **state)
{
    struct schema_pair pairs[] = {{"shop", "x"}, {"public", "x"}};
    struct conversion c;
    struct err e = {0};

    (void)state;
    made_column(made_table(&made, "public", "orders"), "id", TYPE_INT32, "integer");
    made_column(made_table(&made, "public", "Orders"), "id", TYPE_INT32, "integer");
    for (size_t i = 0; i < made.def.n; i++)
        chosen[i] = &made.tables[i];
    list.n = 3;
    /* One schema is renamed to what another is called already; then both are. */
    for (int both = 0; both < 2; both++) {
        migration.schemas = both ? (struct schema_map){2, pairs} : (struct schema_map){1, &pair};
        plan(&c);
        assert_true(has_finding(&c, true, "shop.orders",
                                both ? "would be x.orders, and so would public.orders"
                                     : "would be public.orders, and so would public.orders"));
        assert_int_equal(convert_refuse(&c, &e), -1);
        assert_int_equal(e.class, ERR_REFUSED);
    }
    migration.schemas.n = 0;
    plan(&c);
    assert_int_equal(convert_refuse(&c, &e), 0);
}

/* Who numbers only the first column of an index cannot number others. */
static void test_a_number_without_an_index_is_refused(void **state)
{
    struct conversion c;

    (void)state;
    made_column(&made.defs[0], "no", TYPE_INT64, "bigint")->default_kind = DEFAULT_IDENTITY;
    plan(&c);
    assert_false(has_finding(&c, true, "shop.orders.no", "no index begins with it"));
    target_engine.counts_by_index = true;
    plan(&c);
    assert_true(has_finding(&c, true, "shop.orders.no", "no index begins with it"));
    made_index(&made, &made.defs[0], "by_no", "no", true);
    plan(&c);
    assert_false(has_finding(&c, true, "shop.orders.no", "no index begins with it"));
    made.defs[0].columns[0].default_kind = DEFAULT_IDENTITY;
    plan(&c);
    assert_true(has_finding(&c, false, "shop.orders.no", "one column of a table, here id"));
}

static void test_an_engine_that_copies_its_own_needs_none(void **state)
{
    struct conversion c;
    struct err e = {0};

    (void)state;
    migration.source.engine = migration.target.engine = &engine_postgres;
    assert_int_equal(convert_plan(&migration, &source, &list, &made.arena, &c, &e), 0);
    assert_false(c.needed);
    assert_null(chosen[0]->there);
    assert_true(has_finding(&c, true, "shop.orders", "cannot be called public there"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_stays_behind_is_a_warning, setup, teardown),
        cmocka_unit_test_setup_teardown(test_each_column_has_its_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_unfit_column_is_refused_by_name, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_there_is_left_out, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_tables_must_not_become_one, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_number_without_an_index_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_engine_that_copies_its_own_needs_none, setup,
                                        teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
