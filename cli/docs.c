#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

static void print_line(const char *line, void *ctx)
{
    (void)ctx;
    puts(line);
}

int command_docs(struct cli *c, struct err *e)
{
    if (strcmp(c->operands[0], "config") != 0)
        return err_set(e, ERR_CONFIG, "there is no page %s; expected config", c->operands[0]);
    config_print_reference(print_line, NULL);
    return EXIT_DONE;
}
