#include "cli/cli.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum exit_code exit_code_of(enum err_class class)
{
    switch (class) {
    case ERR_NONE:
        return EXIT_DONE;
    case ERR_CONFIG:
        return EXIT_USAGE;
    case ERR_REFUSED:
        return EXIT_REFUSED;
    case ERR_STOPPED:
        return EXIT_MORE;
    case ERR_RETRY:
    case ERR_CONFLICT:
    case ERR_DATA:
    case ERR_UNKNOWN:
    case ERR_FENCED:
    case ERR_FATAL:
    case ERR_BUG:
        break;
    }
    return EXIT_FAILED;
}

const char *cli_option(const struct cli *c, const char *name)
{
    for (size_t i = 0; c->command->options[i].name; i++) {
        if (strcmp(c->command->options[i].name, name) == 0)
            return c->values[i];
    }
    invariant(!"the command has no such option");
}

void cli_say(const struct cli *c, const char *fmt, ...)
{
    va_list ap;

    if (c->json)
        return;
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
}

void cli_put(struct cli *c, const char *name, json_t *value)
{
    json_object_set_new(c->result, name, value);
}

void cli_next(struct cli *c, const char *fmt, ...)
{
    char text[500];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    cli_say(c, "next: %s", text);
    cli_put(c, "next", json_string(text));
}

int cli_confirm(const struct cli *c, const char *question, struct err *e)
{
    char answer[20];

    if (c->yes)
        return 0;
    if (c->json || !isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) {
        err_set(e, ERR_CONFIG, "%s asks first, and nobody can answer here", c->command->name);
        return err_hint(e, "say it again with --yes");
    }
    printf("%s [y/N] ", question);
    fflush(stdout);
    if (fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y'))
        return 0;
    return err_set(e, ERR_REFUSED, "not confirmed; nothing was changed");
}
