/* Names that Avro allows: [A-Za-z_][A-Za-z0-9_]*. Everything else is written as _xHHHH_ (the code
 * point in hex), so that two different names never become one. */
#ifndef LOCKSTEP_SCHEMAS_AVRO_NAMES_H
#define LOCKSTEP_SCHEMAS_AVRO_NAMES_H

#include "core/buf.h"

#include <stdbool.h>

/* Appends the Avro form of a name: a leading digit, any character that Avro does not allow, and the
 * underscore of a "_x" (which would look like an escape) are escaped. The mapping is injective. The
 * name must be UTF-8; a byte that is not is escaped as if it were a code point. */
void name_escape(struct buf *out, const char *name);

#endif
