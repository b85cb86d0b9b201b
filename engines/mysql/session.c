/* Connections: opened without blocking, with the settings under which values have one text form on
 * every server, and transactions on them.
 *
 * A commit is the one statement whose fate matters after its wait has failed: killed, timed out or
 * cut off it is ERR_UNKNOWN, and the caller reads the server before it goes on. */
#include "engines/mysql/session.h"

#include "core/run.h"
#include "engines/mysql/driver.h"

#include <errmsg.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define CONNECT_TIMEOUT_MS 10000
#define HANDSHAKE_MS 5000
#define MY_WAIT_TIMEOUT "28800"
#define COMMIT_STOP_GRACE_MS 5000
#define CLIENT_MAX_PACKET (1024UL * 1024 * 1024)

/* ---- why a connection could not be had ---- */

/* `needle` tells errors of one number apart; NULL: any text. */
static const struct {
    unsigned code;
    const char *needle;
    enum err_class class;
    const char *remedy;
} connect_failures[] = {
    {1045, NULL, ERR_FATAL,
     "correct user and password in the URI, in ~/.my.cnf or in the ${VARIABLE} that it names"},
    {1698, NULL, ERR_FATAL, "this account logs in another way: give lockstep one with a password"},
    {1130, NULL, ERR_FATAL, "CREATE USER … for this host, or for '%'"},
    {1129, NULL, ERR_RETRY, "FLUSH HOSTS on the server"},
    {1049, NULL, ERR_FATAL, "create the database, or correct the URI"},
    {1044, NULL, ERR_REFUSED, "GRANT a right on that database to this account, or name another"},
    {1820, NULL, ERR_FATAL, "the password has expired: ALTER USER … IDENTIFIED BY …"},
    {1862, NULL, ERR_FATAL, "the password has expired: ALTER USER … IDENTIFIED BY …"},
    {3118, NULL, ERR_FATAL, "ALTER USER … ACCOUNT UNLOCK"},
    {4151, NULL, ERR_FATAL, "ALTER USER … ACCOUNT UNLOCK"},
    {3159, NULL, ERR_FATAL, "the server demands TLS: ssl-mode=preferred in the URI"},
    {1040, NULL, ERR_RETRY, "raise max_connections"},
    {1203, NULL, ERR_RETRY, "raise max_user_connections"},
    {1226, NULL, ERR_RETRY, "raise the account's limits"},
    {1053, NULL, ERR_RETRY, "the server is shutting down: try again when it is back"},
    {3032, NULL, ERR_RETRY, "the server is in offline mode"},
    {CR_UNKNOWN_HOST, NULL, ERR_RETRY, "correct the host name in the URI"},
    /* A server that goes down while we shake hands is no matter of certificates. */
    {CR_SSL_CONNECTION_ERROR, "certificate", ERR_FATAL,
     "correct ssl-mode and ssl-ca in the URI, or the server's certificate"},
    {CR_SSL_CONNECTION_ERROR, "required", ERR_FATAL, "correct ssl-mode in the URI"},
    {CR_SSL_CONNECTION_ERROR, "No such file", ERR_FATAL, "correct the paths of ssl-… in the URI"},
    {CR_SSL_CONNECTION_ERROR, "hostname", ERR_FATAL,
     "the certificate is another host's: correct the URI, or use ssl-mode=verify-ca"},
    {CR_SSL_CONNECTION_ERROR, NULL, ERR_RETRY, "the connection broke while it was made"},
    {CR_AUTH_PLUGIN_CANNOT_LOAD, NULL, ERR_FATAL,
     "the account's authentication plugin is not on this machine (package libmariadb3)"},
};

static void where_of(const struct my_uri *u, char *out, size_t size)
{
    if (u->socket[0] != '\0')
        snprintf(out, size, "socket %s", u->socket);
    else
        snprintf(out, size, "%s:%u", u->host, u->port);
}

static int connect_failed(const struct my_uri *u, unsigned code, const char *text, struct err *e)
{
    char where[300];
    enum err_class class = ERR_RETRY;
    const char *remedy = "is the server running there, and does a firewall let it through?";

    where_of(u, where, sizeof where);
    for (size_t i = 0; i < sizeof connect_failures / sizeof connect_failures[0]; i++) {
        if (connect_failures[i].code != code)
            continue;
        if (connect_failures[i].needle != NULL && strstr(text, connect_failures[i].needle) == NULL)
            continue;
        class = connect_failures[i].class;
        remedy = connect_failures[i].remedy;
        break;
    }
    err_set(e, class, "cannot connect to MySQL or MariaDB at %s, database \"%s\" as \"%s\": %s",
            where, u->database[0] != '\0' ? u->database : "(none)",
            u->user[0] != '\0' ? u->user : "(default)", text);
    return err_hint(e, "%s", remedy);
}

/* ---- dialling ---- */

static const char *or_null(const char *s)
{
    return s[0] != '\0' ? s : NULL;
}

static int op_connect(struct my_op *op, MYSQL *conn, int ready)
{
    const struct my_uri *u = op->uri;
    MYSQL *ret = NULL;
    int wants = ready != 0
                    ? mysql_real_connect_cont(&ret, conn, ready)
                    : mysql_real_connect_start(&ret, conn, or_null(u->host), or_null(u->user),
                                               u->has_password ? u->password : NULL,
                                               or_null(u->database), u->port, or_null(u->socket),
                                               CLIENT_FOUND_ROWS | CLIENT_MULTI_STATEMENTS);

    if (wants == 0)
        op->rc = ret != NULL ? 0 : -1;
    return wants;
}

static void tls_options(MYSQL *conn, const struct my_uri *u)
{
    my_bool on = 1;
    my_bool off = 0;

    mysql_optionsv(conn, MYSQL_OPT_SSL_VERIFY_SERVER_CERT, u->tls == MY_TLS_FULL ? &on : &off);
    if (u->tls == MY_TLS_DISABLED)
        return;
    mysql_optionsv(conn, MYSQL_OPT_SSL_ENFORCE, &on);
    if (u->ssl_ca[0] != '\0')
        mysql_optionsv(conn, MYSQL_OPT_SSL_CA, u->ssl_ca);
    if (u->ssl_cert[0] != '\0')
        mysql_optionsv(conn, MYSQL_OPT_SSL_CERT, u->ssl_cert);
    if (u->ssl_key[0] != '\0')
        mysql_optionsv(conn, MYSQL_OPT_SSL_KEY, u->ssl_key);
}

static MYSQL *prepare(const struct my_dial *d, const struct my_uri *u)
{
    MYSQL *conn = mysql_init(NULL);
    unsigned long max_packet = CLIENT_MAX_PACKET;
    /* The library waits for a TLS handshake by itself, and takes these seconds for milliseconds
     * there. For all else our own deadline is the shorter one. */
    unsigned handshake = (unsigned)(d->timeout_ms < HANDSHAKE_MS ? d->timeout_ms : HANDSHAKE_MS);
    unsigned protocol = u->socket[0] != '\0' ? MYSQL_PROTOCOL_SOCKET : MYSQL_PROTOCOL_TCP;

    if (conn == NULL)
        return NULL;
    mysql_optionsv(conn, MYSQL_OPT_NONBLOCK, 0);
    mysql_optionsv(conn, MYSQL_OPT_CONNECT_TIMEOUT, &handshake);
    mysql_optionsv(conn, MYSQL_OPT_MAX_ALLOWED_PACKET, &max_packet);
    mysql_optionsv(conn, MYSQL_OPT_PROTOCOL, &protocol);
    mysql_optionsv(conn, MYSQL_SET_CHARSET_NAME, "utf8mb4");
    mysql_optionsv(conn, MYSQL_OPT_CONNECT_ATTR_ADD, "program_name", d->program);
    if (u->user[0] == '\0' || !u->has_password)
        mysql_optionsv(conn, MYSQL_READ_DEFAULT_GROUP, "client");
    tls_options(conn, u);
    return conn;
}

/* A server that vanished is noticed by these, also while a statement may take its time. */
static void keep_alive(int fd)
{
    static const struct {
        int name;
        int value;
    } options[] = {
        {TCP_KEEPIDLE, 10}, {TCP_KEEPINTVL, 5}, {TCP_KEEPCNT, 4}, {TCP_USER_TIMEOUT, 30000}};
    int on = 1;

    /* A socket of the file system has none of them, and needs none. */
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
        (void)setsockopt(fd, IPPROTO_TCP, options[i].name, &options[i].value,
                         sizeof(options[i].value));
}

static int dialled(MYSQL *conn, const struct my_uri *u, const struct my_dial *d, struct err *e)
{
    struct my_op op = {.step = op_connect, .uri = u};
    char why[80];
    int rc = my_op_run(&op, conn, d->timeout_ms, d->heed_stop ? 0 : -1);

    if (rc < 0)
        return err_set(e, ERR_STOPPED, "asked to stop while connecting");
    if (rc == 0) {
        snprintf(why, sizeof why, "no answer within %d ms", d->timeout_ms);
        return connect_failed(u, 0, why, e);
    }
    if (op.rc != 0)
        return connect_failed(u, mysql_errno(conn), mysql_error(conn), e);
    keep_alive(mysql_get_socket(conn));
    if (u->tls >= MY_TLS_REQUIRED && mysql_get_ssl_cipher(conn) == NULL)
        return connect_failed(u, CR_SSL_CONNECTION_ERROR,
                              "TLS is required, and the server does not offer it", e);
    return 0;
}

int my_dial(const struct my_dial *d, MYSQL **out, struct err *e)
{
    struct my_uri u;
    int rc = -1;

    *out = NULL;
    if (my_uri_parse(d->uri, &u, e) != 0)
        goto out;
    MYSQL *conn = prepare(d, &u);
    if (conn == NULL) {
        err_set(e, ERR_FATAL, "out of memory");
        goto out;
    }
    rc = dialled(conn, &u, d, e);
    if (rc == 0)
        *out = conn;
    else
        my_cut_off(conn);
out:
    my_uri_release(&u);
    return rc;
}

/* ---- session settings ---- */

/* Of every connection. The mode is strict, so that nothing is cut or rounded, and yet takes what
 * another server of this family may hold: zero dates, 31 February, a zero in AUTO_INCREMENT. Sorts
 * look at the whole of a key: by default two that agree in their first 1024 bytes of weights are
 * equal, and their changes would be judged by the wrong chunk's cut. A key has 3072 bytes. */
static const char common_settings[] =
    "SET NAMES utf8mb4;"
    "SET SESSION time_zone = '+00:00',"
    " sql_mode = 'STRICT_ALL_TABLES,STRICT_TRANS_TABLES,NO_AUTO_VALUE_ON_ZERO,"
    "ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION',"
    " autocommit = 1, completion_type = 0, sql_auto_is_null = 0, sql_safe_updates = 0,"
    " sql_big_selects = 1, sql_select_limit = DEFAULT, unique_checks = 1,"
    " group_concat_max_len = 1048576, max_sort_length = 16384,"
    " sort_buffer_size = 2097152, wait_timeout = " MY_WAIT_TIMEOUT ", net_read_timeout = 600,"
    " net_write_timeout = 600";

static const char maria_settings[] =
    "SET SESSION max_statement_time = 0, idle_transaction_timeout = 0,"
    " idle_readonly_transaction_timeout = 0, idle_write_transaction_timeout = 0";

/* Estimates of tables that were just loaded are asked for, not those of yesterday. */
static const char mysql_settings[] =
    "SET SESSION max_execution_time = 0, information_schema_stats_expiry = 0";

static const struct {
    const char *label;
    const char *transactions;
    int lock_seconds;
    bool foreign_keys;
} uses[] = {
    [DB_CONTROL] = {"control", "ISOLATION LEVEL READ COMMITTED, READ WRITE", 10, true},
    [DB_READ] = {"read", "ISOLATION LEVEL REPEATABLE READ, READ ONLY", 10, true},
    [DB_LOAD] = {"load", "ISOLATION LEVEL READ COMMITTED, READ WRITE", 20, false},
    [DB_APPLY] = {"apply", "ISOLATION LEVEL READ COMMITTED, READ WRITE", 5, false},
    [DB_SCHEMA] = {"schema", "ISOLATION LEVEL READ COMMITTED, READ WRITE", 5, true},
};

static int read_limits(struct my_db *db, struct err *e)
{
    MYSQL_RES *res = my_query(db, "SELECT @@max_allowed_packet", e);
    MYSQL_ROW row = res != NULL ? mysql_fetch_row(res) : NULL;

    if (row != NULL)
        db->max_packet = (size_t)my_int(row[0]);
    mysql_free_result(res);
    return res != NULL ? 0 : -1;
}

static int apply_settings(struct my_db *db, struct err *e)
{
    if (my_execf(db, e,
                 "%s;%s; SET SESSION TRANSACTION %s;"
                 "SET SESSION innodb_lock_wait_timeout = %d, lock_wait_timeout = %d,"
                 " foreign_key_checks = %d",
                 common_settings, db->maria ? maria_settings : mysql_settings,
                 uses[db->use].transactions, uses[db->use].lock_seconds, uses[db->use].lock_seconds,
                 uses[db->use].foreign_keys) != 0 ||
        read_limits(db, e) != 0)
        return err_wrap(e, "session settings on %s", db->where);
    return 0;
}

/* ---- opening ---- */

static int start(struct my_db *db, struct err *e)
{
    struct my_uri u;
    char program[80];
    int timeout_ms = db->timeout_ms < CONNECT_TIMEOUT_MS ? db->timeout_ms : CONNECT_TIMEOUT_MS;
    struct my_dial d = {
        .uri = db->uri, .program = program, .timeout_ms = timeout_ms, .heed_stop = true};

    int rc = my_uri_parse(db->uri, &u, e);
    if (rc == 0)
        where_of(&u, db->where, sizeof db->where);
    my_uri_release(&u);
    if (rc != 0)
        return -1;
    snprintf(program, sizeof program, "lockstep:%s:%s", db->migration, uses[db->use].label);
    if (my_dial(&d, &db->conn, e) != 0)
        return -1;
    db->maria = mariadb_connection(db->conn);
    db->version = (int)mysql_get_server_version(db->conn);
    return apply_settings(db, e);
}

int my_connect(const struct db_options *o, struct my_db **out, struct err *e)
{
    struct my_db *db = calloc(1, sizeof *db);

    *out = NULL;
    if (db == NULL)
        return err_set(e, ERR_FATAL, "out of memory");
    db->base.engine = &engine_mysql;
    db->uri = strdup(o->uri != NULL ? o->uri : "");
    snprintf(db->migration, sizeof db->migration, "%s", o->migration != NULL ? o->migration : "");
    db->use = o->use;
    db->back = o->back;
    if (o->fence != NULL)
        db->fence = *o->fence;
    db->timeout_ms = o->timeout_ms > 0 ? o->timeout_ms : MY_TIMEOUT_DEFAULT_MS;
    if (start(db, e) != 0) {
        my_close(&db->base);
        return -1;
    }
    *out = db;
    return 0;
}

int my_open(const struct db_options *o, struct db **out, struct err *e)
{
    struct my_db *db;

    *out = NULL;
    if (my_connect(o, &db, e) != 0)
        return -1;
    *out = &db->base;
    return 0;
}

void my_slot_release(struct my_slot *slot)
{
    if (slot->data != NULL && slot->release != NULL)
        slot->release(slot->data);
    slot->data = NULL;
}

static bool writes_origin(const struct my_db *db)
{
    return db->use == DB_LOAD || db->use == DB_APPLY;
}

void my_close(struct db *base)
{
    struct my_db *db = my_db_from(base);

    if (db == NULL)
        return;
    my_slot_release(&db->read);
    my_slot_release(&db->load);
    my_slot_release(&db->scan);
    my_slot_release(&db->apply);
    my_slot_release(&db->setter);
    if (db->permit)
        large_row_leave();
    if (db->has_origin && !db->broken) {
        if (db->in_txn)
            (void)my_execf(db, NULL, "ROLLBACK");
        if (!db->broken)
            (void)my_execf(db, NULL,
                           "DELETE FROM " MY_CONTROL ".origin WHERE migration = '%s' AND id = %lu",
                           db->migration, mysql_thread_id(db->conn));
    }
    if (db->broken)
        my_cut_off(db->conn);
    else if (db->conn != NULL)
        mysql_close(db->conn);
    if (db->uri != NULL) {
        explicit_bzero(db->uri, strlen(db->uri));
        free(db->uri);
    }
    free(db);
}

int my_renew(struct my_db *db, struct err *e)
{
    struct db_options o = {.uri = db->uri,
                           .migration = db->migration,
                           .use = db->use,
                           .timeout_ms = db->timeout_ms,
                           .back = db->back,
                           .fence = &db->fence};
    struct my_db *fresh;
    MYSQL *old = db->conn;

    if (!db->large || db->broken || db->in_txn)
        return 0;
    if (my_connect(&o, &fresh, e) != 0)
        return -1;
    /* Prepared statements lived in the old one. */
    my_slot_release(&db->apply);
    db->conn = fresh->conn;
    db->max_packet = fresh->max_packet;
    fresh->conn = old;
    fresh->has_origin = db->has_origin;
    db->has_origin = false;
    db->large = false;
    my_close(&fresh->base);
    memory_trim();
    return 0;
}

/* ---- transactions ---- */

/* A row of our own per connection: no two ever wait for each other. */
static int write_origin(struct my_db *db, struct err *e)
{
    int rc = my_execf(db, e,
                      "INSERT INTO " MY_CONTROL ".origin (migration, id, n) VALUES ('%s', %lu, 1)"
                      " ON DUPLICATE KEY UPDATE n = n + 1, at = CURRENT_TIMESTAMP",
                      db->migration, mysql_thread_id(db->conn));

    if (rc == 0)
        db->has_origin = true;
    return rc == 0 ? 0 : err_wrap(e, "marking our own transaction in " MY_CONTROL ".origin");
}

int my_begin(struct db *base, struct err *e)
{
    struct my_db *db = my_db_from(base);

    if (db->in_txn)
        return err_set(e, ERR_BUG, "begin inside of a transaction");
    if (my_renew(db, e) != 0)
        return -1;
    db->has_savepoint = false;
    if (my_execf(db, e, "START TRANSACTION") != 0)
        return -1;
    db->in_txn = true;
    if (!writes_origin(db) || write_origin(db, e) == 0)
        return 0;
    if (!db->broken)
        (void)my_rollback(base, NULL);
    return -1;
}

int my_limit_idle(struct db *base, int ms, struct err *e)
{
    struct my_db *db = my_db_from(base);

    db->idle_limited = true;
    return my_execf(db, e, "SET SESSION wait_timeout = %d", (ms + 999) / 1000);
}

/* What fails here is met again with the next statement. */
static void unlimit_idle(struct my_db *db)
{
    if (db->idle_limited && !db->broken)
        (void)my_execf(db, NULL, "SET SESSION wait_timeout = " MY_WAIT_TIMEOUT);
    db->idle_limited = false;
}

/* Errors of a COMMIT that are the server's word that nothing was committed. */
static bool told_rolled_back(unsigned code)
{
    return code == 1213 || code == 1205 || code == 1290 || code == 1836 || code == 3101;
}

/* A stop request waits for COMMIT_STOP_GRACE_MS: nearly every commit ends in that time, and an
 * unknown one costs a restart more. */
int my_commit(struct db *base, struct err *e)
{
    struct my_db *db = my_db_from(base);
    struct my_op op = {.step = my_op_query, .sql = "COMMIT", .len = strlen("COMMIT")};
    struct err own;

    if (e == NULL)
        e = &own;
    if (db->broken)
        return err_set(e, ERR_RETRY, "the connection was given up before");
    db->in_txn = false;
    db->has_savepoint = false;
    int rc = my_op_run(&op, db->conn, db->timeout_ms, COMMIT_STOP_GRACE_MS);
    if (rc < 0)
        return my_give_up(db, ERR_UNKNOWN, "asked to stop while the server commits", e);
    if (rc == 0)
        return my_give_up(db, ERR_UNKNOWN, "the server does not answer a COMMIT in time", e);
    if (op.rc == 0) {
        unlimit_idle(db);
        /* A failure to renew is met again, and reported, at the next begin. */
        (void)my_renew(db, NULL);
        return 0;
    }
    bool told = told_rolled_back(mysql_errno(db->conn));
    my_fail(db, NULL, e);
    if (told) {
        unlimit_idle(db);
        return err_wrap(e, "the transaction was rolled back at its commit");
    }
    db->broken = true;
    e->class = ERR_UNKNOWN;
    return err_wrap(e, "outcome of a commit unknown");
}

int my_rollback(struct db *base, struct err *e)
{
    struct my_db *db = my_db_from(base);

    db->has_savepoint = false;
    my_slot_release(&db->load);
    if (!db->in_txn)
        return 0;
    if (my_execf(db, e, "ROLLBACK") != 0)
        return -1;
    db->in_txn = false;
    unlimit_idle(db);
    (void)my_renew(db, NULL);
    return 0;
}

int my_savepoint(struct db *base, struct err *e)
{
    struct my_db *db = my_db_from(base);

    /* One of the same name replaces the earlier one. */
    if (my_execf(db, e, "SAVEPOINT lockstep") != 0)
        return -1;
    db->has_savepoint = true;
    return 0;
}

int my_rollback_to(struct db *base, struct err *e)
{
    return my_execf(my_db_from(base), e, "ROLLBACK TO SAVEPOINT lockstep");
}
