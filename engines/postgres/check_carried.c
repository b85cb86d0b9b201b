/* `check`: what stands beside the chosen tables and is not carried, and the rights that nobody has
 * on the target yet. Warnings: the tables themselves are fit. */
#include "engines/postgres/check.h"

#include "engines/postgres/schema.h"

#include <stdlib.h>
#include <string.h>

#define NAMED_MAX 5

/* ---- what is not carried ---- */

/* uses: all that a view reads, through other views too. beside: what one kind's query tells. */
static const char beside_sql[] =
    "WITH RECURSIVE p AS (SELECT $1::oid[] AS tables),"
    " s AS (SELECT DISTINCT c.relnamespace AS oid FROM pg_class c, p WHERE c.oid = ANY (p.tables)),"
    " direct AS (SELECT r.ev_class AS view, d.refobjid AS rel FROM pg_rewrite r JOIN pg_depend d"
    "  ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid"
    "  AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class WHERE r.oid >= 16384),"
    " uses AS (SELECT view, rel FROM direct"
    "  UNION SELECT u.view, d.rel FROM uses u JOIN direct d ON d.view = u.rel),"
    " beside(classid, objid, lacks, name, word) AS (%s)"
    " SELECT classid::oid::text, objid::text, lacks, name, word FROM beside b WHERE NOT EXISTS"
    "  (SELECT FROM pg_depend x WHERE x.classid = b.classid AND x.objid = b.objid"
    "  AND x.deptype = 'e') ORDER BY name";

#define RELATION "format('%I.%I', n.nspname, c.relname)"
#define VIEWS(kind)                                                                                \
    "SELECT 'pg_class'::regclass, c.oid, EXISTS (SELECT FROM p, uses u JOIN pg_class k"            \
    " ON k.oid = u.rel AND k.oid >= 16384 WHERE u.view = c.oid AND k.relkind IN ('r', 'p', 'f')"   \
    " AND k.oid <> ALL (p.tables) AND NOT EXISTS (SELECT FROM pg_partition_tree(k.oid) l"          \
    " WHERE l.relid = ANY (p.tables))), " RELATION ", " RELATION                                   \
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"                               \
    " WHERE n.oid IN (SELECT oid FROM s) AND c.relkind = '" kind "'"
/* One that a chosen column takes its default from goes with it. */
#define SEQUENCES                                                                                  \
    "SELECT 'pg_class'::regclass, c.oid, false, " RELATION ", " RELATION                           \
    " FROM p, pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"                            \
    " WHERE n.oid IN (SELECT oid FROM s) AND c.relkind = 'S' AND NOT EXISTS (SELECT FROM"          \
    " pg_depend d LEFT JOIN pg_attrdef f ON d.classid = 'pg_attrdef'::regclass"                    \
    " AND f.oid = d.objid WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid"              \
    " AND d.deptype IN ('a', 'i') OR d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid"   \
    " AND f.adrelid = ANY (p.tables))"
#define FUNCTIONS(condition)                                                                       \
    "SELECT 'pg_proc'::regclass, f.oid, false, f.oid::regprocedure::text,"                         \
    " quote_literal(f.oid::regprocedure::text) || '::regprocedure' FROM pg_proc f"                 \
    " WHERE f.pronamespace IN (SELECT oid FROM s) AND " condition
#define TRIGGERS                                                                                   \
    "SELECT 'pg_trigger'::regclass, t.oid, false, format('%I on %s', t.tgname, " RELATION          \
    "), " RELATION " FROM p, pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"                    \
    " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY (p.tables)"                  \
    " AND NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgname <> '!lockstep_fence'"
#define POLICIES                                                                                   \
    "SELECT 'pg_policy'::regclass, y.oid, false, format('%I on %s', y.polname, " RELATION          \
    "), " RELATION " FROM p, pg_policy y JOIN pg_class c ON c.oid = y.polrelid"                    \
    " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY (p.tables)"

/* sql: each object by catalog and id; whether it needs a table that is not chosen (then it is left
 * out of a schema that is carried whole, too); its name; and what a tool is told of it, which
 * stands in the remedies in the place of %s. */
static const struct kind {
    const char *one;
    const char *many;
    const char *sql;
    bool function; /* its words are SQL, not those of pg_dump */
    const char *native;
    const char *other;
} kinds[] = {
    {"view", "views", VIEWS("v"), false,
     "pg_dump -s -O -x%s -d SOURCE | psql -d TARGET, once the tables are there",
     "create it on the target in its own SQL; pg_dump -s%s -d SOURCE shows it"},
    {"materialized view", "materialized views", VIEWS("m"), false,
     "pg_dump -O -x%s -d SOURCE | psql -d TARGET, behind the switch: it is filled there",
     "create it on the target in its own SQL; pg_dump -s%s -d SOURCE shows it"},
    {"sequence that no column owns", "sequences that no column owns", SEQUENCES, false,
     "pg_dump -O -x%s -d SOURCE | psql -d TARGET, behind the switch: its value moves until then",
     "create it on the target behind the switch; pg_dump%s -d SOURCE shows it with its value"},
    {"function or procedure", "functions and procedures", FUNCTIONS("f.prokind <> 'a'"), true,
     "psql -d SOURCE -Atc \"SELECT pg_get_functiondef(f) || ';' FROM unnest(ARRAY[%s]) f\" |"
     " psql -d TARGET, before the switch",
     "create it on the target in its own SQL; psql -d SOURCE -Atc \"SELECT pg_get_functiondef(f) ||"
     " ';' FROM unnest(ARRAY[%s]) f\" shows it"},
    {"aggregate", "aggregates", FUNCTIONS("f.prokind = 'a'"), true,
     "create it on the target; psql -d SOURCE -c \"SELECT aggfnoid, pg_aggregate FROM pg_aggregate"
     " WHERE aggfnoid IN (%s)\" shows it",
     "create what takes its place on the target; psql -d SOURCE -c \"SELECT aggfnoid, pg_aggregate"
     " FROM pg_aggregate WHERE aggfnoid IN (%s)\" shows it"},
    {"trigger", "triggers", TRIGGERS, false,
     "create it on the target; pg_dump -s --section=post-data%s -d SOURCE shows it",
     "create it on the target behind the switch; pg_dump -s --section=post-data%s -d SOURCE shows"
     " it"},
    {"row security policy", "row security policies", POLICIES, false,
     "create it on the target; pg_dump -s --section=post-data%s -d SOURCE shows it",
     "create what protects the rows on the target in its own way; pg_dump -s --section=post-data%s"
     " -d SOURCE shows it"},
};

/* What has been counted of one kind. */
struct beside {
    int n;
    struct buf names;
    struct buf words;
};

static void add_escaped(struct buf *b, const char *text, const char *special, const char *escape)
{
    for (; *text != '\0'; text++) {
        if (strchr(special, *text) != NULL)
            buf_adds(b, escape);
        buf_addc(b, *text);
    }
}

/* As a shell takes it: a function stands within double quotes already. */
static void add_word(struct beside *b, const struct kind *kind, const char *word)
{
    struct buf one;

    buf_init(&one, BUF_MAX_TEXT);
    if (kind->function) {
        buf_adds(&b->words, b->words.len > 0 ? ", " : "");
        add_escaped(&b->words, word, "\"\\$`", "\\");
    } else {
        buf_adds(&one, " -t '");
        add_escaped(&one, word, "'", "'\\'");
        buf_addc(&one, '\'');
        if (b->words.len == 0 || strstr(b->words.data, one.data) == NULL)
            buf_adds(&b->words, one.data);
    }
    buf_release(&one);
}

static void beside_found(struct check *c, const struct beside *b, const struct kind *kind)
{
    const char *remedy = c->request->same_engine ? kind->native : kind->other;
    const char *at = strstr(remedy, "%s");
    const char *more =
        b->n > NAMED_MAX ? arena_printf(c->arena, " and %d more", b->n - NAMED_MAX) : "";

    invariant(at != NULL && !b->names.overflow && !b->words.overflow);
    check_found(
        c, false, kind->many,
        arena_printf(c->arena, "%d %s %s not carried: %s%s", b->n,
                     b->n == 1 ? kind->one : kind->many, b->n == 1 ? "is" : "are", b->names.data,
                     more),
        arena_printf(c->arena, "%.*s%s%s", (int)(at - remedy), remedy, b->words.data, at + 2));
}

/* carried: NULL if nothing is. */
static int check_kind(struct check *c, const struct kind *kind, const char *oids,
                      const struct schema_plan *carried, struct err *e)
{
    PGresult *res = pg_query(c->db, arena_printf(c->arena, beside_sql, kind->sql), 1, &oids, e);
    struct beside b = {0};

    if (res == NULL)
        return err_wrap(e, "looking for %s", kind->many);
    buf_init(&b.names, BUF_MAX_TEXT);
    buf_init(&b.words, BUF_MAX_TEXT);
    for (int i = 0; i < PQntuples(res); i++) {
        uint32_t classid = (uint32_t)strtoul(PQgetvalue(res, i, 0), NULL, 10);
        uint32_t objid = (uint32_t)strtoul(PQgetvalue(res, i, 1), NULL, 10);

        if (carried != NULL && !pg_bool(res, i, 2) &&
            schema_object_in(&carried->wanted, classid, objid))
            continue;
        if (++b.n > NAMED_MAX)
            continue;
        buf_addf(&b.names, "%s%s", b.n > 1 ? ", " : "", PQgetvalue(res, i, 3));
        add_word(&b, kind, PQgetvalue(res, i, 4));
    }
    if (b.n > 0)
        beside_found(c, &b, kind);
    buf_release(&b.names);
    buf_release(&b.words);
    PQclear(res);
    return 0;
}

int check_beside(struct check *c, const struct table_list *tables, const char *oids, struct err *e)
{
    struct schema_request request = {.tables = tables, .selection = c->request->selection};
    struct schema_plan carried = {.request = &request, .source = c->db, .arena = c->arena};
    bool native = c->request->same_engine;

    if (native && schema_carried(&carried, e) != 0)
        return -1;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (check_kind(c, &kinds[i], oids, native ? &carried : NULL, e) != 0)
            return -1;
    return 0;
}

/* ---- rights ---- */

/* The tables that no role but ours (and superusers) may write to, or, where they do not stand there
 * yet, that nobody will be allowed to by default privileges of ours. has_table_privilege knows of
 * ownership, memberships and PUBLIC. */
static const char shut_sql[] =
    "WITH t AS (SELECT format('%I.%I', w.s, w.n) AS name, w.i, n.oid AS schema, c.oid AS oid"
    "  FROM unnest($1::text[], $2::text[]) WITH ORDINALITY w(s, n, i)"
    "  LEFT JOIN pg_namespace n ON n.nspname = w.s"
    "  LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.n),"
    " shut AS (SELECT t.* FROM t WHERE NOT CASE WHEN t.oid IS NOT NULL THEN EXISTS (SELECT FROM"
    "  pg_roles r WHERE NOT r.rolsuper AND r.rolname NOT IN (session_user, current_user)"
    "  AND r.rolname !~ '^pg_' AND has_schema_privilege(r.oid, t.schema, 'USAGE')"
    "  AND has_table_privilege(r.oid, t.oid, 'INSERT, UPDATE, DELETE'))"
    "  ELSE EXISTS (SELECT FROM pg_default_acl d, aclexplode(d.defaclacl) x"
    "   WHERE d.defaclobjtype = 'r' AND pg_get_userbyid(d.defaclrole) = current_user"
    "   AND d.defaclnamespace IN (0, coalesce(t.schema, 0)) AND x.grantee <> d.defaclrole"
    "   AND x.privilege_type IN ('INSERT', 'UPDATE', 'DELETE')) END)"
    " SELECT count(*), array_to_string((array_agg(name ORDER BY i))[1:5], ', '), count(oid),"
    " quote_ident(current_user) FROM shut";

/* The tables' names, or their schemas', as a text[]. */
static const char *array_of(struct check *c, const struct table_list *list, bool schemas)
{
    struct buf b;

    buf_init(&b, BUF_MAX_TEXT);
    buf_addc(&b, '{');
    for (size_t i = 0; i < list->n; i++) {
        buf_adds(&b, i > 0 ? ",\"" : "\"");
        for (const char *p = schemas ? list->v[i]->schema : list->v[i]->name; *p != '\0'; p++) {
            if (*p == '"' || *p == '\\')
                buf_addc(&b, '\\');
            buf_addc(&b, *p);
        }
        buf_addc(&b, '"');
    }
    buf_addc(&b, '}');
    invariant(!b.overflow);
    const char *text = arena_strdup(c->arena, b.data);
    buf_release(&b);
    return text;
}

int check_writers(struct check *c, struct err *e)
{
    const struct table_list *list = c->request->tables;

    if (list == NULL || list->n == 0)
        return 0;
    const char *values[] = {array_of(c, list, true), array_of(c, list, false)};
    PGresult *res = pg_query(c->db, shut_sql, 2, values, e);
    if (res == NULL)
        return err_wrap(e, "looking for who may write");
    int64_t n = pg_int(res, 0, 0);
    bool there = pg_int(res, 0, 2) > 0;
    const char *me = PQgetvalue(res, 0, 3);
    if (n > 0)
        check_found(
            c, false, "rights",
            arena_printf(c->arena,
                         "nobody but lockstep and superusers %s write to %lld of the tables (%s%s):"
                         " rights are not carried, and behind the switch the applications are"
                         " refused",
                         there ? "may" : "will be allowed to", (long long)n, PQgetvalue(res, 0, 1),
                         n > NAMED_MAX ? ", …" : ""),
            there ? "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA … TO the"
                    " applications' roles, and USAGE on the schema and its sequences"
                    " (docs/cutover.md)"
                  : arena_printf(c->arena,
                                 "before the tables are made: ALTER DEFAULT PRIVILEGES FOR ROLE %s"
                                 " GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO the"
                                 " applications' roles (docs/cutover.md)",
                                 me));
    PQclear(res);
    return 0;
}
