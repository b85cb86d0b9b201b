#include "control/ledger.h"

#include <inttypes.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

static const char *const chunk_state_names[] = {"planned", "claimed", "done"};

/* ---- bodies ---- */

static json_t *chunk_json(const struct chunk *c)
{
    json_t *body =
        json_pack("{s:s, s:s, s:o, s:b}", "table", c->table, "state", chunk_state_names[c->state],
                  "range", range_to_json(&c->range), "common", c->common);

    if (c->state == CHUNK_CLAIMED) {
        json_object_set_new(body, "holder", json_string(c->holder));
        json_object_set_new(body, "until_ms", json_integer((json_int_t)c->until_ms));
    }
    if (c->state == CHUNK_DONE) {
        json_object_set_new(body, "cut", json_string(c->cut.text));
        json_object_set_new(body, "past", position_json(c->cut.past));
        json_object_set_new(body, "rows", json_integer((json_int_t)c->rows));
        json_object_set_new(body, "bytes", json_integer((json_int_t)c->bytes));
    }
    return body;
}

static char *dup_text(struct arena *a, const json_t *body, const char *member)
{
    const char *text = fact_text(body, member);

    return text ? arena_strdup(a, text) : NULL;
}

static int chunk_parse(const struct fact *fact, struct arena *a, struct chunk *out, struct err *e)
{
    const char *state = fact_text(fact->body, "state");
    size_t i = 0;

    memset(out, 0, sizeof(*out));
    while (i < 3 && (!state || strcmp(state, chunk_state_names[i]) != 0))
        i++;
    out->key = arena_strdup(a, fact->key);
    out->table = dup_text(a, fact->body, "table");
    if (i == 3 || !out->table)
        return err_set(e, ERR_FATAL, "ledger line %s is damaged", fact->key);
    out->state = (enum chunk_state)i;
    out->version = fact->version;
    out->common = fact_bool(fact->body, "common");
    out->holder = dup_text(a, fact->body, "holder");
    out->until_ms = fact_int(fact->body, "until_ms", 0);
    out->rows = (uint64_t)fact_int(fact->body, "rows", 0);
    out->bytes = (uint64_t)fact_int(fact->body, "bytes", 0);
    if (range_from_json(a, json_object_get(fact->body, "range"), &out->range, e) < 0)
        return err_wrap(e, "ledger line %s", fact->key);
    if (out->state != CHUNK_DONE)
        return 0;
    out->cut.text = dup_text(a, fact->body, "cut");
    if (!out->cut.text)
        return err_set(e, ERR_FATAL, "ledger line %s has no cut", fact->key);
    return fact_position(fact->body, "past", &out->cut.past, e);
}

/* ---- the table's line ---- */

int table_fact_load(struct db *db, const char *label, struct arena *a, struct table_fact *out,
                    struct err *e)
{
    json_t *body;

    memset(out, 0, sizeof(*out));
    out->label = arena_strdup(a, label);
    if (fact_read(db, "table", label, &body, &out->version, e) < 0)
        return -1;
    if (!body)
        return 0;
    out->nchunks = (uint64_t)fact_int(body, "chunks", 0);
    out->rows_estimate = (uint64_t)fact_int(body, "rows", 0);
    out->bytes_estimate = (uint64_t)fact_int(body, "bytes", 0);
    out->round = (uint32_t)fact_int(body, "round", 0);
    out->key_built = fact_bool(body, "key_built");
    out->settled = (uint64_t)fact_int(body, "settled", 0);
    json_decref(body);
    return 1;
}

int table_fact_store(struct db *db, struct table_fact *t, struct err *e)
{
    json_t *body = json_pack("{s:I, s:I, s:I, s:I, s:b, s:I}", "chunks", (json_int_t)t->nchunks,
                             "rows", (json_int_t)t->rows_estimate, "bytes",
                             (json_int_t)t->bytes_estimate, "round", (json_int_t)t->round,
                             "key_built", t->key_built, "settled", (json_int_t)t->settled);

    if (fact_cas(db, "table", t->label, t->version, body, e) < 0)
        return -1;
    t->version++;
    return 0;
}

/* ---- chunks ---- */

int ledger_load(struct db *db, const char *label, struct arena *a, struct chunk_list *out,
                struct err *e)
{
    char prefix[300];
    struct fact *facts;
    size_t n;
    int status = 0;

    memset(out, 0, sizeof(*out));
    snprintf(prefix, sizeof(prefix), "%s%s", label, label[0] ? "/" : "");
    if (db->engine->fact_scan(db, "chunk", prefix, &facts, &n, e) < 0)
        return err_wrap(e, "reading the ledger");
    out->v = arena_zalloc(a, (n ? n : 1) * sizeof(*out->v));
    for (size_t i = 0; i < n && status == 0; i++) {
        struct chunk *c = &out->v[out->n];

        status = chunk_parse(&facts[i], a, c, e);
        /* A table's name may itself hold a slash, so the prefix alone does not tell. */
        if (status == 0 && (!label[0] || strcmp(c->table, label) == 0))
            out->n++;
    }
    facts_release(facts, n);
    return status;
}

int ledger_reset(struct db *db, const char *label, struct err *e)
{
    struct arena a = ARENA_INIT;
    struct chunk_list chunks;
    int status = ledger_load(db, label, &a, &chunks, e);

    for (size_t i = 0; status == 0 && i < chunks.n; i++)
        status = db->engine->fact_delete(db, "chunk", chunks.v[i].key, e);
    arena_release(&a);
    return status;
}

int ledger_plan(struct db *db, const struct table *t, const struct range_list *ranges, bool common,
                struct err *e)
{
    struct arena a = ARENA_INIT;
    struct table_fact line;
    const char *label = arena_strdup(&a, table_label(t));
    int status = table_fact_load(db, label, &a, &line, e);

    if (status >= 0)
        status = ledger_reset(db, label, e);
    /* A line that is deleted and written again begins at version 1 again, so a worker of the
     * earlier plan would find its claim, or the version it means to claim, in the new plan's line
     * and load the old range. Lines of different plans have different keys. */
    line.round++;
    for (size_t i = 0; status == 0 && i < ranges->n; i++) {
        struct chunk chunk = {.table = label, .range = ranges->v[i], .common = common};

        chunk.key = arena_printf(&a, "%s/%03u-%06zu", label, line.round, i);
        status = fact_write(db, "chunk", chunk.key, chunk_json(&chunk), e);
    }
    if (status == 0) {
        line.nchunks = ranges->n;
        line.rows_estimate = t->rows;
        line.bytes_estimate = t->bytes;
        status = table_fact_store(db, &line, e);
    }
    arena_release(&a);
    return status;
}

int ledger_claim(struct db *db, struct chunk *c, const char *holder, int lease_ms, struct err *e)
{
    struct chunk mine = *c;
    json_t *body;
    int64_t now;
    int written;

    invariant(c->state != CHUNK_DONE);
    if (db->engine->clock_ms(db, &now, e) < 0)
        return -1;
    if (c->state == CHUNK_CLAIMED && c->until_ms > now)
        return 0;
    mine.state = CHUNK_CLAIMED;
    mine.holder = holder;
    mine.until_ms = now + lease_ms;
    body = chunk_json(&mine);
    written = db->engine->fact_put(db, "chunk", c->key, c->version, body, e);
    json_decref(body);
    if (written <= 0)
        return written;
    mine.version++;
    *c = mine;
    return 1;
}

int ledger_renew(struct db *db, struct chunk *c, int lease_ms, struct err *e)
{
    int64_t now;

    invariant(c->state == CHUNK_CLAIMED);
    if (db->engine->clock_ms(db, &now, e) < 0)
        return -1;
    c->until_ms = now + lease_ms;
    if (fact_cas(db, "chunk", c->key, c->version, chunk_json(c), e) < 0)
        return err_wrap(e, "chunk %s", c->key);
    c->version++;
    return 0;
}

int ledger_unclaim(struct db *db, struct chunk *c, struct err *e)
{
    c->state = CHUNK_PLANNED;
    if (fact_cas(db, "chunk", c->key, c->version, chunk_json(c), e) < 0)
        return -1;
    c->version++;
    return 0;
}

int ledger_done(struct db *db, struct chunk *c, const struct cut *cut, struct err *e)
{
    invariant(c->state == CHUNK_CLAIMED);
    c->state = CHUNK_DONE;
    c->cut = *cut;
    if (fact_cas(db, "chunk", c->key, c->version, chunk_json(c), e) < 0)
        return err_wrap(e, "chunk %s", c->key);
    c->version++;
    return 0;
}

/* FNV-1a, only to give a long key's line a short name; the line itself holds the whole key. */
static uint64_t key_hash(const char *text)
{
    uint64_t h = 14695981039346656037u;

    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * 1099511628211u;
    return h;
}

/* Longer keys would not fit into an index entry of the control table. */
#define POINT_NAME_MAX 512

static char *point_name(struct arena *a, const char *label, const struct row *key)
{
    json_t *json = row_to_json(key);
    char *text = json_dumps(json, JSON_COMPACT);
    char *name;

    invariant(text != NULL);
    if (strlen(text) <= POINT_NAME_MAX)
        name = arena_printf(a, "%s/p%s", label, text);
    else
        name = arena_printf(a, "%s/p%016" PRIx64 "%016zx", label, key_hash(text), strlen(text));
    free(text);
    json_decref(json);
    return name;
}

int ledger_point(struct db *db, const struct table *t, const struct row *key, const struct cut *cut,
                 struct err *e)
{
    struct chunk chunk = {.table = table_label(t), .state = CHUNK_DONE, .cut = *cut, .rows = 0};
    struct arena a = ARENA_INIT;
    int status;

    chunk.range = (struct range){.kind = RANGE_POINT, .lower = key};
    chunk.key = point_name(&a, chunk.table, key);
    status = fact_write(db, "chunk", chunk.key, chunk_json(&chunk), e);
    arena_release(&a);
    return status;
}
