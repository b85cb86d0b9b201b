/* Where the schemas of a Kafka journal are: in the registry, if there is one, else in a topic
 * beside the journal's, "<topic>.schemas", one text a message, which is never trimmed. A record
 * names its schema by the registry's id, or by the message's offset. */
#ifndef LOCKSTEP_JOURNAL_KAFKA_SCHEMAS_H
#define LOCKSTEP_JOURNAL_KAFKA_SCHEMAS_H

#include "journal/kafka_scan.h"
#include "journal/registry.h"

struct kafka_schema {
    bool in_registry;
    uint64_t remote; /* the registry's id, or the offset */
    size_t same;     /* the first entry with this text: what journal_read calls the schema's id */
    uint64_t print;
    char *text; /* NULL if `same` is another entry */
};

struct kafka_schemas {
    struct registry *registry; /* opened when first needed */
    struct kafka_schema *list;
    size_t n;
    char topic[300];
};

void kafka_schemas_init(struct kafka_schemas *s, const struct journal_options *o);
void kafka_schemas_release(struct kafka_schemas *s);
/* Reads all of the schemas' topic. */
int kafka_schemas_load(struct kafka_schemas *s, struct kafka_client *c, uint64_t journal,
                       struct err *e);
/* Tells texts apart; never 0. */
uint64_t kafka_schema_print(const char *text);
/* True if the text stands in the topic: *offset. */
bool kafka_schemas_find(const struct kafka_schemas *s, const char *text, uint64_t *offset);
void kafka_schemas_add(struct kafka_schemas *s, bool in_registry, uint64_t remote,
                       const char *text);
int kafka_schemas_registry(struct kafka_schemas *s, const struct journal_options *o,
                           struct registry **out, struct err *e);
/* The schema that a record names: *id for kafka_schemas_text. ERR_FATAL: another text stands in its
 * place (the registry or the schemas' topic has lost what it had, and numbers anew). */
int kafka_schemas_resolve(struct kafka_schemas *s, struct kafka_client *c,
                          const struct kafka_header *h, uint64_t *id, struct err *e);
const char *kafka_schemas_text(const struct kafka_schemas *s, uint64_t id);

#endif
