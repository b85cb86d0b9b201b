/* Prints what our decoder makes of a binlog file: print PLAN FILE. A line an event, values in hex,
 * so that run.py can hold it against mariadb-binlog. */
#include <stdio.h>

#include "tests/unit/my_binlog_support.h"

static void print_row(const char *what, const struct row *r)
{
    if (!r)
        return;
    printf("\t%s", what);
    for (size_t i = 0; i < r->n; i++) {
        const struct value *v = &r->v[i];

        printf(" %s", v->state == VALUE_NULL ? "N" : v->state == VALUE_UNCHANGED ? "U" : "S");
        for (size_t k = 0; v->state == VALUE_SET && k < v->len; k++)
            printf("%02x", (unsigned char)v->data[k]);
    }
}

static void print_event(void *arg, const struct event *ev)
{
    static const char *const names[] = {
        [EVENT_NONE] = "none",     [EVENT_BEGIN] = "begin",       [EVENT_CHANGE] = "change",
        [EVENT_COMMIT] = "commit", [EVENT_ABORT] = "abort",       [EVENT_MARK] = "mark",
        [EVENT_TABLE] = "table",   [EVENT_POSITION] = "position",
    };

    (void)arg;
    printf("%s", names[ev->kind]);
    if (ev->kind == EVENT_CHANGE) {
        printf("\t%s\t%s", change_op_name(ev->change.op), table_label(ev->change.table));
        print_row("before", ev->change.before);
        print_row("after", ev->change.after);
    } else if (ev->kind == EVENT_TABLE) {
        printf("\t%s\t%s", table_label(ev->table), ev->reason);
    } else if (ev->kind == EVENT_MARK) {
        printf("\t%s", ev->token);
    }
    printf("\n");
}

int main(int argc, char **argv)
{
    struct arena a = ARENA_INIT;
    struct table_list plan;
    struct err e = {0};
    size_t len = 0;
    char *text = argc == 3 ? (char *)read_bytes(argv[1], &len) : NULL;
    uint8_t *data = argc == 3 ? read_bytes(argv[2], &len) : NULL;
    struct binlog *b;
    int rc;

    if (!text || !data) {
        fprintf(stderr, "usage: print PLAN FILE\n");
        return 2;
    }
    plan_parse(&a, text, &plan);
    b = binlog_new(&plan, "zoo", 1, (struct position){1, 4});
    rc = feed_file(b, data, len, print_event, NULL, &e);
    if (rc < 0)
        fprintf(stderr, "%s\n", e.msg);
    binlog_free(b);
    free(text);
    free(data);
    arena_release(&a);
    return rc < 0;
}
