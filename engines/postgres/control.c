/* The facts that must survive, and what a server says about itself: identity, clock, positions,
 * running transactions, retained log.
 *
 * Facts are rows of lockstep.fact. Outside of a transaction each put is one of its own, and where
 * the connection breaks under it the outcome is unknown: the caller reads the fact again. */
#include "engines/postgres/pg.h"

#include "core/run.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One advisory lock for all changes of the control schema ("lockstep" in ASCII). */
#define CONTROL_LOCK "7813586407155426672"
#define SETTLE_NAP_MS 50

/* ---- what a server says about itself ---- */

int pg_clock_ms(struct db *db, int64_t *out, struct err *e)
{
    PGresult *res =
        pg_query(pg_db_from(db),
                 "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint", 0, NULL, e);

    if (res == NULL)
        return -1;
    *out = pg_int(res, 0, 0);
    PQclear(res);
    return 0;
}

/* On a primary the timeline is taken from the log's file name: the control file's is that of the
 * last checkpoint, and stays behind for a while after a promotion. */
int pg_identify(struct db *base, struct server_identity *out, struct err *e)
{
    static const char sql[] =
        "SELECT s.system_identifier::text, current_database(), pg_is_in_recovery(),"
        " CASE WHEN pg_is_in_recovery() THEN c.timeline_id::text"
        " ELSE (('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint)::text END"
        " FROM pg_control_system() s, pg_control_checkpoint() c";
    struct pg_db *db = pg_db_from(base);
    PGresult *res = pg_query(db, sql, 0, NULL, e);

    if (res == NULL)
        return err_wrap(e, "reading which server this is");
    memset(out, 0, sizeof *out);
    snprintf(out->system, sizeof out->system, "%s", PQgetvalue(res, 0, 0));
    snprintf(out->database, sizeof out->database, "%s", PQgetvalue(res, 0, 1));
    out->standby = pg_bool(res, 0, 2);
    out->timeline = (uint32_t)pg_int(res, 0, 3);
    out->version = db->version;
    PQclear(res);
    return 0;
}

/* A write outside of a transaction whose connection broke may have been committed. */
static int write_failed(struct pg_db *db, bool in_tx, struct err *e)
{
    if (!in_tx && db->broken && e != NULL && e->class == ERR_RETRY) {
        e->class = ERR_UNKNOWN;
        err_wrap(e, "outcome of a write unknown");
    }
    return -1;
}

/* A transaction that writes WAL and commits synchronously flushes everything before it. An xid
 * alone would not do: a commit without WAL of its own is not flushed. */
int pg_sync(struct db *base, struct err *e)
{
    struct pg_db *db = pg_db_from(base);
    PGresult *res;

    if (pg_in_transaction(db))
        return err_set(e, ERR_BUG, "sync inside of a transaction");
    res = pg_query(db,
                   "SELECT set_config('synchronous_commit', 'on', true),"
                   " pg_logical_emit_message(true, '" PG_SYNC_PREFIX "', '')",
                   0, NULL, e);
    PQclear(res);
    return res != NULL ? 0 : write_failed(db, false, e);
}

/* A position at the begin of a page stands behind the page's header, where no record ends and no
 * idle stream ever gets to: the page's begin means the same and is reached. */
static uint64_t before_header(uint64_t lsn, int64_t offset, int64_t page)
{
    return offset == 40 || offset % page == 24 ? lsn - (uint64_t)(offset % page) : lsn;
}

int pg_current_position(struct db *db, struct position *out, struct err *e)
{
    static const char sql[] =
        "SELECT l, (pg_walfile_name_offset(l)).file_offset, current_setting('wal_block_size')"
        " FROM (SELECT pg_current_wal_insert_lsn() AS l) x";
    PGresult *res = pg_query(pg_db_from(db), sql, 0, NULL, e);
    uint64_t lsn;

    if (res == NULL)
        return err_wrap(e, "reading the server's position");
    int64_t offset = pg_int(res, 0, 1);
    int64_t page = pg_int(res, 0, 2);
    int rc = pg_parse_lsn(PQgetvalue(res, 0, 0), &lsn);
    PQclear(res);
    if (rc != 0 || page <= 0)
        return err_set(e, ERR_FATAL, "the server's position is not an LSN");
    *out = (struct position){.major = before_header(lsn, offset, page)};
    return 0;
}

int pg_position_find(struct db *db, const char *text, struct position *out, struct err *e)
{
    static const char sql[] =
        "SELECT (pg_walfile_name_offset($1::pg_lsn)).file_offset,"
        " current_setting('wal_block_size'), $1::pg_lsn <= pg_current_wal_insert_lsn()";
    uint64_t lsn;

    /* The parser is scanf's, which takes blanks and signs, too. */
    if (strspn(text, "0123456789abcdefABCDEF/") != strlen(text) || pg_parse_lsn(text, &lsn) != 0 ||
        lsn == 0)
        return err_set(e, ERR_CONFIG,
                       "\"%.60s\" is no position of a PostgreSQL server; expected an LSN such as "
                       "16/B374D848, as pg_current_wal_insert_lsn() gives it",
                       text);
    PGresult *res = pg_query(pg_db_from(db), sql, 1, (const char *const[]){text}, e);
    if (res == NULL)
        return err_wrap(e, "looking for the position %.60s", text);
    int64_t offset = pg_int(res, 0, 0);
    int64_t page = pg_int(res, 0, 1);
    bool written = pg_bool(res, 0, 2);
    PQclear(res);
    if (page <= 0)
        return err_set(e, ERR_FATAL, "the server does not tell the size of a page of its log");
    *out = (struct position){.major = before_header(lsn, offset, page)};
    return written;
}

void pg_position_text(struct position p, char *out, size_t size)
{
    snprintf(out, size, "%X/%X", (unsigned)(p.major >> 32), (unsigned)p.major);
}

int pg_position_distance(struct db *db, struct position from, struct position to, uint64_t *out,
                         struct err *e)
{
    (void)db;
    (void)e;
    *out = to.major > from.major ? to.major - from.major : 0;
    return 0;
}

int pg_retention(struct db *base, struct arena *a, struct retention *out, struct err *e)
{
    static const char sql[] =
        "SELECT coalesce(wal_status, 'reserved'), active,"
        " pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint"
        " FROM pg_replication_slots WHERE slot_name = $1 AND database = current_database()";
    struct pg_db *db = pg_db_from(base);
    char slot[PG_NAME_MAX];

    pg_object_name(db, slot);
    PGresult *res = pg_query(db, sql, 1, (const char *const[]){slot}, e);
    if (res == NULL)
        return -1;
    memset(out, 0, sizeof *out);
    if (PQntuples(res) == 0) {
        out->state = "missing";
        out->lost = true;
    } else {
        out->state = arena_strdup(a, PQgetvalue(res, 0, 0));
        out->lost = strcmp(out->state, "lost") == 0;
        out->ours = true;
        out->active = pg_bool(res, 0, 1);
        int64_t bytes = pg_int(res, 0, 2);
        out->retained_bytes = bytes > 0 ? (uint64_t)bytes : 0;
    }
    PQclear(res);
    return 0;
}

/* ---- settle ---- */

static int settle_blockers(struct pg_db *db, const char *xids, int timeout_ms, struct err *e)
{
    static const char sql[] =
        "SELECT coalesce(left(string_agg(who, ', '), 600), 'unknown') FROM ("
        " SELECT format('pid %s (%s, %s, %s)', pid, usename, application_name,"
        "  coalesce(wait_event, state)) FROM pg_stat_activity"
        " WHERE backend_xid IS NOT NULL AND backend_xid::text::bigint IN"
        "  (SELECT x::text::numeric % 4294967296 FROM unnest($1::xid8[]) x)"
        " UNION ALL SELECT format('prepared transaction %L', gid) FROM pg_prepared_xacts"
        " WHERE transaction::text::bigint IN"
        "  (SELECT x::text::numeric % 4294967296 FROM unnest($1::xid8[]) x)) b(who)";
    PGresult *res = pg_query(db, sql, 1, &xids, e);

    if (res == NULL)
        return -1;
    err_set(e, ERR_RETRY, "transactions that began before still run after %d ms: %s", timeout_ms,
            PQgetvalue(res, 0, 0));
    PQclear(res);
    return err_hint(e, "end them (commit, or SELECT pg_terminate_backend(pid); COMMIT or ROLLBACK "
                       "PREPARED), or wait; a session in SyncRep waits for an absent standby");
}

/* A transaction that has committed in the log but waits for a standby still runs (design.md §2).
 * Those that run now have xids below one that is drawn now; but a snapshot lists only what lies
 * below its xmax, the last *completed* xid: so ours completes first, and then the list is whole. */
int pg_settle(struct db *base, int timeout_ms, struct err *e)
{
    struct pg_db *db = pg_db_from(base);
    int64_t deadline = mono_ms() + timeout_ms;
    int rc = -1;

    if (pg_in_transaction(db))
        return err_set(e, ERR_BUG, "settle inside of a transaction");
    PGresult *mine = pg_query(db, "SELECT pg_current_xact_id()", 0, NULL, e);
    if (mine == NULL)
        return -1;
    const char *own = PQgetvalue(mine, 0, 0);
    PGresult *first =
        pg_query(db,
                 "SELECT array_agg(x)::text FROM pg_snapshot_xip(pg_current_snapshot()) x"
                 " WHERE x < $1::xid8",
                 1, &own, e);
    PQclear(mine);
    if (first == NULL)
        return -1;
    const char *xids = pg_text(first, 0, 0);
    while (xids != NULL) {
        PGresult *res = pg_query(db,
                                 "SELECT count(*) FROM pg_snapshot_xip(pg_current_snapshot()) x"
                                 " WHERE x = ANY ($1::xid8[])",
                                 1, &xids, e);
        if (res == NULL)
            goto out;
        int64_t left = pg_int(res, 0, 0);
        PQclear(res);
        if (left == 0)
            break;
        if (stop_check(e) != 0)
            goto out;
        if (mono_ms() >= deadline) {
            settle_blockers(db, xids, timeout_ms, e);
            goto out;
        }
        nap_ms(SETTLE_NAP_MS);
    }
    rc = 0;
out:
    PQclear(first);
    return rc;
}

/* ---- the control schema ---- */

/* Runs body in a transaction of its own, or in the open one. */
static int in_transaction(struct db *base, int (*body)(struct pg_db *, struct err *), struct err *e)
{
    struct pg_db *db = pg_db_from(base);

    if (pg_in_transaction(db))
        return body(db, e);
    if (pg_begin(base, e) != 0)
        return -1;
    if (body(db, e) == 0)
        return pg_commit(base, e);
    if (!db->broken)
        pg_rollback(base, NULL);
    return -1;
}

static const char create_facts[] =
    "CREATE TABLE lockstep.fact ("
    " migration text COLLATE \"C\" NOT NULL,"
    " kind text COLLATE \"C\" NOT NULL,"
    " key text COLLATE \"C\" NOT NULL,"
    " version bigint NOT NULL,"
    " body json NOT NULL,"
    " PRIMARY KEY (migration, kind, key))"
    /* A few rows are updated all the time: keep them on their page. */
    " WITH (fillfactor = 50, autovacuum_vacuum_threshold = 500)";

/* The one table of ours that is published: what our own transactions write first. */
static const char create_origin[] = "CREATE TABLE IF NOT EXISTS lockstep.origin ("
                                    " migration text COLLATE \"C\" NOT NULL,"
                                    " connection int NOT NULL,"
                                    " n bigint NOT NULL,"
                                    " PRIMARY KEY (migration, connection))"
                                    " WITH (fillfactor = 10, autovacuum_vacuum_threshold = 5000)";

static int schema_facts(struct pg_db *db, bool *schema, bool *table, int64_t *strangers,
                        struct err *e)
{
    static const char sql[] =
        "SELECT n.oid IS NOT NULL, to_regclass('lockstep.fact') IS NOT NULL,"
        " (SELECT count(*) FROM pg_class c WHERE c.relnamespace = n.oid)"
        " FROM (VALUES (1)) one LEFT JOIN pg_namespace n ON n.nspname = 'lockstep'";
    PGresult *res = pg_query(db, sql, 0, NULL, e);

    if (res == NULL)
        return -1;
    *schema = pg_bool(res, 0, 0);
    *table = pg_bool(res, 0, 1);
    *strangers = pg_int(res, 0, 2);
    PQclear(res);
    return 0;
}

static int install(struct pg_db *db, struct err *e)
{
    bool schema;
    bool table;
    int64_t relations;

    /* IF NOT EXISTS asks for the right to create, and two at once still collide in the catalog:
     * so we take turns and look first. */
    if (pg_exec(db, "SELECT pg_advisory_xact_lock(" CONTROL_LOCK ")", e) != 0 ||
        schema_facts(db, &schema, &table, &relations, e) != 0)
        return -1;
    if (table)
        return pg_exec(db, create_origin, e);
    if (schema && relations > 0) {
        err_set(e, ERR_REFUSED,
                "a schema \"lockstep\" that is not lockstep's exists in database %s",
                PQdb(db->conn));
        return err_hint(e, "rename or drop that schema: the name is reserved for control tables");
    }
    if (!schema && pg_exec(db, "CREATE SCHEMA lockstep", e) != 0)
        return -1;
    if (pg_exec(db, create_facts, e) != 0)
        return -1;
    return pg_exec(db, create_origin, e);
}

int pg_control_install(struct db *db, enum db_side side, struct err *e)
{
    return in_transaction(db, install, e) == 0 ? 0 : err_wrap(e, "creating the control schema");
}

static int remove_facts(struct pg_db *db, struct err *e)
{
    bool schema;
    bool table;
    int64_t relations;
    const char *migration = db->migration;

    if (pg_exec(db, "SELECT pg_advisory_xact_lock(" CONTROL_LOCK ")", e) != 0 ||
        schema_facts(db, &schema, &table, &relations, e) != 0)
        return -1;
    if (!table)
        return 0;
    PGresult *res =
        pg_query(db, "DELETE FROM lockstep.fact WHERE migration = $1", 1, &migration, e);
    if (res == NULL)
        return -1;
    PQclear(res);
    /* The fence's triggers call functions in the schema: another migration may still hold one; and
     * one that has this server as its source has no facts here, but publishes the origins. */
    res = pg_query(db,
                   "SELECT EXISTS (SELECT FROM lockstep.fact) OR EXISTS (SELECT FROM pg_trigger"
                   " WHERE tgname = '!lockstep_fence') OR EXISTS (SELECT FROM pg_publication_rel"
                   " WHERE prrelid = to_regclass('lockstep.origin'))",
                   0, NULL, e);
    if (res == NULL)
        return -1;
    bool used = pg_bool(res, 0, 0);
    PQclear(res);
    return used ? 0 : pg_exec(db, "DROP SCHEMA lockstep CASCADE", e);
}

int pg_control_remove(struct db *db, enum db_side side, struct err *e)
{
    return in_transaction(db, remove_facts, e) == 0 ? 0
                                                    : err_wrap(e, "removing the control schema");
}

int pg_control_exists(struct db *db, bool *out, struct err *e)
{
    bool schema;
    int64_t relations;

    return schema_facts(pg_db_from(db), &schema, out, &relations, e);
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

int pg_fact_get(struct db *base, const char *kind, const char *key, bool lock, struct fact *out,
                struct err *e)
{
    struct pg_db *db = pg_db_from(base);
    const char *values[] = {db->migration, kind, key};
    const char *sql = lock ? "SELECT version, body FROM lockstep.fact WHERE migration = $1"
                             " AND kind = $2 AND key = $3 FOR UPDATE"
                           : "SELECT version, body FROM lockstep.fact WHERE migration = $1"
                             " AND kind = $2 AND key = $3";

    memset(out, 0, sizeof *out);
    PGresult *res = pg_query(db, sql, 3, values, e);
    if (res == NULL)
        return err_wrap(e, "reading fact %s/%s", kind, key);
    int rc = PQntuples(res) > 0;
    if (rc == 1) {
        out->version = pg_int(res, 0, 0);
        out->body = body_parse(PQgetvalue(res, 0, 1), kind, key, e);
        if (out->body == NULL)
            rc = -1;
    }
    PQclear(res);
    return rc;
}

int pg_fact_scan(struct db *base, const char *kind, const char *prefix, struct fact **out,
                 size_t *n, struct err *e)
{
    struct pg_db *db = pg_db_from(base);
    const char *values[] = {db->migration, kind, prefix != NULL ? prefix : ""};
    int rc = -1;

    *out = NULL;
    *n = 0;
    /* The column's collation is "C": the comparison lets the key's index find the prefix. */
    PGresult *res = pg_query(db,
                             "SELECT key, version, body FROM lockstep.fact WHERE migration = $1"
                             " AND kind = $2 AND key >= $3 AND starts_with(key, $3) ORDER BY key",
                             3, values, e);
    if (res == NULL)
        return err_wrap(e, "reading facts %s/%s*", kind, values[2]);
    size_t rows = (size_t)PQntuples(res);
    struct fact *facts = calloc(rows > 0 ? rows : 1, sizeof *facts);
    if (facts == NULL) {
        err_set(e, ERR_FATAL, "out of memory");
        goto out;
    }
    for (size_t i = 0; i < rows; i++) {
        facts[i].key = strdup(PQgetvalue(res, (int)i, 0));
        facts[i].version = pg_int(res, (int)i, 1);
        facts[i].body = body_parse(PQgetvalue(res, (int)i, 2), kind, facts[i].key, e);
        if (facts[i].body == NULL)
            goto out;
    }
    *out = facts;
    *n = rows;
    facts = NULL;
    rc = 0;
out:
    facts_release(facts, rows);
    PQclear(res);
    return rc;
}

int pg_fact_put(struct db *base, const char *kind, const char *key, int64_t expect,
                const json_t *body, struct err *e)
{
    struct pg_db *db = pg_db_from(base);
    bool in_tx = pg_in_transaction(db);
    char *text = json_dumps(body, JSON_COMPACT | JSON_ENCODE_ANY);
    char version[24];
    const char *values[] = {db->migration, kind, key, text, version};
    int nvalues = 4;
    const char *sql;

    if (text == NULL)
        return err_set(e, ERR_BUG, "fact %s/%s cannot be written as JSON", kind, key);
    snprintf(version, sizeof version, "%" PRId64, expect);
    if (expect == FACT_ABSENT) {
        sql = "INSERT INTO lockstep.fact VALUES ($1, $2, $3, 1, $4) ON CONFLICT DO NOTHING";
    } else if (expect == FACT_ANY) {
        sql = "INSERT INTO lockstep.fact AS f VALUES ($1, $2, $3, 1, $4)"
              " ON CONFLICT (migration, kind, key) DO UPDATE SET version = f.version + 1,"
              " body = excluded.body";
    } else {
        sql = "UPDATE lockstep.fact SET version = version + 1, body = $4 WHERE migration = $1"
              " AND kind = $2 AND key = $3 AND version = $5";
        nvalues = 5;
    }
    PGresult *res = pg_query(db, sql, nvalues, values, e);
    free(text);
    if (res == NULL) {
        err_wrap(e, "writing fact %s/%s", kind, key);
        return write_failed(db, in_tx, e);
    }
    int rc = strcmp(PQcmdTuples(res), "0") != 0;
    PQclear(res);
    return rc;
}

int pg_fact_delete(struct db *base, const char *kind, const char *key, struct err *e)
{
    struct pg_db *db = pg_db_from(base);
    bool in_tx = pg_in_transaction(db);
    const char *values[] = {db->migration, kind, key};
    PGresult *res =
        pg_query(db, "DELETE FROM lockstep.fact WHERE migration = $1 AND kind = $2 AND key = $3", 3,
                 values, e);

    if (res == NULL) {
        err_wrap(e, "deleting fact %s/%s", kind, key);
        return write_failed(db, in_tx, e);
    }
    PQclear(res);
    return 0;
}
