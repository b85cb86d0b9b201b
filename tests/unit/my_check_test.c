/* engines/mysql/check*.c and rights.c on a real server: each thing that is unfit is found, named
 * and given a remedy; a fit server is found fit by an account with no more rights than that. */
#include "my_support.h"

#include "engines/mysql/check.h"

#define ROLE "ls_check"
#define SHOP "ls_check_shop"

static struct arena arena = ARENA_INIT;
static const char *const include[] = {SHOP ".*"};
static const struct selection selection = {.include = include, .ninclude = 1};
static const char *const accounts[] = {"app@%"};
static struct fence_settings fence = {.whole_server = true, .accounts = accounts, .naccounts = 1};

/* With the fence's settings, which test_open() does not give. */
static struct db *open_role(void)
{
    struct db_options o = {
        .uri = test_uri(NULL, ROLE), .migration = "shop", .use = DB_CONTROL, .fence = &fence};
    struct db *db = NULL;
    struct err e = {0};

    assert_ok(my_open(&o, &db, &e));
    return db;
}

static struct findings check_source_as(bool started)
{
    struct check_request r = {.side = SIDE_SOURCE, .selection = &selection, .started = started};
    struct findings found = {0};
    struct err e = {0};
    struct db *db = open_role();

    assert_ok(my_check(db, &r, &arena, &found, &e));
    my_close(db);
    return found;
}

static struct findings check_source(void)
{
    return check_source_as(false);
}

static struct findings check_target(const struct table_list *tables)
{
    struct check_request r = {.side = SIDE_TARGET, .selection = &selection, .tables = tables};
    struct findings found = {0};
    struct err e = {0};
    struct db *db = open_role();

    assert_ok(my_check(db, &r, &arena, &found, &e));
    my_close(db);
    return found;
}

static const struct finding *search(const struct findings *f, const char *object, const char *what)
{
    for (size_t i = 0; i < f->n; i++)
        if (strstr(f->v[i].object, object) != NULL && strstr(f->v[i].what, what) != NULL)
            return &f->v[i];
    return NULL;
}

static void print_findings(const struct findings *f)
{
    for (size_t i = 0; i < f->n; i++)
        print_message("%s %s: %s -> %s\n", f->v[i].fatal ? "unfit" : "warning", f->v[i].object,
                      f->v[i].what, f->v[i].remedy);
}

static void expect(const struct findings *f, bool fatal, const char *object, const char *what,
                   const char *remedy)
{
    const struct finding *one = search(f, object, what);

    if (one == NULL || one->fatal != fatal || strstr(one->remedy, remedy) == NULL) {
        print_findings(f);
        fail_msg("expected: %s: %s -> %s", object, what, remedy);
    }
}

/* Runs what the remedies tell, statement by statement, as it stands there: up to a remark behind it
 * or an alternative. How many. */
static size_t obey(struct db *root, const struct findings *f, const char *verbs)
{
    size_t n = 0;

    for (size_t i = 0; i < f->n; i++) {
        const char *sql = f->v[i].remedy;

        if (strncmp(sql, "on the ", 7) == 0)
            sql = strchr(sql, ':') + 2;
        if (strstr(verbs, arena_strndup(&arena, sql, strcspn(sql, " "))) == NULL)
            continue;
        size_t len = strlen(sql);
        for (const char *const *end = (const char *const[]){", or ", " (of ", ", and ", NULL};
             *end != NULL; end++)
            if (strstr(sql, *end) != NULL && (size_t)(strstr(sql, *end) - sql) < len)
                len = (size_t)(strstr(sql, *end) - sql);
        test_sql(root, arena_strndup(&arena, sql, len));
        n++;
    }
    return n;
}

static void expect_fit(const struct findings *f)
{
    for (size_t i = 0; i < f->n; i++) {
        if (!f->v[i].fatal)
            continue;
        print_findings(f);
        fail_msg("not fit");
    }
}

/* What the fence and the driver ask for, as docs and tests grant it. */
static void grant_all(struct db *root)
{
    bool maria = my_db_from(root)->maria;

    test_role(ROLE, NULL);
    test_sql(root, maria ? "GRANT REPLICATION SLAVE, BINLOG MONITOR, SLAVE MONITOR, READ_ONLY"
                           " ADMIN, CONNECTION ADMIN, RELOAD, PROCESS, SHOW DATABASES, CREATE USER "
                           "ON *.* TO " ROLE "@'%';"
                           "GRANT SELECT ON mysql.global_priv TO " ROLE "@'%';"
                           "GRANT SELECT ON mysql.proc TO " ROLE "@'%';"
                           "GRANT SELECT ON mysql.event TO " ROLE "@'%'"
                         : "GRANT REPLICATION SLAVE, REPLICATION CLIENT, SYSTEM_VARIABLES_ADMIN,"
                           " CONNECTION_ADMIN, XA_RECOVER_ADMIN, RELOAD, PROCESS, SHOW DATABASES,"
                           " CREATE USER, SHOW_ROUTINE, EVENT ON *.* TO " ROLE "@'%';"
                           "GRANT SELECT ON mysql.user TO " ROLE "@'%';"
                           "GRANT SELECT ON mysql.global_grants TO " ROLE "@'%'");
    test_sql(root, "GRANT SELECT ON mysql.db TO " ROLE "@'%';"
                   "GRANT SELECT ON mysql.tables_priv TO " ROLE "@'%';"
                   "GRANT ALL ON lockstep.* TO " ROLE "@'%';"
                   "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES,"
                   " TRIGGER ON `ls\\_check\\_%`.* TO " ROLE "@'%'");
}

static struct db *fit_server(void)
{
    struct db *root;

    test_database(SHOP);
    test_role("app", NULL);
    root = test_open(test_uri(SHOP, NULL), DB_CONTROL);
    test_sql(root, "CREATE TABLE a (id int PRIMARY KEY, n int); CREATE TABLE b (id int, a int,"
                   " FOREIGN KEY (a) REFERENCES a (id))");
    grant_all(root);
    return root;
}

static void a_fit_server_is_fit(void **state)
{
    struct db *root = fit_server();
    struct findings f = check_source();

    expect_fit(&f);
    my_close(root);
}

static void finds_settings(void **state)
{
    static const struct {
        const char *set;
        const char *reset;
        const char *what;
        const char *remedy;
    } cases[] = {
        {"SET GLOBAL binlog_format = 'MIXED'", "SET GLOBAL binlog_format = 'ROW'",
         "binlog_format is not ROW", "SET GLOBAL binlog_format = 'ROW'"},
        {"SET GLOBAL binlog_row_image = 'MINIMAL'", "SET GLOBAL binlog_row_image = 'FULL'",
         "binlog_row_image is not FULL", "SET GLOBAL binlog_row_image = 'FULL'"},
        {"SET GLOBAL binlog_row_metadata = 'MINIMAL'", "SET GLOBAL binlog_row_metadata = 'FULL'",
         "binlog_row_metadata is not FULL", "SET GLOBAL binlog_row_metadata = 'FULL'"},
        {"SET GLOBAL event_scheduler = OFF", "SET GLOBAL event_scheduler = ON",
         "event_scheduler is off", "event_scheduler = ON"},
        {"SET GLOBAL read_only = 1", "SET GLOBAL read_only = 0", "read_only is on",
         "SET GLOBAL read_only = 0"},
    };
    struct db *root = fit_server();
    struct table_list none = {0};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        test_sql(root, cases[i].set);
        struct findings source = check_source();
        struct findings target = check_target(&none);
        test_sql(root, cases[i].reset);
        expect(&source, true, "source", cases[i].what, cases[i].remedy);
        /* The target's log is for the way back. */
        expect(&target, i >= 3, "target", cases[i].what, cases[i].remedy);
    }
    struct findings after = check_source();
    expect_fit(&after);
    my_close(root);
}

static void finds_replicas(void **state)
{
    struct db *root = fit_server();
    struct table_list none = {0};

    if (!my_db_from(root)->maria)
        skip(); /* it logs what it is sent, by default */
    test_sql(root, "CHANGE MASTER TO master_host = '127.0.0.1', master_user = 'nobody'");
    struct findings idle = check_source();
    struct findings target = check_target(&none);
    test_sql(root, "START SLAVE SQL_THREAD");
    struct findings running = check_source();
    struct server_identity id;
    struct err e = {0};
    int rc = my_identify(root, &id, &e);
    test_sql(root, "REVOKE SLAVE MONITOR ON *.* FROM " ROLE "@'%'");
    struct findings blind = check_source();
    test_sql(root, "STOP SLAVE; RESET SLAVE ALL");
    assert_int_equal(rc, 0);
    assert_true(id.standby);
    expect(&idle, true, "source", "it is set up as a replica", "log_slave_updates = 1");
    assert_null(search(&idle, "source", "replicates from another server"));
    expect(&target, false, "target", "there is no way back", "log_slave_updates = 1");
    expect(&running, true, "source", "replicates from another server", "STOP REPLICA");
    expect(&blind, true, "account '" ROLE, "SLAVE MONITOR ON *.*", "GRANT SLAVE MONITOR");
    my_close(root);
}

static void finds_tables(void **state)
{
    struct db *root = fit_server();

    test_sql(root, "CREATE TABLE m (id int PRIMARY KEY) ENGINE = MyISAM;"
                   "CREATE TABLE c (a int, CONSTRAINT c_falls FOREIGN KEY (a) REFERENCES a (id)"
                   " ON DELETE CASCADE);"
                   "CREATE TRIGGER b_trigger BEFORE INSERT ON b FOR EACH ROW SET NEW.a = NEW.a");
    struct findings f = check_source();
    expect(&f, true, SHOP ".m", "its engine is MyISAM", "ENGINE = InnoDB");
    expect(&f, true, SHOP ".c", "foreign key c_falls", "RESTRICT");
    expect(&f, false, SHOP ".b", "b_trigger", "drop them");
    assert_null(search(&f, SHOP ".b", "foreign key"));
    my_close(root);
}

/* Linux has no server of mode 2, so the mode is told. */
static void finds_capitals(void **state)
{
    struct db *root = fit_server();
    struct check_request r = {.side = SIDE_SOURCE};
    struct findings found = {0};
    struct my_checking c = {
        .db = my_db_from(root), .request = &r, .side = "source", .arena = &arena, .found = &found};
    struct err e = {0};

    test_sql(root, "CREATE TABLE Orders (id int PRIMARY KEY);"
                   "CREATE TABLE `\xc3\x89t\xc3\xa9` (id int PRIMARY KEY);"
                   "CREATE TABLE `\xc3\xa9'` (id int PRIMARY KEY)");
    assert_ok(my_tables(root, &selection, &arena, &c.tables, &e));
    assert_ok(my_check_letter_case(&c, "0", &e));
    assert_ok(my_check_letter_case(&c, NULL, &e));
    assert_int_equal(found.n, 0);
    assert_ok(my_check_letter_case(&c, "2", &e));
    assert_int_equal(found.n, 2);
    expect(&found, true, SHOP ".Orders", "the binlog has it without", "rename the table");
    expect(&found, true, SHOP ".\xc3\x89t\xc3\xa9", "lower_case_table_names = 2", "tables.exclude");
    found.n = 0;
    r.side = SIDE_TARGET;
    assert_ok(my_check_letter_case(&c, "1", &e));
    expect(&found, true, SHOP ".Orders", "the target's lower_case_table_names is 1", "initialise");
    my_close(root);
}

static void finds_branches(void **state)
{
    struct db *root = fit_server();

    test_sql(root, "XA START 'x'; INSERT INTO a VALUES (1, 1); XA END 'x'; XA PREPARE 'x'");
    struct findings f = check_source();
    struct findings later = check_source_as(true);
    struct db *other = test_open(test_uri(NULL, NULL), DB_CONTROL);
    my_close(root);
    /* It is its session's until that has gone. */
    for (int64_t end = mono_ms() + 30000;; nap_ms(20)) {
        struct err e = {0};

        if (my_execf(my_db_from(other), &e, "XA ROLLBACK 'x'") == 0)
            break;
        assert_true(mono_ms() < end);
    }
    my_close(other);
    expect(&f, true, "source", "1 XA transactions are prepared", "XA COMMIT or XA ROLLBACK");
    expect(&later, false, "source", "a cutover would wait for them", "XA COMMIT or XA ROLLBACK");
}

static void finds_rights(void **state)
{
    static const struct {
        const char *revoke;
        const char *what;
        bool fatal;
    } cases[] = {
        {"REVOKE REPLICATION SLAVE ON *.* FROM " ROLE "@'%'", "REPLICATION SLAVE ON *.*", true},
        {"REVOKE PROCESS ON *.* FROM " ROLE "@'%'", "PROCESS", true},
        {"REVOKE ALL ON lockstep.* FROM " ROLE "@'%'; REVOKE EVENT ON *.* FROM " ROLE "@'%'",
         "EVENT ON `lockstep`.*", true},
        {"REVOKE SELECT ON `ls\\_check\\_%`.* FROM " ROLE "@'%'", "no table", true},
        {"REVOKE UPDATE ON `ls\\_check\\_%`.* FROM " ROLE "@'%'", "UPDATE ON `" SHOP "`.*", false},
    };
    struct db *root = fit_server();

    test_sql(root, my_db_from(root)->maria ? "REVOKE SELECT ON mysql.global_priv FROM " ROLE "@'%'"
                                           : "REVOKE SELECT ON mysql.user FROM " ROLE "@'%'");
    struct findings blind = check_source();
    expect(&blind, true, "account '" ROLE, "SELECT ON mysql.", "GRANT SELECT ON mysql.");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        grant_all(root);
        test_sql(root, cases[i].revoke);
        if (strcmp(cases[i].what, "no table") == 0)
            test_sql(root, "GRANT SELECT ON " SHOP ".a TO " ROLE "@'%'");
        struct findings f = check_source();
        if (strcmp(cases[i].what, "no table") == 0)
            expect(&f, true, "account '" ROLE "'@'%'", "SELECT ON `" SHOP "`.*", "GRANT SELECT ON");
        else
            expect(&f, cases[i].fatal, cases[i].what[0] == 'P' ? "source" : "account '" ROLE,
                   cases[i].what, "GRANT ");
    }
    my_close(root);
}

/* Of an account that has none but those without which nothing is seen. */
static void gives_what_is_missing(void **state)
{
    struct db *root = fit_server();
    struct db *db = open_role();
    struct table_list list;
    struct err e = {0};

    assert_ok(my_tables(db, &selection, &arena, &list, &e));
    my_close(db);
    test_role(ROLE, "SELECT ON `" SHOP "`.*");
    struct findings f = check_source();
    assert_true(obey(root, &f, "GRANT") > 8);
    f = check_target(&list);
    assert_true(obey(root, &f, "GRANT") > 0);
    f = check_source();
    expect_fit(&f);
    assert_int_equal(obey(root, &f, "GRANT"), 0);
    f = check_target(&list);
    expect_fit(&f);
    assert_int_equal(obey(root, &f, "GRANT"), 0);
    my_close(root);
}

/* A seal that locks nobody is none; one of the accounts may be the other server's. */
static void finds_accounts(void **state)
{
    static const char *const two[] = {"elsewhere", "app"};
    struct db *root = fit_server();

    /* On MySQL only with MY_OPTS=persisted-globals-load=OFF. */
    if (!my_db_from(root)->maria &&
        strcmp(test_value(root, "SELECT @@persisted_globals_load"), "1") == 0) {
        my_close(root);
        skip();
    }
    test_role("ls_shop", "INSERT ON `ls\\_check\\_%`.*");
    test_role("ls_reader", "SELECT ON *.*");
    test_sql(root, "DROP ROLE IF EXISTS ls_writers; CREATE ROLE ls_writers;"
                   "GRANT UPDATE (n) ON " SHOP ".a TO ls_writers; DROP USER app@'%';"
                   "REVOKE SELECT ON mysql.db FROM " ROLE "@'%'");
    struct findings f = check_source();
    expect(&f, true, "source", "ls_reader@%, ls_shop@%", "accounts: [");
    test_sql(root, "GRANT SELECT ON mysql.* TO " ROLE "@'%'");
    f = check_source();
    expect(&f, true, "source",
           my_db_from(root)->maria ? "ls_shop@%, role ls_writers" : "ls_shop@%, ls_writers@%",
           "accounts: [");
    assert_null(search(&f, "source", "ls_reader"));
    fence.accounts = two;
    fence.naccounts = 2;
    f = check_source();
    expect(&f, true, "source", "none of fence.accounts", "accounts: [");
    test_role("app", NULL);
    f = check_source();
    fence.accounts = accounts;
    fence.naccounts = 1;
    assert_null(search(&f, "source", "fence.accounts"));
    test_sql(root, "DROP USER ls_shop@'%', ls_reader@'%'; DROP ROLE ls_writers");
    my_close(root);
}

/* Does this account's session get a row in while the server is closed? */
static bool passes(const char *account)
{
    struct db *db = test_open(test_uri(SHOP, account), DB_CONTROL);
    struct err e = {0};
    bool wrote = my_execf(my_db_from(db), &e, "INSERT INTO a VALUES (1, 1)") == 0;

    my_close(db);
    return wrote;
}

/* What the server lets pass is what is named. */
static void finds_who_passes(void **state)
{
    struct db *root = fit_server();
    bool maria = my_db_from(root)->maria;

    test_role("ls_passes", maria ? "READ_ONLY ADMIN ON *.*" : "CONNECTION_ADMIN ON *.*");
    test_role("ls_stays", "CREATE USER, RELOAD, PROCESS ON *.*");
    test_sql(root, "GRANT ALL ON " SHOP ".* TO ls_passes@'%';"
                   "GRANT ALL ON " SHOP ".* TO ls_stays@'%'; SET GLOBAL read_only = 1");
    bool passed = passes("ls_passes");
    bool stayed = !passes("ls_stays");
    test_sql(root, "SET GLOBAL read_only = 0");
    assert_true(passed && stayed);
    struct findings f = check_source();
    expect(&f, false, "source", "ls_passes@%", "no application");
    expect(&f, false, "source", "root@", "no application");
    assert_null(search(&f, "source", "ls_stays"));
    test_sql(root, maria ? "REVOKE SELECT ON mysql.global_priv FROM " ROLE "@'%'"
                         : "REVOKE SELECT ON mysql.global_grants FROM " ROLE "@'%'");
    f = check_source();
    expect(&f, false, "source", "may not see which accounts", "GRANT SELECT ON mysql.");
    test_sql(root, "DROP USER ls_passes@'%', ls_stays@'%'");
    my_close(root);
}

static void finds_other_databases(void **state)
{
    struct db *root = fit_server();

    test_database("ls_other");
    fence.whole_server = false;
    fence.naccounts = 0;
    struct findings f = check_source();
    fence.whole_server = true;
    fence.naccounts = 1;
    expect(&f, true, "source", "ls_other", "whole_server");
    if (my_db_from(root)->maria)
        expect(&f, true, "source", "accounts must be locked", "accounts: [");
    my_close(root);
}

static void looks_at_the_targets_tables(void **state)
{
    struct db *root = fit_server();
    struct db *db = open_role();
    struct table_list list;
    struct err e = {0};

    assert_ok(my_tables(db, &selection, &arena, &list, &e));
    struct findings f = check_target(&list);
    expect_fit(&f);
    test_sql(root, "INSERT INTO a VALUES (1, 1); ALTER TABLE b MODIFY id bigint;"
                   "CREATE TRIGGER a_trigger BEFORE INSERT ON a FOR EACH ROW SET NEW.n = 1");
    f = check_target(&list);
    expect(&f, true, SHOP ".a", "is not empty", "DELETE FROM `" SHOP "`.`a`");
    expect(&f, true, SHOP ".b", "column 1 is id bigint", "DROP TABLE");
    expect(&f, true, SHOP ".a", "a_trigger", "drop them on the target");
    test_sql(root, "DROP TABLE b; CREATE VIEW b AS SELECT 1; DROP TRIGGER a_trigger;"
                   "DELETE FROM a; ALTER TABLE a DROP PRIMARY KEY");
    f = check_target(&list);
    expect(&f, true, SHOP ".b", "a VIEW of that name", "rename or drop");
    expect(&f, true, SHOP ".a", "its key has other columns", "DROP TABLE");

    struct check_request r = {.side = SIDE_TARGET, .tables = &list, .source = db};
    struct findings same = {0};
    assert_ok(my_check(db, &r, &arena, &same, &e));
    expect(&same, true, "target", "it is the source", "another server");
    my_close(db);
    my_close(root);
}

static void what_does_not_come_along(void **state)
{
    struct db *root = fit_server();

    test_sql(root, "CREATE VIEW v AS SELECT id FROM a; CREATE VIEW `the view` AS SELECT 1;"
                   "CREATE PROCEDURE p() SELECT 1; CREATE FUNCTION f() RETURNS int DETERMINISTIC"
                   " RETURN 1; CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY DO SELECT 1;"
                   "CREATE TRIGGER b_trigger BEFORE INSERT ON b FOR EACH ROW SET NEW.a = NEW.a");
    struct findings f = check_source();
    expect(&f, false, "database " SHOP, "2 views are not carried: the view, v",
           "mysqldump --no-data " SHOP " 'the view' v");
    expect(&f, false, "database " SHOP, "2 procedures and functions are not carried: f, p",
           "--routines " SHOP);
    expect(&f, false, "database " SHOP, "1 event is not carried: nightly", "--events " SHOP);
    expect(&f, false, "database " SHOP, "1 trigger is not carried: b_trigger",
           "--triggers " SHOP " b");
    expect_fit(&f);
    my_close(root);
}

/* By a right on the database, where it does not exist yet, too, or on a table. */
static void nobody_may_write_on_the_target(void **state)
{
    struct db *root = fit_server();
    struct db *db = open_role();
    struct table_list list;
    struct err e = {0};

    assert_ok(my_tables(db, &selection, &arena, &list, &e));
    my_close(db);
    struct findings f = check_target(&list);
    expect(&f, false, "database " SHOP, "behind the switch the applications are refused",
           "GRANT SELECT, INSERT, UPDATE, DELETE ON `" SHOP "`.* TO");
    test_sql(root, "GRANT SELECT ON " SHOP ".* TO app@'%'");
    f = check_target(&list);
    expect(&f, false, "database " SHOP, "the applications are refused", "docs/cutover.md");
    test_sql(root, "GRANT INSERT ON " SHOP ".a TO app@'%'");
    f = check_target(&list);
    assert_null(search(&f, "database " SHOP, "the applications are refused"));
    test_sql(root, "REVOKE ALL, GRANT OPTION FROM app@'%'; DROP DATABASE " SHOP ";"
                   "GRANT UPDATE ON `ls\\_check\\_s%`.* TO app@'%'");
    f = check_target(&list);
    assert_null(search(&f, "database " SHOP, "the applications are refused"));
    test_sql(root, "REVOKE SELECT ON mysql.db FROM " ROLE "@'%'");
    f = check_target(&list);
    expect(&f, false, "account '" ROLE, "may not see whether", "GRANT SELECT ON mysql.db TO '");
    my_close(root);
}

/* Neither TRUNCATE nor DROP TABLE takes a table that a foreign key refers to. */
static void mends_the_targets_tables(void **state)
{
    struct db *root = fit_server();
    struct db *db = open_role();
    struct table_list list;
    struct err e = {0};

    assert_ok(my_tables(db, &selection, &arena, &list, &e));
    my_close(db);
    test_sql(root, "INSERT INTO a VALUES (1, 1)");
    struct findings f = check_target(&list);
    expect(&f, true, SHOP ".a", "is not empty", "DELETE FROM `" SHOP "`.`a` (of `" SHOP "`.`b`");
    assert_int_equal(obey(root, &f, "DELETE TRUNCATE"), 1);
    test_sql(root, "INSERT INTO b VALUES (1, NULL)");
    f = check_target(&list);
    assert_int_equal(obey(root, &f, "DELETE TRUNCATE"), 1);
    f = check_target(&list);
    expect_fit(&f);
    test_sql(root, "ALTER TABLE a MODIFY n bigint");
    f = check_target(&list);
    assert_int_equal(obey(root, &f, "ALTER DROP"), 1);
    f = check_target(&list);
    expect_fit(&f);
    my_close(root);
}

static void reads_grants(void **state)
{
    struct db *root = fit_server();
    struct my_rights r;
    struct err e = {0};

    test_role("ls_grants", NULL);
    test_sql(root, "DROP ROLE IF EXISTS ls_grants_role; CREATE ROLE ls_grants_role;"
                   "GRANT INSERT ON `ls\\_a%`.* TO ls_grants_role;"
                   "GRANT ls_grants_role TO ls_grants@'%';"
                   "GRANT PROCESS ON *.* TO ls_grants@'%';"
                   "GRANT DELETE ON `ls_q`.* TO ls_grants@'%';"
                   "GRANT SELECT (id), UPDATE ON " SHOP ".a TO ls_grants@'%'");
    test_sql(root, my_db_from(root)->maria ? "SET DEFAULT ROLE ls_grants_role FOR ls_grants@'%'"
                                           : "SET DEFAULT ROLE ls_grants_role TO ls_grants@'%'");
    struct db *db = test_open(test_uri(NULL, "ls_grants"), DB_CONTROL);
    assert_ok(my_rights_load(my_db_from(db), &arena, &r, &e));
    assert_string_equal(r.account, "'ls_grants'@'%'");
    assert_true(my_rights_global(&r, "PROCESS"));
    assert_false(my_rights_global(&r, "SUPER"));
    assert_false(my_rights_global(&r, "INSERT"));
    assert_true(my_rights_database(&r, "ls_abc", "INSERT"));
    assert_false(my_rights_database(&r, "lsxabc", "INSERT"));
    assert_false(my_rights_database(&r, "ls_b", "INSERT"));
    assert_true(my_rights_database(&r, "lsxq", "DELETE"));
    assert_false(my_rights_database(&r, "lsq", "DELETE"));
    assert_true(my_rights_database(&r, "ls_b", "PROCESS"));
    assert_true(my_rights_table(&r, SHOP, "a", "UPDATE"));
    assert_false(my_rights_table(&r, SHOP, "a", "SELECT"));
    assert_false(my_rights_database(&r, SHOP, "UPDATE"));
    my_close(db);
    db = test_open(test_uri(NULL, NULL), DB_CONTROL);
    assert_ok(my_rights_load(my_db_from(db), &arena, &r, &e));
    assert_true(my_rights_global(&r, "REPLICATION_SLAVE"));
    my_close(db);
    my_close(root);
}

static int release(void **state)
{
    arena_release(&arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fit_server_is_fit),
        cmocka_unit_test(finds_settings),
        cmocka_unit_test(finds_replicas),
        cmocka_unit_test(finds_tables),
        cmocka_unit_test(finds_capitals),
        cmocka_unit_test(finds_branches),
        cmocka_unit_test(finds_rights),
        cmocka_unit_test(gives_what_is_missing),
        cmocka_unit_test(finds_accounts),
        cmocka_unit_test(finds_who_passes),
        cmocka_unit_test(finds_other_databases),
        cmocka_unit_test(looks_at_the_targets_tables),
        cmocka_unit_test(what_does_not_come_along),
        cmocka_unit_test(nobody_may_write_on_the_target),
        cmocka_unit_test(mends_the_targets_tables),
        cmocka_unit_test(reads_grants),
    };

    return cmocka_run_group_tests(tests, NULL, release);
}
