/* `check`: what stands beside the chosen tables and is not carried, and the rights that nobody has
 * on the target yet. Warnings: the tables themselves are fit. */
#include "engines/postgres/check.h"

#include "engines/postgres/schema.h"

#include <stdlib.h>
#include <string.h>

#define NAMED_MAX 5

/* ---- what is not carried ---- */

#define SHELL(text) "'''' || replace(" text ", '''', '''\\''''') || ''''"
#define NO_MEMBER(catalog, alias)                                                                  \
    " AND NOT EXISTS (SELECT FROM pg_depend x WHERE x.classid = '" catalog "'::regclass AND"       \
    " x.objid = " alias ".oid AND x.deptype = 'e')"
#define RELATION "format('%I.%I', n.nspname, c.relname)"

/* Of each object: what it is, how the catalog calls it, whether it needs a table that is not chosen
 * (then it is left out of a schema that is carried whole, too), its name, and how a tool of
 * PostgreSQL is told of it. A sequence that a chosen column takes its default from goes with it. */
static const char beside_sql[] =
    "WITH RECURSIVE p AS (SELECT $1::oid[] AS tables),"
    " s AS (SELECT DISTINCT c.relnamespace AS oid FROM pg_class c, p WHERE c.oid = ANY (p.tables)),"
    " direct AS (SELECT r.ev_class AS view, d.refobjid AS rel FROM pg_rewrite r JOIN pg_depend d"
    "  ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid"
    "  AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class WHERE r.oid >= 16384),"
    " uses AS (SELECT view, rel FROM direct"
    "  UNION SELECT u.view, d.rel FROM uses u JOIN direct d ON d.view = u.rel),"
    " beside(kind, classid, objid, lacks, name, word) AS ("
    " SELECT CASE c.relkind WHEN 'v' THEN 0 ELSE 1 END, 'pg_class'::regclass, c.oid,"
    "  EXISTS (SELECT FROM uses u JOIN pg_class k ON k.oid = u.rel AND k.oid >= 16384, p"
    "   WHERE u.view = c.oid AND k.relkind IN ('r', 'p', 'f') AND NOT EXISTS (SELECT FROM"
    "   pg_partition_tree(k.oid) l WHERE l.relid = ANY (p.tables)) AND k.oid <> ALL (p.tables)),"
    "  " RELATION ", '-t ' || " SHELL(
        RELATION) " FROM pg_class c JOIN pg_namespace n"
                  "  ON n.oid = c.relnamespace WHERE n.oid IN (SELECT oid FROM s) AND c.relkind IN "
                  "('v', 'm')" NO_MEMBER(
                      "pg_class",
                      "c") " UNION ALL SELECT 2, 'pg_class'::regclass, c.oid, false, " RELATION ","
                           "  '-t ' || " SHELL(
                               RELATION) " FROM p, pg_class c JOIN pg_namespace n ON n.oid = "
                                         "c.relnamespace"
                                         "  WHERE n.oid IN (SELECT oid FROM s) AND c.relkind = 'S' "
                                         "AND NOT EXISTS (SELECT FROM pg_depend d"
                                         "  LEFT JOIN pg_attrdef f ON d.classid = "
                                         "'pg_attrdef'::regclass AND f.oid = d.objid"
                                         "  WHERE d.classid = 'pg_class'::regclass AND d.objid = "
                                         "c.oid AND d.deptype IN ('a', 'i')"
                                         "  OR d.refclassid = 'pg_class'::regclass AND d.refobjid "
                                         "= c.oid AND f.adrelid = ANY (p.tables))" NO_MEMBER(
                                             "pg_class",
                                             "c") " UNION ALL SELECT 3, 'pg_proc'::regclass, "
                                                  "f.oid, false, f.oid::regprocedure::text,"
                                                  "  quote_literal(f.oid::regprocedure::text) || "
                                                  "'::regprocedure' FROM pg_proc f"
                                                  "  WHERE f.pronamespace IN (SELECT oid FROM s) "
                                                  "AND f.prokind <> 'a'" NO_MEMBER(
                                                      "pg_proc",
                                                      "f") " UNION ALL SELECT 6, "
                                                           "'pg_proc'::regclass, f.oid, false, "
                                                           "f.oid::regprocedure::text, ''"
                                                           "  FROM pg_proc f WHERE f.pronamespace "
                                                           "IN (SELECT oid FROM s) AND f.prokind = "
                                                           "'a'" NO_MEMBER(
                                                               "pg_proc",
                                                               "f") " UNION ALL SELECT 4, "
                                                                    "'pg_trigger'::regclass, "
                                                                    "t.oid, false,"
                                                                    "  format('%I on %I.%I', "
                                                                    "t.tgname, n.nspname, "
                                                                    "c.relname), '-t ' || " SHELL(
                                                                        RELATION) "  FROM p, "
                                                                                  "pg_trigger t "
                                                                                  "JOIN pg_class c "
                                                                                  "ON c.oid = "
                                                                                  "t.tgrelid JOIN "
                                                                                  "pg_namespace n"
                                                                                  "  ON n.oid = "
                                                                                  "c.relnamespace "
                                                                                  "WHERE c.oid = "
                                                                                  "ANY (p.tables) "
                                                                                  "AND NOT "
                                                                                  "t.tgisinternal"
                                                                                  "  AND "
                                                                                  "t.tgparentid = "
                                                                                  "0 AND t.tgname "
                                                                                  "<> "
                                                                                  "'!lockstep_"
                                                                                  "fence'"
                                                                                  " UNION ALL "
                                                                                  "SELECT 5, "
                                                                                  "'pg_policy'::"
                                                                                  "regclass, "
                                                                                  "y.oid, false,"
                                                                                  "  format('%I on "
                                                                                  "%I.%I', "
                                                                                  "y.polname, "
                                                                                  "n.nspname, "
                                                                                  "c.relname), '-t "
                                                                                  "' || " SHELL(
                                                                                      RELATION) "  "
                                                                                                "FR"
                                                                                                "OM"
                                                                                                " p"
                                                                                                ", "
                                                                                                "pg"
                                                                                                "_p"
                                                                                                "ol"
                                                                                                "ic"
                                                                                                "y "
                                                                                                "y "
                                                                                                "JO"
                                                                                                "IN"
                                                                                                " p"
                                                                                                "g_"
                                                                                                "cl"
                                                                                                "as"
                                                                                                "s "
                                                                                                "c "
                                                                                                "ON"
                                                                                                " c"
                                                                                                ".o"
                                                                                                "id"
                                                                                                " ="
                                                                                                " y"
                                                                                                ".p"
                                                                                                "ol"
                                                                                                "re"
                                                                                                "li"
                                                                                                "d "
                                                                                                "JO"
                                                                                                "IN"
                                                                                                " p"
                                                                                                "g_"
                                                                                                "na"
                                                                                                "me"
                                                                                                "sp"
                                                                                                "ac"
                                                                                                "e "
                                                                                                "n"
                                                                                                "  "
                                                                                                "ON"
                                                                                                " n"
                                                                                                ".o"
                                                                                                "id"
                                                                                                " ="
                                                                                                " c"
                                                                                                ".r"
                                                                                                "el"
                                                                                                "na"
                                                                                                "me"
                                                                                                "sp"
                                                                                                "ac"
                                                                                                "e "
                                                                                                "WH"
                                                                                                "ER"
                                                                                                "E "
                                                                                                "c."
                                                                                                "oi"
                                                                                                "d "
                                                                                                "= "
                                                                                                "AN"
                                                                                                "Y "
                                                                                                "(p"
                                                                                                ".t"
                                                                                                "ab"
                                                                                                "le"
                                                                                                "s)"
                                                                                                ")"
                                                                                                " S"
                                                                                                "EL"
                                                                                                "EC"
                                                                                                "T "
                                                                                                "ki"
                                                                                                "nd"
                                                                                                ", "
                                                                                                "cl"
                                                                                                "as"
                                                                                                "si"
                                                                                                "d:"
                                                                                                ":o"
                                                                                                "id"
                                                                                                "::"
                                                                                                "te"
                                                                                                "xt"
                                                                                                ", "
                                                                                                "ob"
                                                                                                "ji"
                                                                                                "d:"
                                                                                                ":t"
                                                                                                "ex"
                                                                                                "t,"
                                                                                                " l"
                                                                                                "ac"
                                                                                                "ks"
                                                                                                ", "
                                                                                                "na"
                                                                                                "me"
                                                                                                ", "
                                                                                                "wo"
                                                                                                "rd"
                                                                                                " F"
                                                                                                "RO"
                                                                                                "M "
                                                                                                "be"
                                                                                                "si"
                                                                                                "de"
                                                                                                " O"
                                                                                                "RD"
                                                                                                "ER"
                                                                                                " B"
                                                                                                "Y "
                                                                                                "ki"
                                                                                                "nd"
                                                                                                ", "
                                                                                                "na"
                                                                                                "m"
                                                                                                "e";

/* The words of the objects stand in the place of %s. */
static const struct kind {
    const char *one;
    const char *many;
    const char *native;
    const char *other;
} kinds[] = {
    {"view", "views", "pg_dump -s -O -x %s -d SOURCE | psql -d TARGET, once the tables are there",
     "create it on the target in its own SQL; pg_dump -s %s -d SOURCE shows it"},
    {"materialized view", "materialized views",
     "pg_dump -s -O -x %s -d SOURCE | psql -d TARGET, once the tables are there, and REFRESH"
     " MATERIALIZED VIEW there",
     "create it on the target in its own SQL; pg_dump -s %s -d SOURCE shows it"},
    {"sequence that no column owns", "sequences that no column owns",
     "pg_dump -O -x %s -d SOURCE | psql -d TARGET, behind the switch: its value moves until then",
     "create it on the target behind the switch; pg_dump %s -d SOURCE shows it with its value"},
    {"function or procedure", "functions and procedures",
     "psql -d SOURCE -Atc \"SELECT pg_get_functiondef(f) || ';' FROM unnest(ARRAY[%s]) f\" |"
     " psql -d TARGET",
     "create it on the target in its own SQL; psql -d SOURCE -Atc \"SELECT pg_get_functiondef(f) ||"
     " ';' FROM unnest(ARRAY[%s]) f\" shows it"},
    {"trigger", "triggers",
     "create it on the target; pg_dump -s --section=post-data %s -d SOURCE shows it",
     "create it on the target behind the switch; pg_dump -s --section=post-data %s -d SOURCE shows"
     " it"},
    {"row security policy", "row security policies",
     "create it on the target; pg_dump -s --section=post-data %s -d SOURCE shows it",
     "create what protects the rows on the target in its own way; pg_dump -s --section=post-data %s"
     " -d SOURCE shows it"},
    {"aggregate", "aggregates", "create it on the target%s", "create it on the target%s"},
};

/* What has been counted of one kind. */
struct beside {
    int n;
    struct buf names;
    struct buf words;
};

static void beside_add(struct beside *b, const struct kind *kind, const char *name,
                       const char *word)
{
    bool functions = strcmp(kind->one, "function or procedure") == 0;
    bool told = b->words.len > 0 && strstr(b->words.data, word) != NULL;

    if (++b->n > NAMED_MAX)
        return;
    buf_addf(&b->names, "%s%s", b->n > 1 ? ", " : "", name);
    if (functions || !told)
        buf_addf(&b->words, "%s%s", b->n == 1 ? "" : functions ? ", " : " ", word);
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
        arena_printf(c->arena, "%d %s not carried: %s%s", b->n,
                     arena_printf(c->arena, b->n == 1 ? "%s is" : "%s are",
                                  b->n == 1 ? kind->one : kind->many),
                     b->names.data, more),
        arena_printf(c->arena, "%.*s%s%s", (int)(at - remedy), remedy, b->words.data, at + 2));
}

int check_beside(struct check *c, const struct table_list *tables, const char *oids, struct err *e)
{
    struct schema_request request = {.tables = tables, .selection = c->request->selection};
    struct schema_plan carried = {.request = &request, .source = c->db, .arena = c->arena};
    bool native = c->request->same_engine;
    PGresult *res;

    if (native && schema_carried(&carried, e) != 0)
        return -1;
    res = pg_query(c->db, beside_sql, 1, &oids, e);
    if (res == NULL)
        return err_wrap(e, "looking for what is not carried");
    for (int i = 0, row = 0; i < (int)(sizeof kinds / sizeof kinds[0]); i++) {
        struct beside b = {0};

        buf_init(&b.names, BUF_MAX_TEXT);
        buf_init(&b.words, BUF_MAX_TEXT);
        for (; row < PQntuples(res) && pg_int(res, row, 0) == i; row++) {
            uint32_t classid = (uint32_t)strtoul(PQgetvalue(res, row, 1), NULL, 10);
            uint32_t objid = (uint32_t)strtoul(PQgetvalue(res, row, 2), NULL, 10);

            if (!native || pg_bool(res, row, 3) ||
                !schema_object_in(&carried.wanted, classid, objid))
                beside_add(&b, &kinds[i], PQgetvalue(res, row, 4), PQgetvalue(res, row, 5));
        }
        if (b.n > 0)
            beside_found(c, &b, &kinds[i]);
        buf_release(&b.names);
        buf_release(&b.words);
    }
    PQclear(res);
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
                    " (docs/cutover.md, Rights)"
                  : arena_printf(c->arena,
                                 "before the tables are made: ALTER DEFAULT PRIVILEGES FOR ROLE %s"
                                 " GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO the"
                                 " applications' roles (docs/cutover.md, Rights)",
                                 me));
    PQclear(res);
    return 0;
}
