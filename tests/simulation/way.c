/* The way back, as far as the switch relies on it: its facts on the source, made by the
 * coordinators' real code; a slot on the target, which has what comes behind its position; and, in
 * the place of the capture and apply of that direction, one process that moves its checkpoint along
 * the target's log. Every write of an application on the target must come by. */
#include "tests/simulation/sim.h"

#include "control/facts.h"

#include <stdio.h>

#define CARRIER 101 /* as an actor of the world */

static int advance(struct sim *s, struct db *db, struct checkpoint *at, struct err *e)
{
    struct checkpoint to = *at;

    if (!scripted_back_read(s->world, at->next, 1 + sim_draw(s) % 6, &to.next, to.marker,
                            sizeof(to.marker)) ||
        position_cmp(to.next, at->next) <= 0)
        return 0;
    to.record++;
    if (db->engine->begin(db, e) < 0 || checkpoint_hold(db, "forward", at, e) < 0 ||
        checkpoint_advance(db, "forward", at, &to, e) < 0)
        return -1;
    return db->engine->commit(db, e);
}

static int carry(struct sim *s, struct db *db, struct err *e)
{
    struct arena a = ARENA_INIT;
    struct stream_fact stream;
    struct checkpoint at;
    int rc = stream_fact_load(db, &a, &stream, e);
    int found =
        rc < 0 || stream.state != STREAM_CREATED ? 0 : checkpoint_load(db, "forward", &at, e);
    struct checkpoint start = {.next = stream.start, .epoch = stream.epoch};

    if (rc == 0 && stream.state == STREAM_CREATED && found >= 0) {
        rc = found ? 0 : checkpoint_take(db, "forward", &start, &at, e);
        if (rc == 0)
            rc = advance(s, db, &at, e);
    }
    arena_release(&a);
    return rc;
}

void way_step(struct sim *s)
{
    const struct db_options options = {
        .uri = SCRIPTED_SOURCE_URI, .migration = "sim", .use = DB_CONTROL};
    struct err e = {0};
    struct db *db = NULL;

    if (!s->sw.way)
        return;
    scripted_actor(s->world, CARRIER);
    if (engine_scripted.open(&options, &db, &e) == 0)
        carry(s, db, &e);
    if (scripted_crashed(s->world))
        scripted_recover(s->world);
    engine_scripted.close(db);
}

/* From where to where it has carried. */
static bool span(const struct sim *s, struct position *from, struct position *to)
{
    const json_t *stream = scripted_fact_on(s->world, SIDE_SOURCE, "stream", "forward");
    const json_t *at = scripted_fact_on(s->world, SIDE_SOURCE, "checkpoint", "forward");
    struct err ignored = {0};

    *from = *to = (struct position){0, 0};
    return stream && at && fact_position(stream, "start", from, &ignored) == 0 &&
           fact_position(at, "next", to, &ignored) == 0;
}

bool way_is_over(const struct sim *s)
{
    struct position from;
    struct position to;
    struct position next;
    char token[TOKEN_MAX];

    return !s->sw.way || (span(s, &from, &to) &&
                          scripted_back_read(s->world, to, 1, &next, token, sizeof(token)) &&
                          position_cmp(next, to) == 0);
}

int way_lacks(struct sim *s, struct scripted_difference *out)
{
    struct position from;
    struct position to;

    if (!s->sw.way)
        return 0;
    span(s, &from, &to);
    return scripted_back_missing(s->world, from, to, out);
}
