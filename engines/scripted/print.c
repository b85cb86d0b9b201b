/* The source's log in words, to see what a seed did. */
#include "engines/scripted/world.h"

#include <inttypes.h>
#include <stdio.h>

static void print_row(FILE *out, const char *what, const struct row *row)
{
    struct buf text;

    if (!row)
        return;
    buf_init(&text, BUF_MAX_TEXT);
    row_print(&text, row, 60);
    fprintf(out, " %s %s", what, text.data);
    buf_release(&text);
}

void scripted_print_log(const struct scripted_world *w, FILE *out)
{
    for (size_t i = 0; i < w->nlog; i++) {
        const struct source_txn *t = w->log[i].txn;

        fprintf(out, "log %" PRIX64 " to %" PRIX64 " ", w->log[i].at.major, w->log[i].next.major);
        if (!t) {
            fprintf(out, "marker %s\n", w->log[i].token);
            continue;
        }
        fprintf(out, "xid %" PRIu64 "\n", t->xid);
        for (size_t k = 0; k < t->nchanges; k++) {
            const struct change *c = &t->changes[k];

            fprintf(out, "    %s %s", change_op_name(c->op), table_label(c->table));
            print_row(out, "before", c->before);
            print_row(out, "after", c->after);
            fprintf(out, "\n");
        }
    }
}
