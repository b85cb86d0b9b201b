/* docs/configuration.md, from the table of options. */
#include "config/option.h"

#include <stdio.h>
#include <string.h>

static const char *const intro[] = {
    "# Configuration",
    "",
    "`lockstep.yaml` (or `-c FILE`, or `LOCKSTEP_CONFIG`). `lockstep init SOURCE TARGET` writes "
    "one.",
    "This page is generated from the table of options: `lockstep docs config`.",
    "",
    "`${NAME}` in a value is replaced by the environment variable, which must be set; `$${` is a "
    "literal `${`.",
    "In the password's place of a URI (`postgresql://user:${NAME}@host/db`) the variable holds "
    "the password as it is;",
    "elsewhere signs that a URI does not take are percent-encoded by whoever writes them.",
    "",
    "| key | takes | default | what it does |",
    "|---|---|---|---|",
};
static const char *const middle[] = {
    "",          "Keys that later versions will know; this one refuses them by name:",
    "",          "| key | instead |",
    "|---|---|",
};

void config_print_reference(void (*emit)(const char *line, void *ctx), void *ctx)
{
    char expected[200];
    char line[800];

    for (size_t i = 0; i < sizeof(intro) / sizeof(intro[0]); i++)
        emit(intro[i], ctx);
    for (size_t i = 0; i < option_count; i++) {
        const struct option *o = &options[i];

        if (o->kind == OPTION_LATER)
            continue;
        option_expected(o, expected, sizeof(expected));
        snprintf(line, sizeof(line), "| `%s` | %s | %s%s%s | %s |", o->key, expected,
                 o->initial ? "`" : "",
                 o->initial    ? o->initial
                 : o->required ? "required"
                               : "–",
                 o->initial ? "`" : "", o->help);
        emit(line, ctx);
    }
    for (size_t i = 0; i < sizeof(middle) / sizeof(middle[0]); i++)
        emit(middle[i], ctx);
    for (size_t i = 0; i < option_count; i++) {
        if (options[i].kind != OPTION_LATER)
            continue;
        snprintf(line, sizeof(line), "| `%s` | %s |", options[i].key, options[i].words[0]);
        emit(line, ctx);
    }
}
