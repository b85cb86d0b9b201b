/* Hashes of rows, over a canonical form: for each column that is compared, in the table's order, a
 * mark for NULL or set, the length, the bytes. Internal to verify/. */
#ifndef LOCKSTEP_VERIFY_HASH_H
#define LOCKSTEP_VERIFY_HASH_H

#include "core/data.h"

/* 128 bits of SHA-256. */
struct digest {
    uint64_t high;
    uint64_t low;
};

struct hasher;

struct hasher *hasher_new(void);
void hasher_free(struct hasher *h); /* takes NULL */
/* The whole row, generated columns left out. */
struct digest hasher_row(struct hasher *h, const struct table *t, const struct row *r);
/* Its key; of a table without a key: the whole row. */
struct digest hasher_key(struct hasher *h, const struct table *t, const struct row *r);

/* Cheap, well mixed, not for proof: which bucket a row belongs to. Same rule as hasher_key for
 * which columns count, so that a row's two versions meet in one bucket. */
uint64_t quick_key(const struct table *t, const struct row *r);
uint64_t quick_value(const struct value *v, uint64_t seed);

static inline bool digest_equal(struct digest a, struct digest b)
{
    return a.high == b.high && a.low == b.low;
}
/* Modulo 2^128: unlike with XOR, two equal rows do not cancel each other. */
static inline struct digest digest_add(struct digest a, struct digest b)
{
    struct digest sum = {a.high + b.high, a.low + b.low};

    sum.high += sum.low < a.low;
    return sum;
}

#endif
