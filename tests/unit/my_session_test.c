/* engines/mysql/session.c, wait.c, errors.c, uri.c on a real server: settings, rights, waits that
 * end, errors by class, commits whose outcome is not known. */
#include "my_support.h"

#include "engines/mysql/session.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>

static void bad_uri(const char *uri, const char *needle)
{
    struct my_uri u;
    struct err e = {0};

    assert_int_equal(my_uri_parse(uri, &u, &e), -1);
    assert_int_equal(e.class, ERR_CONFIG);
    assert_non_null(strstr(e.msg, needle));
    assert_null(strstr(e.msg, "s3cret"));
    assert_null(strstr(e.hint, "s3cret"));
}

static void parses_uris(void **state)
{
    struct my_uri u;
    struct err e = {0};
    char home[64];

    assert_ok(my_uri_parse("mysql://app:p%40ss%2f@db.example:3307/shop?ssl-mode=verify-ca&ssl-ca="
                           "/etc/a%26b.pem",
                           &u, &e));
    assert_string_equal(u.user, "app");
    assert_string_equal(u.password, "p@ss/");
    assert_string_equal(u.host, "db.example");
    assert_int_equal(u.port, 3307);
    assert_string_equal(u.database, "shop");
    assert_int_equal(u.tls, MY_TLS_CA);
    assert_string_equal(u.ssl_ca, "/etc/a&b.pem");
    assert_ok(my_uri_parse("mariadb://[::1]/x", &u, &e));
    assert_string_equal(u.host, "::1");
    assert_int_equal(u.port, 3306);
    assert_false(u.has_password);
    assert_int_equal(u.tls, MY_TLS_PREFERRED);
    assert_ok(my_uri_parse("mysql://root@/?socket=%2Frun%2Fs.sock", &u, &e));
    assert_string_equal(u.socket, "/run/s.sock");
    my_uri_release(&u);
    assert_string_equal(u.socket, "");

    my_home_schema("mysql://a:s3cret@h/shop?ssl-mode=required", home, sizeof home);
    assert_string_equal(home, "shop");

    bad_uri("postgresql://a:s3cret@h/x", "mysql://");
    bad_uri("mysql://a:s3cret%4@h/x", "the password");
    bad_uri("mysql://a:s3cret@h:port/x", "the port");
    bad_uri("mysql://a:s3cret@h:70000/x", "the port");
    bad_uri("mysql://a:s3cret@[::1/x", "without its ]");
    bad_uri("mysql://a:s3cret@h/x?ssl-mode=on", "ssl-mode");
    bad_uri("mysql://a:s3cret@h/x?ssl_mode=required", "unknown parameter \"ssl_mode\"");
    bad_uri("mysql://a:s3cret@h/x?ssl-mode=verify-ca", "ssl-ca");
}

static void sets_the_session(void **state)
{
    struct db *db = test_open(test_uri(NULL, NULL), DB_READ);
    struct my_db *my = my_db_from(db);

    assert_string_equal(test_value(db, "SELECT @@session.time_zone"), "+00:00");
    assert_string_equal(test_value(db, "SELECT @@character_set_results"), "utf8mb4");
    assert_non_null(strstr(test_value(db, "SELECT @@sql_mode"), "STRICT_ALL_TABLES"));
    assert_null(strstr(test_value(db, "SELECT @@sql_mode"), "NO_ZERO_DATE"));
    assert_null(strstr(test_value(db, "SELECT @@sql_mode"), "NO_BACKSLASH_ESCAPES"));
    assert_true(my->max_packet > 1024 * 1024);
    assert_true(my->version > 80000);
    assert_int_equal(my->maria, strstr(test_value(db, "SELECT version()"), "MariaDB") != NULL);
    assert_string_equal(
        test_value(db, my->maria ? "SELECT @@tx_isolation" : "SELECT @@transaction_isolation"),
        "REPEATABLE-READ");
    assert_string_equal(
        test_value(db, "SELECT attr_value FROM performance_schema.session_connect_attrs"
                       " WHERE attr_name = 'program_name' AND processlist_id = connection_id()"),
        "lockstep:shop:read");
    my_close(db);

    db = test_open(test_uri(NULL, NULL), DB_LOAD);
    assert_string_equal(test_value(db, "SELECT @@foreign_key_checks"), "0");
    assert_string_equal(test_value(db, "SELECT @@unique_checks"), "1");
    my_close(db);
}

static void refused_in(int timeout_ms, const char *uri, enum err_class class, const char *needle)
{
    struct db_options o = {
        .uri = uri, .migration = "shop", .use = DB_CONTROL, .timeout_ms = timeout_ms};
    struct err e = {0};
    struct db *db = NULL;

    assert_int_equal(my_open(&o, &db, &e), -1);
    assert_null(db);
    if (e.class != class || strstr(e.msg, needle) == NULL)
        fail_msg("%s: %s", err_class_name(e.class), e.msg);
    assert_true(e.hint[0] != '\0');
    assert_null(strstr(e.msg, "wrong-pw"));
}

static void refused_connection(const char *uri, enum err_class class, const char *needle)
{
    refused_in(15000, uri, class, needle);
}

/* A port that takes connections and never says a word. */
static int silent_server(char *uri, size_t size)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(fd, 4), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    snprintf(uri, size, "mysql://root:wrong-pw@127.0.0.1:%d/", ntohs(a.sin_port));
    return fd;
}

static void names_what_cannot_be_reached(void **state)
{
    char uri[200];
    char wrong[400];
    int fd = silent_server(uri, sizeof uri);
    int64_t begun = mono_ms();

    refused_in(700, uri, ERR_RETRY, "127.0.0.1:");
    assert_true(mono_ms() - begun < 9000);
    close(fd);
    refused_connection(uri, ERR_RETRY, "127.0.0.1:");
    test_role("ls_login", NULL);
    snprintf(wrong, sizeof wrong, "mysql://ls_login:wrong-pw%s/",
             strchr(getenv("LOCKSTEP_TEST_MY"), '@'));
    refused_connection(wrong, ERR_FATAL, "Access denied");
    refused_connection(test_uri("no_such_database", NULL), ERR_FATAL, "no_such_database");
    refused_connection(test_uri("mysql", "ls_login"), ERR_REFUSED, "mysql");
    refused_connection("mysql://root:wrong-pw@no-such-host.invalid/", ERR_RETRY, "no-such-host");
    my_close(test_open(test_uri(NULL, "ls_login"), DB_CONTROL));
}

/* MySQL makes itself a certificate, MariaDB 10.11 has none: both answers of `required` are met. */
static void speaks_tls(void **state)
{
    static const char cipher[] = "SELECT variable_value FROM performance_schema.session_status"
                                 " WHERE variable_name = 'Ssl_cipher'";
    struct db *db = test_open(test_uri(NULL, NULL), DB_CONTROL);
    bool maria = my_db_from(db)->maria;
    char uri[400];

    test_role("ls_login", NULL);
    assert_int_equal(test_value(db, cipher)[0] == '\0', maria);
    my_close(db);
    snprintf(uri, sizeof uri, "%s?ssl-mode=disabled", test_uri(NULL, "ls_login"));
    db = test_open(uri, DB_CONTROL);
    assert_null(mysql_get_ssl_cipher(my_db_from(db)->conn));
    my_close(db);
    snprintf(uri, sizeof uri, "%s?ssl-mode=required", test_uri(NULL, "ls_login"));
    if (maria)
        refused_connection(uri, ERR_FATAL, "TLS is required");
    else
        my_close(test_open(uri, DB_CONTROL));
    snprintf(uri, sizeof uri, "%s?ssl-mode=verify-full", test_uri(NULL, "ls_login"));
    refused_connection(uri, ERR_FATAL, maria ? "SSL is required" : "certificate");
    snprintf(uri, sizeof uri, "%s?ssl-mode=verify-ca&ssl-ca=/nowhere.pem",
             test_uri(NULL, "ls_login"));
    refused_connection(uri, ERR_FATAL, "");
}

static void reads_the_option_file(void **state)
{
    char dir[] = "/tmp/lockstep-mycnf.XXXXXX";
    char path[64];
    char uri[300];
    const char *old = getenv("HOME");

    test_role("ls_login", NULL);
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/.my.cnf", dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("[client]\nuser=ls_login\npassword=secret\n", f);
    fclose(f);
    snprintf(uri, sizeof uri, "mysql://%s/", strchr(getenv("LOCKSTEP_TEST_MY"), '@') + 1);
    setenv("HOME", dir, 1);
    struct db *db = test_open(uri, DB_CONTROL);
    if (old != NULL)
        setenv("HOME", old, 1);
    assert_string_equal(test_value(db, "SELECT current_user()"), "ls_login@%");
    my_close(db);
    unlink(path);
    rmdir(dir);
}

static void expect_error(struct db *db, const char *sql, enum err_class class)
{
    struct err e = {0};

    if (my_exec(my_db_from(db), sql, strlen(sql), NULL, &e) == 0 || e.class != class)
        fail_msg("%s: %s: %s", sql, err_class_name(e.class), e.msg);
}

/* What a full disk says, in each of its ways, is nobody's fault but the disk's. */
static void a_full_disk_is_retried(void **state)
{
    static const struct {
        unsigned code;
        const char *text;
        enum err_class class;
        bool room;
    } cases[] = {
        {3, "Error writing file './binlog.000001' (Errcode: 28)", ERR_RETRY, true},
        {5, "Out of memory (Needed 128 bytes)", ERR_RETRY, false},
        {20, "Disk is full writing './t.ibd'", ERR_RETRY, true},
        {1021, "Disk full", ERR_RETRY, true},
        {1026, "Error writing file 'binlog' (errno: 28)", ERR_RETRY, true},
        {1114, "The table 't' is full", ERR_RETRY, true},
        {1878, "Temporary file write failure.", ERR_RETRY, true},
        {1030, "Got error 28 \"No space left on device\" from storage engine InnoDB", ERR_RETRY,
         true},
        {1030, "Got error 28 from storage engine", ERR_RETRY, true},
        {1030, "Got error 128 \"Something else\" from storage engine InnoDB", ERR_FATAL, false},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct err e = {0};

        my_fail_code(cases[i].code, "HY000", cases[i].text, &e);
        if (e.class != cases[i].class || (strstr(e.hint, "make room") != NULL) != cases[i].room)
            fail_msg("%u: %s: %s [%s]", cases[i].code, err_class_name(e.class), e.msg, e.hint);
    }
}

static void classes_errors(void **state)
{
    test_database("ls_class");
    struct db *db = test_open(test_uri("ls_class", NULL), DB_CONTROL);

    test_sql(db, "CREATE TABLE p (id int PRIMARY KEY, s varchar(3) CHARACTER SET utf8mb4 NOT NULL,"
                 " n tinyint,"
                 " CHECK (n <> 7));"
                 "CREATE TABLE c (p int, FOREIGN KEY (p) REFERENCES p (id));"
                 "INSERT INTO p VALUES (1, 'a', 1)");
    expect_error(db, "INSERT INTO p VALUES (1, 'a', 1)", ERR_CONFLICT);
    expect_error(db, "INSERT INTO p VALUES (2, NULL, 1)", ERR_CONFLICT);
    expect_error(db, "INSERT INTO p VALUES (2, 'a', 7)", ERR_CONFLICT);
    expect_error(db, "INSERT INTO c VALUES (9)", ERR_CONFLICT);
    expect_error(db, "INSERT INTO p VALUES (2, 'abcd', 1)", ERR_DATA);
    expect_error(db, "INSERT INTO p VALUES (2, 'a', 400)", ERR_DATA);
    expect_error(db, "INSERT INTO p VALUES (2, x'ff', 4)", ERR_DATA);
    expect_error(db, "SELECT * FROM nowhere", ERR_FATAL);
    test_role("ls_login", "SELECT ON ls_class.*");
    struct db *weak = test_open(test_uri("ls_class", "ls_login"), DB_CONTROL);
    expect_error(weak, "INSERT INTO p VALUES (3, 'a', 1)", ERR_REFUSED);
    expect_error(weak, "SET GLOBAL read_only = 1", ERR_REFUSED);
    test_sql(db, "GRANT INSERT ON ls_class.* TO 'ls_login'@'%'; SET GLOBAL read_only = 1");
    expect_error(weak, "INSERT INTO p VALUES (3, 'a', 1)", ERR_RETRY);
    test_sql(db, "SET GLOBAL read_only = 0");
    my_close(weak);
    my_close(db);
}

/* The longest that the server takes is sent, one byte more is not, and the connection stays. */
static void refuses_what_is_too_long(void **state)
{
    static const char before[] = "SELECT length('";
    static const char behind[] = "')";
    struct db *root = test_open(test_uri(NULL, NULL), DB_CONTROL);
    const char *usual = test_value(root, "SELECT @@global.max_allowed_packet");
    size_t limit = (size_t)64 * 1024;
    char *sql = malloc(limit);
    char reset[100];

    assert_non_null(sql);
    snprintf(reset, sizeof reset, "SET GLOBAL max_allowed_packet = %s", usual);
    test_sql(root, "SET GLOBAL max_allowed_packet = 65536");
    struct db *db = test_open(test_uri(NULL, NULL), DB_APPLY);
    memset(sql, 'a', limit);
    memcpy(sql, before, strlen(before));
    for (size_t len = limit - 2; len < limit; len++) {
        struct err e = {0};

        memset(sql + len - 4, 'a', 2);
        memcpy(sql + len - 2, behind, 2);
        int rc = my_exec(my_db_from(db), sql, len, NULL, &e);
        if (len == limit - 2 ? rc != 0 : rc == 0 || e.class != ERR_DATA)
            fail_msg("%zu bytes: %d %s", len, rc, e.msg);
        if (rc != 0 && (!strstr(e.msg, "65535 bytes") || !strstr(e.hint, "max_allowed_packet")))
            fail_msg("%s; %s", e.msg, e.hint);
        assert_string_equal(test_value(db, "SELECT 7"), "7");
    }
    test_sql(root, reset);
    free(sql);
    my_close(db);
    my_close(root);
}

/* A connection that began before the limit was raised is given up for one that has it. */
static void takes_a_raised_limit(void **state)
{
    static char sql[70000];
    struct db *root = test_open(test_uri(NULL, NULL), DB_CONTROL);
    const char *usual = test_value(root, "SELECT @@global.max_allowed_packet");
    struct err e = {0};
    char reset[100];

    snprintf(reset, sizeof reset, "SET GLOBAL max_allowed_packet = %s", usual);
    test_sql(root, "SET GLOBAL max_allowed_packet = 65536");
    struct db *db = test_open(test_uri(NULL, NULL), DB_CONTROL);
    test_sql(root, reset);
    memset(sql, ' ', sizeof sql);
    memcpy(sql, "DO 1", 4);
    assert_ok(my_begin(db, &e));
    assert_int_equal(my_exec(my_db_from(db), sql, sizeof sql, NULL, &e), -1);
    assert_int_equal(e.class, ERR_RETRY);
    err_clear(&e);
    my_close(db);
    db = test_open(test_uri(NULL, NULL), DB_CONTROL);
    assert_ok(my_exec(my_db_from(db), sql, sizeof sql, NULL, &e));
    my_close(db);
    my_close(root);
}

static void locks_are_bounded(void **state)
{
    test_database("ls_lock");
    struct db *a = test_open(test_uri("ls_lock", NULL), DB_CONTROL);
    struct db *b = test_open(test_uri("ls_lock", NULL), DB_CONTROL);
    struct err e = {0};

    test_sql(a, "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1)");
    test_sql(b, "SET SESSION innodb_lock_wait_timeout = 1");
    assert_ok(my_begin(a, &e));
    test_sql(a, "UPDATE t SET n = 2");
    expect_error(b, "UPDATE t SET n = 3", ERR_RETRY);
    assert_false(my_db_from(b)->broken);
    assert_ok(my_rollback(a, &e));
    uint64_t met = 0;
    /* Rows met, not rows changed. */
    assert_ok(my_exec(my_db_from(b), "UPDATE t SET n = 1", 18, &met, &e));
    assert_int_equal(met, 1);
    my_close(a);
    my_close(b);
}

static void ends_statements_that_take_too_long(void **state)
{
    struct db *db = test_open(test_uri(NULL, NULL), DB_CONTROL);
    struct db *watch = test_open(test_uri(NULL, NULL), DB_CONTROL);
    struct my_db *my = my_db_from(db);
    struct err e = {0};
    char sql[200];
    int64_t begun = mono_ms();

    snprintf(sql, sizeof sql, "SELECT count(*) FROM information_schema.processlist WHERE id = %lu",
             mysql_thread_id(my->conn));
    my->timeout_ms = 300;
    assert_null(my_query(my, "SELECT sleep(60)", &e));
    assert_int_equal(e.class, ERR_RETRY);
    assert_true(mono_ms() - begun < 30000);
    assert_true(my->broken);
    for (int64_t end = mono_ms() + 20000; strcmp(test_value(watch, sql), "0") != 0; nap_ms(20))
        assert_true(mono_ms() < end);
    assert_int_equal(my_execf(my, &e, "SELECT 1"), -1);
    assert_int_equal(e.class, ERR_RETRY);
    my_close(db);
    my_close(watch);
}

static void fetches_in_a_stream(void **state)
{
    test_database("ls_stream");
    struct db *db = test_open(test_uri("ls_stream", NULL), DB_CONTROL);
    struct my_db *my = my_db_from(db);
    struct err e = {0};
    MYSQL_ROW row;
    unsigned long *lengths;
    const char *sql = "SELECT n, repeat('x', 5000000) FROM big";

    test_sql(db, "CREATE TABLE t (n int); INSERT INTO t VALUES (1), (2), (3), (4), (5), (6)");
    MYSQL_RES *res = my_query_stream(my, "SELECT n FROM t ORDER BY n", 26, &e);
    assert_non_null(res);
    for (int i = 1; i <= 6; i++) {
        assert_int_equal(my_fetch(my, res, &row, &lengths, &e), 1);
        assert_int_equal(my_int(row[0]), i);
        assert_int_equal(lengths[0], 1);
    }
    assert_int_equal(my_fetch(my, res, &row, &lengths, &e), 0);
    my_stream_free(my, res);

    /* 39 GB, of which one row is read. */
    test_sql(db, "CREATE TABLE big AS SELECT a.n FROM t a, t b, t c, t d, t e");
    int64_t begun = mono_ms();
    res = my_query_stream(my, sql, strlen(sql), &e);
    assert_non_null(res);
    assert_int_equal(my_fetch(my, res, &row, &lengths, &e), 1);
    assert_int_equal(lengths[1], 5000000);
    assert_true(my->permit);
    my_stream_free(my, res);
    assert_false(my->permit);
    assert_true(mono_ms() - begun < 15000);
    assert_false(my->broken);
    assert_string_equal(test_value(db, "SELECT count(*) FROM t"), "6");
    /* The buffer of that row goes with its connection at the next transaction. */
    unsigned long id = mysql_thread_id(my->conn);
    assert_true(my->large);
    assert_ok(my_begin(db, &e));
    assert_true(mysql_thread_id(my->conn) != id);
    assert_false(my->large);
    assert_ok(my_rollback(db, &e));
    my_close(db);
}

static void counts_each_statement(void **state)
{
    test_database("ls_each");
    struct db *db = test_open(test_uri("ls_each", NULL), DB_CONTROL);
    struct err e = {0};
    uint64_t affected[4];
    size_t done;
    const char *good = "INSERT INTO t VALUES (1), (2); UPDATE t SET n = n WHERE n = 2;"
                       "SELECT 1; DELETE FROM t WHERE n = 9";
    const char *bad = "INSERT INTO t VALUES (3); INSERT INTO t VALUES (1); DELETE FROM t";

    test_sql(db, "CREATE TABLE t (n int PRIMARY KEY)");
    assert_ok(my_exec_each(my_db_from(db), good, strlen(good), affected, 4, &done, &e));
    assert_int_equal(done, 4);
    assert_int_equal(affected[0], 2);
    assert_int_equal(affected[1], 1);
    assert_int_equal(affected[3], 0);
    assert_int_equal(my_exec_each(my_db_from(db), bad, strlen(bad), affected, 4, &done, &e), -1);
    assert_int_equal(e.class, ERR_CONFLICT);
    assert_int_equal(done, 1);
    assert_string_equal(test_value(db, "SELECT count(*) FROM t"), "3");
    my_close(db);
}

static void quotes(void **state)
{
    struct db *db = test_open(test_uri(NULL, NULL), DB_CONTROL);
    struct buf b;
    const char hard[] = "a'b\\c\"d\0e\n%_\xc3\xa4";

    buf_init(&b, 1000);
    buf_adds(&b, "SELECT hex(");
    my_literal(&b, hard, sizeof hard - 1);
    buf_adds(&b, ") AS ");
    my_ident(&b, "odd`name");
    assert_string_equal(test_value(db, b.data), "6127625C63226400650A255FC3A4");
    buf_release(&b);
    my_close(db);
}

static void install(struct db *db)
{
    struct err e = {0};

    assert_ok(my_control_install(db, SIDE_TARGET, &e));
}

static void marks_its_own_transactions(void **state)
{
    test_database("ls_tx");
    struct db *control = test_open(test_uri(NULL, NULL), DB_CONTROL);
    install(control);
    struct db *db = test_open(test_uri("ls_tx", NULL), DB_APPLY);
    struct db *other = test_open(test_uri("ls_tx", NULL), DB_LOAD);
    struct err e = {0};
    char sql[120];

    test_sql(db, "CREATE TABLE t (n int PRIMARY KEY)");
    snprintf(sql, sizeof sql, "SELECT n FROM lockstep.origin WHERE id = %lu",
             mysql_thread_id(my_db_from(db)->conn));
    assert_ok(my_begin(db, &e));
    assert_ok(my_begin(other, &e)); /* neither waits for the other */
    test_sql(db, "INSERT INTO t VALUES (1)");
    assert_ok(my_savepoint(db, &e));
    test_sql(db, "INSERT INTO t VALUES (2)");
    assert_ok(my_savepoint(db, &e));
    test_sql(db, "INSERT INTO t VALUES (3)");
    assert_ok(my_rollback_to(db, &e));
    assert_ok(my_commit(db, &e));
    assert_ok(my_rollback(other, &e));
    assert_string_equal(test_value(control, "SELECT count(*) FROM ls_tx.t"), "2");
    assert_string_equal(test_value(control, sql), "1");
    assert_ok(my_begin(db, &e));
    assert_int_equal(my_begin(db, &e), -1);
    assert_int_equal(e.class, ERR_BUG);
    assert_ok(my_rollback(db, &e));
    my_close(other);
    my_close(db);
    assert_string_equal(test_value(control, "SELECT count(*) FROM lockstep.origin"), "0");
    my_close(control);
}

static void *kill_soon(void *arg)
{
    struct db *db = test_open(test_uri(NULL, NULL), DB_CONTROL);
    struct err e = {0};

    assert_ok(my_execf(my_db_from(db), &e, "KILL CONNECTION %lu", *(unsigned long *)arg));
    my_close(db);
    return NULL;
}

static void a_cut_off_commit_is_unknown(void **state)
{
    test_database("ls_tx");
    struct db *db = test_open(test_uri("ls_tx", NULL), DB_CONTROL);
    struct err e = {0};
    pthread_t thread;

    test_sql(db, "CREATE TABLE t (n int)");
    unsigned long id = mysql_thread_id(my_db_from(db)->conn);
    assert_ok(my_begin(db, &e));
    test_sql(db, "INSERT INTO t VALUES (1)");
    pthread_create(&thread, NULL, kill_soon, &id);
    pthread_join(thread, NULL);
    assert_int_equal(my_commit(db, &e), -1);
    assert_int_equal(e.class, ERR_UNKNOWN);
    assert_true(my_db_from(db)->broken);
    my_close(db);
}

static void *request_stop(void *arg)
{
    usleep(200 * 1000);
    stop_request();
    return NULL;
}

/* Last: the request cannot be taken back. */
static void notices_a_stop(void **state)
{
    struct db *db = test_open(test_uri(NULL, NULL), DB_CONTROL);
    struct err e = {0};
    pthread_t thread;
    int64_t begun = mono_ms();

    pthread_create(&thread, NULL, request_stop, NULL);
    assert_null(my_query(my_db_from(db), "SELECT sleep(60)", &e));
    pthread_join(thread, NULL);
    assert_int_equal(e.class, ERR_STOPPED);
    assert_true(mono_ms() - begun < 30000);
    my_close(db);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parses_uris),
        cmocka_unit_test(sets_the_session),
        cmocka_unit_test(names_what_cannot_be_reached),
        cmocka_unit_test(speaks_tls),
        cmocka_unit_test(reads_the_option_file),
        cmocka_unit_test(a_full_disk_is_retried),
        cmocka_unit_test(classes_errors),
        cmocka_unit_test(refuses_what_is_too_long),
        cmocka_unit_test(takes_a_raised_limit),
        cmocka_unit_test(locks_are_bounded),
        cmocka_unit_test(ends_statements_that_take_too_long),
        cmocka_unit_test(fetches_in_a_stream),
        cmocka_unit_test(counts_each_statement),
        cmocka_unit_test(quotes),
        cmocka_unit_test(marks_its_own_transactions),
        cmocka_unit_test(a_cut_off_commit_is_unknown),
        cmocka_unit_test(notices_a_stop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
