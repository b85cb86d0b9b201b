#include "core/log.h"
#include "snapshot/internal.h"

#include <string.h>

/* ---- planning ---- */

/* A table that is copied again has one cut: with several, a unique value that moved between two
 * chunks would meet itself on the target, whose unique indexes stand already. */
static int plan_ranges(struct conductor *c, const struct table *t, bool whole, struct arena *a,
                       struct range_list *out, struct err *e)
{
    if (whole) {
        out->v = arena_zalloc(a, sizeof(*out->v));
        out->n = 1;
        return 0;
    }
    if (c->source->engine->chunk_plan(c->source, t, c->m->chunk_bytes, c->holder != NULL, a, out,
                                      e) < 0)
        return err_wrap(e, "planning the chunks of %s", table_label(t));
    invariant(out->n > 0);
    return 0;
}

static int write_plan(struct conductor *c, const struct table *t, const struct range_list *ranges,
                      bool again, struct err *e)
{
    const struct engine *engine = c->target->engine;

    if (conductor_begin(c, e) < 0)
        return -1;
    /* The truncation comes first: it waits for a worker that is still loading a chunk of the old
     * plan, whose ledger line is then found done, and goes. */
    if ((again && engine->truncate(c->target, &t, 1, false, e) < 0) ||
        ledger_plan(c->target, t, ranges, c->holder != NULL, e) < 0) {
        engine->rollback(c->target, NULL);
        return -1;
    }
    return engine->commit(c->target, e);
}

static int plan_table(struct conductor *c, const struct table *t, bool whole, bool again,
                      struct err *e)
{
    struct arena a = ARENA_INIT;
    struct range_list ranges;
    int status = plan_ranges(c, t, whole, &a, &ranges, e);

    if (status == 0)
        status = write_plan(c, t, &ranges, again, e);
    if (status == 0)
        log_event(LOG_INFO, "snapshot", "planned", "table=%s chunks=%zu common=%d", table_label(t),
                  ranges.n, c->holder != NULL);
    arena_release(&a);
    return status;
}

int load_plan(struct conductor *c, const struct table *t, bool again, struct err *e)
{
    return plan_table(c, t, false, again, e);
}

/* ---- the common cut is gone ---- */

static bool has_unfinished_blocks(const struct chunk_list *chunks)
{
    bool blocks = false;
    bool unfinished = false;

    for (size_t i = 0; i < chunks->n; i++) {
        blocks = blocks || chunks->v[i].range.kind == RANGE_BLOCKS;
        unfinished = unfinished || chunks->v[i].state != CHUNK_DONE;
    }
    return blocks && unfinished;
}

int load_without_common(struct conductor *c, const struct table_list *tables, struct err *e)
{
    struct arena a = ARENA_INIT;
    int status = 0;

    invariant(c->holder == NULL);
    log_event(LOG_WARN, "snapshot", "common-cut-gone",
              "the snapshot that all chunks shared is gone; the rest get cuts of their own");
    for (size_t i = 0; status == 0 && i < tables->n; i++) {
        struct chunk_list chunks;

        status = ledger_load(c->target, table_label(tables->v[i]), &a, &chunks, e);
        if (status == 0 && has_unfinished_blocks(&chunks))
            status = load_plan(c, tables->v[i], true, e);
        arena_reset(&a);
    }
    arena_release(&a);
    /* Last: until then a new conductor does all of this again. */
    return status < 0 ? -1 : stream_fact_forget_snapshot(c->target, e);
}

static int replan(struct conductor *c, const struct table *t, struct err *e)
{
    struct db *holder = c->holder;
    int status;

    c->holder = NULL;
    status = load_plan(c, t, true, e);
    c->holder = holder;
    return status;
}

int load_replans(struct conductor *c, const struct table_list *tables, struct err *e)
{
    static const char prefix[] = "replan/";
    struct fact *facts;
    size_t n;
    int status = 0;

    if (c->target->engine->fact_scan(c->target, "request", prefix, &facts, &n, e) < 0)
        return -1;
    for (size_t i = 0; status == 0 && i < n; i++) {
        const struct table *t = table_list_find(tables, facts[i].key + sizeof(prefix) - 1);

        if (t) {
            log_event(LOG_WARN, "snapshot", "table-rewritten", "table=%s", table_label(t));
            status = replan(c, t, e);
        }
        if (status == 0)
            status = request_clear(c->target, facts[i].key, e);
    }
    facts_release(facts, n);
    return status < 0 ? -1 : n > 0;
}

/* ---- progress ---- */

int load_progress(struct conductor *c, const struct table_list *tables, struct arena *a,
                  bool **loaded, size_t *nloaded, struct err *e)
{
    *loaded = arena_zalloc(a, tables->n + 1);
    *nloaded = 0;
    for (size_t i = 0; i < tables->n; i++) {
        const char *label = arena_strdup(a, table_label(tables->v[i]));
        struct chunk_list chunks;
        struct table_fact line;
        size_t done = 0;

        if (table_fact_load(c->target, label, a, &line, e) < 0 ||
            ledger_load(c->target, label, a, &chunks, e) < 0)
            return -1;
        for (size_t j = 0; j < chunks.n; j++) {
            if (chunks.v[j].state == CHUNK_DONE && chunks.v[j].range.kind != RANGE_POINT)
                done++;
        }
        (*loaded)[i] = line.nchunks > 0 && done == line.nchunks;
        *nloaded += (*loaded)[i] ? 1 : 0;
    }
    return 0;
}

int load_past(struct conductor *c, struct arena *a, struct position *past, struct err *e)
{
    struct chunk_list chunks;

    if (ledger_load(c->target, "", a, &chunks, e) < 0)
        return -1;
    *past = (struct position){0, 0};
    for (size_t i = 0; i < chunks.n; i++) {
        if (chunks.v[i].state == CHUNK_DONE && position_cmp(chunks.v[i].cut.past, *past) > 0)
            *past = chunks.v[i].cut.past;
    }
    return 0;
}

/* ---- copying again ---- */

/* How long a long transaction of the source may hold a re-copy up before the step gives way. */
#define SETTLE_MS 20000

/* Does capture still go by the shape that the table had (apply/reshape.c)? 1, 0, -1. */
static int is_reshaping(struct conductor *c, const char *label, struct err *e)
{
    struct arena a = ARENA_INIT;
    const char *key = arena_printf(&a, REQUEST_RESHAPE "%s", label);
    json_t *body = NULL;
    int found = fact_read(c->target, "request", key, &body, NULL, e);

    json_decref(body);
    arena_release(&a);
    return found;
}

/* What apply has read lies before the cuts that are taken behind a settling of the source. So does
 * all that may have been trimmed while capture was asked for the shape (run/janitor.c). */
static int note_settled(struct conductor *c, struct table_fact *line, struct err *e)
{
    struct checkpoint at;

    if (checkpoint_load(c->target, "forward", &at, e) < 0 || conductor_begin(c, e) < 0)
        return -1;
    line->settled = at.record;
    if (table_fact_store(c->target, line, e) < 0) {
        c->target->engine->rollback(c->target, NULL);
        return -1;
    }
    return c->target->engine->commit(c->target, e);
}

/* 1: planned; 0: not to be planned now; -1. */
static int recopy(struct conductor *c, const struct table *t, struct err *e)
{
    struct arena a = ARENA_INIT;
    const char *label = arena_strdup(&a, table_label(t));
    struct table_fact line;
    int status = table_fact_load(c->target, label, &a, &line, e);

    if (status >= 0)
        status = line.nchunks ? 1 : is_reshaping(c, label, e);
    if (status == 0 && note_settled(c, &line, e) < 0)
        status = -1;
    arena_release(&a);
    if (status)
        return status < 0 ? -1 : 0;
    /* The new cut must see all that the lane had applied when it was taken off the stream. */
    if (c->source->engine->settle(c->source, SETTLE_MS, e) < 0)
        return -1;
    return plan_table(c, t, true, true, e) < 0 ? -1 : 1;
}

int load_recopies(struct conductor *c, struct err *e)
{
    struct arena a = ARENA_INIT;
    struct table_list tables = {0};
    struct lane_list lanes;
    int status = lanes_load(c->target, &a, &lanes, e);

    /* The load is done, though its last commit's answer may have been lost and the holder be there
     * still: under the common cut a table would come back older than what was applied to it. */
    if (c->holder)
        c->holder->engine->close(c->holder);
    c->holder = NULL;
    for (size_t i = 0; status == 0 && i < lanes.n; i++) {
        const struct table *t;

        if (lanes.v[i].state != LANE_LOADING)
            continue;
        if (!tables.n && shapes_load(c->target, &a, &tables, e) < 0) {
            status = -1;
            break;
        }
        t = table_list_find(&tables, lanes.v[i].label);
        status = t ? recopy(c, t, e) : 0;
    }
    arena_release(&a);
    return status;
}
