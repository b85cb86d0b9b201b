/* Is it text, and how to make it such. */
#ifndef LOCKSTEP_CORE_TEXT_H
#define LOCKSTEP_CORE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One character of well-formed UTF-8 (no overlong forms, no surrogates, nothing above U+10FFFF);
 * its length, or 0 if it is not well-formed. left > 0. */
size_t utf8_decode(const unsigned char *p, size_t left, uint32_t *point);
/* All of it is. */
bool text_is_utf8(const char *data, size_t len);
/* What is not becomes '?', in place: for messages, which quote whatever came from outside, are cut
 * at their buffer's end, and go into JSON. */
void text_clean(char *text);

#endif
