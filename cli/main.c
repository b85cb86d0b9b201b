/* lockstep: parses what was typed by the table of commands, runs one, and turns its outcome into
 * the exit code, a text for people, or one JSON object. */
#include "cli/cli.h"
#include "core/run.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COMMON_OPTIONS 5

/* Values of getopt_long above any character; a command's own options follow behind. */
enum { OPT_JSON = 256, OPT_YES, OPT_VERSION, OPT_OWN };

static const struct option common[COMMON_OPTIONS] = {
    {"config", required_argument, NULL, 'c'},    {"json", no_argument, NULL, OPT_JSON},
    {"yes", no_argument, NULL, OPT_YES},         {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, OPT_VERSION},
};

static void on_signal(int number)
{
    (void)number;
    stop_request();
}

static void signals_setup(void)
{
    struct sigaction stop = {.sa_handler = on_signal};
    struct sigaction ignore = {.sa_handler = SIG_IGN};

    sigemptyset(&stop.sa_mask);
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
}

/* ---- help ---- */

static void print_usage(FILE *out)
{
    fprintf(out, "lockstep moves a live database to another server.\n\n"
                 "  lockstep [-c FILE] COMMAND [OPTIONS]\n\n");
    for (size_t i = 0; i < command_count; i++) {
        if (!commands[i].hidden)
            fprintf(out, "  %-8s %s\n", commands[i].name, commands[i].summary);
    }
    fprintf(out, "\n  lockstep COMMAND --help tells a command's options.\n");
}

static void print_help(const struct command *command)
{
    printf("lockstep %s %s%s— %s\n\n", command->name, command->operands,
           command->operands[0] ? " " : "", command->summary);
    for (const struct cli_option *o = command->options; o->name; o++) {
        char text[80];

        snprintf(text, sizeof(text), "--%s%s%s", o->name, o->value ? " " : "",
                 o->value ? o->value : "");
        printf("  %-20s %s\n", text, o->help);
    }
    printf("  %-20s %s\n", "-c, --config FILE",
           "the configuration; default $LOCKSTEP_CONFIG, then ./lockstep.yaml");
    printf("  %-20s %s\n", "--json", "one JSON object on stdout, with what to do next");
    printf("  %-20s %s\n", "--yes", "ask nothing");
    printf("\nExit: 0 done, 1 failed, 2 usage or configuration, 3 differences or unfit tables,\n"
           "      4 refused by a guard, nothing changed, 75 stopped in time, more to do.\n");
}

/* ---- parsing ---- */

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < command_count; i++) {
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    }
    return NULL;
}

/* -1: go on; else an exit code. */
static int take_option(struct cli *c, int opt)
{
    switch (opt) {
    case 'c':
        c->file = optarg;
        return -1;
    case OPT_JSON:
        c->json = true;
        return -1;
    case OPT_YES:
        c->yes = true;
        return -1;
    case 'h':
        if (c->command)
            print_help(c->command);
        else
            print_usage(stdout);
        return EXIT_DONE;
    case OPT_VERSION:
        printf("lockstep %s\n", LOCKSTEP_VERSION);
        return EXIT_DONE;
    default:
        if (opt >= OPT_OWN) {
            c->values[opt - OPT_OWN] = optarg ? optarg : "";
            return -1;
        }
        return EXIT_USAGE; /* getopt_long has said why */
    }
}

/* Parses from optind on: up to the command's name, or (with a command) all the rest. */
static int parse_options(struct cli *c, int argc, char **argv)
{
    struct option all[COMMON_OPTIONS + CLI_OPTIONS_MAX + 1] = {0};
    int n = COMMON_OPTIONS;
    int opt;

    memcpy(all, common, sizeof(common));
    for (int i = 0; c->command && c->command->options[i].name; i++, n++) {
        const struct cli_option *o = &c->command->options[i];

        invariant(i < CLI_OPTIONS_MAX);
        all[n] =
            (struct option){o->name, o->value ? required_argument : no_argument, NULL, OPT_OWN + i};
    }
    while ((opt = getopt_long(argc, argv, c->command ? "c:h" : "+c:h", all, NULL)) != -1) {
        int code = take_option(c, opt);

        if (code >= 0)
            return code;
    }
    return -1;
}

static int usage(const char *fmt, const char *what)
{
    fprintf(stderr, "lockstep: ");
    fprintf(stderr, fmt, what);
    fprintf(stderr, "\n  lockstep --help lists the commands\n");
    return EXIT_USAGE;
}

static int parse(struct cli *c, int argc, char **argv)
{
    const char *env = getenv("LOCKSTEP_CONFIG");
    int code;

    c->file = env && *env ? env : "lockstep.yaml";
    code = parse_options(c, argc, argv);
    if (code >= 0)
        return code;
    if (optind >= argc)
        return usage("no command was given%s", "");
    c->command = find_command(argv[optind]);
    if (!c->command)
        return usage("there is no command %s", argv[optind]);
    argc -= optind;
    argv += optind;
    optind = 0; /* glibc: start anew, at argv[1] */
    code = parse_options(c, argc, argv);
    if (code >= 0)
        return code;
    c->operands = argv + optind;
    c->noperands = argc - optind;
    if (c->noperands < c->command->min_operands || c->noperands > c->command->max_operands) {
        if (c->noperands > c->command->max_operands)
            fprintf(stderr, "lockstep: unexpected operand %s\n",
                    c->operands[c->command->max_operands]);
        fprintf(stderr, "lockstep: usage: lockstep %s %s\n", c->command->name,
                c->command->operands);
        return EXIT_USAGE;
    }
    return -1;
}

/* ---- outcome ---- */

static void print_json(struct cli *c, int code, const struct err *e)
{
    char *text;

    json_object_set_new(c->result, "command", json_string(c->command->name));
    json_object_set_new(c->result, "exit", json_integer(code));
    if (e->class != ERR_NONE) {
        json_object_set_new(c->result, "error", json_string(e->msg));
        json_object_set_new(c->result, "class", json_string(err_class_name(e->class)));
        if (e->hint[0])
            json_object_set_new(c->result, "hint", json_string(e->hint));
    }
    if (!json_object_get(c->result, "next"))
        json_object_set_new(c->result, "next", e->hint[0] ? json_string(e->hint) : json_null());
    text = json_dumps(c->result, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_SORT_KEYS);
    invariant(text != NULL);
    puts(text);
    free(text);
}

static void print_error(const struct err *e)
{
    fprintf(stderr, "lockstep: %s\n", e->msg);
    if (e->hint[0])
        fprintf(stderr, "  next: %s\n", e->hint);
}

int main(int argc, char **argv)
{
    struct cli c = {0};
    struct err e = {0};
    int code;

    memory_setup();
    setvbuf(stdout, NULL, _IOLBF, 0);
    code = parse(&c, argc, argv);
    if (code >= 0)
        return code;
    signals_setup();
    c.result = json_object();
    code = c.command->run(&c, &e);
    if (code < 0) {
        invariant(e.class != ERR_NONE);
        code = exit_code_of(e.class);
    }
    if (c.json)
        print_json(&c, code, &e);
    else if (e.class != ERR_NONE)
        print_error(&e);
    json_decref(c.result);
    if (fflush(stdout) != 0 && code == EXIT_DONE)
        code = EXIT_FAILED;
    return code;
}
