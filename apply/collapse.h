/* Collapse: the changes of a batch, key by key, become sets: what must go, what must be rewritten,
 * what must come; each with what the first change demanded of the key ("must exist" / "must not
 * exist"), which the executor checks by count. */
#ifndef LOCKSTEP_APPLY_COLLAPSE_H
#define LOCKSTEP_APPLY_COLLAPSE_H

#include "core/data.h"

struct collapse;

/* Everything in the arena, which must outlive it. */
struct collapse *collapse_new(struct arena *a);
/* Can this change be collapsed at all? Not: UPDATE and DELETE of a table without a key, TRUNCATE, a
 * key change whose image is not complete: the executor does these one by one, between sets. */
bool collapse_takes(const struct change *c);
/* 1 taken; 0: it does not fit what came before (an insert of a key that exists …): the executor
 * goes row by row, where the server tells what is wrong. */
int collapse_add(struct collapse *c, const struct change *change);
size_t collapse_count(const struct collapse *c);

/* What remains, in the order in which it must be written. */
enum collapsed_op { COLLAPSED_DELETE, COLLAPSED_ABSENT, COLLAPSED_UPDATE, COLLAPSED_INSERT };
struct collapsed_set {
    enum collapsed_op op;
    const struct table *table;
    size_t n;
    const struct row **keys;
    const struct row **rows;
    const bool *columns; /* UPDATE */
};
struct collapsed_sets {
    size_t n;
    struct collapsed_set *v;
};
void collapse_finish(struct collapse *c, struct collapsed_sets *out);

#endif
