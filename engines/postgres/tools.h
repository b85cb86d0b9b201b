/* The server's own programs, pg_dump and pg_restore, as children that die with us. */
#ifndef LOCKSTEP_ENGINES_POSTGRES_TOOLS_H
#define LOCKSTEP_ENGINES_POSTGRES_TOOLS_H

#include "core/arena.h"
#include "core/buf.h"

/* What a child may print; more is thrown away. */
#define TOOL_OUTPUT_MAX ((size_t)64 * 1024)

struct tool_run {
    const char *const *argv; /* [0]: the program's path; NULL-terminated; no password in it */
    const char *password;    /* travels as PGPASSWORD in the child's environment, or NULL */
    int timeout_ms;          /* without a byte of output and without an end: killed */
    struct buf *output;      /* stdout and stderr together, or NULL */
};

/* Runs it to its end. It is killed at a stop request (ERR_STOPPED), at the timeout (ERR_RETRY) and
 * when the calling thread dies. A failure carries what it printed. */
int tool_run(const struct tool_run *r, struct err *e);
/* The directory of pg_dump and pg_restore to use: bindir, or (NULL) the newest that is installed.
 * ERR_REFUSED if there is none or its major version is below that of the server. */
int tool_find(const char *bindir, int server_version, struct arena *a, const char **dir,
              struct err *e);
/* The URI as a conninfo for a command line: without its password, which goes to *password (NULL:
 * none in it), with this application_name. From the arena. */
int tool_conninfo(const char *uri, const char *application_name, struct arena *a,
                  const char **conninfo, const char **password, struct err *e);

#endif
