/* The fence of a MySQL or MariaDB server: nothing is committed behind a marker, the lease lapses by
 * itself, seals outlast what forgets them, and a kill between any two steps leaves what can be
 * mended. Run it under tests/with_mariadb PORT -- …: it closes the whole server. */
#include "my_support.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define WRITERS 6
#define CYCLES 12
#define KILLS 40

static struct db *super;
static struct db *fence; /* lockstep's own session */
static struct err e;
static const char *const accounts[] = {"app@%", "old@%", "missing@%"};
static const struct fence_settings settings = {true, accounts, 3};
static struct table shop_table = {.schema = "shop", .name = "t"};
static struct table *table_array[] = {&shop_table};
static const struct table_list tables = {1, table_array};
static const struct fence_wait wait_limits = {.grace_ms = 100, .deadline_ms = 15000};
/* Late from the first look on, as who stood still is: who is to be ended is, all the same. */
static const struct fence_wait hasty = {.grace_ms = -1, .deadline_ms = 0};
static const struct fence_wait brief = {.grace_ms = 50, .deadline_ms = 3000};

static struct db *open_lockstep(void)
{
    struct db_options o = {.uri = test_uri(NULL, "lockstep_t"),
                           .migration = "shop",
                           .use = DB_CONTROL,
                           .fence = &settings};
    struct db *db = NULL;

    assert_ok(my_open(&o, &db, &e));
    return db;
}

/* Does an application get a row in, in a session of its own? */
static bool app_writes(void)
{
    struct db_options o = {
        .uri = test_uri("shop", "app"), .migration = "app", .use = DB_CONTROL, .timeout_ms = 5000};
    struct err own = {0};
    struct db *db = NULL;
    bool wrote = my_open(&o, &db, &own) == 0 &&
                 my_execf(my_db_from(db), &own, "INSERT INTO t (w) VALUES (99)") == 0;

    my_close(db);
    return wrote;
}

static void until_app_writes(int timeout_ms)
{
    int64_t end = mono_ms() + timeout_ms;

    while (!app_writes()) {
        if (mono_ms() > end)
            fail_msg("the application cannot write after %d ms", timeout_ms);
        nap_ms(50);
    }
}

static enum fence_mode mode(void)
{
    struct fence_state f;

    assert_ok(my_fence_state(fence, &f, &e));
    return f.mode;
}

static const char *rights(void)
{
    return my_db_from(super)->maria ? "GRANT READ_ONLY ADMIN, CONNECTION ADMIN, RELOAD, PROCESS, "
                                      "CREATE USER, SHOW DATABASES ON "
                                      "*.* TO 'lockstep_t'@'%';"
                                      "GRANT SELECT ON mysql.global_priv TO 'lockstep_t'@'%';"
                                      "GRANT SELECT ON mysql.proc TO 'lockstep_t'@'%';"
                                      "GRANT SELECT ON mysql.event TO 'lockstep_t'@'%'"
                                    : "GRANT SYSTEM_VARIABLES_ADMIN, CONNECTION_ADMIN, "
                                      "XA_RECOVER_ADMIN, RELOAD, PROCESS,"
                                      " CREATE USER, SHOW DATABASES, SHOW_ROUTINE, EVENT ON *.*"
                                      " TO 'lockstep_t'@'%';"
                                      "GRANT SELECT ON mysql.user TO 'lockstep_t'@'%';"
                                      "GRANT SELECT ON mysql.global_grants TO 'lockstep_t'@'%'";
}

static int setup(void **state)
{
    super = test_open(test_uri(NULL, NULL), DB_CONTROL);
    test_sql(super, "SET GLOBAL read_only = 0; SET GLOBAL event_scheduler = ON");
    test_database("shop");
    test_database(MY_CONTROL);
    test_role("app", "ALL ON shop.*");
    test_role("old", NULL);
    test_role("lockstep_t", "ALL ON shop.*");
    test_sql(super,
             "GRANT ALL ON lockstep.* TO 'lockstep_t'@'%'; ALTER USER 'old'@'%' ACCOUNT LOCK");
    test_sql(super, rights());
    test_sql(super, "CREATE TABLE shop.t (id BIGINT AUTO_INCREMENT PRIMARY KEY, w INT)");
    fence = open_lockstep();
    assert_ok(my_fence_install(fence, &tables, 0, &e));
    return 0;
}

static int teardown(void **state)
{
    assert_ok(my_fence_remove(fence, &e));
    assert_string_equal(test_value(super, "SELECT @@GLOBAL.read_only"), "0");
    assert_string_equal(test_value(super,
                                   "SELECT (SELECT count(*) FROM information_schema.tables"
                                   " WHERE table_schema = 'lockstep' AND table_name <> 'sync')"
                                   " + (SELECT count(*) FROM information_schema.routines"
                                   " WHERE routine_schema = 'lockstep')"
                                   " + (SELECT count(*) FROM information_schema.events"
                                   " WHERE event_schema = 'lockstep')"),
                        "0");
    my_close(fence);
    my_close(super);
    return 0;
}

/* ---- writers ---- */

static atomic_bool quit;
static atomic_long acked;

/* Autocommit, transactions of two rows, and slow ones; comes back when its session is ended. */
static void *write_rows(void *arg)
{
    int number = (int)(intptr_t)arg;
    struct db_options o = {
        .uri = test_uri("shop", "app"), .migration = "app", .use = DB_CONTROL, .timeout_ms = 5000};
    struct db *db = NULL;

    while (!atomic_load(&quit)) {
        struct err own = {0};
        struct my_db *my;
        bool ok;

        if (!db && my_open(&o, &db, &own) != 0) {
            nap_ms(5);
            continue;
        }
        my = my_db_from(db);
        if (number % 3 == 0)
            ok = my_execf(my, &own, "INSERT INTO t (w) VALUES (%d)", number) == 0;
        else
            ok = my_execf(my, &own, "BEGIN; INSERT INTO t (w) VALUES (%d)", number) == 0 &&
                 (number % 3 == 1 || my_execf(my, &own, "DO SLEEP(0.02)") == 0) &&
                 my_execf(my, &own, "INSERT INTO t (w) VALUES (%d); COMMIT", number) == 0;
        acked += ok;
        if (!ok && !my->broken)
            my_execf(my, &own, "ROLLBACK");
        if (my->broken) {
            my_close(db);
            db = NULL;
        }
        if (!ok)
            nap_ms(1);
    }
    my_close(db);
    return NULL;
}

static void nothing_behind_the_marker(void **state)
{
    pthread_t threads[WRITERS];
    long before = 0;

    atomic_store(&quit, false);
    for (int i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_rows, (void *)(intptr_t)i), 0);
    for (int i = 0; i < CYCLES; i++) {
        struct fence_report report;
        const char *at_marker;
        int64_t end = mono_ms() + 30000;

        while (atomic_load(&acked) < before + 20 && mono_ms() < end)
            nap_ms(5);
        if (i > 0)
            assert_true(atomic_load(&acked) >= before + 20);
        assert_ok(my_fence_flip(fence, "writers", (uint32_t)(10 + i), 20000, 30000, &e));
        assert_ok(my_fence_wait(fence, &wait_limits, &report, &e));
        assert_ok(my_mark(fence, "marker", &e));
        at_marker = test_value(super, "SELECT concat(count(*), ' ', max(id)) FROM shop.t");
        nap_ms(60);
        assert_ok(my_fence_renew(fence, "writers", 20000, &e));
        if (i % 2) {
            assert_ok(my_fence_seal(fence, "writers", (uint32_t)(10 + i), &e));
            assert_ok(my_fence_wait(fence, &wait_limits, &report, &e));
        }
        before = atomic_load(&acked);
        assert_string_equal(at_marker,
                            test_value(super, "SELECT concat(count(*), ' ', max(id)) FROM shop.t"));
        assert_ok(my_fence_lift(fence, "writers", &e));
    }
    atomic_store(&quit, true);
    for (int i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    assert_true(atomic_load(&acked) > 100);
}

/* ---- lease ---- */

static void lapses_by_itself(void **state)
{
    int64_t from;

    assert_ok(my_fence_flip(fence, "lease", 100, 20000, 30000, &e));
    assert_false(app_writes());
    assert_int_equal(mode(), FENCE_LEASED);
    from = mono_ms();
    assert_ok(my_fence_renew(fence, "lease", 2000, &e));
    my_close(fence); /* nobody is alive */
    fence = NULL;
    until_app_writes(30000);
    assert_in_range(mono_ms() - from, 1900, 30000);
    fence = open_lockstep();
    assert_int_equal(mode(), FENCE_OPEN);
    assert_int_equal(my_fence_renew(fence, "lease", 1000, &e), -1);
    assert_int_equal(e.class, ERR_RETRY);
    assert_string_equal(e.sqlstate, "LS002");
    assert_true(app_writes());
}

/* MariaDB forgets read_only when it restarts, MySQL a lease's: then the fence has lapsed. */
static void a_restart_is_an_early_lapse(void **state)
{
    assert_ok(my_fence_flip(fence, "lease", 101, 60000, 30000, &e));
    test_sql(super, "SET GLOBAL read_only = 0");
    assert_int_equal(mode(), FENCE_OPEN);
    assert_int_equal(my_fence_renew(fence, "lease", 1000, &e), -1);
    assert_string_equal(e.sqlstate, "LS002");
    assert_true(app_writes());
    assert_ok(my_fence_lift(fence, "lease", &e));
}

static void one_holder(void **state)
{
    assert_ok(my_fence_flip(fence, "first", 200, 20000, 30000, &e));
    assert_int_equal(my_fence_flip(fence, "second", 200, 20000, 30000, &e), -1);
    assert_int_equal(e.class, ERR_FENCED);
    assert_int_equal(my_fence_lift(fence, "second", &e), -1);
    assert_int_equal(e.class, ERR_FENCED);
    assert_ok(my_fence_flip(fence, "second", 201, 20000, 30000, &e));
    assert_int_equal(my_fence_renew(fence, "first", 20000, &e), -1);
    assert_int_equal(e.class, ERR_FENCED);
    assert_int_equal(my_fence_seal(fence, "first", 200, &e), -1);
    assert_int_equal(e.class, ERR_FENCED);
    assert_int_equal(my_fence_lift(fence, "first", &e), -1);
    assert_ok(my_fence_seal(fence, "second", 201, &e));
    assert_int_equal(my_fence_flip(fence, "third", 300, 20000, 30000, &e), -1);
    assert_int_equal(e.class, ERR_FENCED);
    assert_ok(my_fence_seal(fence, "third", 300, &e));
    assert_int_equal(my_fence_lift(fence, "second", &e), -1);
    assert_ok(my_fence_lift(fence, "third", &e));
    assert_ok(my_fence_lift(fence, "third", &e));
    assert_true(app_writes());
}

/* Taken over as it is: who writes goes on, who is refused is refused, and the holder before can
 * move it no more. */
static void taken_over_as_it_is(void **state)
{
    assert_ok(my_fence_flip(fence, "first", 302, 20000, 30000, &e));
    assert_int_equal(my_fence_take(fence, "second", 301, &e), -1);
    assert_int_equal(e.class, ERR_FENCED);
    assert_int_equal(my_fence_take(fence, "second", 302, &e), -1);
    assert_ok(my_fence_take(fence, "second", 303, &e));
    assert_int_equal(mode(), FENCE_LEASED);
    assert_int_equal(my_fence_renew(fence, "first", 20000, &e), -1);
    assert_int_equal(e.class, ERR_FENCED);
    assert_ok(my_fence_lift(fence, "second", &e));

    assert_ok(my_fence_take(fence, "third", 304, &e));
    assert_string_equal(test_value(super, "SELECT @@GLOBAL.read_only"), "0");
    assert_int_equal(my_fence_seal(fence, "second", 303, &e), -1);
    assert_int_equal(e.class, ERR_FENCED);
    assert_true(app_writes());

    assert_ok(my_fence_seal(fence, "third", 304, &e));
    assert_int_equal(my_fence_take(fence, "fourth", 304, &e), -1);
    assert_ok(my_fence_take(fence, "fourth", 305, &e));
    assert_int_equal(mode(), FENCE_SEALED);
    assert_false(app_writes());
    assert_int_equal(my_fence_lift(fence, "third", &e), -1);
    assert_ok(my_fence_lift(fence, "fourth", &e));
    assert_true(app_writes());
}

static int64_t failing_flip_ms(int budget_ms)
{
    int64_t from = mono_ms();

    assert_int_equal(my_fence_flip(fence, "late", 306, 20000, budget_ms, &e), -1);
    assert_int_equal(e.class, ERR_RETRY);
    return mono_ms() - from;
}

/* Who writes waits behind a read_only that does not come: for as long as was allowed. Afterwards,
 * also behind a seal, nothing goes on trying. */
static void a_flip_ends_in_time(void **state)
{
    static const char row[] = "SELECT mode FROM lockstep.fence";
    struct db *busy = test_open(test_uri("shop", NULL), DB_CONTROL);
    int64_t best = INT64_MAX;

    test_sql(busy, "LOCK TABLES t WRITE");
    for (int i = 0; i < 5 && best >= 2900; i++) { /* the machine may have stood still */
        int64_t took = failing_flip_ms(500);

        best = took < best ? took : best;
    }
    assert_true(best < 2900);
    assert_in_range(failing_flip_ms(4000), 2900, 30000);
    assert_string_equal(test_value(super, row), "open");
    assert_int_equal(my_fence_seal(fence, "late", 306, &e), -1);
    assert_string_equal(test_value(super, row), "open");
    my_close(busy);
    nap_ms(1200); /* the event has looked */
    assert_true(app_writes());
}

/* ---- seal ---- */

static const char *locked(const char *user)
{
    return test_value(
        super, my_db_from(super)->maria
                   ? (strcmp(user, "app") == 0
                          ? "SELECT json_value(Priv, '$.account_locked') FROM mysql.global_priv"
                            " WHERE User = 'app'"
                          : "SELECT json_value(Priv, '$.account_locked') FROM mysql.global_priv"
                            " WHERE User = 'old'")
                   : "SELECT 'true'");
}

static void seal_lasts(void **state)
{
    struct db *app = test_open(test_uri("shop", "app"), DB_CONTROL);
    struct err own = {0};

    assert_ok(my_fence_seal(fence, "seal", 400, &e));
    assert_ok(my_fence_seal(fence, "seal", 400, &e));
    assert_int_equal(my_execf(my_db_from(app), &own, "INSERT INTO t (w) VALUES (1)"), -1);
    my_close(app);
    assert_false(app_writes());
    test_sql(fence, "INSERT INTO shop.t (w) VALUES (7)");
    assert_ok(my_mark(fence, "under the seal", &e));
    if (my_db_from(super)->maria) {
        assert_string_equal(locked("app"), "1");
        /* What a restart does. */
        test_sql(super, "SET GLOBAL read_only = 0");
        assert_false(app_writes());
    }
    assert_int_equal(mode(), FENCE_SEALED);
    assert_string_equal(test_value(super, "SELECT @@GLOBAL.read_only"), "1");
    test_sql(super, "SET GLOBAL read_only = 0");
    for (int64_t end = mono_ms() + 30000;
         strcmp(test_value(super, "SELECT @@GLOBAL.read_only"), "1") != 0; nap_ms(50))
        assert_true(mono_ms() < end);
    assert_ok(my_fence_lift(fence, "seal", &e));
    assert_true(app_writes());
    if (my_db_from(super)->maria)
        assert_string_equal(locked("old"), "1");
}

#define STORM 4
#define STORM_KEEPS 30
#define STORM_CYCLES 25

/* Logs in again and again; never writes. A session is closed only for one that was let in, so while
 * nobody is, those that it has stay as they are. */
static void *log_in(void *arg)
{
    struct db_options o = {
        .uri = test_uri("shop", "app"), .migration = "app", .use = DB_CONTROL, .timeout_ms = 5000};
    struct db *kept[STORM_KEEPS] = {0};

    (void)arg;
    for (unsigned n = 0; !atomic_load(&quit);) {
        struct err own = {0};
        struct db *fresh = NULL;
        struct db **slot = &kept[n % STORM_KEEPS];

        if (my_open(&o, &fresh, &own) != 0)
            continue;
        my_close(*slot);
        *slot = fresh;
        n++;
        acked++;
    }
    for (unsigned i = 0; i < STORM_KEEPS; i++)
        my_close(kept[i]);
    return NULL;
}

/* Who logs in while the account is locked is not forgotten: a session that is left could call what
 * its definer's rights let pass. */
static void seal_leaves_no_session(void **state)
{
    static const char sessions[] =
        "SELECT group_concat(concat(id, ' ', command, ' ', time_ms, ' ms'))"
        " FROM information_schema.processlist WHERE user = 'app'";
    pthread_t threads[STORM];
    const char *left;

    if (!my_db_from(super)->maria)
        skip();
    atomic_store(&quit, false);
    for (int i = 0; i < STORM; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, log_in, NULL), 0);
    for (unsigned i = 0; i < STORM_CYCLES; i++) {
        long before = atomic_load(&acked);

        for (int64_t end = mono_ms() + 30000; atomic_load(&acked) < before + 10;) {
            assert_true(mono_ms() < end);
            nap_ms(1);
        }
        assert_ok(my_fence_seal(fence, "storm", 310 + i, &e));
        /* Those that were killed go; one that was missed stays. */
        for (int64_t end = mono_ms() + 3000; strcmp(left = test_value(super, sessions), "") != 0;
             nap_ms(20)) {
            if (mono_ms() > end)
                fail_msg("cycle %u: sessions of a locked account: %s", i, left);
        }
        assert_ok(my_fence_lift(fence, "storm", &e));
    }
    atomic_store(&quit, true);
    for (int i = 0; i < STORM; i++)
        pthread_join(threads[i], NULL);
}

static atomic_bool has_reset;

static void *reset_session(void *arg)
{
    (void)mysql_reset_connection(my_db_from(arg)->conn);
    atomic_store(&has_reset, true);
    return NULL;
}

#define ROLLED_BACK "400000" /* rows, which takes a while */

/* A session of much to be rolled back, and a thread that resets it: seen in the middle of that? */
static bool resets_itself(struct db *app, pthread_t *thread, char *sql, size_t size)
{
    test_sql(app, "BEGIN; INSERT INTO t (w) SELECT seq FROM seq_1_to_" ROLLED_BACK);
    snprintf(sql, size, "SELECT command FROM information_schema.processlist WHERE id = %lu",
             mysql_thread_id(my_db_from(app)->conn));
    assert_ok(my_fence_flip(fence, "reset", 346, 60000, 30000, &e));
    atomic_store(&has_reset, false);
    assert_int_equal(pthread_create(thread, NULL, reset_session, app), 0);
    while (!atomic_load(&has_reset)) {
        if (strcmp(test_value(super, sql), "Killed") == 0)
            return true;
        nap_ms(2);
    }
    pthread_join(*thread, NULL);
    my_close(app);
    assert_ok(my_fence_lift(fence, "reset", &e));
    return false;
}

/* While a reset rolls back, the session looks as if it had been killed, and then goes on. */
static void seal_ends_who_resets_itself(void **state)
{
    struct db *app;
    pthread_t thread;
    char sql[200];
    bool seen;
    int held;

    if (!my_db_from(super)->maria)
        skip();
    for (int i = 0; i < 5; i++) { /* who looks may have stood still meanwhile */
        app = test_open(test_uri("shop", "app"), DB_CONTROL);
        seen = resets_itself(app, &thread, sql, sizeof sql);
        if (seen)
            break;
    }
    assert_true(seen);
    held = my_fence_seal(fence, "reset", 346, &e);
    assert_ok(held);
    /* A rollback may take longer than the seal waits; then it does not tell that nobody is left. */
    if (held)
        assert_string_equal(test_value(super, sql), "");
    pthread_join(thread, NULL);
    for (int64_t end = mono_ms() + 30000; strcmp(test_value(super, sql), "") != 0; nap_ms(20))
        assert_true(mono_ms() < end);
    assert_int_equal(my_execf(my_db_from(app), NULL, "SELECT 1"), -1);
    my_close(app);
    assert_ok(my_fence_lift(fence, "reset", &e));
}

/* A connection that has its greeting and answers nothing. */
static int silent_login(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {.tv_sec = 30};
    char greeting[1000];
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    to.sin_port = htons((uint16_t)atoi(strrchr(getenv("LOCKSTEP_TEST_MY"), ':') + 1));
    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    assert_true(recv(fd, greeting, sizeof greeting, 0) > 0);
    return fd;
}

/* One that is let in but says nothing could turn out to be anybody. */
static void seal_ends_who_does_not_log_in(void **state)
{
    char rest[1000];
    int held = 0;

    if (!my_db_from(super)->maria)
        skip();
    /* On a machine that stands still its end may not be seen in time, which the seal tells. */
    for (uint32_t epoch = 347; epoch < 350 && held != 1; epoch++) {
        int fd = silent_login();
        ssize_t got = 0;

        assert_ok(my_fence_flip(fence, "nameless", epoch, 20000, 30000, &e));
        held = my_fence_seal(fence, "nameless", epoch, &e);
        assert_ok(held);
        while (held == 1 && (got = recv(fd, rest, sizeof rest, 0)) > 0)
            ;
        assert_true(got == 0 || errno == ECONNRESET);
        close(fd);
        assert_ok(my_fence_lift(fence, "nameless", &e));
    }
    assert_int_equal(held, 1);
}

/* Kills the server and starts it again; the sessions are new. */
static void crash(void)
{
    my_close(fence);
    my_close(super);
    assert_int_equal(system(getenv("LOCKSTEP_TEST_MY_CRASH")), 0);
    super = test_open(test_uri(NULL, NULL), DB_CONTROL);
    fence = open_lockstep();
}

static void crash_under_the_lease(void **state)
{
    assert_non_null(getenv("LOCKSTEP_TEST_MY_CRASH"));
    assert_ok(my_fence_flip(fence, "crash", 410, 60000, 30000, &e));
    assert_ok(my_sync(fence, &e));
    crash();
    assert_int_equal(mode(), FENCE_OPEN);
    assert_true(app_writes());
    assert_int_equal(my_fence_renew(fence, "crash", 1000, &e), -1);
    assert_string_equal(e.sqlstate, "LS002");
    assert_ok(my_fence_lift(fence, "crash", &e));
    assert_true(app_writes());
}

/* The application tries all the while, also before anybody of ours is there. */
static void crash_under_the_seal(void **state)
{
    assert_non_null(getenv("LOCKSTEP_TEST_MY_CRASH"));
    assert_ok(my_fence_seal(fence, "crash", 420, &e));
    crash();
    assert_false(app_writes());
    assert_int_equal(mode(), FENCE_SEALED);
    assert_string_equal(test_value(super, "SELECT @@GLOBAL.read_only"), "1");
    assert_false(app_writes());
    crash();
    /* The event alone closes the rest of the server again. */
    for (int64_t end = mono_ms() + 30000;
         strcmp(test_value(super, "SELECT @@GLOBAL.read_only"), "1") != 0; nap_ms(50))
        assert_true(mono_ms() < end);
    assert_ok(my_fence_lift(fence, "crash", &e));
    assert_true(app_writes());
    assert_string_equal(test_value(super, "SELECT @@GLOBAL.read_only"), "0");
    crash();
    assert_int_equal(mode(), FENCE_OPEN);
    assert_true(app_writes());
}

/* What the seal tells of the lease; open again behind it. */
static int told_by_seal(uint32_t epoch)
{
    int held = my_fence_seal(fence, "held", epoch, &e);

    assert_ok(held);
    assert_ok(my_fence_lift(fence, "held", &e));
    return held;
}

/* Was it closed all the time? Then nobody has begun to write since the flip. */
static void seal_tells_whether_the_lease_held(void **state)
{
    assert_int_equal(told_by_seal(450), 0);
    assert_ok(my_fence_flip(fence, "held", 451, 20000, 30000, &e));
    assert_int_equal(told_by_seal(451), 1);
    assert_ok(my_fence_flip(fence, "held", 452, 20000, 30000, &e));
    test_sql(super, "SET GLOBAL read_only = 0");
    assert_int_equal(told_by_seal(452), 0);
    assert_ok(my_fence_flip(fence, "other", 452, 20000, 30000, &e));
    assert_int_equal(told_by_seal(453), 0);
    assert_ok(my_fence_flip(fence, "held", 454, 100, 30000, &e));
    for (int64_t end = mono_ms() + 30000; !app_writes(); nap_ms(50))
        assert_true(mono_ms() < end);
    assert_int_equal(told_by_seal(454), 0);
}

static void as_it_was(void **state)
{
    test_sql(super, "SET GLOBAL read_only = 1");
    assert_ok(my_fence_flip(fence, "was", 500, 20000, 30000, &e));
    assert_ok(my_fence_seal(fence, "was", 500, &e));
    assert_ok(my_fence_lift(fence, "was", &e));
    assert_string_equal(test_value(super, "SELECT @@GLOBAL.read_only"), "1");
    test_sql(super, "SET GLOBAL read_only = 0");
}

/* ---- waiting ---- */

static void waits_for_writers(void **state)
{
    struct db *app = test_open(test_uri("shop", "app"), DB_CONTROL);
    struct fence_report report;

    test_sql(app, "BEGIN; INSERT INTO t (w) VALUES (555)");
    assert_ok(my_fence_flip(fence, "wait", 600, 20000, 30000, &e));
    assert_ok(my_fence_wait(fence, &hasty, &report, &e));
    assert_int_equal(report.terminated, 1);
    my_close(app);
    assert_ok(my_fence_lift(fence, "wait", &e));
    app = test_open(test_uri("shop", "app"), DB_CONTROL);
    test_sql(app, "BEGIN; INSERT INTO t (w) VALUES (555)");
    assert_ok(my_fence_flip(fence, "wait", 600, 20000, 30000, &e));
    assert_ok(my_fence_wait(fence, &wait_limits, &report, &e));
    assert_int_equal(report.waited_for, 1);
    assert_int_equal(report.terminated, 1);
    assert_in_range(report.took_ms, 100, 14000);
    assert_int_equal(my_execf(my_db_from(app), &e, "COMMIT"), -1);
    my_close(app);
    assert_ok(my_fence_wait(fence, &wait_limits, &report, &e));
    assert_int_equal(report.waited_for, 0);
    /* Who has begun since the last look is seen, though the server goes on showing that one's copy.
     */
    app = test_open(test_uri("shop", NULL), DB_CONTROL);
    test_sql(app, "BEGIN; INSERT INTO t (w) VALUES (555)");
    (void)my_fence_wait(fence, &brief, &report, &e); /* MySQL lets nobody end a superuser's */
    assert_int_equal(report.waited_for, 1);
    my_close(app);
    int64_t best = INT64_MAX;
    for (int i = 0; i < 5 && best >= MY_LOOKS_APART_MS;
         i++) { /* the machine may have stood still */
        nap_ms(MY_LOOKS_APART_MS);
        assert_ok(my_fence_wait(fence, &wait_limits, &report, &e));
        best = report.took_ms < best ? report.took_ms : best;
    }
    assert_true(best < MY_LOOKS_APART_MS);
    assert_ok(my_fence_lift(fence, "wait", &e));
    assert_string_equal(test_value(super, "SELECT count(*) FROM shop.t WHERE w = 555"), "0");
}

static void names_what_is_prepared(void **state)
{
    struct db *app = test_open(test_uri("shop", "app"), DB_CONTROL);
    struct fence_report report;

    test_sql(app, "XA START 'order-17'; INSERT INTO t (w) VALUES (6); XA END 'order-17';"
                  "XA PREPARE 'order-17'");
    assert_ok(my_fence_flip(fence, "xa", 700, 20000, 30000, &e));
    assert_int_equal(my_fence_wait(fence, &brief, &report, &e), -1);
    assert_int_equal(e.class, ERR_RETRY);
    assert_non_null(strstr(e.msg, "order-17"));
    assert_ok(my_fence_lift(fence, "xa", &e));
    my_close(app);
    for (int64_t end = mono_ms() + 30000;
         my_execf(my_db_from(super), &e, "XA ROLLBACK 'order-17'") != 0; nap_ms(20))
        assert_true(mono_ms() < end);
    memset(&e, 0, sizeof e);
}

/* ---- kills ---- */

static void *move_fence(void *arg)
{
    struct db *db = arg;
    struct err own = {0};

    if (my_fence_flip(db, "killed", 1000, 30000, 30000, &own) == 0 &&
        my_fence_seal(db, "killed", 1000, &own) >= 0)
        (void)my_fence_lift(db, "killed", &own);
    return NULL;
}

/* One who is killed anywhere in flip, seal and lift; then another takes over and lifts. */
static void kills_between_steps(void **state)
{
    for (unsigned i = 0; i < KILLS; i++) {
        struct db *victim = open_lockstep();
        pthread_t thread;
        struct err own = {0};
        char still[120];

        snprintf(still, sizeof still,
                 "SELECT count(*) FROM information_schema.processlist WHERE id = %lu",
                 mysql_thread_id(my_db_from(victim)->conn));
        assert_int_equal(pthread_create(&thread, NULL, move_fence, victim), 0);
        usleep(i * 397 % 12000);
        (void)my_execf(my_db_from(super), &own, "KILL %lu",
                       mysql_thread_id(my_db_from(victim)->conn));
        pthread_join(thread, NULL);
        my_close(victim);
        /* The server may still be at its last step when its client hears of the end. */
        for (int64_t end = mono_ms() + 30000; strcmp(test_value(super, still), "0") != 0; nap_ms(5))
            assert_true(mono_ms() < end);
        if (mode() == FENCE_SEALED)
            assert_false(app_writes());
        if (i % 2 == 0) {
            assert_ok(my_fence_seal(fence, "after", 1001 + i, &e));
            assert_false(app_writes());
        } else {
            assert_ok(my_fence_take(fence, "after", 1001 + i, &e));
        }
        assert_ok(my_fence_lift(fence, "after", &e));
        assert_string_equal(test_value(super, "SELECT @@GLOBAL.read_only"), "0");
        assert_true(app_writes());
        test_sql(super, "UPDATE lockstep.fence SET epoch = 0");
    }
}

/* ---- refusals ---- */

static void install_refuses(void **state)
{
    static const struct fence_settings none = {true, NULL, 0};
    struct fence_settings whole = settings;
    struct my_db *my = my_db_from(fence);

    assert_ok(my_fence_install(fence, &tables, 0, &e));
    test_database("other");
    test_sql(super, "CREATE TABLE other.t (a INT)");
    whole.whole_server = false;
    my->fence = whole;
    assert_int_equal(my_fence_install(fence, &tables, 0, &e), -1);
    assert_int_equal(e.class, ERR_REFUSED);
    assert_non_null(strstr(e.msg, "other"));
    test_sql(super, "DROP DATABASE other");
    assert_ok(my_fence_install(fence, &tables, 0, &e));
    if (my->maria) {
        my->fence = none;
        assert_int_equal(my_fence_install(fence, &tables, 0, &e), -1);
        assert_int_equal(e.class, ERR_REFUSED);
    }
    my->fence = settings;
    test_sql(super, "SET GLOBAL event_scheduler = OFF");
    assert_int_equal(my_fence_install(fence, &tables, 0, &e), -1);
    assert_int_equal(e.class, ERR_REFUSED);
    test_sql(super, "SET GLOBAL event_scheduler = ON");
    assert_ok(my_fence_install(fence, &tables, 0, &e));
}

/* The role of these tests has what it needs; root lacks nothing but accounts. */
static void check_names_what_lacks(void **state)
{
    struct arena a = ARENA_INIT;
    struct findings f = {0};
    struct db *app = test_open(test_uri("shop", "app"), DB_CONTROL);

    my_fence_findings(my_db_from(fence), "source", " IN ('shop')", &a, &f);
    for (size_t i = 0; i < f.n; i++) {
        if (f.v[i].fatal)
            fail_msg("%s", f.v[i].what);
    }
    assert_true(f.n == 1 && strstr(f.v[0].what, "root") != NULL);
    f.n = 0;
    my_fence_findings(my_db_from(app), "source", " IN ('shop')", &a, &f);
    assert_true(f.n >= 7 && f.v[f.n - 3].fatal);
    /* Who passes is not to be seen, which is not nobody. */
    for (size_t i = f.n - 2; i < f.n; i++)
        assert_true(!f.v[i].fatal && strstr(f.v[i].what, "may not see") != NULL);
    my_close(app);
    arena_release(&a);
}

/* A procedure of root's passes read_only in anybody's hands, and so does a job; check says so of
 * these and of no other. */
static void check_names_who_passes_by_definer(void **state)
{
    struct arena a = ARENA_INIT;
    struct findings f = {0};
    const char *what;

    test_sql(super,
             "CREATE DEFINER = root@localhost PROCEDURE shop.by_root() INSERT INTO shop.t (w)"
             " VALUES (77)");
    test_sql(super, "CREATE DEFINER = root@localhost PROCEDURE shop.by_caller() SQL SECURITY"
                    " INVOKER INSERT INTO shop.t (w) VALUES (78)");
    test_sql(super, "CREATE DEFINER = app@'%' PROCEDURE shop.by_app() INSERT INTO shop.t (w)"
                    " VALUES (79)");
    test_sql(super, "CREATE DEFINER = root@localhost EVENT shop.nightly ON SCHEDULE EVERY 1 DAY"
                    " STARTS '2037-01-01' DO INSERT INTO shop.t (w) VALUES (80)");
    struct db *app = test_open(test_uri("shop", "app"), DB_CONTROL);
    assert_ok(my_fence_flip(fence, "definer", 900, 20000, 30000, &e));
    assert_ok(my_execf(my_db_from(app), &e, "CALL by_root()"));
    assert_int_equal(my_execf(my_db_from(app), &e, "CALL by_caller()"), -1);
    assert_int_equal(my_execf(my_db_from(app), &e, "CALL by_app()"), -1);
    assert_ok(my_fence_lift(fence, "definer", &e));
    my_close(app);
    my_fence_findings(my_db_from(fence), "source", " IN ('shop')", &a, &f);
    assert_int_equal(f.n, 2);
    what = f.v[1].what;
    assert_non_null(strstr(what, "event shop.nightly, procedure shop.by_root"));
    assert_null(strstr(what, "by_caller"));
    assert_null(strstr(what, "by_app"));
    test_sql(super, "DROP PROCEDURE shop.by_root; DROP PROCEDURE shop.by_caller; DROP PROCEDURE"
                    " shop.by_app; DROP EVENT shop.nightly");
    arena_release(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_behind_the_marker),
        cmocka_unit_test(lapses_by_itself),
        cmocka_unit_test(a_restart_is_an_early_lapse),
        cmocka_unit_test(one_holder),
        cmocka_unit_test(taken_over_as_it_is),
        cmocka_unit_test(a_flip_ends_in_time),
        cmocka_unit_test(seal_leaves_no_session),
        cmocka_unit_test(seal_ends_who_resets_itself),
        cmocka_unit_test(seal_ends_who_does_not_log_in),
        cmocka_unit_test(seal_lasts),
        cmocka_unit_test(crash_under_the_lease),
        cmocka_unit_test(crash_under_the_seal),
        cmocka_unit_test(seal_tells_whether_the_lease_held),
        cmocka_unit_test(as_it_was),
        cmocka_unit_test(waits_for_writers),
        cmocka_unit_test(names_what_is_prepared),
        cmocka_unit_test(kills_between_steps),
        cmocka_unit_test(install_refuses),
        cmocka_unit_test(check_names_what_lacks),
        cmocka_unit_test(check_names_who_passes_by_definer),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
