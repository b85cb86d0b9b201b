/* The table of commands; parsing, --help and the tests come from it. */
#include "cli/cli.h"

#define END                                                                                        \
    {                                                                                              \
        NULL, NULL, NULL                                                                           \
    }

static const struct cli_option no_options[] = {END};
static const struct cli_option run_options[] = {
    {"until", "caught-up", "stop when apply has caught up with the source"}, END};
static const struct cli_option role_options[] = {
    {"max-runtime", "15m", "end in good order after so long, with exit 75"}, END};
static const struct cli_option status_options[] = {
    {"watch", NULL, "draw again every other second, until stopped"}, END};
static const struct cli_option wait_options[] = {
    {"timeout", "5s", "the longest to wait; then exit 75"},
    {"of", "source", "whose position it is: of the side not written to any more, it is reached"},
    END};
static const struct cli_option cutover_options[] = {
    {"dry-run", NULL, "print the road and how its guards stand; changes nothing"},
    {"rehearse", NULL,
     "everything but the fence on the side that closes, then back; predicts the pause"},
    {"stage", "reads", "only move the reads, as often as you like; writes: the rest of the road"},
    {"max-pause", "5s", "the longest that writes are held; refused if more is predicted"},
    {"accept-foreign", NULL, "go, though somebody wrote on the sealed side that opens"},
    END};
static const struct cli_option finish_options[] = {
    {"abandon", NULL, "give the migration up, wherever it stands; the target keeps its rows"}, END};

const struct command commands[] = {
    {"init", "SOURCE TARGET", "write a commented lockstep.yaml for two URIs", no_options, 2, 2,
     false, command_init},
    {"check", "", "prerequisites, privileges and each table's fitness; changes nothing", no_options,
     0, 0, false, command_check},
    {"plan", "", "target DDL, types with their losses, chunks, cutover steps; changes nothing",
     no_options, 0, 0, false, command_plan},
    {"run", "", "schema, snapshot, capture and apply in one process, until stopped", run_options, 0,
     0, false, command_run},
    {"capture", "", "one role alone: the source's changes into the journal", role_options, 0, 0,
     false, command_capture},
    {"snapshot", "", "one role alone: copies the tables; several may work side by side",
     role_options, 0, 0, false, command_snapshot},
    {"apply", "", "one role alone: the journal's changes onto the target", role_options, 0, 0,
     false, command_apply},
    {"status", "", "phase, progress, lag, and up to where the target is consistent", status_options,
     0, 0, false, command_status},
    {"wait", "[POSITION]",
     "until the target may be read: it has all up to POSITION, or to the source's end now",
     wait_options, 0, 1, false, command_wait},
    {"tables", "[list | park NAME | resume NAME | recopy NAME]",
     "the tables' lanes: without a word it lists them", no_options, 0, 2, false, command_tables},
    {"verify", "", "compare both databases as of one moment, row by row", no_options, 0, 0, false,
     command_verify},
    {"cutover", "", "close the source, drain, open the target; undone if it takes too long",
     cutover_options, 0, 0, false, command_cutover},
    {"rollback", "", "the same road back to the source, with everything written since",
     cutover_options, 0, 0, false, command_rollback},
    {"finish", "", "remove everything that lockstep put on both servers", finish_options, 0, 0,
     false, command_finish},
    {"docs", "config | cutover | types", "print a page that is generated from the tables",
     no_options, 1, 1, true, command_docs},
};
const size_t command_count = sizeof(commands) / sizeof(commands[0]);
