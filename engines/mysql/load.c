/* A chunk's rows into the target: INSERTs of many rows, sized by what the server takes. */
#include "core/run.h"
#include "engines/mysql/values.h"

#include <stdlib.h>
#include <string.h>

#define STATEMENT_BYTES ((size_t)1024 * 1024)

struct chunk_load {
    struct arena arena;
    const struct table *table; /* the source's */
    const struct table *there;
    struct buf sql;
    size_t head;   /* length of "INSERT … VALUES " */
    uint64_t rows; /* by the server's count */
};

static void load_release(void *data)
{
    struct chunk_load *c = data;

    buf_release(&c->sql);
    arena_release(&c->arena);
    free(c);
}

int my_load_begin(struct db *base, const struct table *t, enum block_format f, struct err *e)
{
    struct my_db *db = my_db_from(base);
    struct chunk_load *c = calloc(1, sizeof(*c));

    invariant(!db->load.data && c != NULL);
    c->table = table_copy(&c->arena, t);
    c->there = table_copy(&c->arena, table_there(t));
    buf_init(&c->sql, BUF_MAX_ROW);
    buf_adds(&c->sql, "INSERT INTO ");
    my_ident2(&c->sql, c->there->schema, c->there->name);
    buf_adds(&c->sql, " (");
    my_add_columns(&c->sql, c->there, "");
    buf_adds(&c->sql, ") VALUES ");
    c->head = c->sql.len;
    db->load = (struct my_slot){.data = c, .release = load_release};
    return buf_check(&c->sql, "an INSERT", e);
}

static size_t limit_of(const struct my_db *db)
{
    return db->max_packet / 2 < STATEMENT_BYTES ? db->max_packet / 2 : STATEMENT_BYTES;
}

static int run(struct my_db *db, struct chunk_load *c, struct err *e)
{
    bool large = c->sql.len > LARGE_ROW;
    uint64_t rows = 0;
    int rc;

    if (buf_check(&c->sql, "a row on its way to the target", e) < 0)
        return -1;
    if (large) {
        large_row_enter();
        db->large = true;
    }
    rc = my_exec(db, c->sql.data, c->sql.len, &rows, e);
    c->rows += rows;
    if (c->sql.cap > 4 * STATEMENT_BYTES) {
        struct buf fresh;

        buf_init(&fresh, c->sql.max);
        buf_add(&fresh, c->sql.data, c->head);
        buf_release(&c->sql);
        c->sql = fresh;
    }
    c->sql.len = c->head;
    if (large) {
        memory_trim();
        large_row_leave();
    }
    return rc;
}

/* One row behind those that wait; what would make the statement too long goes in the next one. */
static int add_row(struct my_db *db, struct chunk_load *c, const struct row *row, struct err *e)
{
    if (c->sql.len > c->head && c->sql.len + row_bytes(row) * 2 > limit_of(db) && run(db, c, e) < 0)
        return -1;
    if (c->sql.len > c->head)
        buf_addc(&c->sql, ',');
    return my_add_tuple(&c->sql, c->there, row, e);
}

int my_load_block(struct db *base, const struct block *b, struct err *e)
{
    struct my_db *db = my_db_from(base);
    struct chunk_load *c = db->load.data;
    int rc = 0;

    invariant(c != NULL);
    if (b->format == BLOCK_NATIVE) {
        buf_add(&c->sql, b->data, b->len);
        rc = run(db, c, e);
    }
    for (size_t i = 0; rc == 0 && b->format == BLOCK_ROWS && i < b->nrows; i++)
        rc = add_row(db, c, b->rows[i], e);
    return rc < 0 ? err_wrap(e, "loading %s", table_label(c->there)) : 0;
}

int my_load_end(struct db *base, uint64_t *rows, struct err *e)
{
    struct my_db *db = my_db_from(base);
    struct chunk_load *c = db->load.data;
    int rc = 0;

    invariant(c != NULL);
    if (c->sql.len > c->head)
        rc = run(db, c, e);
    if (rc < 0)
        err_wrap(e, "loading %s", table_label(c->there));
    *rows = c->rows;
    load_release(c);
    db->load.data = NULL;
    return rc;
}
