/* Foreign keys between chosen tables, and statistics at the end. */
#include "engines/postgres/schema.h"

#include <stdlib.h>
#include <string.h>

/* A key to a partitioned table needs all of its leaves: with some of them missing it would not
 * hold. Keys that a leaf inherits come with its root's. */
static const char foreign_sql[] =
    "WITH present(oid) AS (SELECT unnest($1::oid[]) UNION SELECT a.relid::oid"
    "  FROM unnest($1::oid[]) t, pg_partition_ancestors(t) a)"
    " SELECT k.oid::text, n.nspname, c.relname, k.conname, pg_get_constraintdef(k.oid),"
    " k.convalidated, c.relkind = 'p'"
    " FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid"
    " JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE k.contype = 'f' AND k.conparentid = 0 AND k.conrelid IN (SELECT oid FROM present)"
    " AND k.confrelid IN (SELECT oid FROM present)"
    " AND NOT EXISTS (SELECT FROM pg_partition_tree(k.confrelid) l WHERE l.isleaf"
    "  AND l.relid::oid <> ALL ($1::oid[]))"
    " ORDER BY 2, 3, 4";

struct foreign {
    const char *schema;
    const char *table;
    const char *name;
    const char *def;
    bool validated;
    bool partitioned;
};

static void alter(struct buf *b, const struct foreign *f, bool only, const char *verb)
{
    buf_addf(b, "ALTER TABLE %s", only ? "ONLY " : "");
    pg_ident2(b, f->schema, f->table);
    buf_addf(b, " %s CONSTRAINT ", verb);
    pg_ident(b, f->name);
}

static int foreign_steps(struct schema_plan *p, const struct foreign *f, struct err *e)
{
    const char *label = arena_printf(p->arena, "%s.%s.%s", f->schema, f->table, f->name);
    int there = schema_target_constraint(p, f->schema, f->table, f->name, e);
    struct buf b;

    if (there != 0)
        return there < 0 ? -1 : 0;
    buf_init(&b, BUF_MAX_TEXT);
    /* The server refuses NOT VALID on a partitioned table: it is checked at once, under its lock.
     * A key that the source has not validated already says NOT VALID itself. */
    alter(&b, f, !f->partitioned, "ADD");
    buf_addf(&b, " %s%s", f->def, f->validated && !f->partitioned ? " NOT VALID" : "");
    schema_step_add(p, (struct schema_step){
                           .phase = SCHEMA_FOREIGN,
                           .name = arena_printf(p->arena, "foreign key %s", label),
                           .sql = arena_strdup(p->arena, b.data),
                           .pauses_apply = f->partitioned,
                       });
    buf_reset(&b, 65536);
    if (f->validated && !f->partitioned) {
        alter(&b, f, false, "VALIDATE");
        schema_step_add(p, (struct schema_step){
                               .phase = SCHEMA_FOREIGN,
                               .order = 1,
                               .name = arena_printf(p->arena, "validate %s", label),
                               .sql = arena_strdup(p->arena, b.data),
                           });
    }
    int rc = buf_check(&b, label, e);
    buf_release(&b);
    return rc;
}

int schema_foreign(struct schema_plan *p, struct err *e)
{
    PGresult *res = pg_query(p->source, foreign_sql, 1, &p->tables_oids, e);
    int rc = 0;

    if (res == NULL)
        return err_wrap(e, "reading the foreign keys");
    for (int i = 0; i < PQntuples(res) && rc == 0; i++) {
        struct foreign f = {
            .schema = PQgetvalue(res, i, 1),
            .table = PQgetvalue(res, i, 2),
            .name = PQgetvalue(res, i, 3),
            .def = PQgetvalue(res, i, 4),
            .validated = pg_bool(res, i, 5),
            .partitioned = pg_bool(res, i, 6),
        };

        schema_object_add(p, &p->ours, CLASS_PG_CONSTRAINT,
                          (uint32_t)strtoul(PQgetvalue(res, i, 0), NULL, 10));
        rc = foreign_steps(p, &f, e);
    }
    PQclear(res);
    schema_objects_seal(&p->ours);
    return rc;
}

static void analyze_step(struct schema_plan *p, int order, const char *label, const char *table,
                         const char *quoted)
{
    schema_step_add(p, (struct schema_step){
                           .phase = SCHEMA_ANALYZE,
                           .order = order,
                           .name = arena_printf(p->arena, "analyze %s", label),
                           .table = table,
                           .sql = arena_printf(p->arena, "ANALYZE %s", quoted),
                       });
}

/* Leaves and plain tables, then the partitioned tables above them, which autovacuum never visits.
 */
int schema_analyze(struct schema_plan *p, struct err *e)
{
    static const char sql[] =
        "SELECT n.nspname || '.' || c.relname, format('%I.%I', n.nspname, c.relname),"
        " c.relkind = 'p' FROM (SELECT unnest($1::oid[]) UNION SELECT a.relid::oid FROM"
        " unnest($1::oid[]) t, pg_partition_ancestors(t) a) present(oid)"
        " JOIN pg_class c ON c.oid = present.oid JOIN pg_namespace n ON n.oid = c.relnamespace";
    PGresult *res = pg_query(p->source, sql, 1, &p->tables_oids, e);

    if (res == NULL)
        return -1;
    for (int i = 0; i < PQntuples(res); i++) {
        bool parent = pg_bool(res, i, 2);
        const char *label = arena_strdup(p->arena, PQgetvalue(res, i, 0));

        analyze_step(p, parent, label, parent ? NULL : label, PQgetvalue(res, i, 1));
    }
    PQclear(res);
    return 0;
}
