/* How a column of another engine stands in PostgreSQL: one row a kind. What the source calls its
 * type is only compared with the name by which PostgreSQL's range is the same, never parsed. */
#include "engines/postgres/pg.h"

#include <ctype.h>
#include <string.h>

#define NAME_BYTES 63
#define NUMERIC_PRECISION_MAX 1000

#define NO_ZERO "no zero date (0000-00-00, or a month, day or year of 0)"
#define FINITE "no NaN, no infinity, no negative zero"
#define BACK_YEARS "years 1 to 9999, no infinity"

/* %T in a type: its declared size. The conditions: NULL is exact; %s is the source's type. */
static const struct rule {
    enum type_kind kind;
    const char *type;
    const char *natural; /* the source's type with the same values, or NULL: any */
    const char *forward;
    const char *back;    /* whatever the source's type */
    const char *limited; /* back, if the source's type is another than the natural one */
} rules[] = {
    {TYPE_BOOL, "boolean", NULL, "0 or 1, no other number", NULL, NULL},
    {TYPE_INT16, "smallint", "smallint", NULL, NULL, "what %s holds"},
    {TYPE_INT32, "integer", "int", NULL, NULL, "what %s holds"},
    {TYPE_INT64, "bigint", "bigint", NULL, NULL, "what %s holds"},
    {TYPE_FLOAT32, "real", "float", NULL, FINITE, "what %s holds"},
    {TYPE_FLOAT64, "double precision", "double", NULL, FINITE, "what %s holds"},
    {TYPE_DECIMAL, "numeric", "decimal", NULL, "no NaN", "what %s holds"},
    {TYPE_TEXT, "text", "varchar", "no NUL character, less than 1 GiB", NULL, "what %s holds"},
    {TYPE_BYTES, "bytea", NULL, "less than 1 GiB", "as many bytes as %s holds", NULL},
    {TYPE_DATE, "date", NULL, NO_ZERO, BACK_YEARS, NULL},
    {TYPE_TIME, "time", NULL, "00:00:00 to 24:00:00", NULL, NULL},
    {TYPE_TIMESTAMP, "timestamp", NULL, NO_ZERO, BACK_YEARS, NULL},
    {TYPE_TIMESTAMPTZ, "timestamptz", NULL, NO_ZERO, "what %s holds (it ends in January 2038)",
     NULL},
    {TYPE_UUID, "uuid", NULL, NULL, NULL, NULL},
    {TYPE_JSON, "json", "longtext", "what PostgreSQL, too, reads as JSON", NULL,
     "texts in the form that the server gives %s"},
    {TYPE_ENUM, "enum", NULL, "no value outside of the list (MySQL's 0, '')", NULL, NULL},
};

static const struct rule *rule_of(enum type_kind kind)
{
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        if (rules[i].kind == kind)
            return &rules[i];
    }
    return NULL;
}

/* "int(11)" is "int"; "int(10) unsigned" is not. */
static bool is_natural(const char *source_type, const char *natural)
{
    size_t n = strcspn(source_type, "( ");
    const char *rest = source_type + n;

    if (strncmp(source_type, natural, n) != 0 || natural[n] != '\0')
        return false;
    if (*rest == '(')
        rest = strchr(rest, ')') ? strchr(rest, ')') + 1 : "";
    return *rest == '\0';
}

/* As format_type() says it: quoted only where it must be. */
static void type_ident(struct buf *b, const char *name)
{
    bool plain = islower((unsigned char)name[0]) || name[0] == '_';

    for (const char *p = name; *p; p++)
        plain = plain && (islower((unsigned char)*p) || isdigit((unsigned char)*p) || *p == '_');
    if (plain)
        buf_adds(b, name);
    else
        pg_ident(b, name);
}

const char *pg_enum_name(struct arena *a, const char *table, const char *column)
{
    return schema_object_name(a, NAME_BYTES, arena_printf(a, "%s_%s_enum", table, column));
}

static char *enum_type(const struct column_def *from, struct arena *a)
{
    struct buf b;
    char *out;

    buf_init(&b, 4096);
    type_ident(&b, from->there ? from->there->schema : "public");
    buf_addc(&b, '.');
    type_ident(&b, pg_enum_name(a, from->there ? from->there->name : "t", from->column->name));
    invariant(!b.overflow);
    out = arena_strdup(a, b.data);
    buf_release(&b);
    return out;
}

/* PostgreSQL cuts no label; it refuses those that are too long, and those that are there twice. */
static bool labels_fit(const struct column_def *from)
{
    for (size_t i = 0; i < from->nlabels; i++) {
        if (strlen(from->labels[i]) > NAME_BYTES)
            return false;
    }
    return from->nlabels > 0;
}

/* The declared type and what a literal is cast to. */
static void declare(const struct column_def *from, const struct rule *r, struct arena *a,
                    struct column *to)
{
    const struct column *c = from->column;

    to->source_type = arena_strdup(a, r->type);
    to->cast_type = to->source_type;
    switch (c->kind) {
    case TYPE_DECIMAL:
        to->source_type = arena_printf(a, "numeric(%d,%d)", c->precision, c->scale);
        break;
    case TYPE_TEXT:
        if (c->length) {
            to->source_type = arena_printf(a, "character varying(%d)", c->length);
            to->cast_type = arena_strdup(a, "character varying");
        }
        break;
    case TYPE_TIME:
    case TYPE_TIMESTAMP:
    case TYPE_TIMESTAMPTZ: {
        const char *word = c->kind == TYPE_TIME ? "time" : "timestamp";
        const char *zone = c->kind == TYPE_TIMESTAMPTZ ? "with time zone" : "without time zone";

        to->cast_type = arena_printf(a, "%s %s", word, zone);
        to->source_type = c->fraction == 6 ? to->cast_type
                                           : arena_printf(a, "%s(%d) %s", word, c->fraction, zone);
        break;
    }
    case TYPE_ENUM:
        to->source_type = labels_fit(from) ? enum_type(from, a) : arena_strdup(a, "text");
        to->cast_type = to->source_type;
        break;
    default:
        break;
    }
}

static const char *both(struct arena *a, const char *forward, const char *back)
{
    if (!back)
        return forward;
    return arena_printf(a, "%s%sback: %s", forward ? forward : "", forward ? "; " : "", back);
}

static void add_condition(struct arena *a, const char **condition, const char *more)
{
    *condition = *condition ? arena_printf(a, "%s, %s", *condition, more) : more;
}

/* What is right for the kind as a whole but not for this column. */
static const char *refusal(const struct column_def *from, const struct rule *r)
{
    const struct column *c = from->column;

    if (from->unfit)
        return from->unfit;
    if (!r || c->array)
        return "PostgreSQL is offered no type for it";
    if (c->generated)
        return "it is generated, by an expression that only its own engine knows";
    if (c->kind == TYPE_DECIMAL && (c->precision < 1 || c->precision > NUMERIC_PRECISION_MAX))
        return "it has no declared precision";
    if (strlen(c->name) > NAME_BYTES)
        return "its name is longer than PostgreSQL's 63 bytes";
    return NULL;
}

void pg_column_for(const struct column_def *from, bool native, struct arena *a, struct column *to,
                   struct verdict *out)
{
    const struct column *c = from->column;
    const struct rule *r = rule_of(c->kind);
    const char *forward;
    const char *back;

    *to = *c;
    *out = (struct verdict){FIDELITY_EXACT, FIDELITY_EXACT, NULL};
    if (native)
        return;
    out->condition = refusal(from, r);
    if (out->condition) {
        *out = (struct verdict){FIDELITY_NONE, FIDELITY_NONE, out->condition};
        return;
    }
    to->identity_always = false;
    to->order = c->kind == TYPE_UUID || c->kind == TYPE_BYTES ? KEY_ORDER_BYTES
                : c->order == KEY_ORDER_INT                   ? KEY_ORDER_INT
                                                              : KEY_ORDER_SERVER;
    declare(from, r, a, to);
    forward = r->forward;
    back = r->back ? arena_printf(a, r->back, c->source_type) : NULL;
    if (r->natural && r->limited && !is_natural(c->source_type, r->natural))
        add_condition(a, &back, arena_printf(a, r->limited, c->source_type));
    if (c->kind == TYPE_TEXT && strncmp(c->source_type, "char(", 5) == 0)
        add_condition(a, &back, "no blanks at the end");
    if (c->kind == TYPE_TEXT && from->collation && strncmp(from->collation, "utf8mb4", 7) != 0)
        add_condition(a, &back, "characters of the source's character set");
    if (c->kind == TYPE_TEXT && from->case_insensitive && from->shared_key)
        add_condition(a, &back,
                      "no two keys that the source takes for equal (case, accents, blanks at the"
                      " end)");
    if (c->kind == TYPE_ENUM && !labels_fit(from))
        add_condition(a, &back, "a label of the list");
    out->forward = forward ? FIDELITY_CONDITION : FIDELITY_EXACT;
    out->back = back ? FIDELITY_CONDITION : FIDELITY_EXACT;
    out->condition = both(a, forward, back);
}
