/* Types of ours that read more texts than they print: a uuid in capitals, a character(10) of two
 * letters, blanks beyond a varchar's length, JSON with blanks. From a column of another engine such
 * a text would stand here as another one, and go back as that; so it is refused, as whatever else
 * the column does not hold. A table whose own server's types are these sends nothing but their own
 * form. */
#include "engines/postgres/apply.h"
#include "engines/postgres/values.h"

#include <stdlib.h>
#include <string.h>

#define UUID_CHARS 36
#define NAME_BYTES 63
#define SHOWN_MAX 60 /* bytes of a value in a message */

enum form { FORM_ANY, FORM_UUID, FORM_FILLED, FORM_LIMITED, FORM_NAME, FORM_JSONB };

/* "character(10)" is filled up with blanks; "character varying(10)" is not. */
static bool is_filled(const struct column *c)
{
    return c->kind == TYPE_TEXT && strncmp(c->source_type, "character(", 10) == 0;
}

static enum form form_of(const struct column *c)
{
    if (c->generated)
        return FORM_ANY;
    if (c->kind == TYPE_UUID)
        return FORM_UUID;
    if (is_filled(c))
        return FORM_FILLED;
    if (c->kind == TYPE_TEXT && strcmp(c->cast_type, "name") == 0)
        return FORM_NAME;
    if (c->kind == TYPE_TEXT && c->length > 0)
        return FORM_LIMITED;
    return c->kind == TYPE_JSON && strcmp(c->cast_type, "jsonb") == 0 ? FORM_JSONB : FORM_ANY;
}

static bool is_uuid(const struct value *v)
{
    if (v->len != UUID_CHARS)
        return false;
    for (size_t i = 0; i < UUID_CHARS; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;

        if (dash ? v->data[i] != '-' : !strchr("0123456789abcdef", v->data[i]) || !v->data[i])
            return false;
    }
    return true;
}

/* Of a text that is too long the server cuts blanks off in silence, and refuses it only if that is
 * not enough. */
static size_t chars_of(const struct value *v)
{
    size_t chars = 0;

    for (size_t i = 0; i < v->len; i++)
        chars += ((unsigned char)v->data[i] & 0xc0) != 0x80;
    return chars;
}

static int refuse(const struct column *c, const struct value *v, struct err *e)
{
    size_t n = v->len < SHOWN_MAX ? v->len : SHOWN_MAX;

    while (n > 0 && n < v->len && ((unsigned char)v->data[n] & 0xc0) == 0x80)
        n--;
    err_set(e, ERR_DATA, "column \"%s\": %.*s is not in the form in which %s would keep it",
            c->name, (int)n, v->data, c->source_type);
    return err_hint(e, "write it in the form that the type itself prints");
}

static int look(const struct column *c, const struct value *v, struct err *e)
{
    if (v->state != VALUE_SET)
        return 0;
    switch (form_of(c)) {
    case FORM_UUID:
        return is_uuid(v) ? 0 : refuse(c, v, e);
    case FORM_FILLED:
        return chars_of(v) == (size_t)c->length ? 0 : refuse(c, v, e);
    case FORM_LIMITED:
        return chars_of(v) <= (size_t)c->length ? 0 : refuse(c, v, e);
    case FORM_NAME:
        return v->len <= NAME_BYTES ? 0 : refuse(c, v, e);
    default:
        return 0;
    }
}

/* Only the server knows jsonb's own form. What is no JSON at all fails here as it would later. */
static int ask(struct pg_db *db, const struct column *c, size_t column,
               const struct row *const *rows, size_t n, struct err *e)
{
    static const char sql[] = "SELECT (i - 1)::text FROM unnest($1::text[]) WITH ORDINALITY u(v, i)"
                              " WHERE v::jsonb::text COLLATE \"C\" <> v LIMIT 1";
    static const struct value null = {.state = VALUE_NULL};
    struct buf b;
    const char *values[1];
    PGresult *res = NULL;
    size_t at = n;

    buf_init(&b, BUF_MAX_TEXT);
    pg_array_open(&b);
    for (size_t i = 0; i < n; i++) {
        const struct value *v = &rows[i]->v[column];

        pg_array_add(&b, c, v->state == VALUE_SET ? v : &null);
    }
    pg_array_close(&b);
    values[0] = b.data;
    if (buf_check(&b, "a batch of changes", e) == 0)
        res = pg_query(db, sql, 1, values, e);
    if (res && PQntuples(res) == 1)
        at = strtoull(pg_text(res, 0, 0), NULL, 10);
    buf_release(&b);
    if (!res)
        return err_wrap(e, "column \"%s\"", c->name);
    PQclear(res);
    return at < n ? refuse(c, &rows[at]->v[column], e) : 0;
}

bool pg_form_is_open(const struct table *t, const struct row *row)
{
    struct err ignored;

    for (size_t i = 0; t->there && i < t->there->ncolumns; i++) {
        const struct column *c = &t->there->columns[i];

        if (form_of(c) == FORM_JSONB || look(c, &row->v[i], &ignored) < 0)
            return true;
    }
    return false;
}

int pg_form_check(struct pg_db *db, const struct table *t, const struct row *const *rows, size_t n,
                  struct err *e)
{
    for (size_t k = 0; t->there && k < t->there->ncolumns; k++) {
        const struct column *c = &t->there->columns[k];

        if (form_of(c) == FORM_JSONB && ask(db, c, k, rows, n, e) < 0)
            return -1;
        for (size_t i = 0; form_of(c) != FORM_ANY && i < n; i++) {
            if (look(c, &rows[i]->v[k], e) < 0)
                return -1;
        }
    }
    return 0;
}
