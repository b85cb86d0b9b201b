/* Which servers this migration joins, where its stream begins, how far its load is. */
#include "control/facts.h"

#include <stdio.h>
#include <string.h>

/* ---- migration ---- */

static json_t *identity_json(const struct server_identity *id)
{
    return json_pack("{s:s, s:s, s:i, s:i}", "system", id->system, "database", id->database,
                     "timeline", (int)id->timeline, "version", id->version);
}

static int identity_check(const json_t *seen, const struct server_identity *now, const char *end,
                          struct err *e)
{
    const char *system = fact_text(seen, "system");
    const char *database = fact_text(seen, "database");

    if (!system || !database)
        return err_set(e, ERR_FATAL, "the control fact of the migration lacks the %s's identity",
                       end);
    if (strcmp(system, now->system) != 0 || strcmp(database, now->database) != 0) {
        err_set(e, ERR_REFUSED,
                "this migration was started with another %s (system %s, database %s); the "
                "configuration now names system %s, database %s",
                end, system, database, now->system, now->database);
        return err_hint(e, "give the new pair a migration name of its own");
    }
    if (fact_int(seen, "timeline", 0) != (int64_t)now->timeline) {
        err_set(e, ERR_REFUSED, "the %s failed over: its timeline was %d and is %u now", end,
                (int)fact_int(seen, "timeline", 0), now->timeline);
        return err_hint(e, "changes may be missing around the failover: abandon this migration "
                           "(lockstep finish --abandon) and start anew");
    }
    return 0;
}

static int refuse_exchanged(const char *name, struct err *e)
{
    err_set(e, ERR_REFUSED,
            "the target of this configuration is the source of the migration %s, whose way back "
            "stands there",
            name);
    return err_hint(e, "exchange source and target in the configuration; of a migration that ended "
                       "without that server, lockstep finish --abandon then removes what it left");
}

int migration_check_way(const struct migration *m, struct db *db, struct err *e)
{
    json_t *self = NULL;
    bool exists;
    bool back;

    if (m->back)
        return 0;
    if (db->engine->control_exists(db, &exists, e) < 0 ||
        (exists && fact_read(db, "migration", "self", &self, NULL, e) < 0))
        return -1;
    back = fact_bool(self, "back");
    json_decref(self);
    return back ? refuse_exchanged(m->name, e) : 0;
}

/* 1: written by us, 0: it is there already, -1. */
static int register_first(const struct migration *m, struct db *target,
                          const struct server_identity *source_id,
                          const struct server_identity *target_id, struct err *e)
{
    json_t *body;
    int64_t now;

    if (target->engine->clock_ms(target, &now, e) < 0)
        return -1;
    body = json_pack("{s:o, s:o, s:b, s:I}", "source", identity_json(source_id), "target",
                     identity_json(target_id), "back", m->back, "created_ms", (json_int_t)now);
    if (fact_cas(target, "migration", "self", FACT_ABSENT, body, e) == 0)
        return 1;
    if (e->class != ERR_FENCED)
        return -1;
    err_clear(e);
    return 0;
}

int migration_register(const struct migration *m, struct db *target,
                       const struct server_identity *source_id,
                       const struct server_identity *target_id, struct err *e)
{
    json_t *body;
    int status;

    if (fact_read(target, "migration", "self", &body, NULL, e) < 0)
        return -1;
    if (!body) {
        /* Roles may begin a migration side by side: whoever comes second compares. */
        status = register_first(m, target, source_id, target_id, e);
        if (status != 0)
            return status < 0 ? -1 : 0;
        if (fact_read(target, "migration", "self", &body, NULL, e) < 0)
            return -1;
        if (!body)
            return err_set(e, ERR_RETRY, "the migration was taken away as it began");
    }
    status = fact_bool(body, "back") && !m->back
                 ? refuse_exchanged(m->name, e)
                 : identity_check(json_object_get(body, "source"), source_id, "source", e);
    if (status == 0)
        status = identity_check(json_object_get(body, "target"), target_id, "target", e);
    json_decref(body);
    return status;
}

int owned_journal(const struct migration *m, struct db *db, struct owned_journal *out,
                  struct err *e)
{
    const json_t *source;
    const json_t *target;
    bool exists;
    json_t *body = NULL;

    out->options = m->journal;
    if (db->engine->control_exists(db, &exists, e) < 0 ||
        (exists && fact_read(db, "migration", "self", &body, NULL, e) < 0))
        return -1;
    if (!body)
        return 0;
    source = json_object_get(body, "source");
    target = json_object_get(body, "target");
    snprintf(out->owner, sizeof(out->owner), "begun %lld, from %s/%s to %s/%s",
             (long long)fact_int(body, "created_ms", 0), fact_text(source, "system"),
             fact_text(source, "database"), fact_text(target, "system"),
             fact_text(target, "database"));
    out->options.owner = out->owner;
    json_decref(body);
    return 0;
}

/* ---- stream ---- */

int stream_fact_load(struct db *db, struct arena *a, struct stream_fact *out, struct err *e)
{
    json_t *body;
    const char *state;
    int status = 0;

    memset(out, 0, sizeof(*out));
    if (fact_read(db, "stream", "forward", &body, &out->version, e) < 0)
        return -1;
    if (!body)
        return 0;
    state = fact_text(body, "state");
    out->state = state && strcmp(state, "created") == 0 ? STREAM_CREATED : STREAM_CREATING;
    out->epoch = (uint32_t)fact_int(body, "epoch", 0);
    if (out->state == STREAM_CREATED) {
        status = fact_position(body, "start", &out->start, e);
        if (status == 0)
            status = fact_position(body, "past", &out->cut.past, e);
        if (fact_text(body, "cut"))
            out->cut.text = arena_strdup(a, fact_text(body, "cut"));
        if (fact_text(body, "snapshot"))
            out->snapshot = arena_strdup(a, fact_text(body, "snapshot"));
    }
    json_decref(body);
    return status;
}

int stream_fact_creating(struct db *db, struct stream_fact *seen, struct err *e)
{
    if (fact_cas(db, "stream", "forward", seen->version,
                 json_pack("{s:s, s:i}", "state", "creating", "epoch", 1), e) < 0)
        return -1;
    seen->version++;
    return 0;
}

/* Not whatever the fact says by now: a conductor that took over while we were making the stream has
 * dropped ours and made its own. */
int stream_fact_created(struct db *db, const struct stream_fact *seen,
                        const struct stream_origin *origin, struct err *e)
{
    json_t *body =
        json_pack("{s:s, s:i, s:o, s:o, s:s?, s:s?}", "state", "created", "epoch", 1, "start",
                  position_json(origin->start), "past", position_json(origin->cut.past), "cut",
                  origin->cut.text, "snapshot", origin->snapshot);

    return fact_cas(db, "stream", "forward", seen->version, body, e);
}

int stream_fact_forget_snapshot(struct db *db, struct err *e)
{
    json_t *body;
    int64_t version;

    if (fact_read(db, "stream", "forward", &body, &version, e) < 0)
        return -1;
    if (!body || !fact_text(body, "snapshot")) {
        json_decref(body);
        return 0;
    }
    json_object_set_new(body, "snapshot", json_null());
    return fact_cas(db, "stream", "forward", version, body, e);
}

/* ---- load phase ---- */

static const char *const load_phase_names[] = {"none",   "stream",  "schema", "planned",
                                               "loaded", "overlap", "done"};

const char *load_phase_name(enum load_phase p)
{
    return (unsigned)p <= LOAD_DONE ? load_phase_names[p] : "?";
}

int load_phase_get(struct db *db, enum load_phase *out, struct err *e)
{
    json_t *body;
    const char *name;

    *out = LOAD_NONE;
    if (fact_read(db, "phase", "load", &body, NULL, e) < 0)
        return -1;
    name = fact_text(body, "phase");
    for (int i = 0; name && i <= LOAD_DONE; i++) {
        if (strcmp(name, load_phase_names[i]) == 0)
            *out = (enum load_phase)i;
    }
    json_decref(body);
    return 0;
}

int load_phase_set(struct db *db, enum load_phase p, struct err *e)
{
    enum load_phase now;

    if (load_phase_get(db, &now, e) < 0)
        return -1;
    if (p < now)
        return err_set(e, ERR_FENCED, "the load is further already: %s", load_phase_names[now]);
    return fact_write(db, "phase", "load", json_pack("{s:s}", "phase", load_phase_names[p]), e);
}

/* ---- the conductor's turn ---- */

int turn_take(struct db *db, const char *holder, int64_t *turn, struct err *e)
{
    json_t *body;
    int64_t seen;

    if (fact_read(db, "turn", "conductor", &body, &seen, e) < 0)
        return -1;
    json_decref(body);
    if (fact_cas(db, "turn", "conductor", seen, json_pack("{s:s}", "holder", holder ? holder : ""),
                 e) < 0)
        return -1;
    *turn = seen + 1;
    return 0;
}

int turn_hold(struct db *db, int64_t turn, struct err *e)
{
    struct fact fact = {0};
    int found = db->engine->fact_get(db, "turn", "conductor", true, &fact, e);

    if (found < 0)
        return err_wrap(e, "control fact turn conductor");
    json_decref(fact.body);
    if (!found || fact.version != turn)
        return err_set(e, ERR_FENCED, "another conductor took over");
    return 0;
}
