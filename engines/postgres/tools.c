/* Children. Between fork and exec only async-signal-safe calls are made, since other threads may
 * hold locks at the fork; so everything is built before. The child asks the kernel for its death
 * with ours, and looks once whether we are already gone. */
#include "engines/postgres/tools.h"

#include "core/run.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <libpq-fe.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SLICE_MS 50
/* Between a child's last word and its end. */
#define ENDING_MS 2
#define TERM_GRACE_MS 1000
#define VERSION_TIMEOUT_MS 10000

extern char **environ;

/* environ with PGPASSWORD replaced. NULL: out of memory. */
static char **child_environment(const char *password, char **own)
{
    size_t n = 0;
    size_t out = 0;

    *own = NULL;
    while (environ[n] != NULL)
        n++;
    char **env = calloc(n + 2, sizeof *env);
    if (env == NULL)
        return NULL;
    for (size_t i = 0; i < n; i++)
        if (password == NULL || strncmp(environ[i], "PGPASSWORD=", 11) != 0)
            env[out++] = environ[i];
    if (password != NULL) {
        if (asprintf(own, "PGPASSWORD=%s", password) < 0) {
            *own = NULL;
            free(env);
            return NULL;
        }
        env[out++] = *own;
    }
    return env;
}

static void child_main(const struct tool_run *r, char **env, int out_fd, pid_t parent)
{
    sigset_t none;

    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    int null = open("/dev/null", O_RDONLY);
    dup2(null, 0);
    dup2(out_fd, 1);
    dup2(out_fd, 2);
    syscall(SYS_close_range, 3u, ~0u, 0u);
    execve(r->argv[0], (char *const *)r->argv, env);
    _exit(127);
}

static void child_kill(pid_t pid, int *status)
{
    int64_t until = mono_ms() + TERM_GRACE_MS;

    kill(-pid, SIGTERM);
    while (mono_ms() < until) {
        if (waitpid(pid, status, WNOHANG) == pid)
            return;
        poll(NULL, 0, 10);
    }
    kill(-pid, SIGKILL);
    while (waitpid(pid, status, 0) < 0 && errno == EINTR)
        ;
}

/* Reads what the child prints until it has ended. 0, or -1 with *e set and the child killed. */
static int child_follow(const struct tool_run *r, pid_t pid, int fd, struct buf *out, int *status,
                        struct err *e)
{
    int64_t deadline = mono_ms() + r->timeout_ms;
    bool open_pipe = true;

    for (;;) {
        struct pollfd p = {.fd = open_pipe ? fd : -1, .events = POLLIN};
        char chunk[4096];
        ssize_t n = 1;

        if (poll(&p, 1, open_pipe ? SLICE_MS : ENDING_MS) > 0) {
            n = read(fd, chunk, sizeof chunk);
            open_pipe = n > 0 || (n < 0 && errno == EINTR);
            if (n > 0 && out->len + (size_t)n < TOOL_OUTPUT_MAX)
                buf_add(out, chunk, (size_t)n);
            deadline = mono_ms() + r->timeout_ms;
        }
        /* Its output may be held open by a grandchild: the end of the child itself counts. */
        if ((!open_pipe || p.revents == 0) && waitpid(pid, status, WNOHANG) == pid)
            return 0;
        if (stop_requested()) {
            child_kill(pid, status);
            return err_set(e, ERR_STOPPED, "asked to stop while %s ran", r->argv[0]);
        }
        if (mono_ms() >= deadline) {
            child_kill(pid, status);
            return err_set(e, ERR_RETRY, "%s did not end in %d ms and was killed: %s", r->argv[0],
                           r->timeout_ms, out->data != NULL ? out->data : "");
        }
    }
}

static int child_result(const struct tool_run *r, int status, const struct buf *out, struct err *e)
{
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        return err_set(e, ERR_FATAL, "%s cannot be run", r->argv[0]);
    err_set(e, ERR_FATAL, "%s failed (%s %d): %s", r->argv[0],
            WIFSIGNALED(status) ? "signal" : "exit code",
            WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
            out->data != NULL ? out->data : "");
    for (char *p = e != NULL ? e->msg : ""; *p != '\0'; p++)
        if (*p == '\n')
            *p = ' ';
    return -1;
}

int tool_run(const struct tool_run *r, struct err *e)
{
    struct buf own;
    struct buf *out = r->output != NULL ? r->output : &own;
    int fds[2] = {-1, -1};
    char *password = NULL;
    char **env = child_environment(r->password, &password);
    pid_t parent = getpid();
    int status = 0;
    int rc = -1;

    buf_init(&own, TOOL_OUTPUT_MAX);
    if (env == NULL || pipe2(fds, O_CLOEXEC) != 0) {
        err_set(e, ERR_FATAL, "cannot start %s: %s", r->argv[0], strerror(errno));
        goto out;
    }
    pid_t pid = fork();
    if (pid < 0) {
        err_set(e, ERR_RETRY, "cannot start %s: %s", r->argv[0], strerror(errno));
        goto out;
    }
    if (pid == 0)
        child_main(r, env, fds[1], parent);
    (void)setpgid(pid, pid); /* whichever of the two comes first: its group can be killed at once */
    close(fds[1]);
    fds[1] = -1;
    rc = child_follow(r, pid, fds[0], out, &status, e);
    if (rc == 0)
        rc = child_result(r, status, out, e);
out:
    if (fds[0] >= 0)
        close(fds[0]);
    if (fds[1] >= 0)
        close(fds[1]);
    if (password != NULL)
        explicit_bzero(password, strlen(password));
    free(password);
    free(env);
    buf_release(&own);
    return rc;
}

/* ---- which programs ---- */

/* "pg_dump (PostgreSQL) 15.20 (Debian …)" -> 15; 0: cannot be run, or says something else. */
static int major_of(const char *program)
{
    const char *argv[] = {program, "--version", NULL};
    struct buf out;
    int major = 0;

    buf_init(&out, TOOL_OUTPUT_MAX);
    struct tool_run r = {.argv = argv, .timeout_ms = VERSION_TIMEOUT_MS, .output = &out};
    if (tool_run(&r, NULL) == 0 && out.data != NULL) {
        const char *p = strstr(out.data, "(PostgreSQL) ");

        major = p != NULL ? atoi(p + strlen("(PostgreSQL) ")) : 0;
    }
    buf_release(&out);
    return major;
}

/* The lower of both programs' majors in dir; 0: not both are there. */
static int major_in(const char *dir)
{
    static const char *const programs[] = {"pg_dump", "pg_restore"};
    int lowest = 0;

    for (size_t i = 0; i < 2; i++) {
        char path[4096];

        snprintf(path, sizeof path, "%s/%s", dir, programs[i]);
        int major = access(path, X_OK) == 0 ? major_of(path) : 0;
        if (i == 0 || major < lowest)
            lowest = major;
    }
    return lowest;
}

static int newest_installed(struct arena *a, const char **dir)
{
    static const char *const patterns[] = {"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin",
                                           "/usr/local/pgsql/bin", "/usr/local/bin", "/usr/bin"};
    int best = 0;

    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0] && best == 0; i++) {
        glob_t found;

        if (glob(patterns[i], 0, NULL, &found) != 0)
            continue;
        for (size_t g = 0; g < found.gl_pathc; g++) {
            int major = major_in(found.gl_pathv[g]);

            if (major <= best)
                continue;
            best = major;
            *dir = arena_strdup(a, found.gl_pathv[g]);
        }
        globfree(&found);
    }
    return best;
}

int tool_find(const char *bindir, int server_version, struct arena *a, const char **dir,
              struct err *e)
{
    int wanted = server_version / 10000;
    int major;

    if (bindir != NULL && bindir[0] != '\0') {
        *dir = bindir;
        major = major_in(bindir);
    } else {
        *dir = "the usual places";
        major = newest_installed(a, dir);
    }
    if (major == 0)
        err_set(e, ERR_REFUSED, "pg_dump and pg_restore were not found in %s", *dir);
    else if (major < wanted)
        err_set(e, ERR_REFUSED, "pg_dump in %s is version %d, older than the source's %d", *dir,
                major, wanted);
    else
        return 0;
    return err_hint(e, "install postgresql-client-%d, or set pg_bindir to where its programs are",
                    wanted);
}

/* ---- how it connects ---- */

static void conninfo_add(struct buf *b, const char *key, const char *value)
{
    buf_addf(b, "%s%s='", b->len > 0 ? " " : "", key);
    for (const char *p = value; *p != '\0'; p++) {
        if (*p == '\'' || *p == '\\')
            buf_addc(b, '\\');
        buf_addc(b, *p);
    }
    buf_addc(b, '\'');
}

int tool_conninfo(const char *uri, const char *application_name, struct arena *a,
                  const char **conninfo, const char **password, struct err *e)
{
    PQconninfoOption *options = PQconninfoParse(uri, NULL);
    struct buf b;

    if (options == NULL)
        return err_set(e, ERR_CONFIG, "the connection URI cannot be parsed");
    *password = NULL;
    buf_init(&b, TOOL_OUTPUT_MAX);
    for (PQconninfoOption *o = options; o->keyword != NULL; o++) {
        if (o->val == NULL || strcmp(o->keyword, "application_name") == 0 ||
            strcmp(o->keyword, "sslpassword") == 0)
            continue;
        if (strcmp(o->keyword, "password") == 0) {
            *password = arena_strdup(a, o->val);
            continue;
        }
        conninfo_add(&b, o->keyword, o->val);
    }
    conninfo_add(&b, "application_name", application_name);
    int rc = buf_check(&b, "conninfo", e);
    if (rc == 0)
        *conninfo = arena_strdup(a, b.data);
    buf_release(&b);
    PQconninfoFree(options);
    return rc;
}
