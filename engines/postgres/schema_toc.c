/* PRE and POST: one pg_dump of the whole schema, its table of contents read entry by entry, and
 * pg_restore's text of those that are kept.
 *
 * An entry with ids is kept if the closure holds its object; one without (comments, attachments,
 * owned-by) goes with what it depends on. In both cases nothing is kept whose needs are left out.
 * What we make ourselves (keys, indexes, foreign keys) counts as kept and is not in the text. */
#include "engines/postgres/schema.h"

#include "engines/postgres/tools.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DUMP_TIMEOUT_MS 600000
#define LOCK_WAIT "--lock-wait-timeout=10000"

enum section {
    SECTION_PRE,
    SECTION_POST,
    SECTION_NEVER, /* not ours to copy, or made by our own steps */
    SECTION_UNKNOWN
};

/* Longer names before those that begin them. */
static const struct {
    const char *name;
    enum section section;
} types[] = {
    {"ACCESS METHOD", SECTION_PRE},
    {"ACL", SECTION_NEVER},
    {"AGGREGATE", SECTION_PRE},
    {"BLOB METADATA", SECTION_NEVER},
    {"BLOBS", SECTION_NEVER},
    {"BLOB", SECTION_NEVER},
    {"CAST", SECTION_PRE},
    {"CHECK CONSTRAINT", SECTION_POST},
    {"COLLATION", SECTION_PRE},
    {"COMMENT", SECTION_POST},
    {"CONSTRAINT", SECTION_POST},
    {"CONVERSION", SECTION_PRE},
    {"DATABASE PROPERTIES", SECTION_NEVER},
    {"DATABASE", SECTION_NEVER},
    {"DEFAULT ACL", SECTION_NEVER},
    {"DEFAULT", SECTION_PRE},
    {"DOMAIN", SECTION_PRE},
    {"ENCODING", SECTION_NEVER},
    {"EVENT TRIGGER", SECTION_NEVER},
    {"EXTENSION", SECTION_PRE},
    {"FK CONSTRAINT", SECTION_POST},
    {"FOREIGN DATA WRAPPER", SECTION_NEVER},
    {"FOREIGN TABLE", SECTION_NEVER},
    {"FUNCTION", SECTION_PRE},
    {"INDEX ATTACH", SECTION_NEVER},
    {"INDEX", SECTION_POST},
    {"LARGE OBJECT", SECTION_NEVER},
    {"MATERIALIZED VIEW DATA", SECTION_NEVER},
    {"MATERIALIZED VIEW", SECTION_PRE},
    {"OPERATOR CLASS", SECTION_PRE},
    {"OPERATOR FAMILY", SECTION_PRE},
    {"OPERATOR", SECTION_PRE},
    {"POLICY", SECTION_POST},
    {"PROCEDURAL LANGUAGE", SECTION_PRE},
    {"PROCEDURE", SECTION_PRE},
    {"PUBLICATION TABLES IN SCHEMA", SECTION_NEVER},
    {"PUBLICATION TABLE", SECTION_NEVER},
    {"PUBLICATION", SECTION_NEVER},
    {"ROW SECURITY", SECTION_POST},
    {"RULE", SECTION_POST},
    {"SCHEMA", SECTION_PRE},
    {"SEARCHPATH", SECTION_NEVER},
    {"SECURITY LABEL", SECTION_POST},
    {"SEQUENCE OWNED BY", SECTION_PRE},
    {"SEQUENCE SET", SECTION_NEVER},
    {"SEQUENCE", SECTION_PRE},
    {"SERVER", SECTION_NEVER},
    {"SHELL TYPE", SECTION_PRE},
    {"STATISTICS DATA", SECTION_NEVER},
    {"STATISTICS", SECTION_POST},
    {"STDSTRINGS", SECTION_NEVER},
    {"SUBSCRIPTION TABLE", SECTION_NEVER},
    {"SUBSCRIPTION", SECTION_NEVER},
    {"TABLE ATTACH", SECTION_PRE},
    {"TABLE DATA", SECTION_NEVER},
    {"TABLE", SECTION_PRE},
    {"TEXT SEARCH CONFIGURATION", SECTION_PRE},
    {"TEXT SEARCH DICTIONARY", SECTION_PRE},
    {"TEXT SEARCH PARSER", SECTION_PRE},
    {"TEXT SEARCH TEMPLATE", SECTION_PRE},
    {"TRANSFORM", SECTION_PRE},
    {"TRIGGER", SECTION_POST},
    {"TYPE", SECTION_PRE},
    {"USER MAPPING", SECTION_NEVER},
    {"VIEW", SECTION_PRE},
};

struct entry {
    unsigned dump_id;
    uint32_t classid;
    uint32_t objid;
    const char *type; /* as in the table above */
    enum section section;
    const char *line; /* as pg_restore -L wants it back */
    size_t ndeps;
    unsigned *deps;
    bool kept;
    bool ours;    /* made by a step of our own */
    bool exists;  /* on the target already */
    bool foreign; /* exists, and another role owns it (schemas only) */
};

struct toc {
    size_t n;
    struct entry *v;
};

/* ---- reading the table of contents ---- */

static void entry_type(struct entry *entry, const char *text)
{
    entry->type = "";
    entry->section = SECTION_UNKNOWN;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        size_t len = strlen(types[i].name);

        if (strncmp(text, types[i].name, len) != 0 || (text[len] != ' ' && text[len] != '\0'))
            continue;
        entry->type = types[i].name;
        entry->section = types[i].section;
        return;
    }
}

static void entry_deps(struct entry *entry, const char *text, struct arena *a)
{
    size_t cap = strlen(text) / 2 + 1;
    char *end;

    entry->deps = arena_alloc(a, cap * sizeof *entry->deps);
    for (;;) {
        unsigned long id = strtoul(text, &end, 10);

        if (end == text || entry->ndeps == cap)
            return;
        entry->deps[entry->ndeps++] = (unsigned)id;
        text = end;
    }
}

/* "215; 1259 16389 TABLE public orders owner", each perhaps followed by
 * ";\tdepends on: 214 3". An unknown type is refused: leaving it out in silence may be wrong. */
static int toc_parse(char *text, struct arena *a, struct toc *toc, struct err *e)
{
    static const char depends[] = ";\tdepends on:";
    size_t lines = 1;

    for (const char *p = text; *p != '\0'; p++)
        lines += *p == '\n';
    toc->n = 0;
    toc->v = arena_zalloc(a, lines * sizeof *toc->v);
    for (char *line = text, *next; line != NULL && *line != '\0'; line = next) {
        struct entry *entry = &toc->v[toc->n];
        int used = 0;

        next = strchr(line, '\n');
        if (next != NULL)
            *next++ = '\0';
        if (toc->n > 0 && strncmp(line, depends, strlen(depends)) == 0)
            entry_deps(&toc->v[toc->n - 1], line + strlen(depends), a);
        if (sscanf(line, "%u; %u %u %n", &entry->dump_id, &entry->classid, &entry->objid, &used) <
                3 ||
            used == 0)
            continue;
        entry_type(entry, line + used);
        if (entry->section == SECTION_UNKNOWN)
            return err_set(e, ERR_FATAL, "pg_dump made an entry that lockstep does not know: %s",
                           line);
        entry->line = arena_strdup(a, line);
        toc->n++;
    }
    return 0;
}

/* Entries are few thousand and looked up by number: an index from the highest number down. */
struct by_id {
    unsigned max;
    struct entry **v;
};

static struct by_id index_by_id(const struct toc *toc, struct arena *a)
{
    struct by_id by = {0};

    for (size_t i = 0; i < toc->n; i++)
        if (toc->v[i].dump_id > by.max)
            by.max = toc->v[i].dump_id;
    by.v = arena_zalloc(a, ((size_t)by.max + 1) * sizeof(struct entry *));
    for (size_t i = 0; i < toc->n; i++)
        by.v[toc->v[i].dump_id] = &toc->v[i];
    return by;
}

static struct entry *by_id_get(const struct by_id *by, unsigned id)
{
    return id <= by->max ? by->v[id] : NULL;
}

/* ---- choosing ---- */

static bool is(const struct entry *entry, const char *type)
{
    return strcmp(entry->type, type) == 0;
}

static bool wanted(const struct schema_plan *p, const struct entry *entry)
{
    if (entry->section == SECTION_NEVER)
        return false;
    /* Goes with its table. */
    if (entry->classid == 0)
        return true;
    return schema_object_in(&p->wanted, entry->classid, entry->objid);
}

/* A comment takes the owner of what it is on: not ours to make on an extension, nor on a schema
 * that another role has made. Comments on other things that exist are repeated: it may have been us
 * who made them, in an earlier attempt. */
static bool comment_is_not_ours(const struct entry *entry, const struct by_id *by)
{
    if (!is(entry, "COMMENT") && !is(entry, "SECURITY LABEL"))
        return false;
    for (size_t d = 0; d < entry->ndeps; d++) {
        const struct entry *on = by_id_get(by, entry->deps[d]);

        if (on != NULL && (is(on, "EXTENSION") || on->foreign))
            return true;
    }
    return entry->ndeps == 0;
}

/* An INDEX ATTACH is ours whenever its parts are: it never stands in the way. */
static bool blocks(const struct entry *need)
{
    return need != NULL && !need->kept && !is(need, "INDEX ATTACH");
}

/* A view that needs a primary key is dumped as an empty shell, and its query as a rule behind the
 * key: without the rule there must be no shell. Returns true if it took one out. */
static bool drop_shell(const struct entry *rule, const struct by_id *by)
{
    const char *name = strstr(rule->line, " RULE ");
    const char *end = name != NULL ? strstr(name, " _RETURN ") : NULL;

    if (!is(rule, "RULE") || rule->kept || end == NULL)
        return false;
    name += strlen(" RULE ");
    for (size_t d = 0; d < rule->ndeps; d++) {
        struct entry *view = by_id_get(by, rule->deps[d]);
        const char *text = view != NULL ? strstr(view->line, "VIEW ") : NULL;
        size_t len = (size_t)(end - name);

        if (text == NULL || !view->kept || (!is(view, "VIEW") && !is(view, "MATERIALIZED VIEW")))
            continue;
        text += strlen("VIEW ");
        if (strncmp(text, name, len) != 0 || text[len] != ' ')
            continue;
        view->kept = false;
        return true;
    }
    return false;
}

static void choose(struct schema_plan *p, struct toc *toc, const struct by_id *by)
{
    for (size_t i = 0; i < toc->n; i++) {
        struct entry *entry = &toc->v[i];

        entry->ours = schema_object_in(&p->ours, entry->classid, entry->objid);
        entry->kept = entry->ours || wanted(p, entry);
        /* A foreign key that has no step of ours refers to a table that is not chosen. */
        if (is(entry, "FK CONSTRAINT") && !entry->ours)
            entry->kept = false;
    }
    for (bool again = true; again;) {
        again = false;
        for (size_t i = 0; i < toc->n; i++) {
            struct entry *entry = &toc->v[i];

            for (size_t d = 0; d < entry->ndeps && entry->kept && !entry->ours; d++) {
                if (!blocks(by_id_get(by, entry->deps[d])))
                    continue;
                entry->kept = false;
                again = true;
            }
            again = drop_shell(entry, by) || again;
        }
    }
}

/* A chosen table that was left out needs something that is not chosen. */
static int all_tables_kept(const struct schema_plan *p, const struct toc *toc, struct err *e)
{
    const struct table_list *list = p->request->tables;

    for (size_t t = 0; t < list->n; t++) {
        bool kept = false;

        for (size_t i = 0; i < toc->n && !kept; i++)
            kept = toc->v[i].classid == CLASS_PG_CLASS && toc->v[i].objid == list->v[t]->id &&
                   toc->v[i].kept;
        if (kept)
            continue;
        err_set(e, ERR_REFUSED, "table %s needs an object that is not among the chosen ones",
                table_label(list->v[t]));
        return err_hint(e,
                        "include the whole schema (\"%s.*\"), or the tables whose row types it"
                        " uses",
                        list->v[t]->schema);
    }
    return 0;
}

/* ---- what the target has ---- */

static int existing_ask(struct schema_plan *p, const char *types_array, const char *names_array,
                        struct toc *toc, size_t *const index, struct err *e)
{
    static const char sql[] =
        "SELECT n, type = 'schema' AND NOT EXISTS (SELECT FROM pg_namespace s"
        "  WHERE s.oid = to_regnamespace(name) AND pg_has_role(s.nspowner, 'USAGE'))"
        " FROM unnest($1::text[], $2::text[]) WITH ORDINALITY o(type, name, n) WHERE CASE"
        " WHEN type IN ('table', 'view', 'materialized view', 'sequence', 'index')"
        "  THEN to_regclass(name) IS NOT NULL"
        " WHEN type IN ('type', 'composite type') THEN to_regtype(name) IS NOT NULL"
        " WHEN type IN ('function', 'procedure', 'aggregate')"
        "  THEN to_regprocedure(name) IS NOT NULL"
        " WHEN type = 'schema' THEN to_regnamespace(name) IS NOT NULL"
        " WHEN type = 'collation' THEN to_regcollation(name) IS NOT NULL"
        " WHEN type = 'extension' THEN EXISTS (SELECT FROM pg_extension x"
        "  WHERE quote_ident(x.extname) = name)"
        " WHEN type = 'language' THEN EXISTS (SELECT FROM pg_language x"
        "  WHERE quote_ident(x.lanname) = name)"
        " WHEN type = 'trigger' THEN name IN (SELECT o.identity FROM pg_trigger t,"
        "  LATERAL pg_identify_object('pg_trigger'::regclass, t.oid, 0) o)"
        " WHEN type = 'policy' THEN name IN (SELECT o.identity FROM pg_policy t,"
        "  LATERAL pg_identify_object('pg_policy'::regclass, t.oid, 0) o)"
        " WHEN type = 'rule' THEN name IN (SELECT o.identity FROM pg_rewrite t,"
        "  LATERAL pg_identify_object('pg_rewrite'::regclass, t.oid, 0) o)"
        " WHEN type = 'table constraint' THEN name IN (SELECT o.identity FROM pg_constraint t,"
        "  LATERAL pg_identify_object('pg_constraint'::regclass, t.oid, 0) o)"
        " WHEN type = 'statistics object' THEN name IN (SELECT o.identity FROM pg_statistic_ext t,"
        "  LATERAL pg_identify_object('pg_statistic_ext'::regclass, t.oid, 0) o)"
        " ELSE false END";
    const char *values[] = {types_array, names_array};
    PGresult *res = pg_query(p->target, sql, 2, values, e);

    if (res == NULL)
        return err_wrap(e, "looking for what exists on the target");
    for (int i = 0; i < PQntuples(res); i++) {
        struct entry *entry = &toc->v[index[pg_int(res, i, 0) - 1]];

        entry->exists = true;
        entry->foreign = pg_bool(res, i, 1);
    }
    PQclear(res);
    return 0;
}

/* Names come from the source, by id, as its server quotes them. */
static int existing(struct schema_plan *p, struct toc *toc, struct err *e)
{
    static const char sql[] =
        "SELECT array_agg(o.type ORDER BY n)::text, array_agg(o.identity ORDER BY n)::text"
        " FROM unnest($1::oid[], $2::oid[]) WITH ORDINALITY x(classid, objid, n),"
        " LATERAL pg_identify_object(x.classid, x.objid, 0) o";
    size_t *index = arena_alloc(p->arena, (toc->n + 1) * sizeof *index);
    size_t n = 0;
    struct buf classes;
    struct buf objects;

    for (size_t i = 0; i < toc->n; i++)
        if (is(&toc->v[i], "SCHEMA") && strstr(toc->v[i].line, " SCHEMA - public ") != NULL)
            toc->v[i].exists = toc->v[i].foreign = p->target == NULL;
    if (p->target == NULL)
        return 0;
    buf_init(&classes, BUF_MAX_TEXT);
    buf_init(&objects, BUF_MAX_TEXT);
    buf_addc(&classes, '{');
    buf_addc(&objects, '{');
    for (size_t i = 0; i < toc->n; i++) {
        const struct entry *entry = &toc->v[i];

        if (!entry->kept || entry->ours || entry->classid == 0)
            continue;
        buf_addf(&classes, "%s%u", n > 0 ? "," : "", entry->classid);
        buf_addf(&objects, "%s%u", n > 0 ? "," : "", entry->objid);
        index[n++] = i;
    }
    buf_addc(&classes, '}');
    buf_addc(&objects, '}');
    const char *values[] = {classes.data, objects.data};
    PGresult *res = n > 0 ? pg_query(p->source, sql, 2, values, e) : NULL;
    int rc = n > 0 && res == NULL ? -1 : 0;
    if (res != NULL)
        rc = existing_ask(p, PQgetvalue(res, 0, 0), PQgetvalue(res, 0, 1), toc, index, e);
    PQclear(res);
    buf_release(&classes);
    buf_release(&objects);
    return rc;
}

/* What belongs to an object that exists is there too (check has compared the tables). */
static bool goes_with_existing(const struct entry *entry, const struct by_id *by)
{
    bool part = is(entry, "DEFAULT") || is(entry, "TABLE ATTACH") || is(entry, "SEQUENCE OWNED BY");
    bool table = false;

    for (size_t d = 0; part && d < entry->ndeps; d++) {
        const struct entry *on = by_id_get(by, entry->deps[d]);

        if (on == NULL || (!is(on, "TABLE") && !is(on, "SEQUENCE")))
            continue;
        if (!on->exists)
            return false;
        table = true;
    }
    return part && table;
}

/* ---- the programs ---- */

struct files {
    const char *dump;
    const char *list;
    const char *script;
};

static int file_read(const char *path, struct buf *b, struct err *e)
{
    FILE *f = fopen(path, "re");
    size_t n;

    if (f == NULL)
        return err_set(e, ERR_FATAL, "cannot read %s: %s", path, strerror(errno));
    do {
        char *to = buf_reserve(b, 65536);

        if (to == NULL)
            break;
        n = fread(to, 1, 65536, f);
        b->len += n;
        b->data[b->len] = '\0';
    } while (n > 0);
    bool bad = ferror(f) != 0;
    fclose(f);
    return bad ? err_set(e, ERR_FATAL, "cannot read %s", path) : buf_check(b, path, e);
}

/* Tables that this role may not read are not dumped: pg_dump would stop at their lock. None of them
 * is chosen (check). */
static int unreadable(struct schema_plan *p, const char **argv, size_t *argc, size_t max,
                      struct err *e)
{
    PGresult *res =
        pg_query(p->source,
                 "SELECT format('--exclude-table=%I.%I', n.nspname, c.relname) FROM pg_class c"
                 " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p')"
                 " AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'lockstep')"
                 " AND NOT has_table_privilege(c.oid, 'SELECT')",
                 0, NULL, e);

    if (res == NULL)
        return -1;
    for (int i = 0; i < PQntuples(res) && *argc + 2 < max; i++)
        argv[(*argc)++] = arena_strdup(p->arena, PQgetvalue(res, i, 0));
    PQclear(res);
    return 0;
}

#define MAX_ARGS 1000

static int run_dump(struct schema_plan *p, const char *dir, const struct files *f, struct err *e)
{
    char name[PG_NAME_MAX * 2];
    const char *conninfo;
    const char *password;
    const char **argv = arena_alloc(p->arena, MAX_ARGS * sizeof *argv);
    size_t n = 0;

    snprintf(name, sizeof name, "lockstep:%s:schema", p->source->migration);
    if (tool_conninfo(p->request->source_uri, name, p->arena, &conninfo, &password, e) != 0)
        return -1;
    argv[n++] = arena_printf(p->arena, "%s/pg_dump", dir);
    argv[n++] = "--format=custom";
    argv[n++] = "--schema-only";
    argv[n++] = "--no-owner";
    argv[n++] = "--no-privileges";
    argv[n++] = "--no-publications";
    argv[n++] = "--no-subscriptions";
    argv[n++] = "--no-password";
    argv[n++] = "--encoding=UTF8";
    argv[n++] = "--exclude-schema=lockstep";
    argv[n++] = LOCK_WAIT;
    if (p->request->snapshot != NULL)
        argv[n++] = arena_printf(p->arena, "--snapshot=%s", p->request->snapshot);
    argv[n++] = arena_printf(p->arena, "--file=%s", f->dump);
    argv[n++] = arena_printf(p->arena, "--dbname=%s", conninfo);
    if (unreadable(p, argv, &n, MAX_ARGS, e) != 0)
        return -1;
    argv[n] = NULL;
    struct tool_run r = {.argv = argv, .password = password, .timeout_ms = DUMP_TIMEOUT_MS};
    struct err why = {0};
    if (tool_run(&r, &why) == 0)
        return 0;
    /* Its exit code does not tell: a locked table or a lost connection heals, the rest does not. */
    if (why.class == ERR_FATAL && (strstr(why.msg, "lock timeout") != NULL ||
                                   strstr(why.msg, "connection to server") != NULL ||
                                   strstr(why.msg, "server closed") != NULL))
        why.class = ERR_RETRY;
    if (e != NULL)
        *e = why;
    return -1;
}

static int run_list(struct schema_plan *p, const char *dir, const struct files *f, struct toc *toc,
                    struct err *e)
{
    const char *argv[] = {arena_printf(p->arena, "%s/pg_restore", dir), "--list", "--verbose",
                          arena_printf(p->arena, "--file=%s", f->list), f->dump,  NULL};
    struct tool_run r = {.argv = argv, .timeout_ms = DUMP_TIMEOUT_MS};
    struct buf b;

    buf_init(&b, BUF_MAX_TEXT);
    int rc = tool_run(&r, e) == 0 && file_read(f->list, &b, e) == 0 && b.data != NULL
                 ? toc_parse(b.data, p->arena, toc, e)
                 : -1;
    buf_release(&b);
    return rc;
}

/* The script between its preamble, whose settings would outlive it, and its trailer with psql's
 * \\unrestrict. Comments stand where the cuts are, so no statement is parted. */
static const char *script_body(struct schema_plan *p, char *text)
{
    static const char trailer[] = "\n--\n-- PostgreSQL database dump complete";
    char *from = strstr(text, "\n-- Name: ");
    char *end = NULL;

    if (from == NULL)
        return "";
    for (char *at = strstr(from, trailer); at != NULL; at = strstr(at + 1, trailer))
        end = at;
    if (end != NULL)
        *end = '\0';
    return arena_printf(
        p->arena, "SET LOCAL search_path = ''; SET LOCAL check_function_bodies = off;%s", from);
}

static int run_script(struct schema_plan *p, const char *dir, const struct files *f,
                      const char **script, struct err *e)
{
    const char *argv[] = {arena_printf(p->arena, "%s/pg_restore", dir),
                          "--no-owner",
                          "--no-privileges",
                          "--no-tablespaces",
                          arena_printf(p->arena, "--use-list=%s", f->list),
                          arena_printf(p->arena, "--file=%s", f->script),
                          f->dump,
                          NULL};
    struct tool_run r = {.argv = argv, .timeout_ms = DUMP_TIMEOUT_MS};
    struct buf b;

    buf_init(&b, BUF_MAX_TEXT);
    int rc = tool_run(&r, e) == 0 && file_read(f->script, &b, e) == 0 ? 0 : -1;
    if (rc == 0)
        *script = script_body(p, b.data != NULL ? b.data : (char[]){""});
    buf_release(&b);
    return rc;
}

/* ---- the two steps ---- */

static bool in_script(const struct entry *entry, enum section section, const struct by_id *by)
{
    return entry->kept && !entry->ours && !entry->exists && entry->section == section &&
           !goes_with_existing(entry, by) && !comment_is_not_ours(entry, by);
}

static int script_step(struct schema_plan *p, const char *dir, const struct files *f,
                       const struct toc *toc, enum section section, struct err *e)
{
    struct by_id by = index_by_id(toc, p->arena);
    const char *script = "";
    size_t n = 0;
    FILE *list = fopen(f->list, "we");

    if (list == NULL)
        return err_set(e, ERR_FATAL, "cannot write %s: %s", f->list, strerror(errno));
    for (size_t i = 0; i < toc->n; i++) {
        if (!in_script(&toc->v[i], section, &by))
            continue;
        fprintf(list, "%s\n", toc->v[i].line);
        n++;
    }
    if (fclose(list) != 0)
        return err_set(e, ERR_FATAL, "cannot write %s: %s", f->list, strerror(errno));
    if (n > 0 && run_script(p, dir, f, &script, e) != 0)
        return -1;
    if (script[0] == '\0')
        return 0;
    schema_step_add(p, (struct schema_step){
                           .phase = section == SECTION_PRE ? SCHEMA_PRE : SCHEMA_POST,
                           .name = section == SECTION_PRE ? "tables and what they need"
                                                          : "triggers, rules, comments",
                           .sql = script,
                       });
    return 0;
}

int schema_dump(struct schema_plan *p, struct err *e)
{
    long me = (long)getpid();
    const char *workdir = p->request->workdir;
    struct files f = {
        .dump = arena_printf(p->arena, "%s/schema-%ld.dump", workdir, me),
        .list = arena_printf(p->arena, "%s/schema-%ld.list", workdir, me),
        .script = arena_printf(p->arena, "%s/schema-%ld.sql", workdir, me),
    };
    const char *dir;
    struct toc toc = {0};
    int rc = -1;

    if (tool_find(p->request->bindir, p->source->version, p->arena, &dir, e) != 0)
        return -1;
    if (run_dump(p, dir, &f, e) != 0 || run_list(p, dir, &f, &toc, e) != 0)
        goto out;
    struct by_id by = index_by_id(&toc, p->arena);
    choose(p, &toc, &by);
    if (all_tables_kept(p, &toc, e) != 0 || existing(p, &toc, e) != 0 ||
        script_step(p, dir, &f, &toc, SECTION_PRE, e) != 0 ||
        script_step(p, dir, &f, &toc, SECTION_POST, e) != 0)
        goto out;
    rc = 0;
out:
    unlink(f.dump);
    unlink(f.list);
    unlink(f.script);
    return rc;
}
