#include "verify/hash.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

/* Small values are gathered, so that libcrypto is called once a row; large ones go there directly
 * and are never copied. */
#define GATHER 4096

struct hasher {
    EVP_MD_CTX *ctx;
    size_t used;
    unsigned char gather[GATHER];
};

struct hasher *hasher_new(void)
{
    struct hasher *h = calloc(1, sizeof(*h));

    invariant(h != NULL);
    h->ctx = EVP_MD_CTX_new();
    invariant(h->ctx && EVP_DigestInit_ex(h->ctx, EVP_sha256(), NULL));
    return h;
}

void hasher_free(struct hasher *h)
{
    if (!h)
        return;
    EVP_MD_CTX_free(h->ctx);
    free(h);
}

static void add(struct hasher *h, const void *data, size_t len)
{
    if (len > sizeof(h->gather) - h->used) {
        invariant(EVP_DigestUpdate(h->ctx, h->gather, h->used));
        h->used = 0;
    }
    if (len > sizeof(h->gather)) {
        invariant(EVP_DigestUpdate(h->ctx, data, len));
        return;
    }
    if (len)
        memcpy(h->gather + h->used, data, len);
    h->used += len;
}

static void add_value(struct hasher *h, const struct value *v)
{
    unsigned char head[9] = {0};

    invariant(v->state != VALUE_UNCHANGED);
    if (v->state == VALUE_NULL) {
        add(h, head, 1);
        return;
    }
    head[0] = 1;
    for (int i = 0; i < 8; i++)
        head[1 + i] = (unsigned char)((uint64_t)v->len >> (56 - 8 * i));
    add(h, head, sizeof(head));
    add(h, v->data, v->len);
}

static struct digest finish(struct hasher *h)
{
    unsigned char md[EVP_MAX_MD_SIZE];
    struct digest d = {0, 0};

    invariant(EVP_DigestUpdate(h->ctx, h->gather, h->used));
    invariant(EVP_DigestFinal_ex(h->ctx, md, NULL));
    invariant(EVP_DigestInit_ex(h->ctx, NULL, NULL));
    h->used = 0;
    for (int i = 0; i < 8; i++) {
        d.high = d.high << 8 | md[i];
        d.low = d.low << 8 | md[8 + i];
    }
    return d;
}

struct digest hasher_row(struct hasher *h, const struct table *t, const struct row *r)
{
    for (size_t i = 0; i < t->ncolumns; i++) {
        if (!t->columns[i].generated)
            add_value(h, &r->v[i]);
    }
    return finish(h);
}

struct digest hasher_key(struct hasher *h, const struct table *t, const struct row *r)
{
    if (t->nkey == 0)
        return hasher_row(h, t, r);
    for (size_t i = 0; i < t->nkey; i++)
        add_value(h, &r->v[t->key[i]]);
    return finish(h);
}

/* ---- quick hashes ---- */

static uint64_t mix(uint64_t h, uint64_t v)
{
    h ^= v;
    h *= 0x9e3779b97f4a7c15u;
    return h ^ (h >> 29);
}

uint64_t quick_value(const struct value *v, uint64_t seed)
{
    uint64_t h = mix(seed, v->state == VALUE_NULL ? 1 : 2 + (uint64_t)v->len * 4);
    size_t i = 0;
    uint64_t word = 0;

    if (v->state == VALUE_NULL)
        return h;
    for (; i + 8 <= v->len; i += 8) {
        memcpy(&word, v->data + i, 8);
        h = mix(h, word);
    }
    word = 0;
    if (i < v->len)
        memcpy(&word, v->data + i, v->len - i);
    h = mix(h, word);
    return mix(h, h >> 32);
}

uint64_t quick_key(const struct table *t, const struct row *r)
{
    uint64_t h = 0x243f6a8885a308d3u;

    for (size_t i = 0; i < t->nkey; i++)
        h = quick_value(&r->v[t->key[i]], h);
    for (size_t i = 0; t->nkey == 0 && i < t->ncolumns; i++) {
        if (!t->columns[i].generated)
            h = quick_value(&r->v[i], h);
    }
    return h;
}
