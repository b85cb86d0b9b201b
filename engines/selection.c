#include "engines/engine.h"

#include <string.h>

static bool glob(const char *p, const char *p_end, const char *s)
{
    const char *star = NULL;
    const char *retry = NULL;

    while (*s != '\0') {
        if (p < p_end && *p == '*') {
            star = ++p;
            retry = s;
        } else if (p < p_end && (*p == '?' || *p == *s)) {
            p++;
            s++;
        } else if (star != NULL) {
            p = star;
            s = ++retry;
        } else {
            return false;
        }
    }
    while (p < p_end && *p == '*')
        p++;
    return p == p_end;
}

/* The first dot parts the pattern; a name may have dots of its own. */
bool selection_pattern_matches(const char *pattern, const char *home, const char *schema,
                               const char *name)
{
    const char *dot = strchr(pattern, '.');
    const char *rest = dot != NULL ? dot + 1 : pattern;

    if (dot != NULL && !glob(pattern, dot, schema))
        return false;
    if (dot == NULL && home != NULL && strcmp(schema, home) != 0)
        return false;
    return glob(rest, rest + strlen(rest), name);
}
