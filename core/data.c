#include "core/data.h"

#include "core/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- values ---- */

struct row *row_new(struct arena *a, size_t n)
{
    struct row *r = arena_alloc(a, sizeof(*r));

    r->n = n;
    r->v = arena_zalloc(a, (n ? n : 1) * sizeof(*r->v));
    return r;
}

struct row *row_copy(struct arena *a, const struct row *r)
{
    struct row *copy = row_new(a, r->n);

    for (size_t i = 0; i < r->n; i++) {
        copy->v[i] = r->v[i];
        if (r->v[i].state == VALUE_SET)
            copy->v[i].data = arena_strndup(a, r->v[i].data, r->v[i].len);
    }
    return copy;
}

bool value_equal(const struct value *a, const struct value *b)
{
    if (a->state != b->state)
        return false;
    if (a->state != VALUE_SET)
        return true;
    return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

bool row_equal(const struct row *a, const struct row *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++) {
        if (!value_equal(&a->v[i], &b->v[i]))
            return false;
    }
    return true;
}

size_t row_bytes(const struct row *r)
{
    size_t bytes = 0;

    for (size_t i = 0; r && i < r->n; i++)
        bytes += r->v[i].state == VALUE_SET ? r->v[i].len + 8 : 1;
    return bytes;
}

bool row_complete(const struct row *r)
{
    for (size_t i = 0; i < r->n; i++) {
        if (r->v[i].state == VALUE_UNCHANGED)
            return false;
    }
    return true;
}

/* Text up to max bytes of it, at a character's border; anything else in hex. */
static void print_value(struct buf *out, const struct value *v, size_t max)
{
    bool text = text_is_utf8(v->data, v->len) && !memchr(v->data, 0, v->len);
    size_t n = v->len < max ? v->len : max;

    if (text) {
        while (n > 0 && n < v->len && ((unsigned char)v->data[n] & 0xc0) == 0x80)
            n--;
        buf_add(out, v->data, n);
    } else {
        n = n < max / 2 ? n : max / 2;
        buf_adds(out, "\\x");
        for (size_t i = 0; i < n; i++)
            buf_addf(out, "%02x", (unsigned char)v->data[i]);
    }
    if (n < v->len)
        buf_adds(out, "…");
}

void row_print(struct buf *out, const struct row *r, size_t max_value)
{
    buf_addc(out, '(');
    for (size_t i = 0; i < r->n; i++) {
        const struct value *v = &r->v[i];

        if (i)
            buf_adds(out, ", ");
        if (v->state != VALUE_SET) {
            buf_adds(out, v->state == VALUE_NULL ? "NULL" : "unchanged");
            continue;
        }
        print_value(out, v, max_value);
    }
    buf_addc(out, ')');
}

/* ---- tables ---- */

static const char *const type_kind_names[TYPE_COUNT] = {
    [TYPE_BOOL] = "bool",
    [TYPE_INT16] = "int16",
    [TYPE_INT32] = "int32",
    [TYPE_INT64] = "int64",
    [TYPE_FLOAT32] = "float32",
    [TYPE_FLOAT64] = "float64",
    [TYPE_DECIMAL] = "decimal",
    [TYPE_TEXT] = "text",
    [TYPE_BYTES] = "bytes",
    [TYPE_DATE] = "date",
    [TYPE_TIME] = "time",
    [TYPE_TIMESTAMP] = "timestamp",
    [TYPE_TIMESTAMPTZ] = "timestamptz",
    [TYPE_UUID] = "uuid",
    [TYPE_JSON] = "json",
    [TYPE_ENUM] = "enum",
    [TYPE_OTHER] = "other",
};

const char *type_kind_name(enum type_kind kind)
{
    return (unsigned)kind < TYPE_COUNT ? type_kind_names[kind] : "?";
}

int type_kind_parse(const char *name)
{
    for (int i = 0; i < TYPE_COUNT; i++) {
        if (strcmp(name, type_kind_names[i]) == 0)
            return i;
    }
    return -1;
}

const char *table_label(const struct table *t)
{
    static _Thread_local char labels[16][520];
    static _Thread_local unsigned next;
    char *label = labels[next++ % 16];

    snprintf(label, sizeof(labels[0]), "%s.%s", t->schema, t->name);
    return label;
}

static char *dup_or_null(struct arena *a, const char *s)
{
    return s ? arena_strdup(a, s) : NULL;
}

bool table_is(const struct table *t, const char *label)
{
    size_t n = strlen(t->schema);

    return strncmp(label, t->schema, n) == 0 && label[n] == '.' &&
           strcmp(label + n + 1, t->name) == 0;
}

const struct table *table_there(const struct table *t)
{
    return t->there ? t->there : t;
}

struct table *table_copy(struct arena *a, const struct table *t)
{
    struct table *copy = arena_memdup(a, t, sizeof(*t));

    copy->there = t->there ? table_copy(a, t->there) : NULL;
    copy->schema = arena_strdup(a, t->schema);
    copy->name = arena_strdup(a, t->name);
    copy->root = dup_or_null(a, t->root);
    copy->columns = arena_memdup(a, t->columns, t->ncolumns * sizeof(*t->columns));
    copy->key = arena_memdup(a, t->key, t->nkey * sizeof(*t->key));
    for (size_t i = 0; i < t->ncolumns; i++) {
        copy->columns[i].name = arena_strdup(a, t->columns[i].name);
        copy->columns[i].source_type = dup_or_null(a, t->columns[i].source_type);
        copy->columns[i].cast_type = dup_or_null(a, t->columns[i].cast_type);
    }
    return copy;
}

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

bool table_same_shape(const struct table *a, const struct table *b)
{
    if (strcmp(a->schema, b->schema) != 0 || strcmp(a->name, b->name) != 0)
        return false;
    if (a->ncolumns != b->ncolumns || a->nkey != b->nkey || a->identity != b->identity)
        return false;
    for (size_t i = 0; i < a->ncolumns; i++) {
        const struct column *x = &a->columns[i];
        const struct column *y = &b->columns[i];

        if (strcmp(x->name, y->name) != 0 || x->kind != y->kind || x->key != y->key ||
            x->precision != y->precision || x->scale != y->scale || x->array != y->array ||
            x->generated != y->generated || !same_text(x->source_type, y->source_type))
            return false;
    }
    return true;
}

const struct column *table_column(const struct table *t, const char *name)
{
    for (size_t i = 0; i < t->ncolumns; i++) {
        if (strcmp(t->columns[i].name, name) == 0)
            return &t->columns[i];
    }
    return NULL;
}

const char *table_rewritten(const struct table *planned, const struct table *now, struct arena *a)
{
    bool other_file = planned->filenode && now->filenode && planned->filenode != now->filenode;

    for (size_t i = 0; i < planned->ncolumns; i++) {
        const struct column *was = &planned->columns[i];
        const struct column *is = table_column(now, was->name);

        if (!is || !was->number || !is->number)
            continue;
        if (was->number != is->number)
            return arena_printf(a, "its column \"%s\" was dropped and made again", was->name);
        if (other_file && was->stamp != is->stamp)
            return arena_printf(a, "its column \"%s\" was altered and its rows were rewritten",
                                was->name);
    }
    return NULL;
}

const char *table_altered(const struct table *planned, const struct table *now, struct arena *a)
{
    if (planned->id != now->id)
        return "a new table has taken its name";
    for (size_t i = 0; i < planned->ncolumns; i++) {
        const struct column *was = &planned->columns[i];
        const struct column *is = table_column(now, was->name);

        if (!is)
            return arena_printf(a, "its column \"%s\" is gone", was->name);
        if (!same_text(was->source_type, is->source_type) || was->generated != is->generated)
            return arena_printf(a, "its column \"%s\" was planned as %s%s and is %s%s", was->name,
                                was->source_type, was->generated ? ", generated," : "",
                                is->source_type, is->generated ? ", generated" : "");
        if (was->key != is->key)
            return arena_printf(a, "its key is another one (column \"%s\")", was->name);
    }
    for (size_t i = 0; i < now->ncolumns; i++) {
        if (!table_column(planned, now->columns[i].name))
            return arena_printf(a, "it has a column \"%s\" that was not planned",
                                now->columns[i].name);
    }
    return table_rewritten(planned, now, a);
}

struct row *table_key_of(struct arena *a, const struct table *t, const struct row *full)
{
    struct row *key = row_new(a, t->nkey);

    invariant(full->n == t->ncolumns);
    for (size_t i = 0; i < t->nkey; i++)
        key->v[i] = full->v[t->key[i]];
    return key;
}

/* ---- positions ---- */

int position_cmp(struct position a, struct position b)
{
    if (a.major != b.major)
        return a.major < b.major ? -1 : 1;
    if (a.minor != b.minor)
        return a.minor < b.minor ? -1 : 1;
    return 0;
}

bool position_is_zero(struct position p)
{
    return p.major == 0 && p.minor == 0;
}

static void format_hex(uint64_t n, char *out)
{
    for (int i = 15; i >= 0; i--, n >>= 4)
        out[i] = "0123456789ABCDEF"[n & 15];
}

void position_format(struct position p, char out[POSITION_TEXT_SIZE])
{
    format_hex(p.major, out);
    out[16] = '.';
    format_hex(p.minor, out + 17);
    out[33] = '\0';
}

/* 16 digits, upper case. */
static bool parse_hex(const char *text, uint64_t *out)
{
    *out = 0;
    for (int i = 0; i < 16; i++) {
        char c = text[i];

        if (c >= '0' && c <= '9')
            *out = *out << 4 | (uint64_t)(c - '0');
        else if (c >= 'A' && c <= 'F')
            *out = *out << 4 | (uint64_t)(c - 'A' + 10);
        else
            return false;
    }
    return true;
}

int position_parse(const char *text, struct position *out)
{
    if (!text || strlen(text) != POSITION_TEXT_SIZE - 1 || text[16] != '.' ||
        !parse_hex(text, &out->major) || !parse_hex(text + 17, &out->minor))
        return -1;
    return 0;
}

int version_cmp(const struct version *a, const struct version *b)
{
    int order;

    if (a->epoch != b->epoch)
        return a->epoch < b->epoch ? -1 : 1;
    order = position_cmp(a->commit, b->commit);
    if (order)
        return order;
    if (a->ordinal != b->ordinal)
        return a->ordinal < b->ordinal ? -1 : 1;
    return 0;
}

/* ---- changes ---- */

const char *change_op_name(enum change_op op)
{
    static const char *const names[] = {"insert", "update", "delete", "truncate"};

    return (unsigned)op < 4 ? names[op] : "?";
}

size_t change_bytes(const struct change *c)
{
    return sizeof(*c) + row_bytes(c->before) + row_bytes(c->after);
}

static struct row *key_or_row(struct arena *a, const struct table *t, const struct row *full)
{
    return t->nkey ? table_key_of(a, t, full) : row_copy(a, full);
}

bool changes_scan(const struct change *const *changes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!changes[i]->table->nkey && changes[i]->op != OP_INSERT)
            return true;
    }
    return false;
}

struct row *change_old_key(struct arena *a, const struct change *c)
{
    struct row *key;

    if (c->op == OP_INSERT || c->op == OP_TRUNCATE)
        return NULL;
    if (!c->before)
        return key_or_row(a, c->table, c->after);
    key = key_or_row(a, c->table, c->before);
    /* An old tuple that leaves a key column out (unchanged TOAST in the old image) has the new
     * one's value. */
    for (size_t i = 0; c->after && c->table->nkey && i < key->n; i++) {
        if (key->v[i].state == VALUE_UNCHANGED)
            key->v[i] = c->after->v[c->table->key[i]];
    }
    return key;
}

struct row *change_new_key(struct arena *a, const struct change *c)
{
    struct row *key;

    if (!c->after)
        return NULL;
    key = key_or_row(a, c->table, c->after);
    for (size_t i = 0; c->before && c->table->nkey && i < key->n; i++) {
        if (key->v[i].state == VALUE_UNCHANGED)
            key->v[i] = c->before->v[c->table->key[i]];
    }
    return key;
}

/* ---- JSON ---- */

static json_t *value_to_json(const struct value *v)
{
    static const char digits[] = "0123456789abcdef";
    json_t *json;
    char *hex;

    if (v->state == VALUE_NULL)
        return json_null();
    if (v->state == VALUE_UNCHANGED)
        return json_pack("{s:b}", "unchanged", 1);
    json = json_stringn(v->data ? v->data : "", v->len);
    if (json)
        return json;
    hex = malloc(2 * v->len + 1);
    invariant(hex != NULL);
    for (size_t i = 0; i < v->len; i++) {
        hex[2 * i] = digits[(unsigned char)v->data[i] >> 4];
        hex[2 * i + 1] = digits[(unsigned char)v->data[i] & 15];
    }
    json = json_pack("{s:s%}", "hex", hex, 2 * v->len);
    free(hex);
    return json;
}

json_t *row_to_json(const struct row *r)
{
    json_t *array = json_array();

    for (size_t i = 0; i < r->n; i++)
        json_array_append_new(array, value_to_json(&r->v[i]));
    return array;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int value_from_json(struct arena *a, const json_t *json, struct value *out)
{
    const json_t *hex = json_object_get(json, "hex");
    size_t len;
    char *data;

    out->state = VALUE_SET;
    if (json_is_null(json)) {
        out->state = VALUE_NULL;
        return 0;
    }
    if (json_is_string(json)) {
        out->len = json_string_length(json);
        out->data = arena_strndup(a, json_string_value(json), out->len);
        return 0;
    }
    if (json_is_true(json_object_get(json, "unchanged"))) {
        out->state = VALUE_UNCHANGED;
        return 0;
    }
    if (!json_is_string(hex) || json_string_length(hex) % 2)
        return -1;
    len = json_string_length(hex) / 2;
    data = arena_alloc(a, len + 1);
    for (size_t i = 0; i < len; i++) {
        int high = hex_digit(json_string_value(hex)[2 * i]);
        int low = hex_digit(json_string_value(hex)[2 * i + 1]);

        if (high < 0 || low < 0)
            return -1;
        data[i] = (char)(high << 4 | low);
    }
    out->len = len;
    out->data = data;
    return 0;
}

struct row *row_from_json(struct arena *a, const json_t *json)
{
    struct row *r;

    if (!json_is_array(json))
        return NULL;
    r = row_new(a, json_array_size(json));
    for (size_t i = 0; i < r->n; i++) {
        if (value_from_json(a, json_array_get(json, i), &r->v[i]) < 0)
            return NULL;
    }
    return r;
}
