/* The facts that must survive, and what a server says about itself: identity, clock, positions,
 * running transactions, kept binlogs.
 *
 * Facts are rows of lockstep.fact. Outside of a transaction each put is one of its own, and where
 * the connection breaks under it the outcome is unknown: the caller reads the fact again. */
#include "engines/mysql/my.h"

#include "core/run.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One named lock for all changes of the control database. */
#define CONTROL_LOCK "lockstep.control"
#define CONTROL_LOCK_S 10
#define DUPLICATE 1062

/* ---- small queries ---- */

/* The first column of the first row into out ("" if NULL or no row). 1: a row, 0: none, -1. */
static int value_of(struct my_db *db, const char *sql, char *out, size_t size, struct err *e)
{
    MYSQL_RES *res = my_query(db, sql, e);

    out[0] = '\0';
    if (res == NULL)
        return -1;
    MYSQL_ROW row = mysql_fetch_row(res);
    if (row != NULL)
        snprintf(out, size, "%s", row[0] != NULL ? row[0] : "");
    mysql_free_result(res);
    return row != NULL;
}

static int number_of(struct my_db *db, const char *sql, int64_t *out, struct err *e)
{
    char text[64];
    int rc = value_of(db, sql, text, sizeof text, e);

    *out = my_int(text);
    return rc < 0 ? -1 : 0;
}

static const char *show_log_status(const struct my_db *db)
{
    return db->maria || db->version < 80200 ? "SHOW MASTER STATUS" : "SHOW BINARY LOG STATUS";
}

/* ---- what a server says about itself ---- */

int my_clock_ms(struct db *db, int64_t *out, struct err *e)
{
    return number_of(my_db_from(db), "SELECT CAST(UNIX_TIMESTAMP(SYSDATE(3)) * 1000 AS SIGNED)",
                     out, e);
}

static bool says_yes(MYSQL_RES *res, MYSQL_ROW row, const char *behind)
{
    for (unsigned i = 0; i < mysql_num_fields(res); i++) {
        const char *name = mysql_fetch_field_direct(res, i)->name;
        size_t len = strlen(name);
        size_t tail = strlen(behind);

        if (len > tail && strcmp(name + len - tail, behind) == 0 && row[i] != NULL &&
            strcmp(row[i], "Yes") == 0)
            return true;
    }
    return false;
}

int my_replication_state(struct my_db *db, struct my_replication *out, struct err *e)
{
    MYSQL_RES *res =
        my_query(db, db->maria ? "SHOW ALL REPLICAS STATUS" : "SHOW REPLICA STATUS", e);

    *out = (struct my_replication){0};
    if (res == NULL)
        return err_wrap(e, "asking whether it is a replica");
    for (MYSQL_ROW row; (row = mysql_fetch_row(res)) != NULL;) {
        out->configured = true;
        /* Slave_SQL_Running, Replica_SQL_Running */
        out->running = out->running || says_yes(res, row, "_SQL_Running");
    }
    mysql_free_result(res);
    return 0;
}

/* MariaDB has a number of its own from 10.11.5 on; before that, machine, port and data directory
 * tell servers apart. */
static int system_id(struct my_db *db, char *out, size_t size, struct err *e)
{
    static const char older[] =
        "SELECT left(sha1(concat_ws(':', @@hostname, @@port, @@datadir)), 32)";
    char known[64];
    int rc;

    if (!db->maria)
        return value_of(db, "SELECT @@server_uuid", out, size, e);
    rc = value_of(db, "SHOW GLOBAL VARIABLES LIKE 'server_uid'", known, sizeof known, e);
    if (rc < 0)
        return -1;
    return value_of(db, rc == 1 ? "SELECT @@global.server_uid" : older, out, size, e);
}

int my_identify(struct db *base, struct server_identity *out, struct err *e)
{
    struct my_db *db = my_db_from(base);
    struct my_replication replication;
    struct err why = {0};

    memset(out, 0, sizeof *out);
    if (system_id(db, out->system, sizeof out->system, e) < 0)
        return err_wrap(e, "reading which server this is");
    /* One log for all databases of a server. */
    snprintf(out->database, sizeof out->database, "server");
    out->version = db->version;
    /* Only a source must have the right to be asked, and `check` lets none begin without it. */
    if (my_replication_state(db, &replication, &why) == 0) {
        out->standby = replication.running;
    } else if (why.class != ERR_REFUSED) {
        if (e != NULL)
            *e = why;
        return -1;
    }
    return 0;
}

/* MariaDB's FLUSH ENGINE LOGS does nothing (0) or does not reach the disk (2) under the very
 * settings that need it; DDL always waits for the log, and with it for every commit before. */
static int sync_by_ddl(struct my_db *db, struct err *e)
{
    struct err own = {0};

    if (my_execf(db, &own, "TRUNCATE TABLE " MY_CONTROL ".sync") == 0)
        return 0;
    if (strcmp(own.sqlstate, "42S02") == 0)
        return my_execf(db, e,
                        "CREATE TABLE IF NOT EXISTS " MY_CONTROL ".sync (a INT) "
                        "ENGINE = InnoDB");
    if (e != NULL)
        *e = own;
    return -1;
}

/* Commits of a server with innodb_flush_log_at_trx_commit = 1 are durable by themselves. */
int my_sync(struct db *base, struct err *e)
{
    struct my_db *db = my_db_from(base);
    int64_t mode;

    if (db->in_txn)
        return err_set(e, ERR_BUG, "sync inside of a transaction");
    if (number_of(db, "SELECT @@global.innodb_flush_log_at_trx_commit", &mode, e) != 0)
        return -1;
    if (mode == 1)
        return 0;
    if ((db->maria ? sync_by_ddl(db, e) : my_execf(db, e, "FLUSH LOCAL ENGINE LOGS")) != 0)
        return err_wrap(e, "making this server's commits durable");
    return 0;
}

int my_current_position(struct db *base, struct position *out, struct err *e)
{
    struct my_db *db = my_db_from(base);
    MYSQL_RES *res = my_query(db, show_log_status(db), e);
    uint64_t number = 0;

    if (res == NULL)
        return err_wrap(e, "reading the server's position");
    MYSQL_ROW row = mysql_fetch_row(res);
    bool known = row != NULL && my_binlog_number(row[0], &number) == 0;
    if (known)
        *out = (struct position){.major = number, .minor = (uint64_t)my_int(row[1])};
    mysql_free_result(res);
    if (known)
        return 0;
    err_set(e, ERR_FATAL, "%s writes no binlog", db->where);
    return err_hint(e, "start the server with log_bin");
}

void my_position_text(struct position p, char *out, size_t size)
{
    snprintf(out, size, "%" PRIu64 ":%" PRIu64, p.major, p.minor);
}

/* A file ends where it ends: a restart, or FLUSH BINARY LOGS, begins the next one early. */
int my_position_distance(struct db *base, struct position from, struct position to, uint64_t *out,
                         struct err *e)
{
    struct my_db *db = my_db_from(base);
    MYSQL_RES *res;

    *out = 0;
    if (position_cmp(to, from) <= 0)
        return 0;
    *out = to.major == from.major ? to.minor - from.minor : to.minor;
    if (to.major == from.major)
        return 0;
    res = my_query(db, "SHOW BINARY LOGS", e);
    if (res == NULL)
        return err_wrap(e, "listing the binlog files of %s", db->where);
    for (MYSQL_ROW row; (row = mysql_fetch_row(res)) != NULL;) {
        uint64_t size = (uint64_t)my_int(row[1]);
        uint64_t number;

        if (my_binlog_number(row[0], &number) != 0 || number < from.major || number >= to.major)
            continue;
        if (number == from.major)
            size -= from.minor < size ? from.minor : size;
        *out += size;
    }
    mysql_free_result(res);
    return 0;
}

/* The server keeps nothing for us: it purges by age or size, whatever we have read. What is told is
 * all that it has, so that a user sees how long a pause it bears. */
int my_retention(struct db *base, struct arena *a, struct retention *out, struct err *e)
{
    struct my_db *db = my_db_from(base);
    MYSQL_RES *res = my_query(db, "SHOW BINARY LOGS", e);

    memset(out, 0, sizeof *out);
    if (res == NULL)
        return err_wrap(e, "listing the binlog files of %s", db->where);
    for (MYSQL_ROW row; (row = mysql_fetch_row(res)) != NULL;)
        out->retained_bytes += (uint64_t)my_int(row[1]);
    mysql_free_result(res);
    out->state = "binlogs on disk";
    return 0;
}

/* ---- settle ---- */

/* Those that have written, and branches that nobody holds. */
#define WRITES                                                                                     \
    "trx_mysql_thread_id <> CONNECTION_ID() AND (trx_rows_modified > 0 OR trx_mysql_thread_id = "  \
    "0)"
#define WRITERS " FROM information_schema.innodb_trx WHERE " WRITES

/* 1: *ids are those that write now, quoted, for the caller to free, NULL: none; 0: what was shown
 * is an earlier copy (fence_wait.c); -1. */
static int list_writers(struct my_db *db, char **ids, struct err *e)
{
    MYSQL_RES *res[3];
    MYSQL_ROW row;
    char sql[600];
    bool fresh;

    snprintf(sql, sizeof sql,
             "START TRANSACTION WITH CONSISTENT SNAPSHOT;"
             "SELECT group_concat(if(" WRITES ", quote(trx_id), NULL)),"
             " max(" MY_OUR_LOOK ") FROM information_schema.innodb_trx;"
             "ROLLBACK",
             ++db->looks);
    if (my_query_each(db, sql, 1U << 1, res, 3, e) != 0)
        return -1;
    row = mysql_fetch_row(res[1]);
    fresh = row != NULL && row[1] != NULL && my_int(row[1]) != 0;
    *ids = fresh && row[0] != NULL ? strdup(row[0]) : NULL;
    invariant(!fresh || row[0] == NULL || *ids != NULL);
    for (int i = 0; i < 3; i++)
        mysql_free_result(res[i]);
    return fresh;
}

static int settle_blockers(struct my_db *db, const char *still, int timeout_ms, struct err *e)
{
    char who[700];

    if (value_of(db, still, who, sizeof who, e) < 0)
        return -1;
    err_set(e, ERR_RETRY, "transactions that began before still run after %d ms: %s", timeout_ms,
            who[0] != '\0' ? who : "unknown");
    return err_hint(e, "end them (commit, or KILL the thread; XA RECOVER lists prepared branches), "
                       "or wait; a thread in semi-sync waits for an absent replica");
}

int my_settle(struct db *base, int timeout_ms, struct err *e)
{
    struct my_db *db = my_db_from(base);
    int64_t deadline = mono_ms() + timeout_ms;
    char *ids = NULL;
    struct buf sql;
    char text[700];
    int listed;
    int rc = -1;

    buf_init(&sql, BUF_MAX_TEXT);
    if (db->in_txn) {
        err_set(e, ERR_BUG, "settle inside of a transaction");
        goto out;
    }
    for (int looks = 1; (listed = list_writers(db, &ids, e)) == 0; looks++) {
        if (stop_check(e) != 0)
            goto out;
        if (mono_ms() >= deadline && looks > 1) { /* the first may only be behind our own */
            my_list_is_stale(db, e);
            goto out;
        }
        nap_ms(MY_LOOKS_APART_MS);
    }
    if (listed < 0)
        goto out;
    buf_addf(&sql,
             "SELECT group_concat('transaction ', trx_id, ' of thread ', trx_mysql_thread_id,"
             " ' since ', trx_started SEPARATOR ', ')" WRITERS " AND trx_id IN (%s)",
             ids != NULL ? ids : "''");
    if (buf_check(&sql, "the list of running transactions", e) != 0)
        goto out;
    while (ids != NULL) {
        if (value_of(db, sql.data, text, sizeof text, e) < 0)
            goto out;
        if (text[0] == '\0')
            break;
        if (stop_check(e) != 0)
            goto out;
        if (mono_ms() >= deadline) {
            settle_blockers(db, sql.data, timeout_ms, e);
            goto out;
        }
        nap_ms(MY_LOOKS_APART_MS);
    }
    rc = 0;
out:
    free(ids);
    buf_release(&sql);
    return rc;
}

/* ---- the control database ---- */

struct control {
    bool database;
    bool facts;
    bool origin;
    int64_t strangers; /* other tables */
};

static int control_look(struct my_db *db, struct control *out, struct err *e)
{
    MYSQL_RES *res = my_query(
        db,
        "SELECT schema_name, '' FROM information_schema.schemata WHERE schema_name = '" MY_CONTROL
        "' UNION ALL SELECT table_schema, table_name FROM information_schema.tables"
        " WHERE table_schema = '" MY_CONTROL "'",
        e);

    memset(out, 0, sizeof *out);
    if (res == NULL)
        return -1;
    for (MYSQL_ROW row; (row = mysql_fetch_row(res)) != NULL;) {
        if (row[1][0] == '\0')
            out->database = true;
        else if (strcmp(row[1], "fact") == 0)
            out->facts = true;
        else if (strcmp(row[1], "origin") == 0)
            out->origin = true;
        else
            out->strangers++;
    }
    mysql_free_result(res);
    return 0;
}

static int install(struct my_db *db, struct err *e)
{
    struct control c;
    /* Keys are told apart by their bytes, trailing blanks too. */
    const char *collation = db->maria ? "utf8mb4_nopad_bin" : "utf8mb4_0900_bin";

    if (control_look(db, &c, e) != 0)
        return -1;
    if (!c.facts && c.strangers > 0) {
        err_set(e, ERR_REFUSED, "a database \"" MY_CONTROL "\" that is not lockstep's exists on %s",
                db->where);
        return err_hint(e, "rename or drop that database: the name is reserved for control tables");
    }
    /* IF NOT EXISTS asks for the right to create, so we look first. */
    if (!c.database && my_execf(db, e, "CREATE DATABASE " MY_CONTROL) != 0)
        return -1;
    if (!c.origin &&
        my_execf(db, e,
                 "CREATE TABLE " MY_CONTROL ".origin ("
                 " migration VARCHAR(32) NOT NULL, id BIGINT UNSIGNED NOT NULL,"
                 " n BIGINT UNSIGNED NOT NULL, at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,"
                 " PRIMARY KEY (migration, id)) ENGINE = InnoDB"
                 " DEFAULT CHARACTER SET utf8mb4") != 0)
        return -1;
    if (c.facts)
        return 0;
    return my_execf(db, e,
                    "CREATE TABLE " MY_CONTROL ".fact ("
                    " migration VARCHAR(32) NOT NULL, kind VARCHAR(64) NOT NULL,"
                    " `key` VARCHAR(600) NOT NULL, version BIGINT NOT NULL, body LONGTEXT NOT NULL,"
                    " PRIMARY KEY (migration, kind, `key`)) ENGINE = InnoDB ROW_FORMAT = DYNAMIC"
                    " DEFAULT CHARACTER SET utf8mb4 COLLATE %s",
                    collation);
}

/* DDL commits by itself here, so turns are taken by a named lock. */
static int in_turn(struct db *base, int (*body)(struct my_db *, struct err *), struct err *e)
{
    struct my_db *db = my_db_from(base);
    int64_t held;
    char sql[80];

    if (db->in_txn)
        return err_set(e, ERR_BUG, "DDL inside of a transaction");
    snprintf(sql, sizeof sql, "SELECT GET_LOCK('" CONTROL_LOCK "', %d)", CONTROL_LOCK_S);
    if (number_of(db, sql, &held, e) != 0)
        return -1;
    if (held != 1)
        return err_set(e, ERR_RETRY, "another process changes the control database for %d s",
                       CONTROL_LOCK_S);
    int rc = body(db, e);
    if (!db->broken)
        (void)my_execf(db, NULL, "DO RELEASE_LOCK('" CONTROL_LOCK "')");
    return rc;
}

int my_control_install(struct db *base, enum db_side side, struct err *e)
{
    struct control c;

    if (control_look(my_db_from(base), &c, e) == 0 && c.facts && c.origin)
        return 0;
    return in_turn(base, install, e) == 0 ? 0 : err_wrap(e, "creating the control database");
}

/* Is anything of another migration left? Tables of the fence are empty when its owner has gone. */
static int control_used(struct my_db *db, bool *used, struct err *e)
{
    MYSQL_RES *res = my_query(db,
                              "SELECT table_name FROM information_schema.tables WHERE"
                              " table_schema = '" MY_CONTROL "' AND table_name <> 'origin'",
                              e);
    int rc = 0;

    *used = false;
    if (res == NULL)
        return -1;
    for (MYSQL_ROW row; rc == 0 && !*used && (row = mysql_fetch_row(res)) != NULL;) {
        struct buf sql;
        int64_t some;

        buf_init(&sql, BUF_MAX_TEXT);
        buf_adds(&sql, "SELECT EXISTS (SELECT 1 FROM ");
        my_ident2(&sql, MY_CONTROL, row[0]);
        buf_adds(&sql, ")");
        rc = number_of(db, sql.data, &some, e);
        buf_release(&sql);
        *used = some != 0;
    }
    mysql_free_result(res);
    return rc;
}

static int remove_facts(struct my_db *db, struct err *e)
{
    struct control c;
    bool used;

    if (control_look(db, &c, e) != 0)
        return -1;
    if (!c.facts)
        return 0;
    if (my_execf(db, e, "DELETE FROM " MY_CONTROL ".fact WHERE migration = '%s'", db->migration) !=
            0 ||
        control_used(db, &used, e) != 0)
        return -1;
    return used ? 0 : my_execf(db, e, "DROP DATABASE " MY_CONTROL);
}

int my_control_remove(struct db *base, enum db_side side, struct err *e)
{
    return in_turn(base, remove_facts, e) == 0 ? 0 : err_wrap(e, "removing the control database");
}

int my_control_exists(struct db *base, bool *out, struct err *e)
{
    struct control c;
    int rc = control_look(my_db_from(base), &c, e);

    *out = c.facts;
    return rc;
}

/* ---- facts ---- */

static json_t *body_parse(const char *text, const char *kind, const char *key, struct err *e)
{
    json_error_t why;
    json_t *body = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);

    if (body == NULL)
        err_set(e, ERR_FATAL, "fact %s/%s is not JSON: %s", kind, key, why.text);
    return body;
}

/* A write outside of a transaction whose connection broke may have been committed. */
static int write_failed(struct my_db *db, struct err *e)
{
    if (!db->in_txn && db->broken && e != NULL && e->class == ERR_RETRY) {
        e->class = ERR_UNKNOWN;
        err_wrap(e, "outcome of a write unknown");
    }
    return -1;
}

static void add_text(struct buf *b, const char *before, const char *text)
{
    buf_adds(b, before);
    my_literal(b, text, strlen(text));
}

static void add_which(struct buf *b, const struct my_db *db, const char *kind)
{
    add_text(b, " WHERE migration = ", db->migration);
    add_text(b, " AND kind = ", kind);
}

int my_fact_get(struct db *base, const char *kind, const char *key, bool lock, struct fact *out,
                struct err *e)
{
    struct my_db *db = my_db_from(base);
    struct buf sql;

    memset(out, 0, sizeof *out);
    buf_init(&sql, BUF_MAX_TEXT);
    buf_adds(&sql, "SELECT version, body FROM " MY_CONTROL ".fact");
    add_which(&sql, db, kind);
    add_text(&sql, " AND `key` = ", key);
    buf_adds(&sql, lock ? " FOR UPDATE" : "");
    MYSQL_RES *res = my_query(db, sql.data, e);
    buf_release(&sql);
    if (res == NULL)
        return err_wrap(e, "reading fact %s/%s", kind, key);
    MYSQL_ROW row = mysql_fetch_row(res);
    int rc = row != NULL;
    if (rc == 1) {
        out->version = my_int(row[0]);
        out->body = body_parse(row[1], kind, key, e);
        if (out->body == NULL)
            rc = -1;
    }
    mysql_free_result(res);
    return rc;
}

int my_fact_scan(struct db *base, const char *kind, const char *prefix, struct fact **out,
                 size_t *n, struct err *e)
{
    struct my_db *db = my_db_from(base);
    const char *begin = prefix != NULL ? prefix : "";
    struct buf sql;
    int rc = -1;

    *out = NULL;
    *n = 0;
    buf_init(&sql, BUF_MAX_TEXT);
    buf_adds(&sql, "SELECT `key`, version, body FROM " MY_CONTROL ".fact");
    add_which(&sql, db, kind);
    /* The column's collation is that of bytes: the comparison lets its index find the prefix. */
    add_text(&sql, " AND `key` >= ", begin);
    add_text(&sql, " AND left(`key`, char_length(", begin);
    add_text(&sql, ")) = ", begin);
    buf_adds(&sql, " ORDER BY `key`");
    MYSQL_RES *res = my_query(db, sql.data, e);
    buf_release(&sql);
    if (res == NULL)
        return err_wrap(e, "reading facts %s/%s*", kind, begin);
    size_t rows = (size_t)mysql_num_rows(res);
    struct fact *facts = calloc(rows > 0 ? rows : 1, sizeof *facts);
    if (facts == NULL) {
        err_set(e, ERR_FATAL, "out of memory");
        goto out;
    }
    for (size_t i = 0; i < rows; i++) {
        MYSQL_ROW row = mysql_fetch_row(res);

        facts[i].key = strdup(row[0]);
        facts[i].version = my_int(row[1]);
        facts[i].body = body_parse(row[2], kind, facts[i].key, e);
        if (facts[i].body == NULL)
            goto out;
    }
    *out = facts;
    *n = rows;
    facts = NULL;
    rc = 0;
out:
    facts_release(facts, rows);
    mysql_free_result(res);
    return rc;
}

static void put_statement(struct buf *sql, const struct my_db *db, const char *kind,
                          const char *key, int64_t expect)
{
    if (expect == FACT_ABSENT || expect == FACT_ANY) {
        add_text(sql, "INSERT INTO " MY_CONTROL ".fact VALUES (", db->migration);
        add_text(sql, ", ", kind);
        add_text(sql, ", ", key);
        buf_adds(sql, ", 1, ");
    } else {
        buf_adds(sql, "UPDATE " MY_CONTROL ".fact SET version = version + 1, body = ");
    }
}

int my_fact_put(struct db *base, const char *kind, const char *key, int64_t expect,
                const json_t *body, struct err *e)
{
    struct my_db *db = my_db_from(base);
    char *text = json_dumps(body, JSON_COMPACT | JSON_ENCODE_ANY);
    struct buf sql;
    uint64_t affected = 0;

    if (text == NULL)
        return err_set(e, ERR_BUG, "fact %s/%s cannot be written as JSON", kind, key);
    buf_init(&sql, BUF_MAX_TEXT);
    put_statement(&sql, db, kind, key, expect);
    add_text(&sql, "", text);
    free(text);
    if (expect == FACT_ABSENT) {
        buf_adds(&sql, ")");
    } else if (expect == FACT_ANY) {
        buf_adds(&sql, ") ON DUPLICATE KEY UPDATE version = version + 1, body = VALUES(body)");
    } else {
        add_which(&sql, db, kind);
        add_text(&sql, " AND `key` = ", key);
        buf_addf(&sql, " AND version = %" PRId64, expect);
    }
    int rc = buf_check(&sql, "a fact", e);
    if (rc == 0)
        rc = my_exec(db, sql.data, sql.len, &affected, e);
    buf_release(&sql);
    if (rc == 0)
        return affected != 0;
    if (expect == FACT_ABSENT && !db->broken && mysql_errno(db->conn) == DUPLICATE) {
        err_clear(e);
        return 0;
    }
    err_wrap(e, "writing fact %s/%s", kind, key);
    return write_failed(db, e);
}

int my_fact_delete(struct db *base, const char *kind, const char *key, struct err *e)
{
    struct my_db *db = my_db_from(base);
    struct buf sql;

    buf_init(&sql, BUF_MAX_TEXT);
    buf_adds(&sql, "DELETE FROM " MY_CONTROL ".fact");
    add_which(&sql, db, kind);
    add_text(&sql, " AND `key` = ", key);
    int rc = my_exec(db, sql.data, sql.len, NULL, e);
    buf_release(&sql);
    if (rc == 0)
        return 0;
    err_wrap(e, "deleting fact %s/%s", kind, key);
    return write_failed(db, e);
}
