#include "verify/bucket.h"

void bucket_add(struct bucket_set *s, struct hasher *h, const struct table *t, const struct row *r)
{
    struct bucket *b = &s->v[bucket_of(quick_key(t, r))];

    b->n++;
    b->sum = digest_add(b->sum, hasher_row(h, t, r));
    s->rows++;
}

size_t bucket_compare(const struct bucket_set *source, const struct bucket_set *target,
                      bool differs[BUCKETS], uint64_t *rows)
{
    size_t n = 0;

    *rows = 0;
    for (size_t i = 0; i < BUCKETS; i++) {
        const struct bucket *s = &source->v[i];
        const struct bucket *t = &target->v[i];

        differs[i] = s->n != t->n || !digest_equal(s->sum, t->sum);
        n += differs[i];
        *rows += differs[i] ? s->n : 0;
    }
    return n;
}
