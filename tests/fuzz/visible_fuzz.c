/* Any text as a chunk's cut: refused, or a snapshot whose answers follow the definition. */
#include "engines/postgres/visible.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a = ARENA_INIT;
    char *text = malloc(size + 1);
    void *parsed = NULL;
    struct err e;

    invariant(text != NULL);
    memcpy(text, data, size);
    text[size] = 0;
    if (pg_cut_ops.parse(&a, text, &parsed, &e) == 0) {
        uint64_t xmin = strtoull(text, NULL, 10);
        uint64_t xmax = strtoull(strchr(text, ':') + 1, NULL, 10);
        struct txn below = {.xid = xmin - 1};
        struct txn above = {.xid = xmax};
        const char *p = strrchr(text, ':');

        invariant(pg_cut_ops.sees(parsed, &below) && !pg_cut_ops.sees(parsed, &above));
        while (p && p[1]) {
            struct txn running = {.xid = strtoull(p + 1, NULL, 10)};

            invariant(!pg_cut_ops.sees(parsed, &running));
            p = strchr(p + 1, ',');
        }
    }
    free(text);
    arena_release(&a);
    return 0;
}
