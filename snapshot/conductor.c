/* The conductor walks the load through its phases (enum load_phase). One table of phases; each
 * row's function does the next thing that its phase asks for, and moves the phase when nothing is
 * left. All it knows is in the facts, but for one thing: the connection that holds the common
 * snapshot, which dies with it. */
#include "control/convert.h"
#include "core/log.h"
#include "core/run.h"
#include "snapshot/internal.h"

#include <stdlib.h>
#include <string.h>

struct conductor *conductor_open(const struct migration *m)
{
    struct conductor *c = calloc(1, sizeof(*c));

    invariant(c != NULL);
    c->m = m;
    return c;
}

static void close_db(struct db **db)
{
    if (*db)
        (*db)->engine->close(*db);
    *db = NULL;
}

static void disconnect(struct conductor *c)
{
    close_db(&c->target);
    close_db(&c->source);
    close_db(&c->schema);
}

void conductor_close(struct conductor *c)
{
    if (!c)
        return;
    disconnect(c);
    close_db(&c->holder);
    free(c);
}

/* One that was stopped in the middle of a step, for longer than its lease, would else write what it
 * had decided over what its successor did meanwhile. */
int conductor_begin(struct conductor *c, struct err *e)
{
    if (c->target->engine->begin(c->target, e) < 0)
        return -1;
    if (turn_hold(c->target, c->turn, e) == 0)
        return 0;
    c->target->engine->rollback(c->target, NULL);
    return -1;
}

static int set_phase(struct conductor *c, enum load_phase p, struct err *e)
{
    if (conductor_begin(c, e) < 0)
        return -1;
    if (load_phase_set(c->target, p, e) < 0) {
        c->target->engine->rollback(c->target, NULL);
        return -1;
    }
    if (c->target->engine->commit(c->target, e) < 0)
        return -1;
    log_event(LOG_INFO, "snapshot", "phase", "load=%s", load_phase_name(p));
    return 0;
}

/* ---- none → stream ---- */

static int register_migration(struct conductor *c, struct err *e)
{
    struct server_identity source = {0};
    struct server_identity target = {0};

    if (c->source->engine->identify(c->source, &source, e) < 0 ||
        c->target->engine->identify(c->target, &target, e) < 0)
        return -1;
    if (source.standby) {
        err_set(e, ERR_REFUSED, "the source is a hot standby; its snapshots misstate what runs");
        return err_hint(e, "point source: at the primary");
    }
    if (c->target->engine->control_install(c->target, SIDE_TARGET, e) < 0 ||
        c->source->engine->control_install(c->source, SIDE_SOURCE, e) < 0)
        return -1;
    return migration_register(c->m, c->target, &source, &target, e);
}

static int create_lanes(struct conductor *c, const struct table_list *tables, struct err *e)
{
    struct arena a = ARENA_INIT;
    int status = 0;

    for (size_t i = 0; status == 0 && i < tables->n; i++) {
        struct lane lane;
        const char *label = arena_strdup(&a, table_label(tables->v[i]));
        int found = lane_load(c->target, label, &a, &lane, e);

        if (found < 0)
            status = -1;
        if (found == 0) {
            lane = (struct lane){.label = label, .state = LANE_LOADING};
            status = lane_store(c->target, &lane, e);
        }
    }
    arena_release(&a);
    return status;
}

/* The plan and the intent to make the stream, in one transaction. */
static int record_intent(struct conductor *c, const struct table_list *tables,
                         struct stream_fact *seen, struct err *e)
{
    if (c->target->engine->begin(c->target, e) < 0)
        return -1;
    if (shapes_store(c->target, tables, e) < 0 || create_lanes(c, tables, e) < 0 ||
        stream_fact_creating(c->target, seen, e) < 0) {
        c->target->engine->rollback(c->target, NULL);
        return -1;
    }
    return c->target->engine->commit(c->target, e);
}

static int record_stream(struct conductor *c, const struct stream_fact *seen,
                         const struct stream_origin *origin, struct err *e)
{
    if (c->target->engine->begin(c->target, e) < 0)
        return -1;
    if (stream_fact_created(c->target, seen, origin, e) < 0 ||
        load_phase_set(c->target, LOAD_STREAM, e) < 0) {
        c->target->engine->rollback(c->target, NULL);
        return -1;
    }
    return c->target->engine->commit(c->target, e);
}

static int create_stream(struct conductor *c, struct arena *a, struct err *e)
{
    struct db_options options = {
        .uri = c->m->source.uri, .migration = c->m->name, .use = DB_CONTROL};
    struct stream_origin origin = {0};
    struct conversion conversion;
    struct stream_fact seen;
    struct table_list tables;

    if (stream_fact_load(c->target, a, &seen, e) < 0)
        return -1;
    if (seen.state == STREAM_CREATED)
        return err_set(e, ERR_FENCED, "another conductor has made the stream meanwhile");
    if (c->source->engine->tables(c->source, &c->m->selection, a, &tables, e) < 0)
        return -1;
    if (tables.n == 0) {
        err_set(e, ERR_REFUSED, "no table of the source matches tables.include");
        return err_hint(e, "patterns are schema.table, with * and ?");
    }
    if (convert_plan(c->m, c->source, &tables, a, &conversion, e) < 0)
        return -1;
    convert_pair(&conversion, c->source, c->target, a);
    if (convert_refuse(&conversion, e) < 0 || record_intent(c, &tables, &seen, e) < 0 ||
        c->source->engine->stream_create(&options, &tables, seen.state == STREAM_CREATING, a,
                                         &origin, e) < 0)
        return -1;
    close_db(&c->holder);
    c->holder = origin.holder;
    if (record_stream(c, &seen, &origin, e) < 0) {
        /* Whatever the fact says now, it need not be this snapshot. */
        close_db(&c->holder);
        return -1;
    }
    log_event(LOG_INFO, "snapshot", "stream-created", "tables=%zu cut=%s", tables.n,
              origin.cut.text);
    return 1;
}

static int phase_none(struct conductor *c, struct arena *a, struct err *e)
{
    if (register_migration(c, e) < 0)
        return -1;
    return create_stream(c, a, e);
}

/* ---- stream → schema → planned ---- */

static int phase_stream(struct conductor *c, struct arena *a, struct err *e)
{
    struct table_list tables;
    struct stream_fact stream;
    int status;

    if (shapes_load(c->target, a, &tables, e) < 0 || stream_fact_load(c->target, a, &stream, e) < 0)
        return -1;
    if (steps_plan(c, &stream, &tables, e) < 0)
        return -1;
    status = steps_advance(c, SCHEMA_PRE, &tables, NULL, e);
    if (status == 0)
        return steps_run_one(c->m, c->target, &c->schema, false, e) < 0 ? -1 : 1;
    close_db(&c->schema);
    return status < 0 || set_phase(c, LOAD_SCHEMA, e) < 0 ? -1 : 1;
}

static int phase_schema(struct conductor *c, struct arena *a, struct err *e)
{
    struct table_list tables;
    struct table_fact line;

    if (shapes_load(c->target, a, &tables, e) < 0)
        return -1;
    for (size_t i = 0; i < tables.n; i++) {
        if (table_fact_load(c->target, table_label(tables.v[i]), a, &line, e) < 0)
            return -1;
        if (line.nchunks)
            continue;
        if (load_plan(c, tables.v[i], false, e) < 0)
            return -1;
        if (stop_check(e) < 0)
            return -1;
    }
    return set_phase(c, LOAD_PLANNED, e) < 0 ? -1 : 1;
}

/* ---- planned → loaded ---- */

/* 1: what depended on a dead holder was planned anew; 0: nothing to do; -1. */
static int watch_holder(struct conductor *c, const struct table_list *tables,
                        const struct stream_fact *stream, struct err *e)
{
    int64_t now;

    if (c->holder && c->holder->engine->clock_ms(c->holder, &now, e) < 0) {
        if (e->class == ERR_STOPPED)
            return -1;
        log_err(LOG_WARN, "snapshot", "holder-lost", e);
        close_db(&c->holder);
    }
    if (c->holder || !stream->snapshot)
        return 0;
    return load_without_common(c, tables, e) < 0 ? -1 : 1;
}

/* All lanes follow, from the stream's begin. */
static int open_lanes(struct conductor *c, const struct stream_fact *stream, struct arena *a,
                      struct err *e)
{
    struct lane_list lanes;

    if (lanes_load(c->target, a, &lanes, e) < 0)
        return -1;
    for (size_t i = 0; i < lanes.n; i++) {
        lanes.v[i].state = LANE_FOLLOWING;
        lanes.v[i].next = stream->start;
        lanes.v[i].record = 0;
        if (lane_store(c->target, &lanes.v[i], e) < 0)
            return -1;
    }
    return load_phase_set(c->target, LOAD_LOADED, e);
}

static int finish_load(struct conductor *c, const struct stream_fact *stream, struct arena *a,
                       struct err *e)
{
    if (conductor_begin(c, e) < 0)
        return -1;
    if (open_lanes(c, stream, a, e) < 0) {
        c->target->engine->rollback(c->target, NULL);
        return -1;
    }
    if (c->target->engine->commit(c->target, e) < 0)
        return -1;
    close_db(&c->holder);
    log_event(LOG_INFO, "snapshot", "phase", "load=loaded");
    return stream_fact_forget_snapshot(c->target, e) < 0 ? -1 : 1;
}

static int phase_planned(struct conductor *c, struct arena *a, struct err *e)
{
    struct table_list tables;
    struct stream_fact stream;
    bool *loaded;
    size_t nloaded;
    int status;

    if (shapes_load(c->target, a, &tables, e) < 0 || stream_fact_load(c->target, a, &stream, e) < 0)
        return -1;
    status = watch_holder(c, &tables, &stream, e);
    if (status == 0)
        status = load_replans(c, &tables, e);
    if (status)
        return status;
    if (load_progress(c, &tables, a, &loaded, &nloaded, e) < 0)
        return -1;
    status = steps_advance(c, SCHEMA_KEY, &tables, loaded, e);
    if (status <= 0 || nloaded < tables.n)
        return status < 0 ? -1 : 0;
    status = steps_advance(c, SCHEMA_INDEX, &tables, loaded, e);
    return status <= 0 ? status : finish_load(c, &stream, a, e);
}

/* ---- loaded → overlap → done ---- */

/* How far every table is applied: a lane that was taken off the stream stands behind the
 * checkpoint, in a state that may still be a mixture of cuts. 1, 0: apply has not begun, -1. */
static int applied_everywhere(struct conductor *c, struct arena *a, struct position *out,
                              struct err *e)
{
    struct checkpoint checkpoint;
    struct lane_list lanes;
    int found = checkpoint_load(c->target, "forward", &checkpoint, e);

    if (found <= 0)
        return found;
    if (lanes_load(c->target, a, &lanes, e) < 0)
        return -1;
    *out = checkpoint.next;
    for (size_t i = 0; i < lanes.n; i++) {
        const struct lane *lane = &lanes.v[i];
        bool behind = lane->state == LANE_PARKED || lane->state == LANE_CATCHING_UP;

        if (behind && position_cmp(lane->next, *out) < 0)
            *out = lane->next;
    }
    return 1;
}

/* Is apply past the highest cut? 1, 0, -1. First where apply stands, then the cuts: every key that
 * it has read again up to there is in the ledger by then, with a cut that lies higher than those
 * before. */
static int past_all_cuts(struct conductor *c, struct position applied, struct arena *a,
                         struct err *e)
{
    if (position_cmp(applied, c->past) < 0)
        return 0;
    if (load_past(c, a, &c->past, e) < 0)
        return -1;
    return position_cmp(applied, c->past) >= 0;
}

static int phase_loaded(struct conductor *c, struct arena *a, struct err *e)
{
    struct position applied = {0, 0};
    int found = load_recopies(c, e);
    int past = 0;

    if (found)
        return found;
    found = applied_everywhere(c, a, &applied, e);
    if (found > 0)
        past = past_all_cuts(c, applied, a, e);
    if (found < 0 || past < 0)
        return -1;
    if (!past) {
        /* An idle source says nothing by itself for half a minute: a marker makes the stream pass.
         */
        if (found > 0 && !c->marked && c->source->engine->mark(c->source, "overlap", e) < 0)
            return -1;
        c->marked = found > 0;
        return 0;
    }
    return set_phase(c, LOAD_OVERLAP, e) < 0 ? -1 : 1;
}

static int phase_overlap(struct conductor *c, struct arena *a, struct err *e)
{
    static const enum schema_phase order[] = {SCHEMA_UNIQUE, SCHEMA_FOREIGN, SCHEMA_POST,
                                              SCHEMA_ANALYZE};
    struct table_list tables;
    int status = load_recopies(c, e);

    if (status)
        return status;
    if (shapes_load(c->target, a, &tables, e) < 0)
        return -1;
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
        status = steps_advance(c, order[i], &tables, NULL, e);
        if (status < 0)
            return -1;
        if (status == 0)
            return steps_run_one(c->m, c->target, &c->schema, true, e);
    }
    close_db(&c->schema);
    return set_phase(c, LOAD_DONE, e) < 0 ? -1 : 1;
}

static int phase_done(struct conductor *c, struct arena *a, struct err *e)
{
    int status = load_recopies(c, e);

    (void)a;
    return status ? status : STEP_FINISHED;
}

/* ---- the table ---- */

static int (*const phases[])(struct conductor *, struct arena *, struct err *) = {
    [LOAD_NONE] = phase_none,       [LOAD_STREAM] = phase_stream, [LOAD_SCHEMA] = phase_schema,
    [LOAD_PLANNED] = phase_planned, [LOAD_LOADED] = phase_loaded, [LOAD_OVERLAP] = phase_overlap,
    [LOAD_DONE] = phase_done,
};

static int step(struct conductor *c, struct arena *a, struct err *e)
{
    enum load_phase phase = LOAD_NONE;
    bool exists;

    if (!c->target && migration_open_target(c->m, DB_CONTROL, &c->target, e) < 0)
        return -1;
    if (!c->source && migration_open_source(c->m, DB_CONTROL, &c->source, e) < 0)
        return -1;
    if (c->target->engine->control_exists(c->target, &exists, e) < 0)
        return -1;
    if (exists && !c->settled && steps_recover(c, e) < 0)
        return -1;
    c->settled = true;
    if (exists && !c->turn && turn_take(c->target, c->m->holder, &c->turn, e) < 0)
        return -1;
    if (exists && load_phase_get(c->target, &phase, e) < 0)
        return -1;
    return phases[phase](c, a, e);
}

enum step_result conductor_step(struct conductor *c, struct err *e)
{
    struct arena a = ARENA_INIT;
    int status = step(c, &a, e);

    arena_release(&a);
    if (status < 0 && e->class == ERR_FENCED)
        c->turn = 0;
    if (status < 0)
        disconnect(c);
    return (enum step_result)status;
}
