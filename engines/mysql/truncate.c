/* Emptying tables. TRUNCATE commits by itself on this engine, and what is emptied must come back
 * if the transaction does not commit: so the rows are deleted. That takes time in proportion to
 * them, and it restarts no AUTO_INCREMENT; the cutover sets them all. */
#include "engines/mysql/my.h"

int my_truncate(struct db *base, const struct table *const *tables, size_t n, bool restart,
                struct err *e)
{
    struct my_db *db = my_db_from(base);
    int timeout_ms = db->timeout_ms;
    struct buf sql;
    int rc = 0;

    invariant(n > 0);
    buf_init(&sql, BUF_MAX_TEXT);
    /* Rows that refer to deleted ones are the stream's business, whatever the session is for. */
    if (db->use != DB_APPLY && db->use != DB_LOAD)
        rc = my_execf(db, e, "SET SESSION foreign_key_checks = 0");
    if (timeout_ms < DB_WHOLE_TABLE_MS)
        db->timeout_ms = DB_WHOLE_TABLE_MS;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        const struct table *there = table_there(tables[i]);

        buf_reset(&sql, BUF_MAX_TEXT);
        buf_adds(&sql, "DELETE FROM ");
        my_ident2(&sql, there->schema, there->name);
        rc = my_exec(db, sql.data, sql.len, NULL, e);
    }
    db->timeout_ms = timeout_ms;
    buf_release(&sql);
    return rc < 0 ? err_wrap(e, "emptying %s", table_label(table_there(tables[0]))) : 0;
}
