/* A normal course: the server's thread reserves a place, suspends the client and asks (ASKED); the
 * thread here finds the position (WAITING), looks at the checkpoint until it is reached or the time
 * is up, writes the answer, and calls back (ANSWERED); the server's thread hands the answer out and
 * releases the place.
 *
 * What a place holds belongs to this thread while it is ASKED or WAITING, else to the server's;
 * only `stage` is read and set by both, under the lock. A client that is gone is noticed when its
 * answer is due, which is bounded. */
#include "observe/waits.h"

#include "core/run.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define POLL_MS 5
#define ASK_AGAIN_MS 50
#define IDLE_MS 60000
#define IDLE_LOOK_S 1
#define JOIN_S 3
#define STACK_BYTES ((size_t)512 * 1024)
#define ANSWER_MAX 3000

enum wait_stage { WAIT_FREE, WAIT_RESERVED, WAIT_ASKED, WAIT_WAITING, WAIT_ANSWERED };

struct wait {
    struct waits *waits;
    enum wait_stage stage;
    bool abandoned; /* released before it was answered */
    struct wait_question question;
    int64_t deadline; /* mono_ms */
    void (*answered)(void *ctx);
    void *ctx;
    bool back; /* WAITING: the road that its token is of */
    struct token token;
    unsigned status;
    char answer[ANSWER_MAX];
};

struct waits {
    const struct migration *m;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t asked;
    bool quit;  /* the thread is to end */
    bool ended; /* it answers nobody any more */
    struct wait all[WAITS_MAX];

    /* the thread's own */
    struct db *target;
    struct db *source;
    struct token_road road; /* of this round */
    int64_t last_ms;        /* of the last question */
    bool failed;            /* the last round did */
};

/* ---- answers ---- */

/* Takes the reference over. */
static void answer(struct wait *q, unsigned status, json_t *body)
{
    struct waits *w = q->waits;
    char *text = json_dumps(body, JSON_COMPACT | JSON_PRESERVE_ORDER);
    bool abandoned;

    invariant(text != NULL);
    q->status = status;
    snprintf(q->answer, sizeof(q->answer), "%.*s\n", ANSWER_MAX - 2, text);
    free(text);
    json_decref(body);
    pthread_mutex_lock(&w->lock);
    abandoned = q->abandoned;
    q->stage = abandoned ? WAIT_FREE : WAIT_ANSWERED;
    pthread_mutex_unlock(&w->lock);
    /* The client is suspended until this call: its place is not released in between. */
    if (!abandoned)
        q->answered(q->ctx);
}

static void answer_error(struct wait *q, unsigned status, const char *what)
{
    json_t *body = json_pack("{s:s}", "error", what);

    if (!q->question.tell)
        json_object_set_new(body, "reached", json_false());
    answer(q, status, body);
}

static json_t *text_or_null(const char *text)
{
    return text[0] ? json_string(text) : json_null();
}

static void answer_state(struct wait *q, const struct token_road *r, const struct token_state *s)
{
    static const unsigned statuses[] = {
        [TOKEN_REACHED] = 200, [TOKEN_NOT_YET] = 504, [TOKEN_TABLES] = 409};
    json_t *body =
        json_pack("{s:b, s:o, s:s, s:s, s:o}", "reached", s->verdict == TOKEN_REACHED, "position",
                  text_or_null(q->token.text), "of", token_written(r), "read", token_read(r),
                  "consistent_up_to", text_or_null(s->consistent));

    if (s->verdict == TOKEN_TABLES)
        json_object_set_new(body, "tables", json_string(s->tables));
    answer(q, statuses[s->verdict], body);
}

/* ---- the thread's connections ---- */

static void disconnect(struct waits *w)
{
    struct db **both[] = {&w->target, &w->source};

    for (size_t i = 0; i < 2; i++) {
        if (*both[i])
            (*both[i])->engine->close(*both[i]);
        *both[i] = NULL;
    }
}

static int connect_ends(struct waits *w, struct err *e)
{
    if (!w->target && migration_open_target(w->m, DB_CONTROL, &w->target, e) < 0)
        return -1;
    return w->source ? 0 : migration_open_source(w->m, DB_CONTROL, &w->source, e);
}

/* ---- a round ---- */

static size_t list(struct waits *w, enum wait_stage stage, struct wait **out)
{
    size_t n = 0;

    pthread_mutex_lock(&w->lock);
    for (size_t i = 0; i < WAITS_MAX; i++) {
        if (w->all[i].stage == stage)
            out[n++] = &w->all[i];
    }
    pthread_mutex_unlock(&w->lock);
    return n;
}

static void answer_all(struct waits *w, enum wait_stage stage, unsigned status, const char *what)
{
    struct wait *some[WAITS_MAX];
    size_t n = list(w, stage, some);

    for (size_t i = 0; i < n; i++)
        answer_error(some[i], status, what);
}

static void begin_waiting(struct wait *q, bool back)
{
    struct waits *w = q->waits;

    q->back = back;
    pthread_mutex_lock(&w->lock);
    q->stage = WAIT_WAITING;
    pthread_mutex_unlock(&w->lock);
}

/* -1 only if a server could not be asked. */
static int take_question(struct waits *w, struct wait *q, struct err *e)
{
    const char *position = q->question.tell ? NULL : q->question.position;
    const char *of = q->question.of[0] ? q->question.of : NULL;
    int rc = token_find(&w->road, position, q->question.tell ? NULL : of, &q->token, e);

    if (rc < 0 && (e->class == ERR_RETRY || e->class == ERR_UNKNOWN || e->class == ERR_STOPPED))
        return -1;
    if (rc < 0) {
        answer_error(q, e->class == ERR_CONFIG ? 400 : 503, e->msg);
        err_clear(e);
    } else if (rc == 0 && mono_ms() >= q->deadline) {
        answer_error(q, 504, "the server's log has not come so far");
    } else if (rc > 0 && q->question.tell) {
        answer(q, 200,
               json_pack("{s:s, s:s}", "position", q->token.text, "of", token_written(&w->road)));
    } else if (rc > 0) {
        begin_waiting(q, w->road.back);
    }
    return 0;
}

/* Those who have just come, and those whose position the server has not written yet. */
static int take_questions(struct waits *w, struct err *e)
{
    struct wait *some[WAITS_MAX];
    size_t n = list(w, WAIT_ASKED, some);

    if (n == 0)
        return 0;
    w->last_ms = mono_ms();
    if (token_road_find(w->target, w->source, &w->road, e) < 0) {
        if (e->class != ERR_REFUSED)
            return -1;
        answer_all(w, WAIT_ASKED, 503, e->msg);
        err_clear(e);
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        if (take_question(w, some[i], e) < 0)
            return -1;
    }
    return 0;
}

static const struct wait *nearest(struct wait *const *some, size_t n, bool back)
{
    const struct wait *found = NULL;

    for (size_t i = 0; i < n; i++) {
        const struct wait *q = some[i];

        if (q->back == back && !q->token.reached &&
            (!found || position_cmp(q->token.at, found->token.at) < 0))
            found = q;
    }
    return found;
}

/* What was seen, told of this one. */
static void judge(struct wait *q, const struct token_road *r, const struct token_state *seen)
{
    struct token_state mine = *seen;
    bool late = mono_ms() >= q->deadline;

    if (q->token.reached)
        mine.verdict = TOKEN_REACHED;
    else if (position_cmp(seen->next, q->token.at) < 0)
        mine.verdict = TOKEN_NOT_YET;
    if (mine.verdict == TOKEN_REACHED || late || (mine.verdict == TOKEN_TABLES && mine.parked))
        answer_state(q, r, &mine);
}

/* One look for all whose token is of this road: by the nearest token all are judged. */
static int look_at_road(struct waits *w, struct wait *const *some, size_t n, bool back,
                        struct err *e)
{
    struct token_road r = {
        .back = back, .from = back ? w->target : w->source, .to = back ? w->source : w->target};
    const struct wait *first = nearest(some, n, back);
    struct token_state seen = {.verdict = TOKEN_NOT_YET};

    if (first && token_look(&r, &first->token, &seen, e) < 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        if (some[i]->back == back)
            judge(some[i], &r, &seen);
    }
    return 0;
}

static int work(struct waits *w, struct err *e)
{
    struct wait *some[WAITS_MAX];
    size_t n;

    if (connect_ends(w, e) < 0 || take_questions(w, e) < 0)
        return -1;
    n = list(w, WAIT_WAITING, some);
    return look_at_road(w, some, n, false, e) < 0 ? -1 : look_at_road(w, some, n, true, e);
}

/* ---- the thread ---- */

/* Under the lock. */
static bool is_wanted(const struct waits *w)
{
    for (size_t i = 0; i < WAITS_MAX; i++) {
        if (w->all[i].stage == WAIT_ASKED || w->all[i].stage == WAIT_WAITING)
            return true;
    }
    return false;
}

/* Some wait for a position that the server has not written yet, which each round asks for. */
static bool has_open_questions(struct waits *w)
{
    struct wait *some[WAITS_MAX];

    return list(w, WAIT_ASKED, some) > 0;
}

/* Until there is something to do, at most a second. False: to end. */
static bool await_questions(struct waits *w, bool *wanted)
{
    struct timespec until;
    bool goes_on;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += IDLE_LOOK_S;
    pthread_mutex_lock(&w->lock);
    if (!w->quit && !is_wanted(w))
        pthread_cond_timedwait(&w->asked, &w->lock, &until);
    *wanted = is_wanted(w);
    goes_on = !w->quit && !stop_requested();
    pthread_mutex_unlock(&w->lock);
    return goes_on;
}

static void end_answering(struct waits *w)
{
    static const char why[] = "this process is ending";

    pthread_mutex_lock(&w->lock);
    w->ended = true;
    pthread_mutex_unlock(&w->lock);
    answer_all(w, WAIT_ASKED, 503, why);
    answer_all(w, WAIT_WAITING, 503, why);
}

/* A connection that was idle may have been dead for long: the first failure is tried again. */
static void round_failed(struct waits *w, const struct err *e)
{
    disconnect(w);
    w->failed = !w->failed;
    if (w->failed)
        return;
    answer_all(w, WAIT_ASKED, 503, e->msg);
    answer_all(w, WAIT_WAITING, 503, e->msg);
}

static void *waits_main(void *arg)
{
    struct waits *w = arg;
    bool wanted;

    while (await_questions(w, &wanted)) {
        struct err e = {0};

        if (!wanted) {
            if (mono_ms() - w->last_ms > IDLE_MS)
                disconnect(w);
            continue;
        }
        if (work(w, &e) < 0)
            round_failed(w, &e);
        else
            w->failed = false;
        nap_ms(has_open_questions(w) ? ASK_AGAIN_MS : POLL_MS);
    }
    end_answering(w);
    disconnect(w);
    return NULL;
}

/* ---- open and close ---- */

int waits_open(const struct migration *m, struct waits **out, struct err *e)
{
    struct waits *w = calloc(1, sizeof(*w));
    pthread_condattr_t clock;
    pthread_attr_t attr;
    int code;

    invariant(w != NULL);
    w->m = m;
    for (size_t i = 0; i < WAITS_MAX; i++)
        w->all[i].waits = w;
    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&w->asked, &clock);
    pthread_condattr_destroy(&clock);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    code = pthread_create(&w->thread, &attr, waits_main, w);
    pthread_attr_destroy(&attr);
    if (code == 0) {
        *out = w;
        return 0;
    }
    waits_release(w);
    return err_set(e, ERR_FATAL, "a thread for waiting clients cannot be made: %s", strerror(code));
}

bool waits_end(struct waits *w)
{
    struct timespec until;

    pthread_mutex_lock(&w->lock);
    w->quit = true;
    pthread_cond_signal(&w->asked);
    pthread_mutex_unlock(&w->lock);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += JOIN_S;
    return pthread_timedjoin_np(w->thread, NULL, &until) == 0;
}

void waits_release(struct waits *w)
{
    if (!w)
        return;
    pthread_cond_destroy(&w->asked);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

/* ---- places ---- */

struct wait *wait_reserve(struct waits *w)
{
    struct wait *found = NULL;

    pthread_mutex_lock(&w->lock);
    for (size_t i = 0; i < WAITS_MAX && !found && !w->ended; i++) {
        if (w->all[i].stage == WAIT_FREE)
            found = &w->all[i];
    }
    if (found) {
        found->stage = WAIT_RESERVED;
        found->abandoned = false;
    }
    pthread_mutex_unlock(&w->lock);
    return found;
}

void wait_ask(struct wait *wait, const struct wait_question *q, void (*answered)(void *ctx),
              void *ctx)
{
    struct waits *w = wait->waits;
    bool ended;

    wait->question = *q;
    wait->deadline = mono_ms() + q->timeout_ms;
    wait->answered = answered;
    wait->ctx = ctx;
    pthread_mutex_lock(&w->lock);
    ended = w->ended;
    /* What is ASKED is the thread's to answer. */
    if (!ended)
        wait->stage = WAIT_ASKED;
    pthread_cond_signal(&w->asked);
    pthread_mutex_unlock(&w->lock);
    if (ended)
        answer_error(wait, 503, "this process is ending");
}

const char *wait_answer(const struct wait *wait, unsigned *status)
{
    *status = wait->status;
    return wait->answer;
}

void wait_release(struct wait *wait)
{
    struct waits *w = wait ? wait->waits : NULL;

    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    if (wait->stage == WAIT_ASKED || wait->stage == WAIT_WAITING)
        wait->abandoned = true;
    else
        wait->stage = WAIT_FREE;
    pthread_mutex_unlock(&w->lock);
}
