/* What is known of a switch: written into the state row as it goes (note), given out as the record.
 *
 * Times are those of the side that opens: its clock is read once, at the begin, and counted on from
 * there by our own monotonic one, so that telling the time costs no round trip in the pause. */
#include "cutover/internal.h"
#include "core/run.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

void note(struct cutover *c, const char *name, json_t *value)
{
    invariant(value != NULL && json_object_set_new(c->body, name, value) == 0);
}

/* ---- the time ---- */

int clock_begin(struct cutover *c, struct err *e)
{
    int64_t now;

    if (c->opening->engine->clock_ms(c->opening, &now, e) < 0)
        return -1;
    c->clock_ahead_ms = now - mono_ms();
    return 0;
}

const char *clock_text(const struct cutover *c, char out[UTC_MAX])
{
    int64_t ms = mono_ms() + c->clock_ahead_ms;
    time_t seconds = (time_t)(ms / 1000);
    struct tm tm;
    size_t n;

    gmtime_r(&seconds, &tm);
    n = strftime(out, UTC_MAX, "%Y-%m-%d %H:%M:%S", &tm);
    snprintf(out + n, UTC_MAX - n, ".%03d UTC", (int)(ms % 1000));
    return out;
}

void note_time(struct cutover *c, const char *name)
{
    char text[UTC_MAX];

    note(c, name, json_string(clock_text(c, text)));
}

/* ---- notes ---- */

void notes_begin(struct cutover *c)
{
    /* What an earlier attempt that was undone left; the prediction stays until there is a new one.
     */
    static const char *const old[] = {"undone_because",
                                      "writers_1",
                                      "writers_2",
                                      "flip_ms",
                                      "pause_ms",
                                      "position",
                                      "sequences",
                                      "sequences_left_out",
                                      "sequences_tight",
                                      "sequences_unsafe",
                                      "hook",
                                      "way_back_refused",
                                      "way_back_ms",
                                      "fenced_at",
                                      "opened_at",
                                      "ended_at",
                                      "hook_failed",
                                      "changes_then",
                                      "transactions_then",
                                      "digest",
                                      "foreign",
                                      "foreign_accepted"};

    for (size_t i = 0; i < sizeof(old) / sizeof(old[0]); i++)
        json_object_del(c->body, old[i]);
    note(c, "steps", json_array());
    note_time(c, "began_at");
}

void note_step(struct cutover *c, const char *name, int64_t took_ms)
{
    json_t *steps = json_object_get(c->body, "steps");
    char at[UTC_MAX];

    if (!json_is_array(steps)) {
        note(c, "steps", json_array());
        steps = json_object_get(c->body, "steps");
    }
    json_array_append_new(steps, json_pack("{s:s, s:I, s:s}", "state", name, "took_ms",
                                           (json_int_t)took_ms, "ended_at", clock_text(c, at)));
}

/* ---- given out ---- */

json_t *cutover_record(const struct cutover *c)
{
    json_t *out = json_deep_copy(c->body);
    char text[UTC_MAX];

    json_object_set_new(out, "migration", json_string(c->r->m->name));
    json_object_set_new(out, "direction", json_string(c->road.direction));
    json_object_set_new(out, "state", json_string(cutover_state_name(c->state)));
    json_object_set_new(out, "rehearsal", json_boolean(c->r->rehearse));
    json_object_set_new(out, "max_pause_ms", json_integer(c->r->max_pause_ms));
    if (c->r->source)
        json_object_set_new(out, "source", json_string(c->r->source));
    if (c->r->target)
        json_object_set_new(out, "target", json_string(c->r->target));
    if (c->taken && !fact_text(out, "ended_at"))
        json_object_set_new(out, "ended_at", json_string(clock_text(c, text)));
    json_object_set_new(out, "conducted", json_boolean(c->taken));
    return out;
}
