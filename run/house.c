#include "run/house.h"

#include "core/log.h"
#include "core/run.h"
#include "run/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SOURCE_RETRY_MS 5000
#define STATUS_MS 3000
#define STATUS_DEAD_MS 60000
#define STATUS_KEY_MAX (HOLDER_MAX + 20)
#define LINE_TTY_MS 5000
#define LINE_CALM_MS 30000
#define RATE_MS 5000

void house_init(struct house *h, const struct migration *m, unsigned stages, bool progress)
{
    memset(h, 0, sizeof(*h));
    h->m = m;
    h->stages = stages;
    h->progress = progress;
    h->lag_ms = -1;
    h->rate = UNKNOWN_COUNT;
}

static void close_source(struct house *h)
{
    if (h->source)
        h->source->engine->close(h->source);
    h->source = NULL;
}

void house_release(struct house *h)
{
    close_source(h);
}

int house_finish_asked(struct db *target, bool *out, struct err *e)
{
    json_t *body;

    if (fact_read(target, "request", "finish", &body, NULL, e) < 0)
        return -1;
    *out = body != NULL;
    json_decref(body);
    return 0;
}

/* ---- the source's position ---- */

static void source_failed(struct house *h, const struct err *e)
{
    snprintf(h->source_trouble, sizeof(h->source_trouble), "%.*s",
             (int)sizeof(h->source_trouble) - 1, e->msg);
    close_source(h);
    h->next_source = mono_ms() + SOURCE_RETRY_MS;
}

/* True if p was read. The stages report what ails the source; here it is only not known. */
static bool source_position(struct house *h, struct position *p)
{
    struct err e = {0};

    if (!h->source) {
        if (mono_ms() < h->next_source)
            return false;
        if (migration_open_source(h->m, DB_CONTROL, &h->source, &e) < 0) {
            source_failed(h, &e);
            return false;
        }
    }
    if (h->source->engine->current_position(h->source, p, &e) < 0) {
        source_failed(h, &e);
        return false;
    }
    return true;
}

/* When apply stands where the source stood before we began to look: the age of the last
 * transaction that it applied, by the source's clock. */
static int64_t lag_by_commit(struct house *h, const struct checkpoint *c)
{
    struct err e = {0};
    int64_t now;

    if (c->ts_us == 0 || !h->source)
        return -1;
    if (h->source->engine->clock_ms(h->source, &now, &e) < 0) {
        source_failed(h, &e);
        return -1;
    }
    return now > c->ts_us / 1000 ? now - c->ts_us / 1000 : 0;
}

static void sample(struct house *h, const struct checkpoint *c)
{
    struct position p;

    if (source_position(h, &p)) {
        if (h->nsamples == HOUSE_SAMPLES)
            memmove(h->samples, h->samples + 1, --h->nsamples * sizeof(h->samples[0]));
        h->samples[h->nsamples++] = (struct lag_sample){p, mono_ms()};
    }
    h->lag_ms = -1;
    if (c->version == FACT_ABSENT)
        return;
    h->lag_ms = observe_lag_ms(h->samples, h->nsamples, c->next, mono_ms());
    if (h->lag_ms < 0 && h->nsamples)
        h->lag_ms = lag_by_commit(h, c);
}

/* ---- caught up ---- */

/* Every lane that is not parked follows. */
static bool lanes_settled(struct house *h, const struct lane_list *lanes)
{
    h->parked = false;
    for (size_t i = 0; i < lanes->n; i++) {
        if (lanes->v[i].state == LANE_PARKED)
            h->parked = true;
        else if (lanes->v[i].state != LANE_FOLLOWING)
            return false;
    }
    return lanes->n > 0;
}

/* An idle source says nothing by itself for half a minute: the marker makes the stream pass. */
static bool mark_source(struct house *h)
{
    struct err e = {0};

    if (h->source->engine->mark(h->source, "caught-up", &e) == 0)
        return true;
    source_failed(h, &e);
    return false;
}

static int look_caught_up(struct house *h, struct db *target, const struct checkpoint *c,
                          const struct lane_list *lanes, struct err *e)
{
    enum load_phase load;

    if (h->reached || !lanes_settled(h, lanes) || c->version == FACT_ABSENT)
        return 0;
    if (!h->marked) {
        h->marked = source_position(h, &h->until) && mark_source(h);
        return 0;
    }
    if (load_phase_get(target, &load, e) < 0)
        return -1;
    /* A parked lane may be what keeps the last constraints from being built. */
    if (position_cmp(c->next, h->until) < 0 || (load != LOAD_DONE && !h->parked))
        return 0;
    h->reached = true;
    log_event(LOG_INFO, "run", "caught-up", "parked=%d", h->parked);
    return fact_write(target, "status", "caught_up", json_pack("{s:b}", "reached", 1), e);
}

int house_hurry(struct house *h, struct db *target, struct err *e)
{
    struct arena a = ARENA_INIT;
    struct checkpoint c;
    struct lane_list lanes;
    int rc = -1;

    if (checkpoint_load(target, "forward", &c, e) >= 0 && lanes_load(target, &a, &lanes, e) == 0)
        rc = look_caught_up(h, target, &c, &lanes, e);
    arena_release(&a);
    return rc;
}

bool house_caught_up(const struct house *h, bool *parked)
{
    *parked = h->parked;
    return h->reached;
}

/* ---- loaded ---- */

static int look_loaded(struct house *h, struct db *target, const struct lane_list *lanes,
                       struct err *e)
{
    enum load_phase load;
    struct fact *asked;
    size_t n;

    if (load_phase_get(target, &load, e) < 0 ||
        target->engine->fact_scan(target, "request", "recopy/", &asked, &n, e) < 0)
        return -1;
    facts_release(asked, n);
    h->loaded = load == LOAD_DONE && n == 0;
    for (size_t i = 0; i < lanes->n; i++)
        h->loaded = h->loaded && lanes->v[i].state != LANE_LOADING;
    return 0;
}

/* ---- status ---- */

static void measure_rate(struct house *h, struct stage *stages, size_t n)
{
    uint64_t bytes = 0;
    int64_t now = mono_ms();

    for (size_t i = 0; i < n; i++)
        bytes += stage_bytes(&stages[i]);
    if (h->bytes_at == 0 || bytes < h->bytes) {
        h->bytes_at = now;
        h->bytes = bytes;
        return;
    }
    if (now - h->bytes_at < RATE_MS)
        return;
    h->rate = (int64_t)((bytes - h->bytes) * 1000 / (uint64_t)(now - h->bytes_at));
    h->bytes_at = now;
    h->bytes = bytes;
}

json_t *house_stages_json(struct stage *stages, size_t n)
{
    json_t *all = json_object();

    for (size_t i = 0; i < n; i++) {
        struct err trouble;
        int64_t since;

        stage_trouble(&stages[i], &trouble, &since);
        if (!since)
            continue;
        json_object_set_new(all, stages[i].ops->name,
                            json_pack("{s:s, s:I}", "error", trouble.msg, "for_s",
                                      (json_int_t)((mono_ms() - since) / 1000)));
    }
    return all;
}

/* Each process has a fact of its own; observe/ puts them together. */
static const char *status_key(const struct house *h, char *out, size_t size)
{
    snprintf(out, size, "process/%s", h->m->holder);
    return out;
}

/* What killed processes left behind, so that the facts do not become ever more. */
static int sweep_status(struct db *target, int64_t now, struct err *e)
{
    struct fact *facts;
    size_t n;
    int rc = 0;

    if (target->engine->fact_scan(target, "status", "process/", &facts, &n, e) < 0)
        return -1;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        if (fact_int(facts[i].body, "at_ms", 0) < now - STATUS_DEAD_MS)
            rc = target->engine->fact_delete(target, "status", facts[i].key, e);
    }
    facts_release(facts, n);
    return rc;
}

static int write_status(struct house *h, struct db *target, struct stage *stages, size_t n,
                        struct err *e)
{
    char key[STATUS_KEY_MAX];
    json_t *body;
    int64_t now;

    if (mono_ms() < h->next_status)
        return 0;
    h->next_status = mono_ms() + STATUS_MS;
    if (target->engine->clock_ms(target, &now, e) < 0)
        return -1;
    if (!h->swept && sweep_status(target, now, e) < 0)
        return -1;
    h->swept = true;
    body = json_pack("{s:s, s:I, s:o, s:I, s:I}", "holder", h->m->holder, "at_ms", (json_int_t)now,
                     "stages", house_stages_json(stages, n), "lag_ms", (json_int_t)h->lag_ms,
                     "rate", (json_int_t)h->rate);
    return fact_write(target, "status", status_key(h, key, sizeof(key)), body, e);
}

void house_farewell(struct house *h, struct db *target)
{
    char key[STATUS_KEY_MAX];
    struct err ignored;

    target->engine->fact_delete(target, "status", status_key(h, key, sizeof(key)), &ignored);
}

/* ---- progress ---- */

static int print_progress(struct house *h, struct db *target, struct err *e)
{
    struct observe_ends ends = {h->m, target, h->source, h->source_trouble, NULL, holder_is_dead};
    int64_t every = isatty(STDERR_FILENO) ? LINE_TTY_MS : LINE_CALM_MS;
    struct observation o;
    struct arena a = ARENA_INIT;
    struct buf line;
    int rc;

    if (!h->progress || mono_ms() < h->next_line)
        return 0;
    buf_init(&line, 1 << 16);
    rc = observe(&ends, &a, &o, e);
    if (rc == 0) {
        observe_line(&o, &line);
        log_event(LOG_INFO, "run", "progress", "%s", line.data);
        snprintf(h->phase, sizeof(h->phase), "%s", o.phase ? o.phase : "");
        h->next_line = mono_ms() + every;
    }
    buf_release(&line);
    arena_release(&a);
    return rc;
}

int house_tend(struct house *h, struct db *target, struct stage *stages, size_t n, struct err *e)
{
    struct arena a = ARENA_INIT;
    struct checkpoint c;
    struct lane_list lanes;
    int rc = -1;

    if (checkpoint_load(target, "forward", &c, e) < 0 || lanes_load(target, &a, &lanes, e) < 0)
        goto out;
    measure_rate(h, stages, n);
    if (h->stages & RUN_APPLY) {
        sample(h, &c);
        if (look_caught_up(h, target, &c, &lanes, e) < 0)
            goto out;
    }
    if ((h->stages & RUN_SNAPSHOT) && look_loaded(h, target, &lanes, e) < 0)
        goto out;
    if (write_status(h, target, stages, n, e) < 0 || print_progress(h, target, e) < 0)
        goto out;
    rc = 0;
out:
    arena_release(&a);
    return rc;
}
