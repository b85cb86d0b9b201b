/* What must hold in every moment of a switch, judged by the state row as everybody sees it and by
 * the fences of both sides, before every call of any process.
 *
 * Before the preparation the target is open, too: nobody has told an application of it. So "never
 * both" reads: from `fenced` on until `closed` the target refuses, and behind `closed` the source
 * refuses for good, holds nothing that the target lacks, and commits nothing any more. */
#include "tests/simulation/sim.h"

#include "control/facts.h"
#include "cutover/cutover.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

__attribute__((format(printf, 2, 3))) static void broken(struct sim *s, const char *fmt, ...)
{
    va_list ap;

    if (s->sw.broken[0])
        return;
    va_start(ap, fmt);
    vsnprintf(s->sw.broken, sizeof(s->sw.broken), fmt, ap);
    va_end(ap);
}

/* C13: no step of a switch before constraints and statistics are there. */
static void watch_begin(struct sim *s, const char *state)
{
    const json_t *phase = scripted_fact(s->world, "phase", "load");
    const char *name = json_string_value(json_object_get(phase, "phase"));

    if (!name || strcmp(name, load_phase_name(LOAD_DONE)) != 0)
        broken(s, "%s, though the load is %s", state, name ? name : "not begun");
}

/* C14: the moment in which `closed` is seen first: both sides hold the same. */
static void watch_closing(struct sim *s)
{
    s->sw.closed = true;
    s->sw.in_calm = s->calm;
    s->sw.at_closed = scripted_counts(s->world)->committed;
    if (scripted_compare(s->world, &s->sw.difference))
        s->sw.differs = true;
    if (!scripted_numbers_ahead(s->world))
        broken(s, "closed, and a sequence of the target is behind the source's");
    scripted_switch(s->world);
}

static void watch_closed(struct sim *s)
{
    uint64_t committed = scripted_counts(s->world)->committed;

    if (!s->sw.closed)
        watch_closing(s);
    if (scripted_accepts(s->world, SIDE_SOURCE))
        broken(s, "closed, and the source accepts writes");
    if (committed != s->sw.at_closed)
        broken(s, "the source committed %" PRIu64 " transactions behind closed",
               committed - s->sw.at_closed);
}

void watch(struct sim *s)
{
    const json_t *row;
    const char *name;
    int state;

    if (!s->sw.tried)
        return;
    row = scripted_fact(s->world, "cutover", "forward");
    name = json_string_value(json_object_get(row, "state"));
    state = name ? cutover_state_parse(name) : CUTOVER_NONE;
    if (row)
        watch_begin(s, name ? name : "begun");
    if (s->sw.closed && state < CUTOVER_CLOSED)
        broken(s, "it was closed and is %s", name ? name : "gone");
    if (state >= CUTOVER_FENCED && state < CUTOVER_CLOSED &&
        scripted_accepts(s->world, SIDE_TARGET))
        broken(s, "%s, and the target accepts writes", name);
    if (state >= CUTOVER_CLOSED)
        watch_closed(s);
    s->sw.state = state;
}
