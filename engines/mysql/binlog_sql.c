#include "engines/mysql/binlog_sql.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum token_kind { TOKEN_END, TOKEN_WORD, TOKEN_QUOTED, TOKEN_STRING, TOKEN_MARK };

struct token {
    enum token_kind kind;
    char text[SQL_NAME_MAX]; /* of words and quoted names, cut; of a mark one character */
};

struct scanner {
    const char *p;
    const char *end;
};

/* ---- tokens ---- */

static bool starts(const struct scanner *s, const char *text)
{
    size_t n = strlen(text);

    return (size_t)(s->end - s->p) >= n && memcmp(s->p, text, n) == 0;
}

static void skip_line(struct scanner *s)
{
    while (s->p < s->end && *s->p != '\n')
        s->p++;
}

/* A comment, or the opening of a versioned one, whose inside is code. */
static void skip_comment(struct scanner *s)
{
    bool code = starts(s, "/*!") || starts(s, "/*M!");

    if (code) {
        s->p += starts(s, "/*!") ? 3 : 4;
        while (s->p < s->end && isdigit((unsigned char)*s->p))
            s->p++;
        return;
    }
    for (s->p += 2; s->p < s->end && !starts(s, "*/"); s->p++)
        continue;
    s->p += starts(s, "*/") ? 2 : 0;
}

static void skip_space(struct scanner *s)
{
    while (s->p < s->end) {
        if (isspace((unsigned char)*s->p) || *s->p == '\0')
            s->p++;
        else if (starts(s, "/*"))
            skip_comment(s);
        else if (starts(s, "*/")) /* a versioned one ends */
            s->p += 2;
        else if (*s->p == '#' || starts(s, "-- ") || starts(s, "--\n") || starts(s, "--\t"))
            skip_line(s);
        else
            return;
    }
}

static void keep(struct token *t, size_t *n, char c)
{
    if (*n + 1 < sizeof(t->text)) {
        t->text[(*n)++] = c;
        t->text[*n] = '\0';
    }
}

/* Behind the opening quote. Doubled quotes stand for one; backslashes escape in strings only. */
static void take_quoted(struct scanner *s, char quote, struct token *t)
{
    size_t n = 0;

    while (s->p < s->end) {
        char c = *s->p++;

        if (c == quote && !(s->p < s->end && *s->p == quote))
            return;
        if (c == quote || (c == '\\' && quote != '`' && s->p < s->end))
            c = *s->p++;
        keep(t, &n, c);
    }
}

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '$' || c == '@' ||
           (unsigned char)c >= 0x80;
}

static void next_token(struct scanner *s, struct token *t)
{
    size_t n = 0;

    t->text[0] = '\0';
    t->kind = TOKEN_END;
    skip_space(s);
    if (s->p >= s->end)
        return;
    if (*s->p == '`' || *s->p == '"' || *s->p == '\'') {
        char quote = *s->p++;

        t->kind = quote == '\'' ? TOKEN_STRING : TOKEN_QUOTED;
        take_quoted(s, quote, t);
        return;
    }
    if (!is_word(*s->p)) {
        t->kind = TOKEN_MARK;
        keep(t, &n, *s->p++);
        return;
    }
    t->kind = TOKEN_WORD;
    while (s->p < s->end && is_word(*s->p))
        keep(t, &n, *s->p++);
}

static bool is(const struct token *t, const char *word)
{
    return t->kind == TOKEN_WORD && strcasecmp(t->text, word) == 0;
}

static bool is_mark(const struct token *t, char c)
{
    return t->kind == TOKEN_MARK && t->text[0] == c;
}

static bool among(const struct token *t, const char *const *words)
{
    for (; *words; words++) {
        if (is(t, *words))
            return true;
    }
    return false;
}

/* MariaDB's SET STATEMENT variable = value, … FOR statement: it is that statement, and it may be
 * another one of these. Values in parentheses may hold a FOR of their own (SELECT … FOR UPDATE).
 * False: no statement is found. */
static bool see_through(struct scanner *s, struct token *t)
{
    while (is(t, "set")) {
        struct scanner behind = *s;
        struct token next;
        int depth = 0;

        next_token(&behind, &next);
        if (!is(&next, "statement"))
            return true;
        do {
            next_token(&behind, &next);
            depth += is_mark(&next, '(') - is_mark(&next, ')');
        } while (next.kind != TOKEN_END && (depth > 0 || !is(&next, "for")));
        *s = behind;
        next_token(s, t);
        if (t->kind == TOKEN_END)
            return false;
    }
    return true;
}

/* ---- what sort of statement ---- */

static const char *const dml_words[] = {"insert", "update", "delete", "replace", "load",
                                        "with",   "call",   "do",     NULL};
static const char *const ddl_words[] = {"create", "alter", "drop", "rename", NULL};
/* Words that may stand between the verb and what it is about. */
static const char *const filler_words[] = {
    "or",        "replace", "online", "offline", "ignore", "unique", "fulltext", "spatial", "start",
    "aggregate", "if",      "exists", "not",     "wait",   "nowait", "undo",     NULL};
static const char *const objects[] = {"table", "tables", "index", "database", "schema", NULL};

/* What a DDL is about: the word, with the scanner behind it; false: about nothing of ours. */
static bool find_object(struct scanner *s, struct token *t)
{
    do
        next_token(s, t);
    while (among(t, filler_words));
    return among(t, objects);
}

static enum sql_kind kind_of_ddl(struct scanner *s)
{
    struct token t;

    return find_object(s, &t) ? SQL_DDL : SQL_OTHER;
}

static enum sql_kind kind_of_xa(struct scanner *s)
{
    struct token t;

    next_token(s, &t);
    if (is(&t, "start") || is(&t, "begin"))
        return SQL_XA_START;
    if (is(&t, "commit") || is(&t, "rollback"))
        return SQL_XA_DECIDE;
    return SQL_XA_END;
}

enum sql_kind sql_kind_of(const char *sql, size_t len)
{
    struct scanner s = {.p = sql, .end = sql + len};
    struct token t;
    struct token second;

    next_token(&s, &t);
    if (!see_through(&s, &t))
        return SQL_UNREAD;
    if (is(&t, "begin"))
        return SQL_BEGIN;
    if (is(&t, "commit"))
        return SQL_COMMIT;
    if (is(&t, "savepoint") || is(&t, "release"))
        return SQL_SAVEPOINT;
    if (is(&t, "truncate"))
        return SQL_TRUNCATE;
    if (is(&t, "xa"))
        return kind_of_xa(&s);
    if (among(&t, dml_words))
        return SQL_DML;
    if (among(&t, ddl_words))
        return kind_of_ddl(&s);
    next_token(&s, &second);
    if (is(&t, "start") && is(&second, "transaction"))
        return SQL_BEGIN;
    if (is(&t, "rollback"))
        return is(&second, "to") ? SQL_ROLLBACK_TO : SQL_ROLLBACK;
    return SQL_OTHER;
}

bool sql_leaves_open(const char *sql, size_t len)
{
    struct scanner s = {.p = sql, .end = sql + len};
    struct token t;
    bool start = false;
    bool open = false;

    for (next_token(&s, &t); t.kind != TOKEN_END; next_token(&s, &t)) {
        open = start && is(&t, "transaction");
        start = is(&t, "start");
    }
    return open;
}

/* ---- which tables ---- */

struct walk {
    struct scanner s;
    struct token t; /* not yet taken */
    const char *schema;
    sql_name_fn *take;
    void *arg;
};

static void step(struct walk *w)
{
    next_token(&w->s, &w->t);
}

static bool is_name(const struct token *t)
{
    return t->kind == TOKEN_WORD || t->kind == TOKEN_QUOTED;
}

/* "name" or "schema.name" (or ".name"), handed on. */
static void take_name(struct walk *w)
{
    struct sql_name name = {0};

    while (among(&w->t, filler_words))
        step(w);
    if (!is_name(&w->t) && !is_mark(&w->t, '.'))
        return;
    snprintf(name.schema, sizeof(name.schema), "%s", w->schema);
    if (is_name(&w->t)) {
        memcpy(name.table, w->t.text, sizeof(name.table));
        step(w);
    }
    if (is_mark(&w->t, '.')) {
        if (name.table[0])
            memcpy(name.schema, name.table, sizeof(name.schema));
        step(w);
        memcpy(name.table, w->t.text, sizeof(name.table));
        step(w);
    }
    w->take(w->arg, &name);
}

/* DROP TABLE a, b · RENAME TABLE a TO b, c TO d · TRUNCATE TABLE a */
static void take_list(struct walk *w)
{
    take_name(w);
    while (w->t.kind != TOKEN_END) {
        bool more = is_mark(&w->t, ',') || is(&w->t, "to");

        step(w);
        if (more)
            take_name(w);
    }
}

static const char *const renamed_parts[] = {"column", "index", "key", "constraint", NULL};

static void take_nothing(void *arg, const struct sql_name *name)
{
}

/* ALTER TABLE a AUTO_INCREMENT = 42 and nothing else: neither rows nor their shape change. It is
 * what a switch does itself. */
static bool moves_counter_only(struct walk w)
{
    w.take = take_nothing;
    take_name(&w);
    if (!is(&w.t, "auto_increment"))
        return false;
    step(&w);
    if (is_mark(&w.t, '='))
        step(&w);
    step(&w);
    return w.t.kind == TOKEN_END;
}

/* ALTER TABLE a … RENAME [TO] b … EXCHANGE PARTITION p WITH TABLE c */
static void take_alter(struct walk *w)
{
    if (moves_counter_only(*w))
        return;
    take_name(w);
    while (w->t.kind != TOKEN_END) {
        bool renamed = is(&w->t, "rename");
        bool exchanged = is(&w->t, "table");

        step(w);
        if (renamed && (is(&w->t, "to") || is(&w->t, "as") || is_mark(&w->t, '=')))
            step(w);
        if (exchanged || (renamed && !among(&w->t, renamed_parts)))
            take_name(w);
    }
}

/* CREATE INDEX i ON a · DROP INDEX i ON a */
static void take_behind_on(struct walk *w)
{
    while (w->t.kind != TOKEN_END && !is(&w->t, "on"))
        step(w);
    step(w);
    take_name(w);
}

static void take_database(struct walk *w)
{
    struct sql_name name = {0};

    while (among(&w->t, filler_words))
        step(w);
    memcpy(name.schema, w->t.text, sizeof(name.schema));
    w->take(w->arg, &name);
}

void sql_names(const char *sql, size_t len, const char *default_schema, sql_name_fn *take,
               void *arg)
{
    struct walk w = {
        .s = {.p = sql, .end = sql + len}, .schema = default_schema, .take = take, .arg = arg};
    struct token verb;
    struct token object;

    next_token(&w.s, &verb);
    if (!see_through(&w.s, &verb))
        return;
    if (is(&verb, "truncate")) {
        step(&w);
        if (is(&w.t, "table"))
            step(&w);
        take_list(&w);
        return;
    }
    if (!among(&verb, ddl_words) || !find_object(&w.s, &object))
        return;
    step(&w);
    if (is(&object, "index"))
        take_behind_on(&w);
    else if (is(&object, "database") || is(&object, "schema")) {
        if (is(&verb, "drop"))
            take_database(&w);
    } else if (is(&verb, "alter"))
        take_alter(&w);
    else if (is(&verb, "create"))
        take_name(&w);
    else
        take_list(&w);
}

bool sql_mentions(const char *sql, size_t len, const char *word)
{
    struct scanner s = {.p = sql, .end = sql + len};
    struct token t;

    for (next_token(&s, &t); t.kind != TOKEN_END; next_token(&s, &t)) {
        if (is_name(&t) && strcasecmp(t.text, word) == 0)
            return true;
    }
    return false;
}
