/* `check`: what is unfit on one side, each with its remedy. Nothing is changed. Server and rights
 * stand in check_server.c, what only a target is asked in check_target.c, what does not come along
 * in check_carried.c, what the fence needs in fence_check.c. What a MySQL target must have for the
 * way back alone is a warning. */
#include "engines/mysql/check.h"

#include <string.h>

void my_check_found(struct my_checking *c, bool fatal, const char *object, const char *what,
                    const char *remedy)
{
    findings_add(c->arena, c->found, (struct finding){fatal, object, what, remedy});
}

const char *my_check_name(struct my_checking *c, const char *schema, const char *name)
{
    struct buf b;

    buf_init(&b, BUF_MAX_TEXT);
    my_ident2(&b, schema, name);
    const char *text = arena_strdup(c->arena, b.overflow ? name : b.data);
    buf_release(&b);
    return text;
}

const char *my_check_text(struct my_checking *c, const char *sql, struct err *e)
{
    MYSQL_RES *res = my_query(c->db, sql, e);
    MYSQL_ROW row = res != NULL ? mysql_fetch_row(res) : NULL;
    const char *text = arena_strdup(c->arena, row != NULL && row[0] != NULL ? row[0] : "");

    mysql_free_result(res);
    return res != NULL ? text : NULL;
}

const char *my_check_schemas(struct my_checking *c)
{
    const char *last = NULL;
    struct buf b;

    buf_init(&b, BUF_MAX_TEXT);
    buf_adds(&b, " IN (''");
    for (size_t i = 0; i < c->tables.n; i++) {
        const char *schema = c->tables.v[i]->schema;

        if (last != NULL && strcmp(last, schema) == 0)
            continue;
        buf_adds(&b, ", ");
        my_literal(&b, schema, strlen(schema));
        last = schema;
    }
    buf_adds(&b, ")");
    invariant(!b.overflow);
    const char *text = arena_strdup(c->arena, b.data);
    buf_release(&b);
    return text;
}

static bool chosen(const struct my_checking *c, const char *schema, const char *name)
{
    for (size_t i = 0; i < c->tables.n; i++)
        if (strcmp(c->tables.v[i]->schema, schema) == 0 &&
            (name == NULL || strcmp(c->tables.v[i]->name, name) == 0))
            return true;
    return false;
}

/* ---- tables ---- */

/* What matches the selection and yet cannot be replicated. */
static int check_kinds(struct my_checking *c, struct err *e)
{
    MYSQL_RES *res =
        my_query(c->db,
                 "SELECT table_schema, table_name, table_type, coalesce(engine, 'none')"
                 " FROM information_schema.tables WHERE table_schema NOT IN (" MY_SYSTEM_SCHEMAS
                 ", '" MY_CONTROL "') AND table_type NOT LIKE '%VIEW'"
                 " AND (table_type <> 'BASE TABLE' OR coalesce(engine, '') <> 'InnoDB')"
                 " ORDER BY 1, 2",
                 e);

    if (res == NULL)
        return -1;
    for (MYSQL_ROW row; (row = mysql_fetch_row(res)) != NULL;) {
        const char *label = arena_printf(c->arena, "%s.%s", row[0], row[1]);
        const char *name = my_check_name(c, row[0], row[1]);

        if (!my_selected(c->request->selection, row[0], row[1]))
            continue;
        if (strcmp(row[2], "SEQUENCE") == 0)
            my_check_found(c, false, label, "it is a sequence object: it is not carried",
                           "create it on the target if it is needed there");
        else if (strcmp(row[2], "SYSTEM VERSIONED") == 0)
            my_check_found(c, true, label, "it is system versioned: its history is not carried",
                           "exclude it (tables.exclude), or drop its system versioning");
        else
            my_check_found(c, true, label,
                           arena_printf(c->arena,
                                        "its engine is %s, which has no transactions and no"
                                        " consistent reads: only InnoDB is replicated",
                                        row[3]),
                           arena_printf(c->arena,
                                        "ALTER TABLE %s ENGINE = InnoDB, or exclude it"
                                        " (tables.exclude)",
                                        name));
    }
    mysql_free_result(res);
    return 0;
}

/* InnoDB carries out cascades below the log: the child's changes are in no binlog. */
static int check_cascades(struct my_checking *c, bool source, struct err *e)
{
    MYSQL_RES *res =
        my_queryf(c->db, e,
                  "SELECT constraint_schema, table_name, constraint_name, update_rule, delete_rule"
                  " FROM information_schema.referential_constraints WHERE constraint_schema%s"
                  " AND (update_rule IN ('CASCADE', 'SET NULL', 'SET DEFAULT')"
                  " OR delete_rule IN ('CASCADE', 'SET NULL', 'SET DEFAULT')) ORDER BY 1, 2, 3",
                  my_check_schemas(c));

    if (res == NULL)
        return -1;
    for (MYSQL_ROW row; (row = mysql_fetch_row(res)) != NULL;) {
        const char *what = arena_printf(
            c->arena,
            "foreign key %s has ON UPDATE %s, ON DELETE %s: InnoDB does not write cascaded changes"
            " to the binlog%s",
            row[2], row[3], row[4], source ? "" : ", so after a cutover there is no way back");

        if (chosen(c, row[0], row[1]))
            my_check_found(c, source, arena_printf(c->arena, "%s.%s", row[0], row[1]), what,
                           "make it RESTRICT and let the application change the children, or"
                           " exclude the table (tables.exclude)");
    }
    mysql_free_result(res);
    return 0;
}

/* The server fires triggers on whatever we write: on a target a second time, after the source did,
 * whose trigger's changes arrive as well. */
static int check_triggers(struct my_checking *c, bool source, struct err *e)
{
    MYSQL_RES *res = my_queryf(c->db, e,
                               "SELECT event_object_schema, event_object_table,"
                               " group_concat(trigger_name ORDER BY 1 SEPARATOR ', ')"
                               " FROM information_schema.triggers WHERE event_object_schema%s"
                               " GROUP BY 1, 2 ORDER BY 1, 2",
                               my_check_schemas(c));

    if (res == NULL)
        return -1;
    for (MYSQL_ROW row; (row = mysql_fetch_row(res)) != NULL;) {
        if (!chosen(c, row[0], row[1]))
            continue;
        my_check_found(c, !source, arena_printf(c->arena, "%s.%s", row[0], row[1]),
                       arena_printf(c->arena,
                                    "it has triggers (%s), which fire on replicated "
                                    "changes too%s",
                                    row[2], source ? ": after a cutover there is no way back" : ""),
                       source ? "drop them before the cutover if you may want to go back"
                              : "drop them on the target, and create them after `lockstep finish`");
    }
    mysql_free_result(res);
    return 0;
}

/* 1: it has capitals, as the server itself lowers them; 0; -1. */
static int has_capitals(struct my_checking *c, const struct table *t, struct err *e)
{
    const char *answer;
    struct buf sql;

    buf_init(&sql, BUF_MAX_TEXT);
    buf_adds(&sql, "SELECT CAST(LOWER(n) AS BINARY) <> CAST(n AS BINARY) FROM (SELECT concat(");
    my_literal(&sql, t->schema, strlen(t->schema));
    buf_adds(&sql, ", '.', ");
    my_literal(&sql, t->name, strlen(t->name));
    buf_adds(&sql, ") AS n) AS names");
    answer = my_check_text(c, sql.data, e);
    buf_release(&sql);
    return answer != NULL ? strcmp(answer, "1") == 0 : -1;
}

static void letter_case_found(struct my_checking *c, const struct table *t, const char *mode)
{
    if (c->request->side == SIDE_SOURCE)
        my_check_found(
            c, true, table_label(t),
            arena_printf(c->arena,
                         "its name has capitals, and with lower_case_table_names = %s"
                         " the binlog has it without: none of its changes would be found",
                         mode),
            "rename the table (and its database) to small letters, or exclude it"
            " (tables.exclude)");
    else
        my_check_found(c, true, table_label(t),
                       arena_printf(c->arena,
                                    "its name has capitals, and the target's"
                                    " lower_case_table_names is %s",
                                    mode),
                       "initialise the target with lower_case_table_names = 0, or rename the"
                       " table");
}

int my_check_letter_case(struct my_checking *c, const char *mode, struct err *e)
{
    if (mode == NULL)
        mode = my_check_text(c, "SELECT @@global.lower_case_table_names", e);
    if (mode == NULL)
        return -1;
    for (size_t i = 0; strcmp(mode, "0") != 0 && i < c->tables.n; i++) {
        int capitals = has_capitals(c, c->tables.v[i], e);

        if (capitals < 0)
            return -1;
        if (capitals)
            letter_case_found(c, c->tables.v[i], mode);
    }
    return 0;
}

static int check_tables(struct my_checking *c, bool source, struct err *e)
{
    return (source && (check_kinds(c, e) != 0 || my_check_letter_case(c, NULL, e) != 0)) ||
                   check_cascades(c, source, e) != 0 || check_triggers(c, source, e) != 0
               ? -1
               : 0;
}

/* ---- databases that the fence would close as well ---- */

static int check_others(struct my_checking *c, struct err *e)
{
    MYSQL_RES *res;
    struct buf names;

    if (c->db->fence.whole_server)
        return 0;
    res = my_queryf(c->db, e,
                    "SELECT schema_name FROM information_schema.schemata WHERE schema_name NOT IN"
                    " (" MY_SYSTEM_SCHEMAS ", '" MY_CONTROL "') ORDER BY 1");
    if (res == NULL)
        return -1;
    buf_init(&names, 600);
    for (MYSQL_ROW row; (row = mysql_fetch_row(res)) != NULL;)
        if (!chosen(c, row[0], NULL))
            buf_addf(&names, "%s%s", names.len > 0 ? ", " : "", row[0]);
    mysql_free_result(res);
    if (names.len > 0 || names.overflow)
        my_check_found(c, true, c->side,
                       arena_printf(c->arena,
                                    "it holds other databases (%s), which a fence by read_only"
                                    " would close too",
                                    names.data),
                       "set whole_server: true under fence: if they may be closed during the"
                       " switch");
    buf_release(&names);
    return 0;
}

/* ---- all of it ---- */

static int chosen_tables(struct my_checking *c, bool source, struct err *e)
{
    if (source)
        return my_tables(&c->db->base, c->request->selection, c->arena, &c->tables, e);
    if (c->request->tables != NULL)
        c->tables = *c->request->tables;
    return 0;
}

int my_check(struct db *base, const struct check_request *r, struct arena *a, struct findings *out,
             struct err *e)
{
    bool source = r->side == SIDE_SOURCE;
    struct my_checking c = {.db = my_db_from(base),
                            .request = r,
                            .side = source ? "source" : "target",
                            .arena = a,
                            .found = out};

    if (my_rights_load(c.db, a, &c.rights, e) != 0 || chosen_tables(&c, source, e) != 0 ||
        my_check_server(&c, e) != 0 || check_tables(&c, source, e) != 0 ||
        check_others(&c, e) != 0 || (source && my_check_beside(&c, e) != 0))
        return err_wrap(e, "checking the %s", c.side);
    my_check_rights(&c);
    my_fence_findings(c.db, c.side, my_check_schemas(&c), a, out);
    if (c.db->broken)
        return err_set(e, ERR_RETRY, "connection to %s lost", c.db->where);
    return source ? 0 : my_check_target(&c, e);
}
