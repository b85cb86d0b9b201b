/* The two ends of a comparison: snapshots at one position of the stream, and rows in canonical text
 * under them. A row's text is COPY's own under the session's settings, which are the same on every
 * server (session.c). */
#include "engines/postgres/bulk.h"
#include "engines/postgres/range.h"
#include "engines/postgres/slot.h"
#include "engines/postgres/values.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Keys of one statement. */
#define KEYS_PER_SCAN 500

int pg_pin_source(const struct db_options *o, struct arena *a, struct pin *out, struct err *e)
{
    struct pg_slot_made made;
    char name[PG_NAME_MAX * 2];

    memset(out, 0, sizeof(*out));
    snprintf(name, sizeof(name), PG_OBJECT_PREFIX "%s_pin%d", o->migration, (int)getpid());
    name[PG_NAME_MAX - 1] = '\0';
    if (pg_slot_make(o, name, true, a, &made, e) < 0)
        return err_wrap(e, "taking a snapshot at a position of the stream");
    out->next = (struct position){made.lsn, 0};
    out->snapshot = made.snapshot;
    out->holder = made.holder;
    return 0;
}

int pg_pin_target(struct db *base, char *snapshot, size_t size, struct err *e)
{
    struct pg_db *db = pg_db_from(base);
    PGresult *res;

    if (!pg_in_transaction(db))
        return err_set(e, ERR_BUG, "a target's snapshot lives in a transaction, and none is open");
    res = pg_query(db, "SELECT pg_export_snapshot()", 0, NULL, e);
    if (!res)
        return err_wrap(e, "exporting the target's snapshot");
    snprintf(snapshot, size, "%s", PQgetvalue(res, 0, 0));
    PQclear(res);
    return 0;
}

/* ---- rows ---- */

struct scan {
    struct pg_lines lines;
    struct arena arena; /* table and keys */
    const struct table *table;
    const struct row **keys;
    size_t nkeys;
    size_t at; /* the first key that no statement has asked for yet */
    struct arena row_arena;
};

static void scan_release(void *data)
{
    struct scan *s = data;

    pg_lines_close(&s->lines);
    arena_release(&s->row_arena);
    arena_release(&s->arena);
    free(s);
}

static void add_keys(struct buf *sql, struct scan *s)
{
    buf_adds(sql, " WHERE ");
    pg_add_key_columns(sql, s->table, "");
    buf_adds(sql, " IN (VALUES ");
    for (size_t i = 0; s->at < s->nkeys && i < KEYS_PER_SCAN; i++, s->at++) {
        buf_adds(sql, i ? ", " : "");
        if (s->table->nkey == 1)
            buf_addc(sql, '(');
        pg_add_key_literals(sql, s->table, s->keys[s->at]);
        if (s->table->nkey == 1)
            buf_addc(sql, ')');
    }
    buf_addc(sql, ')');
}

static int start_copy(struct pg_db *db, struct scan *s, struct err *e)
{
    struct buf sql;
    int rc;

    buf_init(&sql, BUF_MAX_TEXT);
    buf_adds(&sql, "COPY (SELECT ");
    pg_add_columns(&sql, s->table, "");
    buf_adds(&sql, " FROM ONLY ");
    pg_ident2(&sql, s->table->schema, s->table->name);
    if (s->keys)
        add_keys(&sql, s);
    buf_adds(&sql, ") TO STDOUT");
    rc = buf_check(&sql, "a scan's statement", e);
    if (rc == 0)
        rc = pg_lines_open(&s->lines, db, sql.data, e);
    buf_release(&sql);
    return rc;
}

static int open_snapshot(struct pg_db *db, const char *snapshot, struct err *e)
{
    struct buf sql;
    int rc;

    if (pg_in_transaction(db))
        return err_set(e, ERR_BUG, "a scan has a transaction of its own, and one is open");
    buf_init(&sql, BUF_MAX_TEXT);
    buf_adds(&sql, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    if (snapshot) {
        buf_adds(&sql, "; SET TRANSACTION SNAPSHOT ");
        pg_literal(&sql, snapshot);
    }
    rc = pg_exec(db, sql.data, e);
    buf_release(&sql);
    return rc;
}

int pg_scan_begin(struct db *base, const struct table *t, const char *snapshot,
                  const struct row *const *keys, size_t nkeys, struct err *e)
{
    struct pg_db *db = pg_db_from(base);
    struct scan *s;

    invariant(!db->scan.data && (!keys || t->nkey > 0));
    if (pg_renew(db, e) < 0 || open_snapshot(db, snapshot, e) < 0) {
        (void)pg_rollback(base, NULL);
        return err_wrap(e, "reading %s", table_label(t));
    }
    s = calloc(1, sizeof(*s));
    invariant(s != NULL);
    db->scan = (struct pg_slot){.data = s, .release = scan_release};
    s->table = table_copy(&s->arena, t);
    s->nkeys = nkeys;
    s->keys = keys ? arena_alloc(&s->arena, (nkeys + 1) * sizeof(*s->keys)) : NULL;
    for (size_t i = 0; keys && i < nkeys; i++)
        s->keys[i] = row_copy(&s->arena, keys[i]);
    s->lines.ended = true;
    if ((keys && nkeys == 0) || start_copy(db, s, e) == 0)
        return 0;
    err_wrap(e, "reading %s", table_label(t));
    scan_release(s);
    db->scan.data = NULL;
    if (!db->broken)
        (void)pg_rollback(base, NULL);
    return -1;
}

int pg_scan_next(struct db *base, const struct row **out, struct err *e)
{
    struct pg_db *db = pg_db_from(base);
    struct scan *s = db->scan.data;
    struct row *row;
    int rc;

    invariant(s != NULL);
    while ((rc = s->lines.ended ? 0 : pg_lines_next(&s->lines, e)) == 0) {
        if (!s->keys || s->at == s->nkeys)
            return 0;
        pg_lines_close(&s->lines);
        if (start_copy(db, s, e) < 0)
            return err_wrap(e, "reading %s", table_label(s->table));
    }
    if (rc < 0)
        return err_wrap(e, "reading %s", table_label(s->table));
    arena_reset(&s->row_arena);
    if (pg_copy_decode(&s->row_arena, s->table, s->lines.line, s->lines.len, &row, e) < 0)
        return -1;
    *out = row;
    return 1;
}

int pg_scan_end(struct db *base, struct err *e)
{
    struct pg_db *db = pg_db_from(base);

    if (db->scan.data)
        scan_release(db->scan.data);
    db->scan.data = NULL;
    if (db->broken)
        return err_set(e, ERR_RETRY, "the connection was lost while rows were read");
    return pg_rollback(base, e);
}
