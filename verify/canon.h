/* Values that mean the same but are written differently on two engines. Internal to verify/.
 *
 * A value's text depends on its kind alone (core/data.h), so texts are compared byte by byte. JSON
 * is the exception: jsonb and MySQL's json keep the value, not its text. Where a side does so and
 * the other does not do it the same way, both are brought into one form first: no blanks, members
 * sorted by name with the last of several that count, escapes resolved, numbers as exact decimals.
 */
#ifndef LOCKSTEP_VERIFY_CANON_H
#define LOCKSTEP_VERIFY_CANON_H

#include "core/data.h"

/* What of a column is compared by its meaning; the flags are engine.normalizes_json. (pure) */
bool canon_wanted(const struct column *source, bool source_normalizes, const struct column *target,
                  bool target_normalizes);
/* Appends the value's one form; false, and nothing appended, if the text is not JSON. (pure) */
bool canon_json(struct buf *out, const char *text, size_t len);
/* The row with those columns in their one form, or r itself; from the arena. */
const struct row *canon_row(struct arena *a, const bool *wanted, const struct row *r);

#endif
