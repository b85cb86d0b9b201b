/* `check`: what stands beside the chosen tables and is not carried, and the rights that nobody has
 * on the target yet. Warnings, one a kind and database: the tables themselves are fit. */
#include "engines/mysql/check.h"
#include "engines/mysql/fence.h"

#include <string.h>

#define NAMED_MAX 5

/* ---- databases ---- */

/* Each of the chosen tables' once: `each` is called with its name. */
static int each_database(struct my_checking *c,
                         int (*each)(struct my_checking *c, const char *name, struct err *e),
                         struct err *e)
{
    for (size_t i = 0; i < c->tables.n; i++) {
        bool seen = false;

        for (size_t k = 0; k < i && !seen; k++)
            seen = strcmp(c->tables.v[k]->schema, c->tables.v[i]->schema) == 0;
        if (!seen && each(c, c->tables.v[i]->schema, e) != 0)
            return -1;
    }
    return 0;
}

static const char *literal(struct my_checking *c, const char *name)
{
    struct buf b;

    buf_init(&b, BUF_MAX_TEXT);
    my_literal(&b, name, strlen(name));
    const char *text = arena_strdup(c->arena, b.data);
    buf_release(&b);
    return text;
}

/* ---- what is not carried ---- */

/* sql: the names, and for triggers their tables', of a database @; for mysqldump they stand behind
 * its options. */
static const struct kind {
    const char *one;
    const char *many;
    const char *sql;
    const char *maria_sql; /* NULL: the same */
    const char *options;
    bool by_name;
    const char *when;
} kinds[] = {
    {"view", "views",
     "SELECT table_name, table_name FROM information_schema.views WHERE table_schema = %s", NULL,
     "--no-data", true, "once the tables are there"},
    {"procedure or function", "procedures and functions",
     "SELECT routine_name, NULL FROM information_schema.routines WHERE routine_schema = %s", NULL,
     "--no-data --no-create-info --skip-triggers --routines", false, "before the switch"},
    {"event", "events",
     "SELECT event_name, NULL FROM information_schema.events WHERE event_schema = %s",
     "SELECT name, NULL FROM mysql.event WHERE db = %s",
     "--no-data --no-create-info --skip-triggers --events", false, "behind the switch"},
    {"trigger", "triggers",
     "SELECT trigger_name, event_object_table FROM information_schema.triggers"
     " WHERE event_object_schema = %s",
     NULL, "--no-data --no-create-info --triggers", true, "after lockstep finish"},
};

static void add_word(struct buf *b, const char *word)
{
    buf_addc(b, ' ');
    if (word[strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")] ==
        '\0') {
        buf_adds(b, word);
        return;
    }
    buf_addc(b, '\'');
    for (; *word != '\0'; word++) {
        if (*word == '\'')
            buf_adds(b, "'\\'");
        buf_addc(b, *word);
    }
    buf_addc(b, '\'');
}

static bool is_chosen(const struct my_checking *c, const char *schema, const char *name)
{
    for (size_t i = 0; i < c->tables.n; i++)
        if (strcmp(c->tables.v[i]->schema, schema) == 0 && strcmp(c->tables.v[i]->name, name) == 0)
            return true;
    return false;
}

struct beside {
    size_t n;
    struct buf names;
    struct buf words; /* of the dump's command line, behind its options */
};

static void beside_add(const struct my_checking *c, struct beside *b, const struct kind *kind,
                       const char *database, MYSQL_ROW row)
{
    bool trigger = strcmp(kind->one, "trigger") == 0;

    if (trigger && !is_chosen(c, database, row[1]))
        return;
    if (++b->n > NAMED_MAX)
        return;
    buf_addf(&b->names, "%s%s", b->n > 1 ? ", " : "", row[0]);
    if (kind->by_name)
        add_word(&b->words, row[1]);
}

static void beside_found(struct my_checking *c, const struct beside *b, const struct kind *kind,
                         const char *database)
{
    struct buf name;

    buf_init(&name, BUF_MAX_TEXT);
    add_word(&name, database);
    const char *dump = arena_printf(c->arena, "mysqldump %s%s%s", kind->options, name.data,
                                    b->words.len > 0 ? b->words.data : "");
    my_check_found(c, false, arena_printf(c->arena, "database %s", database),
                   arena_printf(c->arena, "%zu %s not carried: %s%s", b->n,
                                b->n == 1 ? arena_printf(c->arena, "%s is", kind->one)
                                          : arena_printf(c->arena, "%s are", kind->many),
                                b->names.data,
                                b->n > NAMED_MAX
                                    ? arena_printf(c->arena, " and %zu more", b->n - NAMED_MAX)
                                    : ""),
                   c->request->same_engine
                       ? arena_printf(c->arena, "%s of the source | mysql%s of the target, %s",
                                      dump, name.data, kind->when)
                       : arena_printf(c->arena,
                                      "create what is needed on the target in its own SQL, %s; %s"
                                      " shows it",
                                      kind->when, dump));
    buf_release(&name);
}

/* Who may not ask is told so by the fence's findings. */
static int check_kind(struct my_checking *c, const struct kind *kind, const char *database,
                      struct err *e)
{
    const char *sql = c->db->maria && kind->maria_sql != NULL ? kind->maria_sql : kind->sql;
    struct beside b = {0};
    MYSQL_RES *res = my_query(
        c->db,
        arena_printf(c->arena, arena_printf(c->arena, "%s ORDER BY 1", sql), literal(c, database)),
        e);

    if (res == NULL && e->class == ERR_REFUSED) {
        err_clear(e);
        return 0;
    }
    if (res == NULL)
        return err_wrap(e, "looking for %s", kind->many);
    buf_init(&b.names, BUF_MAX_TEXT);
    buf_init(&b.words, BUF_MAX_TEXT);
    for (MYSQL_ROW row; (row = mysql_fetch_row(res)) != NULL;)
        beside_add(c, &b, kind, database, row);
    if (b.n > 0)
        beside_found(c, &b, kind, database);
    buf_release(&b.names);
    buf_release(&b.words);
    mysql_free_result(res);
    return 0;
}

static int beside_of(struct my_checking *c, const char *database, struct err *e)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (check_kind(c, &kinds[i], database, e) != 0)
            return -1;
    return 0;
}

int my_check_beside(struct my_checking *c, struct err *e)
{
    return each_database(c, beside_of, e);
}

/* ---- rights ---- */

static int writers_of(struct my_checking *c, const char *database, struct err *e)
{
    const char *who = my_fence_writers(c->db, literal(c, database), c->arena);

    if (who == NULL || who[0] != '\0')
        return 0;
    my_check_found(
        c, false, arena_printf(c->arena, "database %s", database),
        "no account but lockstep's and administrators' may write to it: accounts and rights are not"
        " carried, and behind the switch the applications are refused",
        arena_printf(c->arena,
                     "for each of the applications' accounts: GRANT SELECT, INSERT, UPDATE, DELETE"
                     " ON %s.* TO … (docs/cutover.md)",
                     arena_printf(c->arena, "`%s`", database)));
    return 0;
}

int my_check_writers(struct my_checking *c, struct err *e)
{
    const char *seen = c->tables.n > 0 ? my_fence_writers(c->db, "''", c->arena) : "";

    if (seen == NULL)
        my_check_found(c, false, arena_printf(c->arena, "account %s", c->rights.account),
                       "it may not see whether the applications may write to the target",
                       arena_printf(c->arena,
                                    "on the target: GRANT SELECT ON mysql.db TO %s; GRANT SELECT ON"
                                    " mysql.tables_priv TO %s",
                                    c->rights.account, c->rights.account));
    return seen != NULL ? each_database(c, writers_of, e) : 0;
}
