/* One binary, many commands: each is a row of the table in commands.c and a file of this folder. */
#ifndef LOCKSTEP_CLI_CLI_H
#define LOCKSTEP_CLI_CLI_H

#include "config/config.h"
#include "control/migration.h"
#include "core/err.h"
#include "run/run.h"

#include <jansson.h>
#include <stdbool.h>

/* design.md §8; scripts rely on them. */
enum exit_code {
    EXIT_DONE = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_DIFFERENT = 3, /* differences, or unfit tables */
    EXIT_REFUSED = 4,   /* by a guard; nothing changed */
    EXIT_MORE = 75      /* stopped in time, more to do */
};
enum exit_code exit_code_of(enum err_class class);

struct cli_option {
    const char *name;  /* "until" */
    const char *value; /* "caught-up" as the help calls it; NULL: a flag */
    const char *help;
};
#define CLI_OPTIONS_MAX 8

/* What was typed. */
struct cli {
    const struct command *command;
    const char *file; /* the configuration */
    bool json;
    bool yes;
    char **operands;
    int noperands;
    const char *values[CLI_OPTIONS_MAX]; /* by place in command->options; flags: "" */
    json_t *result;                      /* with --json: what the command found, by its members */
};

struct command {
    const char *name;
    const char *operands; /* "SOURCE TARGET" */
    const char *summary;
    const struct cli_option *options; /* ends with a name that is NULL */
    int min_operands;
    int max_operands;
    bool hidden;
    /* Returns the exit code; -1 with *e set becomes the code of the error's class. */
    int (*run)(struct cli *c, struct err *e);
};
extern const struct command commands[];
extern const size_t command_count;

/* The option's value, "" for a flag, NULL if it was not given. */
const char *cli_option(const struct cli *c, const char *name);

/* ---- output: for people, or one JSON object at the end ---- */

/* A line for people on stdout; nothing with --json. */
void cli_say(const struct cli *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A member of the JSON result; value's reference is taken over. */
void cli_put(struct cli *c, const char *name, json_t *value);
/* What to do now: the last line for people, "next" in the JSON. */
void cli_next(struct cli *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Asks on a terminal; with --yes it is answered. ERR_CONFIG if nobody can answer,
 * ERR_REFUSED if the answer is no. */
int cli_confirm(const struct cli *c, const char *question, struct err *e);

/* ---- what most commands begin with ---- */

struct context {
    struct config config;
    struct migration m;
    char holder[100];
    char folder[4096]; /* where the journal's directory stands; the schema's dump goes there */
};
/* The driver that a URI's scheme names, or NULL. */
const struct engine *driver_of(const char *uri);
int context_open(struct context *x, const struct cli *c, struct err *e);
void context_close(struct context *x);
/* The folder of the configuration: the hook's paths are meant from there, a switch's record goes
 * there. */
void context_home(const struct context *x, char *out, size_t size);
/* The driver of this name; NULL: there is none in this binary. */
const struct engine *context_engine(const char *name);
/* Has this migration written facts on the target? */
int context_started(struct db *target, bool *out, struct err *e);
/* ERR_REFUSED if it has not. */
int context_need_started(struct db *target, struct err *e);

/* check.c: both sides' findings, printed; *unfit: at least one is fatal. */
int check_both(struct cli *c, const struct context *x, bool started, bool *unfit, struct err *e);

/* run.c: what every process that runs stages does before and after. The checks of `check` if
 * nothing has begun yet, then the registration. 0: may go on; else an exit code, or -1. */
int run_prepare(struct cli *c, const struct context *x, struct err *e);
int run_report(struct cli *c, enum run_end end);

/* types.c: the page of `docs types`, or its samples with --json. */
void types_page(struct cli *c);

/* ---- the commands ---- */

int command_init(struct cli *c, struct err *e);
int command_check(struct cli *c, struct err *e);
int command_plan(struct cli *c, struct err *e);
int command_run(struct cli *c, struct err *e);
int command_capture(struct cli *c, struct err *e);
int command_snapshot(struct cli *c, struct err *e);
int command_apply(struct cli *c, struct err *e);
int command_status(struct cli *c, struct err *e);
int command_wait(struct cli *c, struct err *e);
int command_tables(struct cli *c, struct err *e);
int command_verify(struct cli *c, struct err *e);
int command_cutover(struct cli *c, struct err *e);
int command_rollback(struct cli *c, struct err *e);
int command_finish(struct cli *c, struct err *e);
int command_docs(struct cli *c, struct err *e);

#endif
