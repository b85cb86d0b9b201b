/* A schema registry, through the HTTP interface that Confluent's has and others copied.
 *
 * The caller keeps the answers. ERR_RETRY: it does not answer, or says
 * that it cannot now; ERR_FATAL: it refuses, with its own words. User and password may stand in
 * the URL; they appear in no message. One thread at a time.
 */
#ifndef LOCKSTEP_JOURNAL_REGISTRY_H
#define LOCKSTEP_JOURNAL_REGISTRY_H

#include "core/err.h"

#include <stdint.h>

struct registry;

int registry_open(const char *url, struct registry **out, struct err *e);
void registry_close(struct registry *r); /* takes NULL */
/* Does it answer, and to us? Changes nothing. */
int registry_check(struct registry *r, struct err *e);
/* Registers the Avro schema under the subject, or finds it there: its id in all of the registry. */
int registry_register(struct registry *r, const char *subject, const char *text, uint32_t *id,
                      struct err *e);
/* The text of an id, malloc'd. One that is not known is waited for for a while. */
int registry_get(struct registry *r, uint32_t id, char **text, struct err *e);

#endif
