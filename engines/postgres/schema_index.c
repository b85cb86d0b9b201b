/* Keys, indexes, unique and exclusion constraints of the chosen tables, as steps of our own.
 *
 * The index that identifies a table's rows is made when the table is loaded (KEY), plain ones
 * before apply begins (INDEX), unique ones behind the highest cut, CONCURRENTLY (UNIQUE): a
 * legitimate history can look like a violation before it. On partitioned tables each leaf has its
 * own; the parents' come last, ON ONLY, and the leaves' are attached to them: both are changes of
 * the catalog alone. Names stay those of the source. */
#include "engines/postgres/schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    C_INDEX,
    C_SCHEMA,
    C_TABLE,
    C_KIND,
    C_INDEX_SCHEMA,
    C_NAME,
    C_DEF,
    C_UNIQUE,
    C_PRIMARY,
    C_EXCLUSION,
    C_REPLIDENT,
    C_CLUSTERED,
    C_CONSTRAINT,
    C_CONNAME,
    C_CONDEF,
    C_DEFERRABLE,
    C_DEFERRED,
    C_PARENT_SCHEMA,
    C_PARENT_NAME,
    C_ROOT,
    C_IDENTIFIES,
    C_STATISTICS
};

static const char indexes_sql[] =
    "WITH present(oid) AS (SELECT unnest($1::oid[]) UNION SELECT a.relid::oid"
    "  FROM unnest($1::oid[]) t, pg_partition_ancestors(t) a)"
    " SELECT i.indexrelid::text, tn.nspname, t.relname, t.relkind, xn.nspname, x.relname,"
    " pg_get_indexdef(i.indexrelid), i.indisunique, i.indisprimary, i.indisexclusion,"
    " i.indisreplident, i.indisclustered, k.oid::text, k.conname, pg_get_constraintdef(k.oid),"
    " k.condeferrable, k.condeferred, pn.nspname, px.relname,"
    " coalesce(pg_partition_root(i.indexrelid)::oid, i.indexrelid)::text,"
    " i.indisunique AND i.indimmediate AND CASE WHEN t.relreplident = 'i' THEN i.indisreplident"
    "  ELSE i.indisprimary END,"
    " (SELECT string_agg(format('ALTER INDEX %I.%I ALTER COLUMN %s SET STATISTICS %s; ', "
    "xn.nspname,"
    "   x.relname, a.attnum, a.attstattarget), '') FROM pg_attribute a"
    "   WHERE a.attrelid = x.oid AND a.attstattarget >= 0)"
    " FROM present p JOIN pg_class t ON t.oid = p.oid JOIN pg_namespace tn ON tn.oid = "
    "t.relnamespace"
    " JOIN pg_index i ON i.indrelid = t.oid JOIN pg_class x ON x.oid = i.indexrelid"
    " JOIN pg_namespace xn ON xn.oid = x.relnamespace"
    " LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid"
    "  AND k.contype IN ('p', 'u', 'x')"
    " LEFT JOIN pg_inherits h ON h.inhrelid = i.indexrelid"
    " LEFT JOIN pg_class px ON px.oid = h.inhparent"
    " LEFT JOIN pg_namespace pn ON pn.oid = px.relnamespace"
    " WHERE i.indislive AND (i.indisvalid OR t.relkind = 'p')"
    " ORDER BY (SELECT count(*) FROM pg_partition_ancestors(t.oid)),"
    "  (tn.nspname || '.' || t.relname) COLLATE \"C\", x.relname";

struct index {
    const PGresult *res;
    int row;
    uint32_t root; /* its own oid, if it is part of no other */
    bool parent;   /* on a partitioned table: holds no rows */
    enum schema_phase phase;
    const char *table; /* label */
    const char *name;  /* label */
};

static const char *field(const struct index *x, int column)
{
    return PQgetvalue(x->res, x->row, column);
}

static bool flag(const struct index *x, int column)
{
    return pg_bool(x->res, x->row, column);
}

static bool has(const struct index *x, int column)
{
    return !PQgetisnull(x->res, x->row, column);
}

static enum schema_phase phase_of(const struct index *x)
{
    if (flag(x, C_IDENTIFIES))
        return SCHEMA_KEY;
    return flag(x, C_UNIQUE) || flag(x, C_EXCLUSION) ? SCHEMA_UNIQUE : SCHEMA_INDEX;
}

/* ---- texts ---- */

static void table_name(struct buf *b, const struct index *x)
{
    pg_ident2(b, field(x, C_SCHEMA), field(x, C_TABLE));
}

static void index_name(struct buf *b, const struct index *x)
{
    pg_ident2(b, field(x, C_INDEX_SCHEMA), field(x, C_NAME));
}

/* The statement that makes it in one go, locking the table. */
static void plain_sql(struct buf *b, const struct index *x)
{
    if (has(x, C_CONSTRAINT)) {
        buf_adds(b, "ALTER TABLE ONLY ");
        table_name(b, x);
        buf_adds(b, " ADD CONSTRAINT ");
        pg_ident(b, field(x, C_CONNAME));
        buf_addf(b, " %s; ", field(x, C_CONDEF));
    } else {
        buf_addf(b, "%s; ", field(x, C_DEF));
    }
}

/* What hangs on an index beside itself. */
static void settings_sql(struct buf *b, const struct index *x)
{
    if (flag(x, C_REPLIDENT)) {
        buf_adds(b, "ALTER TABLE ONLY ");
        table_name(b, x);
        buf_adds(b, " REPLICA IDENTITY USING INDEX ");
        pg_ident(b, field(x, C_NAME));
        buf_adds(b, "; ");
    }
    if (flag(x, C_CLUSTERED)) {
        buf_adds(b, "ALTER TABLE ");
        table_name(b, x);
        buf_adds(b, " CLUSTER ON ");
        pg_ident(b, field(x, C_NAME));
        buf_adds(b, "; ");
    }
    if (has(x, C_STATISTICS))
        buf_adds(b, field(x, C_STATISTICS));
}

/* Takes the buffer's text into the plan; the buffer is emptied. */
static const char *text(struct schema_plan *p, struct buf *b)
{
    invariant(!b->overflow);
    const char *s = arena_strdup(p->arena, b->data != NULL ? b->data : "");

    buf_reset(b, 65536);
    return s;
}

/* ---- steps ---- */

static int locked_step(struct schema_plan *p, const struct index *x, struct buf *b, struct err *e)
{
    int there = schema_target_index(p, field(x, C_INDEX_SCHEMA), field(x, C_NAME), e);

    if (there < 0)
        return -1;
    if (!there)
        plain_sql(b, x);
    settings_sql(b, x);
    if (b->len == 0)
        return 0;
    schema_step_add(p, (struct schema_step){
                           .phase = x->phase,
                           .name = arena_printf(p->arena, "%s %s",
                                                x->phase == SCHEMA_KEY ? "key" : "index", x->name),
                           .table = x->table,
                           .sql = text(p, b),
                           .pauses_apply = x->phase == SCHEMA_UNIQUE,
                       });
    return 0;
}

/* CREATE UNIQUE INDEX CONCURRENTLY by itself, then the constraint that takes it over. */
static int online_steps(struct schema_plan *p, const struct index *x, struct buf *b, struct err *e)
{
    static const char create[] = "CREATE UNIQUE INDEX ";
    const char *def = field(x, C_DEF);
    int there = schema_target_index(p, field(x, C_INDEX_SCHEMA), field(x, C_NAME), e);

    if (there < 0)
        return -1;
    if (strncmp(def, create, strlen(create)) != 0)
        return err_set(e, ERR_BUG, "index %s is unique and its definition is not: %s", x->name,
                       def);
    if (!there) {
        buf_addf(b, "%sCONCURRENTLY %s", create, def + strlen(create));
        const char *sql = text(p, b);

        buf_adds(b, "DROP INDEX CONCURRENTLY IF EXISTS ");
        index_name(b, x);
        schema_step_add(p, (struct schema_step){
                               .phase = SCHEMA_UNIQUE,
                               .name = arena_printf(p->arena, "unique index %s", x->name),
                               .table = x->table,
                               .sql = sql,
                               .undo = text(p, b),
                               .online = true,
                           });
    }
    there = has(x, C_CONSTRAINT)
                ? schema_target_constraint(p, field(x, C_SCHEMA), field(x, C_TABLE),
                                           field(x, C_CONNAME), e)
                : 1;
    if (there < 0)
        return -1;
    if (!there) {
        buf_adds(b, "ALTER TABLE ONLY ");
        table_name(b, x);
        buf_adds(b, " ADD CONSTRAINT ");
        pg_ident(b, field(x, C_CONNAME));
        buf_adds(b, flag(x, C_PRIMARY) ? " PRIMARY KEY USING INDEX " : " UNIQUE USING INDEX ");
        pg_ident(b, field(x, C_NAME));
        buf_adds(b, flag(x, C_DEFERRED)     ? " DEFERRABLE INITIALLY DEFERRED; "
                    : flag(x, C_DEFERRABLE) ? " DEFERRABLE; "
                                            : "; ");
    }
    settings_sql(b, x);
    if (b->len == 0)
        return 0;
    schema_step_add(p, (struct schema_step){
                           .phase = SCHEMA_UNIQUE,
                           .order = 1,
                           .name = arena_printf(p->arena, "unique %s", x->name),
                           .table = x->table,
                           .sql = text(p, b),
                       });
    return 0;
}

/* What has no online form: there is no CONCURRENTLY for an exclusion constraint, and a deferrable
 * one made from an index would be enforced at once until the constraint takes the index over: a
 * legitimate swap would then be refused. */
static bool must_pause(const struct index *x)
{
    return flag(x, C_EXCLUSION) || flag(x, C_DEFERRABLE);
}

/* The parents of one family, top first, then every member to its parent. */
static int family_step(struct schema_plan *p, const struct index *all, size_t n,
                       const struct index *root, struct err *e)
{
    struct buf b;
    enum schema_phase phase = root->phase;
    int there = schema_target_index(p, field(root, C_INDEX_SCHEMA), field(root, C_NAME), e);

    if (there != 0)
        return there < 0 ? -1 : 0;
    buf_init(&b, BUF_MAX_TEXT);
    for (size_t i = 0; i < n; i++) {
        if (all[i].root != root->root)
            continue;
        if (all[i].phase > phase)
            phase = all[i].phase;
        if (all[i].parent)
            plain_sql(&b, &all[i]);
    }
    for (size_t i = 0; i < n; i++) {
        if (all[i].root != root->root || !has(&all[i], C_PARENT_NAME))
            continue;
        buf_adds(&b, "ALTER INDEX ");
        pg_ident2(&b, field(&all[i], C_PARENT_SCHEMA), field(&all[i], C_PARENT_NAME));
        buf_adds(&b, " ATTACH PARTITION ");
        index_name(&b, &all[i]);
        buf_adds(&b, "; ");
    }
    for (size_t i = 0; i < n; i++)
        if (all[i].root == root->root && all[i].parent)
            settings_sql(&b, &all[i]);
    int rc = buf_check(&b, root->name, e);
    if (rc == 0)
        schema_step_add(p, (struct schema_step){
                               .phase = phase,
                               .order = SCHEMA_ORDER_BARRIER,
                               .name = arena_printf(p->arena, "attach %s", root->name),
                               .sql = text(p, &b),
                           });
    buf_release(&b);
    return rc;
}

static int index_steps(struct schema_plan *p, const struct index *all, size_t n, size_t i,
                       struct err *e)
{
    const struct index *x = &all[i];
    struct buf b;
    int rc;

    if (x->parent)
        return strtoul(field(x, C_INDEX), NULL, 10) == x->root ? family_step(p, all, n, x, e) : 0;
    buf_init(&b, BUF_MAX_TEXT);
    if (x->phase == SCHEMA_UNIQUE && !must_pause(x))
        rc = online_steps(p, x, &b, e);
    else
        rc = locked_step(p, x, &b, e);
    buf_release(&b);
    return rc;
}

int schema_indexes(struct schema_plan *p, struct err *e)
{
    PGresult *res = pg_query(p->source, indexes_sql, 1, &p->tables_oids, e);
    int rc = 0;

    if (res == NULL)
        return err_wrap(e, "reading the indexes");
    size_t n = (size_t)PQntuples(res);
    struct index *all = arena_zalloc(p->arena, (n + 1) * sizeof *all);
    for (size_t i = 0; i < n; i++) {
        struct index *x = &all[i];

        *x = (struct index){.res = res, .row = (int)i};
        x->root = (uint32_t)strtoul(field(x, C_ROOT), NULL, 10);
        x->parent = field(x, C_KIND)[0] == 'p';
        x->phase = phase_of(x);
        x->table = arena_printf(p->arena, "%s.%s", field(x, C_SCHEMA), field(x, C_TABLE));
        x->name = arena_printf(p->arena, "%s.%s", field(x, C_INDEX_SCHEMA), field(x, C_NAME));
        schema_object_add(p, &p->ours, CLASS_PG_CLASS,
                          (uint32_t)strtoul(field(x, C_INDEX), NULL, 10));
        if (has(x, C_CONSTRAINT))
            schema_object_add(p, &p->ours, CLASS_PG_CONSTRAINT,
                              (uint32_t)strtoul(field(x, C_CONSTRAINT), NULL, 10));
    }
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = index_steps(p, all, n, i, e);
    PQclear(res);
    return rc;
}
