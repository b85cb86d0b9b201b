/* Making and dropping the publication, the slot and the snapshot in which a migration starts.
 *
 * CREATE_REPLICATION_SLOT waits for every transaction that runs when it begins, prepared ones and
 * those that hang in synchronous replication too: for hours, if they take hours. So it is waited
 * for with an end, and who stands in the way is named. Until it has succeeded the server holds the
 * slot as ephemeral and drops it with our connection.
 *
 * The exported snapshot lives only until that connection's next command; a holder imports it and
 * exports it again, so that the slot is free to stream. The snapshot is the log's view, and in the
 * log a transaction commits before other sessions see it so: before anybody imports it we wait
 * until no transaction that it calls finished is still listed as running. */
#include "engines/postgres/slot.h"

#include "core/run.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAKE_TIMEOUT_MS 60000
#define NAP_MS 50
#define TOO_LARGE_RETRIES 20
#define DROP_TIMEOUT_MS 20000

/* ---- looking ---- */

int pg_slot_look(struct pg_db *db, struct pg_slot_state *out, struct err *e)
{
    char name[PG_NAME_MAX];
    const char *values[] = {name};
    char sql[1000];
    PGresult *res;

    memset(out, 0, sizeof(*out));
    pg_object_name(db, name);
    snprintf(sql, sizeof(sql),
             "SELECT pg_is_in_recovery(), s.slot_name IS NOT NULL,"
             " s.plugin = 'pgoutput' AND s.database = current_database() AND NOT s.temporary,"
             " %s, s.active, s.active_pid, s.confirmed_flush_lsn::text,"
             " CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_insert_lsn()::text END,"
             " txid_snapshot_xmax(txid_current_snapshot())"
             " FROM (SELECT 1) one LEFT JOIN pg_replication_slots s ON s.slot_name = $1",
             db->version >= 130000 ? "s.wal_status = 'lost'" : "false");
    res = pg_query(db, sql, 1, values, e);
    if (!res)
        return err_wrap(e, "looking at the replication slot %s", name);
    out->standby = pg_bool(res, 0, 0);
    out->exists = pg_bool(res, 0, 1);
    out->ours = pg_bool(res, 0, 2);
    out->lost = pg_bool(res, 0, 3);
    out->active = pg_bool(res, 0, 4);
    out->pid = (int)pg_int(res, 0, 5);
    (void)pg_parse_lsn(pg_text(res, 0, 6), &out->confirmed);
    (void)pg_parse_lsn(pg_text(res, 0, 7), &out->insert);
    out->next_xid = (uint64_t)pg_int(res, 0, 8);
    PQclear(res);
    return 0;
}

/* ---- making ---- */

/* Who is waited for, for the message. From the locks, which every role may see: each transaction
 * that writes holds the one on its own id. */
static void name_blockers(struct pg_db *control, struct buf *who)
{
    static const char sql[] =
        "SELECT DISTINCT 'pid ' || l.pid || coalesce(' (' || a.usename || ')', '')"
        " FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid"
        " WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted"
        " AND l.pid <> pg_backend_pid()"
        " UNION ALL SELECT 'prepared transaction ' || quote_literal(gid) FROM pg_prepared_xacts"
        " ORDER BY 1 LIMIT 8";
    PGresult *res = pg_query(control, sql, 0, NULL, NULL);

    for (int i = 0; res && i < PQntuples(res); i++)
        buf_addf(who, "%s%s", i ? ", " : "", PQgetvalue(res, i, 0));
    if (!who->len)
        buf_adds(who, "unknown");
    PQclear(res);
}

static int blocked(struct pg_db *control, const char *doing, int waited_ms, struct err *e)
{
    struct buf who;

    buf_init(&who, BUF_MAX_TEXT);
    name_blockers(control, &who);
    err_set(e, ERR_RETRY, "%s: running transactions did not end within %d s: %.700s", doing,
            waited_ms / 1000, who.data);
    buf_release(&who);
    return err_hint(e, "end them (pg_terminate_backend, ROLLBACK PREPARED) or run again later");
}

static int made_in_time(const struct db_options *o)
{
    return o->timeout_ms > 0 ? o->timeout_ms : MAKE_TIMEOUT_MS;
}

static bool message_has(const struct err *e, const char *text)
{
    return strstr(e->msg, text) != NULL;
}

/* One attempt. Its own error for "no free slot"; a wait that ended in vain names who it was for. */
static int create_once(struct pg_db *log, struct pg_db *control, const char *name, bool temporary,
                       PGresult **out, struct err *e)
{
    char sql[200];
    int waited_ms = log->timeout_ms;

    snprintf(sql, sizeof(sql), "CREATE_REPLICATION_SLOT \"%s\"%s LOGICAL pgoutput EXPORT_SNAPSHOT",
             name, temporary ? " TEMPORARY" : "");
    *out = NULL;
    if (pg_send(log, sql, NULL, e) == 0)
        *out = pg_collect(log, e);
    if (*out)
        return 0;
    if (strcmp(e->sqlstate, "53400") == 0) {
        e->class = ERR_REFUSED;
        return err_hint(e, "raise max_replication_slots on the source (and restart it), or drop a "
                           "slot that nobody needs");
    }
    if (log->broken && e->class == ERR_RETRY && !e->sqlstate[0] &&
        PQstatus(log->conn) != CONNECTION_BAD)
        return blocked(control, "creating the replication slot", waited_ms, e);
    return -1;
}

static int create(const struct db_options *o, struct pg_db *control, const char *name,
                  bool temporary, struct pg_db **log, PGresult **out, struct err *e)
{
    struct db_options options = *o;

    options.use = DB_CONTROL;
    for (int attempt = 0;; attempt++) {
        err_clear(e);
        if (pg_connect(&options, "slot", true, log, e) < 0)
            return -1;
        (*log)->timeout_ms = made_in_time(o);
        if (create_once(*log, control, name, temporary, out, e) == 0)
            return 0;
        pg_close(&(*log)->base);
        *log = NULL;
        if (!message_has(e, "initial slot snapshot too large") || attempt >= TOO_LARGE_RETRIES)
            return -1;
        nap_ms(NAP_MS);
        if (stop_check(e) < 0)
            return -1;
    }
}

static int hold(const struct db_options *o, const char *snapshot, struct arena *a,
                struct pg_slot_made *out, struct err *e)
{
    struct db_options options = *o;
    struct pg_db *holder;
    PGresult *res;
    char sql[200];

    options.use = DB_READ;
    if (pg_connect(&options, "holder", false, &holder, e) < 0)
        return -1;
    snprintf(sql, sizeof(sql),
             "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '%s'",
             snapshot);
    res = pg_exec(holder, sql, e) == 0 ? pg_query(holder, "SELECT pg_export_snapshot()", 0, NULL, e)
                                       : NULL;
    if (!res) {
        pg_close(&holder->base);
        return err_wrap(e, "holding the slot's snapshot");
    }
    out->snapshot = arena_strdup(a, PQgetvalue(res, 0, 0));
    out->holder = &holder->base;
    PQclear(res);
    return 0;
}

static bool snapshot_name_ok(const char *name)
{
    return name && name[0] && strlen(name) < 64 &&
           strspn(name, "0123456789ABCDEFabcdef-") == strlen(name);
}

static int take_made(const struct db_options *o, const PGresult *res, struct arena *a,
                     struct pg_slot_made *out, struct err *e)
{
    if (PQntuples(res) != 1 || PQnfields(res) < 3 ||
        pg_parse_lsn(pg_text(res, 0, 1), &out->lsn) < 0 || !snapshot_name_ok(pg_text(res, 0, 2)))
        return err_set(e, ERR_FATAL, "the server made a replication slot, but does not say where");
    return hold(o, pg_text(res, 0, 2), a, out, e);
}

int pg_slot_make(const struct db_options *o, const char *name, bool temporary, struct arena *a,
                 struct pg_slot_made *out, struct err *e)
{
    struct db_options options = *o;
    struct pg_db *control = NULL;
    struct pg_db *log = NULL;
    PGresult *res = NULL;
    struct err own;
    int rc = -1;

    e = e ? e : &own;
    memset(out, 0, sizeof(*out));
    options.use = DB_CONTROL;
    if (pg_connect(&options, "origin", false, &control, e) == 0 &&
        create(o, control, name, temporary, &log, &res, e) == 0)
        rc = take_made(o, res, a, out, e);
    PQclear(res);
    /* Closing alone would leave it for a moment. */
    if (rc == 0 && temporary)
        (void)pg_execf(log, NULL, "DROP_REPLICATION_SLOT \"%s\"", name);
    if (log)
        pg_close(&log->base);
    if (control)
        pg_close(&control->base);
    return rc;
}

/* ---- the start of a migration ---- */

/* What the publication lists: a partitioned table where all its leaves are chosen, so that a leaf
 * made later is in the stream too (and parks its root) instead of being lost; else the leaves. */
static const char published_sql[] =
    "WITH chosen AS (SELECT o AS oid, pg_partition_root(o) AS root FROM unnest($1::oid[]) o),"
    " whole AS (SELECT DISTINCT root FROM chosen c WHERE root IS NOT NULL AND NOT EXISTS"
    "  (SELECT FROM pg_partition_tree(c.root) p WHERE p.isleaf AND"
    "   p.relid NOT IN (SELECT oid FROM chosen)))"
    " SELECT DISTINCT coalesce(w.root, c.oid)::regclass::text FROM chosen c"
    " LEFT JOIN whole w ON w.root = c.root ORDER BY 1";

static PGresult *published(struct pg_db *db, const struct table_list *tables, struct err *e)
{
    struct buf oids;
    const char *values[1];
    PGresult *res;

    buf_init(&oids, BUF_MAX_TEXT);
    for (size_t i = 0; i < tables->n; i++)
        buf_addf(&oids, "%c%u", i ? ',' : '{', tables->v[i]->id);
    buf_adds(&oids, tables->n ? "}" : "{}");
    values[0] = oids.data;
    res = pg_query(db, published_sql, 1, values, e);
    buf_release(&oids);
    return res;
}

static int create_publication(struct pg_db *db, const char *name, const struct table_list *tables,
                              struct err *e)
{
    PGresult *res = published(db, tables, e);
    struct buf sql;
    int rc;

    if (!res)
        return -1;
    buf_init(&sql, BUF_MAX_TEXT);
    buf_addf(&sql, "CREATE PUBLICATION \"%s\" FOR TABLE ONLY lockstep.origin", name);
    for (int i = 0; i < PQntuples(res); i++)
        buf_addf(&sql, ", ONLY %s", PQgetvalue(res, i, 0));
    PQclear(res);
    buf_addf(&sql, " WITH (publish = 'insert, update, delete, truncate'%s)",
             db->version >= 130000 ? ", publish_via_partition_root = false" : "");
    rc = buf_check(&sql, "the publication's statement", e);
    if (rc == 0)
        rc = pg_exec(db, sql.data, e);
    buf_release(&sql);
    return rc < 0 ? err_wrap(e, "creating the publication %s", name) : 0;
}

/* The way back begins on a server whose tables are ours: one that has neither a key nor another
 * identity is given the whole row. */
static int give_identities(struct pg_db *db, const struct table_list *tables, struct err *e)
{
    struct buf sql;
    int rc = 0;

    buf_init(&sql, BUF_MAX_TEXT);
    for (size_t i = 0; rc == 0 && i < tables->n; i++) {
        struct table *t = tables->v[i];

        if (t->identity != IDENTITY_NONE)
            continue;
        buf_reset(&sql, BUF_MAX_TEXT);
        buf_adds(&sql, "ALTER TABLE ONLY ");
        pg_ident2(&sql, t->schema, t->name);
        buf_adds(&sql, " REPLICA IDENTITY FULL");
        rc = pg_exec(db, sql.data, e);
        if (rc < 0)
            err_wrap(e, "%s", table_label(t));
        else
            t->identity = IDENTITY_FULL;
    }
    buf_release(&sql);
    return rc;
}

/* Nothing of ours may be there yet: what is, belongs to a migration of the same name. */
static int check_free(struct pg_db *db, const char *name, struct err *e)
{
    const char *values[] = {name};
    PGresult *res = pg_query(db,
                             "SELECT pg_is_in_recovery(), current_setting('wal_level'),"
                             " (SELECT count(*) FROM pg_publication WHERE pubname = $1)"
                             " + (SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1),"
                             " (SELECT count(*) FROM pg_replication_slots)"
                             " >= current_setting('max_replication_slots')::int",
                             1, values, e);
    int rc = 0;

    if (!res)
        return -1;
    if (pg_bool(res, 0, 0)) {
        rc = err_set(e, ERR_REFUSED, "the source is a hot standby; its snapshots are not exact");
        err_hint(e, "name the primary as the source");
    } else if (strcmp(PQgetvalue(res, 0, 1), "logical") != 0) {
        rc = err_set(e, ERR_REFUSED, "the source's wal_level is %s", PQgetvalue(res, 0, 1));
        err_hint(e, "set wal_level = logical on the source and restart it");
    } else if (pg_int(res, 0, 2) > 0) {
        rc = err_set(e, ERR_REFUSED, "the publication or slot %s exists already", name);
        err_hint(e,
                 "another migration of this name uses it, or `lockstep finish --abandon` drops it");
    } else if (pg_bool(res, 0, 3)) {
        rc = err_set(e, ERR_REFUSED, "no replication slot is free");
        err_hint(e, "raise max_replication_slots on the source (and restart it), or drop a slot "
                    "that nobody needs");
    }
    PQclear(res);
    return rc;
}

/* Every transaction that the exported cut calls finished must have left the list of the running
 * ones. */
static int wait_until_seen(struct pg_db *control, const char *cut, int limit_ms, struct err *e)
{
    const char *values[] = {cut};
    int64_t deadline = mono_ms() + limit_ms;

    for (;;) {
        PGresult *res = pg_query(control,
                                 "SELECT count(*) FROM txid_snapshot_xip(txid_current_snapshot()) x"
                                 " WHERE txid_visible_in_snapshot(x, $1::txid_snapshot)",
                                 1, values, e);
        int64_t n;

        if (!res)
            return -1;
        n = pg_int(res, 0, 0);
        PQclear(res);
        if (n == 0)
            return 0;
        if (mono_ms() > deadline)
            return blocked(control, "waiting for commits in the snapshot to become visible",
                           limit_ms, e);
        nap_ms(NAP_MS);
        if (stop_check(e) < 0)
            return -1;
    }
}

static int read_origin(struct pg_db *control, const struct pg_slot_made *made, struct arena *a,
                       struct stream_origin *out, struct err *e)
{
    int limit_ms = control->timeout_ms;
    PGresult *res = pg_query(pg_db_from(made->holder), "SELECT " PG_SQL_CUT, 0, NULL, e);
    uint64_t past;

    if (!res)
        return -1;
    out->start = (struct position){made->lsn, 0};
    out->snapshot = made->snapshot;
    out->holder = made->holder;
    out->cut.text = arena_strdup(a, PQgetvalue(res, 0, 0));
    PQclear(res);
    if (wait_until_seen(control, out->cut.text, limit_ms, e) < 0)
        return -1;
    res = pg_query(control, "SELECT pg_current_wal_insert_lsn()::text", 0, NULL, e);
    if (!res)
        return -1;
    if (pg_parse_lsn(pg_text(res, 0, 0), &past) < 0)
        past = made->lsn;
    PQclear(res);
    out->cut.past = (struct position){past, 0};
    return 0;
}

int pg_stream_create(const struct db_options *o, const struct table_list *tables, bool retry,
                     struct arena *a, struct stream_origin *out, struct err *e)
{
    struct db_options options = *o;
    struct pg_slot_made made = {0};
    struct pg_db *control = NULL;
    char name[PG_NAME_MAX];
    int rc = -1;

    memset(out, 0, sizeof(*out));
    options.use = DB_CONTROL;
    if (retry && pg_stream_drop(o, e) < 0)
        return -1;
    if (pg_connect(&options, "origin", false, &control, e) < 0)
        return -1;
    pg_object_name(control, name);
    if (check_free(control, name, e) < 0)
        goto out;
    if (pg_control_install(&control->base, SIDE_SOURCE, e) < 0 ||
        (o->back && give_identities(control, tables, e) < 0) ||
        create_publication(control, name, tables, e) < 0)
        goto out;
    if (pg_slot_make(o, name, false, a, &made, e) == 0 &&
        read_origin(control, &made, a, out, e) == 0) {
        rc = 0;
        goto out;
    }
    pg_close(made.holder);
    memset(out, 0, sizeof(*out));
    (void)pg_stream_drop(o, NULL);
out:
    pg_close(&control->base);
    return rc;
}

/* ---- dropping ---- */

static int drop_slot(struct pg_db *db, const char *name, struct err *e)
{
    int64_t deadline = mono_ms() + DROP_TIMEOUT_MS;
    const char *values[] = {name};

    for (;;) {
        struct pg_slot_state slot;
        PGresult *res;

        if (pg_slot_look(db, &slot, e) < 0)
            return -1;
        if (!slot.exists)
            return 0;
        if (!slot.ours)
            return err_set(e, ERR_REFUSED, "the replication slot %s is not one of ours", name);
        if (slot.active) {
            char pid[16];
            const char *who[] = {pid};

            snprintf(pid, sizeof(pid), "%d", slot.pid);
            res = pg_query(db, "SELECT pg_terminate_backend($1::int)", 1, who, e);
        } else {
            res = pg_query(db, "SELECT pg_drop_replication_slot($1)", 1, values, e);
        }
        /* 42704: it went by itself; 55006: it became active again. */
        if (!res && strcmp(e->sqlstate, "42704") != 0 && strcmp(e->sqlstate, "55006") != 0)
            return err_wrap(e, "dropping the replication slot %s", name);
        PQclear(res);
        if (mono_ms() > deadline)
            return err_set(e, ERR_RETRY, "the replication slot %s stays active (pid %d)", name,
                           slot.pid);
        nap_ms(NAP_MS);
    }
}

int pg_stream_drop(const struct db_options *o, struct err *e)
{
    struct db_options options = *o;
    struct pg_db *db;
    char name[PG_NAME_MAX];
    struct err own;
    int rc;

    e = e ? e : &own;
    err_clear(e);
    options.use = DB_CONTROL;
    if (pg_connect(&options, "drop", false, &db, e) < 0)
        return -1;
    pg_object_name(db, name);
    rc = drop_slot(db, name, e);
    if (rc == 0)
        rc = pg_execf(db, e, "DROP PUBLICATION IF EXISTS \"%s\"", name);
    pg_close(&db->base);
    return rc;
}
