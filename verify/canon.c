#include "verify/canon.h"

#include <stdlib.h>
#include <string.h>

/* What is nested deeper is compared as it is written. */
#define DEPTH_MAX 512
#define JSON_MAX ((size_t)1024 * 1024 * 1024)

/* ---- which columns ---- */

enum json_form {
    FORM_TEXT,  /* as it was written */
    FORM_JSONB, /* PostgreSQL's */
    FORM_ENGINE /* of an engine that normalizes its json */
};

static enum json_form form_of(const struct column *c, bool normalizes)
{
    const char *type = c->source_type ? c->source_type : "";

    if (strncmp(type, "jsonb", 5) == 0)
        return FORM_JSONB;
    return normalizes && strncmp(type, "json", 4) == 0 ? FORM_ENGINE : FORM_TEXT;
}

bool canon_wanted(const struct column *source, bool source_normalizes, const struct column *target,
                  bool target_normalizes)
{
    return source->kind == TYPE_JSON && target->kind == TYPE_JSON &&
           form_of(source, source_normalizes) != form_of(target, target_normalizes);
}

/* ---- the parser, which writes as it reads ---- */

struct json_in {
    const char *p;
    const char *end;
    struct buf *out;
    struct buf scratch;
    int depth;
};

struct member {
    size_t begin; /* of its name in out */
    size_t name;  /* bytes of the name */
    size_t len;   /* of name, colon and value */
    size_t at;    /* which of the object's, since the last of equal names counts */
    const char *base;
};

static bool value(struct json_in *j);

static void blanks(struct json_in *j)
{
    while (j->p < j->end && (*j->p == ' ' || *j->p == '\t' || *j->p == '\n' || *j->p == '\r'))
        j->p++;
}

static bool take(struct json_in *j, char c)
{
    if (j->p == j->end || *j->p != c)
        return false;
    j->p++;
    return true;
}

static bool word(struct json_in *j, const char *w)
{
    size_t n = strlen(w);

    if ((size_t)(j->end - j->p) < n || memcmp(j->p, w, n) != 0)
        return false;
    buf_add(j->out, w, n);
    j->p += n;
    return true;
}

static bool digits(struct json_in *j)
{
    const char *from = j->p;

    while (j->p < j->end && *j->p >= '0' && *j->p <= '9')
        j->p++;
    return j->p > from;
}

/* "-12.50e1" is -125e0: the digits without zeros at either end, and a power of ten. */
static void put_number(struct json_in *j, const char *from, const char *mantissa_end,
                       int64_t exponent)
{
    size_t first = j->out->len;
    bool fraction = false;
    size_t zeros = 0;

    buf_addc(j->out, '-');
    for (const char *c = from; c < mantissa_end; c++) {
        if (*c == '.')
            fraction = true;
        if (*c < '0' || *c > '9')
            continue;
        exponent -= fraction;
        if (*c == '0' && j->out->len == first + 1)
            continue;
        zeros = *c == '0' ? zeros + 1 : 0;
        buf_addc(j->out, *c);
    }
    if (j->out->overflow)
        return;
    if (j->out->len == first + 1) {
        j->out->data[first] = '0';
        return;
    }
    j->out->len -= zeros;
    if (*from != '-') {
        memmove(j->out->data + first, j->out->data + first + 1, j->out->len - first - 1);
        j->out->len--;
    }
    buf_addf(j->out, "e%lld", (long long)(exponent + (int64_t)zeros));
}

static bool number(struct json_in *j)
{
    const char *from = j->p;
    const char *mantissa_end;
    int64_t exponent = 0;

    take(j, '-');
    if (!digits(j) || (take(j, '.') && !digits(j)))
        return false;
    mantissa_end = j->p;
    if (j->p < j->end && (*j->p == 'e' || *j->p == 'E')) {
        bool negative;

        j->p++;
        negative = take(j, '-');
        if (!negative)
            take(j, '+');
        const char *digit = j->p;
        if (!digits(j) || j->p - digit > 15)
            return false;
        while (digit < j->p)
            exponent = exponent * 10 + (*digit++ - '0');
        exponent = negative ? -exponent : exponent;
    }
    put_number(j, from, mantissa_end, exponent);
    return true;
}

static bool hex4(struct json_in *j, uint32_t *out)
{
    *out = 0;
    for (int i = 0; i < 4; i++) {
        char c = j->p < j->end ? *j->p++ : 0;
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;

        if (digit < 0)
            return false;
        *out = *out * 16 + (uint32_t)digit;
    }
    return true;
}

static void put_utf8(struct buf *out, uint32_t c)
{
    if (c < 0x80) {
        buf_addc(out, (char)c);
    } else if (c < 0x800) {
        buf_addc(out, (char)(0xc0 | c >> 6));
        buf_addc(out, (char)(0x80 | (c & 0x3f)));
    } else if (c < 0x10000) {
        buf_addc(out, (char)(0xe0 | c >> 12));
        buf_addc(out, (char)(0x80 | (c >> 6 & 0x3f)));
        buf_addc(out, (char)(0x80 | (c & 0x3f)));
    } else {
        buf_addc(out, (char)(0xf0 | c >> 18));
        buf_addc(out, (char)(0x80 | (c >> 12 & 0x3f)));
        buf_addc(out, (char)(0x80 | (c >> 6 & 0x3f)));
        buf_addc(out, (char)(0x80 | (c & 0x3f)));
    }
}

static bool unicode(struct json_in *j)
{
    uint32_t c;
    uint32_t low;

    if (!hex4(j, &c))
        return false;
    /* Half of a pair stands for no character: such a text is compared as it is written. */
    if (c >= 0xdc00 && c <= 0xdfff)
        return false;
    if (c >= 0xd800 && c <= 0xdbff) {
        if (!take(j, '\\') || !take(j, 'u') || !hex4(j, &low) || low < 0xdc00 || low > 0xdfff)
            return false;
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    }
    if (c < ' ' || c == '"' || c == '\\')
        buf_addf(j->out, "\\u%04x", c);
    else
        put_utf8(j->out, c);
    return true;
}

static bool escape(struct json_in *j)
{
    static const char names[] = "\"\\/bfnrt";
    static const char stand_for[] = "\"\\/\b\f\n\r\t";
    const char *name;
    char c;

    if (j->p == j->end)
        return false;
    if (*j->p == 'u') {
        j->p++;
        return unicode(j);
    }
    name = *j->p ? strchr(names, *j->p) : NULL;
    if (!name)
        return false;
    j->p++;
    c = stand_for[name - names];
    if ((unsigned char)c < ' ' || c == '"' || c == '\\')
        buf_addf(j->out, "\\u%04x", (unsigned)c);
    else
        buf_addc(j->out, c);
    return true;
}

static bool string(struct json_in *j)
{
    if (!take(j, '"'))
        return false;
    buf_addc(j->out, '"');
    while (j->p < j->end && *j->p != '"') {
        unsigned char c = (unsigned char)*j->p++;

        if (c == '\\' && !escape(j))
            return false;
        if (c < ' ') /* not by the standard, but MariaDB lets it pass */
            buf_addf(j->out, "\\u%04x", c);
        else if (c != '\\')
            buf_addc(j->out, (char)c);
    }
    buf_addc(j->out, '"');
    return take(j, '"');
}

static bool array(struct json_in *j)
{
    buf_addc(j->out, '[');
    j->p++;
    blanks(j);
    if (!take(j, ']')) {
        do {
            if (!value(j))
                return false;
            buf_addc(j->out, ',');
        } while (take(j, ','));
        if (!take(j, ']'))
            return false;
    }
    buf_addc(j->out, ']');
    return true;
}

static int by_name(const void *left, const void *right)
{
    const struct member *a = left;
    const struct member *b = right;
    size_t n = a->name < b->name ? a->name : b->name;
    int order = memcmp(a->base + a->begin, b->base + b->begin, n);

    if (order == 0 && a->name != b->name)
        order = a->name < b->name ? -1 : 1;
    return order ? order : a->at < b->at ? -1 : 1;
}

static bool same_name(const struct member *a, const struct member *b)
{
    return a->name == b->name && memcmp(a->base + a->begin, b->base + b->begin, a->name) == 0;
}

/* The members behind `from` in out, sorted, the last of equal names alone. */
static void sort_members(struct json_in *j, size_t from, struct member *m, size_t n)
{
    if (j->out->overflow)
        return;
    for (size_t i = 0; i < n; i++)
        m[i].base = j->out->data;
    qsort(m, n, sizeof(*m), by_name);
    buf_reset(&j->scratch, j->scratch.max);
    for (size_t i = 0; i < n; i++) {
        if (i + 1 < n && same_name(&m[i], &m[i + 1]))
            continue;
        buf_add(&j->scratch, j->out->data + m[i].begin, m[i].len);
    }
    if (j->scratch.len)
        memcpy(j->out->data + from, j->scratch.data, j->scratch.len);
    j->out->len = from + j->scratch.len;
}

static bool member(struct json_in *j, struct member *m)
{
    m->begin = j->out->len;
    blanks(j);
    if (!string(j))
        return false;
    m->name = j->out->len - m->begin;
    blanks(j);
    if (!take(j, ':'))
        return false;
    buf_addc(j->out, ':');
    if (!value(j))
        return false;
    buf_addc(j->out, ',');
    m->len = j->out->len - m->begin;
    return true;
}

static bool object(struct json_in *j)
{
    struct member *m = NULL;
    size_t n = 0;
    size_t cap = 0;
    size_t from;
    bool ok = false;

    buf_addc(j->out, '{');
    from = j->out->len;
    j->p++;
    blanks(j);
    if (take(j, '}')) {
        buf_addc(j->out, '}');
        return true;
    }
    do {
        if (n == cap) {
            cap = cap ? cap * 2 : 16;
            m = realloc(m, cap * sizeof(*m));
            invariant(m != NULL);
        }
        m[n] = (struct member){.at = n};
        if (!member(j, &m[n++]))
            goto out;
    } while (take(j, ','));
    ok = take(j, '}');
    sort_members(j, from, m, n);
    buf_addc(j->out, '}');
out:
    free(m);
    return ok;
}

/* With the blanks around it. */
static bool value(struct json_in *j)
{
    bool ok = false;

    blanks(j);
    if (j->p == j->end || ++j->depth > DEPTH_MAX)
        return false;
    switch (*j->p) {
    case '{':
        ok = object(j);
        break;
    case '[':
        ok = array(j);
        break;
    case '"':
        ok = string(j);
        break;
    case 't':
        ok = word(j, "true");
        break;
    case 'f':
        ok = word(j, "false");
        break;
    case 'n':
        ok = word(j, "null");
        break;
    default:
        ok = number(j);
    }
    j->depth--;
    blanks(j);
    return ok;
}

bool canon_json(struct buf *out, const char *text, size_t len)
{
    struct json_in j = {.p = text, .end = text + len, .out = out};
    size_t before = out->len;
    bool ok;

    buf_init(&j.scratch, JSON_MAX);
    ok = value(&j) && j.p == j.end && !out->overflow && !j.scratch.overflow;
    buf_release(&j.scratch);
    if (!ok)
        out->len = before;
    return ok;
}

const struct row *canon_row(struct arena *a, const bool *wanted, const struct row *r)
{
    struct row *copy = NULL;

    for (size_t i = 0; wanted && i < r->n; i++) {
        struct buf text;

        if (!wanted[i] || r->v[i].state != VALUE_SET)
            continue;
        buf_init(&text, JSON_MAX);
        if (canon_json(&text, r->v[i].data, r->v[i].len)) {
            if (!copy) {
                copy = row_new(a, r->n);
                memcpy(copy->v, r->v, r->n * sizeof(*r->v));
            }
            char *data = arena_alloc(a, text.len + 1);
            memcpy(data, text.data, text.len);
            copy->v[i] = (struct value){VALUE_SET, text.len, data};
        }
        buf_release(&text);
    }
    return copy ? copy : r;
}
