/* How a column of another engine stands in MariaDB and MySQL: one row a kind. The declared types
 * are those that both servers know; what they call differently (a collation that tells apart what
 * differs in bytes, blanks at the end too) is said by the renderer in comments that only one of
 * them runs. */
#include "engines/mysql/my.h"

#include <stdio.h>
#include <string.h>

#define NAME_CHARS 64
/* InnoDB: the longest key, and the longest row without its long texts (less some for the rest). */
#define KEY_BYTES 3072
#define CHAR_BYTES 4
#define ROW_CHARS 12000
#define LABEL_CHARS 255
#define DECIMAL_PRECISION 65
#define DECIMAL_SCALE 30

#define YEARS "years 1 to 9999, no infinity"
#define NO_ZERO "no zero date (0000-00-00, or a month, day or year of 0)"
#define FINITE "no NaN, no infinity, no negative zero"

static const struct rule {
    enum type_kind kind;
    const char *type;
    const char *forward; /* NULL: exact */
    const char *back;
} rules[] = {
    {TYPE_BOOL, "tinyint(1)", NULL, "0 or 1, no other number"},
    {TYPE_INT16, "smallint", NULL, NULL},
    {TYPE_INT32, "int", NULL, NULL},
    {TYPE_INT64, "bigint", NULL, NULL},
    {TYPE_FLOAT32, "float", FINITE, NULL},
    {TYPE_FLOAT64, "double", FINITE, NULL},
    {TYPE_DECIMAL, "decimal", "no NaN", NULL},
    {TYPE_TEXT, "longtext", NULL, "no NUL character, less than 1 GiB"},
    {TYPE_BYTES, "longblob", NULL, "less than 1 GiB"},
    {TYPE_DATE, "date", YEARS, NO_ZERO},
    {TYPE_TIME, "time", NULL, "00:00:00 to 24:00:00"},
    {TYPE_TIMESTAMP, "datetime", YEARS, NO_ZERO},
    {TYPE_TIMESTAMPTZ, "datetime", YEARS " (kept in UTC)", NO_ZERO},
    {TYPE_UUID, "char(36)", NULL, "a UUID with its dashes (kept in lower case)"},
    {TYPE_JSON, "longtext", NULL, "what PostgreSQL, too, reads as JSON"},
    {TYPE_ENUM, "enum", NULL, "no value outside of the list (MySQL's 0, '')"},
};

static const struct rule *rule_of(enum type_kind kind)
{
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        if (rules[i].kind == kind)
            return &rules[i];
    }
    return NULL;
}

static size_t chars(const char *utf8)
{
    size_t n = 0;

    for (; *utf8; utf8++)
        n += ((unsigned char)*utf8 & 0xc0) != 0x80;
    return n;
}

static bool has_trailing_blank(const char *s)
{
    size_t n = strlen(s);

    return n && s[n - 1] == ' ';
}

/* A label's blanks at the end would be cut, in silence. */
static const char *label_refusal(const struct column_def *from)
{
    for (size_t i = 0; i < from->nlabels; i++) {
        if (has_trailing_blank(from->labels[i]) || !from->labels[i][0])
            return "one of its labels is empty or ends in a blank";
        if (chars(from->labels[i]) > LABEL_CHARS)
            return "one of its labels is longer than 255 characters";
    }
    return from->nlabels ? NULL : "its labels are not known";
}

static const char *decimal_refusal(const struct column *c)
{
    if (c->precision == 0)
        return "it has no declared precision: decimal(65,30) would round";
    if (c->precision > DECIMAL_PRECISION || c->scale > DECIMAL_SCALE || c->scale < 0 ||
        c->scale > c->precision)
        return "decimal goes up to 65 digits, 30 of them behind the point";
    return NULL;
}

static const char *refusal(const struct column_def *from, const struct rule *r)
{
    const struct column *c = from->column;

    if (from->unfit)
        return from->unfit;
    if (!r || c->array)
        return "MySQL is offered no type for it";
    if (c->generated)
        return "it is generated, by an expression that only its own engine knows";
    if (chars(c->name) > NAME_CHARS || has_trailing_blank(c->name))
        return "its name is longer than MySQL's 64 characters, or ends in a blank";
    if (c->kind == TYPE_DECIMAL)
        return decimal_refusal(c);
    return c->kind == TYPE_ENUM ? label_refusal(from) : NULL;
}

static const char *enum_type(const struct column_def *from, struct arena *a)
{
    struct buf b;
    const char *out;

    buf_init(&b, BUF_MAX_TEXT);
    buf_adds(&b, "enum(");
    for (size_t i = 0; i < from->nlabels; i++) {
        buf_adds(&b, i ? "," : "");
        my_literal(&b, from->labels[i], strlen(from->labels[i]));
    }
    buf_addc(&b, ')');
    invariant(!b.overflow);
    out = arena_strdup(a, b.data);
    buf_release(&b);
    return out;
}

/* A text or bytes in a key needs a length; others keep theirs while the row has room for it.
 * Returns the condition for values that are longer than that, or NULL. */
static const char *sized(const struct column_def *from, struct arena *a, struct column *to)
{
    const struct column *c = from->column;
    bool text = c->kind == TYPE_TEXT;
    int unit = text ? CHAR_BYTES : 1;
    int most = from->shared_key ? KEY_BYTES / unit / (int)from->shared_key : 0;
    int length = c->length;
    const char *word = text ? "varchar" : "varbinary";

    to->length = 0;
    if (most && (!length || length > most)) {
        to->length = most;
        to->source_type = arena_printf(a, "%s(%d)", word, most);
        return arena_printf(a, "at most %d %s, because it is part of a key", most,
                            text ? "characters" : "bytes");
    }
    if (length && (most || from->row_chars <= ROW_CHARS)) {
        to->length = length;
        to->source_type = arena_printf(a, "%s(%d)", word, length);
    }
    return NULL;
}

static const char *both(struct arena *a, const char *forward, const char *back)
{
    if (!back)
        return forward;
    return arena_printf(a, "%s%sback: %s", forward ? forward : "", forward ? "; " : "", back);
}

static const char * and (struct arena * a, const char *condition, const char *more)
{
    return condition && more ? arena_printf(a, "%s, %s", condition, more)
           : condition       ? condition
                             : more;
}

/* The declared type; adds what is true of this column to the conditions of its kind. */
static void declare(const struct column_def *from, struct arena *a, struct column *to,
                    const char **forward, const char **back)
{
    const struct column *c = from->column;

    switch (c->kind) {
    case TYPE_DECIMAL:
        to->source_type = arena_printf(a, "decimal(%d,%d)", c->precision, c->scale);
        break;
    case TYPE_TEXT:
    case TYPE_BYTES:
        *forward = and(a, *forward, sized(from, a, to));
        if (c->length && to->length != c->length)
            *back = and(a, *back, arena_printf(a, "what %s holds", c->source_type));
        if (strncmp(c->source_type, "character(", 10) == 0)
            *back = and(a, *back, "the value being kept filled up with blanks");
        break;
    case TYPE_TIME:
    case TYPE_TIMESTAMP:
    case TYPE_TIMESTAMPTZ:
        to->source_type =
            c->fraction ? arena_printf(a, "%s(%d)", to->source_type, c->fraction) : to->source_type;
        break;
    case TYPE_ENUM:
        to->source_type = arena_strdup(a, enum_type(from, a));
        break;
    case TYPE_JSON:
        if (strcmp(c->source_type, "jsonb") == 0)
            *back = and(a, *back, "the value being kept in jsonb's own form");
        break;
    default:
        break;
    }
}

/* The type stays what it is; but a value that its kind does not have cannot travel. */
static struct verdict native_verdict(const struct column_def *from, const struct rule *r)
{
    enum type_kind kind = from->column->kind;

    if (from->unfit)
        return (struct verdict){FIDELITY_NONE, FIDELITY_NONE, from->unfit};
    if (kind == TYPE_DATE || kind == TYPE_TIMESTAMP || kind == TYPE_TIMESTAMPTZ ||
        kind == TYPE_TIME || kind == TYPE_ENUM)
        return (struct verdict){FIDELITY_CONDITION, FIDELITY_CONDITION, r->back};
    return (struct verdict){FIDELITY_EXACT, FIDELITY_EXACT, NULL};
}

void my_column_for(const struct column_def *from, bool native, struct arena *a, struct column *to,
                   struct verdict *out)
{
    const struct column *c = from->column;
    const struct rule *r = rule_of(c->kind);
    const char *forward;
    const char *back;
    const char *refused;

    *to = *c;
    if (native) {
        *out = native_verdict(from, r);
        return;
    }
    refused = refusal(from, r);
    if (refused) {
        enum fidelity f = c->kind == TYPE_DECIMAL && !from->unfit ? FIDELITY_LOSSY : FIDELITY_NONE;

        *out = (struct verdict){f, f, refused};
        return;
    }
    to->identity_always = false;
    to->order = c->order == KEY_ORDER_INT ? KEY_ORDER_INT : KEY_ORDER_SERVER;
    to->source_type = arena_strdup(a, r->type);
    forward = r->forward;
    back = r->back;
    declare(from, a, to, &forward, &back);
    to->cast_type = to->source_type;
    out->forward = forward ? FIDELITY_CONDITION : FIDELITY_EXACT;
    out->back = back ? FIDELITY_CONDITION : FIDELITY_EXACT;
    out->condition = both(a, forward, back);
}
