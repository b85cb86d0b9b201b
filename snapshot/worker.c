/* A worker copies chunks: claim, read under a cut, load, and write the ledger's line in the
 * transaction of the rows. A crash costs the chunks in flight. When no chunk is left it runs a
 * schema step that is ready. */
#include "core/log.h"
#include "core/run.h"
#include "snapshot/internal.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* A claim is renewed at a third of this; a dead worker's chunk waits no longer for another. */
#define CLAIM_MS 15000

struct worker {
    const struct migration *m;
    int number;
    struct db *control;
    struct db *source; /* DB_READ */
    struct db *load;   /* DB_LOAD */
    struct db *schema;
    struct arena arena; /* of work, shapes */
    struct chunk_list work;
    size_t next;
    struct table_list shapes;
    struct stream_fact stream;
    bool snapshot_dead; /* the common one could not be imported */
    bool again;         /* the load is done: what is copied now is copied again */
    int64_t renewed_ms;
    atomic_ullong bytes;
};

struct worker *worker_open(const struct migration *m, int number)
{
    struct worker *w = calloc(1, sizeof(*w));

    invariant(w != NULL);
    w->m = m;
    w->number = number;
    return w;
}

uint64_t worker_bytes(const struct worker *w)
{
    return atomic_load(&w->bytes);
}

static void close_db(struct db **db)
{
    if (*db)
        (*db)->engine->close(*db);
    *db = NULL;
}

static void disconnect(struct worker *w)
{
    close_db(&w->control);
    close_db(&w->source);
    close_db(&w->load);
    close_db(&w->schema);
    arena_release(&w->arena);
    w->work.n = 0;
    w->next = 0;
}

void worker_close(struct worker *w)
{
    if (!w)
        return;
    disconnect(w);
    free(w);
}

/* ---- copying ---- */

/* What one worker may read, so that all together keep to max_rate. */
static void throttle(const struct worker *w, uint64_t copied, int64_t begin_ms)
{
    uint64_t rate = w->m->max_rate / (uint64_t)(w->m->workers > 0 ? w->m->workers : 1);
    int64_t due;

    if (!w->m->max_rate)
        return;
    due = begin_ms + (int64_t)(copied * 1000 / (rate ? rate : 1));
    if (due > mono_ms())
        nap_ms((int)(due - mono_ms()));
}

static int renew(struct worker *w, struct chunk *c, struct err *e)
{
    if (mono_ms() - w->renewed_ms < CLAIM_MS / 3)
        return 0;
    w->renewed_ms = mono_ms();
    return ledger_renew(w->control, c, CLAIM_MS, e);
}

static int copy_blocks(struct worker *w, struct chunk *c, struct err *e)
{
    int64_t begin = mono_ms();
    struct block block;
    int got;

    while ((got = w->source->engine->read_next(w->source, &block, e)) > 0) {
        if (w->load->engine->load_block(w->load, &block, e) < 0)
            return err_wrap(e, "loading");
        c->bytes += block.len;
        atomic_fetch_add(&w->bytes, block.len);
        throttle(w, c->bytes, begin);
        if (renew(w, c, e) < 0 || stop_check(e) < 0)
            return -1;
    }
    return got;
}

/* Reading has begun under `cut`: the rows and the ledger's line, in one transaction. */
static int copy_rows(struct worker *w, struct chunk *c, const struct table *t,
                     const struct cut *cut, struct err *e)
{
    const struct engine *engine = w->load->engine;
    enum block_format format = migration_is_native(w->m) ? BLOCK_NATIVE : BLOCK_ROWS;
    uint64_t read = 0;
    uint64_t loaded = 0;

    if (engine->begin(w->load, e) < 0 || engine->load_begin(w->load, t, format, e) < 0)
        return -1;
    if (copy_blocks(w, c, e) < 0 || engine->load_end(w->load, &loaded, e) < 0 ||
        w->source->engine->read_end(w->source, &read, e) < 0)
        return -1;
    if (read != loaded)
        return err_set(e, ERR_FATAL, "the source gave %llu rows, the target took %llu",
                       (unsigned long long)read, (unsigned long long)loaded);
    c->rows = loaded;
    if (ledger_done(w->load, c, cut, e) < 0)
        return -1;
    return engine->commit(w->load, e);
}

static const char *snapshot_for(const struct worker *w, const struct chunk *c)
{
    return c->common && !w->snapshot_dead ? w->stream.snapshot : NULL;
}

/* 1 copied, 0 not now, -1. */
static int copy_claimed(struct worker *w, struct chunk *c, const struct table *t, struct arena *a,
                        struct err *e)
{
    struct read_request request = {.table = t,
                                   .range = c->range,
                                   .snapshot = snapshot_for(w, c),
                                   .format = migration_is_native(w->m) ? BLOCK_NATIVE : BLOCK_ROWS};
    struct cut cut = {0};
    uint64_t rows;

    if (w->source->engine->read_begin(w->source, &request, a, &cut, e) < 0) {
        if (request.snapshot && e->class == ERR_CONFLICT) {
            /* Rewritten or truncated: its rows of the common cut are gone for good. */
            const char *name = arena_printf(a, "replan/%s", c->table);

            if (request_put(w->control, name, json_object(), e) < 0)
                return -1;
            close_db(&w->source);
            return 0;
        }
        if (request.snapshot && e->class == ERR_DATA) {
            /* Its holder is gone: this chunk gets a cut of its own, or is planned anew. */
            w->snapshot_dead = true;
            close_db(&w->source);
            return 0;
        }
        return err_wrap(e, "reading");
    }
    if (request.snapshot && strcmp(cut.text, w->stream.cut.text) != 0) {
        /* Another snapshot of the same name (the server was restarted): not the common one. */
        w->snapshot_dead = true;
        return w->source->engine->read_end(w->source, &rows, e);
    }
    return copy_rows(w, c, t, &cut, e) < 0 ? -1 : 1;
}

static int copy_chunk(struct worker *w, struct chunk *c, struct err *e)
{
    const struct table *t = table_list_find(&w->shapes, c->table);
    struct arena a = ARENA_INIT;
    int status;

    invariant(t != NULL);
    w->renewed_ms = mono_ms();
    c->rows = 0;
    c->bytes = 0;
    status = copy_claimed(w, c, t, &a, e);
    if (status < 0) {
        struct buf where;

        buf_init(&where, 400);
        range_print(&where, &c->range);
        err_wrap(e, "chunk %s (%s)", c->key, where.data ? where.data : "");
        buf_release(&where);
        close_db(&w->source);
        close_db(&w->load);
    }
    if (status <= 0 && c->state == CHUNK_CLAIMED)
        ledger_unclaim(w->control, c, NULL);
    if (status > 0)
        log_event(LOG_DEBUG, "snapshot", "chunk", "chunk=%s rows=%llu bytes=%llu", c->key,
                  (unsigned long long)c->rows, (unsigned long long)c->bytes);
    arena_release(&a);
    return status;
}

/* ---- finding work ---- */

/* Reads the ledger, the plan and the common cut anew. */
static int look(struct worker *w, struct err *e)
{
    const char *snapshot;
    bool changed;

    arena_reset(&w->arena);
    w->next = 0;
    w->work.n = 0;
    if (ledger_load(w->control, "", &w->arena, &w->work, e) < 0 ||
        shapes_load(w->control, &w->arena, &w->shapes, e) < 0)
        return -1;
    snapshot = w->stream.snapshot;
    changed = !snapshot;
    if (stream_fact_load(w->control, &w->arena, &w->stream, e) < 0)
        return -1;
    if (changed)
        w->snapshot_dead = false;
    return 0;
}

/* Block ranges mean nothing outside the common cut: the conductor plans such a table anew. */
static bool can_copy(const struct worker *w, const struct chunk *c)
{
    return c->state != CHUNK_DONE && (c->range.kind != RANGE_BLOCKS || snapshot_for(w, c) != NULL);
}

static int open_ends(struct worker *w, struct err *e)
{
    if (!w->source && migration_open_source(w->m, DB_READ, &w->source, e) < 0)
        return -1;
    if (!w->load && migration_open_target(w->m, DB_LOAD, &w->load, e) < 0)
        return -1;
    return 0;
}

static int next_chunk(struct worker *w, struct err *e)
{
    if (w->next >= w->work.n && look(w, e) < 0)
        return -1;
    while (w->next < w->work.n) {
        struct chunk *c = &w->work.v[w->next++];
        int claimed;

        if (!can_copy(w, c))
            continue;
        claimed = ledger_claim(w->control, c, w->m->holder, CLAIM_MS, e);
        if (claimed < 0)
            return -1;
        if (!claimed)
            continue;
        if (open_ends(w, e) < 0) {
            ledger_unclaim(w->control, c, NULL);
            return -1;
        }
        return copy_chunk(w, c, e);
    }
    return 0;
}

/* In the load a table that cannot be copied ends it. One that is copied again has trouble of its
 * own (a column is gone, say): the others go on, and status tells. */
static void contain(const struct worker *w, struct err *e)
{
    if (w->again && (e->class == ERR_FATAL || e->class == ERR_DATA || e->class == ERR_CONFLICT ||
                     e->class == ERR_REFUSED))
        e->class = ERR_RETRY;
}

/* What may there be to do? */
struct outlook {
    bool chunks;
    bool steps;
};

static int is_copying_again(struct worker *w, bool *out, struct err *e)
{
    struct arena a = ARENA_INIT;
    struct lane_list lanes;
    int status = lanes_load(w->control, &a, &lanes, e);

    *out = false;
    for (size_t i = 0; status == 0 && i < lanes.n; i++)
        *out = *out || lanes.v[i].state == LANE_LOADING;
    arena_release(&a);
    return status;
}

/* An idle worker must not read a ledger of many thousand lines again and again. */
static int look_ahead(struct worker *w, struct outlook *out, struct err *e)
{
    enum load_phase phase = LOAD_NONE;
    bool exists;

    *out = (struct outlook){false, false};
    if (!w->control && migration_open_target(w->m, DB_CONTROL, &w->control, e) < 0)
        return -1;
    if (w->control->engine->control_exists(w->control, &exists, e) < 0)
        return -1;
    if (exists && load_phase_get(w->control, &phase, e) < 0)
        return -1;
    out->steps = phase >= LOAD_PLANNED && phase < LOAD_DONE;
    out->chunks = phase == LOAD_PLANNED;
    w->again = phase > LOAD_PLANNED;
    return phase > LOAD_PLANNED ? is_copying_again(w, &out->chunks, e) : 0;
}

static int step(struct worker *w, struct err *e)
{
    struct outlook outlook = {.chunks = true, .steps = true};
    int status = 0;

    if (w->next >= w->work.n && look_ahead(w, &outlook, e) < 0)
        return -1;
    if (outlook.chunks)
        status = next_chunk(w, e);
    if (status < 0)
        contain(w, e);
    if (status == 0 && outlook.steps)
        status = steps_run_one(w->m, w->control, &w->schema, false, e);
    return status;
}

enum step_result worker_step(struct worker *w, struct err *e)
{
    int status = step(w, e);

    /* Another worker has our claim: it does the chunk. */
    if (status < 0 && e->class == ERR_FENCED)
        e->class = ERR_RETRY;
    if (status < 0)
        disconnect(w);
    return (enum step_result)status;
}
