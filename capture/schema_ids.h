/* Which journal id a schema text has been declared under; keyed by the text's address, which the
 * encoder keeps stable. */
#ifndef LOCKSTEP_CAPTURE_SCHEMA_IDS_H
#define LOCKSTEP_CAPTURE_SCHEMA_IDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct schema_id_slot {
    const char *text;
    uint32_t id;
};
struct schema_ids {
    struct schema_id_slot *slots; /* open addressing, a power of two */
    size_t size;
    size_t used;
};

bool schema_ids_find(const struct schema_ids *ids, const char *text, uint32_t *id);
void schema_ids_add(struct schema_ids *ids, const char *text, uint32_t id);
void schema_ids_release(struct schema_ids *ids);

#endif
