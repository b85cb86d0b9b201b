/* The record as a page for people: plain Markdown, from the same JSON that stands beside it. */
#include "cutover/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_MAX_BYTES 8000
#define CELL_MAX_BYTES 4000

struct page {
    const json_t *record;
    void (*emit)(const char *line, void *ctx);
    void *ctx;
};

__attribute__((format(printf, 2, 3))) static void line(const struct page *p, const char *fmt, ...)
{
    char text[LINE_MAX_BYTES];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    p->emit(text, p->ctx);
}

static void heading(const struct page *p, const char *text)
{
    line(p, "%s", "");
    line(p, "## %s", text);
    line(p, "%s", "");
}

/* Text of others (names, messages) so that it stays in its cell and is no markup. */
static const char *cell(const char *text, char out[CELL_MAX_BYTES])
{
    size_t n = 0;

    for (const char *s = text ? text : ""; *s && n + 3 < CELL_MAX_BYTES; s++) {
        unsigned char c = (unsigned char)*s;

        if (strchr("|\\`<*[", *s))
            out[n++] = '\\';
        out[n++] = c < ' ' ? ' ' : *s;
    }
    out[n] = '\0';
    return out;
}

static const char *text_of(const struct page *p, const char *member)
{
    return fact_text(p->record, member);
}

static bool is_back(const struct page *p)
{
    const char *direction = text_of(p, "direction");

    return direction && strcmp(direction, "back") == 0;
}

/* ---- what happened ---- */

static const char *outcome(const struct page *p)
{
    const char *state = text_of(p, "state");

    if (fact_bool(p->record, "rehearsal"))
        return text_of(p, "failed") ? "rehearsal failed" : "rehearsed";
    if (state && strcmp(state, "switched") == 0)
        return text_of(p, "failed") ? "switched, but not all is done" : "switched";
    return state && strcmp(state, "closed") == 0 ? "closed, not yet switched" : "not made";
}

static void print_summary(const struct page *p)
{
    char safe[CELL_MAX_BYTES];
    const char *what = outcome(p);

    line(p, "# %s of %s: %s",
         fact_bool(p->record, "rehearsal") ? "Rehearsal of a switch"
         : is_back(p)                      ? "Rollback"
                                           : "Cutover",
         cell(text_of(p, "migration"), safe), what);
    line(p, "%s", "");
    if (strncmp(what, "switched", 8) == 0)
        line(p, "The %s takes writes, the %s is sealed.", is_back(p) ? "source" : "target",
             is_back(p) ? "target" : "source");
    else if (strcmp(what, "rehearsed") == 0)
        line(p, "Nobody was refused a write, and things are as they were before.");
    else if (strncmp(what, "closed", 6) == 0)
        line(p, "Neither side takes writes until the next `lockstep %s`.",
             is_back(p) ? "rollback" : "cutover");
}

static void print_trouble(const struct page *p)
{
    static const struct {
        const char *member;
        const char *title;
    } kinds[] = {{"undone_because", "Undone because"},
                 {"failed", "The answer was"},
                 {"remedy", "What to do"}};
    char safe[CELL_MAX_BYTES];

    if (!text_of(p, "failed") && !text_of(p, "undone_because"))
        return;
    heading(p, "What stood in the way");
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (text_of(p, kinds[i].member))
            line(p, "- %s: %s", kinds[i].title, cell(text_of(p, kinds[i].member), safe));
    }
}

/* ---- facts ---- */

static void fact_row(const struct page *p, const char *title, const char *member)
{
    const json_t *v = json_object_get(p->record, member);
    char safe[CELL_MAX_BYTES];

    if (json_is_string(v) && *json_string_value(v))
        line(p, "| %s | %s |", title, cell(json_string_value(v), safe));
    else if (json_is_integer(v))
        line(p, "| %s | %lld |", title, (long long)json_integer_value(v));
}

static void print_facts(const struct page *p)
{
    heading(p, "Facts");
    line(p, "| what | value |");
    line(p, "|---|---|");
    fact_row(p, "migration", "migration");
    fact_row(p, "direction", "direction");
    fact_row(p, "source", "source");
    fact_row(p, "target", "target");
    fact_row(p, "conducted by", "holder");
    fact_row(p, "epoch", "epoch");
    fact_row(p, "state", "state");
    fact_row(p, "began", "began_at");
    fact_row(p, "writes refused from", "fenced_at");
    fact_row(p, "taken on the other side from", "opened_at");
    fact_row(p, "ended", "ended_at");
    fact_row(p, "position up to which all was carried", "position");
    fact_row(p, "transactions carried in all", "transactions_then");
    fact_row(p, "changes of rows carried in all", "changes_then");
    line(p, "%s", "");
    line(p, "Times are by the clock of the side that opens.");
}

/* ---- the pause ---- */

static void print_samples(const json_t *part, char *out, size_t size)
{
    const json_t *samples = json_object_get(part, "samples_ms");
    size_t n = 0;

    out[0] = '\0';
    for (size_t i = 0; i < json_array_size(samples) && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s%lld", i ? ", " : "",
                              (long long)json_integer_value(json_array_get(samples, i)));
}

static void print_parts(const struct page *p, const json_t *parts)
{
    line(p, "%s", "");
    line(p, "| part | times | low | expected | high | measured (ms each) |");
    line(p, "|---|---|---|---|---|---|");
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *part = json_array_get(parts, i);
        char samples[200];
        char safe[CELL_MAX_BYTES];

        print_samples(part, samples, sizeof(samples));
        line(p, "| %s | %lld | %lld ms | %lld ms | %lld ms | %s |",
             cell(fact_text(part, "does"), safe), (long long)fact_int(part, "times", 0),
             (long long)fact_int(part, "low_ms", 0), (long long)fact_int(part, "expected_ms", 0),
             (long long)fact_int(part, "high_ms", 0), samples);
    }
}

static void print_pause(const struct page *p)
{
    const json_t *predicted = json_object_get(p->record, "predicted");
    const json_t *pause = json_object_get(p->record, "pause_ms");
    char text[100];

    if (!predicted && !pause)
        return;
    heading(p, "The pause");
    line(p, "| | ms |");
    line(p, "|---|---|");
    if (cutover_predicted_text(p->record, text, sizeof(text)))
        line(p, "| predicted (%s) | %s |",
             fact_text(predicted, "at") ? fact_text(predicted, "at") : "", text);
    if (pause)
        line(p, "| writes were held for | %lld ms |", (long long)json_integer_value(pause));
    fact_row(p, "of it the flip of the fence", "flip_ms");
    fact_row(p, "allowed (max_pause)", "max_pause_ms");
    if (predicted)
        print_parts(p, json_object_get(predicted, "parts"));
}

/* ---- steps, writers ---- */

static const char *does_of(const char *state)
{
    int to = cutover_state_parse(state);

    for (size_t i = 0; i < cutover_row_count; i++) {
        if ((int)cutover_rows[i].to == to)
            return cutover_rows[i].does;
    }
    return "";
}

static void print_steps(const struct page *p)
{
    const json_t *steps = json_object_get(p->record, "steps");
    bool rehearsal = fact_bool(p->record, "rehearsal");
    char name[CELL_MAX_BYTES];

    if (json_array_size(steps) == 0)
        return;
    heading(p, "Steps");
    line(p, "| step | took | ended | what it does |");
    line(p, "|---|---|---|---|");
    for (size_t i = 0; i < json_array_size(steps); i++) {
        const json_t *s = json_array_get(steps, i);
        const char *at = fact_text(s, "ended_at");

        line(p, "| %s | %lld ms | %s | %s |", cell(fact_text(s, "state"), name),
             (long long)fact_int(s, "took_ms", 0), at ? at : "",
             rehearsal ? "" : does_of(fact_text(s, "state")));
    }
}

static void print_writers(const struct page *p)
{
    static const struct {
        const char *member;
        const char *title;
    } waits[] = {{"writers_1", "behind the fence"}, {"writers_2", "behind the seal"}};
    bool any = json_object_get(p->record, "writers_1") != NULL;

    if (!any)
        return;
    heading(p, "Whom the fence waited for");
    line(p, "| when | transactions that wrote | sessions ended | took |");
    line(p, "|---|---|---|---|");
    for (size_t i = 0; i < 2; i++) {
        const json_t *w = json_object_get(p->record, waits[i].member);

        if (w)
            line(p, "| %s | %lld | %lld | %lld ms |", waits[i].title,
                 (long long)fact_int(w, "waited_for", 0), (long long)fact_int(w, "terminated", 0),
                 (long long)fact_int(w, "took_ms", 0));
    }
}

/* ---- sequences ---- */

static void print_sequence(const struct page *p, const json_t *s)
{
    char schema[CELL_MAX_BYTES];
    char name[CELL_MAX_BYTES];

    cell(fact_text(s, "schema"), schema);
    cell(fact_text(s, "name"), name);
    if (json_object_get(s, "set"))
        line(p, "| %s.%s | %lld | %lld | %lld |", schema, name,
             (long long)fact_int(s, "last_value", 0), (long long)fact_int(s, "was", 0),
             (long long)fact_int(s, "set", 0));
    else
        line(p, "| %s.%s | %lld | - | left as it is: nothing there corresponds |", schema, name,
             (long long)fact_int(s, "last_value", 0));
}

static void print_sequences(const struct page *p)
{
    const json_t *all = json_object_get(p->record, "sequences");

    if (json_array_size(all) == 0)
        return;
    heading(p, "Sequences");
    line(p, "| sequence | on the side that closes | on the side that opens, before | now |");
    line(p, "|---|---|---|---|");
    for (size_t i = 0; i < json_array_size(all); i++)
        print_sequence(p, json_array_get(all, i));
}

/* ---- the way back, the hook ---- */

static void print_rest(const struct page *p)
{
    const json_t *way = json_object_get(p->record, "way_back");
    const json_t *carried = json_object_get(p->record, "way_back_ms");
    const char *hook = text_of(p, "hook");
    char safe[CELL_MAX_BYTES];

    if (way) {
        heading(p, "The way back");
        if (json_is_false(way))
            line(p, "There is none: %s", cell(text_of(p, "way_back_refused"), safe));
        else if (carried)
            line(p, "It carried a marker in %lld ms before anybody was refused a write.",
                 (long long)json_integer_value(carried));
        else
            line(p, "It was there.");
    }
    if (hook) {
        heading(p, "The hook");
        line(p, "on_switch: %s", cell(hook, safe));
    }
}

void cutover_print_record(const json_t *record, void (*emit)(const char *line, void *ctx),
                          void *ctx)
{
    struct page p = {record, emit, ctx};

    print_summary(&p);
    print_trouble(&p);
    print_facts(&p);
    print_pause(&p);
    print_steps(&p);
    print_writers(&p);
    print_sequences(&p);
    print_rest(&p);
}
