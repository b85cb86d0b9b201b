/* AUTO_INCREMENT counters, which the binlog does not carry, and markers, which are a row of ours in
 * it. */
#include "engines/mysql/my.h"
#include "core/run.h"

#include <inttypes.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

/* Older markers serve nobody. */
#define MARKS_KEPT 100
#define MARKS_TIDIED 32 /* markers of a connection between two tidyings; the first tidies */
/* A counter moves by DDL, in whose wake other sessions queue for the table. */
#define SET_LOCK_SECONDS 1
#define SET_TRIES 4
#define SET_NAP_MS 20
#define READ_LOCK_SECONDS 10
#define PROBE_MS 2000 /* within which the connection that is kept for it answers */

/* ---- markers ---- */

/* fence_remove drops it. */
static const char sql_mark_table[] =
    "CREATE TABLE IF NOT EXISTS " MY_CONTROL ".mark ("
    " id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,"
    " token VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL) ENGINE = InnoDB";

static int mark_row(struct my_db *db, const char *token, struct err *e)
{
    struct buf sql;
    int rc;

    buf_init(&sql, 4096);
    buf_adds(&sql, "INSERT INTO " MY_CONTROL ".mark (token) VALUES (");
    my_literal(&sql, token, strlen(token));
    buf_addc(&sql, ')');
    rc = buf_check(&sql, "a marker", e);
    if (rc == 0)
        rc = my_exec(db, sql.data, sql.len, NULL, e);
    buf_release(&sql);
    return rc;
}

/* The table is made by the first marker. */
static int mark_made(struct my_db *db, const char *token, struct err *e)
{
    struct err own = {0};

    if (mark_row(db, token, &own) == 0)
        return 0;
    if (strcmp(own.sqlstate, "42S02") == 0)
        return my_execf(db, e, sql_mark_table) != 0 ? -1 : mark_row(db, token, e);
    if (e != NULL)
        *e = own;
    return -1;
}

/* A transaction of deletions alone is no marker, and of no table that travels. */
int my_mark(struct db *base, const char *token, struct err *e)
{
    struct my_db *db = my_db_from(base);

    if (db->in_txn)
        return err_set(e, ERR_BUG, "a marker is a transaction of its own, and one is open");
    if (mark_made(db, token, e) != 0)
        return err_wrap(e, "writing a marker");
    /* Not by each: a switch sets some while nobody may write. */
    if (db->marks++ % MARKS_TIDIED == 0 &&
        my_execf(db, e, "DELETE FROM " MY_CONTROL ".mark WHERE id + %d < LAST_INSERT_ID()",
                 MARKS_KEPT) != 0)
        return err_wrap(e, "writing a marker");
    return 0;
}

/* ---- counters ---- */

/* The largest number that an integer column of this type holds. */
static uint64_t largest(const char *type)
{
    static const struct {
        const char *name;
        int bits;
    } sizes[] = {{"tinyint", 8}, {"smallint", 16}, {"mediumint", 24}, {"int", 32}, {"bigint", 64}};
    int bits = 64;

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        if (strncmp(type, sizes[i].name, strlen(sizes[i].name)) == 0)
            bits = sizes[i].bits;
    }
    return UINT64_MAX >> (64 - bits + (strstr(type, "unsigned") == NULL));
}

/* Two questions, since MariaDB answers their join a hundred times more slowly: it opens the tables
 * of every database for it. */
static const char sql_columns[] =
    "SELECT table_schema, table_name, column_name, column_type, @@GLOBAL.auto_increment_increment"
    " FROM information_schema.columns WHERE extra LIKE '%auto_increment%'";
static const char sql_counters[] =
    "SELECT table_schema, table_name, auto_increment FROM information_schema.tables"
    " WHERE table_type = 'BASE TABLE'";
/* MySQL asks the storage engine for each row: only of tables that count. */
static const char sql_that_count[] =
    " AND (table_schema, table_name) IN (SELECT table_schema, table_name"
    " FROM information_schema.columns WHERE extra LIKE '%auto_increment%')";
#define OF_USERS                                                                                   \
    " AND table_schema NOT IN ('mysql', 'sys', 'performance_schema', 'information_schema',"        \
    " '" MY_CONTROL "')"

/* Sessions count by the server's step, unless they have one of their own. */
static void take_counter(struct arena *a, MYSQL_ROW row, uint64_t counter, struct sequence_value *v)
{
    uint64_t max = largest(row[3]);
    int64_t next = (int64_t)counter;

    v->schema = arena_strdup(a, row[0]);
    v->name = arena_strdup(a, row[1]);
    v->table = arena_printf(a, "%s.%s", row[0], row[1]);
    v->column = arena_strdup(a, row[2]);
    v->increment = row[4] != NULL ? atoll(row[4]) : 1;
    v->min = 0;
    v->max = (int64_t)(max < INT64_MAX ? max : INT64_MAX) - 1; /* what follows it must fit */
    v->cache = 1;
    v->called = next > 1;
    v->last_value = next > 1 ? next - 1 : 1;
}

/* The next number as information_schema tells it. A table that it could not look at (somebody held
 * a lock for too long, its file is damaged) has a row too, with a warning: NULL on MariaDB, all
 * bits of an int on MySQL, where NULL is a counter that has not moved. Neither may be taken for a
 * number.
 */
static int read_next(struct my_db *db, const char *text, bool warned, const char *schema,
                     const char *table, uint64_t *out, struct err *e)
{
    *out = text != NULL ? strtoull(text, NULL, 10) : 1;
    if (db->maria ? text != NULL : !warned || *out != UINT32_MAX)
        return 0;
    err_set(e, ERR_RETRY, "the server does not tell the counter of %s.%s", schema, table);
    return err_hint(e, "see what SELECT AUTO_INCREMENT FROM information_schema.tables warns of");
}

/* A table and the next number of its counter, which may be NULL. */
struct counter {
    const char *schema;
    const char *table;
    const char *next;
};

static int counter_cmp(const void *pa, const void *pb)
{
    const struct counter *a = pa;
    const struct counter *b = pb;
    int order = strcmp(a->schema, b->schema);

    return order != 0 ? order : strcmp(a->table, b->table);
}

/* The result's rows as counters, sorted; they borrow from it. */
static struct counter *sorted(MYSQL_RES *res, struct arena *a)
{
    size_t n = (size_t)mysql_num_rows(res);
    struct counter *all = arena_alloc(a, (n + 1) * sizeof *all);
    MYSQL_ROW row;

    for (size_t i = 0; i < n && (row = mysql_fetch_row(res)) != NULL; i++)
        all[i] = (struct counter){row[0], row[1], row[2]};
    qsort(all, n, sizeof *all, counter_cmp);
    return all;
}

/* In one message, since it is asked while nobody may write. */
static int ask_all(struct my_db *db, MYSQL_RES **columns, MYSQL_RES **tables, struct err *e)
{
    MYSQL_RES *res[3];
    struct buf sql;
    size_t first = db->maria ? 0 : 1;
    int rc;

    buf_init(&sql, 4096);
    /* MySQL shows counters that are a day old unless it is told not to. */
    if (!db->maria)
        buf_adds(&sql, "SET SESSION information_schema_stats_expiry = 0;");
    buf_addf(&sql, "%s" OF_USERS " ORDER BY 1, 2;", sql_columns);
    buf_addf(&sql, "%s" OF_USERS "%s", sql_counters, db->maria ? "" : sql_that_count);
    rc = buf_check(&sql, "a question", e);
    if (rc == 0)
        rc = my_query_each(db, sql.data, 3U << first, res, first + 2, e);
    buf_release(&sql);
    if (rc != 0)
        return -1;
    *columns = res[first];
    *tables = res[first + 1];
    return 0;
}

int my_sequences(struct db *base, const struct selection *s, struct arena *a,
                 struct sequence_list *out, struct err *e)
{
    struct my_db *db = my_db_from(base);
    MYSQL_RES *columns;
    MYSQL_RES *tables;
    MYSQL_ROW row;
    bool warned;
    int rc = 0;

    if (ask_all(db, &columns, &tables, e) != 0)
        return err_wrap(e, "reading AUTO_INCREMENT counters");
    warned = mysql_warning_count(db->conn) > 0;
    struct counter *all = sorted(tables, a);
    out->n = 0;
    out->v = arena_zalloc(a, sizeof *out->v * ((size_t)mysql_num_rows(columns) + 1));
    while (rc == 0 && (row = mysql_fetch_row(columns)) != NULL) {
        uint64_t next;
        struct counter wanted = {row[0], row[1], NULL};
        const struct counter *found =
            bsearch(&wanted, all, (size_t)mysql_num_rows(tables), sizeof *all, counter_cmp);

        /* A view's column, or a table that was made or dropped in between. */
        if (found == NULL || !my_selected(s, row[0], row[1]))
            continue;
        rc = read_next(db, found->next, warned, row[0], row[1], &next, e);
        if (rc == 0)
            take_counter(a, row, next, &out->v[out->n++]);
    }
    mysql_free_result(columns);
    mysql_free_result(tables);
    return rc;
}

/* The named column of what the question tells of one table; malloc'd, NULL: NULL. 1, 0: no row, -1.
 */
static int ask_one(struct my_db *db, const char *question, unsigned column,
                   const struct sequence_value *v, char **out, struct err *e)
{
    struct buf sql;
    MYSQL_RES *res = NULL;
    MYSQL_ROW row;

    *out = NULL;
    buf_init(&sql, BUF_MAX_TEXT);
    buf_adds(&sql, question);
    buf_adds(&sql, " AND table_schema = ");
    my_literal(&sql, v->schema, strlen(v->schema));
    buf_adds(&sql, " AND table_name = ");
    my_literal(&sql, v->name, strlen(v->name));
    if (buf_check(&sql, "a counter", e) == 0)
        res = my_query(db, sql.data, e);
    buf_release(&sql);
    if (res == NULL)
        return -1;
    row = mysql_fetch_row(res);
    if (row != NULL && row[column] != NULL) {
        *out = strdup(row[column]);
        invariant(*out != NULL);
    }
    mysql_free_result(res);
    return row != NULL;
}

/* 1: *next and *max are set, 0: no such counter, -1. */
static int read_counter(struct my_db *db, const struct sequence_value *v, uint64_t *next,
                        uint64_t *max, struct err *e)
{
    char *type = NULL;
    char *counter = NULL;
    int found = ask_one(db, sql_columns, 3, v, &type, e);

    if (found > 0)
        found = ask_one(db, sql_counters, 2, v, &counter, e);
    if (found > 0) {
        bool warned = mysql_warning_count(db->conn) > 0;

        *max = largest(type);
        if (read_next(db, counter, warned, v->schema, v->name, next, e) != 0)
            found = -1;
    }
    free(type);
    free(counter);
    return found;
}

static int raise_counter(struct my_db *db, const struct sequence_value *v, uint64_t to,
                         struct err *e)
{
    struct buf sql;
    int rc;

    buf_init(&sql, BUF_MAX_TEXT);
    buf_addf(&sql, "SET SESSION lock_wait_timeout = %d; ALTER TABLE ", SET_LOCK_SECONDS);
    my_ident2(&sql, v->schema, v->name);
    buf_addf(&sql, " AUTO_INCREMENT = %" PRIu64, to);
    rc = buf_check(&sql, "a counter", e);
    /* A statement that changes a table may be the one that gives way to its writers. */
    for (int i = 0; i < SET_TRIES && rc == 0; i++) {
        rc = my_exec(db, sql.data, sql.len, NULL, e);
        if (rc == 0 || e->class != ERR_RETRY || db->broken)
            break;
        nap_ms(SET_NAP_MS);
        rc = i + 1 < SET_TRIES ? 0 : -1;
    }
    buf_release(&sql);
    return rc;
}

static int set_counter(struct my_db *db, const struct sequence_value *v, uint64_t wanted,
                       struct err *e)
{
    uint64_t next = 0;
    uint64_t max = 0;
    int found;

    if (!db->maria && my_execf(db, e, "SET SESSION information_schema_stats_expiry = 0") != 0)
        return -1;
    found = read_counter(db, v, &next, &max, e);
    if (found == 0)
        return err_set(e, ERR_FATAL, "it has no AUTO_INCREMENT column");
    if (found < 0)
        return -1;
    if (wanted > max)
        return err_set(e, ERR_DATA, "its AUTO_INCREMENT column cannot hold %" PRIu64, wanted);
    return wanted > next ? raise_counter(db, v, wanted, e) : 0;
}

static void close_setter(void *data)
{
    my_close(data);
}

/* Reading, unlike setting, waits for locks as long as any connection of control. */
static bool answers(struct my_db *db)
{
    int timeout_ms = db->timeout_ms;
    bool well;

    db->timeout_ms = PROBE_MS;
    well = my_execf(db, NULL, "SET SESSION lock_wait_timeout = %d", READ_LOCK_SECONDS) == 0;
    db->timeout_ms = timeout_ms;
    return well;
}

/* The connection beside the caller's; made anew if the server has closed it meanwhile. */
static int open_setter(struct my_db *caller, struct my_db **out, struct err *e)
{
    const struct db_options o = {.uri = caller->uri,
                                 .migration = caller->migration,
                                 .use = DB_CONTROL,
                                 .timeout_ms = caller->timeout_ms,
                                 .back = caller->back,
                                 .fence = &caller->fence};
    struct my_db *db = NULL;

    if (caller->setter.data != NULL && !answers(caller->setter.data))
        my_slot_release(&caller->setter);
    if (caller->setter.data == NULL) {
        if (my_connect(&o, &db, e) != 0)
            return -1;
        caller->setter = (struct my_slot){.data = db, .release = close_setter};
    }
    *out = caller->setter.data;
    return 0;
}

/* On a connection of its own: DDL would commit the caller's transaction, whose row lock tells that
 * it still may do this. A counter is only ever raised, so that nobody who is late can set a live
 * table's back. */
int my_sequence_set(struct db *base, const struct sequence_value *v, struct err *e)
{
    struct my_db *db;
    int64_t wanted = v->last_value;
    int rc = 0;

    if (v->called && __builtin_add_overflow(v->last_value, 1, &wanted))
        return err_set(e, ERR_DATA, "table %s.%s: no number follows %" PRId64, v->schema, v->name,
                       v->last_value);
    if (open_setter(my_db_from(base), &db, e) != 0)
        return err_wrap(e, "AUTO_INCREMENT of %s.%s", v->schema, v->name);
    rc = set_counter(db, v, wanted > 0 ? (uint64_t)wanted : 0, e);
    return rc < 0 ? err_wrap(e, "AUTO_INCREMENT of %s.%s", v->schema, v->name) : 0;
}
