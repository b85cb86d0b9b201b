/* Emptying tables.
 *
 * The server refuses to TRUNCATE a table that another one refers to by a foreign key, whatever the
 * session's role is: so once the constraints stand, a table that is copied again, or one whose
 * referring table does not follow the stream, is emptied by DELETE. In replica role no foreign key
 * or trigger fires. The lock first: like TRUNCATE it waits for whoever still writes, so that no row
 * of a transaction under way outlives it. */
#include "engines/postgres/pg.h"

static void add_tables(struct buf *sql, const struct table *const *tables, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        buf_adds(sql, i ? ", ONLY " : " ONLY ");
        pg_ident2(sql, table_there(tables[i])->schema, table_there(tables[i])->name);
    }
}

static int run(struct pg_db *db, struct buf *sql, struct err *e)
{
    return buf_check(sql, "a TRUNCATE", e) < 0 ? -1 : pg_exec(db, sql->data, e);
}

/* 1: a table outside of the list refers to one in it; 0; -1. */
static int is_referred_to(struct pg_db *db, const struct table *const *tables, size_t n,
                          struct err *e)
{
    PGresult *res = NULL;
    struct buf sql;
    struct buf name;
    int rc = -1;

    buf_init(&sql, BUF_MAX_TEXT);
    buf_init(&name, BUF_MAX_TEXT);
    buf_adds(&sql, "SELECT EXISTS (SELECT FROM pg_constraint c, (SELECT ARRAY[");
    for (size_t i = 0; i < n; i++) {
        buf_reset(&name, BUF_MAX_TEXT);
        pg_ident2(&name, table_there(tables[i])->schema, table_there(tables[i])->name);
        buf_adds(&sql, i ? ", " : "");
        pg_literal(&sql, name.data);
        buf_adds(&sql, "::regclass::oid");
    }
    buf_adds(&sql, "] AS oids) l WHERE c.contype = 'f' AND c.confrelid = ANY (l.oids)"
                   " AND c.conrelid <> ALL (l.oids))");
    if (buf_check(&sql, "a TRUNCATE", e) == 0)
        res = pg_query(db, sql.data, 0, NULL, e);
    if (res)
        rc = pg_bool(res, 0, 0);
    PQclear(res);
    buf_release(&name);
    buf_release(&sql);
    return rc;
}

static int delete_all(struct pg_db *db, const struct table *const *tables, size_t n, struct err *e)
{
    int timeout_ms = db->timeout_ms;
    struct buf sql;
    int rc;

    buf_init(&sql, BUF_MAX_TEXT);
    if (db->use != DB_APPLY && db->use != DB_LOAD)
        buf_adds(&sql, "SET LOCAL session_replication_role = replica; ");
    buf_adds(&sql, "LOCK TABLE");
    add_tables(&sql, tables, n);
    buf_adds(&sql, " IN SHARE ROW EXCLUSIVE MODE");
    rc = run(db, &sql, e);
    if (timeout_ms >= 0 && timeout_ms < DB_WHOLE_TABLE_MS)
        db->timeout_ms = DB_WHOLE_TABLE_MS;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        buf_reset(&sql, BUF_MAX_TEXT);
        buf_adds(&sql, "DELETE FROM");
        add_tables(&sql, &tables[i], 1);
        rc = run(db, &sql, e);
    }
    db->timeout_ms = timeout_ms;
    buf_release(&sql);
    return rc;
}

static int truncate_all(struct pg_db *db, const struct table *const *tables, size_t n, bool restart,
                        struct err *e)
{
    struct buf sql;
    int rc;

    buf_init(&sql, BUF_MAX_TEXT);
    buf_adds(&sql, "TRUNCATE");
    add_tables(&sql, tables, n);
    if (restart)
        buf_adds(&sql, " RESTART IDENTITY");
    rc = run(db, &sql, e);
    buf_release(&sql);
    return rc;
}

/* A DELETE restarts no sequence; the cutover sets them all. */
int pg_truncate(struct db *base, const struct table *const *tables, size_t n, bool restart,
                struct err *e)
{
    struct pg_db *db = pg_db_from(base);
    int rc;

    invariant(n > 0);
    rc = is_referred_to(db, tables, n, e);
    if (rc >= 0)
        rc = rc ? delete_all(db, tables, n, e) : truncate_all(db, tables, n, restart, e);
    return rc < 0 ? err_wrap(e, "truncating %s", table_label(tables[0])) : 0;
}
