/* `check`: what is unfit on one side, each with its remedy. Nothing is changed; what one query can
 * answer stands in check_queries.c, the rest here. */
#include "engines/postgres/check.h"

#include "engines/postgres/tools.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void check_found(struct check *c, bool fatal, const char *object, const char *what,
                 const char *remedy)
{
    if (c->found.n == c->cap) {
        size_t cap = c->cap * 2 + 16;
        struct finding *v = arena_alloc(c->arena, cap * sizeof *v);

        if (c->found.n > 0)
            memcpy(v, c->found.v, c->found.n * sizeof *v);
        c->found.v = v;
        c->cap = cap;
    }
    c->found.v[c->found.n++] = (struct finding){
        .fatal = fatal,
        .object = arena_strdup(c->arena, object),
        .what = arena_strdup(c->arena, what),
        .remedy = arena_strdup(c->arena, remedy),
    };
}

/* The identifier as SQL would have it. */
static const char *quoted(struct check *c, const char *schema, const char *name)
{
    struct buf b;

    buf_init(&b, 1024);
    pg_ident2(&b, schema, name);
    const char *text = arena_strdup(c->arena, b.overflow ? name : b.data);
    buf_release(&b);
    return text;
}

static const char *table_oids(struct check *c, const struct table_list *list)
{
    struct buf b;

    buf_init(&b, BUF_MAX_TEXT);
    buf_addc(&b, '{');
    for (size_t i = 0; list != NULL && i < list->n; i++)
        buf_addf(&b, "%s%u", i > 0 ? "," : "", list->v[i]->id);
    buf_addc(&b, '}');
    const char *text = arena_strdup(c->arena, b.data);
    buf_release(&b);
    return text;
}

static int ask(struct check *c, const struct check_query *queries, size_t n, const char *oids,
               struct err *e)
{
    char slot[PG_NAME_MAX];

    pg_object_name(c->db, slot);
    for (size_t i = 0; i < n; i++) {
        const char *values[] = {slot, oids};

        if (queries[i].only_new && c->request->started)
            continue;
        const char *sql = arena_printf(
            c->arena, "WITH p AS (SELECT $1::text AS slot, $2::oid[] AS tables) %s ORDER BY 2, 3",
            queries[i].sql);
        PGresult *res = pg_query(c->db, sql, 2, values, e);
        if (res == NULL)
            return -1;
        for (int r = 0; r < PQntuples(res); r++)
            check_found(c, pg_bool(res, r, 0), PQgetvalue(res, r, 1), PQgetvalue(res, r, 2),
                        PQgetvalue(res, r, 3));
        PQclear(res);
    }
    return 0;
}

/* ---- both ---- */

/* Tried rather than asked: the right is a parameter grant, superuser, or a cloud's own way. The
 * target cannot do without; the source needs it for the way back alone. */
static int check_replica_role(struct check *c, bool fatal, struct err *e)
{
    struct err why = {0};
    struct db *db = &c->db->base;

    if (pg_begin(db, e) != 0)
        return -1;
    if (pg_exec(c->db, "SET LOCAL session_replication_role = replica", &why) != 0) {
        if (strcmp(why.sqlstate, "42501") != 0) {
            if (e != NULL)
                *e = why;
            return -1;
        }
        check_found(
            c, fatal, arena_printf(c->arena, "role %s", PQuser(c->db->conn)),
            fatal ? "it may not set session_replication_role: triggers and foreign keys would fire"
                    " on replicated changes"
                  : "it may not set session_replication_role: after a cutover there is no way back",
            c->db->version >= 150000
                ? arena_printf(c->arena,
                               "GRANT SET ON PARAMETER session_replication_role TO \"%s\"",
                               PQuser(c->db->conn))
                : arena_printf(c->arena, "ALTER ROLE \"%s\" SUPERUSER", PQuser(c->db->conn)));
    }
    return pg_rollback(db, e);
}

/* ---- source ---- */

static void check_identity(struct check *c, const struct table *t)
{
    const char *name = quoted(c, t->schema, t->name);

    if (t->identity == IDENTITY_NONE && t->nkey > 0)
        check_found(c, true, table_label(t),
                    "its replica identity is NOTHING: the log names no row of an update or delete",
                    arena_printf(c->arena, "ALTER TABLE %s REPLICA IDENTITY DEFAULT", name));
    else if (t->identity == IDENTITY_NONE)
        check_found(c, true, table_label(t),
                    "it has no usable key (none, or a deferrable one): the log names no row of an"
                    " update or delete",
                    arena_printf(c->arena,
                                 "ALTER TABLE %s REPLICA IDENTITY FULL, or give it a primary key",
                                 name));
    for (size_t i = 0; i < t->nkey; i++) {
        const struct column *k = &t->columns[t->key[i]];

        if (k->generated)
            check_found(c, true, table_label(t),
                        arena_printf(c->arena,
                                     "key column %s is generated: the log does not carry it",
                                     k->name),
                        arena_printf(c->arena,
                                     "ALTER TABLE %s REPLICA IDENTITY USING INDEX one without"
                                     " generated columns",
                                     name));
    }
}

/* What matches the selection and yet cannot be replicated. */
static int check_kinds(struct check *c, struct err *e)
{
    static const char sql[] =
        "SELECT n.nspname, c.relname, c.relkind, c.relpersistence FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE (c.relkind IN ('m', 'f')"
        " OR c.relkind = 'r' AND c.relpersistence = 'u') AND n.nspname !~ '^pg_'"
        " AND n.nspname NOT IN ('information_schema', 'lockstep') ORDER BY 1, 2";
    PGresult *res = pg_query(c->db, sql, 0, NULL, e);

    if (res == NULL)
        return -1;
    for (int i = 0; i < PQntuples(res); i++) {
        const char *schema = PQgetvalue(res, i, 0);
        const char *name = PQgetvalue(res, i, 1);
        const char *label = arena_printf(c->arena, "%s.%s", schema, name);
        char kind = PQgetvalue(res, i, 2)[0];

        if (!pg_selected(c->request->selection, schema, name))
            continue;
        if (kind == 'm' && !c->request->same_engine)
            continue; /* check_beside tells of it */
        if (kind == 'm')
            check_found(c, false, label, "it is a materialized view: it arrives empty",
                        arena_printf(c->arena, "REFRESH MATERIALIZED VIEW %s on the target",
                                     quoted(c, schema, name)));
        else if (kind == 'f')
            check_found(c, false, label, "it is a foreign table: it is not copied",
                        "create it on the target if it is needed there");
        else
            check_found(c, true, label, "it is unlogged: its changes are in no log",
                        arena_printf(c->arena,
                                     "ALTER TABLE %s SET LOGGED, or exclude it (tables.exclude)",
                                     quoted(c, schema, name)));
    }
    PQclear(res);
    return 0;
}

static int check_source(struct check *c, struct err *e)
{
    struct table_list tables;
    struct err why = {0};
    const char *dir;

    if (pg_tables(&c->db->base, c->request->selection, c->arena, &tables, e) != 0 ||
        ask(c, check_source_queries, check_source_nqueries, table_oids(c, &tables), e) != 0)
        return -1;
    if (tables.n == 0)
        check_found(c, true, "source", "no table matches the selection",
                    "correct tables.include and tables.exclude (patterns are schema.name)");
    for (size_t i = 0; i < tables.n; i++)
        check_identity(c, tables.v[i]);
    if (tool_find(c->request->pg_bindir, c->db->version, c->arena, &dir, &why) != 0) {
        if (why.class == ERR_STOPPED) {
            if (e != NULL)
                *e = why;
            return -1;
        }
        check_found(c, true, "pg_dump", why.msg, why.hint);
    }
    if (check_kinds(c, e) != 0 ||
        (tables.n > 0 && check_beside(c, &tables, table_oids(c, &tables), e) != 0))
        return -1;
    return check_replica_role(c, false, e);
}

/* ---- target ---- */

static int check_same_database(struct check *c, struct err *e)
{
    struct server_identity source;
    struct server_identity target;

    if (c->request->source == NULL)
        return 0;
    if (pg_identify(c->request->source, &source, e) != 0 ||
        pg_identify(&c->db->base, &target, e) != 0)
        return -1;
    if (strcmp(source.system, target.system) == 0 && strcmp(source.database, target.database) == 0)
        check_found(c, true, "target", "it is the source: the same server and database",
                    "give the URI of another server or database");
    return 0;
}

static void check_version(struct check *c)
{
    int source = c->request->source_version;

    if (source == 0 || c->db->version / 10000 >= source / 10000)
        return;
    check_found(c, true, "target",
                arena_printf(c->arena, "server version %d is older than the source's %d",
                             c->db->version / 10000, source / 10000),
                arena_printf(c->arena, "use a target of version %d or newer", source / 10000));
}

/* May we create the tables where they go? A schema that does not exist is created by us. */
static int check_schemas(struct check *c, struct err *e)
{
    const struct table_list *list = c->request->tables;
    const char *last = "";

    for (size_t i = 0; list != NULL && i < list->n; i++) {
        const char *schema = list->v[i]->schema;

        if (strcmp(schema, last) == 0)
            continue;
        last = schema;
        PGresult *res = pg_query(c->db,
                                 "SELECT format('GRANT CREATE, USAGE ON SCHEMA %I TO %I', nspname,"
                                 " current_user) FROM pg_namespace WHERE nspname = $1 AND NOT"
                                 " (has_schema_privilege(oid, 'CREATE') AND"
                                 " has_schema_privilege(oid, 'USAGE'))",
                                 1, &schema, e);
        if (res == NULL)
            return -1;
        if (PQntuples(res) > 0)
            check_found(c, true, arena_printf(c->arena, "schema %s", schema),
                        "it exists on the target and this role may not create tables in it",
                        PQgetvalue(res, 0, 0));
        PQclear(res);
    }
    return 0;
}

/* The columns as PRE would make them. A key may be missing yet: it is made after the load. */
static const char *shape_difference(struct check *c, const struct table *want,
                                    const struct table *have)
{
    if (have->ncolumns != want->ncolumns)
        return arena_printf(c->arena, "it has %zu columns, the source has %zu", have->ncolumns,
                            want->ncolumns);
    for (size_t i = 0; i < want->ncolumns; i++) {
        const struct column *w = &want->columns[i];
        const struct column *h = &have->columns[i];

        if (strcmp(w->name, h->name) != 0 || strcmp(w->source_type, h->source_type) != 0)
            return arena_printf(c->arena, "column %zu is %s %s, the source has %s %s", i + 1,
                                h->name, h->source_type, w->name, w->source_type);
        if (w->generated != h->generated)
            return arena_printf(c->arena, "column %s is generated on one side only", w->name);
        if (h->not_null && !w->not_null)
            return arena_printf(c->arena, "column %s is NOT NULL, the source's is not", w->name);
    }
    if (have->nkey > 0 && have->nkey != want->nkey)
        return "its key has other columns than the source's";
    for (size_t i = 0; i < have->nkey; i++)
        if (have->key[i] != want->key[i])
            return "its key has other columns than the source's";
    return NULL;
}

static const struct table *table_by_name(const struct table_list *list, const struct table *t)
{
    for (size_t i = 0; i < list->n; i++)
        if (strcmp(list->v[i]->schema, t->schema) == 0 && strcmp(list->v[i]->name, t->name) == 0)
            return list->v[i];
    return NULL;
}

/* 1: exists in some form, *kind tells; 0: no such relation. */
static int relation_there(struct check *c, const struct table *t, char *kind, bool *owner,
                          struct err *e)
{
    const char *values[] = {t->schema, t->name};
    PGresult *res = pg_query(c->db,
                             "SELECT c.relkind, pg_has_role(c.relowner, 'USAGE') FROM pg_class c"
                             " JOIN pg_namespace n ON n.oid = c.relnamespace"
                             " WHERE n.nspname = $1 AND c.relname = $2",
                             2, values, e);

    if (res == NULL)
        return -1;
    int rows = PQntuples(res);
    if (rows > 0) {
        *kind = PQgetvalue(res, 0, 0)[0];
        *owner = pg_bool(res, 0, 1);
    }
    PQclear(res);
    return rows > 0;
}

static int check_empty(struct check *c, const struct table *t, struct err *e)
{
    const char *name = quoted(c, t->schema, t->name);
    PGresult *res = pg_query(
        c->db, arena_printf(c->arena, "SELECT EXISTS (SELECT FROM ONLY %s)", name), 0, NULL, e);

    if (res == NULL)
        return -1;
    if (pg_bool(res, 0, 0))
        check_found(
            c, true, table_label(t), "it exists on the target and is not empty",
            arena_printf(c->arena, "on the target: TRUNCATE %s, or DROP TABLE %s", name, name));
    PQclear(res);
    return 0;
}

static int check_existing(struct check *c, const struct table_list *have, const struct table *t,
                          struct err *e)
{
    const char *name = quoted(c, t->schema, t->name);
    char kind = 0;
    bool owner = false;
    int there = relation_there(c, t, &kind, &owner, e);

    if (there <= 0)
        return there;
    const struct table *h = table_by_name(have, t);
    if (kind != 'r' || h == NULL) {
        check_found(c, true, table_label(t), "something else of that name exists on the target",
                    arena_printf(c->arena, "rename or drop %s on the target", name));
        return 0;
    }
    if (!owner) {
        check_found(c, true, table_label(t), "it exists on the target and belongs to another role",
                    arena_printf(c->arena, "DROP TABLE %s, or ALTER TABLE %s OWNER TO \"%s\"", name,
                                 name, PQuser(c->db->conn)));
        return 0;
    }
    const char *difference = shape_difference(c, t, h);
    if (difference != NULL)
        check_found(c, true, table_label(t),
                    arena_printf(c->arena, "it exists on the target and differs: %s", difference),
                    arena_printf(c->arena, "on the target: DROP TABLE %s", name));
    return check_empty(c, t, e);
}

static int check_tables(struct check *c, struct err *e)
{
    const struct table_list *list = c->request->tables;
    struct table_list have;

    if (c->request->started || list == NULL)
        return 0;
    if (pg_tables(&c->db->base, NULL, c->arena, &have, e) != 0)
        return -1;
    for (size_t i = 0; i < list->n; i++)
        if (check_existing(c, &have, list->v[i], e) != 0)
            return -1;
    return 0;
}

/* Extensions that a chosen table's columns need, or all of them if everything is chosen. */
static int check_extensions(struct check *c, struct err *e)
{
    static const char needed_sql[] =
        "SELECT x.extname FROM pg_extension x WHERE x.extname <> 'plpgsql' AND ($2::bool OR EXISTS "
        "("
        " SELECT FROM pg_depend d JOIN pg_attribute a ON d.classid = 'pg_type'::regclass"
        " AND d.objid IN (a.atttypid, (SELECT typelem FROM pg_type WHERE oid = a.atttypid))"
        " WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = x.oid"
        " AND d.deptype = 'e' AND a.attrelid = ANY ($1::oid[]) AND a.attnum > 0)) ORDER BY 1";
    static const char there_sql[] =
        "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = $1),"
        " EXISTS (SELECT FROM pg_available_extensions WHERE name = $1),"
        " coalesce((SELECT bool_or(NOT v.superuser OR v.trusted) FROM"
        "  pg_available_extension_versions v WHERE v.name = $1), false)"
        " OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)";
    bool all = c->request->selection == NULL || c->request->selection->ninclude == 0;
    const char *values[] = {table_oids(c, c->request->tables), all ? "t" : "f"};

    if (c->request->source == NULL)
        return 0;
    PGresult *needed = pg_query(pg_db_from(c->request->source), needed_sql, 2, values, e);
    if (needed == NULL)
        return -1;
    int rc = 0;
    for (int i = 0; i < PQntuples(needed) && rc == 0; i++) {
        const char *name = PQgetvalue(needed, i, 0);
        const char *object = arena_printf(c->arena, "extension %s", name);
        PGresult *res = pg_query(c->db, there_sql, 1, &name, e);

        if (res == NULL) {
            rc = -1;
            continue;
        }
        if (!pg_bool(res, 0, 0) && !pg_bool(res, 0, 1))
            check_found(c, true, object, "the source uses it; the target's server does not have it",
                        "install its package on the target's server");
        else if (!pg_bool(res, 0, 0) && !pg_bool(res, 0, 2))
            check_found(c, true, object, "the source uses it; this role may not create it",
                        arena_printf(c->arena,
                                     "as superuser, in the target database: CREATE EXTENSION"
                                     " \"%s\"",
                                     name));
        PQclear(res);
    }
    PQclear(needed);
    return rc;
}

static int check_target(struct check *c, struct err *e)
{
    check_version(c);
    return check_same_database(c, e) != 0 ||
                   ask(c, check_target_queries, check_target_nqueries, "{}", e) != 0 ||
                   check_replica_role(c, true, e) != 0 || check_schemas(c, e) != 0 ||
                   check_extensions(c, e) != 0 || check_tables(c, e) != 0 ||
                   check_writers(c, e) != 0
               ? -1
               : 0;
}

int pg_check(struct db *base, const struct check_request *r, struct arena *a, struct findings *out,
             struct err *e)
{
    struct check c = {
        .db = pg_db_from(base), .request = r, .arena = a, .found = *out, .cap = out->n};
    int rc = r->side == SIDE_SOURCE ? check_source(&c, e) : check_target(&c, e);

    *out = c.found;
    return rc == 0 ? 0
                   : err_wrap(e, "checking the %s", r->side == SIDE_SOURCE ? "source" : "target");
}
