/* Statements in the binlog: what they begin and end, and which planned tables they name. */
#include "engines/mysql/binlog_bytes.h"
#include "engines/mysql/binlog_machine.h"
#include "engines/mysql/binlog_sql.h"

#include "core/text.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static void name_table(struct binlog *b, struct binlog_table *t, bool truncate, const char *why)
{
    b->naming = true;
    b->named_at = 0;
    if (truncate)
        t->truncated = true;
    else
        t->named = why;
}

struct naming {
    struct binlog *b;
    bool truncate;
    const char *sql; /* printable, in the row's arena */
};

/* Names that differ in case only may be the same on this server: then the table parks. */
static void take_sql_name(void *arg, const struct sql_name *name)
{
    struct naming *n = arg;

    for (size_t i = 0; i < n->b->n; i++) {
        struct binlog_table *t = &n->b->tables[i];
        bool exact;

        if (strcasecmp(t->table->schema, name->schema) != 0 ||
            (name->table[0] && strcasecmp(t->table->name, name->table) != 0))
            continue;
        exact =
            strcmp(t->table->schema, name->schema) == 0 && strcmp(t->table->name, name->table) == 0;
        name_table(n->b, t, n->truncate && exact,
                   arena_printf(&n->b->row, "the source ran on it: %s", n->sql));
    }
}

static void on_ddl(struct binlog *b, const char *sql, size_t len, const char *schema, bool truncate)
{
    char *text = arena_strndup(&b->row, sql, len < 200 ? len : 200);
    struct naming n = {.b = b, .truncate = truncate, .sql = text};

    for (char *p = text; *p; p++)
        *p = (unsigned char)*p < 0x20 ? ' ' : *p;
    text_clean(text); /* in whatever character set it was said, and cut */
    sql_names(sql, len, schema, take_sql_name, &n);
}

static int on_dml(struct binlog *b, const char *sql, size_t len, const char *schema, struct err *e)
{
    for (size_t i = 0; i < b->n; i++) {
        const struct table *t = b->tables[i].table;

        if (strcasecmp(t->schema, schema) != 0 && !sql_mentions(sql, len, t->schema))
            continue;
        err_set(e, ERR_FATAL,
                "transaction %s has a statement instead of rows, in the migrated database %s: "
                "%.*s",
                b->gtid, t->schema, len < 200 ? (int)len : 200, sql);
        return err_hint(e, "no session may set binlog_format to STATEMENT or MIXED; "
                           "SET GLOBAL binlog_format = ROW, then begin anew");
    }
    return 0;
}

/* Rows that were taken back are in the log if the transaction also did what cannot be: a temporary
 * table was made (MariaDB), a table without transactions was written. Which rows stand cannot be
 * told, so their tables park, which is before anything of this transaction is committed. */
static void on_rollback(struct binlog *b, const char *what)
{
    for (size_t i = 0; i < b->n; i++) {
        struct binlog_table *t = &b->tables[i];

        if (t->touched == b->number)
            name_table(b, t, false,
                       arena_printf(&b->row,
                                    "transaction %s logs rows of it and then %s, and which of them "
                                    "stand cannot be told",
                                    b->gtid, what));
    }
}

/* A single statement is a group of its own. */
static void end_single(struct binlog *b, const char *sql, size_t len)
{
    if (!b->multi && !sql_leaves_open(sql, len))
        b->ending = true;
    else
        b->multi = true;
}

static int on_unread(struct binlog *b, const char *sql, size_t len, struct err *e)
{
    return err_set(
        e, ERR_FATAL,
        "transaction %s has a SET STATEMENT that cannot be read, so what it did to which "
        "table cannot be told: %.*s",
        b->gtid, len < 200 ? (int)len : 200, sql);
}

static int on_statement(struct binlog *b, const char *sql, size_t len, const char *schema,
                        struct err *e)
{
    enum sql_kind kind = sql_kind_of(sql, len);

    switch (kind) {
    case SQL_BEGIN:
        b->multi = true;
        return 0;
    case SQL_XA_START:
        b->branch = true;
        b->multi = true;
        return 0;
    case SQL_SAVEPOINT:
    case SQL_XA_END:
        return 0;
    case SQL_COMMIT:
        b->ending = true;
        return 0;
    case SQL_ROLLBACK:
        b->ending = true;
        on_rollback(b, "ROLLBACK");
        return 0;
    case SQL_ROLLBACK_TO:
        on_rollback(b, "ROLLBACK TO a savepoint");
        return 0;
    case SQL_DML:
        return on_dml(b, sql, len, schema, e);
    case SQL_TRUNCATE:
    case SQL_DDL:
        on_ddl(b, sql, len, schema, kind == SQL_TRUNCATE);
        break;
    case SQL_UNREAD:
        return on_unread(b, sql, len, e);
    case SQL_XA_DECIDE:
    case SQL_OTHER:
        break;
    }
    end_single(b, sql, len);
    return 0;
}

/* The statement's text behind post-header, status variables and database. */
int binlog_on_query(struct binlog *b, struct part *ev, struct err *e)
{
    struct reader *r = &ev->body;
    uint8_t usual = b->post_header[BE_QUERY];
    uint8_t post = ev->h.type == BE_EXECUTE_LOAD ? b->post_header[BE_EXECUTE_LOAD] : usual;
    const char *schema;
    size_t status;

    reader_bytes(r, 4 + 4 + 1 + 2);
    status = (size_t)binlog_le(r, 2);
    if (post < 13)
        r->bad = true;
    reader_bytes(r, post - 13u);
    reader_bytes(r, status);
    schema = reader_cstr(r);
    if (r->bad || !schema)
        return binlog_bad_format("QUERY", e);
    if (binlog_need_group(b, "QUERY", e) < 0)
        return -1;
    if (ev->h.type != BE_MARIA_QUERY)
        return on_statement(b, (const char *)r->p, reader_left(r), schema, e);
    buf_reset(&b->unpacked, LARGE_ROW);
    if (binlog_inflate(r->p, reader_left(r), &b->unpacked, e) < 0)
        return -1;
    return on_statement(b, b->unpacked.data, b->unpacked.len, schema, e);
}
