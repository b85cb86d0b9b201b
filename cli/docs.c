#include "cli/cli.h"
#include "cutover/cutover.h"

#include <stdio.h>
#include <string.h>

static void print_line(const char *line, void *ctx)
{
    (void)ctx;
    puts(line);
}

int command_docs(struct cli *c, struct err *e)
{
    static const struct {
        const char *name;
        void (*print)(void (*emit)(const char *line, void *ctx), void *ctx);
    } pages[] = {{"config", config_print_reference}, {"cutover", cutover_print_page}};

    if (strcmp(c->operands[0], "types") == 0) {
        types_page(c);
        return EXIT_DONE;
    }
    if (c->json && strcmp(c->operands[0], "cutover") == 0) {
        cli_put(c, "rows", cutover_rows_json());
        return EXIT_DONE;
    }
    for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
        if (strcmp(c->operands[0], pages[i].name) == 0) {
            pages[i].print(print_line, NULL);
            return EXIT_DONE;
        }
    }
    return err_set(e, ERR_CONFIG, "there is no page %s; expected config, cutover or types",
                   c->operands[0]);
}
