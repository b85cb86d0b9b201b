#include "engines/def.h"

#include <string.h>

const char *fidelity_name(enum fidelity f)
{
    static const char *const names[] = {"exact", "conditional", "lossy", "none"};

    return names[f];
}

const struct table_def *schema_def_find(const struct schema_def *def, const char *label)
{
    for (size_t i = 0; i < def->n; i++) {
        if (table_is(def->tables[i].table, label))
            return &def->tables[i];
    }
    return NULL;
}
