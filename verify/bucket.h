/* A table's rows as buckets: how many, and the sum of their hashes. Internal to verify/. */
#ifndef LOCKSTEP_VERIFY_BUCKET_H
#define LOCKSTEP_VERIFY_BUCKET_H

#include "verify/hash.h"

#define BUCKETS 1024

struct bucket {
    uint64_t n;
    struct digest sum;
};
struct bucket_set {
    uint64_t rows;
    struct bucket v[BUCKETS];
};

static inline size_t bucket_of(uint64_t quick)
{
    return quick % BUCKETS;
}
void bucket_add(struct bucket_set *s, struct hasher *h, const struct table *t, const struct row *r);
/* differs[i]: bucket i is not alike. Returns how many differ; *rows: the source's rows in them. */
size_t bucket_compare(const struct bucket_set *source, const struct bucket_set *target,
                      bool differs[BUCKETS], uint64_t *rows);

#endif
