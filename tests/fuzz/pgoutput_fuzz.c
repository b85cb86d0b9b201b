/* Any bytes as a replication message: refused, or decoded with everything inside the input. Seeds
 * in corpus/pgoutput were recorded from a server. */
#include "engines/postgres/pgoutput.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t touch_row(const struct row *r)
{
    size_t sum = 0;

    for (size_t i = 0; r && i < r->n; i++) {
        struct value v = r->v[i];

        if (v.state != VALUE_SET)
            continue;
        for (size_t k = 0; k < v.len; k++)
            sum += (unsigned char)v.data[k];
        /* In place: the input is a copy of ours. */
        if (pg_unhex(&v) == 0)
            invariant(v.len < r->v[i].len);
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a = ARENA_INIT;
    uint8_t *copy = malloc(size ? size : 1);
    struct pgo_message m;
    struct err e;
    size_t sum = 0;

    invariant(copy != NULL);
    if (size)
        memcpy(copy, data, size);
    if (pgo_decode(&a, copy, size, &m, &e) == 0) {
        if (m.kind == PGO_RELATION) {
            sum += strlen(m.relation.schema) + strlen(m.relation.name);
            for (size_t i = 0; i < m.relation.n; i++)
                sum += strlen(m.relation.columns[i].name);
        } else if (m.kind == PGO_INSERT || m.kind == PGO_UPDATE || m.kind == PGO_DELETE) {
            invariant((m.change.after != NULL) == (m.kind != PGO_DELETE));
            sum += touch_row(m.change.before) + touch_row(m.change.after);
        } else if (m.kind == PGO_TRUNCATE) {
            invariant(m.truncate.n > 0 && m.truncate.n <= size / 4);
        } else if (m.kind == PGO_MESSAGE) {
            sum += strlen(m.text.prefix) + (m.text.len ? (unsigned char)m.text.content[0] : 0);
        }
    }
    invariant(sum < SIZE_MAX);
    free(copy);
    arena_release(&a);
    return 0;
}
