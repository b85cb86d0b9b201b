#include "engines/engine.h"

#include <stdlib.h>

void facts_release(struct fact *facts, size_t n)
{
    for (size_t i = 0; facts && i < n; i++) {
        free(facts[i].key);
        json_decref(facts[i].body);
    }
    free(facts);
}
