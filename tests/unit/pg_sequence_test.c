/* Sequences and markers on a real server, as a role that owns the database and is no superuser. */
#include "tests/unit/pg_support.h"

#include <libpq-fe.h>

#define DATABASE "lockstep_sequence_test"
#define OWNER "sequence_own"

static const struct engine *const pg = &engine_postgres;
static struct db *own;
static struct err e;

static void sql(PGconn *c, const char *text)
{
    PGresult *res = PQexec(c, text);

    if (PQresultStatus(res) != PGRES_COMMAND_OK && PQresultStatus(res) != PGRES_TUPLES_OK)
        fail_msg("%s: %s", text, PQerrorMessage(c));
    PQclear(res);
}

static long long number(PGconn *c, const char *text)
{
    PGresult *res = PQexec(c, text);

    if (PQresultStatus(res) != PGRES_TUPLES_OK)
        fail_msg("%s: %s", text, PQerrorMessage(c));
    long long n = atoll(PQgetvalue(res, 0, 0));
    PQclear(res);
    return n;
}

static int suite_setup(void **state)
{
    test_role(OWNER);
    test_database(DATABASE, OWNER);
    own = test_open(test_uri(DATABASE, OWNER), DB_CONTROL);
    return 0;
}

static int suite_teardown(void **state)
{
    pg->close(own);
    return 0;
}

/* ---- markers ---- */

/* Reads the stream until the text comes; -1 after 5 s, else the milliseconds. */
static int64_t await_text(PGconn *c, const char *text, int64_t start)
{
    for (;;) {
        char *data = NULL;
        int n = PQgetCopyData(c, &data, 1);

        if (n > 0) {
            bool found = data[0] == 'w' && memmem(data, (size_t)n, text, strlen(text)) != NULL;
            PQfreemem(data);
            if (found)
                return mono_ms() - start;
            continue;
        }
        if (n < 0 || mono_ms() > start + 5000 || !PQconsumeInput(c))
            return -1;
    }
}

static void marker_arrives_at_once(void **state)
{
    char uri[400];
    int64_t best = 5000;

    snprintf(uri, sizeof uri, "%s replication=database", test_uri(DATABASE, OWNER));
    PGconn *c = PQconnectdb(uri);
    assert_int_equal(PQstatus(c), CONNECTION_OK);
    sql(c, "CREATE_REPLICATION_SLOT fence_test TEMPORARY LOGICAL test_decoding");
    PGresult *res = PQexec(c, "START_REPLICATION SLOT fence_test LOGICAL 0/0");
    assert_int_equal(PQresultStatus(res), PGRES_COPY_BOTH);
    PQclear(res);
    for (int i = 0; i < 5; i++) {
        char token[32];
        int64_t start = mono_ms();

        snprintf(token, sizeof token, "marker-%d", i);
        assert_ok(pg->mark(own, token, &e));
        int64_t took = await_text(c, token, start);
        assert_true(took >= 0);
        print_message("marker after %lld ms\n", (long long)took);
        best = took < best ? took : best;
        nap_ms(300); /* the WAL writer goes to sleep again */
    }
    assert_in_range(best, 0, 49);
    PQfinish(c);
}

/* ---- sequences ---- */

static const struct sequence_value *find_sequence(const struct sequence_list *l, const char *name)
{
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->v[i].name, name) == 0)
            return &l->v[i];
    return NULL;
}

static void reads_and_sets_sequences(void **state)
{
    PGconn *c = PQconnectdb(test_uri(DATABASE, OWNER));
    struct arena a = ARENA_INIT;
    struct sequence_list l;
    static const char *const some[] = {"s1.t*"};
    static const char *const whole[] = {"s1.*"};
    static const char *const not [] = {"s1.u"};

    sql(c, "DROP SCHEMA IF EXISTS s1 CASCADE; CREATE SCHEMA s1;"
           "CREATE SEQUENCE s1.\"Free One\" INCREMENT -5 START -7 MAXVALUE 10;"
           "CREATE TABLE s1.t(id bigserial, x int GENERATED ALWAYS AS IDENTITY);"
           "CREATE SEQUENCE s1.used; CREATE TABLE s1.t2(id int DEFAULT nextval('s1.used'));"
           "CREATE TABLE s1.u(id serial);"
           "SELECT nextval('s1.\"Free One\"'), nextval('s1.\"Free One\"');"
           "SELECT setval('s1.used', 41, false), setval('s1.t_id_seq', 9000000000)");
    assert_ok(pg->sequences(own, &(struct selection){some, 1, NULL, 0}, &a, &l, &e));
    assert_int_equal(l.n, 3);
    assert_non_null(find_sequence(&l, "t_x_seq"));
    assert_false(find_sequence(&l, "t_x_seq")->called);
    assert_int_equal(find_sequence(&l, "used")->last_value, 41);
    assert_false(find_sequence(&l, "used")->called);
    assert_int_equal(find_sequence(&l, "t_id_seq")->last_value, 9000000000);
    assert_true(find_sequence(&l, "t_id_seq")->called);
    assert_ok(pg->sequences(own, &(struct selection){whole, 1, not, 1}, &a, &l, &e));
    assert_int_equal(l.n, 4);
    assert_null(find_sequence(&l, "u_id_seq"));
    const struct sequence_value *lone = find_sequence(&l, "Free One");
    assert_int_equal(lone->last_value, -12);
    assert_int_equal(lone->increment, -5);
    assert_ok(pg->sequences(own, &(struct selection){0}, &a, &l, &e));
    assert_int_equal(l.n, 5); /* the fence's own is never among them */

    struct sequence_value v = *find_sequence(&l, "Free One");
    v.last_value = -100;
    assert_ok(pg->sequence_set(own, &v, &e));
    assert_int_equal(number(c, "SELECT nextval('s1.\"Free One\"')"), -105);
    v.called = false;
    assert_ok(pg->sequence_set(own, &v, &e));
    assert_int_equal(number(c, "SELECT nextval('s1.\"Free One\"')"), -100);
    v.last_value = 11;
    assert_int_equal(pg->sequence_set(own, &v, &e), -1);
    assert_int_equal(e.class, ERR_DATA);
    sql(c, "DROP SCHEMA s1 CASCADE");
    arena_release(&a);
    PQfinish(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(marker_arrives_at_once),
        cmocka_unit_test(reads_and_sets_sequences),
    };

    return cmocka_run_group_tests(tests, suite_setup, suite_teardown);
}
