/* An arena: memory of one transaction or batch, dropped whole. Not thread-safe. */
#ifndef LOCKSTEP_CORE_ARENA_H
#define LOCKSTEP_CORE_ARENA_H

#include <stddef.h>

struct arena_block;
struct arena {
    struct arena_block *head;
    size_t used; /* bytes handed out since the last reset */
};

#define ARENA_INIT                                                                                 \
    {                                                                                              \
        0                                                                                          \
    }

/* Never returns NULL: out of memory aborts (our batches are bounded, so it is a broken bound). */
void *arena_alloc(struct arena *a, size_t size);
void *arena_zalloc(struct arena *a, size_t size);
void *arena_memdup(struct arena *a, const void *data, size_t len);
/* Copies len bytes and adds a NUL. */
char *arena_strndup(struct arena *a, const char *s, size_t len);
char *arena_strdup(struct arena *a, const char *s);
char *arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Forgets everything; keeps at most one ordinary block for the next batch. */
void arena_reset(struct arena *a);
void arena_release(struct arena *a);

#endif
