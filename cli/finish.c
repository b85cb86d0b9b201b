/* finish: takes everything away that lockstep put on both servers. Every step is idempotent, and
 * what says that there is something to do (the target's facts) goes last, so that a finish that was
 * cut off is simply said again. */
#include "cli/cli.h"
#include "control/foreign.h"
#include "core/run.h"
#include "journal/journal.h"
#include "observe/observe.h"

#include <stdio.h>
#include <string.h>

#define WAIT_MS 40000
#define POLL_MS 200

static bool may_finish(const char *state)
{
    /* Not `closed`: the target is still sealed then, and lockstep cutover goes on. */
    static const char *const states[] = {"switched", "finished"};

    for (size_t i = 0; state && i < sizeof(states) / sizeof(states[0]); i++) {
        if (strcmp(state, states[i]) == 0)
            return true;
    }
    return false;
}

/* A switch in the other direction that has begun must be ended first: both sides may be shut just
 * now. */
static bool under_way(const json_t *row)
{
    const char *state = fact_text(row, "state");
    const char *going = fact_text(row, "going");
    bool before = !state || strcmp(state, "none") == 0 || strcmp(state, "prepared") == 0;

    /* A preparation that was broken off, be it of a rehearsal, has shut nobody out. */
    if (before)
        return going && strcmp(going, "prepared") != 0;
    return going || !may_finish(state);
}

/* Was the rollback the last switch? Epochs tell where both rows say `switched`; a later cutover
 * that was undone has a higher one than the rollback, and switched nothing. */
static bool switched_back(const json_t *cutover, const json_t *rollback)
{
    return may_finish(fact_text(rollback, "state")) &&
           (!may_finish(fact_text(cutover, "state")) ||
            fact_int(rollback, "epoch", 0) > fact_int(cutover, "epoch", 0));
}

/* With lockstep gone nobody keeps up to date what is read there. */
static int demand_reads_at_home(const json_t *cutover, const json_t *rollback, struct err *e)
{
    struct phase_facts f = {.begun = true};
    const char *reads;
    bool on_target;

    observe_switches(cutover, rollback, &f);
    on_target = observe_is_back(&f);
    reads = observe_reads(cutover, rollback, &f);
    /* Past `prepared` a switch goes on or is given up as a whole. */
    if (strcmp(reads, on_target ? "target" : "source") == 0 ||
        under_way(on_target ? rollback : cutover))
        return 0;
    err_set(e, ERR_REFUSED,
            "reads were sent ahead to the %s, which would grow stale; nothing was removed", reads);
    return err_hint(e, "lockstep %s --stage reads takes them back",
                    on_target ? "cutover" : "rollback");
}

/* A switch in either direction is behind the point of no return, or the user gives up, or an
 * earlier finish was cut off. *back: the way back has switched last, so that the source lives. */
static int check_phase(struct db *target, struct db *source, bool abandon, bool *back,
                       struct err *e)
{
    json_t *cutover = NULL;
    json_t *rollback = NULL;
    json_t *request = NULL;
    bool exists;
    bool begun;
    bool ok;
    int rc = -1;

    *back = false;
    if (source->engine->control_exists(source, &exists, e) < 0 ||
        fact_read(target, "cutover", "forward", &cutover, NULL, e) < 0 ||
        (exists && fact_read(source, "cutover", "back", &rollback, NULL, e) < 0) ||
        fact_read(target, "request", "finish", &request, NULL, e) < 0)
        goto out;
    *back = switched_back(cutover, rollback);
    begun = under_way(*back ? cutover : rollback);
    ok = abandon || request || (!begun && (*back || may_finish(fact_text(cutover, "state"))));
    rc = ok ? 0
            : err_set(e, ERR_REFUSED, "the cutover has not been made%s; nothing was removed",
                      begun ? " to its end" : "");
    if (!ok)
        err_hint(e, "lockstep %s first, or lockstep finish --abandon to give the migration up",
                 begun && !*back ? "rollback" : "cutover");
    if (ok && !request && demand_reads_at_home(cutover, rollback, e) < 0)
        rc = -1;
out:
    json_decref(cutover);
    json_decref(rollback);
    json_decref(request);
    return rc;
}

/* Waits until nobody holds a lease of the direction whose facts stand on db. */
static int await_stages(struct db *db, int64_t deadline, struct err *e)
{
    static const char *const leases[] = {"cutover", "run", "conductor", "capture", "apply"};

    for (size_t i = 0; i < sizeof(leases) / sizeof(leases[0]);) {
        char holder[HOLDER_MAX];
        int held = lease_held(db, leases[i], holder, sizeof(holder), e);

        if (held < 0 || stop_check(e) < 0)
            return -1;
        if (!held) {
            i++;
            continue;
        }
        if (mono_ms() > deadline) {
            err_set(e, ERR_FATAL, "%s does not end; it holds the lease %s", holder, leases[i]);
            return err_hint(e, "stop that process, then lockstep finish again");
        }
        nap_ms(POLL_MS);
    }
    return 0;
}

/* Asks running stages to end and waits until they have, those of the way back too. */
static int stop_stages(struct db *target, struct db *source, bool abandon, struct err *e)
{
    int64_t deadline = mono_ms() + WAIT_MS;
    bool exists;

    if (request_put(target, "finish", json_pack("{s:b}", "abandon", abandon), e) < 0 ||
        await_stages(target, deadline, e) < 0 ||
        source->engine->control_exists(source, &exists, e) < 0)
        return -1;
    return exists ? await_stages(source, deadline, e) : 0;
}

/* An engine without a fence leaves its slot empty. One that another migration has moved is that
 * one's: it may be what keeps a closed side closed. */
static int remove_fence(const struct migration *m, struct db *db, bool *stays, struct err *e)
{
    struct fence_state f = {0};

    if (!db->engine->fence_remove)
        return 0;
    if (db->engine->fence_state(db, &f, e) < 0)
        return -1;
    if (!switch_token_is_anothers(f.token, m->name))
        return db->engine->fence_remove(db, e);
    *stays = true;
    return 0;
}

/* One server: what stands on it as the source of m (its stream) and as a side of either direction.
 */
static int clean_side(const struct migration *m, enum db_side side, bool *fence_stays,
                      struct err *e)
{
    struct db_options o = {
        .uri = m->source.uri, .migration = m->name, .use = DB_CONTROL, .back = m->back};
    struct db *db = NULL;
    int rc = -1;

    if (migration_open_source(m, DB_CONTROL, &db, e) < 0)
        return -1;
    if (remove_fence(m, db, fence_stays, e) == 0 && db->engine->stream_drop(&o, e) == 0 &&
        db->engine->control_remove(db, side, e) == 0)
        rc = 0;
    db->engine->close(db);
    return rc;
}

/* The journal of one direction; another migration's of this name is left alone. Without facts there
 * never was a way back, or its journal is gone already. */
static int remove_journal(const struct migration *m, struct err *e)
{
    struct owned_journal journal;
    struct db *db = NULL;
    int rc;

    if (migration_open_target(m, DB_CONTROL, &db, e) < 0)
        return -1;
    rc = owned_journal(m, db, &journal, e);
    if (rc == 0 && (journal.options.owner || !m->back))
        rc = journal_remove(&journal.options, e);
    db->engine->close(db);
    return rc;
}

/* Of `fence_stays` those are set that do. */
static int clean_all(const struct context *x, bool fence_stays[2], struct err *e)
{
    struct arena a = ARENA_INIT;
    struct migration mirror;
    int rc = -1;

    migration_mirror(&x->m, &a, &mirror);
    /* Each journal before the facts that tell whose it is. */
    if (remove_journal(&mirror, e) < 0)
        err_wrap(e, "the way back's journal");
    else if (clean_side(&x->m, SIDE_SOURCE, &fence_stays[SIDE_SOURCE], e) < 0)
        err_wrap(e, "source");
    else if (remove_journal(&x->m, e) == 0)
        rc = clean_side(&mirror, SIDE_TARGET, &fence_stays[SIDE_TARGET], e) < 0
                 ? err_wrap(e, "target")
                 : 0;
    arena_release(&a);
    return rc;
}

static void tell_fences(struct cli *c, const bool stays[2])
{
    static const char *const sides[] = {[SIDE_SOURCE] = "source", [SIDE_TARGET] = "target"};

    for (int i = 0; i < 2; i++) {
        if (stays[i])
            cli_say(c,
                    "the fence of the %s stays: another migration has moved it last, and finish "
                    "of that one removes it",
                    sides[i]);
    }
}

/* ---- what is left without facts on the target ---- */

/* Of m's name, without the target's facts: what an earlier finish left that could not reach the
 * source, or was cut off. Each is judged by what it tells of itself. */
struct remains {
    bool facts;     /* the way back's, on the source */
    bool fence;     /* on the source */
    bool slot;      /* on the source */
    bool slot_back; /* on the target */
    bool journal;
    bool journal_back;
    char others[700]; /* the facts of another migration of this name on the source; "": none */
};

static bool is_server(const json_t *seen, const struct server_identity *now)
{
    const char *system = fact_text(seen, "system");
    const char *database = fact_text(seen, "database");

    return system && database && strcmp(system, now->system) == 0 &&
           strcmp(database, now->database) == 0;
}

static void name_others(const json_t *self, char *out, size_t size)
{
    const json_t *source = json_object_get(self, "source");
    const json_t *target = json_object_get(self, "target");
    const char *names[] = {fact_text(source, "system"), fact_text(source, "database"),
                           fact_text(target, "system"), fact_text(target, "database")};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        names[i] = names[i] ? names[i] : "?";
    snprintf(out, size, "%s %.100s/%.100s to %.100s/%.100s",
             fact_bool(self, "back") ? "the way back, from" : "from", names[0], names[1], names[2],
             names[3]);
}

/* Ours are those of a way back between these two servers, and no others: a migration of this name
 * may go the other way, or from the same source to another target. */
static int look_at_facts(struct db *source, struct db *target, struct remains *r, struct err *e)
{
    struct server_identity here;
    struct server_identity there;
    json_t *self = NULL;
    bool exists;

    if (source->engine->control_exists(source, &exists, e) < 0 ||
        (exists && fact_read(source, "migration", "self", &self, NULL, e) < 0))
        return -1;
    if (!self)
        return 0;
    if (source->engine->identify(source, &here, e) < 0 ||
        target->engine->identify(target, &there, e) < 0) {
        json_decref(self);
        return -1;
    }
    r->facts = fact_bool(self, "back") && is_server(json_object_get(self, "source"), &there) &&
               is_server(json_object_get(self, "target"), &here);
    if (!r->facts)
        name_others(self, r->others, sizeof(r->others));
    json_decref(self);
    return 0;
}

/* One that nobody has moved tells not whose it is, and closes nothing. */
static int look_at_fence(const struct migration *m, struct db *source, struct remains *r,
                         struct err *e)
{
    struct fence_state f = {0};

    if (source->engine->fence_remove && source->engine->fence_state(source, &f, e) < 0)
        return -1;
    r->fence = f.token[0] && !switch_token_is_anothers(f.token, m->name);
    return 0;
}

/* A fence there is not looked for: it goes before the facts, so one without them is another's. */
static int look_at_target(const struct migration *mirror, struct remains *r, struct err *e)
{
    struct arena a = ARENA_INIT;
    struct retention kept = {.state = ""};
    struct db *db = NULL;
    int rc;

    if (migration_open_source(mirror, DB_CONTROL, &db, e) < 0)
        return -1;
    rc = db->engine->retention(db, &a, &kept, e);
    r->slot_back = kept.ours;
    db->engine->close(db);
    arena_release(&a);
    return rc;
}

/* A journal that tells whose it is must have its beginning, or the way back's its end, at the
 * source. *out: it is there; another migration's is refused. */
static int look_at_journal(const struct migration *m, struct db *source, bool *out, struct err *e)
{
    struct journal_stats stats;
    struct server_identity id;
    char end[sizeof(id.system) + sizeof(id.database) + 16];
    int found = journal_stat(&m->journal, &stats, e);

    if (found < 0)
        return -1;
    *out = found;
    if (!found || !stats.owner[0])
        return 0;
    if (source->engine->identify(source, &id, e) < 0)
        return -1;
    snprintf(end, sizeof(end), m->back ? " to %s/%s" : "from %s/%s to ", id.system, id.database);
    if (strstr(stats.owner, end))
        return 0;
    err_set(e, ERR_REFUSED,
            "the target knows nothing of this migration, and the journal of its name is another "
            "migration's (%s); nothing was removed",
            stats.owner);
    return err_hint(e, "correct source, target and migration in the configuration");
}

/* Beside facts of another migration of this name all that stands on the source may be that one's,
 * and the journals too. */
static int look(const struct migration *m, const struct migration *mirror, struct db *source,
                struct db *target, struct remains *r, struct err *e)
{
    struct arena a = ARENA_INIT;
    struct retention kept = {.state = ""};
    int rc = look_at_facts(source, target, r, e);

    if (rc == 0 && !r->others[0])
        rc = look_at_fence(m, source, r, e) < 0 ||
                     source->engine->retention(source, &a, &kept, e) < 0 ||
                     look_at_journal(m, source, &r->journal, e) < 0 ||
                     look_at_journal(mirror, source, &r->journal_back, e) < 0
                 ? -1
                 : 0;
    r->slot = kept.ours;
    arena_release(&a);
    return rc < 0 ? -1 : look_at_target(mirror, r, e);
}

static bool list_remains(const struct remains *r, char *out, size_t size)
{
    const struct {
        bool there;
        const char *name;
    } all[] = {
        {r->facts, "facts on the source"}, {r->fence, "a fence on the source"},
        {r->slot, "a slot on the source"}, {r->slot_back, "a slot on the target"},
        {r->journal, "the journal"},       {r->journal_back, "the way back's journal"},
    };

    out[0] = '\0';
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (all[i].there)
            snprintf(out + strlen(out), size - strlen(out), "%s%s", out[0] ? ", " : "",
                     all[i].name);
    }
    return out[0] != '\0';
}

/* A process that still travels the way back is not to find it gone under its feet; each journal
 * goes before the facts that tell whose it is. */
static int remove_remains(const struct migration *m, const struct migration *mirror,
                          struct db *source, const struct remains *r, bool fence_stays[2],
                          struct err *e)
{
    if (r->facts && await_stages(source, mono_ms() + WAIT_MS, e) < 0)
        return -1;
    if (r->journal_back && journal_remove(&mirror->journal, e) < 0)
        return err_wrap(e, "the way back's journal");
    if ((r->facts || r->fence || r->slot) &&
        clean_side(m, SIDE_SOURCE, &fence_stays[SIDE_SOURCE], e) < 0)
        return err_wrap(e, "source");
    if (r->slot_back && clean_side(mirror, SIDE_TARGET, &fence_stays[SIDE_TARGET], e) < 0)
        return err_wrap(e, "target");
    return r->journal ? remove_journal(m, e) : 0;
}

static void tell_remains(struct cli *c, const struct remains *r, const char *list,
                         const bool fence_stays[2])
{
    if (list[0])
        cli_say(c, "abandoned: gone are %s", list);
    else
        cli_say(c, "nothing left");
    tell_fences(c, fence_stays);
    if (r->others[0])
        cli_say(c,
                "what stands on the source stays: it is another migration's of this name (%s), and "
                "finish of that one removes it",
                r->others);
    if (r->fence && !fence_stays[SIDE_SOURCE])
        cli_say(c, "warning: with its fence gone the source accepts writes again, and nothing "
                   "carries them over; shut it, or take the applications' rights there away");
    cli_put(c, "result", json_string(list[0] ? "abandoned" : "nothing_left"));
}

/* The configuration may name a wrong target, so what is there is not taken away without being told
 * to. */
static int finish_remains(struct cli *c, const struct migration *m, const struct migration *mirror,
                          struct db *source, struct db *target, struct err *e)
{
    struct remains r = {0};
    bool fence_stays[2] = {false, false};
    char question[320];
    char list[200];
    bool some;

    if (look(m, mirror, source, target, &r, e) < 0)
        return -1;
    some = list_remains(&r, list, sizeof(list));
    if (some && !cli_option(c, "abandon")) {
        err_set(e, ERR_REFUSED,
                "the target knows nothing of this migration, but there is: %s; nothing was removed",
                list);
        return err_hint(e, "correct the target in the configuration, or lockstep finish --abandon");
    }
    snprintf(question, sizeof(question), "Remove what is left: %s?", list);
    if (some && (cli_confirm(c, question, e) < 0 ||
                 remove_remains(m, mirror, source, &r, fence_stays, e) < 0))
        return -1;
    tell_remains(c, &r, list, fence_stays);
    return EXIT_DONE;
}

static int finish_unknown(struct cli *c, const struct context *x, struct db *target, struct err *e)
{
    struct arena a = ARENA_INIT;
    struct migration mirror;
    struct db *source = NULL;
    int rc;

    if (migration_open_source(&x->m, DB_CONTROL, &source, e) < 0)
        return -1;
    migration_mirror(&x->m, &a, &mirror);
    rc = finish_remains(c, &x->m, &mirror, source, target, e);
    source->engine->close(source);
    arena_release(&a);
    return rc;
}

/* ---- a migration that the target knows ---- */

static void tell(struct cli *c, bool abandon, bool back, const bool fence_stays[2])
{
    cli_say(c, abandon ? "abandoned: slots, publications, fences, control tables and journals are "
                         "gone; the target keeps its tables"
                       : "finished: slots, publications, fences, control tables and journals are "
                         "gone");
    tell_fences(c, fence_stays);
    if (!abandon && !fence_stays[back ? SIDE_TARGET : SIDE_SOURCE])
        cli_say(c,
                "warning: with its fence gone the %s accepts writes again, and nothing "
                "carries them over; shut it, or take the applications' rights there away",
                back ? "target" : "old source");
    cli_put(c, "result", json_string(abandon ? "abandoned" : "finished"));
}

static int finish_known(struct cli *c, const struct context *x, struct db *target,
                        struct db *source, struct err *e)
{
    bool abandon = cli_option(c, "abandon") != NULL;
    bool fence_stays[2] = {false, false};
    bool back;

    if (check_phase(target, source, abandon, &back, e) < 0)
        return -1;
    if (cli_confirm(c,
                    abandon ? "Give the migration up and remove all of lockstep from both servers?"
                            : "Remove all of lockstep from both servers? There is no way back.",
                    e) < 0)
        return -1;
    /* Whoever conducted a switch meanwhile has ended it: which side lives is asked again. */
    if (stop_stages(target, source, abandon, e) < 0 ||
        check_phase(target, source, abandon, &back, e) < 0 || clean_all(x, fence_stays, e) < 0)
        return -1;
    tell(c, abandon, back, fence_stays);
    return EXIT_DONE;
}

/* ---- an old source that is gone ---- */

/* The applications live on the target, and the slot of the way back there keeps its log for a
 * server that may never come again. */
static int target_lives(struct db *target, bool *out, struct err *e)
{
    json_t *cutover;

    if (fact_read(target, "cutover", "forward", &cutover, NULL, e) < 0)
        return -1;
    *out = may_finish(fact_text(cutover, "state"));
    json_decref(cutover);
    return 0;
}

/* Whether the way back has switched last, only the source could tell: so the user must say it. */
static int finish_alone(struct cli *c, const struct context *x, struct db *target, struct err *e)
{
    struct arena a = ARENA_INIT;
    struct migration mirror;
    bool fence_stays[2] = {false, false};
    int rc = -1;

    migration_mirror(&x->m, &a, &mirror);
    if (cli_confirm(c,
                    "The source cannot be reached. Remove all of lockstep from the target alone, "
                    "for the applications live there?",
                    e) < 0 ||
        request_put(target, "finish", json_pack("{s:b}", "abandon", true), e) < 0 ||
        await_stages(target, mono_ms() + WAIT_MS, e) < 0 || remove_journal(&x->m, e) < 0 ||
        clean_side(&mirror, SIDE_TARGET, &fence_stays[SIDE_TARGET], e) < 0)
        goto out;
    tell_fences(c, fence_stays);
    cli_say(c,
            "abandoned: slot, publication, fence and control tables on the target and the journal "
            "are gone");
    cli_say(c,
            "left: what stands on the source, and the way back's journal (%s); should the source "
            "come back, lockstep finish --abandon removes them, and its fence stays until then",
            mirror.journal.uri);
    cli_put(c, "result", json_string("abandoned"));
    rc = EXIT_DONE;
out:
    arena_release(&a);
    return rc;
}

static int finish(struct cli *c, const struct context *x, struct db *target, struct err *e)
{
    struct db *source = NULL;
    bool started;
    bool lives;
    int rc;

    if (context_started(target, &started, e) < 0)
        return -1;
    if (!started)
        return finish_unknown(c, x, target, e);
    if (migration_open_source(&x->m, DB_CONTROL, &source, e) < 0) {
        struct err why = *e;

        if (target_lives(target, &lives, e) < 0)
            return -1;
        if (lives && cli_option(c, "abandon"))
            return finish_alone(c, x, target, e);
        *e = why;
        if (lives)
            err_hint(e, "start the source; if it is gone for good and was not rolled back to: "
                        "lockstep finish --abandon takes lockstep from the target alone");
        return -1;
    }
    rc = finish_known(c, x, target, source, e);
    source->engine->close(source);
    return rc;
}

int command_finish(struct cli *c, struct err *e)
{
    struct context x;
    struct db *target = NULL;
    int rc = -1;

    if (context_open(&x, c, e) < 0)
        return -1;
    if (migration_open_target(&x.m, DB_CONTROL, &target, e) == 0) {
        rc = finish(c, &x, target, e);
        target->engine->close(target);
    }
    context_close(&x);
    return rc;
}
