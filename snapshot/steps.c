/* Schema steps: planned once from the source's schema, made ready by the conductor in the order of
 * design.md §2, run by whoever is free. A step in a transaction is done exactly if its fact says
 * so; an online step (CONCURRENTLY) that may have left something is undone first.
 *
 * The undo names what the step makes, and cannot tell ours from somebody else's of that name. So it
 * must not run behind an attempt that made nothing: one that failed before its statement was sent,
 * or (where the server takes a statement whole or not at all) one whose statement was refused, be
 * it because the name is taken. It must run behind all others: the connection broke under the
 * statement; it came to its end and could not be recorded; the process died at either (its step is
 * found running). Once it must, it must until the step is done. */
#include "control/convert.h"
#include "core/log.h"
#include "core/run.h"
#include "snapshot/internal.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

/* How long apply may stand still for one step without an online form. */
#define PAUSE_MS 600000
#define PAUSE_ANSWER_MS 30000
#define PAUSE_POLL_MS 20
/* Between attempts to say that a step is not running any more. */
#define PUT_BACK_MS 200

/* By the engine's own tools, under the common snapshot while its holder lives. */
static int steps_copied(struct conductor *c, const struct stream_fact *stream,
                        const struct table_list *tables, struct arena *a, struct schema_steps *out,
                        struct err *e)
{
    struct server_identity target = {0};

    if (c->target->engine->identify(c->target, &target, e) < 0)
        return -1;
    struct schema_request request = {.source = c->source,
                                     .target = c->target,
                                     .source_uri = c->m->source.uri,
                                     .snapshot = c->holder ? stream->snapshot : NULL,
                                     .selection = &c->m->selection,
                                     .tables = tables,
                                     .target_version = target.version,
                                     .bindir = c->m->bindir,
                                     .workdir = c->m->workdir};

    return c->source->engine->schema_steps(&request, a, out, e);
}

/* What the tables are made of is read again: between the plan of their shapes and now it must not
 * have changed, which convert_plan() sees in the columns. */
static int steps_converted(struct conductor *c, const struct table_list *tables, struct arena *a,
                           struct schema_steps *out, struct err *e)
{
    struct conversion conversion;

    if (convert_plan(c->m, c->source, tables, a, &conversion, e) < 0 ||
        convert_refuse(&conversion, e) < 0)
        return -1;
    return convert_steps(c->m, &conversion, c->target, a, out, e);
}

int steps_plan(struct conductor *c, const struct stream_fact *stream,
               const struct table_list *tables, struct err *e)
{
    bool copied = migration_is_native(c->m) && c->source->engine->schema_steps;
    struct arena a = ARENA_INIT;
    struct schema_steps steps = {0};
    struct step_list planned;
    int status = steps_load(c->target, &a, &planned, e);

    if (status < 0 || planned.n || planned.done)
        goto out;
    status = copied ? steps_copied(c, stream, tables, &a, &steps, e)
                    : steps_converted(c, tables, &a, &steps, e);
    if (status == 0)
        status = c->target->engine->begin(c->target, e);
    if (status < 0)
        goto out;
    if (steps_store(c->target, &steps, e) < 0) {
        c->target->engine->rollback(c->target, NULL);
        status = -1;
        goto out;
    }
    status = c->target->engine->commit(c->target, e);
    log_event(LOG_INFO, "snapshot", "schema-planned", "steps=%zu", steps.n);
out:
    arena_release(&a);
    return status;
}

int steps_recover(struct conductor *c, struct err *e)
{
    struct arena a = ARENA_INIT;
    struct step_list steps;
    int status = steps_load(c->target, &a, &steps, e);
    size_t running = 0;

    for (size_t i = 0; status == 0 && i < steps.n; i++)
        running += steps.v[i].state == STEP_RUNNING ? 1 : 0;
    if (status == 0 && (running || (!steps.n && !steps.done)))
        status = c->target->engine->schema_settle(c->target, e);
    for (size_t i = 0; status == 0 && i < steps.n; i++) {
        if (steps.v[i].state != STEP_RUNNING)
            continue;
        steps.v[i].repeated = true;
        status = step_move(c->target, &steps.v[i], STEP_READY, e);
    }
    arena_release(&a);
    return status;
}

/* ---- whose time has come ---- */

/* A step that waits for a table waits for its rows; for a partitioned one, for all its leaves'. */
static bool rows_are_there(const struct step *step, const struct table_list *tables,
                           const bool *loaded)
{
    bool named = false;

    if (!loaded)
        return true;
    for (size_t i = 0; i < tables->n; i++) {
        const struct table *t = tables->v[i];

        if (step->s.table && strcmp(step->s.table, table_label(t)) != 0 &&
            !(t->root && strcmp(step->s.table, t->root) == 0))
            continue;
        named = true;
        if (!loaded[i])
            return false;
    }
    if (named || !step->s.table)
        return true;
    /* It names a table that is none of ours (a partitioned table between root and leaf): all. */
    for (size_t i = 0; i < tables->n; i++) {
        if (!loaded[i])
            return false;
    }
    return true;
}

/* Steps of one phase and table run in their order; those of different tables side by side. */
static bool earlier_are_done(const struct step_list *steps, const struct step *step)
{
    for (size_t i = 0; i < steps->n; i++) {
        const struct step *other = &steps->v[i];
        bool same_table =
            !other->s.table || !step->s.table || strcmp(other->s.table, step->s.table) == 0;

        if (other->s.phase == step->s.phase && other->s.order < step->s.order &&
            (same_table || step->s.order >= SCHEMA_ORDER_BARRIER))
            return false;
    }
    return true;
}

int steps_advance(struct conductor *c, enum schema_phase phase, const struct table_list *tables,
                  const bool *loaded, struct err *e)
{
    struct arena a = ARENA_INIT;
    struct step_list steps;
    int status = steps_load(c->target, &a, &steps, e);
    size_t left = 0;

    for (size_t i = 0; status == 0 && i < steps.n; i++) {
        struct step *step = &steps.v[i];

        if (step->s.phase != phase)
            continue;
        left++;
        if (step->state == STEP_PLANNED && rows_are_there(step, tables, loaded) &&
            earlier_are_done(&steps, step))
            status = step_move(c->target, step, STEP_READY, e);
    }
    arena_release(&a);
    return status < 0 ? -1 : left == 0;
}

/* ---- running ---- */

static bool was_refused(const struct err *e)
{
    return e->class != ERR_UNKNOWN && e->class != ERR_STOPPED && e->class != ERR_BUG;
}

/* *left: the attempt may have left something. */
static int run_online(struct db *control, struct db *schema, struct step *step, bool *left,
                      struct err *e)
{
    const struct engine *engine = schema->engine;

    if (step->repeated && step->s.undo && engine->schema_run(schema, step->s.undo, true, e) < 0)
        return -1;
    if (engine->schema_run(schema, step->s.sql, true, e) < 0) {
        *left = !step->s.whole || !was_refused(e);
        return -1;
    }
    *left = true;
    return step_move(control, step, STEP_DONE, e);
}

static int run_in_transaction(struct db *schema, struct step *step, struct err *e)
{
    const struct engine *engine = schema->engine;

    if (engine->begin(schema, e) < 0)
        return -1;
    if (engine->schema_run(schema, step->s.sql, false, e) < 0 ||
        step_move(schema, step, STEP_DONE, e) < 0)
        return -1;
    return engine->commit(schema, e);
}

/* Asks apply to stand still and waits until it does; 0 also if no apply runs. */
static int pause_apply(struct db *control, struct err *e)
{
    int64_t deadline = mono_ms() + PAUSE_ANSWER_MS;
    int64_t now;

    if (control->engine->clock_ms(control, &now, e) < 0 ||
        request_put(control, "pause/schema",
                    json_pack("{s:I}", "until_ms", (json_int_t)(now + PAUSE_MS)), e) < 0)
        return -1;
    for (;;) {
        json_t *answer;
        int held = lease_held(control, "apply", NULL, 0, e);

        if (held < 0 || fact_read(control, "answer", "pause/schema", &answer, NULL, e) < 0)
            return -1;
        json_decref(answer);
        if (answer || !held)
            return 0;
        if (stop_check(e) < 0)
            return -1;
        if (mono_ms() > deadline)
            return err_set(e, ERR_RETRY, "apply did not stand still within %d s for a schema step",
                           PAUSE_ANSWER_MS / 1000);
        nap_ms(PAUSE_POLL_MS);
    }
}

/* 0: the step is not ours any more, or was never; -1. */
static int try_put_back(const struct migration *m, const struct step *failed, bool left,
                        struct err *e)
{
    struct arena a = ARENA_INIT;
    struct step_list steps;
    struct db *db;
    int status;

    if (migration_open_target(m, DB_CONTROL, &db, e) < 0)
        return -1;
    status = steps_load(db, &a, &steps, e);
    for (size_t i = 0; status == 0 && i < steps.n; i++) {
        struct step *step = &steps.v[i];

        if (strcmp(step->key, failed->key) != 0 || step->state != STEP_RUNNING || !step->runner ||
            strcmp(step->runner, failed->runner) != 0)
            continue;
        step->repeated = step->repeated || left;
        status = step_move(db, step, STEP_READY, e);
    }
    db->engine->close(db);
    arena_release(&a);
    return status;
}

/* A failed attempt's step says that it runs, and nobody else touches it: so we do not leave before
 * it says something else. The connection may have failed with it, and the server be down. If the
 * step's commit is still on its way, the step's line is locked until that is decided. */
static void put_back(const struct migration *m, const struct step *failed, bool left)
{
    struct err e = {0};

    /* ERR_UNKNOWN: it may be put back already; looking again tells. */
    while (try_put_back(m, failed, left, &e) < 0 &&
           (e.class == ERR_RETRY || e.class == ERR_UNKNOWN) && !stop_requested())
        nap_ms(PUT_BACK_MS);
}

static const char *name_runner(const struct migration *m, struct arena *a)
{
    static atomic_uint attempts;

    return arena_printf(a, "%s#%u", m->holder ? m->holder : "", atomic_fetch_add(&attempts, 1));
}

static int run_step(const struct migration *m, struct db *control, struct db **schema,
                    struct step *step, struct err *e)
{
    int64_t begin = mono_ms();
    bool left = false;
    int status = 0;

    if (!*schema)
        status = migration_open_target(m, DB_SCHEMA, schema, e);
    if (status == 0)
        status = step_move(control, step, STEP_RUNNING, e);
    if (status < 0 && e->class == ERR_FENCED)
        return 0; /* another worker was quicker */
    if (status == 0 && step->s.pauses_apply)
        status = pause_apply(control, e);
    if (status == 0)
        status = step->s.online ? run_online(control, *schema, step, &left, e)
                                : run_in_transaction(*schema, step, e);
    if (step->s.pauses_apply && request_clear(control, "pause/schema", NULL) < 0)
        log_event(LOG_WARN, "snapshot", "pause-left", "apply goes on by itself");
    if (status == 0) {
        log_event(LOG_INFO, "snapshot", "schema-step", "step=\"%s\" ms=%lld", step->s.name,
                  (long long)(mono_ms() - begin));
        return 0;
    }
    err_wrap(e, "schema step \"%s\"", step->s.name);
    if (*schema)
        (*schema)->engine->close(*schema);
    *schema = NULL;
    put_back(m, step, left);
    return -1;
}

int steps_run_one(const struct migration *m, struct db *control, struct db **schema, bool pausing,
                  struct err *e)
{
    struct arena a = ARENA_INIT;
    struct step_list steps;
    struct step *ready = NULL;
    int status = steps_load(control, &a, &steps, e);

    for (size_t i = 0; status == 0 && i < steps.n && !ready; i++) {
        if (steps.v[i].state == STEP_READY && steps.v[i].s.pauses_apply == pausing)
            ready = &steps.v[i];
    }
    if (ready)
        ready->runner = name_runner(m, &a);
    if (ready)
        status = run_step(m, control, schema, ready, e) < 0 ? -1 : 1;
    arena_release(&a);
    return status;
}
