/* The tables of the scripted servers, their rows, and the server's own order of keys. */
#include "engines/scripted/world.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

struct column_spec {
    const char *name;
    const char *type;
    enum type_kind kind;
    enum key_order order;
    int key;
};
struct table_spec {
    const char *schema;
    const char *name;
    enum replica_identity identity;
    bool scattered;
    const char *unique;
    const char *big;
    struct column_spec columns[5];
};

static const struct table_spec specs[TABLES] = {
    {"public",
     "accounts",
     IDENTITY_KEY,
     false,
     NULL,
     NULL,
     {{"id", "integer", TYPE_INT32, KEY_ORDER_INT, 1},
      {"owner", "text", TYPE_TEXT, KEY_ORDER_SERVER, 0},
      {"amount", "numeric(10,2)", TYPE_DECIMAL, KEY_ORDER_SERVER, 0}}},
    {"public",
     "Names",
     IDENTITY_KEY,
     false,
     NULL,
     NULL,
     {{"v", "text", TYPE_TEXT, KEY_ORDER_SERVER, 0},
      {"k", "text", TYPE_TEXT, KEY_ORDER_SERVER, 1}}},
    {"shop",
     "lines",
     IDENTITY_KEY,
     true,
     NULL,
     NULL,
     {{"item", "text", TYPE_TEXT, KEY_ORDER_BYTES, 2},
      {"number", "bigint", TYPE_INT64, KEY_ORDER_INT, 1},
      {"count", "integer", TYPE_INT32, KEY_ORDER_INT, 0}}},
    {"shop",
     "events",
     IDENTITY_FULL,
     false,
     NULL,
     "body",
     {{"what", "text", TYPE_TEXT, KEY_ORDER_SERVER, 0},
      {"count", "integer", TYPE_INT32, KEY_ORDER_INT, 0},
      {"body", "text", TYPE_TEXT, KEY_ORDER_SERVER, 0}}},
    {"shop",
     "docs",
     IDENTITY_KEY,
     false,
     NULL,
     "body",
     {{"id", "integer", TYPE_INT32, KEY_ORDER_INT, 1},
      {"title", "text", TYPE_TEXT, KEY_ORDER_SERVER, 0},
      {"body", "text", TYPE_TEXT, KEY_ORDER_SERVER, 0}}},
    {"shop",
     "seats",
     IDENTITY_KEY,
     false,
     "code",
     NULL,
     {{"id", "text", TYPE_TEXT, KEY_ORDER_SERVER, 1},
      {"code", "text", TYPE_TEXT, KEY_ORDER_SERVER, 0},
      {"note", "text", TYPE_TEXT, KEY_ORDER_SERVER, 0}}},
    {"shop",
     "wide",
     IDENTITY_FULL,
     true,
     NULL,
     "body",
     {{"id", "integer", TYPE_INT32, KEY_ORDER_INT, 1},
      {"body", "text", TYPE_TEXT, KEY_ORDER_SERVER, 0},
      {"note", "text", TYPE_TEXT, KEY_ORDER_SERVER, 0}}},
};

static void add_columns(struct scripted_world *w, struct source_table *t,
                        const struct table_spec *spec)
{
    struct table *def = t->def;

    while (def->ncolumns < 5 && spec->columns[def->ncolumns].name)
        def->ncolumns++;
    def->columns = arena_zalloc(&w->mem, def->ncolumns * sizeof(*def->columns));
    def->key = arena_zalloc(&w->mem, def->ncolumns * sizeof(*def->key));
    for (size_t i = 0; i < def->ncolumns; i++) {
        const struct column_spec *from = &spec->columns[i];
        struct column *c = &def->columns[i];

        c->name = arena_strdup(&w->mem, from->name);
        c->source_type = arena_strdup(&w->mem, from->type);
        c->cast_type = arena_strdup(&w->mem, from->type);
        c->kind = from->kind;
        c->order = from->order;
        c->key = from->key;
        c->precision = from->kind == TYPE_DECIMAL ? 10 : 0;
        c->scale = from->kind == TYPE_DECIMAL ? 2 : 0;
        c->not_null = from->key != 0;
        if (from->key) {
            def->key[from->key - 1] = i;
            def->nkey++;
        }
        if (spec->unique && strcmp(spec->unique, from->name) == 0)
            t->unique = i;
        if (spec->big && strcmp(spec->big, from->name) == 0)
            t->big = i;
    }
}

static void fill(struct scripted_world *w, struct source_table *t)
{
    size_t n = 4 + draw_below(w, 40);

    for (size_t i = 0; i < n; i++) {
        struct row *row = random_row(w, t);
        bool taken = false;

        for (size_t j = 0; j < t->n && t->def->nkey && !taken; j++) {
            const struct row *other = t->tuples[j].row;

            taken =
                server_key_cmp(t->def, table_key_of(&w->mem, t->def, other),
                               table_key_of(&w->mem, t->def, row)) == 0 ||
                (t->unique != NO_COLUMN && value_equal(&other->v[t->unique], &row->v[t->unique]));
        }
        if (!taken)
            VEC_PUSH(w, t->tuples, t->n, t->cap)->row = row;
    }
}

void tables_make(struct scripted_world *w)
{
    for (size_t i = 0; i < TABLES; i++) {
        struct source_table *t = &w->source[i];

        t->def = arena_zalloc(&w->mem, sizeof(*t->def));
        t->def->id = 16400 + (uint32_t)i * 7;
        t->def->version = 1;
        t->def->schema = arena_strdup(&w->mem, specs[i].schema);
        t->def->name = arena_strdup(&w->mem, specs[i].name);
        t->def->identity = specs[i].identity;
        t->def->scattered = specs[i].scattered;
        t->unique = NO_COLUMN;
        t->big = NO_COLUMN;
        t->filenode = 16400 + i * 7;
        add_columns(w, t, &specs[i]);
        fill(w, t);
        t->def->rows = t->n;
        t->def->bytes = t->n * 64;
        w->target[i].source = t;
    }
}

struct source_table *source_table_of(struct scripted_world *w, const struct table *t)
{
    for (size_t i = 0; i < TABLES; i++) {
        if (strcmp(w->source[i].def->name, t->name) == 0 &&
            strcmp(w->source[i].def->schema, t->schema) == 0)
            return &w->source[i];
    }
    return NULL;
}

struct target_table *target_table_of(struct scripted_world *w, const struct table *t)
{
    struct source_table *s = source_table_of(w, t);

    return s ? &w->target[s - w->source] : NULL;
}

/* ---- order ---- */

/* A collation: letters first without their case, then with it (small before capital). */
static int collate(const struct value *a, const struct value *b)
{
    size_t n = a->len < b->len ? a->len : b->len;

    for (size_t i = 0; i < n; i++) {
        int x = tolower((unsigned char)a->data[i]);
        int y = tolower((unsigned char)b->data[i]);

        if (x != y)
            return x < y ? -1 : 1;
    }
    if (a->len != b->len)
        return a->len < b->len ? -1 : 1;
    return n ? -memcmp(a->data, b->data, n) : 0;
}

static int number_cmp(const struct value *a, const struct value *b)
{
    char x[24] = {0};
    char y[24] = {0};
    long long m;
    long long n;

    invariant(a->len < sizeof(x) && b->len < sizeof(y));
    memcpy(x, a->data, a->len);
    memcpy(y, b->data, b->len);
    m = strtoll(x, NULL, 10);
    n = strtoll(y, NULL, 10);
    return m < n ? -1 : m > n;
}

static int bytes_cmp(const struct value *a, const struct value *b)
{
    size_t n = a->len < b->len ? a->len : b->len;
    int order = n ? memcmp(a->data, b->data, n) : 0;

    return order ? order : a->len < b->len ? -1 : a->len > b->len;
}

int server_key_cmp(const struct table *t, const struct row *a, const struct row *b)
{
    for (size_t i = 0; i < t->nkey; i++) {
        int order;

        switch (t->columns[t->key[i]].order) {
        case KEY_ORDER_INT:
            order = number_cmp(&a->v[i], &b->v[i]);
            break;
        case KEY_ORDER_BYTES:
            order = bytes_cmp(&a->v[i], &b->v[i]);
            break;
        default:
            order = collate(&a->v[i], &b->v[i]);
        }
        if (order)
            return order;
    }
    return 0;
}

bool range_holds(const struct table *t, const struct range *r, const struct row *key, size_t block)
{
    switch (r->kind) {
    case RANGE_BLOCKS:
        return block >= r->block_from && block < r->block_to;
    case RANGE_POINT:
        return server_key_cmp(t, key, r->lower) == 0;
    case RANGE_KEY:
        return (!r->lower || server_key_cmp(t, key, r->lower) >= 0) &&
               (!r->upper || server_key_cmp(t, key, r->upper) < 0);
    case RANGE_ALL:
        break;
    }
    return true;
}

/* ---- rows ---- */

static struct value text_value(struct scripted_world *w, const char *text)
{
    struct value v = {VALUE_SET, strlen(text), NULL};

    v.data = arena_strndup(&w->mem, text, v.len);
    return v;
}

/* Few keys, so that they are met again and again. */
static struct value key_value(struct scripted_world *w, const struct column *c)
{
    static const char letters[] = "abcdABCDxyz_";
    char text[24];

    if (c->order == KEY_ORDER_INT) {
        snprintf(text, sizeof(text), "%d", (int)draw_below(w, c->key == 1 ? 30 : 9) - 6);
        return text_value(w, text);
    }
    snprintf(text, sizeof(text), "%c%c", letters[draw_below(w, 12)], letters[draw_below(w, 3)]);
    return text_value(w, text);
}

static struct value plain_value(struct scripted_world *w, const struct column *c, bool big)
{
    char text[64];
    unsigned long long n = ++w->values;

    if (draw_chance(w, 1, 8))
        return (struct value){VALUE_NULL, 0, NULL};
    if (c->kind == TYPE_INT32)
        snprintf(text, sizeof(text), "%llu", n);
    else if (c->kind == TYPE_DECIMAL)
        snprintf(text, sizeof(text), "%llu.%02llu", n, n % 100);
    else if (big && !draw_chance(w, 1, 5))
        snprintf(text, sizeof(text), "a long text, kept elsewhere, %llu", n);
    else if (draw_chance(w, 1, 20))
        text[0] = 0;
    else
        snprintf(text, sizeof(text), "v%llu", n);
    return text_value(w, text);
}

static struct value column_value(struct scripted_world *w, struct source_table *t, size_t i)
{
    const struct column *c = &t->def->columns[i];

    if (c->key)
        return key_value(w, c);
    /* Keyless tables: few values, so that equal rows exist. */
    if (!t->def->nkey && i != t->big && draw_chance(w, 2, 3))
        return c->kind == TYPE_TEXT ? text_value(w, "same") : text_value(w, "7");
    if (i == t->unique) {
        char text[24];

        snprintf(text, sizeof(text), "c%d", (int)draw_below(w, 60));
        return text_value(w, text);
    }
    return plain_value(w, c, i == t->big);
}

struct row *random_row(struct scripted_world *w, struct source_table *t)
{
    struct row *row = row_new(&w->mem, t->def->ncolumns);

    for (size_t i = 0; i < row->n; i++)
        row->v[i] = column_value(w, t, i);
    return row;
}

void change_some(struct scripted_world *w, struct source_table *t, struct row *row)
{
    for (size_t i = 0; i < row->n; i++) {
        if (t->def->columns[i].key)
            continue;
        if (draw_chance(w, i == t->big ? 3 : 6, 10))
            row->v[i] = column_value(w, t, i);
    }
}
