/* `check`: what only a target is asked. */
#include "engines/mysql/check.h"

#include <ctype.h>
#include <string.h>

/* ---- the server ---- */

static int check_same_server(struct my_checking *c, struct err *e)
{
    struct server_identity source;
    struct server_identity target;

    if (c->request->source == NULL)
        return 0;
    if (my_identify(c->request->source, &source, e) != 0 ||
        my_identify(&c->db->base, &target, e) != 0)
        return -1;
    if (strcmp(source.system, target.system) == 0)
        my_check_found(c, true, "target",
                       "it is the source: the same server, which the fence would close for both",
                       "give the URI of another server");
    return 0;
}

/* What a source of this family could hold and this server could not. */
static void check_against_source(struct my_checking *c)
{
    const struct my_db *source = c->request->source != NULL ? my_db_from(c->request->source) : NULL;

    if (source == NULL)
        return;
    if (source->maria == c->db->maria && source->version / 10000 > c->db->version / 10000)
        my_check_found(c, false, "target",
                       arena_printf(c->arena, "its version %d is older than the source's %d",
                                    c->db->version, source->version),
                       "use a target of the source's version or newer");
    if (source->max_packet > c->db->max_packet)
        my_check_found(c, false, "target",
                       arena_printf(c->arena,
                                    "max_allowed_packet is %zu, the source's %zu: larger rows"
                                    " cannot be written",
                                    c->db->max_packet, source->max_packet),
                       arena_printf(c->arena,
                                    "SET GLOBAL max_allowed_packet = %zu, and in the"
                                    " server's configuration",
                                    source->max_packet));
}

/* ---- tables that are there already ---- */

/* MariaDB says int(11) where MySQL says int, and longtext where it was declared json; longtext is
 * also what another engine's JSON becomes. */
static void plain_type(const struct column *c, char *out, size_t size)
{
    const char *s = c->source_type;
    size_t n = 0;
    bool integer = strncmp(s, "tinyint", 7) == 0 || strncmp(s, "smallint", 8) == 0 ||
                   strncmp(s, "mediumint", 9) == 0 || strncmp(s, "int", 3) == 0 ||
                   strncmp(s, "bigint", 6) == 0;

    if (strcmp(s, "json") == 0)
        s = "longtext";
    while (*s != '\0' && n + 1 < size) {
        if (integer && *s == '(') {
            s += strcspn(s, ")");
            s += *s == ')';
            continue;
        }
        out[n++] = (char)tolower((unsigned char)*s++);
    }
    out[n] = '\0';
}

bool my_same_type(const struct column *a, const struct column *b)
{
    char one[400];
    char other[400];

    /* Labels keep their letters. */
    if (a->kind == TYPE_ENUM || b->kind == TYPE_ENUM)
        return strcmp(a->source_type, b->source_type) == 0;
    plain_type(a, one, sizeof one);
    plain_type(b, other, sizeof other);
    return strcmp(one, other) == 0;
}

/* The columns as PRE would make them. */
static const char *shape_difference(struct my_checking *c, const struct table *want,
                                    const struct table *have)
{
    if (have->ncolumns != want->ncolumns)
        return arena_printf(c->arena, "it has %zu columns, the plan has %zu", have->ncolumns,
                            want->ncolumns);
    for (size_t i = 0; i < want->ncolumns; i++) {
        const struct column *w = &want->columns[i];
        const struct column *h = &have->columns[i];

        if (strcmp(w->name, h->name) != 0 || !my_same_type(w, h))
            return arena_printf(c->arena, "column %zu is %s %s, the plan has %s %s", i + 1, h->name,
                                h->source_type, w->name, w->source_type);
        if (w->generated != h->generated)
            return arena_printf(c->arena, "column %s is generated on one side only", w->name);
        if (h->not_null && !w->not_null)
            return arena_printf(c->arena, "column %s is NOT NULL, the source's is not", w->name);
    }
    if (have->nkey != want->nkey ||
        (have->nkey > 0 && memcmp(have->key, want->key, have->nkey * sizeof *have->key) != 0))
        return "its key has other columns than the source's";
    return NULL;
}

/* A table that another one's foreign key refers to is not dropped, nor truncated even if it is
 * empty. Fills, where there is such a key, the tables that have one and the statements that take
 * the keys off ("" else). */
static int referring(struct my_checking *c, const struct table *t, const char **tables,
                     const char **unbind, struct err *e)
{
    static const char child[] = "concat('`', replace(constraint_schema, '`', '``'), '`.`',"
                                " replace(table_name, '`', '``'), '`')";
    struct buf b;

    buf_init(&b, BUF_MAX_TEXT);
    buf_adds(&b, " FROM information_schema.referential_constraints"
                 " WHERE unique_constraint_schema = ");
    my_literal(&b, t->schema, strlen(t->schema));
    buf_adds(&b, " AND referenced_table_name = ");
    my_literal(&b, t->name, strlen(t->name));
    buf_adds(&b, " AND NOT (constraint_schema = unique_constraint_schema"
                 " AND table_name = referenced_table_name)");
    invariant(!b.overflow);
    *tables = my_check_text(c,
                            arena_printf(c->arena,
                                         "SELECT group_concat(DISTINCT %s SEPARATOR ', ')"
                                         "%s",
                                         child, b.data),
                            e);
    *unbind = *tables != NULL
                  ? my_check_text(c,
                                  arena_printf(c->arena,
                                               "SELECT group_concat('ALTER TABLE ', %s, ' DROP"
                                               " FOREIGN KEY `', replace(constraint_name, '`',"
                                               " '``'), '`; ' SEPARATOR '')%s",
                                               child, b.data),
                                  e)
                  : NULL;
    buf_release(&b);
    return *unbind != NULL ? 0 : -1;
}

static int check_existing(struct my_checking *c, const struct table *want, const struct table *have,
                          struct err *e)
{
    const char *name = my_check_name(c, want->schema, want->name);
    const char *difference = shape_difference(c, want, have);
    const char *children = NULL;
    const char *unbind = NULL;

    if (referring(c, want, &children, &unbind, e) != 0)
        return -1;

    if (difference != NULL)
        my_check_found(
            c, true, table_label(want),
            arena_printf(c->arena, "it exists on the target and differs: %s", difference),
            arena_printf(c->arena, "on the target: %sDROP TABLE %s", unbind, name));
    const char *some =
        my_check_text(c, arena_printf(c->arena, "SELECT EXISTS (SELECT 1 FROM %s)", name), e);
    if (some == NULL)
        return -1;
    if (strcmp(some, "1") == 0)
        my_check_found(c, true, table_label(want), "it exists on the target and is not empty",
                       children[0] == '\0'
                           ? arena_printf(c->arena,
                                          "on the target: TRUNCATE TABLE %s, or DROP TABLE %s",
                                          name, name)
                           : arena_printf(c->arena,
                                          "on the target: DELETE FROM %s (of %s before, whose"
                                          " foreign keys refer to it)",
                                          name, children));
    return 0;
}

/* Views, sequences and the like of a table's name. */
static int check_name_taken(struct my_checking *c, const struct table *t, struct err *e)
{
    struct buf sql;

    buf_init(&sql, BUF_MAX_TEXT);
    buf_adds(&sql, "SELECT table_type FROM information_schema.tables WHERE table_schema = ");
    my_literal(&sql, t->schema, strlen(t->schema));
    buf_adds(&sql, " AND table_name = ");
    my_literal(&sql, t->name, strlen(t->name));
    buf_adds(&sql, " AND table_type <> 'BASE TABLE'");
    const char *type = my_check_text(c, sql.data, e);
    buf_release(&sql);
    if (type == NULL)
        return -1;
    if (type[0] != '\0')
        my_check_found(c, true, table_label(t),
                       arena_printf(c->arena, "a %s of that name exists on the target", type),
                       arena_printf(c->arena, "rename or drop %s on the target",
                                    my_check_name(c, t->schema, t->name)));
    return 0;
}

static const struct table *table_by_name(const struct table_list *list, const struct table *t)
{
    for (size_t i = 0; i < list->n; i++)
        if (strcmp(list->v[i]->schema, t->schema) == 0 && strcmp(list->v[i]->name, t->name) == 0)
            return list->v[i];
    return NULL;
}

static int check_tables(struct my_checking *c, struct err *e)
{
    struct table_list have;

    if (c->request->started)
        return 0;
    if (my_tables(&c->db->base, NULL, c->arena, &have, e) != 0)
        return -1;
    for (size_t i = 0; i < c->tables.n; i++) {
        const struct table *want = c->tables.v[i];
        const struct table *there = table_by_name(&have, want);

        if ((there != NULL ? check_existing(c, want, there, e) : check_name_taken(c, want, e)) != 0)
            return -1;
    }
    return 0;
}

int my_check_target(struct my_checking *c, struct err *e)
{
    check_against_source(c);
    return check_same_server(c, e) != 0 || my_check_letter_case(c, NULL, e) != 0 ||
                   check_tables(c, e) != 0 || my_check_writers(c, e) != 0
               ? -1
               : 0;
}
