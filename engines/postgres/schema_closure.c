/* Which objects come along: the chosen tables, everything of schemas that are included whole, and
 * what those depend on, by the catalog's own dependencies.
 *
 * The walk goes from an object to what it needs. Some parts of a table are objects of their own
 * that need the table, not the other way round (defaults, checks, owned sequences, indexes): for
 * those the walk steps back. A table that is reached but not chosen is not created; what cannot do
 * without it is left out too, and where that is a chosen table, the plan is refused (schema_toc.c).
 */
#include "engines/postgres/schema.h"

#include <stdlib.h>

#define IN_SCHEMA(catalog, column)                                                                 \
    " UNION ALL SELECT '" catalog "'::regclass::oid, x.oid FROM " catalog " x, p WHERE x." column  \
    " = ANY (p.schemas)"

static const char closure_sql[] =
    "WITH RECURSIVE p AS MATERIALIZED (SELECT $1::oid[] AS tables, $2::oid[] AS schemas,"
    " $3::bool AS everything),"
    " present(oid) AS (SELECT unnest(p.tables) FROM p UNION SELECT a.relid::oid FROM p,"
    "  unnest(p.tables) t, pg_partition_ancestors(t) a),"
    " seed(classid, objid) AS ("
    "  SELECT 'pg_class'::regclass::oid, oid FROM present"
    "  UNION ALL SELECT 'pg_class'::regclass::oid, c.oid FROM pg_class c, p"
    "   WHERE c.relnamespace = ANY (p.schemas) AND c.relkind IN ('v', 'm', 'S', 'c')"
    "  UNION ALL SELECT 'pg_namespace'::regclass::oid, unnest(p.schemas) FROM p" IN_SCHEMA(
        "pg_proc", "pronamespace") IN_SCHEMA("pg_type", "typnamespace") IN_SCHEMA("pg_operator",
                                                                                  "oprnamespace")
        IN_SCHEMA("pg_opclass", "opcnamespace") IN_SCHEMA("pg_opfamily", "opfnamespace")
            IN_SCHEMA("pg_collation", "collnamespace") IN_SCHEMA("pg_conversion", "connamespace")
                IN_SCHEMA("pg_ts_config", "cfgnamespace") IN_SCHEMA("pg_ts_dict", "dictnamespace")
                    IN_SCHEMA("pg_ts_parser", "prsnamespace") IN_SCHEMA(
                        "pg_ts_template",
                        "tmplnamespace") "  UNION ALL SELECT 'pg_extension'::regclass::oid, x.oid "
                                         "FROM pg_extension x, p"
                                         "   WHERE p.everything"
                                         "  UNION ALL SELECT 'pg_cast'::regclass::oid, x.oid FROM "
                                         "pg_cast x, p"
                                         "   WHERE p.everything AND x.oid >= 16384"
                                         "  UNION ALL SELECT 'pg_language'::regclass::oid, x.oid "
                                         "FROM pg_language x, p"
                                         "   WHERE p.everything AND x.oid >= 16384"
                                         "  UNION ALL SELECT 'pg_trigger'::regclass::oid, t.oid "
                                         "FROM pg_trigger t JOIN pg_class c"
                                         "   ON c.oid = t.tgrelid, p WHERE c.relnamespace = ANY "
                                         "(p.schemas) AND NOT t.tgisinternal"
                                         "   AND t.tgname <> '!lockstep_fence' AND (c.relkind = "
                                         "'v' OR c.oid IN (SELECT oid FROM present))"
                                         "  UNION ALL SELECT 'pg_rewrite'::regclass::oid, t.oid "
                                         "FROM pg_rewrite t JOIN pg_class c"
                                         "   ON c.oid = t.ev_class, p WHERE c.relnamespace = ANY "
                                         "(p.schemas)"
                                         "   AND (c.relkind IN ('v', 'm') OR c.oid IN (SELECT oid "
                                         "FROM present))"
                                         "  UNION ALL SELECT 'pg_policy'::regclass::oid, t.oid "
                                         "FROM pg_policy t"
                                         "   WHERE t.polrelid IN (SELECT oid FROM present)),"
                                         " closure(classid, objid) AS ("
                                         "  SELECT classid, objid FROM seed"
                                         "  UNION SELECT x.classid, x.objid FROM closure c CROSS "
                                         "JOIN LATERAL ("
                                         "   SELECT d.refclassid, d.refobjid FROM pg_depend d"
                                         "    WHERE d.classid = c.classid AND d.objid = c.objid"
                                         "   UNION ALL SELECT 'pg_attrdef'::regclass::oid, x.oid "
                                         "FROM pg_attrdef x"
                                         "    WHERE c.classid = 'pg_class'::regclass AND x.adrelid "
                                         "= c.objid"
                                         "   UNION ALL SELECT 'pg_constraint'::regclass::oid, "
                                         "x.oid FROM pg_constraint x"
                                         "    WHERE x.contype = 'c' AND (c.classid = "
                                         "'pg_class'::regclass AND x.conrelid = c.objid"
                                         "     OR c.classid = 'pg_type'::regclass AND x.contypid = "
                                         "c.objid)"
                                         "   UNION ALL SELECT 'pg_class'::regclass::oid, "
                                         "x.indexrelid FROM pg_index x"
                                         "    WHERE c.classid = 'pg_class'::regclass AND "
                                         "x.indrelid = c.objid"
                                         "   UNION ALL SELECT 'pg_statistic_ext'::regclass::oid, "
                                         "x.oid FROM pg_statistic_ext x"
                                         "    WHERE c.classid = 'pg_class'::regclass AND "
                                         "x.stxrelid = c.objid"
                                         "   UNION ALL SELECT 'pg_class'::regclass::oid, "
                                         "t.typrelid FROM pg_type t"
                                         "    WHERE c.classid = 'pg_type'::regclass AND t.oid = "
                                         "c.objid AND t.typrelid <> 0"
                                         "   UNION ALL SELECT 'pg_class'::regclass::oid, d.objid "
                                         "FROM pg_depend d JOIN pg_class s"
                                         "    ON s.oid = d.objid AND s.relkind = 'S' WHERE "
                                         "c.classid = 'pg_class'::regclass"
                                         "    AND d.classid = 'pg_class'::regclass AND "
                                         "d.refclassid = 'pg_class'::regclass"
                                         "    AND d.refobjid = c.objid AND d.deptype IN ('a', "
                                         "'i')) x(classid, objid)"
                                         "  WHERE NOT (x.classid = 'pg_class'::regclass AND EXISTS "
                                         "(SELECT FROM pg_class r"
                                         "   WHERE r.oid = x.objid AND r.relkind IN ('r', 'p', 'f')"
                                         "   AND r.oid NOT IN (SELECT oid FROM present))))"
                                         " SELECT classid::text, objid::text FROM closure";

int schema_closure(struct schema_plan *p, struct err *e)
{
    const char *values[] = {p->tables_oids, p->schemas_oids, p->everything ? "t" : "f"};
    PGresult *res = pg_query(p->source, closure_sql, 3, values, e);

    if (res == NULL)
        return err_wrap(e, "collecting what the tables depend on");
    for (int i = 0; i < PQntuples(res); i++)
        schema_object_add(p, &p->wanted, (uint32_t)strtoul(PQgetvalue(res, i, 0), NULL, 10),
                          (uint32_t)strtoul(PQgetvalue(res, i, 1), NULL, 10));
    schema_objects_seal(&p->wanted);
    PQclear(res);
    return 0;
}
