/* Texts that PostgreSQL would take and keep as another value: a uuid that is none in its own form,
 * blanks beyond the length of a varchar or character, which it cuts off in silence, a name that is
 * too long. From a column of another engine such a text is refused, as whatever else the column
 * does not hold. What a type only writes in its own way stays the value that it was: a
 * character(10) is filled up with blanks, jsonb has blanks of its own, a uuid small letters
 * (types.c says so). */
#include "engines/postgres/apply.h"

#include <string.h>

#define UUID_CHARS 36
#define NAME_BYTES 63
#define SHOWN_MAX 60 /* bytes of a value in a message */

enum form { FORM_ANY, FORM_UUID, FORM_LIMITED, FORM_NAME };

static enum form form_of(const struct column *c)
{
    if (c->generated)
        return FORM_ANY;
    if (c->kind == TYPE_UUID)
        return FORM_UUID;
    if (c->kind == TYPE_TEXT && strcmp(c->cast_type, "name") == 0)
        return FORM_NAME;
    return c->kind == TYPE_TEXT && c->length > 0 ? FORM_LIMITED : FORM_ANY;
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
    case FORM_LIMITED:
        return chars_of(v) <= (size_t)c->length ? 0 : refuse(c, v, e);
    case FORM_NAME:
        return v->len <= NAME_BYTES ? 0 : refuse(c, v, e);
    default:
        return 0;
    }
}

int pg_form_check(const struct table *t, const struct row *const *rows, size_t n, struct err *e)
{
    for (size_t k = 0; t->there && k < t->there->ncolumns; k++) {
        const struct column *c = &t->there->columns[k];

        for (size_t i = 0; form_of(c) != FORM_ANY && i < n; i++) {
            if (look(c, &rows[i]->v[k], e) < 0)
                return -1;
        }
    }
    return 0;
}

bool pg_form_is_fit(const struct table *t, const struct row *row)
{
    struct err ignored;

    return pg_form_check(t, &row, 1, &ignored) == 0;
}
