/* The pause, predicted from what it will be made of, while the applications still write.
 *
 * A round takes each part once, by the code and over the connections that the pause itself will
 * use. Only what would refuse somebody a write has a stand-in: for the flip and the seal a lift of
 * the closing side's open fence, which locks the same row and commits as durably (or, if that took
 * longer, the seal of the opening side said once more); and the writers are waited for as behind
 * the flip, but none is ended, and those that come meanwhile are not held up. What a part costs is
 * multiplied by how often the steps (steps.c) and the driver do it between the flip and the lift.
 *
 * Headroom is added in three places, each for a reason. A writer may be met that runs for longer
 * than any of those that were seen: it is ended after the grace, so that is the bound; ending one
 * takes time too, as long again at most. And a sample is in whole milliseconds, so one is added to
 * the largest. Nothing is added for luck. What nobody may end is a prepared transaction that is not
 * decided: one that has stood in every round is refused for. What cannot be foreseen is one that is
 * prepared later, and the half second that a MariaDB server's seal gives to whoever is just logging
 * in. */
#include "cutover/internal.h"
#include "core/run.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

/* Before `settled`, before `closed`, and when what was sealed is drained. */
#define LOOKS_AT_LANES 3
/* Rounds in all, if those before do not fit into max_pause: the last ones count. */
#define ROUNDS_MAX 10

/* ---- the parts ---- */

/* Of the rows behind the flip. What is asked beside a drain may yet take longer than that. */
static int ask_guards(struct cutover *c, struct err *e)
{
    const struct cutover_row *closes = cutover_row_from(CUTOVER_SETTLED);

    for (int i = 0; i < LOOKS_AT_LANES - 1; i++) {
        if (checks_demand(c, CHECK_LANES, e) < 0)
            return -1;
    }
    return checks_demand(c, CHECK_LANES | closes->beside, e);
}

static int write_record(struct cutover *c, struct err *e)
{
    return state_set(c, c->state, "prepared", e);
}

/* It is sealed by us already. The commit of `closed` is made durable first, and where it opens is
 * marked. */
static int move_opening(struct cutover *c, struct err *e)
{
    const struct engine *engine = c->opening->engine;
    struct fence_state f;
    struct marker m;

    if (engine->sync(c->opening, e) < 0 || engine->fence_state(c->opening, &f, e) < 0 ||
        (has_turn(c) && marker_set(c, c->opening, "po", &m, e) < 0))
        return -1;
    return engine->fence_seal(c->opening, c->token, c->epoch, e);
}

/* Its fence is open, and what another coordinator holds is not lifted by our token. A rehearsal has
 * installed none there. */
static int move_closing(struct cutover *c, struct err *e)
{
    return c->r->rehearse ? 0 : c->closing->engine->fence_lift(c->closing, c->token, e);
}

void predict_prepared(struct predict *p, const struct fence_report *report)
{
    size_t n = 0;

    for (size_t i = 0; i < report->nprepared; i++) {
        bool stands = p->rounds == 0;

        for (size_t k = n; k < p->nstanding && !stands; k++) {
            stands = p->standing[k] == report->prepared[i];
            if (stands)
                p->standing[k] = p->standing[n];
        }
        if (stands)
            p->standing[n++] = report->prepared[i];
    }
    p->nstanding = n;
}

/* Those that would be ended are not: that the time is up is all that counts of the error. A
 * connection that broke meanwhile tells so at the next call. Without a fence of ours nobody can say
 * who writes to the migrated tables: then all that writes on the server. */
static int meet_writers(struct cutover *c, struct err *e)
{
    struct fence_wait patient = {.grace_ms = INT_MAX, .deadline_ms = GRACE_MS};
    struct fence_report report = {0};
    struct db *db = c->closing;
    int64_t from = mono_ms();
    int rc = c->r->rehearse ? db->engine->settle(db, GRACE_MS, e)
                            : db->engine->fence_wait(db, &patient, &report, e);

    c->looked_ms = mono_ms();
    if (c->r->rehearse)
        report.took_ms = c->looked_ms - from;
    predict_prepared(&c->predict, &report);
    if (rc == 0)
        return 0;
    if (e->class != ERR_RETRY || report.took_ms < GRACE_MS)
        return -1;
    if (strcmp(e->sqlstate, FENCE_UNLISTED) == 0) {
        c->predict.unlisted++;
        c->predict.unlisted_why = *e;
    }
    c->predict.standing_why = *e;
    err_clear(e);
    return 0;
}

/* A rehearsal arms nothing on the side that closes. */
static int arm_closing(struct cutover *c, struct err *e)
{
    struct table_list there;

    if (!c->r->rehearse)
        return c->closing->engine->fence_install(c->closing, &c->tables, 0, e);
    tables_there(&c->tables, &c->arena, &there);
    return c->opening->engine->fence_install(c->opening, &there, 0, e);
}

#define LARGER_PAUSE "or allow a longer --max-pause"

/* In the order in which a round takes them; `take` NULL: by the round itself. */
static const struct part {
    const char *name;
    int times;
    int (*take)(struct cutover *c, struct err *e);
    const char *does;
    const char *remedy;
} parts[PARTS] = {
    [PART_GUARDS] = {"guards", 1, ask_guards, "ask the guards",
                     "see what the server of the side that opens is busy with, " LARGER_PAUSE},
    /* each end from `fenced` on, with the begin of what follows */
    [PART_RECORD] = {"record", CUTOVER_SWITCHED - CUTOVER_FENCED, write_record, "record a step",
                     "commits on the side that opens are slow: see to its disk, " LARGER_PAUSE},
    [PART_OPEN] = {"open", 1, move_opening, "open the side that opens",
                   "commits on the side that opens are slow: see to its disk, " LARGER_PAUSE},
    [PART_FENCE] = {"fence", 2, move_closing, "flip and seal the fence",
                    "commits on the side that closes are slow: see to its disk, " LARGER_PAUSE},
    [PART_ARM] = {"arm", 1, arm_closing, "see that the fence is on every table",
                  "commits on the side that closes are slow: see to its disk, " LARGER_PAUSE},
    [PART_SEQUENCES] = {"sequences", 2, sequences_copy, "read the sequences and set them",
                        "leave tables with sequences out (tables.exclude), " LARGER_PAUSE},
    [PART_WRITERS] = {"writers", 2, meet_writers, "wait for the transactions that write",
                      "wait until long transactions have ended, " LARGER_PAUSE},
    [PART_DRAIN] = {"drain", 2, NULL, "a marker from one side to the other",
                    "wait until lockstep status shows a small lag, set apply.batch_delay "
                    "lower, " LARGER_PAUSE},
    [PART_DIGEST] = {"digest", 1, digest_measure, "compare the small tables",
                     "see what both servers are busy with, " LARGER_PAUSE},
};

/* ---- adding up ---- */

static void sort(int64_t *v, int n)
{
    for (int i = 1; i < n; i++) {
        for (int k = i; k > 0 && v[k - 1] > v[k]; k--) {
            int64_t t = v[k];

            v[k] = v[k - 1];
            v[k - 1] = t;
        }
    }
}

/* The second time (which is left out where the server tells that the lease has held) nobody writes
 * any more, so it takes what a look takes that meets nobody long. */
static struct spread spread_of_writers(const int64_t *sorted, int n)
{
    int64_t most = sorted[n - 1];
    int64_t typical = sorted[n / 2];
    int64_t bound = most < GRACE_MS ? GRACE_MS : 2 * GRACE_MS;

    return (struct spread){2 * sorted[0], 2 * typical, (most > bound ? most : bound) + typical + 2};
}

static struct spread spread_of(enum pause_part p, const int64_t *samples, int n)
{
    int64_t v[PREDICT_ROUNDS];
    int times = parts[p].times;

    memcpy(v, samples, (size_t)n * sizeof(*v));
    sort(v, n);
    if (p == PART_WRITERS)
        return spread_of_writers(v, n);
    return (struct spread){times * v[0], times * v[n / 2], times * (v[n - 1] + 1)};
}

struct spread predict_sum(const int64_t samples[PARTS][PREDICT_ROUNDS], int n,
                          struct spread each[PARTS])
{
    struct spread sum = {0};

    invariant(n > 0 && n <= PREDICT_ROUNDS);
    for (int p = 0; p < PARTS; p++) {
        each[p] = spread_of((enum pause_part)p, samples[p], n);
        sum.low += each[p].low;
        sum.expected += each[p].expected;
        sum.high += each[p].high;
    }
    return sum;
}

/* ---- what is told of it ---- */

static json_t *spread_json(const struct spread *s)
{
    return json_pack("{s:I, s:I, s:I}", "low_ms", (json_int_t)s->low, "expected_ms",
                     (json_int_t)s->expected, "high_ms", (json_int_t)s->high);
}

static void note_prediction(struct cutover *c, const struct spread *sum, const struct spread *each,
                            int n)
{
    json_t *out = spread_json(sum);
    json_t *list = json_array();
    char at[UTC_MAX];

    for (int p = 0; p < PARTS; p++) {
        json_t *part = spread_json(&each[p]);
        json_t *samples = json_array();

        for (int i = 0; i < n; i++)
            json_array_append_new(samples, json_integer(c->predict.ms[p][i]));
        json_object_set_new(part, "part", json_string(parts[p].name));
        json_object_set_new(part, "does", json_string(parts[p].does));
        json_object_set_new(part, "times", json_integer(parts[p].times));
        json_object_set_new(part, "samples_ms", samples);
        json_array_append_new(list, part);
    }
    json_object_set_new(out, "parts", list);
    json_object_set_new(out, "at", json_string(clock_text(c, at)));
    json_object_set_new(out, "rehearsed", json_boolean(c->r->rehearse));
    note(c, "predicted", out);
}

bool cutover_predicted_text(const json_t *record, char *out, size_t size)
{
    const json_t *p = json_object_get(record, "predicted");

    snprintf(out, size, "%lld ms (%lld to %lld)", (long long)fact_int(p, "expected_ms", 0),
             (long long)fact_int(p, "low_ms", 0), (long long)fact_int(p, "high_ms", 0));
    return json_is_object(p);
}

static enum pause_part largest(const struct spread *each)
{
    enum pause_part most = (enum pause_part)0;

    for (int p = 1; p < PARTS; p++) {
        if (each[p].high > each[most].high)
            most = (enum pause_part)p;
    }
    return most;
}

static void tell(const struct cutover *c, const struct spread *each)
{
    enum pause_part most = largest(each);
    char text[100];

    cutover_predicted_text(c->body, text, sizeof(text));
    say(c, "the pause is predicted at %s, at most %lld of it to %s (%d x)", text,
        (long long)each[most].high, parts[most].does, parts[most].times);
}

static int refuse(struct cutover *c, const struct spread *each, struct err *e)
{
    enum pause_part most = largest(each);
    char text[100];

    /* So that the row, too, tells why. */
    if (state_set(c, c->state, "prepared", e) < 0)
        return -1;
    if (c->r->stage == CUTOVER_STAGE_READS)
        return marker_too_late(c, e);
    cutover_predicted_text(c->body, text, sizeof(text));
    err_set(e, ERR_REFUSED,
            "the pause is predicted at %s, and max_pause is %d ms; the largest part of it: %s, %d "
            "x, at most %lld ms",
            text, c->r->max_pause_ms, parts[most].does, parts[most].times,
            (long long)each[most].high);
    return err_hint(e, "%s", parts[most].remedy);
}

/* ---- a round ---- */

void predict_begin(struct cutover *c)
{
    memset(&c->predict, 0, sizeof(c->predict));
}

static int rounds_of(const struct cutover *c)
{
    int n = c->r->rounds;

    return n > 0 && n <= PREDICT_ROUNDS ? n : PREDICT_ROUNDS;
}

static int64_t *sample(struct cutover *c, enum pause_part p)
{
    return &c->predict.ms[p][c->predict.rounds % rounds_of(c)];
}

/* What is over at once, and the marker. */
static int begin_round(struct cutover *c, struct err *e)
{
    struct predict *p = &c->predict;
    char suffix[20];

    for (int i = 0; i < PARTS; i++) {
        int64_t from = mono_ms();

        if (!parts[i].take)
            continue;
        if (parts[i].take(c, e) < 0)
            return err_wrap(e, "measuring (%s)", parts[i].name);
        *sample(c, (enum pause_part)i) = mono_ms() - from;
    }
    if (*sample(c, PART_FENCE) < *sample(c, PART_OPEN))
        *sample(c, PART_FENCE) = *sample(c, PART_OPEN);
    snprintf(suffix, sizeof(suffix), "p%d", p->rounds);
    p->marked_ms = mono_ms();
    if (marker_set(c, c->closing, suffix, &c->marker, e) < 0)
        return -1;
    p->marked = true;
    return 0;
}

static int judge(struct cutover *c, struct err *e)
{
    int n = rounds_of(c);
    struct spread each[PARTS];
    struct spread sum;

    if (c->predict.rounds < n)
        return 0;
    /* Once is chance. If it is always so, the pause would fail by it. */
    if (c->r->stage != CUTOVER_STAGE_READS && c->predict.unlisted == c->predict.rounds) {
        *e = c->predict.unlisted_why;
        e->class = ERR_REFUSED;
        return -1;
    }
    if (c->r->stage != CUTOVER_STAGE_READS && c->predict.nstanding > 0) {
        *e = c->predict.standing_why;
        e->class = ERR_REFUSED;
        return err_wrap(e, "a prepared transaction has stood while the pause was predicted, and a "
                           "cutover could not end it");
    }
    sum = predict_sum(c->predict.ms, n, each);
    note_prediction(c, &sum, each, n);
    if (c->r->stage == CUTOVER_STAGE_READS ? c->predict.passed
                                           : sum.high <= c->r->max_pause_ms || c->r->rehearse) {
        tell(c, each);
        return 1;
    }
    return c->predict.rounds < ROUNDS_MAX ? 0 : refuse(c, each, e);
}

/* A marker that has not passed within max_pause is not waited for any longer: that is enough. */
static int end_round(struct cutover *c, struct err *e)
{
    struct predict *p = &c->predict;
    int rc;

    rc = marker_passed(c, e);
    if (rc < 0 || (rc == 0 && mono_ms() - p->marked_ms <= c->r->max_pause_ms))
        return rc;
    p->passed = rc > 0;
    *sample(c, PART_DRAIN) = mono_ms() - p->marked_ms;
    p->marked = false;
    p->rounds++;
    digest_again(c);
    return judge(c, e);
}

int predict_step(struct cutover *c, struct err *e)
{
    struct predict *p = &c->predict;
    int rc;

    if (p->marked) {
        rc = end_round(c, e);
        if (rc < 0)
            return -1;
        p->judged = rc > 0;
    }
    /* The look of the next round, or that behind the flip, must not have to wait for a new list. */
    if (p->marked || looked_just_now(c))
        return 0;
    return p->judged ? 1 : begin_round(c, e);
}
