/* The two ends of a comparison: snapshots that stay in the connection which opened them, and rows
 * in canonical text under them. */
#include "engines/mysql/range.h"
#include "engines/mysql/snapshot.h"
#include "engines/mysql/values.h"

#include <stdlib.h>
#include <string.h>

/* Keys of one statement. */
#define KEYS_PER_SCAN 500

int my_pin_source(const struct db_options *o, struct arena *a, struct pin *out, struct err *e)
{
    struct db_options mine = *o;
    struct my_db *db;

    memset(out, 0, sizeof(*out));
    mine.use = DB_READ;
    if (my_connect(&mine, &db, e) < 0)
        return -1;
    if (my_snapshot_open(db, &out->next, e) < 0) {
        my_close(&db->base);
        return -1;
    }
    out->holder = &db->base;
    return 0;
}

/* The open transaction has read nothing, so it can be begun again with a view. */
int my_pin_target(struct db *base, char *snapshot, size_t size, struct err *e)
{
    struct my_db *db = my_db_from(base);

    if (size)
        snapshot[0] = '\0';
    if (!db->in_txn)
        return err_set(e, ERR_BUG, "a target's snapshot lives in a transaction, and none is open");
    if (my_execf(db, e,
                 "ROLLBACK; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;"
                 "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY") < 0)
        return err_wrap(e, "taking the target's snapshot");
    return 0;
}

/* ---- rows ---- */

struct scan {
    struct my_db *db;
    MYSQL_RES *res;
    struct arena arena; /* table and keys */
    const struct table *table;
    const struct row **keys;
    size_t nkeys;
    size_t at;    /* the first key that no statement has asked for yet */
    bool own_txn; /* begun by scan_begin, ended by scan_end */
    struct arena row_arena;
};

static void scan_release(void *data)
{
    struct scan *s = data;

    my_rows_end(s->db, s->res);
    arena_release(&s->row_arena);
    arena_release(&s->arena);
    free(s);
}

static int add_keys(struct buf *sql, struct scan *s, struct err *e)
{
    buf_adds(sql, " WHERE ");
    for (size_t i = 0; s->at < s->nkeys && i < KEYS_PER_SCAN; i++, s->at++) {
        buf_adds(sql, i ? " OR (" : "(");
        if (my_add_key_equal(sql, s->table, s->keys[s->at], e) < 0)
            return -1;
        buf_addc(sql, ')');
    }
    return 0;
}

static int start_select(struct scan *s, struct err *e)
{
    struct buf sql;
    int rc = 0;

    buf_init(&sql, BUF_MAX_TEXT);
    buf_adds(&sql, "SELECT ");
    my_add_selects(&sql, s->table);
    buf_adds(&sql, " FROM ");
    my_ident2(&sql, s->table->schema, s->table->name);
    if (s->keys)
        rc = add_keys(&sql, s, e);
    if (rc == 0)
        rc = buf_check(&sql, "a scan's statement", e);
    if (rc == 0) {
        s->res = my_query_stream(s->db, sql.data, sql.len, e);
        rc = s->res ? 0 : -1;
    }
    buf_release(&sql);
    return rc;
}

static int open_view(struct my_db *db, bool *own, struct err *e)
{
    *own = !db->in_txn;
    if (db->in_txn)
        return 0;
    if (my_execf(db, e,
                 "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;"
                 "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY") < 0)
        return -1;
    db->in_txn = true;
    return 0;
}

int my_scan_begin(struct db *base, const struct table *t, const char *snapshot,
                  const struct row *const *keys, size_t nkeys, struct err *e)
{
    struct my_db *db = my_db_from(base);
    struct scan *s;
    bool own;

    invariant(!db->scan.data && (!keys || t->nkey > 0));
    if (snapshot && snapshot[0])
        return err_set(e, ERR_BUG, "this engine's snapshots have no names");
    if (open_view(db, &own, e) < 0)
        return err_wrap(e, "reading %s", table_label(t));
    s = calloc(1, sizeof(*s));
    invariant(s != NULL);
    s->db = db;
    s->own_txn = own;
    db->scan = (struct my_slot){.data = s, .release = scan_release};
    s->table = table_copy(&s->arena, t);
    s->nkeys = nkeys;
    s->keys = keys ? arena_alloc(&s->arena, (nkeys + 1) * sizeof(*s->keys)) : NULL;
    for (size_t i = 0; keys && i < nkeys; i++)
        s->keys[i] = row_copy(&s->arena, keys[i]);
    if ((keys && nkeys == 0) || start_select(s, e) == 0)
        return 0;
    err_wrap(e, "reading %s", table_label(t));
    scan_release(s);
    db->scan.data = NULL;
    if (own && !db->broken)
        (void)my_rollback(base, NULL);
    return -1;
}

int my_scan_next(struct db *base, const struct row **out, struct err *e)
{
    struct scan *s = my_db_from(base)->scan.data;
    unsigned long *lengths;
    struct row *row;
    MYSQL_ROW text;
    int rc;

    invariant(s != NULL);
    while ((rc = s->res ? my_fetch(s->db, s->res, &text, &lengths, e) : 0) == 0) {
        my_stream_free(s->db, s->res);
        s->res = NULL;
        if (!s->keys || s->at == s->nkeys)
            return 0;
        if (start_select(s, e) < 0)
            return err_wrap(e, "reading %s", table_label(s->table));
    }
    if (rc < 0)
        return err_wrap(e, "reading %s", table_label(s->table));
    arena_reset(&s->row_arena);
    if (my_row_read(&s->row_arena, s->table, text, lengths, true, &row, e) < 0)
        return -1;
    *out = row;
    return 1;
}

int my_scan_end(struct db *base, struct err *e)
{
    struct my_db *db = my_db_from(base);
    struct scan *s = db->scan.data;
    bool own = s && s->own_txn;

    if (s)
        scan_release(s);
    db->scan.data = NULL;
    if (db->broken)
        return err_set(e, ERR_RETRY, "the connection was lost while rows were read");
    return own ? my_rollback(base, e) : 0;
}
