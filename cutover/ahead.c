/* How far a counter of the side that opens is set beyond what was read of the closing side's. Pure.
 *
 * What was read is behind the seal, but numbers are not writes: a client may take one on the
 * closing side even later, whose row is refused there, and store it on the other side. A margin is
 * all that helps, and gaps in sequences are nothing new to an application. Whoever takes numbers by
 * blocks (CACHE) takes as many at once, so the margin counts blocks too.
 *
 * Near its end a counter has no room for that: the margin takes at most the half of what is left,
 * so that it is not the margin that uses the last numbers up, and somebody is told. */
#include "cutover/internal.h"

#define MARGIN_STEPS 100
#define MARGIN_BLOCKS 16

static uint64_t magnitude(int64_t v)
{
    return v < 0 ? -(uint64_t)v : (uint64_t)v;
}

/* Everything in steps upwards: a descending counter is looked at in a mirror. */
static int64_t mirrored(int64_t v, bool up)
{
    return up ? v : -(v + 1);
}

static bool has_bounds(const struct sequence_value *v)
{
    return v->min < v->max;
}

static uint64_t wanted_margin(const struct sequence_value *from, const struct sequence_value *there)
{
    int64_t cache = from->cache > there->cache ? from->cache : there->cache;
    uint64_t step = magnitude(from->increment) > magnitude(there->increment)
                        ? magnitude(from->increment)
                        : magnitude(there->increment);
    uint64_t steps = MARGIN_STEPS + (cache > 1 ? MARGIN_BLOCKS * (uint64_t)cache : 0);
    uint64_t margin;

    return __builtin_mul_overflow(steps, step, &margin) ? UINT64_MAX : margin;
}

/* On to the next number that `there` would give by its own steps. */
static int64_t in_step(int64_t to, int64_t from_there, uint64_t step, int64_t bound)
{
    uint64_t off = step > 1 && to > from_there ? ((uint64_t)to - (uint64_t)from_there) % step : 0;
    int64_t next;

    if (!off || __builtin_add_overflow(to, (int64_t)(step - off), &next) || next > bound)
        return to;
    return next;
}

/* The one counts up and the other down: what each gives, the other does not, if it begins beyond
 * all that the closing side may have given. */
static enum ahead turn_round(const struct sequence_value *from, const struct sequence_value *there,
                             struct sequence_value *to)
{
    int64_t reach = from->max;

    to->last_value = there->last_value;
    to->called = there->called;
    if (there->increment < 0 || !has_bounds(from) ||
        (there->called ? there->last_value >= reach : there->last_value > reach))
        return AHEAD_KEPT;
    if (has_bounds(there) && reach >= there->max)
        return AHEAD_UNSAFE;
    to->last_value = reach;
    to->called = true;
    return AHEAD_SET;
}

enum ahead sequence_ahead(const struct sequence_value *from, const struct sequence_value *there,
                          struct sequence_value *to, uint64_t *left)
{
    bool up = from->increment > 0;
    int64_t last = mirrored(from->last_value, up);
    int64_t now = mirrored(there->last_value, up);
    bool bounded = has_bounds(there);
    int64_t bound = bounded ? mirrored(up ? there->max : there->min, up) : INT64_MAX;
    uint64_t margin = from->called ? wanted_margin(from, there) : 0;
    uint64_t room = last < bound ? (uint64_t)bound - (uint64_t)last : 0;
    uint64_t step = magnitude(there->increment);
    int64_t goal;

    *to = *from;
    to->schema = there->schema;
    to->name = there->name;
    to->table = there->table;
    to->column = there->column;
    to->increment = there->increment;
    *left = UINT64_MAX;
    if (up != (there->increment > 0))
        return turn_round(from, there, to);
    if (margin > room / 2) {
        margin = room / 2;
        margin -= step > 1 ? margin % step : 0;
        *left = (room - margin) / (step ? step : 1);
    }
    goal = last < bound ? (int64_t)((uint64_t)last + margin) : bound;
    if (from->called && magnitude(from->increment) != step)
        goal = in_step(goal, now, step, bound);
    /* Numbers that are given once are not given again; one that goes round begins anew. */
    if (there->called && !there->cycle && now >= goal && from->called) {
        to->last_value = there->last_value;
        to->called = true;
        return AHEAD_KEPT;
    }
    to->last_value = mirrored(goal, up);
    return AHEAD_SET;
}
