/* check: what would stand in the way, on both sides, before anything is changed. `run` asks the
 * same before it begins. */
#include "cli/cli.h"
#include "control/convert.h"
#include "control/facts.h"
#include "cutover/cutover.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

struct checking {
    const struct context *x;
    bool started;
    bool asked; /* by the user, not by run on its way */
    struct arena arena;
    struct findings findings;
};

static void add_finding(struct checking *k, bool fatal, const char *object, const char *what,
                        const char *remedy)
{
    findings_add(&k->arena, &k->findings,
                 (struct finding){fatal, object, arena_strdup(&k->arena, what),
                                  arena_strdup(&k->arena, remedy)});
}

/* A right that is missing is what check is there to find; anything else is a failure. A side that
 * is not let in is met by several questions: it is told once, without its name a second time. */
static int as_finding(struct checking *k, const char *side, struct err *e)
{
    size_t len = strlen(side);
    const char *what = e->msg;
    bool told = false;

    if (e->class != ERR_REFUSED)
        return -1;
    if (strncmp(what, side, len) == 0 && strncmp(what + len, ": ", 2) == 0)
        what += len + 2;
    for (size_t i = 0; i < k->findings.n && !told; i++)
        told =
            strcmp(k->findings.v[i].object, side) == 0 && strcmp(k->findings.v[i].what, what) == 0;
    if (!told)
        add_finding(k, true, side, what, e->hint);
    err_clear(e);
    return 0;
}

static int check_side(struct checking *k, struct db *db, struct check_request *r, struct err *e)
{
    const char *side = r->side == SIDE_SOURCE ? "source" : "target";

    if (db->engine->check(db, r, &k->arena, &k->findings, e) == 0)
        return 0;
    return as_finding(k, side, e);
}

/* "no table of the source is named by public.*, shop.*" */
static const char *chosen_by(struct checking *k, const struct selection *s)
{
    const char *text = "no table of the source is named by";

    for (size_t i = 0; i < s->ninclude; i++)
        text = arena_printf(&k->arena, "%s%s %s", text, i ? "," : "", s->include[i]);
    return s->ninclude ? text : "the source has no user tables";
}

/* A target that does not answer is its own check's finding. */
static void judge_pair(struct checking *k, struct db *source, struct conversion *conversion)
{
    struct db *target = NULL;

    if (!migration_is_native(&k->x->m) || !conversion->needed ||
        migration_open_target(&k->x->m, DB_CONTROL, &target, NULL) < 0)
        return;
    convert_pair(conversion, source, target, &k->arena);
    target->engine->close(target);
}

/* Each column's fitness for the target's types, and whether its values meet the conditions. */
static int check_types(struct checking *k, struct db *db, const struct table_list *tables,
                       struct err *e)
{
    struct conversion conversion;

    if (convert_plan(&k->x->m, db, tables, &k->arena, &conversion, e) < 0)
        return as_finding(k, "source", e);
    if (!k->started && convert_values(&conversion, db, &k->arena, e) < 0)
        return as_finding(k, "source", e);
    judge_pair(k, db, &conversion);
    for (size_t i = 0; i < conversion.findings.n; i++) {
        const struct finding *f = &conversion.findings.v[i];

        add_finding(k, f->fatal, f->object, f->what, f->remedy);
    }
    return 0;
}

/* What one migration writes is left out by another one of its name: such a chain loses all that
 * comes from further up. */
static int check_name(struct checking *k, struct db *db, enum db_side side, struct err *e)
{
    static const char remedy[] = "give this migration another name, or end that one first "
                                 "(lockstep finish, with its configuration)";
    const char *name = k->x->m.name;
    struct retention kept = {0};
    bool other = false;

    if (k->started)
        return 0;
    if (side == SIDE_SOURCE) {
        if (context_started(db, &other, e) < 0)
            return as_finding(k, "source", e);
        if (other)
            add_finding(
                k, true, "migration",
                arena_printf(&k->arena, "the source is a side of another migration named %s", name),
                remedy);
        return 0;
    }
    if (db->engine->retention(db, &k->arena, &kept, e) < 0)
        return as_finding(k, "target", e);
    if (kept.ours)
        add_finding(
            k, true, "migration",
            arena_printf(&k->arena, "the target is the source of another migration named %s", name),
            remedy);
    return 0;
}

static int check_source(struct checking *k, struct table_list *tables, int *version, struct err *e)
{
    const struct migration *m = &k->x->m;
    struct check_request r = {.side = SIDE_SOURCE,
                              .selection = &m->selection,
                              .tables = tables,
                              .pg_bindir = m->bindir,
                              .started = k->started,
                              .same_engine = migration_is_native(m)};
    struct server_identity id;
    struct db *db = NULL;
    int rc = -1;

    if (migration_open_source(m, DB_CONTROL, &db, e) < 0)
        return as_finding(k, "source", e);
    if (db->engine->identify(db, &id, e) < 0 ||
        db->engine->tables(db, &m->selection, &k->arena, tables, e) < 0) {
        rc = as_finding(k, "source", e);
        goto out;
    }
    *version = id.version;
    if (tables->n == 0)
        add_finding(k, true, "tables.include", chosen_by(k, &m->selection),
                    "correct tables.include and tables.exclude in the configuration");
    rc = check_name(k, db, SIDE_SOURCE, e);
    if (rc == 0)
        rc = check_side(k, db, &r, e);
    if (rc == 0)
        rc = check_types(k, db, tables, e);
out:
    db->engine->close(db);
    return rc;
}

/* The target is asked about the tables as they will stand there. Of another engine's source it is
 * told nothing else: neither its version nor its connection mean anything to it. */
static int check_target(struct checking *k, const struct table_list *tables, int version,
                        struct err *e)
{
    const struct migration *m = &k->x->m;
    struct table_list there;
    struct check_request r = {.side = SIDE_TARGET,
                              .selection = &m->selection,
                              .tables = &there,
                              .pg_bindir = m->bindir,
                              .source_version = migration_is_native(m) ? version : 0,
                              .started = k->started,
                              .same_engine = migration_is_native(m)};
    struct db *source = NULL;
    struct db *db = NULL;
    int rc;

    convert_there(tables, &k->arena, &there);
    if (migration_open_source(m, DB_CONTROL, &source, e) < 0)
        return as_finding(k, "source", e);
    r.source = migration_is_native(m) ? source : NULL;
    if (migration_open_target(m, DB_CONTROL, &db, e) < 0) {
        rc = as_finding(k, "target", e);
    } else {
        rc = check_name(k, db, SIDE_TARGET, e);
        if (rc == 0)
            rc = check_side(k, db, &r, e);
        db->engine->close(db);
    }
    source->engine->close(source);
    return rc;
}

static void check_folder(struct checking *k)
{
    const char *folder = k->x->folder;

    if (access(folder, W_OK | X_OK) != 0)
        add_finding(k, true, "journal",
                    arena_printf(&k->arena, "its folder %s: %s", folder, strerror(errno)),
                    "create the folder, or name another in journal:");
}

/* No reason not to begin: it is wanted when the traffic is to be moved. */
static void check_hook(struct checking *k)
{
    const char *command = k->x->config.cutover.on_switch;
    char home[4200];
    char why[300];

    context_home(k->x, home, sizeof(home));
    if (command && !cutover_hook_starts(command, home, why, sizeof(why)))
        add_finding(k, false, "cutover.on_switch", why,
                    "correct it, or make that file executable, before the cutover: it is refused "
                    "until then");
}

/* What does not answer just now is what check is there to name; run waits for it. */
static int journal_finding(struct checking *k, const char *uri, struct err *e)
{
    bool fatal = k->asked || e->class != ERR_RETRY;

    if (e->class == ERR_STOPPED || e->class == ERR_BUG || e->class == ERR_CONFIG)
        return -1;
    if (e->class == ERR_RETRY && !e->hint[0])
        err_hint(e, "start it, or correct journal and schema_registry in the configuration");
    add_finding(k, fatal, arena_printf(&k->arena, "journal %s", uri), e->msg, e->hint);
    err_clear(e);
    return 0;
}

/* The journal of one direction, whose facts stand on its target. 1: the same error would come again
 * for the other one. */
static int check_journal(struct checking *k, const struct migration *m, struct err *e)
{
    struct owned_journal journal;
    struct db *db = NULL;
    bool heals;
    int rc;

    if (migration_open_target(m, DB_CONTROL, &db, e) < 0)
        return as_finding(k, m->back ? "source" : "target", e);
    rc = owned_journal(m, db, &journal, e);
    db->engine->close(db);
    if (rc < 0)
        return -1;
    if (journal_check(&journal.options, !journal.options.owner, e) == 0)
        return 0;
    heals = e->class == ERR_RETRY;
    return journal_finding(k, m->journal.uri, e) < 0 ? -1 : heals;
}

static int check_journals(struct checking *k, struct err *e)
{
    struct migration mirror;
    int rc = check_journal(k, &k->x->m, e);

    if (rc != 0)
        return rc < 0 ? -1 : 0;
    migration_mirror(&k->x->m, &k->arena, &mirror);
    return check_journal(k, &mirror, e) < 0 ? -1 : 0;
}

static void print_findings(struct cli *c, const struct findings *f, bool *unfit)
{
    json_t *list = json_array();

    for (size_t i = 0; i < f->n; i++) {
        const struct finding *v = &f->v[i];

        *unfit = *unfit || v->fatal;
        cli_say(c, "%-7s %s: %s", v->fatal ? "unfit" : "warning", v->object, v->what);
        if (v->remedy && v->remedy[0])
            cli_say(c, "        → %s", v->remedy);
        json_array_append_new(list, json_pack("{s:b, s:s, s:s, s:s?}", "fatal", v->fatal, "object",
                                              v->object, "what", v->what, "remedy", v->remedy));
    }
    cli_put(c, "findings", list);
}

int check_both(struct cli *c, const struct context *x, bool started, bool *unfit, struct err *e)
{
    struct checking k = {
        .x = x, .started = started, .asked = strcmp(c->command->name, "check") == 0};
    struct table_list tables = {0};
    int version = 0;
    int rc = -1;

    *unfit = false;
    if (check_source(&k, &tables, &version, e) < 0 || check_target(&k, &tables, version, e) < 0)
        goto out;
    check_folder(&k);
    check_hook(&k);
    if (check_journals(&k, e) < 0)
        goto out;
    print_findings(c, &k.findings, unfit);
    cli_put(c, "tables", json_integer((json_int_t)tables.n));
    rc = 0;
out:
    arena_release(&k.arena);
    return rc;
}

static int is_started(const struct context *x, bool *out, struct err *e)
{
    struct db *db = NULL;
    int rc;

    *out = false;
    if (migration_open_target(&x->m, DB_CONTROL, &db, e) < 0) {
        if (e->class != ERR_REFUSED)
            return -1;
        err_clear(e);
        return 0;
    }
    rc = context_started(db, out, e);
    db->engine->close(db);
    return rc;
}

int command_check(struct cli *c, struct err *e)
{
    struct context x;
    bool started;
    bool unfit;
    int rc = -1;

    if (context_open(&x, c, e) < 0)
        return -1;
    if (is_started(&x, &started, e) < 0 || check_both(c, &x, started, &unfit, e) < 0)
        goto out;
    if (unfit)
        cli_next(c, "mend what is unfit, then lockstep check again");
    else
        cli_next(c, started ? "lockstep run goes on" : "fit; lockstep run begins the migration");
    rc = unfit ? EXIT_DIFFERENT : EXIT_DONE;
out:
    context_close(&x);
    return rc;
}
