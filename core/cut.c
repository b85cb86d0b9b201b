#include "core/cut.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char *const range_names[] = {"all", "key", "blocks", "point"};

json_t *range_to_json(const struct range *r)
{
    json_t *json = json_pack("{s:s}", "kind", range_names[r->kind]);

    if (r->lower)
        json_object_set_new(json, "lower", row_to_json(r->lower));
    if (r->upper)
        json_object_set_new(json, "upper", row_to_json(r->upper));
    if (r->kind == RANGE_BLOCKS) {
        json_object_set_new(json, "from", json_integer((json_int_t)r->block_from));
        if (r->block_to != UINT64_MAX)
            json_object_set_new(json, "to", json_integer((json_int_t)r->block_to));
    }
    return json;
}

static int bound_from_json(struct arena *a, const json_t *json, const struct row **out)
{
    *out = NULL;
    if (!json)
        return 0;
    *out = row_from_json(a, json);
    return *out ? 0 : -1;
}

int range_from_json(struct arena *a, const json_t *json, struct range *out, struct err *e)
{
    const char *kind = json_string_value(json_object_get(json, "kind"));
    const json_t *to = json_object_get(json, "to");
    size_t i = 0;

    memset(out, 0, sizeof(*out));
    while (i < 4 && (!kind || strcmp(kind, range_names[i]) != 0))
        i++;
    if (i == 4)
        return err_set(e, ERR_FATAL, "a range in the ledger has no known kind");
    out->kind = (enum range_kind)i;
    if (bound_from_json(a, json_object_get(json, "lower"), &out->lower) < 0 ||
        bound_from_json(a, json_object_get(json, "upper"), &out->upper) < 0)
        return err_set(e, ERR_FATAL, "a range in the ledger has a bound that is not a key");
    out->block_from = (uint64_t)json_integer_value(json_object_get(json, "from"));
    out->block_to = to ? (uint64_t)json_integer_value(to) : UINT64_MAX;
    return 0;
}

void range_print(struct buf *out, const struct range *r)
{
    switch (r->kind) {
    case RANGE_ALL:
        buf_adds(out, "all rows");
        return;
    case RANGE_BLOCKS:
        buf_addf(out, "blocks from %" PRIu64, r->block_from);
        if (r->block_to != UINT64_MAX)
            buf_addf(out, " to %" PRIu64, r->block_to);
        return;
    case RANGE_POINT:
    case RANGE_KEY:
        break;
    }
    buf_adds(out, r->kind == RANGE_POINT ? "key " : "keys from ");
    if (r->lower)
        row_print(out, r->lower, 40);
    else
        buf_adds(out, "the first");
    if (r->kind == RANGE_POINT)
        return;
    buf_adds(out, " to ");
    if (r->upper)
        row_print(out, r->upper, 40);
    else
        buf_adds(out, "the last");
}

bool key_order_is_local(const struct table *t)
{
    for (size_t i = 0; i < t->nkey; i++) {
        if (t->columns[t->key[i]].order == KEY_ORDER_SERVER)
            return false;
    }
    return t->nkey > 0;
}

static int cmp_int(const struct value *a, const struct value *b)
{
    char x[32] = {0};
    char y[32] = {0};
    long long m;
    long long n;

    invariant(a->len < sizeof(x) && b->len < sizeof(y));
    memcpy(x, a->data, a->len);
    memcpy(y, b->data, b->len);
    m = strtoll(x, NULL, 10);
    n = strtoll(y, NULL, 10);
    return m < n ? -1 : m > n;
}

static int cmp_bytes(const struct value *a, const struct value *b)
{
    size_t n = a->len < b->len ? a->len : b->len;
    int order = n ? memcmp(a->data, b->data, n) : 0;

    if (order)
        return order < 0 ? -1 : 1;
    return a->len < b->len ? -1 : a->len > b->len;
}

int key_cmp_local(const struct table *t, const struct row *a, const struct row *b)
{
    invariant(a->n == t->nkey && b->n == t->nkey);
    for (size_t i = 0; i < t->nkey; i++) {
        const struct column *c = &t->columns[t->key[i]];
        int order;

        invariant(a->v[i].state == VALUE_SET && b->v[i].state == VALUE_SET);
        invariant(c->order != KEY_ORDER_SERVER);
        order =
            c->order == KEY_ORDER_INT ? cmp_int(&a->v[i], &b->v[i]) : cmp_bytes(&a->v[i], &b->v[i]);
        if (order)
            return order;
    }
    return 0;
}
