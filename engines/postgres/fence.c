/* The fence of a PostgreSQL server: calls to the functions of fence_sql.c, and the wait.
 *
 * One normal course: fence_install arms the tables ahead of time; fence_flip sets the lease;
 * fence_wait lists the transactions that hold write locks on armed tables and waits for exactly
 * those; a marker; fence_seal, fence_wait, a second marker. Two interleavings are dangerous. A
 * transaction that passed the trigger before the flip and commits late: it holds its lock, so it is
 * in the list. And one of the list that is PREPAREd while we wait: its virtual transaction id
 * vanishes although it has not ended, so prepared holders are always waited for, listed or not. */
#include "engines/postgres/fence.h"

#include "core/run.h"
#include "engines/postgres/pg.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARM_BUDGET_MS 10000
#define ARM_PAUSE_MS 150
#define POLL_MS 1
#define SEALED_MS INT64_C(9000000000000000)
#define NAMED_MAX 8

/* ---- answers ---- */

/* A statement that moves the fence was cut off: it may have been carried out. */
static int fence_err(struct pg_db *db, struct err *e)
{
    if (e == NULL)
        return -1;
    if (strcmp(e->sqlstate, "LS001") == 0)
        e->class = ERR_FENCED;
    else if (strcmp(e->sqlstate, "LS002") == 0)
        e->class = ERR_RETRY;
    else if (db->broken && e->class == ERR_RETRY)
        e->class = ERR_UNKNOWN;
    else if (strcmp(e->sqlstate, "42883") == 0 || strcmp(e->sqlstate, "3F000") == 0)
        err_set(e, ERR_REFUSED, "the fence is not installed on database \"%s\"", PQdb(db->conn));
    return err_wrap(e, "fence");
}

static int fence_call(struct pg_db *db, const char *sql, int n, const char *const *values,
                      struct err *e)
{
    struct err own = {0};
    PGresult *res = pg_query(db, sql, n, values, &own);

    if (res == NULL) {
        fence_err(db, &own);
        if (e != NULL)
            *e = own;
        return -1;
    }
    PQclear(res);
    return 0;
}

/* ---- arming ---- */

/* One table: asks `sql` (fence_arm or fence_disarm) until it is not "busy", within the budget.
 * *denied: the role may not; else an error. */
static int settle_table(struct pg_db *db, const char *sql, const char *oid, int budget_ms,
                        bool *denied, struct err *e)
{
    int64_t until = mono_ms() + budget_ms;
    const char *values[1] = {oid};

    for (;;) {
        PGresult *res = pg_query(db, sql, 1, values, e);

        if (res == NULL)
            return -1;
        const char *answer = PQgetvalue(res, 0, 0);
        bool busy = strcmp(answer, "busy") == 0;
        *denied = strcmp(answer, "denied") == 0;
        PQclear(res);
        if (!busy)
            return 0;
        if (mono_ms() >= until)
            return err_set(e, ERR_RETRY, "no lock within %d ms", budget_ms);
        if (stop_check(e) != 0)
            return -1;
        nap_ms(ARM_PAUSE_MS);
    }
}

/* Adds to the message who holds locks on the table. */
static void name_holders(struct pg_db *db, const char *oid, struct err *e)
{
    static const char sql[] =
        "SELECT string_agg(w, '; ') FROM (SELECT coalesce('pid ' || l.pid, 'a prepared "
        "transaction')"
        " || coalesce(' of ' || a.usename, '') || ' with ' || string_agg(l.mode, ', ') AS w"
        " FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid"
        " WHERE l.locktype = 'relation' AND l.granted AND l.relation = $1::oid"
        " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " GROUP BY l.pid, a.usename LIMIT 8) s";
    const char *values[1] = {oid};

    if (e == NULL || e->class != ERR_RETRY || db->broken)
        return;
    PGresult *res = pg_query(db, sql, 1, values, NULL);
    const char *who = res != NULL ? pg_text(res, 0, 0) : NULL;
    if (who != NULL)
        err_hint(e, "held by: %s", who);
    PQclear(res);
}

/* Rows of (oid, name, required): each is armed or disarmed. */
static int settle_tables(struct pg_db *db, const PGresult *rows, const char *sql, int budget_ms,
                         struct err *e)
{
    for (int i = 0; i < PQntuples(rows); i++) {
        const char *oid = PQgetvalue(rows, i, 0);
        bool denied = false;

        if (settle_table(db, sql, oid, budget_ms, &denied, e) != 0) {
            name_holders(db, oid, e);
            return err_wrap(e, "fence trigger of %s", PQgetvalue(rows, i, 1));
        }
        if (denied && pg_bool(rows, i, 2)) {
            err_set(e, ERR_REFUSED, "fence trigger of %s: role \"%s\" does not own the table",
                    PQgetvalue(rows, i, 1), PQuser(db->conn));
            return err_hint(e, "as its owner or superuser: GRANT the owner's role TO \"%s\"",
                            PQuser(db->conn));
        }
    }
    return 0;
}

/* ARRAY['"s"."t"', …]::text[] */
static void table_array(struct buf *b, const struct table_list *tables)
{
    struct buf name;

    buf_init(&name, 1024);
    buf_adds(b, "ARRAY[");
    for (size_t i = 0; i < tables->n; i++) {
        buf_reset(&name, 1024);
        pg_ident2(&name, tables->v[i]->schema, tables->v[i]->name);
        if (i > 0)
            buf_addc(b, ',');
        pg_literal(b, name.data);
    }
    buf_adds(b, "]::text[]");
    buf_release(&name);
}

/* Makes them, and remembers their digest from within the same transaction, so that nobody else can
 * have touched what is remembered. */
static int create_objects(struct pg_db *db, struct err *e)
{
    PGresult *res = NULL;
    struct buf sql;

    buf_init(&sql, BUF_MAX_TEXT);
    /* One implicit transaction, alone: CREATE IF NOT EXISTS fails when two run at once. */
    buf_adds(&sql, "SELECT pg_advisory_xact_lock(hashtextextended('lockstep.fence', 0));\n");
    for (size_t i = 0; pg_fence_create[i] != NULL; i++)
        buf_adds(&sql, pg_fence_create[i]);
    buf_adds(&sql, pg_fence_digest);
    db->fence[0] = '\0';
    if (buf_check(&sql, "fence functions", e) == 0 && pg_send(db, sql.data, NULL, e) == 0)
        res = pg_collect(db, e);
    buf_release(&sql);
    if (res == NULL)
        return err_wrap(e, "installing the fence");
    if (PQntuples(res) == 1)
        snprintf(db->fence, sizeof db->fence, "%s", PQgetvalue(res, 0, 0));
    PQclear(res);
    return 0;
}

/* Somebody has removed the fence's objects, or the schema that they are in. */
static bool is_gone(const struct err *e)
{
    return strcmp(e->sqlstate, "42P01") == 0 || strcmp(e->sqlstate, "42883") == 0 ||
           strcmp(e->sqlstate, "3F000") == 0;
}

/* To make the objects takes longer than all else that a switch does while nobody may write, and
 * makes every session plan anew. So what this connection has made is not made again while the
 * catalog has it word for word. */
static int ensure_objects(struct pg_db *db, struct err *e)
{
    struct err own = {0};
    PGresult *res;
    bool same;

    if (db->fence[0] == '\0')
        return create_objects(db, e);
    res = pg_query(db, pg_fence_digest, 0, NULL, &own);
    same = res != NULL && PQntuples(res) == 1 && strcmp(PQgetvalue(res, 0, 0), db->fence) == 0;
    PQclear(res);
    if (same)
        return 0;
    if (res == NULL && !is_gone(&own)) {
        if (e != NULL)
            *e = own;
        return err_wrap(e, "looking at the fence");
    }
    return create_objects(db, e);
}

/* What is yet to be armed: listed tables and those above them must be, the others (partitions and
 * cascade children that are not migrated) are where the role owns them. */
static PGresult *unarmed(struct pg_db *db, const struct table_list *tables, struct err *e)
{
    struct buf sql;
    PGresult *res = NULL;

    buf_init(&sql, BUF_MAX_TEXT);
    buf_adds(&sql, "WITH RECURSIVE listed AS (SELECT to_regclass(q)::oid AS rel FROM unnest(");
    table_array(&sql, tables);
    buf_adds(&sql, ") q), up(rel) AS (SELECT rel FROM listed UNION SELECT i.inhparent FROM up"
                   " JOIN pg_inherits i ON i.inhrelid = up.rel)"
                   " SELECT c, c::regclass::text, c IN (SELECT rel FROM up)"
                   " FROM lockstep.fence_closure(ARRAY(SELECT rel FROM listed)) c"
                   " WHERE c NOT IN (SELECT lockstep.fence_armed()) ORDER BY 1");
    if (buf_check(&sql, "table list", e) == 0)
        res = pg_query(db, sql.data, 0, NULL, e);
    buf_release(&sql);
    return res;
}

/* A listed table that does not exist cannot be fenced, which is no success. */
static int check_present(struct pg_db *db, const struct table_list *tables, struct err *e)
{
    struct buf sql;
    PGresult *res = NULL;
    int rc = -1;

    buf_init(&sql, BUF_MAX_TEXT);
    buf_adds(&sql, "SELECT q FROM unnest(");
    table_array(&sql, tables);
    buf_adds(&sql, ") q WHERE to_regclass(q) IS NULL LIMIT 1");
    if (buf_check(&sql, "table list", e) != 0)
        goto out;
    res = pg_query(db, sql.data, 0, NULL, e);
    if (res == NULL)
        goto out;
    if (PQntuples(res) > 0) {
        err_set(e, ERR_FATAL, "installing the fence: table %s does not exist in \"%s\"",
                PQgetvalue(res, 0, 0), PQdb(db->conn));
        goto out;
    }
    rc = 0;
out:
    PQclear(res);
    buf_release(&sql);
    return rc;
}

int pg_fence_install(struct db *base, const struct table_list *tables, int budget_ms, struct err *e)
{
    struct pg_db *db = pg_db_from(base);

    if (check_present(db, tables, e) != 0 || ensure_objects(db, e) != 0)
        return -1;
    PGresult *rows = unarmed(db, tables, e);
    if (rows == NULL)
        return err_wrap(e, "installing the fence");
    int armed = PQntuples(rows);
    int rc = settle_tables(db, rows, "SELECT lockstep.fence_arm($1::oid)",
                           budget_ms > 0 ? budget_ms : ARM_BUDGET_MS, e);
    PQclear(rows);
    return rc == 0 ? armed : -1;
}

int pg_fence_remove(struct db *base, struct err *e)
{
    struct pg_db *db = pg_db_from(base);
    int rc = -1;
    PGresult *rows = pg_query(db,
                              "SELECT t.tgrelid, t.tgrelid::regclass::text, true FROM pg_trigger t"
                              " JOIN pg_proc p ON p.oid = t.tgfoid"
                              " JOIN pg_namespace n ON n.oid = p.pronamespace"
                              " WHERE t.tgname = '!lockstep_fence' AND n.nspname = 'lockstep'",
                              0, NULL, e);

    if (rows == NULL)
        return err_wrap(e, "removing the fence");
    /* What an earlier, interrupted removal or installation left is completed first. */
    if (PQntuples(rows) > 0 && create_objects(db, e) != 0)
        goto out;
    if (settle_tables(db, rows, "SELECT lockstep.fence_disarm($1::oid)", ARM_BUDGET_MS, e) != 0)
        goto out;
    rc = pg_exec(db, pg_fence_drop, e);
    if (rc != 0)
        err_wrap(e, "removing the fence");
out:
    PQclear(rows);
    return rc;
}

/* ---- moving ---- */

int pg_fence_flip(struct db *base, const char *token, uint32_t epoch, int lease_ms, int budget_ms,
                  struct err *e)
{
    char epoch_text[16];
    char lease_text[16];
    const char *values[3] = {token, epoch_text, lease_text};

    snprintf(epoch_text, sizeof epoch_text, "%u", epoch);
    snprintf(lease_text, sizeof lease_text, "%d", lease_ms);
    return fence_call(pg_db_from(base), "SELECT lockstep.fence_flip($1, $2::bigint, $3::bigint)", 3,
                      values, e);
}

int pg_fence_take(struct db *base, const char *token, uint32_t epoch, struct err *e)
{
    char epoch_text[16];
    const char *values[2] = {token, epoch_text};

    snprintf(epoch_text, sizeof epoch_text, "%u", epoch);
    return fence_call(pg_db_from(base), "SELECT lockstep.fence_take($1, $2::bigint)", 2, values, e);
}

int pg_fence_renew(struct db *base, const char *token, int lease_ms, struct err *e)
{
    char lease_text[16];
    const char *values[2] = {token, lease_text};

    snprintf(lease_text, sizeof lease_text, "%d", lease_ms);
    return fence_call(pg_db_from(base), "SELECT lockstep.fence_renew($1, $2::bigint)", 2, values,
                      e);
}

int pg_fence_seal(struct db *base, const char *token, uint32_t epoch, struct err *e)
{
    char epoch_text[16];
    const char *values[2] = {token, epoch_text};

    snprintf(epoch_text, sizeof epoch_text, "%u", epoch);
    return fence_call(pg_db_from(base), "SELECT lockstep.fence_seal($1, $2::bigint)", 2, values, e);
}

int pg_fence_lift(struct db *base, const char *token, struct err *e)
{
    const char *values[1] = {token};

    return fence_call(pg_db_from(base), "SELECT lockstep.fence_lift($1)", 1, values, e);
}

/* 1: it is installed; 0: it is not, and *now_ms is the server's clock; -1. */
static int is_installed(struct pg_db *db, int64_t *now_ms, struct err *e)
{
    PGresult *res = pg_query(db,
                             "SELECT to_regprocedure('lockstep.fence_read()') IS NOT NULL,"
                             " floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint",
                             0, NULL, e);
    bool installed;

    if (res == NULL)
        return -1;
    installed = pg_bool(res, 0, 0);
    *now_ms = pg_int(res, 0, 1);
    PQclear(res);
    return installed;
}

static int read_state(struct pg_db *db, struct fence_state *out, struct err *e)
{
    PGresult *res =
        pg_query(db, "SELECT lease, now_ms, epoch, token FROM lockstep.fence_read()", 0, NULL, e);
    int rc = -1;

    if (res == NULL)
        return -1;
    if (PQntuples(res) == 1) {
        out->lease_end_ms = pg_int(res, 0, 0);
        out->now_ms = pg_int(res, 0, 1);
        out->epoch = (uint32_t)pg_int(res, 0, 2);
        snprintf(out->token, sizeof out->token, "%s", PQgetvalue(res, 0, 3));
        out->mode = out->lease_end_ms >= SEALED_MS    ? FENCE_SEALED
                    : out->lease_end_ms > out->now_ms ? FENCE_LEASED
                                                      : FENCE_OPEN;
        rc = 0;
    } else {
        err_set(e, ERR_FATAL, "lockstep.fence has no row");
    }
    PQclear(res);
    return rc;
}

int pg_fence_state(struct db *base, struct fence_state *out, struct err *e)
{
    struct pg_db *db = pg_db_from(base);
    struct err own = {0};
    int rc = 1;

    memset(out, 0, sizeof *out);
    /* Asked while nobody may write: what this connection has made is taken to be there. */
    if (db->fence[0] != '\0' && read_state(db, out, &own) == 0)
        return 0;
    if (own.class == ERR_NONE || is_gone(&own))
        rc = is_installed(db, &out->now_ms, &own);
    else
        rc = -1;
    if (rc > 0)
        rc = read_state(db, out, &own);
    if (rc == 0)
        return 0;
    if (e != NULL)
        *e = own;
    return err_wrap(e, "reading the fence");
}

/* ---- waiting ---- */

struct waiting {
    struct pg_db *db;
    const struct fence_wait *limits;
    char *tables;     /* '{oid,…}': armed tables and what belongs to them */
    PGresult *listed; /* (virtual transaction, pid, who): the set, as first seen */
    PGresult *now;
    bool *left; /* of each row of `now`: is it one to wait for? */
    int nleft;
    bool ended; /* the terminations have been sent */
    char refused[300];
};

static bool is_listed(const struct waiting *w, const char *vx)
{
    for (int i = 0; i < PQntuples(w->listed); i++)
        if (strcmp(PQgetvalue(w->listed, i, 0), vx) == 0)
            return true;
    return false;
}

/* Fills now, left, nleft; the first call fills listed. */
static int look(struct waiting *w, struct err *e)
{
    const char *values[1] = {w->tables};
    PGresult *res =
        pg_query(w->db, "SELECT vx, pid, who FROM lockstep.fence_writers($1::oid[])", 1, values, e);

    if (res == NULL)
        return -1;
    if (w->now != w->listed)
        PQclear(w->now);
    w->now = res;
    if (w->listed == NULL)
        w->listed = res;
    free(w->left);
    w->left = calloc((size_t)PQntuples(res) + 1, sizeof *w->left);
    if (w->left == NULL)
        return err_set(e, ERR_FATAL, "out of memory");
    w->nleft = 0;
    for (int i = 0; i < PQntuples(res); i++) {
        w->left[i] = PQgetisnull(res, i, 1) || is_listed(w, PQgetvalue(res, i, 0));
        w->nleft += w->left[i];
    }
    return 0;
}

/* Ends the sessions of those that are left; who may not be ended is remembered for the message. */
static int end_sessions(struct waiting *w, struct fence_report *out, struct err *e)
{
    w->ended = true;
    for (int i = 0; i < PQntuples(w->now); i++) {
        const char *values[1] = {PQgetvalue(w->now, i, 1)};

        if (!w->left[i] || PQgetisnull(w->now, i, 1))
            continue;
        PGresult *res = pg_query(w->db, "SELECT lockstep.fence_end($1::int)", 1, values, e);
        if (res == NULL)
            return -1;
        const char *answer = PQgetvalue(res, 0, 0);
        if (strcmp(answer, "ended") == 0)
            out->terminated++;
        else if (strcmp(answer, "gone") != 0)
            snprintf(w->refused, sizeof w->refused, "pid %s: %s", values[0], answer);
        PQclear(res);
    }
    return 0;
}

static int gave_up(const struct waiting *w, struct err *e)
{
    struct buf who;
    int named = 0;

    buf_init(&who, 4096);
    for (int i = 0; i < PQntuples(w->now) && named < NAMED_MAX; i++)
        if (w->left[i])
            buf_addf(&who, "%s%s", named++ > 0 ? "; " : "", PQgetvalue(w->now, i, 2));
    if (w->nleft > named)
        buf_addf(&who, "; and %d more", w->nleft - named);
    err_set(e, ERR_RETRY, "%d transactions that write still run after %d ms: %s%s%s", w->nleft,
            w->limits->deadline_ms, who.data != NULL ? who.data : "",
            w->refused[0] != '\0' ? "; could not end " : "", w->refused);
    if (w->refused[0] != '\0')
        err_hint(e,
                 "as superuser: GRANT pg_signal_backend TO \"%s\"; sessions of superusers must "
                 "be ended by hand",
                 PQuser(w->db->conn));
    else
        err_hint(e, "end them (COMMIT PREPARED or ROLLBACK PREPARED for prepared ones), try again");
    buf_release(&who);
    return -1;
}

static void report_prepared(const struct waiting *w, struct fence_report *out)
{
    for (int i = 0; i < PQntuples(w->now); i++) {
        const char *who = PQgetvalue(w->now, i, 2);

        if (PQgetisnull(w->now, i, 1))
            fence_report_prepared(out, who, strlen(who));
    }
}

static int fenced_tables(struct pg_db *db, char **out, struct err *e)
{
    PGresult *res = pg_query(db,
                             "SELECT array_agg(c)::text FROM lockstep.fence_closure("
                             "ARRAY(SELECT lockstep.fence_armed())) c",
                             0, NULL, e);

    if (res == NULL)
        return -1;
    const char *text = pg_text(res, 0, 0);
    int rc = 0;
    if (text == NULL)
        rc = err_set(e, ERR_REFUSED, "no table carries the fence's trigger");
    else if ((*out = strdup(text)) == NULL)
        rc = err_set(e, ERR_FATAL, "out of memory");
    PQclear(res);
    return rc;
}

int pg_fence_wait(struct db *base, const struct fence_wait *limits, struct fence_report *out,
                  struct err *e)
{
    struct waiting w = {.db = pg_db_from(base), .limits = limits};
    int64_t start = mono_ms();
    int rc = -1;

    memset(out, 0, sizeof *out);
    if (fenced_tables(w.db, &w.tables, e) != 0)
        goto out;
    for (;;) {
        if (look(&w, e) != 0)
            goto out;
        out->took_ms = mono_ms() - start;
        if (w.nleft == 0)
            break;
        if (stop_check(e) != 0)
            goto out;
        /* Not before they were ended, if they are to be: it may be us who stood still. */
        bool end = !w.ended && limits->grace_ms < limits->deadline_ms;
        if (end && out->took_ms >= limits->grace_ms) {
            if (end_sessions(&w, out, e) != 0)
                goto out;
        } else if (out->took_ms >= limits->deadline_ms) {
            report_prepared(&w, out);
            gave_up(&w, e);
            goto out;
        }
        nap_ms(POLL_MS);
    }
    rc = 0;
out:
    if (w.listed != NULL)
        out->waited_for = PQntuples(w.listed);
    if (w.now != w.listed)
        PQclear(w.now);
    PQclear(w.listed);
    free(w.left);
    free(w.tables);
    return rc == 0 ? 0 : err_wrap(e, "waiting for writers");
}
