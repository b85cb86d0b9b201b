/* `check`: the server's settings, and the account's rights. */
#include "engines/mysql/check.h"

#include <string.h>

/* The oldest that say in the binlog what we read there, and know our collations. */
#define MARIA_OLDEST 100600
#define MYSQL_OLDEST 80023

#define NO_WAY_BACK ": after a cutover there is no way back"
#define SMALL_PACKET "16777216"

/* ---- settings ---- */

enum server { ANY_SERVER, MARIADB_ONLY, MYSQL_ONLY };

/* unfit: an expression that is true where it is. The log of a target matters for the way back
 * alone. */
static const struct setting {
    enum server server;
    bool fatal;
    const char *unfit;
    const char *what;
    const char *remedy;
} log_settings[] = {
    {ANY_SERVER, true, "@@global.log_bin = 0", "it writes no binlog",
     "log_bin = binlog and server_id = 1 (one of its own) in the server's configuration, then "
     "restart it"},
    {ANY_SERVER, true, "@@global.server_id = 0",
     "its server_id is 0: it hands its binlog to nobody",
     "SET GLOBAL server_id = 1 (a number of its own), and in the server's configuration"},
    {ANY_SERVER, true, "@@global.binlog_format <> 'ROW'", "binlog_format is not ROW",
     "SET GLOBAL binlog_format = 'ROW', and in the server's configuration; open sessions keep the "
     "old one: reconnect the applications"},
    {ANY_SERVER, true, "@@global.binlog_row_image <> 'FULL'", "binlog_row_image is not FULL",
     "SET GLOBAL binlog_row_image = 'FULL', and in the server's configuration; open sessions keep "
     "the old one: reconnect the applications"},
    {ANY_SERVER, true, "@@global.binlog_row_metadata <> 'FULL'", "binlog_row_metadata is not FULL",
     "SET GLOBAL binlog_row_metadata = 'FULL', and in the server's configuration"},
    {MYSQL_ONLY, true, "@@global.binlog_row_value_options <> ''",
     "binlog_row_value_options is PARTIAL_JSON: updates of JSON come in pieces",
     "SET GLOBAL binlog_row_value_options = '', and in the server's configuration; reconnect the "
     "applications"},
    {ANY_SERVER, false, "@@global.sync_binlog <> 1 OR @@global.innodb_flush_log_at_trx_commit <> 1",
     "sync_binlog or innodb_flush_log_at_trx_commit is not 1: a crash of its machine may forget "
     "transactions that have been read and replicated",
     "SET GLOBAL sync_binlog = 1, GLOBAL innodb_flush_log_at_trx_commit = 1"},
    {ANY_SERVER, false, "@@global.binlog_expire_logs_seconds BETWEEN 1 AND 86399",
     "binlogs are purged after less than a day: a longer stop loses changes",
     "SET GLOBAL binlog_expire_logs_seconds = 259200"},
};

static const struct setting settings[] = {
    {MYSQL_ONLY, true, "@@global.super_read_only = 1",
     "super_read_only is on: it takes nobody's writes", "SET GLOBAL super_read_only = OFF"},
    {ANY_SERVER, false, "@@global.max_allowed_packet < " SMALL_PACKET,
     "max_allowed_packet is below 16 MiB: rows that are larger cannot be written",
     "SET GLOBAL max_allowed_packet = 1073741824, and in the server's configuration"},
};

static int ask(struct my_checking *c, const struct setting *list, size_t n, bool way_back,
               struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        const struct setting *s = &list[i];

        if (s->server != ANY_SERVER && (s->server == MARIADB_ONLY) != c->db->maria)
            continue;
        const char *unfit = my_check_text(c, arena_printf(c->arena, "SELECT %s", s->unfit), e);
        if (unfit == NULL)
            return -1;
        if (strcmp(unfit, "1") == 0)
            my_check_found(c, s->fatal && !way_back, c->side,
                           way_back && s->fatal ? arena_printf(c->arena, "%s" NO_WAY_BACK, s->what)
                                                : s->what,
                           s->remedy);
    }
    return 0;
}

static void check_version(struct my_checking *c)
{
    int oldest = c->db->maria ? MARIA_OLDEST : MYSQL_OLDEST;

    if (c->db->version < oldest)
        my_check_found(
            c, true, c->side,
            arena_printf(c->arena, "its version is %s", mysql_get_server_info(c->db->conn)),
            "use MariaDB 10.6, MySQL 8.0.23, or newer ones");
}

/* Databases that --binlog-do-db and its kin keep out of the log. Who may not ask is told so by the
 * rights. */
static void check_filters(struct my_checking *c)
{
    bool master = c->db->maria || c->db->version < 80200;
    MYSQL_RES *res =
        my_query(c->db, master ? "SHOW MASTER STATUS" : "SHOW BINARY LOG STATUS", NULL);
    MYSQL_ROW row = res != NULL ? mysql_fetch_row(res) : NULL;
    bool filtered = row != NULL && ((row[2] != NULL && row[2][0] != '\0') ||
                                    (row[3] != NULL && row[3][0] != '\0'));

    if (filtered)
        my_check_found(c, true, c->side,
                       arena_printf(c->arena,
                                    "its binlog leaves databases out (binlog_do_db \"%s\","
                                    " binlog_ignore_db \"%s\")",
                                    row[2] != NULL ? row[2] : "", row[3] != NULL ? row[3] : ""),
                       "remove binlog_do_db and binlog_ignore_db from the server's configuration,"
                       " then restart it");
    mysql_free_result(res);
}

/* A branch that was prepared before the start has its rows before it and its commit behind; later
 * ones are in nobody's way but a cutover's. */
static void check_branches(struct my_checking *c)
{
    MYSQL_RES *res = my_query(c->db, "XA RECOVER", NULL);
    size_t n = res != NULL ? (size_t)mysql_num_rows(res) : 0;

    if (n > 0)
        my_check_found(
            c, !c->request->started, c->side,
            arena_printf(c->arena, "%zu XA transactions are prepared and not decided%s", n,
                         c->request->started ? ": a cutover would wait for them" : ""),
            arena_printf(c->arena, "XA COMMIT or XA ROLLBACK them (XA RECOVER %s lists them)",
                         c->db->maria ? "FORMAT = 'SQL'" : "CONVERT XID"));
    mysql_free_result(res);
}

/* ---- changes that other servers make ---- */

static bool is_on(const struct my_checking *c, const char *variables, struct err *e, int *rc)
{
    const char *sql = arena_printf(
        c->arena, "SHOW GLOBAL VARIABLES WHERE Variable_name IN (%s) AND Value IN ('ON', '1')",
        variables);
    MYSQL_RES *res = my_query(c->db, sql, e);
    bool on = res != NULL && mysql_num_rows(res) > 0;

    *rc = res != NULL ? *rc : -1;
    mysql_free_result(res);
    return on;
}

/* Who may not ask is told so by the rights. */
static int ask_replication(struct my_checking *c, struct my_replication *out, struct err *e)
{
    if (my_replication_state(c->db, out, e) == 0)
        return 0;
    if (e->class != ERR_REFUSED)
        return -1;
    err_clear(e);
    return 0;
}

/* What a replica is sent, or a node of a cluster, is in its own binlog only with log_slave_updates.
 * And read_only, the fence, does not hold up a replica's threads. */
static int check_replication(struct my_checking *c, bool source, struct err *e)
{
    const char *why = source ? "" : NO_WAY_BACK;
    struct my_replication replication;
    int rc = ask_replication(c, &replication, e);
    bool logged = rc == 0 && is_on(c, "'log_slave_updates', 'log_replica_updates'", e, &rc);
    bool node = rc == 0 && is_on(c, "'wsrep_on'", e, &rc);

    if (rc != 0)
        return -1;
    if (replication.configured && !logged)
        my_check_found(c, source, c->side,
                       arena_printf(c->arena,
                                    "it is set up as a replica, and log_slave_updates is off: what"
                                    " it is sent is not in its binlog%s",
                                    why),
                       "name the primary in the URI, or log_slave_updates = 1 in the server's"
                       " configuration, then restart it; RESET REPLICA ALL if it is none any more");
    if (node && !logged)
        my_check_found(c, source, c->side,
                       arena_printf(c->arena,
                                    "it is a node of a Galera cluster, and log_slave_updates is"
                                    " off: what other nodes write is not in its binlog%s",
                                    why),
                       "log_slave_updates = 1 in the server's configuration, then restart it");
    if (source && replication.running)
        my_check_found(c, true, c->side,
                       "it replicates from another server, which no fence on this one holds up",
                       "name the primary in the URI, or STOP REPLICA on it");
    return 0;
}

int my_check_server(struct my_checking *c, struct err *e)
{
    bool source = c->request->side == SIDE_SOURCE;

    check_version(c);
    if (c->db->version < (c->db->maria ? MARIA_OLDEST : MYSQL_OLDEST))
        return 0;
    if (ask(c, log_settings, sizeof log_settings / sizeof log_settings[0], !source, e) != 0 ||
        ask(c, settings, sizeof settings / sizeof settings[0], false, e) != 0 ||
        check_replication(c, source, e) != 0)
        return -1;
    if (source) {
        check_filters(c);
        check_branches(c);
    }
    return c->db->broken ? err_set(e, ERR_RETRY, "connection to %s lost", c->db->where) : 0;
}

/* ---- rights ---- */

enum scope { ON_SERVER, ON_CONTROL, ON_DATABASES };

/* sides: S the source cannot do without, s for the way back alone; T and t likewise. */
static const struct need {
    enum server server;
    enum scope scope;
    const char *sides;
    const char *right;
    const char *why;
} needs[] = {
    {ANY_SERVER, ON_SERVER, "St", "REPLICATION SLAVE", "to read the binlog"},
    {MARIADB_ONLY, ON_SERVER, "St", "BINLOG MONITOR", "to know the binlog's position"},
    {MYSQL_ONLY, ON_SERVER, "St", "REPLICATION CLIENT", "to know the binlog's position"},
    {MARIADB_ONLY, ON_SERVER, "St", "SLAVE MONITOR", "to know whether it is a replica"},
    {MARIADB_ONLY, ON_SERVER, "St", "RELOAD", "to flush the binlog of what was read"},
    {MYSQL_ONLY, ON_SERVER, "ST", "RELOAD", "to hold commits for a moment, and to flush logs"},
    {ANY_SERVER, ON_DATABASES, "ST", "SELECT", "to read its tables"},
    {ANY_SERVER, ON_DATABASES, "sT", "INSERT", "to write rows"},
    {ANY_SERVER, ON_DATABASES, "sT", "UPDATE", "to write rows"},
    {ANY_SERVER, ON_DATABASES, "sT", "DELETE", "to write rows"},
    {ANY_SERVER, ON_DATABASES, "sT", "DROP", "to truncate tables"},
    {ANY_SERVER, ON_DATABASES, "T", "CREATE", "to create tables"},
    {ANY_SERVER, ON_DATABASES, "sT", "ALTER", "to create keys and to set AUTO_INCREMENT"},
    {ANY_SERVER, ON_DATABASES, "T", "INDEX", "to create indexes"},
    {ANY_SERVER, ON_DATABASES, "T", "REFERENCES", "to create foreign keys"},
    {ANY_SERVER, ON_DATABASES, "sT", "TRIGGER", "to see triggers, which would fire on our writes"},
    {ANY_SERVER, ON_CONTROL, "ST", "SELECT", "to keep its facts"},
    {ANY_SERVER, ON_CONTROL, "ST", "INSERT", "to keep its facts"},
    {ANY_SERVER, ON_CONTROL, "ST", "UPDATE", "to keep its facts"},
    {ANY_SERVER, ON_CONTROL, "ST", "DELETE", "to keep its facts"},
    {ANY_SERVER, ON_CONTROL, "ST", "CREATE", "to create its tables"},
    {ANY_SERVER, ON_CONTROL, "ST", "DROP", "to remove its tables"},
    {ANY_SERVER, ON_CONTROL, "ST", "CREATE ROUTINE", "to make the fence"},
    {ANY_SERVER, ON_CONTROL, "ST", "ALTER ROUTINE", "to remove the fence"},
    {ANY_SERVER, ON_CONTROL, "ST", "EXECUTE", "to move the fence"},
    {ANY_SERVER, ON_CONTROL, "ST", "EVENT", "to let a fence's lease lapse"},
};

/* The rights of one kind that are missing, in one line with one GRANT. */
struct missing {
    struct buf rights;
    const char *why;
};

static void missing_add(struct missing *m, const struct need *n)
{
    if (m->rights.len == 0)
        m->why = n->why;
    buf_addf(&m->rights, "%s%s", m->rights.len > 0 ? ", " : "", n->right);
}

static void missing_found(struct my_checking *c, struct missing *m, bool fatal, const char *on)
{
    if (m->rights.len > 0)
        my_check_found(c, fatal, arena_printf(c->arena, "account %s", c->rights.account),
                       arena_printf(c->arena, "on the %s it lacks %s ON %s, %s%s", c->side,
                                    m->rights.data, on, m->why, fatal ? "" : NO_WAY_BACK),
                       arena_printf(c->arena, "on the %s: GRANT %s ON %s TO %s", c->side,
                                    m->rights.data, on, c->rights.account));
    buf_release(&m->rights);
}

/* On a database, or on each of its tables that were chosen. */
static bool has_on_database(const struct my_checking *c, const char *database, const char *right)
{
    if (my_rights_database(&c->rights, database, right))
        return true;
    for (size_t i = 0; i < c->tables.n; i++) {
        const struct table *t = c->tables.v[i];

        if (strcmp(t->schema, database) == 0 &&
            !my_rights_table(&c->rights, database, t->name, right))
            return false;
    }
    return strcmp(database, MY_CONTROL) != 0;
}

/* database: NULL for the whole server. */
static void check_scope(struct my_checking *c, enum scope scope, const char *database)
{
    bool source = c->request->side == SIDE_SOURCE;
    struct missing must = {0};
    struct missing may = {0};
    struct buf on;

    buf_init(&must.rights, 2000);
    buf_init(&may.rights, 2000);
    buf_init(&on, 2000);
    for (size_t i = 0; i < sizeof needs / sizeof needs[0]; i++) {
        const struct need *n = &needs[i];

        if (n->scope != scope ||
            (n->server != ANY_SERVER && (n->server == MARIADB_ONLY) != c->db->maria) ||
            (database != NULL ? has_on_database(c, database, n->right)
                              : my_rights_global(&c->rights, n->right)))
            continue;
        if (strchr(n->sides, source ? 'S' : 'T') != NULL)
            missing_add(&must, n);
        else if (strchr(n->sides, source ? 's' : 't') != NULL)
            missing_add(&may, n);
    }
    if (database != NULL)
        my_ident(&on, database);
    buf_adds(&on, database != NULL ? ".*" : "*.*");
    missing_found(c, &must, true, on.data);
    missing_found(c, &may, false, on.data);
    buf_release(&on);
}

static bool schema_seen(const struct my_checking *c, size_t before)
{
    const char *schema = c->tables.v[before]->schema;

    while (before-- > 0)
        if (strcmp(c->tables.v[before]->schema, schema) == 0)
            return true;
    return false;
}

/* The fence's procedures read there which accounts are locked. */
static void check_accounts(struct my_checking *c)
{
    const char *table = c->db->maria ? "global_priv" : "user";

    if (c->db->fence.naccounts > 0 && !my_rights_table(&c->rights, "mysql", table, "SELECT"))
        my_check_found(c, true, arena_printf(c->arena, "account %s", c->rights.account),
                       arena_printf(c->arena,
                                    "on the %s it lacks SELECT ON mysql.%s, to see which of"
                                    " fence.accounts are locked",
                                    c->side, table),
                       arena_printf(c->arena, "on the %s: GRANT SELECT ON mysql.%s TO %s", c->side,
                                    table, c->rights.account));
}

void my_check_rights(struct my_checking *c)
{
    check_scope(c, ON_SERVER, NULL);
    check_scope(c, ON_CONTROL, MY_CONTROL);
    check_accounts(c);
    for (size_t i = 0; i < c->tables.n; i++)
        if (!schema_seen(c, i))
            check_scope(c, ON_DATABASES, c->tables.v[i]->schema);
}
