#include "control/facts.h"

#include <string.h>

static const char *const lane_state_names[] = {"loading", "following", "parked", "catching_up"};

const char *lane_state_name(enum lane_state s)
{
    return (unsigned)s < 4 ? lane_state_names[s] : "?";
}

static int lane_parse(const char *label, const struct fact *fact, struct arena *a, struct lane *out,
                      struct err *e)
{
    const char *state = fact_text(fact->body, "state");
    const char *reason = fact_text(fact->body, "reason");
    size_t i = 0;

    memset(out, 0, sizeof(*out));
    while (i < 4 && (!state || strcmp(state, lane_state_names[i]) != 0))
        i++;
    if (i == 4)
        return err_set(e, ERR_FATAL, "control fact lane %s has no known state", label);
    out->label = arena_strdup(a, label);
    out->state = (enum lane_state)i;
    out->version = fact->version;
    out->record = (uint64_t)fact_int(fact->body, "record", 0);
    out->reason = reason ? arena_strdup(a, reason) : NULL;
    return fact_position(fact->body, "next", &out->next, e);
}

int lanes_load(struct db *db, struct arena *a, struct lane_list *out, struct err *e)
{
    struct fact *facts;
    size_t n;
    int status = 0;

    memset(out, 0, sizeof(*out));
    if (db->engine->fact_scan(db, "lane", "", &facts, &n, e) < 0)
        return err_wrap(e, "reading the lanes");
    out->v = arena_zalloc(a, (n ? n : 1) * sizeof(*out->v));
    for (size_t i = 0; i < n && status == 0; i++)
        status = lane_parse(facts[i].key, &facts[i], a, &out->v[out->n++], e);
    facts_release(facts, n);
    return status;
}

int lane_load(struct db *db, const char *label, struct arena *a, struct lane *out, struct err *e)
{
    struct fact fact = {0};
    int found = db->engine->fact_get(db, "lane", label, false, &fact, e);

    if (found <= 0)
        return found;
    found = lane_parse(label, &fact, a, out, e) < 0 ? -1 : 1;
    json_decref(fact.body);
    return found;
}

int lane_store(struct db *db, struct lane *lane, struct err *e)
{
    json_t *body = json_pack("{s:s, s:o, s:I, s:s?}", "state", lane_state_names[lane->state],
                             "next", position_json(lane->next), "record", (json_int_t)lane->record,
                             "reason", lane->reason);

    if (fact_cas(db, "lane", lane->label, lane->version, body, e) < 0)
        return -1;
    lane->version++;
    return 0;
}
