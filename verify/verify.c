#include "verify/verify.h"

#include "core/log.h"
#include "control/plan.h"
#include "core/run.h"
#include "verify/canon.h"
#include "verify/diff.h"
#include "verify/pin.h"
#include "verify/scan.h"

#include <stdio.h>
#include <string.h>

/* A table's buckets that differ, kept until everything was read once. */
struct suspect {
    const struct subject *subject;
    uint64_t rows; /* of the source, in those buckets */
    bool differs[BUCKETS];
};

struct verifying {
    const struct verify_request *r;
    struct verify_report *report;
    struct arena arena;
    struct pair pair;
    struct subject_list subjects;
    struct suspect *suspects;
    size_t nsuspects;
    struct diff_out out;
};

static void emit_line(struct verifying *v, const char *line)
{
    v->r->emit(line, v->r->ctx);
}

static void emit_missing(struct verifying *v, const char *what)
{
    emit_line(v, arena_printf(&v->arena, "%s: %s", what, diff_missing_there(v->out.back)));
    v->out.differences++;
}

/* ---- what is compared ---- */

static int catalog(const struct migration *m, bool source, const struct selection *selection,
                   struct arena *a, struct table_list *out, struct err *e)
{
    struct db *db = NULL;
    int rc = source ? migration_open_source(m, DB_CONTROL, &db, e)
                    : migration_open_target(m, DB_CONTROL, &db, e);

    if (rc == 0) {
        rc = db->engine->tables(db, selection, a, out, e);
        db->engine->close(db);
    }
    return rc;
}

static const struct lane *find_lane(const struct lane_list *l, const char *label)
{
    for (size_t i = 0; i < l->n; i++) {
        if (strcmp(l->v[i].label, label) == 0)
            return &l->v[i];
    }
    return NULL;
}

static bool has_column(const struct table *t, const char *name)
{
    for (size_t i = 0; i < t->ncolumns; i++) {
        if (strcmp(t->columns[i].name, name) == 0)
            return true;
    }
    return false;
}

/* True if the target can be read by the source's columns; else says what is missing. */
static bool same_columns(struct verifying *v, const struct table *source,
                         const struct table *target)
{
    const struct table *there = table_there(source);
    const char *label = arena_strdup(&v->arena, table_label(source));
    bool same = true;

    if (!target) {
        emit_missing(v, label);
        return false;
    }
    for (size_t i = 0; i < source->ncolumns; i++) {
        const struct column *c = &source->columns[i];

        if (c->generated || has_column(target, there->columns[i].name))
            continue;
        emit_missing(v, arena_printf(&v->arena, "%s: column %s", label, c->name));
        same = false;
    }
    return same;
}

static void add_subject(struct verifying *v, const struct table *source)
{
    const struct migration *m = v->r->m;
    struct subject *s = &v->subjects.v[v->subjects.n++];
    struct table *t = table_copy(&v->arena, source);
    const struct table *there = table_there(source);
    bool *canon = arena_zalloc(&v->arena, (t->ncolumns + 1) * sizeof(*canon));

    s->table = t;
    for (size_t i = 0; i < t->ncolumns; i++) {
        t->columns[i].generated = t->columns[i].generated || there->columns[i].generated;
        canon[i] = canon_wanted(&source->columns[i], m->source.engine->normalizes_json,
                                &there->columns[i], m->target.engine->normalizes_json);
        s->canon = canon[i] ? canon : s->canon;
    }
}

/* The way back carries the tables that it was made for, under the names that they have there: the
 * selection speaks of the other side's. One that is gone since is a difference, too. */
static int back_catalog(struct verifying *v, const struct table_list *planned,
                        struct table_list *out, struct err *e)
{
    static const struct selection all = {0};
    struct table_list there;

    if (catalog(v->r->m, true, &all, &v->arena, &there, e) < 0)
        return -1;
    *out = (struct table_list){.v = arena_zalloc(&v->arena, (planned->n + 1) * sizeof(*out->v))};
    for (size_t i = 0; i < planned->n; i++) {
        const char *label = arena_strdup(&v->arena, table_label(planned->v[i]));
        struct table *t = table_list_find(&there, label);

        if (t)
            out->v[out->n++] = t;
        else
            emit_line(v, arena_printf(&v->arena, "%s: %s", label, diff_missing_there(false)));
        v->out.differences += !t;
    }
    return 0;
}

static int source_catalog(struct verifying *v, const struct table_list *planned,
                          struct table_list *out, struct err *e)
{
    const struct migration *m = v->r->m;

    return m->back ? back_catalog(v, planned, out, e)
                   : catalog(m, true, &m->selection, &v->arena, out, e);
}

/* What is there today at both ends. A table that has another shape on the target is taken as it was
 * planned, since only the plan knows what becomes of it. */
static int both_catalogs(struct verifying *v, struct table_list *source, struct table_list *target,
                         struct err *e)
{
    const struct migration *m = v->r->m;
    struct table_list planned;
    struct selection there;

    if (shapes_load(v->pair.control, &v->arena, &planned, e) < 0 ||
        source_catalog(v, &planned, source, e) < 0)
        return -1;
    for (size_t i = 0; i < source->n; i++) {
        struct table *t = table_list_find(&planned, table_label(source->v[i]));

        if (t && t->there)
            source->v[i] = t;
    }
    selection_there(&m->selection, source, &v->arena, &there);
    return catalog(m, false, &there, &v->arena, target, e);
}

/* The source's tables, less those that the target does not claim to follow. */
static int choose_tables(struct verifying *v, struct err *e)
{
    struct table_list source = {0};
    struct table_list target = {0};
    struct lane_list lanes;

    if (both_catalogs(v, &source, &target, e) < 0 ||
        lanes_load(v->pair.control, &v->arena, &lanes, e) < 0)
        return -1;
    v->subjects.v = arena_zalloc(&v->arena, (source.n + 1) * sizeof(*v->subjects.v));
    for (size_t i = 0; i < source.n; i++) {
        const struct table *t = source.v[i];
        const char *label = arena_strdup(&v->arena, table_label(t));
        const struct lane *lane = find_lane(&lanes, label);

        if (lane && lane->state != LANE_FOLLOWING) {
            emit_line(v, arena_printf(&v->arena, "%s: not compared: %s%s%s", label,
                                      lane_state_name(lane->state), lane->reason ? ": " : "",
                                      lane->reason ? lane->reason : ""));
            v->report->not_compared++;
        } else if (same_columns(v, t, table_list_find(&target, table_label(table_there(t))))) {
            add_subject(v, t);
        }
    }
    return 0;
}

static void views_of(const struct verifying *v, struct scan_view out[SCAN_SIDES])
{
    const struct pair *p = &v->pair;

    out[SCAN_SOURCE] =
        (struct scan_view){p->source.snapshot, p->source.snapshot ? NULL : p->source.holder};
    out[SCAN_TARGET] = (struct scan_view){p->target ? NULL : p->target_snapshot, p->target};
}

/* ---- first reading ---- */

static int compare_buckets(struct verifying *v, struct err *e)
{
    struct scan_view views[SCAN_SIDES];
    struct scanner s;
    int rc;

    views_of(v, views);
    rc = scanner_start(&s, v->r->m, &v->subjects, views, e);
    v->suspects = arena_alloc(&v->arena, (v->subjects.n + 1) * sizeof(*v->suspects));
    for (size_t i = 0; rc == 0 && i < v->subjects.n; i++) {
        struct suspect *suspect = &v->suspects[v->nsuspects];
        const struct bucket_set *sets[SCAN_SIDES];

        rc = scanner_get(&s, i, sets, e);
        if (rc < 0)
            break;
        v->report->rows += sets[SCAN_SOURCE]->rows;
        v->report->tables++;
        suspect->subject = &v->subjects.v[i];
        v->nsuspects += bucket_compare(sets[SCAN_SOURCE], sets[SCAN_TARGET], suspect->differs,
                                       &suspect->rows) > 0;
    }
    scanner_stop(&s);
    return rc;
}

/* ---- second reading ---- */

static bool to_source(const struct row *r, void *ctx)
{
    diff_source(ctx, r);
    return true;
}
static bool to_target(const struct row *r, void *ctx)
{
    diff_target(ctx, r);
    return true;
}

static int tell_suspect(struct verifying *v, const struct suspect *s, struct db *const ends[],
                        const struct scan_view views[], struct err *e)
{
    const struct table *t = s->subject->table;
    uint64_t passes = diff_passes(t, s->rows);
    struct diff *d = diff_new(t, s->differs, &v->out);
    const struct scan_rows rows[SCAN_SIDES] = {{to_source, d}, {to_target, d}};
    int rc = 0;

    for (uint64_t pass = 0; rc == 0 && pass < passes; pass++) {
        diff_pass(d, pass, passes);
        for (int side = 0; rc == 0 && side < SCAN_SIDES; side++)
            rc = scan_table(ends[side], s->subject, (enum scan_side)side, views[side].snapshot,
                            &rows[side], e);
        if (rc == 0)
            diff_end(d);
    }
    diff_free(d);
    return rc;
}

static int tell_suspects(struct verifying *v, struct err *e)
{
    struct db *ends[SCAN_SIDES] = {NULL, NULL};
    struct scan_view views[SCAN_SIDES];
    int rc = 0;

    if (v->nsuspects == 0)
        return 0;
    views_of(v, views);
    for (int side = 0; rc == 0 && side < SCAN_SIDES; side++)
        rc = scan_open(v->r->m, (enum scan_side)side, &views[side], &ends[side], e);
    for (size_t i = 0; rc == 0 && i < v->nsuspects; i++) {
        uint64_t before = v->out.differences;

        rc = tell_suspect(v, &v->suspects[i], ends, views, e);
        /* Hashes differ, so something must have been told. */
        invariant(rc < 0 || v->out.differences > before);
    }
    for (int side = 0; side < SCAN_SIDES; side++)
        scan_close(&views[side], ends[side]);
    return rc;
}

/* ---- all of it ---- */

static int check_loaded(struct verifying *v, struct err *e)
{
    enum load_phase load;

    if (load_phase_get(v->pair.control, &load, e) < 0)
        return -1;
    if (load >= LOAD_LOADED)
        return 0;
    err_set(e, ERR_RETRY, "the tables are still being copied; there is nothing to compare yet");
    return err_hint(e, "lockstep status tells how far it is");
}

static int open_control(struct verifying *v, struct err *e)
{
    struct db *control = NULL;
    int rc;

    if (migration_open_target(v->r->m, DB_CONTROL, &control, e) < 0)
        return -1;
    v->pair.control = control;
    rc = check_loaded(v, e);
    control->engine->close(control);
    v->pair.control = NULL;
    return rc;
}

int verify_run(const struct verify_request *r, struct verify_report *out, struct err *e)
{
    struct verifying v = {.r = r, .report = out, .out = {r->emit, r->ctx, 0, r->m->back}};
    int64_t begun = mono_ms();
    int rc = -1;

    memset(out, 0, sizeof(*out));
    if (open_control(&v, e) < 0 || pair_take(&v.pair, r->m, r->given_up, e) < 0 ||
        r->still(r->still_ctx, e) < 0 || choose_tables(&v, e) < 0)
        goto out;
    r->m->source.engine->position_text(v.pair.source.next, out->position, sizeof(out->position));
    if (compare_buckets(&v, e) < 0 || tell_suspects(&v, e) < 0)
        goto out;
    rc = 0;
out:
    out->differences = v.out.differences;
    out->took_ms = mono_ms() - begun;
    pair_release(&v.pair);
    arena_release(&v.arena);
    return rc;
}
