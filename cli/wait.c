/* wait: until what is read holds what was written (observe/token.h). Reads only. */
#include "cli/cli.h"
#include "core/run.h"
#include "observe/token.h"

#include <string.h>

#define TIMEOUT_DEFAULT_MS 5000
#define TIMEOUT_MAX_MS ((int64_t)60 * 60 * 1000)
/* Apply is milliseconds behind; one look is one small query. */
#define POLL_MS 5
#define POLL_LATER_MS 50
#define SOON_MS 500

struct asked {
    const char *position; /* NULL: the present end of the log */
    const char *of;
    int64_t timeout_ms;
    int64_t began_ms;
};

static bool in_time(const struct asked *q)
{
    return mono_ms() - q->began_ms < q->timeout_ms;
}

static void nap(const struct asked *q)
{
    nap_ms(mono_ms() - q->began_ms < SOON_MS ? POLL_MS : POLL_LATER_MS);
}

/* 1 found, 0 not in time, -1. */
static int await_token(const struct asked *q, const struct token_road *r, struct token *out,
                       struct err *e)
{
    for (;;) {
        int rc = token_find(r, q->position, q->of, out, e);

        if (rc != 0 || !in_time(q))
            return rc;
        if (stop_check(e) < 0)
            return -1;
        nap(q);
    }
}

/* Until it is reached, or a table is parked, or the time is up. */
static int await_state(const struct asked *q, const struct token_road *r, const struct token *t,
                       struct token_state *out, struct err *e)
{
    for (;;) {
        if (token_look(r, t, out, e) < 0)
            return -1;
        if (out->verdict == TOKEN_REACHED || out->parked || !in_time(q))
            return 0;
        if (stop_check(e) < 0)
            return -1;
        nap(q);
    }
}

static void put_state(struct cli *c, const struct token_road *r, const struct token_state *s)
{
    cli_put(c, "reached", json_boolean(s->verdict == TOKEN_REACHED));
    cli_put(c, "read", json_string(token_read(r)));
    cli_put(c, "consistent_up_to", s->consistent[0] ? json_string(s->consistent) : json_null());
    if (s->verdict == TOKEN_TABLES)
        cli_put(c, "tables", json_string(s->tables));
}

static int late(struct cli *c, const struct token_road *r, const struct token_state *s,
                struct err *e)
{
    int applies = lease_held(r->to, "apply", NULL, 0, e);

    if (applies < 0)
        return -1;
    cli_say(c, "not reached in time: the %s is consistent up to %s", token_read(r),
            s->consistent[0] ? s->consistent : "nothing yet");
    if (applies)
        cli_next(c, "read from the %s, or wait longer (--timeout)", token_written(r));
    else
        cli_next(c, "no process applies changes: lockstep run");
    return EXIT_MORE;
}

static int tell(struct cli *c, const struct token_road *r, const struct token *t,
                const struct token_state *s, struct err *e)
{
    put_state(c, r, s);
    switch (s->verdict) {
    case TOKEN_NOT_YET:
        return late(c, r, s, e);
    case TOKEN_TABLES:
        cli_say(c, "reached, but these tables do not follow: %s", s->tables);
        cli_next(c, "lockstep tables list; read them from the %s", token_written(r));
        return EXIT_DIFFERENT;
    case TOKEN_REACHED:
        break;
    }
    if (t->reached)
        cli_say(c, "reached: the applications write on the %s now, and the switch drained the %s",
                token_written(r), token_read(r));
    else
        cli_say(c, "reached: the %s is consistent up to %s (asked for: %s)", token_read(r),
                s->consistent, t->text);
    cli_next(c, "read from the %s", t->reached ? token_written(r) : token_read(r));
    return EXIT_DONE;
}

static int wait_on(struct cli *c, const struct asked *q, struct db *target, struct db *source,
                   struct err *e)
{
    struct token_road road;
    struct token_state state = {.verdict = TOKEN_NOT_YET};
    struct token token;
    int rc;

    if (token_road_find(target, source, &road, e) < 0)
        return -1;
    cli_put(c, "of", json_string(token_written(&road)));
    rc = await_token(q, &road, &token, e);
    if (rc < 0)
        return -1;
    cli_put(c, "position", token.text[0] ? json_string(token.text) : json_null());
    if (rc == 0) {
        cli_say(c, "the %s's log has not come to %s", token_written(&road), q->position);
        cli_put(c, "reached", json_false());
        cli_next(c, "is it a position of the %s? see lockstep status", token_written(&road));
        return EXIT_MORE;
    }
    return await_state(q, &road, &token, &state, e) < 0 ? -1 : tell(c, &road, &token, &state, e);
}

static int parse(const struct cli *c, struct asked *out, struct err *e)
{
    const char *timeout = cli_option(c, "timeout");

    *out = (struct asked){.position = c->noperands ? c->operands[0] : NULL,
                          .of = cli_option(c, "of"),
                          .timeout_ms = TIMEOUT_DEFAULT_MS,
                          .began_ms = mono_ms()};
    if (timeout && config_duration_between(timeout, 0, TIMEOUT_MAX_MS, &out->timeout_ms, e) < 0)
        return err_wrap(e, "--timeout");
    if (out->of && strcmp(out->of, "source") != 0 && strcmp(out->of, "target") != 0)
        return err_set(e, ERR_CONFIG, "--of: \"%.20s\" is not taken; expected source or target",
                       out->of);
    return 0;
}

int command_wait(struct cli *c, struct err *e)
{
    struct db *target = NULL;
    struct db *source = NULL;
    struct context x;
    struct asked q;
    int rc = -1;

    if (parse(c, &q, e) < 0 || context_open(&x, c, e) < 0)
        return -1;
    if (migration_open_target(&x.m, DB_CONTROL, &target, e) == 0 &&
        migration_open_source(&x.m, DB_CONTROL, &source, e) == 0)
        rc = wait_on(c, &q, target, source, e);
    if (source)
        source->engine->close(source);
    if (target)
        target->engine->close(target);
    context_close(&x);
    return rc;
}
