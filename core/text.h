/* UTF-8, strictly (RFC 3629): no overlong forms, no halves of surrogate pairs, nothing above
 * U+10FFFF. */
#ifndef LOCKSTEP_CORE_TEXT_H
#define LOCKSTEP_CORE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One character of at most `left` bytes (at least 1); its length, 0 if it is not well-formed. */
size_t utf8_decode(const unsigned char *p, size_t left, uint32_t *point);
bool text_is_utf8(const char *data, size_t len);

#endif
