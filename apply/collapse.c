#include "apply/collapse.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_BUCKETS 1024u

/* What is known of one key. */
struct entry {
    struct entry *next; /* in its bucket */
    uint64_t hash;
    const struct table *table;
    const struct row *key;
    bool must_exist; /* demanded by the first change */
    bool exists;     /* after the last change */
    bool replaced;   /* was deleted and inserted again */
    struct row *row; /* exists: the row, VALUE_UNCHANGED where the target's value stays */
};

struct collapse {
    struct arena *arena;
    struct entry **buckets;
    size_t nbuckets;
    struct entry **entries; /* in order of appearance */
    size_t n;
    size_t cap;
};

struct collapse *collapse_new(struct arena *a)
{
    struct collapse *c = arena_zalloc(a, sizeof(*c));

    c->arena = a;
    c->nbuckets = FIRST_BUCKETS;
    c->buckets = arena_zalloc(a, c->nbuckets * sizeof(struct entry *));
    return c;
}

size_t collapse_count(const struct collapse *c)
{
    return c->n;
}

static bool key_changes(struct arena *a, const struct change *c)
{
    return c->before && c->table->nkey && !row_equal(change_old_key(a, c), change_new_key(a, c));
}

bool collapse_takes(const struct change *c)
{
    struct arena a = ARENA_INIT;
    bool takes = true;

    if (c->op == OP_TRUNCATE || (c->table->nkey == 0 && c->op != OP_INSERT))
        return false;
    if (c->op == OP_UPDATE && !row_complete(c->after))
        takes = !key_changes(&a, c);
    arena_release(&a);
    return takes;
}

/* ---- the map ---- */

static uint64_t hash_bytes(uint64_t h, const void *data, size_t len)
{
    const unsigned char *p = data;

    for (size_t i = 0; i < len; i++)
        h = (h ^ p[i]) * 1099511628211u;
    return h;
}

static uint64_t hash_key(const struct table *t, const struct row *key)
{
    uint64_t h = hash_bytes(14695981039346656037u, &t, sizeof(t));

    for (size_t i = 0; i < key->n; i++) {
        h = hash_bytes(h, &key->v[i].len, sizeof(key->v[i].len));
        if (key->v[i].state == VALUE_SET)
            h = hash_bytes(h, key->v[i].data, key->v[i].len);
    }
    return h ^ h >> 29;
}

static void rehash(struct collapse *c)
{
    c->nbuckets *= 4;
    c->buckets = arena_zalloc(c->arena, c->nbuckets * sizeof(struct entry *));
    for (size_t i = 0; i < c->n; i++) {
        struct entry **bucket = &c->buckets[c->entries[i]->hash & (c->nbuckets - 1)];

        c->entries[i]->next = *bucket;
        *bucket = c->entries[i];
    }
}

static struct entry *entry_find(struct collapse *c, const struct table *t, const struct row *key,
                                uint64_t hash)
{
    struct entry *e = c->buckets[hash & (c->nbuckets - 1)];

    while (e && !(e->hash == hash && e->table == t && row_equal(e->key, key)))
        e = e->next;
    return e;
}

static struct entry *entry_add(struct collapse *c, const struct table *t, const struct row *key,
                               uint64_t hash)
{
    struct entry *e = arena_zalloc(c->arena, sizeof(*e));
    struct entry **bucket;

    if (c->n == c->cap) {
        struct entry **old = c->entries;

        c->cap = c->cap ? c->cap * 2 : 256;
        c->entries = arena_alloc(c->arena, c->cap * sizeof(struct entry *));
        if (c->n)
            memcpy(c->entries, old, c->n * sizeof(struct entry *));
    }
    if (c->n > c->nbuckets * 2)
        rehash(c);
    bucket = &c->buckets[hash & (c->nbuckets - 1)];
    *e = (struct entry){.next = *bucket, .hash = hash, .table = t, .key = key};
    *bucket = e;
    c->entries[c->n++] = e;
    return e;
}

/* ---- changes ---- */

static int put(struct collapse *c, const struct table *t, const struct row *key,
               const struct row *row)
{
    /* Without a key there is nothing to collapse by: each row is an entry of its own. */
    uint64_t hash = t->nkey ? hash_key(t, key) : c->n;
    struct entry *e = t->nkey ? entry_find(c, t, key, hash) : NULL;

    if (e && e->exists)
        return 0;
    if (e)
        e->replaced = e->must_exist;
    else
        e = entry_add(c, t, key, hash);
    e->exists = true;
    e->row = row_copy(c->arena, row);
    return 1;
}

static int erase(struct collapse *c, const struct table *t, const struct row *key)
{
    uint64_t hash = hash_key(t, key);
    struct entry *e = entry_find(c, t, key, hash);

    if (e && !e->exists)
        return 0;
    if (!e) {
        e = entry_add(c, t, key, hash);
        e->must_exist = true;
    }
    e->exists = false;
    e->replaced = false;
    e->row = NULL;
    return 1;
}

static int rewrite(struct collapse *c, const struct table *t, const struct row *key,
                   const struct row *row)
{
    uint64_t hash = hash_key(t, key);
    struct entry *e = entry_find(c, t, key, hash);

    if (e && !e->exists)
        return 0;
    if (!e) {
        e = entry_add(c, t, key, hash);
        e->must_exist = true;
        e->exists = true;
        e->row = row_copy(c->arena, row);
        return 1;
    }
    for (size_t i = 0; i < row->n; i++) {
        if (row->v[i].state == VALUE_UNCHANGED)
            continue;
        e->row->v[i] = row->v[i];
        if (row->v[i].state == VALUE_SET)
            e->row->v[i].data = arena_strndup(c->arena, row->v[i].data, row->v[i].len);
    }
    return 1;
}

int collapse_add(struct collapse *c, const struct change *change)
{
    const struct row *old_key = change_old_key(c->arena, change);
    const struct row *new_key = change_new_key(c->arena, change);

    switch (change->op) {
    case OP_INSERT:
        return put(c, change->table, new_key, change->after);
    case OP_DELETE:
        return erase(c, change->table, old_key);
    case OP_UPDATE:
        if (row_equal(old_key, new_key))
            return rewrite(c, change->table, new_key, change->after);
        return erase(c, change->table, old_key) && put(c, change->table, new_key, change->after);
    case OP_TRUNCATE:
        break;
    }
    return 0;
}

/* ---- sets ---- */

/* One net write of an entry, sortable into sets. */
struct write {
    enum collapsed_op op;
    const struct entry *entry;
    const bool *columns;
    size_t order; /* keeps the sort stable */
};

static const bool *columns_written(struct arena *a, const struct entry *e)
{
    bool *columns = arena_zalloc(a, e->table->ncolumns * sizeof(bool));
    bool any = false;

    for (size_t i = 0; i < e->table->ncolumns; i++) {
        columns[i] = e->row->v[i].state != VALUE_UNCHANGED && !e->table->columns[i].key &&
                     !e->table->columns[i].generated;
        any = any || columns[i];
    }
    if (!any)
        columns[e->table->key[0]] = true;
    return columns;
}

static size_t writes_of(struct arena *a, const struct entry *e, struct write *out)
{
    size_t n = 0;

    if (e->must_exist && (!e->exists || e->replaced))
        out[n++] = (struct write){.op = COLLAPSED_DELETE, .entry = e};
    if (!e->must_exist && !e->exists)
        out[n++] = (struct write){.op = COLLAPSED_ABSENT, .entry = e};
    if (e->must_exist && e->exists && !e->replaced)
        out[n++] = (struct write){COLLAPSED_UPDATE, e, columns_written(a, e), 0};
    if (e->exists && (!e->must_exist || e->replaced))
        out[n++] = (struct write){.op = COLLAPSED_INSERT, .entry = e};
    return n;
}

static int write_cmp(const void *pa, const void *pb)
{
    const struct write *a = pa;
    const struct write *b = pb;
    int order;

    if (a->op != b->op)
        return a->op < b->op ? -1 : 1;
    if (a->entry->table != b->entry->table) {
        order = strcmp(table_label(a->entry->table), table_label(b->entry->table));
        if (order)
            return order;
        return a->entry->table < b->entry->table ? -1 : 1;
    }
    if (a->columns) {
        order = memcmp(a->columns, b->columns, a->entry->table->ncolumns * sizeof(bool));
        if (order)
            return order;
    }
    return a->order < b->order ? -1 : a->order > b->order;
}

static bool same_set(const struct write *a, const struct write *b)
{
    return a->op == b->op && a->entry->table == b->entry->table &&
           (!a->columns ||
            memcmp(a->columns, b->columns, a->entry->table->ncolumns * sizeof(bool)) == 0);
}

void collapse_finish(struct collapse *c, struct collapsed_sets *out)
{
    struct write *writes = arena_alloc(c->arena, (2 * c->n + 1) * sizeof(*writes));
    const struct row **keys = arena_alloc(c->arena, (2 * c->n + 1) * sizeof(*keys));
    const struct row **rows = arena_alloc(c->arena, (2 * c->n + 1) * sizeof(*rows));
    size_t n = 0;

    for (size_t i = 0; i < c->n; i++)
        n += writes_of(c->arena, c->entries[i], &writes[n]);
    for (size_t i = 0; i < n; i++)
        writes[i].order = i;
    qsort(writes, n, sizeof(*writes), write_cmp);
    out->v = arena_zalloc(c->arena, (n + 1) * sizeof(*out->v));
    out->n = 0;
    for (size_t i = 0; i < n; i++) {
        struct collapsed_set *set = &out->v[out->n];

        if (i == 0 || !same_set(&writes[i - 1], &writes[i])) {
            set->op = writes[i].op;
            set->table = writes[i].entry->table;
            set->columns = writes[i].columns;
            set->keys = &keys[i];
            set->rows = &rows[i];
            out->n++;
        }
        set = &out->v[out->n - 1];
        set->keys[set->n] = writes[i].entry->key;
        set->rows[set->n++] = writes[i].entry->row;
    }
}
