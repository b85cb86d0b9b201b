#include "capture/schema_ids.h"
#include "core/err.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_SIZE 64u

static size_t slot_of(const struct schema_ids *ids, const char *text)
{
    size_t i = (size_t)(((uintptr_t)text >> 4) * 11400714819323198485u) & (ids->size - 1);

    while (ids->slots[i].text && ids->slots[i].text != text)
        i = (i + 1) & (ids->size - 1);
    return i;
}

bool schema_ids_find(const struct schema_ids *ids, const char *text, uint32_t *id)
{
    size_t i;

    if (!ids->size)
        return false;
    i = slot_of(ids, text);
    if (!ids->slots[i].text)
        return false;
    *id = ids->slots[i].id;
    return true;
}

static void grow(struct schema_ids *ids)
{
    struct schema_ids old = *ids;

    ids->size = old.size ? old.size * 2 : FIRST_SIZE;
    ids->slots = calloc(ids->size, sizeof(*ids->slots));
    invariant(ids->slots != NULL);
    for (size_t i = 0; i < old.size; i++) {
        if (old.slots[i].text)
            ids->slots[slot_of(ids, old.slots[i].text)] = old.slots[i];
    }
    free(old.slots);
}

void schema_ids_add(struct schema_ids *ids, const char *text, uint32_t id)
{
    size_t i;

    if (ids->used * 2 >= ids->size)
        grow(ids);
    i = slot_of(ids, text);
    if (!ids->slots[i].text)
        ids->used++;
    ids->slots[i] = (struct schema_id_slot){.text = text, .id = id};
}

void schema_ids_release(struct schema_ids *ids)
{
    free(ids->slots);
    memset(ids, 0, sizeof(*ids));
}
