/* The lease is looked at between two looks at the row: who conducts writes its last record before
 * it gives the lease back, and takes it before its first. So a row that is the same both times was
 * nobody's in between. */
#include "observe/conduct.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char *const side_names[] = {"source", "target"};

bool conduct_under_way(const json_t *row)
{
    const char *state = fact_text(row, "state");

    if (!state || strcmp(state, "switched") == 0)
        return false;
    return fact_text(row, "going") ||
           (strcmp(state, "none") != 0 && strcmp(state, "prepared") != 0);
}

/* ---- who conducts ---- */

/* 1: nobody, and what became of the last one; 0: somebody does; -1. */
static int is_orphan(const struct observe_ends *ends, struct db *db, const json_t *row, char *what,
                     size_t size, struct err *e)
{
    const char *last = fact_text(row, "holder");
    const char *holder;
    json_t *lease;
    int64_t until;
    int64_t now;
    int orphan = 1;

    if (db->engine->clock_ms(db, &now, e) < 0 ||
        fact_read(db, "lease", "cutover", &lease, NULL, e) < 0)
        return -1;
    holder = fact_text(lease, "holder");
    until = fact_int(lease, "until_ms", 0);
    last = last && last[0] ? last : "its coordinator";
    if (until > now && (!holder || !ends->holder_is_dead || !ends->holder_is_dead(holder)))
        orphan = 0;
    else if (until > now)
        snprintf(what, size, "the process %s is dead", holder);
    else if (until > 0)
        snprintf(what, size, "the lease of %s ended %" PRId64 " s ago", last, (now - until) / 1000);
    else
        snprintf(what, size, "%s has ended", last);
    json_decref(lease);
    return orphan;
}

static int is_still_so(struct db *db, const char *direction, int64_t version, struct err *e)
{
    int64_t now;
    json_t *body;

    if (fact_read(db, "cutover", direction, &body, &now, e) < 0)
        return -1;
    json_decref(body);
    return now == version;
}

/* ---- who takes writes ---- */

/* FENCE_NONE is open too. False: it cannot be asked. */
static bool fence_of(struct db *db, enum fence_mode *out)
{
    struct fence_state f = {0};
    struct err ignored = {0};

    if (!db || db->engine->fence_state(db, &f, &ignored) < 0)
        return false;
    *out = f.mode == FENCE_NONE ? FENCE_OPEN : f.mode;
    return true;
}

/* Before `closed` the side that opens is not for the applications, whatever its fence says. */
static const char *who_writes(struct db *closing, struct db *opening, bool back, bool closed,
                              struct arena *a)
{
    const char *from = side_names[back];
    enum fence_mode mode = FENCE_SEALED;
    bool known = fence_of(closing, &mode);

    if (known && mode == FENCE_OPEN)
        return arena_printf(a, "the %s takes writes", from);
    if (known && mode == FENCE_LEASED)
        return arena_printf(a, "the %s takes none until its fence lapses", from);
    if (closed && fence_of(opening, &mode) && mode == FENCE_OPEN)
        return arena_printf(a, "the %s takes writes, but the traffic may not have been moved there",
                            side_names[!back]);
    if (!known && !closed)
        return arena_printf(a, "whether the %s takes writes is not known", from);
    return "neither side takes writes";
}

/* ---- both ---- */

int conduct_look(const struct observe_ends *ends, bool back, const json_t *row, int64_t version,
                 struct arena *a, const char **told, const char **next, struct err *e)
{
    const char *command = back ? "rollback" : "cutover";
    const char *state = fact_text(row, "state");
    const char *going = fact_text(row, "going");
    struct db *opening = back ? ends->source : ends->target;
    struct db *closing = back ? ends->target : ends->source;
    char what[HOLDER_MAX + 60];
    bool prepares;
    int rc;

    *told = NULL;
    if (!conduct_under_way(row))
        return 0;
    rc = is_orphan(ends, opening, row, what, sizeof(what), e);
    if (rc > 0)
        rc = is_still_so(opening, back ? "back" : "forward", version, e);
    if (rc <= 0)
        return rc;
    *told = arena_printf(a, "nobody conducts this %s any more (at %s%s%s; %s): %s", command, state,
                         going ? ", on its way to " : "", going ? going : "", what,
                         who_writes(closing, opening, back, strcmp(state, "closed") == 0, a));
    /* It may have been a rehearsal, or have been begun for the reads alone. */
    prepares = going && strcmp(going, "prepared") == 0;
    *next = prepares ? arena_printf(a,
                                    "lockstep %s (or with --rehearse, or --stage reads), as it "
                                    "was said",
                                    command)
                     : arena_printf(a, "lockstep %s, which goes on, or takes back first", command);
    return 0;
}
