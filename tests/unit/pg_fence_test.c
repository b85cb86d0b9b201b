/* The fence on a real server: what it refuses, who holds it, whom it waits for, and that it
 * outlives a crash. LOCKSTEP_TEST_PG_CRASH=1 also allows the test that crashes the server. */
#include "tests/unit/pg_fence_support.h"

#include <stdatomic.h>

/* ---- refusing ---- */

static void refuses_open_transactions_and_old_snapshots(void **state)
{
    static const char *const levels[] = {"READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"};
    PGconn *app[6];
    char sql[200];

    for (int i = 0; i < 6; i++) {
        app[i] = connect_as("fence_app", DATABASE);
        snprintf(sql, sizeof sql, "BEGIN ISOLATION LEVEL %s; SELECT count(*) FROM parent",
                 levels[i % 3]);
        must(app[i], sql);
        if (i < 3)
            continue;
        snprintf(sql, sizeof sql, "INSERT INTO parent VALUES (%d, 'before')", 5000 + i);
        must(app[i], sql);
    }
    ok(pg->fence_flip(own, TOKEN, 1, 5000, 3000, &e));
    assert_int_equal(mode(), FENCE_LEASED);
    for (int i = 0; i < 6; i++)
        state_is(app[i], "UPDATE parent SET note = 'late' WHERE id = 1", "40001");
    PGconn *fresh_one = connect_as("fence_app", DATABASE);
    state_is(fresh_one, "INSERT INTO parent VALUES (-1, '')", "40001");
    state_is(fresh_one, "COPY parent FROM STDIN", "00000"); /* the server asks for the data … */
    PQputCopyData(fresh_one, "-1\t\n", 4);
    PQputCopyEnd(fresh_one, NULL);
    PGresult *res = PQgetResult(fresh_one);
    assert_string_equal(PQresultErrorField(res, PG_DIAG_SQLSTATE), "40001"); /* … and refuses */
    PQclear(res);
    while ((res = PQgetResult(fresh_one)) != NULL)
        PQclear(res);
    state_is(fresh_one, "SELECT count(*) FROM parent", "00000");
    state_is(fresh_one, "INSERT INTO apart VALUES (1)", "00000");
    ok(pg->fence_lift(own, TOKEN, &e));
    state_is(fresh_one, "UPDATE parent SET note = 'open' WHERE id = 1", "00000");
    for (int i = 0; i < 6; i++)
        PQfinish(app[i]);
    PQfinish(fresh_one);
}

static void refuses_partitions_cascades_heirs(void **state)
{
    static const char *const writes[] = {
        "INSERT INTO pt1 VALUES (1, '')", /* listed */
        "INSERT INTO pt VALUES (1, '')",  /* its root */
        "INSERT INTO pt2 VALUES (101, '')",
        "DELETE FROM parent WHERE id = 2", /* cascades to "Child" */
        "DELETE FROM \"Child\" WHERE id = 2",
        "UPDATE \"Child\" SET p = 1 WHERE false",
        "TRUNCATE \"Child\"",
        "TRUNCATE parent CASCADE",
        "UPDATE up SET id = 1", /* writes to heir */
        "INSERT INTO heir VALUES (1, 1)",
        "WITH d AS (DELETE FROM parent WHERE id = 3 RETURNING 1) SELECT * FROM d",
        "INSERT INTO parent VALUES (1, '') ON CONFLICT DO NOTHING",
        "MERGE INTO parent p USING (SELECT 1 AS id) s ON p.id = s.id WHEN MATCHED THEN DELETE",
        "DO $$ BEGIN DELETE FROM parent; END $$",
    };
    PGconn *app = connect_as("fence_app", DATABASE);
    PGconn *sup = connect_as("fence_sup", DATABASE);

    ok(pg->fence_flip(own, TOKEN, 1, 10000, 3000, &e));
    for (size_t i = 0; i < sizeof writes / sizeof writes[0]; i++)
        if (strcmp(run(app, writes[i]), "40001") != 0)
            fail_msg("%s: not refused", writes[i]);
    must(sup, "SET session_replication_role = replica");
    state_is(sup, writes[0], "40001");
    ok(pg->fence_seal(own, TOKEN, 1, &e));
    for (size_t i = 0; i < sizeof writes / sizeof writes[0]; i++)
        if (strcmp(run(app, writes[i]), "25006") != 0)
            fail_msg("%s: not refused by the seal", writes[i]);
    state_is(sup, writes[0], "25006");
    PQfinish(app);
    PQfinish(sup);
}

static void lets_own_role_pass(void **state)
{
    PGconn *c = connect_as("fence_own", DATABASE);

    ok(pg->fence_flip(own, TOKEN, 1, 10000, 3000, &e));
    state_is(c, "UPDATE parent SET note = 'own' WHERE id = 1", "00000");
    ok(pg->fence_seal(own, TOKEN, 1, &e));
    state_is(c, "UPDATE parent SET note = 'own' WHERE id = 1", "00000");
    PQfinish(c);
    /* Becoming the role does not help: the login role counts. */
    must(super, "GRANT fence_own TO fence_app");
    c = connect_as("fence_app", DATABASE);
    must(c, "SET ROLE fence_own");
    state_is(c, "UPDATE parent SET note = 'own' WHERE id = 1", "25006");
    PQfinish(c);
    must(super, "REVOKE fence_own FROM fence_app");
}

static void applications_cannot_move_it(void **state)
{
    PGconn *app = connect_as("fence_app", DATABASE);

    ok(pg->fence_seal(own, TOKEN, 1, &e));
    state_is(app, "SELECT setval('lockstep.fence_lease', 0)", "42501");
    must(super, "SELECT 1");
    PGconn *c = connect_as("fence_own", DATABASE);
    must(c, "GRANT USAGE ON SCHEMA lockstep TO fence_app");
    state_is(app, "SELECT lockstep.fence_lift('token-a')", "42501");
    state_is(app, "SELECT setval('lockstep.fence_lease', 0)", "42501");
    must(c, "REVOKE USAGE ON SCHEMA lockstep FROM fence_app");
    PQfinish(c);
    PQfinish(app);
}

/* ---- who holds it ---- */

static void lapses_and_is_not_revived(void **state)
{
    PGconn *app = connect_as("fence_app", DATABASE);
    int64_t start = mono_ms();

    ok(pg->fence_flip(own, TOKEN, 1, 5000, 3000, &e));
    ok(pg->fence_renew(own, TOKEN, 1000, &e));
    state_is(app, "UPDATE parent SET note = 'x' WHERE id = 1", "40001");
    while (strcmp(run(app, "UPDATE parent SET note = 'x' WHERE id = 1"), "40001") == 0)
        assert_true(mono_ms() < start + 4500); /* not the first lease's end */
    assert_true(mono_ms() - start >= 999);
    assert_int_equal(mode(), FENCE_OPEN);
    refused(pg->fence_renew(own, TOKEN, 500, &e), ERR_RETRY);
    assert_string_equal(e.sqlstate, "LS002");
    state_is(app, "UPDATE parent SET note = 'x' WHERE id = 1", "00000");
    /* Nobody else took it: the holder may seal, or begin again. */
    ok(pg->fence_seal(own, TOKEN, 1, &e));
    assert_int_equal(mode(), FENCE_SEALED);
    PQfinish(app);
}

static void other_holders_are_fenced_off(void **state)
{
    struct fence_state s;

    ok(pg->fence_flip(own, TOKEN, 5, 10000, 3000, &e));
    ok(pg->fence_flip(own, TOKEN, 5, 10000, 3000, &e));
    refused(pg->fence_flip(own, OTHER, 5, 10000, 3000, &e), ERR_FENCED);
    refused(pg->fence_flip(own, OTHER, 4, 10000, 3000, &e), ERR_FENCED);
    refused(pg->fence_flip(own, TOKEN, 4, 10000, 3000, &e), ERR_FENCED);
    refused(pg->fence_renew(own, OTHER, 10000, &e), ERR_FENCED);
    refused(pg->fence_seal(own, OTHER, 5, &e), ERR_FENCED);
    refused(pg->fence_seal(own, TOKEN, 4, &e), ERR_FENCED);
    refused(pg->fence_lift(own, OTHER, &e), ERR_FENCED);
    ok(pg->fence_flip(own, OTHER, 6, 10000, 3000, &e)); /* takes over */
    refused(pg->fence_renew(own, TOKEN, 10000, &e), ERR_FENCED);
    refused(pg->fence_seal(own, TOKEN, 5, &e), ERR_FENCED);
    refused(pg->fence_lift(own, TOKEN, &e), ERR_FENCED);
    ok(pg->fence_seal(own, OTHER, 6, &e));
    ok(pg->fence_seal(own, OTHER, 6, &e));
    refused(pg->fence_flip(own, OTHER, 6, 10000, 3000, &e), ERR_FENCED); /* would undo the seal */
    refused(pg->fence_flip(own, TOKEN, 7, 10000, 3000, &e), ERR_FENCED);
    refused(pg->fence_renew(own, OTHER, 10000, &e), ERR_FENCED);
    refused(pg->fence_lift(own, TOKEN, &e), ERR_FENCED);
    ok(pg->fence_state(own, &s, &e));
    assert_int_equal(s.mode, FENCE_SEALED);
    assert_int_equal(s.epoch, 6);
    assert_string_equal(s.token, OTHER);
    ok(pg->fence_lift(own, OTHER, &e));
    ok(pg->fence_lift(own, OTHER, &e));
    ok(pg->fence_lift(own, TOKEN, &e)); /* open already: nothing of anybody's is undone */
    assert_int_equal(mode(), FENCE_OPEN);
}

/* Taken over as it is: who writes goes on, who is refused is refused, and the holder before can
 * move it no more. */
static void taken_over_as_it_is(void **state)
{
    PGconn *app = connect_as("fence_app", DATABASE);

    ok(pg->fence_flip(own, TOKEN, 5, 10000, 0, &e));
    refused(pg->fence_take(own, OTHER, 4, &e), ERR_FENCED);
    refused(pg->fence_take(own, OTHER, 5, &e), ERR_FENCED);
    ok(pg->fence_take(own, OTHER, 6, &e));
    assert_int_equal(mode(), FENCE_LEASED);
    refused(pg->fence_renew(own, TOKEN, 10000, &e), ERR_FENCED);
    ok(pg->fence_lift(own, OTHER, &e));

    ok(pg->fence_take(own, TOKEN, 7, &e));
    assert_int_equal(mode(), FENCE_OPEN);
    state_is(app, "UPDATE parent SET note = 'x' WHERE id = 1", "00000");
    refused(pg->fence_seal(own, OTHER, 6, &e), ERR_FENCED);

    ok(pg->fence_seal(own, TOKEN, 7, &e));
    refused(pg->fence_take(own, OTHER, 7, &e), ERR_FENCED);
    ok(pg->fence_take(own, OTHER, 8, &e));
    state_is(app, "UPDATE parent SET note = 'x' WHERE id = 1", "25006");
    refused(pg->fence_lift(own, TOKEN, &e), ERR_FENCED);
    ok(pg->fence_lift(own, OTHER, &e));
    assert_int_equal(mode(), FENCE_OPEN);
    PQfinish(app);
}

/* ---- waiting ---- */

static const struct fence_wait patient = {.grace_ms = 5000, .deadline_ms = 5000};

static void waits_for_exactly_the_writers(void **state)
{
    PGconn *app = connect_as("fence_app", DATABASE);
    PGconn *reader = connect_as("fence_app", DATABASE);
    PGconn *elsewhere = connect_as("fence_app", DATABASE);
    PGconn *mine = connect_as("fence_own", DATABASE);
    struct later commit = {.c = app, .sql = "COMMIT", .after_ms = 1000};
    struct fence_report r;

    must(reader, "BEGIN; SELECT count(*) FROM parent");
    must(elsewhere, "BEGIN; INSERT INTO apart VALUES (2)");
    must(mine, "SET application_name = 'lockstep:fence:apply'");
    must(mine, "BEGIN; UPDATE parent SET note = 'm' WHERE id = 9");
    must(app, "BEGIN; UPDATE parent SET note = 'w' WHERE id = 1");
    ok(pg->fence_flip(own, TOKEN, 1, 10000, 3000, &e));
    later_start(&commit);
    ok(pg->fence_wait(own, &patient, &r, &e));
    pthread_join(commit.thread, NULL);
    assert_string_equal(commit.state, "00000");
    assert_int_equal(r.waited_for, 1);
    assert_int_equal(r.terminated, 0);
    assert_in_range(r.took_ms, 50, 5000);
    assert_int_equal(number(app, "SELECT count(*) FROM parent WHERE id = 1 AND note = 'w'"), 1);
    ok(pg->fence_wait(own, &patient, &r, &e));
    assert_int_equal(r.waited_for, 0);
    PQfinish(app);
    PQfinish(reader);
    PQfinish(elsewhere);
    PQfinish(mine);
}

/* Our role under another name is not one of our sessions. */
static void waits_for_strangers_of_own_role(void **state)
{
    PGconn *mine = connect_as("fence_own", DATABASE);
    PGconn *app = connect_as("fence_app", DATABASE);
    const struct fence_wait soon = {.grace_ms = 5000, .deadline_ms = 60};
    struct fence_report r;

    must(mine, "BEGIN; UPDATE parent SET note = 'm' WHERE id = 9");
    must(app, "SET application_name = 'lockstep:fence:apply'");
    must(app, "BEGIN; UPDATE parent SET note = 'm' WHERE id = 10");
    ok(pg->fence_flip(own, TOKEN, 1, 10000, 3000, &e));
    refused(pg->fence_wait(own, &soon, &r, &e), ERR_RETRY);
    assert_int_equal(r.waited_for, 2);
    PQfinish(mine);
    PQfinish(app);
}

static void ends_who_does_not_end(void **state)
{
    PGconn *app = connect_as("fence_app", DATABASE);
    const struct fence_wait strict = {.grace_ms = 30, .deadline_ms = 5000};
    /* Late from the first look on, as who stood still is: who is to be ended is, all the same. */
    const struct fence_wait hasty = {.grace_ms = -1, .deadline_ms = 0};
    struct fence_report r;

    must(app, "BEGIN; UPDATE parent SET note = 'never' WHERE id = 1");
    ok(pg->fence_flip(own, TOKEN, 1, 10000, 3000, &e));
    ok(pg->fence_wait(own, &hasty, &r, &e));
    assert_int_equal(r.terminated, 1);
    PQfinish(app);
    ok(pg->fence_lift(own, TOKEN, &e));
    app = connect_as("fence_app", DATABASE);
    must(app, "BEGIN; UPDATE parent SET note = 'never' WHERE id = 1");
    ok(pg->fence_flip(own, TOKEN, 1, 10000, 3000, &e));
    ok(pg->fence_wait(own, &strict, &r, &e));
    assert_int_equal(r.waited_for, 1);
    assert_int_equal(r.terminated, 1);
    assert_string_not_equal(run(app, "COMMIT"), "00000");
    PQfinish(app);
    app = connect_as("fence_app", DATABASE);
    assert_int_equal(number(app, "SELECT count(*) FROM parent WHERE note = 'never'"), 0);
    PQfinish(app);
}

static void names_who_cannot_be_ended(void **state)
{
    PGconn *sup = connect_as("fence_sup", DATABASE);
    const struct fence_wait strict = {.grace_ms = 20, .deadline_ms = 2000};
    struct fence_report r;
    char pid[32];

    must(sup, "BEGIN; UPDATE parent SET note = 's' WHERE id = 1");
    ok(pg->fence_flip(own, TOKEN, 1, 10000, 3000, &e));
    refused(pg->fence_wait(own, &strict, &r, &e), ERR_RETRY);
    snprintf(pid, sizeof pid, "pid %d of fence_sup", PQbackendPID(sup));
    assert_non_null(strstr(e.msg, pid));
    assert_non_null(strstr(e.msg, "could not end"));
    assert_int_equal(r.terminated, 0);
    PQfinish(sup);
}

static void waits_for_prepared_transactions(void **state)
{
    PGconn *app = connect_as("fence_app", DATABASE);
    const struct fence_wait soon = {.grace_ms = 20, .deadline_ms = 200};
    struct fence_report r;

    must(app, "BEGIN; UPDATE parent SET note = 'p' WHERE id = 1");
    must(app, "PREPARE TRANSACTION 'fence_gid1'");
    ok(pg->fence_flip(own, TOKEN, 1, 20000, 3000, &e));
    refused(pg->fence_wait(own, &soon, &r, &e), ERR_RETRY);
    assert_non_null(strstr(e.msg, "'fence_gid1' of fence_app"));
    struct later commit = {.c = app, .sql = "COMMIT PREPARED 'fence_gid1'", .after_ms = 50};
    later_start(&commit);
    ok(pg->fence_wait(own, &patient, &r, &e));
    pthread_join(commit.thread, NULL);
    assert_string_equal(commit.state, "00000");
    assert_int_equal(r.waited_for, 1);
    PQfinish(app);
}

/* The session of the list ends its part by PREPARE while we wait: the writes are still undecided.
 */
static void waits_when_a_writer_prepares(void **state)
{
    PGconn *app = connect_as("fence_app", DATABASE);
    struct later prepare = {.c = app, .sql = "PREPARE TRANSACTION 'fence_gid2'", .after_ms = 50};
    const struct fence_wait soon = {.grace_ms = 5000, .deadline_ms = 3000};
    struct fence_report r;

    must(app, "BEGIN; UPDATE parent SET note = 'p' WHERE id = 2");
    ok(pg->fence_flip(own, TOKEN, 1, 20000, 3000, &e));
    later_start(&prepare);
    int rc = pg->fence_wait(own, &soon, &r, &e);
    pthread_join(prepare.thread, NULL);
    assert_int_equal(rc, -1);
    assert_int_equal(e.class, ERR_RETRY);
    assert_string_equal(prepare.state, "00000");
    assert_non_null(strstr(e.msg, "fence_gid2"));
    must(app, "ROLLBACK PREPARED 'fence_gid2'");
    ok(pg->fence_wait(own, &patient, &r, &e));
    PQfinish(app);
}

/* Clients that write all the time, in every isolation level, some with a pause in mid-transaction.
 * What is committed at the end of the wait must be all there is until the fence is lifted. */
#define WRITERS 6
#define CYCLES 12

struct writer {
    pthread_t thread;
    PGconn *c;
    int id;
    int acked;
    int refusals;
};
static atomic_bool writers_stop;

static void *writer_main(void *arg)
{
    static const char *const levels[] = {"READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"};
    struct writer *w = arg;
    char begin[100];

    snprintf(begin, sizeof begin, "BEGIN ISOLATION LEVEL %s; SELECT count(*) FROM up",
             levels[w->id % 3]);
    while (!writers_stop) {
        PQclear(PQexec(w->c, begin));
        bool good = PQtransactionStatus(w->c) == PQTRANS_INTRANS;
        nap_ms(w->id % 2);
        for (int i = 0; i < 2 && good; i++) {
            PGresult *res = PQexec(w->c, "INSERT INTO heir VALUES (1, 1)");
            good = PQresultStatus(res) == PGRES_COMMAND_OK;
            PQclear(res);
            nap_ms(w->id > 3 ? 20 * (w->id - 3) : w->id % 3);
        }
        PGresult *res = PQexec(w->c, "COMMIT");
        if (good && strcmp(PQcmdStatus(res), "COMMIT") == 0)
            w->acked += 2;
        else
            w->refusals++;
        PQclear(res);
        if (!good)
            nap_ms(1);
    }
    return NULL;
}

static void nothing_commits_behind_the_wait(void **state)
{
    static struct writer w[WRITERS];
    PGconn *c = connect_as("fence_own", DATABASE);
    struct fence_report r;
    long long acked = 0;
    long long refusals = 0;
    int waited = 0;
    int late = 0;
    int failures = 0;

    must(c, "TRUNCATE heir");
    writers_stop = false;
    for (int i = 0; i < WRITERS; i++) {
        w[i] = (struct writer){.c = connect_as("fence_app", DATABASE), .id = i};
        assert_int_equal(pthread_create(&w[i].thread, NULL, writer_main, &w[i]), 0);
    }
    for (int i = 0; i < CYCLES; i++) {
        nap_ms(20);
        failures += pg->fence_flip(own, TOKEN, 1, 20000, 3000, &e) != 0;
        failures += pg->fence_wait(own, &patient, &r, &e) != 0;
        long long before = number(c, "SELECT count(*) FROM heir");
        waited += r.waited_for;
        nap_ms(60);
        late += number(c, "SELECT count(*) FROM heir") != before;
        failures += pg->fence_lift(own, TOKEN, &e) != 0;
    }
    writers_stop = true;
    for (int i = 0; i < WRITERS; i++) {
        pthread_join(w[i].thread, NULL);
        acked += w[i].acked;
        refusals += w[i].refusals;
        PQfinish(w[i].c);
    }
    print_message("%lld rows acknowledged, %lld transactions refused, %d waited for\n", acked,
                  refusals, waited);
    assert_int_equal(failures, 0);
    assert_int_equal(late, 0);
    assert_int_equal(number(c, "SELECT count(*) FROM heir"), acked);
    assert_true(acked > 0 && refusals > 0 && waited > 0);
    PQfinish(c);
}

/* ---- durability ---- */

static void seal_survives_a_crash(void **state)
{
    char sql[200];
    int64_t start = mono_ms();

    if (getenv("LOCKSTEP_TEST_PG_CRASH") == NULL) {
        print_message("NOT RUN: LOCKSTEP_TEST_PG_CRASH is not set\n");
        skip();
    }
    PGconn *sup = connect_as("fence_sup", DATABASE);
    ok(pg->fence_flip(own, TOKEN, 8, 60000, 3000, &e));
    ok(pg->fence_seal(own, TOKEN, 8, &e));
    snprintf(sql, sizeof sql, "COPY (SELECT 1) TO PROGRAM 'kill -9 %d'", PQbackendPID(sup));
    run(sup, sql);
    PQfinish(sup);
    /* The postmaster ends everybody and recovers from the log, as after `-m immediate`. */
    while (strcmp(run(super, "SELECT 1"), "00000") == 0)
        assert_true(mono_ms() < start + 60000);
    while (PQstatus(super) != CONNECTION_OK || strcmp(run(super, "SELECT 1"), "00000") != 0) {
        assert_true(mono_ms() < start + 60000);
        PQreset(super);
        nap_ms(20);
    }
    pg->close(own);
    own = open_own();
    assert_int_equal(mode(), FENCE_SEALED);
    PGconn *app = connect_as("fence_app", DATABASE);
    state_is(app, "UPDATE parent SET note = 'x' WHERE id = 1", "25006");
    PQfinish(app);
    refused(pg->fence_lift(own, OTHER, &e), ERR_FENCED);
    ok(pg->fence_lift(own, TOKEN, &e));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        t(refuses_open_transactions_and_old_snapshots),
        t(refuses_partitions_cascades_heirs),
        t(lets_own_role_pass),
        t(applications_cannot_move_it),
        t(lapses_and_is_not_revived),
        t(other_holders_are_fenced_off),
        t(taken_over_as_it_is),
        t(waits_for_exactly_the_writers),
        t(waits_for_strangers_of_own_role),
        t(ends_who_does_not_end),
        t(names_who_cannot_be_ended),
        t(waits_for_prepared_transactions),
        t(waits_when_a_writer_prepares),
        t(nothing_commits_behind_the_wait),
        t(seal_survives_a_crash),
    };

    return run_all(__FILE__, tests, sizeof tests / sizeof tests[0]);
}
