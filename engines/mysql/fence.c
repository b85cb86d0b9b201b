/* The fence of a MySQL or MariaDB server: calls to the procedures of fence_sql.c. It closes the
 * whole server by read_only, which lockstep's role passes by CONNECTION_ADMIN (MySQL) or READ_ONLY
 * ADMIN (MariaDB); the wait for writers is in fence_wait.c.
 *
 * The lease is a row and an event that looks every second; a restart is an early lapse. The seal
 * must survive a restart: MySQL persists read_only; MariaDB cannot, so the accounts that the user
 * named are locked too, and the event, if it is switched on in the server's own configuration,
 * closes the server again within a second. */
#include "engines/mysql/fence.h"

#include "core/run.h"
#include "engines/mysql/my.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOW_MS "CAST(UNIX_TIMESTAMP(SYSDATE(3)) * 1000 AS SIGNED)"

/* How long a seal that does not hold is tried to be put back. */
#define HEAL_MS 3000
#define HEAL_NAP_MS 20
/* read_only is asked for again and again; in between those who wait behind it go on. A try that
 * cannot be made takes a second, seldom two (fence_sql.c). */
#define CLOSE_TRY_MS 1000
#define CLOSE_BUDGET_MS 3000
#define CLOSE_NAP_MS 50

/* ---- answers ---- */

static int fence_err(struct my_db *db, struct err *e)
{
    if (e == NULL)
        return -1;
    if (strcmp(e->sqlstate, "LS001") == 0)
        e->class = ERR_FENCED;
    else if (strcmp(e->sqlstate, "LS002") == 0 || strcmp(e->sqlstate, "LS003") == 0)
        e->class = ERR_RETRY;
    else if (db->broken && e->class == ERR_RETRY)
        e->class = ERR_UNKNOWN;
    else if (strcmp(e->sqlstate, "42000") == 0 && strstr(e->msg, "does not exist") != NULL)
        err_set(e, ERR_REFUSED, "the fence is not installed on %s", db->where);
    return err_wrap(e, "fence");
}

/* The token of a call: what the caller made, no quotes in it by construction, yet escaped. */
static int call(struct my_db *db, const char *procedure, const char *token, const char *more,
                struct err *e)
{
    struct err own = {0};
    struct buf sql;
    int rc;

    buf_init(&sql, 4096);
    buf_addf(&sql, "CALL " MY_CONTROL ".%s(", procedure);
    if (token != NULL)
        my_literal(&sql, token, strlen(token));
    buf_addf(&sql, "%s)", more);
    rc = buf_check(&sql, "a call", &own);
    if (rc == 0)
        rc = my_exec(db, sql.data, sql.len, NULL, &own);
    buf_release(&sql);
    if (rc == 0)
        return 0;
    fence_err(db, &own);
    if (e != NULL)
        *e = own;
    return -1;
}

/* Who keeps read_only from being set, as far as the server tells. */
static void name_longest(struct my_db *db, struct err *e)
{
    MYSQL_RES *res =
        db->broken ? NULL
                   : my_query(db,
                              "SELECT id, user, time FROM information_schema.processlist WHERE"
                              " command IN ('Query', 'Execute') AND id <> CONNECTION_ID()"
                              " ORDER BY time DESC LIMIT 1",
                              NULL);
    MYSQL_ROW row = res != NULL ? mysql_fetch_row(res) : NULL;

    if (row != NULL && e != NULL)
        err_hint(e,
                 "read_only waits for statements that run: session %s of %.60s has run one for %s "
                 "s; wait for it or KILL it, then again",
                 row[0] ? row[0] : "?", row[1] ? row[1] : "?", row[2] ? row[2] : "?");
    mysql_free_result(res);
}

/* A call that sets read_only. */
static int close_server(struct my_db *db, const char *procedure, const char *token,
                        const char *more, int budget_ms, struct err *e)
{
    int64_t last = mono_ms() + budget_ms - CLOSE_TRY_MS;
    struct err own = {0};

    while (call(db, procedure, token, more, &own) != 0) {
        bool waited = strstr(own.msg, "(error 1205)") != NULL;

        if (!waited || db->broken || mono_ms() >= last || stop_requested()) {
            if (waited)
                name_longest(db, &own);
            if (e != NULL)
                *e = own;
            return -1;
        }
        nap_ms(CLOSE_NAP_MS);
    }
    return 0;
}

/* One number; -1 and *e on an error. */
static int number(struct my_db *db, const char *sql, int64_t *out, struct err *e)
{
    MYSQL_RES *res = my_query(db, sql, e);
    MYSQL_ROW row = res != NULL ? mysql_fetch_row(res) : NULL;

    *out = row != NULL ? my_int(row[0]) : 0;
    mysql_free_result(res);
    return res != NULL ? 0 : -1;
}

/* ---- moving it ---- */

int my_fence_flip(struct db *base, const char *token, uint32_t epoch, int lease_ms, int budget_ms,
                  struct err *e)
{
    char more[60];

    snprintf(more, sizeof more, ", %u, %d", epoch, lease_ms);
    my_db_from(base)->sealed = false;
    return close_server(my_db_from(base), "fence_flip", token, more, budget_ms, e);
}

int my_fence_take(struct db *base, const char *token, uint32_t epoch, struct err *e)
{
    char more[60];

    snprintf(more, sizeof more, ", %u", epoch);
    return call(my_db_from(base), "fence_take", token, more, e);
}

int my_fence_renew(struct db *base, const char *token, int lease_ms, struct err *e)
{
    char more[60];

    snprintf(more, sizeof more, ", %d", lease_ms);
    return call(my_db_from(base), "fence_renew", token, more, e);
}

/* Has it been closed since the flip by this token? By the seal that was said on this connection. */
static int has_held(struct my_db *db, const char *token, struct err *e)
{
    MYSQL_RES *res = my_query(db, "SELECT @lockstep_held", e);
    MYSQL_ROW row = res != NULL ? mysql_fetch_row(res) : NULL;
    bool held = row != NULL && row[0] != NULL && strcmp(row[0], token) == 0;

    mysql_free_result(res);
    return res != NULL ? held : -1;
}

int my_fence_seal(struct db *base, const char *token, uint32_t epoch, struct err *e)
{
    char more[60];

    snprintf(more, sizeof more, ", %u", epoch);
    my_db_from(base)->sealed = false;
    /* A server that does not flush at each commit would forget in a crash that it is sealed. */
    if (close_server(my_db_from(base), "fence_seal", token, more, CLOSE_BUDGET_MS, e) != 0 ||
        my_sync(base, e) != 0)
        return -1;
    my_db_from(base)->sealed = true;
    return has_held(my_db_from(base), token, e);
}

/* What a seal has left in MySQL's mysqld-auto.cnf says the same as the server does now; it goes, so
 * that the operator's own configuration counts again. */
static void forget_persisted(struct my_db *db)
{
    if (!db->maria && !db->broken)
        (void)my_execf(db, NULL, "RESET PERSIST IF EXISTS read_only");
}

int my_fence_lift(struct db *base, const char *token, struct err *e)
{
    struct my_db *db = my_db_from(base);
    struct fence_state f;

    db->sealed = false;
    if (call(db, "fence_lift", token, "", e) != 0)
        return -1;
    if (!db->maria && my_fence_state(base, &f, NULL) == 0 && f.mode == FENCE_OPEN)
        forget_persisted(db);
    return my_sync(base, e);
}

/* ---- reading it ---- */

struct reading {
    struct fence_state state;
    bool read_only;
};

static int read_row(struct my_db *db, struct reading *out, struct err *e)
{
    struct err own = {0};
    MYSQL_RES *res = my_query(db,
                              "SELECT f.mode, f.token, f.epoch, f.lease_end, " NOW_MS
                              ", @@GLOBAL.read_only FROM " MY_CONTROL ".fence f WHERE f.one = 1",
                              &own);
    MYSQL_ROW row = res != NULL ? mysql_fetch_row(res) : NULL;

    memset(out, 0, sizeof *out);
    if (res == NULL) {
        /* No such table or database: nothing is installed. */
        if (strcmp(own.sqlstate, "42S02") == 0 || strcmp(own.sqlstate, "42000") == 0)
            return 0;
        if (e != NULL)
            *e = own;
        return err_wrap(e, "reading the fence");
    }
    if (row != NULL) {
        struct fence_state *s = &out->state;

        s->mode = strcmp(row[0], "sealed") == 0   ? FENCE_SEALED
                  : strcmp(row[0], "leased") == 0 ? FENCE_LEASED
                                                  : FENCE_OPEN;
        snprintf(s->token, sizeof s->token, "%s", row[1]);
        s->epoch = (uint32_t)my_int(row[2]);
        s->lease_end_ms = my_int(row[3]);
        s->now_ms = my_int(row[4]);
        out->read_only = my_int(row[5]) != 0;
    }
    mysql_free_result(res);
    return 0;
}

/* A seal that a restart has taken off is put back before anybody is told that there is one. A lease
 * is one only while the server refuses writes. */
int my_fence_state(struct db *base, struct fence_state *out, struct err *e)
{
    struct my_db *db = my_db_from(base);
    struct reading r;

    memset(out, 0, sizeof *out);
    if (read_row(db, &r, e) != 0)
        return -1;
    /* Another session may just be about it, or be ending. */
    for (int64_t end = mono_ms() + HEAL_MS; r.state.mode == FENCE_SEALED && !r.read_only;
         nap_ms(HEAL_NAP_MS)) {
        bool late = mono_ms() > end;

        if (stop_check(e) != 0 || call(db, "fence_tick", NULL, "", e) != 0 ||
            read_row(db, &r, e) != 0)
            return -1;
        if (late && r.state.mode == FENCE_SEALED && !r.read_only)
            return err_set(e, ERR_RETRY, "%s is sealed but takes writes: its fence is being moved",
                           db->where);
    }
    if (r.state.mode == FENCE_LEASED && (!r.read_only || r.state.lease_end_ms <= r.state.now_ms))
        r.state.mode = FENCE_OPEN;
    *out = r.state;
    return 0;
}

/* ---- installing ---- */

/* Is what a restart keeps of read_only not enough to seal? */
static int accounts_needed(struct my_db *db, bool *out, struct err *e)
{
    int64_t keeps = 0;

    if (!db->maria && number(db, "SELECT @@persisted_globals_load", &keeps, e) != 0)
        return -1;
    *out = keeps == 0;
    return 0;
}

static int guard_scheduler(struct my_db *db, struct err *e)
{
    int64_t on;

    if (number(db, "SELECT @@GLOBAL.event_scheduler = 'ON'", &on, e) != 0)
        return -1;
    if (on)
        return 0;
    err_set(e, ERR_REFUSED,
            "the event scheduler of %s is off, and the fence's lease could not lapse", db->where);
    return err_hint(e, "SET GLOBAL event_scheduler = ON, and event_scheduler=ON in the server's "
                       "configuration");
}

static void add_schemas(struct buf *sql, const struct table_list *tables)
{
    buf_adds(sql, "''");
    for (size_t i = 0; i < tables->n; i++) {
        /* Tables come sorted by label: mostly once each. */
        if (i > 0 && strcmp(tables->v[i]->schema, tables->v[i - 1]->schema) == 0)
            continue;
        buf_adds(sql, ", ");
        my_literal(sql, tables->v[i]->schema, strlen(tables->v[i]->schema));
    }
}

/* read_only closes the server for all its databases, also those that are empty yet. The names of
 * all are shown to who has SHOW DATABASES. */
static int guard_whole_server(struct my_db *db, const struct table_list *tables, struct err *e)
{
    struct buf sql;
    MYSQL_RES *res = NULL;
    int rc = -1;

    if (db->fence.whole_server)
        return 0;
    buf_init(&sql, BUF_MAX_TEXT);
    buf_adds(&sql, "SELECT group_concat(schema_name ORDER BY 1 SEPARATOR ', ')"
                   " FROM information_schema.schemata WHERE schema_name"
                   " NOT IN ('mysql', 'sys', 'performance_schema', 'information_schema',"
                   " '" MY_CONTROL "', ");
    add_schemas(&sql, tables);
    buf_addc(&sql, ')');
    if (buf_check(&sql, "databases", e) == 0)
        res = my_query(db, sql.data, e);
    buf_release(&sql);
    MYSQL_ROW row = res != NULL ? mysql_fetch_row(res) : NULL;
    if (row != NULL && row[0] != NULL) {
        err_set(e, ERR_REFUSED, "the fence closes all of %s, and there are other databases: %.300s",
                db->where, row[0]);
        err_hint(e, "fence: {whole_server: true} if they may be closed too");
    } else if (row != NULL) {
        rc = 0;
    }
    mysql_free_result(res);
    return rc;
}

void my_fence_account(const char *account, struct buf *out)
{
    const char *at = strrchr(account, '@');
    size_t len = at != NULL ? (size_t)(at - account) : strlen(account);

    my_literal(out, account, len);
    buf_adds(out, ", ");
    my_literal(out, at != NULL ? at + 1 : "%", at != NULL ? strlen(at + 1) : 1);
}

/* The list as it is configured now; what we have locked stays in it until it is unlocked. */
static int store_accounts(struct my_db *db, struct err *e)
{
    struct buf sql;
    int rc = 0;

    buf_init(&sql, BUF_MAX_TEXT);
    buf_adds(&sql, "DELETE FROM " MY_CONTROL ".fence_account WHERE locked = 0");
    for (size_t i = 0; i < db->fence.naccounts; i++) {
        buf_adds(&sql, "; INSERT IGNORE INTO " MY_CONTROL ".fence_account (user, host) VALUES (");
        my_fence_account(db->fence.accounts[i], &sql);
        buf_addc(&sql, ')');
    }
    rc = buf_check(&sql, "accounts", e);
    if (rc == 0)
        rc = my_exec(db, sql.data, sql.len, NULL, e);
    buf_release(&sql);
    return rc;
}

/* Our own account among those that are to be locked? */
static int guard_accounts(struct my_db *db, struct err *e)
{
    int64_t ours;
    bool needed;

    if (accounts_needed(db, &needed, e) != 0)
        return -1;
    if (!needed)
        return my_execf(db, e, "DELETE FROM " MY_CONTROL ".fence_account WHERE locked = 0");
    if (db->fence.naccounts == 0) {
        err_set(e, ERR_REFUSED,
                "%s forgets read_only when it restarts, so accounts must be locked to seal it, and "
                "none are named",
                db->where);
        return err_hint(e, "fence: {accounts: [app@%%]} with the applications' accounts");
    }
    if (store_accounts(db, e) != 0 ||
        number(db,
               "SELECT count(*) FROM " MY_CONTROL ".fence_account"
               " WHERE user = substring_index(current_user(), '@', 1)",
               &ours, e) != 0)
        return -1;
    if (ours == 0)
        return 0;
    err_set(e, ERR_REFUSED, "lockstep's own account is among fence.accounts");
    return err_hint(e, "give lockstep an account of its own");
}

static void put(struct buf *out, const char *text, bool maria)
{
    const struct {
        const char *word;
        const char *text;
    } words[] = {
        {"@NOW@", NOW_MS},
        {"@KEEP@", maria ? "GLOBAL" : "PERSIST"},
        {"@LOCKED@",
         maria ? "EXISTS (SELECT 1 FROM mysql.global_priv g WHERE g.User = v_user"
                 " AND g.Host = v_host"
                 " AND json_value(g.Priv, '$.account_locked') IN ('true', '1'))"
               : "EXISTS (SELECT 1 FROM mysql.user g WHERE g.User = v_user AND g.Host = v_host"
                 " AND g.account_locked = 'Y')"},
    };

    while (*text != '\0') {
        size_t i = 0;
        size_t n = sizeof words / sizeof words[0];

        while (i < n && strncmp(text, words[i].word, strlen(words[i].word)) != 0)
            i++;
        if (i < n) {
            buf_adds(out, words[i].text);
            text += strlen(words[i].word);
        } else {
            buf_addc(out, *text++);
        }
    }
}

static int make_object(struct my_db *db, const struct my_fence_object *o, struct err *e)
{
    struct buf sql;
    int rc;

    buf_init(&sql, BUF_MAX_TEXT);
    put(&sql, o->make, db->maria);
    rc = buf_check(&sql, "the fence", e);
    if (rc == 0)
        rc = my_exec(db, sql.data, sql.len, NULL, e);
    buf_release(&sql);
    return rc == 0 ? 0 : err_wrap(e, "making " MY_CONTROL ".%s", o->name);
}

static int count_objects(struct my_db *db, int64_t *out, struct err *e)
{
    return number(db,
                  "SELECT (SELECT count(*) FROM information_schema.tables WHERE table_schema = "
                  "'" MY_CONTROL "' AND table_name IN ('fence', 'fence_account'))"
                  " + (SELECT count(*) FROM information_schema.routines WHERE routine_schema = "
                  "'" MY_CONTROL "' AND routine_name LIKE 'fence\\_%')"
                  " + (SELECT count(*) FROM information_schema.events WHERE event_schema = "
                  "'" MY_CONTROL "' AND event_name = 'fence_lapse' AND status = 'ENABLED')",
                  out, e);
}

static int make_objects(struct my_db *db, struct err *e)
{
    int64_t there;

    /* During the switch it is there already, and nothing is logged for it. */
    if (count_objects(db, &there, e) != 0)
        return -1;
    for (unsigned i = 0; there < my_fence_object_count && i < my_fence_object_count; i++) {
        if (make_object(db, &my_fence_objects[i], e) != 0)
            return -1;
    }
    if (there == my_fence_object_count)
        return 0;
    return my_execf(db, e,
                    "INSERT IGNORE INTO " MY_CONTROL ".fence (one) VALUES (1);"
                    "ALTER EVENT " MY_CONTROL ".fence_lapse ENABLE");
}

int my_fence_install(struct db *base, const struct table_list *tables, int budget_ms, struct err *e)
{
    struct my_db *db = my_db_from(base);

    /* Nothing of it is on the tables, where somebody could take it off behind the seal. */
    if (db->sealed)
        return 0;
    if (guard_scheduler(db, e) != 0 || guard_whole_server(db, tables, e) != 0 ||
        make_objects(db, e) != 0 || guard_accounts(db, e) != 0)
        return err_wrap(e, "installing the fence");
    return 0;
}

/* Whatever it was: the server is as it was before us, and nothing of the fence is left. */
int my_fence_remove(struct db *base, struct err *e)
{
    struct my_db *db = my_db_from(base);
    struct reading r;
    int64_t there;
    int64_t marks;

    if (count_objects(db, &there, e) != 0 ||
        number(db,
               "SELECT count(*) FROM information_schema.tables WHERE table_schema = "
               "'" MY_CONTROL "' AND table_name = 'mark'",
               &marks, e) != 0 ||
        read_row(db, &r, e) != 0)
        return err_wrap(e, "removing the fence");
    if (marks > 0 && my_execf(db, e, "DROP TABLE IF EXISTS " MY_CONTROL ".mark") != 0)
        return err_wrap(e, "removing the markers");
    if (there == 0)
        return 0;
    /* One that is open needs nothing, which a removal that was killed may have taken away. */
    if (r.state.mode == FENCE_LEASED || r.state.mode == FENCE_SEALED) {
        if (call(db, "fence_lift", r.state.token, "", e) != 0)
            return -1;
        forget_persisted(db);
    }
    for (unsigned i = my_fence_object_count; i-- > 0;) {
        if (my_execf(db, e, "DROP %s IF EXISTS " MY_CONTROL ".%s", my_fence_objects[i].kind,
                     my_fence_objects[i].name) != 0)
            return err_wrap(e, "removing the fence");
    }
    return 0;
}
