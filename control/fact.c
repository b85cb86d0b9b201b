/* Small facts: reading and writing bodies, leases, requests. */
#include "control/facts.h"

#include <stdio.h>
#include <string.h>

int fact_read(struct db *db, const char *kind, const char *key, json_t **body, int64_t *version,
              struct err *e)
{
    struct fact fact = {0};
    int found = db->engine->fact_get(db, kind, key, false, &fact, e);

    *body = NULL;
    if (version)
        *version = FACT_ABSENT;
    if (found < 0)
        return err_wrap(e, "control fact %s %s", kind, key);
    if (!found)
        return 0;
    if (!json_is_object(fact.body)) {
        json_decref(fact.body);
        return err_set(e, ERR_FATAL, "control fact %s %s is not a JSON object", kind, key);
    }
    *body = fact.body;
    if (version)
        *version = fact.version;
    return 1;
}

int fact_write(struct db *db, const char *kind, const char *key, json_t *body, struct err *e)
{
    int written = db->engine->fact_put(db, kind, key, FACT_ANY, body, e);

    json_decref(body);
    if (written < 0)
        return err_wrap(e, "control fact %s %s", kind, key);
    invariant(written == 1);
    return 0;
}

int fact_cas(struct db *db, const char *kind, const char *key, int64_t expect, json_t *body,
             struct err *e)
{
    int written = db->engine->fact_put(db, kind, key, expect, body, e);

    json_decref(body);
    if (written < 0)
        return err_wrap(e, "control fact %s %s", kind, key);
    if (!written)
        return err_set(e, ERR_FENCED, "control fact %s %s was changed by another process", kind,
                       key);
    return 0;
}

const char *fact_text(const json_t *body, const char *member)
{
    return json_string_value(json_object_get(body, member));
}

int64_t fact_int(const json_t *body, const char *member, int64_t absent)
{
    const json_t *value = json_object_get(body, member);

    return json_is_integer(value) ? (int64_t)json_integer_value(value) : absent;
}

bool fact_bool(const json_t *body, const char *member)
{
    return json_is_true(json_object_get(body, member));
}

int fact_position(const json_t *body, const char *member, struct position *out, struct err *e)
{
    const char *text = fact_text(body, member);

    if (position_parse(text, out) < 0)
        return err_set(e, ERR_FATAL, "a control fact's %s is not a position: %s", member,
                       text ? text : "(absent)");
    return 0;
}

json_t *position_json(struct position p)
{
    char text[POSITION_TEXT_SIZE];

    position_format(p, text);
    return json_string(text);
}

/* ---- leases ---- */

int lease_take(struct db *db, const char *name, const char *holder, int ms, struct err *e)
{
    json_t *body;
    int64_t version;
    int64_t now;
    int written;

    if (db->engine->clock_ms(db, &now, e) < 0 ||
        fact_read(db, "lease", name, &body, &version, e) < 0)
        return -1;
    if (body) {
        const char *other = fact_text(body, "holder");
        bool theirs = !other || strcmp(other, holder) != 0;
        bool alive = fact_int(body, "until_ms", 0) > now;

        json_decref(body);
        if (theirs && alive)
            return 0;
    }
    body = json_pack("{s:s, s:I}", "holder", holder, "until_ms", (json_int_t)(now + ms));
    written = db->engine->fact_put(db, "lease", name, version, body, e);
    json_decref(body);
    return written;
}

int lease_release(struct db *db, const char *name, const char *holder, struct err *e)
{
    const char *other;
    json_t *body;
    int64_t version;
    int written = 1;

    if (fact_read(db, "lease", name, &body, &version, e) < 0)
        return -1;
    other = fact_text(body, "holder");
    if (other && strcmp(other, holder) == 0) {
        json_object_set_new(body, "until_ms", json_integer(0));
        written = db->engine->fact_put(db, "lease", name, version, body, e);
    }
    json_decref(body);
    return written < 0 ? -1 : 0;
}

int lease_held(struct db *db, const char *name, char *holder, size_t size, struct err *e)
{
    json_t *body;
    int64_t now;
    int held;

    if (db->engine->clock_ms(db, &now, e) < 0 || fact_read(db, "lease", name, &body, NULL, e) < 0)
        return -1;
    held = body && fact_int(body, "until_ms", 0) > now;
    if (holder)
        snprintf(holder, size, "%s",
                 held && fact_text(body, "holder") ? fact_text(body, "holder") : "");
    json_decref(body);
    return held;
}

/* ---- requests ---- */

int request_put(struct db *db, const char *name, json_t *body, struct err *e)
{
    return fact_write(db, "request", name, body, e);
}

/* Of the one direction whose facts stand here. */
static bool is_before_fence(const char *state)
{
    return !state || strcmp(state, "none") == 0 || strcmp(state, "prepared") == 0;
}

int switch_under_way(struct db *db, bool *out, struct err *e)
{
    struct fact *facts;
    size_t n;

    *out = false;
    if (db->engine->fact_scan(db, "cutover", "", &facts, &n, e) < 0)
        return err_wrap(e, "reading the cutover's state");
    for (size_t i = 0; i < n; i++) {
        if (!is_before_fence(fact_text(facts[i].body, "state")) ||
            !is_before_fence(fact_text(facts[i].body, "going")))
            *out = true;
    }
    facts_release(facts, n);
    return 0;
}

int request_clear(struct db *db, const char *name, struct err *e)
{
    return db->engine->fact_delete(db, "request", name, e);
}

int answer_put(struct db *db, const char *name, json_t *body, struct err *e)
{
    return fact_write(db, "answer", name, body, e);
}
