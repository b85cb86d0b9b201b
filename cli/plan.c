/* plan: what `run` would do, in words: the target's tables, what becomes of each column's values,
 * the chunks, the steps of the switch. Reads both servers and changes neither. */
#include "control/convert.h"

#include "cli/cli.h"
#include "cutover/cutover.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct planning {
    struct cli *c;
    const struct migration *m;
    struct db *source;
    struct db *target;
    struct arena arena;
    struct table_list tables;
    struct conversion conversion;
};

/* ---- types ---- */

static void print_column(struct planning *p, size_t t, size_t i, json_t *list)
{
    const struct column *from = &p->tables.v[t]->columns[i];
    const struct column *to = &table_there(p->tables.v[t])->columns[i];
    const struct verdict *v = &p->conversion.verdicts[t][i];

    cli_say(p->c, "    %-24s %-28s -> %-28s %s / %s%s%s", from->name, from->source_type,
            v->forward == FIDELITY_NONE ? "-" : to->source_type, fidelity_name(v->forward),
            fidelity_name(v->back), v->condition ? ": " : "", v->condition ? v->condition : "");
    json_array_append_new(list,
                          json_pack("{s:s, s:s, s:s, s:s, s:s, s:s?}", "column", from->name,
                                    "source_type", from->source_type, "target_type",
                                    to->source_type, "forward", fidelity_name(v->forward), "back",
                                    fidelity_name(v->back), "condition", v->condition));
}

static void print_types(struct planning *p)
{
    json_t *tables = json_array();

    cli_say(p->c, "Types (forward / back)");
    if (!p->conversion.needed)
        cli_say(p->c, "  the same on both sides: every column keeps its type");
    for (size_t t = 0; t < p->tables.n; t++) {
        json_t *columns = json_array();
        const char *from = arena_strdup(&p->arena, table_label(p->tables.v[t]));
        const char *to = arena_strdup(&p->arena, table_label(table_there(p->tables.v[t])));

        if (p->conversion.needed)
            cli_say(p->c, "  %s -> %s", from, to);
        for (size_t i = 0; p->conversion.needed && i < p->tables.v[t]->ncolumns; i++)
            print_column(p, t, i, columns);
        json_array_append_new(
            tables, json_pack("{s:s, s:s, s:o}", "table", from, "target", to, "columns", columns));
    }
    cli_put(p->c, "tables", tables);
}

/* ---- DDL, warnings ---- */

static int print_steps(struct planning *p, struct err *e)
{
    static const char *const phases[SCHEMA_PHASES] = {
        "before the load", "a table is loaded", "before apply",   "behind the load",
        "behind the load", "behind the load",   "behind the load"};
    struct schema_steps steps = {0};
    json_t *list = json_array();
    int rc = 0;

    cli_put(p->c, "steps", list);
    cli_say(p->c, "%s", "Schema");
    if (!p->conversion.needed)
        cli_say(p->c, "  copied by pg_dump, table by table as they are loaded");
    else
        rc = convert_steps(p->m, &p->conversion, p->target, &p->arena, &steps, e);
    for (size_t i = 0; rc == 0 && i < steps.n; i++) {
        const struct schema_step *s = &steps.v[i];

        cli_say(p->c, "  -- %s (%s%s)\n%s;", s->name, phases[s->phase],
                s->pauses_apply ? ", apply stands still" : "", s->sql);
        json_array_append_new(list, json_pack("{s:s, s:s, s:b, s:s}", "name", s->name, "when",
                                              phases[s->phase], "pauses_apply", s->pauses_apply,
                                              "sql", s->sql));
    }
    return rc;
}

static bool print_findings(struct planning *p)
{
    const struct findings *f = &p->conversion.findings;
    json_t *list = json_array();
    bool unfit = false;

    for (size_t i = 0; i < f->n; i++) {
        unfit = unfit || f->v[i].fatal;
        cli_say(p->c, "%-7s %s: %s", f->v[i].fatal ? "unfit" : "warning", f->v[i].object,
                f->v[i].what);
        json_array_append_new(list, json_pack("{s:b, s:s, s:s, s:s?}", "fatal", f->v[i].fatal,
                                              "object", f->v[i].object, "what", f->v[i].what,
                                              "remedy", f->v[i].remedy));
    }
    cli_put(p->c, "findings", list);
    return unfit;
}

/* ---- chunks, cutover ---- */

static int print_chunks(struct planning *p, struct err *e)
{
    json_t *list = json_array();
    size_t all = 0;

    cli_put(p->c, "chunks", list);
    cli_say(p->c, "Chunks of about %" PRIu64 " MiB", p->m->chunk_bytes >> 20);
    for (size_t i = 0; i < p->tables.n; i++) {
        const struct table *t = p->tables.v[i];
        struct range_list ranges = {0};

        if (p->source->engine->chunk_plan(p->source, t, p->m->chunk_bytes,
                                          t->scattered && migration_is_native(p->m), &p->arena,
                                          &ranges, e) < 0)
            return -1;
        all += ranges.n;
        cli_say(p->c, "  %-40s %zu, about %" PRIu64 " rows, %" PRIu64 " bytes", table_label(t),
                ranges.n, t->rows, t->bytes);
        json_array_append_new(list, json_pack("{s:s, s:i, s:I, s:I}", "table", table_label(t),
                                              "chunks", (int)ranges.n, "rows", (json_int_t)t->rows,
                                              "bytes", (json_int_t)t->bytes));
    }
    cli_say(p->c, "  %zu in all, by %d workers", all, p->m->workers);
    return 0;
}

static void print_cutover(struct planning *p)
{
    json_t *list = json_array();

    cli_say(p->c, "Cutover (lockstep cutover --dry-run says how its guards stand)");
    for (size_t i = 0; i < cutover_row_count; i++) {
        const struct cutover_row *row = &cutover_rows[i];

        cli_say(p->c, "  %s -> %s: %s", cutover_state_name(row->from), cutover_state_name(row->to),
                row->does);
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:s, s:s?}", "from", cutover_state_name(row->from), "to",
                            cutover_state_name(row->to), "does", row->does, "undo", row->undoes));
    }
    cli_put(p->c, "cutover", list);
}

/* ---- all of it ---- */

static int plan(struct planning *p, struct err *e)
{
    bool unfit;

    if (p->source->engine->tables(p->source, &p->m->selection, &p->arena, &p->tables, e) < 0 ||
        convert_plan(p->m, p->source, &p->tables, &p->arena, &p->conversion, e) < 0)
        return -1;
    convert_pair(&p->conversion, p->source, p->target, &p->arena);
    if (p->tables.n == 0) {
        err_set(e, ERR_REFUSED, "no table of the source matches tables.include");
        return err_hint(e, "patterns are schema.table, with * and ?");
    }
    print_types(p);
    unfit = print_findings(p);
    if (!unfit && print_steps(p, e) < 0)
        return -1;
    if (print_chunks(p, e) < 0)
        return -1;
    print_cutover(p);
    if (unfit)
        cli_next(p->c, "mend what is unfit, then lockstep check");
    else
        cli_next(p->c, "lockstep check, then lockstep run");
    return unfit ? EXIT_DIFFERENT : EXIT_DONE;
}

int command_plan(struct cli *c, struct err *e)
{
    struct planning p = {.c = c};
    struct context x;
    int rc = -1;

    if (context_open(&x, c, e) < 0)
        return -1;
    p.m = &x.m;
    if (migration_open_source(p.m, DB_CONTROL, &p.source, e) == 0 &&
        migration_open_target(p.m, DB_CONTROL, &p.target, e) == 0)
        rc = plan(&p, e);
    if (p.source)
        p.source->engine->close(p.source);
    if (p.target)
        p.target->engine->close(p.target);
    arena_release(&p.arena);
    context_close(&x);
    return rc;
}
