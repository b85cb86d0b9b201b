/* The quiet pair, compared (correctness.md C14): between the drain and the seal the closing side is
 * fenced and apply has passed its marker, so both sides hold the same rows, or something is wrong
 * that no position tells. Small tables first, as many as fit into a share of what is left of the
 * pause; which were left out is in the record. A difference undoes the switch: had the lease lapsed
 * unseen and somebody written since, it costs another try.
 *
 * A table's digest is how many rows it has and the sum of their hashes, over the text that its
 * values have on every server (core/data.h). JSON is left out where a server puts it into a form of
 * its own. The hash is no proof against somebody who wants two tables to look alike: verify's is.
 *
 * Reads on connections of its own: one that is broken off in the middle of a table may be lost. */
#include "cutover/internal.h"
#include "core/log.h"
#include "control/foreign.h"
#include "core/run.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* By the estimates of the plan. */
#define ROWS_MAX 20000
#define BYTES_MAX (UINT64_C(4) * 1024 * 1024)
/* Rows between two looks at the clock. */
#define LOOK_EVERY 128
/* The longest that one of its reads may take. */
#define READ_MS 500
/* One may be slow because the machine stood still. */
#define READ_TRIES 2

struct digest {
    uint64_t rows;
    uint64_t sum[2];
};

/* ---- a row ---- */

static uint64_t mix(uint64_t h)
{
    h ^= h >> 30;
    h *= UINT64_C(0xBF58476D1CE4E5B9);
    h ^= h >> 27;
    h *= UINT64_C(0x94D049BB133111EB);
    return h ^ (h >> 31);
}

/* Blanks at the end do not count between engines: the one's character(n) has them, what the other
 * calls it need not. */
static size_t counted(const struct value *v, const struct column *c, bool blanks)
{
    size_t n = v->len;

    while (!blanks && c->kind == TYPE_TEXT && n > 0 && v->data[n - 1] == ' ')
        n--;
    return n;
}

static uint64_t hash_row(const struct row *r, const struct table *t, bool blanks, uint64_t seed)
{
    uint64_t h = seed;

    for (size_t i = 0; i < r->n; i++) {
        const struct value *v = &r->v[i];

        if (t->columns[i].generated)
            continue;
        size_t n = v->state == VALUE_SET ? counted(v, &t->columns[i], blanks) : 0;

        h = mix(h + (v->state == VALUE_NULL ? 1 : 2 + n));
        for (size_t k = 0; k < n; k++)
            h = (h ^ (unsigned char)v->data[k]) * UINT64_C(0x100000001B3);
    }
    return mix(h);
}

/* The sum, so that the order of the rows does not matter and equal ones count. */
static void add_row(struct digest *d, const struct row *r, const struct table *source, bool blanks)
{
    d->rows++;
    d->sum[0] += hash_row(r, source, blanks, UINT64_C(0xCBF29CE484222325));
    d->sum[1] += hash_row(r, source, blanks, UINT64_C(0x9E3779B97F4A7C15));
}

/* ---- a table ---- */

/* 1: read; 0: the time was up; -1. `t`: as this side calls it. */
static int read_side(struct db *db, const struct table *t, const struct table *source, bool blanks,
                     int64_t deadline, struct digest *out, struct err *e)
{
    const struct row *r;
    int rc;

    memset(out, 0, sizeof(*out));
    if (db->engine->scan_begin(db, t, NULL, NULL, 0, e) < 0)
        return -1;
    while ((rc = db->engine->scan_next(db, &r, e)) > 0) {
        add_row(out, r, source, blanks);
        if (out->rows % LOOK_EVERY == 0 && mono_ms() >= deadline) {
            (void)db->engine->scan_end(db, NULL);
            return 0;
        }
    }
    return rc < 0 || db->engine->scan_end(db, e) < 0 ? -1 : 1;
}

static bool is_fit(const struct cutover *c, const struct table *t)
{
    bool own_form = c->closing->engine->normalizes_json || c->opening->engine->normalizes_json ||
                    c->closing->engine != c->opening->engine;

    if (t->rows > ROWS_MAX || t->bytes > BYTES_MAX)
        return false;
    for (size_t i = 0; i < t->ncolumns; i++) {
        /* Computed by each server as it thinks right. */
        if (t->columns[i].generated != table_there(t)->columns[i].generated ||
            (own_form && t->columns[i].kind == TYPE_JSON))
            return false;
    }
    return true;
}

static int differs(const struct table *t, const struct digest *here, const struct digest *there,
                   struct err *e)
{
    if (here->rows != there->rows)
        err_set(e, ERR_CONFLICT,
                "%s differs though both sides are quiet: %" PRIu64 " rows on the side that closes, "
                "%" PRIu64 " on the other",
                table_label(t), here->rows, there->rows);
    else
        err_set(e, ERR_CONFLICT,
                "%s differs though both sides are quiet: %" PRIu64 " rows on either, with other "
                "values",
                table_label(t), here->rows);
    return err_hint(
        e, "lockstep verify names the rows, lockstep tables recopy NAME copies the table anew; "
           "--accept-foreign if they may stay as they are");
}

/* As read_side. */
static int compare(struct cutover *c, const struct table *t, int64_t deadline, bool quiet,
                   struct digest *sum, struct err *e)
{
    struct digest here;
    struct digest there;
    bool blanks = c->closing->engine == c->opening->engine;
    int rc = read_side(c->reading[0], t, t, blanks, deadline, &here, e);

    if (rc > 0)
        rc = read_side(c->reading[1], table_there(t), t, blanks, deadline, &there, e);
    if (rc <= 0)
        return rc;
    if (quiet && (here.rows != there.rows || memcmp(here.sum, there.sum, sizeof(here.sum)) != 0))
        return differs(t, &here, &there, e);
    sum->rows += here.rows;
    sum->sum[0] = mix(sum->sum[0] + here.sum[0]);
    sum->sum[1] = mix(sum->sum[1] + here.sum[1]);
    return 1;
}

/* ---- all of them ---- */

static int by_size(const void *x, const void *y)
{
    const struct table *const *a = x;
    const struct table *const *b = y;

    if ((*a)->bytes != (*b)->bytes)
        return (*a)->bytes < (*b)->bytes ? -1 : 1;
    return (*a)->rows < (*b)->rows ? -1 : (*a)->rows > (*b)->rows;
}

/* Has somebody said that what was written past a seal may stay there? If that is not known, the
 * switch does not wait to know. */
static bool differs_for_good(struct cutover *c)
{
    struct db *sides[2] = {c->closing, c->opening};
    bool accepted = false;

    for (int i = 0; i < 2; i++) {
        struct foreign_seen seen = {0};
        struct err e = {0};
        bool exists = false;

        if (sides[i]->engine->control_exists(sides[i], &exists, &e) < 0 ||
            (exists && foreign_load(sides[i], &seen, &e) < 0))
            return true;
        accepted = accepted || seen.acknowledged > 0;
        json_decref(seen.body);
    }
    return accepted;
}

/* A read that takes longer is not worth the pause. */
static int open_reading(const struct cutover *c, const struct endpoint *end, struct db **out,
                        struct err *e)
{
    struct db_options o = {.uri = end->uri,
                           .migration = c->r->m->name,
                           .use = DB_READ,
                           .fence = &c->r->m->fence,
                           .timeout_ms = READ_MS};

    return end->engine->open(&o, out, e);
}

void digest_open(struct cutover *c)
{
    struct err e = {0};

    /* Only a pair that is going to be quiet; and where foreign writes may stay behind, or were let
     * stay, the sides may differ. */
    if (c->r->digest_ms <= 0 || c->r->accept_foreign || c->reading[0] || c->r->rehearse ||
        c->r->stage != CUTOVER_STAGE_WRITES || differs_for_good(c))
        return;
    if (open_reading(c, &c->road.closing, &c->reading[0], &e) == 0 &&
        open_reading(c, &c->road.opening, &c->reading[1], &e) == 0)
        return;
    log_err(LOG_WARN, "cutover", "no-digest", &e);
    digest_close(c);
}

void digest_close(struct cutover *c)
{
    for (int i = 0; i < 2; i++) {
        if (c->reading[i])
            c->reading[i]->engine->close(c->reading[i]);
        c->reading[i] = NULL;
    }
}

static void note_digest(struct cutover *c, const struct digest *sum, size_t compared,
                        json_t *left_out, int64_t took)
{
    char text[40];

    snprintf(text, sizeof(text), "%016" PRIx64 "%016" PRIx64, sum->sum[0], sum->sum[1]);
    note(c, "digest",
         json_pack("{s:I, s:I, s:s, s:I, s:o}", "tables", (json_int_t)compared, "rows",
                   (json_int_t)sum->rows, "digest", text, "took_ms", (json_int_t)took, "left_out",
                   left_out));
}

/* 1: all that are fit; 0: as many as there was time for; -1. */
static int compare_all(struct cutover *c, int64_t deadline, bool quiet, struct digest *sum,
                       size_t *compared, json_t *left_out, struct err *e)
{
    struct table **tables =
        arena_memdup(&c->arena, c->tables.v, (c->tables.n + 1) * sizeof(struct table *));
    int rc = 1;

    qsort(tables, c->tables.n, sizeof(struct table *), by_size);
    for (size_t i = 0; i < c->tables.n && rc >= 0; i++) {
        bool now = rc > 0 && is_fit(c, tables[i]) && mono_ms() < deadline;

        if (now)
            rc = compare(c, tables[i], deadline, quiet, sum, e);
        if (now && rc > 0)
            (*compared)++;
        else if (rc >= 0)
            json_array_append_new(left_out, json_string(table_label(tables[i])));
    }
    return rc;
}

int digest_measure(struct cutover *c, struct err *e)
{
    struct digest sum = {0};
    struct err why = {0};
    size_t compared = 0;
    json_t *left_out;
    int rc;

    (void)e;
    if (!c->reading[0] || !c->reading[1])
        return 0;
    left_out = json_array();
    rc = compare_all(c, mono_ms() + c->r->digest_ms, false, &sum, &compared, left_out, &why);
    json_decref(left_out);
    c->predict.reading_broke = rc <= 0;
    c->predict.reading_failures += rc < 0;
    if (rc < 0)
        log_err(LOG_WARN, "cutover", "no-digest", &why);
    return 0;
}

void digest_again(struct cutover *c)
{
    if (!c->predict.reading_broke)
        return;
    c->predict.reading_broke = false;
    digest_close(c);
    if (c->predict.reading_failures < READ_TRIES)
        digest_open(c);
}

int digest_compare(struct cutover *c, struct err *e)
{
    int64_t from = mono_ms();
    int64_t share = (c->r->max_pause_ms - pause_ms(c)) / 8;
    int64_t deadline = from + (share < c->r->digest_ms ? share : c->r->digest_ms);
    struct digest sum = {0};
    json_t *left_out;
    size_t compared = 0;
    int rc;

    if (!c->reading[0] || !c->reading[1])
        return 0;
    left_out = json_array();
    rc = compare_all(c, deadline, true, &sum, &compared, left_out, e);
    /* One in the middle of a table holds its lock; others are closed when the pause is over. */
    if (rc <= 0)
        digest_close(c);
    /* What cannot be read is no difference: the switch does not rest on this. */
    if (rc < 0 && e->class != ERR_CONFLICT) {
        log_err(LOG_WARN, "cutover", "digest-broken-off", e);
        err_clear(e);
        rc = 0;
    }
    note_digest(c, &sum, compared, left_out, mono_ms() - from);
    return rc < 0 ? -1 : 0;
}
