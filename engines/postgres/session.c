/* Connections: opened without blocking, with the settings under which values have one text form on
 * every server, and transactions on them.
 *
 * A commit is the one statement whose fate matters after its wait has failed: cancelled, timed out
 * or cut off it is ERR_UNKNOWN, and the caller reads the server before it goes on. */
#include "engines/postgres/pg.h"

#include "core/run.h"
#include "engines/postgres/bulk.h"
#include "engines/postgres/driver.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_TIMEOUT_MS 10000
#define COMMIT_STOP_GRACE_MS 5000
#define CLOSE_CANCEL_MS 1000
#define MAX_KEYWORDS 80

/* Of every connection. lc_monetary: money has no other form that both servers agree about. */
static const char common_settings[] = "SET client_encoding = 'UTF8';"
                                      "SET client_min_messages = error;"
                                      "SET standard_conforming_strings = on;"
                                      "SET timezone = 'UTC';"
                                      "SET datestyle = 'ISO, MDY';"
                                      "SET intervalstyle = 'postgres';"
                                      "SET extra_float_digits = 3;"
                                      "SET bytea_output = 'hex';"
                                      "SET xmloption = 'content';"
                                      "SET lc_monetary = 'C';"
                                      "SET statement_timeout = 0;"
                                      "SET tcp_keepalives_idle = 10;"
                                      "SET tcp_keepalives_interval = 5;"
                                      "SET tcp_keepalives_count = 4;"
                                      "SET idle_in_transaction_session_timeout = 0;"
                                      "SET search_path = pg_catalog;"
                                      "SET row_security = off;"
                                      "SET default_transaction_isolation = 'read committed';"
                                      "SET default_transaction_deferrable = off;"
                                      "SET synchronize_seqscans = off;";

/* By use. DB_CONTROL commits locally: its rows stand on servers whose standbys are not ours to wait
 * for (design.md §1.8). */
static const struct {
    const char *label;
    const char *settings;
} uses[] = {
    [DB_CONTROL] = {"control", "SET default_transaction_read_only = off; SET lock_timeout = '10s';"
                               "SET synchronous_commit = local;"},
    [DB_READ] = {"read", "SET default_transaction_isolation = 'repeatable read';"
                         "SET default_transaction_read_only = on; SET lock_timeout = '10s';"},
    [DB_LOAD] = {"load", "SET default_transaction_read_only = off; SET lock_timeout = '20s';"
                         "SET session_replication_role = replica;"},
    [DB_APPLY] = {"apply", "SET default_transaction_read_only = off; SET lock_timeout = '5s';"
                           "SET synchronous_commit = off;"
                           "SET session_replication_role = replica;"},
    [DB_SCHEMA] = {"schema", "SET default_transaction_read_only = off; SET lock_timeout = '5s';"
                             "SET check_function_bodies = off;"},
};

/* ---- connection parameters ---- */

struct keywords {
    const char *key[MAX_KEYWORDS];
    const char *value[MAX_KEYWORDS];
    int n;
};

static void keyword_set(struct keywords *k, const char *key, const char *value, bool override)
{
    for (int i = 0; i < k->n; i++) {
        if (strcmp(k->key[i], key) != 0)
            continue;
        if (override)
            k->value[i] = value;
        return;
    }
    invariant(k->n < MAX_KEYWORDS - 1);
    k->key[k->n] = key;
    k->value[k->n++] = value;
}

/* What the user wrote wins, save for what the driver's correctness rests on. */
static void keywords_build(struct keywords *k, const PQconninfoOption *options,
                           const char *application_name, bool replication)
{
    k->n = 0;
    for (const PQconninfoOption *o = options; o->keyword != NULL; o++)
        if (o->val != NULL)
            keyword_set(k, o->keyword, o->val, true);
    keyword_set(k, "application_name", application_name, true);
    keyword_set(k, "client_encoding", "UTF8", true);
    if (replication)
        keyword_set(k, "replication", "database", true);
    keyword_set(k, "keepalives", "1", false);
    keyword_set(k, "keepalives_idle", "10", false);
    keyword_set(k, "keepalives_interval", "5", false);
    keyword_set(k, "keepalives_count", "4", false);
    keyword_set(k, "tcp_user_timeout", "30000", false);
    k->key[k->n] = NULL;
    k->value[k->n] = NULL;
}

static int connect_timeout(const PQconninfoOption *options, const struct db_options *o)
{
    for (const PQconninfoOption *p = options; p->keyword != NULL; p++)
        if (strcmp(p->keyword, "connect_timeout") == 0 && p->val != NULL && atoi(p->val) > 0)
            return atoi(p->val) * 1000;
    if (o->timeout_ms > 0 && o->timeout_ms < CONNECT_TIMEOUT_MS)
        return o->timeout_ms;
    return CONNECT_TIMEOUT_MS;
}

/* ---- why a connection could not be had ---- */

static const struct {
    const char *needle; /* in libpq's or the server's text */
    enum err_class class;
    const char *remedy;
} connect_failures[] = {
    {"starting up", ERR_RETRY, "the server is starting: try again"},
    {"shutting down", ERR_RETRY, "the server is shutting down: try again when it is back"},
    {"recovery", ERR_RETRY, "the server is in recovery: try again"},
    /* A server that is going down while we shake hands is no matter of certificates or passwords.
     */
    {"SSL SYSCALL error", ERR_RETRY, "the connection broke while it was made: try again"},
    {"SSL connection has been closed", ERR_RETRY, "the server closed the connection: try again"},
    {"SSL negotiation packet", ERR_RETRY, "the connection broke while it was made: try again"},
    {"GSSAPI negotiation packet", ERR_RETRY, "the connection broke while it was made: try again"},
    {"server closed the connection", ERR_RETRY, "the server closed the connection: try again"},
    {"authentication due to timeout", ERR_RETRY, "the server is slow to answer: try again"},
    {"too many", ERR_RETRY, "raise max_connections, or the role's CONNECTION LIMIT"},
    {"remaining connection slots", ERR_RETRY, "raise max_connections"},
    {"max_wal_senders", ERR_RETRY, "raise max_wal_senders"},
    {"password authentication failed", ERR_FATAL,
     "correct the password in the URI, in PGPASSFILE or in the ${VARIABLE} that it names"},
    {"no password supplied", ERR_FATAL,
     "give a password in the URI, in PGPASSFILE or in a ${VARIABLE}"},
    {"authentication", ERR_FATAL, "let this role in by the server's pg_hba.conf"},
    {"no pg_hba.conf entry", ERR_FATAL,
     "add a line for this role, database and address to the server's pg_hba.conf"},
    {"pg_hba.conf rejects", ERR_FATAL, "let this role in by the server's pg_hba.conf"},
    {"does not exist", ERR_FATAL, "create the role or database, or correct the URI"},
    {"is not permitted to log in", ERR_FATAL, "ALTER ROLE … LOGIN"},
    {"must be superuser or replication role", ERR_REFUSED, "ALTER ROLE … REPLICATION"},
    {"permission denied", ERR_REFUSED, "GRANT CONNECT ON DATABASE … TO this role"},
    {"could not translate host name", ERR_RETRY, "correct the host name in the URI"},
    {"SSL", ERR_FATAL, "correct sslmode and the certificates in the URI"},
    {"GSS", ERR_FATAL, "correct gssencmode in the URI"},
};

static const char *or_default(const char *s, const char *otherwise)
{
    return s != NULL && s[0] != '\0' ? s : otherwise;
}

static int connect_failed(PGconn *conn, const char *why, struct err *e)
{
    char text[700];
    enum err_class class = ERR_RETRY;
    const char *remedy = "is the server running there, and does a firewall let it through?";

    snprintf(text, sizeof text, "%s", why != NULL ? why : PQerrorMessage(conn));
    for (char *p = text; *p != '\0'; p++)
        if (*p == '\n' || *p == '\t')
            *p = p[1] == '\0' ? '\0' : ' ';
    size_t n = sizeof connect_failures / sizeof connect_failures[0];
    for (size_t i = 0; why == NULL && i < n; i++) {
        if (strstr(text, connect_failures[i].needle) == NULL)
            continue;
        class = connect_failures[i].class;
        remedy = connect_failures[i].remedy;
        break;
    }
    err_set(e, class,
            "cannot connect to PostgreSQL at host \"%s\", port %s, database \"%s\" as \"%s\": %s",
            or_default(PQhost(conn), "(local socket)"), or_default(PQport(conn), "5432"),
            or_default(PQdb(conn), "(default)"), or_default(PQuser(conn), "(default)"), text);
    return err_hint(e, "%s", remedy);
}

/* ---- opening ---- */

static int connect_poll(struct pg_db *db, int timeout_ms, struct err *e)
{
    int64_t deadline = mono_ms() + timeout_ms;
    PostgresPollingStatusType state = PGRES_POLLING_WRITING;
    char why[80];

    if (PQstatus(db->conn) == CONNECTION_BAD)
        return connect_failed(db->conn, NULL, e);
    for (;;) {
        short events = state == PGRES_POLLING_READING ? POLLIN : POLLOUT;
        int rc = pg_poll(db, events, deadline);

        if (rc < 0)
            return err_set(e, ERR_STOPPED, "asked to stop while connecting");
        if (rc == 0) {
            snprintf(why, sizeof why, "no answer within %d ms", timeout_ms);
            return connect_failed(db->conn, why, e);
        }
        state = PQconnectPoll(db->conn);
        if (state == PGRES_POLLING_OK)
            return 0;
        if (state == PGRES_POLLING_FAILED)
            return connect_failed(db->conn, NULL, e);
    }
}

/* Notices would go to stderr as they come; what matters comes as an error. */
static void ignore_notice(void *arg, const PGresult *res)
{
}

static int apply_settings(struct pg_db *db, struct err *e)
{
    struct err first = {0};
    const char *idle = db->version >= 140000 ? "SET idle_session_timeout = 0;" : "";
    /* Compiling a query of the catalogs takes longer than running it. */
    const char *jit = db->version >= 110000 ? "SET jit = off;" : "";
    /* Of control's statements no value makes another plan better. */
    const char *plan = db->version >= 120000 && db->use == DB_CONTROL
                           ? "SET plan_cache_mode = force_generic_plan;"
                           : "";
    int rc = pg_execf(db, &first, "%s%s%s%s%s", common_settings, idle, jit, plan,
                      uses[db->use].settings);

    if (rc != 0 && e != NULL)
        *e = first;
    return rc == 0 ? 0
                   : err_wrap(e, "session settings on %s:%s", PQhost(db->conn), PQport(db->conn));
}

static int start(struct pg_db *db, const struct db_options *o, const char *label, bool replication,
                 struct err *e)
{
    struct keywords k;
    char name[PG_NAME_MAX * 2];
    PQconninfoOption *options = PQconninfoParse(db->uri, NULL);

    /* libpq's message about a broken URI quotes the URI, password and all: so ours does not. */
    if (options == NULL) {
        err_set(e, ERR_CONFIG, "the connection URI cannot be parsed");
        return err_hint(e, "write postgresql://user@host:port/database; characters like @ : / ? in "
                           "a password are written %%40 %%3A %%2F %%3F");
    }
    snprintf(name, sizeof name, "lockstep:%s:%s", db->migration, label);
    keywords_build(&k, options, name, replication);
    int timeout_ms = connect_timeout(options, o);
    db->conn = PQconnectStartParams(k.key, k.value, 0);
    PQconninfoFree(options);
    if (db->conn == NULL)
        return err_set(e, ERR_FATAL, "out of memory");
    if (connect_poll(db, timeout_ms, e) != 0)
        return -1;
    PQsetNoticeReceiver(db->conn, ignore_notice, NULL);
    if (PQsetnonblocking(db->conn, 1) != 0)
        return pg_lost(db, "connecting", e);
    db->version = PQserverVersion(db->conn);
    return apply_settings(db, e);
}

int pg_connect(const struct db_options *o, const char *label, bool replication, struct pg_db **out,
               struct err *e)
{
    struct pg_db *db = calloc(1, sizeof *db);

    *out = NULL;
    if (db == NULL)
        return err_set(e, ERR_FATAL, "out of memory");
    db->base.engine = &engine_postgres;
    db->uri = strdup(o->uri != NULL ? o->uri : "");
    snprintf(db->migration, sizeof db->migration, "%s", o->migration != NULL ? o->migration : "");
    db->back = o->back;
    db->use = o->use;
    db->timeout_ms = o->timeout_ms != 0 ? o->timeout_ms : PG_TIMEOUT_DEFAULT_MS;
    db->replication = replication;
    if (start(db, o, label != NULL ? label : uses[o->use].label, replication, e) != 0) {
        pg_close(&db->base);
        return -1;
    }
    *out = db;
    return 0;
}

int pg_open(const struct db_options *o, struct db **out, struct err *e)
{
    struct pg_db *db;

    *out = NULL;
    if (pg_connect(o, NULL, false, &db, e) != 0)
        return -1;
    *out = &db->base;
    return 0;
}

void pg_slot_release(struct pg_slot *slot)
{
    if (slot->data != NULL && slot->release != NULL)
        slot->release(slot->data);
    slot->data = NULL;
}

void pg_close(struct db *base)
{
    struct pg_db *db = pg_db_from(base);

    if (db == NULL)
        return;
    pg_slot_release(&db->read);
    pg_slot_release(&db->load);
    pg_slot_release(&db->scan);
    pg_slot_release(&db->apply);
    pg_slot_release(&db->statements);
    /* A backend that computes would not notice for long that we are gone, and hold its locks. */
    if (db->conn != NULL && !db->broken && PQtransactionStatus(db->conn) == PQTRANS_ACTIVE)
        (void)pg_cancel(db, CLOSE_CANCEL_MS);
    PQfinish(db->conn);
    if (db->uri != NULL) {
        explicit_bzero(db->uri, strlen(db->uri));
        free(db->uri);
    }
    free(db);
}

/* ---- transactions ---- */

bool pg_in_transaction(const struct pg_db *db)
{
    PGTransactionStatusType status = PQtransactionStatus(db->conn);

    return status == PQTRANS_INTRANS || status == PQTRANS_INERROR;
}

/* The first write of what we load and apply: the stream of this server knows by it that the
 * transaction is ours. In one message with BEGIN, so that it costs no round trip. A row for each
 * connection, so that none waits for another. */
#define ORIGIN_BEGIN                                                                               \
    "BEGIN; INSERT INTO lockstep.origin AS o VALUES ('%s', pg_backend_pid(), 1)"                   \
    " ON CONFLICT (migration, connection) DO UPDATE SET n = o.n + 1"

int pg_limit_idle(struct db *base, int ms, struct err *e)
{
    return pg_execf(pg_db_from(base), e, "SET LOCAL idle_in_transaction_session_timeout = %d", ms);
}

int pg_begin(struct db *base, struct err *e)
{
    struct pg_db *db = pg_db_from(base);

    if (pg_in_transaction(db))
        return err_set(e, ERR_BUG, "begin inside of a transaction");
    if (pg_renew(db, e) != 0)
        return -1;
    db->has_savepoint = false;
    db->deferred = false;
    if (db->use != DB_LOAD && db->use != DB_APPLY)
        return pg_exec(db, "BEGIN", e);
    if (pg_execf(db, e, ORIGIN_BEGIN, db->migration) == 0)
        return 0;
    if (!db->broken && pg_in_transaction(db))
        (void)pg_exec(db, "ROLLBACK", NULL);
    return err_wrap(e, "marking a transaction as ours");
}

/* Whatever cut the wait short, the server may have committed. */
static int commit_unknown(struct pg_db *db, struct err *e)
{
    db->broken = true;
    e->class = ERR_UNKNOWN;
    return err_wrap(e, "outcome of a commit unknown");
}

/* Like pg_collect, but a stop request waits for COMMIT_STOP_GRACE_MS: nearly every commit ends in
 * that time, and an unknown one costs a restart more. */
static int commit_wait(struct pg_db *db, struct err *e)
{
    int64_t deadline = pg_deadline(db);
    int64_t stop_at = INT64_MAX;

    while (PQisBusy(db->conn)) {
        struct pollfd fd = {.fd = PQsocket(db->conn), .events = POLLIN};
        int64_t now = mono_ms();

        if (stop_requested() && stop_at == INT64_MAX)
            stop_at = now + COMMIT_STOP_GRACE_MS;
        /* First what has come: we may have been the ones who stood still. */
        if (poll(&fd, 1, now < deadline ? 50 : 0) > 0) {
            if (!PQconsumeInput(db->conn))
                return pg_lost(db, "committing", e);
            continue;
        }
        if (now >= stop_at)
            return pg_give_up(db, ERR_UNKNOWN, "asked to stop while the server commits", e);
        if (now >= deadline)
            return pg_give_up(db, ERR_UNKNOWN, "the server does not answer a COMMIT in time", e);
    }
    return 0;
}

int pg_commit(struct db *base, struct err *e)
{
    struct pg_db *db = pg_db_from(base);
    struct err own;
    bool failed = PQtransactionStatus(db->conn) == PQTRANS_INERROR;

    if (e == NULL)
        e = &own;

    if (pg_send(db, "COMMIT", NULL, e) != 0 || commit_wait(db, e) != 0)
        return commit_unknown(db, e);
    PGresult *res = pg_collect(db, e);
    if (res == NULL) {
        /* An error with a SQLSTATE is the server's word that nothing was committed (a deferred
         * constraint, a serialization failure); a session that it ended is not. */
        bool told = e->sqlstate[0] != '\0' && !db->broken;
        return told ? -1 : commit_unknown(db, e);
    }
    bool committed = strcmp(PQcmdStatus(res), "COMMIT") == 0;
    PQclear(res);
    /* A failure to renew is met again, and reported, at the next begin. */
    (void)pg_renew(db, NULL);
    if (committed)
        return 0;
    return err_set(e, failed ? ERR_BUG : ERR_CONFLICT,
                   "commit of a failed transaction: it was rolled back");
}

int pg_rollback(struct db *base, struct err *e)
{
    struct pg_db *db = pg_db_from(base);

    db->has_savepoint = false;
    pg_load_abort(db);
    if (pg_in_transaction(db) && pg_exec(db, "ROLLBACK", e) != 0)
        return -1;
    (void)pg_renew(db, NULL);
    return 0;
}

int pg_savepoint(struct db *base, struct err *e)
{
    struct pg_db *db = pg_db_from(base);
    const char *sql =
        db->has_savepoint ? "RELEASE SAVEPOINT lockstep; SAVEPOINT lockstep" : "SAVEPOINT lockstep";

    if (pg_exec(db, sql, e) != 0)
        return -1;
    db->has_savepoint = true;
    return 0;
}

int pg_rollback_to(struct db *base, struct err *e)
{
    /* The savepoint's SET CONSTRAINTS come back with it. */
    pg_db_from(base)->deferred = false;
    return pg_exec(pg_db_from(base), "ROLLBACK TO SAVEPOINT lockstep", e);
}

void pg_object_name(const struct pg_db *db, char out[PG_NAME_MAX])
{
    snprintf(out, PG_NAME_MAX, PG_OBJECT_PREFIX "%s%s", db->migration,
             db->back ? PG_OBJECT_BACK : "");
}
