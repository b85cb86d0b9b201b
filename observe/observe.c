#include "observe/observe.h"

#include "journal/journal.h"
#include "observe/conduct.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STATUS_FRESH_MS 15000
#define JOURNAL_WARN_PERCENT 80

/* ---- pure parts ---- */

static bool is_one_of(const char *state, const char *const *names)
{
    while (state && *names && strcmp(state, *names) != 0)
        names++;
    return state && *names;
}

bool observe_is_back(const struct phase_facts *f)
{
    return f->cutover && strcmp(f->cutover, "switched") == 0 && !f->rolled_back;
}

void observe_switches(const json_t *cutover, const json_t *rollback, struct phase_facts *f)
{
    f->cutover = fact_text(cutover, "state");
    f->rollback = fact_text(rollback, "state");
    f->rolled_back = f->rollback && strcmp(f->rollback, "switched") == 0 &&
                     (!f->cutover || strcmp(f->cutover, "switched") != 0 ||
                      fact_int(rollback, "epoch", 0) > fact_int(cutover, "epoch", 0));
}

/* The row of the road that is not gone yet tells whether reads are at its end already. */
const char *observe_reads(const json_t *cutover, const json_t *rollback,
                          const struct phase_facts *f)
{
    bool back = observe_is_back(f);
    const json_t *row = back ? rollback : cutover;
    const char *state = fact_text(row, "state");
    bool ahead =
        json_is_object(json_object_get(row, "reads")) && state && strcmp(state, "switched") != 0;

    return back != ahead ? "target" : "source";
}

const char *observe_phase(const struct phase_facts *f)
{
    static const char *const nothing[] = {"none", "undone", NULL};
    static const char *const standing[] = {"none", "undone", "prepared", "switched", NULL};

    if (!f->begun)
        return NULL;
    /* A rollback on its way; undone it leaves the cutover's `switched`. */
    if (f->rollback && !is_one_of(f->rollback, standing))
        return f->rollback;
    if (f->cutover && !is_one_of(f->cutover, nothing) &&
        !(f->rolled_back && strcmp(f->cutover, "switched") == 0))
        return f->cutover;
    if (f->load < LOAD_PLANNED)
        return "schema";
    if (f->load < LOAD_LOADED)
        return "snapshot";
    return f->load == LOAD_DONE && f->caught_up ? "following" : "catching_up";
}

int64_t observe_lag_ms(const struct lag_sample *samples, size_t n, struct position applied,
                       int64_t now_ms)
{
    size_t i = n;

    if (n == 0)
        return -1;
    while (i > 0 && position_cmp(samples[i - 1].p, applied) > 0)
        i--;
    /* samples[i] is the oldest place that apply has not reached. */
    if (i == n)
        return 0;
    return i > 0 ? now_ms - samples[i].at_ms : -1;
}

/* ---- gathering ---- */

struct gather {
    const struct observe_ends *ends;
    struct arena *a;
    struct observation *out;
    struct err *e;
    const char *back_state; /* of the way back's road, or NULL */
};

static void warn(struct gather *g, const char *text)
{
    struct observation *o = g->out;
    const char **grown = arena_alloc(g->a, (o->nwarnings + 1) * sizeof(*grown));

    if (o->nwarnings)
        memcpy(grown, o->warnings, o->nwarnings * sizeof(*grown));
    grown[o->nwarnings++] = text;
    o->warnings = grown;
}

/* Of something without which no cutover is to be advised. */
static void warn_unwell(struct gather *g, const char *text)
{
    warn(g, text);
    g->out->unwell = true;
}

/* The way back's facts stand on the source; without it they are only not known. */
static int read_rollback(struct db *source, json_t **body, int64_t *version, struct err *e)
{
    bool exists;

    if (source->engine->control_exists(source, &exists, e) < 0)
        return -1;
    return exists && fact_read(source, "cutover", "back", body, version, e) < 0 ? -1 : 0;
}

static const char *json_text(struct arena *a, const json_t *v)
{
    char *text = v ? json_dumps(v, JSON_COMPACT) : NULL;
    const char *kept = text ? arena_strdup(a, text) : NULL;

    free(text);
    return kept;
}

/* Of the stream whose facts stand on `db`: what was written on `side` though it was closed. */
static int gather_foreign(struct gather *g, struct db *db, enum db_side side, struct err *e)
{
    static const char *const names[] = {[SIDE_SOURCE] = "source", [SIDE_TARGET] = "target"};
    struct observed_foreign *f = &g->out->foreign[side];
    struct foreign_seen seen;
    char first[300];

    if (foreign_load(db, &seen, e) < 0)
        return -1;
    *f = (struct observed_foreign){.known = true,
                                   .transactions = seen.transactions,
                                   .changes = seen.changes,
                                   .open = foreign_open(&seen),
                                   .first = json_text(g->a, seen.first)};
    foreign_first(&seen, first, sizeof(first));
    if (f->open)
        warn(g, arena_printf(g->a,
                             "%llu transactions were written on the %s though it is sealed, and "
                             "are not on the %s: who writes there? The first %s",
                             (unsigned long long)f->open, names[side], names[!side], first));
    json_decref(seen.body);
    return 0;
}

/* A direction's row. What the source does not tell is only not known. */
static int gather_conduct(struct gather *g, bool back, const json_t *row, int64_t version)
{
    const char *told;
    const char *next;
    struct err ignored;

    if (conduct_look(g->ends, back, row, version, g->a, &told, &next, back ? &ignored : g->e) < 0)
        return back ? 0 : -1;
    if (!told)
        return 0;
    warn(g, told);
    g->out->again = next;
    return 0;
}

/* Of the switch that was made last, in whichever direction. */
static void gather_hook(struct gather *g, const json_t *row, bool back)
{
    const char *state = fact_text(row, "state");
    const char *hook = fact_text(row, "hook");
    const char *command = back ? "rollback" : "cutover";

    if (!state || strcmp(state, "switched") != 0 || !fact_bool(row, "hook_failed"))
        return;
    warn(g, arena_printf(g->a,
                         "the on_switch hook of the %s failed (%s): the traffic may not have been "
                         "moved to the %s",
                         command, hook ? hook : "why is not known", back ? "source" : "target"));
    if (!g->out->again)
        g->out->again =
            arena_printf(g->a, "mend the hook, then lockstep %s, which runs it again", command);
}

static int gather_phase(struct gather *g)
{
    struct db *db = g->ends->target;
    struct phase_facts f = {.begun = true};
    struct err ignored;
    json_t *rollback = NULL;
    json_t *cutover = NULL;
    json_t *caught = NULL;
    json_t *finish = NULL;
    int64_t forward_version;
    int64_t back_version;
    int rc = -1;

    if (g->ends->source)
        read_rollback(g->ends->source, &rollback, &back_version, &ignored);
    if (fact_read(db, "cutover", "forward", &cutover, &forward_version, g->e) < 0 ||
        fact_read(db, "status", "caught_up", &caught, NULL, g->e) < 0 ||
        fact_read(db, "request", "finish", &finish, NULL, g->e) < 0 ||
        load_phase_get(db, &f.load, g->e) < 0)
        goto out;
    observe_switches(cutover, rollback, &f);
    g->out->direction = observe_is_back(&f) ? "back" : "forward";
    g->out->rolled_back = f.rolled_back;
    g->back_state = f.rollback ? arena_strdup(g->a, f.rollback) : NULL;
    g->out->reads = observe_reads(cutover, rollback, &f);
    f.caught_up = fact_bool(caught, "reached");
    g->out->phase = arena_strdup(g->a, observe_phase(&f));
    if (finish)
        g->out->phase = fact_bool(finish, "abandon") ? "abandoned" : "finished";
    else if (gather_conduct(g, false, cutover, forward_version) < 0 ||
             (rollback && gather_conduct(g, true, rollback, back_version) < 0))
        goto out;
    else
        gather_hook(g, f.rolled_back ? rollback : cutover, f.rolled_back);
    rc = 0;
out:
    json_decref(rollback);
    json_decref(cutover);
    json_decref(caught);
    json_decref(finish);
    return rc;
}

/* ---- tables ---- */

struct tally {
    uint64_t chunks;
    uint64_t done;
    uint64_t rows;
    uint64_t bytes;
};

/* All chunks are looked at: their keys' order is not quite that of the labels. */
static void tally_table(const struct chunk_list *chunks, const char *label, struct tally *t)
{
    memset(t, 0, sizeof(*t));
    for (size_t i = 0; i < chunks->n; i++) {
        const struct chunk *c = &chunks->v[i];

        if (c->range.kind == RANGE_POINT || strcmp(c->table, label) != 0)
            continue;
        t->chunks++;
        if (c->state != CHUNK_DONE)
            continue;
        t->done++;
        t->rows += c->rows;
        t->bytes += c->bytes;
    }
}

static void fill_table(struct gather *g, const struct lane *lane, const struct table_fact *fact,
                       const struct tally *t, struct observed_table *out)
{
    uint64_t estimate = fact ? fact->bytes_estimate : 0;

    out->name = lane->label;
    out->lane = lane_state_name(lane->state);
    out->reason = lane->state == LANE_PARKED ? lane->reason : NULL;
    out->rows = fact ? (int64_t)t->rows : UNKNOWN_COUNT;
    out->bytes = fact ? (int64_t)t->bytes : UNKNOWN_COUNT;
    out->eta_s = UNKNOWN_COUNT;
    if (t->chunks == 0)
        return;
    out->done = (double)t->done / (double)t->chunks;
    /* What is left, by the chunks that have been seen, else by the size on disk. */
    out->left = t->done ? t->bytes / t->done * (t->chunks - t->done) : estimate;
    out->total = t->bytes + out->left;
    if (out->left == 0)
        out->eta_s = 0;
}

/* Tables are copied one after the other, by all workers. */
static void fill_etas(struct gather *g)
{
    struct observation *o = g->out;
    uint64_t left = 0;

    for (size_t i = 0; i < o->ntables; i++) {
        left += o->tables[i].left;
        if (o->tables[i].left && o->rate > 0)
            o->tables[i].eta_s = (int64_t)(left / (uint64_t)o->rate) + 1;
    }
}

static int gather_tables(struct gather *g)
{
    struct db *db = g->ends->target;
    struct lane_list lanes;
    struct chunk_list chunks;

    if (lanes_load(db, g->a, &lanes, g->e) < 0 || ledger_load(db, "", g->a, &chunks, g->e) < 0)
        return -1;
    g->out->tables = arena_zalloc(g->a, (lanes.n + 1) * sizeof(*g->out->tables));
    for (size_t i = 0; i < lanes.n; i++) {
        struct table_fact fact;
        struct tally tally;
        int found = table_fact_load(db, lanes.v[i].label, g->a, &fact, g->e);

        if (found < 0)
            return -1;
        tally_table(&chunks, lanes.v[i].label, &tally);
        fill_table(g, &lanes.v[i], found ? &fact : NULL, &tally,
                   &g->out->tables[g->out->ntables++]);
        if (lanes.v[i].state == LANE_PARKED)
            warn(g, arena_printf(g->a, "%s is parked: %s", lanes.v[i].label,
                                 lanes.v[i].reason ? lanes.v[i].reason : "no reason was kept"));
    }
    fill_etas(g);
    return 0;
}

/* ---- the running processes ---- */

static void warn_stages(struct gather *g, const json_t *process, const char *of)
{
    const char *name;
    json_t *stage;

    json_object_foreach(json_object_get(process, "stages"), name, stage)
    {
        const char *error = fact_text(stage, "error");

        if (error)
            warn_unwell(g, arena_printf(g->a, "%s%s has been failing for %d s: %s", name, of,
                                        (int)fact_int(stage, "for_s", 0), error));
    }
}

/* A process that was killed keeps its leases for a while. */
static bool is_dead(const struct gather *g, const char *holder)
{
    return holder && g->ends->holder_is_dead && g->ends->holder_is_dead(holder);
}

/* Who runs what: one process, or each role one of its own. */
static int gather_leases(struct gather *g)
{
    static const struct {
        const char *lease;
        const char *missing; /* what to say if nobody has it; NULL: nothing */
    } roles[] = {
        {"run", NULL},
        {"apply", "no process applies changes: lockstep run (or apply) goes on"},
        {"capture", "no process captures changes: lockstep run (or capture) goes on"},
        {"conductor", NULL},
    };
    const size_t n = sizeof(roles) / sizeof(roles[0]);
    bool held[sizeof(roles) / sizeof(roles[0])];

    for (size_t i = 0; i < n; i++) {
        char holder[HOLDER_MAX];
        int rc = lease_held(g->ends->target, roles[i].lease, holder, sizeof(holder), g->e);

        if (rc < 0)
            return -1;
        held[i] = rc > 0 && !is_dead(g, holder);
        if (held[i] && !g->out->running)
            g->out->running = arena_strdup(g->a, holder);
    }
    if (!g->out->running)
        warn(g, "no process runs this migration: lockstep run goes on");
    for (size_t i = 0; g->out->running && i < n; i++) {
        if (!held[i] && roles[i].missing)
            warn_unwell(g, roles[i].missing);
    }
    return 0;
}

static void add_process(struct gather *g, const json_t *process)
{
    int64_t rate = fact_int(process, "rate", UNKNOWN_COUNT);
    int64_t lag = fact_int(process, "lag_ms", -1);

    if (rate != UNKNOWN_COUNT)
        g->out->rate = rate + (g->out->rate == UNKNOWN_COUNT ? 0 : g->out->rate);
    if (lag >= 0)
        g->out->lag_seconds = (double)lag / 1000.0;
    warn_stages(g, process, "");
}

static int gather_run(struct gather *g)
{
    struct db *db = g->ends->target;
    struct fact *facts;
    int64_t now;
    size_t n;

    if (gather_leases(g) < 0 || db->engine->clock_ms(db, &now, g->e) < 0 ||
        db->engine->fact_scan(db, "status", "process/", &facts, &n, g->e) < 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        if (now - fact_int(facts[i].body, "at_ms", 0) <= STATUS_FRESH_MS &&
            !is_dead(g, fact_text(facts[i].body, "holder")))
            add_process(g, facts[i].body);
    }
    facts_release(facts, n);
    return 0;
}

/* ---- the way back ---- */

static void add_parked(struct gather *g, struct observed_way *way, const struct lane_list *lanes)
{
    way->parked = arena_zalloc(g->a, (lanes->n + 1) * sizeof(*way->parked));
    for (size_t i = 0; i < lanes->n; i++) {
        const struct lane *lane = &lanes->v[i];
        const char *reason = lane->reason ? lane->reason : "no reason was kept";

        if (lane->state != LANE_PARKED)
            continue;
        way->parked[way->nparked++] = (struct observed_parked){lane->label, reason};
        warn(g, arena_printf(g->a, "%s is parked on the way back: %s", lane->label, reason));
    }
}

/* -1 only to leave off: what cannot be read is not known. */
static int read_way(struct gather *g, struct observed_way *way, struct err *e)
{
    struct db *db = g->ends->source;
    struct db *from = g->ends->target;
    struct lane_list lanes;
    struct checkpoint c;
    struct position now;
    uint64_t lag;
    struct retention kept;
    struct fact *facts;
    size_t n;
    char text[80];
    int64_t clock;

    if (checkpoint_load(db, "forward", &c, e) <= 0 || lanes_load(db, g->a, &lanes, e) < 0 ||
        from->engine->current_position(from, &now, e) < 0 ||
        from->engine->position_distance(from, c.next, now, &lag, e) < 0 ||
        db->engine->clock_ms(db, &clock, e) < 0 ||
        db->engine->fact_scan(db, "status", "process/", &facts, &n, e) < 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        if (clock - fact_int(facts[i].body, "at_ms", 0) <= STATUS_FRESH_MS &&
            !is_dead(g, fact_text(facts[i].body, "holder")))
            warn_stages(g, facts[i].body, " of the way back");
    }
    facts_release(facts, n);
    from->engine->position_text(c.next, text, sizeof(text));
    way->consistent_up_to = arena_strdup(g->a, text);
    way->changes = (int64_t)c.changes;
    way->lag_bytes = (int64_t)lag;
    add_parked(g, way, &lanes);
    way->state = g->back_state;
    way->retained_bytes = UNKNOWN_COUNT;
    if (g->ends->way && from->engine->retention(g->ends->way, g->a, &kept, e) == 0 && !kept.lost)
        way->retained_bytes = (int64_t)kept.retained_bytes;
    return 0;
}

static void gather_way_back(struct gather *g)
{
    struct observed_way *way = arena_zalloc(g->a, sizeof(*way));
    struct db *db = g->ends->source;
    struct err ignored;
    bool exists;

    if (!db || db->engine->control_exists(db, &exists, &ignored) < 0 || !exists ||
        read_way(g, way, &ignored) < 0)
        return;
    g->out->way_back = way;
    gather_foreign(g, db, SIDE_TARGET, &ignored);
    /* Then it is the lag that counts. */
    if (strcmp(g->out->direction, "back") == 0) {
        g->out->lag_bytes = way->lag_bytes;
        g->out->lag_seconds = way->lag_bytes ? -1 : 0;
    }
}

/* ---- positions, journal, source ---- */

static int gather_checkpoint(struct gather *g)
{
    const struct engine *engine = g->ends->m->source.engine;
    struct checkpoint c;
    struct position now;
    uint64_t lag;
    struct err ignored;
    char text[80];
    int found = checkpoint_load(g->ends->target, "forward", &c, g->e);

    if (found <= 0)
        return found;
    engine->position_text(c.next, text, sizeof(text));
    g->out->consistent_up_to = arena_strdup(g->a, text);
    g->out->changes = (int64_t)c.changes;
    if (g->ends->source && engine->current_position(g->ends->source, &now, &ignored) == 0 &&
        engine->position_distance(g->ends->source, c.next, now, &lag, &ignored) == 0) {
        g->out->lag_bytes = (int64_t)lag;
        if (g->out->lag_bytes == 0)
            g->out->lag_seconds = 0;
    }
    return 0;
}

static void gather_source(struct gather *g)
{
    struct db *source = g->ends->source;
    struct retention r;
    struct err e;

    if (!source) {
        warn_unwell(
            g, arena_printf(g->a, "the source cannot be read: %s",
                            g->ends->source_trouble ? g->ends->source_trouble : "no connection"));
        return;
    }
    if (source->engine->retention(source, g->a, &r, &e) < 0) {
        warn_unwell(g, arena_printf(g->a, "the source's retained log cannot be read: %s", e.msg));
        return;
    }
    if (r.lost)
        warn_unwell(g,
                    arena_printf(g->a, "the source no longer keeps the log for this migration (%s)",
                                 r.state));
    else
        g->out->retained_bytes = (int64_t)r.retained_bytes;
}

static void gather_journal(struct gather *g)
{
    const struct migration *m = g->ends->m;
    uint64_t max = m->journal.max_bytes;
    struct journal_stats stats;
    struct err e;
    int found = journal_stat(&m->journal, &stats, &e);

    if (found < 0)
        warn_unwell(g, arena_printf(g->a, "the journal cannot be read: %s", e.msg));
    if (found <= 0)
        return;
    g->out->journal_bytes = (int64_t)stats.bytes;
    g->out->journal_records = (int64_t)stats.next;
    if (max && stats.bytes / 100 * 100 >= max / 100 * JOURNAL_WARN_PERCENT)
        warn(g, arena_printf(g->a,
                             "the journal holds %d %% of journal_max; before 100 %% capture "
                             "pauses",
                             (int)(stats.bytes / (max / 100))));
}

int observe(const struct observe_ends *ends, struct arena *a, struct observation *out,
            struct err *e)
{
    struct gather g = {.ends = ends, .a = a, .out = out, .e = e};
    json_t *self = NULL;
    bool begun;

    *out = (struct observation){.lag_bytes = UNKNOWN_COUNT,
                                .lag_seconds = -1,
                                .retained_bytes = UNKNOWN_COUNT,
                                .journal_bytes = UNKNOWN_COUNT,
                                .journal_records = UNKNOWN_COUNT,
                                .changes = UNKNOWN_COUNT,
                                .rate = UNKNOWN_COUNT};
    if (ends->target->engine->control_exists(ends->target, &begun, e) < 0)
        return -1;
    if (begun && fact_read(ends->target, "migration", "self", &self, NULL, e) < 0)
        return -1;
    if (!self) {
        warn(&g, "nothing of this migration is on the target: not begun, or finished");
        return 0;
    }
    json_decref(self);
    if (gather_phase(&g) < 0 || gather_run(&g) < 0 || gather_tables(&g) < 0 ||
        gather_checkpoint(&g) < 0)
        return -1;
    if (gather_foreign(&g, ends->target, SIDE_SOURCE, e) < 0)
        return -1;
    gather_way_back(&g);
    gather_journal(&g);
    /* Before publication and slot exist there is nothing to be retained or lost. */
    if (strcmp(out->phase, "schema") != 0 || !ends->source)
        gather_source(&g);
    return 0;
}
